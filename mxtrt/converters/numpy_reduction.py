"""Reductions as NumPy has them: to rank 0 when all axes go, in another type where one is named.

Of nothing MXNet makes a sum, a product and a mean of 0; ONNX's product is 1, its mean undefined.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import known_rank, normalized_axis, value_of
from .elementwise import FLOATS, as_type, from_float
from .reduction import reduce_axes


def reduced_axes(x: Value, axis: tuple[int, ...] | None) -> list[int] | None:
    """Return the axes that go, None for all of them; a number has none that could."""
    if axis is None:
        return [] if x.rank == 0 else None
    if not axis:
        return []
    if x.rank is None:
        return list(axis)
    return sorted(normalized_axis(a, x.rank) for a in axis)


def _refuse_initial(initial: float | None) -> None:
    if initial is not None:
        raise UnsupportedOp(f"initial={initial}: MXNet does not support a start either")


def _is_empty(x: Value, axes: list[int] | None) -> bool:
    """Say whether a size that goes is known to be 0."""
    return known_count(x, axes) == 0


# -- sums, products, means -------------------------------------------------------------------------


def _accumulation(
    op_type: str,
    onnx: OnnxModel,
    x: Value,
    *,
    axis: tuple[int, ...] | None = None,
    dtype: str | None = None,
    keepdims: bool = False,
    initial: float | None = None,
) -> str:
    """Return sums or products.

    Special numbers: MXNet's ``_np_sum`` of infinity is NaN.
    """
    _refuse_initial(initial)
    return accumulated(onnx, op_type, x, reduced_axes(x, axis), dtype, keepdims)


converts("_np_sum")(partial(_accumulation, "ReduceSum"))
converts("_np_prod")(partial(_accumulation, "ReduceProd"))


def accumulated(
    onnx: OnnxModel,
    op_type: str,
    x: Value,
    axes: list[int] | None,
    dtype: str | None,
    keepdims: bool,
) -> str:
    """Reduce in the type in which MXNet does it and return the type that is asked for."""
    result = dtype or ("int64" if x.dtype == "bool" else x.dtype)
    wide = _wide_type(x.dtype, result)
    operand = as_type(onnx, x, wide)
    if op_type == "ReduceProd" and _is_empty(x, axes):
        op_type = "ReduceSum"
    made = reduce_axes(onnx, op_type, operand, axes, keepdims)
    if op_type == "ReduceProd" and known_count(x, axes) is None:
        something = onnx.cast(onnx.op("Size", x), "bool")
        made = onnx.op("Where", something, made, onnx.constant(0, wide))
    if x.dtype == "int8":  # for which 32 bits are enough for MXNet
        made, wide = onnx.cast(made, "int32"), "int32"
    elif x.dtype == "uint8":
        made = onnx.op("Mod", made, onnx.constant(2**32, "int64"))
    if wide == result:
        return made
    if wide in FLOATS and result not in FLOATS:
        return from_float(onnx, made, result)
    return onnx.cast(made, result)


def _wide_type(dtype: str, result: str) -> str:
    """Return the type in which numbers of type `dtype` are added up to `result`."""
    if dtype not in FLOATS:
        return "int64"  # of int32 ONNX Runtime makes sums that stop at the largest number
    return max((t for t in (dtype, result) if t in FLOATS), key=lambda t: int(t[5:]))


@converts("_npi_mean")
def mean(
    onnx: OnnxModel,
    x: Value,
    *,
    axis: tuple[int, ...] | None = None,
    dtype: str | None = None,
    keepdims: bool = False,
    initial: float | None = None,
) -> str:
    """``_npi_mean`` -> ``ReduceMean``, of integers in float32; for integers a sum is divided.

    Special numbers: of infinity MXNet makes NaN.
    """
    _refuse_initial(initial)
    return mean_of(onnx, x, reduced_axes(x, axis), dtype, keepdims)


def mean_of(
    onnx: OnnxModel, x: Value, axes: list[int] | None, dtype: str | None, keepdims: bool
) -> str:
    """Return the mean in the type that is asked for, else in a float type."""
    result = dtype or (x.dtype if x.dtype in FLOATS else "float32")
    if _is_empty(x, axes):
        return accumulated(onnx, "ReduceSum", x, axes, result, keepdims)
    wide = result
    if result in FLOATS:
        wide = max(result, x.dtype if x.dtype in FLOATS else "float32", key=lambda t: int(t[5:]))
    if x.dtype in FLOATS and result in FLOATS:
        made = reduce_axes(onnx, "ReduceMean", as_type(onnx, x, wide), axes, keepdims)
    else:
        made = accumulated(onnx, "ReduceSum", x, axes, wide, keepdims)
        if wide != "bool":
            made = onnx.op("Div", made, count_of(onnx, x, made, axes, wide, nonzero=True))
    return made if wide == result else onnx.cast(made, result)


def known_count(x: Value, axes: list[int] | None) -> int | None:
    """Return how many numbers become one, None where a size is not known."""
    if x.shape is None:
        return None
    sizes = x.shape if axes is None else [x.shape[a] for a in axes]
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None


def count_of(
    onnx: OnnxModel,
    x: Value,
    reduced: str,
    axes: list[int] | None,
    dtype: str,
    less: int = 0,
    nonzero: bool = False,
) -> str:
    """Return how many numbers became one, minus `less`, as a number of type `dtype`.

    Integers are never 0, nor is what is `nonzero`: 1 takes its place. A process dies where MXNet
    divides integers by 0, and engines may follow it.
    """
    nonzero = nonzero or dtype not in FLOATS
    known = known_count(x, axes)
    if known is not None:
        number = np.asarray(known - less).astype(dtype)
        return onnx.constant(number if number or not nonzero else 1, dtype)
    one = onnx.constant(1, "int64")
    count = onnx.op("Div", onnx.op("Size", x), onnx.op("Max", onnx.op("Size", reduced), one))
    if less:
        count = onnx.op("Sub", count, onnx.constant(less, "int64"))
    if not nonzero:
        return onnx.cast(count, dtype)
    if dtype in {"int8", "uint8"}:  # in which 256 is 0
        count = onnx.cast(onnx.cast(count, dtype), "int64")
    is_zero = onnx.op("Equal", count, onnx.constant(0, "int64"))
    return onnx.cast(onnx.op("Where", is_zero, one, count), dtype)


def _spread(
    is_std: bool,
    onnx: OnnxModel,
    x: Value,
    *,
    axis: tuple[int, ...] | None = None,
    dtype: str | None = None,
    ddof: int = 0,
    keepdims: bool = False,
) -> str:
    """``_npi_var`` -> ``ReduceMean``, ``Mul`` and ``ReduceSum``, and ``Sqrt`` for ``_npi_std``.

    MXNet has the mean and the squares in the input's type, too.

    Special numbers: of squares that overflow MXNet makes NaN.
    """
    axes = reduced_axes(x, axis)
    result = dtype or x.dtype
    if result not in FLOATS and ddof and known_count(x, axes) in {None, ddof}:
        raise UnsupportedOp(f"ddof={ddof} may divide integers by 0")
    difference = onnx.op("Sub", x, mean_of(onnx, x, axes, x.dtype, keepdims=True))
    squares = value_of(onnx, onnx.op("Mul", difference, difference), x.shape, x.dtype)
    total = accumulated(onnx, "ReduceSum", squares, axes, result, keepdims)
    count = count_of(onnx, x, total, axes, result, ddof)
    variance = onnx.op("Div", total, count)
    if not is_std:
        return variance
    if result in FLOATS:
        return onnx.op("Sqrt", variance)
    return from_float(onnx, onnx.op("Sqrt", onnx.cast(variance, "float64")), result)


converts("_npi_var")(partial(_spread, False))
converts("_npi_std")(partial(_spread, True))


# -- extremes, truth, positions --------------------------------------------------------------------


def _extreme(
    op_type: str,
    onnx: OnnxModel,
    x: Value,
    *,
    axis: tuple[int, ...] | None = None,
    keepdims: bool = False,
    initial: float | None = None,
) -> str:
    """Return extremes.

    Special numbers: NaN may be left out; it is MXNet's result.
    """
    _refuse_initial(initial)
    operand = onnx.cast(x, "int32") if x.dtype == "bool" else x
    made = reduce_axes(onnx, op_type, operand, reduced_axes(x, axis), keepdims)
    return onnx.cast(made, "bool") if x.dtype == "bool" else made


converts("_np_max")(partial(_extreme, "ReduceMax"))
converts("_np_min")(partial(_extreme, "ReduceMin"))


def _truth(
    of_all: bool,
    onnx: OnnxModel,
    x: Value,
    *,
    axis: tuple[int, ...] | None = None,
    keepdims: bool = False,
) -> str:
    """Return whether all are true or any is: sums, for which nothing is all and not any."""
    flags = as_type(onnx, x, "bool")
    counted = onnx.cast(onnx.op("Not", flags) if of_all else flags, "int32")
    total = reduce_axes(onnx, "ReduceSum", counted, reduced_axes(x, axis), keepdims)
    found = onnx.cast(total, "bool")
    return onnx.op("Not", found) if of_all else found


converts("_np_all")(partial(_truth, True))
converts("_np_any")(partial(_truth, False))


def _position(
    op_type: str, onnx: OnnxModel, x: Value, *, axis: int | None = None, keepdims: bool = False
) -> str:
    """Return where extremes stand.

    Special numbers: NaN may be left out; MXNet says where it is.
    """
    operand: Operand = x
    if x.dtype == "int64":  # ONNX Runtime has no kernel, and other types have fewer digits
        return _position_by_sorting(op_type == "ArgMax", onnx, x, axis, keepdims)
    if x.dtype in {"int8", "uint8"}:
        operand = onnx.cast(x, "int32")
    if axis is not None and x.rank:
        return onnx.op(op_type, operand, axis=axis, keepdims=int(keepdims))
    row = onnx.op("Reshape", operand, onnx.ints([1, -1]))  # TensorRT needs two axes
    found = onnx.op(op_type, row, axis=1, keepdims=0)
    return onnx.op("Reshape", found, onnx.ints([1] * known_rank(x) if keepdims else []))


def _position_by_sorting(
    largest: bool, onnx: OnnxModel, x: Value, axis: int | None, keepdims: bool
) -> str:
    flat = axis is None or not x.rank
    data = onnx.op("Reshape", x, onnx.ints([-1])) if flat else x
    place = 0 if flat else axis
    _, found = onnx.ops("TopK", data, onnx.ints([1]), outputs=2, axis=place, largest=int(largest))
    if flat:
        return onnx.op("Reshape", found, onnx.ints([1] * known_rank(x) if keepdims else []))
    return found if keepdims else onnx.op("Squeeze", found, onnx.ints([place or 0]))


converts("_npi_argmax")(partial(_position, "ArgMax"))
converts("_npi_argmin")(partial(_position, "ArgMin"))


@converts("_np_cumsum")
def cumsum(onnx: OnnxModel, x: Value, *, axis: int | None = None, dtype: str | None = None) -> str:
    """``_np_cumsum`` -> ``CumSum``, of the flattened input when there is no axis."""
    result = dtype or ("int64" if x.dtype == "bool" else x.dtype)
    wide = {"int8": "int32", "uint8": "int32", "float16": "float32"}.get(result, result)
    cut = x.dtype in FLOATS and result not in FLOATS
    operand: Operand = onnx.cast(x, result) if cut and wide == result else x
    if cut and wide != result:
        operand = onnx.cast(from_float(onnx, onnx.op("Identity", x), result), wide)
    elif not cut:
        operand = as_type(onnx, x, wide)
    if axis is None:
        operand = onnx.op("Reshape", operand, onnx.ints([-1]))
    made = onnx.op("CumSum", operand, onnx.constant(axis or 0, "int64"))
    return made if wide == result else onnx.cast(made, result)
