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
    """-log p(target): logits [..., V] in float32, targets [...] -> [...]. With `has_entropy` also the entropy [...], without a gradient.

    The same as torch's cross entropy with two tensors [..., V] less: the saved log-probabilities become the gradient in place.
    Where the gradient from above is 0, the gradient of the logits is 0, even if a logit is infinite or NaN.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, has_entropy: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """-log p(target) in nats: logits [..., V] in float32, targets [...] int64 -> [...]; `has_entropy`: and the entropy [...]."""
        # One such tensor of 16 sequences of 1,024 tokens with GPT-2's vocabulary has 3.3 GB: it is what a step's memory peaks at.
        # Only the log-probabilities are saved: softmax is their exponential, and the logits are not needed again.
        logprobs, targets = logits.log_softmax(-1), targets[..., None]
        nats = -logprobs.gather(-1, targets).squeeze(-1)
        ctx.has_softmax = has_entropy
        if not has_entropy:
            ctx.save_for_backward(logprobs, targets)
            return nats
        # The entropy needs the exponential already: then that is saved, and taken once.
        probabilities = logprobs.exp()
        entropies = _entropy(logprobs, probabilities)
        ctx.save_for_backward(probabilities, targets)
        ctx.mark_non_differentiable(entropies)
        return nats, entropies

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
        """Gradient [...] of the result -> gradient [..., V] of the logits: (softmax - one-hot target) times it. Targets have none."""
        saved, targets = ctx.saved_tensors
        gradient = gradient[..., None]
        # A second backward through the same graph raises torch's error
        # about a tensor modified in place: no wrong gradient comes out.
        # d(-log p_target)/d logits = softmax - one-hot(target). In place, since nothing else needs what was saved.
        softmax = saved if ctx.has_softmax else saved.exp_()
        of_logits = softmax.mul_(gradient).scatter_add_(-1, targets, -gradient)
        return of_logits.masked_fill_(gradient == 0, 0.0), None, None


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
    scaled = logits.float() if mask is None else _masked_rows(logits.float(), mask)
    scaled = scaled if temperature == 1.0 else scaled / temperature
    # Not the chosen logit minus logsumexp: that is four passes over the vocabulary on a CPU, this is a fused one.
    chosen: Tensor = scaled.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
    return chosen


def entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits) in nats: logits [..., V] -> [...] in float32. A logit of -inf adds nothing (0 log 0 is 0)."""
    logprobs = logits.float().log_softmax(-1)
    return _entropy(logprobs, logprobs.exp())


def _entropy(logprobs: Tensor, probabilities: Tensor) -> Tensor:
    mean: Tensor = torch.linalg.vecdot(probabilities, logprobs)
    # 0 x -inf is NaN: then once more, with a bound that changes no other product, since below -104 the exponential is 0 in float32.
    # Not always: the bounded copy is a pass over the whole vocabulary.
    if mean.isnan().any():
        mean = torch.linalg.vecdot(probabilities, logprobs.clamp_min(-1e3))
    return -mean


def group_advantages(rewards: Tensor, is_scaled: bool = True, eps: float = MIN_REWARD_DEVIATION) -> Tensor:
    """Rewards [P, G] of G completions of each of P prompts -> advantages [P, G]: rewards minus their group's mean.

    Divided by the group's standard deviation (over G - 1) plus `eps` these are GRPO's (Shao et al. 2024); without, Dr. GRPO's (Liu et al.
    2025). A dead group has advantages of 0. Computed in float64: in float32 the mean of equal rewards differs from them by rounding,
    which division by a deviation of the same size makes an advantage of up to 0.5.
    """
    exact = rewards.double()
    centred = exact - exact.mean(-1, keepdim=True)
    deviation = (centred.square().sum(-1, keepdim=True) / max(rewards.shape[-1] - 1, 1)).sqrt()
    scaled = centred / (deviation + eps) if is_scaled else centred
    return scaled.where(~dead_groups(rewards)[..., None], 0.0).to(rewards.dtype)


def dead_groups(rewards: Tensor) -> Tensor:
    """Whether all rewards [P, G] of a group are equal, so that nothing is learned from it: [P] bool."""
    exact = rewards.double()
    # NaN compares false with everything, so a NaN reward stays visible and makes no dead group.
    return exact.amax(-1) - exact.amin(-1) < MIN_REWARD_DEVIATION


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


def sequence_logprobs(logprobs: Tensor, mask: Tensor) -> Tensor:
    """The mean log-probability of a completion's tokens: [N, T], mask [N, T] -> [N, 1].

    In place of those of the tokens in `policy_loss` it makes the ratio GSPO's, one for a completion (Zheng et al. 2025,
    https://arxiv.org/abs/2507.18071, equation 7).
    """
    chosen = torch.where(mask.bool(), logprobs, 0.0)
    return chosen.sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)


def token_weights(mask: Tensor, loss_type: str, max_tokens: int) -> tuple[Tensor, Tensor]:
    """How much each completion token weighs in the loss of an update: mask [N, T] -> weights [N, T], and the number of terms.

    The loss is the weighted sum over the update's microbatches, divided by the sum of their numbers of terms.

    - grpo: the mean over the tokens of a completion, then over completions (Shao et al. 2024, equation 3): a token of a long
      completion weighs less than one of a short.
    - dapo: the mean over all tokens of the update (Yu et al. 2025, section 3.3).
    - bnpo: the mean over the tokens of a microbatch, then over microbatches (the name is TRL's).
    - dr_grpo: the sum over the tokens of a completion over the constant `max_tokens` (Liu et al. 2025), then the mean over completions.
    """
    mask = mask.float()
    # A completion without a token, one of a dead group, is not counted.
    num_rows = (mask.sum(-1) > 0).sum()
    if loss_type == "grpo":
        return mask / mask.sum(-1, keepdim=True).clamp(min=1), num_rows
    if loss_type == "dr_grpo":
        return mask / max_tokens, num_rows
    if loss_type == "bnpo":
        return mask / mask.sum().clamp(min=1), (num_rows > 0).sum()
    return mask, mask.sum()


def kl_estimate(
    logprobs: Tensor, reference_logprobs: Tensor, estimator: str = "k3", mask: Tensor | None = None
) -> Tensor:
    """Schulman's estimate k1, k2 or k3 of KL(policy || reference), per token drawn from the policy: [...] -> [...]; 0 where mask is 0.

    http://joschu.net/blog/kl-approx.html. k1 is unbiased and may be negative; k2 is biased, with a small variance; k3 is unbiased and
    never negative. In a reward k1 is meant. As a term of the loss k1 is of no use, since the mean of its gradient is 0. The mean gradient of
    k2 is that of KL(policy || reference), of k3 that of KL(reference || policy); GRPO has k3 (equation 4).
    """
    log_ratio = _log_ratio(logprobs, reference_logprobs, mask)
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return log_ratio.square() / 2
    # expm1: exp - 1 of a small ratio would lose its digits.
    return (-log_ratio).expm1() + log_ratio


def generalized_advantages(rewards: Tensor, values: Tensor, mask: Tensor, discount: float, trace: float) -> Tensor:
    """Generalized advantage estimates (GAE, Schulman et al. 2016, https://arxiv.org/abs/1506.02438, equation 16): [N, T].

    rewards, values, mask [N, T]: the reward of taking token t, the critic's value of the state before it, and 1 on the completion,
    whose places are neighbours. `discount` is gamma, `trace` lambda. The state after a completion's last token has a value of 0. Advantages
    plus values are the returns that the critic learns.
    """
    kept = mask.bool()
    values, rewards = torch.where(kept, values, 0.0), torch.where(kept, rewards, 0.0)
    advantages, running, next_value = (
        torch.zeros_like(values),
        torch.zeros_like(values[:, 0]),
        torch.zeros_like(values[:, 0]),
    )
    for place in reversed(range(values.shape[1])):
        error = rewards[:, place] + discount * next_value - values[:, place]
        # Outside of the completion error and running sum are 0, as every row's padding and prompt must be.
        running = torch.where(kept[:, place], error + discount * trace * running, 0.0)
        advantages[:, place], next_value = running, values[:, place]
    return advantages


def token_rewards(scores: Tensor, kl: Tensor, kl_coef: float, mask: Tensor) -> Tensor:
    """The reward of each token in PPO for language models (Ziegler et al. 2019, equation 2; Ouyang et al. 2022): [N, T].

    Minus kl_coef times the token's KL [N, T], and at the last token of the completion its score [N].
    """
    places = torch.arange(mask.shape[1], device=mask.device)
    is_last = places == (mask * places).argmax(-1, keepdim=True)
    rewards = is_last * scores[:, None] - kl_coef * kl
    return torch.where(mask.bool(), rewards, 0.0)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """PPO's clipped value loss, half the squared error per token: all [...] -> [...].

    The critic may not gain by leaving old_values - clip .. old_values + clip (Huang et al. 2022, "The 37 implementation details of PPO",
    detail 9): the larger of the two errors counts.
    """
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return torch.maximum((values - returns).square(), (clipped - returns).square()) / 2


def masked_moments(values: Tensor, mask: Tensor) -> Tensor:
    """Count, sum and sum of squares of the values [...] where mask [...] is 1: [3] in float64, to be summed over ranks."""
    kept = torch.where(mask.bool(), values, 0.0).double()
    return torch.stack((mask.double().sum(), kept.sum(), kept.square().sum()))


def whiten(values: Tensor, moments: Tensor, keeps_mean: bool = False) -> Tensor:
    """Values [...] with mean 0 and variance 1, by moments as `masked_moments` gives them. `keeps_mean`: only the variance changes."""
    count, total, squares = map(float, moments)
    mean = total / count
    # Over count - 1, as TRL has it; the floor serves a single value, and equal ones.
    variance = max(squares - count * mean * mean, 0.0) / max(count - 1, 1)
    whitened = (values - mean) / math.sqrt(variance + 1e-8)
    return whitened + mean if keeps_mean else whitened


def preference_loss(
    chosen: Tensor, rejected: Tensor, loss_type: str = "sigmoid", beta: float = 0.1, label_smoothing: float = 0.0
) -> Tensor:
    """Direct preference optimization: nats [B] of pairs, from the log-ratios [B] of policy and reference of their two completions.

    - sigmoid: DPO (Rafailov et al. 2023, https://arxiv.org/abs/2305.18290, equation 7). With label_smoothing, the probability that a pair is the
      wrong way round, conservative DPO (Mitchell 2023, https://ericmitchell.ai/cdpo.pdf).
    - robust: unbiased under such noise (Chowdhury et al. 2024, https://arxiv.org/abs/2403.00409, equation 12).
    - hinge: SLiC (Zhao et al. 2023, https://arxiv.org/abs/2305.10425).
    - ipo: the margin is drawn to 1 / (2 beta) (Azar et al. 2023, https://arxiv.org/abs/2310.12036, equation 17). Its log-ratios are means over
      tokens, not sums, as its authors confirmed to TRL.
    """
    margin = chosen - rejected
    if loss_type == "hinge":
        return (1 - beta * margin).relu()
    if loss_type == "ipo":
        return (margin - 1 / (2 * beta)).square()
    right, wrong = pairwise_loss(beta * chosen, beta * rejected), pairwise_loss(beta * rejected, beta * chosen)
    if loss_type == "robust":
        return ((1 - label_smoothing) * right - label_smoothing * wrong) / (1 - 2 * label_smoothing)
    return (1 - label_smoothing) * right + label_smoothing * wrong


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
