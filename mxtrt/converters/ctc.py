"""Connectionist temporal classification: the likelihood of labels, over all their alignments."""

from __future__ import annotations

import numpy as np
from onnx import GraphProto

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import known_size, size_vector, value_of
from .elementwise import as_type
from .suppression import loop_body

IMPOSSIBLE = -1e30  # a logarithm that stays finite in sums


@converts("CTCLoss")
def ctc_loss(
    onnx: OnnxModel,
    data: Value,
    label: Value,
    *lengths: Value,
    use_data_lengths: bool = False,
    use_label_lengths: bool = False,
    blank_label: str = "first",
) -> str:
    """``CTCLoss`` -> a ``Loop`` over time that adds the chances of all alignments up."""
    if data.dtype != "float32":
        raise UnsupportedOp(f"of {data.dtype}: MXNet adds chances up in float32 alone")
    given = iter(lengths)
    ends = next(given) if use_data_lengths else None
    counts = next(given) if use_label_lengths else None
    is_first = blank_label == "first"
    channels, count = known_size(data, 2), known_size(label, 1)
    blank = 0 if is_first else channels - 1
    labels = as_type(onnx, label, "int64")
    if counts is None:
        length = _before_padding(onnx, labels, 0 if is_first else -1, count)
    else:
        length = onnx.op("Unsqueeze", onnx.cast(counts, "int64"), onnx.ints([1]))
    states = _with_blanks(onnx, labels, length, blank, count)
    chances = onnx.op("LogSoftmax", data, axis=-1)
    alphas = _forward(onnx, data, chances, states, ends, blank, count)
    last = onnx.op("Add", length, length)
    one_before = onnx.op("Max", onnx.op("Sub", last, _one(onnx)), _zero(onnx))
    places = onnx.op("Concat", one_before, last, axis=1)
    found = onnx.op("GatherElements", alphas, places, axis=1)
    is_same = onnx.op("Equal", last, _zero(onnx))  # no label, so that both are one state
    never = onnx.constant([[IMPOSSIBLE, 0]], data.dtype)
    nothing = onnx.constant(0, data.dtype)
    found = onnx.op("Add", found, onnx.op("Where", is_same, never, nothing))
    loss = onnx.op("Neg", onnx.op("ReduceLogSumExp", found, axes=[1], keepdims=0))
    forbidden = onnx.op("Greater", loss, onnx.constant(-IMPOSSIBLE / 2, data.dtype))
    loss = onnx.op("Where", forbidden, onnx.constant(np.inf, data.dtype), loss)
    steps = size_vector(onnx, data, 0) if ends is None else onnx.cast(ends, "int64")
    needed = onnx.op("Squeeze", _steps_needed(onnx, labels, length, count), onnx.ints([1]))
    too_short = onnx.op("Greater", needed, steps)
    return onnx.op("Where", too_short, nothing, loss)  # as MXNet has it


def _zero(onnx: OnnxModel) -> str:
    return onnx.constant(0, "int64")


def _one(onnx: OnnxModel) -> str:
    return onnx.constant(1, "int64")


def _before_padding(onnx: OnnxModel, labels: Operand, padding: int, count: int) -> str:
    """Return how many labels stand before the first padding, as a column."""
    is_padding = onnx.op("Equal", labels, onnx.constant(padding, "int64"))
    places = onnx.op("Where", is_padding, onnx.ints(range(count)), onnx.constant(count, "int64"))
    return onnx.op("ReduceMin", places, axes=[1], keepdims=1)


def _steps_needed(onnx: OnnxModel, labels: Operand, length: str, count: int) -> str:
    """Return how many steps the labels take, as a column: two alike have a blank between them."""
    if count == 1:
        return length
    first, last, along = onnx.ints([0]), onnx.ints([count]), onnx.ints([1])
    here = onnx.op("Slice", labels, along, last, along)
    before = onnx.op("Slice", labels, first, onnx.ints([count - 1]), along)
    inside = onnx.op("Less", onnx.ints(range(1, count)), length)
    repeated = onnx.op("And", onnx.op("Equal", here, before), inside)
    repeats = onnx.op("ReduceSum", onnx.cast(repeated, "int64"), along, keepdims=1)
    return onnx.op("Add", length, repeats)


def _with_blanks(onnx: OnnxModel, labels: Operand, length: str, blank: int, count: int) -> str:
    """Return the labels with a blank before, between and behind them."""
    inside = onnx.op("Less", onnx.ints(range(count)), length)
    blanks = onnx.constant(blank, "int64")
    kept = onnx.op("Unsqueeze", onnx.op("Where", inside, labels, blanks), onnx.ints([2]))
    pads = onnx.ints([0, 0, 1, 0, 0, 0])
    pairs = onnx.op("Reshape", onnx.op("Pad", kept, pads, blanks), onnx.ints([0, 2 * count]))
    return onnx.op("Pad", pairs, onnx.ints([0, 0, 0, 1]), blanks)


def _forward(
    onnx: OnnxModel,
    data: Value,
    chances: str,
    states: str,
    ends: Value | None,
    blank: int,
    count: int,
) -> str:
    """Return the logarithms of the chances to be in each state at the end."""
    width = 2 * count + 1
    blanks = onnx.constant(blank, "int64")
    moved = onnx.op("Pad", states, onnx.ints([0, 2, 0, 0]), blanks)
    before = onnx.op("Slice", moved, onnx.ints([0]), onnx.ints([width]), onnx.ints([1]))
    may_skip = onnx.op("Not", onnx.op("Equal", states, before))
    odd = onnx.constant([np.arange(width) % 2 == 1], "bool")
    skips = onnx.op("And", may_skip, odd)
    never = onnx.constant(IMPOSSIBLE, data.dtype)
    skipping = onnx.op("Where", skips, onnx.constant(0, data.dtype), never)
    start = onnx.constant([[0, *[IMPOSSIBLE] * (width - 1)]], data.dtype)
    steps = size_vector(onnx, data, 0)
    if ends is None:
        until = steps
    else:
        until = onnx.op("Unsqueeze", onnx.cast(ends, "int64"), onnx.ints([1]))
    batch = data.shape[1] if data.shape is not None else None
    first = onnx.op("Expand", start, onnx.op("Shape", states))
    like = value_of(onnx, first, (batch, width), data.dtype)
    return onnx.op(
        "Loop",
        onnx.op("Squeeze", steps, onnx.ints([0])),
        onnx.constant(True, "bool"),
        like,
        body=_step(onnx, like, (chances, states, skipping, until)),
    )


def _step(onnx: OnnxModel, like: Value, around: tuple[str, str, str, str]) -> GraphProto:
    """Go on by one step in time: stay in a state, enter it, or skip a blank before it."""
    chances, states, skipping, until = around
    body = onnx.subgraph("align")
    time = body.declare(Value("time", (), "int64"))
    body.declare(Value("go", (), "bool"))
    state = Value("alphas", like.shape, like.dtype)
    alphas = body.declare(state)
    width = known_size(like, 1)
    never = body.constant(IMPOSSIBLE, like.dtype)

    def shifted(by: int) -> str:
        padded = body.op("Pad", alphas, body.ints([0, by, 0, 0]), never)
        return body.op("Slice", padded, body.ints([0]), body.ints([width]), body.ints([1]))

    ways = [alphas, shifted(1), body.op("Add", shifted(2), skipping)]
    all_ways = body.op("Concat", *(body.op("Unsqueeze", w, body.ints([2])) for w in ways), axis=2)
    total = body.op("ReduceLogSumExp", all_ways, axes=[2], keepdims=0)
    now = body.op("GatherElements", body.op("Gather", chances, time, axis=0), states, axis=1)
    bounded = body.op("Max", body.op("Add", total, now), never)
    after = body.op("Where", body.op("Less", time, until), bounded, alphas)
    return loop_body(body, body.constant(True, "bool"), [(state, after)])
