"""The functions of Stanford CS336's assignment 5 (alignment), as thin adapters around model/losses.py, with values by hand.

https://github.com/stanford-cs336/assignment5-alignment, tests/adapters.py, names and shapes as there.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, tensor

from model import losses


def compute_group_normalized_rewards(
    reward_fn: Callable[[str, str], dict[str, float]],
    rollout_responses: list[str],
    repeated_ground_truths: list[str],
    group_size: int,
    advantage_eps: float,
    normalize_by_std: bool,
) -> tuple[Tensor, Tensor, dict[str, float]]:
    scored = [reward_fn(*both) for both in zip(rollout_responses, repeated_ground_truths, strict=True)]
    rewards = tensor([one["reward"] for one in scored])
    advantages = losses.group_advantages(rewards.view(-1, group_size), normalize_by_std, advantage_eps).flatten()
    return advantages, rewards, {"mean": rewards.mean().item()}


def compute_entropy(logits: Tensor) -> Tensor:
    return losses.entropy(logits)


def get_response_log_probs(
    model: Any, input_ids: Tensor, labels: Tensor, return_token_entropy: bool
) -> dict[str, Tensor]:
    logits = model(input_ids)
    found = {"log_probs": losses.token_logprobs(logits, labels)}
    return found | ({"token_entropy": losses.entropy(logits)} if return_token_entropy else {})


def compute_naive_policy_gradient_loss(raw_rewards_or_advantages: Tensor, policy_log_probs: Tensor) -> Tensor:
    return -raw_rewards_or_advantages * policy_log_probs


def compute_grpo_clip_loss(
    advantages: Tensor, policy_log_probs: Tensor, old_log_probs: Tensor, cliprange: float
) -> tuple[Tensor, dict[str, Tensor]]:
    arguments = policy_log_probs, old_log_probs, advantages, cliprange, cliprange
    return losses.policy_loss(*arguments), {"is_clipped": losses.is_clipped(*arguments)}


def compute_policy_gradient_loss(
    policy_log_probs: Tensor,
    loss_type: Literal["no_baseline", "reinforce_with_baseline", "grpo_clip"],
    raw_rewards: Tensor,
    advantages: Tensor,
    old_log_probs: Tensor,
    cliprange: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    if loss_type == "grpo_clip":
        return compute_grpo_clip_loss(advantages, policy_log_probs, old_log_probs, cliprange)
    weights = raw_rewards if loss_type == "no_baseline" else advantages
    return compute_naive_policy_gradient_loss(weights, policy_log_probs), {}


def masked_mean(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    if dim is None:
        total, count = losses.masked_sum(values, mask)
        return total / count
    return torch.where(mask.bool(), values, 0.0).sum(dim) / mask.sum(dim)


def masked_normalize(values: Tensor, mask: Tensor, dim: int | None = None, normalize_constant: float = 1.0) -> Tensor:
    total = losses.masked_sum(values, mask)[0] if dim is None else torch.where(mask.bool(), values, 0.0).sum(dim)
    return total / normalize_constant


def sft_microbatch_train_step(
    policy_log_probs: Tensor, response_mask: Tensor, gradient_accumulation_steps: int, normalize_constant: float = 1.0
) -> tuple[Tensor, dict[str, Tensor]]:
    nats = -masked_normalize(policy_log_probs, response_mask, -1, normalize_constant).mean()
    loss = nats / gradient_accumulation_steps
    loss.backward()
    return loss.detach(), {}


def grpo_microbatch_train_step(
    policy_log_probs: Tensor,
    response_mask: Tensor,
    gradient_accumulation_steps: int,
    loss_type: Literal["no_baseline", "reinforce_with_baseline", "grpo_clip"],
    raw_rewards: Tensor,
    advantages: Tensor,
    old_log_probs: Tensor,
    cliprange: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    per_token, details = compute_policy_gradient_loss(
        policy_log_probs, loss_type, raw_rewards, advantages, old_log_probs, cliprange
    )
    weights, num_terms = losses.token_weights(response_mask, "grpo", max_tokens=1)
    loss = (weights * per_token).sum() / num_terms / gradient_accumulation_steps
    loss.backward()
    return loss.detach(), details


def compute_per_instance_dpo_loss(
    lm: Callable[[Tensor], Tensor], lm_ref: Callable[[Tensor], Tensor], beta: float, chosen: Tensor, rejected: Tensor
) -> Tensor:
    ratios = [
        (losses.token_logprobs(lm(side), side[1:]) - losses.token_logprobs(lm_ref(side), side[1:])).sum()
        for side in (chosen, rejected)
    ]
    return losses.preference_loss(*ratios, beta=beta)


def test_group_normalized_rewards() -> None:
    answers, truths = ["1", "2", "3", "3"], ["1", "1", "3", "3"]
    arguments = (lambda reply, truth: {"reward": float(reply == truth)}, answers, truths, 2, 1e-6)
    advantages, rewards, details = compute_group_normalized_rewards(*arguments, normalize_by_std=True)
    assert rewards.tolist() == [1, 0, 1, 1]
    # 1 and 0 have a mean of 1/2 and, over G - 1, a deviation of sqrt(1/2).
    assert advantages.tolist() == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5), 0, 0], abs=1e-5)
    assert details["mean"] == 0.75
    unscaled, _, _ = compute_group_normalized_rewards(*arguments, normalize_by_std=False)
    assert unscaled.tolist() == [0.5, -0.5, 0, 0]


def test_entropy_and_response_log_probs() -> None:
    logits = tensor([[[0.0, 0.0], [math.log(3), 0.0]]])
    found = get_response_log_probs(lambda _: logits, tensor([[0, 1]]), tensor([[1, 0]]), return_token_entropy=True)
    assert found["log_probs"][0].tolist() == pytest.approx([math.log(0.5), math.log(0.75)])
    second = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found["token_entropy"][0].tolist() == pytest.approx([math.log(2), second])
    assert torch.equal(compute_entropy(logits), found["token_entropy"])


def test_policy_gradient_losses() -> None:
    now, old = tensor([[math.log(0.6), math.log(0.5)]]), tensor([[math.log(0.4), math.log(0.5)]])
    raw, advantages = tensor([[2.0]]), tensor([[1.0]])
    loss, _ = compute_policy_gradient_loss(now, "no_baseline", raw, advantages, old, 0.2)
    assert loss[0].tolist() == pytest.approx([-2 * math.log(0.6), -2 * math.log(0.5)])
    loss, _ = compute_policy_gradient_loss(now, "reinforce_with_baseline", raw, advantages, old, 0.2)
    assert loss[0].tolist() == pytest.approx([-math.log(0.6), -math.log(0.5)])
    loss, details = compute_policy_gradient_loss(now, "grpo_clip", raw, advantages, old, 0.2)
    assert loss[0].tolist() == pytest.approx([-1.2, -1.0])  # the first ratio, 1.5, is clipped
    assert details["is_clipped"][0].tolist() == [1, 0]


def test_masked_mean_and_normalize() -> None:
    values, mask = tensor([[1.0, 2.0, 9.0], [4.0, 9.0, 9.0]]), tensor([[1, 1, 0], [1, 0, 0]])
    assert masked_mean(values, mask).item() == pytest.approx(7 / 3)
    assert masked_mean(values, mask, 1).tolist() == [1.5, 4.0]
    assert masked_normalize(values, mask, normalize_constant=2.0).item() == 3.5
    assert masked_normalize(values, mask, 1, 2.0).tolist() == [1.5, 2.0]


def test_sft_microbatch_train_step() -> None:
    logprobs = tensor([[-1.0, -2.0], [-3.0, -4.0]], requires_grad=True)
    loss, _ = sft_microbatch_train_step(logprobs, tensor([[1, 1], [1, 0]]), 2, normalize_constant=1.0)
    assert loss.item() == pytest.approx((3 + 3) / 2 / 2)
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[-0.25, -0.25], [-0.25, 0]]


def test_grpo_microbatch_train_step() -> None:
    logprobs = tensor([[-1.0, -2.0], [-3.0, -4.0]], requires_grad=True)
    mask, advantages = tensor([[1, 1], [1, 0]]), tensor([[2.0], [-1.0]])
    step = (logprobs, mask, 2, "grpo_clip", advantages, advantages, logprobs.detach(), 0.2)
    loss, _ = grpo_microbatch_train_step(*step)  # type: ignore[arg-type]
    # Ratios of 1: minus the advantage for each completion, then the mean over completions.
    assert loss.item() == pytest.approx((-2 + 1) / 2 / 2)
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[-0.25, -0.25], [0.25, 0]]


def test_per_instance_dpo_loss() -> None:
    def language_model(odds: float) -> Callable[[Tensor], Tensor]:
        return lambda tokens: tensor([[0.0, math.log(odds)]]).expand(len(tokens) - 1, 2)

    # Token 1 has the probability 3/4 under the policy and 1/2 under the reference: log-ratios of log(3/2) and log(1/2).
    loss = compute_per_instance_dpo_loss(language_model(3), language_model(1), 0.5, tensor([0, 1]), tensor([0, 0]))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-0.5 * math.log(3))))
