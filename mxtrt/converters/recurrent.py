"""Recurrent layers: ``RNN`` with its packed parameter vector.

MXNet packs all weights of all layers, then all biases, into one vector. It is cut and reordered
with ONNX operators, so it is never copied here; engines fold them away.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel
from ..registry import converts
from . import known_size

if TYPE_CHECKING:
    from onnx import GraphProto

Tensors = tuple[str, ...]

GATES = {"rnn_relu": 1, "rnn_tanh": 1, "gru": 3, "lstm": 4}

ONNX_GATE_ORDER = {
    "gru": (1, 0, 2),  # reset, update, new -> update, reset, hidden
    "lstm": (0, 3, 1, 2),  # in, forget, cell, out -> in, out, forget, cell
}


@converts("_rnn_param_concat")
def rnn_param_concat(onnx: OnnxModel, *parameters: Value, dim: int = 1) -> str:
    """``_rnn_param_concat`` -> ``Concat``."""
    return onnx.op("Concat", *parameters, axis=dim)


@converts("RNN")
def rnn(
    onnx: OnnxModel,
    x: Value,
    parameters: Value,
    state: Value,
    *others: Value,
    state_size: int,
    num_layers: int,
    mode: str,
    bidirectional: bool = False,
    p: float = 0.0,
    state_outputs: bool = False,
    projection_size: int | None = None,
    lstm_state_clip_min: float | None = None,
    lstm_state_clip_max: float | None = None,
    lstm_state_clip_nan: bool = False,
    use_sequence_length: bool = False,
) -> Tensors:
    """``RNN`` -> ``RNN``, ``GRU`` or ``LSTM`` for each layer; ``Scan`` where none of them fits.

    Sequence lengths and state clipping get their documented meaning, which MXNet computes with
    cuDNN only: its CPU kernels ignore both without a word.

    Special numbers: in float64 MXNet's rnn_relu makes 0 of NaN.
    """
    if mode not in GATES:
        raise UnsupportedOp(f"mode={mode!r} is none of {', '.join(GATES)}")
    clip = (lstm_state_clip_min, lstm_state_clip_max)
    if None in clip and clip != (None, None):
        raise UnsupportedOp("lstm_state_clip_min and lstm_state_clip_max go together")
    if lstm_state_clip_nan and None not in clip:
        raise UnsupportedOp("lstm_state_clip_nan=True does not say which end NaN is clipped to")
    wanted = (mode == "lstm") + use_sequence_length
    if len(others) != wanted:
        raise UnsupportedOp(f"mode={mode!r} reads {3 + wanted} inputs; there are {3 + len(others)}")
    directions = 2 if bidirectional else 1
    layout = _Layout(mode, state_size, num_layers, directions, projection_size, clip, x.dtype)
    initial = (state, *others[: mode == "lstm"])
    lengths = onnx.cast(others[-1], "int32") if use_sequence_length else None
    weights = _cut(onnx, x, parameters, layout)
    add_layer = _scan_layer if layout.needs_scan else _layer
    y: Value | str = x
    finals: list[Tensors] = []
    for number in range(num_layers):
        here = slice(number * directions, (number + 1) * directions)
        states = [_rows(onnx, value, here, num_layers) for value in initial]
        y, *last = add_layer(onnx, layout, y, weights[here], states, lengths)
        finals.append(tuple(last))
    if not state_outputs:
        return (str(y),)
    return (str(y), *(_joined(onnx, column) for column in zip(*finals)))


@dataclass(frozen=True)
class _Layout:
    """What a layer computes, and how the parameter vector is packed."""

    mode: str
    hidden: int
    layers: int
    directions: int
    projection: int | None
    clip: tuple[float | None, float | None]
    dtype: str

    @property
    def needs_scan(self) -> bool:
        """Whether ONNX has no such layer, or ONNX Runtime not in this dtype."""
        special = self.projection is not None or None not in self.clip
        return (self.mode == "lstm" and special) or self.dtype == "float64"

    @property
    def rows(self) -> int:
        """Rows of a weight: a block of `hidden` rows for each gate."""
        return GATES[self.mode] * self.hidden

    @property
    def width(self) -> int:
        """Size of what one direction puts out."""
        return self.hidden if self.projection is None else self.projection

    def weight_shapes(self, input_size: int) -> list[tuple[int, int]]:
        """Return the shapes of all weights in the order in which they are packed."""
        shapes: list[tuple[int, int]] = []
        for number in range(self.layers):
            columns = input_size if number == 0 else self.width * self.directions
            for _ in range(self.directions):
                shapes += [(self.rows, columns), (self.rows, self.width)]
                if self.projection is not None:
                    shapes.append((self.projection, self.hidden))
        return shapes

    def input_size(self, x: Value, parameters: Value) -> int:
        """Return the size of the first layer's input, from the data or the vector's length."""
        if parameters.shape is None or parameters.shape[0] is None:
            return known_size(x, 2)
        others = sum(a * b for a, b in self.weight_shapes(0))
        others += 2 * self.rows * self.layers * self.directions
        return (parameters.shape[0] - others) // (self.rows * self.directions)


@dataclass(frozen=True)
class _Weights:
    """The tensors of one direction of one layer, gates in MXNet's order."""

    of_input: str
    of_state: str
    bias_of_input: str
    bias_of_state: str
    projection: str | None


def _cut(onnx: OnnxModel, x: Value, parameters: Value, layout: _Layout) -> list[_Weights]:
    """Return the weights of each layer's directions, cut out of the packed vector."""
    shapes: list[tuple[int, ...]] = [*layout.weight_shapes(layout.input_size(x, parameters))]
    units = layout.layers * layout.directions
    shapes += [(layout.rows,)] * (2 * units)
    ends = list(accumulate(_size(shape) for shape in shapes))
    pieces = [
        _piece(onnx, parameters, end - _size(shape), end, shape) for shape, end in zip(shapes, ends)
    ]
    each = 2 if layout.projection is None else 3
    matrices, biases = pieces[: units * each], pieces[units * each :]
    return [
        _Weights(
            matrices[i * each],
            matrices[i * each + 1],
            biases[2 * i],
            biases[2 * i + 1],
            matrices[i * each + 2] if layout.projection is not None else None,
        )
        for i in range(units)
    ]


def _size(shape: tuple[int, ...]) -> int:
    return shape[0] if len(shape) == 1 else shape[0] * shape[1]


def _piece(onnx: OnnxModel, vector: Value, start: int, end: int, shape: tuple[int, ...]) -> str:
    cut = onnx.op("Slice", vector, onnx.ints([start]), onnx.ints([end]), onnx.ints([0]))
    return cut if len(shape) == 1 else onnx.op("Reshape", cut, onnx.ints(shape))


def _rows(onnx: OnnxModel, states: Value, rows: slice, layers: int) -> Value | str:
    """Return the rows of the initial states that belong to one layer."""
    if layers == 1:
        return states
    # TensorRT wants the axes of a Slice spelled out
    ends = onnx.ints([rows.start]), onnx.ints([rows.stop])
    return onnx.op("Slice", states, *ends, onnx.ints([0]))


def _joined(onnx: OnnxModel, tensors: Tensors) -> str:
    return tensors[0] if len(tensors) == 1 else onnx.op("Concat", *tensors, axis=0)


# -- ONNX's own layers -----------------------------------------------------------------------


def _layer(
    onnx: OnnxModel,
    layout: _Layout,
    x: Value | str,
    weights: list[_Weights],
    states: list[Value | str],
    lengths: str | None,
) -> Tensors:
    """Add one layer and return its output and its last states."""
    biases = [
        onnx.op("Concat", *(_gates(onnx, layout, bias) for bias in pair), axis=0)
        for pair in ((w.bias_of_input, w.bias_of_state) for w in weights)
    ]
    y, *last = onnx.ops(
        {"lstm": "LSTM", "gru": "GRU"}.get(layout.mode, "RNN"),
        x,
        _stacked(onnx, [_gates(onnx, layout, w.of_input) for w in weights]),
        _stacked(onnx, [_gates(onnx, layout, w.of_state) for w in weights]),
        _stacked(onnx, biases),
        lengths,
        *states,
        outputs=1 + len(states),
        hidden_size=layout.hidden,
        direction="bidirectional" if layout.directions == 2 else None,
        activations=["Relu"] * layout.directions if layout.mode == "rnn_relu" else None,
        linear_before_reset=1 if layout.mode == "gru" else None,
    )
    if layout.directions == 1:
        return onnx.op("Squeeze", y, onnx.ints([1])), *last
    beside = onnx.op("Transpose", y, perm=[0, 2, 1, 3])
    return onnx.op("Reshape", beside, onnx.ints([0, 0, 2 * layout.hidden])), *last


def _gates(onnx: OnnxModel, layout: _Layout, tensor: str) -> str:
    """Return a weight or a bias with its gates in ONNX's order."""
    if layout.mode not in ONNX_GATE_ORDER:
        return tensor
    gates = onnx.ops("Split", tensor, outputs=GATES[layout.mode], axis=0)
    return onnx.op("Concat", *(gates[i] for i in ONNX_GATE_ORDER[layout.mode]), axis=0)


def _stacked(onnx: OnnxModel, tensors: list[str]) -> str:
    """Return the directions' tensors along a new first axis."""
    return _joined(onnx, tuple(onnx.op("Unsqueeze", t, onnx.ints([0])) for t in tensors))


# -- layers that ONNX does not have ------------------------------------------------------------


def _scan_layer(
    onnx: OnnxModel,
    layout: _Layout,
    x: Value | str,
    weights: list[_Weights],
    states: list[Value | str],
    lengths: str | None,
) -> Tensors:
    """Add one layer as a ``Scan`` for each direction; return its output and its last states."""
    steps = None if lengths is None else _valid_steps(onnx, x, lengths)
    made: list[Tensors] = []
    for reverse, weight in enumerate(weights):
        row = onnx.constant(reverse, "int64")
        first = [onnx.op("Gather", state, row, axis=0) for state in states]
        product = onnx.op("MatMul", x, onnx.op("Transpose", weight.of_input, perm=[1, 0]))
        gates = onnx.op("Add", product, weight.bias_of_input)
        scanned = [gates] if steps is None else [gates, steps]
        *last, y = onnx.ops(
            "Scan",
            *first,
            *scanned,
            outputs=len(first) + 1,
            num_scan_inputs=len(scanned),
            scan_input_directions=[reverse] * len(scanned),
            scan_output_directions=[reverse],
            body=_step(onnx, layout, weight, steps is not None),
        )
        made.append((y, *(onnx.op("Unsqueeze", state, onnx.ints([0])) for state in last)))
    ys, *lasts = zip(*made)
    y = ys[0] if len(ys) == 1 else onnx.op("Concat", *ys, axis=2)
    return y, *(_joined(onnx, column) for column in lasts)


def _valid_steps(onnx: OnnxModel, x: Value | str, lengths: str) -> str:
    """Return for each step which sequences have not ended: ``(steps, batch, 1)``, bool."""
    count = onnx.op("Gather", onnx.op("Shape", x), onnx.constant(0, "int64"))
    step = onnx.op("Range", onnx.constant(0, "int64"), count, onnx.constant(1, "int64"))
    column = onnx.op("Unsqueeze", step, onnx.ints([1, 2]))
    ends = onnx.op("Unsqueeze", onnx.cast(lengths, "int64"), onnx.ints([0, 2]))
    return onnx.op("Less", column, ends)


def _step(onnx: OnnxModel, layout: _Layout, weight: _Weights, masked: bool) -> GraphProto:
    """Return one step of a layer: from states, gates and a mask to states and the output."""
    of_state = onnx.op("Transpose", weight.of_state, perm=[1, 0])
    projection = weight.projection and onnx.op("Transpose", weight.projection, perm=[1, 0])
    body = onnx.subgraph("step")
    names = ["h", "c"] if layout.mode == "lstm" else ["h"]
    states = [body.declare(Value(name, (None, None), layout.dtype)) for name in names]
    of_x = body.declare(Value("gates", (None, None), layout.dtype))
    valid = body.declare(Value("valid", (None, 1), "bool")) if masked else None
    of_h = body.op("Add", body.op("MatMul", states[0], of_state), weight.bias_of_state)
    if layout.mode == "lstm":
        news = _lstm_cell(body, layout, of_x, of_h, states[1])
    elif layout.mode == "gru":
        news = [_gru_cell(body, of_x, of_h, states[0])]
    else:
        activation = "Relu" if layout.mode == "rnn_relu" else "Tanh"
        news = [body.op(activation, body.op("Add", of_x, of_h))]
    if projection is not None:
        news[0] = body.op("MatMul", news[0], projection)
    y = news[0]
    if valid is not None:
        y = body.op("Where", valid, y, body.constant(0, layout.dtype))
        news = [body.op("Where", valid, new, old) for new, old in zip(news, states)]
    outputs = [Value(name, (None, None), layout.dtype) for name in (*names, "y")]
    body.bind(outputs, [*news, y])
    return body.finish(outputs).graph


def _lstm_cell(body: OnnxModel, layout: _Layout, of_x: str, of_h: str, c: str) -> list[str]:
    i, f, g, o = body.ops("Split", body.op("Add", of_x, of_h), outputs=4, axis=1)
    kept = body.op("Mul", body.op("Sigmoid", f), c)
    new_c = body.op("Add", kept, body.op("Mul", body.op("Sigmoid", i), body.op("Tanh", g)))
    if None not in layout.clip:
        new_c = body.op("Clip", new_c, *(body.constant(end, layout.dtype) for end in layout.clip))
    return [body.op("Mul", body.op("Sigmoid", o), body.op("Tanh", new_c)), new_c]


def _gru_cell(body: OnnxModel, of_x: str, of_h: str, h: str) -> str:
    (xr, xz, xn), (hr, hz, hn) = (body.ops("Split", t, outputs=3, axis=1) for t in (of_x, of_h))
    r, z = (body.op("Sigmoid", body.op("Add", *pair)) for pair in ((xr, hr), (xz, hz)))
    n = body.op("Tanh", body.op("Add", xn, body.op("Mul", r, hn)))
    return body.op("Add", n, body.op("Mul", z, body.op("Sub", h, n)))
