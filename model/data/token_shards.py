"""The data of pretraining: the tokens of documents, as sequences.

Reads token shards (model/data/token_stream.py). Writes nothing.

Documents become sequences of T + 1 tokens in one of two ways. Concatenated, they are cut with a stride of T, as GPT-2 was
trained: a sequence begins anywhere, and the rest after the last one is dropped. Packed, every sequence begins with a document
(Ding et al. 2024), which is kept whole if it fits: a longer one is cut into pieces that each begin with a <|bos|>, and the
rest of a sequence is padded.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from model.data.dataset import NotEnoughData, Packed, Part, Shuffled, pack
from model.data.packing import Indices, best_fit
from model.data.token_stream import TokenStream
from model.tokenizer.chat import ChatTokenizer


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
