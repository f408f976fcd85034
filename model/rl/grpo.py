"""Reinforcement learning from rewards with GRPO, on a DeepSpeed engine: `python -m model.rl.grpo RUN.json`.

Reads RUN.json (an `RLRun`), an SFT model, a reward model, a tokenizer and prompts. Writes what every trainer does (model/training/trainer.py) and
`rollouts.jsonl`: the best and the worst completion of one prompt of each step.

The algorithm, as `GRPOTrainer.train_step` has it:

1. Sample G completions of each of P prompts from the current policy (GRPO, Shao et al. 2024, https://arxiv.org/abs/2402.03300).
2. Reward each completion (model/rl/rewards.py).
3. The advantage of a completion is its reward minus its group's mean (Dr. GRPO, Liu et al. 2025, https://arxiv.org/abs/2503.20783); GRPO
   divides it by the group's standard deviation, which a setting turns on. There is no value model.
4. Compute the log-probabilities of its tokens under the policy that sampled it and under the frozen reference policy, the SFT model.
5. Split the rollouts over a few updates. Each minimises PPO's clipped surrogate (Schulman et al. 2017, https://arxiv.org/abs/1707.06347) with
   separate clip bounds, averaged over all tokens of the update, plus kl_coef times the k3 estimate of the KL to the reference.

Departures from GRPO, both from DAPO (Yu et al. 2025, https://arxiv.org/abs/2503.14476): the upper clip bound may be larger than the lower one,
which keeps the policy exploring; and the average is over tokens, not over completions first, which would weigh a token of a long wrong
completion less than one of a short.

A step is a function of the seed, its number and the weights before it, so a killed run resumes with the same results.

Metrics: reward/mean, reward/model (standard deviations), reward/verifiable (fraction right, of completions whose prompt has an answer),
completion/tokens_mean, completion/finished_fraction, policy/kl_k3 and policy/entropy_nats (per token), policy/clip_fraction (of tokens
whose gradient is cut off), policy/learning_rate, phase/rollout_seconds, phase/logprobs_seconds, phase/update_seconds, and the trainer's. The
first five also as validation/reward_mean and so on: of greedy completions of held-out prompts; in the summary also as before/..., of the SFT model.
"""

import json
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from model import losses
from model.config import num_parameters
from model.data.dataset import shuffled
from model.inference.logits import NonFiniteError
from model.inference.scoring import pad
from model.network.huggingface import load_reward_model, load_transformer
from model.network.transformer import Transformer
from model.rl.config import RLConfig, RLRun
from model.rl.prompts import read_prompts, split_prompts
from model.rl.rewards import RewardFunction
from model.rl.rollouts import Rollouts, add_rollouts, calibrate, roll_out
from model.tokenizer.chat import ChatTokenizer
from model.training import optim
from model.training.checkpoints import Checkpoints
from model.training.engine import Engine, EngineConfig, join_ranks
from model.training.metrics import Metrics, clocked
from model.training.trainer import Trainer, run_rank


class Batch(NamedTuple):
    """Rollouts as tensors: N completions with their prompts, T tokens."""

    tokens: Tensor  # [N, T] int64, padded on the right
    mask: Tensor  # [N, T - 1] 1 where the next token belongs to the completion
    advantages: Tensor  # [N]
    old_logprobs: Tensor  # [N, T - 1] of the next token, under the policy that sampled it
    reference_logprobs: Tensor  # [N, T - 1]

    def rows(self, rows: Tensor) -> "Batch":
        """The rollouts with the numbers `rows` [n]."""
        return Batch(*(tensor[rows] for tensor in self))


class Means:
    """Means by metric, of values that are added microbatch by microbatch."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, float] = defaultdict(float)

    def add(self, name: str, values: Tensor, mask: Tensor | None = None) -> None:
        """Add the values [...], those where mask [...] is 1."""
        value_sum, count = losses.masked_sum(values, torch.ones_like(values) if mask is None else mask)
        self.sums[name] += float(value_sum)
        self.counts[name] += float(count)

    def add_rollouts(self, rollouts: Rollouts) -> None:
        """Add the rewards and lengths of completions."""
        rewards = rollouts.rewards
        self.add("reward/mean", rewards.total)
        self.add("reward/model", rewards.scores)
        self.add("reward/verifiable", rewards.is_right, ~rewards.is_right.isnan())
        self.add("completion/tokens_mean", torch.tensor([float(len(done)) for done in rollouts.completions]))
        self.add("completion/finished_fraction", rewards.is_finished)

    def over_ranks(self, engine: Engine) -> Metrics:
        """The means over all ranks, which must have added to the same metrics; all ranks call it."""
        # Sorted: all ranks must sum the same metric at the same time, and the order of a dict is that of its first additions.
        pairs = {name: (engine.total(self.sums[name]), engine.total(self.counts[name])) for name in sorted(self.counts)}
        return {name: value / count for name, (value, count) in pairs.items() if count}


class GRPOTrainer(Trainer):
    """Trains a policy on the rewards of the completions it samples."""

    def __init__(self, run: RLRun, checkpoints: Path, stop: threading.Event) -> None:
        """Raises UserError if no prompt is short enough, or the ranks are not those of the run."""
        self.run, self.config = run, run.config
        join_ranks(self.config.num_ranks)
        super().__init__(self.config, Checkpoints(checkpoints, self.config.keep_checkpoints), Path(run.output), stop)
        self.tokenizer = ChatTokenizer.load(run.tokenizer)
        self.prompts, self.heldout = split_prompts(read_prompts(run.prompts, self.tokenizer, self.config), self.config)
        # Three models are in memory at once, policy, reference and reward model, and the policy's gradients and optimizer state.
        self.engine = self.start_engine()
        # A separate copy that never moves. Its weights stay whole on every rank: ZeRO shards the policy's state alone. And in
        # float32 whatever the policy's dtype: with bfloat16 the KL then includes the policy's rounding.
        self.reference = load_transformer(Path(run.initial_weights)).to(self.engine.device)
        reward_model = load_reward_model(Path(run.reward_model)).to(self.engine.device)
        uncalibrated = RewardFunction(self.config, self.tokenizer, reward_model)
        self.reward_function = calibrate(uncalibrated, self.reference, self.prompts)
        # Again after a restart: it depends on the SFT model alone, so it needs no place in the checkpoint.
        self.before = self.evaluate(self.reference)

    def start_engine(self) -> Engine:
        """The policy, which starts from the SFT model, with its optimizer."""
        config, size = self.config, microbatch_rows(self.config)
        settings = EngineConfig(
            self.run.optim,
            config.dtype,
            config.zero_stage,
            config.num_ranks,
            microbatch=size,
            # One optimizer update, not one step: a step has updates_per_step of them.
            num_microbatches=update_rows(config) // size,
        )
        is_resharded = self.checkpoints.is_resharded(config.num_ranks)
        return Engine(load_transformer(Path(self.run.initial_weights)), settings, is_resharded=is_resharded)

    def train_step(self, step: int) -> Metrics:
        """One round of rollouts and the updates on them. Raises RuntimeError if the policy diverges; no NaN is saved."""
        seconds, means = Metrics(), Means()
        try:
            with clocked(seconds, "phase/rollout_seconds"):  # 1 and 2
                self.rollouts = self.roll_out(step)
                means.add_rollouts(self.rollouts)
            with clocked(seconds, "phase/logprobs_seconds"):  # 3 and 4
                # Once for all updates of the step: what was sampled stays the fixed point that every ratio is taken from.
                batch = make_batch(self.rollouts, self.model, self.reference, self.config)
            with clocked(seconds, "phase/update_seconds"):  # 5
                for number in range(self.config.updates_per_step):
                    # By update and not by step, so that another updates_per_step
                    # warms up and decays over the same fraction of the run.
                    rate = self.set_learning_rate(step * self.config.updates_per_step + number)
                    # Every updates_per_step-th rollout: an update has some completions of many prompts, not whole groups of a few.
                    rows = torch.arange(number, len(batch.tokens), self.config.updates_per_step)
                    self.update(batch.rows(rows), means)
            # Before the trainer writes a checkpoint, which would otherwise hold NaN for good.
            check_finite(self.model)
        except NonFiniteError as error:
            raise RuntimeError(
                f"step {step + 1} failed ({error}): lower the learning rate {self.run.optim.learning_rate:g}"
            ) from None
        return means.over_ranks(self.engine) | seconds | {"policy/learning_rate": rate}

    def roll_out(self, step: int) -> Rollouts:
        """G completions of each of this rank's prompts of a step."""
        config, rank = self.config, self.engine.rank
        # The stream of epochs that supervised training has: each prompt once per epoch, a function of seed and position.
        positions = np.arange(step * config.prompts_per_step, (step + 1) * config.prompts_per_step)
        chosen = shuffled(len(self.prompts), positions, config.seed)[rank :: config.num_ranks]
        # Copies of a prompt are neighbours: `group_advantages` takes them as rows, and the decoder reads equal ones once.
        repeated = [self.prompts[index] for index in chosen for _ in range(config.completions_per_prompt)]
        # Hashed, so that neighbouring steps and ranks draw independent streams.
        seed = int(np.random.default_rng((config.seed, step, rank)).integers(2**62))
        return roll_out(self.model, self.reward_function, repeated, seed)

    def set_learning_rate(self, number: int) -> float:
        """Set and return the learning rate of update `number`, from 0."""
        num_updates = self.config.num_steps * self.config.updates_per_step
        factor = optim.learning_rate_factor(self.run.optim, number, num_updates)
        self.engine.set_learning_rates(factor)
        return factor * self.run.optim.learning_rate

    def update(self, batch: Batch, means: Means) -> None:
        """One optimizer update on some of the rollouts, in microbatches."""
        # The average is over the tokens of the whole update, over all ranks (DAPO, section 3.3).
        # Never 0: a completion has at least one token.
        num_tokens = self.engine.total(float(batch.mask.sum()))
        # The advantages of a group were taken before: a group may be spread over microbatches and updates.
        for rows in torch.split(torch.arange(len(batch.tokens)), microbatch_rows(self.config)):
            part = batch.rows(rows)
            # The last position predicts a token that is not there.
            # Padding on the right needs no attention mask: no real token attends to what follows it.
            logits = self.engine(part.tokens)[:, :-1]
            self.engine.backward(policy_loss(logits, part, self.config, means), num_tokens)
            self.engine.step()

    def validate(self) -> Metrics:
        """The rewards of the current policy on held-out prompts, see `evaluate`."""
        return self.evaluate(self.model)

    def evaluate(self, policy: Transformer) -> Metrics:
        """The rewards of greedy completions of the held-out prompts; empty if none are held out."""
        num_ranks, means = self.config.num_ranks, Means()
        # Equal shares: `over_ranks` needs the same metrics from every rank, so all have prompts or none has.
        mine = self.heldout[: len(self.heldout) // num_ranks * num_ranks][self.engine.rank :: num_ranks]
        if not mine:  # on all ranks alike
            return {}
        # Greedy, so that two validations differ by the policy alone. The seed has no effect then.
        means.add_rollouts(roll_out(policy, self.reward_function, mine, seed=0, temperature=0.0))
        return {f"validation/{name.replace('/', '_')}": value for name, value in means.over_ranks(self.engine).items()}

    def record(self, done: int, metrics: Metrics) -> None:
        """Write the metrics and two rollouts of a step."""
        super().record(done, metrics)
        if self.engine.rank == 0:
            path, group_size = self.output / "rollouts.jsonl", self.config.completions_per_prompt
            add_rollouts(path, self.rollouts, self.tokenizer, group_size, done)

    def max_tokens(self) -> int:
        """That of the SFT model."""
        # Rollouts may be shorter than what it was trained on; the policy keeps the positions.
        shape = json.loads((Path(self.run.initial_weights) / "config.json").read_text())
        return int(shape["max_position_embeddings"])

    def summary(self, last: Metrics) -> dict[str, Any]:
        """Counts, the last step's metrics without times, and the SFT model's validation under before/."""
        config = self.config
        return {
            "parameters": num_parameters(self.run.model),
            "steps": config.num_steps,
            "updates": config.num_steps * config.updates_per_step,
            "rollouts": config.num_steps * config.prompts_per_step * config.completions_per_prompt,
            **{name: value for name, value in last.items() if not name.startswith("phase/") and name != "step"},
            **{name.replace("validation/", "before/"): value for name, value in self.before.items()},
        }


def check_finite(policy: Transformer) -> None:
    """Raises NonFiniteError if a weight is NaN or infinite."""
    # On the weights that the forward uses: they are whole on every rank, since zero_stage is at most 2.
    if not all(weight.isfinite().all() for weight in policy.parameters()):
        raise NonFiniteError("the updates made weights of the policy NaN or infinite")


def make_batch(rollouts: Rollouts, policy: Transformer, reference: Transformer, config: RLConfig) -> Batch:
    """The advantages within the groups, and the log-probabilities before any update (3 and 4)."""
    device = next(policy.parameters()).device
    starts = torch.tensor([len(prompt.tokens) for prompt in rollouts.prompts])
    sequences = [[*prompt.tokens, *done] for prompt, done in zip(rollouts.prompts, rollouts.completions, strict=True)]
    tokens, lengths = pad(sequences)
    # Place t of the mask stands for token t + 1, as place t of the logits does.
    targets = torch.arange(1, tokens.shape[1])
    # The end-of-turn token is learned too: the policy must learn when to stop.
    mask = (targets >= starts[:, None]) & (targets < lengths[:, None])
    grouped = rollouts.rewards.total.view(-1, config.completions_per_prompt)
    advantages = losses.group_advantages(grouped, config.is_advantage_scaled).flatten()
    tokens, mask = tokens.to(device), mask.float().to(device)
    # Computed again rather than kept from sampling, so that the rounding of the cached decoder stays out of the ratio.
    old, of_reference = (completion_logprobs(model, tokens, mask, config) for model in (policy, reference))
    return Batch(tokens, mask, advantages.to(device), old, of_reference)


@torch.no_grad()
def completion_logprobs(model: Transformer, tokens: Tensor, mask: Tensor, config: RLConfig) -> Tensor:
    """log p of each next token at the rollouts' temperature: tokens [N, T], mask [N, T - 1] -> [N, T - 1]."""
    # In parts: logits [N, T, V] of all rollouts at once would be the largest tensor of the step.
    parts = zip(*(torch.split(both, config.microbatch_sequences) for both in (tokens, mask)), strict=True)
    return torch.cat(
        [losses.token_logprobs(model(part)[:, :-1], part[:, 1:], config.temperature, kept) for part, kept in parts]
    )


def policy_loss(logits: Tensor, part: Batch, config: RLConfig, means: Means) -> Tensor:
    """The clipped surrogate plus the KL, summed over completions' tokens (5): logits [n, T - 1, V] -> a scalar."""
    # In the first update of a step this equals old_logprobs but for rounding: the ratio is 1 and nothing is clipped.
    now = losses.token_logprobs(logits, part.tokens[:, 1:], config.temperature, part.mask)
    # One advantage for all tokens of a completion: the reward is of the whole.
    advantages = part.advantages[:, None]
    low, high = config.clip_low, config.clip_high
    kl = losses.kl_k3(now, part.reference_logprobs, part.mask)
    surrogate = losses.policy_loss(now, part.old_logprobs, advantages, low, high, part.mask)
    with torch.no_grad():
        means.add("policy/kl_k3", kl, part.mask)
        # The entropy is reported, not rewarded: `clip_high` is what keeps the policy exploring.
        means.add("policy/entropy_nats", losses.entropy(logits / config.temperature), part.mask)
        is_clipped = losses.is_clipped(now, part.old_logprobs, advantages, low, high, part.mask)
        means.add("policy/clip_fraction", is_clipped, part.mask)
    # The KL is in the loss, as in GRPO, and not in the reward, as in PPO for RLHF (Ouyang et al. 2022).
    return losses.masked_sum(surrogate + config.kl_coef * kl, part.mask)[0]


def update_rows(config: RLConfig) -> int:
    """Rollouts of one rank in one update."""
    return config.prompts_per_step * config.completions_per_prompt // config.num_ranks // config.updates_per_step


def microbatch_rows(config: RLConfig) -> int:
    """The largest divisor of a rank's share of an update that microbatch_sequences admits."""
    # DeepSpeed takes microbatches of one size only, so the size must divide the share.
    most = min(config.microbatch_sequences, update_rows(config))
    return max(size for size in range(1, most + 1) if update_rows(config) % size == 0)


def train(run: RLRun, checkpoints: Path, stop: threading.Event) -> None:
    """Train to the end, or until `stop` is set on some rank (SystemExit). Every rank calls it."""
    GRPOTrainer(run, checkpoints, stop).train()


def main() -> None:
    """Train the run whose file the command line names."""
    run_rank(lambda path, stop: train(RLRun.model_validate_json(path.read_text()), path.parent / "checkpoints", stop))


if __name__ == "__main__":
    main()
