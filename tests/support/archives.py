"""Web archives for tests: WARC files written record by record, and a server that serves a folder badly."""

import contextlib
import gzip
import http.server
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import zstandard
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

PARAGRAPH = (
    "The old lighthouse at the mouth of the river {} was built by fishermen who had grown tired of losing boats. "
    "They carried every stone up the hill by hand, and it took them eleven winters to finish the tower. "
    "Nowadays visitors climb its stairs in the evening, when the ships come home and the lamps are lit. "
)


def html(number: int, text: str = "") -> str:
    body = text or PARAGRAPH.format(number)
    links = "".join(f'<li><a href="/{link}">Section {link}</a></li>' for link in range(5))
    return (
        f"<!doctype html><html><head><title>Page {number}</title></head><body><nav><ul>{links}</ul></nav>"
        f"<article><h1>River {number}</h1><p>{body}</p><p>{body}</p></article><footer>Imprint</footer></body></html>"
    )


def response(
    url: str, body: str | bytes, status: str = "200 OK", content_type: str = "text/html; charset=utf-8", **headers: str
) -> bytes:
    """A gzip member with one response record."""
    lines = [("Content-Type", content_type), *((name.replace("_", "-"), value) for name, value in headers.items())]
    payload = body.encode() if isinstance(body, str) else body
    return record("response", url, payload, StatusAndHeaders(status, lines, protocol="HTTP/1.1"))


def record(
    kind: str, url: str, payload: bytes, http_headers: StatusAndHeaders | None = None, is_gzip: bool = True
) -> bytes:
    stream = io.BytesIO()
    writer = WARCWriter(stream, gzip=is_gzip)
    headers = {"WARC-Record-ID": f"<urn:test:{url}>", "WARC-Date": "2024-05-18T01:02:03Z"}
    writer.write_record(
        writer.create_warc_record(
            url, kind, payload=io.BytesIO(payload), http_headers=http_headers, warc_headers_dict=headers
        )
    )
    return stream.getvalue()


FORMS = ("gzip", "zstd", "zstd with a dictionary", "plain")


def archive(plain_records: list[bytes], form: str) -> bytes:
    """A WARC file, each record compressed by itself."""
    if form == "plain":
        return b"".join(plain_records)
    if form == "gzip":
        return b"".join(gzip.compress(one, mtime=0) for one in plain_records)
    if form == "zstd":
        return b"".join(map(zstandard.ZstdCompressor(write_checksum=True).compress, plain_records))
    dictionary = zstandard.ZstdCompressionDict(html(0).encode())
    frames = map(zstandard.ZstdCompressor(write_checksum=True, dict_data=dictionary).compress, plain_records)
    return dictionary_frame(dictionary.as_bytes(), is_compressed=True) + b"".join(frames)


def dictionary_frame(dictionary: bytes, is_compressed: bool) -> bytes:
    content = zstandard.compress(dictionary) if is_compressed else dictionary
    return b"\x5d\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content


def write_crawl(folder: Path, num_files: int, num_pages: int) -> list[Path]:
    """Files of pages, each page with a text of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"part-{number}.warc.gz" for number in range(num_files)]
    for number, path in enumerate(paths):
        pages = range(number * num_pages, (number + 1) * num_pages)
        path.write_bytes(b"".join(response(f"http://site.example/{page}", html(page)) for page in pages))
    return paths


class BadServer(http.server.ThreadingHTTPServer):
    """Serves a folder. `faults` says what happens to the next requests of a path: "busy", "busy 2" (for so many seconds),
    "slow down" (as S3 says it), "refuse", "break" (after half of it) or "astray" (it sends what begins a byte later).
    """

    def __init__(self, folder: Path, knows_ranges: bool = True, knows_head: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.knows_ranges = knows_ranges
        self.knows_head = knows_head
        self.faults: dict[str, list[str]] = {}
        self.requests: list[tuple[str, str, str | None, str]] = []  # method, path, range, user agent
        self.times: list[float] = []  # of the requests

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: BadServer

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        wanted = self.headers.get("Range")
        self.server.times.append(time.monotonic())
        self.server.requests.append((self.command, self.path, wanted, self.headers.get("User-Agent", "")))
        faults = self.server.faults.get(self.path, [])
        fault = faults.pop(0) if faults and with_body else ""
        path = self.server.folder / unquote(self.path.lstrip("/"))
        if fault.startswith("busy"):
            self.send_fault(503, fault.removeprefix("busy").strip() or "0", b"")
        elif fault in ("slow down", "refuse") or not (with_body or self.server.knows_head):
            self.send_fault(403, "0", b"<Error><Code>SlowDown</Code></Error>" if fault == "slow down" else b"Forbidden")
        elif not path.is_file():
            self.send_error(404)
        else:
            self.send_file(path.read_bytes(), wanted, fault, with_body)

    def send_fault(self, status: int, retry_after: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Retry-After", retry_after)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, data: bytes, wanted: str | None, fault: str, with_body: bool) -> None:
        is_part = wanted is not None and self.server.knows_ranges
        first, _, last = (wanted or "").removeprefix("bytes=").partition("-")
        start, end = (int(first) + (fault == "astray"), int(last or len(data) - 1) + 1) if is_part else (0, len(data))
        part = data[start:end]
        self.send_response(206 if is_part else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", f'"{hash(data)}"')
        if is_part:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.end_headers()
        if with_body:
            self.wfile.write(part[: len(part) // 2] if fault == "break" else part)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None: ...


@contextlib.contextmanager
def serving(folder: Path, knows_ranges: bool = True, knows_head: bool = True) -> Iterator[BadServer]:
    with BadServer(folder, knows_ranges, knows_head) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def write_listing(base: Path, crawl: str, paths: list[str]) -> None:
    listing = base / "crawl-data" / crawl / "warc.paths.gz"
    listing.parent.mkdir(parents=True)
    listing.write_bytes(gzip.compress("".join(f"{path}\n" for path in paths).encode()))
