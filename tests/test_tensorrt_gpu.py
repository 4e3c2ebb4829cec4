"""TensorRT on a GPU, beside MXNet on the CPU: ``pytest -m gpu``."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import textwrap
import threading
import warnings

import mxnet as mx
import numpy as np
import onnx
import pytest
from gpu_nets import convnet, images
from operators import run_mxnet

import mxtrt
from mxtrt.arrays import TYPE_FLAGS, numpy_view
from mxtrt.engines import _contexts, _cuda, _halves, _network, _nvidia, _progress, tensorrt
from mxtrt.engines._streams import download, upload
from mxtrt.errors import BadOption, EngineError, EngineNotAvailable
from mxtrt.onnx_model import export_onnx
from mxtrt.operator import engines
from mxtrt.options import read_options
from mxtrt.params import read_params
from mxtrt.partition import partition
from mxtrt.symbol import read_symbol


def _why_not() -> str:
    try:
        tensorrt.builder(read_options(engine="tensorrt"))
    except EngineNotAvailable as error:
        return str(error)
    return ""


@pytest.fixture(scope="module", autouse=True)
def tensorrt_works():
    reason = _why_not()
    if reason:
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def no_fallback():
    """A silent fallback to ONNX Runtime would let these tests pass."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=RuntimeWarning, message=".*ONNX Runtime")
        yield


pytestmark = pytest.mark.gpu

EXACT = {"tf32": False, "strict": True, "engine": "tensorrt"}


def run(symbol, params, **arrays) -> list[np.ndarray]:
    args, aux = params
    given = {name: array.asnumpy() for name, array in {**args, **aux}.items()}
    return run_mxnet(symbol, {**given, **arrays})


def check(symbol, params, arrays, tolerance=1e-4, **options):
    """Compare with MXNet: the largest difference, relative to the largest output."""
    want = run(symbol, params, **arrays)
    options = {**EXACT, **options}
    optimized, kept = mxtrt.optimize(symbol, params, min_subgraph_size=1, **options)
    assert not mxtrt.report(optimized).left
    have = run(optimized, kept, **arrays)
    assert mxtrt.report(optimized).engine == "tensorrt"
    for one, other in zip(want, have):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        scale = max(float(np.abs(one).max()), 1e-30)
        assert np.isfinite(other).all()
        assert float(np.abs(one - other).max()) / scale < tolerance
    return optimized, kept


def plans(optimized) -> list:
    [engine] = engines(optimized)
    return [plan for _, plan in engine._plans.get(0, ())]


# -- results -----------------------------------------------------------------------------------


def test_convnet():
    net, args, aux = convnet()
    check(net, (args, aux), {"data": images(4)}, shapes={"data": (4, 3, 32, 32)})


def test_tf32_and_float16():
    net, args, aux = convnet(outputs=True)
    shapes = {"data": (4, 3, 32, 32)}
    check(net, (args, aux), {"data": images(4)}, 5e-3, shapes=shapes, tf32=True)
    check(net, (args, aux), {"data": images(4)}, 2e-2, shapes=shapes, precision="fp16")


def test_word_numbers_in_float16():
    """MXNet holds them as float32, and float16 ends at 2048 as far as each number goes."""
    words = np.random.default_rng(0).integers(0, 30522, (2, 64)).astype("float32")
    net = mx.sym.Embedding(mx.sym.var("data"), input_dim=30522, output_dim=32, name="words")
    net = mx.sym.FullyConnected(net, num_hidden=8, flatten=False, name="fc")
    rng = np.random.default_rng(1)
    shapes = dict(zip(net.list_arguments(), net.infer_shape(data=(2, 64))[0]))
    args = {n: mx.nd.array(rng.standard_normal(s)) for n, s in shapes.items() if n != "data"}
    optimized, kept = check(net, (args, {}), {"data": words}, 2e-2, shapes={"data": (2, 64)},
                            precision="fp16")  # fmt: skip
    [plan], [want] = plans(optimized), run(optimized, kept, data=words)
    assert [tensor.dtype for tensor in plan.inputs] == ["int32"]
    found, gpu = np.zeros_like(want), _cuda.gpu(0)
    with gpu:  # from floats on the GPU, too
        stream = gpu.stream()
        source, target = gpu.device_memory(words.nbytes), gpu.device_memory(found.nbytes)
        upload(int(source), words.ctypes.data, words.nbytes, stream.handle)
        for _ in range(_contexts.CALLS_BEFORE_GRAPH + 2):
            found[:] = 0
            arrays = [Device(int(source), words.shape)], [Device(int(target), found.shape)]
            plan.execute(*arrays, stream.handle)
            download(found.ctypes.data, int(target), found.nbytes, stream.handle)
            stream.synchronize()
            np.testing.assert_array_equal(found, want)


def test_bert_in_float16():
    """Its layers are fused, and read inputs as the fused layer likes them."""
    words = np.random.default_rng(0).integers(0, 30522, (2, 128)).astype("float32")
    sym, width = mx.sym, 64
    x = sym.Embedding(sym.var("data"), input_dim=30522, output_dim=width, name="words")
    x = sym.transpose(sym.LayerNorm(x, name="norm"), axes=(1, 0, 2))

    def dense(x, units, name):
        return sym.FullyConnected(x, num_hidden=units, flatten=False, name=name)

    qkv = dense(x, 3 * width, "qkv")
    scores = sym.softmax(sym.contrib.interleaved_matmul_selfatt_qk(qkv, heads=4))
    seen = sym.contrib.interleaved_matmul_selfatt_valatt(qkv, scores, heads=4)
    net = sym.LayerNorm(x + dense(seen, width, "out"), name="norm2")
    rng = np.random.default_rng(1)
    shapes = dict(zip(net.list_arguments(), net.infer_shape(data=words.shape)[0]))
    args = {n: mx.nd.array(rng.normal(0, 0.2, s)) for n, s in shapes.items() if n != "data"}
    shapes = {"data": ((1, 2, 4), 128)}
    check(net, (args, {}), {"data": words}, 2e-2, shapes=shapes, precision="fp16")


def test_truths_in_float16():
    x = mx.sym.var("data")
    steps = mx.sym.contrib.arange_like(x, axis=1)
    net = mx.sym.Group([
        mx.sym.broadcast_greater(x, mx.sym.expand_dims(steps, 0)),
        x == 30001, mx.sym.argmax(x, axis=1), mx.sym.Cast(x * 1 + 0.5, dtype="int32"),
    ])  # fmt: skip
    data = np.random.default_rng(0).permutation(8000).reshape(2, 4000).astype("float32") + 24000
    data[1] -= 24000
    check(net, ({}, {}), {"data": data}, 1e-6, shapes={"data": (2, 4000)}, precision="fp16")


def test_arrays_in_pinned_memory():
    net, args, aux = convnet()
    shapes = {"data": (64, 3, 32, 32)}
    optimized, kept = mxtrt.optimize(net, (args, aux), shapes=shapes, **EXACT)
    data = mxtrt.pinned_array(shapes["data"])
    bound = optimized.bind(mx.cpu(), {**kept[0], "data": data}, None, "null", kept[1])
    for seed in range(5):
        batch = np.roll(images(64), seed, 0)
        data[:] = batch
        [want] = run(net, (args, aux), data=batch)
        np.testing.assert_allclose(bound.forward(is_train=False)[0].asnumpy(), want, 1e-4, 1e-5)
    [plan] = plans(optimized)
    [lane] = plan._idle
    assert not lane.inputs[0]._host.any(), "the batches went through other pinned memory"


@pytest.mark.parametrize("outputs", [False, True])
def test_batches_in_halves(outputs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is faster: the results are those of the whole batch."""
    monkeypatch.setattr(_halves, "GAIN", 1e9)
    net, args, aux = convnet(outputs=outputs)
    shapes = {"data": ((64, 256, 256), 3, 32, 32)}
    optimized, kept = mxtrt.optimize(net, (args, aux), shapes=shapes, **EXACT)
    bound = optimized.bind(mx.cpu(), {**kept[0], "data": mx.nd.zeros((256, 3, 32, 32))}, None,
                           "null", kept[1])  # fmt: skip
    for seed in range(8):
        batch = np.roll(images(256), seed, 0)
        wants = run(net, (args, aux), data=batch)
        haves = bound.forward(is_train=False, data=mx.nd.array(batch))
        for want, have in zip(wants, haves):
            np.testing.assert_allclose(have.asnumpy(), want, 1e-4, 1e-5)
    [plan] = plans(optimized)
    assert list(plan.halves_are_faster.values()) == [True]


def test_several_outputs_and_a_range():
    net, args, aux = convnet(outputs=True)
    shapes = {"data": ((1, 4, 8), 3, 32, 32)}
    optimized, kept = check(net, (args, aux), {"data": images(8)}, shapes=shapes)
    for batch in (1, 3, 8):
        want = run(net, (args, aux), data=images(batch))
        have = run(optimized, kept, data=images(batch))
        for one, other in zip(want, have):
            np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-4)
    assert len(plans(optimized)) == 1


def test_unknown_sizes(caplog):
    net, args, aux = convnet()
    with caplog.at_level(logging.INFO, "mxtrt"):
        optimized, kept = check(net, (args, aux), {"data": images(3)})
        for batch, size in ((4, 32), (1, 32), (6, 32), (2, 40), (5, 64), (3, 32)):
            want = run(net, (args, aux), data=images(batch, size))
            have = run(optimized, kept, data=images(batch, size))
            np.testing.assert_allclose(have[0], want[0], rtol=1e-3, atol=1e-4)
    built = [r.getMessage() for r in caplog.records if " built mxtrt0 for " in r.getMessage()]
    assert len(built) <= 4, built  # (3, 32), (6, 32), (2, 40) and perhaps (5, 64)


def test_layer_normalization_of_large_numbers_in_float16():
    x = mx.sym.LayerNorm(mx.sym.var("data"), name="norm")
    net = mx.sym.FullyConnected(x, num_hidden=8, flatten=False, name="fc")
    rng = np.random.default_rng(0)
    shapes = {"norm_gamma": (64,), "norm_beta": (64,), "fc_weight": (8, 64), "fc_bias": (8,)}
    args = {name: mx.nd.array(rng.normal(0, 0.3, shape)) for name, shape in shapes.items()}
    data = rng.normal(0, 500, (2, 16, 64)).astype("float32")
    check(net, (args, {}), {"data": data}, 1e-3, shapes={"data": data.shape})
    check(net, (args, {}), {"data": data}, 2e-2, shapes={"data": data.shape}, precision="fp16")


def test_a_float16_model():
    """A model whose own types are float16: TensorRT needs its flag although fp32 is asked for."""
    x = mx.sym.Cast(mx.sym.var("data"), dtype="float16")
    x = mx.sym.relu(mx.sym.broadcast_mul(x, mx.sym.var("scale", shape=(1, 32))) - 0.25)
    net = mx.sym.Group([mx.sym.Cast(x, dtype="float32"), mx.sym.tanh(x)])
    rng = np.random.default_rng(0)
    args = {"scale": mx.nd.array(rng.normal(1, 0.2, (1, 32)), dtype="float16")}
    data = rng.random((4, 32), np.float32)
    check(net, (args, {}), {"data": data}, 1e-2, shapes={"data": (4, 32)})


def test_integers():
    data = mx.sym.var("data")
    table = mx.sym.Embedding(data, input_dim=50, output_dim=8, name="table")
    net = mx.sym.sum(table, axis=1)
    args = {"table_weight": mx.nd.random.normal(shape=(50, 8))}
    for dtype in ("int32", "int64", "float32"):
        words = np.random.default_rng(0).integers(0, 50, (4, 6)).astype(dtype)
        check(net, (args, {}), {"data": words}, shapes={"data": (4, 6)}, dtypes={"data": dtype})


def test_large_arrays():
    """More than 4 MiB: several threads copy, in chunks."""
    net, args, aux = convnet(outputs=True)
    check(net, (args, aux), {"data": images(96, 96)}, shapes={"data": (96, 3, 96, 96)})


@pytest.mark.parametrize("cuda_graph", [True, False, None])
def test_cuda_graph(cuda_graph):
    net, args, aux = convnet()
    shapes = {"data": (2, 3, 32, 32)}
    optimized, kept = check(
        net, (args, aux), {"data": images(2)}, shapes=shapes, cuda_graph=cuda_graph
    )
    for seed in range(_contexts.CALLS_BEFORE_GRAPH + 3):
        want = run(net, (args, aux), data=images(2, seed=seed))[0]
        have = run(optimized, kept, data=images(2, seed=seed))[0]
        np.testing.assert_allclose(have, want, rtol=1e-3, atol=1e-5)
    [plan] = plans(optimized)
    if cuda_graph is not None:
        assert plan.cuda_graph is cuda_graph
        assert (plan._idle[0]._graph is not None) is cuda_graph


def test_gluon():
    net, args, aux = convnet()
    optimized, (kept, kept_aux) = mxtrt.optimize(
        net, (args, aux), shapes={"data": (2, 3, 32, 32)}, **EXACT
    )
    block = mx.gluon.SymbolBlock(optimized, [mx.sym.var("data")])
    for name, parameter in block.collect_params().items():
        parameter._load_init({**kept, **kept_aux}[name], mx.cpu())
    want = run(net, (args, aux), data=images(2))[0]
    for _ in range(3):
        have = block(mx.nd.array(images(2))).asnumpy()
        np.testing.assert_allclose(have, want, rtol=1e-3, atol=1e-5)


def test_threads():
    net, args, aux = convnet()
    optimized, _ = mxtrt.optimize(net, (args, aux), shapes={"data": (2, 3, 32, 32)}, **EXACT)
    [engine] = engines(optimized)
    want = {seed: run(net, (args, aux), data=images(2, seed=seed))[0] for seed in range(8)}
    wrong: list = []

    def work(seed: int) -> None:
        x, y = images(2, seed=seed), np.zeros((2, 10), np.float32)
        for _ in range(50):
            y[:] = 0
            engine.execute([Host(x)], [Host(y)], 0)
            if not np.allclose(y, want[seed], rtol=1e-3, atol=1e-5):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert 1 <= plans(optimized)[0]._lanes <= 4


def test_auto_takes_tensorrt(caplog):
    net, args, aux = convnet()
    with caplog.at_level(logging.INFO, "mxtrt"):
        assert mxtrt.explain(net, (args, aux)).engine == "tensorrt"
    assert any("engine='auto' takes TensorRT" in r.getMessage() for r in caplog.records)


# -- memory ------------------------------------------------------------------------------------


class Host:
    """A NumPy array as the bridge hands over one of MXNet's on the CPU."""

    device_type, device_id = 1, 0

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape = array, array.shape
        self.dtype, self.address = TYPE_FLAGS[array.dtype.name], array.ctypes.data

    def to_numpy(self) -> np.ndarray:
        return self.array


class Device:
    """Device memory as the bridge hands over one of MXNet's arrays on the GPU."""

    device_type, device_id = 2, 0

    def __init__(self, address: int, shape: tuple[int, ...], dtype: str = "float32") -> None:
        self.address, self.shape, self.dtype = address, shape, TYPE_FLAGS[dtype]
        self.nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize


def built_plan(batch=2, **options):
    """Return an exported part, the bytes of its plan, and what it takes to load it."""
    net, args, aux = convnet()
    checked = read_options({"data": (batch, 3, 32, 32)}, **{**EXACT, **options})
    graph = read_symbol(net, read_params((args, aux)).arrays, checked)
    proto, model = export_onnx(partition(graph, checked).parts[0])
    engine = tensorrt.TensorRTEngine(_nvidia.api("tensorrt"), proto, model.weights, checked)
    views = {name: numpy_view(array) for name, array in model.weights.items()}
    profile = tensorrt.known_profile(engine._declared)
    with _cuda.gpu(0):
        plan = tensorrt.build_plan(engine.api, proto, views, profile, checked)
    names = [i.name for i in proto.graph.input], [o.name for o in proto.graph.output]
    return (net, args, aux), bytes(plan), names


def load(plan: bytes, names, **options):
    api = _nvidia.api("tensorrt")
    return tensorrt.LoadedPlan(api, _cuda.gpu(0), plan, *names, **options)


def test_arrays_on_the_gpu_are_handed_over():
    """What TensorRT gets is the array's own memory, on the array's own stream, without a sync."""
    (net, args, aux), plan, names = built_plan()
    loaded, gpu = load(plan, names), _cuda.gpu(0)
    x, y = images(2), np.zeros((2, 10), np.float32)
    want = run(net, (args, aux), data=x)[0]
    with gpu:
        stream = gpu.stream()
        for _ in range(3):  # new addresses each time
            source, target = gpu.device_memory(x.nbytes), gpu.device_memory(y.nbytes)
            upload(int(source), x.ctypes.data, x.nbytes, stream.handle)
            loaded.execute(
                [Device(int(source), x.shape)], [Device(int(target), y.shape)], stream.handle
            )
            context = loaded._on_streams[stream.handle].context
            assert context.get_tensor_address(names[0][0]) == int(source)
            assert context.get_tensor_address(names[1][0]) == int(target)
            download(y.ctypes.data, int(target), y.nbytes, stream.handle)
            stream.synchronize()
            np.testing.assert_allclose(y, want, rtol=1e-3, atol=1e-5)
            source.free()
            target.free()
    assert not loaded._idle, "arrays on the GPU must not be staged"
    loaded.close()


def test_no_memory_is_lost():
    _, plan, names = built_plan()
    gpu, x, y = _cuda.gpu(0), images(2), np.zeros((2, 10), np.float32)

    def cycle() -> None:
        loaded = load(plan, names)
        for _ in range(3):
            loaded.execute([Host(x)], [Host(y)], 0)
        loaded.close()

    for _ in range(3):
        cycle()
    with gpu:
        before = gpu.memory()[0]
    for _ in range(340):
        cycle()
    with gpu:
        lost = before - gpu.memory()[0]
    assert lost < 16 << 20, f"{lost >> 20} MiB lost in 340 loads and 1020 calls"


def wide(seed: int) -> tuple:
    """Return a net whose layers hand over more than its arrays hold."""
    x = mx.sym.var("data")
    for layer in range(3):
        x = mx.sym.Convolution(x, kernel=(3, 3), num_filter=48, pad=(1, 1), name=f"conv{layer}")
        x = mx.sym.Activation(x, act_type="tanh", name=f"tanh{layer}")
    net = mx.sym.Pooling(x, global_pool=True, pool_type="avg", kernel=(1, 1), name="avg")
    shapes, _, _ = net.infer_shape(data=(8, 3, 256, 256))
    rng = np.random.default_rng(seed)
    args = {
        name: mx.nd.array(rng.normal(0, 0.1, shape))
        for name, shape in zip(net.list_arguments(), shapes)
        if name != "data"
    }
    return net, (args, {})


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_plans_share_their_activations(cuda_graph):
    gpu, data = _cuda.gpu(0), {"data": images(8, 256)}
    nets = [wide(seed) for seed in (1, 2, 3)]
    want = [run(*net, **data) for net in nets]

    def held() -> tuple[int, int]:
        memories = gpu.activations.values()  # those of other tests' engines among them
        return sum(m._users for m in memories), sum(m._nbytes for m in memories)

    (users, nbytes), made = held(), []
    for net in nets:
        made.append(
            mxtrt.optimize(*net, shapes={"data": (8, 3, 256, 256)}, cuda_graph=cuda_graph, **EXACT)
        )
        run(*made[-1], **data)
    needed = [plans(symbol)[0].activation_bytes for symbol, _ in made]
    assert min(needed) > 64 << 20
    assert held()[0] == users + 3
    assert held()[1] - nbytes <= max(needed) <= held()[1]  # others may have left some
    for _ in range(_contexts.CALLS_BEFORE_GRAPH + 2):
        for (symbol, kept), expected in zip(made, want):
            [found] = run(symbol, kept, **data)
            np.testing.assert_allclose(found, expected[0], rtol=1e-3, atol=1e-5)
    for symbol, _ in made:
        mxtrt.release(symbol)
    assert held()[0] == users


# -- what goes wrong ---------------------------------------------------------------------------


def test_a_shape_outside_the_plan():
    (net, args, aux), plan, names = built_plan(batch=(1, 2, 4))
    loaded = load(plan, names)
    x, y = images(5), np.zeros((5, 10), np.float32)
    with pytest.raises(EngineError, match=r"does not take 'data' of shape \(5, 3, 32, 32\)"):
        loaded.execute([Host(x)], [Host(y)], 0)
    with pytest.raises(EngineError, match="in MXNet"):
        loaded.execute([Host(images(3))], [Host(np.zeros((4, 10), np.float32))], 0)
    y = np.zeros((3, 10), np.float32)
    loaded.execute([Host(images(3))], [Host(y)], 0)
    want = run(net, (args, aux), data=images(3))[0]
    np.testing.assert_allclose(y, want, rtol=1e-3, atol=1e-5)
    loaded.close()


def test_a_fixed_size_in_mxnet():
    net, args, aux = convnet()
    optimized, kept = mxtrt.optimize(net, (args, aux), shapes={"data": (2, 3, 32, 32)}, **EXACT)
    with pytest.raises(mx.base.MXNetError, match="fixed to 2"):
        run(optimized, kept, data=images(3))
    run(optimized, kept, data=images(2))


@pytest.mark.parametrize("damage", ["half", "tail", "empty", "noise", "flipped"])
def test_damaged_plans(damage, tmp_path):
    """In a process of its own: what TensorRT does with a damaged plan is up to TensorRT."""
    _, plan, names = built_plan()
    flipped = bytearray(plan)
    flipped[8] ^= 0xFF
    damaged = {
        "half": plan[: len(plan) // 2],
        "tail": plan[:-100],
        "empty": b"",
        "noise": b"\x5a" * len(plan),
        "flipped": bytes(flipped),
    }[damage]
    (tmp_path / "plan").write_bytes(damaged)
    code = f"""
        import mxtrt
        from mxtrt.engines import _contexts, _cuda, _nvidia, tensorrt
        from mxtrt.errors import EngineError
        plan = open({str(tmp_path / "plan")!r}, "rb").read()
        try:
            tensorrt.LoadedPlan(_nvidia.api("tensorrt"), _cuda.gpu(0), plan, *{names!r})
        except EngineError as error:
            print("refused:", error)
        else:
            print("loaded")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "refused: TensorRT does not take the plan" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stderr


def test_the_process_ends_cleanly():
    """Engines, contexts and graphs are freed before CUDA goes; nothing is printed, no crash."""
    code = """
        import mxtrt, mxnet as mx, numpy as np
        x = mx.sym.relu(mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=4, name="fc"))
        args = {"fc_weight": mx.nd.ones((4, 8)), "fc_bias": mx.nd.ones(4)}
        sym, kept = mxtrt.optimize(x, (args, {}), shapes={"data": (2, 8)}, engine="tensorrt",
                                   strict=True)
        bound = sym.bind(mx.cpu(), {"data": mx.nd.ones((2, 8)), **kept[0]}, grad_req="null")
        print(bound.forward(is_train=False)[0].asnumpy().sum())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "72.0", done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
    assert "PyCUDA" not in done.stderr, done.stderr


def test_a_failed_call_falls_to_onnx_runtime(monkeypatch):
    net, args, aux = convnet()
    shapes = {"data": (2, 3, 32, 32)}
    want = run(net, (args, aux), data=images(2))[0]
    optimized, kept = mxtrt.optimize(net, (args, aux), shapes=shapes, engine="tensorrt")
    assert mxtrt.report(optimized).engine == "tensorrt"
    with monkeypatch.context() as patch:
        patch.setattr(
            tensorrt.LoadedPlan, "execute", lambda *_: (_ for _ in ()).throw(EngineError("a fault"))
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(3):
                have = run(optimized, kept, data=images(2))[0]
                np.testing.assert_allclose(have, want, rtol=1e-3, atol=1e-5)
    told = [str(w.message) for w in caught if "ONNX Runtime" in str(w.message)]
    assert told == ["mxtrt0 runs in ONNX Runtime instead of tensorrt, because a fault"]
    assert mxtrt.report(optimized).engine == "onnxruntime"


def test_too_little_workspace_is_one_sentence():
    net, args, aux = convnet()
    shapes = {"data": (2, 3, 32, 32)}
    try:
        mxtrt.optimize(net, (args, aux), shapes=shapes, workspace=1, **EXACT)
    except EngineError as error:
        assert "TensorRT cannot build mxtrt0" in str(error)


def test_wrong_device():
    net, args, aux = convnet()
    with pytest.raises(BadOption, match="device=99: there is no such GPU"):
        mxtrt.optimize(net, (args, aux), engine="tensorrt", device=99)


def test_options_of_newer_versions():
    api = _nvidia.api("tensorrt")
    net, args, aux = convnet()
    if not api.has_optimization_level:
        with pytest.raises(BadOption, match=r"optimization_level needs TensorRT 8\.6"):
            mxtrt.optimize(net, (args, aux), engine="tensorrt", optimization_level=3)
    if "bf16" not in api.precisions:
        with pytest.raises(BadOption, match="precision='bf16'"):
            mxtrt.optimize(net, (args, aux), engine="tensorrt", precision="bf16")


def test_options_for_kernels_and_devices():
    api = _nvidia.api("tensorrt")
    net, args, aux = convnet()
    check(
        net, (args, aux), {"data": images(2)}, shapes={"data": (2, 3, 32, 32)},
        sparse_weights=True, tactic_sources=api.tactic_sources,
    )  # fmt: skip
    with pytest.raises(BadOption, match=f"tactic_sources: {api.version} has .*, and no 'CUDN'"):
        mxtrt.optimize(net, (args, aux), engine="tensorrt", tactic_sources=["cudn"])
    with pytest.raises(BadOption, match="dla_core=0: the DLA cores of this machine: none"):
        mxtrt.optimize(net, (args, aux), engine="tensorrt", dla_core=0, precision="fp16")
    for option, can in (
        ("version_compatible", api.can_be_version_compatible),
        ("hardware_compatible", api.can_be_hardware_compatible),
    ):
        if not can:
            with pytest.raises(BadOption, match=f"{option} needs TensorRT 8.6 or newer"):
                mxtrt.optimize(net, (args, aux), engine="tensorrt", **{option: True})


def test_the_parser_names_the_node_at_fault():
    f = onnx.TensorProto.FLOAT
    node, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        node("Relu", ["x"], ["a"], name="good"),
        node("NoSuchOperator", ["a"], ["b"], name="bad"),
        node("Relu", ["b"], ["y"], name="last"),
    ]
    graph = onnx.helper.make_graph(nodes, "g", [info("x", f, [2])], [info("y", f, [2])])
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    found = _network.refused_nodes(_nvidia.api("tensorrt"), model, None, "fp32")
    assert set(found) == {"bad"}
    assert found["bad"].startswith("TensorRT: ")


def test_builds_in_the_background():
    net, args, aux = convnet()
    want = run(net, (args, aux), data=images(3))[0]
    optimized, kept = mxtrt.optimize(
        net, (args, aux), engine="tensorrt", tf32=False, background=True
    )
    [guarded] = engines(optimized)
    engine = guarded._engine
    before = run(optimized, kept, data=images(3))[0]
    np.testing.assert_allclose(before, want, rtol=1e-3, atol=1e-5)
    engine._background.wait(300)
    assert engine._background.error is None
    after = run(optimized, kept, data=images(3))[0]
    np.testing.assert_allclose(after, want, rtol=1e-3, atol=1e-5)
    [(_, plan)] = engine._plans[0]
    assert plan._idle or plan._on_streams, "the plan has run"


def test_what_a_build_tells(monkeypatch):
    """Without a monitor, the logger says which layer is timed."""
    api = _nvidia.api("tensorrt")
    if hasattr(api.module, "IProgressMonitor"):
        pytest.skip("this version has a monitor")
    texts = []
    real = _progress.Watch.hear

    def hear(watch, text):
        real(watch, text)
        texts.append(str(watch))

    monkeypatch.setattr(_progress.Watch, "hear", hear)
    monkeypatch.setattr(api, "timing_cache", b"")
    built_plan(batch=5)
    assert any(text.startswith("TensorRT builds mxtrt0 (fp32): times ") for text in texts)


def test_ctrl_c_during_a_build(monkeypatch):
    def press(watch, text):
        if not watch.cancelled:
            signal.raise_signal(signal.SIGINT)

    net, args, aux = convnet()
    shapes = {"data": (2, 3, 32, 32)}
    with monkeypatch.context() as patch:
        patch.setattr(_progress.Watch, "hear", press)
        with pytest.raises(KeyboardInterrupt):
            mxtrt.optimize(net, (args, aux), shapes=shapes, **EXACT)
    check(net, (args, aux), {"data": images(2)}, shapes=shapes)


def test_no_memory_left():
    (net, args, aux), plan, names = built_plan(batch=4096)
    gpu, x, y = _cuda.gpu(0), images(4096), np.zeros((4096, 10), np.float32)
    with gpu:
        held = gpu.device_memory(gpu.memory()[0] - (64 << 20))
    try:
        with pytest.raises(EngineError):  # at the plan, the context or the arrays
            load(plan, names).execute([Host(x)], [Host(y)], 0)
    finally:
        with gpu:
            held.free()
    loaded = load(plan, names)
    loaded.execute([Host(x)], [Host(y)], 0)
    want = run(net, (args, aux), data=x)[0]
    np.testing.assert_allclose(y, want, rtol=1e-3, atol=1e-4)
    loaded.close()


def test_timing_cache(tmp_path):
    net, args, aux = convnet()
    file = tmp_path / "timing"
    for content in (None, b"not a cache"):
        if content is not None:
            file.write_bytes(content)
            _nvidia.api("tensorrt").timing_cache = b""
        mxtrt.optimize(
            net, (args, aux), shapes={"data": (2, 3, 32, 32)}, timing_cache=file, **EXACT
        )
        assert file.stat().st_size > 100


def test_float64_stays_in_mxnet():
    net = mx.sym.var("data") * 2 + 1
    left = mxtrt.explain(
        net, {}, dtypes={"data": "float64"}, shapes={"data": (2, 2)}, engine="tensorrt",
        min_subgraph_size=1,
    ).left  # fmt: skip
    assert set(left.values()) == {"float64: TensorRT computes in float32 at most"}
