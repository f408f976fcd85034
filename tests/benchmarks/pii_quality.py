"""Precision and recall of what is found as personal data, by kind, next to the patterns that people write and datatrove's.

    python -m tests.benchmarks.pii_quality

On sentences made with labels (Presidio's, NeMo Curator's), on libphonenumber's example numbers and isemail's vectors of addresses,
on text that has next to no personal data, where nearly every find is wrong, and on pages as they are. A find is right where it
overlaps a label of its kind, a label is found where a find overlaps it.

The rules were written with these sets at hand: on others they will be less good. Presidio's street addresses are labelled in parts
(a house number, a door, a postcode), of thirty countries, with towns of others: what a rule for addresses cannot know. Private IP
addresses in NeMo's are not looked for, and not counted.
"""

import gzip
import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from tasks.pii.detect import FINDERS, Span, find
from tests.benchmarks.harness import DATATROVE, machine, peer, print_table, say, shared_data

Text = tuple[str, list[Span]]
Finder = Callable[[list[str]], list[list[Span]]]

PRESIDIO = {
    "EMAIL_ADDRESS": "email",
    "IP_ADDRESS": "ip",
    "CREDIT_CARD": "card",
    "US_SSN": "ssn",
    "PHONE_NUMBER": "phone",
    "IBAN_CODE": "iban",
    "STREET_ADDRESS": "address",
    "ADDRESS": "address",
    "US_DRIVER_LICENSE": "national_number",
}
NEMO = {"email": "email", "credit_card_number": "card", "ssn": "ssn", "phone_number": "phone", "address": "address"}
PATTERNS = {
    "email": r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}\b",
    "ip": r"\b(?:\d{1,3}\.){3}\d{1,3}\b",
    "card": r"\b(?:\d[ -]?){12,18}\d\b",
    "ssn": r"\b\d{3}-\d{2}-\d{4}\b",
    "iban": r"\b[A-Z]{2}\d{2}[A-Z0-9]{11,30}\b",
    "phone": r"(?:\+?\d{1,3}[ .-]?)?\(?\d{3}\)?[ .-]?\d{3}[ .-]?\d{4}\b",
    "address": r"\b\d+ (?:[A-Z]\w+ ){1,3}(?:Street|St|Avenue|Ave|Road|Rd|Drive|Dr|Lane|Ln|Boulevard|Blvd)\b",
}
PEER = """
import json, sys
from datatrove.pipeline.formatters.pii import PIIFormatter
pii, texts = PIIFormatter(), json.load(sys.stdin)
spans = lambda kind, part, text: [
    (*match.span(), kind) for match in part.regex.finditer(text) if kind == "email" or part.validator(match[0])
]
print(json.dumps([spans("email", pii.emails_replacer, text) + spans("ip", pii.ip_replacer, text) for text in texts]))
"""


def ours(texts: list[str]) -> list[list[Span]]:
    return [find(text, list(FINDERS)) for text in texts]


def patterns(texts: list[str]) -> list[list[Span]]:
    compiled = {kind: re.compile(pattern) for kind, pattern in PATTERNS.items()}
    return [[Span(*match.span(), kind) for kind, p in compiled.items() for match in p.finditer(text)] for text in texts]


def datatrove(texts: list[str]) -> list[list[Span]]:
    command = [peer(*DATATROVE), "-c", PEER]
    done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=True)
    return [[Span(*span) for span in spans] for spans in json.loads(done.stdout.splitlines()[-1])]


FINDER: dict[str, Finder] = {"crawl2chat": ours, "bare patterns": patterns, "datatrove": datatrove}


def presidio(folder: Path) -> list[Text]:
    with gzip.open(folder / "presidio-synth_dataset_v2.json.gz", "rt", encoding="utf-8") as stream:
        sentences = json.load(stream)
    sentences += json.loads((folder / "presidio-generated_small.json").read_text(encoding="utf-8"))
    return [
        (
            sentence["full_text"],
            [
                Span(span["start_position"], span["end_position"], PRESIDIO[span["entity_type"]])
                for span in sentence["spans"]
                if span["entity_type"] in PRESIDIO
            ],
        )
        for sentence in sentences
    ]


def nemo(folder: Path) -> list[Text]:
    texts = []
    for line in read_lines(folder / "nemo-curator-pii.jsonl.gz"):
        spans, text, last = [], "", 0
        for tag in re.finditer(r"<(\w+)>(.*?)</\1>", line["tagged"]):
            text += line["tagged"][last : tag.start()]
            if tag[1] in NEMO:
                spans.append(Span(len(text), len(text) + len(tag[2]), NEMO[tag[1]]))
            text, last = text + tag[2], tag.end()
        texts.append((text + line["tagged"][last:], spans))
    return texts


def read_lines(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def overlap(one: Span, others: Iterable[Span]) -> bool:
    return any(one.kind == other.kind and one.start < other.end and other.start < one.end for other in others)


def rates(texts: list[Text], finder: Finder) -> dict[str, tuple[str, str]]:
    """Precision and recall by kind, as they are reported."""
    labels, hits, finds, right = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for (_, gold), found in zip(texts, finder([text for text, _ in texts]), strict=True):
        labels.update(span.kind for span in gold)
        hits.update(span.kind for span in gold if overlap(span, found))
        finds.update(span.kind for span in found)
        right.update(span.kind for span in found if overlap(span, gold))
    return {kind: (share(right[kind], finds[kind]), share(hits[kind], labels[kind])) for kind in labels}


def share(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "none"


def tell_sentences(title: str, texts: list[Text]) -> None:
    labels = Counter(span.kind for _, gold in texts for span in gold)
    printed = {name: rates(texts, finder) for name, finder in FINDER.items()}
    headings = ["kind", "labels"] + [f"{name}: {what}" for name in FINDER for what in ("precision", "recall")]
    rows = [
        (kind, num, *(value for name in FINDER for value in printed[name][kind])) for kind, num in labels.most_common()
    ]
    print_table(title, headings, rows)


def tell_phones(folder: Path) -> None:
    """Recall of example numbers by how they stand in the text."""
    numbers = read_lines(folder / "phone-examples.jsonl.gz")
    forms = {
        "as +1 212…": "write to {e164} or",
        'national, after "Tel.:"': "Tel.: {national} or",
        "national, without a word": "the {national} or",
    }
    rows = []
    for name, form in forms.items():
        texts = [form.format(**number) for number in numbers]
        rows.append(
            (name, len(texts), *(share(count(finder(texts), "phone"), len(texts)) for finder in (ours, patterns)))
        )
    print_table("Phone numbers of all countries: recall", ["form", "numbers", "crawl2chat", "bare patterns"], rows)


def tell_emails(folder: Path) -> None:
    """How many of the addresses of each class are found as a whole."""
    addresses = read_lines(folder / "isemail.jsonl.gz")
    rows = []
    for category in sorted({address["category"] for address in addresses}):
        texts = [address["address"] for address in addresses if address["category"] == category]
        whole = (
            sum(Span(0, len(text), "email") in spans for text, spans in zip(texts, finder(texts), strict=True))
            for finder in FINDER.values()
        )
        rows.append((category, len(texts), *whole))
    print_table("E-mail addresses of isemail, found whole, by class", ["class", "addresses", *FINDER], rows)


def count(found: list[list[Span]], kind: str) -> int:
    """How many texts have a find of `kind`."""
    return sum(any(span.kind == kind for span in spans) for spans in found)


def prose(folder: Path) -> list[str]:
    texts = [line["text"] for line in read_lines(folder / "english-novels.jsonl.gz")]
    wikipedia = (folder / name for name in ("wikitext2-train-excerpt.txt.gz", "wikipedia-demo.txt.gz"))
    return texts + [gzip.decompress(path.read_bytes()).decode() for path in wikipedia]


def pages(folder: Path) -> list[str]:
    return [line["main_content"] or "" for line in read_lines(folder / "wcxb-dev-sample.gold.jsonl.gz")]


def tell_finds(title: str, texts: list[str]) -> None:
    """Finds by kind, and what looking costs."""
    num_characters = sum(map(len, texts))
    finds, seconds = {}, {}
    for name, finder in (("crawl2chat", ours), ("bare patterns", patterns)):
        start = time.process_time()
        found = finder(texts)
        seconds[name] = time.process_time() - start
        finds[name] = Counter(span.kind for spans in found for span in spans)
    finds["datatrove"] = Counter(span.kind for spans in datatrove(texts) for span in spans)
    rows: list[tuple[object, ...]] = [
        (kind, *(f"{finds[name][kind] / num_characters * 1e6:.2f}" for name in FINDER)) for kind in FINDERS
    ]
    costs = [f"{value / num_characters * 5000 * 1e6:,.0f}" for value in seconds.values()]
    rows.append(("CPU µs per 5,000 characters", *costs, "not measured"))
    print_table(title, ["kind", *FINDER], rows, f"{num_characters / 1e6:.1f} million characters.")


def main() -> None:
    folder = shared_data()
    print(f"{machine()}\n")
    say("sentences")
    tell_sentences("Presidio's sentences", presidio(folder / "pii"))
    tell_sentences("NeMo Curator's lines", nemo(folder / "pii"))
    tell_phones(folder / "pii")
    tell_emails(folder / "pii")
    say("prose and pages")
    tell_finds("Finds per million characters of novels and Wikipedia, nearly all wrong", prose(folder / "pretrain"))
    tell_finds("Finds per million characters of web pages, main content", pages(folder / "extraction"))


if __name__ == "__main__":
    main()
