"""Repeated lines: boilerplate that occurs in many documents, such as banners, navigation and legal notices.

Reads texts. Writes, per shard, a sorted array of 64-bit hashes of its documents' lines, each once per document; then, over all shards,
the hashes that occur in too many documents. Lines are compared in lower case, without punctuation and accents, as in CCNet (Wenzek et
al. 2020). Departures: numbers make lines different, documents are counted over all shards instead of within one, and no document
keeps a line that is too frequent.

Takes 8 bytes of disk per line. Hashes are merged in ranges, so that memory holds one range at a time.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import xxhash

from tasks.dedup.minhash import U64, split_words

RECORD_BYTES = 32  # per line of a range while it is sorted and counted


def hash_lines(text: str) -> U64:
    """A hash of every line of `text`; 0 for a line without words."""
    # Numbers count, unlike in MinHash: rows of a table that differ in their figures alone are no boilerplate.
    words = (split_words(line, is_number_zero=False) for line in text.split("\n"))
    return np.array([xxhash.xxh3_64_intdigest(b" ".join(line)) if line else 0 for line in words], np.uint64)


def collect(texts: Iterable[str]) -> U64:
    """The sorted hashes of the lines of all texts, each once per text."""
    # A list that repeats a line is one document with it: the threshold counts documents.
    found = [np.unique(hash_lines(text)) for text in texts]
    lines = np.concatenate([np.zeros(0, np.uint64), *found])
    # Blank lines separate paragraphs and would be the most frequent line of all. Sorted, so that `frequent` finds a
    # range by bisection.
    return np.sort(lines[lines != 0])


def frequent(shards: Sequence[Path], low: int, high: int, max_documents: int) -> U64:
    """The hashes in [low, high] that occur in more than `max_documents` documents. `shards`: sorted arrays."""
    parts = []
    for path in shards:
        # Only the pages of the range are read; each shard's array is as long as its lines.
        lines = np.load(path, mmap_mode="r")
        start, end = np.searchsorted(lines, np.uint64(low)), np.searchsorted(lines, np.uint64(high), "right")
        parts.append(np.array(lines[start:end]))
    # Each array has a hash once per document, so that the count is one of documents, however often a line comes in one.
    values, counts = np.unique(np.concatenate(parts), return_counts=True)
    return np.asarray(values[counts > max_documents])


def without(text: str, unwanted: U64) -> str:
    """Remove the lines whose hashes are in the sorted array `unwanted`."""
    hashes, lines = hash_lines(text), text.split("\n")
    # mode="clip": a hash above all of them has a place after the last, and is compared with the last, which it differs
    # from.
    is_unwanted = np.take(unwanted, np.searchsorted(unwanted, hashes), mode="clip") == hashes
    # Blank lines within stay, those that a removed header or footer leaves at the ends do not.
    return "\n".join(line for line, is_gone in zip(lines, is_unwanted, strict=True) if not is_gone).strip("\n")
