"""Markdown of reports: tables, percentages, and a model's text made harmless. Reads and writes nothing."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

Figures = dict[str, Any]  # what a report shows, as plain JSON values


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = [headings, [":---", *["---:"] * (len(headings) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.1f}%"


def size(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes >= 1e5 else f"{num_bytes / 1e3:,.1f} kB"


def one_line(text: str) -> str:
    """A model's text, which may hold anything, as one line without Markdown or HTML."""
    plain = re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", text)
    return re.sub(r"\s+", " ", plain)
