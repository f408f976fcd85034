"""The ablation study: one setting with several values, several seeds each, at equal training tokens (tasks/evaluate/ablation.py).

Reads a recipe and evaluation tasks; writes the data stages and a tokenizer, and for each arm and seed a base model with its scores, and a
Report. All arms share the first one's tokenizer, unless the setting is of the tokenizer. Documents that contain a part of the tasks' files are
dropped from every arm. Deployed, the arms run at the same time, as far as there are workers: their data stages first, then their trainings.
"""

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows import recipe_files
from flows.cancellation import cancellable
from flows.checks import check_inputs
from flows.launch import make, run_deployed, run_here
from flows.pipeline import dag
from flows.recipes import Recipe, RecipeName, make_recipe, overlaid
from flows.stage_run import Summary, run_name
from model.errors import UserError
from tasks.artifacts.manifest import Artifact, Report, Tokenizer
from tasks.artifacts.step import Step
from tasks.artifacts.store import Store
from tasks.evaluate.ablation import AblationConfig, Arm, ablation
from tasks.evaluate.eval_tasks import EvalTask
from tasks.evaluate.scores import ScoresConfig, scores, task_files
from tasks.evaluate.seeds import SEEDS
from tasks.pretrain.open_weights import open_weights
from tasks.pretrain.stage import more_tokens, pretrain
from tasks.tokenizer.encode import tokenize

Planned = tuple[Step[Artifact], Recipe]  # a step, and the recipe whose settings it has


class ArmPlan(NamedTuple):
    """What runs for one arm: the data stages; then tokens, models and scores."""

    data: list[Planned]
    training: list[Planned]
    scores: list[Step[Report]]


class Study(NamedTuple):
    """The arms, the tokenizer that they share, and the report about them."""

    arms: list[ArmPlan]
    tokenizer: Planned | None
    report: Step[Report]


def split_values(setting: str) -> tuple[str, list[str]]:
    """STAGE.FIELD=A,B,C as the field and its values; a comma within brackets or quotes separates none. Raises UserError."""
    path, equals, text = setting.partition("=")
    values, depth, is_quoted = [""], 0, False
    for character in text:
        is_quoted ^= character == '"'
        depth += 0 if is_quoted else (character in "[{") - (character in "]}")
        if character == "," and not depth and not is_quoted:
            values.append("")
        else:
            values[-1] += character
    values = [value.strip() for value in values]
    if not equals or "." not in path or len(values) < 2 or "" in values or len(set(values)) < len(values):
        raise UserError(
            f"{setting!r} names no arms: write STAGE.FIELD=VALUE,VALUE with different values, such as "
            "ingest.extractor=trafilatura,resiliparse"
        )
    return path.strip(), values


def study(
    recipe: Recipe, setting: str, values: Sequence[str], seeds: Sequence[int], tasks: Sequence[EvalTask]
) -> Study:
    """The study of a recipe. Raises UserError where an arm has other training tokens, or there is nothing to compare the arms by."""
    if not tasks:
        raise UserError(
            "nothing to compare the arms by: give text that no arm trains on, --held-out NAME=FILE, or --tasks FILE"
        )
    if len(set(seeds)) < len(seeds) or not seeds:
        raise UserError(f"the seeds {', '.join(map(str, seeds))} are not all different: name each once")
    arms = _arm_recipes(recipe, setting, values, tasks)
    check_equal_tokens(arms, values)
    shared = None if setting.startswith("tokenizer.") else dag(arms[0]).tokenizer
    planned = [_plan_arm(arm, shared, seeds, tasks) for arm in arms]
    config = AblationConfig(setting=setting, values=tuple(values), seeds=tuple(seeds))
    report = ablation([reported for _, reported in planned], config)
    return Study([plan for plan, _ in planned], (shared, arms[0]) if shared else None, report)


def _arm_recipes(recipe: Recipe, setting: str, values: Sequence[str], tasks: Sequence[EvalTask]) -> list[Recipe]:
    """The recipe of each arm, decontaminated against exactly the files that its models are scored by."""
    text = recipe_files.write(recipe, comments=False)
    made = [make_recipe("", settings=[f"{setting}={value}"], text=text) for value in values]
    eval_sets = [*recipe.dedup.eval_sets, *(task.path for task in tasks)]
    return [
        overlaid(arm, {"name": f"{recipe.name[:40]}-arm-{number}", "dedup": {"eval_sets": eval_sets}})
        for number, arm in enumerate(made)
    ]


def _plan_arm(
    recipe: Recipe, shared: Step[Tokenizer] | None, seeds: Sequence[int], tasks: Sequence[EvalTask]
) -> tuple[ArmPlan, Arm]:
    """What runs for one arm, and what the report reads of it. `shared`: the tokenizer of all arms; None: each trains one."""
    steps = dag(recipe)
    tokenizer = shared or steps.tokenizer
    tokens = tokenize(steps.dedup, tokenizer, recipe.tokenize)
    runs = [
        overlaid(recipe, {"name": f"{recipe.name}-seed-{seed}", "pretrain": {"train": {"seed": seed}}})
        for seed in seeds
    ]
    initial, mixture = open_weights(recipe.pretrain.initial_model), more_tokens(recipe.pretrain.mixture)
    bases = [pretrain(tokens, tokenizer, initial, mixture, run.pretrain) for run in runs]
    config = ScoresConfig(tasks=tuple(tasks), window_tokens=recipe.pretrain.train.sequence_tokens)
    scored = [scores(base, tokenizer, task_files(tasks), config) for base in bases]
    data: list[Planned] = [(step, recipe) for step in (steps.ingest, steps.filter, steps.dedup)]
    own: list[Planned] = [] if shared else [(tokenizer, recipe)]
    training: list[Planned] = [*own, (tokens, recipe), *zip(bases, runs, strict=True)]
    return ArmPlan(data, training, scored), Arm(steps.ingest, steps.filter, steps.dedup, bases, scored)


def check_equal_tokens(arms: Sequence[Recipe], values: Sequence[str]) -> None:
    """Raises UserError where the arms are not trained on the same number of tokens."""
    tokens = [arm.pretrain.train.num_steps * arm.pretrain.train.batch_tokens for arm in arms]
    if len(set(tokens)) > 1:
        each = ", ".join(f"{value}: {num:,}" for value, num in zip(values, tokens, strict=True))
        raise UserError(
            f"the arms are trained on different numbers of tokens ({each}): compare them with `crawl2chat compare`"
        )


@task(task_run_name="{label}", cache_policy=NO_CACHE)
def run_steps(label: str, steps: Sequence[Planned], runs_deployments: bool) -> list[Summary]:
    """Run steps one after the other, each as a run of its stage. What is up to date is skipped."""
    done: list[Summary] = []
    for step, recipe in steps:
        if runs_deployments:
            chosen = {"recipe": "tiny", "recipe_yaml": recipe_files.write(recipe, comments=False)}
            done.append(run_deployed(step, recipe, chosen, False, done[-1:]))
        else:
            done.append(run_here(step, recipe, False))
    return done


@flow(name="ablation", flow_run_name=run_name)
@cancellable
def ablation_study(
    recipe: RecipeName = "tiny",
    recipe_yaml: str = "",
    inputs: list[str] = [],
    max_files: int = 0,
    settings: list[str] = [],
    arms: str = "ingest.extractor=trafilatura,resiliparse,union",
    seeds: list[int] = list(SEEDS),
    tasks: list[str] = [],
    runs_deployments: bool = True,
) -> Summary:
    """Train a recipe's base model with several values of one setting, at equal tokens, and compare. Stages that are up to date are skipped.

    Args:
        recipe: The recipe.
        recipe_yaml: The text of a recipe file, instead of a recipe by name.
        inputs: Web archive files instead of the recipe's: paths, globs, URLs, cc:CRAWL.
        max_files: Read at most so many files; 0 reads all.
        settings: Changes to the recipe, as STAGE.FIELD=VALUE.
        arms: The setting and its values, STAGE.FIELD=VALUE,VALUE.
        seeds: The seeds of each arm's trainings.
        tasks: Held-out texts and evaluation tasks, each a JSON object with name, path, format and licence.
        runs_deployments: Run the stages through their deployments; else here, in this process.
    """
    made = make_recipe(recipe, inputs, max_files, settings, text=recipe_yaml)
    plan = study(made, *split_values(arms), seeds, [EvalTask.model_validate(json.loads(one)) for one in tasks])
    check_study(plan, Store.default())
    labelled = [(f"arm {number}", arm) for number, arm in enumerate(plan.arms)]
    _run_all([(f"{label}: data", arm.data) for label, arm in labelled], runs_deployments)
    if plan.tokenizer:
        run_steps("tokenizer", [plan.tokenizer], runs_deployments)
    trained = _run_all([(f"{label}: training", arm.training) for label, arm in labelled], runs_deployments)
    # In this process: a score is a few forwards of a small model.
    scored = [
        make.with_options(task_run_name=f"{label}: scores")(step, made.name, runs[-1:], sets_latest=False)
        for (label, arm), runs in zip(labelled, trained, strict=True)
        for step in arm.scores
    ]
    return make.with_options(task_run_name="report")(plan.report, made.name, scored)


def _run_all(groups: Iterable[tuple[str, Sequence[Planned]]], runs_deployments: bool) -> list[list[Summary]]:
    """Run the steps of every arm: at the same time where workers do it, one after the other in this process."""
    if not runs_deployments:
        return [run_steps(label, steps, False) for label, steps in groups]
    return [future.result() for future in [run_steps.submit(label, steps, True) for label, steps in groups]]


def check_study(plan: Study, store: Store) -> None:
    """Check the input files of all arms, and of the scores, before the first stage runs. Raises UserError."""
    for arm in plan.arms:
        for step in (*(step for step, _ in (*arm.data, *arm.training)), *arm.scores):
            check_inputs(step, store)
