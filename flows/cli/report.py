"""`crawl2chat report`: print the report card of the last run, or its highlights, or write it as a page or into a Markdown file."""

import json
import re
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from flows.cli.console import RecipeOption, console, recipe_name, say
from model.errors import UserError
from tasks.artifacts.files import write_atomically
from tasks.artifacts.manifest import Report
from tasks.artifacts.store import Store
from tasks.evaluate.attacks import attacks_section
from tasks.evaluate.card_page import render_page
from tasks.evaluate.highlights import highlights
from tasks.markdown import Figures, replace_section, size


def attacks_on(card: Report, recipe: str, store: Store) -> Figures:
    """The figures of the attacks on the models of a card; empty where none were run, or on another base model."""
    try:
        found = store.open(store.latest(recipe, "attacks"), Report)
    except UserError:
        return {}
    if found.manifest.inputs.get("base") != card.manifest.inputs.get("base"):
        return {}
    figures: Figures = json.loads((found.folder / "report.json").read_text(encoding="utf-8"))
    return figures


def report(
    name: Annotated[str, typer.Argument(metavar="[RECIPE]", help="The recipe, instead of --recipe.")] = "",
    recipe: RecipeOption = "tiny",
    html: Annotated[str, typer.Option(metavar="FILE", help="Write it as one HTML file, with pictures.")] = "",
    into: Annotated[
        str, typer.Option(help="Write it into this Markdown file, between <!-- card --> and <!-- /card -->.")
    ] = "",
    is_brief: Annotated[
        bool, typer.Option("--brief", help="Print a dozen lines: the funnel, key figures, one exchange.")
    ] = False,
) -> None:
    """Print the report card of the last run, or write it as a page."""
    store = Store.default()
    if sum(map(bool, (html, into, is_brief))) > 1:
        raise UserError("--html, --into and --brief each say what to do with the card: give one of them")
    opened = store.open(store.latest(recipe_name(name) if name else recipe, "evaluate"), Report)
    folder = opened.folder
    card = (folder / "report.md").read_text(encoding="utf-8")
    figures = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    if found := attacks_on(opened, recipe_name(name) if name else recipe, store):
        # After the card of the run, whose file stays as its stage wrote it.
        figures |= found
        card = f"{card}\n{attacks_section(found)}"
    if html:
        # Made again and not copied: a card of an older version has no page, or an older one.
        path = Path(html).expanduser()
        write_atomically(path, render_page(figures, f"Report card: {opened.manifest.id}"))
        say(f"{path}: the report card of {opened.manifest.id}, {size(path.stat().st_size)}; open it in a browser")
    elif is_brief:
        console.print(highlights(figures), highlight=False, soft_wrap=True, markup=False)
    elif into:
        # One level down: the card becomes a section of the file that it is written into. Its own title is the first
        # line, and is left out.
        below_heading = re.sub("^##", "###", card.partition("\n")[2], flags=re.MULTILINE).strip()
        replace_section(Path(into).expanduser(), "card", below_heading)
    else:
        console.print(Markdown(card))
