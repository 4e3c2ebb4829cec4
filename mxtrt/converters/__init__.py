"""Converters by family: one function for each operator.

Adding an operator means adding one function here; see `mxtrt.registry`. This module holds what
every family asks of a `Value`: its rank, a size, an axis counted from the front, and the ONNX
vectors that hold its sizes whether they are known or not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import mxnet as mx

from ..errors import UnsupportedOp
from ..graph import Shape, Value, format_shape

if TYPE_CHECKING:
    from ..onnx_model import OnnxModel


def known_rank(x: Value) -> int:
    """Return the number of axes of `x`.

    Raises
    ------
    UnsupportedOp
        The rank is not known.
    """
    if x.rank is None:
        raise UnsupportedOp(f"needs the rank of {x.name!r}, which is not known; pass shapes")
    return x.rank


def known_size(x: Value, axis: int) -> int:
    """Return the size of `x` along `axis`, which may be negative.

    Raises
    ------
    UnsupportedOp
        The size is not known, or there is no such axis.
    """
    axis = normalized_axis(axis, known_rank(x))
    size = x.shape[axis] if x.shape is not None else None
    if size is None:
        raise UnsupportedOp(
            f"needs the size of axis {axis} of {x.name!r}, which is not known; pass shapes"
        )
    return size


def known_shape(x: Value) -> tuple[int, ...]:
    """Return every size of `x`.

    Raises
    ------
    UnsupportedOp
        The rank or one of the sizes is not known.
    """
    return tuple(known_size(x, axis) for axis in range(known_rank(x)))


def normalized_axis(axis: int, rank: int) -> int:
    """Return `axis` counted from the front.

    Raises
    ------
    UnsupportedOp
        A tensor of `rank` axes has no such axis.
    """
    if not -rank <= axis < rank:
        raise UnsupportedOp(f"axis={axis} does not exist in a tensor of {rank} axes")
    return axis % rank


def refuse_empty(x: Value, *axes: int) -> None:
    """Refuse what is known to have no element along one of the `axes`.

    Raises
    ------
    UnsupportedOp
        A size is 0.
    """
    if x.shape is not None and any(x.shape[axis] == 0 for axis in axes):
        raise UnsupportedOp(f"{x.name!r} is {format_shape(x.shape)}: there is nothing to read")


def may_be_empty(x: Value, axes: Iterable[int] | None = None) -> bool:
    """Say whether `x` may have no element along one of the `axes`, by default any.

    Sizes that are not known are at least 1 unless NumPy's shapes are on.
    """
    if not mx.util.is_np_shape():
        return False
    sizes = x.shape if x.shape is None or axes is None else [x.shape[axis] for axis in axes]
    return sizes is None or not all(sizes)


def shape_vector(onnx: OnnxModel, x: Value) -> str:
    """Return an int64 vector of the sizes of `x`: a constant when they are known."""
    if x.shape is None or None in x.shape:
        return onnx.op("Shape", x)
    return onnx.ints(known_shape(x))


def size_vector(onnx: OnnxModel, x: Value, axis: int) -> str:
    """Return an int64 vector of one element, the size of `x` along `axis`."""
    size = x.shape[axis] if x.shape is not None else None
    if size is not None:
        return onnx.ints([size])
    return onnx.op("Gather", onnx.op("Shape", x), onnx.ints([axis]))


def value_of(onnx: OnnxModel, tensor: str, shape: Shape, dtype: str) -> Value:
    """Return a tensor that a converter made as a `Value`: with what is known of its shape."""
    value = Value(tensor, shape, dtype)
    onnx.alias(value, tensor)
    return value
