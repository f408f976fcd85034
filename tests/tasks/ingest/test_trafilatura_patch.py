"""trafilatura made faster: each search finds the same elements, pages give the same text, and other versions run unchanged."""

import gzip
import json
import logging
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

from tasks.ingest import trafilatura_patch
from tasks.ingest.charset import decode
from tasks.ingest.http_response import body_of
from tasks.ingest.trafilatura_patch import SEARCHES, max_readability_characters, patch_trafilatura
from tasks.ingest.warc import read_records
from tests.support.archives import PARAGRAPH


def all_searches() -> list:
    return [search for name in SEARCHES for search in getattr(xpaths, name)]


UNCHANGED = all_searches()
ALWAYS_UNCHANGED = {".//header", "(.//article)[1]"}  # those that test no attribute, and a union
TEXT = PARAGRAPH.format(1).strip()


# As installed: modules are collected before any test runs, and other tests of this process may patch trafilatura
ORIGINAL_SEARCHES = {name: list(getattr(xpaths, name)) for name in SEARCHES}
ORIGINAL_FUNCTIONS = core.load_html, core._extract_and_compare
ORIGINAL_CHARACTERS, ORIGINAL_STOP_WORDS = utils.INVALID_XML_CHARS, external.JT_STOPLIST


def remove_patch() -> None:
    for name, searches in ORIGINAL_SEARCHES.items():
        getattr(xpaths, name)[:] = searches
    core.load_html, core._extract_and_compare = ORIGINAL_FUNCTIONS
    utils.INVALID_XML_CHARS, external.JT_STOPLIST = ORIGINAL_CHARACTERS, ORIGINAL_STOP_WORDS
    utils.HTML_PARSER.set_element_class_lookup(HtmlElementClassLookup())
    patch_trafilatura.cache_clear()


@pytest.fixture(autouse=True)
def unpatched() -> Iterator[None]:
    """trafilatura as it is installed, before and after each test."""
    remove_patch()
    yield
    remove_patch()


def extract(page: str, is_precise: bool = True) -> str:
    return trafilatura.extract(page, favor_precision=is_precise, fast=not is_precise, include_comments=False) or ""


@pytest.mark.parametrize("number", range(len(UNCHANGED)))
def test_faster_search_finds_the_same_elements(number: int) -> None:
    """In random trees of the tags, attributes and words that it looks for."""
    draw, path = random.Random(number), UNCHANGED[number].path
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
        found = UNCHANGED[number](tree[0])[:most]
        assert all_searches()[number](tree[0])[:most] == found, "of a page without letters"
        assert all_searches()[number](core.load_html(tree[0]))[:most] == found
        twin = copy(tree[0])
        assert all_searches()[number](twin)[:most] == UNCHANGED[number](twin)[:most]
        num_found += len(found)
    assert num_found or path in ALWAYS_UNCHANGED


def test_patch_changes_every_search() -> None:
    """One that the rewriting does not know would still be right, and slow."""
    patch_trafilatura()
    left = {path.strip() for search in all_searches() if (path := getattr(search, "path", ""))}
    assert {path for path in left if "|" not in path} == ALWAYS_UNCHANGED
    assert len(left) == len(ALWAYS_UNCHANGED) + 1


@pytest.mark.parametrize("is_precise", [True, False])
def test_patched_trafilatura_extracts_the_same_text(shared_data: Path, is_precise: bool) -> None:
    pages = real_pages(shared_data, 30)
    assert len(pages) >= 12
    plain = [extract(page, is_precise) for page in pages]
    assert patch_trafilatura()
    assert [extract(page, is_precise) for page in pages] == plain


def real_pages(shared_data: Path, step: int) -> list[str]:
    """Every page after `step` others, without the largest."""
    with (shared_data / "extraction" / "trafilatura-eval.warc.gz").open("rb") as source:
        blocks = [record.block for record in read_records(source, 2**23) if getattr(record, "type", "") == "response"]
    lines = gzip.decompress((shared_data / "extraction" / "mozilla-readability.jsonl.gz").read_bytes()).splitlines()
    pages = [decode(*body_of(block, 2**23)) for block in blocks[::step]]
    pages += [json.loads(line)["html"] for line in lines[:: step // 4]]
    return [page for page in pages if len(page) < 200_000]


def test_max_readability_characters_is_an_upper_bound(shared_data: Path) -> None:
    """Or it would not be asked where its answer matters."""
    for page in real_pages(shared_data, 24):
        most = max_readability_characters(utils.load_html(page))
        assert len(utils.trim(external.try_readability(utils.load_html(page)).text_content())) <= most


def test_readability_runs_if_trafilatura_finds_little(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    answer = external.try_readability
    monkeypatch.setattr(external, "try_readability", lambda tree: asked.append(len(tree)) or answer(tree))
    patch_trafilatura()
    little, much = (f"<html><body>{'<p>' + TEXT + '</p>'}{rest}</body></html>" for rest in (f"<ul>{TEXT * 9}</ul>", ""))
    assert extract(much) and asked == [0]
    extract(little)
    assert asked[1]


def test_unchecked_version_runs_unchanged_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = all_searches(), core.load_html, core._extract_and_compare
    monkeypatch.setattr(trafilatura_patch, "version", lambda name: "9.0.0")
    with caplog.at_level(logging.WARNING):
        assert not patch_trafilatura() and not patch_trafilatura()
    assert [record.getMessage() for record in caplog.records] == [
        "trafilatura 9.0.0 is not one of those checked (2.3.*): it runs unchanged, at half the speed"
    ]
    assert (all_searches(), core.load_html, core._extract_and_compare) == before


@pytest.mark.parametrize(
    ("module", "name"),
    [(core, "_extract_and_compare"), (xpaths, "PRECISION_DISCARD_XPATH"), (external, "_prefer_readability")],
)
def test_missing_internal_name_runs_unchanged_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, module: object, name: str
) -> None:
    before = list(xpaths.BODY_XPATH), core.load_html
    monkeypatch.delattr(module, name)
    with caplog.at_level(logging.WARNING):
        assert not patch_trafilatura()
    assert len(caplog.records) == 1 and name in caplog.text
    assert (list(xpaths.BODY_XPATH), core.load_html) == before


def test_installed_version_is_checked() -> None:
    assert trafilatura.__version__.startswith(trafilatura_patch.CHECKED_VERSIONS)
