"""Two runs compared: intervals as the literature has them, verdicts that mirror, settings, pages of hostile cards."""

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import html as parser

from model.errors import UserError
from tasks.evaluate.compare import Side, changed_settings, compare_rows, difference_interval, render_comparison, verdict
from tasks.evaluate.compare_page import render_comparison_page
from tasks.shares import share_of
from tests.tasks.evaluate.test_card_page import FULL, replaced

SHARES = st.tuples(st.integers(0, 60), st.integers(1, 60)).map(lambda pair: share_of(min(pair), pair[1]))


def changed(**language: Any) -> dict[str, Any]:
    card = copy.deepcopy(FULL)
    card["language"] |= language
    return card


def with_accuracy(num_right: int, num: int = 100) -> dict[str, Any]:
    card = copy.deepcopy(FULL)
    card["facts"][0]["accuracy"]["policy"] = share_of(num_right, num)
    return card


def fact_row(a: Side, b: Side) -> Any:
    return next(row for row in compare_rows(a, b) if row.measure.startswith("Facts held out") and row.model == "policy")


def test_interval_of_two_shares_is_newcombes() -> None:
    """Newcombe 1998, table II, method 10: 56 of 70 and 48 of 80."""
    low, high = difference_interval([share_of(48, 80)], [share_of(56, 70)]) or (0, 0)
    assert (low, high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


@given(
    st.lists(st.integers(0, 50).map(lambda num: num / 50), min_size=2, max_size=5),
    st.lists(st.integers(0, 50).map(lambda num: num / 50), min_size=2, max_size=5),
)
def test_interval_of_several_seeds_is_welchs(a: list[float], b: list[float]) -> None:
    from scipy.stats import ttest_ind  # a second, which workers that only collect this file are spared

    found = difference_interval(a, b)
    if np.std(a) + np.std(b) > 1e-6:
        expected = ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
        assert found == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-9)


def test_numbers_of_single_runs_have_no_interval() -> None:
    assert difference_interval([0.3], [0.4]) is None
    low, high = difference_interval([0.30, 0.31, 0.32], [0.4]) or (0, 0)
    # By hand: 4.303 (t of two degrees of freedom) x 0.01 x the root of 4/3.
    assert high - low == pytest.approx(2 * 4.3027 * 0.01 * (4 / 3) ** 0.5, rel=1e-3)


@pytest.mark.parametrize("num_b", [1, 2])
def test_seeds_that_score_the_same_show_no_certainty(num_b: int) -> None:
    full, one_less = share_of(200, 200), share_of(199, 200)
    found = difference_interval([full, full], [one_less] * num_b)
    assert found == difference_interval([full], [one_less])
    assert found and found[0] < -0.005 < 0 < found[1]
    assert difference_interval([0.3, 0.3], [0.4] * num_b) is None
    assert difference_interval([0.3, 0.3], [0.3, 0.4]) is not None


def test_noise_of_training_is_said_to_be_missing_between_single_runs_alone() -> None:
    for nums, is_missing in (((1, 1), True), ((1, 3), False), ((3, 3), False)):
        sides = [Side(name, [FULL] * num) for name, num in zip("ab", nums, strict=True)]
        assert ("noise of the questions alone" in render_comparison(*sides, compare_rows(*sides))) is is_missing


@pytest.mark.parametrize(
    ("difference", "interval", "better", "expected"),
    [
        (0.1, (0.01, 0.2), 1, "better"),
        (0.1, (0.01, 0.2), -1, "worse"),
        (-0.1, (-0.2, -0.01), -1, "better"),
        (0.1, (-0.01, 0.2), 1, "within noise"),
        (0.1, None, -1, "worse, noise unknown"),
        (0.0, None, 1, "equal"),
        (5.0, (1.0, 9.0), 0, "more"),
        (-5.0, None, 0, "less, noise unknown"),
    ],
)
def test_verdict_says_what_a_difference_means(
    difference: float, interval: tuple[float, float] | None, better: int, expected: str
) -> None:
    assert verdict(difference, interval, better) == expected


def test_runs_with_themselves_are_equal_throughout() -> None:
    rows = compare_rows(Side("a", [FULL]), Side("b", [FULL]))
    assert len(rows) > 15
    assert {row.verdict for row in rows} == {"equal"}


@given(SHARES, SHARES)
def test_verdicts_mirror_when_sides_are_exchanged(one: dict[str, Any], two: dict[str, Any]) -> None:
    mirrored = {"better": "worse", "worse": "better"}
    there, back = (
        verdict(b["share"] - a["share"], difference_interval([a], [b]), 1) for a, b in ((one, two), (two, one))
    )
    assert back == mirrored.get(there, there)


def test_equal_models_seldom_seem_to_differ() -> None:
    rng = np.random.default_rng(0)
    for num, chance in ((40, 0.5), (200, 0.9)):
        draws = rng.binomial(num, chance, size=(400, 2)).tolist()
        found = [difference_interval([share_of(one, num)], [share_of(two, num)]) for one, two in draws]
        assert sum(low > 0 or high < 0 for low, high in filter(None, found)) <= 0.07 * len(draws)


def test_a_large_difference_is_found_and_a_small_one_is_noise() -> None:
    assert fact_row(Side("a", [with_accuracy(40)]), Side("b", [with_accuracy(80)])).verdict == "better"
    assert fact_row(Side("a", [with_accuracy(78)]), Side("b", [with_accuracy(80)])).verdict == "within noise"
    seeds = [Side(name, [with_accuracy(num) for num in nums]) for name, nums in (("a", (70, 71, 72)), ("b", (75, 76, 77)))]  # fmt: skip
    assert fact_row(*seeds).verdict == "better"
    wide = Side("a", [with_accuracy(num) for num in (60, 71, 82)])
    assert fact_row(wide, seeds[1]).verdict == "within noise"


def test_fewer_bits_per_byte_are_better() -> None:
    sides = [Side(name, [changed(**{"base/validation/bits_per_byte": bits})]) for name, bits in (("a", 2.0), ("b", 1.9))]  # fmt: skip
    row = next(row for row in compare_rows(*sides) if row.measure.startswith("Bits per byte"))
    assert row.verdict == "better, noise unknown"


def test_settings_that_differ_are_named() -> None:
    other = copy.deepcopy(FULL)
    other["lineage"][0] |= {"settings": {"train": {"num_steps": 4, "seed": 1}}, "version": 8}
    assert changed_settings(FULL, other) == [
        ("sft.train.num_steps", "3", "4"),
        ("sft.train.seed", "–", "1"),
        ("sft: version", "7", "8"),
    ]
    text = render_comparison(Side("a", [FULL]), Side("b", [other]), compare_rows(Side("a", [FULL]), Side("b", [other])))
    assert "| sft.train.num_steps | 3 | 4 |" in text


def test_measure_that_one_side_lacks_is_left_out() -> None:
    bare = copy.deepcopy(FULL)
    del bare["truth"], bare["chat_shares" if "chat_shares" in bare else "completions"]
    rows = compare_rows(Side("a", [FULL]), Side("b", [bare]))
    assert "Filters" not in {row.section for row in rows}


@pytest.mark.parametrize("card", [{"documents": []}, {"documents": 3}, {"documents": [{"stage": "x"}], "language": {}}])
def test_what_is_no_card_is_refused_in_one_sentence(card: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"my.json is no report card .* give a report.json"):
        compare_rows(Side("my.json", [card]), Side("b", [FULL]))


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "a | b `c` <img src=x onerror=alert(1)>"])
def test_page_of_hostile_cards_has_no_element_of_theirs(text: str) -> None:
    hostile = replaced(copy.deepcopy(FULL), text)
    a, b = Side(text, [hostile]), Side("b", [replaced(copy.deepcopy(with_accuracy(1)), text)])
    page = render_comparison_page(a, b, compare_rows(a, b))
    found = [element for element in parser.document_fromstring(page).iter() if isinstance(element.tag, str)]
    assert not {"script", "img", "iframe", "link"} & {element.tag for element in found}
    assert not [name for element in found for name in element.attrib if name.startswith("on")]
    assert text in parser.document_fromstring(page).text_content()


def test_page_colours_verdicts_and_shows_both_curves() -> None:
    a, b = Side("a", [with_accuracy(40)]), Side("b", [with_accuracy(80)])
    tree = parser.document_fromstring(render_comparison_page(a, b, compare_rows(a, b)))
    assert [span.text for span in tree.iter("span") if span.get("class") == "good"] == ["better"]
