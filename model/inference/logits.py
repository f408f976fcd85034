"""Constraints on what is drawn: the logits of the next token are shifted, penalized and masked; sequences end a completion.

Reads and writes nothing. The order is transformers': bias, repetition penalty (Keskar et al. 2019), banned and allowed tokens;
then, only where tokens are drawn by chance, temperature, top-k, top-p (Holtzman et al. 2020) and min-p (Nguyen et al. 2024).

Shapes: B rows, V vocabulary.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.config import GenerateConfig

NEVER = float("-inf")
ROUNDING = 1e-6  # of a sum of probabilities in float32: 0.5 and 0.3 hold 0.8
FIRST_NUCLEUS = 64  # tokens among which the fewest that hold top_p are looked for first


class Constraints(NamedTuple):
    """What a configuration says of the tokens, as tensors."""

    bias: Tensor  # [V], added to the logits; -inf where a token must not come
    penalty: float
    seen: Tensor | None  # [B, V], tokens in the prompt or the completion; None: not penalized

    def apply(self, logits: Tensor) -> Tensor:
        """Logits [B, V] -> [B, V], with -inf for tokens that must not come."""
        logits = logits + self.bias
        if self.seen is not None:
            penalized = torch.where(logits < 0, logits * self.penalty, logits / self.penalty)
            logits = torch.where(self.seen, penalized, logits)
        return logits

    def select(self, rows: Tensor) -> "Constraints":
        """Keep rows [N] in this order."""
        return self if self.seen is None else self._replace(seen=self.seen[rows])

    def mark_seen(self, tokens: Tensor) -> None:
        """Mark the tokens [B] that each row goes on with."""
        if self.seen is not None:
            self.seen.scatter_(1, tokens[:, None], True)


def constraints(
    config: GenerateConfig, prompts: Sequence[Sequence[int]], vocab_size: int, device: torch.device
) -> Constraints | None:
    """What `config` asks for, or None where that is nothing. Raises ValueError for tokens that the vocabulary lacks."""
    if not (config.logit_bias or config.banned_tokens or config.allowed_tokens or config.repetition_penalty != 1):
        return None
    named = [*config.logit_bias, *config.banned_tokens, *config.allowed_tokens]
    if outside := sorted({token for token in named if not 0 <= token < vocab_size}):
        raise ValueError(
            f"tokens {outside} of logit_bias, banned_tokens or allowed_tokens are not among 0 to {vocab_size - 1}"
        )
    bias = torch.zeros(vocab_size)
    bias[list(config.logit_bias)] = torch.tensor(list(config.logit_bias.values()))
    if config.allowed_tokens:
        allowed = bias[list(config.allowed_tokens)]
        bias.fill_(NEVER)[list(config.allowed_tokens)] = allowed
    bias[list(config.banned_tokens)] = NEVER
    if bias.isneginf().all():
        raise ValueError("banned_tokens and allowed_tokens leave no token: allow one that is not banned")
    seen = None
    if config.repetition_penalty != 1:
        seen = torch.zeros(len(prompts), vocab_size, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            seen[row, list(prompt)] = True
        seen = seen.to(device)
    return Constraints(bias.to(device), config.repetition_penalty, seen)


def restrict(logits: Tensor, config: GenerateConfig) -> Tensor:
    """Set to -inf all but the top_k likeliest, then all but the fewest that hold top_p, then what is less likely than
    min_p times the likeliest: [B, V]. Equals of the last that is kept are kept."""
    if config.top_k == 0 and config.top_p == 1 and config.min_p == 0:
        return logits
    kept, least = logits, logits.new_full((len(logits), 1), NEVER)
    if 0 < config.top_k < logits.shape[-1]:
        best = logits.topk(config.top_k + 1).values
        kept, least = best[:, :-1], best[:, -2:-1]
        if (best[:, -1:] == least).any():
            kept = torch.where(logits < least, NEVER, logits)
    if config.top_p < 1:
        least = _last_of_nucleus(kept, config.top_p)
    if config.min_p > 0:
        least = least.maximum(kept.amax(-1, keepdim=True) + math.log(config.min_p))
    return torch.where(logits < least, NEVER, logits)


def _last_of_nucleus(logits: Tensor, top_p: float) -> Tensor:
    """The least logit [B, 1] of the fewest tokens that hold top_p of the probability: logits [B, N]."""
    whole, enough = logits.logsumexp(-1, keepdim=True), top_p - ROUNDING
    best = logits.topk(min(FIRST_NUCLEUS, logits.shape[-1])).values  # a nucleus is mostly small
    mass = (best - whole).exp().cumsum(-1)
    if (mass[:, -1] < enough).any():
        best = descending(logits)
        mass = (best - whole).exp().cumsum(-1)
    last = (mass < enough).sum(-1, keepdim=True).clamp(max=best.shape[-1] - 1)
    return best.gather(-1, last)


def descending(logits: Tensor) -> Tensor:
    """The rows of [B, N] sorted; on a CPU by numpy, which is twenty times as fast there."""
    if logits.device.type == "cpu":
        return torch.from_numpy(np.sort((-logits).numpy(), -1)).neg_()
    return logits.sort(-1, descending=True).values


def ending(tokens: Sequence[int], stops: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The first of `stops` that the tokens end with, or none: ()."""
    return next((stop for stop in stops if tuple(tokens[-len(stop) :]) == stop), ())


def partial_stop_length(tokens: Sequence[int], stops: Sequence[tuple[int, ...]]) -> int:
    """How many of the last tokens are, or may become, a sequence that stops."""
    longest = max(map(len, stops))
    return next(
        (
            size
            for size in range(min(longest, len(tokens)), 0, -1)
            if any(stop[:size] == tuple(tokens[-size:]) for stop in stops)
        ),
        0,
    )
