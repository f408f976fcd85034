"""A suffix array over the words of token shards: where a text stands verbatim, and how often.

Reads token shards through `TokenText`. Writes two files for a shard of the index: `NAME.suffixes.npy`, the places of all words in the
order of what follows them (4 bytes a word), and `NAME.marks.npy` (see token_text.py). Both are read by memory mapping.

A suffix array (Manber and Myers 1993) finds a text by binary search. OLMoTrace (Liu et al. 2025, https://arxiv.org/abs/2504.07096)
and infini-gram (Liu et al. 2024, https://arxiv.org/abs/2401.17377) build one over the tokens of a training set. Departures: suffixes begin
at words only, since no span begins inside one, and are sorted by their bytes and not by tokens, which depend on what stands before.

Sorting takes 7 bytes of memory a byte of text (libdivsufsort, Mori 2006: Fischer and Kurz 2017), so an index has shards of bounded size.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model.data.token_stream import TokenStream
from model.files import replacing
from tasks.provenance.token_text import HEAD_BYTES, STRIDE, TokenText, Vocabulary, decode_range
from tasks.provenance.words import LETTERS, ends_in_letter, word_starts

FEW = 16  # places of which each is read, where counting by binary search would read as many


class Range(NamedTuple):
    """Suffixes `first` up to `stop` in their order."""

    first: int
    stop: int


def build(stream: TokenStream, vocabulary: Vocabulary, first: int, stop: int, path: Path) -> int:
    """Write the files `path`.suffixes.npy and `path`.marks.npy for tokens first to stop. Returns the number of suffixes."""
    from pydivsufsort import divsufsort

    blocks = list(decode_range(stream, vocabulary, first, stop))
    before = np.cumsum(np.concatenate([[0], *(lengths for _, lengths in blocks)]))
    _save(path.with_name(f"{path.name}.marks.npy"), before[:-1:STRIDE])
    text = np.concatenate([block for block, _ in blocks])
    del blocks, before
    order = divsufsort(text)
    # Selected in the sorted order: what is left are the words, sorted.
    chosen = order[word_starts(text)[order]]
    del order, text
    _save(path.with_name(f"{path.name}.suffixes.npy"), chosen)
    return len(chosen)


def _save(path: Path, values: npt.NDArray[np.integer]) -> None:
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, values.astype(np.uint32))


class SuffixArray:
    """One shard of the index, for reading."""

    def __init__(self, text: TokenText, suffixes: Path) -> None:
        self.text = text
        # As a plain array: one element of a np.memmap costs ten times as much, and every step of a search reads one.
        self.places = np.asarray(np.load(suffixes, mmap_mode="r"))

    def find(self, text: bytes, within: Range | None = None) -> Range:
        """The suffixes that begin with a text, which must begin at a word."""
        first, stop = within or Range(0, len(self.places))
        low = self._bound(text, first, stop, is_upper=False)
        return Range(low, self._bound(text, low, stop, is_upper=True))

    def _bound(self, text: bytes, first: int, stop: int, *, is_upper: bool) -> int:
        """The first suffix in the range that does not come before `text`; of `is_upper`, that neither comes before nor begins with it."""
        head = text[:HEAD_BYTES]
        while first < stop:
            middle = (first + stop) // 2
            found = self._prefix(middle, len(head))
            # The rest is read only where the head, which is remembered, does not decide.
            if found == head and len(text) > HEAD_BYTES:
                found = self._prefix(middle, len(text))
            if found < text or (is_upper and found == text):
                first = middle + 1
            else:
                stop = middle
        return first

    def _prefix(self, number: int, num_bytes: int) -> bytes:
        """The first bytes of a suffix."""
        place = self.places.item(number)
        return self.text.head(place)[:num_bytes] if num_bytes <= HEAD_BYTES else self.text.read(place, num_bytes)

    def longest(self, text: bytes) -> int:
        """How many of the first bytes of `text` stand somewhere at the beginning of a word."""
        size = HEAD_BYTES
        # In steps: most spans are short, and a reply may have 100,000 bytes.
        while (found := self._longest(text[:size])) == size < len(text):
            size *= 8
        return found

    def _longest(self, text: bytes) -> int:
        # In the order of suffixes, the ones that share most with a text are its neighbours.
        place = self._bound(text, 0, len(self.places), is_upper=False)
        near = [number for number in (place - 1, place) if 0 <= number < len(self.places)]
        return max((shared(self._prefix(number, len(text)), text) for number in near), default=0)

    def count(self, text: bytes) -> int:
        """How often a text stands there as whole words."""
        found = self.find(text)
        total = found.stop - found.first
        if not ends_in_letter(text):
            return total
        if total <= FEW:
            return len(self.occurrences(text, FEW))
        # Without those in which the last word continues: these are a few ranges, by their next byte.
        for low, high in LETTERS:
            begin = self._bound(text + bytes([low]), *found, is_upper=False)
            total -= self._bound(text + bytes([high]), begin, found.stop, is_upper=False) - begin
        return total

    def occurrences(self, text: bytes, limit: int) -> list[int]:
        """At most so many places where a text stands as whole words, in the order of what follows."""
        found, places = self.find(text), list[int]()
        is_open = ends_in_letter(text)
        for number in range(*found):
            if len(places) == limit:
                break
            following = self._prefix(number, len(text) + 1)[len(text) :]
            if not (is_open and following and _is_letter(following[0])):
                places.append(int(self.places[number]))
        return places


def _is_letter(byte: int) -> bool:
    return any(low <= byte < high for low, high in LETTERS)


def shared(one: bytes, two: bytes) -> int:
    """The number of bytes that two texts begin with alike."""
    length = min(len(one), len(two))
    # Halving and not a loop over bytes: equal slices are compared by memcmp.
    low, high = 0, length
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == two[:middle] else (low, middle - 1)
    return low
