"""The gate: a policy that answers or refuses worse than the SFT model beyond chance does not pass, and the sentence says why."""

from hypothesis import given
from hypothesis import strategies as st

from tasks.evaluate.gate import gate_figures, gate_section
from tasks.evaluate.knowledge import Answer
from tasks.records.conversations import Question, Split


def answers(split: Split, flags: list[bool]) -> list[Answer]:
    return [
        Answer("m", Question(question="?", answer="a", split=split, num_mentions=100), "", flag, False)
        for flag in flags
    ]


def chat(before: list[bool], after: list[bool], split: Split = "heldout_wording") -> dict[str, list[Answer]]:
    return {"assistant": answers(split, before), "policy": answers(split, after)}


def test_policy_that_refuses_fewer_strangers_does_not_pass() -> None:
    found = gate_figures(chat([True] * 80 + [False] * 20, [True] * 60 + [False] * 40, "unknown"), {})
    assert not found["passed"]
    assert found["sentence"] == (
        "The policy does not pass, and the export holds the SFT model: refusals of strangers fell from 80.0% to 60.0%, beyond chance."
    )
    assert found["sentence"] in gate_section({"gate": found})


def test_policy_that_is_a_little_worse_passes() -> None:
    assert gate_figures(chat([True] * 80 + [False] * 20, [True] * 78 + [False] * 22), {})["passed"]


def test_policy_whose_gold_fell_in_training_does_not_pass() -> None:
    found = gate_figures(chat([True], [True]), {"gold/has_fallen": 1.0})
    assert not found["passed"]
    assert "the held-out gold score of its training fell" in found["sentence"]


@given(st.lists(st.booleans(), max_size=60), st.randoms(use_true_random=False))
def test_policy_that_is_nowhere_worse_passes(before: list[bool], rng: object) -> None:
    after = [flag or rng.random() < 0.5 for flag in before]  # type: ignore[attr-defined]
    assert gate_figures(chat(before, after), {})["passed"]


def test_rare_facts_do_not_count() -> None:
    found = chat([True] * 40, [False] * 40, "heldout_fact")
    assert not gate_figures(found, {})["passed"]
    for given_answers in found.values():
        for number, one in enumerate(given_answers):
            rare = one.question.model_copy(update={"num_mentions": 1})
            given_answers[number] = Answer("m", rare, "", one.is_correct, False)
    assert gate_figures(found, {})["passed"]
