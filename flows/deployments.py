"""Deploying: what a Prefect server needs before a person can trigger a stage from its UI.

Reads the flows, infra/ and the server that PREFECT_API_URL names; writes to the server: work pools with their queues and limits, the
limit that lets one run train at a time, automations, deployments, and schedules where they are asked for. What is on the
server already as it should be is left alone, so that doing it again changes nothing; what a person added in the UI, such as a
schedule, stays. Nothing is deleted.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL
from prefect.utilities.callables import parameter_schema

from flows import ablation, attacks, scaling, seeds, stages
from flows.automations import (
    content,
    filter_after_ingest_automation,
    no_heartbeat_automation,
    not_started_automation,
    notify_automation,
)
from flows.forms import offer_artifacts
from flows.pipeline import pipeline
from flows.prefect_server import wait_for_server
from flows.resources import DEPLOYMENT_NAMES, HOME, DeploymentName
from flows.targets import APPLICATION, LIMITED, UNLIMITED, Pool, Target
from flows.training_slot import make_limit
from model.errors import UserError
from tasks.artifacts.manifest import Manifest
from tasks.artifacts.store import Store

DESCRIPTIONS = {
    "pipeline": "All stages of a recipe, in order; what is up to date is skipped.",
    "scaling": "Predict a recipe's base model from smaller runs: a scaling law, and its error.",
    "seeds": "Train a recipe with several seeds: mean and spread of the report card's figures.",
    "ablation": "Train with several values of one setting, at equal tokens and with several seeds, and compare the models.",
    "attacks": "Attack a recipe's models before and after each mitigation, with several seeds.",
}
STUDIES: dict[str, Flow[..., Any]] = {
    "scaling": scaling.scaling_study,
    "seeds": seeds.seeds_study,
    "ablation": ablation.ablation_study,
    "attacks": attacks.attacks_study,
}
NUM_OFFERED = 10  # artifacts in a form's list
MONTHLY = "0 3 5 * *"  # the fifth at three o'clock UTC
MONTHLY_SLUG = "crawl2chat-monthly-crawl"


class Deployment(NamedTuple):
    """A deployment as it should be. `fields`: the fields of Prefect's deployment that are set."""

    name: str
    flow: Flow[..., Any]
    fields: dict[str, Any]


class Wishes(NamedTuple):
    """What a person may ask for on top. `notify`: a block, TYPE/NAME. `monthly_crawl`: inputs of a monthly run of the pipeline."""

    notify: str = ""
    filter_after_ingest: bool = False
    monthly_crawl: Sequence[str] = ()
    dedup_against: Sequence[str] = ()


class Change(NamedTuple):
    """What is done to one object of the server. `fields`: those that change, of an object that exists."""

    kind: str
    name: str
    is_new: bool = False
    fields: Sequence[str] = ()

    def __str__(self) -> str:
        how = "new" if self.is_new else f"changed: {', '.join(self.fields)}" if self.fields else "unchanged"
        return f"{self.kind} {self.name}: {how}"


def flow_of(name: DeploymentName) -> Flow[..., Any]:
    """The flow of a deployment."""
    special: dict[str, Flow[..., Any]] = {"pipeline": pipeline, **STUDIES}
    return special[name] if name in special else getattr(stages, name)


def deployments_of(target: Target) -> list[Deployment]:
    """All deployments of a target."""
    made = newest_artifacts(target.store)
    return [_deployment(target, name, made) for name in DEPLOYMENT_NAMES]


def _deployment(target: Target, name: DeploymentName, made: Sequence[Manifest]) -> Deployment:
    flow, module = flow_of(name), name if name in ("pipeline", *STUDIES) else "stages"
    function = f"{name}_study" if name in STUDIES else name
    if target.has_images:  # the image has the code installed: no path of this machine is in it
        code: dict[str, Any] = {"entrypoint": f"flows.{module}.{function}", "path": None}
        directory = APPLICATION
    else:
        code = {"entrypoint": f"flows/{module}.py:{function}", "path": None}
        directory = str(HOME)
    fields = {
        **code,
        "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": directory}}],
        "description": DESCRIPTIONS.get(name, flow.description),
        "tags": [name if name == "pipeline" else target.resources.stages[name].pool],
        "work_pool_name": target.pool_of(name),
        "work_queue_name": target.queue_of(name),
        "job_variables": target.job_variables(name),
        "parameter_openapi_schema": offer_artifacts(
            parameter_schema(flow).model_dump_for_openapi(), choices_of(name, made)
        ),
        "enforce_parameter_schema": True,
    }
    return Deployment(target.deployment(name), flow, fields)


def newest_artifacts(store: str) -> list[Manifest]:
    """The artifacts of a store, newest first; none of a remote one, which would have to be asked for each."""
    made: Iterable[Manifest] = [] if "://" in store else Store(store).manifests()
    return sorted(made, key=lambda one: str(one.provenance.get("started", "")), reverse=True)


def choices_of(name: DeploymentName, made: Sequence[Manifest]) -> dict[str, list[str]]:
    """The artifacts that a stage's form offers for each input: `latest`, and the newest ones. `made`: newest first."""
    if name == "pipeline" or name == "scaling" or name == "seeds" or name == "ablation" or name == "attacks":  # noqa: PLR1714 - so that mypy knows a stage is left
        return {}
    choices = {}
    for role, given in stages.STEPS[name].inputs.items():
        ids = [one.id for one in made if one.stage == given.stage][:NUM_OFFERED]
        if ids and not given.is_source:
            choices[role] = [stages.LATEST, *ids]
    return choices


def deploy(
    target: Target, wishes: Wishes = Wishes(), *, dry_run: bool = False, wait_seconds: float = 60.0
) -> list[Change]:
    """Register everything with the server that PREFECT_API_URL names, or with `dry_run` only compare. Raises UserError if none answers."""
    if not PREFECT_API_URL.value():
        raise UserError(
            "PREFECT_API_URL is not set: start a server with `prefect server start` and "
            "`export PREFECT_API_URL=http://127.0.0.1:4200/api`"
        )
    with get_client(sync_client=True) as client:
        wait_for_server(client, wait_seconds)
        server = _Server(client, dry_run)
        for pool in target.pools():
            server.set_pool(pool)
        if not dry_run:
            make_limit(client)
        ids = {one.flow.name: server.set_deployment(one) for one in deployments_of(target)}
        automations = [no_heartbeat_automation(), not_started_automation()]
        if wishes.notify:
            automations.append(notify_automation(_block(client, wishes.notify)))
        if wishes.filter_after_ingest and None not in (ids["ingest"], ids["filter"]):
            name = target.deployment("ingest")
            automations.append(filter_after_ingest_automation(name, ids["ingest"], ids["filter"]))  # type: ignore[arg-type]
        for automation in automations:
            server.set_automation(automation)
        if wishes.monthly_crawl:
            server.set_monthly_crawl(ids["pipeline"], wishes)
        return server.changes


class _Server:
    """Compares what should be with what the server has, and changes what differs unless it is a dry run."""

    def __init__(self, client: SyncPrefectClient, dry_run: bool) -> None:
        self.client, self.dry_run = client, dry_run
        self.changes: list[Change] = []

    def _do(self, change: Change, action: Callable[[], object]) -> None:
        self.changes.append(change)
        if (change.is_new or change.fields) and not self.dry_run:
            action()

    def set_pool(self, pool: Pool) -> None:
        """A pool and its queues. Raises UserError where a pool of that name is of another type."""
        try:
            found = self.client.read_work_pool(pool.name)
        except ObjectNotFound:
            wanted = WorkPoolCreate(
                name=pool.name, type=pool.type, description="Stages of crawl2chat.", base_job_template=pool.template
            )
            self._do(Change("work pool", pool.name, is_new=True), lambda: self.client.create_work_pool(wanted))
        except PrefectHTTPStatusError as error:
            raise UserError(
                f"{pool.name!r} cannot be the name of a work pool: give another with --pool ({error})"
            ) from None
        else:
            if found.type != pool.type:
                raise UserError(
                    f"the work pool {pool.name!r} is of type {found.type}, not {pool.type}: give another with --pool"
                )
            differs = bool(pool.template) and found.base_job_template != pool.template
            update = WorkPoolUpdate(base_job_template=pool.template)
            self._do(
                Change("work pool", pool.name, fields=["base_job_template"] if differs else []),
                lambda: self.client.update_work_pool(pool.name, update),
            )
        if pool.runs_at_once:
            self._set_queue(pool.name, LIMITED, pool.runs_at_once)
            self._set_queue(pool.name, UNLIMITED, None)

    def _set_queue(self, pool: str, name: str, limit: int | None) -> None:
        try:
            found = self.client.read_work_queue_by_name(name, work_pool_name=pool)
        except ObjectNotFound:
            self._do(
                Change("work queue", f"{pool}/{name}", is_new=True),
                lambda: self.client.create_work_queue(name, concurrency_limit=limit, work_pool_name=pool),
            )
        else:
            self._do(
                Change(
                    "work queue",
                    f"{pool}/{name}",
                    fields=["concurrency_limit"] if found.concurrency_limit != limit else [],
                ),
                lambda: self.client.update_work_queue(found.id, concurrency_limit=limit),
            )

    def set_deployment(self, deployment: Deployment) -> UUID | None:
        """A deployment. Returns its id; None where a dry run finds none."""
        fields = deployment.fields
        try:
            found = self.client.read_deployment_by_name(f"{deployment.flow.name}/{deployment.name}")
        except ObjectNotFound:
            made: list[UUID] = []

            def create() -> None:
                flow_id = self.client.create_flow(deployment.flow)
                made.append(self.client.create_deployment(flow_id=flow_id, name=deployment.name, **fields))

            self._do(Change("deployment", deployment.name, is_new=True), create)
            return made[0] if made else None
        differing = [name for name, value in fields.items() if _of_server(found, name) != json.loads(json.dumps(value))]
        # Not the schedules: a person may have added some.
        self._do(
            Change("deployment", deployment.name, fields=differing),
            lambda: self.client.update_deployment(found.id, DeploymentUpdate(**fields)),
        )
        return found.id

    def set_automation(self, automation: AutomationCore) -> None:
        """An automation, found by its name."""
        found = self.client.read_automations_by_name(automation.name)
        if not found:
            self._do(
                Change("automation", automation.name, is_new=True), lambda: self.client.create_automation(automation)
            )
            return
        ours, theirs = content(automation), content(found[0])
        differing = [name for name in ours if ours[name] != theirs.get(name)]
        wanted = automation.model_copy(update={"enabled": found[0].enabled})
        self._do(
            Change("automation", automation.name, fields=differing),
            lambda: self.client.update_automation(found[0].id, wanted),
        )

    def set_monthly_crawl(self, deployment_id: UUID | None, wishes: Wishes) -> None:
        """The schedule of the pipeline, up to dedup."""
        settings = ["dedup.keep_signatures=true"]
        if wishes.dedup_against:
            settings.append(f"dedup.against={json.dumps(list(wishes.dedup_against))}")
        parameters = {"inputs": list(wishes.monthly_crawl), "until": "dedup", "settings": settings}
        schedule = DeploymentScheduleCreate(
            schedule=CronSchedule(cron=MONTHLY, timezone="UTC"), active=True, parameters=parameters, slug=MONTHLY_SLUG
        )
        schedules = self.client.read_deployment_schedules(deployment_id) if deployment_id else []
        found = next((one for one in schedules if one.slug == MONTHLY_SLUG), None)
        if found is None:
            assert deployment_id is not None or self.dry_run
            self._do(
                Change("schedule", MONTHLY_SLUG, is_new=True),
                lambda: self.client.create_deployment_schedules(deployment_id, [schedule]),  # type: ignore[arg-type]
            )
            return
        same = found.parameters == parameters and getattr(found.schedule, "cron", "") == MONTHLY
        body = {"parameters": parameters, "schedule": {"cron": MONTHLY, "timezone": "UTC"}}
        self._do(
            Change("schedule", MONTHLY_SLUG, fields=[] if same else ["parameters"]),
            lambda: self.client.request("PATCH", f"/deployments/{deployment_id}/schedules/{found.id}", json=body),  # type: ignore[arg-type]
        )


def _of_server(found: DeploymentResponse, name: str) -> Any:
    return found.model_dump(mode="json", include={name})[name]


def _block(client: SyncPrefectClient, name: str) -> UUID:
    """The id of a notification block. Raises UserError where there is no such block."""
    kind, slash, own = name.partition("/")
    try:
        if not slash:
            raise ObjectNotFound(ValueError(name))
        return client.read_block_document_by_name(own, kind).id
    except ObjectNotFound:
        raise UserError(
            f"there is no notification block {name!r}: make one in the UI under Blocks, and give TYPE/NAME, such as slack-webhook/team"
        ) from None
