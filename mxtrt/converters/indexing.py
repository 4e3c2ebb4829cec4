"""Parts of arrays: slices, splits, and elements picked by index.

MXNet takes indices of any type, truncates them, and clips or wraps what is out of bounds; ONNX
takes integers that must be in bounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Optional

import numpy as np

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import known_rank, known_size, normalized_axis, shape_vector, size_vector
from .creation import as_dtype, filled

INT64_MAX = 2**63 - 1

Limits = tuple[Optional[int], Optional[int], int]
"""Begin, end and step of a slice."""


@converts("slice")
def slice_(
    onnx: OnnxModel,
    x: Value,
    *,
    begin: tuple[int | None, ...],
    end: tuple[int | None, ...],
    step: tuple[int | None, ...] = (),
) -> str:
    """``slice`` -> ``Slice`` on the axes that are cut."""
    return sliced(onnx, x, _limits(begin, end, step))


def _limits(
    begin: tuple[int | None, ...], end: tuple[int | None, ...], step: tuple[int | None, ...]
) -> dict[int, Limits]:
    """Return Python's ``begin:end:step`` of each axis that is cut."""
    steps = [1 if s is None else s for s in (*step, *[None] * (len(begin) - len(step)))]
    return {
        axis: limits
        for axis, limits in enumerate(zip(begin, end, steps))
        if limits not in {(None, None, 1), (0, None, 1)}
    }


def sliced(onnx: OnnxModel, x: Operand, limits: dict[int, Limits]) -> str:
    """Add a ``Slice`` with Python's meaning of ``begin:end:step`` on some axes."""
    if not limits:
        return onnx.op("Identity", x)
    begins = [(0 if s > 0 else INT64_MAX) if b is None else b for b, _, s in limits.values()]
    ends = [(INT64_MAX if s > 0 else -INT64_MAX) if e is None else e for _, e, s in limits.values()]
    steps = [s for _, _, s in limits.values()]
    given_steps = onnx.ints(steps) if set(steps) != {1} else None
    return onnx.op("Slice", x, onnx.ints(begins), onnx.ints(ends), onnx.ints(limits), given_steps)


@converts("slice_axis")
def slice_axis(onnx: OnnxModel, x: Value, *, axis: int, begin: int, end: int | None = None) -> str:
    """``slice_axis`` -> ``Slice``."""
    return sliced(onnx, x, {axis: (begin, end, 1)})


@converts("slice_like")
def slice_like(onnx: OnnxModel, x: Value, like: Value, *, axes: tuple[int, ...] = ()) -> str:
    """``slice_like`` -> ``Slice`` up to the sizes of the other input."""
    rank, like_rank = known_rank(x), known_rank(like)
    cut = [normalized_axis(a, rank) for a in axes] or list(range(rank))
    if not cut:
        return onnx.op("Identity", x)
    if max(cut) >= like_rank:
        raise UnsupportedOp(f"axis={max(cut)} does not exist in {like.name!r}")
    sizes = [size_vector(onnx, like, axis) for axis in cut]
    ends = sizes[0] if len(sizes) == 1 else onnx.op("Concat", *sizes, axis=0)
    return onnx.op("Slice", x, onnx.ints([0] * len(cut)), ends, onnx.ints(cut))


@converts("SliceChannel")
def slice_channel(
    onnx: OnnxModel, x: Value, *, num_outputs: int, axis: int = 1, squeeze_axis: bool = False
) -> tuple[str, ...]:
    """``SliceChannel`` -> ``Split`` into equal parts."""
    return _split(onnx, x, num_outputs, axis, squeeze_axis)


@converts("_split_v2")
def split_v2(
    onnx: OnnxModel,
    x: Value,
    *,
    indices: tuple[int, ...],
    axis: int = 1,
    squeeze_axis: bool = False,
    sections: int = 0,
) -> tuple[str, ...]:
    """``_split_v2`` -> ``Split`` into equal parts, or one ``Slice`` for each part."""
    if sections:
        return _split(onnx, x, sections, axis, squeeze_axis)
    limits = zip(indices, (*indices[1:], None))
    parts = [sliced(onnx, x, {axis: (begin, end, 1)}) for begin, end in limits]
    return _squeezed(onnx, parts, axis) if squeeze_axis else tuple(parts)


def _split(onnx: OnnxModel, x: Value, count: int, axis: int, squeeze: bool) -> tuple[str, ...]:
    parts = onnx.ops("Split", x, outputs=count, axis=axis)
    return _squeezed(onnx, parts, axis) if squeeze else parts


def _squeezed(onnx: OnnxModel, parts: Sequence[str], axis: int) -> tuple[str, ...]:
    return tuple(onnx.op("Squeeze", part, onnx.ints([axis])) for part in parts)


# -- elements by index ---------------------------------------------------------------------------


@converts("Embedding", "_contrib_SparseEmbedding")
def embedding(
    onnx: OnnxModel,
    x: Value,
    weight: Value,
    *,
    input_dim: int,
    output_dim: int,
    dtype: str = "float32",
) -> str:
    """``Embedding`` -> ``Gather`` of the weight's rows; indices out of bounds are clipped."""
    del input_dim, output_dim, dtype  # the weight says all three
    return onnx.op("Gather", weight, in_bounds(onnx, x, "clip", weight, 0))


@converts("take")
def take(onnx: OnnxModel, x: Value, indices: Value, *, axis: int = 0, mode: str = "clip") -> str:
    """``take`` -> ``Gather``."""
    return onnx.op("Gather", x, in_bounds(onnx, indices, mode, x, axis), axis=axis)


@converts("pick")
def pick(
    onnx: OnnxModel,
    x: Value,
    index: Value,
    *,
    axis: int | None = -1,
    keepdims: bool = False,
    mode: str = "clip",
) -> str:
    """``pick`` -> ``GatherElements`` of one element along the axis."""
    if axis is None:
        raise UnsupportedOp("axis=None picks nothing in MXNet either")
    rank = known_rank(x)
    indices = in_bounds(onnx, index, mode, x, axis)
    if known_rank(index) < rank:
        indices = onnx.op("Unsqueeze", indices, onnx.ints([axis]))
    picked = onnx.op("GatherElements", x, indices, axis=axis)
    if keepdims or rank == 1:  # one axis is left in any case
        return picked
    return onnx.op("Squeeze", picked, onnx.ints([axis]))


@converts("batch_take")
def batch_take(onnx: OnnxModel, x: Value, indices: Value) -> str:
    """``batch_take`` -> ``GatherElements`` of one element in each row."""
    if known_rank(x) != 2:
        raise UnsupportedOp(f"{x.name!r} has {x.rank} axes; MXNet reads only matrices right")
    columns = onnx.op("Reshape", in_bounds(onnx, indices, "clip", x, 1), onnx.ints([-1, 1]))
    return onnx.op("Squeeze", onnx.op("GatherElements", x, columns, axis=1), onnx.ints([1]))


def as_indices(onnx: OnnxModel, x: Value) -> Operand:
    """Return `x` as int32 or int64; MXNet truncates and so does ``Cast``."""
    if x.dtype in {"int32", "int64"}:
        return x
    return onnx.cast(x, index_type(x))


def index_type(x: Value) -> str:
    """Return the type that holds every index that `x` may have."""
    return "int32" if x.dtype in {"int32", "int8", "uint8"} else "int64"


def in_bounds(onnx: OnnxModel, x: Value, mode: str, of: Value, axis: int) -> str:
    """Return the indices `x` into `of` along `axis` as integers that ONNX's gathers accept.

    Parameters
    ----------
    mode : str
        ``"clip"``, ``"wrap"``, or ``"raise"``: with the last, an index that MXNet refuses is one
        that ONNX refuses too.
    """
    indices, dtype = as_indices(onnx, x), index_type(x)
    zero = onnx.constant(0, dtype)
    if mode == "clip":
        last = _size_as(onnx, of, axis, dtype, less=1)
        if dtype == "int32":
            return onnx.op("Max", onnx.op("Min", indices, last), zero)
        # Min and Max of int64 in ONNX Runtime 1.21 to 1.31 err between 2**31 and 2**32
        low = onnx.op("Where", onnx.op("Less", indices, zero), zero, indices)
        return onnx.op("Where", onnx.op("Less", low, last), low, last)
    size = _size_as(onnx, of, axis, dtype)
    if mode == "wrap":
        return onnx.op("Mod", indices, size)
    # ONNX counts negative indices from the end, where MXNet raises
    return onnx.op("Where", onnx.op("Less", indices, zero), size, indices)


def _size_as(onnx: OnnxModel, x: Value, axis: int, dtype: str, less: int = 0) -> str:
    """Return the size of `x` along `axis` minus `less`, as a number of type `dtype`."""
    known = x.shape[axis] if x.shape is not None else None
    if known is not None:
        return onnx.constant(known - less, dtype)
    size = onnx.op("Squeeze", onnx.cast(size_vector(onnx, x, axis), dtype), onnx.ints([0]))
    return onnx.op("Sub", size, onnx.constant(less, dtype)) if less else size


@converts("one_hot")
def one_hot(
    onnx: OnnxModel,
    indices: Value,
    *,
    depth: int,
    on_value: float = 1.0,
    off_value: float = 0.0,
    dtype: str = "float32",
) -> str:
    """``one_hot`` -> ``Equal`` and ``Where``; ``OneHot`` counts negative indices from the end."""
    column = onnx.op("Unsqueeze", as_indices(onnx, indices), onnx.ints([-1]))
    hot = onnx.op("Equal", column, onnx.constant(range(depth), index_type(indices)))
    on, off = (onnx.constant(as_dtype(value, dtype), dtype) for value in (on_value, off_value))
    return onnx.op("Where", hot, on, off)


@converts("gather_nd")
def gather_nd(onnx: OnnxModel, x: Value, indices: Value) -> str:
    """``gather_nd`` -> ``GatherND``, which has the index vectors along the last axis.

    Special numbers: an index that is NaN is an error.
    """
    return onnx.op("GatherND", x, _index_vectors(onnx, indices))


@converts("scatter_nd")
def scatter_nd(onnx: OnnxModel, x: Value, indices: Value, *, shape: tuple[int, ...]) -> str:
    """``scatter_nd`` -> ``ScatterND`` into zeros; where indices repeat, both may take any."""
    zeros = filled(onnx, 0, x.dtype, onnx.ints(shape))
    return onnx.op("ScatterND", zeros, _index_vectors(onnx, indices), x)


@converts("_scatter_set_nd")
def scatter_set_nd(
    onnx: OnnxModel, x: Value, values: Value, indices: Value, *, shape: tuple[int, ...]
) -> str:
    """``_scatter_set_nd`` -> ``ScatterND``; where indices repeat, both may take any."""
    del shape  # that of x
    return onnx.op("ScatterND", x, _index_vectors(onnx, indices), values)


def _index_vectors(onnx: OnnxModel, indices: Value) -> str:
    """Return indices of shape ``(m, ...)`` as int64 of shape ``(..., m)``."""
    rank = known_rank(indices)
    whole: Operand = indices if indices.dtype == "int64" else onnx.cast(indices, "int64")
    return onnx.op("Transpose", whole, perm=[*range(1, rank), 0])


@converts("_contrib_index_copy")
def index_copy(onnx: OnnxModel, x: Value, indices: Value, new: Value) -> str:
    """``_contrib_index_copy`` -> ``ScatterND`` of rows."""
    rows = onnx.op("Unsqueeze", onnx.cast(indices, "int64"), onnx.ints([1]))
    return onnx.op("ScatterND", x, rows, new)


# -- places in a slice ---------------------------------------------------------------------------


@converts("_slice_assign")
def slice_assign(
    onnx: OnnxModel,
    x: Value,
    values: Value,
    *,
    begin: tuple[int | None, ...],
    end: tuple[int | None, ...],
    step: tuple[int | None, ...] = (),
) -> str:
    """``_slice_assign`` -> ``Where`` the slice is, with the values moved to their places."""
    places = _places(x, begin, end, step)
    if not places:
        return onnx.op("Identity", values)
    wide: Operand = values
    for axis, inside in places.items():
        source = np.zeros(known_size(x, axis), np.int64)
        source[inside] = np.arange(len(inside))
        wide = onnx.op("Gather", wide, onnx.constant(source, "int64"), axis=axis)
    return onnx.op("Where", _mask(onnx, x, places), wide, x)


@converts("_slice_assign_scalar")
def slice_assign_scalar(
    onnx: OnnxModel,
    x: Value,
    *,
    scalar: float = 0.0,
    begin: tuple[int | None, ...],
    end: tuple[int | None, ...],
    step: tuple[int | None, ...] = (),
) -> str:
    """``_slice_assign_scalar`` -> ``Where`` the slice is."""
    places = _places(x, begin, end, step)
    if not places:
        return filled(onnx, scalar, x.dtype, shape_vector(onnx, x))
    value = onnx.constant(as_dtype(scalar, x.dtype), x.dtype)
    return onnx.op("Where", _mask(onnx, x, places), value, x)


def _places(
    x: Value,
    begin: tuple[int | None, ...],
    end: tuple[int | None, ...],
    step: tuple[int | None, ...],
) -> dict[int, list[int]]:
    """Return the places that a slice takes along each axis that it cuts."""
    limits = _limits(begin, end, step)
    return {axis: list(range(known_size(x, axis))[slice(*cut)]) for axis, cut in limits.items()}


def _mask(onnx: OnnxModel, x: Value, places: dict[int, list[int]]) -> str:
    """Return booleans that broadcast to `x` and are true at the places."""
    rank, made = known_rank(x), None
    for axis, inside in places.items():
        flags = np.zeros(known_size(x, axis), bool)
        flags[inside] = True
        shaped = flags.reshape([-1 if i == axis else 1 for i in range(rank)])
        mask = onnx.constant(shaped, "bool")
        made = mask if made is None else onnx.op("And", made, mask)
    assert made is not None
    return made


# -- diagonals and flat indices ------------------------------------------------------------------


@converts("diag")
def diag(onnx: OnnxModel, x: Value, *, k: int = 0, axis1: int = 0, axis2: int = 1) -> str:
    """``diag`` -> ``Gather`` from two flattened axes; a vector goes to a matrix by ``Where``."""
    rank = known_rank(x)
    if rank == 1:
        return _matrix_of(onnx, x, k)
    rows, columns = normalized_axis(axis1, rank), normalized_axis(axis2, rank)
    others = [axis for axis in range(rank) if axis not in {rows, columns}]
    moved = onnx.op("Transpose", x, perm=[*others, rows, columns])
    height, width = known_size(x, rows), known_size(x, columns)
    flat = onnx.op("Reshape", moved, onnx.ints([*[0] * len(others), height * width]))
    places = np.arange(height * width).reshape(height, width).diagonal(k)
    return onnx.op("Gather", flat, onnx.constant(places, "int64"), axis=-1)


def _matrix_of(onnx: OnnxModel, x: Value, k: int) -> str:
    """Return a matrix with the vector `x` on its k-th diagonal."""
    size = known_size(x, 0) + abs(k)
    padded: Operand = x
    if k:
        padded = onnx.op("Concat", x, onnx.constant([0] * abs(k), x.dtype), axis=0)
    # row i holds x[i] behind the main diagonal, column j holds x[j] before it
    lines = onnx.op("Unsqueeze", padded, onnx.ints([1 if k >= 0 else 0]))
    diagonal = onnx.constant(np.eye(size, size, k, bool), "bool")
    return onnx.op("Where", diagonal, lines, onnx.constant(0, x.dtype))


@converts("_ravel_multi_index")
def ravel_multi_index(onnx: OnnxModel, x: Value, *, shape: tuple[int, ...]) -> str:
    """``_ravel_multi_index`` -> ``Mul`` with the strides and ``ReduceSum``.

    Special numbers: NaN and infinity are counted as int64's least number, in MXNet as int32's.
    """
    strides = [[stride] for stride in _strides(shape)]
    steps = onnx.op("Mul", onnx.cast(x, "int64"), onnx.constant(strides, "int64"))
    total = onnx.op("ReduceSum", steps, onnx.ints([0]), keepdims=0)
    return total if x.dtype == "int64" else onnx.cast(total, x.dtype)


@converts("_unravel_index")
def unravel_index(onnx: OnnxModel, x: Value, *, shape: tuple[int, ...]) -> str:
    """``_unravel_index`` -> ``Div`` by the strides and ``Mod`` by the sizes.

    Special numbers: NaN and infinity are counted as int64's least number, in MXNet as int32's.
    """
    if known_rank(x) != 1:
        raise UnsupportedOp(f"{x.name!r} has {x.rank} axes; MXNet unravels only vectors right")
    row = onnx.op("Unsqueeze", onnx.cast(x, "int64"), onnx.ints([0]))
    strides = [[stride] for stride in _strides(shape)]
    whole = onnx.op("Div", row, onnx.constant(strides, "int64"))
    sizes = [[INT64_MAX], *([size] for size in shape[1:])]  # MXNet does not wrap the first index
    places = onnx.op("Mod", whole, onnx.constant(sizes, "int64"), fmod=1)
    return places if x.dtype == "int64" else onnx.cast(places, x.dtype)


def _strides(shape: tuple[int, ...]) -> list[int]:
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
