"""`crawl2chat attacks`: attack a recipe's models before and after each mitigation. Reads and writes the store; shows the report."""

from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.markdown import Markdown

from flows.cli.console import RecipeArgument, SetOption, console, say
from flows.cli.run import as_parameters
from flows.prefect_server import Server
from flows.recipes import make_recipe
from model.config import explained
from model.errors import UserError
from tasks.artifacts.manifest import Artifact
from tasks.artifacts.store import Store
from tasks.execution.reporter import reporting
from tasks.execution.runner import up_to_date


def attacks(
    recipe: RecipeArgument = "tiny",
    settings: SetOption = [],
    num_seeds: Annotated[int, typer.Option("--seeds", min=1, max=100, help="Trainings of each arm.")] = 3,
    planted: Annotated[
        list[int],
        typer.Option(help="Planted pages that are near duplicates. May be repeated. Default: 1, 10, 100, 1000."),
    ] = [],
    drill: Annotated[
        list[str],
        typer.Option(
            metavar="FIELD=NUMBER", help="Another size: num_articles, pretrain_steps, sft_steps, num_prompts, ..."
        ),
    ] = [],
) -> None:
    """Plant pages, inject prompts and jailbreak the assistant, before and after each mitigation, and show how often each attack succeeds."""
    shaping: dict[str, Any] = {"settings": settings}
    made, store = make_recipe(recipe, **shaping), Store.default()
    server = Server()
    from flows.attacks import AttackSettings, attacks_study, check_study, study
    from flows.cli.terminal import Terminal

    changes: dict[str, Any] = dict(map(split_field, drill))
    if unknown := changes.keys() - AttackSettings.model_fields.keys():
        raise UserError(
            f"--drill {min(unknown)[:80]!r}: there is no such size: take {', '.join(AttackSettings.model_fields)}"
        )
    try:
        sizes = AttackSettings.model_validate(changes | ({"planted": planted} if planted else {}))
    except ValidationError as error:
        raise UserError(f"--drill, --planted: {explained(error)}") from None
    seeds = list(range(num_seeds))
    plan = study(made, seeds, sizes)
    # The report alone decides: its fingerprint contains those of all arms.
    if not up_to_date(plan.report, store):
        check_study(plan, store)
        parameters = as_parameters(recipe, made, shaping)
        with server.used(), Terminal(console) as terminal, reporting(terminal):
            attacks_study(**parameters, seeds=seeds, attack_settings=sizes, runs_deployments=False)
    folder = store.open(plan.report.id, Artifact).folder
    console.print(Markdown((folder / "report.md").read_text(encoding="utf-8")))
    say(f"The page: {folder / 'report.html'}. `crawl2chat report {made.name}` has the same section.")


def split_field(option: str) -> tuple[str, str]:
    """FIELD=NUMBER as a pair. Raises UserError."""
    field, equals, value = option.partition("=")
    if not equals:
        raise UserError(f"--drill {option[:80]!r}: write FIELD=NUMBER, such as num_prompts=50")
    return field.strip(), value.strip()
