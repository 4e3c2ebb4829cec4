"""Pooling of regions of interest, which are rows ``(image, x1, y1, x2, y2)``.

ONNX has the largest value and the bilinear average of a region. The position-sensitive averages
are sums over the map whose weights are a product of one for the row and one for the column of a
pixel, so two multiplications with small matrices say them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import known_size, size_vector
from .suppression import as_float32, positions


@converts("ROIPooling")
def roi_pooling(
    onnx: OnnxModel, data: Value, rois: Value, *, pooled_size: tuple[int, ...], spatial_scale: float
) -> str:
    """``ROIPooling`` -> ``MaxRoiPool``.

    Special numbers: NaN may be left out of a maximum; it is MXNet's result; a region with NaN or
    infinity is an error.
    """
    scale = as_float32(spatial_scale)
    return onnx.op("MaxRoiPool", data, rois, pooled_shape=pooled_size, spatial_scale=scale)


@converts("_contrib_ROIAlign")
def roi_align(
    onnx: OnnxModel,
    data: Value,
    rois: Value,
    *,
    pooled_size: tuple[int, ...],
    spatial_scale: float,
    sample_ratio: int = -1,
    position_sensitive: bool = False,
    aligned: bool = False,
) -> str:
    """``_contrib_ROIAlign`` -> ``RoiAlign``; position-sensitive: of all channels, the bin's own."""
    height, width = pooled_size
    image = _column(onnx, rois, 0)
    boxes = onnx.op("Slice", rois, onnx.ints([1]), onnx.ints([5]), onnx.ints([1]))
    # image -1 means no region. MXNet leaves its output as it found it (and clears a wrong number);
    # here the region moves to where all maps are 0
    ignored = onnx.op("Less", image, onnx.constant(0, data.dtype))
    nowhere = onnx.constant([-30000, -30000, -29984, -29984], data.dtype)
    boxes = onnx.op("Where", onnx.op("Unsqueeze", ignored, onnx.ints([1])), nowhere, boxes)
    pooled = onnx.op(
        "RoiAlign",
        data,
        boxes,
        onnx.op("Max", onnx.cast(image, "int64"), onnx.constant(0, "int64")),
        output_height=height,
        output_width=width,
        sampling_ratio=max(sample_ratio, 0),
        spatial_scale=as_float32(spatial_scale),
        coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
    )
    if not position_sensitive:
        return pooled
    bins = height * width
    squares = onnx.op("Reshape", pooled, onnx.ints([0, -1, bins * bins]))
    own = onnx.op("Gather", squares, onnx.ints(range(0, bins * bins, bins + 1)), axis=2)
    return onnx.op("Reshape", own, onnx.ints([0, 0, height, width]))


def _column(onnx: OnnxModel, rois: Operand, index: int) -> str:
    return onnx.op("Gather", rois, onnx.constant(index, "int64"), axis=1)


@dataclass(frozen=True)
class _Weights:
    """How much each row or column of a map counts, for each bin and region.

    Attributes
    ----------
    weights : str
        ``(bins, pixels, regions)``.
    total : str
        ``(bins, regions)``: how many samples or pixels they stand for.
    """

    weights: str
    total: str


@converts("_contrib_PSROIPooling")
def psroi_pooling(
    onnx: OnnxModel,
    data: Value,
    rois: Value,
    *,
    spatial_scale: float,
    output_dim: int,
    pooled_size: int,
    group_size: int = 0,
) -> str:
    """``_contrib_PSROIPooling`` -> ``MatMul`` with the pixels of each bin.

    Special numbers: NaN and infinity make NaN of bins that do not touch them.
    """
    channels = _own_channels(output_dim, pooled_size, group_size or pooled_size, 1)
    sides = _sides(onnx, data, rois, spatial_scale, 0.0)
    by_row, by_col = (
        _pixels_of_bins(onnx, data, axis, *side, place, pooled_size)
        for axis, side, place in zip((2, 3), sides, _bins(pooled_size))
    )
    return _pooled(onnx, data, rois, channels, by_row, by_col, pooled_size)


def _bins(pooled_size: int) -> npt.NDArray[np.int64]:
    """Return row and column of each bin: ``(2, bins)``."""
    return np.indices((pooled_size, pooled_size)).reshape(2, -1)


def _own_channels(
    output_dim: int, pooled_size: int, group_size: int, num_classes: int
) -> npt.NDArray[np.int64]:
    """Return which channels each bin of each class reads: ``(classes * bins, channels)``."""
    row, col = np.clip(_bins(pooled_size) * group_size // pooled_size, 0, group_size - 1)
    out = np.arange(output_dim).reshape(num_classes, 1, -1)
    own = (out * group_size + row[:, None]) * group_size + col[:, None]
    return np.reshape(own, (-1, output_dim // num_classes))


def _sides(
    onnx: OnnxModel, data: Value, rois: Value, spatial_scale: float, shift: float
) -> list[tuple[str, str]]:
    """Return start and length of the regions, first in y, then in x, each ``(regions,)``."""
    dtype = data.dtype
    scale, one = onnx.constant(as_float32(spatial_scale), dtype), onnx.constant(1, dtype)
    sides = []
    for first, last in ((2, 4), (1, 3)):
        start = onnx.op("Mul", _rounded(onnx, _column(onnx, rois, first), dtype), scale)
        end = onnx.op("Add", _rounded(onnx, _column(onnx, rois, last), dtype), one)
        end = onnx.op("Mul", end, scale)
        if shift:
            start, end = (onnx.op("Sub", x, onnx.constant(shift, dtype)) for x in (start, end))
        least = onnx.constant(as_float32(0.1), dtype)
        sides.append((start, onnx.op("Max", onnx.op("Sub", end, start), least)))
    return sides


def _rounded(onnx: OnnxModel, x: str, dtype: str) -> str:
    """Round halves away from zero; ONNX's ``Round`` takes them to the even neighbour."""
    size = onnx.op("Abs", x)
    floor = onnx.op("Floor", size)
    rest = onnx.op("Sub", size, floor)
    up = onnx.cast(onnx.op("GreaterOrEqual", rest, onnx.constant(0.5, dtype)), dtype)
    return onnx.op("Mul", onnx.op("Sign", x), onnx.op("Add", floor, up))


def _column_of(onnx: OnnxModel, numbers: npt.ArrayLike, dtype: str) -> str:
    """Return constants that stand along the first of three axes."""
    return onnx.constant(np.reshape(numbers, (-1, 1, 1)), dtype)


def _pixels(onnx: OnnxModel, data: Value, axis: int) -> str:
    """Return 0, 1, … along an axis of the map as ``(pixels, 1)``."""
    size = data.shape[axis] if data.shape is not None else None
    place = positions(onnx, data, axis, size, data.dtype)
    return onnx.op("Unsqueeze", place, onnx.ints([1]))


def _pixels_of_bins(
    onnx: OnnxModel,
    data: Value,
    axis: int,
    start: str,
    length: str,
    bins: npt.NDArray[np.int64],
    pooled_size: int,
) -> _Weights:
    """Return 1 for each pixel that a bin touches."""
    dtype = data.dtype
    size = onnx.op("Div", length, onnx.constant(pooled_size, dtype))
    low, high = (
        onnx.op(op, onnx.op("Add", onnx.op("Mul", _column_of(onnx, place, dtype), size), start))
        for op, place in (("Floor", bins), ("Ceil", bins + 1))
    )
    pixel = _pixels(onnx, data, axis)
    touched = onnx.op("And", onnx.op("GreaterOrEqual", pixel, low), onnx.op("Less", pixel, high))
    weights = onnx.cast(touched, dtype)
    return _Weights(weights, onnx.op("ReduceSum", weights, onnx.ints([1]), keepdims=0))


def _pooled(
    onnx: OnnxModel,
    data: Value,
    rois: Value,
    channels: npt.NDArray[np.int64],
    by_row: _Weights,
    by_col: _Weights,
    pooled_size: int,
) -> str:
    """Return the weighted averages as ``(regions, channels, bins, bins)``.

    A number in the map that is not finite spoils its whole row and column of bins.
    """
    dtype = data.dtype
    axes = onnx.ints([1, 2])
    maps = onnx.op("Transpose", data, perm=[1, 0, 2, 3])
    own = onnx.op("Gather", maps, onnx.constant(channels, "int64"))
    lines = onnx.op("MatMul", own, onnx.op("Unsqueeze", by_col.weights, axes))
    weighted = onnx.op("Mul", lines, onnx.op("Unsqueeze", by_row.weights, axes))
    sums = onnx.op("ReduceSum", weighted, onnx.ints([3]), keepdims=0)
    batch = data.shape[0] if data.shape is not None else None
    if batch != 1:
        number = onnx.op("Unsqueeze", positions(onnx, data, 0, batch, "int64"), onnx.ints([1]))
        image = onnx.cast(_column(onnx, rois, 0), "int64")
        sums = onnx.op("Mul", sums, onnx.cast(onnx.op("Equal", number, image), dtype))
    sums = onnx.op("ReduceSum", sums, onnx.ints([2]), keepdims=0)
    total = onnx.op("Mul", by_row.total, by_col.total)
    total = onnx.op("Max", total, onnx.constant(1, dtype))  # a bin without any counts as 0
    averages = onnx.op("Div", sums, onnx.op("Unsqueeze", total, onnx.ints([1])))
    classes = len(channels) // pooled_size**2
    split = onnx.ints([classes, pooled_size**2, channels.shape[1], -1])
    by_region = onnx.op("Transpose", onnx.op("Reshape", averages, split), perm=[3, 0, 2, 1])
    shape = onnx.ints([0, classes * channels.shape[1], pooled_size, pooled_size])
    return onnx.op("Reshape", by_region, shape)


@converts("_contrib_DeformablePSROIPooling")
def deformable_psroi_pooling(
    onnx: OnnxModel,
    data: Value,
    rois: Value,
    trans: Value | None = None,
    *,
    spatial_scale: float,
    output_dim: int,
    group_size: int,
    pooled_size: int,
    part_size: int = 0,
    sample_per_part: int = 1,
    trans_std: float = 0.0,
    no_trans: bool = False,
) -> str:
    """``_contrib_DeformablePSROIPooling`` -> ``MatMul`` with the weights of its samples.

    Special numbers: NaN and infinity make NaN of bins that do not touch them.
    """
    classes = 1 if no_trans or trans is None else known_size(trans, 1) // 2
    channels = _own_channels(output_dim, pooled_size, group_size, classes)
    sides = _sides(onnx, data, rois, spatial_scale, 0.5)
    shifts: list[str | None] = [None, None]
    if not (no_trans or trans is None):
        part = part_size or pooled_size
        moved = onnx.op("Mul", trans, onnx.constant(as_float32(trans_std), data.dtype))
        shifts = _shifts(onnx, moved, classes, pooled_size, part)
    by_row, by_col = (
        _samples(
            onnx, data, axis, *side, np.tile(place, classes), shift, pooled_size, sample_per_part
        )
        for axis, side, place, shift in zip((2, 3), sides, _bins(pooled_size), shifts)
    )
    return _pooled(onnx, data, rois, channels, by_row, by_col, pooled_size)


def _shifts(
    onnx: OnnxModel, trans: str, classes: int, pooled_size: int, part_size: int
) -> list[str | None]:
    """Return how far each bin moves in y and in x: ``(classes * bins, 1, regions)``."""
    relative = _bins(pooled_size).astype(np.float32) / np.float32(pooled_size)
    row, col = np.floor(relative * np.float32(part_size)).astype(np.int64)
    parts = onnx.op("Reshape", trans, onnx.ints([-1, classes, 2, part_size**2]))
    own = onnx.op("Gather", parts, onnx.constant(row * part_size + col, "int64"), axis=3)
    by_axis = onnx.op("Transpose", own, perm=[2, 1, 3, 0])
    flat = onnx.op("Reshape", by_axis, onnx.ints([2, classes * pooled_size**2, 1, -1]))
    return [onnx.op("Gather", flat, onnx.constant(i, "int64"), axis=0) for i in (1, 0)]


def _samples(
    onnx: OnnxModel,
    data: Value,
    axis: int,
    start: str,
    length: str,
    bins: npt.NDArray[np.int64],
    shift: str | None,
    pooled_size: int,
    count: int,
) -> _Weights:
    """Return the bilinear weights of each pixel for the samples of each bin inside the map."""
    dtype = data.dtype
    size = onnx.op("Div", length, onnx.constant(pooled_size, dtype))
    first = onnx.op("Add", onnx.op("Mul", _column_of(onnx, bins, dtype), size), start)
    if shift is not None:
        first = onnx.op("Add", first, onnx.op("Mul", shift, length))
    step = onnx.op("Div", size, onnx.constant(count, dtype))
    number = onnx.constant(np.arange(count).reshape(1, -1, 1), dtype)
    place = onnx.op("Add", first, onnx.op("Mul", number, step))
    zero, half = onnx.constant(0, dtype), onnx.constant(0.5, dtype)
    end = _extent(onnx, data, axis)
    inside = onnx.op(
        "And",
        onnx.op("GreaterOrEqual", place, onnx.constant(-0.5, dtype)),
        onnx.op("LessOrEqual", place, onnx.op("Sub", end, half)),
    )
    last = onnx.op("Sub", end, onnx.constant(1, dtype))
    place = onnx.op("Min", onnx.op("Max", place, zero), last)
    samples = onnx.ints([2])
    away = onnx.op("Sub", onnx.op("Unsqueeze", place, samples), _pixels(onnx, data, axis))
    near = onnx.op("Relu", onnx.op("Sub", onnx.constant(1, dtype), onnx.op("Abs", away)))
    counted = onnx.cast(inside, dtype)
    near = onnx.op("Mul", near, onnx.op("Unsqueeze", counted, samples))
    weights, total = (onnx.op("ReduceSum", x, onnx.ints([1]), keepdims=0) for x in (near, counted))
    return _Weights(weights, total)


def _extent(onnx: OnnxModel, data: Value, axis: int) -> str:
    """Return the size of the map along an axis, as a number of its own type."""
    size = data.shape[axis] if data.shape is not None else None
    if size is not None:
        return onnx.constant(size, data.dtype)
    found = onnx.op("Gather", onnx.op("Shape", data), onnx.constant(axis, "int64"))
    return onnx.cast(found, data.dtype)


@converts("_contrib_RROIAlign")
def rroi_align(
    onnx: OnnxModel,
    data: Value,
    rois: Value,
    *,
    pooled_size: tuple[int, ...],
    spatial_scale: float,
    sampling_ratio: int = -1,
) -> str:
    """``_contrib_RROIAlign`` -> bilinear samples (``Gather``) on a turned grid, averaged."""
    dtype = data.dtype
    columns = [_column(onnx, rois, i) for i in range(6)]
    scale = onnx.constant(as_float32(spatial_scale), dtype)
    center_x, center_y, width, height = (onnx.op("Mul", x, scale) for x in columns[1:5])
    across = _grid(onnx, width, pooled_size[1], sampling_ratio, dtype)
    down = _grid(onnx, height, pooled_size[0], sampling_ratio, dtype)
    xx = onnx.op("Unsqueeze", across.places, onnx.ints([1, 2]))  # (regions, 1, 1, bins, samples)
    yy = onnx.op("Unsqueeze", down.places, onnx.ints([3, 4]))  # (regions, bins, samples, 1, 1)
    angle = onnx.op("Mul", columns[5], onnx.constant(math.pi / 180, dtype))
    new_axes = onnx.ints([1, 2, 3, 4])
    sine, cosine, center_x, center_y = (
        onnx.op("Unsqueeze", x, new_axes)
        for x in (onnx.op("Sin", angle), onnx.op("Cos", angle), center_x, center_y)
    )
    turned = onnx.op("Add", onnx.op("Mul", xx, cosine), onnx.op("Mul", yy, sine))
    x = onnx.op("Add", turned, center_x)
    turned = onnx.op("Sub", onnx.op("Mul", yy, cosine), onnx.op("Mul", xx, sine))
    y = onnx.op("Add", turned, center_y)
    used = [
        onnx.op("Unsqueeze", across.used, onnx.ints([1, 2, 3])),
        onnx.op("Unsqueeze", down.used, onnx.ints([1, 3, 4])),
    ]
    image = onnx.op("Unsqueeze", onnx.cast(columns[0], "int64"), new_axes)
    values = _sampled(onnx, data, image, y, x, used)
    sums = onnx.op("ReduceSum", values, onnx.ints([2, 4]), keepdims=0)
    count = onnx.op("Mul", across.count, down.count)
    averages = onnx.op("Div", sums, onnx.op("Unsqueeze", count, onnx.ints([1, 2, 3])))
    return onnx.op("Transpose", averages, perm=[0, 3, 1, 2])


@dataclass(frozen=True)
class _Grid:
    """Samples along one side of turned regions.

    Attributes
    ----------
    places : str
        ``(regions, bins, samples)``, from the middle of the region.
    used : str
        ``(regions, samples)``, bool: the others fill up the regions that have fewer.
    count : str
        ``(regions,)``: how many samples a bin has.
    """

    places: str
    used: str
    count: str


def _grid(onnx: OnnxModel, length: str, bins: int, ratio: int, dtype: str) -> _Grid:
    length = onnx.op("Max", length, onnx.constant(1, dtype))
    two, half = onnx.constant(2, dtype), onnx.constant(0.5, dtype)
    start = onnx.op("Div", onnx.op("Neg", length), two)
    size = onnx.op("Div", length, onnx.constant(bins, dtype))
    count = onnx.op("Ceil", size)
    if ratio > 0:
        zero = onnx.op("Sub", length, length)
        count = onnx.op("Add", zero, onnx.constant(ratio, dtype))
        number = onnx.constant(np.arange(ratio), dtype)
    else:
        most = onnx.cast(onnx.op("ReduceMax", count, keepdims=0), "int64")
        zero, one = onnx.constant(0, "int64"), onnx.constant(1, "int64")
        number = onnx.cast(onnx.op("Range", zero, most, one), dtype)
    first = onnx.op("Mul", onnx.constant(np.arange(bins).reshape(1, -1), dtype), _line(onnx, size))
    first = onnx.op("Add", first, _line(onnx, start))
    inner = onnx.op("Mul", onnx.op("Add", number, half), _line(onnx, size))
    inner = onnx.op("Div", inner, _line(onnx, count))
    places = onnx.op(
        "Add",
        onnx.op("Unsqueeze", first, onnx.ints([2])),
        onnx.op("Unsqueeze", inner, onnx.ints([1])),
    )
    return _Grid(places, onnx.op("Less", number, _line(onnx, count)), count)


def _line(onnx: OnnxModel, x: str) -> str:
    return onnx.op("Unsqueeze", x, onnx.ints([1]))


def _sampled(onnx: OnnxModel, data: Value, image: str, y: str, x: str, used: Sequence[str]) -> str:
    """Return bilinear samples with the channels last; 0 beyond one pixel around the map."""
    dtype = data.dtype
    one = onnx.constant(1, dtype)
    ends, counts = [], list(used)
    for place, axis in ((y, 2), (x, 3)):
        extent = _extent(onnx, data, axis)
        counts.append(onnx.op("GreaterOrEqual", place, onnx.constant(-1, dtype)))
        counts.append(onnx.op("LessOrEqual", place, extent))
        last = onnx.op("Sub", extent, one)
        inside = onnx.op("Min", onnx.op("Max", place, onnx.constant(0, dtype)), last)
        low = onnx.op("Floor", inside)
        high = onnx.op("Min", onnx.op("Add", low, one), last)
        above = onnx.op("Sub", inside, low)
        ends.append(((low, onnx.op("Sub", one, above)), (high, above)))
    counted = counts[0]
    for condition in counts[1:]:
        counted = onnx.op("And", counted, condition)
    counted = onnx.cast(counted, dtype)
    pixels = onnx.op("Flatten", onnx.op("Transpose", data, perm=[0, 2, 3, 1]), axis=3)
    height, width = (size_vector(onnx, data, axis) for axis in (2, 3))
    total = None
    for row, row_weight in ends[0]:
        line = onnx.op("Add", onnx.op("Mul", image, height), onnx.cast(row, "int64"))
        for col, col_weight in ends[1]:
            index = onnx.op("Add", onnx.op("Mul", line, width), onnx.cast(col, "int64"))
            weight = onnx.op("Mul", onnx.op("Mul", row_weight, col_weight), counted)
            weight = onnx.op("Unsqueeze", weight, onnx.ints([-1]))
            part = onnx.op("Mul", weight, onnx.op("Gather", pixels, index))
            total = part if total is None else onnx.op("Add", total, part)
    assert total is not None
    return total
