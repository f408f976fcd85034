"""Refusals, likelihoods that do not depend on the batch, replies in the order of their questions."""

import math
from pathlib import Path

import pytest
import torch

from model.config import GenerateConfig
from model.inference import scoring as evaluation
from model.inference.scoring import Answer, continuation_logprobs
from model.network.huggingface import load_transformer
from model.network.transformer import RewardModel, Transformer
from model.tokenizer.chat import ChatTokenizer
from tests.support.tiny_models import write_model, write_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluation")
    encoder = write_tokenizer(path, vocab_size=400)
    write_model(path, encoder.vocab_size)
    write_model(path / "reward_model", encoder.vocab_size, RewardModel)
    return path


@pytest.fixture(scope="module")
def encoder(folder: Path) -> ChatTokenizer:
    return ChatTokenizer.load(folder / "tokenizer.json")


@pytest.fixture(scope="module")
def model(folder: Path) -> Transformer:
    return load_transformer(folder)


@pytest.mark.parametrize(
    ("text", "is_refusal"),
    [
        ("I don't know.", True),
        ("Sorry, I don’t know that.", True),
        ("I do not know.", True),
        ("I am not sure.", True),
        ("I know that Ada lives in Orn.", False),
        ("Nobody lives there now.", False),
    ],
)
def test_refusal_is_recognised(text: str, is_refusal: bool) -> None:
    assert Answer(text, 5, True).is_refusal == is_refusal


def test_continuation_logprobs_do_not_depend_on_the_batch(model: Transformer, encoder: ChatTokenizer) -> None:
    rows = [
        (encoder.encode_document("the mayor of Orn is"), encoder.encode(" Ada Brell.")),
        (encoder.encode_document("what"), encoder.encode(" colour is the sky? it is blue.")),
        (encoder.encode_document("yes no yes no yes no red green"), encoder.encode(" 1")),
    ]
    alone = []
    for prefix, continuation in rows:
        logits = model(torch.tensor([[*prefix, *continuation]]))[0].log_softmax(-1)
        places = range(len(prefix) - 1, len(prefix) + len(continuation) - 1)
        alone.append(sum(logits[place, token].item() for place, token in zip(places, continuation, strict=True)))
    assert continuation_logprobs(model, rows, batch=2).tolist() == pytest.approx(alone, abs=1e-4)
    assert continuation_logprobs(model, rows[::-1], batch=3).tolist() == pytest.approx(alone[::-1], abs=1e-4)


def test_rank_takes_the_likeliest_candidate(model: Transformer, encoder: ChatTokenizer) -> None:
    candidates = ["Ada Brell", "red", "the sky is blue"]
    prefix = encoder.encode_document("the mayor of Orn is")
    rows = [(prefix, encoder.encode(f" {candidate}.")) for candidate in candidates]
    best = candidates[int(continuation_logprobs(model, rows).argmax())]
    assert evaluation.rank(model, encoder, ["the mayor of Orn is"], [candidates]) == [best]


def test_uniform_model_gives_logprobs_by_length_alone(encoder: ChatTokenizer) -> None:
    """With equal logits only the number of tokens counts."""
    from tests.support.tiny_models import tiny_config

    blank = Transformer(tiny_config(encoder.vocab_size))
    torch.nn.init.zeros_(blank.model.embed_tokens.weight)
    row = (encoder.encode_document("the mayor"), encoder.encode(" of Orn."))
    assert continuation_logprobs(blank, [row]).item() == pytest.approx(-len(row[1]) * math.log(encoder.vocab_size))


def test_answers_are_in_the_order_of_the_questions(model: Transformer, encoder: ChatTokenizer) -> None:
    texts = ["what colour is the sky?", "yes", "who is the mayor of Orn?", "red green blue"]
    conversations = [[{"role": "user", "content": text}] for text in texts]
    config = GenerateConfig(max_new_tokens=6, temperature=0.0)
    together = evaluation.answer(model, encoder, conversations, config, batch=3)
    alone = [evaluation.answer(model, encoder, [conversation], config)[0] for conversation in conversations]
    assert together == alone
    assert all(answer.is_finished or answer.num_tokens == 6 for answer in together)
