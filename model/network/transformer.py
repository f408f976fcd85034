"""The model: a decoder-only transformer with the weights of Qwen3, name by name, or of Llama where queries and keys have no norms.

Reads and writes nothing. RMSNorm before each block (Zhang & Sennrich 2019), rotary position embeddings (RoPE, Su et al. 2021) in the
half-rotation layout, RMSNorm on queries and keys (Dehghani et al. 2023), grouped-query attention (Ainslie et al. 2023), SwiGLU
(Shazeer 2020), no biases.
A state dict of `Transformer` loads into transformers' Qwen3ForCausalLM as it is, and one of `RewardModel` into
Qwen3ForSequenceClassification with one label, which knows no likelihood.

Shapes: B batch, T sequence, D width, H heads, J key and value heads, K head width, F feed-forward
width, V vocabulary, L layers.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model import losses
from model.config import ModelConfig
from model.network.products import Linear, linear


class Context(NamedTuple):
    """What attention needs besides the hidden states; the same for every layer."""

    cos: Tensor  # [1, 1, T, K], or [B, 1, T, K] where rows hold several documents
    sin: Tensor  # as cos
    mask: Tensor | None  # [B, 1, T, T], true where a query attends to a key; None: causal


class RMSNorm(nn.Module):
    """x / rms(x) * weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x [..., width] -> [..., width]."""
        # In bfloat16 too torch 2.13 takes the mean square in float32 and
        # rounds once, at the end: equal to the float32 result, bit by bit.
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def rotary(positions: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines [B, 1, T, K] in float32 of positions [B, T]; the frequencies repeat in the second half of K."""
    # float32 throughout: bfloat16 holds whole numbers exactly only up to 256, and positions go beyond.
    angles = positions[:, None, :, None].float() * frequencies(config, positions.device)  # [B, 1, T, K/2]
    angles = torch.cat((angles, angles), -1)
    return angles.cos(), angles.sin()


def frequencies(config: ModelConfig, device: torch.device) -> Tensor:
    """Radians [K/2] that each pair of channels turns by from one position to the next, in float32.

    Rounded as transformers rounds: one last bit is a hundredth of a radian at position 131,072.
    """
    exponents = torch.arange(0, config.head_width, 2, dtype=torch.float32, device=device) / config.head_width
    # From 1 radian a token in the first pair down to nearly 1 / rope_base in the last.
    radians: Tensor = 1.0 / config.rope_base**exponents
    if (scaling := config.rope_scaling) is None:
        return radians
    # As transformers has it in modeling_rope_utils for "llama3": a linear ramp between the slow and the fast channels.
    turns = scaling.original_tokens / (2 * math.pi / radians)
    kept = ((turns - scaling.slow_turns) / (scaling.fast_turns - scaling.slow_turns)).clamp(0, 1)
    return (1 - kept) * radians / scaling.factor + kept * radians


def positions_in_documents(documents: Tensor) -> Tensor:
    """The place of each token in its document, from 0: numbers of documents [B, T], equal side by side -> [B, T]."""
    places = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    is_first = torch.ones_like(documents, dtype=torch.bool)
    is_first[:, 1:] = documents[:, 1:] != documents[:, :-1]
    # The running maximum of first places is the first place of the current document.
    return places - torch.where(is_first, places, 0).cummax(1).values


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x [B, H, T, K] by its positions: channel k is paired with channel k + K/2."""
    # The half-rotation layout of Hugging Face files. Meta's own pair neighbours, and need their projections permuted.
    low, high = x.chunk(2, -1)
    # Cosines are rounded to the dtype of x, as transformers does: in bfloat16 its logits are reproduced, not improved on.
    return x * cos.to(x.dtype) + torch.cat((-high, low), -1) * sin.to(x.dtype)


def at(x: Tensor, places: Tensor | None) -> Tensor:
    """x [B, T, D] at K places, numbers from 0 to B T - 1: [K, D]. None: all of x as it is."""
    return x if places is None else x.flatten(0, 1).index_select(0, places)


class Attention(nn.Module):
    """Causal grouped-query attention with RoPE."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # Modules are named as in Hugging Face's files: with another name here no published weights could be read.
        self.head_width = config.head_width
        self.is_grouped = config.num_kv_heads < config.num_heads
        self.q_proj = Linear(config.width, config.num_heads * config.head_width)
        self.k_proj = Linear(config.width, config.num_kv_heads * config.head_width)
        self.v_proj = Linear(config.width, config.num_kv_heads * config.head_width)
        self.o_proj = Linear(config.num_heads * config.head_width, config.width)
        # One norm for all heads, as in Qwen3. Identity has no weights, so the names fit Llama's files.
        self.q_norm = RMSNorm(config.head_width, config.norm_eps) if config.normalize_qk else nn.Identity()
        self.k_norm = RMSNorm(config.head_width, config.norm_eps) if config.normalize_qk else nn.Identity()

    def forward(self, x: Tensor, context: Context, places: Tensor | None = None) -> Tensor:
        """x [B, T, D] -> [B, T, D], or [K, D] at K places, see `at`."""
        B, T, _ = x.shape
        # Normalized first, then rotated, as in Qwen3. A rotation keeps lengths, so a score q k / sqrt(K) stays within sqrt(K)
        # while the gains are 1: attention cannot collapse onto single tokens early (Dehghani et al. 2023).
        query = self.q_norm(self.q_proj(x).view(B, T, -1, self.head_width)).transpose(1, 2)  # [B, H, T, K]
        key = self.k_norm(self.k_proj(x).view(B, T, -1, self.head_width)).transpose(1, 2)  # [B, J, T, K]
        value = self.v_proj(x).view(B, T, -1, self.head_width).transpose(1, 2)  # [B, J, T, K]
        query, key = rotate(query, context.cos, context.sin), rotate(key, context.cos, context.sin)
        # is_causal rather than a mask where there is one document: on a GPU, torch's flash kernel takes no mask.
        y = F.scaled_dot_product_attention(
            query, key, value, attn_mask=context.mask, is_causal=context.mask is None, enable_gqa=self.is_grouped
        )
        # The annotation is for mypy, to which the call of a module is Any. So in the modules below.
        out: Tensor = self.o_proj(at(y.transpose(1, 2).reshape(B, T, -1), places))
        return out


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.width, config.ff_width)
        self.up_proj = Linear(config.width, config.ff_width)
        self.down_proj = Linear(config.ff_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, D] -> [B, T, D]."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    """Attention and feed-forward, each after a norm and added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.norm_eps)
        self.self_attn = Attention(config)
        # Hugging Face's name; it is the norm before the feed-forward.
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x: Tensor, context: Context, places: Tensor | None = None) -> Tensor:
        """x [B, T, D] -> [B, T, D], or [K, D] at K places, see `at`."""
        x = at(x, places) + self.self_attn(self.input_layernorm(x), context, places)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Backbone(nn.Module):
    """Everything below the head: token embedding, layers and the last norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.activation_checkpointing = False  # recompute activations in the backward pass (Chen et al. 2016)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        # No dropout, as in Qwen3 and Llama: train() and eval() compute the same.
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.width, config.norm_eps)

    def forward(self, tokens: Tensor, documents: Tensor | None = None, kept: Tensor | None = None) -> Tensor:
        """tokens [B, T] -> hidden states [B, T, D], or [K, D] where kept [B, T] is true; see Transformer.forward."""
        context = self.context(tokens, documents)
        # Above the last attention nothing reads the other places: of four layers that saves a fifth of the products there.
        wanted = None if kept is None else kept.flatten().nonzero().squeeze(1)
        x: Tensor = self.embed_tokens(tokens)
        for number, layer in enumerate(self.layers):
            places = wanted if number + 1 == len(self.layers) else None
            activation_checkpointing = self.activation_checkpointing and torch.is_grad_enabled()
            # A whole layer at a time: its input is kept, and the backward pass computes the forward pass once more.
            # use_reentrant=False is the variant that torch recommends; without gradients there is nothing to save.
            x = (
                checkpoint(layer, x, context, places, use_reentrant=False)
                if activation_checkpointing
                else layer(x, context, places)
            )
        x = self.norm(x)
        return x

    def context(self, tokens: Tensor, documents: Tensor | None) -> Context:
        """What the layers need besides the hidden states; arguments as in Transformer.forward."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        if documents is None:
            return Context(*rotary(positions, self.config), mask=None)
        # One byte a pair of tokens: 16 MiB for 16 rows of 1,024 tokens,
        # 16 GiB for one of 131,072. Made once a forward, for all layers.
        # A dense mask [B, 1, T, T]: it costs the flash kernel on a GPU, and every device can compute with it.
        mask = (documents[:, None, :, None] == documents[:, None, None, :]).tril()
        return Context(*rotary(positions_in_documents(documents), self.config), mask)


class Transformer(nn.Module):
    """A language model: logits of the next token at every position."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        if not config.tie_embeddings:
            self.lm_head = Linear(config.width, config.vocab_size)

    def forward(self, tokens: Tensor, documents: Tensor | None = None, kept: Tensor | None = None) -> Tensor:
        """tokens [B, T] -> logits [B, T, V], or [K, V] of the K places where kept [B, T] is true.

        Rows may be padded on the right. documents [B, T]: the number of each token's document, which no token attends beyond, and
        in which positions count from 0. A packed document then has the logits that it has in a row by itself.
        """
        # Here and not by the caller: with ZeRO 3 the head's weights are there within the forward alone.
        return self.head(self.model(tokens, documents, kept))

    def head(self, hidden: Tensor) -> Tensor:
        """hidden states [..., D] -> logits [..., V]."""
        # Logits have the dtype of the weights; model/losses.py takes them to float32.
        weight = self.model.embed_tokens.weight if self.config.tie_embeddings else self.lm_head.weight
        return linear(hidden, weight)


class RewardModel(nn.Module):
    """A scalar for a completion, read at its last token, plus `likelihood_weight` times the mean log-probability of its tokens.

    The second term is the reward that SimPO derives for a language model (Meng et al. 2024, https://arxiv.org/abs/2405.14734, equation 3). A
    wrong name or digit is one that the model finds unlikely, and one hidden state at the end does not show that: it holds what
    comes next. A weight of 0 makes it InstructGPT's reward model, which transformers loads.
    """

    def __init__(self, config: ModelConfig, likelihood_weight: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.likelihood_weight = likelihood_weight
        self.model = Backbone(config)
        # No bias, as in transformers' classifier: only differences of rewards are learned, in which it would cancel.
        self.score = nn.Linear(config.width, 1, bias=False)

    def forward(self, tokens: Tensor, lengths: Tensor, starts: Tensor | None = None) -> Tensor:
        """tokens [B, T] padded on the right, lengths [B] of their rows, starts [B] of the completions -> rewards [B] in float32.

        Without `starts` the likelihood is that of the whole row.
        """
        # Attention is causal, so padding on the right does not reach the last real token.
        places = torch.arange(tokens.shape[1], device=tokens.device)
        is_last = places == lengths[:, None] - 1
        # Place t predicts token t + 1: those before the tokens of the completion.
        starts = torch.ones_like(lengths) if starts is None else starts
        predicts = (places >= starts[:, None] - 1) & (places < lengths[:, None] - 1)
        kept = is_last | predicts if self.likelihood_weight else is_last
        hidden = self.model(tokens, kept=kept)  # [K, D]
        # float32: differences of rewards go through a sigmoid.
        rewards: Tensor = self.score(hidden[is_last[kept]]).squeeze(-1).float()
        if self.likelihood_weight:
            rewards = rewards + self.likelihood_weight * self.mean_logprobs(hidden[predicts[kept]], tokens, predicts)
        return rewards

    def mean_logprobs(self, hidden: Tensor, tokens: Tensor, predicts: Tensor) -> Tensor:
        """The mean log-probability of each completion's tokens, in nats: hidden [K, D] of the places where predicts [B, T] is true -> [B] in float32."""
        # The head is the tied embedding: a reward model keeps no other.
        logits = F.linear(hidden, self.model.embed_tokens.weight).float()
        targets = tokens[:, 1:][predicts[:, :-1]]
        nats: Tensor = losses.TokenNats.apply(logits, targets)  # type: ignore[no-untyped-call]
        summed = torch.zeros(predicts.shape, device=tokens.device).masked_scatter(predicts, nats).sum(-1)
        return -summed / predicts.sum(-1).clamp(min=1)


def initialize(model: Transformer | RewardModel, seed: int) -> None:
    """Draw all weights with the seed: normal, with standard deviation 0.02 at width 512 and as 1/sqrt(D) at others.

    GPT-2's 0.02 is kept where it was found; the scaling with the width keeps activations at one size. Matrices
    that write to the residual stream are divided by sqrt(2 L) (Radford et al. 2019), so that its variance does not grow with
    depth. Norms stay 1. A reward head starts at 0: a new reward model prefers nothing.
    """
    # Logits then start with a standard deviation of 0.02 sqrt(512) = 0.45 at every width, which is a loss 0.1 nats above log V.
    # On the CPU: a GPU's generator gives other numbers, and the seed should give one model everywhere.
    generator = torch.Generator().manual_seed(seed)
    deviation = 0.02 * math.sqrt(512 / model.config.width)
    # One stream of numbers in the order of the modules: to reorder them changes the weights of every seed.
    for name, parameter in model.named_parameters():
        if name == "score.weight":
            nn.init.zeros_(parameter)
        elif parameter.dim() == 2:
            is_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            scale = 1 / math.sqrt(2 * model.config.num_layers) if is_residual else 1.0
            nn.init.normal_(parameter, std=deviation * scale, generator=generator)
