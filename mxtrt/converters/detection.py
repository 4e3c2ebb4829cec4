"""Boxes: overlap, encoding, anchors, matching, and the head of SSD."""

from __future__ import annotations

import numpy as np
from onnx import GraphProto

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import known_rank, known_size, size_vector
from .suppression import (
    Conflict,
    Count,
    Rows,
    as_batch,
    as_float32,
    best_first,
    column,
    front,
    gather_rows,
    intersection,
    loop_body,
    overlap,
    positions,
    survivors,
)


def _columns(onnx: OnnxModel, boxes: Operand) -> list[str]:
    """Return the four numbers of each box, without the last axis."""
    return [onnx.op("Gather", boxes, onnx.constant(i, "int64"), axis=-1) for i in range(4)]


def _narrow_columns(onnx: OnnxModel, boxes: Operand) -> list[str]:
    """Return the four numbers of each box, along a last axis of one."""
    last = onnx.ints([-1])
    ends = [onnx.ints([i]) for i in range(5)]
    return [onnx.op("Slice", boxes, start, end, last) for start, end in zip(ends, ends[1:])]


def _stacked(onnx: OnnxModel, *parts: str) -> str:
    """Return the tensors side by side along a new last axis."""
    axis = onnx.ints([-1])
    return onnx.op("Concat", *(onnx.op("Unsqueeze", part, axis) for part in parts), axis=-1)


@converts("_contrib_box_iou")
def box_iou(onnx: OnnxModel, lhs: Value, rhs: Value, *, format: str = "corner") -> str:
    """``_contrib_box_iou`` -> arithmetic between all boxes of both sides.

    Special numbers: a box with NaN overlaps none; in MXNet the order of the two decides.
    """
    new_axes = onnx.ints(range(known_rank(lhs) - 1, known_rank(lhs) + known_rank(rhs) - 2))
    one, other = (_corners(onnx, x, format) for x in (lhs, rhs))
    one = [onnx.op("Unsqueeze", x, new_axes) for x in one]
    common = intersection(onnx, one, other)
    union = onnx.op("Sub", onnx.op("Add", one[4], other[4]), common)
    zero = onnx.constant(0, lhs.dtype)
    overlaps = onnx.op("Greater", common, zero)
    return onnx.op("Where", overlaps, onnx.op("Div", common, union), zero)


def _corners(onnx: OnnxModel, boxes: Value, format: str) -> list[str]:
    """Return x1, y1, x2, y2 and the area, which is 0 for a flipped box."""
    first, second, third, fourth = _columns(onnx, boxes)
    if format == "corner":
        sides = [onnx.op("Sub", third, first), onnx.op("Sub", fourth, second)]
        corners = [first, second, third, fourth]
    else:
        sides = [third, fourth]
        two = onnx.constant(2, boxes.dtype)
        half = [onnx.op("Div", side, two) for side in sides]
        corners = [
            onnx.op(op, x, h) for op in ("Sub", "Add") for x, h in zip((first, second), half)
        ]
    return [*corners, onnx.op("Mul", *(onnx.op("Relu", side) for side in sides))]


@converts("_contrib_box_decode")
def box_decode(
    onnx: OnnxModel,
    data: Value,
    anchors: Value,
    *,
    std0: float = 1.0,
    std1: float = 1.0,
    std2: float = 1.0,
    std3: float = 1.0,
    clip: float = -1.0,
    format: str = "center",
) -> str:
    """``_contrib_box_decode`` -> arithmetic on the columns of offsets and anchors.

    Special numbers: of NaN `clip` makes NaN, in MXNet the bound.
    """
    dtype = data.dtype
    # without their axis TensorRT 8.5 put the columns of unknown many boxes behind each other
    offsets = _narrow_columns(onnx, data)
    stds = [onnx.constant(as_float32(std), dtype) for std in (std0, std1, std2, std3)]
    scaled = [onnx.op("Mul", x, std) for x, std in zip(offsets, stds)]
    first, second, third, fourth = _narrow_columns(onnx, anchors)
    half = onnx.constant(0.5, dtype)
    centers, sizes = [first, second], [third, fourth]
    if format == "corner":
        sizes = [onnx.op("Sub", third, first), onnx.op("Sub", fourth, second)]
        centers = [onnx.op("Add", x, onnx.op("Mul", size, half)) for x, size in zip(centers, sizes)]
    low, high = [], []
    for center, size, shift, log in zip(centers, sizes, scaled[:2], scaled[2:]):
        middle = onnx.op("Add", onnx.op("Mul", shift, size), center)
        if clip > 0:
            log = onnx.op("Min", log, onnx.constant(as_float32(clip), dtype))
        reach = onnx.op("Mul", onnx.op("Mul", onnx.op("Exp", log), size), half)
        low.append(onnx.op("Sub", middle, reach))
        high.append(onnx.op("Add", middle, reach))
    return onnx.op("Concat", *low, *high, axis=-1)


@converts("_contrib_box_encode")
def box_encode(
    onnx: OnnxModel,
    samples: Value,
    matches: Value,
    anchors: Value,
    refs: Value,
    means: Value,
    stds: Value,
) -> tuple[str, str]:
    """``_contrib_box_encode`` -> the matched boxes (``GatherND``) against the anchors."""
    dtype = anchors.dtype
    half = onnx.constant(0.5, dtype)
    # rows without a match carry -1; their sample says that nobody looks at them
    index = onnx.op("Max", onnx.cast(matches, "int64"), onnx.constant(0, "int64"))
    matched = gather_rows(onnx, refs, index)
    targets = []
    ref_center, ref_size = _center_and_size(onnx, matched, half)
    center, size = _center_and_size(onnx, anchors, half)
    for r, a, s in zip(ref_center, center, size):
        targets.append(onnx.op("Div", onnx.op("Sub", r, a), s))
    for r, s in zip(ref_size, size):
        targets.append(onnx.op("Log", onnx.op("Div", r, s)))
    normal = onnx.op("Div", onnx.op("Sub", _stacked(onnx, *targets), means), stds)
    valid = onnx.op("Greater", onnx.op("Unsqueeze", samples, onnx.ints([-1])), half)
    target = onnx.op("Where", valid, normal, onnx.constant(0, dtype))
    mask = onnx.cast(onnx.op("Concat", *[valid] * 4, axis=-1), dtype)
    return target, mask


def _center_and_size(onnx: OnnxModel, boxes: Operand, half: str) -> tuple[list[str], list[str]]:
    x1, y1, x2, y2 = _columns(onnx, boxes)
    sizes = [onnx.op("Sub", x2, x1), onnx.op("Sub", y2, y1)]
    centers = [onnx.op("Add", x, onnx.op("Mul", s, half)) for x, s in zip((x1, y1), sizes)]
    return centers, sizes


@converts("_contrib_bipartite_matching")
def bipartite_matching(
    onnx: OnnxModel, data: Value, *, threshold: float, is_ascend: bool = False, topk: int = -1
) -> tuple[str, str]:
    """``_contrib_bipartite_matching`` -> a ``Loop`` that takes the best free pair each time.

    Special numbers: with NaN among the scores other pairs are made than in MXNet.
    """
    rows, cols = data.shape[-2:] if data.shape is not None else (None, None)
    scores = as_batch(onnx, data)
    limit = as_float32(threshold)
    if is_ascend:
        scores, limit = onnx.op("Neg", scores), -limit
    sizes = onnx.op("Shape", scores)
    none = onnx.constant(-1, data.dtype)
    unmatched = [
        onnx.op("Expand", none, onnx.op("Gather", sizes, onnx.ints(axes)))
        for axes in ([0, 1], [0, 2])
    ]
    places = [positions(onnx, scores, i, size, "int64") for i, size in ((1, rows), (2, cols))]
    trips = onnx.op("ReduceMin", onnx.op("Gather", sizes, onnx.ints([1, 2])), keepdims=0)
    if topk > 0:  # MXNet compares after it counted: there are topk + 1 matches
        trips = onnx.op("Min", trips, onnx.constant(topk + 1, "int64"))
    body = _best_pair(onnx, (None, rows, cols), data.dtype, limit, places)
    go = onnx.constant(True, "bool")
    _, *found = onnx.ops("Loop", trips, go, scores, *unmatched, outputs=3, body=body)
    if data.rank == 3:
        return found[0], found[1]
    shape = onnx.op("Shape", data)
    leading = onnx.op("Slice", shape, onnx.ints([0]), onnx.ints([-2]))
    last = [onnx.op("Gather", sizes, onnx.ints([axis])) for axis in (1, 2)]
    by_rows, by_cols = (
        onnx.op("Reshape", marks, onnx.op("Concat", leading, size, axis=0))
        for marks, size in zip(found, last)
    )
    return by_rows, by_cols


def _best_pair(
    onnx: OnnxModel, shape: tuple[Count, Count, Count], dtype: str, limit: float, places: list[str]
) -> GraphProto:
    """Match the best row and column that are free, if their score is above the limit."""
    batch, rows, cols = shape
    body = onnx.subgraph("match")
    body.declare(Value("turn", (), "int64"))
    body.declare(Value("go", (), "bool"))
    states = [
        Value("scores", (batch, rows, cols), dtype),
        Value("row_marks", (batch, rows), dtype),
        Value("col_marks", (batch, cols), dtype),
    ]
    scores, row_marks, col_marks = (body.declare(state) for state in states)
    flat = body.op("Flatten", scores, axis=1)
    best = body.op("ReduceMax", flat, axes=[1], keepdims=1)
    place = body.op("ArgMax", flat, axis=1, keepdims=1)
    good = body.op("Greater", best, body.constant(limit, dtype))
    width = body.op("Size", places[1])
    row, col = body.op("Div", place, width), body.op("Mod", place, width)
    is_row = body.op("And", body.op("Equal", places[0], row), good)
    is_col = body.op("And", body.op("Equal", places[1], col), good)
    after = [
        body.op("Where", is_row, body.cast(col, dtype), row_marks),
        body.op("Where", is_col, body.cast(row, dtype), col_marks),
    ]
    lines = body.op("Unsqueeze", is_row, body.ints([2]))
    taken = body.op("Or", lines, body.op("Unsqueeze", is_col, body.ints([1])))
    scores = body.op("Where", taken, body.constant(-np.inf, dtype), scores)
    any_good = body.op("ReduceMax", body.cast(good, "float32"), keepdims=0)
    go_on = body.op("Greater", any_good, body.constant(0, "float32"))
    return loop_body(body, go_on, [*zip(states, (scores, *after))])


@converts("_contrib_MultiBoxPrior")
def multibox_prior(
    onnx: OnnxModel,
    data: Value,
    *,
    sizes: tuple[float, ...] = (1.0,),
    ratios: tuple[float, ...] = (1.0,),
    clip: bool = False,
    steps: tuple[float, ...] = (-1.0, -1.0),
    offsets: tuple[float, ...] = (0.5, 0.5),
) -> str:
    """``_contrib_MultiBoxPrior`` -> boxes around the cells of the map, which fold to a constant."""
    dtype = data.dtype
    height, width = (_extent(onnx, data, axis) for axis in (2, 3))
    if steps[0] > 0 and steps[1] > 0:
        pitches = [onnx.constant(as_float32(step), dtype) for step in steps]
    else:
        # not Div: ONNX Runtime makes one division of x * (1 / n), and other last bits
        pitches = [onnx.op("Reciprocal", extent) for extent in (height, width)]
    centers = []
    for axis, offset, pitch in zip((2, 3), offsets, pitches):
        size = data.shape[axis] if data.shape is not None else None
        cell = positions(onnx, data, axis, size, dtype)
        cell = onnx.op("Add", cell, onnx.constant(as_float32(offset), dtype))
        new_axes = onnx.ints([1, 2] if axis == 2 else [0, 2])
        centers.append(onnx.op("Unsqueeze", onnx.op("Mul", cell, pitch), new_axes))
    side = onnx.constant([*sizes, *[sizes[0]] * (len(ratios) - 1)], dtype)
    roots = np.sqrt(np.array(ratios, np.float32))
    root = onnx.constant([*[roots[0]] * len(sizes), *roots[1:]], dtype)
    two = onnx.constant(2, dtype)
    wide = onnx.op("Div", onnx.op("Mul", side, height), width)
    reaches = [
        onnx.op("Div", onnx.op("Div", side, root), two),
        onnx.op("Div", onnx.op("Mul", wide, root), two),
    ]
    count = len(sizes) + len(ratios) - 1
    grid = onnx.op(
        "Concat", size_vector(onnx, data, 2), size_vector(onnx, data, 3), onnx.ints([count]), axis=0
    )
    ends = [onnx.op(op, centers[i], reaches[i]) for op in ("Sub", "Add") for i in (1, 0)]
    boxes = _stacked(onnx, *(onnx.op("Expand", end, grid) for end in ends))
    boxes = onnx.op("Reshape", boxes, onnx.ints([1, -1, 4]))
    if not clip:
        return boxes
    return onnx.op("Clip", boxes, onnx.constant(0, dtype), onnx.constant(1, dtype))


def _extent(onnx: OnnxModel, data: Value, axis: int) -> str:
    """Return the size of a map as a floating-point number."""
    size = data.shape[axis] if data.shape is not None else None
    if size is not None:
        return onnx.constant(size, data.dtype)
    found = onnx.op("Gather", onnx.op("Shape", data), onnx.constant(axis, "int64"))
    return onnx.cast(found, data.dtype)


@converts("_contrib_MultiBoxDetection")
def multibox_detection(
    onnx: OnnxModel,
    cls_prob: Value,
    loc_pred: Value,
    anchor: Value,
    *,
    clip: bool = True,
    threshold: float = 0.01,
    background_id: int = 0,  # MXNet reads it nowhere
    nms_threshold: float = 0.5,
    force_suppress: bool = False,
    variances: tuple[float, ...] = (0.1, 0.1, 0.2, 0.2),
    nms_topk: int = -1,
) -> str:
    """``_contrib_MultiBoxDetection`` -> the best class, decoded boxes, then greedy suppression.

    Special numbers: of NaN `clip` makes NaN, in MXNet a bound.
    """
    batch, _, count = cls_prob.shape if cls_prob.shape is not None else (None, None, None)
    label, score, valid = _best_class(onnx, cls_prob, as_float32(threshold))
    corners = _decoded(onnx, loc_pred, anchor, variances, clip)
    rows = _stacked(onnx, onnx.cast(label, "float32"), score, *corners)
    none = onnx.constant(-1, "float32")
    if not 0 < nms_threshold <= 1:
        indices, is_valid = front(onnx, valid, count)
        kept = gather_rows(onnx, rows, indices)
        return onnx.op("Where", onnx.op("Unsqueeze", is_valid, onnx.ints([2])), kept, none)
    limit = nms_topk if nms_topk > 0 else None
    lowest = onnx.constant(-np.inf, "float32")
    keys = onnx.op("Where", valid, score, lowest)
    values, best = best_first(onnx, keys, count, "float32", limit)
    is_valid = onnx.op("Greater", values, lowest)
    top = gather_rows(onnx, rows, best)
    columns = [column(onnx, top, i) for i in (2, 3, 4, 5, 0)]
    top_count = count if count is None or limit is None else min(count, limit)
    conflict = _overlap_from(as_float32(nms_threshold), force_suppress)
    is_kept = survivors(onnx, columns, is_valid, conflict, top_count, limit, batch)
    top = _relabelled(onnx, top, onnx.op("Where", is_kept, columns[4], none))
    top = onnx.op("Where", onnx.op("Unsqueeze", is_valid, onnx.ints([2])), top, none)
    if limit is None or (count is not None and count <= limit):
        return top
    return onnx.op("Concat", top, _not_looked_at(onnx, rows, valid, count, limit), axis=1)


def _best_class(onnx: OnnxModel, cls_prob: Value, threshold: float) -> tuple[str, str, str]:
    """Return each anchor's class but for the background, its score, and whether it is one."""
    size = known_size(cls_prob, 1)
    if size < 2:
        raise UnsupportedOp("cls_prob has no class but the background")
    window = onnx.ints([1]), onnx.ints([size]), onnx.ints([1])
    classes = onnx.op("Slice", cls_prob, *window)
    score = onnx.op("ReduceMax", classes, axes=[1], keepdims=0)
    label = onnx.op("ArgMax", classes, axis=1, keepdims=0)
    valid = onnx.op("GreaterOrEqual", score, onnx.constant(threshold, "float32"))
    if threshold <= -1:  # where MXNet starts to look for the best class
        valid = onnx.op("And", valid, onnx.op("Greater", score, onnx.constant(-1, "float32")))
    return label, score, valid


def _decoded(
    onnx: OnnxModel, loc_pred: Value, anchor: Value, variances: tuple[float, ...], clip: bool
) -> list[str]:
    """Return x1, y1, x2, y2 of the predicted boxes, each ``(batch, anchors)``."""
    offsets = _columns(onnx, onnx.op("Reshape", loc_pred, onnx.ints([0, -1, 4])))
    factors = [onnx.constant(as_float32(variance), "float32") for variance in variances]
    scaled = [onnx.op("Mul", x, factor) for x, factor in zip(offsets, factors)]
    ends = _columns(onnx, anchor)
    two = onnx.constant(2, "float32")
    low, high = [], []
    for start, end, shift, log in zip(ends[:2], ends[2:], scaled[:2], scaled[2:]):
        size = onnx.op("Sub", end, start)
        center = onnx.op("Div", onnx.op("Add", start, end), two)
        middle = onnx.op("Add", onnx.op("Mul", shift, size), center)
        reach = onnx.op("Div", onnx.op("Mul", onnx.op("Exp", log), size), two)
        low.append(onnx.op("Sub", middle, reach))
        high.append(onnx.op("Add", middle, reach))
    if not clip:
        return [*low, *high]
    borders = onnx.constant(0, "float32"), onnx.constant(1, "float32")
    return [onnx.op("Clip", end, *borders) for end in (*low, *high)]


def _overlap_from(threshold: float, force: bool) -> Conflict:
    """Intersection over union of boxes as x1, y1, x2, y2, class."""

    def area(onnx: OnnxModel, box: Rows) -> str:
        return onnx.op("Mul", onnx.op("Sub", box[2], box[0]), onnx.op("Sub", box[3], box[1]))

    def conflict(onnx: OnnxModel, one: Rows, other: Rows) -> str:
        ratio = overlap(onnx, one, other, (area(onnx, one), area(onnx, other)))
        overlaps = onnx.op("GreaterOrEqual", ratio, onnx.constant(threshold, "float32"))
        if force:
            return overlaps
        return onnx.op("And", overlaps, onnx.op("Equal", one[4], other[4]))

    return conflict


def _relabelled(onnx: OnnxModel, rows: str, label: str) -> str:
    """Return the rows with another first column."""
    rest = onnx.op("Slice", rows, onnx.ints([1]), onnx.ints([6]), onnx.ints([2]))
    return onnx.op("Concat", onnx.op("Unsqueeze", label, onnx.ints([2])), rest, axis=2)


def _not_looked_at(onnx: OnnxModel, rows: str, valid: str, count: Count, limit: int) -> str:
    """Return the rows behind the best `limit`: MXNet takes their class away, unsorted."""
    indices, is_valid = front(onnx, valid, count)
    window = onnx.ints([limit]), onnx.ints([2**31 - 1]), onnx.ints([1])
    rest = gather_rows(onnx, rows, onnx.op("Slice", indices, *window))
    is_row = onnx.op("Unsqueeze", onnx.op("Slice", is_valid, *window), onnx.ints([2]))
    none = onnx.constant(-1, "float32")
    is_number = onnx.constant([False, True, True, True, True, True], "bool")
    return onnx.op("Where", onnx.op("And", is_row, is_number), rest, none)
