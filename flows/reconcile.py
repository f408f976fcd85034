"""Reconcile what the Prefect server says of runs with the processes and leases of this machine and the Jobs of a cluster.

Reads the server that PREFECT_API_URL names, /proc, the leases of the store as this machine sees it, and, in a Kubernetes pod or where
KUBECONFIG names a file, the Jobs of the namespace. Writes states of runs to the server, ends processes, and deletes Jobs:

    the server says          found                             what is done
    RUNNING, CANCELLING      no process, on this machine       the run is marked CRASHED, CANCELLED
    an end, a minute ago     a process of the run here         it is ended. A run marked CRASHED whose process holds a lease works on: it is named
    an end, a minute ago     a Job of the run that is active   it is deleted
    nothing                  a lease that is held              it is named: a command line works there, or a run of another server

A run of another machine is left to the automation that misses its heartbeat (flows/automations.py): from here its process cannot be seen.
"""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound

from flows.cancellation import RUN_VARIABLE
from flows.cluster_jobs import Jobs, configured_jobs
from flows.prefect_server import wait_for_server
from flows.run_place import place_of, start_of, this_machine
from model.processes import alive_file, lock_state, read_lease
from tasks.artifacts.store import Store
from tasks.execution.lease import LEASE

CONFIRM_SECONDS = 5.0  # between two observations: a run reports its end after its work, and then its process ends
GRACE_SECONDS = 60.0  # after its end a run still sends what waits for the server
STOP_SECONDS = 10.0
POLL_SECONDS = 0.1
PAGE = 200  # runs in one answer of the server
SERVER_VARIABLE = "PREFECT_API_URL"


class Finding(NamedTuple):
    """Something that does not fit, and what is done about it."""

    what: str
    action: str

    def __str__(self) -> str:
        return f"{self.what}: {self.action}"


class RunProcess(NamedTuple):
    """A process of this machine that belongs to a flow run."""

    pid: int
    start: str
    run_id: UUID


class HeldLease(NamedTuple):
    """A lease that some process holds."""

    artifact: str
    host: str
    pid: int


def reconcile(store: Store, *, dry_run: bool = False, wait_seconds: float = 60.0) -> list[Finding]:
    """End what the server believes to run and does not, and what runs although its run has ended. Raises UserError without a server."""
    with get_client(sync_client=True) as client:
        wait_for_server(client, wait_seconds)
        findings = _end_dead_runs(client, dry_run)
        leases = list(held_leases(store))
        findings += _end_orphans(client, str(client.api_url), leases, dry_run)
        if jobs := configured_jobs():
            findings += end_orphaned_jobs(client, jobs, dry_run)
        return findings + _unknown_leases(client, str(client.api_url), leases)


def _end_dead_runs(client: SyncPrefectClient, dry_run: bool) -> list[Finding]:
    first = {run.id for run in _dead_runs(client)}
    if first:
        time.sleep(CONFIRM_SECONDS)
    findings = []
    for run in _dead_runs(client) if first else ():
        if run.id in first and run.state is not None:
            is_cancelled = run.state.type is StateType.CANCELLING
            ends_as = StateType.CANCELLED if is_cancelled else StateType.CRASHED
            findings.append(Finding(f"run {run.name} is {run.state.name} without a process", f"marked {ends_as.value}"))
            if not dry_run:
                state: State[object] = State(
                    type=ends_as, message="Its process is gone: it was killed, or its machine ended it."
                )
                client.set_flow_run_state(run.id, state, force=True)
    return findings


def _dead_runs(client: SyncPrefectClient) -> Iterator[FlowRun]:
    """Runs that the server believes to run on this machine and whose process is not there."""
    machine = this_machine()
    if not machine:
        return
    for run in _runs(client, StateType.RUNNING, StateType.CANCELLING):
        place = place_of(run.labels)
        if place and place.machine == machine and not place.lives:
            yield run


def _runs(client: SyncPrefectClient, *types: StateType) -> Iterator[FlowRun]:
    wanted = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types))))
    offset = 0
    while page := client.read_flow_runs(flow_run_filter=wanted, limit=PAGE, offset=offset):
        yield from page
        offset += len(page)


def _end_orphans(client: SyncPrefectClient, server: str, leases: list[HeldLease], dry_run: bool) -> list[Finding]:
    """End processes whose run has ended."""
    host = socket.gethostname()
    holders = {lease.pid: lease.artifact for lease in leases if lease.host == host}
    by_run: dict[UUID, list[RunProcess]] = {}
    for process in run_processes(server):
        by_run.setdefault(process.run_id, []).append(process)
    findings = []
    for run_id, processes in by_run.items():
        run = ended_run(client, run_id)
        if run is None:
            continue
        held = next((holders[process.pid] for process in processes if process.pid in holders), None)
        what = f"run {run.name} is {run.state_name} and has {len(processes)} processes"
        if run.state_type is StateType.CRASHED and held:
            findings.append(Finding(what, f"left alone, since it makes {held}; cancel or retry it in the UI"))
            continue
        findings.append(Finding(what, "ended"))
        if not dry_run:
            _end(processes)
    return findings


def ended_run(client: SyncPrefectClient, run_id: UUID) -> FlowRun | None:
    """The run, where this server knows it and it ended more than GRACE_SECONDS ago."""
    try:
        run = client.read_flow_run(run_id)
    except ObjectNotFound:  # deleted, or of a server that had this address before
        return None
    if run.state is None or not run.state.is_final():
        return None
    age = datetime.now(UTC) - run.state.timestamp
    return run if age > timedelta(seconds=GRACE_SECONDS) else None


def run_processes(server: str) -> Iterator[RunProcess]:
    """The processes of this user that a worker of this server has started for a run, and all that these have started."""
    ours = {os.getpid(), os.getppid()}  # reconcile itself may be part of a run
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal() or int(folder.name) in ours:
            continue
        try:
            if folder.stat().st_uid != os.getuid():
                continue
            environment = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended, or is not ours to read
            continue
        variables = dict(entry.partition("=")[::2] for entry in environment)
        if variables.get(SERVER_VARIABLE, "").rstrip("/") != server.rstrip("/"):
            continue
        with contextlib.suppress(ValueError):
            pid = int(folder.name)
            if start := start_of(pid):
                yield RunProcess(pid, start, UUID(variables.get(RUN_VARIABLE, "")))


def _end(processes: list[RunProcess]) -> None:
    """End processes, by a signal first that lets training save a checkpoint."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            # The number may be of another process by now.
            if start_of(process.pid) == process.start:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)
        deadline = time.monotonic() + STOP_SECONDS
        while any(start_of(process.pid) == process.start for process in processes):
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)


def end_orphaned_jobs(client: SyncPrefectClient, jobs: Jobs, dry_run: bool) -> list[Finding]:
    """Delete Jobs of the cluster whose run has ended."""
    findings = []
    for job in jobs.active():
        if run := ended_run(client, job.run_id):
            findings.append(
                Finding(f"run {run.name} is {run.state_name} and has the Job {job.namespace}/{job.name}", "deleted")
            )
            if not dry_run:
                jobs.delete(job)
    return findings


def held_leases(store: Store) -> Iterator[HeldLease]:
    """The leases that processes hold, of the folder of a store, or of this machine's copy of a remote one."""
    for path in store.root.glob(f"*/*/{LEASE}"):
        record = read_lease(path)
        if record and lock_state(alive_file(path)) == "held":
            pid = record.get("pid")
            artifact = f"{path.parent.parent.name}/{path.parent.name}"
            yield HeldLease(artifact, str(record.get("host")), pid if isinstance(pid, int) else 0)


def _unknown_leases(client: SyncPrefectClient, server: str, leases: list[HeldLease]) -> list[Finding]:
    """Leases of this machine that no run of the server holds."""
    host = socket.gethostname()
    known = {process.pid for process in run_processes(server)}
    places = [place for run in _runs(client, StateType.RUNNING) if (place := place_of(run.labels))]
    known |= {int(place.process.partition("/")[0]) for place in places if place.machine == this_machine()}
    return [
        Finding(f"{lease.artifact} is being made by process {lease.pid}", "left alone, this server has no run for it")
        for lease in leases
        if lease.host == host and lease.pid not in known
    ]
