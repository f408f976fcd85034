"""Rendering infra/: manifests, chart values, units and scripts with the resources of infra/resources.yaml filled in.

Reads infra/TARGET/ and the resources; writes one folder. A file of infra/ whose name ends in `.j2` is a Jinja template; the others are
taken as they are, base job templates as JSON, which `prefect work-pool create --base-job-template` reads. The variables of the
templates are in `values`. What training over several nodes needs comes from the same plan as `crawl2chat plan`.
"""

import getpass
import importlib.metadata
import json
import math
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from flows.resources import HOME, INFRA, POOL_NAMES, DeploymentName, Resources, num_bytes
from flows.targets import SCRATCH, Target
from model.config import Config
from model.errors import UserError
from model.nodes import DEFAULT_PORT
from model.planning.plan import Fit, best, fits, parse_gpus
from model.planning.presets import preset as find_preset

RENDERED = ("process", "docker", "kubernetes", "ray", "slurm")
JOB_TEMPLATE = "job_template.yaml"
TEMPLATE_SUFFIX = ".j2"
DATA_STAGES: tuple[DeploymentName, ...] = ("ingest", "filter", "dedup", "tokenizer", "tokenize")


class Training(Config):
    """A training run over several nodes. `settings`: options of `crawl2chat run`."""

    recipe: str
    num_nodes: int
    gpus_per_node: int
    settings: list[str]


def plan_training(recipe: str, preset: str, gpus: str, resources: Resources) -> Training:
    """The nodes and settings that a plan proposes. Raises UserError where nothing fits."""
    chosen, hardware = find_preset(preset), parse_gpus(gpus)
    way = best(fits(chosen.model, chosen.train, hardware))
    if way is None:
        raise UserError(f"{preset} does not fit on {gpus}: `crawl2chat plan {preset} --gpus {gpus}` shows why")
    gpus_per_node = min(hardware.num, resources.stages["pretrain"].gpus or hardware.num)
    if hardware.num % gpus_per_node:
        raise UserError(
            f"{gpus} are no whole nodes of {gpus_per_node} GPUs: change either, or pretrain's gpus in the resources"
        )
    return Training(
        recipe=recipe,
        num_nodes=hardware.num // gpus_per_node,
        gpus_per_node=gpus_per_node,
        settings=settings_of(way, hardware.num),
    )


def node_command(training: Training, rank: int) -> str:
    """What node `rank` of a training runs, in lines for a shell. NODE0 stands for the first node's address."""
    variables = {
        "PET_NNODES": training.num_nodes,
        "PET_NODE_RANK": rank,
        "PET_NPROC_PER_NODE": training.gpus_per_node,
        "PET_RDZV_ENDPOINT": f"NODE0:{DEFAULT_PORT}",
    }
    lines = [
        " ".join(f"{name}={value}" for name, value in variables.items()),
        f"crawl2chat run {shlex.quote(training.recipe)} --only pretrain",
        *(f"  --set {shlex.quote(setting)}" for setting in training.settings),
    ]
    return " \\\n    ".join(lines)


def settings_of(way: Fit, num_ranks: int) -> list[str]:
    """The settings of pretrain for one way to fit a model on the GPUs."""
    train = {
        "num_ranks": num_ranks,
        "zero_stage": way.zero_stage,
        "microbatch_sequences": way.microbatch_sequences,
        "activation_checkpointing": str(way.activation_checkpointing).lower(),
    }
    return [f"pretrain.train.{name}={value}" for name, value in train.items()]


def render(target: str, folder: Path, values: dict[str, Any]) -> list[Path]:
    """Write the files of a target into a folder. Returns them. Raises UserError where there is no such target."""
    if target not in RENDERED:
        raise UserError(f"there is nothing to render for {target!r}: take one of {', '.join(RENDERED)}")
    source = INFRA / target
    environment = Environment(  # noqa: S701 - no HTML; values are checked by the patterns of flows/resources.py or written as JSON
        loader=FileSystemLoader(source),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"json": json.dumps, "shell": shlex.quote}
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for path in sorted(source.iterdir()):
        if path.name == JOB_TEMPLATE:
            written.append(folder / "job_template.json")
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            written[-1].write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        elif path.suffix == TEMPLATE_SUFFIX:
            template = environment.get_template(path.name)
            for name, more in _instances(path.name.removesuffix(TEMPLATE_SUFFIX), values):
                written.append(folder / name)
                written[-1].write_text(template.render(values | more), encoding="utf-8")
        elif path.is_file():
            written.append(folder / path.name)
            shutil.copyfile(path, written[-1])
    return written


def _instances(name: str, values: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The files that a template makes: one, or one for each pool where its name has POOL."""
    if "POOL" not in name:
        return [(name, {})]
    return [
        (name.replace("POOL", pool), {"pool": pool, "pool_name": values["pool_names"][pool]}) for pool in POOL_NAMES
    ]


def values_of(target: Target, training: Training, api_url: str, namespace: str) -> dict[str, Any]:
    """What the templates may use."""
    resources = target.resources
    data = [resources.stages[stage] for stage in DATA_STAGES]
    prefix = f"{target.pool}-{target.name or 'process'}"
    return {
        "resources": resources,
        "pool_names": {pool: f"{prefix}-{pool}" for pool in POOL_NAMES},
        "training": training,
        "pretrain": resources.stages["pretrain"],
        "pretrain_megabytes": num_bytes(resources.stages["pretrain"].memory) // 2**20,
        "pretrain_image": resources.image("pretrain"),
        "placement": resources.placement("pretrain"),
        "data_image": resources.image("ingest"),
        "data_cpu": math.ceil(max(stage.cpu for stage in data)),
        "data_memory": max((stage.memory for stage in data), key=num_bytes),
        "data_scratch": max((stage.scratch for stage in data), key=num_bytes),
        "data_placement": resources.placement("ingest"),
        "store": target.store,
        "scratch": SCRATCH,
        "namespace": namespace,
        "api_url": api_url,
        "prefect_version": importlib.metadata.version("prefect"),
        "ray_version": _pinned("ray"),
        "home": HOME,
        "bin": Path(sys.prefix) / "bin",
        "user": getpass.getuser(),
    }


def _pinned(package: str) -> str:
    """The version of a package in requirements.lock: that of the images, whether or not it is installed here."""
    lines = (HOME / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{package}=="))
