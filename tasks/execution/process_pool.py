"""The executor of one machine: worker processes.

Workers are not forked from the stage's process, which has threads (of the lease, of pyarrow, of fsspec), and a lock that another thread
holds while a process forks is never released in the child. They are forked from a server that does nothing else and has loaded the modules
already, once for all stages of a process.
"""

import atexit
import contextlib
import gc
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.util
import os
import queue
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from queue import SimpleQueue
from typing import Any

from model.errors import UserError
from model.processes import LeaseFile, guard
from tasks.execution.executor import POLL_SECONDS, Record, Result, S, Task, Update, WorkersLost, report_ticks

UNNOTICED_SECONDS = 10.0
MAX_TEMPORARY_BYTES = 70  # /pymp-XXXXXXXX/listener-XXXXXXXX follows


class ProcessPool:
    """Runs shards in processes of this machine."""

    def __init__(self, address: str = "") -> None:
        if address:
            raise UserError(f"CRAWL2CHAT_EXECUTOR=local:{address[:80]} names an address: set it to local alone")

    def run(self, task: Task[S], shards: Sequence[tuple[str, S]]) -> Generator[Update]:
        """Run every shard, see `Executor.run`."""
        workers = _fork_server(task.work.__module__)
        done: Synchronized[int] = workers.Value("q", 0)
        num_workers = min(task.num_workers or os.cpu_count() or 1, len(shards))
        with ProcessPoolExecutor(num_workers, workers, _start_worker, (done, task.lease, dict(os.environ))) as pool:
            try:
                yield from _updates(workers, _submit(pool, task, shards), done)
            except BaseException:  # GeneratorExit among them: the caller wants no more
                # Killed, not asked: a pool that is left waits for shards that may take an hour.
                workers.kill()
                pool.shutdown(cancel_futures=True)
                raise


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


def _submit(pool: ProcessPoolExecutor, task: Task[S], shards: Sequence[tuple[str, S]]) -> dict[Future[Record], str]:
    try:
        return {pool.submit(task.run, shard): name for name, shard in shards}
    except (EOFError, ConnectionError, BrokenProcessPool) as error:
        # Not as it is: to the command line, EOFError means that a person ended the input.
        raise WorkersLost("its workers could not be started: one of them, or their server, was killed") from error


def _updates(workers: Workers, waiting: dict[Future[Record], str], done: "Synchronized[int]") -> Generator[Update]:
    # Read without its lock: a worker that was killed while it held the lock keeps it for ever.
    count = done.get_obj()
    # Waited for with a time limit and not with as_completed, which would leave progress and lease unattended during a long shard. A queue
    # and not `wait`, which looks at every future each time: with 10,000 shards that took minutes.
    ended: SimpleQueue[Future[Record]] = SimpleQueue()
    for future in waiting:
        future.add_done_callback(ended.put)
    num_running = len(waiting)
    died_at = 0.0  # when the death of a worker was first seen
    while num_running:
        ready = _take_all(ended)
        num_running -= len(ready)
        # Ready together with a broken pool may be good results: they are kept before the loss is raised.
        results = [_result(waiting[future], future) for future in ready]
        yield Update([result for result in results if not isinstance(result.error, BrokenProcessPool)], count.value)
        if any(isinstance(result.error, BrokenProcessPool) for result in results):
            raise WorkersLost("a worker was killed (manually or out of memory)")
        # The pool reports a dead worker at once, unless it waits for the rest of a result that the worker was writing.
        if num_running and workers.any_died():
            died_at = died_at or time.monotonic()
            if time.monotonic() - died_at > UNNOTICED_SECONDS:
                raise WorkersLost("a worker was killed (manually or out of memory)")


def _take_all(ended: "SimpleQueue[Future[Record]]") -> list[Future[Record]]:
    """All that have ended; waits up to POLL_SECONDS for the first."""
    ready = []
    with contextlib.suppress(queue.Empty):
        ready.append(ended.get(timeout=POLL_SECONDS))
        while True:
            ready.append(ended.get_nowait())
    return ready


def _result(name: str, future: Future[Record]) -> Result:
    if (error := future.exception()) is not None:
        return Result(name, error=error)
    return Result(name, future.result())


def _start_worker(done: "Synchronized[int]", lease: LeaseFile | None, environment: dict[str, str]) -> None:
    # The server that this process was forked from keeps the variables of the time when it started: credentials may be newer.
    os.environ.clear()
    os.environ.update(environment)

    def count(num: int) -> None:
        with done.get_lock():
            done.value += num

    # Shared memory and not a queue: a count costs a lock and no message.
    report_ticks(count)
    gc.freeze()  # what the server loaded stays: no collection has to look at it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the stage ends its workers
    # Of the lease as the kernel shows it, not of the parent: the server that forked this process outlives no stage, but is not it.
    guard(lease)
    threading.Thread(target=_end_with_stage, daemon=True).start()


def _end_with_stage() -> None:
    """The server that a worker was forked from is its parent for the kernel; this waits for the stage's process."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _fork_server(module: str) -> Workers:
    """Workers forked from a server that has loaded all modules of the same package that are loaded here.

    The server runs until this process ends.
    """
    package = module.partition(".")[0]
    with _short_temporary_folder():
        multiprocessing.util.get_temp_dir()  # made once; the server's socket is in it
    workers = Workers()
    # The imports (pyarrow, lxml) are paid once and not by each worker.
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
