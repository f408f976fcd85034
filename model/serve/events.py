"""Server-sent events: an answer in pieces, each a line of JSON (https://html.spec.whatwg.org/multipage/server-sent-events.html).

Reads and writes nothing. The end is `data: [DONE]`, as in OpenAI's API. An error in the middle is an event too, since the status has been sent.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from model.serve.errors import ApiError
from model.serve.follow import while_connected


class EventStream(Response):
    """Sends pieces as they come. What is refused before the first piece is answered with its status."""

    def __init__(self, request: Request, pieces: AsyncGenerator[dict[str, Any]]) -> None:
        self.request, self.pieces = request, pieces
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application of this answer. A client that hangs up ends it."""
        # aclosing: a client may hang up while nothing is asked of the generator, and its `finally` frees the rows.
        async with aclosing(self.pieces):
            with suppress(ClientDisconnect):
                await while_connected(self.request, self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        # Waits for the first piece, so that a full queue is a status and not an event.
        first = await anext(self.pieces, None)
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            if first is not None:
                await _send_event(send, _line(first))
                async for piece in self.pieces:
                    await _send_event(send, _line(piece))
        except ApiError as error:
            await _send_event(send, _line(error.body()))
        else:
            await _send_event(send, "[DONE]")
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _line(piece: dict[str, Any]) -> str:
    return json.dumps(piece, ensure_ascii=False, separators=(",", ":"))


async def _send_event(send: Send, data: str) -> None:
    await send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True})
