"""The filters held to the truth: the sample web says of every page what should become of it.

Reads `truth.jsonl` of a sample Crawl and the Documents of ingest, filter and dedup; writes nothing. A page's fate is the reason family
under which it was dropped first, or "keep". Precision of a family: of the pages it dropped, how many it should have; recall: of
those it should have, how many it did. Of a cluster of copies any one may stay, so duplicates are counted per cluster.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from model.files import read_lines
from tasks.artifacts.manifest import Documents
from tasks.records.documents import Document, read_documents

KEEP, DUPLICATE = "keep", "duplicate"
Page = Mapping[str, Any]


class Score(NamedTuple):
    """Of one reason family: pages that should have had it, pages that had it, and both."""

    expected: int
    found: int
    right: int

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        return self.right / self.expected if self.expected else 1.0


def read_truth(path: Path) -> dict[str, Page]:
    """The truth by record."""
    return {record_key(page["record_id"]): page for page in read_lines(path)}


def record_key(record_id: str) -> str:
    """A WARC-Record-ID without what it is wrapped in."""
    return record_id.strip("<>").removeprefix("urn:uuid:")


def fates(stages: Iterable[Documents], last: Documents) -> dict[str, str]:
    """Of every page the family it was dropped under by one of the stages, or "keep" where the last stage still has it."""
    found = {}
    for stage in stages:
        for document in _documents(stage, "dropped"):
            found[record_key(document["id"])] = document["reason"].partition("/")[0]
    return found | {record_key(document["id"]): KEEP for document in _documents(last, "documents")}


def score(truth: Mapping[str, Page], found: Mapping[str, str]) -> dict[str, Score]:
    """Of every family that was expected or found, how well it was met. A page that is not found at all has fate "lost"."""
    pairs = Counter(_pairs(truth, found))
    expected, had = Counter[str](), Counter[str]()
    for (wanted, fate), num in pairs.items():
        expected[wanted] += num
        had[fate] += num
    families = sorted(expected | had, key=lambda family: -max(expected[family], had[family]))
    return {family: Score(expected[family], had[family], pairs[family, family]) for family in families}


def _pairs(truth: Mapping[str, Page], found: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """(expected, found) of every page; within a cluster of copies, whichever stayed is the one that should."""
    clusters: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for key, page in truth.items():
        pair = (page["expected"], found.get(key, "lost"))
        if page["cluster"] is None:
            yield pair
        else:
            clusters[page["cluster"]].append(pair)
    for pairs in clusters.values():
        expected = Counter(wanted for wanted, _ in pairs)
        had = Counter(fate for _, fate in pairs)
        met = expected & had
        yield from ((wanted, wanted) for wanted in met.elements())
        yield from zip((expected - met).elements(), (had - met).elements(), strict=True)


def redaction(truth: Mapping[str, Page], documents: Documents) -> dict[str, int]:
    """In the kept pages: strings that should be gone and are, and look-alikes that should stay and did."""
    counts = Counter(pii=0, pii_redacted=0, traps=0, traps_kept=0)
    for document in _documents(documents, "documents"):
        page = truth.get(record_key(document["id"]), {})
        private, traps = page.get("redact", ()), page.get("traps", ())
        counts["pii"] += len(private)
        counts["pii_redacted"] += sum(value not in document["text"] for value in private)
        counts["traps"] += len(traps)
        counts["traps_kept"] += sum(value in document["text"] for value in traps)
    return dict(counts)


def _documents(artifact: Documents, kind: str) -> Iterable[Document]:
    for path in artifact.files(f"{kind}/*.parquet"):
        yield from read_documents(path)
