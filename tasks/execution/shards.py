"""The shards of a stage: which are to be done, their records, their counts.

Reads and writes `.state/shards/NAME.json`, the record of each finished shard, in the stage's folder: its counts. A shard that has one is
not run again. Where shards run is the executor's matter, see tasks/execution/executor.py.
"""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from model.errors import UserError
from model.files import remove_temporary_files
from tasks.artifacts.files import write_atomically
from tasks.execution.context import StageContext
from tasks.execution.executor import Counts, Record, Result, S, Task, WorkersLost, chosen_executor, tick
from tasks.execution.shared_work import SHARDS, shard_file

__all__ = ["Counts", "map_shards", "tick"]  # all that a stage needs


def map_shards(
    ctx: StageContext,
    work: Callable[[S], Counts],
    shards: Sequence[tuple[str, S]],
    *,
    num_workers: int,
    total: int,
    unit: str,
    is_shared: bool = True,
) -> Counts:
    """Run `work` on every (name, shard) that has no record yet; the sum of all counts.

    `total` is how many units `work` counts with `tick`, or an estimate. An error of a shard, an interrupt or the loss of the lease ends
    the stage at once: its workers are killed, finished shards keep their records. Raises RuntimeError with the shards' names where a worker
    process was killed, UserError where there is no shard. `is_shared`: whether a shard's result is the files that it writes with
    `replacing`, so that another machine can resume from them. One that writes into a file of all shards has to be done there again.
    """
    if not shards:
        raise UserError(f"stage {ctx.step.stage} has no shard to read: run the stage before it again with --force")
    # Before any worker starts: where nothing is missing, no process is forked.
    records = ShardRecords(ctx, [name for name, _ in shards])
    missing = [(name, shard) for name, shard in shards if name not in records.finished]
    if records.finished:
        ctx.log(f"resuming: {len(records.finished)} of {len(shards)} shards were finished before")
    if missing:
        # No more workers than shards: an idle one takes memory too.
        num_workers = max(1, min(num_workers, len(missing)))
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
    """The records of a stage's finished shards, by name. Made with those that a run before has left."""

    def __init__(self, ctx: StageContext, names: Sequence[str]) -> None:
        self.ctx, self.names = ctx, names
        self.folder = ctx.state / SHARDS
        paths = {name: self._path(name) for name in names}
        self.finished: dict[str, Record] = {
            name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()
        }

    def keep(self, results: Sequence[Result]) -> None:
        """Write the records of shards that are finished, then raise the error of one that failed."""
        self.ctx.check_lease()
        for result in results:
            if result.error is None:
                # The files of the shard are complete by now, each replaced under its name, so the record is written last.
                write_atomically(self._path(result.name), json.dumps(result.record))
                self.finished[result.name] = result.record
        # Only after the good ones were kept: the next run does not repeat them.
        for result in results:
            if result.error is not None:
                raise result.error

    def ticks(self) -> int:
        """The units that finished shards have counted."""
        return sum(record.get("ticks", 0) for record in self.finished.values())

    def counts(self) -> Counts:
        """The sum of the counts of all shards, by name."""
        total: Counter[str] = Counter()
        for name in self.names:
            total.update(self.finished[name])
        # Progress, not a result.
        del total["ticks"]
        return dict(sorted(total.items()))

    def _path(self, name: str) -> Path:
        return self.folder / shard_file(name)


def _run(records: ShardRecords, task: Task[S], shards: Sequence[tuple[str, S]], total: int, unit: str) -> None:
    ctx, before, start = records.ctx, records.ticks(), time.monotonic()
    try:
        with contextlib.closing(chosen_executor().run(task, shards)) as updates:
            for update in updates:
                records.keep(update.results)
                # Of this run: shards that were finished before took none of its time.
                rate = update.ticks / (time.monotonic() - start)
                values = {"shards": len(records.finished), f"{unit}/s": rate}
                ctx.progress(min(before + update.ticks, total), total, unit, **values)
    except BaseException as error:
        remove_temporary_files(ctx.folder)  # of the workers that were killed while they wrote
        if not isinstance(error, WorkersLost):
            raise
        ctx.check_lease()  # workers end when it is lost, and that is then the reason
        names = ", ".join(sorted(name for name, _ in shards if name not in records.finished)[: task.num_workers])
        raise RuntimeError(f"stage {task.stage}: {error}, near shards {names}") from error
