"""Checkpoints of a training in a remote store: uploaded while it runs, fetched where another machine resumes.

Reads `.state/checkpoints/step-00000123/` as model/training/checkpoints.py leaves it, complete once it has that name, and the files that the
run appends to. Writes them, each under a hash of its bytes, and then `.state/checkpoints/step-00000123.json`, which lists them with
their sha256. The newest NUM_KEPT stay.

A thread of the stage uploads, so no step waits for the network. A checkpoint that is followed by a newer one before its turn comes is
not uploaded: a slow line costs a larger distance to the newest step and never a queue that grows.
"""

import contextlib
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pydantic

from model.errors import UserError
from model.files import files_of
from model.processes import LeaseLost
from tasks.artifacts.manifest import STATE, FileRecord, is_bookkeeping
from tasks.execution.context import StageContext
from tasks.execution.reporter import logger
from tasks.execution.shared_work import MAX_RECORD_BYTES, SharedWork, file_records

POLL_SECONDS = 1.0
NUM_KEPT = 2  # as many as a training keeps: the newest one may turn out to be unreadable
STEP = re.compile(r"step-(\d{8,})")


class CheckpointRecord(pydantic.BaseModel):
    """A checkpoint in the store. Paths are relative to its folder, to the artifact's, or to the artifact's state."""

    step: int = pydantic.Field(ge=0)
    files: list[FileRecord]
    run_files: list[FileRecord]
    state_files: list[FileRecord]


class SharedCheckpoints:
    """The checkpoints of a stage's training here and in the store."""

    def __init__(self, ctx: StageContext, work: SharedWork) -> None:
        self.ctx, self.work = ctx, work
        self.local = ctx.state / "checkpoints"
        self.prefix = f"{work.prefix}/checkpoints"
        self.uploaded = -1  # step of the newest that is in the store

    def restore(self) -> int:
        """Fetch the newest checkpoint of the store if none here is as new. Returns its step, 0 without one."""
        steps = sorted(self._in_store())
        if not steps:
            return 0
        self.uploaded = steps[-1]
        # Newest first; one that is damaged costs the steps since the one before and not the run.
        for step in reversed(steps):
            # The same machine again: its own newest is here already.
            if step <= max(_steps(self.local), default=-1):
                return 0
            try:
                self._fetch(step)
            except (ValueError, UserError) as error:
                logger.warning("checkpoint %d of %s cannot be used: %s", step, self.work.artifact_id, error)
            else:
                return step
        return 0

    def _fetch(self, step: int) -> None:
        stored = self.work.remote.objects.get(f"{self.prefix}/{_name(step)}.json", MAX_RECORD_BYTES)
        record = CheckpointRecord.model_validate_json(stored.data if stored else b"")
        fetch, partial = self.work.remote.fetch_files, self.local / f"partial-{step:08d}"
        shutil.rmtree(partial, ignore_errors=True)
        fetch(f"{self.prefix}/{_name(step)}", partial, record.files)
        # Metrics may hold lines of steps after the checkpoint. They are repeated, and a log keeps the last line of a step.
        fetch(f"{self.prefix}/run", self.work.folder, record.run_files)
        fetch(f"{self.prefix}/state", self.work.folder / STATE, record.state_files)
        partial.replace(self.local / _name(step))  # last: a folder of that name is complete

    def upload_newest(self) -> None:
        """Upload the newest checkpoint unless the store has it, then remove older ones there."""
        # Only complete ones have that name: the training renames the folder when all ranks are done.
        step = max(_steps(self.local), default=-1)
        if step <= self.uploaded:
            return
        remote, folder = self.work.remote, self.local / _name(step)
        try:
            files = file_records(folder, files_of(folder))
            with tempfile.TemporaryDirectory() as copies:
                run, state = Path(copies, "run"), Path(copies, "state")
                _copy_growing(self.work.folder, run)
                _copy_growing(self.ctx.state, state)
                record = CheckpointRecord(
                    step=step,
                    files=files,
                    run_files=file_records(run, files_of(run)),
                    state_files=file_records(state, files_of(state)),
                )
                remote.upload_files(f"{self.prefix}/{_name(step)}", folder, record.files)
                remote.upload_files(f"{self.prefix}/run", run, record.run_files)
                remote.upload_files(f"{self.prefix}/state", state, record.state_files)
        # A training keeps two, so this takes an upload that is slower than two checkpoints.
        except FileNotFoundError:  # the training has deleted it for newer ones: one of those is next
            return
        # An upload takes minutes for a large model, in which the lease may be lost.
        self.ctx.check_lease()
        remote.objects.put(f"{self.prefix}/{_name(step)}.json", record.model_dump_json().encode())
        self.uploaded = step
        self._remove_old()

    def _remove_old(self) -> None:
        in_store = self._in_store()
        # The record that was just put is among them, so there is at least one.
        kept = sorted(in_store)[-NUM_KEPT:]
        keys = [listed.key for listed in self.work.remote.objects.listing(f"{self.prefix}/step-")]
        old = [
            key for key in keys if (step := _step(key.removeprefix(f"{self.prefix}/"))) is not None and step < kept[0]
        ]
        # Records first, or one would name files that are gone.
        self.work.remote.objects.delete(sorted(old, key=lambda key: not key.endswith(".json")))

    def _in_store(self) -> set[int]:
        names = (
            listed.key.removeprefix(f"{self.prefix}/")
            for listed in self.work.remote.objects.listing(f"{self.prefix}/step-")
        )
        return {step for name in names if "/" not in name and (step := _step(name)) is not None}


@contextlib.contextmanager
def shared_checkpoints(ctx: StageContext) -> Iterator[None]:
    """Resume from the store's newest checkpoint, and upload new ones during the block. In a store that is a folder nothing is to be done."""
    if ctx.shared_work is None:
        yield
        return
    checkpoints = SharedCheckpoints(ctx, ctx.shared_work)
    if step := checkpoints.restore():
        ctx.log(f"resuming from another machine's checkpoint of step {step}")
    is_over = threading.Event()
    # A daemon: a stage that is killed by Ctrl-C twice must not wait for an upload.
    uploader = threading.Thread(target=_upload, args=(checkpoints, is_over), name="checkpoints", daemon=True)
    uploader.start()
    try:
        yield
    # No last upload: the other machine's checkpoints are the ones that count.
    except LeaseLost:
        is_over.set()
        raise
    except BaseException:
        # A training that was cancelled or failed has left one more: the next run may be on another machine.
        is_over.set()
        uploader.join()
        _try_upload(checkpoints)
        raise
    finally:
        is_over.set()
        uploader.join()


def newest_step(ctx: StageContext) -> int:
    """The steps that the newest checkpoint of a training on this machine has done; 0 without one."""
    return max(_steps(ctx.state / "checkpoints"), default=0)


def _upload(checkpoints: SharedCheckpoints, is_over: threading.Event) -> None:
    while not is_over.wait(POLL_SECONDS):
        if not _try_upload(checkpoints):
            return


def _try_upload(checkpoints: SharedCheckpoints) -> bool:
    """Whether the lease is still held. A store that does not answer is no reason to end a training."""
    # One attempt: the next poll, a second later, finds the same or a newer one.
    try:
        checkpoints.upload_newest()
    except LeaseLost:
        return False
    except (UserError, OSError) as error:
        logger.warning("a checkpoint of %s could not be uploaded: %s", checkpoints.work.artifact_id, error)
    return True


def _copy_growing(source: Path, target: Path) -> None:
    """Copy the files of a run that it appends to: an upload of a file that grows would not match its hash."""
    target.mkdir()
    for path in source.rglob("*"):
        first = path.relative_to(source).parts[0]
        # Not the weights: those of the last step are the artifact's, and a commit uploads them.
        is_growing = path.suffix == ".jsonl" or first == "tensorboard"
        if path.is_file() and is_growing and not is_bookkeeping(first):
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def _steps(folder: Path) -> list[int]:
    return [step for path in folder.glob("step-*") if (step := _step(path.name)) is not None]


def _step(name: str) -> int | None:
    """The step of step-00000123, step-00000123.json or step-00000123/FILE."""
    match = STEP.match(name)
    return int(match[1]) if match else None


def _name(step: int) -> str:
    return f"step-{step:08d}"
