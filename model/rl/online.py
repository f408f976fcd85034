"""What GRPO and PPO share: rounds of rollouts from the current policy, and clipped updates of it on a DeepSpeed engine.

A step samples completions, rewards them, takes the log-probabilities of their tokens under the policy that sampled them and under the frozen
reference policy (the SFT model), and makes a few optimizer updates. Each minimises the clipped surrogate (model/losses.py). What an advantage is,
and where the KL to the reference enters, is a subclass's.

A step is a function of the seed, its number and the weights before it, so a killed run resumes with the same results. With ZeRO 3 every rank
gathers a whole copy of the policy before it samples: gathering layer by layer for every token would be slower by orders of magnitude.

Metrics: those of model/rl/trainer.py, policy/kl_k3 and policy/entropy_nats (per token), policy/clip_fraction (of tokens whose gradient is cut
off), policy/learning_rate, policy/gradient_norm (of the last update), phase/training_seconds.
"""

from abc import abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from model import losses
from model.config import OptimConfig
from model.data.dataset import shuffled
from model.inference.logits import NonFiniteError
from model.network.huggingface import load_transformer, transformer_of
from model.network.transformer import Transformer
from model.rl.completions import (
    CompletionModel,
    Completions,
    completion_logprobs,
    num_places,
    pad_completions,
    scattered,
)
from model.rl.config import RLConfig
from model.rl.gains import train_gains_alone, with_gain_rate
from model.rl.means import Means
from model.rl.rollouts import Rollouts, roll_out
from model.rl.trainer import RLTrainer
from model.training import optim
from model.training.engine import Engine, EngineConfig
from model.training.metrics import Metrics, clocked


class Batch(NamedTuple):
    """Rollouts as tensors: N completions with their prompts, T tokens."""

    tokens: Tensor  # [N, T] int64, padded on the right
    mask: Tensor  # [N, T - 1] 1 where the next token belongs to the completion
    learned: Tensor  # [N, T - 1] 1 where the next token has a loss: the mask without the groups that are left out
    advantages: Tensor  # [N, 1], or [N, T - 1] with one for each token
    old_logprobs: Tensor  # [N, T - 1] of the next token, under the policy that sampled it
    reference_logprobs: Tensor  # [N, T - 1]
    kinds: Tensor  # [N] the number of the prompt's kind, see model/rl/means.py
    # Of PPO's critic, 0 without one:
    old_values: Tensor  # [N, T - 1] of the state before the next token, when it was sampled
    returns: Tensor  # [N, T - 1]

    def rows(self, rows: Tensor) -> "Batch":
        """The rollouts with the numbers `rows` [n], without the padding that they share."""
        chosen = Batch(*(tensor[rows] for tensor in self))
        places, all_places = num_places(chosen.mask), self.mask.shape[1]
        # `advantages` may have one column.
        return Batch(
            chosen.tokens[:, : places + 1],
            *(part[:, :places] if part.shape[1:] == (all_places,) else part for part in chosen[1:]),
        )


class OnlineTrainer(RLTrainer):
    """Trains a policy on the rewards of the completions it samples."""

    @property
    def model(self) -> Transformer:
        """The policy."""
        return self.engine.module.model  # type: ignore[no-any-return]

    @property
    def optim(self) -> OptimConfig:
        """The optimizer's settings for the policy."""
        return with_gain_rate(self.run.optim, self.run.gain_rate_factor)

    @property
    def num_updates(self) -> int:
        """Optimizer updates of a step."""
        return self.config.updates_per_step * self.config.epochs_per_step

    def start_engine(self) -> Engine:
        """The policy, which starts from the SFT model, with its optimizer."""
        policy = CompletionModel(load_transformer(Path(self.run.initial_weights)), self.config.temperature)
        if self.run.gain_rate_factor:
            train_gains_alone(policy)
        is_resharded = self.checkpoints.is_resharded(self.config.num_ranks)
        return Engine(policy, engine_config(self.optim, self.config), is_resharded=is_resharded)

    def train_step(self, step: int) -> Metrics:
        """One round of rollouts and the updates on them. Raises RuntimeError if the policy diverges; no NaN is saved."""
        seconds, means = Metrics(), Means(self.kinds)
        try:
            policy = self.whole_policy()
            self.rollouts = self.roll_out(step, policy, seconds)
            means.add_rollouts(self.rollouts, self.config.completions_per_prompt)
            with clocked(seconds, "phase/training_seconds"):
                # Once for all updates of the step: what was sampled stays the fixed point that every ratio is taken from.
                batch = self.make_batch(self.rollouts, policy, means)
                for number in range(self.num_updates):
                    # By update and not by step, so that another number of them warms up and decays over the same fraction of the run.
                    rate = self.set_learning_rate(step * self.num_updates + number)
                    # Every updates_per_step-th rollout: an update has some completions of many prompts, not whole groups of a few.
                    every = self.config.updates_per_step
                    rows = torch.arange(number % every, len(batch.tokens), every, device=batch.mask.device)
                    self.update(batch.rows(rows), means, is_first=number == 0)
            # Before the trainer writes a checkpoint, which would otherwise hold NaN for good.
            # All are asked before one decides, since every rank must make the same calls.
            are_finite = [engine.has_finite_weights() for engine in self.engines.values()]
            if not all(are_finite):
                raise NonFiniteError("the updates made weights of the policy or the critic NaN or infinite")
        except NonFiniteError as error:
            raise RuntimeError(
                f"step {step + 1} failed ({error}): lower the learning rate {self.run.optim.learning_rate:g}"
            ) from None
        rates = {"policy/learning_rate": rate, "policy/gradient_norm": self.engine.gradient_norm}
        return means.over_ranks(self.engine) | seconds | rates

    @abstractmethod
    def make_batch(self, rollouts: Rollouts, policy: Transformer, means: Means) -> Batch:
        """The advantages, and all that stays fixed during the updates. `policy` sampled the rollouts."""

    @abstractmethod
    def update(self, batch: Batch, means: Means, *, is_first: bool) -> None:
        """One optimizer update on some of the rollouts. `is_first`: of the step, so that the policy is still the one that sampled them."""

    def roll_out(self, step: int, policy: Transformer, seconds: Metrics) -> Rollouts:
        """G completions of each of this rank's prompts of a step. The times are added to `seconds`."""
        config, rank = self.config, self.engine.rank
        # The stream of epochs that supervised training has: each prompt once per epoch, a function of seed and position.
        positions = np.arange(step * config.prompts_per_step, (step + 1) * config.prompts_per_step)
        chosen = shuffled(len(self.prompts), positions, config.seed)[rank :: config.num_ranks]
        # Copies of a prompt are neighbours: `group_advantages` takes them as rows, and the decoder reads equal ones once.
        repeated = [self.prompts[index] for index in chosen for _ in range(config.completions_per_prompt)]
        # Hashed, so that neighbouring steps and ranks draw independent streams.
        seed = int(np.random.default_rng((config.seed, step, rank)).integers(2**62))
        return roll_out(policy, self.reward_function, repeated, seed, seconds=seconds)

    def set_learning_rate(self, number: int) -> float:
        """Set and return the learning rate of update `number`, from 0."""
        factor = optim.learning_rate_factor(self.run.optim, number, self.config.num_steps * self.num_updates)
        for engine in self.engines.values():
            engine.set_learning_rates(factor)
        return factor * self.optim.learning_rate

    def completions(self, rollouts: Rollouts) -> Completions:
        """The rollouts as tensors."""
        padded = pad_completions([prompt.tokens for prompt in rollouts.prompts], rollouts.completions)
        return self.engine.to_device(padded)

    def logprobs(self, model: Transformer, completions: Completions) -> Tensor:
        """The log-probabilities [N, T - 1] of completions under a policy."""
        return completion_logprobs(model, completions, self.config.temperature, self.config.microbatch_sequences)

    def sampled_logprobs(self, rollouts: Rollouts, policy: Transformer, completions: Completions) -> Tensor:
        """The log-probabilities [N, T - 1] of the rollouts under `policy`, which sampled them; 0 elsewhere."""
        # The decoder's, which saves a forward of all rollouts: in float32 they are a forward's to about a millionth. In bfloat16 the two
        # round differently, and that would be a part of every ratio.
        if policy.model.embed_tokens.weight.dtype != torch.float32:
            return self.logprobs(policy, completions)
        kept = completions.mask.bool()
        return scattered(torch.tensor([nats for row in rollouts.logprobs for nats in row], device=kept.device), kept)

    def update_policy(self, batch: Batch, means: Means, kl_coef: float, *, is_first: bool) -> None:
        """One update of the policy, in microbatches. `kl_coef`: weight of the KL in the loss."""
        config = self.config
        # The advantages of a group were taken before: a group may be spread over microbatches and updates.
        parts = microbatches(batch, config)
        weighted = [losses.token_weights(part.learned, config.loss_type, config.max_new_tokens) for part in parts]
        # Of the whole update, over all ranks: see `token_weights`.
        num_terms = self.engine.total(sum(float(terms) for _, terms in weighted))
        if not num_terms:  # every group is left out, on all ranks
            return
        # The KL is of all completions: a group is dead, too, where the policy is always right, and there it should stay as it is.
        anchored = [losses.token_weights(part.mask, config.loss_type, config.max_new_tokens) for part in parts]
        kl_coef *= num_terms / self.engine.total(sum(float(terms) for _, terms in anchored))
        for part, (weights, _), (kl_weights, _) in zip(parts, weighted, anchored, strict=True):
            now, entropies = self.engine(part.tokens, part.mask)
            with torch.no_grad():
                # The entropy is reported, not rewarded: `clip_high` is what keeps the policy exploring.
                means.add("policy/entropy_nats", entropies, part.mask, part.kinds)
            # At first nothing has moved: every ratio is 1, and has a gradient.
            kept = part._replace(old_logprobs=now.detach()) if is_first else part
            loss = policy_loss(now, kept, weights, config, kl_coef * kl_weights, means)
            self.engine.backward(loss, num_terms)
            self.engine.step()

    def summary(self, last: Metrics) -> dict[str, Any]:
        """The trainer's, and the number of updates."""
        return super().summary(last) | {"updates": last.get("step", 0) * self.num_updates}

    def whole_policy(self) -> Transformer:
        """The policy with all its weights on this rank; all ranks call it."""
        if self.config.zero_stage < 3:
            return self.model
        weights = self.engine.full_weights(self.model)
        # In the dtype of the training: otherwise its rounding would be a part of the first ratio.
        return transformer_of(weights, self.run.model).to(self.engine.device, getattr(torch, self.config.dtype))


def policy_loss(
    now: Tensor, part: Batch, weights: Tensor, config: RLConfig, kl_weights: Tensor, means: Means
) -> Tensor:
    """The clipped surrogate plus the KL, each a weighted sum over tokens: logprobs and weights [n, T - 1] -> a scalar."""
    old, mask, low, high = part.old_logprobs, part.mask, config.clip_low, config.clip_high
    kl = losses.kl_estimate(now, part.reference_logprobs, config.kl_estimator, mask)
    surrogate = losses.policy_loss(*ratio_logprobs(now, old, mask, config), part.advantages, low, high, mask)
    with torch.no_grad():
        means.add("policy/kl_k3", losses.kl_estimate(now, part.reference_logprobs, "k3", mask), mask, part.kinds)
        is_clipped = losses.is_clipped(*ratio_logprobs(now, old, mask, config), part.advantages, low, high, mask)
        means.add("policy/clip_fraction", is_clipped, mask)
    return losses.masked_sum(weights * surrogate + kl_weights * kl, mask)[0]


def ratio_logprobs(now: Tensor, old: Tensor, mask: Tensor, config: RLConfig) -> tuple[Tensor, Tensor]:
    """What the ratio of the policies is taken of: each token, or the mean of each completion."""
    if config.ratio_level == "token":
        return now, old
    # A completion's ratio stands at each of its tokens, of which each has the same part in the gradient.
    now, old = (losses.sequence_logprobs(logprobs, mask).expand_as(mask) for logprobs in (now, old))
    return now, old


def microbatches(batch: Batch, config: RLConfig) -> list[Batch]:
    """The rollouts of an update in parts of one size, the short ones first, so that a part holds little padding."""
    places = torch.arange(1, batch.mask.shape[1] + 1, device=batch.mask.device)
    order = (batch.mask * places).amax(1).argsort(stable=True)
    return [batch.rows(rows) for rows in torch.split(order, microbatch_rows(config))]


def engine_config(optim_config: OptimConfig, config: RLConfig) -> EngineConfig:
    """How the updates of a run are split over ranks and microbatches."""
    size = microbatch_rows(config)
    return EngineConfig(
        optim_config,
        config.dtype,
        config.zero_stage,
        config.num_ranks,
        microbatch=size,
        # One optimizer update, not one step: a step has several of them.
        num_microbatches=update_rows(config) // size,
    )


def update_rows(config: RLConfig) -> int:
    """Rollouts of one rank in one update."""
    return config.prompts_per_step * config.completions_per_prompt // config.num_ranks // config.updates_per_step


def microbatch_rows(config: RLConfig) -> int:
    """The largest divisor of a rank's share of an update that microbatch_sequences admits."""
    # DeepSpeed takes microbatches of one size only, so the size must divide the share.
    most = min(config.microbatch_sequences, update_rows(config))
    return max(size for size in range(1, most + 1) if update_rows(config) % size == 0)
