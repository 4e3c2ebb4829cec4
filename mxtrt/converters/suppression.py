"""Greedy non-maximum suppression: `box_nms`, and what the other detection heads share with it.

Boxes stand in rows, best score first. A row survives unless a survivor before it overlaps it too
much. ONNX's ``NonMaxSuppression`` cannot say MXNet's classes, and what it returns has a shape
that TensorRT does not know in advance, so the survivors are found with plain arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Optional

import numpy as np
from onnx import GraphProto

from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import known_size, shape_vector

TOPK_LIMIT = 3840
"""The largest k of TensorRT's TopK."""

PAIRS_LIMIT = 2**24
"""Up to so many pairs are compared at once, of 1,024 rows at most; above that block by block."""

BLOCK_PAIRS = 2**21
"""How many pairs a block has. Measured on two cores against MXNet: 400 rows at once 0.5 ms (0.3),
1,000 rows 3 ms (2), 6,000 rows in blocks 120 ms (78; at once 220), 8,732 rows of which 150 are
valid 10 ms (63; at once 415), 80 classes of 1,000 rows 120 ms (89; at once 300)."""

BLOCK_ROWS = (64, 256)
"""How many rows a block has at least and at most."""

Rows = Sequence[str]
"""Columns of the rows, such as x1, y1, x2, y2: tensors of the same shape."""

Conflict = Callable[[OnnxModel, Rows, Rows], str]
"""Which rows of the second set overlap those of the first too much: a bool tensor."""

Count = Optional[int]


def as_float32(number: float) -> float:
    """Return the number that MXNet reads an attribute as."""
    return float(np.float32(number))


def column(onnx: OnnxModel, rows: Operand, index: int) -> str:
    """Return one column of ``(batch, rows, width)`` as ``(batch, rows)``.

    ``Slice`` takes half the time that ``Gather`` does for half a million rows.
    """
    axis = onnx.ints([2])
    part = onnx.op("Slice", rows, onnx.ints([index]), onnx.ints([index + 1]), axis)
    return onnx.op("Squeeze", part, axis)


def as_batch(onnx: OnnxModel, data: Value) -> Operand:
    """Return the last two axes of `data` behind one of all others."""
    if data.rank == 3:
        return data
    if data.rank == 2:
        return onnx.op("Unsqueeze", data, onnx.ints([0]))
    if data.shape is not None and None not in data.shape[-2:]:
        return onnx.op("Reshape", data, onnx.ints([-1, known_size(data, -2), known_size(data, -1)]))
    end = onnx.ints([np.iinfo(np.int64).max])
    last = onnx.op("Slice", onnx.op("Shape", data), onnx.ints([-2]), end)
    return onnx.op("Reshape", data, onnx.op("Concat", onnx.ints([-1]), last, axis=0))


def gather_rows(onnx: OnnxModel, rows: Operand, index: str) -> str:
    """Return the rows of ``(batch, rows, width)`` that ``(batch, count)`` indices name."""
    return onnx.op("GatherND", rows, onnx.op("Unsqueeze", index, onnx.ints([2])), batch_dims=1)


def positions(onnx: OnnxModel, x: Operand, axis: int, count: Count, dtype: str) -> str:
    """Return 0, 1, … for each of the `count` places of `x` along an axis."""
    if count is not None:
        return onnx.constant(np.arange(count), dtype)
    end = onnx.op("Gather", onnx.op("Shape", x), onnx.constant(axis, "int64"))
    start, step = onnx.constant(0, "int64"), onnx.constant(1, "int64")
    return onnx.cast(onnx.op("Range", start, end, step), dtype)


def best_first(
    onnx: OnnxModel, keys: str, count: Count, dtype: str, limit: int | None = None
) -> tuple[str, str]:
    """Return the keys of ``(batch, count)``, largest first, and their indices.

    Parameters
    ----------
    keys : str
        Equal ones keep their order.
    count : int or None
        How many there are, when it is known.
    dtype : str
        Of the keys.
    limit : int, optional
        How many to return; by default all.
    """
    if count is None:
        k = onnx.op("Gather", onnx.op("Shape", keys), onnx.ints([1]))
        if limit is not None:
            k = onnx.op("Min", k, onnx.ints([limit]))
        values, indices = onnx.ops("TopK", keys, k, outputs=2)
        return values, indices
    wanted = count if limit is None else min(limit, count)
    parts = []
    for start in range(0, wanted, TOPK_LIMIT):
        size = onnx.ints([min(TOPK_LIMIT, wanted - start)])
        values, indices = onnx.ops("TopK", keys, size, outputs=2)
        parts.append((values, indices))
        if start + TOPK_LIMIT < wanted:
            lowest = onnx.op("Min", values, onnx.constant(-np.inf, dtype))
            keys = onnx.op("ScatterElements", keys, indices, lowest, axis=1)
    if len(parts) == 1:
        return parts[0]
    values, indices = (onnx.op("Concat", *both, axis=1) for both in zip(*parts))
    return values, indices


def front(onnx: OnnxModel, chosen: str, count: Count, limit: int | None = None) -> tuple[str, str]:
    """Return the indices of the chosen rows, in order, before those of all others.

    Parameters
    ----------
    chosen : str
        ``(batch, count)``, bool.
    limit : int, optional
        How many indices to return; by default all.

    Returns
    -------
    indices : str
        ``(batch, count)``, int64.
    is_chosen : str
        ``(batch, count)``, bool: false for the rows that fill up the end.
    """
    order = onnx.op("Neg", positions(onnx, chosen, 1, count, "float32"))
    lowest = onnx.constant(-np.inf, "float32")
    keys = onnx.op("Where", chosen, order, lowest)
    values, indices = best_first(onnx, keys, count, "float32", limit)
    return indices, onnx.op("Greater", values, lowest)


def loop_body(body: OnnxModel, go_on: str, states: Sequence[tuple[Value, str]]) -> GraphProto:
    """Return the body of a ``Loop``, given its states and what they become."""
    outputs = [Value("go_on", (), "bool")]
    outputs += [Value(f"next_{value.name}", value.shape, value.dtype) for value, _ in states]
    body.bind(outputs, [go_on, *(after for _, after in states)])
    return body.finish(outputs).graph


def intersection(onnx: OnnxModel, one: Rows, other: Rows, plus: str | None = None) -> str:
    """Return the area that boxes given as x1, y1, x2, y2 have in common.

    `plus` is added to width and height: 1 where both corners are pixels of the box.
    """
    sides = []
    for low, high in ((0, 2), (1, 3)):
        start = onnx.op("Max", one[low], other[low])
        side = onnx.op("Sub", onnx.op("Min", one[high], other[high]), start)
        if plus is not None:
            side = onnx.op("Add", side, plus)
        sides.append(onnx.op("Relu", side))
    return onnx.op("Mul", *sides)


def overlap(
    onnx: OnnxModel, one: Rows, other: Rows, areas: tuple[str, str], plus: str | None = None
) -> str:
    """Return intersection over union; for two boxes without an area that is not a number."""
    common = intersection(onnx, one, other, plus)
    return onnx.op("Div", common, onnx.op("Sub", onnx.op("Add", *areas), common))


def survivors(
    onnx: OnnxModel,
    rows: Rows,
    valid: str,
    conflict: Conflict,
    count: Count,
    bound: int | None = None,
    batch: int | None = None,
    enough: int | None = None,
) -> str:
    """Return which rows greedy suppression keeps: ``(batch, count)``, bool.

    Parameters
    ----------
    rows : sequence of str
        Columns of the rows, each ``(batch, count)``, best row first.
    valid : str
        ``(batch, count)``, bool: the rows that take part.
    conflict : callable
        Which of two rows may not both stay; the same both ways round.
    count : int or None
        How many rows there are, when it is known.
    bound : int, optional
        How many there are at most.
    batch : int, optional
        In how many sets, when it is known.
    enough : int, optional
        How many survivors are needed; rows behind them may be said to be kept.
    """
    most = bound if count is None else count
    alive = onnx.cast(valid, "float32")
    if most is not None and most <= 1024 and (batch or 1) * most**2 <= PAIRS_LIMIT:
        place = positions(onnx, alive, 1, count, "int64")
        suppresses = _suppresses(onnx, rows, rows, conflict)
        kept = _settled(onnx, alive, suppresses, place, _size(onnx, alive, count), count)
    else:
        fewest, size = BLOCK_ROWS
        if count is not None:
            size = max(fewest, min(size, BLOCK_PAIRS // (count * (batch or 1))))
        kept = _in_blocks(onnx, rows, alive, conflict, count, size, enough)
    return onnx.op("Greater", kept, onnx.constant(0, "float32"))


def _suppresses(onnx: OnnxModel, one: Rows, other: Rows, conflict: Conflict) -> str:
    """Return ``(batch, one, other)``: 1 for the pairs that conflict."""
    first = [onnx.op("Unsqueeze", row, onnx.ints([2])) for row in one]
    second = [onnx.op("Unsqueeze", row, onnx.ints([1])) for row in other]
    return onnx.cast(conflict(onnx, first, second), "float32")


def _settled(onnx: OnnxModel, alive: str, pairs: str, place: str, trips: str, count: Count) -> str:
    """Repeat ``keep = alive and no earlier row that is kept conflicts`` until nothing changes.

    After n rounds the first n rows are right; a handful of rounds settles real boxes.
    """
    earlier = onnx.op("Less", onnx.op("Unsqueeze", place, onnx.ints([1])), place)
    suppresses = onnx.op("Mul", pairs, onnx.cast(earlier, "float32"))
    start = onnx.op("Unsqueeze", alive, onnx.ints([1]))
    body = onnx.subgraph("round")
    body.declare(Value("round", (), "int64"))
    body.declare(Value("go", (), "bool"))
    keep = Value("keep", (None, 1, count), "float32")
    before = body.declare(keep)
    half = body.constant(0.5, "float32")
    free = body.op("Less", body.op("MatMul", before, suppresses), half)
    after = body.op("Mul", body.cast(free, "float32"), start)
    change = body.op("Abs", body.op("Sub", after, before))
    go_on = body.op("Greater", body.op("ReduceSum", change, keepdims=0), half)
    graph = loop_body(body, go_on, [(keep, after)])
    kept = onnx.op("Loop", trips, onnx.constant(True, "bool"), start, body=graph)
    return onnx.op("Squeeze", kept, onnx.ints([1]))


def _in_blocks(
    onnx: OnnxModel,
    rows: Rows,
    alive: str,
    conflict: Conflict,
    count: Count,
    size: int,
    enough: int | None,
) -> str:
    """Settle `size` rows after the other and strike out what they suppress, while there are any."""
    total = _size(onnx, alive, count)
    place = positions(onnx, alive, 1, count, "int64")
    number = onnx.op("Add", onnx.cast(place, "float32"), onnx.constant(1, "float32"))
    end = onnx.op("ReduceMax", onnx.op("Mul", alive, number), keepdims=0)
    body = onnx.subgraph("block")
    block = body.declare(Value("block", (), "int64"))
    body.declare(Value("go", (), "bool"))
    state = Value("alive", (None, count), "float32")
    before = body.declare(state)
    step = body.constant(size, "int64")
    first = body.op("Mul", block, step)
    last = body.op("Sub", total, body.constant(1, "int64"))
    # behind the end the last block reads the last row again and again
    index = body.op("Min", body.op("Add", first, body.constant(range(size), "int64")), last)
    own = [body.op("Gather", row, index, axis=1) for row in rows]
    pairs = _suppresses(body, own, rows, conflict)
    among = body.op("Gather", pairs, index, axis=2)
    alive_now = body.op("Gather", before, index, axis=1)
    kept = _settled(body, alive_now, among, index, step, size)
    struck = body.op("MatMul", body.op("Unsqueeze", kept, body.ints([1])), pairs)
    free = body.op(
        "Less", body.op("Squeeze", struck, body.ints([1])), body.constant(0.5, "float32")
    )
    after = body.op("Mul", before, body.cast(free, "float32"))
    # survivors of earlier blocks conflict with none of these, but each of these with itself
    places = body.op("Expand", index, body.op("Shape", kept))
    after = body.op("ScatterElements", after, places, kept, axis=1)
    settled = body.op("Add", first, step)
    go_on = body.op("Less", body.cast(settled, "float32"), end)
    if enough is not None:
        counted = body.cast(body.op("Less", place, settled), "float32")
        found = body.op("ReduceSum", body.op("Mul", after, counted), body.ints([1]))
        least = body.op("ReduceMin", found, keepdims=0)
        go_on = body.op("And", go_on, body.op("Less", least, body.constant(enough, "float32")))
    graph = loop_body(body, go_on, [(state, after)])
    return onnx.op("Loop", total, onnx.constant(True, "bool"), alive, body=graph)


def _size(onnx: OnnxModel, rows: str, count: Count) -> str:
    if count is not None:
        return onnx.constant(count, "int64")
    return onnx.op("Gather", onnx.op("Shape", rows), onnx.constant(1, "int64"))


@converts("_contrib_box_nms")
def box_nms(
    onnx: OnnxModel,
    data: Value,
    *,
    overlap_thresh: float = 0.5,
    valid_thresh: float = 0.0,
    topk: int = -1,
    coord_start: int = 2,
    score_index: int = 1,
    id_index: int = -1,
    background_id: int = -1,
    force_suppress: bool = False,
    in_format: str = "corner",
    out_format: str = "corner",
) -> str:
    """``_contrib_box_nms`` -> ``TopK``, a ``Loop`` over suppression, and ``TopK`` to close up.

    Special numbers: of boxes with NaN others may be kept than in MXNet.
    """
    count = data.shape[-2] if data.shape is not None else None
    if topk == 0 or count == 0:
        return onnx.op("Identity", data)
    boxes = as_batch(onnx, data)
    limit = topk if topk > 0 else None
    scores = column(onnx, boxes, score_index)
    valid = onnx.op("Greater", scores, onnx.constant(as_float32(valid_thresh), data.dtype))
    if id_index >= 0:
        background = onnx.constant(background_id, data.dtype)
        is_background = onnx.op("Equal", column(onnx, boxes, id_index), background)
        valid = onnx.op("And", valid, onnx.op("Not", is_background))
    lowest = onnx.constant(-np.inf, data.dtype)
    keys = onnx.op("Where", valid, scores, lowest)
    values, best = best_first(onnx, keys, count, data.dtype, limit)
    sorted_boxes = gather_rows(onnx, boxes, best)
    rows = _corners_and_area(onnx, sorted_boxes, coord_start, in_format, data.dtype)
    if id_index >= 0 and not force_suppress:
        rows.append(onnx.cast(column(onnx, sorted_boxes, id_index), "int32"))
    kept_count = count if limit is None or count is None else min(count, limit)
    is_kept = survivors(
        onnx,
        rows,
        onnx.op("Greater", values, lowest),
        _overlap_above(as_float32(overlap_thresh), data.dtype),
        kept_count,
        limit,
        _known_batch(data),
    )
    indices, is_chosen = front(onnx, is_kept, kept_count)
    out = gather_rows(onnx, sorted_boxes, indices)
    if in_format != out_format:
        width = known_size(data, -1)
        out = _in_format(onnx, out, coord_start, width, out_format, data.dtype)
    mask = onnx.op("Unsqueeze", is_chosen, onnx.ints([2]))
    out = onnx.op("Where", mask, out, onnx.constant(-1, data.dtype))
    if limit is not None and (count is None or limit < count):
        out = _filled_up(onnx, out, boxes, count, kept_count, data.dtype)
    if data.rank == 2:
        return onnx.op("Squeeze", out, onnx.ints([0]))
    return out if data.rank == 3 else onnx.op("Reshape", out, shape_vector(onnx, data))


def _known_batch(data: Value) -> int | None:
    """Return in how many sets the boxes come, when it is known."""
    leading = data.shape[:-2] if data.shape is not None else (None,)
    known = [size for size in leading if size is not None]
    return math.prod(known) if len(known) == len(leading) else None


def _corners_and_area(
    onnx: OnnxModel, boxes: str, start: int, in_format: str, dtype: str
) -> list[str]:
    first, second, third, fourth = (column(onnx, boxes, start + i) for i in range(4))
    if in_format == "corner":
        sides = [onnx.op("Sub", third, first), onnx.op("Sub", fourth, second)]
        corners = [first, second, third, fourth]
    else:
        sides = [third, fourth]
        halves = [onnx.op("Div", side, onnx.constant(2, dtype)) for side in sides]
        centers = list(zip((first, second), halves))
        corners = [onnx.op("Sub", *center) for center in centers]
        corners += [onnx.op("Add", *center) for center in centers]
    area = onnx.op("Mul", *(onnx.op("Relu", side) for side in sides))  # 0 for a flipped box
    return [*corners, area]


def _overlap_above(threshold: float, dtype: str) -> Conflict:
    """Intersection over union of boxes as x1, y1, x2, y2, area and, maybe, their class."""

    def conflict(onnx: OnnxModel, one: Rows, other: Rows) -> str:
        ratio = overlap(onnx, one, other, (one[4], other[4]))
        if dtype == "float16":  # MXNet compares with the threshold in float32
            ratio = onnx.cast(ratio, "float32")
        wide = "float32" if dtype == "float16" else dtype
        overlaps = onnx.op("Greater", ratio, onnx.constant(threshold, wide))
        if len(one) == 5:
            return overlaps
        return onnx.op("And", overlaps, onnx.op("Equal", one[5], other[5]))

    return conflict


def _in_format(
    onnx: OnnxModel, boxes: str, start: int, width: int, out_format: str, dtype: str
) -> str:
    """Convert corners to center and size or back; MXNet leaves boxes alone that begin below 0."""
    lengths = [start, 1, 1, 1, 1, width - start - 4]
    kept = [length for length in lengths if length]
    parts = list(onnx.ops("Split", boxes, onnx.ints(kept), axis=2, outputs=len(kept)))
    begin = 1 if start else 0
    first, second, third, fourth = parts[begin : begin + 4]
    two = onnx.constant(2, dtype)
    if out_format == "center":
        low = [onnx.op("Div", onnx.op("Add", *ends), two) for ends in _axes(parts, begin)]
        high = [onnx.op("Sub", third, first), onnx.op("Sub", fourth, second)]
    else:
        halves = [onnx.op("Div", side, two) for side in (third, fourth)]
        low = [onnx.op("Sub", first, halves[0]), onnx.op("Sub", second, halves[1])]
        high = [onnx.op("Add", first, halves[0]), onnx.op("Add", second, halves[1])]
    parts[begin : begin + 4] = [*low, *high]
    converted = onnx.op("Concat", *parts, axis=2)
    return onnx.op("Where", onnx.op("Less", first, onnx.constant(0, dtype)), boxes, converted)


def _axes(parts: Sequence[str], begin: int) -> list[tuple[str, str]]:
    return [(parts[begin], parts[begin + 2]), (parts[begin + 1], parts[begin + 3])]


def _filled_up(
    onnx: OnnxModel, out: str, boxes: Operand, count: Count, kept: Count, dtype: str
) -> str:
    """Append rows of -1 until there are as many as in the input."""
    if count is not None and kept is not None:
        pads = onnx.ints([0, 0, 0, 0, count - kept, 0])
    else:
        missing = onnx.op("Sub", onnx.op("Shape", boxes), onnx.op("Shape", out))
        pads = onnx.op("Concat", onnx.ints([0, 0, 0]), missing, axis=0)
    return onnx.op("Pad", out, pads, onnx.constant(-1, dtype))
