"""Runs of the command `crawl2chat` that are killed: start one, find its processes, kill one, and see what is left and what a rerun makes.

Every process of a run inherits a mark in its environment, by which it is found in /proc wherever its parents went.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tasks.artifacts.manifest import Manifest
from tasks.artifacts.store import Store
from tests.support.prefect_home import provide_database

MARK = "CRAWL2CHAT_KILL_MARK"
POLL_SECONDS = 0.05
ORPHAN_SECONDS = 10.0
CLOCKED = ("metrics.jsonl", "run.json", "run.log", "summary.json", "tfevents", "report.", "README.md")  # hold times

SMALL_MODEL = [
    "pretrain.model.width=32",
    "pretrain.model.num_layers=1",
    "pretrain.model.num_heads=2",
    "pretrain.model.num_kv_heads=2",
    "pretrain.model.head_width=16",
    "pretrain.model.ff_width=64",
]


@dataclass
class Outcome:
    """What one kill led to. `is_killed` is false where the run had ended before the moment of the kill came."""

    is_killed: bool = True
    is_hung: bool = False
    orphans: list[str] = field(default_factory=list)
    num_two_writers: int = 0
    status: int | None = None  # of the rerun
    output: str = ""  # of the rerun


class MarkedRun:
    """A run of the command in `store`. All its processes carry `mark`."""

    def __init__(self, store: Path, home: Path, mark: str, arguments: Iterable[str]) -> None:
        unique = f"{mark}-{secrets.token_hex(8)}"  # several tries may run at the same time
        self.mark = f"{MARK}={unique}".encode()
        self.log = store.parent / f"{mark}.log"
        environment = {
            **os.environ,
            MARK: unique,
            "CRAWL2CHAT_STORE": str(store),
            "PREFECT_HOME": str(provide_database(home)),
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli.main", "run", "tiny", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def processes(self) -> dict[int, str]:
        """The kind of every process of this run that lives, by its id."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and self.is_ours(int(entry.name)):
                found[int(entry.name)] = self._kind(int(entry.name))
        return found

    def is_ours(self, pid: int) -> bool:
        """Whether a process lives and carries the mark: the environment of one that has ended is empty."""
        try:
            return self.mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            return False

    def writers(self) -> list[int]:
        """Processes of this run that write into a stage's folder: they keep a lock on its file, see model/processes.py."""
        return [pid for pid in self.processes() if _holds(pid, ".lease.writers")]

    def _kind(self, pid: int) -> str:
        if pid == self.process.pid:
            return "command"
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return "gone"
        if "multiprocessing.forkserver" in line:  # workers are forked from it and have its command line
            return "forkserver" if parent == self.process.pid else "worker"
        if "model.training.ranks" in line:
            return "agent" if "model.training.local_ranks" in line else "rank"
        return "server" if "uvicorn" in line else "other"

    def await_processes(self, kind: str, seconds: float) -> list[int]:
        """Processes of a kind, as soon as there are some; none where the run ends before. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            if found := sorted(pid for pid, one in self.processes().items() if one == kind):
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {kind} within {seconds:.0f} s: {self.log.read_text()}")
            time.sleep(POLL_SECONDS)
        return []

    def end(self) -> None:
        """Kill whatever is left of it."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def kill_and_rerun(
    start: Callable[[str], MarkedRun], kind: str, moment: Callable[[MarkedRun], None], choose: Callable[[list[int]], int],
    limit_seconds: float,
) -> Outcome:  # fmt: skip
    """Kill one process of `kind` of a run, let the same command run again at once, and observe both.

    `start` starts the run with the mark it is given. `moment` waits, once such a process lives, for the time to kill. `choose` picks one.
    A command that is not the victim has to end by itself: the rerun starts when it has. One that has not ended after `limit_seconds` hangs.
    """
    first = start("first")
    second: MarkedRun | None = None
    outcome = Outcome()
    try:
        first.await_processes(kind, limit_seconds)
        moment(first)
        victims = sorted(pid for pid, one in first.processes().items() if one == kind)
        if not victims or first.process.poll() is not None:
            outcome.is_killed = False
            return outcome
        with suppress(ProcessLookupError):
            os.kill(choose(victims), signal.SIGKILL)
        try:
            first.process.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            outcome.is_hung = True
            return outcome
        second = start("second")
        _observe(first, second, outcome, time.monotonic() + limit_seconds)
        return outcome
    finally:
        first.end()
        if second is not None:
            second.end()
            outcome.output = second.log.read_text(errors="replace")


def _observe(first: MarkedRun, second: MarkedRun, outcome: Outcome, deadline: float) -> None:
    """Follow the rerun to its end, and what is left of the run before it for ORPHAN_SECONDS."""
    until = time.monotonic() + ORPHAN_SECONDS
    is_checked = False
    while not is_checked or second.process.poll() is None:
        left = first.processes()
        # The first run's are listed last: a process that ended meanwhile is no second writer.
        if left and second.writers() and first.writers():
            outcome.num_two_writers += 1
        if not is_checked and (not left or time.monotonic() > until):
            outcome.orphans = list(left.values())
            is_checked = True
        if time.monotonic() > deadline:
            outcome.is_hung = True
            return
        time.sleep(POLL_SECONDS)
    outcome.status = second.process.returncode


def _holds(pid: int, name: str) -> bool:
    """Whether a process has a file of that name open."""
    try:
        return any(name in str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def digests(manifest: Manifest) -> dict[str, str]:
    """SHA-256 by file, of the files that must have the same bytes whenever they are made: not of logs, clocks and reports."""
    return {file.path: file.sha256 for file in manifest.files if not any(part in file.path for part in CLOCKED)}


def without(finished: Path, folder: Path, stage: str) -> Store:
    """A copy of a finished store without the artifact of `stage`."""
    folder.mkdir(parents=True)
    shutil.copytree(finished, folder / "store")
    store = Store(str(folder / "store"))
    shutil.rmtree(store.folder(store.latest("tiny", stage)))
    return store
