"""What the models of a run say to a question: the base model after examples, the chat model as a user would ask it.

Reads models of the store; writes nothing. The base model is asked after several pages of examples (few-shot), and samples its answers; the
share that is right estimates whether it knows the answer, as the stage probe does. Its likelihood of the right answer, at its place in a
sentence of the training data, is ranked among the answers of the examples whose questions are most alike, as LAMA does (Petroni et al.
2019, https://arxiv.org/abs/1909.01066).
"""

import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from model.config import GenerateConfig
from model.errors import UserError
from model.files import read_lines
from model.tokenizer.chat import ChatTokenizer
from tasks.artifacts.manifest import BaseModel, Checkpoint, Conversations, Probes, Tokenizer
from tasks.artifacts.store import Store
from tasks.probe.ask import ask_base_model, opening
from tasks.provenance.explanation import word_set
from tasks.provenance.lineage import Run
from tasks.records.conversations import Question
from tasks.training import load_language_model

if TYPE_CHECKING:
    from model.network.transformer import Transformer

CHAT_STAGES = ("sft", "rlhf")
NUM_OPENINGS = 4
NUM_SAMPLES = 4  # of each opening
NUM_EXAMPLES = 4
BATCH_QUESTIONS = 8  # times 16 sequences
NUM_CANDIDATES = 20
MAX_EXAMPLES = 2_000
MAX_REPLY_CHARACTERS = 160  # of a conversation that serves as an example
KNOWN_FRACTION = 0.5
CAPITALISED = re.compile(r"\b[A-Z]\w*")


@dataclass(frozen=True)
class Asked:
    """What the models said. `share`: of the base model's samples that are right; `rank`: of the right answer, 1 for the likeliest.

    `share`, `rank` and `logprob_nats` (of the right answer as a whole) are None where the run has no base model in the store.
    """

    reply: str
    is_right: bool
    is_refusal: bool
    share: float | None = None
    samples: tuple[str, ...] = ()
    rank: int | None = None
    num_candidates: int = 0
    logprob_nats: float | None = None

    @property
    def is_known_to_base(self) -> bool:
        """Whether the base model gives the right answer at least as often as not."""
        return self.share is not None and self.share >= KNOWN_FRACTION


def ask_models(store: Store, run: Run, questions: Sequence[Question], sentences: Sequence[str]) -> list[Asked]:
    """What the chat model and the base model of a run say to each question. `sentences`: one that states each answer, or "".

    Raises UserError where the run has no chat model.
    """
    if run.model.stage not in CHAT_STAGES:
        raise UserError(f"{run.model.id} is no chat model to ask: run the recipe up to sft")
    tokenizer = ChatTokenizer.load(store.open(run.model.input("tokenizer"), Tokenizer).folder / "tokenizer.json")
    chat = ask_chat(store, run, tokenizer, questions)
    base = run.of_stage("pretrain")
    if base is None:
        return chat
    model = load_language_model(store.open(base.id, BaseModel))
    examples = list(islice(examples_of(store, run), MAX_EXAMPLES))
    found: list[Asked] = []
    for start in range(0, len(questions), BATCH_QUESTIONS):
        group = slice(start, start + BATCH_QUESTIONS)
        found += with_base(model, tokenizer, questions[group], sentences[group], examples, chat[group])
    return found


def ask_chat(store: Store, run: Run, tokenizer: ChatTokenizer, questions: Sequence[Question]) -> list[Asked]:
    """The chat model's greedy replies."""
    from model.inference.answers import holds
    from model.inference.scoring import answer

    model = load_language_model(store.open(run.model.id, Checkpoint))
    settings = GenerateConfig(max_new_tokens=64, temperature=0.0)
    turns = [[{"role": "user", "content": question.question}] for question in questions]
    return [
        Asked(reply.text, holds(reply.text, [question.answer, *question.aliases]), reply.is_refusal)
        for question, reply in zip(questions, answer(model, tokenizer, turns, settings), strict=True)
    ]


def with_base(
    model: "Transformer",
    tokenizer: ChatTokenizer,
    questions: Sequence[Question],
    sentences: Sequence[str],
    examples: Sequence[Question],
    asked: Sequence[Asked],
) -> Iterator[Asked]:
    """What a base model says to each question, next to what the chat model said."""
    others = [other_examples(question, examples) for question in questions]
    openings = [
        opening(question, some, rng, NUM_EXAMPLES)
        for question, some in zip(questions, others, strict=True)
        for rng in [random.Random(question.question)]
        for _ in range(NUM_OPENINGS)
    ]
    repeated = [question for question in questions for _ in range(NUM_OPENINGS)]
    settings = GenerateConfig(max_new_tokens=32, temperature=0.7, seed=0)
    probed = ask_base_model(model, tokenizer, repeated, openings, NUM_SAMPLES, settings)
    for number, (question, sentence, some, reply) in enumerate(zip(questions, sentences, others, asked, strict=True)):
        own = slice(number * NUM_OPENINGS, (number + 1) * NUM_OPENINGS)
        candidates = list(dict.fromkeys(example.answer for example in some))[: NUM_CANDIDATES - 1]
        before, found, _ = partition(sentence, question.answer)
        rank, logprob = ranked(model, tokenizer, before if found else openings[own][0], question.answer, candidates)
        yield replace(
            reply,
            share=sum(item.num_right for item in probed[own]) / (NUM_OPENINGS * NUM_SAMPLES),
            samples=tuple(sample for item in probed[own] for sample in item.samples),
            rank=rank,
            num_candidates=len(candidates) + 1,
            logprob_nats=logprob,
        )


def other_examples(question: Question, examples: Sequence[Question]) -> list[Question]:
    """The examples that do not give the answer away, those whose questions are most alike first."""
    answer = question.answer.lower()
    others = [
        example for example in examples if example.answer.lower() != answer and answer not in example.question.lower()
    ]
    # By what is asked and not about whom: words with a capital are names.
    wanted = word_set(CAPITALISED.sub("", question.question))
    return sorted(others, key=lambda example: -len(wanted & word_set(example.question)))


def partition(text: str, part: str) -> tuple[str, str, str]:
    """`str.partition` without regard to case, of texts whose lower case has the same length."""
    place = text.lower().find(part.lower())
    return (text, "", "") if place < 0 else (text[:place], text[place : place + len(part)], text[place + len(part) :])


def ranked(
    model: "Transformer", tokenizer: ChatTokenizer, before: str, answer: str, others: Sequence[str]
) -> tuple[int, float]:
    """The place of an answer among others by log-probability after a text, and its own in nats."""
    from model.inference.scoring import continuation_logprobs

    prefix = tokenizer.encode_document(before.rstrip())
    # The full stop makes each a whole statement, so that a short answer has no advantage as the start of a longer one.
    rows = [(prefix, tokenizer.encode(f" {text.rstrip('.')}.")) for text in (answer, *others)]
    own, *found = continuation_logprobs(model, rows).tolist()
    return 1 + sum(value > own for value in found), own


def examples_of(store: Store, run: Run) -> Iterator[Question]:
    """Questions with answers for the pages that a base model reads: those of the stage probe, else short conversations."""
    for manifest in run.of_kind(Probes):
        path = store.open(manifest.id, Probes).folder / "probes.jsonl"
        found = map(Question.model_validate, read_lines(path))
        yield from (question for question in found if question.split in ("seen_wording", "other"))
    for manifest in run.of_kind(Conversations):
        if manifest.stage == "conversations":
            yield from exchanges(store.open(manifest.id, Conversations))


def exchanges(conversations: Conversations) -> Iterator[Question]:
    """The first question and reply of each conversation, where both are short."""
    with (conversations.folder / "train.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            roles = [(message["role"], message["content"]) for message in json.loads(line)["messages"][:2]]
            if [role for role, _ in roles] != ["user", "assistant"]:
                continue
            (_, asked), (_, reply) = roles
            if asked.strip() and reply.strip() and max(len(asked), len(reply)) <= MAX_REPLY_CHARACTERS:
                yield Question(question=asked, answer=reply)
