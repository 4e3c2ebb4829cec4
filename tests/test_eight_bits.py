"""int8 as uint8 around 128 for ONNX Runtime: the same numbers, wherever nobody sees the type."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import parser

from mxtrt.engines._eight_bits import MIDDLE, with_unsigned_data

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
CASES = {
    "a pair": ("float[N] z", "q = QuantizeLinear(x, s, o) z = DequantizeLinear(q, s, o)", 2),
    "two readers": (
        "float[N] z",
        "q = QuantizeLinear(x, s, o) a = DequantizeLinear(q, s, o) b = DequantizeLinear(q, s, o)"
        " z = Add(a, b)",
        3,
    ),
    "other steps": ("float[N] z", "q = QuantizeLinear(x, s, o) z = DequantizeLinear(q, t, o)", 2),
    "an output": ("int8[N] q", "q = QuantizeLinear(x, s, o)", 0),
    "an output, and read": (
        "int8[N] q, float[N] z",
        "q = QuantizeLinear(x, s, o) z = DequantizeLinear(q, s, o)",
        0,
    ),
    "integers for somebody": ("int32[N] z", "q = QuantizeLinear(x, s, o) z = Cast<to=6>(q)", 0),
    "uint8": ("float[N] z", "q = QuantizeLinear(x, s, u) z = DequantizeLinear(q, s, u)", 0),
    "another zero": ("float[N] z", "q = QuantizeLinear(x, s, m) z = DequantizeLinear(q, s, m)", 0),
    "steps of channels": (
        "float[N] z",
        "q = QuantizeLinear<axis=0>(x, r, p) z = DequantizeLinear<axis=0>(q, r, p)",
        0,
    ),
    "nobody reads it": ("float[N] z", "q = QuantizeLinear(x, s, o) z = Identity(x)", 1),
    "a body reads it": (
        "float[N] z",
        "q = QuantizeLinear(x, s, o) z = If (c) <"
        "then_branch = yes () => (float[N] a) { a = DequantizeLinear(q, s, o) },"
        "else_branch = no () => (float[N] b) { b = Identity(x) }>",
        0,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_numbers(case: str) -> None:
    outputs, body, changed = CASES[case]
    outputs = outputs.replace("float[N] z", "float[N] z").replace("int8[N] q", "int8[N] q")
    outputs = outputs.replace("int32[N] z", "int32[N] z").replace("[N][N]", "[N]")
    model = parser.parse_model(
        f"{HEAD} g (float[N] x) => ({outputs}) <float s = {{0.5}}, float t = {{0.25}},"
        " int8 o = {0}, uint8 u = {0}, int8 m = {3}, bool c = {1},"
        " float[6] r = {1, 2, 3, 4, 5, 6}, int8[6] p = {0, 0, 0, 0, 0, 0}>"
        f" {{ {body} }}"
    )
    onnx.checker.check_model(model)
    before = model.SerializeToString()
    unsigned = with_unsigned_data(model)
    assert model.SerializeToString() == before
    assert (unsigned is model) == (changed == 0)
    if changed:
        assert {t.name for t in unsigned.graph.initializer} == {
            t.name for t in model.graph.initializer if t.name != "o"
        } | {MIDDLE}, "ONNX Runtime warns of what nobody reads"
    assert sum(MIDDLE in node.input for node in unsigned.graph.node) == changed
    x = np.array([-1e9, -64.25, -0.25, 0.25, 63.9, 1e9], np.float32)
    one, two = (
        ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"x": x}
        )
        for m in (model, unsigned)
    )
    for a, b in zip(one, two):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
