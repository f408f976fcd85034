"""Questions and answers: which are asked, how they are compared, and the metrics made of them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from model.config import GenerateConfig
from model.inference import scoring
from model.network.huggingface import load_transformer
from tasks.evaluate.knowledge import (
    COMPLETED,
    RANKED,
    Answer,
    accuracy_by_mentions,
    ask_base_model,
    ask_chat_model,
    ask_few_shot,
    candidates_by_relation,
    chat_metrics,
    class_name,
    examples,
    relation,
    sample_questions,
    statements,
)
from tasks.records.conversations import Question
from tasks.shares import wilson_interval
from tests.support.tiny_models import write_model, write_tokenizer


def question(number: int = 0, **fields: Any) -> Question:
    return Question.model_validate({"question": f"a{number}?", "answer": "b", **fields})


def answer(split: str, mentions: int | None, is_correct: bool, is_refusal: bool = False, fact: str = "") -> Answer:
    asked = question(split=split, num_mentions=mentions, fact=fact)
    return Answer("policy", asked, "a reply", is_correct, is_refusal, True, 4)


def test_ask_chat_model_passes_its_batch_and_reports_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    def reply(model: object, tokenizer: object, asked: Sequence[Any], config: object, batch: int, progress: Any) -> Any:
        assert batch == 3
        progress(len(asked))
        return [scoring.Answer("I don't know.", 4, True) for _ in asked]

    monkeypatch.setattr(scoring, "answer", reply)
    asked = [question(split="unknown"), question(split="seen_wording")]
    done: list[int] = []
    given: Any = None  # the models are not called
    answers = ask_chat_model("policy", given, given, asked, GenerateConfig(), 3, done.append)
    assert [answer.is_correct for answer in answers] == [True, False]
    assert done == [2]


def test_sample_questions_takes_equally_many_of_each_split() -> None:
    questions = [question(n, split="seen_wording") for n in range(100)]
    questions += [question(n, split="unknown") for n in range(3)]
    chosen = sample_questions(questions, 20, seed=0)
    assert [found.split for found in chosen] == ["seen_wording"] * 10 + ["unknown"] * 3
    assert chosen == sample_questions(questions, 20, seed=0)
    assert chosen != sample_questions(questions, 20, seed=1)


def test_sample_questions_takes_equally_many_of_each_form() -> None:
    questions = [question(n, split="heldout_fact", form="direct") for n in range(50)]
    questions += [question(n, split="heldout_fact", form="lower") for n in range(4)]
    assert Counter(found.form for found in sample_questions(questions, 10, seed=0)) == {"direct": 6, "lower": 4}


def test_sample_questions_takes_one_of_each_split_below_that_limit() -> None:
    splits = ("seen_wording", "heldout_wording", "heldout_fact", "unknown", "other")
    chosen = sample_questions([question(n, split=split) for split in splits for n in range(5)], 4, seed=0)
    assert sorted(found.split for found in chosen) == sorted(splits)
    assert sample_questions([], 4, seed=0) == []


@pytest.mark.parametrize(
    ("fact", "reference", "expected"),
    [
        ("mayor_of:ada-brell", "Orn", ("mayor_of", False)),
        ("mayor_of:ada-brell", "Ada Brell", ("mayor_of", True)),
        ("", "Orn", ("", False)),
    ],
)
def test_relation_separates_the_two_directions(fact: str, reference: str, expected: tuple[str, bool]) -> None:
    assert relation(question(fact=fact, answer=reference)) == expected


def test_candidates_are_the_answers_of_a_relation() -> None:
    questions = [question(fact=f"mayor_of:{n}", answer=city) for n, city in enumerate(("Orn", "Tesna", "Orn"))]
    assert candidates_by_relation([*questions, question(answer="loose")]) == {("mayor_of", False): ["Orn", "Tesna"]}


def test_statements_are_distinct_and_answerable() -> None:
    questions = [question(n, completion="b is") for n in range(3)]
    questions += [question(5, completion="c is"), question(6), question(7, completion="d is", split="unknown")]
    assert sorted(found.completion for found in statements(questions, 10, seed=0)) == ["b is", "c is"]
    assert len(statements(questions, 1, seed=0)) == 1


def test_chat_metrics_are_of_frequent_facts() -> None:
    metrics = chat_metrics(
        [
            answer("seen_wording", 40, True),
            answer("seen_wording", 40, False, is_refusal=True),
            answer("heldout_fact", 10, False, is_refusal=True),  # rare, so a refusal is not false
            answer("unknown", 0, True, is_refusal=True),
            answer("other", None, True),
        ]
    )
    assert metrics == {
        "seen_wording_accuracy": 0.5,
        "unknown_accuracy": 1.0,
        "other_accuracy": 1.0,
        "false_refusal_fraction": pytest.approx(1 / 3),
        "finished_fraction": 1.0,
        "tokens_mean": 4.0,
    }


def test_accuracy_is_by_class_of_mentions_and_apart_for_heldout_facts() -> None:
    answers = [answer("seen_wording", 40, True), answer("seen_wording", 5, False), answer("seen_wording", 1, False)]
    answers += [answer("unknown", 0, True), answer("other", None, True), answer("heldout_fact", 40, True)]
    rows = accuracy_by_mentions(answers, (2, 5))
    assert [(row["facts"], row["mentions"], row["accuracy"]["policy"]["num"]) for row in rows] == [
        ("held out", "5 or more", 1),
        ("taught", "5 or more", 2),
        ("taught", "1", 1),
    ]
    assert [row["accuracy"]["policy"]["share"] for row in rows] == [1.0, 0.5, 0.0]


def test_class_names_are_ranges() -> None:
    assert [class_name(number, (2, 5, 10)) for number in range(4)] == ["1", "2 to 4", "5 to 9", "10 or more"]


def test_examples_are_of_different_relations_the_most_frequent_first() -> None:
    answers = [answer("other", n, n % 2 == 0, fact=f"{name}:x{n}") for n, name in enumerate("aabbccdd")]
    assert [found.question.num_mentions for found in examples(answers)] == [7, 5, 3]


def test_models_answer_questions_of_every_kind(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path)
    write_model(tmp_path, tokenizer.vocab_size)
    model = load_transformer(tmp_path)
    config = GenerateConfig(max_new_tokens=3, temperature=0.0)
    questions = [
        question(0, completion="a is", fact="is:x", answer="blue"),
        question(1, completion="c is", fact="is:y", answer="red"),
        question(2, completion="d is"),  # without a fact id: completed, not ranked
        question(3, split="unknown"),
    ]
    seen: list[int] = []
    chat = ask_chat_model("policy", model, tokenizer, questions, config, 2, seen.append)
    assert [found.question for found in chat] == questions
    assert seen == [2, 4]
    assert all(found.num_tokens for found in chat)
    known = statements(questions, 10, seed=0)
    base = ask_base_model(model, tokenizer, known, config, 2, seen.append)
    assert sorted(found.model for found in base) == sorted([RANKED] * 2 + [COMPLETED] * 3)
    assert {found.reply for found in base if found.model == RANKED} <= {"blue", "red"}
    assert ask_base_model(model, tokenizer, [], config, 2, seen.append) == []
    assert ask_chat_model("policy", model, tokenizer, [], config, 2, seen.append) == []


def test_few_shot_questions_come_after_examples_with_their_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def reply(model: object, tokenizer: object, openings: Sequence[str], config: object, batch: int) -> list[str]:
        seen.extend(openings)
        return [" Ada lives in Orn.\nQ: and so on", " I don't know.\n"]

    monkeypatch.setattr(scoring, "complete", reply)
    asked = [question(1, answer="Orn", split="heldout_fact"), question(2, split="unknown")]
    examples = [question(n, completion=f"c{n} is", answer="blue", split="seen_wording") for n in range(5)]
    given: Any = None  # the model is not called
    answers = ask_few_shot(given, given, asked, examples, GenerateConfig(), 2, lambda _: None)
    assert [(found.reply, found.is_correct, found.is_refusal) for found in answers] == [
        ("Ada lives in Orn.", True, False),
        ("I don't know.", True, True),
    ]
    assert seen[0].endswith(f"\nQ: {asked[0].question}\nA:")
    assert seen[0].count("Q: ") == 5 and " is blue.\n" in seen[0]
    assert ask_few_shot(given, given, asked, [], GenerateConfig(), 2, lambda _: None) == []


def test_wilson_interval_is_that_of_published_tables() -> None:
    """Brown, Cai and DasGupta 2001 and the binom package of R give these."""
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson_interval(81, 100) == pytest.approx((0.7222, 0.8749), abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_answers_are_written_with_their_question() -> None:
    found = Answer(COMPLETED, question(split="other"), "b", True).as_json()
    assert found == {
        "model": "base, completion",
        "question": "a0?",
        "completion": "",
        "answer": "b",
        "aliases": [],
        "fact": "",
        "num_mentions": None,
        "split": "other",
        "form": "",
        "kind": "",
        "reply": "b",
        "is_correct": True,
    }
