"""Web archive files as streams of records: WARC 0.17 to 1.1 (ISO 28500), ARC 1 and WET; gzip, zstd or not compressed.

Reads a file once, front to back, in bounded memory, and in time proportional to its length, whatever it holds. Damage costs the
record it is in: reading resumes at the next record header, and the skipped bytes are reported as a `DamagedRange`. A block that is
longer than the caller asked for is skipped by its length and not searched for record headers: it may be an archive itself. In a file
whose line ends were translated, so that all its lengths are wrong, a block reaches to the next record header.

Why not warcio or FastWARC: both end or skip silently at the first damaged record, so that what was lost is not known. On intact
files the three give the same records (tests/tasks/ingest/test_warc.py); tests/benchmarks/reading_speed.py compares their speed.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, NamedTuple

from tasks.ingest.decompression import DecompressedStream

HEADER_BYTES = 1024 * 1024  # the longest record header that is read
LINE_BYTES = 64 * 1024  # the longest header line of an ARC record
RESYNC_BYTES = 4096  # the longest text by which a record header is recognised in the middle of other bytes
RESYNC_WARC_BYTES = 96  # likewise of a WARC record
ARC_TAIL_BYTES = 1024  # date, media type and length of an ARC header line are in its last bytes
FIRST_STEP_BYTES = 1024
MAX_URL_CHARACTERS = 64 * 1024
MAX_FIELD_CHARACTERS = 1024
NO_RECORD = "no WARC or ARC record header at this offset"
WRONG_LENGTH = "the length of the record does not match its Content-Length"
NO_LENGTH = "the record header has no valid Content-Length"
INTERRUPTED = "another record begins within the record header"

VERSION_LINE = re.compile(rb"WARC/\d\.\d{1,2}[ \t]*+\r?\n", re.I)
HEADER_END = re.compile(rb"\n\r?\n")
# Stricter than what is accepted where a record is expected, because these are searched for in the middle of arbitrary bytes. Both
# begin with a literal, which `re` finds at the speed of memchr; one pattern for both was 20 times slower.
RESYNC_WARC = re.compile(rb"WARC/\d\.\d{1,2}\r?\n[A-Za-z][A-Za-z-]{0,64}:")
RESYNC_ARC = re.compile(rb"\n([a-z][a-z0-9+.-]{0,16}:\S++ \d{1,3}(?:\.\d{1,3}){3} \d{8,17} \S++ \d{1,15}\r?\n)")
ARC_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]{0,16}:")
FIELD = re.compile(
    rb"^(warc-type|warc-record-id|warc-target-uri|warc-date|content-type|content-length)[ \t]*+:(.*(?:\n[ \t].*)*)",
    re.I | re.M,
)
BLANK = re.compile(rb"\s*+")
LINE_ENDS = re.compile(rb"[\r\n]{0,64}+")


@dataclass(frozen=True)
class Record:
    """One record. `type` is in lower case; `offset` is where the record begins in the file, `length` the size of its block, in bytes.

    `block` is missing (None) where it is longer than the caller asked for, damaged or cut off.
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
    """`num_bytes` of the file from `offset` on that were skipped or belong to the record before. `is_cut`: the file ends in a record."""

    offset: int
    num_bytes: int
    reason: str
    is_cut: bool


class RecordError(Exception):
    """Why the bytes at the current position are no record. The message quotes nothing of the file, which may be personal."""

    def __init__(self, reason: str, is_cut: bool = False) -> None:
        super().__init__(reason)
        self.is_cut = is_cut


class Header(NamedTuple):
    """The fields of a record header. `num_bytes` is the size of the header, `num_line_ends` how many line ends follow the block.

    `is_translated`: the header has no carriage return, so the line ends of the block may have been translated too.
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
    """Yield the records of a web archive file in order, with their blocks if these have at most `max_bytes`, and what is damaged."""
    stream = DecompressedStream(source)
    while _skip_blank_lines(stream):
        start, offset = stream.start, stream.source_offset()
        try:
            yield from _read_record(stream, max_bytes)
        except RecordError as error:
            # At least one byte goes, or the header that just failed would be found again for ever.
            if stream.start == start and stream.window:
                stream.drop(1)
            is_found = _skip_to_next_record(stream)
            num_bytes = (stream.source_offset() if is_found else stream.source_bytes) - offset
            yield DamagedRange(offset, num_bytes, str(error), error.is_cut and not is_found)
    if not stream.source_bytes:
        yield DamagedRange(0, 0, "the file is empty", is_cut=False)


def find_first(
    patterns: Sequence[re.Pattern[bytes]], window: bytearray, begin: int, end: int
) -> re.Match[bytes] | None:
    """The match that starts first in window[begin:end].

    Costs time proportional to the distance of the match, because the part searched doubles. Searching the whole window for each
    pattern is quadratic: in a file of 20,000 record headers without an end, the end was searched for 20,000 times (3 s for 240 kB).
    """
    step = FIRST_STEP_BYTES
    while begin < end:
        first, limit = None, min(begin + step, end)
        for pattern in patterns:
            overlap = RESYNC_BYTES if pattern is RESYNC_ARC else RESYNC_WARC_BYTES
            found = pattern.search(window, begin, limit + overlap)
            if found and found.start() < limit:
                first, limit = found, found.start()
        if first:
            return first
        begin, step = limit, 2 * step
    return None


def _find_header(window: bytearray, begin: int) -> int:
    """Where in the window the next record header begins; -1 if nowhere."""
    found = find_first((RESYNC_WARC, RESYNC_ARC), window, max(begin - 1, 0), len(window))
    if found and found.re is RESYNC_WARC and found.start() < begin:
        found = find_first((RESYNC_WARC, RESYNC_ARC), window, begin, len(window))
    return -1 if not found else found.start(1) if found.re is RESYNC_ARC else found.start()


def _skip_blank_lines(stream: DecompressedStream) -> bool:
    """Whether anything follows them: bytes, or an error of the compression."""
    while True:
        blank = BLANK.match(stream.window)
        assert blank
        stream.drop(blank.end())
        if stream.window:
            return True
        if not stream.read_more():
            return stream.error != ""


def _read_record(stream: DecompressedStream, max_bytes: int) -> Iterator[Record]:
    """Yield the record at the current position, then raise RecordError if its block is damaged."""
    offset, header = stream.source_offset(), _read_header(stream)
    if header.length > max_bytes:
        yield Record(*header[:5], offset, header.length, None)
        stream.drop(header.num_bytes)
        _skip_block(stream, header.length)
        end = 0
    else:
        end = header.num_bytes + header.length
    # RESYNC_BYTES more than the block: whether its length is right shows in what follows it.
    stream.fill_to(end + RESYNC_BYTES)
    error = _check_end(stream, end, header.num_line_ends)
    if header.length <= max_bytes:
        block = stream.copy(header.num_bytes, end) if not error else None
        if error and header.is_translated and not stream.error:
            block = _up_to_next_header(stream, header.num_bytes)
        yield Record(*header[:5], offset, header.length, block)
    if error:
        raise error
    stream.drop(end)


def _read_header(stream: DecompressedStream) -> Header:
    stream.fill_to(RESYNC_BYTES)
    if VERSION_LINE.match(stream.window):
        return _read_warc_header(stream)
    stream.fill_to(LINE_BYTES)
    if header := _parse_arc_header(stream.window):
        return header
    raise RecordError(stream.error or NO_RECORD, stream.is_cut)


def _read_warc_header(stream: DecompressedStream) -> Header:
    begin = 1
    while not (found := find_first((HEADER_END, RESYNC_WARC), stream.window, begin, len(stream.window))):
        begin = max(len(stream.window) - RESYNC_WARC_BYTES, 1)
        if len(stream.window) >= HEADER_BYTES:
            raise RecordError(f"a record header has no end within {HEADER_BYTES} bytes")
        if not stream.read_more():
            reason = stream.error or "the file ends within a record header"
            raise RecordError(reason, stream.is_cut or not stream.error)
    if (
        found.re is RESYNC_WARC
    ):  # the header was cut; without this a value of the next record would be read as one of this
        raise RecordError(INTERRUPTED)
    pairs = FIELD.findall(stream.window, 0, found.start() + 1)
    fields = {name.lower(): value.strip() for name, value in reversed(pairs)}  # the first of a repeated field counts
    length = fields.get(b"content-length", b"")
    if not length.isdigit() or len(length) > 15:
        raise RecordError(NO_LENGTH)
    return Header(
        type=_text(fields.get(b"warc-type", b"none")).lower(),
        id=_text(fields.get(b"warc-record-id", b"")),
        url=_text(fields.get(b"warc-target-uri", b""), MAX_URL_CHARACTERS)
        .removeprefix("<")
        .removesuffix(">")
        .replace(" ", "%20"),
        date=_text(fields.get(b"warc-date", b"")),
        content_type=_text(fields.get(b"content-type", b"")),
        length=int(length),
        num_bytes=found.end(),
        num_line_ends=2,
        is_translated=stream.window.find(b"\r", 0, found.end()) < 0,
    )


def _parse_arc_header(window: bytearray, index: int = 0) -> Header | None:
    """The ARC header line at `index`, if there is one: URL, IP address, date, media type, length."""
    if not ARC_SCHEME.match(window, index):  # any line of five words looks like a header otherwise
        return None
    end = window.find(b"\n", index, index + LINE_BYTES) + 1
    length = bytes(window[max(index, end - ARC_TAIL_BYTES) : end]).rstrip().rpartition(b" ")[2]
    if not length.isdigit() or len(length) > 15:
        return None
    words = (
        bytes(window[index:end]).strip().replace(b"; ", b";").rsplit(b" ", 4)
    )  # "text/html; charset=..." is one word
    if len(words) < 5 or b":" not in words[0]:
        return None
    return Header(
        type="arc_header" if words[0].startswith(b"filedesc://") else "response",
        id="",
        url=_text(words[0], MAX_URL_CHARACTERS),
        date=_text(words[2]),
        content_type=_text(words[3]),
        length=int(length),
        num_bytes=end - index,
        num_line_ends=1,
    )


def _text(value: bytes, max_characters: int = MAX_FIELD_CHARACTERS) -> str:
    # A character of UTF-8 has at most four bytes. Headers of old crawls are in Latin-1, which decodes everything.
    value = value[: 4 * max_characters]
    try:
        return value.decode()[:max_characters]
    except UnicodeDecodeError:
        return value.decode("latin-1")[:max_characters]


def _check_end(stream: DecompressedStream, end: int, num_line_ends: int) -> RecordError | None:
    """The error of a record whose block should end at `end` of the window; None if a record, or the file, ends there."""
    num_missing = end - len(stream.window)
    if num_missing > 0:
        return _missing_bytes_error(stream, num_missing, 1)
    line_ends = LINE_ENDS.match(stream.window, end)
    assert line_ends
    if line_ends.end() == len(stream.window):
        is_of_this_member = stream.members[-1][0] < stream.start + end
        return RecordError(stream.error) if is_of_this_member and stream.error and not stream.is_cut else None
    if line_ends[0].count(b"\n") >= num_line_ends or _is_header_at(stream.window, line_ends.end()):
        return None
    return RecordError(WRONG_LENGTH)


def _missing_bytes_error(stream: DecompressedStream, num_missing: int, begin: int) -> RecordError:
    """Why a block has fewer bytes than its header says. Record headers are looked for from `begin` of the window on."""
    if stream.error and not stream.is_cut:
        return RecordError(stream.error)
    if _find_header(stream.window, begin) >= 0:
        return RecordError(WRONG_LENGTH)
    return RecordError(stream.error or f"the file ends {num_missing} bytes before this record does", is_cut=True)


def _is_header_at(window: bytearray, index: int) -> bool:
    return VERSION_LINE.match(window, index) is not None or _parse_arc_header(window, index) is not None


def _up_to_next_header(stream: DecompressedStream, begin: int) -> bytes:
    found = _find_header(stream.window, begin)
    return stream.copy(begin, found if found >= 0 else len(stream.window)).rstrip(b"\n")


def _skip_block(stream: DecompressedStream, num_bytes: int) -> None:
    """Drop a block. Raises RecordError if the file, damage, or a compressed member that begins with a record header ends it early."""
    while num_bytes and (stream.window or stream.read_more()):
        size = min(num_bytes, stream.num_bytes_of_member())
        stream.drop(size)
        num_bytes -= size
        if num_bytes:
            stream.fill_to(RESYNC_BYTES)
            if stream.is_at_member() and _is_header_at(stream.window, 0):
                raise RecordError(WRONG_LENGTH)
    if num_bytes:
        raise _missing_bytes_error(stream, num_bytes, 0)


def _skip_to_next_record(stream: DecompressedStream) -> bool:
    """Move to the next record header; False where the file has no more, and is read to its end."""
    while True:
        stream.fill_to(2 * RESYNC_BYTES)
        if stream.is_at_member() and stream.window and _is_header_at(stream.window, 0):
            return True
        if (found := _find_header(stream.window, 0)) >= 0:
            stream.drop(found)
            return True
        # The last bytes stay: the header that is looked for may have begun in them.
        stream.drop(max(len(stream.window) - RESYNC_BYTES, 0))
        if stream.read_more():
            continue
        if not (stream.error and stream.skip_to_next_member()):
            stream.drop(len(stream.window))
            return False
