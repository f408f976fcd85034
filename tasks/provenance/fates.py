"""The fate of a capture: every capture of a URL, followed through the stages of the data half.

Reads the latest Documents of a recipe: the columns that identify a capture, and the texts of the captures found. Writes nothing.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from model.errors import UserError
from tasks.artifacts.manifest import Artifact, Documents, Manifest, Tokens
from tasks.artifacts.store import Store
from tasks.records.documents import Document, to_document
from tasks.records.samples import redacted_url
from tasks.tokenizer.encode import is_validation
from tasks.web.urls import normalise

LATER_STAGES = ("filter", "dedup")
KINDS = ("documents", "dropped")
WHERE = ["id", "url", "file", "offset"]
A = TypeVar("A", bound=Artifact)
Mask = Callable[[pa.Table], pa.Array]


class Fate(NamedTuple):
    """What a stage did with one capture: `outcome` is "kept", or the reason for which it was dropped."""

    stage: str
    is_kept: bool
    outcome: str
    document: Document


def find_fates(url: str, recipe: str, store: Store) -> list[list[Fate]]:
    """The fates of each capture of `url`, in the order of the stages. Raises UserError where no stage has run."""
    raw = store.open(store.latest(recipe, "ingest"), Documents)
    later = [_latest(store, recipe, stage, Documents) for stage in LATER_STAGES]
    tokens = _latest(store, recipe, "tokenize", Tokens)
    # A capture is a page at one moment: the same URL may be in several files of a crawl, and each has its own fate.
    captures = [found for kind in KINDS for found in find_documents(raw, kind, _is_of(url))]
    return [list(_follow(capture, [raw, *later], tokens)) for capture in captures]


def _is_of(url: str) -> Mask:
    """Rows whose URL is `url` but for what does not change the page: found by its longest part, then compared."""
    # A person types example.org/page as often as a whole URL.
    wanted = normalise(url if "://" in url else f"http://{url}")

    def mask(table: pa.Table) -> pa.Array:
        # Normalising a URL in Python takes far longer than a search in Arrow, so only those that contain the wanted one
        # are compared.
        near = pc.match_substring(table["url"], wanted.partition("?")[0], ignore_case=True).to_pylist()
        urls = zip(near, table["url"].to_pylist(), strict=True)
        return pa.array([is_near and normalise(found) == wanted for is_near, found in urls], pa.bool_())

    return mask


def has_id(*document_ids: str) -> Mask:
    """The rows of the documents of these ids."""
    return lambda table: pc.is_in(table["id"], pa.array(document_ids, table.schema.field("id").type))


def find_documents(artifact: Documents, kind: str, mask: Mask) -> Iterator[Document]:
    """The documents of an artifact that `mask` chooses of the rows of a shard."""
    for path in artifact.files(f"{kind}/*.parquet"):
        with pq.ParquetFile(path) as shard:
            for group in range(shard.num_row_groups):
                # The text is most of a row group, and is read only where a document of the group is wanted.
                chosen = mask(shard.read_row_group(group, columns=WHERE))
                if pc.any(chosen).as_py():
                    yield from map(to_document, shard.read_row_group(group).filter(chosen).to_pylist())


def _follow(capture: Document, artifacts: Sequence[Documents | None], tokens: Tokens | None) -> Iterator[Fate]:
    """The capture in every stage that has an artifact, until one drops it."""
    document: Document | None = capture
    for artifact in artifacts:
        if artifact is None:
            return
        stage = artifact.manifest.stage
        # By id, which a document keeps through all stages.
        kept, dropped = (next(find_documents(artifact, kind, has_id(capture["id"])), None) for kind in KINDS)
        document = kept or dropped
        # The latest artifacts of a recipe need not be of one run: a stage may have been run alone, on other documents.
        if document is None:
            yield Fate(stage, False, "not in this artifact: it was made of another crawl, or is stale", capture)
            return
        if kept is None:
            yield Fate(stage, False, why_dropped(document, artifact), document)
            return
        yield Fate(stage, True, "kept", kept)
    if tokens is not None and document is not None:
        # Computed again, as tokens carry no ids: the split depends on the text alone.
        held_out = is_validation(document["text"], tokens.manifest.config["validation_fraction"])
        yield Fate("tokenize", True, f"in the {'validation' if held_out else 'train'} split", document)


def _latest(store: Store, recipe: str, stage: str, kind: type[A]) -> A | None:
    """The latest artifact of a stage, or None where it has not run."""
    try:
        return store.open(store.latest(recipe, stage), kind)
    except UserError:
        return None


def why_dropped(document: Document, artifact: Documents) -> str:
    """The reason, with the measured value and its limits, or with what stands for the document."""
    reason = document["reason"]
    family, _, rule = reason.partition("/")
    attributes = document.get("attributes", {})
    # The document that stands for this one is in clusters.jsonl.
    if family == "duplicate":
        return f"{reason} of {kept_url(document['id'], artifact)}"
    if family == "language" and "language_score" in attributes:
        return f"{reason}: {document.get('language', '?')} at {attributes['language_score']:.2f}"
    if rule in attributes:
        return f"{reason}: {attributes[rule]:.4g}, {_limits(rule, artifact.manifest)}"
    return reason


def _limits(rule: str, manifest: Manifest) -> str:
    config = manifest.config
    # The names of a filter's settings are min_ or max_ and the attribute.
    limits = [f"{bound} {config[f'{bound}_{rule}']:g}" for bound in ("min", "max") if f"{bound}_{rule}" in config]
    return " and ".join(limits)


def kept_url(document_id: str, artifact: Documents) -> str:
    """The URL of the document that was kept for a dropped one."""
    kept = kept_document(document_id, artifact)
    return redacted_url(kept["url"]) if kept else "another document"


def kept_document(document_id: str, artifact: Documents) -> Document | None:
    """The document that was kept for a dropped one; None where it is of an earlier crawl."""
    # Read line by line to the pair that is wanted: the file has a line for each duplicate of the crawl.
    for path in artifact.files("clusters.jsonl"):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if (pair := json.loads(line))["id"] == document_id:
                    return next(find_documents(artifact, "documents", has_id(pair["kept"])), None)
    return None
