"""Reinforcement learning from rewards with GRPO, on a DeepSpeed engine: `python -m model.rl.grpo RUN.json`.

Reads RUN.json (an `RLRun`), an SFT model, a reward model, a tokenizer and prompts. Writes what the trainers of reinforcement learning do
(model/rl/trainer.py).

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

Metrics: those of model/rl/trainer.py, policy/kl_k3 and policy/entropy_nats (per token), policy/clip_fraction (of tokens whose gradient is cut
off), policy/learning_rate, group/dead_fraction (of groups whose completions all have the same reward: nothing is learned from them),
group/solved_fraction (of prompts with an answer, those that some completion of the group solves), phase/training_seconds.
"""

import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from model import losses
from model.data.dataset import shuffled
from model.inference.logits import NonFiniteError
from model.inference.scoring import pad
from model.network.huggingface import load_transformer
from model.network.transformer import Transformer
from model.rl.config import RLConfig, RLRun
from model.rl.means import Means
from model.rl.rollouts import Rollouts, roll_out
from model.rl.trainer import RLTrainer
from model.training import optim
from model.training.engine import Engine, EngineConfig
from model.training.metrics import Metrics, clocked
from model.training.trainer import run_rank


class Batch(NamedTuple):
    """Rollouts as tensors: N completions with their prompts, T tokens."""

    tokens: Tensor  # [N, T] int64, padded on the right
    mask: Tensor  # [N, T - 1] 1 where the next token belongs to the completion
    advantages: Tensor  # [N]
    old_logprobs: Tensor  # [N, T - 1] of the next token, under the policy that sampled it
    reference_logprobs: Tensor  # [N, T - 1]
    kinds: Tensor  # [N] the number of the prompt's kind, see model/rl/means.py

    def rows(self, rows: Tensor) -> "Batch":
        """The rollouts with the numbers `rows` [n]."""
        return Batch(*(tensor[rows] for tensor in self))


class GRPOTrainer(RLTrainer):
    """Trains a policy on the rewards of the completions it samples."""

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
        seconds, means = Metrics(), Means(self.kinds)
        try:
            self.rollouts = self.roll_out(step, seconds)  # 1 and 2
            means.add_rollouts(self.rollouts, self.config.completions_per_prompt)
            with clocked(seconds, "phase/training_seconds"):  # 3 to 5
                # Once for all updates of the step: what was sampled stays the fixed point that every ratio is taken from.
                batch = make_batch(self.rollouts, self.model, self.reference, self.config, means.rows(self.rollouts))
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

    def roll_out(self, step: int, seconds: Metrics) -> Rollouts:
        """G completions of each of this rank's prompts of a step. The times are added to `seconds`."""
        config, rank = self.config, self.engine.rank
        # The stream of epochs that supervised training has: each prompt once per epoch, a function of seed and position.
        positions = np.arange(step * config.prompts_per_step, (step + 1) * config.prompts_per_step)
        chosen = shuffled(len(self.prompts), positions, config.seed)[rank :: config.num_ranks]
        # Copies of a prompt are neighbours: `group_advantages` takes them as rows, and the decoder reads equal ones once.
        repeated = [self.prompts[index] for index in chosen for _ in range(config.completions_per_prompt)]
        # Hashed, so that neighbouring steps and ranks draw independent streams.
        seed = int(np.random.default_rng((config.seed, step, rank)).integers(2**62))
        return roll_out(self.model, self.reward_function, repeated, seed, seconds=seconds)

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

    def summary(self, last: Metrics) -> dict[str, Any]:
        """The trainer's, and the number of updates."""
        return super().summary(last) | {"updates": last.get("step", 0) * self.config.updates_per_step}


def check_finite(policy: Transformer) -> None:
    """Raises NonFiniteError if a weight is NaN or infinite."""
    # On the weights that the forward uses: they are whole on every rank, since zero_stage is at most 2.
    if not all(weight.isfinite().all() for weight in policy.parameters()):
        raise NonFiniteError("the updates made weights of the policy NaN or infinite")


def make_batch(
    rollouts: Rollouts, policy: Transformer, reference: Transformer, config: RLConfig, kinds: Tensor
) -> Batch:
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
    return Batch(tokens, mask, advantages.to(device), old, of_reference, kinds.to(device))


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
        means.add("policy/kl_k3", kl, part.mask, part.kinds)
        # The entropy is reported, not rewarded: `clip_high` is what keeps the policy exploring.
        means.add("policy/entropy_nats", losses.entropy(logits / config.temperature), part.mask, part.kinds)
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
