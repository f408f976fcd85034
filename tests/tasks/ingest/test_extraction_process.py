"""The extraction sandbox: a hostile page costs a reason, and the next page is extracted as if nothing had happened."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.ingest import extraction_process
from tasks.ingest.dropped import Dropped
from tasks.ingest.extraction_process import Sandbox, Settings
from tasks.ingest.http_response import Body
from tasks.web import language_id
from tests.support.archives import PARAGRAPH, html

HTML = "text/html"
TEXT = PARAGRAPH.format(1).strip()
GERMAN = (
    "Der alte Leuchtturm an der Mündung des Flusses wurde von Fischern erbaut, die keine Boote mehr verlieren wollten. "
)
MANY_ATTRIBUTES = "<p " + " ".join(f"a{number}=1" for number in range(100_000)) + ">text"


def page(text: str) -> Body:
    return Body(text.encode("utf-8", "surrogatepass"), HTML)


def child(box: Sandbox) -> int:
    assert box.server is not None
    children = Path(f"/proc/{box.server.pid}/task/{box.server.pid}/children")
    while not (numbers := children.read_text().split()):  # between two children
        time.sleep(0.01)
    return int(numbers[0])


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    box = Sandbox(Settings("combined", 0.5))
    yield box
    box.stop()


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
        MANY_ATTRIBUTES,
    ],
    ids=["divs", "tables", "entities", "inline", "class", "svg", "comments", "nothing", "surrogate", "attributes"],
)
def test_bomb_does_not_stop_the_next_page(box: Sandbox, bomb: str) -> None:
    try:
        box.extract(page(bomb))
    except Dropped as dropped:
        assert str(dropped).startswith("empty/")
    assert TEXT in box.extract(page(html(1)))


def test_page_over_its_cpu_time_is_dropped_and_the_server_stays(box: Sandbox) -> None:
    """libxml2 needs minutes for this page, in C code that no Python signal handler interrupts."""
    box.extract(page(html(1)))
    server = box.server
    with pytest.raises(Dropped, match=r"^empty/timeout$"):
        box.extract(page(MANY_ATTRIBUTES))
    assert TEXT in box.extract(page(html(1)))
    assert box.server is server


def test_stopped_process_uses_no_cpu_time() -> None:
    """Like a process on a machine so busy that it gets no time at all: three times the limit goes by, and the page is kept."""
    box = Sandbox(Settings("trafilatura", 0.5))
    box.extract(page(html(1)))
    os.kill(child(box), signal.SIGSTOP)
    box.connection.send(page(html(2)))
    assert not box.connection.poll(1.5)
    os.kill(child(box), signal.SIGCONT)
    assert PARAGRAPH.format(2).strip() in box.connection.recv_bytes().decode()
    box.stop()


def test_busy_machine_keeps_the_same_pages() -> None:
    pages = [page(html(number, TEXT * 500)) for number in range(3)]
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(8)]
    box = Sandbox(Settings("trafilatura", 0.5))
    try:
        assert all(TEXT[:40] in box.extract(one) for one in pages)
    finally:
        for process in busy:
            process.kill()
            process.wait()
        box.stop()


def test_process_that_hangs_without_computing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction_process, "WALL_SECONDS", 0.5)
    monkeypatch.setattr(extraction_process, "WALL_FACTOR", 0)
    box = Sandbox(Settings("resiliparse", 0.5))
    box._start()
    os.kill(child(box), signal.SIGSTOP)
    with pytest.raises(Dropped, match=r"^empty/timeout$"):
        box.extract(page(html(1)))
    monkeypatch.undo()
    assert TEXT in box.extract(page(html(1)))
    box.stop()


def test_page_over_its_memory_is_dropped() -> None:
    box = Sandbox(Settings("trafilatura", 10.0, memory_bytes=10 * 2**20))
    with pytest.raises(Dropped, match=r"^empty/memory$"):
        box.extract(page("<html><body>" + "<p>some words of a text</p>" * 150_000))
    assert TEXT in box.extract(page(html(1)))
    box.stop()


@pytest.mark.parametrize("who", ["child", "server"])
def test_killed_process_is_followed_by_another(box: Sandbox, who: str) -> None:
    box.extract(page(html(1)))
    assert box.server is not None
    os.kill(child(box) if who == "child" else box.server.pid, signal.SIGKILL)
    texts = []
    for _ in range(3):  # the page in work is lost; the child of a killed server may answer once more before it ends
        with contextlib.suppress(Dropped):
            texts.append(box.extract(page(html(1))))
    assert len(texts) == 2 or who == "server"
    assert TEXT in texts[-1]


def test_grown_child_is_replaced() -> None:
    box = Sandbox(Settings("trafilatura", 10.0))
    box._start()
    first = child(box)
    box.extract(page(html(1)))
    assert child(box) == first
    with contextlib.suppress(Dropped):
        box.extract(page("<html><body><dl>" + "<dt>a<dd>b" * 100_000))
    box.extract(page(html(1)))
    assert child(box) != first
    box.stop()


def test_sandbox_dies_with_its_parent() -> None:
    script = (
        "from tasks.ingest.extraction_process import *; box = Sandbox(Settings('resiliparse', 1.0)); box._start();"
        "print(box.server.pid, flush=True); input()"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    server = int(process.stdout.readline())
    process.kill()
    process.wait()
    for _ in range(200):
        if not Path(f"/proc/{server}").exists() or "zombie" in Path(f"/proc/{server}/status").read_text():
            return
        time.sleep(0.05)
    raise AssertionError("the sandbox outlived its parent by 10 s")


def test_page_clearly_in_another_language_is_not_extracted() -> None:
    settings = Settings("resiliparse", 5.0, ("en",), 0.02, str(language_id.find_model()))
    box = Sandbox(settings)
    assert TEXT in box.extract(page(html(1)))
    with pytest.raises(Dropped, match=r"^language/de$"):
        box.extract(page(html(1, GERMAN * 5)))
    assert TEXT in box.extract(page(html(1, f"{TEXT} {GERMAN * 2}")))  # in doubt
    assert GERMAN.strip() in box.extract(page(f"<html><body><p>{GERMAN}</body></html>"))  # too short to say
    box.stop()
