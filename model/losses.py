"""The mathematics of every objective, once. Reads and writes nothing; nats everywhere but in bits per byte.

Losses over tokens come as a sum and a count, or per token, never as a mean: a mean over microbatches and ranks is exact
only if the sums are divided by the count of the whole batch.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of -log p(target) where mask is 1, and how many those are.

    logits [..., V], targets [...] int64, mask [...] 0 or 1 -> two float32 scalars.
    """
    nats: Tensor = TokenNats.apply(logits.float(), targets)  # type: ignore[no-untyped-call]
    return masked_sum(nats, mask)


class TokenNats(torch.autograd.Function):
    """-log p(target): logits [..., V] in float32, targets [...] -> [...].

    As torch's own, for two tensors [..., V] less: the log-probabilities that are kept become the gradient in place.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        logprobs, targets = logits.log_softmax(-1), targets[..., None]
        ctx.save_for_backward(logprobs, targets)
        return -logprobs.gather(-1, targets).squeeze(-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logprobs, targets = ctx.saved_tensors
        gradient = gradient[..., None]
        return logprobs.exp_().mul_(gradient).scatter_add_(-1, targets, -gradient), None


def z_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Sum of the squared log of softmax's denominator where mask is 1 (Chowdhery et al. 2022): keeps logits near 0.

    logits [..., V], mask [...] 0 or 1 -> a float32 scalar.
    """
    return masked_sum(logits.float().logsumexp(-1).square(), mask)[0]


def bits_per_byte(nats: float, num_bytes: float) -> float:
    """Summed loss in nats over tokens that stand for num_bytes of text -> bits per byte of text."""
    return nats / math.log(2) / num_bytes


def pairwise_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """-log P(chosen is better) under Bradley & Terry (1952): rewards [B], [B] -> nats [B]."""
    return -F.logsigmoid(chosen - rejected)


def token_logprobs(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """log p of each token under softmax(logits / temperature): logits [..., V], tokens [...] -> [...] in float32."""
    scaled = logits.float() / temperature
    chosen = scaled.gather(-1, tokens[..., None]).squeeze(-1)
    return chosen - scaled.logsumexp(-1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits) in nats: logits [..., V] -> [...] in float32."""
    logprobs = logits.float().log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)


def group_advantages(rewards: Tensor, is_scaled: bool = True, eps: float = 1e-6) -> Tensor:
    """Rewards [P, G] of G completions for each of P prompts, less their group's mean -> advantages [P, G].

    Scaled by the group's deviation this is GRPO (Shao et al. 2024); unscaled it is Dr. GRPO (Liu et al. 2025).
    """
    centred = rewards - rewards.mean(-1, keepdim=True)
    return centred / (rewards.std(-1, keepdim=True, correction=0) + eps) if is_scaled else centred


def policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_low: float = 0.2, clip_high: float = 0.2
) -> Tensor:
    """PPO's clipped surrogate per token (Schulman et al. 2017), to be minimised.

    logprobs, old_logprobs and advantages broadcast to one shape [...] -> [...]. The ratio of the policies is held in
    1 - clip_low .. 1 + clip_high where moving on would pay.
    """
    ratio = (logprobs - old_logprobs).exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return -torch.minimum(ratio * advantages, clipped * advantages)


def kl_k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Schulman's k3 estimate of KL(policy || reference) per token drawn from the policy: never negative, unbiased."""
    log_ratio = reference_logprobs - logprobs
    return log_ratio.exp() - 1 - log_ratio


def masked_sum(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of values [...] where mask [...] is 1, and how many those are."""
    mask = mask.to(values.dtype)
    return (values * mask).sum(), mask.sum()
