"""`crawl2chat seeds`: train a recipe with several seeds. Reads and writes the store; shows mean and spread of the report card's figures."""

from typing import Annotated, Any

import typer
from rich.markdown import Markdown

from flows.cli.console import InputOption, MaxFilesOption, RecipeArgument, SetOption, console
from flows.cli.run import as_parameters
from flows.prefect_server import Server
from flows.recipes import make_recipe
from tasks.artifacts.manifest import Artifact
from tasks.artifacts.store import Store
from tasks.evaluate.seeds import SEEDS
from tasks.execution.reporter import reporting
from tasks.execution.runner import up_to_date


def seeds(
    recipe: RecipeArgument = "lab",
    inputs: InputOption = [],
    max_files: MaxFilesOption = 0,
    settings: SetOption = [],
    seeds: Annotated[list[int], typer.Option("--seed", help="Seed of a run. Two or more.")] = list(SEEDS),
) -> None:
    """Train a recipe with several seeds, and show mean and spread of the report card's figures."""
    shaping: dict[str, Any] = {"inputs": inputs, "max_files": max_files, "settings": settings}
    made, store = make_recipe(recipe, **shaping), Store.default()
    server = Server()
    from flows.cli.terminal import Terminal
    from flows.seeds import check_study, seeds_study, study

    plan = study(made, seeds)
    # The report alone decides: its fingerprint contains those of all runs that it is made of.
    if not up_to_date(plan.report, store):
        check_study(plan, store)
        with server.used(), Terminal(console) as terminal, reporting(terminal):
            seeds_study(**as_parameters(recipe, made, shaping), seeds=seeds, runs_deployments=False)
    folder = store.open(plan.report.id, Artifact).folder
    console.print(Markdown((folder / "report.md").read_text(encoding="utf-8")))
