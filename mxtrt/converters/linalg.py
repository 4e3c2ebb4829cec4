"""Linear algebra on (batches of) matrices.

Factorizations run row by row. A few rows are a few operators each; in models that leave MXNet more
of them, or an unknown number, are a ``Loop`` of `factorization`. Everything is written for batches
of any rank.
"""

from __future__ import annotations

import mxnet as mx
import numpy as np
import numpy.typing as npt

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import factorization, known_rank, known_size, value_of
from .factorization import householder, identity_like, matrix_transpose, transposed
from .shape import INFERRED, reshaped, sizes_of

MAX_STEPS = 16  # 0.06 to 0.4 ms on a CPU, as many loops are, and MXNet's LAPACK 0.02

Marks = npt.NDArray[np.bool_]


@converts("_linalg_syrk")
def syrk(onnx: OnnxModel, a: Value, *, transpose: bool = False, alpha: float = 1.0) -> str:
    """``_linalg_syrk`` -> ``MatMul`` of a matrix and its transpose."""
    flipped = matrix_transpose(onnx, a, known_rank(a))
    factors = (flipped, a) if transpose else (a, flipped)
    return _product(onnx, factors, alpha, a.dtype)


@converts("_linalg_trmm")
def trmm(
    onnx: OnnxModel,
    a: Value,
    b: Value,
    *,
    transpose: bool = False,
    rightside: bool = False,
    lower: bool = True,
    alpha: float = 1.0,
) -> str:
    """``_linalg_trmm`` -> ``Trilu``, ``MatMul``."""
    triangle = onnx.op("Trilu", a, upper=int(not lower))
    if transpose:
        triangle = matrix_transpose(onnx, triangle, known_rank(a))
    factors = (b, triangle) if rightside else (triangle, b)
    return _product(onnx, factors, alpha, a.dtype)


@converts("_linalg_trsm")
def trsm(
    onnx: OnnxModel,
    a: Value,
    b: Value,
    *,
    transpose: bool = False,
    rightside: bool = False,
    lower: bool = True,
    alpha: float = 1.0,
) -> str:
    """``_linalg_trsm`` -> substitution, row by row.

    Special numbers: NaN and infinity make NaN of other elements than in MXNet.
    """
    matrix = a
    right = b
    if alpha != 1:
        scaled = onnx.op("Mul", b, onnx.constant(alpha, b.dtype))
        right = value_of(onnx, scaled, b.shape, b.dtype)
    if rightside:  # X A = B is solved as A^T X^T = B^T
        right = transposed(onnx, right)
    if transpose != rightside:
        matrix, lower = transposed(onnx, a), not lower
    found = _substituted(onnx, matrix, right, lower)
    return matrix_transpose(onnx, found, known_rank(a)) if rightside else found


@converts("_linalg_potrf")
def potrf(onnx: OnnxModel, a: Value) -> str:
    """``_linalg_potrf`` -> Cholesky's columns, one after the other.

    Special numbers: NaN and infinity make NaN of other elements than in MXNet.
    """
    if 0 in (a.shape or ()):
        return onnx.op("Identity", a)
    rank, count = known_rank(a), few_rows(onnx, a)
    if count is None:
        return factorization.cholesky(onnx, a)
    rest: Operand = a
    zero = onnx.constant(0, a.dtype)
    columns = []
    for i in range(count):
        column, pivot = _column(onnx, rest, i), _element(onnx, rest, i)
        below = onnx.constant(np.arange(count).reshape(-1, 1) >= i, "bool")
        # what stands above the diagonal is not read, be it NaN
        column = onnx.op("Where", below, onnx.op("Div", column, onnx.op("Sqrt", pivot)), zero)
        columns.append(column)
        if i + 1 < count:
            row = matrix_transpose(onnx, column, rank)
            rest = onnx.op("Sub", rest, onnx.op("Mul", column, row))
    return onnx.op("Concat", *columns, axis=-1)


@converts("_linalg_potri")
def potri(onnx: OnnxModel, a: Value) -> str:
    """``_linalg_potri`` -> substitution, row by row, then the product of the two inverses.

    Special numbers: NaN and infinity make NaN of other elements than in MXNet.
    """
    inverse = _substituted(onnx, a, _identity(onnx, a), lower=True)
    return onnx.op("MatMul", matrix_transpose(onnx, inverse, known_rank(a)), inverse)


@converts("_linalg_det")
def det(onnx: OnnxModel, a: Value) -> str:
    """``_linalg_det`` -> the product of Gauss's pivots; ``Det`` where they are many or unknown."""
    size = a.shape[-1] if a.shape else None
    is_few, axes = size is not None and size <= MAX_STEPS, [-2, -1]
    if is_few:
        pivots, swaps, _ = _eliminated(onnx, a, None, steps(a))
        factors = onnx.op("Concat", *pivots, *swaps, axis=-1)
    elif onnx.leaves_mxnet and a.dtype == "float64":  # ONNX Runtime has Det for float32 alone
        found = factorization.eliminated(onnx, a)
        factors, axes = onnx.op("Mul", found.pivots, found.signs), [0, -2, -1]
    else:
        return _number_per_matrix(onnx, a, onnx.op("Det", a))  # TensorRT does not have it
    product = onnx.op("ReduceProd", factors, axes=axes, keepdims=0)
    return _number_per_matrix(onnx, a, product)


@converts("_linalg_slogdet")
def slogdet(onnx: OnnxModel, a: Value) -> tuple[str, str]:
    """``_linalg_slogdet`` -> Gauss's pivots, row by row; their signs and logarithms.

    Special numbers: of NaN MXNet's sign may be 0.
    """
    count, axes = few_rows(onnx, a), [-2, -1]
    if count is None:
        pivots, swaps, _ = factorization.eliminated(onnx, a)
        signs = onnx.op("Mul", onnx.op("Sign", pivots), swaps)
        axes = [0, -2, -1]
    else:
        steps_pivots, steps_swaps, _ = _eliminated(onnx, a, None, count)
        pivots = onnx.op("Concat", *steps_pivots, axis=-1)
        signs = onnx.op("Concat", onnx.op("Sign", pivots), *steps_swaps, axis=-1)
    sign = onnx.op("ReduceProd", signs, axes=axes, keepdims=0)
    logs = onnx.op("Log", onnx.op("Abs", pivots))
    total = onnx.op("ReduceSum", logs, onnx.ints(axes), keepdims=0)
    return _number_per_matrix(onnx, a, sign), _number_per_matrix(onnx, a, total)


@converts("_linalg_inverse")
def inverse(onnx: OnnxModel, a: Value) -> str:
    """``_linalg_inverse`` -> Gauss's elimination with pivots, row by row.

    Special numbers: NaN and infinity make NaN of other elements than in MXNet.
    """
    return onnx.op("Identity", a) if 0 in (a.shape or ()) else solved(onnx, a, _identity(onnx, a))


def solved(onnx: OnnxModel, a: Value, b: Value) -> str:
    """Return the solution of ``a x = b``, one for each column of `b`."""
    count = few_rows(onnx, a)
    if count is None:
        return factorization.solved(onnx, a, b)
    return str(_eliminated(onnx, a, b, count)[2])


@converts("_linalg_gelqf")
def gelqf(onnx: OnnxModel, a: Value) -> tuple[str, str]:
    """``_linalg_gelqf`` -> Householder's reflections, row by row."""
    rank, rows = known_rank(a), few_rows(onnx, a, -2)
    if rows is None:
        return factorization.reflected(onnx, a)
    columns = known_size(a, -1)
    rest: Operand = a
    mirrors = []
    for i in range(min(rows, columns - 1)):  # the last of a square needs none
        mirrors.append(_householder(onnx, _row(onnx, rest, i), i, columns, a.dtype))
        rest = _reflected(onnx, rest, *mirrors[-1], rank)
    q: Operand = onnx.constant(np.eye(rows, columns), a.dtype)
    for mirror in reversed(mirrors):
        q = _reflected(onnx, q, *mirror, rank)
    square = onnx.op("Slice", rest, onnx.ints([0]), onnx.ints([rows]), onnx.ints([-1]))
    # a matrix of one row and column is its own L
    whole = q if mirrors else onnx.op("Expand", q, onnx.op("Shape", a))
    return str(whole), onnx.op("Trilu", square, upper=0)


@converts("khatri_rao")
def khatri_rao(onnx: OnnxModel, *matrices: Value) -> str:
    """``khatri_rao`` -> ``Mul`` of every row with every row."""
    made: Operand = matrices[0]
    columns = sizes_of(matrices[0], [1])
    for matrix in matrices[1:]:
        products = onnx.op("Mul", onnx.op("Unsqueeze", made, onnx.ints([1])), matrix)
        made = reshaped(onnx, products, [INFERRED, *columns], like=matrix, leading=0)
    return onnx.op("Identity", made) if len(matrices) == 1 else str(made)


def _number_per_matrix(onnx: OnnxModel, a: Value, made: str) -> str:
    if known_rank(a) > 2 or mx.util.is_np_shape():
        return made
    return onnx.op("Reshape", made, onnx.ints([1]))


def _identity(onnx: OnnxModel, a: Value) -> Value:
    """Return the identity for `a`, of a few rows as one constant for all matrices."""
    count = few_rows(onnx, a)
    if count is None:
        return identity_like(onnx, a)
    ones = onnx.constant(np.eye(count), a.dtype)
    return value_of(onnx, ones, (count, count), a.dtype)


def few_rows(onnx: OnnxModel, a: Value, axis: int = -1) -> int | None:
    """Return the number of rows of `a` where a step is written for each, None for a ``Loop``.

    MXNet factorizes faster than a loop does: where it runs the rest of the model, it keeps what is
    not a few rows.
    """
    count = a.shape[axis] if a.shape is not None else None
    if onnx.leaves_mxnet and (count is None or count > MAX_STEPS):
        return None
    return steps(a, axis)


def steps(a: Value, axis: int = -1) -> int:
    """Return the number of rows of `a`, if it is not too large to write a step for each."""
    count = known_size(a, axis)
    if count == 0:
        raise UnsupportedOp(f"{a.name!r} has no rows to begin with")
    if count > MAX_STEPS:
        raise UnsupportedOp(f"{count} rows, more than {MAX_STEPS}: MXNet is much faster than steps")
    return count


def _product(onnx: OnnxModel, factors: tuple[Operand, Operand], alpha: float, dtype: str) -> str:
    product = onnx.op("MatMul", *factors)
    return product if alpha == 1 else onnx.op("Mul", product, onnx.constant(alpha, dtype))


def _row(onnx: OnnxModel, a: Operand, i: int) -> str:
    return onnx.op("Slice", a, onnx.ints([i]), onnx.ints([i + 1]), onnx.ints([-2]))


def _column(onnx: OnnxModel, a: Operand, i: int) -> str:
    return onnx.op("Slice", a, onnx.ints([i]), onnx.ints([i + 1]), onnx.ints([-1]))


def _element(onnx: OnnxModel, a: Operand, i: int) -> str:
    """Return the element (i, i) as a (1, 1) matrix."""
    axes = onnx.ints([-2, -1])
    return onnx.op("Slice", a, onnx.ints([i, i]), onnx.ints([i + 1, i + 1]), axes)


def _substituted(onnx: OnnxModel, a: Value, right: Value, lower: bool) -> str:
    """Solve ``a x = right`` for a triangular matrix."""
    count = few_rows(onnx, a)
    if count is None:
        return factorization.substituted(onnx, a, right, lower=lower)
    found: dict[int, str] = {}
    b: Operand = right
    for i in range(count) if lower else reversed(range(count)):
        found[i] = onnx.op("Div", _row(onnx, b, i), _element(onnx, a, i))
        if len(found) < count:
            b = onnx.op("Sub", b, onnx.op("Mul", _column(onnx, a, i), found[i]))
    return onnx.op("Concat", *(found[i] for i in range(count)), axis=-2)


def _eliminated(
    onnx: OnnxModel, a: Value, b: Operand, count: int
) -> tuple[list[str], list[str], Operand]:
    """Reduce `a` to the identity, each time with the largest pivot of the column.

    Returns the pivots, the sign of each swap of rows, and the solution of ``a x = b``.
    """
    rows = np.arange(count).reshape(-1, 1)
    zero, one, minus_one = (onnx.constant(number, a.dtype) for number in (0, 1, -1))
    left: Operand = a
    pivots, signs = [], []
    for i in range(count):
        sizes = onnx.op("Abs", _column(onnx, left, i))
        candidates = onnx.op("Where", onnx.constant(rows >= i, "bool"), sizes, minus_one)
        best = onnx.op("ArgMax", candidates, axis=-2, keepdims=1)
        signs.append(onnx.op("Where", _equal(onnx, best, i), one, minus_one))
        there = onnx.op("Equal", onnx.constant(rows, "int64"), best)
        left = _swapped(onnx, left, i, there, rows == i, a.dtype)
        pivots.append(_element(onnx, left, i))
        divisor = onnx.op("Where", onnx.op("Equal", pivots[-1], zero), one, pivots[-1])
        factors = _column(onnx, left, i)
        left = _cleared(onnx, left, i, divisor, factors, rows == i)
        if b is not None:
            b = _swapped(onnx, b, i, there, rows == i, a.dtype)
            b = _cleared(onnx, b, i, divisor, factors, rows == i)
    return pivots, signs, b


def _equal(onnx: OnnxModel, index: str, i: int) -> str:
    return onnx.op("Equal", index, onnx.constant(i, "int64"))


def _swapped(onnx: OnnxModel, a: Operand, i: int, there: str, here: Marks, dtype: str) -> str:
    """Swap the row `i` with the one that `there` marks."""
    chosen = onnx.op("Where", there, a, onnx.constant(0, dtype))
    other = onnx.op("ReduceSum", chosen, onnx.ints([-2]), keepdims=1)
    mixed = onnx.op("Where", onnx.constant(here, "bool"), other, a)
    return onnx.op("Where", there, _row(onnx, a, i), mixed)


def _cleared(onnx: OnnxModel, a: Operand, i: int, divisor: str, factors: str, here: Marks) -> str:
    """Divide the row `i` and subtract its multiples from all other rows."""
    row = onnx.op("Div", _row(onnx, a, i), divisor)
    others = onnx.op("Sub", a, onnx.op("Mul", factors, row))
    return onnx.op("Where", onnx.constant(here, "bool"), row, others)


def _householder(onnx: OnnxModel, row: str, i: int, columns: int, dtype: str) -> tuple[str, str]:
    """Return the vector that mirrors the row's tail onto its element `i`, and 2 / its square."""
    index = np.arange(columns)
    marks = onnx.constant(index > i, "bool"), onnx.constant(index == i, "bool")
    return householder(onnx, row, _column(onnx, row, i), marks, dtype)


def _reflected(onnx: OnnxModel, a: Operand, vector: str, factor: str, rank: int) -> str:
    """Mirror the rows of `a` at the plane that `vector` stands on."""
    along = onnx.op("MatMul", a, matrix_transpose(onnx, vector, rank))
    shift = onnx.op("Mul", onnx.op("Mul", along, factor), vector)
    return onnx.op("Sub", a, shift)
