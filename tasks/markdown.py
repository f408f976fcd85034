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
    # Cells must not hold a bar or a line break: foreign text goes through one_line or name first.
    lines = [headings, [":---", *["---:"] * (len(headings) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def percent(fraction: float | None) -> str:
    """A fraction as a percentage with one decimal; a dash for None."""
    return "–" if fraction is None else f"{100 * fraction:.1f}%"


def size(num_bytes: float) -> str:
    """A number of bytes in kB below 0.1 MB, else in MB."""
    # Decimal units, as in the tables of datasets and models; 1 MB is 1e6 bytes.
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes >= 1e5 else f"{num_bytes / 1e3:,.1f} kB"


def one_line(text: str) -> str:
    """Any text as one line without Markdown, HTML or control characters."""
    # Escaped as CommonMark allows (section 2.4). What begins a block only (-, +, 1.) is left, since reports put the text inside a line. Line
    # breaks go last, U+2028 and U+2029 with them. Known limit: some renderers make a link of a bare URL.
    plain = re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", CONTROL.sub("\ufffd", text))
    return re.sub(r"\s+", " ", plain)


def name(text: str) -> str:
    """A name from a page (host, type, reason) as one line. Underscores stay: within a word they mean nothing in Markdown."""
    return one_line(text).replace(r"\_", "_")


def replace_section(path: Path, name: str, text: str) -> None:
    """Replace what stands between <!-- name --> and <!-- /name --> in a Markdown file. Raises UserError if the marks are not there once."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    # The marks are HTML comments, which no renderer shows. A second start mark is refused: the section to replace would be ambiguous.
    before, opening, rest = path.read_text(encoding="utf-8").partition(start)
    _, closing, after = rest.partition(end)
    if not opening or not closing or start in after:
        raise UserError(f"{path} does not have one section {start} ... {end}: put these two lines where it belongs")
    write_atomically(path, f"{before}{start}\n\n{text}\n\n{end}{after}")
