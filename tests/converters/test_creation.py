"""Zeros, ones and ranges against MXNet."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from operators import check_operator, check_refused, random_array

FLOATS = ["float32", "float16", "float64"]
DTYPES = [*FLOATS, "int32", "int64", "int8", "uint8"]
DATA = mx.sym.var("data")


def check_constant(made: mx.sym.Symbol, dtype: str) -> None:
    """Check an operator without inputs: what it makes is joined to an input as a vector."""
    flat = mx.sym.Reshape(made, shape=(-1,))
    check_operator(mx.sym.Concat(DATA, flat, dim=0), {"data": random_array((3,), dtype)})


@pytest.mark.parametrize("dtype", DTYPES)
def test_filled(dtype: str) -> None:
    check_constant(mx.sym.zeros((2, 3), dtype=dtype), dtype)
    check_constant(mx.sym.ones((2, 1, 3), dtype=dtype), dtype)
    check_constant(mx.sym.full((4,), 201.7, dtype=dtype), dtype)
    check_constant(mx.sym.full((4,), -3.7, dtype=dtype), dtype)


@pytest.mark.parametrize(
    "attrs",
    [
        {"start": 5},
        {"start": 2, "stop": 9, "step": 2},
        {"start": 9, "stop": 2, "step": -2, "repeat": 2},
        {"start": 0.3, "stop": 3, "step": 0.7, "repeat": 3},
        {"start": -3, "stop": 3, "step": 1.5},
        {"start": 0, "stop": 3, "step": 0.1},
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_arange(attrs: dict[str, Any], dtype: str) -> None:
    if dtype == "uint8" and min(attrs.values()) < 0:
        pytest.skip("converting a negative double to an unsigned type is undefined in C")
    check_constant(mx.sym.arange(**attrs, dtype=dtype), dtype)


@pytest.mark.parametrize(
    "attrs",
    [
        {"start": 0, "stop": 1, "num": 7},
        {"start": -3, "stop": 10, "num": 6, "endpoint": False},
        {"start": 4, "stop": 1, "num": 1},
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_linspace(attrs: dict[str, Any], dtype: str) -> None:
    if dtype == "uint8" and attrs["start"] < 0:
        pytest.skip("converting a negative double to an unsigned type is undefined in C")
    check_constant(mx.sym.linspace(**attrs, dtype=dtype), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("attrs", [(3,), (3, 4, 1), (4, 3, -1), (3, 2, -4), (2, 0, 1)])
def test_eye(attrs: tuple[int, ...], dtype: str) -> None:
    check_constant(mx.sym.eye(*attrs, dtype=dtype), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", [mx.sym.zeros_like, mx.sym.ones_like])
def test_like(op: Any, dtype: str) -> None:
    data = random_array((2, 1, 3), dtype)
    if dtype in FLOATS:
        data[0, 0] = [np.nan, np.inf, -np.inf]
    check_operator(op(DATA), {"data": data})
    check_operator(op(DATA, dtype="int64"), {"data": data})  # GluonCV asks for it, in vain


@pytest.mark.parametrize("axis", [None, 0, -1])
@pytest.mark.parametrize(
    "attrs",
    [{}, {"start": 1.5, "step": 0.1}, {"start": 20, "step": -2, "repeat": 2}, {"repeat": 3}],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_arange_like(axis: int | None, attrs: dict[str, Any], dtype: str) -> None:
    if dtype == "uint8" and attrs.get("step", 1) < 0:
        pytest.skip("converting a negative double to an unsigned type is undefined in C")
    symbol = mx.sym.contrib.arange_like(DATA, axis=axis, **attrs)
    check_operator(symbol, {"data": random_array((2, 1, 5), dtype)})


@pytest.mark.parametrize("axes", [None, (2, 0), (-1,)])
def test_index_array(axes: tuple[int, ...] | None) -> None:
    check_operator(mx.sym.contrib.index_array(DATA, axes=axes), {"data": (2, 1, 3)})
    check_operator(mx.sym.contrib.index_array(DATA), {"data": (4,)})


def test_arange_with_a_needless_infer_range() -> None:
    check_constant(mx.sym.arange(0, 5, infer_range=True), "float32")


def test_refusals() -> None:
    symbol = DATA + mx.sym.arange(0, None, infer_range=True)
    check_refused(symbol, {"data": (3,)}, "infer_range=True without a stop leaves the length")
    with mx.util.np_shape(True):
        symbol = DATA + mx.sym.zeros((-1, 3))
        check_refused(symbol, {"data": (2, 3)}, "shape=(-1, 3) leaves sizes to what reads")
