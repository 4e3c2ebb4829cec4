"""Axes of size 0 in the operators that are older than NumPy's.

Left out is what MXNet itself divides by 0 for, waits for ever, or fails in oneDNN, which breaks its
memory: ``BatchNorm``, ``InstanceNorm``, ``RNN``, ``SequenceMask``, ``dot`` over nothing, padding.
"""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from operators import check_operator, check_refused, operator, random_array

pytestmark = pytest.mark.usefixtures("np_shape")

ROWS = [(0, 3), (2, 0), (2, 0, 4), (0, 3, 4)]
REDUCED: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((0, 3), {"axis": (0,)}), ((0, 3), {}), ((2, 0), {}), ((0,), {"axis": (0,)}),
    ((2, 0, 4), {"axis": (1,)}), ((2, 0, 4), {"axis": (1,), "keepdims": True}), ((2, 0, 4), {}),
    ((0, 3, 4), {"axis": (0,), "keepdims": True}), ((2, 0, 4, 5), {"axis": (1,)}),
    ((2, 3, 4, 0), {}),
]  # fmt: skip
"""What MXNet reduces; it fails where the result has no elements, and over the last of two axes."""

OF_ROWS: list[tuple[str, dict[str, Any]]] = [
    ("softmax", {"axis": 0}), ("softmax", {}), ("log_softmax", {"axis": 0}), ("softmin", {}),
    ("L2Normalization", {"mode": "instance"}), ("LeakyReLU", {"act_type": "elu"}),
    ("SwapAxis", {"dim1": 0, "dim2": 1}), ("transpose", {}), ("expand_dims", {"axis": 1}),
    ("slice_axis", {"axis": -1, "begin": 0, "end": None}), ("tile", {"reps": (2, 1)}),
    ("repeat", {"repeats": 2, "axis": 1}), ("reverse", {"axis": (0,)}), ("one_hot", {"depth": 3}),
    ("shape_array", {}), ("size_array", {}), ("Cast", {"dtype": "int8"}),
    ("clip", {"a_min": -1, "a_max": 1}), ("zeros_like", {}), ("_plus_scalar", {"scalar": 2}),
    ("smooth_l1", {"scalar": 1}), ("gammaln", {}), ("_contrib_arange_like", {}),
]  # fmt: skip


@pytest.mark.parametrize("shape", ROWS, ids=str)
@pytest.mark.parametrize(("op", "attrs"), OF_ROWS, ids=str)
def test_rows(op: str, attrs: dict[str, Any], shape: tuple[int, ...]) -> None:
    check_operator(operator(op, 1, **attrs), {"x0": np.zeros(shape, "float32")})


@pytest.mark.parametrize("op", ["sum", "prod", "mean", "nansum", "nanprod", "norm"])
@pytest.mark.parametrize(("shape", "attrs"), REDUCED, ids=str)
def test_reductions(op: str, shape: tuple[int, ...], attrs: dict[str, Any]) -> None:
    check_operator(operator(op, 1, **attrs), {"x0": np.zeros(shape, "float32")})


@pytest.mark.parametrize(("shape", "axes"), [((0, 3), (0,)), ((2, 0, 4), (1,)), ((0,), (0,))])
def test_moments(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    for keepdims in (False, True):
        symbol = operator("moments", 1, axes=axes, keepdims=keepdims)
        check_operator(symbol, {"x0": np.zeros(shape, "float32")})


@pytest.mark.parametrize("output_mean_var", [False, True])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((2, 0), 1), ((2, 0), -1), ((0, 3), 0), ((0, 3), 1), ((2, 0, 4), 1), ((2, 0, 4), 2),
     ((2, 3, 0), -1), ((0, 3, 4), 0)],
)  # fmt: skip
def test_layer_norm(shape: tuple[int, ...], axis: int, output_mean_var: bool) -> None:
    channels = random_array((shape[axis],)), random_array((shape[axis],), seed=1)
    inputs = {"x0": np.zeros(shape, "float32"), "x1": channels[0], "x2": channels[1]}
    symbol = operator("LayerNorm", 3, axis=axis, output_mean_var=output_mean_var)
    check_operator(symbol, inputs)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_layer_norm_of_some(axis: int) -> None:
    """Nobody knows that there are channels where no size is known."""
    x = random_array((3, 4, 5))
    inputs = {"x0": x, "x1": random_array(x.shape[axis : axis + 1 or None], seed=1)}
    inputs["x2"] = random_array(inputs["x1"].shape, seed=2)
    check_operator(operator("LayerNorm", 3, axis=axis, eps=0.5), inputs)


def test_means_of_some() -> None:
    x = random_array((3, 4, 5))
    for attrs in ({}, {"axis": 1}, {"axis": (0, 2), "keepdims": True}):
        check_operator(operator("mean", 1, **attrs), {"x0": x})
    check_operator(operator("moments", 1, axes=(0, 2)), {"x0": x})


def test_part_of_more_than_an_empty_layer_norm() -> None:
    """What is summed behind it has elements."""
    x, gamma, beta = (mx.sym.var(name) for name in ("x", "gamma", "beta"))
    symbol = mx.sym.sum(mx.sym.LayerNorm(x, gamma, beta, axis=1), axis=1)
    inputs = {"x": np.zeros((2, 0, 4), "float32"), "gamma": np.zeros(0, "float32")}
    check_operator(symbol, {**inputs, "beta": inputs["gamma"]})


def test_pools_without_channels() -> None:
    """No kernel of a pool takes them, and there is nothing to make."""
    x = np.zeros((2, 0, 4, 5), "float32")
    check_operator(operator("_contrib_AdaptiveAvgPooling2D", 1), {"x0": x})
    check_operator(operator("Pooling_v1", 1, kernel=(2, 2), pool_type="max"), {"x0": x})


REFUSED: list[tuple[str, dict[str, Any], list[tuple[int, ...]], str]] = [
    ("_contrib_AdaptiveAvgPooling2D", {}, [(2, 3, 0, 5)], "(2, 3, 0, 5): there is nothing to read"),
    ("BilinearSampler", {}, [(2, 3, 5, 0), (2, 2, 4, 4)], "there is nothing to read"),
    ("_linalg_potrf", {}, [(0, 0)], "'x0' has no rows to begin with"),
    ("_linalg_inverse", {}, [(2, 0, 0)], "'x0' has no rows to begin with"),
    ("_linalg_slogdet", {}, [(0, 0)], "'x0' has no rows to begin with"),
    ("_npi_pad", {"pad_width": "((1, 1), (0, 2))"}, [(0,)], "is not that of 1 axes"),
]


@pytest.mark.parametrize(("op", "attrs", "shapes", "sentence"), REFUSED)
def test_refused(
    op: str, attrs: dict[str, Any], shapes: list[tuple[int, ...]], sentence: str
) -> None:
    inputs = {f"x{i}": np.zeros(shape, "float32") for i, shape in enumerate(shapes)}
    check_refused(operator(op, len(shapes), **attrs), inputs, sentence)


@pytest.mark.parametrize("op", ["_npi_eigh", "_npi_eigvalsh"])
@pytest.mark.parametrize("shape", [(0, 0), (2, 0, 0), (0, 2, 2)])
def test_eigenvalues_of_nothing(op: str, shape: tuple[int, ...]) -> None:
    check_operator(operator(op, 1), {"x0": np.zeros(shape, "float32")})
