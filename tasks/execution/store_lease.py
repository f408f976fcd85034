"""Leases among machines: a record next to the artifact in an object store that can put conditionally.

Reads and writes `STAGE/FINGERPRINT/lease` in the store: a token, a number that grows by one with each holder, host and process, and a
count of renewals. It is created where none is (If-None-Match) and later replaced only in the version that was read (If-Match), so of
all who try to take, renew or give back a lease in one moment the server lets one succeed.

A holder renews its record every LEASE_SECONDS / 6. Others see its death by the record's version, which then stays the same for
LEASE_SECONDS of their monotonic clock; no clock of another machine is compared. The holder in turn counts its lease as lost when it could
not renew it for HOLD_FRACTION of that time: it stops before any other machine may begin. Time alone cannot exclude a process that
was stopped (SIGSTOP, a paused virtual machine) right before a request: so a commit begins with a renewal, the manifest is put where none
is, and no data file replaces another one (tasks/artifacts/remote.py). What such a process still sends harms nothing.

On one machine the lease of tasks/execution/lease.py comes first, and its kernel locks end a wait at once. A record that this machine's own
cache has left is therefore of a run that is dead: it is taken over without waiting.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from model.errors import UserError
from model.processes import LeaseLost, boot_id, parse_lease
from tasks.artifacts.objects import Conflict, Objects
from tasks.artifacts.store import Store
from tasks.execution import lease as leases
from tasks.execution.lease import FolderLease, Lease, lease, renewed
from tasks.execution.reporter import logger

MAX_RECORD_BYTES = 100_000
HOLD_FRACTION = 0.8
POLLS_PER_LEASE = 12  # 5 s apart: each costs a request
_checked: set[str] = set()  # stores whose server this process has seen refuse a put


class StoreLease:
    """A lease on an artifact that all machines see. `local` is the lease of the same artifact among the runs of this machine."""

    def __init__(self, objects: Objects, artifact_id: str, local: FolderLease, reads: Sequence[str]) -> None:
        # A renewal that waits for the store must not outlast the lease. A commit may wait longer than the renewer, which comes again.
        self.renewing = objects.impatient(leases.LEASE_SECONDS / 12)
        self.committing = objects.impatient(leases.LEASE_SECONDS / 2)
        self.objects, self.artifact_id, self.local = objects, artifact_id, local
        self.key, self.file = f"{artifact_id}/{leases.LEASE}", local.file
        self.record: dict[str, Any] = {
            "token": secrets.token_hex(16),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "cache": _identity(local.path.parents[2]),
            "reads": list(reads),
        }
        self.tag = ""  # of the version of the record that this run has written last
        self.renewed = 0.0  # monotonic time before the request that renewed it last
        self.swapping = threading.Lock()  # the renewer and a commit renew at the same time
        self.lost, self.is_over = threading.Event(), threading.Event()
        self.observed: tuple[str, float] = ("", 0.0)  # version of another's record, and since when it is so

    def take(self, abandoned: str = "") -> bool:
        """Take the lease unless another machine holds it: whether it is ours now. `abandoned`: a version known to be of a dead run."""
        # The time after the answer: what was read is at least as old, so the wait is too long rather than too short.
        stored, now = self.objects.get(self.key, MAX_RECORD_BYTES), time.monotonic()
        before = parse_lease(stored.data) if stored else {}
        if stored and stored.tag != abandoned and not self._is_free(before, stored.tag, now):
            return False
        # Kleppmann's fencing number. Nothing compares it: a swap in the version that was read is stronger. It shows how often a stage
        # changed hands.
        record = self.record | {"number": _number(before) + 1, "renewals": 0}
        try:
            data = json.dumps(record).encode()
            self.tag = self.objects.swap(self.key, data, stored.tag) if stored else self.objects.create(self.key, data)
        except Conflict:
            return False
        self._check_server()
        if before and not before.get("is_released"):
            logger.info("taking over %s from a run on %s that is gone", self.artifact_id, before.get("host"))
        self.record, self.renewed = record, now
        return True

    def _check_server(self) -> None:
        """Raises UserError where the server writes what it should refuse: old ones ignore the condition of a put and say nothing."""
        if self.objects.shown_url in _checked:
            return
        try:
            self.objects.create(self.key, json.dumps({"is_released": True}).encode())
        except Conflict:
            _checked.add(self.objects.shown_url)
            return
        raise UserError(
            f"the server of {self.objects.shown_url} ignores If-None-Match, so machines would do the same work and overwrite each "
            "other: use a newer version of it, S3, Google Cloud Storage or SeaweedFS, or a folder"
        )

    def _is_free(self, record: dict[str, Any], tag: str, now: float) -> bool:
        # The cache of this machine: its kernel lock is ours by now, so whoever wrote this is dead or was fenced.
        if record.get("is_released") or record.get("cache") == self.record["cache"]:
            return True
        # The version and not a time in the record: clocks of machines differ, and a holder's may be hours off.
        if tag != self.observed[0]:
            self.observed = tag, now
        return now - self.observed[1] > leases.LEASE_SECONDS

    def check(self) -> None:
        """Raises LeaseLost where another run has the lease, or where it was not renewed in time. Sends no request."""
        self.local.check()
        if time.monotonic() - self.renewed > leases.LEASE_SECONDS * HOLD_FRACTION:
            self.lost.set()
        if self.lost.is_set():
            raise LeaseLost(
                f"this run no longer holds {self.artifact_id} in {self.objects.shown_url}: another machine has taken it over, or the "
                f"store has not answered for {leases.LEASE_SECONDS * HOLD_FRACTION:.0f} s. It ends without a result; run the stage again, "
                "which waits for the other one or resumes"
            )

    @contextlib.contextmanager
    def fence(self) -> Iterator[None]:
        """A block to commit in: no run of this machine takes the lease over, and none of another one had it when the block began."""
        with self.local.fence():
            self.renew(self.committing)
            self.check()
            yield

    def renew(self, objects: Objects) -> None:
        """Write the record again, in the version that this run wrote last. A record of another run is left, and the lease lost."""
        with self.swapping:
            # Before the request. The server may carry it out at once and the answer may take long: the lease then ends too early, never too late.
            now = time.monotonic()
            record = self.record | {"renewals": self.record["renewals"] + 1}
            try:
                self.tag = objects.swap(self.key, json.dumps(record).encode(), self.tag)
            except Conflict:
                self.lost.set()
                return
            self.record, self.renewed = record, now

    def keep(self) -> None:
        """Renew the lease until it is over or lost. Once lost, the local lease goes too: ranks and workers watch that one alone."""
        # Each second, so that a loss is seen in time, although a renewal is due each ten.
        while not self.is_over.wait(leases.LEASE_SECONDS / 60):
            try:
                if time.monotonic() - self.renewed > leases.LEASE_SECONDS / 6:
                    self.renew(self.renewing)
                self.check()
            except LeaseLost:
                # Children ask for the local file alone, once a second; they need no network and no credentials for it.
                self.local.release()
                return
            except (UserError, OSError) as error:  # the store does not answer: `check` decides for how long
                logger.warning("the lease of %s could not be renewed: %s", self.artifact_id, error)

    def release(self) -> None:
        """Give the lease back, unless another run has it. The record stays: with it the number of the next holder grows."""
        with self.swapping, contextlib.suppress(Conflict, UserError, OSError):
            if not self.lost.is_set():
                self.objects.swap(
                    self.key, json.dumps(self.record | {"is_released": True, "reads": []}).encode(), self.tag
                )


@contextlib.contextmanager
def artifact_lease(
    store: Store, artifact_id: str, log: Callable[[str], None] = logger.info, reads: Sequence[str] = ()
) -> Iterator[Lease]:
    """Hold an artifact against the other runs of this machine and, in an object store, against other machines.

    Waits, after a message, for a run that holds it; takes over from one that is dead. `reads`: ids of the artifacts that the run
    reads, which `crawl2chat gc` keeps meanwhile.
    """
    with lease(store.folder(artifact_id), log, reads) as local:
        held = _among_machines(store, artifact_id, local, reads)
        if held is None:
            yield local
            return
        if not held.take():
            log("another machine is at this stage: waiting for it")
            while not held.take():
                time.sleep(leases.LEASE_SECONDS / POLLS_PER_LEASE)
                # A process that was stopped here may have lost the local lease, and must not go to the store with it.
                local.check()
        with renewed(held):
            yield held


@contextlib.contextmanager
def free_artifact(store: Store, artifact_id: str, abandoned: str = "") -> Iterator[bool]:
    """Whether no run works on an artifact; if so, none begins in the block. Does not wait. `abandoned` as in `StoreLease.take`."""
    local = FolderLease(store.folder(artifact_id))
    if not local.take():
        yield False
        return
    with renewed(local):
        held = _among_machines(store, artifact_id, local, ())
        if held is None:
            yield True
        elif not held.take(abandoned):
            yield False
        else:
            with renewed(held):
                yield True


def _among_machines(store: Store, artifact_id: str, local: FolderLease, reads: Sequence[str]) -> StoreLease | None:
    """The lease that all machines see, not yet taken; None where the store has no conditional put, or is a folder."""
    if store.remote is None or not store.remote.objects.can_swap:
        return None
    return StoreLease(store.remote.objects, artifact_id, local, reads)


def is_live(record: dict[str, Any], age_seconds: float) -> bool:
    """Whether a run may still hold the lease of which this is the record. `age_seconds`: since it was written, by the server's clock."""
    # Ten times the time after which it may be taken over: here two clocks are compared.
    return not record.get("is_released") and age_seconds < 10 * leases.LEASE_SECONDS


def _identity(root: Path) -> str:
    """Names the cache folder of this machine: the runs that share its kernel locks, and no others."""
    # A file with a random name would be copied along with an image or a snapshot, and then two machines would have one name.
    try:
        boot = boot_id()
    except OSError:  # not Linux: nobody's
        return secrets.token_hex(16)
    stat = root.stat()
    return f"{boot} {stat.st_dev} {stat.st_ino}"


def _number(record: dict[str, Any]) -> int:
    return record["number"] if isinstance(record.get("number"), int) else 0
