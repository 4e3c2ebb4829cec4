"""Sorting, the largest elements, and histograms.

MXNet sorts without regard to the order of equal elements; ONNX puts the first of them first.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import known_shape, shape_vector, size_vector
from .elementwise import FLOATS


@converts("topk")
def topk(
    onnx: OnnxModel,
    x: Value,
    *,
    axis: int | None = -1,
    k: int = 1,
    ret_typ: str = "indices",
    is_ascend: bool = False,
    dtype: str = "float32",
) -> str | tuple[str, str]:
    """``topk`` -> ``TopK``; a mask is 1 scattered to where its indices say.

    Special numbers: equal ones, and NaN, stand in another order than in MXNet.
    """
    values, indices = _sorted(onnx, x, axis, k, is_ascend)
    if ret_typ == "value":
        return values
    if ret_typ == "mask":
        return _mask(onnx, x, axis, indices)
    as_numbers = onnx.cast(indices, dtype)
    return (values, as_numbers) if ret_typ == "both" else as_numbers


@converts("sort")
def sort(onnx: OnnxModel, x: Value, *, axis: int | None = -1, is_ascend: bool = True) -> str:
    """``sort`` -> the values of ``TopK`` of all elements.

    Special numbers: NaN stands at other places than in MXNet.
    """
    return _sorted(onnx, x, axis, 0, is_ascend)[0]


@converts("argsort")
def argsort(
    onnx: OnnxModel,
    x: Value,
    *,
    axis: int | None = -1,
    is_ascend: bool = True,
    dtype: str = "float32",
) -> str:
    """``argsort`` -> the indices of ``TopK`` of all elements.

    Special numbers: equal ones, and NaN, stand in another order than in MXNet.
    """
    return onnx.cast(_sorted(onnx, x, axis, 0, is_ascend)[1], dtype)


def _sorted(
    onnx: OnnxModel, x: Value, axis: int | None, k: int, is_ascend: bool
) -> tuple[str, str]:
    """Return the first `k` values of each row and where they stood; all of them if `k` < 1."""
    data: Operand = x
    if axis is None:
        data = onnx.op("Reshape", x, onnx.ints([-1]))
    if k > 0:
        count = onnx.ints([k])
    elif axis is None:
        count = _product(onnx, x)
    else:
        count = size_vector(onnx, x, axis)
    values, indices = onnx.ops(
        "TopK",
        data,
        count,
        outputs=2,
        axis=-1 if axis is None else axis,
        largest=int(not is_ascend),
    )
    return values, indices


def _product(onnx: OnnxModel, x: Value) -> str:
    """Return how many elements `x` has, as an int64 vector."""
    if x.shape is not None and None not in x.shape:
        return onnx.ints([prod(known_shape(x))])
    return onnx.op("ReduceProd", onnx.op("Shape", x), axes=[0])


def _mask(onnx: OnnxModel, x: Value, axis: int | None, indices: str) -> str:
    shape = shape_vector(onnx, x)
    whole = shape if axis is not None else _product(onnx, x)
    zeros = onnx.op("Expand", onnx.constant(0, x.dtype), whole)
    ones = onnx.op("Expand", onnx.constant(1, x.dtype), onnx.op("Shape", indices))
    mask = onnx.op("ScatterElements", zeros, indices, ones, axis=0 if axis is None else axis)
    return mask if axis is not None else onnx.op("Reshape", mask, shape)


@converts("_histogram")
def histogram(
    onnx: OnnxModel,
    x: Value,
    bins: Value | None = None,
    *,
    bin_cnt: int | None = None,
    range: tuple[float, ...] | None = None,
) -> tuple[str, str]:
    """``_histogram`` -> each element compared with each bin's edges, counted with ``ReduceSum``."""
    column = onnx.op("Reshape", x, onnx.ints([-1, 1]))
    if bins is None:
        return _equal_bins(onnx, column, x.dtype, bin_cnt, range)
    lower = onnx.op("Slice", bins, onnx.ints([0]), onnx.ints([-1]))
    upper = onnx.op("Slice", bins, onnx.ints([1]), onnx.ints([np.iinfo("int64").max]))
    last = onnx.op("Slice", bins, onnx.ints([-1]), onnx.ints([np.iinfo("int64").max]))
    is_last = onnx.op("Equal", upper, last)  # the last bin has its upper edge too
    below = onnx.op(
        "Or",
        onnx.op("Less", column, upper),
        onnx.op("And", is_last, onnx.op("Equal", column, upper)),
    )
    return _count(onnx, column, lower, below), onnx.op("Identity", bins)


def _equal_bins(
    onnx: OnnxModel, column: str, dtype: str, count: int | None, limits: tuple[float, ...] | None
) -> tuple[str, str]:
    if count is None or limits is None:
        raise UnsupportedOp("neither bins nor both of bin_cnt and range are given")
    low, high = limits
    if dtype not in FLOATS and high - low < count:
        raise UnsupportedOp(
            f"bin_cnt={count} of range={limits} has bins narrower than 1 of {dtype}"
        )
    steps = np.arange(count + 1)
    edges = ((high * steps + (count - steps) * low) / count).astype(dtype)
    lower, upper = edges[:-1].copy(), edges[1:].copy()
    lower[0] = _within(edges[:1].reshape(()), low, 1)
    upper[-1] = _next(_within(edges[-1:].reshape(()), high, -1), 1)  # which is in the last bin
    below = onnx.op("Less", column, onnx.constant(upper, dtype))
    counts = _count(onnx, column, onnx.constant(lower, dtype), below)
    return counts, onnx.op("Identity", onnx.constant(edges, dtype))


def _count(onnx: OnnxModel, column: str, lower: str, below: str) -> str:
    inside = onnx.op("And", onnx.op("GreaterOrEqual", column, lower), below)
    return onnx.op("ReduceSum", onnx.cast(inside, "int64"), onnx.ints([0]), keepdims=0)


def _within(edge: np.ndarray[Any, Any], bound: float, inwards: int) -> np.ndarray[Any, Any]:
    """Return an edge, moved inwards if rounding has put it beyond its bound in float64."""
    return _next(edge, inwards) if (float(edge) - bound) * inwards < 0 else edge


def _next(number: np.ndarray[Any, Any], sign: int) -> np.ndarray[Any, Any]:
    """Return the next number of the same type, upwards or downwards."""
    if number.dtype.kind == "f":
        return np.asarray(np.nextafter(number, np.asarray(sign * np.inf, number.dtype)))
    return np.asarray(int(number) + sign).astype(number.dtype)
