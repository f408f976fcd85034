"""All that a model was trained on, searched: how often a text stands there, and where.

Reads a Provenance and the artifacts that it was made of; writes nothing. Of a page that is found, only the columns that say where it came
from are read.
"""

import json
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from model.data.token_stream import TokenStream
from model.errors import UserError
from model.files import read_lines
from tasks.artifacts.manifest import Artifact, Provenance, Tokenizer, Tokens
from tasks.artifacts.store import Store
from tasks.provenance.chat_texts import turn_name
from tasks.provenance.stage import SOURCES, Source
from tasks.provenance.suffix_array import SuffixArray
from tasks.provenance.token_text import Vocabulary
from tasks.provenance.words import SEPARATOR
from tasks.records.samples import redacted_excerpt, redacted_url

ORIGIN = ["id", "url", "date", "file", "offset"]
CONTEXT_BYTES = 160
CACHED_WORDS = 100_000
KINDS = {"pretraining": "pretraining", "conversations": "SFT", "preferences": "preferences", "prompts": "RL prompts"}


@dataclass(frozen=True)
class Occurrence:
    """One place where a text stands. A page has a URL, a date, and the file and offset of its record in the web archives.

    A turn of chat data has `part`, whose turn it is; its file is that of the artifact, its offset the line.
    """

    source: str
    artifact: str
    document: str
    url: str
    date: str
    file: str
    offset: int
    part: str
    context: str


class Place(NamedTuple):
    """A byte of the text of one suffix array of a source."""

    source: "IndexedSource"
    shard: int
    byte: int


class TrainingData:
    """The sources of a Provenance."""

    def __init__(self, store: Store, provenance: Provenance, within: Container[str] | None = None) -> None:
        """`within`: only sources of these artifacts. Raises UserError where something that the index was made of is no longer in the store."""
        self.provenance = provenance
        path = store.open(provenance.manifest.input("tokenizer"), Tokenizer).folder / "tokenizer.json"
        self.vocabulary = Vocabulary(path)
        found = json.loads((provenance.folder / SOURCES).read_text(encoding="utf-8"))
        self.sources = [
            IndexedSource(source, store, provenance, self.vocabulary)
            for source in (Source(**values) for values in found)
            if within is None or provenance.manifest.input(source.artifact) in within
        ]
        self.count_word = lru_cache(CACHED_WORDS)(self.count)

    @property
    def num_words(self) -> int:
        """The words of all sources of the index."""
        return self.provenance.manifest.counts["words"]

    def longest(self, text: bytes) -> int:
        """How many of the first bytes of `text` stand somewhere at the beginning of a word."""
        return max((array.longest(text) for _, array in self._arrays()), default=0)

    def count(self, text: bytes) -> int:
        """How often a text stands there as whole words."""
        return sum(array.count(text) for _, array in self._arrays())

    def counts(self, text: bytes) -> dict[str, int]:
        """How often by the kind of source, without those that have none."""
        found: Counter[str] = Counter()
        for source, array in self._arrays():
            found[KINDS[source.source.kind]] += array.count(text)
        return {kind: count for kind, count in found.items() if count}

    def places(self, text: bytes, limit: int) -> list[Place]:
        """At most so many places where a text stands, of each kind of source."""
        found: list[Place] = []
        for kind in KINDS:
            some = (
                Place(source, shard, byte)
                for source in self.sources
                if source.source.kind == kind
                for shard, array in enumerate(source.arrays)
                for byte in array.occurrences(text, limit)
            )
            found += islice(some, limit)
        return found

    def _arrays(self) -> Iterator[tuple["IndexedSource", SuffixArray]]:
        return ((source, array) for source in self.sources for array in source.arrays)


class IndexedSource:
    """One source: its suffix arrays, and where its documents stand."""

    def __init__(self, source: Source, store: Store, provenance: Provenance, vocabulary: Vocabulary) -> None:
        self.source, self.vocabulary = source, vocabulary
        manifest = provenance.manifest
        self.artifact = store.open(manifest.input(source.artifact), Artifact)
        if source.kind == "pretraining":
            tokens = store.open(manifest.input(source.artifact.replace("documents", "tokens")), Tokens)
            paths = tokens.files("train/*.arrow")
        else:
            paths = [provenance.folder / f"{source.name}.arrow"]
        self.stream = TokenStream([str(path) for path in paths], len(vocabulary.pieces))
        self.records = np.load(provenance.folder / f"{source.name}.records.npy", mmap_mode="r")
        prefix = str(provenance.folder / source.name)
        self.arrays = [
            SuffixArray(self.stream, vocabulary, first, stop, Path(f"{prefix}-{number:03}"))
            for number, (first, stop) in enumerate(source.shards)
        ]
        if len(self.records) != len(self._begins) - 1:
            raise UserError(f"{manifest.id} does not fit {self.artifact.manifest.id}: delete it, and it is made again")

    @cached_property
    def _begins(self) -> Any:
        return self.stream.documents()

    def document(self, place: Place) -> tuple[int, int, int]:
        """The document that a place is in: its file, its row or line there from 0 on, its turn."""
        token = self.arrays[place.shard].text.token_at(place.byte)
        number = int(np.searchsorted(self._begins, token, side="right")) - 1
        file, row, turn = self.records[number].tolist()
        return file, row, turn

    def occurrence(self, place: Place, num_bytes: int) -> Occurrence:
        """Where the text of `num_bytes` bytes at a place stands."""
        file, row, turn = self.document(place)
        source, artifact = KINDS[self.source.kind], self.artifact.manifest.id
        context = self.context(place, num_bytes)
        context = redacted_excerpt(context, len(context))
        name = self.source.files[file]
        if self.source.kind == "pretraining":
            page = origin(self.artifact.folder / name, row)
            return Occurrence(
                source,
                artifact,
                page["id"],
                redacted_url(page["url"]),
                page["date"],
                page["file"],
                page["offset"],
                "",
                context,
            )
        part = turn_name(self._lines(name)[row], turn)
        return Occurrence(source, artifact, f"{name}:{row + 1}", "", "", name, row + 1, part, context)

    def context(self, place: Place, num_bytes: int) -> str:
        """The text around a place, up to the borders of its document."""
        text = self.arrays[place.shard].text
        start = max(0, place.byte - CONTEXT_BYTES)
        found = text.read(start, place.byte - start + num_bytes + CONTEXT_BYTES)
        before, rest = found[: place.byte - start], found[place.byte - start :]
        separator = bytes([SEPARATOR])
        # Halves of characters at both ends are left out.
        return (before.rpartition(separator)[2] + rest.partition(separator)[0]).decode(errors="ignore")

    @lru_cache(maxsize=2)  # noqa: B019 - as long-lived as the source
    def _lines(self, name: str) -> Sequence[Any]:
        return read_lines(self.artifact.folder / name)


@lru_cache(maxsize=256)
def origin(path: Path, row: int) -> dict[str, Any]:
    """Where the document in a row of a shard came from; its text is not read."""
    with pq.ParquetFile(path) as shard:
        for group in range(shard.num_row_groups):
            num_rows = shard.metadata.row_group(group).num_rows
            if row < num_rows:
                [found] = shard.read_row_group(group, columns=ORIGIN).slice(row, 1).to_pylist()
                return dict(found)
            row -= num_rows
    raise UserError(f"{path} has fewer documents than its tokens: run its stage again")
