"""Compiled steps give the logits of the plain decoder, whatever the model's shape, and keep NaN visible."""

import random
import sys

import numpy as np
import pytest
import torch

from model.config import ModelConfig
from model.network.transformer import Transformer, initialize
from model.serve.slots import Part, PlainSlots, make_slots
from model.serve.small_slots import SmallSlots

pytest.importorskip("numba")
from model.serve.compiled import _exp
from model.serve.compiled_slots import CompiledProduct, CompiledSlots

MAX_TOKENS = 96


def make_model(**changes: object) -> Transformer:
    sizes = {"vocab_size": 97, "num_layers": 3, "width": 24, "num_heads": 4, "num_kv_heads": 2, "head_width": 8}
    model = Transformer(ModelConfig.model_validate(sizes | {"ff_width": 40} | changes))
    initialize(model, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.2)
    return model


def run(slots: PlainSlots | CompiledSlots) -> torch.Tensor:
    """Logits of prompts that are read in two portions, and of steps of some rows, in another order than that of the cache."""
    draws, found, lengths = random.Random(0), [], [0] * 5
    with torch.inference_mode():
        for longest in (1, 9, 30):
            parts = []
            for row in (3, 0, 4, 1):
                tokens = [draws.randrange(97) for _ in range(draws.randint(1, longest))]
                parts.append(Part(row, lengths[row], tokens, wants_all=row == 4))
                lengths[row] += len(tokens)
            slots.fit(max(lengths) + 1)
            found.append(slots.extend(parts).clone())
            rows = [4, 0, 3]
            found.append(
                slots.advance([draws.randrange(97) for _ in rows], rows, [lengths[row] for row in rows]).clone()
            )
            for row in rows:
                lengths[row] += 1
            slots.copy(4, 2, lengths[4] - 1)
            found.append(slots.advance([5], [2], [lengths[4] - 1]).clone())
    return torch.cat(found)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_kv_heads": 4, "head_width": 10},
        {"num_kv_heads": 1, "head_width": 20, "normalize_qk": False, "tie_embeddings": False},
    ],
    ids=str,
)
def test_compiled_slots_give_the_logits_of_the_plain_ones(changes: dict[str, object]) -> None:
    model = make_model(**changes)
    expected = run(PlainSlots(model, 5, MAX_TOKENS))
    torch.testing.assert_close(run(CompiledSlots(model, 5, MAX_TOKENS)), expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("num_rows", [0, 1, 2, 3, 4, 7, 8, 15, 21])
def test_compiled_products_are_torchs(num_rows: int) -> None:
    draws = torch.Generator().manual_seed(num_rows)
    # Rows of every remainder, and outputs that fill whole panels, less than one, and one and a part.
    for num_inputs, num_outputs in (1, 1), (7, 40), (96, 64), (33, 3), (16, 33):
        matrix = torch.randn(num_outputs, num_inputs, generator=draws)
        x = torch.randn(num_rows, num_inputs, generator=draws)
        torch.testing.assert_close(CompiledProduct(matrix)(x), x @ matrix.T, atol=1e-5, rtol=1e-5)


def test_logits_of_a_row_do_not_depend_on_the_other_rows() -> None:
    model, draws = make_model(), random.Random(0)
    prompts = [[draws.randrange(97) for _ in range(draws.randint(1, 20))] for _ in range(11)]
    together, alone = (CompiledSlots(model, len(prompts), MAX_TOKENS) for _ in range(2))
    lengths = list(map(len, prompts))
    with torch.inference_mode():
        read = together.extend([Part(row, 0, prompt) for row, prompt in enumerate(prompts)])
        stepped = together.advance([5] * len(prompts), range(len(prompts)), lengths)
        for row, prompt in enumerate(prompts):
            # To the last bit: a seeded request gives the same text whoever else asks.
            assert torch.equal(alone.extend([Part(row, 0, prompt)])[0], read[row])
            assert torch.equal(alone.advance([5], [row], [lengths[row]])[0], stepped[row])


def test_make_slots_takes_numpy_for_a_large_cache_narrow_heads_or_without_numba(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert type(make_slots(make_model(), 2, MAX_TOKENS)) is CompiledSlots
    assert type(make_slots(make_model(), 2, 2**22)) is SmallSlots  # whose cache grows when it must
    assert type(make_slots(make_model(head_width=6), 2, MAX_TOKENS)) is SmallSlots
    assert (
        type(make_slots(make_model(width=512, num_kv_heads=4, head_width=128), 2, 8)) is SmallSlots
    )  # its qkv is large
    monkeypatch.setitem(sys.modules, "model.serve.compiled_slots", None)
    assert type(make_slots(make_model(), 2, MAX_TOKENS)) is SmallSlots


def test_exp_is_numpys_and_keeps_nan() -> None:
    for number in (-87.0, -20.5, -1e-3, 0.0, 0.3, 17.0, 87.9):
        assert _exp(np.float32(number)) == pytest.approx(np.exp(np.float64(np.float32(number))), rel=3e-7)
    assert np.isnan(_exp(np.float32("nan")))
    assert _exp(np.float32("-inf")) < 1e-37


@pytest.mark.parametrize("name", ["q_norm", "v_proj", "gate_proj"])
def test_nan_of_any_part_reaches_the_logits(name: str) -> None:
    model = make_model()
    for parameter_name, parameter in model.named_parameters():
        if f"layers.1.self_attn.{name}" in parameter_name or f"layers.1.mlp.{name}" in parameter_name:
            parameter.data.flatten()[0] = float("nan")
    slots = CompiledSlots(model, 2, MAX_TOKENS)
    with torch.inference_mode():
        assert slots.extend([Part(0, 0, [1, 2, 3])]).isnan().all()
        assert slots.advance([4], [0], [3]).isnan().all()
