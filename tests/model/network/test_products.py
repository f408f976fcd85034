"""Products by oneDNN have the values and the gradients of torch's own, and are taken where they are faster alone."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from model.network import products
from model.network.products import linear, missing_products


@pytest.fixture(autouse=True)
def fresh_check() -> Iterator[None]:
    missing_products.cache_clear()
    yield
    missing_products.cache_clear()


def gradients(out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> list[torch.Tensor]:
    target = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    needed = [tensor for tensor in (x, weight) if tensor.requires_grad]
    return list(torch.autograd.grad(out, needed, target))


@pytest.mark.parametrize("needs_gradients", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("outputs", [24, 96], ids=lambda outputs: f"{outputs} outputs")
@pytest.mark.parametrize("rows", [(7,), (3, 5)], ids=str)
def test_linear_has_the_values_and_gradients_of_torchs(
    rows: tuple[int, ...], outputs: int, needs_gradients: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "LARGE_PRODUCT", 0)
    draws = torch.Generator().manual_seed(0)
    # Every second column of a wider tensor: rows need not be contiguous.
    x = torch.randn(*rows, 80, generator=draws)[..., ::2].requires_grad_(needs_gradients[0])
    weight = torch.randn(outputs, 40, generator=draws).requires_grad_(needs_gradients[1])
    found, expected = linear(x, weight), F.linear(x, weight)
    assert type(found.grad_fn).__name__ == "_LinearBackward"
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(gradients(found, x, weight), gradients(expected, x, weight), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(linear(x, weight), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_small_products_and_other_dtypes_are_torchs_own(dtype: torch.dtype) -> None:
    size = 8 if dtype == torch.float32 else 512
    x, weight = torch.randn(64, size, dtype=dtype), torch.randn(512, size, dtype=dtype, requires_grad=True)
    found = linear(x, weight)
    assert type(found.grad_fn).__name__ != "_LinearBackward"
    assert torch.equal(found, F.linear(x, weight))


def test_torchs_own_products_are_taken_where_onednn_gives_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "LARGE_PRODUCT", 0)
    monkeypatch.setattr(products, "multiply", lambda x, matrix: 2 * x @ matrix.T)
    x, weight = torch.randn(4, 8), torch.randn(3, 8)
    assert missing_products() == "a private operator gives other results"
    assert torch.equal(linear(x, weight), F.linear(x, weight))
