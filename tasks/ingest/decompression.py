"""The plain bytes of a file that is compressed record by record: gzip members, zstd frames, or not compressed at all.

Reads a stream once, front to back, in bounded memory, and knows where each member begins (a frame of zstd is called so too).
After a damaged one it goes on at the next. zstd is that of web archives (IIPC, https://iipc.github.io/warc-specifications/
specifications/warc-zstd/): a skippable frame may hold a dictionary for the frames that follow, itself compressed or not.
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
KEPT_BYTES = 512 * 1024  # of the source, behind what is inflated: a damaged member may have swallowed the next ones
REREAD_BYTES = 64 * 2**20  # and as much as was read: a file made for it would be searched again and again
FREE_BYTES = 2**30  # of plain bytes, before their ratio to those of the file counts
MAX_RATIO = 200
SALVAGE_BYTES = 64

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
PIECE_BYTES: dict[Kind, int] = {"gzip": 16 * 1024, "zstd": 512}  # zstd has no limit of its output: 16 MiB of these


class DecompressedStream:
    """A window on the plain bytes of `source`, from the place in hand on, as far as they were asked for."""

    def __init__(self, source: IO[bytes]) -> None:
        self.source = source
        self.raw = bytearray(source.read(BLOCK_BYTES))
        self.raw_start = 0  # where in the source raw[0] is
        self.raw_next = 0  # index in raw of what is to be inflated next
        self.kind = _kind(bytes(self.raw))
        self.window = bytearray()
        self.start = 0  # where in the plain bytes window[0] is
        self.members = deque([(0, 0)])  # where each begins, from that in hand on: in the plain bytes, in the source
        self.inflater: Any = None
        self.zstd = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
        self.trouble = ""  # why there are no more bytes, where it is not the end of the file
        self.is_cut = False  # the trouble is that the file ends within a member
        self.reread_bytes = 0  # of the source, after trouble

    @property
    def end(self) -> int:
        return self.start + len(self.window)

    @property
    def source_bytes(self) -> int:
        """How much of the source was read."""
        return self.raw_start + len(self.raw)

    def source_offset(self) -> int:
        """Where in the source the place in hand is; in a compressed file, where its member begins."""
        return self.start if self.kind == "plain" else self.members[0][1]

    def is_at_member(self) -> bool:
        return self.members[0][0] == self.start

    def rest_of_member(self) -> int:
        """How much of the window is of the member in hand."""
        return self.members[1][0] - self.start if len(self.members) > 1 else len(self.window)

    def copy(self, begin: int, end: int) -> bytes:
        """A part of the window; a slice of it would be copied twice."""
        with memoryview(self.window) as view:
            return bytes(view[begin:end])

    def drop(self, num_bytes: int) -> None:
        """Go on by so much of the window."""
        assert 0 <= num_bytes <= len(self.window)
        del self.window[:num_bytes]
        self.start += num_bytes
        while len(self.members) > 1 and self.members[1][0] <= self.start:
            self.members.popleft()

    def need(self, num_bytes: int) -> bool:
        """Fill the window up to a length; False where it stays shorter."""
        while len(self.window) < num_bytes:
            if not self.fill():
                return False
        return True

    def fill(self) -> bool:
        """More bytes into the window; False where there are none, because of `trouble` or the end of the file."""
        before = len(self.window)
        while len(self.window) == before and not self.trouble and self._has_raw():
            if self.kind == "plain":
                self.window += self.raw[self.raw_next :]
                self.raw_next = len(self.raw)
            elif self.inflater is None:
                self._begin_member()
            else:
                self._inflate()
        if len(self.window) == before and self.inflater is not None and not self.trouble:
            self.trouble, self.is_cut = f"the file ends within a {self.kind} member", True
        return len(self.window) > before

    def next_member(self) -> bool:
        """After trouble, go on with an empty window at the next place that looks like a member; False where none does."""
        self.drop(len(self.window))
        self.inflater, self.trouble, self.is_cut = None, "", False
        behind = max(self.members[-1][1] + 1 - self.raw_start, 0)
        if behind > self.raw_next or self.reread_bytes < REREAD_BYTES + self.source_bytes:
            self.reread_bytes += max(self.raw_next - behind, 0)
            self.raw_next = behind
        while not (found := MAGIC[self.kind].search(self.raw, self.raw_next)):
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
        self.drop(0)  # it may be the one in hand
        self._has_raw(MAGIC_BYTES)
        if self.kind == "zstd" and ZSTD_SKIPPABLE.match(self.raw, self.raw_next):
            self._skip_frame()
        elif not MAGIC[self.kind].match(self.raw, self.raw_next):
            self.trouble = f"no {self.kind} member begins here"
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
            self.trouble = f"damaged {self.kind} member: {error}"
            return
        self.raw_next += len(piece) - len(self.inflater.unused_data or self.inflater.unconsumed_tail)
        if self.inflater.eof:
            self.inflater = None
        if self.end > FREE_BYTES + MAX_RATIO * self.source_bytes:
            self.trouble = f"the file grows more than {MAX_RATIO}-fold when decompressed, and is not read on"
            self.source = io.BytesIO()

    def _skip_frame(self) -> None:
        """Pass over a frame of zstd that holds no plain bytes but perhaps a dictionary."""
        self._has_raw(8)
        is_dictionary = self.raw[self.raw_next : self.raw_next + 4] == ZSTD_DICTIONARY
        num_bytes = int.from_bytes(self.raw[self.raw_next + 4 : self.raw_next + 8], "little")
        self.raw_next = min(self.raw_next + 8, len(self.raw))
        content = b"".join(piece for piece in self._pass(num_bytes) if is_dictionary and num_bytes <= DICTIONARY_BYTES)
        if is_dictionary:
            with contextlib.suppress(zstandard.ZstdError):  # then the frames that need it are damaged
                self.zstd = _with_dictionary(content)

    def _pass(self, num_bytes: int) -> Iterator[bytes]:
        while num_bytes and self._has_raw():
            piece = bytes(self.raw[self.raw_next : self.raw_next + min(num_bytes, BLOCK_BYTES)])
            self.raw_next += len(piece)
            num_bytes -= len(piece)
            yield piece


def _kind(head: bytes) -> Kind:
    """By the magic number at the start; where garbage is there, by the first one that follows."""
    if ZSTD_SKIPPABLE.match(head):
        return "zstd"
    start = head[:MAGIC_BYTES]
    if (start.isascii() and start.decode().isprintable()) or PLAIN_RECORD.search(head):
        return "plain"
    found = ANY_MAGIC.search(head)
    return next((kind for kind, magic in MAGIC.items() if found and magic.match(found[0])), "plain")


def _salvage(piece: bytes) -> bytes:
    """What a damaged gzip member begins with: zlib gives nothing of the piece in which it finds damage."""
    inflater, plain = zlib.decompressobj(16 + zlib.MAX_WBITS), b""
    with contextlib.suppress(GzipError):
        while piece and not inflater.eof:
            plain += inflater.decompress(piece, SALVAGE_BYTES)
            piece = inflater.unconsumed_tail
    return plain


def _with_dictionary(content: bytes) -> zstandard.ZstdDecompressor:
    if MAGIC["zstd"].match(content):
        plain = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES).stream_reader(content)
        content = plain.read(DICTIONARY_BYTES)
    dictionary = zstandard.ZstdCompressionDict(content)
    return zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=ZSTD_WINDOW_BYTES)
