"""`crawl2chat run`: run the stages of a recipe. Reads and writes the store; shows the report card and the damaged input files."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Annotated, Any

import typer
from rich.markdown import Markdown

from flows import recipe_files
from flows.checks import check_run, state
from flows.cli.console import (
    BaseModelOption,
    InputOption,
    MaxFilesOption,
    RecipeArgument,
    SetOption,
    console,
    errors,
    found,
    say,
)
from flows.prefect_server import Server
from flows.recipes import RECIPES, Recipe, StageName, make_recipe
from model.errors import UserError
from model.files import read_lines
from model.nodes import Node, this_node
from tasks.artifacts.manifest import Artifact, Checkpoint
from tasks.artifacts.step import Step
from tasks.artifacts.store import Store
from tasks.execution.reporter import reporting
from tasks.execution.runner import execute, join_training, up_to_date

DAMAGED_FILES = 3  # exit status
SHOWN_FILES = 20
NEXT = """
What to do next
  crawl2chat chat{whose}                              talk with the model
  crawl2chat serve {recipe}                        a web page to try it, at http://127.0.0.1:8000
  crawl2chat complete "The river"{whose}              let the base model continue a text
  crawl2chat run {again} --force sft              run one stage again
  crawl2chat run {elsewhere} --input 'my/*.warc.gz'   your own web archive files
  prefect server start                         the UI of the runs, at http://127.0.0.1:4200
"""


def run(
    recipe: RecipeArgument = "tiny",
    inputs: InputOption = [],
    max_files: MaxFilesOption = 0,
    start: Annotated[str, typer.Option("--from", help="First stage to run; earlier artifacts must exist.")] = "",
    until: Annotated[str, typer.Option(help="Last stage to run.")] = "",
    only: Annotated[str, typer.Option(help="The only stage to run.")] = "",
    force: Annotated[list[str], typer.Option(help="Run this stage even if it is up to date. May be repeated.")] = [],
    settings: SetOption = [],
    base_model: BaseModelOption = "",
) -> None:
    """Run the stages of a recipe. A stage that is up to date is skipped."""
    node = this_node()
    shaping: dict[str, Any] = {"inputs": inputs, "max_files": max_files, "settings": settings, "base_model": base_model}
    made = make_recipe(recipe, **shaping)
    if node and not node.is_first:
        join_stage(made, node, start, until, only, force)
        return
    # As soon as the recipe is right: the server starts in its process while this one imports the flows.
    server = Server()
    from flows.cli.terminal import Terminal
    from flows.pipeline import dag, pipeline, planned, select

    names = select(start, until, only, force)
    planned_steps = dag(made)
    steps, store = planned_steps.by_stage(), Store.default()
    # A mistake in the last stage's input is found before the first stage runs, and before the server is waited for.
    if check_run(steps, names, force, made.name, store):
        bounds: dict[str, Any] = {"start": start, "until": until, "only": only, "force": force}
        with Terminal(console) as terminal, reporting(terminal), planned(planned_steps):
            if server.process is not None:  # it takes seconds to start, on another core
                make_first_sources(steps, names, force, made.name, store)
            with server.used():
                # Only JSON goes through the flow's parameters; `planned` hands over the steps themselves.
                pipeline(**as_parameters(recipe, made, shaping), **bounds, runs_deployments=False)
    else:
        what = f"{len(names)} stages of recipe {made.name} are" if len(names) > 1 else f"{names[0]} of {made.name} is"
        say(f"{what} up to date, nothing to run.")
    # After the server has ended: what is printed here needs the store alone.
    finish(steps, names, made.name, store)
    if names[-1] in ("evaluate", "export"):
        say_next(recipe, made.name, **shaping)
    if names[0] == "ingest":
        report_damage(store.open(steps["ingest"].id, Artifact))


def join_stage(recipe: Recipe, node: Node, start: str, until: str, only: str, force: list[str]) -> None:
    """Run this node's ranks of the one training stage that is named, which the first node runs. No server, no lease, no artifact."""
    from flows.pipeline import dag, select

    names = select(start, until, only, force)
    step, store = dag(recipe).by_stage()[names[0]], Store.default()
    if len(names) > 1 or not issubclass(step.kind, Checkpoint):
        raise UserError(
            f"PET_NODE_RANK={node.rank}: this node runs ranks alone, name the training stage of the first one: --only pretrain"
        )
    if not force and up_to_date(step, store):
        say(f"{names[0]} of {recipe.name} is up to date, nothing to run.")
        return
    try:
        join_training(step, store, node)
    except RuntimeError as error:  # what went wrong stands in the first node's log: no traceback of this end
        errors.print(str(error), style="red", highlight=False, soft_wrap=True, markup=False)
        raise typer.Exit(1) from None
    say(f"the training of {step.id} has ended; the first node writes the artifact.")


def make_first_sources(
    steps: Mapping[StageName, Step[Artifact]],
    names: Sequence[StageName],
    force: Sequence[str],
    recipe_name: str,
    store: Store,
) -> None:
    """Make the sources of the first stage that are made of no artifact, such as the sample web, if the stage is to run."""
    from flows.launch import imported

    first = steps[names[0]]
    if names[0] in force or state(first, recipe_name, store) != "up to date":
        for _, source in imported(first):
            execute(source, store)


def as_parameters(source: str, recipe: Recipe, shaping: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe as parameters of a flow: a built-in one by name and what differs, any other as a whole text."""
    if source in RECIPES:
        return {"recipe": source, **shaping}
    # A file's path means nothing to the server or to a later reader of the run; its text does, with what it extends
    # already in it.
    return {"recipe_yaml": recipe_files.write(recipe, comments=False)}


def finish(
    steps: Mapping[StageName, Step[Artifact]], names: Sequence[StageName], recipe_name: str, store: Store
) -> None:
    """Make the artifacts the latest of the recipe. Show the report card, or how to see what the last stage made."""
    # Also the skipped ones: after a change and back, the older artifacts are the latest again.
    for name in names:
        store.set_latest(recipe_name, found(store, steps[name].id))
    if names[-1] in ("evaluate", "export"):
        report = store.open(steps["evaluate"].id, Artifact).folder / "report.md"
        console.print(Markdown(report.read_text(encoding="utf-8")))
    else:
        say(f"`crawl2chat show {steps[names[-1]].id}` shows what the last stage made.")


def say_next(
    source: str, recipe_name: str, inputs: Iterable[str], max_files: int, settings: Iterable[str], base_model: str
) -> None:
    """Print commands that continue from this run: with its settings, and with its input where they do not name another."""
    given = [("--set", setting) for setting in settings] + [("--base-model", base_model)] * bool(base_model)
    read = [("--input", path) for path in inputs] + [("--max-files", str(max_files))] * bool(max_files)
    elsewhere, again = (shlex.join([source, *chain.from_iterable(options)]) for options in (given, given + read))
    whose = "" if recipe_name == "tiny" else f" --recipe {recipe_name}"
    say(NEXT.format(again=again, elsewhere=elsewhere, whose=whose, recipe=recipe_name))


def report_damage(documents: Artifact) -> None:
    """Name the damaged places of input files. A file that is only cut off in its last record is no failure."""
    path = documents.folder / "errors.jsonl"
    damaged = read_lines(path)
    for place in damaged[:SHOWN_FILES]:
        line = "{file}: skipped {bytes} damaged bytes at offset {offset}: {error}".format(**place)
        errors.print(line, highlight=False, soft_wrap=True, markup=False)
    if len(damaged) > SHOWN_FILES:
        errors.print(f"and {len(damaged) - SHOWN_FILES} more: {path}", highlight=False, soft_wrap=True, markup=False)
    # Also when ingest was skipped: damage found by an earlier run is still in these documents.
    if documents.manifest.counts["files_with_errors"]:
        raise typer.Exit(DAMAGED_FILES)
