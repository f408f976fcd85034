"""Leases: one run at a time, taken over from the dead and the stopped, and no commit by whoever lost one."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from model.processes import LeaseFile, LeaseLost, lock_state, writers_file
from tasks.execution import lease as leases
from tasks.execution.lease import lease
from tests.benchmarks.lease_races import WRONG, attempt, fork


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", leases.LEASE_SECONDS)
    monkeypatch.setattr(leases, "POLL_SECONDS", 0.05)


def hold_in_process(folder: Path, seconds: float = 100) -> int:
    """A process that holds the lease of `folder`; its id."""

    def hold() -> int:
        with lease(folder):
            (folder / "held").touch()
            time.sleep(seconds)
        return 0

    holder = fork(hold)
    while not (folder / "held").exists():
        time.sleep(0.01)
    return holder


def end(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


@pytest.mark.parametrize("is_stalled", [False, True])
def test_waiters_for_an_abandoned_lease_never_both_commit(is_stalled: bool) -> None:
    num_tries = 6 if is_stalled else 50
    for seed in range(num_tries):
        counts = attempt(seed, is_abandoned=True, is_stalled=is_stalled)
        assert not any(counts[name] for name in WRONG), (seed, counts)


def test_living_holder_is_waited_for_with_a_message(tmp_path: Path) -> None:
    holder = hold_in_process(tmp_path)
    messages: list[str] = []

    def end_when_waiting() -> None:
        while not messages:
            time.sleep(0.01)
        end(holder)

    ender = threading.Thread(target=end_when_waiting)
    ender.start()
    with lease(tmp_path, messages.append):
        assert messages == ["another run is at this stage: waiting for it"]
    ender.join()


def test_killed_holder_is_taken_over_without_waiting(tmp_path: Path) -> None:
    end(hold_in_process(tmp_path))
    messages: list[str] = []
    with lease(tmp_path, messages.append) as held:
        held.check()
    assert not messages
    assert not (tmp_path / "lease").exists()


def test_record_without_a_lock_is_taken_over_when_its_process_is_dead(tmp_path: Path) -> None:
    """As it is where the file system has no kernel locks."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "lease").write_text(json.dumps({"host": os.uname().nodename, "pid": ended.pid}))
    messages: list[str] = []
    with lease(tmp_path, messages.append):
        assert not messages


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', "\x00\xff"])
def test_damaged_record_is_taken_over_when_it_is_not_renewed(
    tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.2)
    (tmp_path / "lease").write_text(content)
    with lease(tmp_path) as held:
        held.check()


def test_stopped_holder_that_was_taken_over_commits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.5)

    def work() -> int:
        try:
            with lease(tmp_path) as held:
                (tmp_path / "held").touch()
                os.kill(os.getpid(), signal.SIGSTOP)
                with held.fence():
                    (tmp_path / "committed").write_text("by the one that was stopped")
        except LeaseLost:
            return 3
        return 0

    stopped = fork(work)
    os.waitpid(stopped, os.WUNTRACED)
    with lease(tmp_path) as held:
        os.kill(stopped, signal.SIGCONT)
        assert os.waitstatus_to_exitcode(os.waitpid(stopped, 0)[1]) == 3
        held.check()
        with held.fence():
            (tmp_path / "committed").write_text("by the one that took over")
    assert (tmp_path / "committed").read_text() == "by the one that took over"


def test_lease_is_lost_when_its_file_is_deleted_or_replaced(tmp_path: Path) -> None:
    for change in (Path.unlink, lambda path: path.write_text('{"token": "another"}')):
        with lease(tmp_path) as held:
            change(tmp_path / "lease")
            with pytest.raises(LeaseLost, match="another run has taken over"):
                held.check()
            with pytest.raises(LeaseLost), held.fence():
                pytest.fail("a run that lost its lease entered the fence")
        (tmp_path / "lease").unlink(missing_ok=True)


def test_child_processes_do_not_keep_the_lease(tmp_path: Path) -> None:
    """A run that is killed leaves a child that lives on: the next run must not wait for it."""

    def hold() -> int:
        with lease(tmp_path):
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"], start_new_session=True)
            child = fork(lambda: time.sleep(100) or 0)
            (tmp_path / "child").write_text(str(child))
            (tmp_path / "held").touch()
            time.sleep(100)
        return 0

    holder = fork(hold)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    end(holder)
    messages: list[str] = []
    with lease(tmp_path, messages.append):
        assert not messages
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_writers_of_a_killed_run_are_waited_for_and_end(tmp_path: Path) -> None:
    """A rank of a run that was killed gets no parent-death signal of its grandparent; it watches the lease."""
    code = """if True:
        import subprocess, sys, time
        from pathlib import Path
        from tasks.execution.lease import lease
        with lease(Path(sys.argv[1])) as held:
            middle = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'model.training.ranks', *sys.argv[1:]])"
            command = ["--lease", str(held.file.path), held.file.token, "rank"]
            subprocess.Popen([sys.executable, "-c", middle, *command], start_new_session=True)
            time.sleep(100)
    """
    (tmp_path / "rank.py").write_text("import os, time; open('rank', 'w').write(str(os.getpid())); time.sleep(100)")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    run = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}
    )
    while not (tmp_path / "rank").exists() or not (tmp_path / "rank").read_text():
        time.sleep(0.05)
    rank = int((tmp_path / "rank").read_text())
    assert lock_state(writers_file(tmp_path / "lease")) == "held"
    run.kill()
    run.wait()
    with lease(tmp_path):
        state = Path(f"/proc/{rank}/stat")
        assert not state.exists() or " Z " in state.read_text()


def test_lease_file_of_a_child_is_held_while_its_run_lives(tmp_path: Path) -> None:
    with lease(tmp_path) as held:
        assert held.file.is_held()
        assert not LeaseFile(held.file.path, "another").is_held()
    assert not held.file.is_held()
    holder = hold_in_process(tmp_path)
    theirs = LeaseFile(tmp_path / "lease", json.loads((tmp_path / "lease").read_text())["token"])
    assert theirs.is_held()
    end(holder)
    assert not theirs.is_held()
