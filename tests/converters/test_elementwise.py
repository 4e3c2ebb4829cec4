"""Arithmetic of two tensors, and of a tensor and a number, against MXNet."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import check_operator, check_refused, operator, random_array, without_nan

X, Y, Z = (mx.sym.var(name) for name in "xyz")

FLOATS = ["float16", "float32", "float64"]
INTEGERS = ["int8", "uint8", "int32", "int64"]

ELEMWISE = ["elemwise_add", "elemwise_sub", "elemwise_mul", "elemwise_div", "_grad_add", "_mod",
            "_power", "_hypot", "_maximum", "_minimum"]  # fmt: skip
BROADCAST = [f"broadcast_{name}" for name in (
    "add", "sub", "mul", "div", "mod", "power", "hypot", "maximum", "minimum")]  # fmt: skip
SCALAR = [f"_{name}_scalar" for name in (
    "plus", "minus", "rminus", "mul", "div", "rdiv", "mod", "rmod", "power", "rpower", "hypot",
    "maximum", "minimum")]  # fmt: skip


def apply(op: str, *inputs: mx.sym.Symbol, **options: Any) -> mx.sym.Symbol:
    return getattr(mx.sym._internal if op.startswith("_") else mx.sym, op)(*inputs, **options)


def operands(op: str, shape: tuple[int, ...], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers that the operator takes: no 0 to divide by, nor a power of less than 0."""
    a, b = random_array(shape, dtype, 1), random_array(shape, dtype, 2)
    if op.endswith("power"):
        a = np.abs(a)
    if op.endswith(("div", "power")):
        b = np.where(b == 0, np.asarray(1, dtype), b)
    if op.endswith("power") and np.dtype(dtype).kind == "i":
        b = np.abs(b)
    return a, b


@pytest.mark.parametrize("op", ELEMWISE)
@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_two_tensors(op: str, dtype: str) -> None:
    a, b = operands(op, (3, 1, 17), dtype)
    check_operator(apply(op, X, Y), {"x": a, "y": b})


@pytest.mark.parametrize("op", BROADCAST)
@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_broadcasting(op: str, dtype: str) -> None:
    a, b = operands(op, (3, 4, 5), dtype)
    check_operator(apply(op, X, Y), {"x": a[:, :1], "y": b[:1, :, :1]})


@pytest.mark.parametrize("op", ["broadcast_mod", "_mod"])
@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_modulo_by_any_sign_and_by_zero(op: str, dtype: str) -> None:
    a = np.array([7, -7, 7, -7, 6, -6, 0, 5, -5, 3], "int64").astype(dtype)
    b = np.array([2, 2, -2, -2, 3, -3, 0, 0, 0, -5], "int64").astype(dtype)
    if np.dtype(dtype).kind == "f":
        special = np.array([[5, np.inf], [3, -np.inf], [np.inf, 2], [1e-3, -7], [5.5, -1.5]])
        a, b = np.concatenate([np.stack([a, b]), special.T.astype(dtype)], axis=1)
    check_operator(apply(op, X, Y), {"x": a, "y": b})


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_the_least_integer_modulo_minus_1(dtype: str) -> None:
    least = np.array([np.iinfo(dtype).min, -5, 7], dtype)
    check_operator(apply("_mod", X, Y), {"x": least, "y": np.array([-1, -1, 0], dtype)})
    check_operator(apply("_mod_scalar", X, scalar=-1), {"x": least})


@pytest.mark.parametrize("dtype", FLOATS)
def test_hypotenuse_of_special_numbers(dtype: str) -> None:
    large, small = {"float16": (3e4, 1e-4), "float32": (1e30, 1e-30)}.get(dtype, (1e300, 1e-300))
    a = np.array([large, small, 0, np.inf, -np.inf, np.inf, -3, np.nan, -np.inf, np.nan, 2], dtype)
    b = np.array([large, small, 0, 1, np.inf, 0, -4, np.inf, np.nan, np.nan, np.nan], dtype)
    check_operator(mx.sym._internal._hypot(X, Y), {"x": a, "y": b}, atol=0)


@without_nan
@pytest.mark.parametrize("op", ["_maximum", "_minimum"])
def test_extremes_of_special_numbers(op: str) -> None:
    a = np.array([np.nan, 1, np.inf, -np.inf, 0], "float32")
    b = np.array([1, np.nan, 1, 1, -1], "float32")
    check_operator(apply(op, X, Y), {"x": a, "y": b})


@pytest.mark.parametrize("op", ["elemwise_add", "elemwise_sub", "elemwise_mul"])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_wrap_around(op: str, dtype: str) -> None:
    top = np.iinfo(dtype).max
    a, b = np.array([top, top, top - 5], dtype), np.array([top, 2, 100], dtype)
    check_operator(apply(op, X, Y), {"x": a, "y": b})


@pytest.mark.parametrize("op", SCALAR)
@pytest.mark.parametrize("scalar", [2.7, -3.0, 0.0])
@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_scalars(op: str, scalar: float, dtype: str) -> None:
    x = np.arange(1 if dtype == "uint8" or op in {"_rdiv_scalar", "_rpower_scalar"} else -4, 6)
    x = x.astype(dtype)
    if np.dtype(dtype).kind == "f":
        x = x * np.asarray(0.75, dtype)
    symbol = apply(op, X, scalar=scalar)
    if np.dtype(dtype).kind != "f" and int(scalar) == 0 and op == "_div_scalar":
        check_refused(symbol, {"x": x}, "scalar=0.0 divides integers by 0")
    else:
        check_operator(symbol, {"x": x})


@pytest.mark.parametrize("op", SCALAR)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_scalars_that_are_no_integers(op: str, dtype: str) -> None:
    symbol = apply(op, X, scalar=2.7, is_int=False)
    check_operator(symbol, {"x": np.arange(1, 7, dtype=dtype)})


@pytest.mark.parametrize("op", SCALAR)
def test_scalar_is_one_by_default(op: str) -> None:
    check_operator(apply(op, X), {"x": np.linspace(0.1, 3, 7, dtype="float32")})


def test_scalars_out_of_range() -> None:
    check_operator(X + 1e9, {"x": np.ones(3, "float16")})
    check_operator(X + 300, {"x": np.ones(3, "uint8")})
    check_refused(X + 1e30, {"x": np.ones(3, "int32")}, "no number of any integer type")


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "uint8"])
def test_add_n(count: int, dtype: str) -> None:
    names = [f"x{i}" for i in range(count)]
    symbol = mx.sym.add_n(*map(mx.sym.var, names))
    check_operator(symbol, {n: random_array((2, 3), dtype, i) for i, n in enumerate(names)})


@pytest.mark.parametrize("dtype", [*FLOATS, "int32", "int64"])
def test_dense_arrays_in_operators_of_sparse_ones(dtype: str) -> None:
    x = random_array((3, 4), dtype)
    for attrs in ({"scalar": 2.5}, {"scalar": 2}, {"scalar": 2.5, "is_int": False}):
        check_operator(operator("_scatter_plus_scalar", 1, **attrs), {"x0": x})
        check_operator(operator("_scatter_minus_scalar", 1, **attrs), {"x0": x})
    check_operator(operator("_scatter_elemwise_div", 2), {"x0": x, "x1": abs(x) + 1})


@pytest.mark.parametrize("bounds", [(-1.7, 2.3), (0.0, 6.0), (-1e30, 1e30), (1.0, 1.0)])
@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_clip(bounds: tuple[float, float], dtype: str) -> None:
    low, high = bounds
    x = np.arange(0 if dtype == "uint8" else -6, 12).astype(dtype)
    check_operator(mx.sym.clip(X, a_min=low, a_max=high), {"x": x})


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_clip_to_bounds_that_cross(dtype: str) -> None:
    x = np.arange(0 if dtype == "uint8" else -3, 9).astype(dtype)
    check_operator(mx.sym.clip(X, a_min=5, a_max=2), {"x": x})
    if dtype in FLOATS:
        special = np.array([np.nan, np.inf, -np.inf, 3], dtype)
        check_operator(mx.sym.clip(X, a_min=5, a_max=2), {"x": special})


@without_nan
def test_clip_of_special_numbers() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0.5], "float32")
    check_operator(mx.sym.clip(X, a_min=-1, a_max=1), {"x": x})
    check_operator(mx.sym.clip(X, a_min=-np.inf, a_max=1), {"x": x})


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
@pytest.mark.parametrize("condition", ["float32", "int32", "float16"])
def test_where(condition: str, dtype: str) -> None:
    arrays = {
        "x": np.array([[1, 0, -1, 0.5, 0], [0, 2, 0, 1, 1]]).astype(condition),
        "y": random_array((2, 5), dtype, 1),
        "z": random_array((2, 5), dtype, 2),
    }
    check_operator(mx.sym.where(X, Y, Z), arrays)


@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 4, 2), (3, 3)])
def test_where_chooses_rows(shape: tuple[int, ...]) -> None:
    arrays = {"x": np.array([0, 1, 0], "float32"), "y": random_array(shape, seed=1)}
    check_operator(mx.sym.where(X, Y, Z), {**arrays, "z": random_array(shape, seed=2)})


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_broadcast(data: st.DataObject) -> None:
    op = data.draw(st.sampled_from(BROADCAST))
    dtype = data.draw(st.sampled_from(["float32", "int32"]))
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple))
    a, b = operands(op, shape, dtype)
    for axis in range(len(shape)):
        which = data.draw(st.sampled_from(["a", "b", "neither"]))
        a = a.take([0], axis) if which == "a" else a
        b = b.take([0], axis) if which == "b" else b
    check_operator(apply(op, X, Y), {"x": a, "y": b})
