"""What stages that drop documents share: two shards for each shard they read, and counts that add up.

Writes documents/NAME.parquet, dropped/NAME.parquet, and dropped.jsonl: of every reason DRAWN documents, to be looked at. No
document disappears: documents in = documents + documents_dropped, and documents_dropped is the sum of dropped/FAMILY/RULE.
"""

import contextlib
import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import xxhash

from tasks.artifacts.files import write_atomically
from tasks.artifacts.manifest import STATE
from tasks.execution.context import StageContext
from tasks.execution.reporter import Row
from tasks.execution.shards import Counts
from tasks.records.documents import Document, ShardWriter

DRAWN = 20  # documents of every reason
DRAWN_CHARACTERS = 500
Drawn = tuple[int, str]  # hash of the document, and the line of dropped.jsonl


class KeptDroppedWriter:
    """Writes the documents of shard `name` to the kept or to the dropped ones of the artifact in `folder`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.documents = ShardWriter(folder / "documents" / name)
        self.dropped = ShardWriter(folder / "dropped" / name)
        self.drawn_path = folder / STATE / "drawn" / f"{name}.json"
        self.drawn: dict[str, list[Drawn]] = defaultdict(list)
        self.counts: Counter[str] = Counter(documents=0, documents_dropped=0, text_bytes=0)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.documents)
            stack.enter_context(self.dropped)
            self.stack = stack.pop_all()
        return self

    def keep(self, document: Document) -> None:
        self.documents.write(document)
        self.counts["documents"] += 1
        self.counts["text_bytes"] += len(document["text"].encode())

    def drop(self, document: Document, reason: str) -> None:
        """`reason` is "family/rule"."""
        self.dropped.write({**document, "reason": reason})
        self.counts["documents_dropped"] += 1
        self.counts[f"dropped/{reason}"] += 1
        if num_bytes := len(document["text"].encode()):
            self.counts[f"dropped_bytes/{reason}"] += num_bytes
        _draw(self.drawn[reason], (xxhash.xxh3_64_intdigest(document["id"].encode()), _line(document, reason)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.__exit__(kind, error, trace)
        if error is None:
            write_atomically(self.drawn_path, json.dumps(self.drawn))


def _draw(kept: list[Drawn], drawn: Drawn) -> None:
    """Keep the DRAWN documents with the largest hashes: the same ones however documents are sharded."""
    if len(kept) < DRAWN:
        heapq.heappush(kept, drawn)
    elif drawn[0] > kept[0][0]:
        heapq.heapreplace(kept, drawn)


def _line(document: Document, reason: str) -> str:
    told = {"reason": reason, **document, "text": document["text"][:DRAWN_CHARACTERS]}
    return json.dumps({name: value for name, value in told.items() if name != "attributes"}, ensure_ascii=False)


def report_funnel(ctx: StageContext, counts: Counts, unit: str) -> None:
    """Tell what became of the documents, and write and tell some of every reason."""
    ctx.table("funnel", funnel(counts), f"{unit} kept, and dropped by reason")
    lines = list(_merged(sorted((ctx.state / "drawn").glob("*.json"))))
    (ctx.folder / "dropped.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    ctx.table("dropped", [json.loads(line) for line in lines], f"At most {DRAWN} {unit.lower()} of every reason")


def _merged(paths: Iterable[Path]) -> Iterator[str]:
    by_reason: dict[str, list[Drawn]] = defaultdict(list)
    for path in paths:
        for reason, some in json.loads(path.read_text(encoding="utf-8")).items():
            for number, line in some:
                _draw(by_reason[reason], (number, line))
    for _, some in sorted(by_reason.items()):
        yield from (line for _, line in sorted(some, reverse=True))


def funnel(counts: Counts) -> list[Row]:
    """What became of the documents of a stage, most frequent first. Bytes are those of their text."""
    fates = {"kept": (counts["documents"], counts["text_bytes"])}
    for name, num in counts.items():
        family, _, reason = name.partition("/")
        if family == "dropped":
            fates[reason] = (num, counts.get(f"dropped_bytes/{reason}", 0))
    total = max(sum(num for num, _ in fates.values()), 1)
    ranked = sorted(fates.items(), key=lambda fate: -fate[1][0])
    return [
        {"reason": reason, "documents": num, "share": round(num / total, 4), "text_bytes": num_bytes}
        for reason, (num, num_bytes) in ranked
    ]
