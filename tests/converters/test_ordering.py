"""Sorting, the largest elements, and histograms against MXNet.

The rows hold each number once: MXNet's order of equal elements is arbitrary.
"""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import check_operator, check_refused

X, BINS = mx.sym.var("x"), mx.sym.var("bins")
AXES = [{}, {"axis": 0}, {"axis": 1}, {"axis": -2}, {"axis": None}]
DTYPES = ["float32", "float64", "int8", "uint8", "int32", "int64"]  # MXNet does not sort halves


def shuffled(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    numbers = np.random.default_rng(0).permutation(int(np.prod(shape)))
    return numbers.astype(dtype).reshape(shape)


@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("ret_typ", ["value", "indices", "mask", "both"])
@pytest.mark.parametrize("is_ascend", [True, False])
def test_topk(axis: dict[str, Any], ret_typ: str, is_ascend: bool) -> None:
    symbol = mx.sym.topk(X, k=2, ret_typ=ret_typ, is_ascend=is_ascend, **axis)
    check_operator(symbol, {"x": shuffled((4, 3, 5))})


@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("ret_typ", ["both", "mask"])
@pytest.mark.parametrize("k", [0, -1])
def test_topk_of_all(axis: dict[str, Any], ret_typ: str, k: int) -> None:
    symbol = mx.sym.topk(X, k=k, ret_typ=ret_typ, **axis)
    check_operator(symbol, {"x": shuffled((4, 3, 5))})


def test_topk_defaults() -> None:
    check_operator(mx.sym.topk(X), {"x": shuffled((3, 7))})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ret_typ", ["both", "mask"])
def test_topk_dtypes(dtype: str, ret_typ: str) -> None:
    check_operator(mx.sym.topk(X, k=3, ret_typ=ret_typ), {"x": shuffled((3, 7), dtype)})


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float16", "float32", "float64"])
def test_dtype_of_indices(dtype: str) -> None:
    x = shuffled((2, 2100))  # 2099 is no float16, and no uint8
    check_operator(mx.sym.argsort(X, dtype=dtype), {"x": x})
    check_operator(mx.sym.topk(X, k=2100, dtype=dtype), {"x": x})


@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("options", [{}, {"is_ascend": False}], ids=str)
def test_sort_and_argsort(axis: dict[str, Any], options: dict[str, Any]) -> None:
    x = shuffled((4, 3, 5))
    check_operator(mx.sym.sort(X, **axis, **options), {"x": x})
    check_operator(mx.sym.argsort(X, **axis, **options), {"x": x})


@pytest.mark.parametrize("dtype", DTYPES)
def test_sort_dtypes(dtype: str) -> None:
    check_operator(mx.sym.sort(X), {"x": shuffled((3, 7), dtype)})
    check_operator(mx.sym.argsort(X), {"x": shuffled((3, 7), dtype)})


def test_values_of_equal_elements() -> None:
    x = np.array([[3, 1, 3, 1, 1], [0, 0, 0, 0, 0]], "float32")
    check_operator(mx.sym.sort(X), {"x": x})
    check_operator(mx.sym.topk(X, k=3, ret_typ="value"), {"x": x})


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8"])
@pytest.mark.parametrize(("count", "limits"), [(5, (0, 10)), (3, (0, 10)), (4, (2.5, 7.7))])
def test_histogram(dtype: str, count: int, limits: tuple[float, float]) -> None:
    x = np.array([[0, 1, 2, 2.5, 3, 7], [7.7, 8, 9.99, 10, 11, 6]]).astype(dtype)
    check_operator(mx.sym.histogram(X, bins=count, range=limits), {"x": x})


def test_histogram_of_numbers_on_edges() -> None:
    edges = np.linspace(0.1, 0.7, 7, dtype="float32")
    x = np.concatenate([edges, np.nextafter(edges, 1), np.nextafter(edges, 0), [np.nan]])
    check_operator(mx.sym.histogram(X, bins=6, range=(0.1, 0.7)), {"x": x.astype("float32")})
    check_operator(mx.sym.histogram(X, bins=3, range=(-0.7, 0.1)), {"x": -x.astype("float32")})


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_histogram_with_bins(dtype: str) -> None:
    bins = np.array([0, 1, 2, 3, 10], dtype)
    x = np.array([[0, 1, 2.5], [9.9, 10, -1], [11, 3, 2]]).astype(dtype)
    check_operator(mx.sym.histogram(X, bins=BINS), {"x": x, "bins": bins})
    check_operator(mx.sym.histogram(X, bins=BINS), {"x": x}, {"bins": bins})


def test_refused_histograms() -> None:
    symbol = mx.sym.histogram(X, bins=8, range=(0, 4))
    check_refused(symbol, {"x": np.arange(4, dtype="int32")}, "bins narrower than 1 of int32")


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_topk(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple))
    axis = data.draw(st.one_of(st.none(), st.integers(-len(shape), len(shape) - 1)))
    size = int(np.prod(shape)) if axis is None else shape[axis]
    symbol = mx.sym.topk(
        X,
        axis=axis,
        k=data.draw(st.integers(-1, size)),
        ret_typ=data.draw(st.sampled_from(["value", "indices", "mask", "both"])),
        is_ascend=data.draw(st.booleans()),
    )
    check_operator(symbol, {"x": shuffled(shape)})
