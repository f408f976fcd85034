"""What a hostile file costs: the work of each step grows no faster than the length of its input."""

import gzip
import io
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard

from tasks.ingest import warc
from tasks.ingest.charset import decode
from tasks.ingest.dropped import Dropped
from tasks.ingest.http_response import body_of, decompress, parse_response
from tasks.ingest.markup import flatten, mend_characters
from tasks.ingest.warc import find_first, read_records
from tests.support.archives import html
from tests.support.cost import grows_linearly

MB = 2**20
STORMS: dict[str, Callable[[int], bytes]] = {
    "headers without an end": lambda n: b"WARC/1.0\r\nA:" * n,
    "headers with one end": lambda n: b"WARC/1.0\r\nA:" * n + b"\r\n\r\n",
    "headers without a length": lambda n: b"WARC/1.0\r\nContent-Length:x\r\n" * n + b"\r\n\r\n",
    "lengths beyond the file": lambda n: b"WARC/1.0\r\nContent-Length: 99999999\r\n\r\n" * n,
    "carriage returns": lambda n: b"WARC/1.0\r\nContent-Length: 1\r\n\r\n" * n + b"\r" * 20 * n,
    "ARC lines": lambda n: b"http://a 1.1.1.1 20080430204825 t 999999\n" * n,
}


@pytest.mark.parametrize("name", STORMS)
def test_bytes_searched_grow_with_the_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def searched(num: int) -> int:
        counts: list[int] = []

        def counting(patterns: object, window: bytearray, begin: int, end: int) -> object:
            found = find_first(patterns, window, begin, end)  # type: ignore[arg-type]
            counts.append((found.start() if found else end) - begin + 1)
            return found

        monkeypatch.setattr(warc, "find_first", counting)
        list(read_records(io.BytesIO(STORMS[name](num)), MB))
        return sum(counts)

    few, many = searched(2_000), searched(8_000)
    assert many <= 6 * few
    assert many <= 8 * len(STORMS[name](8_000))


@pytest.mark.parametrize(
    "make",
    [
        lambda n: b"HTTP/1.1 200 OK\r\n" + b"a:\r\n" * n + b"\r\n<html>",
        lambda n: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * n,
        lambda n: b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"a", mtime=0) * (n // 4),
        lambda n: b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>" + b"<!--" * n,
    ],
    ids=["headers", "chunks", "gzip members", "comments"],
)
def test_http_body_costs_linear_time(make: Callable[[int], bytes]) -> None:
    def work(block: bytes) -> None:
        try:
            body = body_of(block, 8 * MB)
            decode(*body)
        except Dropped:
            parse_response(block)

    assert grows_linearly(work, make(10_000), make(80_000), 8)


@pytest.mark.parametrize("unit", ["<div>", "<a", "&#xFFFE;", "&#1", "<", "</b>", "<p><b>"])
def test_mending_markup_costs_linear_time(unit: str) -> None:
    assert grows_linearly(lambda page: flatten(mend_characters(page)), unit * 5_000, unit * 40_000, 8)


PAGE = html(1).encode()
HALF = len(PAGE) // 2
SMALL_WINDOW = zlib.compressobj(9, zlib.DEFLATED, 9)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(PAGE[:HALF], mtime=0) + gzip.compress(PAGE[HALF:], mtime=0)),
        ("gzip", gzip.compress(PAGE, mtime=0) + b"garbage"),
        ("deflate", SMALL_WINDOW.compress(PAGE) + SMALL_WINDOW.flush()),
        ("zstd", zstandard.compress(PAGE[:HALF]) + zstandard.compress(PAGE[HALF:])),
    ],
)
def test_whole_body_is_decompressed(encoding: str, body: bytes) -> None:
    assert decompress(body, encoding, MB) == PAGE


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_damaged_body_gives_what_comes_before(encoding: str, damage: str) -> None:
    page = "".join(html(number) for number in range(3_000)).encode()
    compress = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstandard.compress}
    body = compress[encoding](page)
    place = len(body) * 3 // 4
    damaged = body[:place] if damage == "cut" else body[:place] + bytes(64) + body[place + 64 :]
    plain = decompress(damaged, encoding, 8 * MB)
    assert plain[:10_000] == page[:10_000]
