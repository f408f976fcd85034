"""Training process groups: their metrics are followed, their errors reported, and no process is left behind."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from tasks.execution.launcher import error_of, launch
from tasks.execution.lease import lease

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


def test_every_line_of_metrics_is_reported_once(module: str, tmp_path: Path) -> None:
    steps: list[int] = []
    launch(
        module,
        settings(tmp_path, num_steps=50),
        num_ranks=1,
        metrics_file=tmp_path / "metrics",
        on_metrics=lambda line: steps.append(line["step"]),
    )
    assert steps == list(range(50))


def test_exit_without_an_error_is_reported_with_the_end_of_the_log(module: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"status 7.*(?s:.)*the last words"):
        launch(
            module,
            settings(tmp_path, status=7),
            num_ranks=1,
            metrics_file=tmp_path / "metrics",
            on_metrics=lambda line: None,
        )


def test_killed_rank_ends_the_others_and_is_named(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os, time; time.sleep(1000) if os.environ['RANK'] == '0' else os.kill(os.getpid(), 9)"
    (tmp_path / "dying.py").write_text(code)
    with pytest.raises(RuntimeError, match=r"rank 1 was killed by SIGKILL \(manually or out of memory\)"):
        launch(
            "dying", tmp_path / "run.json", num_ranks=2, metrics_file=tmp_path / "metrics", on_metrics=lambda line: None
        )


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_error_of_a_rank_is_reported_as_it_recorded_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_ranks: int
) -> None:
    """The log ends with other lines; of two ranks the one that failed first counts, not the one that then waits for it."""
    code = """if True:
        import atexit, os, time
        atexit.register(print, "other lines")
        if os.environ.get("RANK") == "0":
            time.sleep(1000)
        raise ValueError("num_ranks=3 does not divide\\nthe 8 sequences of a batch")
    """
    (tmp_path / "failing.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    with pytest.raises(RuntimeError, match="ValueError: num_ranks=3 does not divide the 8 sequences of a batch"):
        launch(
            "failing",
            tmp_path / "run.json",
            num_ranks=num_ranks,
            metrics_file=tmp_path / "metrics",
            on_metrics=lambda line: None,
        )


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, OSError), (errno.EINVAL, RuntimeError)])
def test_full_disk_of_a_rank_is_an_error_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    (tmp_path / "full.py").write_text(f"raise OSError({number}, 'of the system', 'checkpoints')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    with pytest.raises(kind, match="of the system: 'checkpoints'") as raised:
        launch(
            "full", tmp_path / "run.json", num_ranks=2, metrics_file=tmp_path / "metrics", on_metrics=lambda line: None
        )
    assert type(raised.value) is kind
    assert getattr(raised.value, "errno", number) == number


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"message": 3}', '{"message": {}}'])
def test_damaged_error_file_gives_no_other_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "error.json").write_text(content)
    assert error_of(tmp_path / "error.json") in ("", "3")


STAGE = """if True:
    import sys
    from pathlib import Path
    from tasks.execution.launcher import launch
    from tasks.execution.lease import lease
    folder, module, num_ranks = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    with lease(folder) as held:
        launch(module, folder / "run.json", num_ranks=num_ranks, metrics_file=folder / "metrics", on_metrics=lambda line: None, lease=held)
"""


@pytest.mark.parametrize(
    ("num_ranks", "victim", "how"),
    [
        (1, "stage", signal.SIGKILL),
        (1, "stage", signal.SIGINT),
        (2, "stage", signal.SIGKILL),
        (2, "stage", signal.SIGINT),
        (2, "agent", signal.SIGKILL),
        (2, "rank", signal.SIGKILL),
    ],
)
def test_no_rank_lives_longer_than_its_stage(
    module: str, tmp_path: Path, num_ranks: int, victim: str, how: signal.Signals
) -> None:
    settings(tmp_path, num_steps=10_000, seconds=0.1)
    command = [sys.executable, "-c", STAGE, str(tmp_path), module, str(num_ranks)]
    stage = psutil.Popen(command, stderr=subprocess.DEVNULL)
    while len(ranks := pids_in(tmp_path / "metrics")) < num_ranks:
        assert stage.poll() is None, (tmp_path / "run.log").read_text()
        time.sleep(0.05)
    agent = stage.children()[0].pid
    os.kill({"stage": stage.pid, "agent": agent, "rank": min(ranks)}[victim], how)
    assert stage.wait(60) != 0
    _, living = psutil.wait_procs([psutil.Process(pid) for pid in {*ranks, agent} if psutil.pid_exists(pid)], 10)
    assert not living


def test_ranks_of_a_stopped_stage_end_when_another_run_takes_over(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not stopped with it, and would train on in the folder of the other."""
    monkeypatch.setattr("tasks.execution.lease.LEASE_SECONDS", 1.0)
    settings(tmp_path, num_steps=10_000, seconds=0.1)
    stage = psutil.Popen([sys.executable, "-c", STAGE, str(tmp_path), module, "1"], stderr=subprocess.PIPE)
    while not (ranks := pids_in(tmp_path / "metrics")):
        time.sleep(0.05)
    stage.suspend()
    with lease(tmp_path):
        assert not [rank for rank in ranks if psutil.pid_exists(rank) and psutil.Process(rank).status() != "zombie"]
        stage.resume()
        assert stage.wait(60) != 0
        assert b"LeaseLost" in stage.stderr.read()


def pids_in(metrics: Path) -> set[int]:
    text = metrics.read_text() if metrics.exists() else ""
    return {json.loads(line)["pid"] for line in text.splitlines(keepends=True) if line.endswith("}\n")}
