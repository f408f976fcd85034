"""One captured page: from the bytes of an HTTP response to those of its HTML.

Reads the block of a response record as a crawler stored it. Bodies that are announced as chunked, compressed or HTML often are not, so
what the body shows counts for more than what the headers say: a body that cannot be decompressed is taken as it is, and one that is
damaged or cut off gives what came before. Raises `Dropped` with the reason for what is no page.

Departs from FineWeb, which takes any status, in that only status 200 is a page. Every step costs time and memory proportional to the
size of the block or to `max_bytes`, whichever is larger.
"""

import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import brotli
import zstandard

from tasks.ingest.charset import CHARSET, bom_charset, wide_charset
from tasks.ingest.dropped import Dropped

HEADERS_BYTES = 256 * 1024  # as much as Chrome takes; what follows of longer headers is ignored
HTML_TYPES = ("text/html", "application/xhtml+xml")
# Possessive repetitions (*+): a megabyte of blanks or comments before no tag is read once, not once for each of them
HTML_START = re.compile(
    rb"\s*+(<\?xml[^>]{0,200}>)?+(\s*+<!--((?!-->).)*+-->)*+\s*+<(!doctype\s+html|html|head|body|title|meta|div)\b",
    re.I | re.S,
)
MARKUP_START = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*+<[!?a-zA-Z][\t\r\n -~]{15}")
BINARY_START = re.compile(
    rb"%PDF|\x89PNG|GIF8|\xff\xd8\xff|PK\x03\x04|\x1f\x8b|RIFF|OggS|ID3|\x7fELF|wOF[F2]|\x00\x00\x01\x00"
)
FOLDED = re.compile(rb"\r?\n[ \t]++")
# At most 8 digits, 4 GiB: a longer number is no chunk of a stored page. Extensions after a semicolon are skipped (RFC 9112, section 7.1.1)
CHUNK_SIZE = re.compile(rb"0{0,16}([0-9a-fA-F]{1,8})[ \t]*+(?:;[^\r\n]*+)?\r?\n")
GZIP_MAGIC = b"\x1f\x8b\x08"
MEDIA_TYPES = ("application", "audio", "font", "image", "text", "video")
MAX_ENCODINGS = 4  # on top of each other
PIECE_BYTES = 16 * 1024
SALVAGE_STEP_BYTES = 1024
ZSTD_WINDOW_BYTES = 8 * 2**20  # as much as a server may ask for (RFC 9659)


class Response(NamedTuple):
    """An HTTP response as it was stored. `status` is missing (None) where the block has no status line; names of `headers` are in lower case."""

    status: int | None
    headers: Mapping[str, str]
    body: bytes


class Body(NamedTuple):
    """The HTML of a page as bytes, and the Content-Type that was announced for it."""

    content: bytes
    content_type: str


def body_of(block: bytes, max_bytes: int) -> Body:
    """The HTML of a stored HTTP response, if it has at most `max_bytes`. Raises Dropped."""
    response = parse_response(block)
    if response.status != 200:
        raise Dropped(f"status/{response.status or 'none'}")
    body = response.body
    if "chunked" in response.headers.get("transfer-encoding", "").lower():
        body = dechunk(body)
    encodings = ",".join(response.headers.get(name, "") for name in ("content-encoding", "transfer-encoding"))
    # The last encoding named was applied last (RFC 9110, section 8.4), so that it is undone first.
    for encoding in reversed(encodings.lower().split(",")[:MAX_ENCODINGS]):
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
    head, body = (block[: min(end.start(), HEADERS_BYTES)], block[end.end() :]) if end else (block[:HEADERS_BYTES], b"")
    # Not splitlines(): in Latin-1 it also splits at a byte of UTF-8 (0x85).
    first, *lines = FOLDED.sub(b" ", head).decode("latin-1").split("\n")
    status = re.search(r"\s(\d{3})(?!\d)", first)
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        # Repeated headers of encodings are one list (RFC 9110, section 5.3); of any other header the last counts.
        is_repeated_list = name.endswith("-encoding") and name in headers
        headers[name] = f"{headers[name]},{value}" if is_repeated_list else value
    return Response(int(status[1]) if status else None, headers, body)


def dechunk(body: bytes) -> bytes:
    """The body without the chunk sizes of HTTP/1.1. From the first place on where a chunk size is expected and missing, the body stays as it is."""
    # A crawler may store the body already joined and leave the header Transfer-Encoding: then nothing here is a chunk size.
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
    """The decompressed body, cut a little after `max_bytes`; the body itself if it is not compressed as announced.

    A damaged or cut body gives what comes before the damage.
    """
    readers: dict[str, Callable[[bytes, int], Iterator[bytes]]] = {
        "gzip": _gunzip,
        "x-gzip": _gunzip,
        "deflate": _inflate,
        "br": _unbrotli,
        "zstd": _unzstd,
    }
    if encoding not in readers:
        return body
    parts: list[bytes] = []
    size = 0
    is_damaged = False
    try:
        for part in readers[encoding](body, max_bytes):
            parts.append(part)
            size += len(part)
            if size > max_bytes:
                break
    except _DamagedBody:
        is_damaged = True
    if not size or (is_damaged and is_markup(body)):  # text is not compressed by chance, but brotli has no magic number
        return body
    return b"".join(parts)


class _DamagedBody(Exception):
    """The compressed data end early, or are damaged, or are not compressed at all."""


def is_markup(body: bytes) -> bool:
    """Whether a body begins as text in angle brackets."""
    return MARKUP_START.match(body) is not None


def _gunzip(body: bytes, max_bytes: int) -> Iterator[bytes]:
    """All gzip members. What follows the last is ignored, as curl and browsers do."""
    position = 0
    while body.startswith(GZIP_MAGIC, position):
        member = _Member(body, position, 16 + zlib.MAX_WBITS, max_bytes)
        yield from member.parts()
        position = member.end
        while body.startswith(b"\0", position):  # padding
            position += 1


def _inflate(body: bytes, max_bytes: int) -> Iterator[bytes]:
    """zlib's format, as the standard says, of any window; or bare deflate, as some servers send it."""
    # RFC 1950, section 2.2: method 8, a window of at most 2^15, and the two bytes divisible by 31. Bare deflate passes by chance once
    # in a thousand, and is then tried after zlib has failed on its first piece.
    is_zlib = len(body) >= 2 and body[0] & 15 == 8 and body[0] >> 4 <= 7 and int.from_bytes(body[:2]) % 31 == 0
    if is_zlib:
        parts = _Member(body, 0, zlib.MAX_WBITS, max_bytes).parts()
        try:
            first = next(parts, b"")
        except _DamagedBody:
            first = b""
        if first:
            yield first
            yield from parts
            return
    yield from _Member(body, 0, -zlib.MAX_WBITS, max_bytes).parts()


class _Member:
    """One stream of zlib in `body` from `begin` on; `end` is where it ends, once its parts were read."""

    def __init__(self, body: bytes, begin: int, window_bits: int, max_bytes: int) -> None:
        self.body, self.begin, self.window_bits, self.max_bytes = body, begin, window_bits, max_bytes
        self.end = begin

    def parts(self) -> Iterator[bytes]:
        """The decompressed data. Raises _DamagedBody after what comes before damage, or the end of a cut body."""
        inflater = zlib.decompressobj(self.window_bits)
        num_bytes = 0
        while not inflater.eof and num_bytes <= self.max_bytes:
            piece = self.body[
                self.end : self.end + PIECE_BYTES
            ]  # not the whole body: its rest is copied for each member
            try:
                part = inflater.decompress(piece, self.max_bytes + 1 - num_bytes)
            except zlib.error:
                yield self._salvaged(num_bytes)
                raise _DamagedBody from None
            self.end += len(piece) - len(inflater.unused_data or inflater.unconsumed_tail)
            num_bytes += len(part)
            yield part
            if not piece and not part:
                raise _DamagedBody
        if not inflater.eof:
            self.end = len(self.body)

    def _salvaged(self, num_bytes: int) -> bytes:
        """What follows the first `num_bytes` of the data until the damage: zlib returns nothing of the piece in which it finds it."""
        inflater, parts, position, size = zlib.decompressobj(self.window_bits), [], self.begin, 0
        try:
            while (
                size <= self.max_bytes and not inflater.eof and (piece := self.body[position : position + PIECE_BYTES])
            ):
                part = inflater.decompress(piece, SALVAGE_STEP_BYTES)
                position += len(piece) - len(inflater.unconsumed_tail)
                size += len(part)
                parts.append(part)
        except zlib.error:
            pass
        return b"".join(parts)[num_bytes:]


def _unbrotli(body: bytes, max_bytes: int) -> Iterator[bytes]:
    decompressor = brotli.Decompressor()
    try:
        for begin in range(0, len(body), PIECE_BYTES):
            part = decompressor.process(body[begin : begin + PIECE_BYTES], output_buffer_limit=max_bytes + 1)
            yield part
            while not decompressor.can_accept_more_data() and part:
                part = decompressor.process(b"", output_buffer_limit=max_bytes + 1)
                yield part
            if decompressor.is_finished():
                return
    except brotli.error:
        raise _DamagedBody from None
    raise _DamagedBody


def _unzstd(body: bytes, max_bytes: int) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
    reader = decompressor.stream_reader(body, read_across_frames=True)
    try:
        while part := reader.read(PIECE_BYTES):
            yield part
    except zstandard.ZstdError:
        raise _DamagedBody from None


def is_html(body: bytes, content_type: str) -> bool:
    """Whether a body is HTML: announced as such and not recognised as something else, or recognised as HTML."""
    label = CHARSET.search(content_type)
    wide = wide_charset(body, label[1] if label else "")
    # Twice the bytes of UTF-16, for as many characters.
    start = body[:8192].decode(wide, "ignore").encode() if wide else body[:4096].removeprefix(b"\xef\xbb\xbf")
    if BINARY_START.match(start):
        return False
    if content_type.partition(";")[0].strip().lower() in HTML_TYPES:
        return b"\0" not in start or bom_charset(body) is not None
    return HTML_START.match(start) is not None


def media_type(content_type: str) -> str:
    """The first half of a media type, if it is a known one."""
    kind = content_type.partition("/")[0].strip().lower()
    return kind if kind in MEDIA_TYPES else "other"
