"""Singular values and pseudo-inverses, by Jacobi's rotations of the rows.

Each turn makes the rows of every pair perpendicular, as those of `eigen` make elements 0; in the
end the rows are singular vectors, as long as their singular values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import known_rank, known_size, size_vector, value_of
from .factorization import matrix_transpose, transposed
from .linalg import gelqf
from .rotation import (
    ROUNDING,
    Pairs,
    angles,
    between_partners,
    exceeds,
    rotated,
    rounds_of,
    rows_to_turn,
    turned,
)


@converts("_npi_svd")
def svd(onnx: OnnxModel, a: Value) -> tuple[str, str, str]:
    """``_npi_svd`` -> a ``Loop`` of Jacobi's rotations of the rows.

    Special numbers: NaN and infinity make NaN of other elements than in MXNet.
    """
    rank = known_rank(a)
    if 0 in (a.shape or ()):
        square = onnx.op("MatMul", a, matrix_transpose(onnx, a, rank))
        lengths = onnx.op("ReduceSum", a, onnx.ints([-1]), keepdims=0)
        return square, lengths, onnx.op("Identity", a)
    indices = rows_to_turn(onnx, a, -2).indices
    lengths, rows, turns = _turned(onnx, a)
    zero, one = onnx.constant(0, a.dtype), onnx.constant(1, a.dtype)
    values, order = onnx.ops("TopK", lengths, size_vector(onnx, a, -2), outputs=2, axis=-2)
    flat = onnx.op("Squeeze", order, onnx.ints([-1]))
    places = onnx.op("Unsqueeze", flat, onnx.ints([-1]))
    chosen = onnx.cast(onnx.op("Equal", places, indices), a.dtype)
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
    """``_npi_pinv`` -> a ``Loop`` of Jacobi's rotations of the rows, divided by their squares.

    Special numbers: NaN and infinity make NaN of other elements than in MXNet.
    """
    del hermitian  # MXNet does not read it
    limit = rcond if rcond.dtype == a.dtype else onnx.cast(rcond, a.dtype)
    return _inverted(onnx, a, onnx.op("Unsqueeze", limit, onnx.ints([-1, -2])))


@converts("_npi_pinv_scalar_rcond")
def pinv_scalar_rcond(
    onnx: OnnxModel, a: Value, *, rcond: float = 1e-15, hermitian: bool = False
) -> str:
    """``_npi_pinv_scalar_rcond`` -> a ``Loop`` of rotations of the rows, over their squares.

    Special numbers: NaN and infinity make NaN of other elements than in MXNet.
    """
    del hermitian  # MXNet does not read it
    return _inverted(onnx, a, onnx.constant(rcond, a.dtype))


def singular_values(onnx: OnnxModel, a: Value) -> str:
    """Return the singular values of matrices without more rows than columns, in no order."""
    if 0 in (a.shape or ()):
        return onnx.op("ReduceSum", a, onnx.ints([-1]), keepdims=0)
    lengths, _, _ = _turned(onnx, a)
    return onnx.op("Squeeze", onnx.op("Mul", lengths, _largest(onnx, a)), onnx.ints([-1]))


def _inverted(onnx: OnnxModel, a: Value, rcond: Operand) -> str:
    """Return the pseudo-inverses, without singular values below `rcond` times the largest."""
    rank = known_rank(a)
    if 0 in (a.shape or ()):
        return matrix_transpose(onnx, a, rank)
    is_high = _is_high(onnx, a)
    lengths, rows, turns = _turned(onnx, _flipped_if(onnx, is_high, a))
    longest = onnx.op("ReduceMax", lengths, axes=[-2], keepdims=1)
    counts = onnx.op("Greater", lengths, onnx.op("Mul", rcond, longest))
    zero, one = onnx.constant(0, a.dtype), onnx.constant(1, a.dtype)
    divisor = onnx.op("Where", counts, lengths, one)
    right = onnx.op("Where", counts, onnx.op("Div", onnx.op("Div", rows, divisor), divisor), zero)
    right = onnx.op("Div", right, _largest(onnx, a))
    made = onnx.op("MatMul", matrix_transpose(onnx, right, rank), turns)
    shape = None if a.shape is None else (*a.shape[:-2], None, None)
    return onnx.declare(_flipped_if(onnx, is_high, value_of(onnx, made, shape, a.dtype)))


def _is_high(onnx: OnnxModel, a: Value) -> bool | str:
    """Return whether `a` has more rows than columns, as a tensor where the run tells it."""
    if a.shape is not None and None not in a.shape[-2:]:
        return known_size(a, -2) > known_size(a, -1)
    rows, columns = (onnx.constant(axis, "int64") for axis in (-2, -1))
    shape = onnx.op("Shape", a)
    return onnx.op("Greater", onnx.op("Gather", shape, rows), onnx.op("Gather", shape, columns))


def _flipped_if(onnx: OnnxModel, is_high: bool | str, a: Value) -> Value:
    """Return the transpose of `a` if it `is_high`, else `a`."""
    if isinstance(is_high, bool):
        return transposed(onnx, a) if is_high else a
    shape = None if a.shape is None else (*a.shape[:-2], None, None)
    branches = {}
    for name in ("then_branch", "else_branch"):
        body, output = onnx.subgraph(name), Value("turned", shape, a.dtype)
        is_then = name == "then_branch"
        source = onnx.declare(a)
        made = (
            matrix_transpose(body, source, known_rank(a))
            if is_then
            else body.op("Identity", source)
        )
        body.bind([output], [made])
        branches[name] = body.finish([output]).graph
    return value_of(onnx, onnx.op("If", is_high, **branches), shape, a.dtype)


def _largest(onnx: OnnxModel, a: Value) -> str:
    """Return the size of the largest element of each matrix, and 1 for a matrix of zeros."""
    zero, one = onnx.constant(0, a.dtype), onnx.constant(1, a.dtype)
    largest = onnx.op("ReduceMax", onnx.op("Abs", a), axes=[-2, -1], keepdims=1)
    return onnx.op("Where", onnx.op("Equal", largest, zero), one, largest)


def _turned(onnx: OnnxModel, a: Value) -> tuple[str, str, str]:
    """Return, for matrices divided by their largest element, perpendicular rows.

    Namely their lengths, as a column; the rows; and the rotation that made them.
    """
    dtype, rows = a.dtype, rows_to_turn(onnx, a, -2)
    scaled = onnx.op("Div", a, _largest(onnx, a))
    noise, rounds = _noise(onnx, a), rounds_of(onnx, rows)

    def turn(body: OnnxModel, pairs: Pairs, states: Sequence[str]) -> tuple[Sequence[str], str]:
        quiet, *states = states
        others = body.op("Gather", states[0], pairs.partner, axis=-2)
        products = body.op("Mul", states[0], others)
        between = body.op("ReduceSum", products, body.ints([-1]), keepdims=0)
        between = between_partners(body, between, pairs, dtype)
        own = body.op("ReduceSumSquare", states[0], axes=[-1], keepdims=0)
        angle = angles(body, pairs, own, between, dtype)
        lengths = body.op("Sqrt", own)
        bound = body.op("Mul", lengths, body.op("Gather", lengths, pairs.partner, axis=-1))
        had_to = exceeds(body, between, body.op("Mul", bound, noise))
        count = body.op("Add", quiet, body.constant(1, "int64"))
        quiet = body.op("Where", had_to, body.constant(0, "int64"), count)
        after = [rotated(body, state, pairs, angle) for state in states]
        return [quiet, *after], body.op("Less", quiet, rounds)

    square = None if a.shape is None else (*a.shape[:-1], a.shape[-2])
    ones = onnx.cast(onnx.op("Equal", rows.column, rows.row), dtype)
    sizes = onnx.op("Slice", onnx.op("Shape", a), onnx.ints([0]), onnx.ints([-1]))
    sizes = onnx.op("Concat", sizes, size_vector(onnx, a, -2), axis=0)
    names = (
        Value("quiet", (), "int64"),
        Value("rows", a.shape, dtype),
        Value("turns", square, dtype),
    )
    starts = onnx.constant(0, "int64"), scaled, onnx.op("Expand", ones, sizes)
    _, made, turns = turned(onnx, rows, [*zip(names, starts)], dtype, turn)
    squares = onnx.op("ReduceSumSquare", made, axes=[-1], keepdims=1)
    return onnx.op("Sqrt", squares), made, turns


def _noise(onnx: OnnxModel, a: Value) -> str:
    """Return how far from perpendicular rounding may leave rows of length 1."""
    eps = ROUNDING * np.finfo(a.dtype).eps
    columns = a.shape[-1] if a.shape is not None else None
    if columns is not None:
        return onnx.constant(eps * max(1, columns**0.5 / 4), a.dtype)
    root = onnx.op("Sqrt", onnx.cast(size_vector(onnx, a, -1), a.dtype))
    factor = onnx.op(
        "Max", onnx.op("Div", root, onnx.constant(4, a.dtype)), onnx.constant(1, a.dtype)
    )
    return onnx.op("Mul", factor, onnx.constant(eps, a.dtype))
