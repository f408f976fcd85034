"""What a removal of documents changed: whether a text of theirs is still in what a model learns from, and what that did to its figures.

Reads two runs of the store, one with and one without the documents; writes nothing. A span is WORDS words in a row. It is the removed
documents' own where the training data with them has it nowhere else; such a span must not stand in the training data without them. It can
come back on a page that was dropped as a duplicate of a removed one: that page is named.
"""

import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from tasks.artifacts.manifest import Documents, Report
from tasks.evaluate.measures import base_measures, chat_measures, value_of
from tasks.provenance import words
from tasks.provenance.statements import names, statements
from tasks.provenance.training_data import Occurrence, TrainingData
from tasks.records.documents import Document, read_documents
from tasks.records.full_text import FullTextIndex
from tasks.shares import share

WORDS = 8
MAX_LEFT = 20  # places that are named
MODELS = ("base, few-shot", "assistant", "policy")
NOISE = 2 * 2**0.5  # a difference of two runs within so many standard deviations over seeds is taken for chance


class Removal(NamedTuple):
    """What became of the spans of removed documents: `num_own` stood nowhere else, of these `num_left` still stand in the training data."""

    num_documents: int
    num_spans: int
    num_own: int
    num_left: int
    left: list[Occurrence]


class Difference(NamedTuple):
    """A figure of the report card of both runs. `noise`: a difference up to this is chance; None where no study of seeds tells."""

    measure: str
    model: str
    before: float
    after: float
    noise: float | None


def removed_documents(documents: Documents, is_removed: Callable[[Document], bool]) -> Iterator[Document]:
    """The kept documents of an artifact that are removed."""
    for path in documents.files("documents/*.parquet"):
        yield from (document for document in read_documents(path) if is_removed(document))


def spans_of(text: str) -> Iterator[bytes]:
    """Every WORDS words in a row of a text; a shorter text as a whole."""
    encoded = text.encode("utf-8", "replace")
    starts, ends = words.starts(encoded), words.ends(encoded)
    place = 0
    stops = []
    for start in starts:
        while ends[place] <= start:
            place += 1
        stops.append(ends[place])
    for number in range(max(1, len(starts) - WORDS + 1) if starts else 0):
        yield encoded[starts[number] : stops[min(number + WORDS, len(starts)) - 1]]


def check_removal(before: TrainingData, after: TrainingData, texts: Iterable[str]) -> Removal:
    """Whether a span of removed texts that stood nowhere else before is in the training data after."""
    num_texts = 0
    counts: Counter[bytes] = Counter()
    for text in texts:
        num_texts += 1
        counts.update(spans_of(text))
    num_own = num_left = 0
    left: list[Occurrence] = []
    for span, count in counts.items():
        is_own = before.count(span) <= count
        num_own += is_own
        if is_own and after.count(span):
            num_left += 1
            left += [place.source.occurrence(place, len(span)) for place in after.places(span, 1)][
                : MAX_LEFT - len(left)
            ]
    return Removal(num_texts, len(counts), num_own, num_left, left)


def compare_cards(before: Report, after: Report, seeds: Report | None) -> list[Difference]:
    """The figures that both report cards have. `seeds`: a study of the recipe over seeds, where there is one."""
    cards = [json.loads((report.folder / "report.json").read_text(encoding="utf-8")) for report in (before, after)]
    spread = json.loads((seeds.folder / "report.json").read_text(encoding="utf-8")) if seeds else {}
    found = []
    for section, measure in (("base", base_measures), ("chat", chat_measures)):
        one, two = (measure(card) for card in cards)
        for name, values in one.items():
            for model, value in values.items():
                if (other := two.get(name, {}).get(model)) is not None:
                    runs = spread.get(section, {}).get(name, {}).get(model, [])
                    noise = NOISE * statistics.stdev(runs) if len(runs) > 1 else None
                    found.append(Difference(name, model, value_of(value), value_of(other), noise))
    return found


def right_answers(report: Report) -> dict[tuple[str, str], tuple[dict[str, Any], bool]]:
    """The answers of a report card by model and question: the line of answers.jsonl, and whether it is right."""
    with (report.folder / "answers.jsonl").open(encoding="utf-8") as lines:
        found = (json.loads(line) for line in lines)
        return {(item["model"], item["question"]): (item, item["is_correct"]) for item in found}


def own_facts(
    before: Report, after: Report, index: FullTextIndex, data: TrainingData, is_removed: Callable[[str], bool]
) -> list[dict[str, Any]]:
    """Right answers of both runs, apart for facts that only removed documents state, by model. `is_removed`: of a URL."""
    one, two = right_answers(before), right_answers(after)
    is_own: dict[str, bool | None] = {}
    found: dict[tuple[str, str], list[tuple[bool, bool]]] = {}
    for (model, question), (item, is_right) in one.items():
        if model not in MODELS or item["split"] == "unknown" or (model, question) not in two:
            continue
        if question not in is_own:
            is_own[question] = _is_own(item, index, data, is_removed)
        if (own := is_own[question]) is not None:
            found.setdefault((model, "own" if own else "other"), []).append((is_right, two[model, question][1]))
    return [
        {
            "model": model,
            "facts": facts,
            "before": share([one for one, _ in pairs]),
            "after": share([two for _, two in pairs]),
        }
        for (model, facts), pairs in sorted(found.items())
    ]


def _is_own(
    item: dict[str, Any], index: FullTextIndex, data: TrainingData, is_removed: Callable[[str], bool]
) -> bool | None:
    """Whether only removed documents state an answer; None where no document does."""
    answers: Sequence[str] = [item["answer"], *item.get("aliases", ())]
    stated = [record.url for record, _ in statements(index, names(item["question"], data), answers, ["document"])]
    return all(map(is_removed, stated)) if stated else None
