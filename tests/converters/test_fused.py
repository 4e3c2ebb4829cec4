"""Layers that MXNet fused for oneDNN, quantised and not, and whole quantised nets."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from mxnet.contrib.quantization import quantize_model
from operators import (
    ENGINE,
    check_operator,
    check_refused,
    optimize_whole,
    random_array,
    run_engines,
    run_mxnet,
)

import mxtrt
from mxtrt.engines.onnxruntime import WRONG_OPTIMIZERS

V = mx.sym.var
Arrays = dict[str, np.ndarray]


def arrays_of(symbol: mx.sym.Symbol, data: tuple[int, ...]) -> Arrays:
    """Return parameters by name, variances positive, and ``data``."""
    args, _, aux = symbol.infer_shape(data=data)
    names = [*symbol.list_arguments(), *symbol.list_auxiliary_states()]
    made = {n: random_array(s, seed=i) / 2 for i, (n, s) in enumerate(zip(names, [*args, *aux]))}
    return {n: np.abs(a) + 0.5 if n.endswith("var") else a for n, a in made.items()}


def quantize(
    symbol: mx.sym.Symbol, shape: tuple[int, ...], given: Arrays | None = None, **options: Any
) -> tuple[mx.sym.Symbol, Arrays, np.ndarray]:
    """Quantise a net as MXNet's documentation does, calibrated by its own inputs."""
    arrays = {**arrays_of(symbol, shape), **(given or {})}
    data = random_array((4 * shape[0], *shape[1:])) * 1.5
    fused = symbol.get_backend_symbol("MKLDNN_QUANTIZE")
    nd = {n: mx.nd.array(a) for n, a in arrays.items() if n != "data"}
    aux = {n: nd.pop(n) for n in symbol.list_auxiliary_states()}
    quantized, args, aux = quantize_model(
        fused, nd, aux, label_names=None, ctx=mx.cpu(), logger=logging.getLogger("quantize"),
        **{"calib_mode": "naive", "quantized_dtype": "auto", "quantize_mode": "smart",
           "calib_data": mx.io.NDArrayIter(data, batch_size=shape[0]),
           "num_calib_examples": len(data), **options},
    )  # fmt: skip
    quantized = quantized.get_backend_symbol("MKLDNN_QUANTIZE")
    return quantized, {n: a.asnumpy() for n, a in {**args, **aux}.items()}, data[: shape[0]]


def ops_of(symbol: mx.sym.Symbol) -> list[str]:
    return [n["op"] for n in json.loads(symbol.tojson())["nodes"] if n["op"] != "null"]


def conv(x: Any, name: str = "conv", **attrs: Any) -> mx.sym.Symbol:
    return mx.sym.Convolution(x, name=name, **{"num_filter": 6, "kernel": (3, 3), **attrs})


def act(x: mx.sym.Symbol) -> mx.sym.Symbol:
    return mx.sym.Activation(x, act_type="relu")


def residual(x: mx.sym.Symbol) -> mx.sym.Symbol:
    one = act(conv(x, "one", pad=(1, 1)))
    return act(mx.sym.BatchNorm(conv(one, "two", pad=(1, 1)), name="bn") + one)


CONVOLUTIONS = {
    "plain": lambda x: conv(x),
    "no bias": lambda x: conv(x, no_bias=True),
    "strides": lambda x: conv(x, stride=(2, 1), pad=(0, 1), dilate=(1, 2)),
    "depthwise": lambda x: conv(x, num_filter=3, num_group=3),
    "relu": lambda x: act(conv(x)),
    "bn": lambda x: mx.sym.BatchNorm(conv(x), fix_gamma=False, eps=2e-3, name="bn"),
    "bn relu": lambda x: act(mx.sym.BatchNorm(conv(x, no_bias=True), name="bn")),
    "sum": residual,
    "leaky": lambda x: mx.sym.LeakyReLU(conv(x), slope=0.1),
    "relu6": lambda x: mx.sym.clip(conv(x), 0, 6),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_float_convolutions(kind: str) -> None:
    symbol = CONVOLUTIONS[kind](V("data"))
    arrays = arrays_of(symbol, (2, 3, 8, 7))
    fused = symbol.get_backend_symbol("MKLDNN")
    assert "_sg_mkldnn_conv" in ops_of(fused)
    check_operator(fused, {"data": arrays.pop("data")}, arrays)


DENSE = {
    "plain": lambda x: x,
    "relu": act,
    "tanh": lambda x: mx.sym.Activation(x, act_type="tanh"),
    "clip": lambda x: mx.sym.clip(x, -0.5, 0.75),
}


def dense(kind: str, **attrs: Any) -> mx.sym.Symbol:
    return DENSE[kind](mx.sym.FullyConnected(V("data"), num_hidden=5, name="fc", **attrs))


@pytest.mark.parametrize("no_bias", [False, True])
@pytest.mark.parametrize("kind", DENSE)
def test_float_fully_connected(kind: str, no_bias: bool) -> None:
    symbol = dense(kind, no_bias=no_bias)
    arrays = arrays_of(symbol, (2, 3, 4))
    fused = symbol.get_backend_symbol("MKLDNN")
    assert "_sg_mkldnn_fully_connected" in ops_of(fused)
    check_operator(fused, {"data": arrays.pop("data")}, arrays)


# -- quantised -------------------------------------------------------------------------------


def steps_of(symbol: mx.sym.Symbol) -> float:
    """Return the size of one step of what the last quantised layer puts out."""
    node = [n for n in json.loads(symbol.tojson())["nodes"] if "sg_mkldnn" in n["op"]][-1]
    ends = [float(node["attrs"][f"{end}_calib_range"]) for end in ("min", "max")]
    return max(map(abs, ends)) / (127.5 if ends[0] < 0 else 255.5)


def moved(
    symbol: mx.sym.Symbol, params: Arrays, data: np.ndarray, sizes: tuple[int | None, ...]
) -> np.ndarray:
    """Return what the engine makes of a symbol that moves as a whole."""
    nd = {n: mx.nd.array(a, dtype=a.dtype) for n, a in params.items()}
    optimized, kept = optimize_whole(symbol, nd, shapes={"data": sizes})
    assert ops_of(optimized) == ["_mxtrt_engine"]
    assert not kept
    (found,) = run_engines(optimized, {"data": data})
    mxtrt.release(optimized)
    return found


@pytest.mark.parametrize("quantized_dtype", ["auto", "int8"])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_quantized_convolutions(kind: str, quantized_dtype: str) -> None:
    """Within one step of the result's calibrated range, and that in one number of ten.

    MXNet multiplies by the inverse of a step where the engine divides by the step: a weight in the
    middle of two steps goes either way.
    """
    shape = (2, 3, 8, 7)
    symbol, params, data = quantize(
        CONVOLUTIONS[kind](V("data")), shape, quantized_dtype=quantized_dtype
    )
    assert "_sg_mkldnn_conv" in ops_of(symbol)
    (expected,) = run_mxnet(symbol, {"data": data, **params})
    for sizes in (shape, (None, 3, None, None)):
        off = np.abs(moved(symbol, params, data, sizes) - expected) / steps_of(symbol)
        assert off.max() < 1.01
        assert np.mean(off > 0.01) < 0.1


def test_batch_normalization_that_turns_channels_round_or_drops_them() -> None:
    """Its factor is in the weight before oneDNN rounds that."""
    net = mx.sym.BatchNorm(conv(V("data")), fix_gamma=False, name="bn")
    gamma = np.array([-1.5, 0, 1e-3, 2, -0.25, 1], np.float32)
    symbol, params, data = quantize(act(net), (2, 3, 8, 7), {"bn_gamma": gamma})
    (expected,) = run_mxnet(symbol, {"data": data, **params})
    off = np.abs(moved(symbol, params, data, data.shape) - expected) / steps_of(symbol)
    assert off.max() < 1.01
    assert np.mean(off > 0.01) < 0.1


LAYERS = {"bn relu": 1, "relu6": 1, "plain": 1, "no bias": 1, "sum": 1, "leaky": 0}
"""How many of a net's convolutions can be done in 8 bits: nothing but a limit follows them."""


@pytest.mark.skipif(ENGINE != "onnxruntime", reason="about ONNX Runtime's layers")
@pytest.mark.parametrize("kind", LAYERS)
def test_onnx_runtime_computes_in_8_bits(kind: str, tmp_path: Path) -> None:
    symbol, params, data = quantize(CONVOLUTIONS[kind](V("data")), (2, 3, 8, 7))
    file, optimised = str(tmp_path / "net.onnx"), str(tmp_path / "optimised.onnx")
    arrays = {n: mx.nd.array(a, dtype=a.dtype) for n, a in params.items()}
    mxtrt.export_model(symbol, arrays, {"data": data.shape}, file)
    settings = ort.SessionOptions()
    settings.log_severity_level, settings.optimized_model_filepath = 3, optimised
    ort.InferenceSession(
        file, settings, providers=["CPUExecutionProvider"], disabled_optimizers=WRONG_OPTIMIZERS
    )
    made = [node.op_type for node in onnx.load(optimised).graph.node]
    assert made.count("QLinearConv") == LAYERS[kind]
    assert "BatchNormalization" not in made


def test_a_float_convolution_between_quantised_tensors() -> None:
    """ONNX Runtime would round its weight to 8 bits as well."""
    data = random_array((2, 3, 8, 7), "float32")
    ends = {"min_calib_range": -4.0, "max_calib_range": 4.0, "out_type": "int8"}

    def rounded(x: mx.sym.Symbol) -> mx.sym.Symbol:
        return mx.sym.contrib.dequantize(*mx.sym.contrib.quantize_v2(x, **ends))

    symbol = rounded(conv(rounded(V("data"))))
    arrays = arrays_of(symbol, data.shape)
    del arrays["data"]
    (expected,) = run_mxnet(symbol, {"data": data, **arrays})
    off = np.abs(moved(symbol, arrays, data, data.shape) - expected) / (4 / 127.5)
    assert off.max() < 1.01
    assert np.mean(off > 0.01) < 0.01


@pytest.mark.parametrize("granularity", ["tensor-wise", "channel-wise"])
@pytest.mark.parametrize("no_bias", [False, True])
@pytest.mark.parametrize("kind", DENSE)
def test_quantized_fully_connected(kind: str, no_bias: bool, granularity: str) -> None:
    """One layer that puts out float32: no step to be off by."""
    symbol, params, data = quantize(
        dense(kind, no_bias=no_bias), (4, 3, 4), quantize_granularity=granularity
    )
    assert "_sg_mkldnn_fully_connected" in ops_of(symbol)
    (expected,) = run_mxnet(symbol, {"data": data, **params})
    for sizes in ((4, 3, 4), (None, 3, 4)):
        found = moved(symbol, params, data, sizes)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def attention_net() -> mx.sym.Symbol:
    qkv = mx.sym.FullyConnected(V("data"), num_hidden=24, flatten=False, name="qkv")
    scores = mx.sym.contrib.interleaved_matmul_selfatt_qk(qkv, heads=2)
    weights = mx.sym.softmax(scores, axis=-1)
    attended = mx.sym.contrib.interleaved_matmul_selfatt_valatt
    sums = attended(qkv, weights, heads=2, name="sums")
    return mx.sym.FullyConnected(sums, num_hidden=5, flatten=False, name="out")


def scores_net() -> mx.sym.Symbol:
    """Scores that stay integers, because what reads them is quantised too."""
    qkv = mx.sym.FullyConnected(V("data"), num_hidden=24, flatten=False, name="qkv")
    scores = mx.sym.contrib.interleaved_matmul_selfatt_qk(qkv, heads=2)
    return mx.sym.FullyConnected(scores, num_hidden=5, flatten=False, name="out")


def sums_net() -> mx.sym.Symbol:
    """Sums that come out as floats, because nothing quantised reads them."""
    return attention_net().get_internals()["sums_output"]


def convolution_net() -> mx.sym.Symbol:
    x = mx.sym.Pooling(residual(V("data")), kernel=(2, 2), stride=(2, 2), pool_type="max")
    x = mx.sym.concat(x, conv(x, "three", kernel=(1, 1)), dim=1)
    x = mx.sym.flatten(mx.sym.Pooling(x, global_pool=True, kernel=(1, 1), pool_type="avg"))
    x = act(mx.sym.FullyConnected(x, num_hidden=7, name="four"))
    return mx.sym.FullyConnected(x, num_hidden=5, name="five")


def projection_net() -> mx.sym.Symbol:
    """A sum whose second term may be negative: MXNet adds it in int8 to what comes out as uint8."""
    x = act(conv(V("data"), "one", pad=(1, 1)))
    shortcut = mx.sym.BatchNorm(conv(x, "shortcut", kernel=(1, 1)), name="bn1")
    x = mx.sym.BatchNorm(conv(x, "two", pad=(1, 1)), name="bn2") + shortcut
    return mx.sym.flatten(conv(act(x), "three", kernel=(1, 1)))


NAIVE: dict[str, Any] = {}
INT8 = {"quantized_dtype": "int8"}
BY_CHANNEL = {"quantize_granularity": "channel-wise"}
ENTROPY = {"calib_mode": "entropy"}
UNCALIBRATED = {"calib_mode": "none", "calib_data": None, "num_calib_examples": None}

NETS = [
    *((convolution_net, (4, 3, 8, 8), o) for o in (NAIVE, INT8, BY_CHANNEL, ENTROPY, UNCALIBRATED)),
    (projection_net, (4, 3, 8, 8), NAIVE),
    # the others do not even infer their types in MXNet
    *((attention_net, (6, 2, 8), options) for options in (NAIVE, BY_CHANNEL)),
    *((build, (6, 2, 8), NAIVE) for build in (scores_net, sums_net)),
]


@pytest.mark.parametrize(("build", "shape", "options"), NETS)
def test_quantized_nets(build: Any, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    """Within five steps of the largest output, half of the numbers within half a step.

    A number that was rounded the other way, one step of an early layer, grows through the others.
    """
    symbol, params, data = quantize(build(), shape, **options)
    assert any("selfatt" in op or "conv" in op for op in ops_of(symbol))
    (expected,) = run_mxnet(symbol, {"data": data, **params})
    largest = np.abs(expected).max()
    for sizes in (shape, (None, *shape[1:])):
        off = np.abs(moved(symbol, params, data, sizes) - expected) / largest
        assert np.median(off) < 0.5 / 127
        assert off.max() < 5 / 127


def test_layers_without_fusion() -> None:
    """What quantisation makes of a net whose layers were not fused."""
    x = act(mx.sym.FullyConnected(V("data"), num_hidden=24, name="one"))
    x = mx.sym.elemwise_add(x, mx.sym.FullyConnected(x, num_hidden=24, name="two"))
    symbol = mx.sym.FullyConnected(mx.sym.flatten(x), num_hidden=5, name="three")
    arrays = arrays_of(symbol, (16, 12))
    data = arrays.pop("data")
    quantized, args, _ = quantize_model(
        symbol, {n: mx.nd.array(a) for n, a in arrays.items()}, {}, label_names=None,
        ctx=mx.cpu(), logger=logging.getLogger("quantize"), calib_mode="none",
        quantized_dtype="int8", quantize_mode="full",
    )  # fmt: skip
    ops = set(ops_of(quantized))
    assert {"_contrib_quantized_fully_connected", "_contrib_quantized_act"} < ops
    assert {"_contrib_requantize", "_contrib_quantized_elemwise_add"} < ops
    params = {n: a.asnumpy() for n, a in args.items()}
    (expected,) = run_mxnet(quantized, {"data": data, **params})
    off = np.abs(moved(quantized, params, data, (None, 12)) - expected) / np.abs(expected).max()
    assert np.median(off) < 0.5 / 127
    assert off.max() < 3 / 127


def test_float_attention() -> None:
    symbol = attention_net()
    arrays = arrays_of(symbol, (6, 2, 8))
    fused = symbol.get_backend_symbol("MKLDNN_QUANTIZE")
    assert {"_sg_mkldnn_selfatt_qk", "_sg_mkldnn_selfatt_valatt"} < set(ops_of(fused))
    check_operator(fused, {"data": arrays.pop("data")}, arrays)


def test_weights_at_run_time() -> None:
    """The steps of a weight are constants: they are taken from its numbers."""
    symbol, params, data = quantize(conv(V("data")), (2, 3, 8, 7))
    inputs = {"data": data, "conv_weight": params.pop("conv_weight")}
    check_refused(symbol, inputs, "needs the numbers of 'conv_weight' for its steps", params)


@pytest.mark.parametrize(
    "attrs",
    [
        {},
        {"bidirectional": True, "p": 0.5},
        {"lstm_state_clip_min": -0.1, "lstm_state_clip_max": 0.2},
        {"lstm_state_clip_nan": True},  # without ends to clip to
    ],
)
def test_quantized_rnn(attrs: dict[str, Any]) -> None:
    """Against the float LSTM over the same rounded data.

    MXNet 1.9.1 has no kernel for it on processors of today: "could not create a primitive
    descriptor for a reorder primitive"; with a projection it infers no shapes. Its float kernels
    ignore bounds: there the reference is what the float LSTM becomes.
    """
    three = mx.sym.contrib.quantize_asym(V("data"), min_calib_range=-3.0, max_calib_range=2.5)
    names = {n: V(n) for n in ("parameters", "state", "state_cell")}
    sizes = {"state_size": 4, "num_layers": 2, "mode": "lstm", "state_outputs": True, **attrs}
    symbol = mx.sym.contrib.quantized_rnn(
        data=three[0], **names, min_data=three[1], max_data=three[2], **sizes, name="rnn"
    )
    symbol = mx.sym.Group([output * 1 for output in symbol])  # only it can name its outputs
    float_symbol = mx.sym.Group([o * 1 for o in mx.sym.RNN(data=V("data"), **names, **sizes)])
    arrays = arrays_of(float_symbol, (5, 2, 3))
    scale = 255 / 5.5
    rounded = np.clip(np.round(arrays["data"] * scale + 255 - 2.5 * scale), 0, 255)
    rounded = ((rounded - (255 - 2.5 * scale)) / scale).astype("float32")
    if "lstm_state_clip_min" in attrs:
        expected = run_optimized(float_symbol, {**arrays, "data": rounded})
    else:
        expected = run_mxnet(float_symbol, {**arrays, "data": rounded})
    for want, have in zip(expected, run_optimized(symbol, arrays)):
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)


def run_optimized(symbol: mx.sym.Symbol, arrays: Arrays) -> list[np.ndarray]:
    inputs = {n: a for n, a in arrays.items() if n != "parameters"}
    optimized, _ = optimize_whole(
        symbol,
        {"parameters": mx.nd.array(arrays["parameters"])},
        shapes={n: a.shape for n, a in inputs.items()},
    )
    return run_engines(optimized, inputs)


def test_sequence_lengths_of_a_quantized_rnn() -> None:
    inputs = {n: V(n) for n in ("data", "parameters", "state", "state_cell")}
    ends = {"min_data": V("low"), "max_data": V("high")}
    sizes = {"state_size": 4, "num_layers": 1, "mode": "lstm", "use_sequence_length": True}
    symbol = mx.sym.contrib.quantized_rnn(**inputs, **ends, **sizes, name="rnn")
    shapes = {"data": (5, 2, 3), "state": (1, 2, 4), "state_cell": (1, 2, 4)}
    arrays = {n: np.zeros(s, "uint8" if n == "data" else "float32") for n, s in shapes.items()}
    arrays.update(low=np.zeros(1, "float32"), high=np.ones(1, "float32"))
    arrays["parameters"] = np.zeros(144, "float32")
    check_refused(symbol * 1, arrays, "MXNet quantises LSTMs without sequence lengths only")
