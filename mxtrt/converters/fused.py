"""Layers that MXNet fused for oneDNN: ``_sg_mkldnn_*``, in float32 or quantised.

A fused node holds what it replaced as a body: that is converted, with ``QuantizeLinear`` and its
inverse around data and weights where the node is quantised. The numbers of steps are measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import mxnet as mx
import numpy as np

from ..errors import UnsupportedOp
from ..graph import Graph, Node, Value
from ..onnx_model import OnnxModel
from ..registry import converts
from ..symbol import read_body
from .attention import interleaved_matmul_selfatt_qk, interleaved_matmul_selfatt_valatt
from .control_flow import convert_body
from .dense import with_axes_of
from .quantized_ranges import (
    OLD_STEPS,
    STEPS,
    Number,
    Range,
    accumulated,
    calibrated,
    quantized_as,
    range_of,
    real,
    step_of,
    times,
)

Tensors = tuple[str, ...]
Array = np.ndarray[Any, Any]


@converts("_sg_mkldnn_conv")
def fused_convolution(
    onnx: OnnxModel,
    *inputs: Value,
    node: Node,
    quantized: bool = False,
    with_bn: bool = False,
    with_act: bool = False,
    with_sum: bool = False,
    with_postsum_act: bool = False,
    enable_float_output: bool = False,
    min_calib_range: float | None = None,
    max_calib_range: float | None = None,
) -> Tensors:
    """``_sg_mkldnn_conv`` -> its body, over weights that MXNet quantises when it first runs.

    Special numbers: relu may make 0 of NaN where MXNet keeps it.
    """
    operands, ranges = _operands(onnx, node, inputs)
    if not quantized:
        return (_float_body(onnx, node, operands, {}),)
    told = calibrated(min_calib_range, max_calib_range)
    x, weight = operands[:2]
    step = step_of(onnx, ranges[0], x.dtype)
    tensors = {0: real(onnx, x, step)}
    if with_sum:
        added = operands[-1]
        tensors[len(operands) - 1] = real(onnx, added, step_of(onnx, ranges[1], added.dtype))
    largest, norm = _largest_by_channel(weight), _normalization(node, operands)
    if told is None and not enable_float_output:  # int32 has one step for all channels
        factors = np.abs(norm.factor)
        reach = float(np.max(largest * factors))
        tensors[1] = _weight(onnx, weight, reach / np.where(factors, factors, 1), norm)
        out = _float_body(onnx, node, operands, tensors, norm.bias(onnx))
        return _as_int32(onnx, node, out, ranges[0], x, reach)
    bias = norm.bias(onnx)
    is_whole = told is not None and not with_sum and _ends_in_limits(node)
    sizes = step * norm.steps(largest) if is_whole and isinstance(step, float) else None
    if sizes is not None and norm.shift is not None and _fits_int32(norm.shift, sizes):
        tensors[1] = _integer_weight(onnx, weight, largest, norm)
        bias = _integer_bias(onnx, norm.shift, sizes)
    else:
        tensors[1] = _weight(onnx, weight, largest, norm)
    out = _float_body(onnx, node, operands, tensors, bias)
    added_in = operands[-1].dtype if with_sum else None
    if told is not None and added_in == "int8" and node.outputs[0].dtype == "uint8":
        # oneDNN adds in place, so a sum with an int8 term saturates at 127 of uint8's 255 steps
        limit = times(onnx, step_of(onnx, told, "uint8"), 127.0)
        out = onnx.op("Min", out, onnx.constant(limit, "float32"))
    return _result(onnx, node, out, told)


@converts("_sg_mkldnn_fully_connected")
def fused_fully_connected(
    onnx: OnnxModel,
    *inputs: Value,
    node: Node,
    quantized: bool = False,
    with_eltwise: bool = False,
    channel_wise_quantize: bool | None = None,
    enable_float_output: bool = False,
    min_calib_range: float | None = None,
    max_calib_range: float | None = None,
) -> Tensors:
    """``_sg_mkldnn_fully_connected`` -> its body, over weights of 8 bits.

    Special numbers: relu may keep NaN where MXNet makes 0 of it.
    """
    operands, ranges = _operands(onnx, node, inputs)
    if not quantized:
        return (_float_body(onnx, node, operands, {}),)
    told = calibrated(min_calib_range, max_calib_range)
    rows, tensors = _dense_operands(onnx, node, operands, ranges, channel_wise_quantize)
    out = _float_body(onnx, node, (rows, *operands[1:]), tensors)
    x = operands[0]
    if told is None and not enable_float_output:
        largest = ranges[1].largest(onnx)
        made, *ends = _as_int32(onnx, node, out, ranges[0], x, largest)
    else:
        made, *ends = _result(onnx, node, out, told)
    if rows is not x and not _flattens(node):
        made = with_axes_of(onnx, made, x, int(_dense_attrs(node)["num_hidden"]))
    return (made, *ends)


@converts("_sg_mkldnn_selfatt_qk")
def fused_selfatt_qk(
    onnx: OnnxModel,
    queries_keys_values: Value,
    *ends: Value,
    node: Node,
    heads: int,
    quantized: bool = False,
    enable_float_output: bool = False,
    min_calib_range: float | None = None,
    max_calib_range: float | None = None,
) -> Tensors:
    """``_sg_mkldnn_selfatt_qk`` -> what ``_contrib_interleaved_matmul_selfatt_qk`` becomes."""
    (values,) = _reals(onnx, (queries_keys_values,), ends) if quantized else (queries_keys_values,)
    scores = interleaved_matmul_selfatt_qk(onnx, values, heads=heads)
    told = calibrated(min_calib_range, max_calib_range)
    return _result(onnx, node, scores, told) if quantized else (scores,)


@converts("_sg_mkldnn_selfatt_valatt")
def fused_selfatt_valatt(
    onnx: OnnxModel,
    queries_keys_values: Value,
    attention: Value,
    *ends: Value,
    node: Node,
    heads: int,
    quantized: bool = False,
    enable_float_output: bool = False,
    min_calib_range: float | None = None,
    max_calib_range: float | None = None,
) -> Tensors:
    """``_sg_mkldnn_selfatt_valatt`` -> what the ``_contrib_interleaved_…`` becomes."""
    operands = (queries_keys_values, attention)
    values = _reals(onnx, operands, ends) if quantized else operands
    sums = interleaved_matmul_selfatt_valatt(onnx, *values, heads=heads)
    told = calibrated(min_calib_range, max_calib_range)
    return _result(onnx, node, sums, told) if quantized else (sums,)


# -- dense layers ----------------------------------------------------------------------------


def _dense_operands(
    onnx: OnnxModel,
    node: Node,
    operands: Sequence[Value],
    ranges: Sequence[Range],
    by_row: bool | None,
) -> tuple[Value, dict[int, str]]:
    """Return the data that a dense layer's body reads, and its operands as floats.

    Where all steps are known, ONNX Runtime makes a layer of 8 bits of it.
    """
    x, weight, *biases = operands
    steps = [step_of(onnx, r, v.dtype) for v, r in zip(operands, ranges)]
    tensors = {0: real(onnx, x, steps[0])}
    counted = _counted_bias(operands, steps, by_row)
    if by_row:
        rounded = _weight if counted is None else _integer_weight
        tensors[1] = rounded(onnx, weight, _largest_by_channel(weight), _Norm())
    else:
        tensors.update({i: real(onnx, v, steps[i]) for i, v in enumerate(operands) if i})
    if counted is None:
        return x, tensors
    if biases:
        tensors[2] = _integer_bias(onnx, *counted)
    if x.rank == 2:
        return x, tensors
    rows = Value(f"{x.name}/rows", (None, x.shape[-1] if x.shape else None), x.dtype)
    axis = 1 if _flattens(node) else -1
    tensors[0] = _as_rows(onnx, tensors[0], float(steps[0]), x.dtype, axis)
    return rows, tensors


def _counted_bias(
    operands: Sequence[Value], steps: Sequence[Number], by_row: bool | None
) -> tuple[Array, Array] | None:
    """Return a dense layer's bias, and the sizes of the steps of data times weight.

    None where they are not all known, or where int32 does not hold the bias in these steps.
    """
    _, weight, *biases = operands
    known = [step for step in steps if isinstance(step, float)]
    if len(known) < len(steps) or not all(bias.is_param for bias in biases):
        return None
    shift = biases[0].array.asnumpy().astype(np.float64) if biases else np.zeros(1)
    if by_row:
        sizes = known[0] * _steps(_largest_by_channel(weight))
    else:
        shift = shift * known[-1]
        sizes = np.full(len(shift), known[0] * known[1])
    return (shift, sizes) if _fits_int32(shift, sizes) else None


def _as_rows(onnx: OnnxModel, data: str, step: float, dtype: str, axis: int) -> str:
    """Return dequantised data with two axes, quantised again: nothing may come in between.

    As uint8, around 128 if it has signs: processors are fast at that.
    """
    size = onnx.constant(step or 1.0, "float32")
    zero = onnx.constant(128 if dtype == "int8" else 0, "uint8")
    integers = onnx.op("QuantizeLinear", onnx.op("Flatten", data, axis=axis), size, zero)
    return onnx.op("DequantizeLinear", integers, size, zero)


def _flattens(node: Node) -> bool:
    """Say whether the body's dense layer takes all axes but the first for one."""
    return _dense_attrs(node).get("flatten", "True").lower() in {"true", "1"}


def _dense_attrs(node: Node) -> Mapping[str, str]:
    [dense] = (n for n in node.source["subgraphs"][0]["nodes"] if n["op"] == "FullyConnected")
    attrs: Mapping[str, str] = dense["attrs"]
    return attrs


# -- inputs and results ----------------------------------------------------------------------


def _operands(
    onnx: OnnxModel, node: Node, inputs: Sequence[Value]
) -> tuple[Sequence[Value], list[Range]]:
    """Return what the body reads, and the ranges that stand behind it."""
    count = len(node.source["subgraphs"][0]["arg_nodes"])
    ends = inputs[count:]
    return inputs[:count], [range_of(onnx, *pair) for pair in zip(ends[::2], ends[1::2])]


def _reals(onnx: OnnxModel, operands: Sequence[Value], ends: Sequence[Value]) -> tuple[Value, ...]:
    """Return float32 stand-ins for quantised operands."""
    made = []
    for x, *pair in zip(operands, ends[::2], ends[1::2]):
        value = Value(x.name, x.shape, "float32")
        onnx.alias(value, real(onnx, x, step_of(onnx, range_of(onnx, *pair), x.dtype)))
        made.append(value)
    return tuple(made)


def _result(onnx: OnnxModel, node: Node, x: str, told: Range | None) -> Tensors:
    """Return a layer's result in the dtype that the node puts out."""
    dtype = node.outputs[0].dtype
    if dtype == "float32":
        return (x,)
    if told is None or dtype not in STEPS:
        raise UnsupportedOp(f"{dtype} without min_calib_range has no range")
    return (quantized_as(onnx, x, step_of(onnx, told, dtype), dtype), *told.tensors(onnx))


def _as_int32(
    onnx: OnnxModel, node: Node, x: str, data: Range, operand: Value, weight: Number
) -> Tensors:
    """Return a result as int32. MXNet counts in its new steps and states the range in the old."""
    told = step_of(onnx, data, operand.dtype, OLD_STEPS)
    ratio = STEPS[operand.dtype] * STEPS["int8"] / OLD_STEPS[operand.dtype] / OLD_STEPS["int8"]
    stated = onnx.op("Mul", x, onnx.constant(ratio, "float32"))
    step = times(onnx, told, times(onnx, weight, 1.0 / OLD_STEPS["int8"]))
    return accumulated(onnx, stated, step, node.outputs[0])


def _float_body(
    onnx: OnnxModel,
    node: Node,
    operands: Sequence[Value],
    tensors: Mapping[int, str],
    bias: str | None = None,
) -> str:
    """Convert the body over `tensors` where they are given, over the operands elsewhere.

    With a `bias` that is the convolution's, and stands for a batch normalization as well.
    """
    seen = [
        Value(v.name, v.shape, "float32") if i in tensors else v for i, v in enumerate(operands)
    ]
    graph, variables = read_body(node.source["subgraphs"][0], seen)
    for i, (variable, operand) in enumerate(zip(variables, operands)):
        onnx.alias(variable, tensors[i] if i in tensors else onnx.declare(operand))
    if bias is not None:
        graph = _with_bias(onnx, graph, bias)
    (head,) = convert_body(onnx, graph)
    return onnx.declare(head)


def _with_bias(onnx: OnnxModel, graph: Graph, bias: str) -> Graph:
    """Return a body whose convolution has this bias, and no batch normalization behind it."""
    value = Value(f"{graph.heads[0].name}/bias", None, "float32")
    onnx.alias(value, bias)
    normalized = [inner.outputs[0] for inner in graph.nodes if inner.op == "BatchNorm"]
    nodes: list[Node] = []
    for inner in graph.nodes:
        if inner.op == "Convolution":
            nodes.append(
                replace(
                    inner,
                    attrs={**inner.attrs, "no_bias": "False"},
                    inputs=(*inner.inputs[:2], value),
                    outputs=(*normalized, *inner.outputs)[:1],
                )
            )
        elif inner.op != "BatchNorm":
            nodes.append(inner)
    return replace(graph, nodes=tuple(nodes))


# -- weights ---------------------------------------------------------------------------------


def _largest_by_channel(weight: Value) -> Array:
    """Return the largest magnitude of each output channel."""
    if not weight.is_param:
        raise UnsupportedOp(f"needs the numbers of {weight.name!r} for its steps; pass params")
    rows = weight.array.reshape((weight.array.shape[0], -1))
    return np.asarray(mx.nd.max(mx.nd.abs(rows), axis=1).asnumpy())


@dataclass(frozen=True)
class _Norm:
    """What a batch normalization, or a bias alone, makes of each channel of a convolution.

    It goes into the weight and the bias: oneDNN rounds the weight afterwards, and ONNX Runtime has
    layers of 8 bits for a convolution that nothing but a limit follows.
    """

    factor: Array = field(default_factory=lambda: np.ones(1))
    shift: Array | None = None  # None for a bias that comes at run time

    def bias(self, onnx: OnnxModel) -> str | None:
        """Return the shift in float32."""
        return None if self.shift is None else onnx.constant(self.shift, "float32")

    def steps(self, largest: Array) -> Array:
        """Return the size of a step of each channel's weight; 1 where all of it is zero."""
        sizes: Array = _steps(largest) * np.where(self.factor, np.abs(self.factor), 1)
        return sizes


def _normalization(node: Node, operands: Sequence[Value]) -> _Norm:
    """Return the body's batch normalization, and its bias.

    Raises
    ------
    UnsupportedOp
        The normalization's numbers come at run time.
    """
    seen = [v if v.is_param else Value(v.name, v.shape, "float32") for v in operands]
    graph, _ = read_body(node.source["subgraphs"][0], seen)
    [convolution] = (inner for inner in graph.nodes if inner.op == "Convolution")
    norm = next((inner for inner in graph.nodes if inner.op == "BatchNorm"), None)
    biases = [value for value in convolution.inputs[2:] if value.is_param]
    if norm is None:
        if len(biases) < len(convolution.inputs[2:]):
            return _Norm()
        channels = operands[1].array.shape[0]
        shift = biases[0].array.asnumpy() if biases else np.zeros(channels)
        return _Norm(shift=shift.astype(np.float64))
    for value in (*norm.inputs[1:], *convolution.inputs[2:]):
        if not value.is_param:
            raise UnsupportedOp(f"needs the numbers of {value.name!r} for its steps; pass params")
    attrs = {"eps": "0.001", "fix_gamma": "True", **norm.attrs}
    gamma, beta, mean, var = (v.array.asnumpy().astype(np.float64) for v in norm.inputs[1:])
    if attrs["fix_gamma"].lower() in {"true", "1"}:
        gamma = np.ones_like(gamma)
    factor = gamma / np.sqrt(var + float(attrs["eps"]))
    bias = biases[0].array.asnumpy() if biases else 0.0
    return _Norm(factor, beta + (bias - mean) * factor)


def _ends_in_limits(node: Node) -> bool:
    """Say whether a body does no more to a convolution than integers do when they saturate."""
    nodes = node.source["subgraphs"][0]["nodes"]
    behind = [n for n in nodes if n["op"] not in {"null", "Convolution", "BatchNorm", "clip"}]
    return all(
        n["op"] == "Activation" and n.get("attrs", {}).get("act_type") == "relu" for n in behind
    )


def _fits_int32(shift: Array, sizes: Array) -> bool:
    """Say whether a bias can be counted in steps of data times weight."""
    return bool((np.abs(shift) < 2.0**30 * sizes).all())


def _integer_bias(onnx: OnnxModel, shift: Array, sizes: Array) -> str:
    """Return a bias in steps of data times weight, behind a ``DequantizeLinear``."""
    counted = onnx.constant(np.rint(shift / sizes), "int32")
    return onnx.op("DequantizeLinear", counted, onnx.constant(sizes, "float32"), axis=0)


def _steps(largest: Array) -> Array:
    steps: Array = np.where(largest > 0, largest, 1) / STEPS["int8"]
    return steps


def _weight(onnx: OnnxModel, weight: Value, largest: Array, norm: _Norm) -> str:
    """Return a float weight rounded to 8 bits by channel, as numbers that are computed once."""
    shape = (-1, *(1 for _ in weight.array.shape[1:]))
    steps = _steps(largest)
    signed = onnx.constant((steps * np.where(norm.factor < 0, -1, 1)).reshape(shape), "float32")
    ends = (onnx.constant(end, "float32") for end in (-128.0, 127.0))
    integers = onnx.op("Clip", onnx.op("Round", onnx.op("Div", weight, signed)), *ends)
    real_steps = onnx.constant((steps * np.abs(norm.factor)).reshape(shape), "float32")
    return onnx.op("Mul", integers, real_steps)


def _integer_weight(onnx: OnnxModel, weight: Value, largest: Array, norm: _Norm) -> str:
    """Return the same behind a ``DequantizeLinear``, for a layer that computes in 8 bits."""
    shape = (-1, *(1 for _ in weight.array.shape[1:]))
    read: Value | str = weight
    if (norm.factor <= 0).any():
        signs = np.sign(norm.factor).reshape(shape)
        read = onnx.op("Mul", weight, onnx.constant(signs, "float32"))
    zeros = onnx.constant(np.zeros(len(largest)), "int8")
    steps = onnx.constant(_steps(largest), "float32")
    rounded = onnx.op("QuantizeLinear", read, steps, zeros, axis=0)
    real_steps = onnx.constant(norm.steps(largest), "float32")
    return onnx.op("DequantizeLinear", rounded, real_steps, zeros, axis=0)
