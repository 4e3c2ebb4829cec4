"""The backend ``"mxtrt"`` of ``hybridize`` and of both ``optimize_for``."""

from __future__ import annotations

import ctypes
import json
import logging
import subprocess
import sys
import textwrap
import threading

import mxnet as mx
import numpy as np
import pytest
from mxnet.base import _LIB, SymbolHandle, c_str, c_str_array, mx_uint
from mxnet.gluon import HybridBlock, SymbolBlock, nn
from mxnet.gluon.model_zoo import vision
from test_gluon import (
    CHANGES,
    SHAPES,
    Detector,
    assert_same,
    convnet,
    dense,
    initialized,
    random,
)

import mxtrt
from mxtrt import _bridge, errors


def keys(block):
    return mxtrt.operator._keys(block)


# -- hybridize -------------------------------------------------------------------------------------

FLAGS = {
    "plain": {},
    "static_alloc": {"static_alloc": True},
    "static_shape": {"static_alloc": True, "static_shape": True},
}


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
def test_hybridize(flags):
    net = convnet()
    x = random(2, 3, 16, 16)
    expected = net(x)
    net.hybridize(backend="mxtrt", **flags)
    for _ in range(3):
        assert_same(net(x), expected)
    assert "All 5 operators" in str(mxtrt.report(net))


@pytest.mark.parametrize("name", SHAPES)
def test_signature(name):
    make, args = SHAPES[name]
    net = initialized(make())
    first, later = args(2), args(5)
    expected = [net(*example) for example in (first, later)]
    net.hybridize(backend="mxtrt", min_subgraph_size=1)
    for example, outputs in zip((first, later), expected):
        found = net(*example)
        assert_same(found, list(outputs) if isinstance(outputs, tuple) else outputs)
    assert not mxtrt.report(net).left


def test_zoo_with_other_sizes():
    net = vision.get_model("resnet18_v1", classes=10)
    net.initialize(mx.init.Xavier())
    inputs = [random(1, 3, 64, 64), random(3, 3, 64, 64), random(2, 3, 96, 48)]
    expected = [net(x) for x in inputs]
    net.hybridize(backend="mxtrt")
    for x, outputs in zip(inputs, expected):
        assert_same(net(x), outputs, 1e-3, 1e-4)


def test_deferred_initialisation_and_options():
    net = convnet()
    net.hybridize(backend="mxtrt", exclude_ops=["FullyConnected"], engine="onnxruntime")
    x = random(2, 3, 16, 16)
    found = net(x)
    assert [node.op for node in mxtrt.report(net).left] == ["FullyConnected"]
    net.hybridize(backend="mxtrt")  # the options of before are not kept, as MXNet keeps them
    assert_same(net(x), found)
    assert not mxtrt.report(net).left


def test_optimize_for():
    net = convnet()
    x = random(2, 3, 16, 16)
    net.optimize_for(x, backend="mxtrt", static_alloc=True, exclude_ops=["FullyConnected"])
    assert [node.op for node in mxtrt.report(net).left] == ["FullyConnected"]
    found = net(x)
    net.optimize_for(x, backend="mxtrt")
    assert not mxtrt.report(net).left
    assert_same(net(x), found)
    net.hybridize(False)
    assert_same(net(x), found)


def test_fixed_shapes_and_dtypes():
    net = convnet()
    x = random(2, 3, 16, 16)
    net.hybridize(backend="mxtrt", shapes={"data": (2, 3, 16, 16)}, dtypes={"data": np.float32})
    net(x)
    assert str(mxtrt.report(net).parts[0].inputs[0]) == "data (2, 3, 16, 16) float32"


MISSPELT = {
    "engin": ({"engin": "auto"}, "no option 'engin'; did you mean 'engine'?"),
    "engine": ({"engine": "tensort"}, "did you mean 'tensorrt'?"),
    "min_subgraph_size": ({"min_subgraph_size": 0}, "of at least 1"),
    "strict": ({"strict": "yes"}, "must be True or False"),
    "static_aloc": ({"static_aloc": True}, "no option 'static_aloc'"),
}


@pytest.mark.parametrize("name", MISSPELT)
def test_bad_options_are_refused_at_once(name):
    options, text = MISSPELT[name]
    net = convnet()
    x = random(2, 3, 16, 16)
    with pytest.raises(errors.BadOption) as caught:
        net.hybridize(backend="mxtrt", **options)
    assert text in str(caught.value)
    with pytest.raises(errors.BadOption):
        net.optimize_for(x, backend="mxtrt", **options)
    with pytest.raises(errors.BadOption):
        mx.sym.var("x").sin().optimize_for("mxtrt", **options)
    assert net(x).shape == (2, 5)  # as it was


def test_an_option_that_only_the_graph_shows_to_be_bad():
    net = convnet()
    x = random(2, 3, 16, 16)
    net.hybridize(backend="mxtrt", shapes={"dta": (1, 3, 16, 16)})
    with pytest.raises(errors.BadOption, match="no input 'dta'; did you mean 'data'"):
        net(x)
    net.hybridize(backend="mxtrt", exclude_nodes=[])
    assert net(x).shape == (2, 5)


def test_other_backends_are_mxnets():
    net = convnet()
    x = random(2, 3, 16, 16)
    expected = net(x)
    net.hybridize(backend="MKLDNN")
    assert_same(net(x), expected)
    net.hybridize()
    assert_same(net(x), expected)


def test_children_that_are_not_hybridized():
    class Loop(mx.gluon.Block):
        def __init__(self):
            super().__init__()
            self.features, self.head = convnet(), dense(3, 5)

        def forward(self, x):
            return self.head(self.features(x))

    net = Loop()
    x = random(2, 3, 16, 16)
    expected = net(x)
    net.features.hybridize(backend="mxtrt")
    assert_same(net(x), expected)
    net.hybridize(backend="mxtrt", min_subgraph_size=1)  # each HybridBlock inside
    assert_same(net(x), expected)
    assert keys(net.features)
    assert keys(net.head)


def test_float16():
    net = nn.HybridSequential()
    net.add(nn.Dense(8, in_units=6), nn.Dense(4, in_units=8))
    net.initialize(mx.init.Xavier())
    x = random(3, 6)
    net.hybridize(backend="mxtrt")
    expected = net(x).asnumpy()
    net.cast("float16")
    found = net(x.astype("float16"))
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.asnumpy(), expected, 1e-2, 1e-2)
    net.cast("float32")
    np.testing.assert_allclose(net(x).asnumpy(), expected, 1e-2, 1e-2)


def test_numpy_net():
    mx.npx.set_np()
    try:
        net = initialized(nn.Dense(4, in_units=3))
        x = mx.np.random.uniform(size=(2, 3))
        expected = net(x)
        net.hybridize(backend="mxtrt", min_subgraph_size=1)
        assert_same(net(x), expected)
        assert type(net(x)) is mx.np.ndarray
        assert keys(net)
    finally:
        mx.npx.reset_np()


def test_reset_ctx():
    net = convnet()
    x = random(2, 3, 16, 16)
    net.hybridize(backend="mxtrt", exclude_ops=["FullyConnected"])
    expected = net(x).asnumpy()
    net.collect_params().reset_ctx(mx.cpu(1))
    found = net(x.as_in_context(mx.cpu(1)))
    assert found.ctx == mx.cpu(1)
    np.testing.assert_array_equal(found.asnumpy(), expected)


def test_symbol_block(tmp_path):
    net = convnet()
    x = random(2, 3, 16, 16)
    net.hybridize()
    expected = net(x)
    net.export(str(tmp_path / "net"))
    files = str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0000.params")
    block = SymbolBlock.imports(*files)
    for backend in ("mxtrt", None, "mxtrt"):  # MXNet itself never gives the graph back
        block.hybridize(backend=backend)
        assert_same(block(x), expected)
        assert bool(keys(block)) == (backend == "mxtrt")
        block.collect_params()[net[3].bias.name].set_data(mx.nd.ones(5))
        net[3].bias.set_data(mx.nd.ones(5))
        expected = net(x)
        assert_same(block(x), expected)
    assert_same(mxtrt.optimize(block, x)(x), expected)


def test_a_detector_with_symbols():
    net = Detector()
    net.head.initialize()
    x = random(2, 3, 16, 16)
    expected = net(x)
    net.hybridize(backend="mxtrt")
    assert_same(net(x), expected)
    symbol = net(mx.sym.var("data"))  # MXNet traces it anew
    assert "_mxtrt_engine" not in symbol.tojson()


# -- weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", CHANGES, ids=lambda function: function.__name__)
def test_changed_weights_are_noticed(change):
    net = dense()
    x = random(3, 6)
    net.hybridize(backend="mxtrt", min_subgraph_size=1)
    net(x).wait_to_read()
    for _ in range(2):
        value = random(4, 6)
        change(net, value)
        expected = np.dot(x.asnumpy(), value.asnumpy().T) + net.bias.data().asnumpy()
        np.testing.assert_allclose(net(x).asnumpy(), expected, 1e-4, 1e-5)
        assert keys(net)


def test_load_parameters(tmp_path, caplog):
    caplog.set_level(logging.INFO, "mxtrt")
    net, other = convnet(), convnet()
    x = random(2, 3, 16, 16)
    expected = other(x)
    other.save_parameters(str(tmp_path / "other.params"))
    net.hybridize(backend="mxtrt")
    net(x)
    net.load_parameters(str(tmp_path / "other.params"))
    assert_same(net(x), expected)
    assert "built anew" in caplog.text
    caplog.clear()
    net(x)
    assert "built anew" not in caplog.text


def test_training_and_evaluating_in_turns():
    net = convnet()
    x, trainer = random(4, 3, 16, 16), None
    for _ in range(3):
        net.hybridize()
        trainer = trainer or mx.gluon.Trainer(net.collect_params(), "sgd")
        with mx.autograd.record():
            loss = (net(x) ** 2).sum()
        loss.backward()
        trainer.step(4)
        expected = net(x)
        net.hybridize(backend="mxtrt")
        assert_same(net(x), expected)


@pytest.mark.parametrize("mode", ["record", "train_mode"])
def test_training_is_refused(mode):
    net = convnet()
    net.hybridize(backend="mxtrt")
    x = random(2, 3, 16, 16)
    with getattr(mx.autograd, mode)(), pytest.raises(errors.InferenceOnly, match="inference only"):
        net(x)
    assert net(x).shape == (2, 5)


def test_hybridizing_again_leaves_no_engines_behind():
    net = convnet()
    x = random(2, 3, 16, 16)
    net.hybridize(backend="mxtrt")
    net(x)
    count = len(_bridge.registered())
    for _ in range(3):
        net.hybridize(backend="mxtrt")
        queued = net(x)
        net.cast("float32")
        net(x)
    net.hybridize()
    assert len(_bridge.registered()) < count
    assert queued.shape == (2, 5)
    assert np.isfinite(queued.asnumpy()).all()


def test_export_and_imports(tmp_path):
    net = convnet()
    x = random(2, 3, 16, 16)
    expected = net(x)
    net.hybridize(backend="mxtrt", exclude_ops=["FullyConnected"])
    net(x)
    net.export(str(tmp_path / "net"))
    net.hybridize()  # frees engines, but none that a file names
    files = str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0000.params")
    assert_same(SymbolBlock.imports(*files)(x), expected)


# -- threads ---------------------------------------------------------------------------------------


def test_eight_threads_start_together():
    net = convnet()
    inputs = [random(1 + i % 4, 3, 16 + i % 3, 16) for i in range(8)]
    expected = [net(x).asnumpy() for x in inputs]
    net.hybridize(backend="mxtrt")
    count, failures = len(_bridge.registered()), []
    start = threading.Barrier(8)

    def work(i):
        try:
            start.wait()
            for _ in range(20):
                np.testing.assert_allclose(net(inputs[i]).asnumpy(), expected[i], 1e-4, 1e-5)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(_bridge.registered()) == count + 1


# -- Symbol.optimize_for ---------------------------------------------------------------------------


def checkpoint():
    """Return a symbol and its parameters, as a checkpoint has them, and an input."""
    data = mx.sym.var("data")
    symbol = mx.sym.Convolution(data, kernel=(3, 3), num_filter=4, name="conv")
    symbol = mx.sym.BatchNorm(symbol, fix_gamma=False, name="bn")
    symbol = mx.sym.Activation(symbol, act_type="relu", name="relu")
    symbol = mx.sym.FullyConnected(mx.sym.Flatten(symbol), num_hidden=3, name="fc")
    symbol = mx.sym.SoftmaxOutput(symbol, name="softmax")
    shapes, _, aux_shapes = symbol.infer_shape(data=(2, 3, 8, 8))
    args = {
        name: random(*shape)
        for name, shape in zip(symbol.list_arguments(), shapes)
        if name not in ("data", "softmax_label")
    }
    aux = {n: mx.nd.ones(s) for n, s in zip(symbol.list_auxiliary_states(), aux_shapes)}
    return symbol, args, aux, random(2, 3, 8, 8)


def outputs(symbol, args, aux, **inputs):
    executor = symbol.simple_bind(
        mx.cpu(), grad_req="null", **{n: a.shape for n, a in inputs.items()}
    )
    executor.copy_params_from(args, aux, allow_extra_params=True)
    return [output.asnumpy() for output in executor.forward(**inputs)]


@pytest.mark.parametrize("with_data", [False, True])
def test_symbol(with_data):
    symbol, args, aux, x = checkpoint()
    (expected,) = outputs(symbol, args, aux, data=x)
    given, given_aux = dict(args), dict(aux)
    if with_data:
        given["data"] = x
    optimized = symbol.optimize_for("mxtrt", given, given_aux, mx.cpu())
    assert optimized.list_outputs() == symbol.list_outputs()
    assert optimized.list_arguments() == ["data"]
    assert set(given) == ({"data"} if with_data else set())  # as MXNet does with what has gone
    assert given_aux == {}
    assert not mxtrt.report(optimized).left
    for rows in (2, 5):
        more = mx.nd.concat(*[x] * 3, dim=0)[:rows]
        (found,) = outputs(optimized, {}, {}, data=more)
        np.testing.assert_allclose(found[:2], expected[: len(found)], 1e-4, 1e-5)


def test_symbol_without_arrays():
    symbol = mx.sym.sin(mx.sym.var("x")) + 1
    optimized = symbol.optimize_for("mxtrt")
    (found,) = outputs(optimized, {}, {}, x=mx.nd.zeros((2, 3)))
    np.testing.assert_array_equal(found, np.ones((2, 3)))
    assert mxtrt.report(optimized)


def test_an_array_that_may_be_an_input_is_one():
    symbol = mx.sym.broadcast_mul(mx.sym.var("a"), mx.sym.var("b")) + 1
    args = {"a": mx.nd.ones((2, 3)), "b": mx.nd.ones((1, 3))}
    optimized = symbol.optimize_for("mxtrt", args)
    assert optimized.list_arguments() == ["a", "b"]
    executor = optimized.bind(mx.cpu(), args)
    args["b"][:] = 5
    np.testing.assert_array_equal(executor.forward()[0].asnumpy(), np.full((2, 3), 6))


def test_shapes_make_an_input():
    symbol = mx.sym.FullyConnected(mx.sym.var("x"), mx.sym.var("w"), num_hidden=2, no_bias=True) + 1
    args = {"x": mx.nd.ones((2, 3)), "w": mx.nd.ones((2, 3))}
    assert symbol.optimize_for("mxtrt", dict(args)).list_arguments() == ["x"]
    optimized = symbol.optimize_for("mxtrt", dict(args), shapes={"w": (2, 3)})
    assert optimized.list_arguments() == ["x", "w"]


def test_type_and_shape_dict():
    symbol = mx.sym.Embedding(mx.sym.var("x"), input_dim=4, output_dim=2, name="e") + 1
    args = {"e_weight": random(4, 2)}
    optimized = symbol.optimize_for(
        "mxtrt", args, shape_dict={"x": (2, 3)}, type_dict={"x": np.int32}
    )
    assert str(mxtrt.report(optimized).inputs[0]) == "x (?, ?) int32"


def test_missing_parameters():
    symbol, args, aux, _ = checkpoint()
    del args["fc_weight"]
    with pytest.raises(errors.BadParams, match="params lacks 'fc_weight'"):
        symbol.optimize_for("mxtrt", args, aux)


def test_outputs_that_compute_the_same_keep_their_names():
    x = mx.sym.var("x")
    symbol = mx.sym.Group([mx.sym.sin(x, name="one") + 1, mx.sym.sin(x, name="two") + 1])
    assert symbol.optimize_for("mxtrt").list_outputs() == symbol.list_outputs()


NAMES = ['a"b', "a\\b", "a b", "a/b", "Größe", "{}[]:,"]


@pytest.mark.parametrize("name", NAMES)
def test_names(name):
    symbol = mx.sym.sin(mx.sym.var(name), name=name + "1") + 1
    optimized = symbol.optimize_for("mxtrt")
    assert optimized.list_arguments() == [name]
    (found,) = outputs(optimized, {}, {}, **{name: mx.nd.zeros(2)})
    np.testing.assert_array_equal(found, [1, 1])


def test_numpy_symbol_stays_one():
    symbol = mx.sym.np.sin(mx.sym.var("x").as_np_ndarray()) + 1
    assert type(symbol.optimize_for("mxtrt", min_subgraph_size=1)) is type(symbol)


def test_the_library_has_the_pass_without_the_wrapper():
    symbol = mx.sym.sin(mx.sym.var("x")) + 1
    found = run_pass(symbol, engine="onnxruntime", min_subgraph_size="1")
    assert [n["op"] for n in json.loads(found.tojson())["nodes"]] == ["null", "_mxtrt_engine"]
    with pytest.raises(mx.MXNetError, match="no option 'engin'; did you mean 'engine'"):
        run_pass(symbol, engin="onnxruntime")
    with pytest.raises(mx.MXNetError, match="min_subgraph_size='many' must be an integer"):
        run_pass(symbol, min_subgraph_size="many")


def run_pass(symbol, **options):
    """Call the C function that all bindings of MXNet call."""
    handle, none, zero = SymbolHandle(), ctypes.c_void_p(), mx_uint(0)
    made = [ctypes.byref(ctypes.c_void_p()) for _ in range(6)]
    mx.base.check_call(
        _LIB.MXOptimizeForBackend(
            *(symbol.handle, c_str("mxtrt"), ctypes.c_int(1), ctypes.byref(handle)),
            *(zero, none, zero, none, mx_uint(len(options))),
            *(c_str_array(list(options)), c_str_array(list(options.values()))),
            *(zero, none, none, none, zero, none, none, zero, none, none),
            *(ctypes.c_bool(True), *made),
        )
    )
    return mx.sym.Symbol(handle)


# -- importing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["mxtrt, mxnet as mx", "mxnet as mx, mxtrt"])
def test_importing_is_enough(first):
    code = f"""
        import warnings; warnings.simplefilter("ignore")
        import numpy
        if not hasattr(numpy, "bool"):
            numpy.bool = bool  # what MXNet needs, where it comes first
        import {first}
        net = mx.gluon.nn.Dense(4, in_units=3)
        net.initialize()
        x = mx.nd.ones((2, 3))
        expected = net(x)
        net.hybridize(backend="mxtrt", min_subgraph_size=1)
        print(abs(net(x) - expected).max().asscalar() < 1e-5, bool(mxtrt.operator._keys(net)))
    """
    if first.startswith("mxnet") and sys.version_info >= (3, 12):
        pytest.skip("MXNet does not import by itself")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=100
    )
    assert done.stdout == "True True\n", done.stderr


def test_an_mxnet_that_does_not_fit_is_told_and_goes_on(monkeypatch):
    def connect():
        raise mx.MXNetError("needs MXNet 1.9")

    monkeypatch.setattr("mxtrt.gluon.backend.connect", connect)
    with pytest.warns(UserWarning, match=r"cannot work with this MXNet: needs MXNet 1\.9"):
        mxtrt._connect()


def test_mxnets_methods_keep_their_names_and_documentation():
    assert HybridBlock.hybridize.__name__ == "hybridize"
    assert "backend" in HybridBlock.hybridize.__doc__
    assert mx.sym.Symbol.optimize_for.__doc__
