"""Scores: one base model on held-out texts and evaluation tasks. A part of the ablation study (ablation.py).

Reads a BaseModel, its Tokenizer and the files of the tasks (eval_tasks.py), copied into the store; writes a Report: `report.json` with a score and
an interval for each task, its licence and the hash of its file. Cost: a forward of each text.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from model.config import Config
from tasks.artifacts.files import write_atomically
from tasks.artifacts.manifest import BaseModel, Report, Resource, Tokenizer
from tasks.artifacts.step import Outcome, Step, roles
from tasks.evaluate.eval_tasks import EvalTask, load_task
from tasks.evaluate.item_scores import score_task
from tasks.execution.context import StageContext
from tasks.markdown import Figures
from tasks.resources import resource
from tasks.training import check_vocabulary, load_language_model

VERSION = 1


class ScoresConfig(Config):
    """Which tasks, and how a model reads them."""

    tasks: tuple[EvalTask, ...] = Field(min_length=1, description="The tasks, in the order of their files.")
    window_tokens: int = Field(
        256, ge=2, description="Texts are read in windows of so many tokens; contexts are cut to them."
    )
    batch_sequences: int = Field(32, ge=1, description="Sequences in a batch.")


@dataclass(frozen=True)
class ScoresInputs:
    """A model, its tokenizer, and the file of each task."""

    base: BaseModel
    tokenizer: Tokenizer
    files: tuple[Resource, ...]


def task_files(tasks: Sequence[EvalTask]) -> list[Step[Resource]]:
    """The steps that copy the files of tasks into the store."""
    return [resource(f"evaluation task {task.name}", task.path) for task in tasks]


def scores(
    base: Step[BaseModel], tokenizer: Step[Tokenizer], files: Sequence[Step[Resource]], config: ScoresConfig
) -> Step[Report]:
    """Score a base model on every task."""
    inputs = roles(base=base, tokenizer=tokenizer, files=files)
    return Step("scores", VERSION, Report, config, inputs, run=score_model, takes=ScoresInputs)


def score_model(ctx: StageContext, config: ScoresConfig, inputs: ScoresInputs) -> Outcome:
    """Score the model and write the figures."""
    from model.tokenizer.chat import ChatTokenizer

    check_vocabulary(inputs.base, inputs.tokenizer)
    tokenizer = ChatTokenizer.load(inputs.tokenizer.folder / "tokenizer.json")
    model = load_language_model(inputs.base)
    figures: Figures = {}
    for number, (task, copied) in enumerate(zip(config.tasks, inputs.files, strict=True), start=1):
        loaded = load_task(task, str(copied.files("files/*")[0]))
        score = score_task(model, tokenizer, loaded, config.window_tokens, config.batch_sequences)
        figures[task.name] = {"kind": loaded.kind, "licence": task.licence, "sha256": loaded.sha256, **score}
        ctx.progress(number, len(config.tasks), "tasks")
    write_atomically(ctx.folder / "report.json", json.dumps(figures, indent=1))
    values = {name: score.get("bits_per_byte", score.get("share", 0.0)) for name, score in figures.items()}
    return Outcome({"tasks": len(figures)}, values)
