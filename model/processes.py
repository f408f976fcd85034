"""Processes that end with whoever started them, and that write only while their stage holds its lease.

A stage starts training ranks, the agent that starts several of them, and workers for shards. All of these write into the stage's
folder. None may live on when the stage is killed: a second run would find the folder in use by a process that nobody sees. Three
things see to it, since each alone has a gap:

    the parent-death signal   the kernel kills a child at once when its parent dies; it knows nothing of a grandparent
    a watching thread         once a second it asks whether the lease is still the one that the stage started with, and whether its
                              holder lives; it cannot run while C code holds Python's lock
    `check_lease()`           called before each checkpoint and each line of metrics

Reads the lease file of `tasks.execution.lease`: JSON with a token, next to it FILE.alive, on which the holder keeps a kernel lock,
and FILE.writers, on which every writer keeps a shared one.
"""

import contextlib
import ctypes
import fcntl
import functools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>
WATCH_SECONDS = 1.0
LEASE_LOST = 75  # exit status: EX_TEMPFAIL of <sysexits.h>, another try may succeed


class LeaseLost(RuntimeError):
    """Another run has taken over the work of this one, which may write nothing more."""


@dataclass(frozen=True)
class LeaseFile:
    """A lease as a child process sees it: the file, and the token that its stage had when it started the child."""

    path: Path
    token: str

    def is_held(self) -> bool:
        """Whether the stage still holds the lease and lives. A file system that fails for the moment counts as yes."""
        try:
            record = read_lease(self.path)
        except OSError:
            return True
        # The token alone would not do: a stage that was killed leaves its lease file. An unknown lock counts as held.
        return record is not None and record.get("token") == self.token and lock_state(alive_file(self.path)) != "free"


def boot_id() -> str:
    """Names this boot of this machine; a host's name may be that of several. Raises OSError where there is no /proc."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def alive_file(lease: Path) -> Path:
    """The file on which the holder of `lease` keeps a kernel lock for as long as it lives."""
    return lease.with_name(f".{lease.name}.alive")


def writers_file(lease: Path) -> Path:
    """The file on which all processes that write under `lease` share a kernel lock."""
    return lease.with_name(f".{lease.name}.writers")


def read_lease(path: Path) -> dict[str, Any] | None:
    """The record of a lease; None where nobody holds it. A record that is not JSON is one without a token."""
    try:
        return parse_lease(path.read_bytes())
    except FileNotFoundError:
        return None


def parse_lease(data: bytes) -> dict[str, Any]:
    """The record of a lease; empty where it is damaged: it is taken over when nobody renews it."""
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def lock_state(path: Path) -> Literal["held", "free", "unknown"]:
    """Whether some process holds the kernel lock on `path`; unknown where the file is gone or the file system has no such locks."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return "unknown"
    try:
        # Asking takes the lock for an instant: there is no call that only asks. Closing the descriptor gives it back.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "held"
    except OSError:
        return "unknown"
    finally:
        os.close(descriptor)
    return "free"


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends. Linux alone has this; elsewhere nothing happens."""
    if sys.platform == "linux":
        # SIGKILL, since SIGTERM asks a rank to save, which it must not do without its stage. The signal follows the thread that
        # forked, not its process: whoever starts a guarded process from a thread must keep that thread.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


_lease: LeaseFile | None = None  # of this process


def guard(lease: LeaseFile | None) -> None:
    """End this process with its parent, and as soon as `lease` is lost. Share the lock of the folder's writers until then."""
    global _lease  # noqa: PLW0603 - one process works for one stage at a time
    # Asked before the kernel is: a parent that dies between these two lines is seen below, as another parent's id. One that was
    # dead already is not; then the lease, whose lock died with it, ends this process.
    parent = os.getppid()
    die_with_parent()
    if lease is not None:
        _join_writers(writers_file(lease.path))
    _lease = lease
    _end_unless_wanted(parent)
    # A daemon, so that it does not keep a process alive whose work is done.
    threading.Thread(target=_watch, args=(parent,), name="guard", daemon=True).start()


@contextlib.contextmanager
def guarding(lease: LeaseFile | None) -> Iterator[None]:
    """Like `guard`, for the length of the block: for a process that works for one stage after the other.

    Whoever started the process is not watched: it is not one of these stages. Raises LeaseLost where the lease is lost before the block.
    """
    global _lease  # noqa: PLW0603
    descriptor = None if lease is None else _join_writers(writers_file(lease.path))
    _lease = lease
    try:
        check_lease()
        _watch_in_thread()
        yield
    finally:
        _lease = None
        if descriptor is not None:
            os.close(descriptor)


@functools.cache  # one thread a process
def _watch_in_thread() -> None:
    threading.Thread(target=_watch, args=(None,), name="guard", daemon=True).start()


def check_lease() -> None:
    """Raises LeaseLost where the stage of this process is no longer the one that may write. Costs some 30 microseconds."""
    # A process without a lease, such as a training run started by hand, may always write.
    if _lease is not None and not _lease.is_held():
        raise LeaseLost(f"{_lease.path.parent} now belongs to another run: this one ends and writes nothing more")


def _join_writers(path: Path) -> int | None:
    """Share the lock until the descriptor that is returned is closed, or this process ends: the kernel drops it however that comes."""
    # O_CLOEXEC: a program started from here would hold it further.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # no locks here, or the next run has the folder: then the lease is lost, as the watch will see
        os.close(descriptor)
        return None
    return descriptor


def _watch(parent: int | None) -> None:
    while True:
        time.sleep(WATCH_SECONDS)
        _end_unless_wanted(parent)


def _end_unless_wanted(parent: int | None) -> None:
    lease = _lease
    is_lost = lease is not None and not lease.is_held()
    # The same lease still: its stage may have ended well, and the next one begun, while the file was read.
    if (parent is not None and os.getppid() != parent) or (is_lost and lease is _lease):
        print("this process ends: its stage has ended or lost its lease", file=sys.stderr, flush=True)
        # Not sys.exit, which would end this thread alone. No cleanup runs: it might write.
        os._exit(LEASE_LOST)
