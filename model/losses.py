"""The losses of every objective. Reads and writes nothing; all values are in nats, except bits per byte.

Losses over tokens are a sum and a count, or one value per token, never a mean: a mean over microbatches and ranks is exact
only if the sums are divided by the count of the whole batch.

A place whose mask is 0 contributes exactly 0 to a sum and to its gradient, whatever stands there. Multiplying by the mask is not enough:
0 times infinity is NaN, in the backward pass too. So masked places are replaced before the operation that may overflow.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Of a group's rewards; below it they are equal but for rounding (TRL adds as much to the deviation).
MIN_REWARD_DEVIATION = 1e-4
# Of two policies' probabilities of a token, as in verl: exp of a larger one overflows sooner or later; exp(20) is 4.9e8. Beyond it a
# token has no gradient any more.
MAX_LOG_RATIO = 20.0


def cross_entropy(logits: Tensor, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of -log p(target) where mask is 1, and the number of those places.

    logits [..., V], targets [...] int64, mask [...] 0 or 1 -> two float32 scalars.
    """
    # float32: a sum over the vocabulary is too coarse in bfloat16.
    nats: Tensor = TokenNats.apply(logits.float(), targets)  # type: ignore[no-untyped-call]
    return masked_sum(nats, mask)


class TokenNats(torch.autograd.Function):
    """-log p(target): logits [..., V] in float32, targets [...] -> [...].

    The same as torch's cross entropy with two tensors [..., V] less: the saved log-probabilities become the gradient in place.
    Where the gradient from above is 0, the gradient of the logits is 0, even if a logit is infinite or NaN.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        """-log p(target) in nats: logits [..., V] in float32, targets [...] int64 -> [...]."""
        # One such tensor of 16 sequences of 1,024 tokens with GPT-2's vocabulary has 3.3 GB: it is what a step's memory peaks at.
        # Only the log-probabilities are saved: softmax is their exponential, and the logits are not needed again.
        logprobs, targets = logits.log_softmax(-1), targets[..., None]
        ctx.save_for_backward(logprobs, targets)
        return -logprobs.gather(-1, targets).squeeze(-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Gradient [...] of the result -> gradient [..., V] of the logits: (softmax - one-hot target) times it. Targets have none."""
        logprobs, targets = ctx.saved_tensors
        gradient = gradient[..., None]
        # A second backward through the same graph raises torch's error
        # about a tensor modified in place: no wrong gradient comes out.
        # d(-log p_target)/d logits = softmax - one-hot(target). In place, since nothing else needs the log-probabilities.
        of_logits = logprobs.exp_().mul_(gradient).scatter_add_(-1, targets, -gradient)
        return of_logits.masked_fill_(gradient == 0, 0.0), None


def z_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Sum of the squared log of softmax's denominator where mask is 1, which keeps logits near 0 (PaLM, Chowdhery et al. 2022).

    logits [..., V], mask [...] 0 or 1 -> a float32 scalar.
    """
    # Softmax ignores a constant added to all logits, so cross entropy lets them drift; in bfloat16 large ones are coarse.
    return masked_sum(_masked_rows(logits.float(), mask).logsumexp(-1).square(), mask)[0]


def bits_per_byte(nats: float, num_bytes: float) -> float:
    """Bits per byte of a text of num_bytes whose tokens have a summed loss of nats. Independent of the tokenizer."""
    # A tokenizer with longer tokens has a higher loss per token on the same text, so nats per token compare nothing.
    return nats / math.log(2) / num_bytes


def pairwise_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """-log P(chosen is better) in the model of Bradley & Terry (1952): rewards [B], [B] -> nats [B]."""
    # logsigmoid rather than log of sigmoid: finite for any difference.
    return -F.logsigmoid(chosen - rejected)


def token_logprobs(logits: Tensor, tokens: Tensor, temperature: float = 1.0, mask: Tensor | None = None) -> Tensor:
    """log p of each token under softmax(logits / temperature): logits [..., V], tokens [...] -> [...] in float32.

    mask [...]: where it is 0, neither the value nor the gradient depends on the logits.
    """
    # Masked before exp: see the module's docstring.
    scaled = (logits.float() if mask is None else _masked_rows(logits.float(), mask)) / temperature
    chosen = scaled.gather(-1, tokens[..., None]).squeeze(-1)
    return chosen - scaled.logsumexp(-1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits) in nats: logits [..., V] -> [...] in float32. A logit of -inf adds nothing (0 log 0 is 0)."""
    # 0 x -inf is NaN: impossible tokens are left out before the product.
    logprobs = logits.float().log_softmax(-1)
    return -(logprobs.exp() * logprobs.where(logprobs > float("-inf"), 0.0)).sum(-1)


def group_advantages(rewards: Tensor, is_scaled: bool = True) -> Tensor:
    """Rewards [P, G] of G completions of each of P prompts -> advantages [P, G]: rewards minus their group's mean.

    Divided by the group's standard deviation these are GRPO's (Shao et al. 2024); without, Dr. GRPO's (Liu et al. 2025).
    A group whose deviation is below MIN_REWARD_DEVIATION has advantages of 0. Computed in float64: in float32 the mean of equal
    rewards differs from them by rounding, which division by a deviation of the same size makes an advantage of up to 0.5.
    """
    exact = rewards.double()
    centred = exact - exact.mean(-1, keepdim=True)
    # The biased deviation (over G): the advantages of a group then have a mean square of exactly 1.
    deviation = centred.square().mean(-1, keepdim=True).sqrt()
    scaled = centred / deviation.clamp(min=MIN_REWARD_DEVIATION) if is_scaled else centred
    # Not >=: NaN compares false with everything, so a NaN reward stays visible and is not turned into 0.
    return scaled.where(~(deviation < MIN_REWARD_DEVIATION), 0.0).to(rewards.dtype)


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    mask: Tensor | None = None,
) -> Tensor:
    """PPO's clipped surrogate per token (Schulman et al. 2017, equation 7), to be minimised.

    logprobs, old_logprobs, advantages and mask broadcast to one shape [...] -> [...]. The ratio of the policies is clipped to
    1 - clip_low .. 1 + clip_high where leaving that range would lower the loss; with clip_high > clip_low this is DAPO's
    "clip-higher" (Yu et al. 2025). Where mask is 0 the ratio counts as 1.
    """
    ratio = _log_ratio(logprobs, old_logprobs, mask).exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    # For a negative advantage a ratio above 1 has no bound but MAX_LOG_RATIO, as in the paper.
    # The minimum is a pessimistic bound: clipping takes away the gain of a large move, never its loss (section 3).
    return -torch.minimum(ratio * advantages, clipped * advantages)


def is_clipped(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    clip_low: float,
    clip_high: float,
    mask: Tensor | None = None,
) -> Tensor:
    """1 for each token whose gradient `policy_loss` cuts off, else 0: [...] in float32."""
    ratio = _log_ratio(logprobs, old_logprobs, mask).exp()
    # Outside on the other side the minimum takes the unclipped term, whose gradient pulls the ratio back.
    return torch.where(advantages > 0, ratio > 1 + clip_high, ratio < 1 - clip_low).float()


def kl_k3(logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor | None = None) -> Tensor:
    """Schulman's k3 estimate of KL(policy || reference), per token drawn from the policy: unbiased and never negative.

    http://joschu.net/blog/kl-approx.html. Shapes [...] -> [...]; 0 where mask is 0.
    """
    # The value estimates KL(policy || reference). As a term of the loss its gradient is (1 - r) grad log p with r = reference /
    # policy, whose mean under the policy is the gradient of KL(reference || policy). GRPO has it so (equation 4).
    log_ratio = _log_ratio(reference_logprobs, logprobs, mask)
    # expm1: exp - 1 of a small ratio would lose its digits.
    return log_ratio.expm1() - log_ratio


def _log_ratio(logprobs: Tensor, others: Tensor, mask: Tensor | None) -> Tensor:
    """logprobs - others, 0 where mask is 0, within plus and minus MAX_LOG_RATIO. Selected first, so that no exponent overflows."""
    difference = logprobs - others
    if mask is not None:
        difference = torch.where(mask.bool(), difference, 0.0)
    return difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def _masked_rows(logits: Tensor, mask: Tensor) -> Tensor:
    """Logits [..., V] with zeros where mask [...] is 0."""
    return torch.where(mask.bool()[..., None], logits, 0.0)


def masked_sum(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of values [...] where mask [...] is 1, and the number of those places."""
    return torch.where(mask.bool(), values, 0.0).sum(), mask.to(values.dtype).sum()
