"""Extraction in a process that can be killed: hostile pages cost a reason, and the next page is read as if nothing had been."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tasks.ingest import extraction_process as extraction_module
from tasks.ingest.extraction_process import Extraction, Settings
from tasks.ingest.http_response import Body, Dropped
from tasks.web import language_id
from tests.support.archives import PARAGRAPH, html

HTML = "text/html"
TEXT = PARAGRAPH.format(1).strip()
GERMAN = (
    "Der alte Leuchtturm an der Mündung des Flusses wurde von Fischern erbaut, die keine Boote mehr verlieren wollten. "
)


def page(text: str) -> Body:
    return Body(text.encode("utf-8", "surrogatepass"), HTML)


@pytest.fixture(scope="module")
def extraction() -> Iterator[Extraction]:
    extraction = Extraction(Settings("combined", 2.0))
    yield extraction
    extraction.stop()


@pytest.mark.parametrize(
    "bomb",
    [
        "<div>" * 200_000,
        "<table><tr><td>" * 50_000 + "text",
        "<html>" + "&#x41;" * 500_000,
        "<p>" + "<b><i><u>" * 30_000 + "text " * 1000,
        "<p class='" + "a " * 1_000_000 + "'>text",
        "<svg>" * 50_000 + "<p>text",
        "<!--" * 300_000,
        "",
        "\0<html>\ud800",
    ],
    ids=["divs", "tables", "entities", "inline", "class", "svg", "comments", "nothing", "surrogate"],
)
def test_a_bomb_does_not_stop_the_next_page(extraction: Extraction, bomb: str) -> None:
    try:
        extraction.text(page(bomb))
    except Dropped as dropped:
        assert str(dropped).startswith("empty/")
    assert TEXT in extraction.text(page(html(1)))


def test_a_page_that_takes_too_long_is_given_up() -> None:
    """libxml2 needs minutes for it, in C code that no signal interrupts."""
    impatient = Extraction(Settings("trafilatura", 0.5))
    attributes = " ".join(f"a{number}=1" for number in range(100_000))
    impatient.text(page(html(1)))
    start = time.monotonic()
    with pytest.raises(Dropped, match=r"^empty/timeout$"):
        impatient.text(page(f"<p {attributes}>text"))
    assert time.monotonic() - start < 5
    assert TEXT in impatient.text(page(html(1)))
    impatient.stop()


def test_a_page_that_needs_too_much_memory_is_told_apart() -> None:
    small = Extraction(Settings("trafilatura", 20.0, memory_bytes=48 * 2**20))
    with pytest.raises(Dropped, match=r"^empty/memory$"):
        small.text(page("<html><body>" + "<p>some words of a text</p>" * 150_000))
    assert TEXT in small.text(page(html(1)))
    small.stop()


def test_a_process_that_dies_is_followed_by_another(extraction: Extraction) -> None:
    extraction.text(page(html(1)))
    assert extraction.process is not None
    os.kill(extraction.process.pid, signal.SIGKILL)
    extraction.process.wait()
    with pytest.raises(Dropped, match=r"^empty/killed$"):
        extraction.text(page(html(1)))
    assert TEXT in extraction.text(page(html(1)))


@pytest.mark.parametrize(("limit", "value"), [("PAGES_PER_PROCESS", 1), ("GROWN_BYTES", 0)])
def test_a_process_is_followed_by_another_when_it_is_used_up(
    extraction: Extraction, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    extraction.stop()
    monkeypatch.setattr(extraction_module, limit, value)
    processes = []
    for _ in range(2):
        assert TEXT in extraction.text(page(html(1)))
        processes.append(extraction.process)
    assert processes == [None, None]


def test_a_page_clearly_in_another_language_is_not_extracted() -> None:
    settings = Settings("resiliparse", 5.0, ("en",), 0.02, str(language_id.find_model()))
    looking = Extraction(settings)
    assert TEXT in looking.text(page(html(1)))
    with pytest.raises(Dropped, match=r"^language/de$"):
        looking.text(page(html(1, GERMAN * 5)))
    assert TEXT in looking.text(page(html(1, f"{TEXT} {GERMAN * 2}")))  # in doubt
    assert GERMAN.strip() in looking.text(page(f"<html><body><p>{GERMAN}</body></html>"))  # too short to say
    looking.stop()
