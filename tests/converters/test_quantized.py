"""Quantised operators against MXNet.

Integers of 8 bits may differ by one step, because a number between two steps may be rounded to
either of them, and that in one of fifty at most; a wrong constant shows in more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import (
    ENGINE_OPTIONS,
    check_refused,
    optimize_whole,
    random_array,
    run_engines,
    run_mxnet,
)

import mxtrt

V = mx.sym.var
C = mx.sym.contrib
RNG = np.random.default_rng(0)


def integers(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    info = np.iinfo("int8" if dtype == "int32" else dtype)
    return np.random.default_rng(seed).integers(info.min, info.max + 1, shape).astype(dtype)


def ends(**ranges: tuple[float, float]) -> dict[str, np.ndarray]:
    """Return ``x_min`` and ``x_max`` for each range ``x``."""
    return {
        f"{name}_{end}": np.array([number], "float32")
        for name, pair in ranges.items()
        for end, number in zip(("min", "max"), pair)
    }


def compare(expected: list[np.ndarray], found: list[np.ndarray], share: float = 0.02) -> None:
    for want, have in zip(expected, found):
        assert want.shape == have.shape
        assert want.dtype == have.dtype
        if want.dtype == np.float32:
            np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-6)
            continue
        off = np.abs(want.astype("int64") - have.astype("int64"))
        # float32 has 24 bits: of an int32 it keeps all but the last few
        assert off.max() <= (1 if want.dtype != np.int32 else np.abs(want).max() >> 21 or 1)
        assert np.mean(off > 0) <= (share if want.dtype != np.int32 else 1)


def check(
    symbol: mx.sym.Symbol,
    inputs: Mapping[str, np.ndarray],
    params: Mapping[str, np.ndarray],
    *,
    share: float = 0.02,
    unknown_sizes: bool = True,
) -> None:
    """Compare with MXNet: with `params` known, and with all of it coming at run time."""
    everything = {**inputs, **params}
    expected = run_mxnet(symbol, everything)
    for free, weights in ((inputs, params), (everything, {})):
        for known in (True, False)[: 1 + unknown_sizes]:
            shapes = {n: a.shape if known else (None,) * a.ndim for n, a in free.items()}
            nd = {n: mx.nd.array(a, dtype=a.dtype) for n, a in weights.items()}
            dtypes = {n: a.dtype for n, a in free.items()}
            optimized, kept = optimize_whole(symbol, nd, shapes=shapes, dtypes=dtypes)
            assert not kept
            compare(expected, run_engines(optimized, free), share)
            mxtrt.release(optimized)


CALIBRATED = [(-3.2, 2.5), (0.0, 2.5), (0.5, 2.5), (-2.0, 3.2), (-3.2, -1.0)]


@pytest.mark.parametrize("of_range", [*CALIBRATED, None])
@pytest.mark.parametrize("out_type", ["int8", "uint8", "auto"])
def test_quantize_v2(out_type: str, of_range: tuple[float, float] | None) -> None:
    attrs = {} if of_range is None else dict(zip(("min_calib_range", "max_calib_range"), of_range))
    symbol = C.quantize_v2(V("data"), out_type=out_type, **attrs)
    check(symbol, {"data": random_array((4, 5, 16)) * 1.5}, {})


def test_quantize_v2_of_integers() -> None:
    symbol = C.quantize_v2(V("data"), min_calib_range=-1.0, max_calib_range=2.0)
    check(symbol, {"data": integers((3, 4), "int8")}, {})


@pytest.mark.parametrize("of_range", CALIBRATED)
@pytest.mark.parametrize("out_type", ["int8", "uint8"])
def test_quantize(out_type: str, of_range: tuple[float, float]) -> None:
    symbol = C.quantize(V("data"), V("r_min"), V("r_max"), out_type=out_type)
    check(symbol, {"data": random_array((4, 5, 16)) * 1.5}, ends(r=of_range))


@pytest.mark.parametrize("of_range", CALIBRATED)
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_dequantize(dtype: str, of_range: tuple[float, float]) -> None:
    symbol = C.dequantize(V("data"), V("r_min"), V("r_max"))
    check(symbol, {"data": integers((4, 5, 6), dtype)}, ends(r=of_range))


@pytest.mark.parametrize("of_range", [(-80.0, 50.0), (0.0, 50.0), (5.0, 90.0), None])
@pytest.mark.parametrize("out_type", ["int8", "uint8", "auto"])
def test_requantize(out_type: str, of_range: tuple[float, float] | None) -> None:
    attrs = {} if of_range is None else dict(zip(("min_calib_range", "max_calib_range"), of_range))
    symbol = C.requantize(V("data"), V("r_min"), V("r_max"), out_type=out_type, **attrs)
    data = (random_array((4, 5, 16)) * 2.0**29).astype("int32")
    check(symbol, {"data": data}, ends(r=(-100.0, 100.0)))


@pytest.mark.parametrize("of_range", [(-3.0, 2.0), None])
def test_quantize_asym(of_range: tuple[float, float] | None) -> None:
    attrs = {} if of_range is None else dict(zip(("min_calib_range", "max_calib_range"), of_range))
    symbol = mx.sym.Group(list(C.quantize_asym(V("data"), **attrs, name="q"))[:1])
    check(symbol, {"data": random_array((4, 5, 16))}, {})


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (2, 1, 3, 5)])
def test_flatten(shape: tuple[int, ...], dtype: str) -> None:
    symbol = C.quantized_flatten(V("data"), V("r_min"), V("r_max"))
    check(symbol, {"data": integers(shape, dtype)}, ends(r=(-2.0, 3.0)), share=0)


def test_relu() -> None:
    symbol = C.quantized_act(V("data"), V("r_min"), V("r_max"), act_type="relu")
    check(symbol, {"data": integers((2, 3, 4, 5), "int8")}, ends(r=(-2.0, 3.0)), share=0)


POOLS = [
    {"kernel": (2, 2)},
    {"kernel": (3, 3), "stride": (2, 2), "pad": (1, 1)},
    {"kernel": (3, 3), "stride": (2, 2), "pooling_convention": "full"},
    {"kernel": (2, 2), "pool_type": "avg"},
    {"kernel": (3, 3), "pad": (1, 1), "pool_type": "avg"},
    {"kernel": (3, 3), "pad": (1, 1), "pool_type": "avg", "count_include_pad": False},
    {"kernel": (1, 1), "global_pool": True, "pool_type": "avg"},
    {"kernel": (1, 1), "global_pool": True, "pool_type": "max"},
    {"kernel": (2, 2), "layout": "NCHW", "p_value": 3},  # lp pools alone read p_value
]


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("attrs", POOLS)
def test_pooling(attrs: dict[str, Any], dtype: str) -> None:
    symbol = C.quantized_pooling(V("data"), V("r_min"), V("r_max"), **attrs)
    # averages of integers often lie in the middle of two steps
    share = 0.1 if attrs.get("pool_type") == "avg" else 0
    check(symbol, {"data": integers((2, 3, 8, 8), dtype)}, ends(r=(-2.0, 3.0)), share=share)


@pytest.mark.parametrize("attrs", [{}, {"dtype": "int8"}])
def test_embedding(attrs: dict[str, str]) -> None:
    symbol = C.quantized_embedding(
        V("data"), V("weight"), V("r_min"), V("r_max"), input_dim=6, output_dim=3, **attrs
    )
    data = np.array([[0, 2, 5, 9, -1]], "float32")  # the last two are out of range
    check(symbol, {"data": data}, {"weight": integers((6, 3), "int8"), **ends(r=(-2.0, 3.0))})


@pytest.mark.parametrize("dim", [1, 2])  # MXNet crashes where it is negative
@pytest.mark.parametrize(
    "dtypes", [("int8", "int8"), ("uint8", "uint8"), ("int8", "uint8"), ("uint8", "int8")]
)
def test_concat(dtypes: tuple[str, str], dim: int) -> None:
    names = ["a", "b", "a_min", "a_max", "b_min", "b_max"]
    symbol = C.quantized_concat(*map(V, names), dim=dim, num_args=2)
    data = {n: integers((2, 3, 4), d, i) for i, (n, d) in enumerate(zip("ab", dtypes))}
    check(symbol, data, ends(a=(-2.0, 3.0), b=(-1.0, 5.0)))


PAIR = ["a", "b", "a_min", "a_max", "b_min", "b_max"]
TOLD = [
    {"min_calib_range": -4.0, "max_calib_range": 3.0},
    {"min_calib_range": 0.0, "max_calib_range": 5.0},
]


@pytest.mark.parametrize("attrs", [{}, *TOLD])
@pytest.mark.parametrize(
    "dtypes", [("int8", "int8"), ("uint8", "uint8"), ("int8", "uint8"), ("uint8", "int8")]
)
def test_add(dtypes: tuple[str, str], attrs: dict[str, float]) -> None:
    symbol = C.quantized_elemwise_add(*map(V, PAIR), **attrs)
    # MXNet goes on with the scales of an earlier call on the same thread that had the same sizes
    shape = (2, 3, 20 + len(attrs) + int(attrs.get("max_calib_range", 0)))
    data = {n: integers(shape, d, i) for i, (n, d) in enumerate(zip("ab", dtypes))}
    ranges = ends(a=(-2.1, 2.0), b=(-2.9, 1.0))  # no halves of the steps of the result
    if dtypes[0] != dtypes[1] and not attrs:
        # MXNet adds the int8 to the uint8 without the scale of the uint8
        check_refused(symbol, data, "MXNet forgets the scale of one", ranges)
    else:
        check(symbol, data, ranges)


@pytest.mark.parametrize("attrs", [{}, {"enable_float_output": True}])
def test_multiply(attrs: dict[str, bool]) -> None:
    symbol = C.quantized_elemwise_mul(*map(V, PAIR), **attrs)
    symbol = symbol if attrs else mx.sym.Group([symbol[i] for i in range(3)])
    data = {n: integers((2, 3, 20), "int8", i) for i, n in enumerate("ab")}
    check(symbol, data, ends(a=(-2.0, 2.0), b=(-3.0, 1.0)))


def test_multiply_into_a_range() -> None:
    """MXNet cuts where it should round: every second number is one step off."""
    symbol = C.quantized_elemwise_mul(*map(V, PAIR), min_calib_range=-6.5, max_calib_range=6.0)
    data = {n: integers((2, 3, 20), "int8", i) for i, n in enumerate("ab")}
    check(symbol, data, ends(a=(-2.0, 2.0), b=(-3.0, 1.0)), share=0.6)


@pytest.mark.parametrize("fix_gamma", [True, False])
@pytest.mark.parametrize(
    "attrs",
    [*TOLD, {**TOLD[0], "momentum": 0.5, "use_global_stats": True, "output_mean_var": True}],
)
def test_batch_norm(attrs: dict[str, float], fix_gamma: bool) -> None:
    names = ["data", "gamma", "beta", "mean", "var", "r_min", "r_max"]
    symbol = C.quantized_batch_norm(*map(V, names), fix_gamma=fix_gamma, eps=2e-3, **attrs)
    params = {n: random_array((3,), seed=i) for i, n in enumerate(names[1:5])}
    params["var"] = np.abs(params["var"]) + 0.5
    check(symbol, {"data": integers((2, 3, 4, 5), "int8")}, {**params, **ends(r=(-2.0, 3.0))})


def layer(op: Any, no_bias: bool, **attrs: Any) -> mx.sym.Symbol:
    names = ["data", "weight"] if no_bias else ["data", "weight", "bias"]
    inputs = {n: V(n) for n in names}
    inputs.update({f"{end}_{n}": V(f"{n}_{end}") for n in names for end in ("min", "max")})
    return op(**inputs, no_bias=no_bias, **attrs)


def layer_params(no_bias: bool, weight: tuple[int, ...]) -> dict[str, np.ndarray]:
    # halved: MXNet's kernel may saturate the sum of two products at 16 bits
    params = {"weight": integers(weight, "int8", 1) // 2}
    params.update(ends(data=(-2.0, 3.0), weight=(-1.0, 0.5)))
    if not no_bias:
        params.update(bias=integers(weight[:1], "int8", 2), **ends(bias=(-7.0, 2.0)))
    return params


@pytest.mark.parametrize("flatten", [True, False])
@pytest.mark.parametrize("no_bias", [True, False])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_fully_connected(dtype: str, no_bias: bool, flatten: bool) -> None:
    symbol = layer(C.quantized_fully_connected, no_bias, num_hidden=3, flatten=flatten)
    params = layer_params(no_bias, (3, 8 if flatten else 4))
    check(symbol, {"data": integers((40, 2, 4), dtype)}, params)
    fed_on = C.requantize(*symbol, min_calib_range=-9.0, max_calib_range=9.0)
    check(fed_on, {"data": integers((40, 2, 4), dtype)}, params)


@pytest.mark.parametrize(
    "attrs",
    [
        {"kernel": (3, 3)},
        {"kernel": (3, 2), "stride": (2, 1), "pad": (1, 0), "dilate": (1, 2)},
        {"kernel": (1, 1), "layout": "NCHW"},
    ],
)
@pytest.mark.parametrize("no_bias", [True, False])
def test_convolution(no_bias: bool, attrs: dict[str, Any]) -> None:
    """MXNet's CPU has it for uint8 data only."""
    symbol = layer(C.quantized_conv, no_bias, num_filter=4, **attrs)
    params = layer_params(no_bias, (4, 4, *attrs["kernel"]))
    check(symbol, {"data": integers((2, 4, 7, 6), "uint8")}, params)
    fed_on = C.requantize(*symbol, min_calib_range=-50.0, max_calib_range=40.0)
    check(fed_on, {"data": integers((2, 4, 7, 6), "uint8")}, params)


REFUSALS = [
    (C.quantize_v2(V("data")), "int8", "int8 data without min_calib_range has no range"),
    (
        C.quantized_act(V("data"), V("r_min"), V("r_max"), act_type="relu"),
        "uint8",
        "uint8 data, whose bytes MXNet takes for int8",
    ),
    (
        C.quantized_elemwise_mul(
            V("data"), V("data"), V("r_min"), V("r_max"), V("r_min"), V("r_max")
        ),
        "uint8",
        "MXNet multiplies int8 only",
    ),
]


@pytest.mark.parametrize(("symbol", "dtype", "sentence"), REFUSALS)
def test_refusals(symbol: mx.sym.Symbol, dtype: str, sentence: str) -> None:
    params = ends(r=(-1.0, 2.0))
    params = {n: a for n, a in params.items() if n in symbol.list_arguments()}
    check_refused(symbol, {"data": integers((2, 3), dtype)}, sentence, params)


def test_refused_batch_norms() -> None:
    names = ["data", "gamma", "beta", "mean", "var", "r_min", "r_max"]
    params = {**{n: np.ones(3, "float32") for n in names[1:5]}, **ends(r=(-1.0, 2.0))}
    symbol = C.quantized_batch_norm(*map(V, names))
    data = {"data": integers((2, 3, 4, 4), "int8")}
    check_refused(symbol, data, "no min_calib_range; MXNet itself asks for one", params)
    symbol = C.quantized_batch_norm(*map(V, names), axis=2, **TOLD[0])
    data = {"data": integers((2, 4, 3, 4), "int8")}
    check_refused(symbol, data, "axis=2; MXNet quantises axis=1 only", params)


def test_calibration_stays() -> None:
    symbol = C.calibrate_entropy(V("hist"), V("edges"), num_quantized_bins=5)[0] * 1
    inputs = {"hist": np.ones(9, "float32"), "edges": np.arange(10, dtype="float32")}
    check_refused(symbol, inputs, "the last bits of long sums choose its threshold")


ENDS = st.floats(-50, 50, width=32).filter(lambda x: abs(x) > 0.01)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    ENDS,
    ENDS,
    st.sampled_from(["int8", "uint8", "auto"]),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.booleans(),
)
def test_there_and_back(a: float, b: float, out_type: str, shape: list[int], back: bool) -> None:
    attrs = {"min_calib_range": min(a, b), "max_calib_range": max(a, b)}
    symbol = C.quantize_v2(V("data"), out_type=out_type, **attrs)
    data = random_array(tuple(shape)) * max(abs(a), abs(b))
    if not back:
        check(symbol, {"data": data}, {}, share=1)
        return
    expected = run_mxnet(C.dequantize(*symbol), {"data": data})[0]
    optimized, _ = mxtrt.optimize(
        C.dequantize(*symbol), shapes={"data": tuple(shape)}, **ENGINE_OPTIONS
    )
    step = max(abs(a), abs(b)) / 127
    assert np.abs(run_mxnet(optimized, {"data": data})[0] - expected).max() <= step
