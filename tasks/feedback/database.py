"""The file in which feedback is kept: one SQLite database, written by any number of processes at once.

Reads and writes the file (with FILE-wal and FILE-shm while it is open); no network. Rows are only ever added: triggers refuse to change, replace
or delete one, also for another program, until it removes the triggers. Only the two texts of a battle are filled in later, once each.
A correction is a further label.

- Write-ahead logging (https://sqlite.org/wal.html): readers do not wait for writers, and writers wait for each other up to WAIT_SECONDS.
- synchronous=FULL: a label is on the disk before the server acknowledges it. After `kill -9` or a power cut only one that was not
  acknowledged can be missing, and never half of one.
- A connection for each transaction: threads share none. Opening one takes a tenth of a millisecond.

    guidelines   the text of each version that a label names
    prompts      what is to be ranked         completions   of a prompt, with the model and the sampling      drafts    rankings by a model
    labels       rankings by people           battles       a prompt and two models that answered it          votes     one for a battle at most
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from model.errors import UserError

FILE = "feedback.sqlite"
APPLICATION_ID = 0x63326366  # "c2cf", in the file's header
WAIT_SECONDS = 30.0
# By table, what finds the row that a new one would replace. INSERT OR REPLACE deletes it without a trigger for DELETE.
SAME_ROW = {
    "guidelines": "version = NEW.version",
    "prompts": "id = NEW.id OR messages = NEW.messages",
    "completions": "prompt = NEW.prompt AND place = NEW.place",
    "drafts": "prompt = NEW.prompt",
    "labels": "id = NEW.id",
    "battles": "id = NEW.id",
    "votes": "id = NEW.id OR battle = NEW.battle",
}
# Adding one of these again is no error, and changes nothing.
ADDED_AGAIN = ("guidelines", "prompts")
TABLES = """
CREATE TABLE IF NOT EXISTS guidelines (version TEXT PRIMARY KEY, text TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS prompts (id INTEGER PRIMARY KEY, at TEXT NOT NULL, messages TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE IF NOT EXISTS completions (
    prompt INTEGER NOT NULL REFERENCES prompts, place INTEGER NOT NULL, text TEXT NOT NULL, model TEXT NOT NULL, sampling TEXT NOT NULL,
    PRIMARY KEY (prompt, place)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS drafts (
    prompt INTEGER PRIMARY KEY REFERENCES prompts, model TEXT NOT NULL, ranks TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS labels (
    id INTEGER PRIMARY KEY, prompt INTEGER NOT NULL REFERENCES prompts, who TEXT NOT NULL, at TEXT NOT NULL,
    guidelines TEXT NOT NULL REFERENCES guidelines, ranks TEXT NOT NULL, all_bad INTEGER NOT NULL, saw_draft INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS labels_of_person ON labels (who, prompt);
CREATE INDEX IF NOT EXISTS labels_of_prompt ON labels (prompt);
CREATE TABLE IF NOT EXISTS battles (
    id INTEGER PRIMARY KEY, who TEXT NOT NULL, at TEXT NOT NULL, messages TEXT NOT NULL, left_model TEXT NOT NULL, right_model TEXT NOT NULL,
    sampling TEXT NOT NULL, left_text TEXT, right_text TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS battles_of_person ON battles (who, at);
CREATE TABLE IF NOT EXISTS votes (
    id INTEGER PRIMARY KEY, battle INTEGER NOT NULL UNIQUE REFERENCES battles, at TEXT NOT NULL, winner TEXT NOT NULL
) STRICT;
"""
BATTLE_CHANGES = """
    (NEW.id, NEW.who, NEW.at, NEW.messages, NEW.left_model, NEW.right_model, NEW.sampling)
        IS NOT (OLD.id, OLD.who, OLD.at, OLD.messages, OLD.left_model, OLD.right_model, OLD.sampling)
    OR OLD.left_text IS NOT NULL AND NEW.left_text IS NOT OLD.left_text
    OR OLD.right_text IS NOT NULL AND NEW.right_text IS NOT OLD.right_text
"""
TRIGGER = """
CREATE TRIGGER IF NOT EXISTS {table}_no_{name} BEFORE {action} ON {table} WHEN {condition}
BEGIN SELECT {refusal}; END;
"""


class FeedbackFile:
    """The database at a path. It is made where it is missing."""

    def __init__(self, path: Path) -> None:
        """Raises UserError where the file is something else, or cannot be written."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as connection:
                _check_application(connection, path)
                # Kept in the file: connections made later find it set.
                connection.execute("PRAGMA journal_mode=WAL")
                connection.executescript(_schema())
        except (OSError, sqlite3.Error) as error:
            remedy = "name another one with --labels"
            raise UserError(f"{path} cannot be used as the file of feedback ({error}): {remedy}") from None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=WAIT_SECONDS, isolation_level=None)
        connection.row_factory = sqlite3.Row
        # Settings of a connection, which the file does not keep.
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        return connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction. What the block has written is on the disk after it, or nothing is if it raises."""
        with closing(self._connect()) as connection:
            # IMMEDIATE: the lock is taken before anything is read, so that two writers never decide on the same state.
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """The rows of a query."""
        with closing(self._connect()) as connection:
            return connection.execute(query, values).fetchall()


def _check_application(connection: sqlite3.Connection, path: Path) -> None:
    [found] = connection.execute("PRAGMA application_id").fetchone()
    if found == APPLICATION_ID:
        return
    if found or connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
        raise UserError(f"{path} is a database of another program: name another file with --labels")


def _schema() -> str:
    return "\n".join([f"PRAGMA application_id={APPLICATION_ID};", "BEGIN;", TABLES, *_triggers(), "COMMIT;"])


def _triggers() -> Iterator[str]:
    for table, same_row in SAME_ROW.items():
        refusal = f"RAISE(ABORT, '{table} are only added, never changed: add a new one')"
        changes = BATTLE_CHANGES if table == "battles" else "TRUE"
        for action, condition in (("UPDATE", changes), ("DELETE", "TRUE")):
            yield TRIGGER.format(table=table, name=action, action=action, condition=condition, refusal=refusal)
        is_there = f"EXISTS (SELECT 1 FROM {table} WHERE {same_row})"  # noqa: S608 - constants
        reaction = "RAISE(IGNORE)" if table in ADDED_AGAIN else refusal
        yield TRIGGER.format(table=table, name="REPLACE", action="INSERT", condition=is_there, refusal=reaction)


def now() -> str:
    """The time of a label, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def as_json(value: Any) -> str:
    """A value as it is stored; equal values give equal text."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
