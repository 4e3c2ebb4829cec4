"""Batches of sequences of different lengths: masked, reversed, their last elements."""

from __future__ import annotations

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel
from ..registry import converts
from . import known_rank
from .creation import as_dtype, positions
from .indexing import as_indices, index_type
from .shape import reverse


@converts("SequenceMask")
def sequence_mask(
    onnx: OnnxModel,
    x: Value,
    lengths: Value | None = None,
    *,
    use_sequence_length: bool = False,
    value: float = 0.0,
    axis: int = 0,
) -> str:
    """``SequenceMask`` -> ``Where`` of the steps before the end of each sequence."""
    if lengths is None or not use_sequence_length:
        return onnx.op("Identity", x)
    kind = index_type(lengths)
    steps = onnx.op("Unsqueeze", positions(onnx, x, axis, kind), onnx.ints([1 - axis]))
    ends = onnx.op("Unsqueeze", as_indices(onnx, lengths), onnx.ints([axis]))
    inside = onnx.op("Less", steps, ends)
    if x.rank is None:
        inside = onnx.op("Reshape", inside, _with_ones(onnx, inside, x))
    elif x.rank > 2:
        inside = onnx.op("Unsqueeze", inside, onnx.ints(range(2, x.rank)))
    return onnx.op("Where", inside, x, onnx.constant(as_dtype(value, x.dtype), x.dtype))


def _with_ones(onnx: OnnxModel, inside: str, x: Value) -> str:
    """Return the shape of `inside` with a size of 1 for each axis that only `x` has."""
    sizes = onnx.op("Shape", inside)
    more = onnx.op("Sub", onnx.op("Shape", onnx.op("Shape", x)), onnx.op("Shape", sizes))
    return onnx.op("Concat", sizes, onnx.op("Expand", onnx.ints([1]), more), axis=0)


@converts("SequenceLast")
def sequence_last(
    onnx: OnnxModel,
    x: Value,
    lengths: Value | None = None,
    *,
    use_sequence_length: bool = False,
    axis: int = 0,
) -> str:
    """``SequenceLast`` -> ``Gather`` of the last step; with lengths a ``GatherND``."""
    if lengths is None or not use_sequence_length:
        return onnx.op("Gather", x, onnx.constant(-1, "int64"), axis=axis)
    swapped = [1, 0, *range(2, known_rank(x))]
    by_sequence = onnx.op("Transpose", x, perm=swapped) if axis == 0 else x
    last = onnx.op("Sub", onnx.cast(lengths, "int64"), onnx.constant(1, "int64"))
    places = onnx.op("Unsqueeze", last, onnx.ints([1]))
    return onnx.op("GatherND", by_sequence, places, batch_dims=1)


@converts("SequenceReverse")
def sequence_reverse(
    onnx: OnnxModel,
    x: Value,
    lengths: Value | None = None,
    *,
    use_sequence_length: bool = False,
    axis: int = 0,
) -> str:
    """``SequenceReverse`` -> ``ReverseSequence``; without lengths a ``Slice`` backwards."""
    if axis != 0:
        raise UnsupportedOp(f"axis={axis}; MXNet reverses along axis 0 only")
    if lengths is None or not use_sequence_length:
        return reverse(onnx, x, axis=(0,))
    # ONNX Runtime 1.23 reads foreign memory where a length is 0; one element reversed is itself
    ends = onnx.op("Max", onnx.cast(lengths, "int64"), onnx.ints([1]))
    return onnx.op("ReverseSequence", x, ends, time_axis=0, batch_axis=1)
