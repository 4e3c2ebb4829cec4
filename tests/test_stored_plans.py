"""Plans in the store: what they depend on, and the way from `mxtrt.optimize` and back."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import subprocess
import sys
import threading
import tracemalloc
import warnings
from pathlib import Path
from types import SimpleNamespace

import mxnet as mx
import numpy as np
import onnx
import pytest
from test_tensorrt import FakeGpu, convnet, exported, needs_rtx, one_node, run_engine

import mxtrt
from mxtrt.arrays import numpy_view
from mxtrt.engines import _cuda, _network, _nvidia, _refit, _stored, tensorrt
from mxtrt.engines._profiles import Profile
from mxtrt.errors import EngineError, EngineNotAvailable
from mxtrt.operator import engines
from mxtrt.options import Options, read_options
from mxtrt.store import Store
from mxtrt.stored_file import file_name


def no_build():
    raise AssertionError("it should have come from the store")


# -- the key of a plan -----------------------------------------------------------------------------


def plan_key(monkeypatch, **changes) -> str:
    """Return the name under which a plan would be stored."""
    found = []

    class Recording:
        def get(self, key, *_, **__):
            found.append(file_name(key))
            return None, None

    monkeypatch.setattr(_stored, "open_store", lambda *_: Recording())
    parts = {
        "api": SimpleNamespace(name="tensorrt", version="TensorRT 10.1"),
        "gpu": SimpleNamespace(name="NVIDIA H200", capability=(9, 0)),
        "proto": one_node("Relu", [("x", 1, [2])], [("y", 1, [2])]),
        "weights": {"w": np.arange(6, dtype=np.float32), "v": np.zeros(6, np.float32)},
        "profile": Profile((((2, 2, 2),),)),
        "options": Options(),
        "targets": (),
        "cuda": 12040,
        "driver": "580.65",
        "libraries": {"nvidia-cudnn-cu11": "8.6"},
        "mxtrt": "0.1.0",
        "sources": "0123abcd",
        **changes,
    }
    driver = SimpleNamespace(get_driver_version=lambda: parts["cuda"])
    monkeypatch.setattr(_cuda, "driver", lambda: driver)
    monkeypatch.setattr(_stored, "_kernel_driver", lambda: parts["driver"])
    monkeypatch.setattr(_stored, "_libraries", lambda: parts["libraries"])
    monkeypatch.setattr(_stored, "__version__", parts["mxtrt"])
    monkeypatch.setattr(_stored, "_sources", lambda: parts["sources"])
    _stored.stored_plan(
        no_build, no_build, parts["api"], parts["gpu"], parts["proto"], parts["weights"],
        profile=parts["profile"], options=parts["options"], targets=parts["targets"],
    )  # fmt: skip
    return found[0]


W = np.arange(6, dtype=np.float32)
Z = np.zeros(6, np.float32)


@pytest.mark.parametrize(
    "change",
    [
        {"weights": {"w": np.nextafter(W, 9).astype(np.float32), "v": Z}},
        {"weights": {"w": Z, "v": W}},
        {"weights": {"w": W.reshape(2, 3), "v": Z}},
        {"weights": {"w": W.view(np.int32), "v": Z}},
        {"weights": {"w": W}},
        {"weights": {"w": W, "u": Z}},
        {"weights": {"w": W, "v": Z, "u": np.zeros((0, 2), np.float16)}},
        {"weights": {"w": W, "v": -Z}},
        {"proto": one_node("Relu", [("x", 1, [3])], [("y", 1, [3])])},
        {"proto": one_node("Tanh", [("x", 1, [2])], [("y", 1, [2])])},
        {"profile": Profile((((1, 2, 2),),))},
        {"profile": Profile((((1, 1, 2),),))},
        {"api": SimpleNamespace(name="tensorrt_rtx", version="TensorRT 10.1")},
        {"api": SimpleNamespace(name="tensorrt", version="TensorRT 10.1.1")},
        {"gpu": SimpleNamespace(name="NVIDIA H100", capability=(9, 0))},
        {"gpu": SimpleNamespace(name="NVIDIA H200", capability=(9, 1))},
        {"targets": ("SM86",)},
        {"cuda": 12060},
        {"driver": "580.66"},
        {"libraries": {"nvidia-cudnn-cu11": "8.7"}},
        {"mxtrt": "0.1.1"},
        {"sources": "0123abce"},
    ],
    ids=lambda change: "-".join(change),
)
def test_the_key_of_a_plan_names_everything(change, monkeypatch):
    assert plan_key(monkeypatch, **change) != plan_key(monkeypatch)


def test_the_key_of_a_plan_depends_on_nothing_else(monkeypatch):
    same = {"v": np.zeros(6, np.float32), "w": np.arange(12, dtype=np.float32)[:6].copy()}
    strided = {"v": Z, "w": np.stack([W, W], axis=1)[:, 0]}
    names = {plan_key(monkeypatch), plan_key(monkeypatch, weights=same)}
    assert len({*names, plan_key(monkeypatch, weights=strided)}) == 1


CHANGED = {
    "engine": "tensorrt", "min_subgraph_size": 5, "exclude_ops": frozenset({"x"}),
    "exclude_nodes": frozenset({"x"}), "strict": True, "allow_extra_params": True,
    "session_options": {"a": 1}, "precision": "fp16", "tf32": False, "workspace": 1 << 20,
    "optimization_level": 2, "timing_cache": "x", "cuda_graph": True, "contexts": 7, "device": 3,
    "cache_dir": "x", "cache_size": 5, "shapes": {"x": (1,)}, "dtypes": {"x": "float16"},
}  # fmt: skip


@pytest.mark.parametrize("option", sorted(Options.__dataclass_fields__))
def test_options_are_in_the_key_unless_they_cannot_matter(option, monkeypatch):
    value = CHANGED.get(option, "another value")  # one that is new is in the key
    other = dataclasses.replace(Options(), **{option: value})
    assert getattr(other, option) != getattr(Options(), option)
    same = plan_key(monkeypatch, options=other) == plan_key(monkeypatch)
    assert same is (option in _stored.IRRELEVANT)


def test_irrelevant_options_exist():
    assert set(Options.__dataclass_fields__) >= _stored.IRRELEVANT


def test_options_of_any_type_have_one_name():
    assert _stored._plain({"a": {3, 1, 2}, "b": ("x", None)}) == {
        "a": ["1", "2", "3"],
        "b": ["x", None],
    }


def test_weights_are_not_copied():
    weights = {str(i): np.ones((4, 1 << 20), np.float32) for i in range(2)}
    proto = one_node("Relu", [("x", 1, [2])], [("y", 1, [2])])
    tracemalloc.start()
    _stored.model_facts(proto, weights)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_the_key_is_the_same_in_every_process(tmp_path):
    net, args, aux = convnet()
    mx.model.save_checkpoint(str(tmp_path / "net"), 0, net, args, aux)
    code = """if True:
        import sys, mxtrt, mxnet as mx
        sys.path.insert(0, sys.argv[2])
        from test_tensorrt import exported
        from mxtrt.arrays import numpy_view
        from mxtrt.engines._stored import model_facts
        net, args, aux = mx.model.load_checkpoint(sys.argv[1], 0)
        proto, weights, _ = exported(net, (args, aux), {"data": (2, 3, 16, 16)})
        facts = model_facts(proto, {n: numpy_view(a) for n, a in weights.items()})
        print(facts["onnx"], facts["weights"])
    """
    words = [sys.executable, "-c", code, str(tmp_path / "net"), str(Path(__file__).parent)]
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    done = subprocess.run(
        words,
        env={**os.environ, "PYTHONHASHSEED": seed},
        check=True,
        capture_output=True,
        text=True,
    )
    proto, weights, _ = exported(net, (args, aux), {"data": (2, 3, 16, 16)})
    here = _stored.model_facts(proto, {n: numpy_view(a) for n, a in weights.items()})
    assert done.stdout.split() == [here["onnx"], here["weights"]]


# -- the whole path, with plans of TensorRT-RTX ----------------------------------------------------


class Loaded:
    """A plan that cannot run here: it says which plan it is."""

    refuses = False
    contents: tuple[bytes, ...] = ()

    def __init__(self, api, gpu, content, *args, **options):
        if Loaded.refuses and type(content) is bytes:
            raise EngineError("TensorRT-RTX does not take the plan")
        Loaded.contents += (bytes(content),)

    def execute(self, inputs, outputs, stream):
        outputs[0].array[:] = 1


@pytest.fixture
def rtx_on_cpu(monkeypatch):
    """TensorRT-RTX builds for another GPU; nothing runs."""
    gpu = FakeGpu()
    gpu.capability = (8, 6)
    builds = []

    def build_plan(api, proto, weights, profile, options):
        builds.append(str(profile))
        return _network.build_plan(api, proto, weights, profile, options, ("SM86",))

    monkeypatch.setattr(_cuda, "gpu", lambda index: gpu)
    monkeypatch.setattr(_cuda, "driver", lambda: SimpleNamespace(get_driver_version=lambda: 12040))
    monkeypatch.setattr(tensorrt, "build_plan", build_plan)
    monkeypatch.setattr(tensorrt, "LoadedPlan", Loaded)
    monkeypatch.setattr(Loaded, "contents", ())
    return builds


def optimized(folder, batch=2, **options):
    net, args, aux = convnet()
    shapes = {"data": (batch, 3, 16, 16)}
    symbol, _ = mxtrt.optimize(
        net, (args, aux), shapes=shapes, engine="tensorrt_rtx", cache_dir=folder, **options
    )
    [engine] = engines(symbol)
    return engine


@needs_rtx
def test_a_second_start_builds_nothing(rtx_on_cpu, tmp_path):
    for _ in range(2):
        engine = optimized(tmp_path)
    assert rtx_on_cpu == ["(2, 3, 16, 16)"]
    assert Loaded.contents[0] == Loaded.contents[1]
    [(profile, origin)] = engine.origins
    assert str(profile) == "(2, 3, 16, 16)"
    assert origin.stored
    assert origin.nbytes == len(Loaded.contents[0])
    assert 0 < origin.seconds < 5
    optimized(tmp_path, precision="fp16")
    optimized(tmp_path, batch=3, strict=True)
    assert len(rtx_on_cpu) == 3
    kinds = [entry.key["kind"] for entry in Store(tmp_path).entries(verify=True)]
    assert sorted(kinds) == ["parser"] * 4 + ["plan"] * 3 + ["start"]


@needs_rtx
def test_sizes_that_are_learned_at_the_first_call(rtx_on_cpu, tmp_path):
    for stored in (False, True):
        engine = optimized(tmp_path, batch=None)
        assert not engine.origins
        run_engine(engine, 3)
        run_engine(engine, 9)
        assert [(str(p), o.stored) for p, o in engine.origins] == [
            ("(1..3..4, 3, 16, 16)", stored),
            ("(1..9..16, 3, 16, 16)", stored),
        ]


@needs_rtx
def test_changed_weights_need_another_plan(rtx_on_cpu, tmp_path):
    net, args, aux = convnet()
    options = {"shapes": {"data": (2, 3, 16, 16)}, "engine": "tensorrt_rtx", "cache_dir": tmp_path}
    mxtrt.optimize(net, (args, aux), **options)
    args["fc_bias"][:] += 1
    mxtrt.optimize(net, (args, aux), **options)
    assert len(rtx_on_cpu) == 2
    assert Loaded.contents[0] != Loaded.contents[1]


@needs_rtx
def test_weights_that_change_during_the_build_are_not_kept(rtx_on_cpu, tmp_path, monkeypatch):
    net, args, aux = convnet()
    shapes = {"data": (2, 3, 16, 16)}
    proto, weights, options = exported(net, (args, aux), shapes, cache_dir=tmp_path)
    build = tensorrt.build_plan

    def build_plan(*arguments):
        weights["fc_bias"][:] += 1
        weights["fc_bias"].wait_to_read()
        return build(*arguments)

    monkeypatch.setattr(tensorrt, "build_plan", build_plan)
    api = _nvidia.api("tensorrt_rtx")
    tensorrt.TensorRTBuilder(api, options).build(proto, weights, options)
    assert not Store(tmp_path).entries()


@needs_rtx
@pytest.mark.parametrize("off", [None, False])
def test_no_store(off, rtx_on_cpu, tmp_path, monkeypatch):
    monkeypatch.setenv("MXTRT_CACHE_DIR", str(tmp_path))
    for _ in range(2):
        engine = optimized(off)
        assert [origin.stored for _, origin in engine.origins] == [False]
    assert len(rtx_on_cpu) == 2
    assert not list(tmp_path.iterdir())


@needs_rtx
@pytest.mark.parametrize("damage", ["changed", "truncated", "of another GPU"])
def test_bad_plans_are_built_again(damage, rtx_on_cpu, tmp_path, monkeypatch, caplog):
    optimized(tmp_path)
    [entry] = [entry for entry in Store(tmp_path).entries() if entry.key["kind"] == "plan"]
    content = bytearray(entry.path.read_bytes())
    if damage == "changed":
        content[len(content) // 2] ^= 1
        entry.path.write_bytes(content)
    elif damage == "truncated":
        entry.path.write_bytes(content[:-1000])
    else:
        monkeypatch.setattr(Loaded, "refuses", True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # not a fallback to ONNX Runtime
        engine = optimized(tmp_path, strict=True)
    assert [origin.stored for _, origin in engine.origins] == [False]
    assert "built again" in caplog.text
    assert len(rtx_on_cpu) == 2
    monkeypatch.setattr(Loaded, "refuses", False)
    assert [origin.stored for _, origin in optimized(tmp_path).origins] == [True]
    assert not any(entry.problem for entry in Store(tmp_path).entries(verify=True))


# -- plans that get other weights ------------------------------------------------------------------


def refitted(folder, weights, built, loaded):
    def build():
        built.append(weights)
        return b"a plan"

    def load(content):
        loaded.append(dict.fromkeys(("plan", "weights"), content))
        return loaded[-1]

    proto = one_node("Relu", [("x", 1, [2])], [("y", 1, [2])])
    plan, origin = _stored.stored_plan(
        build, load, FakeApi(), None, proto, weights, profile=Profile((((2, 2, 2),),)),
        options=Options(refit=True, cache_dir=str(folder)),
        refit=lambda plan: plan.update(weights=weights),
    )  # fmt: skip
    return plan, origin.stored


def test_a_plan_of_other_weights_is_refitted_and_not_built(tmp_path):
    built: list = []
    loaded: list = []
    assert refitted(tmp_path, {"w": W}, built, loaded) == (
        {"plan": b"a plan", "weights": b"a plan"},
        False,
    )
    plan, stored = refitted(tmp_path, {"w": W + 1}, built, loaded)
    assert stored
    assert plan["weights"]["w"][0] == 1, "what is stored has other weights"
    plan, stored = refitted(tmp_path, {"w": W}, built, loaded)
    assert plan["weights"]["w"][0] == 0, "nobody knows which weights the stored one has"
    assert len(built) == 1


def test_a_plan_that_cannot_be_refitted_is_built(tmp_path, caplog):
    built: list = []
    refitted(tmp_path, {"w": W}, built, [])

    def fails(plan):
        raise EngineError("TensorRT cannot replace the weights: a reason")

    proto = one_node("Relu", [("x", 1, [2])], [("y", 1, [2])])
    plan, origin = _stored.stored_plan(
        lambda: built.append(1) or b"another", bytes, FakeApi(), None, proto, {"w": W + 1},
        profile=Profile((((2, 2, 2),),)), options=Options(refit=True, cache_dir=str(tmp_path)),
        refit=fails,
    )  # fmt: skip
    assert (plan, origin.stored, len(built)) == (b"another", False, 2)
    assert "is built again, because TensorRT cannot replace the weights: a reason" in caplog.text


class FakeRefitter:
    """What TensorRT 10 and newer have to replace weights, on the memory of this machine."""

    made: list = []  # noqa: RUF012
    num_errors = 0

    def __init__(self, target, logger):
        self.target, self.seen = target, {}
        self.made.append(self)

    def load_model_proto(self, content):
        self.model = onnx.ModelProto.FromString(content)
        return True

    def load_initializer(self, name, address, nbytes):
        self.seen[name] = ctypes.string_at(address, nbytes)
        return True

    def refit_model_proto(self):
        return True

    def refit_cuda_engine(self):
        return self.target != "broken"


@needs_rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_what_a_refitter_gets(precision, monkeypatch):
    api = _nvidia.api("tensorrt_rtx")
    fakes = {"Refitter": FakeRefitter, "OnnxParserRefitter": FakeRefitter}
    monkeypatch.setattr(api, "module", SimpleNamespace(**{**vars(api.module), **fakes}))
    monkeypatch.setattr(FakeRefitter, "made", [])
    net, args, aux = convnet()
    proto, weights, _ = exported(net, (args, aux), {"data": (None, 3, 16, 16)})
    views = {name: array.asnumpy() + 1 for name, array in weights.items()}
    profile = Profile((((1, 2, 4), (3, 3, 3), (16, 16, 16), (16, 16, 16)),))

    def refit(engine="an engine"):
        _refit.refit(api, SimpleNamespace(engine=engine), proto, views, profile, precision)
        return FakeRefitter.made[-2:]

    refitter, parser = refit()
    assert (refitter.target, parser.target) == ("an engine", refitter)
    low = precision == "fp16"
    weight = views["conv_weight"].astype("float16" if low else "float32")
    assert parser.seen["conv_weight/fp16" if low else "conv_weight"] == weight.tobytes()
    assert parser.seen["bn_gamma"] == views["bn_gamma"].tobytes()
    assert {t.name for t in parser.model.graph.initializer} >= set(parser.seen)
    with pytest.raises(EngineError, match="TensorRT-RTX cannot replace the weights: "):
        refit("broken")
    monkeypatch.setattr(FakeRefitter, "load_initializer", lambda *_: False)
    with pytest.raises(EngineError, match="cannot replace the weights: its parser refuses"):
        refit()


def test_without_refit_other_weights_are_another_plan(tmp_path):
    built: list = []
    for add in (0, 1):
        _stored.stored_plan(
            lambda: built.append(1) or b"plan", bytes, FakeApi(), None,
            one_node("Relu", [("x", 1, [2])], [("y", 1, [2])]), {"w": W + add},
            profile=Profile((((2, 2, 2),),)), options=Options(cache_dir=str(tmp_path)),
        )  # fmt: skip
    assert len(built) == 2


# -- timing caches ---------------------------------------------------------------------------------


class FakeCache:
    def __init__(self, content: bytes) -> None:
        self.lines = set(content.split())

    def combine(self, other, ignore_mismatch):
        assert ignore_mismatch is False
        self.lines |= other.lines
        return True

    def serialize(self):
        return b" ".join(sorted(self.lines))


class FakeApi:
    name, version, title, has_timing_cache = "tensorrt", "TensorRT 0", "TensorRT", True

    def __init__(self) -> None:
        self.timing_cache = b""
        self.lock = threading.Lock()
        self.logger = _QuietLogger()

    def builder(self):
        config = SimpleNamespace(create_timing_cache=FakeCache)
        return SimpleNamespace(create_builder_config=lambda: config)


class _QuietLogger:
    def collecting(self, *, quiet):
        return warnings.catch_warnings()


def timed_build(api: FakeApi, folder, name: str, timings: bytes, meanwhile=lambda: None, **options):
    def build():
        seen.append(api.timing_cache)
        meanwhile()
        api.timing_cache = b" ".join(filter(None, (api.timing_cache, timings)))
        return b"plan"

    seen: list[bytes] = []
    _stored.stored_plan(
        build, bytes, api, None, one_node(name, [("x", 1, [2])], [("y", 1, [2])]), {},
        profile=Profile((((2, 2, 2),),)), options=read_options(cache_dir=str(folder), **options),
    )  # fmt: skip
    return seen


def test_timings_are_kept_for_the_next_process(tmp_path):
    assert timed_build(FakeApi(), tmp_path, "Relu", b"conv") == [b""]
    assert timed_build(FakeApi(), tmp_path, "Tanh", b"gemm") == [b"conv"]
    assert timed_build(FakeApi(), tmp_path, "Tanh", b"gemm") == []  # the plan is there
    assert timed_build(FakeApi(), tmp_path, "Sigmoid", b"pool") == [b"conv gemm"]
    kinds = sorted(entry.key["kind"] for entry in Store(tmp_path).entries())
    assert kinds == ["plan", "plan", "plan", "timing"]


def test_timings_of_two_processes_are_joined(tmp_path):
    def other_process():
        timed_build(FakeApi(), tmp_path, "Tanh", b"gemm")

    timed_build(FakeApi(), tmp_path, "Relu", b"conv", other_process)
    assert timed_build(FakeApi(), tmp_path, "Sigmoid", b"pool") == [b"conv gemm"]


def test_timings_of_another_gpu_are_not_used(tmp_path, monkeypatch):
    timed_build(FakeApi(), tmp_path, "Relu", b"conv")
    monkeypatch.setattr(FakeApi, "version", "TensorRT 1")
    assert timed_build(FakeApi(), tmp_path, "Tanh", b"gemm") == [b""]


def test_a_timing_cache_of_the_users_own_stays_out_of_the_store(tmp_path):
    timed_build(FakeApi(), tmp_path, "Relu", b"conv", timing_cache=str(tmp_path / "mine"))
    assert [entry.key["kind"] for entry in Store(tmp_path).entries()] == ["plan"]


def test_plans_for_files_use_the_timings_and_add_theirs(tmp_path):
    timed_build(FakeApi(), tmp_path, "Relu", b"conv")
    api, seen = FakeApi(), []

    def build():
        seen.append(api.timing_cache)
        api.timing_cache = b"conv gemm"
        return b"plan"

    options = Options(cache_dir=str(tmp_path))
    assert _stored.built_with_timings(build, api, None, options) == b"plan"
    assert seen == [b"conv"]
    assert timed_build(FakeApi(), tmp_path, "Tanh", b"pool") == [b"conv gemm"]
    kinds = sorted(entry.key["kind"] for entry in Store(tmp_path).entries())
    assert kinds == ["plan", "plan", "timing"], "the file's plan is not in the store"
    api.timing_cache = b""
    assert _stored.built_with_timings(build, api, None, Options(cache_dir=False)) == b"plan"
    assert seen[1:] == [b""]


# -- what takes seconds to find out ----------------------------------------------------------------


def test_the_parser_is_asked_once_about_a_node(tmp_path):
    asked = []

    def answers(options: Options) -> _stored.NodeAnswers:
        return _stored.NodeAnswers(ask, FakeApi(), options)

    def ask(model):
        asked.append(model.graph.node[0].op_type)
        return None if asked[-1] == "Relu" else "no such operator"

    relu, other = (one_node(op, [("x", 1, [2])], [("y", 1, [2])]) for op in ("Relu", "Nothing"))
    first, meanwhile = (answers(Options(cache_dir=str(tmp_path))) for _ in range(2))
    for _ in range(2):
        assert first(relu) is None
    assert meanwhile(other) == "no such operator"
    first.keep()
    meanwhile.keep()
    assert asked == ["Relu", "Nothing"]
    second = answers(Options(cache_dir=str(tmp_path)))
    assert second(relu) is None
    assert second(other) == "no such operator"
    assert asked == ["Relu", "Nothing"]
    [entry] = Store(tmp_path).entries(verify=True)
    assert entry.key["kind"] == "parser"
    assert not entry.problem
    without = answers(Options(cache_dir=False))
    assert without(relu) is None
    without.keep()
    assert asked == ["Relu", "Nothing", "Relu"]


def test_a_builder_is_started_once_on_a_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(_cuda, "driver", lambda: SimpleNamespace(get_driver_version=lambda: 12040))
    monkeypatch.setattr(_stored, "_kernel_driver", lambda: "580.65")
    gpu = SimpleNamespace(name="NVIDIA H200", capability=(9, 0))
    started = []

    def start(fails: bool = False) -> None:
        started.append(True)
        if fails:
            raise EngineNotAvailable("TensorRT cannot start")

    def once(fails: bool = False, **options) -> None:
        given = Options(**{"cache_dir": str(tmp_path), **options})
        _stored.start_once(lambda: start(fails), FakeApi(), gpu, given)

    with pytest.raises(EngineNotAvailable, match="cannot start"):
        once(fails=True)
    for _ in range(3):
        once()
    assert len(started) == 2, "a failure is not remembered, a success is"
    once(cache_dir=False)
    assert len(started) == 3
    monkeypatch.setattr(_stored, "_kernel_driver", lambda: "590.1")
    once()
    assert len(started) == 4


# -- on a GPU --------------------------------------------------------------------------------------


@pytest.fixture
def on_gpu():
    try:
        tensorrt.builder(read_options(engine="tensorrt"))
    except EngineNotAvailable as error:
        pytest.skip(str(error))


@pytest.mark.gpu
def test_a_second_start_on_a_gpu(on_gpu, tmp_path, monkeypatch):
    net, args, aux = convnet()
    data = mx.nd.array(np.random.default_rng(0).random((2, 3, 16, 16), np.float32))
    outputs, origins = [], []
    for _ in range(2):
        symbol, (kept, kept_aux) = mxtrt.optimize(
            net, (args, aux), shapes={"data": data.shape}, engine="tensorrt", tf32=False,
            strict=True, cache_dir=tmp_path,
        )  # fmt: skip
        bound = symbol.bind(mx.cpu(), {"data": data, **kept}, aux_states=kept_aux, grad_req="null")
        outputs.append(bound.forward(is_train=False)[0].asnumpy())
        [engine] = engines(symbol)
        origins += [origin.stored for _, origin in engine.origins]
        monkeypatch.setattr(engine.api, "timing_cache", b"")
    assert origins == [False, True]
    np.testing.assert_array_equal(*outputs)
    kinds = sorted(entry.key["kind"] for entry in Store(tmp_path).entries(verify=True))
    assert kinds == ["parser", "parser", "plan", "start", "timing"]
    [plan] = [entry for entry in Store(tmp_path).entries() if entry.key["kind"] == "plan"]
    assert "gpu" in plan.key


@pytest.mark.gpu
def test_timings_of_two_processes_on_a_gpu(on_gpu, tmp_path, monkeypatch):
    """NVIDIA joins them itself."""
    net, args, aux = convnet()
    options = {"engine": "tensorrt", "strict": True, "cache_dir": tmp_path}
    sizes = []
    for size in (16, 24):
        mxtrt.optimize(net, (args, aux), shapes={"data": (2, 3, size, size)}, **options)
        [timing] = [e for e in Store(tmp_path).entries() if e.key["kind"] == "timing"]
        sizes.append(timing.nbytes)
    api = _nvidia.api("tensorrt")
    content = Store(tmp_path).read(timing.key)
    monkeypatch.setattr(api, "timing_cache", content)
    assert len(_stored._merged(api, content + b"", b"older")) >= len(content)
    assert sizes[1] > sizes[0]
