"""The transformer once more, laid out for generation: prompts are read at once, then a token of every row at a time.

Reads a model's weights and copies them; writes nothing. Matrices that read the same input are one, the weights of the norm before
them are multiplied in, and each lies transposed, as the products of a few rows like it on a CPU. Prompts are read end to end
without padding: only attention knows where one begins. The mathematics is `model.transformer`'s, held to it by the tests of
generation.

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
BLOCK_TOKENS = 64  # slots that the cache grows by


class LaidOut(NamedTuple):
    """The weights of a layer."""

    qkv: Tensor  # [D, (H + 2J) K]
    qk_norm: Tensor | None  # [H + J, K]; None: queries and keys are not normalized
    out: Tensor  # [H K, D]
    gate_up: Tensor  # [D, 2F]
    down: Tensor  # [F, D]


class Decoder:
    """A model and the rows it has read so far, whose lengths differ.

    Slot s of a row holds the keys and values of the token at position s; slots beyond its length are never looked at.
    """

    def __init__(self, model: Transformer) -> None:
        self.config = config = model.config
        self.embedding = model.model.embed_tokens.weight
        self.layers = [_lay_out(layer, config) for layer in cast(Iterable[Layer], model.model.layers)]
        head = self.embedding if config.tie_embeddings else model.lm_head.weight
        self.head = _after(model.model.norm.weight, head)  # [D, V]
        self.floor, self.head_floor = (
            torch.tensor(math.sqrt(width * config.norm_eps), device=head.device)
            for width in (config.width, config.head_width)
        )

    def read(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Start with a row of each prompt -> logits [B, V] of what comes next. Equal prompts are read once; none may be empty."""
        distinct = list(dict.fromkeys(map(tuple, prompts)))
        sizes = [len(prompt) for prompt in distinct]
        self.lengths = torch.tensor(sizes, device=self.head.device)  # [B]
        self.span = max(sizes)
        shape = (len(self.layers), 2, len(distinct), self.config.num_kv_heads, 0, self.config.head_width)
        self.cache = self.head.new_zeros(shape)  # [L, 2, B, J, S, K], keys and values
        self._grow()
        parts: list[Tensor] = []
        ends = zip(distinct, accumulate(sizes), strict=True)
        for _, group in groupby(ends, lambda prompt_and_end: prompt_and_end[1] // PASS_TOKENS):
            parts.append(self._read([prompt for prompt, _ in group], sum(map(len, parts))))
        logits = torch.cat(parts)
        if len(distinct) == len(prompts):
            return logits
        places = {prompt: place for place, prompt in enumerate(distinct)}
        rows = torch.tensor([places[tuple(prompt)] for prompt in prompts], device=self.head.device)
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

        device = self.head.device
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
        mask = torch.zeros(is_later.shape, dtype=self.cache.dtype, device=tokens.device)
        mask.masked_fill_(is_later, float("-inf"))

        def attend(layer: int, heads: Tensor) -> Tensor:
            keys, values = self.cache[layer].flatten(1, 2)[:, :, : self.span]
            query = heads[:, :H].reshape(B * J, H // J, K)
            scores = torch.baddbmm(mask, query, keys.transpose(1, 2), alpha=K**-0.5)
            return torch.bmm(scores.softmax(-1), values).view(B, H * K)

        return self._forward(tokens, torch.arange(B, device=tokens.device), positions, attend)

    def select(self, rows: Tensor) -> None:
        """Keep rows [N] in this order; a row may be taken several times (to branch) or never (to leave)."""
        self.cache, self.lengths = self.cache.index_select(2, rows), self.lengths[rows]
        self.span = int(self.lengths.max())

    def _grow(self) -> None:
        """Make room for `span` tokens a row."""
        num_slots = self.cache.shape[4]
        if self.span > num_slots:
            room = math.ceil(self.span / BLOCK_TOKENS) * BLOCK_TOKENS
            self.cache = F.pad(self.cache, (0, 0, 0, room - num_slots))
            cos, sin = rotary(torch.arange(room, device=self.head.device)[None], self.config)
            cos, sin = cos.to(self.head.dtype), sin.to(self.head.dtype)
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
            heads = (_unit(x, self.floor) @ layer.qkv).view(len(x), H + 2 * J, K)
            qk = heads[:, : H + J]
            turned = qk if layer.qk_norm is None else _unit(qk, self.head_floor) * layer.qk_norm
            torch.addcmul(turned * cos, turned.roll(K // 2, -1), sin, out=qk)
            self.cache[number][:, rows, :, positions] = heads[:, H:].view(len(x), 2, J, K)
            y = attend(number, heads)
            if number + 1 == len(self.layers):
                x, y = x[wanted], y[wanted]
            x.addmm_(y, layer.out)
            gate, up = (_unit(x, self.floor) @ layer.gate_up).chunk(2, -1)
            x.addmm_(F.silu(gate).mul_(up), layer.down)
        return _unit(x, self.floor) @ self.head


def _unit(x: Tensor, floor: Tensor) -> Tensor:
    """x [..., width] over its length, in which `floor` counts as one channel more: RMSNorm without its weights over sqrt(width)."""
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return (x / length.hypot_(floor)).to(x.dtype)


def _after(norm: Tensor, *matrices: Tensor) -> Tensor:
    """Matrices [.., D] that read what a norm with weights [D] gives -> one [D, ...] that reads `_unit`."""
    return (torch.cat(matrices) * (norm * math.sqrt(len(norm)))).t().contiguous()


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
        attention.o_proj.weight.t().contiguous(),
        _after(layer.post_attention_layernorm.weight, mlp.gate_proj.weight, mlp.up_proj.weight),
        mlp.down_proj.weight.t().contiguous(),
    )
