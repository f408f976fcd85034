"""Speed, memory and recall of deduplication, next to datatrove's MinHash and against the number of documents.

    python -m tests.benchmarks.dedup_speed            # 10,000 to 100,000 documents; --full goes on to a million

Speed is measured on real texts at FineWeb's parameters, with the rules on address and text off and one equal band enough, as in
the peer. The scaling is that of the whole stage with its defaults, on texts of drawn words, of which a fifth are near duplicates of
others. Recall is that of pairs whose Jaccard similarity is set by how many words of one were changed.
"""

import gzip
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tasks.dedup import clusters, signatures
from tasks.dedup.stage import DedupConfig
from tests.benchmarks import harness
from tests.benchmarks.dedup_runs import EQUAL, ours, peer

PASSAGE_CHARACTERS = 3_000
REAL_DOCUMENTS, FEW_DOCUMENTS = 3_000, 100
SIZES, FULL_SIZES, PEER_SIZES = (10_000, 30_000, 100_000), (300_000, 1_000_000), (1_000, 2_000, 4_000)
NUM_WORDS, DRAWN_DOCUMENTS = 150, 10_000  # words of a text, and texts that are drawn together
CURVE_RUNS, CURVE_PAIRS = 200, 400  # runs of a text, and pairs for each similarity
CURVE_CHANGES = (1, 2, 3, 4, 5, 7, 9, 12)  # words changed, each of which changes 5 runs


def main() -> None:
    harness.say("real texts")
    speed(list(real_texts(harness.shared_data())))
    scaling((*SIZES, *FULL_SIZES) if "--full" in sys.argv else SIZES)
    harness.say("recall")
    recall()


def real_texts(data: Path) -> Iterator[str]:
    """Web documents, news, and passages of novels."""
    for name in ("pretrain/c4-demo.jsonl.gz", "pretrain/onestop-english.jsonl.gz", "pretrain/english-novels.jsonl.gz"):
        with gzip.open(data / name, "rt", encoding="utf-8") as stream:
            for line in stream:
                text = json.loads(line)["text"]
                for start in range(0, len(text), PASSAGE_CHARACTERS):
                    yield text[start : start + PASSAGE_CHARACTERS]


def speed(texts: Sequence[str]) -> None:
    """Both on the same documents, once few and once all: the difference is what a document costs, without the start."""
    chosen = [texts[place] for place in np.linspace(0, len(texts) - 1, REAL_DOCUMENTS, dtype=int)]
    rows, rates = [], []
    for name, run in (("crawl2chat", lambda texts: ours(texts, **EQUAL)), ("datatrove", peer)):
        few, many = run(chosen[:FEW_DOCUMENTS]), run(chosen)
        rates.append((REAL_DOCUMENTS - FEW_DOCUMENTS) / (many.seconds - few.seconds))
        rows.append([name, f"{rates[-1]:,.0f}", f"{many.peak_bytes / 1e6:.0f} MB", REAL_DOCUMENTS - len(many.kept)])
    harness.print_table(
        "MinHash on real texts, 14 bands of 8 hashes of runs of 5 words, one core",
        ["", "documents/s", "peak memory", "dropped"],
        rows,
        f"{rates[0] / rates[1]:.1f} times the peer's rate, by CPU seconds without the start of the processes, on {REAL_DOCUMENTS:,} "
        f"documents of {np.mean([len(text) for text in chosen]):,.0f} characters. {harness.machine()}.",
    )


def scaling(sizes: Sequence[int]) -> None:
    """Seconds, memory and disk of the whole stage against the number of documents, with straight lines through them."""
    bytes_each = sum(column.dtype.itemsize for column in signatures.columns(Path(), DedupConfig()).values())
    for name, run, nums in (("crawl2chat, defaults", ours, sizes), ("datatrove", peer, PEER_SIZES)):
        results = []
        for num in nums:
            harness.say(f"{name}: {num:,} documents")
            results.append(run(drawn_texts(num)))
        seconds = np.array([result.seconds for result in results])
        slope, start = np.polyfit(nums, seconds, 1, w=1 / seconds)
        rows = [
            [
                f"{num:,}",
                f"{result.seconds:.1f}",
                f"{(result.seconds - start - slope * num) / result.seconds:+.1%}",
                f"{result.peak_bytes / 1e6:.0f} MB",
                f"{num * bytes_each / 1e6:.1f} MB" if run is ours else "",
                f"{clusters.held_bytes(num) / 1e6:.2f} MB" if run is ours else "",
                f"{1 - len(result.kept) / num:.1%}",
            ]
            for num, result in zip(nums, results, strict=True)
        ]
        harness.print_table(
            f"Scaling on drawn texts of {NUM_WORDS} words: {name}",
            [
                "documents",
                "CPU seconds",
                "off the line",
                "peak memory",
                "signatures on disk",
                "held in the merge",
                "dropped",
            ],
            rows,
            f"Line: {start:.1f} s + {slope * 1e6:.0f} microseconds a document, one core.",
        )


def drawn_texts(num: int) -> Iterator[str]:
    """Texts of words drawn as they are in languages, few of them often; each fifth is the one before with some changed."""
    random, letters = np.random.default_rng(num), str.maketrans("0123456789", "bdfgkmprtz")
    words = np.array([f"{'aeiou'[number % 5]}{number}".translate(letters) for number in range(20_000)], object)
    for start in range(0, num, DRAWN_DOCUMENTS):
        shape = (min(DRAWN_DOCUMENTS, num - start), NUM_WORDS)
        places = np.minimum(random.zipf(1.3, shape) + random.integers(0, 200, shape), len(words) - 1)
        near = np.arange(1, len(places), 5)
        places[near] = np.where(random.random((len(near), NUM_WORDS)) < 0.01, places[near], places[near - 1])
        yield from (" ".join(text) for text in words[places].tolist())


def recall() -> None:
    """Pairs found, by similarity, next to what the bands promise."""
    texts = [text for changes in CURVE_CHANGES for text in pairs(changes)]
    shares = [found_shares(ours(texts, **EQUAL | {"jaccard_threshold": least}).kept) for least in (0.0, 0.7)]
    rows = []
    for changes, *found in zip(CURVE_CHANGES, *shares, strict=True):
        similarity = (CURVE_RUNS - 5 * changes) / (CURVE_RUNS + 5 * changes)
        promised = 1 - (1 - similarity**8) ** 14
        error = (promised * (1 - promised) / CURVE_PAIRS) ** 0.5
        rows.append([f"{similarity:.3f}", f"{promised:.3f} ± {error:.3f}", *(f"{share:.3f}" for share in found)])
    harness.print_table(
        "Recall of near duplicates",
        ["Jaccard similarity", "1 - (1 - s^8)^14", "found by one equal band", "and an estimate of 0.7 or more"],
        rows,
        f"{CURVE_PAIRS} pairs of texts for each similarity.",
    )


def found_shares(kept: set[str]) -> list[float]:
    """Of each similarity, the share of pairs of which one document is not kept."""
    numbers = np.array([int(name) for name in kept]) // (2 * CURVE_PAIRS)
    return [float(2 - num / CURVE_PAIRS) for num in np.bincount(numbers, minlength=len(CURVE_CHANGES))]


def pairs(changes: int) -> Iterator[str]:
    """Texts of words that occur once, and each again with `changes` words changed, far enough apart to share no run."""
    letters = str.maketrans("0123456789", "abcdefghij")
    for pair in range(CURVE_PAIRS):
        words = [f"w{changes}x{pair}x{place}".translate(letters) for place in range(CURVE_RUNS + 4)]
        yield " ".join(words)
        for change in range(changes):
            words[6 + 15 * change] = f"changed{words[6 + 15 * change]}"
        yield " ".join(words)


if __name__ == "__main__":
    main()
