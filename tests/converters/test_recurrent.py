"""``RNN`` and unrolled cells against MXNet."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from operators import check_operator, random_array

GATES = {"rnn_relu": 1, "rnn_tanh": 1, "gru": 3, "lstm": 4}


def rnn_symbol(mode: str, **attrs: object) -> mx.sym.Symbol:
    names = ["data", "parameters", "state"] + ["state_cell"] * (mode == "lstm")
    names += ["sequence_length"] * bool(attrs.get("use_sequence_length"))
    inputs = {name: mx.sym.var(name) for name in names}
    return mx.sym.RNN(**inputs, mode=mode, name="rnn", **attrs)


def rnn_arrays(symbol: mx.sym.Symbol, shape: tuple[int, ...], dtype: str) -> dict[str, np.ndarray]:
    shapes, _, _ = symbol.infer_shape(data=shape)
    names = symbol.list_arguments()
    return {n: random_array(s, dtype, i) / 2 for i, (n, s) in enumerate(zip(names, shapes))}


@pytest.mark.parametrize("state_outputs", [True, False])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("mode", GATES)
def test_modes(mode: str, num_layers: int, bidirectional: bool, state_outputs: bool) -> None:
    symbol = rnn_symbol(
        mode,
        state_size=3,
        num_layers=num_layers,
        bidirectional=bidirectional,
        state_outputs=state_outputs,
        p=0.5,
    )
    arrays = rnn_arrays(symbol, (5, 2, 4), "float32")
    parameters = {"parameters": arrays.pop("parameters")}
    check_operator(symbol, arrays, parameters)


@pytest.mark.parametrize("known", ["data", "parameters"])
def test_input_size_from_either(known: str) -> None:
    """The vector's length says the input size when the data does not, and the other way round."""
    symbol = rnn_symbol("gru", state_size=3, num_layers=2, bidirectional=True)
    arrays = rnn_arrays(symbol, (4, 2, 6), "float32")
    parameters = {} if known == "data" else {"parameters": arrays.pop("parameters")}
    check_operator(symbol, arrays, parameters, unknown_sizes=known == "parameters")


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_projection(num_layers: int, bidirectional: bool) -> None:
    symbol = rnn_symbol(
        "lstm",
        state_size=5,
        num_layers=num_layers,
        bidirectional=bidirectional,
        projection_size=2,
        state_outputs=True,
    )
    arrays = rnn_arrays(symbol, (4, 3, 6), "float32")
    check_operator(symbol, arrays, {"parameters": arrays.pop("parameters")})
