"""Targets: where the deployments run, and what differs there. Pure: reads infra/ and the environment, calls no server.

A target has work pools of one type and, for each deployment, the entrypoint and the job variables that this type needs. Without a
target everything is in one pool of processes on one machine. Each target has deployments under separate names (`sft`,
`sft-kubernetes`), so that deploying one leaves the others as they are; `pipeline-kubernetes` starts `sft-kubernetes`.

Parents do not count against the limit of runs at once: a pool that is full of pipelines which wait for stages would wait for ever.
So each pool has two queues: `default`, with the limit, and `starters`, without.
"""

import os
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import yaml

from flows.prefect_server import RETRIES
from flows.resources import INFRA, POOL_NAMES, STARTERS, DeploymentName, Resources, num_bytes
from flows.stage_run import TARGET
from model.config import Config
from model.errors import UserError
from tasks.redaction import redact_url
from tasks.web.http_client import REFUSE_PRIVATE

TargetName = Literal["process", "docker", "kubernetes", "ray"]
TARGET_NAMES: tuple[TargetName, ...] = get_args(TargetName)
HEARTBEAT_SECONDS = 30  # the shortest that Prefect takes; four missed are the two minutes of flows/automations.py
LIMITED, UNLIMITED = "default", "starters"
APPLICATION = "/app"  # of docker/Dockerfile, as are the next two
SCRATCH = "/scratch"
STORE_MOUNT = "/artifacts"
CREDENTIALS = "/etc/crawl2chat"
EXECUTOR = "CRAWL2CHAT_EXECUTOR"
STORE, DEFAULT_STORE = "CRAWL2CHAT_STORE", "artifacts"  # as tasks/artifacts/store.py has them

Variables = dict[str, Any]


class Pool(NamedTuple):
    """A work pool. `template`: its base job template, {} for the worker type's own. `runs_at_once`: 0 sets no limit."""

    name: str
    type: str
    template: Variables
    runs_at_once: int


class Target(Config):
    """A target with what a person chose for it. `name`: None is one pool of processes, named `pool`."""

    name: TargetName | None
    pool: str
    resources: Resources
    store: str
    executor: str = ""

    @property
    def has_images(self) -> bool:
        """Whether runs are containers."""
        return self.name in ("docker", "kubernetes")

    def deployment(self, name: DeploymentName) -> str:
        """The name of a deployment."""
        return f"{name}-{self.name}" if self.name else name

    def pool_of(self, name: DeploymentName) -> str:
        """The name of the work pool of a deployment."""
        return f"{self.pool}-{self.name}-{self.resources.stages[name].pool}" if self.name else self.pool

    def queue_of(self, name: DeploymentName) -> str:
        """The queue of the pool: starters do not count against the limit."""
        return UNLIMITED if self.name and name in STARTERS else LIMITED

    def pools(self) -> list[Pool]:
        """The work pools."""
        if self.name is None:
            return [Pool(self.pool, "process", {}, 0)]
        kind = self.name if self.has_images else "process"
        template = job_template(self.name) if self.has_images else {}
        return [
            Pool(f"{self.pool}-{self.name}-{name}", kind, template, self.resources.pools[name].runs_at_once)
            for name in POOL_NAMES
        ]

    def job_variables(self, name: DeploymentName) -> Variables:
        """What a run of a deployment is started with."""
        if self.name == "docker":
            return self._docker(name)
        if self.name == "kubernetes":
            return self._kubernetes(name)
        return {"env": self.environment(name)}

    def environment(self, name: DeploymentName) -> dict[str, str]:
        """The variables of a run. None is a secret: Prefect's server keeps them, and its UI shows them."""
        variables = {
            STORE: STORE_MOUNT if self.name == "docker" and "://" not in self.store else self.store,
            "DO_NOT_TRACK": "1",
            # Whoever may trigger a run names the URLs that a worker opens: none may lead into the worker's own network.
            REFUSE_PRIVATE: "1",
            **RETRIES,
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        }
        if self.name:
            variables[TARGET] = self.name
        if self.executor and self.resources.stages[name].pool == "data":
            variables[EXECUTOR] = self.executor
        if self.has_images:  # a worker passes its own folders of Prefect to its runs, which have other ones
            variables |= {
                "PREFECT_HOME": f"{SCRATCH}/prefect",
                "PREFECT_PROFILES_PATH": f"{SCRATCH}/prefect/profiles.toml",
            }
        return variables

    def _docker(self, name: DeploymentName) -> Variables:
        stage = self.resources.stages[name]
        volumes = [f"{CREDENTIALS}:{CREDENTIALS}:ro"]
        if "://" not in self.store:
            volumes.append(f"{self.store}:{STORE_MOUNT}")
        environment = self.environment(name) | {"AWS_SHARED_CREDENTIALS_FILE": f"{CREDENTIALS}/aws-credentials"}
        variables: Variables = {
            "image": self.resources.image(name),
            "env": environment,
            "volumes": volumes,
            "mem_limit": str(num_bytes(stage.memory)),
            # A weight and not a limit: Docker refuses a limit above the machine's cores.
            "cpu_shares": min(262_144, int(1024 * stage.cpu)),
            "shm_size": num_bytes(stage.shared_memory),
        }
        if stage.gpus:
            request = {"Driver": "", "Count": stage.gpus, "DeviceIDs": [], "Capabilities": [["gpu"]], "Options": {}}
            variables["device_requests"] = [request]
        return variables

    def _kubernetes(self, name: DeploymentName) -> Variables:
        stage, placement = self.resources.stages[name], self.resources.placement(name)
        variables: Variables = {
            "image": self.resources.image(name),
            "env": self.environment(name),
            "cpu": f"{stage.cpu:g}",
            "memory": stage.memory,
            "shm_size": stage.shared_memory,
            "scratch_size": stage.scratch,
        }
        if stage.gpus:
            variables["gpus"] = stage.gpus
        if placement.node_selector:
            variables["node_selector"] = placement.node_selector
        if placement.tolerations and stage.gpus:  # a node with GPUs is not for a run without
            variables["tolerations"] = [taint.manifest() for taint in placement.tolerations]
        return variables


def make_target(name: TargetName | None, pool: str, resources: Resources, executor: str = "") -> Target:
    """The target, with the store that CRAWL2CHAT_STORE names. Raises UserError where the two do not fit."""
    where = os.environ.get(STORE) or DEFAULT_STORE
    is_remote = "://" in where
    where = where if is_remote else str(Path(where).absolute())
    if redact_url(where) != where:
        raise UserError(
            f"the store {redact_url(where)} has a secret in its URL, which every deployment would show: remove it, and give the "
            "workers credentials by environment (infra/README.md)"
        )
    if name == "kubernetes" and not is_remote:
        raise UserError(
            f"the store {where} is a folder of this machine: name one that pods reach, CRAWL2CHAT_STORE=s3://BUCKET"
        )
    if name == "ray" and not executor:
        raise UserError("the target ray needs the address of a cluster: --executor ray://HEAD:10001")
    if executor and not executor.startswith("ray:"):
        raise UserError(
            f"--executor {executor!r} is not the address of a Ray cluster: give ray:auto or ray://HEAD:10001"
        )
    return Target(name=name, pool=pool, resources=resources, store=where, executor=executor)


def job_template(name: TargetName) -> Variables:
    """The base job template of a target's pools."""
    template: Variables = yaml.safe_load((INFRA / name / "job_template.yaml").read_text(encoding="utf-8"))
    return template
