"""`crawl2chat why-not`: why a model does not know an answer. Reads the store; makes the index on the first use."""

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flows.cli.console import RecipeArgument, console, recipe_name, say
from flows.cli.why_said import JsonOption
from flows.recipes import make_recipe
from model.errors import UserError
from model.files import write_lines
from tasks.artifacts.manifest import Report
from tasks.artifacts.store import Store
from tasks.provenance.ask import ask_models
from tasks.provenance.explanation import cut
from tasks.provenance.lineage import Run, find_run, open_text_index, open_training_data
from tasks.provenance.spans import WORD
from tasks.provenance.stage import RECORDS
from tasks.provenance.why_not import Cause, Diagnosis, Evidence, command, diagnose, enough_mentions, search, teaching
from tasks.records.conversations import Question
from tasks.records.full_text import FullTextIndex

MAX_CHARACTERS = 2_000  # of a question or an answer
CAUSES: dict[Cause, str] = {
    "answered": "The model gives this answer.",
    "never_crawled": "It was never crawled: no document states it.",
    "dropped": "It was crawled, and a filter dropped it.",
    "duplicate": "It was dropped as a duplicate of a document that does not state it.",
    "refused": "The base model knows it, and the chat model says that it does not know.",
    "lost": "The base model knows it, and the chat model says something else: it was lost in fine-tuning.",
    "rare": "It is stated too rarely.",
    "unlearned": "It is stated often enough, and the base model has not learned it.",
}


def why_not(
    recipe: RecipeArgument,
    question: Annotated[str, typer.Argument(help="The question that the model does not answer.")],
    answer: Annotated[str, typer.Option(help="The right answer, as pages state it: a name or a few words.")],
    alias: Annotated[list[str], typer.Option(help="Another form of the answer. May be repeated.")] = [],
    teach: Annotated[
        str, typer.Option(help="Write conversations that give the answer to this new file, a source for fine-tuning.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Show why a model does not know an answer, from the crawl to the reply, and a command that would change it."""
    name = recipe_name(recipe)
    asked = checked(question, answer, alias)
    if teach and Path(teach).exists():
        raise UserError(f"{teach!r} exists already: name a new file for --teach")
    store = Store.default()
    run = find_run(store, name)
    evidence = open_evidence(store, name, run)
    stated = search(evidence, asked)
    if not stated.subjects:
        raise UserError(
            f"the question {question[:80]!r} names nobody and nothing: ask about a person, a place or a thing"
        )
    [replies] = ask_models(store, run, [asked], [stated.sentence])
    found = diagnose(evidence, asked, stated, replies)
    if teach:
        write_lines(Path(teach), teaching(found))
    remedy = proposed(recipe, found, teach)
    if as_json:
        say(json.dumps({"model": run.model.id, **found.as_json(), "command": remedy}))
        return
    print_diagnosis(found)
    if remedy:
        console.print("\n[bold]What would change it[/]")
        say(remedy)


def checked(question: str, answer: str, aliases: list[str]) -> Question:
    """The question as a record. Raises UserError where a part is blank or too long."""
    for name, text in (("question", question), ("--answer", answer)):
        if not text.strip():
            raise UserError(f"the {name} is empty: give its text")
        if len(text) > MAX_CHARACTERS:
            raise UserError(
                f"the {name} has {len(text):,} characters, and at most {MAX_CHARACTERS:,} are read: shorten it"
            )
    # Lone surrogates of a command line that is no UTF-8 would break the search and the models.
    if not WORD.search(answer):
        raise UserError(
            f"the --answer {answer[:80]!r} has no letter or digit to search for: give a name or a few words"
        )
    clean = [text.encode("utf-8", "replace").decode() for text in (question, answer, *aliases)]
    return Question(question=clean[0], answer=clean[1], aliases=tuple(clean[2:]))


def open_evidence(store: Store, recipe: str, run: Run) -> Evidence:
    """What a diagnosis searches. Raises UserError where a part of it is missing."""
    data = open_training_data(store, run)
    documents = open_text_index(store, recipe, run)
    if documents is None:
        raise UserError(
            f"the documents that {run.model.id} was trained on have no full-text index: `crawl2chat run {recipe} --only index` makes it"
        )
    records = FullTextIndex(data.provenance.folder / RECORDS)
    return Evidence(store, run, data, documents, records, threshold(store, recipe))


def threshold(store: Store, recipe: str) -> int | None:
    """The mentions from which on half of the facts are known, by the recipe's report card; None where it has none."""
    try:
        report = store.open(store.latest(recipe, "evaluate"), Report)
    except UserError:
        return None
    return enough_mentions(json.loads((report.folder / "report.json").read_text(encoding="utf-8")))


def proposed(recipe: str, found: Diagnosis, teach: str) -> str:
    """The command that carries the remedy out: with the file of conversations, or before it the command that writes it."""
    if found.cause == "answered":
        return ""
    mixture = make_recipe(recipe).sft.conversations_mixture if found.is_taught else {}
    if not found.is_taught or teach:
        return command(recipe, found.settings, teach if found.is_taught else "", mixture)
    write = ["crawl2chat", "why-not", recipe, found.question, "--answer", found.answer, "--teach", "taught.jsonl"]
    return f"{shlex.join(write)} && {command(recipe, found.settings, 'taught.jsonl', mixture)}"


def print_diagnosis(found: Diagnosis) -> None:
    """Print the cause, then what was found on the way from the crawl to the reply."""
    console.print(f"[bold]{CAUSES[found.cause]}[/]")
    about = ", ".join(map(repr, found.subjects)) or "nothing"
    say(f"Searched for {about} with {found.answer!r}.")
    enough = f"; of facts on {found.threshold} or more pages half are known" if found.threshold else ""
    say(
        f"  pages         {found.num_kept:,} in training, {found.num_held_out} held out for validation, {found.num_dropped} dropped; "
        f"{found.num_chat} conversations{enough}"
    )
    asked = found.asked
    if asked.share is not None:
        say(
            f"  base model    {asked.share:.0%} of {len(asked.samples)} samples are right; the answer is {asked.rank} of {asked.num_candidates} "
            f"by likelihood, {asked.logprob_nats:.1f} nats"
        )
    verdict = "right" if asked.is_right else "a refusal" if asked.is_refusal else "wrong"
    say(f"  chat model    {cut(asked.reply, 200)!r}, which is {verdict}")
    for item in found.statements:
        sign = "[green]✓[/]" if item.outcome == "kept" else "[red]✗[/]"
        where = f"{item.url}  {item.date[:10]}, {item.file} at byte {item.offset:,}: {item.outcome}"
        console.print(f"{sign} {escape(where)}", highlight=False, soft_wrap=True)
        console.print(f"    [dim]{escape(cut(item.sentence, 240))}[/]", highlight=False)
