"""Steps and prompts of a small model on a CPU, all layers of which are one call of compiled loops (model/serve/compiled.py).

Reads a model's weights; writes nothing. A token of a prompt is computed as a step of its row: the tokens before it are in the cache by then. So prompts and steps
are one function, and prompts of any lengths are one product.

Shapes: as in model/serve/compiled.py.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.config import ModelConfig
from model.inference.cpu_kernels import CPUDecoder
from model.network.products import Product, packed_product
from model.network.transformer import Transformer
from model.serve.compiled import BLOCK, CHANNELS, COLUMNS, Array, Cache, Weights, multiply, run_layers
from model.serve.slots import Part
from model.serve.small_slots import FIXED_BYTES, SMALL_MATRIX


def fits(config: ModelConfig, num_rows: int, max_tokens: int) -> bool:
    """Whether the loops suit the heads, and a cache of all slots is small: here it never grows."""
    cached = 2 * config.num_layers * config.num_kv_heads * config.head_width
    is_cache_small = 4 * cached * num_rows * max_tokens <= FIXED_BYTES
    qkv = (config.num_heads + 2 * config.num_kv_heads) * config.head_width * config.width
    return config.head_width >= CHANNELS and is_cache_small and qkv <= SMALL_MATRIX


class CompiledProduct:
    """x [N, I] -> x @ matrix.T for a matrix [O, I]."""

    def __init__(self, matrix: Tensor) -> None:
        self.num_outputs = len(matrix)
        filled = torch.nn.functional.pad(matrix, (0, 0, 0, -len(matrix) % COLUMNS))
        self.packed: Array = filled.view(-1, COLUMNS, matrix.shape[1]).transpose(1, 2).contiguous().numpy()

    def __call__(self, x: Tensor) -> Tensor:
        """See the class."""
        out = np.empty((len(x), len(self.packed) * COLUMNS), np.float32)
        multiply(x.contiguous().numpy(), self.packed, out)
        return torch.from_numpy(out)[:, : self.num_outputs]


def _make_product(matrix: Tensor) -> Product:
    # A large matrix, which only that of a vocabulary can be, is multiplied by as many threads as torch has.
    return CompiledProduct(matrix) if matrix.numel() <= SMALL_MATRIX else packed_product(matrix)


class CompiledSlots(CPUDecoder):
    """The same as SmallSlots, faster. A step computes on the slots that hold tokens alone, so spare ones cost nothing but memory."""

    def __init__(self, model: Transformer, num_rows: int, max_tokens: int) -> None:
        super().__init__(model, _make_product)
        config = self.config
        self.num_rows, self.max_tokens = num_rows, max_tokens
        num_blocks = -(-max_tokens // BLOCK)
        self.num_slots = num_blocks * BLOCK
        shape, width = (config.num_layers, num_rows, config.num_kv_heads), config.head_width
        self._cache = Cache(
            np.zeros((*shape, num_blocks, width, BLOCK), np.float32),
            np.zeros((*shape, self.num_slots, width), np.float32),
        )
        self._make_turns()
        self._turn_pairs = torch.view_as_real(self.turns[:, 0]).contiguous().numpy()
        self._embedding = self.embedding.numpy()
        self._weights = self._stack_weights()
        self._floors = np.float32(float(self.floor) ** 2), np.float32(float(self.head_floor) ** 2)
        # Compiled, or read from where numba keeps it, now and not at the first request. No row holds anything yet.
        self._compute([0], [0], [0])

    def _stack_weights(self) -> Weights:
        """The matrices of all layers, end to end."""
        none = torch.empty(0, 0)
        norms = [none if layer.qk_norm is None else layer.qk_norm for layer in self.layers]
        stacked = {"qk_norms": torch.stack(norms).numpy()}
        for name in ("qkv", "out", "gate_up", "down"):
            products = [getattr(layer, name) for layer in self.layers]
            stacked[name] = np.stack([product.packed for product in products])
            for product, packed in zip(products, stacked[name], strict=True):
                product.packed = packed  # the same memory
        return Weights(**stacked)

    def fit(self, span: int) -> int:
        """See Slots."""
        return self.num_slots

    def copy(self, source: int, row: int, num_tokens: int) -> None:
        """See Slots."""
        # Whole blocks: what lies beyond the tokens is not read before it is written.
        num_blocks = num_tokens // BLOCK + 1
        self._cache.keys[:, row, :, :num_blocks] = self._cache.keys[:, source, :, :num_blocks]
        self._cache.values[:, row, :, :num_tokens] = self._cache.values[:, source, :, :num_tokens]

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
        unit = run_layers(
            self._embedding[list(tokens)],
            np.array(rows),
            np.array(positions),
            np.arange(len(tokens)) if wanted is None else np.array(wanted),
            self._weights,
            self._cache,
            self._turn_pairs,
            self._floors,
        )
        return self.head(torch.from_numpy(unit))
