"""Prefect's own workers make of the job templates what Kubernetes and Docker take, for a run of each stage."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun

from flows.resources import DEPLOYMENT_NAMES, DeploymentName, load_resources, num_bytes
from flows.targets import Target, job_template, make_target

validator = pytest.importorskip("kubernetes_validate")

VERSIONS = ("1.28", "1.37")  # the oldest that is likely in use, the newest of the package
RESOURCES = load_resources()
COMMAND = ["prefect", "flow-run", "execute"]


# Imported late: a second, which workers that only collect this file are spared.
@pytest.fixture
def kubernetes() -> Any:
    return pytest.importorskip("prefect_kubernetes.worker")


@pytest.fixture
def docker() -> Any:
    return pytest.importorskip("prefect_docker.worker")


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRAWL2CHAT_STORE", "s3://bucket/artifacts")
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect-server:4200/api")


@pytest.fixture
def on_kubernetes(no_settings_of_this_machine: None) -> Target:
    return make_target("kubernetes", "crawl2chat", RESOURCES)


def configured(kind: Any, chosen: Target, name: DeploymentName) -> Any:
    """The job configuration of a run, as a worker makes it."""
    template = job_template(chosen.name)  # type: ignore[arg-type]
    made = asyncio.run(kind.from_template_and_values(template, chosen.job_variables(name)))
    made.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="sft-my-run"))
    return made


@pytest.mark.parametrize("name", DEPLOYMENT_NAMES)
def test_kubernetes_worker_makes_a_valid_job_for_each_stage(
    kubernetes: Any, name: DeploymentName, on_kubernetes: Target
) -> None:
    job = configured(kubernetes.KubernetesWorkerJobConfiguration, on_kubernetes, name).job_manifest
    job["metadata"]["name"] = job["metadata"].pop("generateName") + "x"  # the validator knows no generateName
    for version in VERSIONS:
        validator.validate(job, version, strict=True)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    stage = RESOURCES.stages[name]
    assert container["args"] == COMMAND
    assert container["image"] == RESOURCES.image(name)
    assert container["resources"]["limits"] == {
        "memory": stage.memory,
        **({"nvidia.com/gpu": stage.gpus} if stage.gpus else {}),
    }
    assert container["resources"]["requests"]["cpu"] == f"{stage.cpu:g}"
    assert pod["volumes"][2]["emptyDir"] == {"medium": "Memory", "sizeLimit": stage.shared_memory}
    assert bool(pod.get("tolerations")) == bool(stage.gpus)
    environment = {one["name"]: one["value"] for one in container["env"]}
    assert environment["PREFECT_HOME"] == "/scratch/prefect"
    assert environment["CRAWL2CHAT_TARGET"] == "kubernetes"
    # With a backoffLimit of 0 the worker asks for this: an evicted run is scheduled again.
    assert environment["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "reschedule"


def test_pods_may_do_nothing_that_a_run_does_not_need(kubernetes: Any, on_kubernetes: Target) -> None:
    job = configured(kubernetes.KubernetesWorkerJobConfiguration, on_kubernetes, "pretrain").job_manifest
    pod = job["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 1001
    assert pod["automountServiceAccountToken"] is False
    security = pod["containers"][0]["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]} == {"/scratch", "/tmp", "/dev/shm"}


def test_a_run_may_override_its_resources_and_node(kubernetes: Any, on_kubernetes: Target) -> None:
    asked = {"gpus": 2, "node_selector": {"zone": "a"}, "memory": "9Gi"}
    template, variables = job_template("kubernetes"), on_kubernetes.job_variables("sft") | asked
    made = asyncio.run(kubernetes.KubernetesWorkerJobConfiguration.from_template_and_values(template, variables))
    pod = made.job_manifest["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"zone": "a"}
    assert pod["containers"][0]["resources"]["limits"] == {"memory": "9Gi", "nvidia.com/gpu": 2}


@pytest.mark.parametrize("name", DEPLOYMENT_NAMES)
def test_docker_worker_makes_a_container_for_each_stage(docker: Any, name: DeploymentName) -> None:
    chosen = make_target("docker", "crawl2chat", RESOURCES)
    made = configured(docker.DockerWorkerJobConfiguration, chosen, name)
    stage = RESOURCES.stages[name]
    assert (made.command.split(), made.image) == (COMMAND, RESOURCES.image(name))
    assert (made.mem_limit, made.memswap_limit, made.auto_remove) == (str(num_bytes(stage.memory)),) * 2 + (True,)
    limits = made.container_create_kwargs
    assert limits["read_only"] is True
    assert limits["user"] == "1001:1001"
    assert limits["shm_size"] == num_bytes(stage.shared_memory)
    assert ("device_requests" in limits) == bool(stage.gpus)
    # What the worker hands to Docker's client, which refuses a name that it does not know
    from docker.models.containers import _create_container_args

    arguments = {"image": made.image, "version": "1.41", "command": made.command, "environment": made.env}
    created = _create_container_args({**arguments, "volumes": made.volumes, "mem_limit": made.mem_limit, **limits})
    assert created["host_config"]["ReadonlyRootfs"] is True
    assert created["host_config"]["ShmSize"] == num_bytes(stage.shared_memory)
