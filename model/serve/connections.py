"""Connections that wait a bounded time for a request. Reads and writes nothing.

uvicorn waits for ever for the end of a request's head, so that whoever sends a byte a minute holds a connection (Slowloris). The body is
bounded in guard.py.
"""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 20.0


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 of uvicorn, by h11, whose head of a request is bounded in bytes already."""

    _timer: asyncio.TimerHandle | None = None
    _has_begun = False  # with a head: a browser may open a connection before it needs one

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection is open."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self._has_begun = True
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self.transport.is_closing() or (self.cycle is not None and not self.cycle.response_complete):
            return
        if self._has_begun:
            self.send_400_response(f"The head of the request did not arrive within {HEAD_SECONDS:g} s.")
        else:
            self.transport.close()
