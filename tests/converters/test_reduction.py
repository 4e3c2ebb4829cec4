"""Reductions against MXNet."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import check_operator, check_refused, random_array

X = mx.sym.var("x")
REDUCTIONS = ["sum", "mean", "prod", "nansum", "nanprod", "max", "min"]

AXES: list[dict[str, Any]] = [
    {},
    {"axis": ()},
    {"keepdims": True},
    {"axis": 1},
    {"axis": -1, "keepdims": True},
    {"axis": (0, 2)},
    {"axis": (-1, 0), "keepdims": True},
    {"axis": (0, 1, 2)},
    {"axis": 1, "exclude": True},
    {"axis": (0, -1), "exclude": True, "keepdims": True},
    {"axis": (0, 1, 2), "exclude": True},
    {"axis": (), "exclude": True},
]


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("options", AXES, ids=str)
def test_axes(op: str, options: dict[str, Any]) -> None:
    x = random_array((2, 3, 5))
    if op.startswith("nan"):
        x[0, 1] = np.nan
    check_operator(getattr(mx.sym, op)(X, **options), {"x": x})


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint8", "int32", "int64"])
def test_dtypes(op: str, dtype: str) -> None:
    x = random_array((2, 3, 5), dtype)
    check_operator(getattr(mx.sym, op)(X, axis=1), {"x": x})
    check_operator(getattr(mx.sym, op)(X), {"x": x[0, 0]})


@pytest.mark.parametrize("op", ["sum", "prod", "mean"])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_small_integers_wrap_around(op: str, dtype: str) -> None:
    x = np.array([[100, 100, 100], [7, 9, 11]], dtype)
    check_operator(getattr(mx.sym, op)(X, axis=1), {"x": x})


@pytest.mark.parametrize("op", ["max", "min", "sum"])
def test_special_numbers(op: str) -> None:
    # NaN is left out for max and min: MXNet hands it on, ONNX Runtime's ReduceMax skips it. So is
    # nansum: MXNet's compensated sum makes NaN of infinity.
    first = np.nan if op == "sum" else 3
    x = np.array([[1, first, 2], [np.inf, 0, 1], [-np.inf, 3, -1]], "float32")
    check_operator(getattr(mx.sym, op)(X, axis=1), {"x": x})


@pytest.mark.parametrize("ord_", [1, 2])
@pytest.mark.parametrize(
    "options",
    [{}, {"axis": 1}, {"axis": (0, -1), "keepdims": True}, {"keepdims": True}, {"axis": ()}],
    ids=str,
)
def test_norm(ord_: int, options: dict[str, Any]) -> None:
    check_operator(mx.sym.norm(X, ord=ord_, **options), {"x": (2, 3, 5)})


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("ord_", [1, 2])
def test_norm_of_floats(ord_: int, dtype: str) -> None:
    check_operator(
        mx.sym.norm(X, ord=ord_, axis=1, out_dtype=dtype), {"x": random_array((3, 7), dtype)}
    )


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64"])
def test_norm_of_integers(dtype: str) -> None:
    x = random_array((3, 7), dtype)
    check_operator(mx.sym.norm(X, ord=1, axis=1), {"x": x})
    check_refused(mx.sym.norm(X, ord=2, axis=1), {"x": x}, "cuts each step of it off")


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_a_norm_that_the_type_does_not_hold(dtype: str) -> None:
    least = np.iinfo(dtype).min
    x = np.array([[least // 2, -(least // 2), -5], [least, 0, 0], [-3, 4, 0]], dtype)
    check_operator(mx.sym.norm(X, ord=1, axis=1), {"x": x})


@pytest.mark.parametrize("out_dtype", ["float32", "float64", "float16"])
def test_norm_out_dtype(monkeypatch: pytest.MonkeyPatch, out_dtype: str) -> None:
    monkeypatch.setenv("MXNET_SAFE_ACCUMULATION", "1")  # without it MXNet fails
    x = random_array((3, 7), "float16")
    # MXNet sums halves in float32 whatever comes out
    rtol = 1e-6 if out_dtype == "float64" else None
    check_operator(mx.sym.norm(X, ord=2, axis=1, out_dtype=out_dtype), {"x": x}, rtol=rtol)


def test_norm_out_dtype_refused() -> None:
    symbol = mx.sym.norm(X, out_dtype="int32")
    check_refused(symbol, {"x": (3, 7)}, "MXNet does not compute it either")


@pytest.mark.parametrize("op", ["argmax", "argmin"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"keepdims": True},
        {"axis": 0},
        {"axis": -1},
        {"axis": 1, "keepdims": True},
        {"axis": None},
    ],
    ids=str,
)
def test_positions(op: str, options: dict[str, Any]) -> None:
    check_operator(getattr(mx.sym, op)(X, **options), {"x": (2, 3, 5)})


@pytest.mark.parametrize("op", ["argmax", "argmin"])
@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint8", "int32", "int64"])
def test_positions_dtypes_and_ties(op: str, dtype: str) -> None:
    x = np.array([[3, 1, 3, 1], [0, 0, 0, 0], [1, 2, 3, 4]], dtype)
    check_operator(getattr(mx.sym, op)(X, axis=1), {"x": x})
    check_operator(getattr(mx.sym, op)(X, axis=0), {"x": x[:, 0]})


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5), (2, 3, 1, 5)])
def test_argmax_channel(shape: tuple[int, ...]) -> None:
    check_operator(mx.sym.argmax_channel(X), {"x": shape})


@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_axes(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    axis = st.integers(-len(shape), len(shape) - 1)
    axes = st.lists(axis, max_size=len(shape), unique_by=lambda a: a % len(shape)).map(tuple)
    symbol = getattr(mx.sym, data.draw(st.sampled_from(REDUCTIONS)))(
        X,
        axis=data.draw(st.one_of(st.none(), axis, axes)),
        keepdims=data.draw(st.booleans()),
        exclude=data.draw(st.booleans()),
    )
    check_operator(symbol, {"x": shape}, unknown_sizes=False)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_multi_sum_sq(dtype: str) -> None:
    symbol = mx.sym.multi_sum_sq(X, mx.sym.var("y"), num_arrays=2)
    check_operator(symbol, {"x": random_array((2, 3), dtype), "y": random_array((5,), dtype)})


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("odd", [0, np.nan, np.inf, -np.inf, 65504, 3e38, 1e39])
def test_all_finite(dtype: str, odd: float) -> None:
    with np.errstate(over="ignore"):
        x = np.array([[1, 2], [3, odd]], dtype)
    check_operator(mx.sym.all_finite(X), {"x": x})
    symbol = mx.sym.multi_all_finite(mx.sym.var("y"), X, num_arrays=2, init_output=True)
    check_operator(symbol, {"x": x, "y": np.ones(3, dtype)})


def test_refused() -> None:
    check_refused(mx.sym.all_finite(X, init_output=False), {"x": (2, 3)}, "init_output=False")
    symbol = mx.sym.multi_all_finite(X, num_arrays=1, init_output=False)
    check_refused(symbol, {"x": (2, 3)}, "init_output=False")
    check_refused(mx.sym.all_finite(X), {"x": np.ones(3, "int32")}, "floats alone")
