"""Region proposals: anchors moved by their predicted offsets, filtered, sorted and suppressed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..graph import Value
from ..onnx_model import OnnxModel
from ..registry import converts
from . import size_vector
from .suppression import (
    Conflict,
    Count,
    Rows,
    as_float32,
    best_first,
    front,
    overlap,
    positions,
    survivors,
)

Corners = Sequence[str]
"""x1, y1, x2, y2 of the boxes, each ``(batch, boxes)``."""


@converts("_contrib_Proposal", "_contrib_MultiProposal")
def proposal(
    onnx: OnnxModel,
    cls_prob: Value,
    bbox_pred: Value,
    im_info: Value,
    *,
    rpn_pre_nms_top_n: int = 6000,
    rpn_post_nms_top_n: int = 300,
    threshold: float = 0.7,
    rpn_min_size: int = 16,
    scales: tuple[float, ...] = (4.0, 8.0, 16.0, 32.0),
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
    feature_stride: int = 16,
    output_score: bool = False,
    iou_loss: bool = False,
) -> tuple[str, ...]:
    """``_contrib_Proposal`` -> arithmetic on anchors, ``TopK``, then greedy suppression.

    Equal scores come in the order of their anchors; MXNet's sort has no rule for them.

    Special numbers: of scores and offsets that are NaN or infinite other boxes come than from
    MXNet.
    """
    anchors = _base_anchors(feature_stride, ratios, scales)
    height, width = cls_prob.shape[2:] if cls_prob.shape is not None else (None, None)
    count = None if height is None or width is None else height * width * len(anchors)
    info = [onnx.op("Gather", im_info, onnx.ints([i]), axis=1) for i in range(3)]
    shifted, outside = _shifted(onnx, cls_prob, info, anchors, feature_stride)
    move = _moved_corners if iou_loss else _decoded
    corners = move(onnx, shifted, _offsets(onnx, bbox_pred, len(anchors)))
    corners = _clipped(onnx, corners, info)
    corners, small = _grown_if_small(onnx, corners, info[2], rpn_min_size)
    foreground = onnx.ints([len(anchors)]), onnx.ints([2 * len(anchors)]), onnx.ints([1])
    scores = onnx.op("Slice", cls_prob, *foreground)
    scores = onnx.op("Flatten", onnx.op("Transpose", scores, perm=[0, 2, 3, 1]), axis=1)
    dropped = onnx.op("Or", outside, small)
    scores = onnx.op("Where", dropped, onnx.constant(-1, "float32"), scores)

    limit = rpn_pre_nms_top_n if rpn_pre_nms_top_n > 0 else None
    values, best = best_first(onnx, scores, count, "float32", limit)
    corners = [onnx.op("GatherElements", corner, best, axis=1) for corner in corners]
    top = count if limit is None or count is None else min(count, limit)
    order = _order(onnx, corners, as_float32(threshold), top, limit, rpn_post_nms_top_n)
    chosen = [onnx.op("GatherElements", x, order, axis=1) for x in (*corners, values)]
    batch = cls_prob.shape[0] if cls_prob.shape is not None else None
    image = onnx.op("Unsqueeze", positions(onnx, cls_prob, 0, batch, "float32"), onnx.ints([1]))
    image = onnx.op("Expand", image, onnx.op("Shape", order))
    *rois, score = (onnx.op("Reshape", x, onnx.ints([-1, 1])) for x in (image, *chosen))
    out = onnx.op("Concat", *rois, axis=1)
    return (out, score) if output_score else (out,)


def _base_anchors(
    stride: int, ratios: Sequence[float], scales: Sequence[float]
) -> npt.NDArray[np.float32]:
    """Return the anchors of the first cell, ``(anchors, 4)``, in MXNet's own float32 steps."""
    half, one, side = np.float32(0.5), np.float32(1), np.float32(stride)
    center = half * (side - one)
    anchors = []
    for ratio in map(np.float32, ratios):
        for scale in map(np.float32, scales):
            width = np.floor(np.sqrt(np.floor(side * side / ratio)) + half) * scale
            height = np.floor(width / scale * ratio + half) * scale
            reach = half * (width - one), half * (height - one)
            anchors.append([center - reach[0], center - reach[1]])
            anchors[-1] += [center + reach[0], center + reach[1]]
    return np.array(anchors, np.float32)


def _shifted(
    onnx: OnnxModel,
    cls_prob: Value,
    info: Sequence[str],
    anchors: npt.NDArray[np.float32],
    stride: int,
) -> tuple[list[str], str]:
    """Return the anchors of all cells, ``(1, boxes)`` each, and which are behind the image."""
    sizes = [size_vector(onnx, cls_prob, axis) for axis in (2, 3)]
    grid = onnx.op("Concat", *sizes, onnx.ints([len(anchors)]), axis=0)
    row = onnx.ints([1, -1])
    pitch = onnx.constant(stride, "float32")
    behind, corners = [], {}
    for axis, extent, other in ((2, info[0], [1, 2]), (3, info[1], [0, 2])):
        size = cls_prob.shape[axis] if cls_prob.shape is not None else None
        cell = positions(onnx, cls_prob, axis, size, "float32")
        cell = onnx.op("Unsqueeze", cell, onnx.ints(other))
        number = onnx.op("Reshape", onnx.op("Expand", cell, grid), row)
        last = onnx.op("Floor", onnx.op("Div", extent, pitch))
        behind.append(onnx.op("GreaterOrEqual", number, last))
        shift = onnx.op("Mul", cell, pitch)
        for end in (3 - axis, 5 - axis):  # y stands second, x first
            place = onnx.op("Add", shift, onnx.constant(anchors[:, end], "float32"))
            corners[end] = onnx.op("Reshape", onnx.op("Expand", place, grid), row)
    return [corners[end] for end in range(4)], onnx.op("Or", *behind)


def _offsets(onnx: OnnxModel, bbox_pred: Value, num_anchors: int) -> list[str]:
    """Return the four predictions for each anchor, each ``(batch, boxes)``."""
    split = onnx.op("Reshape", bbox_pred, onnx.ints([0, num_anchors, 4, -1]))
    by_cell = onnx.op("Transpose", split, perm=[2, 0, 3, 1])
    parts = [onnx.op("Gather", by_cell, onnx.constant(i, "int64"), axis=0) for i in range(4)]
    return [onnx.op("Flatten", part, axis=1) for part in parts]


def _decoded(onnx: OnnxModel, anchors: Corners, offsets: Sequence[str]) -> list[str]:
    one, half = onnx.constant(1, "float32"), onnx.constant(0.5, "float32")
    low, high = [], []
    for start, end, shift, log in zip(anchors[:2], anchors[2:], offsets[:2], offsets[2:]):
        size = onnx.op("Add", onnx.op("Sub", end, start), one)
        center = onnx.op("Add", start, onnx.op("Mul", half, onnx.op("Sub", size, one)))
        middle = onnx.op("Add", onnx.op("Mul", shift, size), center)
        new_size = onnx.op("Mul", onnx.op("Exp", log), size)
        reach = onnx.op("Mul", half, onnx.op("Sub", new_size, one))
        low.append(onnx.op("Sub", middle, reach))
        high.append(onnx.op("Add", middle, reach))
    return [*low, *high]


def _moved_corners(onnx: OnnxModel, anchors: Corners, offsets: Sequence[str]) -> list[str]:
    return [onnx.op("Add", anchor, offset) for anchor, offset in zip(anchors, offsets)]


def _clipped(onnx: OnnxModel, corners: Corners, info: Sequence[str]) -> list[str]:
    one, zero = onnx.constant(1, "float32"), onnx.constant(0, "float32")
    height, width = (onnx.op("Sub", extent, one) for extent in info[:2])
    ends = (width, height, width, height)
    inside = [onnx.op("Min", corner, end) for corner, end in zip(corners, ends)]
    return [onnx.op("Max", corner, zero) for corner in inside]


def _grown_if_small(
    onnx: OnnxModel, corners: Corners, scale: str, min_size: int
) -> tuple[list[str], str]:
    """Return the boxes, those that are too small grown by the smallest size, and which are."""
    least = onnx.op("Mul", onnx.constant(min_size, "float32"), scale)
    one = onnx.constant(1, "float32")
    sides = [onnx.op("Add", onnx.op("Sub", corners[i + 2], corners[i]), one) for i in (0, 1)]
    small = onnx.op("Or", *(onnx.op("Less", side, least) for side in sides))
    half = onnx.op("Div", least, onnx.constant(2, "float32"))
    growth = onnx.op("Where", small, half, onnx.constant(0, "float32"))
    low = [onnx.op("Sub", corner, growth) for corner in corners[:2]]
    return [*low, *(onnx.op("Add", corner, growth) for corner in corners[2:])], small


def _order(
    onnx: OnnxModel,
    corners: Corners,
    threshold: float,
    count: Count,
    bound: int | None,
    wanted: int,
) -> str:
    """Return the indices of the survivors, from the start again until there are enough."""
    one = onnx.constant(1, "float32")
    sides = [onnx.op("Add", onnx.op("Sub", corners[i + 2], corners[i]), one) for i in (0, 1)]
    area = onnx.op("Mul", *sides)
    everything = onnx.op("Equal", area, area)
    kept = survivors(
        onnx,
        [*corners, area],
        everything,
        _overlap_above(threshold),
        count,
        bound,
        enough=wanted,
    )
    indices, is_kept = front(onnx, kept, count, wanted)
    found = onnx.op("ReduceSum", onnx.cast(is_kept, "int64"), onnx.ints([1]), keepdims=1)
    turn = onnx.op("Mod", onnx.constant([range(wanted)], "int64"), found)
    return onnx.op("GatherElements", indices, turn, axis=1)


def _overlap_above(threshold: float) -> Conflict:
    def conflict(onnx: OnnxModel, one: Rows, other: Rows) -> str:
        plus = onnx.constant(1, "float32")
        ratio = overlap(onnx, one, other, (one[4], other[4]), plus)
        return onnx.op("Greater", ratio, onnx.constant(threshold, "float32"))

    return conflict
