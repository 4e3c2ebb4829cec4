"""Batches in halves: which models allow it, and what comes out."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from gpu_nets import convnet
from test_tensorrt import FakeBuffer, FakeContext, FakeEngine, FakeGpu, Moment, call, fake_plan

import mxtrt
from mxtrt.engines import _execution, _halves
from mxtrt.engines._rows import computes_rows_alone
from mxtrt.operator import operators

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
FIXED = (
    "<float[4] c = {1, 2, 3, 4}, float[1, 4] row = {1, 2, 3, 4}, float[2, 4] two = {1, 2, 3, 4, 5,"
    " 6, 7, 8}, float[4, 4] m = {0.1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},"
    " int64[2] keep = {0, -1}, int64[2] fix = {2, -1}, int64[3] cut = {0, 2, 2},"
    " int64[4] sides = {0, 1, 0, 2}, int64[4] ends = {1, 0, 1, 0}, int64[1] last = {-1},"
    " int64[1] first = {0}, float s = {0.5}, float[2, 2, 1, 1] w = {1, 2, 3, 4},"
    " float[2] pair = {1, 2}, float[2] var = {1, 3}>"
)


def model(body: str, kind: str = "B, 4", outs: str = "float y") -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{HEAD}g (float[{kind}] x) => ({outs}) {FIXED} {{ {body} }}")


ALONE = {
    "relu": "y = Relu (x)",
    "rows beside a vector": "y = Add (x, c)",
    "rows beside one row": "z = Mul (row, x) y = Max (z, x, s)",
    "dense": "y = Gemm <transB = 1> (x, m, c)",
    "dense, no bias": "y = Gemm (x, m)",
    "matmul": "y = MatMul (x, m)",
    "softmax": "y = Softmax (x)",
    "normalised": "y = LayerNormalization (x, c)",
    "concat": "y = Concat <axis = 1> (x, x)",
    "split": "a, b = Split <axis = -1> (x) y = Sub (a, b)",
    "mean": "y = ReduceMean <axes = [-1], keepdims = 0> (x)",
    "sum": "y = ReduceSum <keepdims = 1> (x, last)",
    "reshape": "y = Reshape (x, cut)",
    "pad": "y = Pad (x, sides)",
    "clip": "y = Clip (x, s)",
    "swap": "a = Reshape (x, cut) y = Transpose <perm = [0, 2, 1]> (a)",
    "constant": "k = Constant <value = float[4] {1, 2, 3, 4}> () y = Mul (x, k)",
}
IMAGES = {
    "conv": "y = Conv (x, w, pair)",
    "net": "a = Conv <pads = [0, 0, 0, 0]> (x, w) b = BatchNormalization (a, pair, pair, pair, var)"
    " c1 = Relu (b) d = MaxPool <kernel_shape = [2, 2]> (c1) e = GlobalAveragePool (d)"
    " y = Flatten (e)",
    "instance": "y = InstanceNormalization (x, pair, pair)",
    "slope": "y = PRelu (x, s)",
}
TOGETHER = {
    "rows in a constant": "y = Add (x, two)",
    "softmax along the batch": "y = Softmax <axis = 0> (x)",
    "softmax along the batch, from behind": "y = Softmax <axis = -2> (x)",
    "mean of the batch": "y = ReduceMean <axes = [0]> (x)",
    "mean of all": "y = ReduceMean (x)",
    "sum of the batch": "y = ReduceSum (x, first)",
    "concat of batches": "y = Concat <axis = 0> (x, x)",
    "concat with a constant": "y = Concat <axis = 1> (x, two)",
    "split of the batch": "a, y = Split (x)",
    "transposed": "y = Transpose (x)",
    "reshaped": "y = Reshape (x, fix)",
    "flat": "y = Flatten <axis = 0> (x)",
    "padded batch": "y = Pad (x, ends)",
    "matrices": "t = Transpose <perm = [1, 0]> (x) y = MatMul (x, t)",
    "matmul from the left": "y = MatMul (two, x)",
    "transposed dense": "y = Gemm <transA = 1> (x, m)",
    "dense with rows beside it": "y = Gemm (x, m, two)",
    "broadcast of ranks": "a = Reshape (x, cut) y = Add (a, x)",
    "cumulative": "i = Constant <value = int64 {0}> () y = CumSum (x, i)",
    "shape": "z = Shape (x) y = Cast <to = 1> (z)",
    "a constant as output": "y = Identity (c)",
}


def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    [found] = session.run(None, {"x": x})
    return found


@pytest.mark.parametrize("name", [*ALONE, *IMAGES])
def test_rows_alone(name: str) -> None:
    proto = model(ALONE[name]) if name in ALONE else model(IMAGES[name], "B, 2, 3, 3")
    assert computes_rows_alone(proto)
    size = (4,) if name in ALONE else (2, 3, 3)
    x = np.random.default_rng(0).standard_normal((6, *size)).astype("float32")
    halves = np.concatenate([run(proto, x[:3]), run(proto, x[3:])])
    np.testing.assert_allclose(halves, run(proto, x), 1e-6, 1e-7)


@pytest.mark.parametrize("name", list(TOGETHER))
def test_rows_together(name: str) -> None:
    assert not computes_rows_alone(model(TOGETHER[name]))


@pytest.mark.parametrize("outputs", [False, True])
def test_convolutional_nets(outputs: bool) -> None:
    net, args, aux = convnet(outputs)
    shapes = {"data": ((1, 8, 8), 3, 32, 32)}
    optimized, _ = mxtrt.optimize(net, (args, aux), shapes=shapes, engine="onnxruntime")
    [part] = operators(optimized)
    assert computes_rows_alone(onnx.load_model_from_string(part.onnx.model))


def test_what_is_not_known_is_not_halved() -> None:
    training = "a, b, y = BatchNormalization <training_mode = 1> (x, pair, pair, pair, var)"
    assert not computes_rows_alone(model(training, "B, 2"))
    scalar = onnx.parser.parse_model(f"{HEAD}g (float x) => (float y) {{ y = Relu (x) }}")
    assert not computes_rows_alone(scalar)
    unknown = model("y = Relu (x)")
    unknown.graph.input[0].type.tensor_type.ClearField("shape")
    assert not computes_rows_alone(unknown)
    own = model("y = Relu (x)")
    own.graph.node[0].domain = "somebody"
    assert not computes_rows_alone(own)


# -- running, on a stand-in for CUDA and TensorRT ----------------------------------------------

WIDE = 64  # floats in a row: 256 bytes
BATCH = _halves.LARGE // (4 * WIDE)


class Counting(FakeContext):
    """Notes the batch of each run."""

    def execute_async_v3(self, stream):
        self.engine.batches.append(self.shapes["x"][0])
        return super().execute_async_v3(stream)


class Engine(FakeEngine):
    smallest = 1

    def __init__(self) -> None:
        super().__init__((-1, WIDE))
        self.batches: list[int] = []

    def create_execution_context_without_device_memory(self):
        self.contexts.append(Counting(self))
        return self.contexts[-1]


def timed(monkeypatch: pytest.MonkeyPatch, *medians: float) -> list[float]:
    """Let the two ways take so many seconds each time that they are timed."""
    left = list(medians)

    def median(run) -> float:
        run()
        return left.pop(0)

    monkeypatch.setattr(_halves, "_median", median)
    return left


@pytest.fixture(autouse=True)
def no_event_is_lost(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_halves, "Event", Moment)
    plans: list[_execution.LoadedPlan] = []
    monkeypatch.setattr(_execution, "_live", SimpleNamespace(add=plans.append))
    Moment.open = 0
    yield
    for plan in plans:
        plan.close()
    assert Moment.open == 0


def batch(rows: int = BATCH) -> np.ndarray:
    return np.random.default_rng(rows).random((rows, WIDE), np.float32)


def test_halves_where_they_are_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    left = timed(monkeypatch, 1.0, 0.8)
    plan = fake_plan(Engine(), rows_are_alone=lambda: True)
    x = batch()
    for _ in range(3):
        np.testing.assert_array_equal(call(plan, x), 2 * x + 1)
    assert left == []
    assert plan.engine.batches == [BATCH] * 4 + [BATCH // 2] * 2
    for seed in range(3):
        x = np.roll(x, seed + 1)
        np.testing.assert_array_equal(call(plan, x), 2 * x + 1)
    assert plan.engine.batches[6:] == [BATCH // 2] * 6
    plan.close()
    assert all(memory.freed for memory in plan.gpu.allocated)


def test_the_whole_where_halves_are_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    left = timed(monkeypatch, 1.0, 0.98)
    plan = fake_plan(Engine(), rows_are_alone=lambda: True)
    x = batch()
    for _ in range(6):
        np.testing.assert_array_equal(call(plan, x), 2 * x + 1)
    assert left == []
    assert plan.engine.batches == [BATCH] * 4 + [BATCH // 2] * 2 + [BATCH] * 3


def test_other_sizes_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are measured once for each size, and the context has the right shape again."""
    left = timed(monkeypatch, 1.0, 0.8)
    plan = fake_plan(Engine(), rows_are_alone=lambda: True)
    for rows in (*[BATCH] * 4, 3, *[BATCH] * 4, *[2] * 5):
        x = batch(rows)
        np.testing.assert_array_equal(call(plan, x), 2 * x + 1)
    assert left == []
    tail = [3, *[BATCH] * 3, *[BATCH // 2] * 2, *[2] * 5]
    assert plan.engine.batches[8:] == tail


def test_other_types_than_mxnets(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, 1.0, 0.8)
    plan = fake_plan(Engine(), rows_are_alone=lambda: True)
    x = batch().astype("float64")
    for _ in range(5):
        y = np.full(x.shape, -1.0)
        plan.execute([FakeBuffer(x)], [FakeBuffer(y)], 0)
        np.testing.assert_array_equal(y, (2 * x.astype("float32") + 1).astype("float64"))
    assert plan.engine.batches[-2:] == [BATCH // 2] * 2


@pytest.mark.parametrize(
    ("rows", "wide"), [(BATCH + 1, WIDE), (BATCH // 2, WIDE), (BATCH * 2 + 2, WIDE // 2)]
)
def test_batches_that_are_not_halved(rows: int, wide: int) -> None:
    """An odd one, a small one, and one whose half begins where TensorRT takes no address."""
    asked: list[bool] = []
    engine = Engine()
    engine.shape = (-1, wide)
    plan = fake_plan(engine, rows_are_alone=lambda: asked.append(True) or True)
    x = np.ones((rows, wide), np.float32)
    for _ in range(5):
        call(plan, x)
    assert engine.batches == [rows] * 5
    assert asked == []


def test_models_that_are_not_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    plan = fake_plan(Engine(), rows_are_alone=lambda: bool(asked.append(True)))
    for _ in range(4):
        call(plan, batch())
    call(plan, batch(1))
    for _ in range(4):
        call(plan, batch())
    assert plan.engine.batches == [BATCH] * 4 + [1] + [BATCH] * 4
    assert asked == [True]
    static = Engine()
    static.shape = (BATCH, WIDE)
    plan = fake_plan(static, rows_are_alone=lambda: bool(asked.append(True)))
    for _ in range(4):
        call(plan, batch())
    assert asked == [True]  # one of one size is not asked about


def test_a_half_outside_the_plans_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Narrow(Counting):
        def set_input_shape(self, name, shape):
            return shape[0] > BATCH // 2 and super().set_input_shape(name, shape)

    class NarrowEngine(Engine):
        def create_execution_context_without_device_memory(self):
            return Narrow(self)

    left = timed(monkeypatch, 1.0)
    plan = fake_plan(NarrowEngine(), rows_are_alone=lambda: True)
    x = batch()
    for _ in range(6):
        np.testing.assert_array_equal(call(plan, x), 2 * x + 1)
    assert left == []
    assert plan.engine.batches == [BATCH] * 7


def test_a_graph_is_captured_anew_after_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is of a context that had other shapes since."""
    timed(monkeypatch, 1.0, 1.0)
    made: list[str] = []
    shapes: list[tuple[list[int], list[int]]] = []  # of the last run, and of the context

    class Graph:
        handle = 7

        def __init__(self, stream, enqueue) -> None:
            self.enqueue = enqueue
            made.append("made")
            engine = plan.engine
            shapes.append((engine.batches[-1:], [c.shapes["x"][0] for c in engine.contexts]))

        def launch(self, stream) -> bool:
            return self.enqueue()

        def close(self) -> None:
            made.append("closed")

    monkeypatch.setattr("mxtrt.engines._execution.Graph", Graph)
    gpu = FakeGpu()
    plan = fake_plan(Engine(), gpu, cuda_graph=True, rows_are_alone=lambda: True)
    gpu.graphs[7] = Graph(0, lambda: plan.engine.contexts[0].execute_async_v3(0))
    made.clear()
    x = batch()
    for _ in range(5):
        np.testing.assert_array_equal(call(plan, x), 2 * x + 1)
    assert made == ["made", "closed", "made"]
    # what TensorRT does once after a change of shapes cannot be captured
    assert shapes[1:] == [([BATCH], [BATCH])] * 2
