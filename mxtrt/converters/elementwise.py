"""Arithmetic of two tensors, or of a tensor and a number, element by element.

MXNet cuts a number beside a tensor of integers off to their type, unless ``is_int=False`` says to
compute in float64.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import Any, Callable

import numpy as np

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts, converts_alike
from . import known_rank

FLOATS = frozenset({"float16", "float32", "float64"})

PROMOTION = ("bool", "int8", "uint8", "int32", "int64", "float16", "float32", "float64")
"""MXNet's NumPy operators compute with two types in the one that comes later here."""

Formula = Callable[[OnnxModel, Operand, Operand, str], str]
"""Writes a function of two operands of one type, whose NumPy name comes last."""


def binary(
    *ops: str,
    scalar: str | None = None,
    reverse_scalar: str | None = None,
    integers_in: str | None = None,
) -> Callable[[Formula], Formula]:
    """Register a formula as the converter of a family of operators.

    Parameters
    ----------
    *ops : str
        Operators of two tensors.
    scalar, reverse_scalar : str, optional
        The operator of a tensor and a number, and the one of a number and a tensor.
    integers_in : str, optional
        The float type in which MXNet computes this function of integers.
    """

    def register(formula: Formula) -> Formula:
        compute = partial(_compute, formula, integers_in)

        def of_tensors(onnx: OnnxModel, a: Value, b: Value) -> str:
            return compute(onnx, *promoted(onnx, a, b))

        def of_scalar(
            onnx: OnnxModel, x: Value, *, scalar: float = 1.0, is_int: bool = True
        ) -> str:
            return compute(onnx, *beside(onnx, x, scalar, is_int))

        def of_reversed(
            onnx: OnnxModel, x: Value, *, scalar: float = 1.0, is_int: bool = True
        ) -> str:
            tensor, number, dtype = beside(onnx, x, scalar, is_int)
            return compute(onnx, number, tensor, dtype)

        converts(*ops)(of_tensors)
        if scalar is not None:
            converts(scalar)(of_scalar)
        if reverse_scalar is not None:
            converts(reverse_scalar)(of_reversed)
        return formula

    return register


def promoted(onnx: OnnxModel, a: Value, b: Value) -> tuple[Operand, Operand, str]:
    """Return two tensors in the type in which MXNet computes with both, and that type."""
    if a.dtype == b.dtype:
        return a, b, a.dtype
    dtype = max(a.dtype, b.dtype, key=PROMOTION.index)
    return as_type(onnx, a, dtype), as_type(onnx, b, dtype), dtype


def as_type(onnx: OnnxModel, x: Value, dtype: str) -> Operand:
    """Return `x` as it is if it has the type `dtype`, else cast to it."""
    return x if x.dtype == dtype else onnx.cast(x, dtype)


def constant(onnx: OnnxModel, number: float, dtype: str) -> str:
    """Return the name of a number as MXNet reads it beside a tensor of type `dtype`."""
    return onnx.constant(as_read(number, dtype), dtype)


def as_read(number: float, dtype: str) -> np.ndarray[Any, Any]:
    """Return a number as MXNet reads it beside a tensor of type `dtype`."""
    if dtype in FLOATS:
        with np.errstate(over="ignore"):  # 1e9 is inf in float16, for MXNet too
            return np.asarray(number, "float64").astype(dtype)
    return np.asarray(cut_off(number), "int64").astype(dtype)


def cut_off(number: float) -> int:
    """Return the integer that MXNet makes of a number beside integers."""
    if not abs(number) < 2**63:
        raise UnsupportedOp(f"scalar={number} is no number of any integer type")
    return int(number)


def single(number: float) -> float:
    """Return an attribute as MXNet holds those that it declares as float32."""
    with np.errstate(over="ignore"):
        return float(np.float32(number))


def as_float(onnx: OnnxModel, x: Value, dtype: str) -> tuple[Operand, str]:
    """Return floats as they are and integers cast to `dtype`, and what type that is."""
    return (x, x.dtype) if x.dtype in FLOATS else (onnx.cast(x, dtype), dtype)


def from_float(onnx: OnnxModel, result: str, dtype: str) -> str:
    """Return floats as they are, and cut them off to `dtype` where that is an integer type."""
    if dtype in FLOATS:
        return result
    if dtype in {"int8", "uint8"}:  # through int32, so that numbers out of range wrap around
        result = onnx.cast(result, "int32")
    return onnx.cast(result, dtype)


def beside(onnx: OnnxModel, x: Value, number: float, is_int: bool) -> tuple[Operand, Operand, str]:
    """Return a tensor and a number as operands, and the type in which MXNet computes with them."""
    if x.dtype in FLOATS:
        dtype = x.dtype
    elif not is_int:
        dtype = "float64"
    else:
        dtype = "int64" if x.dtype == "bool" else x.dtype
    return as_type(onnx, x, dtype), constant(onnx, number, dtype), dtype


def _compute(
    formula: Formula, integers_in: str | None, onnx: OnnxModel, a: Operand, b: Operand, dtype: str
) -> str:
    if integers_in is None or dtype in FLOATS:
        return formula(onnx, a, b, dtype)
    found = formula(onnx, onnx.cast(a, integers_in), onnx.cast(b, integers_in), integers_in)
    return from_float(onnx, found, dtype)


def _one_operator(op_type: str, onnx: OnnxModel, a: Operand, b: Operand, dtype: str) -> str:
    return onnx.op(op_type, a, b)


def extreme(op_type: str, onnx: OnnxModel, a: Operand, b: Operand, dtype: str) -> str:
    """Add ``Max`` or ``Min``; of 8 bits in int32, as ONNX Runtime 1.23 has no kernel for those."""
    if dtype not in {"int8", "uint8"}:
        return onnx.op(op_type, a, b)
    wide = (onnx.cast(operand, "int32") for operand in (a, b))
    return onnx.cast(onnx.op(op_type, *wide), dtype)


_add, _sub, _mul, _div, _pow = (
    partial(_one_operator, op_type) for op_type in ("Add", "Sub", "Mul", "Div", "Pow")
)
_max, _min = (partial(extreme, op_type) for op_type in ("Max", "Min"))

binary("elemwise_add", "broadcast_add", "_grad_add", scalar="_plus_scalar")(_add)
binary("elemwise_sub", "broadcast_sub", scalar="_minus_scalar", reverse_scalar="_rminus_scalar")(
    _sub
)
binary("elemwise_mul", "broadcast_mul", scalar="_mul_scalar")(_mul)
binary("elemwise_div", "broadcast_div")(_div)
binary(reverse_scalar="_rdiv_scalar", integers_in="float32")(_div)
# sparse arrays keep their zeros in these; symbols that engines read hold dense ones
converts_alike("_plus_scalar", "_scatter_plus_scalar")
converts_alike("_minus_scalar", "_scatter_minus_scalar")
converts_alike("elemwise_div", "_scatter_elemwise_div")
binary("_maximum", "broadcast_maximum", scalar="_maximum_scalar")(_max)
binary("_minimum", "broadcast_minimum", scalar="_minimum_scalar")(_min)
binary(
    "_power", "broadcast_power", scalar="_power_scalar", reverse_scalar="_rpower_scalar",
    integers_in="float32",
)(_pow)  # fmt: skip


@converts("_div_scalar")
def div_scalar(onnx: OnnxModel, x: Value, *, scalar: float = 1.0, is_int: bool = True) -> str:
    """``_div_scalar`` -> ``Div``, which cuts integers off as C does."""
    tensor, number, dtype = beside(onnx, x, scalar, is_int)
    if dtype not in FLOATS and cut_off(scalar) == 0:
        raise UnsupportedOp(f"scalar={scalar} divides integers by 0")
    return onnx.op("Div", tensor, number)


@binary("_mod", "broadcast_mod", scalar="_mod_scalar", reverse_scalar="_rmod_scalar")
def modulo(onnx: OnnxModel, a: Operand, b: Operand, dtype: str) -> str:
    """``_mod`` -> ``Mod`` with the sign of the divisor; 0 where the divisor is 0."""
    zero, one = onnx.constant(0, dtype), onnx.constant(1, dtype)
    by_zero = onnx.op("Equal", b, zero)
    divisor = onnx.op("Where", by_zero, one, b)
    if dtype in {"int32", "int64"}:
        # ONNX Runtime 1.23 ends the process over the least integer by -1
        is_minus_1 = onnx.op("Equal", b, onnx.constant(-1, dtype))
        divisor = onnx.op("Where", is_minus_1, one, divisor)
    if dtype not in FLOATS:  # integers modulo 1 are 0
        return onnx.op("Mod", a, divisor)
    # TensorRT multiplies by the divisor, which makes NaN of one that is infinite
    is_rest = onnx.op("Less", onnx.op("Abs", a), onnx.op("Abs", b))
    rest = onnx.op("Where", is_rest, a, onnx.op("Mod", a, divisor, fmod=1))  # with the sign of a
    other_sign = onnx.op("Less", onnx.op("Mul", rest, onnx.op("Sign", b)), zero)
    found = onnx.op("Where", other_sign, onnx.op("Add", rest, b), rest)
    return onnx.op("Where", by_zero, zero, found)


@binary("_hypot", "broadcast_hypot", scalar="_hypot_scalar", integers_in="float32")
def hypotenuse(onnx: OnnxModel, a: Operand, b: Operand, dtype: str) -> str:
    """``_hypot`` -> the longer side times ``Sqrt(1 + ratio²)``, which does not overflow."""
    one = onnx.constant(1, dtype)
    _, long, short = ordered(onnx, onnx.op("Abs", a), onnx.op("Abs", b))
    equal = onnx.op("Equal", long, short)  # 0 / 0 and inf / inf count as 1
    ratio = onnx.op("Where", equal, one, onnx.op("Div", short, long))
    factor = onnx.op("Sqrt", onnx.op("Add", onnx.op("Mul", ratio, ratio), one))
    infinity = onnx.constant(inf, dtype)
    ends = (onnx.op("Equal", side, infinity) for side in (long, short))
    # infinite beside NaN too, as in C
    return onnx.op("Where", onnx.op("Or", *ends), infinity, onnx.op("Mul", long, factor))


def ordered(onnx: OnnxModel, a: Operand, b: Operand) -> tuple[str, str, str]:
    """Return where `a` is larger, the larger numbers and the smaller ones; NaN stays in one.

    TensorRT's ``Max`` and ``Min`` return the other operand of a NaN.
    """
    is_larger = onnx.op("Greater", a, b)
    return is_larger, onnx.op("Where", is_larger, a, b), onnx.op("Where", is_larger, b, a)


@converts("add_n")
def add_n(onnx: OnnxModel, first: Value, *others: Value) -> str:
    """``add_n`` -> ``Sum``; a chain of ``Add`` for integers, which ``Sum`` does not take."""
    if first.dtype in FLOATS:
        return onnx.op("Sum", first, *others)
    total = onnx.op("Identity", first)
    for value in others:
        total = onnx.op("Add", total, value)
    return total


@converts("clip")
def clip(onnx: OnnxModel, x: Value, *, a_min: float, a_max: float) -> str:
    """``clip`` -> ``Clip``; with ``a_min`` above ``a_max`` the one that `x` is not beyond."""
    low, high = single(a_min), single(a_max)
    if x.dtype in FLOATS:
        least, most = (constant(onnx, bound, x.dtype) for bound in (low, high))
    elif low != low or high != high:
        raise UnsupportedOp(f"a_min={a_min}, a_max={a_max}: NaN bounds no integer")
    else:
        limits = np.iinfo(x.dtype)
        low, high = (int(min(max(bound, limits.min), limits.max)) for bound in (low, high))
        least, most = (onnx.constant(bound, x.dtype) for bound in (low, high))
    if not low > high:
        return onnx.op("Clip", x, least, most)
    from_below = onnx.op("Where", onnx.op("Less", x, least), least, x)
    return onnx.op("Where", onnx.op("Greater", x, most), most, from_below)


@converts("where")
def where(onnx: OnnxModel, condition: Value, x: Value, y: Value) -> str:
    """``where`` -> ``Where``; a condition of one axis chooses whole rows."""
    chosen = condition if condition.dtype == "bool" else onnx.cast(condition, "bool")
    if condition.rank is None and 1 not in {x.rank, y.rank}:
        raise UnsupportedOp(
            f"needs the rank of {condition.name!r}, which is not known; pass shapes"
        )
    if condition.rank == 1 and 1 not in {x.rank, y.rank}:
        rank = x.rank if x.rank is not None else known_rank(y)
        chosen = onnx.op("Reshape", chosen, onnx.ints([-1] + [1] * (rank - 1)))
    return onnx.op("Where", chosen, x, y)
