"""Averages, percentiles and norms as NumPy has them."""

from __future__ import annotations

from math import isinf, nan

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import known_rank, may_be_empty, normalized_axis, refuse_empty, value_of
from .elementwise import FLOATS, as_type
from .numpy_reduction import accumulated, count_of, known_count, mean_of, reduced_axes
from .reduction import reduce_axes
from .shape import Size, reshaped, sizes_of
from .singular import singular_values


@converts("_npi_average")
def average(
    onnx: OnnxModel,
    x: Value,
    weights: Value | None = None,
    *,
    axis: tuple[int, ...] | None = None,
    returned: bool = False,
    weighted: bool = True,
) -> tuple[str, ...]:
    """``_npi_average`` -> ``ReduceMean``, or two ``ReduceSum``; with the sum of the weights.

    Special numbers: of infinity MXNet makes NaN.
    """
    found, scale = _average(onnx, x, weights, axis)
    return (found, scale) if returned else (found,)


def _average(
    onnx: OnnxModel, x: Value, weights: Value | None, axis: tuple[int, ...] | None
) -> tuple[str, str]:
    axes = reduced_axes(x, axis)
    if weights is None:
        if known_count(x, axes):
            found = mean_of(onnx, x, axes, x.dtype, keepdims=False)
            return found, count_of(onnx, x, found, axes, x.dtype)
        total = accumulated(onnx, "ReduceSum", x, axes, None, keepdims=False)
        scale = count_of(onnx, x, total, axes, x.dtype)
        return onnx.op("Div", total, scale), scale  # of no floats NaN, other than a mean
    factor: Operand = weights
    weight_axes = axes
    if weights.rank == 1 and axes is not None:  # along one axis
        behind = known_rank(x) - 1 - axes[0]
        weight_axes = None
        if behind:
            factor = onnx.op("Unsqueeze", weights, onnx.ints(range(1, behind + 1)))
    product = value_of(onnx, onnx.op("Mul", x, factor), x.shape, x.dtype)
    total = accumulated(onnx, "ReduceSum", product, axes, None, keepdims=False)
    scale = accumulated(onnx, "ReduceSum", weights, weight_axes, None, keepdims=False)
    return onnx.op("Div", total, _divisor(onnx, scale, x.dtype)), scale


def _divisor(onnx: OnnxModel, scale: str, dtype: str) -> str:
    """Return 1 in place of an integer 0, by which no process survives a division."""
    if dtype in FLOATS:
        return scale
    wide = "int64" if dtype == "int64" else "int32"
    number = scale if dtype == wide else onnx.cast(scale, wide)
    is_zero = onnx.op("Equal", number, onnx.constant(0, wide))
    found = onnx.op("Where", is_zero, onnx.constant(1, wide), number)
    return found if dtype == wide else onnx.cast(found, dtype)


@converts("_npi_percentile")
def percentile(
    onnx: OnnxModel,
    x: Value,
    q: Value | None = None,
    *,
    axis: tuple[int, ...] | None = None,
    interpolation: str = "linear",
    keepdims: bool = False,
    q_scalar: float | None = None,
) -> str:
    """``_npi_percentile`` -> ``TopK`` of all elements, ``Gather`` of one or two of them.

    Special numbers: NaN does not stand where MXNet's sorting leaves it; what is made of infinity
    alone, or by ``midpoint``, may be NaN in one of the two.
    """
    rank = known_rank(x)
    axes = reduced_axes(x, axis)
    gone = list(range(rank)) if axes is None else axes
    wide = "float64" if x.dtype == "float64" else "float32"
    ordered = _sorted_first(onnx, x, gone, wide)
    if may_be_empty(x, gone):  # NaN then, as in NumPy; MXNet reads the memory beside it
        ends = onnx.ints([*[0] * (rank - len(gone) + 1), 1, *[0] * (rank - len(gone))])
        ordered = onnx.op("Pad", ordered, ends, onnx.constant(nan, wide))
    place = _place(onnx, x, q, q_scalar, gone)
    q_rank = 0 if q is None else known_rank(q)
    found = _interpolated(
        onnx, ordered, place, interpolation, rank - len(gone) if q_rank else 0, wide
    )
    return onnx.op("Unsqueeze", found, onnx.ints(q_rank + a for a in gone)) if keepdims else found


def _sorted_first(onnx: OnnxModel, x: Value, gone: list[int], dtype: str) -> str:
    """Return `x` with some axes as one, the first, and sorted along it."""
    kept = [axis for axis in range(known_rank(x)) if axis not in gone]
    moved = onnx.op("Transpose", as_type(onnx, x, dtype), perm=[*gone, *kept])
    rows = reshaped(onnx, moved, [Size(x, tuple(gone)), *sizes_of(x, kept)], like=x, leading=0)
    count = Size(x, tuple(gone)).vector(onnx)
    return onnx.ops("TopK", rows, count, outputs=2, axis=0, largest=0)[0]


def _place(
    onnx: OnnxModel, x: Value, q: Value | None, q_scalar: float | None, gone: list[int]
) -> str:
    """Return where the percentiles stand among the sorted numbers, in float32 as MXNet does."""
    count = Size(x, tuple(gone)).number()
    if q is None and count is not None:
        return onnx.constant(float(q_scalar or 0) * (count - 1) / 100, "float32")
    wide = "float64" if q is None or q.dtype == "float64" else "float32"
    share = onnx.constant(q_scalar, wide) if q is None else as_type(onnx, q, wide)
    if count is not None:
        last = onnx.constant(count - 1, wide)
    else:
        number = onnx.op("Squeeze", Size(x, tuple(gone)).vector(onnx), onnx.ints([0]))
        last = onnx.cast(onnx.op("Sub", number, onnx.constant(1, "int64")), wide)
    place = onnx.op("Div", onnx.op("Mul", share, last), onnx.constant(100, wide))
    return place if wide == "float32" else onnx.cast(place, "float32")


def _interpolated(
    onnx: OnnxModel, ordered: str, place: str, interpolation: str, axes_behind: int, dtype: str
) -> str:
    """Return the elements at places between two; `axes_behind` follow those of the places."""
    if interpolation == "nearest":
        place = onnx.op("Floor", onnx.op("Add", place, onnx.constant(0.5, "float32")))
    below, above = onnx.op("Floor", place), onnx.op("Ceil", place)
    low, high = (onnx.op("Gather", ordered, onnx.cast(p, "int64"), axis=0) for p in (below, above))
    if interpolation in {"lower", "nearest"}:
        return low
    if interpolation == "higher":
        return high
    if interpolation == "midpoint":
        return onnx.op("Mul", onnx.op("Add", low, high), onnx.constant(0.5, dtype))
    share = onnx.op("Sub", place, below)
    if axes_behind:
        share = onnx.op("Unsqueeze", share, onnx.ints(range(1, axes_behind + 1)))
    if dtype != "float32":
        share = onnx.cast(share, dtype)
    rest = onnx.op("Sub", onnx.constant(1, dtype), share)
    # not low + (high - low) share, which is NaN between an infinite low and a finite high
    parts = onnx.op("Mul", low, rest), onnx.op("Mul", high, share)
    return onnx.op("Add", *parts)


# -- norms -----------------------------------------------------------------------------------------

SPECTRAL, NUCLEAR = 0, 2
"""How MXNet marks the norms that are made of singular values."""


@converts("_npi_norm")
def norm(
    onnx: OnnxModel,
    x: Value,
    *,
    ord: float = 2.0,
    axis: tuple[int, ...] | None = None,
    keepdims: bool = False,
    flag: int = -1,
) -> str:
    """``_npi_norm`` -> ``ReduceL2``, ``ReduceL1``, or the root of a sum of powers.

    Special numbers: of infinity MXNet makes NaN; squares of floats overflow, in MXNet they do not.
    """
    if x.dtype not in FLOATS:
        raise UnsupportedOp(f"of {x.dtype}: MXNet cuts each step of it off to an integer")
    if isinf(ord):
        raise UnsupportedOp(f"ord={ord}: MXNet leaves this norm to its front end")
    if x.rank == 0:
        return onnx.op("Abs", x)
    axes = reduced_axes(x, axis)
    along = list(range(known_rank(x))) if axes is None else axes
    is_matrix = flag == -1 and len(along) == 2
    if flag in {SPECTRAL, NUCLEAR} or (is_matrix and abs(ord) == 2):
        reduction = "ReduceMax" if ord > 0 else "ReduceMin"
        return _of_singular_values(
            onnx, x, axis or (0, 1), "ReduceSum" if flag == NUCLEAR else reduction, keepdims
        )
    if flag in {1, -2}:
        return reduce_axes(onnx, "ReduceL2", x, axes, keepdims)
    if is_matrix and abs(ord) == 1:
        rows, columns = axis or (0, 1)
        return _of_matrix(
            onnx, x, rows, columns, "ReduceMax" if ord == 1 else "ReduceMin", keepdims
        )
    if len(along) != 1:
        raise UnsupportedOp(f"ord={ord} of {len(along)} axes is no norm in NumPy")
    return _of_vector(onnx, x, ord, axes, keepdims)


def _of_matrix(
    onnx: OnnxModel, x: Value, rows: int, columns: int, extreme: str, keepdims: bool
) -> str:
    """Return the largest, or smallest, sum of a column's absolute values."""
    rank = known_rank(x)
    axes = [normalized_axis(rows, rank), normalized_axis(columns, rank)]
    sums = reduce_axes(onnx, "ReduceL1", x, axes[:1], keepdims=True)
    made = reduce_axes(onnx, extreme, sums, axes[1:], keepdims=True)
    return made if keepdims else onnx.op("Squeeze", made, onnx.ints(sorted(axes)))


def _of_singular_values(
    onnx: OnnxModel, x: Value, axis: tuple[int, ...], reduction: str, keepdims: bool
) -> str:
    """Return the largest, the smallest or the sum of the singular values of each matrix."""
    rank = known_rank(x)
    axes = [normalized_axis(a, rank) for a in axis]
    if len(axes) != 2:
        raise UnsupportedOp(f"axis={axis}: singular values are those of matrices")
    refuse_empty(x, axes[0])
    order = [*(a for a in range(rank) if a not in axes), *axes]
    shape = None if x.shape is None else tuple(x.shape[a] for a in order)
    moved = value_of(onnx, onnx.op("Transpose", x, perm=order), shape, x.dtype)
    values = singular_values(onnx, moved)
    made = reduce_axes(onnx, reduction, values, [rank - 2], keepdims=False)
    return onnx.op("Unsqueeze", made, onnx.ints(sorted(axes))) if keepdims else made


def _of_vector(
    onnx: OnnxModel, x: Value, order: float, axes: list[int] | None, keepdims: bool
) -> str:
    if order in {1, 2}:
        return reduce_axes(onnx, f"ReduceL{order:.0f}", x, axes, keepdims)
    zero = onnx.constant(0, x.dtype)
    nothing = onnx.op("Equal", x, zero)
    if order == 0:
        something = onnx.cast(onnx.op("Not", nothing), x.dtype)
        return reduce_axes(onnx, "ReduceSum", something, axes, keepdims)
    powers = onnx.op("Pow", onnx.op("Abs", x), onnx.constant(order, x.dtype))
    if order < 0:  # MXNet leaves zeros out
        powers = onnx.op("Where", nothing, zero, powers)
    total = reduce_axes(onnx, "ReduceSum", powers, axes, keepdims)
    return onnx.op("Pow", total, onnx.constant(1 / order, x.dtype))
