"""Which row of the cache belongs to which request, and what each row holds: free rows are the memory of earlier prompts.

Reads and writes nothing; model/serve/slots.py holds the keys and values. The bound of this memory is the number of rows: the row that was used
longest ago is given away first.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MIN_SHARED = 8  # tokens: copying a shorter beginning takes as long as reading it


class Rows:
    """R rows and the tokens that each has read."""

    def __init__(self, num_rows: int) -> None:
        self.held: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64) for _ in range(num_rows)]
        self.free = list(range(num_rows))  # the longest unused first

    def find(self, prompt: Sequence[int]) -> tuple[int, int]:
        """The row that shares the longest beginning with a prompt, and its length, which is 0 where it is not worth copying."""
        # Never the whole prompt: its last token must be computed, since its logits are not kept.
        wanted = np.array(prompt[:-1], np.int64)
        lengths = [_shared(held, wanted) for held in self.held]
        row = max(range(len(lengths)), key=lengths.__getitem__)
        return (row, lengths[row]) if lengths[row] >= MIN_SHARED else (row, 0)

    def take(self, source: int, num_shared: int) -> int:
        """A free row for a prompt that shares tokens with row `source`: `source` itself if it is free and holds little else."""
        # A long row that shares little with the prompt may serve another prompt, so it is copied and not cut.
        is_source = num_shared and source in self.free and len(self.held[source]) <= 2 * num_shared
        row = source if is_source else self.free[0]
        self.free.remove(row)
        self.held[row] = self.held[source][:num_shared]
        return row

    def record(self, row: int, tokens: Sequence[int]) -> None:
        """What a row holds now."""
        self.held[row] = np.array(tokens, np.int64)

    def give_back(self, row: int, tokens: Sequence[int]) -> None:
        """A request has ended; its row holds `tokens`."""
        self.record(row, tokens)
        self.free.append(row)

    def cut(self, num_slots: int) -> None:
        """The cache has become smaller: what lay beyond is lost."""
        self.held = [held[:num_slots] for held in self.held]


def _shared(left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> int:
    size = min(len(left), len(right))
    if not size or left[0] != right[0]:
        return 0
    differs = left[:size] != right[:size]
    return int(differs.argmax()) if differs.any() else size
