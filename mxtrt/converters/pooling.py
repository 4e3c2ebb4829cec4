"""Pooling over one to three spatial axes.

MXNet's ``full`` convention rounds the number of windows up: for every size it is the ``valid``
one on data with ``stride - 1`` more behind it, and a known size says how much less will do. ONNX's
``ceil_mode`` is not used: it drops windows that start past the data, and the versions of ONNX
Runtime disagree about what an average is divided by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import known_rank
from .convolution import channels_first, channels_last_again, spatial_sizes

GLOBAL_POOLS = {"max": "GlobalMaxPool", "avg": "GlobalAveragePool"}
POOL_TYPES = {"max", "avg", "sum", "lp"}


@dataclass(frozen=True)
class _Windows:
    """Where the windows lie: `pad` on both sides of the data, `overhang` more behind it."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    overhang: tuple[int, ...]

    @property
    def pads(self) -> list[int]:
        return [*self.pad, *(p + e for p, e in zip(self.pad, self.overhang))]

    def may_be_empty(self) -> bool:
        """Say whether a window may hold pads only, which ONNX does not allow."""
        return any(pad >= k for pad, k in zip(self.pads, self.kernel * 2))


@converts("Pooling")
def pooling(
    onnx: OnnxModel,
    x: Value,
    *,
    kernel: tuple[int, ...] = (),
    pool_type: str = "max",
    global_pool: bool = False,
    pooling_convention: str = "valid",
    stride: tuple[int, ...] = (),
    pad: tuple[int, ...] = (),
    p_value: int | None = None,
    count_include_pad: bool | None = None,
    layout: str | None = None,
) -> str:
    """``Pooling`` -> ``MaxPool`` or ``AveragePool``, a sum being an average times its window.

    Special numbers: MXNet leaves NaN out of a maximum, and its least maximum is a finite number.
    """
    if pool_type not in POOL_TYPES:
        raise UnsupportedOp(f"pool_type={pool_type!r} is none of {', '.join(sorted(POOL_TYPES))}")
    data = channels_first(onnx, x, layout)
    if pool_type == "lp":
        data = _power(onnx, data, p_value)
    if global_pool:
        made = _global_pool(onnx, data, x, pool_type, len(kernel))
    else:
        sizes = spatial_sizes(x, layout, len(kernel))
        windows = _windows(sizes, kernel, stride, pad, pooling_convention)
        if pool_type == "max":
            least = float(np.finfo(x.dtype).min)
            made = _max_pool(onnx, data, windows, x.dtype, of_nothing=least)
        elif pool_type == "avg":
            made = _average_pool(onnx, data, windows, x.dtype, count_include_pad is not False)
        else:
            average = _average_of_all(onnx, data, windows, x.dtype)
            made = _sum_of(onnx, average, windows, x.dtype)
    if pool_type == "lp":
        made = _root(onnx, made, p_value, x.dtype)
    return channels_last_again(onnx, made, layout)


@converts("Pooling_v1")
def pooling_v1(
    onnx: OnnxModel,
    x: Value,
    *,
    kernel: tuple[int, ...] = (),
    pool_type: str = "max",
    global_pool: bool = False,
    pooling_convention: str = "valid",
    stride: tuple[int, ...] = (),
    pad: tuple[int, ...] = (),
) -> str:
    """``Pooling_v1`` -> ``Pad`` with zeros, which it takes for data, then as ``Pooling``.

    Special numbers: NaN may be left out of a maximum; it is MXNet's result.
    """
    if global_pool:
        return _global_pool(onnx, x, x, pool_type, len(kernel))
    windows = _windows(spatial_sizes(x, None, len(kernel)), kernel, stride, pad, pooling_convention)
    data: Operand = x
    if any(windows.pad):
        data, _ = _pad(onnx, x, replace(windows, overhang=(0,) * len(kernel)), 0, x.dtype)
        windows = replace(windows, pad=(0,) * len(kernel))
    if pool_type == "max":
        return _max_pool(onnx, data, windows, x.dtype, of_nothing=-np.inf)
    average = _average_of_all(onnx, data, windows, x.dtype)
    return average if pool_type == "avg" else _sum_of(onnx, average, windows, x.dtype)


def _windows(
    sizes: Sequence[int | None],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    pad: tuple[int, ...],
    convention: str,
) -> _Windows:
    ones, none = (1,) * len(kernel), (0,) * len(kernel)
    stride = stride or ones
    if convention == "same":  # MXNet has no pad here; its windows start at the data
        return _Windows(kernel, stride, none, tuple(k - 1 for k in kernel))
    pad = pad or none
    if convention == "valid":
        return _Windows(kernel, stride, pad, none)
    overhang = tuple(
        s - 1 if size is None else -(size + 2 * p - k) % s
        for size, k, s, p in zip(sizes, kernel, stride, pad)
    )
    return _Windows(kernel, stride, pad, overhang)


def _max_pool(
    onnx: OnnxModel, data: Operand, windows: _Windows, dtype: str, of_nothing: float
) -> str:
    if windows.may_be_empty():
        data, windows = _pad(onnx, data, windows, of_nothing, dtype)
    return onnx.op(
        "MaxPool", data, kernel_shape=windows.kernel, strides=windows.stride, pads=windows.pads
    )


def _average_of_all(onnx: OnnxModel, data: Operand, windows: _Windows, dtype: str) -> str:
    """Divide every sum by the size of the whole window."""
    if windows.may_be_empty():
        data, windows = _pad(onnx, data, windows, 0, dtype)
    return _plain_average(onnx, data, windows, count_pads=True)


def _sum_of(onnx: OnnxModel, average: str, windows: _Windows, dtype: str) -> str:
    return onnx.op("Mul", average, onnx.constant(prod(windows.kernel), dtype))


def _average_pool(
    onnx: OnnxModel, data: Operand, windows: _Windows, dtype: str, count_pads: bool
) -> str:
    """Add an average; MXNet never counts the overhang, and the pads as `count_pads` says."""
    if windows.may_be_empty():
        return _average_of_few(onnx, data, windows, dtype, count_pads)
    if not any(windows.overhang):
        return _plain_average(onnx, data, windows, count_pads)
    if count_pads and any(windows.pad):
        none = (0,) * len(windows.pad)
        data, _ = _pad(onnx, data, replace(windows, overhang=none), 0, dtype)
        windows = replace(windows, pad=none)
    return _plain_average(onnx, data, windows, count_pads=False)


def _plain_average(onnx: OnnxModel, data: Operand, windows: _Windows, count_pads: bool) -> str:
    return onnx.op(
        "AveragePool",
        data,
        kernel_shape=windows.kernel,
        strides=windows.stride,
        pads=windows.pads,
        count_include_pad=int(count_pads and any(windows.pads)) or None,
    )


def _average_of_few(
    onnx: OnnxModel, data: Operand, windows: _Windows, dtype: str, count_pads: bool
) -> str:
    """Divide sums by counts, both padded explicitly; MXNet's average of nothing is 0."""
    none = (0,) * len(windows.pad)
    padded, plain = _pad(onnx, data, windows, 0, dtype)
    shape = onnx.op("Shape", data)
    ones = onnx.op("Expand", onnx.constant(1, dtype), shape)
    ones, _ = _pad(onnx, ones, replace(windows, overhang=none), int(count_pads), dtype)
    ones, _ = _pad(onnx, ones, replace(windows, pad=none), 0, dtype)
    counts = _plain_average(onnx, ones, plain, count_pads=False)
    least = onnx.constant(0.5 / prod(windows.kernel), dtype)
    sums = _plain_average(onnx, padded, plain, count_pads=False)
    return onnx.op("Div", sums, onnx.op("Max", counts, least))


def _pad(
    onnx: OnnxModel, data: Operand, windows: _Windows, value: float, dtype: str
) -> tuple[str, _Windows]:
    """Write the pads out as data; return it with the windows that lie on it."""
    near, far = np.split(np.array(windows.pads), 2)
    pads = onnx.ints([0, 0, *near, 0, 0, *far])
    padded = onnx.op("Pad", data, pads, onnx.constant(value, dtype))
    none = (0,) * len(windows.pad)
    return padded, replace(windows, pad=none, overhang=none)


def _global_pool(onnx: OnnxModel, data: Operand, x: Value, pool_type: str, kernel_axes: int) -> str:
    if x.dtype != "float64" and pool_type in GLOBAL_POOLS:
        return onnx.op(GLOBAL_POOLS[pool_type], data)
    axes = range(2, kernel_axes + 2 if kernel_axes else known_rank(x))
    if pool_type in GLOBAL_POOLS:  # ONNX Runtime has no kernel of those for float64
        reduce = "ReduceMax" if pool_type == "max" else "ReduceMean"
        return onnx.op(reduce, data, axes=list(axes), keepdims=1)
    return onnx.op("ReduceSum", data, onnx.ints(axes), keepdims=1)


def _power(onnx: OnnxModel, data: Operand, p_value: int | None) -> Operand:
    """Return the power of `data` that an ``lp`` pool sums; MXNet keeps the sign of odd ones."""
    if p_value == 1:
        return data
    square = onnx.op("Mul", data, data)
    return square if p_value == 2 else onnx.op("Mul", square, data)


def _root(onnx: OnnxModel, total: str, p_value: int | None, dtype: str) -> str:
    if p_value == 1:
        return total
    if p_value == 2:
        return onnx.op("Sqrt", total)
    third = onnx.op("Pow", onnx.op("Abs", total), onnx.constant(1 / 3, dtype))
    return onnx.op("Mul", onnx.op("Sign", total), third)
