"""Shards on a Ray cluster: what one costs, memory with many of them, and pages/s next to datatrove's executor on Ray.

    python -m tests.benchmarks.ray_speed

The first table: 10,000 shards that do nothing, on three nodes of one CPU each, on this machine. The second: the FineWeb recipe, from WARC
files to kept documents, by both on a Ray cluster of the same number of CPUs, in one run, with the same trafilatura on the same files, cut
into 24. datatrove starts a process for each of its tasks, so it is run with a task for each file and with one for each CPU. Both clusters
run already when the clock starts; the start of the workers counts for both. Three runs of each in turn, but one of datatrove's slower way:
the median of the seconds, and of the ratios of runs next to each other.
"""

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from model.config import Config
from tasks.artifacts.manifest import Documents
from tasks.artifacts.step import Step
from tasks.execution.context import StageContext
from tasks.execution.shards import Counts, map_shards, tick
from tasks.web import language_id
from tests.benchmarks.fineweb_speed import FILES, NUM_PARTS, OURS, PEER, cut, responses, timed
from tests.benchmarks.harness import DATATROVE, ROOT, machine, peer, print_table, say, shared_data
from tests.support.ray_nodes import RayNodes

RAY = f"ray=={version('ray')}"
NUM_SHARDS = 10_000
NUM_CPUS = os.cpu_count() or 1
NUM_RUNS = 3
LOOPBACK = "127.0.0.2"  # Ray takes 127.0.0.1 for the address of this machine in its network
OBJECT_STORE_BYTES = 80 * 2**20
USE_MODEL = """
    def use_model(data, rank, world_size):
        lid.cached_asset_path_or_download = lambda *_, **__: model
        return data
    pipeline = [
        use_model,
"""


@contextlib.contextmanager
def ray_head(python: str | Path, num_cpus: int, path: Path = ROOT) -> Iterator[str]:
    """A cluster of one node, of the Ray that `python` has; its workers find modules in `path`. Yields its address."""
    with socket.socket() as found:
        found.bind((LOOPBACK, 0))
        port = found.getsockname()[1]
    command = [python, "-m", "ray.scripts.scripts", "start", "--head", "--port", str(port), "--num-cpus", str(num_cpus)]
    small = ["--object-store-memory", str(OBJECT_STORE_BYTES), "--include-dashboard", "false", "--disable-usage-stats"]
    environment = os.environ | {"PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as log:
        process = psutil.Popen(
            [*command, *small, "--node-ip-address", LOOPBACK, "--block"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            wait_for_cpus(python, f"{LOOPBACK}:{port}", num_cpus)
            yield f"{LOOPBACK}:{port}"
        finally:
            children = process.children(recursive=True)
            process.terminate()
            for child in psutil.wait_procs([process, *children], 15)[1]:
                child.kill()


def wait_for_cpus(python: str | Path, address: str, num: int) -> None:
    """Wait until the cluster has so many CPUs."""
    script = (
        "import ray, sys, time\nend = time.monotonic() + 120\n"
        "while True:\n"
        "    try:\n        ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')\n        break\n"
        "    except Exception:\n        assert time.monotonic() < end\n        time.sleep(1)\n"
        "while ray.cluster_resources().get('CPU', 0) < int(sys.argv[2]):\n    assert time.monotonic() < end\n    time.sleep(0.2)\n"
    )
    subprocess.run([python, "-c", script, address, str(num)], check=True, capture_output=True)


def nothing(_: int) -> Counts:
    """A shard without work."""
    tick()
    return {"documents": 1}


def overhead(folder: Path, num_shards: int) -> None:
    os.environ["CRAWL2CHAT_EXECUTOR"] = "local"
    say(f"{num_shards} empty shards on this machine")
    rows = [[f"processes of this machine, {num_shards:,} shards", *run_empty(folder / "local", num_shards)]]
    say("starting three nodes of Ray")
    with RayNodes(3) as nodes:
        os.environ["CRAWL2CHAT_EXECUTOR"] = f"ray:{nodes.address}"
        run_empty(folder / "warm", 100)  # starts the workers
        for num in (num_shards // 10, num_shards):
            say(f"{num} empty shards on Ray")
            rows.append([f"Ray, three nodes of one CPU, {num:,} shards", *run_empty(folder / str(num), num)])
    print_table(
        "Cost of a shard",
        ["Where", "Shards/s", "ms a shard, wall", "Driver's memory before, MiB", "after", "GCS server's memory after"],
        rows,
        f"Shards that do nothing; each leaves its record. {machine()}.",
    )


def run_empty(folder: Path, num: int) -> list[str]:
    """Run empty shards: shards/s, ms for each, memory of this process before and after, and of Ray's server."""
    ctx = StageContext(Step("nothing", 1, Documents, Config(), {}, run=lambda *_: None), folder)
    own = psutil.Process()
    before, start = own.memory_info().rss, time.monotonic()
    counts = map_shards(ctx, nothing, [(str(n), n) for n in range(num)], num_workers=0, total=num, unit="documents")
    seconds = time.monotonic() - start
    assert counts == {"documents": num}
    servers = [found.memory_info().rss for found in own.children(recursive=True) if found.name() == "gcs_server"]
    mib = [f"{num_bytes / 2**20:.0f}" for num_bytes in (before, own.memory_info().rss, *servers)]
    return [f"{num / seconds:.0f}", f"{1000 * seconds / num:.2f}", *mib, *([] if servers else [""])]


def compare(files: Sequence[Path], folder: Path, max_files: int) -> None:
    cut(files, folder / "warcs")
    paths = sorted((folder / "warcs").iterdir())
    for path in paths[max_files:]:
        path.unlink()
    num_files = min(max_files, len(paths))
    num_pages = sum(1 for path in paths[:max_files] for _ in responses(path))
    (folder / "ours.py").write_text(OURS)
    python, model = peer(*DATATROVE, RAY), str(language_id.find_model())
    newer = f"trafilatura=={version('trafilatura')}"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "-t", folder / "newer", newer], check=True)
    commands = {}
    for num_tasks in (NUM_CPUS, num_files):
        script = folder / f"peer-{num_tasks}.py"
        script.write_text(on_ray(PEER, num_tasks))
        name = f"datatrove 0.10.1, RayPipelineExecutor, {num_tasks} tasks"
        commands[name] = [python, script, folder / "warcs", folder / f"theirs-{num_tasks}", model]
    for extractor in ("trafilatura", "resiliparse"):
        command = [sys.executable, folder / "ours.py", folder / "warcs", folder / extractor, extractor, "0"]
        commands[f"ours on Ray, {extractor}"] = command
    runs = in_turn(commands, folder / "newer")
    best, *_ = runs.values()
    rows = []
    for name, found in runs.items():
        wall = statistics.median(run["wall"] for run in found)
        times = statistics.median(other["wall"] / run["wall"] for other, run in zip(best, found, strict=False))
        rows.append([name, f"{num_pages / wall:.1f}", f"{wall:.1f}", f"{times:.1f}", found[0]["kept"]])
    print_table(
        f"The FineWeb recipe on a Ray cluster of {NUM_CPUS} CPUs",
        ["Who", "Pages/s", "Wall s", "Times datatrove's best", "Kept"],
        rows,
        f"{num_pages} pages in {num_files} files. {RAY}, trafilatura {version('trafilatura')} for both. {machine()}.",
    )


def in_turn(commands: Mapping[str, Sequence[str | Path]], newer: Path) -> dict[str, list[dict[str, Any]]]:
    """NUM_RUNS runs of each command by name, one after the other; of the command of more tasks, which is slow, one."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    python = next(iter(commands.values()))[0]
    with ray_head(python, NUM_CPUS, newer) as theirs, ray_head(sys.executable, NUM_CPUS) as own:
        os.environ.update(RAY_HEAD=theirs, CRAWL2CHAT_EXECUTOR=f"ray:{own}")
        # In turn, since the machine is faster in one minute than in another: what is compared has run next to each other.
        for number in range(NUM_RUNS):
            for place, (name, (start, script, warcs, out, *more)) in enumerate(commands.items()):
                if place == 1 and number:
                    continue
                say(f"{name}, run {number + 1} of {NUM_RUNS}")
                path = newer if start == python else ROOT
                runs[name].append(timed([start, script, warcs, f"{out}-{number}", *more], is_pinned=False, path=path))
    return runs


def on_ray(script: str, num_tasks: int) -> str:
    """The script of fineweb_speed for datatrove, on the cluster that RAY_HEAD names."""
    changes = {
        "import LocalPipelineExecutor": "import RayPipelineExecutor",
        "LocalPipelineExecutor(pipeline, tasks=1, ": f"RayPipelineExecutor(pipeline, tasks={num_tasks}, ",
        "import trafilatura\n": "import os\nimport ray\nimport trafilatura\n",
        # A worker imports datatrove itself. A function in the pipeline, which runs there, names the model: else it is downloaded.
        "    pipeline = [\n": USE_MODEL,
        "    warcs, out, model": '    ray.init(address=os.environ["RAY_HEAD"], log_to_driver=False)\n    warcs, out, model',
    }
    for before, after in changes.items():
        assert before in script
        script = script.replace(before, after)
    return script


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=len(FILES) * NUM_PARTS, help="how many of the files both read")
    parser.add_argument("--shards", type=int, default=NUM_SHARDS)
    parser.add_argument("--only", choices=["overhead", "pages"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.only != "pages":
            overhead(Path(folder), arguments.shards)
        if arguments.only != "overhead":
            compare([shared_data() / "extraction" / name for name in FILES], Path(folder), arguments.files)


if __name__ == "__main__":
    main()
