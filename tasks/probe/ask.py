"""Asks a model the same question several times, and compares the samples with the right answers.

Reads models and questions; writes nothing. A base model reads a page of questions and answers and continues it (few-shot, Brown et al. 2020,
https://arxiv.org/abs/2005.14165), or continues a sentence (cloze); a chat model gets the question as a turn. The samples are compared as
model/inference/answers.py does: the share that is right estimates whether the model knows the answer, as in Llama 3's training for
factuality (Grattafiori et al. 2024, https://arxiv.org/abs/2407.21783, section 4.3.6).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model.config import GenerateConfig
from tasks.probe.cloze import CLOZE
from tasks.records.conversations import Question, normal_form
from tasks.records.few_shot import few_shot_page

if TYPE_CHECKING:
    from model.network.transformer import Transformer
    from model.tokenizer.chat import ChatTokenizer


@dataclass(frozen=True)
class Probed:
    """A question, a model's sampled answers to it, and how many of them are right. Of a question that has no answer none is."""

    question: Question
    samples: tuple[str, ...]
    num_right: int

    @property
    def share(self) -> float:
        """The share of the samples that are right."""
        return self.num_right / len(self.samples)

    def as_json(self) -> dict[str, Any]:
        """As a line of probed.jsonl."""
        return {**normal_form(self.question), "samples": self.samples, "num_right": self.num_right}

    @classmethod
    def of(cls, value: dict[str, Any]) -> "Probed":
        """The value of a line of probed.jsonl."""
        return cls(Question.model_validate(value), tuple(value["samples"]), value["num_right"])


def opening(question: Question, examples: Sequence[Question], rng: random.Random, num_examples: int) -> str:
    """What a base model continues: the sentence of a cloze question, else a page of examples that ends in the question."""
    if question.kind == CLOZE:
        return question.completion
    return few_shot_page(question, examples, num_examples, rng)


def ask_base_model(
    model: "Transformer",
    tokenizer: "ChatTokenizer",
    questions: Sequence[Question],
    openings: Sequence[str],
    num_samples: int,
    config: GenerateConfig,
) -> list[Probed]:
    """`num_samples` continuations of each opening, up to the end of the line, or of the sentence."""
    from model.inference.answers import first_sentence
    from model.inference.scoring import complete

    repeated = [text for text in openings for _ in range(num_samples)]
    # A line end that is one token ends most continuations early; one within a longer token does not, and is cut off below.
    newline = tuple(tokenizer.encode("\n"))
    settings = config.model_copy(update={"stop_sequences": (newline,)})
    texts = complete(model, tokenizer, repeated, settings, len(repeated))
    return _compared(questions, [first_sentence(text.strip().partition("\n")[0]) for text in texts], num_samples)


def ask_chat_model(
    model: "Transformer",
    tokenizer: "ChatTokenizer",
    questions: Sequence[Question],
    num_samples: int,
    config: GenerateConfig,
) -> list[Probed]:
    """`num_samples` replies to each question."""
    from model.inference.scoring import answer

    turns = [[{"role": "user", "content": question.question}] for question in questions for _ in range(num_samples)]
    replies = answer(model, tokenizer, turns, config, len(turns))
    return _compared(questions, [reply.text for reply in replies], num_samples)


def _compared(questions: Sequence[Question], texts: Sequence[str], num_samples: int) -> list[Probed]:
    from model.inference.answers import holds, right_answers

    found = []
    for number, question in enumerate(questions):
        samples = tuple(texts[number * num_samples : (number + 1) * num_samples])
        right = [] if question.split == "unknown" else right_answers(normal_form(question))
        found.append(Probed(question, samples, sum(holds(sample, right) for sample in samples)))
    return found
