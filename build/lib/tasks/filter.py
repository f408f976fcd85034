"""Filter: which documents are worth learning from, and these without personal data.

Reads Documents, block lists and the model that tells languages. Writes Documents: documents/NAME.parquet with what is kept, its
language and everything that was measured of it, and dropped/NAME.parquet with every other document, its text as it came, and the
reason: url/..., language/..., quality/..., pii/....

The order is FineWeb's (Penedo et al. 2024), cheapest first: address, language, quality (tasks/quality.py), personal data (tasks/pii.py). The text
of a kept document is the lines that C4's rules leave, personal data replaced. A document is measured only by what it reaches.

It departs from FineWeb in that the most likely language alone is asked, and that personal data is replaced before deduplication.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq
from pydantic import Field

from tasks import blocklists, languages, pii, quality
from tasks.artifacts import Artifact, Documents, Outcome, Resource, Step, runtime
from tasks.crawl import crawl
from tasks.executor import Counts, map_shards, tick
from tasks.quality import Attributes, QualityConfig
from tasks.resources import resource
from tasks.sample_web import SampleWebConfig
from tasks.shards import Document, read_documents
from tasks.sieve import Sieve, funnel
from tasks.stage import Run

VERSION = 1
SAMPLE = "sample"
CATEGORIES = (
    *("adult", "agressif", "arjel", "chat", "cryptojacking", "dating", "ddos", "filehosting", "gambling", "malware"),
    *("mixed_adult", "phishing", "stalkerware", "warez"),
)  # RefinedWeb's choice of UT1's categories, and those that harm
Kind = Literal["email", "iban", "ip", "card", "ssn", "phone"]


class FilterConfig(QualityConfig):
    """What is kept. The defaults are FineWeb's, for English."""

    blocklists: list[str] = runtime(
        [SAMPLE],
        description="Lists of unwanted addresses: folders in the layout of UT1's blacklists, or files of hosts, as paths or any "
        "fsspec URLs; sample for those of the embedded sample web.",
    )
    sample: SampleWebConfig = runtime(SampleWebConfig(), title="Sample web")
    blocked_categories: list[str] = Field(list(CATEGORIES), description="The categories of UT1's lists that are not wanted.")
    blocked_words: list[str] = Field(
        ["camgirls", "hentai", "milf", "porn", "porno", "pornstar", "xxx"],
        description="One of these words in the address is enough.",
    )
    suspicious_words: list[str] = Field(
        ["adult", "bet", "betting", "casino", "cialis", "erotic", "escort", "escorts", "jackpot", "naked", "nude", "poker"]
        + ["sex", "sexy", "slots", "viagra", "webcam"],
        description="More than max_suspicious_words of these words in the address are too many.",
    )
    max_suspicious_words: int = Field(1, ge=0, description="How many different suspicious words an address may have.")
    blocked_parts: list[str] = Field(
        ["pornhub", "redtube", "xhamster", "xnxx", "xvideos", "youporn"],
        description="One of these in the address is enough, also within a word.",
    )
    languages: list[str] = Field(["en"], min_length=1, description="The languages that are kept, as ISO 639 codes.")
    language_threshold: float = Field(0.65, ge=0, le=1, description="How sure of its language a document must be: more than this.")
    language_model: str = runtime("", description="A lid.176 model file; empty for the installed one.")
    pii_action: Literal["redact", "drop", "keep"] = Field(
        "redact", description="Replace personal data, drop documents that have any, or leave it."
    )
    pii_kinds: list[Kind] = Field(list(pii.KINDS), description="The kinds of personal data that are looked for.")
    max_pii_fraction: float = Field(
        0.1, ge=0, le=1, description="Characters of a document that may be personal data; above, it is dropped."
    )
    num_workers: int = runtime(0, ge=0, le=1024, description="Worker processes; 0 is one a core.")


def filter(documents: Step[Documents], config: FilterConfig) -> Step[Documents]:  # noqa: A001 - named as the stage
    """The step that filters `documents`. Raises ValueError where a list or the language model is not there."""
    model = str(languages.find_model(config.language_model))
    inputs: dict[str, Step[Artifact]] = {"documents": documents, "language_model": resource("language model", model)}
    paths = [path for path in config.blocklists if path != SAMPLE]
    if SAMPLE in config.blocklists:
        inputs["web"] = crawl([SAMPLE], 0, "", config.sample)
    for number, path in enumerate(paths):
        inputs[f"blocklist_{number}"] = resource("blocklist", path, blocklists.LISTS)
    return Step("filter", VERSION, Documents, config, inputs, run=run)


def run(run: Run, config: FilterConfig, documents: Documents, language_model: Resource, **lists: Artifact) -> Outcome:
    """Filters every shard of `documents` by itself."""
    files = [file for artifact in lists.values() for file in list_files(artifact)]
    by_category = blocklists.by_category(files, config.blocked_categories)
    num_entries = blocklists.write_keys(by_category, run.state / "blocklist.npy")
    run.log(f"{num_entries:,} entries of block lists in {len(by_category)} categories")
    [model] = language_model.files("*")
    shards = [
        (path.stem, Shard(path, run.folder, config, run.state / "blocklist.npy", tuple(by_category), model))
        for path in documents.files("documents/*.parquet")
    ]
    counts = map_shards(
        run,
        filter_shard,
        shards,
        num_workers=config.num_workers or os.cpu_count() or 1,
        total=sum(pq.read_metadata(shard.source).num_rows for _, shard in shards),
        unit="documents",
    )
    run.table("funnel", funnel(counts), "Documents kept, and dropped by reason")
    return Outcome(counts)


def list_files(artifact: Artifact) -> list[Path]:
    """The lists of an artifact: of the sample web those under blacklists/, of a resource all."""
    if isinstance(artifact, Resource):
        return artifact.files("*")
    return [file for name in blocklists.LISTS for file in artifact.files(f"blacklists/*/{name}")]


@dataclass(frozen=True)
class Shard:
    """One shard to be filtered and what is needed for it."""

    source: Path
    folder: Path
    config: FilterConfig
    keys: Path
    categories: tuple[str, ...]
    model: Path


def filter_shard(shard: Shard) -> Counts:
    """Filter one shard; counts of what was kept, dropped and redacted."""
    judge = Judge(shard.config, blocklists.Blocklist(load_keys(shard.keys), shard.categories), shard.model)
    with Sieve(shard.folder, shard.source.name) as sieve:
        for document in read_documents(shard.source):
            judged, reason = judge.judge(document)
            if reason:
                sieve.drop(judged, reason)
            else:
                sieve.keep(judged)
                count_redacted(judged, shard.config, sieve.counts)
            tick()
    return dict(sieve.counts)
