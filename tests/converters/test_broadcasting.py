"""Repeating axes of size 1, against MXNet."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import check_any_rank, check_operator, random_array

X, LIKE = mx.sym.var("x"), mx.sym.var("like")
SHAPE = (1, 2, 3, 1)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "int64", "uint8"])
@pytest.mark.parametrize(
    "options",
    [
        {"axis": 0, "size": 5},
        {"axis": (0, 3), "size": (2, 4)},
        {"axis": (3, 0), "size": (1, 7)},
        {},
    ],
    ids=str,
)
def test_broadcast_axis(options: dict[str, Any], dtype: str) -> None:
    check_operator(mx.sym.broadcast_axis(X, **options), {"x": random_array(SHAPE, dtype)})


@pytest.mark.parametrize("axis", [(0,), (1,), (2, 0), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 1, 5)], ids=str)
def test_broadcast_axis_of_any_rank(shape: tuple[int, ...], axis: tuple[int, ...]) -> None:
    symbol = mx.sym.broadcast_axis(X, axis=axis, size=tuple(a + 2 for a in axis))
    check_any_rank(symbol, {"x": random_array(shape)})


@pytest.mark.parametrize("shape", [(5, 2, 3, 4), (0, 0, 0, 4), (1, 2, 0, 1)])
def test_broadcast_to(shape: tuple[int, ...]) -> None:
    check_operator(mx.sym.broadcast_to(X, shape=shape), {"x": SHAPE})


@pytest.mark.parametrize(
    ("like", "options"),
    [
        ((5, 2, 3, 4), {}),
        (SHAPE, {}),
        ((7, 9), {"lhs_axes": (0, 3), "rhs_axes": (1, 0)}),
        ((7, 9), {"lhs_axes": (-1,), "rhs_axes": (-1,)}),
        ((7,), {"lhs_axes": 0, "rhs_axes": 0}),
    ],
)
def test_broadcast_like(like: tuple[int, ...], options: dict[str, Any]) -> None:
    check_operator(mx.sym.broadcast_like(X, LIKE, **options), {"x": SHAPE, "like": like})


@pytest.mark.parametrize(
    "axes", [((0, 2), (1, 0)), ((1,), (-1,)), ((2, 1, 0), (0, -2, -1))], ids=str
)
def test_broadcast_like_of_any_rank(axes: tuple[tuple[int, ...], ...]) -> None:
    symbol = mx.sym.broadcast_like(X, LIKE, lhs_axes=axes[0], rhs_axes=axes[1])
    check_any_rank(symbol, {"x": (1, 1, 1, 3), "like": (4, 5)})


def test_identity_with_attr_like_rhs() -> None:
    symbol = mx.sym._internal._identity_with_attr_like_rhs(X, LIKE)
    check_operator(symbol, {"x": SHAPE, "like": SHAPE})


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_broadcast(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple))
    ones = data.draw(st.sets(st.sampled_from(range(len(shape)))))
    x = random_array(tuple(1 if axis in ones else n for axis, n in enumerate(shape)))
    axes = data.draw(st.permutations(sorted(ones)).map(tuple))
    sizes = tuple(shape[axis] for axis in axes)
    check_operator(mx.sym.broadcast_axis(X, axis=axes, size=sizes), {"x": x})
    check_operator(mx.sym.broadcast_to(X, shape=shape), {"x": x})
    check_operator(mx.sym.broadcast_like(X, LIKE), {"x": x, "like": shape})
