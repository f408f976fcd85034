"""The reward model: a score for a completion, learned from pairs of which one was preferred.

Reads the SFT model's Checkpoint, whose backbone it starts from, the Tokenizer and Preferences, writes a Checkpoint with a
scalar head. The loss is Bradley and Terry's (1952), as in InstructGPT (Ouyang et al. 2022), one pair a prompt.
"""

from pydantic import Field

from model.config import Config, OptimConfig, TrainConfig, TrainRun
from tasks.artifacts.manifest import Artifact, Checkpoint, Preferences, Tokenizer
from tasks.artifacts.step import Outcome, Step
from tasks.conversations.sources import preferences
from tasks.execution.context import StageContext
from tasks.training import check_vocabulary, model_config, paths, tokenizer_file, train

VERSION = 1


class RewardConfig(Config):
    """Preference pairs and how long they are trained on."""

    preferences: str = Field(
        "sample", description="JSON Lines of preference pairs: a path or glob, or 'sample' to compose them."
    )
    num_pairs: int = Field(3000, ge=1, description="How many are composed where the source is 'sample'.")
    world_seed: int = Field(1, ge=0, description="The world of the sample web that they speak of.")
    validation_fraction: float = Field(0.1, ge=0.0, le=0.5, description="Pairs kept for validation.")
    train: TrainConfig = Field(TrainConfig(num_steps=80, batch_tokens=4096, num_ranks=2), title="Training")
    optim: OptimConfig = Field(OptimConfig(learning_rate=5e-4), title="Optimizer")


def reward(assistant: Step[Checkpoint], tokenizer: Step[Tokenizer], config: RewardConfig) -> Step[Checkpoint]:
    source = preferences(config.preferences, config.num_pairs, config.world_seed, config.validation_fraction)
    inputs: dict[str, Step[Artifact]] = {"assistant": assistant, "tokenizer": tokenizer, "preferences": source}
    return Step("reward", VERSION, Checkpoint, config, inputs, run=train_reward_model)


def train_reward_model(
    ctx: StageContext, config: RewardConfig, assistant: Checkpoint, tokenizer: Tokenizer, preferences: Preferences
) -> Outcome:
    check_vocabulary(assistant, tokenizer)
    settings = TrainRun(
        objective="reward",
        model=model_config(assistant),
        train=config.train,
        optim=config.optim,
        tokenizer=tokenizer_file(tokenizer),
        train_paths=paths(preferences, "train.jsonl"),
        validation_paths=paths(preferences, "validation.jsonl"),
        initial_weights=str(assistant.folder),
        output=str(ctx.folder),
    )
    return train(
        ctx, "model.training.loop", settings, num_steps=config.train.num_steps, num_ranks=config.train.num_ranks
    )
