"""Padding, cropping, resizing and preprocessing of images against MXNet."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import (
    check_operator,
    check_refused,
    optimize_whole,
    random_array,
    run_engines,
    run_mxnet,
)

DATA = mx.sym.var("data")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "pad_width"),
    [
        ((1, 2, 3, 4), (0, 0, 0, 0, 1, 2, 2, 0)),
        ((2, 1, 5, 3), (0, 0, 0, 0, 4, 0, 0, 2)),
        ((1, 2, 3, 4, 2), (0, 0, 0, 0, 1, 2, 3, 0, 1, 1)),
    ],
)
def test_pad(shape: tuple[int, ...], pad_width: tuple[int, ...], dtype: str) -> None:
    data = {"data": random_array(shape, dtype)}
    for attrs in (
        {"mode": "constant"},
        {"mode": "constant", "constant_value": 3.7},
        {"mode": "edge"},
        {"mode": "reflect"},
    ):
        check_operator(mx.sym.Pad(DATA, pad_width=pad_width, **attrs), data)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_nearest_up_sampling(scale: int, dtype: str) -> None:
    symbol = mx.sym.UpSampling(DATA, scale=scale, sample_type="nearest")
    check_operator(symbol, {"data": random_array((2, 3, 4, 5), dtype)})


@pytest.mark.parametrize("mode", ["concat", "sum"])
def test_nearest_up_sampling_of_several(mode: str) -> None:
    names = ("data", "same", "final")
    sizes = ((2, 4), (2, 4), (6, 12))
    symbol = mx.sym.UpSampling(
        *map(mx.sym.var, names), scale=3, sample_type="nearest", num_args=3,
        multi_input_mode=mode,
    )  # fmt: skip
    check_operator(symbol, {n: (2, 3, *size) for n, size in zip(names, sizes)})
    symbol = mx.sym.UpSampling(
        *map(mx.sym.var, ("point", "data")), scale=4, sample_type="nearest", num_args=2,
        multi_input_mode=mode,
    )  # fmt: skip
    check_operator(symbol, {"point": (2, 3, 1, 1), "data": (2, 3, 2, 2)})


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 5])
def test_bilinear_up_sampling(scale: int) -> None:
    symbol = mx.sym.UpSampling(
        DATA, mx.sym.var("weight"), scale=scale, num_filter=3, sample_type="bilinear", num_args=2
    )
    kernel = 2 * scale - scale % 2
    check_operator(symbol, {"data": (2, 3, 4, 5)}, {"weight": (3, 1, kernel, kernel)})


RESIZES = [
    {"height": 5, "width": 7},
    {"height": 3, "width": 2},
    {"height": 1, "width": 1},
    {"height": 4, "width": 1},
    {"scale_height": 2.0, "scale_width": 1.5},
    {"scale_height": 0.7, "scale_width": 1.3},
    {"scale_height": 2.0, "scale_width": 0.6, "mode": "odd_scale"},
    {"scale_height": 1.4, "scale_width": 3.0, "mode": "odd_scale"},
    {"mode": "to_even_down"},
    {"mode": "to_even_up"},
    {"mode": "to_odd_down"},
    {"mode": "to_odd_up"},
]


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("attrs", RESIZES, ids=lambda attrs: "-".join(map(str, attrs.values())))
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 2, 5, 4)])
def test_bilinear_resize(
    shape: tuple[int, ...], attrs: dict[str, Any], align_corners: bool
) -> None:
    symbol = mx.sym.contrib.BilinearResize2D(DATA, align_corners=align_corners, **attrs)
    check_operator(symbol, {"data": shape})


@pytest.mark.parametrize("align_corners", [True, False])
def test_bilinear_resize_like(align_corners: bool) -> None:
    symbol = mx.sym.contrib.BilinearResize2D(
        DATA, mx.sym.var("like"), mode="like", align_corners=align_corners
    )
    check_operator(symbol, {"data": (2, 3, 4, 5), "like": (1, 1, 7, 3)})
    check_operator(symbol, {"data": (2, 3, 4, 5), "like": (1, 1, 1, 9)})


def test_float16_resize() -> None:
    symbol = mx.sym.contrib.BilinearResize2D(DATA, height=5, width=7)
    check_operator(symbol, {"data": random_array((1, 2, 4, 3), "float16")})
    symbol = mx.sym.contrib.AdaptiveAvgPooling2D(DATA, output_size=(3, 2))
    check_operator(symbol, {"data": random_array((1, 2, 4, 3), "float16")})


@pytest.mark.parametrize("output_size", [(), 1, 2, 3, (2, 3), (4, 1), (7, 9), (1, 6)])
@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (1, 2, 7, 5), (1, 1, 1, 1)])
def test_adaptive_average_pool(shape: tuple[int, ...], output_size: Any) -> None:
    symbol = mx.sym.contrib.AdaptiveAvgPooling2D(DATA, output_size=output_size)
    check_operator(symbol, {"data": shape})


@pytest.mark.parametrize(
    "attrs",
    [{}, {"offset": (1, 2)}, {"center_crop": True}, {"center_crop": True, "offset": (1, 2)}],
)
@pytest.mark.parametrize("h_w", [(2, 3), (3, 2), (1, 1), (4, 4)])
def test_crop(h_w: tuple[int, int], attrs: dict[str, Any]) -> None:
    symbol = mx.sym.Crop(DATA, num_args=1, h_w=h_w, **attrs)
    check_operator(symbol, {"data": (2, 3, 5, 7)})
    symbol = mx.sym.Crop(DATA, mx.sym.var("like"), num_args=2, **attrs)
    check_operator(symbol, {"data": (2, 3, 5, 7), "like": (1, 1, *h_w)})


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int32", "int64", "uint8", "int8"]
)
@pytest.mark.parametrize("block", [1, 2, 3])
def test_blocks(block: int, dtype: str) -> None:
    deep = random_array((2, 2 * block**2, 3, 1), dtype)
    check_operator(mx.sym.depth_to_space(DATA, block_size=block), {"data": deep})
    wide = random_array((2, 3, 2 * block, block), dtype)
    check_operator(mx.sym.space_to_depth(DATA, block_size=block), {"data": wide})


def _pixels(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    top = 128 if dtype == "int8" else 256
    return np.random.default_rng(0).integers(0, top, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16", "float64", "int32", "int8"])
def test_to_tensor(dtype: str) -> None:
    # MXNet divides float16 in float16, though the result is float32
    rtol = 1e-3 if dtype == "float16" else None
    for shape in ((4, 5, 3), (2, 4, 5, 1)):
        symbol = mx.sym.image.to_tensor(DATA)
        check_operator(symbol, {"data": _pixels(shape, dtype)}, rtol=rtol)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int32", "uint8", "int8"])
@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((3.5, 2.25, 1.75), (0.5, 2.0, 1.5)),
        ((3.5,), (0.75,)),
        ((1.5,), (0.5, 2.0, 4.0)),
    ],
)
def test_normalize(mean: Any, std: Any, dtype: str) -> None:
    symbol = mx.sym.image.normalize(DATA, mean=mean, std=std)
    for shape in ((3, 4, 5), (2, 3, 4, 5)):
        check_operator(symbol, {"data": _pixels(shape, dtype)})


def test_normalize_without_sizes() -> None:
    """How many channels there are follows from the means."""
    symbol = mx.sym.image.normalize(DATA, mean=(3.5, 2.25, 1.75), std=(0.5, 2.0, 1.5))
    x = _pixels((2, 3, 4, 5), "float32")
    optimized, _ = optimize_whole(symbol, shapes={"data": (None,) * 4})
    (found,), (expected,) = run_engines(optimized, {"data": x}), run_mxnet(symbol, {"data": x})
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    with pytest.raises(mx.MXNetError, match="mean must have either 1 or 1 elements"):
        run_engines(optimized, {"data": x[:, :1]})


@pytest.mark.parametrize("dtype", ["uint8", "float32", "int32"])
def test_image_crop_and_flips(dtype: str) -> None:
    for shape in ((5, 6, 3), (2, 5, 6, 3)):
        symbol = mx.sym.image.crop(DATA, x=2, y=1, width=3, height=2)
        check_operator(symbol, {"data": _pixels(shape, dtype)})
    # an odd number of rows or columns makes MXNet leave the middle one unwritten
    data = {"data": _pixels((4, 6, 3), dtype)}
    check_operator(mx.sym.image.flip_left_right(DATA), data)
    check_operator(mx.sym.image.flip_top_bottom(DATA), data)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "int32"])
@pytest.mark.parametrize("alpha", [(0.2, -0.02, 0.03), (-0.2, 0.3, 0.0)])
def test_adjust_lighting(alpha: tuple[float, ...], dtype: str) -> None:
    symbol = mx.sym.image.adjust_lighting(DATA, alpha=alpha)
    check_operator(symbol, {"data": _pixels((4, 5, 3), dtype)})


@pytest.mark.parametrize(
    ("symbol", "dtype", "sentence"),
    [
        (mx.sym.image.adjust_lighting(DATA, alpha=(1, 1, 1)), "float32", "three channels only"),
    ],
)
def test_refused(symbol: mx.sym.Symbol, dtype: str, sentence: str) -> None:
    check_refused(symbol, {"data": _pixels((4, 5, 1), dtype)}, sentence)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.data())
def test_any_image(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.integers(1, 9), "size") for _ in range(4))
    wanted = tuple(data.draw(st.integers(1, 9), "wanted") for _ in range(2))
    align = data.draw(st.booleans(), "align_corners")
    check_operator(
        mx.sym.contrib.BilinearResize2D(
            DATA, height=wanted[0], width=wanted[1], align_corners=align
        ),
        {"data": shape},
    )
    check_operator(mx.sym.contrib.AdaptiveAvgPooling2D(DATA, output_size=wanted), {"data": shape})
