"""`crawl2chat report`: print the report card of the last run, or its highlights, or write it into a Markdown file."""

import json
import re
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from flows.cli.console import RecipeOption, console
from tasks.artifacts.manifest import Report
from tasks.artifacts.store import Store
from tasks.evaluate.highlights import highlights
from tasks.markdown import replace_section


def report(
    recipe: RecipeOption = "tiny",
    into: Annotated[
        str, typer.Option(help="Write it into this Markdown file, between <!-- card --> and <!-- /card -->.")
    ] = "",
    is_brief: Annotated[
        bool, typer.Option("--brief", help="Print a dozen lines: the funnel, key figures, one exchange.")
    ] = False,
) -> None:
    """Print the report card of the last run."""
    store = Store.default()
    folder = store.open(store.latest(recipe, "evaluate"), Report).folder
    card = (folder / "report.md").read_text(encoding="utf-8")
    if is_brief:
        figures = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        console.print(highlights(figures), highlight=False, soft_wrap=True, markup=False)
    elif into:
        # One level down: the card becomes a section of the file that it is written into. Its own title is the first
        # line, and is left out.
        below_heading = re.sub("^##", "###", card.partition("\n")[2], flags=re.MULTILINE).strip()
        replace_section(Path(into).expanduser(), "card", below_heading)
    else:
        console.print(Markdown(card))
