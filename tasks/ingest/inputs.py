"""Which web archive files are read: the input of the pipeline.

Reads no file, but for its checksum: finds what paths, globs, folders, URLs and names of Common Crawl crawls stand for. Writes
inputs.jsonl, a file a line: {"name": its shards', "url": where to read it, relative to the artifact's folder or not,
"bytes": or null}.

A file is known by its name and content, not by where it lies: a local one by its sha256, a remote one by its size and what its
server gives as checksum or time. A crawl of Common Crawl is known by its name; its listing (crawl-data/CRAWL/warc.paths.gz)
is fetched when the step runs.
"""

import glob
import gzip
import json
import os
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

import fsspec
from pydantic import Field

from model.config import Config, runtime
from model.errors import UserError
from model.files import read_lines
from tasks.artifacts.manifest import Crawl
from tasks.artifacts.step import Outcome, Step
from tasks.artifacts.store import Store
from tasks.execution.context import StageContext
from tasks.redaction import redact_text, redact_url
from tasks.sample_web.config import SampleWebConfig, SampleWebSize
from tasks.web.download import head, is_http, open_file

VERSION = 2
SAMPLE_VERSION = 6  # of what write_sample_web writes; 6: most worked sums have two digits
SAMPLE = "sample"
ARCHIVE = re.compile(r"\.(arc|warc|wet|warc\.wet)(\.gz|\.zst)?$", re.I)
CHECKSUMS = (
    "ETag",
    "etag",
    "md5Hash",
    "checksum",
    "LastModified",
    "mtime",
    "created",
    "CRC",
)  # as filesystems of fsspec name them
WACZ = re.compile(r"\.wacz$", re.I)
MAX_WACZ_MEMBERS = 100_000
MAX_NAME_BYTES = 120  # of a shard; a file system takes 255, and stages add suffixes
MAX_SKIPPED = 20  # that are named
CONTROLS = re.compile(r"[\0-\x1f\x7f-\x9f\ud800-\udfff]")
REMEDY = "give a path, glob, folder or URL of WARC, ARC or WET files, cc:CC-MAIN-2024-22 or sample with --input"


class ListedFile(TypedDict):
    """A line of inputs.jsonl."""

    name: str
    url: str
    bytes: int | None


class ArchiveFile(Config):
    """What identifies a file."""

    name: str
    bytes: int | None
    checksum: str


class InputsConfig(Config):
    """Which web archive files are read, as typed."""

    inputs: list[str] = runtime(
        ["sample"],
        min_length=1,
        description="Web archive files: paths, globs, folders, http(s) or other fsspec URLs, cc:CC-MAIN-2024-22 for a crawl of "
        "Common Crawl, or sample for the embedded sample web.",
    )
    max_files: int = runtime(0, ge=0, description="Read only the first so many files; 0 reads all.")
    base_url: str = runtime("https://data.commoncrawl.org/", description="Where cc: inputs and their listing lie.")
    sample: SampleWebSize = runtime(SampleWebSize(), title="Sample web")


class CrawlConfig(Config):
    """The files and crawls of one input, found. `urls` are the current places of `files`."""

    files: list[ArchiveFile] = Field(default_factory=list)
    urls: list[str] = runtime([])
    skipped: list[str] = runtime([])
    crawls: list[str] = Field(default_factory=list)
    base_url: str = ""
    max_files: int = 0


def web_archives(config: InputsConfig, world_seed: int) -> Step[Crawl]:
    """The step that lists the web archive files to read, or writes the sample web of a seed."""
    if config.inputs == [SAMPLE]:
        sample = SampleWebConfig(seed=world_seed, **config.sample.model_dump())
        return Step("crawl", SAMPLE_VERSION, Crawl, sample, {}, run=run_sample, is_source=True)
    asked = InputsConfig(**{name: getattr(config, name) for name in InputsConfig.model_fields})
    return Step("crawl", VERSION, Crawl, asked, {}, run=list_files, resolve=find_files, is_source=True)


def find_files(asked: InputsConfig) -> CrawlConfig:
    """The first `max_files` files (0: all) of the inputs, each with its size and checksum. Raises UserError for a bad input."""
    skipped: list[str] = []
    urls = find_urls(asked, skipped)
    files = [ArchiveFile(name=name, **_identity(url)) for name, url in zip(shard_names(urls), urls, strict=True)]
    crawls = [name.removeprefix("cc:") for name in asked.inputs if name.startswith("cc:")]
    if crawls:
        config = {"crawls": crawls, "base_url": asked.base_url, "max_files": asked.max_files}
        return CrawlConfig(files=files, urls=urls, skipped=skipped, **config)
    return CrawlConfig(files=files, urls=urls, skipped=skipped)


def find_urls(asked: InputsConfig, skipped: list[str] | None = None) -> list[str]:
    """The files of all inputs but the crawls of Common Crawl, each once; appends to `skipped` what is in a folder and not read.

    Raises UserError if an input matches no file.
    """
    if "" in asked.inputs:
        raise UserError(f"an input is empty: {REMEDY}")
    if SAMPLE in asked.inputs:
        raise UserError(f"input sample is given with others ({asked.inputs}): give it alone, or leave it out")
    # Each once, in the order given: two globs may name one file, whose pages would be documents twice.
    urls = list(
        dict.fromkeys(url for name in asked.inputs if not name.startswith("cc:") for url in find(name, skipped))
    )
    return urls[: asked.max_files or None]


def list_files(ctx: StageContext, config: CrawlConfig) -> Outcome:
    """Write the list of files, and log what was skipped."""
    urls = config.urls + [url for name in config.crawls for url in list_crawl(name, config.base_url)]
    urls = urls[: config.max_files or None]
    sizes = [file.bytes for file in config.files] + [None] * (len(urls) - len(config.files))
    _write_inputs(ctx.folder, urls, sizes)
    for reason in config.skipped[:MAX_SKIPPED]:
        ctx.log(f"skipped {reason}")
    if len(config.skipped) > MAX_SKIPPED:
        ctx.log(f"skipped {len(config.skipped) - MAX_SKIPPED:,} more files")
    num_bytes = sum(size or 0 for size in sizes)
    return Outcome({"files": len(urls), "files_skipped": len(config.skipped), "bytes": num_bytes})


def run_sample(ctx: StageContext, config: SampleWebConfig) -> Outcome:
    """Write the sample web and list its files."""
    from tasks.sample_web.web import write_sample_web

    counts = write_sample_web(ctx.folder, config)
    list_written(ctx.folder)
    return Outcome(counts)


def list_written(folder: Path) -> None:
    """List the files below `folder`/warc as the inputs of a crawl, with places relative to the folder."""
    paths = sorted((folder / "warc").iterdir())
    _write_inputs(folder, [str(path.relative_to(folder)) for path in paths], [path.stat().st_size for path in paths])


def located(asked: InputsConfig, artifact: Crawl) -> list[ListedFile]:
    """The files of a crawl at their current places: they may have been moved since they were listed."""
    files: list[ListedFile] = read_lines(artifact.folder / "inputs.jsonl")
    current = _current_urls(asked, files)
    # Inputs that name a crawl (cc:) are not looked up again, so that the current places may be fewer than the listed ones.
    for number, file in enumerate(files):
        url = current[number] if number < len(current) else file["url"]
        file["url"] = url if "://" in url else str(artifact.folder / url)
    return files


def _current_urls(asked: InputsConfig, listed: Sequence[ListedFile]) -> list[str]:
    """The files that the inputs name now, where they are the listed ones by name; else none: the listed places hold."""
    try:
        urls = [] if asked.inputs == [SAMPLE] else find_urls(asked)
    except UserError:  # on another machine the inputs may not exist
        return []
    return urls if shard_names(urls) == [file["name"] for file in listed[: len(urls)]] else []


def _write_inputs(folder: Path, urls: list[str], sizes: Iterable[int | None]) -> None:
    with (folder / "inputs.jsonl").open("w", encoding="utf-8") as stream:
        for name, url, size in zip(shard_names(urls), urls, sizes, strict=True):
            stream.write(json.dumps(ListedFile(name=name, url=url, bytes=size)) + "\n")


def find(pattern: str, skipped: list[str] | None = None) -> list[str]:
    """The files that an input stands for, in order of name: absolute paths and URLs. Raises UserError where no file is found."""
    if is_http(pattern):
        return [pattern]
    local = pattern.removeprefix("file://")
    if "://" in local:
        return list(_find_remote(pattern))
    try:
        paths, reason = _find_local(Path(local).expanduser(), [] if skipped is None else skipped)
    except (OSError, ValueError) as error:  # a name too long, or with a zero byte
        raise UserError(f"{_shown(pattern)} cannot be read ({_shown(str(error))[:200]}): {REMEDY}") from error
    if not paths:
        raise UserError(f"{reason}: {REMEDY}")
    urls = sorted(str(path.resolve()) for path in paths)
    return [member for url in urls for member in (_wacz_members(url) if WACZ.search(url) else [url])]


def _find_local(path: Path, skipped: list[str]) -> tuple[list[Path], str]:
    """The files found, and the reason to report where none is found."""
    name = _shown(str(path))
    if path.is_file():
        return [path], ""
    if path.is_dir():
        reason = (
            f"folder {name} holds no file named *.warc, *.arc, *.wet or one of these with .gz or .zst, and no *.wacz"
        )
        return _walk(path, skipped), reason
    found = [file for one in sorted(glob.glob(str(path), recursive=True)) if (file := Path(one)).is_file()]  # noqa: PTH207 - absolute patterns too
    return found, f"no file matches {name}" if glob.has_magic(str(path)) else f"{name} does not exist"


def _walk(folder: Path, skipped: list[str]) -> list[Path]:
    """The web archives in a folder and those below it, through links to folders too, each folder once."""
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        status = Path(root).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder that was read, or to one above
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            if not path.exists():
                skipped.append(f"{_shown(str(path))}: it is a link to nothing")
            elif not path.is_file() or not (ARCHIVE.search(name) or WACZ.search(name)):
                skipped.append(f"{_shown(str(path))}: its name is not that of a WARC, ARC, WET or WACZ file")
            else:
                found.append(path)
    return found


def _wacz_members(path: str) -> list[str]:
    """The web archives in a WACZ file (https://specs.webrecorder.net/wacz/1.1.1/), as URLs that read them without unpacking it."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()[:MAX_WACZ_MEMBERS]
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{_shown(path)} is no WACZ file ({error}): leave it out, or get it again") from error
    names = [member.filename for member in members if ARCHIVE.search(member.filename) and not member.flag_bits & 1]
    # The name becomes a part of a chained URL of fsspec: with these marks it could name another file or host.
    names = [name for name in names if "::" not in name and "://" not in name]
    if not names:
        raise UserError(f"{_shown(path)} holds no web archive: {REMEDY}")
    return [f"zip://{name}::{path}" for name in sorted(names)]


def _shown(name: str) -> str:
    """A name without the characters that a terminal would obey."""
    return CONTROLS.sub("?", name)


def _find_remote(pattern: str) -> Iterator[str]:
    chain = f"::{pattern.partition('::')[2]}" if "::" in pattern else ""
    try:
        filesystem, path = fsspec.core.url_to_fs(pattern)
        if glob.has_magic(path):
            found = [name for name in filesystem.glob(path) if filesystem.isfile(name)]
        elif filesystem.isdir(path) or not path:
            found = [name for name in filesystem.find(path) if ARCHIVE.search(name)]
        else:
            found = [path] if filesystem.exists(path) else []
    except (
        ImportError,
        ValueError,
        OSError,
        zipfile.BadZipFile,
    ) as error:  # an unknown protocol, a missing package or file
        raise UserError(
            f"{redact_url(_shown(pattern))} cannot be read ({redact_text(str(error))}): {REMEDY}"
        ) from error
    if not found:
        raise UserError(f"no file matches {redact_url(_shown(pattern))}: {REMEDY}")
    yield from (filesystem.unstrip_protocol(name) + chain for name in sorted(found))


def _identity(url: str) -> dict[str, Any]:
    if is_http(url):
        size, checksum = head(url)
    elif "://" in url:
        filesystem, path = fsspec.core.url_to_fs(url)
        info = filesystem.info(path)
        size, checksum = info["size"], str(next((info[name] for name in CHECKSUMS if info.get(name)), ""))
    else:
        hashes = Store.default().hashes
        size, checksum = Path(url).stat().st_size, hashes.of(Path(url))
        hashes.save()
    return {"bytes": size, "checksum": checksum}


def list_crawl(name: str, base_url: str) -> list[str]:
    """The URLs of all WARC files of a Common Crawl crawl. Raises ValueError where there is no such crawl."""
    base = base_url.rstrip("/")
    listing = f"{base}/crawl-data/{name}/warc.paths.gz"
    try:
        with open_file(listing) as stream:
            paths = gzip.decompress(stream.read()).decode().split()
    except (ValueError, FileNotFoundError, gzip.BadGzipFile) as error:
        raise ValueError(
            f"there is no listing of crawl {name} at {listing} ({error}): "
            "see https://commoncrawl.org/get-started for the names of crawls, and check the base URL"
        ) from error
    return [f"{base}/{path}" for path in paths]


def shard_names(urls: Iterable[str]) -> list[str]:
    """A short name for each file, all different: that of the file without its suffixes."""
    names: dict[str, None] = {}
    next_numbers: dict[str, int] = {}  # counting from 2 for each file was quadratic in files of one name
    for url in urls:
        file_name = url.partition("::")[0].partition("?")[0].rpartition("/")[2]
        safe = re.sub(r"[^\w.-]+", "-", ARCHIVE.sub("", file_name))
        # The end of a long name: in crawls that is where the number of the file stands. A cut may split a character: it goes.
        stem = safe.encode("utf-8", "ignore")[-MAX_NAME_BYTES:].decode("utf-8", "ignore") or "file"
        name, number = stem, next_numbers.get(stem, 2)
        while name in names:
            name, number = f"{stem}-{number}", number + 1
        next_numbers[stem] = number
        names[name] = None
    return list(names)
