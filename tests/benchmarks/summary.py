"""The summary table of the root README: eight figures taken from the tables of tests/benchmarks/README.md.

Reads that file, writes nothing. No figure is typed here: each row names the cells that it quotes, so it cannot drift from its table.
"""

import re
from typing import NamedTuple

Table = list[list[str]]  # rows of cells, the headings first


class Quote(NamedTuple):
    """A row of the summary: the section and a sentence with {0}, {1}... for (table, row, column) of that section."""

    mark: str
    subject: str
    sentence: str
    cells: tuple[tuple[int, str, str], ...]


QUOTES = (
    Quote(
        "fineweb_speed",
        "FineWeb recipe from WARC bytes to kept documents",
        "{0} times datatrove's pages/s with trafilatura, {1} times with resiliparse, one core",
        ((0, "trafilatura", "Times datatrove, wall"), (0, "resiliparse", "Times datatrove, wall")),
    ),
    Quote(
        "extraction_quality",
        "Main text of web pages, F1 on WCXB",
        "{0} (combined); trafilatura alone {1}, resiliparse alone {2}",
        (
            (0, "our combined", "F1"),
            (0, "trafilatura alone, precision", "F1"),
            (0, "resiliparse alone", "F1"),
        ),
    ),
    Quote(
        "filter_agreement",
        "Agreement with datatrove's quality filters",
        "{0} of {1} documents, each difference explained",
        ((0, "all", "same decision"), (0, "all", "documents")),
    ),
    Quote(
        "dedup_speed",
        "Near-duplicate detection, one core",
        "{0} documents/s; datatrove {1}",
        ((0, "crawl2chat", "documents/s"), (0, "datatrove", "documents/s")),
    ),
    Quote(
        "pii_quality",
        "Personal data: phone numbers in Presidio's sentences",
        "precision {0}, recall {1}; plain patterns {2} and {3}",
        (
            (0, "phone", "crawl2chat: precision"),
            (0, "phone", "crawl2chat: recall"),
            (0, "phone", "bare patterns: precision"),
            (0, "phone", "bare patterns: recall"),
        ),
    ),
    Quote(
        "training_speed",
        "Training 1.2 M parameters on two CPU threads",
        "{0} tokens/s: {1} times nanochat, {2} times plain PyTorch",
        (
            (0, "**model.train, 1 rank**", "tokens/s"),
            (0, "**model.train, 1 rank**", "times nanochat"),
            (0, "**model.train, 1 rank**", "times plain PyTorch"),
        ),
    ),
    Quote(
        "learning",
        "Bits per byte after equal tokens",
        "{0} fewer than GPT-2's architecture with AdamW, {1} with Muon",
        ((0, "ours, AdamW", "fewer bits"), (0, "ours, Muon", "fewer bits")),
    ),
    Quote(
        "generation_speed",
        "Generation on a CPU, sampled, several completions per prompt",
        "{0} times transformers (1.3 M parameters), {1} times (10 M)",
        (
            (0, "tiny, 1.3 M parameters: sampled, with stops, 4 completions a prompt", "Ratio"),
            (0, "10 M, 10.2 M parameters: sampled, with stops, 4 completions a prompt", "Ratio"),
        ),
    ),
)


def summary_rows(benchmarks: str) -> list[str]:
    """The rows of the summary as lines of Markdown. Raises KeyError naming a cell that the tables do not have."""
    return [_row(quote, benchmarks) for quote in QUOTES]


def _row(quote: Quote, benchmarks: str) -> str:
    before, _, rest = benchmarks.partition(f"<!-- {quote.mark} -->")
    tables = tables_of(rest.partition(f"<!-- /{quote.mark} -->")[0])
    heading = re.findall(r"^## (.*)$", before, re.MULTILINE)[-1]
    figures = [cell(tables[place], row, column) for place, row, column in quote.cells]
    return f"| [{quote.subject}](tests/benchmarks/README.md#{anchor_of(heading)}) | {quote.sentence.format(*figures)} |"


def anchor_of(heading: str) -> str:
    """The anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def tables_of(text: str) -> list[Table]:
    """The Markdown tables of a text, in order, without their rulers."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    rows = [[[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()] for block in blocks]
    return [[row for row in table if not set("".join(row)) <= set(":- ")] for table in rows]


def cell(table: Table, row: str, column: str) -> str:
    """The cell of the first row that begins with `row`, in the column headed `column`."""
    headings, *body = table
    for cells in body:
        if cells[0] == row:
            return cells[headings.index(column)]
    raise KeyError(f"no row {row!r} in the table {headings}")
