"""Language prefilter: drops pages that are clearly in other languages before extraction, which costs several times as much.

Reads all text of a page, menus included, and drops the page if fastText's scores of the wanted languages are almost zero. Doubtful
pages pass: the filter stage decides by the extracted text. Of pages that the filter would have kept this loses none in 1,000
(tests/benchmarks/fineweb_speed.py). FineWeb extracts first.
"""

from typing import Any

from tasks.ingest.dropped import Dropped
from tasks.web import language_id

MIN_CHARACTERS = 250  # shorter text is not enough: a frame set, a page built by scripts
MAX_CHARACTERS = 10_000


def prefilter_language(html: str, wanted: tuple[str, ...], min_score: float, model: Any) -> None:
    """Raise Dropped (language/CODE) if the summed score of the wanted languages is below `min_score`."""
    text = stripped(html)[:MAX_CHARACTERS]
    if len(text) < MIN_CHARACTERS:
        return
    # k=-1 asks for all 176 languages: the wanted one of a bilingual page may be far down the list.
    labels, scores = model.predict(text.replace("\n", " "), k=-1)
    codes = [label.removeprefix(language_id.LABEL) for label in labels]
    if codes and sum(score for code, score in zip(codes, scores, strict=True) if code in wanted) < min_score:
        raise Dropped(f"language/{codes[0]}")


def stripped(html: str) -> str:
    """All text of a page."""
    from resiliparse.extract.html2text import extract_plain_text

    return str(extract_plain_text(html, preserve_formatting=False, alt_texts=False))
