"""Deployments: a stage triggered over the API of a real local server runs in a real worker, and leaves its manifest."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.recipes import STAGE_NAMES
from tasks.artifacts.store import Store

CONFIG = {"sample": {"num_articles": 40, "num_files": 2}, "num_workers": 1}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a server with all deployments and a worker."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    environment = {
        **os.environ,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "1",
        "CRAWL2CHAT_STORE": str(folder / "store"),
    }
    started = []
    try:
        started.append(start(environment, folder / "server.log", "prefect", "server", "start", "--port", str(port)))
        for _ in range(2):  # the second time changes nothing
            subprocess.run([sys.executable, "-m", "flows.cli.main", "deploy"], env=environment, check=True, cwd=folder)
        started.append(start(environment, folder / "worker.log", "prefect", "worker", "start", "--pool", "crawl2chat"))
        yield environment
    finally:
        for process in reversed(started):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def start(environment: dict[str, str], log: Path, *command: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *command], env=environment, stdout=output, stderr=output, start_new_session=True
        )


def call(server: dict[str, str], method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Asked again while the server says that it is busy, as Prefect's own client does."""
    for _ in range(30):
        response = httpx.request(method, server["PREFECT_API_URL"] + path, json=body, timeout=30)
        if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            break
        time.sleep(1)
    response.raise_for_status()
    return response.json()


def trigger(server: dict[str, str], stage: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Run a deployment to its end, as the UI's Run button does; the flow run."""
    deployment = call(server, "GET", f"/deployments/name/{stage}/{stage}")
    run = call(server, "POST", f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})
    deadline = time.monotonic() + 200
    while run["state"]["type"] not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
        assert time.monotonic() < deadline, run["state"]
        time.sleep(1)
        run = call(server, "GET", f"/flow_runs/{run['id']}")
    return run  # type: ignore[no-any-return]


def artifacts(server: dict[str, str]) -> set[str]:
    return {artifact["key"] for artifact in call(server, "POST", "/artifacts/filter", {})}


def test_every_stage_is_deployed_with_a_form_that_describes_each_field(server: dict[str, str]) -> None:
    deployments = call(server, "POST", "/deployments/filter", {})
    assert {deployment["name"] for deployment in deployments} == {*STAGE_NAMES, "pipeline", "scaling"}
    for deployment in deployments:
        schema = deployment["parameter_openapi_schema"]
        forms = {deployment["name"]: schema, **schema.get("definitions", {})}
        fields = {f"{name}.{field}": it for name, form in forms.items() for field, it in form["properties"].items()}
        undescribed = [name for name, it in fields.items() if "description" not in it and "$ref" not in str(it)]
        assert not undescribed
    assert len(call(server, "POST", "/automations/filter", {})) == 1
    assert [pool["name"] for pool in call(server, "POST", "/work_pools/filter", {})] == ["crawl2chat"]


def test_a_value_out_of_bounds_is_refused_before_anything_runs(server: dict[str, str]) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="409"):
        trigger(server, "filter", {"config": {"language_threshold": 3}})


def test_stages_triggered_over_the_api_run_in_the_worker_and_find_each_others_artifacts(server: dict[str, str]) -> None:
    assert trigger(server, "ingest", {"config": CONFIG})["state"]["type"] == "COMPLETED"
    assert trigger(server, "filter", {"config": {"num_workers": 1}})["state"]["type"] == "COMPLETED"
    store = Store(server["CRAWL2CHAT_STORE"])
    clean = store.find(store.latest("tiny", "filter"))
    assert clean is not None
    assert clean.inputs["documents"] == store.latest("tiny", "ingest")
    assert clean.counts["documents"] > 0
    assert {"ingest-funnel", "filter-funnel", "filter-counts"} <= artifacts(server)


def test_a_stage_whose_input_is_missing_fails_with_the_remedy(server: dict[str, str]) -> None:
    run = trigger(server, "sft", {})
    assert run["state"]["type"] == "FAILED"
    assert "crawl2chat run tiny --until pretrain" in run["state"]["message"]
    pipeline = trigger(server, "pipeline", {"only": "sft"})
    assert pipeline["state"]["type"] == "FAILED"
    assert "stage sft" in pipeline["state"]["message"]
    assert "run its stage first" in pipeline["state"]["message"]


def test_the_deployed_pipeline_runs_its_stages_as_deployments(server: dict[str, str]) -> None:
    """What is up to date is skipped, in a run of the stage's own deployment."""
    settings = ["ingest.sample.num_articles=40", "ingest.sample.num_files=2"]
    run = trigger(server, "pipeline", {"settings": settings, "until": "filter"})
    assert run["state"]["type"] == "COMPLETED", run["state"]
    children = call(server, "POST", "/flow_runs/filter", {"flows": {"name": {"any_": ["ingest", "filter"]}}})
    assert sum(child["parent_task_run_id"] is not None for child in children) == 2
