"""Filter: which documents are worth learning from, and these without personal data.

Reads Documents, block lists and the model that tells languages. Writes Documents: documents/NAME.parquet with what is
kept, its language and everything that was measured of it, and dropped/NAME.parquet with every other document, its text
as it came, and the reason: url/..., language/..., quality/..., pii/....

The order is FineWeb's (Penedo et al. 2024), cheapest first: address, language, quality (tasks/quality.py), personal
data (tasks/pii.py). The text of a kept document is the lines that C4's rules leave, personal data replaced. A document
is measured only by what it reaches.

It departs from FineWeb in that the most likely language alone is asked, and that personal data is replaced before
deduplication.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from tasks import addresses, blocklists, languages, pii, quality
from tasks.artifacts import Artifact, Documents, Outcome, Resource, Step, runtime
from tasks.blocklists import Blocklist
from tasks.executor import Counts, map_shards, tick
from tasks.quality import Attributes, QualityConfig
from tasks.resources import resource
from tasks.shards import Document, read_documents
from tasks.sieve import Sieve, funnel
from tasks.stage import Run

VERSION = 1
CATEGORIES = (
    *("adult", "agressif", "arjel", "chat", "cryptojacking", "dating", "ddos", "filehosting", "gambling", "malware"),
    *("mixed_adult", "phishing", "stalkerware", "warez"),
)  # RefinedWeb's choice of UT1's categories, and those that harm
SUSPICIOUS_WORDS = (
    "adult bet betting casino cialis erotic escort escorts jackpot naked nude poker sex sexy slots viagra webcam"
)
Kind = Literal["email", "iban", "ip", "card", "ssn", "phone"]


class FilterConfig(QualityConfig):
    """What is kept. The defaults are FineWeb's, for English."""

    blocklists: list[str] = runtime(
        [],
        description="Lists of unwanted addresses: folders in the layout of UT1's blacklists, or files of hosts, as paths "
        "or any fsspec URLs. Lists that come with the crawl, as the sample web's do, are used in any case.",
    )
    blocked_categories: list[str] = Field(
        list(CATEGORIES), description="The categories of UT1's lists that are not wanted."
    )
    blocked_words: list[str] = Field(
        ["camgirls", "hentai", "milf", "porn", "porno", "pornstar", "xxx"],
        description="One of these words in the address is enough.",
    )
    suspicious_words: list[str] = Field(
        SUSPICIOUS_WORDS.split(),
        description="More than max_suspicious_words of these words in the address are too many.",
    )
    max_suspicious_words: int = Field(1, ge=0, description="How many different suspicious words an address may have.")
    blocked_parts: list[str] = Field(
        ["pornhub", "redtube", "xhamster", "xnxx", "xvideos", "youporn"],
        description="One of these in the address is enough, also within a word.",
    )
    languages: list[str] = Field(["en"], min_length=1, description="The languages that are kept, as ISO 639 codes.")
    language_threshold: float = Field(
        0.65, ge=0, le=1, description="How sure of its language a document must be: more than this."
    )
    language_model: str = runtime("", description="A lid.176 model file; empty for the installed one.")
    pii_action: Literal["redact", "drop", "keep"] = Field(
        "redact", description="Replace personal data, drop documents that have any, or leave it."
    )
    pii_kinds: list[Kind] = Field(list(get_args(Kind)), description="The kinds of personal data that are looked for.")
    max_pii_fraction: float = Field(
        0.1, ge=0, le=1, description="Characters of a document that may be personal data; above, it is dropped."
    )
    num_workers: int = runtime(0, ge=0, le=1024, description="Worker processes; 0 is one a core.")


def filter(documents: Step[Documents], config: FilterConfig) -> Step[Documents]:
    """The step that filters `documents`. Raises ValueError where a list or the language model is not there."""
    model = str(languages.find_model(config.language_model))
    inputs: dict[str, Step[Artifact]] = {"documents": documents, "language_model": resource("language model", model)}
    if "crawl" in documents.inputs:
        inputs["crawl"] = documents.inputs["crawl"]
    for number, path in enumerate(config.blocklists):
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
        total=documents.manifest.counts["documents"],
        unit="documents",
    )
    run.table("funnel", funnel(counts), "Documents kept, and dropped by reason")
    return Outcome(counts)


def list_files(artifact: Artifact) -> list[Path]:
    """The lists of an artifact: of a crawl those under blacklists/, of a resource all."""
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
    """Filter one shard; counts of what was kept, dropped and replaced."""
    blocklist = Blocklist(blocklists.load_keys(shard.keys), shard.categories)
    model = languages.load_model(shard.model)
    with Sieve(shard.folder, shard.source.name) as sieve:
        for document in read_documents(shard.source):
            judged, reason = judge(document, shard.config, blocklist, model)
            if reason:
                sieve.drop(judged, reason)
            else:
                sieve.keep(judged)
                for kind in shard.config.pii_kinds:
                    sieve.counts[f"pii_found/{kind}"] += int(judged["attributes"][f"pii_{kind}"])
            tick()
    return dict(sieve.counts)


def judge(document: Document, config: FilterConfig, blocklist: Blocklist, model: Any) -> tuple[Document, str | None]:
    """The document with what was measured of it, and why it is dropped, or its text as it is kept."""
    if rule := address_rule(document["url"], config, blocklist):
        return document, f"url/{rule}"
    language, score = languages.identify(document["text"], model)
    attributes: Attributes = {"language_score": score}
    document = {**document, "language": language, "attributes": attributes}
    if rule := language_rule(language, score, config):
        return document, f"language/{rule}"
    text, measures = quality.measure(document["text"], config)
    attributes |= measures
    if rule := quality.broken_rule(attributes, config):
        return document, f"quality/{rule}"
    redacted, found, num_characters = pii.redact(text, config.pii_kinds)
    attributes |= {f"pii_{kind}": found.get(kind, 0) for kind in config.pii_kinds}
    attributes["pii_fraction"] = num_characters / max(len(text), 1)
    if rule := pii_rule(found, attributes["pii_fraction"], config):
        return document, f"pii/{rule}"
    return {**document, "text": redacted if config.pii_action == "redact" else text}, None


def address_rule(url: str, config: FilterConfig, blocklist: Blocklist) -> str | None:
    """Why an address is not wanted: the category of a list, or a rule on words."""
    parts = addresses.split_address(url)
    if parts is None:
        return "no_host"
    return blocklist.category(parts) or blocklists.word_rule(
        url, config.blocked_words, config.suspicious_words, config.blocked_parts, config.max_suspicious_words
    )


def language_rule(language: str, score: float, config: FilterConfig) -> str | None:
    if language not in config.languages:
        return language or "none"
    return "unsure" if score <= config.language_threshold else None


def pii_rule(found: dict[str, int], fraction: float, config: FilterConfig) -> str | None:
    """Why a document has too much personal data: any where it is to be dropped, else more than the limit."""
    if config.pii_action == "drop" and found:
        return max(found, key=lambda kind: found[kind])
    return "dense" if config.pii_action == "redact" and fraction > config.max_pii_fraction else None
