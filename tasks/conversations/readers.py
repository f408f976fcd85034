"""The one typed reader of chat data files: files of any known format to the records of tasks/records/conversations.py.

Reads files, writes nothing. The check before a run and the stages use the same functions, so what passes the check can be read.

A record that cannot be used is left out and named, with its file, line and reason; more of them than a stated fraction are an error.
A record goes to validation by the hash of its first user turn, so two records with the same question are on the same side. Pairs
whose completions are equal are dropped and counted: the reward model's loss cannot learn from them.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import ValidationError

from model.errors import UserError
from tasks.conversations.formats.detect import records_of
from tasks.conversations.formats.parts import FormatError
from tasks.conversations.identity import SAMPLE, find_files, stated_format
from tasks.conversations.json_lines import read_values, shown
from tasks.records.conversations import Conversation, Preference
from tasks.records.messages import Record
from tasks.records.mistakes import explain

MAX_NAMED = 1000  # bad lines that are kept with their reason; a file of nothing else must not fill the memory

R = TypeVar("R", bound=Record)


class BadLine(NamedTuple):
    """A record that is left out: its file, its line (in a JSON array its place) and the reason."""

    file: str
    line: int
    reason: str


class Read(NamedTuple, Generic[R]):
    """The records of a source, the first bad lines, and the number of them."""

    records: list[R]
    bad_lines: list[BadLine]
    num_bad: int


class Sides(NamedTuple):
    """Records to train on, records to validate on, and counts of what was dropped."""

    train: list[Record]
    validation: list[Record]
    dropped: Counter[str]


def check_source(
    kind: type[Record], source: str, validation_fraction: float = 0.0, max_bad_fraction: float = 0.0
) -> Counter[str]:
    """Read the files of a source as the stage will, and count. Raises UserError where it cannot be used; "sample" can."""
    if source == SAMPLE:
        return Counter()
    name, place = stated_format(source)
    found = read_files(kind, find_files(place), name, max_bad_fraction)
    bad = Counter(bad_lines=found.num_bad) if found.num_bad else Counter[str]()
    if not issubclass(kind, Conversation | Preference):
        return Counter(records=len(found.records)) + bad
    sides = split(found.records, validation_fraction, repr(source))
    return Counter(train_records=len(sides.train), validation_records=len(sides.validation)) + sides.dropped + bad


def read_records(kind: type[R], path: Path, stated: str = "") -> Iterator[R]:
    """The records of a file, in order. Raises UserError for the first that is bad, with file, line, field, value and remedy."""
    for found in _read(kind, path, stated):
        if isinstance(found, BadLine):
            raise UserError(f"{found.file}:{found.line}: {found.reason}")
        yield found


def read_files(kind: type[R], files: Sequence[Path], stated: str = "", max_bad_fraction: float = 0.0) -> Read[R]:
    """The records of several files, in order. `stated`: their format, if the keys of each record are not to decide.

    Raises UserError where more than `max_bad_fraction` of the records are bad, and where there is no record at all.
    """
    found: Read[R] = Read([], [], 0)
    num_bad = 0
    for record in (record for file in files for record in _read(kind, file, stated)):
        if not isinstance(record, BadLine):
            found.records.append(record)
            continue
        num_bad += 1
        if len(found.bad_lines) < MAX_NAMED:
            found.bad_lines.append(record)
    if num_bad > max_bad_fraction * (num_bad + len(found.records)):
        file, line, reason = found.bad_lines[0]
        raise UserError(f"{file}:{line}: {reason}{_among(num_bad, len(found.records), max_bad_fraction)}")
    if not found.records:
        raise UserError(f"{', '.join(map(repr, map(str, files)))[:200]} holds no record; write one JSON object a line")
    return found._replace(num_bad=num_bad)


def _among(num_bad: int, num_good: int, max_bad_fraction: float) -> str:
    if num_bad == 1 and not max_bad_fraction:
        return ""
    return f" ({num_bad:,} of {num_bad + num_good:,} records are bad, more than max_bad_fraction={max_bad_fraction:g})"


def _read(kind: type[R], path: Path, stated: str) -> Iterator[R | BadLine]:
    name = shown(path)
    bad: list[BadLine] = []

    def on_error(line: int, error: UserError) -> None:
        bad.append(BadLine(name, line, str(error).removeprefix(f"{name}:{line}: ")))

    for number, value in read_values(path, on_error):
        yield from bad
        bad.clear()
        yield from _records_of_line(kind, BadLine(name, number, ""), value, stated)
    yield from bad


def _records_of_line(kind: type[R], place: BadLine, value: Any, stated: str) -> Iterator[R | BadLine]:
    try:
        for record in records_of(kind, value, stated):
            try:
                yield kind.model_validate(record)
            except ValidationError as error:
                yield place._replace(reason=explain(error))
    except FormatError as error:
        yield place._replace(reason=str(error))


def split(records: Iterable[Any], validation_fraction: float, source: str) -> Sides:
    """Records by side, without pairs of equal completions. Raises UserError where nothing is left to train on."""
    sides = Sides([], [], Counter())
    for record in records:
        if isinstance(record, Preference) and record.is_tie:
            sides.dropped["dropped_equal_pairs"] += 1
        elif is_validation(record, validation_fraction):
            sides.validation.append(record)
        else:
            sides.train.append(record)
    if not sides.train:
        dropped = f", {sides.dropped.total()} of equal completions" if sides.dropped else ""
        raise UserError(
            f"{source} leaves no record to train on ({len(sides.validation)} for validation{dropped}); give more records, or a "
            f"smaller validation_fraction than {validation_fraction:g}"
        )
    return sides


def mixed(parts: Sequence[Sequence[R]], weights: Sequence[float], may_repeat: bool) -> list[R]:
    """All records of the first part, and of each other one as many for each of them as its weight says, in a fixed random order.

    A part that has too few is repeated, if it may be.
    """
    if len(parts) == 1:
        return list(parts[0])
    chosen = list(parts[0])
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        wanted = round(weight * len(parts[0]))
        order = random.Random(0).sample(range(len(part)), len(part))
        chosen += [part[order[n % len(part)]] for n in range(wanted if may_repeat else min(wanted, len(part))) if part]
    # Shuffled: files are sorted by source otherwise, and a reader of their first lines would see one source alone.
    random.Random(0).shuffle(chosen)
    return chosen


def is_validation(record: Conversation | Preference, fraction: float) -> bool:
    """Whether a record is among the `fraction` that is kept for validation: its first user turn alone decides."""
    asked = next((message.content for message in record.messages if message.role == "user"), "")
    return int.from_bytes(hashlib.sha256(asked.encode()).digest()[:4], "big") / 2**32 < fraction
