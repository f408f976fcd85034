"""Extraction in a process that can be killed: hostile pages cost a reason, and the next page is read as if nothing had been."""

import os
import signal
import time
from collections.abc import Iterator

import pytest
from archives import PARAGRAPH, html

from tasks.extraction import Extraction
from tasks.page import Dropped


@pytest.fixture(scope="module")
def extraction() -> Iterator[Extraction]:
    extraction = Extraction("precise", 5.0)
    yield extraction
    extraction.stop()


@pytest.mark.parametrize(
    "bomb",
    [
        "<div>" * 200_000,
        "<table><tr><td>" * 50_000 + "text",
        "<html>" + "&#x41;" * 500_000,
        "<p>" + "<b><i><u>" * 30_000 + "text " * 1000,
        "",
        "\0<html>\ud800",
    ],
    ids=["divs", "tables", "entities", "inline", "nothing", "surrogate"],
)
def test_a_bomb_does_not_stop_the_next_page(extraction: Extraction, bomb: str) -> None:
    try:
        extraction.text(bomb)
    except Dropped as dropped:
        assert str(dropped).startswith("empty/")
    assert PARAGRAPH.format(1).strip() in extraction.text(html(1))


def test_a_page_that_takes_too_long_is_given_up(extraction: Extraction) -> None:
    """libxml2 needs minutes for it, in C code that no signal interrupts."""
    impatient = Extraction("precise", 0.5)
    attributes = " ".join(f"a{number}=1" for number in range(100_000))
    impatient.text(html(1))
    start = time.monotonic()
    with pytest.raises(Dropped, match=r"^empty/timeout$"):
        impatient.text(f"<p {attributes}>text")
    assert time.monotonic() - start < 5
    assert PARAGRAPH.format(2).strip() in impatient.text(html(2))
    impatient.stop()


def test_a_process_that_dies_is_followed_by_another(extraction: Extraction) -> None:
    extraction.text(html(1))
    assert extraction.process is not None and extraction.process.pid is not None
    os.kill(extraction.process.pid, signal.SIGKILL)
    extraction.process.join()
    with pytest.raises(Dropped, match=r"^empty/killed$"):
        extraction.text(html(1))
    assert PARAGRAPH.format(1).strip() in extraction.text(html(1))
