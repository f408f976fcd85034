"""The main text of an HTML page, by one of four extractors.

`trafilatura` (Barbaresi 2021) with FineWeb's settings: precision before recall, no comments. `resiliparse` (Bevendorff et al. 2018)
with DCLM's, in a seventh of the time: finds more, also of what is not wanted. `combined` is trafilatura with neither preference and
without its fallbacks, in a little less time, or resiliparse's text if that is much longer: on a page that is no article, trafilatura
often finds a small part of it. On pages of all kinds it is the best of them, on articles as good as trafilatura
(tests/benchmarks/extraction_quality.py). `union` has every paragraph that resiliparse, trafilatura (with preference for precision, without fallbacks) or
jusText finds, once: most of the text of any page, for whoever would rather filter later.

Departs from FineWeb in that trafilatura's own deduplication is off: it compares with the pages before, so that the result would depend
on how files are spread over workers.
"""

import logging
from functools import cache
from typing import Any, Literal

from tasks.ingest.dropped import Dropped
from tasks.ingest.justext_paragraphs import good_paragraphs
from tasks.ingest.markup import load_tree, mend_characters, remove_forbidden
from tasks.ingest.trafilatura_patch import patch_trafilatura
from tasks.ingest.union import merge

Extractor = Literal["trafilatura", "resiliparse", "combined", "union"]
MIN_LENGTH_FRACTION = 0.4  # of resiliparse's text; if trafilatura's is shorter, it has missed the text
NOISY_LOGGERS = ("trafilatura", "htmldate")


def extract(html: str, extractor: Extractor) -> str:
    """The main text of a page. Raises Dropped if the page has no text, or the parser fails."""
    by_name = {"trafilatura": by_trafilatura, "resiliparse": by_resiliparse, "combined": by_both, "union": by_union}
    try:
        text = remove_forbidden(by_name[extractor](html)).strip()
    except MemoryError:
        raise Dropped("empty/memory") from None
    except Exception:  # a hostile page can make a parser raise anything
        raise Dropped("empty/error") from None
    if not text:
        raise Dropped("empty/text")
    return text


def by_trafilatura(html: str, is_precise: bool = True) -> str:
    """With preference for precision and all fallbacks, or with neither."""
    # For lxml, which trafilatura uses; resiliparse has a parser that needs no mending, Lexbor.
    html = mend_characters(html)
    # The patch loads it so itself, and saves a copy of the tree.
    return _text_of(html if _trafilatura()[1] else load_tree(html), is_precise=is_precise, is_fast=not is_precise)


def _text_of(page: Any, *, is_precise: bool, is_fast: bool) -> str:
    """trafilatura's text of HTML, or of a tree, which it changes. `is_fast`: without its fallbacks."""
    trafilatura, _ = _trafilatura()
    text = trafilatura.extract(page, favor_precision=is_precise, fast=is_fast, include_comments=False)
    return text or ""


@cache
def _trafilatura() -> tuple[Any, bool]:
    """trafilatura, and whether it could be made faster. It is made quiet: it warns of single pages, and quotes them."""
    import trafilatura

    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return trafilatura, patch_trafilatura()


def by_resiliparse(html: str) -> str:
    """With DCLM's settings: main content, with line breaks as on the page, without comments and texts of images."""
    from resiliparse.extract.html2text import extract_plain_text

    return str(extract_plain_text(html, preserve_formatting=True, main_content=True, alt_texts=False, comments=False))


def by_both(html: str) -> str:
    """The text of trafilatura, or of resiliparse where trafilatura's is less than MIN_LENGTH_FRACTION as long."""
    long, clean = by_resiliparse(html), by_trafilatura(html, is_precise=False)
    return clean if len(clean) >= MIN_LENGTH_FRACTION * len(long) else long


def by_union(html: str) -> str:
    """Every paragraph of resiliparse, trafilatura and jusText, once. The last two read one tree."""
    texts = [by_resiliparse(html)]
    tree = load_tree(mend_characters(html))
    if tree is not None:  # None: no HTML
        by_justext = "\n".join(good_paragraphs(tree))  # before trafilatura, which changes the tree
        # Without fallbacks, which take a third of its time: they are for pages where it finds little, and there are two others.
        texts += [_text_of(tree, is_precise=True, is_fast=True), by_justext]
    return merge(texts)
