"""Singular values and pseudo-inverses, by Jacobi's rotations of the rows.

Each turn makes the rows of every pair perpendicular, as those of `eigen` make elements 0; in the
end the rows are singular vectors, as long as their singular values.
"""

from __future__ import annotations

import numpy as np
from onnx import GraphProto

from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import known_rank, known_size, value_of
from .eigen import ROUNDING, SWEEPS, orders, pairings, rows_to_turn, tangent
from .linalg import gelqf, matrix_transpose
from .suppression import loop_body


@converts("_npi_svd")
def svd(onnx: OnnxModel, a: Value) -> tuple[str, str, str]:
    """``_npi_svd`` -> a ``Loop`` of Jacobi's rotations of the rows."""
    rank = known_rank(a)
    if 0 in (a.shape or ()):
        square = onnx.op("MatMul", a, matrix_transpose(onnx, a, rank))
        lengths = onnx.op("ReduceSum", a, onnx.ints([-1]), keepdims=0)
        return square, lengths, onnx.op("Identity", a)
    count = rows_to_turn(onnx, a, -2)
    lengths, rows, turns = _turned(onnx, a, count)
    zero, one = onnx.constant(0, a.dtype), onnx.constant(1, a.dtype)
    values, order = onnx.ops("TopK", lengths, onnx.ints([count]), outputs=2, axis=-2)
    flat = onnx.op("Squeeze", order, onnx.ints([-1]))
    places = onnx.op("Unsqueeze", flat, onnx.ints([-1]))
    chosen = onnx.cast(onnx.op("Equal", places, onnx.ints(range(count))), a.dtype)
    nothing = onnx.op("Equal", values, zero)
    vectors = onnx.op("MatMul", chosen, rows)
    vectors = onnx.op("Div", vectors, onnx.op("Where", nothing, one, values))
    # what stands on all others where the singular value is 0
    completed, _ = gelqf(onnx, value_of(onnx, vectors, a.shape, a.dtype))
    vectors = onnx.op("Where", nothing, completed, vectors)
    place = onnx.op("ArgMax", onnx.op("Abs", vectors), axis=-1, keepdims=1)
    sign = onnx.op("Sign", onnx.op("GatherElements", vectors, place, axis=-1))
    left = onnx.op("Mul", onnx.op("MatMul", chosen, turns), sign)
    found = onnx.op("Mul", values, _largest(onnx, a))
    return (
        matrix_transpose(onnx, left, rank),
        onnx.op("Squeeze", found, onnx.ints([-1])),
        onnx.op("Mul", vectors, sign),
    )


@converts("_npi_pinv")
def pinv(onnx: OnnxModel, a: Value, rcond: Value, *, hermitian: bool = False) -> str:
    """``_npi_pinv`` -> a ``Loop`` of Jacobi's rotations of the rows, divided by their squares."""
    del hermitian  # MXNet does not read it
    limit = rcond if rcond.dtype == a.dtype else onnx.cast(rcond, a.dtype)
    return _inverted(onnx, a, onnx.op("Unsqueeze", limit, onnx.ints([-1, -2])))


@converts("_npi_pinv_scalar_rcond")
def pinv_scalar_rcond(
    onnx: OnnxModel, a: Value, *, rcond: float = 1e-15, hermitian: bool = False
) -> str:
    """``_npi_pinv_scalar_rcond`` -> a ``Loop`` of rotations of the rows, over their squares."""
    del hermitian  # MXNet does not read it
    return _inverted(onnx, a, onnx.constant(rcond, a.dtype))


def singular_values(onnx: OnnxModel, a: Value) -> str:
    """Return the singular values of matrices without more rows than columns, in no order."""
    if a.shape is not None and a.shape[-1] == 0:
        return onnx.op("ReduceSum", a, onnx.ints([-1]), keepdims=0)
    lengths, _, _ = _turned(onnx, a, rows_to_turn(onnx, a, -2))
    return onnx.op("Squeeze", onnx.op("Mul", lengths, _largest(onnx, a)), onnx.ints([-1]))


def _inverted(onnx: OnnxModel, a: Value, rcond: Operand) -> str:
    """Return the pseudo-inverses, without singular values below `rcond` times the largest."""
    rank, shape = known_rank(a), a.shape or ()
    if 0 in shape:
        return matrix_transpose(onnx, a, rank)
    is_high = known_size(a, -2) > known_size(a, -1)
    if is_high:
        flipped = matrix_transpose(onnx, a, rank)
        a = value_of(onnx, flipped, (*shape[:-2], shape[-1], shape[-2]), a.dtype)
    lengths, rows, turns = _turned(onnx, a, rows_to_turn(onnx, a, -2))
    longest = onnx.op("ReduceMax", lengths, axes=[-2], keepdims=1)
    counts = onnx.op("Greater", lengths, onnx.op("Mul", rcond, longest))
    zero, one = onnx.constant(0, a.dtype), onnx.constant(1, a.dtype)
    divisor = onnx.op("Where", counts, lengths, one)
    right = onnx.op("Where", counts, onnx.op("Div", onnx.op("Div", rows, divisor), divisor), zero)
    right = onnx.op("Div", right, _largest(onnx, a))
    if is_high:
        return onnx.op("MatMul", matrix_transpose(onnx, turns, rank), right)
    return onnx.op("MatMul", matrix_transpose(onnx, right, rank), turns)


def _largest(onnx: OnnxModel, a: Value) -> str:
    """Return the size of the largest element of each matrix, and 1 for a matrix of zeros."""
    zero, one = onnx.constant(0, a.dtype), onnx.constant(1, a.dtype)
    largest = onnx.op("ReduceMax", onnx.op("Abs", a), axes=[-2, -1], keepdims=1)
    return onnx.op("Where", onnx.op("Equal", largest, zero), one, largest)


def _turned(onnx: OnnxModel, a: Value, count: int) -> tuple[str, str, str]:
    """Return, for matrices divided by their largest element, perpendicular rows.

    Namely their lengths, as a column; the rows; and the rotation that made them.
    """
    scaled = value_of(onnx, onnx.op("Div", a, _largest(onnx, a)), a.shape, a.dtype)
    pairs = pairings(count)
    tables = onnx.constant(pairs, a.dtype), onnx.constant(orders(pairs), a.dtype)
    identity = onnx.constant(np.eye(count), a.dtype)
    columns = (a.shape[-1] if a.shape else None) or 1
    noise = ROUNDING * np.finfo(a.dtype).eps * max(1, columns**0.5 / 4)
    batch = onnx.op("Slice", onnx.op("Shape", a), onnx.ints([0]), onnx.ints([-1]))
    sizes = onnx.op("Concat", batch, onnx.ints([count]), axis=0)
    rows, turns = onnx.ops(
        "Loop",
        onnx.constant(SWEEPS * len(pairs), "int64"),
        onnx.constant(True, "bool"),
        scaled,
        onnx.op("Expand", identity, sizes),
        outputs=2,
        body=_round(onnx, scaled, count, tables, identity, noise, len(pairs)),
    )
    squares = onnx.op("ReduceSumSquare", rows, axes=[-1], keepdims=1)
    return onnx.op("Sqrt", squares), rows, turns


def _round(
    onnx: OnnxModel,
    like: Value,
    count: int,
    tables: tuple[str, str],
    identity: str,
    noise: float,
    rounds: int,
) -> GraphProto:
    """Turn every row with its partner, by the angle that makes them perpendicular."""
    rank, dtype = known_rank(like), like.dtype
    body = onnx.subgraph("rotate")
    turn = body.declare(Value("turn", (), "int64"))
    body.declare(Value("go", (), "bool"))
    square = None if like.shape is None else (*like.shape[:-2], count, count)
    states = [Value("rows", like.shape, dtype), Value("turns", square, dtype)]
    rows, turns = (body.declare(state) for state in states)
    zero, one = body.constant(0, dtype), body.constant(1, dtype)
    number = body.op("Mod", turn, body.constant(rounds, "int64"))
    pairs, order = (body.op("Gather", table, number, axis=0) for table in tables)

    def along_rows(x: Operand) -> str:
        return body.op("ReduceSum", x, body.ints([-1]), keepdims=1)

    products = body.op("MatMul", rows, matrix_transpose(body, rows, rank))
    own = along_rows(body.op("Mul", products, identity))
    partner = body.op("MatMul", pairs, own)
    between = along_rows(body.op("Mul", products, pairs))
    tan = tangent(body, own, partner, between, order, (zero, one), dtype)
    cos = body.op("Reciprocal", body.op("Sqrt", body.op("Add", one, body.op("Mul", tan, tan))))
    sin = body.op("Mul", tan, cos)
    rotation = body.op("Add", body.op("Mul", cos, identity), body.op("Mul", sin, pairs))
    back = matrix_transpose(body, rotation, rank)
    lengths = body.op("Sqrt", own)
    bound = body.op("Mul", lengths, matrix_transpose(body, lengths, rank))
    bound = body.op("Mul", bound, body.constant(noise, dtype))
    rest = body.op("Abs", body.op("Mul", products, body.op("Sub", one, identity)))
    more = body.cast(body.op("Greater", rest, bound), "float32")
    go_on = body.op("Greater", body.op("ReduceMax", more, keepdims=0), body.constant(0, "float32"))
    turned = (body.op("MatMul", back, state) for state in (rows, turns))
    return loop_body(body, go_on, [*zip(states, turned)])
