"""RLHF: trains the SFT model to reach a higher reward, by GRPO through DeepSpeed.

Reads the SFTModel, which is also the frozen reference policy, the RewardModel, the Tokenizer of both and Prompts; writes a Policy, with
`metrics.jsonl` (a line for each step) and `rollouts.jsonl` (two completions of one prompt for each step).

The algorithm is in model/rl/grpo.py: group-relative advantages without a value model (GRPO, Shao et al. 2024,
https://arxiv.org/abs/2402.03300), not divided by their deviation (Dr. GRPO, Liu et al. 2025, https://arxiv.org/abs/2503.20783), the asymmetric
clip and the mean over tokens of DAPO (Yu et al. 2025, https://arxiv.org/abs/2503.14476), and InstructGPT's KL penalty to the SFT model
(Ouyang et al. 2022, https://arxiv.org/abs/2203.02155). Departures from InstructGPT: GRPO instead of PPO, a verifiable reward next to the reward
model's, and no pretraining gradients (PPO-ptx).
"""

from dataclasses import dataclass

from pydantic import Field

from model.config import OptimConfig
from model.rl.config import RLConfig, RLRun
from tasks.artifacts.manifest import Policy, Prompts, RewardModel, SFTModel, Tokenizer
from tasks.artifacts.step import Outcome, Step, roles
from tasks.conversations.sources import PromptsConfig
from tasks.execution.context import StageContext
from tasks.training import check_vocabulary, model_config, paths, tokenizer_file, train

VERSION = 5  # 5: turns of the renderer with a token for each role
# The metrics that the progress display shows, by label.
SHOWN = {"reward": "reward/mean", "kl": "policy/kl_k3", "tokens": "completion/tokens_mean"}


class RLHFConfig(PromptsConfig):
    """The prompts, and how the policy is trained on them."""

    # No weight decay and a linear decay of the learning rate over the run, as TRL's GRPOTrainer has them. The rate suits models of about
    # 1 M parameters; TRL's 1e-6 suits billions, and flows/recipes.py takes it for imported models.
    train: RLConfig = Field(RLConfig(num_steps=24, num_ranks=2), title="GRPO")
    optim: OptimConfig = Field(
        OptimConfig(learning_rate=5e-5, weight_decay=0.0, decay_fraction=1.0, final_learning_rate_fraction=0.1),
        title="Optimizer",
    )


@dataclass(frozen=True)
class RLHFInputs:
    """The artifacts that RLHF reads."""

    assistant: SFTModel
    reward_model: RewardModel
    tokenizer: Tokenizer
    prompts: Prompts


def rlhf(
    assistant: Step[SFTModel],
    reward_model: Step[RewardModel],
    tokenizer: Step[Tokenizer],
    prompts: Step[Prompts],
    config: RLHFConfig,
) -> Step[Policy]:
    """Train the SFT model to be preferred by the reward model."""
    inputs = roles(assistant=assistant, reward_model=reward_model, tokenizer=tokenizer, prompts=prompts)
    return Step("rlhf", VERSION, Policy, config, inputs, run=train_policy, takes=RLHFInputs)


def train_policy(ctx: StageContext, config: RLHFConfig, inputs: RLHFInputs) -> Outcome:
    """Train by GRPO. Raises UserError where the tokenizer is not that of both models."""
    check_vocabulary(inputs.assistant, inputs.tokenizer)
    # One tokenizer for both: the reward model scores the policy's tokens as they are, without decoding them.
    check_vocabulary(inputs.reward_model, inputs.tokenizer)
    settings = RLRun(
        config=config.train,
        optim=config.optim,
        model=model_config(inputs.assistant),
        initial_weights=str(inputs.assistant.folder),
        # There is no field for the reference policy: it is the model of initial_weights, kept frozen.
        reward_model=str(inputs.reward_model.folder),
        tokenizer=tokenizer_file(inputs.tokenizer),
        # All in one: the training process holds out a part of the prompts to validate on.
        prompts=paths(inputs.prompts, "*.jsonl"),
        output=str(ctx.folder),
    )
    steps, ranks = config.train.num_steps, config.train.num_ranks
    return train(ctx, "model.rl.grpo", settings, num_steps=steps, num_ranks=ranks, shown=SHOWN)
