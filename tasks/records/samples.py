"""Documents as they may be shown: excerpts without personal data and secrets.

Reads and writes nothing. What leaves the store goes through here: dropped.jsonl, the tables in Prefect's interface, logs, reports and
what commands print. All finders run (tasks/pii), whatever the recipe's actions are: that a recipe keeps e-mail addresses in its training
data does not mean that they may stand in a log. The Parquet files of an artifact hold the texts as they are: a filter can only be
inspected on what it read, and the store has access rules that a log and a web page do not have.
"""

import json
from typing import Any

from tasks.pii.detect import FINDERS, find, replace
from tasks.records.documents import Document
from tasks.redaction import redact_text, redact_url

OVERHANG_CHARACTERS = 512  # read behind an excerpt, so that nothing personal is cut in two and half of it shown
URL_KINDS = ("email", "iban", "ssn", "card")  # in URLs the other kinds are numbers of pages more often than not


def redacted_excerpt(text: str, num_characters: int) -> str:
    """The first `num_characters` of `text`, up to the end of what is redacted there, without personal data and secrets."""
    # Only the start of a text is searched: the finders take 0.2 s for 100,000 characters, and every shard has up to 20
    # samples of each reason.
    window = redact_text(text[: num_characters + OVERHANG_CHARACTERS])
    # What begins within the excerpt is replaced whole, also where it ends behind it.
    spans = [span for span in find(window, FINDERS) if span.start < num_characters]
    end = max([num_characters, *(span.end for span in spans)])
    return replace(window[:end], spans)


def redacted_url(url: str) -> str:
    """A URL without secrets and personal data, an @ written as %40 included."""
    url = redact_url(url)
    # The one escape that hides an address from the finders. Other escapes stay, so that the URL can still be opened.
    plain = url.replace("%40", "@")
    return replace(plain, spans) if (spans := find(plain, URL_KINDS)) else url


def redacted_line(line: str) -> str:
    """A line of JSON Lines, or of any other text, without personal data and secrets."""
    return redacted_excerpt(line, len(line))


def sample_of(document: Document, reason: str, num_characters: int) -> dict[str, Any]:
    """What a person is shown of a dropped document: where it is, why it was dropped, and how its text begins."""
    # Attributes are dozens of numbers, which `crawl2chat trace` and histograms.json show better.
    shown = {name: value for name, value in document.items() if name != "attributes"}
    return {
        "reason": reason,
        **shown,
        "url": redacted_url(document["url"]),
        "text": redacted_excerpt(document["text"], num_characters),
    }


def sample_line(document: Document, reason: str, num_characters: int) -> str:
    """`sample_of` as a line of JSON Lines."""
    return json.dumps(sample_of(document, reason, num_characters), ensure_ascii=False)
