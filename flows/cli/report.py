"""`crawl2chat report`: print the report card of the last run, or write it into a Markdown file."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from flows.cli.console import RecipeOption, console
from model.errors import UserError
from tasks.artifacts.files import write_atomically
from tasks.artifacts.manifest import Report
from tasks.artifacts.store import Store

CARD_START, CARD_END = "<!-- card -->", "<!-- /card -->"


def report(
    recipe: RecipeOption = "tiny",
    into: Annotated[
        str, typer.Option(help="Write it into this Markdown file, between <!-- card --> and <!-- /card -->.")
    ] = "",
) -> None:
    """Print the report card of the last run."""
    store = Store.default()
    card = (store.open(store.latest(recipe, "evaluate"), Report).folder / "report.md").read_text(encoding="utf-8")
    if not into:
        console.print(Markdown(card))
        return
    path = Path(into).expanduser()
    before, opening, rest = path.read_text(encoding="utf-8").partition(CARD_START)
    _, closing, after = rest.partition(CARD_END)
    if not opening or not closing:
        raise UserError(f"{into} has no lines {CARD_START} and {CARD_END}: put them where the card belongs")
    below_heading = re.sub("^##", "###", card.partition("\n")[2], flags=re.MULTILINE).strip()
    write_atomically(path, f"{before}{opening}\n\n{below_heading}\n\n{closing}{after}")
