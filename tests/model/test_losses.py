"""Losses against numbers worked out by hand, and against each other."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor

from model import losses

LOGITS = torch.log(tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [0.25, 0.5, 0.25]]))


def test_cross_entropy_sums_what_the_mask_names() -> None:
    nats, count = losses.cross_entropy(LOGITS, tensor([0, 2, 1]), tensor([1, 1, 0]))
    assert nats.item() == pytest.approx(-math.log(0.5) - math.log(0.7))
    assert count.item() == 2


def test_cross_entropy_does_not_depend_on_a_constant_added_to_the_logits() -> None:
    shifted, _ = losses.cross_entropy(LOGITS + 300, tensor([0, 2, 1]), torch.ones(3))
    nats, _ = losses.cross_entropy(LOGITS, tensor([0, 2, 1]), torch.ones(3))
    assert shifted.item() == pytest.approx(nats.item(), abs=1e-4)


def test_a_masked_target_has_no_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    losses.cross_entropy(logits, tensor([0, 2, 1]), tensor([1, 0, 1]))[0].backward()
    assert logits.grad is not None
    assert logits.grad[1].abs().max() == 0
    assert logits.grad[0].tolist() == pytest.approx([0.5 - 1, 0.25, 0.25])


def test_cross_entropy_and_its_gradient_are_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 11, generator=generator, requires_grad=True)
    targets, mask = torch.randint(11, (3, 5), generator=generator), torch.randint(2, (3, 5), generator=generator)
    wanted = (F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none") * mask.flatten()).sum()
    nats, _ = losses.cross_entropy(logits, targets, mask)
    torch.testing.assert_close(nats, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(3 * value, logits)[0] for value in (nats, wanted)))


def test_one_nat_a_byte_is_1_44_bits_a_byte() -> None:
    assert losses.bits_per_byte(nats=50.0, num_bytes=50) == pytest.approx(1.442695)


def test_pairwise_loss() -> None:
    nats = losses.pairwise_loss(tensor([0.0, math.log(3), -100.0]), tensor([0.0, 0.0, 0.0]))
    assert nats.tolist() == pytest.approx([math.log(2), -math.log(0.75), 100.0])


def test_token_logprobs_with_a_temperature() -> None:
    assert losses.token_logprobs(LOGITS, tensor([0, 2, 1])).exp().tolist() == pytest.approx([0.5, 0.7, 0.5])
    # At temperature 1/2 probabilities are squared: 1/4 of 1/4 + 1/16 + 1/16.
    assert losses.token_logprobs(LOGITS, tensor([0, 2, 1]), 0.5)[0].exp().item() == pytest.approx(2 / 3)


def test_entropy() -> None:
    assert losses.entropy(torch.zeros(1, 8)).item() == pytest.approx(math.log(8))
    assert losses.entropy(tensor([[1000.0, 0.0]])).item() == pytest.approx(0.0)


def test_group_advantages() -> None:
    rewards = tensor([[1.0, 0.0, 0.0, 1.0], [3.0, 3.0, 3.0, 3.0]])
    assert losses.group_advantages(rewards)[0].tolist() == pytest.approx([1, -1, -1, 1], abs=1e-4)
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
def test_policy_loss_is_clipped_where_moving_on_would_pay(
    ratio: float, advantage: float, loss: float, is_moving: bool
) -> None:
    logprob = tensor(math.log(ratio)).requires_grad_()
    value = losses.policy_loss(logprob, tensor(0.0), tensor(advantage))
    value.backward()
    assert value.item() == pytest.approx(loss)
    assert logprob.grad is not None
    assert (logprob.grad.item() != 0) == is_moving


def test_the_limits_of_the_clip_may_differ() -> None:
    value = losses.policy_loss(tensor(math.log(1.5)), tensor(0.0), tensor(1.0), clip_low=0.2, clip_high=0.28)
    assert value.item() == pytest.approx(-1.28)


@given(st.floats(-20, 5), st.floats(-20, 5))
def test_kl_k3_is_never_negative(logprob: float, reference: float) -> None:
    assert losses.kl_k3(tensor(logprob), tensor(reference)).item() >= -1e-6


def test_kl_k3_is_unbiased() -> None:
    policy, reference = tensor([0.5, 0.3, 0.2]), tensor([0.2, 0.2, 0.6])
    mean = (policy * losses.kl_k3(policy.log(), reference.log())).sum()
    assert mean.item() == pytest.approx((policy * (policy / reference).log()).sum().item(), abs=1e-6)


def test_masked_sum() -> None:
    values, count = losses.masked_sum(tensor([1.0, 2.0, 4.0]), tensor([True, False, True]))
    assert (values.item(), count.item()) == (5.0, 2.0)
