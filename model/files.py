"""JSON Lines, a value a line: read whole, and written so that a file that is there is whole.

A line ends with a line feed alone: the other characters that end lines in Unicode may stand in a text.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def read_lines(path: str | Path) -> list[Any]:
    """The values of a file, in order. Empty lines hold none."""
    with Path(path).open(encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file if line.strip()]


def write_lines(path: Path, values: Iterable[Any]) -> int:
    """Put values in the place of what a file held, by rename; how many they are."""
    lines = [json.dumps(value, ensure_ascii=False) + "\n" for value in values]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text("".join(lines), encoding="utf-8")
    partial.replace(path)
    return len(lines)
