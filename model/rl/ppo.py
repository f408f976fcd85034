"""Reinforcement learning from rewards with PPO, on two DeepSpeed engines: `python -m model.rl.ppo RUN.json`.

Reads RUN.json (an `RLRun`), an SFT model, a reward model, a tokenizer and prompts. Writes what the trainers of reinforcement learning do
(model/rl/trainer.py). The critic is kept in the checkpoints alone.

The algorithm (Schulman et al. 2017, https://arxiv.org/abs/1707.06347) as in language models from human preferences (Ziegler et al. 2019,
https://arxiv.org/abs/1909.08593; Ouyang et al. 2022, https://arxiv.org/abs/2203.02155), a step of `OnlineTrainer.train_step` (model/rl/online.py):

1. Sample completions from the policy, and reward each (model/rl/rewards.py).
2. The reward of a token is minus kl_coef times its KL to the reference policy; that of the last token also has the completion's reward.
3. The critic gives the value of every state before a token. Advantages are generalized advantage estimates (GAE), whitened over all tokens of
   the step; advantages plus values are the returns.
4. Each update minimises the clipped surrogate of the policy, and on its own engine the clipped squared error of the critic's values.
5. With a target, kl_coef is adapted to it (Ziegler et al. 2019, section 2.2).

Departures: the critic has its own optimizer and gradient norm, so that its large first errors do not shorten the policy's steps. Its values begin
in the units of the rewards: it is a copy of the reward model, whose scores are counted from the mean, in standard deviations. TRL 1.12 gives a
completion's reward to the place after its last token, whose value it learns too; here the last token has it, and the episode ends there.

Metrics: those of model/rl/online.py, policy/kl_completion_nats (k1, summed over a completion), policy/kl_coef (of this step), critic/loss,
critic/explained_fraction (1 minus the variance of returns minus values over that of returns, before the updates), critic/clip_fraction,
critic/gradient_norm.
"""

import math
import threading
from pathlib import Path

import torch
from torch import Tensor, nn

from model import losses
from model.network.huggingface import load_weights
from model.network.transformer import RewardModel, Transformer, initialize
from model.rl.completions import Completions, in_parts, scattered
from model.rl.config import PPOConfig, RLRun
from model.rl.means import Means
from model.rl.online import Batch, OnlineTrainer, engine_config, microbatches
from model.rl.rollouts import Rollouts
from model.training.engine import Engine
from model.training.metrics import Metrics
from model.training.trainer import run_rank

RATES = ("learning_rate", "muon_learning_rate")
MAX_KL_ERROR = 0.2  # of the target: a larger error adapts the coefficient no further (Ziegler et al. 2019)


class Critic(nn.Module):
    """The value of every state: a reward model that is read at each token instead of the last."""

    def __init__(self, model: RewardModel, mean: float = 0.0, deviation: float = 1.0) -> None:
        """`mean`, `deviation`: of the reward model's scores, which the rewards are counted in."""
        super().__init__()
        self.model = model
        self.mean, self.deviation = mean, deviation

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """tokens [N, T], padded on the right -> the value of the state before each next token [N, T - 1] in float32, 0 where mask is 0."""
        kept = mask.bool()
        scores: Tensor = self.model.score(self.model.model(tokens[:, :-1], kept=kept)).squeeze(-1).float()
        return scattered((scores - self.mean) / self.deviation, kept)


class PPOTrainer(OnlineTrainer):
    """Trains a policy and a critic, which estimates what the rest of a completion will be rewarded."""

    kl_coef: float  # of the current step

    def __init__(self, run: RLRun, checkpoints: Path, stop: threading.Event) -> None:
        """As the other trainers, with a second engine."""
        super().__init__(run, checkpoints, stop)
        self.critic = self.start_critic()

    @property
    def engines(self) -> dict[str, Engine]:
        """The policy's and the critic's."""
        return {**super().engines, "critic": self.critic}

    def start_critic(self) -> Engine:
        """The critic with its optimizer."""
        run, scored = self.run, self.reward_function
        from_reward_model = run.ppo.critic == "reward_model"
        model = RewardModel(run.model)
        # The head of one that starts from the SFT model stays 0, so its first values are too.
        initialize(model, run.config.seed)
        load_weights(model, Path(run.reward_model if from_reward_model else run.initial_weights))
        scale = (scored.mean, scored.deviation) if from_reward_model else (0.0, 1.0)
        if from_reward_model and scored.reward_model.likelihood_weight:
            # The head's score is a part of the reward model's, in other units: 0 is the mean of all rewards.
            nn.init.zeros_(model.score.weight)
            scale = (0.0, 1.0)
        rates = {name: getattr(run.optim, name) * run.ppo.critic_rate_factor for name in RATES}
        optim_config = run.optim.model_copy(update=rates)
        is_resharded = self.checkpoints.is_resharded(run.config.num_ranks)
        return Engine(Critic(model, *scale), engine_config(optim_config, run.config), is_resharded=is_resharded)

    def resume(self, first_step: int) -> None:
        """Get ready for step `first_step`, with the KL coefficient that follows from the step before it."""
        super().resume(first_step)
        self.kl_coef = self.config.kl_coef
        # From the log rather than the checkpoint, which so has no state but that of the engines.
        for line in self.log.lines(first_step)[-1:]:
            self.kl_coef = self.adapted_kl_coef(line)

    def train_step(self, step: int) -> Metrics:
        """One round of rollouts and the updates of both models on them."""
        metrics = super().train_step(step) | {"policy/kl_coef": self.kl_coef}
        metrics["critic/gradient_norm"] = self.critic.gradient_norm
        self.kl_coef = self.adapted_kl_coef(metrics)
        return metrics

    def adapted_kl_coef(self, metrics: Metrics) -> float:
        """The KL coefficient after a step with these metrics."""
        rollouts = self.config.prompts_per_step * self.config.completions_per_prompt
        return next_kl_coef(metrics["policy/kl_coef"], metrics["policy/kl_completion_nats"], rollouts, self.run.ppo)

    def make_batch(self, rollouts: Rollouts, policy: Transformer, means: Means) -> Batch:
        """The advantages of tokens, and what stays fixed during the updates (2 and 3)."""
        ppo, device = self.run.ppo, self.engine.device
        completions = self.completions(rollouts)
        old, of_reference = (
            self.sampled_logprobs(rollouts, policy, completions),
            self.logprobs(self.reference, completions),
        )
        mask, kinds = completions.mask, means.rows(rollouts).to(device)
        kl = losses.kl_estimate(old, of_reference, ppo.kl_estimator, mask)
        means.add("policy/kl_completion_nats", losses.kl_estimate(old, of_reference, "k1", mask).sum(-1), None, kinds)
        rewards = losses.token_rewards(rollouts.rewards.total.to(device), kl, self.kl_coef, mask)
        if ppo.whiten_rewards:
            rewards = losses.whiten(rewards, self.moments(rewards, mask), keeps_mean=True)
        values = self.values(completions)
        advantages = losses.generalized_advantages(rewards, values, mask, ppo.discount, ppo.trace)
        returns = advantages + values
        self.report_fit(values, returns, mask, means)
        advantages = losses.whiten(advantages, self.moments(advantages, mask))
        return Batch(*completions, mask, advantages, old, of_reference, kinds, values, returns)

    def moments(self, values: Tensor, mask: Tensor) -> Tensor:
        """Count, sum and sum of squares where mask is 1, over all ranks."""
        return torch.tensor(self.engine.totals(losses.masked_moments(values, mask).tolist()), dtype=torch.float64)

    @torch.no_grad()
    def values(self, completions: Completions) -> Tensor:
        """The critic's values before any update [N, T - 1], 0 outside of the completions."""
        # All ranks have as many rows, so with ZeRO 3 they gather the weights as often.
        return in_parts(completions, self.config.microbatch_sequences, self.critic)

    def report_fit(self, values: Tensor, returns: Tensor, mask: Tensor, means: Means) -> None:
        """Add how much of the returns' variance the critic's values explain."""
        (count, total, squares), (_, missed, missed_squares) = (
            self.moments(part, mask).tolist() for part in (returns, returns - values)
        )
        variance = max(squares / count - (total / count) ** 2, 1e-8)
        unexplained = missed_squares / count - (missed / count) ** 2
        # The same on all ranks: the mean over them is the value.
        means.add("critic/explained_fraction", torch.tensor([1 - unexplained / variance]))

    def update(self, batch: Batch, means: Means, *, is_first: bool) -> None:
        """One update of the policy and one of the critic on some of the rollouts (4)."""
        # No KL in the loss: it is in the rewards.
        self.update_policy(batch, means, 0.0, is_first=is_first)
        num_tokens = self.critic.total(float(batch.mask.sum()))
        for part in microbatches(batch, self.config):
            values = self.critic(part.tokens, part.mask)
            nats = losses.value_loss(values, part.old_values, part.returns, self.run.ppo.value_clip)
            with torch.no_grad():
                means.add("critic/loss", nats, part.mask)
                moved = (values - part.old_values).abs() > self.run.ppo.value_clip
                means.add("critic/clip_fraction", moved.float(), part.mask)
            self.critic.backward(losses.masked_sum(nats, part.mask)[0], num_tokens)
            self.critic.step()


def next_kl_coef(kl_coef: float, kl_nats: float, num_rollouts: int, config: PPOConfig) -> float:
    """The coefficient after `num_rollouts` completions with a mean KL of `kl_nats` each: larger where that is above the target."""
    if not config.kl_target:
        return kl_coef
    error = min(max(kl_nats / config.kl_target - 1, -MAX_KL_ERROR), MAX_KL_ERROR)
    # exp(x) instead of 1 + x, which is negative where a step has many rollouts: then the KL would be rewarded.
    return kl_coef * math.exp(error * num_rollouts / config.kl_horizon)


def train(run: RLRun, checkpoints: Path, stop: threading.Event) -> None:
    """Train to the end, or until `stop` is set on some rank (SystemExit). Every rank calls it."""
    PPOTrainer(run, checkpoints, stop).train()


def main() -> None:
    """Train the run whose file the command line names."""
    run_rank(lambda path, stop: train(RLRun.model_validate_json(path.read_text()), path.parent / "checkpoints", stop))


if __name__ == "__main__":
    main()
