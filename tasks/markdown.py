"""Markdown of reports: tables, percentages, sizes, and foreign text made harmless. Reads and writes nothing."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from model.errors import UserError
from tasks.artifacts.files import write_atomically

Figures = dict[str, Any]  # what a report shows, as plain JSON values
# Control characters, and those that change the direction of text: they could rewrite a terminal's or a page's other lines.
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    lines = [headings, [":---", *["---:"] * (len(headings) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def percent(fraction: float | None) -> str:
    """A fraction as a percentage with one decimal; a dash for None."""
    return "–" if fraction is None else f"{100 * fraction:.1f}%"


def size(num_bytes: float) -> str:
    """A number of bytes in kB below 0.1 MB, else in MB."""
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes >= 1e5 else f"{num_bytes / 1e3:,.1f} kB"


def one_line(text: str) -> str:
    """Any text as one line without Markdown, HTML or control characters."""
    plain = re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", CONTROL.sub("\ufffd", text))
    return re.sub(r"\s+", " ", plain)


def name(text: str) -> str:
    """A name from a page (host, type, reason) as one line. Underscores stay: within a word they mean nothing in Markdown."""
    return one_line(text).replace(r"\_", "_")


def replace_section(path: Path, name: str, text: str) -> None:
    """Replace what stands between <!-- name --> and <!-- /name --> in a Markdown file. Raises UserError if the marks are not there once."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, opening, rest = path.read_text(encoding="utf-8").partition(start)
    _, closing, after = rest.partition(end)
    if not opening or not closing or start in after:
        raise UserError(f"{path} does not have one section {start} ... {end}: put these two lines where it belongs")
    write_atomically(path, f"{before}{start}\n\n{text}\n\n{end}{after}")
