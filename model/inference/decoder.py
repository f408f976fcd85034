"""The transformer once more, laid out for generation: prompts are read at once, then a token of every row at a time.

Reads a model's weights and copies them; writes nothing. Matrices that read the same input are one, the weights of the norm before
them are multiplied in, and channels that are turned together lie side by side, as complex numbers. On a CPU two things keep clear
of MKL, which on AMD's processors is slow: matrices lie as oneDNN likes them, and attention of one token a row is two bags of
embeddings, which FBGEMM sums as fast as memory gives the cache away. Prompts are read end to end without padding: only attention
knows where one begins. The mathematics is `model.transformer`'s, held to it by the tests of generation.

Shapes: as there; N tokens that are read at once, S slots of the cache.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import accumulate, groupby
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import ModelConfig
from model.network.transformer import Layer, Transformer, rotary

PASS_TOKENS = 1024  # of prompts read at once, about: their activations stay in a processor's cache
BLOCK_TOKENS = 32  # the cache has a multiple of this of slots
SPARE = 1 / 8  # of the slots that are needed: growing copies the cache

Product = Callable[[Tensor], Tensor]
Sums = Callable[[Tensor, Tensor], Tensor]  # of rows: weights [B, H, I], tables [B, J, I, O] -> a view of [B, H, O]


class FusedLayer(NamedTuple):
    """The weights of a layer."""

    qkv: Product  # [N, D] -> [N, (H + 2J) K], the queries over sqrt(K)
    qk_norm: Tensor | None  # [H + J, K]; None: queries and keys are not normalized
    out: Product  # [N, H K] -> [N, D]
    gate_up: Product  # [N, D] -> [N, 2F]
    down: Product  # [N, F] -> [N, D]


class Decoder:
    """A model's weights, for as long as they are not trained on, and the rows it has read so far, whose lengths differ.

    Slot s of a row holds the keys and values of the token at position s; slots beyond its length are never looked at.
    """

    @torch.no_grad()
    def __init__(self, model: Transformer) -> None:
        self.config = config = model.config
        self.embedding = model.model.embed_tokens.weight.detach()
        self.is_half = self.embedding.dtype != torch.float32
        self.layers = [_fuse_layer(layer, config) for layer in cast(Iterable[Layer], model.model.layers)]
        head = self.embedding if config.tie_embeddings else model.lm_head.weight
        self.head = _after(model.model.norm.weight, head)  # [N, D] -> [N, V]
        self.floor, self.head_floor = (
            torch.tensor(math.sqrt(width * config.norm_eps), device=head.device)
            for width in (config.width, config.head_width)
        )
        self.keys = [self.embedding.new_zeros(0) for _ in self.layers]  # [B, J, K, S] of each layer
        self.values = [self.embedding.new_zeros(0) for _ in self.layers]  # [B, J, S, K]

    def read(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Start with a row of each prompt -> logits [B, V] of what comes next. Equal prompts are read once; none may be empty."""
        distinct = list(dict.fromkeys(map(tuple, prompts)))
        sizes = [len(prompt) for prompt in distinct]
        self.lengths = torch.tensor(sizes, device=self.embedding.device)  # [B]
        self.span = max(sizes)
        self._make_room()
        J, K, S = self.config.num_kv_heads, self.config.head_width, self.num_slots
        for keys, values in zip(self.keys, self.values, strict=True):
            # resized they stay in the memory that they have, where it is enough
            keys.resize_(len(distinct), J, K, S).zero_()
            values.resize_(len(distinct), J, S, K).zero_()
        pass_tokens = sum(sizes) / max(1, round(sum(sizes) / PASS_TOKENS))
        parts: list[Tensor] = []
        ends = zip(distinct, accumulate(sizes), strict=True)
        for _, group in groupby(ends, lambda prompt_and_end: (prompt_and_end[1] - 1) // pass_tokens):
            parts.append(self._read([prompt for prompt, _ in group], sum(map(len, parts))))
        logits = torch.cat(parts)
        if len(distinct) == len(prompts):
            return logits
        places = {prompt: place for place, prompt in enumerate(distinct)}
        rows = torch.tensor([places[tuple(prompt)] for prompt in prompts], device=self.embedding.device)
        self.select(rows)
        return logits[rows]

    def _read(self, prompts: Sequence[tuple[int, ...]], first_row: int) -> Tensor:
        """Prompts of rows from `first_row` on, end to end -> logits [len(prompts), V]."""
        is_grouped = self.config.num_kv_heads < self.config.num_heads
        sizes = [len(prompt) for prompt in prompts]

        def attend(_: int, *heads: Tensor) -> Tensor:
            parts = (part.transpose(0, 1)[None].split_with_sizes(sizes, 2) for part in heads)  # [1, H or J, T, K]
            read = [
                F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=1.0, enable_gqa=is_grouped)
                for query, key, value in zip(*parts, strict=True)
            ]
            return torch.cat(read, 2)[0].transpose(0, 1).flatten(1)

        device = self.embedding.device
        tokens = torch.tensor([token for prompt in prompts for token in prompt], device=device)
        positions = torch.cat([torch.arange(size, device=device) for size in sizes])
        ends = torch.tensor(sizes, device=device).cumsum(0)
        rows = first_row + torch.searchsorted(ends, torch.arange(len(tokens), device=device), right=True)
        return self._forward(tokens, rows, positions, attend, ends - 1)

    def step(self, tokens: Tensor) -> Tensor:
        """Every row goes on with its token of [B] -> logits [B, V] of what comes next."""
        positions, self.lengths, self.span = self.lengths, self.lengths + 1, self.span + 1
        if self.span > self.num_slots:
            self._grow()
        B, S = len(tokens), self.num_slots
        H, J, K = self.config.num_heads, self.config.num_kv_heads, self.config.head_width
        is_later = self.slots > positions[:, None, None]
        mask = self.embedding.new_zeros(is_later.shape).masked_fill_(is_later, float("-inf"))  # [B, 1, S]
        sums_of_keys, sums_of_values = (_sums(B * J, H // J, num_rows, tokens.device) for num_rows in (K, S))

        def attend(number: int, query: Tensor, *_: Tensor) -> Tensor:
            scores = sums_of_keys(query, self.keys[number]).view(B, H, S).add_(mask)
            return sums_of_values(scores.softmax(-1), self.values[number]).view(B, H * K)

        return self._forward(tokens, torch.arange(B, device=tokens.device), positions, attend)

    def select(self, rows: Tensor) -> None:
        """Keep rows [N] in this order; a row may be taken several times (to branch) or never (to leave)."""
        for parts in self.keys, self.values:
            for number, part in enumerate(parts):
                parts[number] = part.index_select(0, rows)
        self.lengths = self.lengths[rows]
        self.span = int(self.lengths.max())

    def _grow(self) -> None:
        num_slots = self.num_slots
        self._make_room()
        more = self.num_slots - num_slots
        for number, (keys, values) in enumerate(zip(self.keys, self.values, strict=True)):
            self.keys[number], self.values[number] = F.pad(keys, (0, more)), F.pad(values, (0, 0, 0, more))

    def _make_room(self) -> None:
        """Decide on `num_slots`, enough for `span` tokens."""
        self.num_slots = math.ceil(self.span * (1 + SPARE) / BLOCK_TOKENS) * BLOCK_TOKENS
        self.slots = torch.arange(self.num_slots, device=self.embedding.device)
        cos, sin = rotary(self.slots[None], self.config)
        self.turns = torch.complex(cos, sin)[0, 0, :, None, : self.config.head_width // 2]  # [S, 1, K/2]

    def _forward(
        self,
        tokens: Tensor,
        rows: Tensor,
        positions: Tensor,
        attend: Callable[[int, Tensor, Tensor, Tensor], Tensor],
        wanted: Tensor | slice = slice(None),
    ) -> Tensor:
        """Tokens [N] at positions [N] of rows [N] -> logits after the wanted ones. Half precision is for products and the cache.

        attend: number of a layer; queries [N, H, K], keys and values [N, J, K] -> what the heads read [N, H K].
        """
        H, J, K = self.config.num_heads, self.config.num_kv_heads, self.config.head_width
        x = F.embedding(tokens, self.embedding).float()
        turns, slots = self.turns[positions], (rows, positions)
        for number, layer in enumerate(self.layers):
            heads = layer.qkv(_unit(x, self.floor)).view(len(x), H + 2 * J, K)
            qk, value = heads[:, : H + J], heads[:, H + J :]
            if layer.qk_norm is not None:
                qk = _unit(qk, self.head_floor) * layer.qk_norm
            qk = _turn(qk, turns)
            if self.is_half:
                qk, value = qk.to(self.embedding.dtype), value.to(self.embedding.dtype)
            query, key = qk[:, :H], qk[:, H:]
            self.keys[number].permute(0, 3, 1, 2).index_put_(slots, key)
            self.values[number].transpose(1, 2).index_put_(slots, value)
            y = attend(number, query, key, value)
            if number + 1 == len(self.layers):
                x, y = x[wanted], y[wanted]
            x += layer.out(y)
            gate, up = layer.gate_up(_unit(x, self.floor)).chunk(2, -1)
            x += layer.down(F.silu(gate).mul_(up))
        return self.head(_unit(x, self.floor))


def _unit(x: Tensor, floor: Tensor) -> Tensor:
    """x [..., width] over its length, in which `floor` counts as one channel more: RMSNorm without its weights over sqrt(width)."""
    length: Tensor = torch.linalg.vector_norm(x, 2, -1, True)
    return x / length.hypot_(floor)


def _turn(x: Tensor, turns: Tensor) -> Tensor:
    """Channels 2k and 2k + 1 of x [N, heads, K] are a complex number that turns [N, 1, K/2] turn."""
    N, heads, K = x.shape
    turned = torch.view_as_complex(x.view(N, heads, K // 2, 2)) * turns
    return torch.view_as_real(turned).view(N, heads, K)


def _sums(num_tables: int, num_readers: int, num_rows: int, device: torch.device) -> Sums:
    """What sums the rows of tables by the weights of their readers: so many tables, readers of each, and rows of each."""
    if device.type != "cpu" or not _has_fbgemm():
        return lambda weights, tables: torch.bmm(
            weights.reshape(num_tables, num_readers, num_rows), tables.flatten(0, 1)
        )
    rows, bags = _bags(num_tables, num_readers, num_rows)
    return lambda weights, tables: torch.embedding_bag(
        tables.flatten(0, 2), rows, bags, False, 0, False, weights.flatten()
    )[0]


@lru_cache(maxsize=4)
def _bags(num_tables: int, num_readers: int, num_rows: int) -> tuple[Tensor, Tensor]:
    """The rows of all tables that each reader's bag is of, end to end; where each bag begins."""
    tables = torch.arange(num_tables).repeat_interleave(num_readers)
    rows = tables[:, None] * num_rows + torch.arange(num_rows)
    return rows.flatten(), torch.arange(0, rows.numel(), num_rows)


def _has_fbgemm() -> bool:
    return "fbgemm" in torch.backends.quantized.supported_engines


def _after(norm: Tensor, *matrices: Tensor) -> Product:
    """The product with matrices [.., D] that read what a norm with weights [D] gives: it reads what `_unit` gives."""
    return _product(torch.cat(matrices) * (norm * math.sqrt(len(norm))))


def _product(matrix: Tensor) -> Product:
    """x [N, I] -> x @ matrix.T in float32 for a matrix [O, I]."""
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if matrix.device.type != "cpu" or matrix.dtype != torch.float32 or not has_onednn:
        laid_out = matrix.t().contiguous()
        return lambda x: (x.to(laid_out.dtype) @ laid_out).float()
    packed = torch.ops.mkldnn._reorder_linear_weight(matrix, PASS_TOKENS)
    multiply = torch.ops.mkldnn._linear_pointwise.default
    return lambda x: cast(Tensor, multiply(x, packed, None, "none", [], ""))


def _fuse_layer(layer: Layer, config: ModelConfig) -> FusedLayer:
    attention, mlp, K = layer.self_attn, layer.mlp, config.head_width
    query, key = (_paired(part.weight, K) for part in (attention.q_proj, attention.k_proj))
    qk_norm = None
    if config.normalize_qk:  # times sqrt(K), the queries over it
        query_norm, key_norm = (
            _paired(norm.get_parameter("weight"), K) for norm in (attention.q_norm, attention.k_norm)
        )
        heads = query_norm.expand(config.num_heads, -1), (key_norm * math.sqrt(K)).expand(config.num_kv_heads, -1)
        qk_norm = torch.cat(heads)
    else:
        query = query / math.sqrt(K)
    return FusedLayer(
        _after(layer.input_layernorm.weight, query, key, attention.v_proj.weight),
        qk_norm,
        _product(attention.o_proj.weight),
        _after(layer.post_attention_layernorm.weight, mlp.gate_proj.weight, mlp.up_proj.weight),
        _product(mlp.down_proj.weight),
    )


def _paired(weights: Tensor, head_width: int) -> Tensor:
    """Weights [heads K, ..] in which channel k of a head is followed by channel k + K/2, with which it is turned."""
    return weights.view(-1, 2, head_width // 2, *weights.shape[1:]).transpose(1, 2).reshape(weights.shape)
