"""Markdown of reports: text of models and pages cannot change the page around it."""

import pytest

from tasks.markdown import name, one_line, percent, size, table


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b\n# c <img src=x> [d](e)", r"a\|b \# c \<img src=x\> \[d\](e)"),
        ("a\x1b[31mb\x07\x9bc", "a\ufffd\\[31mb\ufffd\ufffdc"),
        ("a\u202eb\u2067c", "a\ufffdb\ufffdc"),
        ("a \t\r\n\u2028 b", "a b"),
        ("1. *x* _y_ `z` ~w~ \\", r"1. \*x\* \_y\_ \`z\` \~w\~ \\"),
    ],
)
def test_one_line_escapes_markdown_html_and_control_characters(text: str, expected: str) -> None:
    assert one_line(text) == expected


def test_name_keeps_underscores() -> None:
    assert name("quality/gopher_words|<b>") == r"quality/gopher_words\|\<b\>"


@pytest.mark.parametrize(("fraction", "expected"), [(0.1234, "12.3%"), (1.0, "100.0%"), (0.0, "0.0%"), (None, "–")])
def test_percent_has_one_decimal(fraction: float | None, expected: str) -> None:
    assert percent(fraction) == expected


@pytest.mark.parametrize(
    ("num_bytes", "expected"), [(0, "0.0 kB"), (99_999, "100.0 kB"), (1e5, "0.1 MB"), (3.2e9, "3,200.0 MB")]
)
def test_size_has_a_unit(num_bytes: float, expected: str) -> None:
    assert size(num_bytes) == expected


def test_table_aligns_numbers_to_the_right() -> None:
    assert table(["a", "b"], [["x", "1"]]) == "| a | b |\n| :--- | ---: |\n| x | 1 |\n"
