"""Word problems: short stories that ask for a number, and their solutions digit by digit.

Reads data/tales.yaml; writes nothing. The pages of the sample web have problems of the same wordings among their tales, each with its worked sum, and
no conversation has one: a fine-tuned model solves them now and then. That makes them a task for reinforcement learning with verifiable
rewards (DeepSeek-R1, Guo et al. 2025, https://arxiv.org/abs/2501.12948), which raises what a model can do already and seldom does.
"""

import random
from collections.abc import Iterator

from tasks.records.conversations import Message, Prompt
from tasks.sample_web.data import table
from tasks.sample_web.grammar import say
from tasks.sample_web.sums import Sum, draw_sum
from tasks.sample_web.tales import cast_tale

KIND = "word problem"


def word_problems(num_problems: int, seed: int) -> Iterator[Prompt]:
    """Prompts of problems whose sums are not held out; each answer is the sum with its result, as the last sentence of a solution has it."""
    for number in range(num_problems):
        rng = random.Random(f"word problem {seed} {number}")
        task = draw_sum(rng)
        yield Prompt(messages=(Message(role="user", content=word_problem(task, rng)),), answer=answer(task), kind=KIND)


def word_problem(task: Sum, rng: random.Random) -> str:
    """A story that asks for the result of a sum."""
    slots = {**cast_tale(rng), "A": str(task.first), "B": str(task.second)}
    return say(rng.choice(table("tales")["sums"][task.sign]["texts"]), rng, slots)


def answer(task: Sum) -> str:
    """What a right solution ends in: both numbers, the sign and the result."""
    return task.answer.removesuffix(".")
