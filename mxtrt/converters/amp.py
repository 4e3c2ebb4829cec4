"""Casts that automatic mixed precision puts in."""

from __future__ import annotations

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import ELEMENT_TYPES, OnnxModel
from ..registry import converts

CASTABLE = {"float16", "float32"}
"""What MXNet's automatic mixed precision casts; it hands other types through."""


@converts("amp_cast")
def amp_cast(onnx: OnnxModel, x: Value, *, dtype: str) -> str:
    """``amp_cast`` -> ``Cast`` of halves and floats."""
    if dtype not in ELEMENT_TYPES:
        raise UnsupportedOp(f"dtype={dtype!r} is no type of the tensors that MXNet exchanges")
    return onnx.cast(x, dtype) if x.dtype in CASTABLE else onnx.op("Identity", x)


@converts("amp_multicast")
def amp_multicast(
    onnx: OnnxModel, *values: Value, num_outputs: int, cast_narrow: bool = False
) -> tuple[str, ...]:
    """``amp_multicast`` -> ``Cast`` of halves and floats to the widest, or the narrowest, type."""
    wanted = "float16" if cast_narrow else "float32"
    common = wanted if any(v.dtype == wanted for v in values) else values[0].dtype
    return tuple(
        onnx.cast(v, common) if v.dtype in CASTABLE else onnx.op("Identity", v) for v in values
    )
