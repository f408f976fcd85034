"""Whether the pages that `crawl2chat why-said` links to a right answer contain the fact, by the truth file of the sample web.

    CRAWL2CHAT_STORE=... python -m tests.benchmarks.linked_pages [NUM_ANSWERS]

Needs a finished run of the recipe tiny in the store. Of every right answer of the policy to a question about a fact, the reply is explained as
the command does, by its defaults; the pages behind its spans and those with the same words are compared with the facts that the truth
file names for each page. An answer counts where one of its pages, or the first one, has the fact.
"""

import json
import random
import statistics
import sys
import time
from pathlib import Path

from model.files import read_lines
from tasks.artifacts.store import Store
from tasks.provenance.explanation import explain
from tasks.provenance.lineage import find_run, open_text_index, open_training_data
from tasks.records.full_text import FullTextIndex
from tests.benchmarks.harness import machine, print_table

NUM_ANSWERS = 400


def facts_of_pages(folder: Path) -> dict[str, set[str]]:
    """The facts on each page, by the id of its record."""
    return {page["record_id"]: set(page["facts"]) for page in read_lines(folder / "truth.jsonl")}


def main() -> None:
    """Explain the answers, and print how many have a page with the fact."""
    store = Store.default()
    run = find_run(store, "tiny")
    data, index = open_training_data(store, run), open_text_index(store, "tiny", run)
    assert isinstance(index, FullTextIndex), "the run has no index"
    truth = facts_of_pages(store.folder(run.of_stage("crawl").id))  # type: ignore[union-attr]
    answers = read_lines(store.folder(store.latest("tiny", "evaluate")) / "answers.jsonl")
    right = [
        item
        for item in answers
        if item["model"] == "policy" and item["is_correct"] and item["split"] not in ("unknown", "reversal")
    ]
    limit = int(sys.argv[1]) if len(sys.argv) > 1 else NUM_ANSWERS
    seconds, by_spans, by_words, either, first, shares = [], 0, 0, 0, 0, []
    chosen = random.Random(0).sample(right, min(limit, len(right)))
    for item in chosen:
        start = time.perf_counter()
        found = explain(item["reply"], data, index, num_spans=5, num_places=2)
        seconds.append(time.perf_counter() - start)
        spans = [place.document for span in found.spans for place in span.occurrences if place.source == "pretraining"]
        similar = [place.document for place in found.in_other_words]
        has = {name: item["fact"] in truth[name] for name in (*spans, *similar)}
        by_spans += any(has[name] for name in spans)
        by_words += any(has[name] for name in similar)
        either += any(has.values())
        first += has[(spans or similar)[0]]
        shares.append(statistics.mean(has.values()))
    rows = [
        ("a page behind a span", f"{by_spans / len(chosen):.1%}"),
        ("a page with the same words", f"{by_words / len(chosen):.1%}"),
        ("either", f"{either / len(chosen):.1%}"),
        ("the first page behind the rarest span", f"{first / len(chosen):.1%}"),
        ("of all pages that are linked", f"{statistics.mean(shares):.1%}"),
    ]
    note = f"{len(chosen)} right answers; median {1000 * statistics.median(seconds):.0f} ms each. {machine()}"
    print_table("Right answers with a linked page that has the fact", ["Page", "Has the fact"], rows, note)
    print(json.dumps({"either": either / len(chosen)}), file=sys.stderr)


if __name__ == "__main__":
    main()
