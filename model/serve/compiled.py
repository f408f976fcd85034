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
CHANNELS = 8  # of a key that are multiplied at a time; a head has at least so many
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
        _norm_and_turn(heads[n], norms, square_floor, turns[position], H + J, K)
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


def _norm_and_turn(
    heads: Array, norms: Array, square_floor: np.float32, turns: Array, num_heads: int, head_width: int
) -> None:
    """Queries and keys of a token, the first `num_heads` [K] of heads [(H + 2 J) K].

    Each is divided by its length and multiplied by its weights, where norms has any; its neighbouring channels are rotated by cosines and sines [K/2, 2].
    """
    for h in range(num_heads):
        first = h * head_width
        if len(norms):
            squares = square_floor
            for k in range(head_width):
                squares += heads[first + k] * heads[first + k]
            scale = np.float32(1.0) / np.sqrt(squares)
            for k in range(head_width):
                heads[first + k] *= scale * norms[h, k]
        for k in range(head_width // 2):
            low, high = first + 2 * k, first + 2 * k + 1
            real, imaginary, cos, sin = heads[low], heads[high], turns[k, 0], turns[k, 1]
            heads[low], heads[high] = real * cos - imaginary * sin, real * sin + imaginary * cos


def _attend_head(query: Array, keys: Array, values: Array, size: int, scores: Array, out: Array) -> None:
    """A query [K] over keys [B, K, BLOCK] and values [S', K], of whose slots the first `size` are read: scores [S'] -> out [K]."""
    _scores(query, keys, (size + BLOCK - 1) // BLOCK, scores)
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


def _scores(query: Array, keys: Array, num_blocks: int, scores: Array) -> None:
    """The products of a query [K] with the keys of each slot [B, K, BLOCK] -> scores [B BLOCK]."""
    whole = len(query) // CHANNELS * CHANNELS
    # All bounds but two are constants, and nothing is sliced: then a block is a few vectors in registers. Otherwise a vector is made for 64 slots,
    # and a block of 16 taken number by number, which took three times as long.
    for block in range(num_blocks):
        first = block * BLOCK
        for o in range(BLOCK):
            total = np.float32(0.0)
            for k in range(CHANNELS):
                total += query[k] * keys[block, k, o]
            scores[first + o] = total
        for start in range(CHANNELS, whole, CHANNELS):
            for o in range(BLOCK):
                total = np.float32(0.0)
                for k in range(CHANNELS):
                    total += query[start + k] * keys[block, start + k, o]
                scores[first + o] += total
        for k in range(whole, len(query)):
            for o in range(BLOCK):
                scores[first + o] += query[k] * keys[block, k, o]


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
        for function in (_exp, _norm_and_turn, _scores, _weighted_sum, _attend_head):
            globals()[function.__name__] = compiled(function)
        return Compiled(compiled(_add_and_norm), compiled(_attend), compiled(_gate))
    except RuntimeError:  # no folder to keep them in
        return None


compiled = _compile()
