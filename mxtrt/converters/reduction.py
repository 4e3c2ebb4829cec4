"""Reductions over axes: sums, products, extremes, norms and their positions.

A legacy MXNet tensor has at least one axis: what reduces all of them has the shape ``(1,)``.
"""

from __future__ import annotations

from functools import partial
from math import inf, nan

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import known_rank, may_be_empty, normalized_axis
from .elementwise import FLOATS, as_type


def reduced_axes(x: Value, axis: tuple[int, ...] | None, exclude: bool) -> list[int] | None:
    """Return the axes that MXNet reduces, sorted; None for all of them."""
    if not axis:  # then MXNet does not look at `exclude`
        return None
    rank = known_rank(x)
    named = {normalized_axis(a, rank) for a in axis}
    axes = sorted(set(range(rank)) - named) if exclude else sorted(named)
    return None if len(axes) == rank else axes


def reduce(
    onnx: OnnxModel, op_type: str, x: Operand, axes: list[int] | None, keepdims: bool
) -> str:
    """Reduce over `axes` with MXNet's shape: ``(1,)`` where all axes go."""
    made = reduce_axes(onnx, op_type, x, axes, keepdims)
    if keepdims or axes is not None:
        return made
    return onnx.op("Reshape", made, onnx.ints([1]))


def reduce_axes(
    onnx: OnnxModel, op_type: str, x: Operand, axes: list[int] | None, keepdims: bool
) -> str:
    """Reduce over `axes`, or over all, with NumPy's shape."""
    if axes == []:  # ONNX would reduce all
        return onnx.op("Identity", x)
    if op_type == "ReduceSum":
        given = None if axes is None else onnx.ints(axes)
        return onnx.op(op_type, x, given, keepdims=int(keepdims))
    return onnx.op(op_type, x, axes=axes, keepdims=int(keepdims))


def _reduction(
    op_type: str,
    onnx: OnnxModel,
    x: Value,
    *,
    axis: tuple[int, ...] | None = None,
    keepdims: bool = False,
    exclude: bool = False,
) -> str:
    """Return extremes.

    Special numbers: NaN may be left out; it is MXNet's result.
    """
    return reduce(onnx, op_type, x, reduced_axes(x, axis, exclude), keepdims)


converts("max")(partial(_reduction, "ReduceMax"))
converts("min")(partial(_reduction, "ReduceMin"))


def _accumulation(
    op_type: str,
    ignored: float | None,
    onnx: OnnxModel,
    x: Value,
    *,
    axis: tuple[int, ...] | None = None,
    keepdims: bool = False,
    exclude: bool = False,
) -> str:
    axes = reduced_axes(x, axis, exclude)
    operand = widened(onnx, x)
    if ignored is not None and x.dtype in FLOATS:
        nothing = onnx.constant(ignored, x.dtype)
        operand = onnx.op("Where", onnx.op("IsNaN", x), nothing, x)
    return narrowed(onnx, reduce(onnx, op_type, operand, axes, keepdims), x.dtype)


converts("sum")(partial(_accumulation, "ReduceSum", None))
converts("prod")(partial(_accumulation, "ReduceProd", None))
converts("nanprod")(partial(_accumulation, "ReduceProd", 1))


@converts("nansum")
def nansum(
    onnx: OnnxModel,
    x: Value,
    *,
    axis: tuple[int, ...] | None = None,
    keepdims: bool = False,
    exclude: bool = False,
) -> str:
    """``nansum`` -> ``ReduceSum`` of what is not NaN.

    Special numbers: of infinity MXNet makes NaN.
    """
    return _accumulation("ReduceSum", 0, onnx, x, axis=axis, keepdims=keepdims, exclude=exclude)


def widened(onnx: OnnxModel, x: Value) -> Operand:
    """Return `x` in a type that ONNX Runtime sums; `narrowed` lets sums wrap around as in MXNet."""
    return onnx.cast(x, "int32") if x.dtype in {"int8", "uint8"} else x


def narrowed(onnx: OnnxModel, reduced: str, dtype: str) -> str:
    """Return what `widened` numbers were reduced to in their type `dtype`."""
    return onnx.cast(reduced, dtype) if dtype in {"int8", "uint8"} else reduced


@converts("mean")
def mean(
    onnx: OnnxModel,
    x: Value,
    *,
    axis: tuple[int, ...] | None = None,
    keepdims: bool = False,
    exclude: bool = False,
) -> str:
    """``mean`` -> ``ReduceMean``; the sum of integers is divided as integers are."""
    axes = reduced_axes(x, axis, exclude)
    if x.dtype in FLOATS:
        return mean_of_any(onnx, x, axes, keepdims)
    total = narrowed(onnx, reduce(onnx, "ReduceSum", widened(onnx, x), axes, keepdims), x.dtype)
    count = onnx.op("Div", onnx.op("Size", x), onnx.op("Size", total))
    return onnx.op("Div", total, onnx.cast(count, x.dtype))


def mean_of_any(onnx: OnnxModel, x: Value, axes: list[int] | None, keepdims: bool) -> str:
    """Return the mean of floats, which is NaN of none; ONNX Runtime's is 0."""
    return nan_of_none(onnx, reduce(onnx, "ReduceMean", x, axes, keepdims), x, axes)


def nan_of_none(onnx: OnnxModel, made: str, x: Value, axes: list[int] | None) -> str:
    """Return the averages `made` over `axes` of `x`, NaN where there were no numbers."""
    if not may_be_empty(x, axes):
        return made
    dims = onnx.op("Shape", x)
    reduced = dims if axes is None else onnx.op("Gather", dims, onnx.ints(axes))
    count = onnx.op("ReduceProd", reduced, keepdims=0)
    is_none = onnx.op("Equal", count, onnx.constant(0, "int64"))
    return onnx.op("Where", is_none, onnx.constant(nan, x.dtype), made)


@converts("norm")
def norm(
    onnx: OnnxModel,
    x: Value,
    *,
    ord: int = 2,
    axis: tuple[int, ...] | None = None,
    out_dtype: str | None = None,
    keepdims: bool = False,
) -> str:
    """``norm`` -> ``ReduceL1`` or ``ReduceL2``.

    Special numbers: of infinity MXNet makes NaN; squares of floats overflow, in MXNet they do not.
    """
    if ord not in {1, 2}:
        raise UnsupportedOp(f"ord={ord}; MXNet has norms of order 1 and 2")
    if ord == 2 and x.dtype not in FLOATS:
        raise UnsupportedOp(f"ord=2 of {x.dtype}: MXNet cuts each step of it off to an integer")
    axes = reduced_axes(x, axis, exclude=False)
    dtype = out_dtype or x.dtype
    if dtype != x.dtype and not (dtype in FLOATS and x.dtype in FLOATS):
        raise UnsupportedOp(f"out_dtype={dtype!r} for {x.dtype}: MXNet does not compute it either")
    operand = widened(onnx, x) if dtype == x.dtype else onnx.cast(x, dtype)
    if dtype in FLOATS:
        return reduce(onnx, f"ReduceL{ord}", operand, axes, keepdims)
    # ONNX Runtime's ReduceL1 of integers stops at the largest, where MXNet's wraps around
    made = reduce(onnx, "ReduceSum", onnx.op("Abs", operand), axes, keepdims)
    return narrowed(onnx, made, dtype)


def _position(
    op_type: str, onnx: OnnxModel, x: Value, *, axis: int | None = None, keepdims: bool = False
) -> str:
    """Return where extremes stand.

    Special numbers: NaN may be left out; MXNet says where it is.
    """
    if axis is None or known_rank(x) == 1:
        row = onnx.op("Reshape", x, onnx.ints([1, -1]))  # TensorRT needs two axes
        found = onnx.op(op_type, row, axis=1, keepdims=0)
        if keepdims:
            found = onnx.op("Reshape", found, onnx.ints([1] * known_rank(x)))
    else:
        found = onnx.op(op_type, x, axis=axis, keepdims=int(keepdims))
    return onnx.cast(found, x.dtype)


converts("argmax")(partial(_position, "ArgMax"))
converts("argmin")(partial(_position, "ArgMin"))


@converts("argmax_channel")
def argmax_channel(onnx: OnnxModel, x: Value) -> str:
    """``argmax_channel`` -> ``ArgMax`` over axis 1.

    Special numbers: NaN may be left out; MXNet says where it is.
    """
    return onnx.cast(onnx.op("ArgMax", x, axis=1, keepdims=0), x.dtype)


@converts("multi_sum_sq")
def multi_sum_sq(onnx: OnnxModel, *values: Value, num_arrays: int) -> str:
    """``multi_sum_sq`` -> ``ReduceSumSquare`` of each tensor, in float32."""
    wide = (v if v.dtype == "float32" else onnx.cast(v, "float32") for v in values)
    return onnx.op(
        "Concat", *(reduce(onnx, "ReduceSumSquare", v, None, False) for v in wide), axis=0
    )


@converts("all_finite", "multi_all_finite")
def all_finite(
    onnx: OnnxModel, *values: Value, num_arrays: int = 1, init_output: bool = True
) -> str:
    """``all_finite`` -> ``ReduceMin`` of what is less than infinite."""
    if not init_output:
        raise UnsupportedOp("init_output=False combines with what the output's memory holds before")
    if any(value.dtype not in FLOATS for value in values):
        raise UnsupportedOp("MXNet asks floats alone whether they are finite")
    found = [_finite(onnx, value) for value in values]
    return found[0] if len(found) == 1 else onnx.op("Min", *found)


def _finite(onnx: OnnxModel, x: Value) -> str:
    dtype = "float16" if x.dtype == "float16" else "float32"  # in which MXNet asks for doubles
    size = onnx.op("Abs", as_type(onnx, x, dtype))
    finite = onnx.op("Less", size, onnx.constant(inf, dtype))  # NaN is not less
    return reduce(onnx, "ReduceMin", onnx.cast(finite, "float32"), None, False)
