"""What runs on the nodes of a Ray cluster: one shard after the other, and the reports of their progress.

A worker process of Ray outlives a stage and serves the next one. So it holds the stage's lease for the length of a shard
(model/processes.py): it ends within a second when the lease is lost, and no later run of the stage begins before it has ended. Ray
itself ends it when the stage's process dies.
"""

import contextlib
import functools
import os
import pickle
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic

from model.errors import UserError
from model.processes import guarding
from tasks.execution.executor import Record, S, Task, report_ticks
from tasks.execution.provenance import code_digest

REPORT_SECONDS = 1.0
# Of the stage's process, for its workers on all nodes: they too open URLs. None is a secret; credentials are the node's own.
PASSED_ON = ("CRAWL2CHAT_REFUSE_PRIVATE_ADDRESSES", "CRAWL2CHAT_CONTACT")
NODES_OWN = {name: os.environ[name] for name in PASSED_ON if os.environ.get(name)}


class WrongNode(UserError):
    """A node that cannot do any shard of a stage as its process would."""


@dataclass(frozen=True)
class Job(Generic[S]):
    """What all shards of a stage share."""

    task: Task[S]
    code_digest: str  # of the stage's process
    environment: Mapping[str, str]
    progress: str  # the name of the actor `Progress`, which may not be started yet
    run: str  # what this run of the stage is called there


class Progress:
    """An actor that keeps how many units of its work each running shard has counted."""

    def __init__(self) -> None:
        self.by_run: dict[str, dict[str, int]] = {}

    def report(self, run: str, name: str, num: int | None) -> None:
        """`num` units are counted; None: the shard has ended."""
        if num is None:
            self.by_run.get(run, {}).pop(name, None)
        else:
            self.by_run.setdefault(run, {})[name] = num

    def ticks(self, run: str) -> dict[str, int]:
        """The units of each running shard."""
        return self.by_run.get(run, {})

    def forget(self, run: str) -> None:
        """A run of a stage has ended."""
        self.by_run.pop(run, None)


def run_shard(pickled_job: bytes, name: str, shard: S) -> Record:
    """Do one shard. Returns its record. Raises WrongNode where this node has other code, or does not see the stage's folder."""
    job: Job[S] = _read_job(pickled_job)
    task = job.task
    if code_digest() != job.code_digest:
        raise WrongNode(
            f"node {socket.gethostname()} has other code or libraries than the stage's process, and would make other bytes: install the same commit "
            "and requirements.lock on all nodes"
        )
    if not task.folder.is_dir():
        raise WrongNode(
            f"node {socket.gethostname()} does not see {task.folder}: the nodes of a Ray cluster need the store's folder (of an object store its local "
            "cache, CRAWL2CHAT_CACHE) on a shared file system, at the same path"
        )
    for variable in PASSED_ON:  # left by the stage before
        os.environ.pop(variable, None)
    # The node's own come last: a node that refuses private addresses does so whatever a stage says.
    os.environ.update({**job.environment, **NODES_OWN})
    with guarding(task.lease), _reporting(job, name):
        return task.run(shard)


@functools.lru_cache(maxsize=4)
def _read_job(pickled: bytes) -> Job[Any]:
    found: Job[Any] = pickle.loads(pickled)  # noqa: S301 - from the stage's process, as the shard is
    return found


@contextlib.contextmanager
def _reporting(job: Job[Any], name: str) -> Iterator[None]:
    """Report what this shard counts once a second, where somebody asks. One that is done before costs nothing."""
    counted, over = 0, threading.Event()

    def count(num: int) -> None:
        nonlocal counted
        counted += num

    def report() -> None:
        progress = None
        while not over.wait(REPORT_SECONDS):
            progress = progress or _actor(job.progress)
            if progress:
                progress.report.remote(job.run, name, counted)
        if progress:
            progress.report.remote(job.run, name, None)

    report_ticks(count)
    threading.Thread(target=report, name="progress", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        report_ticks(lambda _: None)


def _actor(name: str) -> Any:
    """The actor of that name; None where it is not started."""
    import ray

    try:
        return ray.get_actor(name)
    except ValueError:
        return None
