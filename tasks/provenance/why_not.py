"""Why a model does not know an answer: the cause, the evidence, and a command that would change it.

Reads the documents of a run by their words, its chat data, its report card and its models; writes nothing. The cause is decided in the order
of the pipeline, since nothing after a stage can make up for what it dropped:

    answered        the chat model gives the answer
    never_crawled   no document states it, kept or dropped
    dropped         documents that state it were crawled, and a filter dropped all of them
    duplicate       they were dropped as duplicates of documents that do not state it
    refused         the base model knows it, and the chat model says that it does not know
    lost            the base model knows it, and the chat model says something else
    rare            fewer documents state it than are needed, by the run's own curve of knowledge by mentions; or only held-out ones
    unlearned       enough documents state it, and the base model does not know it
"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from tasks.artifacts.manifest import Documents
from tasks.artifacts.store import Store
from tasks.provenance import remedies
from tasks.provenance.ask import Asked
from tasks.provenance.fates import find_documents, has_id, kept_document, why_dropped
from tasks.provenance.lineage import Run
from tasks.provenance.statements import names, statements
from tasks.provenance.training_data import TrainingData
from tasks.records.conversations import Question
from tasks.records.documents import Document
from tasks.records.full_text import FullTextIndex, IndexedText
from tasks.records.samples import redacted_excerpt, redacted_url
from tasks.tokenizer.encode import is_validation

Cause = Literal["answered", "never_crawled", "dropped", "duplicate", "refused", "lost", "rare", "unlearned"]
HALF = 0.5  # of the facts of a class of mentions must be known for the class to be enough
BASE_COLUMNS = ("base, few-shot", "base, ranking")
MAX_SHOWN = 5
SENTENCE_CHARACTERS = 240
TAUGHT_WEIGHT = 0.01  # conversations about one answer, for each of the run's own
MAX_TAUGHT_WEIGHT = 0.2  # of all answers that are taught


class Statement(NamedTuple):
    """A document that states the answer. `outcome`: "kept", or why it was dropped, with the measured value and its limit."""

    url: str
    date: str
    file: str
    offset: int
    outcome: str
    sentence: str


@dataclass(frozen=True)
class Diagnosis:
    """Why a model does not know an answer. `threshold`: mentions from which on half of the facts are known; None where nobody measured it."""

    question: str
    answer: str
    subjects: list[str]
    cause: Cause
    num_kept: int
    num_held_out: int
    num_dropped: int
    num_chat: int
    threshold: int | None
    statements: list[Statement]
    asked: Asked
    settings: list[str]
    is_taught: bool  # whether the remedy needs conversations that give the answer

    def as_json(self) -> dict[str, Any]:
        """Plain values for scripts."""
        return {**asdict(self), "statements": [item._asdict() for item in self.statements]}


@dataclass(frozen=True)
class Evidence:
    """What is searched for statements: documents that were kept, and what was dropped or chat data."""

    store: Store
    run: Run
    data: TrainingData
    documents: FullTextIndex
    records: FullTextIndex
    threshold: int | None


class Found(NamedTuple):
    """The records that state an answer, each with the sentence: documents that were kept, ones that were dropped, and conversations."""

    subjects: list[str]
    kept: list[tuple[IndexedText, str]]
    dropped: list[tuple[IndexedText, str]]
    chat: list[tuple[IndexedText, str]]

    @property
    def sentence(self) -> str:
        """A sentence that states the answer; "" where no record does."""
        return next((sentence for _, sentence in [*self.kept, *self.dropped, *self.chat]), "")


def search(evidence: Evidence, question: Question) -> Found:
    """The records that state the answer to a question."""
    subjects, answers = names(question.question, evidence.data), [question.answer, *question.aliases]
    return Found(
        subjects,
        list(statements(evidence.documents, subjects, answers, ["document"])),
        list(statements(evidence.records, subjects, answers, ["dropped"])),
        list(statements(evidence.records, subjects, answers, ["conversation"])),
    )


def diagnose(evidence: Evidence, question: Question, found: Found, asked: Asked) -> Diagnosis:
    """Why a model does not know the answer to a question, by what was found and what the models said."""
    tokens = evidence.run.of_stage("tokenize")
    fraction = tokens.config["validation_fraction"] if tokens else 0.0
    num_held_out = sum(is_validation(record.text, fraction) for record, _ in found.kept)
    num_kept = len(found.kept) - num_held_out
    dropped = [record for record, _ in found.dropped]
    reasons = [record.reason for record in dropped]
    cause = decide(asked, num_kept, num_held_out, reasons, evidence.threshold)
    # What a filter drops comes back as often as it was dropped; more is needed where that is too rare.
    is_enough = cause in ("dropped", "duplicate") and num_kept + len(dropped) >= (evidence.threshold or 1)
    return Diagnosis(
        question=question.question,
        answer=question.answer,
        subjects=found.subjects,
        cause=cause,
        num_kept=num_kept,
        num_held_out=num_held_out,
        num_dropped=len(dropped),
        num_chat=len(found.chat),
        threshold=evidence.threshold,
        statements=shown(evidence, found.kept, found.dropped),
        asked=asked,
        settings=list(changes(evidence, cause, dropped)),
        is_taught=cause != "answered" and not is_enough,
    )


def decide(asked: Asked, num_kept: int, num_held_out: int, reasons: Sequence[str], threshold: int | None) -> Cause:
    """The cause, by what the models said, how many documents state the answer, and why others were dropped."""
    if asked.is_right:
        return "answered"
    if not num_kept and not num_held_out:
        if not reasons:
            return "never_crawled"
        # A copy of a dropped page says nothing about the page: the filter that dropped the page itself is the cause.
        return "duplicate" if all(reason.startswith("duplicate/") for reason in reasons) else "dropped"
    if asked.is_known_to_base:
        return "refused" if asked.is_refusal else "lost"
    return "rare" if threshold is None or num_kept < threshold else "unlearned"


def changes(evidence: Evidence, cause: Cause, dropped: Sequence[IndexedText]) -> Iterator[str]:
    """The settings that change what a cause names."""
    if cause == "unlearned":
        base = evidence.run.of_stage("pretrain")
        if base and "train" in base.config:
            yield f"pretrain.train.num_steps={2 * base.config['train']['num_steps']}"
    if cause not in ("dropped", "duplicate"):
        return
    # As many come back as are enough, not only those that are shown.
    num_wanted = max(MAX_SHOWN, evidence.threshold or 1)
    for manifest in evidence.run.of_kind(Documents):
        artifact = evidence.store.open(manifest.id, Documents)
        found = list(dropped_documents(artifact, [record.id for record in dropped[:num_wanted]]))
        if manifest.stage == "filter":
            yield from remedies.to_keep(found, manifest.config)
        elif manifest.stage == "dedup":
            yield from dict.fromkeys(setting for document in found for setting in to_keep_duplicate(document, artifact))


def to_keep_duplicate(document: Document, artifact: Documents) -> list[str]:
    """The settings of dedup with which a document that it dropped is kept."""
    config, reason = artifact.manifest.config, document["reason"]
    if reason == "duplicate/minhash" and (kept := kept_document(document["id"], artifact)):
        return remedies.to_keep_both(document["text"], kept["text"], config["ngram_size"])
    return remedies.without_rule(reason, config) or []


def dropped_documents(artifact: Documents, ids: Sequence[str]) -> Iterator[Document]:
    """The dropped documents of an artifact that have these ids."""
    return find_documents(artifact, "dropped", has_id(*ids))


def shown(
    evidence: Evidence, kept: Sequence[tuple[IndexedText, str]], dropped: Sequence[tuple[IndexedText, str]]
) -> list[Statement]:
    """A few of the documents that state the answer, kept ones first, dropped ones with the value that decided."""
    kept, dropped = kept[:MAX_SHOWN], dropped[: max(0, MAX_SHOWN - len(kept))]
    outcomes: dict[str, str] = {}
    for manifest in evidence.run.of_kind(Documents) if dropped else ():
        artifact = evidence.store.open(manifest.id, Documents)
        for document in dropped_documents(artifact, [record.id for record, _ in dropped]):
            outcomes[document["id"]] = f"{manifest.stage} dropped it, {why_dropped(document, artifact)}"
    return [
        Statement(
            redacted_url(record.url),
            record.date,
            record.file,
            record.offset,
            outcomes.get(record.id, "kept"),
            redacted_excerpt(sentence, SENTENCE_CHARACTERS),
        )
        for record, sentence in [*kept, *dropped]
    ]


def enough_mentions(report: dict[str, Any]) -> int | None:
    """The least mentions at which half of the facts that no conversation states are known to the base model, by a report card."""
    enough = None
    # The most frequent first.
    for row in report.get("facts", []):
        found = next((row["accuracy"][name] for name in BASE_COLUMNS if name in row["accuracy"]), None)
        if row["facts"] != "held out" or found is None:
            continue
        if found["share"] < HALF:
            break
        enough = int(row["mentions"].split()[0])
    return enough


def teaching(diagnosis: Diagnosis) -> Iterator[dict[str, Any]]:
    """Conversations that give the answer, as a source of SFT: the question as it was asked, and as it may be typed."""
    question, samples = diagnosis.question.strip(), diagnosis.asked.samples
    right = [sample for sample in samples if diagnosis.answer.lower() in sample.lower()]
    # In the base model's own words where it has any: nothing new has to be learned then.
    reply = right[0] if right else f"{diagnosis.answer[:1].upper()}{diagnosis.answer[1:].rstrip('.')}."
    for asked in dict.fromkeys((question, question.lower().rstrip("?"), f"I have a question. {question}")):
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": reply}]
        yield {"messages": messages, "kind": "taught"}


def taught_mixture(taught: str, num_taught: int, mixture: Mapping[str, float] = {}) -> str:
    """The setting that adds a file of conversations, which give `num_taught` answers, to the sources `mixture` of SFT."""
    # The sources that the recipe has already are named again: a setting replaces all of them.
    weight = round(min(MAX_TAUGHT_WEIGHT, TAUGHT_WEIGHT * num_taught), 3)
    return f"sft.conversations_mixture={json.dumps({**mixture, taught: weight})}"


def command(recipe: str, settings: Sequence[str], taught: str = "", mixture: Mapping[str, float] = {}) -> str:
    """The command that carries a remedy out. `taught`: a file of conversations that give the answer; `mixture`: the recipe's own ones."""
    given = [*settings, *([taught_mixture(taught, 1, mixture)] if taught else [])]
    return shlex.join(["crawl2chat", "run", recipe, *(word for setting in given for word in ("--set", setting))])
