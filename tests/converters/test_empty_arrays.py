"""Axes of size 0 in the operators that are older than NumPy's.

Left out is what MXNet itself divides by 0 for, waits for ever, or fails in oneDNN, which breaks its
memory: ``BatchNorm``, ``InstanceNorm``, ``RNN``, ``SequenceMask``, ``dot`` over nothing, padding.
"""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from operators import (
    OLD_RUNTIME,
    check_operator,
    check_refused,
    operator,
    optimize_whole,
    random_array,
    run_engines,
)

import mxtrt

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


NO_PIXELS = [(2, 3, 0, 5), (2, 3, 5, 0), (2, 3, 0, 0)]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [*NO_PIXELS, (2, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("output_size", [(), (3,), (1, 2), (3, 2)], ids=str)
def test_averages_of_images(
    output_size: tuple[int, ...], shape: tuple[int, ...], dtype: str
) -> None:
    """Those of images without pixels are NaN."""
    symbol = operator("_contrib_AdaptiveAvgPooling2D", 1, output_size=output_size)
    check_operator(symbol, {"x0": random_array(shape, dtype)})


@pytest.mark.parametrize("shape", [*NO_PIXELS, (2, 3, 4, 5), (2, 3, 1, 5)], ids=str)
def test_samples_of_images(shape: tuple[int, ...]) -> None:
    """Images without pixels are black."""
    inputs = {"x0": random_array(shape), "x1": random_array((2, 2, 3, 4), seed=1)}
    check_operator(operator("BilinearSampler", 2), inputs)
    attrs = {"target_shape": (3, 2), "transform_type": "affine", "sampler_type": "bilinear"}
    check_operator(operator("SpatialTransformer", 2, **attrs), {**inputs, "x1": (2, 6)})


@pytest.mark.parametrize("op", [
    pytest.param("_contrib_AdaptiveAvgPooling2D", marks=pytest.mark.skipif(
        OLD_RUNTIME, reason="MatMul of ONNX Runtime 1.23 takes no images without channels")),
    "BilinearSampler",
])  # fmt: skip
def test_more_than_what_is_made_of_no_channels(op: str) -> None:
    """The operator itself makes nothing, but the sum behind it has elements."""
    inputs = {"x0": np.zeros((2, 0, 4, 5), "float32"), "x1": random_array((2, 2, 3, 4))}
    attrs = {"output_size": (3, 2)} if op != "BilinearSampler" else {}
    made = operator(op, 1 if attrs else 2, **attrs)
    used = {name: inputs[name] for name in made.list_arguments()}
    check_operator(mx.sym.sum(made, axis=1), used)


PERCENTILES = [((0,), (0,)), ((0, 3), (0,)), ((2, 0, 4), (1,)), ((2, 0), (0, 1))]


@pytest.mark.parametrize("interpolation", ["linear", "lower", "higher", "midpoint", "nearest"])
@pytest.mark.parametrize(("shape", "axis"), PERCENTILES, ids=str)
def test_percentiles_of_nothing(
    shape: tuple[int, ...], axis: tuple[int, ...], interpolation: str
) -> None:
    """NaN as in NumPy, where MXNet reads the memory beside the array."""
    attrs = {"axis": axis, "interpolation": interpolation}
    behind = tuple(size for a, size in enumerate(shape) if a not in axis)
    for known in (True, False):
        options = {"shapes": {"x0": shape if known else (None,) * len(shape), "x1": (2,)}}
        symbol = operator("_npi_percentile", 2, **attrs)
        optimized, _ = optimize_whole(symbol, **options)
        arrays = {"x0": np.zeros(shape, "float32"), "x1": np.array([0, 70], "float32")}
        (found,) = run_engines(optimized, arrays)
        np.testing.assert_array_equal(found, np.full((2, *behind), np.nan, "float32"))
        mxtrt.release(optimized)


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_percentiles_of_some(interpolation: str) -> None:
    attrs = {"axis": (1,), "interpolation": interpolation}
    inputs = {"x0": random_array((3, 4, 2)), "x1": np.array([0, 30, 100], "float32")}
    check_operator(operator("_npi_percentile", 2, **attrs), inputs)


@pytest.mark.parametrize(
    ("op", "attrs", "shape"),
    [("Pad", {"mode": "edge", "pad_width": (0, 0, 0, 0, 1, 1, 1, 1)}, (2, 3, 0, 5)),
     ("_npi_pad", {"mode": "edge", "pad_width": ((1, 1), (0, 0))}, (0, 3)),
     ("_npi_pad", {"mode": "reflect", "pad_width": ((1, 1), (0, 0))}, (0, 3)),
     ("_npi_pad", {"mode": "symmetric", "pad_width": ((1, 1), (0, 0))}, (0, 3))],
)  # fmt: skip
def test_borders_of_nothing(op: str, attrs: dict[str, Any], shape: tuple[int, ...]) -> None:
    """An error, where MXNet waits for ever, reads the memory beside it, or divides by 0."""
    shapes = {"x0": (None,) * len(shape)}
    optimized, _ = optimize_whole(operator(op, 1, **attrs), shapes=shapes)
    with pytest.raises(mx.MXNetError, match=r"ONNX Runtime failed|TensorRT"):
        run_engines(optimized, {"x0": np.zeros(shape, "float32")})


REFUSED: list[tuple[str, dict[str, Any], list[tuple[int, ...]], str]] = [
    ("_linalg_potri", {}, [(0, 0)], "'x0' has no rows to begin with"),
    ("_linalg_det", {}, [(2, 0, 0)], "'x0' has no rows to begin with"),
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
