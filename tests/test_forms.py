"""Operators written for NVIDIA's parser, against ONNX Runtime on the models as they were."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from mxtrt.engines._float32_nodes import float32_nodes
from mxtrt.engines._forms import misread_nodes, with_right_forms
from mxtrt.engines._precision import strongly_typed
from mxtrt.onnx_model import graphs

EXTREMES = [-(2**31), 2**31 - 1, 2**24 + 1, -(2**24) - 1, 715827882, -7, -1, 0, 1, 7]
DIVISORS = [2, 3, -3, 1, 2**31 - 1, -(2**31), 2**30 + 1, -(2**30) - 1, 2**24 + 3, 10]


def model(text: str) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {text}')


def run(proto: onnx.ModelProto, **feed: np.ndarray) -> np.ndarray:
    content = proto.SerializeToString()
    return ort.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, feed)[0]


def written(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model written anew, after making sure that names occur once and are told."""
    found, weights, names = with_right_forms(proto, {})
    assert not weights
    nodes = [node for graph in graphs(found.graph) for node in graph.node]
    named = [node.name for node in nodes if node.name]
    assert len(named) == len(set(named))
    assert names == set(named)
    return found


def kinds(proto: onnx.ModelProto) -> set[str]:
    return {node.op_type for graph in graphs(proto.graph) for node in graph.node}


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("fmod", [0, 1])
def test_remainders(dtype: str, fmod: int) -> None:
    proto = model(
        f"({dtype}[N,1] x, {dtype}[M] y) => ({dtype}[N,M] z) {{ z = Mod <fmod = {fmod}> (x, y) }}"
    )
    x, y = np.array(EXTREMES, dtype)[:, None], np.array(DIVISORS, dtype)
    found = written(proto)
    assert kinds(found) <= {"Div", "Mul", "Sub", "Min", "Max"}
    np.testing.assert_array_equal(run(found, x=x, y=y), (np.fmod if fmod else np.mod)(x, y))


def test_two_remainders_in_a_body() -> None:
    proto = model(
        """
        (int64 n, int64[N] x) => (int64[N] z) {
            yes = Constant <value = bool {1}> ()
            z = Loop (n, yes, x) <body = b (int64 i, bool c, int64[N] s) => (bool d, int64[N] t) {
                d = Identity (c)
                k = Constant <value_int = 7> ()
                more = Mod (s, k)
                m = Constant <value_int = -3> ()
                t = Mod (more, m)
            }>
        }
        """
    )
    x = np.arange(-20, 20)
    found = written(proto)
    assert "Mod" not in kinds(found)
    np.testing.assert_array_equal(run(found, n=np.array(2), x=x), x % 7 % -3 % 7 % -3)


def test_remainders_of_floats_are_left_alone() -> None:
    proto = model("(float[N] x, float[N] y) => (float[N] z) { z = Mod <fmod = 1> (x, y) }")
    assert kinds(written(proto)) == {"Mod"}


@pytest.mark.parametrize(
    ("attributes", "sizes", "axes"),
    [
        ("axes = [1], keepdims = 0", "2,4", 1),
        ("axes = [-2], keepdims = 1", "2,1,4", 1),
        ("keepdims = 0", "", None),
        ("keepdims = 1", "1,1,1", None),
    ],
)
def test_log_of_sums(attributes: str, sizes: str, axes: int | None) -> None:
    shape = f"float[{sizes}]" if sizes else "float"
    proto = model(f"(float[2,3,4] x) => ({shape} z) {{ z = ReduceLogSumExp <{attributes}> (x) }}")
    found = written(proto)
    assert "ReduceLogSumExp" not in kinds(found)
    for offset in (-400, 0, 400):
        x = np.random.default_rng(1).normal(offset, 30, (2, 3, 4)).astype("float32")
        expected = np.logaddexp.reduce(x, axes, keepdims="= 1" in attributes)
        np.testing.assert_allclose(run(found, x=x), expected, rtol=1e-6)


@pytest.mark.parametrize("number", [np.inf, -np.inf])
def test_log_of_sums_of_infinities(number: float) -> None:
    proto = model(
        "(float[N,M] x) => (float[N] z) { z = ReduceLogSumExp <axes=[1], keepdims=0> (x) }"
    )
    x = np.array([[number, number], [0, number]], "float32")
    expected = [number, max(number, 0)]
    np.testing.assert_array_equal(run(written(proto), x=x), np.array(expected, "float32"))


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_log_of_chances(axis: int) -> None:
    proto = model(f"(float[N,M] x) => (float[N,M] z) {{ z = LogSoftmax <axis = {axis}> (x) }}")
    x = np.random.default_rng(2).normal(0, 300, (4, 5)).astype("float32")
    found = written(proto)
    assert "LogSoftmax" not in kinds(found)
    np.testing.assert_allclose(run(found, x=x), run(proto, x=x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("axis", [0, -1])
def test_sums_that_start_with_infinity(axis: int) -> None:
    proto = model(
        f"(float[N,M] x) => (float[N,M] z) <int64 a = {{{axis}}}> {{ z = CumSum (x, a) }}"
    )
    x = np.random.default_rng(4).standard_normal((3, 4)).astype("float32")
    x[0, 0] = np.inf
    found = written(proto)
    assert "Concat" in kinds(found)
    np.testing.assert_allclose(run(found, x=x), run(proto, x=x), rtol=1e-6)


@pytest.mark.parametrize("options", ["exclusive = 1", "reverse = 1"])
def test_other_sums_are_left_alone(options: str) -> None:
    proto = model(
        f"(float[N] x) => (float[N] z) <int64 a = {{0}}> {{ z = CumSum <{options}> (x, a) }}"
    )
    assert kinds(written(proto)) == {"CumSum"}


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("diagonal", ["", ", k"])
def test_triangles_without_the_other_one(upper: int, diagonal: str) -> None:
    proto = model(
        f"(float[N,M] x) => (float[N,M] z) <int64 k = {{-1}}> "
        f"{{ z = Trilu <upper = {upper}> (x{diagonal}) }}"
    )
    x = np.full((3, 4), np.inf, "float32")
    x[1] = np.nan, 2, -np.inf, 3
    found = written(proto)
    assert "Where" in kinds(found)
    np.testing.assert_array_equal(run(found, x=x), run(proto, x=x))


SPECIAL = np.array([0, -0.0, 1, -1, 3e38, -3e38, 1e-45, np.inf, -np.inf, np.nan])


@pytest.mark.parametrize("infinity", ["inf", "-inf"])
@pytest.mark.parametrize("options", ["x, i", "i, x", "i, i"])
def test_choices_of_infinity(options: str, infinity: str) -> None:
    proto = model(
        f"(bool[N,1] c, float[M] x) => (float[N,M] z) <float i = {{{infinity}}}> "
        f"{{ z = Where (c, {options}) }}"
    )
    given = {"c": np.array([[True], [False]])}
    if "x" in options:
        given["x"] = SPECIAL.astype("float32")
    else:
        del proto.graph.input[1]
    found = written(proto)
    assert not constants(found) & {np.inf, -np.inf}
    np.testing.assert_array_equal(run(found, **given), run(proto, **given))
    assert with_right_forms(proto, {}, has_infinity=True)[0] is proto


@pytest.mark.parametrize("infinity", ["inf", "-inf"])
@pytest.mark.parametrize("inputs", ["x, i", "i, x"])
@pytest.mark.parametrize("op", ["Equal", "Less"])
def test_comparisons_with_infinity(op: str, inputs: str, infinity: str) -> None:
    proto = model(
        f"(float[N] x) => (bool[N] z) <float[1] i = {{{infinity}}}> {{ z = {op} ({inputs}) }}"
    )
    found, x = written(proto), SPECIAL.astype("float32")
    if op == "Equal" or (inputs, infinity) == ("x, i", "inf"):
        assert not constants(found) & {np.inf, -np.inf}
    np.testing.assert_array_equal(run(found, x=x), run(proto, x=x))


def constants(proto: onnx.ModelProto) -> set[float]:
    tensors = (numpy_helper.to_array(tensor) for tensor in proto.graph.initializer)
    used = {name for node in proto.graph.node for name in node.input}
    return {x for t, a in zip(proto.graph.initializer, tensors) if t.name in used for x in a.flat}


@pytest.mark.parametrize(
    ("options", "kept"), [("start = 1", {"Shape", "Slice"}), ("end = -1", {"Shape", "Slice"}),
                          ("start = -2, end = 2", {"Shape", "Slice"}), ("start = 0", {"Shape"})]
)  # fmt: skip
def test_some_sizes(options: str, kept: set[str]) -> None:
    proto = model(f"(float[A,B,C] x) => (int64[N] z) {{ z = Shape <{options}> (x) }}")
    x = np.zeros((2, 3, 4), "float32")
    found = written(proto)
    assert kinds(found) == kept
    np.testing.assert_array_equal(run(found, x=x), run(proto, x=x))


def test_defaults_are_spelt_out() -> None:
    proto = model("(float[N] x) => (float[N] z) { y = Selu <alpha = 2.0> (x) z = Selu (y) }")
    found, _, names = with_right_forms(proto, {})
    assert not names  # nothing is lost in float16
    given = [{a.name: a.f for a in node.attribute} for node in found.graph.node]
    assert given[0]["alpha"] == 2
    assert given[1] == pytest.approx({"alpha": 1.67326319, "gamma": 1.05070102}, rel=1e-7)
    x = np.linspace(-3, 3, 9, dtype="float32")
    np.testing.assert_array_equal(run(found, x=x), run(proto, x=x))


def test_chances_stay_in_float32() -> None:
    proto = model("(float[N,M] x) => (float[N,M] z) { y = Relu (x) z = LogSoftmax (y) }")
    found, weights, names = with_right_forms(proto, {})
    lowered, _ = strongly_typed(found, weights, "fp16", float32_nodes(found, names))
    low = [node.op_type for node in lowered.graph.node if node.input[0].endswith("/fp16")]
    assert low == ["Relu", "Cast"]


def test_instance_normalization_of_halves() -> None:
    rng = np.random.default_rng(3)
    halves = {name: rng.normal(1, 1, 4).astype("float16") for name in ("scale", "bias")}
    tensors = [numpy_helper.from_array(a, name) for name, a in halves.items()]
    half = TensorProto.FLOAT16
    ends = [helper.make_tensor_value_info(name, half, [2, 4, 9]) for name in ("x", "y")]
    node = helper.make_node("InstanceNormalization", ["x", *halves], ["y"], name="n", epsilon=1e-3)
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = rng.normal(3, 2, (2, 4, 9)).astype("float16")
    expected = run(proto, x=x)
    np.testing.assert_allclose(run(written(proto), x=x), expected, rtol=1e-3, atol=1e-3)

    for tensor in proto.graph.initializer:
        tensor.data_location = TensorProto.EXTERNAL
    found, weights, _ = with_right_forms(proto, halves)
    wide = {name: array for name, array in weights.items() if array.dtype == np.float32}
    assert {name: a.tolist() for name, a in wide.items()} == {
        f"{name}/float32": a.tolist() for name, a in halves.items()
    }
    stored = {t.name: t.data_type for t in found.graph.initializer}
    assert all(stored[name] == TensorProto.FLOAT for name in wide)


def test_instance_normalization_in_float32_is_left_alone() -> None:
    proto = model(
        "(float[N,2,M] x, float[2] s, float[2] b) => (float[N,2,M] z) "
        "{ z = InstanceNormalization (x, s, b) }"
    )
    assert kinds(written(proto)) == {"InstanceNormalization"}


def test_other_models_come_back_as_they_are() -> None:
    proto = model("(float[N] x) => (float[N] z) { z = Relu (x) }")
    found, weights, names = with_right_forms(proto, {})
    assert found is proto
    assert not weights
    assert not names


@pytest.mark.parametrize("op", ["ScatterElements", "ScatterND"])
def test_scattered_sums_are_refused(op: str) -> None:
    def refused(options: str) -> dict[str, str]:
        proto = model(
            "(float[4] x, int64[2,1] i, float[2] u) => (float[4] z) "
            f"{{ z = {op} {options} (x, i, u) }}"
        )
        proto.graph.node[0].name = "scatter"
        return misread_nodes(proto)

    assert refused('<reduction = "add">') == {"scatter": f"its {op} puts where this one is to add"}
    assert not refused('<reduction = "none">')
    assert not refused("")


@pytest.mark.parametrize(("dtype", "is_refused"), [("int32", True), ("float", False)])
def test_searches_among_integers_are_refused(dtype: str, is_refused: bool) -> None:
    proto = model(f"({dtype}[N] x) => (int64[1] z) {{ y = Neg (x) z = ArgMax (y) }}")
    proto.graph.node[1].name = "search"
    reasons = {"search": "its ArgMax compares integers in float32"}
    assert misread_nodes(proto) == (reasons if is_refused else {})


REDUCED = [
    ("largest of integers", "int32[N,4] x", "int32[N] z",
     "z = ReduceMax <axes = [1], keepdims = 0> (x)", True),
    ("largest of floats", "float[N,4] x", "float[N] z",
     "z = ReduceMax <axes = [1], keepdims = 0> (x)", False),
    ("sum of products", "int64[N,4] x", "int64[N] z",
     "y = Mul (x, x) z = ReduceSum <keepdims = 0> (y, a)", True),
    ("number of elements", "float[N,4] x", "int64 z",
     "s = Shape (x) z = ReduceProd <keepdims = 0> (s)", False),
    ("some sizes", "float[N,4] x", "int64 z",
     "s = Shape (x) g = Gather (s, a) m = Mul (g, k) z = ReduceMin <keepdims = 0> (m)", False),
    ("sizes and data", "float[N,4] x, int64[2] d", "int64 z",
     "s = Shape (x) m = Mul (s, d) z = ReduceMin <keepdims = 0> (m)", True),
    ("count of truths", "float[N,4] x, float[4] l", "int32[N] z",
     "b = Less (x, l) n = Cast <to = 6> (b) z = ReduceSum <keepdims = 0> (n, a)", False),
    ("numbers for truths", "float[N,4] x, float[4] l, int32[4] p", "int32[N] z",
     "b = Less (x, l) n = Cast<to = 6> (b) m = Mul (n, p) z = ReduceSum <keepdims=0> (m, a)", True),
]  # fmt: skip


@pytest.mark.parametrize(("name", "inputs", "output", "body", "is_refused"), REDUCED)
def test_large_integers_are_not_added_in_float32(
    name: str, inputs: str, output: str, body: str, is_refused: bool
) -> None:
    constants = "<int64[1] a = {1}, int64 k = {3}>"
    proto = model(f"({inputs}) => ({output}) {constants} {{ {body} }}")
    reduction = proto.graph.node[-1]
    reduction.name = name
    reasons = {name: f"its {reduction.op_type} computes integers in float32"}
    assert misread_nodes(proto) == (reasons if is_refused else {})


def test_weights_may_be_as_large_as_they_like() -> None:
    proto = model("(float[N] x) => (int32 z) { z = ReduceSum <keepdims = 0> (w) }")
    proto.graph.initializer.add(
        name="w", dims=[4], data_type=TensorProto.INT32, data_location=TensorProto.EXTERNAL
    )
    proto.graph.node[0].name = "sum"
    assert misread_nodes(proto) == {"sum": "its ReduceSum computes integers in float32"}
