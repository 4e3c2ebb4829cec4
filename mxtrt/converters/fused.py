"""Layers that MXNet fused for oneDNN: ``_sg_mkldnn_*``, in float32 or quantised.

A fused node holds what it replaced as a body: that is converted, with ``QuantizeLinear`` and its
inverse around data and weights where the node is quantised. The numbers of steps are measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mxnet as mx
import numpy as np

from ..errors import UnsupportedOp
from ..graph import Node, Value
from ..onnx_model import OnnxModel
from ..registry import converts
from ..symbol import read_body
from .attention import interleaved_matmul_selfatt_qk, interleaved_matmul_selfatt_valatt
from .control_flow import convert_body
from .quantized import (
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
    """``_sg_mkldnn_conv`` -> its body, over weights that MXNet quantises when it first runs."""
    operands, ranges = _operands(onnx, node, inputs)
    if not quantized:
        return (_float_body(onnx, node, operands, {}),)
    told = calibrated(min_calib_range, max_calib_range)
    x, weight = operands[:2]
    tensors = {0: real(onnx, x, step_of(onnx, ranges[0], x.dtype))}
    if with_sum:
        added = operands[-1]
        tensors[len(operands) - 1] = real(onnx, added, step_of(onnx, ranges[1], added.dtype))
    largest = _largest_by_channel(weight)
    if told is None and not enable_float_output:  # int32 has one step for all channels
        factors = _batch_norm_factors(node, operands)
        reach = float(np.max(largest * factors))
        tensors[1] = _weight(onnx, weight, reach / np.where(factors, factors, 1))
        return _as_int32(
            onnx, node, _float_body(onnx, node, operands, tensors), ranges[0], x, reach
        )
    tensors[1] = _weight(onnx, weight, largest)
    out = _float_body(onnx, node, operands, tensors)
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
    """``_sg_mkldnn_fully_connected`` -> its body, over weights of 8 bits."""
    operands, ranges = _operands(onnx, node, inputs)
    if not quantized:
        return (_float_body(onnx, node, operands, {}),)
    told = calibrated(min_calib_range, max_calib_range)
    if channel_wise_quantize:
        x, weight = operands[:2]
        tensors = {0: real(onnx, x, step_of(onnx, ranges[0], x.dtype))}
        tensors[1] = _weight(onnx, weight, _largest_by_channel(weight))
    else:
        tensors = {
            i: real(onnx, v, step_of(onnx, r, v.dtype))
            for i, (v, r) in enumerate(zip(operands, ranges))
        }
    out = _float_body(onnx, node, operands, tensors)
    if told is None and not enable_float_output:
        return _as_int32(onnx, node, out, ranges[0], operands[0], ranges[1].largest(onnx))
    return _result(onnx, node, out, told)


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
    onnx: OnnxModel, node: Node, operands: Sequence[Value], tensors: Mapping[int, str]
) -> str:
    """Convert the body over `tensors` where they are given, over the operands elsewhere."""
    seen = [
        Value(v.name, v.shape, "float32") if i in tensors else v for i, v in enumerate(operands)
    ]
    graph, variables = read_body(node.source["subgraphs"][0], seen)
    for i, (variable, operand) in enumerate(zip(variables, operands)):
        onnx.alias(variable, tensors[i] if i in tensors else onnx.declare(operand))
    (head,) = convert_body(onnx, graph)
    return onnx.declare(head)


# -- weights ---------------------------------------------------------------------------------


def _largest_by_channel(weight: Value) -> np.ndarray[Any, Any]:
    """Return the largest magnitude of each output channel."""
    if not weight.is_param:
        raise UnsupportedOp(f"needs the numbers of {weight.name!r} for its steps; pass params")
    rows = weight.array.reshape((weight.array.shape[0], -1))
    return np.asarray(mx.nd.max(mx.nd.abs(rows), axis=1).asnumpy())


def _weight(onnx: OnnxModel, weight: Value, largest: np.ndarray[Any, Any]) -> str:
    """Return a float weight rounded to 8 bits by channel.

    The factor of a batch normalization behind it changes the steps, not the integers, so that it
    can stay where it is.
    """
    steps = onnx.constant(np.where(largest > 0, largest, 1) / STEPS["int8"], "float32")
    zeros = onnx.constant(np.zeros(len(largest)), "int8")
    rounded = onnx.op("QuantizeLinear", weight, steps, zeros, axis=0)
    return onnx.op("DequantizeLinear", rounded, steps, zeros, axis=0)


def _batch_norm_factors(node: Node, operands: Sequence[Value]) -> np.ndarray[Any, Any]:
    """Return the magnitude of what the body's batch normalization multiplies each channel by."""
    seen = [v if v.is_param else Value(v.name, v.shape, "float32") for v in operands]
    graph, _ = read_body(node.source["subgraphs"][0], seen)
    for inner in graph.nodes:
        if inner.op == "BatchNorm":
            attrs = {"eps": "0.001", "fix_gamma": "True", **inner.attrs}
            gamma, var = (inner.inputs[i].array.asnumpy() for i in (1, 4))
            fixed = attrs["fix_gamma"].lower() in {"true", "1"}
            return np.asarray(np.abs(1 if fixed else gamma) / np.sqrt(var + float(attrs["eps"])))
    return np.ones(1)
