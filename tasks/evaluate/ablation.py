"""An ablation: what a setting of the data stages does to the models trained on their output, at equal training tokens.

Reads, for each arm (a value of the setting), the documents of ingest, filter and dedup, and for each seed a base model with its scores
(scores.py). Writes a Report: `report.md`, `report.html`, `report.json`. The method is FineWeb's (Penedo et al. 2024,
https://arxiv.org/abs/2406.17557, section 3.1): models that differ in their data alone are trained on the same number of tokens, several
seeds each, and compared by scores that no arm has seen.

Departs from FineWeb: bits per byte of held-out texts by domain come first (as Paloma, Magnusson et al. 2023), since small models score near
chance on tasks; and all arms share the tokenizer of the first, so that a token is the same for all. An arm that keeps less text repeats
it more often, which the table of arms shows as epochs.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import Field

from model.config import Config
from tasks.artifacts.files import write_atomically
from tasks.artifacts.manifest import BaseModel, Documents, Report
from tasks.artifacts.step import Outcome, Step, roles
from tasks.evaluate.ablation_report import render_ablation, render_ablation_page
from tasks.evaluate.figures import documents_figures
from tasks.execution.context import StageContext
from tasks.markdown import Figures

VERSION = 1


class AblationConfig(Config):
    """What is compared."""

    setting: str = Field(description="The setting that differs: STAGE.FIELD.")
    values: tuple[str, ...] = Field(min_length=2, description="Its value in each arm.")
    seeds: tuple[int, ...] = Field(min_length=1, description="The seeds of the trainings of each arm.")


@dataclass(frozen=True)
class AblationInputs:
    """By arm: raw, clean and unique documents. By arm and seed, the seeds of an arm next to each other: model and scores."""

    raw: tuple[Documents, ...]
    clean: tuple[Documents, ...]
    unique: tuple[Documents, ...]
    bases: tuple[BaseModel, ...]
    scores: tuple[Report, ...]


class Arm(NamedTuple):
    """The steps of one arm: its documents, and a model with its scores for each seed."""

    raw: Step[Documents]
    clean: Step[Documents]
    unique: Step[Documents]
    bases: Sequence[Step[BaseModel]]
    scores: Sequence[Step[Report]]


def ablation(arms: Sequence[Arm], config: AblationConfig) -> Step[Report]:
    """Compare arms."""
    inputs = roles(
        raw=[arm.raw for arm in arms],
        clean=[arm.clean for arm in arms],
        unique=[arm.unique for arm in arms],
        bases=[base for arm in arms for base in arm.bases],
        scores=[scores for arm in arms for scores in arm.scores],
    )
    return Step("ablation", VERSION, Report, config, inputs, run=compare_arms, takes=AblationInputs)


def compare_arms(ctx: StageContext, config: AblationConfig, inputs: AblationInputs) -> Outcome:
    """Collect the figures of all arms and write the report."""
    figures = ablation_figures(config, inputs)
    report = render_ablation(figures)
    write_atomically(ctx.folder / "report.json", json.dumps(figures, indent=1))
    write_atomically(ctx.folder / "report.md", report)
    write_atomically(ctx.folder / "report.html", render_ablation_page(figures))
    ctx.markdown("report", report, f"Ablation of {config.setting}")
    return Outcome({"arms": len(config.values), "runs": len(inputs.bases)})


def ablation_figures(config: AblationConfig, inputs: AblationInputs) -> Figures:
    """Funnel, cost and training of each arm, and the scores of each task by arm and seed."""
    num = len(config.seeds)
    arms = []
    for place, value in enumerate(config.values):
        stages = (inputs.raw[place], inputs.clean[place], inputs.unique[place])
        bases = inputs.bases[place * num : (place + 1) * num]
        arms.append(
            {
                "value": value,
                "documents": documents_figures(stages),
                "data_seconds": sum(stage.manifest.provenance["wall_seconds"] for stage in stages),
                "ingest_seconds": stages[0].manifest.provenance["wall_seconds"],
                "train_seconds": sum(base.manifest.provenance["wall_seconds"] for base in bases),
                "tokens": [base.manifest.counts["tokens"] for base in bases],
                "epochs": bases[0].manifest.metrics["epochs"],
            }
        )
    scored = [json.loads((one.folder / "report.json").read_text(encoding="utf-8")) for one in inputs.scores]
    tasks = [
        {
            "task": task,
            "kind": score["kind"],
            "licence": score["licence"],
            "sha256": score["sha256"],
            "num": score["num"],
            "arms": [[run[task] for run in scored[place * num : (place + 1) * num]] for place in range(len(arms))],
        }
        for task, score in scored[0].items()
    ]
    return {"setting": config.setting, "seeds": list(config.seeds), "arms": arms, "tasks": tasks}
