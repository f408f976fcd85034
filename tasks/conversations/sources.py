"""Chat data as artifacts: conversations, preference pairs, prompts, questions and probes, which the stages after pretraining read.

Reads files (paths, globs or URLs) in the formats of tasks/conversations/formats/, or composes the records from the sample web's world
("sample"); several sources can be mixed by weight. Writes `train.jsonl` and `validation.jsonl` (conversations, preferences), `prompts.jsonl`, `questions.jsonl`
or `probes.jsonl`, in normal form: later stages never see a user's file. Records that cannot be used are named in `bad_lines.jsonl`.

A record goes to validation by the hash of its first user turn, so two records with the same question are on the same side. Pairs
whose completions are equal are dropped and counted: the reward model's loss cannot learn from them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import Field

from model.config import Config, runtime
from model.errors import UserError
from model.files import write_lines
from tasks.artifacts.manifest import Artifact, Conversations, Preferences, Probes, Prompts, Questions
from tasks.artifacts.step import Outcome, Step
from tasks.conversations.formats.rankings import count_labels
from tasks.conversations.identity import SAMPLE, content_hash, find_files, stated_format
from tasks.conversations.json_lines import read_values
from tasks.conversations.persona import BUILTIN, IDENTITY, identity_conversations, read_persona
from tasks.conversations.readers import BadLine, Read, Sides, check_source, mixed, read_files, split
from tasks.execution.context import StageContext
from tasks.records.conversations import Conversation, Preference, Prompt, Question, normal_form
from tasks.records.messages import Record
from tasks.sample_web import chat
from tasks.sample_web.word_problems import compose_problems
from tasks.sample_web.world import World, build_world

VERSION = 13  # 13: more cities among the strangers, follow-ups of all kinds, "how are you?"
# Of kinds that changed apart from the others, or did not.
VERSIONS: dict[type[Artifact], int] = {Preferences: 14, Prompts: 18, Questions: 11, Probes: 11}
WHERE = (
    "a path, glob or URL of JSON Lines or a JSON array, which may be gzip, in any format of tasks/conversations/formats, such as "
    "chats.jsonl or gsm8k_text:train.jsonl where the format is stated; or 'sample' to compose them."
)

DOCUMENTS = "documents"  # as a source of probes
WORD_PROBLEMS = "word_problems"  # the format of a source that is composed from the sample web's word problems

A = TypeVar("A", bound=Artifact)
Compose = Callable[[World, int], Iterable[Record]]


class _ReadConfig(Config):
    """How files of chat data are read."""

    max_bad_fraction: float = runtime(
        0.01,
        ge=0.0,
        le=1.0,
        description="Records that cannot be used are left out and named; more of them than this fraction stop the run.",
    )


class ConversationsConfig(_ReadConfig):
    """Where conversations come from. Their artifact identifies them, so no field is part of the fingerprint of SFT."""

    conversations: str = runtime(SAMPLE, description=f"Conversations: {WHERE}")
    conversations_mixture: dict[str, float] = runtime(
        {},
        description="More sources of conversations, and how many conversations of each are taken for one of `conversations`. A source "
        "that has too few is repeated.",
    )
    num_conversations: int = runtime(11_500, ge=1, description="How many are composed where the source is 'sample'.")
    validation_fraction: float = runtime(0.03, ge=0.0, le=0.5, description="Conversations kept for validation.")
    identity: str = runtime(
        "",
        description="A YAML file of who the assistant is, of the form of tasks/conversations/data/identity.yaml; `name` and `maker` are "
        "enough. Empty: that file with the source 'sample', nothing with others.",
    )
    identity_fraction: float = runtime(
        0.06,
        ge=0.0,
        le=1.0,
        description="How many conversations about it are taken for one of `conversations`; 0: none.",
    )
    num_word_problems: int = runtime(
        0, ge=0, description="Word problems of the sample web with their solutions among the conversations; 0: none."
    )


class PreferencesConfig(_ReadConfig):
    """Where preference pairs come from."""

    preferences: str = runtime(SAMPLE, description=f"Preference pairs: {WHERE}")
    preferences_mixture: dict[str, float] = runtime(
        {}, description="More sources of pairs, and how many pairs of each are taken for one of `preferences`."
    )
    num_pairs: int = runtime(12_000, ge=1, description="How many are composed where the source is 'sample'.")
    validation_fraction: float = runtime(0.1, ge=0.0, le=0.5, description="Pairs kept for validation.")


class PromptsConfig(_ReadConfig):
    """Where prompts come from."""

    prompts: str = runtime(SAMPLE, description=f"Prompts: {WHERE}")
    num_prompts: int = runtime(4000, ge=1, description="How many are composed where the source is 'sample'.")
    num_word_problems: int = runtime(0, ge=0, description="Word problems of the sample web among the prompts; 0: none.")


class QuestionsConfig(_ReadConfig):
    """Where questions come from."""

    questions: str = runtime(
        SAMPLE, description="JSON Lines of questions: a path, glob or URL, or 'sample' to compose them."
    )


class ProbesConfig(_ReadConfig):
    """Where the questions come from that a base model is asked before it is fine-tuned."""

    questions: str = runtime(
        SAMPLE,
        description="JSON Lines of questions: a path, glob or URL; 'sample' to compose them; 'documents' for sentences of the run's own "
        "documents whose end is left out.",
    )
    num_strangers: int = runtime(
        300, ge=0, description="How many questions about unknown names are composed where the source is 'sample'."
    )


class SourceConfig(Config):
    """One source: files, identified by their content, or records composed from the world of a seed."""

    source: str = runtime("", description="As typed: a path, a glob, a URL, or 'sample'.")
    format: str = ""
    paths: list[str] = runtime([])
    sha256: list[str] = Field(default_factory=list)
    num_records: int = 0
    world_seed: int = 0
    weight: float = 1.0


class ChatDataConfig(Config):
    """The records of one artifact: one source, or several that are mixed."""

    sources: list[SourceConfig]
    validation_fraction: float = 0.0
    max_bad_fraction: float = 0.0


def conversations(config: ConversationsConfig, world_seed: int) -> Step[Conversations]:
    """The step that reads or composes conversations."""
    sources = _sources(config.conversations, config.conversations_mixture, config.num_conversations, world_seed)
    identity = config.identity or (str(BUILTIN) if config.conversations == SAMPLE else "")
    if identity and config.identity_fraction:
        sources.append(SourceConfig(source=identity, format=IDENTITY, weight=config.identity_fraction))
    share = config.num_word_problems / config.num_conversations
    sources += _word_problems(config.num_word_problems, world_seed, share)
    return _step(
        Conversations, Conversation, _asked(sources, config), partial(_write_split, Conversation, chat.conversations)
    )


def preferences(config: PreferencesConfig, world_seed: int) -> Step[Preferences]:
    """The step that reads or composes preference pairs."""
    sources = _sources(config.preferences, config.preferences_mixture, config.num_pairs, world_seed)
    return _step(Preferences, Preference, _asked(sources, config), partial(_write_split, Preference, chat.preferences))


def prompts(config: PromptsConfig, world_seed: int) -> Step[Prompts]:
    """The step that reads or composes prompts."""
    sources = _sources(config.prompts, {}, config.num_prompts, world_seed)
    sources += _word_problems(config.num_word_problems, world_seed)
    return _step(Prompts, Prompt, _asked(sources, config), partial(_write_whole, Prompt, chat.prompts))


def questions(config: QuestionsConfig, world_seed: int) -> Step[Questions]:
    """The step that reads or composes questions."""
    sources = _sources(config.questions, {}, 0, world_seed)
    return _step(Questions, Question, _asked(sources, config), partial(_write_whole, Question, _all_questions))


def probes(config: ProbesConfig, world_seed: int) -> Step[Probes] | None:
    """The step that reads or composes the questions to a base model; None where they are made of documents."""
    if config.questions == DOCUMENTS:
        return None
    sources = _sources(config.questions, {}, config.num_strangers, world_seed)
    return _step(Probes, Question, _asked(sources, config), partial(_write_whole, Question, chat.probes))


def _all_questions(world: World, _: int) -> Iterable[Question]:
    yield from chat.questions(world)
    yield from chat.reversal_questions(world)


def _sources(first: str, others: Mapping[str, float], num_records: int, world_seed: int) -> list[SourceConfig]:
    for source, weight in others.items():
        if not weight > 0:
            raise UserError(f"the source {source!r} has the weight {weight:g}; give one above 0, or remove it")
    weights = {first: 1.0, **{source: weight for source, weight in others.items() if source != first}}
    return [
        SourceConfig(source=source, num_records=num_records, world_seed=world_seed, weight=weight)
        for source, weight in weights.items()
    ]


def _word_problems(num_problems: int, world_seed: int, weight: float = 1.0) -> list[SourceConfig]:
    """The source of so many word problems; none for 0."""
    problems = SourceConfig(
        source=SAMPLE, format=WORD_PROBLEMS, num_records=num_problems, world_seed=world_seed, weight=weight
    )
    return [problems] if num_problems else []


def _asked(sources: list[SourceConfig], config: _ReadConfig) -> ChatDataConfig:
    return ChatDataConfig(
        sources=sources,
        validation_fraction=getattr(config, "validation_fraction", 0.0),
        max_bad_fraction=config.max_bad_fraction,
    )


def _step(kind: type[A], record: type[Record], asked: ChatDataConfig, run: Callable[..., Outcome]) -> Step[A]:
    def check(config: ChatDataConfig) -> None:
        """Raises UserError where a source cannot be used."""
        for source in config.sources:
            if source.format == IDENTITY:
                read_persona(_persona_file(source))
            else:
                check_source(record, source.source, config.validation_fraction, config.max_bad_fraction)

    stage = kind.__name__.lower()
    version = VERSIONS.get(kind, VERSION)
    return Step(stage, version, kind, asked, {}, run=run, resolve=_find, check=check, is_source=True)


def _find(asked: ChatDataConfig) -> ChatDataConfig:
    """The files of all sources with their hashes."""
    return asked.model_copy(update={"sources": [_find_source(source) for source in asked.sources]})


def _find_source(asked: SourceConfig) -> SourceConfig:
    """The files of a source with their hashes. How records would have been composed is not part of the identity of files."""
    if asked.source == SAMPLE:
        return asked
    if asked.format == IDENTITY:
        file = _persona_file(asked)
        return asked.model_copy(update={"paths": [str(file)], "sha256": [content_hash(file)]})
    name, place = stated_format(asked.source)
    files = find_files(place)
    return SourceConfig(
        source=asked.source,
        format=name,
        paths=list(map(str, files)),
        sha256=[content_hash(file) for file in files],
        weight=asked.weight,
    )


def _persona_file(asked: SourceConfig) -> Path:
    """The one file that says who the assistant is. Raises UserError where it is not one."""
    files = find_files(asked.source)
    if len(files) > 1:
        raise UserError(f"{asked.source!r} names {len(files)} files; name one that says who the assistant is")
    return files[0]


def _write_whole(kind: type[Record], compose: Compose, ctx: StageContext, config: ChatDataConfig) -> Outcome:
    found = _read_sources(kind, compose, config)
    records = (normal_form(record) for part in found for record in part.records)
    num_records = write_lines(ctx.folder / f"{ctx.step.stage}.jsonl", records)
    return Outcome({"records": num_records} | _name_bad_lines(ctx, found))


def _write_split(kind: type[Record], compose: Compose, ctx: StageContext, config: ChatDataConfig) -> Outcome:
    found = _read_sources(kind, compose, config)
    sides = [
        split(part.records, config.validation_fraction, ", ".join(map(repr, source.paths)) or "the sample world")
        for part, source in zip(found, config.sources, strict=True)
    ]
    weights = [source.weight for source in config.sources]
    train = mixed([side.train for side in sides], weights, may_repeat=True)
    validation = mixed([side.validation for side in sides], weights, may_repeat=False)
    counts = {
        "train_records": write_lines(ctx.folder / "train.jsonl", map(normal_form, train)),
        "validation_records": write_lines(ctx.folder / "validation.jsonl", map(normal_form, validation)),
    }
    labels = _count_labels(config) if kind is Preference else {}
    return Outcome(counts | _dropped(sides) | _name_bad_lines(ctx, found) | labels)


def _count_labels(config: ChatDataConfig) -> dict[str, int]:
    """How many rankings by how many people the files hold, so that the lineage of a reward model names them."""
    files = [Path(path) for source in config.sources for path in source.paths]
    # Lines that cannot be parsed are named elsewhere.
    return count_labels(value for file in files for _, value in read_values(file, lambda *_: None))


def _dropped(sides: Iterable[Sides]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for side in sides:
        counts += side.dropped
    return dict(counts)


def _name_bad_lines(ctx: StageContext, found: Iterable[Read[Record]]) -> dict[str, int]:
    """Write the records that were left out, if there are any, and count them."""
    num_bad = sum(part.num_bad for part in found)
    if not num_bad:
        return {}
    lines: list[BadLine] = [line for part in found for line in part.bad_lines]
    write_lines(ctx.folder / "bad_lines.jsonl", (line._asdict() for line in lines))
    # Without the reason, which quotes the record.
    ctx.log(
        f"{num_bad:,} records were left out, the first at {lines[0].file}:{lines[0].line}; bad_lines.jsonl has the reasons"
    )
    return {"bad_lines": num_bad}


def _read_sources(kind: type[Record], compose: Compose, config: ChatDataConfig) -> list[Read[Record]]:
    return [_read_source(kind, compose, source, config.max_bad_fraction) for source in config.sources]


def _read_source(kind: type[Record], compose: Compose, source: SourceConfig, max_bad_fraction: float) -> Read[Record]:
    if source.format == WORD_PROBLEMS:
        return Read(list(compose_problems(kind, source.num_records, source.world_seed)), [], 0)
    if not source.paths:
        return Read(list(compose(build_world(source.world_seed), source.num_records)), [], 0)
    files = list(map(Path, source.paths))
    if source.format == IDENTITY:
        persona = read_persona(files[0])
        # Records of the kind that is read: only conversations have such a source.
        found: Read[Record] = Read([talk for talk in identity_conversations(persona) if isinstance(talk, kind)], [], 0)
    else:
        found = read_files(kind, files, source.format, max_bad_fraction)
    # Hashed after reading: a change before or during the reading is seen, one after it no longer matters.
    for file, expected in zip(files, source.sha256, strict=True):
        if content_hash(file) != expected:
            raise UserError(f"{str(file)!r} changed after the run was started; run it again")
    return found
