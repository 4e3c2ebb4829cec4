"""The same elements under another type or shape, or in another order.

MXNet's reshapes say a size in terms of the input's axes. `Size` holds that, so that a size
becomes a number where it is known, ONNX's own 0 or -1 where that suffices, and arithmetic on
``Shape`` only where nothing else is left.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import mxnet as mx

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import ELEMENT_TYPES, OnnxModel, Operand
from ..registry import converts
from . import known_rank, known_shape, normalized_axis, shape_vector, size_vector


@dataclass(frozen=True)
class Size:
    """One size of a new shape: ``factor * (product of x's sizes along axes) // divisor``."""

    x: Value | None = None
    axes: tuple[int, ...] = ()
    factor: int = 1
    divisor: int = 1

    def number(self) -> int | None:
        """Return the size, or None when it depends on sizes that are not known."""
        sizes = [self.x.shape[axis] if self.x and self.x.shape else None for axis in self.axes]
        known = [size for size in sizes if size is not None]
        if len(known) < len(sizes):
            return None
        return self.factor * math.prod(known) // self.divisor

    def vector(self, onnx: OnnxModel) -> str:
        """Return an int64 vector of one element that holds the size at run time."""
        number = self.number()
        if number is not None or self.x is None:
            return onnx.ints([self.factor if number is None else number])
        made = size_vector(onnx, self.x, self.axes[0])
        for axis in self.axes[1:]:
            made = onnx.op("Mul", made, size_vector(onnx, self.x, axis))
        if self.factor != 1:
            made = onnx.op("Mul", made, onnx.ints([self.factor]))
        if self.divisor != 1:
            made = onnx.op("Div", made, onnx.ints([self.divisor]))
        return made


INT64_MAX = 2**63 - 1
INFERRED = Size(factor=-1)
"""The size that follows from all others."""


def sizes_of(x: Value, axes: Iterable[int]) -> list[Size]:
    """Return the sizes of `x` along `axes`."""
    return [Size(x, (axis,)) for axis in axes]


def reshaped(
    onnx: OnnxModel, data: Operand, sizes: Sequence[Size], like: Value, leading: int | None = None
) -> str:
    """Add a ``Reshape`` of `data` to `sizes`, in the form that needs the fewest sizes.

    Parameters
    ----------
    data : Value or str
        What is reshaped.
    sizes : sequence of Size
        At most one may be `INFERRED`.
    like : Value
        Has the leading sizes of `data`, so that ONNX's 0 may copy them; `data` in most cases.
    leading : int, optional
        How many sizes `like` and `data` have in common; by default all.
    """
    numbers = [size.number() for size in sizes]
    has_empty_axis = 0 in numbers
    if not has_empty_axis:
        for axis, size in enumerate(sizes[:leading]):
            if numbers[axis] is None and size == Size(like, (axis,)):
                numbers[axis] = 0
        if numbers.count(None) == 1 and -1 not in numbers:
            numbers[numbers.index(None)] = -1
    if None not in numbers:
        target = onnx.ints(number for number in numbers if number is not None)
    else:
        if mx.util.is_np_shape() and -1 not in numbers:  # a 0 at run time is a size
            numbers, has_empty_axis = [size.number() for size in sizes], True
        pairs = zip(sizes, numbers)
        vectors = [s.vector(onnx) if n is None else onnx.ints([n]) for s, n in pairs]
        target = onnx.op("Concat", *vectors, axis=0)
    return onnx.op("Reshape", data, target, allowzero=1 if has_empty_axis else None)


@converts("Reshape")
def reshape(
    onnx: OnnxModel,
    x: Value,
    *,
    shape: tuple[int, ...] = (),
    reverse: bool = False,
    target_shape: tuple[int, ...] = (),
    keep_highest: bool = False,
) -> str:
    """``Reshape`` -> ``Reshape``; the codes 0 to -4 become numbers as far as sizes are known."""
    if not shape and not target_shape:
        raise UnsupportedOp("shape=() leaves the new shape to what reads the output")
    if shape:
        sizes = _decode(x, shape, reverse)
    else:  # how MXNet said it before 0.7: a 0 is what `shape` calls -1
        sizes = [Size(factor=n) if n else INFERRED for n in target_shape]
        if keep_highest:
            sizes[0] = Size(x, (0,))
    if sizes.count(INFERRED) > 1:
        raise UnsupportedOp(f"target_shape={target_shape} leaves more than one size open")
    return reshaped(onnx, x, without_inferred(x, sizes), x)


def _decode(x: Value, shape: tuple[int, ...], reverse: bool) -> list[Size]:
    """Return what the codes of ``Reshape`` mean for `x`."""
    rank = known_rank(x) if -2 in shape else x.rank
    codes = list(reversed(shape)) if reverse else list(shape)
    sizes: list[Size] = []
    source = index = 0
    while index < len(codes):
        code = codes[index]
        if code == -1 and index != len(sizes):
            # MXNet 1.9.1 writes the inferred size to the place of the code, not of the size
            raise UnsupportedOp(f"shape={shape} has a -1 behind -2 or -4, which MXNet infers wrong")
        if code == -2:
            rest = range(source, rank or 0)
            sizes += sizes_of(x, rest)
            source += len(rest)
        elif code == -4:
            if len(codes) < index + 3:
                raise UnsupportedOp(f"shape={shape} has no two sizes behind its -4")
            sizes += split_sizes(x, source, *codes[index + 1 : index + 3])
            index += 2
            source += 1
        else:
            merged = {0: (source,), -3: (source, source + 1)}.get(code)
            sizes.append(Size(x, merged) if merged else Size(factor=code))
            source += len(merged or (source,))
        index += 1
    if not reverse:
        return sizes
    last = -1 if rank is None else rank - 1
    flipped = [Size(s.x, tuple(last - a for a in s.axes), s.factor, s.divisor) for s in sizes]
    return flipped[::-1]


def split_sizes(x: Value, axis: int, first: int, second: int) -> list[Size]:
    """Return the two sizes of an axis that the code -4 splits; one of them may be -1."""
    if first == -1:
        return [Size(x, (axis,), divisor=second), Size(factor=second)]
    if second == -1:
        return [Size(factor=first), Size(x, (axis,), divisor=first)]
    return [Size(factor=first), Size(factor=second)]


def without_inferred(x: Value, sizes: list[Size]) -> list[Size]:
    """Return the sizes with a number in place of `INFERRED` when every size of `x` is known."""
    if INFERRED not in sizes or x.shape is None or None in x.shape:
        return sizes
    others = math.prod(size.number() or 0 for size in sizes if size != INFERRED)
    if others == 0:
        raise UnsupportedOp(f"{x.name!r} is empty, so the size -1 cannot be inferred")
    inferred = Size(factor=math.prod(known_shape(x)) // others)
    return [inferred if size == INFERRED else size for size in sizes]


@converts("Flatten")
def flatten(onnx: OnnxModel, x: Value) -> str:
    """``Flatten`` -> ``Flatten``: rows of all axes but the first."""
    return onnx.op("Flatten", x, axis=1)


@converts("reshape_like")
def reshape_like(
    onnx: OnnxModel,
    x: Value,
    like: Value,
    *,
    lhs_begin: int | None = None,
    lhs_end: int | None = None,
    rhs_begin: int | None = None,
    rhs_end: int | None = None,
) -> str:
    """``reshape_like`` -> ``Reshape``; some axes of the input become axes of the other."""
    if (lhs_begin, lhs_end, rhs_begin, rhs_end) == (None,) * 4:
        allow = 1 if mx.util.is_np_shape() else None  # only there may an axis be empty
        return onnx.op("Reshape", x, shape_vector(onnx, like), allowzero=allow)
    axes, others = range(known_rank(x)), range(known_rank(like))
    replaced = axes[lhs_begin:lhs_end]
    sizes = [
        *sizes_of(x, axes[: replaced.start]),
        *sizes_of(like, others[rhs_begin:rhs_end]),
        *sizes_of(x, axes[replaced.stop :]),
    ]
    return reshaped(onnx, x, sizes, x)


@converts("transpose")
def transpose(onnx: OnnxModel, x: Value, *, axes: tuple[int, ...] = ()) -> str:
    """``transpose`` -> ``Transpose``; both reverse the axes when none are given."""
    return onnx.op("Transpose", x, perm=axes or None)


@converts("SwapAxis")
def swap_axis(onnx: OnnxModel, x: Value, *, dim1: int = 0, dim2: int = 0) -> str:
    """``SwapAxis`` -> ``Transpose``."""
    rank = known_rank(x)
    one, two = normalized_axis(dim1, rank), normalized_axis(dim2, rank)
    perm = list(range(rank))
    perm[one], perm[two] = two, one
    return onnx.op("Transpose", x, perm=perm)


@converts("expand_dims")
def expand_dims(onnx: OnnxModel, x: Value, *, axis: int) -> str:
    """``expand_dims`` -> ``Unsqueeze``; a negative axis counts in the result in both."""
    return onnx.op("Unsqueeze", x, onnx.ints([axis]))


@converts("squeeze")
def squeeze(onnx: OnnxModel, x: Value, *, axis: tuple[int, ...] | None = None) -> str:
    """``squeeze`` -> ``Squeeze``; one axis is left in any case."""
    rank = known_rank(x)
    if axis is None:
        axes = [i for i, size in enumerate(known_shape(x)) if size == 1]
    else:
        axes = [normalized_axis(a, rank) for a in axis]
    if len(axes) == rank:
        del axes[0]
    return onnx.op("Squeeze", x, onnx.ints(axes)) if axes else onnx.op("Identity", x)


@converts("Concat")
def concat(onnx: OnnxModel, *xs: Value, dim: int = 1) -> str:
    """``Concat`` -> ``Concat``."""
    return onnx.op("Concat", *xs, axis=dim)


@converts("stack")
def stack(onnx: OnnxModel, *xs: Value, axis: int = 0) -> str:
    """``stack`` -> ``Concat`` of inputs with a new axis of size 1."""
    return onnx.op("Concat", *(onnx.op("Unsqueeze", x, onnx.ints([axis])) for x in xs), axis=axis)


@converts("tile")
def tile(onnx: OnnxModel, x: Value, *, reps: tuple[int, ...]) -> str:
    """``tile`` -> ``Tile``; the shorter of shape and `reps` gets ones in front."""
    rank = known_rank(x)
    if not rank and not reps:  # ONNX Runtime 1.23 tiles no number
        return onnx.op("Identity", x)
    new_axes = range(len(reps) - rank)
    grown = onnx.op("Unsqueeze", x, onnx.ints(new_axes)) if new_axes else x
    return onnx.op("Tile", grown, onnx.ints([*[1] * (rank - len(reps)), *reps]))


@converts("repeat")
def repeat(onnx: OnnxModel, x: Value, *, repeats: int, axis: int | None = None) -> str:
    """``repeat`` -> ``Expand`` of a new axis behind the repeated one, merged by ``Reshape``."""
    if not repeats:  # of which MXNet makes a vector, whatever the axis
        flat = onnx.op("Reshape", x, onnx.ints([-1]))
        return onnx.op("Slice", flat, onnx.ints([0]), onnx.ints([0]))
    if axis is None:
        column = onnx.op("Reshape", x, onnx.ints([-1, 1]))
        return onnx.op(
            "Reshape", onnx.op("Expand", column, onnx.ints([1, repeats])), onnx.ints([-1])
        )
    rank = known_rank(x)
    axis = normalized_axis(axis, rank)
    split = onnx.op("Unsqueeze", x, onnx.ints([axis + 1]))
    copies = onnx.op("Expand", split, onnx.ints([repeats, *[1] * (rank - axis - 1)]))
    sizes = sizes_of(x, range(rank))
    sizes[axis] = Size(x, (axis,), factor=repeats)
    return reshaped(onnx, copies, sizes, x, leading=axis)


@converts("reverse")
def reverse(onnx: OnnxModel, x: Value, *, axis: tuple[int, ...]) -> str:
    """``reverse`` -> ``Slice`` with steps of -1."""
    last = step = onnx.ints([-1] * len(axis))
    before_first = onnx.ints([-INT64_MAX] * len(axis))
    return onnx.op("Slice", x, last, before_first, onnx.ints(axis), step)


@converts("Cast")
def cast(onnx: OnnxModel, x: Value, *, dtype: str) -> str:
    """``Cast`` -> ``Cast``."""
    if dtype not in ELEMENT_TYPES:
        raise UnsupportedOp(f"dtype={dtype!r} is a type that the engines do not have")
    return onnx.cast(x, dtype)


@converts("_copy")
def copy(onnx: OnnxModel, x: Value) -> str:
    """``_copy`` -> ``Identity``."""
    return onnx.op("Identity", x)


@converts("shape_array")
def shape_array(onnx: OnnxModel, x: Value) -> str:
    """``shape_array`` -> ``Shape``."""
    return onnx.op("Shape", x)


@converts("size_array")
def size_array(onnx: OnnxModel, x: Value) -> str:
    """``size_array`` -> ``Size``, as a vector of one element."""
    return onnx.op("Reshape", onnx.op("Size", x), onnx.ints([1]))


@converts("cast_storage")
def cast_storage(onnx: OnnxModel, x: Value, *, stype: str) -> str:
    """``cast_storage`` -> ``Identity``: dense arrays stay dense."""
    if stype != "default":
        raise UnsupportedOp(f"stype={stype!r} makes a sparse array, which engines do not have")
    return onnx.op("Identity", x)
