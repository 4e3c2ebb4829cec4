"""Shapes as NumPy has them: reshaping, moving axes, stacking and splitting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import known_rank, known_shape, normalized_axis, shape_vector, size_vector
from .creation import as_dtype
from .indexing import split_v2
from .shape import INFERRED, INT64_MAX, Size, reshaped, sizes_of, split_sizes, without_inferred
from .shape import reverse as reversed_along


@converts("_np_reshape")
def reshape(onnx: OnnxModel, x: Value, *, newshape: tuple[int, ...], order: str = "C") -> str:
    """``_np_reshape`` -> ``Reshape``; a 0 is a size and a -1 is inferred, whatever the `order`."""
    sizes = [INFERRED if n == -1 else Size(factor=n) for n in newshape]
    return reshaped(onnx, x, without_inferred(x, sizes), x)


@converts("_npx_reshape")
def reshape_by_codes(
    onnx: OnnxModel,
    x: Value,
    *,
    newshape: tuple[int, ...],
    reverse: bool = False,
    order: str = "C",
) -> str:
    """``_npx_reshape`` -> ``Reshape``; the codes -2 to -6 become numbers as far as possible."""
    axes = list(range(known_rank(x)))
    sizes = _decode(x, axes[::-1], newshape[::-1])[::-1] if reverse else _decode(x, axes, newshape)
    return reshaped(onnx, x, without_inferred(x, sizes), x)


def _decode(x: Value, axes: list[int], codes: Sequence[int]) -> list[Size]:
    """Return what the codes mean, which take the axes of `x` one after the other."""
    sizes: list[Size] = []
    source = index = 0
    while index < len(codes):
        code, here = codes[index], axes[source : source + 1]
        if code == -4:
            rest = axes[source:]
            sizes += sizes_of(x, rest)
            source += len(rest) - 1
        elif code == -5:
            sizes.append(Size(x, tuple(sorted(axes[source : source + 2]))))
            source += 1
        elif code == -6:
            sizes += split_sizes(x, here[0], *codes[index + 1 : index + 3])
            index += 2
        elif code != -3:  # which leaves out a size of 1
            known = {-1: INFERRED, -2: Size(x, tuple(here))}
            sizes.append(known.get(code, Size(factor=code)))
        source += 1
        index += 1
    return sizes


@converts("_np_squeeze")
def squeeze(onnx: OnnxModel, x: Value, *, axis: tuple[int, ...] | None = None) -> str:
    """``_np_squeeze`` -> ``Squeeze``; both remove every axis of size 1 when none is given."""
    if axis is None:
        return onnx.op("Squeeze", x)
    if not axis:
        return onnx.op("Identity", x)
    rank = known_rank(x)
    return onnx.op("Squeeze", x, onnx.ints(normalized_axis(a, rank) for a in axis))


@converts("_np_transpose")
def transpose(onnx: OnnxModel, x: Value, *, axes: tuple[int, ...] | None = None) -> str:
    """``_np_transpose`` -> ``Transpose``; both reverse the axes when none are given."""
    if not axes:
        return onnx.op("Transpose", x)
    return onnx.op("Transpose", x, perm=[normalized_axis(a, len(axes)) for a in axes])


@converts("_np_moveaxis")
def moveaxis(
    onnx: OnnxModel, x: Value, *, source: tuple[int, ...], destination: tuple[int, ...]
) -> str:
    """``_np_moveaxis`` -> ``Transpose``."""
    rank = known_rank(x)
    moved = {
        normalized_axis(to, rank): normalized_axis(a, rank) for a, to in zip(source, destination)
    }
    rest = iter([axis for axis in range(rank) if axis not in moved.values()])
    return onnx.op(
        "Transpose", x, perm=[moved[i] if i in moved else next(rest) for i in range(rank)]
    )


@converts("_npi_flip")
def flip(onnx: OnnxModel, x: Value, *, axis: tuple[int, ...]) -> str:
    """``_npi_flip`` -> ``Slice`` with steps of -1."""
    return reversed_along(onnx, x, axis=axis) if axis else onnx.op("Identity", x)


@converts("_npi_rot90")
def rot90(onnx: OnnxModel, x: Value, *, k: int = 1, axes: tuple[int, ...] | None = None) -> str:
    """``_npi_rot90`` -> ``Transpose`` of two axes, one of which a ``Slice`` reverses."""
    if axes is None:
        raise UnsupportedOp("axes=None: MXNet rotates no array without two axes")
    rank = known_rank(x)
    first, second = (normalized_axis(a, rank) for a in axes)
    turns = k % 4
    if turns == 0:
        return onnx.op("Identity", x)
    if turns == 2:
        return reversed_along(onnx, x, axis=(first, second))
    order = list(range(rank))
    order[first], order[second] = second, first
    turned = onnx.op("Transpose", x, perm=order)
    last, before_first = onnx.ints([-1]), onnx.ints([-INT64_MAX])
    axis = onnx.ints([first if turns == 1 else second])
    return onnx.op("Slice", turned, last, before_first, axis, last)


@converts("_np_roll")
def roll(
    onnx: OnnxModel,
    x: Value,
    *,
    shift: tuple[int, ...] | None = None,
    axis: tuple[int, ...] | None = None,
) -> str:
    """``_np_roll`` -> two ``Slice`` of each axis, the last first."""
    if shift is None:
        raise UnsupportedOp("shift=None: MXNet rolls nothing without a number of places")
    if axis is None:
        flat = onnx.op("Reshape", x, onnx.ints([-1]))
        rolled = _rolled(onnx, flat, 0, shift[0], element_count(onnx, x))
        return onnx.op("Reshape", rolled, shape_vector(onnx, x), allowzero=1)
    found: Operand = x
    for a, places in zip(axis, shift if len(shift) > 1 else shift * len(axis)):
        there = normalized_axis(a, known_rank(x))
        found = _rolled(onnx, found, there, places, size_vector(onnx, x, there))
    return onnx.op("Identity", x) if found is x else str(found)


def _rolled(onnx: OnnxModel, x: Operand, axis: int, places: int, size: str) -> str:
    """Move the last `places` elements of an axis to its front; `size` is a vector of one."""
    at_least_one = onnx.op("Max", size, onnx.ints([1]))
    cut = onnx.op("Mod", onnx.ints([abs(places)]), at_least_one)
    if places > 0:  # of sizes below 0 TensorRT 8.5 makes other remainders
        cut = onnx.op("Mod", onnx.op("Sub", at_least_one, cut), at_least_one)
    along = onnx.ints([axis])
    tail = onnx.op("Slice", x, cut, onnx.ints([INT64_MAX]), along)
    return onnx.op("Concat", tail, onnx.op("Slice", x, onnx.ints([0]), cut, along), axis=axis)


def element_count(onnx: OnnxModel, x: Value) -> str:
    """Return how many elements `x` has, as an int64 vector of one element."""
    if x.shape is None or None in x.shape:
        return onnx.op("Reshape", onnx.op("Size", x), onnx.ints([1]))
    return onnx.ints([math.prod(known_shape(x))])


@converts("_npi_broadcast_to")
def broadcast_to(onnx: OnnxModel, x: Value, *, shape: tuple[int, ...] = ()) -> str:
    """``_npi_broadcast_to`` -> ``Expand``; MXNet's -2 keeps a size of `x`, as ONNX's 1 does."""
    return onnx.op("Expand", x, onnx.ints(1 if n < 0 else n for n in shape))


# -- joining and splitting -------------------------------------------------------------------------


def _at_least(onnx: OnnxModel, x: Value, rank: int) -> Operand:
    """Give `x` the axes of size 1 that NumPy's ``atleast_1d`` to ``atleast_3d`` give it."""
    missing = rank - known_rank(x)
    if missing <= 0:
        return x
    new = [0, 2][:missing] if (rank, x.rank) == (3, 1) else range(x.rank or 0, rank)
    if (rank, x.rank) == (2, 1):
        new = [0]
    return onnx.op("Unsqueeze", x, onnx.ints(new))


def _atleast(rank: int, onnx: OnnxModel, *xs: Value) -> tuple[str, ...]:
    grown = (_at_least(onnx, x, rank) for x in xs)
    return tuple(onnx.op("Identity", x) if isinstance(x, Value) else str(x) for x in grown)


for _rank in (1, 2, 3):
    converts(f"_np_atleast_{_rank}d")(partial(_atleast, _rank))


@converts("_npi_concatenate")
def concatenate(onnx: OnnxModel, *xs: Value, axis: int | None = 0) -> str:
    """``_npi_concatenate`` -> ``Concat``, of flattened inputs when there is no axis."""
    if axis is not None:
        return onnx.op("Concat", *xs, axis=axis)
    return onnx.op("Concat", *(onnx.op("Reshape", x, onnx.ints([-1])) for x in xs), axis=0)


@converts("_npi_hstack")
def hstack(onnx: OnnxModel, *xs: Value, dim: int = 1) -> str:
    """``_npi_hstack`` -> ``Concat`` of the second axis, or of the only one."""
    axis = 1 if known_rank(xs[0]) > 1 else 0
    return onnx.op("Concat", *(_at_least(onnx, x, 1) for x in xs), axis=axis)


@converts("_npi_vstack")
def vstack(onnx: OnnxModel, *xs: Value) -> str:
    """``_npi_vstack`` -> ``Concat`` of the first axis; a vector is a row."""
    return onnx.op("Concat", *(_at_least(onnx, x, 2) for x in xs), axis=0)


@converts("_npi_dstack")
def dstack(onnx: OnnxModel, *xs: Value, dim: int = 1) -> str:
    """``_npi_dstack`` -> ``Concat`` of the third axis."""
    return onnx.op("Concat", *(_at_least(onnx, x, 3) for x in xs), axis=2)


@converts("_npi_column_stack")
def column_stack(onnx: OnnxModel, *xs: Value) -> str:
    """``_npi_column_stack`` -> ``Concat`` of the second axis; a vector is a column."""
    columns = (onnx.op("Reshape", x, onnx.ints([-1, 1])) if known_rank(x) < 2 else x for x in xs)
    return onnx.op("Concat", *columns, axis=1)


@converts("_npi_hsplit")
def hsplit(
    onnx: OnnxModel,
    x: Value,
    *,
    indices: tuple[int, ...],
    axis: int = 1,
    squeeze_axis: bool = False,
    sections: int = 0,
) -> tuple[str, ...]:
    """``_npi_hsplit`` -> ``Split`` or ``Slice`` of the second axis, or of the only one."""
    del axis  # MXNet does not read it
    there = 1 if known_rank(x) > 1 else 0
    return split_v2(
        onnx, x, indices=indices, axis=there, squeeze_axis=squeeze_axis, sections=sections
    )


@converts("_npi_dsplit")
def dsplit(
    onnx: OnnxModel,
    x: Value,
    *,
    indices: tuple[int, ...],
    axis: int = 1,
    squeeze_axis: bool = False,
    sections: int = 0,
) -> tuple[str, ...]:
    """``_npi_dsplit`` -> ``Split`` or ``Slice`` of the third axis."""
    if axis != 2:
        raise UnsupportedOp(f"axis={axis}: NumPy splits axis 2, and MXNet's own values are none")
    return split_v2(onnx, x, indices=indices, axis=2, squeeze_axis=squeeze_axis, sections=sections)


# -- padding ---------------------------------------------------------------------------------------


@converts("_npi_pad")
def pad(
    onnx: OnnxModel,
    x: Value,
    *,
    pad_width: tuple[tuple[int, ...], ...],
    mode: str = "constant",
    constant_value: float = 0.0,
    reflect_type: str = "even",
) -> str:
    """``_npi_pad`` -> ``Pad``; what it has no mode for, or no room for, axis by axis.

    Special numbers: of NaN beside numbers ``maximum`` and ``minimum`` may choose otherwise than
    MXNet.
    """
    del reflect_type  # MXNet takes it for "even"
    if known_rank(x) != len(pad_width):
        raise UnsupportedOp(f"pad_width={pad_width} is not that of {x.rank} axes")
    padded = [(axis, *pair) for axis, pair in enumerate(pad_width) if pair != (0, 0)]
    if mode != "constant" and any(_is_empty(x, axis) for axis, *_ in padded):
        raise UnsupportedOp(f"mode={mode!r} repeats elements of an axis that has none")
    if mode in {"constant", "edge"}:
        pads = onnx.ints([*(before for before, _ in pad_width), *(after for _, after in pad_width)])
        value = onnx.constant(as_dtype(constant_value, x.dtype), x.dtype)
        return onnx.op("Pad", x, pads, value if mode == "constant" else None, mode=mode)
    found: Operand = x
    for axis, before, after in padded:
        if mode in {"reflect", "symmetric"}:
            places = _mirrored(onnx, x, axis, before, after, repeats_edge=mode == "symmetric")
            found = onnx.op("Gather", found, places, axis=axis)
        else:
            extreme = _extreme(onnx, found, axis, mode, x.dtype)
            found = onnx.op("Concat", *[extreme] * before, found, *[extreme] * after, axis=axis)
    return onnx.op("Identity", x) if found is x else str(found)


def _is_empty(x: Value, axis: int) -> bool:
    return x.shape is not None and x.shape[axis] == 0


def _extreme(onnx: OnnxModel, x: Operand, axis: int, mode: str, dtype: str) -> str:
    op_type = "ReduceMax" if mode == "maximum" else "ReduceMin"
    if dtype != "bool":
        return onnx.op(op_type, x, axes=[axis], keepdims=1)
    return onnx.cast(onnx.op(op_type, onnx.cast(x, "int32"), axes=[axis], keepdims=1), dtype)


def _mirrored(
    onnx: OnnxModel, x: Value, axis: int, before: int, after: int, repeats_edge: bool
) -> str:
    """Return the places along an axis that lie there when it goes on as its mirror images."""
    size = x.shape[axis] if x.shape is not None else None
    if size is not None:
        mode = "symmetric" if repeats_edge else "reflect"
        return onnx.ints(np.pad(np.arange(size), (before, after), mode).tolist())  # type: ignore[call-overload]
    number = onnx.op("Squeeze", size_vector(onnx, x, axis), onnx.ints([0]))
    one = onnx.constant(1, "int64")
    last = number if repeats_edge else onnx.op("Sub", number, one)
    double = onnx.op("Add", last, last)
    end = onnx.op("Add", number, onnx.constant(after, "int64"))
    places = onnx.op("Range", onnx.constant(-before, "int64"), end, one)
    places = onnx.op("Mod", places, onnx.op("Max", double, one))
    back = onnx.op("Sub", double, places)
    return onnx.op("Min", places, onnx.op("Sub", back, one) if repeats_edge else back)
