"""Where the shards of a stage run: processes of this machine.

A finished shard leaves a record with its counts in the stage's state folder, and is not run again. Workers are not forked from
the parent, which has threads, but from a server that does nothing else and has loaded the modules already, once for all stages of
a process. A shard is no Prefect task: at 100 ms of bookkeeping each, 90,000 of them would cost hours.
"""

import atexit
import gc
import json
import multiprocessing
import multiprocessing.forkserver
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import ForkServerContext
from multiprocessing.sharedctypes import Synchronized
from typing import Any, TypeVar

from tasks.artifacts.files import write_atomically
from tasks.execution.context import StageContext

S = TypeVar("S")
Counts = dict[str, int]
POLL_SECONDS = 0.5

_done: "Synchronized[int]"  # by all workers
_ticks = 0  # by this one


def tick(num: int = 1) -> None:
    """Told by a worker: `num` more units of the stage's progress are done."""
    global _ticks  # noqa: PLW0603 - one worker process has one count
    _ticks += num
    with _done.get_lock():
        _done.value += num


def _start_worker(done: "Synchronized[int]") -> None:
    global _done  # noqa: PLW0603
    _done = done
    gc.freeze()  # what the server loaded stays: no collection has to look at it
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker of a stage that was killed would wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def map_shards(
    ctx: StageContext,
    work: Callable[[S], Counts],
    shards: Sequence[tuple[str, S]],
    *,
    num_workers: int,
    total: int,
    unit: str,
) -> Counts:
    """Run `work` on every (name, shard) that has no record yet; the sum of all counts.

    `total` is how many units `work` tells by `tick`, or an estimate. The first error of a shard ends the stage, finished
    shards keep their records. Raises RuntimeError with the shards' names where a worker process was killed, ValueError where there
    is no shard.
    """
    if not shards:
        raise ValueError(f"stage {ctx.step.stage} is given no shard to read: run the stage before it anew")
    records = ctx.state / "shards"
    for leftover in ctx.folder.rglob("*.tmp"):  # of a worker that was killed
        leftover.unlink()
    finished = {name: json.loads(path.read_text()) for name, _ in shards if (path := records / f"{name}.json").exists()}
    if finished:
        ctx.log(f"going on: {len(finished)} of {len(shards)} shards were finished before")
    context = _fork_server(work.__module__)
    done: Synchronized[int] = context.Value("q", sum(counts.get("ticks", 0) for counts in finished.values()))
    start, before = time.monotonic(), done.value
    with ProcessPoolExecutor(
        max(1, min(num_workers, len(shards) - len(finished))), context, _start_worker, (done,)
    ) as pool:
        waiting: dict[Future[Any], str] = {
            pool.submit(_counted, work, shard): name for name, shard in shards if name not in finished
        }
        running = set(waiting)
        try:
            while running:
                ready, running = wait(running, POLL_SECONDS, FIRST_COMPLETED)
                for future in ready:
                    finished[waiting[future]] = future.result()
                    write_atomically(records / f"{waiting[future]}.json", json.dumps(future.result()))
                rate = (done.value - before) / (time.monotonic() - start)
                values = {"shards": len(finished), f"{unit}/s": rate}
                ctx.progress(min(done.value, total), total, unit, **values)
        except BrokenProcessPool as error:
            names = ", ".join(sorted(name for future, name in waiting.items() if name not in finished)[:num_workers])
            raise RuntimeError(
                f"a worker of stage {ctx.step.stage} was killed (out of memory?) near shards {names}"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return _sum([finished[name] for name, _ in shards])


def _fork_server(module: str) -> ForkServerContext:
    """With all modules of the same package that are loaded here. It runs until this process ends."""
    package = module.partition(".")[0]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([name for name in sys.modules if name.partition(".")[0] == package])
    return context


@atexit.register
def _end_server() -> None:
    """Waits for it, so that what workers cost is counted as this process's."""
    multiprocessing.forkserver._forkserver._stop()  # type: ignore[attr-defined]


def _counted(work: Callable[[S], Counts], shard: S) -> Counts:
    before = _ticks
    counts = work(shard)
    return {**counts, "ticks": _ticks - before}


def _sum(all_counts: Sequence[Counts]) -> Counts:
    total: Counter[str] = Counter()
    for counts in all_counts:
        total.update(counts)
    del total["ticks"]
    return dict(sorted(total.items()))
