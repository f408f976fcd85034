"""Steps of a small model on a CPU: numpy between the products, because there the calls take longer than the arithmetic.

Reads a model's weights; writes nothing. A step of the tiny recipe's model is some 140 operations on a few hundred numbers each. One of torch costs one to three
microseconds whatever it computes, one of numpy a third of that; both work on the same memory. On one thread of
an EPYC of 2026 a step of one row takes 440 microseconds in torch and 200 here, of 16 rows 840 and 730.

Shapes: as in model/serve/slots.py; b rows of the cache that follow each other.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.network.products import Product, packed_product
from model.network.transformer import Transformer
from model.serve.slots import CPUSlots

Array = npt.NDArray[np.float32]

FIXED_BYTES = 2**28
SMALL_MATRIX = 2**19  # numbers: a matrix of at most so many is kept unpacked too
SMALL_PRODUCT = 2**18  # multiplications: MKL starts faster than oneDNN, and computes these before the other has started


def is_small(model: Transformer) -> bool:
    """Whether steps take longer to call than to compute."""
    config = model.config
    widest = config.width * max(config.ff_width * 2, config.width)
    return widest <= SMALL_MATRIX and model.model.embed_tokens.weight.dtype == torch.float32


def small_product(matrix: Tensor) -> Product:
    """x [N, I] -> x @ matrix.T, by the library that is faster for so many rows."""
    packed = packed_product(matrix)
    if matrix.numel() > SMALL_MATRIX:
        return packed
    plain, most_rows = matrix.t().contiguous(), max(1, SMALL_PRODUCT // matrix.numel())
    return lambda x: torch.mm(x, plain) if len(x) <= most_rows else packed(x)


class SmallSlots(CPUSlots):
    """The same as CPUSlots with another `advance`."""

    def __init__(self, model: Transformer, num_rows: int, max_tokens: int) -> None:
        super().__init__(model, num_rows, max_tokens, small_product)
        # Here spare slots cost memory alone, since a step computes on those that hold tokens: a small cache is made once and never grows.
        if sum(part.nbytes for part in (*self.keys, *self.values)) // self.num_slots * max_tokens <= FIXED_BYTES:
            super().fit(max_tokens)
        self._is_fixed = self.num_slots >= max_tokens
        self._embedding = self.embedding.numpy()
        self._qk_norms = [None if layer.qk_norm is None else layer.qk_norm.numpy() for layer in self.layers]
        self._square_floor, self._head_square_floor = (float(floor) ** 2 for floor in (self.floor, self.head_floor))

    def fit(self, span: int) -> int:
        """See Slots."""
        return self.num_slots if self._is_fixed else super().fit(span)

    def advance(self, tokens: Sequence[int], rows: Sequence[int], positions: Sequence[int]) -> Tensor:
        """See Slots. Rows that follow each other are computed together."""
        H, J, K, F = self.config.num_heads, self.config.num_kv_heads, self.config.head_width, self.config.ff_width
        order = sorted(range(len(rows)), key=rows.__getitem__)
        tokens, rows, positions = ([values[place] for place in order] for values in (tokens, rows, positions))
        runs = _runs(rows, positions)
        x = self._embedding[list(tokens)]
        turns = self.turns.numpy()[list(positions)]  # [B, 1, K/2]
        for number, layer in enumerate(self.layers):
            heads = _apply(layer.qkv, _unit(x, self._square_floor)).reshape(len(x), H + 2 * J, K)
            qk = heads[:, : H + J]
            if (norm := self._qk_norms[number]) is not None:
                qk = _unit(qk, self._head_square_floor)
                qk *= norm
            qk = (np.ascontiguousarray(qk).view(np.complex64) * turns).view(np.float32)
            keys, values = self.keys[number].numpy(), self.values[number].numpy()
            for place, (row, position) in enumerate(zip(rows, positions, strict=True)):
                keys[row, :, :, position] = qk[place, H:]
                values[row, :, position] = heads[place, H + J :]
            parts = [
                _attend(qk[a:b, :H], keys[r : r + b - a, ..., :s], values[r : r + b - a, :, :s], mask)
                for a, b, r, s, mask in runs
            ]
            x += _apply(layer.out, parts[0] if len(parts) == 1 else np.concatenate(parts))
            gate_up = _apply(layer.gate_up, _unit(x, self._square_floor))
            x += _apply(layer.down, _silu(gate_up[:, :F]) * gate_up[:, F:])
        logits = self.head(torch.from_numpy(_unit(x, self._square_floor)))
        if order == sorted(order):
            return logits
        return logits[torch.tensor(order).argsort()]


def _apply(product: Product, x: Array) -> Array:
    array: Array = product(torch.from_numpy(x)).numpy()
    return array


def _unit(x: Array, square_floor: float) -> Array:
    """As in model/inference/cpu_kernels.py."""
    squares = np.vecdot(x, x)
    squares += square_floor
    unit: Array = x / np.sqrt(squares, out=squares)[..., None]
    return unit


def _silu(x: Array) -> Array:
    # By the hyperbolic tangent: an exponential would overflow, with a warning.
    half = 0.5 * x
    silu: Array = half + half * np.tanh(half)
    return silu


def _runs(rows: Sequence[int], positions: Sequence[int]) -> list[tuple[int, int, int, int, Array | None]]:
    """Rows that follow each other: first and last place in the batch, first row, slots, mask [b, 1, 1, S] that is added."""
    borders = [0, *(place for place in range(1, len(rows)) if rows[place] != rows[place - 1] + 1), len(rows)]
    found: list[tuple[int, int, int, int, Array | None]] = []
    for first, end in pairwise(borders):
        own = np.array(positions[first:end])
        size = int(own.max()) + 1
        mask = None
        if own.min() + 1 < size:
            is_later = np.arange(size) > own[:, None]
            mask = np.where(is_later, np.float32(-math.inf), np.float32(0))[:, None, None]
        found.append((first, end, rows[first], size, mask))
    return found


def _attend(query: Array, keys: Array, values: Array, mask: Array | None) -> Array:
    """Queries [b, H, K] over keys [b, J, K, S] and values [b, J, S, K] -> [b, H K]."""
    b, H, K = query.shape
    scores: Array = query.reshape(b, keys.shape[1], -1, K) @ keys
    if mask is not None:
        scores += mask
    scores -= np.maximum.reduce(scores, -1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= np.add.reduce(scores, -1, keepdims=True)
    attended: Array = scores @ values
    return attended.reshape(b, H * K)
