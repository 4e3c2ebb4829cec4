"""Arithmetic, comparison and choice as NumPy has them.

Two types become one before MXNet computes, comparisons return bools, and a division of integers
returns float32.
"""

from __future__ import annotations

from functools import partial
from math import inf, pi
from typing import Callable

import numpy as np

from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import doubles, shape_vector
from .creation import as_dtype, filled
from .elementwise import (
    FLOATS,
    as_type,
    beside,
    binary,
    constant,
    hypotenuse,
    modulo,
    ordered,
    promoted,
)

Test = Callable[[OnnxModel, Operand, Operand], str]
"""Writes a comparison of two operands."""


def _one(op_type: str, of_bools: str, onnx: OnnxModel, a: Operand, b: Operand, dtype: str) -> str:
    return onnx.op(of_bools if dtype == "bool" else op_type, a, b)


_add, _subtract, _multiply = (
    partial(_one, *op_types) for op_types in (("Add", "Or"), ("Sub", "Xor"), ("Mul", "And"))
)

binary("_npi_add", scalar="_npi_add_scalar")(_add)
binary(
    "_npi_subtract", scalar="_npi_subtract_scalar", reverse_scalar="_npi_rsubtract_scalar"
)(_subtract)  # fmt: skip
binary("_npi_multiply", scalar="_npi_multiply_scalar")(_multiply)
binary("_npi_mod", scalar="_npi_mod_scalar", reverse_scalar="_npi_rmod_scalar")(modulo)
binary("_npi_hypot", integers_in="float32")(hypotenuse)


@binary(
    "_npi_power", scalar="_npi_power_scalar", reverse_scalar="_npi_rpower_scalar",
    integers_in="float32",
)  # fmt: skip
def power(onnx: OnnxModel, a: Operand, b: Operand, dtype: str) -> str:
    """``_npi_power`` -> ``Pow``."""
    return onnx.op("Pow", a, b)


@converts("_npi_true_divide")
def true_divide(onnx: OnnxModel, a: Value, b: Value) -> str:
    """``_npi_true_divide`` -> ``Div``, of integers in float32."""
    one, two, dtype = promoted(onnx, a, b)
    if dtype in FLOATS:
        return onnx.op("Div", one, two)
    return onnx.op("Div", onnx.cast(a, "float32"), onnx.cast(b, "float32"))


@converts("_npi_true_divide_scalar")
def true_divide_scalar(
    onnx: OnnxModel, x: Value, *, scalar: float = 1.0, is_int: bool = True
) -> str:
    """``_npi_true_divide_scalar`` -> ``Div``."""
    tensor, number = _float_beside(onnx, x, scalar)
    return onnx.op("Div", tensor, number)


@converts("_npi_rtrue_divide_scalar")
def rtrue_divide_scalar(
    onnx: OnnxModel, x: Value, *, scalar: float = 1.0, is_int: bool = True
) -> str:
    """``_npi_rtrue_divide_scalar`` -> ``Div``."""
    tensor, number = _float_beside(onnx, x, scalar)
    return onnx.op("Div", number, tensor)


def _float_beside(onnx: OnnxModel, x: Value, number: float) -> tuple[Operand, str]:
    dtype = x.dtype if x.dtype in FLOATS else "float32"
    return as_type(onnx, x, dtype), constant(onnx, number, dtype)


@binary("_npi_copysign", scalar="_npi_copysign_scalar", reverse_scalar="_npi_rcopysign_scalar")
def copysign(onnx: OnnxModel, a: Operand, b: Operand, dtype: str) -> str:
    """``_npi_copysign`` -> `a`, or ``-a`` where the signs differ; for MXNet -0 is positive."""
    zero = onnx.constant(0, dtype)
    negated = onnx.op("Sub", zero, a)
    positive = onnx.op("Where", onnx.op("GreaterOrEqual", a, zero), a, negated)
    negative = onnx.op("Where", onnx.op("Less", a, zero), a, negated)
    # beside a NaN every number changes its sign
    below = onnx.op("Where", onnx.op("Less", b, zero), negative, negated)
    return onnx.op("Where", onnx.op("GreaterOrEqual", b, zero), positive, below)


@binary(
    "_npi_arctan2", scalar="_npi_arctan2_scalar", reverse_scalar="_npi_rarctan2_scalar",
    integers_in="float32",
)  # fmt: skip
def arctan2(onnx: OnnxModel, y: Operand, x: Operand, dtype: str) -> str:
    """``_npi_arctan2`` -> ``Atan`` of the shorter side by the longer, turned to the quadrant."""
    zero, one = onnx.constant(0, dtype), onnx.constant(1, dtype)
    height, width = onnx.op("Abs", y), onnx.op("Abs", x)
    is_steep, long, short = ordered(onnx, height, width)
    equal = onnx.op("Where", onnx.op("Equal", long, zero), zero, one)  # 0 / 0 and inf / inf
    is_equal = onnx.op("Equal", long, short)
    ratio = onnx.op("Where", is_equal, equal, onnx.op("Div", short, long))
    angle = doubles.function(onnx, "Atan", ratio, dtype)
    steep = onnx.op("Sub", onnx.constant(pi / 2, dtype), angle)
    angle = onnx.op("Where", is_steep, steep, angle)
    behind = onnx.op("Sub", onnx.constant(pi, dtype), angle)
    angle = onnx.op("Where", _has_sign(onnx, x, zero), behind, angle)
    return onnx.op("Where", _has_sign(onnx, y, zero), onnx.op("Neg", angle), angle)


def _has_sign(onnx: OnnxModel, x: Operand, zero: str) -> str:
    """Say where `x` is negative, -0 included, whose reciprocal is less than 0."""
    visible = onnx.op("Where", onnx.op("Equal", x, zero), onnx.op("Reciprocal", x), x)
    return onnx.op("Less", visible, zero)


@binary(
    "_npi_ldexp", scalar="_npi_ldexp_scalar", reverse_scalar="_npi_rldexp_scalar",
    integers_in="float32",
)  # fmt: skip
def ldexp(onnx: OnnxModel, a: Operand, b: Operand, dtype: str) -> str:
    """``_npi_ldexp`` -> ``Mul`` with a ``Pow`` of 2, in float32 for halves."""
    if dtype != "float16":
        return onnx.op("Mul", a, onnx.op("Pow", onnx.constant(2, dtype), b))
    wide, power = onnx.cast(a, "float32"), onnx.cast(b, "float32")
    # 2 ** 1023 is finite for MXNet, in float64; already 2 ** 100 is beyond what halves reach
    bounded = onnx.op("Clip", power, onnx.constant(-100, "float32"), onnx.constant(100, "float32"))
    is_finite = onnx.op("Less", onnx.op("Abs", power), onnx.constant(1024, "float32"))
    power = onnx.op("Where", is_finite, bounded, power)
    return onnx.cast(ldexp(onnx, wide, power, "float32"), dtype)


# -- comparison ------------------------------------------------------------------------------------


def _comparison(name: str) -> Callable[[Test], Test]:
    """Register a test as the converter of two tensors, and of a tensor and a number."""

    def register(test: Test) -> Test:
        def of_tensors(onnx: OnnxModel, a: Value, b: Value) -> str:
            one, two, dtype = promoted(onnx, a, b)
            if dtype == "bool":  # ONNX does not order bools
                one, two = onnx.cast(a, "int32"), onnx.cast(b, "int32")
            return test(onnx, one, two)

        def of_scalar(
            onnx: OnnxModel, x: Value, *, scalar: float = 1.0, is_int: bool = True
        ) -> str:
            if x.dtype == "bool":
                return test(onnx, onnx.cast(x, "int32"), onnx.constant(bool(scalar), "int32"))
            tensor, number, _ = beside(onnx, x, scalar, is_int)
            return test(onnx, tensor, number)

        converts(f"_npi_{name}")(of_tensors)
        converts(f"_npi_{name}_scalar")(of_scalar)
        return test

    return register


def _compare(op_type: str, onnx: OnnxModel, a: Operand, b: Operand) -> str:
    return onnx.op(op_type, a, b)


for _name, _op_type in {
    "equal": "Equal", "greater": "Greater", "greater_equal": "GreaterOrEqual", "less": "Less",
    "less_equal": "LessOrEqual",
}.items():  # fmt: skip
    _comparison(_name)(partial(_compare, _op_type))


@_comparison("not_equal")
def not_equal(onnx: OnnxModel, a: Operand, b: Operand) -> str:
    """``_npi_not_equal`` -> ``Not(Equal)``."""
    return onnx.op("Not", onnx.op("Equal", a, b))


@converts("_npi_logical_not")
def logical_not(onnx: OnnxModel, x: Value) -> str:
    """``_npi_logical_not`` -> ``Not``, or ``Equal`` to 0."""
    if x.dtype == "bool":
        return onnx.op("Not", x)
    return onnx.op("Equal", x, onnx.constant(0, x.dtype))


# -- what is no number -----------------------------------------------------------------------------


@converts("_npi_isnan")
def isnan(onnx: OnnxModel, x: Value) -> str:
    """``_npi_isnan`` -> ``IsNaN``; no integer is one."""
    return onnx.op("IsNaN", x) if x.dtype in FLOATS else _everywhere(onnx, False, x)


def _is_infinite(positive: bool, negative: bool, onnx: OnnxModel, x: Value) -> str:
    if x.dtype not in FLOATS:
        return _everywhere(onnx, False, x)
    wide = onnx.cast(x, "float32") if x.dtype == "float16" else x  # which IsInf does not take
    return onnx.op("IsInf", wide, detect_positive=int(positive), detect_negative=int(negative))


converts("_npi_isinf")(partial(_is_infinite, True, True))
converts("_npi_isposinf")(partial(_is_infinite, True, False))
converts("_npi_isneginf")(partial(_is_infinite, False, True))


@converts("_npi_isfinite")
def isfinite(onnx: OnnxModel, x: Value) -> str:
    """``_npi_isfinite`` -> ``Abs`` less than infinity, which NaN is not either."""
    if x.dtype not in FLOATS:
        return _everywhere(onnx, True, x)
    return onnx.op("Less", onnx.op("Abs", x), onnx.constant(inf, x.dtype))


def _everywhere(onnx: OnnxModel, value: bool, x: Value) -> str:
    return filled(onnx, value, "bool", shape_vector(onnx, x))


@converts("_npi_nan_to_num")
def nan_to_num(
    onnx: OnnxModel,
    x: Value,
    *,
    copy: bool = True,
    nan: float = 0.0,
    posinf: float | None = None,
    neginf: float | None = None,
) -> str:
    """``_npi_nan_to_num`` -> ``Where``; infinities become the largest numbers of the type."""
    if x.dtype not in FLOATS:
        return onnx.op("Identity", x)
    limits = np.finfo(x.dtype)
    found = onnx.op("Where", onnx.op("IsNaN", x), constant(onnx, nan, x.dtype), x)
    for infinity, limit, given in ((inf, limits.max, posinf), (-inf, limits.min, neginf)):
        number = constant(onnx, float(limit) if given is None else given, x.dtype)
        is_infinite = onnx.op("Equal", x, onnx.constant(infinity, x.dtype))
        found = onnx.op("Where", is_infinite, number, found)
    return found


@converts("_npi_around")
def around(onnx: OnnxModel, x: Value, *, decimals: int = 0) -> str:
    """``_npi_around`` -> ``Round`` between multiplications by 10, one for each decimal."""
    if x.dtype not in FLOATS:
        return _cut_off_digits(onnx, x, -decimals)
    there, back = ("Mul", "Div") if decimals > 0 else ("Div", "Mul")
    ten = onnx.constant(10, x.dtype)
    found: Operand = x
    for _ in range(abs(decimals)):
        found = onnx.op(there, found, ten)
    found = onnx.op("Round", found)
    for _ in range(abs(decimals)):
        found = onnx.op(back, found, ten)
    return str(found)


def _cut_off_digits(onnx: OnnxModel, x: Value, count: int) -> str:
    if count <= 0:
        return onnx.op("Identity", x)
    if 10**count > np.iinfo(x.dtype).max:
        return onnx.op("Mul", x, onnx.constant(0, x.dtype))
    power_of_ten = onnx.constant(10**count, x.dtype)
    return onnx.op("Mul", onnx.op("Div", x, power_of_ten), power_of_ten)


# -- choice ----------------------------------------------------------------------------------------


@converts("_npi_where")
def where(onnx: OnnxModel, condition: Value, x: Value, y: Value) -> str:
    """``_npi_where`` -> ``Where``."""
    return choose(onnx, as_type(onnx, condition, "bool"), x, y, x.dtype)


@converts("_npi_where_lscalar")
def where_lscalar(onnx: OnnxModel, condition: Value, y: Value, *, scalar: float = 0.0) -> str:
    """``_npi_where_lscalar`` -> ``Where`` of a number and a tensor."""
    number = onnx.constant(as_dtype(scalar, y.dtype), y.dtype)
    return choose(onnx, as_type(onnx, condition, "bool"), number, y, y.dtype)


@converts("_npi_where_rscalar")
def where_rscalar(onnx: OnnxModel, condition: Value, x: Value, *, scalar: float = 0.0) -> str:
    """``_npi_where_rscalar`` -> ``Where`` of a tensor and a number."""
    number = onnx.constant(as_dtype(scalar, x.dtype), x.dtype)
    return choose(onnx, as_type(onnx, condition, "bool"), x, number, x.dtype)


@converts("_npi_where_scalar2")
def where_scalar2(onnx: OnnxModel, condition: Value, *, x: float = 0.0, y: float = 0.0) -> str:
    """``_npi_where_scalar2`` -> ``Where`` of two numbers, in float32."""
    numbers = onnx.constant(x, "float32"), onnx.constant(y, "float32")
    return choose(onnx, as_type(onnx, condition, "bool"), *numbers, "float32")


def choose(onnx: OnnxModel, chosen: Operand, x: Operand, y: Operand, dtype: str) -> str:
    """Return `x` where bools are true, else `y`, both of type `dtype`."""
    if dtype != "bool":
        return onnx.op("Where", chosen, x, y)
    # ONNX Runtime's Where takes no bools
    return onnx.op("Or", onnx.op("And", chosen, x), onnx.op("And", onnx.op("Not", chosen), y))
