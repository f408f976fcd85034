"""Sequences that can only be predicted by copying, before and between those of a corpus.

Reads and writes nothing. A sequence is made of a few spans of random tokens, again and again in random order. Learned is a span's second
time and later ones, from its second token on, since nothing tells which span comes next. That synthetic sequences can stand before
text, and save some of it, is Wu et al. 2022, "Insights into pre-training via simpler synthetic tasks".

Why, and what it costs, in the recipe `tiny` (1,340 steps by Muon, the two heads of model/network/induction.py; of random sequences that no
training has, which share of the copies is right):

    copying alone for 40 steps, then 10%              0% at step 100: text, whose common tokens are learned first, undoes the heads
    a share that falls over 120 steps, then 4%        0% from step 400 to the end, for a loss of 0.91 nats
    a share that falls over 250 steps, then 8%        93% at step 100, 3% at step 500, where the learning rate is highest, 92% at the end
    the same steps of copying alone, random weights   0% after 250 steps

The third costs knowledge: its validation loss is 1.00 nats, and 0.91 without copying; facts that no conversation states are answered in 37%
instead of 78%.
"""

from collections.abc import Iterator

import numpy as np
import torch

from model.data.dataset import Dataset, Packed, Part, pack
from model.data.packing import Indices

NUM_SPANS, SPAN_TOKENS = (2, 12), (2, 12)  # least and most


class WithCopying:
    """A data set whose stream begins with copying, and in which a fraction of the records after that is copying.

    Copying sequences have the numbers -1, -2 and so on, by their place in the stream; records keep theirs.
    """

    def __init__(
        self, dataset: Dataset, *, num_falling: int, fraction: float, sequence_tokens: int, tokens: Indices, seed: int
    ) -> None:
        """`tokens`: those that sequences are made of."""
        self.dataset, self.num_falling, self.fraction = dataset, num_falling, fraction
        self.sequence_tokens, self.tokens, self.seed = sequence_tokens, tokens, seed
        self.record_sequences = dataset.record_sequences

    def __len__(self) -> int:
        return len(self.dataset)

    def draw(self, positions: Indices, seed: int) -> Indices:
        """The records at positions [N] of the stream: the data set's own, in its order, and -1 - position where the position is copying."""
        num_copies = self._num_copies(positions)
        is_record = self._num_copies(positions + 1) == num_copies
        drawn = -1 - positions
        if is_record.any():
            drawn[is_record] = self.dataset.draw((positions - num_copies)[is_record], seed)
        return drawn

    def _num_copies(self, positions: Indices) -> Indices:
        """How many copying sequences stand before positions [N]: the share that falls, integrated, in whole numbers."""
        falling = np.minimum(positions, self.num_falling)
        share = falling - (1 - self.fraction) * falling**2 / (2 * max(1, self.num_falling))
        # As the marks of a ruler: evenly spread, and computed instead of counted.
        return np.floor(share + self.fraction * (positions - falling)).astype(np.int64)

    def fetch(self, indices: Indices) -> Packed:
        """Sequences by number, in that order: tokens [B, T + 1], mask [B, T]."""
        rows = [
            self._sequence(-1 - index) if index < 0 else self.dataset.fetch(np.array([index]))
            for index in indices.tolist()
        ]
        return Packed(*map(torch.cat, zip(*rows, strict=True)))

    def _sequence(self, number: int) -> Packed:
        rng = np.random.default_rng((self.seed, number))
        return pack([self._parts(rng)], self.sequence_tokens + 1, 0)

    def _parts(self, rng: np.random.Generator) -> Iterator[Part]:
        spans = [
            rng.choice(self.tokens, rng.integers(*SPAN_TOKENS, endpoint=True))
            for _ in range(rng.integers(*NUM_SPANS, endpoint=True))
        ]
        seen: set[int] = set()
        left = self.sequence_tokens + 1
        while left:
            number = int(rng.integers(len(spans)))
            # Nothing tells which span comes next: its first token is not learned.
            for tokens, is_learned in ((spans[number][:1], 0), (spans[number][1:], int(number in seen))):
                yield tokens[:left], is_learned
                left -= len(tokens[:left])
            seen.add(number)

    def files(self, indices: Indices) -> list[str]:
        """The files that the data set's own records may come from; for the others, what they are."""
        own = indices[indices >= 0]
        return [*(self.dataset.files(own) if len(own) else []), *(["copying sequences"] if (indices < 0).any() else [])]

    def counts(self) -> dict[str, int]:
        """The data set's own."""
        return self.dataset.counts()

    def epochs(self, num_records: int) -> dict[str, float]:
        """The epochs of the data set among the first `num_records` of the stream."""
        return self.dataset.epochs(num_records - int(self._num_copies(np.array([num_records]))[0]))
