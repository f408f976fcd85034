"""A look at the language of a page before its extraction, which costs several times as much.

Reads all text of a page, menus and all, and drops the page where fastText finds next to nothing of the languages wanted in it. What
is in doubt passes: the filter decides by the text extracted. Of pages that the filter would have kept this loses none in 1,000
(tests/benchmarks/fineweb_speed.py). FineWeb extracts first.
"""

from typing import Any

from tasks.ingest.dropped import Dropped
from tasks.web import language_id

MIN_CHARACTERS = 250  # less says little: a frame set, a page made by scripts
MAX_CHARACTERS = 10_000


def prefilter_language(html: str, wanted: tuple[str, ...], min_score: float, model: Any) -> None:
    """Raises Dropped, as language/CODE, where the scores of the languages wanted are less than `min_score` together."""
    text = stripped(html)[:MAX_CHARACTERS]
    if len(text) < MIN_CHARACTERS:
        return
    labels, scores = model.predict(text.replace("\n", " "), k=-1)
    codes = [label.removeprefix(language_id.LABEL) for label in labels]
    if codes and sum(score for code, score in zip(codes, scores, strict=True) if code in wanted) < min_score:
        raise Dropped(f"language/{codes[0]}")


def stripped(html: str) -> str:
    """All text of a page."""
    from resiliparse.extract.html2text import extract_plain_text

    return str(extract_plain_text(html, preserve_formatting=False, alt_texts=False))
