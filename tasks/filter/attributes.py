"""Attributes: everything that is computed of a document before the filter decides whether to keep it.

Reads Documents, block lists, the language identification model and, if one is configured, a quality classifier. Writes
Attributes: attributes/NAME.parquet, a row for each document of documents/NAME.parquet, in order, with every attribute as a
column. The filter decides by them (dolma's taggers and mixer, Soldaini et al. 2024), so that another
threshold computes nothing again.

For a document of an unwanted address or language nothing more is computed. Personal data is noted by place and kind, in the
text that C4's rules for lines leave, and never by value.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AfterValidator, Field

from model.config import runtime
from model.files import replacing
from tasks.artifacts.manifest import Artifact, Attributes, Crawl, Documents, Resource
from tasks.artifacts.step import Outcome, Step, roles
from tasks.execution.context import StageContext
from tasks.execution.reporter import Row
from tasks.execution.shards import Counts, failed_fraction, map_shards, tick
from tasks.filter import quality
from tasks.filter import quality_classifier as quality_model
from tasks.filter.quality import TextRules
from tasks.filter.quality_classifier import QualityModelConfig
from tasks.pii import detect as pii
from tasks.pii.detect import Kind
from tasks.records.documents import Document, read_documents
from tasks.web import blocklists, language_id, urls
from tasks.web.blocklists import Blocklist

VERSION = 4
GROUP_DOCUMENTS = 1_000
CATEGORIES = (
    *("adult", "agressif", "arjel", "chat", "cryptojacking", "dating", "ddos", "filehosting", "gambling", "malware"),
    *("mixed_adult", "phishing", "stalkerware", "warez"),
)  # RefinedWeb's choice of UT1's categories, and those that harm
SUSPICIOUS_WORDS = (
    "adult bet betting casino cialis erotic escort escorts jackpot naked nude poker sex sexy slots viagra webcam"
)
Word = Annotated[str, AfterValidator(blocklists.plain), Field(min_length=1)]


class AttributesConfig(TextRules):
    """What is measured, and of which documents. The defaults are FineWeb's, for English."""

    blocklists: list[str] = runtime(
        [],
        description="Lists of unwanted addresses: ut1 for the newest of UT1's blacklists, builtin for a short built-in list, folders in their layout, or files "
        "of hosts, as paths or any fsspec URLs. Lists that come with the crawl, as the sample web's do, are used in any case.",
    )
    blocked_categories: list[str] = Field(
        list(CATEGORIES), description="The categories of UT1's lists that are not wanted."
    )
    blocked_words: list[Word] = Field(
        ["camgirls", "hentai", "milf", "porn", "porno", "pornstar", "xxx"],
        description="One of these words in the address is enough.",
    )
    soft_blocked_words: list[Word] = Field(
        SUSPICIOUS_WORDS.split(),
        description="More than max_suspicious_words of these words in the address are too many.",
    )
    max_suspicious_words: int = Field(1, ge=0, description="How many different suspicious words an address may have.")
    blocked_substrings: list[Word] = Field(
        ["pornhub", "redtube", "xhamster", "xnxx", "xvideos", "youporn"],
        description="One of these in the address is enough, also within a word.",
    )
    languages: list[str] = Field(["en"], min_length=1, description="The languages that are kept, as ISO 639 codes.")
    language_model: str = runtime("", description="A lid.176 model file; empty for the installed one.")
    pii_kinds: list[Kind] = Field(list(get_args(Kind)), description="The kinds of personal data that are looked for.")
    quality_model: QualityModelConfig = Field(
        QualityModelConfig(), description="A classifier of quality, learned from two sets of documents. Off by default."
    )
    num_workers: int = runtime(0, ge=0, le=1024, description="Worker processes; 0 is one a core.")
    max_failed_fraction: float = failed_fraction()


@dataclass(frozen=True)
class AttributesInputs:
    """What attributes are computed of and with. The block lists that come with a crawl, as the sample web's do, are used too."""

    documents: Documents
    language_model: Resource
    crawl: Crawl | None = None
    blocklists: tuple[Resource, ...] = ()
    quality_classifier: Resource | None = None


def compute_attributes(
    documents: Step[Documents],
    crawl: Step[Crawl] | None,
    language_model: Step[Resource],
    blocklists: Sequence[Step[Resource]],
    quality_classifier: Step[Resource] | None,
    config: AttributesConfig,
) -> Step[Attributes]:
    """The step that computes the attributes of documents. Only the fields of AttributesConfig shape them: no threshold does."""
    # A threshold of the filter that stayed in the config would change the fingerprint, and compute all attributes again.
    config = AttributesConfig(**{name: getattr(config, name) for name in AttributesConfig.model_fields})
    inputs = roles(
        documents=documents,
        crawl=crawl,
        language_model=language_model,
        blocklists=blocklists,
        quality_classifier=quality_classifier,
    )
    return Step(
        "attributes",
        VERSION,
        Attributes,
        config,
        inputs,
        run=write_attributes,
        takes=AttributesInputs,
        is_source=True,
    )


def write_attributes(ctx: StageContext, config: AttributesConfig, inputs: AttributesInputs) -> Outcome:
    """Compute the attributes of every shard of documents by itself."""
    documents, classifier = inputs.documents, inputs.quality_classifier
    lists = [artifact for artifact in (inputs.crawl, *inputs.blocklists) if artifact]
    files = [file for artifact in lists for file in list_files(artifact)]
    by_category = blocklists.by_category(files, config.blocked_categories)
    # One file that all workers map: the entries are in memory once, not once for each worker.
    keys = ctx.state / "blocklist.npy"
    num_entries = blocklists.write_keys(by_category, keys)
    ctx.log(f"{num_entries:,} entries of block lists in {len(by_category)} categories")
    [model] = inputs.language_model.files("*")
    language_id.refuse_unknown(config.languages, model)
    models = (model, *(classifier.files("*.bin") if classifier else ()))
    shards = [
        (path.stem, Shard(path, ctx.folder, config, keys, tuple(by_category), models))
        for path in documents.files("documents/*.parquet")
    ]
    counts = map_shards(
        ctx,
        compute_shard,
        shards,
        num_workers=config.num_workers,
        total=documents.manifest.counts["documents"],
        unit="documents",
        max_failed_fraction=config.max_failed_fraction,
    )
    return Outcome(counts)


def list_files(artifact: Artifact) -> list[Path]:
    """The lists of an artifact: of a crawl those under blacklists/, of a resource all."""
    if isinstance(artifact, Resource):
        return artifact.files("*")
    return [file for name in blocklists.LISTS for file in artifact.files(f"blacklists/*/{name}")]


@dataclass(frozen=True)
class Shard:
    """One shard to be measured and what is needed for it. `models`: of languages, and the classifier if there is one."""

    source: Path
    folder: Path
    config: AttributesConfig
    keys: Path
    categories: tuple[str, ...]
    models: tuple[Path, ...]


@dataclass(frozen=True)
class Tools:
    """What documents are measured with."""

    blocklist: Blocklist
    language_model: Any
    classifier: Any = None


def compute_shard(shard: Shard) -> Counts:
    """Measure one shard; how many documents were measured, and how many of them in full."""
    language_model, *classifier = shard.models
    tools = Tools(
        Blocklist(blocklists.load_keys(shard.keys), shard.categories),
        language_id.load_model(language_model),
        language_id.load_model(classifier[0]) if classifier else None,
    )
    counts = Counter(documents=0, documents_in_full=0)

    def rows() -> Iterator[Row]:
        for document in read_documents(shard.source):
            row = attributes_of(document, shard.config, tools)
            counts.update(documents=1, documents_in_full="gopher_words" in row)
            yield row
            tick()

    write_rows(shard.folder / "attributes" / shard.source.name, rows(), shard.config)
    return dict(counts)


def schema(config: AttributesConfig) -> pa.Schema:
    """A column for each attribute, null where it was not computed; `pii` has places in the text that C4's rules leave."""
    # 32 bits for an attribute: the limits are rounded to them too (tasks/filter/stage.py), so that a value equal to its limit passes.
    span = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("kind", pa.string())])
    names = [("id", pa.string()), ("url_rule", pa.string()), ("language", pa.string())]
    return pa.schema(names + [(name, pa.float32()) for name in attribute_names(config)] + [("pii", pa.list_(span))])


def attribute_names(config: AttributesConfig) -> list[str]:
    """The names of all numeric attributes, in the order of their columns."""
    found = [f"pii_{kind}" for kind in config.pii_kinds]
    return ["language_score", *quality.ATTRIBUTE_NAMES, *found, "pii_fraction", "quality_score"]


def write_rows(path: Path, rows: Iterator[Row], config: AttributesConfig) -> None:
    """Write the rows of one shard, in groups of GROUP_DOCUMENTS; the file appears under its name when it is whole."""
    with (
        replacing(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pq.ParquetWriter(sink, schema(config), compression="zstd") as writer,
    ):
        while group := list(itertools.islice(rows, GROUP_DOCUMENTS)):
            writer.write_batch(pa.RecordBatch.from_pylist(group, schema(config)))


def read_attributes(path: Path) -> Iterable[pa.RecordBatch]:
    """The rows of one shard, in order, a group in memory at a time."""
    with pq.ParquetFile(path) as shard:
        yield from shard.iter_batches(batch_size=GROUP_DOCUMENTS)


def attributes_of(document: Document, config: AttributesConfig, tools: Tools) -> Row:
    """The row of a document. It ends early where address or language are not wanted."""
    # The cheapest question first: an address is a few hashes, a language one pass of fastText, the attributes several passes in Python.
    rule = address_rule(document["url"], config, tools.blocklist)
    row: Row = {"id": document["id"], "url_rule": rule}
    if rule:
        return row
    language, score = language_id.identify(document["text"], tools.language_model)
    row |= {"language": language, "language_score": score}
    if language not in config.languages:
        return row
    # Personal data is searched for in what C4 leaves, the text that the filter keeps: places in the original would not fit it.
    left, attributes = quality.compute_attributes(document["text"], language, config)
    row |= attributes
    spans = pii.find(left, config.pii_kinds)
    found = Counter(span.kind for span in spans)
    row |= {f"pii_{kind}": found[kind] for kind in config.pii_kinds}
    # Of characters and not of finds: what counts is how much of the text is left to read.
    row["pii_fraction"] = sum(span.end - span.start for span in spans) / max(len(left), 1)
    # Places and kinds, never the values: an artifact of attributes holds no personal data.
    row["pii"] = [span._asdict() for span in spans]
    if tools.classifier:
        row["quality_score"] = quality_model.score(left, tools.classifier)
    return row


def address_rule(url: str, config: AttributesConfig, blocklist: Blocklist) -> str | None:
    """Why an address is unwanted: too long, no host, the category of a list, or a rule on words. None: it is wanted."""
    # Before anything parses it: the bound is what keeps the cost of a hostile address linear (tasks/web/urls.py).
    if len(url) > urls.MAX_URL_CHARACTERS:
        return "too_long"
    parts = urls.split_address(url)
    if parts is None:
        return "no_host"
    return blocklist.category(parts) or blocklists.word_rule(
        url, config.blocked_words, config.soft_blocked_words, config.blocked_substrings, config.max_suspicious_words
    )
