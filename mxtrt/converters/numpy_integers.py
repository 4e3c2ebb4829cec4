"""Functions of integers and bools: bit by bit, and common multiples.

ONNX has bitwise operators from opset 18 on; here numbers are taken apart into their bits by
division. A negative number has the bits that its complement ``-1 - x`` has not.
"""

from __future__ import annotations

from functools import partial
from typing import Callable

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from .elementwise import constant

BITS = {"uint8": 8, "int8": 7, "int32": 31, "int64": 63}
"""How many bits a type has beside its sign."""

STEPS = {"uint8": 13, "int8": 11, "int32": 46, "int64": 91}
"""How many divisions Euclid's algorithm takes at most: Fibonacci's numbers take the most."""

Combine = Callable[[OnnxModel, Operand, Operand], str]
"""Writes a function of two bools."""


def _bitwise(combine: Combine, onnx: OnnxModel, a: Operand, b: Operand, dtype: str) -> str:
    """Combine the bits of two tensors."""
    if dtype == "bool":
        return combine(onnx, a, b)
    wide = "int64" if dtype == "int64" else "int32"
    powers = onnx.constant([2**i for i in range(BITS[dtype])], wide)
    (sign_a, bits_a), (sign_b, bits_b) = (_bits(onnx, x, powers, wide) for x in (a, b))
    sign, bits = combine(onnx, sign_a, sign_b), combine(onnx, bits_a, bits_b)
    total = _number(onnx, onnx.op("Xor", bits, sign), BITS[dtype], wide)
    found = onnx.op("Where", sign, _complement(onnx, total, wide), total)
    return onnx.cast(onnx.op("Squeeze", found, onnx.ints([-1])), dtype)


def _number(onnx: OnnxModel, bits: str, count: int, dtype: str) -> str:
    """Return the numbers that have the bits along the last axis, 32 bits at a time.

    ONNX Runtime adds int64 in float64, which has 53 bits.
    """
    total = ""
    for low in range(0, count, 32):
        powers = [2 ** (i - low) if low <= i < low + 32 else 0 for i in range(count)]
        counted = onnx.op("Where", bits, onnx.constant(powers, dtype), onnx.constant(0, dtype))
        part = onnx.op("ReduceSum", counted, onnx.ints([-1]), keepdims=1)
        if low:
            part = onnx.op("Mul", part, onnx.constant(2**low, dtype))
        total = onnx.op("Add", total, part) if low else part
    return total


def _bits(onnx: OnnxModel, x: Operand, powers: str, dtype: str) -> tuple[str, str]:
    """Return the sign and the bits of `x` as bools along a new last axis."""
    column = onnx.op("Unsqueeze", onnx.cast(x, dtype), onnx.ints([-1]))
    sign = onnx.op("Less", column, onnx.constant(0, dtype))
    positive = onnx.op("Where", sign, _complement(onnx, column, dtype), column)
    odd = onnx.op("Mod", onnx.op("Div", positive, powers), onnx.constant(2, dtype))
    return sign, onnx.op("Xor", onnx.cast(odd, "bool"), sign)


def _complement(onnx: OnnxModel, x: Operand, dtype: str) -> str:
    return onnx.op("Sub", onnx.constant(-1, dtype), x)


def _one(op_type: str, onnx: OnnxModel, a: Operand, b: Operand) -> str:
    return onnx.op(op_type, a, b)


def _of_tensors(combine: Combine, onnx: OnnxModel, a: Value, b: Value) -> str:
    return _bitwise(combine, onnx, a, b, a.dtype)


def _of_scalar(
    combine: Combine, onnx: OnnxModel, x: Value, *, scalar: float = 1.0, is_int: bool = True
) -> str:
    if x.dtype == "bool":
        return _with_truth(combine, onnx, x, bool(scalar))
    return _bitwise(combine, onnx, x, constant(onnx, scalar, x.dtype), x.dtype)


def _with_truth(combine: Combine, onnx: OnnxModel, x: Value, truth: bool) -> str:
    """Combine with a truth; TensorRT 8.5 ends the process over an ``And`` or ``Or`` of these."""
    if combine is _xor:
        return onnx.op("Not", x) if truth else onnx.op("Identity", x)
    if truth is (combine is _and):
        return onnx.op("Identity", x)
    never = onnx.op("Xor", x, x)
    return onnx.op("Not", never) if truth else never


_and, _or, _xor = (partial(_one, op_type) for op_type in ("And", "Or", "Xor"))
for _name, _combine in (("and", _and), ("or", _or), ("xor", _xor)):
    converts(f"_npi_bitwise_{_name}")(partial(_of_tensors, _combine))
    converts(f"_npi_bitwise_{_name}_scalar")(partial(_of_scalar, _combine))


@converts("_npi_bitwise_not")
def bitwise_not(onnx: OnnxModel, x: Value) -> str:
    """``_npi_bitwise_not`` -> ``Not``, or ``Sub`` from the number whose bits are all set."""
    if x.dtype == "bool":
        return onnx.op("Not", x)
    return onnx.op("Sub", onnx.constant(255 if x.dtype == "uint8" else -1, x.dtype), x)


# -- common multiples ------------------------------------------------------------------------------


@converts("_npi_lcm")
def lcm(onnx: OnnxModel, a: Value, b: Value) -> str:
    """``_npi_lcm`` -> the product by the greatest common divisor, which a ``Loop`` finds."""
    if a.dtype == "bool":
        return onnx.op("And", a, b)
    return _lcm(onnx, a, b, a.dtype)


@converts("_npi_lcm_scalar")
def lcm_scalar(onnx: OnnxModel, x: Value, *, scalar: float = 1.0, is_int: bool = True) -> str:
    """``_npi_lcm_scalar`` -> as ``_npi_lcm``."""
    if not is_int:
        raise UnsupportedOp("is_int=False: MXNet writes integers to the memory of its floats")
    return _lcm(onnx, x, constant(onnx, scalar, x.dtype), x.dtype)


def _lcm(onnx: OnnxModel, a: Operand, b: Operand, dtype: str) -> str:
    one, two = (onnx.op("Abs", onnx.cast(x, "int64")) for x in (a, b))
    zero = onnx.constant(0, "int64")
    # the loop may end at the negative of the divisor in TensorRT 8.5
    divisor = onnx.op("Abs", _gcd(onnx, one, two, STEPS[dtype]))
    divisor = onnx.op("Where", onnx.op("Equal", divisor, zero), onnx.constant(1, "int64"), divisor)
    found = onnx.op("Mul", onnx.op("Div", one, divisor), two)
    return found if dtype == "int64" else onnx.cast(found, dtype)


def _gcd(onnx: OnnxModel, one: Operand, two: Operand, steps: int) -> str:
    """Return the greatest common divisor by Euclid's algorithm, on two tensors of one shape."""
    zero = onnx.constant(0, "int64")
    starts = [
        onnx.op("Add", x, onnx.op("Mul", other, zero)) for x, other in ((one, two), (two, one))
    ]
    body = onnx.subgraph("gcd")
    body.declare(Value("step", (), "int64"))
    again = Value("again", (), "bool")
    body.declare(again)
    big, small = (body.declare(Value(name, None, "int64")) for name in ("big", "small"))
    nothing, one_more = body.constant(0, "int64"), body.constant(1, "int64")
    ready = body.op("Equal", small, nothing)
    rest = body.op("Mod", big, body.op("Where", ready, one_more, small))
    made = {
        "go_on": body.op("Identity", again),
        "next_big": body.op("Where", ready, big, small),
        "next_small": body.op("Where", ready, nothing, rest),
    }
    outputs = [Value(n, None, "bool" if n == "go_on" else "int64") for n in made]
    for value, tensor in zip(outputs, made.values()):
        body.alias(value, tensor)
    found, _ = onnx.ops(
        "Loop", onnx.constant(steps, "int64"), onnx.constant(True, "bool"), *starts,
        outputs=2, body=body.finish(outputs).graph,
    )  # fmt: skip
    return found
