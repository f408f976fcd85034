"""The main text of an HTML page, by one of three extractors.

`trafilatura` (Barbaresi 2021) with FineWeb's settings: precision before recall, no comments. `resiliparse` (Bevendorff et al. 2018)
with DCLM's, in a seventh of the time: finds more, also of what is not wanted. `combined` is trafilatura with neither preference and
without its fallbacks, in a little less time, and resiliparse's text where that is much longer: where a page is no article,
trafilatura often finds a small part of it. On pages of all kinds it is the best of the three, on articles as good as trafilatura
(tests/benchmarks/extraction_quality.py).

Departs from FineWeb in that trafilatura's own deduplication is off: it remembers the pages before, and so makes the result depend on
how files are spread over workers.
"""

import logging
from typing import Literal

from tasks.ingest.http_response import Dropped

Extractor = Literal["trafilatura", "resiliparse", "combined"]
MIN_LENGTH_FRACTION = 0.4  # of resiliparse's text; below, trafilatura has missed the text

for noisy in ("trafilatura", "htmldate"):
    logging.getLogger(noisy).setLevel(logging.CRITICAL)  # they warn of single pages, and quote them


def extract(html: str, extractor: Extractor) -> str:
    """The main text of a page. Raises Dropped where there is none."""
    by_name = {"trafilatura": by_trafilatura, "resiliparse": by_resiliparse, "combined": by_both}
    try:
        text = by_name[extractor](html).strip()
    except MemoryError:
        raise Dropped("empty/memory") from None
    except Exception:  # whatever a hostile page makes of a parser
        raise Dropped("empty/error") from None
    if not text:
        raise Dropped("empty/text")
    return text


def by_trafilatura(html: str, is_precise: bool = True) -> str:
    """With preference for precision and all fallbacks, or with neither."""
    import trafilatura

    return trafilatura.extract(html, favor_precision=is_precise, fast=not is_precise, include_comments=False) or ""


def by_resiliparse(html: str) -> str:
    from resiliparse.extract.html2text import extract_plain_text

    return str(extract_plain_text(html, preserve_formatting=True, main_content=True, alt_texts=False, comments=False))


def by_both(html: str) -> str:
    long, clean = by_resiliparse(html), by_trafilatura(html, is_precise=False)
    return clean if len(clean) >= MIN_LENGTH_FRACTION * len(long) else long
