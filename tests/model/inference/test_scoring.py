"""Measuring models: what counts as right, likelihoods that do not depend on the batch, replies that stop."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from model.config import GenerateConfig
from model.inference import scoring as evaluation
from model.inference.chat import Chat
from model.inference.scoring import Answer, continuation_logprobs
from model.network.huggingface import load_reward_model, load_transformer
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
def test_refusals(text: str, is_refusal: bool) -> None:
    assert Answer(text, 5, True).is_refusal == is_refusal


def test_likelihoods_are_those_of_each_row_alone(model: Transformer, encoder: ChatTokenizer) -> None:
    """In whatever company and order the rows are computed."""
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


def test_the_likeliest_candidate_is_taken(model: Transformer, encoder: ChatTokenizer) -> None:
    candidates = ["Ada Brell", "red", "the sky is blue"]
    prefix = encoder.encode_document("the mayor of Orn is")
    rows = [(prefix, encoder.encode(f" {candidate}.")) for candidate in candidates]
    best = candidates[int(continuation_logprobs(model, rows).argmax())]
    assert evaluation.rank(model, encoder, ["the mayor of Orn is"], [candidates]) == [best]


def test_a_model_without_knowledge_ranks_by_chance(encoder: ChatTokenizer) -> None:
    """All logits equal: the length of a candidate alone decides, nothing leaks from the right answer."""
    from tests.support.tiny_models import tiny_config

    blank = Transformer(tiny_config(encoder.vocab_size))
    torch.nn.init.zeros_(blank.model.embed_tokens.weight)
    row = (encoder.encode_document("the mayor"), encoder.encode(" of Orn."))
    assert continuation_logprobs(blank, [row]).item() == pytest.approx(-len(row[1]) * math.log(encoder.vocab_size))


def test_answers_come_in_the_order_of_the_questions(model: Transformer, encoder: ChatTokenizer) -> None:
    texts = ["what colour is the sky?", "yes", "who is the mayor of Orn?", "red green blue"]
    conversations = [[{"role": "user", "content": text}] for text in texts]
    config = GenerateConfig(max_new_tokens=6, temperature=0.0)
    together = evaluation.answer(model, encoder, conversations, config, batch=3)
    alone = [evaluation.answer(model, encoder, [conversation], config)[0] for conversation in conversations]
    assert together == alone
    assert all(answer.is_finished or answer.num_tokens == 6 for answer in together)


def test_the_reward_model_is_asked_about_the_whole_turn(folder: Path, encoder: ChatTokenizer) -> None:
    reward_model = load_reward_model(folder / "reward_model")
    pair = {"messages": [{"role": "user", "content": "yes?"}], "chosen": "yes", "rejected": "no no no"}
    scores = [
        reward_model(torch.tensor([tokens]), torch.tensor([len(tokens)])).item()
        for reply in ("yes", "no no no")
        for tokens in [evaluation.reply_tokens(encoder, pair["messages"], reply)]
    ]
    assert evaluation.reply_tokens(encoder, pair["messages"], "yes")[-1] == encoder.assistant_end
    expected = float(scores[0] > scores[1])
    swapped = {**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]}
    assert evaluation.pair_accuracy(reward_model, encoder, [pair]) == expected
    assert evaluation.pair_accuracy(reward_model, encoder, [swapped]) == 1 - expected
    assert evaluation.pair_accuracy(reward_model, encoder, [pair, swapped], batch=1) == 0.5


def test_chat_streams_what_it_would_say_at_once(folder: Path, encoder: ChatTokenizer, model: Transformer) -> None:
    messages = [{"role": "user", "content": "what colour is the sky?"}]
    chat = Chat(folder, folder / "tokenizer.json", max_new_tokens=12)
    config = GenerateConfig(max_new_tokens=12, temperature=0.0)
    assert "".join(chat.reply(messages)).strip() == evaluation.answer(model, encoder, [messages], config)[0].text
    assert "".join(chat.complete("the sky")) == evaluation.complete(model, encoder, ["the sky"], config)[0]


def test_a_long_conversation_forgets_its_beginning(folder: Path) -> None:
    chat = Chat(folder, folder / "tokenizer.json", max_new_tokens=4)
    messages = [{"role": "user", "content": f"what colour is the sky? {number}"} for number in range(60)]
    assert "".join(chat.reply(messages)) is not None
    assert len(chat.tokenizer.render_prompt(messages)) > chat.max_tokens
    assert "".join(chat.reply(messages)) == "".join(chat.reply(messages[1:]))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"temperature": float("nan")}, r"temperature: .* less than or equal to 10 \(given: nan\)$"),
        ({"seed": 2**63}, r"seed: .* less than 9223372036854775808 \(given: 9223372036854775808\)$"),
    ],
)
def test_what_nothing_can_be_drawn_by_is_told_in_one_line(folder: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=f"^{told}"):
        Chat(folder, folder / "tokenizer.json", **settings)


def test_a_chat_with_another_tokenizer_is_refused(folder: Path, tmp_path: Path) -> None:
    write_tokenizer(tmp_path, vocab_size=300)
    with pytest.raises(ValueError, match="vocabulary of"):
        Chat(folder, tmp_path / "tokenizer.json")
