"""The layers of a small model, as loops that numba compiles: a step of all rows is one call, during which other threads can run Python.

Reads and writes nothing but its arguments. numpy takes a call for each operation of a step, some 30 a layer, each of which takes longer than it computes,
and with the interpreter's lock. A step of 16 rows of 64 tokens takes 0.30 ms where calls of oneDNN's products with loops between them took 0.53, of one
row 0.065 and 0.123 ms (2026-12-01, the least of 300). Needs numba (https://numba.pydata.org), which keeps what it compiles next to this file's bytecode:
only the first start on a machine compiles, for some seconds. Where it is missing, or finds no folder to write to, this import fails, and
model/serve/slots.py takes numpy.

Shapes: as in model/serve/slots.py; N tokens, each of a row and a position, W of them wanted. The tokens of a row are given in the order of their positions.
A matrix with I inputs and O outputs is packed in C panels of COLUMNS outputs each [C, I, COLUMNS], the last one filled up with zeros.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import llvmlite.binding
import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, errors, types
from numba.extending import intrinsic

Array = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

# Slots whose keys lie together: of a channel as many as a vector has, and all that a query reads from the first on, one after another.
BLOCK = 16
CHANNELS = 8  # of a key that are multiplied at a time; a head has at least so many

# A product is made of tiles, whose sums stay in registers while the inputs are added up (Goto and van de Geijn 2008,
# https://doi.org/10.1145/1356052.1356053). So many rows are independent, and an instruction need not wait for the one before.
TILE_ROWS = 8
# The sums take 16 registers where there are 32, of 64 bytes, and 8 where there are 16, of 32 bytes.
COLUMNS = 32 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 8
CONTRACT = ("contract",)  # a product and a sum become one instruction

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """The function as numba compiles it. Raises RuntimeError where there is no folder to keep it in."""
    # Sums may be taken in another order, so that they are vectors; NaN and infinity keep their meaning, since the engine looks for them.
    fastmath = {"reassoc", *CONTRACT, "arcp", "nsz"}
    return cast(Function, numba.njit(fastmath=fastmath, error_model="numpy", nogil=True, cache=True)(function))


class Weights(NamedTuple):
    """Of all layers: packed matrices [L, C, I, COLUMNS], and norms of queries and keys [L, H + J, K], which are empty without QK-norm."""

    qkv: Array
    qk_norms: Array
    out: Array
    gate_up: Array
    down: Array


class Cache(NamedTuple):
    """Of all layers: keys [L, R, J, S/BLOCK, K, BLOCK] and values [L, R, J, S, K]."""

    keys: Array
    values: Array


@compiled
def run_layers(
    x: Array,
    rows: Indices,
    positions: Indices,
    wanted: Indices,
    weights: Weights,
    cache: Cache,
    turns: Array,
    floors: tuple[np.float32, np.float32],
) -> Array:
    """Append tokens with embeddings x [N, D], which are overwritten -> the last norm without its weights, of the wanted tokens [W, D].

    turns [S, K/2, 2]: cosines and sines; floors: of the squares of a norm of D and of K numbers.
    """
    N, num_layers = len(x), len(weights.qkv)
    unit = np.empty_like(x)
    attended = np.empty((N, weights.out.shape[2]), x.dtype)
    gated = np.empty((N, weights.down.shape[2]), x.dtype)
    heads, gate_up = np.empty((N, _width(weights.qkv)), x.dtype), np.empty((N, _width(weights.gate_up)), x.dtype)
    added = np.zeros((N, max(_width(weights.out), _width(weights.down))), x.dtype)
    scores = np.empty(len(turns), x.dtype)
    num_tokens = N
    for layer in range(num_layers):
        _add_and_norm(x, added, floors[0], unit)
        multiply(unit, weights.qkv[layer], heads)
        _attend(
            heads,
            weights.qk_norms[layer],
            floors[1],
            turns,
            rows,
            positions,
            cache.keys[layer],
            cache.values[layer],
            scores,
            attended,
        )
        # Above the last attention only the wanted tokens are needed.
        if layer + 1 == num_layers:
            num_tokens = len(wanted)
            for place in range(num_tokens):
                x[place], attended[place] = x[wanted[place]], attended[wanted[place]]
        multiply(attended[:num_tokens], weights.out[layer], added)
        _add_and_norm(x[:num_tokens], added, floors[0], unit)
        multiply(unit[:num_tokens], weights.gate_up[layer], gate_up)
        _gate(gate_up, gated[:num_tokens])
        multiply(gated[:num_tokens], weights.down[layer], added)
    _add_and_norm(x[:num_tokens], added, floors[0], unit)
    return unit[:num_tokens]


@compiled
def _width(packed: Array) -> int:
    """The outputs of packed matrices, those of the filled panel too."""
    width: int = packed.shape[1] * packed.shape[3]
    return width


@compiled
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


@compiled
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


@compiled
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


@compiled
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


@compiled
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


@compiled
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


@compiled
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


@compiled
def _gate(gate_up: Array, out: Array) -> None:
    """silu(gate) * up: gate_up [N, 2F] -> out [N, F]."""
    N, F = out.shape
    for n in range(N):
        for f in range(F):
            gate = gate_up[n, f]
            out[n, f] = gate / (np.float32(1.0) + _exp(-gate)) * gate_up[n, F + f]


def _make_tile(num_rows: int) -> Any:
    """The function that computes `num_rows` rows of one panel: x [N, I'], panel [I, COLUMNS] -> out [N, O'] from row n and column o on."""

    @intrinsic
    def tile(_: Any, x: Any, panel: Any, n: Any, o: Any, out: Any) -> Any:
        if not all(array.layout == "C" for array in (x, panel, out)):
            raise errors.TypingError("the arrays of a tile must be contiguous")

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            inputs, matrix, outputs = (
                context.make_array(signature.args[place])(context, builder, arguments[place]) for place in (0, 1, 4)
            )
            _write_tile(builder, num_rows, inputs, matrix, arguments[2], arguments[3], outputs)
            return context.get_dummy_value()

        return types.void(x, panel, n, o, out), generate

    return tile


def _write_tile(builder: Any, num_rows: int, x: Any, panel: Any, n: Any, o: Any, out: Any) -> None:
    """The instructions: a loop over the inputs, each of which is multiplied with a row of the panel and added to the sums."""
    index, vector = ir.IntType(64), ir.VectorType(ir.FloatType(), COLUMNS)
    (num_inputs, _), (_, x_width), (_, out_width) = (
        cgutils.unpack_tuple(builder, array.shape, 2)  # type: ignore[no-untyped-call]
        for array in (panel, x, out)
    )
    zero, undefined = ir.Constant(vector, [0.0] * COLUMNS), ir.Constant(vector, ir.Undefined)
    all_first = ir.Constant(ir.VectorType(ir.IntType(32), COLUMNS), [0] * COLUMNS)

    def place(data: Any, row: Any, width: Any, column: Any) -> Any:
        return builder.gep(data, [builder.add(builder.mul(row, width), column)])

    def as_vector(pointer: Any) -> Any:
        return builder.bitcast(pointer, vector.as_pointer())

    rows = [builder.add(n, index(row)) for row in range(num_rows)]
    before, loop, after = builder.block, builder.append_basic_block("inputs"), builder.append_basic_block("written")
    builder.branch(loop)
    builder.position_at_end(loop)
    i, sums = builder.phi(index), [builder.phi(vector) for _ in rows]
    weights = builder.load(as_vector(place(panel.data, i, index(COLUMNS), index(0))), align=4)
    added = []
    for row, total in zip(rows, sums, strict=True):
        value = builder.load(place(x.data, row, x_width, i))
        first = builder.insert_element(undefined, value, ir.IntType(32)(0))
        spread = builder.shuffle_vector(first, undefined, all_first)
        added.append(builder.fadd(builder.fmul(spread, weights, flags=CONTRACT), total, flags=CONTRACT))
    following = builder.add(i, index(1))
    for phi, start, later in [
        (i, index(0), following),
        *((phi, zero, one) for phi, one in zip(sums, added, strict=True)),
    ]:
        phi.add_incoming(start, before)
        phi.add_incoming(later, loop)
    builder.cbranch(builder.icmp_signed("<", following, num_inputs), loop, after)
    builder.position_at_end(after)
    for row, total in zip(rows, added, strict=True):
        builder.store(total, as_vector(place(out.data, row, out_width, o)), align=4)


_tile_8, _tile_4, _tile_2, _tile_1 = (_make_tile(num_rows) for num_rows in (TILE_ROWS, 4, 2, 1))


@compiled
def multiply(x: Array, packed: Array, out: Array) -> None:
    """x [N, I'], of each row its first I numbers, times a packed matrix [C, I, COLUMNS] -> the first C COLUMNS numbers of each row of out."""
    N = len(x)
    whole = N - N % TILE_ROWS
    for c in range(len(packed)):
        panel, o = packed[c], c * COLUMNS
        for n in range(0, whole, TILE_ROWS):
            _tile_8(x, panel, n, o, out)
        n = whole
        if N & 4:
            _tile_4(x, panel, n, o, out)
            n += 4
        if N & 2:
            _tile_2(x, panel, n, o, out)
            n += 2
        if N & 1:
            _tile_1(x, panel, n, o, out)
