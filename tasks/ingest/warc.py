"""Web archive files as streams of records: WARC 0.17 to 1.1 (ISO 28500), ARC 1 and WET; gzip, zstd or not compressed.

Reads a file once, front to back, in bounded memory. Damage costs the record it is in: reading goes on at the next record that
begins, and what was passed over is told as `Damage`. Only a block that is longer than was asked for is not searched for the
next record: it may be an archive itself. Where the line ends of a file were translated, so that all lengths are wrong, a block
reaches to the next record.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, NamedTuple

from tasks.ingest.decompression import DecompressedStream

HEADER_BYTES = 1024 * 1024  # no record header is longer
LINE_BYTES = 64 * 1024  # nor the line of an ARC record
FOUND_BYTES = 4096  # nor what tells in the middle of rubbish that a record begins
NO_RECORD = "no WARC or ARC record begins here"
WRONG_LENGTH = "the record is not as long as it says"

WARC_LINE = re.compile(rb"WARC/\d\.\d{1,2}[ \t]*+\r?\n", re.I)
NEXT_RECORD = re.compile(  # stricter: this is looked for in the middle of rubbish
    rb"WARC/\d\.\d{1,2}\r?\n[A-Za-z][A-Za-z-]{0,64}:|"
    rb"(?<=\n)[a-z][a-z0-9+.-]{0,16}:\S++ \d{1,3}(?:\.\d{1,3}){3} \d{8,17} \S++ \d{1,15}\r?\n"
)
HEADER_END = re.compile(rb"\n\r?\n")
FIELD = re.compile(
    rb"^(warc-type|warc-record-id|warc-target-uri|warc-date|content-type|content-length)[ \t]*+:(.*(?:\n[ \t].*)*)",
    re.I | re.M,
)
BLANK = re.compile(rb"\s*+")
LINE_ENDS = re.compile(rb"[\r\n]*+")


@dataclass(frozen=True)
class Record:
    """One record. `type` is in lower case, `offset` is that of the record in the file and `length` that of its block, in bytes.

    `block` is None where it is longer than was asked for, damaged or cut off.
    """

    type: str
    id: str
    url: str
    date: str
    content_type: str
    offset: int
    length: int
    block: bytes | None


@dataclass(frozen=True)
class DamagedRange:
    """`num_bytes` of the file from `offset` on, passed over or in the record before. `is_cut`: the file ends within a record."""

    offset: int
    num_bytes: int
    trouble: str
    is_cut: bool


class RecordError(Exception):
    """Why the place in hand cannot be read; what is wrong is said without a quote, for it may be a page."""

    def __init__(self, trouble: str, is_cut: bool = False) -> None:
        super().__init__(trouble)
        self.is_cut = is_cut


class Header(NamedTuple):
    """What a record says of itself. `num_bytes` is the size of the header, `num_line_ends` follow the block.

    `is_translated`: the lines do not end as the standard has it, so that nor may the block.
    """

    type: str
    id: str
    url: str
    date: str
    content_type: str
    length: int
    num_bytes: int
    num_line_ends: int
    is_translated: bool = False


def read_records(source: IO[bytes], max_bytes: int) -> Iterator[Record | DamagedRange]:
    """The records of a web archive file, in order, with their blocks where these have at most `max_bytes`."""
    plain = DecompressedStream(source)
    while _is_more(plain):
        start, offset = plain.start, plain.source_offset()
        try:
            yield from _read_record(plain, max_bytes)
        except RecordError as broken:
            if plain.start == start and plain.window:
                plain.drop(1)
            is_found = _find_next(plain)
            num_bytes = (plain.source_offset() if is_found else plain.source_bytes) - offset
            yield DamagedRange(offset, num_bytes, str(broken), broken.is_cut and not is_found)
    if not plain.source_bytes:
        yield DamagedRange(0, 0, "the file is empty", is_cut=False)


def _is_more(plain: DecompressedStream) -> bool:
    """Whether anything follows, after blank lines."""
    while True:
        blank = BLANK.match(plain.window)
        assert blank
        plain.drop(blank.end())
        if plain.window:
            return True
        if not plain.fill():
            return plain.trouble != ""


def _read_record(plain: DecompressedStream, max_bytes: int) -> Iterator[Record]:
    """The record in hand; raises RecordError after it where its block is damaged."""
    offset, header = plain.source_offset(), _header(plain)
    end = header.num_bytes + header.length
    if header.length > max_bytes:
        yield Record(*header[:5], offset, header.length, None)
        plain.drop(header.num_bytes)
        end = _pass_over(plain, header.length)
    plain.need(end + FOUND_BYTES)
    broken = _trouble_at(plain, end, header.num_line_ends)
    if header.length <= max_bytes:
        block = plain.copy(header.num_bytes, end) if not broken else None
        if broken and header.is_translated and not plain.trouble:
            block = _up_to_next(plain, header.num_bytes)
        yield Record(*header[:5], offset, header.length, block)
    if broken:
        raise broken
    plain.drop(end)


def _header(plain: DecompressedStream) -> Header:
    plain.need(FOUND_BYTES)
    if WARC_LINE.match(plain.window):
        return _warc_header(plain)
    plain.need(LINE_BYTES)
    if header := _arc_header(plain.window):
        return header
    raise RecordError(plain.trouble or NO_RECORD, plain.is_cut)


def _warc_header(plain: DecompressedStream) -> Header:
    while not (end := HEADER_END.search(plain.window)):
        if len(plain.window) >= HEADER_BYTES:
            raise RecordError(f"a record header has no end within {HEADER_BYTES} bytes")
        if not plain.fill():
            raise RecordError(
                plain.trouble or "the file ends within a record header", plain.is_cut or not plain.trouble
            )
    found = FIELD.findall(plain.window, 0, end.start() + 1)
    fields = {name.lower(): value.strip() for name, value in reversed(found)}  # of a doubled one the first counts
    length = fields.get(b"content-length", b"")
    if not length.isdigit() or len(length) > 15:
        raise RecordError("the record does not say its length")
    return Header(
        type=_text(fields.get(b"warc-type", b"none")).lower(),
        id=_text(fields.get(b"warc-record-id", b"")),
        url=_text(fields.get(b"warc-target-uri", b"")).removeprefix("<").removesuffix(">").replace(" ", "%20"),
        date=_text(fields.get(b"warc-date", b"")),
        content_type=_text(fields.get(b"content-type", b"")),
        length=int(length),
        num_bytes=end.end(),
        num_line_ends=2,
        is_translated=plain.window.find(b"\r", 0, end.end()) < 0,
    )


def _arc_header(window: bytearray, index: int = 0) -> Header | None:
    """Where a line of an ARC record stands at `index`: URL, IP address, date, media type, length."""
    end = window.find(b"\n", index, index + LINE_BYTES) + 1
    words = bytes(window[index:end]).strip().replace(b"; ", b";").rsplit(b" ", 4)  # "text/html; charset=..." is one
    if len(words) < 5 or b":" not in words[0] or not words[4].isdigit() or len(words[4]) > 15:
        return None  # any line of five words looks like one otherwise
    return Header(
        type="arc_header" if words[0].startswith(b"filedesc://") else "response",
        id="",
        url=_text(words[0]),
        date=_text(words[2]),
        content_type=_text(words[3]),
        length=int(words[4]),
        num_bytes=end - index,
        num_line_ends=1,
    )


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _trouble_at(plain: DecompressedStream, end: int, num_line_ends: int) -> RecordError | None:
    """What is wrong with the record whose block should end at `end` of the window."""
    missing = end - len(plain.window)
    if missing > 0:
        if plain.trouble and not plain.is_cut:
            return RecordError(plain.trouble)
        if NEXT_RECORD.search(plain.window, 1):
            return RecordError(WRONG_LENGTH)
        return RecordError(plain.trouble or f"the file ends {missing} bytes before this record does", is_cut=True)
    ends = LINE_ENDS.match(plain.window, end)
    assert ends
    if ends.end() == len(plain.window):
        is_own = plain.members[-1][0] < plain.start + end
        return RecordError(plain.trouble) if is_own and plain.trouble and not plain.is_cut else None
    if ends[0].count(b"\n") >= num_line_ends or _begins(plain.window, ends.end()):
        return None
    return RecordError(WRONG_LENGTH)


def _begins(window: bytearray, index: int) -> bool:
    return WARC_LINE.match(window, index) is not None or _arc_header(window, index) is not None


def _up_to_next(plain: DecompressedStream, begin: int) -> bytes:
    found = NEXT_RECORD.search(plain.window, begin)
    return plain.copy(begin, found.start() if found else len(plain.window)).rstrip(b"\n")


def _pass_over(plain: DecompressedStream, num_bytes: int) -> int:
    """Drop a block; how many bytes of it are missing, where the file or damage ends it, or a member that begins a record."""
    while num_bytes and (plain.window or plain.fill()):
        size = min(num_bytes, plain.rest_of_member())
        plain.drop(size)
        num_bytes -= size
        plain.need(FOUND_BYTES)
        if num_bytes and plain.is_at_member() and _begins(plain.window, 0):
            break
    return num_bytes


def _find_next(plain: DecompressedStream) -> bool:
    """Go on to where the next record begins, or to the end of the file."""
    while not (found := NEXT_RECORD.search(plain.window)):
        plain.drop(max(len(plain.window) - FOUND_BYTES, 0))
        if plain.fill():
            continue
        if not (plain.trouble and plain.next_member()):
            plain.drop(len(plain.window))
            return False
        plain.need(FOUND_BYTES)
        if _begins(plain.window, 0):
            return True
    plain.drop(found.start())
    return True
