"""Shards in worker processes: records, errors, interrupts, kills, and temporary folders with long names."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from model.config import Config
from model.errors import UserError
from model.files import replacing
from tasks.artifacts.manifest import Documents
from tasks.artifacts.step import Step
from tasks.execution.context import StageContext
from tasks.execution.executor import EXECUTORS, Result, Task, Update, report_ticks
from tasks.execution.lease import lease
from tasks.execution.shards import Counts, map_shards, shards_set_aside, tick


def context(folder: Path) -> StageContext:
    return StageContext(Step("stage", 1, Documents, Config(), {}, run=lambda *_: None), folder)


def work(shard: str) -> Counts:
    """Shards called slow-... leave half a file and take long."""
    if shard.startswith("fail"):
        raise ValueError(f"shard {shard} is bad")
    folder, _, kind = shard.rpartition("/")
    if kind.startswith("slow"):
        with replacing(Path(folder) / f"{kind}.parquet") as temporary:
            temporary.write_bytes(b"half")
            (Path(folder) / f"{kind}-{os.getpid()}.started").touch()
            time.sleep(100)
    tick(2)
    return {"documents": 1}


def test_counts_are_summed_and_finished_shards_are_not_run_again(tmp_path: Path) -> None:
    shards = [(name, f"{tmp_path}/{name}") for name in ("a", "b", "x" * 300, "文" * 120)]
    settings = {"num_workers": 2, "total": 8, "unit": "documents"}
    assert map_shards(context(tmp_path), work, shards, **settings) == {"documents": 4}
    failing = [(name, "fail") for name, _ in shards]
    assert map_shards(context(tmp_path), work, failing, **settings) == {"documents": 4}


def read_variable(name: str) -> Counts:
    return {"value": int(os.environ.get(name, "0"))}


def test_workers_have_the_environment_of_the_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server that workers are forked from was started by an earlier stage, before new credentials were there."""
    settings = {"num_workers": 1, "total": 1, "unit": "variables"}
    for value in ("1", "2"):
        monkeypatch.setenv("CRAWL2CHAT_TEST_VALUE", value)
        shards = [(f"shard-{value}", "CRAWL2CHAT_TEST_VALUE")]
        assert map_shards(context(tmp_path / value), read_variable, shards, **settings) == {"value": int(value)}
    monkeypatch.delenv("CRAWL2CHAT_TEST_VALUE")
    shards = [("shard", "CRAWL2CHAT_TEST_VALUE")]
    assert map_shards(context(tmp_path / "none"), read_variable, shards, **settings) == {"value": 0}


def test_record_that_a_power_cut_left_empty_has_its_shard_done_again(tmp_path: Path) -> None:
    shards = [(name, f"{tmp_path}/{name}") for name in ("a", "b")]
    settings = {"num_workers": 1, "total": 4, "unit": "documents"}
    map_shards(context(tmp_path), work, shards, **settings)
    (tmp_path / ".state/shards/a.json").write_text("")
    (tmp_path / ".state/shards/b.json").write_text("[]")
    assert map_shards(context(tmp_path), work, shards, **settings) == {"documents": 2}


def test_error_of_a_shard_ends_the_stage_at_once_and_keeps_finished_shards(tmp_path: Path) -> None:
    shards = [("good", f"{tmp_path}/good"), ("slow", f"{tmp_path}/slow"), ("bad", "fail")]
    with pytest.raises(ValueError, match="shard fail is bad"):
        map_shards(context(tmp_path), work, shards, num_workers=2, total=3, unit="documents")
    assert (tmp_path / ".state/shards/good.json").exists()
    assert not list(tmp_path.rglob("*.tmp"))


RUN = """if True:
    import sys
    from pathlib import Path
    from tasks.execution.context import StageContext
    from tasks.execution.lease import lease
    from tests.tasks.execution.test_shards import context, map_shards, work
    folder = Path(sys.argv[1])
    shards = [(name, f"{folder}/{name}") for name in ("good", "slow-1", "slow-2")]
    with lease(folder) as held:
        ctx = StageContext(context(folder).step, folder, held)
        map_shards(ctx, work, shards, num_workers=2, total=6, unit="documents")
"""


def start(folder: Path, **environment: str) -> tuple[psutil.Popen, list[psutil.Process]]:
    """A stage with two workers busy, and all its processes but itself."""
    stage = psutil.Popen(
        [sys.executable, "-c", RUN, str(folder)], env={**os.environ, **environment}, stderr=subprocess.PIPE
    )
    while len(list(folder.glob("*.started"))) < 2 or not (folder / ".state/shards/good.json").exists():
        assert stage.poll() is None, stage.stderr.read().decode()
        time.sleep(0.02)
    return stage, stage.children(recursive=True)


def test_interrupt_ends_a_stage_within_seconds_and_keeps_finished_shards(tmp_path: Path) -> None:
    stage, children = start(tmp_path)
    stage.send_signal(signal.SIGINT)
    assert stage.wait(30) != 0  # a bound on hangs, far below the 100 s of a shard
    assert (tmp_path / ".state/shards/good.json").exists()
    assert not list(tmp_path.rglob("*.tmp"))
    assert not psutil.wait_procs(children, 10)[1]


@pytest.mark.parametrize("victim", ["stage", "worker", "server"])
def test_killed_process_leaves_no_other_behind(tmp_path: Path, victim: str) -> None:
    stage, children = start(tmp_path)
    worker = int(next(tmp_path.glob("*.started")).stem.rpartition("-")[2])
    server = psutil.Process(worker).ppid()
    os.kill({"stage": stage.pid, "worker": worker, "server": server}[victim], signal.SIGKILL)
    assert stage.wait(60) != 0
    assert not psutil.wait_procs(children, 10)[1]
    with lease(tmp_path):
        assert (tmp_path / ".state/shards/good.json").exists()


def test_long_temporary_folder_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / ("y" * 120)
    folder.mkdir(parents=True)
    stage, children = start(tmp_path, TMPDIR=str(folder))
    stage.kill()
    stage.wait(60)
    assert not psutil.wait_procs(children, 10)[1]


def test_killed_server_of_workers_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def submit(*_: object) -> None:
        raise EOFError("unexpected EOF")  # as multiprocessing raises when its fork server is gone

    monkeypatch.setattr("tasks.execution.process_pool.ProcessPoolExecutor.submit", submit)
    with pytest.raises(RuntimeError, match="workers could not be started"):
        map_shards(context(tmp_path), work, [("a", "a")], num_workers=1, total=1, unit="documents")


def test_shards_that_may_fail_are_set_aside_with_all_they_wrote(tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    for name in ("bad", "bad.b", "good"):
        (tmp_path / "documents" / f"{name}.parquet").touch()
    shards = [("good", f"{tmp_path}/good"), ("bad", "fail"), ("bad.b", f"{tmp_path}/b"), ("c", f"{tmp_path}/c")]
    settings = {"num_workers": 1, "total": 8, "unit": "documents"}
    with pytest.raises(ValueError, match="shard fail is bad"):
        map_shards(context(tmp_path), work, shards, **settings, max_failed_fraction=0.24)
    counts = map_shards(context(tmp_path), work, shards, **settings, max_failed_fraction=0.25)
    assert counts == {"documents": 3, "shards_set_aside": 1}
    assert shards_set_aside(context(tmp_path)) == {"bad": "ValueError: shard fail is bad"}
    assert {path.stem for path in (tmp_path / "documents").iterdir()} == {"bad.b", "good"}
    mended = [(name, f"{tmp_path}/{name}") for name, _ in shards]
    assert map_shards(context(tmp_path), work, mended, **settings) == {"documents": 4}
    assert not shards_set_aside(context(tmp_path))


def test_stage_whose_every_shard_fails_has_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shard fail is bad"):
        map_shards(
            context(tmp_path), work, [("a", "fail")], num_workers=1, total=1, unit="documents", max_failed_fraction=1.0
        )


class InThisProcess:
    """An executor as another module may add one: no process, one shard after the other."""

    closed = False

    def __init__(self, address: str) -> None:
        assert address == "cluster"

    def run(self, task: Task[Any], shards: Sequence[tuple[str, Any]]) -> Generator[Update]:
        ticks = 0
        report_ticks(lambda num: None)
        try:
            for name, shard in shards:
                try:
                    record = task.run(shard)
                except ValueError as error:
                    yield Update([Result(name, error=error)], ticks)
                else:
                    ticks += record["ticks"]
                    yield Update([Result(name, record)], ticks)
        finally:
            InThisProcess.closed = True


def test_executor_of_another_module_runs_the_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXECUTORS, "here", f"{__name__}:InThisProcess")
    monkeypatch.setenv("CRAWL2CHAT_EXECUTOR", "here:cluster")
    settings = {"num_workers": 2, "total": 6, "unit": "documents"}
    shards = [(name, f"{tmp_path}/{name}") for name in ("a", "b")]
    with pytest.raises(ValueError, match="shard fail is bad"):
        map_shards(context(tmp_path), work, [*shards, ("bad", "fail"), ("c", "c")], **settings)
    assert InThisProcess.closed
    assert {path.stem for path in (tmp_path / ".state/shards").iterdir()} == {"a", "b"}
    assert map_shards(context(tmp_path), work, shards, **settings) == {"documents": 2}


def test_unknown_executor_is_refused_with_those_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRAWL2CHAT_EXECUTOR", "slurm://x")
    with pytest.raises(UserError, match="'slurm://x' is not known: set it to local, ray:auto"):
        map_shards(context(tmp_path), work, [("a", "a")], num_workers=1, total=1, unit="documents")
