"""Comparison and logic, element by element.

MXNet's results have the type of the operands, with 1 for true.
"""

from __future__ import annotations

from functools import partial

from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import shape_vector
from .creation import filled
from .elementwise import as_float, as_read, beside, binary, single

COMPARISONS = {
    "equal": "Equal", "greater": "Greater", "greater_equal": "GreaterOrEqual", "lesser": "Less",
    "lesser_equal": "LessOrEqual",
}  # fmt: skip

LOGIC = {"logical_and": "And", "logical_or": "Or", "logical_xor": "Xor"}


def _compare(op_type: str, onnx: OnnxModel, a: Operand, b: Operand, dtype: str) -> str:
    return onnx.cast(onnx.op(op_type, a, b), dtype)


def _decide(op_type: str, onnx: OnnxModel, a: Operand, b: Operand, dtype: str) -> str:
    return onnx.cast(onnx.op(op_type, onnx.cast(a, "bool"), onnx.cast(b, "bool")), dtype)


for _name, _op_type in COMPARISONS.items():
    binary(f"_{_name}", f"broadcast_{_name}", scalar=f"_{_name}_scalar")(
        partial(_compare, _op_type)
    )

for _name, _op_type in LOGIC.items():
    binary(f"_{_name}", f"broadcast_{_name}")(partial(_decide, _op_type))


# TensorRT 8.5 ends the process when it builds an And with a constant 0
@converts("_logical_and_scalar")
def and_scalar(onnx: OnnxModel, x: Value, *, scalar: float = 1.0, is_int: bool = True) -> str:
    """``_logical_and_scalar`` -> ``Cast`` to bool, or ``Expand`` of a 0."""
    truth, number, dtype = _truths(onnx, x, scalar, is_int)
    return onnx.cast(truth, dtype) if number else _everywhere(onnx, 0, x, dtype)


@converts("_logical_or_scalar")
def or_scalar(onnx: OnnxModel, x: Value, *, scalar: float = 1.0, is_int: bool = True) -> str:
    """``_logical_or_scalar`` -> ``Cast`` to bool, or ``Expand`` of a 1."""
    truth, number, dtype = _truths(onnx, x, scalar, is_int)
    return _everywhere(onnx, 1, x, dtype) if number else onnx.cast(truth, dtype)


@converts("_logical_xor_scalar")
def xor_scalar(onnx: OnnxModel, x: Value, *, scalar: float = 1.0, is_int: bool = True) -> str:
    """``_logical_xor_scalar`` -> ``Cast`` to bool, and ``Not``."""
    truth, number, dtype = _truths(onnx, x, scalar, is_int)
    return onnx.cast(onnx.op("Not", truth) if number else truth, dtype)


def _truths(onnx: OnnxModel, x: Value, scalar: float, is_int: bool) -> tuple[str, bool, str]:
    """Return what of `x` is true, whether the number is, and the type of the result."""
    tensor, _, dtype = beside(onnx, x, scalar, is_int)
    return onnx.cast(tensor, "bool"), bool(as_read(scalar, dtype)), dtype


def _everywhere(onnx: OnnxModel, value: int, x: Value, dtype: str) -> str:
    return filled(onnx, value, dtype, shape_vector(onnx, x))


@binary("_not_equal", "broadcast_not_equal", scalar="_not_equal_scalar")
def not_equal(onnx: OnnxModel, a: Operand, b: Operand, dtype: str) -> str:
    """``_not_equal`` -> ``Not(Equal)``."""
    return onnx.cast(onnx.op("Not", onnx.op("Equal", a, b)), dtype)


@converts("logical_not")
def logical_not(onnx: OnnxModel, x: Value) -> str:
    """``logical_not`` -> ``Equal`` to 0."""
    return onnx.cast(onnx.op("Equal", x, onnx.constant(0, x.dtype)), x.dtype)


@converts("_contrib_allclose")
def allclose(
    onnx: OnnxModel,
    a: Value,
    b: Value,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-8,
    equal_nan: bool = True,
) -> str:
    """``_contrib_allclose`` -> ``|a - b| <= atol + rtol |b|`` or equal, everywhere."""
    (one, dtype), (two, _) = as_float(onnx, a, "float32"), as_float(onnx, b, "float32")
    scaled = onnx.op("Mul", onnx.op("Abs", two), onnx.constant(single(rtol), dtype))
    bound = onnx.op("Add", scaled, onnx.constant(single(atol), dtype))
    close = onnx.op("LessOrEqual", onnx.op("Abs", onnx.op("Sub", one, two)), bound)
    close = onnx.op("Or", close, onnx.op("Equal", one, two))  # infinities
    if equal_nan:
        both = onnx.op("And", onnx.op("IsNaN", one), onnx.op("IsNaN", two))
        close = onnx.op("Or", close, both)
    return onnx.op("ReduceMin", onnx.cast(close, "uint8"), keepdims=0)
