"""Pretraining: a base model from tokens, through DeepSpeed.

Reads Tokens and the Tokenizer they were made with, more Tokens of that vocabulary and the files of an open-weights model where the
config names them; writes a BaseModel. model/training/loop.py trains it. A new model has Qwen3's layout, which departs from GPT-2: RoPE,
RMSNorm and SwiGLU instead of learned positions, LayerNorm and GELU.

An open-weights model is trained further from its weights. With num_steps=0 it becomes the base model unchanged; it is validated as
a training run validates.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from model.config import (
    Config,
    CopyingConfig,
    ModelShape,
    OptimConfig,
    Source,
    TrainConfig,
    TrainRun,
    num_parameters,
    runtime,
)
from model.planning.presets import PRESETS
from model.tokenizer.chat import ChatTokenizer
from tasks.artifacts.manifest import BaseModel, Resource, Tokenizer, Tokens
from tasks.artifacts.step import ExistingArtifact, Outcome, Step, roles
from tasks.artifacts.store import Store
from tasks.execution.context import StageContext
from tasks.pretrain.open_weights import adapted
from tasks.training import check_tokens, paths, tokenizer_file, train, vocab_size, without_store

if TYPE_CHECKING:
    from model.network.transformer import Transformer

VERSION = 2


class PretrainConfig(Config):
    """The base model and its training. The size of the vocabulary is the tokenizer's."""

    initial_model: str = runtime(
        "",
        description="Folder of a Qwen3 or Llama model to start from, as `hf download` makes it. Its shape then replaces `model`, and the "
        "tokenizer must be made of its tokenizer.json. With train.num_steps=0 it is used unchanged.",
    )
    # The shape is the recipe's and the vocabulary the tokenizer's, so that a recipe cannot contradict its tokenizer.
    model: ModelShape = Field(ModelShape(), title="Model")
    mixture: dict[str, float] = Field(
        {},
        description="More tokens to train on: artifacts by tokenize/FINGERPRINT, and how many sequences of each for one of the recipe's tokens.",
    )
    copying: CopyingConfig = Field(CopyingConfig(), title="Copying")
    train: TrainConfig = Field(PRESETS["tiny"].train, title="Training")
    optim: OptimConfig = Field(PRESETS["tiny"].optim, title="Optimizer")

    @model_validator(mode="after")
    def _heads_have_place(self) -> Self:
        if not self.initial_model:  # its weights are not drawn
            self.copying.check(self.model)
        return self

    @model_validator(mode="after")
    def _something_is_made(self) -> Self:
        if not self.train.num_steps and not self.initial_model:
            raise ValueError("train.num_steps=0 uses a model unchanged, and initial_model is empty: set one of the two")
        return self


@dataclass(frozen=True)
class PretrainInputs:
    """What a base model is made of."""

    tokens: Tokens
    tokenizer: Tokenizer
    initial_model: Resource | None = None
    mixture: tuple[Tokens, ...] = ()


def more_tokens(mixture: Mapping[str, float]) -> list[Step[Tokens]]:
    """The artifacts tokenize/FINGERPRINT that are mixed into the recipe's own tokens."""
    return [ExistingArtifact.of(Tokens, artifact_id) for artifact_id in mixture]


def check_mixture(config: PretrainConfig) -> None:
    """Raises UserError where tokens that are mixed in do not exist."""
    # Before anything runs: hours of ingest and filtering would otherwise end in the error.
    for artifact_id in config.mixture:
        Store.default().open(artifact_id, Tokens)


def pretrain(
    tokens: Step[Tokens],
    tokenizer: Step[Tokenizer],
    initial_model: Step[Resource] | None,
    mixture: Sequence[Step[Tokens]],
    config: PretrainConfig,
) -> Step[BaseModel]:
    """Train a base model on tokens, or take an open-weights model."""
    inputs = roles(tokens=tokens, tokenizer=tokenizer, initial_model=initial_model, mixture=mixture)
    return Step(
        "pretrain", VERSION, BaseModel, config, inputs, run=train_base_model, takes=PretrainInputs, check=check_mixture
    )


def train_base_model(ctx: StageContext, config: PretrainConfig, inputs: PretrainInputs) -> Outcome:
    """Train by DeepSpeed, or validate the initial model as it is. Raises UserError where a vocabulary does not fit."""
    tokens, tokenizer, initial_model = inputs.tokens, inputs.tokenizer, inputs.initial_model
    check_tokens([tokens, *inputs.mixture], tokenizer)
    settings = TrainRun(
        objective="pretrain",
        model=config.model.with_vocabulary(vocab_size(tokenizer)),
        train=config.train,
        optim=config.optim,
        copying=config.copying,
        tokenizer=tokenizer_file(tokenizer),
        train_paths=paths(tokens, "train/*.arrow"),
        mixture=tuple(
            Source(paths=paths(more, "train/*.arrow"), weight=weight)
            # Inputs keep the order of the config, from which `more_tokens` made them.
            for more, weight in zip(inputs.mixture, config.mixture.values(), strict=True)
        ),
        # Of the recipe's tokens alone: validation losses stay comparable when the mixture changes.
        validation_paths=paths(tokens, "validation/*.arrow"),
        output=str(ctx.folder),
    )
    # No step to train: the model is taken as it is. Only then is a launcher not needed, and its metrics are computed here.
    if initial_model and not config.train.num_steps:
        return take(ctx, settings, initial_model, tokenizer)
    # A resumed stage writes the initial weights again; training continues from its newest checkpoint all the same.
    if initial_model:
        settings = starting_from(ctx.state / "initial", settings, initial_model, tokenizer)
    return train(
        ctx, "model.training.loop", settings, num_steps=config.train.num_steps, num_ranks=config.train.num_ranks
    )


def starting_from(folder: Path, settings: TrainRun, initial_model: Resource, tokenizer: Tokenizer) -> TrainRun:
    """The run that trains the initial model further; its weights are written to `folder`."""
    # Into the stage's state and not its artifact: the training processes read it, and nobody needs it afterwards.
    model, max_tokens = adapted(initial_model, tokenizer)
    folder.mkdir(exist_ok=True)
    write(folder, model, max_tokens)
    return settings.model_copy(update={"model": model.config, "initial_weights": str(folder)})


def take(ctx: StageContext, settings: TrainRun, initial_model: Resource, tokenizer: Tokenizer) -> Outcome:
    """Write the initial model unchanged, with the files and metrics of a trained one."""
    model, max_tokens = adapted(initial_model, tokenizer)
    write(ctx.folder, model, max_tokens)
    # run.json as a training run leaves it, since later stages read the model's shape from there (tasks/training.py).
    adapted_run = settings.model_copy(update={"model": model.config})
    (ctx.folder / "run.json").write_text(without_store(adapted_run.model_dump_json(indent=1), ctx))
    counts = {"parameters": num_parameters(model.config), "steps": 0, "tokens": 0}
    metrics = validate(ctx, settings, model) if settings.train.eval_sequences else {}
    (ctx.folder / "summary.json").write_text(json.dumps(counts | metrics, indent=1) + "\n")
    return Outcome(counts, metrics)


def write(folder: Path, model: "Transformer", max_tokens: int) -> None:
    """Write a model's weights and its config.json."""
    from model.network.huggingface import save_weights

    save_weights(folder, model, {name: weight.detach() for name, weight in model.named_parameters()}, max_tokens)


def validate(ctx: StageContext, settings: TrainRun, model: "Transformer") -> dict[str, float]:
    """The loss on held-out text as a training run measures it, on a GPU if there is one; empty where no text is held out."""
    import numpy as np

    from model.data.dataloader import open_validation
    from model.network.huggingface import default_device
    from model.training.objectives import LanguageObjective, measures

    config, encoder = settings.train, ChatTokenizer.load(settings.tokenizer)
    device = default_device()
    # 0.0: z-loss is a term of training only.
    objective = LanguageObjective(model, encoder, 0.0, config.mask_across_documents).to(device)
    if (held_out := open_validation(settings, encoder)) is None:
        return {}
    # The first eval_sequences of the split, as the training loop takes them.
    num_records, size = min(len(held_out), config.eval_sequences), config.microbatch_sequences
    # Sums over tokens and a mean at the end: batches differ in the number of tokens that count.
    sums = np.zeros(3)
    for number, part in enumerate(measures(objective, held_out, np.arange(num_records), size, device), start=1):
        sums += part
        # Each report also checks the lease, so that a run that lost it stops here and not at the end of the split.
        ctx.progress(min(number * size, num_records), num_records, "sequences")
    return objective.report(*sums.tolist())
