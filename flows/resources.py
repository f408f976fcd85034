"""Resources: what a run of each deployment gets, wherever it runs.

Reads infra/resources.yaml, or a user's copy of it. Writes nothing. The units are Kubernetes' (a number of cores, `64Gi`), since its
manifests are the most particular; `num_bytes` converts them for Docker and Slurm. On a worker that starts plain processes
nothing enforces them: there they say which machine a stage needs.
"""

import re
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from flows import recipe_files
from flows.recipe_files import KeyPath
from flows.recipes import STAGE_NAMES, StageName
from model.config import Config

HOME = Path(__file__).parent.parent
INFRA = HOME / "infra"
RESOURCES_FILE = INFRA / "resources.yaml"

PoolName = Literal["data", "training", "evaluation"]
POOL_NAMES: tuple[PoolName, ...] = get_args(PoolName)
ImageName = Literal["data", "train", "serve"]  # the targets of docker/Dockerfile
DeploymentName = Literal["pipeline", StageName, "scaling", "seeds", "ablation", "attacks"]
DEPLOYMENT_NAMES: tuple[DeploymentName, ...] = get_args(DeploymentName)
# They start other deployments and wait for them.
STARTERS: tuple[DeploymentName, ...] = tuple(name for name in DEPLOYMENT_NAMES if name not in STAGE_NAMES)

UNITS = {"Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
Amount = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}(Mi|Gi|Ti)$")]
Label = Annotated[str, Field(pattern=r"^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$")]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$")]
# The grammar of the OCI distribution specification, a little stricter: what it accepts needs no quotes in a manifest or a shell.
ImageReference = Annotated[
    str, Field(pattern=r"^[a-z0-9][A-Za-z0-9._:/-]{0,250}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$")
]


class Toleration(Config):
    """A taint of nodes that a run may be placed on in spite of it."""

    key: Label
    operator: Literal["Exists", "Equal"] = "Exists"
    value: LabelValue = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = "NoSchedule"

    def manifest(self) -> dict[str, str]:
        """As a pod's specification has it: no value where none is compared."""
        return {name: value for name, value in self.model_dump().items() if value}


class Placement(Config):
    """Which nodes runs are placed on."""

    node_selector: dict[Label, LabelValue] = Field({}, description="Labels that a node must have.")
    tolerations: list[Toleration] = Field([], description="Taints of nodes that are accepted.")


class PoolResources(Placement):
    """What the runs of a work pool share."""

    image: ImageName = Field(description="The image, one of `images`.")
    runs_at_once: int = Field(ge=1, le=10_000, description="Runs of stages at the same time, over all workers.")


class StageResources(Placement):
    """What a run of one deployment gets. Empty placement and image: those of its pool."""

    pool: PoolName = Field(description="The work pool.")
    cpu: float = Field(ge=0.1, le=1024, description="Cores.")
    memory: Amount = Field(description="Memory, also the limit: a run that needs more is killed.")
    gpus: int = Field(0, ge=0, le=16, description="GPUs of one node.")
    shared_memory: Amount = Field("64Mi", description="Size of /dev/shm, for NCCL and data loaders; counts as memory.")
    scratch: Amount = Field("10Gi", description="Local disk for the copies of a remote store's artifacts.")
    image: ImageName | None = Field(None, description="The image, if not that of the pool.")


class Resources(Config):
    """The whole file."""

    images: dict[ImageName, ImageReference]
    pools: dict[PoolName, PoolResources]
    stages: dict[DeploymentName, StageResources]

    @model_validator(mode="after")
    def _names_all(self) -> Self:
        for what, names, needed in (
            ("images", self.images, get_args(ImageName)),
            ("pools", self.pools, POOL_NAMES),
            ("stages", self.stages, DEPLOYMENT_NAMES),
        ):
            if missing := [name for name in needed if name not in names]:
                raise ValueError(f"{what} has no {missing[0]}: add it")
        return self

    def image(self, name: DeploymentName) -> str:
        """The reference of the image that runs a deployment."""
        stage = self.stages[name]
        return self.images[stage.image or self.pools[stage.pool].image]

    def placement(self, name: DeploymentName) -> Placement:
        """Where runs of a deployment are placed."""
        stage = self.stages[name]
        pool = self.pools[stage.pool]
        return Placement(
            node_selector=stage.node_selector or pool.node_selector, tolerations=stage.tolerations or pool.tolerations
        )


def load_resources(path: Path | None = None) -> Resources:
    """The resources of a file. Raises UserError with the file and line of what is wrong."""
    text = recipe_files.read(path or RESOURCES_FILE)
    return recipe_files.validated(Resources, text.values, text, _meant)


def num_bytes(amount: str) -> int:
    """An amount in bytes."""
    number, unit = re.fullmatch(r"(\d+)(\D+)", amount).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


def _meant(path: KeyPath) -> str:
    """What an unknown key may have been meant to be: one of the keys that are known there."""
    kinds: dict[str, type[Config]] = {"pools": PoolResources, "stages": StageResources, "": Resources}
    kind = kinds.get(path[0] if len(path) > 1 else "")
    return recipe_files.similar(path[-1], list(kind.model_fields) if kind else [])
