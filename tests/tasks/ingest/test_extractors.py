"""Extractors: what they find, and that trafilatura finds the same when it is made faster."""

import gzip
import json
import random
import re
from collections.abc import Iterator
from copy import copy
from pathlib import Path

import lxml.etree
import lxml.html
import pytest
import trafilatura
from lxml.html import HtmlElementClassLookup
from trafilatura import core, external, utils, xpaths

from tasks.ingest import extractors
from tasks.ingest import trafilatura_xpaths as quick_xpaths
from tasks.ingest.extractors import by_resiliparse, by_trafilatura, extract
from tasks.ingest.http_response import Dropped, body_of, decode
from tasks.ingest.trafilatura_fallback import most_characters
from tasks.ingest.trafilatura_xpaths import SEARCHES, patch_trafilatura
from tasks.ingest.warc import read_records
from tests.support.archives import PARAGRAPH, html


def all_searches() -> list:
    return [search for name in SEARCHES for search in getattr(xpaths, name)]


PLAIN = all_searches()
AS_THEY_WERE = {".//header", "(.//article)[1]"}  # those that test no attribute, and a union
TEXT = PARAGRAPH.format(1).strip()


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    """trafilatura as it was, for whoever is tested next."""
    before = {name: list(getattr(xpaths, name)) for name in SEARCHES}
    load, compare = core.load_html, core._extract_and_compare
    yield
    for name, searches in before.items():
        getattr(xpaths, name)[:] = searches
    core.load_html, core._extract_and_compare = load, compare
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
def test_a_quickened_search_finds_the_same_elements(number: int) -> None:
    """In random trees of the tags, attributes and words that it looks for."""
    draw, path = random.Random(number), PLAIN[number].path
    words = re.findall(r"[a-z][\w-]+", path.rpartition("self::")[2].replace("(?:", ""), re.IGNORECASE)
    words += [*map(str.upper, words), *(f"some {word} a" for word in words), *(word * 300 for word in words)]
    tags, names = ["p", "h1", *re.findall(r"self::(\w+)", path)], ["class", *re.findall(r"@([\w-]+)", path)]
    patch_trafilatura()
    most = 1 if "[1]" in path else None  # trafilatura takes the first alone
    num_found = 0
    for _ in range(50):
        tree = [lxml.html.Element("body")]
        for _ in range(12):
            attributes = {draw.choice(names): draw.choice(words) for _ in range(2)}
            tree.append(lxml.etree.SubElement(draw.choice(tree), draw.choice(tags), attributes))
        found = PLAIN[number](tree[0])[:most]
        assert all_searches()[number](tree[0])[:most] == found, "of a page without letters"
        assert all_searches()[number](core.load_html(tree[0]))[:most] == found
        twin = copy(tree[0])
        assert all_searches()[number](twin)[:most] == PLAIN[number](twin)[:most]
        num_found += len(found)
    assert num_found or path in AS_THEY_WERE


def test_every_search_is_quickened() -> None:
    """One that the rewriting does not know would still be right, and slow."""
    patch_trafilatura()
    left = {path.strip() for search in all_searches() if (path := getattr(search, "path", ""))}
    assert {path for path in left if "|" not in path} == AS_THEY_WERE
    assert len(left) == len(AS_THEY_WERE) + 1


@pytest.mark.parametrize("is_precise", [True, False])
def test_the_same_is_found_in_real_pages(shared_data: Path, is_precise: bool) -> None:
    pages = real_pages(shared_data, 30)
    assert len(pages) >= 12
    plain = [by_trafilatura(page, is_precise) for page in pages]
    assert patch_trafilatura()
    assert [by_trafilatura(page, is_precise) for page in pages] == plain


def real_pages(shared_data: Path, step: int) -> list[str]:
    """Every page after `step` others, without the largest."""
    with (shared_data / "extraction" / "trafilatura-eval.warc.gz").open("rb") as source:
        blocks = [record.block for record in read_records(source, 2**23) if getattr(record, "type", "") == "response"]
    lines = gzip.decompress((shared_data / "extraction" / "mozilla-readability.jsonl.gz").read_bytes()).splitlines()
    pages = [decode(*body_of(block, 2**23)) for block in blocks[::step]]
    pages += [json.loads(line)["html"] for line in lines[:: step // 4]]
    return [page for page in pages if len(page) < 200_000]


def test_readability_finds_no_more_than_is_said(shared_data: Path) -> None:
    """Or it would not be asked where its answer matters."""
    for page in real_pages(shared_data, 24):
        most = most_characters(utils.load_html(page))
        assert len(utils.trim(external.try_readability(utils.load_html(page)).text_content())) <= most


def test_readability_is_asked_where_trafilatura_finds_little(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    answer = external.try_readability
    monkeypatch.setattr(external, "try_readability", lambda tree: asked.append(len(tree)) or answer(tree))
    patch_trafilatura()
    little, much = (f"<html><body>{'<p>' + TEXT + '</p>'}{rest}</body></html>" for rest in (f"<ul>{TEXT * 9}</ul>", ""))
    assert by_trafilatura(much) and asked == [0]
    by_trafilatura(little)
    assert asked[1]


def test_another_version_of_trafilatura_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    before = all_searches(), core.load_html, core._extract_and_compare
    monkeypatch.setattr(quick_xpaths, "version", lambda name: "9.0.0")
    assert not patch_trafilatura()
    assert (all_searches(), core.load_html, core._extract_and_compare) == before


def test_the_version_that_is_installed_is_one_of_those_tried() -> None:
    assert trafilatura.__version__.startswith(quick_xpaths.TRIED)


def test_resiliparse_keeps_paragraphs_apart() -> None:
    assert by_resiliparse(f"<html><body><main><p>{TEXT}</p><p>{TEXT}</p></main></body></html>").split("\n\n") == [
        TEXT,
        TEXT,
    ]
