"""Images resized as OpenCV does it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import check_operator, check_refused, optimize_whole, run_engines, run_mxnet

import mxtrt

DATA = mx.sym.var("data")
NEAREST, LINEAR, CUBIC, AREA, LANCZOS, EXACT = range(6)
WHOLE = [NEAREST, LINEAR, LANCZOS, EXACT]


def pixels(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)


@pytest.mark.parametrize("interp", range(6))
@pytest.mark.parametrize(
    "attrs",
    [
        {"size": (7, 6)},
        {"size": (3, 9)},
        {"size": (4,)},
        {"size": (4,), "keep_ratio": True},
        {"size": (11,), "keep_ratio": True},
        {"size": (4, 7), "keep_ratio": True},
    ],
)
def test_sizes(attrs: dict[str, Any], interp: int) -> None:
    symbol = mx.sym.image.resize(DATA, interp=interp, **attrs)
    for shape in ((4, 5, 3), (2, 6, 5, 1)):
        check_operator(symbol, {"data": shape})
        if interp in WHOLE:
            check_operator(symbol, {"data": pixels(shape, "uint8")})


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("interp", [LINEAR, AREA, LANCZOS, EXACT])
@pytest.mark.parametrize("blocks", [(1, 1), (2, 2), (2, 3), (1, 2), (4, 4)])
def test_blocks_of_pixels(blocks: tuple[int, int], interp: int, channels: int) -> None:
    """Whole numbers of pixels that become one; halves of images have routines of their own."""
    symbol = mx.sym.image.resize(DATA, interp=interp, size=(6, 5))
    for dtype in ("uint8", "float32"):
        x = pixels((5 * blocks[0], 6 * blocks[1], channels), dtype)
        check_operator(symbol, {"data": x}, atol=1e-3 if dtype == "float32" else None)  # of 255
    black_and_white = np.where(x > 127, 255, 0).astype("uint8")  # where filters overshoot
    check_operator(symbol, {"data": black_and_white})


@pytest.mark.parametrize("interp", [CUBIC, AREA, LANCZOS, LINEAR])
def test_float64(interp: int) -> None:
    symbol = mx.sym.image.resize(DATA, interp=interp, size=(5, 9))
    # OpenCV computes its weights in float32
    check_operator(symbol, {"data": pixels((6, 8, 3), "float64")}, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("interp", "dtype", "sentence"),
    [
        (CUBIC, "uint8", "interp=2 of uint8: OpenCV adds float32 up, whose last bit decides"),
        (AREA, "uint8", "interp=3 of uint8: OpenCV adds float32 up, whose last bit decides"),
        (LINEAR, "int8", "interp=1 of int8: OpenCV takes its bytes for something else"),
        (LINEAR, "int64", "interp=1 of int64: OpenCV takes its bytes for something else"),
        (9, "float32", "interp=9; OpenCV resizes with those from 0 to 5"),
    ],
)
def test_refused(interp: int, dtype: str, sentence: str) -> None:
    symbol = mx.sym.image.resize(DATA, size=(3, 4), interp=interp)
    check_refused(symbol, {"data": pixels((5, 6, 3), dtype)}, sentence)


def test_half_a_cubic_image_is_refused() -> None:
    symbol = mx.sym.image.resize(DATA, size=(3, 4), interp=CUBIC)
    check_refused(symbol, {"data": pixels((8, 6, 3), "uint8")}, "whose last bit decides")


def check_one_engine(symbol: mx.sym.Symbol, images: Iterable[np.ndarray]) -> None:
    """Assert that one engine resizes images of all these sizes as MXNet does."""
    first, *others = images
    options = {"shapes": {"data": (None,) * first.ndim}, "dtypes": {"data": first.dtype}}
    optimized, _ = optimize_whole(symbol, **options)
    for image in (first, *others):
        (found,) = run_engines(optimized, {"data": image})
        (expected,) = run_mxnet(symbol, {"data": image})
        assert found.dtype == image.dtype
        rtol = 1e-5 if image.dtype == "float32" else 0  # bytes are rounded as MXNet does
        np.testing.assert_allclose(found, expected, rtol=rtol)
    mxtrt.release(optimized)


SIZES = [(10, 12), (4, 5), (5, 6), (10, 5), (13, 12), (1, 1), (10, 11), (16, 16), (7, 23), (8, 10)]


@pytest.mark.parametrize(
    "attrs", [{"size": (6, 5)}, {"size": (5,)}, {"size": (5,), "keep_ratio": True}], ids=str
)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_photos_of_any_size(dtype: str, attrs: dict[str, Any]) -> None:
    symbol = mx.sym.image.resize(DATA, **attrs)
    shapes = [(*size, channels) for size in SIZES for channels in (1, 2, 3, 4, 5)]
    check_one_engine(symbol, (pixels(shape, dtype, i) for i, shape in enumerate(shapes)))


def test_batches_of_any_size() -> None:
    symbol = mx.sym.image.resize(DATA, size=(6, 5))
    check_one_engine(symbol, (pixels((2, *size, 3), "uint8") for size in SIZES))


@settings(max_examples=10, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_photos(data: st.DataObject) -> None:
    size = st.integers(1, 40)
    sizes = data.draw(st.lists(st.tuples(size, size, st.integers(1, 4)), min_size=1, max_size=8))
    symbol = mx.sym.image.resize(DATA, size=(data.draw(size), data.draw(size)))
    check_one_engine(symbol, (pixels(shape, "uint8", i) for i, shape in enumerate(sizes)))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_size(data: st.DataObject) -> None:
    height, width, rows, columns = (data.draw(st.integers(1, 20)) for _ in range(4))
    interp = data.draw(st.sampled_from(WHOLE))
    x = pixels((rows, columns, data.draw(st.integers(1, 4))), "uint8", height)
    check_operator(mx.sym.image.resize(DATA, size=(width, height), interp=interp), {"data": x})
    if rows >= height and columns >= width:
        symbol = mx.sym.image.resize(DATA, size=(width, height), interp=AREA)
        check_operator(symbol, {"data": x.astype("float32")}, atol=1e-3)  # of 255
