"""The seeds study: one recipe trained several times with other random seeds, to see how far its figures are chance.

Reads a recipe, writes all artifacts of each run and a Report of their means and spreads (tasks/evaluate/seeds.py). Only the trainings
differ: order of the data, first weights, sampled completions. The data, the questions and what is held out are the same for all seeds,
so the stages up to tokenize run once.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from prefect import flow

from flows import recipe_files
from flows.cancellation import cancellable
from flows.checks import check_run
from flows.launch import make
from flows.pipeline import Steps, dag, pipeline, planned, select
from flows.recipes import Recipe, RecipeName, make_recipe, overlaid
from flows.stage_run import Summary, run_name
from tasks.artifacts.manifest import Report
from tasks.artifacts.step import Step
from tasks.artifacts.store import Store
from tasks.evaluate.seeds import SEEDS, SeedsConfig, compare_seeds

TRAININGS = ("pretrain", "sft", "reward", "rlhf")


class Study(NamedTuple):
    """The recipe and the steps of each run, and the report about them."""

    recipes: list[Recipe]
    runs: list[Steps]
    report: Step[Report]


def study(recipe: Recipe, seeds: Sequence[int] = SEEDS) -> Study:
    """The runs of a recipe with each seed. Raises UserError for less than two seeds, or one named twice."""
    recipes = [with_seed(recipe, seed) for seed in seeds]
    runs = [dag(one) for one in recipes]
    report = compare_seeds([run.evaluate for run in runs], SeedsConfig(seeds=tuple(seeds)))
    return Study(recipes, runs, report)


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    """The recipe with this seed for every training, under another name: its artifacts do not become the recipe's latest."""
    changes: dict[str, Any] = {stage: {"train": {"seed": seed}} for stage in TRAININGS}
    return overlaid(recipe, {"name": f"{recipe.name[:50]}-seed-{seed}", **changes})


@flow(name="seeds", flow_run_name=run_name)
@cancellable
def seeds_study(
    recipe: RecipeName = "lab",
    recipe_yaml: str = "",
    inputs: list[str] = [],
    max_files: int = 0,
    settings: list[str] = [],
    seeds: list[int] = list(SEEDS),
    runs_deployments: bool = True,
) -> Summary:
    """Train a recipe with several seeds, and report mean and spread of its figures. Stages that are up to date are skipped.

    Args:
        recipe: The recipe.
        recipe_yaml: The text of a recipe file, instead of a recipe by name.
        inputs: Web archive files instead of the recipe's: paths, globs, URLs, cc:CRAWL.
        max_files: Read at most so many files; 0 reads all.
        settings: Changes to the recipe, as STAGE.FIELD=VALUE.
        seeds: The seed of each run; two or more.
        runs_deployments: Run the stages through their deployments; else here, in this process.
    """
    made = make_recipe(recipe, inputs, max_files, settings, text=recipe_yaml)
    plan = study(made, seeds)
    check_study(plan, Store.default())
    cards = []
    for one, steps in zip(plan.recipes, plan.runs, strict=True):
        # By the whole text: the seeds are settings, and a built-in recipe's name would bring its latest artifacts' name.
        text = recipe_files.write(one, comments=False)
        with planned(steps):
            cards.append(pipeline(recipe_yaml=text, until="evaluate", runs_deployments=runs_deployments)["evaluate"])
    return make.with_options(task_run_name="report")(plan.report, made.name, cards)


def check_study(plan: Study, store: Store) -> None:
    """Check the inputs of every run before the first begins. Raises UserError."""
    for one, steps in zip(plan.recipes, plan.runs, strict=True):
        check_run(steps.by_stage(), select("", "evaluate", ""), (), one.name, store)
