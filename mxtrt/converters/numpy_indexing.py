"""Diagonals, triangles, differences and polynomials as NumPy has them."""

from __future__ import annotations

import numpy as np

from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import (
    known_rank,
    known_shape,
    known_size,
    normalized_axis,
    size_vector,
    value_of,
)
from .creation import as_dtype, filled, positions
from .indexing import diag, sliced
from .numpy_reduction import accumulated

# -- diagonals -------------------------------------------------------------------------------------


@converts("_np_diag")
def diagonal_or_matrix(onnx: OnnxModel, x: Value, *, k: int = 0) -> str:
    """``_np_diag`` -> ``Gather`` of a matrix, ``Where`` for a vector."""
    return diag(onnx, x, k=k) if x.rank == 1 else diagonal(onnx, x, offset=k)


@converts("_np_diagonal")
def diagonal(onnx: OnnxModel, x: Value, *, offset: int = 0, axis1: int = 0, axis2: int = 1) -> str:
    """``_np_diagonal`` -> ``Gather`` of two flattened axes."""
    if 0 not in {known_size(x, axis1), known_size(x, axis2)}:
        return diag(onnx, x, k=offset, axis1=axis1, axis2=axis2)
    rank = known_rank(x)
    both = {normalized_axis(axis1, rank), normalized_axis(axis2, rank)}
    sizes = [size_vector(onnx, x, axis) for axis in range(rank) if axis not in both]
    return filled(onnx, 0, x.dtype, onnx.op("Concat", *sizes, onnx.ints([0]), axis=0))


@converts("_np_diagflat")
def diagflat(onnx: OnnxModel, x: Value, *, k: int = 0) -> str:
    """``_np_diagflat`` -> as ``_np_diag`` of the flattened input."""
    if x.rank == 1:
        return diag(onnx, x, k=k)
    count = int(np.prod(known_shape(x)))
    flat = onnx.op("Reshape", x, onnx.ints([-1]))
    return diag(onnx, value_of(onnx, flat, (count,), x.dtype), k=k)


@converts("_np_trace")
def trace(onnx: OnnxModel, x: Value, *, offset: int = 0, axis1: int = 0, axis2: int = 1) -> str:
    """``_np_trace`` -> ``ReduceSum`` of the diagonal."""
    along = diagonal(onnx, x, offset=offset, axis1=axis1, axis2=axis2)
    values = value_of(onnx, along, (None,) * (known_rank(x) - 1), x.dtype)
    return accumulated(onnx, "ReduceSum", values, [known_rank(x) - 2], None, keepdims=False)


@converts("_npi_tril")
def tril(onnx: OnnxModel, x: Value, *, k: int = 0) -> str:
    """``_npi_tril`` -> ``Where`` the column is not beyond the row; a vector is every row."""
    rank = known_rank(x)
    rows, columns = (rank - 2, rank - 1) if rank > 1 else (0, 0)
    if x.shape is not None and x.shape[rows] is not None and x.shape[columns] is not None:
        lower = np.tri(known_size(x, rows), known_size(x, columns), k, dtype=bool)
        return onnx.op("Where", onnx.constant(lower, "bool"), x, onnx.constant(0, x.dtype))
    row = onnx.op("Unsqueeze", positions(onnx, x, rows, "int64"), onnx.ints([1]))
    last = onnx.op("Add", row, onnx.constant(k, "int64"))
    kept = onnx.op("LessOrEqual", positions(onnx, x, columns, "int64"), last)
    return onnx.op("Where", kept, x, onnx.constant(0, x.dtype))


@converts("_npi_diag_indices_from")
def diag_indices_from(onnx: OnnxModel, x: Value) -> str:
    """``_npi_diag_indices_from`` -> the places along an axis, once for each axis."""
    return onnx.op("Expand", positions(onnx, x, 0, "int64"), onnx.ints([known_rank(x), 1]))


# -- differences and polynomials -------------------------------------------------------------------


@converts("_npi_diff")
def diff(onnx: OnnxModel, x: Value, *, n: int = 1, axis: int = -1) -> str:
    """``_npi_diff`` -> ``Sub`` of neighbours, `n` times."""
    return _differences(onnx, x, n, axis)


def _differences(onnx: OnnxModel, x: Operand, times: int, axis: int) -> str:
    made = x
    for _ in range(times):
        behind, before = (
            sliced(onnx, made, {axis: (1, None, 1)}),
            sliced(onnx, made, {axis: (0, -1, 1)}),
        )
        made = onnx.op("Sub", behind, before)
    return onnx.op("Identity", x) if made is x else str(made)


@converts("_npi_ediff1d")
def ediff1d(
    onnx: OnnxModel,
    x: Value,
    *ends: Value,
    to_begin_arr_given: bool = False,
    to_end_arr_given: bool = False,
    to_begin_scalar: float | None = None,
    to_end_scalar: float | None = None,
) -> str:
    """``_npi_ediff1d`` -> ``Sub`` of neighbours between what is put in front and behind."""
    given = iter(ends)
    flat = onnx.op("Reshape", x, onnx.ints([-1]))
    parts = [_differences(onnx, flat, 1, 0)]
    if to_begin_arr_given:
        parts.insert(0, onnx.op("Reshape", next(given), onnx.ints([-1])))
    elif to_begin_scalar is not None:
        parts.insert(0, onnx.constant([as_dtype(to_begin_scalar, x.dtype)], x.dtype))
    if to_end_arr_given:
        parts.append(onnx.op("Reshape", next(given), onnx.ints([-1])))
    elif to_end_scalar is not None:
        parts.append(onnx.constant([as_dtype(to_end_scalar, x.dtype)], x.dtype))
    return parts[0] if len(parts) == 1 else onnx.op("Concat", *parts, axis=0)


@converts("_npi_polyval")
def polyval(onnx: OnnxModel, p: Value, x: Value) -> str:
    """``_npi_polyval`` -> Horner's rule, a ``Mul`` and an ``Add`` for each coefficient."""
    total: Operand = onnx.op("Mul", x, onnx.constant(0, x.dtype))
    if known_size(p, 0) == 0:
        return str(total)
    for i in range(known_size(p, 0)):
        coefficient = onnx.op("Gather", p, onnx.constant(i, "int64"))
        total = onnx.op("Add", onnx.op("Mul", total, x) if i else total, coefficient)
    return str(total)
