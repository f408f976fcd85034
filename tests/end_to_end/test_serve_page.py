"""The page of `crawl2chat serve` as a whole in a browser: keyboard, narrow and dark screens, hostile text, errors, the key."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.page_server import served_page
from tests.support.visitors import (
    HOSTILE,
    NEEDS_CHROMIUM,
    OVERFLOW,
    PATIENCE_MS,
    PROMPT,
    SCREENS,
    Visitor,
    check_legible,
    say,
    tokens_of,
    wait_for_reply,
    wait_until_done,
)

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
pytestmark = NEEDS_CHROMIUM


def test_hostile_text_stays_text(visit: Visitor) -> None:
    """Markup and characters that turn the direction of text, in all that a model and a person write."""
    events = [{"choices": [{"delta": {"content": piece}}]} for piece in (HOSTILE, "x" * 100_000)]
    events.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    chat = visit.enter("Chat")
    visit.page.route("**/v1/chat/completions", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    say(chat, HOSTILE)
    text = wait_for_reply(chat, "policy")
    assert "<img src=x" in text
    assert "\\u202edlrow" in text
    assert len(text) > 100_000
    room = visit.enter("Tokens")
    room.get_by_label("Text", exact=True).fill(HOSTILE)
    playwright.expect(tokens_of(room, "policy (").last).to_contain_text("x")
    assert not set("\u202e\u2066") & set(room.get_by_role("article").first.inner_text())
    playground = visit.enter("Playground")
    playground.get_by_label("Prompt").fill(HOSTILE)
    playground.get_by_role("button", name="Score this text").click()
    tokens_of(playground, "Your text").first.wait_for()
    assert visit.page.locator("main img, main script").count() == 0
    assert "owned" not in visit.page.title()
    assert visit.page.evaluate(OVERFLOW) <= 0


def test_errors_are_shown_in_words(visit: Visitor) -> None:
    playground = visit.enter("Playground")
    playground.get_by_label("Prompt").fill("word " * 2000)
    playground.get_by_role("button", name="Complete").click()
    playwright.expect(playground.get_by_role("article", name="Completion")).to_contain_text("shorten it")
    visit.faults.clear()  # the browser reports the status 400 in its console


def test_room_that_found_no_server_is_filled_when_it_is_back(visit: Visitor) -> None:
    missing = ("**/vocabularies", "**/feedback/**", "**/health")
    for path in missing:
        visit.page.route(path, lambda route: route.abort())
    room = visit.enter("Tokens")
    playwright.expect(visit.page.get_by_role("alert")).to_contain_text("The server does not answer")
    visit.enter("Rank")
    playwright.expect(visit.page.get_by_role("alert")).to_contain_text("The server does not answer")
    for path in missing:
        visit.page.unroute(path)
    playwright.expect(visit.page.get_by_role("alert")).to_be_empty()
    playwright.expect(visit.page.get_by_text("0 of 0 prompts")).to_be_visible()
    visit.enter("Tokens")
    playwright.expect(room.get_by_role("article")).to_have_count(2)
    visit.faults.clear()  # the browser reports each failed request in its console


def test_keyboard_is_enough(visit: Visitor) -> None:
    """From the address bar to a branch, without a mouse."""
    page = visit.page
    page.keyboard.press("Tab")
    playwright.expect(page.get_by_role("link", name="Skip to the room")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    playwright.expect(page.get_by_role("link", name="Playground")).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    playground = page.get_by_role("region", name="Playground", exact=True)
    prompt = playground.get_by_label("Prompt")
    for _ in range(10):
        if prompt.evaluate("one => one === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Control+A")
    page.keyboard.type(PROMPT)
    page.keyboard.press("Control+Enter")
    wait_until_done(playground)
    first = tokens_of(playground, "Completion").first
    for _ in range(10):
        if first.evaluate("one => one === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    panel = playground.get_by_role("group", name="Alternatives")
    playwright.expect(panel.get_by_role("listitem").first.get_by_role("button")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    playwright.expect(playground.get_by_role("navigation", name="Branches")).to_be_visible()
    wait_until_done(playground)


def test_key_is_asked_for_and_kept_in_the_tab(browser: Any, tmp_path: Path) -> None:
    with served_page(tmp_path, api_key="a-key-of-sixteen-characters") as server, browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(server.url)
        dialog = page.get_by_role("dialog", name="API key")
        dialog.get_by_label("Key").fill("a-key-of-sixteen-characters")
        dialog.get_by_role("button", name="Use this key").click()
        page.get_by_role("checkbox", name="policy").wait_for()
        page.reload()
        page.get_by_role("checkbox", name="policy").wait_for()
        assert page.evaluate("Object.keys(localStorage)") == []


def fill_rooms(visit: Visitor) -> Iterator[str]:
    """Every room, used. Yields the name of the one that is shown."""
    chat = visit.enter("Chat")
    say(chat, PROMPT)
    wait_for_reply(chat, "policy")
    yield "Chat"
    playground = visit.enter("Playground")
    playground.get_by_label("Prompt").fill(PROMPT)
    playground.get_by_role("button", name="Score this text").click()
    tokens_of(playground, "Your text").nth(6).click()
    playground.get_by_role("group", name="Alternatives").get_by_role("listitem").nth(1).get_by_role("button").click()
    wait_until_done(playground)
    tokens_of(playground, "Your text").nth(9).click()
    yield "Playground"
    room = visit.enter("Tokens")
    room.get_by_role("article").first.wait_for()
    yield "Tokens"
    for name in ("Rank", "Arena"):
        visit.enter(name)
        visit.page.wait_for_load_state("networkidle")
        yield name


@pytest.mark.parametrize("visit", SCREENS.values(), ids=SCREENS, indirect=True)
def test_rooms_are_legible_and_fit(visit: Visitor, tmp_path: Path) -> None:
    """Contrast of text, names of controls, and no scrolling to the side. The screenshots are in pytest's temporary folder."""
    for name in fill_rooms(visit):
        visit.page.screenshot(path=tmp_path / f"{name}.png")
        check_legible(visit.page, name)
