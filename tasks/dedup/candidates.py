"""Candidate pairs of duplicates, and the clusters they form, with bounded memory.

Reads and writes columns (tasks/dedup/columns.py). Three rules, each applied to the documents that the rule before left: equal URLs,
equal texts, and an equal MinHash band with enough equal hashes in total. The first two are merged here, in parts. Candidate pairs
with an equal band are found by all workers, one band and one range of its keys at a time, and compared here; a pair already in one
cluster is skipped.

Costs 18 bytes of memory per document (34 beyond 2^31 documents), plus what max_memory_bytes leaves for parts, plus about 10 MB.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from pydantic import Field

from model.config import runtime
from model.errors import UserError
from model.files import replacing
from tasks.dedup import clusters, signatures
from tasks.dedup.clusters import Clusters, Codes, Integers
from tasks.dedup.columns import Column, even_ranges, select
from tasks.dedup.signatures import SigningConfig
from tasks.execution.context import StageContext
from tasks.execution.shards import Counts, map_shards, tick

RULES = ("url", "content", "minhash")
REASONS = ("kept", *(f"duplicate/{rule}" for rule in RULES))
WORKER_BYTES = 1 << 28  # with less, a worker would read all keys too often
IDS_BYTES = 400  # ids of a duplicate and of the document kept for it


class MergeConfig(SigningConfig):
    """Which documents count as duplicates."""

    by_url: bool = Field(True, description="Keep one document of each URL.")
    by_content: bool = Field(True, description="Keep one document of each text.")
    # FineWeb aims at a similarity of 0.75 with its bands alone (Penedo et al. 2024), where a pair at 0.6 slips in
    # with probability 1 - (1 - 0.6^8)^14 = 0.21. The estimate over all hashes refuses most of those.
    jaccard_threshold: float = Field(
        0.7,
        ge=0,
        le=1,
        description="Minimum estimated Jaccard similarity of two near duplicates: the fraction of equal hashes. At 0 one equal band is enough.",
    )
    max_memory_bytes: int = runtime(
        2 << 30,
        ge=1,
        description="Memory for merging, over all processes. Data that does not fit is processed in parts.",
    )
    num_workers: int = runtime(0, ge=0, le=1024, description="Worker processes; 0: one per core.")


@dataclass(frozen=True)
class Work:
    """What all passes need: the folders of the artifact and its state, the settings, the number of documents."""

    folder: Path
    state: Path
    config: MergeConfig
    num_documents: int

    @cached_property
    def columns(self) -> dict[str, Column]:
        """The columns, indexed by document number: signature, rank (-1: dropped), cluster size and reason."""
        folder, integer = self.state / "columns", clusters.integer(self.num_documents)
        verdict = {"rank": integer, "cluster_size": integer, "reason": np.dtype(np.uint16)}
        return {
            **signatures.columns(folder, self.config),
            **{name: Column(folder / name, dtype) for name, dtype in verdict.items()},
        }

    @cached_property
    def spare_bytes(self) -> int:
        """Bytes of memory for parts. Raises UserError if the data held per document leaves none."""
        held, memory = clusters.held_bytes(self.num_documents), self.config.max_memory_bytes
        # Before any document is signed (prepare asks first): hours of signing would be lost otherwise.
        if held >= memory:
            raise UserError(
                f"dedup.max_memory_bytes={memory:,} is too small: merging {self.num_documents:,} documents takes {held:,} bytes; "
                f"set it to {2 * held:,} or more"
            )
        return memory - held

    @property
    def num_merging(self) -> int:
        """Workers that search for pairs at the same time."""
        # The spare memory is divided among the workers that search for pairs; fewer with larger parts scan the columns
        # less often.
        num_workers = self.config.num_workers or os.cpu_count() or 1
        return max(min(num_workers, self.spare_bytes // WORKER_BYTES), 1)


@dataclass(frozen=True)
class Part:
    """The documents whose key in a column lies in [low, high]; their candidate pairs are written to `target`."""

    work: Work
    key: str
    low: int
    high: int
    target: Path


class Verdicts(NamedTuple):
    """Indexed by rank: each document's number, its cluster, and the code of the reason to drop it."""

    numbers: Integers
    clusters: Clusters
    dropped: Codes


def assign_clusters(ctx: StageContext, work: Work, paths: Sequence[Path], num_known: int) -> Verdicts:
    """Find the clusters of all documents. `paths`: the shards of the new ones; the first `num_known` documents are known."""
    columns, config, num = work.columns, work.config, work.num_documents
    num_parts = clusters.num_parts(num, work.spare_bytes)
    verdicts = Verdicts(rank(work, paths, num_parts), Clusters(num), np.zeros(num, np.uint16))
    # The cheapest rule first: each sees only the documents that the rules before left, so that few are compared by MinHash.
    for code, rule in enumerate(RULES, start=1):
        clusters.write_ranks(columns["rank"], verdicts.numbers, verdicts.dropped)
        if not getattr(config, f"by_{rule}"):
            continue
        if rule == "minhash":
            # Workers find the pairs, this process joins them: the array of parents cannot be shared without locks.
            pairs, sketches = find_pairs(ctx, work), columns["sketch"]
            clusters.join_similar(verdicts.clusters, pairs, sketches, verdicts.numbers, config.jaccard_threshold)
        else:
            clusters.join_equal(verdicts.clusters, columns[rule], columns["rank"], num, num_parts)
        # Clusters carry over from rule to rule: a chain of an equal URL and a near duplicate is one cluster, with one
        # document kept.
        clusters.mark_dropped(verdicts.clusters, verdicts.dropped, code, num_known)
    clusters.write_ranks(columns["rank"], verdicts.numbers, verdicts.dropped)
    # From here on `parents` holds roots, as `sizes` and `write_clusters` expect.
    verdicts.clusters.settle()
    return verdicts


def rank(work: Work, paths: Sequence[Path], num_parts: int) -> Integers:
    """The numbers of all documents, best first."""
    # Only this column is read, one shard after the other. A crawl of Common Crawl has some 90,000 files.
    names = {name for path in paths for name in pq.read_table(path, columns=["file"])["file"].unique().to_pylist()}
    files = np.concatenate(
        [np.zeros(1, np.uint64), signatures.hash_texts(sorted(names))]
    )  # known documents have file 0
    return clusters.rank(work.columns, files, work.num_documents, num_parts)


def find_pairs(ctx: StageContext, work: Work) -> list[Path]:
    """Files of candidate pairs of ranks, written by all workers: one per band and range of its keys."""
    num_parts = clusters.num_parts(work.num_documents, work.spare_bytes // work.num_merging)
    parts = {
        f"{band}-{place}-of-{num_parts}": Part(
            work, band, low, high, work.state / f"pairs/{band}-{place}-of-{num_parts}.npy"
        )
        for band in signatures.bands(work.config)
        for place, (low, high) in enumerate(even_ranges(num_parts))
    }
    total = work.num_documents * work.config.num_bands
    map_shards(ctx, pair_part, list(parts.items()), num_workers=work.num_merging, total=total, unit="bands")
    return [part.target for part in parts.values()]


def pair_part(part: Part) -> Counts:
    """Write the pairs with equal keys, among documents that have a rank and an n-gram."""
    # A document without an n-gram has the same band keys as every other such document, and is similar to none.
    columns = part.work.columns
    others = [columns["rank"], columns["is_signed"]]
    numbers, keys, ranks, is_signed = select(columns[part.key], others, part.work.num_documents, part.low, part.high)
    save(part.target, np.stack(clusters.equal_pairs(keys[is_signed], ranks[is_signed])))
    tick(len(numbers))
    return {}


def write_clusters(path: Path, work: Work, sources: Sequence[tuple[int, Path]], verdicts: Verdicts) -> None:
    """Write a line per duplicate, best first: {"id", "kept", "reason"}. `sources`: see read_ids."""
    numbers, found, dropped = verdicts
    # As many documents at a time as their ids fit into the memory that is left: each block reads the ids of the shards
    # that it needs again.
    length = max(work.spare_bytes // IDS_BYTES, 1)
    with path.open("w", encoding="utf-8") as stream:
        for start in range(0, len(numbers), length):
            ranks = start + np.flatnonzero(dropped[start : start + length])
            # After `settle` the parent of a rank is the document that is kept for it. `ids` holds those of the
            # duplicates, then those of the kept.
            ids = read_ids(sources, numbers[np.concatenate([ranks, found.parents[ranks]])])
            for one, kept, code in zip(ids, ids[len(ranks) :], dropped[ranks].tolist(), strict=False):
                stream.write(f"{json.dumps({'id': one, 'kept': kept, 'reason': REASONS[code]})}\n")


def read_ids(sources: Sequence[tuple[int, Path]], numbers: Integers) -> list[str]:
    """The ids of the documents with these numbers. `sources`: the files, each with the number of its first document."""
    # Sorted by number, so that each file is read once, however the documents of a cluster are spread.
    ids, order = np.empty(len(numbers), object), np.argsort(numbers)
    ends = [*np.searchsorted(numbers[order], [first for first, _ in sources]), len(numbers)]
    for (first, path), start, end in zip(sources, ends, ends[1:], strict=False):
        if start < end:
            places = numbers[order[start:end]] - first
            ids[order[start:end]] = pq.read_table(path, columns=["id"])["id"].take(places).to_pylist()
    found: list[str] = ids.tolist()
    return found


def save(path: Path, values: npt.NDArray[Any]) -> None:
    """Write an array atomically."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, values)
