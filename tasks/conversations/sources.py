"""Conversations, preference pairs, prompts and questions: what the stages after pretraining learn from and are asked.

Reads JSON Lines files in the shapes of `tasks.records`, by path or glob, or composes them from the sample web's world
("sample"). Writes `train.jsonl` and `validation.jsonl` (conversations, preferences), `prompts.jsonl` or `questions.jsonl`.

A record is validation by the hash of its first user turn, so that two records with one question never lie on both sides.
"""

import glob
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import Field

from model.config import Config, runtime
from model.files import write_lines
from model.tokenizer.chat import whole_characters
from tasks.artifacts.manifest import Artifact, Conversations, Preferences, Prompts, Questions
from tasks.artifacts.step import Outcome, Step
from tasks.execution.context import StageContext
from tasks.records.conversations import Role
from tasks.sample_web.chat import conversations as compose_conversations
from tasks.sample_web.chat import preferences as compose_preferences
from tasks.sample_web.chat import prompts as compose_prompts
from tasks.sample_web.chat import questions as compose_questions
from tasks.sample_web.world import World, build_world

VERSION = 2
SAMPLE = "sample"
HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")  # what may be the half of one

A = TypeVar("A", bound=Artifact)
Record = Mapping[str, Any]
Compose = Callable[[World, int], Iterable[Record]]


class ChatDataConfig(Config):
    """Where records come from: files, known by what is in them, or the world of a seed."""

    paths: list[str] = runtime([])
    sha256: list[str] = Field(default_factory=list)
    num_records: int = 0
    world_seed: int = 0
    validation_fraction: float = 0.0


def conversations(source: str, num_records: int, world_seed: int, validation_fraction: float) -> Step[Conversations]:
    config = _config(source, num_records=num_records, world_seed=world_seed, validation_fraction=validation_fraction)
    return _step(Conversations, config, partial(_run_split, compose_conversations, ("messages",)))


def preferences(source: str, num_records: int, world_seed: int, validation_fraction: float) -> Step[Preferences]:
    config = _config(source, num_records=num_records, world_seed=world_seed, validation_fraction=validation_fraction)
    return _step(Preferences, config, partial(_run_split, compose_preferences, ("messages", "chosen", "rejected")))


def prompts(source: str, num_records: int, world_seed: int) -> Step[Prompts]:
    config = _config(source, num_records=num_records, world_seed=world_seed)
    return _step(Prompts, config, partial(_run_whole, compose_prompts, ("messages",)))


def questions(source: str, world_seed: int) -> Step[Questions]:
    config = _config(source, world_seed=world_seed)
    return _step(Questions, config, partial(_run_whole, _all_questions, ("question", "answer")))


def _all_questions(world: World, _: int) -> Iterable[Record]:
    return compose_questions(world)


def _config(source: str, *, validation_fraction: float = 0.0, **composed: int) -> ChatDataConfig:
    """Where files are given, how records would have been composed has no part in the identity."""
    if source == SAMPLE:
        return ChatDataConfig(validation_fraction=validation_fraction, **composed)
    paths = sorted(glob.glob(source, recursive=True))  # noqa: PTH207 - a pattern may be absolute
    if not paths:
        raise ValueError(f"no file matches {source!r}: give a path or a glob of .jsonl files, or 'sample'")
    sha256 = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths]
    return ChatDataConfig(paths=paths, sha256=sha256, validation_fraction=validation_fraction)


def _step(kind: type[A], config: ChatDataConfig, run: Callable[..., Outcome]) -> Step[A]:
    return Step(kind.__name__.lower(), VERSION, kind, config, {}, run=run, is_source=True)


def _run_whole(compose: Compose, fields: tuple[str, ...], ctx: StageContext, config: ChatDataConfig) -> Outcome:
    return Outcome({"records": write_lines(ctx.folder / f"{ctx.step.stage}.jsonl", _records(compose, fields, config))})


def _run_split(compose: Compose, fields: tuple[str, ...], ctx: StageContext, config: ChatDataConfig) -> Outcome:
    sides: dict[str, list[Record]] = {"train": [], "validation": []}
    for record in _records(compose, fields, config):
        asked = next((message["content"] for message in record["messages"] if message["role"] == "user"), "")
        share = int.from_bytes(hashlib.sha256(asked.encode()).digest()[:4], "big") / 2**32
        sides["validation" if share < config.validation_fraction else "train"].append(record)
    counts = {f"{side}_records": write_lines(ctx.folder / f"{side}.jsonl", chosen) for side, chosen in sides.items()}
    if not counts["train_records"]:
        raise ValueError(f"no record is left to train on, from {config.paths or 'the sample world'}: give more records")
    return Outcome(counts)


def _records(compose: Compose, fields: tuple[str, ...], config: ChatDataConfig) -> Iterable[Record]:
    if config.paths:
        return _read_files(config.paths, fields)
    return compose(build_world(config.world_seed), config.num_records)


def _read_files(paths: list[str], fields: tuple[str, ...]) -> Iterator[Record]:
    """Raises ValueError with file and line where a record is not of the shape."""
    for path in paths:
        with Path(path).open(encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _parse(line, f"{path}:{number}", fields)


def _parse(line: str, place: str, fields: tuple[str, ...]) -> Record:
    try:
        record: Record = json.loads(line)
        missing = [name for name in fields if name not in record]
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"{place} is no JSON object ({error}): write one record a line") from error
    if missing:
        raise ValueError(f"{place} has no field {', '.join(missing)}: see tasks/records/conversations.py for the shape")
    for name in fields:
        if name == "messages":
            _check_turns(record[name], place)
        elif not isinstance(record[name], str):
            raise ValueError(
                f"{place} has a {name} that is no text, but {str(record[name])[:80]}: write it as a string"
            )
    if HALF_CHARACTER.search(line):
        record = json.loads(whole_characters(json.dumps(record, ensure_ascii=False)))
    return record


def _check_turns(messages: Any, place: str) -> None:
    for message in messages if isinstance(messages, list) and messages else [messages]:
        match message:
            case {"role": role, "content": str()} if role in get_args(Role):
                continue
        raise ValueError(
            f"{place} has the message {str(message)[:80]}: give each a role, which is {', '.join(get_args(Role))}, and a content, "
            "which is text"
        )
