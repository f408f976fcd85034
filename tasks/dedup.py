"""Dedup: of documents that are the same, or nearly, one.

Reads Documents. Writes Documents: documents/NAME.parquet with what is kept, dropped/NAME.parquet with every other
document and the reason, and clusters.jsonl, a dropped document a line: {"id", "kept", "reason"}. A kept document's
`num_duplicates` says how many were dropped for it.

Three passes, each over what the one before left: the same address (duplicate/url), the same text (duplicate/content),
and nearly the same text (duplicate/minhash) by MinHash (Broder 1997) with banding (Leskovec et al., Mining of Massive
Datasets, ch. 3), with FineWeb's parameters: 14 bands of 8 hashes over runs of 5 words. Two documents whose runs have
Jaccard similarity s share a band with probability 1 - (1 - s^8)^14: 0.05 at s = 0.5, 0.56 at 0.7, 0.92 at 0.8, 1.00 at
0.9. Of those that do, the 112 hashes give an estimate of s, to 0.04: below 0.7 they are left alone. What is alike by
way of others is one cluster. Of a cluster the longest document is kept, then the one that is first by file and offset.
A document of less than 5 words has no run and is no near duplicate.

It departs from FineWeb's code in that addresses and texts are compared first, that similarity is estimated where a band
is equal, and that the best document is kept, not the first that comes. Costs about 1 kB of memory and 30 microseconds a
document in the one process that merges, and per core and second some 5 MB of text in those that sign.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from pydantic import Field

from tasks import addresses, minhash
from tasks.artifacts import Config, Documents, Outcome, Step, runtime
from tasks.executor import Counts, map_shards, tick
from tasks.shards import Document, read_documents
from tasks.sieve import Sieve, funnel
from tasks.stage import Run

VERSION = 1
BEST_FIRST = [("num_characters", "descending"), ("file", "ascending"), ("offset", "ascending"), ("id", "ascending")]


class DedupConfig(Config):
    """What counts as the same."""

    by_url: bool = Field(True, description="Drop documents of the same address, but for one.")
    by_content: bool = Field(True, description="Drop documents of the same text, but for one.")
    by_minhash: bool = Field(True, description="Drop documents of nearly the same text, but for one.")
    num_bands: int = Field(14, ge=1, le=200, description="One band that is equal makes two documents near duplicates.")
    hashes_per_band: int = Field(8, ge=1, le=50, description="Smallest hashes that must all be equal in a band.")
    run_words: int = Field(5, ge=1, le=50, description="Words in a run; documents are compared by their runs of words.")
    min_similarity: float = Field(
        0.7,
        ge=0,
        le=1,
        description="Of all hashes, those that must be equal: an estimate of the similarity. 0 lets one equal band do.",
    )
    seed: int = Field(1, ge=0, description="Of the hash functions.")
    num_workers: int = runtime(0, ge=0, le=1024, description="Worker processes; 0 is one a core.")


def dedup(documents: Step[Documents], config: DedupConfig) -> Step[Documents]:
    return Step("dedup", VERSION, Documents, config, {"documents": documents}, run=run)


def run(run: Run, config: DedupConfig, documents: Documents) -> Outcome:
    """Signs every shard, finds the clusters of all, writes every shard without what is dropped."""
    paths = documents.files("documents/*.parquet")
    shards = [(path.stem, Shard(number, path, run.folder, run.state, config)) for number, path in enumerate(paths)]
    settings: dict[str, Any] = {
        "num_workers": config.num_workers or os.cpu_count() or 1,
        "total": documents.manifest.counts["documents"],
        "unit": "documents",
    }
    map_shards(run, sign_shard, [(f"sign-{name}", shard) for name, shard in shards], **settings)
    verdicts = judge(pa.concat_tables(pq.read_table(shard.signatures) for _, shard in shards), config)
    write_clusters(run.folder / "clusters.jsonl", verdicts)
    write_verdicts([shard for _, shard in shards], verdicts)
    counts = map_shards(run, write_shard, [(f"write-{name}", shard) for name, shard in shards], **settings)
    run.table("funnel", funnel(counts), "Documents kept, and dropped by reason")
    return Outcome(counts)


@dataclass(frozen=True)
class Shard:
    """One shard: where it is, where its signatures, verdicts and documents go."""

    number: int
    source: Path
    folder: Path
    state: Path
    config: DedupConfig

    @property
    def signatures(self) -> Path:
        return self.state / "signatures" / self.source.name

    @property
    def verdicts(self) -> Path:
        return self.state / "verdicts" / self.source.name


# Pass one: what is compared, of each document


def sign_shard(shard: Shard) -> Counts:
    """Write the records of a shard."""
    write_table(sign(ticking(read_documents(shard.source)), shard.number, shard.config), shard.signatures)
    return {}


def ticking(documents: Iterable[Document]) -> Iterator[Document]:
    for document in documents:
        yield document
        tick()


def sign(documents: Iterable[Document], shard: int, config: DedupConfig) -> pa.Table:
    """A record of every document: where it is, what it is compared by, and what makes it the best of its cluster."""
    functions = minhash.hash_functions(config.num_bands * config.hashes_per_band, config.seed)
    records = []
    for place, document in enumerate(documents):
        text = document["text"]
        records.append(
            {
                "shard": shard,
                "place": place,
                **{name: document[name] for name in ("id", "file", "offset")},
                "num_characters": len(text),
                "url": hash_text(addresses.normalise(document["url"]) or document["id"]),
                "content": hash_text(text.strip()),
                **signature_of(text if config.by_minhash else "", config, functions),
            }
        )
    return pa.Table.from_pylist(records, schema(config))


def schema(config: DedupConfig) -> pa.Schema:
    return pa.schema(
        [
            *((name, pa.int64()) for name in ("shard", "place", "offset", "num_characters")),
            *((name, pa.string()) for name in ("id", "file")),
            *((name, pa.uint64()) for name in ("url", "content")),
            ("is_signed", pa.bool_()),
            ("bands", pa.list_(pa.uint64(), config.num_bands)),
            ("sketch", pa.list_(pa.uint8(), config.num_bands * config.hashes_per_band)),
        ]
    )


def signature_of(text: str, config: DedupConfig, functions: tuple[minhash.U64, minhash.U64]) -> dict[str, Any]:
    """The band keys and the sketch of a text; it is not signed where it has fewer words than a run."""
    runs = minhash.hash_runs(minhash.split_words(text), config.run_words)
    signature = minhash.sign(runs, *functions)
    return {
        "is_signed": len(runs) > 0,
        "bands": minhash.band_keys(signature, config.num_bands),
        "sketch": minhash.sketch(signature),
    }


def hash_text(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode())


# Between: which documents are one


def judge(table: pa.Table, config: DedupConfig) -> pa.Table:
    """What becomes of each document, in the order of preference, in which the first of a cluster is its best.

    `kept` is the id of the one that stays, `reason` is null for that, and `num_duplicates` counts those dropped for it.
    """
    table = table.sort_by(BEST_FIRST)
    clusters = minhash.Clusters(len(table))
    reasons = np.full(len(table), None, object)
    for rule, find_pairs in RULES.items():
        if getattr(config, f"by_{rule}"):
            alive = np.flatnonzero(reasons == None)  # noqa: E711 - by element
            for ones, others in find_pairs(table, alive, config):
                clusters.join_pairs(ones, others)
            for document in alive.tolist():
                if clusters.first(document) != document:
                    reasons[document] = f"duplicate/{rule}"
    firsts = [clusters.first(document) for document in range(len(table))]
    sizes = Counter(firsts)
    duplicates = [sizes[document] - 1 if first == document else 0 for document, first in enumerate(firsts)]
    return (
        table.select(["shard", "place", "id"])
        .append_column("kept", table["id"].take(pa.array(firsts, pa.int64())))
        .append_column("reason", pa.array(reasons, pa.string()))
        .append_column("num_duplicates", pa.array(duplicates, pa.int64()))
    )


Pairs = Iterator[tuple[minhash.Places, minhash.Places]]


def pairs_by_key(name: str) -> Callable[[pa.Table, minhash.Places, DedupConfig], Pairs]:
    """The pairs of documents, of those that are left, whose column `name` is equal."""

    def find_pairs(table: pa.Table, alive: minhash.Places, _: DedupConfig) -> Pairs:
        yield minhash.equal_pairs(alive, table[name].to_numpy()[alive])

    return find_pairs


def pairs_by_minhash(table: pa.Table, alive: minhash.Places, config: DedupConfig) -> Pairs:
    """The pairs with an equal band and enough equal hashes. Of many with one band each is compared with the next."""
    signed = alive[table["is_signed"].to_numpy()[alive]]
    bands, sketches = (table[name].combine_chunks().flatten().to_numpy() for name in ("bands", "sketch"))
    bands, sketches = (
        bands.reshape(len(table), config.num_bands),
        sketches.reshape(len(table), config.num_bands * config.hashes_per_band),
    )
    for band in range(config.num_bands):
        ones, others = minhash.equal_pairs(signed, bands[signed, band])
        is_similar = (sketches[ones] == sketches[others]).mean(axis=1) >= config.min_similarity
        yield ones[is_similar], others[is_similar]


RULES = {"url": pairs_by_key("url"), "content": pairs_by_key("content"), "minhash": pairs_by_minhash}


def write_clusters(path: Path, verdicts: pa.Table) -> None:
    dropped = verdicts.filter(pa.compute.is_valid(verdicts["reason"])).select(["id", "kept", "reason"])
    path.write_text("".join(f"{json.dumps(record)}\n" for record in dropped.to_pylist()))


def write_verdicts(shards: Sequence[Shard], verdicts: pa.Table) -> None:
    """Give each shard those of its documents, in their order."""
    verdicts = verdicts.sort_by([("shard", "ascending"), ("place", "ascending")])
    ends = np.searchsorted(verdicts["shard"].to_numpy(), np.arange(len(shards) + 1))
    for shard, start, end in zip(shards, ends, ends[1:], strict=False):
        write_table(verdicts.slice(start, end - start).select(["reason", "num_duplicates"]), shard.verdicts)


# Pass two: the documents that stay


def write_shard(shard: Shard) -> Counts:
    """Write the documents of a shard to where its verdicts send them."""
    verdicts = pq.read_table(shard.verdicts).to_pylist()
    with Sieve(shard.folder, shard.source.name) as sieve:
        for document, verdict in zip(read_documents(shard.source), verdicts, strict=True):
            measured = document.get("attributes", {}) | {"num_duplicates": verdict["num_duplicates"]}
            if verdict["reason"]:
                sieve.drop(document, verdict["reason"])
            else:
                sieve.keep({**document, "attributes": measured})
            tick()
    return dict(sieve.counts)


def write_table(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
