"""Models of other makers: the same logits here as in transformers and back, and whatever would be computed otherwise is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.network.huggingface import from_hugging_face, load_transformer, resized, save_weights

transformers = pytest.importorskip("transformers")

SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}
LLAMA3 = {  # positions go well beyond the original length, and all three ranges of channels are there
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("Qwen3", {}),
    "qwen3, tied": ("Qwen3", {"tie_word_embeddings": True}),
    "qwen3, large base": ("Qwen3", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "llama": ("Llama", {"rms_norm_eps": 1e-5}),
    "llama, tied": ("Llama", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "llama, scaled": ("Llama", {"rope_parameters": LLAMA3}),
}


def write(folder: Path, name: str = "qwen3", dtype: torch.dtype = torch.float32, shards: str = "1GB") -> None:
    """A model of transformers with random weights, norms among them, in a folder."""
    family, changes = MODELS[name]
    config = getattr(transformers, f"{family}Config")(**(SIZES | changes))
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2 + (parameter.dim() == 1))
    model.to(dtype).save_pretrained(folder, max_shard_size=shards)


def theirs(folder: Path) -> torch.Tensor:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(tokens()).logits


def tokens() -> torch.Tensor:
    return torch.randint(0, 300, (3, 100), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_imported_and_exported_model_has_logits_of_transformers(tmp_path: Path, name: str) -> None:
    write(tmp_path / "theirs", name)
    ours = load_transformer(tmp_path / "theirs")
    (tmp_path / "ours").mkdir()
    save_weights(tmp_path / "ours", ours, {name: p.detach() for name, p in ours.named_parameters()}, max_tokens=128)
    expected = theirs(tmp_path / "theirs")
    assert expected.std() > 0.5
    assert (ours(tokens()) - expected).abs().max() <= 1e-4
    assert (theirs(tmp_path / "ours") - expected).abs().max() <= 1e-4
    assert load_transformer(tmp_path / "ours").config == ours.config


@torch.no_grad()
def test_rope_scaling_changes_logits(tmp_path: Path) -> None:
    write(tmp_path / "plain", "llama")
    write(tmp_path / "scaled", "llama, scaled")
    difference = load_transformer(tmp_path / "plain")(tokens()) - load_transformer(tmp_path / "scaled")(tokens())
    assert difference.abs().max() > 0.1


@pytest.mark.parametrize("name", ["qwen3", "llama, tied"])
@torch.no_grad()
def test_sharded_bfloat16_weights_load_as_float32(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, torch.bfloat16, shards="40kB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    ours = load_transformer(tmp_path)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    assert (ours(tokens()) - theirs(tmp_path)).abs().max() <= 1e-4


def test_config_of_transformers_4_reads_as_version_5() -> None:
    scaling = {key: value for key, value in LLAMA3.items() if key != "rope_theta"}
    old = SIZES | {"model_type": "llama", "rms_norm_eps": 1e-5, "rope_theta": 500.0, "rope_scaling": scaling}
    new = SIZES | {"model_type": "llama", "rms_norm_eps": 1e-5, "rope_parameters": LLAMA3}
    assert from_hugging_face(old) == from_hugging_face(new)
    assert from_hugging_face({**old, "head_dim": None}).head_width == 12
    assert from_hugging_face({**old, "head_dim": None, "model_type": "qwen3"}).head_width == 128
    assert from_hugging_face(old | {"rope_scaling": None}).rope_scaling is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "qwen2"}, "model_type 'qwen2': only qwen3 and llama"),
        ({"model_type": ["llama"]}, r"model_type \['llama'\]: only qwen3 and llama"),
        ({"attention_bias": True}, "attention_bias True"),
        ({"model_type": "llama", "head_dim": None, "num_attention_heads": 0}, "num_attention_heads 0: give"),
        ({"model_type": "llama", "head_dim": None, "hidden_size": "wide"}, "hidden_size 'wide' and"),
        ({"rope_parameters": ["llama3"]}, r"rope parameters \['llama3'\]: only an object"),
        ({"num_hidden_layers": None}, "does not say num_hidden_layers: give"),
        (
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e6}},
            r"rope_scaling\.factor: .* \(given: None\); ",
        ),
        ({"max_position_embeddings": None}, "does not say max_position_embeddings: give"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config {'quant_method': 'fp8'}: only"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu': only a model with 'silu'"),
        ({"use_sliding_window": True}, "use_sliding_window True"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}}, "rope_type 'yarn'"),
        ({"num_key_value_heads": 3}, "num_kv_heads=3 does not divide num_heads=4"),
        ({"num_hidden_layers": 4}, "holds nothing as model.layers.3.input_layernorm.weight, where"),
        ({"num_hidden_layers": 2}, r"holds a tensor of shape \(48,\) as model.layers.2.input_layernorm.weight, where"),
        ({"model_type": "llama"}, "as model.layers.0.self_attn.k_norm.weight, where its config.json asks for nothing"),
        ({"intermediate_size": 96}, r"where its config.json asks for a tensor of shape \(48, 96\)"),
    ],
)
def test_unsupported_config_raises_error(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ValueError, match=message):
        load_transformer(tmp_path)


def cut_off(folder: Path) -> None:
    path = sorted(folder.glob("*.safetensors"))[0]
    path.write_bytes(path.read_bytes()[:-100])


def remove_a_shard(folder: Path) -> None:
    sorted(folder.glob("*.safetensors"))[0].unlink()


def point_outside(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "../elsewhere.safetensors"}}))
    save_file({"model.norm.weight": torch.ones(48)}, folder.parent / "elsewhere.safetensors")


def cut_the_config_off(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text()[:-20])


def make_the_index_a_list(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": ["model-00001-of-00003.safetensors"]}')


def nest_the_config_deep(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 100_000)


def leave_a_pointer_for_the_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text("version https://git-lfs.github.com/spec/v1\n")


def pickle_alone(folder: Path) -> None:
    weights = {}
    for path in folder.glob("*.safetensors"):
        weights |= load_file(path)
        path.unlink()
    (folder / "model.safetensors.index.json").unlink()
    torch.save(weights, folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (cut_off, "is damaged"),
        (remove_a_shard, "has no file model-00001-of-"),
        (point_outside, "has no file ../elsewhere.safetensors"),
        (cut_the_config_off, r"config\.json is damaged .*: fetch or make it again"),
        (leave_a_pointer_for_the_index, r"index\.json is damaged .*: fetch or make it again"),
        (make_the_index_a_list, "has no file model.safetensors with weights"),
        (nest_the_config_deep, r"config\.json is damaged .*: fetch or make it again"),
        (pickle_alone, "has no file model.safetensors with weights"),
    ],
)
def test_missing_or_damaged_weight_file_raises_error(
    tmp_path: Path, harm: Callable[[Path], None], message: str
) -> None:
    write(tmp_path / "model", shards="40kB")
    harm(tmp_path / "model")
    with pytest.raises(ValueError, match=message):
        load_transformer(tmp_path / "model")


def test_tied_head_stored_separately_must_equal_embedding(tmp_path: Path) -> None:
    write(tmp_path, "llama, tied")
    weights = load_file(tmp_path / "model.safetensors")
    head = weights["model.embed_tokens.weight"].clone()
    save_file(weights | {"lm_head.weight": head}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert (load_transformer(tmp_path)(tokens()) - theirs(tmp_path)).abs().max() <= 1e-4
    save_file(weights | {"lm_head.weight": head + 1}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"a separate head as lm_head\.weight, where its config\.json ties it"):
        load_transformer(tmp_path)


@pytest.mark.parametrize("name", ["qwen3", "qwen3, tied"])
@torch.no_grad()
def test_resized_keeps_known_logits_and_averages_new_tokens(tmp_path: Path, name: str) -> None:
    write(tmp_path, name)
    model = load_transformer(tmp_path)
    known = tokens() % 290
    before, after = model(known)[..., :290], resized(model, 290, 302)(known)
    assert after.shape[-1] == 302
    assert torch.equal(after[..., :290], before)
    assert torch.allclose(after[..., 290:], before.mean(-1, keepdim=True).expand(-1, -1, 12), atol=1e-5)
