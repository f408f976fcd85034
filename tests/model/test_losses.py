"""Losses against numbers worked out by hand, and against each other; masked places that hold NaN or infinity; rounding."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor

from model import losses

LOGITS = torch.log(tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.25, 0.5, 0.25]]))


def test_cross_entropy_sums_unmasked_places() -> None:
    nats, count = losses.cross_entropy(LOGITS, tensor([0, 2, 1]), tensor([1, 1, 0]))
    assert nats.item() == pytest.approx(-math.log(0.5) - math.log(0.7))
    assert count.item() == 2


def test_cross_entropy_ignores_a_constant_added_to_the_logits() -> None:
    shifted, _ = losses.cross_entropy(LOGITS + 300, tensor([0, 2, 1]), torch.ones(3))
    nats, _ = losses.cross_entropy(LOGITS, tensor([0, 2, 1]), torch.ones(3))
    assert shifted.item() == pytest.approx(nats.item(), abs=1e-4)


def test_cross_entropy_has_no_gradient_at_masked_targets() -> None:
    logits = LOGITS.clone().requires_grad_()
    losses.cross_entropy(logits, tensor([0, 2, 1]), tensor([1, 0, 1]))[0].backward()
    assert logits.grad is not None
    assert logits.grad[1].abs().max() == 0
    assert logits.grad[0].tolist() == pytest.approx([0.5 - 1, 0.25, 0.25])


def test_cross_entropy_equals_torch_with_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 11, generator=generator, requires_grad=True)
    targets, mask = torch.randint(11, (3, 5), generator=generator), torch.randint(2, (3, 5), generator=generator)
    wanted = (F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none") * mask.flatten()).sum()
    nats, _ = losses.cross_entropy(logits, targets, mask)
    torch.testing.assert_close(nats, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(3 * value, logits)[0] for value in (nats, wanted)))


def test_bits_per_byte_of_one_nat_is_1_44() -> None:
    assert losses.bits_per_byte(nats=50.0, num_bytes=50) == pytest.approx(1.442695)


def test_pairwise_loss_is_minus_log_of_the_probability() -> None:
    nats = losses.pairwise_loss(tensor([0.0, math.log(3), -100.0]), tensor([0.0, 0.0, 0.0]))
    assert nats.tolist() == pytest.approx([math.log(2), -math.log(0.75), 100.0])


def test_token_logprobs_divide_logits_by_the_temperature() -> None:
    assert losses.token_logprobs(LOGITS, tensor([0, 2, 1])).exp().tolist() == pytest.approx([0.5, 0.7, 0.5])
    # At temperature 1/2 probabilities are squared: 1/4 of 1/4 + 1/16 + 1/16.
    assert losses.token_logprobs(LOGITS, tensor([0, 2, 1]), 0.5)[0].exp().item() == pytest.approx(2 / 3)


def test_entropy_of_equal_and_of_certain_tokens() -> None:
    assert losses.entropy(torch.zeros(1, 8)).item() == pytest.approx(math.log(8))
    assert losses.entropy(tensor([[1000.0, 0.0]])).item() == pytest.approx(0.0)


def test_group_advantages_are_deviations_from_the_mean() -> None:
    rewards = tensor([[1.0, 0.0, 0.0, 1.0], [3.0, 3.0, 3.0, 3.0]])
    assert losses.group_advantages(rewards)[0].tolist() == pytest.approx([0.8659, -0.8659, -0.8659, 0.8659], abs=1e-4)
    assert losses.group_advantages(rewards)[1].tolist() == [0.0] * 4  # nothing to learn where all are alike
    assert losses.group_advantages(rewards, is_scaled=False)[0].tolist() == [0.5, -0.5, -0.5, 0.5]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "is_moving"),
    [
        (1.0, 2.0, -2.0, True),
        (1.5, 2.0, -2.4, False),  # better than it was and far enough: held at 1.2
        (0.5, 2.0, -1.0, True),  # worse than it was: pulled back without a limit
        (0.5, -2.0, 1.6, False),  # rare already: held at 0.8
        (1.5, -2.0, 3.0, True),
    ],
)
def test_policy_loss_is_clipped_where_a_further_move_would_lower_it(
    ratio: float, advantage: float, loss: float, is_moving: bool
) -> None:
    logprob = tensor(math.log(ratio)).requires_grad_()
    value = losses.policy_loss(logprob, tensor(0.0), tensor(advantage))
    value.backward()
    assert value.item() == pytest.approx(loss)
    assert logprob.grad is not None
    assert (logprob.grad.item() != 0) == is_moving


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"), [(1.5, 1.0, -1.28, 1), (0.5, -1.0, 0.9, 1), (0.95, -1.0, 0.95, 0)]
)
def test_policy_loss_has_separate_clip_bounds(ratio: float, advantage: float, loss: float, clipped: int) -> None:
    arguments = tensor(math.log(ratio)), tensor(0.0), tensor(advantage)
    assert losses.policy_loss(*arguments, clip_low=0.1, clip_high=0.28).item() == pytest.approx(loss)
    assert losses.is_clipped(*arguments, clip_low=0.1, clip_high=0.28).item() == clipped


@given(st.floats(-20, 5), st.floats(-20, 5))
def test_kl_k3_is_never_negative(logprob: float, reference: float) -> None:
    assert losses.kl_estimate(tensor(logprob), tensor(reference)).item() >= -1e-6


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_kl_estimates_k1_and_k3_are_unbiased(estimator: str) -> None:
    policy, reference = tensor([0.5, 0.3, 0.2]), tensor([0.2, 0.2, 0.6])
    mean = (policy * losses.kl_estimate(policy.log(), reference.log(), estimator)).sum()
    assert mean.item() == pytest.approx((policy * (policy / reference).log()).sum().item(), abs=1e-6)


def test_masked_sum_counts_unmasked_places() -> None:
    values, count = losses.masked_sum(tensor([1.0, 2.0, 4.0]), tensor([True, False, True]))
    assert (values.item(), count.item()) == (5.0, 2.0)


@settings(max_examples=300, deadline=None)
@given(
    value=st.floats(-1e4, 1e4, width=32),
    group=st.integers(2, 64),
    noise=st.sampled_from([0.0, 1e-6, 1e-5]),
    is_scaled=st.booleans(),
)
def test_group_advantages_of_equal_rewards_are_zero(value: float, group: int, noise: float, is_scaled: bool) -> None:
    """Equal but for rounding: in float32 the mean of equal rewards is not always one of them."""
    rewards = torch.full((3, group), value, dtype=torch.float64)
    rewards += noise * torch.linspace(-1, 1, group, dtype=torch.float64)
    for dtype in (torch.float64, torch.float32) if noise == 0 or abs(value) < 100 else (torch.float64,):
        advantages = losses.group_advantages(rewards.to(dtype), is_scaled)
        assert advantages.dtype == dtype
        assert advantages.abs().max() == 0


def test_group_advantages_above_the_least_deviation_are_kept() -> None:
    rewards = tensor([[1.0, 1.0 + 4 * losses.MIN_REWARD_DEVIATION]], dtype=torch.float64)
    assert losses.group_advantages(rewards)[0].tolist() == pytest.approx([-0.5224, 0.5224], abs=1e-4)
    assert losses.group_advantages(1e4 + tensor([[0.0, 1.0]]))[0].tolist() == pytest.approx([-0.7070, 0.7070], abs=1e-4)


BAD = [math.inf, -math.inf, math.nan, 1e38, -1e38]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", ["cross_entropy", "z_loss", "token_logprobs"])
def test_masked_logits_reach_neither_value_nor_gradient(name: str, bad: float) -> None:
    mask, targets = tensor([1, 0, 1]), tensor([0, 2, 1])
    value_of = {
        "cross_entropy": lambda logits: losses.cross_entropy(logits, targets, mask)[0],
        "z_loss": lambda logits: losses.z_loss(logits, mask),
        "token_logprobs": lambda logits: losses.masked_sum(losses.token_logprobs(logits, targets, 0.7, mask), mask)[0],
    }[name]
    results = []
    for middle in (torch.full((3,), bad), tensor([0.0, bad, 1.0]), LOGITS[1]):
        logits = torch.stack([LOGITS[0], middle, LOGITS[2]]).requires_grad_()
        value = value_of(logits)
        (gradient,) = torch.autograd.grad(value, logits)
        assert gradient[1].abs().max() == 0
        results.append((value.item(), gradient[[0, 2]]))
    for value, gradient in results:
        assert value == results[-1][0]
        assert torch.equal(gradient, results[-1][1])


@pytest.mark.parametrize("bad", [*BAD, 200.0, -200.0])
@pytest.mark.parametrize("name", ["policy_loss", "kl_estimate", "is_clipped"])
def test_masked_logprobs_reach_neither_value_nor_gradient(name: str, bad: float) -> None:
    mask, others = tensor([1.0, 0.0, 1.0]), tensor([-1.0, -1.5, -2.0])
    value_of = {
        "policy_loss": lambda logprobs: losses.policy_loss(logprobs, others, tensor([[1.0], [-1.0]]), mask=mask),
        "kl_estimate": lambda logprobs: losses.kl_estimate(logprobs, others, mask=mask),
        "is_clipped": lambda logprobs: (
            losses.is_clipped(logprobs, others, tensor([[1.0], [-1.0]]), 0.1, 0.3, mask)
            + 0 * logprobs.where(mask > 0, 0.0)
        ),
    }[name]
    logprobs = tensor([-1.1, bad, -1.9]).requires_grad_()
    value = losses.masked_sum(value_of(logprobs), mask.expand_as(value_of(logprobs)))[0]
    (gradient,) = torch.autograd.grad(value, logprobs)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert gradient[1] == 0


@pytest.mark.parametrize("difference", [30.0, 100.0, 1e4, -1e4])
def test_unmasked_ratio_of_any_size_is_finite(difference: float) -> None:
    logprobs = tensor([difference]).requires_grad_()
    value = (
        losses.policy_loss(logprobs, tensor([0.0]), tensor([-1.0])) + losses.kl_estimate(logprobs, tensor([0.0]))
    ).sum()
    assert value.isfinite()
    assert torch.autograd.grad(value, logprobs)[0].isfinite().all()


def test_entropy_counts_impossible_tokens_as_zero() -> None:
    assert losses.entropy(tensor([0.0, 0.0, -math.inf])).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("bad", BAD[:3])
def test_masked_sum_leaves_out_what_is_not_finite(bad: float) -> None:
    values = tensor([1.0, bad, 4.0]).requires_grad_()
    value, count = losses.masked_sum(values, tensor([1.0, 0.0, 1.0]))
    assert (value.item(), count.item()) == (5.0, 2.0)
    assert torch.autograd.grad(value, values)[0].tolist() == [1, 0, 1]
