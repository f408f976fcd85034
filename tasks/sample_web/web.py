"""The sample web: a small fictional web, written as WARC files, with the expected outcome of every page.

Reads the world and its articles (world.py, articles.py). Writes into a folder:

- warc/sample-00000.warc.gz ...: request, response and metadata records as a crawler leaves them (ISO 28500, WARC 1.0), a gzip
  member each, in the order of their dates; the last record of the last file is cut off, as a full disk leaves it;
- blacklists/<category>/domains, urls and usage, in the layout of the UT1 lists of the Université Toulouse Capitole;
- truth.jsonl: for every response and revisit, the outcome that is expected of the filters, and why;
- facts.jsonl: every fact of the world with the number of pages that state it, duplicates not counted, and whether it is held out: no
  page and no conversation asks about its subject;
- strangers.jsonl: people, cities and books without facts; those that are tested occur in the questions of the evaluation alone.

The same seed writes the same bytes. Unlike in a real crawl, hosts, people and numbers are invented.
"""

import datetime
import io
import json
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import urlsplit

from warcio.recordloader import ArcWarcRecord
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from model.files import write_lines
from tasks.sample_web.config import SampleWebConfig
from tasks.sample_web.plan import CRAWL_START, Capture, plan_captures
from tasks.sample_web.sites import write_blacklists
from tasks.sample_web.variants import build_variant
from tasks.sample_web.world import World


def write_sample_web(folder: Path, config: SampleWebConfig) -> dict[str, int]:
    """Write the five parts into `folder`. Returns counts of records, pages (responses and revisits), files and expected outcomes."""
    world = build_variant(config)
    captures = plan_captures(world, config)
    (folder / "warc").mkdir(parents=True, exist_ok=True)
    per_file = -(-len(captures) // config.num_files)
    num_records = 0
    with (folder / "truth.jsonl").open("w", encoding="utf-8") as truth:
        for index in range(config.num_files):
            path = folder / "warc" / f"sample-{index:05d}.warc.gz"
            share = captures[index * per_file : (index + 1) * per_file]
            record_ids, file_records = write_warc(path, share, config.seed, has_types=index % 2 == 0)
            num_records += file_records
            for capture, record_id in zip(share, record_ids, strict=True):
                truth.write(json.dumps(truth_of(capture, path.name, record_id), ensure_ascii=False) + "\n")
    write_blacklists(folder / "blacklists")
    num_facts = write_facts(folder / "facts.jsonl", world, captures)
    write_lines(folder / "strangers.jsonl", strangers_of(world))
    expectations = Counter(capture.expected for capture in captures)
    counts = {"records": num_records, "pages": len(captures), "files": config.num_files, "facts": num_facts}
    return counts | dict(sorted(expectations.items()))


def truth_of(capture: Capture, file: str, record_id: str) -> dict[str, object]:
    """The line of truth.jsonl for a capture."""
    return {
        "url": capture.url,
        "file": file,
        "record_id": record_id,
        "expected": capture.expected,
        "cluster": capture.cluster,
        "pii": capture.personal.counts,
        "redact": capture.personal.redact,
        "traps": capture.personal.traps,
        "facts": list(capture.facts),
        "note": capture.note,
    }


def write_facts(path: Path, world: World, captures: Iterable[Capture]) -> int:
    """Write facts.jsonl. Returns the number of facts."""
    mentions = Counter(fact for capture in captures if capture.expected == "keep" for fact in set(capture.facts))
    return write_lines(path, ({**asdict(fact), "num_mentions": mentions[fact.id]} for fact in world.facts))


def strangers_of(world: World) -> Iterator[dict[str, object]]:
    """The lines of strangers.jsonl."""
    for is_tested, strangers in ((False, world.strangers), (True, world.tested_strangers)):
        for entity in strangers:
            yield {"name": entity.name, "kind": entity.kind, "origin": entity.origin, "is_tested": is_tested}


# WARC


def write_warc(path: Path, captures: Iterable[Capture], seed: int, has_types: bool) -> tuple[list[str], int]:
    """Write one file. Returns the identifier of each capture's record, and the number of all records.

    `has_types`: whether the crawler recorded the detected type of each payload, as Common Crawl's does.
    """
    identifiers, num_records = [], 1
    with path.open("wb") as out:
        writer = WARCWriter(out, gzip=True)
        writer.write_record(info_record(writer, path.name, seed))
        for index, capture in enumerate(captures):
            names = {kind: record_name(seed, path.name, index, kind) for kind in ("request", "response", "metadata")}
            identifiers.append(names["response"])
            is_cut = capture.expected == "truncated"
            writer.write_record(request_record(writer, capture, names))
            start = out.tell()
            writer.write_record(response_record(writer, capture, names, has_types))
            if is_cut:
                out.truncate((start + out.tell()) // 2)
            else:
                writer.write_record(metadata_record(writer, capture, names))
            num_records += 2 if is_cut else 3
    return identifiers, num_records


def record_name(seed: int, *parts: object) -> str:
    """A record identifier that depends on the seed and `parts` alone."""
    return f"<{uuid.uuid5(uuid.NAMESPACE_URL, '/'.join(map(str, (seed, *parts)))).urn}>"


def date_text(date: datetime.datetime) -> str:
    """A date as WARC writes it."""
    return date.strftime("%Y-%m-%dT%H:%M:%SZ")


def info_record(writer: WARCWriter, name: str, seed: int) -> ArcWarcRecord:
    """The warcinfo record at the start of a file."""
    payload = b"software: crawl2chat sample web\r\nformat: WARC File Format 1.0\r\nrobots: none, the web is made up\r\n"
    headers = {
        "WARC-Record-ID": record_name(seed, name, "warcinfo"),
        "WARC-Filename": name,
        "WARC-Date": date_text(CRAWL_START),
    }
    return writer.create_warc_record("", "warcinfo", io.BytesIO(payload), len(payload), warc_headers_dict=headers)


def request_record(writer: WARCWriter, capture: Capture, names: dict[str, str]) -> ArcWarcRecord:
    """The request of a capture."""
    parts = urlsplit(capture.url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    fields = [("User-Agent", "samplebot/1.0"), ("Accept-Encoding", "gzip"), ("Host", parts.netloc)]
    http = StatusAndHeaders(f"GET {target} HTTP/1.1", fields, is_http_request=True)
    headers = {
        "WARC-Record-ID": names["request"],
        "WARC-Date": date_text(capture.date),
        "WARC-Concurrent-To": names["response"],
    }
    return writer.create_warc_record(capture.url, "request", warc_headers_dict=headers, http_headers=http)


def response_record(writer: WARCWriter, capture: Capture, names: dict[str, str], has_types: bool) -> ArcWarcRecord:
    """The response of a capture, or its revisit record."""
    fields = [
        ("Date", format_datetime(capture.date, usegmt=True)),
        ("Server", "nginx"),
        ("Content-Type", capture.content_type),
    ]
    http = StatusAndHeaders(capture.status, [*fields, *capture.headers], protocol="HTTP/1.1")
    headers = {"WARC-Record-ID": names["response"], "WARC-Date": date_text(capture.date)}
    if capture.revisit_of:
        before = date_text(capture.revisit_of)
        return writer.create_revisit_record(capture.url, capture.digest, capture.url, before, http, headers)
    if has_types:
        headers["WARC-Identified-Payload-Type"] = capture.identified
    return writer.create_warc_record(
        capture.url,
        "response",
        io.BytesIO(capture.body),
        len(capture.body),
        warc_headers_dict=headers,
        http_headers=http,
    )


def metadata_record(writer: WARCWriter, capture: Capture, names: dict[str, str]) -> ArcWarcRecord:
    """The crawler's metadata of a capture."""
    payload = f"fetchTimeMs: {len(capture.body) % 397 + 20}\r\n".encode()
    headers = {
        "WARC-Record-ID": names["metadata"],
        "WARC-Date": date_text(capture.date),
        "WARC-Concurrent-To": names["response"],
    }
    return writer.create_warc_record(
        capture.url, "metadata", io.BytesIO(payload), len(payload), warc_headers_dict=headers
    )
