"""Generation with a KV cache: prompts are read at once, then one token per row and step.

Reads a model's weights; writes nothing. The keys and values of the tokens read so far are cached (Pope et al. 2022,
https://arxiv.org/abs/2211.05102, section 2), so that a step computes one token of each row and attends over the cache. The layers are those of
model/network/transformer.py; tests compare the logits with it. On a CPU, model/inference/cpu_kernels.py has a faster layout.

Shapes: as in model/network/transformer.py; S slots of the cache per row.
"""

import math
from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from model.network.transformer import Attention, Layer, Transformer, rotary, rotate

BLOCK_TOKENS = 32  # the number of slots is a multiple of this
# Slots more than needed. Growing copies the cache: with an eighth to spare, all growths of a long completion together copy
# at most eight times its final size. Doubling would copy less, but CPUDecoder computes on spare slots too.
SPARE_FRACTION = 1 / 8


class Decoder:
    """A model and the rows it has read so far. The weights must not be trained while it is in use.

    Slot s of a row holds the keys and values of the token at position s. Rows have different lengths; slots beyond a row's length hold
    anything finite and are masked.
    """

    def __init__(self, model: Transformer) -> None:
        self.config = model.config
        self.model = model
        self.embedding = model.model.embed_tokens.weight.detach()  # [V, D]
        # Empty until the first `read`. The cache has the dtype and the device of the embedding.
        self.keys = [self.embedding.new_zeros(0) for _ in range(self.config.num_layers)]  # [B, J, S, K] of each layer
        self.values = [self.embedding.new_zeros(0) for _ in range(self.config.num_layers)]  # [B, J, S, K]

    def read(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Start with one row per prompt -> logits [B, V] of the next tokens. No prompt may be empty. Equal prompts are read once."""
        # GRPO samples G completions of each prompt: reading it once saves G - 1 forwards.
        distinct = list(dict.fromkeys(map(tuple, prompts)))
        self.lengths = torch.tensor([len(prompt) for prompt in distinct], device=self.embedding.device)  # [B]
        self.span = max(map(len, distinct))  # the longest row
        self._allocate(len(distinct))
        logits = self._read(distinct)
        if len(distinct) == len(prompts):
            return logits
        places = {prompt: place for place, prompt in enumerate(distinct)}
        rows = torch.tensor([places[tuple(prompt)] for prompt in prompts], device=self.embedding.device)
        # Each completion writes into a row of the cache that no other shares, so the rows of a prompt are copied.
        self.select(rows)
        return logits[rows]

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token to every row: tokens [B] -> logits [B, V] of the next tokens."""
        # Rows differ in length: each token has the position that its row has reached. The span is counted on the host, since
        # lengths.max() would make the host wait for a GPU at every step.
        positions, self.lengths, self.span = self.lengths, self.lengths + 1, self.span + 1
        if self.span > self.num_slots:
            self._grow()
        return self._step(tokens, positions)

    def select(self, rows: Tensor) -> None:
        """Keep rows [N] in this order. A row may be kept several times, as beam search does, or not at all."""
        for parts in self.keys, self.values:
            for number, part in enumerate(parts):
                parts[number] = part.index_select(0, rows)
        self.lengths = self.lengths[rows]
        self.span = int(self.lengths.max())

    def _allocate(self, num_rows: int) -> None:
        """Make an empty cache, in the memory that the last one had if that is enough."""
        self.num_slots = self._slots_needed()
        shape = num_rows, self.config.num_kv_heads, self.num_slots, self.config.head_width
        for part in (*self.keys, *self.values):
            # resize_ keeps memory that is large enough. Zeros, because masked slots must hold finite numbers: 0 x NaN is NaN.
            part.resize_(shape).zero_()

    def _grow(self) -> None:
        more = self._slots_needed() - self.num_slots
        self.num_slots += more
        for parts in self.keys, self.values:
            parts[:] = [F.pad(part, (0, 0, 0, more)) for part in parts]

    def _slots_needed(self) -> int:
        return math.ceil(self.span * (1 + SPARE_FRACTION) / BLOCK_TOKENS) * BLOCK_TOKENS

    def _read(self, prompts: Sequence[tuple[int, ...]]) -> Tensor:
        """Prompts padded on the right: a token attends only to tokens before it, so never to padding."""
        # The keys of padding land in slots that the mask hides. Each is overwritten by the step whose query is the first to see it.
        tokens = torch.zeros(len(prompts), self.span, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = torch.tensor(prompt)
        positions = torch.arange(self.span, device=self.embedding.device).expand(len(prompts), -1)
        return self._forward(tokens.to(self.embedding.device), positions, self.lengths - 1)

    def _step(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """tokens [B] at positions [B] -> logits [B, V]."""
        return self._forward(tokens[:, None], positions[:, None], torch.zeros_like(positions))

    def _forward(self, tokens: Tensor, positions: Tensor, last: Tensor, cache_rows: Tensor | None = None) -> Tensor:
        """tokens [B, T] at positions [B, T] -> logits [B, V] after token `last` [B] of each row, or [B, N, V] after tokens [B, N].

        `cache_rows` [B]: where the rows lie in the cache, if it has more of them than are computed.
        """
        numbers = torch.arange(len(tokens), device=tokens.device)
        rows = numbers if cache_rows is None else cache_rows
        slots = torch.arange(self.span, device=tokens.device)
        # Slot s holds position s, so a comparison is all of causality, for reading and for steps. While prompts of T tokens are read
        # the mask takes B T^2 bytes: 268 MB for 64 prompts of 2,048 tokens.
        mask = slots <= positions[:, None, :, None]  # [B, 1, T, S] true where a query attends to a slot
        cos, sin = rotary(positions, self.config)
        x: Tensor = self.model.model.embed_tokens(tokens)
        for number, layer in enumerate(cast(Iterable[Layer], self.model.model.layers)):
            attention = layer.self_attn
            query, key, value = self._heads(attention, layer.input_layernorm(x))
            query, key = rotate(query, cos, sin), rotate(key, cos, sin)
            # In place: concatenating would copy the whole cache at each step.
            self.keys[number][rows[:, None], :, positions] = key.transpose(1, 2)
            self.values[number][rows[:, None], :, positions] = value.transpose(1, 2)
            cached = self.keys[number][:, :, : self.span], self.values[number][:, :, : self.span]
            if cache_rows is not None:
                cached = cached[0][rows], cached[1][rows]
            y = F.scaled_dot_product_attention(query, *cached, attn_mask=mask, enable_gqa=attention.is_grouped)
            x = x + attention.o_proj(y.transpose(1, 2).flatten(2))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        # The head is the largest matrix of a small model: it is applied to the wanted tokens alone. Logits of all of them would take
        # 600 MB for a prompt of 1,000 tokens with Qwen3's vocabulary of 151,936.
        return self.model.head(self.model.model.norm(x[numbers.view(-1, *[1] * (last.dim() - 1)), last]))

    def _heads(self, attention: Attention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, T, D] -> queries [B, H, T, K], keys and values [B, J, T, K], without positions."""
        query, key, value = (
            projection(x).unflatten(-1, (-1, self.config.head_width))
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        return attention.q_norm(query).transpose(1, 2), attention.k_norm(key).transpose(1, 2), value.transpose(1, 2)
