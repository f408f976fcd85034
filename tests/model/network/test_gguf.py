"""A model in llama.cpp: the log-probabilities and greedy tokens of the same model here, with whatever options a recipe has."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from model.config import GenerateConfig, GGUFType, ModelConfig, RopeScaling
from model.errors import UserError
from model.inference.cpu_kernels import make_decoder
from model.inference.generate import generate
from model.network.gguf import NoEquivalentError, write_gguf
from model.network.transformer import Transformer, initialize
from model.tokenizer.chat import ChatTokenizer
from model.tokenizer.llama_cpp import read_vocabulary
from tests.support.llama_cpp import llama_cpp
from tests.support.tiny_models import write_tokenizer

QWEN3: dict[str, Any] = {
    "num_layers": 2,
    "width": 64,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_width": 32,
    "ff_width": 96,
}
SCALING = RopeScaling(factor=8.0, slow_turns=1.0, fast_turns=4.0, original_tokens=64)
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3": QWEN3,
    "long sequences": QWEN3 | {"rope_base": 1e6},  # the recipe tools
    "untied head": QWEN3 | {"tie_embeddings": False, "norm_eps": 1e-5},
    "one head of its width": QWEN3 | {"num_heads": 2, "num_kv_heads": 2},
    "narrow heads": QWEN3
    | {"num_heads": 6, "num_kv_heads": 6, "head_width": 16, "width": 96, "ff_width": 256},  # study
    "llama": QWEN3 | {"normalize_qk": False},
    "llama 3": QWEN3 | {"normalize_qk": False, "rope_base": 5e5, "rope_scaling": SCALING, "tie_embeddings": False},
}


def make_model(shape: dict[str, Any], vocab_size: int) -> Transformer:
    """A model whose norms are not 1 and whose logits are far apart, so that a wrong norm or rotation is seen."""
    model = Transformer(ModelConfig(vocab_size=vocab_size, **shape)).eval()
    initialize(model, seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * (0.3 if parameter.dim() == 1 else 0.1))
    return model


def write(folder: Path, model: Transformer, kind: GGUFType = "f32") -> tuple[ChatTokenizer, Path]:
    tokenizer = ChatTokenizer.load(folder / "tokenizer.json")
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    path, vocabulary = folder / "m.gguf", read_vocabulary(folder / "tokenizer.json")
    write_gguf(
        path, weights, model.config, vocabulary, tokenizer, matrices=kind, max_tokens=256, fields={"general.name": "m"}
    )
    return tokenizer, path


def logprobs(model: Transformer, prompt: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([prompt]))[0, -1], -1)


@pytest.mark.parametrize("name", SHAPES)
def test_llama_cpp_gives_the_same_logprobs_and_greedy_tokens(tmp_path: Path, name: str) -> None:
    vocab_size = write_tokenizer(tmp_path).vocab_size
    model = make_model(SHAPES[name], vocab_size)
    tokenizer, path = write(tmp_path, model)
    # Longer than the original sequences of the scaling, so that slow channels turn differently.
    prompt = torch.randint(11, vocab_size, (100,), generator=torch.Generator().manual_seed(5)).tolist()
    ours = generate(make_decoder(model), [prompt], GenerateConfig(max_new_tokens=40, temperature=0), tokenizer.turn_end)
    with llama_cpp(path) as theirs:
        found = torch.tensor(theirs.logprobs(prompt, vocab_size))
        torch.testing.assert_close(found, logprobs(model, prompt), atol=2e-4, rtol=0)
        assert theirs.greedy(prompt, 40) == ours[0]


# Largest difference of a log-probability: f16 rounds weights and activations to 11 bits, q8_0 to 8 bits of the largest of 32.
@pytest.mark.parametrize(("kind", "bound"), [("f16", 0.05), ("q8_0", 0.6)])
@pytest.mark.parametrize("name", ["qwen3", "llama"])
def test_rounded_weights_give_logprobs_within_their_rounding(
    tmp_path: Path, name: str, kind: GGUFType, bound: float
) -> None:
    vocab_size = write_tokenizer(tmp_path).vocab_size
    model = make_model(SHAPES[name], vocab_size)
    _, path = write(tmp_path, model, kind)
    prompt = list(range(11, 60))
    with llama_cpp(path) as theirs:
        found = torch.tensor(theirs.logprobs(prompt, vocab_size))
    assert 0 < (found - logprobs(model, prompt)).abs().max() < bound


def test_every_rounded_weight_is_within_half_a_step(tmp_path: Path) -> None:
    model = make_model(QWEN3 | {"ff_width": 40}, write_tokenizer(tmp_path).vocab_size)
    _, path = write(tmp_path, model, "q8_0")
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    weight = model.model.layers[1].self_attn.o_proj.weight.detach().numpy()
    found = gguf.dequantize(tensors["blk.1.attn_output.weight"].data, tensors["blk.1.attn_output.weight"].tensor_type)
    steps = np.abs(weight.reshape(-1, 32)).max(-1, keepdims=True) / 127
    assert (np.abs(found - weight).reshape(-1, 32) <= 0.501 * steps + 1e-4).all()
    kinds = {name: tensor.tensor_type.name for name, tensor in tensors.items()}
    assert kinds["token_embd.weight"] == "Q8_0"
    assert kinds["blk.0.ffn_down.weight"] == "F16"  # rows of 40 weights are no whole blocks of 32
    assert kinds["output_norm.weight"] == "F32"
    assert "output.weight" not in tensors  # tied


def test_scaled_rope_with_norms_is_refused_before_a_file_is_written(tmp_path: Path) -> None:
    model = make_model(QWEN3 | {"rope_scaling": SCALING}, write_tokenizer(tmp_path).vocab_size)
    with pytest.raises(NoEquivalentError, match="no scaling of RoPE"):
        write(tmp_path, model)
    assert not list(tmp_path.glob("*gguf*"))


def test_weight_beyond_float16_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    model = make_model(QWEN3, write_tokenizer(tmp_path).vocab_size)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = 1e5
    with pytest.raises(UserError, match=r"blk.0.ffn_up.weight has a weight of 1e\+05, too large for float16"):
        write(tmp_path, model, "f16")
    assert not list(tmp_path.glob("*gguf*"))


def test_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    model = make_model(QWEN3, write_tokenizer(tmp_path).vocab_size)
    first = write(tmp_path, model)[1].read_bytes()
    assert write(tmp_path, model)[1].read_bytes() == first
