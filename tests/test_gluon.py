"""`mxtrt.optimize` for Gluon's blocks."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import textwrap
import threading
import warnings
import weakref

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import HybridBlock, SymbolBlock, nn, rnn
from mxnet.gluon.model_zoo import vision

import mxtrt
from mxtrt import errors
from mxtrt.gluon.engines import Weights


def random(*shape, dtype="float32"):
    return mx.nd.random.normal(shape=shape).astype(dtype)


def convnet(**kwargs):
    net = nn.HybridSequential(**kwargs)
    with net.name_scope():
        net.add(nn.Conv2D(8, 3, activation="relu"), nn.BatchNorm())
        net.add(nn.GlobalAvgPool2D(), nn.Dense(5))
    net.initialize(mx.init.Xavier())
    return net


def dense(units=4, in_units=6):
    net = nn.Dense(units, in_units=in_units)
    net.initialize(mx.init.Normal(1))
    return net


def arrays(outputs):
    """Return nested outputs as nested lists of NumPy arrays."""
    if isinstance(outputs, (list, tuple)):
        return [arrays(output) for output in outputs]
    return outputs.asnumpy()


def assert_same(found, expected, rtol=1e-4, atol=1e-5):
    if isinstance(expected, (list, tuple)):
        assert type(found) is type(expected)
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            assert_same(one, other, rtol, atol)
        return
    assert type(found) is type(expected)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found.asnumpy(), expected.asnumpy(), rtol, atol)


def moves_all(block):
    return not mxtrt.report(block).left


# -- calls -----------------------------------------------------------------------------------------


class TwoInputs(HybridBlock):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.left, self.right = nn.Dense(4, in_units=3), nn.Dense(4, in_units=5)

    def hybrid_forward(self, F, x, y):
        return self.left(x) + self.right(y)


class TwoOutputs(HybridBlock):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.body, self.head = nn.Dense(6, in_units=3), nn.Dense(2, in_units=6)

    def hybrid_forward(self, F, x):
        body = F.relu(self.body(x))
        return self.head(body), body


class Nested(HybridBlock):
    """Takes (x, [y, [z]]) and returns a nested list."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.dense = nn.Dense(3, in_units=3, flatten=False)

    def hybrid_forward(self, F, x, others):
        y, (z,) = others
        return [self.dense(x) * y, [F.exp(z), [self.dense(y) + z]]]


class Optional(HybridBlock):
    """Takes an input that may be None, at any place."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.dense = nn.Dense(4, in_units=3)

    def hybrid_forward(self, F, x, mask=None, bias=None):
        y = self.dense(x)
        y = y if mask is None else y * mask
        return y if bias is None else y + bias


class SplitOutput(HybridBlock):
    """Returns a symbol with two outputs as one output."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.dense = nn.Dense(6, in_units=3)

    def hybrid_forward(self, F, x):
        return F.split(self.dense(x), num_outputs=2, axis=1)


class SharedParams(HybridBlock):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.one = nn.Dense(3, in_units=3)
            self.two = nn.Dense(3, in_units=3, params=self.one.params)

    def hybrid_forward(self, F, x):
        return self.two(F.tanh(self.one(x)))


class OwnParameter(HybridBlock):
    """Has parameters of its own, a constant among them, outside of any layer."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.scale = self.params.get("scale", shape=(1, 3))
            self.table = self.params.get_constant("table", [[1.0, 2.0, 3.0]])

    def hybrid_forward(self, F, x, scale, table):
        return F.broadcast_add(F.broadcast_mul(x, scale), table)


def initialized(block):
    block.initialize(mx.init.Normal(1))
    return block


SHAPES = {
    "two inputs": (TwoInputs, lambda n: (random(n, 3), random(n, 5))),
    "two outputs": (TwoOutputs, lambda n: (random(n, 3),)),
    "nested": (Nested, lambda n: (random(n, 3), [random(n, 3), [random(n, 3)]])),
    "no mask": (Optional, lambda n: (random(n, 3), None, random(1, 4).repeat(n, 0))),
    "no mask, no bias": (Optional, lambda n: (random(n, 3), None, None)),
    "defaults": (Optional, lambda n: (random(n, 3),)),
    "mask": (Optional, lambda n: (random(n, 3), random(n, 4))),
    "split": (SplitOutput, lambda n: (random(n, 3),)),
    "shared parameters": (SharedParams, lambda n: (random(n, 3),)),
    "own parameters": (OwnParameter, lambda n: (random(n, 3),)),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("flags", [{}, {"static_alloc": True, "static_shape": True}])
def test_signature(name, flags):
    make, args = SHAPES[name]
    net = initialized(make())
    first, later = args(2), args(5)
    block = mxtrt.optimize(net, *first, min_subgraph_size=1)
    block.hybridize(**flags)
    for example in (first, later, first):
        expected = net(*example)
        if isinstance(expected, tuple):  # as every hybridized block
            expected = list(expected)
        assert_same(block(*example), expected)
    assert moves_all(block)


def test_nested_arguments_of_another_structure():
    net = initialized(Optional())
    block = mxtrt.optimize(net, random(2, 3))
    with pytest.raises(ValueError, match="argument structure"):
        block(random(2, 3), random(2, 4))
    assert_same(block(random(2, 3), None) * 0, net(random(2, 3)) * 0)


def test_an_input_that_nothing_reads():
    class Ignoring(HybridBlock):
        def hybrid_forward(self, F, x, y):
            return F.relu(x) + 1

    net = Ignoring()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        block = mxtrt.optimize(net, random(2, 3), random(1))
        assert_same(block(random(2, 3) * 0, random(1)), mx.nd.ones((2, 3)))


def test_batch_and_image_size_change():
    net = convnet()
    block = mxtrt.optimize(net, random(1, 3, 16, 16))
    for shape in [(4, 3, 16, 16), (1, 3, 31, 17), (7, 3, 8, 40), (1, 3, 16, 16)]:
        x = random(*shape)
        assert_same(block(x), net(x))
    assert moves_all(block)


def test_fixed_sizes():
    net = convnet()
    block = mxtrt.optimize(net, random(2, 3, 16, 16), shapes={"data": (2, 3, 16, 16)})
    assert str(mxtrt.report(block).parts[0].inputs[0]) == "data (2, 3, 16, 16) float32"
    x = random(2, 3, 16, 16)
    assert_same(block(x), net(x))


ZOO = ["alexnet", "squeezenet1.1", "mobilenet0.25", "resnet18_v2", "densenet121"]


@pytest.mark.parametrize("name", ZOO)
def test_zoo(name):
    net = vision.get_model(name, classes=10)
    net.initialize(mx.init.Xavier())
    size = 64 if name in {"mobilenet0.25", "resnet18_v2"} else 224
    x = random(1, 3, size, size)
    block = mxtrt.optimize(net, x)
    assert_same(block(x), net(x), rtol=1e-3, atol=1e-4)
    assert moves_all(block)
    assert not block.collect_params().keys()


def test_recurrent_layer():
    net = rnn.LSTM(5, input_size=3)
    net.initialize()
    x = random(4, 2, 3)
    states = net.begin_state(2)
    block = mxtrt.optimize(net, x, states)
    output, found = block(x, states)
    expected, expected_states = net(x, states)
    assert_same(output, expected)
    assert_same(found, expected_states)


def test_deferred_initialisation():
    net = convnet()
    assert net[0].weight.shape == (8, 0, 3, 3)
    block = mxtrt.optimize(net, random(2, 3, 16, 16))
    assert net[0].weight.shape == (8, 3, 3, 3)
    x = random(2, 3, 16, 16)
    assert_same(block(x), net(x))


def test_the_original_stays_as_it_is():
    net = convnet()
    net.hybridize()
    x = random(2, 3, 16, 16)
    before = net(x)
    graph = net._cached_graph
    mxtrt.optimize(net, x)
    assert net._cached_graph is graph
    assert_same(net(x), before)


def test_hooks_are_not_called_with_symbols():
    net, seen = dense(), []
    net.register_forward_hook(lambda block, args, out: seen.append(type(out)))
    net.register_forward_pre_hook(lambda block, args: seen.append(type(args[0])))
    mxtrt.optimize(net, random(2, 6))
    assert seen == []
    net(random(2, 6))
    assert seen == [mx.nd.NDArray, mx.nd.NDArray]


def test_symbol_block(tmp_path):
    net = convnet()
    net.hybridize()
    x = random(2, 3, 16, 16)
    expected = net(x)
    net.export(str(tmp_path / "net"))
    files = str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0000.params")
    block = mxtrt.optimize(SymbolBlock.imports(*files), x)
    assert_same(block(x), expected)
    assert moves_all(block)


def test_hybridized_original_that_has_run():
    net = convnet()
    net.hybridize(static_alloc=True)
    x = random(2, 3, 16, 16)
    expected = net(x)
    assert_same(mxtrt.optimize(net, x)(x), expected)


# -- what stays in MXNet ---------------------------------------------------------------------------


def test_collect_params_shows_what_is_left():
    net = convnet()
    x = random(2, 3, 16, 16)
    block = mxtrt.optimize(net, x, exclude_ops=["FullyConnected"])
    assert set(block.collect_params()) == {net[3].weight.name, net[3].bias.name}
    assert block.collect_params()[net[3].weight.name] is net[3].weight
    assert_same(block(x), net(x))
    net[3].bias.set_data(mx.nd.arange(5))  # MXNet reads it anew at each call
    assert_same(block(x), net(x))


def test_summary(capsys):
    block = mxtrt.optimize(convnet(), random(2, 3, 16, 16), exclude_ops=["FullyConnected"])
    block.summary(random(2, 3, 16, 16))
    printed = capsys.readouterr().out
    assert "OptimizedHybridSequential-1" in printed
    assert "(2, 5)" in printed
    assert "Total params: 45" in printed  # 8 * 5 + 5


def test_report_explain_and_release():
    net = convnet()
    x = random(2, 3, 16, 16)
    assert mxtrt.explain(net, x).left == {}
    block = mxtrt.optimize(net, x)
    assert "All 5 operators" in str(mxtrt.report(block))
    mxtrt.release(block)
    with pytest.raises(mx.MXNetError, match="no engine is registered"):
        block(x).asnumpy()


def test_repr_names_the_original():
    net = convnet()
    block = mxtrt.optimize(net, random(2, 3, 16, 16))
    assert repr(block) == f"OptimizedBlock(HybridSequential {net.name}, 1 part in engines)"
    assert isinstance(block, nn.HybridSequential)
    assert block


# -- types and devices -----------------------------------------------------------------------------


def test_float16():  # for which MXNet has no FullyConnected on the CPU
    net = nn.HybridSequential()
    net.add(nn.Dense(8, in_units=6), nn.Dense(4, in_units=8))
    net.initialize(mx.init.Xavier())
    x = random(3, 6)
    expected = net(x).asnumpy()
    net.cast("float16")
    block = mxtrt.optimize(net, x.astype("float16"))
    found = block(x.astype("float16"))
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.asnumpy(), expected, 1e-2, 1e-2)
    assert moves_all(block)


def test_float16_after_a_trace_in_float32():
    net = convnet()
    net.hybridize()
    net(random(2, 3, 16, 16))
    net.cast("float16")
    x = random(2, 3, 16, 16, dtype="float16")
    block = mxtrt.optimize(net, x)
    found = block(x)
    net.cast("float32")
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.asnumpy(), net(x.astype("float32")).asnumpy(), 1e-2, 1e-2)


def test_cast_of_the_optimised_block():
    net = convnet()
    x = random(2, 3, 16, 16)
    block = mxtrt.optimize(net, x)
    expected = block(x).asnumpy()
    block.cast("float16")
    found = block(x.astype("float16"))
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.asnumpy(), expected, 1e-2, 1e-2)
    block.cast("float32")
    assert_same(block(x), net(x))


def test_float64_and_integers():
    class Lookup(HybridBlock):
        def __init__(self):
            super().__init__()
            with self.name_scope():
                self.table = nn.Embedding(10, 4)

        def hybrid_forward(self, F, tokens):
            return self.table(tokens).sum(axis=1)

    net = initialized(Lookup())
    tokens = mx.nd.array([[1, 2, 3]], dtype="int32")
    block = mxtrt.optimize(net, tokens)
    assert_same(block(tokens), net(tokens))
    other = dense()
    other.cast("float64")
    x = random(2, 6, dtype="float64")
    assert_same(mxtrt.optimize(other, x, min_subgraph_size=1)(x), other(x))


def test_reset_ctx():
    net = convnet()
    x = random(2, 3, 16, 16)
    block = mxtrt.optimize(net, x, exclude_ops=["FullyConnected"])
    expected = block(x).asnumpy()
    block.reset_ctx(mx.cpu(1))
    found = block(x.as_in_context(mx.cpu(1)))
    assert found.context == mx.cpu(1)
    np.testing.assert_array_equal(found.asnumpy(), expected)
    net.collect_params().reset_ctx(mx.cpu(0))
    np.testing.assert_array_equal(block(x).asnumpy(), expected)


def test_several_devices():
    net = nn.HybridSequential()
    net.add(nn.Dense(4, in_units=3), nn.Dense(2, in_units=4))
    net.initialize(ctx=[mx.cpu(0), mx.cpu(1)])
    x = random(2, 3)
    block = mxtrt.optimize(net, x, min_subgraph_size=1, exclude_nodes=[net[1].name + "_fwd"])
    for device in (mx.cpu(0), mx.cpu(1)):
        moved = x.as_in_context(device)
        assert_same(block(moved), net(moved))


@pytest.fixture
def numpy_mode():
    mx.npx.set_np()
    yield
    mx.npx.reset_np()


def test_numpy_net(numpy_mode):
    class Net(HybridBlock):
        def __init__(self):
            super().__init__()
            with self.name_scope():
                self.dense = nn.Dense(4, in_units=3)

        def hybrid_forward(self, F, x, y):
            return F.np.tanh(self.dense(x)), [F.np.concatenate([x, y], axis=1)]

    net = initialized(Net())
    block = mxtrt.optimize(net, mx.np.ones((2, 3)), mx.np.ones((2, 1)), min_subgraph_size=1)
    for rows in (2, 5):
        x, y = mx.np.random.uniform(size=(rows, 3)), mx.np.zeros((rows, 1))
        expected = net(x, y)
        found = block(x, y)
        assert type(found[0]) is mx.np.ndarray
        assert_same(found, list(expected))
    assert "_npi_tanh" not in {node.op for node in mxtrt.report(block).left}


def test_numpy_export(numpy_mode, tmp_path):
    net = initialized(nn.Dense(4, in_units=3))
    x = mx.np.ones((2, 3))
    block = mxtrt.optimize(net, x, min_subgraph_size=1)
    block.export(str(tmp_path / "net"))
    loaded = SymbolBlock.imports(str(tmp_path / "net-symbol.json"), ["data"])
    assert_same(loaded(x), net(x))


# -- blocks inside blocks --------------------------------------------------------------------------


class Detector(HybridBlock):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.features = convnet()
            self.head = nn.Dense(3, in_units=5)

    def hybrid_forward(self, F, x):
        return self.head(self.features(x))


@pytest.mark.parametrize("hybrid", [False, True])
def test_only_the_backbone(hybrid):
    net = Detector()
    net.head.initialize()
    x = random(2, 3, 16, 16)
    expected = net(x)
    net.features = mxtrt.optimize(net.features, x)
    net.hybridize(hybrid)
    assert_same(net(x), expected)
    assert_same(net(x), expected)
    assert set(net.collect_params()) == {net.head.weight.name, net.head.bias.name}


def test_backbone_in_a_block_that_cannot_be_hybridized():
    class Loop(mx.gluon.Block):
        def __init__(self, features):
            super().__init__()
            self.features = features

        def forward(self, x):
            return [self.features(image.expand_dims(0)) for image in x]

    net = convnet()
    x = random(2, 3, 16, 16)
    expected = net(x)
    found = Loop(mxtrt.optimize(net, x[:1]))(x)
    for one, row in zip(found, expected):
        assert_same(one[0], row)


def test_optimising_a_block_with_an_optimised_one():
    net = Detector()
    net.head.initialize()
    x = random(2, 3, 16, 16)
    expected = net(x)
    net.features = mxtrt.optimize(net.features, x)
    assert_same(mxtrt.optimize(net, x, min_subgraph_size=1)(x), expected)


def test_parameter_files_of_a_net_with_an_optimised_part(tmp_path):
    net, other = Detector(), Detector()
    x = random(2, 3, 16, 16)
    for each in (net, other):
        each.head.initialize()
        each(x)
    net.features = mxtrt.optimize(net.features, x)
    net(x)
    other.save_parameters(str(tmp_path / "other.params"))
    net.load_parameters(str(tmp_path / "other.params"))
    assert_same(net(x), other(x))
    net.save_parameters(str(tmp_path / "net.params"))
    other.initialize(mx.init.Xavier(), force_reinit=True)
    other.load_parameters(str(tmp_path / "net.params"))
    assert_same(other(x), net(x))


@pytest.mark.parametrize("backend", [None, "mxtrt"])
def test_a_hybridized_parent_has_new_weights(backend):
    net = Detector()
    net.head.initialize()
    x = random(2, 3, 16, 16)
    features = net.features
    net.features = mxtrt.optimize(features, x)
    net.hybridize(backend=backend)
    for _ in range(2):
        assert_same(net(x), net.head(features(x)))
        features[3].weight.set_data(random(5, 8))


def test_a_graph_of_symbols_refuses_old_weights():
    net = dense()
    x = random(3, 6)
    block = mxtrt.optimize(net, x, min_subgraph_size=1)
    executor = block(mx.sym.var("x") * 2).bind(mx.cpu(), {"x": x})
    assert_same(executor.forward()[0], net(x * 2))
    net.weight.set_data(random(4, 6))
    mx.nd.waitall()
    with pytest.raises(mx.MXNetError, match=r"call its refit\(\)"):
        executor.forward()[0].asnumpy()
    block.refit()
    assert_same(executor.forward()[0], net(x * 2))


# -- weights ---------------------------------------------------------------------------------------


def by_set_data(net, value):
    net.weight.set_data(value)


def in_place(net, value):
    net.weight.data()[:] = value


def a_row(net, value):
    for i in range(len(value)):
        net.weight.data()[i] = value[i]


def from_numpy(net, value):
    net.weight.data()[:] = value.asnumpy()


def by_an_optimizer(net, value):
    weight = net.weight.data()
    weight[:] = 0
    mx.nd.sgd_update(weight, -value, lr=1, out=weight)


def through_a_view(net, value):
    net.weight.data().reshape((-1,))[:] = value.reshape((-1,))


def anew(net, value):
    net.initialize(mx.init.Constant(value.asnumpy()), force_reinit=True)
    net.weight.set_data(value)


CHANGES = [by_set_data, in_place, a_row, from_numpy, by_an_optimizer, through_a_view, anew]


@pytest.mark.parametrize("change", CHANGES, ids=lambda function: function.__name__)
def test_changed_weights_are_noticed(change):
    net = dense()
    x = random(3, 6)
    block = mxtrt.optimize(net, x, min_subgraph_size=1)
    for _ in range(2):
        value = random(4, 6)
        change(net, value)
        found = block(x)
        np.testing.assert_array_equal(net.weight.data().asnumpy(), value.asnumpy())
        assert_same(found, net(x))


def test_one_element_is_a_change():
    net = dense()
    x = mx.nd.ones((1, 6))
    block = mxtrt.optimize(net, x, min_subgraph_size=1)
    before = block(x).asnumpy()
    net.weight.data()[3, 5] += 2.0**-10
    found = block(x).asnumpy()
    assert (found != before).tolist() == [[False, False, False, True]]


def test_training_the_original_between_calls():
    net = dense()
    block = mxtrt.optimize(net, random(3, 6), min_subgraph_size=1)
    trainer = mx.gluon.Trainer(net.collect_params(), "adam")
    for _ in range(3):
        x = random(3, 6)
        with mx.autograd.record():
            loss = (net(x) ** 2).sum()
        loss.backward()
        trainer.step(3)
        assert_same(block(x), net(x))


def test_running_statistics_are_weights():
    net = convnet()
    x = random(4, 3, 16, 16)
    block = mxtrt.optimize(net, x)
    with mx.autograd.record():
        net(x)  # BatchNorm moves its averages
    assert_same(block(x), net(x))


def test_running_the_original_rebuilds_nothing(caplog):
    caplog.set_level(logging.INFO, "mxtrt")
    net = convnet()
    x = random(2, 3, 16, 16)
    net(x)
    block = mxtrt.optimize(net, x)
    for _ in range(3):  # oneDNN lays weights out anew, which is a write to them
        assert_same(block(x), net(x))
    net.weight_copy = [p.data().asnumpy() for p in net.collect_params().values()]
    net[3].weight.set_data(net[3].weight.data())
    block(x)
    assert "built anew" not in caplog.text


def test_refit_and_what_it_says(caplog):
    caplog.set_level(logging.INFO, "mxtrt")
    net = dense()
    x = random(3, 6)
    block = mxtrt.optimize(net, x, min_subgraph_size=1)
    keys = mxtrt.operator._keys(block)
    net.weight.set_data(random(4, 6))
    block.refit()
    assert "refit() was called" in caplog.text
    caplog.clear()
    assert_same(block(x), net(x))
    assert "built anew" not in caplog.text
    assert mxtrt.operator._keys(block) == keys
    net.bias.set_data(random(4))
    block(x)
    assert f"{net.bias.name!r} changed" in caplog.text


def test_refits_leave_no_engines_behind():
    net = dense()
    x = random(3, 6)
    block = mxtrt.optimize(net, x, min_subgraph_size=1)
    count = len(mxtrt._bridge.registered())
    for _ in range(3):
        net.weight.set_data(random(4, 6))
        block(x).wait_to_read()
    assert len(mxtrt._bridge.registered()) == count


def test_many_refits_are_a_warning(caplog):
    net = dense()
    x = random(3, 6)
    block = mxtrt.optimize(net, x, min_subgraph_size=1)
    for _ in range(6):
        net.weight.set_data(random(4, 6))
        block(x)
    assert [r.levelname for r in caplog.records if "anew" in r.message][-1] == "WARNING"


@pytest.mark.parametrize("style", ["gluon", "dictionary", "export"])
def test_load_parameters(tmp_path, style):
    net, other = convnet(prefix="net_"), convnet(prefix="net_")
    x = random(2, 3, 16, 16)
    other(x)
    block = mxtrt.optimize(net, x)
    path = str(tmp_path / "other.params")
    if style == "gluon":
        other.save_parameters(path)
    elif style == "dictionary":
        other.collect_params().save(path, strip_prefix="net_")
    else:
        other.hybridize()
        other(x)
        other.export(str(tmp_path / "other"))
        loaded = mx.nd.load(str(tmp_path / "other-0000.params"))
        mx.nd.save(path, {name[4:].replace("net_", "", 1): a for name, a in loaded.items()})
    block.load_parameters(path)
    assert_same(block(x), other(x))


def test_load_parameters_that_do_not_fit(tmp_path):
    net = convnet()
    x = random(2, 3, 16, 16)
    block = mxtrt.optimize(net, x)
    expected = block(x)
    dense().save_parameters(str(tmp_path / "other.params"))
    with pytest.raises((AssertionError, ValueError)):
        block.load_parameters(str(tmp_path / "other.params"))
    assert_same(block(x), expected)


def test_free_weights():
    net = dense()
    x = random(3, 6)
    block = mxtrt.optimize(net, x, min_subgraph_size=1)
    expected = block(x)
    block.free_weights()
    net.weight.set_data(random(4, 6))  # no longer this block's
    assert_same(block(x), expected)
    for call in (block.refit, lambda: block.cast("float16"), lambda: block.load_parameters("x")):
        with pytest.raises(errors.BadParams, match="free_weights"):
            call()


def test_freed_weights_are_gone():
    net, x = dense(), random(3, 6)
    block = mxtrt.optimize(net, x, min_subgraph_size=1)
    expected, weight = block(x), weakref.ref(net.weight)
    block.free_weights()
    del net
    gc.collect()
    assert weight() is None
    assert_same(block(x), expected)


def test_weights_wait_for_writes_in_progress():
    array = mx.gluon.Parameter("p", shape=(1000, 1000))
    array.initialize()
    weights = Weights([array])
    big = mx.nd.ones((1000, 1000))
    for _ in range(3):
        big = mx.nd.dot(big, big) * 1e-3
    array.data()[:] = big  # pending
    assert weights.changed() == "p"


def test_a_weight_of_another_shape():
    net = nn.HybridSequential()
    net.add(nn.Dense(4, in_units=6))
    net.initialize()
    x = random(3, 6)
    block = mxtrt.optimize(net, x, min_subgraph_size=1)
    block(x)
    for param, shape in ((net[0].weight, (5, 6)), (net[0].bias, (5,))):
        param._shape = shape
        param.initialize(force_reinit=True)
    with pytest.raises((errors.UserError, mx.MXNetError)):
        block(x).asnumpy()


# -- export ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("excluded", [[], ["FullyConnected"]])
def test_export_and_imports(tmp_path, excluded):
    net = convnet()
    x = random(2, 3, 16, 16)
    block = mxtrt.optimize(net, x, exclude_ops=excluded)
    block.export(str(tmp_path / "net"), epoch=3)
    files = str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0003.params")
    loaded = SymbolBlock.imports(*files)
    assert_same(loaded(x), net(x))
    loaded.hybridize(static_alloc=True, static_shape=True)
    for rows in (2, 2, 5):
        x = random(rows, 3, 16, 16)
        assert_same(loaded(x), net(x))


def test_export_after_hybridize(tmp_path):
    block = mxtrt.optimize(convnet(), random(2, 3, 16, 16), exclude_ops=["FullyConnected"])
    block.hybridize(static_alloc=True)
    block.export(str(tmp_path / "net"))
    assert len(mx.nd.load(str(tmp_path / "net-0000.params"))) == 2


def test_export_has_the_weights_of_now(tmp_path):
    net = dense()
    x = random(3, 6)
    block = mxtrt.optimize(net, x, min_subgraph_size=1)
    net.weight.set_data(random(4, 6))
    block.export(str(tmp_path / "net"))
    loaded = SymbolBlock.imports(str(tmp_path / "net-symbol.json"), ["data"])
    assert_same(loaded(x), net(x))


def test_another_process_is_told_to_use_save(tmp_path):
    x = random(2, 3, 16, 16)
    block = mxtrt.optimize(convnet(), x)
    block.export(str(tmp_path / "net"))
    code = f"""
        import mxtrt, mxnet as mx
        path = {str(tmp_path / "net-symbol.json")!r}
        try:
            mx.gluon.SymbolBlock.imports(path, ["data"])
        except mxtrt.errors.BadModel as error:
            print(error)
        symbol = mx.sym.load_json(open(path).read())
        try:
            mx.gluon.SymbolBlock(symbol, mx.sym.var("data"))(mx.nd.ones((2, 3, 16, 16))).asnumpy()
        except mx.MXNetError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    by_file, by_text = done.stdout.split("\n", maxsplit=1)
    assert "mxtrt.save writes both" in by_file
    assert "engines live in the process that called mxtrt.optimize" in by_text
    assert "mxtrt.save and mxtrt.load" in by_text


# -- threads, training, errors ---------------------------------------------------------------------


@pytest.mark.parametrize("flags", [{}, {"static_alloc": True}])
def test_eight_threads(flags):
    net = convnet()
    block = mxtrt.optimize(net, random(1, 3, 16, 16))
    if not flags:  # a block with static memory is for one thread, in MXNet, too
        blocks = [block] * 8
    else:
        blocks = [mxtrt.optimize(net, random(1, 3, 16, 16)) for _ in range(8)]
        for each in blocks:
            each.hybridize(**flags)
    inputs = [random(1 + i % 3, 3, 16, 16) for i in range(8)]
    expected = [net(x).asnumpy() for x in inputs]
    failures = []

    def work(i):
        try:
            for _ in range(20):
                np.testing.assert_allclose(blocks[i](inputs[i]).asnumpy(), expected[i], 1e-4, 1e-5)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize("mode", ["record", "train_mode"])
def test_training_is_refused(mode):
    block = mxtrt.optimize(dense(), random(3, 6))
    with getattr(mx.autograd, mode)():
        with pytest.raises(errors.InferenceOnly, match="inference only"):
            block(random(3, 6))
        with mx.autograd.pause():
            assert block(random(3, 6)).shape == (3, 4)
    assert block(random(3, 6)).shape == (3, 4)


def test_training_a_head_on_an_optimised_backbone():
    net = convnet()
    x = random(2, 3, 16, 16)
    backbone, head = mxtrt.optimize(net, x), dense(3, 5)
    with mx.autograd.record():
        with mx.autograd.pause():
            features = backbone(x)
        loss = head(features).sum()
    loss.backward()
    assert abs(head.weight.grad().asnumpy()).sum() > 0


class NotTraceable(HybridBlock):
    def hybrid_forward(self, F, x):
        return x * float(x.shape[0])


def test_errors():
    x = random(2, 6)
    with pytest.raises(errors.BadParams, match=r"not been initialized.*net\.initialize\(\)"):
        mxtrt.optimize(nn.Dense(4), x)
    with pytest.raises(errors.ShapeNeeded, match=r"mxtrt\.optimize\(net, x\)"):
        mxtrt.optimize(dense())
    with pytest.raises(errors.ShapeNeeded, match="traced with arrays"):
        mxtrt.optimize(dense(), None, None)
    with pytest.raises(errors.BadModel, match="no HybridBlock"):
        mxtrt.optimize(nn.Sequential(), x)
    with pytest.raises(errors.BadModel, match="NotTraceable"):
        mxtrt.optimize(NotTraceable(), x)
    with pytest.raises(errors.BadModel, match="arguments of the block"):
        mxtrt.optimize(dense(), "x")
    with pytest.raises(errors.BadOption, match="did you mean 'onnxruntime'"):
        mxtrt.optimize(dense(), x, engine="onnxruntme")
    with pytest.raises(errors.BadOption, match="no input 'dta'; did you mean 'data'"):
        mxtrt.optimize(dense(), x, shapes={"dta": (2, 6)})
    with pytest.raises(errors.BadOption, match="leave backend out"):
        mxtrt.optimize(dense(), x).hybridize(backend="mxtrt")
    with pytest.raises(TypeError):
        mxtrt.optimize(mx.sym.var("x"), {}, x)


def test_arrays_that_do_not_fit():
    block = mxtrt.optimize(dense(), random(2, 6), min_subgraph_size=1)
    with pytest.raises(mx.MXNetError, match="cannot take data"):
        block(random(2, 7)).asnumpy()
    with pytest.raises(mx.MXNetError, match="float64, but was converted for float32"):
        block(random(2, 6, dtype="float64")).asnumpy()
    assert block(random(2, 6)).shape == (2, 4)
