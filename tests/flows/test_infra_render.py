"""`crawl2chat infra render`: strict schemas for what Kubernetes reads, and the resources and the plan in what is written."""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.cli.main import main
from flows.infra import RENDERED, plan_training
from flows.resources import RESOURCES_FILE, load_resources
from flows.targets import make_target
from model.errors import UserError
from model.nodes import VARIABLES, this_node

validator = pytest.importorskip("kubernetes_validate")
VERSIONS = ("1.28", "1.37")
RESOURCES = load_resources()
HOSTILE = "s3://bucket/a'; $(rm -rf x) \"{{ b }}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRAWL2CHAT_STORE", "s3://bucket/artifacts")
    return tmp_path


def rendered(target: str, folder: Path, *options: str) -> dict[str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["infra", "render", "--target", target, "--output", str(folder / target), *options])
    assert not ended.value.code
    return {path.name: path.read_text(encoding="utf-8") for path in (folder / target).iterdir()}


def manifests(files: dict[str, str]) -> Iterator[dict[str, Any]]:
    for name, text in files.items():
        if name.endswith(".yaml") and not name.endswith("values.yaml"):
            yield from yaml.safe_load_all(text)


def pods_in(manifest: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The Jobs in a JobSet, and the pods in a RayCluster, as manifests that Kubernetes itself has schemas for."""
    named = {"name": "x", "namespace": "crawl2chat"}
    if manifest["kind"] == "JobSet":
        for job in manifest["spec"]["replicatedJobs"]:
            whole = {"apiVersion": "batch/v1", "kind": "Job", "metadata": named, **job["template"]}
            yield whole, whole["spec"]["template"]["spec"]
    if manifest["kind"] == "RayCluster":
        for group in (manifest["spec"]["headGroupSpec"], *manifest["spec"]["workerGroupSpecs"]):
            template = group["template"]
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {**named, **template["metadata"]},
                "spec": template["spec"],
            }
            yield pod, template["spec"]


@pytest.mark.parametrize("target", ["kubernetes", "ray"])
def test_manifests_are_valid(target: str, folder: Path) -> None:
    kinds = set()
    for manifest in manifests(rendered(target, folder)):
        kinds.add(manifest["kind"])
        parts = [part for part, _ in pods_in(manifest)] or [manifest]
        for part in parts:
            for version in VERSIONS:
                validator.validate(part, version, strict=True)
        for _, pod in pods_in(manifest):
            assert pod["securityContext"]["runAsUser"] == 1001
            assert all(one["securityContext"]["readOnlyRootFilesystem"] for one in pod["containers"])
    expected = {
        "kubernetes": {"Namespace", "ServiceAccount", "NetworkPolicy", "PodDisruptionBudget", "JobSet"},
        "ray": {"RayCluster", "NetworkPolicy"},
    }
    assert kinds == expected[target]


def test_jobset_has_the_nodes_of_the_plan_and_the_resources_of_pretrain(folder: Path) -> None:
    files = rendered("kubernetes", folder, "--gpus", "32xH100", "--recipe", "my.yaml", "--preset", "d24")
    jobset = yaml.safe_load(files["training-jobset.yaml"])
    (job, pod), *rest = pods_in(jobset)
    assert not rest
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 4
    (container,) = pod["containers"]
    stage = RESOURCES.stages["pretrain"]
    assert container["resources"]["limits"] == {"memory": stage.memory, "nvidia.com/gpu": 8}
    assert container["args"][:5] == ["crawl2chat", "run", "my.yaml", "--only", "pretrain"]
    assert "pretrain.train.num_ranks=32" in container["args"]
    values = {one["name"]: one.get("value") for one in container["env"]}
    # The number of a node is known to Kubernetes alone.
    node = this_node({name: value for name, value in values.items() if value} | {"PET_NODE_RANK": "3"})
    assert node is not None and (node.num_nodes, node.rank, node.ranks_per_node) == (4, 3, 8)
    assert node.host == "crawl2chat-pretrain-node-0-0.crawl2chat-pretrain"
    assert {name for name in values if name.startswith("PET_")} <= set(VARIABLES)


def test_sbatch_script_is_shell_and_quotes_what_a_user_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRAWL2CHAT_STORE", HOSTILE)
    script = rendered("slurm", folder, "--recipe", "my recipe.yaml")["pretrain.sbatch"]
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert f"export CRAWL2CHAT_STORE={shlex.quote(HOSTILE)}\n" in script
    assert "run 'my recipe.yaml' --only pretrain" in script
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", script, re.MULTILINE))
    assert (options["nodes"], options["gpus-per-node"], options["cpus-per-task"]) == ("2", "8", "32")
    assert options["mem"] == f"{256 * 1024}M"


def test_sbatch_script_gives_every_node_what_the_launcher_reads(folder: Path) -> None:
    """With stand-ins for Slurm's programs, of which srun prints the environment of node 1 in place of running the command."""
    script = rendered("slurm", folder, "--gpus", "32xH100")["pretrain.sbatch"]
    (folder / "scontrol").write_text("#!/bin/sh\nprintf 'node-a\\nnode-b\\nnode-c\\nnode-d\\n'\n")
    (folder / "srun").write_text('#!/bin/sh\nSLURM_NODEID=1 exec "$2" "$3" "$4" pretrain env\n')
    for name in ("scontrol", "srun"):
        (folder / name).chmod(0o755)
    slurm = {"PATH": f"{folder}:/usr/bin:/bin", "SLURM_JOB_NUM_NODES": "4", "SLURM_JOB_NODELIST": "node-[a-d]"}
    printed = subprocess.run(["bash"], input=script, text=True, check=True, capture_output=True, env=slurm).stdout
    environment = dict(line.partition("=")[::2] for line in printed.splitlines())
    node = this_node(environment)
    assert node is not None and (node.num_nodes, node.rank, node.ranks_per_node) == (4, 1, 8)
    assert node.endpoint == "node-a:29500"
    assert {name for name in environment if name.startswith("PET_")} <= set(VARIABLES)


def test_workers_of_charts_and_units_serve_the_pools_that_are_deployed(folder: Path) -> None:
    for name in ("kubernetes", "process"):
        files = rendered(name, folder)
        pools = [pool.name for pool in make_target(name, "crawl2chat", RESOURCES).pools()]  # type: ignore[arg-type]
        if name == "kubernetes":
            polled = [
                yaml.safe_load(files[f"worker-{pool.rsplit('-', 1)[1]}-values.yaml"])["worker"]["config"]["workPool"]
                for pool in pools
            ]
        else:
            # What a worker reconciles first are the leases of its store.
            assert 'Environment="CRAWL2CHAT_STORE=s3://bucket/artifacts"' in files["worker-data.service"]
            polled = [
                re.findall(r"crawl2chat worker --pool (\S+)", files[f"worker-{pool.rsplit('-', 1)[1]}.service"])[0]
                for pool in pools
            ]
        assert polled == pools


def test_secrets_are_references(folder: Path) -> None:
    """A password in a values file is in somebody's repository tomorrow."""
    for name, text in rendered("kubernetes", folder).items():
        for key, value in re.findall(r"(?i)(\w*(?:password|authstring|secret)\w*): *(\S+)", text):
            assert re.fullmatch(r"(crawl2chat-\w+|redis-password|\{name:|password|auth-string)[,}]*", value), (
                name,
                key,
                value,
            )


@pytest.mark.parametrize("target", ["docker", "kubernetes"])
def test_job_template_is_json_for_prefects_command(target: str, folder: Path) -> None:
    template = json.loads(rendered(target, folder)["job_template.json"])
    assert set(template) == {"job_configuration", "variables"}


def test_resources_of_a_copy_are_rendered(folder: Path) -> None:
    copy = folder / "mine.yaml"
    copy.write_text(
        RESOURCES_FILE.read_text().replace("cpu: 32, memory: 256Gi, gpus: 8", "cpu: 7.5, memory: 9Gi, gpus: 4")
    )
    files = rendered("kubernetes", folder, "--resources", str(copy))
    (_, pod), *_ = pods_in(yaml.safe_load(files["training-jobset.yaml"]))
    assert pod["containers"][0]["resources"] == {
        "requests": {"cpu": "7.5", "memory": "9Gi"},
        "limits": {"memory": "9Gi", "nvidia.com/gpu": 4},
    }


def test_gpus_that_make_no_whole_nodes_are_refused(tmp_path: Path) -> None:
    copy = tmp_path / "mine.yaml"
    copy.write_text(RESOURCES_FILE.read_text().replace("memory: 256Gi, gpus: 8", "memory: 256Gi, gpus: 6"))
    with pytest.raises(UserError, match="no whole nodes of 6 GPUs"):
        plan_training("gpt2", "gpt2", "16xH100", load_resources(copy))
    with pytest.raises(UserError, match="does not fit on 1xL4"):
        plan_training("gpt2", "d64", "1xL4", RESOURCES)


def test_unknown_target_lists_the_targets(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["infra", "render", "--target", "nomad", "--output", str(folder)])
    assert ended.value.code == 2
    assert ", ".join(RENDERED) in capsys.readouterr().err
