"""Automations: what a Prefect server does by itself when something happens to a run. Pure: makes descriptions, calls no server.

Prefect marks a run as crashed when its worker sees its process end. Where the worker or the machine is gone too, nobody sees it:
runs therefore send a heartbeat event every `HEARTBEAT_SECONDS` (flows/targets.py), and Prefect's own recipe for zombie runs
(docs.prefect.io, "Detect zombie flow runs") is an automation that expects the next one. The server measures time by the events
it receives, so that runs which sent nothing while the server was away are rarely taken for dead; one that is says that it lives
(flows/cancellation.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, RunDeployment, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from flows.cancellation import TAKEN_FOR_DEAD
from flows.targets import HEARTBEAT_SECONDS

NO_HEARTBEAT = "crawl2chat: runs without a heartbeat have crashed"
NOT_STARTED = "crawl2chat: runs that do not start have crashed"
FAILED = "crawl2chat: failed runs are notified"
FILTER_AFTER_INGEST = "crawl2chat: a finished ingest starts filter"
SILENCE_SECONDS = 4 * HEARTBEAT_SECONDS
START_SECONDS = 300  # a run is pending for some 10 s, on a busy machine for a minute
HEARTBEAT = "prefect.flow-run.heartbeat"
ENDED = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed", "AwaitingRetry")}


def no_heartbeat_automation() -> AutomationCore:
    """A flow run whose heartbeats stop before it ends is marked as crashed."""
    return _crash_unless({HEARTBEAT}, {HEARTBEAT, *ENDED}, SILENCE_SECONDS, NO_HEARTBEAT, TAKEN_FOR_DEAD)


def not_started_automation() -> AutomationCore:
    """A flow run that stays pending is marked as crashed: its worker was killed between taking the run and starting its process.

    Not one of a Kubernetes pool: a pod may wait long for a node, and the worker itself gives up after `pod_watch_timeout_seconds`.
    """
    started = {"prefect.flow-run.Running", "prefect.flow-run.Cancelling", "prefect.flow-run.Scheduled", *ENDED}
    local = {"prefect.resource.role": "work-pool", "prefect.work-pool.type": ["process", "docker"]}
    return _crash_unless(
        {"prefect.flow-run.Pending"},
        started,
        START_SECONDS,
        NOT_STARTED,
        "It did not start: its worker is gone.",
        local,
    )


def notify_automation(block_id: UUID) -> AutomationCore:
    """A flow run that fails or crashes is notified through a block."""
    return AutomationCore(
        name=FAILED,
        trigger=EventTrigger(
            expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
            match=ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"}),
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[
            SendNotification(
                block_document_id=block_id,
                subject="{{ flow.name }} {{ flow_run.state.name }}: {{ flow_run.name }}",
                body="{{ flow_run.state.message }}\n\n{{ flow_run|ui_url }}",
            )
        ],
    )


def filter_after_ingest_automation(name: str, ingest_id: UUID, filter_id: UUID) -> AutomationCore:
    """A finished run of an ingest deployment starts the filter deployment with the same recipe. `name`: of the ingest deployment."""
    return AutomationCore(
        name=f"{FILTER_AFTER_INGEST} ({name})",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Completed"},
            match=ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification.model_validate(
                {"prefect.resource.role": "deployment", "prefect.resource.id": f"prefect.deployment.{ingest_id}"}
            ),
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[
            RunDeployment(
                source="selected",
                deployment_id=filter_id,
                parameters={
                    parameter: {"__prefect_kind": "jinja", "template": f"{{{{ flow_run.parameters['{parameter}'] }}}}"}
                    for parameter in ("recipe", "recipe_yaml")
                },
            )
        ],
    )


def content(automation: AutomationCore) -> dict[str, Any]:
    """What an automation says, without what the server adds: equal for two that do the same."""
    dumped = automation.model_dump(
        mode="json", include=set(AutomationCore.model_fields) - {"enabled", "tags", "owner_resource"}
    )
    return _plain(dumped)  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    """The value without ids and empty entries, and lists sorted: the server keeps sets as lists in any order."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key != "id" and item not in (None, [], {})}
    if isinstance(value, list):
        return sorted(map(_plain, value), key=repr)
    return value


def _crash_unless(
    after: set[str],
    expect: Iterable[str],
    seconds: float,
    name: str,
    message: str,
    related: Mapping[str, str | Sequence[str]] | None = None,
) -> AutomationCore:
    """Mark a run as crashed if none of the events `expect` follows one of `after` within `seconds`."""
    return AutomationCore(
        name=name,
        trigger=EventTrigger(
            after=after,
            expect=set(expect),
            match=ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification.model_validate(related or {}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=seconds),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=message)],
    )
