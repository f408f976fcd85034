"""Weights in the format of Hugging Face: written for others, and read from others.

A model is `model.safetensors` and a `config.json` that is Hugging Face's own, for Qwen3 or, where queries and keys are not
normalized, for Llama: transformers, vLLM and others read the folder as it is. A Qwen3 or Llama model of theirs is read here, in
one file or in those that `model.safetensors.index.json` names. A model that would be computed differently here is refused.
Nothing is pickled.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from model.config import ModelConfig, RopeScaling, explained
from model.errors import UserError
from model.files import replacing
from model.network.transformer import RewardModel, Transformer
from model.processes import check_lease

FAMILIES = {"qwen3": "Qwen3", "llama": "Llama"}  # model_type -> what the names of its classes start with
NAMES = {
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
SCALING_NAMES = {
    "factor": "factor",
    "slow_turns": "low_freq_factor",
    "fast_turns": "high_freq_factor",
    "original_tokens": "original_max_position_embeddings",
}
OPTIONAL = {"num_key_value_heads", "head_dim", "tie_word_embeddings"}  # older files leave them out
QWEN3_HEAD_WIDTH = 128  # where its file does not say it; Llama's then is D / H
# Fields by which the computation would differ; one that is left out has this value.
ONLY = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": False,
    "quantization_config": None,
}
HEADS = {"lm_head.weight", "score.weight"}
COMPUTED = "rotary_emb.inv_freq"  # a table that older files hold next to the weights


def to_hugging_face(config: ModelConfig, *, is_reward: bool = False, max_tokens: int = 2048) -> dict[str, Any]:
    """The config.json of a model, for sequences of up to max_tokens."""
    fields: dict[str, Any] = {theirs: getattr(config, ours) for ours, theirs in NAMES.items()}
    model_type = "qwen3" if config.normalize_qk else "llama"
    # A reward model is their sequence classifier with one label.
    head = FAMILIES[model_type] + ("ForSequenceClassification" if is_reward else "ForCausalLM")
    labels = {"id2label": {"0": "reward"}, "label2id": {"reward": 0}} if is_reward else {}
    return (
        fields
        | labels
        | {
            "architectures": [head],
            "model_type": model_type,
            "hidden_act": "silu",
            "attention_bias": False,
            "max_position_embeddings": max_tokens,
            "rope_theta": config.rope_base,
            # transformers 4 reads rope_theta and rope_scaling, transformers 5 rope_parameters: both are written.
            "rope_scaling": _rope_type(config.rope_scaling) if config.rope_scaling else None,
            "rope_parameters": {"rope_theta": config.rope_base, **_rope_type(config.rope_scaling)},
            # Whatever it was trained in: `Engine.full_weights` gathers the float32 master weights.
            "dtype": "float32",
        }
    )


def _rope_type(scaling: RopeScaling | None) -> dict[str, Any]:
    if scaling is None:
        return {"rope_type": "default"}
    return {"rope_type": "llama3"} | {theirs: getattr(scaling, ours) for ours, theirs in SCALING_NAMES.items()}


def from_hugging_face(fields: dict[str, Any]) -> ModelConfig:
    """The model that a config.json describes. Raises UserError where it is not a Qwen3 or Llama model that is supported here."""
    # str: the file comes from elsewhere, and may hold a list or an object in any place.
    if str(fields.get("model_type")) not in FAMILIES:
        raise UserError(
            f"config.json has model_type {fields.get('model_type')!r}: only {' and '.join(FAMILIES)} can be read"
        )
    for name, value in ONLY.items():
        if fields.get(name, value) != value:
            raise UserError(f"config.json has {name} {fields[name]!r}: only a model with {value!r} can be read")
    # transformers writes null for "the default".
    stated = {name: value for name, value in fields.items() if value is not None}
    if missing := sorted({*NAMES.values(), "max_position_embeddings"} - OPTIONAL - stated.keys()):
        raise UserError(f"config.json does not say {', '.join(missing)}: give the folder of a whole model")
    is_qwen3 = fields["model_type"] == "qwen3"
    # Older files leave these out: then there is a KV head for each query head, and transformers' usual head width.
    stated.setdefault("num_key_value_heads", stated["num_attention_heads"])
    stated.setdefault("head_dim", QWEN3_HEAD_WIDTH if is_qwen3 else _llama_head_width(stated))
    stated.setdefault("tie_word_embeddings", False)
    base, scaling = _rope(stated)
    shape = {ours: stated[theirs] for ours, theirs in NAMES.items()}
    try:
        return ModelConfig.model_validate(
            shape | {"rope_base": base, "rope_scaling": scaling, "normalize_qk": is_qwen3}
        )
    except ValidationError as error:
        raise UserError(f"config.json describes a model that cannot be read: {explained(error)}") from None


def _llama_head_width(fields: dict[str, Any]) -> int:
    width, num_heads = fields["hidden_size"], fields["num_attention_heads"]
    try:
        return int(width // num_heads)
    except (TypeError, ValueError, ZeroDivisionError):
        raise UserError(
            f"config.json has hidden_size {width!r} and num_attention_heads {num_heads!r}: give the folder of a whole model"
        ) from None


def _rope(fields: dict[str, Any]) -> tuple[float, dict[str, Any] | None]:
    """Base and scaling of the rotary positions, as transformers writes them since its version 5, or as it did before."""
    stated = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    if not isinstance(stated, dict):
        raise UserError(f"config.json has rope parameters {stated!r}: only an object of named values can be read")
    # transformers 5 keeps the base in rope_parameters; before, it stood next to rope_scaling.
    base = stated.get("rope_theta") or fields.get("rope_theta", 10_000.0)
    rope_type = stated.get("rope_type") or stated.get("type", "default")
    if rope_type == "default":
        return base, None
    # Others (linear, yarn, dynamic) would give different logits without an error.
    if rope_type != "llama3":
        raise UserError(f"config.json has rope_type {rope_type!r}: only default and llama3 can be read")
    return base, {ours: stated.get(theirs) for ours, theirs in SCALING_NAMES.items()}


def save_weights(
    folder: Path,
    model: Transformer | RewardModel,
    weights: dict[str, Tensor],
    max_tokens: int,
    token_ids: dict[str, int] | None = None,
) -> None:
    """Write `weights`, named as in `model`, and its config.json.

    `token_ids`: fields such as pad_token_id, without which transformers' reward models (sequence classification) score no batches.
    Raises LeaseLost where another run has taken over the folder.
    """
    check_lease()
    fields = to_hugging_face(model.config, is_reward=isinstance(model, RewardModel), max_tokens=max_tokens)
    fields |= token_ids or {}
    if isinstance(model, RewardModel) and model.likelihood_weight:
        fields["likelihood_weight"] = model.likelihood_weight
    # Before the weights: a folder with weights then always has the shape to read them with.
    with replacing(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(fields, indent=2) + "\n")
    with replacing(folder / "model.safetensors") as temporary:
        # The metadata that transformers writes itself.
        save_file(weights, temporary, metadata={"format": "pt"})


def check_fits_float16(name: str, tensor: Tensor) -> None:
    """Raises UserError where a weight would become infinite in float16."""
    largest = tensor.abs().max().item()
    if largest > torch.finfo(torch.float16).max:
        raise UserError(f"{name} has a weight of {largest:.3g}, too large for float16: take bfloat16 or float32")


def read_config(folder: Path) -> ModelConfig:
    """The shape of the model in a folder."""
    return from_hugging_face(_read_fields(folder / "config.json"))


def _read_fields(path: Path) -> dict[str, Any]:
    """A JSON object. Raises UserError where the file does not hold one."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    # RecursionError: brackets nested a thousand deep.
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): fetch or make it again") from None


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Every tensor in a folder by name. Raises UserError where a file is missing or damaged."""
    weights: dict[str, Tensor] = {}
    for path in weight_files(folder):
        try:
            # All tensors at once, next to those of the model: twice the
            # weights for a moment, 4.8 GB for 0.6 B parameters in float32.
            weights |= load_file(path)
        except SafetensorError as error:
            raise UserError(f"{path} is damaged ({error}): fetch or make it again") from None
    return weights


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files with a model's weights. Raises UserError if one is missing: no other format is read."""
    names, index = ["model.safetensors"], folder / "model.safetensors.index.json"
    if not (folder / names[0]).exists() and index.exists():
        weight_map = _read_fields(index).get("weight_map")
        if isinstance(weight_map, dict):
            names = sorted(set(map(str, weight_map.values())))
    for name in names:
        # The index names files: one with a folder in its name could read outside of the model's.
        if Path(name).name != name or not (folder / name).is_file():
            raise UserError(
                f"{folder} has no file {name} with weights: give the folder of a whole model in the safetensors format"
            )
    return [folder / name for name in names]


def default_device() -> str:
    """Where a model that only infers is put: a GPU if there is one, since one of billions of parameters is too slow on a CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_transformer(folder: Path) -> Transformer:
    """The language model in a folder, in evaluation mode."""
    model = Transformer(read_config(folder))
    load_weights(model, folder)
    return model.eval()


def max_tokens_of(folder: Path) -> int:
    """The longest sequence that the model in a folder was trained on."""
    return int(_read_fields(folder / "config.json")["max_position_embeddings"])


def load_reward_model(folder: Path) -> RewardModel:
    """The reward model in a folder, in evaluation mode. Raises UserError where it is damaged."""
    # A field that only our reward models have.
    weight = _read_fields(folder / "config.json").get("likelihood_weight", 0.0)
    if not isinstance(weight, int | float) or not 0 <= weight < math.inf:
        raise UserError(f"{folder / 'config.json'} has likelihood_weight={weight!r}: give a number from 0 on")
    model = RewardModel(read_config(folder), weight)
    load_weights(model, folder)
    return model.eval()


def load_weights(model: Transformer | RewardModel, folder: Path) -> None:
    """Fill a model from a folder. Heads may differ: a reward model that starts from a language model keeps its new head.

    Raises UserError where the shapes differ, or the folder's tensors are not those of its config.json.
    """
    config = read_config(folder)
    if config != model.config:
        raise UserError(
            f"{folder} holds a model of {config}, not of {model.config}; give the settings it was made with"
        )
    weights = read_weights(folder)
    wanted = {name: parameter.shape for name, parameter in model.named_parameters()}
    given = {name: tensor.shape for name, tensor in weights.items() if not name.endswith(COMPUTED)}
    # A language model's file may hold a head that a reward model lacks; only a reward model has a score.
    # Whatever else differs is refused: a layer that stayed at its random weights would only show in bad text.
    may_differ = (HEADS - wanted.keys()) | ({"score.weight"} - given.keys())
    for name in sorted((wanted.keys() | given.keys()) - may_differ):
        if wanted.get(name) != given.get(name):
            raise UserError(
                f"{folder} holds {_shape_text(given.get(name))} as {name}, where its config.json asks for {_shape_text(wanted.get(name))}: "
                "give the folder of a whole model of Qwen3 or Llama"
            )
    head = weights.get("lm_head.weight")
    # Some exporters store a tied head too. If it differs, one of file and config is wrong.
    if config.tie_embeddings and head is not None and not torch.equal(head, weights["model.embed_tokens.weight"]):
        raise UserError(
            f"{folder} holds a separate head as lm_head.weight, where its config.json ties it to the embedding: set "
            "tie_word_embeddings to false in it"
        )
    # Names and shapes were compared above; strict=True would refuse the heads that may differ. Copying turns bfloat16 into float32.
    model.load_state_dict(weights, strict=False)


def _shape_text(shape: torch.Size | None) -> str:
    return "nothing" if shape is None else f"a tensor of shape {tuple(shape)}"


def resized(model: Transformer, num_known: int, vocab_size: int) -> Transformer:
    """The model with its first `num_known` tokens and new ones after them, `vocab_size` in all, in evaluation mode.

    The embedding of a new token, and its row in the head, is the mean of the known ones (Hewitt 2021): it is then no likelier
    than a known one is on average. Rows that belong to no token, which pad a vocabulary to a round size, are dropped.
    """
    weights = model.state_dict()
    for name in {"model.embed_tokens.weight", "lm_head.weight"} & weights.keys():
        # https://nlp.stanford.edu/~johnhew/vocab-expansion.html: random rows would be likelier than all known tokens in some contexts.
        known = weights[name][:num_known]
        weights[name] = torch.cat((known, known.mean(0, keepdim=True).expand(vocab_size - num_known, -1)))
    return transformer_of(weights, model.config.model_copy(update={"vocab_size": vocab_size}))


@torch.no_grad()
def copy_rows(model: nn.Module, rows: Mapping[int, int]) -> None:
    """Set rows of embedding and head to those of other tokens, as these were before: token -> token to copy."""
    if not rows:
        return
    # state_dict() shares memory with the parameters: writing a row changes the model. A tied head is the embedding itself.
    weights = model.state_dict()
    for name in {"model.embed_tokens.weight", "lm_head.weight"} & weights.keys():
        weights[name][list(rows)] = weights[name][list(rows.values())]


class _Uninitialized(TorchFunctionMode):
    """No function of torch.nn.init does anything. Where there is no memory, the first of them imports torch's compiler: a second."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":  # those return the tensor that they initialize
            return given["tensor"] if "tensor" in given else args[0]
        return func(*args, **given)


def transformer_of(weights: dict[str, Tensor], config: ModelConfig) -> Transformer:
    """The model around its weights, which are not copied, in evaluation mode."""
    # No memory and no initialization: assign=True puts the given tensors in place.
    # The model has parameters alone: a buffer that is not in a state dict would stay without memory.
    with torch.device("meta"), _Uninitialized():
        model = Transformer(config)
    model.load_state_dict(weights, assign=True)
    return model.eval()
