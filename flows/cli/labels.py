"""`crawl2chat labels`: rankings that people gave in the page of `crawl2chat serve`. Reads and writes the file of feedback."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flows.cli.console import console
from model.errors import UserError
from model.files import write_lines
from tasks.artifacts.store import Store
from tasks.conversations.formats.rankings import count_labels, ranking_preferences
from tasks.conversations.identity import content_hash, find_files, stated_format
from tasks.conversations.readers import read_files
from tasks.feedback.database import FILE, FeedbackFile
from tasks.feedback.labels import LabelBook
from tasks.records.conversations import Prompt, normal_form

labels = typer.Typer(no_args_is_help=True, help="Rankings that people gave in the page of `crawl2chat serve`.")
FileOption = Annotated[
    str, typer.Option("--labels", help="The file of feedback; by default feedback.sqlite in the store.")
]


def feedback_path(named: str) -> Path:
    """The file of feedback: the one that is named, else that of the store. Raises UserError where the store is not a folder."""
    if named:
        return Path(named).expanduser()
    store = Store.default()
    if store.remote is not None:
        # The local copies of a remote store are removed when room is needed, and labels exist once.
        raise UserError(f"{store.shown_url} is no folder, and labels are kept in a file: name one with --labels")
    return store.root / FILE


def _open(named: str) -> LabelBook:
    path = feedback_path(named)
    if not path.is_file():
        raise UserError(f"there are no labels in {path}: rank in the page of `crawl2chat serve`, or name another file")
    return LabelBook(FeedbackFile(path))


@labels.command()
def export(
    output: Annotated[Path, typer.Argument(help="The JSON Lines file to write.")], file: FileOption = ""
) -> None:
    """Write all rankings, for `reward.preferences` of a recipe."""
    records = list(_open(file).export())
    if not records:
        raise UserError(
            f"nobody has ranked a prompt yet: open the room Rank of `crawl2chat serve`, then export {output}"
        )
    write_lines(output, records)
    counts, num_pairs = count_labels(records), sum(len(list(ranking_preferences(record))) for record in records)
    # highlight=False: a path is not coloured, so that it can be copied.
    console.print(
        f"{counts['labels']:,} rankings by {counts['people']:,} people, {num_pairs:,} pairs; sha256 {content_hash(output)[:12]}\n"
        f"crawl2chat run tiny --set reward.preferences={escape(str(output))} --until reward",
        highlight=False,
        soft_wrap=True,
    )


@labels.command()
def add(
    source: Annotated[str, typer.Argument(help="Prompts: a path, glob or URL of JSON Lines in any format of prompts.")],
    file: FileOption = "",
) -> None:
    """Put prompts into the queue of the room Rank."""
    name, place = stated_format(source)
    found = read_files(Prompt, find_files(place), name)
    book = LabelBook(FeedbackFile(feedback_path(file)))
    num_new = book.add_prompts(normal_form(prompt)["messages"] for prompt in found.records)
    console.print(
        f"{num_new:,} of {len(found.records):,} prompts are new in {escape(str(book.file.path))}", highlight=False
    )


@labels.command()
def show(file: FileOption = "") -> None:
    """Show how many prompts are ranked, and how far people agree."""
    book = _open(file)
    progress, agreed = book.progress(""), book.agreement()
    console.print(
        f"{progress.labels:,} rankings by {progress.people:,} people, of {progress.prompts:,} prompts", highlight=False
    )
    if not agreed.num_prompts:
        console.print("No prompt is ranked by two people, so agreement is unknown.", highlight=False)
        return
    alpha = "unknown" if agreed.alpha is None else f"{agreed.alpha:.2f}"
    pairs = "none in common" if agreed.pairs is None else f"{agreed.pairs:.0%} ordered alike"
    console.print(
        f"{agreed.num_prompts:,} prompts ranked by several people: Krippendorff's alpha {alpha}; pairs: {pairs}",
        highlight=False,
    )
