"""Sampling an image at given points, and comparing two images at shifted points."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import may_be_empty, shape_vector
from .image import length_of, ramp

INT64_MAX = 2**63 - 1


@converts("BilinearSampler")
def bilinear_sampler(onnx: OnnxModel, x: Value, grid: Value) -> str:
    """``BilinearSampler`` -> ``GridSample``."""
    return _sampled(onnx, x, grid)


@converts("SpatialTransformer")
def spatial_transformer(
    onnx: OnnxModel,
    x: Value,
    loc: Value,
    *,
    target_shape: tuple[int, ...] = (0, 0),
    transform_type: str,
    sampler_type: str,
) -> str:
    """``SpatialTransformer`` -> ``MatMul`` with a constant grid, ``GridSample``."""
    return _sampled(onnx, x, _affine_grid(onnx, loc, target_shape))


@converts("GridGenerator")
def grid_generator(
    onnx: OnnxModel, x: Value, *, transform_type: str, target_shape: tuple[int, ...] = (0, 0)
) -> str:
    """``GridGenerator`` -> ``MatMul`` with a constant grid; a flow is added to one."""
    if transform_type == "affine":
        return _affine_grid(onnx, x, target_shape)
    across, down = (_warped(onnx, x, channel) for channel in (0, 1))
    return onnx.op("Concat", across, down, axis=1)


def _affine_grid(onnx: OnnxModel, loc: Value, target_shape: tuple[int, ...]) -> str:
    height, width = target_shape
    down, across = np.meshgrid(_ends(height), _ends(width), indexing="ij")
    points = np.stack([across.ravel(), down.ravel(), np.ones(height * width)])
    matrices = onnx.op("Reshape", loc, onnx.ints([-1, 2, 3]))
    moved = onnx.op("MatMul", matrices, onnx.constant(points, loc.dtype))
    return onnx.op("Reshape", moved, onnx.ints([0, 2, height, width]))


def _ends(size: int) -> npt.NDArray[np.float64]:
    """Return the places of a row's pixels; a single one is at no place that MXNet computes."""
    return np.linspace(-1, 1, size) if size > 1 else np.full(size, np.nan)


def _warped(onnx: OnnxModel, flow: Value, channel: int) -> str:
    """Return where a channel of the flow points to, from -1 to 1 over the image."""
    shift = onnx.op("Slice", flow, *(onnx.ints([n]) for n in (channel, channel + 1, 1)))
    length = length_of(onnx, flow, 3 - channel)
    index = onnx.cast(ramp(onnx, length), flow.dtype)
    if channel == 1:
        index = onnx.op("Unsqueeze", index, onnx.ints([1]))
    if isinstance(length, int):
        half: Operand = onnx.constant([(length - 1) / 2], flow.dtype)
    else:
        last = onnx.cast(onnx.op("Sub", length, onnx.ints([1])), flow.dtype)
        half = onnx.op("Mul", last, onnx.constant(0.5, flow.dtype))
    scaled = onnx.op("Div", onnx.op("Add", shift, index), half)
    return onnx.op("Sub", scaled, onnx.constant(1, flow.dtype))


def _sampled(onnx: OnnxModel, x: Value, grid: Operand) -> str:
    data = _with_a_pixel(onnx, x) if may_be_empty(x, (2, 3)) else x
    points = onnx.op("Transpose", grid, perm=[0, 2, 3, 1])
    attrs = {"mode": "bilinear", "padding_mode": "zeros", "align_corners": 1}
    made = onnx.op("GridSample", data, points, **attrs)
    # what is sampled at no number is none: ONNX Runtime takes the first pixel
    nowhere = onnx.op("ReduceSum", onnx.op("Sub", grid, grid), onnx.ints([1]), keepdims=1)
    return onnx.op("Add", made, nowhere)


def _with_a_pixel(onnx: OnnxModel, x: Value) -> str:
    """Return the images, of a black pixel where they have none: ONNX samples no empty ones."""
    sizes = onnx.op("Slice", shape_vector(onnx, x), onnx.ints([2]), onnx.ints([4]))
    missing = onnx.op("Max", onnx.op("Sub", onnx.ints([1]), sizes), onnx.ints([0]))
    pads = onnx.op("Concat", onnx.ints([0] * 6), missing, axis=0)
    return onnx.op("Pad", x, pads, onnx.constant(0, x.dtype))


@converts("Correlation")
def correlation(
    onnx: OnnxModel,
    a: Value,
    b: Value,
    *,
    kernel_size: int = 1,
    max_displacement: int = 1,
    stride1: int = 1,
    stride2: int = 1,
    pad_size: int = 0,
    is_multiply: bool = True,
) -> str:
    """``Correlation`` -> ``Mul``, ``ReduceMean`` for each shift; ``AveragePool`` over windows."""
    steps = max_displacement // stride2
    shifts = [stride2 * n for n in range(-steps, steps + 1)]
    one, other = (_bordered(onnx, x, pad_size) for x in (a, b))
    middle = _shifted(onnx, one, max_displacement, 0, 0)
    maps = []
    for down in shifts:
        for across in shifts:
            moved = _shifted(onnx, other, max_displacement, down, across)
            if is_multiply:
                difference = onnx.op("Mul", middle, moved)
            else:
                difference = onnx.op("Abs", onnx.op("Sub", middle, moved))
            maps.append(onnx.op("ReduceMean", difference, axes=[1], keepdims=1))
    made = onnx.op("Concat", *maps, axis=1)
    if kernel_size == stride1 == 1:
        return made
    window, stride = [kernel_size] * 2, [stride1] * 2
    return onnx.op("AveragePool", made, kernel_shape=window, strides=stride)


def _bordered(onnx: OnnxModel, x: Value, width: int) -> Operand:
    if width == 0:
        return x
    return onnx.op("Pad", x, onnx.ints([0, 0, width, width] * 2), onnx.constant(0, x.dtype))


def _shifted(onnx: OnnxModel, x: Operand, border: int, down: int, across: int) -> str:
    """Cut a border off, after moving the image."""
    starts = [border + down, border + across]
    ends = [shift - border or INT64_MAX for shift in (down, across)]
    return onnx.op("Slice", x, onnx.ints(starts), onnx.ints(ends), onnx.ints([2, 3]))
