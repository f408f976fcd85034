"""The sandbox in which text is extracted: a separate process, with limits of CPU time and memory for each page.

Reads the bodies of pages, which strangers wrote: everything that parses them runs here, from the charset on. A page can keep a parser
busy in C code, where Python runs no signal handler (100,000 attributes in one tag hold libxml2 for minutes); it can take all memory,
or crash the process. In the sandbox each of these costs this page, which is dropped with a reason, and nothing else.

Limits are per page and grow with its size, so that a page is kept or dropped whatever came before it and however busy the machine is:
- CPU time (ITIMER_PROF, whose SIGPROF the kernel sends and nothing in the process handles). Wall time has a limit 60 times as large,
  for a process that hangs without computing. Wall time alone dropped pages whenever the machine was busy.
- Address space (RLIMIT_AS).

The sandbox is a server that has imported the parsers, and forks a child that reads pages. If a page ends the child, the server
reports why and forks the next child, which costs less than a new interpreter. A child is also replaced when it has
grown, because parsers and their caches do not return all memory.
"""

import gc
import itertools
import json
import multiprocessing.util
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from model.processes import die_with_parent
from tasks.ingest.charset import decode
from tasks.ingest.dropped import Dropped
from tasks.ingest.extractors import Extractor, extract
from tasks.ingest.http_response import Body

MEMORY_BYTES = 160 * 2**20  # the heaviest real page tried (1.2 MB) takes a third of what this allows
GROWN_BYTES = 64 * 2**20  # resident memory beyond that of a new child, after which the child is replaced
PEAK_BYTES = 256 * 2**20  # likewise of address space
SUSPECT_FRACTION = 0.75  # of the memory; trafilatura finds no text if memory ends, and does not say why
PAGES_PER_CHILD = 5_000
PAGES_PER_COLLECTION = 100  # of cyclic garbage; Python alone would look for it 20 times a page, and find next to none
WALL_FACTOR, WALL_SECONDS = 60, 60.0  # wall time is limited to so many times the CPU time, plus as much
READY_SECONDS = 300.0
RETIRED = 3  # exit status of a child that is to be replaced


class Settings(NamedTuple):
    """How text is extracted, and what a page may cost. Without `languages` there is no language prefilter.

    `page_seconds` of CPU time and `memory_bytes` are allowed once for each page, and again for each MiB of its HTML.
    """

    extractor: Extractor
    page_seconds: float
    languages: tuple[str, ...] = ()
    min_language_score: float = 0.0
    language_model: str = ""
    memory_bytes: int = MEMORY_BYTES

    def scale(self, body: Body) -> float:
        """The factor of a page's limits: 1, and 1 more for each MiB of HTML."""
        return 1 + len(body.content) / 2**20


@cache
def sandbox(settings: Settings) -> "Sandbox":
    """The sandbox of this process, which ends with it."""
    return Sandbox(settings)


class Sandbox:
    """Extracts the text of one page after the other, each within the limits of `settings`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.server: subprocess.Popen[bytes] | None = None
        # Not atexit: a worker of a multiprocessing pool ends without running those functions.
        multiprocessing.util.Finalize(self, self.stop, exitpriority=10)

    def extract(self, body: Body) -> str:
        """The text of a page.

        Raises Dropped: empty/text (the page has no text), empty/timeout, empty/memory, empty/killed (the process died of it), empty/error
        (the parser failed) or language/CODE (the page is in another language).
        """
        if self.server is None:
            self._start()
        try:
            self.connection.send(body)
            seconds = self.settings.page_seconds * self.settings.scale(body)
            # The child's CPU limit ends nearly every slow page; this wait is for a process that hangs without computing.
            if not self.connection.poll(WALL_SECONDS + WALL_FACTOR * seconds):
                self.stop()
                raise Dropped("empty/timeout")
            reason, text = json.loads(self.connection.recv_bytes())  # no pickle from a process that parses such pages
        except (EOFError, OSError, ValueError):
            self.stop()
            raise Dropped("empty/killed") from None
        if reason:
            raise Dropped(reason)
        return str(text)

    def stop(self) -> None:
        """Kill the server and its child."""
        if self.server is not None:
            self.connection.close()
            # The group: the child that reads the page is a process of its server.
            os.killpg(self.server.pid, signal.SIGKILL)
            self.server.wait()
            self.server = None

    def _start(self) -> None:
        """Start a fresh interpreter: one that multiprocessing starts would import the command line with Prefect again."""
        ours, theirs = socket.socketpair()
        self.server = subprocess.Popen(
            [sys.executable, "-c", f"from tasks.ingest.extraction_process import serve; serve({theirs.fileno()})"],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            process_group=0,
        )
        theirs.close()  # so that the death of the server is seen here
        self.connection = Connection(ours.detach())
        self.connection.send(self.settings)
        if not self.connection.poll(READY_SECONDS):
            raise RuntimeError(
                f"the extraction process was not ready after {READY_SECONDS:.0f} s: is the machine overloaded?"
            )
        self.connection.recv_bytes()


def serve(descriptor: int) -> None:
    """The server: receive settings, import what they need, and keep one child that serves pages until the other end closes."""
    die_with_parent()
    connection = Connection(descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the stage ends it
    settings: Settings = connection.recv()
    extract(
        "<html><body><p>Imports what the extractor imports at its first page.</p></body></html>", settings.extractor
    )
    prefilter = _prefilter(settings) if settings.languages else None
    # Objects of the imports leave the collector, so that no collection in a child walks over them and copies their pages of memory.
    gc.collect()
    gc.freeze()
    gc.disable()
    connection.send_bytes(b"ready")
    while True:
        child = os.fork()
        if not child:
            die_with_parent()
            os._exit(_serve_pages(connection, settings, prefilter))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        # A child that exits by itself has seen the other end close, unless it is to be replaced.
        if status >= 0 and status != RETIRED:
            return
        if status < 0:  # between two pages a child does nothing that could end it, so that a page was sent
            reason = "empty/timeout" if status == -signal.SIGPROF else "empty/killed"
            connection.send_bytes(json.dumps([reason, ""]).encode())


def _serve_pages(connection: Connection, settings: Settings, prefilter: Callable[[str], None] | None) -> int:
    """The child: pages in, (reason, text) out. Returns its exit status."""
    before = start = _memory()
    for number in itertools.count(1):
        try:
            body: Body = connection.recv()
        except (EOFError, OSError):
            return 0
        allowed = int(settings.memory_bytes * settings.scale(body))
        # Of address space, over what the process has now: what is left from earlier pages does not count against this one.
        _limit_memory(before["VmSize"] + allowed)
        signal.setitimer(signal.ITIMER_PROF, settings.page_seconds * settings.scale(body))
        reason, text = _result(body, settings.extractor, prefilter)
        signal.setitimer(signal.ITIMER_PROF, 0)
        # Lifted before the answer is encoded: a limit that is reached there would end the child after the page was read.
        _limit_memory(resource.RLIM_INFINITY)
        memory = _memory()
        if reason == "empty/text" and memory["VmPeak"] > max(
            before["VmSize"] + SUSPECT_FRACTION * allowed, before["VmPeak"]
        ):
            reason = "empty/memory"
        if number % PAGES_PER_COLLECTION == 0:
            gc.collect()
        connection.send_bytes(json.dumps([reason, text]).encode())
        before = memory
        is_grown = memory["VmRSS"] > start["VmRSS"] + GROWN_BYTES or memory["VmPeak"] > start["VmSize"] + PEAK_BYTES
        if number == PAGES_PER_CHILD or is_grown or reason == "empty/memory":
            return RETIRED
    raise AssertionError


def _limit_memory(num_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (num_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _prefilter(settings: Settings) -> Callable[[str], None]:
    """The language prefilter. Imported only if requested: it is half of this process's imports."""
    from tasks.ingest.language_prefilter import prefilter_language
    from tasks.web import language_id

    model = language_id.load_model(Path(settings.language_model))
    return lambda html: prefilter_language(html, settings.languages, settings.min_language_score, model)


def _result(body: Body, extractor: Extractor, prefilter: Callable[[str], None] | None) -> tuple[str, str]:
    """The reason why the page is dropped, or its text."""
    try:
        html = decode(*body)
        if prefilter:
            prefilter(html)
        return "", extract(html, extractor)
    except MemoryError:
        return "empty/memory", ""
    except Dropped as dropped:
        return str(dropped), ""


def _memory() -> dict[str, int]:
    """Address space, now and at its peak, and resident memory of this process, in bytes."""
    fields = re.findall(r"(Vm\w+):\s+(\d+) kB", Path("/proc/self/status").read_text())
    return {name: int(kilobytes) * 1024 for name, kilobytes in fields}
