"""The KV cache of a server: a fixed number of rows, each of which a request takes when it joins and leaves when it has ended.

Reads a model's weights; writes nothing. Rows join and leave between steps (continuous batching; Yu et al. 2022, Orca,
https://www.usenix.org/conference/osdi22/presentation/yu). A step computes the rows that it is given, wherever they lie, so nothing moves when one
leaves. What a row has read stays in it, and a prompt that begins alike copies those keys and values instead of computing
them. vLLM shares pages of a pool instead (Kwon et al. 2023, https://arxiv.org/abs/2309.06180): a copy costs far less than reading the
tokens, and dense rows keep the kernels of model/inference/cpu_kernels.py.

Shapes: as in model/inference/cpu_kernels.py; R rows of the cache, B of them in a step.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from model.inference.cpu_kernels import CPUDecoder, MakeProduct, missing_kernels
from model.inference.decoder import BLOCK_TOKENS, Decoder
from model.network.transformer import Transformer

SHRINK = 4  # the cache is made smaller when it is so many times larger than the rows in use need: a step computes on spare slots too


class Part(NamedTuple):
    """Tokens of a prompt that a row reads next, from position `start` on. `wants_all`: logits after each, not only after the last."""

    row: int
    start: int
    tokens: Sequence[int]
    wants_all: bool = False


class Slots(Protocol):
    """Rows of a KV cache. `vocab_size`: V."""

    num_rows: int
    num_slots: int
    max_tokens: int

    def fit(self, span: int) -> int:
        """Make room for `span` tokens a row, or give memory back. Returns the number of slots: what rows held beyond them is lost."""

    def copy(self, source: int, row: int, num_tokens: int) -> None:
        """Let a row begin with the first tokens of another."""

    def extend(self, parts: Sequence[Part]) -> Tensor:
        """Append tokens to rows -> logits [N, V] after the last token of each part, or after each token where all are wanted."""

    def advance(self, tokens: Sequence[int], rows: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Append a token to B rows at their positions -> logits [B, V]."""


def make_slots(model: Transformer, num_rows: int, max_tokens: int) -> Slots:
    """The fastest cache for the model's device."""
    from model.serve.small_slots import SmallSlots, is_small

    weight = model.model.embed_tokens.weight
    if weight.device.type != "cpu" or missing_kernels():
        return PlainSlots(model, num_rows, max_tokens)
    if not is_small(model):
        return CPUSlots(model, num_rows, max_tokens)
    try:
        from model.serve.compiled_slots import CompiledSlots, fits
    except (ImportError, RuntimeError):  # numba is missing, or has no folder for what it compiles
        return SmallSlots(model, num_rows, max_tokens)
    kind = CompiledSlots if fits(model.config, num_rows, max_tokens) else SmallSlots
    return kind(model, num_rows, max_tokens)


def slots_needed(span: int, max_tokens: int) -> int:
    """Slots for `span` tokens, with an eighth to spare, a multiple of BLOCK_TOKENS."""
    return math.ceil(min(span * 9 / 8, max_tokens) / BLOCK_TOKENS) * BLOCK_TOKENS


class CPUSlots(CPUDecoder):
    """Rows for the kernels of CPUDecoder: keys [R, J, K, S] and values [R, J, S, K] of each layer."""

    def __init__(
        self, model: Transformer, num_rows: int, max_tokens: int, make_product: MakeProduct | None = None
    ) -> None:
        super().__init__(model, make_product)
        self.num_rows, self.max_tokens = num_rows, max_tokens
        self.span = 1
        self._allocate(num_rows)
        self._rows: tuple[int, ...] = ()

    def _slots_needed(self) -> int:
        return slots_needed(self.span, self.max_tokens)

    def fit(self, span: int) -> int:
        """See Slots."""
        self.span, needed = span, slots_needed(span, self.max_tokens)
        if needed > self.num_slots:
            self._grow()
        elif needed * SHRINK <= self.num_slots:
            # clone: a view would keep the large cache alive.
            self.keys = [keys[..., :needed].clone() for keys in self.keys]
            self.values = [values[:, :, :needed].clone() for values in self.values]
            self.num_slots = needed
            self._make_turns()
        else:
            return self.num_slots
        self._rows = ()  # the indices of the bags depend on the number of slots
        return self.num_slots

    def copy(self, source: int, row: int, num_tokens: int) -> None:
        """See Slots."""
        for keys, values in zip(self.keys, self.values, strict=True):
            keys[row, :, :, :num_tokens] = keys[source, :, :, :num_tokens]
            values[row, :, :num_tokens] = values[source, :, :num_tokens]

    def extend(self, parts: Sequence[Part]) -> Tensor:
        """See Slots. The parts are read end to end, without padding."""
        sizes = [len(part.tokens) for part in parts]

        def attend(number: int, *heads: Tensor) -> Tensor:
            queries, keys, values = (part.transpose(0, 1)[None].split_with_sizes(sizes, 2) for part in heads)
            read = [self._attend(number, part, *qkv) for part, *qkv in zip(parts, queries, keys, values, strict=True)]
            return torch.cat(read, 2)[0].transpose(0, 1).flatten(1)

        tokens = torch.tensor([token for part in parts for token in part.tokens])
        positions = torch.cat([torch.arange(part.start, part.start + len(part.tokens)) for part in parts])
        rows = torch.tensor([part.row for part in parts]).repeat_interleave(torch.tensor(sizes))
        ends = torch.tensor(sizes).cumsum(0).tolist()
        wanted = [
            place
            for part, end in zip(parts, ends, strict=True)
            for place in range(end - len(part.tokens) if part.wants_all else end - 1, end)
        ]
        return self._fused_forward(tokens, rows, positions, attend, torch.tensor(wanted))

    def _attend(self, number: int, part: Part, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention of a part's queries [1, H, T, K] over what its row holds and the part itself."""
        is_grouped = self.config.num_kv_heads < self.config.num_heads
        mask = None
        if part.start:
            # The new keys are in the cache already. Query t of the part sees slots up to its own.
            end = part.start + len(part.tokens)
            key = self.keys[number][part.row, :, :, :end].transpose(1, 2)[None]
            value = self.values[number][part.row, :, :end][None]
            mask = self.slots[:end] <= self.slots[part.start : end, None]
        # scale=1.0: the queries have been divided by sqrt(K) already.
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=1.0, enable_gqa=is_grouped
        )

    def advance(self, tokens: Sequence[int], rows: Sequence[int], positions: Sequence[int]) -> Tensor:
        """See Slots."""
        B, S = len(tokens), self.num_slots
        H, K = self.config.num_heads, self.config.head_width
        if tuple(rows) != self._rows:
            self._make_bags(rows)
        places = torch.tensor(positions)
        is_later = self.slots > places[:, None, None]
        mask = self.embedding.new_zeros(is_later.shape).masked_fill_(is_later, float("-inf"))  # [B, 1, S]

        def attend(number: int, query: Tensor, *_: Tensor) -> Tensor:
            scores = _weighted_sums(self.keys[number], *self._key_bags, query).view(B, H, S).add_(mask)
            return _weighted_sums(self.values[number], *self._value_bags, scores.softmax(-1)).view(B, H * K)

        return self._fused_forward(torch.tensor(tokens), self._row_numbers, places, attend)

    def _make_bags(self, rows: Sequence[int]) -> None:
        """The rows of the tables that each head of each row sums. They change only when a row joins or leaves, or the cache grows."""
        J, G = self.config.num_kv_heads, self.config.num_heads // self.config.num_kv_heads
        self._rows, self._row_numbers = tuple(rows), torch.tensor(rows)
        tables = (self._row_numbers[:, None] * J + torch.arange(J)).flatten().repeat_interleave(G)[:, None]
        self._key_bags, self._value_bags = (
            ((tables * size + torch.arange(size)).flatten(), torch.arange(0, len(tables) * size, size))
            for size in (self.config.head_width, self.num_slots)
        )


def _weighted_sums(tables: Tensor, rows: Tensor, bags: Tensor, weights: Tensor) -> Tensor:
    """Sums of rows of tables [R, J, I, O] with weights [B, H, I] -> [B H, O]. By position, see model/inference/cpu_kernels.py."""
    return torch.embedding_bag(tables.flatten(0, 2), rows, bags, False, 0, False, weights.flatten())[0]


class PlainSlots(Decoder):
    """The same with plain operators, for every device. Keys and values are [R, J, S, K]."""

    def __init__(self, model: Transformer, num_rows: int, max_tokens: int) -> None:
        super().__init__(model)
        self.num_rows, self.max_tokens = num_rows, max_tokens
        self.span = 1
        self._allocate(num_rows)

    def _slots_needed(self) -> int:
        return slots_needed(self.span, self.max_tokens)

    def fit(self, span: int) -> int:
        """See Slots."""
        self.span, needed = span, slots_needed(span, self.max_tokens)
        if needed > self.num_slots:
            self._grow()
        elif needed * SHRINK <= self.num_slots:
            for parts in self.keys, self.values:
                parts[:] = [part[:, :, :needed].clone() for part in parts]
            self.num_slots = needed
        return self.num_slots

    def copy(self, source: int, row: int, num_tokens: int) -> None:
        """See Slots."""
        for part in (*self.keys, *self.values):
            part[row, :, :num_tokens] = part[source, :, :num_tokens]

    def extend(self, parts: Sequence[Part]) -> Tensor:
        """See Slots. Part by part: padding them to one length would compute more than it saves."""
        device = self.embedding.device
        found: list[Tensor] = []
        for part in parts:
            size = len(part.tokens)
            self.span = part.start + size
            positions = torch.arange(part.start, self.span, device=device)[None]
            wanted = torch.arange(0 if part.wants_all else size - 1, size, device=device)
            tokens, row = torch.tensor([list(part.tokens)], device=device), torch.tensor([part.row], device=device)
            found.append(self._forward(tokens, positions, wanted[None], row)[0])
        return torch.cat(found)

    def advance(self, tokens: Sequence[int], rows: Sequence[int], positions: Sequence[int]) -> Tensor:
        """See Slots."""
        device = self.embedding.device
        self.span = max(positions) + 1
        places = torch.tensor(positions, device=device)
        first = torch.zeros_like(places)
        return self._forward(
            torch.tensor(tokens, device=device)[:, None], places[:, None], first, torch.tensor(rows, device=device)
        )
