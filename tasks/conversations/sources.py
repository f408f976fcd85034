"""Chat data as artifacts: conversations, preference pairs, prompts and questions, which the stages after pretraining read.

Reads JSON Lines files (paths or globs) of the records in tasks/records/conversations.py, or composes the records from the sample
web's world ("sample"). Writes `train.jsonl` and `validation.jsonl` (conversations, preferences), `prompts.jsonl` or
`questions.jsonl`, in normal form: later stages never see a user's file.

A record goes to validation by the hash of its first user turn, so two records with the same question are on the same side. Pairs
whose completions are equal are dropped and counted: the reward model's loss cannot learn from them.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import Field

from model.config import Config, runtime
from model.errors import UserError
from model.files import write_lines
from tasks.artifacts.manifest import Artifact, Conversations, Preferences, Prompts, Questions
from tasks.artifacts.step import Outcome, Step
from tasks.conversations.identity import SAMPLE, content_hash, find_files
from tasks.conversations.readers import check_source, read_files, split
from tasks.execution.context import StageContext
from tasks.records.conversations import Conversation, Preference, Prompt, Question, normal_form
from tasks.records.messages import Record
from tasks.sample_web import chat
from tasks.sample_web.world import World, build_world

VERSION = 4  # 4: tool calls and their results

A = TypeVar("A", bound=Artifact)
Compose = Callable[[World, int], Iterable[Record]]


class ConversationsConfig(Config):
    """Where conversations come from. Their artifact identifies them, so no field is part of the fingerprint of SFT."""

    conversations: str = runtime(
        SAMPLE, description="JSON Lines of conversations: a path or glob, or 'sample' to compose them."
    )
    num_conversations: int = runtime(6000, ge=1, description="How many are composed where the source is 'sample'.")
    validation_fraction: float = runtime(0.03, ge=0.0, le=0.5, description="Conversations kept for validation.")


class PreferencesConfig(Config):
    """Where preference pairs come from."""

    preferences: str = runtime(
        SAMPLE, description="JSON Lines of preference pairs: a path or glob, or 'sample' to compose them."
    )
    num_pairs: int = runtime(3000, ge=1, description="How many are composed where the source is 'sample'.")
    validation_fraction: float = runtime(0.1, ge=0.0, le=0.5, description="Pairs kept for validation.")


class PromptsConfig(Config):
    """Where prompts come from."""

    prompts: str = runtime(SAMPLE, description="JSON Lines of prompts: a path or glob, or 'sample' to compose them.")
    num_prompts: int = runtime(1000, ge=1, description="How many are composed where the source is 'sample'.")


class QuestionsConfig(Config):
    """Where questions come from."""

    questions: str = runtime(
        SAMPLE, description="JSON Lines of questions: a path or glob, or 'sample' to compose them."
    )


class ChatDataConfig(Config):
    """The records of one source: files, identified by their content, or composed from the world of a seed."""

    source: str = runtime("", description="As typed: a path, a glob, or 'sample'.")
    paths: list[str] = runtime([])
    sha256: list[str] = Field(default_factory=list)
    num_records: int = 0
    world_seed: int = 0
    validation_fraction: float = 0.0


def conversations(config: ConversationsConfig, world_seed: int) -> Step[Conversations]:
    """The step that reads or composes conversations."""
    asked = ChatDataConfig(
        source=config.conversations,
        num_records=config.num_conversations,
        world_seed=world_seed,
        validation_fraction=config.validation_fraction,
    )
    return _step(Conversations, Conversation, asked, partial(_write_split, Conversation, chat.conversations))


def preferences(config: PreferencesConfig, world_seed: int) -> Step[Preferences]:
    """The step that reads or composes preference pairs."""
    asked = ChatDataConfig(
        source=config.preferences,
        num_records=config.num_pairs,
        world_seed=world_seed,
        validation_fraction=config.validation_fraction,
    )
    return _step(Preferences, Preference, asked, partial(_write_split, Preference, chat.preferences))


def prompts(config: PromptsConfig, world_seed: int) -> Step[Prompts]:
    """The step that reads or composes prompts."""
    asked = ChatDataConfig(source=config.prompts, num_records=config.num_prompts, world_seed=world_seed)
    return _step(Prompts, Prompt, asked, partial(_write_whole, Prompt, chat.prompts))


def questions(config: QuestionsConfig, world_seed: int) -> Step[Questions]:
    """The step that reads or composes questions."""
    asked = ChatDataConfig(source=config.questions, world_seed=world_seed)
    return _step(Questions, Question, asked, partial(_write_whole, Question, _all_questions))


def _all_questions(world: World, _: int) -> Iterable[Question]:
    return chat.questions(world)


def _step(kind: type[A], record: type[Record], asked: ChatDataConfig, run: Callable[..., Outcome]) -> Step[A]:
    def check(config: ChatDataConfig) -> None:
        """Raises UserError where a record of the files is wrong."""
        check_source(record, config.source, config.validation_fraction)

    stage = kind.__name__.lower()
    return Step(stage, VERSION, kind, asked, {}, run=run, resolve=_find, check=check, is_source=True)


def _find(asked: ChatDataConfig) -> ChatDataConfig:
    """The files of a source with their hashes. How records would have been composed is not part of the identity of files."""
    if asked.source == SAMPLE:
        return asked
    files = find_files(asked.source)
    return ChatDataConfig(
        source=asked.source,
        paths=list(map(str, files)),
        sha256=[content_hash(file) for file in files],
        validation_fraction=asked.validation_fraction,
    )


def _write_whole(kind: type[Record], compose: Compose, ctx: StageContext, config: ChatDataConfig) -> Outcome:
    records = _records(kind, compose, config)
    return Outcome({"records": write_lines(ctx.folder / f"{ctx.step.stage}.jsonl", map(normal_form, records))})


def _write_split(kind: type[Record], compose: Compose, ctx: StageContext, config: ChatDataConfig) -> Outcome:
    place = ", ".join(map(repr, config.paths)) or "the sample world"
    sides = split(_records(kind, compose, config), config.validation_fraction, place)
    counts = {
        "train_records": write_lines(ctx.folder / "train.jsonl", map(normal_form, sides.train)),
        "validation_records": write_lines(ctx.folder / "validation.jsonl", map(normal_form, sides.validation)),
    }
    return Outcome(counts | sides.dropped)


def _records(kind: type[Record], compose: Compose, config: ChatDataConfig) -> Iterable[Record]:
    if not config.paths:
        return compose(build_world(config.world_seed), config.num_records)
    files = list(map(Path, config.paths))
    records = list(read_files(kind, files))
    # Hashed after reading: a change before or during the reading is seen, one after it no longer matters.
    for file, expected in zip(files, config.sha256, strict=True):
        if content_hash(file) != expected:
            raise UserError(f"{str(file)!r} changed after the run was started; run it again")
    return records
