"""Evaluation tasks from files: which file, in which format, under which licence; and their records as texts to score.

Reads a list of tasks (YAML) and their files: JSON Lines, compressed or not, at a path or any fsspec URL; never a hub. Writes nothing. A task
names its licence, and may name the sha256 that its file must have. Prompts are those of the lm-evaluation-harness (Gao et al.,
https://github.com/EleutherAI/lm-evaluation-harness, November 2026) without examples; CORE is DCLM's list in nanochat's files.

Four kinds of items. choice: the likeliest continuation counts; greedy: the continuation must be what the model would write; exact: the
model writes until a stop, and the answer must be equal; text: bits per byte.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import fsspec
import yaml
from pydantic import Field, ValidationError

from model.config import Config, explained, runtime
from model.errors import UserError

Kind = Literal["choice", "greedy", "exact", "text"]
Format = Literal["choices", "core", "mmlu", "arc", "hellaswag", "blimp", "completion", "gsm8k", "bbh", "text"]
Record = Mapping[str, Any]
PIECE_CHARACTERS = 2_000
# What files and readers raise for a file that is not what it should be
UNREADABLE = (OSError, EOFError, ValueError, RecursionError, ImportError)


class EvalTask(Config):
    """One task: a file of records, and how they are read."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", description="The name in tables.")
    path: str = runtime("", description="The file: a path, relative to the list, or a fsspec URL.")
    format: Format = Field(description="How a record is read: choices, core, mmlu, arc, hellaswag, blimp, ...")
    licence: str = Field(min_length=1, description="The licence of the data.")
    sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$", description="The hash that the file must have.")
    where: dict[str, str | int] = Field({}, description="Take only records whose fields have these values.")
    limit: int = Field(0, ge=0, description="At most this many records, evenly spread over the file; 0 takes all.")


class Item(NamedTuple):
    """What is scored: pairs of context and continuation, of which number `gold` is right."""

    pairs: Sequence[tuple[str, str]]
    gold: int = 0


class LoadedTask(NamedTuple):
    """A task with its items, and the hash of its file."""

    task: EvalTask
    kind: Kind
    items: Sequence[Item]
    sha256: str


def read_tasks(path: str) -> list[EvalTask]:
    """The tasks of a list, with paths that are not relative any more. Raises UserError."""
    file = Path(path).expanduser()
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path} is no list of tasks: write `- name: ...`, `path:`, `format:` and `licence:` for each")
    tasks = []
    for number, entry in enumerate(entries, start=1):
        try:
            task = EvalTask.model_validate(entry)
        except ValidationError as error:
            raise UserError(f"{path}: task {number}: {explained(error)}") from None
        if not task.path:
            raise UserError(f"{path}: task {number}: path is missing: name the file of {task.name}")
        located = task.path if "://" in task.path else str((file.parent / Path(task.path).expanduser()).resolve())
        tasks.append(task.model_copy(update={"path": located}))
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        raise UserError(f"{path}: two tasks have one name: {', '.join(sorted(names))}")
    return tasks


def load_task(task: EvalTask, path: str | None = None) -> LoadedTask:
    """The items of a task, read from its own path or from a copy. Raises UserError where the file is not what the task says."""
    kind, make = FORMATS[task.format]
    content = _content(task, path or task.path)
    digest = hashlib.sha256(content).hexdigest()
    if task.sha256 and digest != task.sha256:
        raise UserError(
            f"{task.path} has the sha256 {digest}, and task {task.name} names {task.sha256}: fetch the file that it means"
        )
    items = []
    for number, record in _records(task, path or task.path):
        if all(record.get(name) == value for name, value in task.where.items()):
            try:
                items.append(make(record))
            except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                raise UserError(
                    f"{task.path}, line {number}: no record of format {task.format}: {type(error).__name__}: {error}"
                ) from None
    if not items:
        raise UserError(f"task {task.name} has no record: its file is empty, or none is as `where` says")
    step = max(1, len(items) / task.limit) if task.limit else 1
    chosen = [items[int(place * step)] for place in range(min(len(items), task.limit or len(items)))]
    return LoadedTask(task, kind, chosen, digest)


def _content(task: EvalTask, path: str) -> bytes:
    try:
        with fsspec.open(path, "rb") as stream:
            return bytes(stream.read())
    except UNREADABLE as error:
        raise UserError(f"the file of task {task.name} cannot be read: {error}") from None


def _records(task: EvalTask, path: str) -> Iterator[tuple[int, Record]]:
    """The records of a file with their lines, from 1. Plain text is cut at blank lines, into pieces of some PIECE_CHARACTERS."""
    try:
        with fsspec.open(path, "rt", encoding="utf-8", compression="infer") as stream:
            if task.format == "text" and ".txt" in Path(path).suffixes:
                yield from ((1, {"text": text}) for text in pieces(stream.read()))
                return
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        raise ValueError(f"line {number} is no object")
                    yield number, record
    except UNREADABLE as error:
        raise UserError(f"{task.path} is no JSON Lines file: {error}") from None


def pieces(text: str) -> Iterator[str]:
    """A text in pieces that end at blank lines: an interval needs more than one document."""
    piece = ""
    for paragraph in re.split(r"\n\s*\n", text):
        piece += f"{paragraph}\n\n"
        if len(piece) >= PIECE_CHARACTERS:
            yield piece
            piece = ""
    if piece.strip():
        yield piece


def spaced(context: str, continuation: str) -> tuple[str, str]:
    """A pair as the harness writes it: a space begins the continuation, unless it begins with one or nothing is before it."""
    return context, continuation if not context or continuation[:1].isspace() else f" {continuation}"


def _choices(record: Record) -> Item:
    return _choice(record["context"], record["choices"], record["gold"])


def _choice(context: str, choices: Sequence[str], gold: object) -> Item:
    return Item([spaced(context, choice) for choice in choices], _gold(gold, len(choices)))


def _gold(gold: object, num_choices: int) -> int:
    number = int(gold)  # type: ignore[call-overload]
    if not 0 <= number < num_choices:
        raise ValueError(f"gold is {number} of {num_choices} choices")
    return int(number)


def _core(record: Record) -> Item:
    """Of CORE: several choices, several contexts with one continuation, or one continuation alone."""
    if "context_options" in record:
        pairs = [spaced(context, record["continuation"]) for context in record["context_options"]]
        return Item(pairs, _gold(record["gold"], len(pairs)))
    return _choice(record["query"], record["choices"], record["gold"])


def _mmlu(record: Record) -> Item:
    letters = "ABCDEFGHIJ"[: len(record["choices"])]
    lines = [f"{letter}. {choice}" for letter, choice in zip(letters, record["choices"], strict=True)]
    answer = record["answer"]
    gold = letters.index(answer) if isinstance(answer, str) else answer
    return _choice("\n".join([record["question"].strip(), *lines, "Answer:"]), list(letters), gold)


def _arc(record: Record) -> Item:
    question, choices = record["question"], record.get("choices")
    if isinstance(question, dict):  # as AI2 publishes it
        question, choices = question["stem"], question["choices"]
        labels, texts = [one["label"] for one in choices], [one["text"] for one in choices]
    else:  # as on the hub
        labels, texts = choices["label"], choices["text"]  # type: ignore[index]
    return _choice(f"Question: {question}\nAnswer:", texts, labels.index(record["answerKey"]))


def _hellaswag(record: Record) -> Item:
    def clean(text: str) -> str:
        return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")

    context = f"{record['activity_label']}: {record['ctx_a']} {record['ctx_b'].capitalize()}"
    return _choice(clean(context), [clean(ending) for ending in record["endings"]], record["label"])


def _blimp(record: Record) -> Item:
    return _choice("", [record["sentence_good"], record["sentence_bad"]], 0)


def _completion(record: Record) -> Item:
    return Item([spaced(record["context"], record.get("completion") or record["continuation"])])


def _gsm8k(record: Record) -> Item:
    answer = record["answer"].rpartition("####")[2].strip()
    return Item([spaced(f"Question: {record['question']}\nAnswer:", answer)])


def _bbh(record: Record) -> Item:
    return Item([spaced(f"Q: {record['input']}\nA:", record["target"])])


def _text(record: Record) -> Item:
    return Item([("", record["text"])])


FORMATS: dict[Format, tuple[Kind, Callable[[Record], Item]]] = {
    "choices": ("choice", _choices),
    "core": ("choice", _core),
    "mmlu": ("choice", _mmlu),
    "arc": ("choice", _arc),
    "hellaswag": ("choice", _hellaswag),
    "blimp": ("choice", _blimp),
    "completion": ("greedy", _completion),
    "gsm8k": ("exact", _gsm8k),
    "bbh": ("exact", _bbh),
    "text": ("text", _text),
}
