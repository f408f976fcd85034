"""A suffix array over the words of token shards: where a text stands verbatim, and how often.

Reads token shards through `TokenText`. Writes three files for a shard of the index: `NAME.suffixes.npy`, the places of all words in the
order of what follows them (4 bytes a word), `NAME.keys.npy`, the first KEY_BYTES bytes of every KEY_STRIDE-th of these suffixes, and
`NAME.marks.npy` (see token_text.py). Suffixes and marks are mapped, keys are read into memory: without them the first half of the steps
of a binary search would each wait for another page of the disk.

A suffix array (Manber and Myers 1993) finds a text by binary search. OLMoTrace (Liu et al. 2025, https://arxiv.org/abs/2504.07096)
and infini-gram (Liu et al. 2024, https://arxiv.org/abs/2401.17377) build one over the tokens of a training set. Departures: suffixes begin
at words only, since no span begins inside one, and are sorted by their bytes and not by tokens, which depend on what stands before.

Sorting takes 7 bytes of memory a byte of text (libdivsufsort, Mori 2006: Fischer and Kurz 2017), so an index has shards of bounded size.
"""

import mmap
from bisect import bisect_right
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from model.data.token_stream import TokenStream
from model.files import replacing
from tasks.provenance.token_text import HEAD_BYTES, STRIDE, TokenText, Vocabulary, decode_range, mapped
from tasks.provenance.words import LETTERS, Bytes, ends_in_letter, word_starts

FEW = 4  # suffixes that are read one by one
KEY_STRIDE = 1024  # suffixes between two keys: 4 KiB, a page of memory
KEY_BYTES = 32  # some seven words; 0.03 bytes a suffix
# The bytes at which letters begin and end, in order, and the end of all bytes
BORDERS = (*chain.from_iterable(LETTERS), 0x100)


class Range(NamedTuple):
    """Suffixes `first` up to `stop` in their order."""

    first: int
    stop: int


def build(stream: TokenStream, vocabulary: Vocabulary, first: int, stop: int, path: Path) -> int:
    """Write the three files `path`.*.npy for tokens first to stop. Returns the number of suffixes."""
    from pydivsufsort import divsufsort

    blocks = list(decode_range(stream, vocabulary, first, stop))
    before = np.cumsum(np.concatenate([[0], *(lengths for _, lengths in blocks)]))
    _save(path, "marks", before[:-1:STRIDE].astype(np.uint32))
    text = np.concatenate([block for block, _ in blocks])
    del blocks, before
    order = divsufsort(text)
    # Selected in the sorted order: what is left are the words, sorted.
    chosen = order[word_starts(text)[order]]
    _save(path, "keys", _keys(text, chosen[::KEY_STRIDE]))
    del order, text
    _save(path, "suffixes", chosen.astype(np.uint32))
    return len(chosen)


def _keys(text: Bytes, places: npt.NDArray[np.integer]) -> npt.NDArray[np.bytes_]:
    """The first KEY_BYTES bytes at each place: [N]. What is beyond the end of the text is 0."""
    offsets = places[:, None] + np.arange(KEY_BYTES)
    keys = np.where(offsets < len(text), text[np.minimum(offsets, len(text) - 1)], np.uint8(0))
    return keys.view(f"S{KEY_BYTES}").ravel()


def _save(path: Path, name: str, values: npt.NDArray[Any]) -> None:
    with replacing(path.with_name(f"{path.name}.{name}.npy")) as temporary, temporary.open("wb") as stream:
        np.save(stream, values)


class SuffixArray:
    """One shard of the index, for reading."""

    def __init__(self, stream: TokenStream, vocabulary: Vocabulary, first: int, stop: int, path: Path) -> None:
        """`path`: as `build` had it, with the same tokens first to stop."""
        self.text = TokenText(stream, vocabulary, first, stop, path.with_name(f"{path.name}.marks.npy"))
        self.places = mapped(path.with_name(f"{path.name}.suffixes.npy"), mmap.MADV_RANDOM)
        self.keys = np.load(path.with_name(f"{path.name}.keys.npy"))

    def find(self, text: bytes) -> Range:
        """The suffixes that begin with a text, which must begin at a word."""
        stop = first = self._bound(text, 0, len(self.places), is_upper=False)
        # A long text stands nowhere or seldom: the next suffixes show where it ends without another search.
        while stop < len(self.places) and self._prefix(stop, len(text)) == text:
            stop += 1
            if stop == first + FEW:
                return Range(first, self._bound(text, stop, len(self.places), is_upper=True))
        return Range(first, stop)

    def _near(self, text: bytes, *, is_upper: bool) -> Range:
        """Where `_bound` is, by the keys alone: behind the last key before it, up to the first one beyond it."""
        # Filled up with the largest byte, what begins with the text comes before it. NumPy fills up with zeros.
        bound = text[:KEY_BYTES].ljust(KEY_BYTES if is_upper else 0, b"\xff")
        before, through = (int(self.keys.searchsorted(bound, side)) for side in ("left", "right"))
        return Range(max(0, (before - 1) * KEY_STRIDE + 1), min(through * KEY_STRIDE, len(self.places)))

    def _bound(self, text: bytes, first: int, stop: int, *, is_upper: bool) -> int:
        """The first suffix in the range that does not come before `text`; of `is_upper`, that neither comes before nor begins with it."""
        head = text[:HEAD_BYTES]
        if stop - first > FEW:
            near = self._near(text, is_upper=is_upper)
            first, stop = max(first, near.first), min(stop, near.stop)
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
        if not ends_in_letter(text):
            return found.stop - found.first
        total, place = 0, found.first
        # Without those in which the last word continues. From one border between letters and other bytes to the next: few have suffixes.
        while place < found.stop:
            byte = self._byte_after(text, place)
            border = BORDERS[bisect_right(BORDERS, byte)]
            end = (
                self._bound(text + bytes([border]), place, found.stop, is_upper=False) if border <= 0xFF else found.stop
            )
            total += 0 if is_letter(byte) else end - place
            place = end
        return total

    def _byte_after(self, text: bytes, number: int) -> int:
        """The byte behind the text that a suffix begins with; -1 at the end of all texts."""
        return next(iter(self._prefix(number, len(text) + 1)[len(text) :]), -1)

    def occurrences(self, text: bytes, limit: int) -> list[int]:
        """At most so many places where a text stands as whole words, in the order of what follows."""
        found, places = self.find(text), list[int]()
        is_open = ends_in_letter(text)
        for number in range(*found):
            if len(places) == limit:
                break
            if not (is_open and is_letter(self._byte_after(text, number))):
                places.append(int(self.places[number]))
        return places


def is_letter(byte: int) -> bool:
    """Whether a character that begins with this byte is a letter."""
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
