"""The data of fine-tuning: conversations and preference pairs.

Reads JSON Lines. Writes nothing. Conversations are packed whole, several in a sequence, and kept apart by the attention mask
(model/training/objectives.py). One longer than a sequence is cropped at its end, and dropped if no token of the assistant is left. A pair is
dropped if one side does not fit: cropped, it would lose the end at which the reward is read.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from model.data.dataset import NotEnoughData, Packed, Pairs, Shuffled, pack
from model.data.packing import Indices, best_fit
from model.errors import UserError
from model.files import read_lines
from model.tokenizer.chat import ChatTokenizer, Rendered


class ConversationRows(Shuffled):
    """Rendered conversations, packed into sequences. Only the assistant's tokens are learned."""

    record_sequences = 1

    def __init__(self, paths: Sequence[str], sequence_tokens: int, tokenizer: ChatTokenizer) -> None:
        self.sequence_tokens = sequence_tokens
        self.paths = list(paths)
        self.pad = tokenizer.pad
        # All in memory: fine-tuning data is small next to a corpus.
        rendered = [example for path in paths for example in _render_file(path, tokenizer)]
        # A sequence without a learned token would divide a batch's loss by nothing.
        kept = [(tokens, mask) for tokens, mask in rendered if any(mask[: sequence_tokens + 1])]
        if not kept:
            raise NotEnoughData(
                f"none of {len(rendered)} conversations has a token of the assistant within sequence_tokens="
                f"{sequence_tokens}: make it larger, or give conversations with an assistant's turn"
            )
        self._num_dropped = len(rendered) - len(kept)
        # Counted for the summary: cropping loses the end of long conversations.
        self._over = [len(tokens) - sequence_tokens - 1 for tokens, _ in kept if len(tokens) > sequence_tokens + 1]
        # T + 1 tokens: T inputs, T targets.
        self._conversations = [(t[: sequence_tokens + 1], m[: sequence_tokens + 1]) for t, m in kept]
        self._lengths = np.array([len(tokens) for tokens, _ in self._conversations], np.int64)
        # Best fit needs less padding than a row for each conversation; attention does not cross between them.
        self._order, self._rows = best_fit(self._lengths, sequence_tokens + 1)

    def __len__(self) -> int:
        return len(self._rows) - 1

    def files(self, indices: Indices) -> list[str]:
        """All files: a record may be from any."""
        return self.paths

    def fetch(self, indices: Indices) -> Packed:
        """Sequences by number: tokens [B, T + 1] padded on the right, mask [B, T]."""
        placed = [self._order[self._rows[index] : self._rows[index + 1]] for index in indices.tolist()]
        rows = [[self._conversations[number] for number in numbers.tolist()] for numbers in placed]
        return pack(rows, self.sequence_tokens + 1, self.pad)

    def counts(self) -> dict[str, int]:
        """Records, and what was dropped, cropped or padded."""
        return {
            "records": len(self),
            "conversations": len(self._conversations),
            "dropped_conversations": self._num_dropped,
            "cropped_conversations": len(self._over),
            "cropped_tokens": sum(self._over),
            "padded_tokens": len(self) * (self.sequence_tokens + 1) - int(self._lengths.sum()),
        }


def _render_file(path: str, tokenizer: ChatTokenizer) -> Iterator[Rendered]:
    """The conversations of a file. Raises UserError with the number of one in which no token is learned, or all are."""
    for number, record in enumerate(read_lines(path), 1):
        try:
            yield tokenizer.render_training(record["messages"])
        except UserError as error:
            raise UserError(f"{path}, conversation {number}: {error}") from None


class Pair(NamedTuple):
    """Two completions of a prompt as tokens, each after the prompt."""

    chosen: list[int]
    rejected: list[int]
    prompt_tokens: int  # how many of them are the prompt
    weight: float  # the pairs of a ranking share a weight of 1; others have 1 each (tasks/conversations/formats/rankings.py)


class PreferencePairs(Shuffled):
    """Rendered preference pairs, padded, one side a sequence. The reward is read at the end of the completion."""

    record_sequences = 2

    def __init__(
        self, paths: Sequence[str], sequence_tokens: int, tokenizer: ChatTokenizer, *, has_one_shape: bool = False
    ) -> None:
        """`has_one_shape`: pad every microbatch to `sequence_tokens`, for a compiled objective."""
        self.sequence_tokens = sequence_tokens
        self.has_one_shape = has_one_shape
        self.paths = list(paths)
        self.pad = tokenizer.pad
        pairs = [_render_pair(record, tokenizer) for path in paths for record in read_lines(path)]
        # T, not T + 1: a reward model has no targets to shift by.
        self._pairs = [pair for pair in pairs if max(len(pair.chosen), len(pair.rejected)) <= sequence_tokens]
        # Dropped, not cropped: see the module's docstring.
        self._num_dropped = len(pairs) - len(self._pairs)
        if not self._pairs:
            raise NotEnoughData(
                f"none of {len(pairs)} pairs fits into sequence_tokens={sequence_tokens}: make it larger, or give more pairs"
            )

    def __len__(self) -> int:
        return len(self._pairs)

    def files(self, indices: Indices) -> list[str]:
        """All files: a record may be from any."""
        return self.paths

    def pairs(self, indices: Indices) -> list[Pair]:
        """Pairs by number, as they were rendered."""
        return [self._pairs[index] for index in indices.tolist()]

    def fetch(self, indices: Indices) -> Pairs:
        """Pairs by number: tokens [2 B, up to T], lengths [2 B], starts [2 B], weights [B]."""
        pairs = self.pairs(indices)
        sides = [side for pair in pairs for side in (pair.chosen, pair.rejected)]
        # No longer than the longest: a side of the sample has 40 tokens at the median, and T is 256.
        longest = self.sequence_tokens if self.has_one_shape else max(map(len, sides))
        tokens = np.full((len(sides), longest), self.pad, np.int64)
        for row, side in enumerate(sides):
            tokens[row, : len(side)] = side
        starts = torch.tensor([pair.prompt_tokens for pair in pairs]).repeat_interleave(2)
        weights = torch.tensor([pair.weight for pair in pairs], dtype=torch.float32)
        return Pairs(torch.from_numpy(tokens), torch.tensor([len(side) for side in sides]), starts, weights)

    def counts(self) -> dict[str, int]:
        """Records, and what was dropped, cropped or padded."""
        return {"records": len(self), "dropped_pairs": self._num_dropped}


def _render_pair(record: dict[str, Any], tokenizer: ChatTokenizer) -> Pair:
    chosen, rejected = (
        # The renderer of SFT, so that the reward model reads what the policy writes.
        tokenizer.render([*record["messages"], {"role": "assistant", "content": completion}]).tokens
        for completion in (record["chosen"], record["rejected"])
    )
    return Pair(chosen, rejected, len(tokenizer.render_prompt(record["messages"])), record.get("weight", 1.0))
