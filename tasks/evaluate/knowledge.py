"""What the models know: closed-book questions and answers, by how often the training text states each fact.

Reads models and questions (tasks/records/conversations.py), writes nothing. What is measured:

- A chat model answers each question greedily. Accuracy by split separates memory of a wording (seen_wording), of the fact
  (heldout_wording) and of the web alone (heldout_fact). A question of split "unknown" is right when the model says that it does not
  know (Kadavath et al. 2022, https://arxiv.org/abs/2207.05221); such a reply to any other question is a false refusal.
- A base model ranks all answers of a relation as the end of a statement, as in LAMA (Petroni et al. 2019,
  https://arxiv.org/abs/1909.01066), and writes the end of the statement itself. Ranking measures memory without the skill of writing. It
  also answers questions after a few examples (Brown et al. 2020): what fine-tuning then costs is the distance of the chat models from it.
- Accuracy grows with the number of documents that state a fact (Kandpal et al. 2023, https://arxiv.org/abs/2211.08411), so it is
  reported by class of frequency, apart for facts that conversations teach and for held-out ones, with an interval.

Departures: LAMA ranks the whole vocabulary for one token; here the candidates are the answers of the relation, of any length.
"""

import bisect
import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model.config import GenerateConfig
from tasks.records.conversations import FREQUENT_MENTIONS, Question, normal_form
from tasks.records.few_shot import few_shot_page
from tasks.shares import share

if TYPE_CHECKING:
    from model.network.transformer import Transformer
    from model.tokenizer.chat import ChatTokenizer

# Names of the two measurements in answers.jsonl and as columns of the report card.
RANKED, COMPLETED, FEW_SHOT = "base, ranking", "base, completion", "base, few-shot"
HELDOUT, TAUGHT = "held out", "taught"
NUM_SHOTS = 4

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Answer:
    """A model's reply to a question, compared with the reference. For a base model the last four are not set (None)."""

    model: str
    question: Question
    reply: str
    is_correct: bool
    is_refusal: bool | None = None
    is_finished: bool | None = None
    num_tokens: int | None = None
    logprob: float | None = None

    @property
    def is_frequent(self) -> bool:
        """Whether the answer should be known: conversations or many pages state it. A question without a count is asked because it should."""
        mentions = self.question.num_mentions
        is_taught = self.question.split in ("seen_wording", "heldout_wording")
        return self.question.split != "unknown" and (is_taught or mentions is None or mentions >= FREQUENT_MENTIONS)

    def as_json(self) -> dict[str, Any]:
        """The answer with its question, for `answers.jsonl`."""
        values = {
            "reply": self.reply,
            "is_correct": self.is_correct,
            "is_refusal": self.is_refusal,
            "is_finished": self.is_finished,
            "num_tokens": self.num_tokens,
            "logprob": self.logprob,
        }
        # What was not measured is left out rather than null, as in the records of questions.
        given = {name: value for name, value in values.items() if value is not None}
        return {"model": self.model, **normal_form(self.question), **given}


def sample_questions(questions: Sequence[Question], limit: int, seed: int) -> list[Question]:
    """At most `limit` questions (one of each split at least): of each split the same number, of each form of a split too, where it has as many."""
    splits: dict[str, dict[str, list[Question]]] = defaultdict(lambda: defaultdict(list))
    for question in random.Random(seed).sample(questions, len(questions)):
        splits[question.split][question.form].append(question)
    # The same number of each split, since each has its own accuracy: a share by size would measure small ones on a few questions.
    quota = max(1, limit // max(1, len(splits)))
    return [question for _, forms in sorted(splits.items()) for question in _interleave(forms)[:quota]]


def _interleave(forms: dict[str, list[Question]]) -> list[Question]:
    """The questions of all forms, one of each in turn."""
    rounds = itertools.zip_longest(*(some for _, some in sorted(forms.items())))
    return [question for some in rounds for question in some if question is not None]


def ask_chat_model(
    name: str,
    model: "Transformer",
    tokenizer: "ChatTokenizer",
    questions: Sequence[Question],
    config: GenerateConfig,
    batch: int,
    progress: Progress,
) -> list[Answer]:
    """A chat model's reply to every question, `batch` of them at a time. `progress` is called with the number answered."""
    from model.inference.answers import holds, right_answers
    from model.inference.scoring import answer

    # Each question is a conversation of one turn, without a system turn.
    conversations = [[{"role": "user", "content": question.question}] for question in questions]
    answers: list[Answer] = []
    for question, reply in zip(
        questions, answer(model, tokenizer, conversations, config, batch, progress), strict=True
    ):
        is_known = question.split != "unknown"
        # A refusal is found by its words. A wrong answer that happens to contain "not sure" counts as one, too.
        is_correct = holds(reply.text, right_answers(normal_form(question))) if is_known else reply.is_refusal
        answers.append(
            Answer(
                name,
                question,
                reply.text,
                is_correct,
                reply.is_refusal,
                reply.is_finished,
                reply.num_tokens,
                reply.logprob,
            )
        )
    return answers


def ask_base_model(
    model: "Transformer",
    tokenizer: "ChatTokenizer",
    questions: Sequence[Question],
    config: GenerateConfig,
    batch: int,
    progress: Progress,
    is_ranked: bool = True,
) -> list[Answer]:
    """A base model's end of every statement: the likeliest answer of the relation, and its own completion.

    A statement without a fact id, or whose relation has a single answer, cannot be ranked and is only completed. Ranking reads every
    statement with every answer and costs most by far: `is_ranked=False` leaves it out.
    """
    from model.inference.answers import first_sentence
    from model.inference.scoring import complete, rank

    # A base model does not know when to stop, so its free completion is compared by the first sentence; ranking asks only which of
    # the answers it finds likeliest, as multiple-choice benchmarks do.
    # Of the sampled statements only, so that a larger sample makes the choice harder: compare rankings of equal max_questions.
    candidates = candidates_by_relation(questions if is_ranked else ())
    rankable = [question for question in questions if len(candidates.get(relation(question), ())) > 1]
    starts = [question.completion for question in rankable]
    ranked = rank(model, tokenizer, starts, [candidates[relation(question)] for question in rankable], batch)
    # Two reports, at half and at the end: neither pass returns before it has seen all statements.
    progress(len(questions))
    texts = complete(model, tokenizer, [question.completion for question in questions], config, batch)
    progress(2 * len(questions))
    completed = [first_sentence(text) for text in texts]
    return [
        *(_compared(RANKED, question, text) for question, text in zip(rankable, ranked, strict=True)),
        *(_compared(COMPLETED, question, text) for question, text in zip(questions, completed, strict=True)),
    ]


def ask_few_shot(
    model: "Transformer",
    tokenizer: "ChatTokenizer",
    questions: Sequence[Question],
    examples: Sequence[Question],
    config: GenerateConfig,
    batch: int,
    progress: Progress,
) -> list[Answer]:
    """A base model's answers to questions after NUM_SHOTS of the `examples`, of which at least one must have a completion.

    The reply is the rest of the line.
    """
    from model.inference.answers import holds, right_answers
    from model.inference.scoring import Answer as Reply
    from model.inference.scoring import complete

    known = [example for example in examples if example.completion or example.split == "unknown"]
    if not known or not questions:
        return []
    # Each question has its own examples, so that no unlucky one spoils the whole measurement.
    rngs = (random.Random(f"{number} {question.question}") for number, question in enumerate(questions))
    openings = [few_shot_page(question, known, NUM_SHOTS, rng) for question, rng in zip(questions, rngs, strict=True)]
    texts = complete(model, tokenizer, openings, config, batch)
    progress(len(questions))
    answers = []
    for question, text in zip(questions, texts, strict=True):
        reply = text.strip().split("\n")[0]
        is_refusal = Reply(reply, 0, True).is_refusal
        is_held = holds(reply, right_answers(normal_form(question)))
        answers.append(
            Answer(FEW_SHOT, question, reply, is_refusal if question.split == "unknown" else is_held, is_refusal)
        )
    return answers


def _compared(model: str, question: Question, text: str) -> Answer:
    from model.inference.answers import holds, right_answers

    return Answer(model, question, text, holds(text, right_answers(normal_form(question))))


def statements(questions: Iterable[Question], limit: int, seed: int) -> list[Question]:
    """At most `limit` questions that a base model can complete, one for each statement."""
    # Wordings of one question share a statement. A dict keeps the place of the first, so the order is that of the file.
    known = {
        question.completion: question for question in questions if question.completion and question.split != "unknown"
    }
    return random.Random(seed).sample(list(known.values()), min(len(known), limit))


def relation(question: Question) -> tuple[str, bool]:
    """The relation of a question's fact, RELATION:SUBJECT, and whether it asks for the subject."""
    # "mayor_of:orn" is behind "Who is the mayor of Orn?" and "Which town has Ada Brell for a mayor?". The answers of the two
    # are a person and a town, which must not be ranked against each other.
    name, _, subject = question.fact.partition(":")
    return name, question.answer.lower().replace(" ", "-") == subject


def candidates_by_relation(questions: Iterable[Question]) -> dict[tuple[str, bool], list[str]]:
    """All answers to questions of each relation, sorted. A question without a fact id has none."""
    # Sorted below: the order of a set of strings differs from process to process.
    candidates: dict[tuple[str, bool], set[str]] = defaultdict(set)
    for question in questions:
        if question.fact:
            candidates[relation(question)].add(question.answer)
    return {name: sorted(answers) for name, answers in candidates.items()}


def accuracy_by_mentions(answers: Iterable[Answer], bounds: Sequence[int]) -> list[dict[str, Any]]:
    """Accuracy of every model by class of mentions, held-out facts apart, the most frequent facts first.

    Questions without a count are left out. Every accuracy is a share with its number and interval (shares.py).
    """
    classes: dict[tuple[bool, int], dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    # bisect_right: a count equal to a bound belongs to the class that begins there.
    for answer in answers:
        question = answer.question
        if question.split != "unknown" and question.num_mentions is not None:
            place = question.split == "heldout_fact", bisect.bisect(bounds, question.num_mentions)
            classes[place][answer.model].append(answer.is_correct)
    return [
        {"facts": HELDOUT if is_heldout else TAUGHT, "mentions": class_name(number, bounds)}
        | {"accuracy": {model: share(is_correct) for model, is_correct in models.items()}}
        for (is_heldout, number), models in sorted(classes.items(), reverse=True)
    ]


def class_name(number: int, bounds: Sequence[int]) -> str:
    """The name of the class of facts between two bounds: "5 to 9", "30 or more"."""
    # Questions of a user may count 0 mentions: they fall into the first class, whose name begins at 1.
    if number == len(bounds):
        return f"{bounds[-1]} or more"
    low, high = (bounds[number - 1] if number else 1), bounds[number] - 1
    return f"{low} to {high}" if low < high else str(high)


def chat_shares(answers: Sequence[Answer]) -> dict[str, dict[str, Any]]:
    """Shares of one chat model, with intervals: accuracy on frequent facts by split, false refusals, finished replies."""
    # Rare facts are left out here and have their place in `accuracy_by_mentions`.
    frequent = [answer for answer in answers if answer.is_frequent]
    unknown = [answer for answer in answers if answer.question.split == "unknown"]
    by_split: dict[str, list[bool]] = defaultdict(list)
    for answer in [*frequent, *unknown]:
        by_split[answer.question.split].append(answer.is_correct)
    return {f"{split}_accuracy": share(is_correct) for split, is_correct in sorted(by_split.items())} | {
        "false_refusal_fraction": share([bool(answer.is_refusal) for answer in frequent]),
        "finished_fraction": share([bool(answer.is_finished) for answer in answers]),
    }


def chat_metrics(answers: Sequence[Answer]) -> dict[str, float]:
    """Metrics of one chat model: the values of its shares, and the tokens of a reply."""
    shares: dict[str, float] = {name: value["share"] for name, value in chat_shares(answers).items()}
    return shares | {"tokens_mean": mean([answer.num_tokens or 0 for answer in answers])}


def examples(answers: Sequence[Answer], num: int = 3) -> list[Answer]:
    """A few answers of each split about the most frequent facts, each of another relation. The result does not decide the choice."""
    splits: dict[str, dict[str, Answer]] = defaultdict(dict)
    # Chosen by the question, never by the reply: a choice among good replies would flatter the model.
    for answer in sorted(answers, key=lambda answer: -(answer.question.num_mentions or 0)):
        question = answer.question
        splits[question.split].setdefault(question.fact.partition(":")[0] or question.question, answer)
    return [answer for _, split in sorted(splits.items()) for answer in list(split.values())[:num]]


def mean(values: Sequence[float]) -> float:
    """The mean, 0 of no values."""
    return sum(values) / len(values) if values else 0.0
