"""Both decoders give the logits and the tokens of a forward through the whole sequence; the fallback where kernels are missing."""

import logging
from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from model.config import BeamConfig, GenerateConfig, ModelConfig, kv_bytes_per_token
from model.inference import cpu_kernels
from model.inference.beam_search import beam_search
from model.inference.cpu_kernels import CPUDecoder, make_decoder, missing_kernels
from model.inference.decoder import Decoder
from model.inference.generate import generate
from model.network.products import missing_products
from model.network.transformer import Transformer

SCALING = {"factor": 4.0, "slow_turns": 1.0, "fast_turns": 4.0, "original_tokens": 16}
LENGTHS = [3, 20, 9, 1, 14]


def make_model(**changes: object) -> Transformer:
    """Weights far from their start: norms too, or a swapped one would not be seen."""
    sizes = {"vocab_size": 300, "num_layers": 3, "width": 48, "num_heads": 4, "num_kv_heads": 2, "head_width": 16}
    model = Transformer(ModelConfig.model_validate(sizes | {"ff_width": 80} | changes))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2 + (parameter.dim() == 1))
    return model


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(0, 300, (len(LENGTHS), 40), generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def fresh_check() -> Iterator[None]:
    missing_products.cache_clear()
    missing_kernels.cache_clear()
    yield
    missing_products.cache_clear()
    missing_kernels.cache_clear()


def prompts(tokens: Tensor) -> list[list[int]]:
    return [row[:length].tolist() for row, length in zip(tokens, LENGTHS, strict=True)]


KINDS = [Decoder, CPUDecoder]
SHAPES = [{}, {"num_kv_heads": 4, "tie_embeddings": False}, {"normalize_qk": False, "rope_scaling": SCALING}]


@pytest.mark.parametrize(("kind", "pass_tokens"), [(Decoder, 0), (CPUDecoder, 1), (CPUDecoder, 16), (CPUDecoder, 512)])
@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_steps_give_the_logits_of_a_whole_forward(
    changes: dict[str, object], kind: type[Decoder], pass_tokens: int, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.inference.cpu_kernels.PASS_TOKENS", pass_tokens)
    monkeypatch.setattr("model.inference.decoder.BLOCK_TOKENS", 8)  # the cache grows several times
    model = make_model(**changes)
    decoder = kind(model)
    rows, positions = torch.arange(len(LENGTHS)), torch.tensor(LENGTHS)
    with torch.inference_mode():
        whole = model(tokens)
        assert (decoder.read(prompts(tokens)) - whole[rows, positions - 1]).abs().max() <= 1e-4
        for step in range(20):
            logits = decoder.step(tokens[rows, positions + step])
            assert (logits - whole[rows, positions + step]).abs().max() <= 1e-4


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_both_decoders_generate_the_same_tokens(changes: dict[str, object], tokens: Tensor) -> None:
    model = make_model(**changes)
    asked = [*prompts(tokens), prompts(tokens)[1]]
    greedy = GenerateConfig(max_new_tokens=30, temperature=0.0)
    sampled = GenerateConfig(max_new_tokens=30, temperature=1.0, top_p=0.9, repetition_penalty=1.2, seed=3)
    plain, fast = Decoder(model), CPUDecoder(model)
    for config in (greedy, sampled, greedy):  # a decoder may be used again
        assert generate(plain, asked, config, 5) == generate(fast, asked, config, 5)
    beams = BeamConfig(max_new_tokens=12, num_beams=4)
    searched = [beam_search(decoder, asked, beams, 5) for decoder in (plain, fast)]
    assert [[beam.tokens for beam in found] for found in searched[0]] == [
        [beam.tokens for beam in found] for found in searched[1]
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_selected_row_continues_as_before(kind: type[Decoder], tokens: Tensor) -> None:
    model = make_model()
    decoder = kind(model)
    rows, positions = torch.tensor([2, 0, 2, 4]), torch.tensor(LENGTHS)
    with torch.inference_mode():
        decoder.read(prompts(tokens))
        decoder.step(tokens[torch.arange(len(LENGTHS)), positions])
        decoder.select(rows)
        places = positions[rows] + 1
        assert (decoder.step(tokens[rows, places]) - model(tokens)[rows, places]).abs().max() <= 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_differs_by_rounding_only(kind: type[Decoder], tokens: Tensor) -> None:
    model = make_model().bfloat16()
    decoder = kind(model)
    rows, positions = torch.arange(len(LENGTHS)), torch.tensor(LENGTHS)
    with torch.inference_mode():
        whole = model(tokens).float()
        exact = deepcopy(model).float()(tokens)
        decoder.read(prompts(tokens))
        logits = decoder.step(tokens[rows, positions]).float()
    difference = (logits - exact[rows, positions]).square().mean()
    assert difference <= 2 * (whole - exact)[rows, positions].square().mean()


@pytest.mark.parametrize("kind", KINDS)
def test_cache_takes_the_bytes_that_are_planned(kind: type[Decoder]) -> None:
    decoder = kind(make_model().bfloat16())
    with torch.inference_mode():
        decoder.read([[1, 2, 3]])
    planned = decoder.num_slots * kv_bytes_per_token(decoder.config)
    assert sum(part.nbytes for part in decoder.keys + decoder.values) == planned


def test_make_decoder_takes_the_kernels_on_a_cpu(caplog: pytest.LogCaptureFixture) -> None:
    assert missing_kernels() == ""
    assert type(make_decoder(make_model())) is CPUDecoder
    assert caplog.text == ""


def _raise(*_: object) -> None:
    raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")


@pytest.mark.parametrize(
    ("target", "value", "message"),
    [
        ("torch.backends.mkldnn.is_available", lambda: False, "oneDNN is missing"),
        ("model.inference.cpu_kernels._has_fbgemm", lambda: False, "FBGEMM is missing"),
        ("model.network.products.packed_product", _raise, "a private operator has changed"),
        (
            "model.network.products.packed_product",
            lambda matrix: lambda x: 2 * x @ matrix.T,
            "gives other results",
        ),
        ("model.inference.cpu_kernels._weighted_sums", _raise, "a private operator has changed"),
    ],
)
def test_make_decoder_falls_back_with_one_log_line(
    target: str, value: object, message: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(target, value)
    with caplog.at_level(logging.WARNING, logger=cpu_kernels.__name__):
        decoder = make_decoder(make_model())
    assert type(decoder) is Decoder
    assert len(caplog.records) == 1
    assert message in caplog.text
    assert generate(decoder, [[1, 2]], GenerateConfig(max_new_tokens=3), 5)
