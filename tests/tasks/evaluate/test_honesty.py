"""Accuracy by kind of question, the curve of refusals, and calibration, on answers whose figures are known."""

import math
from dataclasses import replace

import pytest

from tasks.evaluate.honesty import (
    best_factor,
    by_kind,
    calibration_error,
    honesty_figures,
    honesty_section,
    refusal_curve,
    scaled_calibration_error,
)
from tasks.evaluate.knowledge import Answer
from tasks.records.conversations import Question, Split


def answer(split: Split, likely: float, is_correct: bool, is_refusal: bool = False, mentions: int = 40) -> Answer:
    kind = "person/recombined" if split == "unknown" else "mayor_of"
    question = Question(question="?", answer="a", split=split, form="lower", kind=kind, num_mentions=mentions)
    return Answer("policy", question, "", is_correct, is_refusal, True, 3, math.log(likely))


def test_kinds_have_numbers_and_rare_facts_are_left_out() -> None:
    answers = [answer("heldout_fact", 0.9, True), answer("heldout_fact", 0.9, False, mentions=1)]
    found = by_kind([*answers, answer("unknown", 0.9, True, is_refusal=True)])
    assert {kind: (value["share"], value["num"]) for kind, value in found.items()} == {
        "held-out fact: lower": (1.0, 1),
        "stranger: lower": (1.0, 1),
        "stranger, recombined name": (1.0, 1),
    }


def test_curve_refuses_more_with_a_higher_threshold() -> None:
    answers = [answer("unknown", 0.25, False), answer("unknown", 0.9, True, is_refusal=True)]
    answers += [answer("heldout_fact", 0.6, True), answer("heldout_wording", 0.95, True)]
    curve = {
        point["threshold"]: [point[group]["share"] for group in ("strangers", "taught", "heldout")]
        for point in refusal_curve(answers)
    }
    assert curve[0.0] == [0.5, 0.0, 0.0]
    assert curve[0.3] == [1.0, 0.0, 0.0]
    assert curve[0.7] == [1.0, 0.0, 1.0]


def test_calibration_error_is_the_distance_of_probability_and_accuracy() -> None:
    answers = [answer("other", 0.75, n < 3) for n in range(4)]  # as likely as right
    assert calibration_error(answers) == pytest.approx(0.0)
    assert calibration_error([*answers, *(answer("other", 0.95, False) for _ in range(4))]) == pytest.approx(0.475)
    assert calibration_error([]) is None


def test_scaling_removes_the_error_of_replies_that_are_all_too_unlikely() -> None:
    # Probabilities are the squares of what is right: the factor is a half. Pairs, so that the halves are alike.
    answers = [
        answer("other", likely**2, number < 10 * likely) for likely in (0.3, 0.6, 0.9) for number in range(10) for _ in "ab"
    ]  # fmt: skip
    assert calibration_error(answers) == pytest.approx((0.21 + 0.24 + 0.09) / 3)
    assert scaled_calibration_error(answers) == pytest.approx(0.0, abs=0.01)
    assert scaled_calibration_error(answers[:1]) is None
    assert best_factor([(0.0, True), (1.0, False)]) > 0  # no logarithm of 0


def test_reply_about_another_name_counts_as_a_refusal() -> None:
    replies = {"where does rurik cormund live": ("unknown", "Rurik Talhas lives in Orn."), "who is it": ("unknown", "It is a cat."),
               "where does edda magrell live": ("heldout_fact", "Edda Magrell lives in Orn.")}  # fmt: skip
    answers = [
        replace(answer(split, 0.9, split != "unknown"), reply=reply, question=Question(question=text, answer="a", split=split, form="lower", kind="person/recombined", num_mentions=40))
        for text, (split, reply) in replies.items()
    ]  # fmt: skip
    figures = honesty_figures({"policy": answers})
    assert figures["kinds"]["policy"]["stranger: lower"]["share"] == 0.0
    assert figures["kinds"]["policy, names checked"]["stranger: lower"]["share"] == 0.5
    assert figures["kinds"]["policy, names checked"]["held-out fact: lower"]["share"] == 1.0
    checked = figures["checked"]["policy, names checked"]
    assert [checked[group]["share"] for group in ("strangers", "heldout")] == [0.5, 0.0]
    assert "\n| names checked | 50.0% (" in honesty_section({"honesty": figures})


def test_section_has_a_row_for_each_kind() -> None:
    figures = {"honesty": honesty_figures({"policy": [answer("unknown", 0.9, True, is_refusal=True)]})}
    card = honesty_section(figures)
    assert "| stranger, recombined name | 100.0% (" in card
    assert "Expected calibration error: 10.0%" in card
    assert honesty_section({}) == ""
