"""Precision and recall of the filters, on a crawl with ground truth: the sample web has an expected outcome for every page.

Reads `truth.jsonl` of a Crawl and the Documents of ingest, filter and dedup; writes nothing. The outcome of a page is the family of the
reason under which it was dropped first, or "keep". Precision of an outcome: the fraction of the pages with it that should have it.
Recall: the fraction of the pages that should have it that do. Of a cluster of copies any one may be kept, so duplicates are counted by cluster.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from model.files import read_lines
from tasks.artifacts.manifest import Documents
from tasks.records.documents import Document, read_documents

# Outcomes next to the families of drop reasons. "lost" is a page that no stage has kept or dropped: a fault of the pipeline, which
# promises a reason for each (tasks/records/kept_dropped.py).
KEEP, LOST = "keep", "lost"
Page = Mapping[str, Any]


class Score(NamedTuple):
    """Numbers of pages for one outcome: expected to have it, found to have it, and both."""

    expected: int
    found: int
    right: int

    @property
    def precision(self) -> float:
        """The fraction of the pages found that were expected; 1 where none was found."""
        return self.right / self.found if self.found else 1.0

    @property
    def recall(self) -> float:
        """The fraction of the pages expected that were found; 1 where none was expected."""
        return self.right / self.expected if self.expected else 1.0


def read_truth(path: Path) -> dict[str, Page]:
    """The expected pages of `truth.jsonl` by record."""
    return {record_key(page["record_id"]): page for page in read_lines(path)}


def record_key(record_id: str) -> str:
    """A WARC-Record-ID as a bare UUID."""
    # WARC writes it as <urn:uuid:...> (WARC 1.1, section 5.2). Compared without both, so that either form finds its page.
    return record_id.strip("<>").removeprefix("urn:uuid:")


def outcomes(stages: Iterable[Documents], last: Documents) -> dict[str, str]:
    """The outcome of every page: the family of the reason under which a stage dropped it, or "keep" if the last stage has it."""
    # The ids of all pages are held in memory: made for the sample web's thousands of pages, not for a real crawl, which has no truth file.
    found = {}
    # In the order of the pipeline. A page that is dropped is not read by later stages, so that it has one reason.
    for stage in stages:
        for document in _documents(stage, "dropped"):
            found[record_key(document["id"])] = document["reason"].partition("/")[0]
    # By family, since a page may break several rules, and which threshold catches it first is no question of right or wrong.
    return found | {record_key(document["id"]): KEEP for document in _documents(last, "documents")}


def score(truth: Mapping[str, Page], found: Mapping[str, str]) -> dict[str, Score]:
    """The score of every outcome that was expected or found, the most frequent first. A page that no stage has is "lost"."""
    pairs = Counter(_pairs(truth, found))
    expected, seen = Counter[str](), Counter[str]()
    for (wanted, outcome), num in pairs.items():
        expected[wanted] += num
        seen[outcome] += num
    # `|` of two Counters takes the larger count of each name, and so every name of either.
    names = sorted(expected | seen, key=lambda name: -max(expected[name], seen[name]))
    return {name: Score(expected[name], seen[name], pairs[name, name]) for name in names}


def _pairs(truth: Mapping[str, Page], found: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """(expected, found) of every page. Within a cluster of copies, outcomes are matched regardless of which page has them."""
    clusters: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for key, page in truth.items():
        pair = (page["expected"], found.get(key, LOST))
        if page["cluster"] is None:
            yield pair
        else:
            clusters[page["cluster"]].append(pair)
    for pairs in clusters.values():
        expected = Counter(wanted for wanted, _ in pairs)
        seen = Counter(outcome for _, outcome in pairs)
        # The multiset intersection: outcomes that were expected of some page of the cluster and found on some.
        matched = expected & seen
        yield from ((wanted, wanted) for wanted in matched.elements())
        # Both rests have one entry for each page that is left, so strict. Which of them are paired is arbitrary and changes no score:
        # precision and recall count the two sides apart.
        yield from zip((expected - matched).elements(), (seen - matched).elements(), strict=True)


def redaction(truth: Mapping[str, Page], documents: Documents) -> dict[str, int]:
    """In kept pages: strings of personal data and how many were redacted, look-alikes ("traps") and how many were kept."""
    counts = Counter(pii=0, pii_redacted=0, traps=0, traps_kept=0)
    for document in _documents(documents, "documents"):
        # A page without an entry has nothing to redact: truth.jsonl lists the sample web's pages, and a real crawl has none.
        page = truth.get(record_key(document["id"]), {})
        private, traps = page.get("redact", ()), page.get("traps", ())
        counts["pii"] += len(private)
        # Exact strings: personal data that was redacted in part counts as redacted, and so does what extraction lost with its paragraph.
        counts["pii_redacted"] += sum(value not in document["text"] for value in private)
        counts["traps"] += len(traps)
        counts["traps_kept"] += sum(value in document["text"] for value in traps)
    return dict(counts)


def _documents(artifact: Documents, kind: str) -> Iterable[Document]:
    for path in artifact.files(f"{kind}/*.parquet"):
        yield from read_documents(path)
