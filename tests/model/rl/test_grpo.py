"""GRPO: it learns what is rewarded, resumes after a kill with the same results, and its loss and rewards are those configured."""

import json
import math
import threading
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model import losses
from model.config import GenerateConfig
from model.inference.cpu_kernels import make_decoder
from model.inference.generate import draw
from model.inference.logits import NonFiniteError
from model.inference.scoring import rewards
from model.network.huggingface import load_reward_model, load_transformer
from model.network.transformer import RewardModel
from model.rl import grpo as rl
from model.rl import online, trainer
from model.rl.completions import CompletionModel, Completions, completion_logprobs, pad_completions, score_completions
from model.rl.config import RLConfig, RLRun
from model.rl.means import Means
from model.rl.prompts import Prompt, read_prompts, split_prompts
from model.rl.rewards import RewardFunction, Rewards
from model.rl.rollouts import Rollouts, add_rollouts, calibrate, roll_out
from model.tokenizer.chat import ChatTokenizer
from model.training.checkpoints import complete_checkpoints
from model.training.metrics import Metrics
from tasks.artifacts import manifest as artifacts
from tasks.artifacts.manifest import SFTModel, Tokenizer
from tasks.artifacts.store import Store
from tasks.conversations.sources import PreferencesConfig, PromptsConfig, preferences, prompts
from tasks.execution.runner import execute
from tasks.posttrain.rlhf import RLHFConfig, rlhf
from tests.support.rl_runs import logged, rl_run, untimed
from tests.support.tiny_models import finish, write_lines, write_model, write_tokenizer

COLOURS = ["sky", "red", "green", "yes"] * 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    encoder = write_tokenizer(tmp_path, vocab_size=400)
    write_model(tmp_path / "sft", encoder.vocab_size)
    write_model(tmp_path / "reward_model", encoder.vocab_size, RewardModel)
    prompts = [
        {"messages": [{"role": "user", "content": f"say {word} {number}"}], "answer": "is" if number % 3 else None}
        for number, word in enumerate(COLOURS)
    ]
    write_lines(tmp_path / "prompts.jsonl", prompts)
    return tmp_path


def make_run(folder: Path, output: str = "out", **settings: Any) -> RLRun:
    (folder / output).mkdir()
    defaults: dict[str, Any] = {
        "num_steps": 4,
        "prompts_per_step": 2,
        "completions_per_prompt": 4,
        "max_new_tokens": 6,
        "checkpoint_every_steps": 2,
        "eval_every_steps": 2,
    }
    return rl_run(folder, output, RLConfig(**defaults | settings))


def train(run: RLRun) -> list[dict[str, Any]]:
    return logged(rl.train, run)


def test_policy_learns_to_say_the_answer(folder: Path) -> None:
    """The SFT model almost never says it."""
    run = make_run(
        folder,
        num_steps=14,
        prompts_per_step=4,
        completions_per_prompt=32,
        microbatch_sequences=64,
        max_new_tokens=8,
        model_weight=0.0,
        kl_coef=0.0,
        unfinished_penalty=0.0,
    )
    lines = train(run)
    summary = json.loads((folder / "out" / "summary.json").read_text())
    assert lines[0]["reward/verifiable"] < 0.15
    assert lines[-1]["reward/verifiable"] > 0.85
    assert summary["before/reward_verifiable"] == 0.0
    assert summary["validation/reward_verifiable"] == 1.0
    assert summary["rollouts"] == 14 * 4 * 32
    assert load_transformer(folder / "out").config == run.model


def test_kl_penalty_keeps_the_policy_near_the_reference(folder: Path) -> None:
    settings = {"num_steps": 8, "completions_per_prompt": 16, "eval_every_steps": 0, "microbatch_sequences": 32}
    free = train(make_run(folder, "free", kl_coef=0.0, **settings))
    held = train(make_run(folder, "held", kl_coef=10.0, **settings))
    assert held[-1]["policy/kl_k3"] < free[-1]["policy/kl_k3"] / 2


def test_killed_run_resumes_with_the_same_results(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kill comes after the line of step 3 was written and long after the checkpoint of step 2."""
    undisturbed = train(make_run(folder, "undisturbed"))
    killed = make_run(folder, "killed")

    def die(path: Path, rollouts: Rollouts, tokenizer: ChatTokenizer, group_size: int, step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer, "add_rollouts", die)
        train(killed)
    assert untimed(train(killed)) == untimed(undisturbed)
    weights, others = (load_file(folder / name / "model.safetensors") for name in ("undisturbed", "killed"))
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_rollouts_of_a_repeated_step_replace_earlier_ones(folder: Path) -> None:
    tokenizer = ChatTokenizer.load(folder / "tokenizer.json")
    parts = Rewards(*torch.tensor([[0.0, 2.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 2.0, 1.0]]))
    completions = [tokenizer.encode(text) for text in ("bad", "good", "fair")]
    rollouts = Rollouts([Prompt("say", [1], None)] * 3, completions, parts)
    for step in (1, 2, 3, 2):
        add_rollouts(folder / "rollouts.jsonl", rollouts, tokenizer, 3, step)
    lines = [json.loads(line) for line in (folder / "rollouts.jsonl").read_text().splitlines()]
    assert [(line["step"], line["completion"]) for line in lines] == [(1, "good"), (1, "bad"), (2, "good"), (2, "bad")]


def test_stopped_run_saves_a_checkpoint_and_resumes(folder: Path) -> None:
    undisturbed = train(make_run(folder, "undisturbed"))
    stopped = make_run(folder, "stopped")
    stop = threading.Event()
    stop.set()
    with pytest.raises(SystemExit):
        rl.train(stopped, folder / "stopped" / "checkpoints", stop)
    assert untimed(train(stopped)) == untimed(undisturbed)


@pytest.mark.parametrize("weight", [float("nan"), 1e38])
def test_diverging_policy_fails_with_its_step_and_keeps_the_last_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch, weight: float
) -> None:
    """At once if weights are NaN, otherwise when the next rollouts cannot be sampled."""
    run, update, numbers = (
        make_run(folder, checkpoint_every_steps=1, updates_per_step=1),
        rl.GRPOTrainer.update,
        count(1),
    )

    def diverge(trainer: rl.GRPOTrainer, *arguments: Any, **named: Any) -> None:
        update(trainer, *arguments, **named)
        if next(numbers) == 3:
            torch.nn.init.constant_(trainer.model.model.norm.weight, weight)

    monkeypatch.setattr(rl.GRPOTrainer, "update", diverge)
    with pytest.raises(RuntimeError, match=r"^step [34] failed \(.*\): lower the learning rate 0\.01$"):
        train(run)
    assert "step-00000002" in [path.name for path in complete_checkpoints(folder / "out" / "checkpoints")]


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_microbatches_and_zero_stage_do_not_change_the_results(folder: Path, zero_stage: int) -> None:
    whole = train(make_run(folder, "whole", num_steps=2))
    parts = train(make_run(folder, "parts", num_steps=2, microbatch_sequences=1, zero_stage=zero_stage))
    for before, after in zip(untimed(whole), untimed(parts), strict=True):
        assert after == pytest.approx(before, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("zero_stage", [0, 1, 3])
def test_gains_alone_are_trained_and_resume_after_a_kill(
    folder: Path, monkeypatch: pytest.MonkeyPatch, zero_stage: int
) -> None:
    settings = {"num_steps": 3, "checkpoint_every_steps": 1, "zero_stage": zero_stage}
    run = make_run(folder, **settings).model_copy(update={"gain_rate_factor": 5.0})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer, "add_rollouts", kill_at_step_2)
        train(run)
    lines = train(run)
    whole = train(make_run(folder, "whole", num_steps=3).model_copy(update={"gain_rate_factor": 5.0}))
    for before, after in zip(untimed(whole), untimed(lines), strict=True):
        assert after == pytest.approx(before, rel=1e-3, abs=1e-4)
    assert lines[0]["policy/learning_rate"] == pytest.approx(5e-2)
    first, last = (load_file(folder / name / "model.safetensors") for name in ("sft", "out"))
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    assert moved == {name for name in first if first[name].dim() == 1}


def kill_at_step_2(*arguments: Any) -> None:
    if arguments[-1] == 2:
        raise KeyboardInterrupt


def test_old_logprobs_are_those_at_sampling_and_masked_to_the_completion(folder: Path) -> None:
    policy, encoder = load_transformer(folder / "sft"), ChatTokenizer.load(folder / "tokenizer.json")
    texts = ["red", "what colour is the sky?", "yes no", "1"]
    prompts = [
        Prompt(text, encoder.render_prompt([{"role": "user", "content": text}]), None) for text in texts for _ in "ab"
    ]
    drawn = draw(
        make_decoder(policy),
        [prompt.tokens for prompt in prompts],
        GenerateConfig(max_new_tokens=6),
        encoder.encode("e")[0],
    )
    batch = pad_completions([prompt.tokens for prompt in prompts], [completion.tokens for completion in drawn])
    old_logprobs = completion_logprobs(policy, batch)
    for row, completion in enumerate(drawn):
        is_completion = batch.mask[row].bool()
        assert batch.tokens[row, 1:][is_completion].tolist() == completion.tokens
        torch.testing.assert_close(
            old_logprobs[row][is_completion], torch.tensor(completion.logprobs), atol=1e-5, rtol=0
        )


@pytest.mark.parametrize(("temperature", "dtype"), [(1.0, "float32"), (0.7, "float32"), (0.7, "bfloat16")])
def test_logprobs_of_rollouts_are_those_of_a_forward(folder: Path, temperature: float, dtype: str) -> None:
    run = make_run(folder, temperature=temperature, dtype=dtype)
    trainer = rl.GRPOTrainer(run, folder / "out/checkpoints", threading.Event())
    policy = trainer.whole_policy()
    rollouts = trainer.roll_out(0, policy, Metrics())
    completions = trainer.completions(rollouts)
    with torch.no_grad():
        found = trainer.sampled_logprobs(rollouts, policy, completions)
        every = score_completions(policy, completions.tokens, torch.ones_like(completions.mask), temperature)
    torch.testing.assert_close(found, every * completions.mask, atol=1e-5, rtol=0)


def test_reward_is_the_weighted_sum_of_its_parts(folder: Path) -> None:
    encoder, reward_model = ChatTokenizer.load(folder / "tokenizer.json"), load_reward_model(folder / "reward_model")
    config = RLConfig(model_weight=2.0, verifiable_weight=3.0, unfinished_penalty=5.0, score_clip=0.5)
    reward_function = RewardFunction(config, encoder, reward_model, mean=0.1, deviation=0.2)
    prompt = encoder.render_prompt([{"role": "user", "content": "what colour is the sky?"}])
    right, cut = [*encoder.encode("it is Blue."), encoder.turn_end], encoder.encode("bluer")
    prompts = [Prompt("", prompt, "blue"), Prompt("", prompt, "blue"), Prompt("", prompt, None)]
    made = reward_function(prompts, [right, cut, right])
    raw = rewards(reward_model, [(prompt, right), (prompt, [*cut, encoder.turn_end]), (prompt, right)])
    model = 2 * ((raw - 0.1) / 0.2).clamp(-0.5, 0.5)
    torch.testing.assert_close(made.total, model + torch.tensor([3.0, -5.0, 0.0]))
    assert made.is_right[:2].tolist() == [1.0, 0.0]
    assert made.is_right[2].isnan()


def test_nan_scores_of_the_reward_model_raise_nonfinite_error(folder: Path) -> None:
    encoder, reward_model = ChatTokenizer.load(folder / "tokenizer.json"), load_reward_model(folder / "reward_model")
    torch.nn.init.constant_(reward_model.score.weight, float("nan"))
    with pytest.raises(NonFiniteError, match="reward model's scores are NaN or infinite"):
        RewardFunction(RLConfig(), encoder, reward_model)([Prompt("", [1, 2], None)], [[3]])


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "is_clipped"),
    [
        (1.3, 1.0, -1.3, 0.0),  # with the bounds swapped: clipped to 1.1
        (1.6, 1.0, -1.5, 1.0),
        (0.8, -1.0, 0.9, 1.0),  # with the bounds swapped: not clipped
        (0.95, -1.0, 0.95, 0.0),
        (0.6, 1.0, -0.6, 0.0),
        (1.6, -1.0, 1.6, 0.0),
    ],
)
def test_policy_loss_clips_at_the_configured_bounds(
    ratio: float, advantage: float, loss: float, is_clipped: float
) -> None:
    config, means = RLConfig(clip_low=0.1, clip_high=0.5, kl_coef=0.0), Means()
    now, mask = torch.tensor([[-1.0, 3.0]]), torch.tensor([[1.0, 0.0]])
    old = torch.tensor([[-1.0 - math.log(ratio), float("nan")]])
    part = one_row(mask, advantage, old, old)
    assert online.policy_loss(now, part, mask, config, 0 * mask, means).item() == pytest.approx(loss, abs=1e-5)
    assert means.sums["policy/clip_fraction"] == is_clipped
    assert means.counts["policy/clip_fraction"] == 1


def one_row(mask: torch.Tensor, advantage: float, old: torch.Tensor, reference: torch.Tensor) -> online.Batch:
    tokens, none = torch.tensor([[0, 2, 1]]), torch.zeros_like(mask)
    return online.Batch(tokens, mask, mask, torch.tensor([[advantage]]), old, reference, torch.tensor([0]), none, none)


@pytest.mark.parametrize("bad", [float("inf"), float("nan"), 1e38])
def test_policy_loss_ignores_masked_places(bad: float) -> None:
    now = torch.tensor([[-1.0, bad]], requires_grad=True)
    mask = torch.tensor([[1.0, 0.0]])
    part = one_row(mask, 1.0, *torch.tensor([[[-1.0, bad]], [[-1.2, -bad]]]))
    loss = online.policy_loss(now, part, mask, RLConfig(), 0.1 * mask, Means())
    (gradient,) = torch.autograd.grad(loss, now)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert gradient[0, 1] == 0


class OneUpdate:
    """An engine that returns given log-probabilities, and keeps the loss of the update."""

    def __init__(self, logprobs: torch.Tensor) -> None:
        self.logprobs, self.loss = logprobs, 0.0

    def __call__(self, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [0 if mask[row].sum() == 1 else 1 for row in range(len(mask))]  # parts are ordered by length
        return self.logprobs[rows], torch.zeros_like(mask)

    def total(self, value: float) -> float:
        return value

    def backward(self, loss: torch.Tensor, num_terms: float) -> None:
        self.loss += loss.item() / num_terms

    def step(self) -> None:
        pass


@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
def test_kl_is_of_the_completions_of_dead_groups_too(loss_type: str) -> None:
    """Where every completion is right there is nothing to gain and something to lose."""
    mask = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    now, reference = torch.tensor([[-1.0, 0.0], [-2.0, -3.0]]), torch.tensor([[-1.5, 0.0], [-2.5, -2.0]])
    live = mask * torch.tensor([[1.0], [0.0]])
    advantages, none = torch.tensor([[2.0], [0.0]]), torch.zeros_like(mask)
    tokens = torch.tensor([[0, 2, 1], [0, 2, 1]])
    batch = online.Batch(tokens, mask, live, advantages, now, reference, torch.tensor([0, 0]), none, none)
    config = RLConfig(loss_type=loss_type, prompts_per_step=2, completions_per_prompt=1, updates_per_step=1)
    engine = OneUpdate(now)
    trainer = SimpleNamespace(config=config, engine=engine)
    online.OnlineTrainer.update_policy(trainer, batch, Means(), 0.5, is_first=False)  # type: ignore[arg-type]
    kl = losses.kl_estimate(now, reference, "k3", mask)
    mean = (kl[0, 0] + kl[1].mean()) / 2 if loss_type == "grpo" else kl.sum() / 3
    assert engine.loss == pytest.approx(-2.0 + 0.5 * mean.item())


def test_dead_groups_have_no_part_in_the_loss(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the groups are dead: the update is that of the other half alone."""
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    weights, terms = losses.token_weights(mask * torch.tensor([[0.0], [1.0]]), "dapo", 4)
    assert weights.tolist() == [[0, 0], [1, 0]]
    assert terms == 1
    # No prompt has an answer and the reward model counts nothing: all groups are dead, and the policy must not move.
    run = make_run(folder, num_steps=2, model_weight=0.0, verifiable_weight=0.0, unfinished_penalty=0.0)
    lines = train(run)
    assert [line["group/dead_fraction"] for line in lines] == [1.0, 1.0]
    before, after = load_file(folder / "sft" / "model.safetensors"), load_file(folder / "out" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_completion_model_equals_the_softmax_over_all_logits(folder: Path) -> None:
    policy = load_transformer(folder / "sft")
    tokens = torch.randint(0, 300, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[0, 0, 1, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 0, 0, 0, 0]]).float()
    logits = policy(tokens)[:, :-1] / 0.7
    logprobs, entropies = CompletionModel(policy, 0.7)(tokens, mask)
    expected = losses.token_logprobs(logits, tokens[:, 1:]) * mask
    torch.testing.assert_close(logprobs, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(entropies, losses.entropy(logits) * mask, atol=1e-5, rtol=0)
    weights = torch.rand(mask.shape, generator=torch.Generator().manual_seed(2))
    gradients = [
        torch.autograd.grad((weights * values).sum(), policy.model.embed_tokens.weight)[0]
        for values in (logprobs, expected)
    ]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)
    # In parts, sorted by length, without the padding.
    torch.testing.assert_close(completion_logprobs(policy, Completions(tokens, mask), 0.7, num_rows=2), logprobs)


def test_calibrated_scores_of_the_sft_model_have_mean_0_and_deviation_1(folder: Path) -> None:
    run = make_run(folder)
    encoder, policy = ChatTokenizer.load(run.tokenizer), load_transformer(folder / "sft")
    prompts = read_prompts(run.prompts, encoder, run.config)
    reward_function = RewardFunction(run.config, encoder, load_reward_model(folder / "reward_model"))
    calibrated = calibrate(reward_function, policy, prompts)
    again = roll_out(policy, calibrated, prompts, run.config.seed)
    assert again.rewards.scores.mean().item() == pytest.approx(0.0, abs=1e-4)
    assert again.rewards.scores.std(correction=0).item() == pytest.approx(1.0, abs=1e-3)


def test_answer_of_a_prompt_may_be_a_json_number(folder: Path) -> None:
    asked = {"messages": [{"role": "user", "content": "say 42"}], "answer": 42}
    write_lines(folder / "prompts.jsonl", [asked])
    run = make_run(folder)
    assert read_prompts(run.prompts, ChatTokenizer.load(run.tokenizer), run.config)[0].answer == "42"


def test_heldout_prompts_are_never_trained_on() -> None:
    prompts = [Prompt(f"prompt {number % 30}", [number % 30], None) for number in range(60)]
    training, heldout = split_prompts(prompts, RLConfig(validation_fraction=0.2))
    assert len(heldout) == 12
    assert not {prompt.text for prompt in training} & {prompt.text for prompt in heldout}


@pytest.mark.parametrize("num_copies", [1, 3, 40])
def test_split_prompts_holds_out_none_where_no_prompt_would_be_left(num_copies: int) -> None:
    prompts = [Prompt("a", [1], None)] * num_copies
    assert split_prompts(prompts, RLConfig(validation_fraction=0.9)) == (prompts, [])


def test_prompts_that_are_all_too_long_raise_user_error(folder: Path) -> None:
    with pytest.raises(ValueError, match="max_prompt_tokens=4"):
        rl.train(make_run(folder, max_prompt_tokens=4), folder / "checkpoints", threading.Event())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts_per_step": 3, "num_ranks": 2}, "num_ranks=2 does not divide"),
        ({"updates_per_step": 3}, "updates_per_step=3"),
    ],
)
def test_rollouts_that_do_not_divide_evenly_raise_error(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RLConfig(**settings)


def test_stage_trains_in_its_own_process_group(folder: Path, store: Store) -> None:
    encoder = write_tokenizer(store.folder("tokenizer/t"), vocab_size=400)
    write_model(store.folder("sft/s"), encoder.vocab_size)
    write_model(store.folder("reward/j"), encoder.vocab_size, RewardModel)
    step = rlhf(
        finish(store, SFTModel, "sft/s"),
        finish(store, artifacts.RewardModel, "reward/j", metrics={"pair_accuracy/all": 0.6, "pairs/all": 50.0}),
        finish(store, Tokenizer, "tokenizer/t"),
        prompts(PromptsConfig(prompts=str(folder / "prompts.jsonl")), world_seed=1),
        preferences(PreferencesConfig(), world_seed=1),
        RLHFConfig(train=make_run(folder, num_steps=2, num_ranks=2, zero_stage=1).config),
    )
    manifest = execute(step, store)
    assert manifest.counts["rollouts"] == 2 * 2 * 4
    assert {"before/reward_mean", "validation/reward_mean", "reward/mean"} <= set(manifest.metrics)
    files = {file.path for file in manifest.files}
    assert {"model.safetensors", "config.json", "metrics.jsonl", "rollouts.jsonl", "run.json"} <= files
    assert {"samples.jsonl", "diagnosis.jsonl", "training.svg"} <= files
    # A third of the prompts has no answer and no kind: the reward model alone rewards them, and ranks 60% of all pairs.
    assert manifest.metrics["unranked/all"] == 0.6
    load_transformer(store.folder(step.id))


def test_reward_model_of_another_vocabulary_raises_error(folder: Path, store: Store) -> None:
    encoder = write_tokenizer(store.folder("tokenizer/t"), vocab_size=400)
    write_model(store.folder("sft/s"), encoder.vocab_size)
    write_model(store.folder("reward/j"), encoder.vocab_size + 1, RewardModel)
    step = rlhf(
        finish(store, SFTModel, "sft/s"),
        finish(store, artifacts.RewardModel, "reward/j"),
        finish(store, Tokenizer, "tokenizer/t"),
        prompts(PromptsConfig(prompts=str(folder / "prompts.jsonl")), world_seed=1),
        preferences(PreferencesConfig(), world_seed=1),
        RLHFConfig(),
    )
    with pytest.raises(ValueError, match="reward/j has a vocabulary of"):
        execute(step, store)
