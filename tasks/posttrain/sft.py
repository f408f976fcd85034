"""Supervised fine-tuning: an SFT model, the assistant, from a base model and conversations.

Reads a base model's Checkpoint, the Tokenizer and Conversations, writes a Checkpoint. The loss is on what the assistant
has to say and on the token that ends its turn, on nothing else (InstructGPT, Ouyang et al. 2022).
"""

from pydantic import Field

from model.config import Config, OptimConfig, TrainConfig, TrainRun
from tasks.artifacts.manifest import Artifact, Checkpoint, Conversations, Tokenizer
from tasks.artifacts.step import Outcome, Step
from tasks.conversations.sources import conversations
from tasks.execution.context import StageContext
from tasks.training import check_vocabulary, model_config, paths, tokenizer_file, train

VERSION = 3


class SFTConfig(Config):
    """Conversations and how long they are trained on."""

    conversations: str = Field(
        "sample", description="JSON Lines of conversations: a path or glob, or 'sample' to compose them."
    )
    num_conversations: int = Field(6000, ge=1, description="How many are composed where the source is 'sample'.")
    world_seed: int = Field(1, ge=0, description="The world of the sample web that they speak of.")
    validation_fraction: float = Field(0.03, ge=0.0, le=0.5, description="Conversations kept for validation.")
    train: TrainConfig = Field(TrainConfig(num_steps=140, batch_tokens=4096, num_ranks=2), title="Training")
    optim: OptimConfig = Field(OptimConfig(learning_rate=1e-3), title="Optimizer")


def sft(base: Step[Checkpoint], tokenizer: Step[Tokenizer], config: SFTConfig) -> Step[Checkpoint]:
    source = conversations(
        config.conversations, config.num_conversations, config.world_seed, config.validation_fraction
    )
    inputs: dict[str, Step[Artifact]] = {"base": base, "tokenizer": tokenizer, "conversations": source}
    return Step("sft", VERSION, Checkpoint, config, inputs, run=fine_tune)


def fine_tune(
    ctx: StageContext, config: SFTConfig, base: Checkpoint, tokenizer: Tokenizer, conversations: Conversations
) -> Outcome:
    check_vocabulary(base, tokenizer)
    settings = TrainRun(
        objective="sft",
        model=model_config(base),
        train=config.train,
        optim=config.optim,
        tokenizer=tokenizer_file(tokenizer),
        train_paths=paths(conversations, "train.jsonl"),
        validation_paths=paths(conversations, "validation.jsonl"),
        initial_weights=str(base.folder),
        output=str(ctx.folder),
    )
    return train(
        ctx, "model.training.loop", settings, num_steps=config.train.num_steps, num_ranks=config.train.num_ranks
    )
