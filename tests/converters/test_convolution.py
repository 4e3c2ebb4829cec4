"""Convolutions against MXNet."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from operators import (
    TOLERANCES,
    check_operator,
    optimize_whole,
    random_array,
    run_engines,
    run_mxnet,
)


def _operator(op: str, shape: tuple[int, ...], **attrs: Any) -> tuple[Any, dict[str, np.ndarray]]:
    symbol = getattr(mx.sym, op)(mx.sym.var("data"), name="conv", **attrs)
    names = symbol.list_arguments()
    shapes = symbol.infer_shape(data=shape)[0]
    return symbol, {n: random_array(s, seed=i) for i, (n, s) in enumerate(zip(names, shapes))}


def _check(op: str, shape: tuple[int, ...], **attrs: Any) -> None:
    """Check a convolution whose parameters are weights, and once more fed at run time."""
    symbol, arrays = _operator(op, shape, **attrs)
    params = {name: array for name, array in arrays.items() if name != "data"}
    check_operator(symbol, {"data": arrays["data"]}, params)
    check_operator(symbol, arrays)


def _run_optimized(
    symbol: mx.sym.Symbol, arrays: dict[str, np.ndarray], sizes_known: bool = True
) -> np.ndarray:
    params = {name: mx.nd.array(a, dtype=a.dtype) for name, a in arrays.items() if name != "data"}
    data = arrays["data"]
    shape = data.shape if sizes_known else (None,) * data.ndim
    dtypes = {"data": data.dtype.name}
    optimized, _ = optimize_whole(symbol, params, shapes={"data": shape}, dtypes=dtypes)
    return run_engines(optimized, {"data": data})[0]


CONVOLUTIONS = [
    ((2, 3, 7, 6), {"kernel": (3, 3), "num_filter": 4}),
    ((2, 3, 7, 6), {"kernel": (3, 2), "num_filter": 4, "stride": (2, 1), "pad": (1, 2)}),
    ((1, 3, 9, 9), {"kernel": (3, 3), "num_filter": 2, "dilate": (2, 3), "pad": (0, 3)}),
    ((1, 4, 5, 5), {"kernel": (3, 3), "num_filter": 6, "num_group": 2}),
    ((1, 4, 5, 5), {"kernel": (3, 3), "num_filter": 8, "num_group": 4, "pad": (1, 1)}),
    ((1, 1, 1, 1), {"kernel": (1, 1), "num_filter": 1}),
    ((2, 3, 9), {"kernel": (3,), "num_filter": 4}),
    ((2, 4, 9), {"kernel": (2,), "num_filter": 4, "stride": (3,), "pad": (1,), "num_group": 2}),
    ((2, 3, 9), {"kernel": (3,), "num_filter": 4, "dilate": (3,), "layout": "NCW"}),
    ((1, 2, 5, 6, 7), {"kernel": (3, 2, 1), "num_filter": 3}),
    ((1, 2, 5, 6, 7), {"kernel": (2, 3, 2), "num_filter": 4, "stride": (1, 2, 3), "num_group": 2}),
    ((1, 2, 7, 6, 5), {"kernel": (2, 2, 2), "num_filter": 2, "dilate": (3, 2, 1),
                       "pad": (1, 0, 2)}),
]  # fmt: skip


@pytest.mark.parametrize("no_bias", [True, False])
@pytest.mark.parametrize(("shape", "attrs"), CONVOLUTIONS)
def test_convolution(shape: tuple[int, ...], attrs: dict[str, Any], no_bias: bool) -> None:
    _check("Convolution", shape, no_bias=no_bias, **attrs)


def test_convolution_v1() -> None:
    _check("Convolution_v1", (2, 4, 7, 5), kernel=(3, 2), num_filter=6, num_group=2, pad=(1, 0))
    attrs = {"kernel": (3, 2), "num_filter": 3, "stride": (2, 1), "dilate": (1, 2)}
    _check("Convolution_v1", (2, 4, 7, 5), no_bias=True, layout="NCHW", **attrs)


DECONVOLUTIONS = [
    ((2, 3, 5, 4), {"kernel": (3, 3), "num_filter": 4}),
    ((2, 3, 5, 4), {"kernel": (4, 4), "num_filter": 4, "stride": (2, 2), "pad": (1, 1)}),
    ((2, 3, 5, 4), {"kernel": (3, 2), "num_filter": 4, "stride": (2, 3), "pad": (1, 0)}),
    ((2, 3, 5, 4), {"kernel": (3, 3), "num_filter": 4, "stride": (2, 3), "pad": (1, 1),
                    "adj": (1, 0)}),
    ((2, 3, 5, 4), {"kernel": (3, 3), "num_filter": 4, "stride": (2, 3), "pad": (0, 1),
                    "adj": (1, 2)}),
    ((1, 4, 5, 5), {"kernel": (3, 3), "num_filter": 6, "num_group": 2, "stride": (2, 2)}),
    ((1, 4, 5, 5), {"kernel": (4, 4), "num_filter": 4, "num_group": 4, "stride": (2, 2),
                    "pad": (1, 1)}),
    ((1, 2, 5, 4), {"kernel": (3, 3), "num_filter": 2, "dilate": (2, 3), "pad": (1, 2)}),
    ((1, 1, 1, 1), {"kernel": (1, 1), "num_filter": 1}),
    ((2, 3, 5, 4), {"kernel": (3, 3), "num_filter": 2, "target_shape": (0, 0)}),
    ((2, 3, 5), {"kernel": (3,), "num_filter": 4, "stride": (2,), "pad": (1,), "adj": (1,)}),
    ((1, 2, 3, 4, 5), {"kernel": (3, 2, 4), "num_filter": 2, "stride": (2, 1, 2)}),
    ((2, 3, 5), {"kernel": (2,), "num_filter": 4, "stride": (4,), "adj": (3,)}),
    ((1, 4, 5, 5), {"kernel": (2, 3), "num_filter": 6, "num_group": 2, "stride": (3, 3),
                    "dilate": (2, 1), "pad": (0, 1), "adj": (2, 2)}),
    ((1, 2, 3, 4, 5), {"kernel": (3, 2, 4), "num_filter": 2, "stride": (2, 2, 2), "pad": (1, 0, 1),
                       "adj": (1, 0, 1)}),
    ((1, 2, 3, 2, 3), {"kernel": (1, 2, 3), "num_filter": 2, "stride": (2, 3, 2),
                       "adj": (1, 2, 0)}),
]  # fmt: skip


@pytest.mark.parametrize("no_bias", [True, False])
@pytest.mark.parametrize(("shape", "attrs"), DECONVOLUTIONS)
def test_deconvolution(shape: tuple[int, ...], attrs: dict[str, Any], no_bias: bool) -> None:
    _check("Deconvolution", shape, no_bias=no_bias, **attrs)


TARGETS = [
    ((2, 3, 5, 4), {"kernel": (4, 4), "stride": (2, 2), "target_shape": (10, 8)}),
    ((2, 3, 5, 4), {"kernel": (4, 4), "stride": (2, 2), "target_shape": (9, 7)}),
    ((2, 3, 5, 4), {"kernel": (5, 5), "stride": (3, 2), "target_shape": (12, 4), "pad": (7, 7),
                    "adj": (1, 1)}),
    ((2, 3, 5, 4), {"kernel": (2, 2), "dilate": (2, 4), "target_shape": (5, 4)}),
    ((2, 4, 5, 4), {"kernel": (4, 3), "stride": (2, 2), "target_shape": (12, 9), "num_group": 2}),
    ((2, 3, 5), {"kernel": (4,), "stride": (3,), "target_shape": (11,)}),
]  # fmt: skip


@pytest.mark.parametrize("sizes_known", [True, False])
@pytest.mark.parametrize(("shape", "attrs"), TARGETS)
def test_target_shape(shape: tuple[int, ...], attrs: dict[str, Any], sizes_known: bool) -> None:
    # MXNet computes a target_shape without oneDNN only, which float64 keeps away
    symbol, arrays = _operator("Deconvolution", shape, num_filter=2, no_bias=False, **attrs)
    found = _run_optimized(symbol, arrays, sizes_known)
    expected = run_mxnet(symbol, {n: a.astype("float64") for n, a in arrays.items()})[0]
    np.testing.assert_allclose(found, expected, *TOLERANCES["float32"])


@pytest.mark.parametrize("op", ["Convolution", "Deconvolution"])
def test_float16(op: str) -> None:
    # MXNet's CPU has no float16 convolution: the reference is its float32 one
    symbol, arrays = _operator(op, (2, 4, 7, 5), kernel=(3, 3), num_filter=4, no_bias=False)
    halves = {name: array.astype("float16") for name, array in arrays.items()}
    found = _run_optimized(symbol, halves)
    expected = run_mxnet(symbol, {n: a.astype("float32") for n, a in halves.items()})[0]
    assert found.dtype == np.float16
    # the sums have 36 terms: what is lost in them is measured by the terms, not by the sum
    np.testing.assert_allclose(found, expected, TOLERANCES["float16"][0], atol=2e-2)


@pytest.mark.parametrize(
    ("op", "layout", "shape", "kernel"),
    [
        ("Convolution", "NHWC", (2, 7, 5, 4), (3, 2)),
        ("Convolution", "NDHWC", (1, 4, 5, 6, 4), (3, 2, 1)),
        ("Deconvolution", "NHWC", (2, 7, 5, 4), (3, 2)),
        ("Deconvolution", "NDHWC", (1, 4, 5, 6, 4), (3, 2, 1)),
    ],
)
def test_channels_last(
    op: str, layout: str, shape: tuple[int, ...], kernel: tuple[int, ...]
) -> None:
    # MXNet has these layouts on a GPU only: the reference is its channels-first operator
    attrs = {"kernel": kernel, "num_filter": 6, "num_group": 2, "no_bias": False}
    last = getattr(mx.sym, op)(mx.sym.var("data"), name="conv", layout=layout, **attrs)
    channels_first = (shape[0], shape[-1], *shape[1:-1])
    first, arrays = _operator(op, channels_first, **attrs)
    moved = {n: np.moveaxis(a, 1, -1) if a.ndim > 1 else a for n, a in arrays.items()}
    found = _run_optimized(last, moved)
    expected = np.moveaxis(run_mxnet(first, arrays)[0], 1, -1)
    np.testing.assert_allclose(found, expected, *TOLERANCES["float32"])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.data())
def test_any_convolution(data: st.DataObject) -> None:
    axes = data.draw(st.integers(1, 3), "axes")
    op = data.draw(st.sampled_from(["Convolution", "Deconvolution"]), "op")
    numbers = st.integers(1, 3)
    per_axis = {
        name: tuple(data.draw(strategy, name) for _ in range(axes))
        for name, strategy in {
            "kernel": numbers,
            "stride": numbers,
            # MXNet's Deconvolution over three axes has no dilation
            "dilate": st.just(1) if (op, axes) == ("Deconvolution", 3) else numbers,
            "pad": st.integers(0, 2),
            "size": st.integers(1, 6),
        }.items()
    }
    size = per_axis.pop("size")
    reach = [d * (k - 1) + 1 for d, k in zip(per_axis["dilate"], per_axis["kernel"])]
    if op == "Convolution":
        assume(all(r <= n + 2 * p for r, n, p in zip(reach, size, per_axis["pad"])))
    else:
        full = [s * (n - 1) + r for s, n, r in zip(per_axis["stride"], size, reach)]
        assume(all(n > 2 * p for n, p in zip(full, per_axis["pad"])))
    groups = data.draw(st.sampled_from([1, 2]), "groups")
    _check(
        op,
        (data.draw(st.integers(1, 2), "batch"), 2 * groups, *size),
        num_filter=groups * data.draw(st.integers(1, 2), "filters"),
        num_group=groups,
        no_bias=data.draw(st.booleans(), "no_bias"),
        **per_axis,
    )


COLUMNS = [
    {"kernel": (3, 2)},
    {"kernel": (3, 2), "stride": (2, 3), "pad": (1, 2)},
    {"kernel": (2, 2), "dilate": (2, 3)},
    {"kernel": (1, 1), "stride": (3, 2)},
]


# over other than two axes MXNet fails
@pytest.mark.parametrize("attrs", COLUMNS)
@pytest.mark.parametrize("shape", [(2, 3, 7, 6), (1, 1, 5, 8)])
def test_columns(shape: tuple[int, ...], attrs: dict[str, Any]) -> None:
    symbol = mx.sym.im2col(mx.sym.var("data"), **attrs)
    check_operator(symbol, {"data": shape})
    columns = symbol.infer_shape(data=shape)[1][0]
    symbol = mx.sym.col2im(mx.sym.var("data"), output_size=shape[2:], **attrs)
    check_operator(symbol, {"data": columns})


def test_float16_columns() -> None:
    symbol = mx.sym.im2col(mx.sym.var("data"), kernel=(2, 2))
    check_operator(symbol, {"data": random_array((1, 2, 4, 4), "float16")})
