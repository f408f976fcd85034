"""Supervised fine-tuning (SFT): trains a base model on conversations.

Reads a BaseModel, the Tokenizer and Conversations; writes an SFTModel. The loss is the cross-entropy of the assistant's turns and of the
token that ends each; system and user turns, and turns of weight 0, are context only (InstructGPT, Ouyang et al. 2022,
https://arxiv.org/abs/2203.02155, section 3.5). Departure: conversations are packed into sequences, each kept apart by the attention mask.
"""

from dataclasses import dataclass

from pydantic import Field

from model.config import OptimConfig, TrainConfig, TrainRun
from tasks.artifacts.manifest import BaseModel, Conversations, SFTModel, Tokenizer
from tasks.artifacts.step import Outcome, Step, roles
from tasks.conversations.sources import ConversationsConfig
from tasks.execution.context import StageContext
from tasks.training import check_vocabulary, model_config, paths, tokenizer_file, train

VERSION = 5  # 5: turns of the renderer with a token for each role


class SFTConfig(ConversationsConfig):
    """The conversations, and how long the model is trained on them."""

    # The learning rate suits models of about 1 M parameters; for imported models flows/recipes.py takes Llama 2's.
    train: TrainConfig = Field(TrainConfig(num_steps=140, batch_tokens=4096, num_ranks=2), title="Training")
    optim: OptimConfig = Field(OptimConfig(learning_rate=1e-3), title="Optimizer")


@dataclass(frozen=True)
class SFTInputs:
    """The artifacts that SFT reads."""

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
