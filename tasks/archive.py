"""Web archive files as streams of records: WARC 0.17 to 1.1, ARC 1 and WET, plain or gzip.

Reads a file once, front to back, in bounded memory. warcio parses the record headers (ISO 28500). Its own gzip reader is not
used: it takes a damaged member for the end of the file, it refuses a file that is one single member, and a line of it has
no limit.
"""

import bisect
import io
import logging
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from warcio.exceptions import ArchiveLoadFailed
from warcio.recordloader import ArcWarcRecordLoader

BLOCK_BYTES = 64 * 1024
HEADER_BYTES = 1024 * 1024  # no record header is longer
NO_RECORD = "no WARC or ARC record begins here"

logging.getLogger("warcio").setLevel(logging.ERROR)  # it warns of spaces in a URL, and says the URL


class BrokenArchive(Exception):
    """The file is no web archive from byte `offset` on; what was read before is good. `is_cut`: the file ends within a record."""

    def __init__(self, offset: int, trouble: str, is_cut: bool = False) -> None:
        super().__init__(trouble)
        self.offset = offset
        self.is_cut = is_cut


class Members(io.RawIOBase):
    """The plain bytes of `source`, whether it is gzip or not, and where its gzip members begin."""

    def __init__(self, source: IO[bytes]) -> None:
        self.source = source
        self.pending = source.read(BLOCK_BYTES)
        self.source_bytes = len(self.pending)  # read of the source so far
        self.plain_bytes = 0  # given out so far
        self.is_gzip = self.pending.startswith(b"\x1f\x8b")
        self.inflater: Any = None
        self.starts = [(0, 0)]  # (plain offset, source offset) of each member

    @property
    def is_cut(self) -> bool:
        """Whether the source has ended within a gzip member."""
        return self.inflater is not None and not self._fill()

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.plain_bytes

    def readinto(self, buffer: Any) -> int:
        data = self._inflate(len(buffer)) if self.is_gzip else self._copy(len(buffer))
        buffer[: len(data)] = data
        self.plain_bytes += len(data)
        return len(data)

    def source_offset(self, plain_offset: int) -> int:
        """Where in the source a record begins; in a gzip file, where its member does. Asked for in rising order."""
        if not self.is_gzip:
            return plain_offset
        index = bisect.bisect_right(self.starts, plain_offset, key=lambda start: start[0]) - 1
        del self.starts[:index]
        return self.starts[0][1]

    def _fill(self) -> bool:
        if not self.pending:
            self.pending = self.source.read(BLOCK_BYTES)
            self.source_bytes += len(self.pending)
        return bool(self.pending)

    def _copy(self, size: int) -> bytes:
        self._fill()
        data, self.pending = self.pending[:size], self.pending[size:]
        return data

    def _inflate(self, size: int) -> bytes:
        while self._fill():
            if self.inflater is None:
                self.pending = self.pending.lstrip(b"\0")  # members may be padded
                if not self.pending:
                    continue
                self.starts.append((self.plain_bytes, self.source_bytes - len(self.pending)))
                self.inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
            try:
                data: bytes = self.inflater.decompress(self.pending, size)
            except zlib.error as error:
                raise BrokenArchive(self.starts[-1][1], f"damaged gzip member: {error}") from error
            self.pending = self.inflater.unused_data or self.inflater.unconsumed_tail
            if self.inflater.eof:
                self.inflater = None
            if data:
                return data
        return b""


class Lines(io.BufferedReader):
    """A stream that refuses a header without an end; warcio asks for lines without a limit."""

    header_bytes = 0  # in lines, of the record that is being looked for
    record_offset = 0  # of the record before

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(HEADER_BYTES)
        self.header_bytes += len(line)
        if self.header_bytes >= HEADER_BYTES:
            raise BrokenArchive(self.record_offset, f"a record header has no end within {HEADER_BYTES} bytes")
        return line

    def first_line(self) -> bytes:
        """The next line that is not blank, or nothing at the end."""
        self.header_bytes = 0
        while (line := self.readline()) and not line.strip():
            pass
        return line


@dataclass(frozen=True)
class Record:
    """One record. `type` is in lower case, `offset` is that of the record in the file and `length` that of its block, in bytes."""

    type: str
    id: str
    url: str
    date: str
    offset: int
    length: int
    stream: Any

    def read(self, size: int) -> bytes:
        """The next `size` bytes of the block, fewer at its end. Raises BrokenArchive where the file is damaged."""
        data: bytes = self.stream.read(size)
        return data


def read_records(source: IO[bytes]) -> Iterator[Record]:
    """The records of a web archive file, in order; the block of one is gone when the next is asked for.

    Raises BrokenArchive where the file is none, is damaged or is cut off.
    """
    members, offset, record = Members(source), 0, None
    lines = Lines(members, BLOCK_BYTES)
    loader = ArcWarcRecordLoader(arc2warc=False)  # which would give records random ids and refuse odd dates
    while line := lines.first_line():
        offset = lines.record_offset = members.source_offset(lines.tell() - len(line))
        record = _parse(loader, lines, line, offset)
        yield record
        while record.read(BLOCK_BYTES):
            pass
        if record.stream.limit:
            raise BrokenArchive(
                offset, f"the file ends {record.stream.limit} bytes before this record does", is_cut=True
            )
    if record is None:
        raise BrokenArchive(0, "the file holds no record")
    if members.is_cut:
        raise BrokenArchive(offset, "the file ends within the gzip member of this record", is_cut=True)


def _parse(loader: ArcWarcRecordLoader, lines: Lines, first_line: bytes, offset: int) -> Record:
    """The record that begins with `first_line`. What is wrong with it is said without a quote: it may be a page."""
    try:
        parsed = loader.parse_record_stream(lines, first_line, no_record_parse=True)
    except ArchiveLoadFailed as error:
        raise BrokenArchive(offset, NO_RECORD) from error
    header = parsed.rec_headers.get_header
    if parsed.format == "arc" and ":" not in header("uri"):
        raise BrokenArchive(offset, NO_RECORD)  # any line of five words looks like an ARC header
    if parsed.length is None:
        raise BrokenArchive(offset, "the record does not say its length", is_cut=not lines.peek(1))
    return Record(
        type=(parsed.rec_type or "none").strip().lower(),
        id=(header("WARC-Record-ID") or "").strip(),
        url=(header("WARC-Target-URI") or header("uri") or "").strip(),
        date=(header("WARC-Date") or header("archive-date") or "").strip(),
        offset=offset,
        length=parsed.length,
        stream=parsed.raw_stream,
    )
