"""Ingest: from web archive files to documents.

Reads the files that a Crawl names: WARC, ARC, WET. Writes, per file NAME, documents/NAME.parquet with the text of every page
that has one, dropped/NAME.parquet with every other page and the reason, and errors.jsonl with every file that is no web
archive or is damaged: {"file", "offset", "error"}. What was read of a damaged file before the damage is kept.

A page is a response, revisit or conversion record. pages = documents + documents_dropped, and records_read is the sum of the
records by type. Reasons: status/..., mime/..., revisit/..., truncated/... (the file ends within the page), and empty/... for what
has no text: body, text, timeout, too_large, undecodable, error.

FineWeb's reader takes every response with HTML in it, also of errors and redirects; only status 200 is taken here.
"""

import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from tasks.archive import HEADER_BYTES, BrokenArchive, Record, read_records
from tasks.artifacts import STATE, Config, Crawl, Documents, Outcome, Step, runtime, write_atomically
from tasks.crawl import crawl, located
from tasks.download import open_file
from tasks.executor import Counts, map_shards, tick
from tasks.extraction import extraction
from tasks.page import Dropped, Extractor, html_of
from tasks.sample.web import SampleWebConfig
from tasks.shards import Document
from tasks.sieve import Sieve, funnel
from tasks.stage import Run

VERSION = 1
COUNTS = ("files", "files_with_errors", "files_cut_off", "files_unreadable", "records_read", "pages")
PAGES = ("response", "revisit", "conversion")
RECORD_TYPES = (*PAGES, "warcinfo", "request", "metadata", "resource", "continuation", "arc_header")
WAYBACK = re.compile(r"https?://web\.archive\.org/web/\d{4,14}(?:[a-z]{2}_)?/(.+)", re.I)
BYTES_PER_PAGE = 25_000  # of a compressed crawl, for the progress bar


class IngestConfig(Config):
    """Which web archives are read, and what counts as a page."""

    inputs: list[str] = runtime(
        ["sample"],
        min_length=1,
        description="Web archive files: paths, globs, folders, http(s) or other fsspec URLs, cc:CC-MAIN-2024-22 for a crawl of "
        "Common Crawl, or sample for the embedded sample web.",
    )
    max_files: int = runtime(0, ge=0, description="Read only the first so many files; 0 reads all.")
    base_url: str = runtime("https://data.commoncrawl.org/", description="Where cc: inputs and their listing lie.")
    sample: SampleWebConfig = runtime(SampleWebConfig(), title="Sample web")
    extractor: Extractor = Field(
        "precise",
        description="precise is trafilatura with its fallbacks, as FineWeb uses it; fast is without them, in half the time.",
    )
    max_page_bytes: int = Field(
        8 * 2**20,
        ge=1024,
        le=2**30,
        description="A page larger than this, also after decompression, is dropped as empty/too_large.",
    )
    page_seconds: float = Field(
        20.0, gt=0, le=3600, description="A page whose extraction takes longer is dropped as empty/timeout."
    )
    num_workers: int = runtime(0, ge=0, le=1024, description="Worker processes; 0 is one a core.")


def ingest(config: IngestConfig) -> Step[Documents]:
    """Raises ValueError where an input is none."""
    source = crawl(config.inputs, config.max_files, config.base_url, config.sample)
    return Step("ingest", VERSION, Documents, config, {"crawl": source}, run=run)


def run(run: Run, config: IngestConfig, crawl: Crawl) -> Outcome:
    files = located(run.step.inputs["crawl"], crawl)
    files.sort(key=lambda file: -(file["bytes"] or 0))  # the largest first, or it runs alone at the end
    shards = [(file["name"], File(file["name"], file["url"], run.folder, config)) for file in files]
    estimate = sum(file["bytes"] or 0 for file in files) // BYTES_PER_PAGE
    counts = map_shards(
        run,
        ingest_file,
        shards,
        num_workers=config.num_workers or os.cpu_count() or 1,
        total=crawl.manifest.counts.get("pages", max(estimate, 1)),
        unit="documents",
    )
    errors = [line for _, file in shards for line in file.errors_path.read_text().splitlines()]
    (run.folder / "errors.jsonl").write_text("".join(f"{line}\n" for line in errors))
    _refuse_rubbish(run, counts, len(files), errors)
    run.table("funnel", funnel(counts), "Pages kept, and dropped by reason")
    return Outcome(counts)


@dataclass(frozen=True)
class File:
    """One web archive file to be read, and where what is in it goes."""

    name: str
    url: str
    folder: Path
    config: IngestConfig

    @property
    def label(self) -> str:
        """The file's name, as records are told by."""
        return self.url.rpartition("/")[2]

    @property
    def errors_path(self) -> Path:
        return self.folder / STATE / "errors" / f"{self.name}.jsonl"


def ingest_file(file: File) -> Counts:
    """Read one file; counts of its records and pages."""
    counts = Counter(dict.fromkeys(COUNTS, 0) | {"files": 1})
    with Sieve(file.folder, f"{file.name}.parquet") as sieve, open_file(file.url) as source:
        try:
            for record in read_records(source):
                counts["records_read"] += 1
                counts[f"records/{record.type if record.type in RECORD_TYPES else 'other'}"] += 1
                if record.type in PAGES:
                    counts["pages"] += 1
                    sort(record, file, sieve)
                    tick()
            error = ""
        except BrokenArchive as broken:
            error = json.dumps({"file": file.label, "offset": broken.offset, "error": str(broken)})
            counts["files_cut_off" if broken.is_cut and counts["records_read"] else "files_with_errors"] += 1
            counts["files_unreadable"] += not counts["records_read"]
    write_atomically(file.errors_path, error)
    counts.update(sieve.counts)
    return dict(counts)


def sort(record: Record, file: File, sieve: Sieve) -> None:
    """Keep the document of a record, or drop it with the reason."""
    document = Document(
        id=record.id or f"{file.label}:{record.offset}",
        url=original_url(record.url),
        date=record.date,
        file=file.label,
        offset=record.offset,
        text="",
    )
    try:
        sieve.keep({**document, "text": text_of(record, file.config)})
    except Dropped as dropped:
        sieve.drop(document, str(dropped))


def text_of(record: Record, config: IngestConfig) -> str:
    """The text of a page. Raises Dropped."""
    if record.type == "revisit":
        raise Dropped("revisit/unchanged")
    if record.length > config.max_page_bytes + HEADER_BYTES:
        raise Dropped("empty/too_large")
    block = record.read(record.length)
    if len(block) < record.length:
        raise Dropped("truncated/archive")
    if record.type == "response":
        return extraction(config.extractor, config.page_seconds).text(html_of(block, config.max_page_bytes))
    if record.length > config.max_page_bytes:
        raise Dropped("empty/too_large")
    if not (text := block.decode("utf-8", "replace").strip()):
        raise Dropped("empty/text")
    return text


def original_url(url: str) -> str:
    """The URL of the page itself where `url` is that of a copy in the Wayback Machine."""
    match = WAYBACK.fullmatch(url)
    return match[1] if match else url


def _refuse_rubbish(run: Run, counts: Counts, num_files: int, errors: list[str]) -> None:
    """Name every damaged file. Raises ValueError where not one could be read."""
    for line in errors:
        run.log("damaged file {file}, at byte {offset}: {error}".format(**json.loads(line)))
    if counts["files_unreadable"] == num_files:
        raise ValueError(
            "none of the {} files is a web archive; the first, {file}, at byte {offset}: {error}. "
            "Give WARC, ARC or WET files with --input".format(num_files, **json.loads(errors[0]))
        )
