"""`crawl2chat labels`: rankings that people gave in the page of `crawl2chat serve`. Reads and writes the file of feedback."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flows.cli.console import console
from model.errors import UserError
from model.files import write_lines
from tasks.artifacts.manifest import RewardModel, Tokenizer
from tasks.artifacts.store import Store
from tasks.conversations.formats.rankings import count_labels, ranking_preferences
from tasks.conversations.identity import content_hash, find_files, stated_format
from tasks.conversations.readers import read_files
from tasks.feedback.database import FILE, FeedbackFile
from tasks.feedback.guidelines import Guidelines
from tasks.feedback.labels import LabelBook
from tasks.records.conversations import Prompt, normal_form

if TYPE_CHECKING:
    from fastapi import APIRouter

    from model.serve.drafter import RewardDrafter

labels = typer.Typer(no_args_is_help=True, help="Rankings that people gave in the page of `crawl2chat serve`.")
FileOption = Annotated[
    str, typer.Option("--labels", help="The file of feedback; by default feedback.sqlite in the store.")
]


def feedback_path(named: str, store: Store) -> Path:
    """The file of feedback: the one that is named, else that of the store; with a remote store, that of this user."""
    if named:
        return Path(named).expanduser()
    if store.remote is None:
        return store.root / FILE
    # Not among the local copies of a remote store: these are removed when room is needed, and labels exist once.
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "crawl2chat" / FILE


def feedback_routers(store: Store, recipe: str, named: str, guidelines: str) -> "list[APIRouter]":
    """The rooms Rank and Arena of the server. The drafts come from the latest reward model of the recipe, if it has one."""
    from tasks.feedback.routes import feedback_router

    read = Guidelines.read(Path(guidelines).expanduser()) if guidelines else Guidelines.read()
    return [feedback_router(feedback_path(named, store), read, _drafter(store, recipe))]


def _drafter(store: Store, recipe: str) -> "RewardDrafter | None":
    from model.serve.drafter import RewardDrafter

    try:
        found = store.open(store.latest(recipe, "reward"), RewardModel)
        tokenizer = store.open(found.manifest.input("tokenizer"), Tokenizer)
    except UserError:
        return None  # a recipe without a reward model: people rank without drafts
    return RewardDrafter(found.manifest.id, found.folder, tokenizer.folder / "tokenizer.json")


def _open(named: str) -> LabelBook:
    path = feedback_path(named, Store.default())
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
        f"rankings: {counts['labels']:,}, people: {counts['people']:,}, pairs: {num_pairs:,}, sha256 {content_hash(output)[:12]}\n"
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
    book = LabelBook(FeedbackFile(feedback_path(file, Store.default())))
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
        f"rankings: {progress.labels:,}, people: {progress.people:,}, prompts: {progress.prompts:,}", highlight=False
    )
    if not agreed.num_prompts:
        console.print("No prompt is ranked by two people, so agreement is unknown.", highlight=False)
        return
    alpha = "unknown" if agreed.alpha is None else f"{agreed.alpha:.2f}"
    pairs = "none in common" if agreed.pairs is None else f"{agreed.pairs:.0%} ordered alike"
    console.print(
        f"{agreed.num_prompts:,} prompts ranked by several people: Krippendorff's alpha {alpha}; pairs: {pairs}",
        highlight=False,
        soft_wrap=True,
    )
