"""The decoder in a layout that is fast on CPUs. Optional: without it, generation uses the plain decoder, with the same tokens.

Reads a model's weights and copies them; writes nothing. What makes it faster (torch 2.13):

- Linear layers with the same input are one matrix, with the weights of the norm before them multiplied in. The matrices are packed for oneDNN
  once. MKL, which torch uses otherwise, is slow on AMD's processors.
- Attention of one token per row is two embedding bags, that is, weighted sums of rows of the cache. FBGEMM computes them as fast as the
  memory delivers the cache.
- Prompts are read end to end without padding, about PASS_TOKENS at once, so that their activations stay in the processor's cache.
- Channels that are rotated together are neighbours, so that a rotation is one product of complex numbers.

Where the packed products (model/network/products.py) or FBGEMM are missing, or give other results than the plain operators, `make_decoder`
logs a warning and falls back.
With one thread and 32 rows, the plain decoder generates 0.7 times as many tokens per second with the tiny recipe's model.

Shapes: as in model/inference/decoder.py; N tokens that are read at once.
"""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import accumulate, groupby
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import ModelConfig
from model.inference.decoder import Decoder
from model.network.products import PASS_TOKENS, Product, missing_products, packed_product
from model.network.transformer import Layer, Transformer, rotary

logger = logging.getLogger(__name__)

MakeProduct = Callable[[Tensor], Product]  # of a matrix [O, I]
WeightedSums = Callable[[Tensor, Tensor], Tensor]  # weights [B, H, I], tables [B, J, I, O] -> a view of [B, H, O]


def make_decoder(model: Transformer) -> Decoder:
    """The fastest decoder for the model's device. The plain one where the kernels are missing, with one line in the log."""
    if model.model.embed_tokens.weight.device.type != "cpu":
        return Decoder(model)
    if reason := missing_kernels():
        logger.warning("torch %s: %s; generation uses the plain decoder, which is slower", torch.__version__, reason)
        return Decoder(model)
    return CPUDecoder(model)


@lru_cache(maxsize=1)
def missing_kernels() -> str:
    """Why the kernels cannot be used here, or "". They are run once and compared with the plain operators."""
    if reason := missing_products():
        return reason
    if not _has_fbgemm():
        return "FBGEMM is missing"
    # Fixed inputs, drawn apart from the global generator, which the caller may have seeded.
    generator = torch.Generator().manual_seed(0)
    weights, tables = torch.rand(2, 4, 5, generator=generator), torch.randn(2, 2, 5, 8, generator=generator)
    # Two heads read each table below, so that grouped-query attention is tried too.
    try:
        # Compared, not only called: a private operator may change its meaning without an error.
        sums = _weighted_sums(4, 2, 5)(weights, tables).reshape(2, 2, 2, 8)
        is_same = torch.allclose(sums, weights.view(2, 2, 2, 5) @ tables, atol=1e-5)
    except (AttributeError, RuntimeError, TypeError, NotImplementedError) as error:
        return f"a private operator has changed ({str(error).splitlines()[0]})"
    return "" if is_same else "a private operator gives other results"


def _has_fbgemm() -> bool:
    return "fbgemm" in torch.backends.quantized.supported_engines


class FusedLayer(NamedTuple):
    """The weights of a layer."""

    qkv: Product  # [N, D] -> [N, (H + 2J) K], the queries divided by sqrt(K)
    qk_norm: Tensor | None  # [H + J, K]; None: queries and keys are not normalized
    out: Product  # [N, H K] -> [N, D]
    gate_up: Product  # [N, D] -> [N, 2F]
    down: Product  # [N, F] -> [N, D]


class CPUDecoder(Decoder):
    """The same as Decoder. The keys of a layer are [B, J, K, S], so that a bag sums them over K."""

    @torch.no_grad()
    def __init__(self, model: Transformer, make_product: MakeProduct | None = None) -> None:
        make_product = make_product or _product
        super().__init__(model)
        config = self.config
        self.is_half = self.embedding.dtype != torch.float32
        # The fused and packed matrices are a second copy of all weights, 4 bytes a parameter in float32, besides the caller's model.
        self.layers = [_fuse_layer(layer, config, make_product) for layer in cast(Iterable[Layer], model.model.layers)]
        head = self.embedding if config.tie_embeddings else model.lm_head.weight
        # The copies suffice. Without this the decoder would keep a model alive that its caller has dropped.
        del self.model
        self.head = _after_norm(make_product, model.model.norm.weight, head)  # [N, D] -> [N, V]
        self.floor, self.head_floor = (
            torch.tensor(math.sqrt(width * config.norm_eps)) for width in (config.width, config.head_width)
        )

    def _allocate(self, num_rows: int) -> None:
        super()._allocate(num_rows)
        for number, keys in enumerate(self.keys):
            # As many numbers as before in another shape: resize_ keeps the memory, and its zeros.
            self.keys[number] = keys.resize_(num_rows, self.config.num_kv_heads, self.config.head_width, self.num_slots)
        self._make_turns()

    def _grow(self) -> None:
        before, self.num_slots = self.num_slots, self._slots_needed()
        # Keys are [B, J, K, S]: their slots are the last dimension, where values have them before K.
        more = self.num_slots - before
        self.keys = [F.pad(keys, (0, more)) for keys in self.keys]
        self.values = [F.pad(values, (0, 0, 0, more)) for values in self.values]
        self._make_turns()

    def _make_turns(self) -> None:
        """The rotation of each slot's channels as complex numbers [S, 1, K/2]."""
        self.slots = torch.arange(self.num_slots)
        cos, sin = rotary(self.slots[None], self.config)
        self.turns = torch.complex(cos, sin)[0, 0, :, None, : self.config.head_width // 2]

    def _read(self, prompts: Sequence[tuple[int, ...]]) -> Tensor:
        """Prompts in passes of about equally many tokens -> logits [B, V]."""
        sizes = list(map(len, prompts))
        # Passes of nearly equal size, rather than full ones and a short rest. A prompt is never cut: it belongs to the pass in which it
        # ends, and a long one is a pass by itself.
        pass_tokens = sum(sizes) / max(1, round(sum(sizes) / PASS_TOKENS))
        parts: list[Tensor] = []
        ends = zip(prompts, accumulate(sizes), strict=True)
        for _, group in groupby(ends, lambda prompt_and_end: (prompt_and_end[1] - 1) // pass_tokens):
            parts.append(self._read_pass([prompt for prompt, _ in group], sum(map(len, parts))))
        return torch.cat(parts)

    def _read_pass(self, prompts: Sequence[tuple[int, ...]], first_row: int) -> Tensor:
        """Prompts of the rows from `first_row` on, end to end -> logits [len(prompts), V]."""
        is_grouped = self.config.num_kv_heads < self.config.num_heads
        sizes = [len(prompt) for prompt in prompts]

        def attend(_: int, *heads: Tensor) -> Tensor:
            # Prompt by prompt: a mask over all of them would be quadratic in the tokens of the pass.
            parts = (part.transpose(0, 1)[None].split_with_sizes(sizes, 2) for part in heads)  # [1, H or J, T, K]
            # scale=1.0: the queries have been divided by sqrt(K) already, by the weights or the norm. The prompt has no past, so the new
            # keys are all that it attends to, and the cache is not read.
            read = [
                F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=1.0, enable_gqa=is_grouped)
                for query, key, value in zip(*parts, strict=True)
            ]
            return torch.cat(read, 2)[0].transpose(0, 1).flatten(1)

        tokens = torch.tensor([token for prompt in prompts for token in prompt])
        positions = torch.cat([torch.arange(size) for size in sizes])
        ends = torch.tensor(sizes).cumsum(0)
        # right=True: token ends[i] already belongs to prompt i + 1.
        rows = first_row + torch.searchsorted(ends, torch.arange(len(tokens)), right=True)
        return self._fused_forward(tokens, rows, positions, attend, ends - 1)

    def _step(self, tokens: Tensor, positions: Tensor) -> Tensor:
        B, S = len(tokens), self.num_slots
        H, J, K = self.config.num_heads, self.config.num_kv_heads, self.config.head_width
        is_later = self.slots > positions[:, None, None]
        # A mask that is added: torch adds faster than it fills scores with -inf.
        mask = self.embedding.new_zeros(is_later.shape).masked_fill_(is_later, float("-inf"))  # [B, 1, S]
        # Scores are K rows [S] of the keys, weighted by the channels of a query; outputs are S rows [K] of the values, weighted by
        # attention. All S slots are computed, the spare ones too: a shape that changed at every step would need new bags each time.
        sum_keys, sum_values = (_weighted_sums(B * J, H // J, num_rows) for num_rows in (K, S))

        def attend(number: int, query: Tensor, *_: Tensor) -> Tensor:
            scores = sum_keys(query, self.keys[number]).view(B, H, S).add_(mask)
            return sum_values(scores.softmax(-1), self.values[number]).view(B, H * K)

        return self._fused_forward(tokens, torch.arange(B), positions, attend)

    def _fused_forward(
        self,
        tokens: Tensor,
        rows: Tensor,
        positions: Tensor,
        attend: Callable[[int, Tensor, Tensor, Tensor], Tensor],
        wanted: Tensor | slice = slice(None),
    ) -> Tensor:
        """Tokens [N] at positions [N] of rows [N] -> logits after the wanted ones. The residual stream is in float32.

        attend: number of a layer; queries [N, H, K], keys and values [N, J, K] -> the heads' outputs [N, H K].
        """
        H, J, K = self.config.num_heads, self.config.num_kv_heads, self.config.head_width
        # float32: sums over many layers in bfloat16 would lose what each layer adds.
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
            # The views have row and slot first, as the indices do: index_put_ then writes into the cache in place.
            self.keys[number].permute(0, 3, 1, 2).index_put_(slots, key)
            self.values[number].transpose(1, 2).index_put_(slots, value)
            y = attend(number, query, key, value)
            # Above the last attention only the wanted tokens are needed: of a prompt, its last.
            if number + 1 == len(self.layers):
                x, y = x[wanted], y[wanted]
            x += layer.out(y)
            gate, up = layer.gate_up(_unit(x, self.floor)).chunk(2, -1)
            x += layer.down(F.silu(gate).mul_(up))
        return self.head(_unit(x, self.floor))


def _unit(x: Tensor, floor: Tensor) -> Tensor:
    """x [..., width] divided by its length, with `floor` as one channel more: RMSNorm without its weights, over sqrt(width)."""
    # x / sqrt(|x|^2 + width eps), which is RMSNorm over sqrt(width): two passes over x, and no square of it in memory.
    length: Tensor = torch.linalg.vector_norm(x, 2, -1, True)
    return x / length.hypot_(floor)


def _turn(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate channels 2k and 2k + 1 of x [N, heads, K], taken as a complex number, by turns [N, 1, K/2]."""
    N, heads, K = x.shape
    # One complex product in place of two products, a concatenation and a sum.
    turned = torch.view_as_complex(x.view(N, heads, K // 2, 2)) * turns
    return torch.view_as_real(turned).view(N, heads, K)


def _weighted_sums(num_tables: int, num_readers: int, num_rows: int) -> WeightedSums:
    """The function that sums the rows of `num_tables` tables by the weights of `num_readers` readers of each."""
    rows, bags = _bags(num_tables, num_readers, num_rows)
    # By position: scale_grad_by_freq, mode (0 is the sum), sparse, per_sample_weights. F.embedding_bag checks its arguments each time.
    return lambda weights, tables: torch.embedding_bag(
        tables.flatten(0, 2), rows, bags, False, 0, False, weights.flatten()
    )[0]


@lru_cache(maxsize=4)
def _bags(num_tables: int, num_readers: int, num_rows: int) -> tuple[Tensor, Tensor]:
    """The rows of all tables in each reader's bag, end to end; where each bag begins."""
    tables = torch.arange(num_tables).repeat_interleave(num_readers)
    # The same for every layer and step while the cache does not grow: hence the lru_cache. Keys and values need one each, so it
    # holds those of two sizes of the cache. An entry takes 8 bytes for each row, head and slot: 34 MB at 64 x 32 x 2,048.
    rows = tables[:, None] * num_rows + torch.arange(num_rows)
    return rows.flatten(), torch.arange(0, rows.numel(), num_rows)


def _after_norm(make_product: MakeProduct, norm: Tensor, *matrices: Tensor) -> Product:
    """The product with matrices [.., D] whose input is a norm with weights [D]. It takes what `_unit` returns."""
    # W (norm * x) = (W norm) x, column by column. sqrt(D) is the factor between dividing by a length and by a root mean square.
    return make_product(torch.cat(matrices) * (norm * math.sqrt(len(norm))))


def _product(matrix: Tensor) -> Product:
    """x [N, I] -> x @ matrix.T in float32 for a matrix [O, I]."""
    if matrix.dtype == torch.float32:
        return packed_product(matrix)
    transposed = matrix.t().contiguous()
    return lambda x: (x.to(transposed.dtype) @ transposed).float()


def _fuse_layer(layer: Layer, config: ModelConfig, make_product: MakeProduct) -> FusedLayer:
    attention, mlp, K = layer.self_attn, layer.mlp, config.head_width
    query, key = (_paired(part.weight, K) for part in (attention.q_proj, attention.k_proj))
    qk_norm = None
    if config.normalize_qk:
        # `_unit` leaves a factor sqrt(K) in each; the queries' is cancelled by attention's 1 / sqrt(K)
        query_norm, key_norm = (
            _paired(norm.get_parameter("weight"), K) for norm in (attention.q_norm, attention.k_norm)
        )
        heads = query_norm.expand(config.num_heads, -1), (key_norm * math.sqrt(K)).expand(config.num_kv_heads, -1)
        qk_norm = torch.cat(heads)
    else:
        # Without QK-norm attention's 1 / sqrt(K) goes into the queries' weights.
        query = query / math.sqrt(K)
    return FusedLayer(
        _after_norm(make_product, layer.input_layernorm.weight, query, key, attention.v_proj.weight),
        qk_norm,
        make_product(attention.o_proj.weight),
        _after_norm(make_product, layer.post_attention_layernorm.weight, mlp.gate_proj.weight, mlp.up_proj.weight),
        make_product(mlp.down_proj.weight),
    )


def _paired(weights: Tensor, head_width: int) -> Tensor:
    """Weights [heads K, ..] reordered so that channel k of a head is followed by channel k + K/2, with which it is rotated."""
    return weights.view(-1, 2, head_width // 2, *weights.shape[1:]).transpose(1, 2).reshape(weights.shape)
