"""Pretraining's data: documents' tokens in files, as sequences.

Reads Arrow IPC files (memory-mapped; one column `tokens`, a list a document, which starts with <|bos|>). Writes nothing.

Documents become sequences of T + 1 tokens in one of two ways. Concatenated, they are cut with a stride of T, as GPT-2 was
trained: a sequence begins anywhere, and what is left of the last one is dropped. Packed, every sequence begins with a document
(Ding et al. 2024), which is kept whole where it fits: a longer one is cut into pieces that begin with a <|bos|> of their own, and
what is left of a sequence is padded.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from model.data.dataset import NotEnoughData, Packed, Part, Shuffled, pack
from model.data.packing import Indices, best_fit
from model.tokenizer.chat import ChatTokenizer


class TokenShards(Shuffled):
    """Sequences over the documents of Arrow token shards, one after the other, without a copy of them in memory."""

    record_sequences = 1

    def __init__(self, paths: Sequence[str], sequence_tokens: int) -> None:
        self.sequence_tokens = sequence_tokens
        self.stream = TokenStream(paths)
        if len(self) < 1:
            raise NotEnoughData(
                f"token shards {list(paths)} hold {self.stream.num_tokens} tokens, fewer than a sequence of "
                f"{sequence_tokens + 1}; take more documents or a smaller sequence_tokens"
            )

    def __len__(self) -> int:
        return max(0, (self.stream.num_tokens - 1) // self.sequence_tokens)

    def fetch(self, indices: Indices) -> Packed:
        """Sequences by number: tokens [B, T + 1], all of them to be learned."""
        T = self.sequence_tokens
        tokens = np.stack([self.stream.slice(index * T, index * T + T + 1) for index in indices.tolist()])
        return Packed(torch.from_numpy(tokens.astype(np.int64)), torch.ones(len(indices), T))

    def files(self, indices: Indices) -> list[str]:
        """The shards in which sequences begin."""
        return self.stream.files(indices * self.sequence_tokens)

    def counts(self) -> dict[str, int]:
        used = len(self) * self.sequence_tokens + 1
        return {"records": len(self), "dropped_tokens": self.stream.num_tokens - used}


class WholeDocuments(Shuffled):
    """Documents of Arrow token shards packed into sequences. Takes 32 bytes of memory a document; the tokens stay in their files."""

    record_sequences = 1

    def __init__(self, paths: Sequence[str], sequence_tokens: int, tokenizer: ChatTokenizer) -> None:
        self.sequence_tokens = sequence_tokens
        self.bos, self.pad = tokenizer.bos, tokenizer.pad
        self.stream = TokenStream(paths)
        self._starts, self._lengths = self._pieces(self.stream.documents())
        if not len(self._starts):
            raise NotEnoughData(f"token shards {list(paths)} hold no document; take more documents")
        self._order, self._rows = best_fit(self._lengths + 1, sequence_tokens + 1)

    def _pieces(self, documents: Indices) -> tuple[Indices, Indices]:
        """Where the pieces of documents begin in the stream, after their <|bos|>, and how many tokens they have."""
        T = self.sequence_tokens
        starts, text_tokens = documents[:-1] + 1, np.diff(documents) - 1
        num_pieces = -(-text_tokens // T)
        self._num_cuts = int((num_pieces - 1).clip(0).sum())
        first = np.repeat(np.cumsum(num_pieces) - num_pieces, num_pieces)
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
        placed = len(self._lengths) + int(self._lengths.sum())
        padded = len(self) * (self.sequence_tokens + 1) - placed
        return {"records": len(self), "padded_tokens": padded, "cuts_in_documents": self._num_cuts}


class TokenStream:
    """The documents of Arrow token shards as one sequence of tokens, memory-mapped."""

    def __init__(self, paths: Sequence[str]) -> None:
        runs = [(path, run) for path in paths for run in token_runs(path)]
        self._paths = [path for path, _ in runs]
        self._runs = [run.tokens for _, run in runs]
        self._offsets = [run.offsets for _, run in runs]
        self._starts = np.cumsum([0, *(len(tokens) for tokens in self._runs)])
        self.num_tokens = int(self._starts[-1])

    def slice(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Tokens start to stop of all documents, one after the other."""
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        parts = []
        while start < stop:
            offset = start - self._starts[first]
            part = self._runs[first][offset : offset + stop - start]
            parts.append(part)
            start += len(part)
            first += 1
        return np.concatenate(parts)

    def documents(self) -> Indices:
        """Where every document begins and the last one ends: [N + 1]."""
        begins = [start + offsets[:-1] for start, offsets in zip(self._starts, self._offsets, strict=False)]
        return np.concatenate([*begins, self._starts[-1:]]).astype(np.int64)

    def files(self, tokens: Indices) -> list[str]:
        """The shards that hold the tokens of these numbers."""
        return sorted({self._paths[run] for run in (np.searchsorted(self._starts, tokens, side="right") - 1).tolist()})


class TokenRun(NamedTuple):
    """A record batch of a token shard: views of the memory map."""

    tokens: npt.NDArray[Any]
    offsets: npt.NDArray[np.int32]  # where each document begins and the last one ends


def token_runs(path: str) -> Iterator[TokenRun]:
    """The record batches of an Arrow IPC file."""
    reader = pa.ipc.open_file(pa.memory_map(path))
    for number in range(reader.num_record_batches):
        column = reader.get_batch(number).column("tokens")
        tokens = column.flatten().to_numpy(zero_copy_only=True)
        yield TokenRun(tokens, column.offsets.to_numpy(zero_copy_only=True))


def shard_vocab_size(path: str) -> int:
    """V of the tokenizer that a token shard was written with."""
    return int(pa.ipc.open_file(pa.memory_map(path)).schema.metadata[b"vocab_size"])
