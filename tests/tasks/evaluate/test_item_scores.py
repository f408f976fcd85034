"""Scores of items: against the model's own logits, intervals against a bootstrap, and the harness's cuts of contexts."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from model.inference.scoring import continuation_scores, encode_pair
from model.network.huggingface import load_transformer
from model.network.transformer import Transformer
from model.tokenizer.chat import ChatTokenizer
from tasks.evaluate.eval_tasks import EvalTask, Item, LoadedTask
from tasks.evaluate.item_scores import bits_per_byte, choose, ratio, score_task
from tasks.evaluate.lm_eval_model import Scorer, cut_at
from tests.support.tiny_models import TEXT, write_model, write_tokenizer

Pair = tuple[ChatTokenizer, Transformer]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder: Path = tmp_path_factory.mktemp("model")
    tokenizer = write_tokenizer(folder)
    write_model(folder, tokenizer.vocab_size)
    return tokenizer, load_transformer(folder)


def nats(model: Transformer, tokens: list[int], start: int) -> float:
    """By hand: the summed log-probability of tokens[start:]."""
    with torch.inference_mode():
        logprobs = torch.log_softmax(model(torch.tensor([tokens[:-1]])).float(), -1)[0]
    return sum(logprobs[place - 1, tokens[place]].item() for place in range(start, len(tokens)))


def test_continuation_scores_are_the_models(pair: Pair) -> None:
    tokenizer, model = pair
    rows = [
        encode_pair(tokenizer, "the mayor of Orn", ending) for ending in (" is Ada Brell.", " it", " is blue. 1 2 3")
    ]
    values, is_greedy = continuation_scores(model, rows, batch=2)
    for (context, ending), value in zip(rows, values.tolist(), strict=True):
        assert value == pytest.approx(nats(model, [*context, *ending], len(context)), abs=1e-4)
    with torch.inference_mode():
        likeliest = int(model(torch.tensor([rows[0][0]]))[0, -1].argmax())
    chosen, other = continuation_scores(model, [(rows[0][0], [likeliest]), (rows[0][0], [(likeliest + 1) % 300])])[1]
    assert bool(chosen)
    assert not bool(other)
    assert is_greedy.dtype == torch.bool


@pytest.mark.parametrize(
    ("context", "continuation"), [("the mayor", " of Orn"), ("the mayor  ", "of"), ("", "the"), ("a", "b")]
)
def test_pair_has_all_tokens_of_its_text(pair: Pair, context: str, continuation: str) -> None:
    tokenizer, _ = pair
    before, ending = encode_pair(tokenizer, context, continuation)
    assert before[0] == tokenizer.bos
    assert [*before[1:], *ending] == tokenizer.encode(context + continuation)
    assert tokenizer.decode(before[1:]) == context.rstrip()


def test_choose_takes_the_likeliest_and_the_first_of_equal_ones(pair: Pair) -> None:
    tokenizer, model = pair
    texts = [" is Ada Brell.", " it is blue", " red green"]
    rows = [encode_pair(tokenizer, "the mayor of Orn", text) for text in texts]
    best = int(continuation_scores(model, rows)[0].argmax())
    item = Item([("the mayor of Orn", text) for text in texts], best)
    assert choose(model, tokenizer, [item, item._replace(gold=(best + 1) % 3)], 64, 2) == [True, False]
    twin = Item([("a", " b"), ("a", " b")], 0)
    assert choose(model, tokenizer, [twin, twin._replace(gold=1)], 64, 2) == [True, False]
    assert choose(model, tokenizer, [Item([("the " * 500, " mayor")])], 32, 2, needs_greedy=True) in ([True], [False])


def test_bits_per_byte_do_not_depend_on_batches_and_are_the_models(pair: Pair) -> None:
    tokenizer, model = pair
    texts = [TEXT[:40], TEXT[40:150], "x"]
    found = bits_per_byte(model, tokenizer, texts, 128, 2)
    expected = 0.0
    for text in texts:
        expected -= nats(model, [tokenizer.bos, *tokenizer.encode(text)], 1) / math.log(2)
    num_bytes = sum(len(text.encode()) for text in texts)
    assert found["bits_per_byte"] == pytest.approx(expected / num_bytes, rel=1e-4)
    assert (found["num"], found["bytes"]) == (3, num_bytes)
    assert bits_per_byte(model, tokenizer, texts, 128, 32) == pytest.approx(found, rel=1e-5)


def test_interval_of_a_ratio_is_a_bootstraps() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(100, 2000, 150)
    bits = sizes * rng.normal(1.0, 0.2, 150)
    found = ratio(bits.tolist(), sizes.tolist())
    draws = rng.integers(0, 150, (2000, 150))
    low, high = np.quantile(bits[draws].sum(1) / sizes[draws].sum(1), [0.025, 0.975])
    assert (found["low"], found["high"]) == (pytest.approx(low, abs=0.005), pytest.approx(high, abs=0.005))
    assert ratio([5.0], [10])["low"] == 0.5  # of one document nothing is known


@pytest.mark.parametrize(
    ("kind", "name"), [("choice", "share"), ("greedy", "share"), ("exact", "share"), ("text", "bits_per_byte")]
)
def test_every_kind_of_task_is_scored(pair: Pair, kind: str, name: str) -> None:
    tokenizer, model = pair
    task = EvalTask(name="t", format="choices", licence="CC0")
    items = [Item([("the mayor", " of Orn"), ("the mayor", " it")])]
    score = score_task(model, tokenizer, LoadedTask(task, kind, items, "0"), 64, 2)  # type: ignore[arg-type]
    assert score["low"] <= score[name] <= score["high"]
    assert score["num"] == 1


def test_scorer_cuts_contexts_from_the_left_and_keeps_continuations(pair: Pair) -> None:
    tokenizer, model = pair
    scorer = Scorer(model, tokenizer, max_tokens=16, batch=4)
    context, ending = scorer.encode(TEXT), tokenizer.encode(" is Ada")
    (value, _), = scorer.logprobs([(context, ending)])  # fmt: skip
    cut = [*context, *ending][-17:]
    assert value == pytest.approx(nats(model, cut, len(cut) - len(ending)), abs=1e-4)
    assert scorer.logprobs([(context, tokenizer.encode(TEXT))])[0][0] < 0  # a continuation longer than the model reads


def test_scorer_marks_the_beginning_once(pair: Pair) -> None:
    tokenizer, model = pair
    scorer = Scorer(model, tokenizer, 16, 4)
    assert scorer.encode("the") == [tokenizer.bos, *tokenizer.encode("the")]
    assert scorer.encode("<|bos|>the") == scorer.encode("the")
    assert scorer.encode("the", adds_bos=False) == tokenizer.encode("the")


def test_scorer_writes_up_to_a_stop(pair: Pair) -> None:
    tokenizer, model = pair
    scorer = Scorer(model, tokenizer, 64, 2)
    whole = scorer.write(["the mayor", "what", "it"], (), 12)
    assert len(whole) == 3
    stop = whole[0][3:5]
    assert scorer.write(["the mayor"], (stop,), 12) == [whole[0].split(stop)[0]]


def test_cut_at_takes_the_first_of_all_stops() -> None:
    assert cut_at("a\nb. c", ["\n", ". "]) == "a"
    assert cut_at("a b. c\n", ["\n", ". ", ""]) == "a b"
    assert cut_at("abc", []) == "abc"
