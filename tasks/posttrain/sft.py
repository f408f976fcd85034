"""Supervised fine-tuning: an SFT model, the assistant, from a base model and conversations.

Reads a base model's Checkpoint, the Tokenizer and Conversations, writes a Checkpoint. The loss is on what the assistant
has to say and on the token that ends its turn, on nothing else (InstructGPT, Ouyang et al. 2022).
"""

from dataclasses import dataclass

from pydantic import Field

from model.config import OptimConfig, TrainConfig, TrainRun
from tasks.artifacts.manifest import BaseModel, Conversations, SFTModel, Tokenizer
from tasks.artifacts.step import Outcome, Step, roles
from tasks.conversations.sources import ConversationsConfig
from tasks.execution.context import StageContext
from tasks.training import check_vocabulary, model_config, paths, tokenizer_file, train

VERSION = 3


class SFTConfig(ConversationsConfig):
    """The conversations, and how long the model is trained on them."""

    train: TrainConfig = Field(TrainConfig(num_steps=140, batch_tokens=4096, num_ranks=2), title="Training")
    optim: OptimConfig = Field(OptimConfig(learning_rate=1e-3), title="Optimizer")


@dataclass(frozen=True)
class SFTInputs:
    """What an SFT model is made of."""

    base: BaseModel
    tokenizer: Tokenizer
    conversations: Conversations


def sft(
    base: Step[BaseModel], tokenizer: Step[Tokenizer], conversations: Step[Conversations], config: SFTConfig
) -> Step[SFTModel]:
    """Fine-tune a base model on conversations."""
    inputs = roles(base=base, tokenizer=tokenizer, conversations=conversations)
    return Step("sft", VERSION, SFTModel, config, inputs, run=fine_tune, takes=SFTInputs)


def fine_tune(ctx: StageContext, config: SFTConfig, inputs: SFTInputs) -> Outcome:
    """Train on the assistant's turns. Raises UserError where the tokenizer is not the base model's."""
    check_vocabulary(inputs.base, inputs.tokenizer)
    settings = TrainRun(
        objective="sft",
        model=model_config(inputs.base),
        train=config.train,
        optim=config.optim,
        tokenizer=tokenizer_file(inputs.tokenizer),
        train_paths=paths(inputs.conversations, "train.jsonl"),
        validation_paths=paths(inputs.conversations, "validation.jsonl"),
        initial_weights=str(inputs.base.folder),
        output=str(ctx.folder),
    )
    return train(
        ctx, "model.training.loop", settings, num_steps=config.train.num_steps, num_ranks=config.train.num_ranks
    )
