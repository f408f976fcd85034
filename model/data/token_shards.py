"""The data of pretraining: the tokens of documents, as sequences.

Reads Arrow IPC files, memory-mapped: one column `tokens`, a list a document, which starts with <|bos|>. Writes nothing. Files may come
from a store that others write to: each is validated when it is opened, and a damaged one raises a UserError that names it.

Documents become sequences of T + 1 tokens in one of two ways. Concatenated, they are cut with a stride of T, as GPT-2 was
trained: a sequence begins anywhere, and the rest after the last one is dropped. Packed, every sequence begins with a document
(Ding et al. 2024), which is kept whole if it fits: a longer one is cut into pieces that each begin with a <|bos|>, and the
rest of a sequence is padded.
"""

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from model.data.dataset import NotEnoughData, Packed, Part, Shuffled, pack
from model.data.packing import Indices, best_fit
from model.errors import UserError
from model.tokenizer.chat import ChatTokenizer

MAX_OPEN_SHARDS = 4096
COLUMN_TYPES = (pa.list_(pa.uint16()), pa.list_(pa.uint32()))


class TokenRun(NamedTuple):
    """A record batch of a token shard: views of the memory map."""

    tokens: npt.NDArray[Any]
    offsets: npt.NDArray[np.int32]  # where each document begins and the last one ends


class TokenShards(Shuffled):
    """Sequences over the concatenated documents of Arrow token shards, without a copy of them in memory."""

    record_sequences = 1

    def __init__(self, paths: Sequence[str], sequence_tokens: int, vocab_size: int) -> None:
        self.sequence_tokens = sequence_tokens
        self.stream = TokenStream(paths, vocab_size)
        if len(self) < 1:
            raise NotEnoughData(
                f"token shards {list(paths)} hold {self.stream.num_tokens} tokens, fewer than a sequence of "
                f"{sequence_tokens + 1}: take more documents or a smaller sequence_tokens"
            )

    def __len__(self) -> int:
        return max(0, (self.stream.num_tokens - 1) // self.sequence_tokens)

    def fetch(self, indices: Indices) -> Packed:
        """Sequences by number: tokens [B, T + 1], all of them learned."""
        T = self.sequence_tokens
        # Neighbours share one token: the last target of one is the first input of the next.
        tokens = np.stack([self.stream.slice(index * T, index * T + T + 1) for index in indices.tolist()])
        return Packed(torch.from_numpy(tokens.astype(np.int64)), torch.ones(len(indices), T))

    def files(self, indices: Indices) -> list[str]:
        """The shards in which sequences begin."""
        return self.stream.files(indices * self.sequence_tokens)

    def counts(self) -> dict[str, int]:
        """Sequences, and the tokens left over after the last one."""
        used = len(self) * self.sequence_tokens + 1
        return {"records": len(self), "dropped_tokens": self.stream.num_tokens - used}


class WholeDocuments(Shuffled):
    """Documents of Arrow token shards packed into sequences. Takes 32 bytes of memory a document; the tokens stay in their files."""

    record_sequences = 1

    def __init__(self, paths: Sequence[str], sequence_tokens: int, tokenizer: ChatTokenizer) -> None:
        self.sequence_tokens = sequence_tokens
        self.bos, self.pad = tokenizer.bos, tokenizer.pad
        self.stream = TokenStream(paths, tokenizer.vocab_size)
        self._starts, self._lengths = self._pieces(self.stream.documents())
        if not len(self._starts):
            raise NotEnoughData(f"token shards {list(paths)} hold no document: take more documents")
        # + 1 for the <|bos|> of each piece.
        self._order, self._rows = best_fit(self._lengths + 1, sequence_tokens + 1)

    def _pieces(self, documents: Indices) -> tuple[Indices, Indices]:
        """Where the pieces of documents begin in the stream, after their <|bos|>, and how many tokens they have."""
        T = self.sequence_tokens
        # Without the <|bos|>: each piece gets one again in `_piece`.
        starts, text_tokens = documents[:-1] + 1, np.diff(documents) - 1
        num_pieces = -(-text_tokens // T)
        self._num_cuts = int((num_pieces - 1).clip(0).sum())
        first = np.repeat(np.cumsum(num_pieces) - num_pieces, num_pieces)
        # Vectorised over pieces: documents number in the millions.
        done = (np.arange(num_pieces.sum()) - first) * T  # tokens of the document before each piece
        return np.repeat(starts, num_pieces) + done, np.minimum(T, np.repeat(text_tokens, num_pieces) - done)

    def __len__(self) -> int:
        return len(self._rows) - 1

    def fetch(self, indices: Indices) -> Packed:
        """Sequences by number: tokens [B, T + 1] padded on the right, mask [B, T]: all but padding is learned."""
        placed = [self._order[self._rows[index] : self._rows[index + 1]] for index in indices.tolist()]
        rows = [[part for number in numbers.tolist() for part in self._piece(number)] for numbers in placed]
        return pack(rows, self.sequence_tokens + 1, self.pad)

    def _piece(self, number: int) -> Iterator[Part]:
        """A <|bos|>, and the tokens after it."""
        start, length = int(self._starts[number]), int(self._lengths[number])
        yield [self.bos], 1
        yield self.stream.slice(start, start + length), 1

    def files(self, indices: Indices) -> list[str]:
        """The shards with the first document of each sequence."""
        return self.stream.files(self._starts[self._order[self._rows[indices]]])

    def counts(self) -> dict[str, int]:
        """Sequences, tokens of padding, and cuts in documents that are longer than a sequence."""
        # One <|bos|> for each piece, and its text.
        placed = len(self._lengths) + int(self._lengths.sum())
        padded = len(self) * (self.sequence_tokens + 1) - placed
        return {"records": len(self), "padded_tokens": padded, "cuts_in_documents": self._num_cuts}


class TokenStream:
    """The documents of Arrow token shards as one sequence of tokens, memory-mapped.

    Every shard is opened and checked once; then only the last used stay mapped. A crawl has 90,000 files, and Linux gives a process
    65,530 maps (vm.max_map_count) and often 1,024 open files.
    """

    def __init__(self, paths: Sequence[str], vocab_size: int) -> None:
        """Raises UserError where a shard is damaged, or holds a token that is not below `vocab_size`."""
        self._paths = list(paths)
        sizes = [
            (shard, batch, len(run.tokens))
            for shard, path in enumerate(self._paths)
            for batch, run in enumerate(checked_runs(path, vocab_size))
        ]
        # Three numbers per record batch: tens of thousands of shards fit in little memory.
        self._shards, self._batches, lengths = np.array(sizes, np.int64).reshape(-1, 3).T
        self._starts = np.cumsum([0, *lengths])
        self.num_tokens = int(self._starts[-1])
        # Dropping an entry unmaps the file, since nothing else holds its arrays.
        self._open = lru_cache(max_open_shards())(self._read)

    def _read(self, shard: int) -> list[TokenRun]:
        return list(token_runs(self._paths[shard]))

    def _run(self, number: int) -> TokenRun:
        return self._open(int(self._shards[number]))[int(self._batches[number])]

    def slice(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Tokens start to stop of all documents, one after the other."""
        # side="right" skips empty record batches, whose start equals the next one's.
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        parts = []
        while start < stop:
            offset = start - self._starts[first]
            part = self._run(first).tokens[offset : offset + stop - start]
            parts.append(part)
            start += len(part)
            first += 1
        return np.concatenate(parts)

    def documents(self) -> Indices:
        """Where every document begins and the last one ends: [N + 1]."""
        begins = [start + self._run(number).offsets[:-1] for number, start in enumerate(self._starts[:-1])]
        return np.concatenate([*begins, self._starts[-1:]]).astype(np.int64)

    def files(self, tokens: Indices) -> list[str]:
        """The shards that hold the tokens of these numbers."""
        runs = np.searchsorted(self._starts, tokens, side="right") - 1
        return sorted({self._paths[shard] for shard in self._shards[runs].tolist()})


def max_open_shards() -> int:
    """How many shards a stream keeps mapped: within the limit of open files, of which each map holds one."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A sixteenth: ranks, sockets and other streams need open files too.
    return MAX_OPEN_SHARDS if soft == resource.RLIM_INFINITY else max(16, min(MAX_OPEN_SHARDS, soft // 16))


def checked_runs(path: str, vocab_size: int) -> Iterator[TokenRun]:
    """The record batches of a token shard, each with all its tokens below `vocab_size`. Raises UserError.

    Reads the whole file.
    """
    for run in token_runs(path):
        if len(run.tokens) and int(largest := run.tokens.max()) >= vocab_size:
            raise UserError(
                f"token shard {path} holds the token {largest}, and its vocabulary has {vocab_size}: tokenize the documents again"
            )
        yield run


def token_runs(path: str) -> Iterator[TokenRun]:
    """The record batches of an Arrow IPC file that hold documents. Raises UserError where the file is damaged.

    pyarrow trusts a file: offsets that point outside it crash the process when they are followed, so each batch is validated first.
    """
    with explaining(path):
        reader = open_shard(path)
        num_batches = reader.num_record_batches
    for number in range(num_batches):
        with explaining(path):
            batch = reader.get_batch(number)
            # full: checks the offsets themselves, not only the sizes of the buffers.
            batch.validate(full=True)
            column = batch.column(0)
            # A null list or token has a slot with any number in it.
            if column.null_count or column.values.null_count:
                raise ValueError("it has null values")
            if not len(column):
                continue
            offsets = column.offsets.to_numpy(zero_copy_only=True)
            tokens = column.flatten().to_numpy(zero_copy_only=True)
        # A sliced array's offsets begin later; flatten has already cut its values to match.
        yield TokenRun(tokens, offsets - offsets[0] if offsets[0] else offsets)


def open_shard(path: str) -> Any:
    """The reader of a token shard, memory-mapped. Raises ValueError where its columns are not those of one."""
    # Mapped: the system's page cache holds the tokens once for all ranks of a machine.
    reader = pa.ipc.open_file(pa.memory_map(path))
    if reader.schema.names != ["tokens"] or reader.schema.types[0] not in COLUMN_TYPES:
        raise ValueError(f"its columns are {', '.join(map(str, reader.schema)) or 'none'}")
    return reader


def shard_vocab_size(path: str) -> int:
    """V of the tokenizer that a token shard was written with. Raises UserError where it does not say."""
    with explaining(path):
        return int((open_shard(path).schema.metadata or {})[b"vocab_size"])


@contextmanager
def explaining(path: str) -> Iterator[None]:
    """Turn what pyarrow raises for a damaged file into a UserError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"there is no token shard {path}: tokenize the documents again") from None
    except (pa.ArrowException, ValueError, KeyError, OSError, OverflowError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path} is not a readable token shard ({reason[:200]}): tokenize the documents again"
        ) from None
