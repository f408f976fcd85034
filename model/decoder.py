"""The transformer once more, laid out for one token a row: what generation spends its time in.

Reads a model's weights and copies them; writes nothing. Matrices that read the same input are one, and each lies transposed, as
the products of a few rows like it on a CPU. The mathematics is `model.transformer`'s, held to it by the tests of generation.

Shapes: as there; every row reads a single token, so T is 1.
"""

from collections.abc import Iterable
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import ModelConfig
from model.transformer import Context, KVCache, Layer, Transformer, rotate


class LaidOut(NamedTuple):
    """The weights of a layer."""

    attention_norm: Tensor  # [D]
    qkv: Tensor  # [D, (H + 2J) K]
    qk_norm: Tensor | None  # [H + J, 1, K]; None: queries and keys are not normalized
    out: Tensor  # [H K, D]
    feed_forward_norm: Tensor  # [D]
    gate_up: Tensor  # [D, 2F]
    down: Tensor  # [F, D]


class Decoder:
    """Reads one more token of each row."""

    def __init__(self, model: Transformer) -> None:
        self.model = model
        self.layers = [_lay_out(layer, model.config) for layer in cast(Iterable[Layer], model.model.layers)]

    def __call__(self, tokens: Tensor, cache: KVCache, positions: Tensor) -> Tensor:
        """Tokens [B] at positions [B] of their rows -> logits [B, V] of what comes next."""
        backbone = self.model.model
        context = backbone.context(tokens[:, None], cache, positions[:, None])
        x: Tensor = backbone.embed_tokens(tokens)
        for number, layer in enumerate(self.layers):
            x = torch.addmm(x, self._attend(x, number, layer, context), layer.out)
            normalized = F.rms_norm(x, x.shape[-1:], layer.feed_forward_norm, backbone.config.norm_eps)
            gate, up = (normalized @ layer.gate_up).chunk(2, -1)
            x = torch.addmm(x, F.silu(gate) * up, layer.down)
        return self.model.head(backbone.norm(x))

    def _attend(self, x: Tensor, number: int, layer: LaidOut, context: Context) -> Tensor:
        """x [B, D] -> what the heads have read [B, H K]."""
        config = self.model.config
        H, J, K = config.num_heads, config.num_kv_heads, config.head_width
        normalized = F.rms_norm(x, x.shape[-1:], layer.attention_norm, config.norm_eps)
        heads = (normalized @ layer.qkv).view(len(x), H + 2 * J, 1, K)
        qk, value = heads[:, : H + J], heads[:, H + J :]
        if layer.qk_norm is not None:
            qk = F.rms_norm(qk, (K,), eps=config.norm_eps) * layer.qk_norm
        qk = rotate(qk, context.cos, context.sin)
        query, key = qk[:, :H], qk[:, H:]
        keys, values = context.store(number, key, value)
        y = F.scaled_dot_product_attention(query, keys, values, attn_mask=context.mask, enable_gqa=J < H)
        return y.reshape(len(x), H * K)


def _lay_out(layer: Layer, config: ModelConfig) -> LaidOut:
    attention, mlp = layer.self_attn, layer.mlp
    qk_norm = None
    if config.normalize_qk:
        norms = (attention.q_norm, config.num_heads), (attention.k_norm, config.num_kv_heads)
        qk_norm = torch.cat([norm.get_parameter("weight").expand(num_heads, 1, -1) for norm, num_heads in norms])
    return LaidOut(
        layer.input_layernorm.weight,
        torch.cat([part.weight for part in (attention.q_proj, attention.k_proj, attention.v_proj)]).t().contiguous(),
        qk_norm,
        attention.o_proj.weight.t().contiguous(),
        layer.post_attention_layernorm.weight,
        torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]).t().contiguous(),
        mlp.down_proj.weight.t().contiguous(),
    )
