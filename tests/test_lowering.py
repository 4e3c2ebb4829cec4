"""Models in float16 beside the same models in float32, both in ONNX Runtime.

What is fed has no more digits than float16 has, so that all that differs comes from inside. Where
nothing but places, scores and sums is computed, nothing may differ by more than the last rounding.
"""

from __future__ import annotations

import mxnet as mx
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper, parser
from rtx import build_plan, parts_as_onnx

from mxtrt.engines import _precision
from mxtrt.engines._float32_nodes import float32_nodes
from mxtrt.engines._precision import strongly_typed
from mxtrt.onnx_model import graphs, reads
from mxtrt.onnx_reader import read_onnx

DIGIT = 2.0**-11  # what rounding to float16 changes, relative to a number, at most


def model(text: str) -> onnx.ModelProto:
    """Return a model whose nodes are named after what they make."""
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {text}')
    for graph in graphs(proto.graph):
        for node in graph.node:
            node.name = node.output[0]
    return proto


def run(proto: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Run a model node by node: ONNX Runtime's CPU leaves out float16 between two of them."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    values.update(feed)
    for node in proto.graph.node:
        known = [name for name in sorted(reads(node)) if name in values]
        inputs = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(values[name].dtype), values[name].shape
            )
            for name in known
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
        graph = helper.make_graph([node], "one", inputs, outputs)
        content = helper.make_model(graph, opset_imports=proto.opset_import, ir_version=8)
        session = ort.InferenceSession(
            content.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        made = session.run(None, {name: values[name] for name in known})
        values.update(zip(node.output, map(np.asarray, made)))
    return [values[info.name] for info in proto.graph.output]


def both(
    proto: onnx.ModelProto, feed: dict[str, np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return what a model makes in float32, and what it makes in float16."""
    lowered, _ = strongly_typed(proto, {}, "fp16", float32_nodes(proto))
    return run(proto, feed), run(lowered, feed)


def halves(*shape: int, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    """Return random numbers that float16 has."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * scale).astype("float16").astype("float32")


# -- scores ------------------------------------------------------------------------------------

PEAKS = """(float[1,3,16,16] x) => (float[1,20] score, int64[1,20] index)
    <int64[2] flat = {1,-1}, int64[1] k = {20}> {
        heat = Sigmoid (x)
        top = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (heat)
        same = Equal (top, heat)
        mask = Cast <to = 1> (same)
        peaks = Mul (heat, mask)
        row = Reshape (peaks, flat)
        score, index = TopK (row, k)
    }"""

CLIPPED_PEAKS = PEAKS.replace("heat = Sigmoid (x)", "s = Sigmoid (x) heat = Clip (s, low, high)")
CLIPPED_PEAKS = CLIPPED_PEAKS.replace(
    "k = {20}", "k = {20}, float low = {0.0001}, float high = {0.9}"
)

CLASSES = """(float[1,500,4] x) => (float[1,50] score, int64[1,50] index)
    <int64[1] one = {1}, int64[1] two = {2}, int64[1] last = {2}, int64[1] k = {50}> {
        p = Softmax <axis = 2> (x)
        part = Slice (p, one, two, last)
        row = Squeeze (part, last)
        score, index = TopK (row, k)
    }"""

OBJECTS = """(float[1,500] x, float[1,500] y) => (float[1,50] score, int64[1,50] index)
    <int64[1] k = {50}> {
        p = Sigmoid (x)  q = Sigmoid (y)  row = Mul (p, q)  score, index = TopK (row, k)
    }"""


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        (PEAKS, {"x": (1, 3, 16, 16)}),
        (CLIPPED_PEAKS, {"x": (1, 3, 16, 16)}),
        (CLASSES, {"x": (1, 500, 4)}),
        (OBJECTS, {"x": (1, 500), "y": (1, 500)}),
    ],
)
def test_scores_keep_their_order(text: str, shapes: dict[str, tuple[int, ...]]) -> None:
    """Near 1 float16 has 0.9995 and 1: sure detections would all be equally sure."""
    feed = {n: halves(*shape, scale=4, seed=i) for i, (n, shape) in enumerate(shapes.items())}
    for want, have in zip(*both(model(text), feed)):
        np.testing.assert_array_equal(have, want)


def test_chances_of_nothing() -> None:
    """The logarithm of what float16 takes for 0 is no number."""
    proto = model("(float[2,8] x) => (float[2,8] y) { p = Softmax <axis = 1> (x)  y = Log (p) }")
    x = np.float32([[0, -30, -20, -18, -17, 1, 2, 3], [0] * 8])
    [want], [have] = both(proto, {"x": x})
    np.testing.assert_allclose(have, want, rtol=DIGIT)


# -- places ------------------------------------------------------------------------------------


def test_places_that_were_indices() -> None:
    """A corner of a box is a place of a map, some 70,000 of them, and a fraction of one."""
    proto = model(
        """(float[1,70000] x, float[1,5] shift) => (float[1,5] corner)
        <int64[1] k = {5}, float quarter = {0.25}> {
            score, index = TopK (x, k)
            place = Cast <to = 1> (index)
            moved = Add (place, shift)
            corner = Mul (moved, quarter)
        }"""
    )
    x = np.zeros((1, 70000), "float32")
    x[0, [69999, 40001, 4097, 2049, 3]] = 5, 4, 3, 2, 1
    shift = np.float32([[0.125, 0.25, 0.5, 0.75, 0.875]])
    [want], [have] = both(proto, {"x": x, "shift": shift})
    np.testing.assert_array_equal(have, want)


@pytest.mark.parametrize("function", ["Sin", "Cos"])
def test_angles_of_many_turns(function: str) -> None:
    """As positional encodings have them: 5,000 words from the start."""
    proto = model(
        f"""(float[5000,1] place, float[1,4] pace) => (float[5000,4] y) {{
            turn = Mul (place, pace)  y = {function} (turn)
        }}"""
    )
    place = np.arange(5000, dtype="float32")[:, None]
    pace = np.float32([[1, 0.5, 0.01, 0.003]])
    [want], [have] = both(proto, {"place": place, "pace": pace})
    np.testing.assert_allclose(have, want, atol=DIGIT)


def test_steps() -> None:
    proto = model(
        """(float[4000] x) => (float[4000] y, float[4000] z)
        <float eight = {8.0}> {
            part = Div (x, eight)  y = Floor (part)  up = Ceil (part)  z = Sub (up, y)
        }"""
    )
    for want, have in zip(*both(proto, {"x": np.arange(30000, 34000, dtype="float32")})):
        np.testing.assert_array_equal(have, want)


def test_places_in_maps() -> None:
    proto = model(
        """(float[1,1,1,4096] x, float[1,1,9,2] base, float[1,1,9,2] shift) => (float[1,1,1,9] y)
        { map = Relu (x)  grid = Add (base, shift)
          y = GridSample <align_corners = 1> (map, grid) }"""
    )
    # what is looked up is neither rounded nor read in other places
    x = halves(1, 1, 1, 4096, scale=100)
    base = np.zeros((1, 1, 9, 2), "float32")
    base[..., 0] = np.linspace(-0.9, 0.9, 9)
    shift = np.full_like(base, 2.0**-12)
    shift[..., 1] = 0
    [want], [have] = both(proto, {"x": x, "base": base, "shift": shift})
    np.testing.assert_allclose(have, want, atol=DIGIT)
    assert float32_nodes(proto) == {"grid", "y"}  # what is read there has the precision asked for


def test_grids_that_are_turned() -> None:
    """A grid is a constant; what it is multiplied by turns and moves it."""
    grid = np.stack([np.linspace(-1, 1, 65), np.zeros(65), np.ones(65)]).astype("float32")
    proto = model(
        """(float[1,1,1,4096] x, float[1,2,3] turn) => (float[1,1,65,1] y)
        <int64[4] s = {1,65,1,2}> {
            places = MatMul (turn, grid)
            last = Transpose <perm = [0,2,1]> (places)
            four = Reshape (last, s)
            y = GridSample <align_corners = 1> (x, four)
        }"""
    )
    proto.graph.initializer.append(numpy_helper.from_array(grid, "grid"))
    turn = np.float16([[[0.813, 0, 0.0613], [0, 1, 0]]]).astype("float32")
    [want], [have] = both(proto, {"x": halves(1, 1, 1, 4096), "turn": turn})
    np.testing.assert_allclose(have, want, atol=DIGIT)


@pytest.mark.parametrize("size", [(17, 23), (64, 48), 12])
def test_resized_bytes_are_exact(size: int | tuple[int, int]) -> None:
    """OpenCV's weights of bytes are whole numbers up to 2,048: sums are far beyond 65,504."""
    data = mx.sym.var("data", dtype="uint8")
    symbol = mx.sym.image.resize(data, size=size)
    shapes = {"data": (40, 30, 3)}
    [proto] = parts_as_onnx(
        symbol, {}, shapes, dtypes={"data": "uint8"}, min_subgraph_size=1, engine="onnxruntime"
    )
    image = np.random.default_rng(0).integers(0, 256, shapes["data"]).astype("uint8")
    [want], [have] = both(proto, {"data": image})
    assert want.dtype == np.uint8
    np.testing.assert_array_equal(have, want)


def test_products_with_weights_are_rounded() -> None:
    """Whether a place comes out of them or not; those with filters and grids are not."""
    text = """(TYPE[2,4] x, float[4,3] w) => (int64[2,3] y) <CONSTANT> {
        f = Cast <to = 1> (x)  a = MatMul (f, c)  y = Cast <to = 7> (a)
    }"""
    weights = text.replace("<CONSTANT>", "").replace("c)", "w)")
    known = text.replace("CONSTANT", "float[4,3] c = {1,2,3,4,5,6,7,8,9,1,2,3}")
    assert float32_nodes(model(weights.replace("TYPE", "uint8"))) == {"y"}
    assert float32_nodes(model(known.replace("TYPE", "float"))) == {"a", "y"}
    assert float32_nodes(model(known.replace("TYPE", "uint8"))) == {"a", "y"}


# -- numbers that float16 does not have --------------------------------------------------------

MASKED = {
    "added": "n = Mul (none, far)  y = Add (x, n)",
    "taken away": "n = Mul (none, much)  y = Sub (x, n)",
    "chosen and added": "b = Cast <to = 9> (none)  n = Where (b, far, zero)  y = Add (x, n)",
    "chosen": "b = Cast <to = 9> (none)  y = Where (b, far, x)",
    "multiplied and chosen":
        "s = Shape (x)  one = Expand (unit, s)  n = Mul (one, far)  b = Cast <to = 9> (none)  "
        "y = Where (b, n, x)",
}  # fmt: skip


@pytest.mark.parametrize("number", [1e18, 3.4028235e38, 6e4])
@pytest.mark.parametrize("kind", MASKED)
def test_masks(kind: str, number: float) -> None:
    """Rows of which all is masked are numbers, too."""
    proto = model(
        f"""(float[3,8] x, float[3,8] none) => (float[3,8] p)
        <float far = {{{-number}}}, float much = {{{number}}}, float zero = {{0.0}},
         float unit = {{1.0}}> {{ {MASKED[kind]}  p = Softmax <axis = 1> (y) }}"""
    )
    x = halves(3, 8) - 3000
    none = np.zeros((3, 8), "float32")
    none[0, 3:] = none[1] = 1
    [want], [have] = both(proto, {"x": x.astype("float16").astype("float32"), "none": none})
    assert np.isfinite(have).all()
    np.testing.assert_allclose(have[[0, 2]], want[[0, 2]], atol=DIGIT)
    assert have[1].sum() == pytest.approx(1, abs=8 * DIGIT)


def test_a_mask_that_is_only_chosen_needs_no_float32() -> None:
    proto = model(
        """(float[3,8] x, bool[3,8] b) => (float[3,8] p) <float far = {-1e18}> {
            y = Where (b, far, x)  p = Softmax <axis = 1> (y)
        }"""
    )
    assert not float32_nodes(proto)


SUMS = {
    "mean": "a = ReduceSum <keepdims = 1> (x, axes)  y = Div (a, count)",
    "scaled sum": "a = ReduceSum <keepdims = 1> (x, axes)  b = Reshape (a, shape)  y = Mul (b, c)",
    "share": "a = ReduceL1 <axes = [1], keepdims = 1> (x)  y = Div (x, a)",
    "variance": "a = Mul (x, x)  b = ReduceSum <keepdims = 1> (a, axes)  y = Div (b, big)",
    "norm": "a = ReduceSumSquare <axes = [1], keepdims = 1> (x)  b = Add (a, tiny)  "
            "c1 = Sqrt (b)  y = Div (x, c1)",
    "power of a window": "a = Pow (x, two)  b = Unsqueeze (a, axes)  c1 = AveragePool "
                         "<kernel_shape = [4], strides = [4]> (b)  d = Sqrt (c1)  "
                         "y = Squeeze (d, axes)",
    "areas": "a = Mul (x, turned)  b = Add (a, x)  y = Div (a, b)",
    "cube": "a = Pow (x, three)  b = Mul (a, c)  y = Add (b, x)",
    "exponential": "a = Mul (x, c)  b = Exp (a)  b2 = Neg (b)  y = Mul (b2, tenth)",
    "large constant": "a = Mul (x, c)  y = Mul (a, big)",
    "small constant": "a = Mul (x, tiny)  y = Mul (a, huge)",
    "far from zero": "a = Add (x, big)  y = Sub (a, nearly)",
}  # fmt: skip


@pytest.mark.parametrize("steps", SUMS.values(), ids=SUMS)
def test_large_numbers(steps: str) -> None:
    proto = model(
        f"""(float[4,1000] x, float[4,1000] turned) => (float[4,N] y)
        <int64[1] axes = {{1}}, float count = {{1000.0}}, int64[2] shape = {{4,1}},
         float c = {{0.03125}}, float big = {{100000.0}}, float tiny = {{1e-10}},
         float huge = {{1e10}}, float two = {{2.0}}, float three = {{3.0}},
         float tenth = {{0.0001}},
         float nearly = {{99999.0}}> {{ {steps} }}"""
    )
    x = np.abs(halves(4, 1000, scale=100)) + 64
    x = x.astype("float16").astype("float32")
    [want], [have] = both(proto, {"x": x, "turned": 600 - x})
    assert np.isfinite(have).all()
    # exponents in float16: their rounding is a factor of the result
    rtol = 16 * DIGIT if "Exp" in steps else 2 * DIGIT
    np.testing.assert_allclose(have, want, rtol=rtol)


@pytest.mark.parametrize("floor", ["Add", "Max"])
def test_nothing_is_divided_by_zero(floor: str) -> None:
    proto = model(
        f"""(float[2,4] x) => (float[2,4] y) <float tiny = {{1e-10}}> {{
            a = ReduceMax <axes = [1], keepdims = 1> (x)  b = {floor} (a, tiny)  y = Div (x, b)
        }}"""
    )
    x = np.float32([[0, 0, 0, 0], [1, 2, 3, 4]])
    [want], [have] = both(proto, {"x": x})
    np.testing.assert_allclose(have, want, rtol=DIGIT)


def test_constants_that_are_nodes() -> None:
    proto = model(
        """(float[2,4] x) => (float[2,4] y) {
            big = Constant <value_float = 1e6> ()  c = Constant <value = float {0.001}> ()
            a = Mul (x, big)  y = Mul (a, c)
        }"""
    )
    x = halves(2, 4)
    [want], [have] = both(proto, {"x": x})
    np.testing.assert_allclose(have, want, rtol=DIGIT)


def test_bfloat16_has_no_infinity_in_place_of_the_largest() -> None:
    """A row of -inf has no softmax."""
    numbers = np.float32([-3.4028235e38, 3.4028235e38, 1.0, 1.00390625, -0.0])
    bits = _precision._lowered(numbers, "bf16")
    assert bits.dtype == np.uint16
    found = (bits.astype(np.uint32) << 16).view(np.float32)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, numbers, rtol=2.0**-8)
    assert _precision._lowered(np.float32(2), "bf16").shape == ()


# -- loops and branches ------------------------------------------------------------------------

COUNTER = """(float[4] x, float start, float end) => (float last, float[4] y)
    <int64 most = {5000}, bool yes = {1}, float one = {1.0}> {
        a = Tanh (x)
        zero = Mul (start, one)
        last = Loop (most, yes, zero) <body = b (int64 i, bool go, float n) => (bool on, float m) {
            m = Add (n, one)
            on = Less (m, end)
        }>
        y = Mul (a, x)
    }"""


def test_loops_compute_in_float32() -> None:
    """float16 ends counting at 2,048."""
    proto = model(COUNTER)
    feed = {"x": halves(4), "start": np.array(0, "float32"), "end": np.array(3001, "float32")}
    want, have = both(proto, feed)
    assert have[0] == want[0] == 3001
    np.testing.assert_allclose(have[1], want[1], rtol=4 * DIGIT)
    # also where a flag lowers the precision: what decides, and what it is counted from
    assert float32_nodes(proto) == {"on", "m", "zero"}
    lowered, _ = strongly_typed(proto, {}, "fp16", float32_nodes(proto))
    assert {"a/fp16", "y/fp16"} <= {name for node in lowered.graph.node for name in node.output}


def test_bodies_read_what_is_outside() -> None:
    """By names that stay, in the types that they had."""
    proto = model(
        """(float[4,3] x, float[3] s) => (float[3] t, float[4,3] z) {
            w = Tanh (s)
            v = Neg (w)
            t, z = Scan <num_scan_inputs = 1, body = b (float[3] h, float[3] r)
                => (float[3] k, float[3] o) { u = Mul (h, w)  k = Add (u, r)  o = Mul (k, v) }>
                (s, x)
        }"""
    )
    feed = {"x": halves(4, 3), "s": halves(3, seed=1)}
    for want, have in zip(*both(proto, feed)):
        np.testing.assert_allclose(have, want, atol=16 * DIGIT)


def test_decisions_behind_loops_and_branches() -> None:
    """What is compared comes out of them, and what comes out goes in."""
    proto = model(
        """(float[3] x, bool b, float[4,3] r) => (bool[3] y, int64[3] z) {
            far = Abs (x)
            near = If (b) <then_branch = t () => (float[3] p) { p = Neg (far) },
                           else_branch = e () => (float[3] q) { q = Identity (x) }>
            y = Less (near, x)
            start = Relu (x)
            last, all = Scan <num_scan_inputs = 1, body = g (float[3] h, float[3] o)
                => (float[3] k, float[3] j) { k = Add (h, o)  j = Tanh (k) }> (start, r)
            z = Cast <to = 7> (last)
        }"""
    )
    assert float32_nodes(proto) == {"y", "p", "q", "far", "z", "k", "start"}


# -- all of them -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [PEAKS, CLASSES, OBJECTS, COUNTER])
def test_bfloat16_has_the_same_exceptions(text: str) -> None:
    """ONNX Runtime's CPU computes little of it."""
    proto = model(text)
    made = []
    for precision in ("fp16", "bf16"):
        lowered, _ = strongly_typed(proto, {}, precision, float32_nodes(proto))
        outputs = [name for node in lowered.graph.node for name in node.output]
        made.append({name.replace(f"/{precision}", "/low") for name in outputs})
        kinds = {a.i for n in lowered.graph.node for a in n.attribute if a.name == "to"}
        assert {TensorProto.FLOAT16, TensorProto.BFLOAT16}.isdisjoint(
            kinds - {_precision.LOW_TYPES[precision]}
        )
    assert made[0] == made[1]


def test_nodes_without_names() -> None:
    """As in files of others: an exception of one is none of all."""
    proto = model(
        "(float[2,4] x) => (float[2,1] y) { a = Tanh (x)  y = ReduceL1 <axes = [1]> (a) }"
    )
    for node in proto.graph.node:
        node.ClearField("name")
    read, _ = read_onnx(proto)
    assert not any(node.name for node in proto.graph.node)
    lowered, _ = strongly_typed(read, {}, "fp16", float32_nodes(read))
    assert "a/fp16" in {name for node in lowered.graph.node for name in node.output}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_nvidia_builds_transposed_convolutions(precision: str) -> None:
    """TensorRT-RTX has none of bfloat16, and says so only when it builds."""
    proto = model(
        """(float[1,256,8,8] x) => (float[1,256,16,16] y) {
            a = Tanh (x)
            b = ConvTranspose <kernel_shape = [4,4], strides = [2,2], pads = [1,1,1,1]> (a, w)
            y = Relu (b)
        }"""
    )
    proto.graph.initializer.append(numpy_helper.from_array(halves(256, 256, 4, 4), "w"))
    lowered, _ = strongly_typed(proto, {}, precision, float32_nodes(proto))
    made = {name for node in lowered.graph.node for name in node.output}
    assert {f"a/{precision}", f"y/{precision}"} <= made
    assert ("b" in made) == (precision == "bf16")
    assert build_plan(lowered)
