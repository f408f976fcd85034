"""The transformer once more, laid out for generation: prompts are read at once, then a token of every row at a time.

Reads a model's weights and copies them; writes nothing. Matrices that read the same input are one, the weights of the norm before
them are multiplied in, and on a CPU each lies as oneDNN likes it, whose products of a few rows take half the time of those that
torch has MKL make on AMD's processors. Prompts are read end to end without padding: only attention knows where one begins. The
mathematics is `model.transformer`'s, held to it by the tests of generation.

Shapes: as there; N tokens that are read at once, S slots of the cache.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, groupby
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import ModelConfig
from model.transformer import Layer, Transformer, rotary

PASS_TOKENS = 512  # of prompts read at once, about: their activations stay in a processor's cache
BLOCK_TOKENS = 128  # slots that the cache grows by

Product = Callable[[Tensor], Tensor]


class LaidOut(NamedTuple):
    """The weights of a layer."""

    qkv: Product  # [N, D] -> [N, (H + 2J) K]
    qk_norm: Tensor | None  # [H + J, K]; None: queries and keys are not normalized
    out: Product  # [N, H K] -> [N, D]
    gate_up: Product  # [N, D] -> [N, 2F]
    down: Product  # [N, F] -> [N, D]


class Decoder:
    """A model and the rows it has read so far, whose lengths differ.

    Slot s of a row holds the keys and values of the token at position s; slots beyond its length are never looked at.
    """

    def __init__(self, model: Transformer) -> None:
        self.config = config = model.config
        self.embedding = model.model.embed_tokens.weight
        self.layers = [_lay_out(layer, config) for layer in cast(Iterable[Layer], model.model.layers)]
        head = self.embedding if config.tie_embeddings else model.lm_head.weight
        self.head = _after(model.model.norm.weight, head)  # [N, D] -> [N, V]
        self.floor, self.head_floor = (
            torch.tensor(math.sqrt(width * config.norm_eps), device=head.device)
            for width in (config.width, config.head_width)
        )

    def read(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Start with a row of each prompt -> logits [B, V] of what comes next. Equal prompts are read once; none may be empty."""
        distinct = list(dict.fromkeys(map(tuple, prompts)))
        sizes = [len(prompt) for prompt in distinct]
        self.lengths = torch.tensor(sizes, device=self.embedding.device)  # [B]
        self.span = max(sizes)
        shape = (len(self.layers), len(distinct), self.config.num_kv_heads)
        self.keys = self.embedding.new_zeros(*shape, self.config.head_width, 0)  # [L, B, J, K, S]
        self.values = self.embedding.new_zeros(*shape, 0, self.config.head_width)  # [L, B, J, S, K]
        self._grow()
        parts: list[Tensor] = []
        ends = zip(distinct, accumulate(sizes), strict=True)
        for _, group in groupby(ends, lambda prompt_and_end: prompt_and_end[1] // PASS_TOKENS):
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
        H, J = self.config.num_heads, self.config.num_kv_heads
        sizes = [len(prompt) for prompt in prompts]

        def attend(_: int, heads: Tensor) -> Tensor:
            read = []
            for part in torch.split(heads.transpose(0, 1)[None], sizes, 2):
                query, key, value = torch.split(part, [H, J, J], 1)
                y = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=J < H)  # [1, H, T, K]
                read.append(y[0].transpose(0, 1).flatten(1))
            return torch.cat(read)

        device = self.embedding.device
        tokens = torch.tensor([token for prompt in prompts for token in prompt], device=device)
        positions = torch.cat([torch.arange(size, device=device) for size in sizes])
        ends = torch.tensor(sizes, device=device).cumsum(0)
        rows = first_row + torch.searchsorted(ends, torch.arange(len(tokens), device=device), right=True)
        return self._forward(tokens, rows, positions, attend, ends - 1)

    def step(self, tokens: Tensor) -> Tensor:
        """Every row goes on with its token of [B] -> logits [B, V] of what comes next."""
        B, H, J, K = len(tokens), self.config.num_heads, self.config.num_kv_heads, self.config.head_width
        positions, self.lengths, self.span = self.lengths, self.lengths + 1, self.span + 1
        self._grow()
        is_later = torch.arange(self.span, device=tokens.device) > positions.repeat_interleave(J)[:, None, None]
        mask = torch.zeros(is_later.shape, dtype=self.keys.dtype, device=tokens.device)
        mask.masked_fill_(is_later, float("-inf"))

        def attend(layer: int, heads: Tensor) -> Tensor:
            query = heads[:, :H].reshape(B * J, H // J, K)
            scores = torch.baddbmm(mask, query, self.keys[layer].flatten(0, 1)[..., : self.span], alpha=K**-0.5)
            return torch.bmm(scores.softmax(-1), self.values[layer].flatten(0, 1)[:, : self.span]).view(B, H * K)

        return self._forward(tokens, torch.arange(B, device=tokens.device), positions, attend)

    def select(self, rows: Tensor) -> None:
        """Keep rows [N] in this order; a row may be taken several times (to branch) or never (to leave)."""
        self.keys, self.values = (part.index_select(1, rows) for part in (self.keys, self.values))
        self.lengths = self.lengths[rows]
        self.span = int(self.lengths.max())

    def _grow(self) -> None:
        """Make room for `span` tokens a row."""
        num_slots = self.keys.shape[-1]
        if self.span > num_slots:
            room = math.ceil(self.span / BLOCK_TOKENS) * BLOCK_TOKENS
            self.keys = F.pad(self.keys, (0, room - num_slots))
            self.values = F.pad(self.values, (0, 0, 0, room - num_slots))
            cos, sin = rotary(torch.arange(room, device=self.embedding.device)[None], self.config)
            cos, sin = cos.to(self.embedding.dtype), sin.to(self.embedding.dtype)
            sin[..., : sin.shape[-1] // 2].neg_()
            self.cos, self.sin = cos.view(room, 1, -1), sin.view(room, 1, -1)  # [S, 1, K]

    def _forward(
        self,
        tokens: Tensor,
        rows: Tensor,
        positions: Tensor,
        attend: Callable[[int, Tensor], Tensor],
        wanted: Tensor | slice = slice(None),
    ) -> Tensor:
        """Tokens [N] at positions [N] of rows [N] -> logits after the wanted ones.

        attend: number of a layer; queries, keys and values [N, H + 2J, K] -> what the heads read [N, H K].
        """
        H, J, K = self.config.num_heads, self.config.num_kv_heads, self.config.head_width
        x = F.embedding(tokens, self.embedding)
        cos, sin = self.cos[positions], self.sin[positions]
        for number, layer in enumerate(self.layers):
            heads = layer.qkv(_unit(x, self.floor)).view(len(x), H + 2 * J, K)
            qk = heads[:, : H + J]
            turned = qk if layer.qk_norm is None else _unit(qk, self.head_floor) * layer.qk_norm
            torch.addcmul(turned * cos, turned.roll(K // 2, -1), sin, out=qk)
            self.keys[number][rows, :, :, positions] = heads[:, H : H + J]
            self.values[number][rows, :, positions] = heads[:, H + J :]
            y = attend(number, heads)
            if number + 1 == len(self.layers):
                x, y = x[wanted], y[wanted]
            x += layer.out(y)
            gate, up = layer.gate_up(_unit(x, self.floor)).chunk(2, -1)
            x += layer.down(F.silu(gate).mul_(up))
        return self.head(_unit(x, self.floor))


def _unit(x: Tensor, floor: Tensor) -> Tensor:
    """x [..., width] over its length, in which `floor` counts as one channel more: RMSNorm without its weights over sqrt(width)."""
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return (x / length.hypot_(floor)).to(x.dtype)


def _after(norm: Tensor, *matrices: Tensor) -> Product:
    """The product with matrices [.., D] that read what a norm with weights [D] gives: it reads what `_unit` gives."""
    return _product(torch.cat(matrices) * (norm * math.sqrt(len(norm))))


def _product(matrix: Tensor) -> Product:
    """x [N, I] -> x @ matrix.T for a matrix [O, I]."""
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if matrix.device.type != "cpu" or matrix.dtype != torch.float32 or not has_onednn:
        return matrix.detach().t().contiguous().__rmatmul__
    packed = torch.ops.mkldnn._reorder_linear_weight(matrix.detach(), PASS_TOKENS)
    multiply = torch.ops.mkldnn._linear_pointwise.default
    return lambda x: cast(Tensor, multiply(x, packed, None, "none", [], ""))


def _lay_out(layer: Layer, config: ModelConfig) -> LaidOut:
    attention, mlp = layer.self_attn, layer.mlp
    qk_norm = None
    if config.normalize_qk:
        norms = (attention.q_norm, config.num_heads), (attention.k_norm, config.num_kv_heads)
        weights = [norm.get_parameter("weight").expand(num_heads, -1) for norm, num_heads in norms]
        qk_norm = torch.cat(weights) * math.sqrt(config.head_width)
    qkv = (attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight)
    return LaidOut(
        _after(layer.input_layernorm.weight, *qkv),
        qk_norm,
        _product(attention.o_proj.weight),
        _after(layer.post_attention_layernorm.weight, mlp.gate_proj.weight, mlp.up_proj.weight),
        _product(mlp.down_proj.weight),
    )
