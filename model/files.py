"""Files: the one atomic write, and JSON Lines.

A line of JSON Lines ends with a line feed alone: the other characters that end lines in Unicode may stand in a text.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path next to `path`, for the block to write. Then it replaces `path`: a reader sees the old file or the whole new one.

    The data is on the disk before the rename, so this holds after a power cut too. If the block raises, or the disk is full, the
    temporary file is removed and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_lines(path: str | Path) -> list[Any]:
    """The values of a JSON Lines file, in order. Empty lines are skipped."""
    with Path(path).open(encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file if line.strip()]


def write_lines(path: Path, values: Iterable[Any]) -> int:
    """Write values as JSON Lines, atomically. Returns their number."""
    lines = [json.dumps(value, ensure_ascii=False) + "\n" for value in values]
    with replacing(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8", newline="\n")
    return len(lines)
