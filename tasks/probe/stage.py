"""Probe: what a base model knows, and conversations that answer what it knows and refuse what it does not.

Reads a BaseModel, the Tokenizer, and questions: Probes (composed about the sample web, or a user's file), or without them sentences of the
Documents (cloze.py). Reads the Conversations of SFT, and an SFT model where the config names one, which is measured next to the base
model. Writes Conversations: `train.jsonl`, `validation.jsonl`; `probed.jsonl`, a question a line with the sampled answers;
`knowledge.json` and `knowledge.md`, what is known by mentions, as a table and a plot.

A model that is fine-tuned to state what it does not know learns to make things up (Gekhman et al. 2024, https://arxiv.org/abs/2405.05904), and one
that is fine-tuned to refuse what it knows forgets it; so the base model decides (Llama 3, Grattafiori et al. 2024,
https://arxiv.org/abs/2407.21783, section 4.3.6). A question that has an answer gives

- the answer, where at least `known_fraction` of the samples are right;
- a refusal, where at most `unknown_fraction` are, unless a conversation states the fact: the two would contradict each other;
- nothing between the two, and nothing where the fact is held out: it is measured only.

A question without an answer gives a refusal. A stage that was killed resumes after its last finished shard of questions.

Departure: Llama 3 lets a language model write the questions and compare the answers. Here questions are composed, read or cloze sentences, and
answers are compared by normalised words.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from model.config import GenerateConfig
from model.files import read_lines, write_lines
from tasks.artifacts.files import write_atomically
from tasks.artifacts.manifest import BaseModel, Checkpoint, Conversations, Documents, Probes, SFTModel, Tokenizer
from tasks.artifacts.step import ExistingArtifact, Outcome, Step, roles
from tasks.artifacts.store import Store
from tasks.conversations.readers import is_validation, read_records
from tasks.conversations.sources import ProbesConfig
from tasks.execution.context import StageContext
from tasks.probe.ask import Probed, ask_base_model, ask_chat_model, opening
from tasks.probe.cloze import CLOZE, make_questions
from tasks.probe.knowledge import knowledge_by_mentions, render
from tasks.records.conversations import Conversation, Message, Question, normal_form
from tasks.records.documents import read_documents
from tasks.records.few_shot import full_answer
from tasks.training import check_vocabulary, load_language_model, tokenizer_file

if TYPE_CHECKING:
    from model.network.transformer import Transformer

VERSION = 1
SHARD_QUESTIONS = 32  # asked at once and recorded together; times num_samples rows of a batch
BASE, CHAT = "base model, few-shot", "SFT model"


class ProbeConfig(ProbesConfig):
    """Which questions are asked, how often, and what counts as known."""

    max_questions: int = Field(1200, ge=1, description="At most this many questions are asked, a sample of all.")
    num_samples: int = Field(4, ge=1, le=256, description="Answers that are sampled to each question.")
    temperature: float = Field(0.7, ge=0.0, le=10.0, description="Temperature of the samples.")
    num_examples: int = Field(
        4, ge=0, le=64, description="Questions with answers that a base model reads before each question (few-shot)."
    )
    max_new_tokens: int = Field(24, ge=1, le=4096, description="An answer is cut off after this many tokens.")
    known_fraction: float = Field(
        0.75, gt=0.0, le=1.0, description="From this share of right samples on a question is answered."
    )
    unknown_fraction: float = Field(
        0.25, ge=0.0, lt=1.0, description="Up to this share of right samples a question is refused."
    )
    max_refusal_fraction: float = Field(
        0.5, ge=0.0, le=1.0, description="Refusals are at most this share of the conversations; more are left out."
    )
    refusals: tuple[str, ...] = Field(
        ("I don't know.", "I don't know.", "I don't know that.", "Sorry, I don't know."),
        min_length=1,
        description="What is said instead of an answer; one of these each time.",
    )
    conversation_validation_fraction: float = Field(
        0.03, ge=0.0, le=0.5, description="Conversations kept for the validation of SFT."
    )
    assistant: str = Field(
        "", description="An SFT model to measure next to the base model, as sft/FINGERPRINT; empty: none."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed for the choice of questions and for the samples.")

    @model_validator(mode="after")
    def _known_is_above_unknown(self) -> Self:
        if self.unknown_fraction >= self.known_fraction:
            raise ValueError(
                f"unknown_fraction={self.unknown_fraction:g} is not below known_fraction={self.known_fraction:g}: a question would "
                "be answered and refused"
            )
        return self


@dataclass(frozen=True)
class ProbeInputs:
    """The artifacts that probing reads. `probes`: questions; without them sentences of the documents are taken."""

    base: BaseModel
    tokenizer: Tokenizer
    documents: Documents
    conversations: Conversations
    probes: Probes | None = None
    assistant: SFTModel | None = None


def probe(
    base: Step[BaseModel],
    tokenizer: Step[Tokenizer],
    documents: Step[Documents],
    conversations: Step[Conversations],
    probes: Step[Probes] | None,
    config: ProbeConfig,
) -> Step[Conversations]:
    """Ask a base model what it knows, and make conversations of it."""
    assistant = ExistingArtifact.of(SFTModel, config.assistant) if config.assistant else None
    inputs = roles(
        base=base,
        tokenizer=tokenizer,
        documents=documents,
        conversations=conversations,
        probes=probes,
        assistant=assistant,
    )
    return Step(
        "probe", VERSION, Conversations, config, inputs, run=probe_model, takes=ProbeInputs, check=check_assistant
    )


def check_assistant(config: ProbeConfig) -> None:
    """Raises UserError where the SFT model that is named does not exist."""
    if config.assistant:
        Store.default().open(config.assistant, SFTModel)


def probe_model(ctx: StageContext, config: ProbeConfig, inputs: ProbeInputs) -> Outcome:
    """Ask, and write what is known and the conversations. Raises UserError where the tokenizer is not that of a model."""
    models: dict[str, Checkpoint] = {BASE: inputs.base}
    if inputs.assistant:
        models[CHAT] = inputs.assistant
    for model in models.values():
        check_vocabulary(model, inputs.tokenizer)
    questions = choose_questions(config, inputs)
    probed = {
        name: list(ask_in_shards(ctx, config, model, inputs.tokenizer, questions)) for name, model in models.items()
    }
    write_lines(
        ctx.folder / "probed.jsonl", (item.as_json() | {"model": name} for name in probed for item in probed[name])
    )
    rows = knowledge_by_mentions(probed, lambda item: item.share >= config.known_fraction)
    page = render(rows, config.known_fraction)
    write_atomically(ctx.folder / "knowledge.json", json.dumps(rows, indent=1))
    write_atomically(ctx.folder / "knowledge.md", page)
    ctx.markdown("knowledge", page, "known questions by mentions")

    stated = {
        fact
        for record in read_records(Conversation, inputs.conversations.folder / "train.jsonl")
        for fact in record.facts
    }
    counts: Counter[str] = Counter()
    sides: dict[str, list[Conversation]] = {"train": [], "validation": []}
    for talk in make_conversations(config, probed[BASE], stated, counts):
        # As the other conversations are split: a question is on one side whatever the model knows.
        is_held_out = is_validation(talk, config.conversation_validation_fraction)
        sides["validation" if is_held_out else "train"].append(talk)
    for side, talks in sides.items():
        counts[f"{side}_records"] = write_lines(ctx.folder / f"{side}.jsonl", map(normal_form, talks))
    return Outcome({"questions": len(questions), **counts}, metrics(probed))


def choose_questions(config: ProbeConfig, inputs: ProbeInputs) -> list[Question]:
    """At most `max_questions` questions, in an order that depends on the seed alone."""
    if inputs.probes is None:
        shards = inputs.documents.files("documents/*.parquet")
        found = make_questions((document for path in shards for document in read_documents(path)), config.max_questions)
    else:
        found = list(read_records(Question, inputs.probes.folder / "probes.jsonl"))
    return random.Random(config.seed).sample(found, min(len(found), config.max_questions))


def ask_in_shards(
    ctx: StageContext, config: ProbeConfig, model: Checkpoint, tokenizer: Tokenizer, questions: Sequence[Question]
) -> Iterator[Probed]:
    """A model's answers to all questions; shards that a run before this one has finished are read."""
    from model.tokenizer.chat import ChatTokenizer

    encoder = ChatTokenizer.load(tokenizer_file(tokenizer))
    loaded: Transformer | None = None
    is_base = isinstance(model, BaseModel)
    examples = [
        question for question in questions if question.split in ("seen_wording", "other") and question.kind != CLOZE
    ]
    for start in range(0, len(questions), SHARD_QUESTIONS):
        record = ctx.state / f"{model.manifest.stage}-{start:07}.jsonl"
        if not record.exists():
            loaded = loaded or load_language_model(model)
            asked = questions[start : start + SHARD_QUESTIONS]
            # A seed for each shard: one that is asked again after a kill gets the same samples.
            settings = GenerateConfig(
                max_new_tokens=config.max_new_tokens, temperature=config.temperature, seed=config.seed + start
            )
            if is_base:
                rng = random.Random(f"{config.seed} {start}")
                openings = [opening(question, examples, rng, config.num_examples) for question in asked]
                found = ask_base_model(loaded, encoder, asked, openings, config.num_samples, settings)
            else:
                found = ask_chat_model(loaded, encoder, asked, config.num_samples, settings)
            write_lines(record, (item.as_json() for item in found))
        yield from map(Probed.of, read_lines(record))
        ctx.progress(
            min(start + SHARD_QUESTIONS, len(questions)), len(questions), f"questions to the {model.manifest.stage}"
        )


def make_conversations(
    config: ProbeConfig, probed: Sequence[Probed], stated: set[str], counts: Counter[str]
) -> Iterator[Conversation]:
    """A conversation for each question that is decided. `stated`: facts of other conversations. Counts what became of the questions."""
    answers, refused = [], []
    for item in probed:
        outcome = decide(config, item, stated)
        counts[f"questions/{outcome}"] += 1
        if outcome == "known":
            answers.append(_talk(item.question, full_answer(item.question), "known"))
        elif outcome == "unknown":
            rng = random.Random(f"{config.seed} {item.question.question}")
            refused.append(_talk(item.question, rng.choice(config.refusals), "unknown"))
    share = config.max_refusal_fraction
    # The limit of refusals next to these answers; without answers there is no share to keep.
    limit = len(refused) if share == 1 or not answers else int(len(answers) * share / (1 - share))
    counts["dropped_refusals"] = max(0, len(refused) - limit)
    yield from answers
    yield from refused[:limit]


def decide(config: ProbeConfig, item: Probed, stated: set[str]) -> str:
    """What becomes of a question: known, unknown, unsure (between the two), stated (in a conversation) or heldout (measured only)."""
    if item.question.split == "heldout_fact":
        return "heldout"
    if item.question.split == "unknown":
        return "unknown"
    if item.share >= config.known_fraction:
        return "known"
    if item.share > config.unknown_fraction:
        return "unsure"
    return "stated" if item.question.fact in stated else "unknown"


def _talk(question: Question, reply: str, kind: str) -> Conversation:
    turns = (Message(role="user", content=question.question), Message(role="assistant", content=reply))
    facts = (question.fact,) if kind == "known" and question.fact else ()
    return Conversation(messages=turns, kind=f"probe/{kind}", facts=facts)


def metrics(probed: Mapping[str, Sequence[Probed]]) -> dict[str, float]:
    """The mean share of right samples: of all questions that have an answer, and of held-out facts."""
    found = {}
    for name, prefix in ((BASE, "base"), (CHAT, "assistant")):
        answerable = [item for item in probed.get(name, ()) if item.question.split != "unknown"]
        heldout = [item for item in answerable if item.question.split == "heldout_fact"]
        for kind, items in (("right", answerable), ("heldout_fact_right", heldout)):
            if items:
                found[f"{prefix}/{kind}_fraction"] = sum(item.share for item in items) / len(items)
    return found
