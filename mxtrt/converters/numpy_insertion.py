"""Elements put between others, or over them, as NumPy does it."""

from __future__ import annotations

import numpy as np

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import (
    known_rank,
    known_shape,
    known_size,
    normalized_axis,
    shape_vector,
    size_vector,
    value_of,
)
from .creation import as_dtype, positions
from .elementwise import as_type
from .indexing import sliced
from .numpy_elementwise import choose


@converts("_npi_insert_scalar")
def insert_scalar(
    onnx: OnnxModel,
    x: Value,
    values: Value | None = None,
    *,
    val: float | None = None,
    start: int | None = None,
    stop: int | None = None,
    step: int | None = None,
    int_ind: int | None = None,
    axis: int | None = None,
) -> str:
    """``_npi_insert_scalar`` -> ``Concat`` of what is before, the values, and what is behind."""
    del start, stop, step
    if int_ind is None:
        raise UnsupportedOp("int_ind=None says no place to insert at")
    host, along = _host(onnx, x, axis)
    new = _new(onnx, host, values, val, along, moved=True)
    before = sliced(onnx, host, {along: (0, int_ind, 1)})
    behind = sliced(onnx, host, {along: (int_ind, None, 1)})
    return onnx.op("Concat", before, new, behind, axis=along)


@converts("_npi_insert_slice")
def insert_slice(
    onnx: OnnxModel,
    x: Value,
    values: Value | None = None,
    *,
    val: float | None = None,
    start: int | None = None,
    stop: int | None = None,
    step: int | None = None,
    int_ind: int | None = None,
    axis: int | None = None,
) -> str:
    """``_npi_insert_slice`` -> ``Concat`` with the values, then ``Gather`` in their order."""
    del int_ind
    host, along = _host(onnx, x, axis)
    size = known_size(host, along)
    places = list(range(size)[slice(start, stop, step)])
    if not places:
        return onnx.op("Identity", host)
    new = _new(onnx, host, values, val, along, count=len(places))
    count = len(places) if len(places) > 1 else _count(values, host, along)
    places = places if len(places) > 1 else places * count
    keys = [*(2 * i + 1 for i in range(size)), *(2 * i for i in places)]
    order = onnx.ints(int(i) for i in np.argsort(keys, kind="stable"))
    return onnx.op("Gather", onnx.op("Concat", host, new, axis=along), order, axis=along)


@converts("_npi_insert_tensor")
def insert_tensor(
    onnx: OnnxModel,
    x: Value,
    *others: Value,
    val: float | None = None,
    start: int | None = None,
    stop: int | None = None,
    step: int | None = None,
    int_ind: int | None = None,
    axis: int | None = None,
) -> str:
    """``_npi_insert_tensor`` -> ``Concat``, then ``Gather`` in the order that a ``TopK`` finds."""
    del start, stop, step, int_ind
    values, places = others if len(others) == 2 else (None, others[0])
    if known_rank(places) != 1:
        raise UnsupportedOp(f"{places.name!r} has {places.rank} axes; MXNet reads vectors only")
    host, along = _host(onnx, x, axis)
    count = known_size(places, 0)
    new = _new(onnx, host, values, val, along, count=count)
    size = size_vector(onnx, host, along)
    index = as_type(onnx, places, "int64")
    negative = onnx.op("Less", index, onnx.constant(0, "int64"))
    index = onnx.op("Where", negative, onnx.op("Add", index, size), index)
    double = onnx.op("Add", index, index)
    if count == 1:
        double = onnx.op("Expand", double, onnx.ints([_count(values, host, along)]))
    own = positions(onnx, host, along, "int64")
    keys = onnx.op("Add", onnx.op("Add", own, own), onnx.constant(1, "int64"))
    keys = onnx.op("Concat", keys, double, axis=0)
    total = onnx.op("Add", size, onnx.op("Shape", double))
    _, order = onnx.ops("TopK", keys, total, outputs=2, axis=0, largest=0)
    return onnx.op("Gather", onnx.op("Concat", host, new, axis=along), order, axis=along)


def _host(onnx: OnnxModel, x: Value, axis: int | None) -> tuple[Value, int]:
    """Return what is inserted into and where: the flattened input when there is no axis."""
    if axis is not None:
        return x, normalized_axis(axis, known_rank(x))
    known = x.shape is not None and None not in x.shape
    shape = (int(np.prod(known_shape(x))) if known else None,)
    return value_of(onnx, onnx.op("Reshape", x, onnx.ints([-1])), shape, x.dtype), 0


def _count(values: Value | None, host: Value, axis: int) -> int:
    """Return how many elements go in at a single place: as many as the values have."""
    missing = known_rank(host) - (known_rank(values) if values is not None else 0)
    return known_size(values, axis - missing) if values is not None and axis >= missing else 1


def _new(
    onnx: OnnxModel,
    host: Value,
    values: Value | None,
    val: float | None,
    axis: int,
    count: int = 1,
    moved: bool = False,
) -> str:
    """Return the new elements with the sizes of the host, or of the values along `axis`.

    NumPy puts the first axis of the values there when the place is a number (`moved`).
    """
    rank = known_rank(host)
    new: Operand
    if values is None:
        new = onnx.constant(as_dtype(float(val or 0), host.dtype), host.dtype)
    else:
        new = as_type(onnx, values, host.dtype)
        missing = rank - known_rank(values)
        if missing < 0:
            raise UnsupportedOp(f"{values.name!r} has more axes than what it is inserted into")
        if missing:
            new = onnx.op("Unsqueeze", new, onnx.ints(range(missing)))
        if moved:
            order = [*range(1, axis + 1), 0, *range(axis + 1, rank)]
            new = onnx.op("Transpose", new, perm=order)
    sizes = [size_vector(onnx, host, a) if a != axis else onnx.ints([count]) for a in range(rank)]
    return onnx.op("Expand", new, onnx.op("Concat", *sizes, axis=0))


# -- overwriting -----------------------------------------------------------------------------------


@converts("_npi_boolean_mask_assign_scalar")
def boolean_mask_assign_scalar(
    onnx: OnnxModel, x: Value, mask: Value, *, value: float, start_axis: int = 0
) -> str:
    """``_npi_boolean_mask_assign_scalar`` -> ``Where``."""
    number = onnx.constant(as_dtype(value, x.dtype), x.dtype)
    return choose(onnx, _spread(onnx, x, mask, start_axis), number, x, x.dtype)


@converts("_npi_boolean_mask_assign_tensor")
def boolean_mask_assign_tensor(
    onnx: OnnxModel, x: Value, mask: Value, value: Value, *, start_axis: int = 0
) -> str:
    """``_npi_boolean_mask_assign_tensor`` -> ``Where``; true places count through the values."""
    chosen = _spread(onnx, x, mask, start_axis)
    if known_rank(value) == 0:
        return choose(onnx, chosen, value, x, x.dtype)
    if known_rank(value) != known_rank(x) - known_rank(mask) + 1:
        raise UnsupportedOp(f"{value.name!r} does not have one axis in place of the mask's")
    flags = onnx.op("Reshape", as_type(onnx, mask, "int32"), onnx.ints([-1]))
    counted = onnx.op("CumSum", flags, onnx.constant(0, "int64"))
    places = onnx.op("Sub", onnx.cast(counted, "int64"), onnx.constant(1, "int64"))
    last = onnx.op("Sub", size_vector(onnx, value, start_axis), onnx.ints([1]))
    places = onnx.op("Max", onnx.op("Min", places, last), onnx.ints([0]))
    places = onnx.op("Reshape", places, shape_vector(onnx, mask), allowzero=1)
    rows: Operand = value
    if value.shape is None or not value.shape[start_axis]:  # there may be nothing to gather
        ends = [int(i == known_rank(value) + start_axis) for i in range(2 * known_rank(value))]
        rows = onnx.op("Pad", value, onnx.ints(ends))
    wide = onnx.op("Gather", rows, places, axis=start_axis)
    return choose(onnx, chosen, wide, x, x.dtype)


def _spread(onnx: OnnxModel, x: Value, mask: Value, start_axis: int) -> Operand:
    """Return the mask as bools with axes of size 1 for those of `x` behind it."""
    bools = as_type(onnx, mask, "bool")
    behind = known_rank(x) - start_axis - known_rank(mask)
    rank = known_rank(mask)
    return onnx.op("Unsqueeze", bools, onnx.ints(range(rank, rank + behind))) if behind else bools
