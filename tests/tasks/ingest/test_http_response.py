"""From stored responses to text: what is announced falsely, what is no HTML, charsets, bombs, and time."""

import gzip
import zlib
from pathlib import Path

import brotli
import pytest
import zstandard

from tasks.ingest.charset import decode, web_charset
from tasks.ingest.dropped import Dropped
from tasks.ingest.http_response import body_of, dechunk, decompress, is_html, parse_response
from tasks.ingest.markup import remove_forbidden
from tests.support.archives import html

HTML = html(1).encode()
MB = 2**20


def stored(body: bytes, *headers: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([status, "Content-Type: text/html", *headers, "", ""]).encode() + body


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("HTTP/1.1 200 OK", 200),
        ("HTTP/1.1 HTTP/1.1 200 OK", 200),
        ("HTTP/1.0 404", 404),
        ("HTTP/2 301 ", 301),
        ("HTTP/1.1 OK", None),
        ("HTTP/1.1 20000", None),
    ],
)
def test_parse_response_takes_the_first_number_of_three_digits_as_status(line: str, status: int | None) -> None:
    assert parse_response(stored(HTML, status=line)).status == status


def test_parse_response_joins_a_header_of_several_lines() -> None:
    response = parse_response(stored(HTML, "X-Type: text/html;\r\n\tcharset=koi8-r", "X-Last: yes"))
    assert (response.headers["x-type"], response.headers["x-last"]) == ("text/html; charset=koi8-r", "yes")


def test_parse_response_takes_a_block_without_headers_as_body() -> None:
    assert parse_response(HTML) == (None, {}, HTML)


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (stored(HTML, status="HTTP/1.1 301 Moved"), "status/301"),
        (b"archive.org. IN A 207.241.224.2", "status/none"),
        (stored(b" \r\n "), "empty/body"),
        (stored(b"%PDF-1.4 ..."), "mime/text"),
        (stored(b"{}").replace(b"text/html", b"application/json"), "mime/application"),
        (stored(b"{}").replace(b"text/html", b"Jane/Roe"), "mime/other"),
        (stored(b"a\0b\0c\0d"), "mime/text"),
    ],
)
def test_body_of_drops_what_is_not_a_page_with_the_reason(block: bytes, reason: str) -> None:
    with pytest.raises(Dropped, match=f"^{reason}$"):
        body_of(block, MB)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(HTML, mtime=0)),
        ("x-gzip", gzip.compress(HTML, mtime=0)),
        ("deflate", zlib.compress(HTML)),
        ("deflate", zlib.compress(HTML)[2:-4]),
        ("br", brotli.compress(HTML)),
        ("zstd", zstandard.compress(HTML)),
        ("zstd", HTML),
        ("gzip, br", brotli.compress(gzip.compress(HTML, mtime=0))),
        ("identity", HTML),
        ("gzip", HTML),
        ("br", HTML),
        ("deflate", HTML),
        ("unheard-of", HTML),
    ],
)
@pytest.mark.parametrize("transfer", ["none", "chunked", "said to be chunked"])
def test_body_of_reads_bodies_with_right_and_wrong_headers(encoding: str, body: bytes, transfer: str) -> None:
    headers = [f"Content-Encoding: {encoding}", *(["Transfer-Encoding: chunked"] if transfer != "none" else [])]
    block = stored(chunked(body, 100) if transfer == "chunked" else body, *headers)
    assert body_of(block, MB).content == HTML


@pytest.mark.parametrize("transfer", ["gzip", "gzip, chunked"])
def test_body_of_decompresses_content_and_transfer_encodings(transfer: str) -> None:
    twice = gzip.compress(brotli.compress(HTML))
    body = chunked(twice, 100) if "chunked" in transfer else twice
    assert body_of(stored(body, "Content-Encoding: br", f"Transfer-Encoding: {transfer}"), MB).content == HTML


def test_dechunk_keeps_the_rest_after_a_missing_chunk_size() -> None:
    assert dechunk(b"3\r\nabc\r\nzzz def") == b"abczzz def"
    assert dechunk(b"ff\r\nabc") == b"abc"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_bomb_costs_its_limit_and_no_more(encoding: str) -> None:
    import tracemalloc

    compress = {"gzip": gzip.compress, "deflate": zlib.compress, "br": lambda data: brotli.compress(data, quality=1)}
    compress["zstd"] = zstandard.compress
    bomb = compress[encoding](bytes(300 * MB))
    tracemalloc.start()
    with pytest.raises(Dropped, match="empty/too_large"):
        body_of(stored(bomb, f"Content-Encoding: {encoding}, {encoding}, {encoding}"), MB)
    assert MB < len(decompress(bomb, encoding, MB)) < 4 * MB
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 10 * MB


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"<p>no doctype", "text/html", True),
        (b"\x89PNG\r\n", "text/html", False),
        (b"<!DOCTYPE html><p>", "", True),
        (b"\xef\xbb\xbf  <!-- saved --> <HTML>", "text/plain", True),
        (b'<?xml version="1.0"?>\n<html xmlns="http://www.w3.org/1999/xhtml">', "application/xml", True),
        (b'<?xml version="1.0"?>\n<rss>', "text/xml", False),
        (b"plain words", "text/plain", False),
        ("<p>wide".encode("utf-16"), "text/html", True),
    ],
)
def test_body_of_detects_html_where_the_header_is_wrong(body: bytes, content_type: str, expected: bool) -> None:
    assert is_html(body, content_type) is expected


@pytest.mark.parametrize(
    ("text", "charset", "content_type", "meta"),
    [
        ("Fußgängerübergänge", "utf-8", "text/html; charset=ISO-8859-1", ""),  # announced wrongly
        ("Fußgängerübergänge", "latin-1", "text/html; charset=ISO-8859-1", ""),
        ("“quoted” – dashed", "cp1252", "text/html; charset=iso-8859-1", ""),  # what browsers make of it
        ("Привет, мир", "cp1251", "text/html", "windows-1251"),
        ("Привет, мир", "koi8-r", "text/html; charset=KOI8-R", "utf-8"),
        ("こんにちは世界", "shift_jis", "text/html; charset=no-such-thing", "Shift_JIS"),
        ("こんにちは世界", "iso-2022-jp", "text/html; charset=iso-2022-jp", ""),
        ("简体中文", "gb18030", "text/html; charset=gb2312", ""),
        ("wide text", "utf-16", "text/html", ""),
        ("wider text", "utf-32", "text/html", ""),
        ("こんにちは世界", "iso-2022-jp", "text/html", ""),
        ("signed text", "utf-8-sig", "text/html; charset=latin-1", ""),
        ("“quoted” – dashed", "cp1252", "text/html; charset=iso_8859-1", ""),  # a name of the web for the same
        ("① 世界", "cp932", "text/html", "sjis"),
        ("“สวัสดี”", "cp874", "text/html; charset=windows-874", ""),
        ("שלום", "iso8859-8", "text/html", "iso-8859-8-i"),
        ("l’été dernier", "cp1252", "text/html; charset=iso-8859-1", "utf-16"),
    ],
)
def test_decode_reads_every_charset(text: str, charset: str, content_type: str, meta: str) -> None:
    document = f'<html><head><meta charset="{meta}"></head><body>{text}</body></html>'
    assert decode(document.encode(charset), content_type) == document


def test_decode_ignores_a_charset_in_a_comment() -> None:
    page = '<!-- <meta charset="iso-8859-1"> --><meta charset="windows-1251"><p>Маяк'
    assert decode(page.encode("cp1251"), "text/html") == page


def test_decode_does_not_run_a_codec_that_is_not_a_charset() -> None:
    assert decode(b"<p>\xe4\xe4</p>", "text/html; charset=zlib") != ""
    assert decode(b"<p>text</p>", "text/html; charset=rot13") == "<p>text</p>"


@pytest.mark.parametrize(
    ("text", "charset", "damage"),
    [
        ("Fußgängerübergänge und für Boote. " * 30, "utf-8", b"\xe9"),
        ("Маяк в устье реки построили рыбаки. " * 30, "utf-8", b"\xe2\x80"),
        ("L’été dernier, où le cœur du village était très animé. " * 30, "cp1252", b"\x9d"),
        ("古い灯台は漁師たちが建てた。" * 30, "euc_jp", b"\xfd "),
    ],
)
def test_decode_keeps_the_announced_charset_despite_a_damaged_character(text: str, charset: str, damage: bytes) -> None:
    body = f"<p>{text} {text}</p>".encode(charset)
    content_type = f"text/html; charset={charset}"
    assert text in decode(body.replace(b" ", b" " + damage, 1), content_type)
    cut = body[: len(f"<p>{text} {text[:40]}".encode(charset)) - 1]
    assert text in decode(cut, content_type)


@pytest.mark.parametrize(
    "charset",
    ["utf-7", "unicode_escape", "raw-unicode-escape", "idna", "punycode", "undefined", "cp500", "utf-16", "utf-32-le"],
)
def test_web_charset_refuses_codecs_that_only_python_has(charset: str) -> None:
    """Some of them give surrogates, which no file takes; UTF-16 is recognised by its BOM."""
    assert web_charset(charset) == ""
    decode(b"<p>\xff \\ud800 +2AA-", f"text/html; charset={charset}").encode()


def test_decode_refuses_noise() -> None:
    import random

    noise = random.Random(1).randbytes(20_000)
    with pytest.raises(Dropped, match="empty/undecodable"):
        decode(b"<html>" + noise, "text/html; charset=utf-8")


def test_many_comments_cost_linear_time() -> None:
    assert not is_html(b"<!---->" * 600 + b"words", "text/plain")


def test_decode_reads_real_bodies_in_legacy_charsets(shared_data: Path) -> None:
    """What headers announce is right here; left out are EUC-TW, which Python lacks, and UTF-16 and UTF-32 without a BOM: no page to `is_html`."""
    import base64
    import json

    data = gzip.decompress((shared_data / "encoding" / "chardet-samples.jsonl.gz").read_bytes())
    bodies = [json.loads(line) for line in data.splitlines()]
    wrong, wrong_without_header = [], 0
    for body in bodies:
        content, charset = base64.b64decode(body["bytes_b64"]), codec_of(body["charset_dir"])
        if charset and not body["file"].startswith(("nobom", "plane1-utf-16", "plane1-utf-32")):
            expected = remove_forbidden(content.decode(charset).replace("\f", " ").removeprefix("\ufeff"))
            if text_of(content, f"text/html; charset={charset}") != expected:
                wrong.append(body["file"])
            wrong_without_header += text_of(content, "text/html") != expected
    assert wrong == []
    assert wrong_without_header <= 4  # of 192, by what the pages say themselves and by detection


def text_of(content: bytes, content_type: str) -> str:
    try:
        return remove_forbidden(decode(content, content_type).removeprefix("\ufeff"))
    except Dropped:
        return ""


def codec_of(name: str) -> str:
    """The codec of CHARSET or CHARSET-LANGUAGE."""
    if name.lower().startswith(("utf-16", "utf-32")):
        return name.lower()
    codecs = (web_charset("-".join(name.lower().split("-")[:end])) for end in (None, -1))
    return next(filter(None, codecs), "")
