"""Sampling at given points against MXNet."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import check_operator, random_array, without_nan

A, B = mx.sym.var("a"), mx.sym.var("b")


@pytest.mark.parametrize("shape", [(1, 2, 4, 5), (2, 1, 3, 3), (2, 3, 1, 4)])
@pytest.mark.parametrize("size", [(3, 3), (1, 5), (6, 2)])
def test_bilinear_sampler(size: tuple[int, int], shape: tuple[int, ...]) -> None:
    grid = random_array((shape[0], 2, *size), seed=1)  # some points lie outside
    check_operator(mx.sym.BilinearSampler(A, B), {"a": random_array(shape), "b": grid})


def test_bilinear_sampler_at_the_border() -> None:
    ends = np.array([-1.5, -1, -0.999, 0, 0.999, 1, 1.2], "float32")
    grid = np.stack(np.meshgrid(ends, ends))[None]
    check_operator(mx.sym.BilinearSampler(A, B), {"a": random_array((1, 2, 4, 3)), "b": grid})


@pytest.mark.parametrize("target_shape", [(2, 2), (3, 5), (7, 4)])
def test_affine_grid(target_shape: tuple[int, int]) -> None:
    symbol = mx.sym.GridGenerator(A, transform_type="affine", target_shape=target_shape)
    check_operator(symbol, {"a": (3, 6)})


@pytest.mark.parametrize("shape", [(1, 2, 3, 4), (2, 2, 2, 7)])
def test_warped_grid(shape: tuple[int, ...]) -> None:
    symbol = mx.sym.GridGenerator(A, transform_type="warp")
    check_operator(symbol, {"a": random_array(shape) * 2})


@pytest.mark.parametrize("target_shape", [(2, 2), (3, 5)])
@pytest.mark.parametrize("shape", [(1, 2, 4, 5), (2, 1, 3, 3)])
def test_spatial_transformer(shape: tuple[int, ...], target_shape: tuple[int, int]) -> None:
    symbol = mx.sym.SpatialTransformer(
        A, B, target_shape=target_shape, transform_type="affine", sampler_type="bilinear"
    )
    identity = np.array([[1, 0, 0, 0, 1, 0]], "float32")
    loc = identity + random_array((shape[0], 6), seed=1) * 0.3
    check_operator(symbol, {"a": random_array(shape), "b": loc.astype("float32")})


CORRELATIONS = [
    {},
    {"kernel_size": 3, "pad_size": 1},
    {"max_displacement": 2, "stride2": 2, "pad_size": 2},
    {"max_displacement": 3, "stride2": 2, "pad_size": 1},
    {"max_displacement": 2, "stride1": 2, "pad_size": 3, "kernel_size": 3},
    {"max_displacement": 0, "stride1": 3},
]


@pytest.mark.parametrize("is_multiply", [True, False])
@pytest.mark.parametrize("attrs", CORRELATIONS)
def test_correlation(attrs: dict[str, Any], is_multiply: bool) -> None:
    symbol = mx.sym.Correlation(A, B, is_multiply=is_multiply, **attrs)
    check_operator(symbol, {"a": (2, 3, 7, 8), "b": (2, 3, 7, 8)})


def test_float16_correlation() -> None:
    arrays = {name: random_array((1, 2, 4, 5), "float16", i) for i, name in enumerate("ab")}
    check_operator(mx.sym.Correlation(A, B, pad_size=1), arrays)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.data())
def test_any_sampling(data: st.DataObject) -> None:
    batch, channels, height, width, down, across = (data.draw(st.integers(2, 6)) for _ in range(6))
    attrs = {"transform_type": "affine", "sampler_type": "bilinear"}
    symbol = mx.sym.SpatialTransformer(A, B, target_shape=(down, across), **attrs)
    check_operator(symbol, {"a": (batch, channels, height, width), "b": (batch, 6)})


@pytest.mark.parametrize("target_shape", [(1, 3), (3, 1), (1, 1)])
def test_grids_of_a_single_row_are_no_numbers(target_shape: tuple[int, int]) -> None:
    attrs = {"transform_type": "affine", "target_shape": target_shape}
    check_operator(mx.sym.GridGenerator(A, **attrs), {"a": (2, 6)})
    symbol = mx.sym.SpatialTransformer(A, B, sampler_type="bilinear", **attrs)
    check_operator(symbol, {"a": (2, 3, 4, 5), "b": (2, 6)})


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_what_is_sampled_at_no_number_is_none(number: float) -> None:
    grid = random_array((2, 2, 3, 4), seed=1)
    grid[0, 0, 1], grid[1, 1, 2, 3] = number, number
    check_operator(mx.sym.BilinearSampler(A, B), {"a": (2, 3, 4, 5), "b": grid})


@without_nan
def test_warps_of_a_single_row() -> None:
    """They are infinite, or no numbers, down the image."""
    symbol = mx.sym.BilinearSampler(A, mx.sym.GridGenerator(B, transform_type="warp"))
    for size in ((1, 5), (5, 1)):
        check_operator(symbol, {"a": (2, 3, *size), "b": (2, 2, *size)})
