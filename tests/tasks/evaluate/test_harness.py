"""Tasks for the lm-evaluation-harness: records, table, and the harness itself where it is installed."""

import importlib.util
from pathlib import Path

import pytest

from model.errors import UserError
from model.network.huggingface import load_transformer
from tasks.evaluate.eval_tasks import EvalTask, Item, LoadedTask
from tasks.evaluate.harness import document_of, exact_match, harness_table, make_task, run_harness
from tasks.evaluate.item_scores import choose, score_task
from tasks.evaluate.lm_eval_model import lm_eval_model
from tests.support.bigram_model import bigram_logprobs, bits_per_byte, pair_nats, write_bigram_model
from tests.support.tiny_models import TEXT, write_model, write_tokenizer

HAS_HARNESS = importlib.util.find_spec("lm_eval") is not None
ITEMS = [Item([("the mayor of", " Orn"), ("the mayor of", " it")], gold) for gold in (0, 1, 1)]


def loaded(kind: str, items: list[Item], name: str = "t") -> LoadedTask:
    task = EvalTask(name=name, format="choices", licence="CC-BY-4.0")
    return LoadedTask(task, kind, items, "a" * 64)  # type: ignore[arg-type]


def test_item_becomes_a_record_of_the_harness() -> None:
    assert document_of(ITEMS[1], "choice") == {"context": "the mayor of", "choices": [" Orn", " it"], "target": 1}
    several = Item([("Ada", " won"), ("Bo", " won")], 1)
    assert document_of(several, "choice") == {"context": 1, "choices": ["Ada", "Bo"], "target": " won"}
    assert document_of(Item([("a", " b")]), "exact") == {"context": "a", "target": " b"}


def test_exact_match_ignores_spaces_around_the_answer() -> None:
    assert exact_match({"target": " 4"}, ["4 "]) == {"exact_match": 1.0}
    assert exact_match({"target": " 4"}, ["44"]) == {"exact_match": 0.0}


def test_table_has_standard_errors_and_sources() -> None:
    row = {"task": "t", "metric": "acc", "value": 0.5, "stderr": 0.1, "num": 1200, "licence": "CC|0", "sha256": "ab"}
    text = harness_table({"base": [row], "policy": [row | {"stderr": None}]})
    assert "| t, acc | 1,200 | 0.5000 ± 0.1000 | 0.5000 |" in text
    assert "- t: CC\\|0, sha256 `ab`" in text


@pytest.mark.skipif(HAS_HARNESS, reason="the lm-evaluation-harness is installed")
def test_without_the_harness_the_remedy_is_named() -> None:
    for make in (lambda: make_task(loaded("choice", ITEMS)), lambda: lm_eval_model(None, None, 64)):  # type: ignore[arg-type]
        with pytest.raises(UserError, match="pip install 'crawl2chat\\[eval\\]'"):
            make()


@pytest.mark.skipif(
    not HAS_HARNESS, reason="the lm-evaluation-harness is not installed: pip install 'crawl2chat[eval]'"
)
def test_harness_scores_our_model_as_we_do(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path)
    write_model(tmp_path, tokenizer.vocab_size)
    model = load_transformer(tmp_path)
    tasks = [
        loaded("choice", ITEMS, "chosen"),
        loaded("choice", [Item([("the mayor", " it"), ("blue", " it")], 0)], "schema"),
        loaded("greedy", [Item([("the", " mayor")])], "greedy"),
        loaded("exact", [Item([("the", " mayor")])], "exact"),
        loaded("text", [Item([("", "the mayor of Orn is it. " * 10)])], "text"),
    ]
    rows = {(row["task"], row["metric"]): row for row in run_harness(lm_eval_model(model, tokenizer, 64, 2), tasks)}
    right = choose(model, tokenizer, ITEMS, 64, 2)
    assert rows["chosen", "acc"]["value"] == sum(right) / 3
    assert rows["chosen", "acc"]["stderr"] is not None
    schema = choose(model, tokenizer, tasks[1].items, 64, 2)
    assert rows["schema", "acc"]["value"] == float(schema[0])
    assert rows["text", "bits_per_byte"]["value"] > 0
    assert {"greedy", "exact"} <= {task for task, _ in rows}


# Choices that a bigram model decides: the text has "is blue" and "is Ada", and no "is 3"
KNOWN = [
    Item([("what colour is the sky? it is", " Orn"), ("what colour is the sky? it is", " blue")], 1),
    Item([("the mayor of Orn is", " 3"), ("the mayor of Orn is", " Ada")], 1),
    Item([("yes no red", " green 1 2"), ("yes no red", " 2 1 green")], 0),
    Item([("yes no red", " green"), ("yes no red", " no")], 1),
]


def test_known_scores_of_a_bigram_model_are_reproduced(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path)
    logprobs = bigram_logprobs(tokenizer, TEXT)
    write_bigram_model(tmp_path, logprobs)
    model = load_transformer(tmp_path)
    nats = [[pair_nats(tokenizer, logprobs, *pair) for pair in item.pairs] for item in KNOWN]
    right = [values.index(max(values)) == item.gold for values, item in zip(nats, KNOWN, strict=True)]
    assert 0 < sum(right) < len(right)
    assert score_task(model, tokenizer, loaded("choice", KNOWN), 64, 3)["share"] == sum(right) / len(right)
    texts = ["the mayor of Orn is Ada Brell. " * 5, "green Orn does not know the mayor"]
    expected = bits_per_byte(tokenizer, logprobs, texts)
    # Longer than a window, whose first token then follows <|bos|>: one window for each text.
    found = score_task(model, tokenizer, loaded("text", [Item([("", text)]) for text in texts]), 512, 2)
    assert found["bits_per_byte"] == pytest.approx(expected, rel=1e-6)
    if HAS_HARNESS:
        tasks = [loaded("choice", KNOWN, "chosen"), loaded("text", [Item([("", text)]) for text in texts], "text")]
        rows = {(row["task"], row["metric"]): row for row in run_harness(lm_eval_model(model, tokenizer, 64, 2), tasks)}
        assert rows["chosen", "acc"]["value"] == sum(right) / len(right)
        expected = bits_per_byte(tokenizer, logprobs, texts, counts_bos=True)
        assert rows["text", "bits_per_byte"]["value"] == pytest.approx(expected, rel=1e-6)
