"""What TensorRT 8 must not see, because its builder ends the process."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import onnx
import pytest
from operators import operator
from rtx import parts_as_onnx

from mxtrt.engines._fatal import ONES, SEARCH, ZEROS, fatal_nodes

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'


def model(body: str, inputs: str = "bool[2, 3] x", weights: str = "") -> onnx.ModelProto:
    made = onnx.parser.parse_model(f"{HEAD}g ({inputs}) => (bool[2, 3] y) {weights} {{\n{body}\n}}")
    for node in made.graph.node:
        node.name = node.output[0]
    return made


@pytest.mark.parametrize(
    ("body", "weights", "is_fatal"),
    [
        ("y = And (x, c)", "<bool c = {0}>", True),
        ("y = And (c, x)", "<bool[3] c = {0, 0, 0}>", True),
        ("y = And (x, c)", "<bool[3] c = {0, 1, 0}>", False),
        ("y = And (x, c)", "<bool c = {1}>", False),
        ("y = Or (x, c)", "<bool c = {0}>", False),
        ("c = Cast <to = 9> (w) y = And (x, c)", "<float w = {0}>", True),
        ("c = Cast <to = 9> (w) y = And (x, c)", "<float w = {0.5}>", False),
        ("c = Less (w, v) d = Expand (c, s) y = And (x, d)",
         "<float w = {1}, float v = {1}, int64[2] s = {2, 3}>", True),
        ("c = Cast <to = 1> (x) d = Less (c, w) y = And (x, d)", "<float w = {1}>", False),
    ],
)  # fmt: skip
def test_and(body: str, weights: str, is_fatal: bool) -> None:
    assert fatal_nodes(model(body, weights=weights), {}) == ({"y": ZEROS} if is_fatal else {})


@pytest.mark.parametrize(
    ("body", "weights", "is_fatal"),
    [
        ("y = Or (x, c)", "<bool c = {1}>", True),
        ("y = Or (c, x)", "<bool[3] c = {1, 1, 1}>", True),
        ("y = Or (x, c)", "<bool[3] c = {0, 1, 0}>", False),
        ("y = Or (x, c)", "<bool c = {0}>", False),
        ("c = Cast <to = 9> (w) d = Not (c) y = Or (x, d)", "<float w = {0}>", True),
        ("y = Xor (x, c)", "<bool c = {1}>", False),
    ],
)
def test_or(body: str, weights: str, is_fatal: bool) -> None:
    assert fatal_nodes(model(body, weights=weights), {}) == ({"y": ONES} if is_fatal else {})


@pytest.mark.parametrize("number", [0, 1])
def test_and_with_a_weight(number: int) -> None:
    proto = model("c = Cast <to = 9> (w) y = And (x, c)", "bool[2, 3] x")
    tensor = onnx.numpy_helper.from_array(np.zeros(3, "float32"), "w")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    proto.graph.initializer.append(tensor)
    assert fatal_nodes(proto, {}) == {}  # nobody looks at weights before the build
    weights = {"w": np.full(3, number, "float32")}
    assert fatal_nodes(proto, weights) == ({} if number else {"y": ZEROS})


def test_and_in_a_branch() -> None:
    proto = model(
        "y = If (x) <then_branch = t () => (bool[2, 3] a) { a = And (m, c) },\n"
        "else_branch = e () => (bool[2, 3] b) { b = Or (m, c) }>",
        "bool x, bool[2, 3] m",
        "<bool c = {0}>",
    )
    for attribute in proto.graph.node[0].attribute:
        attribute.g.node[0].name = attribute.g.node[0].output[0]
    assert fatal_nodes(proto, {}) == {"a": ZEROS}


@pytest.mark.parametrize(
    ("op", "dtype"),
    [
        ("_npi_copysign_scalar", "float32"),
        ("_npi_rcopysign_scalar", "float32"),
        ("_npi_bitwise_and_scalar", "bool"),
        ("_npi_bitwise_or_scalar", "bool"),
        ("_npi_bitwise_xor_scalar", "bool"),
        ("_logical_and_scalar", "float32"),
        ("_logical_or_scalar", "float32"),
    ],
)
@pytest.mark.parametrize("scalar", [-2.0, 0.0, 1.0])
def test_operators_beside_a_number(op: str, dtype: str, scalar: float) -> None:
    options = {"dtypes": {"x0": dtype}, "min_subgraph_size": 1}
    (part,) = parts_as_onnx(operator(op, 1, scalar=scalar), None, {"x0": (2, 3)}, **options)
    assert fatal_nodes(part, {}) == {}


def test_loops() -> None:
    data = mx.sym.var("data")
    matching = mx.sym.contrib.bipartite_matching(data, threshold=0.5, name="match")
    (part,) = parts_as_onnx(matching, None, {"data": (4, 5)}, min_subgraph_size=1)
    assert fatal_nodes(part, {}) == {"match/Loop": SEARCH}
    nms = mx.sym.contrib.box_nms(data, topk=5)
    (part,) = parts_as_onnx(nms, None, {"data": (2, 9, 6)}, min_subgraph_size=1)
    assert "Loop" in {node.op_type for node in part.graph.node}
    assert fatal_nodes(part, {}) == {}
    search = mx.sym.argmax(data, axis=1)  # outside of a loop
    (part,) = parts_as_onnx(search, None, {"data": (4, 5)}, min_subgraph_size=1)
    assert fatal_nodes(part, {}) == {}
