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


# The lowest contrast of text with what is behind it, over all that is visible: WCAG's AA asks for 4.5, for large text for 3.
CONTRAST = """() => {
  const channel = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const parse = (colour) => (colour.match(/[\\d.]+/g) ?? []).map(Number);
  const luminance = ([r, g, b]) => 0.2126 * channel(r / 255) + 0.7152 * channel(g / 255) + 0.0722 * channel(b / 255);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!text || !element.checkVisibility() || element.closest("[hidden], :disabled, dialog:not([open])")) continue;
    const style = getComputedStyle(element);
    const [one, other] = [luminance(parse(style.color)), luminance(behind(element))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5)) poor.push(`${ratio.toFixed(2)} ${element.tagName} ${element.textContent.slice(0, 40)}`);
  }
  return poor;
}"""


# Controls without a name that a screen reader could say.
NAMELESS = """() => [...document.querySelectorAll("button, input, select, textarea, a, [role=button]")]
  .filter((one) => one.checkVisibility() && !one.ariaLabel && !one.labels?.length && !one.textContent.trim())
  .map((one) => one.outerHTML.slice(0, 120))"""


OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


SCREENS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "narrow": {"viewport": {"width": 360, "height": 740}},
}


def check_legible(page: Any, what: str) -> None:
    """Contrast of text, names of controls, and no scrolling to the side."""
    assert page.evaluate(CONTRAST) == [], what
    assert page.evaluate(NAMELESS) == [], what
    assert page.evaluate(OVERFLOW) <= 0, what
