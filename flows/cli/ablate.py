"""`crawl2chat ablate`: what one setting does to the models, at equal training tokens. Reads and writes the store; shows the report."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markdown import Markdown

from flows.cli.console import InputOption, MaxFilesOption, RecipeArgument, SetOption, console, say
from flows.cli.run import as_parameters
from flows.prefect_server import Server
from flows.recipes import make_recipe
from model.errors import UserError
from tasks.artifacts.manifest import Artifact
from tasks.artifacts.store import Store
from tasks.evaluate.eval_tasks import EvalTask, load_task, read_tasks
from tasks.execution.reporter import reporting
from tasks.execution.runner import up_to_date

HELD_OUT_DOCUMENTS = 100  # of a text, evenly spread: its interval is then a per cent or so of its bits


def ablate(
    recipe: RecipeArgument,
    setting: Annotated[str, typer.Argument(metavar="STAGE.FIELD=VALUE,VALUE", help="The setting and its values.")],
    inputs: InputOption = [],
    max_files: MaxFilesOption = 0,
    settings: SetOption = [],
    num_seeds: Annotated[int, typer.Option("--seeds", min=1, max=100, help="Trainings of each arm.")] = 3,
    held_out: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=FILE", help="Text that no arm trains on: JSON Lines with text, or .txt. May be repeated."
        ),
    ] = [],
    tasks: Annotated[str, typer.Option(metavar="FILE", help="Evaluation tasks: a YAML list.")] = "",
) -> None:
    """Train with several values of one setting, at equal tokens and with several seeds, and compare the models."""
    shaping: dict[str, Any] = {"inputs": inputs, "max_files": max_files, "settings": settings}
    made, store = make_recipe(recipe, **shaping), Store.default()
    chosen = [*map(held_out_text, held_out), *(read_tasks(tasks) if tasks else [])]
    for task in chosen:
        load_task(task)  # a mistake in a file is found before the first stage runs
    server = Server()
    from flows.ablation import ablation_study, check_study, split_values, study
    from flows.cli.terminal import Terminal

    seeds = list(range(num_seeds))
    plan = study(made, *split_values(setting), seeds, chosen)
    # The report alone decides: its fingerprint contains those of all runs that it is made of.
    if not up_to_date(plan.report, store):
        check_study(plan, store)
        options: dict[str, Any] = {"arms": setting, "seeds": seeds, "tasks": [one.model_dump_json() for one in chosen]}
        with server.used(), Terminal(console) as terminal, reporting(terminal):
            ablation_study(**as_parameters(recipe, made, shaping), **options, runs_deployments=False)
    folder = store.open(plan.report.id, Artifact).folder
    console.print(Markdown((folder / "report.md").read_text(encoding="utf-8")))
    say(f"The page: {folder / 'report.html'}")


def held_out_text(option: str) -> EvalTask:
    """The task of an option NAME=FILE. Raises UserError."""
    name, equals, path = option.partition("=")
    if not equals or not path:
        raise UserError(f"--held-out {option!r}: write NAME=FILE, such as wikipedia=pages.jsonl.gz")
    located = path if "://" in path else str(Path(path).expanduser().resolve())
    try:
        return EvalTask(name=name, path=located, format="text", licence="not stated", limit=HELD_OUT_DOCUMENTS)
    except ValueError:
        raise UserError(f"--held-out {option!r}: {name!r} is no name: take letters, digits, dots and dashes") from None
