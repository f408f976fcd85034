"""Conversations about who the assistant is: its name, its maker, what it can do, in several forms.

Reads data/identity.yaml, or a user's file of that form laid over it; writes nothing. Without a system message the assistant is the one of the
file. In half of the conversations a system message names another one, and the reply follows it: otherwise the name would be learned as the
answer to the question and no system message could change it.
"""

import random
from collections.abc import Iterator, Mapping
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from model.config import Config
from model.errors import UserError
from tasks.conversations.json_lines import shown
from tasks.records.conversations import Conversation, Message

IDENTITY = "identity"  # as the format of a source, and as the kind of its conversations
BUILTIN = Path(str(files("tasks.conversations") / "data/identity.yaml"))
MAX_BYTES = 100_000

Short = Annotated[str, Field(min_length=1, max_length=500)]
Texts = Annotated[list[Short], Field(min_length=1, max_length=200)]


class Named(Config):
    """An assistant that a system message names."""

    name: Short
    maker: Short


class Persona(Named):
    """Who the assistant is, and how it is asked and answers, by topic."""

    abilities: Short
    asked: dict[str, Texts] = Field(min_length=1)
    answers: dict[str, Texts]
    system: Texts
    others: list[Named] = Field(min_length=1, max_length=200)

    @model_validator(mode="after")
    def _every_topic_is_answered(self) -> Self:
        if missing := sorted(self.asked.keys() - self.answers.keys()):
            raise ValueError(f"`answers` has nothing for {missing[0]!r}, which `asked` has: add it")
        return self


def read_persona(path: Path) -> Persona:
    """The persona of a file; a field that it does not have is that of this package. Raises UserError."""
    values = _read(BUILTIN) if path == BUILTIN else {**_read(BUILTIN), **_read(path)}
    try:
        return Persona.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(
            f"{shown(path)}: {place}: {first['msg']}; {BUILTIN.name} of this package shows the form"
        ) from None


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = path.read_bytes()
        if len(content) > MAX_BYTES:
            raise UserError(
                f"{shown(path)} has {len(content):,} bytes: a file of who the assistant is has at most {MAX_BYTES:,}"
            )
        text = content.decode()
        # An alias can stand for a list of aliases, and so on: a few lines then make gigabytes.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise UserError(f"{shown(path)} has an alias (*): write the value out")
        values = yaml.safe_load(text)
    except OSError as error:
        raise UserError(f"{shown(path)} cannot be read ({error.strerror}); give a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{shown(path)} is not YAML ({str(error)[:200]}); see {BUILTIN.name} of this package") from None
    if not isinstance(values, Mapping):
        raise UserError(f"{shown(path)} is not a YAML mapping; write `name: ...` and `maker: ...`")
    return {str(name): value for name, value in values.items()}


def identity_conversations(persona: Persona) -> Iterator[Conversation]:
    """Each question in each form, without a system message and with one that names another assistant."""
    rng = random.Random("identity")
    for topic, asked in persona.asked.items():
        for question, is_lower in product(asked, (False, True)):
            text = question.lower().rstrip("?.") if is_lower else question
            answer = rng.choice(persona.answers[topic])
            yield _talk(text, _filled(answer, persona, persona.abilities))
            other = rng.choice([*persona.others, persona])
            system = _filled(rng.choice(persona.system), other, persona.abilities)
            yield _talk(text, _filled(answer, other, persona.abilities), system)


def _filled(text: str, named: Named, abilities: str) -> str:
    """A pattern with its slots filled, as a sentence."""
    # Not str.format: a file's pattern could then read attributes of objects.
    for slot, value in (("{name}", named.name), ("{maker}", named.maker), ("{abilities}", abilities)):
        text = text.replace(slot, value)
    return text[:1].upper() + text[1:] if not text.startswith(named.name) else text


def _talk(question: str, reply: str, system: str = "") -> Conversation:
    turns = [Message(role="user", content=question), Message(role="assistant", content=reply)]
    if system:
        turns.insert(0, Message(role="system", content=system))
    return Conversation(messages=tuple(turns), kind=IDENTITY)
