"""PPO: the critic and the policy learn, it resumes after a kill with the same results, and its KL coefficient follows the target."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model.network.huggingface import load_reward_model
from model.network.transformer import RewardModel
from model.rl import ppo, trainer
from model.rl.config import PPOConfig, RLConfig, RLRun
from model.rl.ppo import Critic, next_kl_coef
from tests.support.rl_runs import logged, rl_run, untimed
from tests.support.tiny_models import write_lines, write_model, write_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    encoder = write_tokenizer(tmp_path, vocab_size=400)
    write_model(tmp_path / "sft", encoder.vocab_size)
    write_model(tmp_path / "reward_model", encoder.vocab_size, RewardModel)
    words = ["sky", "red", "green", "yes"] * 6
    prompts = [
        {"messages": [{"role": "user", "content": f"say {word} {number}"}], "answer": "is" if number % 3 else None}
        for number, word in enumerate(words)
    ]
    write_lines(tmp_path / "prompts.jsonl", prompts)
    return tmp_path


def make_run(folder: Path, output: str = "out", ppo_settings: dict[str, Any] | None = None, **settings: Any) -> RLRun:
    (folder / output).mkdir()
    defaults: dict[str, Any] = {
        "num_steps": 4,
        "prompts_per_step": 4,
        "completions_per_prompt": 2,
        "max_new_tokens": 6,
        "checkpoint_every_steps": 2,
        "eval_every_steps": 0,
        "on_fall": "report",
    }
    defaults_of_ppo = {"critic_rate_factor": 1.0, "kl_target": 0.01, "kl_horizon": 20}
    config = PPOConfig(**defaults_of_ppo | (ppo_settings or {}))
    return rl_run(folder, output, RLConfig(**defaults | settings), ppo=config)


def train(run: RLRun) -> list[dict[str, Any]]:
    return logged(ppo.train, run)


def test_policy_learns_to_say_the_answer(folder: Path) -> None:
    run = make_run(
        folder,
        ppo_settings={"critic": "sft", "value_clip": 100.0, "kl_target": 0.0},
        num_steps=14,
        completions_per_prompt=32,
        microbatch_sequences=64,
        max_new_tokens=8,
        model_weight=0.0,
        kl_coef=0.0,
        unfinished_penalty=0.0,
        epochs_per_step=2,
    )
    lines = train(run)
    assert lines[0]["reward/verifiable"] < 0.15
    assert lines[-1]["reward/verifiable"] > 0.85


def test_critic_learns_what_completions_are_rewarded(folder: Path) -> None:
    """Nearly all are cut off, which costs 1."""
    settings = {"model_weight": 0.0, "verifiable_weight": 0.0, "unfinished_penalty": 1.0, "kl_coef": 0.0}
    lines = train(make_run(folder, ppo_settings={"critic": "sft", "value_clip": 100.0}, num_steps=10, **settings))
    assert lines[0]["critic/loss"] > 0.3
    assert lines[-1]["critic/loss"] < 0.05


def test_killed_run_resumes_with_the_same_results(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Policy, critic and KL coefficient: the kill comes after the line of step 3, long after the checkpoint of step 2."""
    undisturbed = train(make_run(folder, "undisturbed"))
    killed = make_run(folder, "killed")

    def die(*arguments: Any) -> None:
        if arguments[-1] == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer, "add_rollouts", die)
        train(killed)
    assert untimed(train(killed)) == untimed(undisturbed)
    coefficients = [line["policy/kl_coef"] for line in undisturbed]
    assert len(coefficients) == 4 and all(one != other for one, other in pairwise(coefficients))  # adapted at each step
    weights, others = (load_file(folder / name / "model.safetensors") for name in ("undisturbed", "killed"))
    assert all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_microbatches_and_zero_stage_do_not_change_the_results(folder: Path, zero_stage: int) -> None:
    whole = train(make_run(folder, "whole", num_steps=2))
    parts = train(make_run(folder, "parts", num_steps=2, microbatch_sequences=1, zero_stage=zero_stage))
    for before, after in zip(untimed(whole), untimed(parts), strict=True):
        assert after == pytest.approx(before, rel=1e-3, abs=1e-4)


def test_first_values_of_the_critic_are_the_normalised_scores(folder: Path) -> None:
    reward_model = load_reward_model(folder / "reward_model")
    tokens = torch.randint(0, 300, (2, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(2, 6)
    mask[1, :4] = 0
    values = Critic(reward_model, mean=0.3, deviation=0.5)(tokens, mask)
    for end in (3, 6):
        scores = reward_model(tokens[:, :end], torch.tensor([end, end]))
        torch.testing.assert_close(values[:, end - 1], (scores - 0.3) / 0.5 * mask[:, end - 1])


@pytest.mark.parametrize(
    ("kl", "expected"),
    [(6.0, 0.1), (60.0, 0.1 * math.exp(0.002)), (6.6, 0.1 * math.exp(0.001)), (0.0, 0.1 * math.exp(-0.002))],
)
def test_kl_coefficient_moves_towards_the_target(kl: float, expected: float) -> None:
    config = PPOConfig(kl_target=6.0, kl_horizon=10000)
    assert next_kl_coef(0.1, kl, 100, config) == pytest.approx(expected)


def test_kl_coefficient_stays_positive_with_many_rollouts_a_step() -> None:
    assert next_kl_coef(0.02, 1.0, 640, PPOConfig(kl_target=6.0, kl_horizon=100)) > 0


def test_fixed_kl_coefficient_stays() -> None:
    assert next_kl_coef(0.1, 60.0, 100, PPOConfig()) == 0.1
