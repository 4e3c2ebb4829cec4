"""TensorRT without a GPU: options, sizes, NVIDIA's parser and builder, and running on a stand-in.

Parsing and building use TensorRT-RTX, which needs no GPU for that. `FakeGpu` and `FakeEngine` have
the calls of pycuda and TensorRT that mxtrt uses, on the memory of this machine.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import inspect
import logging
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from contextlib import contextmanager
from types import MappingProxyType, SimpleNamespace

import mxnet as mx
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import mxtrt
from mxtrt import cli, pipeline
from mxtrt import partition as partition_module
from mxtrt.arrays import TYPE_FLAGS, numpy_view
from mxtrt.engines import (
    _contexts,
    _cuda,
    _execution,
    _network,
    _nvidia,
    _precision,
    _settings,
    _staging,
    tensorrt,
)
from mxtrt.engines._fallback import BuildError, FallbackEngine
from mxtrt.engines._float32_nodes import float32_nodes
from mxtrt.engines._profiles import Profile, declared_sizes, known_profile, seen_profile
from mxtrt.errors import BadOption, EngineError, EngineNotAvailable, ShapesDisagree
from mxtrt.onnx_model import export_onnx
from mxtrt.options import Options, read_options
from mxtrt.params import read_params
from mxtrt.partition import partition
from mxtrt.symbol import read_symbol

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed"
)


@pytest.fixture(scope="module")
def rtx() -> _nvidia.Api:
    return _nvidia.api("tensorrt_rtx")


def convnet(batch: int | None = 2) -> tuple[mx.sym.Symbol, dict, dict]:
    data = mx.sym.var("data")
    x = mx.sym.Convolution(data, kernel=(3, 3), num_filter=8, pad=(1, 1), name="conv")
    x = mx.sym.BatchNorm(x, fix_gamma=False, name="bn")
    x = mx.sym.Activation(x, act_type="relu", name="relu")
    x = mx.sym.Pooling(x, global_pool=True, pool_type="avg", kernel=(1, 1), name="pool")
    x = mx.sym.FullyConnected(x, num_hidden=5, name="fc")
    net = mx.sym.softmax(x, name="out")
    rng = np.random.default_rng(0)
    shapes = {"conv_weight": (8, 3, 3, 3), "conv_bias": (8,), "bn_gamma": (8,), "bn_beta": (8,),
              "fc_weight": (5, 8), "fc_bias": (5,)}  # fmt: skip
    args = {n: mx.nd.array(rng.uniform(0.1, 1, s)) for n, s in shapes.items()}
    aux = {n: mx.nd.array(rng.uniform(0.5, 1, 8)) for n in ("bn_moving_mean", "bn_moving_var")}
    return net, args, aux


def exported(symbol, params, shapes, **options):
    checked = read_options(shapes, **options)
    graph = read_symbol(symbol, read_params(params).arrays, checked)
    proto, model = export_onnx(partition(graph, checked).parts[0])
    return proto, model.weights, checked


def one_node(op: str, inputs, outputs, initializers=(), **attrs) -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    names = [name for name, _, _ in inputs] + [tensor.name for tensor in initializers]
    node = helper.make_node(op, names, [name for name, _, _ in outputs], name="node", **attrs)
    graph = helper.make_graph(
        [node], "g", [info(*i) for i in inputs], [info(*o) for o in outputs], list(initializers)
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# -- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"engine": "tensort"}, "did you mean 'tensorrt'"),
        ({"precision": "float16"}, "precision='float16' is none of 'fp32', 'fp16', 'bf16'"),
        ({"workspace": 0}, "workspace=0 must be an integer of at least 1"),
        ({"workspace": "1G"}, "workspace='1G' must be an integer"),
        ({"optimization_level": 6}, "from 0 to 5"),
        ({"tf32": 1}, "tf32=1 must be True or False"),
        ({"cuda_graph": "yes"}, "cuda_graph='yes' must be True, False or None"),
        ({"timing_cache": 3}, "timing_cache=3 must be a path"),
        ({"contexts": 0}, "contexts=0 must be an integer of at least 1"),
        ({"device": -1}, "device=-1 must be an integer of at least 0"),
        ({"background": "yes"}, "background='yes' must be True or False"),
        ({"progress": 1}, "progress=1 must be True or False"),
        ({"sparse_weights": 2}, "sparse_weights=2 must be True or False"),
        ({"tactic_sources": "CUDNN"}, "must be a list of names, such as ['CUDNN']"),
        ({"dla_core": -1}, "dla_core=-1 must be an integer of at least 0"),
        ({"dla_core": 0}, "dla_core needs precision='fp16'"),
        ({"engine": "onnxruntime", "precision": "fp16"}, "needs engine='tensorrt'"),
    ],
)
def test_bad_options(options, sentence):
    net, args, aux = convnet()
    with pytest.raises(BadOption) as caught:
        mxtrt.optimize(net, (args, aux), **options)
    assert sentence in str(caught.value)


def test_explain_takes_the_same_options():
    net, args, aux = convnet()
    report = mxtrt.explain(
        net, (args, aux), engine="onnxruntime", tf32=False, workspace=1 << 20, cuda_graph=False,
        contexts=2, device=0, optimization_level=3, timing_cache="cache", background=True,
        sparse_weights=True, tactic_sources=["CUDNN"],
        version_compatible=True, hardware_compatible=True, progress=False,
    )  # fmt: skip
    assert report.engine == "onnxruntime"


@pytest.mark.parametrize("kind", ["tensorrt", "tensorrt_rtx"])
def test_without_the_package(kind, monkeypatch):
    monkeypatch.setattr(_nvidia, "installed", lambda name: False)
    monkeypatch.setattr(_nvidia, "_apis", {})
    net, args, aux = convnet()
    with pytest.raises(EngineNotAvailable, match=f"{kind} is not installed .*pip install"):
        mxtrt.optimize(net, (args, aux), engine=kind)


def test_auto_without_tensorrt_says_why(monkeypatch, caplog):
    monkeypatch.setattr(_nvidia, "installed", lambda name: False)
    monkeypatch.setattr(_nvidia, "_apis", {})
    net, args, aux = convnet()
    with caplog.at_level(logging.INFO, "mxtrt"):
        assert mxtrt.explain(net, (args, aux)).engine == "onnxruntime"
    lines = [r.getMessage() for r in caplog.records if "engine='auto'" in r.getMessage()]
    assert len(lines) == 1
    assert "takes onnxruntime" in lines[0]
    assert "tensorrt is not installed" in lines[0]


def test_without_a_gpu(monkeypatch):
    monkeypatch.setattr(_nvidia, "installed", lambda name: True)
    monkeypatch.setattr(_cuda, "_driver_module", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    net, args, aux = convnet()
    with pytest.raises(EngineNotAvailable, match="pycuda is not installed"):
        mxtrt.optimize(net, (args, aux), engine="tensorrt")


@needs_rtx
def test_options_that_the_version_lacks(rtx):
    with pytest.raises(BadOption, match=r"timing_cache: TensorRT-RTX .* has none"):
        tensorrt.TensorRTBuilder(rtx, Options(timing_cache="x"))
    with pytest.raises(BadOption, match=r"_CONVOLUTIONS, and no 'JIT_CONV'; did you mean 'JIT_CO"):
        tensorrt.TensorRTBuilder(rtx, read_options(tactic_sources=["jit_conv"]))
    tensorrt.TensorRTBuilder(rtx, read_options(tactic_sources=["jit_convolutions"]))


class Old:
    """A module of TensorRT as 8.5 is, as far as options ask."""

    class Runtime:
        pass

    class IBuilderConfig:
        def set_timing_cache(self):
            pass

    class BuilderFlag:
        __members__ = dict.fromkeys(("FP16", "TF32", "GPU_FALLBACK"), 0)

    class DataType:
        __members__ = dict.fromkeys(("FLOAT", "HALF"), 0)

    class TacticSource:
        __members__ = MappingProxyType({"CUBLAS": 0, "CUBLAS_LT": 1, "CUDNN": 2})


def old_api(builder=None) -> _nvidia.Api:
    api = object.__new__(_nvidia.Api)
    api.name, api.title, api.version, api.module = "tensorrt", "TensorRT", "TensorRT 8.5", Old
    api.lock, api.logger = threading.Lock(), FakeLogger()
    api.builder = lambda: builder
    return api


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"version_compatible": True}, "version_compatible needs TensorRT 8.6 or newer; this is"),
        ({"hardware_compatible": True}, "hardware_compatible needs TensorRT 8.6 or newer"),
        ({"refit": True}, "refit needs a TensorRT with OnnxParserRefitter; this is TensorRT 8.5"),
        ({"sparse_weights": True}, "sparse_weights: TensorRT 8.5 does not look for zeros"),
        ({"tactic_sources": ["cudn"]}, "has CUBLAS, CUBLAS_LT, CUDNN, and no 'CUDN'; did you mean"),
        ({"precision": "bf16"}, "precision='bf16': TensorRT 8.5 has 'fp32', 'fp16'"),
        ({"optimization_level": 2}, "optimization_level needs TensorRT 8.6"),
    ],
)
def test_options_that_an_old_version_lacks(options, sentence):
    with pytest.raises(BadOption) as caught:
        tensorrt.TensorRTBuilder(old_api(), read_options(**options))
    assert sentence in str(caught.value)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(
    ("number", "refused"),
    [
        (2**31 - 1, False),
        (2**31, True),
        (-(2**31) - 1, True),
        (2**63 - 1, False),
        (-(2**63), False),
    ],
)
def test_numbers_beyond_int32_before_tensorrt_10(number, refused, inside):
    """TensorRT 8 puts the nearest int32 in their place, and only warns."""
    constant = onnx.numpy_helper.from_array(np.array([1, number]), "c")
    if inside:
        output = [helper.make_tensor_value_info("c", 7, [2])]
        branch = helper.make_graph([], "branch", [], output, [constant])
        branches = {"then_branch": branch, "else_branch": branch}
        model = one_node("If", [("x", 9, [])], [("y", 7, [2])], **branches)
    else:
        model = one_node("Add", [("x", 7, [2])], [("y", 7, [2])], [constant])
    reason = _network._refused_dtype(old_api(), model)
    if refused:
        assert reason == (
            f"int64: a constant has {number}, and TensorRT computes in int32, which ends at "
            "2147483647"
        )
    else:
        assert reason is None
    newer = old_api()
    newer.module = type("New", (Old,), {"DataType": type("T", (), {"__members__": {"INT64": 0}})})
    assert _network._refused_dtype(newer, model) is None


def test_weights_beyond_int32_before_tensorrt_10():
    weights = {"w": np.array([1, 2**40])}
    model = one_node("Add", [("x", 7, [2]), ("w", 7, [2])], [("y", 7, [2])])
    profile = Profile((((2, 2, 2),), ((2, 2, 2),)))
    with pytest.raises(EngineError, match="int64: 'w' has 1099511627776, and TensorRT computes in"):
        _network.build_plan(old_api(), model, weights, profile, Options(progress=False))


def test_what_ends_the_process_before_tensorrt_10():
    """Asked of the operator alone, of the whole part, and of the weights."""
    types = [("x", 9, [2])], [("y", 9, [2])]
    nothing = numpy_helper.from_array(np.zeros(2, bool), "c")
    alone = one_node("And", *types, [nothing])
    alone.graph.node[0].name = "both"
    sentence = "TensorRT: its builder ends the process over a logical and with zeros only"
    assert _network.refusal(old_api(), alone) == sentence
    profile = Profile((((2, 2, 2),),))
    assert _network.refused_nodes(old_api(), alone, profile, "fp32") == {"both": sentence}
    nothing.data_location = TensorProto.EXTERNAL
    with_weight = one_node("And", *types, [nothing])
    with pytest.raises(EngineError, match=sentence):
        weights = {"c": np.zeros(2, bool)}
        _network.build_plan(old_api(), with_weight, weights, profile, Options(progress=False))
    newer = old_api()
    newer.module = type("New", (Old,), {"DataType": type("T", (), {"__members__": {"INT64": 0}})})
    assert _network._fatal_nodes(newer, alone) == {}


@pytest.mark.parametrize(("cores", "has"), [(0, "none"), (1, "0 only"), (2, "0 to 1")])
def test_a_dla_core_that_is_not_there(cores, has):
    api = old_api(SimpleNamespace(num_DLA_cores=cores))
    builder = tensorrt.TensorRTBuilder(api, read_options(dla_core=2, precision="fp16"))
    with pytest.raises(BadOption, match=f"dla_core=2: the DLA cores of this machine: {has}$"):
        builder.require_gpu(FakeGpu())


def test_settings_of_the_builder():
    names = ("SPARSE_WEIGHTS", "GPU_FALLBACK", "VERSION_COMPATIBLE")
    trt = SimpleNamespace(
        BuilderFlag=SimpleNamespace(**{name: name for name in names}),
        TacticSource=Old.TacticSource,
        DeviceType=SimpleNamespace(DLA="DLA"),
        HardwareCompatibilityLevel=SimpleNamespace(AMPERE_PLUS="AMPERE_PLUS"),
    )
    flags: list[str] = []
    sources: list[int] = []
    config = SimpleNamespace(set_flag=flags.append, set_tactic_sources=sources.append)
    options = read_options(
        sparse_weights=True, tactic_sources=["CUBLAS", "CUDNN"], dla_core=1, precision="fp16",
        version_compatible=True, hardware_compatible=True,
    )  # fmt: skip
    builder = SimpleNamespace(num_DLA_cores=2)
    _settings.configure_machine(SimpleNamespace(module=trt), builder, config, options)
    assert flags == list(names)
    assert sources == [0b101]
    assert (config.default_device_type, config.DLA_core) == ("DLA", 1)
    assert config.hardware_compatibility_level == "AMPERE_PLUS"
    bare = SimpleNamespace()
    _settings.configure_machine(SimpleNamespace(module=trt), builder, bare, read_options())
    assert not vars(bare)


@pytest.mark.parametrize(
    "known", [(), ("FASTER_DYNAMIC_SHAPES_0805",), ("PROFILE_SHARING_0806", "ANOTHER")]
)
def test_what_versions_offer_is_asked_for(known: tuple[str, ...]) -> None:
    trt = SimpleNamespace(
        PreviewFeature=SimpleNamespace(**{name: name for name in known}),
        ProfilingVerbosity=SimpleNamespace(DETAILED="DETAILED"),
    )
    if not known:
        del trt.PreviewFeature
    api = SimpleNamespace(module=trt, has_flag=lambda flag: False, strongly_typed=True)
    asked: dict[str, bool] = {}
    config = SimpleNamespace(set_preview_feature=asked.__setitem__)
    _settings.configure(api, config, None, read_options(), ())
    assert asked == {name: True for name in known if name != "ANOTHER"}


@needs_rtx
@pytest.mark.parametrize(
    "option",
    [{"sparse_weights": True}, {"tactic_sources": []}, {"optimization_level": 0},
     {"workspace": 1 << 28}, {"hardware_compatible": True}],
    ids=str,
)  # fmt: skip
def test_real_builders_take_the_options(rtx, option):
    net, args, aux = convnet()
    assert build(rtx, net, (args, aux), {"data": (2, 3, 16, 16)}, **option).nbytes > 1000


def test_what_the_runtime_is_told():
    runtime = SimpleNamespace(engine_host_code_allowed=False, DLA_core=0)
    api = old_api()
    api.runtime = lambda: runtime
    tensorrt._prepare_runtime(api, read_options())
    assert not runtime.engine_host_code_allowed
    options = read_options(version_compatible=True, dla_core=1, precision="fp16")
    tensorrt._prepare_runtime(api, options)
    assert (runtime.engine_host_code_allowed, runtime.DLA_core) == (True, 1)


FLAGS = {
    ("--precision", "fp16"): {"precision": "fp16"},
    ("--no-tf32",): {"tf32": False},
    ("--workspace", "1M"): {"workspace": 1 << 20},
    ("--optimization-level", "2"): {"optimization_level": 2},
    ("--timing-cache", "t"): {"timing_cache": "t"},
    ("--sparse-weights",): {"sparse_weights": True},
    ("--tactic-sources", "CUDNN, CUBLAS"): {"tactic_sources": ["CUDNN", "CUBLAS"]},
    ("--dla-core", "1"): {"dla_core": 1},
    ("--refit",): {"refit": True},
    ("--version-compatible",): {"version_compatible": True},
    ("--hardware-compatible",): {"hardware_compatible": True},
    ("--no-progress",): {"progress": False},
    ("--device", "3"): {"device": 3},
    ("--cuda-graph",): {"cuda_graph": True},
    ("--no-cuda-graph",): {"cuda_graph": False},
    ("--contexts", "2"): {"contexts": 2},
    ("--background",): {"background": True},
}


@pytest.mark.parametrize("flag", [(), *FLAGS], ids=" ".join)
def test_flags_of_the_command_line(flag, monkeypatch):
    net, args, aux = convnet()
    report, given = mxtrt.explain(net, (args, aux), engine="onnxruntime"), []
    monkeypatch.setattr(pipeline, "explain", lambda *_, **options: given.append(options) or report)
    done = CliRunner().invoke(cli.main, ["explain", "net-symbol.json", *flag])
    assert done.exit_code == 0, done.output
    names = set().union(*FLAGS.values())
    assert {n: v for n, v in given[0].items() if n in names} == FLAGS.get(flag, {})


@pytest.mark.parametrize("command", ["explain", "optimize", "run", "bench", "build"])
def test_flags_are_the_same_everywhere(command):
    told = CliRunner().invoke(cli.main, [command, "--help"]).output
    only_run = {"--cuda-graph", "--no-cuda-graph", "--contexts", "--background"}
    for flag, *_ in FLAGS:
        assert (f"{flag} " in told or f"{flag}\n" in told) is (
            command != "build" or flag not in only_run
        )


def test_options_of_tensorrt_have_flags():
    others = {
        "shapes", "dtypes", "engine", "min_subgraph_size", "exclude_ops", "exclude_nodes", "strict",
        "allow_extra_params", "session_options", "cache_dir", "cache_size",
    }  # fmt: skip
    names = set().union(*FLAGS.values())
    assert set(Options.__dataclass_fields__) - others == names
    assert set(inspect.signature(mxtrt.optimize).parameters) >= names


# -- sizes -------------------------------------------------------------------------------------


def test_unknown_sizes_follow_the_calls():
    declared = ((None, 3, None),)
    first = seen_profile(declared, [(5, 3, 7)], None, generous=True)
    assert first.inputs == (((1, 5, 8), (3, 3, 3), (7, 7, 7)),)
    assert first.covers([(8, 3, 7)])
    assert not first.covers([(9, 3, 7)])
    assert not first.covers([(5, 3)])
    second = seen_profile(declared, [(9, 3, 20)], first, generous=True)
    assert second.inputs == (((1, 9, 16), (3, 3, 3), (7, 20, 32)),)
    third = seen_profile(declared, [(2, 3, 5)], second, generous=True)
    assert third.inputs == (((1, 9, 16), (3, 3, 3), (4, 20, 32)),)
    assert all(third.covers([shape]) for shape in [(5, 3, 7), (9, 3, 20), (2, 3, 5)])
    exact = seen_profile(declared, [(9, 3, 20)], first, generous=False)
    assert exact.inputs == (((1, 9, 9), (3, 3, 3), (7, 20, 20)),)


def test_a_batch_of_one_is_static():
    assert seen_profile(((None, 3),), [(1, 3)], None, generous=True).is_static


def test_unknown_ranks_and_no_ranks():
    profile = seen_profile((None, ()), [(4, 2), ()], None, generous=True)
    assert profile.inputs == (((1, 4, 4), (2, 2, 2)), ())
    assert profile.corners(1) == ((), (), ())


def test_sizes_that_cannot_be():
    with pytest.raises(ShapesDisagree, match="axis 1 of an input is 4, but was fixed to 3"):
        seen_profile(((None, 3),), [(1, 4)], None, generous=True)
    with pytest.raises(ShapesDisagree, match="takes 2 dimensions"):
        seen_profile(((None, 3),), [(1, 3, 1)], None, generous=True)
    with pytest.raises(EngineError, match="no elements"):
        seen_profile(((None, 3),), [(0, 3)], None, generous=True)


def test_ranges_are_profiles():
    net, args, aux = convnet()
    proto, _, options = exported(net, (args, aux), {"data": ((1, 8, 32), 3, 16, 16)})
    declared = declared_sizes(proto, options.shapes)
    profile = known_profile(declared)
    assert profile is not None
    assert profile.corners(0) == ((1, 3, 16, 16), (8, 3, 16, 16), (32, 3, 16, 16))
    wider = seen_profile(declared, [(40, 3, 16, 16)], profile, generous=True)
    assert wider.inputs[0][0] == (1, 40, 64)
    assert str(profile) == "(1..8..32, 3, 16, 16)"


# -- NVIDIA's parser and builder ---------------------------------------------------------------


def build(api, symbol, params, shapes, **options):
    proto, weights, checked = exported(symbol, params, shapes, engine="tensorrt_rtx", **options)
    profile = known_profile(declared_sizes(proto, checked.shapes))
    views = {name: numpy_view(array) for name, array in weights.items()}
    return _network.build_plan(api, proto, views, profile, checked, ("SM86",))


@needs_rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("batch", [2, (1, 4, 8)])
def test_builds_without_a_gpu(rtx, precision, batch):
    net, args, aux = convnet()
    plan = build(rtx, net, (args, aux), {"data": (batch, 3, 16, 16)}, precision=precision)
    assert plan.nbytes > 1000


@needs_rtx
@pytest.mark.parametrize("limit", [0, 1 << 30], ids=["file", "embedded"])
def test_weights_reach_parsers_that_take_none_in_memory(rtx, limit, monkeypatch):
    net, args, aux = convnet()
    proto, weights, _ = exported(net, (args, aux), {"data": (2, 3, 16, 16)})
    views = {name: numpy_view(array) for name, array in weights.items()}
    real, seen = rtx.module.OnnxParser, []

    class Old:
        """A parser without load_initializer, as before TensorRT 10.13."""

        def __init__(self, definition, logger):
            self.parser = real(definition, logger)
            self.num_errors = 0
            self.supports_operator = self.parser.supports_operator

        def parse(self, model, *path):
            seen.append(len(model))
            return self.parser.parse(model, *path)

    monkeypatch.setattr(rtx, "module", SimpleNamespace(**{**vars(rtx.module), "OnnxParser": Old}))
    monkeypatch.setattr(_network, "EMBEDDED", limit)
    with rtx.lock:
        network = _network.parse(rtx, proto, views)
    assert network.definition.num_outputs == 1
    assert len(seen) == 1


@needs_rtx
def test_refusals_are_nvidias_words(rtx):
    f, i = TensorProto.FLOAT, TensorProto.INT64
    reason = _network.refusal(rtx, one_node("NonZero", [("x", f, [3, 4])], [("y", i, None)]))
    assert reason is not None
    assert reason.startswith("TensorRT-RTX: ")
    assert "NonZero" in reason
    assert _network.refusal(rtx, one_node("Relu", [("x", f, [3, None])], [("y", f, None)])) is None
    assert _network.refusal(rtx, one_node("Relu", [("x", f, None)], [("y", f, None)])) is None


@needs_rtx
def test_dtypes_that_tensorrt_lacks(rtx):
    d, f, b = TensorProto.DOUBLE, TensorProto.FLOAT, TensorProto.INT8
    double = one_node("Add", [("x", d, [3]), ("y", d, [3])], [("z", d, [3])])
    assert _network.refusal(rtx, double) == "float64: TensorRT-RTX computes in float32 at most"
    cast = one_node("Cast", [("x", f, [3])], [("z", d, [3])], to=d)
    assert "float64" in str(_network.refusal(rtx, cast))
    assert "int8" in str(_network.refusal(rtx, one_node("Relu", [("x", b, [3])], [("z", b, [3])])))


@needs_rtx
def test_scratch_weights_need_no_values(rtx):
    f = TensorProto.FLOAT
    weight = TensorProto(name="w", data_type=f, dims=[8, 3, 3, 3])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="mxtrt-weights")
    conv = one_node("Conv", [("x", f, [1, 3, 8, 8])], [("y", f, None)], [weight])
    assert _network.refusal(rtx, conv) is None


@needs_rtx
def test_shapes_that_come_as_data_are_refused(rtx):
    f, i = TensorProto.FLOAT, TensorProto.INT64
    reshape = one_node("Reshape", [("x", f, [3, 4]), ("s", i, [2])], [("y", f, None)])
    assert "would decide about shapes" in str(_network.refusal(rtx, reshape))


@needs_rtx
def test_partition_asks_nvidias_parser(rtx):
    net, args, aux = convnet()
    options = read_options({"data": (2, 3, 16, 16)}, engine="tensorrt_rtx")
    builder = tensorrt.TensorRTBuilder(rtx, options)
    graph = read_symbol(net, read_params((args, aux)).arrays, options)
    assert not partition(graph, options, builder.refuses).left


class Picky:
    """NVIDIA's parser, which also refuses some operators in models of several nodes."""

    def __init__(self, real, refused, newer):
        self.real, self.refused, self.newer, self.parsed = real, refused, newer, []

    def __call__(self, definition, logger):
        self.parser, self.errors = self.real(definition, logger), []
        return self

    def __getattr__(self, name):
        return getattr(self.parser, name)

    num_errors = property(lambda self: len(self.errors))

    def get_error(self, index):
        return self.errors[index]

    def load_model_proto(self, content):
        model = onnx.ModelProto.FromString(content)
        kinds = [node.op_type for node in model.graph.node]
        if len(kinds) > 2:  # a scratch model of a dense layer has two
            self.parsed.append(kinds)
            at = next((i for i, kind in enumerate(kinds) if kind in self.refused), None)
            if at is not None:
                error = SimpleNamespace(
                    desc=lambda: f"In node {at}: no {kinds[at]} with others", node=lambda: at
                )
                if self.newer:
                    name = model.graph.node[at].name
                    error = SimpleNamespace(
                        desc=error.desc, node=lambda: -1, node_name=lambda: name
                    )
                self.errors = [error]
                return False
        return self.parser.load_model_proto(content)


def picky(rtx, monkeypatch, *refused, newer=False) -> Picky:
    parser = Picky(rtx.module.OnnxParser, refused, newer)
    module = SimpleNamespace(**{**vars(rtx.module), "OnnxParser": parser})
    monkeypatch.setattr(rtx, "module", module)
    return parser


def explained(rtx, monkeypatch, shapes, **options):
    builder = tensorrt.TensorRTBuilder(rtx, Options())
    monkeypatch.setattr(pipeline, "builder", lambda options: builder)
    net, args, aux = convnet()
    return mxtrt.explain(net, (args, aux), shapes=shapes, engine="tensorrt_rtx", **options)


@needs_rtx
@pytest.mark.parametrize("newer", [False, True], ids=["index", "name"])
@pytest.mark.parametrize("batch", [2, None, (1, 2, 4)])
def test_what_is_refused_in_its_part_stays_in_mxnet(
    rtx, newer, batch, monkeypatch, caplog, tmp_path
):
    parser = picky(rtx, monkeypatch, "GlobalAveragePool", "BatchNormalization", newer=newer)
    options = {"min_subgraph_size": 1, "cache_dir": tmp_path}
    with caplog.at_level(logging.INFO, "mxtrt"):
        report = explained(rtx, monkeypatch, {"data": (batch, 3, 16, 16)}, **options)
    assert {node.name: reason for node, reason in report.left.items()} == {
        "bn": "TensorRT-RTX: In node 1: no BatchNormalization with others",
        "pool": "TensorRT-RTX: In node 1: no GlobalAveragePool with others",
    }
    assert [[node.name for node in part.nodes] for part in report.parts] == [
        ["conv"], ["relu"], ["fc", "out"],
    ]  # fmt: skip
    assert len(parser.parsed) == 3  # the whole, what comes behind bn, and what comes behind pool
    told = [r.getMessage() for r in caplog.records if "stays in MXNet" in r.getMessage()]
    assert told == [
        f"BatchNorm 'bn' stays in MXNet: {report.left[report.graph.nodes[1]]}",
        f"Pooling 'pool' stays in MXNet: {report.left[report.graph.nodes[3]]}",
    ]
    parser.parsed.clear()
    again = explained(rtx, monkeypatch, {"data": (batch, 3, 16, 16)}, **options)
    assert again.to_dict() == report.to_dict()
    assert not parser.parsed, "the store remembers what the parser said"


@needs_rtx
def test_parts_without_faults_are_converted_once(rtx, monkeypatch):
    parser, converted = picky(rtx, monkeypatch), []
    real = pipeline.export_onnx
    monkeypatch.setattr(pipeline, "export_onnx", lambda part: converted.append(part) or real(part))
    built = []
    builder = tensorrt.TensorRTBuilder(rtx, Options())
    monkeypatch.setattr(builder, "build", lambda proto, *_: built.append(proto) or FakePart())
    monkeypatch.setattr(pipeline, "builder", lambda options: builder)
    net, args, aux = convnet()
    mxtrt.optimize(net, (args, aux), shapes={"data": (2, 3, 16, 16)}, engine="tensorrt_rtx")
    assert len(parser.parsed) == len(converted) == len(built) == 1


class FakePart:
    kind = "tensorrt_rtx"

    def execute(self, inputs, outputs, stream):
        raise EngineError("not here")


@needs_rtx
def test_rounds_are_bounded(rtx, monkeypatch):
    monkeypatch.setattr(partition_module, "MAX_ROUNDS", 1)
    picky(rtx, monkeypatch, "GlobalAveragePool", "BatchNormalization")
    report = explained(rtx, monkeypatch, {"data": (2, 3, 16, 16)}, cache_dir=False)
    assert {node.name for node in report.left} == {"conv", "bn"}  # a part of one is too little


@needs_rtx
def test_a_fault_without_a_node_is_left_to_the_build(rtx, monkeypatch):
    parser = picky(rtx, monkeypatch, "Relu")
    monkeypatch.setattr(Picky, "get_error", lambda self, index: SimpleNamespace(
        desc=lambda: "the whole graph", node=lambda: -1))  # fmt: skip
    report = explained(rtx, monkeypatch, {"data": (2, 3, 16, 16)}, cache_dir=False)
    assert not report.left
    assert len(parser.parsed) == 1


def test_every_onnx_node_has_a_source():
    net, args, aux = convnet()
    options = read_options({"data": (2, 3, 16, 16)})
    graph = read_symbol(net, read_params((args, aux)).arrays, options)
    proto, model = export_onnx(partition(graph, options).parts[0])
    names = [node.name for node in proto.graph.node]
    assert {model.source(name).name for name in names} == {node.name for node in graph.nodes}
    lowered, _ = _precision.strongly_typed(proto, {n: numpy_view(a) for n, a in
                                                   model.weights.items()}, "fp16")  # fmt: skip
    assert all(
        model.source(node.name) for node in lowered.graph.node if not node.name.startswith("data/")
    )
    assert model.source("conv/Conv/Pow3").name == "conv"
    assert model.source("nothing") is None


@needs_rtx
def test_a_broken_model_is_an_engine_error(rtx):
    model = one_node("Foo", [("x", TensorProto.FLOAT, [2])], [("y", TensorProto.FLOAT, [2])])
    profile = Profile((((2, 2, 2),),))
    with pytest.raises(EngineError, match="Plugin not found"):
        _network.build_plan(rtx, model, {}, profile, Options(), ("SM86",))


@needs_rtx
def test_plans_need_a_gpu_to_run(rtx):
    if has_gpu():
        pytest.skip("there is a GPU")
    with pytest.raises((EngineError, EngineNotAvailable)):
        _execution.LoadedPlan(rtx, FakeGpu(), b"no plan", ["x"], ["y"])


def has_gpu() -> bool:
    try:
        _cuda.driver()
    except EngineNotAvailable:
        return False
    return True


@needs_rtx
def test_messages_are_collected_where_they_were_asked_for(rtx):
    logger, severity = rtx.logger, rtx.module.ILogger.Severity
    with logger.collecting(quiet=True) as outer:
        with logger.collecting(quiet=True) as inner:
            pass
        logger.log(severity.ERROR, "after the inner one")
    logger.log(severity.VERBOSE, "after both")
    assert not inner
    assert _nvidia.summary(outer) == "after the inner one"
    assert not logger.collectors


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('creator && "Plugin not found, is it?"', "Plugin not found, is it?"),
        ("Assertion failed: !isDynamic(x): sizes\nare open", "!isDynamic(x): sizes are open"),
        ("Invalid Node - a\nElementWise requires floats", "ElementWise requires floats"),
        ("Invalid Node - a", "Invalid Node - a"),
    ],
)  # fmt: skip
def test_sentences(text, sentence):
    assert _nvidia.sentence(text) == sentence
    assert len(_nvidia.sentence("x" * 1000)) <= _nvidia.MAX_MESSAGE


# -- precision ---------------------------------------------------------------------------------


def run_onnx(model: onnx.ModelProto, feed):
    import onnxruntime as ort

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def layer_norm_model() -> onnx.ModelProto:
    f = TensorProto.FLOAT
    rng = np.random.default_rng(1)
    tensors = [numpy_helper.from_array(rng.random(16, np.float32), n) for n in ("gamma", "beta")]
    return one_node(
        "LayerNormalization", [("x", f, ["n", 4, 16])], [("y", f, ["n", 4, 16])], tensors,
        axis=-1, epsilon=1e-5,
    )  # fmt: skip


def test_layer_normalization_for_parsers_without_it():
    model = layer_norm_model()
    same, names = _precision.decomposed(model, lambda op: True)
    assert same is model
    assert not names
    other, names = _precision.decomposed(model, lambda op: False)
    onnx.checker.check_model(other)
    assert names == {node.name for node in other.graph.node}
    x = np.random.default_rng(2).normal(3, 5, (2, 4, 16)).astype("float32")
    want, have = run_onnx(model, {"x": x})[0], run_onnx(other, {"x": x})[0]
    np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_strong_types_keep_inputs_and_outputs(precision):
    net, args, aux = convnet()
    proto, weights, _ = exported(net, (args, aux), {"data": (2, 3, 16, 16)})
    views = {name: numpy_view(array) for name, array in weights.items()}
    model, lowered = _precision.strongly_typed(proto, views, precision)
    for before, after in ((proto.graph.input, model.graph.input),
                          (proto.graph.output, model.graph.output)):  # fmt: skip
        assert [i.SerializeToString() for i in before] == [i.SerializeToString() for i in after]
    embedded = _network._embedded(model, lowered)
    # opset 17 has no bfloat16 convolution, but NVIDIA's parser reads one
    onnx.checker.check_model(embedded, full_check=precision == "fp16")
    if precision == "fp16":  # ONNX Runtime's CPU has no bfloat16 convolution
        x = np.random.default_rng(3).random((2, 3, 16, 16), np.float32)
        want = run_onnx(_network._embedded(proto, views), {"data": x})[0]
        have = run_onnx(embedded, {"data": x})[0]
        np.testing.assert_allclose(have, want, atol=2e-3)


def test_large_numbers_stay_in_float32():
    model, _ = _precision.strongly_typed(layer_norm_model(), {}, "fp16")
    types = {t.data_type for t in model.graph.initializer}
    assert types == {TensorProto.FLOAT}
    x = np.random.default_rng(4).normal(0, 3e5, (1, 4, 16)).astype("float32")
    np.testing.assert_array_equal(run_onnx(model, {"x": x}), run_onnx(layer_norm_model(), {"x": x}))


def test_lowering_rounds_and_saturates():
    values = np.array([1e30, -1e30, 1.0, 0.1], np.float32)
    assert np.isfinite(_precision._lowered(values, "fp16")).all()
    bits = _precision._lowered(values, "bf16").astype(np.uint32) << 16
    np.testing.assert_allclose(bits.view(np.float32), values, rtol=2**-8)


NUMBERS = {
    "a cast": ([("Cast", {"to": TensorProto.INT32})], "int32"),
    "through others": (
        [("Add", {}), ("Relu", {}), ("Reshape", {}), ("Floor", {}), ("Cast", {"to": 7})], "int64",
    ),
    "a comparison": ([("Mul", {}), ("Greater", {})], "bool"),
    "equal": ([("Equal", {})], "bool"),
    "truths": ([("Sub", {}), ("Cast", {"to": TensorProto.BOOL})], "bool"),
    "the largest": ([("Mul", {}), ("ArgMax", {"axis": -1, "keepdims": 0})], "int64"),
}  # fmt: skip


def numbers_model(name: str) -> onnx.ModelProto:
    """Return a model that makes places or truths of (4, 3000) float32 numbers."""
    steps, dtype = NUMBERS[name]
    nodes, last = [], "x"
    for i, (op, attributes) in enumerate(steps):
        beside = {"Add": ["half"], "Mul": ["one"], "Greater": ["c"], "Equal": ["c"], "Sub": ["c"],
                  "Reshape": ["shape"]}.get(op, [])  # fmt: skip
        made = "y" if i == len(steps) - 1 else f"t{i}"
        nodes.append(helper.make_node(op, [last, *beside], [made], name=f"n{i}", **attributes))
        last = made
    constants = {"half": np.float32(0.5), "one": np.float32(1), "c": np.float32(30001),
                 "shape": np.int64([4, 3000])}  # fmt: skip
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (4, 3000))],
        [helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)),
                                       None)],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("name", NUMBERS)
def test_places_are_not_rounded(name, precision):
    """Word 30001 is not word 30000, which is what float16 makes of it."""
    model = numbers_model(name)
    names = float32_nodes(model)
    assert names == {node.name for node in model.graph.node}
    lowered, _ = _precision.strongly_typed(model, {}, precision, names)
    x = np.random.default_rng(0).permutation(12000).reshape(4, 3000).astype("float32") + 24000
    np.testing.assert_array_equal(run_onnx(lowered, {"x": x}), run_onnx(model, {"x": x}))


def test_numbers_before_weights_are_rounded():
    """What a layer with weights makes of its inputs is as exact as the precision is."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2, 3] x, float[3, 4] w) => (bool[2, 4] y) {
            a = MatMul (x, w)  b = Neg (a)  c = Tanh (b)  d = Abs (c)  y = Greater (d, b)
        }"""
    )
    for node in model.graph.node:
        node.name = node.output[0]
    assert float32_nodes(model) == {"b", "d", "y"}


def test_places_in_loops_are_not_rounded():
    body = helper.make_graph(
        [helper.make_node("Cast", ["r"], ["i"], name="inside", to=TensorProto.INT32)], "body",
        [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("i", TensorProto.INT32, None)],
    )  # fmt: skip
    scan = helper.make_node("Scan", ["x"], ["y"], name="scan", num_scan_inputs=1, body=body)
    model = helper.make_model(helper.make_graph([scan], "g", [], []))
    assert float32_nodes(model) == {"inside"}


class FakeLayer:
    def __init__(self, name: str, kind: str, *dtypes: str, reads: str = "float32") -> None:
        self.name, self.type, self.precision = name, SimpleNamespace(name=kind), None
        self.num_outputs, self.dtypes, self.types = len(dtypes), dtypes, {}
        self.reads = reads

    def get_input(self, index):
        return SimpleNamespace(dtype=self.reads)

    def get_output(self, index):
        made = index < self.num_outputs  # else TensorRT's answer is None
        return SimpleNamespace(dtype=self.dtypes[index]) if made else None

    def set_output_type(self, index, dtype):
        self.types[index] = dtype


@pytest.mark.parametrize(
    ("precision", "has_float16", "flags", "pinned"),
    [
        ("fp32", False, set(), []),
        ("fp16", False, {"FP16", "OBEY_PRECISION_CONSTRAINTS"}, ["norm/Pow", "words"]),
        ("bf16", False, {"BF16", "OBEY_PRECISION_CONSTRAINTS"}, ["norm/Pow", "words"]),
        (
            "fp32",
            True,
            {"FP16", "OBEY_PRECISION_CONSTRAINTS"},
            ["norm/Pow", "conv", "best", "words", "more"],
        ),
    ],
)
def test_flags_of_weakly_typed_versions(precision, has_float16, flags, pinned):
    layers = [
        FakeLayer("norm/Pow", "ELEMENTWISE", "float32"),
        FakeLayer("conv", "CONVOLUTION", "float32"),
        FakeLayer("half", "CONVOLUTION", "float16"),
        FakeLayer("shape", "SHAPE", "int32"),
        FakeLayer("weight", "CONSTANT", "float32"),
        FakeLayer("equal sizes", "ASSERTION"),
        FakeLayer("best", "TOPK", "float32", "int32"),
        FakeLayer("words", "IDENTITY", "int32"),
        FakeLayer("more", "ELEMENTWISE", "bool"),
        FakeLayer("sizes", "ELEMENTWISE", "int32", reads="int32"),
    ]
    names = ("FP16", "BF16", "OBEY_PRECISION_CONSTRAINTS")
    trt = SimpleNamespace(
        float32="float32",
        BuilderFlag=SimpleNamespace(**{name: name for name in names}),
        LayerType=SimpleNamespace(CONSTANT=layers[4].type),
    )
    definition = SimpleNamespace(num_layers=len(layers), get_layer=layers.__getitem__)
    network = _network.Network(definition, None, frozenset({"norm/Pow", "words"}), has_float16)
    found: set = set()
    config = SimpleNamespace(set_flag=found.add)
    _settings.lower_precision(SimpleNamespace(module=trt), config, network, precision)
    assert found == flags
    assert [layer.name for layer in layers if layer.precision == "float32"] == pinned
    decided = {"words", "more"}  # places and truths stay what they are
    assert [layer.name for layer in layers if layer.types] == [
        name for name in pinned if name not in decided
    ]
    assert all(layer.types in ({}, {0: "float32"}) for layer in layers)


# -- running, on a stand-in for CUDA and TensorRT ----------------------------------------------


class FakeMemory:
    def __init__(self, nbytes: int) -> None:
        self.array = np.zeros(nbytes, np.uint8)
        self.nbytes, self.freed = nbytes, False

    def __int__(self) -> int:
        assert not self.freed
        return self.array.ctypes.data

    def free(self) -> None:
        assert not self.freed
        self.freed = True


def driver_callbacks(gpu: FakeGpu) -> list:
    """Return the functions of the driver that copies call, as C sees them."""
    word, pointer, number = ctypes.c_uint64, ctypes.c_void_p, ctypes.c_size_t

    def copy_to_device(device, host, nbytes, stream):
        ctypes.memmove(device, host, nbytes)
        return gpu.error

    def copy_to_host(host, device, nbytes, stream):
        ctypes.memmove(host, device, nbytes)
        return gpu.error

    def launch(graph, stream):
        return 0 if gpu.graphs[graph].launch(stream) else 1

    return [
        ctypes.CFUNCTYPE(ctypes.c_int, word, pointer, number, pointer)(copy_to_device),
        ctypes.CFUNCTYPE(ctypes.c_int, pointer, word, number, pointer)(copy_to_host),
        ctypes.CFUNCTYPE(ctypes.c_int, pointer, pointer)(launch),
        ctypes.CFUNCTYPE(ctypes.c_int, pointer)(lambda stream: 0),
        ctypes.CFUNCTYPE(ctypes.c_int, pointer, ctypes.c_int, word)(lambda *_: 1),  # not pinned
    ]


class FakeGpu:
    """pycuda on this machine's memory; counts what is allocated."""

    errors = (RuntimeError,)
    index, name = 0, "a stand-in"

    def __init__(self) -> None:
        self.depth = threading.local()
        self.allocated: list = []
        self.pinned: list = []
        self.error = 0  # what copies return
        self.callbacks: list = []
        self.graphs: dict = {}
        self.activations: dict = {}

    def __enter__(self):
        self.depth.value = getattr(self.depth, "value", 0) + 1
        return self

    def __exit__(self, *_):
        self.depth.value -= 1

    def _require_current(self):
        assert getattr(self.depth, "value", 0) > 0, "the context is not current on this thread"

    def stream(self):
        self._require_current()
        return SimpleNamespace(handle=id(self), synchronize=lambda: None)

    def device_memory(self, nbytes):
        self._require_current()
        self.allocated.append(FakeMemory(nbytes))
        return self.allocated[-1]

    def pinned_memory(self, nbytes):
        self._require_current()
        self.pinned.append(np.zeros(nbytes, np.uint8))
        return self.pinned[-1]

    def unpin(self, pinned):
        self._require_current()
        self.pinned = [array for array in self.pinned if array is not pinned]

    def functions(self):
        if not self.callbacks:
            self.callbacks = driver_callbacks(self)
        return [ctypes.cast(function, ctypes.c_void_p).value for function in self.callbacks]

    def synchronize(self):
        self._require_current()


class FakeContext:
    """Computes y = 2 x + 1, counting how many of its kind run at once."""

    active_optimization_profile = 0

    def __init__(self, engine) -> None:
        self.engine, self.shapes, self.addresses = engine, {}, {}
        self.device_memory = 0

    def set_input_shape(self, name, shape):
        if shape[0] > self.engine.largest:
            return False
        self.shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def get_tensor_shape(self, name):
        return self.shapes["x"]

    def execute_async_v3(self, stream):
        engine = self.engine
        with engine.lock:
            engine.running += 1
            engine.most = max(engine.most, engine.running)
        activations = (ctypes.c_uint64 * (engine.device_memory_size // 8)).from_address(
            self.device_memory
        )
        activations[-1] = id(self)
        time.sleep(engine.seconds)
        assert activations[-1] == id(self), "another context runs on the same memory"
        count = int(np.prod(self.shapes["x"]))
        views = [
            np.ctypeslib.as_array(
                ctypes.cast(self.addresses[n], ctypes.POINTER(np.ctypeslib.as_ctypes_type(t))),
                (count,),
            )
            for n, t in (("x", engine.types["x"]), ("y", engine.types["y"]))
        ]
        views[1][:] = 2 * views[0] + 1
        with engine.lock:
            engine.running -= 1
        return not engine.fails


class FakeEngine:
    num_io_tensors = 2
    device_memory_size = 64

    def __init__(self, shape=(-1, 4), kinds=("FLOAT", "FLOAT")) -> None:
        self.shape, self.kinds = shape, dict(zip("xy", kinds))
        self.types = {n: np.dtype(_execution._NUMPY_TYPES[k]) for n, k in self.kinds.items()}
        self.lock = threading.Lock()
        self.running = self.most = 0
        self.seconds, self.fails, self.largest = 0.0, False, 1 << 30
        self.contexts: list[FakeContext] = []

    def get_tensor_name(self, index):
        return "xy"[index]

    def get_tensor_dtype(self, name):
        return SimpleNamespace(name=self.kinds[name])

    def get_tensor_shape(self, name):
        return self.shape

    def create_execution_context_without_device_memory(self):
        self.contexts.append(FakeContext(self))
        return self.contexts[-1]


class FakeLogger:
    said = "what TensorRT says"

    def __init__(self):
        self.listeners = []

    def last_error(self):
        return self.said

    @contextmanager
    def collecting(self, *, quiet=False):
        yield [(1, self.said)]


def fake_plan(engine: FakeEngine, gpu: FakeGpu | None = None, **options) -> _execution.LoadedPlan:
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda plan: engine)
    api = SimpleNamespace(
        title="TensorRT", logger=FakeLogger(), runtime=lambda: runtime, shares_profiles=True,
        module=Old,
    )  # fmt: skip
    options.setdefault("cuda_graph", False)
    return _execution.LoadedPlan(api, gpu or FakeGpu(), b"", ["x"], ["y"], **options)


class FakeBuffer:
    """An MXNet array as the bridge hands it over."""

    def __init__(self, array: np.ndarray, device_type: int = 1) -> None:
        self.array, self.device_type, self.device_id = array, device_type, 0
        self.shape, self.dtype = array.shape, TYPE_FLAGS[array.dtype.name]
        self.address, self.nbytes = array.ctypes.data, array.nbytes

    def to_numpy(self):
        return self.array


def call(plan, x: np.ndarray, dtype="float32") -> np.ndarray:
    y = np.full(x.shape, -1, dtype)
    plan.execute([FakeBuffer(x)], [FakeBuffer(y)], 0)
    return y


def test_shapes_may_change_from_call_to_call():
    plan = fake_plan(FakeEngine())
    for batch in (3, 1, 7, 3):
        x = np.random.default_rng(batch).random((batch, 4), np.float32)
        np.testing.assert_array_equal(call(plan, x), 2 * x + 1)
    assert len(plan.engine.contexts) == 1
    assert len(plan.gpu.pinned) == 2  # grown, and the smaller ones freed
    gpu = plan.gpu
    plan.close()
    assert all(memory.freed for memory in gpu.allocated)
    assert not gpu.pinned
    with pytest.raises(EngineError, match="closed"):
        call(plan, np.zeros((1, 4), np.float32))


def test_a_plan_goes_with_its_last_call():
    """Without waiting for the garbage collector: it is memory of the GPU that it holds."""
    gpu, plan = FakeGpu(), None
    plan = fake_plan(FakeEngine(), gpu)
    call(plan, np.ones((3, 4), np.float32))
    gc.disable()
    try:
        del plan
        assert all(memory.freed for memory in gpu.allocated)
    finally:
        gc.enable()
    assert not gpu.pinned


def test_large_arrays_arrive_whole():
    """In one piece or in several: `test_transfer.py` looks at the pieces."""
    plan = fake_plan(FakeEngine())
    x = np.random.default_rng(0).random(((5 << 20) // 16 + 3, 4), np.float32)
    np.testing.assert_array_equal(call(plan, x), 2 * x + 1)


def test_a_failed_copy():
    plan = fake_plan(FakeEngine())
    x = np.ones((2, 4), np.float32)
    plan.gpu.error = 700
    with pytest.raises(EngineError, match=r"failed: CUDA.*(700|ILLEGAL_ADDRESS)"):
        call(plan, x)
    plan.gpu.error = 0
    np.testing.assert_array_equal(call(plan, x), 2 * x + 1)


def test_int64_travels_as_int32():
    plan = fake_plan(FakeEngine(kinds=("INT32", "INT32")))
    x = np.array([[1, -2, 3, 2**30 - 1]], np.int64)
    np.testing.assert_array_equal(call(plan, x, "int64"), 2 * x + 1)
    with pytest.raises(EngineError, match="beyond int32"):
        call(plan, np.array([[2**31, 0, 0, 0]], np.int64), "int64")


def test_word_numbers_travel_as_int32():
    """MXNet's are floats; a cast to integers cuts their digits off."""
    plan = fake_plan(FakeEngine(kinds=("INT32", "INT32")))
    x = np.array([[30001.0, -2.9, 16777217.0, 0.99]], np.float32)
    np.testing.assert_array_equal(call(plan, x, "int32"), 2 * x.astype(np.int32) + 1)
    beyond = np.array([[np.nan, np.inf, -3e9, 2**31]], np.float32)
    ends = np.array([[0, 2**31 - 1, -(2**31), 2**31 - 1]], np.int32)
    with np.errstate(all="raise"):
        found = call(plan, beyond, "int32")
    np.testing.assert_array_equal(found, (2 * ends.astype(np.int64) + 1).astype(np.int32))


@pytest.mark.parametrize("lanes", [1, 3])
def test_threads_share_a_bounded_number_of_contexts(lanes):
    engine = FakeEngine()
    engine.seconds = 0.005
    plan = fake_plan(engine, lanes=lanes)
    wrong = []

    def work(seed):
        for i in range(5):
            x = np.random.default_rng(seed * 10 + i).random((seed + 1, 4), np.float32)
            if not np.array_equal(call(plan, x), 2 * x + 1):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert engine.most == len(engine.contexts) == lanes


def test_no_memory_for_another_context():
    engine = FakeEngine()
    engine.seconds = 0.005
    plan = fake_plan(engine, lanes=4)
    make, made = engine.create_execution_context_without_device_memory, []

    def only_two():
        made.append(1)
        return make() if len(made) <= 2 else None

    engine.create_execution_context_without_device_memory = only_two
    x = np.ones((2, 4), np.float32)
    results: list = []
    threads = [threading.Thread(target=lambda: results.append(call(plan, x))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert plan.max_lanes == 2


def test_before_8_6_the_one_context_also_tells_shapes():
    """It stays where it is, with arrays on the CPU and on the GPU."""
    engine = FakeEngine()
    plan = fake_plan(engine)
    plan._one_context, plan.max_lanes = True, 1
    for size in (2, 3, 2):
        call(plan, np.ones((size, 4), np.float32))
        assert plan.output_shapes(((5, 4),)) == [(5, 4)]
    assert len(engine.contexts) == 1
    on_gpu = FakeBuffer(np.ones((2, 4), np.float32), 2)
    for _ in range(2):
        plan.execute([on_gpu], [FakeBuffer(np.zeros((2, 4), np.float32), 2)], 7)
        assert plan.output_shapes(((5, 4),)) == [(5, 4)]
    assert len(engine.contexts) == 2


def test_before_8_6_a_dynamic_plan_has_one_context():
    plan = fake_plan(FakeEngine(), lanes=4)
    plan.api.shares_profiles = False
    one = _execution.LoadedPlan(plan.api, FakeGpu(), b"", ["x"], ["y"], lanes=4)
    assert one.max_lanes == 1
    x = np.ones((1, 4), np.float32)
    y = np.zeros_like(x)
    for stream in (11, 22):
        one.execute([FakeBuffer(x, 2)], [FakeBuffer(y, 2)], stream)
    assert len(one._on_streams) == 1
    np.testing.assert_array_equal(call(one, x), 2 * x + 1)  # its context takes the place
    assert not one._on_streams
    one.execute([FakeBuffer(x, 2)], [FakeBuffer(y, 2)], 11)
    np.testing.assert_array_equal(y, 2 * x + 1)
    assert not one._idle
    assert one._lanes == 0


def test_a_failed_call_leaves_the_engine_usable():
    plan = fake_plan(FakeEngine(), lanes=1)
    x = np.ones((2, 4), np.float32)
    plan.engine.fails = True
    with pytest.raises(EngineError, match="could not enqueue"):
        call(plan, x)
    assert all(memory.freed for memory in plan.gpu.allocated)
    plan.engine.fails = False
    np.testing.assert_array_equal(call(plan, x), 2 * x + 1)
    plan.engine.largest = 2
    with pytest.raises(EngineError, match=r"does not take 'x' of shape \(9, 4\): what TensorRT"):
        call(plan, np.ones((9, 4), np.float32))
    np.testing.assert_array_equal(call(plan, x), 2 * x + 1)


def test_arrays_on_the_gpu_are_used_where_they_lie():
    plan = fake_plan(FakeEngine())
    x = np.ones((2, 4), np.float32)
    for stream in (11, 22, 11):
        y = np.zeros_like(x)
        plan.execute([FakeBuffer(x, 2)], [FakeBuffer(y, 2)], stream)
        context = plan._on_streams[stream].context
        assert context.addresses == {"x": x.ctypes.data, "y": y.ctypes.data}
        np.testing.assert_array_equal(y, 2 * x + 1)
    assert set(plan._on_streams) == {11, 22}
    assert [memory.nbytes for memory in plan.gpu.allocated] == [64, 64], "activations alone"


class Moment:
    """An event where there is no stream: counts those that are not freed."""

    open = 0

    def __init__(self, gpu: FakeGpu) -> None:
        gpu._require_current()
        Moment.open += 1

    def record(self, stream: int) -> None:
        self.recorded = True

    def wait(self) -> None:
        assert self.recorded

    def let_wait(self, stream: int) -> None:
        assert self.recorded

    def close(self) -> None:
        Moment.open -= 1


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let copies on a stream be copies of this machine; return which there were."""
    made: list[str] = []

    def copy(way: str):
        def run(target: int, source: int, nbytes: int, stream: int) -> None:
            made.append(way)
            ctypes.memmove(target, source, nbytes)

        return run

    for way in ("upload", "download"):
        monkeypatch.setattr(_staging, way, copy(way))
    monkeypatch.setattr(_staging, "Event", Moment)
    Moment.open = 0
    return made


def test_arrays_on_the_gpu_of_other_types(copies, caplog):
    """Word numbers, which MXNet holds as floats, and MXNet's int64."""
    plan = fake_plan(FakeEngine(kinds=("INT32", "INT32")))
    x = np.array([[30001.0, -2.9, 7, 0.99], [1, 2, 3, 4]], np.float32)
    with caplog.at_level(logging.INFO, "mxtrt"):
        for rows in (2, 2, 1, 2):
            part = np.roll(x[:rows], 1, 1)
            y = np.zeros(part.shape, np.int64)
            plan.execute([FakeBuffer(part, 2)], [FakeBuffer(y, 2)], 11)
            np.testing.assert_array_equal(y, 2 * part.astype(np.int32) + 1)
    assert (
        "'x' is float32 in MXNet and int32 in the plan: it is converted on the CPU" in caplog.text
    )
    assert copies[:4] == ["download", "upload", "download", "upload"]
    with pytest.raises(EngineError, match="'x' holds numbers beyond int32"):
        y = np.zeros((1, 4), np.int64)
        plan.execute([FakeBuffer(np.full((1, 4), 2**31), 2)], [FakeBuffer(y, 2)], 22)
    plan.close()
    assert all(memory.freed for memory in plan.gpu.allocated)
    assert not plan.gpu.pinned
    assert Moment.open == 0


def test_only_what_differs_is_converted(copies):
    plan = fake_plan(FakeEngine(kinds=("FLOAT", "INT32")))
    x, y = np.ones((2, 4), np.float32), np.zeros((2, 4), np.int64)
    for _ in range(2):
        plan.execute([FakeBuffer(x, 2)], [FakeBuffer(y, 2)], 11)
    assert plan._on_streams[11].context.addresses["x"] == x.ctypes.data
    assert copies == ["download", "upload"] * 2  # of the output
    plan.close()


def test_word_numbers_and_a_graph(copies, fake_graphs):
    plan = fake_plan(FakeEngine(kinds=("INT32", "INT32")), cuda_graph=True)
    for i in range(6):
        x, y = np.full((2, 4), i + 0.5, np.float32), np.zeros((2, 4), np.int32)
        plan.execute([FakeBuffer(x, 2)], [FakeBuffer(y, 2)], 11)
        np.testing.assert_array_equal(y, 2 * i + 1)
    plan.close()


@pytest.fixture
def fake_graphs(monkeypatch):
    """Let CUDA graphs take ``1 / gain`` of the time; ``launched`` counts their calls."""
    state = SimpleNamespace(gain=5, launched=0, alive=0)

    class FakeGraph:
        def __init__(self, stream, enqueue):
            if state.gain == 0:
                raise EngineError("no capture")
            assert enqueue()
            self.enqueue = enqueue
            self.context = enqueue.__self__.context
            self.engine, self.gpu = self.context.engine, enqueue.__self__.plan.gpu
            self.addresses = dict(self.context.addresses)
            self.handle = id(self)
            self.gpu.graphs[self.handle] = self
            state.alive += 1

        def launch(self, stream):
            state.launched += 1
            usual = self.engine.seconds, self.context.addresses
            self.engine.seconds, self.context.addresses = usual[0] / state.gain, self.addresses
            self.enqueue()
            self.engine.seconds, self.context.addresses = usual
            return True

        def close(self):
            state.alive -= 1

    monkeypatch.setattr(_execution, "Graph", FakeGraph)
    return state


@pytest.mark.parametrize(("asked", "gain"), [(True, 1), (None, 5), (None, 0.2), (None, 0)])
@pytest.mark.parametrize("shape", [(2, 4), (-1, 4)])
def test_graphs_are_kept_where_they_win(asked, gain, shape, fake_graphs):
    fake_graphs.gain = gain
    engine = FakeEngine(shape=shape)
    engine.seconds = 0.002
    plan = fake_plan(engine, cuda_graph=asked)
    x = np.ones((2, 4), np.float32)
    for _ in range(_contexts.CALLS_BEFORE_GRAPH):
        call(plan, x)
    before = fake_graphs.launched
    x[:] = 5
    np.testing.assert_array_equal(call(plan, x), 2 * x + 1)
    assert plan.uses_graphs is (gain >= 1)
    assert (fake_graphs.launched > before) is (gain >= 1)
    if shape[0] < 0:  # a graph is for one shape
        np.testing.assert_array_equal(call(plan, x[:1]), 2 * x[:1] + 1)
        assert fake_graphs.alive == 0
    plan.close()
    assert fake_graphs.alive == 0


def test_graphs_for_arrays_on_the_gpu(fake_graphs):
    """A graph belongs to addresses: others never see it, and new ones each time make none."""
    engine = FakeEngine(shape=(-1, 4))
    plan = fake_plan(engine, cuda_graph=True)
    pairs = [(np.full((2, 4), i, np.float32), np.zeros((2, 4), np.float32)) for i in range(3)]
    for _ in range(_contexts.CALLS_BEFORE_GRAPH + 2):
        for x, y in pairs[:2]:
            x += 1
            plan.execute([FakeBuffer(x, 2)], [FakeBuffer(y, 2)], 11)
            np.testing.assert_array_equal(y, 2 * x + 1)
    assert len(plan._on_streams[11]._graphs) == fake_graphs.alive == 2
    before = fake_graphs.launched
    x, y = pairs[2]
    plan.execute([FakeBuffer(x, 2)], [FakeBuffer(y, 2)], 11)
    np.testing.assert_array_equal(y, 2 * x + 1)
    assert fake_graphs.launched == before
    kept = [np.zeros((1, 4), np.float32) for _ in range(3 * _contexts.MAX_ADDRESSES)]
    for y in kept:
        plan.execute([FakeBuffer(x[:1], 2)], [FakeBuffer(y, 2)], 11)
    assert fake_graphs.alive == 0
    assert len(plan._on_streams[11]._seen) <= _contexts.MAX_ADDRESSES
    plan.close()


# -- an engine's plans, and the net below ------------------------------------------------------


@pytest.fixture
def counted_builds(monkeypatch):
    """Let engines be built by counting; ``builds`` says for which sizes."""
    builds: list[Profile] = []

    def build_plan(api, proto, weights, profile, options, targets=()):
        if build_plan.refuses(profile):
            raise EngineError("TensorRT cannot build this")
        builds.append(profile)
        return b""

    class Plan:
        def __init__(self, *args, **options):
            pass

        def execute(self, inputs, outputs, stream):
            for buffer in outputs:
                buffer.array[:] = len(builds)

    build_plan.refuses = lambda profile: False
    monkeypatch.setattr(tensorrt, "build_plan", build_plan)
    monkeypatch.setattr(tensorrt, "LoadedPlan", Plan)
    monkeypatch.setattr(_cuda, "gpu", lambda index: FakeGpu())
    return SimpleNamespace(builds=builds, build_plan=build_plan)


def convnet_engine(shapes, **options):
    net, args, aux = convnet()
    proto, weights, checked = exported(net, (args, aux), shapes, **options)
    api = SimpleNamespace(name="tensorrt", title="TensorRT", version="TensorRT 0",
                          precisions=("fp32",), has_targets=False)  # fmt: skip
    return tensorrt.TensorRTBuilder(api, checked).build(proto, weights, checked)


def run_engine(engine, batch: int, size: int = 16) -> np.ndarray:
    x, y = np.ones((batch, 3, size, size), np.float32), np.zeros((batch, 5), np.float32)
    engine.execute([FakeBuffer(x)], [FakeBuffer(y)], 0)
    return y


def test_known_sizes_are_built_at_once(counted_builds):
    engine = convnet_engine({"data": (2, 3, 16, 16)}, strict=True)
    assert [str(p) for p in counted_builds.builds] == ["(2, 3, 16, 16)"]
    run_engine(engine, 2)
    assert len(counted_builds.builds) == 1


def test_unknown_sizes_are_built_at_the_first_call(counted_builds):
    engine = convnet_engine({"data": (None, 3, None, None)}, strict=True)
    assert not counted_builds.builds
    for batch in (3, 4, 1, 2):
        run_engine(engine, batch)
    assert [str(p) for p in counted_builds.builds] == ["(1..3..4, 3, 16, 16)"]
    run_engine(engine, 9)
    run_engine(engine, 1)
    assert len(counted_builds.builds) == 2


def test_threads_build_once(counted_builds):
    engine = convnet_engine({"data": (None, 3, 16, 16)}, strict=True)
    threads = [threading.Thread(target=run_engine, args=(engine, 4)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counted_builds.builds) == 1


def test_sizes_that_depend_on_each_other(counted_builds):
    counted_builds.build_plan.refuses = lambda profile: not profile.is_static
    engine = convnet_engine({"data": (None, 3, 16, 16)}, strict=True)
    run_engine(engine, 3)
    assert [str(p) for p in counted_builds.builds] == ["(3, 3, 16, 16)"]


def test_strict_raises(counted_builds):
    counted_builds.build_plan.refuses = lambda profile: True
    with pytest.raises(EngineError, match="cannot build this"):
        convnet_engine({"data": (2, 3, 16, 16)}, strict=True)
    lazy = convnet_engine({"data": (None, 3, 16, 16)}, strict=True)
    with pytest.raises(BuildError, match="cannot build this"):
        run_engine(lazy, 3)


@pytest.mark.parametrize("batch", [2, None])
def test_a_failed_build_runs_in_onnx_runtime(counted_builds, batch):
    counted_builds.build_plan.refuses = lambda profile: True
    with pytest.warns(RuntimeWarning) as caught:
        engine = convnet_engine({"data": (batch, 3, 16, 16)})
        assert engine.kind == ("tensorrt" if batch is None else "onnxruntime")
        found = run_engine(engine, 2)
        run_engine(engine, 2)
    assert [str(w.message) for w in caught if w.category is RuntimeWarning] == [
        "mxtrt0 runs in ONNX Runtime instead of tensorrt, because TensorRT cannot build this"
    ]
    assert engine.kind == "onnxruntime"
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_a_failed_call_runs_in_onnx_runtime():
    net, args, aux = convnet()
    proto, weights, options = exported(net, (args, aux), {"data": (None, 3, 16, 16)})

    class Moody:
        kind = "tensorrt"
        calls = 0

        def execute(self, inputs, outputs, stream):
            self.calls += 1
            if self.calls != 2:
                raise EngineError("out of memory")
            outputs[0].array[:] = 7

    moody = Moody()
    engine = FallbackEngine(moody, proto, weights, options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = [run_engine(engine, 2) for _ in range(7)]
    assert sum(w.category is RuntimeWarning for w in caught) == 1
    assert (results[1] == 7).all()
    np.testing.assert_allclose(results[0].sum(axis=1), 1, rtol=1e-5)
    assert moody.calls == 5  # one failure, a success, and three failures in a row
    assert engine.kind == "onnxruntime"


@pytest.fixture
def slow_builds(counted_builds):
    """Let builds wait until ``go`` is set."""
    counted_builds.go = threading.Event()
    counted_builds.fails = False

    def wait(profile):
        assert counted_builds.go.wait(30)
        return counted_builds.fails

    counted_builds.build_plan.refuses = wait
    yield counted_builds
    counted_builds.go.set()


def in_background(engine):
    return engine._engine._background


def test_builds_in_the_background(slow_builds, caplog):
    builds, go = slow_builds.builds, slow_builds.go
    with warnings.catch_warnings(), caplog.at_level(logging.INFO, "mxtrt"):
        warnings.simplefilter("error", RuntimeWarning)
        engine = convnet_engine({"data": (None, 3, 16, 16)}, background=True)
        for _ in range(3):
            np.testing.assert_allclose(run_engine(engine, 3).sum(axis=1), 1, rtol=1e-5)
        assert not builds
        go.set()
        in_background(engine).wait(30)
        assert [str(p) for p in builds] == ["(1..3..4, 3, 16, 16)"]
        assert (run_engine(engine, 3) == 1).all(), "TensorRT's plan serves now"
        go.clear()
        np.testing.assert_allclose(run_engine(engine, 7).sum(axis=1), 1, rtol=1e-5)
        assert (run_engine(engine, 4) == 1).all(), "the first plan still serves its sizes"
        go.set()
        in_background(engine).wait(30)
        assert (run_engine(engine, 7) == 2).all()
    assert [str(p) for p in builds] == ["(1..3..4, 3, 16, 16)", "(1..7..8, 3, 16, 16)"]
    assert engine.kind == "tensorrt"
    told = [r.getMessage() for r in caplog.records if "in the background" in r.getMessage()]
    assert told == ["mxtrt0 is being built in the background"] * 2


def test_a_failed_build_in_the_background_is_told_once(slow_builds):
    slow_builds.go.set()
    engine = convnet_engine({"data": ((1, 2, 4), 3, 16, 16)}, background=True)
    assert (run_engine(engine, 2) == 1).all()
    slow_builds.fails = True
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(4):
            np.testing.assert_allclose(run_engine(engine, 9).sum(axis=1), 1, rtol=1e-5)
            in_background(engine).wait(30)
            assert (run_engine(engine, 2) == 1).all(), "other sizes are not concerned"
    assert [str(w.message) for w in caught if w.category is RuntimeWarning] == [
        "mxtrt0 runs in ONNX Runtime instead of tensorrt, because TensorRT cannot build this"
    ]
    assert len(slow_builds.builds) == 1


def test_a_first_build_that_fails_in_the_background(slow_builds):
    slow_builds.go.set()
    slow_builds.fails = True
    with pytest.warns(RuntimeWarning, match="TensorRT cannot build this") as caught:
        engine = convnet_engine({"data": (None, 3, 16, 16)}, background=True)
        background = in_background(engine)
        for _ in range(3):
            np.testing.assert_allclose(run_engine(engine, 9).sum(axis=1), 1, rtol=1e-5)
            background.wait(30)
    assert sum(w.category is RuntimeWarning for w in caught) == 1
    assert engine.kind == "onnxruntime"


def test_who_waits_for_a_build_although_it_could_be_in_the_background(counted_builds):
    strict = convnet_engine({"data": (None, 3, 16, 16)}, background=True, strict=True)
    assert (run_engine(strict, 3) == 1).all()
    engine = convnet_engine({"data": (None, 3, 16, 16)}, background=True)
    x, y = np.ones((3, 3, 16, 16), np.float32), np.zeros((3, 5), np.float32)
    engine.execute([FakeBuffer(x, 2)], [FakeBuffer(y, 2)], 0)
    assert (y == 2).all()
    with pytest.raises(ShapesDisagree, match="fixed to 16"):
        run_engine(engine, 3, 17)


def test_the_process_ends_while_something_is_built():
    """A build that can be asked to stop does so; the thread is not cut off within TensorRT."""
    code = """
        import time
        from mxtrt.engines._background import BackgroundBuilds
        from mxtrt.engines._progress import Watch
        watch = Watch("a build")
        def build():
            while watch.goes_on:
                time.sleep(0.01)
            print("stopped", flush=True)
            raise RuntimeError("cancelled")
        BackgroundBuilds("x").start(build)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")


def test_arrays_on_the_gpu_have_no_net():
    class Broken:
        kind = "tensorrt"

        def execute(self, inputs, outputs, stream):
            raise EngineError("a fault")

    net, args, aux = convnet()
    engine = FallbackEngine(Broken(), *exported(net, (args, aux), {"data": (1, 3, 16, 16)}))
    x = FakeBuffer(np.zeros((1, 3, 16, 16), np.float32), device_type=2)
    with pytest.raises(EngineError, match="a fault"):
        engine.execute([x], [FakeBuffer(np.zeros((1, 5), np.float32), device_type=2)], 0)
