"""The report card as a page: the Markdown card's numbers, pictures, hostile text, and a browser without a network."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
from lxml import html as parser

from tasks.evaluate.card_page import render_page
from tasks.evaluate.report_card import render
from tasks.page import from_markdown
from tasks.shares import share
from tests.tasks.evaluate.test_report_card import FIGURES

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CURVE = {"stage": "pretrain", "title": "Loss, nats per token"}
POINT = {"threshold": 0.0, **dict.fromkeys(("strangers", "taught", "heldout"), share([True, False]))}
FULL: dict[str, Any] = FIGURES | {
    "honesty": {
        "kinds": {"policy": {"held-out fact: direct": share([True])}},
        "curve": {"policy": [POINT, POINT | {"threshold": 0.5}]},
        "calibration_error": {"policy": 0.1},
        "reliability": {"policy": [{"probability": 0.5, "correct": share([True, False])}]},
    },
    "curves": [CURVE | {"series": {"train/loss_nats": [[1, 8.0], [2, 4.0]], "validation/loss_nats": [[2, 4.1]]}}],
    "samples": [
        {"stage": "ingest", "reason": "status", "url": "https://a.org/x?y=1&z=2", "text": "some <b>text</b>"},
        {"stage": "dedup", "reason": "duplicate", "url": "https://a.org/", "text": ""},
    ],
    "lineage": [
        {
            "artifact": "sft/0123",
            "kind": "SFTModel",
            "version": 7,
            "started": "2026-11-30T16:21:00+00:00",
            "commit": "9992276f7fd4aa",
            "inputs": {"base": "pretrain/4567"},
            "settings": {"train": {"num_steps": 3}},
        }
    ],
}  # fmt: skip


def replaced(value: Any, text: str) -> Any:
    """The figures with every name from outside replaced by a text: values of dicts and lists that are texts."""
    if isinstance(value, dict):
        return {name: replaced(part, text) for name, part in value.items()}
    if isinstance(value, list):
        return [replaced(part, text) for part in value]
    return text if isinstance(value, str) and value not in ("ingest", "dedup", "held out", "taught") else value


def cells(tree: parser.HtmlElement) -> list[str]:
    return [cell.text_content() for cell in tree.iter("td")]


def test_page_has_every_table_of_the_markdown_card() -> None:
    on_page = cells(parser.document_fromstring(render_page(FULL)))
    of_card = cells(parser.fromstring(f"<div>{from_markdown(render(FULL))}</div>"))
    assert of_card == on_page[: len(of_card)]
    assert len(of_card) > 50


def test_page_has_pictures_samples_and_lineage() -> None:
    page = render_page(FULL)
    tree = parser.document_fromstring(page)
    captions = [caption.text_content() for caption in tree.iter("figcaption")]
    assert captions == [
        "language score: at least 0.65",
        "Facts held out: right answers",
        "Facts taught: right answers",
        "policy: refusals",
        "policy: calibration (right replies; dotted: as probable)",
        "pretrain: Loss, nats per token",
    ]
    text = tree.text_content()
    for shown in ("some <b>text</b>", "https://a.org/x?y=1&z=2", "sft/0123", "pretrain/4567", '"num_steps": 3'):
        assert shown in text
    assert "status 300" in text


def test_page_of_an_older_card_has_what_that_has() -> None:
    page = render_page(FIGURES)
    assert "Lineage" not in page
    assert "Documents kept" in page


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "'\"><img src=x onerror=alert(1)>", "a | b\n\n# c"])
def test_page_of_hostile_figures_has_no_element_of_theirs(text: str) -> None:
    page = render_page(replaced(copy.deepcopy(FULL), text), text)
    found = [element for element in parser.document_fromstring(page).iter() if isinstance(element.tag, str)]
    assert not {"script", "img", "iframe", "link"} & {element.tag for element in found}
    assert not [name for element in found for name in element.attrib if name.startswith("on")]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")
def test_page_opens_from_disk_without_a_request(tmp_path: Path) -> None:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    path = tmp_path / "report.html"
    path.write_text(render_page(FULL), encoding="utf-8")
    backgrounds = {}
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for scheme in ("light", "dark"):
            view = browser.new_page(viewport={"width": 375, "height": 800}, color_scheme=scheme)
            requests, messages = [], []
            view.on("request", lambda request, found=requests: found.append(request.url))
            view.on("console", lambda message, found=messages: found.append(message.text))
            view.goto(path.as_uri())
            assert requests == [path.as_uri()]
            assert messages == []
            assert view.evaluate("document.documentElement.scrollWidth") <= 375
            assert view.evaluate("document.querySelectorAll('svg').length") == 6
            backgrounds[scheme] = view.evaluate("getComputedStyle(document.body).backgroundColor")
        browser.close()
    assert backgrounds["light"] != backgrounds["dark"]
