"""Reinforcement learning from rewards: GRPO, through a DeepSpeed engine. `python -m model.rl.grpo RUN.json`.

Reads an SFT model, a reward model, a tokenizer and prompts. Writes `metrics.jsonl` (a line a step), `rollouts.jsonl` (the best and the
worst rollout of one prompt a step, for the eye) and, at the end, `model.safetensors`, `config.json` and `summary.json`.

The algorithm is read downwards in `train`:

1. G completions for each of P prompts are drawn from the policy as it is (GRPO, Shao et al. 2024, https://arxiv.org/abs/2402.03300).
2. A completion is rewarded with the reward model's score, counted in standard deviations from the mean that the SFT model
   reaches, plus a verifiable reward where the prompt has an answer, less a penalty where it was cut off.
3. Its advantage is its reward less its group's mean, by the group's deviation; without the latter it is Dr. GRPO
   (Liu et al. 2025, https://arxiv.org/abs/2503.20783). There is no value model.
4. The log-probabilities of its tokens are taken under the policy that drew it and under the frozen reference, the SFT model.
5. The rollouts are split over a few updates, each on PPO's clipped surrogate (Schulman et al. 2017, https://arxiv.org/abs/1707.06347)
   with the upper clip set apart, and averaged over all tokens, not over completions first, which would favour long wrong ones
   (both DAPO, Yu et al. 2025, https://arxiv.org/abs/2503.14476), plus the k3 estimate of the KL to the reference, as in GRPO.

A step is a function of the seed, its number and the weights before it: a run that was killed goes on exactly.

Metrics: reward/mean, reward/model (in deviations), reward/verifiable (share right, of prompts with an answer), completion/tokens_mean,
completion/finished_fraction, policy/kl_k3 and policy/entropy_nats (per token), policy/clip_fraction (of tokens whose
gradient the clip cuts), policy/learning_rate, phase/*_seconds, and the first five as validation/*: greedy, on held-out prompts.
"""

import json
import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from model import losses
from model.config import num_parameters
from model.data.dataset import shuffled
from model.inference.generate import NonFiniteError
from model.inference.scoring import pad
from model.network.huggingface import (
    load_reward_model,
    load_transformer,
)
from model.network.transformer import Transformer
from model.rl.config import RLConfig, RLRun
from model.rl.rollouts import Prompt, RewardFunction, Rollouts, calibrate, read_prompts, roll_out, show, split_prompts
from model.tokenizer.chat import ChatTokenizer
from model.training import optim
from model.training.checkpoints import Checkpoints
from model.training.engine import Engine, EngineConfig, join_ranks
from model.training.metrics import clocked
from model.training.trainer import Trainer, run_rank

Metrics = dict[str, float]


class Batch(NamedTuple):
    """What the policy learns from."""

    tokens: Tensor  # [N, T] int64, padded on the right
    mask: Tensor  # [N, T - 1] 1 where the next token is one of the completion
    advantages: Tensor  # [N]
    old_logprobs: Tensor  # [N, T - 1] of the next token, under the policy that drew it
    reference_logprobs: Tensor  # [N, T - 1]

    def rows(self, rows: Tensor) -> "Batch":
        return Batch(*(tensor[rows] for tensor in self))


class Means:
    """Means by metric, of sums that come in from microbatches."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, float] = defaultdict(float)

    def add(self, name: str, values: Tensor, mask: Tensor | None = None) -> None:
        """Add the values [...], those where mask [...] is 1; nan has no value."""
        mask = (torch.ones_like(values) if mask is None else mask) * ~values.isnan()
        total_value, count = losses.masked_sum(values.nan_to_num(), mask)
        self.sums[name] += float(total_value)
        self.counts[name] += float(count)

    def over_ranks(self, engine: Engine) -> Metrics:
        """The means over all ranks, which have added to the same metrics; all ranks call it."""
        pairs = {name: (engine.total(self.sums[name]), engine.total(self.counts[name])) for name in sorted(self.counts)}
        return {name: value / count for name, (value, count) in pairs.items() if count}


class PolicyTrainer(Trainer):
    """A policy that learns from the rewards of its own completions."""

    def __init__(self, run: RLRun, checkpoints: Path, stop: threading.Event) -> None:
        """Raises ValueError where no prompt is short enough."""
        config = run.config
        join_ranks(config.num_ranks)
        super().__init__(config, Checkpoints(checkpoints, config.keep_checkpoints), Path(run.output), stop)
        self.run = run
        tokenizer = ChatTokenizer.load(run.tokenizer)
        self.prompts, self.heldout = split_prompts(read_prompts(run.prompts, tokenizer, config), config)
        self.engine = start_engine(run, is_resharded=self.checkpoints.is_resharded(config.num_ranks))
        self.reference = load_transformer(Path(run.initial_weights)).to(self.engine.device)
        reward_model = load_reward_model(Path(run.reward_model)).to(self.engine.device)
        self.reward_function = calibrate(RewardFunction(config, tokenizer, reward_model), self.reference, self.prompts)
        self.before = validate(self.engine, self.reference, self.reward_function, self.heldout)

    def train_step(self, step: int) -> Metrics:
        """A round of rollouts and its updates. Raises RuntimeError where the policy diverges, before a NaN is saved."""
        try:
            self.rollouts, metrics = train_step(
                self.engine, self.run, self.reward_function, self.reference, self.prompts, step
            )
            check_finite(self.model)
        except NonFiniteError as error:
            raise RuntimeError(
                f"step {step + 1} went wrong ({error}): take a lower learning rate than {self.run.optim.learning_rate:g}"
            ) from None
        return metrics

    def validate(self) -> Metrics:
        return validate(self.engine, self.model, self.reward_function, self.heldout)

    def record(self, done: int, metrics: Metrics) -> None:
        """Write the metrics and a few rollouts."""
        super().record(done, metrics)
        if self.engine.rank == 0:
            show(self.output / "rollouts.jsonl", self.rollouts, self.reward_function, done)

    def max_tokens(self) -> int:
        """The SFT model's."""
        shape = json.loads((Path(self.run.initial_weights) / "config.json").read_text())
        return int(shape["max_position_embeddings"])

    def summary(self, last: Metrics) -> dict[str, Any]:
        config = self.run.config
        return {
            "parameters": num_parameters(self.run.model),
            "steps": config.num_steps,
            "updates": config.num_steps * config.updates_per_step,
            "rollouts": config.num_steps * config.prompts_per_step * config.completions_per_prompt,
            **{name: value for name, value in last.items() if not name.startswith("phase/") and name != "step"},
            **{name.replace("validation/", "before/"): value for name, value in self.before.items()},
        }


def train(run: RLRun, checkpoints: Path, stop: threading.Event) -> None:
    """Train to the end, or until `stop` is set on some rank (SystemExit). Every rank calls it.

    Raises ValueError where no prompt is short enough, RuntimeError where the policy diverges, before a NaN is saved.
    """
    PolicyTrainer(run, checkpoints, stop).train()


def train_step(
    engine: Engine,
    run: RLRun,
    reward_function: RewardFunction,
    reference: Transformer,
    prompts: Sequence[Prompt],
    step: int,
) -> tuple[Rollouts, Metrics]:
    """One round of rollouts and the updates on them."""
    config, seconds, means = run.config, Metrics(), Means()
    with clocked(seconds, "phase/rollout_seconds"):  # 1 and 2
        positions = np.arange(step * config.prompts_per_step, (step + 1) * config.prompts_per_step)
        chosen = shuffled(len(prompts), positions, config.seed)
        mine = [prompts[index] for index in chosen[engine.rank :: config.num_ranks]]
        rollouts = roll_out(engine.module, reward_function, repeat(mine, config), draw_seed(config, step, engine.rank))
    with clocked(seconds, "phase/logprobs_seconds"):  # 3 and 4
        batch = make_batch(rollouts, engine.module, reference, config)
    measure(means, rollouts)
    with clocked(seconds, "phase/update_seconds"):  # 5
        for number in range(config.updates_per_step):
            rate = set_learning_rate(engine, run, step * config.updates_per_step + number)
            rows = torch.arange(number, len(batch.tokens), config.updates_per_step)
            update(engine, run, batch.rows(rows), means)
    return rollouts, means.over_ranks(engine) | seconds | {"policy/learning_rate": rate}


def check_finite(policy: Transformer) -> None:
    """Raises NonFiniteError where a weight is none."""
    if not all(weight.isfinite().all() for weight in policy.parameters()):
        raise NonFiniteError("the updates made weights of the policy NaN or infinite")


def make_batch(rollouts: Rollouts, policy: Transformer, reference: Transformer, config: RLConfig) -> Batch:
    """3 and 4: advantages within the groups, and the log-probabilities before any update."""
    device = next(policy.parameters()).device
    starts = torch.tensor([len(prompt.tokens) for prompt in rollouts.prompts])
    sequences = [[*prompt.tokens, *done] for prompt, done in zip(rollouts.prompts, rollouts.completions, strict=True)]
    tokens, lengths = pad(sequences)
    targets = torch.arange(1, tokens.shape[1])
    mask = (targets >= starts[:, None]) & (targets < lengths[:, None])
    grouped = rollouts.rewards.view(-1, config.completions_per_prompt)
    advantages = losses.group_advantages(grouped, config.is_advantage_scaled).flatten()
    tokens = tokens.to(device)
    old, of_reference = (logprobs(model, tokens, config) for model in (policy, reference))
    return Batch(tokens, mask.float().to(device), advantages.to(device), old, of_reference)


@torch.no_grad()
def logprobs(model: Transformer, tokens: Tensor, config: RLConfig) -> Tensor:
    """4: log p of each next token at the rollouts' temperature: tokens [N, T] -> [N, T - 1]."""
    parts = torch.split(tokens, config.microbatch_sequences)
    return torch.cat([losses.token_logprobs(model(part)[:, :-1], part[:, 1:], config.temperature) for part in parts])


def update(engine: Engine, run: RLRun, batch: Batch, means: Means) -> None:
    """5: one optimizer update on some of the rollouts, in microbatches."""
    config = run.config
    num_tokens = engine.total(float(batch.mask.sum()))
    for rows in torch.split(torch.arange(len(batch.tokens)), microbatch_rows(config)):
        part = batch.rows(rows)
        logits = engine(part.tokens)[:, :-1] / config.temperature
        engine.backward(surrogate(logits, part, config, means), num_tokens)
        engine.step()


def surrogate(logits: Tensor, part: Batch, config: RLConfig, means: Means) -> Tensor:
    """5: the clipped surrogate and the KL, summed over tokens: logits [n, T - 1, V] -> nats."""
    now = losses.token_logprobs(logits, part.tokens[:, 1:])
    advantages = part.advantages[:, None]
    kl = losses.kl_k3(now, part.reference_logprobs)
    loss = losses.policy_loss(now, part.old_logprobs, advantages, config.clip_low, config.clip_high)
    with torch.no_grad():
        ratio = (now - part.old_logprobs).exp()
        is_clipped = torch.where(advantages > 0, ratio > 1 + config.clip_high, ratio < 1 - config.clip_low)
        means.add("policy/kl_k3", kl, part.mask)
        means.add("policy/entropy_nats", losses.entropy(logits), part.mask)
        means.add("policy/clip_fraction", is_clipped.float(), part.mask)
    return ((loss + config.kl_coef * kl) * part.mask).sum()


def validate(
    engine: Engine, policy: Transformer, reward_function: RewardFunction, heldout: Sequence[Prompt]
) -> Metrics:
    """What greedy completions of held-out prompts are worth; nothing where none are held out."""
    num_ranks = reward_function.config.num_ranks
    even = heldout[: len(heldout) // num_ranks * num_ranks]
    if not even:
        return {}
    means = Means()
    mine = list(even[engine.rank :: num_ranks])
    measure(means, roll_out(policy, reward_function, mine, seed=0, temperature=0.0))
    return {f"validation/{name.replace('/', '_')}": value for name, value in means.over_ranks(engine).items()}


def measure(means: Means, rollouts: Rollouts) -> None:
    """Add what the rollouts are worth."""
    means.add("reward/mean", rollouts.rewards)
    means.add("reward/model", rollouts.scores)
    means.add("reward/verifiable", rollouts.is_right)
    means.add("completion/tokens_mean", torch.tensor([float(len(done)) for done in rollouts.completions]))
    means.add("completion/finished_fraction", rollouts.is_finished)


def repeat(prompts: Sequence[Prompt], config: RLConfig) -> list[Prompt]:
    """Every prompt G times, one after the other."""
    return [prompt for prompt in prompts for _ in range(config.completions_per_prompt)]


def draw_seed(config: RLConfig, step: int, rank: int) -> int:
    """Of the rollouts of one step and rank."""
    return int(np.random.default_rng((config.seed, step, rank)).integers(2**62))


def start_engine(run: RLRun, is_resharded: bool) -> Engine:
    """The policy with its optimizer, which starts from the SFT model."""
    config, size = run.config, microbatch_rows(run.config)
    settings = EngineConfig(
        run.optim,
        config.dtype,
        config.zero_stage,
        config.num_ranks,
        microbatch=size,
        num_microbatches=update_rows(config) // size,
    )
    return Engine(load_transformer(Path(run.initial_weights)), settings, is_resharded=is_resharded)


def update_rows(config: RLConfig) -> int:
    """Rollouts of one rank in one update."""
    return config.prompts_per_step * config.completions_per_prompt // config.num_ranks // config.updates_per_step


def microbatch_rows(config: RLConfig) -> int:
    """The largest divisor of a rank's share of an update that microbatch_sequences admits."""
    most = min(config.microbatch_sequences, update_rows(config))
    return max(size for size in range(1, most + 1) if update_rows(config) % size == 0)


def set_learning_rate(engine: Engine, run: RLRun, number: int) -> float:
    """Of update `number`, from 0."""
    factor = optim.learning_rate_factor(run.optim, number, run.config.num_steps * run.config.updates_per_step)
    engine.set_learning_rates(factor)
    return factor * run.optim.learning_rate


def main() -> None:
    """Train the run whose file the command line names."""
    run_rank(lambda path, stop: train(RLRun.model_validate_json(path.read_text()), path.parent / "checkpoints", stop))


if __name__ == "__main__":
    main()
