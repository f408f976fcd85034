"""Constraints on the next token, and the sequences that end a completion.

Reads and writes nothing. The order is that of transformers' logits processors: bias; repetition penalty (CTRL, Keskar et al. 2019,
https://arxiv.org/abs/1909.05858, section 4.1; transformers' form, which multiplies negative logits); banned and allowed tokens; then, if tokens are
sampled, temperature, top-k (Fan et al. 2018, https://arxiv.org/abs/1805.04833), top-p or nucleus sampling (Holtzman et al. 2020,
https://arxiv.org/abs/1904.09751) and min-p (Nguyen et al. 2024, https://arxiv.org/abs/2407.01082).

Shapes: B rows, V vocabulary.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.config import GenerateConfig
from model.errors import UserError

NEVER = float("-inf")
ROUNDING = 1e-6  # tolerance of a sum of probabilities in float32: 0.5 and 0.3 reach a top_p of 0.8
FIRST_NUCLEUS = 64  # most nuclei have fewer tokens than this: a topk of so many avoids sorting the vocabulary


class NonFiniteError(UserError):
    """Weights or logits of a model are NaN or infinite."""


def check_finite(logits: Tensor) -> None:
    """Raises NonFiniteError if one of the logits [...] is NaN or infinite."""
    if not logits.isfinite().all():
        word = "NaN" if logits.isnan().any() else "infinite"
        raise NonFiniteError(f"logits are {word}: corrupted weights or diverged training")


class Constraints(NamedTuple):
    """The constraints of a configuration as tensors."""

    bias: Tensor  # [V], added to the logits; -inf for banned tokens
    penalty: float  # the repetition penalty
    seen: Tensor | None  # [B, V], whether a token is in the prompt or the completion; None without a repetition penalty

    def apply(self, logits: Tensor) -> Tensor:
        """Logits [B, V] -> [B, V], with -inf for banned tokens."""
        logits = logits + self.bias
        if self.seen is not None:
            # Dividing a negative logit would make the token likelier.
            penalized = torch.where(logits < 0, logits * self.penalty, logits / self.penalty)
            logits = torch.where(self.seen, penalized, logits)
        return logits

    def select(self, rows: Tensor) -> "Constraints":
        """Keep rows [N] in this order."""
        # Indexing copies, so that `mark_seen` never changes the rows of another beam.
        return self if self.seen is None else self._replace(seen=self.seen[rows])

    def mark_seen(self, tokens: Tensor) -> None:
        """Record the next token of each row: tokens [B]."""
        if self.seen is not None:
            self.seen.scatter_(1, tokens[:, None], True)


def constraints(
    config: GenerateConfig, prompts: Sequence[Sequence[int]], vocab_size: int, device: torch.device
) -> Constraints | None:
    """The constraints of `config`, or None if it has none. Raises UserError for tokens outside the vocabulary, or if none is left."""
    if not (config.logit_bias or config.banned_tokens or config.allowed_tokens or config.repetition_penalty != 1):
        return None
    named = [*config.logit_bias, *config.banned_tokens, *config.allowed_tokens]
    if outside := sorted({token for token in named if not 0 <= token < vocab_size}):
        raise UserError(
            f"tokens {outside} of logit_bias, banned_tokens or allowed_tokens are not in the vocabulary 0 to {vocab_size - 1}"
        )
    bias = torch.zeros(vocab_size)
    bias[list(config.logit_bias)] = torch.tensor(list(config.logit_bias.values()))
    if config.allowed_tokens:
        # Allowed tokens keep their bias.
        allowed = bias[list(config.allowed_tokens)]
        bias.fill_(NEVER)[list(config.allowed_tokens)] = allowed
    # Last, so that a token that is both allowed and banned is banned.
    bias[list(config.banned_tokens)] = NEVER
    if bias.isneginf().all():
        raise UserError("banned_tokens and allowed_tokens leave no token: allow one that is not banned")
    seen = None
    if config.repetition_penalty != 1:
        # One byte for each row and token of the vocabulary: 10 MB for 64 rows with Qwen3's. The prompt counts too, as in transformers.
        seen = torch.zeros(len(prompts), vocab_size, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            seen[row, list(prompt)] = True
        seen = seen.to(device)
    return Constraints(bias.to(device), config.repetition_penalty, seen)


def restrict(logits: Tensor, config: GenerateConfig) -> Tensor:
    """Set to -inf all logits but the top_k greatest, then all but the smallest set with probability top_p, then those less likely than
    min_p times the likeliest: [B, V] -> [B, V]. Ties with the last kept logit are kept, so that no order of tokens decides."""
    if config.top_k == 0 and config.top_p == 1 and config.min_p == 0:
        return logits
    kept, least = logits, logits.new_full((len(logits), 1), NEVER)
    if 0 < config.top_k < logits.shape[-1]:
        # transformers filters in the same order: top-k, top-p, min-p, each on what the one before left.
        # One more than k: an equal logit after the k-th shows a tie, for which the whole row is needed.
        best = logits.topk(config.top_k + 1).values
        kept, least = best[:, :-1], best[:, -2:-1]
        if (best[:, -1:] == least).any():
            kept = torch.where(logits < least, NEVER, logits)
    if config.top_p < 1:
        least = _last_of_nucleus(kept, config.top_p)
    if config.min_p > 0:
        # p >= min_p p_max in logits: softmax's denominator cancels.
        least = least.maximum(kept.amax(-1, keepdim=True) + math.log(config.min_p))
    return torch.where(logits < least, NEVER, logits)


def _last_of_nucleus(logits: Tensor, top_p: float) -> Tensor:
    """The least logit [B, 1] of the smallest set of tokens with probability top_p: logits [B, N]."""
    # Normalised over all given logits, so that the greatest few already have their true mass.
    whole, enough = logits.logsumexp(-1, keepdim=True), top_p - ROUNDING
    best = logits.topk(min(FIRST_NUCLEUS, logits.shape[-1])).values
    mass = (best - whole).exp().cumsum(-1)
    # One row with a flat distribution makes the whole batch sort: the others are not worth a second path.
    if (mass[:, -1] < enough).any():
        best = descending(logits)
        mass = (best - whole).exp().cumsum(-1)
    last = (mass < enough).sum(-1, keepdim=True).clamp(max=best.shape[-1] - 1)
    return best.gather(-1, last)


def descending(logits: Tensor) -> Tensor:
    """The rows of [B, N] in descending order. On a CPU by numpy, whose sort was twenty times as fast there."""
    if logits.device.type == "cpu":
        # numpy sorts in ascending order only. Negating is exact in floating point, so doing it twice changes no value.
        return torch.from_numpy(np.sort((-logits).numpy(), -1)).neg_()
    return logits.sort(-1, descending=True).values


def ending(tokens: Sequence[int], stops: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The first of `stops` that the tokens end with, or ()."""
    return next((stop for stop in stops if tuple(tokens[-len(stop) :]) == stop), ())


def partial_stop_length(tokens: Sequence[int], stops: Sequence[tuple[int, ...]]) -> int:
    """The number of last tokens that are a stop sequence or the beginning of one."""
    longest = max(map(len, stops))
    # The longest first: all tokens that may yet turn out to belong to a stop sequence must be held back, not only the last.
    return next(
        (
            size
            for size in range(min(longest, len(tokens)), 0, -1)
            if any(stop[:size] == tuple(tokens[-size:]) for stop in stops)
        ),
        0,
    )
