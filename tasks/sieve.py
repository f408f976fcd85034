"""What stages that drop documents share: two shards for each shard they read, and counts that add up.

Writes documents/NAME.parquet and dropped/NAME.parquet. No document disappears: documents in = documents +
documents_dropped, and documents_dropped is the sum of dropped/FAMILY/RULE.
"""

import contextlib
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from tasks.executor import Counts
from tasks.shards import Document, ShardWriter
from tasks.stage import Row


class Sieve:
    """Writes the documents of shard `name` to the kept or to the dropped ones of the artifact in `folder`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.documents = ShardWriter(folder / "documents" / name)
        self.dropped = ShardWriter(folder / "dropped" / name)
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.__exit__(kind, error, trace)


def funnel(counts: Counts) -> list[Row]:
    """What became of the documents of a stage, most frequent first."""
    reasons = {name.removeprefix("dropped/"): num for name, num in counts.items() if name.startswith("dropped/")}
    fates = {"kept": counts["documents"]} | reasons
    total = max(sum(fates.values()), 1)
    ranked = sorted(fates.items(), key=lambda fate: -fate[1])
    return [{"reason": reason, "documents": num, "share": round(num / total, 4)} for reason, num in ranked]
