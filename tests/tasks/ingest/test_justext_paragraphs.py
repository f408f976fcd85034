"""jusText without its tree cleaner and its quadratic part: the same paragraphs and classes as the library."""

import os
import re
from pathlib import Path

import justext
import pytest
from hypothesis import given
from hypothesis import strategies as st
from justext.core import revise_paragraph_classification

from tasks.ingest.justext_paragraphs import Paragraph, good_paragraphs, paragraphs, revise, stop_words
from tasks.ingest.markup import load_tree, mend_characters
from tests.support.cost import grows_linearly

LONG = (
    "This is the text of a page that is long enough, and it has the words of a sentence in it as all of them have. " * 3
)
PIECES = [
    *("<p>", "</p>", "<div>", "</div>", "<br>", "<br><br>", "<b>", "</b>", "<a href=x>", "</a>", "<h2>", "</h2>"),
    *("<form>", "</form>", "<select><option>one</select>", "<script>var x</script>", "<ul><li>", "</ul>", "<td>"),
    *(LONG, "A short line", "the and of a", "© 2024", "word", " ", "\n"),
]  # fmt: skip


def library(html: str) -> list[tuple[str, str]]:
    """The library's paragraphs, without spaces, and whether each is text."""
    found = justext.justext(html, justext.get_stoplist("English"))
    return [("".join(part.text.split()), part.class_type) for part in found]


def ours(html: str) -> list[str]:
    return ["".join(text.split()) for text in good_paragraphs(load_tree(mend_characters(html)))]


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=30))
def test_paragraphs_are_the_librarys(pieces: list[str]) -> None:
    html = f"<html><head><title>t</title></head><body>{' '.join(pieces)}<p>end</p></body></html>"
    expected = [text for text, _ in library(html) if text]
    tree = load_tree(html)
    found = ["".join(part.text.split()) for part in paragraphs(tree)]
    assert found == expected


@given(
    st.lists(
        st.tuples(st.sampled_from(["short", "neargood", "good", "bad"]), st.booleans(), st.integers(1, 120)),
        max_size=40,
    )
)
def test_revised_classes_are_the_librarys(rows: list[tuple[str, bool, int]]) -> None:
    found = [Paragraph("x" * length, 0, is_heading) for _, is_heading, length in rows]
    for part, (own, is_heading, _) in zip(found, rows, strict=True):
        part.cf_class, part.heading = own, is_heading
    classes = revise(found)
    revise_paragraph_classification(found)
    assert classes == [part.class_type for part in found]


def test_many_short_paragraphs_take_no_square_of_time() -> None:
    short, long = (load_tree("<html><body>" + "<p>a b</p>" * num + "</body></html>") for num in (5_000, 50_000))
    assert good_paragraphs(short) == []
    assert grows_linearly(good_paragraphs, short, long, 10)


def test_stop_words_are_of_the_language_of_the_page() -> None:
    german = "Der Wagen, den die Frau in der Stadt gekauft hat, ist auch nach dem Winter noch so schnell wie er es vorher war, und er ist rot. "
    page = f"<html{{}}><body><p>{german * 2}</p></body></html>"
    assert good_paragraphs(load_tree(page.format(""))) == []
    assert good_paragraphs(load_tree(page.format(' lang="de-AT"'))) == [(german * 2).strip()]
    assert stop_words("xx") == stop_words("en")


@pytest.mark.skipif(
    "CRAWL2CHAT_TEST_DATA" not in os.environ, reason="CRAWL2CHAT_TEST_DATA names no folder of real pages"
)
def test_text_of_real_pages_is_the_librarys() -> None:
    from tests.benchmarks.extraction_quality import pages

    found = list(pages(Path(os.environ["CRAWL2CHAT_TEST_DATA"]) / "extraction/wcxb-dev-sample.warc.gz").values())[::16]
    html = [re.sub(r"\slang=\S+", " ", page, flags=re.IGNORECASE) for page in found]
    same = [ours(page) == [text for text, kind in library(page) if kind == "good"] for page in html]
    # Not all: spaces between elements change how many words are stop words.
    assert sum(same) >= 0.85 * len(same)
