"""Deformable convolution: a convolution whose samples are moved by predicted offsets.

Each kernel point reads the map through ``GridSample``; what they read is laid side by side as
channels, over which the convolution itself is one of kernel size 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import known_size, size_vector
from .suppression import positions


@dataclass(frozen=True)
class _Window:
    """A two-dimensional convolution's window; pairs are in y and in x."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilate: tuple[int, int]
    pad: tuple[int, int]
    groups: int  # of channels that share their offsets

    @property
    def points(self) -> int:
        return self.kernel[0] * self.kernel[1]


def _window(
    kernel: Sequence[int],
    stride: Sequence[int],
    dilate: Sequence[int],
    pad: Sequence[int],
    groups: int,
) -> _Window:
    if len(kernel) != 2:
        raise UnsupportedOp(f"kernel={tuple(kernel)}; deformable convolutions are in 2-D only")
    pairs = [(pair[0], pair[1]) for pair in (kernel, stride or (1, 1), dilate or (1, 1))]
    return _Window(pairs[0], pairs[1], pairs[2], (pad[0], pad[1]) if pad else (0, 0), groups)


@converts("_contrib_DeformableConvolution")
def deformable_convolution(
    onnx: OnnxModel,
    data: Value,
    offset: Value,
    weight: Value,
    bias: Value | None = None,
    *,
    kernel: tuple[int, ...],
    num_filter: int,
    stride: tuple[int, ...] = (),
    dilate: tuple[int, ...] = (),
    pad: tuple[int, ...] = (),
    num_group: int = 1,
    num_deformable_group: int = 1,
    no_bias: bool = False,
    layout: str | None = None,
) -> str:
    """``_contrib_DeformableConvolution`` -> ``GridSample`` and ``Conv``.

    A sample outside the map is 0; half a pixel inside it the border pixel goes on.

    Special numbers: of infinity MXNet makes NaN of more elements.
    """
    window = _window(kernel, stride, dilate, pad, num_deformable_group)
    dtype = _working_type(data)
    places = _places(onnx, offset, window, dtype)
    inside = []
    for axis, place in zip((2, 3), places):
        inside.append(onnx.op("GreaterOrEqual", place, onnx.constant(0, dtype)))
        inside.append(onnx.op("Less", place, _extent(onnx, data, axis, dtype)))
    counted = inside[0]
    for condition in inside[1:]:
        counted = onnx.op("And", counted, condition)
    counted = onnx.op("Unsqueeze", counted, onnx.ints([1]))
    samples = _samples(onnx, data, places, window, dtype, "border")
    samples = onnx.op("Where", counted, samples, onnx.constant(0, dtype))
    return _convolved(onnx, samples, offset, weight, bias, num_group, window)


@converts("_contrib_ModulatedDeformableConvolution")
def modulated_deformable_convolution(
    onnx: OnnxModel,
    data: Value,
    offset: Value,
    mask: Value,
    weight: Value,
    bias: Value | None = None,
    *,
    kernel: tuple[int, ...],
    num_filter: int,
    stride: tuple[int, ...] = (),
    dilate: tuple[int, ...] = (),
    pad: tuple[int, ...] = (),
    num_group: int = 1,
    num_deformable_group: int = 1,
    no_bias: bool = False,
    im2col_step: int = 64,  # how many images MXNet computes at a time
    layout: str | None = None,
) -> str:
    """``_contrib_ModulatedDeformableConvolution`` -> ``GridSample``, the mask, and ``Conv``.

    Special numbers: NaN and infinity, also as offsets, make NaN of other elements than in MXNet.
    """
    window = _window(kernel, stride, dilate, pad, num_deformable_group)
    dtype = _working_type(data)
    places = _places(onnx, offset, window, dtype)
    samples = _samples(onnx, data, places, window, dtype, "zeros")
    by_group = onnx.op("Reshape", mask, onnx.ints([0, window.groups, window.points, -1]))
    factors = onnx.op("Reshape", by_group, onnx.ints([-1, 1, window.points, 0]))
    samples = onnx.op("Mul", samples, _as_type(onnx, factors, mask.dtype, dtype))
    return _convolved(onnx, samples, offset, weight, bias, num_group, window)


def _working_type(data: Value) -> str:
    """Return the type of the samples' places: float16 cannot tell half pixels beyond 1,024."""
    return "float64" if data.dtype == "float64" else "float32"


def _as_type(onnx: OnnxModel, x: Operand, found: str, wanted: str) -> Operand:
    return x if found == wanted else onnx.cast(x, wanted)


def _extent(onnx: OnnxModel, data: Value, axis: int, dtype: str) -> str:
    size = data.shape[axis] if data.shape is not None else None
    if size is not None:
        return onnx.constant(size, dtype)
    found = onnx.op("Gather", onnx.op("Shape", data), onnx.constant(axis, "int64"))
    return onnx.cast(found, dtype)


def _places(onnx: OnnxModel, offset: Value, window: _Window, dtype: str) -> list[str]:
    """Return y and x of all samples: ``(batch * groups, kernel points, output pixels)``."""
    split = onnx.op("Reshape", offset, onnx.ints([0, window.groups * window.points, 2, -1]))
    by_group = onnx.op("Reshape", split, onnx.ints([-1, window.points, 2, 0]))
    moved = _as_type(onnx, by_group, offset.dtype, dtype)
    rows_and_cols = np.indices(window.kernel).reshape(2, -1, 1)
    output = onnx.op("Concat", *(size_vector(onnx, offset, axis) for axis in (2, 3)), axis=0)
    places = []
    for i, axis in enumerate((2, 3)):
        size = offset.shape[axis] if offset.shape is not None else None
        pixel = positions(onnx, offset, axis, size, dtype)
        pixel = onnx.op("Mul", pixel, onnx.constant(window.stride[i], dtype))
        if axis == 2:
            pixel = onnx.op("Unsqueeze", pixel, onnx.ints([1]))
        line = onnx.op("Reshape", onnx.op("Expand", pixel, output), onnx.ints([1, -1]))
        first = onnx.constant(rows_and_cols[i] * window.dilate[i] - window.pad[i], dtype)
        shift = onnx.op("Gather", moved, onnx.constant(i, "int64"), axis=2)
        places.append(onnx.op("Add", onnx.op("Add", line, first), shift))
    return places


def _samples(
    onnx: OnnxModel,
    data: Value,
    places: Sequence[str],
    window: _Window,
    dtype: str,
    padding_mode: str,
) -> str:
    """Return ``(batch * groups, channels of a group, kernel points, output pixels)``."""
    one, two = onnx.constant(1, dtype), onnx.constant(2, dtype)
    grid = []
    for axis, place in ((3, places[1]), (2, places[0])):
        middle = onnx.op("Add", onnx.op("Mul", place, two), one)
        ratio = onnx.op("Div", middle, _extent(onnx, data, axis, dtype))
        grid.append(onnx.op("Unsqueeze", onnx.op("Sub", ratio, one), onnx.ints([3])))
    maps: Operand = data
    if window.groups > 1:
        channels = known_size(data, 1) // window.groups
        maps = onnx.op("Reshape", data, onnx.ints([-1, channels, 0, 0]))
    return onnx.op(
        "GridSample",
        _as_type(onnx, maps, data.dtype, dtype),
        onnx.op("Concat", *grid, axis=3),
        mode="bilinear",
        padding_mode=padding_mode,
        align_corners=0,
    )


def _convolved(
    onnx: OnnxModel,
    samples: str,
    offset: Value,
    weight: Value,
    bias: Value | None,
    num_group: int,
    window: _Window,
) -> str:
    channels = known_size(weight, 1) * num_group * window.points
    shape = [size_vector(onnx, offset, axis) for axis in (2, 3)]
    target = onnx.op("Concat", onnx.ints([-1, channels]), *shape, axis=0)
    side_by_side: Operand = onnx.op("Reshape", samples, target)
    side_by_side = _as_type(onnx, side_by_side, _working_type(weight), weight.dtype)
    kernel = onnx.op("Reshape", weight, onnx.ints([0, -1, 1, 1]))
    return onnx.op("Conv", side_by_side, kernel, bias, group=num_group, kernel_shape=[1, 1])
