"""The decompressed bytes of a file that is compressed record by record (gzip members, zstd frames) or not at all.

Reads a stream once, front to back, in bounded memory, and knows where in the file each member (or frame) begins. After a damaged
member it resumes at the next one. The zstd form is that of web archives (IIPC, https://iipc.github.io/warc-specifications/
specifications/warc-zstd/): a skippable frame may hold a dictionary for the frames that follow, itself compressed or not.

What a hostile file can cost is bounded: how much is read again after damage (REREAD_BYTES), how far a file may grow
(FREE_BYTES, MAX_RATIO), the window of zstd, and how many bytes of dictionaries are loaded.
"""

import contextlib
import io
import re
from collections import deque
from collections.abc import Iterator
from typing import IO, Any, Literal

import zstandard
from isal import isal_zlib as zlib  # twice as fast as the standard library's

GzipError: type[Exception] = zlib.error  # type: ignore[assignment]  # its stub says an instance
BLOCK_BYTES = 64 * 1024
KEPT_BYTES = 512 * 1024  # of the source before the current position: a damaged member may have swallowed the next ones
REREAD_BYTES = 16 * 2**20  # plus as many bytes as the file has: a file made for it would be searched again and again
FREE_BYTES = 256 * 2**20  # decompressed bytes before their ratio to the compressed ones counts
MAX_RATIO = 200  # web pages compress 4 to 10 times, a crawl's most repetitive member some 100 times
SALVAGE_STEP_BYTES = 64
SALVAGE_BYTES = 4096  # enough for the record header, which names the page

Kind = Literal["gzip", "zstd", "plain"]
MAGIC: dict[Kind, re.Pattern[bytes]] = {
    "gzip": re.compile(rb"\x1f\x8b\x08[\x00-\x1f]"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd"),
}
ANY_MAGIC = re.compile(b"|".join(magic.pattern for magic in MAGIC.values()))
MAGIC_BYTES = 4
PLAIN_RECORD = re.compile(rb"\n\r?\nWARC/\d\.\d")
PADDING = re.compile(rb"\0*")

ZSTD_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
ZSTD_DICTIONARY = b"\x5d\x2a\x4d\x18"
ZSTD_WINDOW_BYTES = 2**27  # a frame that asks for more memory is refused
DICTIONARY_BYTES = 16 * 2**20
ALL_DICTIONARIES_BYTES = 4 * DICTIONARY_BYTES  # plus as many bytes as the file has
PIECE_BYTES: dict[Kind, int] = {
    "gzip": 16 * 1024,
    "zstd": 512,
}  # zstd has no output limit: 512 bytes become at most 16 MiB


class DecompressedStream:
    """Sliding window over the decompressed bytes of `source`; window[0] is the current position."""

    def __init__(self, source: IO[bytes]) -> None:
        self.source = source
        self.raw = bytearray(source.read(BLOCK_BYTES))
        self.raw_start = 0  # offset of raw[0] in the source
        self.raw_next = 0  # index in raw of the next byte to decompress
        self.kind = _kind(bytes(self.raw))
        self.window = bytearray()
        self.start = 0  # offset of window[0] in the decompressed bytes
        self.members = deque(
            [(0, 0)]
        )  # where each begins, from the current one on: in the decompressed bytes, in the source
        self.inflater: Any = None
        self.zstd = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
        self.error = ""  # why there are no more bytes, unless the file has ended
        self.is_cut = False  # the error is that the file ends within a member
        self.reread_bytes = 0  # of the source, after errors
        self.dictionary_bytes = 0

    @property
    def end(self) -> int:
        """Offset of the end of the window in the decompressed bytes."""
        return self.start + len(self.window)

    @property
    def source_bytes(self) -> int:
        """How many bytes of the source were read."""
        return self.raw_start + len(self.raw)

    def source_offset(self) -> int:
        """Offset of the current position in the source; in a compressed file, of the member it is in."""
        return self.start if self.kind == "plain" else self.members[0][1]

    def is_at_member(self) -> bool:
        """Whether the current position is the first byte of a member."""
        return self.members[0][0] == self.start

    def num_bytes_of_member(self) -> int:
        """How many bytes of the window belong to the current member."""
        return self.members[1][0] - self.start if len(self.members) > 1 else len(self.window)

    def copy(self, begin: int, end: int) -> bytes:
        """window[begin:end]; a slice of the bytearray would be copied twice."""
        with memoryview(self.window) as view:
            return bytes(view[begin:end])

    def drop(self, num_bytes: int) -> None:
        """Move the current position forward within the window."""
        assert 0 <= num_bytes <= len(self.window)
        del self.window[:num_bytes]
        self.start += num_bytes
        while len(self.members) > 1 and self.members[1][0] <= self.start:
            self.members.popleft()

    def fill_to(self, num_bytes: int) -> bool:
        """Fill the window up to a length; False if it stays shorter."""
        while len(self.window) < num_bytes:
            if not self.read_more():
                return False
        return True

    def read_more(self) -> bool:
        """Read more bytes into the window; False where `error` or the end of the file leaves no more."""
        # Empty members and padding give no bytes: the loop goes over them, so that False always means the end.
        before = len(self.window)
        while len(self.window) == before and not self.error and self._has_raw():
            if self.kind == "plain":
                self.window += self.raw[self.raw_next :]
                self.raw_next = len(self.raw)
            elif self.inflater is None:
                self._begin_member()
            else:
                self._inflate()
        if len(self.window) == before and self.inflater is not None and not self.error:
            self.error, self.is_cut = f"the file ends within a {self.kind} member", True
        return len(self.window) > before

    def skip_to_next_member(self) -> bool:
        """After an error, continue with an empty window where the next member seems to begin; False if none does."""
        self.drop(len(self.window))
        self.inflater, self.error, self.is_cut = None, "", False
        # A damaged member may have swallowed the members after it, so that the search starts right after its first byte, and
        # not where inflating stopped. Beyond REREAD_BYTES it starts where inflating stopped: what it swallowed is then lost.
        after_magic = max(self.members[-1][1] + 1 - self.raw_start, 0)
        if after_magic > self.raw_next or self.reread_bytes < REREAD_BYTES + self.source_bytes:
            self.reread_bytes += max(self.raw_next - after_magic, 0)
            self.raw_next = after_magic
        while not (found := MAGIC[self.kind].search(self.raw, self.raw_next)):
            # A magic number may lie across two reads of the source.
            self.raw_next = max(self.raw_next, len(self.raw) - MAGIC_BYTES + 1)
            if not self._read():
                self.raw_next = len(self.raw)
                return False
        self.raw_next = found.start()
        return True

    def _read(self) -> bool:
        if self.raw_next > 2 * KEPT_BYTES:
            surplus = self.raw_next - KEPT_BYTES
            del self.raw[:surplus]
            self.raw_start += surplus
            self.raw_next -= surplus
        data = self.source.read(BLOCK_BYTES)
        self.raw += data
        return bool(data)

    def _has_raw(self, num_bytes: int = 1) -> bool:
        while len(self.raw) - self.raw_next < num_bytes:
            if not self._read():
                return False
        return True

    def _begin_member(self) -> None:
        padding = PADDING.match(self.raw, self.raw_next)
        assert padding
        self.raw_next = padding.end()
        if not self._has_raw():
            return
        if self.members[-1][0] == self.end:
            self.members.pop()
        self.members.append((self.end, self.raw_start + self.raw_next))
        self.drop(0)  # the new member may be the current one
        self._has_raw(MAGIC_BYTES)
        if self.kind == "zstd" and ZSTD_SKIPPABLE.match(self.raw, self.raw_next):
            self._skip_frame()
        elif not MAGIC[self.kind].match(self.raw, self.raw_next):
            self.error = f"no {self.kind} member begins here"
        elif self.kind == "gzip":
            self.inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
        else:
            self.inflater = self.zstd.decompressobj()

    def _inflate(self) -> None:
        piece = bytes(self.raw[self.raw_next : self.raw_next + PIECE_BYTES[self.kind]])
        limit = (BLOCK_BYTES,) if self.kind == "gzip" else ()
        try:
            self.window += self.inflater.decompress(piece, *limit)
        except (GzipError, zstandard.ZstdError) as error:
            if self.kind == "gzip" and self.members[-1][0] == self.end:
                self.window += _salvage(piece)
            self.error = f"damaged {self.kind} member: {error}"
            return
        # At most one is not empty: bytes after the end of the member, or input that waits since the output is limited.
        self.raw_next += len(piece) - len(self.inflater.unused_data or self.inflater.unconsumed_tail)
        if self.inflater.eof:
            self.inflater = None
        if self.end > FREE_BYTES + MAX_RATIO * self.source_bytes:
            self.error = f"the file grows more than {MAX_RATIO}-fold when decompressed; the rest of it is not read"
            self.source = io.BytesIO()

    def _skip_frame(self) -> None:
        """Skip a frame of zstd that holds no data but perhaps a dictionary."""
        self._has_raw(8)
        is_dictionary = self.raw[self.raw_next : self.raw_next + 4] == ZSTD_DICTIONARY
        num_bytes = int.from_bytes(self.raw[self.raw_next + 4 : self.raw_next + 8], "little")
        self.raw_next = min(self.raw_next + 8, len(self.raw))
        content = b"".join(
            piece for piece in self._pieces(num_bytes) if is_dictionary and num_bytes <= DICTIONARY_BYTES
        )
        if is_dictionary and self.dictionary_bytes < ALL_DICTIONARIES_BYTES + self.source_bytes:
            with contextlib.suppress(zstandard.ZstdError):  # then the frames that need the dictionary are damaged
                content = _decompressed_dictionary(content)
                self.dictionary_bytes += len(content)
                dictionary = zstandard.ZstdCompressionDict(content)
                self.zstd = zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=ZSTD_WINDOW_BYTES)

    def _pieces(self, num_bytes: int) -> Iterator[bytes]:
        while num_bytes and self._has_raw():
            piece = bytes(self.raw[self.raw_next : self.raw_next + min(num_bytes, BLOCK_BYTES)])
            self.raw_next += len(piece)
            num_bytes -= len(piece)
            yield piece


def _kind(head: bytes) -> Kind:
    """The format by the magic number at the start, or by the first magic number that follows."""
    if ZSTD_SKIPPABLE.match(head):
        return "zstd"
    start = head[:MAGIC_BYTES]
    if (start.isascii() and start.decode().isprintable()) or PLAIN_RECORD.search(head):
        return "plain"
    found = ANY_MAGIC.search(head)
    return next((kind for kind, magic in MAGIC.items() if found and magic.match(found[0])), "plain")


def _salvage(piece: bytes) -> bytes:
    """The first bytes of a damaged gzip member: zlib returns nothing of the piece in which it finds damage."""
    inflater, parts = zlib.decompressobj(16 + zlib.MAX_WBITS), []
    with contextlib.suppress(GzipError):
        for _ in range(SALVAGE_BYTES // SALVAGE_STEP_BYTES):
            parts.append(inflater.decompress(piece, SALVAGE_STEP_BYTES))
            piece = inflater.unconsumed_tail
            if not piece or inflater.eof:
                break
    return b"".join(parts)


def _decompressed_dictionary(content: bytes) -> bytes:
    if not MAGIC["zstd"].match(content):
        return content
    reader = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES).stream_reader(content)
    data: bytes = reader.read(DICTIONARY_BYTES)
    return data
