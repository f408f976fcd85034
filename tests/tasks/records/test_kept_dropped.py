"""No document disappears: what is kept, dropped and drawn to be looked at."""

import json
from collections import Counter
from pathlib import Path

import pytest

from model.config import Config
from tasks.artifacts.manifest import Documents
from tasks.artifacts.step import Step
from tasks.execution.context import StageContext
from tasks.execution.reporter import Reporter, Row, reporting
from tasks.records.documents import Document, read_documents
from tasks.records.kept_dropped import SAMPLE_DOCUMENTS, KeptDroppedWriter, funnel, report_funnel

REASONS = ("quality/short", "language/de", "url/adult")


class Tables(Reporter):
    def __init__(self) -> None:
        self.rows: dict[str, list[Row]] = {}

    def table(self, stage, name, rows, description) -> None:
        self.rows[name] = list(rows)


def document(number: int) -> Document:
    return Document(
        id=f"id-{number}", url=f"http://example.org/{number}", date="", file="f", offset=number, text="é" * 9
    )


def sift(folder: Path, num_shards: int, num: int = 200) -> tuple[Counter[str], Tables]:
    """Every fourth document is kept, the others have one of REASONS."""
    counts: Counter[str] = Counter()
    for shard in range(num_shards):
        with KeptDroppedWriter(folder, f"{shard}.parquet") as writer:
            for number in range(shard, num, num_shards):
                if number % 4 == 3:
                    writer.keep(document(number))
                else:
                    writer.drop(document(number), REASONS[number % 4])
        counts += writer.counts
    tables = Tables()
    with reporting(tables):
        report_funnel(
            StageContext(Step("filter", 1, Documents, Config(), {}, run=lambda *_: None), folder), counts, "Documents"
        )
    return counts, tables


def test_writer_keeps_or_drops_every_document_with_its_bytes(tmp_path):
    counts, tables = sift(tmp_path, 3)
    kept, dropped = (
        [found for path in tmp_path.glob(f"{kind}/*") for found in read_documents(path)]
        for kind in ("documents", "dropped")
    )
    assert len(kept) == counts["documents"] == 50
    assert Counter(found["reason"] for found in dropped) == dict.fromkeys(REASONS, 50)
    rows = {row["reason"]: row for row in tables.rows["funnel"]}
    assert rows["kept"]["text_bytes"] == rows["url/adult"]["text_bytes"] == 50 * 18
    assert sum(row["documents"] for row in rows.values()) == 200
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1)


def test_examples_of_each_reason_do_not_depend_on_the_shards(tmp_path):
    drawn = []
    for num_shards in (1, 7):
        _, tables = sift(tmp_path / str(num_shards), num_shards)
        lines = (tmp_path / str(num_shards) / "dropped.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == tables.rows["dropped"]
        drawn.append(lines)
    assert drawn[0] == drawn[1]
    assert Counter(json.loads(line)["reason"] for line in drawn[0]) == dict.fromkeys(REASONS, SAMPLE_DOCUMENTS)


def test_writer_leaves_no_file_after_an_error(tmp_path):
    with pytest.raises(OSError, match="disk"), KeptDroppedWriter(tmp_path, "a.parquet") as writer:
        writer.drop(document(0), "url/adult")
        raise OSError("disk full")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_funnel_ranks_reasons_and_ignores_other_counts():
    counts = {"documents": 1, "text_bytes": 5, "pages": 9, "dropped/a/b": 3, "dropped_bytes/a/b": 7, "pii_found/ip": 2}
    assert funnel(counts) == [
        {"reason": "a/b", "documents": 3, "share": 0.75, "text_bytes": 7},
        {"reason": "kept", "documents": 1, "share": 0.25, "text_bytes": 5},
    ]
