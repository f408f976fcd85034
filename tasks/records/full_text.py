"""A full-text index of records in one SQLite file: what a run read, found by words.

Reads and writes the file; no network. SQLite's FTS5 (https://sqlite.org/fts5.html) ranks by BM25 (Robertson and Zaragoza 2009) with
k1 = 1.2 and b = 0.75. Suits up to some millions of pages; beyond that take a search engine.

    meta    the format's version and how words are cut
    texts     one row a record: its kind ("document"; room for dropped documents, conversations and preferences), id, origin, text
    passages  windows of some sentences of each text, by their first and last character: a fact is one sentence of a page, and BM25 over
              whole pages ranks those first that repeat a name
    words     the index of the passages. It holds no copy of them (a contentless table)

The same records in the same order give the same bytes with the same version of SQLite, which writes its number into the file. A query is
the stranger's: its words are quoted, so that none is an operator of FTS5, and a query that takes too long is ended.
"""

import math
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import quote

from model.errors import UserError
from model.files import naming_full_disk, replacing
from model.tools.registry import Tool, ToolError
from tasks.records.excerpts import SENTENCE_END, WORD, best_sentences, passage

Kind = Literal["document", "dropped", "conversation", "preference", "prompt"]
FORMAT = "2"
APPLICATION_ID = 0x63326369  # "c2ci", in the file's header
SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE texts (
    number INTEGER PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL, url TEXT NOT NULL, date TEXT NOT NULL, file TEXT NOT NULL,
    offset INTEGER NOT NULL, reason TEXT NOT NULL, text TEXT NOT NULL
);
CREATE TABLE passages (number INTEGER PRIMARY KEY, text_number INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL);
CREATE INDEX texts_of_id ON texts (id);
CREATE TABLE finished (shard TEXT PRIMARY KEY) WITHOUT ROWID;
"""
# Windows overlap, since a name and what "she" does may be in neighbouring sentences. Facts that the sample web tells one to three times, in two
# results of 190 characters: windows of 3 sentences held 77% of 150, of 4 held 89%, of 5 every three sentences 87%; without phrases of two words 80%.
WINDOW_SENTENCES, STEP_SENTENCES = 4, 2
PASSAGES_PER_HIT = 5  # passages read for each record that is wanted: a page may have several of the best
PASSAGES_READ = 20  # passages whose sentences are compared
MAX_QUERY_WORDS = 32
MAX_WORD_CHARACTERS = 64
QUERY_SECONDS = 5.0
# Virtual-machine instructions of SQLite between two checks of the clock: less than a millisecond.
STEPS_PER_CHECK = 10_000


class IndexedText(NamedTuple):
    """One record of the index. `reason`: why a document was dropped, or ""."""

    kind: Kind
    id: str
    text: str
    url: str = ""
    date: str = ""
    file: str = ""
    offset: int = 0
    reason: str = ""


class Hit(NamedTuple):
    """A record that has words of a query: the part of its text that has most of them, and its BM25 score, higher for better."""

    record: IndexedText
    passage: str
    score: float


class IndexWriter:
    """Writes an index, shard by shard. A shard is in it as a whole or not at all: a writer that was killed resumes after the last one."""

    def __init__(self, path: Path, *, stems: bool) -> None:
        """`stems`: whether English endings are cut off, so that "works" finds "worked" (Porter 1980)."""
        self.path = path
        # Marks of letters are removed: Dvorak finds Dvořák.
        self.cut = f"{'porter ' if stems else ''}unicode61 remove_diacritics 2"

    def __enter__(self) -> Self:
        self.database = sqlite3.connect(self.path, isolation_level=None)
        # Cannot be interrupted half way: SQLite's own journal undoes it at the next opening.
        if not self.database.execute("SELECT 1 FROM sqlite_schema").fetchone():
            self.database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            options = f"text, content='', tokenize='{self.cut}'"
            create = f"CREATE VIRTUAL TABLE words USING fts5({options});"
            self.database.executescript(f"BEGIN; {SCHEMA} {create}")
            self.database.executemany("INSERT INTO meta VALUES (?, ?)", [("format", FORMAT), ("tokenize", self.cut)])
            self.database.execute("COMMIT")
        return self

    def has(self, shard: str) -> bool:
        """Whether a shard is in the index."""
        return self.database.execute("SELECT 1 FROM finished WHERE shard = ?", (shard,)).fetchone() is not None

    def add(self, shard: str, records: Iterable[IndexedText]) -> int:
        """Add the records of a shard. Returns their number. Raises OSError where the disk is full."""
        with naming_full_disk(self.path.parent):
            return self._add(shard, records)

    def _add(self, shard: str, records: Iterable[IndexedText]) -> int:
        self.database.execute("BEGIN")
        try:
            before = self._last()
            for number, record in enumerate(records, before + 1):
                values = (
                    number,
                    record.kind,
                    record.id,
                    record.url,
                    record.date,
                    record.file,
                    record.offset,
                    record.reason,
                )
                self.database.execute("INSERT INTO texts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*values, record.text))
                for first, last in windows(record.text):
                    place = self.database.execute(
                        "INSERT INTO passages VALUES (NULL, ?, ?, ?)", (number, first, last)
                    ).lastrowid
                    self.database.execute(
                        "INSERT INTO words (rowid, text) VALUES (?, ?)", (place, record.text[first:last])
                    )
            self.database.execute("INSERT INTO finished VALUES (?)", (shard,))
            self.database.execute("COMMIT")
        except BaseException:
            if self.database.in_transaction:  # where the disk is full SQLite has ended it
                self.database.execute("ROLLBACK")
            raise
        return self._last() - before

    def _last(self) -> int:
        return int(self.database.execute("SELECT coalesce(max(number), 0) FROM texts").fetchone()[0])

    def finish(self, path: Path) -> int:
        """Write the finished index to `path`. Returns its number of records."""
        # One segment instead of one for each shard: faster to search, and the same bytes whether or not the writer was killed between.
        self.database.execute("INSERT INTO words (words) VALUES ('optimize')")
        with replacing(path) as temporary:
            self.database.execute("VACUUM INTO ?", (str(temporary),))
            with closing(sqlite3.connect(temporary, isolation_level=None)) as copy:
                copy.execute("DROP TABLE finished")
                copy.execute("VACUUM")
        return self._last()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.database.close()


class FullTextIndex:
    """An index that is opened for reading: nothing is written next to it, and its folder may be read-only."""

    def __init__(self, path: Path) -> None:
        """Raises UserError where the file is no such index."""
        try:
            # immutable: no lock and no journal file. mode=ro alone would still want to write both.
            self.database = sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)
            # A file from elsewhere could define views and triggers that call functions.
            self.database.execute("PRAGMA trusted_schema = OFF")
            found = dict(self.database.execute("SELECT name, value FROM meta"))
        except sqlite3.Error as error:
            raise UserError(f"{path} is no full-text index ({error}): make it again with the stage index") from None
        if found.get("format") != FORMAT:
            raise UserError(
                f"{path} has format {found.get('format')!r}, not {FORMAT!r}: make it again with the stage index"
            )

    def __len__(self) -> int:
        """The number of records."""
        return int(self.database.execute("SELECT count(*) FROM texts").fetchone()[0])

    def search(
        self, query: str, num: int = 10, max_characters: int = 240, kinds: Sequence[Kind] = ("document",)
    ) -> list[Hit]:
        """The records that have any word of the query, the best first. Raises UserError where that takes too long."""
        words = query_words(query)
        found: dict[int, Hit] = {}  # by record: its best passage
        for number, record, text, score in self._passages(words, PASSAGES_PER_HIT * num, kinds):
            if number not in found and len(found) < num:
                found[number] = Hit(record, passage(text, words, max_characters), score)
        return list(found.values())

    def sentences(self, query: str, num: int, max_characters: int, kinds: Sequence[Kind] = ("document",)) -> list[str]:
        """The sentences of the best passages that have the most and the rarest words of the query, the best first.

        A word weighs its inverse document frequency (Sparck Jones 1972), as BM25 counts it. Raises UserError where that takes too long.
        """
        words = query_words(query)
        # Of one record several: a page on many people states a fact in another passage than the one that repeats its words.
        passages = [text for _, _, text, _ in self._passages(words, PASSAGES_READ, kinds)]
        return best_sentences(passages, self._rarity(words) if passages else {}, num, max_characters)

    def _passages(
        self, words: Sequence[str], num: int, kinds: Sequence[Kind]
    ) -> Iterator[tuple[int, IndexedText, str, float]]:
        """The passages that have any of the words, the best first: the number of the record, the record, the passage and its score."""
        if not words:
            return
        # Neighbouring words as phrases too: those of a name are rarer than any of its words, and so weigh more.
        phrases = [*words, *(f"{one} {two}" for one, two in pairwise(words))]
        matched = " OR ".join(f'"{phrase}"' for phrase in phrases)
        places = ", ".join("?" * len(kinds))
        statement = (
            "SELECT text_number, kind, id, texts.text, url, date, file, offset, reason, first, last, -rank "  # noqa: S608
            "FROM words JOIN passages ON passages.number = words.rowid JOIN texts ON texts.number = text_number "
            f"WHERE words MATCH ? AND kind IN ({places}) ORDER BY rank, words.rowid LIMIT ?"
        )
        for number, *fields, first, last, score in self._rows(statement, (matched, *kinds, num)):
            record = IndexedText(*fields)
            yield number, record, record.text[first:last], score

    def _rarity(self, words: Sequence[str]) -> dict[str, float]:
        """The inverse document frequency of each word, over passages."""
        # One statement, so that one limit of time holds for all. Passages are numbered from 1 on.
        counts = ", ".join(["(SELECT count(*) FROM words WHERE words MATCH ?)"] * len(words))
        statement = f"SELECT (SELECT max(number) FROM passages), {counts}"  # noqa: S608
        [(total, *found)] = self._rows(statement, [f'"{word}"' for word in words])
        return {
            word: math.log1p((total - number + 0.5) / (number + 0.5)) for word, number in zip(words, found, strict=True)
        }

    def with_phrases(self, phrases: Sequence[str], kinds: Sequence[Kind], num: int) -> list[IndexedText]:
        """The records with a passage that has all phrases, as the index cuts their words, in order; at most `num`."""
        matched = " AND ".join(f'"{" ".join(words)}"' for phrase in phrases if (words := query_words(phrase)))
        if not matched:
            return []
        places = ", ".join("?" * len(kinds))
        statement = (
            "SELECT kind, id, texts.text, url, date, file, offset, reason FROM texts WHERE number IN "  # noqa: S608
            "(SELECT text_number FROM words JOIN passages ON passages.number = words.rowid WHERE words MATCH ?) "
            f"AND kind IN ({places}) ORDER BY number LIMIT ?"
        )
        return [IndexedText(*row) for row in self._rows(statement, (matched, *kinds, num))]

    def _rows(self, statement: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """The rows of a query. Raises UserError where it takes too long."""
        deadline = time.monotonic() + QUERY_SECONDS
        self.database.set_progress_handler(lambda: int(time.monotonic() > deadline), STEPS_PER_CHECK)
        try:
            return self.database.execute(statement, values).fetchall()
        except sqlite3.OperationalError:
            if time.monotonic() <= deadline:
                raise
            raise UserError(f"the search took longer than {QUERY_SECONDS:g} s: use fewer and rarer words") from None
        finally:
            self.database.set_progress_handler(None, 0)

    def close(self) -> None:
        """Close the file."""
        self.database.close()


def windows(text: str) -> list[tuple[int, int]]:
    """The passages of a text: the places of the first character and after the last of every few sentences."""
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    starts = [0, *ends]
    stops = [*ends, len(text)]
    last = max(1, len(starts) - WINDOW_SENTENCES + STEP_SENTENCES)
    return [
        (starts[number], stops[min(number + WINDOW_SENTENCES, len(stops)) - 1])
        for number in range(0, last, STEP_SENTENCES)
    ]


def query_words(query: str) -> list[str]:
    """The words of a query, each once: letters, digits and underscores, so that none can be an operator or end a quotation."""
    # Surrogates are no word characters, nor is NUL. Cut before the search: a query may be a whole book.
    found = WORD.findall(query[: 100 * MAX_QUERY_WORDS].lower())
    return list(dict.fromkeys(word[:MAX_WORD_CHARACTERS] for word in found))[:MAX_QUERY_WORDS]


def search_tool(search: Callable[[str], Sequence[str]]) -> Tool:
    """The tool `search`: a function from a query to texts, the best first, as a tool with a line for each."""

    def run(query: str) -> str:
        try:
            found = search(query)
        except UserError as error:
            raise ToolError(str(error)) from None
        return "\n".join(" ".join(text.split()) for text in found) or "nothing found"

    return run
