"""Products with the weights of a linear layer, with oneDNN on a CPU: in float32 torch takes MKL, which is slow on AMD's processors.

Reads and writes nothing. On one core of a Zen 5 (torch 2.13, float32) the forward product of a layer of 128 x 352 has 105 GFLOP/s in MKL and 240 in
oneDNN, the gradient of its input 103 and 230, that of its weights 100 and 190; on Intel's processors both are as fast.

torch's private operators `torch.ops.mkldnn._reorder_linear_weight` and `_linear_pointwise` are used only in this file. If they are missing or give
other results than the plain operators, training takes the plain ones, and generation the plain decoder (model/inference/cpu_kernels.py).

Shapes: N rows (all dimensions but the last), I inputs, O outputs.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# A multiplication by a fixed matrix: x [N, I] -> [N, O].
Product = Callable[[Tensor], Tensor]

PASS_TOKENS = 1024  # rows of a packed matrix's products, about
# Multiplications of a product: of fewer the call of a Python function costs more than oneDNN gains (about 40 microseconds).
LARGE_PRODUCT = 2**22


class Linear(nn.Linear):
    """torch's linear layer without a bias, whose products are `linear`."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., I] -> [..., O]."""
        return linear(x, self.weight)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x [..., I], weight [O, I] -> x @ weight.T [..., O], by the library that is faster."""
    is_plain = torch.compiler.is_compiling() or x.device.type != "cpu" or x.dtype != torch.float32
    if is_plain or weight.dtype != torch.float32 or x.numel() * len(weight) < LARGE_PRODUCT or missing_products():
        return F.linear(x, weight)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return cast(Tensor, _Linear.apply(x, weight))  # type: ignore[no-untyped-call]
    return multiply(x, weight)


class _Linear(torch.autograd.Function):
    """The product with its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return multiply(x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x = multiply(gradient, weight.t()) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return of_x, None
        rows, gradients = x.flatten(0, -2), gradient.flatten(0, -2)
        # With the smaller side as the rows of the result: a vocabulary's gradient is computed half as fast the other way round.
        if len(weight) > x.shape[-1]:
            return of_x, multiply(rows.t(), gradients.t()).t()
        return of_x, multiply(gradients.t(), rows.t())


def multiply(x: Tensor, matrix: Tensor) -> Tensor:
    """x [..., I] -> x @ matrix.T [..., O] in float32 by oneDNN; views need not be contiguous."""
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise.default(x, matrix, None, "none", [], ""))


def packed_product(matrix: Tensor) -> Product:
    """x [N, I] -> x @ matrix.T for a float32 matrix [O, I], which is packed for oneDNN."""
    # PASS_TOKENS is a hint of the number of rows, for which oneDNN picks the layout.
    packed = torch.ops.mkldnn._reorder_linear_weight(matrix, PASS_TOKENS)
    function = torch.ops.mkldnn._linear_pointwise.default
    return lambda x: cast(Tensor, function(x, packed, None, "none", [], ""))


@lru_cache(maxsize=1)
def missing_products() -> str:
    """Why oneDNN cannot be used here, or "". Its products are computed once and compared with the plain ones."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return "oneDNN is missing"
    # Fixed inputs, drawn apart from the global generator, which the caller may have seeded.
    generator = torch.Generator().manual_seed(0)
    matrix, x = torch.randn(24, 16, generator=generator), torch.randn(3, 16, generator=generator)
    try:
        # Compared, not only called: a private operator may change its meaning without an error.
        found = packed_product(matrix)(x), multiply(x, matrix), multiply(matrix, x.t().contiguous().t())
    except (AttributeError, RuntimeError, TypeError, NotImplementedError) as error:
        return f"a private operator has changed ({str(error).splitlines()[0]})"
    is_same = all(torch.allclose(one, x @ matrix.T, atol=1e-5) for one in (*found[:2], found[2].T))
    return "" if is_same else "a private operator gives other results"
