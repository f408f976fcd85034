"""`crawl2chat trace`: every capture of a URL, followed through the stages of the data half. Reads the store."""

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich.markup import escape

from flows.cli.console import RecipeOption, console
from model.errors import UserError
from tasks.artifacts.store import Store
from tasks.provenance.fates import Fate, find_fates
from tasks.records.samples import redacted_url


def trace(
    url: Annotated[str, typer.Argument(help="The URL of a page, as it was crawled.")],
    recipe: RecipeOption = "tiny",
) -> None:
    """Show what each stage did with a page: every capture of it, and the reason where it was dropped."""
    if not (captures := find_fates(url, recipe, Store.default())):
        raise UserError(f"no capture of {url} is in the latest crawl of recipe {recipe}: check the URL")
    for line in trace_lines(captures):
        console.print(line, highlight=False, soft_wrap=True)


def trace_lines(captures: Sequence[Sequence[Fate]]) -> Iterator[str]:
    """The fates as lines to print."""
    for fates in captures:
        first = fates[0].document
        yield f"[bold]{escape(redacted_url(first['url']))}[/] in {escape(first['file'])} at byte {first['offset']:,}"
        for fate in fates:
            size = f", {len(fate.document['text']):,} characters" if fate.is_kept else ""
            yield f"  {'[green]✓' if fate.is_kept else '[red]✗'}[/] {fate.stage:<9} {escape(fate.outcome)}{size}"
