"""The gate: a policy that answers or refuses worse than the SFT model beyond chance does not pass, and the sentence says why."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.rl.watch import FALSE_ALARMS, Change
from tasks.evaluate.chat_replies import ChatReplies
from tasks.evaluate.gate import gate_figures, gate_section, level
from tasks.evaluate.knowledge import Answer
from tasks.markdown import Figures
from tasks.records.conversations import Question, Split
from tasks.sample_web.asking import Form


def answers(split: Split, flags: list[bool]) -> list[Answer]:
    return [
        Answer("m", Question(question="?", answer="a", split=split, num_mentions=100), "", flag, False)
        for flag in flags
    ]


def gate(before: ChatReplies, after: ChatReplies, metrics: dict[str, float] | None = None) -> Figures:
    return gate_figures(before.right(), after.right(), metrics or {})


def replies(split: Split, flags: list[bool]) -> ChatReplies:
    return ChatReplies(answers(split, flags))


def tools(flags: list[bool]) -> list[Figures]:
    return [{"kind": "tool/search", "is_correct": flag} for flag in flags]


def flags(num_right: int, num: int) -> list[bool]:
    return [True] * num_right + [False] * (num - num_right)


def test_policy_that_refuses_fewer_strangers_does_not_pass() -> None:
    found = gate(replies("unknown", flags(80, 100)), replies("unknown", flags(60, 100)))
    assert not found["passed"]
    assert found["sentence"] == (
        "The policy does not pass, and the export holds the SFT model: refusals of strangers fell from 80.0% to 60.0%, beyond chance."
    )
    assert found["sentence"] in gate_section({"gate": found})


def test_policy_that_is_a_little_worse_passes() -> None:
    assert gate(replies("heldout_wording", flags(80, 100)), replies("heldout_wording", flags(78, 100)))["passed"]


# What a run of tiny did once: worked sums fell from 75 to 50% while all questions about facts were answered as before.
@pytest.mark.parametrize(
    ("kind", "made"),
    [
        ("sums of two digits, worked", lambda flags, facts: ChatReplies(facts, sums={"worked": flags})),
        ("typed: another language", lambda flags, facts: ChatReplies(facts, typed={"foreign": flags})),
        ("tool/search", lambda flags, facts: ChatReplies(facts, tool_answers=tools(flags))),
        ("reversed questions", lambda flags, facts: ChatReplies(facts, answers("reversal", flags))),
    ],
)
def test_policy_whose_replies_of_one_kind_fell_does_not_pass(kind: str, made: Callable[..., ChatReplies]) -> None:
    facts = answers("heldout_wording", flags(900, 1000))
    assert gate(made(flags(45, 60), facts), made(flags(45, 60), facts))["passed"]
    found = gate(made(flags(45, 60), facts), made(flags(30, 60), facts))
    assert not found["passed"]
    assert f"{kind} fell from 75.0% to 50.0%" in found["sentence"]
    assert [row["what"] for row in found["comparisons"] if row["has_fallen"]] == [kind]


def test_policy_whose_answers_to_one_form_fell_does_not_pass() -> None:
    def of_form(form: Form, some: list[bool]) -> list[Answer]:
        return [
            replace(one, question=one.question.model_copy(update={"form": form})) for one in answers("unknown", some)
        ]

    before = ChatReplies(of_form("direct", flags(90, 100)) + of_form("keywords", flags(30, 100)))
    after = ChatReplies(of_form("direct", flags(75, 100)) + of_form("keywords", flags(45, 100)))
    assert "stranger: direct fell from 90.0% to 75.0%" in gate(before, after)["sentence"]


def test_policy_whose_gold_fell_in_training_does_not_pass() -> None:
    found = gate(ChatReplies([]), ChatReplies([]), {"gold/has_fallen": 1.0})
    assert not found["passed"]
    assert "the held-out gold score of its training fell" in found["sentence"]


def test_level_counts_comparisons_that_could_be_found_fallen() -> None:
    few, many = Change("few", 1, 1), Change("many", 10, 5)
    assert level([]) == level([many]) == level([many, few, few, few]) == FALSE_ALARMS
    assert level([many] * 3) == FALSE_ALARMS / 3
    # With two prompts that differ no probability is below 0.25; with six none is below 0.016, which 0.05 / 3 allows.
    assert level([Change("six", 3, 3), many, many]) == FALSE_ALARMS / 3


@given(st.lists(st.booleans(), max_size=60), st.randoms(use_true_random=False))
def test_policy_that_is_nowhere_worse_passes(before: list[bool], rng: object) -> None:
    after = [flag or rng.random() < 0.5 for flag in before]  # type: ignore[attr-defined]
    assert gate(replies("heldout_wording", before), replies("heldout_wording", after))["passed"]


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_policy_that_answers_by_chance_as_before_seldom_fails(seed: int) -> None:
    rng = random.Random(seed)
    fails = 0
    for _ in range(100):
        before, after = ({kind: [rng.random() < 0.8 for _ in range(30)] for kind in map(str, range(20))} for _ in "ab")
        fails += not gate_figures(before, after, {})["passed"]
    # A twentieth at most is expected; 16 of 100 would have a probability of 3 in 10^5.
    assert fails < 16


def test_rare_facts_do_not_count() -> None:
    before, after = (answers("heldout_fact", [flag] * 40) for flag in (True, False))
    assert not gate(ChatReplies(before), ChatReplies(after))["passed"]
    rare = [
        [replace(one, question=one.question.model_copy(update={"num_mentions": 1})) for one in some]
        for some in (before, after)
    ]
    assert gate(*map(ChatReplies, rare))["passed"]
