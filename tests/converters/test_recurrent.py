"""``RNN`` and unrolled cells against MXNet."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mxnet import gluon
from operators import (
    ENGINE_OPTIONS,
    check_operator,
    check_refused,
    optimize_whole,
    random_array,
    run_engines,
    run_mxnet,
)

import mxtrt

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


# -- what MXNet computes with cuDNN only ------------------------------------------------------
# Its CPU kernels take use_sequence_length and lstm_state_clip_* and ignore them, so the
# reference is NumPy: the operator's documented equations, which are checked against MXNet first.


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def numpy_step(
    mode: str,
    x: np.ndarray,
    states: list[np.ndarray],
    weights: list[np.ndarray],
    clip: tuple[float, float] | None,
) -> list[np.ndarray]:
    """One step of one sequence, by the equations of MXNet's documentation."""
    of_input, of_state, *projection, bias_of_input, bias_of_state = weights
    a, b = of_input @ x + bias_of_input, of_state @ states[0] + bias_of_state
    if mode == "lstm":
        i, f, g, o = np.split(a + b, 4)
        c = sigmoid(f) * states[1] + sigmoid(i) * np.tanh(g)
        c = c if clip is None else np.clip(c, *clip)
        h = sigmoid(o) * np.tanh(c)
        return [projection[0] @ h if projection else h, c]
    if mode == "gru":
        (r, z, n), (hr, hz, hn) = np.split(a, 3), np.split(b, 3)
        r, z = sigmoid(r + hr), sigmoid(z + hz)
        return [(1 - z) * np.tanh(n + r * hn) + z * states[0]]
    return [np.maximum(a + b, 0) if mode == "rnn_relu" else np.tanh(a + b)]


def numpy_rnn(
    symbol: mx.sym.Symbol,
    arrays: dict[str, np.ndarray],
    *,
    hidden: int,
    layers: int = 1,
    directions: int = 1,
    projection: int | None = None,
    clip: tuple[float, float] | None = None,
) -> list[np.ndarray]:
    mode = symbol.attr("mode")
    x, vector = arrays["data"], arrays["parameters"]
    initial = [arrays[n] for n in ("state", "state_cell") if n in arrays]
    rows, width = GATES[mode] * hidden, projection or hidden
    shapes: list[tuple[int, ...]] = []
    for layer in range(layers):
        columns = width * directions if layer else x.shape[2]
        own = [(rows, columns), (rows, width), *([(projection, hidden)] if projection else [])]
        shapes += own * directions
    shapes += [(rows,)] * (2 * layers * directions)
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    pieces = [v.reshape(s) for v, s in zip(np.split(vector, ends[:-1]), shapes)]
    each = 3 if projection else 2
    biases = pieces[each * layers * directions :]
    lengths = arrays.get("sequence_length", np.full(x.shape[1], x.shape[0]))
    last = [s.copy() for s in initial]
    for layer in range(layers):
        ys = []
        for direction in range(directions):
            unit = layer * directions + direction
            weights = pieces[unit * each : (unit + 1) * each] + biases[2 * unit : 2 * unit + 2]
            y = np.zeros((*x.shape[:2], width), x.dtype)
            for n, length in enumerate(lengths):
                states = [s[unit, n] for s in initial]
                for t in range(length)[:: -1 if direction else 1]:
                    states = numpy_step(mode, x[t, n], states, weights, clip)
                    y[t, n] = states[0]
                for all_of_them, state in zip(last, states):
                    all_of_them[unit, n] = state
            ys.append(y)
        x = np.concatenate(ys, axis=2)
    return [x, *last]


def check_against(
    expected: list[np.ndarray], symbol: mx.sym.Symbol, arrays: dict[str, np.ndarray]
) -> None:
    inputs = {n: a for n, a in arrays.items() if n != "parameters"}
    parameters = {"parameters": mx.nd.array(arrays["parameters"])}
    for shapes in (
        {n: a.shape for n, a in inputs.items()},
        {n: (None,) * a.ndim for n, a in inputs.items()},
    ):
        dtypes = {n: a.dtype for n, a in inputs.items()}
        optimized, left = mxtrt.optimize(
            symbol, parameters, shapes=shapes, dtypes=dtypes, min_subgraph_size=1, **ENGINE_OPTIONS
        )
        assert not left
        for want, have in zip(expected, run_mxnet(optimized, inputs)):
            np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("mode", "projection"), [*((m, None) for m in GATES), ("lstm", 2)])
def test_the_reference(mode: str, projection: int | None) -> None:
    attrs = {"projection_size": projection} if projection else {}
    symbol = rnn_symbol(
        mode, state_size=3, num_layers=2, bidirectional=True, state_outputs=True, **attrs
    )
    arrays = rnn_arrays(symbol, (5, 2, 4), "float32")
    expected = run_mxnet(symbol, arrays)
    found = numpy_rnn(symbol, arrays, hidden=3, layers=2, directions=2, projection=projection)
    for want, have in zip(expected, found):
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length_dtype", ["int32", "float32"])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(("mode", "projection"), [*((m, None) for m in GATES), ("lstm", 2)])
def test_sequence_lengths(
    mode: str, projection: int | None, directions: int, length_dtype: str
) -> None:
    symbol = rnn_symbol(
        mode,
        state_size=3,
        num_layers=2,
        bidirectional=directions == 2,
        state_outputs=True,
        use_sequence_length=True,
        **({"projection_size": projection} if projection else {}),
    )
    arrays = rnn_arrays(symbol, (5, 4, 6), "float32")
    arrays["sequence_length"] = np.array([5, 1, 3, 2], "int32")
    expected = numpy_rnn(
        symbol, arrays, hidden=3, layers=2, directions=directions, projection=projection
    )
    arrays["sequence_length"] = arrays["sequence_length"].astype(length_dtype)
    check_against(expected, symbol, arrays)


@pytest.mark.parametrize("projection", [None, 2])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("clip", [(-0.1, 0.2), (0.0, 1.0)])
def test_clipped_states(clip: tuple[float, float], directions: int, projection: int | None) -> None:
    symbol = rnn_symbol(
        "lstm",
        state_size=3,
        num_layers=2,
        bidirectional=directions == 2,
        state_outputs=True,
        lstm_state_clip_min=clip[0],
        lstm_state_clip_max=clip[1],
        **({"projection_size": projection} if projection else {}),
    )
    arrays = rnn_arrays(symbol, (5, 2, 4), "float32")
    expected = numpy_rnn(
        symbol, arrays, hidden=3, layers=2, directions=directions, projection=projection, clip=clip
    )
    check_against(expected, symbol, arrays)


def test_a_bound_for_nan_without_bounds() -> None:
    symbol = rnn_symbol("lstm", state_size=3, num_layers=1, lstm_state_clip_nan=True)
    arrays = rnn_arrays(symbol, (5, 2, 4), "float32")
    check_against(numpy_rnn(symbol, arrays, hidden=3, layers=1, directions=1), symbol, arrays)


# -- dtypes, refusals, sweeps ----------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("mode", GATES)
def test_float64(mode: str, bidirectional: bool) -> None:
    """As ``Scan``: ONNX Runtime has the layers in float32 only."""
    symbol = rnn_symbol(
        mode, state_size=3, num_layers=2, bidirectional=bidirectional, state_outputs=True
    )
    arrays = rnn_arrays(symbol, (5, 2, 4), "float64")
    bound = 1e-6 if mode == "rnn_relu" else None  # MXNet's relu goes through float32 there
    parameters = {"parameters": arrays.pop("parameters")}
    check_operator(symbol, arrays, parameters, rtol=bound, atol=bound)


@pytest.mark.parametrize("mode", ["gru", "lstm"])
def test_float16(mode: str) -> None:
    """MXNet has no float16 RNN on the CPU: the reference is float32."""
    symbol = rnn_symbol(mode, state_size=3, num_layers=2, state_outputs=True)
    arrays = rnn_arrays(symbol, (5, 2, 4), "float16")
    expected = run_mxnet(symbol, {n: a.astype("float32") for n, a in arrays.items()})
    parameters = {"parameters": mx.nd.array(arrays.pop("parameters"), dtype="float16")}
    optimized, _ = mxtrt.optimize(
        symbol,
        parameters,
        shapes={n: a.shape for n, a in arrays.items()},
        dtypes=dict.fromkeys(arrays, "float16"),
        min_subgraph_size=1,
        **ENGINE_OPTIONS,
    )
    for want, have in zip(expected, run_mxnet(optimized, arrays)):
        assert have.dtype == np.float16
        np.testing.assert_allclose(have, want, rtol=1e-2, atol=1e-3)


def test_dtypes_by_default() -> None:
    """MXNet's type inference refuses an RNN whose data has no type yet."""
    symbol = rnn_symbol("gru", state_size=3, num_layers=1)
    arrays = rnn_arrays(symbol, (5, 2, 4), "float32")
    report = mxtrt.explain(symbol, {"parameters": mx.nd.array(arrays["parameters"])})
    assert not any("dtype" in reason for reason in report.left.values())


REFUSALS = [
    ({"mode": "lstm", "lstm_state_clip_min": -1.0}, "lstm_state_clip_max go together"),
    (
        {
            "mode": "lstm",
            "lstm_state_clip_min": -1.0,
            "lstm_state_clip_max": 1.0,
            "lstm_state_clip_nan": True,
        },
        "does not say which end NaN is clipped to",
    ),
]


@pytest.mark.parametrize(("attrs", "sentence"), REFUSALS)
def test_refusals(attrs: dict[str, Any], sentence: str) -> None:
    symbol = rnn_symbol(**attrs, state_size=3, num_layers=1)
    arrays = rnn_arrays(symbol, (5, 2, 4), "float32")
    check_refused(symbol, arrays, sentence, {"parameters": arrays.pop("parameters")})


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.sampled_from(sorted(GATES)),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
    *(st.integers(1, 5) for _ in range(4)),
)
def test_any_rnn(
    mode: str, layers: int, bidirectional: bool, states: bool, t: int, n: int, i: int, h: int
) -> None:
    symbol = rnn_symbol(
        mode, state_size=h, num_layers=layers, bidirectional=bidirectional, state_outputs=states
    )
    arrays = rnn_arrays(symbol, (t, n, i), "float32")
    check_operator(symbol, arrays, {"parameters": arrays.pop("parameters")})


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize(("dim", "shapes"), [(0, [(3,), (4,)]), (1, [(2, 3), (2, 1)])])
def test_rnn_param_concat(dim: int, shapes: list[tuple[int, ...]], dtype: str) -> None:
    names = [f"x{i}" for i in range(len(shapes))]
    symbol = mx.sym._internal._rnn_param_concat(*map(mx.sym.var, names), dim=dim)
    check_operator(
        symbol, {n: random_array(s, dtype, i) for i, (n, s) in enumerate(zip(names, shapes))}
    )


# -- Gluon -----------------------------------------------------------------------------------

LAYERS = {
    "lstm": lambda **a: gluon.rnn.LSTM(3, **a),
    "projected": lambda **a: gluon.rnn.LSTM(3, projection_size=2, **a),
    "gru": lambda **a: gluon.rnn.GRU(3, **a),
    "rnn_relu": lambda **a: gluon.rnn.RNN(3, activation="relu", **a),
    "rnn_tanh": lambda **a: gluon.rnn.RNN(3, activation="tanh", **a),
}


def check_block(block: gluon.HybridBlock, shape: tuple[int, ...], batch_axis: int) -> None:
    block.initialize(mx.init.Uniform(0.7))
    block(mx.nd.zeros(shape))
    parameters = {n: p.data() for n, p in block.collect_params().items()}
    check_model(block(mx.sym.var("data")), parameters, shape, batch_axis)


def check_model(
    symbol: mx.sym.Symbol,
    parameters: dict[str, mx.nd.NDArray],
    shape: tuple[int, ...],
    batch_axis: int,
) -> None:
    """Check that all of a model moves, for a known and for an unknown batch."""
    x = random_array(shape)
    expected = run_mxnet(symbol, {"data": x, **{n: p.asnumpy() for n, p in parameters.items()}})
    open_shape = tuple(None if axis == batch_axis else n for axis, n in enumerate(shape))
    for known in (shape, open_shape):
        optimized, kept = optimize_whole(symbol, parameters, shapes={"data": known})
        assert not kept
        found = run_engines(optimized, {"data": x})
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", ["TNC", "NTC"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_gluon_layers(kind: str, bidirectional: bool, layout: str) -> None:
    block = LAYERS[kind](num_layers=2, bidirectional=bidirectional, layout=layout, dropout=0.3)
    check_block(block, (5, 2, 4), layout.index("N"))


class Unrolled(gluon.HybridBlock):
    def __init__(self, cell: gluon.rnn.RecurrentCell, layout: str) -> None:
        super().__init__()
        self.cell, self.layout = cell, layout
        self.register_child(cell)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        outputs, _ = self.cell.unroll(3, x, layout=self.layout, merge_outputs=True)
        return outputs


def stacked() -> gluon.rnn.RecurrentCell:
    cell = gluon.rnn.HybridSequentialRNNCell()
    cell.add(gluon.rnn.LSTMCell(3))
    cell.add(gluon.rnn.ResidualCell(gluon.rnn.GRUCell(3)))
    cell.add(gluon.rnn.ZoneoutCell(gluon.rnn.RNNCell(3), 0.2, 0.2))
    return cell


CELLS = {
    "lstm": lambda: gluon.rnn.LSTMCell(3),
    "gru": lambda: gluon.rnn.GRUCell(3),
    "rnn": lambda: gluon.rnn.RNNCell(3, activation="relu"),
    "stacked": stacked,
    "both ways": lambda: gluon.rnn.BidirectionalCell(gluon.rnn.LSTMCell(3), gluon.rnn.GRUCell(3)),
}


@pytest.mark.parametrize("layout", ["TNC", "NTC"])
@pytest.mark.parametrize("kind", CELLS)
def test_unrolled_cells(kind: str, layout: str) -> None:
    shape = (3, 2, 4) if layout == "TNC" else (2, 3, 4)
    check_block(Unrolled(CELLS[kind](), layout), shape, layout.index("N"))


def old_stack() -> mx.rnn.BaseRNNCell:
    cell = mx.rnn.SequentialRNNCell()
    cell.add(mx.rnn.LSTMCell(3, "lstm_"))
    cell.add(mx.rnn.ResidualCell(mx.rnn.GRUCell(3, "gru_")))
    return cell


OLD_CELLS = {
    "lstm": lambda: mx.rnn.LSTMCell(3, "a_"),
    "gru": lambda: mx.rnn.GRUCell(3, "a_"),
    "rnn": lambda: mx.rnn.RNNCell(3, "relu", "a_"),
    "stacked": old_stack,
    "both ways": lambda: mx.rnn.BidirectionalCell(
        mx.rnn.LSTMCell(3, "l_"), mx.rnn.GRUCell(3, "r_")
    ),
    "fused": lambda: mx.rnn.FusedRNNCell(3, num_layers=2, mode="gru", bidirectional=True),
    "unfused": lambda: mx.rnn.FusedRNNCell(3, num_layers=2, mode="lstm").unfuse(),
}


@pytest.mark.parametrize("layout", ["TNC", "NTC"])
@pytest.mark.parametrize("kind", OLD_CELLS)
def test_cells_of_mx_rnn(kind: str, layout: str) -> None:
    shape = (3, 2, 4) if layout == "TNC" else (2, 3, 4)
    symbol, _ = OLD_CELLS[kind]().unroll(3, mx.sym.var("data"), layout=layout, merge_outputs=True)
    shapes, _, _ = symbol.infer_shape(data=shape)
    arrays = {
        n: random_array(s, seed=i) / 2
        for i, (n, s) in enumerate(zip(symbol.list_arguments(), shapes))
    }
    parameters = {n: mx.nd.array(a) for n, a in arrays.items() if n != "data"}
    check_model(symbol, parameters, shape, layout.index("N"))
