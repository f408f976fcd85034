"""Unfinished work of a stage in a remote store, for a run on another machine to resume from.

Reads and writes, in the artifact's folder among the objects, what the local folder has under `.state`:

    .state/shards/NAME.json         the record of a finished shard, and which files it wrote
    .state/checkpoints/STEP.json    a checkpoint of a training: its files, and those of the run (metrics, samples) at that time
    .state/..., files of shards     under their paths, with hashes in their names (tasks/artifacts/remote.py)

A record or a checkpoint is written after its files: its presence means that they are complete. All of it is removed once the artifact is
committed. Where two runs wrote, which the lease prevents, either's record names its own files, never a mixture.

A shard costs a request for each file it writes and one for its record.
"""

import functools
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from model.files import MAX_NAME_BYTES, recording_writes, short_file_name
from model.processes import check_lease
from tasks.artifacts.files import write_atomically
from tasks.artifacts.manifest import STATE, FileRecord
from tasks.artifacts.remote import DamagedArtifact, Remote
from tasks.artifacts.store import Store
from tasks.artifacts.streams import in_parallel
from tasks.execution.executor import Record, S, Task
from tasks.execution.reporter import logger

SHARDS = "shards"
MAX_RECORD_BYTES = 2**24  # a shard writes a few files; a checkpoint has a file for each rank


# Validated on reading, since others can write to the store: paths of both lists stay in their folder.
class ShardRecord(pydantic.BaseModel):
    """A finished shard. Paths are relative to the artifact's folder, or to its state."""

    name: str
    record: dict[str, Any]
    files: list[FileRecord]
    state_files: list[FileRecord]


def shard_file(name: str) -> str:
    """The name of the file with a shard's record."""
    return short_file_name(f"{name}.json", MAX_NAME_BYTES)


@dataclass(frozen=True)
class SharedTask(Task[tuple[str, S]]):
    """A task whose shards, given as (name, shard), leave what they wrote and their record in the remote store."""

    store_url: str = ""
    cache: Path = Path()
    artifact_id: str = ""

    def run(self, shard: tuple[str, S]) -> Record:
        """Do one shard and publish it. Raises LeaseLost where the stage has lost its lease: the record is then not written."""
        name, value = shard
        # What a shard writes is observed and not declared: a stage that forgot a file would resume elsewhere without it.
        with recording_writes() as written:
            record = super().run(value)  # type: ignore[arg-type]
        remote, state = _remote(self.store_url, self.cache), self.folder / STATE
        # A set: a file may be written twice. One that the shard has removed again is no result.
        paths = sorted({path for path in written if path.is_relative_to(self.folder) and path.is_file()})
        # Apart, because a manifest refuses a path in .state: what is listed there can never become a part of an artifact.
        in_state = [path for path in paths if path.is_relative_to(state)]
        done = ShardRecord(
            name=name,
            record=record,
            files=file_records(self.folder, [path for path in paths if path not in in_state]),
            state_files=file_records(state, in_state),
        )
        remote.upload_files(self.artifact_id, self.folder, done.files)
        remote.upload_files(f"{self.artifact_id}/{STATE}", state, done.state_files)
        # Before the record, not before the files: those harm nobody, whoever writes them.
        check_lease()
        key = f"{self.artifact_id}/{STATE}/{SHARDS}/{shard_file(name)}"
        remote.objects.put(key, done.model_dump_json().encode())
        return record


class SharedWork:
    """The unfinished work of one artifact in the remote store, and its copy in the artifact's folder on this machine."""

    def __init__(self, store: Store, artifact_id: str) -> None:
        assert store.remote is not None
        self.store, self.remote, self.artifact_id = store, store.remote, artifact_id
        self.folder = store.folder(artifact_id)
        self.prefix = f"{artifact_id}/{STATE}"

    def restore_shards(self) -> int:
        """Copy the records and files of shards that another machine has finished. Returns their number.

        A shard whose files are damaged or gone is left out, and done again.
        """
        local = self.folder / STATE / SHARDS
        prefix = f"{self.prefix}/{SHARDS}/"
        names = [listed.key.removeprefix(prefix) for listed in self.remote.objects.listing(prefix)]
        # Records of this machine's own are here with their files, and cost no request.
        missing = [name for name in names if "/" not in name and not (local / name).exists()]
        in_parallel(self._restore_shard, missing)
        return sum((local / name).exists() for name in missing)

    def _restore_shard(self, file_name: str) -> None:
        stored = self.remote.objects.get(f"{self.prefix}/{SHARDS}/{file_name}", MAX_RECORD_BYTES)
        try:
            done = ShardRecord.model_validate_json(stored.data if stored else b"")
            self.remote.fetch_files(self.artifact_id, self.folder, done.files)
            self.remote.fetch_files(self.prefix, self.folder / STATE, done.state_files)
        # pydantic's error is a ValueError, as is a UserError. A shard that is done again is right; one that is missed is not.
        except (ValueError, DamagedArtifact) as error:
            logger.warning("shard %s of %s is done again: %s", file_name, self.artifact_id, error)
            return
        # A record that stands under another name would have its shard skipped without its files.
        if shard_file(done.name) == file_name:
            write_atomically(self.folder / STATE / SHARDS / file_name, json.dumps(done.record))

    def remove(self) -> None:
        """Remove what the store has of it. Called after the commit; what a kill leaves behind, `crawl2chat gc` removes."""
        # Listed and not remembered: a run before, on another machine, has left some of it.
        self.remote.objects.delete([listed.key for listed in self.remote.objects.listing(f"{self.prefix}/")])

    def shared(self, task: Task[S]) -> SharedTask[S]:
        """The task that also publishes every shard."""
        return SharedTask(
            stage=task.stage,
            work=task.work,  # type: ignore[arg-type]
            folder=task.folder,
            lease=task.lease,
            num_workers=task.num_workers,
            store_url=self.store.url,
            cache=self.remote.root.parent,
            artifact_id=self.artifact_id,
        )


@functools.cache  # a worker connects once
def _remote(url: str, cache: Path) -> Remote:
    store = Store(url, cache)
    assert store.remote is not None
    return store.remote


def file_records(folder: Path, paths: Iterable[Path]) -> list[FileRecord]:
    """A record of each file, its path relative to `folder`."""
    # Not through the store's cache of hashes: these files are hashed once, and some will be gone in a minute.
    records = []
    for path in paths:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        records.append(FileRecord(path=str(path.relative_to(folder)), bytes=path.stat().st_size, sha256=digest))
    return records
