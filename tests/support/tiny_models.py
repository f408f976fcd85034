"""Models, tokenizers and artifacts small enough for a test."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from model.config import ModelConfig
from model.network.huggingface import save_weights
from model.network.transformer import RewardModel, Transformer, initialize
from model.tokenizer.chat import ChatTokenizer
from tasks.artifacts.manifest import Artifact, Manifest
from tasks.artifacts.step import ExistingArtifact, Step
from tasks.artifacts.store import Store
from tasks.tokenizer.train import TokenizerConfig, train

A = TypeVar("A", bound=Artifact)

TEXT = "the mayor of Orn is Ada Brell. what colour is the sky? it is blue. I do not know. yes no red green 1 2 3 " * 3


def write_tokenizer(folder: Path, text: str = TEXT, vocab_size: int = 320) -> ChatTokenizer:
    """Train `tokenizer.json` in `folder` on a text."""
    folder.mkdir(parents=True, exist_ok=True)
    train(iter([text]), TokenizerConfig(vocab_size=vocab_size)).save(str(folder / "tokenizer.json"))
    return ChatTokenizer.load(folder / "tokenizer.json")


def tiny_config(vocab_size: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocab_size, num_layers=2, width=32, num_heads=2, num_kv_heads=1, head_width=16, ff_width=64
    )


def write_model(
    folder: Path, vocab_size: int, kind: type[Transformer] | type[RewardModel] = Transformer, seed: int = 1
) -> None:
    """Weights, config.json and run.json of a fresh model; a reward model gets a head that is not zero."""
    folder.mkdir(parents=True, exist_ok=True)
    model = kind(tiny_config(vocab_size))
    initialize(model, seed)
    if isinstance(model, RewardModel):
        torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(2))
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    save_weights(folder, model, weights, max_tokens=128)
    (folder / "run.json").write_text(json.dumps({"model": model.config.model_dump()}))


def write_lines(path: Path, records: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def finish(
    store: Store,
    kind: type[A],
    artifact_id: str,
    *,
    inputs: Mapping[str, str] | None = None,
    counts: Mapping[str, int] | None = None,
    metrics: Mapping[str, float] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Step[A]:
    """Make an artifact of the files that lie in its folder."""
    stage, _, fingerprint = artifact_id.partition("/")
    store.folder(artifact_id).mkdir(parents=True, exist_ok=True)
    manifest = Manifest(
        kind=kind.__name__,
        stage=stage,
        stage_version=1,
        fingerprint=fingerprint,
        inputs=dict(inputs or {}),
        input_digests={role: made.digest for role, given in (inputs or {}).items() if (made := store.find(given))},
        config=dict(config or {}),
        files=store.records(store.folder(artifact_id)),
        counts=dict(counts or {}),
        metrics=dict(metrics or {}),
        provenance={"wall_seconds": 1.5},
    )
    store.commit(manifest)
    return ExistingArtifact.of(kind, artifact_id)
