"""Word problems: short stories that ask for a number, and their solutions digit by digit.

Reads data/tales.yaml; writes nothing. They are additions and subtractions, in the wordings that pages of the sample web have among their tales.
Conversations solve them in both ways that people do: most give the answer at once, the others work it digit by digit first. A model of this
size cannot compute a sum at once, so after fine-tuning it is right now and then. Reinforcement learning with verifiable rewards makes
a model do more often what works (DeepSeek-R1, Guo et al. 2025, https://arxiv.org/abs/2501.12948), here: to write the way to the answer.
"""

import random
from collections.abc import Iterator

from tasks.records.conversations import Conversation, Message, Prompt
from tasks.records.messages import Record
from tasks.sample_web.data import table
from tasks.sample_web.grammar import say
from tasks.sample_web.sums import Sum, draw_sum
from tasks.sample_web.tales import cast_tale

KIND = "word problem"
AT_ONCE_FRACTION = 0.72  # of the conversations, those that give the answer without the way to it


def compose_problems(kind: type[Record], num_problems: int, seed: int) -> Iterator[Record]:
    """Problems as conversations with their solutions, or as prompts; no sum is one of those held out."""
    for number in range(num_problems):
        rng = random.Random(f"word problem {kind.__name__} {seed} {number}")
        task = draw_problem(rng)
        asked = Message(role="user", content=word_problem(task, rng))
        if kind is Prompt:
            yield Prompt(messages=(asked,), answer=answer(task), kind=KIND)
        else:
            reply = task.answer if rng.random() < AT_ONCE_FRACTION else task.worked
            yield Conversation(messages=(asked, Message(role="assistant", content=reply)), kind=KIND)


def draw_problem(rng: random.Random) -> Sum:
    """An addition or subtraction that is not held out."""
    while (task := draw_sum(rng)).sign == "x":
        pass
    return task


def word_problem(task: Sum, rng: random.Random) -> str:
    """A story that asks for the result of a sum."""
    slots = {**cast_tale(rng), "A": str(task.first), "B": str(task.second)}
    return say(rng.choice(table("tales")["sums"][task.sign]["texts"]), rng, slots)


def answer(task: Sum) -> str:
    """What a right solution ends in: both numbers, the sign and the result."""
    return task.answer.removesuffix(".")
