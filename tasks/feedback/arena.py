"""The arena: two models answer a prompt, a person who does not know which is which votes, and then sees their names.

Reads and writes the database (tasks/feedback/database.py). After Chatbot Arena (Chiang et al. 2024, https://arxiv.org/abs/2403.04132). The sides are
random, a battle has one vote, and a person has at most MAX_BATTLES_PER_DAY battles a day and one for each prompt and pair of models: one
voter's favourite must not decide a table. A person is a nickname: that keeps the honest honest, and does not stop who invents names.
"""

import json
import random
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from tasks.feedback.database import FeedbackFile, as_json, now
from tasks.feedback.labels import Messages
from tasks.feedback.ratings import Vote, Winner

Side = Literal["left", "right"]
MAX_BATTLES_PER_DAY = 200
# Only the two columns may be named in a query: a column cannot be a parameter.
TEXT_COLUMNS: dict[Side, str] = {"left": "left_text", "right": "right_text"}


class VoteError(ValueError):
    """A battle or vote that is not admitted; its text says why."""


class Battle(NamedTuple):
    """Two models that answer one prompt. A text is None until the model has finished."""

    id: int
    who: str
    messages: Messages
    models: dict[Side, str]
    texts: dict[Side, str | None]
    sampling: dict[str, Any]


class Arena:
    """The battles and votes of a database."""

    def __init__(self, file: FeedbackFile, generator: random.Random | None = None) -> None:
        self.file = file
        # Of the system: sides that can be predicted are not blind.
        self.random = generator or random.SystemRandom()

    def start(self, who: str, messages: Messages, models: Sequence[str], sampling: dict[str, Any]) -> Battle:
        """A battle of two of the models. Raises VoteError where the person has had too many."""
        if len(models) < 2:
            raise VoteError(f"{len(models)} model is served, and a battle needs two: serve another one")
        prompt = as_json(list(messages))
        with self.file.writing() as database:
            _check_limit(database, who)
            left, right = self._pair(database, who, prompt, models)
            values = (who, now(), prompt, left, right, as_json(sampling))
            query = (
                "INSERT INTO battles (who, at, messages, left_model, right_model, sampling) VALUES (?, ?, ?, ?, ?, ?)"
            )
            number = int(database.execute(query, values).lastrowid or 0)
        return Battle(number, who, messages, {"left": left, "right": right}, {"left": None, "right": None}, sampling)

    def _pair(self, database: sqlite3.Connection, who: str, prompt: str, models: Sequence[str]) -> tuple[str, str]:
        """Two models in random order whose answers to this prompt the person has not voted on."""
        query = "SELECT left_model, right_model FROM votes JOIN battles ON battle = battles.id WHERE who = ? AND messages = ?"
        seen = {frozenset(row) for row in database.execute(query, (who, prompt))}
        pairs = [(a, b) for a in models for b in models if a != b and frozenset((a, b)) not in seen]
        if not pairs:
            raise VoteError("you have voted on this prompt with all models: give another prompt")
        return self.random.choice(pairs)

    def find(self, battle: int) -> Battle | None:
        """A battle by its number, or None."""
        found = self.file.rows("SELECT * FROM battles WHERE id = ?", battle)
        if not found:
            return None
        row = found[0]
        return Battle(
            row["id"],
            row["who"],
            json.loads(row["messages"]),
            {"left": row["left_model"], "right": row["right_model"]},
            {"left": row["left_text"], "right": row["right_text"]},
            json.loads(row["sampling"]),
        )

    def finish(self, battle: int, side: Side, text: str) -> None:
        """Keep the whole text of a side. The first one that is finished stays: it is what the person has read."""
        column = TEXT_COLUMNS[side]
        with self.file.writing() as database:
            query = f"UPDATE battles SET {column} = ? WHERE id = ? AND {column} IS NULL"  # noqa: S608 - one of two constants
            database.execute(query, (text, battle))

    def vote(self, battle: int, who: str, winner: Winner) -> Battle:
        """Keep a vote, and return the battle with the names. Raises VoteError where it is not admitted."""
        found = self.find(battle)
        if found is None or found.who != who:
            raise VoteError(f"there is no battle {battle} of {who}: start one")
        if None in found.texts.values():
            raise VoteError("a model is still answering: vote when both have finished")
        try:
            with self.file.writing() as database:
                database.execute("INSERT INTO votes (battle, at, winner) VALUES (?, ?, ?)", (battle, now(), winner))
        except sqlite3.IntegrityError:
            raise VoteError(f"battle {battle} has its vote already: start another one") from None
        return found

    def votes(self) -> list[Vote]:
        """All votes, in their order."""
        query = (
            "SELECT left_model, right_model, winner FROM votes JOIN battles ON battle = battles.id ORDER BY votes.id"
        )
        return [Vote(*row) for row in self.file.rows(query)]


def _check_limit(database: sqlite3.Connection, who: str) -> None:
    since = (datetime.now(UTC) - timedelta(days=1)).isoformat(timespec="milliseconds")
    [num] = database.execute("SELECT count(*) FROM battles WHERE who = ? AND at > ?", (who, since)).fetchone()
    if num >= MAX_BATTLES_PER_DAY:
        raise VoteError(f"{who} has had {num} battles in the last 24 hours, and that is the limit: come back later")
