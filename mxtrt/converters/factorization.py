"""Factorizations of matrices of any number of rows: a ``Loop`` with a step for each.

`linalg` writes the steps for a few rows one after the other. Here a step reads all that earlier
steps found in one ``MatMul`` and adds one row or column to it, so that the size of the ONNX does
not depend on the number of rows, which may be unknown. Everything is written for batches of any
rank. On one core 130 rows take 1 to 5 ms and 1000 take 0.2 to 1.3 s, LAPACK 0.5 and 50 ms at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from . import known_rank, size_vector, value_of
from .creation import positions
from .suppression import loop_body

Step = Callable[[OnnxModel, str, Sequence[str]], Sequence[str]]
"""Adds a step to a body, given the row's index and the states: the states after it."""


class Rows(NamedTuple):
    """The rows of a matrix: how many, also as a scalar, and their indices in three shapes."""

    size: int | None
    number: str
    indices: str
    column: str
    row: str


def rows_of(onnx: OnnxModel, a: Value, axis: int = -1) -> Rows:
    """Return the rows of `a`, whether their number is known or not."""
    size = a.shape[axis] if a.shape is not None else None
    if size is not None:
        count = onnx.constant(size, "int64")
    else:
        count = onnx.op("Gather", onnx.op("Shape", a), onnx.constant(axis, "int64"))
    index = positions(onnx, a, axis, "int64")
    column = onnx.op("Unsqueeze", index, onnx.ints([-1]))
    return Rows(size, count, index, column, onnx.op("Unsqueeze", index, onnx.ints([0])))


def looped(
    onnx: OnnxModel,
    name: str,
    count: str,
    states: Sequence[tuple[Value, str]],
    step: Step,
    scans: Sequence[Value] = (),
) -> tuple[str, ...]:
    """Run a step for each row.

    Parameters
    ----------
    count : str
        How many there are.
    states : sequence of (Value, str)
        What a step changes, and what it is before the first.
    step : callable
        Returns the states, then what of this step is kept beside them.
    scans : sequence of Value
        What is kept of each step: it comes back with the steps as its first axis.
    """
    body = onnx.subgraph(name)
    turn = body.declare(Value("row", (), "int64"))
    go_on = body.declare(Value("go", (), "bool"))
    values = [value for value, _ in states]
    before = [body.declare(value) for value in values]
    after = step(body, body.op("Unsqueeze", turn, body.ints([0])), before)
    made = onnx.ops(
        "Loop",
        count,
        onnx.constant(True, "bool"),
        *(start for _, start in states),
        outputs=len(after),
        body=loop_body(body, go_on, [*zip([*values, *scans], after)]),
    )
    return *with_ranks(onnx, made, values), *made[len(values) :]


def with_ranks(onnx: OnnxModel, tensors: Sequence[str], states: Sequence[Value]) -> list[str]:
    """Say how many axes a loop's states have: ONNX does not conclude it from its body."""
    return [
        onnx.op("Reshape", tensor, onnx.ints([0] * known_rank(state)))
        if state.shape is None or None in state.shape
        else tensor
        for tensor, state in zip(tensors, states)
    ]


def zeros_like(onnx: OnnxModel, x: Operand, dtype: str) -> str:
    """Return zeros in the shape of `x`, whatever its numbers are."""
    return onnx.op("Expand", onnx.constant(0, dtype), onnx.op("Shape", x))


def row_of(onnx: OnnxModel, a: Operand, index: str) -> str:
    """Return a row of each matrix as a matrix of one row."""
    return onnx.op("Gather", a, index, axis=-2)


def column_of(onnx: OnnxModel, a: Operand, index: str) -> str:
    """Return a column of each matrix as a matrix of one column."""
    return onnx.op("Gather", a, index, axis=-1)


def with_row(onnx: OnnxModel, a: Operand, index: str, row: str) -> str:
    """Return each matrix with another row; ``Where`` would take four times as long."""
    places = onnx.op("Expand", index, onnx.op("Shape", row))
    return onnx.op("ScatterElements", a, places, row, axis=-2)


def with_column(onnx: OnnxModel, a: Operand, index: str, column: str) -> str:
    """Return each matrix with another column."""
    places = onnx.op("Expand", index, onnx.op("Shape", column))
    return onnx.op("ScatterElements", a, places, column, axis=-1)


def matrix_transpose(onnx: OnnxModel, a: Operand, rank: int) -> str:
    """Exchange the last two axes."""
    return onnx.op("Transpose", a, perm=[*range(rank - 2), rank - 1, rank - 2])


def transposed(onnx: OnnxModel, a: Value) -> Value:
    """Exchange the last two axes of a tensor, and of what is known of its shape."""
    shape = None if a.shape is None else (*a.shape[:-2], a.shape[-1], a.shape[-2])
    return value_of(onnx, matrix_transpose(onnx, a, known_rank(a)), shape, a.dtype)


def identity_like(onnx: OnnxModel, a: Value) -> Value:
    """Return for each matrix of `a` the identity of its size."""
    rows = rows_of(onnx, a)
    ones = onnx.cast(onnx.op("Equal", rows.column, rows.row), a.dtype)
    made = onnx.op("Expand", ones, onnx.op("Shape", a))
    return value_of(onnx, made, a.shape, a.dtype)


def substituted(onnx: OnnxModel, a: Value, b: Value, *, lower: bool) -> str:
    """Solve ``a x = b`` for a triangular matrix; what is beyond its diagonal is not read."""
    rows = rows_of(onnx, a)
    triangle = onnx.op("Trilu", a, upper=int(not lower))
    right = onnx.declare(b)
    last = onnx.op("Sub", rows.number, onnx.constant(1, "int64"))

    def step(body: OnnxModel, turn: str, states: Sequence[str]) -> Sequence[str]:
        (found,) = states
        i = turn if lower else body.op("Sub", last, turn)
        factors = row_of(body, triangle, i)
        rest = body.op("Sub", row_of(body, right, i), body.op("MatMul", factors, found))
        row = body.op("Div", rest, column_of(body, factors, i))
        return [with_row(body, found, i, row)]

    state = Value("found", b.shape, b.dtype)
    start = zeros_like(onnx, right, b.dtype)
    return looped(onnx, "substitute", rows.number, [(state, start)], step)[0]


def cholesky(onnx: OnnxModel, a: Value) -> str:
    """Return the lower triangle whose product with its transpose is `a`, column by column."""
    rows, rank, matrix = rows_of(onnx, a), known_rank(a), onnx.declare(a)
    zero = onnx.constant(0, a.dtype)

    def step(body: OnnxModel, i: str, states: Sequence[str]) -> Sequence[str]:
        (found,) = states
        row = matrix_transpose(body, row_of(body, found, i), rank)
        column = body.op("Sub", column_of(body, matrix, i), body.op("MatMul", found, row))
        column = body.op("Div", column, body.op("Sqrt", row_of(body, column, i)))
        column = body.op("Where", body.op("Less", rows.column, i), zero, column)
        return [with_column(body, found, i, column)]

    state = Value("triangle", a.shape, a.dtype)
    start = zeros_like(onnx, matrix, a.dtype)
    return looped(onnx, "cholesky", rows.number, [(state, start)], step)[0]


class Elimination(NamedTuple):
    """What Gauss's elimination finds; pivots and the signs of swaps have the steps first."""

    pivots: str
    signs: str
    upper: str


def eliminated(onnx: OnnxModel, a: Value, b: Operand = None) -> Elimination:
    """Factorize `a`, each time with the largest pivot of the column.

    Rows are not swapped but marked as used. A step writes a column of the lower factor and a row of
    the upper one, whose diagonal is 1; the columns of `b`, behind those of `a`, become what the
    upper factor times the solution is.
    """
    rows = rows_of(onnx, a)
    matrix = onnx.declare(a) if b is None else onnx.op("Concat", a, b, axis=-1)
    zero, one, minus_one = (onnx.constant(number, a.dtype) for number in (0, 1, -1))

    def step(body: OnnxModel, i: str, states: Sequence[str]) -> Sequence[str]:
        lower, upper, free = states
        products = body.op("MatMul", lower, column_of(body, upper, i))
        column = body.op("Sub", column_of(body, matrix, i), products)
        column = body.op("Where", free, column, zero)
        sizes = body.op("Where", free, body.op("Abs", column), minus_one)
        best = body.op("ArgMax", sizes, axis=-2, keepdims=1)
        pivot = body.op("GatherElements", column, best, axis=-2)
        singular = body.op("Equal", pivot, zero)
        row = body.op(
            "Sub",
            _row_at(body, matrix, best, i),
            body.op("MatMul", _row_at(body, lower, best, i), upper),
        )
        row = body.op("Div", row, body.op("Where", singular, one, pivot))
        lower = with_column(body, lower, i, column)
        upper = with_row(body, upper, i, row)
        before = body.op("And", free, body.op("Less", rows.column, best))
        sign = _sign_of_swaps(body, before, a.dtype)
        others = body.op("Not", body.op("Equal", rows.column, best))
        return [lower, upper, body.op("And", free, others), pivot, sign]

    batch, height = (None, None) if a.shape is None else (a.shape[:-2], a.shape[-2])
    ranked = [None if batch is None else (*batch, height, n) for n in (None, 1)]
    number = None if batch is None else (*batch, 1, 1)
    state = Value("lower", a.shape, a.dtype), Value("upper", ranked[0], a.dtype)
    sizes = onnx.op("Slice", onnx.op("Shape", a), onnx.ints([0]), onnx.ints([-1]))
    column_sizes = onnx.op("Concat", sizes, onnx.ints([1]), axis=0)
    starts = [
        (state[0], zeros_like(onnx, a, a.dtype)),
        (state[1], zeros_like(onnx, matrix, a.dtype)),
        (
            Value("free", ranked[1], "bool"),
            onnx.op("Expand", onnx.constant(True, "bool"), column_sizes),
        ),
    ]
    scans = [Value(name, number, a.dtype) for name in ("pivot", "sign")]
    _, upper, _, pivots, signs = looped(onnx, "eliminate", rows.number, starts, step, scans)
    return Elimination(pivots, signs, upper)


def _row_at(body: OnnxModel, a: Operand, place: str, i: str) -> str:
    """Return the row at a place of its own in each matrix; `i` is any row."""
    places = body.op("Expand", place, body.op("Shape", row_of(body, a, i)))
    return body.op("GatherElements", a, places, axis=-2)


def _sign_of_swaps(body: OnnxModel, before: str, dtype: str) -> str:
    """Return 1, or -1 where the number of free rows before the chosen one is odd."""
    count = body.op("ReduceSum", body.cast(before, "int64"), body.ints([-2]), keepdims=1)
    odd = body.cast(body.op("Mod", count, body.constant(2, "int64")), "bool")
    return body.op("Where", odd, body.constant(-1, dtype), body.constant(1, dtype))


def solved(onnx: OnnxModel, a: Value, b: Value) -> str:
    """Return the solution of ``a x = b``, one for each column of `b`."""
    upper = eliminated(onnx, a, b).upper
    count = size_vector(onnx, a, -1)
    axis, end = onnx.ints([-1]), onnx.ints([np.iinfo(np.int64).max])
    left = onnx.op("Slice", upper, onnx.ints([0]), count, axis)
    right = onnx.op("Slice", upper, count, end, axis)
    return substituted(
        onnx,
        value_of(onnx, left, a.shape, a.dtype),
        value_of(onnx, right, b.shape, b.dtype),
        lower=False,
    )


def reflected(onnx: OnnxModel, a: Value) -> tuple[str, str]:
    """Return Q, whose rows stand on each other, and the lower triangle L of ``a = L Q``.

    With the vectors v of Householder's reflections as the rows of V, the product of all of them is
    ``1 - V' T V`` for a triangular matrix T.
    """
    rows, columns, rank = rows_of(onnx, a, -2), rows_of(onnx, a), known_rank(a)
    matrix = onnx.declare(a)

    def step(body: OnnxModel, i: str, states: Sequence[str]) -> Sequence[str]:
        vectors, factors = states
        row = _mirrored(body, row_of(body, matrix, i), vectors, factors, rank)
        marks = body.op("Greater", columns.row, i), body.op("Equal", columns.row, i)
        vector, factor = householder(body, row, column_of(body, row, i), marks, a.dtype)
        along = body.op("MatMul", vectors, matrix_transpose(body, vector, rank))
        column = body.op("Neg", body.op("Mul", factor, body.op("MatMul", factors, along)))
        column = body.op("Where", body.op("Equal", rows.column, i), factor, column)
        return [
            with_row(body, vectors, i, vector),
            with_column(body, factors, i, column),
        ]

    square = None if a.shape is None else (*a.shape[:-1], a.shape[-2])
    products = onnx.op("MatMul", a, matrix_transpose(onnx, a, rank))
    starts = [
        (Value("vectors", a.shape, a.dtype), zeros_like(onnx, a, a.dtype)),
        (Value("factors", square, a.dtype), zeros_like(onnx, products, a.dtype)),
    ]
    vectors, factors = looped(onnx, "reflect", rows.number, starts, step)
    first = onnx.cast(onnx.op("Equal", rows.column, columns.row), a.dtype)
    q = _mirrored(onnx, first, vectors, matrix_transpose(onnx, factors, rank), rank)
    whole = _mirrored(onnx, matrix, vectors, factors, rank)
    lower = onnx.op("Slice", whole, onnx.ints([0]), size_vector(onnx, a, -2), onnx.ints([-1]))
    return q, onnx.op("Trilu", lower, upper=0)


def _mirrored(onnx: OnnxModel, a: Operand, vectors: str, factors: str, rank: int) -> str:
    """Return ``a (1 - V' T V)``."""
    along = onnx.op("MatMul", a, matrix_transpose(onnx, vectors, rank))
    return onnx.op("Sub", a, onnx.op("MatMul", onnx.op("MatMul", along, factors), vectors))


def householder(
    onnx: OnnxModel, row: str, element: str, marks: tuple[str, str], dtype: str
) -> tuple[str, str]:
    """Return the vector that mirrors the row's tail onto an element, and 2 / its square.

    `marks` tell the tail and the element. As in LAPACK the element changes its sign, and a tail of
    zeros is left as it is.
    """
    zero, one = onnx.constant(0, dtype), onnx.constant(1, dtype)
    tail = onnx.op("Where", marks[0], row, zero)
    rest = onnx.op("ReduceSumSquare", tail, axes=[-1], keepdims=1)
    norm = onnx.op("Sqrt", onnx.op("Add", rest, onnx.op("Mul", element, element)))
    norm = onnx.op("Where", onnx.op("Less", element, zero), onnx.op("Neg", norm), norm)
    vector = onnx.op("Where", marks[1], onnx.op("Add", element, norm), tail)
    square = onnx.op("ReduceSumSquare", vector, axes=[-1], keepdims=1)
    flat = onnx.op("Equal", rest, zero)
    factor = onnx.op("Div", onnx.constant(2, dtype), onnx.op("Where", flat, one, square))
    return vector, onnx.op("Where", flat, zero, factor)
