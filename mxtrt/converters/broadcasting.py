"""Repeating axes of size 1."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel
from ..registry import converts
from . import known_rank, normalized_axis, shape_vector, size_vector
from .shape import INT64_MAX


@converts("broadcast_axis")
def broadcast_axis(
    onnx: OnnxModel, x: Value, *, axis: tuple[int, ...] = (), size: tuple[int, ...] = ()
) -> str:
    """``broadcast_axis`` -> ``Expand``."""
    if len(axis) != len(size):
        raise UnsupportedOp(f"axis={axis} and size={size} differ in length")
    if x.rank is None:
        sizes = {a: onnx.ints([n]) for a, n in zip(axis, size)}
        return onnx.op("Expand", x, _shape_with(onnx, x, sizes))
    shape = [1] * x.rank
    for a, n in zip(axis, size):
        shape[normalized_axis(a, x.rank)] = n
    return onnx.op("Expand", x, onnx.ints(shape))


def _shape_with(onnx: OnnxModel, x: Value, sizes: Mapping[int, str]) -> str:
    """Return the shape of `x`, which has some number of axes, with `sizes` at some of them."""
    if any(axis < 0 for axis in sizes):
        known_rank(x)
    shape, begin, parts = onnx.op("Shape", x), 0, []
    for axis in sorted(sizes):
        parts += [_between(onnx, shape, begin, axis), sizes[axis]]
        begin = axis + 1
    return onnx.op("Concat", *parts, _between(onnx, shape, begin, INT64_MAX), axis=0)


def _between(onnx: OnnxModel, sizes: str, begin: int, end: int) -> str:
    return onnx.op("Slice", sizes, onnx.ints([begin]), onnx.ints([end]))


@converts("broadcast_to")
def broadcast_to(onnx: OnnxModel, x: Value, *, shape: tuple[int, ...] = ()) -> str:
    """``broadcast_to`` -> ``Expand``; MXNet's 0 keeps the size of `x`, as ONNX's 1 does."""
    return onnx.op("Expand", x, onnx.ints(size or 1 for size in shape))


@converts("broadcast_like")
def broadcast_like(
    onnx: OnnxModel,
    x: Value,
    like: Value,
    *,
    lhs_axes: tuple[int, ...] | None = None,
    rhs_axes: tuple[int, ...] | None = None,
) -> str:
    """``broadcast_like`` -> ``Expand`` to the shape of the other tensor, or to axes of it."""
    if lhs_axes is None or rhs_axes is None:
        return onnx.op("Expand", x, shape_vector(onnx, like))
    pairs = list(zip(lhs_axes, rhs_axes))
    if x.rank is None:
        found = {ours: size_vector(onnx, like, theirs) for ours, theirs in pairs}
        return onnx.op("Expand", x, _shape_with(onnx, x, found))
    sizes = [onnx.ints([1])] * x.rank
    for ours, theirs in pairs:
        sizes[normalized_axis(ours, x.rank)] = size_vector(onnx, like, theirs)
    return onnx.op("Expand", x, onnx.op("Concat", *sizes, axis=0))


@converts("_identity_with_attr_like_rhs", ignores=["like"])
def identity_with_attr_like_rhs(onnx: OnnxModel, x: Value, like: Value) -> str:
    """``_identity_with_attr_like_rhs`` -> ``Identity``; the shapes are equal."""
    return onnx.op("Identity", x)
