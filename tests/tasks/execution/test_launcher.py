"""Training process groups: followed, told apart when they fail, and never left behind."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tasks.execution.launcher import launch

TRAINER = """
    import json, os, sys, time
    run = json.load(open(sys.argv[1]))
    with open(run["metrics"], "a") as metrics:
        for step in range(run["num_steps"]):
            print(json.dumps({"step": step, "pid": os.getpid()}), file=metrics, flush=True)
            time.sleep(run["seconds"])
    print("the last words")
    sys.exit(run["status"])
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "fake_trainer.py").write_text(textwrap.dedent(TRAINER))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "fake_trainer"


def settings(folder: Path, num_steps: int = 3, seconds: float = 0.0, status: int = 0) -> Path:
    path = folder / "run.json"
    path.write_text(
        f'{{"metrics": "{folder}/metrics", "num_steps": {num_steps}, "seconds": {seconds}, "status": {status}}}'
    )
    return path


def test_every_line_of_metrics_is_told_once(module: str, tmp_path: Path) -> None:
    told: list[int] = []
    launch(
        module,
        settings(tmp_path, num_steps=50),
        num_ranks=1,
        metrics_file=tmp_path / "metrics",
        on_metrics=lambda line: told.append(line["step"]),
    )
    assert told == list(range(50))


def test_a_group_that_fails_is_told_with_the_end_of_its_log(module: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"status 7.*(?s:.)*the last words"):
        launch(
            module,
            settings(tmp_path, status=7),
            num_ranks=1,
            metrics_file=tmp_path / "metrics",
            on_metrics=lambda line: None,
        )


def test_a_rank_that_is_killed_ends_the_others_and_is_named(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import os, time; time.sleep(1000) if os.environ['RANK'] == '0' else os.kill(os.getpid(), 9)"
    (tmp_path / "dying.py").write_text(code)
    with pytest.raises(RuntimeError, match="rank 1 was ended by SIGKILL, by hand or for want of memory"):
        launch(
            "dying", tmp_path / "run.json", num_ranks=2, metrics_file=tmp_path / "metrics", on_metrics=lambda line: None
        )


def test_ranks_are_started_on_the_machines_of_a_hostfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here on one, whose ssh runs what it is told on this machine."""
    (tmp_path / "rank.py").write_text("import os; print(os.environ['RANK'], 'of', os.environ['WORLD_SIZE'])")
    (tmp_path / "ssh").write_text("#!/bin/sh\necho 127.0.0.1\n")
    (tmp_path / "ssh").chmod(0o755)
    (tmp_path / "hosts").write_text("localhost slots=2\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("CRAWL2CHAT_HOSTFILE", str(tmp_path / "hosts"))
    launch("rank", tmp_path / "run.json", num_ranks=2, metrics_file=tmp_path / "metrics", on_metrics=lambda line: None)
    log = (tmp_path / "run.log").read_text()
    assert "0 of 2" in log and "1 of 2" in log


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_no_rank_outlives_its_stage(module: str, tmp_path: Path, kill: int) -> None:
    run_file = settings(tmp_path, num_steps=1000, seconds=0.1)
    code = f"""
        from pathlib import Path
        from tasks.execution.launcher import launch
        launch("{module}", Path("{run_file}"), num_ranks=1, metrics_file=Path("{tmp_path}/metrics"), on_metrics=lambda line: print(line["pid"], flush=True))
    """
    stage = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert stage.stdout is not None
    rank = int(stage.stdout.readline())
    os.kill(stage.pid, kill)
    stage.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{rank}").exists() and "Z" not in Path(f"/proc/{rank}/stat").read_text().split(")")[1][:3]:
        assert time.monotonic() < deadline, f"rank {rank} lives on"
        time.sleep(0.1)
