"""Comparison and logic against MXNet."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from operators import check_operator
from rtx import parts_as_onnx
from test_elementwise import FLOATS, INTEGERS, X, Y, apply

NAMES = ["equal", "not_equal", "greater", "greater_equal", "lesser", "lesser_equal",
         "logical_and", "logical_or", "logical_xor"]  # fmt: skip
A = np.array([[0, 1, 2, 3], [3, 2, 0, 0]])
B = np.array([[0, 2, 1, 3], [0, 2, 0, 1]])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_two_tensors(name: str, dtype: str) -> None:
    arrays = {"x": A.astype(dtype), "y": B.astype(dtype)}
    check_operator(apply(f"_{name}", X, Y), arrays)
    arrays = {"x": A[:, :1].astype(dtype), "y": B[:1].astype(dtype)}
    check_operator(apply(f"broadcast_{name}", X, Y), arrays)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scalar", [2.0, 1.5, 0.0, -1.0])
@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_scalars(name: str, scalar: float, dtype: str) -> None:
    check_operator(apply(f"_{name}_scalar", X, scalar=scalar), {"x": A.astype(dtype)})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_scalars_that_are_no_integers(name: str, dtype: str) -> None:
    symbol = apply(f"_{name}_scalar", X, scalar=1.5, is_int=False)
    check_operator(symbol, {"x": A.astype(dtype)})


@pytest.mark.parametrize("name", NAMES)
def test_special_numbers(name: str) -> None:
    a = np.array([np.nan, np.nan, np.inf, -0.0, 1e-30, np.inf], "float32")
    b = np.array([np.nan, 1, np.inf, 0, 0, -np.inf], "float32")
    check_operator(apply(f"_{name}", X, Y), {"x": a, "y": b})


@pytest.mark.parametrize("scalar", [0.0, -0.0, 0.5, 1e-9, np.nan, -np.inf])
@pytest.mark.parametrize("name", ["logical_and", "logical_or", "logical_xor"])
def test_truth_of_special_numbers(name: str, scalar: float) -> None:
    # 0.5 beside integers is 0, and so is 1e-9 beside float16
    special = np.array([np.nan, 0, -0.0, 1e-30, np.inf, -2], "float32")
    symbol = apply(f"_{name}_scalar", X, scalar=scalar)
    for dtype in ("float32", "float16"):
        check_operator(symbol, {"x": special.astype(dtype)})
    if np.isfinite(scalar):
        check_operator(symbol, {"x": A.astype("int32")})


@pytest.mark.parametrize("name", ["logical_and", "logical_or", "logical_xor"])
@pytest.mark.parametrize("scalar", [0.0, 1.0])
def test_a_number_needs_no_logic(name: str, scalar: float) -> None:
    # TensorRT 8.5 ends the process when it builds an And with a constant 0
    (part,) = parts_as_onnx(apply(f"_{name}_scalar", X, scalar=scalar), None, {"x": (2, 3)},
                            min_subgraph_size=1)  # fmt: skip
    assert not {"And", "Or", "Xor"}.intersection(node.op_type for node in part.graph.node)


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_logical_not(dtype: str) -> None:
    check_operator(mx.sym.logical_not(X), {"x": A.astype(dtype)})


def test_number_of_another_precision() -> None:
    # 0.1 is another number in float16, in float32 and in float64
    for dtype in FLOATS:
        check_operator(X == 0.1, {"x": np.array([0.1, 0.2], dtype)})


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32"])
@pytest.mark.parametrize(
    "options", [{}, {"rtol": 0.1}, {"atol": 0.2, "rtol": 0}, {"equal_nan": False}], ids=str
)
@mx.util.use_np_shape
def test_allclose(options: dict[str, Any], dtype: str) -> None:
    symbol = mx.sym.contrib.allclose(X, Y, **options)
    one = np.array([[1, 2], [3, 4]], dtype)
    arrays = [one * np.asarray(1.05).astype(dtype), one, one + np.asarray(0.1).astype(dtype)]
    if dtype != "int32":
        arrays.append(np.array([[1, np.nan], [np.inf, -np.inf]], dtype))
    for a in arrays:
        for b in arrays:
            check_operator(symbol, {"x": a, "y": b})


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_comparison(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple))
    few = st.sampled_from([-1.5, -1.0, 0.0, 1.0, 1.5])
    a, b = (data.draw(arrays(np.float32, shape, elements=few)) for _ in "ab")
    check_operator(apply(f"_{data.draw(st.sampled_from(NAMES))}", X, Y), {"x": a, "y": b})
