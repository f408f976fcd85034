"""Why a reply was said, in a browser: a click opens the spans that stand in the training data, with links that nobody follows but a person."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.artifacts.manifest import Report
from tasks.artifacts.store import Store
from tasks.provenance.lineage import open_training_data
from tasks.provenance.routes import why_said_router
from tasks.provenance.served import Explainer
from tests.support.page_server import PageServer, served_page
from tests.support.tiny_models import finish
from tests.support.training_runs import PAGES, make_run
from tests.support.visitors import HOSTILE, NEEDS_CHROMIUM, SCREENS, Visitor, check_legible, replies, say, visiting
from tests.tasks.evaluate.test_card_page import FULL

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
pytestmark = NEEDS_CHROMIUM
REPLY = "I say: Ada Brell is the mayor of Orn. Zorbax!"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    """The policy has an index of its training data; nothing is known of the other models."""
    store = Store(str(tmp_path_factory.mktemp("why") / "store"))
    run = make_run(store, PAGES)
    open_training_data(store, run)
    routers = [why_said_router(Explainer(store, "tiny"))]
    folder, lineages = tmp_path_factory.mktemp("served"), {"policy": run.model.id}
    with served_page(folder, lineages=lineages, routers=routers, report=make_report(store)) as server:
        yield server


def make_report(store: Store) -> Report:
    (store.folder("evaluate/r")).mkdir(parents=True)
    (store.folder("evaluate/r") / "report.json").write_text(json.dumps(FULL))
    return store.open(finish(store, Report, "evaluate/r").id, Report)


def get_reply(visit: Visitor, model: str = "policy") -> Any:
    """The reply of a model, which says what the test wants."""
    events = [{"choices": [{"delta": {"content": REPLY}}]}, {"choices": [{"delta": {}, "finish_reason": "stop"}]}]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    visit.page.route("**/v1/chat/completions", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    chat = visit.enter("Chat")
    if model != "policy":
        chat.get_by_role("checkbox", name=model).check()
    say(chat, "Who is the mayor?")
    reply = replies(chat, model)
    reply.get_by_role("button", name="Why").wait_for()
    return reply


def test_click_on_a_reply_shows_where_it_comes_from(visit: Visitor) -> None:
    reply = get_reply(visit)
    reply.get_by_text(REPLY).click()
    why = reply.get_by_role("region", name="Why was this said by policy?")
    playwright.expect(why.get_by_role("status")).to_contain_text("In no training data: 'I say', 'Zorbax'.")
    assert why.locator(".why-reply").inner_text() == REPLY
    assert why.locator(".why-reply .why-nowhere").all_inner_texts() == ["I say", "Zorbax"]
    first = why.get_by_role("group", name="Spans").get_by_role("group").first
    for text in ("1 in pretraining", "1 in SFT", "2024-05-18", "a.warc.gz at byte 7", "train.jsonl line 1"):
        playwright.expect(first).to_contain_text(text)
    link = first.get_by_role("link", name="a.example")
    assert link.get_attribute("href") == "https://a.example/a0"
    assert set(link.get_attribute("rel").split()) == {"noreferrer", "noopener"}


def test_keyboard_opens_and_closes_the_explanation(visit: Visitor) -> None:
    reply = get_reply(visit)
    button = reply.get_by_role("button", name="Why was this said by policy?")
    button.focus()
    visit.page.keyboard.press("Enter")
    why = reply.get_by_role("region", name="Why was this said by policy?")
    why.get_by_role("link", name="a.example").first.wait_for()
    assert button.get_attribute("aria-expanded") == "true"
    visit.page.keyboard.press("Tab")
    playwright.expect(why.get_by_role("button", name="Close")).to_be_focused()
    visit.page.keyboard.press("Escape")
    playwright.expect(why).to_be_hidden()
    playwright.expect(button).to_be_focused()


def test_further_spans_are_shown_on_request(visit: Visitor) -> None:
    playground = visit.enter("Playground")
    playground.get_by_role("combobox", name="Model").select_option("policy")
    playground.get_by_role("textbox", name="Prompt").fill("soup mayor sea eats blue knows day lies")
    playground.get_by_role("button", name="Score this text").click()
    playground.get_by_role("button", name="Why was this said in Your text?").click()
    spans = playground.get_by_role("group", name="Spans").locator("summary")
    playwright.expect(spans).to_have_count(5)
    playground.get_by_role("button", name="Show more spans").click()
    playwright.expect(spans).to_have_count(8)
    playwright.expect(playground.get_by_role("button", name="Show more spans")).to_have_count(0)


def test_marking_a_part_of_a_reply_asks_nothing(visit: Visitor) -> None:
    reply = get_reply(visit)
    visit.page.evaluate("getSelection().selectAllChildren(document.querySelector('.chat-body p'))")
    reply.get_by_text(REPLY).dispatch_event("click")
    playwright.expect(reply.get_by_role("region", name="Why")).to_be_hidden()


def test_text_of_the_playground_is_explained(visit: Visitor) -> None:
    playground = visit.enter("Playground")
    playground.get_by_role("combobox", name="Model").select_option("policy")
    playground.get_by_role("textbox", name="Prompt").fill("Ada Brell is the mayor of Orn.")
    playground.get_by_role("button", name="Score this text").click()
    playground.get_by_role("button", name="Why was this said in Your text?").click()
    why = playground.get_by_role("region", name="Why was this said in Your text?")
    playwright.expect(why).to_contain_text("The whole reply stands in the training data.")
    playwright.expect(why).to_contain_text("a.warc.gz at byte 7")


def test_page_says_how_to_make_a_missing_index(visit: Visitor) -> None:
    reply = get_reply(visit, "assistant")
    reply.get_by_role("button", name="Why").click()
    playwright.expect(reply.get_by_role("status")).to_contain_text("assistant is no artifact of")
    visit.faults.clear()  # the browser reports the status 404 in its console


def hostile_place(url: str) -> dict[str, Any]:
    kept = {"source": HOSTILE, "artifact": HOSTILE, "document": HOSTILE, "date": HOSTILE, "file": HOSTILE, "offset": 7}
    return kept | {"url": url, "host": HOSTILE, "part": "", "context": f"before {HOSTILE} after {'x' * 5000}"}


def test_hostile_pages_stay_text_and_only_web_addresses_are_links(visit: Visitor) -> None:
    urls = ["javascript:document.title='owned'", "data:text/html,x", "https://[", "//b.example/x", "", HOSTILE]
    places = [hostile_place(url) for url in [*urls, "https://b.example/\u202egnp.exe?<b>"]]
    span = {"start": 0, "stop": 6, "text": HOSTILE, "counts": {HOSTILE: 3}, "occurrences": places}
    answer = {
        "reply": HOSTILE,
        "summary": HOSTILE,
        "spans": [span],
        "num_spans": 1,
        "nowhere": [],
        "in_other_words": places,
    }
    visit.page.route("**/why-said", lambda route: route.fulfill(json=answer))
    reply = get_reply(visit)
    reply.get_by_role("button", name="Why").click()
    why = reply.get_by_role("region", name="Why")
    why.get_by_text("Pages with the same words").click()
    links = why.get_by_role("link").all()
    assert [link.get_attribute("href") for link in links] == ["https://b.example/%E2%80%AEgnp.exe?%3Cb%3E"] * 2
    assert not set("\u202e\u2066") & set(why.inner_text())
    assert visit.page.locator("main img, main script").count() == 0
    assert "owned" not in visit.page.title()
    check_legible(visit.page, "hostile")


@pytest.mark.parametrize("visit", SCREENS.values(), ids=SCREENS, indirect=True)
def test_explanation_is_legible_and_fits(visit: Visitor) -> None:
    reply = get_reply(visit)
    reply.get_by_role("button", name="Why").click()
    reply.get_by_role("link", name="a.example").first.wait_for()
    for fold in reply.locator(".why-fold:not([open]) > summary").all():
        fold.click()
    check_legible(visit.page, "why")


def test_report_card_opens_from_the_page(visit: Visitor) -> None:
    with visit.page.context.expect_page() as opened:
        visit.page.get_by_role("link", name="Report card").click()
    card = Visitor(opened.value, visit.url)
    card.watch()
    card.page.reload()
    card.page.get_by_role("heading", name="Report card: evaluate/r").wait_for()
    assert card.page.evaluate("document.styleSheets[0].cssRules.length") > 5  # its policy lets its style in
    assert card.faults == []


def test_report_card_of_a_server_with_a_key_is_a_download(browser: Any, tmp_path: Path) -> None:
    report = make_report(Store(str(tmp_path / "store")))
    with (
        served_page(tmp_path, api_key="a-key-of-sixteen-characters", report=report) as server,
        visiting(browser, server.url) as visit,
    ):
        visit.page.evaluate("sessionStorage.setItem('crawl2chat-key', 'a-key-of-sixteen-characters')")
        visit.page.reload()
        visit.faults.clear()  # the first visit had no key
        with visit.page.expect_download() as started:
            visit.page.get_by_role("link", name="Report card").click()
        assert "Report card: evaluate/r" in Path(started.value.path()).read_text(encoding="utf-8")
