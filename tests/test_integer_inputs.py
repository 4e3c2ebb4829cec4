"""Inputs that a plan of lower precision reads as int32: MXNet's word numbers."""

from __future__ import annotations

from types import SimpleNamespace

import mxnet as mx
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import mxtrt
from mxtrt.arrays import numpy_view
from mxtrt.engines import _network
from mxtrt.engines._integer_inputs import with_integer_inputs
from mxtrt.operator import operators


def run(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, feeds)
    return found


def changed(found: onnx.ModelProto, before: onnx.ModelProto) -> set[str]:
    pairs = zip(found.graph.input, before.graph.input)
    return {i.name for i, j in pairs if i.SerializeToString() != j.SerializeToString()}


def test_inputs_that_are_only_cast_to_integers() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 3] words, float[2, 3] both, float[2] bytes, float16[2] half, int64[2, 3] whole,
           float[2] unread) => (float[2, 3] y) {
            a = Cast <to = 7> (words)  b = Cast <to = 6> (words)  c = Cast <to = 7> (both)
            d = Cast <to = 2> (bytes)  e = Cast <to = 6> (half)  f = Cast <to = 7> (whole)
            g1 = Tanh (both)  h = Cast <to = 1> (a)  i = Cast <to = 1> (b)  j = Cast <to = 1> (c)
            k = Cast <to = 1> (f)  y = Sum (g1, h, i, j, k)
        }"""
    )
    found = with_integer_inputs(model)
    assert changed(found, model) == {"words"}
    rng = np.random.default_rng(0)
    words = rng.integers(-(2**24), 2**24, (2, 3)).astype("int32")
    given = {
        "both": rng.standard_normal((2, 3)).astype("float32"), "bytes": np.ones(2, np.float32),
        "half": np.ones(2, np.float16), "whole": np.ones((2, 3), np.int64),
        "unread": np.ones(2, np.float32),
    }  # fmt: skip
    want = run(model, {**given, "words": words.astype("float32")})
    np.testing.assert_array_equal(run(found, {**given, "words": words}), want)


def test_masks_of_word_numbers() -> None:
    """Comparisons with whole constants become those of integers; others see the number."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 3] words, float[2, 1] lengths, float[2, 3] w) => (
            int64[2, 3] rows, bool[2, 3] a, bool[2, 3] b, bool[2, 3] c, bool[2, 3] d, bool[2, 3] e
        ) <float pad = {30001}, float part = {2.5}> {
            rows = Cast <to = 7> (words)
            a = Equal (words, pad)  b = Less (pad, words)  c = Greater (words, part)
            d = LessOrEqual (words, lengths)  e = Equal (words, words)
        }"""
    )
    found = with_integer_inputs(model)
    assert changed(found, model) == {"words"}
    onnx.checker.check_model(found, full_check=True)
    types = onnx.shape_inference.infer_shapes(found)
    constants = {t.name: t.data_type for t in found.graph.initializer}
    assert constants["pad/int32"] == TensorProto.INT32
    reads = {node.output[0]: list(node.input) for node in types.graph.node}
    assert reads["a"] == ["words", "pad/int32"]
    assert reads["b"] == ["pad/int32", "words"]
    assert reads["c"] == ["words/float32", "part"]
    assert reads["d"] == ["words/float32", "lengths"]
    words = np.array([[30000, 30001, 30002], [0, 2, 3]], np.int32)
    given = {"lengths": np.array([[30001], [2]], np.float32), "w": np.zeros((2, 3), np.float32)}
    want = run(model, {**given, "words": words.astype("float32")})
    for one, other in zip(run(found, {**given, "words": words}), want):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "body",
    [
        "y = Greater (x, x)",  # no rows are found by it
        "y = Cast <to = 9> (x)",  # a truth: 0.5 is one
        "i = Cast <to = 7> (x)  f = Cast <to = 1> (i)  y = Less (f, x)  z = Sub (x, f)",
        "y = Cast <to = 7> (x)  z = Identity (x)",
    ],
)
def test_inputs_that_stay_floats(body: str) -> None:
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 3] x) => (float[2, 3] y) {{ {body} }}"""
    )
    assert with_integer_inputs(model) is model


def test_inputs_that_are_outputs() -> None:
    nodes = [helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64)]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    model = helper.make_model(helper.make_graph(nodes, "g", [value], [value]))
    assert with_integer_inputs(model) is model


@pytest.mark.parametrize(
    ("typed", "precision", "weights", "kind"),
    [
        (False, "fp16", "float32", TensorProto.INT32),
        (False, "bf16", "float32", TensorProto.INT32),
        (False, "fp32", "float32", TensorProto.FLOAT),
        (False, "fp32", "float16", TensorProto.INT32),  # the flag for float16 is needed, too
        (True, "fp16", "float32", TensorProto.FLOAT),  # there a cast says what it reads
    ],
)
def test_word_numbers_of_an_embedding(typed: bool, precision: str, weights: str, kind: int) -> None:
    net = mx.sym.Embedding(mx.sym.var("words"), input_dim=9, output_dim=4, dtype=weights, name="e")
    args = {"e_weight": mx.nd.array(np.arange(36).reshape(9, 4), dtype=weights)}
    dtypes = {"words": "float32"}
    symbol, _ = mxtrt.optimize(net, (args, {}), dtypes=dtypes, shapes={"words": (2, 3)},
                               min_subgraph_size=1, engine="onnxruntime")  # fmt: skip
    [operator] = operators(symbol)
    proto = onnx.load_model_from_string(operator.onnx.model)
    held = {name: numpy_view(array) for name, array in operator.onnx.weights().items()}
    api = SimpleNamespace(strongly_typed=typed, has_int64=typed)
    parser = SimpleNamespace(supports_operator=lambda op_type: True)
    model, *_ = _network.for_parser(api, parser, proto, held, precision)
    assert [i.type.tensor_type.elem_type for i in model.graph.input] == [kind]


def test_inputs_that_loops_read() -> None:
    body = helper.make_graph(
        [helper.make_node("Tanh", ["x"], ["t"], name="inside")], "body",
        [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
    )  # fmt: skip
    nodes = [helper.make_node("Scan", ["s"], ["y"], num_scan_inputs=1, body=body),
             helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64)]  # fmt: skip
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xs"]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, []))
    assert with_integer_inputs(model) is model
