"""What lies between the products of a small model's step, as loops that numba compiles. Optional: without numba model/serve/small_slots.py takes numpy.

Reads and writes nothing but its arguments. numpy takes a call for each operation of a step, some 30 a layer, each of which takes longer than it computes;
here a layer is four calls. With one thread a step of 1 row takes 0.56 times as long as with numpy, of 4 rows 0.6 times, of 16 rows 0.8 times.

`compiled` is None where numba is missing, or cannot keep what it compiles. numba (https://numba.pydata.org) keeps it next to this file's bytecode, so that only
the first start on a machine compiles, for some seconds.

Shapes: as in model/serve/slots.py; N tokens, each of a row and a position. The tokens of a row are given in the order of their positions.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

try:
    import numba
except ImportError:
    numba = None  # type: ignore[assignment]

Array = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

# Slots whose keys lie together: of a channel as many as a vector has, and all that a query reads from the first on, one after another.
BLOCK = 16
# Sums may be taken in another order, so that they are vectors; NaN and infinity keep their meaning, since the engine looks for them.
OPTIONS: dict[str, Any] = {
    "fastmath": {"reassoc", "contract", "arcp", "nsz"},
    "error_model": "numpy",
    "nogil": True,
    "cache": True,
}


class Compiled(NamedTuple):
    """The functions; arguments as below."""

    add_and_norm: Any
    attend: Any
    gate: Any


def _exp(x: np.float32) -> np.float32:
    """exp(x) in float32, by a polynomial that becomes vector instructions: the library's would be called number by number."""
    low, high, half, one = np.float32(-87.0), np.float32(88.0), np.float32(0.5), np.float32(1.0)
    # In this order NaN stays NaN.
    x = low if x < low else x
    x = high if x > high else x
    n = np.floor(x * np.float32(1.44269504) + half)
    # x = n ln 2 + r, where ln 2 is two numbers: the first has so few digits that its product with n is exact.
    r = x - n * np.float32(0.693359375)
    r = r + n * np.float32(2.12194440e-4)
    # The coefficients of Cephes' expf (https://www.netlib.org/cephes).
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + one
    power: np.float32 = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)  # 2^n by its bits
    result: np.float32 = p * power
    return result


def _add_and_norm(x: Array, added: Array, square_floor: np.float32, unit: Array) -> None:
    """x += added, both [N, D]; unit [N, D] becomes x divided by its length, as `_unit` of model/inference/cpu_kernels.py has it."""
    N, D = x.shape
    for n in range(N):
        squares = square_floor
        for d in range(D):
            x[n, d] += added[n, d]
            squares += x[n, d] * x[n, d]
        scale = np.float32(1.0) / np.sqrt(squares)
        for d in range(D):
            unit[n, d] = x[n, d] * scale


def _attend(
    heads: Array,
    norms: Array,
    square_floor: np.float32,
    turns: Array,
    rows: Indices,
    positions: Indices,
    keys: Array,
    values: Array,
    scores: Array,
    out: Array,
) -> None:
    """Rotate queries and keys, write keys and values into the cache, attend: heads [N, (H + 2 J) K] -> out [N, H K].

    norms [H + J, K], empty without QK-norm; turns [S, K/2, 2]: cosines and sines; keys [R, J, S/BLOCK, K, BLOCK], values [R, J, S, K]; scores [S]: room
    for them.
    """
    J, K = keys.shape[1], keys.shape[3]
    H = out.shape[1] // K
    for n in range(len(heads)):
        row, position = rows[n], positions[n]
        for h in range(H + J):
            head = heads[n, h * K : (h + 1) * K]
            if len(norms):
                _norm(head, norms[h], square_floor)
            _turn(head, turns[position])
        for j in range(J):
            for k in range(K):
                keys[row, j, position // BLOCK, k, position % BLOCK] = heads[n, (H + j) * K + k]
                values[row, j, position, k] = heads[n, (H + J + j) * K + k]
        for h in range(H):
            _attend_head(
                heads[n, h * K : (h + 1) * K],
                keys[row, h * J // H],
                values[row, h * J // H],
                position + 1,
                scores,
                out[n, h * K : (h + 1) * K],
            )


def _norm(head: Array, norm: Array, square_floor: np.float32) -> None:
    """Divide a head [K] by its length, and multiply it by weights [K]."""
    squares = square_floor
    for k in range(len(head)):
        squares += head[k] * head[k]
    scale = np.float32(1.0) / np.sqrt(squares)
    for k in range(len(head)):
        head[k] *= scale * norm[k]


def _turn(head: Array, turns: Array) -> None:
    """Rotate neighbouring channels of a head [K] by cosines and sines [K/2, 2]."""
    for k in range(len(turns)):
        real, imaginary, cos, sin = head[2 * k], head[2 * k + 1], turns[k, 0], turns[k, 1]
        head[2 * k], head[2 * k + 1] = real * cos - imaginary * sin, real * sin + imaginary * cos


def _attend_head(query: Array, keys: Array, values: Array, size: int, scores: Array, out: Array) -> None:
    """A query [K] over keys [B, K, BLOCK] and values [S', K], of whose slots the first `size` are read: scores [S'] -> out [K]."""
    for block in range((size + BLOCK - 1) // BLOCK):
        _weighted_sum(query, keys[block], scores[block * BLOCK : (block + 1) * BLOCK])
    greatest = scores[0]
    for s in range(size):
        greatest = max(greatest, scores[s])
    total = np.float32(0.0)
    for s in range(size):
        scores[s] = _exp(scores[s] - greatest)
        total += scores[s]
    _weighted_sum(scores[:size], values, out)
    scale = np.float32(1.0) / total
    for k in range(len(out)):
        out[k] *= scale


def _weighted_sum(weights: Array, rows: Array, out: Array) -> None:
    """The sum of the first I rows [I', O'] with weights [I], of each its first O numbers: out [O]."""
    num_rows, width = len(weights), len(out)
    for o in range(width):
        out[o] = np.float32(0.0)
    # Four rows at a time, so that the sums are read and written a quarter as often.
    for i in range(0, num_rows - 3, 4):
        a, b, c, d = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
        for o in range(width):
            out[o] += a * rows[i, o] + b * rows[i + 1, o] + c * rows[i + 2, o] + d * rows[i + 3, o]
    for i in range(num_rows - num_rows % 4, num_rows):
        a = weights[i]
        for o in range(width):
            out[o] += a * rows[i, o]


def _gate(gate_up: Array, out: Array) -> None:
    """silu(gate) * up: gate_up [N, 2F] -> out [N, F]."""
    N, F = out.shape
    for n in range(N):
        for f in range(F):
            gate = gate_up[n, f]
            out[n, f] = gate / (np.float32(1.0) + _exp(-gate)) * gate_up[n, F + f]


def _compile() -> Compiled | None:
    """The functions, None where that is not possible."""
    if numba is None:
        return None
    try:
        compiled = numba.njit(**OPTIONS)
        # Those that the others call: a compiled function calls compiled ones alone.
        for function in (_exp, _norm, _turn, _weighted_sum, _attend_head):
            globals()[function.__name__] = compiled(function)
        return Compiled(compiled(_add_and_norm), compiled(_attend), compiled(_gate))
    except RuntimeError:  # no folder to keep them in
        return None


compiled = _compile()
