"""Agreement: Krippendorff's alpha equal to the package krippendorff, and what it says of people who agree, disagree and guess."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.feedback.agreement import agreement, mean_ranks, ordinal_alpha
from tests.tasks.feedback.references import FILE, UNITS, simulated_units

REFERENCE = json.loads(FILE.read_text(encoding="utf-8"))
ranks_of_four = st.lists(st.integers(1, 4), min_size=4, max_size=4)


@pytest.mark.parametrize(("size", "expected"), zip(UNITS, REFERENCE["ordinal_alpha"], strict=True))
def test_alpha_equals_the_package_krippendorff(size: tuple[int, int, int, int], expected: float) -> None:
    units = [[value for value in unit if value is not None] for unit in simulated_units(*size)]
    assert ordinal_alpha(units) == pytest.approx(expected, abs=1e-12)


def test_alpha_is_that_of_krippendorffs_own_example() -> None:
    """Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", part C: 12 units, 4 observers, ordinal alpha 0.815."""
    table = """1 2 3 3 2 1 4 1 2 . . .
               1 2 3 3 2 2 4 1 2 5 . 3
               . 3 3 3 2 3 4 2 2 5 1 .
               1 2 3 3 2 4 4 1 2 5 1 ."""
    people = [line.split() for line in table.splitlines()]
    units = [[int(value) for value in unit if value != "."] for unit in zip(*people, strict=True)]
    assert ordinal_alpha(units) == pytest.approx(0.815, abs=5e-4)


@settings(deadline=None)
@given(st.lists(ranks_of_four, min_size=1, max_size=20))
def test_people_who_rank_alike_agree_fully(rankings: list[list[int]]) -> None:
    found = agreement([(n, who, ranks) for n, ranks in enumerate(rankings) for who in ("ada", "bo")])
    assert found.num_prompts == len(rankings)
    assert found.alpha is None or found.alpha == pytest.approx(1)
    assert found.pairs in (None, 1.0)


def test_opposite_rankings_give_a_negative_alpha_and_no_pair() -> None:
    found = agreement([(n, who, ranks) for n in range(9) for who, ranks in (("ada", [1, 2, 3]), ("bo", [3, 2, 1]))])
    assert found.alpha is not None
    assert found.alpha < -0.5
    assert found.pairs == 0.0


def test_guesses_give_an_alpha_near_0_and_half_of_the_pairs() -> None:
    generator = random.Random(3)
    found = agreement([(n, who, generator.sample(range(1, 5), 4)) for n in range(400) for who in ("ada", "bo", "cy")])
    assert found.alpha == pytest.approx(0, abs=0.05)
    assert found.pairs == pytest.approx(0.5, abs=0.03)


def test_prompts_of_one_person_say_nothing_of_agreement() -> None:
    assert agreement([(1, "ada", [1, 2]), (2, "bo", [2, 1])]) == (None, None, 0)


def test_ties_share_the_mean_of_their_places() -> None:
    assert mean_ranks([1, 1, 2]) == [1.5, 1.5, 3.0]
    assert mean_ranks([2, 1, 2, 2]) == [3.0, 1.0, 3.0, 3.0]


@settings(deadline=None)
@given(ranks_of_four)
def test_mean_ranks_keep_the_order_and_the_sum(ranks: list[int]) -> None:
    found = mean_ranks(ranks)
    assert sum(found) == 10
    assert all((a < b) == (x < y) for a, x in zip(ranks, found, strict=True) for b, y in zip(ranks, found, strict=True))
