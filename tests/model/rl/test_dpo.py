"""DPO: it prefers what the pairs prefer, compares with the SFT model, and resumes after a kill with the same results."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model import losses
from model.config import OptimConfig, TrainConfig
from model.data.conversations import PreferencePairs
from model.network.huggingface import load_transformer
from model.network.transformer import RewardModel
from model.rl import dpo
from model.rl.config import DPOLossConfig, DPORun, PPOConfig, RLConfig
from model.tokenizer.chat import ChatTokenizer
from model.training import trainer
from tasks.artifacts import manifest as artifacts
from tasks.artifacts.manifest import SFTModel, Tokenizer
from tasks.artifacts.store import Store
from tasks.conversations.sources import PreferencesConfig, PromptsConfig, preferences, prompts
from tasks.execution.runner import execute
from tasks.posttrain.rlhf import RLHFConfig, rlhf
from tests.support.tiny_models import finish, tiny_config, write_lines, write_model, write_tokenizer

WORDS = ["sky", "red", "green", "blue", "mayor"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    encoder = write_tokenizer(tmp_path, vocab_size=400)
    write_model(tmp_path / "sft", encoder.vocab_size)
    # The colour that is asked for is chosen, whatever the words around it: prompts and sides of several lengths.
    pairs = [
        {
            "messages": [{"role": "user", "content": f"say {WORDS[number % 5]} " + "now " * (number % 4)}],
            "chosen": "it is " + "yes " * (number % 3),
            "rejected": "I do not know",
        }
        for number in range(60)
    ]
    write_lines(tmp_path / "train.jsonl", pairs[:48])
    write_lines(tmp_path / "validation.jsonl", pairs[48:])
    return tmp_path


def make_run(folder: Path, output: str = "out", dpo_settings: dict[str, Any] | None = None, **settings: Any) -> DPORun:
    (folder / output).mkdir()
    defaults: dict[str, Any] = {
        "num_steps": 4,
        "batch_tokens": 8 * 64,
        "sequence_tokens": 64,
        "checkpoint_every_steps": 2,
        "sample_every_steps": 0,
        "eval_every_steps": 2,
    }
    return DPORun(
        objective="dpo",
        dpo=DPOLossConfig(**(dpo_settings or {})),
        model=tiny_config(ChatTokenizer.load(folder / "tokenizer.json").vocab_size),
        train=TrainConfig(**defaults | settings),
        optim=OptimConfig(learning_rate=1e-3, weight_decay=0.0),
        tokenizer=str(folder / "tokenizer.json"),
        train_paths=(str(folder / "train.jsonl"),),
        validation_paths=(str(folder / "validation.jsonl"),),
        initial_weights=str(folder / "sft"),
        output=str(folder / output),
    )


def train(run: DPORun) -> list[dict[str, Any]]:
    dpo.train(run, Path(run.output) / "checkpoints", threading.Event())
    return [json.loads(line) for line in (Path(run.output) / "metrics.jsonl").read_text().splitlines()]


def results(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = ("step", "train/loss", "train/gradient", "validation/")
    return [{name: value for name, value in line.items() if name.startswith(kept)} for line in lines]


@pytest.mark.parametrize("loss_type", ["sigmoid", "robust", "hinge", "ipo"])
def test_policy_learns_what_the_pairs_prefer(folder: Path, loss_type: str) -> None:
    lines = train(make_run(folder, dpo_settings={"loss_type": loss_type, "label_smoothing": 0.1}, num_steps=20))
    assert lines[-1]["validation/accuracy"] == 1.0
    assert lines[-1]["validation/chosen_log_ratio"] > lines[-1]["validation/rejected_log_ratio"] + 1
    assert lines[-1]["validation/loss_nats"] < lines[1]["validation/loss_nats"]


def test_gains_alone_learn_what_the_pairs_prefer(folder: Path) -> None:
    run = make_run(folder, num_steps=20).model_copy(update={"gain_rate_factor": 20.0})
    assert train(run)[-1]["validation/accuracy"] == 1.0
    first, last = (load_file(folder / name / "model.safetensors") for name in ("sft", "out"))
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    assert moved == {name for name in first if first[name].dim() == 1}


def test_first_loss_is_that_of_the_reference_itself(folder: Path) -> None:
    """Policy and reference are one model: every log-ratio is 0, and the loss log 2."""
    [line] = train(make_run(folder, num_steps=1, eval_every_steps=0))
    assert line["train/loss_nats"] == pytest.approx(0.693147, abs=1e-5)


def test_likelihood_of_the_chosen_completion_is_a_mean_over_its_tokens(folder: Path) -> None:
    run = make_run(folder)
    pairs = PreferencePairs([str(folder / "train.jsonl")], 64, ChatTokenizer.load(run.tokenizer))
    batch = dpo.ReferencedDataset(pairs, np.arange(5), torch.zeros(5, 2)).fetch(np.arange(5))
    model = load_transformer(folder / "sft")
    without, with_it = (
        dpo.PreferenceObjective(model, DPOLossConfig(sft_weight=weight)).measure(*batch)[0] for weight in (0.0, 2.0)
    )
    logprobs = losses.token_logprobs(model(batch.tokens)[:, :-1], batch.tokens[:, 1:]) * batch.mask
    expected = -(logprobs.sum(-1) / batch.mask.sum(-1))[::2].sum()
    torch.testing.assert_close(with_it - without, 2 * expected, rtol=1e-5, atol=1e-4)


def test_log_ratios_are_those_of_the_completions_alone(folder: Path) -> None:
    run = make_run(folder)
    encoder, model = ChatTokenizer.load(run.tokenizer), load_transformer(folder / "sft")
    records = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    pairs = PreferencePairs([str(folder / "train.jsonl")], 64, encoder)
    used = np.array([1, 2, 7])
    dataset = dpo.ReferencedDataset(pairs, used, torch.zeros(3, 2))
    objective, batch = dpo.PreferenceObjective(model, DPOLossConfig()), dataset.fetch(used)
    ratios = objective.log_ratios(objective.logprobs(batch), batch)
    for row, number in enumerate(used):
        prompt = encoder.render_prompt(records[number]["messages"])
        for side, name in enumerate(("chosen", "rejected")):
            reply = {"role": "assistant", "content": records[number][name]}
            tokens = torch.tensor([encoder.render([*records[number]["messages"], reply]).tokens])
            logprobs = losses.token_logprobs(model(tokens)[:, :-1], tokens[:, 1:])
            # The last prompt token predicts the first of the completion.
            assert ratios[row, side].item() == pytest.approx(logprobs[0, len(prompt) - 1 :].sum().item(), abs=1e-4)


def test_killed_run_resumes_with_the_same_results(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = train(make_run(folder, "undisturbed"))
    killed, take_step = make_run(folder, "killed"), trainer.Trainer.take_step

    def die(self: trainer.Trainer, step: int) -> None:
        take_step(self, step)
        if step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer.Trainer, "take_step", die)
        train(killed)
    assert results(train(killed)) == results(undisturbed)
    weights, others = (load_file(folder / name / "model.safetensors") for name in ("undisturbed", "killed"))
    assert all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize("settings", [{"microbatch_sequences": 2}, {"zero_stage": 3}], ids=str)
def test_microbatches_and_zero_stage_do_not_change_the_results(folder: Path, settings: dict[str, int]) -> None:
    whole = results(train(make_run(folder, "whole", microbatch_sequences=8)))
    parts = results(train(make_run(folder, "parts", **settings)))
    for before, after in zip(whole, parts, strict=True):
        assert after == pytest.approx(before, rel=1e-3, abs=1e-4)


def stage(folder: Path, store: Store, **settings: Any) -> Any:
    encoder = write_tokenizer(store.folder("tokenizer/t"), vocab_size=400)
    write_model(store.folder("sft/s"), encoder.vocab_size)
    write_model(store.folder("reward/j"), encoder.vocab_size, RewardModel)
    asked = [{"messages": [{"role": "user", "content": f"say {word}"}], "answer": "is"} for word in WORDS]
    write_lines(folder / "prompts.jsonl", asked)
    return rlhf(
        finish(store, SFTModel, "sft/s"),
        finish(store, artifacts.RewardModel, "reward/j"),
        finish(store, Tokenizer, "tokenizer/t"),
        prompts(PromptsConfig(prompts=str(folder / "prompts.jsonl")), world_seed=1),
        preferences(PreferencesConfig(preferences=str(folder / "train.jsonl"), validation_fraction=0.2), world_seed=1),
        RLHFConfig(**settings),
    )


def test_dpo_stage_trains_on_two_ranks_with_zero_3(folder: Path, store: Store) -> None:
    """It reads pairs, and neither prompts nor a reward model; one rank has the same results."""
    settings = {"num_steps": 2, "batch_tokens": 512, "sequence_tokens": 64, "sample_every_steps": 0}
    step = stage(folder, store, algorithm="dpo", dpo_train=TrainConfig(num_ranks=2, zero_stage=3, **settings))
    assert set(step.inputs) == {"assistant", "tokenizer", "preferences"}
    two = execute(step, store)
    one = execute(stage(folder, store, algorithm="dpo", dpo_train=TrainConfig(**settings)), store)
    assert two.kind == one.kind == "Policy"
    assert two.metrics["train/loss_nats"] == pytest.approx(one.metrics["train/loss_nats"], rel=1e-4)
    load_transformer(store.folder(step.id))


def test_ppo_stage_trains_on_two_ranks_with_zero_3(folder: Path, store: Store) -> None:
    config = RLConfig(
        num_steps=2, prompts_per_step=2, completions_per_prompt=1, max_new_tokens=6, num_ranks=2, zero_stage=3,
        updates_per_step=1, validation_fraction=0.4,
    )  # fmt: skip
    step = stage(folder, store, algorithm="ppo", train=config)
    made = execute(step, store)
    assert made.counts["rollouts"] == 4
    assert {"critic/loss", "policy/kl_coef", "before/reward_mean", "validation/reward_mean"} <= set(made.metrics)
    load_transformer(store.folder(step.id))


def test_settings_of_other_algorithms_do_not_change_the_fingerprint(folder: Path, store: Store) -> None:
    grpo = stage(folder, store)
    assert grpo.fingerprint == stage(folder, store, ppo=PPOConfig(trace=0.5), dpo=DPOLossConfig(beta=0.5)).fingerprint
    assert grpo.fingerprint != stage(folder, store, train=RLConfig(num_steps=3)).fingerprint
    ppo = stage(folder, store, algorithm="ppo")
    assert ppo.fingerprint != stage(folder, store, algorithm="ppo", ppo=PPOConfig(trace=0.5)).fingerprint


def test_grpo_with_one_completion_per_prompt_raises_error() -> None:
    with pytest.raises(ValueError, match="leaves GRPO nothing to compare"):
        RLHFConfig(train=RLConfig(completions_per_prompt=1, updates_per_step=1))


def test_kl_target_without_a_coefficient_raises_error() -> None:
    with pytest.raises(ValueError, match="kl_coef=0 cannot be adapted"):
        RLHFConfig(algorithm="ppo", ppo=PPOConfig(kl_target=6.0), train=RLConfig(kl_coef=0.0))


def test_gains_alone_with_muon_raise_error() -> None:
    with pytest.raises(ValueError, match="moves matrices, and with a gain_rate_factor they stay"):
        RLHFConfig(gain_rate_factor=50.0, optim=OptimConfig(optimizer="muon"))


def test_pairs_of_which_none_fits_raise_user_error(folder: Path) -> None:
    with pytest.raises(ValueError, match="none of 48 pairs fits into sequence_tokens=4"):
        train(make_run(folder, sequence_tokens=4))
