"""Rankings of completions by people: what is to be ranked, what was ranked, and the file that the reward stage reads.

Reads and writes the database (tasks/feedback/database.py). `export` gives rankings in the format of tasks/conversations/formats/rankings.py.

Everybody gets the prompts in the same order, so that those ranked by several people, from which agreement is computed, come by
themselves. The completions of a prompt are made once, when the first person opens it, and are shown to each person in another order.
"""

import hashlib
import json
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from model.errors import UserError
from tasks.feedback.agreement import Agreement, agreement
from tasks.feedback.database import FeedbackFile, as_json, now
from tasks.feedback.guidelines import Guidelines

Messages = Sequence[Mapping[str, Any]]
MAX_PROMPTS = 100_000  # of a database
# The newest label of each person on each prompt: the older ones were corrected.
LATEST = "SELECT * FROM labels WHERE id IN (SELECT max(id) FROM labels GROUP BY prompt, who) ORDER BY prompt, who"


class Completion(NamedTuple):
    """A reply to a prompt, with the artifact that wrote it, and how it was sampled."""

    text: str
    model: str
    sampling: dict[str, Any]


class Draft(NamedTuple):
    """A ranking by a model, which a person may begin with."""

    model: str
    ranks: list[int]


class Label(NamedTuple):
    """A person's ranking: 1 is the best, equal ranks are a tie."""

    who: str
    ranks: list[int]
    all_bad: bool
    saw_draft: bool


class Item(NamedTuple):
    """A prompt with its completions; none where they were not made yet."""

    id: int
    messages: Messages
    completions: list[Completion]
    draft: Draft | None


class Progress(NamedTuple):
    """How far the work is."""

    prompts: int
    mine: int  # ranked by the person who asks
    labels: int  # of all people, corrections not counted
    people: int


def unreadable(text: str) -> str:
    """Why a person cannot read a prompt; "" where one can."""
    categories = {character: unicodedata.category(character) for character in set(text) - set("\t\n\r")}
    # Cc: control characters; Cs: half a character, which no UTF-8 can hold.
    if found := sorted(character for character, category in categories.items() if category in ("Cc", "Cs")):
        return f"it has a control character, {found[0]!a}: take it out"
    # Letters, numbers, punctuation, symbols. Spaces, marks and characters of no width show nothing alone.
    return "" if any(category[0] in "LNPS" for category in categories.values()) else "it is blank: write a text"


class LabelBook:
    """The prompts to rank and the labels of people."""

    def __init__(self, file: FeedbackFile) -> None:
        self.file = file

    def add_prompts(self, prompts: Iterable[Messages]) -> int:
        """Put prompts at the end of the queue. Returns how many are new. Raises UserError where one cannot be read, or the queue would be too long."""
        added = [list(messages) for messages in prompts]
        for number, messages in enumerate(added, 1):
            if reason := unreadable(str(messages[-1]["content"])):
                raise UserError(f"prompt {number} cannot be read: {reason}")
        with self.file.writing() as database:
            [before] = database.execute("SELECT count(*) FROM prompts").fetchone()
            values = [(now(), as_json(messages)) for messages in added]
            database.executemany("INSERT INTO prompts (at, messages) VALUES (?, ?) ON CONFLICT DO NOTHING", values)
            [after] = database.execute("SELECT count(*) FROM prompts").fetchone()
            if after > MAX_PROMPTS:
                raise UserError(f"the queue would have {after:,} prompts, and {MAX_PROMPTS:,} are the most: add fewer")
        return int(after - before)

    def next_prompt(self, who: str, after: int = 0) -> int | None:
        """The first prompt after `after` that the person has not ranked; from the beginning again where there is no such prompt."""
        query = "SELECT id FROM prompts WHERE id NOT IN (SELECT prompt FROM labels WHERE who = ?) ORDER BY id <= ?, id LIMIT 1"
        found = self.file.rows(query, who, after)
        return int(found[0]["id"]) if found else None

    def item(self, prompt: int) -> Item | None:
        """A prompt with its completions, or None."""
        found = self.file.rows("SELECT messages FROM prompts WHERE id = ?", prompt)
        if not found:
            return None
        completions = self.file.rows("SELECT * FROM completions WHERE prompt = ? ORDER BY place", prompt)
        drafts = self.file.rows("SELECT * FROM drafts WHERE prompt = ?", prompt)
        return Item(
            prompt,
            json.loads(found[0]["messages"]),
            [Completion(row["text"], row["model"], json.loads(row["sampling"])) for row in completions],
            Draft(drafts[0]["model"], json.loads(drafts[0]["ranks"])) if drafts else None,
        )

    def add_completions(self, prompt: int, completions: Sequence[Completion], draft: Draft | None = None) -> bool:
        """Keep the completions of a prompt. Returns False where another request was first: its completions are kept."""
        with self.file.writing() as database:
            if database.execute("SELECT 1 FROM completions WHERE prompt = ?", (prompt,)).fetchone():
                return False
            rows = [(prompt, place, c.text, c.model, as_json(c.sampling)) for place, c in enumerate(completions)]
            database.executemany("INSERT INTO completions VALUES (?, ?, ?, ?, ?)", rows)
            if draft:
                values = (prompt, draft.model, as_json(draft.ranks))
                database.execute("INSERT INTO drafts VALUES (?, ?, ?)", values)
        return True

    def add_label(self, prompt: int, label: Label, guidelines: Guidelines) -> int:
        """Keep a person's ranking and return its number; a further one of the same prompt corrects it.

        Raises UserError where the ranks are not those of the prompt's completions.
        """
        with self.file.writing() as database:
            [expected] = database.execute("SELECT count(*) FROM completions WHERE prompt = ?", (prompt,)).fetchone()
            if len(label.ranks) != expected or not expected:
                problem = f"{len(label.ranks)} ranks were given for the {expected} completions of prompt {prompt}"
                raise UserError(f"{problem}: give one for each")
            database.execute("INSERT INTO guidelines VALUES (?, ?) ON CONFLICT DO NOTHING", guidelines)
            return _insert_label(database, prompt, label, guidelines.version)

    def label_of(self, prompt: int, who: str) -> Label | None:
        """The newest ranking of a prompt by a person."""
        query = "SELECT * FROM labels WHERE prompt = ? AND who = ? ORDER BY id DESC LIMIT 1"
        found = self.file.rows(query, prompt, who)
        return _label(found[0]) if found else None

    def progress(self, who: str) -> Progress:
        """How far the person and all people are."""
        query = """SELECT (SELECT count(*) FROM prompts), count(DISTINCT CASE WHEN who = ? THEN prompt END),
            count(DISTINCT prompt || ' ' || who), count(DISTINCT who) FROM labels"""
        [row] = self.file.rows(query, who)
        return Progress(*row)

    def agreement(self) -> Agreement:
        """How far the people agree who ranked the same prompts."""
        return agreement((row["prompt"], row["who"], json.loads(row["ranks"])) for row in self.file.rows(LATEST))

    def export(self) -> Iterator[dict[str, Any]]:
        """The newest ranking of every prompt by every person, in order of prompts and people: equal labels give equal bytes."""
        items: dict[int, Item | None] = {}
        for row in self.file.rows(LATEST):
            # One prompt at a time: the rows are sorted by it.
            item = items.get(row["prompt"]) or self.item(row["prompt"])
            items = {row["prompt"]: item}
            if item:
                yield _exported(item, row)


def _insert_label(database: sqlite3.Connection, prompt: int, label: Label, version: str) -> int:
    values = (prompt, label.who, now(), version, as_json(dense(label.ranks)), label.all_bad, label.saw_draft)
    query = "INSERT INTO labels (prompt, who, at, guidelines, ranks, all_bad, saw_draft) VALUES (?, ?, ?, ?, ?, ?, ?)"
    return int(database.execute(query, values).lastrowid or 0)


def _label(row: sqlite3.Row) -> Label:
    return Label(row["who"], json.loads(row["ranks"]), bool(row["all_bad"]), bool(row["saw_draft"]))


def _exported(item: Item, row: sqlite3.Row) -> dict[str, Any]:
    return {
        "messages": item.messages,
        "completions": [completion._asdict() for completion in item.completions],
        "ranks": json.loads(row["ranks"]),
        "all_bad": bool(row["all_bad"]),
        "who": row["who"],
        "at": row["at"],
        "guidelines": row["guidelines"],
        "saw_draft": bool(row["saw_draft"]),
        "label": row["id"],
    }


def dense(ranks: Sequence[int]) -> list[int]:
    """Ranks without gaps: 2, 2, 5 becomes 1, 1, 2."""
    values = sorted(set(ranks))
    return [values.index(rank) + 1 for rank in ranks]


def order_for(who: str, prompt: int, num_completions: int) -> list[int]:
    """The order in which a person sees the completions: random, and the same at every visit.

    People prefer what they read first (position bias); with another order for each person it averages out.
    """
    return sorted(
        range(num_completions), key=lambda place: hashlib.sha256(as_json([who, prompt, place]).encode()).digest()
    )
