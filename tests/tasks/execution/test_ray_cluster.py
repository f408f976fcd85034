"""Shards on a Ray cluster of three nodes: the same bytes as on one machine, nodes that die and join, shards that fail, interrupts."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import ray

from model.errors import UserError
from model.files import replacing
from model.processes import LeaseLost
from tasks.artifacts.manifest import Manifest
from tasks.artifacts.step import Step
from tasks.artifacts.store import Store
from tasks.dedup.stage import DedupConfig
from tasks.execution import ray_cluster, ray_worker
from tasks.execution.context import StageContext
from tasks.execution.executor import Task, chosen_executor
from tasks.execution.lease import lease
from tasks.execution.provenance import code_digest
from tasks.execution.runner import execute
from tasks.execution.shards import Counts, map_shards, shards_set_aside, tick
from tasks.filter.stage import FilterConfig
from tasks.ingest.stage import IngestConfig
from tasks.tokenizer.encode import TokenizeConfig
from tasks.tokenizer.encode import tokenize as tokenize_step
from tasks.tokenizer.train import TokenizerConfig
from tests.support.ray_nodes import RayNodes
from tests.support.wiring import dedup, filter, ingest, tokenizer
from tests.tasks.execution.test_shards import context

SETTINGS = {"num_workers": 0, "total": 100, "unit": "documents"}


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    with RayNodes(num=3) as started:
        yield started


@pytest.fixture
def cluster(nodes: RayNodes, monkeypatch: pytest.MonkeyPatch) -> RayNodes:
    monkeypatch.setenv("CRAWL2CHAT_EXECUTOR", f"ray:{nodes.address}")
    return nodes


def test_data_half_makes_the_same_bytes_as_one_machine(
    cluster: RayNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = ingest(IngestConfig(sample={"num_articles": 60, "num_files": 4}, extractor="resiliparse"))
    clean = filter(raw, FilterConfig(min_gopher_words=20))
    unique = dedup(clean, DedupConfig(max_line_documents=5, keep_signatures=True))
    learned = tokenizer(unique, TokenizerConfig(vocab_size=400))
    steps: list[Step] = [raw, clean, unique, learned, tokenize_step(unique, learned, TokenizeConfig())]

    def made(folder: str) -> list[Manifest]:
        store = Store(str(tmp_path / folder))
        return [execute(step, store) for step in steps]

    on_cluster = made("cluster")
    monkeypatch.setenv("CRAWL2CHAT_EXECUTOR", "local")
    on_one = made("one")
    assert [manifest.files for manifest in on_cluster] == [manifest.files for manifest in on_one]
    assert [manifest.counts for manifest in on_cluster] == [manifest.counts for manifest in on_one]
    assert on_cluster[-1].counts["documents"] > 20


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120  # a bound on hangs
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def node_id() -> str:
    return str(ray.get_runtime_context().get_node_id())


def work_until_released(shard: str) -> Counts:
    """Says on which node it runs, then waits for the file `released`."""
    folder = Path(shard).parent
    (folder / f"{Path(shard).name}-{node_id()}.started").touch()
    wait_until((folder / "released").exists)
    tick(2)
    return {"documents": 1}


def test_shards_of_a_dead_node_are_done_again_and_a_new_node_takes_part(cluster: RayNodes, tmp_path: Path) -> None:
    shards = [(str(number), f"{tmp_path}/{number}") for number in range(6)]
    counts: list[Counts] = []
    stage = threading.Thread(
        target=lambda: counts.append(map_shards(context(tmp_path), work_until_released, shards, **SETTINGS))
    )
    stage.start()

    def started_on() -> set[str]:
        return {path.stem.partition("-")[2] for path in tmp_path.glob("*.started")}

    wait_until(lambda: len(started_on()) == 3)
    dead = cluster.kill()
    [lost] = tmp_path.glob(f"*-{dead}.started")
    cluster.others.append(cluster.add())
    wait_until(lambda: cluster.others[-1].node_id in started_on())
    (tmp_path / "released").touch()
    stage.join(120)
    assert counts == [{"documents": 6}]
    attempts = {shard: len(list(tmp_path.glob(f"{shard}-*.started"))) for shard, _ in shards}
    assert attempts == {shard: 1 + (shard == lost.stem.partition("-")[0]) for shard, _ in shards}


def count_and_wait(shard: str) -> Counts:
    tick(3)
    wait_until((Path(shard).parent / "released").exists)
    return {"documents": 1}


def test_units_of_shards_that_still_run_are_seen(
    cluster: RayNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "PROGRESS_SECONDS", 0.1)
    task = Task("ingest", count_and_wait, tmp_path, None, 0)
    seen = 0
    for update in chosen_executor().run(task, named(tmp_path, "a", "b")):
        seen = update.ticks
        if seen == 6:  # which both have counted, and neither has ended
            (tmp_path / "released").touch()
    assert seen == 6 and (tmp_path / "released").exists()


def fail_by_kind(shard: str) -> Counts:
    """Shards called bad-... raise, dying-... end their process, new-... fail at the first try, user-... make a user's mistake."""
    path = Path(shard)
    number = len(list(path.parent.glob(f"{path.name}.try*")))
    (path.parent / f"{path.name}.try{number}").touch()
    kind = path.name.partition("-")[0]
    if kind == "user":
        raise UserError("a file is no web archive")
    if kind == "bad" or (kind == "new" and number == 0):
        raise ValueError(f"shard {path.name} is bad")
    if kind == "dying":
        os._exit(9)
    tick(1)
    return {"documents": 1}


def named(folder: Path, *names: str) -> list[tuple[str, str]]:
    return [(name, f"{folder}/{name}") for name in names]


@pytest.mark.parametrize(
    ("name", "error", "message", "num_tries"),
    [
        ("bad-1", ValueError, "shard bad-1 is bad", 3),
        ("dying-1", RuntimeError, "the worker of shard dying-1 was killed", 3),
        ("user-1", UserError, "a file is no web archive", 1),
    ],
)
def test_failing_shard_is_tried_again_and_then_fails_the_stage(
    cluster: RayNodes, tmp_path: Path, name: str, error: type[Exception], message: str, num_tries: int
) -> None:
    with pytest.raises(error, match=message):
        map_shards(context(tmp_path), fail_by_kind, named(tmp_path, "good-1", name), **SETTINGS)
    assert len(list(tmp_path.glob(f"{name}.try*"))) == num_tries


def test_poisoned_shards_are_set_aside_and_named(cluster: RayNodes, tmp_path: Path) -> None:
    shards = named(tmp_path, "good-1", "bad-1", "new-1", "dying-1", "good-2")
    counts = map_shards(context(tmp_path), fail_by_kind, shards, **SETTINGS, max_failed_fraction=0.4)
    assert counts == {"documents": 3, "shards_set_aside": 2}
    reasons = shards_set_aside(context(tmp_path))
    assert reasons["bad-1"] == "ValueError: shard bad-1 is bad"
    assert "the worker of shard dying-1 was killed" in reasons["dying-1"]
    assert len(reasons) == 2


RUN = """if True:
    import sys
    from pathlib import Path
    from tasks.execution import ray_worker
    from tasks.execution.context import StageContext
    from tasks.execution.lease import lease
    from tests.tasks.execution.test_ray_cluster import SETTINGS, context, half_written, map_shards, named
    folder = Path(sys.argv[1])
    with lease(folder) as held:
        ctx = StageContext(context(folder).step, folder, held)
        map_shards(ctx, half_written, named(folder, "good", "slow-1", "slow-2"), **SETTINGS)
"""


def half_written(shard: str) -> Counts:
    """Shards called slow-... leave half a file, and write for 100 s."""
    path = Path(shard)
    if path.name.startswith("slow"):
        with replacing(path.with_suffix(".parquet")) as temporary:
            temporary.write_bytes(b"half")
            path.with_name(f"{os.getpid()}.started").touch()
            with path.with_suffix(".writes").open("ab", buffering=0) as writes:
                for _ in range(10_000):
                    writes.write(b".")
                    time.sleep(0.01)
    return {"documents": 1}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_ended_stage_leaves_no_worker_that_writes(cluster: RayNodes, tmp_path: Path, how: signal.Signals) -> None:
    stage = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], stderr=subprocess.PIPE)
    wait_until(lambda: len(list(tmp_path.glob("*.started"))) == 2 and (tmp_path / ".state/shards/good.json").exists())

    def num_written() -> list[int]:
        return [path.stat().st_size for path in sorted(tmp_path.glob("*.writes"))]

    wait_until(lambda: len(num_written()) == 2 and min(num_written()) > 0)
    stage.send_signal(how)
    assert stage.wait(60) != 0
    with lease(tmp_path):  # waits for the workers
        # What they have written is asked, not how the processes are: one that has let its lock go may still be ending.
        written = num_written()
        time.sleep(0.5)
        assert num_written() == written
    if how == signal.SIGINT:
        assert not list(tmp_path.rglob("*.tmp"))


def test_lost_lease_ends_the_workers(cluster: RayNodes, tmp_path: Path) -> None:
    def take_over() -> None:
        wait_until(lambda: bool(list(tmp_path.glob("*.started"))))
        (tmp_path / "lease").write_text('{"token": "of another run"}')

    with pytest.raises(LeaseLost), lease(tmp_path) as held:
        threading.Thread(target=take_over).start()
        ctx = StageContext(context(tmp_path).step, tmp_path, held)
        map_shards(ctx, half_written, named(tmp_path, "slow-1"), **SETTINGS)
    wait_until(lambda: not any(psutil.pid_exists(int(path.stem)) for path in tmp_path.glob("*.started")))


def test_node_with_other_code_is_refused(cluster: RayNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.execution.ray_cluster.code_digest", lambda: "another")
    with pytest.raises(UserError, match="has other code or libraries"):
        map_shards(context(tmp_path), fail_by_kind, named(tmp_path, "good"), **SETTINGS)


def test_node_without_the_shared_folder_is_refused(
    cluster: RayNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = StageContext(context(tmp_path).step, tmp_path / "there")
    digest = code_digest()

    def hide_folder() -> str:  # called when the stage has begun
        ctx.folder.rename(tmp_path / "elsewhere")
        return digest

    monkeypatch.setattr("tasks.execution.ray_cluster.code_digest", hide_folder)
    with pytest.raises(UserError, match="does not see"):
        map_shards(ctx, fail_by_kind, named(tmp_path, "good"), **SETTINGS)


def environment_of_worker(shard: str) -> Counts:
    """Counts 1 for each setting that reached the worker."""
    return {name: 1 for name in ray_worker.PASSED_ON if os.environ.get(name)}


def test_settings_of_the_stage_reach_the_workers(
    cluster: RayNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRAWL2CHAT_REFUSE_PRIVATE_ADDRESSES", "1")
    counts = map_shards(context(tmp_path), environment_of_worker, named(tmp_path, "a", "b", "c"), **SETTINGS)
    assert counts == {"CRAWL2CHAT_REFUSE_PRIVATE_ADDRESSES": 3}


@pytest.mark.parametrize("address", ["", "auto?cpus=none", "auto?cpus=0", "auto?disk=1", "auto?cpus"])
def test_unreadable_address_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRAWL2CHAT_EXECUTOR", f"ray:{address}")
    with pytest.raises(UserError, match="cannot be read"):
        chosen_executor()


def test_cluster_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRAWL2CHAT_EXECUTOR", "ray:127.0.0.1:1")
    with pytest.raises(UserError, match="no Ray cluster answers at 127"):
        map_shards(context(tmp_path), fail_by_kind, named(tmp_path, "good"), **SETTINGS)
