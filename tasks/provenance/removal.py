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
from tasks.artifacts.store import Store
from tasks.evaluate.compare import difference_interval
from tasks.evaluate.measures import Value, base_measures, chat_measures, value_of
from tasks.provenance import words
from tasks.provenance.lineage import Run
from tasks.provenance.statements import names, statements
from tasks.provenance.training_data import Occurrence, TrainingData
from tasks.records.documents import Document, read_documents
from tasks.records.full_text import FullTextIndex
from tasks.shares import share

WORDS = 8
MAX_LEFT = 20  # places that are named
MODELS = ("base, ranking", "base, few-shot", "assistant", "policy")
NOISE = 2 * 2**0.5  # a difference of two runs within so many standard deviations over seeds is taken for chance


class Removal(NamedTuple):
    """What became of the spans of removed documents: `num_own` stood nowhere else, of these `num_left` still stand in the training data."""

    num_documents: int
    num_spans: int
    num_own: int
    num_left: int
    left: list[Occurrence]


class Difference(NamedTuple):
    """A figure of the report cards of both sides, the mean over seeds. `noise`: a difference up to this is chance; None where it is unknown."""

    measure: str
    model: str
    before: float
    after: float
    noise: float | None


def removed_documents(documents: Documents, is_removed: Callable[[Document], bool]) -> Iterator[Document]:
    """The kept documents of an artifact that are removed."""
    for path in documents.files("documents/*.parquet"):
        yield from (document for document in read_documents(path) if is_removed(document))


def artifacts_with(store: Store, run: Run, is_removed: Callable[[Document], bool]) -> list[str]:
    """The artifacts of a run that still have a text of removed documents, from before they were dropped or as dropped ones."""
    return [
        manifest.id
        for manifest in run.of_kind(Documents)
        for artifact in [store.open(manifest.id, Documents)]
        if any(
            document.get("text") and is_removed(document)
            for path in (*artifact.files("documents/*.parquet"), *artifact.files("dropped/*.parquet"))
            for document in read_documents(path)
        )
    ]


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


def compare_cards(before: Sequence[Report], after: Sequence[Report], seeds: Report | None) -> list[Difference]:
    """The figures that all report cards have, those of each side with other seeds. `seeds`: a study of the recipe over seeds, if there is one."""
    sides = [[_read(report) for report in reports] for reports in (before, after)]
    spread = _read(seeds) if seeds else {}
    found = []
    for section, measure in (("base", base_measures), ("chat", chat_measures)):
        one, two = ([measure(card) for card in cards] for cards in sides)
        for name, values in one[0].items():
            for model in values:
                if all(model in run.get(name, {}) for run in (*one, *two)):
                    earlier, later = ([run[name][model] for run in runs] for runs in (one, two))
                    noise = noise_of(earlier, later, spread.get(section, {}).get(name, {}).get(model, []))
                    mean, other_mean = (statistics.fmean(map(value_of, runs)) for runs in (earlier, later))
                    found.append(Difference(name, model, mean, other_mean, noise))
    return found


def _read(report: Report) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((report.folder / "report.json").read_text(encoding="utf-8"))
    return found


def noise_of(before: Sequence[Value], after: Sequence[Value], others: Sequence[float] = ()) -> float | None:
    """How far the means of two sides differ by chance: by their own seeds, else by `others`, the values of a study; None where unknown."""
    if len(before) > 1:
        interval = difference_interval(before, after)
        return (interval[1] - interval[0]) / 2 if interval else None
    return NOISE * statistics.stdev(others) if len(others) > 1 else None


def answers_of(report: Report) -> dict[tuple[str, str], dict[str, Any]]:
    """The lines of a report card's answers.jsonl by model and question."""
    with (report.folder / "answers.jsonl").open(encoding="utf-8") as lines:
        found = (json.loads(line) for line in lines)
        return {(item["model"], item["question"]): item for item in found}


def own_facts(
    before: Sequence[Report],
    after: Sequence[Report],
    index: FullTextIndex,
    data: TrainingData,
    is_removed: Callable[[str], bool],
) -> list[dict[str, Any]]:
    """Right answers of both sides, apart for facts that only removed documents state, by model and seed. `is_removed`: of a URL."""
    one, two = ([answers_of(report) for report in reports] for reports in (before, after))
    is_own: dict[str, bool | None] = {}
    asked: dict[tuple[str, str], list[str]] = {}
    for (model, question), item in one[0].items():
        if (
            model not in MODELS
            or item["split"] == "unknown"
            or any((model, question) not in run for run in (*one, *two))
        ):
            continue
        if question not in is_own:
            is_own[question] = _is_own(item, index, data, is_removed)
        if (own := is_own[question]) is not None:
            asked.setdefault((model, "own" if own else "other"), []).append(question)
    rows = []
    for (model, facts), questions in sorted(asked.items()):
        sides = [[[run[model, question] for question in questions] for run in runs] for runs in (one, two)]
        row = {"model": model, "facts": facts, **_rights(*sides)}
        if facts == "own":
            row["chance"] = chance([item for run in sides[1] for item in run])
        rows.append(row)
    return rows


def _rights(before: list[list[dict[str, Any]]], after: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """Shares of right answers of both sides, over all seeds and by seed, and how far these differ by chance."""
    by_seed = [[share([item["is_correct"] for item in run]) for run in runs] for runs in (before, after)]
    pooled = [share([item["is_correct"] for run in runs for item in run]) for runs in (before, after)]
    return {
        "before": pooled[0],
        "after": pooled[1],
        "before_by_seed": [one["share"] for one in by_seed[0]],
        "after_by_seed": [one["share"] for one in by_seed[1]],
        "noise": noise_of(by_seed[0], by_seed[1]),
    }


def chance(items: Sequence[dict[str, Any]]) -> float | None:
    """The share of replies that would be right by chance: each compared with the answers to the other questions of its kind.

    A model that knows nothing of a subject still names a town where one is asked for, and some towns are frequent answers.
    """
    from model.inference.answers import holds, right_answers

    kinds: dict[str, dict[str, dict[str, Any]]] = {}
    for item in items:
        kinds.setdefault(item.get("kind", ""), {})[item["question"]] = item
    shares = []
    for item in items:
        others = [one for text, one in kinds[item.get("kind", "")].items() if text != item["question"]]
        if others:
            shares.append(statistics.fmean(holds(item["reply"], right_answers(one)) for one in others))
    return statistics.fmean(shares) if shares else None


def _is_own(
    item: dict[str, Any], index: FullTextIndex, data: TrainingData, is_removed: Callable[[str], bool]
) -> bool | None:
    """Whether only removed documents state an answer; None where no document does."""
    answers: Sequence[str] = [item["answer"], *item.get("aliases", ())]
    stated = [record.url for record, _ in statements(index, names(item["question"], data), answers, ["document"])]
    return all(map(is_removed, stated)) if stated else None
