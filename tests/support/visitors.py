"""A browser and a person in it, for the tests of the page of `crawl2chat serve`.

Elements are found by role and label. A request to another host fails the test that made it, and so does an error in the console, among them
what the Content-Security-Policy refuses.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NEEDS_CHROMIUM = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium"),
]
PATIENCE_MS = 30_000
PROMPT = "what colour is the sky?"
HOSTILE = "<img src=x onerror=document.title='owned'> <script>document.title='owned'</script> \u202edlrow \u2066x"


@dataclass
class Visitor:
    """A page in a browser, with what must not happen on it."""

    page: Any
    url: str
    faults: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Collect faults from now on."""
        self.page.on("request", lambda sent: self._check_host(sent.url))
        self.page.on("pageerror", lambda error: self.faults.append(f"exception: {error}"))
        self.page.on("console", lambda line: line.type == "error" and self.faults.append(f"console: {line.text}"))

    def enter(self, room: str) -> Any:
        """Open a room by its link. Returns its part of the page."""
        self.page.get_by_role("navigation", name="Rooms").get_by_role("link", name=room, exact=True).click()
        part = self.page.get_by_role("region", name=room, exact=True)
        part.get_by_role("heading", level=1).wait_for()
        return part

    def _check_host(self, url: str) -> None:
        if urlsplit(url).hostname not in ("127.0.0.1", "localhost", "::1"):
            self.faults.append(f"request to {url}")


@contextmanager
def visiting(browser: Any, url: str, **options: Any) -> Iterator[Visitor]:
    """A person's first visit. `options`: of the browser's context, such as a dark colour scheme."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"} | options)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    visitor = Visitor(page, url)
    visitor.watch()
    page.goto(url)
    yield visitor
    context.close()
    assert visitor.faults == []


def say(chat: Any, text: str) -> None:
    chat.get_by_label("Message", exact=True).fill(text)
    chat.get_by_label("Message", exact=True).press("Enter")


def replies(chat: Any, model: str) -> Any:
    return chat.get_by_role("article", name=f"Reply of {model}")


def wait_for_reply(chat: Any, model: str, number: int = 0) -> str:
    """The text of a model's reply, when it is finished."""
    reply = replies(chat, model).nth(number)
    reply.get_by_role("button", name="Regenerate").wait_for()
    return str(reply.inner_text())


def tokens_of(part: Any, name: str) -> Any:
    return part.get_by_role("group", name=f"Tokens of {name}").get_by_role("button")


def names_of(part: Any, name: str) -> list[str]:
    return [one.get_attribute("aria-label") for one in tokens_of(part, name).all()]


def wait_until_done(playground: Any) -> None:
    playground.get_by_role("status").filter(has_text=re.compile("longest length|ended")).first.wait_for()
    for button in playground.get_by_role("button", name=re.compile("^Stop (Completion|Your)")).all():
        button.wait_for(state="hidden")
