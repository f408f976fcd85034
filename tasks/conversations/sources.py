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
from tasks.conversations.readers import read_files, split
from tasks.execution.context import StageContext
from tasks.records.conversations import Conversation, Preference, Prompt, Question, Record, normal_form
from tasks.sample_web import chat
from tasks.sample_web.world import World, build_world

VERSION = 3  # 3: records in normal form; equal pairs are dropped

A = TypeVar("A", bound=Artifact)
Compose = Callable[[World, int], Iterable[Record]]


class ChatDataConfig(Config):
    """Where records come from: files, identified by their content, or the world of a seed."""

    paths: list[str] = runtime([])
    sha256: list[str] = Field(default_factory=list)
    num_records: int = 0
    world_seed: int = 0
    validation_fraction: float = 0.0


def conversations(source: str, num_records: int, world_seed: int, validation_fraction: float) -> Step[Conversations]:
    """Conversations of a path, a glob or "sample"."""
    config = _config(source, num_records=num_records, world_seed=world_seed, validation_fraction=validation_fraction)
    return _step(Conversations, config, partial(_write_split, Conversation, chat.conversations))


def preferences(source: str, num_records: int, world_seed: int, validation_fraction: float) -> Step[Preferences]:
    """Preference pairs of a path, a glob or "sample"."""
    config = _config(source, num_records=num_records, world_seed=world_seed, validation_fraction=validation_fraction)
    return _step(Preferences, config, partial(_write_split, Preference, chat.preferences))


def prompts(source: str, num_records: int, world_seed: int) -> Step[Prompts]:
    """Prompts of a path, a glob or "sample"."""
    config = _config(source, num_records=num_records, world_seed=world_seed)
    return _step(Prompts, config, partial(_write_whole, Prompt, chat.prompts))


def questions(source: str, world_seed: int) -> Step[Questions]:
    """Questions of a path, a glob or "sample"."""
    config = _config(source, world_seed=world_seed)
    return _step(Questions, config, partial(_write_whole, Question, _all_questions))


def _all_questions(world: World, _: int) -> Iterable[Question]:
    return chat.questions(world)


def _config(source: str, *, validation_fraction: float = 0.0, **composed: int) -> ChatDataConfig:
    """How records would have been composed is not part of the identity of files."""
    if source == SAMPLE:
        return ChatDataConfig(validation_fraction=validation_fraction, **composed)
    files = find_files(source)
    hashes = [content_hash(file) for file in files]
    return ChatDataConfig(paths=list(map(str, files)), sha256=hashes, validation_fraction=validation_fraction)


def _step(kind: type[A], config: ChatDataConfig, run: Callable[..., Outcome]) -> Step[A]:
    return Step(kind.__name__.lower(), VERSION, kind, config, {}, run=run, is_source=True)


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
    for file, expected in zip(files, config.sha256, strict=True):
        if content_hash(file) != expected:
            raise UserError(f"{str(file)!r} changed after the run was started; run it again")
    return records
