"""The report card: what it shows, what it leaves out, and its words."""

import copy
import re
from typing import Any

import pytest

from tasks.evaluate.report_card import render
from tasks.shares import share

# Words of an older private vocabulary, which no reader should meet.
RETIRED_WORDS = re.compile(
    r"\b(told|tell|tells|telling|goes? on|held against|foretells?|foretold|judged?|judges|a look|sieve|trouble|anew|beside|what there is"
    r"|is none where|where there is none|of its own|for the eye|in hand|quicken|in its own words|what came of|what becomes of)\b",
    re.IGNORECASE,
)


def documents(stage: str, num_in: int, num_kept: int, **dropped: int) -> dict[str, Any]:
    reasons = [{"reason": reason, "documents": num, "text_bytes": 10 * num} for reason, num in dropped.items()]
    texts = {"text_bytes_in": 100 * num_in, "text_bytes": 100 * num_kept}
    return {"stage": stage, "documents_in": num_in, "documents": num_kept, **texts, "dropped": reasons}


CHAT = {
    "seen_wording_accuracy": 0.9,
    "heldout_wording_accuracy": 0.7,
    "heldout_fact_accuracy": 0.1,
    "other_accuracy": 0.5,
    "unknown_accuracy": 0.6,
    "false_refusal_fraction": 0.05,
    "finished_fraction": 1.0,
    "tokens_mean": 9.25,
}
FIGURES: dict[str, Any] = {
    "documents": [documents("ingest", 2000, 1500, status=300, mime=200), documents("dedup", 1500, 1200, duplicate=300)],
    "attributes": {
        "histograms": {"language_score": {"edges": [0.0, 0.5, 1.0], "counts": [0, 9], "min": 0.65, "max": None}},
        "hosts": [["a.org", 1000, 900]],
        "languages": [["en", 1500, 1400]],
    },
    "truth": {
        "families": {"keep": {"expected": 1200, "found": 1190, "right": 1180, "precision": 0.9916, "recall": 0.9833}},
        "redaction": {"pii": 20, "pii_redacted": 19, "traps": 5, "traps_kept": 5},
    },
    "language": {
        "tokenizer/vocab_size": 4096,
        "tokens/bytes_per_token": 4.0,
        "tokens/train/tokens": 400_000,
        "tokens/train/text_bytes": 1_600_000,
        "tokens/bigram/bits_per_byte": 2.5,
        "base/parameters": 1_300_000,
        "base/tokens": 2_000_000,
        "base/validation/bits_per_byte": 2.0,
    },
    "base": {"layout": "Qwen3", "initial_model": ""},
    "facts": [
        {
            "facts": "held out",
            "mentions": "50 or more",
            "accuracy": {
                "base, ranking": share([True] * 60 + [False] * 40),
                "policy": share([True] * 81 + [False] * 19),
            },
        },
        {"facts": "taught", "mentions": "1", "accuracy": {"assistant": share([False] * 30), "policy": share([True])}},
    ],
    "chat": {"assistant": CHAT, "policy": {**CHAT, "heldout_wording_accuracy": 0.72}},
    "reward": {
        "pairs_calibration_error": 0.031,
        "pairs_length_correlation": -0.25,
        "pair_accuracy/all": 0.85,
        "pairs/all": 40.0,
        "pair_accuracy/<b>*bold*": 0.5,
        "pairs/<b>*bold*": 10.0,
        "before/reward_mean": 2.26,
        "validation/reward_mean": 2.54,
        "before/completion_tokens_mean": 11.83,
        "validation/completion_tokens_mean": 12.09,
    },
    "completions": [{"opening": "Once *upon* a time", "text": "there was\n# a <b>fox"}],
    "examples": [{"question": "Who?", "reply": "Ada.", "is_correct": True, "split": "heldout_wording"}],
    "cost": [
        {"stage": "ingest", "wall_seconds": 5.2, "bytes": 1_100_000},
        {"stage": "sft", "wall_seconds": 54, "bytes": 5e6},
    ],
}


def without(*names: str, **replaced: Any) -> dict[str, Any]:
    figures = copy.deepcopy(FIGURES)
    for name in names:
        figures[name] = type(figures[name])()
    return figures | replaced


@pytest.mark.parametrize(
    "line",
    [
        "| Documents kept | 1,200 of 2,000 (60.0%), 0.1 MB of text |",
        "| Base model on held-out text | 2.000 bits per byte |",
        "| Policy: accuracy, held-out wording | 72.0% (SFT model: 70.0%) |",
        "| Reward model: accuracy on held-out pairs | 85.0% |",
        "| RLHF: mean reward on held-out prompts | 2.26 before, 2.54 after |",
        "| Wall time of all stages | 59 s |",
        "| ingest | 2,000 | 1,500 | 75.0% | 0.2 MB | 0.1 MB | 37,500 | status 300, mime 200 |",
        "| duplicate | dedup | 300 | 20.0% | 3.0 kB |",
        "| language_score | 0.65 |  | 1 | `·█` |",
        "Most frequent hosts, in documents: a.org 1,000 (900 kept).",
        "| keep | 1,200 | 1,190 | 99.2% | 98.3% |",
        "Personal data redacted in kept pages: 19 of 20 strings. Look-alikes kept: 5 of 5 strings.",
        "| Base model | 1,300,000 parameters, trained on 2,000,000 tokens |",
        "| Bigram model on held-out text | 2.500 bits per byte; the base model is 20.0% below |",
        "| Facts | Mentions | base, ranking | policy | SFT model |",
        "| held out | 50 or more | 60.0% (50.2 to 69.1, n 100) | 81.0% (72.2 to 87.5, n 100) | – |",
        "| False refusals, answerable questions | 5.0% | 5.0% |",
        "| Mean reply length (tokens) | 9.2 | 9.2 |",
        "| Completion length (tokens) | 11.83 | 12.09 |",
        "It cannot distinguish good from bad in: \\<b\\>\\*bold\\* (50.0%). Expected calibration error 3.1%; correlation of the score with the length -0.25.",
        "| all | 85.0% (70.9 to 92.9, n 40) |",
        r"> **Once \*upon\* a time** there was \# a \<b\>fox",
        "> **Who?** Ada. *(correct, heldout wording)*",
        "| all | 59 | 6.1 MB |",
    ],
)
def test_card_shows_figures_with_their_units(line: str) -> None:
    assert line in render(FIGURES).splitlines()


def test_card_has_no_retired_words() -> None:
    assert not RETIRED_WORDS.findall(render(FIGURES))


def test_card_tables_are_well_formed() -> None:
    tables = re.findall(r"(?:^\|.*\n)+", render(FIGURES), re.MULTILINE)
    assert len(tables) == 11
    for found in tables:
        assert len({line.count(" | ") for line in found.splitlines()}) == 1, found


@pytest.mark.parametrize(
    ("figures", "heading"),
    [
        (without("truth"), "## Precision and recall"),
        (without("attributes"), "## Attributes"),
        (without("facts"), "## Accuracy by number of mentions"),
        (without("reward"), "## Reward model"),
        (without("completions", "examples"), "## Samples"),
    ],
)
def test_card_leaves_out_sections_without_data(figures: dict[str, Any], heading: str) -> None:
    assert heading in render(FIGURES)
    assert heading not in render(figures)


def test_card_leaves_out_rows_without_data() -> None:
    language = {name: value for name, value in FIGURES["language"].items() if not name.endswith("bits_per_byte")}
    bare = {"false_refusal_fraction": 0.0, "finished_fraction": 1.0, "tokens_mean": 3.0}
    card = render(
        without(language=language, chat={"assistant": bare, "policy": bare}, reward={"pair_accuracy/all": 1.0})
    )
    assert "bits per byte" not in card
    assert "Accuracy, " not in card
    assert "Mean reward" not in card


@pytest.mark.parametrize(
    ("num_tokens", "expected"),
    [
        (0, "imported from org/x (Llama layout), not trained further"),
        (5000, "imported from org/x (Llama layout), trained further on 5,000 tokens"),
    ],
)
def test_card_names_the_origin_of_an_imported_base_model(num_tokens: int, expected: str) -> None:
    language = FIGURES["language"] | {"base/tokens": num_tokens}
    card = render(without(base={"layout": "Llama", "initial_model": "org/x"}, language=language))
    assert f"| Base model | 1,300,000 parameters, {expected} |" in card.splitlines()
