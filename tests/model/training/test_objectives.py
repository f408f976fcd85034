"""Objectives: a packed conversation has the loss, and teaches what, it has and teaches by itself."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.config import OptimConfig, TrainConfig, TrainRun
from model.data.conversations import ConversationRows, PreferencePairs
from model.network.transformer import RewardModel, initialize, positions_in_documents
from model.tokenizer.chat import ChatTokenizer
from model.training.objectives import LanguageObjective, RewardObjective, make_objective, measures
from tests.support.tiny_models import tiny_config, write_lines, write_tokenizer


@pytest.fixture
def tokenizer(tmp_path: Path) -> ChatTokenizer:
    return write_tokenizer(tmp_path)


@pytest.fixture
def conversations(tmp_path: Path, tokenizer: ChatTokenizer) -> ConversationRows:
    """40 conversations of different lengths in rows of 128 tokens."""
    answers = ["it is blue.", "no", "I do not know. " * 3, "yes yes red"]
    records = [
        {"messages": [{"role": "user", "content": f"{n} " * (n % 5)}, {"role": "assistant", "content": answers[n % 4]}]}
        for n in range(40)
    ]
    write_lines(tmp_path / "chat.jsonl", records)
    return ConversationRows([str(tmp_path / "chat.jsonl")], 128, tokenizer)


@pytest.fixture
def objective(tmp_path: Path, tokenizer: ChatTokenizer) -> LanguageObjective:
    """An objective for SFT as the training loop makes it, around a model with large random weights."""
    run = TrainRun(
        objective="sft",
        model=tiny_config(tokenizer.vocab_size),
        train=TrainConfig(),
        optim=OptimConfig(),
        tokenizer=str(tmp_path / "tokenizer.json"),
        train_paths=("unused",),
        output=str(tmp_path),
    )
    made = make_objective(run, tokenizer)
    assert isinstance(made, LanguageObjective)
    generator = torch.Generator().manual_seed(3)
    for parameter in made.model.parameters():
        if parameter.dim() == 2:  # large weights make attention sharp, so that a neighbour that is seen shows
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return made


def test_weights_that_are_loaded_get_no_heads(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    """Neither would they stay, nor need the shape of such a model have a place for them."""
    shape = tiny_config(tokenizer.vocab_size)  # of one key head
    values = {
        "objective": "pretrain",
        "model": shape,
        "train": TrainConfig(),
        "optim": OptimConfig(),
        "tokenizer": str(tmp_path / "tokenizer.json"),
        "train_paths": ("unused",),
        "copying": {"num_heads": 2},
        "output": str(tmp_path),
    }
    make_objective(TrainRun.model_validate(values | {"initial_weights": "a folder"}), tokenizer)
    with pytest.raises(ValueError, match="num_kv_heads under 2"):
        make_objective(TrainRun.model_validate(values), tokenizer)


def alone(conversations: ConversationRows) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Every conversation in a row of its length."""
    rows = conversations._conversations
    return [(torch.tensor([tokens]), torch.tensor([mask[1:]], dtype=torch.float32)) for tokens, mask in rows]


def test_packed_conversations_have_the_loss_of_each_alone(
    objective: LanguageObjective, conversations: ConversationRows
) -> None:
    packed = conversations.fetch(np.arange(len(conversations)))
    assert len(packed.tokens) < 20, "they are packed"
    with torch.no_grad():
        together = float(objective(*packed)[1])
        apart = sum(float(objective(*each)[1]) for each in alone(conversations))
    assert together / packed.mask.sum() == pytest.approx(apart / float(packed.mask.sum()), abs=1e-5)


def test_packed_conversations_have_the_gradient_of_each_alone(
    objective: LanguageObjective, conversations: ConversationRows
) -> None:
    objective(*conversations.fetch(np.arange(len(conversations))))[0].backward()
    together = {name: parameter.grad for name, parameter in objective.named_parameters()}
    objective.zero_grad(set_to_none=True)
    for each in alone(conversations):
        objective(*each)[0].backward()
    for name, parameter in objective.named_parameters():
        torch.testing.assert_close(together[name], parameter.grad, rtol=1e-3, atol=1e-3)


def test_validation_loss_is_that_of_a_conversation_alone(
    objective: LanguageObjective, conversations: ConversationRows
) -> None:
    sums = sum(measures(objective, conversations, np.arange(len(conversations)), 3, "cpu"))
    with torch.no_grad():
        apart = sum(float(objective(*each)[1]) for each in alone(conversations))
    reported = objective.report(*sums.tolist())["validation/loss_nats"]
    assert reported == pytest.approx(apart / sums[2], abs=1e-5)


def test_unmasked_conversations_see_each_other(objective: LanguageObjective, conversations: ConversationRows) -> None:
    """Without the mask the loss is another one: the tests above can fail."""
    packed = conversations.fetch(np.arange(len(conversations)))
    with torch.no_grad():
        masked = float(objective(*packed)[1])
        objective.mask_across_documents = False
        assert abs(float(objective(*packed)[1]) / masked - 1) > 1e-3


@pytest.mark.parametrize("likelihood_weight", [0.0, 3.0])
def test_reward_of_a_padded_pair_is_that_of_each_side_alone(
    tmp_path: Path, tokenizer: ChatTokenizer, likelihood_weight: float
) -> None:
    question = [{"role": "user", "content": "what colour is the sky?"}]
    records = [{"messages": question, "chosen": "it is blue. " * n, "rejected": "no"} for n in range(1, 5)]
    write_lines(tmp_path / "pairs.jsonl", records)
    pairs = PreferencePairs([str(tmp_path / "pairs.jsonl")], 128, tokenizer)
    model = RewardModel(tiny_config(tokenizer.vocab_size), likelihood_weight)
    initialize(model, seed=1)
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(2))
    tokens, lengths, starts, weights = pairs.fetch(np.arange(4))
    with torch.no_grad():
        together = model(tokens, lengths, starts)
        rows = zip(tokens, lengths, starts, strict=True)
        apart = [model(row[None, :length], length[None], start[None]) for row, length, start in rows]
        loss = RewardObjective(model)(tokens, lengths, starts, weights)[1]
    torch.testing.assert_close(together, torch.cat(apart), atol=1e-5, rtol=0)
    expected = -torch.nn.functional.logsigmoid(torch.cat(apart[0::2]) - torch.cat(apart[1::2])).sum()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)


def test_positions_in_documents_restart() -> None:
    documents = torch.tensor([[0, 0, 1, 1, 1, 2], [5, 5, 5, 5, 5, 5]])
    assert positions_in_documents(documents).tolist() == [[0, 1, 0, 1, 2, 0], [0, 1, 2, 3, 4, 5]]
