"""Where the shards of a stage run: processes of this machine.

A finished shard leaves a record with its counts in the stage's state folder, and is not run again. Workers are not forked from
the parent, which has threads, but from a server that does nothing else and has loaded the modules already, once for all stages of
a process. A shard is no Prefect task: at 100 ms of bookkeeping each, 90,000 of them would cost hours.
"""

import atexit
import contextlib
import gc
import json
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.util
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, TypeVar

from model.errors import UserError
from model.files import MAX_NAME_BYTES, remove_temporary_files, short_file_name
from model.processes import LeaseFile, guard
from tasks.artifacts.files import write_atomically
from tasks.execution.context import StageContext

S = TypeVar("S")
Counts = dict[str, int]
POLL_SECONDS = 0.5
UNNOTICED_SECONDS = 10.0
MAX_TEMPORARY_BYTES = 70  # /pymp-XXXXXXXX/listener-XXXXXXXX follows

_done: "Synchronized[int]"  # by all workers
_ticks = 0  # by this one


def tick(num: int = 1) -> None:
    """Count `num` more units of the stage's progress as done; called by a worker."""
    global _ticks  # noqa: PLW0603 - one worker process has one count
    _ticks += num
    with _done.get_lock():
        _done.value += num


class Workers(ForkServerContext):
    """Where worker processes come from. Keeps them, so that they can be killed while they are at work: executors only wait."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[BaseProcess] = []

    def Process(self, *arguments: Any, **settings: Any) -> BaseProcess:  # type: ignore[override]
        """A new worker process, which `kill` ends. Named as multiprocessing calls it."""
        process = ForkServerProcess(*arguments, **settings)
        self.started.append(process)
        return process

    def any_died(self) -> bool:
        """Whether a worker has ended; while shards are open, none ends by itself."""
        return any(process.pid is not None and process.exitcode is not None for process in self.started)

    def kill(self) -> None:
        """Kill all workers, whatever they do."""
        for process in self.started:
            if process.pid is not None:  # None: the server was killed before it forked this one
                process.kill()


def _start_worker(done: "Synchronized[int]", lease: LeaseFile | None) -> None:
    global _done  # noqa: PLW0603
    _done = done
    gc.freeze()  # what the server loaded stays: no collection has to look at it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the stage ends its workers
    guard(lease)
    threading.Thread(target=_end_with_stage, daemon=True).start()


def _end_with_stage() -> None:
    """The server that a worker was forked from is its parent for the kernel; this waits for the stage's process."""
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

    `total` is how many units `work` counts with `tick`, or an estimate. An error of a shard, an interrupt or the loss of the lease ends
    the stage at once: its workers are killed, finished shards keep their records. Raises RuntimeError with the shards' names where a worker
    process was killed, UserError where there is no shard.
    """
    if not shards:
        raise UserError(f"stage {ctx.step.stage} has no shard to read: run the stage before it again with --force")
    records = ctx.state / "shards"
    finished = {name: json.loads(path.read_text()) for name, _ in shards if (path := _record(records, name)).exists()}
    if finished:
        ctx.log(f"resuming: {len(finished)} of {len(shards)} shards were finished before")
    workers = _fork_server(work.__module__)
    done: Synchronized[int] = workers.Value("q", sum(counts.get("ticks", 0) for counts in finished.values()))
    # Read without its lock: a worker that was killed while it held the lock keeps it for ever.
    count = done.get_obj()
    start, before = time.monotonic(), count.value
    lease = ctx.lease.file if ctx.lease else None
    num_workers = max(1, min(num_workers, len(shards) - len(finished)))
    with ProcessPoolExecutor(num_workers, workers, _start_worker, (done, lease)) as pool:
        try:
            waiting: dict[Future[Counts], str] = {
                pool.submit(_counted, work, shard): name for name, shard in shards if name not in finished
            }
        except (EOFError, ConnectionError, BrokenProcessPool) as error:
            workers.kill()
            pool.shutdown(cancel_futures=True)
            ctx.check_lease()
            # Not as it is: to the command line, EOFError means that a person ended the input.
            raise RuntimeError(
                f"stage {ctx.step.stage} could not start its workers: one of them, or their server, was killed"
            ) from error
        try:
            running = set(waiting)
            died_at = 0.0  # when the death of a worker was first seen
            while running:
                ready, running = wait(running, POLL_SECONDS, FIRST_COMPLETED)
                _keep(ctx, records, {waiting[future]: future for future in ready}, finished)
                rate = (count.value - before) / (time.monotonic() - start)
                values = {"shards": len(finished), f"{unit}/s": rate}
                ctx.progress(min(count.value, total), total, unit, **values)
                # The pool reports a dead worker at once, unless it waits for the rest of a result that the worker was writing.
                if running and workers.any_died():
                    died_at = died_at or time.monotonic()
                    if time.monotonic() - died_at > UNNOTICED_SECONDS:
                        raise BrokenProcessPool("a worker ended and its pool did not notice")
        except BaseException as error:
            workers.kill()
            pool.shutdown(cancel_futures=True)
            remove_temporary_files(ctx.folder)
            if not isinstance(error, BrokenProcessPool):
                raise
            ctx.check_lease()  # workers end when it is lost
            names = ", ".join(sorted(name for name in waiting.values() if name not in finished)[:num_workers])
            raise RuntimeError(
                f"a worker of stage {ctx.step.stage} was killed (manually or out of memory) near shards {names}"
            ) from error
    return _sum([finished[name] for name, _ in shards])


def _record(records: Path, name: str) -> Path:
    return records / short_file_name(f"{name}.json", MAX_NAME_BYTES)


def _keep(ctx: StageContext, records: Path, ready: Mapping[str, Future[Counts]], finished: dict[str, Counts]) -> None:
    """Write the records of shards that are finished, then raise the error of one that failed."""
    ctx.check_lease()
    failed = [future for future in ready.values() if future.exception() is not None]
    for name, future in ready.items():
        if future not in failed:
            write_atomically(_record(records, name), json.dumps(future.result()))
            finished[name] = future.result()
    for future in failed:
        future.result()


def _fork_server(module: str) -> Workers:
    """Workers forked from a server that has loaded all modules of the same package that are loaded here.

    The server runs until this process ends.
    """
    package = module.partition(".")[0]
    with _short_temporary_folder():
        multiprocessing.util.get_temp_dir()  # made once; the server's socket is in it
    workers = Workers()
    workers.set_forkserver_preload([name for name in sys.modules if name.partition(".")[0] == package])
    return workers


@contextlib.contextmanager
def _short_temporary_folder() -> Iterator[None]:
    """Use another folder than TMPDIR where that is too long: the path of a socket has at most 107 bytes."""
    before = tempfile.tempdir
    for folder in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108 - a private folder is made in it
        if len(os.fsencode(folder)) <= MAX_TEMPORARY_BYTES and os.access(folder, os.W_OK):
            tempfile.tempdir = folder
            break
    try:
        yield
    finally:
        tempfile.tempdir = before


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
