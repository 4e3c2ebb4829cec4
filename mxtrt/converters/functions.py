"""Elementary functions of one number.

MXNet computes functions of integers in floats and cuts the result off.
"""

from __future__ import annotations

from functools import partial
from math import log

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel
from ..registry import converts
from .elementwise import FLOATS, as_float, from_float

FUNCTIONS = {
    "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "erf": "Erf", "sigmoid": "Sigmoid",
    "reciprocal": "Reciprocal", "sin": "Sin", "cos": "Cos", "tan": "Tan", "arcsin": "Asin",
    "arccos": "Acos", "arctan": "Atan", "sinh": "Sinh", "cosh": "Cosh", "tanh": "Tanh",
    "arcsinh": "Asinh", "arccosh": "Acosh", "arctanh": "Atanh",
}  # fmt: skip
"""Functions with an ONNX operator of the same meaning."""


def _function(op_type: str, onnx: OnnxModel, x: Value) -> str:
    operand, _ = as_float(onnx, x, "float64")
    return from_float(onnx, onnx.op(op_type, operand), x.dtype)


for _name, _op_type in FUNCTIONS.items():
    converts(_name)(partial(_function, _op_type))


# -- powers and products ---------------------------------------------------------------------------


@converts("relu")
def relu(onnx: OnnxModel, x: Value) -> str:
    """``relu`` -> ``Relu``; ``Max`` for integers, not all of which ``Relu`` takes."""
    if x.dtype in FLOATS:
        return onnx.op("Relu", x)
    return onnx.op("Max", x, onnx.constant(0, x.dtype))


@converts("abs")
def absolute(onnx: OnnxModel, x: Value) -> str:
    """``abs`` -> ``Abs``."""
    return onnx.op("Abs", x)


@converts("negative")
def negative(onnx: OnnxModel, x: Value) -> str:
    """``negative`` -> ``Neg``; ``0 - x`` for unsigned integers, which ``Neg`` does not take."""
    if x.dtype == "uint8":
        return onnx.op("Sub", onnx.constant(0, x.dtype), x)
    return onnx.op("Neg", x)


@converts("square")
def square(onnx: OnnxModel, x: Value) -> str:
    """``square`` -> ``Mul``."""
    return onnx.op("Mul", x, x)


@converts("rsqrt")
def rsqrt(onnx: OnnxModel, x: Value) -> str:
    """``rsqrt`` -> ``Reciprocal(Sqrt)``."""
    operand, _ = as_float(onnx, x, "float64")
    return from_float(onnx, onnx.op("Reciprocal", onnx.op("Sqrt", operand)), x.dtype)


@converts("cbrt")
def cbrt(onnx: OnnxModel, x: Value) -> str:
    """``cbrt`` -> ``Pow`` of the absolute value, with the sign put back."""
    _refuse_integers(x)
    root = onnx.op("Pow", onnx.op("Abs", x), onnx.constant(1 / 3, x.dtype))
    return onnx.op("Mul", onnx.op("Sign", x), root)


@converts("rcbrt")
def rcbrt(onnx: OnnxModel, x: Value) -> str:
    """``rcbrt`` -> ``Reciprocal`` of the cube root."""
    return onnx.op("Reciprocal", cbrt(onnx, x))


# -- exponentials and logarithms -------------------------------------------------------------------


@converts("log2")
def log2(onnx: OnnxModel, x: Value) -> str:
    """``log2`` -> ``Log`` and a factor."""
    _refuse_integers(x)
    return onnx.op("Mul", onnx.op("Log", x), onnx.constant(1 / log(2), x.dtype))


@converts("log10")
def log10(onnx: OnnxModel, x: Value) -> str:
    """``log10`` -> ``Log`` and a factor."""
    _refuse_integers(x)
    return onnx.op("Mul", onnx.op("Log", x), onnx.constant(1 / log(10), x.dtype))


def _refuse_integers(x: Value) -> None:
    if x.dtype not in FLOATS:
        raise UnsupportedOp(
            f"cuts its result off to {x.dtype}, where the last digit of a float decides"
        )


# -- rounding --------------------------------------------------------------------------------------


@converts("floor")
def floor(onnx: OnnxModel, x: Value) -> str:
    """``floor`` -> ``Floor``."""
    return onnx.op("Floor" if x.dtype in FLOATS else "Identity", x)


@converts("ceil")
def ceil(onnx: OnnxModel, x: Value) -> str:
    """``ceil`` -> ``Ceil``."""
    return onnx.op("Ceil" if x.dtype in FLOATS else "Identity", x)
