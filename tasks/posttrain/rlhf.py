"""RLHF: the SFT model becomes a policy that the reward model prefers, by GRPO through DeepSpeed.

Reads the SFT model, the reward model, the Tokenizer of both and Prompts; writes a Checkpoint, with the course of it in `metrics.jsonl`
and a few rollouts in `rollouts.jsonl`. The loop is `model.rl`'s.
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

VERSION = 3
SHOWN = {"reward": "reward/mean", "kl": "policy/kl_k3", "tokens": "completion/tokens_mean"}


class RLHFConfig(PromptsConfig):
    """The prompts, and how the policy is trained on them."""

    train: RLConfig = Field(RLConfig(num_steps=24, num_ranks=2), title="GRPO")
    optim: OptimConfig = Field(
        OptimConfig(learning_rate=1e-4, weight_decay=0.0, decay_fraction=1.0, final_learning_rate_fraction=0.1),
        title="Optimizer",
    )


@dataclass(frozen=True)
class RLHFInputs:
    """What a policy is made of."""

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
    check_vocabulary(inputs.reward_model, inputs.tokenizer)
    settings = RLRun(
        config=config.train,
        optim=config.optim,
        model=model_config(inputs.assistant),
        initial_weights=str(inputs.assistant.folder),
        reward_model=str(inputs.reward_model.folder),
        tokenizer=tokenizer_file(inputs.tokenizer),
        prompts=paths(inputs.prompts, "*.jsonl"),
        output=str(ctx.folder),
    )
    steps, ranks = config.train.num_steps, config.train.num_ranks
    return train(ctx, "model.rl.grpo", settings, num_steps=steps, num_ranks=ranks, shown=SHOWN)
