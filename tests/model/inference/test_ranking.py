"""How a reward model ranks pairs: accuracy by kind and fault, calibration, length."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.inference.ranking import (
    Ranking,
    accuracy_by_kind,
    calibration_error,
    length_correlation,
    rank_pairs,
    ranking_metrics,
)
from model.inference.scoring import reply_tokens
from model.inference.unranked_kinds import unranked_kinds
from model.network.huggingface import load_reward_model
from model.network.transformer import RewardModel
from tests.support.tiny_models import write_model, write_tokenizer


def ranking(margins: list[float], lengths: list[float] | None = None, kinds: list[str] | None = None) -> Ranking:
    size = len(margins)
    return Ranking(kinds or [""] * size, torch.tensor(margins), torch.tensor(lengths or [0.0] * size))


def test_reward_model_scores_the_whole_turn(tmp_path: Path) -> None:
    encoder = write_tokenizer(tmp_path)
    write_model(tmp_path / "reward_model", encoder.vocab_size, RewardModel)
    reward_model = load_reward_model(tmp_path / "reward_model")
    pair = {"messages": [{"role": "user", "content": "yes?"}], "chosen": "yes", "rejected": "no no no"}
    (prompt, chosen), (_, rejected) = (reply_tokens(encoder, pair["messages"], reply) for reply in ("yes", "no no no"))
    sides = [[*prompt, *chosen], [*prompt, *rejected]]
    expected = [reward_model(torch.tensor([side]), torch.tensor([len(side)])).item() for side in sides]
    found = rank_pairs(reward_model, encoder, [pair, {**pair, "chosen": "no no no", "rejected": "yes"}], batch=1)
    assert chosen[-1] == rejected[-1] == encoder.turn_end
    assert found.margins.tolist() == pytest.approx([expected[0] - expected[1], expected[1] - expected[0]], abs=1e-5)
    assert found.lengths.tolist() == [len(chosen) - len(rejected), len(rejected) - len(chosen)]
    assert accuracy_by_kind(found) == {"all": (1, 2)}


def test_accuracy_is_counted_by_kind_and_fault() -> None:
    kinds = ["fact/wrong", "fact/rude", "unknown/rude", "fact/wrong", "", "odd"]
    found = accuracy_by_kind(ranking([1.0, 2.0, -1.0, 0.0, 1.0, float("nan")], kinds=kinds))
    assert found == {
        "all": (3, 6),
        "fact": (2, 3),
        "fact/wrong": (1, 2),
        "fact/rude": (1, 1),
        "unknown": (0, 1),
        "unknown/rude": (0, 1),
        "*/wrong": (1, 2),
        "*/rude": (1, 2),
        "odd": (0, 1),
    }


def test_kinds_with_few_pairs_are_not_called_unranked() -> None:
    kinds = ["fact/wrong"] * 20 + ["joke/rude"] * 3
    found = unranked_kinds(ranking_metrics(ranking([1.0] * 10 + [-1.0] * 13, kinds=kinds)))
    assert found == pytest.approx({"all": 10 / 23, "fact": 0.5, "fact/wrong": 0.5, "*/wrong": 0.5})


@given(st.floats(-6, 6))
def test_model_that_is_right_as_often_as_it_says_is_calibrated(margin: float) -> None:
    likely = 1 / (1 + np.exp(-abs(margin)))
    signs = np.where(np.random.default_rng(1).random(4000) < likely, 1.0, -1.0)
    assert calibration_error(torch.tensor(signs * max(abs(margin), 1e-3)).float()) < 0.04


def test_model_that_is_sure_and_wrong_is_not_calibrated() -> None:
    assert calibration_error(torch.tensor([-9.0, -9.0])) == pytest.approx(1.0, abs=1e-3)
    assert calibration_error(torch.tensor([])) == 0.0


@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(-50, 50)), min_size=2, max_size=40))
def test_length_correlation_is_that_of_numpy(rows: list[tuple[float, int]]) -> None:
    margins, lengths = zip(*rows, strict=True)
    found = length_correlation(ranking([float(m) for m in margins], [float(n) for n in lengths]))
    varies = np.std(margins) > 1e-3 and np.std(lengths) > 0
    if varies:
        assert found == pytest.approx(np.corrcoef(np.float32(margins), lengths)[0, 1], abs=1e-4)
    assert abs(found) <= 1 + 1e-9
