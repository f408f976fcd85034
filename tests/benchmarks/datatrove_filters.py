"""What datatrove's filters decide, run in its own environment by tests/benchmarks/filter_agreement.py.

Reads ASKED (texts, which of them we keep, what our line rules leave of them, addresses, lists, the language model), writes
ANSWERS: the reason for which FineWeb's chain drops each text, the CPU seconds of the chain alone, and where the decision
is not ours, the words and sentences it counts.

    python datatrove_filters.py ASKED ANSWERS
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import tldextract
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
    URLFilter,
)
from datatrove.utils import lid
from datatrove.utils.text import split_into_sentences, split_into_words

CHAIN = [
    LanguageFilter("en"),
    GopherRepetitionFilter(),
    GopherQualityFilter(),
    C4QualityFilter(filter_no_terminal_punct=False),
    FineWebQualityFilter(),
]


def reason(document: Document, filters: list[Any]) -> str | None:
    for part in filters:
        answer = part.filter(document)
        is_kept, why = answer if isinstance(answer, tuple) else (answer, "")
        if not is_kept:
            return f"{type(part).__name__} {why}".strip()
    return None


def answer_texts(asked: dict[str, Any]) -> dict[str, Any]:
    for part in CHAIN:  # the models are loaded
        part.filter(Document(text="It is one.\nIt is two.", id=""))
    answers, start = {}, time.process_time()
    for name, text in asked["texts"].items():
        document = Document(text=text, id=name)
        answers[name] = {"reason": reason(document, CHAIN), "text": document.text}
    seconds = time.process_time() - start
    for name, answer in answers.items():
        if (answer["reason"] is None) != (name in asked["kept"]):
            text, left = asked["texts"][name], asked["left"][name]
            answer["words"] = split_into_words(text)
            answer["num_words_left"] = len(split_into_words(left))
            answer["num_sentences"] = sum(len(split_into_sentences(line)) for line in left.split("\n"))
    return {"texts": answers, "seconds": seconds}


def answer_addresses(asked: dict[str, Any]) -> dict[str, Any]:
    url_filter = URLFilter(
        use_integrated_lists=False,
        extra_domains=asked["lists"]["hosts"],
        extra_urls=[f"http://{page}" for page in asked["lists"]["pages"]],
        banned_words=asked["lists"]["words"],
        soft_banned_words=asked["lists"]["soft_blocked_words"],
        banned_subwords=asked["lists"]["parts"],
    )
    url_filter.tldextractor = tldextract.TLDExtract(suffix_list_urls=())  # nothing is fetched
    start = time.process_time()
    answers = {
        address: reason(Document(text="", id="", metadata={"url": address}), [url_filter])
        for address in asked["addresses"]
    }
    return {"addresses": answers, "address_seconds": time.process_time() - start}


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    lid.cached_asset_path_or_download = lambda *_, **__: asked["model"]
    Path(sys.argv[2]).write_text(json.dumps(answer_texts(asked) | answer_addresses(asked)), encoding="utf-8")
