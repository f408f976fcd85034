"""`crawl2chat gc`: lists what no kept run refers to, and removes it where asked. Reads the store, and writes it with --remove."""

from typing import Annotated

import typer
from rich.table import Table

from flows.cli.console import console, say
from tasks.artifacts.store import Store
from tasks.execution.garbage import DEFAULT_KEEP, find_garbage, remove_garbage


def gc(
    keep: Annotated[
        list[str],
        typer.Option(
            help="What is kept, with all that it was made of: `latest` of each recipe, artifacts younger than so many days (7d), "
            "or STAGE/FINGERPRINT. May be given several times; without it latest and 7d."
        ),
    ] = [],
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove what is listed. Without it nothing is changed.")
    ] = False,
) -> None:
    """List what no kept run refers to, and how many bytes it takes; remove it with --remove."""
    store = Store.default()
    removals = find_garbage(store, keep or DEFAULT_KEEP)
    table = Table("artifact", "files", "MB", "why", box=None)
    for removal in removals:
        table.add_row(removal.artifact_id, f"{len(removal.keys):,}", f"{removal.bytes / 1e6:,.3f}", removal.reason)
    if removals:
        console.print(table)
    num_bytes = sum(removal.bytes for removal in removals)
    if not remove:
        say(f"{num_bytes:,} bytes of {store.shown_url} could be removed; nothing was changed: add --remove")
        return
    say(f"removed {remove_garbage(store, removals):,} bytes of {store.shown_url}")
