"""Which duplicates are found: by this project's stage, and by datatrove's MinHash with the same parameters.

    python -m tests.benchmarks.dedup_quality

Passages of books in several editions are near duplicates by their origin; the same news at three reading levels are none. Two small
sets of others have duplicates that anybody can see.
"""

import gzip
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.dedup import minhash
from tasks.dedup.stage import DedupConfig
from tests.benchmarks import harness
from tests.benchmarks.dedup_runs import EQUAL, ours, peer

COPIES = "copies"
Groups = list[list[int]]  # of each set, the numbers of documents that its gold speaks of together


def main() -> None:
    texts, groups = collect(harness.shared_data())
    runs = {
        "crawl2chat": ours(texts),
        "by one equal band": ours(texts, **EQUAL),
        "datatrove": peer(texts),
    }
    rows = [
        [name, *expected(name, found), promised(texts, found), *(dropped(found, run.kept) for run in runs.values())]
        for name, found in groups.items()
    ]
    harness.print_table(
        "Documents dropped, by set",
        ["", "documents", "to be dropped", "pairs the bands promise", *runs],
        rows,
        "Promised is the sum of 1 - (1 - s^8)^14 over neighbours in what the set puts together. One news article of another name is a "
        f"copy in that set itself. {harness.machine()}.",
    )


def collect(data: Path) -> tuple[list[str], dict[str, Groups]]:
    """All texts, and of each set the groups of numbers."""
    texts: list[str] = []
    groups: dict[str, Groups] = {}
    for name, found in sets(data).items():
        groups[name] = []
        for members in found:
            groups[name].append(list(range(len(texts), len(texts) + len(members))))
            texts += members
    return texts, groups


def sets(data: Path) -> dict[str, list[list[str]]]:
    """The texts of each set, in groups. Sets whose groups are copies are named so."""
    passages: dict[str, list[str]] = {}
    for pair in read_lines(data / "dedup/gutenberg-editions.jsonl.gz"):
        passages.setdefault(pair["group"], []).extend((pair["a"], pair["b"]))
    levels: dict[str, list[str]] = {}
    for article in read_lines(data / "pretrain/onestop-english.jsonl.gz"):
        if "/" not in article["name"]:  # of the middle level there is a second file
            levels.setdefault(article["name"], []).append(article["text"])
    demo = [json.loads(line)["text"] for line in (data / "dedup/data-juicer-dedup-demo.jsonl").open(encoding="utf-8")]
    licences = [path.read_text() for path in sorted((data / "dedup/cs336/documents_with_fuzzy_duplicates").iterdir())]
    return {
        f"gutenberg-editions: {COPIES} of a passage in other editions": [
            list(dict.fromkeys(found)) for found in passages.values()
        ],
        "onestop-english: news at three reading levels": list(levels.values()),
        f"data-juicer demo: {COPIES}": [
            [demo[one], demo[other]] for one, other in ((6, 11), (7, 8), (9, 10), (12, 13))
        ],
        "data-juicer demo: other sentences": [demo[:6]],
        f"cs336: {COPIES} of a licence": [licences[1:]],
        "cs336: another licence": [licences[:1]],
    }


def expected(name: str, groups: Groups) -> tuple[int, int]:
    """How many documents a set has, and how many of them are copies."""
    num = sum(map(len, groups))
    return num, num - len(groups) if COPIES in name else 0


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        yield from map(json.loads, stream)


def dropped(groups: Groups, kept: set[str]) -> int:
    return sum(str(number) not in kept for group in groups for number in group)


def promised(texts: Sequence[str], groups: Groups) -> str:
    """How many of the pairs of neighbours share a band, as the curve says for their similarities."""
    pairs = [similarity(texts[one], texts[other]) for group in groups for one, other in itertools.pairwise(group)]
    return f"{sum(1 - (1 - np.array(pairs) ** 8) ** 14):.1f}" if pairs else "0.0"


def similarity(one: str, other: str) -> float:
    """The Jaccard similarity of two texts' runs of words."""
    ngram_size = DedupConfig().ngram_size
    hashed = [minhash.hash_ngrams(minhash.hash_words(minhash.split_words(text)), ngram_size) for text in (one, other)]
    runs = [set(hashes.tolist()) for hashes in hashed]
    return len(runs[0] & runs[1]) / max(len(runs[0] | runs[1]), 1)


if __name__ == "__main__":
    main()
