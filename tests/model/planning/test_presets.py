"""Presets: GPT-2's sizes are GPT-2's, and the dial turns everything the way its derivation says."""

import itertools
import math

import pytest

from model.config import flops_per_token, kv_bytes_per_token, num_matrix_parameters, num_parameters
from model.planning.presets import PRESETS, Preset, of_depth, preset

GPT2_PARAMETERS = {  # of the published checkpoints
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
}


@pytest.mark.parametrize("name", GPT2_PARAMETERS)
def test_gpt2_presets_have_parameters_of_gpt2(name: str) -> None:
    model = preset(name).model
    assert num_parameters(model) == pytest.approx(GPT2_PARAMETERS[name], rel=0.013)
    assert (model.vocab_size, model.tie_embeddings, model.num_heads * model.head_width) == (50_257, True, model.width)


def test_gpt2_preset_counts_equal_manual_counts() -> None:
    """Per layer 4 D^2 + 3 D F, then V D; two norms of D a layer and two of K, and the last; keys and values of 12 layers."""
    model = preset("gpt2").model
    matrices = 12 * (4 * 768**2 + 3 * 768 * 2048) + 50_257 * 768
    assert num_matrix_parameters(model) == matrices
    assert num_parameters(model) == matrices + 12 * (2 * 768 + 2 * 64) + 768
    assert flops_per_token(model, 1024) == 6 * matrices + 12 * 12 * 768 * 1024
    assert kv_bytes_per_token(model) == 12 * 2 * 768 * 2
    assert kv_bytes_per_token(model, bytes_per_number=4) == 2 * kv_bytes_per_token(model)


@pytest.mark.parametrize("name", [*PRESETS, "d1", "d4", "d12", "d20", "d24", "d32", "d256"])
def test_preset_is_valid_for_training(name: str) -> None:
    chosen = preset(name)
    assert Preset.model_validate(chosen.model_dump()) == chosen
    assert chosen.train.batch_tokens % (chosen.train.sequence_tokens * chosen.train.microbatch_sequences) == 0
    assert chosen.model.width == chosen.model.num_heads * chosen.model.head_width


def test_of_depth_12_is_the_reference() -> None:
    chosen = preset("d12")
    assert (chosen.model.width, chosen.train.batch_tokens) == (768, 2**19)
    assert (chosen.optim.learning_rate, chosen.optim.muon_learning_rate) == (6e-4, 0.02)
    assert chosen.optim.weight_decay == pytest.approx(0.1)


def test_of_depth_24_has_shape_and_horizon_of_nanochat() -> None:
    chosen = of_depth(24)
    assert (chosen.model.width, chosen.model.num_heads, chosen.model.ff_width) == (1536, 12, 4096)
    assert chosen.train.num_steps * chosen.train.batch_tokens == pytest.approx(16_704 * 2**19, rel=1e-3)


def test_of_depth_grows_width_and_horizon_and_lowers_rate() -> None:
    family = [of_depth(depth) for depth in range(2, 65, 2)]
    for shallow, deep in itertools.pairwise(family):
        assert shallow.model.width <= deep.model.width
        assert num_parameters(shallow.model) < num_parameters(deep.model)
        assert shallow.train.batch_tokens <= deep.train.batch_tokens
        grown = deep.train.batch_tokens / shallow.train.batch_tokens
        assert deep.optim.learning_rate <= shallow.optim.learning_rate * math.sqrt(grown)


@pytest.mark.parametrize("depth", [4, 8, 20, 24, 32])
def test_of_depth_keeps_weight_decay_per_run_constant(depth: int) -> None:
    """But for what rounding the batch to a power of two and the width to heads leaves."""

    def decayed(chosen: Preset) -> float:
        return chosen.optim.learning_rate * chosen.optim.weight_decay * chosen.train.num_steps

    assert decayed(of_depth(depth)) == pytest.approx(decayed(of_depth(12)), rel=0.01)


def test_of_depth_predicts_learning_rate_of_llama() -> None:
    """Llama 2 7B (Touvron et al. 2023): width 4,096, 4 M tokens a batch, 3e-4."""
    chosen = of_depth(64)
    assert (chosen.model.width, chosen.train.batch_tokens) == (4096, 2**22)
    assert chosen.optim.learning_rate == pytest.approx(3e-4, rel=0.1)


def test_vocab_size_changes_embedding_of_gpt2_and_horizon_of_depth() -> None:
    larger = preset("gpt2", 50_304)
    assert larger.model.vocab_size == 50_304
    assert larger.train == preset("gpt2").train
    assert preset("d12", 100_277).train.num_steps > preset("d12").train.num_steps


@pytest.mark.parametrize("name", ["gpt3", "d", "d0", "d257", "12", ""])
def test_unknown_preset_raises_error(name: str) -> None:
    with pytest.raises(ValueError, match="there is no preset"):
        preset(name)
