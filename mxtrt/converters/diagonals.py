"""Diagonals and triangles of (batches of) matrices.

The places of a few known elements are a table; others are computed from the sizes that come.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import known_rank, value_of
from .factorization import matrix_transpose
from .reduction import reduce
from .shape import INFERRED, Size, reshaped, sizes_of

MAX_TABLE = 64  # rows of a matrix whose places are a table


@converts("_linalg_extractdiag")
def extract_diagonal(onnx: OnnxModel, a: Value, *, offset: int = 0) -> str:
    """``_linalg_extractdiag`` -> ``Gather`` of the flattened matrix."""
    n = _size(a)
    if n is None:
        return _computed_diagonal(onnx, a, offset)
    return _elements(onnx, a, n, [r * n + c for r, c in _diagonal(n - abs(offset), offset)])


@converts("_linalg_extracttrian")
def extract_triangle(onnx: OnnxModel, a: Value, *, offset: int = 0, lower: bool = True) -> str:
    """``_linalg_extracttrian`` -> ``Gather`` of the flattened matrix, or ``Compress``."""
    n = _size(a)
    if n is not None and n <= MAX_TABLE:
        return _elements(onnx, a, n, [r * n + c for r, c in _triangle(n, offset, lower)])
    is_lower = _is_lower(offset, lower)
    matrix: Operand = a if is_lower else matrix_transpose(onnx, a, known_rank(a))
    flat = reshaped(onnx, matrix, [*sizes_of(a, range(known_rank(a) - 2)), INFERRED], like=a)
    marks = _lower_marks(onnx, _length(onnx, a), offset if is_lower else -offset)
    return onnx.op("Compress", flat, onnx.op("Reshape", marks, onnx.ints([-1])), axis=-1)


@converts("_linalg_makediag")
def make_diagonal(onnx: OnnxModel, a: Value, *, offset: int = 0) -> str:
    """``_linalg_makediag`` -> ``Gather`` of the diagonal and a zero, or ``Where``."""
    length = _size(a)
    if length is not None and length <= MAX_TABLE:
        return _matrix_of(onnx, a, (length, length + abs(offset)), _diagonal(length, offset))
    padded = onnx.op("Pad", a, onnx.ints([0] * (2 * known_rank(a) - 1) + [abs(offset)]))
    index = _indices(onnx, _length(onnx, value_of(onnx, padded, None, a.dtype)))
    columns = onnx.op("Add", index, onnx.constant(-offset, "int64"))
    marks = onnx.op("Equal", onnx.op("Unsqueeze", index, onnx.ints([-1])), columns)
    elements = onnx.op("Unsqueeze", padded, onnx.ints([-1 if offset >= 0 else -2]))
    return onnx.op("Where", marks, elements, onnx.constant(0, a.dtype))


@converts("_linalg_maketrian")
def make_triangle(onnx: OnnxModel, a: Value, *, offset: int = 0, lower: bool = True) -> str:
    """``_linalg_maketrian`` -> ``Gather`` of the triangle and a zero."""
    length = _size(a)
    if length is None or length > MAX_TABLE**2:
        return _computed_triangle(onnx, a, offset, lower)
    n = int((8 * length + 1) ** 0.5 - 1) // 2 + abs(offset)
    return _matrix_of(onnx, a, (length, n), _triangle(n, offset, lower))


@converts("_linalg_sumlogdiag")
def sum_log_diagonal(onnx: OnnxModel, a: Value) -> str:
    """``_linalg_sumlogdiag`` -> ``Log``, ``ReduceSum`` of the diagonal."""
    logs = onnx.op("Log", extract_diagonal(onnx, a))
    return reduce(onnx, "ReduceSum", logs, None if a.rank == 2 else [-1], keepdims=False)


def _size(a: Value) -> int | None:
    """Return the size of the last axis, None where it is not known."""
    return a.shape[known_rank(a) - 1] if a.shape is not None else None


def _length(onnx: OnnxModel, a: Value) -> str:
    """Return the size of the last axis as a number."""
    return onnx.op("Gather", onnx.op("Shape", a), onnx.constant(-1, "int64"))


def _indices(onnx: OnnxModel, count: str) -> str:
    """Return the numbers from 0 to below `count`."""
    zero, one = onnx.constant(0, "int64"), onnx.constant(1, "int64")
    return onnx.op("Range", zero, count, one)


def _diagonal(length: int, offset: int) -> list[tuple[int, int]]:
    """Return the rows and columns of a diagonal."""
    return [(i + max(-offset, 0), i + max(offset, 0)) for i in range(length)]


def _is_lower(offset: int, lower: bool) -> bool:
    """Return whether the lower triangle is meant; an offset says on its own which one."""
    return offset < 0 or (offset == 0 and lower)


def _triangle(n: int, offset: int, lower: bool) -> list[tuple[int, int]]:
    """Return the rows and columns of a triangle.

    MXNet reads the lower one by rows and the upper one by columns.
    """
    if _is_lower(offset, lower):
        return [(r, c) for r in range(n) for c in range(n) if c - r <= offset]
    return [(r, c) for c in range(n) for r in range(n) if c - r >= offset]


def _elements(onnx: OnnxModel, a: Value, n: int, indices: list[int]) -> str:
    """Take elements of the flattened matrices."""
    batch = sizes_of(a, range(known_rank(a) - 2))
    flat = reshaped(onnx, a, [*batch, Size(factor=n**2)], like=a)
    return onnx.op("Gather", flat, onnx.ints(indices), axis=-1)


def _computed_diagonal(onnx: OnnxModel, a: Value, offset: int) -> str:
    """Take the diagonal of flattened matrices of unknown size."""
    count = _length(onnx, a)
    length = onnx.op("Sub", count, onnx.constant(abs(offset), "int64"))
    step = onnx.op("Add", count, onnx.constant(1, "int64"))
    places = onnx.op("Mul", _indices(onnx, length), step)
    start = onnx.constant(offset, "int64")
    if offset < 0:
        start = onnx.op("Mul", count, onnx.constant(-offset, "int64"))
    flat = reshaped(onnx, a, [*sizes_of(a, range(known_rank(a) - 2)), INFERRED], like=a)
    return onnx.op("Gather", flat, onnx.op("Add", places, start), axis=-1)


def _lower_marks(onnx: OnnxModel, count: str, offset: int) -> str:
    """Return a matrix that is true up to the diagonal at `offset`."""
    index = _indices(onnx, count)
    rows = onnx.op("Add", index, onnx.constant(offset, "int64"))
    return onnx.op("LessOrEqual", index, onnx.op("Unsqueeze", rows, onnx.ints([-1])))


def _matrix_of(
    onnx: OnnxModel, a: Value, sizes: tuple[int, int], places: Iterable[tuple[int, int]]
) -> str:
    """Make matrices that hold the elements of `a` at `places` and are zero elsewhere.

    `sizes` are the number of elements and that of the rows.
    """
    rank, (length, n) = known_rank(a), sizes
    ends = [0] * (2 * rank - 1) + [1]
    with_zero = onnx.op("Pad", a, onnx.ints(ends), onnx.constant(0, a.dtype))
    table = np.full((n, n), length)
    for index, place in enumerate(places):
        table[place] = index
    flat = onnx.op("Gather", with_zero, onnx.ints(int(i) for i in table.ravel()), axis=-1)
    batch = sizes_of(a, range(rank - 1))
    return reshaped(onnx, flat, [*batch, Size(factor=n), Size(factor=n)], a, leading=rank - 1)


def _computed_triangle(onnx: OnnxModel, a: Value, offset: int, lower: bool) -> str:
    """Make matrices of a triangle of many elements, or of an unknown number."""
    is_lower, rank = _is_lower(offset, lower), known_rank(a)
    eight, one = onnx.constant(8, "int64"), onnx.constant(1, "int64")
    square = onnx.op("Add", onnx.op("Mul", _length(onnx, a), eight), one)
    # an odd number, which float32 tells from others up to 5 million
    root = onnx.op("Round", onnx.op("Sqrt", onnx.cast(square, "float32")))
    root = onnx.cast(root, "int64")
    rows = onnx.op("Div", onnx.op("Sub", root, one), onnx.constant(2, "int64"))
    count = onnx.op("Add", rows, onnx.constant(abs(offset), "int64"))
    marks = _lower_marks(onnx, count, offset if is_lower else -offset)
    ones = onnx.cast(onnx.op("Reshape", marks, onnx.ints([-1])), "int64")
    number = onnx.op("CumSum", ones, onnx.constant(0, "int64"))
    places = onnx.op("Reshape", onnx.op("Sub", number, ones), onnx.op("Shape", marks))
    nothing = onnx.op("Pad", a, onnx.ints([0] * (2 * rank - 1) + [1]))
    elements = onnx.op("Gather", nothing, places, axis=-1)
    made = onnx.op("Where", marks, elements, onnx.constant(0, a.dtype))
    return made if is_lower else matrix_transpose(onnx, made, rank + 1)
