"""How well the extractors find the main text: words against the gold of four collections, next to trafilatura, resiliparse and jusText alone.

    python -m tests.benchmarks.extraction_quality [--all]      # --all: every page; else every fourth of the two large collections

wcxb, scrapinghub and cleanportaleval give the text: precision, recall and F1 of its words, as a multiset, averaged over pages.
trafilatura gives pieces of text that must and that must not be there, counted over all pages.
"""

import gzip
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import justext
import trafilatura
from resiliparse.extract.html2text import extract_plain_text

from tasks.ingest.charset import decode
from tasks.ingest.dropped import Dropped
from tasks.ingest.extractors import Extractor, extract
from tasks.ingest.http_response import body_of
from tasks.ingest.trafilatura_patch import patch_trafilatura
from tasks.ingest.warc import HEADER_BYTES, Record, read_records
from tests.benchmarks.harness import machine, print_table, say, shared_data

ENGLISH = justext.get_stoplist("English")
MAX_BYTES = 8 * 2**20
WORD = re.compile(r"\w+")
TAG = re.compile(r"</?\w+>")
URL_LINE = re.compile(r"^URL:.*$", re.MULTILINE)


class Gold(NamedTuple):
    """A page and its main text; or pieces of it that must be found, and pieces of the rest that must not."""

    html: str
    text: str = ""
    wanted: Sequence[str] = ()
    unwanted: Sequence[str] = ()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def pages(path: Path) -> dict[str, str]:
    """HTML by URL."""
    found = {}
    with path.open("rb") as source:
        for record in read_records(source, MAX_BYTES + HEADER_BYTES):
            if isinstance(record, Record) and record.type == "response":
                found[record.url] = decode(*body_of(record.block or b"", MAX_BYTES))
    return found


def collections(folder: Path, step: int) -> dict[str, list[Gold]]:
    wcxb = pages(folder / "wcxb-dev-sample.warc.gz")
    snippets = pages(folder / "trafilatura-eval.warc.gz")
    articles = json.loads((folder / "scrapinghub" / "ground-truth.json").read_text())
    return {
        "wcxb": [
            Gold(wcxb[line["url"]], line["main_content"] or "")
            for line in lines(folder / "wcxb-dev-sample.gold.jsonl.gz")[::step]
        ],
        "scrapinghub": [
            Gold(gzip.decompress((folder / "scrapinghub" / "html" / f"{name}.html.gz").read_bytes()).decode(), article["articleBody"])
            for name, article in articles.items()
        ],
        "cleanportaleval": [
            Gold(line["html"], TAG.sub(" ", URL_LINE.sub("", line["gold_tagged"])))
            for line in lines(folder / "cleanportaleval.jsonl.gz")
        ],
        "trafilatura": [
            Gold(snippets[line["url"]], wanted=line["with"], unwanted=line["without"])
            for line in lines(folder / "trafilatura-eval.gold.jsonl.gz")[::step]
        ],
    }  # fmt: skip


def bare_trafilatura(*, is_fast: bool = False, is_precise: bool = True) -> Callable[[str], str]:
    return lambda html: (
        trafilatura.extract(html, favor_precision=is_precise, include_comments=False, fast=is_fast) or ""
    )


def bare_resiliparse(html: str) -> str:
    return str(extract_plain_text(html, main_content=True))


def bare_justext(html: str) -> str:
    return (
        "\n".join(part.text for part in justext.justext(html, ENGLISH) if not part.is_boilerplate)
        if html.strip()
        else ""
    )


def ours(extractor: Extractor) -> Callable[[str], str]:
    def text(html: str) -> str:
        try:
            return extract(html, extractor)
        except Dropped:
            return ""

    return text


def scores(texts: Sequence[str], golds: Sequence[Gold]) -> tuple[float, float, float]:
    """Precision, recall and F1."""
    if golds[0].wanted:
        return counted(texts, golds)
    each = [of_words(text, gold.text) for text, gold in zip(texts, golds, strict=True)]
    precision, recall, f1 = (sum(values) / len(each) for values in zip(*each, strict=True))
    return precision, recall, f1


def counted(texts: Sequence[str], golds: Sequence[Gold]) -> tuple[float, float, float]:
    plain = [spaced(text) for text in texts]
    hits = sum(spaced(piece) in text for text, gold in zip(plain, golds, strict=True) for piece in gold.wanted)
    wrong = sum(spaced(piece) in text for text, gold in zip(plain, golds, strict=True) for piece in gold.unwanted)
    return ratios(hits, hits + wrong, sum(len(gold.wanted) for gold in golds))


def of_words(text: str, gold: str) -> tuple[float, float, float]:
    found, expected = (Counter(WORD.findall(words.lower())) for words in (text, gold))
    return ratios((found & expected).total(), found.total(), expected.total())


def ratios(hits: int, num_found: int, num_expected: int) -> tuple[float, float, float]:
    precision = hits / num_found if num_found else float(not num_expected)
    recall = hits / num_expected if num_expected else float(not num_found)
    return precision, recall, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def spaced(text: str) -> str:
    return " ".join(text.split())


def measure(name: str, text_of: Callable[[str], str], golds: dict[str, list[Gold]]) -> Iterable[list[object]]:
    say(name)
    for collection, those in golds.items():
        start = time.process_time()
        texts = [text_of(gold.html) for gold in those]
        seconds = time.process_time() - start
        figures = [f"{value:.3f}" for value in scores(texts, those)]
        yield [name, collection, *figures, texts.count(""), f"{len(those) / seconds:.0f}"]


def main() -> None:
    golds = collections(shared_data() / "extraction", 1 if "--all" in sys.argv else 4)
    bare = {
        "trafilatura alone, precision": bare_trafilatura(),
        "trafilatura alone, precision, fast": bare_trafilatura(is_fast=True),
        "trafilatura alone, balanced": bare_trafilatura(is_precise=False),
        "resiliparse alone": bare_resiliparse,
        "jusText alone": bare_justext,
    }
    rows = [row for name, text_of in bare.items() for row in measure(name, text_of, golds)]
    patch_trafilatura()
    for extractor in get_args(Extractor):
        rows += measure(f"our {extractor}", ours(extractor), golds)
    rows.sort(key=lambda row: list(golds).index(str(row[1])))
    print_table(
        "Main text against the gold",
        ["Extractor", "Collection", "Precision", "Recall", "F1", "Empty", "Pages/s"],
        rows,
        f"{', '.join(f'{name} {len(those)} pages' for name, those in golds.items())}. {machine()}.",
    )


if __name__ == "__main__":
    main()
