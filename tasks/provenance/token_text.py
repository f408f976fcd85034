"""The text of token shards, read at any place without a copy on disk: a few tokens are turned into bytes when they are asked for.

Reads token shards (model/data/token_stream.py) and a tokenizer's vocabulary. Writes nothing. A byte-level vocabulary gives exactly the
bytes that were encoded, whatever stood before and after them: a search for text is then exact, where one for tokens would miss words that
are cut in another way at the beginning of a line or after a bracket. `<|bos|>`, which opens each document, is read as SEPARATOR.

The bytes before every STRIDE-th token are kept, 4 bytes each: an eighth of a byte a token.
"""

import mmap
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers

from model.data.token_stream import TokenStream
from model.tokenizer.chat import BOS
from model.tokenizer.vocabularies import token_texts
from tasks.provenance.words import SEPARATOR, Bytes

STRIDE = 32
BLOCK_TOKENS = 1_000_000  # decoded at once: some 40 MB of memory
HEAD_BYTES = 48  # of a suffix, kept in memory for the places that every binary search compares
CACHED_HEADS = 200_000


class Vocabulary:
    """The bytes of each token. Special tokens have none, but for <|bos|>."""

    def __init__(self, path: Path) -> None:
        """`path`: of a tokenizer.json."""
        encoder = tokenizers.Tokenizer.from_file(str(path))
        self.pieces = token_texts(encoder)
        self.pieces[encoder.get_vocab()[BOS]] = bytes([SEPARATOR])
        self.lengths = np.array([len(piece) for piece in self.pieces], np.int64)
        self._flat = np.frombuffer(b"".join(self.pieces), np.uint8)
        self._begins = np.cumsum(self.lengths) - self.lengths

    def decode(self, tokens: npt.NDArray[np.integer]) -> Bytes:
        """The bytes of tokens [N]."""
        lengths = self.lengths[tokens]
        ends = np.cumsum(lengths)
        # The place of each byte in `_flat`: where its token begins, and how far it is from there.
        shift = np.repeat(self._begins[tokens] - (ends - lengths), lengths)
        found: Bytes = self._flat[np.arange(len(shift)) + shift]
        return found


def decode_range(stream: TokenStream, vocabulary: Vocabulary, first: int, stop: int) -> Iterator[tuple[Bytes, Bytes]]:
    """Blocks of a range of tokens: their bytes, and how many bytes each token has."""
    for start in range(first, stop, BLOCK_TOKENS):
        tokens = stream.slice(start, min(start + BLOCK_TOKENS, stop))
        yield vocabulary.decode(tokens), vocabulary.lengths[tokens]


def mapped(path: Path, advice: int) -> npt.NDArray[Any]:
    """An array of a file, memory-mapped. `advice`: to the system, how it is used (madvise)."""
    found = np.load(path, mmap_mode="r")
    if isinstance(found.base, mmap.mmap):
        # Else every page that is used brings megabytes around it, as far as the disk is set to read ahead.
        found.base.madvise(advice)
    # As a plain array: one element of a np.memmap costs ten times as much, and every step of a search reads one.
    return np.asarray(found)


class TokenText:
    """The text of a range of tokens by byte. Every place is counted from the first byte of the range."""

    def __init__(self, stream: TokenStream, vocabulary: Vocabulary, first: int, stop: int, marks: Path) -> None:
        self.stream, self.first, self.stop = stream, first, stop
        self._pieces = vocabulary.pieces
        # Bytes before every STRIDE-th token. All over the file within one search, so it is read as a whole.
        self._marks = mapped(marks, mmap.MADV_WILLNEED)
        self.head = lru_cache(CACHED_HEADS)(lambda place: self.read(place, HEAD_BYTES))

    def read(self, place: int, num_bytes: int) -> bytes:
        """At most so many bytes from a place on; fewer at the end of the text."""
        mark = self._mark_before(place)
        token, skipped = self.first + mark * STRIDE, place - self._marks.item(mark)
        text = b""
        while len(text) < skipped + num_bytes and token < self.stop:
            # A token has 3 to 5 bytes of most texts: one round, seldom two.
            last = min(token + 4 + (skipped + num_bytes - len(text)) // 3, self.stop)
            text += b"".join([self._pieces[piece] for piece in self.stream.slice(token, last).tolist()])
            token = last
        return text[skipped : skipped + num_bytes]

    def _mark_before(self, place: int) -> int:
        # Of the type of the marks: NumPy would else convert all of them for each search.
        return int(self._marks.searchsorted(np.uint32(place), side="right")) - 1

    def token_at(self, place: int) -> int:
        """The number in the stream of the token that has the byte at a place."""
        mark = self._mark_before(place)
        token, reached = self.first + mark * STRIDE, self._marks.item(mark)
        for piece in self.stream.slice(token, min(token + STRIDE, self.stop)).tolist():
            reached += len(self._pieces[piece])
            if reached > place:
                return token
            token += 1
        return token
