"""Deformable convolutions against MXNet."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import check_operator, check_refused, optimize_whole, random_array
from rtx import build_plan, parts_as_onnx

import mxtrt

OPS = ["DeformableConvolution", "ModulatedDeformableConvolution"]


def output_size(size: int, kernel: int, stride: int, dilate: int, pad: int) -> int:
    return (size + 2 * pad - dilate * (kernel - 1) - 1) // stride + 1


def arrays_for(
    op: str, shape: tuple[int, ...], attrs: dict[str, Any], coarse: bool = False, seed: int = 0
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return inputs and parameters; `coarse` offsets put every sample on a pixel."""
    rng = np.random.default_rng(seed)
    kernel, groups = attrs["kernel"], attrs.get("num_deformable_group", 1)
    steps = [attrs.get("stride", (1, 1)), attrs.get("dilate", (1, 1)), attrs.get("pad", (0, 0))]
    out = [output_size(*each) for each in zip(shape[2:], kernel, *steps)]
    points = groups * kernel[0] * kernel[1]
    offset = rng.standard_normal((shape[0], 2 * points, *out)) * 2
    inputs = {"data": rng.standard_normal(shape), "offset": np.round(offset) if coarse else offset}
    if op == OPS[1]:
        inputs["mask"] = rng.random((shape[0], points, *out))
    filters = attrs["num_filter"]
    channels = shape[1] // attrs.get("num_group", 1)
    params = {"weight": rng.standard_normal((filters, channels, *kernel))}
    if not attrs.get("no_bias"):
        params["bias"] = rng.standard_normal(filters)
    return tuple({k: v.astype("float32") for k, v in x.items()} for x in (inputs, params))


def check(op: str, shape: tuple[int, ...], attrs: dict[str, Any], **options: Any) -> None:
    inputs, params = arrays_for(op, shape, attrs, **options)
    variables = [mx.sym.var(name) for name in (*inputs, *params)]
    check_operator(getattr(mx.sym.contrib, op)(*variables, **attrs), inputs, params)


WINDOWS: list[dict[str, Any]] = [
    {"kernel": (3, 3), "pad": (1, 1)},
    {"kernel": (3, 2), "stride": (2, 1), "dilate": (1, 2), "pad": (0, 2)},
    {"kernel": (1, 1)},
    {"kernel": (3, 3), "stride": (2, 2), "dilate": (2, 3), "pad": (2, 3)},
]


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize(("num_group", "num_deformable_group"), [(1, 1), (2, 1), (1, 2), (2, 4)])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("op", OPS)
def test_windows(
    op: str, window: dict[str, Any], num_group: int, num_deformable_group: int, coarse: bool
) -> None:
    groups = {"num_group": num_group, "num_deformable_group": num_deformable_group}
    check(op, (2, 8, 9, 11), {"num_filter": 4, **window, **groups}, coarse=coarse)


@pytest.mark.parametrize("op", OPS)
def test_other_attributes(op: str) -> None:
    attrs = {"kernel": (3, 3), "num_filter": 2, "no_bias": True, "layout": "NCHW"}
    check(op, (2, 3, 7, 6), {**attrs, "workspace": 512})
    if op == OPS[1]:
        check(op, (4, 3, 7, 6), {**attrs, "im2col_step": 2})


@pytest.mark.parametrize("shape", [(1, 2, 1, 5), (1, 2, 5, 1), (3, 1, 2, 2)])
@pytest.mark.parametrize("op", OPS)
def test_thin_maps(op: str, shape: tuple[int, ...]) -> None:
    check(op, shape, {"kernel": (3, 3), "num_filter": 2, "pad": (1, 1)})


@pytest.mark.parametrize("op", OPS)
def test_no_offset(op: str) -> None:
    """Without offsets, and with a mask of ones, it is the ordinary convolution."""
    attrs = {"kernel": (3, 3), "num_filter": 3, "pad": (1, 1), "stride": (2, 2)}
    inputs, params = arrays_for(op, (2, 4, 9, 8), attrs)
    inputs["offset"][:] = 0
    if "mask" in inputs:
        inputs["mask"][:] = 1
    variables = [mx.sym.var(name) for name in (*inputs, *params)]
    check_operator(getattr(mx.sym.contrib, op)(*variables, **attrs), inputs, params)


def test_float64() -> None:
    """ONNX Runtime has no GridSample for float64."""
    attrs = {"kernel": (3, 3), "num_filter": 3, "pad": (1, 1)}
    inputs, params = arrays_for(OPS[0], (1, 4, 6, 7), attrs)
    variables = [mx.sym.var(name) for name in (*inputs, *params)]
    inputs, params = (
        {name: x.astype("float64") for name, x in arrays.items()} for arrays in (inputs, params)
    )
    symbol = mx.sym.contrib.DeformableConvolution(*variables, **attrs)
    check_refused(symbol, inputs, "GridSample", params)


@pytest.mark.parametrize("op", OPS)
def test_sizes_may_be_unknown(op: str) -> None:
    attrs = {"kernel": (3, 3), "num_filter": 2}
    inputs, params = arrays_for(op, (1, 2, 6, 5), attrs)
    variables = [mx.sym.var(name) for name in (*inputs, *params)]
    symbol = getattr(mx.sym.contrib, op)(*variables, **attrs)
    weights = {name: mx.nd.array(array) for name, array in params.items()}
    shapes = dict.fromkeys(inputs, (None,) * 4)
    optimize_whole(symbol, weights, shapes=shapes)


def test_refusals() -> None:
    """MXNet makes 2-D windows only, so that only shapes are left to refuse for."""
    symbol = mx.sym.contrib.DeformableConvolution(
        mx.sym.var("data"),
        mx.sym.var("offset"),
        mx.sym.var("weight"),
        kernel=(3, 3),
        num_filter=2,
        num_deformable_group=2,
        no_bias=True,
    )
    weight = {"weight": mx.nd.array(random_array((2, 4, 3, 3)))}
    shapes = {"data": (None,) * 4, "offset": (None,) * 4}
    report = mxtrt.explain(symbol, weight, shapes=shapes, min_subgraph_size=1)
    assert "needs the size of axis 1 of 'data'" in next(iter(report.left.values()))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    op=st.sampled_from(OPS),
    batch=st.integers(1, 3),
    height=st.integers(3, 8),
    width=st.integers(3, 8),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pad=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    groups=st.sampled_from([1, 2, 4]),
    coarse=st.booleans(),
)
def test_random_windows(
    seed: int,
    op: str,
    batch: int,
    height: int,
    width: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    groups: int,
    coarse: bool,
) -> None:
    attrs = {"kernel": kernel, "stride": stride, "pad": pad, "num_filter": 4}
    attrs.update(num_deformable_group=groups, num_group=groups)
    check(op, (batch, 4, height, width), attrs, coarse=coarse, seed=seed)


@pytest.mark.parametrize("op", OPS)
def test_tensorrt_takes_it(op: str) -> None:
    attrs = {"kernel": (3, 3), "num_filter": 4, "num_deformable_group": 2, "pad": (1, 1)}
    inputs, params = arrays_for(op, (1, 4, 8, 8), attrs)
    variables = [mx.sym.var(name) for name in (*inputs, *params)]
    symbol = getattr(mx.sym.contrib, op)(*variables, **attrs)
    weights = {name: mx.nd.array(array) for name, array in params.items()}
    shapes = {name: array.shape for name, array in inputs.items()}
    for part in parts_as_onnx(symbol, weights, shapes, min_subgraph_size=1):
        build_plan(part)
