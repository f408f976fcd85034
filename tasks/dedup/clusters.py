"""Clusters of duplicates, and which document of each cluster is kept.

Reads and writes columns (tasks/dedup/columns.py), which are indexed by the document's number. In memory a few bytes per document are kept,
indexed by its rank: rank 0 is the best of all documents, so the lowest rank of a cluster is the document that stays.

Data that does not fit into memory is processed in parts: ranking by ranges of length, equal keys by ranges of the keys, since equal
keys then lie in one part. The result does not depend on the number of parts.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tasks.dedup.columns import Column, even_ranges, quantile_ranges, select

Integers = npt.NDArray[np.signedinteger[Any]]
Codes = npt.NDArray[np.uint16]  # reason to drop a document; 0: kept
U64 = npt.NDArray[np.uint64]
V = TypeVar("V", bound=np.generic)

# Work per block costs temporary arrays: of 65,536 documents about 0.5 MB each, where arrays of all of them would add to
# held_bytes.
BLOCK_DOCUMENTS = 1 << 16
# Two sketches of 112 bytes for each pair: 3.7 MB.
BLOCK_PAIRS = 1 << 14
# Ranking needs most: a number, a key and three further values of 8 bytes, which exist as blocks and concatenated, and
# the order that lexsort returns. A test measures that the merge stays within the bound.
RECORD_BYTES = 96  # per document of a part while it is selected and sorted
KEPT = 0


def integer(num: int) -> np.dtype[Any]:
    """The integer type for ranks and numbers of `num` documents."""
    return np.dtype(np.int32 if num < 2**31 else np.int64)


def held_bytes(num: int) -> int:
    """Bytes of memory for all documents: number, parent, size, rank and reason of each."""
    return num * (4 * integer(num).itemsize + 2)


# Ranks


def rank(columns: Mapping[str, Column], files: U64, num: int, num_parts: int) -> Integers:
    """The numbers of all documents, best first: the longest, then by file and offset, then by the hash of the id.

    `files`: hashes of all file names, in the order of the names.
    """
    # Ranges come with rising length, and the best rank is the longest document: the array is filled from its end.
    numbers, end = np.empty(num, integer(num)), num
    order_of_files = np.argsort(files)
    others = [columns[name] for name in ("file", "offset", "id")]
    for low, high in quantile_ranges(columns["num_characters"], num, num_parts):
        found, lengths, file, offset, name = select(columns["num_characters"], others, num, low, high)
        # The column holds hashes of file names, whose order is random: the place of each hash's name among all names
        # gives the order by name.
        file = order_of_files[np.searchsorted(files, file, sorter=order_of_files)]
        end -= len(found)
        # lexsort takes the most important key last. The id at the end decides between documents of one offset, so that
        # the result never depends on the order in which shards are read.
        numbers[end : end + len(found)] = found[np.lexsort((name, offset, file, -lengths))]
    return numbers


def write_ranks(ranks: Column, numbers: Integers, dropped: Codes) -> None:
    """Write the rank of every document that is not dropped, and -1 for the others."""
    ranked = np.full(len(numbers), -1, ranks.dtype)
    for start in range(0, len(numbers), BLOCK_DOCUMENTS):
        kept = start + np.flatnonzero(dropped[start : start + BLOCK_DOCUMENTS] == KEPT)
        ranked[numbers[kept]] = kept
    ranks.write(0, ranked)


def by_number(numbers: Integers, values: npt.NDArray[V]) -> npt.NDArray[V]:
    """Reorder `values` from ranks to document numbers."""
    ordered = np.empty_like(values)
    for start in range(0, len(numbers), BLOCK_DOCUMENTS):
        block = slice(start, start + BLOCK_DOCUMENTS)
        ordered[numbers[block]] = values[block]
    return ordered


# Pairs


def equal_pairs(keys: U64, ranks: Integers) -> tuple[Integers, Integers]:
    """Pairs of neighbouring ranks with an equal key: the one and the next. Ranks below 0 are ignored."""
    # Neighbours suffice for equal values, since union-find joins the chain; all pairs of n documents with one key would be n^2 / 2.
    # With MinHash a pair that is similar, although neither is similar to the documents between them, is found by another band only.
    keys, ranks = keys[ranks >= 0], ranks[ranks >= 0]
    order = np.lexsort((ranks, keys))
    is_equal = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    return ranks[order[is_equal]], ranks[order[is_equal + 1]]


class Clusters:
    """Union-find over ranks 0 to `num` - 1 in one array, vectorised. The lowest rank of a cluster is its root."""

    def __init__(self, num: int) -> None:
        self.parents = np.arange(num, dtype=integer(num))

    def roots(self, ranks: Integers) -> Integers:
        """The root of each rank's cluster."""
        # Few rounds: a join leaves the ranks it changed at their root, and only later joins of that root add a step.
        while ((above := self.parents[ranks]) != ranks).any():
            ranks = above
        return ranks

    def join(self, ones: Integers, others: Integers) -> None:
        """Merge the clusters of each pair: roots are set to the lowest root they are paired with, until all pairs agree."""
        # A root that is paired with several lower ones takes the lowest of them; the other pairs are still apart and go
        # into the next round. Each round lowers at least one root, so it ends.
        while len(ones):
            ones, others = self.roots(ones), self.roots(others)
            is_apart = ones != others
            ones, others = ones[is_apart], others[is_apart]
            lower, higher = np.minimum(ones, others), np.maximum(ones, others)
            # `parents[higher] = lower` would keep the last of several pairs with one root; this keeps the lowest.
            np.minimum.at(self.parents, higher, lower)
            self._shorten(higher)

    def _shorten(self, ranks: Integers) -> None:
        """Path halving, until every rank points at its root; a chain of n takes log n rounds."""
        while ((above := self.parents[self.parents[ranks]]) != self.parents[ranks]).any():
            self.parents[ranks] = above

    def settle(self) -> None:
        """Set `parents` to the root of each rank's cluster. Roots are never higher, so earlier blocks are final."""
        # In blocks: temporary arrays of all documents would add to the memory that is held for each.
        for start in range(0, len(self.parents), BLOCK_DOCUMENTS):
            ranks = self.parents[start : start + BLOCK_DOCUMENTS]
            ranks[:] = self.roots(ranks)

    def sizes(self) -> Integers:
        """Documents in the cluster of each root, after `settle`; 0 for every other rank."""
        sizes = np.zeros_like(self.parents)
        for start in range(0, len(self.parents), BLOCK_DOCUMENTS):
            found, counts = np.unique(self.parents[start : start + BLOCK_DOCUMENTS], return_counts=True)
            sizes[found] += counts.astype(sizes.dtype)
        return sizes


def join_equal(clusters: Clusters, keys: Column, ranks: Column, num: int, num_parts: int) -> None:
    """Merge the documents that have a rank and an equal key."""
    for low, high in even_ranges(num_parts):
        _, found, places = select(keys, [ranks], num, low, high)
        clusters.join(*equal_pairs(found, places))


def join_similar(
    clusters: Clusters, pairs: Iterable[Path], sketches: Column, numbers: Integers, jaccard_threshold: float
) -> None:
    """Merge the pairs of ranks, (2, P) in each file, whose sketches agree enough. Pairs already in one cluster are skipped unread."""
    for path in pairs:
        found = np.load(path)
        for start in range(0, found.shape[1], BLOCK_PAIRS):
            ones, others = found[:, start : start + BLOCK_PAIRS]
            # Sketches are read from disk one by one, so pairs that another band has joined already are left out first.
            is_apart = clusters.roots(ones) != clusters.roots(others)
            ones, others = ones[is_apart], others[is_apart]
            # (pairs, H) booleans; the mean over H estimates the Jaccard similarity of a pair.
            is_equal = sketches.take(numbers[ones]) == sketches.take(numbers[others])
            is_similar = is_equal.mean(axis=1) >= jaccard_threshold
            clusters.join(ones[is_similar], others[is_similar])


def mark_dropped(clusters: Clusters, dropped: Codes, code: int, num_known: int) -> None:
    """Give `code` to every rank that is no longer a root and has no code yet, except the known documents, which come first."""
    for start in range(num_known, len(dropped), BLOCK_DOCUMENTS):
        codes = dropped[start : start + BLOCK_DOCUMENTS]
        ranks = np.arange(start, start + len(codes))
        # A rank never becomes a root again, so a code once given stays right. A document whose parent is not its root
        # yet is dropped as well: only whether it is a root matters here.
        codes[(clusters.parents[ranks] != ranks) & (codes == KEPT)] = code


def num_parts(num: int, part_bytes: int) -> int:
    """The number of parts of `num` documents, so that one takes at most `part_bytes` of memory."""
    # Rounded up: a part that is a little too large would break the bound.
    return max(-(-num * RECORD_BYTES // part_bytes), 1)
