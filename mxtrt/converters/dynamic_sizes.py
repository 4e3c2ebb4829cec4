"""Operators whose values decide the sizes of their outputs.

`export_model` converts them: a file may have outputs of any size. `optimize` leaves them, for MXNet
asks for the size of what an engine makes before it runs.
"""

from __future__ import annotations

from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import exports, refuses
from . import known_rank, normalized_axis, size_vector, value_of
from .creation import positions
from .elementwise import as_type
from .indexing import sliced

refuses(
    "the values of its input decide the size of its output, which MXNet has to know beforehand",
    "_contrib_boolean_mask", "_npi_bincount", "_npi_unique", "_npx_nonzero",
)  # fmt: skip
refuses("MXNet tells the size of its output after the run only, whatever is deleted", "_npi_delete")

SORTABLE = {"int32": "int64", "uint8": "int64", "int8": "int64", "float16": "float32"}
"""Types that ONNX Runtime does not sort, and those in which their numbers are the same."""


@exports("_contrib_boolean_mask")
def boolean_mask(onnx: OnnxModel, x: Value, index: Value, *, axis: int = 0) -> str:
    """``_contrib_boolean_mask`` -> ``Compress``."""
    return onnx.op("Compress", x, onnx.cast(index, "bool"), axis=axis)


@exports("_npx_nonzero")
def nonzero(onnx: OnnxModel, x: Value) -> str:
    """``_npx_nonzero`` -> ``NonZero``, ``Transpose``."""
    marks = as_type(onnx, x, "bool")
    if known_rank(x) == 0:
        marks = onnx.op("Reshape", marks, onnx.ints([1]))
    return onnx.op("Transpose", onnx.op("NonZero", marks), perm=[1, 0])


@exports("_npi_unique")
def unique(
    onnx: OnnxModel,
    x: Value,
    *,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    axis: int | None = None,
) -> tuple[str, ...]:
    """``_npi_unique`` -> ``Unique``."""
    numbers = as_type(onnx, x, SORTABLE.get(x.dtype, x.dtype))
    values, *more = onnx.ops("Unique", numbers, outputs=4, sorted=1, axis=axis)
    wanted = zip(more, (return_index, return_inverse, return_counts))
    values = onnx.cast(values, x.dtype) if x.dtype in SORTABLE else values
    return (values, *(output for output, is_wanted in wanted if is_wanted))


@exports("_npi_bincount")
def bincount(
    onnx: OnnxModel,
    x: Value,
    weights: Value | None = None,
    *,
    minlength: int = 0,
    has_weights: bool = False,
) -> str:
    """``_npi_bincount`` -> ``ScatterElements`` that adds."""
    del has_weights  # the inputs say it
    places = as_type(onnx, x, "int64")
    last = onnx.op("Concat", places, onnx.ints([minlength - 1]), axis=0)
    length = onnx.op("Add", onnx.op("ReduceMax", last, keepdims=1), onnx.ints([1]))
    dtype = x.dtype if weights is None else weights.dtype
    wide = "int64" if dtype[0] in "iu" else "float32" if dtype == "float16" else dtype
    if weights is None:
        amounts: Operand = onnx.op("Expand", onnx.constant(1, wide), onnx.op("Shape", places))
    else:
        amounts = as_type(onnx, weights, wide)
    bins = onnx.op("Expand", onnx.constant(0, wide), length)
    made = onnx.op("ScatterElements", bins, places, amounts, axis=0, reduction="add")
    return made if wide == dtype else onnx.cast(made, dtype)


@exports("_npi_delete")
def delete(
    onnx: OnnxModel,
    x: Value,
    indices: Value | None = None,
    *,
    start: int | None = None,
    stop: int | None = None,
    step: int | None = None,
    int_ind: int | None = None,
    axis: int | None = None,
) -> str:
    """``_npi_delete`` -> ``ScatterElements`` into marks, ``Compress``."""
    if axis is None:
        x = value_of(onnx, onnx.op("Reshape", x, onnx.ints([-1])), (None,), x.dtype)
    along = 0 if axis is None else normalized_axis(axis, known_rank(x))
    size = size_vector(onnx, x, along)
    if indices is None:
        limits = (start, stop, step or 1)
        if int_ind is not None:
            limits = (int_ind, int_ind + 1 or None, 1)
        gone: Operand = sliced(onnx, positions(onnx, x, along, "int64"), {0: limits})
    else:
        gone = onnx.op("Reshape", as_type(onnx, indices, "int64"), onnx.ints([-1]))
        below = onnx.op("Less", gone, onnx.constant(0, "int64"))  # not counted from the end
        beyond = onnx.op("GreaterOrEqual", gone, size)
        gone = onnx.op("Where", onnx.op("Or", below, beyond), size, gone)
    kept = onnx.op("Expand", onnx.constant(1, "int32"), onnx.op("Add", size, onnx.ints([1])))
    marks = onnx.op("Expand", onnx.constant(0, "int32"), onnx.op("Shape", gone))
    kept = onnx.op("ScatterElements", kept, gone, marks, axis=0)
    kept = onnx.cast(sliced(onnx, kept, {0: (0, -1, 1)}), "bool")
    return onnx.op("Compress", x, kept, axis=along)
