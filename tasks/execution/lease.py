"""Leases: one run at a time works in an artifact's folder, and only the run that holds the lease commits.

Writes next to the artifact's files, while a run works there:

    lease           who holds it: a random token, the host, the process. Its modification time is renewed every LEASE_SECONDS / 6
    .lease.alive    the holder keeps a kernel lock (flock) on it; the kernel drops it when the holder dies, however it dies
    .lease.writers  ranks and workers share a kernel lock on it, see `model.processes`; they never hold the one above
    .lease.lock     a kernel lock, held for milliseconds by whoever reads and changes `lease`. This file stays: to delete a lock
                    file is to let two processes hold two locks of one name (on NFS even where the number of links is checked)

A waiting run takes the lease over at once when the lock on .lease.alive is free: the holder is dead. Where the file system has no
kernel locks, a dead process of this host counts too. A holder that lives but has not renewed the lease for LEASE_SECONDS (it is
stopped, or its host has no network) is taken over as well. The waiting run measures that time by its own monotonic clock, so that
clocks that differ, or a laptop that slept, take nobody's lease away. The new holder first waits for the writers of the old one to end.

A holder that wakes up after it was taken over still believes that it holds the lease. So every lease has a token: it is compared on
renewal, by ranks and workers once a second and before each checkpoint, before each shard's record, and, under .lease.lock, on commit. Who
finds another token raises LeaseLost and commits nothing. This is the fencing token of Kleppmann, "How to do distributed locking" (2016).

These files lie on a folder that runs share. Of a remote store that is this machine's cache, and tasks/execution/store_lease.py adds
a lease among machines.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock

from model.files import replacing
from model.processes import LeaseFile, LeaseLost, alive_file, lock_state, read_lease, writers_file
from tasks.execution.reporter import logger

LEASE = "lease"
LEASE_SECONDS = 60.0
POLL_SECONDS = 1.0
WRITERS_SECONDS = 30.0  # ranks and workers of a run that was killed end within two


class Lease(Protocol):
    """The right to write an artifact. `file` is what child processes are given, see `model.processes.guard`."""

    file: LeaseFile

    def check(self) -> None:
        """Raises LeaseLost where another run holds the lease."""

    def fence(self) -> AbstractContextManager[None]:
        """A block in which nobody can take the lease over: to commit in. Raises LeaseLost instead of entering it."""


class FolderLease:
    """A lease on a folder that all runs see. Made by `lease`."""

    def __init__(self, folder: Path, reads: Sequence[str] = ()) -> None:
        """`reads`: ids of the artifacts that the holder reads, for `crawl2chat gc`."""
        self.reads = list(reads)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / LEASE
        self.file = LeaseFile(self.path, secrets.token_hex(16))
        # The timeout bounds a file system that hangs. No soft lock as a fallback: a file that stays after a kill is no lock.
        self.alive = FileLock(alive_file(self.path), timeout=5, poll_interval=0.01, fallback_to_soft=False)
        self.lost = threading.Event()
        self.is_over = threading.Event()
        self.observed: tuple[object, float] = (None, 0.0)  # state of another's lease, and since when it is so

    def check(self) -> None:
        """Raises LeaseLost where the lease file has another token, or was lost before."""
        # Once lost, always lost: the token could come back only if somebody restored the file by hand.
        record = None if self.lost.is_set() else read_lease(self.path)
        if record is None or record.get("token") != self.file.token:
            self.lost.set()
            raise LeaseLost(
                f"another run has taken over {self.path.parent}, since this one did not renew its lease for {LEASE_SECONDS:.0f} s "
                "(was it stopped, or its machine overloaded?): this one ends without a result, wait for the other one"
            )

    @contextlib.contextmanager
    def fence(self) -> Iterator[None]:
        """Hold .lease.lock, so that no other run takes the lease over in this block. Raises LeaseLost instead of entering it."""
        with self._locked():
            self.check()
            yield

    def take(self) -> bool:
        """Take the lease unless another run holds it: whether it is ours now."""
        with self._locked():
            # Read, checked and replaced under one kernel lock: two waiters that see the same dead holder do not both take over.
            record = read_lease(self.path)
            if record is not None:
                if not self._is_abandoned(record):
                    return False
                logger.info("taking over %s from a run that is gone", self.path.parent)
            alive_file(self.path).unlink(missing_ok=True)  # a stopped holder keeps its lock on the old one
            with contextlib.suppress(OSError):  # no kernel locks here: then time decides
                self.alive.acquire()
            with replacing(self.path) as temporary:
                holder = {
                    "token": self.file.token,
                    "host": socket.gethostname(),
                    "pid": os.getpid(),
                    "reads": self.reads,
                }
                temporary.write_text(json.dumps(holder), encoding="utf-8")
            return True

    def _is_abandoned(self, record: dict[str, Any]) -> bool:
        # Unknown where the file is gone or the file system has no locks: then the process, or time, decides.
        lock = lock_state(alive_file(self.path))
        is_here = record.get("host") == socket.gethostname()
        if lock == "free" or (lock == "unknown" and is_here and not Path(f"/proc/{record.get('pid')}").exists()):
            return True
        try:
            state, now = (record.get("token"), self.path.stat().st_mtime_ns), time.monotonic()
        except FileNotFoundError:  # somebody deleted it by hand
            return True
        # Only a change of the time is observed, never its value: the host that wrote it may have another clock.
        if state != self.observed[0]:
            self.observed = state, now
        return now - self.observed[1] > LEASE_SECONDS

    def await_writers(self) -> None:
        """Wait for ranks and workers of the run before. Raises RuntimeError where they do not end."""
        # Ranks and workers of a killed run end by themselves, within a watch of one second; a rank inside C code takes longer.
        deadline = time.monotonic() + WRITERS_SECONDS
        while lock_state(writers_file(self.path)) == "held":
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"processes of a run that was ended still write to {self.path.parent}: end them (`fuser "
                    f"{writers_file(self.path)}` lists them), then run again"
                )
            time.sleep(0.1)

    def keep(self) -> None:
        """Renew the lease until it is over or lost."""
        # A sixth, so that a few renewals may fail or come late before others count the lease as abandoned.
        while not self.is_over.wait(LEASE_SECONDS / 6):
            try:
                with self.fence():
                    os.utime(self.path)
            except LeaseLost:
                return
            except OSError as error:
                logger.warning("the lease of %s could not be renewed: %s", self.path.parent, error)

    def release(self) -> None:
        """Give the lease back, unless another run has it."""
        # Inside the fence: a run that lost its lease must not delete that of the new holder.
        with contextlib.suppress(LeaseLost), self.fence():
            # The lease first: whoever comes now finds nothing to wait for.
            self.path.unlink()
            alive_file(self.path).unlink(missing_ok=True)
            if lock_state(writers_file(self.path)) == "free":
                writers_file(self.path).unlink()
        self.alive.release()

    def _locked(self) -> AbstractContextManager[object]:
        return FileLock(self.path.with_name(f".{LEASE}.lock"), poll_interval=0.01)


@contextlib.contextmanager
def lease(folder: Path, log: Callable[[str], None] = logger.info, reads: Sequence[str] = ()) -> Iterator[FolderLease]:
    """Hold `folder` against other runs. Waits, after a message, for a run that holds it; takes over from one that does not renew."""
    # Polled, not waited for in the kernel: a lock file has no queue, and a holder that hangs never wakes a waiter.
    held = FolderLease(folder, reads)
    if not held.take():
        log("another run is at this stage: waiting for it")
        while not held.take():
            time.sleep(POLL_SECONDS)
    # Renewed while waiting for the writers, which may take half as long as the lease lasts.
    with renewed(held):
        held.await_writers()
        yield held


class Renewable(Protocol):
    """A lease that was taken: of a folder, or of an object store."""

    is_over: threading.Event

    def keep(self) -> None:
        """Renew the lease until it is over or lost."""

    def release(self) -> None:
        """Give the lease back, unless another run has it."""


@contextlib.contextmanager
def renewed(held: Renewable) -> Iterator[None]:
    """Renew a lease that was taken during the block, then give it back."""
    renewer = threading.Thread(target=held.keep, name="lease", daemon=True)
    renewer.start()
    try:
        yield
    finally:
        held.is_over.set()
        renewer.join()
        held.release()
