"""Elementary functions of one number.

MXNet computes functions of integers in floats and cuts the result off.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import factorial, inf, log, nan, pi

from numpy import float32

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import doubles
from .elementwise import FLOATS, as_float, cut_off, extreme, from_float, single

FUNCTIONS = {
    "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "sigmoid": "Sigmoid",
    "reciprocal": "Reciprocal", "sin": "Sin", "cos": "Cos", "tan": "Tan", "arcsin": "Asin",
    "arccos": "Acos", "arctan": "Atan", "sinh": "Sinh", "cosh": "Cosh", "tanh": "Tanh",
    "arcsinh": "Asinh", "arccosh": "Acosh", "arctanh": "Atanh",
}  # fmt: skip
"""Functions with an ONNX operator of the same meaning."""


def _function(op_type: str, onnx: OnnxModel, x: Value) -> str:
    operand, dtype = as_float(onnx, x, "float64")
    return from_float(onnx, doubles.function(onnx, op_type, operand, dtype), x.dtype)


for _name, _op_type in FUNCTIONS.items():
    converts(_name)(partial(_function, _op_type))


@converts("erf")
def erf(onnx: OnnxModel, x: Value) -> str:
    """``erf`` -> ``Erf``.

    Special numbers: of NaN ONNX Runtime 1.23 makes 1.
    """
    return _function("Erf", onnx, x)


def _refuse_integers(x: Value) -> None:
    if x.dtype not in FLOATS:
        raise UnsupportedOp(f"of {x.dtype} is cut off, where the last bit of a float decides")


# -- powers and factors ----------------------------------------------------------------------------


@converts("relu")
def relu(onnx: OnnxModel, x: Value) -> str:
    """``relu`` -> ``Relu``; ``Max`` for integers, not all of which ``Relu`` takes."""
    if x.dtype in FLOATS:
        return onnx.op("Relu", x)
    return extreme("Max", onnx, x, onnx.constant(0, x.dtype), x.dtype)


@converts("abs")
def absolute(onnx: OnnxModel, x: Value) -> str:
    """``abs`` -> ``Abs``."""
    return onnx.op("Abs", x)


@converts("sign", "_contrib_sign_ste")
def sign(onnx: OnnxModel, x: Value) -> str:
    """``sign`` -> ``Sign``, and 0 of NaN."""
    found = onnx.op("Sign", x)
    if x.dtype not in FLOATS:
        return found
    return onnx.op("Where", onnx.op("IsNaN", x), onnx.constant(0, x.dtype), found)


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
    found = onnx.op("Reciprocal", cbrt(onnx, x))
    return _pole_at_0(onnx, x, found, x.dtype)


def _pole_at_0(onnx: OnnxModel, x: Operand, found: str, dtype: str) -> str:
    """Return `found`, and infinity with the sign of `x` where that is 0 or -0."""
    is_zero = onnx.op("Equal", x, onnx.constant(0, dtype))
    return onnx.op("Where", is_zero, onnx.op("Reciprocal", x), found)


def _scaled(factor: float, onnx: OnnxModel, x: Value) -> str:
    operand, dtype = as_float(onnx, x, "float32")
    return from_float(onnx, onnx.op("Mul", operand, onnx.constant(factor, dtype)), x.dtype)


# MXNet holds both factors as float32
converts("degrees")(partial(_scaled, float(float32(180) / float32(pi))))
converts("radians")(partial(_scaled, float(float32(pi) / float32(180))))


@converts("_contrib_quadratic")
def quadratic(onnx: OnnxModel, x: Value, *, a: float = 0.0, b: float = 0.0, c: float = 0.0) -> str:
    """``_contrib_quadratic`` -> ``(a x + b) x + c``."""
    operand, dtype = as_float(onnx, x, "float32")
    return from_float(
        onnx, _polynomial(onnx, operand, [single(a), single(b), single(c)], dtype), x.dtype
    )


@converts("smooth_l1")
def smooth_l1(onnx: OnnxModel, x: Value, *, scalar: float = 1.0) -> str:
    """``smooth_l1`` -> ``|x| - 0.5 / s²`` where that is steep, ``0.5 s² x²`` near 0."""
    steepness = (scalar if x.dtype in FLOATS else cut_off(scalar)) ** 2
    operand, dtype = as_float(onnx, x, "float32")
    size = onnx.op("Abs", operand)
    square = onnx.op("Mul", onnx.op("Mul", operand, operand), onnx.constant(0.5, dtype))
    near = onnx.op("Mul", square, onnx.constant(steepness, dtype))
    if steepness == 0:
        return from_float(onnx, near, x.dtype)
    far = onnx.op("Sub", size, onnx.constant(0.5 / steepness, dtype))
    is_far = onnx.op("Greater", size, onnx.constant(1 / steepness, dtype))
    return from_float(onnx, onnx.op("Where", is_far, far, near), x.dtype)


@converts("_contrib_gradientmultiplier")
def gradient_multiplier(
    onnx: OnnxModel, x: Value, *, scalar: float = 1.0, is_int: bool = True
) -> str:
    """``_contrib_gradientmultiplier`` -> ``Identity``: it scales the gradient alone."""
    return onnx.op("Identity", x)


# -- exponentials and logarithms -------------------------------------------------------------------


def _logarithm(base: int, onnx: OnnxModel, x: Value) -> str:
    _refuse_integers(x)
    return onnx.op("Mul", onnx.op("Log", x), onnx.constant(1 / log(base), x.dtype))


converts("log2")(partial(_logarithm, 2))
converts("log10")(partial(_logarithm, 10))


@converts("log1p")
def log1p(onnx: OnnxModel, x: Value) -> str:
    """``log1p`` -> ``Log(1 + x)``, corrected near 0 for what ``1 + x`` rounds off."""
    operand, dtype = as_float(onnx, x, "float64")
    one = onnx.constant(1, dtype)
    rounded = onnx.op("Add", operand, one)
    plain = onnx.op("Log", rounded)
    if x.dtype not in FLOATS:
        return from_float(onnx, plain, x.dtype)
    kept = onnx.op("Sub", rounded, one)  # what is left of x
    nothing = onnx.op("Equal", kept, onnx.constant(0, dtype))
    factor = onnx.op("Where", nothing, one, onnx.op("Div", plain, kept))
    is_small = onnx.op("Less", onnx.op("Abs", operand), onnx.constant(0.5, dtype))
    return onnx.op("Where", is_small, onnx.op("Mul", operand, factor), plain)


@converts("expm1")
def expm1(onnx: OnnxModel, x: Value) -> str:
    """``expm1`` -> ``Exp(x) - 1``; near 0 by ``Tanh(x / 2)``, which keeps the digits.

    Special numbers: denormals may become 0 or lose digits.
    """
    operand, dtype = as_float(onnx, x, "float64")
    one = onnx.constant(1, dtype)
    plain = onnx.op("Sub", onnx.op("Exp", operand), one)
    if x.dtype not in FLOATS:
        return from_float(onnx, plain, x.dtype)
    tanh = onnx.op("Tanh", onnx.op("Mul", operand, onnx.constant(0.5, dtype)))
    precise = onnx.op("Div", onnx.op("Add", tanh, tanh), onnx.op("Sub", one, tanh))
    is_small = onnx.op("Less", onnx.op("Abs", operand), one)
    return onnx.op("Where", is_small, precise, plain)


# -- rounding --------------------------------------------------------------------------------------


@converts("floor")
def floor(onnx: OnnxModel, x: Value) -> str:
    """``floor`` -> ``Floor``."""
    return onnx.op("Floor" if x.dtype in FLOATS else "Identity", x)


@converts("ceil")
def ceil(onnx: OnnxModel, x: Value) -> str:
    """``ceil`` -> ``Ceil``."""
    return onnx.op("Ceil" if x.dtype in FLOATS else "Identity", x)


@converts("trunc", "fix")
def trunc(onnx: OnnxModel, x: Value) -> str:
    """``trunc`` -> ``Ceil`` below 0 and ``Floor`` above."""
    if x.dtype not in FLOATS:
        return onnx.op("Identity", x)
    below = onnx.op("Less", x, onnx.constant(0, x.dtype))
    return onnx.op("Where", below, onnx.op("Ceil", x), onnx.op("Floor", x))


@converts("round", "_contrib_round_ste")
def round_half_away(onnx: OnnxModel, x: Value) -> str:
    """``round`` -> ``Floor`` of the absolute value and one more from a half on, with the sign."""
    if x.dtype not in FLOATS:
        return onnx.op("Identity", x)
    size = onnx.op("Abs", x)
    whole = onnx.op("Floor", size)
    up = onnx.op("GreaterOrEqual", onnx.op("Sub", size, whole), onnx.constant(0.5, x.dtype))
    found = onnx.op("Add", whole, onnx.cast(up, x.dtype))
    below = onnx.op("Less", x, onnx.constant(0, x.dtype))
    return onnx.op("Where", below, onnx.op("Neg", found), found)


@converts("rint")
def rint(onnx: OnnxModel, x: Value) -> str:
    """``rint`` -> the nearer of ``Floor`` and ``Ceil``, and ``Floor`` from a half.

    ONNX's ``Round`` goes to the even neighbour of a half.
    """
    if x.dtype not in FLOATS:
        return onnx.op("Identity", x)
    low, high = onnx.op("Floor", x), onnx.op("Ceil", x)
    is_low = onnx.op("LessOrEqual", onnx.op("Sub", x, low), onnx.op("Sub", high, x))
    return onnx.op("Where", is_low, low, high)


# -- gamma and error function ----------------------------------------------------------------------

STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
"""Coefficients of Stirling's series of log gamma, in odd powers of 1 / x."""

# Giles, "Approximating the erfinv function", 2010: single precision
ERFINV_CENTRE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
    -0.00125372503, -0.00417768164, 0.246640727, 1.50140941,
)  # fmt: skip
ERFINV_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
    -0.0076224613, 0.00943887047, 1.00167406, 2.83297682,
)  # fmt: skip


@converts("gammaln")
def gammaln(onnx: OnnxModel, x: Value) -> str:
    """``gammaln`` -> Stirling's series, reflected below one half.

    Special numbers: next to 0, below 2e-44, it is up to 0.05 off.
    """
    operand, dtype = _for_gamma(onnx, x)
    reflected, log_gamma, nearest, sine = _gamma_parts(onnx, operand, dtype)
    # TensorRT 8.5 made NaN of the poles, of the logarithm of infinity
    is_whole = onnx.op("Equal", operand, nearest)
    divisor = onnx.op("Where", is_whole, onnx.constant(1, dtype), onnx.op("Abs", sine))
    # pi / divisor would overflow where x is next to 0
    ratio = onnx.op("Sub", onnx.constant(log(pi), dtype), onnx.op("Log", divisor))
    below = onnx.op("Sub", ratio, log_gamma)
    below = onnx.op("Where", is_whole, onnx.constant(inf, dtype), below)
    return onnx.cast(onnx.op("Where", reflected, below, log_gamma), x.dtype)


@converts("gamma")
def gamma(onnx: OnnxModel, x: Value) -> str:
    """``gamma`` -> ``Exp`` of Stirling's series, reflected below one half."""
    operand, dtype = _for_gamma(onnx, x)
    reflected, log_gamma, nearest, sine = _gamma_parts(onnx, operand, dtype)
    half = onnx.op("Floor", onnx.op("Mul", nearest, onnx.constant(0.5, dtype)))
    odd = onnx.op("Sub", nearest, onnx.op("Add", half, half))
    signed = onnx.op("Where", onnx.cast(odd, "bool"), onnx.op("Neg", sine), sine)
    ratio = onnx.op("Div", onnx.constant(pi, dtype), signed)
    below = onnx.op("Mul", ratio, onnx.op("Exp", onnx.op("Neg", log_gamma)))
    found = onnx.op("Where", reflected, below, onnx.op("Exp", log_gamma))
    negative = onnx.op("Less", operand, onnx.constant(0, dtype))
    is_pole = onnx.op("And", negative, onnx.op("Equal", operand, nearest))
    found = onnx.op("Where", is_pole, onnx.constant(nan, dtype), found)
    return onnx.cast(_pole_at_0(onnx, operand, found, dtype), x.dtype)


def _for_gamma(onnx: OnnxModel, x: Value) -> tuple[Operand, str]:
    _refuse_integers(x)
    if x.dtype == "float16":  # the series needs more digits on its way than halves have
        return onnx.cast(x, "float32"), "float32"
    return x, x.dtype


def _gamma_parts(onnx: OnnxModel, x: Operand, dtype: str) -> tuple[str, str, str, str]:
    """Return what gamma is made of, by its reflection ``pi / (sin(pi x) gamma(1 - x))``.

    Namely where `x` is below one half, log gamma of what is not (`x` or ``1 - x``), the integer
    nearest to `x`, and the sine of pi times their difference.
    """
    below = onnx.op("Less", x, onnx.constant(0.5, dtype))
    mirrored = onnx.op("Where", below, onnx.op("Sub", onnx.constant(1, dtype), x), x)
    nearest = onnx.op("Round", x)
    sine = _half_turn_sine(onnx, onnx.op("Sub", x, nearest), dtype)
    return below, _log_gamma(onnx, mirrored, dtype), nearest, sine


def _half_turn_sine(onnx: OnnxModel, x: str, dtype: str) -> str:
    """Return the sine of pi times `x`, for one half at most, as a series.

    TensorRT's own sine has few right digits where it is small.
    """
    terms = 11 if dtype == "float64" else 7
    series = [(-1) ** i * pi ** (2 * i + 1) / factorial(2 * i + 1) for i in range(terms)]
    square = onnx.op("Mul", x, x)
    return onnx.op("Mul", x, _polynomial(onnx, square, series[::-1], dtype))


def _log_gamma(onnx: OnnxModel, x: str, dtype: str) -> str:
    """Return log gamma of numbers from one half on; below 8 their series starts further up."""
    steps, terms = (8, 7) if dtype == "float64" else (3, 4)  # 1e-16, 1e-8 off where it starts
    small = onnx.op("Less", x, onnx.constant(8, dtype))
    y = onnx.op("Where", small, onnx.op("Add", x, onnx.constant(steps, dtype)), x)
    product = x
    for step in range(1, steps):
        product = onnx.op("Mul", product, onnx.op("Add", x, onnx.constant(step, dtype)))
    skipped = onnx.op("Where", small, onnx.op("Log", product), onnx.constant(0, dtype))
    inverse = onnx.op("Reciprocal", y)
    powers = onnx.op("Mul", inverse, inverse)
    series = onnx.op("Mul", inverse, _polynomial(onnx, powers, STIRLING[terms - 1 :: -1], dtype))
    main = onnx.op(
        "Mul",
        onnx.op("Sub", y, onnx.constant(0.5, dtype)),
        onnx.op("Sub", onnx.op("Log", y), onnx.constant(1, dtype)),
    )
    rest = onnx.op("Add", series, onnx.constant((log(2 * pi) - 1) / 2, dtype))
    return onnx.op("Sub", onnx.op("Add", main, rest), skipped)


@converts("erfinv")
def erfinv(onnx: OnnxModel, x: Value) -> str:
    """``erfinv`` -> two polynomials in ``-Log(1 - x²)``, as precise as float32."""
    _refuse_integers(x)
    if x.dtype == "float64":
        raise UnsupportedOp("ONNX has no inverse of Erf, and polynomials reach float32's precision")
    number = onnx.cast(x, "float32")
    one = onnx.constant(1, "float32")
    square = onnx.op("Mul", onnx.op("Sub", one, number), onnx.op("Add", one, number))
    depth = onnx.op("Neg", onnx.op("Log", square))
    centre = onnx.op("Sub", depth, onnx.constant(2.5, "float32"))
    tail = onnx.op("Sub", onnx.op("Sqrt", depth), onnx.constant(3, "float32"))
    factor = onnx.op(
        "Where",
        onnx.op("Less", depth, onnx.constant(5, "float32")),
        _polynomial(onnx, centre, ERFINV_CENTRE, "float32"),
        _polynomial(onnx, tail, ERFINV_TAIL, "float32"),
    )
    is_end = onnx.op("Equal", onnx.op("Abs", number), one)
    factor = onnx.op("Where", is_end, onnx.constant(inf, "float32"), factor)
    return onnx.cast(onnx.op("Mul", number, factor), x.dtype)


def _polynomial(onnx: OnnxModel, x: Operand, coefficients: Sequence[float], dtype: str) -> str:
    """Return a polynomial by Horner's rule, its highest coefficient first."""
    first, *others = (onnx.constant(c, dtype) for c in coefficients)
    total = first
    for coefficient in others:
        total = onnx.op("Add", onnx.op("Mul", total, x), coefficient)
    return total
