"""Quantised tensors for TensorRT: floats that hold whole numbers, and where int8 may stand."""

from __future__ import annotations

import importlib.util
import json
import logging
from typing import Any

import mxnet as mx
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from mxnet.contrib.quantization import quantize_model
from test_stored_plans import rtx_on_cpu  # noqa: F401  a fixture

import mxtrt
from mxtrt.engines import _network, _nvidia
from mxtrt.engines._quantised import between_floats, crossing, in_floats, is_quantised_only
from mxtrt.onnx_model import embed_weights

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
SENTENCE = "int8: to TensorRT-RTX it is quantised data only"
needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed"
)


def model(inputs: str, outputs: str, constants: str, body: str) -> onnx.ModelProto:
    text = f"{HEAD}g ({inputs}) => ({outputs}) <{constants}> {{\n{body}\n}}"
    made = onnx.parser.parse_model(text)
    for node in made.graph.node:
        node.name = node.output[0]
    onnx.checker.check_model(made)
    return made


def run(proto: onnx.ModelProto, **arrays: np.ndarray) -> list[np.ndarray]:
    # unoptimised: ONNX Runtime would make integers of pairs again
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options)
    return list(session.run(None, arrays))


THERE_AND_BACK = "q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)"
BY_CHANNEL = "q = QuantizeLinear <axis = {0}> (x, s, z) y = DequantizeLinear <axis = {0}> (q, s, z)"
CASES = {
    "int8": ("float[4, 6] x", "float[4, 6] y", "float s = {0.25}, int8 z = {0}", THERE_AND_BACK),
    "uint8": ("float[4, 6] x", "float[4, 6] y", "float s = {0.25}, uint8 z = {0}", THERE_AND_BACK),
    "no zero point": ("float[4, 6] x", "float[4, 6] y", "float s = {0.25}",
                      "q = QuantizeLinear (x, s) y = DequantizeLinear (q, s)"),
    "a shift": ("float[4, 6] x", "float[4, 6] y", "float s = {0.25}, uint8 z = {7}",
                THERE_AND_BACK),
    "first axis": ("float[4, 6] x", "float[4, 6] y",
                   "float[4] s = {0.25, 0.5, 0.125, 1}, int8[4] z = {0, 0, 0, 0}",
                   BY_CHANNEL.format(0)),
    "last axis": ("float[4, 2] x", "float[4, 2] y", "float[2] s = {0.25, 0.5}, int8[2] z = {0, 0}",
                  BY_CHANNEL.format(-1)),
    "steps of the run": ("float[4, 6] x, float s", "float[4, 6] y", "int8 z = {0}",
                         THERE_AND_BACK),
    "bytes out": ("float[4, 6] x", "uint8[4, 6] q, float[4, 6] y",
                  "float s = {0.25}, uint8 z = {0}", THERE_AND_BACK),
    "bytes in": ("uint8[4, 6] x", "float[4, 6] y", "float s = {0.25}, uint8 z = {3}",
                 "y = DequantizeLinear (x, s, z)"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_same_numbers(case: str) -> None:
    """Halves of steps, which are rounded to even, and what is beyond the range."""
    proto = model(*CASES[case])
    info = proto.graph.input[0].type.tensor_type
    shape = [dim.dim_value for dim in info.shape.dim]
    eighths = np.random.default_rng(0).integers(-700, 700, shape) / 8
    dtype = onnx.helper.tensor_dtype_to_np_dtype(info.elem_type)
    arrays = {"x": (eighths % 256 if dtype == np.uint8 else eighths).astype(dtype)}
    if len(proto.graph.input) > 1:
        arrays["s"] = np.array(0.25, "float32")
    made, weights, names = in_floats(proto, {})
    onnx.checker.check_model(made)
    assert weights == {}
    assert not {"QuantizeLinear", "DequantizeLinear"} & {n.op_type for n in made.graph.node}
    assert bool(names) == any(n.op_type == "QuantizeLinear" for n in proto.graph.node)
    eight_bits = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    assert not any(tensor.data_type in eight_bits for tensor in made.graph.initializer)
    for want, have in zip(run(proto, **arrays), run(made, **arrays)):
        assert want.dtype == have.dtype
        np.testing.assert_array_equal(have, want)


def test_weights_of_8_bits() -> None:
    proto = model("float[2, 3] x", "float[2, 3] y",
                  "int8[3] w = {-128, 5, 127}, float s = {0.5}, int8 z = {0}",
                  "d = DequantizeLinear (w, s, z) y = Mul (x, d)")  # fmt: skip
    x = np.ones((2, 3), "float32")
    (expected,) = run(proto, x=x)
    weight = next(t for t in proto.graph.initializer if t.name == "w")
    weights = {"w": onnx.numpy_helper.to_array(weight)}
    weight.ClearField("raw_data")
    weight.ClearField("int32_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights")
    made, given, _ = in_floats(proto, weights)
    assert {name: array.dtype for name, array in given.items()} == {"w/float32": np.float32}
    whole = embed_weights(made, {n: mx.nd.array(a) for n, a in given.items()})
    np.testing.assert_array_equal(run(whole, x=x)[0], expected)


def test_nothing_to_do() -> None:
    proto = model("float[2] x", "float[2] y", "float c = {1}", "y = Add (x, c)")
    assert in_floats(proto, {})[0] is proto


@pytest.mark.parametrize(
    ("inputs", "outputs", "body", "expected"),
    [
        ("float[4] x", "float[4] y", THERE_AND_BACK, True),
        ("float[4] x", "int8[4] q", "q = QuantizeLinear (x, s, z)", True),
        ("int8[4] x", "float[4] y", "y = DequantizeLinear (x, s, z)", True),
        ("int8[4] x", "int8[4] y", "y = Abs (x)", False),
        ("float[4] x", "int8[4] y", "y = Cast <to = 3> (x)", False),
        ("float[4] x", "float[4] y",
         "q = QuantizeLinear (x, s, z) y = Cast <to = 1> (q)", False),
        ("float[4] x", "int8[4] y",
         "q = QuantizeLinear (x, s, z) y = Identity (q)", False),
    ],
)  # fmt: skip
def test_where_int8_may_stand(inputs: str, outputs: str, body: str, expected: bool) -> None:
    proto = model(inputs, outputs, "float s = {0.25}, int8 z = {0}", body)
    assert is_quantised_only(proto) == expected
    names = [*crossing(proto)]
    assert names == ([] if "int8" not in inputs + outputs else [proto.graph.node[-1].name])
    if expected:
        ends = (*between_floats(proto).graph.input, *between_floats(proto).graph.output)
        assert {info.type.tensor_type.elem_type for info in ends} == {onnx.TensorProto.FLOAT}


@needs_rtx
def test_what_the_parser_is_asked() -> None:
    rtx = _nvidia.api("tensorrt_rtx")
    alone = model("float[4] x", "int8[4] q", "float s = {0.25}, int8 z = {0}",
                  "q = QuantizeLinear (x, s, z)")  # fmt: skip
    assert _network.refusal(rtx, alone) is None
    assert _network.refused_nodes(rtx, alone, None, "fp32") == {"q": SENTENCE}
    with_int8 = model("int8[4] x", "int8[4] y", "float s = {0.25}", "y = Abs (x)")
    assert _network.refusal(rtx, with_int8) == SENTENCE


# -- whole nets ------------------------------------------------------------------------------


def net(x: mx.sym.Symbol) -> mx.sym.Symbol:
    x = mx.sym.Convolution(x, num_filter=4, kernel=(3, 3), name="conv")
    x = mx.sym.flatten(mx.sym.Activation(x, act_type="relu"))
    return mx.sym.FullyConnected(x, num_hidden=5, name="fc")


def quantised(quantized_dtype: str) -> tuple[mx.sym.Symbol, dict[str, Any]]:
    symbol = net(mx.sym.var("data"))
    shapes, _, _ = symbol.infer_shape(data=(2, 3, 6, 6))
    rng = np.random.default_rng(0)
    arrays = [mx.nd.array(rng.standard_normal(shape)) for shape in shapes]
    args = dict(zip(symbol.list_arguments(), arrays))
    data = args.pop("data")
    made, args, aux = quantize_model(
        symbol.get_backend_symbol("MKLDNN_QUANTIZE"), args, {}, label_names=None, ctx=mx.cpu(),
        calib_mode="naive", calib_data=mx.io.NDArrayIter(data, batch_size=2), num_calib_examples=2,
        quantized_dtype=quantized_dtype, quantize_mode="smart", logger=logging.getLogger("q"),
    )  # fmt: skip
    return made.get_backend_symbol("MKLDNN_QUANTIZE"), {**args, **aux}


def ops_of(symbol: mx.sym.Symbol) -> list[str]:
    return [node["op"] for node in json.loads(symbol.tojson())["nodes"] if node["op"] != "null"]


@needs_rtx
@pytest.mark.parametrize("quantized_dtype", ["auto", "int8"])
def test_a_quantised_net_moves(quantized_dtype: str, rtx_on_cpu: list[str]) -> None:  # noqa: F811
    symbol, params = quantised(quantized_dtype)
    assert "_contrib_quantize_v2" in ops_of(symbol)
    options = {"shapes": {"data": (2, 3, 6, 6)}, "engine": "tensorrt_rtx", "min_subgraph_size": 1}
    optimized, _ = mxtrt.optimize(symbol, params, strict=True, **options)
    assert ops_of(optimized) == ["_mxtrt_engine"]
    assert not mxtrt.report(optimized).left
    assert len(rtx_on_cpu) == 1


@needs_rtx
def test_int8_that_leaves_the_part(rtx_on_cpu: list[str]) -> None:  # noqa: F811
    symbol, params = quantised("int8")
    quantize = symbol.get_internals()["data_quantize_output0"]
    both = mx.sym.Group([symbol, mx.sym.identity(quantize, name="copy")])
    options = {"shapes": {"data": (2, 3, 6, 6)}, "engine": "tensorrt_rtx", "min_subgraph_size": 1}
    left = {n.name: reason for n, reason in mxtrt.explain(both, params, **options).left.items()}
    assert left["data_quantize"] == left["copy"] == SENTENCE
