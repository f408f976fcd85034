"""What a search shows of a text: the sentences around the best one, or the best sentences of several passages.

Reads and writes nothing. Words are compared by how they begin, so that "works" and "working" are the same, and without marks of letters, as the
index compares them. Not FTS5's snippet(), which cuts sentences: a reader, and a small model more so, needs whole ones.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence

WORD = re.compile(r"\w+")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
STEM_CHARACTERS = 4  # that are compared at least
REFERRING = re.compile(r"\b(?:he|she|it|him|his|her|its|they|their|this|these)\b", re.IGNORECASE)
# What a word counts that stands in the passage before the sentence: before one such as "She works as ...", and before any other.
REFERRED, EARLIER = 0.9, 0.3
MAX_PASSAGE_CHARACTERS = 1_000_000


def passage(text: str, words: Sequence[str], max_characters: int) -> str:
    """The sentences around the one that has most of the words, at most `max_characters` long."""
    sentences = _sentences(text)
    if not sentences:
        return ""
    # Long words first: they are rarer than "the" and "is", which every sentence has.
    weights = {stem: float(len(stem)) for stem in map(_stem, words)}
    found = [_weight(_found(sentence, weights), weights) for sentence in sentences]
    first = last = max(range(len(sentences)), key=lambda number: (found[number], -number))
    length = len(sentences[first])
    # Forward first: what follows a name is usually about it ("She works as ...").
    while last + 1 < len(sentences) and length + 1 + len(sentences[last + 1]) <= max_characters:
        last += 1
        length += 1 + len(sentences[last])
    while first and length + 1 + len(sentences[first - 1]) <= max_characters:
        first -= 1
        length += 1 + len(sentences[first])
    return _cut(" ".join(sentences[first : last + 1]), max_characters)


def best_sentences(passages: Sequence[str], weights: Mapping[str, float], num: int, max_characters: int) -> list[str]:
    """The sentences of all passages whose words weigh most, each once and cut to `max_characters`, the best first.

    `weights`: of the words of a query. A sentence has at least one of them; one that stands in the same passage before it counts for it too,
    less. Questions are left out: they have a query's words, and answer nothing. Of a sentence such as "She works as a
    baker." rarer words that stand before it are shown, too: "ada brell ... She works as a baker."
    """
    stems: dict[str, float] = {}
    for word, weight in weights.items():
        stems[_stem(word)] = max(weight, stems.get(_stem(word), 0.0))
    scores: dict[str, float] = {}
    for text in passages:
        earlier: set[str] = set()
        for sentence in _sentences(text):
            here = _found(sentence, stems)
            counted = REFERRED if REFERRING.search(sentence) else EARLIER
            score = _weight(here, stems) + counted * _weight(earlier - here, stems)
            if here and not sentence.endswith("?"):
                shown = _with_names(sentence, here, earlier, weights, stems)
                scores[shown] = max(score, scores.get(shown, 0.0))
            earlier |= here
    # A sort keeps the order of equals, that of the passages.
    best = sorted(scores, key=lambda sentence: -scores[sentence])
    return [_cut(sentence, max_characters) for sentence in best[:num]]


def _with_names(
    sentence: str, here: set[str], earlier: set[str], weights: Mapping[str, float], stems: Mapping[str, float]
) -> str:
    """A sentence about "her" or "it" behind the words of a query that stand before it and are rarer than those in it; any other as it is."""
    if not REFERRING.search(sentence):
        return sentence
    heaviest = max(stems[stem] for stem in here)
    rarer = {stem for stem in earlier - here if stems[stem] > heaviest}
    before = " ".join(word for word in weights if _stem(word) in rarer)
    return f"{before} ... {sentence}" if before else sentence


def _sentences(text: str) -> list[str]:
    return [
        sentence for part in SENTENCE_END.split(text[:MAX_PASSAGE_CHARACTERS]) if (sentence := " ".join(part.split()))
    ]


def _stem(word: str) -> str:
    plain = _plain(word)
    return plain[: max(STEM_CHARACTERS, len(plain) - 3)]


def _plain(text: str) -> str:
    """In lower case and without marks: Dvořák as Dvorak."""
    if text.isascii():  # most sentences, in a tenth of the time
        return text.lower()
    return "".join(sign for sign in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(sign))


def _found(sentence: str, stems: Mapping[str, float]) -> set[str]:
    """The stems with which a word of the sentence begins."""
    plain = _plain(sentence)
    # Most stems are not in a sentence at all, which is found out sooner than where its words begin.
    return {stem for stem in stems if stem in plain and re.search(rf"\b{stem}", plain)}


def _weight(found: set[str], weights: Mapping[str, float]) -> float:
    # Sorted: the sum of floats depends on their order, and that of a set on the process.
    return sum(weights[stem] for stem in sorted(found))


def _cut(text: str, max_characters: int) -> str:
    return text if len(text) <= max_characters else f"{text[:max_characters].rsplit(' ', 1)[0]} ..."
