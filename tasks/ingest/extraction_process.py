"""Extraction in a process of its own, which can be killed.

Reads the bodies of pages, which are made by strangers: everything that parses them is here, from the charset on. A page can keep a
parser busy in C code, where no signal reaches it: one tag with 100,000 attributes holds libxml2 for minutes. It can also take all
memory, or end the process. Here each of these costs the page, told by its reason, and a new process, half a second, and nothing
else. A process is also followed by another when it has grown: parsers and their caches do not give back all they took.
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

from tasks.ingest.extractors import Extractor, extract
from tasks.ingest.http_response import Body, Dropped, decode

MEMORY_BYTES = 2 * 2**30  # of address space, beyond what the process has when it is ready
GROWN_BYTES = 512 * 2**20  # resident, likewise
SUSPECT_FRACTION = 0.75  # of the memory; trafilatura finds no text where memory ends, and does not say why
PAGES_PER_PROCESS = 5_000
PAGES_PER_COLLECTION = 100  # of cyclic garbage; Python alone would look for it 20 times a page, and find next to none
READY_SECONDS = 120.0


class Settings(NamedTuple):
    """How text is made of a page, and what it may cost. Without `languages` there is no look."""

    extractor: Extractor
    max_seconds: float
    languages: tuple[str, ...] = ()
    min_language_score: float = 0.0
    language_model: str = ""
    memory_bytes: int = MEMORY_BYTES


@cache
def extraction(settings: Settings) -> "Extraction":
    """The one of this process, which ends with it."""
    return Extraction(settings)


class Extraction:
    """Extracts the text of one page after the other, each within the limits of `settings`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None
        self.num_pages = 0  # by this process
        multiprocessing.util.Finalize(self, self.stop, exitpriority=10)

    def text(self, body: Body) -> str:
        """Raises Dropped where there is none (empty/text), not in time (empty/timeout) or not in memory (empty/memory), where the
        process died of it (empty/killed), and where the page is in another language (language/CODE).
        """
        if self.process is None:
            self._start()
        try:
            self.connection.send(body)
            if not self.connection.poll(self.settings.max_seconds):
                self.stop()
                raise Dropped("empty/timeout")
            reason, text, grown_bytes = json.loads(
                self.connection.recv_bytes()
            )  # no pickle of one who reads such pages
        except (EOFError, OSError):
            self.stop()
            raise Dropped("empty/killed") from None
        self.num_pages += 1
        if self.num_pages == PAGES_PER_PROCESS or grown_bytes > GROWN_BYTES or reason == "empty/memory":
            self.stop()
        if reason:
            raise Dropped(reason)
        return str(text)

    def stop(self) -> None:
        if self.process is not None:
            self.connection.close()
            self.process.kill()
            self.process.wait()
            self.process = None

    def _start(self) -> None:
        """A fresh interpreter: one that multiprocessing starts would import the command line with Prefect again."""
        ours, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"from tasks.ingest.extraction_process import serve; serve({theirs.fileno()})"],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        theirs.close()  # so that its death is seen here
        self.connection, self.num_pages = Connection(ours.detach()), 0
        self.connection.send(self.settings)
        if not self.connection.poll(READY_SECONDS):
            raise RuntimeError(
                f"the extraction process was not ready after {READY_SECONDS:.0f} s: is the machine overloaded?"
            )
        self.connection.recv_bytes()


def serve(descriptor: int) -> None:
    """What the process does: settings and pages in, (reason, text, bytes grown) out, until nobody listens."""
    connection = Connection(descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the stage ends it
    settings: Settings = connection.recv()
    if settings.extractor != "resiliparse":
        from tasks.ingest.trafilatura_xpaths import patch_trafilatura

        patch_trafilatura()
    prefilter = _prefilter(settings) if settings.languages else None
    gc.freeze()
    gc.disable()
    ready = _memory()
    limit = ready["VmSize"] + settings.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    connection.send_bytes(b"ready")
    for number in itertools.count(1):
        try:
            body: Body = connection.recv()
        except EOFError:
            return
        reason, text = _result(body, settings.extractor, prefilter)
        memory = _memory()
        if reason == "empty/text" and memory["VmPeak"] > ready["VmSize"] + SUSPECT_FRACTION * settings.memory_bytes:
            reason = "empty/memory"
        if number % PAGES_PER_COLLECTION == 0:
            gc.collect()
        connection.send_bytes(json.dumps([reason, text, memory["VmRSS"] - ready["VmRSS"]]).encode())


def _prefilter(settings: Settings) -> Callable[[str], None]:
    """The look at a page that is asked for. Half of what this process would import, where none is."""
    from tasks.ingest.language_prefilter import prefilter_language
    from tasks.web import language_id

    model = language_id.load_model(Path(settings.language_model))
    return lambda html: prefilter_language(html, settings.languages, settings.min_language_score, model)


def _result(body: Body, extractor: Extractor, prefilter: Callable[[str], None] | None) -> tuple[str, str]:
    """The reason why there is no text, or the text."""
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
