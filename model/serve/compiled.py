"""What lies between the products of a small model's step, as loops that numba compiles. Optional: without numba model/serve/small_slots.py takes numpy.

Reads and writes nothing but its arguments. numpy takes a call for each operation of a step, some 30 a layer, each of which takes longer than it computes;
here a layer is three calls. With one thread a step of 1 row takes 0.5 times as long as with numpy, of 16 rows 0.55 times.

`compiled` is None where numba is missing, or cannot keep what it compiles. numba (https://numba.pydata.org) keeps it next to this file's bytecode, so that only
the first start on a machine compiles, for some seconds.

Shapes: as in model/serve/slots.py; N tokens, each of a row and a position. The tokens of a row are given in the order of their positions.
"""

import math
from typing import Any, NamedTuple

import numpy as np

try:
    import numba
except ImportError:
    numba = None

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


def _exp(x):  # type: ignore[no-untyped-def]
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
    # 2^n by its bits.
    return p * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


def _add_and_norm(x, added, square_floor, unit):  # type: ignore[no-untyped-def]
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


def _attend(heads, norms, square_floor, turns, rows, positions, keys, values, scores, out):  # type: ignore[no-untyped-def]
    """Rotate queries and keys, write keys and values into the cache, attend: heads [N, (H + 2 J) K] -> out [N, H K].

    norms [H + J, K], empty without QK-norm; turns [S, K/2, 2]: cosines and sines; keys [R, J, K, S], values [R, J, S, K]; scores [S]: room for them.
    """
    J, K = keys.shape[1], keys.shape[2]
    H = out.shape[1] // K
    for n in range(len(heads)):
        row, position = rows[n], positions[n]
        S = position + 1
        for h in range(H + J):
            head = heads[n, h * K : (h + 1) * K]
            if len(norms):
                squares = square_floor
                for k in range(K):
                    squares += head[k] * head[k]
                scale = np.float32(1.0) / np.sqrt(squares)
                for k in range(K):
                    head[k] *= scale * norms[h, k]
            for k in range(K // 2):
                real, imaginary = head[2 * k], head[2 * k + 1]
                cos, sin = turns[position, k, 0], turns[position, k, 1]
                head[2 * k], head[2 * k + 1] = real * cos - imaginary * sin, real * sin + imaginary * cos
        for j in range(J):
            for k in range(K):
                keys[row, j, k, position] = heads[n, (H + j) * K + k]
                values[row, j, position, k] = heads[n, (H + J + j) * K + k]
        for h in range(H):
            _attend_head(
                heads[n, h * K : (h + 1) * K],
                keys[row, h * J // H],
                values[row, h * J // H],
                scores[:S],
                out[n, h * K : (h + 1) * K],
            )


def _attend_head(query, keys, values, scores, out):  # type: ignore[no-untyped-def]
    """A query [K] over keys [K, S'] and values [S', K], of whose slots the first S are read: scores [S] -> out [K]."""
    S, K = len(scores), len(query)
    for s in range(S):
        scores[s] = np.float32(0.0)
    # Four channels at a time, so that the sums are read and written a quarter as often. Slot by slot in the inner loop: the keys of a channel are neighbours.
    for k in range(0, K - 3, 4):
        a, b, c, d = query[k], query[k + 1], query[k + 2], query[k + 3]
        for s in range(S):
            scores[s] += a * keys[k, s] + b * keys[k + 1, s] + c * keys[k + 2, s] + d * keys[k + 3, s]
    for k in range(K - K % 4, K):
        a = query[k]
        for s in range(S):
            scores[s] += a * keys[k, s]
    greatest = scores[0]
    for s in range(S):
        greatest = max(greatest, scores[s])
    total = np.float32(0.0)
    for s in range(S):
        scores[s] = _exp(scores[s] - greatest)
        total += scores[s]
    for k in range(K):
        out[k] = np.float32(0.0)
    for s in range(0, S - 3, 4):
        a, b, c, d = scores[s], scores[s + 1], scores[s + 2], scores[s + 3]
        for k in range(K):
            out[k] += a * values[s, k] + b * values[s + 1, k] + c * values[s + 2, k] + d * values[s + 3, k]
    for s in range(S - S % 4, S):
        a = scores[s]
        for k in range(K):
            out[k] += a * values[s, k]
    scale = np.float32(1.0) / total
    for k in range(K):
        out[k] *= scale


def _gate(gate_up, out):  # type: ignore[no-untyped-def]
    """silu(gate) * up: gate_up [N, 2F] -> out [N, F]."""
    N, F = out.shape
    for n in range(N):
        for f in range(F):
            gate = gate_up[n, f]
            out[n, f] = gate / (np.float32(1.0) + _exp(-gate)) * gate_up[n, F + f]


def _compile() -> Compiled | None:
    global _exp, _attend_head
    if numba is None:
        return None
    try:
        compiled = numba.njit(**OPTIONS)
        # Those that the others call: a compiled function calls compiled ones alone.
        _exp, _attend_head = compiled(_exp), compiled(_attend_head)
        return Compiled(compiled(_add_and_norm), compiled(_attend), compiled(_gate))
    except RuntimeError:  # no folder to keep them in
        return None


compiled = _compile()
