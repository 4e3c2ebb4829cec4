"""Padding, cropping and resizing of images."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Union

import numpy as np

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import known_rank, known_size, may_be_empty, size_vector
from .convolution import deconvolution
from .indexing import sliced
from .reduction import nan_of_none
from .shape import Size, reshaped, sizes_of

Length = Union[int, str]
"""A size: a number, or the name of an int64 vector of one element that holds it at run time."""

ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": operator.floordiv,
    "Min": min,
}

FLOATS = {"float16", "float32", "float64"}

NEAREST = {
    "mode": "nearest",
    "coordinate_transformation_mode": "asymmetric",
    "nearest_mode": "floor",
}

LIGHT = np.array([55.46, 4.794, 1.148]) * [
    [-0.5675, 0.7192, 0.4009],
    [-0.5808, -0.0045, -0.8140],
    [-0.5836, -0.6948, 0.4203],
]
"""The principal colours of ImageNet that MXNet adds in `_image_adjust_lighting`."""


@converts("Pad")
def pad(
    onnx: OnnxModel,
    x: Value,
    *,
    mode: str,
    pad_width: tuple[int, ...],
    constant_value: float = 0.0,
) -> str:
    """``Pad`` -> ``Pad``."""
    pads = onnx.ints([*pad_width[::2], *pad_width[1::2]])
    value = onnx.constant(constant_value, x.dtype) if mode == "constant" else None
    return onnx.op("Pad", x, pads, value, mode=mode)


@converts("UpSampling")
def up_sampling(
    onnx: OnnxModel,
    *xs: Value,
    scale: int,
    num_filter: int = 0,
    sample_type: str,
    multi_input_mode: str = "concat",
) -> str:
    """``UpSampling`` -> ``Resize``; the bilinear one has a weight and is a ``ConvTranspose``."""
    if sample_type == "bilinear":
        kernel, border = 2 * scale - scale % 2, scale // 2
        return deconvolution(
            onnx,
            *xs,
            kernel=(kernel, kernel),
            stride=(scale, scale),
            pad=(border, border),
            num_filter=num_filter,
            num_group=num_filter,
        )
    repeated = [_repeated(onnx, x, xs[0], scale) for x in xs]
    if len(repeated) == 1:
        return repeated[0]
    if multi_input_mode == "sum":
        return onnx.op("Sum", *repeated)
    return onnx.op("Concat", *repeated, axis=1)


def _repeated(onnx: OnnxModel, x: Value, first: Value, scale: int) -> str:
    """Repeat the pixels of `x` until it is `scale` times as large as `first`."""
    if x is first:
        scales = onnx.constant([1, 1, scale, scale], "float32")
        return onnx.op("Resize", x, None, scales, **NEAREST)
    lengths = [calculate(onnx, "Mul", length_of(onnx, first, axis), scale) for axis in (2, 3)]
    return onnx.op("Resize", x, None, None, _image_shape(onnx, x, *lengths), **NEAREST)


@converts("_contrib_BilinearResize2D")
def bilinear_resize(
    onnx: OnnxModel,
    x: Value,
    like: Value | None = None,
    *,
    height: int = 1,
    width: int = 1,
    scale_height: float | None = None,
    scale_width: float | None = None,
    mode: str = "size",
    align_corners: bool = True,
) -> str:
    """``_contrib_BilinearResize2D`` -> ``Resize``.

    Special numbers: of infinity MXNet makes NaN of more neighbours.
    """
    wanted = ((height, scale_height), (width, scale_width))
    lengths: list[Length] = []
    for axis, (number, scale) in zip((2, 3), wanted):
        if mode == "like" and like is not None:
            lengths.append(length_of(onnx, like, axis))
        elif mode == "size" and scale is None:
            lengths.append(number)
        else:
            lengths.append(_resized(onnx, length_of(onnx, x, axis), mode, scale or 1.0))
    if align_corners:
        positions = "align_corners"
    elif all(isinstance(n, int) and n > 1 for n in lengths):
        positions = "half_pixel"
    else:  # an axis of one pixel reads the first one
        positions = "pytorch_half_pixel"
    shape = _image_shape(onnx, x, *lengths)
    attrs = {"mode": "linear", "coordinate_transformation_mode": positions}
    return onnx.op("Resize", x, None, None, shape, **attrs)


def _resized(onnx: OnnxModel, length: Length, mode: str, scale: float) -> Length:
    """Return the length that one of MXNet's modes makes of `length`."""
    if mode == "size":
        return _scaled(onnx, length, scale)
    halves = calculate(onnx, "Div", length, 2)
    odd = calculate(onnx, "Sub", length, calculate(onnx, "Mul", halves, 2))
    if mode == "odd_scale":
        even = calculate(onnx, "Sub", length, odd)
        return calculate(onnx, "Add", _scaled(onnx, even, scale), odd)
    if mode.startswith("to_odd"):
        odd = calculate(onnx, "Sub", 1, odd)
    return calculate(onnx, "Add" if mode.endswith("up") else "Sub", length, odd)


def _scaled(onnx: OnnxModel, length: Length, scale: float) -> Length:
    """Multiply in float32, as MXNet does, and cut the fraction off."""
    if isinstance(length, int):
        return int(np.float32(length) * np.float32(scale))
    product = onnx.op("Mul", onnx.cast(length, "float32"), onnx.constant(scale, "float32"))
    return onnx.cast(product, "int64")


@converts("_contrib_AdaptiveAvgPooling2D")
def adaptive_average_pool(onnx: OnnxModel, x: Value, *, output_size: tuple[int, ...] = ()) -> str:
    """``_contrib_AdaptiveAvgPooling2D`` -> ``AveragePool``; two ``MatMul`` for uneven windows.

    Special numbers: with uneven windows NaN and infinity make NaN beyond their own.
    """
    wanted = (output_size or (1,)) * (1 if len(output_size) == 2 else 2)
    if may_be_empty(x, (2, 3)):
        made = _average_of_windows(onnx, x, wanted)
        return nan_of_none(onnx, made, x, [2, 3])
    if set(wanted) == {1}:
        if x.dtype == "float64":  # for which ONNX Runtime has no GlobalAveragePool
            return onnx.op("ReduceMean", x, axes=[2, 3], keepdims=1)
        return onnx.op("GlobalAveragePool", x)
    sizes = [x.shape[axis] if x.shape is not None else None for axis in (2, 3)]
    if all(size is not None and size % n == 0 for size, n in zip(sizes, wanted)):
        steps = [size // n for size, n in zip(sizes, wanted) if size is not None]
        return onnx.op("AveragePool", x, kernel_shape=steps, strides=steps)
    return _average_of_windows(onnx, x, wanted)


def _average_of_windows(onnx: OnnxModel, x: Value, wanted: Sequence[int]) -> str:
    """Return the averages of windows of any size, and what is no number of empty ones."""
    if set(wanted) == {1}:
        return onnx.op("ReduceMean", x, axes=[2, 3], keepdims=1)
    rows, columns = (_averages(onnx, x, axis, n) for axis, n in zip((2, 3), wanted))
    by_columns = onnx.op("MatMul", x, onnx.op("Transpose", columns, perm=[1, 0]))
    return onnx.op("MatMul", rows, by_columns)


def _averages(onnx: OnnxModel, x: Value, axis: int, count: int) -> str:
    """Return the matrix (count, size of the axis) that averages `count` windows of the axis."""
    length = length_of(onnx, x, axis)
    first = np.arange(count).reshape(-1, 1)
    if isinstance(length, int):
        index = np.arange(length)
        window = (index >= first * length // count) & (index < -((first + 1) * -length // count))
        return onnx.constant(window / window.sum(1, keepdims=True), x.dtype)
    begin = onnx.op("Mul", onnx.constant(first, "int64"), length)
    start = onnx.op("Div", begin, onnx.ints([count]))
    behind = onnx.op("Add", begin, onnx.op("Add", length, onnx.ints([count - 1])))
    end = onnx.op("Div", behind, onnx.ints([count]))
    columns = ramp(onnx, length)
    after = onnx.op("GreaterOrEqual", columns, start)
    inside = onnx.cast(onnx.op("And", after, onnx.op("Less", columns, end)), x.dtype)
    return onnx.op("Div", inside, onnx.cast(onnx.op("Sub", end, start), x.dtype))


@converts("Crop")
def crop(
    onnx: OnnxModel,
    x: Value,
    like: Value | None = None,
    *,
    offset: tuple[int, ...] = (0, 0),
    h_w: tuple[int, ...] = (0, 0),
    center_crop: bool = False,
) -> str:
    """``Crop`` -> ``Slice``."""
    starts: list[Length] = []
    ends: list[Length] = []
    for axis, number, start in zip((2, 3), h_w, offset):
        length = number if like is None else length_of(onnx, like, axis)
        if center_crop:
            margin = calculate(onnx, "Sub", length_of(onnx, x, axis), length)
            starts.append(calculate(onnx, "Div", margin, 2))
        else:
            starts.append(start)
        ends.append(calculate(onnx, "Add", starts[-1], length))
    return onnx.op("Slice", x, vector(onnx, *starts), vector(onnx, *ends), onnx.ints([2, 3]))


@converts("depth_to_space")
def depth_to_space(onnx: OnnxModel, x: Value, *, block_size: int) -> str:
    """``depth_to_space`` -> ``DepthToSpace``; integers by ``Transpose``."""
    b = block_size
    if x.dtype not in {"int32", "int64"}:
        return onnx.op("DepthToSpace", x, blocksize=b, mode="DCR")
    depth = Size(x, (1,), divisor=b * b)
    batch, height, width = sizes_of(x, (0, 2, 3))
    blocks = [batch, Size(factor=b), Size(factor=b), depth, height, width]
    parts = onnx.op("Transpose", reshaped(onnx, x, blocks, x, 1), perm=[0, 3, 4, 1, 5, 2])
    sizes = [batch, depth, Size(x, (2,), factor=b), Size(x, (3,), factor=b)]
    return reshaped(onnx, parts, sizes, x, leading=1)


@converts("space_to_depth")
def space_to_depth(onnx: OnnxModel, x: Value, *, block_size: int) -> str:
    """``space_to_depth`` -> ``SpaceToDepth``; integers by ``Transpose``."""
    b = block_size
    if x.dtype not in {"int32", "int64"}:
        return onnx.op("SpaceToDepth", x, blocksize=b)
    height, width = Size(x, (2,), divisor=b), Size(x, (3,), divisor=b)
    leading = sizes_of(x, (0, 1))
    blocks = [*leading, height, Size(factor=b), width, Size(factor=b)]
    parts = onnx.op("Transpose", reshaped(onnx, x, blocks, x, 2), perm=[0, 3, 5, 1, 2, 4])
    sizes = [leading[0], Size(x, (1,), factor=b * b), height, width]
    return reshaped(onnx, parts, sizes, x, leading=1)


@converts("_image_to_tensor")
def image_to_tensor(onnx: OnnxModel, x: Value) -> str:
    """``_image_to_tensor`` -> ``Transpose``, ``Div`` by 255."""
    numbers = x if x.dtype == "float32" else onnx.cast(x, "float32")
    return onnx.op("Div", channels_first_image(onnx, numbers, x), onnx.constant(255, "float32"))


@converts("_image_normalize")
def image_normalize(
    onnx: OnnxModel,
    x: Value,
    *,
    mean: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0),
    std: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0),
) -> str:
    """``_image_normalize`` -> ``Sub``, ``Div`` for each channel; integers lose the fraction."""
    inner = x.dtype if x.dtype in FLOATS else "float32"
    numbers = x if inner == x.dtype else onnx.cast(x, inner)
    centred = onnx.op("Sub", numbers, _per_channel(onnx, x, mean, inner))
    made = onnx.op("Div", centred, _per_channel(onnx, x, std, inner))
    if inner == x.dtype:
        return made
    whole = onnx.cast(made, "int32")  # what is too large for 8 bits wraps around, as in MXNet
    return whole if x.dtype == "int32" else onnx.cast(whole, x.dtype)


def _per_channel(onnx: OnnxModel, x: Value, values: tuple[float, ...], dtype: str) -> str:
    if len(set(values)) == 1:
        return onnx.constant(values[0], dtype)
    size = x.shape[-3] if x.shape is not None else None
    values = values[:size]  # MXNet takes no images with fewer channels than means
    return onnx.constant([[[value]] for value in values], dtype)


@converts("_image_crop")
def image_crop(onnx: OnnxModel, image: Value, *, x: int, y: int, width: int, height: int) -> str:
    """``_image_crop`` -> ``Slice``."""
    starts, ends = onnx.ints([y, x]), onnx.ints([y + height, x + width])
    return onnx.op("Slice", image, starts, ends, onnx.ints([-3, -2]))


@converts("_image_flip_left_right")
def image_flip_left_right(onnx: OnnxModel, x: Value) -> str:
    """``_image_flip_left_right`` -> ``Slice`` backwards."""
    return sliced(onnx, x, {-2: (None, None, -1)})


@converts("_image_flip_top_bottom")
def image_flip_top_bottom(onnx: OnnxModel, x: Value) -> str:
    """``_image_flip_top_bottom`` -> ``Slice`` backwards."""
    return sliced(onnx, x, {-3: (None, None, -1)})


@converts("_image_adjust_lighting")
def image_adjust_lighting(onnx: OnnxModel, x: Value, *, alpha: tuple[float, ...]) -> str:
    """``_image_adjust_lighting`` -> ``Add`` of a constant colour; uint8 is cut at 0 and 255."""
    if known_size(x, -1) != 3:
        raise UnsupportedOp("MXNet adjusts images of three channels only")
    colour = onnx.constant(LIGHT @ np.array(alpha), "float32")
    if x.dtype == "float32":
        return onnx.op("Add", x, colour)
    made = onnx.op("Add", onnx.cast(x, "float32"), colour)
    if x.dtype == "uint8":
        made = onnx.op("Clip", made, *(onnx.constant(end, "float32") for end in (0, 255)))
    return onnx.cast(made, x.dtype)


def channels_first_image(onnx: OnnxModel, image: Operand, x: Value) -> str:
    """Put the channels of an image, or of a batch of images, in front."""
    return onnx.op("Transpose", image, perm=[2, 0, 1] if known_rank(x) == 3 else [0, 3, 1, 2])


def length_of(onnx: OnnxModel, x: Value, axis: int) -> Length:
    """Return the size of `x` along `axis`."""
    size = x.shape[axis] if x.shape is not None else None
    return size_vector(onnx, x, axis) if size is None else size


def calculate(onnx: OnnxModel, op_type: str, one: Length, other: Length) -> Length:
    """Do arithmetic: now on numbers, at run time on the rest."""
    if isinstance(one, int) and isinstance(other, int):
        return int(ARITHMETIC[op_type](one, other))
    return onnx.op(op_type, vector(onnx, one), vector(onnx, other))


def vector(onnx: OnnxModel, *lengths: Length) -> str:
    """Return an int64 vector of lengths."""
    numbers = [n for n in lengths if isinstance(n, int)]
    if len(numbers) == len(lengths):
        return onnx.ints(numbers)
    vectors = [onnx.ints([n]) if isinstance(n, int) else n for n in lengths]
    return vectors[0] if len(vectors) == 1 else onnx.op("Concat", *vectors, axis=0)


def ramp(onnx: OnnxModel, length: Length) -> str:
    """Return 0, 1, … below `length` as an int64 vector."""
    if isinstance(length, int):
        return onnx.ints(range(length))
    end = onnx.op("Squeeze", length, onnx.ints([0]))
    return onnx.op("Range", onnx.constant(0, "int64"), end, onnx.constant(1, "int64"))


def _image_shape(onnx: OnnxModel, x: Value, height: Length, width: Length) -> str:
    """Return the shape of `x` with another height and width."""
    return vector(onnx, length_of(onnx, x, 0), length_of(onnx, x, 1), height, width)
