"""Products of tensors and linear equations as NumPy has them."""

from __future__ import annotations

from collections.abc import Sequence

from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts, refuses
from . import known_rank, known_shape, normalized_axis, value_of
from .elementwise import FLOATS, as_type
from .linalg import inverse, potrf, solved
from .shape import Size, reshaped, sizes_of

refuses(
    "returns eigenvalues in the order in which LAPACK happens to find them, which no rule tells",
    "_npi_eig", "_npi_eigvals",
)  # fmt: skip


# -- products --------------------------------------------------------------------------------------


@converts("_npi_matmul")
def matmul(onnx: OnnxModel, a: Value, b: Value) -> str:
    """``_npi_matmul`` -> ``MatMul``."""
    return onnx.op("MatMul", a, b)


@converts("_np_dot")
def dot(onnx: OnnxModel, a: Value, b: Value) -> str:
    """``_np_dot`` -> ``MatMul``, or ``Mul`` by a number."""
    ranks = known_rank(a), known_rank(b)
    if 0 in ranks:
        return onnx.op("Mul", a, b)
    if ranks[1] <= 2 or ranks[0] == 1:
        return onnx.op("MatMul", a, b)
    return _contracted(onnx, a, b, [ranks[0] - 1], [ranks[1] - 2])


@converts("_npi_tensordot")
def tensordot(
    onnx: OnnxModel,
    a: Value,
    b: Value,
    *,
    a_axes_summed: tuple[int, ...],
    b_axes_summed: tuple[int, ...],
) -> str:
    """``_npi_tensordot`` -> ``MatMul`` of tensors that were reshaped to matrices."""
    return _contracted(
        onnx,
        a,
        b,
        [normalized_axis(axis, known_rank(a)) for axis in a_axes_summed],
        [normalized_axis(axis, known_rank(b)) for axis in b_axes_summed],
    )


@converts("_npi_tensordot_int_axes")
def tensordot_int_axes(onnx: OnnxModel, a: Value, b: Value, *, axes: int) -> str:
    """``_npi_tensordot_int_axes`` -> as ``_npi_tensordot``: the last axes and the first."""
    rank = known_rank(a)
    return _contracted(onnx, a, b, list(range(rank - axes, rank)), list(range(axes)))


def _contracted(onnx: OnnxModel, a: Value, b: Value, a_axes: list[int], b_axes: list[int]) -> str:
    """Sum the products of `a` and `b` along axes of both."""
    kept_a = [axis for axis in range(known_rank(a)) if axis not in a_axes]
    kept_b = [axis for axis in range(known_rank(b)) if axis not in b_axes]
    if not a_axes:
        column = onnx.op("Unsqueeze", a, onnx.ints(range(len(kept_a), len(kept_a) + len(kept_b))))
        return onnx.op("Mul", column if kept_b else a, b)
    summed = [Size(a, tuple(a_axes))], [Size(b, tuple(b_axes))]
    columns = [Size(b, tuple(kept_b))] if kept_b else []
    left = _arranged(onnx, a, [*kept_a, *a_axes], [*sizes_of(a, kept_a), *summed[0]])
    right = _arranged(onnx, b, [*b_axes, *kept_b], [*summed[1], *columns])
    product = onnx.op("MatMul", left, right)
    if len(kept_b) < 2:
        return product
    sizes = [*sizes_of(a, kept_a), *sizes_of(b, kept_b)]
    return reshaped(onnx, product, sizes, like=a, leading=_common(kept_a))


def _arranged(onnx: OnnxModel, x: Value, order: list[int], sizes: list[Size]) -> Operand:
    """Return `x` with its axes in another order and then in another shape, where that differs."""
    made: Operand = x
    if order != sorted(order):
        made = onnx.op("Transpose", x, perm=order)
    if len(sizes) == len(order):
        return made
    return reshaped(onnx, made, sizes, like=x, leading=_common(order))


def _common(order: Sequence[int]) -> int:
    """Return how many axes have kept their places."""
    return next((i for i, axis in enumerate(order) if axis != i), len(order))


@converts("_npi_einsum")
def einsum(onnx: OnnxModel, *xs: Value, subscripts: str = "", optimize: int = 0) -> str:
    """``_npi_einsum`` -> ``Einsum`` with every axis and the output's named."""
    terms, output = _terms(xs, subscripts.replace(" ", ""))
    if len(xs) == 1 and len({*terms[0]}) == len(terms[0]):
        return _sum_of_axes(onnx, xs[0], terms[0], output)
    equation = f"{','.join(terms)}->{output}"
    if xs[0].dtype in FLOATS or xs[0].dtype in {"int32", "int64"}:
        return onnx.op("Einsum", *xs, equation=equation)
    # sums of narrow integers wrap around when they are cut to their type; a sum of bools is true
    # where one product is
    product = onnx.op("Einsum", *(onnx.cast(x, "int32") for x in xs), equation=equation)
    return onnx.cast(product, xs[0].dtype)


def _sum_of_axes(onnx: OnnxModel, x: Value, term: str, output: str) -> str:
    """Sum along the axes that the output does not name; ONNX Runtime 1.23 fails in its Einsum."""
    wide = x.dtype if x.dtype in FLOATS else "int64"
    made = as_type(onnx, x, wide)
    gone = [axis for axis, letter in enumerate(term) if letter not in output]
    if gone:
        made = onnx.op("ReduceSum", made, onnx.ints(gone), keepdims=0)
    kept = [letter for letter in term if letter in output]
    order = [kept.index(letter) for letter in output]
    if order != sorted(order):
        made = onnx.op("Transpose", made, perm=order)
    return onnx.cast(made, x.dtype) if wide != x.dtype else onnx.op("Identity", made)


def _terms(xs: Sequence[Value], subscripts: str) -> tuple[list[str], str]:
    """Return the letters of each input's axes and of the output's, without dots."""
    left, arrow, output = subscripts.partition("->")
    terms = left.split(",")
    unused = [letter for letter in _LETTERS if letter not in subscripts]
    dots = 0
    for x, term in zip(xs, terms):
        if "..." in term:
            dots = max(dots, known_rank(x) - len(term.replace("...", "")))
    hidden = "".join(unused[:dots])
    if not arrow:
        letters = left.replace(",", "").replace(".", "")
        once = sorted(letter for letter in set(letters) if letters.count(letter) == 1)
        output = ("..." if "..." in left else "") + "".join(once)
    return [_without_dots(t, hidden, known_rank(x)) for x, t in zip(xs, terms)], output.replace(
        "...", hidden
    )


_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _without_dots(term: str, hidden: str, rank: int) -> str:
    """Put the last letters of `hidden` in place of dots, which broadcast from the last axis."""
    count = rank - len(term.replace("...", ""))
    return term.replace("...", hidden[len(hidden) - count :])


# -- equations -------------------------------------------------------------------------------------


@converts("_npi_cholesky")
def cholesky(onnx: OnnxModel, a: Value) -> str:
    """``_npi_cholesky`` -> column by column.

    Special numbers: NaN and infinity make NaN of other elements than in MXNet.
    """
    return potrf(onnx, a)


@converts("_npi_solve")
def solve(onnx: OnnxModel, a: Value, b: Value) -> str:
    """``_npi_solve`` -> Gauss's elimination, of integers in float64.

    Special numbers: NaN and infinity make NaN of other elements than in MXNet.
    """
    matrix = _floats(onnx, a)
    right = _as_type(onnx, b, matrix.dtype)
    if 0 in (*(a.shape or ()), *(b.shape or ())):
        return onnx.op("Identity", right)
    if known_rank(b) == known_rank(a):
        return solved(onnx, matrix, right)
    shape = None if right.shape is None else (*right.shape, 1)
    column = onnx.op("Unsqueeze", right, onnx.ints([-1]))
    found = solved(onnx, matrix, value_of(onnx, column, shape, right.dtype))
    return onnx.op("Squeeze", found, onnx.ints([-1]))


def _floats(onnx: OnnxModel, a: Value) -> Value:
    """Return a tensor of floats as it is and one of integers in float64, as MXNet solves them."""
    return _as_type(onnx, a, a.dtype if a.dtype in FLOATS else "float64")


def _as_type(onnx: OnnxModel, a: Value, dtype: str) -> Value:
    return a if a.dtype == dtype else value_of(onnx, onnx.cast(a, dtype), a.shape, dtype)


@converts("_npi_tensorinv")
def tensorinv(onnx: OnnxModel, a: Value, *, ind: int = 2) -> str:
    """``_npi_tensorinv`` -> the inverse of a matrix whose rows are the first `ind` axes.

    Special numbers: NaN and infinity make NaN of other elements than in MXNet.
    """
    rank = known_rank(a)
    found = inverse(onnx, _square(onnx, a, list(range(rank)), ind))
    return reshaped(onnx, found, sizes_of(a, [*range(ind, rank), *range(ind)]), a, leading=0)


@converts("_npi_tensorsolve")
def tensorsolve(onnx: OnnxModel, a: Value, b: Value, *, a_axes: tuple[int, ...] = ()) -> str:
    """``_npi_tensorsolve`` -> Gauss's elimination of a matrix whose rows are the axes of `b`.

    Special numbers: NaN and infinity make NaN of other elements than in MXNet.
    """
    rank = known_rank(a)
    moved = [normalized_axis(axis, rank) for axis in a_axes]
    order = [*(axis for axis in range(rank) if axis not in moved), *moved]
    rows = known_rank(b)
    a, b = _floats(onnx, a), _floats(onnx, b)
    sizes = sizes_of(a, order[rows:])
    if 0 in (a.shape or ()):
        return reshaped(onnx, b, sizes, a, leading=0)
    matrix = _square(onnx, a, order, rows)
    column = onnx.op("Reshape", b, onnx.ints([-1, 1]))
    size = None if matrix.shape is None else matrix.shape[0]
    found = solved(onnx, matrix, value_of(onnx, column, (size, 1), b.dtype))
    return reshaped(onnx, found, sizes, a, leading=0)


def _square(onnx: OnnxModel, a: Value, order: list[int], rows: int) -> Value:
    """Reshape a tensor to a matrix, as many axes in their new order to its rows."""
    if not onnx.leaves_mxnet:
        known_shape(a)
    sides = [Size(a, tuple(axes)) for axes in (order[:rows], order[rows:])]
    made: Operand = a if order == sorted(order) else onnx.op("Transpose", a, perm=order)
    matrix = reshaped(onnx, made, sides, a, leading=0)
    return value_of(onnx, matrix, tuple(side.number() for side in sides), a.dtype)
