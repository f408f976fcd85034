"""The decoder's rows go on as the model would that reads them anew."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from model.config import ModelConfig, kv_bytes_per_token
from model.inference.decoder import Decoder
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


def prompts(tokens: Tensor) -> list[list[int]]:
    return [row[:length].tolist() for row, length in zip(tokens, LENGTHS, strict=True)]


@pytest.mark.parametrize(("pass_tokens", "has_kernels"), [(1, True), (16, True), (512, True), (512, False)])
@pytest.mark.parametrize(
    "changes",
    [{}, {"num_kv_heads": 4, "tie_embeddings": False}, {"normalize_qk": False, "rope_scaling": SCALING}],
    ids=str,
)
def test_reading_on_gives_the_logits_of_reading_at_once(
    changes: dict[str, object], pass_tokens: int, has_kernels: bool, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: has_kernels)
    monkeypatch.setattr("model.inference.decoder._has_fbgemm", lambda: has_kernels)
    monkeypatch.setattr("model.inference.decoder.PASS_TOKENS", pass_tokens)
    monkeypatch.setattr("model.inference.decoder.BLOCK_TOKENS", 8)  # the cache grows several times
    model = make_model(**changes)
    decoder = Decoder(model)
    rows, positions = torch.arange(len(LENGTHS)), torch.tensor(LENGTHS)
    with torch.inference_mode():
        whole = model(tokens)
        assert (decoder.read(prompts(tokens)) - whole[rows, positions - 1]).abs().max() <= 1e-4
        for step in range(20):
            logits = decoder.step(tokens[rows, positions + step])
            assert (logits - whole[rows, positions + step]).abs().max() <= 1e-4


def test_a_selected_row_goes_on_as_it_would_have(tokens: Tensor) -> None:
    model = make_model()
    decoder = Decoder(model)
    rows, positions = torch.tensor([2, 0, 2, 4]), torch.tensor(LENGTHS)
    with torch.inference_mode():
        decoder.read(prompts(tokens))
        decoder.step(tokens[torch.arange(len(LENGTHS)), positions])
        decoder.select(rows)
        places = positions[rows] + 1
        assert (decoder.step(tokens[rows, places]) - model(tokens)[rows, places]).abs().max() <= 1e-4


@pytest.mark.parametrize("has_kernels", [True, False])
def test_in_bfloat16_rows_differ_by_rounding_only(
    has_kernels: bool, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.inference.decoder._has_fbgemm", lambda: has_kernels)
    model = make_model().bfloat16()
    decoder = Decoder(model)
    rows, positions = torch.arange(len(LENGTHS)), torch.tensor(LENGTHS)
    with torch.inference_mode():
        whole = model(tokens).float()
        exact = deepcopy(model).float()(tokens)
        decoder.read(prompts(tokens))
        logits = decoder.step(tokens[rows, positions]).float()
    difference = (logits - exact[rows, positions]).square().mean()
    assert difference <= 2 * (whole - exact)[rows, positions].square().mean()


def test_a_cached_token_takes_the_bytes_that_are_counted() -> None:
    decoder = Decoder(make_model().bfloat16())
    with torch.inference_mode():
        decoder.read([[1, 2, 3]])
    num_slots = decoder.keys[0].shape[-1]
    assert sum(part.nbytes for part in decoder.keys + decoder.values) == num_slots * kv_bytes_per_token(decoder.config)
