"""Deploying: what a Prefect server needs before a person can trigger a stage from its UI.

Reads infra/prefect.yaml. Waits for the server, then makes the work pool, the limit that lets one run train at a time, the two
automations that mark runs whose process is gone, and all deployments. Doing it again changes nothing.
"""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL

from flows.prefect_server import wait_for_server
from flows.training_slot import make_limit
from model.errors import UserError
from tasks.artifacts.store import Store

HOME = Path(__file__).parent.parent
PREFECT_FILE = HOME / "infra" / "prefect.yaml"
NO_HEARTBEAT = "crawl2chat: runs without a heartbeat have crashed"
NOT_STARTED = "crawl2chat: runs that do not start have crashed"
HEARTBEAT_SECONDS = 540  # three of Prefect's heartbeats missed
START_SECONDS = 300  # a run is pending for some 10 s, on a busy machine for a minute
ENDED = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed", "AwaitingRetry")}


def deploy(pool: str = "crawl2chat", wait_seconds: float = 60.0) -> None:
    """Register everything with the server that PREFECT_API_URL names. Raises UserError if none answers."""
    if not PREFECT_API_URL.value():
        raise UserError(
            "PREFECT_API_URL is not set: start a server with `prefect server start` and "
            "`export PREFECT_API_URL=http://127.0.0.1:4200/api`"
        )
    with get_client(sync_client=True) as client:
        wait_for_server(client, wait_seconds)
        _make_pool(client, pool)
        make_limit(client)
        for automation in (no_heartbeat_automation(), not_started_automation()):
            if not client.read_automations_by_name(automation.name):
                client.create_automation(automation)
    _register(pool)


def _make_pool(client: SyncPrefectClient, pool: str) -> None:
    try:
        client.read_work_pool(pool)
    except ObjectNotFound:
        client.create_work_pool(
            WorkPoolCreate(name=pool, type="process", description="Stages, as processes of a worker.")
        )
    except PrefectHTTPStatusError as error:
        raise UserError(f"{pool!r} cannot be the name of a work pool: give another with --pool ({error})") from None


def no_heartbeat_automation() -> AutomationCore:
    """A flow run whose heartbeats stop before it ends is marked as crashed (Prefect's own recipe for zombie runs)."""
    heartbeat = "prefect.flow-run.heartbeat"
    return _crash_unless(
        {heartbeat}, {heartbeat, *ENDED}, HEARTBEAT_SECONDS, NO_HEARTBEAT, "No heartbeat: its process is gone."
    )


def not_started_automation() -> AutomationCore:
    """A flow run that stays pending is marked as crashed: its worker was killed between taking the run and starting its process."""
    started = {"prefect.flow-run.Running", "prefect.flow-run.Cancelling", "prefect.flow-run.Scheduled", *ENDED}
    return _crash_unless(
        {"prefect.flow-run.Pending"}, started, START_SECONDS, NOT_STARTED, "It did not start: its worker is gone."
    )


def _crash_unless(after: set[str], expect: set[str], seconds: float, name: str, message: str) -> AutomationCore:
    """Mark a run as crashed if none of the events `expect` follows one of `after` within `seconds`."""
    return AutomationCore(
        name=name,
        trigger=EventTrigger(
            after=after,
            expect=expect,
            match=ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=seconds),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=message)],
    )


def _register(pool: str) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(PREFECT_FILE)]
    environment = {**os.environ, "CRAWL2CHAT_HOME": str(HOME), "CRAWL2CHAT_POOL": pool}
    store = Store.default()
    environment["CRAWL2CHAT_STORE"] = store.url if store.remote else str(store.root)
    done = subprocess.run(command, cwd=HOME, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"registering the deployments failed:\n{done.stdout}{done.stderr}")
