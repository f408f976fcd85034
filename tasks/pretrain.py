"""Pretraining: a base model from tokens, through DeepSpeed.

Reads Tokens and the Tokenizer they were made with, writes a Checkpoint. The model has Qwen3's layout, the loop is
`model.train`'s. Departs from GPT-2: RoPE, RMSNorm and SwiGLU instead of learned positions, LayerNorm and GELU.
"""

from pydantic import Field

from model.config import ModelConfig, OptimConfig, TrainConfig, TrainRun
from model.presets import PRESETS
from tasks.artifacts import Checkpoint, Config, Outcome, Step, Tokenizer, Tokens
from tasks.stage import Run
from tasks.training import paths, tokenizer_file, train, vocab_size

VERSION = 1


class PretrainConfig(Config):
    """The base model and its training. The vocabulary's size is the tokenizer's, whatever `model` says."""

    model: ModelConfig = Field(PRESETS["tiny"].model, title="Model")
    train: TrainConfig = Field(PRESETS["tiny"].train, title="Training")
    optim: OptimConfig = Field(PRESETS["tiny"].optim, title="Optimizer")


def pretrain(tokens: Step[Tokens], tokenizer: Step[Tokenizer], config: PretrainConfig) -> Step[Checkpoint]:
    return Step("pretrain", VERSION, Checkpoint, config, {"tokens": tokens, "tokenizer": tokenizer}, run=run)


def run(run: Run, config: PretrainConfig, tokens: Tokens, tokenizer: Tokenizer) -> Outcome:
    if tokens.manifest.inputs["tokenizer"] != tokenizer.manifest.id:
        raise ValueError(
            f"artifact {tokens.manifest.id} was made with {tokens.manifest.inputs['tokenizer']}, not with {tokenizer.manifest.id}: "
            "give the tokenizer that it was made with, or tokenize anew"
        )
    settings = TrainRun(
        objective="pretrain",
        model=config.model.model_copy(update={"vocab_size": vocab_size(tokenizer)}),
        train=config.train,
        optim=config.optim,
        tokenizer=tokenizer_file(tokenizer),
        train_paths=paths(tokens, "train/*.arrow"),
        validation_paths=paths(tokens, "validation/*.arrow"),
        output=str(run.folder),
    )
    return train(run, "model.train", settings, num_steps=config.train.num_steps, num_ranks=config.train.num_ranks)
