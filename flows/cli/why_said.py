"""`crawl2chat why-said`: where the words of a reply stand in the training data. Reads the store; makes the index on the first use."""

import json
import re
import sys
from typing import Annotated

import typer
from rich.markup import escape

from flows.cli.console import console, recipe_name, say
from model.errors import UserError
from tasks.artifacts.store import Store
from tasks.provenance.explanation import ExplainedSpan, Explanation, cut, explain, host, marked
from tasks.provenance.lineage import find_run, open_text_index, open_training_data
from tasks.provenance.training_data import Occurrence

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead, for scripts.")]
SHOWN_CHARACTERS = 2_000  # of a reply or a span on the terminal
STDIN = "-"
ARTIFACT = re.compile("[a-z_]+/[0-9a-f]{16}")  # and no recipe's file


def why_said(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE|MODEL", help="A recipe, whose newest model it was, or STAGE/FINGERPRINT.")
    ],
    reply: Annotated[str, typer.Argument(help='What the model said; "-" reads it from standard input.')],
    num: Annotated[int, typer.Option(min=1, max=100, help="How many spans are shown.")] = 5,
    num_places: Annotated[
        int, typer.Option(min=1, max=40, help="How many places of a span, of each kind of data.")
    ] = 2,
    as_json: JsonOption = False,
) -> None:
    """Show which training data a reply comes from: pages, conversations, preferences, prompts."""
    name = recipe if ARTIFACT.fullmatch(recipe) else recipe_name(recipe)
    text = read_text(reply)
    if not text.strip():
        raise UserError("the reply is empty: give the text that the model wrote")
    store = Store.default()
    run = find_run(store, name)
    found = explain(text, open_training_data(store, run), open_text_index(store, name, run), num, num_places)
    if as_json:
        say(json.dumps({"model": run.model.id, **found.as_json()}))
        return
    print_explanation(found)


def read_text(argument: str) -> str:
    """The text of an argument, or of standard input. What is no UTF-8 becomes U+FFFD."""
    if argument != STDIN:
        return argument
    # A bounded read: who pipes a video into the command gets its first characters explained.
    return sys.stdin.buffer.read(1_000_000).decode(errors="replace")


def print_explanation(found: Explanation) -> None:
    """Print the reply with what stands nowhere marked, then each span with its places."""
    parts = marked(found.reply.encode(), [(start, stop) for start, stop, _ in found.nowhere])
    shown = "".join(f"[red]{escape(part)}[/]" if is_nowhere else escape(part) for part, is_nowhere in parts)
    console.print(
        shown if len(found.reply) <= SHOWN_CHARACTERS else escape(cut(found.reply, SHOWN_CHARACTERS)), highlight=False
    )
    if found.is_cut:
        say(f"Only the first {len(found.reply):,} characters are explained.")
    say(found.summary())
    for number, span in enumerate(found.spans, 1):
        print_span(number, span)
    if found.in_other_words:
        console.print("\n[bold]Pages with the same words[/]", highlight=False)
        for place in found.in_other_words:
            print_place(place)


def print_span(number: int, found: ExplainedSpan) -> None:
    """Print a span, how often it stands, and where."""
    counts = ", ".join(f"{count:,} in {kind}" for kind, count in found.counts.items())
    console.print(
        f"\n[bold]{number}. “{escape(cut(found.span.text, SHOWN_CHARACTERS))}”[/]  {counts}",
        highlight=False,
        soft_wrap=True,
    )
    for place in found.occurrences:
        print_place(place)


def print_place(place: Occurrence) -> None:
    """Print where a text stands, and what stands around it."""
    if place.part:
        where = f"{place.source}: {place.artifact} {place.document}, {place.part}"
    else:
        where = f"{place.url}  {host(place.url)}, {place.date[:10]}, {place.file} at byte {place.offset:,}"
    console.print(f"   {escape(where)}", highlight=False, soft_wrap=True)
    console.print(f"      [dim]{escape(cut(' '.join(place.context.split()), 300))}[/]", highlight=False)
