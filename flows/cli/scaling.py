"""`crawl2chat scaling`: predict a recipe's final loss from smaller runs. Reads and writes the store; shows the report."""

from typing import Annotated, Any

import typer
from rich.markdown import Markdown

from flows.checks import check_run
from flows.cli.console import InputOption, MaxFilesOption, RecipeArgument, SetOption, console, say
from flows.cli.run import as_parameters
from flows.prefect_server import Server
from flows.recipes import make_recipe
from tasks.artifacts.manifest import Artifact
from tasks.artifacts.store import Store
from tasks.execution.reporter import reporting
from tasks.execution.runner import up_to_date
from tasks.scaling.stage import BUDGETS, SIZES


def scaling(
    recipe: RecipeArgument = "study",
    inputs: InputOption = [],
    max_files: MaxFilesOption = 0,
    settings: SetOption = [],
    sizes: Annotated[list[float], typer.Option("--size", help="Fraction of the recipe's model. Three or more.")] = list(
        SIZES
    ),
    budgets: Annotated[
        list[float], typer.Option("--budget", help="Fraction of the tokens it is trained on. Three or more.")
    ] = list(BUDGETS),
    is_checked: Annotated[
        bool, typer.Option("--check/--no-check", help="Train the predicted run too, and report the error.")
    ] = True,
) -> None:
    """Predict a recipe's final loss from smaller, shorter runs: a scaling law."""
    shaping: dict[str, Any] = {"inputs": inputs, "max_files": max_files, "settings": settings}
    made, store = make_recipe(recipe, **shaping), Store.default()
    # As soon as the recipe is right, and before the imports, which take as long as the server's start.
    server = Server()
    from flows.cli.terminal import Terminal
    from flows.pipeline import dag, planned, select
    from flows.scaling import scaling_study, study

    steps = dag(made)
    plan = study(made, steps, sizes, budgets)
    last = plan.report if is_checked else plan.forecast
    # The report alone decides: its fingerprint contains those of all runs that it is made of.
    if not up_to_date(last, store):
        # Up to pretrain: the study needs no later stage, and their inputs may be missing.
        check_run(steps.by_stage(), select("", "pretrain", ""), (), made.name, store)
        options: dict[str, Any] = {"sizes": sizes, "budgets": budgets, "is_checked": is_checked}
        with server.used(), Terminal(console) as terminal, reporting(terminal), planned(steps):
            scaling_study(**as_parameters(recipe, made, shaping), **options, runs_deployments=False)
    folder = store.open(last.id, Artifact).folder
    console.print(Markdown((folder / "report.md").read_text(encoding="utf-8")))
    say(f"The plot: {folder / 'scaling.svg'}")
