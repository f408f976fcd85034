"""What stages that drop documents share: two shards for each shard they read, and counts that add up.

Writes documents/NAME.parquet, dropped/NAME.parquet, and dropped.jsonl: up to SAMPLE_DOCUMENTS documents of every reason, as excerpts
without personal data (tasks/records/samples.py). The texts in dropped/NAME.parquet are as they came.

No document disappears: documents in = documents + documents_dropped, and documents_dropped is the sum of dropped/FAMILY/RULE
(datatrove's base filter counts and keeps what it excludes in the same way).
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
from tasks.records.samples import sample_line

SAMPLE_DOCUMENTS = 20  # of every reason
SAMPLE_CHARACTERS = 500
Sample = tuple[int, str]  # hash of the document's id, and the line of dropped.jsonl


class KeptDroppedWriter:
    """Writes the documents of shard `name` to the kept or to the dropped ones of the artifact in `folder`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.documents = ShardWriter(folder / "documents" / name)
        self.dropped = ShardWriter(folder / "dropped" / name)
        self.samples_path = folder / STATE / "samples" / f"{name}.json"
        self.samples: dict[str, list[Sample]] = defaultdict(list)
        # The zeros are written out: a stage that drops nothing still reports documents_dropped, and sums over shards
        # have all keys.
        self.counts: Counter[str] = Counter(documents=0, documents_dropped=0, text_bytes=0)

    def __enter__(self) -> Self:
        # If the second file cannot be opened, the first is closed and removed.
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.documents)
            stack.enter_context(self.dropped)
            self.stack = stack.pop_all()
        return self

    def keep(self, document: Document) -> None:
        """Write a document to the kept ones."""
        self.documents.write(document)
        self.counts["documents"] += 1
        self.counts["text_bytes"] += len(document["text"].encode())

    def drop(self, document: Document, reason: str) -> None:
        """Write a document to the dropped ones. `reason` is "family/rule", as quality/gopher_words."""
        self.dropped.write({**document, "reason": reason})
        self.counts["documents_dropped"] += 1
        self.counts[f"dropped/{reason}"] += 1
        # No entry of 0 bytes: much of what ingest drops never had a text.
        if num_bytes := len(document["text"].encode()):
            self.counts[f"dropped_bytes/{reason}"] += num_bytes
        key = xxhash.xxh3_64_intdigest(document["id"].encode())
        if _is_sampled(self.samples[reason], key):  # first: to redact an excerpt costs more than all else here
            _add_sample(self.samples[reason], (key, sample_line(document, reason, SAMPLE_CHARACTERS)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.__exit__(kind, error, trace)
        # After both shards have their names. map_shards records a shard as finished only when this returned.
        if error is None:
            write_atomically(self.samples_path, json.dumps(self.samples))


def _is_sampled(samples: list[Sample], key: int) -> bool:
    """Whether a document is among the SAMPLE_DOCUMENTS with the largest hashes: the same ones however documents are sharded."""
    # samples[0] is the smallest of a heap. Hashes of ids are a random order, so the samples are spread over the whole
    # crawl instead of standing at its start.
    return len(samples) < SAMPLE_DOCUMENTS or key > samples[0][0]


def _add_sample(samples: list[Sample], sample: Sample) -> None:
    """Add a sample to a heap, in place of the one with the smallest hash if the heap is full."""
    if len(samples) < SAMPLE_DOCUMENTS:
        heapq.heappush(samples, sample)
    else:
        heapq.heapreplace(samples, sample)


def report_funnel(ctx: StageContext, counts: Counts, unit: str) -> None:
    """Publish how many documents were kept and dropped by reason, and write and publish a few samples of every reason."""
    ctx.table("funnel", funnel(counts), f"{unit} kept, and dropped by reason")
    # Each shard kept its largest; the largest of all are among them.
    lines = list(_merged_samples(sorted((ctx.state / "samples").glob("*.json"))))
    write_atomically(ctx.folder / "dropped.jsonl", "".join(f"{line}\n" for line in lines))
    ctx.table(
        "dropped", [json.loads(line) for line in lines], f"At most {SAMPLE_DOCUMENTS} {unit.lower()} of every reason"
    )


def _merged_samples(paths: Iterable[Path]) -> Iterator[str]:
    """The samples of all shards as lines of dropped.jsonl, by reason."""
    by_reason: dict[str, list[Sample]] = defaultdict(list)
    for path in paths:
        for reason, samples in json.loads(path.read_text(encoding="utf-8")).items():
            for key, line in samples:
                if _is_sampled(by_reason[reason], key):
                    _add_sample(by_reason[reason], (key, line))
    for _, samples in sorted(by_reason.items()):
        # Largest hash first. The heap's order depends on the order of insertion, this one does not.
        yield from (line for _, line in sorted(samples, reverse=True))


def funnel(counts: Counts) -> list[Row]:
    """A row for the kept documents of a stage and for each reason, the most frequent first. Bytes are those of the text in UTF-8."""
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
