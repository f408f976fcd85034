"""Extractors: what they find, and that trafilatura's expressions find the same when they are compiled anew."""

import gzip
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import lxml.etree
import lxml.html
import pytest
import trafilatura
from archives import PARAGRAPH, html
from lxml.html import HtmlElementClassLookup
from trafilatura import utils, xpaths

from tasks import extractors
from tasks import xpaths as quick_xpaths
from tasks.extractors import by_resiliparse, by_trafilatura, extract
from tasks.page import Dropped
from tasks.xpaths import quicken


def all_expressions() -> list:
    return [expression for value in vars(xpaths).values() if isinstance(value, list) for expression in value]


PLAIN = all_expressions()
TEXT = PARAGRAPH.format(1).strip()


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    """trafilatura as it was, for whoever is tested next."""
    before = {name: list(value) for name, value in vars(xpaths).items() if isinstance(value, list)}
    yield
    for name, expressions in before.items():
        getattr(xpaths, name)[:] = expressions
    utils.HTML_PARSER.set_element_class_lookup(HtmlElementClassLookup())


@pytest.mark.parametrize("extractor", ["trafilatura", "resiliparse", "combined"])
def test_what_is_not_the_article_is_left_out(extractor: extractors.Extractor) -> None:
    text = extract(html(1), extractor)
    assert TEXT in text
    assert "Imprint" not in text and "Section" not in text


@pytest.mark.parametrize("extractor", ["trafilatura", "resiliparse", "combined"])
def test_a_page_without_text_says_so(extractor: extractors.Extractor) -> None:
    with pytest.raises(Dropped, match=r"^empty/text$"):
        extract("<html><body><div> </div></body></html>", extractor)


def test_combined_takes_the_longer_text_only_where_much_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"long": "long " * 100, "clean": "clean " * 32}
    monkeypatch.setattr(extractors, "by_resiliparse", lambda html: texts["long"])
    monkeypatch.setattr(extractors, "by_trafilatura", lambda html, is_precise: texts["clean"])
    assert extract("", "combined").startswith("long")
    texts["clean"] += "clean " * 2
    assert extract("", "combined").startswith("clean")


@pytest.mark.parametrize("number", range(len(PLAIN)))
def test_a_quickened_expression_finds_the_same_elements(number: int) -> None:
    """In random trees of the tags, attributes and words that it looks for."""
    draw, path = random.Random(number), PLAIN[number].path
    words = re.findall(r"[a-z][\w-]+", path.rpartition("self::")[2].replace("(?:", ""), re.IGNORECASE)
    words += [*map(str.upper, words), *(f"some {word} a" for word in words), *(word * 300 for word in words)]
    tags, names = ["p", *re.findall(r"self::(\w+)", path)], ["class", *re.findall(r"@([\w-]+)", path)]
    quicken()
    num_found = 0
    for _ in range(100):
        tree = [lxml.html.Element("body")]
        for _ in range(12):
            attributes = {draw.choice(names): draw.choice(words) for _ in range(2)}
            tree.append(lxml.etree.SubElement(draw.choice(tree), draw.choice(tags), attributes))
        found = PLAIN[number](tree[0])
        assert all_expressions()[number](tree[0]) == found
        num_found += len(found)
    assert num_found or "//a" in path or "self::" not in path


def test_quickened_expressions_find_the_same_in_real_pages(shared_data: Path) -> None:
    lines = gzip.decompress((shared_data / "extraction" / "mozilla-readability.jsonl.gz").read_bytes()).splitlines()
    pages = [page for line in lines[::2] if len(page := json.loads(line)["html"]) < 200_000]
    assert len(pages) >= 15
    plain = [by_trafilatura(page, is_precise) for page in pages for is_precise in (True, False)]
    assert quicken()
    assert [by_trafilatura(page, is_precise) for page in pages for is_precise in (True, False)] == plain


def test_every_regex_is_quickened() -> None:
    """One that the rewriting does not know would still be right, and slow."""
    quicken()
    assert any("re:test(string(" in expression.path for expression in all_expressions())
    assert not [expression.path for expression in all_expressions() if "re:test(@" in expression.path]


def test_another_version_of_trafilatura_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    before = all_expressions()
    monkeypatch.setattr(quick_xpaths, "version", lambda name: "9.0.0")
    assert not quicken()
    assert all_expressions() == before


def test_the_version_that_is_installed_is_one_of_those_tried() -> None:
    assert trafilatura.__version__.startswith(quick_xpaths.TRIED)


def test_resiliparse_keeps_paragraphs_apart() -> None:
    assert by_resiliparse(f"<html><body><main><p>{TEXT}</p><p>{TEXT}</p></main></body></html>").split("\n\n") == [
        TEXT,
        TEXT,
    ]
