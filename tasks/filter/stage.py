"""Filter: keeps documents that are worth training on, and redacts their personal data.

Reads Documents and what was computed of them (tasks/filter/attributes.py). Writes Documents: documents/NAME.parquet with what is
kept, its language and everything that was measured of it, dropped/NAME.parquet with every other document, its text as
it came, and the reason: url/..., language/..., quality/..., pii/...; and histograms.json (tasks/records/histograms.py).

The order is FineWeb's (Penedo et al. 2024): address, language, quality (tasks/filter/quality.py), personal data (tasks/pii/detect.py).
The text of a kept document is the lines that C4's rules leave, personal data replaced.

It departs from FineWeb in that only the most likely language counts, and that personal data is replaced before
deduplication.
"""

import itertools
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from tasks.artifacts.manifest import Attributes, Documents
from tasks.artifacts.step import Outcome, Step, roles
from tasks.execution.context import StageContext
from tasks.execution.reporter import Row
from tasks.execution.shards import Counts, map_shards, set_aside, tick
from tasks.filter import quality
from tasks.filter.attributes import AttributesConfig, attribute_names, read_attributes
from tasks.filter.quality import QualityLimits
from tasks.pii import detect as pii
from tasks.pii.detect import Action, Kind, Span
from tasks.records import histograms
from tasks.records.documents import Document, read_documents
from tasks.records.histograms import Limits, Overview
from tasks.records.kept_dropped import KeptDroppedWriter, report_funnel
from tasks.web import urls

VERSION = 4
HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


class FilterConfig(QualityLimits, AttributesConfig):
    """What is measured, and what is kept. The defaults are FineWeb's, for English."""

    language_threshold: float = Field(
        0.65, ge=0, le=1, description="How sure of its language a document must be: more than this."
    )
    min_quality_score: float = Field(0.0, ge=0, le=1, description="The least score of the classifier of quality_model.")
    pii_action: Action = Field(
        "redact", description="Replace personal data, drop documents that have any, or leave it."
    )
    pii_actions: dict[Kind, Action] = Field({}, description="The same for one kind, where another action is wanted.")
    max_pii_fraction: float = Field(
        0.1, ge=0, le=1, description="Characters of a document that may be personal data; above, it is dropped."
    )
    exclude: list[str] = Field(
        [],
        description="Hosts, with all below them, and URLs of pages that are dropped whatever they say: example.org, https://example.org/a.",
    )

    @field_validator("exclude")
    @classmethod
    def _are_addresses(cls, exclude: list[str]) -> list[str]:
        if wrong := [entry for entry in exclude if excluded_key(entry) is None]:
            raise ValueError(
                f"exclude: {wrong[0][:80]!r} is neither a host nor a URL: write example.org or https://example.org/a"
            )
        return exclude

    @model_validator(mode="after")
    def _has_a_model(self) -> Self:
        if self.min_quality_score and not self.quality_model.positives:
            raise ValueError(
                "min_quality_score asks for a classifier: name quality_model.positives and quality_model.negatives"
            )
        return self

    @model_validator(mode="after")
    def _every_action_has_its_kind(self) -> Self:
        if unsought := self.pii_actions.keys() - set(self.pii_kinds):
            raise ValueError(
                f"pii_actions says what is done with {', '.join(sorted(unsought))}, which pii_kinds does not look for: "
                "add it there, or leave it out here"
            )
        return self

    def actions(self) -> dict[Kind, Action]:
        """What is done with each kind of personal data that is looked for."""
        return {kind: self.pii_actions.get(kind, self.pii_action) for kind in self.pii_kinds}


@dataclass(frozen=True)
class FilterInputs:
    """What is filtered, and the attributes that decide."""

    documents: Documents
    attributes: Attributes


def filter(documents: Step[Documents], attributes: Step[Attributes], config: FilterConfig) -> Step[Documents]:
    """Drop documents by URL, language and quality, and redact personal data."""
    inputs = roles(documents=documents, attributes=attributes)
    return Step("filter", VERSION, Documents, config, inputs, run=filter_documents, takes=FilterInputs)


def filter_documents(ctx: StageContext, config: FilterConfig, inputs: FilterInputs) -> Outcome:
    """Filter every shard of documents by itself."""
    documents = inputs.documents
    rows = {path.stem: path for path in inputs.attributes.files("attributes/*.parquet")}
    unmeasured = inputs.attributes.manifest.set_aside
    shards = [
        (path.stem, Shard(path, rows[path.stem], ctx.folder, ctx.state, config))
        for path in documents.files("documents/*.parquet")
        if path.stem not in unmeasured
    ]
    counts = map_shards(
        ctx,
        filter_shard,
        shards,
        num_workers=config.num_workers,
        total=documents.manifest.counts["documents"],
        unit="documents",
        max_failed_fraction=config.max_failed_fraction,
    )
    for name, reason in unmeasured.items():
        set_aside(ctx, name, f"it has no attributes: {reason}")
    report_funnel(ctx, counts, "Documents")
    histograms.report_histograms(ctx, Overview(limits(config)))
    return Outcome(counts)


@dataclass(frozen=True)
class Shard:
    """One shard to be filtered, and what was measured of it."""

    source: Path
    attributes: Path
    folder: Path
    state: Path
    config: FilterConfig


def filter_shard(shard: Shard) -> Counts:
    """Filter one shard; counts of what was kept, dropped and found."""
    config, allowed = shard.config, limits(shard.config)
    excluded = frozenset(map(excluded_key, config.exclude))
    seen = Overview(allowed)
    documents = read_documents(shard.source)
    with KeptDroppedWriter(shard.folder, shard.source.name) as writer:
        # Row by row next to each other: the attributes have a row for each document of the shard, in its order.
        for batch in read_attributes(shard.attributes):
            group = list(itertools.islice(documents, batch.num_rows))
            rows = batch.to_pylist()
            reasons = [
                "url/excluded" if is_excluded(document["url"], excluded) else broken_rule(row, config, allowed)
                for document, row in zip(group, rows, strict=True)
            ]
            seen.add(group, batch, (reason is None for reason in reasons))
            for document, row, reason in zip(group, rows, reasons, strict=True):
                assert document["id"] == row["id"], "a shard and its attributes go together"
                measured = with_attributes(document, row, config)
                if reason:
                    writer.drop(measured, reason)
                else:
                    writer.keep({**measured, "text": clean(document["text"], row, config)})
                    writer.counts.update({f"pii_found/{kind}": int(row[f"pii_{kind}"]) for kind in config.pii_kinds})
                tick()
    seen.save(shard.state / "overview" / f"{shard.source.stem}.json")
    return dict(writer.counts)


def limits(config: FilterConfig) -> dict[str, tuple[float, float]]:
    """The least and the most that each attribute may be, as precise as attributes are kept."""
    names = attribute_names(config)
    # Attributes are stored with 32 bits. 0.3 as float32 is above 0.3 as float64: unrounded, a value equal to its limit would be dropped.
    bounds = {name: quality.limits(name, config) for name in names} | {
        "language_score": (config.language_threshold, np.inf)
    }
    return {name: (float(np.float32(low)), float(np.float32(high))) for name, (low, high) in bounds.items()}


def excluded_key(entry: str) -> str | None:
    """What a host or a URL to exclude is compared by: `host NAME` in ASCII, or `page URL` without what does not change the page.

    None where it is neither.
    """
    if "/" in entry:
        url = entry if "://" in entry else f"http://{entry}"
        return f"page {urls.normalise(url)}" if urls.split_address(url) else None
    host = urls.ascii_host(entry.lower().rstrip("."))
    return f"host {host}" if HOST.fullmatch(host) else None


def is_excluded(url: str, excluded: Collection[str | None]) -> bool:
    """Whether a document's host, one above it, or its page is among the excluded ones."""
    if not excluded:
        return False
    if f"page {urls.normalise(url)}" in excluded:
        return True
    parts = urls.split_address(url)
    labels = urls.ascii_host(parts.hostname).split(".") if parts and parts.hostname else []
    # Every host above, also one that nobody registered: whoever excludes "internal" means all of it.
    return any(f"host {'.'.join(labels[number:])}" in excluded for number in range(len(labels)))


def broken_rule(row: Row, config: FilterConfig, allowed: Limits) -> str | None:
    """Why a document with these attributes is dropped: the first rule that it breaks."""
    if rule := row["url_rule"]:
        return f"url/{rule}"
    if row["language"] not in config.languages:
        return f"language/{row['language'] or 'none'}"
    # Exclusive, as in datatrove's LanguageFilter, whose 0.65 FineWeb took; all other limits are inclusive.
    if row["language_score"] <= config.language_threshold:
        return "language/unsure"
    # The first rule that is broken is the reason, in a fixed order: the funnel of a run adds up, and two runs can be compared.
    for name in (*quality.ATTRIBUTE_NAMES, "quality_score"):
        low, high = allowed[name]
        if row[name] is not None and not low <= row[name] <= high:
            return f"quality/{name}"
    return pii_rule(row, config, allowed)


def pii_rule(row: Row, config: FilterConfig, allowed: Limits) -> str | None:
    """Why a document has too much personal data: a kind of which none may be, else more than may be replaced."""
    actions = config.actions()
    if kind := pii.kind_to_drop(spans_of(row), actions):
        return f"pii/{kind}"
    # A page that is mostly addresses or numbers is a directory: with all of them replaced, little is left to learn from.
    is_dense = row["pii_fraction"] > allowed["pii_fraction"][1]
    return "pii/dense" if is_dense and "redact" in actions.values() else None


def spans_of(row: Row) -> list[Span]:
    """The places of personal data in the text that C4's rules leave."""
    return [Span(**span) for span in row["pii"]]


def with_attributes(document: Document, row: Row, config: FilterConfig) -> Document:
    """The document with its language and all that was measured of it."""
    if row["language"] is None:
        return document
    attributes = {name: row[name] for name in attribute_names(config) if row[name] is not None}
    return {**document, "language": row["language"], "attributes": attributes}


def clean(text: str, row: Row, config: FilterConfig) -> str:
    """The lines of `text` that C4's rules leave, personal data replaced where it is to be."""
    # Only the lines are chosen again, nothing is counted: the attributes would otherwise hold a second copy of all texts.
    left = quality.clean_lines(text, row["language"], config)
    return pii.replace(left, pii.to_redact(spans_of(row), config.actions()))
