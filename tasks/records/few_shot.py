"""Questions and answers as a page that a base model continues: few-shot prompting (Brown et al. 2020, https://arxiv.org/abs/2005.14165).

Reads questions; writes nothing. A question and its answer are two lines that begin with "Q:" and "A:", as on pages of questions.
"""

import random
from collections.abc import Sequence

from tasks.records.conversations import NO_ANSWER, Question


def full_answer(question: Question) -> str:
    """The answer as a sentence, where the question has its opening."""
    if question.split == "unknown":
        return NO_ANSWER
    return f"{question.completion} {question.answer}." if question.completion else question.answer


def few_shot_page(question: Question, examples: Sequence[Question], num_examples: int, rng: random.Random) -> str:
    """At most `num_examples` of the examples with their answers, and the question without one. The reply is the rest of the line."""
    # Not the same fact in another form: the answer would stand on the page.
    others = [example for example in examples if not example.fact or example.fact != question.fact]
    chosen = rng.sample(others, min(num_examples, len(others)))
    shots = [f"Q: {example.question}\nA: {full_answer(example)}" for example in chosen]
    return "\n".join([*shots, f"Q: {question.question}\nA:"])
