"""Arrays made of nothing, or of another array's shape: zeros, ones, ranges."""

from __future__ import annotations

import math
from typing import Any

import mxnet as mx
import numpy as np

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel
from ..registry import converts
from . import known_rank, known_size, normalized_axis, shape_vector, size_vector


def filled(onnx: OnnxModel, value: float, dtype: str, shape: str) -> str:
    """Return an array of one value, whose shape the int64 vector `shape` holds."""
    return onnx.op("Expand", onnx.constant(as_dtype(value, dtype), dtype), shape)


def as_dtype(value: float, dtype: str) -> Any:
    """Return `value` in `dtype` as C converts a double: integers are truncated and wrap around."""
    number = np.float64(value)
    return (number.astype(np.int64) if np.dtype(dtype).kind in "iu" else number).astype(dtype)


@converts("_zeros")
def zeros(onnx: OnnxModel, *, shape: tuple[int, ...] = (), dtype: str | None = None) -> str:
    """``_zeros`` -> ``Expand`` of a 0."""
    return _constant_array(onnx, 0, shape, dtype)


@converts("_ones")
def ones(onnx: OnnxModel, *, shape: tuple[int, ...] = (), dtype: str | None = None) -> str:
    """``_ones`` -> ``Expand`` of a 1."""
    return _constant_array(onnx, 1, shape, dtype)


@converts("_full")
def full(
    onnx: OnnxModel, *, value: float, shape: tuple[int, ...] = (), dtype: str | None = None
) -> str:
    """``_full`` -> ``Expand`` of the value."""
    return _constant_array(onnx, value, shape, dtype)


def _constant_array(
    onnx: OnnxModel, value: float, shape: tuple[int, ...], dtype: str | None
) -> str:
    numpy_shape = mx.util.is_np_shape()
    if -1 in shape or (not numpy_shape and (0 in shape or not shape)):
        raise UnsupportedOp(f"shape={shape} leaves sizes to what reads the output")
    return filled(onnx, value, element_type(dtype), onnx.ints(shape))


def element_type(dtype: str | None) -> str:
    """Return the dtype of a new array: float32 when nothing is said."""
    if dtype == "bfloat16":
        raise UnsupportedOp("dtype='bfloat16' is a type that the engines do not have")
    return dtype or "float32"


@converts("zeros_like")
def zeros_like(onnx: OnnxModel, x: Value, *, dtype: str | None = None) -> str:
    """``zeros_like`` -> ``Expand`` of a 0. MXNet takes a dtype, and keeps the input's."""
    return filled(onnx, 0, x.dtype, shape_vector(onnx, x))


@converts("ones_like")
def ones_like(onnx: OnnxModel, x: Value, *, dtype: str | None = None) -> str:
    """``ones_like`` -> ``Expand`` of a 1. MXNet takes a dtype, and keeps the input's."""
    return filled(onnx, 1, x.dtype, shape_vector(onnx, x))


@converts("_arange")
def arange(
    onnx: OnnxModel,
    *,
    start: float,
    stop: float | None = None,
    step: float = 1.0,
    repeat: int = 1,
    infer_range: bool = False,
    dtype: str | None = None,
) -> str:
    """``_arange`` -> a constant."""
    if infer_range and stop is None:
        raise UnsupportedOp(
            "infer_range=True without a stop leaves the length to what reads the output"
        )
    first, end = (0.0, start) if stop is None else (start, stop)
    count = math.ceil((end - first) / step) * repeat
    kind = element_type(dtype)
    return onnx.constant(_range(first, step, repeat, count, kind), kind)


def _range(start: float, step: float, repeat: int, count: int, dtype: str) -> Any:
    """Return MXNet's range; it truncates start and step for all types but float32 and float64."""
    steps = np.arange(count) // repeat
    if dtype in {"float32", "float64"}:
        kind = np.dtype(dtype).type
        return kind(start) + steps.astype(dtype) * kind(step)
    return (int(start) + steps * int(step)).astype(dtype)


@converts("_contrib_arange_like")
def arange_like(
    onnx: OnnxModel,
    x: Value,
    *,
    start: float = 0.0,
    step: float = 1.0,
    repeat: int = 1,
    axis: int | None = None,
) -> str:
    """``_contrib_arange_like`` -> a constant, or ``Range`` where sizes are not known."""
    if axis is None:
        count = onnx.op("Size", x)
    elif x.shape is None or x.shape[axis] is None:
        count = onnx.op("Squeeze", size_vector(onnx, x, axis), onnx.ints([0]))
    else:
        return onnx.constant(_range(start, step, repeat, known_size(x, axis), x.dtype), x.dtype)
    numbers = onnx.op("Range", onnx.constant(0, "int64"), count, onnx.constant(1, "int64"))
    if repeat != 1:
        numbers = onnx.op("Div", numbers, onnx.constant(repeat, "int64"))
    exact = x.dtype in {"float32", "float64"}
    if exact:
        numbers, kind = onnx.cast(numbers, x.dtype), x.dtype
    else:  # see _range
        start, step, kind = int(start), int(step), "int64"
    numbers = onnx.op("Mul", numbers, onnx.constant(step, kind))
    numbers = onnx.op("Add", numbers, onnx.constant(start, kind))
    if not exact:
        numbers = onnx.cast(numbers, x.dtype)
    return (
        numbers
        if axis is not None
        else onnx.op("Reshape", numbers, shape_vector(onnx, x), allowzero=1)
    )


def positions(onnx: OnnxModel, x: Value, axis: int, dtype: str) -> str:
    """Return the vector 0, 1, … of the places along an axis of `x`, in an integer type."""
    if x.shape is not None and x.shape[axis] is not None:
        return onnx.constant(range(known_size(x, axis)), dtype)
    size = onnx.op("Squeeze", size_vector(onnx, x, axis), onnx.ints([0]))
    numbers = onnx.op("Range", onnx.constant(0, "int64"), size, onnx.constant(1, "int64"))
    return numbers if dtype == "int64" else onnx.cast(numbers, dtype)


@converts("_contrib_index_array")
def index_array(onnx: OnnxModel, x: Value, *, axes: tuple[int, ...] | None = None) -> str:
    """``_contrib_index_array`` -> the places along each axis, expanded and joined."""
    rank = known_rank(x)
    if rank == 0:
        raise UnsupportedOp(f"{x.name!r} has no axes to count along")
    shape = onnx.op("Concat", shape_vector(onnx, x), onnx.ints([1]), axis=0)
    columns = []
    for axis in range(rank) if axes is None else axes:
        axis = normalized_axis(axis, rank)
        others = [i for i in range(rank + 1) if i != axis]
        places = onnx.op("Unsqueeze", positions(onnx, x, axis, "int64"), onnx.ints(others))
        columns.append(onnx.op("Expand", places, shape))
    return onnx.op("Concat", *columns, axis=-1)


@converts("_linspace")
def linspace(
    onnx: OnnxModel,
    *,
    start: float,
    stop: float,
    num: int,
    endpoint: bool = True,
    dtype: str | None = None,
) -> str:
    """``_linspace`` -> a constant."""
    kind = element_type(dtype)
    return onnx.constant(np.linspace(start, stop, num, endpoint).astype(kind), kind)


@converts("_eye")
def eye(onnx: OnnxModel, *, N: int, M: int = 0, k: int = 0, dtype: str | None = None) -> str:  # noqa: N803
    """``_eye`` -> a constant."""
    kind = element_type(dtype)
    return onnx.constant(np.eye(N, M or N, k), kind)
