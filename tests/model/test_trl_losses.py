"""model/losses.py gives TRL's numbers on the same tensors, as tests/golden/trl_losses.py recorded them: values and gradients to 1e-5."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, tensor

from model import losses

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "trl_losses.json").read_text())
GIVEN = {name: tensor(values) for name, values in GOLDEN["inputs"].items()}
MASK = GIVEN["mask"]


def close(ours: Tensor, theirs: Any) -> None:
    torch.testing.assert_close(ours.detach(), tensor(theirs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["scaled", "unscaled"])
def test_group_advantages_equal_trl(name: str) -> None:
    ours = losses.group_advantages(GIVEN["rewards"].view(-1, 3), is_scaled=name == "scaled")
    close(ours.flatten(), GOLDEN["grpo"][f"advantages/{name}"])


def grpo_loss(now: Tensor, loss_type: str, level: str, low: float = 0.2, high: float = 0.28) -> Tensor:
    """As model/rl/online.py puts it together, with one microbatch."""
    old, reference = GIVEN["old"], GIVEN["reference"]
    ratios = (now, old)
    if level == "sequence":
        ratios = (losses.sequence_logprobs(now, MASK), losses.sequence_logprobs(old, MASK))
    surrogate = losses.policy_loss(*ratios, GIVEN["advantages"][:, None], low, high)
    per_token = surrogate + 0.05 * losses.kl_estimate(now, reference, "k3", MASK)
    weights, num_terms = losses.token_weights(MASK, loss_type, max_tokens=8)
    return losses.masked_sum(weights * per_token, weights > 0)[0] / num_terms


CASES = ["grpo/token", "bnpo/token", "dr_grpo/token", "dapo/token", "grpo/sequence"]


@pytest.mark.parametrize("case", CASES)
def test_grpo_losses_equal_trl(case: str) -> None:
    now = GIVEN["now"].clone().requires_grad_()
    loss = grpo_loss(now, *case.split("/"))
    close(loss, GOLDEN["grpo"][f"loss/{case}"]["value"])
    close(torch.autograd.grad(loss, now)[0], GOLDEN["grpo"][f"loss/{case}"]["gradient"])


@pytest.mark.parametrize("case", CASES)
def test_swapped_clip_bounds_differ_from_trl(case: str) -> None:
    """What the test above compares depends on which bound is which."""
    swapped = grpo_loss(GIVEN["now"], *case.split("/"), low=0.28, high=0.2)
    assert abs(swapped.item() - GOLDEN["grpo"][f"loss/{case}"]["value"]) > 1e-3


@pytest.mark.parametrize("loss_type", ["sigmoid", "robust", "hinge", "ipo"])
def test_preference_losses_equal_trl(loss_type: str) -> None:
    now = GIVEN["now"].clone().requires_grad_()
    ratios = ((now - GIVEN["reference"]) * MASK).sum(-1) / (MASK.sum(-1) if loss_type == "ipo" else 1)
    # TRL's sigmoid has no label smoothing; its robust loss has.
    smoothing = 0.1 if loss_type == "robust" else 0.0
    nats = losses.preference_loss(*ratios.chunk(2), loss_type, beta=0.3, label_smoothing=smoothing)
    close(nats, GOLDEN["dpo"][loss_type]["value"])
    close(torch.autograd.grad(nats.sum(), now)[0], GOLDEN["dpo"][loss_type]["gradient"])


def test_conservative_dpo_is_the_mean_over_right_and_wrong_pairs() -> None:
    chosen, rejected = tensor([0.5, -1.0]), tensor([-0.2, 0.3])
    right, wrong = losses.preference_loss(chosen, rejected), losses.preference_loss(rejected, chosen)
    close(losses.preference_loss(chosen, rejected, label_smoothing=0.2), (0.8 * right + 0.2 * wrong).tolist())


def test_reward_model_loss_equals_trl() -> None:
    close(losses.pairwise_loss(*GIVEN["scores"].chunk(2)).mean(), GOLDEN["reward"]["value"])


def episodes(name: str) -> tuple[Tensor, Tensor]:
    """Masks of the tokens and of the places that TRL gives a value and a reward: it counts one more after a completion's end."""
    mask = torch.ones_like(MASK) if name == "full" else MASK
    return mask, (torch.arange(mask.shape[1]) < mask.sum(-1, keepdim=True) + 1).float()


@pytest.mark.parametrize("name", ["full", "padded"])
@pytest.mark.parametrize("estimator", ["k1", "k3"])
@pytest.mark.parametrize("scale", ["plain", "whitened"])
def test_ppo_advantages_equal_trl(name: str, estimator: str, scale: str) -> None:
    golden = GOLDEN["ppo"][f"{name}/{estimator}/{scale}"]
    mask, places = episodes(name)
    kl = losses.kl_estimate(GIVEN["old"], GIVEN["reference"], estimator, mask)
    close(kl, golden["kl"])
    # TRL puts the score at the place after a completion; where that place is missing, as here, at the last token.
    rewards = losses.token_rewards(GIVEN["scores"], kl, 0.05, places)
    if scale == "whitened":
        rewards = losses.whiten(rewards, losses.masked_moments(rewards, places), keeps_mean=True) * places
    close(rewards, golden["rewards"])
    advantages = losses.generalized_advantages(rewards, GIVEN["values"], places, discount=0.98, trace=0.95)
    close((advantages + GIVEN["values"] * places) * places, (tensor(golden["returns"]) * places).tolist())
    advantages = losses.whiten(advantages, losses.masked_moments(advantages, mask)) * mask
    close(advantages, golden["advantages"])


@pytest.mark.parametrize("name", ["full", "padded"])
def test_ppo_losses_equal_trl(name: str) -> None:
    golden, made = GOLDEN["ppo"][f"{name}/loss"], GOLDEN["ppo"][f"{name}/k3/whitened"]
    mask, places = episodes(name)
    now, values = GIVEN["now"].clone().requires_grad_(), GIVEN["new_values"].clone().requires_grad_()
    surrogate = losses.policy_loss(now, GIVEN["old"], tensor(made["advantages"]), 0.2, 0.2, mask)
    policy = losses.masked_sum(surrogate, mask)[0] / mask.sum()
    squared = losses.value_loss(values, GIVEN["values"], tensor(made["returns"]), clip=0.2)
    value = losses.masked_sum(squared, places)[0] / places.sum()
    close(policy, golden["policy"])
    close(value, golden["value"])
    close(torch.autograd.grad(policy, now)[0], golden["policy_gradient"])
    close(torch.autograd.grad(value, values)[0], golden["value_gradient"])


def test_advantages_of_an_episode_within_a_row_do_not_see_its_surroundings() -> None:
    """Discounted sums by hand; prompt and padding hold what must not be read."""
    nan = float("nan")
    rewards, values = tensor([[nan, 0.0, 1.0, nan]]), tensor([[nan, 0.5, 0.25, nan]])
    advantages = losses.generalized_advantages(rewards, values, tensor([[0.0, 1.0, 1.0, 0.0]]), discount=0.5, trace=0.5)
    last = 1.0 - 0.25
    close(advantages, [[0.0, 0.5 * 0.25 - 0.5 + 0.25 * last, last, 0.0]])
