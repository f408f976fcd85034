"""Weights for others, and checkpoints for going on.

Weights are `model.safetensors` and a `config.json` that is Hugging Face's own for Qwen3: transformers, vLLM and others read
the folder as it is, and a Qwen3 checkpoint of theirs is read here. Nothing is pickled.

A checkpoint is DeepSpeed's: weights, optimizer state by rank, and the steps done. It is written under another name and renamed
when all ranks are through, so that one that is there is whole. It is read with `weights_only`: no pickle in it is
executed beyond the few classes named here.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.config import ModelConfig
from model.transformer import RewardModel, Transformer

QWEN3_NAMES = {
    "vocab_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "width": "hidden_size",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_width": "head_dim",
    "ff_width": "intermediate_size",
    "tie_embeddings": "tie_word_embeddings",
    "norm_eps": "rms_norm_eps",
}
STEP_FOLDER = re.compile(r"step-(\d+)")


def to_qwen3(config: ModelConfig, *, is_reward: bool = False, max_tokens: int = 2048) -> dict[str, Any]:
    """The config.json of a model, for sequences of up to max_tokens."""
    fields: dict[str, Any] = {theirs: getattr(config, ours) for ours, theirs in QWEN3_NAMES.items()}
    head = "Qwen3ForSequenceClassification" if is_reward else "Qwen3ForCausalLM"
    labels = {"id2label": {"0": "reward"}, "label2id": {"reward": 0}} if is_reward else {}
    return (
        fields
        | labels
        | {
            "architectures": [head],
            "model_type": "qwen3",
            "hidden_act": "silu",
            "attention_bias": False,
            "max_position_embeddings": max_tokens,
            "rope_theta": config.rope_base,
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
            "dtype": "float32",
        }
    )


def from_qwen3(fields: dict[str, Any]) -> ModelConfig:
    """The shape that a config.json describes. Raises ValueError where it is not one of Qwen3."""
    if fields.get("model_type") != "qwen3":
        raise ValueError(f"config.json has model_type {fields.get('model_type')!r}; only 'qwen3' can be read")
    rope_base = fields.get("rope_theta") or fields["rope_parameters"]["rope_theta"]
    return ModelConfig(rope_base=rope_base, **{ours: fields[theirs] for ours, theirs in QWEN3_NAMES.items()})


def save_weights(folder: Path, model: Transformer | RewardModel, weights: dict[str, Tensor], max_tokens: int) -> None:
    """Write `weights`, named as in `model`, and its config.json."""
    fields = to_qwen3(model.config, is_reward=isinstance(model, RewardModel), max_tokens=max_tokens)
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def read_config(folder: Path) -> ModelConfig:
    """The shape of the model in a folder."""
    return from_qwen3(json.loads((folder / "config.json").read_text()))


def load_transformer(folder: Path) -> Transformer:
    """The language model in a folder, in evaluation mode."""
    model = Transformer(read_config(folder))
    load_weights(model, folder)
    return model.eval()


def load_reward_model(folder: Path) -> RewardModel:
    """The reward model in a folder, in evaluation mode."""
    model = RewardModel(read_config(folder))
    load_weights(model, folder)
    return model.eval()


def load_weights(model: Transformer | RewardModel, folder: Path) -> None:
    """Fill a model from a folder. Heads may differ: a reward model starts from a language model with its own.

    Raises ValueError where the shapes differ.
    """
    config = read_config(folder)
    if config != model.config:
        raise ValueError(
            f"{folder} holds a model of {config}, not of {model.config}; give the settings it was made with"
        )
    missing, unexpected = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    assert set(missing) <= {"score.weight"}
    assert set(unexpected) <= {"lm_head.weight", "score.weight"}


def save_checkpoint(engine: Any, folder: Path, step: int, keep_checkpoints: int) -> None:
    """Write what a run needs to go on after `step` steps; all ranks call it. Only the newest checkpoints are kept."""
    partial = f"partial-{step:08d}"
    if engine.global_rank == 0:
        shutil.rmtree(folder / partial, ignore_errors=True)
    engine.save_checkpoint(str(folder), tag=partial, client_state={"step": step}, save_latest=False)
    if engine.global_rank == 0:
        (folder / partial).replace(folder / f"step-{step:08d}")
        for old in complete_checkpoints(folder)[:-keep_checkpoints]:
            shutil.rmtree(old)


def load_checkpoint(engine: Any, folder: Path) -> int:
    """Go on from the newest whole checkpoint: the steps it has done, or 0 where there is none. All ranks call it."""
    found = complete_checkpoints(folder)
    if not found:
        return 0
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"  # DeepSpeed asks torch for the unsafe load; torch obeys this
    with torch.serialization.safe_globals(_deepspeed_classes()):
        path, state = engine.load_checkpoint(str(folder), tag=found[-1].name)
    assert path is not None, found[-1]
    return int(state["step"])


def complete_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints that were written to their end, by step."""
    return sorted(path for path in folder.glob("step-*") if STEP_FOLDER.fullmatch(path.name))


def _deepspeed_classes() -> list[Any]:
    """What DeepSpeed puts into its checkpoints beside tensors and numbers."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [LossScaler, ZeroStageEnum, fragment_address]
