"""Word problems: the answer is that of the story, a wrong operand is not accepted, and conversations have both kinds of solution."""

import re

import pytest

from model.inference.answers import holds
from tasks.records.conversations import Conversation, Prompt
from tasks.sample_web.sums import Sum
from tasks.sample_web.word_problems import AT_ONCE_FRACTION, KIND, compose_problems


def test_prompts_are_those_of_their_seed_with_the_right_answer() -> None:
    prompts = list(compose_problems(Prompt, 300, 1))
    assert prompts == list(compose_problems(Prompt, 300, 1))
    assert prompts != list(compose_problems(Prompt, 300, 2))
    for prompt in prompts:
        assert isinstance(prompt, Prompt)
        first, sign, second, result = re.fullmatch(r"(\d+) ([+-]) (\d+) is (\d+)", prompt.answer or "").groups()  # type: ignore[union-attr]
        task = Sum(sign, int(first), int(second))
        assert task.result == int(result) >= 0
        assert not task.is_heldout
        assert set(re.findall(r"\d+", prompt.messages[-1].content)) == {first, second}
        assert prompt.kind == KIND


def test_conversations_solve_problems_at_once_and_step_by_step() -> None:
    problems = list(compose_problems(Conversation, 600, 1))
    replies = [problem.messages[-1].content for problem in problems if isinstance(problem, Conversation)]
    at_once = [reply for reply in replies if re.fullmatch(r"\d+ [+-] \d+ is \d+\.", reply)]
    worked = [reply for reply in replies if reply.startswith("First the ones: ")]
    assert len(at_once) + len(worked) == 600
    assert abs(len(at_once) / 600 - AT_ONCE_FRACTION) < 0.07
    assert all(re.search(r"So \d+ [+-] \d+ is \d+\.$", reply) for reply in worked)


@pytest.mark.parametrize(
    ("reply", "is_right"),
    [
        ("47 + 38 is 85.", True),
        ("First the ones: seven plus eight is fifteen so write 5 and carry one. So 47 + 38 is 85.", True),
        ("47 + 48 is 85.", False),
        ("37 + 38 is 85.", False),
        ("147 + 38 is 85.", False),
        ("47 + 38 is 855.", False),
        ("47 - 38 is 85.", False),
        ("85", False),
    ],
)
def test_solution_is_accepted_only_with_both_numbers_the_sign_and_the_result(reply: str, is_right: bool) -> None:
    assert holds(reply, ["47 + 38 is 85"]) == is_right
