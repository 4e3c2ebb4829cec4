"""Elementary functions against MXNet."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from operators import ENGINE, check_operator, check_refused

X = mx.sym.var("x")

EVERYWHERE = [
    "exp", "erf", "sigmoid", "sin", "cos", "tan", "arctan", "sinh", "cosh", "tanh", "arcsinh",
    "relu", "abs", "sign", "negative", "square", "cbrt", "degrees", "radians", "expm1", "floor",
    "ceil", "trunc", "fix", "round", "rint", "softsign", "gammaln",
]  # fmt: skip
POSITIVE = ["log", "log2", "log10", "sqrt", "rsqrt", "reciprocal", "rcbrt", "log1p", "gamma"]
INSIDE_ONE = ["arcsin", "arccos", "arctanh", "erfinv"]
FUNCTIONS = [
    *((name, -4.0, 4.0) for name in EVERYWHERE),
    *((name, 0.01, 9.0) for name in POSITIVE),
    *((name, -0.999, 0.999) for name in INSIDE_ONE),
    ("arccosh", 1.0, 9.0),
]
NO_DOUBLE = {"erf", "erfinv"}
"""What ONNX Runtime has no float64 kernel for."""


def apply(op: str) -> mx.sym.Symbol:
    return getattr(mx.sym, op)(X)


@pytest.mark.parametrize(("op", "low", "high"), FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_functions(op: str, low: float, high: float, dtype: str) -> None:
    x = np.linspace(low, high, 111, dtype=dtype).reshape(3, 37)
    if op in NO_DOUBLE and dtype == "float64":
        check_refused(apply(op), {"x": x}, "ONNX")
    else:
        check_operator(apply(op), {"x": x})


INTEGERS = ["exp", "sqrt", "reciprocal", "sin", "cos", "tanh", "sigmoid", "log", "rsqrt", "log1p",
            "expm1", "degrees", "radians", "relu", "abs", "sign", "negative", "square", "floor",
            "ceil", "trunc", "fix", "round", "rint", "softsign"]  # fmt: skip


@pytest.mark.parametrize("op", INTEGERS)
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
def test_functions_of_integers(op: str, dtype: str) -> None:
    first = 1 if op in {"reciprocal", "log", "rsqrt", "log1p", "sqrt"} or dtype == "uint8" else -7
    check_operator(apply(op), {"x": np.arange(first, 8, dtype=dtype)})


@pytest.mark.parametrize("op", ["cbrt", "rcbrt", "log2", "log10", "gamma", "gammaln", "erfinv"])
def test_cut_off_functions_are_refused(op: str) -> None:
    check_refused(apply(op), {"x": np.arange(1, 5, dtype="int32")}, "last bit of a float")


@pytest.mark.parametrize("op", ["log1p", "expm1", "erfinv", "cbrt", "sinh", "arcsinh", "tanh"])
def test_small_numbers_keep_their_digits(op: str) -> None:
    x = np.geomspace(1e-12, 0.9, 60, dtype="float32")
    check_operator(apply(op), {"x": np.concatenate([x, -x])}, atol=0)


FAR = np.concatenate([np.linspace(-30, 30, 401), np.geomspace(1e-30, 1e30, 31)])
INSIDE = np.concatenate([np.linspace(-1, 1, 401), np.geomspace(1e-30, 0.3, 31)])
SPECIAL = [0, 1e200, np.inf, np.nan]


@pytest.mark.parametrize(
    ("op", "numbers"),
    [
        *((op, [*FAR, *-FAR, *SPECIAL]) for op in ("sinh", "cosh", "arctan", "arcsinh")),
        ("tan", [*FAR, *-FAR]),
        ("arctanh", [*INSIDE, 1.5, np.nan]),
        ("arcsin", [*INSIDE, 1.5, np.nan]),
        ("arccosh", [*np.linspace(1, 20, 401), *SPECIAL]),
    ],
)
def test_float64_without_a_kernel(op: str, numbers: list[float]) -> None:
    # the factor 1e-9 of tan: MXNet's and ONNX Runtime's sines of 1e30 differ
    check_operator(apply(op), {"x": np.array(numbers)}, rtol=1e-9 if op == "tan" else 1e-12, atol=0)


def test_the_arccos_of_float64() -> None:
    check_operator(apply("arccos"), {"x": np.array([*INSIDE, 1.5])}, rtol=1e-12, atol=1e-14)


ROUNDING = ["round", "rint", "fix", "trunc", "floor", "ceil", "_contrib_round_ste"]


@pytest.mark.parametrize("op", ROUNDING)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_halves_and_special_numbers(op: str, dtype: str) -> None:
    halves = np.arange(-4, 4.5, 0.5)
    special = np.array([np.nan, np.inf, -np.inf, 0.49999997, -0.49999997, 8388609, 1025])
    x = np.concatenate([halves, special]).astype(dtype)
    symbol = mx.sym.contrib.round_ste(X) if op.startswith("_") else apply(op)
    check_operator(symbol, {"x": x}, rtol=0, atol=0)


def test_sign_ste() -> None:
    check_operator(mx.sym.contrib.sign_ste(X), {"x": np.array([-2.5, -0.0, 0, 1e-20], "float32")})


@pytest.mark.parametrize(
    "op", ["exp", "tanh", "sigmoid", "log1p", "expm1", "cbrt", "rsqrt", "reciprocal", "log10"]
)
def test_infinities(op: str) -> None:
    x = np.array([np.inf, -np.inf, np.nan, 0, 1e30, 1e-30], "float32")
    with np.errstate(all="ignore"):
        check_operator(apply(op), {"x": x})


@pytest.mark.parametrize("op", ["sign", "rcbrt", "gamma", "gammaln"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_zeros_tiny_numbers_and_nan(op: str, dtype: str) -> None:
    tiny = {"float16": 1e-7, "float32": 1e-40, "float64": 1e-310}[dtype]
    if ENGINE == "tensorrt":  # GPUs may take such numbers for 0
        tiny = 1e-4
    x = np.array([0.0, -0.0, tiny, -tiny, np.nan, 3, -3.5, np.inf] * 3, dtype)
    check_operator(apply(op), {"x": x})


@pytest.mark.parametrize(
    ("op", "numbers"),
    [("sinh", [710.2, -710.2]), ("cosh", [710.2, -710.2]), ("arccosh", [1.7e308, 1.1, 0.5])],
)
def test_the_largest_numbers_of_float64(op: str, numbers: list[float]) -> None:
    check_operator(apply(op), {"x": np.array(numbers)})


@pytest.mark.parametrize("op", ["gamma", "gammaln"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_gamma(op: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    special = [0, 1, 2, 3, 7.999, 8, 33, 0.5, 0.4999, 1e-4, -1e-4, np.inf, np.nan, -1, -2, -33]
    x = np.concatenate([special, rng.uniform(-12, 33, 300), rng.uniform(0, 3, 100)])
    check_operator(apply(op), {"x": x.astype(dtype)})


def test_erfinv_to_the_ends() -> None:
    tail = 1 - np.geomspace(1e-7, 0.5, 60)
    x = np.concatenate([tail, -tail, [1, -1, 0, 1.5, np.nan]]).astype("float32")
    check_operator(apply("erfinv"), {"x": x})


@pytest.mark.parametrize("scalar", [None, 0.0, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "uint8"])
def test_smooth_l1(scalar: float | None, dtype: str) -> None:
    x = np.arange(0 if dtype == "uint8" else -6, 7).astype(dtype)
    x = x / np.asarray(4, dtype) if dtype.startswith("float") else x
    options = {} if scalar is None else {"scalar": scalar}
    check_operator(mx.sym.smooth_l1(X, **options), {"x": x})


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "uint8"])
def test_quadratic(dtype: str) -> None:
    x = np.arange(0 if dtype == "uint8" else -3, 4).astype(dtype)
    check_operator(mx.sym.contrib.quadratic(X, a=1.7, b=2, c=0.1), {"x": x})
    check_operator(mx.sym.contrib.quadratic(X, b=-2), {"x": np.abs(x) * 0})


def test_gradient_multiplier() -> None:
    for is_int in (True, False):
        symbol = mx.sym.contrib.gradientmultiplier(X, scalar=3, is_int=is_int)
        check_operator(symbol, {"x": (2, 3)})


@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_function(data: st.DataObject) -> None:
    op, low, high = data.draw(st.sampled_from(FUNCTIONS))
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple))
    numbers = st.floats(np.float32(low).item(), np.float32(high).item(), width=32)
    x = data.draw(arrays(np.float32, shape, elements=numbers))
    check_operator(apply(op), {"x": x})
