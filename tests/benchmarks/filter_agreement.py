"""The same decision as datatrove's filters on the same text, every difference explained, and what both cost.

    python -m tests.benchmarks.filter_agreement

Reads the texts of the extraction gold, web documents, articles and books, and whole pages with their menus, as bad texts.
The peer's chain is FineWeb's, LanguageFilter("en") to FineWebQualityFilter, with the same language model. A difference
is explained where our rules come to the peer's decision with one thing of the peer's put in: its words (spaCy's), its
sentences (spaCy's), or its count of n-grams, in which one that comes once is the most frequent where none repeats. What
is not explained so is said to be so.

Then addresses, with the same lists and words for both: listed hosts and pages, hosts and pages below them, addresses in
capitals, and those of real pages. What differs there on purpose is in tasks/web/blocklists.py.
"""

import gzip
import itertools
import json
import re
import subprocess
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from resiliparse.extract.html2text import extract_plain_text
from warcio.archiveiterator import ArchiveIterator

from tasks.filter import quality
from tasks.filter.attributes import address_rule, attribute_names
from tasks.filter.stage import FilterConfig, broken_rule, limits
from tasks.web import blocklists, language_id
from tasks.web.blocklists import Blocklist
from tasks.web.urls import hosts_above, registered_domain, split_address
from tests.benchmarks.harness import DATATROVE, machine, peer, print_table, say, shared_data

Answer = dict[str, Any]
CONFIG = FilterConfig(pii_kinds=[])
ALLOWED = limits(CONFIG)
THINGS = {"words": "its words", "sentences": "its sentences", "n-grams": "an n-gram that comes once counts"}
NUM_ADDRESSES = 500  # of each kind
MAX_CHARACTERS = 20_000  # of a whole page


def main() -> None:
    data = shared_data()
    by_source = dict(texts_by_source(data))
    texts = {f"{source}/{number}": text for source, found in by_source.items() for number, text in enumerate(found)}
    model = language_id.load_model(language_id.find_model())
    start = time.process_time()
    ours = {name: decide(text, model) for name, text in texts.items()}
    seconds = time.process_time() - start
    with tempfile.TemporaryDirectory() as folder:
        lists = read_lists(data)
        addresses = list(addresses_of(data, lists))
        blocklist = make_blocklist(lists, Path(folder))
        started = time.process_time()
        our_addresses = {address: address_rule(address, CONFIG, blocklist) for _, address in addresses}
        address_seconds = time.process_time() - started
        variants = [variant for _, address in addresses for variant in (address, address.lower())]
        kept = [name for name, answer in ours.items() if answer["reason"] is None]
        theirs = ask(texts, kept, lists, variants, Path(folder))
    tell_texts(by_source, ours, theirs["texts"])
    tell_differences(texts, ours, theirs["texts"])
    tell_addresses(addresses, our_addresses, theirs["addresses"], lists)
    rows = [
        ("texts, language to FineWeb's rules", len(texts), seconds / len(texts), theirs["seconds"] / len(texts)),
        ("addresses", len(addresses), address_seconds / len(addresses), theirs["address_seconds"] / len(variants)),
    ]
    print_table(
        "Cost, CPU ms a document",
        ("what", "documents", "crawl2chat", "datatrove", "ratio"),
        [(what, num, f"{a * 1e3:.3f}", f"{b * 1e3:.3f}", f"{b / a:.1f}") for what, num, a, b in rows],
        f"We measure all of every English text, the peer stops at the first rule that is broken. {machine()}",
    )


# Texts


def texts_by_source(data: Path) -> Iterator[tuple[str, list[str]]]:
    extraction, pretrain = data / "extraction", data / "pretrain"
    yield (
        "wcxb gold",
        [
            page["main_content"]
            for page in lines_of(extraction / "wcxb-dev-sample.gold.jsonl.gz")
            if page["main_content"]
        ],
    )
    truth = json.loads((extraction / "scrapinghub/ground-truth.json").read_text(encoding="utf-8"))
    yield "scrapinghub gold", [page["articleBody"] for page in truth.values()]
    yield "fundus gold", [page["main_content"] for page in lines_of(extraction / "fundus-news.gold.jsonl.gz")]
    yield "c4", [page["text"] for page in lines_of(pretrain / "c4-demo.jsonl.gz")]
    yield "onestop-english", [page["text"] for page in lines_of(pretrain / "onestop-english.jsonl.gz")][:300]
    with gzip.open(pretrain / "wikipedia-demo.txt.gz", "rt", encoding="utf-8") as stream:
        yield "wikipedia", [text[:6000] for text in stream]
    yield "whole pages", list(itertools.islice(whole_pages(extraction / "wcxb-dev-sample.warc.gz"), 200))


def lines_of(path: Path) -> list[Answer]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def whole_pages(path: Path) -> Iterator[str]:
    """The text of pages with everything that stands around it."""
    with path.open("rb") as stream:
        for record in ArchiveIterator(stream):
            if record.rec_type == "response":
                html = record.content_stream().read()[:500_000].decode("utf-8", "replace")
                yield str(extract_plain_text(html))[:MAX_CHARACTERS]


def decide(text: str, model: Any) -> Answer:
    """Our reason, if any, the text as it is left, and what was measured."""
    language, score = language_id.identify(text, model)
    if language != "en":
        return {"reason": f"language/{language}", "text": text, "row": {"language": language}}
    left, attributes = quality.compute_attributes(text, language, CONFIG)
    row = as_row(language, score, attributes)
    return {"reason": broken_rule(row, CONFIG, ALLOWED), "text": left, "row": row}


def as_row(language: str, score: float, attributes: quality.Attributes) -> Answer:
    asked: Answer = {"url_rule": None, "language": language, "language_score": score, "pii": [], "pii_fraction": 0.0}
    return dict.fromkeys(attribute_names(CONFIG)) | asked | attributes


def ask(
    texts: dict[str, str], kept: list[str], lists: dict[str, list[str]], addresses: list[str], folder: Path
) -> Answer:
    left = {name: quality.clean_lines(text, "en", CONFIG) for name, text in texts.items()}
    asked = {
        "texts": texts,
        "kept": kept,
        "left": left,
        "lists": lists,
        "addresses": addresses,
        "model": str(language_id.find_model()),
    }
    (folder / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    script = Path(__file__).with_name("datatrove_filters.py")
    say(f"asking datatrove about {len(texts)} texts and {len(addresses)} addresses")
    subprocess.run([peer(*DATATROVE), script, folder / "asked.json", folder / "answers.json"], check=True)
    answers: Answer = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    return answers


def tell_texts(by_source: dict[str, list[str]], ours: dict[str, Answer], theirs: dict[str, Answer]) -> None:
    def row(source: str, names: Iterable[str]) -> tuple[object, ...]:
        fates = Counter((ours[name]["reason"] is None, theirs[name]["reason"] is None) for name in names)
        num_same_text = sum(
            ours[name]["reason"] is theirs[name]["reason"] is None and ours[name]["text"] == theirs[name]["text"]
            for name in names
        )
        agreement = (fates[True, True] + fates[False, False]) / fates.total()
        counts = fates[True, True], fates[False, False], fates[True, False], fates[False, True]
        return (source, fates.total(), *counts, f"{agreement:.2%}", num_same_text)

    rows = [row(source, [name for name in ours if name.startswith(f"{source}/")]) for source in by_source]
    headings = (
        "texts",
        "documents",
        "both keep",
        "both drop",
        "we keep",
        "they keep",
        "same decision",
        "same text kept",
    )
    print_table("The same decision as datatrove 0.10.1", headings, [*rows, row("all", list(ours))])


def tell_differences(texts: dict[str, str], ours: dict[str, Answer], theirs: dict[str, Answer]) -> None:
    """Every text on which the decisions differ: what we measure of it, what we would with a thing of theirs, and which."""
    rows = []
    for name, text in texts.items():
        if (ours[name]["reason"] is None) != (theirs[name]["reason"] is None):
            cause, row, reason = explain(text, ours[name], theirs[name])
            attribute = (ours[name]["reason"] or reason or "").removeprefix("quality/")
            before, after = (found.get(attribute) for found in (ours[name]["row"], row))
            values = ["–" if value is None else f"{value:.4g}" for value in (before, after)]
            rows.append(
                (name, ours[name]["reason"] or "kept", theirs[name]["reason"] or "kept", attribute, *values, cause)
            )
    causes = Counter(row[-1] for row in rows)
    headings = ("document", "crawl2chat", "datatrove", "measure", "ours", "with theirs", "cause")
    print_table("Every difference", headings, rows)
    print_table("Causes of the differences", ("cause", "documents"), causes.most_common())


def explain(text: str, ours: Answer, theirs: Answer) -> tuple[str, Answer, str | None]:
    """The first of their things, or the fewest together, with which we decide as they do: what it is, our row then, our reason."""
    if "language_score" not in ours["row"]:
        return "not explained", ours["row"], ours["reason"]
    for num in range(1, len(THINGS) + 1):
        for things in itertools.combinations(THINGS, num):
            row = measured_with(text, ours["row"], theirs, things)
            reason = broken_rule(row, CONFIG, ALLOWED)
            if (reason is None) == (theirs["reason"] is None):
                return " and ".join(THINGS[thing] for thing in things), row, reason
    return "not explained", ours["row"], ours["reason"]


def measured_with(text: str, row: Answer, theirs: Answer, things: Iterable[str]) -> Answer:
    """Our measures of `text` with their words, sentences or way to count n-grams."""
    words = theirs["words"] if "words" in things else quality.split_words(text)
    left, num_removed, c4 = quality.clean_and_count(text, "en", CONFIG)
    num_words_left = theirs["num_words_left"] if "words" in things else len(words) - num_removed
    attributes = quality.repetition(text, words) | c4 | quality.fineweb_quality(left, num_words_left)
    attributes |= quality.gopher_quality(text, words, "en", language_id.STOP_WORDS["en"])
    if "sentences" in things:
        attributes["c4_sentences"] = theirs["num_sentences"]
    if "n-grams" in things:
        for n in (2, 3, 4):
            grams = Counter(" ".join(words[start : start + n]) for start in range(len(words) - n + 1))
            [(gram, num)] = grams.most_common(1) or [("", 0)]
            attributes[f"gopher_top_{n}_gram_fraction"] = len(gram) * num / max(len(text), 1)
    return as_row("en", row["language_score"], attributes)


# Addresses


def read_lists(data: Path) -> dict[str, list[str]]:
    """Hosts and pages of UT1's lists, and the words of our defaults."""
    with tarfile.open(data / "url/ut1-blacklists.tar.gz") as archive:
        found: dict[str, list[str]] = {"domains": [], "urls": []}
        for member in archive:
            name = Path(member.name).name
            if name in found and (stream := archive.extractfile(member)):
                found[name] += stream.read().decode("utf-8", "replace").lower().split()
    return {
        "hosts": found["domains"],
        "pages": [page.rstrip("/") for page in found["urls"]],
        "words": CONFIG.blocked_words,
        "soft_blocked_words": CONFIG.soft_blocked_words,
        "parts": CONFIG.blocked_substrings,
    }


def make_blocklist(lists: dict[str, list[str]], folder: Path) -> Blocklist:
    files = {"domains": lists["hosts"], "urls": lists["pages"]}
    (folder / "listed").mkdir()
    for name, entries in files.items():
        (folder / "listed" / name).write_text("\n".join(entries), encoding="utf-8")
    by_category = {"listed": [folder / "listed" / name for name in files]}
    blocklists.write_keys(by_category, folder / "keys.npy")
    return Blocklist(blocklists.load_keys(folder / "keys.npy"), ("listed",))


def addresses_of(data: Path, lists: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """(kind, address)."""
    hosts = [host for host in lists["hosts"] if re.fullmatch(r"[a-z0-9.-]+\.[a-z]{2,}", host)]
    pages = [page for page in lists["pages"] if re.fullmatch(r"[a-z0-9.-]+\.[a-z]{2,}/[\w/.-]+", page)]
    for host in hosts[:: max(len(hosts) // NUM_ADDRESSES, 1)][:NUM_ADDRESSES]:
        yield "listed hosts", f"http://{host}/page.html"
        yield "hosts below them", f"http://www.{host}/"
        yield "listed hosts in capitals", f"http://{host.upper()}/"
    for page in pages[:: max(len(pages) // NUM_ADDRESSES, 1)][:NUM_ADDRESSES]:
        yield "listed pages", f"http://{page}"
        yield "listed pages by https", f"https://{page}"
    words = itertools.product((*lists["words"], *lists["soft_blocked_words"], *lists["parts"]), repeat=2)
    for first, second in words:
        yield "words", f"http://example.com/{first}-{second}.html"
    for file in ("wcxb-dev-sample", "trafilatura-eval", "fundus-news"):
        for record in lines_of(data / f"extraction/{file}.gold.jsonl.gz"):
            yield "real pages", record["url"]


def tell_addresses(
    addresses: list[tuple[str, str]],
    ours: dict[str, str | None],
    theirs: dict[str, str | None],
    lists: dict[str, list[str]],
) -> None:
    hosts = set(lists["hosts"])
    rows, causes = [], Counter[tuple[str, str]]()
    for kind in dict.fromkeys(kind for kind, _ in addresses):
        these = [address for found, address in addresses if found == kind]
        differing = [address for address in these if (ours[address] is None) != (theirs[address] is None)]
        causes.update((kind, address_cause(address, ours, theirs, hosts)) for address in differing)
        blocked = (
            sum(ours[address] is not None for address in these),
            sum(theirs[address] is not None for address in these),
        )
        rows.append((kind, len(these), *blocked, f"{1 - len(differing) / len(these):.2%}"))
    print_table(
        "Addresses: the same decision", ("addresses", "documents", "we drop", "they drop", "same decision"), rows
    )
    print_table(
        "Causes of the differences",
        ("addresses", "cause", "documents"),
        [(*cause, num) for cause, num in causes.most_common()],
    )


def address_cause(address: str, ours: dict[str, str | None], theirs: dict[str, str | None], hosts: set[str]) -> str:
    parts = split_address(address)
    if ours[address] is None or parts is None:
        return "not explained"
    if theirs[address.lower()] is not None:
        return "they compare with capitals"
    host = parts.hostname or ""
    if not registered_domain(host):
        return "they know no host without a public suffix"
    if host not in hosts and not hosts.isdisjoint(hosts_above(host)):
        return "they do not block hosts below a listed one"
    return "they compare the whole address, as written" if ours[address] == "listed" else "not explained"


if __name__ == "__main__":
    main()
