"""Watching a run: metrics by kind of prompt, and a run whose reward rises while its gold score falls ends with the weights of its best step."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model.config import OptimConfig
from model.network.transformer import RewardModel
from model.rl import grpo, trainer
from model.rl.config import RLConfig, RLRun
from model.rl.gold import GoldScorer
from model.rl.prompts import MAX_KINDS, OTHER, Prompt, kind_name, with_few_kinds
from model.rl.rollouts import Rollouts
from model.tokenizer.chat import ChatTokenizer
from tests.support.tiny_models import TEXT, tiny_config, write_lines, write_model, write_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    encoder = write_tokenizer(tmp_path, vocab_size=400)
    write_model(tmp_path / "sft", encoder.vocab_size)
    write_model(tmp_path / "reward_model", encoder.vocab_size, RewardModel)
    write_model(tmp_path / "second", encoder.vocab_size, RewardModel, seed=5)
    prompts = [
        {
            "messages": [{"role": "user", "content": f"say {word} {number}"}],
            "answer": "is" if number % 2 else None,
            "kind": "colour" if number % 2 else "small talk",
        }
        for number, word in enumerate(TEXT.split()[:80])
    ]
    write_lines(tmp_path / "prompts.jsonl", prompts)
    return tmp_path


def train(
    folder: Path, output: str = "out", gold_model: str = "", learning_rate: float = 1e-2, **settings: Any
) -> list[dict[str, Any]]:
    defaults: dict[str, Any] = {
        "num_steps": 12,
        "prompts_per_step": 4,
        "completions_per_prompt": 16,
        "max_new_tokens": 6,
        "checkpoint_every_steps": 2,
        "eval_every_steps": 2,
        "validation_fraction": 0.4,
        "kl_coef": 0.0,
        "model_weight": 0.0,
        "unfinished_penalty": 0.0,
        "microbatch_sequences": 64,
    }
    (folder / output).mkdir(exist_ok=True)
    run = RLRun(
        config=RLConfig(**defaults | settings),
        optim=OptimConfig(learning_rate=learning_rate, weight_decay=0.0),
        model=tiny_config(ChatTokenizer.load(folder / "tokenizer.json").vocab_size),
        initial_weights=str(folder / "sft"),
        reward_model=str(folder / "reward_model"),
        gold_model=gold_model,
        tokenizer=str(folder / "tokenizer.json"),
        prompts=(str(folder / "prompts.jsonl"),),
        output=str(folder / output),
    )
    grpo.train(run, folder / output / "state" / "checkpoints", threading.Event())
    return [json.loads(line) for line in (folder / output / "metrics.jsonl").read_text().splitlines()]


def keep_first_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gold standard that training works against: each completion begins as the SFT model's did."""
    first: list[int] = []

    def score(self: GoldScorer, rollouts: Rollouts) -> Any:
        tokens = [done[0] for done in rollouts.completions]
        first.extend(tokens if not first else [])
        return np.array([float(one == other) for one, other in zip(tokens, first, strict=True)])

    monkeypatch.setattr(GoldScorer, "__call__", score)


def test_metrics_are_kept_by_kind_of_prompt(folder: Path) -> None:
    lines = train(folder, num_steps=2, prompts_per_step=16, completions_per_prompt=4)
    summary = json.loads((folder / "out" / "summary.json").read_text())
    for kind in ("colour", "small_talk"):
        names = (
            "reward_mean",
            "completion_tokens_mean",
            "completion_distinct_fraction",
            "policy_kl_k3",
            "group_dead_fraction",
        )
        assert {f"kind/{kind}/{name}" for name in names} | {f"kind/{kind}/validation_reward_mean"} <= set(lines[1])
        assert f"kind/{kind}/before_reward_mean" in summary
    assert "kind/colour/reward_verifiable" in lines[0]
    assert "kind/small_talk/reward_verifiable" not in lines[0]
    assert "kind/small_talk/validation_gold_mean" not in lines[1]
    # Without a reward every group of these is dead.
    assert lines[0]["kind/small_talk/group_dead_fraction"] == 1.0
    assert {"phase/generation_seconds", "phase/scoring_seconds", "phase/training_seconds"} <= set(lines[0])
    samples = [json.loads(line) for line in (folder / "out" / "samples.jsonl").read_text().splitlines()]
    assert [(sample["step"], sample["kind"]) for sample in samples] == [
        (step, kind) for step in (0, 2) for kind in ("colour", "small_talk")
    ]


def test_accuracy_on_heldout_prompts_rises(folder: Path) -> None:
    train(folder, num_steps=14, completions_per_prompt=32, max_new_tokens=8, eval_every_steps=0)
    summary = json.loads((folder / "out" / "summary.json").read_text())
    assert summary["before/reward_verifiable"] == 0.0
    assert summary["validation/reward_verifiable"] > 0.8
    assert summary["gold/has_fallen"] == 0.0


def test_run_that_games_its_reward_ends_with_the_weights_of_its_best_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_first_tokens(monkeypatch)
    lines = train(folder, num_steps=40, learning_rate=2e-3)
    summary = json.loads((folder / "out" / "summary.json").read_text())
    diagnosis = [json.loads(line) for line in (folder / "out" / "diagnosis.jsonl").read_text().splitlines()][-1]
    assert diagnosis["is_over"]
    assert "held-out gold score falls since step" in diagnosis["sentence"]
    assert len(lines) < 40
    assert summary["kept_step"] == diagnosis["best_step"] < summary["steps"] == len(lines)
    assert summary["validation/gold_mean"] > lines[-1]["validation/gold_mean"]
    assert summary["gold/has_fallen"] == 0.0
    kept, sft = (load_file(folder / name / "model.safetensors") for name in ("out", "sft"))
    assert all(torch.equal(kept[name], sft[name]) for name in sft) == (summary["kept_step"] == 0)


def test_run_that_is_killed_before_the_rule_ends_it_gives_the_same_result(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_first_tokens(monkeypatch)
    undisturbed = train(folder, "undisturbed", num_steps=40, learning_rate=2e-3)
    assert 3 < len(undisturbed) < 40
    record = trainer.RLTrainer.record

    def die(self: trainer.RLTrainer, done: int, metrics: dict[str, Any]) -> None:
        record(self, done, metrics)
        if done == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer.RLTrainer, "record", die)
        train(folder, "killed", num_steps=40, learning_rate=2e-3)
    resumed = train(folder, "killed", num_steps=40, learning_rate=2e-3)
    assert [line["step"] for line in resumed] == [line["step"] for line in undisturbed]
    weights, others = (load_file(folder / name / "model.safetensors") for name in ("undisturbed", "killed"))
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    summaries = [json.loads((folder / name / "summary.json").read_text()) for name in ("undisturbed", "killed")]
    assert summaries[0] == summaries[1]


def test_run_that_only_reports_a_fall_keeps_its_last_weights_and_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_first_tokens(monkeypatch)
    lines = train(folder, on_fall="report")
    summary = json.loads((folder / "out" / "summary.json").read_text())
    assert len(lines) == summary["kept_step"] == 12
    assert summary["gold/has_fallen"] == 1.0


def test_second_reward_model_scores_prompts_without_an_answer(folder: Path) -> None:
    lines = train(folder, num_steps=2, gold_model=str(folder / "second"))
    summary = json.loads((folder / "out" / "summary.json").read_text())
    # In standard deviations from the SFT model's mean: about one half of its own completions are better.
    assert 0.2 < summary["kind/small_talk/before_gold_mean"] < 0.8
    assert 0 <= lines[-1]["kind/small_talk/validation_gold_mean"] <= 1


@pytest.mark.parametrize(
    ("answer", "reply", "is_right"),
    [
        ("3 + 4 is 7", "3 + 4 is 7.", True),
        ("3 + 4 is 7", "1 + 4 is 7.", False),  # the second number and the result alone do not do
        ("don't know", "I don't know.", True),
        ("Ada", "I don't know. It is Ada.", False),
        ("don't know", "Ada.", False),
    ],
)
def test_gold_score_is_stricter_than_the_reward(folder: Path, answer: str, reply: str, is_right: bool) -> None:
    encoder = ChatTokenizer.load(folder / "tokenizer.json")
    tokens = encoder.encode(reply)
    assert GoldScorer(encoder).is_right(answer, [*tokens, encoder.turn_end]) == is_right
    assert not GoldScorer(encoder).is_right(answer, tokens)  # cut off


def test_rare_kinds_are_one_kind_and_names_are_safe() -> None:
    prompts = [Prompt("", [1], None, f"kind{number}") for number in range(40) for _ in range(40 - number)]
    kinds = {prompt.kind for prompt in with_few_kinds(prompts)}
    assert kinds == {f"kind{number}" for number in range(MAX_KINDS)} | {OTHER}
    assert kind_name("a/b: <c>\n") == "a_b_c"
    assert kind_name("//") == OTHER
    assert len(kind_name("x" * 500)) == 40
