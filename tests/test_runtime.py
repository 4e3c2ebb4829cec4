"""`mxtrt.runtime` without a GPU: plans by TensorRT-RTX, their files, and calls on a stand-in."""

from __future__ import annotations

import ctypes
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mxnet as mx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_tensorrt import FakeEngine, FakeGpu, convnet, fake_plan

import mxtrt
from mxtrt import memory, onnx_reader, plan_file, runtime
from mxtrt.contents import inspect_file
from mxtrt.engines import _cuda, _inspection, _nvidia, _plans, _session, _streams
from mxtrt.errors import (
    BadModel,
    BadOption,
    BadPlan,
    EngineError,
    EngineNotAvailable,
    NotExportable,
    ShapeNeeded,
    ShapesDisagree,
)
from mxtrt.plan_file import PlanInfo

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed"
)

RANGE = {"x": ((1, 2, 8), 4)}


def model(rows: int | str = "n", dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """Return x @ w + b, with a weight large enough to lie beside the model."""
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.standard_normal((4, 300)).astype("float32"), "w")
    bias = numpy_helper.from_array(np.ones(300, np.float32), "b")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"], name="product"),
        helper.make_node("Add", ["xw", "b"], ["y"], name="sum"),
    ]
    inputs = [helper.make_tensor_value_info("x", dtype, [rows, 4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, 300])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weight, bias])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder, which is the current one, with ``net.onnx`` in it."""
    monkeypatch.chdir(tmp_path)
    onnx.save(model(), "net.onnx")
    return tmp_path


# -- building ----------------------------------------------------------------------------------


@needs_rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_build_an_onnx_file(folder: Path, precision: str) -> None:
    info = runtime.build(
        "net.onnx", "net.plan", shapes=RANGE, targets=["sm86", "8.9", "SM120"], precision=precision
    )
    plan = (folder / "net.plan").read_bytes()
    assert plan[1:4] == b"trt"  # NVIDIA's own format and nothing before it
    assert info.nbytes == len(plan)
    assert (info.engine, info.gpu, info.precision) == ("tensorrt_rtx", None, precision)
    assert info.capabilities == ("SM86", "SM89", "SM120")
    assert info.inputs[0]["sizes"] == ((1, 2, 8), (4, 4, 4))
    read = runtime.read_info("net.plan")
    assert read is not None
    assert read.sha256 == info.sha256
    assert [line.split() for line in read.lines()] == [line.split() for line in info.lines()]
    assert sorted(path.name for path in folder.iterdir()) == [
        "net.onnx",
        "net.plan",
        "net.plan.json",
    ]


@needs_rtx
def test_targets_make_a_difference(folder: Path) -> None:
    sizes = [
        runtime.build("net.onnx", "net.plan", shapes={"x": (2, 4)}, targets=targets).nbytes
        for targets in (["sm86"], ["sm80", "sm86", "sm89", "sm120"])
    ]
    assert sizes[0] < sizes[1]


@needs_rtx
def test_build_a_model_in_memory_or_with_its_weights_beside_it(folder: Path) -> None:
    static = runtime.build(model(2), "a.plan", targets="sm86")
    assert static.inputs[0]["sizes"] == ((2, 2, 2), (4, 4, 4))
    onnx.save(model(2), "b.onnx", save_as_external_data=True, location="b.data", size_threshold=0)
    assert runtime.build("b.onnx", "b.plan", targets="sm86").nbytes == static.nbytes


@needs_rtx
def test_build_a_checkpoint(folder: Path) -> None:
    net, args, aux = convnet()
    shapes = {"data": ((1, 2, 4), 3, 16, 16)}
    info = runtime.build(net, "a.plan", (args, aux), shapes=shapes, targets="sm86")
    assert info.inputs[0]["name"] == "data"
    assert [output["name"] for output in info.outputs] == ["out"]
    mx.model.save_checkpoint("net", 0, net, args, aux)
    again = runtime.build(
        "net-symbol.json", "b.plan", "net-0000.params", shapes=shapes, targets="sm86"
    )
    assert again.inputs == info.inputs


@needs_rtx
@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({}, ShapeNeeded, "axis 0 of 'x' may have any size.*pass --shape x=1..8..32,4 "),
        ({"shapes": {"y": (1, 4)}}, BadOption, "the model has no input 'y'"),
        ({"shapes": {"x": (1, 5)}}, ShapesDisagree, "axis 1 of 'x' is 4 in the model"),
        ({"shapes": {"x": (1,)}}, ShapesDisagree, "'x' has 2 axes, not 1"),
        ({"targets": ["sm90"]}, BadOption, "builds for sm75, sm80, sm86, sm89, sm120"),
        ({"targets": ["sm86"], "engine": "tensorrt"}, BadOption, "need engine='tensorrt_rtx'"),
        ({"engine": "onnxruntime"}, BadOption, "has no plans"),
        ({"precision": "fp61"}, BadOption, "did you mean 'fp16'"),
        ({"presicion": "fp16"}, BadOption, "no option 'presicion'; did you mean 'precision'"),
        ({"params": "net.params"}, BadModel, "has its parameters inside"),
        ({"dtypes": {"x": "float16"}}, BadOption, "an ONNX model has its own"),
        ({"path": "nosuch/net.plan"}, BadOption, "nosuch/net.plan: cannot be written"),
    ],
)
def test_what_cannot_be_built(
    folder: Path, options: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    shapes = {} if not options else {"shapes": RANGE}
    targets = {} if "engine" in options else {"targets": ["sm86"]}
    arguments = {"model": "net.onnx", "path": "net.plan", **shapes, **targets, **options}
    with pytest.raises(error, match=sentence):
        runtime.build(**arguments)
    assert not (folder / "net.plan").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "No such file"), (b"", "not an ONNX file"), (b"no protobuf at all", "not an ONNX")],
)
def test_files_that_are_no_onnx(folder: Path, content: bytes | None, sentence: str) -> None:
    if content is not None:
        (folder / "bad.onnx").write_bytes(content)
    with pytest.raises(BadModel, match=f"bad.onnx: {sentence}"):
        runtime.build("bad.onnx", "net.plan", targets="sm86")


@needs_rtx
def test_nvidias_words_where_its_parser_refuses(folder: Path) -> None:
    foo = model(2)
    foo.graph.node[1].op_type = "Foo"
    with pytest.raises(EngineError, match=r"TensorRT-RTX: .*Plugin not found"):
        runtime.build(foo, "net.plan", targets="sm86")


def test_a_model_that_onnx_cannot_say(folder: Path) -> None:
    net = mx.sym.contrib.getnnz(mx.sym.var("data"), name="own")
    with pytest.raises(NotExportable, match="own"):
        runtime.build(net, "net.plan", shapes={"data": (1, 2)}, targets="sm86")


def test_without_a_gpu_and_without_targets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: Any) -> None:
        raise EngineNotAvailable("there is no GPU")

    monkeypatch.setattr(_plans, "available_builder", nothing)
    with pytest.raises(EngineNotAvailable, match=r"tensorrt: there is no GPU.*--target sm86"):
        runtime.build("net.onnx", "net.plan", shapes=RANGE)


# -- reading ONNX ------------------------------------------------------------------------------


def test_weights_lie_beside_the_model() -> None:
    proto, weights = onnx_reader.read_onnx(model())
    assert list(weights) == ["w", "b"]
    assert proto.ByteSize() < 500
    whole = onnx_reader.embedded(proto, weights)
    for one, other in zip(whole.graph.initializer, model().graph.initializer):
        np.testing.assert_array_equal(numpy_helper.to_array(one), numpy_helper.to_array(other))


def test_initializers_are_no_inputs() -> None:
    old = model()
    old.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 300]))
    proto, _ = onnx_reader.read_onnx(old)
    assert [info.name for info in proto.graph.input] == ["x"]


def test_small_and_nested_external_data(folder: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["k"], ["o"])],
        "body",
        [],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(np.array([3, 4], np.float32), "k")],
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(
        whole, "if.onnx", save_as_external_data=True, size_threshold=0, convert_attribute=True,
        location="if.data",
    )  # fmt: skip
    proto, weights = onnx_reader.read_onnx("if.onnx")
    assert not weights
    kept = proto.graph.node[0].attribute[0].g.initializer[0]
    np.testing.assert_array_equal(numpy_helper.to_array(kept), [3, 4])


@pytest.mark.parametrize(
    ("location", "sentence"),
    [
        ("../secret", "not in the folder"),
        ("/etc/hostname", "not in the folder"),
        ("nosuch", "No such file"),
        ("short", "too short for 'w'"),
    ],
)
def test_external_data_that_is_not_there(folder: Path, location: str, sentence: str) -> None:
    (folder / "short").write_bytes(b"1234")
    proto = model()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "4800")):
        tensor.external_data.add(key=key, value=value)
    (folder / "net.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(BadModel, match=sentence):
        onnx_reader.read_onnx("net.onnx")


def test_a_weight_of_a_wrong_size() -> None:
    proto = model()
    proto.graph.initializer[0].raw_data = b"1234"
    with pytest.raises(BadModel, match="the weight 'w' is damaged"):
        onnx_reader.read_onnx(proto)


# -- plans in files ----------------------------------------------------------------------------

INFO = PlanInfo(
    engine="tensorrt",
    version="8.5.3.1",
    gpu="NVIDIA H200",
    capabilities=("SM90",),
    precision="fp16",
    inputs=({"name": "x", "dtype": "float32", "sizes": ((1, 2, 8), (4, 4, 4))},),
    outputs=({"name": "y", "dtype": "float32"},),
    seconds=1.5,
)


def test_a_plan_and_what_is_known_of_it(tmp_path: Path) -> None:
    path = tmp_path / "net.plan"
    written = plan_file.write_plan(path, b"ftrt plan", INFO)
    plan, info = plan_file.read_plan(path)
    assert plan == b"ftrt plan"
    assert path.read_bytes() == plan
    assert info is not None
    assert (info.sha256, info.capabilities) == (written.sha256, ("SM90",))
    told = " ".join(list(info.lines())[1].split())
    assert told == "built on NVIDIA H200 in 1.5 s, for compute capability 9.0"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda path: path.write_bytes(b"ftrt"), "cut off: 4 of 9 bytes are left; build it again"),
        (lambda path: path.write_bytes(b"ftrt plaN"), "it was changed since it was built"),
        (lambda path: path.write_bytes(b"ftrt plan and more"), "it was changed since"),
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.unlink(), "No such file"),
    ],
)
def test_damaged_plans(tmp_path: Path, damage: Any, sentence: str) -> None:
    path = tmp_path / "net.plan"
    plan_file.write_plan(path, b"ftrt plan", INFO)
    damage(path)
    with pytest.raises(BadPlan, match=sentence):
        runtime.load(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ("{}", "damaged"),
        ('{"format": "mxtrt plan 1"}', "damaged"),
        ('{"format": "mxtrt plan 9"}', "of another version of mxtrt"),
    ],
)
def test_damaged_second_files(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "net.plan"
    plan_file.write_plan(path, b"ftrt plan", INFO)
    (tmp_path / "net.plan.json").write_text(text)
    with pytest.raises(BadPlan, match=f"net.plan.json: {sentence}"):
        runtime.load(path)


def test_a_plan_of_another_program_has_no_second_file(tmp_path: Path) -> None:
    (tmp_path / "net.plan").write_bytes(b"ftrt plan")
    assert plan_file.read_plan(tmp_path / "net.plan") == (b"ftrt plan", None)


def test_a_write_that_fails_leaves_the_earlier_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.plan"
    plan_file.write_plan(path, b"ftrt plan", INFO)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plan_file.os, "fsync", full)
    with pytest.raises(BadOption, match=r"net\.plan: cannot be written: No space left"):
        plan_file.write_plan(path, b"another", INFO)
    assert plan_file.read_plan(path)[0] == b"ftrt plan"
    assert len(list(tmp_path.iterdir())) == 2


# -- loading -----------------------------------------------------------------------------------


class FakeRange(FakeEngine):
    """An engine whose first size goes from 1 to 8."""

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        return [(1, 4), (2, 4), (8, 4)]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Pretend that TensorRT 8.5.3.1 and an H200 are here."""
    gpu = FakeGpu()
    gpu.name, gpu.capability = "NVIDIA H200", (9, 0)
    made = fake_plan(FakeRange())
    api = SimpleNamespace(
        **{
            **vars(made.api),
            "name": "tensorrt",
            "version": "TensorRT 8.5.3.1",
            "module": SimpleNamespace(__version__="8.5.3.1"),
        }
    )
    monkeypatch.setattr(_cuda, "gpu", lambda index: gpu)
    monkeypatch.setattr(_nvidia, "api", lambda name: api)
    monkeypatch.setattr(_nvidia, "installed", lambda name: True)
    return api


def test_load(tmp_path: Path, here: SimpleNamespace) -> None:
    plan_file.write_plan(tmp_path / "net.plan", b"ftrt plan", INFO)
    plan = runtime.load(tmp_path / "net.plan")
    assert [str(tensor) for tensor in plan.inputs] == ["x (1..2..8, 4) float32"]
    assert plan.outputs == ("y",)
    x = np.ones((3, 4), np.float32)
    np.testing.assert_array_equal(plan(x)["y"], 2 * x + 1)


@pytest.mark.parametrize(
    ("known", "options", "sentence"),
    [
        ({"version": "10.3.0"}, {}, "built with TensorRT 10.3.0, and this is TensorRT 8.5.3.1"),
        (
            {"gpu": "NVIDIA A10", "capabilities": ("SM86",)},
            {},
            "built on NVIDIA A10 for compute capability 8.6, and NVIDIA H200 has 9.0",
        ),
        ({}, {"engine": "tensorrt_rtx"}, "is a plan of tensorrt$"),
        ({}, {"engine": "onnxruntime"}, "is a plan of tensorrt$"),
        ({}, {"engine": "tensort"}, "did you mean 'tensorrt'"),
        ({}, {"device": -1}, "device=-1"),
    ],
)
def test_plans_for_others(
    tmp_path: Path, here: SimpleNamespace, known: dict, options: dict, sentence: str
) -> None:
    plan_file.write_plan(tmp_path / "net.plan", b"ftrt plan", PlanInfo(**{**vars(INFO), **known}))
    with pytest.raises((BadPlan, BadOption), match=sentence):
        runtime.load(tmp_path / "net.plan", **options)
    portable = PlanInfo(**{**vars(INFO), **known, "portable": True})
    plan_file.write_plan(tmp_path / "net.plan", b"ftrt plan", portable)
    if not options:
        runtime.load(tmp_path / "net.plan")


def test_a_plan_that_tensorrt_refuses(tmp_path: Path, here: SimpleNamespace) -> None:
    (tmp_path / "net.plan").write_bytes(b"ftrt plan")
    here.runtime = lambda: SimpleNamespace(deserialize_cuda_engine=lambda plan: None)
    with pytest.raises(BadPlan, match="TensorRT does not take the plan: what TensorRT says"):
        runtime.load(tmp_path / "net.plan")


def test_no_gpu(tmp_path: Path) -> None:
    if _has_gpu():
        pytest.skip("there is a GPU")
    (tmp_path / "net.plan").write_bytes(b"ftrt plan")
    for engine in ("auto", "tensorrt", "tensorrt_rtx"):
        with pytest.raises(EngineNotAvailable, match=r"install|no GPU|no usable GPU"):
            runtime.load(tmp_path / "net.plan", engine=engine)


def _has_gpu() -> bool:
    try:
        _cuda.driver()
    except EngineNotAvailable:
        return False
    return True


# -- calling, on a stand-in --------------------------------------------------------------------


class FakeEvent:
    handle = 7

    def __init__(self, gpu: Any) -> None:
        self.waited = False

    def record(self, stream: int) -> None:
        pass

    def let_wait(self, stream: int) -> None:
        pass

    def is_done(self) -> bool:
        return True

    def wait(self) -> None:
        self.waited = True

    def close(self) -> None:
        pass


def move(target: int, source: int, nbytes: int, stream: int) -> None:
    ctypes.memmove(target, source, nbytes)


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> runtime.Plan:
    """Return a plan that computes y = 2 x + 1 for x of (1..2..8, 4)."""
    monkeypatch.setattr(_session, "Event", FakeEvent)
    monkeypatch.setattr(_session, "upload", move)
    monkeypatch.setattr(_session, "download", move)
    monkeypatch.setattr(_streams, "download", move)
    return runtime.Plan(_session.Session(fake_plan(FakeRange())), None)


X = np.arange(12, dtype=np.float32).reshape(3, 4)


class OnGpu:
    """What the stand-in takes for memory of the GPU."""

    def __init__(self, array: np.ndarray, **told: Any) -> None:
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape, "typestr": array.dtype.str, "strides": None, "version": 3,
            "data": (array.ctypes.data, False), "stream": None, **told,
        }  # fmt: skip


def test_numpy(plan: runtime.Plan) -> None:
    for given in ((X,), ({"x": X},)):
        np.testing.assert_array_equal(plan(*given)["y"], 2 * X + 1)
    np.testing.assert_array_equal(plan(x=X[:1])["y"], 2 * X[:1] + 1)


def test_mxnet(plan: runtime.Plan) -> None:
    made = plan(mx.nd.array(X))["y"]
    assert isinstance(made, mx.nd.NDArray)
    np.testing.assert_array_equal(made.asnumpy(), 2 * X + 1)
    given = mx.nd.zeros((3, 4))
    assert plan(X, outputs={"y": given})["y"] is given
    np.testing.assert_array_equal(given.asnumpy(), 2 * X + 1)


def test_arrays_of_the_gpu_are_used_where_they_lie(plan: runtime.Plan) -> None:
    source, target = OnGpu(X), OnGpu(np.zeros_like(X))
    assert plan(source, outputs={"y": target})["y"] is target
    np.testing.assert_array_equal(target.array, 2 * X + 1)
    [context] = [c for c in plan._session.plan.engine.contexts if c.addresses]
    assert context.addresses["x"] == X.ctypes.data
    assert context.addresses["y"] == target.array.ctypes.data
    made = plan(source)["y"]
    assert isinstance(made, runtime.GpuArray)
    told = made.__cuda_array_interface__
    assert (told["shape"], told["typestr"]) == ((3, 4), "<f4")
    np.testing.assert_array_equal(made.to_numpy(), 2 * X + 1)


def test_outputs_are_reused(plan: runtime.Plan) -> None:
    y = np.zeros_like(X)
    for factor in (1, 2):
        assert plan(factor * X, outputs={"y": y})["y"] is y
        np.testing.assert_array_equal(y, 2 * factor * X + 1)


def test_a_stream_returns_an_event(plan: runtime.Plan) -> None:
    events = [plan(factor * X, stream=5) for factor in (1, 2, 3)]
    for factor, event in enumerate(events, 1):
        assert event.done
        assert event.handle == 7
        np.testing.assert_array_equal(event.wait()["y"], 2 * factor * X + 1)
        assert event.wait() is event.outputs
    allocated = len(plan._session.gpu.allocated)
    plan(X, stream=5).wait()
    assert len(plan._session.gpu.allocated) == allocated, "buffers are allocated once"


def test_an_event_that_nobody_waits_for(plan: runtime.Plan) -> None:
    for _ in range(3):
        plan(X, stream=5)
    assert len(plan._session._idle) == 1


@pytest.mark.parametrize(
    ("stream", "handle"),
    [
        (5, 5),
        (SimpleNamespace(cuda_stream=6), 6),
        (SimpleNamespace(ptr=7), 7),
        (SimpleNamespace(handle=8), 8),
        (SimpleNamespace(__cuda_stream__=lambda: (0, 9)), 9),
    ],
)
def test_streams_of_others(stream: Any, handle: int) -> None:
    assert _streams.stream_handle(stream) == handle


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda p: p(), BadOption, r"the plan also reads x \(1\.\.2\.\.8, 4\) float32"),
        (lambda p: p(X, X), BadOption, "2 arrays for the 1 inputs x"),
        (lambda p: p(X, x=X), BadOption, "'x' is given twice"),
        (lambda p: p(X, z=X), BadOption, "no input 'z'"),
        (lambda p: p("text"), BadOption, "'x' is <U4|is no array"),
        (lambda p: p(X.astype("float64")), ShapesDisagree, "'x' is float64, and the plan reads"),
        (lambda p: p(X.astype("complex64")), BadOption, "complex64; engines read float32"),
        (lambda p: p(X.astype(">f4")), BadOption, "engines read float32"),
        (lambda p: p(X.T), BadOption, "does not lie in C order"),
        (lambda p: p(X[:, :2].copy()), ShapesDisagree, r"'x' is \(3, 2\), and the plan was built"),
        (lambda p: p(X[0]), ShapesDisagree, r"built for \(1\.\.2\.\.8, 4\)"),
        (lambda p: p(np.zeros((9, 4), "f")), ShapesDisagree, r"\(9, 4\), and the plan was built"),
        (lambda p: p(X, outputs={"z": X}), BadOption, "no output 'z'"),
        (lambda p: p(X, outputs={"y": X[:2].copy()}), ShapesDisagree, r"makes \(3, 4\) float32"),
        (lambda p: p(X, stream="s"), BadOption, "no CUDA stream"),
        (lambda p: p(OnGpu(X, strides=(4, 12))), BadOption, "'x' does not lie in C order on its"),
    ],
)
def test_wrong_calls(plan: runtime.Plan, call: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        call(plan)
    np.testing.assert_array_equal(plan(X)["y"], 2 * X + 1)


def test_read_only_outputs(plan: runtime.Plan) -> None:
    y = np.zeros_like(X)
    y.flags.writeable = False
    with pytest.raises(BadOption, match="outputs: 'y' is read-only"):
        plan(X, outputs={"y": y})


def test_int64_where_the_plan_has_int32() -> None:
    engine = FakeRange(kinds=("INT32", "INT32"))
    plan = runtime.Plan(_session.Session(fake_plan(engine)), None)
    x = np.arange(8).reshape(2, 4)
    np.testing.assert_array_equal(plan(x)["y"], 2 * x + 1)
    with pytest.raises(ShapesDisagree, match="'x' holds numbers beyond int32"):
        plan(x + (1 << 40))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_word_numbers_are_floats_in_mxnet(dtype: str) -> None:
    engine = FakeRange(kinds=("INT32", "INT32"))
    plan = runtime.Plan(_session.Session(fake_plan(engine)), None)
    x = np.arange(30000, 30008, dtype=dtype).reshape(2, 4)
    found = plan(x)["y"]
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, 2 * x + 1)
    for wrong in (x + 0.5, x * np.nan):
        with pytest.raises(ShapesDisagree, match="'x' holds fractions or NaN, and the plan reads"):
            plan(wrong)
    with pytest.raises(ShapesDisagree, match="'x' holds numbers beyond int32"):
        plan(x * 1e6)
    with pytest.raises(ShapesDisagree, match="'x' holds numbers beyond int32"):
        plan(np.full((2, 4), 2**31, dtype))


def test_several_threads(plan: runtime.Plan) -> None:
    from concurrent.futures import ThreadPoolExecutor

    plan._session.plan.engine.seconds = 0.01

    def call(number: int) -> bool:
        x = np.full((1 + number % 8, 4), number, np.float32)
        made = plan(x)["y"] if number % 2 else plan(x, stream=5).wait()["y"]
        return bool((made == 2 * x + 1).all())

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(call, range(40)))
    assert plan._session.plan.engine.most > 1


def test_close(plan: runtime.Plan) -> None:
    with plan:
        plan(X, stream=5).wait()
    assert all(memory.freed for memory in plan._session.gpu.allocated)
    assert not plan._session.gpu.pinned
    with pytest.raises(EngineError):
        plan(X)


# -- arrays of other libraries -----------------------------------------------------------------


class ManagedTensor(ctypes.Structure):
    _fields_ = (("tensor", memory._Tensor), ("context", ctypes.c_void_p), ("free", ctypes.c_void_p))


class Dlpack:
    """An array that says by DLPack where it lies."""

    def __init__(self, array: np.ndarray, device: tuple[int, int], **changes: int) -> None:
        self.array, self.device, self.stream = array, device, None
        self.shape = (ctypes.c_int64 * array.ndim)(*array.shape)
        tensor = memory._Tensor(
            data=array.ctypes.data, ndim=array.ndim, code=2, bits=32, lanes=1, shape=self.shape
        )
        for name, value in changes.items():
            setattr(tensor, name, value)
        self.managed = ManagedTensor(tensor)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, stream: int | None = None) -> Any:
        self.stream = stream
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = (
            ctypes.py_object,
            [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p],
        )
        return new(ctypes.addressof(self.managed), b"dltensor", None)


def test_dlpack_on_a_gpu() -> None:
    given = Dlpack(X, (2, 3), byte_offset=16)
    seen = memory.read_memory(given, "x", 42)
    assert (seen.address, seen.shape, seen.type_name) == (X.ctypes.data + 16, (3, 4), "float32")
    assert (seen.on_gpu, seen.device_id, given.stream) == (True, 3, 42)
    with pytest.raises(BadOption, match="bfloat16"):
        memory.read_memory(Dlpack(X, (2, 0), code=4, bits=16), "x")
    with pytest.raises(BadOption, match="neither a CPU nor a GPU of NVIDIA"):
        memory.read_memory(Dlpack(X, (8, 0)), "x")
    strides = (ctypes.c_int64 * 2)(1, 3)
    turned = Dlpack(X, (2, 0))
    turned.managed.tensor.strides = strides
    with pytest.raises(BadOption, match="C order"):
        memory.read_memory(turned, "x")


def test_an_array_on_another_gpu(plan: runtime.Plan) -> None:
    with pytest.raises(BadOption, match="'x' lies on GPU 3, and the plan on GPU 0"):
        plan(Dlpack(X, (2, 3)))


def test_the_stream_of_an_array() -> None:
    assert memory.read_memory(OnGpu(X), "x").stream is None
    assert memory.read_memory(OnGpu(X, stream=9), "x").stream == 9
    assert memory.read_memory(OnGpu(X, version=2), "x").stream == memory.LEGACY_STREAM


def test_views_write_through() -> None:
    target = mx.nd.zeros((2, 2))
    memory.read_memory(target, "y").to_numpy()[:] = 5
    np.testing.assert_array_equal(target.asnumpy(), np.full((2, 2), 5))


# -- what files hold ---------------------------------------------------------------------------


@needs_rtx
def test_inspect_a_plan(folder: Path) -> None:
    runtime.build("net.onnx", "net.plan", shapes=RANGE, targets="sm86", precision="fp16")
    contents = inspect_file("net.plan")
    assert contents.kind == "a TensorRT plan"
    assert contents.facts["runs on"] == "compute capability 8.6"
    assert contents.facts["inputs"] == ["x (1..2..8, 4) float32"]
    assert contents.facts["checksum"] == "right"
    if not _has_gpu():
        assert contents.facts["layers"].startswith("not seen: ")
    (folder / "net.plan").write_bytes(b"vtrt")
    with pytest.raises(BadPlan, match="cut off"):
        inspect_file("net.plan")


def test_inspect_models(folder: Path) -> None:
    contents = inspect_file("net.onnx")
    assert contents.facts["weights"] == "2, 0.01 MiB"
    assert contents.facts["inputs"] == ["x (n, 4) float32"]
    assert contents.rows == [("MatMul", 1), ("Add", 1)]
    net, args, aux = convnet()
    mx.model.save_checkpoint("net", 0, net, args, aux)
    contents = inspect_file("net-symbol.json", "net-0000.params")
    assert contents.facts["inputs"] == ["data (?, 3, ?, ?) float32"]
    assert contents.facts["outputs"] == ["out_output (?, 5) float32"]
    assert ("Convolution", 1) in contents.rows
    contents = inspect_file("net-0000.params")
    assert contents.to_dict()["table"][0].keys() == {"name", "shape", "dtype"}
    assert len(contents.rows) == 8
    assert list(contents.lines())[1].split() == ["parameters", "8,", "0.00", "MiB"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("nosuch",), "nosuch: No such file"),
        (("net.onnx", "net-0000.params"), "parameters go with"),
        (("text",), "text: not an ONNX file"),
    ],
)
def test_files_that_cannot_be_inspected(folder: Path, words: Any, sentence: str) -> None:
    (folder / "text").write_text("text")
    with pytest.raises(BadModel, match=sentence):
        inspect_file(*words)


@pytest.mark.parametrize(
    ("told", "layer"),
    [
        ("conv0 + relu0\n", _inspection.Layer("conv0 + relu0")),
        (
            {
                "Name": "conv0 + relu0",
                "LayerType": "CaskConvolution",
                "Outputs": [
                    {
                        "Name": "relu0_output",
                        "Dimensions": [1, 64, 112, 112],
                        "Format/Datatype": "Channel major FP16 format where channel % 8 == 0",
                    }
                ],
                "TacticName": "sm80_xmma_fprop",
                "TacticValue": "0x1",
            },
            _inspection.Layer(
                "conv0 + relu0", "CaskConvolution", "fp16 NHWC8", "(1, 64, 112, 112)",
                "sm80_xmma_fprop",
            ),
        ),
        (
            {"Name": "a", "Outputs": [{"Format/Datatype": "Row major linear FP32"}],
             "TacticValue": "0x2"},
            _inspection.Layer("a", "", "fp32 linear", "()", "0x2"),
        ),
        (
            {"Name": "a", "Outputs": [{"Format/Datatype": "Half"}, {"Format/Datatype": "Half"}]},
            _inspection.Layer("a", "", "fp16", "(), ()", ""),
        ),
    ],
)  # fmt: skip
def test_layers_in_tensorrts_json(told: Any, layer: _inspection.Layer) -> None:
    json.dumps(told)
    assert _inspection.read_layer(told) == layer


def test_public_names() -> None:
    assert mxtrt.runtime is runtime
    for name in runtime.__all__:
        assert getattr(runtime, name).__doc__
