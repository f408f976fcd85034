"""Reconcile with a real server: runs without a process, processes without a run, leases without either.

And a run whose worker is gone, which a person cancels: it ends itself.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import reconcile as module
from flows.cancellation import RUN_VARIABLE, TAKEN_FOR_DEAD
from flows.reconcile import reconcile
from flows.run_place import MACHINE, PROCESS, Place, start_of, this_machine
from tasks.artifacts.store import Store
from tasks.execution.lease import lease
from tests.support.prefect_servers import LocalPrefect, bare_server, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPrefect]:
    with bare_server(tmp_path_factory.mktemp("prefect")) as local:
        yield local


@pytest.fixture
def prefect(server: LocalPrefect, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalPrefect]:
    monkeypatch.setattr(module, "CONFIRM_SECONDS", 0.1)
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.0)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with temporary_settings({PREFECT_API_URL: server.api}):
        yield server


def make_run(prefect: LocalPrefect, state: str, place: Place | None = None) -> str:
    """A flow run in a state, with the labels of a place."""
    flow = prefect.call("POST", "/flows/", {"name": "sft"})
    run = prefect.call("POST", "/flow_runs/", {"flow_id": flow["id"], "state": {"type": "PENDING"}})
    for kind in dict.fromkeys(("RUNNING", state)):
        prefect.call("POST", f"/flow_runs/{run['id']}/set_state", {"state": {"type": kind}, "force": True})
    if place:
        prefect.call("PATCH", f"/flow_runs/{run['id']}/labels", {MACHINE: place.machine, PROCESS: place.process})
    return str(run["id"])


def state_of(prefect: LocalPrefect, run_id: str) -> str:
    return str(prefect.run(run_id)["state"]["type"])


def start_process(prefect: LocalPrefect, run_id: str, code: str = "input()") -> subprocess.Popen[bytes]:
    """A process as a worker of this server starts one for a run."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PREFECT_API_URL": prefect.api, "PREFECT__FLOW_RUN_ID": run_id},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def test_run_whose_process_is_gone_has_ended_and_others_are_left(prefect: LocalPrefect, tmp_path: Path) -> None:
    here = Place.here()
    assert here
    number, _, start = here.process.partition("/")
    gone = Place(here.machine, f"{number}/{int(start) - 1}")  # the number came again
    dead, cancelled = make_run(prefect, "RUNNING", gone), make_run(prefect, "CANCELLING", gone)
    alive = make_run(prefect, "RUNNING", here)
    elsewhere = make_run(prefect, "RUNNING", Place("another machine", gone.process))
    unlabelled = make_run(prefect, "RUNNING")
    store = Store(str(tmp_path))
    assert len(reconcile(store, dry_run=True)) == 2
    assert state_of(prefect, dead) == "RUNNING"
    found = [str(finding) for finding in reconcile(store)]
    assert any("is Cancelling without a process: marked CANCELLED" in line for line in found)
    states = [state_of(prefect, run) for run in (dead, cancelled, alive, elsewhere, unlabelled)]
    assert states == ["CRASHED", "CANCELLED", "RUNNING", "RUNNING", "RUNNING"]
    assert reconcile(store) == []
    # This process is the one of that run, for the tests that follow too.
    prefect.call("POST", f"/flow_runs/{alive}/set_state", {"state": {"type": "COMPLETED"}, "force": True})


def test_process_whose_run_has_ended_is_ended(prefect: LocalPrefect, tmp_path: Path) -> None:
    ignoring = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); input()"
    processes = {state: start_process(prefect, make_run(prefect, state)) for state in ("CANCELLED", "RUNNING")}
    stubborn = start_process(prefect, make_run(prefect, "FAILED"), ignoring)
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    foreign = start_process(prefect, str(uuid4()))  # of a run that this server does not know
    found = reconcile(Store(str(tmp_path)))
    assert len(found) == 2
    assert {processes["CANCELLED"].wait(), stubborn.wait()} == {-15, -9}
    for process in (processes["RUNNING"], foreign):
        assert process.poll() is None
        process.communicate(b"\n")


def test_crashed_run_that_still_holds_its_lease_is_named_and_left(prefect: LocalPrefect, tmp_path: Path) -> None:
    """The server took a run for dead whose network failed: it makes its artifact all the same."""
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from tasks.execution.lease import lease
with lease(Path({str(tmp_path)!r}, "sft/abc")): print(flush=True); input()
"""
    process = start_process(prefect, make_run(prefect, "CRASHED"), code)
    assert process.stdout is not None
    process.stdout.readline()
    (finding,) = reconcile(Store(str(tmp_path)))
    assert "left alone, since it makes sft/abc" in str(finding)
    assert process.poll() is None
    process.communicate(b"\n")


def test_lease_without_a_run_is_named(prefect: LocalPrefect, tmp_path: Path) -> None:
    with lease(tmp_path / "filter/abc"):
        (finding,) = reconcile(Store(str(tmp_path)))
    assert f"filter/abc is being made by process {os.getpid()}: left alone" in str(finding)
    assert reconcile(Store(str(tmp_path))) == []


def test_process_that_has_ended_or_never_was_has_no_start() -> None:
    assert this_machine()
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie
        assert not start_of(child.pid)
    assert not start_of(child.pid)
    assert start_of(os.getpid())


ORPHAN = """
import os, sys, time
if os.fork():  # the worker, which is gone as soon as the run has begun
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.05)
    os._exit(0)
"""
RUN = """
import os, sys, time
from pathlib import Path
started = Path(sys.argv[1])
from flows import cancellation
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
cancellation.POLL_SECONDS, cancellation.WORKER_SECONDS = 0.2, 1.0

@flow
@cancellation.cancellable
def sft():
    try:
        started.touch()
        while not started.with_name("end").exists():
            time.sleep(0.05)
    finally:
        started.with_name("saved").touch()

with get_client(sync_client=True) as client:
    run = client.read_flow_run(os.environ[cancellation.RUN_VARIABLE])
run_flow(sft, flow_run=run)
"""


def test_run_without_a_worker_ends_itself_when_it_is_cancelled(prefect: LocalPrefect, tmp_path: Path) -> None:
    run = make_run(prefect, "PENDING")
    environment = prefect.environment | {RUN_VARIABLE: run}
    subprocess.run([sys.executable, "-c", ORPHAN + RUN, tmp_path / "started"], env=environment, check=True)
    assert state_of(prefect, run) == "RUNNING"
    prefect.call("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    assert prefect.wait_for_state(run)["state"]["type"] == "CANCELLED"
    assert (tmp_path / "saved").exists()


def test_run_whose_worker_sends_no_signal_ends_itself_when_it_is_cancelled(
    prefect: LocalPrefect, tmp_path: Path
) -> None:
    """A worker no longer listens for cancellations when the server was away for a while."""
    run = make_run(prefect, "PENDING")
    environment = prefect.environment | {RUN_VARIABLE: run}
    with subprocess.Popen([sys.executable, "-c", RUN, tmp_path / "started"], env=environment):
        wait_for((tmp_path / "started").exists, "the run has begun")
        prefect.call("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
        assert prefect.wait_for_state(run)["state"]["type"] == "CANCELLED"
    assert (tmp_path / "saved").exists()


def test_run_that_was_taken_for_dead_is_running_again(prefect: LocalPrefect, tmp_path: Path) -> None:
    run = make_run(prefect, "PENDING")
    environment = prefect.environment | {RUN_VARIABLE: run}
    with subprocess.Popen([sys.executable, "-c", RUN, tmp_path / "started"], env=environment):
        wait_for((tmp_path / "started").exists, "the run has begun")
        dead = {"state": {"type": "CRASHED", "message": TAKEN_FOR_DEAD}, "force": True}
        prefect.call("POST", f"/flow_runs/{run}/set_state", dead)
        wait_for(lambda: state_of(prefect, run) == "RUNNING", "the run says that it lives")
        (tmp_path / "end").touch()
        assert prefect.wait_for_state(run)["state"]["type"] == "COMPLETED"
