"""Extractors: the article without the rest of the page, deep nesting, and characters that parsers refuse."""

import pytest

from tasks.ingest import extractors
from tasks.ingest.dropped import Dropped
from tasks.ingest.extractors import by_resiliparse, extract
from tests.support.archives import PARAGRAPH, html

EXTRACTORS: list[extractors.Extractor] = ["trafilatura", "resiliparse", "combined", "union"]
TEXT = PARAGRAPH.format(1).strip()


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_extractor_leaves_out_navigation(extractor: extractors.Extractor) -> None:
    text = extract(html(1), extractor)
    assert TEXT in text
    assert "Imprint" not in text and "Section" not in text


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_page_without_text_is_dropped(extractor: extractors.Extractor) -> None:
    with pytest.raises(Dropped, match=r"^empty/text$"):
        extract("<html><body><div> </div></body></html>", extractor)


def test_combined_takes_the_longer_text_if_much_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"long": "long " * 100, "clean": "clean " * 32}
    monkeypatch.setattr(extractors, "by_resiliparse", lambda html: texts["long"])
    monkeypatch.setattr(extractors, "by_trafilatura", lambda html, is_precise: texts["clean"])
    assert extract("", "combined").startswith("long")
    texts["clean"] += "clean " * 2
    assert extract("", "combined").startswith("clean")


def test_resiliparse_separates_paragraphs() -> None:
    assert by_resiliparse(f"<html><body><main><p>{TEXT}</p><p>{TEXT}</p></main></body></html>").split("\n\n") == [
        TEXT,
        TEXT,
    ]


@pytest.mark.parametrize("extractor", EXTRACTORS)
@pytest.mark.parametrize("tag", ["blockquote", "div", "section", "span", "font", "custom-element"])
@pytest.mark.parametrize("depth", [300, 1500])
def test_text_in_deep_elements_is_kept(extractor: extractors.Extractor, tag: str, depth: int) -> None:
    replies = "".join(f"<{tag}><p>Reply {number}. {TEXT}</p>" for number in range(depth))
    text = extract(f"<html><body><main>{replies}</main></body></html>", extractor)
    assert [number for number in range(depth) if f"Reply {number}." not in text] == []


@pytest.mark.parametrize("extractor", EXTRACTORS)
@pytest.mark.parametrize(
    "character",
    [
        *(
            "&#xFFFE;",
            "&#xffff;",
            "&#65534",
            "&#xFDD0;",
            "&#x1FFFE;",
            "&#x10FFFF;",
            "&#0;",
            "&#x00;",
            "&#1;",
            "&#x1b;",
            "&#12;",
        ),
        *(
            "&#xD800;",
            "&#57343;",
            "&#x110000;",
            f"&#{'9' * 5000};",
            "&#127;",
            "&#x80;",
            "\ufffe",
            "\uffff",
            "\ufdd0",
            "\U0001fffe",
        ),
    ],
)
def test_forbidden_characters_cost_no_text(extractor: extractors.Extractor, character: str) -> None:
    page = html(1).replace("Nowadays", f"Now{character}adays")
    text = extract(page, extractor)
    assert "fishermen who had grown tired of losing boats" in text
    assert "visitors climb its stairs in the evening" in text
    text.encode()
    assert not any(code in text for code in "\0\x01\x0c\x1b\ufffe\uffff\ufdd0")
