"""The one typed reader of chat data files: JSON Lines to the records of tasks/records/conversations.py.

Reads files, writes nothing. The check before a run and the stages use the same functions, so what passes the check can be read.
A record goes to validation by the hash of its first user turn, so two records with the same question are on the same side. Pairs
whose completions are equal are dropped and counted: the reward model's loss cannot learn from them.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from model.errors import UserError
from tasks.conversations.identity import SAMPLE, find_files
from tasks.conversations.json_lines import read_values, shown
from tasks.records.conversations import Conversation, Preference
from tasks.records.messages import Record
from tasks.records.mistakes import explain

R = TypeVar("R", bound=Record)


class Sides(NamedTuple):
    """Records to train on, records to validate on, and counts of what was dropped."""

    train: list[Record]
    validation: list[Record]
    dropped: Counter[str]


def check_source(kind: type[Record], source: str, validation_fraction: float = 0.0) -> Counter[str]:
    """Read the files of a source as the stage will, and count. Raises UserError for the first mistake; "sample" has none."""
    if source == SAMPLE:
        return Counter()
    records = list(read_files(kind, find_files(source)))
    if not issubclass(kind, Conversation | Preference):
        return Counter(records=len(records))
    sides = split(records, validation_fraction, repr(source))
    return Counter(train_records=len(sides.train), validation_records=len(sides.validation)) + sides.dropped


def read_records(kind: type[R], path: Path) -> Iterator[R]:
    """The records of a file, in order. Raises UserError with file, line, field, value and remedy."""
    for number, value in read_values(path):
        try:
            yield kind.model_validate(value)
        except ValidationError as error:
            raise UserError(f"{shown(path)}:{number}: {explain(error)}") from None


def read_files(kind: type[R], files: Sequence[Path]) -> Iterator[R]:
    """The records of several files, in order. Raises UserError where a record is not of its kind, and where there is no record at all."""
    is_empty = True
    for file in files:
        for record in read_records(kind, file):
            is_empty = False
            yield record
    if is_empty:
        raise UserError(f"{', '.join(map(repr, map(str, files)))[:200]} holds no record; write one JSON object a line")


def split(records: Iterable[Any], validation_fraction: float, source: str) -> Sides:
    """Records by side, without pairs of equal completions. Raises UserError where nothing is left to train on."""
    sides = Sides([], [], Counter())
    for record in records:
        if isinstance(record, Preference) and record.is_tie:
            sides.dropped["dropped_equal_pairs"] += 1
        elif _share(record) < validation_fraction:
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


def _share(record: Conversation | Preference) -> float:
    """A number in [0, 1) that the first user turn alone decides."""
    asked = next((message.content for message in record.messages if message.role == "user"), "")
    return int.from_bytes(hashlib.sha256(asked.encode()).digest()[:4], "big") / 2**32
