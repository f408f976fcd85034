"""The executor of a cluster: each shard is a task of Ray core.

CRAWL2CHAT_EXECUTOR is `ray:auto` (the cluster that this machine is a node of), `ray:HOST:PORT` (likewise, by the address of its head) or
`ray://HOST:PORT` (Ray's client server, from a machine outside the cluster). Settings may follow as a query, with these defaults:
`ray:auto?cpus=1&memory_bytes=1073741824&tries=3`, for each shard.

What a shard makes are files and a record in the stage's folder, which all nodes see at the same path. Through the driver, the process of
the stage, go only names and counts: its memory does not grow with the shards. At most twice as many shards are in flight as fit into the
cluster, or `num_workers`; so an autoscaler sees the demand, and nodes may join.

Ray retries nothing here (max_retries=0), since its counts do not separate a shard that fails from a node that is lost:

    lost with its node       done again, up to MAX_LOSSES times; the other nodes continue
    an error, a dead worker  tried again on whatever node, `tries` times in all; then the shard's error is yielded
    UserError                not tried again

Ray Data is not used: it cannot resume, and a preempted node ends its pipeline (ray issues 55008 and 52815). Tried with ray 2.60.
"""

import atexit
import contextlib
import itertools
import os
import secrets
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NoReturn
from urllib.parse import parse_qsl

from model.errors import UserError
from model.processes import LeaseLost, lock_state, writers_file
from tasks.execution.executor import POLL_SECONDS, Result, S, Task, Update, WorkersLost
from tasks.execution.provenance import code_digest
from tasks.execution.ray_worker import PASSED_ON, Job, Progress, WrongNode, run_shard
from tasks.execution.reporter import logger

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reads it when it is imported; without it, it reports home

try:
    import ray
    from ray import exceptions
except ImportError as error:
    raise UserError(f"Ray is not installed ({error}): install crawl2chat with `pip install '.[ray]'`") from None

# Ray's own leaving at the end of the process first sleeps half a second, for the workers' output, which is not asked for here.
atexit.register(ray.shutdown)

MAX_LOSSES = (
    10  # of one shard with its node: one that takes its node along, as by its memory, must not go round for ever
)
MIN_IN_FLIGHT = 8
PROGRESS_SECONDS = 10.0  # without a finished shard, after which the running ones are asked how far they are
CAPACITY_SECONDS = 5.0  # after which the cluster is asked for its size again
CANCEL_SECONDS = 10.0
CONNECT_SECONDS = 10.0
LOST = (exceptions.NodeDiedError, exceptions.LocalRayletDiedError)
DIED = (exceptions.WorkerCrashedError, exceptions.OutOfMemoryError)


@dataclass
class Attempt(Generic[S]):
    """A shard that is not finished, and how often it has failed and was lost."""

    name: str
    shard: S
    num_failures: int = 0
    num_losses: int = 0


class RayCluster:
    """Runs shards as Ray tasks."""

    def __init__(self, address: str) -> None:
        self.address, _, query = address.partition("?")
        if self.address.startswith("//"):
            self.address = f"ray:{self.address}"
        try:
            settings = {name: float(value) for name, value in parse_qsl(query, strict_parsing=True)} if query else {}
            self.num_cpus = settings.pop("cpus", 1.0)
            self.memory_bytes = int(settings.pop("memory_bytes", 2**30))
            self.num_tries = int(settings.pop("tries", 3))
        except ValueError as error:
            _refuse(address, str(error))
        if not self.address or settings or min(self.num_cpus, self.memory_bytes, self.num_tries) <= 0:
            _refuse(address, "the settings are cpus, memory_bytes and tries, all above 0")

    def run(self, task: Task[S], shards: Sequence[tuple[str, S]]) -> Generator[Update]:
        """Run every shard, see `Executor.run`."""
        connect(self.address)
        try:
            yield from InFlight(self, task, shards).updates()
        except (exceptions.RaySystemError, ConnectionError) as error:
            ray.shutdown()
            raise WorkersLost(f"the Ray cluster {self.address} was lost ({_first_line(error)})") from error

    def capacity(self) -> int:
        """How many shards fit into the cluster at a time."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return sum(
            int(min(node.get("CPU", 0) / self.num_cpus, node.get("memory", 0) / self.memory_bytes)) for node in nodes
        )


class InFlight(Generic[S]):
    """The shards of one stage on their way through the cluster."""

    def __init__(self, cluster: RayCluster, task: Task[S], shards: Sequence[tuple[str, S]]) -> None:
        self.cluster, self.task = cluster, task
        self.waiting: deque[Attempt[S]] = deque(Attempt(name, shard) for name, shard in shards)
        self.running: dict[Any, Attempt[S]] = {}
        self.run = secrets.token_hex(8)  # two stages may have shards of one name
        self.finished_at = time.monotonic()
        self.asked: Any = None
        self.unfinished_ticks: dict[str, int] = {}
        self.finished_ticks = 0
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        # Bytes, which a worker reads once (`ray_worker.run_shard`): as an object of Ray it would be read again for each shard. By
        # cloudpickle, since the work of a script (`__main__`) is no module that a worker could import.
        self.job = ray.cloudpickle.dumps(Job(task, code_digest(), environment, _progress_name, self.run))
        settings = {
            "num_cpus": cluster.num_cpus,
            "memory": cluster.memory_bytes,
            "max_retries": 0,
            "enable_task_events": False,  # or the server keeps 6 KB of each shard, for the dashboard
        }
        remote = ray.remote(run_shard)
        # A node on which everything fails, as with a full disk, is always free: spread what has failed before.
        self.first = remote.options(**settings)
        self.again = remote.options(**settings, scheduling_strategy="SPREAD")
        self.capacity, self.capacity_at = 0, -CAPACITY_SECONDS

    def updates(self) -> Generator[Update]:
        """Run all; an update whenever some have ended, and every POLL_SECONDS."""
        try:
            while self.waiting or self.running:
                while self.waiting and len(self.running) < self._num_wanted():
                    self._submit(self.waiting.popleft())
                yield Update(self._collect(), self._ticks())
        finally:
            self._cancel()

    def _num_wanted(self) -> int:
        if self.task.num_workers:
            return self.task.num_workers
        if time.monotonic() - self.capacity_at > CAPACITY_SECONDS:
            self.capacity, self.capacity_at = self.cluster.capacity(), time.monotonic()
            if not self.capacity:
                logger.warning(
                    "no node of the Ray cluster has the CPUs and the memory that one shard asks for: waiting for one"
                )
        return max(2 * self.capacity, MIN_IN_FLIGHT)

    def _submit(self, attempt: Attempt[S]) -> None:
        remote = self.again if attempt.num_failures else self.first
        self.running[remote.remote(self.job, attempt.name, attempt.shard)] = attempt

    def _collect(self) -> list[Result]:
        """The results of the shards that have ended; waits up to POLL_SECONDS for the first."""
        waiting = list(self.running)
        ready, _ = ray.wait(waiting, num_returns=1, timeout=POLL_SECONDS, fetch_local=False)
        if ready:
            ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0, fetch_local=False)
        return [result for reference in ready if (result := self._result(reference, self.running.pop(reference)))]

    def _result(self, reference: Any, attempt: Attempt[S]) -> Result | None:
        """What became of a shard; None where it is done again."""
        try:
            record = ray.get(reference)
        except LOST as error:
            attempt.num_losses += 1
            if attempt.num_losses > MAX_LOSSES:
                return Result(attempt.name, error=error)
            logger.warning("shard %s was lost with its node and is done again", attempt.name)
        except (exceptions.RayTaskError, *DIED) as error:
            cause = _cause(error, attempt.name)
            if isinstance(cause, WrongNode | LeaseLost):  # it is not the shard that is wrong
                raise cause from error
            attempt.num_failures += 1
            if isinstance(cause, UserError) or attempt.num_failures >= self.cluster.num_tries:
                return Result(attempt.name, error=cause)
            logger.warning(
                "shard %s failed, try %d of %d: %s",
                attempt.name,
                attempt.num_failures,
                self.cluster.num_tries,
                _first_line(cause),
            )
        else:
            self.finished_ticks += record["ticks"]
            self.finished_at = time.monotonic()
            return Result(attempt.name, record)
        self.waiting.appendleft(attempt)
        return None

    def _ticks(self) -> int:
        """The units that all shards have counted. The nodes report once a second; nobody waits for them."""
        if self.asked is None:
            # Shards that end within seconds tell enough themselves.
            if time.monotonic() - self.finished_at < PROGRESS_SECONDS:
                return self.finished_ticks
            self.asked = progress_actor().ticks.remote(self.run)
        if ray.wait([self.asked], timeout=0)[0]:
            # The actor may be lost with its node, and starts again elsewhere.
            with contextlib.suppress(exceptions.RayError):
                self.unfinished_ticks = ray.get(self.asked)
            self.asked = progress_actor().ticks.remote(self.run)
        running = {attempt.name for attempt in self.running.values()}
        return self.finished_ticks + sum(num for name, num in self.unfinished_ticks.items() if name in running)

    def _cancel(self) -> None:
        """Kill the workers of what still runs, and wait until none of them writes."""
        for reference in self.running:
            with contextlib.suppress(exceptions.RayError):
                ray.cancel(reference, force=True)
        if _progress is not None:
            with contextlib.suppress(exceptions.RayError):
                _progress.forget.remote(self.run)
        if not self.running or self.task.lease is None:
            return
        # Ray counts a task as cancelled before its worker is dead. Workers share this lock until they are.
        deadline = time.monotonic() + CANCEL_SECONDS
        while lock_state(writers_file(self.task.lease.path)) == "held" and time.monotonic() < deadline:
            time.sleep(0.05)


_connecting = threading.Lock()
_connected_to = ""
_progress_name = ""  # of this connection
_progress: Any = None


def progress_actor() -> Any:
    """The actor that the workers of this process's stages report their progress to. Started when it is first asked for."""
    global _progress  # noqa: PLW0603 - as the connection
    # One for all stages: an actor takes a worker process, with all that it has imported, and its end ends the process.
    if _progress is None:
        _progress = ray.remote(Progress).options(name=_progress_name, num_cpus=0, max_restarts=-1).remote()
    return _progress


def connect(address: str) -> None:
    """Connect this process to a cluster, once for all its stages. Raises UserError where no cluster answers."""
    global _connected_to, _progress, _progress_name  # noqa: PLW0603 - Ray has one connection for each process
    with _connecting:
        if ray.is_initialized() and _connected_to == address:
            return
        ray.shutdown()
        _progress, _progress_name = None, f"progress-{secrets.token_hex(8)}"
        try:
            _refuse_closed_port(address)
            with _own_signals():
                # Neither Ray's log nor the output of workers: what a shard has to say is its record or its error.
                ray.init(address=address, log_to_driver=False, configure_logging=False)
        except (
            Exception
        ) as error:  # ConnectionError, ValueError, RuntimeError: as the address is wrong in one way or another
            raise UserError(
                f"no Ray cluster answers at {address} ({_first_line(error)}): start one with `ray start --head`, or set CRAWL2CHAT_EXECUTOR to the address of one"
            ) from error
        _connected_to = address


def _refuse_closed_port(address: str) -> None:
    """Raises OSError where nobody listens: Ray would try again for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handler of SIGTERM, by which Prefect cancels a run: `ray.init` sets its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _cause(error: Exception, name: str) -> Exception:
    """The exception that a shard raised, with the worker's traceback as its cause."""
    if isinstance(error, DIED):
        why = (
            "it took more memory than its node has"
            if isinstance(error, exceptions.OutOfMemoryError)
            else "was it out of memory?"
        )
        return RuntimeError(f"the worker of shard {name} was killed ({why}): {_first_line(error)}")
    cause = getattr(error, "cause", None)
    if not isinstance(cause, Exception):
        return error
    cause.__cause__ = error
    return cause


def _first_line(error: BaseException) -> str:
    return next(itertools.chain(str(error).splitlines(), [type(error).__name__]))[:300]


def _refuse(address: str, reason: str) -> NoReturn:
    raise UserError(
        f"CRAWL2CHAT_EXECUTOR=ray:{address[:80]} cannot be read ({reason}): set it to ray:auto, ray:HOST:PORT or ray://HOST:PORT, with settings as "
        "ray:auto?cpus=1&memory_bytes=2000000000&tries=3"
    )
