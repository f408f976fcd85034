"""The shards of a stage: which are to be done, their records, their counts.

Reads and writes in the stage's folder `.state/shards/NAME.json`, the record of each finished shard: its counts. A shard that has one is
not run again. Where shards run, and how often one is tried, is the executor's matter, see tasks/execution/executor.py.

A shard that fails ends the stage, unless the stage allows a fraction of its shards to fail. Then such a shard is set aside: the files it
wrote are removed, `.state/set_aside/NAME.json` holds the reason, and the manifest names it. It has no record, so it is tried again
when the stage resumes or is forced.
"""

import contextlib
import glob
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from model.config import runtime
from model.errors import UserError
from model.files import remove_temporary_files, temporary_path
from tasks.artifacts.files import write_atomically
from tasks.artifacts.manifest import STATE
from tasks.execution.context import StageContext
from tasks.execution.executor import Counts, Record, Result, S, Task, WorkersLost, chosen_executor, tick
from tasks.execution.reporter import logger
from tasks.execution.shared_work import SHARDS, shard_file
from tasks.redaction import redact_text

__all__ = ["Counts", "failed_fraction", "map_shards", "set_aside", "tick"]  # all that a stage needs
SET_ASIDE = "set_aside"
MAX_NAMED = 8  # shards in one error


def failed_fraction() -> Any:
    """The setting of a stage that can do without some of its shards."""
    return runtime(
        0.0,
        ge=0,
        le=1,
        description="Fraction of the shards that may fail without failing the stage. They are set aside and named in the manifest; "
        "--force tries them again.",
    )


def map_shards(
    ctx: StageContext,
    work: Callable[[S], Counts],
    shards: Sequence[tuple[str, S]],
    *,
    num_workers: int,
    total: int,
    unit: str,
    is_shared: bool = True,
    max_failed_fraction: float = 0.0,
) -> Counts:
    """Run `work` on every (name, shard) that has no record yet; the sum of all counts.

    `num_workers`: 0 for as many as there are cores. `total` is how many units `work` counts with `tick`, or an estimate. The error of a
    shard, where more than `max_failed_fraction` of the shards have failed, an interrupt or the loss of the lease ends the stage at once:
    its workers are killed, finished shards keep their records. Raises RuntimeError with the shards' names where a worker process was killed,
    UserError where there is no shard. `is_shared`: whether a shard's result is the files that it writes with `replacing`, so that another
    machine can resume from them. One that writes into a file of all shards has to be done there again.
    """
    if not shards:
        raise UserError(f"stage {ctx.step.stage} has no shard to read: run the stage before it again with --force")
    shutil.rmtree(ctx.state / SET_ASIDE, ignore_errors=True)  # they are tried again
    # Before any worker starts: where nothing is missing, no process is forked. 0.29 * 100 is 28.999...
    records = ShardRecords(ctx, [name for name, _ in shards], int(max_failed_fraction * len(shards) + 1e-6))
    missing = [(name, shard) for name, shard in shards if name not in records.finished]
    if records.finished:
        ctx.log(f"resuming: {len(records.finished)} of {len(shards)} shards were finished before")
    if missing:
        lease = ctx.lease.file if ctx.lease else None
        task = Task(ctx.step.stage, work, ctx.folder, lease, num_workers)
        if ctx.shared_work and is_shared:
            # An executor hands `run` the shard and nothing else, and the record has to be published under a name.
            named = [(name, (name, shard)) for name, shard in missing]
            _run(records, ctx.shared_work.shared(task), named, total, unit)
        else:
            _run(records, task, missing, total, unit)
    return records.counts()


class ShardRecords:
    """The records of a stage's finished shards, by name. Made with those that a run before has left.

    `max_failed`: how many shards may be set aside.
    """

    def __init__(self, ctx: StageContext, names: Sequence[str], max_failed: int = 0) -> None:
        self.ctx, self.names, self.max_failed = ctx, names, max_failed
        self.num_failed = 0
        self.folder = ctx.state / SHARDS
        # Names and sums, not the records: a crawl has 90,000 shards with some fifty counts each.
        self.finished: set[str] = set()
        self.total: Counter[str] = Counter()
        for name in names:
            if (record := _read_record(self._path(name))) is not None:
                self._add(name, record)

    def keep(self, results: Sequence[Result]) -> None:
        """Write the records of shards that are finished and set aside those that failed. Raises the error of one that is too many."""
        self.ctx.check_lease()
        for result in results:
            if result.error is None:
                # The files of the shard are complete by now, each replaced under its name, so the record is written last.
                _write_record(self._path(result.name), result.record)
                self._add(result.name, result.record)
        # Only after the good ones were kept: the next run does not repeat them.
        for result in results:
            if result.error is not None:
                self.num_failed += 1
                # With none finished there is no artifact to make, whatever the stage allows.
                if self.num_failed > min(self.max_failed, len(self.names) - 1):
                    raise result.error
                set_aside(self.ctx, result.name, f"{type(result.error).__name__}: {result.error}")

    def ticks(self) -> int:
        """The units that finished shards have counted."""
        return self.total["ticks"]

    def counts(self) -> Counts:
        """The sum of the counts of all shards, by name."""
        # Ticks are progress, not a result.
        counts = {name: num for name, num in sorted(self.total.items()) if name != "ticks"}
        return counts | ({"shards_set_aside": self.num_failed} if self.num_failed else {})

    def _add(self, name: str, record: Record) -> None:
        self.finished.add(name)
        self.total.update(record)

    def _path(self, name: str) -> Path:
        return self.folder / shard_file(name)


def _write_record(path: Path, record: Record) -> None:
    # Not synced, as `write_atomically` would: that costs this one process 2 to 20 ms a shard. The files of the shard are synced already, and
    # a record that a power cut takes, or leaves empty, has its shard done again.
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    temporary.write_text(json.dumps(record), encoding="utf-8")
    temporary.replace(path)


def _read_record(path: Path) -> Record | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def set_aside(ctx: StageContext, name: str, reason: str) -> None:
    """Make the artifact without a shard: remove what it wrote, keep the reason for the manifest."""
    first_line = redact_text(reason.splitlines()[0])[:500]
    ctx.log(f"shard {name} is set aside: {first_line}")
    # A shard that was killed between two of its files has left the first. All are called after it, as NAME.parquet.
    for path in ctx.folder.rglob(f"{glob.escape(name)}.*"):
        if path.stem == name and STATE not in path.relative_to(ctx.folder).parts:
            path.unlink()
    path = ctx.state / SET_ASIDE / shard_file(name)
    write_atomically(path, json.dumps({"shard": name, "reason": first_line}))


def shards_set_aside(ctx: StageContext) -> dict[str, str]:
    """The shards that the artifact is made without, and why."""
    found = [json.loads(path.read_text()) for path in sorted((ctx.folder / STATE / SET_ASIDE).glob("*.json"))]
    return {record["shard"]: record["reason"] for record in found}


def _run(records: ShardRecords, task: Task[S], shards: Sequence[tuple[str, S]], total: int, unit: str) -> None:
    ctx, before, start = records.ctx, records.ticks(), time.monotonic()
    try:
        with contextlib.closing(chosen_executor().run(task, shards)) as updates:
            for update in updates:
                _log_results(task.stage, update.results)
                records.keep(update.results)
                # Of this run: shards that were finished before took none of its time.
                rate = update.ticks / (time.monotonic() - start)
                values = {"shards": len(records.finished), f"{unit}/s": rate}
                if records.num_failed:
                    values["shards failed"] = records.num_failed
                ctx.progress(min(before + update.ticks, total), total, unit, **values)
    except BaseException as error:
        remove_temporary_files(ctx.folder)  # of the workers that were killed while they wrote
        if not isinstance(error, WorkersLost):
            raise
        ctx.check_lease()  # workers end when it is lost, and that is then the reason
        names = ", ".join(sorted(name for name, _ in shards if name not in records.finished)[:MAX_NAMED])
        raise RuntimeError(f"stage {task.stage}: {error}, near shards {names}") from error


def _log_results(stage: str, results: Sequence[Result]) -> None:
    """A line for each shard, in the structured logs alone: Prefect's page of a run would hold 90,000 of them."""
    for result in results:
        about = {"stage": stage, "shard": result.name}
        if result.error is None:
            logger.info("shard %s is finished", result.name, extra=about)
        else:
            logger.error("shard %s failed: %s", result.name, result.error, extra=about)
