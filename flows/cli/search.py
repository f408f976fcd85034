"""`crawl2chat search`: full-text search over the documents that a run kept. Reads the store."""

from typing import Annotated

import typer
from rich.markup import escape

from flows.cli.console import RecipeArgument, console, recipe_name
from model.errors import UserError
from tasks.artifacts.manifest import Index
from tasks.artifacts.store import Store
from tasks.records.full_text import FullTextIndex
from tasks.records.samples import redacted_url


def search(
    recipe: RecipeArgument,
    words: Annotated[str, typer.Argument(help="The words to find; a document with any of them is found.")],
    num: Annotated[int, typer.Option(min=1, max=100, help="How many documents are shown.")] = 5,
) -> None:
    """Find documents of a run by words, the best first."""
    found = open_index(recipe_name(recipe)).search(words, num)
    if not found:
        raise UserError(f"no document of recipe {recipe} has any of the words {words[:80]!r}: try others")
    for number, hit in enumerate(found, 1):
        console.print(
            f"{number}. [bold]{escape(redacted_url(hit.record.url))}[/]  {hit.score:.2f}",
            highlight=False,
            soft_wrap=True,
        )
        console.print(f"   {escape(hit.passage)}", highlight=False)


def open_index(recipe: str) -> FullTextIndex:
    """The latest index of a recipe. Raises UserError where the stage has not run."""
    store = Store.default()
    return FullTextIndex(store.open(store.latest(recipe, "index"), Index).folder / "index.sqlite")
