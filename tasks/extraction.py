"""Extraction in a process of its own, which can be killed.

A page can keep a parser busy in C code, where no signal reaches it: one tag with 100,000 attributes holds libxml2 for minutes. It
can also take all memory, or end the process. Here each of these costs the page and a new process, half a second, and nothing else.
"""

import multiprocessing
import resource
import signal
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from tasks.page import Dropped, Extractor, extract

MEMORY_BYTES = 4 * 2**30  # of address space, beyond what the process has when it is ready
READY_SECONDS = 120.0


@cache
def extraction(extractor: Extractor, max_seconds: float) -> "Extraction":
    """The one of this process, which ends with it."""
    return Extraction(extractor, max_seconds)


class Extraction:
    """Extracts the text of one page after the other, each in at most `max_seconds`."""

    def __init__(self, extractor: Extractor, max_seconds: float) -> None:
        self.extractor = extractor
        self.max_seconds = max_seconds
        self.process: BaseProcess | None = None

    def text(self, html: str) -> str:
        """Raises Dropped where there is none (empty/text), or not in time (empty/timeout), or the process died of it (empty/killed)."""
        if self.process is None:
            self._start()
        try:
            self.connection.send(html)
            if not self.connection.poll(self.max_seconds):
                self.stop()
                raise Dropped("empty/timeout")
            reason, text = self.connection.recv()
        except (EOFError, OSError):
            self.stop()
            raise Dropped("empty/killed") from None
        if reason:
            raise Dropped(reason)
        return str(text)

    def stop(self) -> None:
        if self.process is not None:
            self.connection.close()
            self.process.kill()
            self.process.join()
            self.process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.extractor), daemon=True)
        self.process.start()
        theirs.close()  # so that its death is seen here
        if not self.connection.poll(READY_SECONDS):
            raise RuntimeError(
                f"the extraction process was not ready after {READY_SECONDS:.0f} s: is the machine overloaded?"
            )
        self.connection.recv()


def _serve(connection: Connection, extractor: Extractor) -> None:
    """What the process does: pages in, (reason, text) out, until nobody listens."""
    import trafilatura  # noqa: F401 - before the clock runs

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the stage ends it
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    connection.send("ready")
    while True:
        try:
            html = connection.recv()
        except EOFError:
            return
        try:
            connection.send(("", extract(html, extractor)))
        except Dropped as dropped:
            connection.send((str(dropped), ""))
