"""Normalisation and the softmax family against MXNet."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import check_operator, check_refused, random_array

DATA = mx.sym.var("data")


def _statistics(channels: int, dtype: str = "float32") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    names = ("n_gamma", "n_beta", "n_moving_mean", "n_moving_var")
    return {name: (rng.random(channels) + 0.2).astype(dtype) for name in names}


def _check_batch_norm(
    symbol: mx.sym.Symbol, shape: tuple[int, ...], channels: int, dtype: str = "float32"
) -> None:
    """Check with the statistics as weights, and once more fed at run time."""
    data = {"data": random_array(shape, dtype) * 3}
    params = _statistics(channels, "float32" if dtype == "float16" else dtype)
    check_operator(symbol, data, params)
    check_operator(symbol, {**data, **params})


@pytest.mark.parametrize(
    "attrs",
    [
        {},
        {"fix_gamma": False},
        {"fix_gamma": False, "eps": 0.5},
        {"fix_gamma": False, "use_global_stats": True, "momentum": 0.5},
        {"fix_gamma": True, "axis": -1, "eps": 2e-5},
        {"fix_gamma": False, "axis": 2},
    ],
)
@pytest.mark.parametrize("shape", [(2, 3, 3, 3), (4, 3, 3), (1, 3, 3, 2, 3)])
def test_batch_norm(shape: tuple[int, ...], attrs: dict[str, Any]) -> None:
    _check_batch_norm(mx.sym.BatchNorm(DATA, name="n", **attrs), shape, 3)


@pytest.mark.parametrize("fix_gamma", [True, False])
def test_batch_norm_of_rows(fix_gamma: bool) -> None:
    _check_batch_norm(mx.sym.BatchNorm(DATA, name="n", fix_gamma=fix_gamma), (4, 5), 5)
    _check_batch_norm(mx.sym.BatchNorm(DATA, name="n", fix_gamma=fix_gamma, axis=0), (4, 5), 4)


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_batch_norm_dtypes(dtype: str, axis: int) -> None:
    symbol = mx.sym.BatchNorm(DATA, name="n", fix_gamma=False, axis=axis)
    _check_batch_norm(symbol, (2, 3, 5, 3), 3, dtype)


def test_batch_norm_statistics_as_outputs() -> None:
    made = mx.sym.BatchNorm(DATA, name="n", fix_gamma=False, eps=0.1, output_mean_var=True)
    # a head named n_mean cannot be had from another operator: an operator reads it
    symbol = mx.sym.broadcast_add(mx.sym.identity(made[1]), mx.sym.identity(made[2]), name="sum")
    check_batch = mx.sym.Group([made[0], symbol])
    _check_batch_norm(check_batch, (2, 3, 4), 3)


@pytest.mark.parametrize("fix_gamma", [True, False])
def test_kin_of_batch_norm(fix_gamma: bool) -> None:
    attrs = {"name": "n", "fix_gamma": fix_gamma, "eps": 0.01}
    for symbol in (
        mx.sym.BatchNorm_v1(DATA, **attrs),
        mx.sym.contrib.SyncBatchNorm(DATA, key="k", ndev=2, **attrs),
        mx.sym.contrib.BatchNormWithReLU(DATA, **attrs),
    ):
        _check_batch_norm(symbol, (2, 3, 4, 5), 3)


@pytest.mark.parametrize("use_global_stats", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_training_attributes_of_batch_norm(use_global_stats: bool, momentum: float) -> None:
    attrs = {"name": "n", "use_global_stats": use_global_stats, "momentum": momentum}
    calibrated = {"min_calib_range": -1.0, "max_calib_range": 1.0}  # read once it is quantised
    for symbol in (
        mx.sym.BatchNorm(DATA, **calibrated, **attrs),
        mx.sym.BatchNorm_v1(DATA, **attrs),
        mx.sym.contrib.SyncBatchNorm(DATA, key="k", **attrs),
        mx.sym.contrib.BatchNormWithReLU(DATA, **calibrated, **attrs),
    ):
        _check_batch_norm(symbol, (2, 3, 4, 5), 3)


@pytest.mark.parametrize("op", [mx.sym.BatchNorm_v1, mx.sym.contrib.BatchNormWithReLU])
def test_statistics_of_kin_of_batch_norm(op: Any) -> None:
    """SyncBatchNorm does not write them at inference, and is refused."""
    made = op(DATA, name="n", output_mean_var=True, fix_gamma=False, eps=0.5)
    _check_batch_norm(mx.sym.Group([mx.sym.identity(out) for out in made]), (2, 3, 4, 5), 3)


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 4, 5), (1, 2, 3, 1, 5), (2, 1, 3)])
@pytest.mark.parametrize("eps", [1e-3, 0.5])
def test_instance_norm(shape: tuple[int, ...], eps: float) -> None:
    symbol = mx.sym.InstanceNorm(DATA, name="n", eps=eps)
    params = {"n_gamma": (shape[1],), "n_beta": (shape[1],)}
    check_operator(symbol, {"data": shape}, params)
    check_operator(symbol, {"data": shape, **params})


@pytest.mark.parametrize("output_mean_var", [False, True])
@pytest.mark.parametrize(
    ("shape", "groups"), [((2, 6, 4), 3), ((2, 6, 4, 3), 1), ((1, 4, 1, 2, 3), 2)]
)
def test_group_norm(shape: tuple[int, ...], groups: int, output_mean_var: bool) -> None:
    symbol = _outputs(
        mx.sym.GroupNorm(
            DATA, name="n", num_groups=groups, eps=0.2, output_mean_var=output_mean_var
        )
    )
    check_operator(symbol, {"data": shape}, {"n_gamma": (groups,), "n_beta": (groups,)})
    if not output_mean_var:
        check_operator(symbol, {"data": shape, "n_gamma": (groups,), "n_beta": (groups,)})


@pytest.mark.parametrize("output_mean_var", [False, True])
@pytest.mark.parametrize("axis", [-1, 0, 1, 2, -2])
@pytest.mark.parametrize("shape", [(2, 3, 5), (4, 1, 3, 6)])
def test_layer_norm(shape: tuple[int, ...], axis: int, output_mean_var: bool) -> None:
    symbol = _outputs(
        mx.sym.LayerNorm(DATA, name="n", axis=axis, eps=0.2, output_mean_var=output_mean_var)
    )
    size = (shape[axis],)
    check_operator(symbol, {"data": shape}, {"n_gamma": size, "n_beta": size})
    check_operator(symbol, {"data": shape, "n_gamma": size, "n_beta": size})


def _outputs(symbol: mx.sym.Symbol) -> mx.sym.Symbol:
    """Return every output under a name that an engine's node can have."""
    if len(symbol.list_outputs()) == 1:
        return symbol
    return mx.sym.Group([symbol[0], *(mx.sym.identity(symbol[i]) for i in (1, 2))])


@pytest.mark.parametrize("op", ["LayerNorm", "GroupNorm"])
def test_float16_norms(op: str) -> None:
    symbol = getattr(mx.sym, op)(DATA, name="n")
    size = 5 if op == "LayerNorm" else 1
    params = {name: random_array((size,), "float16", 3) for name in ("n_gamma", "n_beta")}
    check_operator(symbol, {"data": random_array((2, 4, 5), "float16")}, params, atol=4e-3)
    # 4e-3: MXNet subtracts the mean in float16, whose step near 2 is 2e-3


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axes", [(0,), (1, 2), (-1,), (0, 1, 2), (2, 0)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_moments(dtype: str, axes: tuple[int, ...], keepdims: bool) -> None:
    made = mx.sym.moments(DATA, axes=axes, keepdims=keepdims)
    symbol = mx.sym.Group([mx.sym.identity(made[i]) for i in (0, 1)])
    # 5e-3: MXNet subtracts the mean in float16, whose step near 2 is 2e-3
    atol = 5e-3 if dtype == "float16" else None
    check_operator(symbol, {"data": random_array((2, 3, 4), dtype)}, atol=atol)


@pytest.mark.parametrize("mode", ["instance", "channel", "spatial"])
@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 4, 5), (1, 1, 2), (2, 3, 1, 1)])
def test_l2_normalization(shape: tuple[int, ...], mode: str) -> None:
    for eps in (1e-10, 0.5):
        check_operator(mx.sym.L2Normalization(DATA, mode=mode, eps=eps), {"data": shape})
    check_operator(
        mx.sym.L2Normalization(DATA, mode=mode), {"data": random_array(shape, "float16")}
    )


@pytest.mark.parametrize("shape", [(4, 5), (4,)])
def test_l2_normalization_of_rows(shape: tuple[int, ...]) -> None:
    check_operator(mx.sym.L2Normalization(DATA, eps=0.5), {"data": shape})


@pytest.mark.parametrize("nsize", [1, 3, 5, 9])
@pytest.mark.parametrize("attrs", [{}, {"alpha": 0.5, "beta": 0.3, "knorm": 1.5}])
def test_lrn(attrs: dict[str, float], nsize: int) -> None:
    data = random_array((2, 7, 4, 3)) * 5
    check_operator(mx.sym.LRN(DATA, nsize=nsize, **attrs), {"data": data})


@pytest.mark.parametrize("attrs", [{}, {"p": 0.9, "axes": (0,)}, {"p": 0.0, "mode": "always"}])
def test_dropout(attrs: dict[str, Any]) -> None:
    check_operator(mx.sym.Dropout(DATA, **attrs), {"data": (2, 3)})


def test_logarithms_of_small_chances() -> None:
    x = np.array([[0, -200, 50, 3], [-500, -400, -450, -401], [300, 200, 100, 0]], "float32")
    check_operator(mx.sym.log_softmax(DATA), {"data": x})
    check_operator(mx.sym.log_softmax(DATA, axis=0), {"data": x})


SOFTMAXES = ["softmax", "log_softmax", "softmin"]


@pytest.mark.parametrize("attrs", [{}, {"temperature": 0.3}, {"temperature": 1.0}])
@pytest.mark.parametrize("axis", [-1, 0, 1, -2])
@pytest.mark.parametrize("op", SOFTMAXES)
def test_softmax(op: str, axis: int, attrs: dict[str, Any]) -> None:
    symbol = getattr(mx.sym, op)(DATA, axis=axis, **attrs)
    check_operator(symbol, {"data": random_array((2, 3, 4)) * 5})
    check_operator(symbol, {"data": (5, 1)})


@pytest.mark.parametrize("wanted", [None, "float16", "float32", "float64"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("op", SOFTMAXES)
def test_softmax_dtypes(op: str, dtype: str, wanted: str | None) -> None:
    attrs = {"temperature": 0.7} if wanted is None else {"dtype": wanted}
    symbol = getattr(mx.sym, op)(DATA, axis=1, **attrs)
    # MXNet sums in the narrower of the two types
    narrow = min((dtype, wanted or dtype), key=lambda name: np.dtype(name).itemsize)
    rtol, atol = {"float16": (1e-2, 4e-3), "float32": (1e-5, 1e-6), "float64": (1e-10, 1e-12)}[
        narrow
    ]
    check_operator(symbol, {"data": random_array((2, 3, 4), dtype)}, rtol=rtol, atol=atol)


@pytest.mark.parametrize("axis", [-1, 0, 1, 2])
@pytest.mark.parametrize("length_dtype", ["int32", "int64"])
def test_softmax_with_lengths(length_dtype: str, axis: int) -> None:
    shape = (2, 3, 4)
    lengths = np.delete(np.array(shape), axis)
    # none, some, all; past the end MXNet writes into foreign memory
    length = np.arange(lengths.prod()).reshape(lengths) % (shape[axis] + 1)
    length = length.astype(length_dtype)
    attrs = {"axis": axis, "use_length": True, "temperature": 0.5}
    symbol = mx.sym.softmax(DATA, mx.sym.var("length"), **attrs)
    check_operator(symbol, {"data": random_array(shape), "length": length})
    check_operator(symbol, {"data": random_array(shape)}, {"length": length})


@pytest.mark.parametrize("mode", ["instance", "channel"])
@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5)])
def test_softmax_activation(shape: tuple[int, ...], mode: str) -> None:
    check_operator(mx.sym.SoftmaxActivation(DATA, mode=mode), {"data": shape})


def test_softmax_activation_of_rows() -> None:
    check_operator(mx.sym.SoftmaxActivation(DATA), {"data": (4, 5)})


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.data())
def test_any_normalization(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=3, max_size=5), "shape"))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1), "axis")
    eps = data.draw(st.sampled_from([1e-5, 1e-2, 1.0]), "eps")
    size = (shape[axis],)
    affine = {"n_gamma": size, "n_beta": size}
    check_operator(mx.sym.LayerNorm(DATA, name="n", axis=axis, eps=eps), {"data": shape}, affine)
    check_operator(mx.sym.softmax(DATA, axis=axis, temperature=eps), {"data": shape})
    if shape[axis] > 0 and axis != 0:
        _check_batch_norm(
            mx.sym.BatchNorm(DATA, name="n", axis=axis, eps=eps, fix_gamma=False), shape, size[0]
        )


@pytest.mark.parametrize(
    ("symbol", "sentence"),
    [
        (mx.sym.LRN(DATA, nsize=4), "nsize=4 is even"),
        (mx.sym.Dropout(DATA, mode="always"), "mode='always' draws random numbers"),
    ],
)
def test_refused(symbol: mx.sym.Symbol, sentence: str) -> None:
    check_refused(symbol, {"data": (2, 3, 4, 5)}, sentence)


def test_statistics_of_sync_batch_norm_are_refused() -> None:
    attrs = {"name": "n", "key": "k", "output_mean_var": True}
    names = ("gamma", "beta", "moving_mean", "moving_var")
    check_refused(
        mx.sym.contrib.SyncBatchNorm(DATA, **attrs)[0],
        {"data": (2, 3, 4, 5)},
        "output_mean_var=True: MXNet writes nothing into these outputs",
        {f"n_{name}": np.ones(3, "float32") for name in names},
    )
