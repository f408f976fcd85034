"""Shards of documents: Parquet files, written and read as a stream.

A shard is written under a temporary name and renamed when it is whole, so that a reader never sees half of one.
Parquet with zstd is what FineWeb ships and what `datasets.load_dataset("parquet")` opens: attributes are pairs of a name and a
value, since it knows no maps.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NotRequired, Self, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from model.files import replacing

# Some 3 MB of text for web pages: what a reader and a writer hold in memory at once, and large enough for zstd to find
# repetition.
GROUP_DOCUMENTS = 1_000


class Document(TypedDict):
    """One text and where it came from. `offset` is that of its record in the web archive `file`, in bytes.

    `attributes` holds what was measured of it, by name; `reason` why it was dropped, as "family/rule".
    """

    id: str
    url: str
    date: str
    file: str
    offset: int
    text: str
    attributes: NotRequired[dict[str, float]]
    language: NotRequired[str]
    reason: NotRequired[str]


SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("url", pa.string()),
        ("date", pa.string()),
        ("file", pa.string()),
        ("offset", pa.int64()),
        ("language", pa.string()),
        ("reason", pa.string()),
        ("attributes", pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())]))),
        # 64-bit offsets: a column of 1,000 texts of the largest size that ingest keeps can pass the 2 GiB of `string`.
        # Last, so that readers of the other columns skip it in one stretch.
        ("text", pa.large_string()),
    ]
)


class ShardWriter:
    """Writes documents to one shard. Leaves nothing behind when the block ends with an error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pending: list[Document] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opened:
            # Left in reverse: the pending rows, the footer, the file, the name. A failure in any of them leaves the
            # name untouched.
            sink = opened.enter_context(pa.OSFile(str(opened.enter_context(replacing(self.path))), "wb"))
            self.writer = opened.enter_context(pq.ParquetWriter(sink, SCHEMA, compression="zstd"))
            opened.push(self._finish)
            self.opened = opened.pop_all()
        return self

    def write(self, document: Document) -> None:
        """Append a document. A row group is written when GROUP_DOCUMENTS are pending."""
        self.pending.append(document)
        if len(self.pending) >= GROUP_DOCUMENTS:
            self._flush()

    def _flush(self) -> None:
        if not self.pending:  # `datasets` cannot read an empty row group
            return
        # With the schema given: one inferred from the rows would change with the first document that has no language.
        self.writer.write_table(pa.Table.from_pylist(list(map(to_row, self.pending)), schema=SCHEMA))
        self.pending.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.opened.__exit__(kind, error, trace)

    def _finish(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is pending. It is called before the file is closed, so a full disk here leaves nothing behind either."""
        if error is None:
            self._flush()


def to_row(document: Document) -> dict[str, Any]:
    """A document as a row of a shard: its attributes become a list of name and value."""
    # A struct with a field per attribute would give shards of different settings different schemas.
    attributes = document.get("attributes", {})
    return {**document, "attributes": [{"name": name, "value": value} for name, value in attributes.items()]}


def to_document(row: dict[str, Any]) -> Document:
    """A row of a shard as a document: what is null or was not measured is not in it."""
    attributes = {pair["name"]: pair["value"] for pair in row["attributes"]}
    found = {name: value for name, value in row.items() if value is not None and name != "attributes"}
    return {**found, "attributes": attributes} if attributes else found  # type: ignore[typeddict-item, return-value]


def read_documents(path: Path) -> Iterator[Document]:
    """The documents of one shard, in order, a row group in memory at a time."""
    with pq.ParquetFile(path) as shard:
        for group in range(shard.num_row_groups):
            yield from map(to_document, shard.read_row_group(group).to_pylist())
