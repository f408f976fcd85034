"""Dedup: keep one document of each group of exact or near duplicates.

Reads Documents, and the signatures of earlier dedup artifacts if a new crawl is compared with them. Writes Documents:
documents/NAME.parquet with the kept documents, dropped/NAME.parquet with every other document and the reason, and clusters.jsonl,
one duplicate per line: {"id", "kept", "reason"}. `num_duplicates` of a kept document says how many were dropped for it. With
keep_signatures also signatures/NAME.parquet, about 240 bytes per kept document.

    documents ─ sign (every shard) ─> columns ─ rank, merge equal URLs, equal texts ─ pairs with an equal band (every band)
              ─ compare sketches ─> clusters ─ contamination, repeated lines ─ write (every shard) ─> kept, dropped

Three rules, each applied to the documents that the rule before left: the same URL (duplicate/url), the same text
(duplicate/content), and nearly the same text (duplicate/minhash) by MinHash (Broder 1997) with banding (Leskovec et al., Mining of
Massive Datasets, chapter 3) and FineWeb's parameters: 14 bands of 8 hashes over 5-grams of words. Two documents whose n-gram sets
have Jaccard similarity s share a band with probability 1 - (1 - s^8)^14: 0.05 at s = 0.5, 0.56 at 0.7, 0.92 at 0.8, 1.00 at 0.9.
For pairs that share one, the 112 hashes estimate s to within 0.04; pairs below 0.7 are not duplicates. Clusters are transitive. Of a
cluster a known document is kept, else the longest one, then the first by file and offset. A document with fewer than 5 words has no
n-gram and is no near duplicate.

Then documents that contain evaluation questions are dropped (contaminated/NAME, tasks/dedup/contamination.py), and lines that occur
in many documents are removed (tasks/dedup/repeated_lines.py), together with documents of which too little remains (duplicate/lines).
Both are off by default.

Departures from FineWeb's code: URLs and texts are compared first, the similarity of a candidate pair is estimated, and the best
document is kept instead of the first.

Costs about 280 bytes of disk per document while it runs, 18 bytes of memory per document in the merging process (34 beyond 2^31
documents), and what max_memory_bytes leaves of it for sorting. Every process also has 0.1 GB of libraries; processes that sign and
write hold a thousand documents and one shard's lines.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath
from resource import RUSAGE_SELF, getrusage

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from pydantic import Field

from model.config import runtime
from model.errors import UserError
from tasks.artifacts.manifest import Documents, Resource
from tasks.artifacts.step import ExistingArtifact, Outcome, Step, roles
from tasks.artifacts.store import Store
from tasks.dedup import clusters, contamination, minhash, repeated_lines, signatures
from tasks.dedup.candidates import REASONS, MergeConfig, Verdicts, Work, assign_clusters, save, write_clusters
from tasks.dedup.columns import even_ranges
from tasks.dedup.contamination import Findings, Questions
from tasks.execution.context import StageContext
from tasks.execution.shards import Counts, map_shards, tick
from tasks.records.documents import Document, read_documents
from tasks.records.kept_dropped import KeptDroppedWriter, report_funnel
from tasks.resources import resource

VERSION = 5
# What two artifacts must have in common for their signatures to be comparable.
SIGNING = ("keep_signatures", "by_minhash", "num_bands", "rows_per_band", "ngram_size", "seed")
# A row group of the shards (tasks/records/documents.py): 112 hashes each make 0.9 MB of signatures.
BATCH_DOCUMENTS = 1_000


class DedupConfig(MergeConfig):
    """Which documents count as duplicates, and which lines and evaluation questions are removed."""

    against: list[str] = Field(
        [],
        description="Earlier artifacts of this stage, dedup/FINGERPRINT, made with keep_signatures: duplicates of their documents are "
        "dropped.",
    )
    keep_signatures: bool = Field(
        False,
        description="Keep the signatures, about 240 bytes per document, so that later crawls can be compared with this one.",
    )
    max_line_documents: int = Field(
        0,
        ge=0,
        description="Remove lines that occur in more documents than this, after deduplication. 0: remove none.",
    )
    # 50 words, as Gopher's rule of document length (Rae et al. 2021, appendix A.1): the filter dropped shorter
    # documents before.
    min_words_left: int = Field(
        50, ge=0, description="Drop a document that lost lines and has fewer words left than this."
    )
    eval_sets: list[str] = runtime(
        [],
        description="Evaluation sets; documents that contain their questions are dropped. JSON Lines, Parquet or text files, or "
        "folders of them, as paths or fsspec URLs.",
    )
    # 13 and, below, 10 are GPT-3's (Brown et al. 2020, appendix C).
    eval_ngram_size: int = Field(
        13, ge=1, le=50, description="A document that shares an n-gram of this many words with a question contains it."
    )
    max_ngram_documents: int = Field(
        10, ge=1, description="N-grams that occur in more documents than this are common phrases and are ignored."
    )


@dataclass(frozen=True)
class DedupInputs:
    """What is deduplicated, the finished crawls it is compared with, and the evaluation sets that must not be learned."""

    documents: Documents
    earlier: tuple[Documents, ...] = ()
    eval_sets: tuple[Resource, ...] = ()


def earlier_documents(artifact_ids: Sequence[str]) -> list[Step[Documents]]:
    """Finished artifacts dedup/FINGERPRINT that new documents are compared with."""
    return [ExistingArtifact.of(Documents, artifact_id) for artifact_id in artifact_ids]


def evaluation_sets(paths: Sequence[str]) -> list[Step[Resource]]:
    """The steps that copy evaluation sets into the store."""
    return [resource("evaluation set", path, check_files=contamination.check_files) for path in paths]


def dedup(
    documents: Step[Documents],
    earlier: Sequence[Step[Documents]],
    eval_sets: Sequence[Step[Resource]],
    config: DedupConfig,
) -> Step[Documents]:
    """Drop exact and near duplicates, repeated lines and evaluation questions."""
    inputs = roles(documents=documents, earlier=earlier, eval_sets=eval_sets)
    return Step(
        "dedup", VERSION, Documents, config, inputs, run=deduplicate_documents, takes=DedupInputs, check=check_earlier
    )


def check_earlier(config: DedupConfig) -> None:
    """Raises UserError where an earlier artifact does not exist, or cannot be compared with."""
    for artifact_id in config.against:
        check_signatures(Store.default().open(artifact_id, Documents), config)


def check_signatures(earlier: Documents, config: DedupConfig) -> None:
    """Raises UserError where an earlier artifact kept no signatures, or computed them with other settings."""
    theirs, ours = earlier.manifest.config, config.model_dump() | {"keep_signatures": True}
    # Signatures of other hash functions, n-grams or bands would agree by chance alone.
    for field in SIGNING:
        if theirs.get(field) != ours[field]:
            raise UserError(
                f"documents cannot be compared with {earlier.manifest.id}: it was made with {field}={theirs.get(field)}, and "
                f"{ours[field]} is needed; run its dedup stage again with that"
            )


@dataclass(frozen=True)
class Shard:
    """One shard of documents: its file, the number of its first document, and the reasons to drop one, by code."""

    work: Work
    config: DedupConfig
    path: Path
    first: int
    num_documents: int
    reasons: tuple[str, ...]

    def state(self, kind: str) -> Path:
        """The file of the stage's state that holds one kind of data about this shard."""
        return self.work.state / kind / f"{self.path.stem}.npy"


def deduplicate_documents(ctx: StageContext, config: DedupConfig, inputs: DedupInputs) -> Outcome:
    """Sign every shard, find the clusters, write every shard without duplicates."""
    documents = inputs.documents
    for earlier in inputs.earlier:
        check_signatures(earlier, config)
    questions = contamination.collect(evaluation_files(inputs.eval_sets), config.eval_ngram_size)
    known = [path for earlier in inputs.earlier for path in earlier.files("signatures/*.parquet")]
    paths = documents.files("documents/*.parquet")
    # The footer of each file only; numbers must be known before the first document is read.
    sizes = [pq.read_metadata(path).num_rows for path in (*known, *paths)]
    # Numbers run over all shards, known documents first: in the columns a document is a position, without a table of ids.
    firsts = np.cumsum([0, *sizes]).tolist()
    sources = list(zip(firsts, (*known, *paths), strict=False))
    work = Work(ctx.folder, ctx.state, config, firsts[-1])
    # The code of a reason is its place here: first the rules of `candidates`, then one for each evaluation set. 16 bits
    # allow 65,000 sets.
    reasons = (*REASONS, *(f"contaminated/{name}" for name in questions.names))
    shards = [
        Shard(work, config, path, first, num, reasons)
        for (first, path), num in zip(sources[len(known) :], sizes[len(known) :], strict=True)
    ]
    # Every pass below has a record for each shard (tasks/execution/shards.py) and writes files that it can write again:
    # after a kill the stage repeats what was unfinished, and the columns of finished shards are still there.
    prepare(ctx, work, sources[: len(known)], questions)
    # The columns are files of all shards, so another machine that takes over signs again.
    map_over(ctx, "sign", sign_shard, shards, is_shared=False)
    verdicts = assign_clusters(ctx, work, paths, num_known=firsts[len(known)])
    write_verdicts(work, verdicts, decontaminate(ctx, config, shards, questions))
    write_clusters(ctx.folder / "clusters.jsonl", work, sources, verdicts)
    del verdicts  # frees its arrays before the workers of the last passes start
    find_lines(ctx, work, config, shards)
    counts = map_over(ctx, "write", write_shard, shards)
    report_funnel(ctx, counts, "Documents")
    ctx.log(f"peak memory: {getrusage(RUSAGE_SELF).ru_maxrss / 1e6:.3f} GB in this process")
    return Outcome(counts)


def evaluation_files(sets: Iterable[Resource]) -> dict[Path, str]:
    """The files of evaluation sets, and their names: after the paths they were copied from."""
    origins = {path: origin(artifact, path) for artifact in sets for path in artifact.files("*")}
    return dict(zip(origins, contamination.short_names(list(origins.values())), strict=True))


def origin(resource: Resource, path: Path) -> PurePath:
    """The path that a file of a resource was copied from."""
    # A single file keeps its name in files/, a folder its inner paths: a name in a reason is one the user knows, not
    # one of the store.
    given = PurePath(resource.manifest.config["path"])
    return given if path.name == given.name else given / path.relative_to(resource.folder / "files")


def prepare(ctx: StageContext, work: Work, known: Sequence[tuple[int, Path]], questions: Questions) -> None:
    """Log the expected cost, create the columns, and load the signatures of known documents."""
    num = work.num_documents
    disk_bytes = num * sum(column.dtype.itemsize for column in work.columns.values())
    memory_bytes = clusters.held_bytes(num) + min(work.spare_bytes, num * clusters.RECORD_BYTES)
    ctx.log(
        f"{num:,} documents with those of {len(known)} known shards: about {disk_bytes / 1e9:.3f} GB of signatures on disk "
        f"and {memory_bytes / 1e9:.3f} GB of memory in the merge, by {work.num_merging} workers"
    )
    for column in work.columns.values():
        # An existing column is left as it is: it may hold what finished shards wrote before a kill.
        column.create()
    for first, path in known:
        signatures.load_kept(path, first, work.config, work.columns)
    # Workers read the n-grams from disk: as an argument they would be pickled and sent once for each shard.
    np.save(work.state / "questions.npy", questions.ngrams)


def map_over(
    ctx: StageContext, name: str, work: Callable[[Shard], Counts], shards: Sequence[Shard], *, is_shared: bool = True
) -> Counts:
    """Run one pass over all shards in worker processes; the sum of their counts."""
    return map_shards(
        ctx,
        work,
        [(f"{name}-{shard.path.stem}", shard) for shard in shards],
        # Without shards map_shards raises a UserError, so the number does not matter.
        num_workers=shards[0].config.num_workers if shards else 1,
        total=sum(shard.num_documents for shard in shards),
        unit="documents",
        is_shared=is_shared,
    )


# Pass one: signatures of every document


def sign_shard(shard: Shard) -> Counts:
    """Write the signatures of a shard's documents, and which n-grams of evaluation questions they contain."""
    config, columns = shard.config, shard.work.columns
    ngrams = np.load(shard.work.state / "questions.npy")
    # Words are hashed once, for MinHash and for the questions alike.
    documents, first = read_documents(shard.path), shard.first
    # One empty block, since np.concatenate refuses an empty list.
    hits = [np.zeros((2, 0), np.int64)]
    while batch := list(islice(documents, BATCH_DOCUMENTS)):
        words = hash_documents(batch, is_needed=config.by_minhash or len(ngrams) > 0)
        for name, values in signatures.sign(batch, words, config).items():
            columns[name].write(first, values)
        if len(ngrams):
            hits += [find_ngrams(hashes, ngrams, number, config) for number, hashes in enumerate(words, start=first)]
        first += len(batch)
        tick(len(batch))
    # Written last and atomically. The columns before it are written in place: a shard that is signed again writes the
    # same values.
    save(shard.state("hits"), np.concatenate(hits, axis=1))
    return {}


def hash_documents(documents: Sequence[Document], is_needed: bool) -> list[minhash.U64]:
    """The hashed words of each document; empty if no rule needs them."""
    texts = [document["text"] if is_needed else "" for document in documents]
    return [minhash.hash_words(minhash.split_words(text)) for text in texts]


def find_ngrams(words: minhash.U64, ngrams: minhash.U64, number: int, config: DedupConfig) -> npt.NDArray[np.int64]:
    """(2, H) the document's number, and the index of each question n-gram it contains."""
    places = contamination.find(words, ngrams, config.eval_ngram_size)
    return np.array([np.full(len(places), number), places])


# Between the passes: verdicts


def decontaminate(ctx: StageContext, config: DedupConfig, shards: Sequence[Shard], questions: Questions) -> Findings:
    """Find the documents that contain a question, among those that are not duplicates."""
    # Duplicates are out before n-grams are counted: a question on a page with a hundred copies would pass for a common phrase.
    hits, most = [shard.state("hits") for shard in shards], config.max_ngram_documents
    findings = contamination.find_contaminated(
        hits, lambda numbers: shards[0].work.columns["rank"].take(numbers) >= 0, questions, most
    )
    if questions.names:
        rows = contamination.report(questions, findings, most)
        ctx.table("contamination", rows, "Evaluation questions found in documents")
        contamination.write_found(ctx.folder / "contamination.jsonl", questions, findings.questions)
    return findings


def write_verdicts(work: Work, verdicts: Verdicts, contaminated: Findings) -> None:
    """Write the columns cluster_size (of the cluster a document represents) and reason (code; 0: kept)."""
    work.columns["cluster_size"].write(0, clusters.by_number(verdicts.numbers, verdicts.clusters.sizes()))
    reasons = clusters.by_number(verdicts.numbers, verdicts.dropped)
    # Only documents that are still kept are in `contaminated`, so no earlier reason is overwritten.
    reasons[contaminated.dropped] = len(REASONS) + contaminated.eval_sets
    work.columns["reason"].write(0, reasons)


# Repeated lines


def find_lines(ctx: StageContext, work: Work, config: DedupConfig, shards: Sequence[Shard]) -> None:
    """Write the hashes of lines that occur in too many documents; none if max_line_documents is 0."""
    unwanted, most = [np.zeros(0, np.uint64)], config.max_line_documents
    # Also after duplicates: the copies of a page would make each of its lines frequent.
    if most:
        num_lines = map_over(ctx, "lines", collect_lines, shards)["lines"]
        num_parts = max(-(-num_lines * repeated_lines.RECORD_BYTES // work.spare_bytes), 1)
        paths = [shard.state("lines") for shard in shards]
        unwanted += [repeated_lines.frequent(paths, low, high, most) for low, high in even_ranges(num_parts)]
        ctx.log(f"{sum(map(len, unwanted)):,} distinct lines occur in more than {most:,} documents")
    save(work.state / "unwanted_lines.npy", np.concatenate(unwanted))


def collect_lines(shard: Shard) -> Counts:
    """Write the hashes of the lines of the documents that are still kept."""
    reasons = shard.work.columns["reason"].read(shard.first, shard.num_documents).tolist()
    documents = zip(read_documents(shard.path), reasons, strict=True)
    found = repeated_lines.collect(document["text"] for document, reason in documents if not reason)
    save(shard.state("lines"), found)
    tick(shard.num_documents)
    return {"lines": len(found)}


# Pass two: write the documents


def write_shard(shard: Shard) -> Counts:
    """Write the documents of a shard to kept or dropped, as their reason says."""
    columns, num = shard.work.columns, shard.num_documents
    codes, sizes = (columns[name].read(shard.first, num).tolist() for name in ("reason", "cluster_size"))
    unwanted = np.load(shard.work.state / "unwanted_lines.npy")
    kept: list[tuple[int, str]] = []
    with KeptDroppedWriter(shard.work.folder, shard.path.name) as writer:
        for place, (document, code, size) in enumerate(zip(read_documents(shard.path), codes, sizes, strict=True)):
            # Lines are hashed a second time: what `collect_lines` wrote is sorted, and no longer says where a line
            # stands.
            text = repeated_lines.without(document["text"], unwanted) if len(unwanted) else document["text"]
            if code:
                writer.drop(document, shard.reasons[code])
            # Only a document that lost lines (ingest leaves no line feeds at its ends): short ones are the filter's matter.
            elif text != document["text"] and len(minhash.split_words(text)) < shard.config.min_words_left:
                # With its whole text, so that a reader sees what was removed.
                writer.drop(document, "duplicate/lines")
            else:
                measured = document.get("attributes", {}) | {"num_duplicates": size - 1}
                writer.keep({**document, "text": text, "attributes": measured})
                kept.append((place, document["id"]))
            tick()
    if shard.config.keep_signatures:
        write_signatures(shard, kept)
    return dict(writer.counts)


def write_signatures(shard: Shard, kept: Sequence[tuple[int, str]]) -> None:
    """Write the signatures of the kept documents: (index in the shard, id)."""
    places = np.array([place for place, _ in kept], np.int64)
    columns = signatures.columns(shard.work.state / "columns", shard.config)
    signed = {name: column.read(shard.first, shard.num_documents)[places] for name, column in columns.items()}
    path = shard.work.folder / "signatures" / shard.path.name
    signatures.write_kept(path, [name for _, name in kept], signed, shard.config)
