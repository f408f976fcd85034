"""Deploying: what a Prefect server needs before a person can trigger a stage from its UI.

Reads infra/prefect.yaml. Waits for the server, makes the work pool and the automation that marks runs without a heartbeat as
crashed, and registers all deployments. Doing it again changes nothing.
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
from tasks.artifacts.store import Store

HOME = Path(__file__).parent.parent
PREFECT_FILE = HOME / "infra" / "prefect.yaml"
ZOMBIES = "crawl2chat: runs without a heartbeat have crashed"
HEARTBEAT_SECONDS = 540  # three of Prefect's heartbeats missed


def deploy(pool: str = "crawl2chat", wait_seconds: float = 60.0) -> None:
    """Register everything with the server that PREFECT_API_URL names. Raises ValueError where none answers."""
    if not PREFECT_API_URL.value():
        raise ValueError(
            "PREFECT_API_URL is not set: start a server with `prefect server start` and "
            "`export PREFECT_API_URL=http://127.0.0.1:4200/api`"
        )
    with get_client(sync_client=True) as client:
        wait_for_server(client, wait_seconds)
        _make_pool(client, pool)
        make_limit(client)
        if not client.read_automations_by_name(ZOMBIES):
            client.create_automation(_zombie_automation())
    _register(pool)


def _make_pool(client: SyncPrefectClient, pool: str) -> None:
    try:
        client.read_work_pool(pool)
    except ObjectNotFound:
        client.create_work_pool(
            WorkPoolCreate(name=pool, type="process", description="Stages, as processes of a worker.")
        )
    except PrefectHTTPStatusError as error:
        raise ValueError(
            f"the server has no work pool by the name {pool!r}: give another with --pool ({error})"
        ) from None


def _zombie_automation() -> AutomationCore:
    """A flow run whose heartbeats stop before it ends is marked as crashed (Prefect's own recipe for zombie runs)."""
    return AutomationCore(
        name=ZOMBIES,
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={
                "prefect.flow-run.heartbeat",
                "prefect.flow-run.Completed",
                "prefect.flow-run.Failed",
                "prefect.flow-run.Cancelled",
                "prefect.flow-run.Crashed",
                "prefect.flow-run.AwaitingRetry",
            },
            match=ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=HEARTBEAT_SECONDS),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message="No heartbeat: its process is gone.")],
    )


def _register(pool: str) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(PREFECT_FILE)]
    environment = {**os.environ, "CRAWL2CHAT_HOME": str(HOME), "CRAWL2CHAT_POOL": pool}
    store = Store.default()
    environment["CRAWL2CHAT_STORE"] = store.url if store.remote else str(store.root)
    done = subprocess.run(command, cwd=HOME, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ValueError(f"registering the deployments failed:\n{done.stdout}{done.stderr}")
