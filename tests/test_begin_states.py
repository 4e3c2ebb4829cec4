"""Begin states get their sizes from the inputs' shapes, or from an input at run time."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest
from mxnet import gluon

import mxtrt
from mxtrt.begin_states import with_sized_begin_states


def ops_of(symbol: mx.sym.Symbol) -> dict[str, dict[str, str]]:
    nodes = json.loads(symbol.tojson())["nodes"]
    return {n["name"]: {"op": n["op"], **n.get("attrs", {})} for n in nodes}


def unrolled_cell() -> mx.sym.Symbol:
    cell = gluon.rnn.LSTMCell(3, prefix="lstm_")
    outputs, _ = cell.unroll(2, mx.sym.var("data"), layout="NTC", merge_outputs=True)
    return outputs


def two_inputs() -> mx.sym.Symbol:
    """An encoder and a decoder: the decoder's begin state follows the decoder's own length."""
    source, target = mx.sym.var("source"), mx.sym.var("target")
    state = mx.sym.zeros(shape=(0, 0, 4), name="state")
    return mx.sym.Group([source * 2, mx.sym.broadcast_add(mx.sym.sum(source), target + state)])


PARAMS = {"lstm_i2h_weight": (12, 5), "lstm_h2h_weight": (12, 3), "lstm_i2h_bias": (12,)}


def test_known_shapes_become_numbers() -> None:
    found = ops_of(with_sized_begin_states(unrolled_cell(), {"data": (7, 2, 5)}, PARAMS))
    assert found["lstm_begin_state_0"] == {
        "op": "_zeros", "dtype": "float32", "shape": "(7, 3)", "__layout__": "NC",
    }  # fmt: skip


def test_unknown_batch_follows_the_input() -> None:
    symbol = unrolled_cell()
    sized = with_sized_begin_states(symbol, {"data": (None, 2, 5)}, PARAMS)
    found = ops_of(sized)
    assert found["lstm_begin_state_0/axis0"]["shape"] == "(1, 3)"
    assert found["lstm_begin_state_0"] == {
        "op": "broadcast_like", "lhs_axes": "(0,)", "rhs_axes": "(0,)",
    }  # fmt: skip
    assert sized.list_arguments()[0] == "data"
    assert sized.list_outputs() == symbol.list_outputs()


def test_several_sizes_each_follow_their_own_input() -> None:
    inputs = {"source": (None, None, 4), "target": (None, None, 4)}
    sized = with_sized_begin_states(two_inputs(), inputs, {})
    _, shapes, _ = sized.infer_shape(source=(2, 5, 4), target=(3, 6, 4))
    assert shapes == [(2, 5, 4), (3, 6, 4)]
    nodes = json.loads(sized.tojson())["nodes"]
    read = [nodes[n["inputs"][1][0]]["name"] for n in nodes if n["op"] == "broadcast_like"]
    assert read == ["target", "target"]


def test_inputs_that_must_agree() -> None:
    """A mask of the same batch moves together with the data it masks."""
    data, mask = mx.sym.var("data"), mx.sym.var("mask")
    symbol = data * mask + mx.sym.zeros(shape=(0, 4), name="state")
    sized = with_sized_begin_states(symbol, {"data": (None, 4), "mask": (None, 4)}, {})
    assert ops_of(sized)["state"]["op"] == "broadcast_like"


def test_without_begin_states_the_symbol_is_untouched() -> None:
    symbol = mx.sym.var("data") + mx.sym.zeros(shape=(2, 3))
    assert with_sized_begin_states(symbol, {"data": None}, {}) is symbol


def test_unknown_shape_is_asked_for() -> None:
    sentence = r"begin state 'lstm_begin_state_0' .* pass shapes=\{'data': \(…\)\}"
    with pytest.raises(mxtrt.errors.ShapeNeeded, match=sentence):
        with_sized_begin_states(unrolled_cell(), {"data": None}, PARAMS)


@pytest.mark.parametrize("batch", [3, None])
def test_optimized_cell_equals_mxnet(batch: int | None) -> None:
    symbol = unrolled_cell()
    rng = np.random.default_rng(0)
    shapes = dict(zip(symbol.list_arguments(), symbol.infer_shape(data=(3, 2, 5))[0]))
    arrays = {n: mx.nd.array(rng.standard_normal(s)) for n, s in shapes.items()}
    expected = symbol.bind(mx.cpu(), dict(arrays)).forward()[0].asnumpy()
    data = arrays.pop("data")
    optimized, params = mxtrt.optimize(symbol, arrays, shapes={"data": (batch, 2, 5)})
    found = optimized.bind(mx.cpu(), {"data": data, **params}).forward()[0].asnumpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
