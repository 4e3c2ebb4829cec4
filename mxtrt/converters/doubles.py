"""Functions of float64 that ONNX has and ONNX Runtime has no kernel for, by those that it has.

Where a formula loses digits near 0 a polynomial takes its place. Inverse functions begin with
float32's result, whose error of about 1e-7 one step of Newton's method squares.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial, log, pi
from typing import Callable

import numpy as np

from ..onnx_model import OnnxModel, Operand

SMALL = 0.3  # below it polynomials of 11 or 25 degrees are exact to the last digits
LARGEST = 1e300  # whose arctan is a right angle

# MXNet holds both as float32
SELU_ALPHA, SELU_LAMBDA = float(np.float32(1.67326324)), float(np.float32(1.05070098))


def function(onnx: OnnxModel, op_type: str, x: Operand, dtype: str) -> str:
    """Add the ONNX operator `op_type`, or what computes the same in float64."""
    if dtype == "float64" and op_type in _FORMULAS:
        return _FORMULAS[op_type](onnx, x)
    return onnx.op(op_type, x)


def elu(onnx: OnnxModel, x: Operand, alpha: float) -> str:
    """Return ``x``, or ``alpha (exp(x) - 1)`` where that is negative; `alpha` is a float32."""
    half = onnx.op("Mul", onnx.op("Min", x, _number(onnx, 0)), _number(onnx, 0.5))
    tanh = onnx.op("Tanh", half)  # which keeps the digits of exp(x) - 1 near 0
    below = onnx.op("Div", onnx.op("Add", tanh, tanh), onnx.op("Sub", _number(onnx, 1), tanh))
    scaled = onnx.op("Mul", below, _number(onnx, float(np.float32(alpha))))
    return onnx.op("Where", onnx.op("Greater", x, _number(onnx, 0)), x, scaled)


def leaky_relu(onnx: OnnxModel, x: Operand, slope: Operand) -> str:
    """Return ``x``, or ``slope x`` where that is negative, multiplied in float32 as MXNet does."""
    scaled = onnx.cast(onnx.op("Mul", onnx.cast(x, "float32"), slope), "float64")
    return onnx.op("Where", onnx.op("Greater", x, _number(onnx, 0)), x, scaled)


def selu(onnx: OnnxModel, x: Operand) -> str:
    """Return the ``Selu`` of `x`."""
    return onnx.op("Mul", elu(onnx, x, SELU_ALPHA), _number(onnx, SELU_LAMBDA))


def hard_sigmoid(onnx: OnnxModel, x: Operand, alpha: float, beta: float) -> str:
    """Return ``alpha x + beta`` between 0 and 1; MXNet holds both as float32."""
    slope, shift = (_number(onnx, float(np.float32(number))) for number in (alpha, beta))
    line = onnx.op("Add", onnx.op("Mul", x, slope), shift)
    return onnx.op("Clip", line, _number(onnx, 0), _number(onnx, 1))


# -- formulas ----------------------------------------------------------------------------------


def _tan(onnx: OnnxModel, x: Operand) -> str:
    return onnx.op("Div", onnx.op("Sin", x), onnx.op("Cos", x))


def _sinh(onnx: OnnxModel, x: Operand) -> str:
    half = onnx.op("Sub", *_half_exponentials(onnx, x))
    return _odd_near_0(onnx, x, [1 / factorial(n) for n in range(1, 12, 2)], half)


def _cosh(onnx: OnnxModel, x: Operand) -> str:
    return onnx.op("Add", *_half_exponentials(onnx, x))


def _half_exponentials(onnx: OnnxModel, x: Operand) -> tuple[str, str]:
    """Return half of what ``Exp`` makes of `x` and of -x; what it makes itself may overflow."""
    log_2 = _number(onnx, log(2))
    above, below = onnx.op("Sub", x, log_2), onnx.op("Add", x, log_2)
    return onnx.op("Exp", above), onnx.op("Exp", onnx.op("Neg", below))


def _softplus(onnx: OnnxModel, x: Operand) -> str:
    one = _number(onnx, 1)
    small = onnx.op("Exp", onnx.op("Neg", onnx.op("Abs", x)))
    above = onnx.op("Max", x, _number(onnx, 0))
    return onnx.op("Add", above, onnx.op("Log", onnx.op("Add", one, small)))


def _asinh(onnx: OnnxModel, x: Operand) -> str:
    size, one = onnx.op("Abs", x), _number(onnx, 1)
    bounded = onnx.op("Min", size, _number(onnx, 1e150))  # whose square is finite
    root = onnx.op("Sqrt", onnx.op("Add", onnx.op("Mul", bounded, bounded), one))
    ratio = onnx.op("Div", onnx.op("Add", bounded, root), bounded)
    far = onnx.op("Add", onnx.op("Log", size), onnx.op("Log", ratio))
    start = _in_float32(onnx, "Asinh", x)
    error = onnx.op("Div", onnx.op("Sub", _sinh(onnx, start), x), _cosh(onnx, start))
    near = onnx.op("Sub", start, error)
    is_near = onnx.op("Less", size, one)
    return onnx.op("Where", is_near, near, onnx.op("Mul", onnx.op("Sign", x), far))


def _acosh(onnx: OnnxModel, x: Operand) -> str:
    one = _number(onnx, 1)
    bounded = onnx.op("Min", x, _number(onnx, 1e300))  # of more, twice as much overflows
    roots = (onnx.op("Sqrt", onnx.op(op, bounded, one)) for op in ("Sub", "Add"))
    ratio = onnx.op("Div", onnx.op("Add", bounded, onnx.op("Mul", *roots)), bounded)
    return onnx.op("Add", onnx.op("Log", x), onnx.op("Log", ratio))


def _atanh(onnx: OnnxModel, x: Operand) -> str:
    one = _number(onnx, 1)
    ratio = onnx.op("Div", onnx.op("Add", one, x), onnx.op("Sub", one, x))
    half = onnx.op("Mul", onnx.op("Log", ratio), _number(onnx, 0.5))
    return _odd_near_0(onnx, x, [1 / n for n in range(1, 26, 2)], half)


def _asin(onnx: OnnxModel, x: Operand) -> str:
    return _turned(onnx, _in_float32(onnx, "Asin", x), x, _other_side(onnx, x))


def _acos(onnx: OnnxModel, x: Operand) -> str:
    return _turned(onnx, _in_float32(onnx, "Acos", x), _other_side(onnx, x), x)


def _atan(onnx: OnnxModel, x: Operand) -> str:
    rise = onnx.op("Clip", x, _number(onnx, -LARGEST), _number(onnx, LARGEST))
    longest = onnx.op("Max", onnx.op("Abs", rise), _number(onnx, 1))
    sine, cosine = onnx.op("Div", rise, longest), onnx.op("Reciprocal", longest)
    squares = (onnx.op("Mul", side, side) for side in (sine, cosine))
    length = onnx.op("Sqrt", onnx.op("Add", *squares))
    sides = (onnx.op("Div", side, length) for side in (sine, cosine))
    return _turned(onnx, _in_float32(onnx, "Atan", x), *sides)


_FORMULAS: dict[str, Callable[[OnnxModel, Operand], str]] = {
    "Tan": _tan, "Sinh": _sinh, "Cosh": _cosh, "Softplus": _softplus, "Selu": selu,
    "Asinh": _asinh, "Acosh": _acosh, "Atanh": _atanh, "Asin": _asin, "Acos": _acos, "Atan": _atan,
}  # fmt: skip


def _turned(onnx: OnnxModel, angle: str, sine: Operand, cosine: Operand) -> str:
    """Return the angle of a sine and a cosine that is near `angle`: the rest is its own sine."""
    # ONNX Runtime 1.23 has Sin of float64 and no Cos
    cosine_of = onnx.op("Sin", onnx.op("Add", angle, _number(onnx, pi / 2)))
    across = onnx.op("Mul", sine, cosine_of)
    along = onnx.op("Mul", cosine, onnx.op("Sin", angle))
    return onnx.op("Add", angle, onnx.op("Sub", across, along))


def _other_side(onnx: OnnxModel, x: Operand) -> str:
    """Return the square root of 1 - x²."""
    one = _number(onnx, 1)
    return onnx.op("Sqrt", onnx.op("Mul", onnx.op("Sub", one, x), onnx.op("Add", one, x)))


def _in_float32(onnx: OnnxModel, op_type: str, x: Operand) -> str:
    return onnx.cast(onnx.op(op_type, onnx.cast(x, "float32")), "float64")


def _odd_near_0(onnx: OnnxModel, x: Operand, factors: Sequence[float], elsewhere: str) -> str:
    """Return a polynomial in the odd powers of `x` where that is near 0."""
    square = onnx.op("Mul", x, x)
    total = _number(onnx, factors[-1])
    for factor in reversed(factors[:-1]):
        total = onnx.op("Add", onnx.op("Mul", total, square), _number(onnx, factor))
    is_near = onnx.op("Less", onnx.op("Abs", x), _number(onnx, SMALL))
    return onnx.op("Where", is_near, onnx.op("Mul", x, total), elsewhere)


def _number(onnx: OnnxModel, number: float) -> str:
    return onnx.constant(number, "float64")
