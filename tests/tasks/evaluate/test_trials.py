"""Passages, examples, sums and reversed questions: what is asked, how it is compared, and the sections of the card."""

from pathlib import Path
from random import Random

import numpy as np
import pytest

from model.network.huggingface import load_transformer
from tasks.evaluate.in_context import TASKS, first_word, in_context_figures, in_context_section, make_trial
from tasks.evaluate.knowledge import COMPLETED, Answer
from tasks.evaluate.recital import PREFIX_TOKENS, WINDOW_TOKENS, exact_length, find_passages, recital_section
from tasks.evaluate.reversal import BACKWARD, FORWARD, reversal_figures, reversal_questions, reversal_section
from tasks.evaluate.written_sums import (
    AT_ONCE,
    WORKED,
    make_sums,
    result_of,
    sum_prompt,
    sums_section,
    work_sums,
)
from tasks.records.conversations import Question
from tasks.shares import share, shares
from tests.support.tiny_models import write_model, write_tokenizer

BOS = 0


def corpus(*documents: list[int]) -> np.ndarray:
    return np.array([token for document in documents for token in (BOS, *document)])


def some_tokens(seed: int, number: int) -> list[int]:
    return np.random.default_rng(seed).integers(1, 4000, number).tolist()


def test_find_passages_takes_a_repeated_passage_once_and_by_its_occurrences() -> None:
    licence = some_tokens(0, WINDOW_TOKENS + 20)
    documents = [[*some_tokens(seed, 30), *licence, *some_tokens(-seed + 100, 30)] for seed in range(1, 8)]
    found = find_passages(corpus(*documents), BOS, (2, 5), limit=10)
    assert set(found) == {0, 2}
    assert found[2].tolist() == [licence[:WINDOW_TOKENS]]
    assert len(found[0]) == 10


def test_find_passages_stay_within_a_document() -> None:
    short = [some_tokens(seed, WINDOW_TOKENS - 1) for seed in range(5)]
    assert find_passages(corpus(*short), BOS, (2,), limit=10) == {}
    assert find_passages(corpus([1, 2]), BOS, (2,), limit=10) == {}
    whole = some_tokens(9, WINDOW_TOKENS)
    [passage] = find_passages(corpus(*short, whole), BOS, (2,), limit=10)[0].tolist()
    assert passage == whole


@pytest.mark.parametrize(("written", "length"), [([1, 2, 3], 3), ([1, 9, 3], 1), ([9], 0), ([1, 2], 2), ([], 0)])
def test_exact_length_is_that_of_the_common_beginning(written: list[int], length: int) -> None:
    assert exact_length([1, 2, 3], written) == length


def test_trials_of_made_up_words_have_their_answer_in_the_prompt_alone() -> None:
    for task in TASKS:
        for number in (0, 1, 8):
            prompt, expected = make_trial(task, number, Random(number))
            assert len(prompt.split("\n")) == (2 * number + 2 if task == "attribute" else number + 1)
            # In pairs without examples nothing can be known: guessing.
            assert (expected in prompt) == (task == "attribute" or number > 0)
            assert prompt.endswith("A:" if task == "attribute" else ":")
    assert make_trial("pairs", 4, Random(1)) == make_trial("pairs", 4, Random(1))
    assert (first_word(" tavik.\nQ:"), first_word("\n")) == ("tavik", "")


def test_sums_are_different_and_held_out_and_of_two_digits() -> None:
    sums = make_sums(200)
    assert len({(task.first, task.second) for task in sums}) == 200
    assert all(10 <= number <= 99 for task in sums for number in (task.first, task.second))
    assert all(task.is_heldout for task in sums)
    assert 600 < len(make_sums(10_000)) < 1000


def test_result_is_the_first_number_at_once_and_the_last_when_worked() -> None:
    steps = " 7 plus 8 is 15, so write 5 and carry 1. So 47 + 38 is 85."
    assert (result_of(" 85. So 3", AT_ONCE), result_of(steps, WORKED), result_of(" many", WORKED)) == (85, 85, None)


def test_both_ways_are_asked_with_the_same_question(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path)
    [task] = make_sums(1)
    texts = [tokenizer.decode(sum_prompt(tokenizer, task, way)) for way in (AT_ONCE, WORKED)]
    assert texts[0].endswith(f"{task.first} + {task.second} is")
    assert texts[1].endswith("First the ones:")
    assert texts[0].removesuffix(f"{task.first} + {task.second} is") == texts[1].removesuffix("First the ones:")


def test_figures_of_an_untrained_model_are_shares_of_all_trials(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path)
    write_model(tmp_path, tokenizer.vocab_size)
    model = load_transformer(tmp_path)
    sums = {"policy": shares(work_sums(model, tokenizer, 3, 2))}
    assert {value["num"] for value in sums["policy"].values()} == {3}
    assert "| worked |" in sums_section({"sums": sums})
    rows = in_context_figures(model, tokenizer, 2, 2)
    assert {value["num"] for row in rows for value in row["accuracy"].values()} == {2}
    assert "| pairs |" in in_context_section({"in_context": rows})
    assert in_context_figures(model, tokenizer, 0, 2) == []
    rows = [{"occurrences": "1", "mean_tokens": 2.5, "whole": share([True, False])}]
    assert f"reads {PREFIX_TOKENS} tokens" in recital_section({"recital": rows})
    assert [build({}) for build in (sums_section, in_context_section, recital_section, reversal_section)] == [""] * 4


def test_reversal_compares_the_same_frequent_facts_in_both_directions() -> None:
    def reply(split: str, fact: str, is_correct: bool, mentions: int = 30) -> Answer:
        values = {"question": "q?", "answer": "a", "split": split, "fact": fact, "num_mentions": mentions}
        return Answer(COMPLETED, Question.model_validate(values), "", is_correct)

    backward = [reply("reversal", "mother_is:a", False)]
    forward = [
        reply("heldout_fact", "mother_is:a", True),
        reply("heldout_fact", "mother_is:rare", False, 1),
        reply("heldout_fact", "lives_in:a", False),
    ]
    rows = reversal_figures(forward, backward)
    assert [(row["direction"], row["accuracy"][COMPLETED]["share"]) for row in rows] == [
        (FORWARD, 1.0),
        (BACKWARD, 0.0),
    ]
    assert rows[0]["accuracy"][COMPLETED]["num"] == 1
    assert "| reversed |" in reversal_section({"reversal": rows})
    assert reversal_figures(forward, []) == []
    asked = [answer.question for answer in [*backward, reply("reversal", "mother_is:rare", False, 1), *forward]]
    assert reversal_questions(asked) == (asked[:1], asked[2:])
