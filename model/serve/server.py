"""The process that serves: a socket, uvicorn, and what is printed. Writes nothing; requests are not logged."""

import logging
import socket
from collections.abc import Callable, Mapping, Sequence

import uvicorn
from fastapi import APIRouter

from model.errors import UserError
from model.serve.app import create_app
from model.serve.connections import BoundedProtocol
from model.serve.guard import LOOPBACK
from model.serve.served import ServedModel
from model.tokenizer.chat import ChatTokenizer

GRACE = 5  # seconds that requests have to end when the server is stopped


def run_server(
    served: Sequence[ServedModel],
    *,
    host: str,
    port: int,
    api_key: str | None,
    routers: Sequence[APIRouter] = (),
    vocabularies: Mapping[str, ChatTokenizer] | None = None,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve until SIGINT or SIGTERM. Raises UserError where the address cannot be used, or lets others in without a key."""
    check_address(host, api_key)
    app = create_app(
        served,
        api_key=api_key,
        routers=routers,
        vocabularies=vocabularies,
        hosts=LOOPBACK if host in LOOPBACK else None,
    )
    with _listen(host, port) as opened:
        names = ", ".join(f"{one.id} ({one.lineage})" for one in served)
        shown = "localhost" if host in LOOPBACK else host
        announce(f"Models: {names}")
        announce(
            f"Open http://{shown}:{opened.getsockname()[1]}/ or give http://{shown}:{opened.getsockname()[1]}/v1 to a client. Ctrl-C ends."
        )
        # No access log, and no traceback with a request in it: model/serve/guard.py logs the type of an error.
        config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            ws="none",
            log_level=logging.WARNING,
            access_log=False,
            timeout_graceful_shutdown=GRACE,
            server_header=False,
        )
        uvicorn.Server(config).run(sockets=[opened])


def check_address(host: str, api_key: str | None) -> None:
    """Raises UserError where an address lets other machines in and there is no key."""
    if host not in LOOPBACK and not api_key:
        raise UserError(
            f"--host {host} lets other machines in: give a key that they must send, --api-key or CRAWL2CHAT_API_KEY"
        )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        opened = socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen at {host} port {port}: {error}: take another --port or --host") from None
    # asyncio sets it only where a socket names its protocol. Without it an answer waits 40 ms for the client to acknowledge its head.
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted connections inherit it
    return opened
