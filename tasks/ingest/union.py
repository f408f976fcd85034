"""One text of several extractors' texts: all that any of them found, in the order of the page, what several found once.

Li et al. 2026 (https://arxiv.org/abs/2602.19548) take the union of what several extractors find, since each misses other pages and parts of
pages. Their unit is the page: a page that one extractor loses to a filter is kept from another. Here it is the paragraph, a line of an
extractor's text, so that a document is extracted once and no page stands in the crawl twice.

Extractors break and space lines differently, so that lines are compared by their words: a line is known where the text has most of its
sequences of NGRAM words. Pure functions of text in linear time.
"""

import re
from collections.abc import Sequence

NGRAM = 4
MAX_KNOWN_FRACTION = 0.5  # of a line's sequences; a line with more is known
WORD = re.compile(r"\w+")
Gram = tuple[str, ...]


def merge(texts: Sequence[str]) -> str:
    """The lines of the first text, and lines of the others that are not known, each after the known line before it."""
    lines = texts[0].splitlines()
    place_of = _places(lines)
    after: dict[int, list[str]] = {}  # lines of the other texts, by the line of the first that they follow; -1: none
    for text in texts[1:]:
        place = -1
        for line in text.splitlines():
            found = grams(WORD.findall(line.lower()))
            places = [place_of[gram] for gram in found if gram in place_of]
            if len(places) > MAX_KNOWN_FRACTION * len(found):
                place = places[-1]  # its last part: the first text may have the line in several
            elif found:
                after.setdefault(place, []).append(line)
                for gram in found:  # what two of the other texts have is taken once
                    place_of.setdefault(gram, place)
    merged = after.get(-1, [])
    for place, line in enumerate(lines):
        merged += [line, *after.get(place, ())]
    return "\n".join(merged).strip("\n")


def _places(lines: Sequence[str]) -> dict[Gram, int]:
    """Of each sequence of words the line in which it first begins; of each line of fewer words that line."""
    words: list[str] = []
    places: list[int] = []
    short: dict[Gram, int] = {}
    for place, line in enumerate(lines):
        found = WORD.findall(line.lower())
        words += found
        places += [place] * len(found)
        if 0 < len(found) < NGRAM:
            short.setdefault(tuple(found), place)
    # Over the ends of lines as well: another extractor may have two lines in one. Of equal ones the last of a dict wins, hence backwards.
    return dict(zip(reversed(grams(words)), reversed(places[: max(1, len(words) - NGRAM + 1)]), strict=False)) | short


def grams(words: Sequence[str]) -> list[Gram]:
    """The sequences of NGRAM words; of fewer words all of them as one."""
    if len(words) < NGRAM:
        return [tuple(words)] if words else []
    return list(zip(*(words[start:] for start in range(NGRAM)), strict=False))
