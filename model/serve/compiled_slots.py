"""Steps and prompts of a small model on a CPU, with compiled loops between the products (model/serve/compiled.py).

Reads a model's weights; writes nothing. A token of a prompt is computed as a step of its row: the tokens before it are in the cache by then. So prompts and steps
are one function, and prompts of any lengths are one product.

Shapes: as in model/serve/compiled.py; W of the N tokens are wanted.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.config import ModelConfig
from model.inference.cpu_kernels import CPUDecoder
from model.network.transformer import Transformer
from model.serve.compiled import BLOCK, CHANNELS, Compiled
from model.serve.slots import Part
from model.serve.small_slots import FIXED_BYTES, Array, small_product


def fits(config: ModelConfig, num_rows: int, max_tokens: int) -> bool:
    """Whether the loops suit the heads, and a cache of all slots is small: here it never grows."""
    numbers = 2 * config.num_layers * config.num_kv_heads * config.head_width
    return config.head_width >= CHANNELS and 4 * numbers * num_rows * max_tokens <= FIXED_BYTES


class CompiledSlots(CPUDecoder):
    """The same as SmallSlots, faster. A step computes on the slots that hold tokens alone, so spare ones cost nothing but memory."""

    def __init__(self, model: Transformer, num_rows: int, max_tokens: int, compiled: Compiled) -> None:
        super().__init__(model, small_product)
        self._compiled, config = compiled, self.config
        self.num_rows, self.max_tokens = num_rows, max_tokens
        num_blocks = -(-max_tokens // BLOCK)
        self.num_slots = num_blocks * BLOCK
        shape, width = (num_rows, config.num_kv_heads), config.head_width
        self._tables = [
            (
                np.zeros((*shape, num_blocks, width, BLOCK), np.float32),
                np.zeros((*shape, self.num_slots, width), np.float32),
            )
            for _ in self.layers
        ]
        self._make_turns()
        self._turn_pairs = torch.view_as_real(self.turns[:, 0]).contiguous().numpy()
        self._embedding = self.embedding.numpy()
        none = np.empty((0, 0), np.float32)
        self._norms = [none if layer.qk_norm is None else layer.qk_norm.contiguous().numpy() for layer in self.layers]
        self._floors = np.float32(float(self.floor) ** 2), np.float32(float(self.head_floor) ** 2)
        # Compiled, or read from where numba keeps it, now and not at the first request. No row holds anything yet.
        self._compute([0], [0], [0])

    def fit(self, span: int) -> int:
        """See Slots."""
        return self.num_slots

    def copy(self, source: int, row: int, num_tokens: int) -> None:
        """See Slots."""
        for keys, values in self._tables:
            # Whole blocks: what lies beyond the tokens is not read before it is written.
            keys[row, :, : num_tokens // BLOCK + 1] = keys[source, :, : num_tokens // BLOCK + 1]
            values[row, :, :num_tokens] = values[source, :, :num_tokens]

    def advance(self, tokens: Sequence[int], rows: Sequence[int], positions: Sequence[int]) -> Tensor:
        """See Slots."""
        return self._compute(tokens, rows, positions)

    def extend(self, parts: Sequence[Part]) -> Tensor:
        """See Slots."""
        lists: tuple[list[int], ...] = ([], [], [], [])
        tokens, rows, positions, wanted = lists
        for part in parts:
            tokens += part.tokens
            rows += [part.row] * len(part.tokens)
            positions += range(part.start, part.start + len(part.tokens))
            wanted += range(len(tokens) - (len(part.tokens) if part.wants_all else 1), len(tokens))
        return self._compute(tokens, rows, positions, wanted)

    def _compute(
        self, tokens: Sequence[int], rows: Sequence[int], positions: Sequence[int], wanted: Sequence[int] | None = None
    ) -> Tensor:
        """Append N tokens, those of a row in order -> logits [W, V] after the wanted ones, None: all."""
        config, head_floor = self.config, self._floors[1]
        places = np.array(rows), np.array(positions)
        x = self._embedding[list(tokens)]
        added, attended = np.zeros_like(x), np.empty((len(x), config.num_heads * config.head_width), np.float32)
        scores = np.empty(self.num_slots, np.float32)
        for number, layer in enumerate(self.layers):
            heads = layer.qkv(self._normed(x, added)).numpy()
            self._compiled.attend(
                heads,
                self._norms[number],
                head_floor,
                self._turn_pairs,
                *places,
                *self._tables[number],
                scores,
                attended,
            )
            # Above the last attention only the wanted tokens are needed.
            if wanted is not None and number + 1 == len(self.layers):
                x, attended = x[wanted], attended[wanted]
            gate_up = layer.gate_up(self._normed(x, layer.out(torch.from_numpy(attended)).numpy())).numpy()
            gated = np.empty((len(x), config.ff_width), np.float32)
            self._compiled.gate(gate_up, gated)
            added = layer.down(torch.from_numpy(gated)).numpy()
        return self.head(self._normed(x, added))

    def _normed(self, x: Array, added: Array) -> Tensor:
        """x += added -> the norm of x [N, D] without its weights."""
        unit = np.empty_like(x)
        self._compiled.add_and_norm(x, added, self._floors[0], unit)
        return torch.from_numpy(unit)
