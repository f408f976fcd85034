"""Ingest: from web archive files to documents.

Reads the files that a Crawl names: WARC, ARC, WET. Writes, per file NAME, documents/NAME.parquet with the text of every page
that has one, dropped/NAME.parquet with every other page and the reason, and errors.jsonl with every place where a file is
damaged or no web archive: {"file", "offset", "bytes", "error"}. Damage costs the page it is in; reading resumes after it.

A page is a response, revisit or conversion record, or a resource record of HTML. pages = documents + documents_dropped, and
records_read is the sum of the records by type. Reasons: status/..., mime/..., revisit/..., truncated/... (the file ends within the
page, or is damaged there), and empty/... for what has no text: body, text, timeout, memory, killed, too_large, undecodable, error.
On request, pages that a later stage would drop are dropped before extraction: url/CATEGORY, language/CODE.

FineWeb's reader takes every response with HTML in it, also of errors and redirects; only status 200 is taken here.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field

from model.config import runtime
from model.errors import UserError
from model.files import read_lines, write_lines
from tasks.artifacts.manifest import STATE, Crawl, Documents, Resource
from tasks.artifacts.step import Outcome, Step, roles
from tasks.execution.context import StageContext
from tasks.execution.shards import Counts, failed_fraction, map_shards, tick
from tasks.ingest.dropped import Dropped
from tasks.ingest.extraction_process import Settings, sandbox
from tasks.ingest.extractors import Extractor
from tasks.ingest.http_response import HTML_TYPES, body_of
from tasks.ingest.inputs import InputsConfig, located
from tasks.ingest.warc import HEADER_BYTES, DamagedRange, Record, read_records
from tasks.records.documents import Document
from tasks.records.kept_dropped import KeptDroppedWriter, report_funnel
from tasks.redaction import redact_url
from tasks.web import blocklists, language_id
from tasks.web.blocklists import Blocklist
from tasks.web.download import open_file
from tasks.web.rate_limit import RateLimiter
from tasks.web.urls import split_address

VERSION = 6
COUNTS = (
    "files", "files_with_errors", "files_cut_off", "files_unreadable", "damages", "damaged_bytes", "records_read", "pages"
)  # fmt: skip
MAX_ERRORS = 100  # of one file that are listed; all are counted
MAX_LOGGED = 10  # of all files that are logged
PAGES = ("response", "revisit", "conversion", "html_resource")
RECORD_TYPES = (*PAGES, "warcinfo", "request", "metadata", "resource", "continuation", "arc_header")
# The time of the copy, and perhaps how links in it are rewritten ("id_": not at all), stand before the page's address
WAYBACK = re.compile(r"https?://web\.archive\.org/web/\d{4,14}(?:[a-z]{2}_)?/(.+)", re.I)
CONTROLS = re.compile(r"[\0-\x20\x7f-\x9f]")  # a terminal would obey some of them
BYTES_PER_PAGE = 25_000  # of a compressed crawl, for the progress bar


class IngestConfig(InputsConfig):
    """Which web archives are read, and what counts as a page."""

    extractor: Extractor = Field(
        "trafilatura",
        description="trafilatura prefers precision, as FineWeb does; resiliparse finds more, also of what is not wanted, in a seventh "
        "of the time, as DCLM does; combined is the best on pages of all kinds, in a little less time than trafilatura.",
    )
    languages: list[str] = Field(
        [],
        description="ISO 639 codes: a page whose words, menus and all, are clearly in other languages is dropped without extraction. "
        "Empty takes all; the filter decides in any case.",
    )
    min_language_score: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Drop a page if the summed score of the wanted languages is below this. Above 0.03 pages are lost that the filter "
        "would keep.",
    )
    language_model: str = runtime("", description="A lid.176 model file; empty for the installed one.")
    blocklists: list[str] = runtime(
        [],
        description="Lists of addresses whose pages are dropped without extraction: folders in the layout of UT1's blacklists, or "
        'files of hosts, as paths or any fsspec URLs, or "ut1", which fetches these.',
    )
    blocked_categories: list[str] = Field([], description="The categories of UT1's lists that are used.")
    max_page_bytes: int = Field(
        8 * 2**20,
        ge=1024,
        le=2**30,
        description="A page larger than this, also after decompression, is dropped as empty/too_large.",
    )
    page_seconds: float = Field(
        0.9,  # two CPU seconds at most for a hostile page of 1 MiB
        gt=0,
        le=3600,
        description="CPU seconds that the extraction of a page may take, once for each page and again for each MiB of its HTML; a page "
        "that takes more is dropped as empty/timeout. The heaviest of 1,722 real pages took 0.7 of this with combined, 0.45 with trafilatura; raise it on a slow machine.",
    )
    max_requests_per_second: float = runtime(
        4.0, ge=0, description="Limit shared by all workers, for remote files; 0 is no limit."
    )
    max_bytes_per_second: int = runtime(0, ge=0, description="Likewise; 0 is no limit.")
    num_workers: int = runtime(0, ge=0, le=1024, description="Worker processes; 0 is one a core.")
    max_failed_fraction: float = failed_fraction()


@dataclass(frozen=True)
class IngestInputs:
    """What documents are made of, and what drops a page before extraction."""

    crawl: Crawl
    language_model: Resource | None = None
    blocklists: tuple[Resource, ...] = ()


def prefilter_model(config: IngestConfig) -> Step[Resource] | None:
    """The language identification model that drops pages before extraction; None where no language is asked for."""
    return language_id.language_model(config.language_model) if config.languages else None


def ingest(
    crawl: Step[Crawl],
    language_model: Step[Resource] | None,
    blocklists: Sequence[Step[Resource]],
    config: IngestConfig,
) -> Step[Documents]:
    """Read web archive files into documents."""
    inputs = roles(crawl=crawl, language_model=language_model, blocklists=blocklists)
    return Step("ingest", VERSION, Documents, config, inputs, run=ingest_documents, takes=IngestInputs)


def ingest_documents(ctx: StageContext, config: IngestConfig, inputs: IngestInputs) -> Outcome:
    """Read every file of the crawl by itself. Raises UserError where none is a web archive."""
    crawl = inputs.crawl
    model = inputs.language_model.files("*")[0] if inputs.language_model else None
    if model:
        language_id.refuse_unknown(config.languages, model)
    lists = [file for blocklist in inputs.blocklists for file in blocklist.files("*")]
    by_category = blocklists.by_category(lists, config.blocked_categories)
    # One file that all workers map: the entries are in memory once, not once for each worker.
    blocklists.write_keys(by_category, ctx.state / "blocklist.npy")
    files = located(config, crawl)
    files.sort(key=lambda file: -(file["bytes"] or 0))  # the largest first, or it runs alone at the end
    shards = [
        (file["name"], File(file["name"], file["url"], ctx.folder, config, tuple(by_category), str(model or "")))
        for file in files
    ]
    estimate = sum(file["bytes"] or 0 for file in files) // BYTES_PER_PAGE
    counts = map_shards(
        ctx,
        ingest_file,
        shards,
        num_workers=config.num_workers,
        total=crawl.manifest.counts.get("pages", max(estimate, 1)),
        unit="documents",
        max_failed_fraction=config.max_failed_fraction,
    )
    # A file that was set aside has none.
    errors = [error for _, file in shards if file.errors_path.exists() for error in read_lines(file.errors_path)]
    write_lines(ctx.folder / "errors.jsonl", errors)
    _refuse_rubbish(ctx, counts, len(files), errors)
    report_funnel(ctx, counts, "Pages")
    return Outcome(counts)


@dataclass(frozen=True)
class File:
    """One web archive file to be read, and where what is in it goes."""

    name: str
    url: str
    folder: Path
    config: IngestConfig
    categories: tuple[str, ...]  # of unwanted addresses
    language_model: str

    @property
    def label(self) -> str:
        """The file's name, which documents and errors show; without the query of a signed URL."""
        return redact_url(self.url).partition("?")[0].rpartition("/")[2]

    @property
    def extraction(self) -> Settings:
        """How the sandbox extracts the text of this file's pages."""
        config = self.config
        return Settings(
            extractor=config.extractor,
            page_seconds=config.page_seconds,
            languages=tuple(config.languages),
            min_language_score=config.min_language_score,
            language_model=self.language_model,
        )

    @property
    def blocklist(self) -> Blocklist:
        """The block lists of the stage, loaded once in each worker."""
        return _blocklist(self.folder / STATE / "blocklist.npy", self.categories)

    @property
    def rate_limiter(self) -> RateLimiter:
        """One for all workers."""
        limits = self.config.max_requests_per_second, self.config.max_bytes_per_second
        return RateLimiter(self.folder / STATE / "rate_limit", *limits)

    @property
    def errors_path(self) -> Path:
        """The damaged places of this file, as JSON Lines in the stage's state."""
        return self.folder / STATE / "errors" / f"{self.name}.jsonl"


def ingest_file(file: File) -> Counts:
    """Read one file; counts of its records and pages."""
    counts = Counter(dict.fromkeys(COUNTS, 0) | {"files": 1})
    damages: list[DamagedRange] = []
    with (
        KeptDroppedWriter(file.folder, f"{file.name}.parquet") as writer,
        open_file(file.url, file.rate_limiter) as source,
    ):
        for found in read_records(source, file.config.max_page_bytes + HEADER_BYTES):
            if isinstance(found, DamagedRange):
                counts["damages"] += 1
                counts["damaged_bytes"] += found.num_bytes
                # The first ones and the last: a hostile file may have one for every few bytes, and where reading ended is worth
                # knowing.
                damages = [*damages[: MAX_ERRORS - 1], found]
                continue
            kind = kind_of(found)
            counts["records_read"] += 1
            counts[f"records/{kind if kind in RECORD_TYPES else 'other'}"] += 1
            if kind in PAGES:
                counts["pages"] += 1
                route_record(found, file, writer)
                tick()
    if damages:
        # A file that only ends early is the usual trace of a broken download, and counted apart from damage.
        is_only_cut = damages[0].is_cut and counts["records_read"] > 0
        counts["files_cut_off" if is_only_cut else "files_with_errors"] += 1
        counts["files_unreadable"] += not counts["records_read"]
    write_lines(file.errors_path, _errors(file, damages, counts["damages"]))
    counts.update(writer.counts)
    return dict(counts)


def _errors(file: File, damages: list[DamagedRange], num_damages: int) -> Iterator[dict[str, Any]]:
    for number, damage in enumerate(damages, 1):
        hidden = num_damages - len(damages) if number == len(damages) else 0
        error = damage.reason + f" (the last place; {hidden} before it are not listed)" * (hidden > 0)
        yield {"file": file.label, "offset": damage.offset, "bytes": damage.num_bytes, "error": error}


def kind_of(record: Record) -> str:
    """The type of a record; a resource that is HTML counts as a page."""
    is_html = record.content_type.partition(";")[0].strip().lower() in HTML_TYPES
    return "html_resource" if record.type == "resource" and is_html else record.type


def route_record(record: Record, file: File, writer: KeptDroppedWriter) -> None:
    """Keep the document of a record, or drop it with the reason. URLs are stored without credentials and signatures."""
    url = original_url(record.url)
    document = Document(
        id=redact_url(record.id) or f"{file.label}:{record.offset}",
        url=CONTROLS.sub(lambda found: f"%{ord(found[0]):02X}", redact_url(url)),
        date=record.date,
        file=file.label,
        offset=record.offset,
        text="",
    )
    try:
        _refuse_address(url, file)
        writer.keep({**document, "text": text_of(record, file)})
    except Dropped as dropped:
        writer.drop(document, str(dropped))


def _refuse_address(url: str, file: File) -> None:
    if file.categories and (parts := split_address(url)) and (category := file.blocklist.category(parts)):
        raise Dropped(f"url/{category}")


@cache
def _blocklist(keys: Path, categories: tuple[str, ...]) -> Blocklist:
    return Blocklist(blocklists.load_keys(keys), categories)


def text_of(record: Record, file: File) -> str:
    """The text of a page. Raises Dropped."""
    max_bytes = file.config.max_page_bytes
    if record.type == "revisit":
        raise Dropped("revisit/unchanged")
    if record.length > max_bytes + HEADER_BYTES:
        raise Dropped("empty/too_large")
    if (block := record.block) is None:
        raise Dropped("truncated/archive")
    # From here on the bytes are a stranger's: the body is decompressed within max_bytes, and parsed in the sandbox alone.
    if record.type == "resource":  # a response without its head
        block = f"HTTP/1.1 200\r\nContent-Type: {record.content_type}\r\n\r\n".encode() + block
    if record.type in ("response", "resource"):
        return sandbox(file.extraction).extract(body_of(block, max_bytes))
    # A conversion record (WET) is text already, in UTF-8; without an HTTP header its length is that of the text.
    if record.length > max_bytes:
        raise Dropped("empty/too_large")
    if not (text := block.decode("utf-8", "replace").strip()):
        raise Dropped("empty/text")
    return text


def original_url(url: str) -> str:
    """The URL of the page itself where `url` is that of a copy in the Wayback Machine."""
    match = WAYBACK.fullmatch(url)
    return match[1] if match else url


def _refuse_rubbish(ctx: StageContext, counts: Counts, num_files: int, errors: list[dict[str, Any]]) -> None:
    """Log the first damaged places. Raises UserError where not one file could be read."""
    for found in errors[:MAX_LOGGED]:
        ctx.log("damaged file {file}, at byte {offset}: {error}".format(**found))
    if len(errors) > MAX_LOGGED:
        ctx.log(f"{len(errors) - MAX_LOGGED:,} more damaged places are listed in errors.jsonl of this artifact")
    if counts["files_unreadable"] == num_files:
        raise UserError(
            "none of the {} files is a web archive; the first, {file}, at byte {offset}: {error}. "
            "Give WARC, ARC or WET files with --input".format(num_files, **errors[0])
        )
