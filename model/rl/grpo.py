"""Reinforcement learning from rewards with GRPO, on a DeepSpeed engine: `python -m model.rl.grpo RUN.json`.

Reads RUN.json (an `RLRun`), an SFT model, a reward model, a tokenizer and prompts. Writes what the trainers of reinforcement learning do
(model/rl/trainer.py).

The algorithm, a step of `OnlineTrainer.train_step` (model/rl/online.py):

1. Sample G completions of each of P prompts from the current policy (GRPO, Shao et al. 2024, https://arxiv.org/abs/2402.03300).
2. Reward each completion (model/rl/rewards.py).
3. The advantage of a completion is its reward minus its group's mean (Dr. GRPO, Liu et al. 2025, https://arxiv.org/abs/2503.20783); GRPO
   divides it by the group's standard deviation, which a setting turns on. There is no value model.
4. Compute the log-probabilities of its tokens under the policy that sampled it and under the frozen reference policy, the SFT model.
5. Split the rollouts over a few updates. Each minimises PPO's clipped surrogate (Schulman et al. 2017, https://arxiv.org/abs/1707.06347) with
   separate clip bounds, averaged as `loss_type` says, plus kl_coef times an estimate of the KL to the reference.

Departures from GRPO: the upper clip bound may be larger than the lower one, which keeps the policy exploring, and the average is over tokens, not
over completions first, which would weigh a token of a long wrong completion less than one of a short (both from DAPO, Yu et al. 2025,
https://arxiv.org/abs/2503.14476). A dead group, whose rewards are all equal, is left out of the loss and of the number of tokens that it is divided
by: otherwise the learning rate would in effect fall with every prompt that is always or never solved. DAPO samples others in their
place; here they are only counted, as group/dead_fraction. Their KL counts: where all completions are right the policy should stay as it is.
"""

import threading
from pathlib import Path

import torch

from model import losses
from model.network.transformer import Transformer
from model.rl.config import RLRun
from model.rl.means import Means
from model.rl.online import Batch, OnlineTrainer
from model.rl.rollouts import Rollouts
from model.training.trainer import run_rank


class GRPOTrainer(OnlineTrainer):
    """Trains a policy on how much better each completion is than others of its prompt."""

    def make_batch(self, rollouts: Rollouts, policy: Transformer, means: Means) -> Batch:
        """The advantages within the groups, and the log-probabilities before any update (3 and 4)."""
        config, device = self.config, self.engine.device
        completions = self.completions(rollouts)
        of_reference = self.logprobs(self.reference, completions)
        grouped = rollouts.rewards.total.view(-1, config.completions_per_prompt).to(device)
        # One advantage for all tokens of a completion: the reward is of the whole.
        advantages = losses.group_advantages(grouped, config.is_advantage_scaled).flatten()[:, None]
        is_live = ~losses.dead_groups(grouped).repeat_interleave(config.completions_per_prompt)
        learned = completions.mask * is_live[:, None] if config.skip_dead_groups else completions.mask
        kinds, none = means.rows(rollouts).to(device), torch.zeros_like(completions.mask)
        old = self.sampled_logprobs(rollouts, policy, completions)
        return Batch(*completions, learned, advantages, old, of_reference, kinds, old_values=none, returns=none)

    def update(self, batch: Batch, means: Means, *, is_first: bool) -> None:
        """One optimizer update on some of the rollouts (5)."""
        # The KL is in the loss, as in GRPO, and not in the reward, as in PPO for language models (Ouyang et al. 2022).
        self.update_policy(batch, means, self.config.kl_coef, is_first=is_first)


def train(run: RLRun, checkpoints: Path, stop: threading.Event) -> None:
    """Train to the end, or until `stop` is set on some rank (SystemExit). Every rank calls it."""
    GRPOTrainer(run, checkpoints, stop).train()


def main() -> None:
    """Train the run whose file the command line names."""
    run_rank(lambda path, stop: train(RLRun.model_validate_json(path.read_text()), path.parent / "checkpoints", stop))


if __name__ == "__main__":
    main()
