"""The nodes of a training over several machines, as the environment of this one describes them.

Reads the variables that torchrun takes its arguments from (PET_ and the name of the argument, torch/distributed/argparse_util.py), so that
whatever starts torchrun starts this too:

    PET_NNODES          the number of nodes. Without it, or with 1, a training stays on this machine, and nothing else is read
    PET_NODE_RANK       the number of this node. Node 0, the first one, runs the stage; the others run ranks for it
    PET_NPROC_PER_NODE  ranks of each node
    PET_RDZV_ENDPOINT   HOST:PORT where the nodes meet: the first one listens there, on all of its addresses
    PET_RDZV_BACKEND    c10d, the only one
    PET_RDZV_CONF       NAME=VALUE,... of torch's rendezvous. join_timeout: seconds that nodes wait for each other, default 600
    PET_MAX_RESTARTS    how often ranks start again after one of them failed or its node was lost; default 3

Writes nothing. Whoever reaches the port can run code on the nodes, since torch's rendezvous exchanges pickles, and so can whoever reaches
the ports of gloo and NCCL change what they train: nodes belong in a closed network.
"""

import errno
import os
import socket
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from model.errors import UserError

VARIABLES = (
    "PET_NNODES",
    "PET_NODE_RANK",
    "PET_NPROC_PER_NODE",
    "PET_RDZV_ENDPOINT",
    "PET_RDZV_BACKEND",
    "PET_RDZV_CONF",
    "PET_MAX_RESTARTS",
)
BACKEND = "c10d"
DEFAULT_PORT = 29500  # torch's
JOIN_SECONDS = 600  # torch's: a node that was lost may take as long to come back
NAME_SECONDS = 60.0  # the name of a pod that has just started is not everywhere at once


class Node(NamedTuple):
    """This machine, as one of several nodes."""

    num_nodes: int
    rank: int
    ranks_per_node: int
    host: str
    port: int
    max_restarts: int
    settings: dict[str, str]  # of torch's rendezvous

    @property
    def is_first(self) -> bool:
        """Whether this node runs the stage, and the others meet here."""
        return self.rank == 0

    @property
    def endpoint(self) -> str:
        """HOST:PORT."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def join_seconds(self) -> int:
        """How long nodes wait for each other."""
        return int(self.settings["join_timeout"])


def this_node(environment: Mapping[str, str] = os.environ) -> Node | None:
    """This machine among several nodes, None where it trains alone. Raises UserError where a variable is missing or wrong."""
    num_nodes = _number(environment, "PET_NNODES", 1, default="1")
    if num_nodes == 1:
        return None
    rank = _number(environment, "PET_NODE_RANK", 0)
    if rank >= num_nodes:
        raise UserError(
            f"PET_NODE_RANK={rank}: with PET_NNODES={num_nodes} nodes are numbered from 0 to {num_nodes - 1}"
        )
    if (backend := environment.get("PET_RDZV_BACKEND", BACKEND)) != BACKEND:
        raise UserError(f"PET_RDZV_BACKEND={backend}: nodes meet by {BACKEND}, set that or leave the variable out")
    host, port = _endpoint(_text(environment, "PET_RDZV_ENDPOINT"))
    settings = _settings(environment.get("PET_RDZV_CONF", ""))
    return Node(
        num_nodes,
        rank,
        _number(environment, "PET_NPROC_PER_NODE", 1),
        host,
        port,
        _number(environment, "PET_MAX_RESTARTS", 0, default="3"),
        settings,
    )


def check_first(node: Node, num_ranks: int) -> None:
    """Raises UserError where `node` cannot be the first one of a stage with so many ranks."""
    if not node.is_first:
        raise UserError(
            f"PET_NODE_RANK={node.rank}: the first node, PET_NODE_RANK=0, runs the stage; this one joins it by `crawl2chat run RECIPE "
            "--only STAGE`"
        )
    if num_ranks != node.num_nodes * node.ranks_per_node:
        raise UserError(
            f"num_ranks={num_ranks}, but PET_NNODES={node.num_nodes} nodes with PET_NPROC_PER_NODE={node.ranks_per_node} have "
            f"{node.num_nodes * node.ranks_per_node}: set one of them right"
        )
    if not any(_is_here(address) for address in _addresses(node)):
        raise UserError(
            f"PET_RDZV_ENDPOINT={node.endpoint}: {node.host} is no address of this machine, whose PET_NODE_RANK is 0: name one by which "
            "the other nodes reach it"
        )


def await_first(node: Node) -> None:
    """Wait until the first node listens. Raises UserError after `join_seconds`."""
    deadline = time.monotonic() + node.join_seconds
    while True:
        try:
            socket.create_connection((node.host, node.port), timeout=5.0).close()
        except OSError as error:  # refused, not reached, or a name that is not known, each of which may pass
            if time.monotonic() > deadline:
                raise UserError(
                    f"the first node did not answer at PET_RDZV_ENDPOINT={node.endpoint} within {node.join_seconds} s ({error}): is this its "
                    "address, does it run the same stage, and is the port open?"
                ) from None
            time.sleep(1.0)
        else:
            return


def interface_towards(node: Node) -> str:
    """The network interface of this machine by which it reaches the first node, "" where that is not found out (IPv6)."""
    import fcntl

    # Connecting a socket for datagrams sends nothing: the kernel chooses the route, and with it this end's address.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((node.host, node.port))
            address = socket.inet_aton(probe.getsockname()[0])
        except OSError:
            return ""
        for _, name in socket.if_nameindex():
            try:
                # SIOCGIFADDR of <linux/sockios.h>: bytes 20 to 24 of struct ifreq are the IPv4 address of the interface.
                found = fcntl.ioctl(probe.fileno(), 0x8915, name.encode()[:15].ljust(256, b"\0"))[20:24]
            except OSError:  # an interface without an address
                continue
            if found == address:
                return name
    return ""


def _addresses(node: Node) -> list[str]:
    deadline = time.monotonic() + NAME_SECONDS
    while True:
        try:
            return [str(info[4][0]) for info in socket.getaddrinfo(node.host, node.port, type=socket.SOCK_STREAM)]
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"PET_RDZV_ENDPOINT={node.endpoint}: the name {node.host} was not known for {NAME_SECONDS:.0f} s ({error})"
                ) from None
            time.sleep(1.0)


def _is_here(address: str) -> bool:
    """Whether an address is one of this machine: only then a socket can have it."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True


def _text(environment: Mapping[str, str], name: str) -> str:
    if not (text := environment.get(name, "")):
        raise UserError(
            f"PET_NNODES={environment['PET_NNODES']}, and {name} is not set: `crawl2chat plan` prints what each node needs"
        )
    return text


def _number(environment: Mapping[str, str], name: str, least: int, default: str = "") -> int:
    text = environment.get(name, "") or default or _text(environment, name)
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) >= least):
        raise UserError(f"{name}={text}: take a number from {least} on")
    return int(text)


def _endpoint(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.path or parts.username:
        raise UserError(
            f"PET_RDZV_ENDPOINT={text}: write it as HOST:PORT, the first node's address and a free port of it"
        )
    return host, port or DEFAULT_PORT


def _settings(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    settings = {"join_timeout": str(JOIN_SECONDS)} | {name.strip(): value.strip() for name, _, value in pairs}
    if not all(value.isdecimal() for name, value in settings.items() if name.endswith(("timeout", "interval"))):
        raise UserError(f"PET_RDZV_CONF={text}: write NAME=SECONDS,..., such as join_timeout=600")
    return settings
