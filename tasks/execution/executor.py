"""Executors: what runs the shards of a stage, and the little that an executor must know of a stage.

`map_shards` (tasks/execution/shards.py) decides which shards are still to be done and keeps their records; an executor runs them
somewhere. CRAWL2CHAT_EXECUTOR names it: `local` (the default) for worker processes of this machine, `ray:...` for a Ray cluster.
Another one is a class with the method `run` of `Executor` and an entry in EXECUTORS. A shard is no Prefect task: at 100 ms of
bookkeeping each, 90,000 of them would cost hours.
"""

import importlib
import os
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

from model.errors import UserError
from model.processes import LeaseFile

S = TypeVar("S")
Counts = dict[str, int]
Record = dict[str, Any]  # of a finished shard, as JSON keeps it. An executor carries it and does not look into it.

POLL_SECONDS = 0.5
# By the scheme of CRAWL2CHAT_EXECUTOR. Names and not classes, so that a library is imported where it is chosen and nowhere else.
EXECUTORS = {"local": "tasks.execution.process_pool:ProcessPool", "ray": "tasks.execution.ray_cluster:RayCluster"}


class WorkersLost(RuntimeError):
    """Workers, or what starts them, were killed: the shards that they worked on have neither a result nor an error."""


@dataclass(frozen=True)
class Task(Generic[S]):
    """What runs on every shard. It is pickled once for each shard, so it holds names and numbers and no data."""

    stage: str
    work: Callable[[S], Counts]  # a function of a module, for workers to import
    folder: Path  # of the artifact that is being made
    lease: LeaseFile | None  # workers end when it is lost, see `model.processes.guard`
    num_workers: int  # 0: as many as the executor has cores for

    def run(self, shard: S) -> Record:
        """Do one shard; called in a worker. Returns its record."""
        # A difference, since one worker does many shards.
        before = _ticks
        counts = self.work(shard)
        return {**counts, "ticks": _ticks - before}


@dataclass(frozen=True)
class Result:
    """What became of one shard: its record, or the exception that ended it."""

    name: str
    record: Record = field(default_factory=dict)
    error: BaseException | None = None


@dataclass(frozen=True)
class Update:
    """News of a run: shards that have ended since the last update, and the units that all workers have counted with `tick`."""

    results: Sequence[Result]
    ticks: int


class Executor(Protocol):
    """Somewhere to run shards."""

    def __init__(self, address: str) -> None:
        """`address`: the setting without its scheme, for RAY:ADDRESS what follows the colon. Raises UserError where it is wrong."""

    def run(self, task: Task[S], shards: Sequence[tuple[str, S]]) -> Generator[Update]:
        """Run `task.run(shard)` for every (name, shard), `task.num_workers` at a time, in any order.

        Yields an update every POLL_SECONDS or so, also an empty one: between two of them the caller renews what it shows and stops
        where it lost its lease. Ends when each shard was in an update. The error of a shard is yielded, not raised. Closing the
        generator, as the caller does on any error, ends what still runs; no worker may write after that.
        Raises WorkersLost where workers were killed.
        """
        ...


def chosen_executor() -> Executor:
    """The executor that CRAWL2CHAT_EXECUTOR names, `local` without it. Raises UserError where that is not a known name."""
    setting = os.environ.get("CRAWL2CHAT_EXECUTOR") or "local"
    scheme, _, address = setting.partition(":")
    if scheme not in EXECUTORS:
        raise UserError(
            f"CRAWL2CHAT_EXECUTOR={setting[:80]!r} is not known: set it to local, ray:auto, ray:HOST:PORT or ray://HOST:PORT, or unset it"
        )
    module, _, name = EXECUTORS[scheme].partition(":")
    return cast(Executor, getattr(importlib.import_module(module), name)(address))


_ticks = 0  # units that this worker has counted
_on_tick: Callable[[int], None] = lambda _: None  # noqa: E731 - how this worker reports them on the way


def tick(num: int = 1) -> None:
    """Count `num` more units of the stage's progress as done; called by a worker."""
    global _ticks  # noqa: PLW0603 - one worker process has one count
    _ticks += num
    _on_tick(num)


def report_ticks(on_tick: Callable[[int], None]) -> None:
    """Have `on_tick` called with each count of this worker; an executor calls it where a worker starts."""
    global _on_tick  # noqa: PLW0603
    _on_tick = on_tick
