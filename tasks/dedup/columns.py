"""Columns: one value per document in one file per column, so that billions of documents need no memory.

Reads and writes bare little-endian arrays without a header: the value of document n lies at n times the width. Documents are numbered
across all shards, so workers write their own range of one file, and a merge reads single columns.

A table too large for memory is sorted or grouped in parts: `select` takes the documents whose key lies in a range, and hashed keys
are spread evenly over ranges.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]
# Of the widest column of a scan: a million keys of 8 bytes are read in eight blocks.
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Column:
    """One value of `dtype` per document; `dtype` may be a fixed-size array."""

    path: Path
    dtype: np.dtype[Any]

    def create(self) -> None:
        """Create an empty file unless it exists: writers may start anywhere in it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()

    def write(self, first: int, values: Values) -> None:
        """Write the values of the documents from number `first` on."""
        # Not "wb", which would cut off what other workers wrote, nor "ab", which ignores seek. A hole that no one has
        # written yet reads as zeros.
        with self.path.open("r+b") as stream:
            stream.seek(first * self.dtype.itemsize)
            np.ascontiguousarray(values, self.dtype.base).tofile(stream)

    def read(self, first: int, num: int) -> Values:
        """The values of `num` documents from number `first` on."""
        # No memory map: pages of a map count as memory of this process while they are resident, and the bound of the
        # merge would be gone.
        return np.fromfile(self.path, self.dtype, num, offset=first * self.dtype.itemsize)

    def take(self, numbers: Values) -> Values:
        """The values of the documents with these numbers, in any order."""
        width = self.dtype.itemsize
        with self.path.open("rb") as stream:
            # pread takes its offset as an argument, so none of the reads has to seek. For neighbouring numbers `read`
            # is the faster way.
            found = b"".join(os.pread(stream.fileno(), width, number * width) for number in numbers.tolist())
        return np.frombuffer(found, self.dtype)


def blocks(columns: Sequence[Column], num: int) -> Iterator[tuple[int, list[Values]]]:
    """Iterate over `num` documents in blocks: the first number, and the values of each column."""
    length = BLOCK_BYTES // max(column.dtype.itemsize for column in columns)
    for first in range(0, max(num, 1), length):  # without documents, one block of empty arrays
        yield first, [column.read(first, min(length, num - first)) for column in columns]


def select(key: Column, others: Sequence[Column], num: int, low: int, high: int) -> list[Values]:
    """The documents whose key is in [low, high]: their numbers, their keys, and their values in the other columns."""
    # One scan of the whole column for each part. Sorting on disk would read and write it several times.
    found = []
    for first, (keys, *values) in blocks([key, *others], num):
        places = np.flatnonzero((keys >= low) & (keys <= high))
        found.append([places + first, *(column[places] for column in (keys, *values))])
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def even_ranges(num: int) -> list[tuple[int, int]]:
    """Divide the unsigned 64-bit numbers into `num` ranges of equal size, ends included."""
    # Python's integers: 2^64 does not fit any of NumPy's.
    edges = [place * 2**64 // num for place in range(num + 1)]
    return [(low, high - 1) for low, high in pairwise(edges)]


def quantile_ranges(column: Column, num_documents: int, num: int) -> list[tuple[int, int]]:
    """Divide the values of an integer column into at most `num` ranges, ends included, with about as many documents in each."""
    # A sample of some 100,000 values is enough: ranges need not be equal, and the result does not depend on them.
    every = max(num_documents // 100_000, 1)
    known = np.sort(np.concatenate([values[::every] for _, (values,) in blocks([column], num_documents)]))
    # Frequent values (many documents of equal length) make equal edges; `unique` merges their ranges, which is why
    # there may be fewer. A range that one value fills alone can be larger than a part was meant to be.
    edges = np.unique(known[np.arange(1, num) * len(known) // num])
    whole = np.iinfo(column.dtype)
    # The outer ranges reach to the ends of the type, so that values the sample missed have a range too.
    return [(low + 1, high) for low, high in pairwise([int(whole.min) - 1, *edges.tolist(), int(whole.max)])]
