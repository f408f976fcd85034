"""RLHF: the SFT model becomes a policy that the reward model prefers, by GRPO through DeepSpeed.

Reads the SFT model, the reward model, the Tokenizer of both and Prompts; writes a Checkpoint, with the course of it in `metrics.jsonl`
and a few rollouts in `rollouts.jsonl`. The loop is `model.rl`'s.
"""

from pydantic import Field

from model.config import Config, OptimConfig
from model.rl.config import RLConfig, RLRun
from tasks.artifacts.manifest import Artifact, Checkpoint, Prompts, Tokenizer
from tasks.artifacts.step import Outcome, Step
from tasks.conversations.sources import prompts
from tasks.execution.context import StageContext
from tasks.training import check_vocabulary, model_config, paths, tokenizer_file, train

VERSION = 3
SHOWN = {"reward": "reward/mean", "kl": "policy/kl_k3", "tokens": "completion/tokens_mean"}


class RLHFConfig(Config):
    """Prompts, and how the policy is trained on them."""

    prompts: str = Field("sample", description="JSON Lines of prompts: a path or glob, or 'sample' to compose them.")
    num_prompts: int = Field(1000, ge=1, description="How many are composed where the source is 'sample'.")
    world_seed: int = Field(1, ge=0, description="The world of the sample web that they speak of.")
    train: RLConfig = Field(RLConfig(num_steps=24, num_ranks=2), title="GRPO")
    optim: OptimConfig = Field(
        OptimConfig(learning_rate=1e-4, weight_decay=0.0, decay_fraction=1.0, final_learning_rate_fraction=0.1),
        title="Optimizer",
    )


def rlhf(
    assistant: Step[Checkpoint], reward_model: Step[Checkpoint], tokenizer: Step[Tokenizer], config: RLHFConfig
) -> Step[Checkpoint]:
    source = prompts(config.prompts, config.num_prompts, config.world_seed)
    inputs: dict[str, Step[Artifact]] = {
        "assistant": assistant,
        "reward_model": reward_model,
        "tokenizer": tokenizer,
        "prompts": source,
    }
    return Step("rlhf", VERSION, Checkpoint, config, inputs, run=train_policy)


def train_policy(
    ctx: StageContext,
    config: RLHFConfig,
    *,
    assistant: Checkpoint,
    reward_model: Checkpoint,
    tokenizer: Tokenizer,
    prompts: Prompts,
) -> Outcome:
    check_vocabulary(assistant, tokenizer)
    check_vocabulary(reward_model, tokenizer)
    settings = RLRun(
        config=config.train,
        optim=config.optim,
        model=model_config(assistant),
        initial_weights=str(assistant.folder),
        reward_model=str(reward_model.folder),
        tokenizer=tokenizer_file(tokenizer),
        prompts=paths(prompts, "*.jsonl"),
        output=str(ctx.folder),
    )
    steps, ranks = config.train.num_steps, config.train.num_ranks
    return train(ctx, "model.rl.grpo", settings, num_steps=steps, num_ranks=ranks, shown=SHOWN)
