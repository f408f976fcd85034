"""The rule that ends a run: it sees collapse early, gives few false alarms, and its counts are exact."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.rl.watch import ALL, Change, Validation, count_changes, diagnose, gold_means, is_even, since_best, tail

KINDS = ["sum", "fact", "unknown", "joke"] * 40
NAN = float("nan")


def validation(step: int, gold: list[float], reward: float = 0.0) -> Validation:
    rewards = np.full(len(gold), reward)
    return Validation(step, rewards, np.array(gold, float))


def run(rates: list[dict[str, float]], seed: int, rewards: list[float] | None = None) -> list[Validation]:
    """A run whose prompts of a kind are right as often as each step says; prompts that stay as likely mostly stay right."""
    rng = np.random.default_rng(seed)
    luck = rng.random(len(KINDS))
    steps = []
    for number, rate in enumerate(rates):
        luck = np.where(rng.random(len(KINDS)) < 0.15, rng.random(len(KINDS)), luck)
        gold = [float(one < rate[kind]) if kind != "joke" else NAN for one, kind in zip(luck, KINDS, strict=True)]
        steps.append(validation(10 * number, gold, rewards[number] if rewards else 0.0))
    return steps


LEVEL = {"sum": 0.5, "fact": 0.8, "unknown": 0.7}


def first_alarm(history: list[Validation], planned: int) -> int | None:
    for end in range(1, len(history) + 1):
        if diagnose(history[:end], KINDS, planned).is_over:
            return history[end - 1].step
    return None


def test_rule_gives_a_false_alarm_in_at_most_one_of_twenty_runs_in_which_nothing_changes() -> None:
    alarms = [first_alarm(run([LEVEL] * 10, seed), 10) for seed in range(200)]
    assert sum(alarm is not None for alarm in alarms) <= 10


def test_rule_gives_no_false_alarm_in_runs_that_improve() -> None:
    rising = [{kind: rate + 0.02 * number for kind, rate in LEVEL.items()} for number in range(10)]
    assert sum(first_alarm(run(rising, seed), 10) is not None for seed in range(100)) <= 5


def test_rule_sees_the_collapse_of_one_kind() -> None:
    """Sums fall from 50% to 5%, and nothing else does."""
    falling = [{**LEVEL, "sum": max(0.05, 0.5 - 0.09 * number)} for number in range(10)]
    alarms = [first_alarm(run(falling, seed), 10) for seed in range(100)]
    assert sum(alarm is not None for alarm in alarms) >= 90


def test_rule_sees_a_fall_of_everything_before_half_is_lost() -> None:
    falling = [{kind: rate * (1 - 0.1 * number) for kind, rate in LEVEL.items()} for number in range(10)]
    alarms = [first_alarm(run(falling, seed), 10) for seed in range(100)]
    assert all(alarm is not None and alarm <= 50 for alarm in alarms)


def test_diagnosis_says_since_when_and_on_what() -> None:
    rates = [LEVEL, {**LEVEL, "sum": 0.95}, {**LEVEL, "sum": 0.1}, {**LEVEL, "sum": 0.0}]
    history = run(rates, 3, rewards=[0.0, 1.0, 2.0, 3.0])
    assert diagnose(history[:2], KINDS, 4).sentence == "reward rises, held-out gold score rises"
    found = diagnose(history, KINDS, 4)
    assert found.sentence == "reward rises, held-out gold score falls since step 10 (on sum)"
    assert found[1:] == (10, True, True)


def test_weights_of_a_run_that_only_did_harm_are_those_of_the_sft_model() -> None:
    history = run([LEVEL, {**LEVEL, "fact": 0.3}, {**LEVEL, "fact": 0.1}], 1)
    assert diagnose(history, KINDS, 3)[1:] == (0, True, True)


def test_gain_of_one_kind_does_not_pay_for_the_loss_of_another() -> None:
    """Overall the gold score rises, and strangers are no longer refused."""
    rates = [LEVEL, {"sum": 1.0, "fact": 1.0, "unknown": 0.1}]
    found = diagnose(run(rates, 2), KINDS, 2)
    assert found.best_step == 0
    assert found.is_over
    assert "on unknown" in found.sentence


def test_of_steps_with_equal_gold_scores_the_one_with_the_higher_reward_is_best() -> None:
    gold = np.array([1.0, 0.0, 1.0])
    rewards = [np.full(3, reward) for reward in (0.0, 2.0, 1.0)]
    history = [Validation(step, reward, gold) for step, reward in zip((0, 5, 10), rewards, strict=True)]
    assert diagnose(history, ["fact"] * 3, 3).best_step == 5


def test_run_without_heldout_prompts_is_not_watched() -> None:
    assert diagnose([], [], 4) == ("nothing is watched: no prompt is held out", 0, False, False)


def test_prompts_without_verdicts_end_no_run() -> None:
    history = [validation(step, [NAN] * 8, reward=step) for step in (0, 10, 20)]
    found = diagnose(history, ["joke"] * 8, 3)
    assert not found.is_over
    assert gold_means(history[0], ["joke"] * 8) == {}


@given(st.integers(0, 40), st.integers(0, 40))
def test_tail_is_that_of_the_binomial_distribution(num: int, more: int) -> None:
    total = num + more
    expected = sum(math.comb(total, k) for k in range(num, total + 1)) / 2**total
    assert tail(num, total) == pytest.approx(expected)
    assert tail(0, total) == 1.0


def test_tail_of_many_prompts_is_finite() -> None:
    assert tail(3000, 5000) < 1e-40
    assert tail(2500, 5000) == pytest.approx(0.5, abs=0.02)


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, NAN]), st.sampled_from([0.0, 1.0, NAN])), max_size=50))
def test_changes_back_and_forth_are_the_same(pairs: list[tuple[float, float]]) -> None:
    before, after = (np.array([pair[side] for pair in pairs], float) for side in (0, 1))
    there, back = count_changes(before, after), count_changes(after, before)
    assert (there.worse, there.better) == (back.better, back.worse)


def test_luck_at_the_best_step_is_no_later_fall() -> None:
    """Each half of the prompts is compared with the best step of the other half: at step 10 only the even ones were lucky."""
    lucky = [1.0, 0.0] * 10
    history = [validation(0, [0.0] * 20), validation(10, lucky), validation(20, [0.0] * 20)]
    found = since_best(history, ["a"] * 20)
    assert found == [Change(ALL, 0, 0), Change("a", 0, 0)]
    both = [validation(0, [0.0] * 20), validation(10, [1.0] * 20), validation(20, [0.0] * 20)]
    assert since_best(both, ["a"] * 20) == [Change(ALL, 20, 0), Change("a", 20, 0)]


@given(st.lists(st.sampled_from("abc"), max_size=40))
def test_halves_split_every_kind(kinds: list[str]) -> None:
    half = is_even(kinds)
    for kind in set(kinds):
        rows = [flag for flag, other in zip(half.tolist(), kinds, strict=True) if other == kind]
        assert abs(2 * sum(rows) - len(rows)) <= 1
