"""One captured page: from the bytes of an HTTP response to HTML.

Reads the block of a response record as a crawler stored it, and believes what it finds there more than what the headers
announce: bodies announced as chunked, compressed, HTML or Latin-1 often are not. Whatever is no page raises `Dropped` with the
reason.

Departs from FineWeb in that the HTTP status is looked at, and the charset is read from headers and <meta> too. What labels mean
is the web's (https://encoding.spec.whatwg.org/#names-and-labels).
"""

import codecs
import contextlib
import logging
import re
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import brotli
import zstandard
from resiliparse.parse.encoding import map_encoding_to_html5

HTML_TYPES = ("text/html", "application/xhtml+xml")
HTML_START = re.compile(
    rb"\s*+(<\?xml[^>]{0,200}>)?+(\s*+<!--((?!-->).)*+-->)*+\s*+<(!doctype\s+html|html|head|body|title|meta|div)\b",
    re.I | re.S,
)
BINARY_START = re.compile(
    rb"%PDF|\x89PNG|GIF8|\xff\xd8\xff|PK\x03\x04|\x1f\x8b|RIFF|OggS|ID3|\x7fELF|wOF[F2]|\x00\x00\x01\x00"
)
META_CHARSET = re.compile(
    rb"(?:<meta[^>]{0,500}?charset|<\?xml[^>]{0,200}?encoding)\s*=\s*[\"']?\s*([\w:.-]{2,40})", re.I
)
FOLDED = re.compile(rb"\r?\n[ \t]++")
COMMENT = re.compile(rb"<!--.*?-->", re.S)
CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(;[^\r\n]*)?\r?\n")
NO_ASCII = re.compile(r"[^\0-\x7f]")
MEDIA_TYPES = ("application", "audio", "font", "image", "text", "video")

# Codecs in whose place the web means a larger one.
WEB_CHARSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}
ASCII = b"<meta> \\u0041 +AEE-"  # other text to codecs of no page that names its charset: UTF-16, EBCDIC, Python's own
BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # which begins with that of UTF-16
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
MAX_UNDECODED_FRACTION = 0.02
MAX_LOST_FRACTION = 0.02  # of what is not ASCII, by a charset that fits but for some damage
MAX_LOST_FRACTION_OF_UTF8 = 0.5  # other text does not look like it at all
ZSTD_WINDOW_BYTES = 8 * 2**20  # as much as a server may ask for (RFC 9659)

logging.getLogger("charset_normalizer").setLevel(logging.CRITICAL)  # it warns of single pages


class Dropped(Exception):
    """This is no page to keep. The message is the reason, as "family/rule"."""


class Response(NamedTuple):
    """An HTTP response as it was stored. `status` is None where it has none; names of `headers` are in lower case."""

    status: int | None
    headers: Mapping[str, str]
    body: bytes


class Body(NamedTuple):
    """The HTML of a page as bytes, and what was said of them."""

    content: bytes
    content_type: str


def body_of(block: bytes, max_bytes: int) -> Body:
    """The HTML of a stored HTTP response, at most `max_bytes` of it. Raises Dropped."""
    response = parse_response(block)
    if response.status != 200:
        raise Dropped(f"status/{response.status or 'none'}")
    body = response.body
    if "chunked" in response.headers.get("transfer-encoding", "").lower():
        body = dechunk(body)
    encodings = ",".join(response.headers.get(name, "") for name in ("content-encoding", "transfer-encoding"))
    for encoding in reversed(encodings.lower().split(",")[:4]):
        body = decompress(body, encoding.strip(), max_bytes)
    content_type = response.headers.get("content-type", "")
    if len(body) > max_bytes:
        raise Dropped("empty/too_large")
    if not body.strip():
        raise Dropped("empty/body")
    if not is_html(body, content_type):
        raise Dropped(f"mime/{media_type(content_type)}")
    return Body(body, content_type)


def parse_response(block: bytes) -> Response:
    """Split a block into status, headers and body. A status line may be doubled ("HTTP/1.1 HTTP/1.1 200 OK")."""
    if not block.startswith(b"HTTP"):
        return Response(None, {}, block)
    end = re.search(rb"\r?\n\r?\n", block)
    head, body = (block[: end.start()], block[end.end() :]) if end else (block, b"")
    first, *lines = FOLDED.sub(b" ", head).decode("latin-1").splitlines()
    status = re.search(r"\s(\d{3})(?!\d)", first)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Response(int(status[1]) if status else None, headers, body)


def dechunk(body: bytes) -> bytes:
    """The body without the lengths that HTTP/1.1 puts between its pieces; as it is from where no such length stands."""
    pieces: list[bytes] = []
    position = 0
    while size_line := CHUNK_SIZE.match(body, position):
        size = int(size_line[1], 16)
        if size == 0:
            return b"".join(pieces)
        pieces.append(body[size_line.end() : size_line.end() + size])
        position = size_line.end() + size
        position += 2 if body.startswith(b"\r\n", position) else body.startswith(b"\n", position)
    return b"".join([*pieces, body[position:]])


def decompress(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The decompressed body, at most one byte more than `max_bytes` of it; the body where it is not compressed as announced."""
    try:
        if encoding in ("gzip", "x-gzip"):
            plain = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(body, max_bytes + 1)
        elif encoding == "deflate":  # with the zlib header, as the standard says, or without
            window = zlib.MAX_WBITS if body[:1] == b"\x78" else -zlib.MAX_WBITS
            plain = zlib.decompressobj(window).decompress(body, max_bytes + 1)
        elif encoding == "br":
            plain = brotli.Decompressor().process(body, output_buffer_limit=max_bytes + 1)
        elif encoding == "zstd":
            decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
            plain = decompressor.stream_reader(body, read_across_frames=True).read(max_bytes + 1)
        else:
            return body
    except (zlib.error, brotli.error, zstandard.ZstdError):
        return body
    return plain


def is_html(body: bytes, content_type: str) -> bool:
    """Whether a body is HTML: said so and not known to be something else, or found so."""
    start = body[:4096].removeprefix(codecs.BOM_UTF8)
    if BINARY_START.match(start):
        return False
    if content_type.partition(";")[0].strip().lower() in HTML_TYPES:
        return b"\0" not in start or _bom_charset(body) is not None
    return HTML_START.match(start) is not None


def media_type(content_type: str) -> str:
    """The first half of a media type, where it is one of the known."""
    kind = content_type.partition("/")[0].strip().lower()
    return kind if kind in MEDIA_TYPES else "other"


def decode(body: bytes, content_type: str) -> str:
    """A body as text. Raises Dropped where no charset fits.

    Valid UTF-8 is UTF-8, whatever is announced: other text is not valid by chance. Then what the header announces, then
    <meta>; then the same but for some damage, as where the page was cut within a character; then what the bytes look like.
    """
    if bom := _bom_charset(body):
        return body.decode(bom, "replace")
    announced = re.search(r"charset\s*=\s*[\"']?\s*([\w:.-]{2,40})", content_type, re.I)
    meta = META_CHARSET.search(COMMENT.sub(b"", body[:4096]))
    names = [announced[1] if announced else "", meta[1].decode("ascii", "replace") if meta else ""]
    charsets = [charset for name in names if (charset := web_charset(name))]
    if b"\x1b" in body and b"\x1b$" in body:  # ISO-2022-JP is ASCII to look at. A single byte is found faster than two
        charsets.append("iso-2022-jp")
    else:
        charsets.insert(0, "utf-8")
    for charset in charsets:
        with contextlib.suppress(UnicodeDecodeError):
            return body.decode(charset)
    texts = (_decode_damaged(body, charset) for charset in charsets)
    return next(filter(None, texts), None) or _decode_by_looks(body, charsets)


def web_charset(name: str) -> str:
    """The codec that a charset's name on a web page means, or nothing where it means none of text."""
    with contextlib.suppress(LookupError, ValueError):
        codec = codecs.lookup(map_encoding_to_html5(name, fallback_utf8=False) or name).name
        charset = WEB_CHARSETS.get(codec, codec)
        if ASCII.decode(charset, "replace") == ASCII.decode("ascii"):
            return charset
    return ""


def _decode_damaged(body: bytes, charset: str) -> str | None:
    text = body.decode(charset, "replace")
    most = MAX_LOST_FRACTION_OF_UTF8 if charset == "utf-8" else MAX_LOST_FRACTION
    return text if text.count("\ufffd") <= most * len(NO_ASCII.findall(text)) else None


def _bom_charset(body: bytes) -> str | None:
    return next((charset for bom, charset in BOMS.items() if body.startswith(bom)), None)


def _decode_by_looks(body: bytes, charsets: list[str]) -> str:
    """By detection; else by the charset that leaves the fewest bytes undecoded."""
    from trafilatura.utils import detect_encoding

    for charset in (web_charset(guess) for guess in detect_encoding(body)):
        if charset:
            with contextlib.suppress(UnicodeDecodeError):
                return body.decode(charset)
    texts = [body.decode(charset, "replace") for charset in {"utf-8": None} | dict.fromkeys(charsets)]
    text = min(texts, key=lambda text: text.count("\ufffd"))
    if text.count("\ufffd") > MAX_UNDECODED_FRACTION * len(text):
        raise Dropped("empty/undecodable")
    return text
