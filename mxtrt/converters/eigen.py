"""Eigenvalues of symmetric matrices, by Jacobi's rotations of rows and columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import known_rank, size_vector, value_of
from .elementwise import FLOATS
from .factorization import Rows, identity_like, matrix_transpose
from .rotation import (
    ROUNDING,
    Pairs,
    angles,
    between_partners,
    exceeds,
    rotated,
    rows_to_turn,
    turned,
)


@converts("_linalg_syevd")
def syevd(onnx: OnnxModel, a: Value) -> tuple[str, str]:
    """``_linalg_syevd`` -> a ``Loop`` of Jacobi's rotations; vectors are rows.

    Special numbers: NaN and infinity make NaN of other elements than in MXNet.
    """
    values, vectors = _eigenvectors(onnx, a, "L")
    return _with_largest_positive(onnx, a, vectors), values


@converts("_npi_eigh")
def eigh(onnx: OnnxModel, a: Value, *, UPLO: str = "L") -> tuple[str, str]:  # noqa: N803
    """``_npi_eigh`` -> a ``Loop`` of Jacobi's rotations; vectors are columns.

    Special numbers: NaN and infinity make NaN of other elements than in MXNet.
    """
    values, vectors = _eigenvectors(onnx, a, UPLO)
    rows = _with_largest_positive(onnx, a, vectors)
    return values, matrix_transpose(onnx, rows, known_rank(a))


@converts("_npi_eigvalsh")
def eigvalsh(onnx: OnnxModel, a: Value, *, UPLO: str = "L") -> str:  # noqa: N803
    """``_npi_eigvalsh`` -> a ``Loop`` of Jacobi's rotations.

    Special numbers: NaN and infinity make NaN of other elements than in MXNet.
    """
    return _eigenvectors(onnx, a, UPLO)[0]


def _eigenvectors(onnx: OnnxModel, a: Value, triangle: str) -> tuple[str, str]:
    """Return the eigenvalues in ascending order, and their vectors as rows of either sign."""
    dtype = a.dtype if a.dtype in FLOATS else "float64"
    if 0 in (a.shape or ()):
        nothing = onnx.cast(a, dtype)
        # ONNX Runtime 1.23 leaves axes without elements as they are when it sums along others
        sizes = onnx.op("Slice", onnx.op("Shape", nothing), onnx.ints([0]), onnx.ints([-1]))
        return onnx.op("Expand", onnx.constant(0, dtype), sizes), nothing
    rows = rows_to_turn(onnx, a)
    matrix = value_of(onnx, _symmetric(onnx, a, triangle, dtype), a.shape, dtype)
    identity = onnx.declare(identity_like(onnx, matrix))
    bound = _bound(onnx, matrix, identity)
    rank = known_rank(a)
    places = onnx.op("Mul", rows.indices, rows.number)  # of the rows in the flattened matrix
    own_places = onnx.op("Add", places, rows.indices)
    flat_sizes = _flat_sizes(onnx, rows, rank)

    def turn(body: OnnxModel, pairs: Pairs, states: Sequence[str]) -> tuple[Sequence[str], str]:
        flat = body.op("Reshape", states[0], flat_sizes)
        own = body.op("Gather", flat, own_places, axis=-1)
        between = _between(body, flat, pairs, rows, places, dtype)
        angle = angles(body, pairs, own, between, dtype)
        half = matrix_transpose(body, rotated(body, states[0], pairs, angle), rank)
        after = rotated(body, half, pairs, angle)
        return [after, rotated(body, states[1], pairs, angle)], exceeds(body, after, bound)

    names = Value("turned", a.shape, dtype), Value("vectors", a.shape, dtype)
    starts = onnx.declare(matrix), identity
    made, vectors = turned(onnx, rows, [*zip(names, starts)], dtype, turn)
    diagonal = onnx.op("ReduceSum", onnx.op("Mul", made, identity), onnx.ints([-1]), keepdims=0)
    count = size_vector(onnx, a, -1)
    values, order = onnx.ops("TopK", diagonal, count, outputs=2, axis=-1, largest=0)
    order = onnx.op("Unsqueeze", order, onnx.ints([-1]))
    chosen = onnx.cast(onnx.op("Equal", order, rows.indices), dtype)
    return values, onnx.op("MatMul", chosen, vectors)


def _bound(onnx: OnnxModel, matrix: Value, identity: str) -> str:
    """Return how large rounding may leave each element: any size on the diagonal."""
    dtype = matrix.dtype
    largest = onnx.op("ReduceMax", onnx.op("Abs", matrix), axes=[-2, -1], keepdims=1)
    noise = onnx.op("Mul", largest, onnx.constant(ROUNDING * np.finfo(dtype).eps, dtype))
    return onnx.op("Where", onnx.cast(identity, "bool"), onnx.constant(np.inf, dtype), noise)


def _flat_sizes(onnx: OnnxModel, rows: Rows, rank: int) -> str:
    """Return the sizes of flattened matrices: a -1 for the last could be anything without any."""
    batch = [0] * (rank - 2)
    if rows.size is not None:
        return onnx.ints([*batch, rows.size**2])
    square = onnx.op("Mul", rows.number, rows.number)
    return onnx.op("Concat", onnx.ints(batch), onnx.op("Unsqueeze", square, onnx.ints([0])), axis=0)


def _between(body: OnnxModel, flat: str, pairs: Pairs, rows: Rows, places: str, dtype: str) -> str:
    """Return the elements between partners, given the places of the rows in the flat matrix.

    They are the same for both though rounding may have made the matrix a little less than
    symmetric: rotations by two angles would not be rotations.
    """
    theirs = body.op("Mul", pairs.partner, rows.number)
    both = body.op("Add", places, pairs.partner), body.op("Add", theirs, rows.indices)
    total = body.op("Add", *(body.op("Gather", flat, place, axis=-1) for place in both))
    return between_partners(body, body.op("Mul", total, body.constant(0.5, dtype)), pairs, dtype)


def _symmetric(onnx: OnnxModel, a: Value, triangle: str, dtype: str) -> str:
    """Return the symmetric matrices of which `a` holds one triangle."""
    is_upper = int(triangle == "U")
    matrix: Operand = a if a.dtype == dtype else onnx.cast(a, dtype)
    beside = onnx.constant(1 if is_upper else -1, "int64")
    other = matrix_transpose(onnx, onnx.op("Trilu", matrix, beside, upper=is_upper), known_rank(a))
    return onnx.op("Add", onnx.op("Trilu", matrix, upper=is_upper), other)


def _with_largest_positive(onnx: OnnxModel, a: Value, rows: str) -> str:
    """Return the vectors with the sign that makes the element of the largest size positive."""
    if 0 in (a.shape or ()):
        return rows
    place = onnx.op("ArgMax", onnx.op("Abs", rows), axis=-1, keepdims=1)
    largest = onnx.op("GatherElements", rows, place, axis=-1)
    return onnx.op("Mul", rows, onnx.op("Sign", largest))
