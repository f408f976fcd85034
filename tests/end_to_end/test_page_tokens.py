"""The room Tokens in a browser: ids, bytes, the mask of training, vocabularies compared."""

import math
import re
from urllib.parse import urlencode

import pytest

from model.tokenizer.chat import ChatTokenizer
from tests.support.page_server import EXAMPLE, PageServer
from tests.support.visitors import HOSTILE, NEEDS_CHROMIUM, Visitor

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
pytestmark = NEEDS_CHROMIUM


def test_text_is_shown_as_the_tokens_of_the_vocabulary(visit: Visitor, served: PageServer) -> None:
    text = "the mayor of Orn: naïve 東京"
    room = visit.enter("Tokens")
    room.get_by_label("Text", exact=True).fill(text)
    tokenizer = ChatTokenizer.load(served.folder / "tokenizer.json")
    ids = tokenizer.encode(text)
    card = room.get_by_role("article").first
    playwright.expect(card.get_by_role("button")).to_have_count(len(ids))
    shown = [one.get_attribute("aria-label") for one in card.get_by_role("button").all()]
    assert [int(re.findall(r"id (\d+), ", name)[0]) for name in shown] == ids
    shown_bytes = [bytes.fromhex(name.partition("bytes ")[2]) for name in shown]
    assert b"".join(shown_bytes).decode() == text
    assert f"{len(text.encode()) / len(ids):.2f}" in card.inner_text()
    card.get_by_text("As a table").click()
    playwright.expect(card.get_by_role("row")).to_have_count(len(ids) + 1)


def test_vocabularies_are_compared(visit: Visitor, served: PageServer) -> None:
    """Task of a newcomer."""
    other = ChatTokenizer.load(served.folder / "other/tokenizer.json")
    room = visit.enter("Tokens")
    compared = room.get_by_label("Compare with")
    text = "the mayor of Orn, naïve"
    room.get_by_label("Text", exact=True).fill(text)
    tokenizer = ChatTokenizer.load(served.folder / "tokenizer.json")
    for option, count in {"bytes": len(text.encode()), "other": len(other.encode(text))}.items():
        compared.select_option(label=compared.get_by_role("option").filter(has_text=option).first.inner_text())
        card = room.get_by_role("article", name=option)
        playwright.expect(card.get_by_role("group").get_by_role("button")).to_have_count(count)
        own = len(tokenizer.encode(text))
        few, many = min(own, count), max(own, count)
        expected = f"{math.floor(100 * (1 - few / many) + 0.5)}% fewer" if few < many else "same number"
        playwright.expect(room.get_by_role("status").first).to_contain_text(expected)


def test_mask_of_a_conversation_is_that_of_training(visit: Visitor, served: PageServer) -> None:
    room = visit.enter("Tokens")
    room.get_by_label("A conversation").check()
    room.get_by_label("What is learned").check()
    tokenizer = ChatTokenizer.load(served.folder / "tokenizer.json")
    messages = [dict(message) for message in EXAMPLE]  # the page begins with it
    for weight in (1, 0):
        messages[2]["weight"] = weight
        room.get_by_label("Learn turn 3").set_checked(bool(weight))
        rendered = tokenizer.render(messages)
        card = room.get_by_role("article").first
        playwright.expect(card).to_contain_text(re.compile(rf"learned\s*{sum(rendered.mask)}"))
        names = [one.get_attribute("aria-label") for one in card.get_by_role("group").get_by_role("button").all()]
        assert [int(name.endswith(", learned")) for name in names] == rendered.mask
        assert [int(re.findall(r"id (\d+), ", name)[0]) for name in names] == rendered.tokens


@pytest.mark.parametrize(
    "given", ["{", "[1]", '[{"role": "user"}]', '[{"role": "user", "content": "a", "tool_calls": 5}]']
)
def test_link_with_a_broken_conversation_is_refused(visit: Visitor, given: str) -> None:
    visit.page.goto(f"{visit.url}/#tokens?{urlencode({'messages': given})}")
    playwright.expect(visit.page.get_by_role("alert")).to_contain_text("no conversation that can be read")


def test_text_of_a_link_is_opened(visit: Visitor) -> None:
    visit.page.goto(f"{visit.url}/#tokens?{urlencode({'text': HOSTILE})}")
    room = visit.page.get_by_role("region", name="Tokens", exact=True)
    playwright.expect(room.get_by_label("Text", exact=True)).to_have_value(HOSTILE)
    playwright.expect(room.get_by_role("article")).to_have_count(2)


def test_long_texts_do_not_freeze_the_page(visit: Visitor) -> None:
    room = visit.enter("Tokens")
    room.get_by_label("Text", exact=True).fill("word " * 20_000)
    card = room.get_by_role("article").first
    playwright.expect(card).to_contain_text("100,000")
    card.get_by_role("button", name="Show 2,000 more").click()
    playwright.expect(card.get_by_role("group").get_by_role("button")).to_have_count(4000)
