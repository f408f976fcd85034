"""The spans of a reply that stand verbatim in the training data, as OLMoTrace finds them (Liu et al. 2025, https://arxiv.org/abs/2504.07096).

Reads an index through `TrainingData`; writes nothing. A span begins and ends with a word or mark, stands in the training data, and is
maximal: no longer span of the reply contains it. Spans that are only stop words and marks say nothing and are left out. The others are
sorted by how unlikely their words are together, by the frequencies of single words: the rarest and longest first.

Departure: OLMoTrace keeps one span for every 20 tokens of a reply; here the caller says how many.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tasks.provenance import words

# Of English; OLMoTrace takes those of NLTK.
FUNCTION_WORDS = (
    "a about am an and are as at be been but by can did do does for from had has have he her him his how i if in into is it its me my no not "
    "of on or our she so that the their them then there they this to too up was we were what when where which who will with would you your"
)
STOP_WORDS = frozenset(FUNCTION_WORDS.split())
MAX_REPLY_BYTES = 20_000  # some 3,000 words: a longer one is cut, which the command reports
WORD = re.compile(r"[^\W_]+")


class Searchable(Protocol):
    """What spans are looked up in."""

    def longest(self, text: bytes) -> int:
        """How many of the first bytes of `text` stand somewhere at the beginning of a word."""

    def count(self, text: bytes) -> int:
        """How often a text stands there as whole words."""

    def count_word(self, text: bytes) -> int:
        """The same, remembered."""

    @property
    def num_words(self) -> int:
        """The words of all texts."""


@dataclass(frozen=True)
class Span:
    """Bytes `start` to `stop` of a reply, how often they stand in the training data, and -log2 of the probability of their words."""

    start: int
    stop: int
    text: str
    count: int
    surprise_bits: float


def encoded(reply: str) -> bytes:
    """A reply as bytes, at most MAX_REPLY_BYTES of whole characters. Lone surrogates become "?"."""
    return reply[:MAX_REPLY_BYTES].encode("utf-8", "replace")[:MAX_REPLY_BYTES].decode(errors="ignore").encode()


def maximal_spans(data: Searchable, reply: bytes) -> list[tuple[int, int]]:
    """The start and stop of every maximal span, in order."""
    stops = words.ends(reply)
    found: list[tuple[int, int]] = []
    reached = 0
    for start in words.starts(reply):
        stop = _longest_stop(data, reply, start, stops)
        # The span of an earlier word contains this one unless it ends later.
        if stop > max(start, reached):
            found.append((start, stop))
            reached = stop
    return found


def _longest_stop(data: Searchable, reply: bytes, start: int, stops: Sequence[int]) -> int:
    """Where the longest span that begins at a word ends; `start` if the word stands nowhere."""
    limit = start + data.longest(reply[start:])
    for stop in reversed(stops[bisect_right(stops, start) : bisect_right(stops, limit)]):
        # Before the limit, the training data continues as the reply does, so a word ends there as well.
        if stop < limit or data.count(reply[start:stop]):
            return stop
    return start


def find_spans(data: Searchable, reply: bytes, places: Sequence[tuple[int, int]]) -> list[Span]:
    """The maximal spans, given by their places, that say something, the rarest first."""
    spans = [
        Span(start, stop, text, data.count(reply[start:stop]), surprise_bits(data, text))
        for start, stop in places
        if says_something(text := reply[start:stop].decode(errors="replace"))
    ]
    return sorted(spans, key=lambda span: (-span.surprise_bits, span.start))


def says_something(text: str) -> bool:
    """Whether a text has a word that is no stop word."""
    return any(word.lower() not in STOP_WORDS for word in WORD.findall(text))


def surprise_bits(data: Searchable, text: str) -> float:
    """-log2 of the probability of a text's words if they were drawn one by one from the training data."""
    total = max(data.num_words, 1)
    return sum(math.log2(total / max(data.count_word(word.encode()), 1)) for word in WORD.findall(text))


def uncovered(reply: bytes, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The stretches of whole words that no span covers."""
    stops = words.ends(reply)
    found: list[tuple[int, int]] = []
    is_open = False
    queue = iter([*spans, (len(reply), len(reply))])
    first, last = next(queue)
    for start in words.starts(reply):
        while start >= last:
            first, last = next(queue)
        if start >= first:
            is_open = False
            continue
        stop = stops[bisect_right(stops, start)]
        found.append((found.pop()[0] if is_open else start, stop))
        is_open = True
    return found
