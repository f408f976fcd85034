"""Targets without a server: what is registered for each, and that nothing of the deploying machine or of its secrets is in it."""

import json
import logging
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.flows import load_flow_from_entrypoint

from flows import launch
from flows.deployments import choices_of, deployments_of, flow_of, newest_artifacts
from flows.resources import DEPLOYMENT_NAMES, HOME, STARTERS, load_resources
from flows.targets import TARGET_NAMES, Target, TargetName, job_template, make_target
from model.errors import UserError
from tasks.artifacts.manifest import Documents
from tasks.artifacts.store import Store
from tasks.web.http_client import REFUSE_PRIVATE
from tests.support.tiny_models import finish

RESOURCES = load_resources()
EXECUTOR = "ray://head:10001"


@pytest.fixture
def s3_store(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CRAWL2CHAT_STORE", "s3://bucket/artifacts")
    return "s3://bucket/artifacts"


def target(name: TargetName | None) -> Target:
    return make_target(name, "crawl2chat", RESOURCES, EXECUTOR if name == "ray" else "")


@pytest.mark.usefixtures("s3_store")
@pytest.mark.parametrize("name", [None, *TARGET_NAMES])
def test_every_deployment_has_names_pools_and_limits_apart_from_other_targets(name: TargetName | None) -> None:
    chosen = target(name)
    deployments = deployments_of(chosen)
    suffix = f"-{name}" if name else ""
    assert [one.name for one in deployments] == [f"{stage}{suffix}" for stage in DEPLOYMENT_NAMES]
    pools = {pool.name: pool for pool in chosen.pools()}
    for stage, deployment in zip(DEPLOYMENT_NAMES, deployments, strict=True):
        assert deployment.flow.name == stage
        assert deployment.fields["work_pool_name"] in pools
        assert deployment.fields["job_variables"]["env"][REFUSE_PRIVATE] == "1"
        # A limited queue that is full of pipelines, which wait for stages of the same queue, never moves again.
        assert deployment.fields["work_queue_name"] == ("starters" if name and stage in STARTERS else "default")
    assert {pool.type for pool in pools.values()} == {name if name in ("docker", "kubernetes") else "process"}
    assert all(pool.runs_at_once > 0 for pool in pools.values()) == bool(name)


@pytest.mark.usefixtures("s3_store")
@pytest.mark.parametrize("name", [None, "kubernetes"])
def test_entrypoints_load_the_flow(name: TargetName | None) -> None:
    for deployment in deployments_of(target(name)):
        entrypoint = deployment.fields["entrypoint"]
        path = str(HOME / entrypoint) if ":" in entrypoint else entrypoint
        assert load_flow_from_entrypoint(path, use_placeholder_flow=False).name == deployment.flow.name


@pytest.mark.usefixtures("s3_store")
@pytest.mark.parametrize("name", ["docker", "kubernetes"])
def test_nothing_of_the_deploying_machine_is_in_a_deployment_with_an_image(name: TargetName) -> None:
    for stage, deployment in zip(DEPLOYMENT_NAMES, deployments_of(target(name)), strict=True):
        assert str(HOME) not in json.dumps(deployment.fields)
        variables = deployment.fields["job_variables"]
        assert variables["image"] == RESOURCES.image(stage)
        assert variables["env"]["CRAWL2CHAT_STORE"] == "s3://bucket/artifacts"
        assert variables["env"]["CRAWL2CHAT_TARGET"] == name
        assert set(variables) <= set(job_template(name)["variables"]["properties"])


def test_docker_mounts_the_folder_of_a_local_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRAWL2CHAT_STORE", "/data/artifacts")
    variables = target("docker").job_variables("ingest")
    assert "/data/artifacts:/artifacts" in variables["volumes"]
    assert variables["env"]["CRAWL2CHAT_STORE"] == "/artifacts"
    assert variables["mem_limit"] == str(48 * 2**30)
    assert "device_requests" not in variables
    assert target("docker").job_variables("sft")["device_requests"][0]["Count"] == 8


@pytest.mark.usefixtures("s3_store")
def test_only_data_stages_are_given_the_ray_cluster() -> None:
    chosen = target("ray")
    given = {name for name in DEPLOYMENT_NAMES if "CRAWL2CHAT_EXECUTOR" in chosen.environment(name)}
    assert given == {"pipeline", "seeds", "ingest", "filter", "dedup", "index", "tokenizer", "tokenize"}
    assert chosen.environment("ingest")["CRAWL2CHAT_EXECUTOR"] == EXECUTOR


@pytest.mark.parametrize(
    ("store", "name", "executor", "message"),
    [
        ("artifacts", "kubernetes", "", "is a folder of this machine"),
        ("s3://bucket", "ray", "", "needs the address of a cluster"),
        ("s3://bucket", "process", "http://x", "is not the address of a Ray cluster"),
        ("s3://key:secret@bucket", "kubernetes", "", "has a secret in its URL"),
    ],
)
def test_what_does_not_fit_is_refused(
    monkeypatch: pytest.MonkeyPatch, store: str, name: TargetName, executor: str, message: str
) -> None:
    monkeypatch.setenv("CRAWL2CHAT_STORE", store)
    with pytest.raises(UserError, match=message) as error:
        make_target(name, "crawl2chat", RESOURCES, executor)
    assert "key:secret" not in str(error.value)


def test_flow_of_every_deployment_has_its_name() -> None:
    assert [flow_of(name).name for name in DEPLOYMENT_NAMES] == list(DEPLOYMENT_NAMES)


@pytest.mark.parametrize(("target_name", "expected"), [("", "sft/sft"), ("kubernetes", "sft/sft-kubernetes")])
def test_pipeline_launches_the_deployments_of_its_target(
    target_name: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def run_deployment(name: str, parameters: dict[str, Any], **_: Any) -> FlowRun:
        asked.append(name)
        return FlowRun(flow_id=uuid4(), name="sft-tiny")

    monkeypatch.setenv("CRAWL2CHAT_TARGET", target_name)
    monkeypatch.setattr(launch, "run_deployment", run_deployment)
    with pytest.raises(RuntimeError, match="ended as unknown"):
        launch.launch.fn("sft", "sft/0", {}, [])
    assert asked == [expected]


@pytest.mark.parametrize(
    ("states", "num_launches", "end"),
    [
        (("CRASHED", "COMPLETED"), 2, "completed, and its artifact sft/0 is not in"),
        (("CRASHED", "CRASHED", "CRASHED"), 3, "ended as Crashed: its machine is gone"),
        (("FAILED", "COMPLETED"), 1, "ended as Failed"),
        (("CANCELLED", "COMPLETED"), 1, "ended as Cancelled"),
    ],
)
def test_pipeline_launches_a_stage_again_that_crashed_and_none_that_failed(
    states: tuple[str, ...], num_launches: int, end: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = list(states)

    def run_deployment(name: str, parameters: dict[str, Any], **_: Any) -> FlowRun:
        state: State[object] = State(type=StateType(left.pop(0)), message="its machine is gone")
        return FlowRun(flow_id=uuid4(), name="sft-tiny", state=state)

    monkeypatch.setattr(launch, "run_deployment", run_deployment)
    monkeypatch.setattr(launch, "get_run_logger", lambda: logging.getLogger("test"))
    with pytest.raises(RuntimeError, match=end):
        launch.launch.fn("sft", "sft/0", {}, [])
    assert len(states) - len(left) == num_launches


def test_form_offers_the_artifacts_of_a_folder_and_asks_no_remote_store(store: Store) -> None:
    finish(store, Documents, "ingest/abc")
    finish(store, Documents, "filter/abc")
    made = newest_artifacts(store.url)
    assert choices_of("filter", made) == {"documents": ["latest", "ingest/abc"]}
    assert choices_of("export", made) == {"raw": ["latest", "ingest/abc"]}
    assert choices_of("pipeline", made) == {}
    assert newest_artifacts("s3://a-bucket-that-is-not-there") == []
