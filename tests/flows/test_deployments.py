"""Deployments: a stage triggered over the API of a real local server runs in a real worker, and leaves its manifest."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from flows.recipes import STAGE_NAMES
from tasks.artifacts.store import Store
from tests.support.prefect_servers import LocalPrefect, running_server, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

CONFIG = {"sample": {"num_articles": 40, "num_files": 2}, "num_workers": 1}
SCHEDULE_SECONDS = 30.0
SETTINGS = [
    "ingest.sample.num_articles=40",
    "ingest.sample.num_files=2",
    "ingest.num_workers=1",
    "filter.num_workers=1",
]


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPrefect]:
    """A server with all deployments and a worker. What its log reports as an error fails the last test that uses it."""
    # The scheduler's own loop runs each minute by default; one that fails must do so within the tests.
    loop = {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "10"}
    with running_server(tmp_path_factory.mktemp("prefect"), **loop) as local:
        local.deploy()
        local.deploy_here()  # the second time changes nothing
        local.start_worker()
        yield local
        assert not local.errors()


def snapshot(prefect: LocalPrefect) -> dict[str, Any]:
    """What a deploy writes of each object, or where only a deploy changes it, when that was: a worker writes pools and queues too."""
    fields = {
        "deployments": ("name", "updated", "job_variables", "work_pool_name"),
        "work_pools": ("name", "type", "concurrency_limit"),
        "work_queues": ("name", "concurrency_limit"),
        "automations": ("name", "updated", "trigger"),
    }
    return {
        f"{kind}/{one['id']}": [one[name] for name in names]
        for kind, names in fields.items()
        for one in prefect.call("POST", f"/{kind}/filter", {})
    }


def test_second_deploy_changes_nothing_and_another_target_leaves_what_is_there(prefect: LocalPrefect) -> None:
    before = snapshot(prefect)
    prefect.deploy_here()
    assert snapshot(prefect) == before
    prefect.deploy_here("--target", "docker", "--dry-run")
    assert snapshot(prefect) == before
    prefect.deploy_here("--target", "docker")
    after = snapshot(prefect)
    assert {key: after[key] for key in before} == before
    prefect.deploy_here("--target", "docker")
    assert snapshot(prefect) == after
    queues = {
        (queue["work_pool_name"], queue["name"]): queue for queue in prefect.call("POST", "/work_queues/filter", {})
    }
    assert queues["crawl2chat-docker-training", "default"]["concurrency_limit"] == 1
    assert queues["crawl2chat-docker-training", "starters"]["concurrency_limit"] is None
    for deployment in prefect.call("POST", "/deployments/filter", {}):
        if deployment["name"].endswith("-docker"):
            prefect.call("DELETE", f"/deployments/{deployment['id']}")
    for name in ("data", "training", "evaluation"):
        prefect.call("DELETE", f"/work_pools/crawl2chat-docker-{name}")


def test_what_is_asked_for_is_added_once(prefect: LocalPrefect) -> None:
    asked = ["--monthly-crawl", "s3://crawl/*.warc.gz", "--dedup-against", "dedup/abc", "--filter-after-ingest"]
    prefect.deploy_here(*asked)
    before = snapshot(prefect)
    prefect.deploy_here(*asked)
    prefect.deploy_here()  # not asked for again: it stays
    assert snapshot(prefect) == before
    (schedule,) = prefect.call("GET", "/deployments/name/pipeline/pipeline")["schedules"]
    assert schedule["parameters"]["settings"] == ["dedup.keep_signatures=true", 'dedup.against=["dedup/abc"]']
    (automation,) = [one for one in prefect.call("POST", "/automations/filter", {}) if "starts filter" in one["name"]]
    deployment = prefect.call("GET", "/deployments/name/filter/filter")
    assert automation["actions"][0]["deployment_id"] == deployment["id"]
    prefect.call("DELETE", f"/automations/{automation['id']}")
    pipeline = prefect.call("GET", "/deployments/name/pipeline/pipeline")
    prefect.call("DELETE", f"/deployments/{pipeline['id']}/schedules/{schedule['id']}")


def test_unknown_notification_block_is_refused(prefect: LocalPrefect) -> None:
    printed = prefect.deploy_here("--notify", "slack-webhook/nobody", status=2)
    assert "there is no notification block 'slack-webhook/nobody'" in printed


def test_every_stage_is_deployed_with_a_form_that_describes_each_field(prefect: LocalPrefect) -> None:
    deployments = prefect.call("POST", "/deployments/filter", {})
    assert {deployment["name"] for deployment in deployments} == {
        *STAGE_NAMES,
        "pipeline",
        "scaling",
        "seeds",
        "ablation",
        "attacks",
    }
    for deployment in deployments:
        schema = deployment["parameter_openapi_schema"]
        forms = {deployment["name"]: schema, **schema.get("definitions", {})}
        fields = {
            f"{name}.{field}": value
            for name, form in forms.items()
            for field, value in form.get("properties", {}).items()
        }
        undescribed = [
            name for name, value in fields.items() if "description" not in value and "$ref" not in str(value)
        ]
        assert not undescribed
    assert len(prefect.call("POST", "/automations/filter", {})) == 2
    assert [pool["name"] for pool in prefect.call("POST", "/work_pools/filter", {})] == ["crawl2chat"]
    assert prefect.call("GET", "/v2/concurrency_limits/crawl2chat-training")["limit"] == 1


def test_value_out_of_bounds_is_refused_before_anything_runs(prefect: LocalPrefect) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="409"):
        prefect.trigger("filter", {"config": {"language_threshold": 3}})


def test_stages_triggered_over_the_api_find_each_others_artifacts(prefect: LocalPrefect) -> None:
    ingest = prefect.trigger("ingest", {"config": CONFIG}, name="my first run")
    assert ingest["state"]["type"] == "COMPLETED", ingest["state"]
    assert ingest["name"] == "my first run"
    filtered = prefect.trigger("filter", {"config": {"num_workers": 1}})
    assert filtered["state"]["type"] == "COMPLETED", filtered["state"]
    assert filtered["name"] == "filter-tiny"
    store = Store(prefect.environment["CRAWL2CHAT_STORE"])
    clean = store.find(store.latest("tiny", "filter"))
    assert clean is not None
    assert clean.inputs["documents"] == store.latest("tiny", "ingest")
    assert clean.counts["documents"] > 0
    shown = wait_for(lambda: prefect.artifacts(filtered["id"]), "artifacts are shown")
    assert {"filter-funnel", "filter-counts", "filter-inputs", "filter-cost"} <= shown.keys()
    link = re.search(r"\[ingest/\w+\]\(http://\S+/runs/flow-run/([\w-]+)\)", shown["filter-inputs"]["data"])
    assert link
    assert link[1] == ingest["id"]
    inputs = shown["filter-inputs"]["data"]
    assert f'{{"documents": "{clean.inputs["documents"]}", "config": {{"num_workers": 1}}' in inputs
    spent = {row["name"]: row["value"] for row in json.loads(shown["filter-cost"]["data"])}
    assert spent["CPU time of this machine, seconds"] > 0
    assert spent["artifact written, bytes"] == sum(file.bytes for file in clean.files)
    assert any("filter/" in line and "new" in line for line in prefect.logs(filtered["id"]))


def test_stage_whose_input_is_missing_fails_with_the_remedy(prefect: LocalPrefect) -> None:
    run = prefect.trigger("sft", {})
    assert run["state"]["type"] == "FAILED"
    assert "crawl2chat run tiny --until pretrain" in run["state"]["message"]
    pipeline = prefect.trigger("pipeline", {"only": "sft"})
    assert pipeline["state"]["type"] == "FAILED"
    assert "stage sft needs the artifact of tokenizer, which is missing" in pipeline["state"]["message"]


def children_of(prefect: LocalPrefect, *names: str) -> list[dict[str, Any]]:
    """The runs of stages that a pipeline has launched."""
    runs = prefect.call("POST", "/flow_runs/filter", {"flows": {"name": {"any_": list(names)}}})
    return [run for run in runs if run["parent_task_run_id"] is not None]


def test_deployed_pipeline_runs_stages_as_deployments_unless_they_are_up_to_date(
    prefect: LocalPrefect,
) -> None:
    parameters = {"settings": [*SETTINGS, "ingest.sample.num_articles=41"], "until": "filter"}
    run = prefect.trigger("pipeline", parameters)
    assert run["state"]["type"] == "COMPLETED", run["state"]
    assert len(children_of(prefect, "ingest", "filter")) == 2
    again = prefect.trigger("pipeline", parameters)
    assert again["state"]["type"] == "COMPLETED", again["state"]
    assert len(children_of(prefect, "ingest", "filter")) == 2
    lines = prefect.logs(again["id"])
    assert [
        stage
        for stage in ("ingest", "filter")
        if any(f"artifact {stage}/" in line and "is up to date" in line for line in lines)
    ] == [
        "ingest",
        "filter",
    ]


def test_deployment_with_an_interval_schedule_runs(prefect: LocalPrefect) -> None:
    """On SQLAlchemy 2.1 Prefect 3.8.8's scheduler fails each minute, and says so in the log alone."""
    deployment = prefect.call("GET", "/deployments/name/ingest/ingest")
    schedule = {"schedule": {"interval": SCHEDULE_SECONDS}, "active": True, "parameters": {"config": CONFIG}}
    prefect.call("POST", f"/deployments/{deployment['id']}/schedules", [schedule])

    def scheduled(*types: str) -> list[dict[str, Any]]:
        of_deployment = {"deployment_id": {"any_": [deployment["id"]]}, "state": {"type": {"any_": types}}}
        runs = prefect.call("POST", "/flow_runs/filter", {"flow_runs": of_deployment})
        return [run for run in runs if run["auto_scheduled"]]

    wait_for(lambda: scheduled("COMPLETED"), "a scheduled run is completed")
    assert scheduled("SCHEDULED", "PENDING", "RUNNING", "COMPLETED")[1:]  # and others follow
    for made in prefect.call("GET", f"/deployments/{deployment['id']}/schedules"):
        prefect.call("DELETE", f"/deployments/{deployment['id']}/schedules/{made['id']}")
    assert not prefect.errors()
