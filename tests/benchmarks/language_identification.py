"""How well languages are identified, and what the threshold of 0.65 keeps.

    python -m tests.benchmarks.language_identification

Reads single sentences, which are shorter than any document that is kept, the same four at a time, and the declaration of
human rights by paragraph and whole, with that of a dialect under its language. Counted are the languages that the model
knows. Right is the language's own code; kept are texts of which the model is surer than the threshold.
"""

import gzip
import json
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from tasks.filter.stage import FilterConfig
from tasks.web import language_id
from tests.benchmarks.harness import machine, print_table, shared_data

Texts = dict[str, list[str]]  # by language
Answers = dict[str, list[tuple[str, float]]]  # by the right language: the language that is reported, and the score
THRESHOLD = FilterConfig().language_threshold
USUAL = ["en", "de", "fr", "es", "it", "pt", "nl", "pl", "ru", "ar", "ja", "zh"]
SAME = {"nb": "no", "zlm": "ms"}  # codes of the data that the model has another name for


def main() -> None:
    model = language_id.load_model(language_id.find_model())
    start = time.process_time()
    answers = {name: answer(texts, model) for name, texts in texts_by_set(shared_data() / "langid").items()}
    seconds = time.process_time() - start
    headings = ("texts", "right", f"kept at {THRESHOLD}", "right and kept", "right of the kept")
    rows = []
    for name, found in answers.items():
        for which, of in ((list(found), f"{len(found)} languages"), (USUAL, "the usual 12")):
            rows.append((f"{name}, {of}", *shares(found, which)))
    num = sum(len(printed) for found in answers.values() for printed in found.values())
    print_table(
        "Language identification", ("set", *headings), rows, f"{seconds / num * 1e6:.0f} µs of CPU a text. {machine()}"
    )
    found = answers["four sentences"]
    print_table(
        "The usual twelve, four sentences", ("language", *headings), [(name, *shares(found, [name])) for name in USUAL]
    )
    hardest = sorted(found, key=lambda name: num_right(found, [name]) / len(found[name]))[:12]
    rows = [
        (
            name,
            *shares(found, [name]),
            Counter(printed for printed, _ in found[name] if printed != name).most_common(1)[0][0],
        )
        for name in hardest
    ]
    print_table("The hardest twelve, four sentences", ("language", *headings, "taken for"), rows)


def texts_by_set(folder: Path) -> dict[str, Texts]:
    sentences: Texts = defaultdict(list)
    for sentence in lines_of(folder / "lingua-sentences.jsonl.gz"):
        sentences[code(sentence["lang"])].append(sentence["text"])
    paragraphs: Texts = defaultdict(list)
    declarations: Texts = defaultdict(list)
    for declaration in lines_of(folder / "udhr.jsonl.gz"):
        paragraphs[code(declaration["lang"])] += declaration["paragraphs"]
        declarations[code(declaration["lang"])].append("\n".join(declaration["paragraphs"]))
    fours = {
        name: ["\n".join(texts[start : start + 4]) for start in range(0, len(texts), 4)]
        for name, texts in sentences.items()
    }
    return {
        "single sentences": sentences,
        "four sentences": fours,
        "paragraphs": paragraphs,
        "whole declarations": declarations,
    }


def lines_of(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def code(language: str) -> str:
    """The model's code for a language of the data: without its script and region."""
    plain = language.partition("-")[0]
    return SAME.get(plain, plain)


def answer(texts: Texts, model: Any) -> Answers:
    """What is reported for the texts in languages that the model knows."""
    known = {label.removeprefix(language_id.LABEL) for label in model.get_labels()}
    return {
        name: [language_id.identify(text, model) for text in found] for name, found in texts.items() if name in known
    }


def num_right(answers: Answers, which: list[str]) -> int:
    return sum(printed == name for name in which for printed, _ in answers[name])


def shares(answers: Answers, which: list[str]) -> tuple[object, ...]:
    """Of the texts in some languages: how many, the right ones, the kept ones, both, and the right ones of the kept."""
    printed = [(found == name, score > THRESHOLD) for name in which for found, score in answers[name]]
    num, kept = len(printed), sum(is_kept for _, is_kept in printed)
    both = sum(is_right and is_kept for is_right, is_kept in printed)
    fractions = num_right(answers, which) / num, kept / num, both / num, both / max(kept, 1)
    return (num, *(f"{fraction:.1%}" for fraction in fractions))


if __name__ == "__main__":
    main()
