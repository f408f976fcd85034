"""Ratings: equal to evalica's on 10,000 simulated votes, the order is recovered, sides do not matter, and extremes stay finite."""

import json
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.feedback.ratings import POINTS_PER_NAT, Vote, count_wins, elo, rate, strengths
from tests.tasks.feedback.references import FILE, MODELS, STRENGTHS, simulated_votes

REFERENCE = json.loads(FILE.read_text(encoding="utf-8"))
VOTES = [Vote(*vote) for vote in simulated_votes()]
MIRRORED = {"left": "right", "right": "left", "tie": "tie", "both_bad": "both_bad"}
votes_of_few = st.lists(
    st.builds(
        lambda pair, winner: Vote(*pair, winner),
        st.permutations("abcde").map(lambda order: order[:2]),
        st.sampled_from(list(MIRRORED)),
    ),
    min_size=1,
    max_size=60,
)


def test_bradley_terry_equals_evalica_on_10000_votes() -> None:
    models, wins = count_wins(VOTES)
    expected = np.log([REFERENCE["bradley_terry"][name] for name in models])
    np.testing.assert_allclose(strengths(wins, prior_ties=0), expected - expected.mean(), rtol=0, atol=1e-9)
    # With the prior of the table: less than half a point.
    np.testing.assert_allclose(strengths(wins), expected - expected.mean(), rtol=0, atol=0.5 / POINTS_PER_NAT)


def test_elo_equals_evalica_on_10000_votes() -> None:
    assert elo(VOTES)[-1] == pytest.approx(REFERENCE["elo"], abs=1e-9)


def test_ratings_recover_the_order_of_the_simulated_models() -> None:
    found = rate(VOTES)
    expected = sorted(MODELS, key=lambda name: -STRENGTHS[MODELS.index(name)])
    assert [rating.model for rating in found] == expected
    assert sum(rating.num_votes for rating in found) == 2 * len(VOTES)
    for rating in found:
        assert rating.low is not None
        assert rating.high is not None
        assert rating.low < rating.points < rating.high < rating.low + 60


def test_intervals_hold_the_true_rating_in_most_of_100_repetitions() -> None:
    """The bootstrap is honest: of 95% intervals about 95% hold the truth."""
    truth, generator, hits = 0.6, random.Random(1), 0
    for _ in range(100):
        winners = ["left" if generator.random() < 1 / (1 + math.exp(-truth)) else "right" for _ in range(300)]
        [best] = [r for r in rate([Vote("a", "b", w) for w in winners], num_resamples=100) if r.model == "a"]
        assert best.low is not None
        assert best.high is not None
        hits += best.low <= 1000 + POINTS_PER_NAT * truth / 2 <= best.high
    assert 85 <= hits <= 100


@settings(deadline=None)
@given(votes_of_few, st.randoms())
def test_ratings_do_not_depend_on_sides_and_order(votes: list[Vote], generator: random.Random) -> None:
    mirrored = [Vote(v.right, v.left, MIRRORED[v.winner]) if generator.random() < 0.5 else v for v in votes]
    generator.shuffle(mirrored)
    before, after = ({r.model: r.points for r in rate(given, num_resamples=2)} for given in (votes, mirrored))
    assert before == pytest.approx(after, abs=1e-6)
    assert all(map(math.isfinite, before.values()))
    assert sum(before.values()) == pytest.approx(1000 * len(before))


@settings(deadline=None)
@given(votes_of_few)
def test_elo_keeps_the_sum_of_points(votes: list[Vote]) -> None:
    for ratings in elo(votes):
        assert sum(ratings.values()) == pytest.approx(1000 * len(ratings))


def test_model_that_won_all_votes_has_a_finite_rating() -> None:
    best, worst = rate([Vote("a", "b", "left")] * 50)
    assert (best.model, worst.model) == ("a", "b")
    assert 1200 < best.points < 2000
    assert best.high is not None
    assert math.isfinite(best.high)


def test_single_vote_has_no_interval_and_makes_no_champion() -> None:
    best, worst = rate([Vote("a", "b", "left")])
    assert (best.low, best.high, worst.low, worst.high) == (None,) * 4
    assert 1000 < best.points < 1150


def test_groups_that_no_vote_connects_are_both_about_average() -> None:
    found = {r.model: r.points for r in rate([Vote("a", "b", "left")] * 9 + [Vote("c", "d", "left")] * 9)}
    assert found["a"] == pytest.approx(found["c"])
    assert found["b"] == pytest.approx(found["d"])


def test_no_votes_give_no_ratings() -> None:
    assert rate([]) == []
    assert elo([]) == []
