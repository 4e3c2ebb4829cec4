"""Shapes that are left to inference, and that it cannot know."""

from __future__ import annotations

import uuid

import mxnet as mx
import pytest

from mxtrt import _bridge, _library
from mxtrt.errors import ShapeNeeded


class First:
    """Has the shape and the dtype of its first input."""

    def infer_shape(self, shapes):
        return shapes[:1]

    def infer_type(self, types):
        return types, types[:1]

    def execute(self, inputs, outputs, stream):
        outputs[0].to_numpy()[...] = inputs[0].to_numpy()


@pytest.fixture
def engine():
    """Return a function that makes an engine node of symbols."""
    _library.load()
    key = uuid.uuid4().hex
    _bridge.register(key, First())
    yield lambda *inputs: mx.sym._internal._mxtrt_engine(
        *inputs, key=key, num_inputs=len(inputs), num_outputs=1
    )
    mx.nd.waitall()
    _bridge.unregister(key)


CASES = {
    "the only input": (1, {}),
    "one of two": (2, {"x0": (2, 3, 4, 5)}),
    "the first of two": (2, {"x1": (2, 3)}),
    "ranks that add up to 0": (2, {"x0": (4,)}),
    "ranks that add up to 0, two unknown": (3, {"x0": (2, 3)}),
    "ranks that fill a block of memory": (3, {"x0": (2, 3, 4, 5), "x1": (2, 3, 4)}),
}


@pytest.mark.parametrize(("count", "shapes"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("np_shape", [False, True])
def test_unknown_inputs_are_named(engine, count, shapes, np_shape):
    names = [f"x{i}" for i in range(count)]
    symbol = engine(*map(mx.sym.var, names))
    missing = next(name for name in names if name not in shapes)
    with mx.util.np_shape(np_shape):
        for call in (
            lambda: symbol.infer_shape(**shapes),
            lambda: symbol.infer_shape_partial(**shapes),
            lambda: symbol.simple_bind(mx.cpu(), **shapes),
        ):
            with pytest.raises(ShapeNeeded, match=f"the shape of '{missing}'"):
                call()
        if shapes:
            with pytest.raises(ShapeNeeded, match=missing):
                symbol.infer_shape(*(shapes.get(name) for name in names))
        known = dict.fromkeys(names, (2, 3))
        assert symbol.infer_shape(**known)[1] == [(2, 3)]


def test_an_argument_far_above_the_engine_is_named(engine):
    above = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=3, name="fc")
    symbol = mx.sym.relu(engine(engine(mx.sym.var("x")), above))
    with pytest.raises(ShapeNeeded, match="'data'"):
        symbol.simple_bind(mx.cpu(), x=(2,))
    with pytest.raises(ShapeNeeded, match="'x'"):
        symbol.simple_bind(mx.cpu(), data=(2, 5))
    # The weights need not be passed: MXNet infers them.
    executor = symbol.simple_bind(mx.cpu(), x=(2,), data=(2, 5))
    assert executor.arg_dict["fc_weight"].shape == (3, 5)
    assert executor.forward(x=mx.nd.ones(2))[0].asnumpy().tolist() == [1, 1]


def test_reshape(engine):
    symbol = engine(mx.sym.var("a"), mx.sym.var("b"))
    executor = symbol.simple_bind(mx.cpu(), a=(4, 2), b=(4,))
    with pytest.raises(ShapeNeeded, match="'a'"):
        executor.reshape(b=(2,))
    assert executor.reshape(a=(2, 2), b=(2,)).outputs[0].shape == (2, 2)


def test_a_shape_in_the_symbol_counts(engine):
    symbol = engine(mx.sym.var("a"), mx.sym.var("b", shape=(3,)))
    assert symbol.infer_shape(a=(4,))[0] == [(4,), (3,)]


def test_a_shape_that_an_earlier_operator_implies_counts(engine):
    shared = mx.sym.var("a")
    total = mx.sym.elemwise_add(shared, mx.sym.var("b"))
    assert engine(total, shared).infer_shape(b=(4,))[1] == [(4,)]


def test_symbols_without_engines_keep_mxnets_answers(engine):
    symbol = mx.sym.var("a") + mx.sym.var("b")
    assert symbol.infer_shape() == (None, None, None)
    assert symbol.infer_shape_partial(a=(2, 0))[1] == [(2, 0)]
    assert symbol.simple_bind(mx.cpu(), a=(2,)).outputs[0].shape == (2,)


def test_other_errors_pass(engine):
    symbol = engine(mx.sym.var("a"), mx.sym.var("b"))
    with pytest.raises(ValueError, match="either by positional or kwargs"):
        symbol.infer_shape((2,), b=(3,))
    with pytest.raises(RuntimeError, match="simple_bind"):
        mx.sym.elemwise_add(symbol, mx.sym.var("c")).simple_bind(mx.cpu(), a=(2,), b=(2,), c=(3,))
