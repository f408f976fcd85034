"""Why a model said something: the spans of a reply with the pages and conversations in which they stand.

Reads the training data of a run and, where there is one, its full-text index; writes nothing. Of the places of a span those come first whose
surroundings share most words with the reply. Pages that say the same in other words are found by their words (BM25), which finds a page that
states a fact better than the gradients of a model do (Chang et al. 2024, https://arxiv.org/abs/2410.17413).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from tasks.provenance import words
from tasks.provenance.spans import WORD, Span, encoded, find_spans, maximal_spans, uncovered
from tasks.provenance.training_data import Occurrence, Place, TrainingData
from tasks.records.full_text import FullTextIndex
from tasks.records.samples import redacted_url

SHOWN_UNKNOWN, UNKNOWN_CHARACTERS = 5, 60  # stretches that stand nowhere, and of each, in the summary
MAX_PLACES = 40  # of a span and kind of source, of which the nearest to the reply are shown
PASSAGE_CHARACTERS = 240


@dataclass(frozen=True)
class ExplainedSpan:
    """A span, how often each kind of source has it, and the best places."""

    span: Span
    counts: dict[str, int]
    occurrences: list[Occurrence]


@dataclass(frozen=True)
class Explanation:
    """Where a reply comes from. `nowhere`: the stretches that stand nowhere; `is_whole`: all that is explained stands somewhere in one piece."""

    reply: str
    is_cut: bool
    is_whole: bool
    num_spans: int
    spans: list[ExplainedSpan]
    nowhere: list[tuple[int, int, str]]
    in_other_words: list[Occurrence]

    def as_json(self) -> dict[str, Any]:
        """Plain values for scripts. Places in the reply are bytes of UTF-8."""
        values = {**asdict(self), "summary": self.summary()}
        for span in values["spans"]:
            span.update(span.pop("span"))
        for found in [*values["in_other_words"], *(place for span in values["spans"] for place in span["occurrences"])]:
            found["host"] = host(found["url"])
        values["nowhere"] = [{"start": start, "stop": stop, "text": text} for start, stop, text in self.nowhere]
        return values

    def summary(self) -> str:
        """One line on the whole reply."""
        what = "The explained part" if self.is_cut else "The whole reply"
        if self.is_whole:
            return f"{what} stands in the training data."
        nowhere = ", ".join(repr(cut(text, UNKNOWN_CHARACTERS)) for *_, text in self.nowhere[:SHOWN_UNKNOWN])
        unknown = f" In no training data: {nowhere}." if nowhere else ""
        if not self.num_spans:
            return f"{what} has no part, but for common words, that stands in the training data.{unknown}"
        parts = "part of it does" if self.num_spans == 1 else "parts of it do"
        return f"{what} stands nowhere in one piece; {self.num_spans:,} {parts}.{unknown}"


def cut(text: str, num_characters: int) -> str:
    """At most so many characters of a text."""
    return text if len(text) <= num_characters else f"{text[:num_characters]} ..."


def host(url: str) -> str:
    """The host of a URL; "" where it has none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def explain(
    reply: str, data: TrainingData, index: FullTextIndex | None, num_spans: int = 5, num_places: int = 3
) -> Explanation:
    """Where a reply comes from: its `num_spans` rarest spans, each with `num_places` places of each kind of source."""
    text = encoded(reply)
    places = maximal_spans(data, text)
    spans = find_spans(data, text, places)
    explained = [
        ExplainedSpan(span, data.counts(text[span.start : span.stop]), nearest(data, text, span, num_places))
        for span in spans[:num_spans]
    ]
    shown = text.decode()
    return Explanation(
        shown,
        is_cut=len(shown) < len(reply),
        # A quotation mark or bracket before the first word belongs to no span.
        is_whole=bool(places) and places[0] == (words.starts(text)[0], words.ends(text)[-1]),
        num_spans=len(spans),
        spans=explained,
        nowhere=[(start, stop, text[start:stop].decode()) for start, stop in uncovered(text, places)],
        in_other_words=similar(shown, index, num_places) if index else [],
    )


def nearest(data: TrainingData, reply: bytes, span: Span, num: int) -> list[Occurrence]:
    """The places of a span whose surroundings share most words with the reply, at most `num` of each kind of source."""
    wanted = word_set(reply.decode())
    size = span.stop - span.start
    by_kind: dict[str, list[Place]] = {}
    for place in data.places(reply[span.start : span.stop], MAX_PLACES):
        by_kind.setdefault(place.source.source.kind, []).append(place)

    def distance(place: Place) -> int:
        return -len(wanted & word_set(place.source.context(place, size)))

    best = [sorted(places, key=distance)[:num] for places in by_kind.values()]
    return [place.source.occurrence(place, size) for places in best for place in places]


def word_set(text: str) -> set[str]:
    """The words of a text in lower case."""
    return {word.lower() for word in WORD.findall(text)}


def similar(text: str, index: FullTextIndex, num: int) -> list[Occurrence]:
    """Pages with the words of a text, the best first."""
    return [
        Occurrence(
            "pretraining",
            "",
            hit.record.id,
            redacted_url(hit.record.url),
            hit.record.date,
            hit.record.file,
            hit.record.offset,
            "",
            hit.passage,
        )
        for hit in index.search(text, num, PASSAGE_CHARACTERS)
    ]


def marked(reply: bytes, stretches: Sequence[tuple[int, int]]) -> list[tuple[str, bool]]:
    """A reply in parts, each with whether it is one of the stretches."""
    parts, place = [], 0
    for start, stop in stretches:
        parts += [
            (reply[place:start].decode(errors="replace"), False),
            (reply[start:stop].decode(errors="replace"), True),
        ]
        place = stop
    return [part for part in [*parts, (reply[place:].decode(errors="replace"), False)] if part[0]]
