"""MXNet's quantised operators, as float operators between ``QuantizeLinear`` and its inverse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import UnsupportedOp
from ..graph import Node, Shape, Value
from ..onnx_model import OnnxModel
from ..registry import convert_node, converts, refuses
from . import normalized_axis
from .quantized_ranges import (
    OLD_STEPS,
    STEPS,
    Number,
    Range,
    Tensors,
    accumulated,
    calibrated,
    quantized_as,
    range_of,
    real,
    scalar_of,
    step_of,
    symmetric,
    tensor_of,
    times,
)
from .recurrent import rnn


def float_op(
    onnx: OnnxModel, node: Node, op: str, attrs: Mapping[str, str], *operands: tuple[str, Shape]
) -> str:
    """Convert MXNet's float operator `op` over tensors of known shapes, for a quantised `node`."""
    values = tuple(Value(f"{node.name}/real", shape, "float32") for _, shape in operands)
    for value, (tensor, _) in zip(values, operands):
        onnx.alias(value, tensor)
    out = Value(f"{node.name}/real_output", node.outputs[0].shape, "float32")
    convert_node(onnx, Node(op, node.name, attrs, values, (out,), {}))
    return onnx.declare(out)


# -- quantise, dequantise ----------------------------------------------------------------------


@converts("_contrib_quantize")
def quantize(
    onnx: OnnxModel, x: Value, min_range: Value, max_range: Value, *, out_type: str = "uint8"
) -> Tensors:
    """``_contrib_quantize`` -> ``QuantizeLinear``."""
    given = range_of(onnx, min_range, max_range)
    step = step_of(onnx, given, out_type, OLD_STEPS)
    told = symmetric(onnx, given.largest(onnx)) if out_type == "int8" else given
    return (quantized_as(onnx, onnx.declare(x), step, out_type), *told.tensors(onnx))


@converts("_contrib_quantize_v2")
def quantize_v2(
    onnx: OnnxModel,
    x: Value,
    *,
    out_type: str = "int8",
    min_calib_range: float | None = None,
    max_calib_range: float | None = None,
) -> Tensors:
    """``_contrib_quantize_v2`` -> ``QuantizeLinear``; without a range, that of the data."""
    given = calibrated(min_calib_range, max_calib_range)
    if x.dtype != "float32":
        if given is None:
            raise UnsupportedOp(f"{x.dtype} data without min_calib_range has no range")
        return (onnx.op("Identity", x), *given.tensors(onnx))
    dtype = _chosen(out_type, min_calib_range)
    if given is None:
        given = _range_of_data(onnx, onnx.declare(x))
    told = symmetric(onnx, given.largest(onnx)) if dtype == "int8" else given
    integers = quantized_as(onnx, onnx.declare(x), step_of(onnx, given, dtype), dtype)
    return (integers, *told.tensors(onnx))


@converts("_contrib_dequantize")
def dequantize(
    onnx: OnnxModel, x: Value, min_range: Value, max_range: Value, *, out_type: str = "float32"
) -> str:
    """``_contrib_dequantize`` -> ``DequantizeLinear``."""
    return real(onnx, x, step_of(onnx, range_of(onnx, min_range, max_range), x.dtype))


@converts("_contrib_requantize")
def requantize(
    onnx: OnnxModel,
    x: Value,
    min_range: Value,
    max_range: Value,
    *,
    out_type: str = "int8",
    min_calib_range: float | None = None,
    max_calib_range: float | None = None,
) -> Tensors:
    """``_contrib_requantize`` -> ``QuantizeLinear`` of what the int32 stand for."""
    values = real(onnx, x, step_of(onnx, range_of(onnx, min_range, max_range), x.dtype))
    given = calibrated(min_calib_range, max_calib_range) or _range_of_data(onnx, values)
    dtype, largest = _chosen(out_type, min_calib_range), given.largest(onnx)
    integers = quantized_as(onnx, values, times(onnx, largest, 1.0 / OLD_STEPS[dtype]), dtype)
    told = symmetric(onnx, largest) if dtype == "int8" else Range(0.0, largest)
    return (integers, *told.tensors(onnx))


def _chosen(out_type: str, low: float | None) -> str:
    """Return the dtype that ``out_type="auto"`` means."""
    if out_type != "auto":
        return out_type
    return "uint8" if low is not None and low >= 0 else "int8"


def _range_of_data(onnx: OnnxModel, x: str) -> Range:
    """Return the range of the data at run time."""
    one = onnx.ints([1])
    ends = (onnx.op(f"Reduce{end}", x, keepdims=0) for end in ("Min", "Max"))
    return Range(*(onnx.op("Reshape", end, one) for end in ends))


@converts("_contrib_quantize_asym")
def quantize_asym(
    onnx: OnnxModel,
    x: Value,
    *,
    min_calib_range: float | None = None,
    max_calib_range: float | None = None,
) -> Tensors:
    """``_contrib_quantize_asym`` -> ``Mul``, ``Add``, ``Round``: its shift is no integer."""
    given = calibrated(min_calib_range, max_calib_range) or _range_of_data(onnx, onnx.declare(x))
    low, high = given.tensors(onnx)
    steps = onnx.constant([255.0], "float32")
    scale = onnx.op("Div", steps, onnx.op("Sub", high, low))
    shift = onnx.op("Sub", steps, onnx.op("Mul", high, scale))
    spread = onnx.op("Round", onnx.op("Add", onnx.op("Mul", x, scale), shift))
    ends = (onnx.constant(end, "float32") for end in (0.0, 255.0))
    return onnx.cast(onnx.op("Clip", spread, *ends), "uint8"), scale, shift


# -- operators that keep the range ---------------------------------------------------------------


@converts("_contrib_quantized_flatten")
def quantized_flatten(onnx: OnnxModel, x: Value, low: Value, high: Value) -> Tensors:
    """``_contrib_quantized_flatten`` -> ``Flatten``."""
    step = step_of(onnx, range_of(onnx, low, high), x.dtype)
    flat = onnx.op("Flatten", real(onnx, x, step), axis=1)
    return quantized_as(onnx, flat, step, x.dtype), onnx.declare(low), onnx.declare(high)


@converts("_contrib_quantized_act")
def quantized_act(onnx: OnnxModel, x: Value, low: Value, high: Value, *, act_type: str) -> Tensors:
    """``_contrib_quantized_act`` -> ``Relu``."""
    if act_type != "relu":
        raise UnsupportedOp(f"act_type={act_type!r}; MXNet quantises relu only")
    if x.dtype != "int8":
        raise UnsupportedOp(f"{x.dtype} data, whose bytes MXNet takes for int8")
    step = step_of(onnx, range_of(onnx, low, high), x.dtype)
    positive = onnx.op("Relu", real(onnx, x, step))
    return quantized_as(onnx, positive, step, x.dtype), onnx.declare(low), onnx.declare(high)


@converts("_contrib_quantized_pooling")
def quantized_pooling(
    onnx: OnnxModel,
    x: Value,
    low: Value,
    high: Value,
    *,
    node: Node,
    kernel: str = "()",
    pool_type: str = "max",
    global_pool: str = "False",
    pooling_convention: str = "valid",
    stride: str = "()",
    pad: str = "()",
    p_value: str = "None",
    count_include_pad: str = "None",
    layout: str = "None",
) -> Tensors:
    """``_contrib_quantized_pooling`` -> what ``Pooling`` becomes; its converter reads the rest."""
    step = step_of(onnx, range_of(onnx, low, high), x.dtype)
    pooled = float_op(onnx, node, "Pooling", node.attrs, (real(onnx, x, step), x.shape))
    return quantized_as(onnx, pooled, step, x.dtype), onnx.declare(low), onnx.declare(high)


@converts("_contrib_quantized_embedding")
def quantized_embedding(
    onnx: OnnxModel,
    x: Value,
    weight: Value,
    low: Value,
    high: Value,
    *,
    input_dim: int,
    output_dim: int,
    dtype: str = "float32",
) -> Tensors:
    """``_contrib_quantized_embedding`` -> ``Gather``; indices out of range take the ends."""
    ends = (onnx.constant(end, "int64") for end in (0, input_dim - 1))
    indices = onnx.op("Clip", onnx.cast(x, "int64"), *ends)
    return onnx.op("Gather", weight, indices, axis=0), onnx.declare(low), onnx.declare(high)


# -- operators that make a new range -------------------------------------------------------------


@converts("_contrib_quantized_concat")
def quantized_concat(onnx: OnnxModel, *inputs: Value, dim: int = 1) -> Tensors:
    """``_contrib_quantized_concat`` -> ``Concat`` in the widest of the ranges."""
    count = len(inputs) // 3
    data, ends = inputs[:count], inputs[count:]
    ranges = [range_of(onnx, *pair) for pair in zip(ends[::2], ends[1::2])]
    dtype = "int8" if any(x.dtype == "int8" for x in data) else "uint8"
    reals = [real(onnx, x, step_of(onnx, r, x.dtype)) for x, r in zip(data, ranges)]
    widest = _widest(onnx, ranges)
    axis = dim if data[0].rank is None else normalized_axis(dim, data[0].rank)
    joined = onnx.op("Concat", *reals, axis=axis)
    return (quantized_as(onnx, joined, step_of(onnx, widest, dtype), dtype), *widest.tensors(onnx))


def _widest(onnx: OnnxModel, ranges: Sequence[Range]) -> Range:
    lows = [r.low for r in ranges if isinstance(r.low, float)]
    highs = [r.high for r in ranges if isinstance(r.high, float)]
    if len(lows) == len(highs) == len(ranges):
        return Range(min(lows), max(highs))
    pairs = [r.tensors(onnx) for r in ranges]
    return Range(onnx.op("Min", *(p[0] for p in pairs)), onnx.op("Max", *(p[1] for p in pairs)))


@converts("_contrib_quantized_elemwise_add")
def quantized_elemwise_add(
    onnx: OnnxModel,
    a: Value,
    b: Value,
    a_min: Value,
    a_max: Value,
    b_min: Value,
    b_max: Value,
    *,
    node: Node,
    min_calib_range: float | None = None,
    max_calib_range: float | None = None,
) -> Tensors:
    """``_contrib_quantized_elemwise_add`` -> ``Add``."""
    ranges = range_of(onnx, a_min, a_max), range_of(onnx, b_min, b_max)
    reals = [real(onnx, x, step_of(onnx, r, x.dtype)) for x, r in zip((a, b), ranges)]
    told = calibrated(min_calib_range, max_calib_range)
    if told is not None:
        dtype = "uint8" if a.dtype == b.dtype == "uint8" else "int8"
        step = step_of(onnx, told, dtype)
        if a.dtype != b.dtype:  # MXNet rounds the uint8 to the result's steps first
            other = 0 if a.dtype == "uint8" else 1
            rounded = quantized_as(onnx, reals[other], step, "int8")
            zero = onnx.constant(0, "int8")
            reals[other] = onnx.op("DequantizeLinear", rounded, scalar_of(onnx, step), zero)
        return (quantized_as(onnx, onnx.op("Add", *reals), step, dtype), *told.tensors(onnx))
    if a.dtype != b.dtype:
        raise UnsupportedOp(
            f"{a.dtype} and {b.dtype} without a calibrated range: MXNet forgets the scale of one"
        )
    step = times(onnx, _sum(onnx, *(r.largest(onnx) for r in ranges)), 1 / STEPS["int32"])
    return accumulated(onnx, onnx.op("Add", *reals), step, node.outputs[0])


def _sum(onnx: OnnxModel, a: Number, b: Number) -> Number:
    if isinstance(a, float) and isinstance(b, float):
        return a + b
    return onnx.op("Add", tensor_of(onnx, a), tensor_of(onnx, b))


@converts("_contrib_quantized_elemwise_mul")
def quantized_elemwise_mul(
    onnx: OnnxModel,
    a: Value,
    b: Value,
    a_min: Value,
    a_max: Value,
    b_min: Value,
    b_max: Value,
    *,
    node: Node,
    min_calib_range: float | None = None,
    max_calib_range: float | None = None,
    enable_float_output: bool = False,
) -> Tensors:
    """``_contrib_quantized_elemwise_mul`` -> ``Mul``; calibrated results saturate.

    MXNet lets what is beyond a calibrated range wrap around, and cuts what lies between two steps.
    """
    if not a.dtype == b.dtype == "int8":
        raise UnsupportedOp(f"{a.dtype} and {b.dtype} data; MXNet multiplies int8 only")
    told = calibrated(min_calib_range, max_calib_range)
    ranges = range_of(onnx, a_min, a_max), range_of(onnx, b_min, b_max)
    in_int32 = told is None and not enable_float_output
    steps = [step_of(onnx, r, "int8", OLD_STEPS if in_int32 else STEPS) for r in ranges]
    product = onnx.op("Mul", *(real(onnx, x, step) for x, step in zip((a, b), steps)))
    if enable_float_output:
        return (product,)
    if told is None:
        return accumulated(onnx, product, times(onnx, *steps), node.outputs[0])
    return (quantized_as(onnx, product, step_of(onnx, told, "int8"), "int8"), *told.tensors(onnx))


@converts("_contrib_quantized_batch_norm")
def quantized_batch_norm(
    onnx: OnnxModel,
    x: Value,
    gamma: Value,
    beta: Value,
    mean: Value,
    var: Value,
    low: Value,
    high: Value,
    *,
    eps: float = 1e-3,
    momentum: float = 0.9,
    fix_gamma: bool = True,
    use_global_stats: bool = False,
    output_mean_var: bool = False,
    axis: int = 1,
    min_calib_range: float | None = None,
    max_calib_range: float | None = None,
) -> Tensors:
    """``_contrib_quantized_batch_norm`` -> ``BatchNormalization``.

    MXNet multiplies by `gamma` whatever `fix_gamma` says.
    """
    told = calibrated(min_calib_range, max_calib_range)
    if told is None:
        raise UnsupportedOp("no min_calib_range; MXNet itself asks for one")
    if axis != 1:
        raise UnsupportedOp(f"axis={axis}; MXNet quantises axis=1 only")
    values = real(onnx, x, step_of(onnx, range_of(onnx, low, high), x.dtype))
    normal = onnx.op("BatchNormalization", values, gamma, beta, mean, var, epsilon=eps)
    return (quantized_as(onnx, normal, step_of(onnx, told, "int8"), "int8"), *told.tensors(onnx))


# -- layers with weights of 8 bits -----------------------------------------------------------------


@converts("_contrib_quantized_fully_connected")
def quantized_fully_connected(
    onnx: OnnxModel,
    *inputs: Value,
    node: Node,
    num_hidden: str,
    no_bias: bool = False,
    flatten: str = "True",
) -> Tensors:
    """``_contrib_quantized_fully_connected`` -> what ``FullyConnected`` becomes."""
    x, *_ = inputs
    return _layer(onnx, node, inputs, "FullyConnected", no_bias, x.dtype)


@converts("_contrib_quantized_conv")
def quantized_conv(
    onnx: OnnxModel,
    *inputs: Value,
    node: Node,
    kernel: str,
    num_filter: str,
    stride: str = "()",
    dilate: str = "()",
    pad: str = "()",
    num_group: str = "1",
    no_bias: bool = False,
    layout: str = "None",
) -> Tensors:
    """``_contrib_quantized_conv`` -> what ``Convolution`` becomes.

    MXNet's CPU kernel takes uint8 data for int8 when it states the range of the result.
    """
    return _layer(onnx, node, inputs, "Convolution", no_bias, "int8")


def _layer(
    onnx: OnnxModel,
    node: Node,
    inputs: Sequence[Value],
    op: str,
    no_bias: bool,
    steps_of: str,
) -> Tensors:
    """Return a layer over int8 weights as int32, in steps that are those of data and weight."""
    count = 2 if no_bias else 3
    (x, weight, *bias), ends = inputs[:count], inputs[count:]
    ranges = [range_of(onnx, *pair) for pair in zip(ends[::2], ends[1::2])]
    data_step = times(onnx, ranges[0].largest(onnx), 1 / OLD_STEPS[steps_of])
    weight_step = step_of(onnx, ranges[1], "int8", OLD_STEPS)
    step = times(onnx, data_step, weight_step)
    operands = [(real(onnx, v, s), v.shape) for v, s in ((x, data_step), (weight, weight_step))]
    if bias:
        integers = onnx.cast(bias[0], "float32")
        if op == "FullyConnected":
            integers = _rescaled_bias(onnx, integers, x.dtype, ranges)
        elif x.dtype == "int8":  # no CPU kernel: as the GPU's does
            bias_step = step_of(onnx, ranges[2], "int8", OLD_STEPS)
            ratio = onnx.op("Div", tensor_of(onnx, bias_step), tensor_of(onnx, step))
            integers = onnx.op("Round", onnx.op("Mul", integers, ratio))
        # the CPU's convolution adds the bias as it is, in whatever range
        operands.append((onnx.op("Mul", integers, tensor_of(onnx, step)), bias[0].shape))
    return accumulated(onnx, float_op(onnx, node, op, node.attrs, *operands), step, node.outputs[0])


def _rescaled_bias(onnx: OnnxModel, bias: str, dtype: str, ranges: Sequence[Range]) -> str:
    """Return a bias in the steps of the accumulator, cut to integers."""
    data, weight, own = (step_of(onnx, r, d) for r, d in zip(ranges, (dtype, "int8", "int8")))
    step = times(onnx, data, weight)
    ratio = onnx.op("Div", tensor_of(onnx, own), tensor_of(onnx, step))
    return onnx.cast(onnx.cast(onnx.op("Mul", bias, ratio), "int32"), "float32")


@converts("_contrib_quantized_rnn")
def quantized_rnn(
    onnx: OnnxModel,
    x: Value,
    parameters: Value,
    state: Value,
    state_cell: Value,
    scale: Value,
    shift: Value,
    *,
    quantized: bool = False,
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
    """``_contrib_quantized_rnn`` -> ``LSTM`` over the float weights that the node holds.

    MXNet rounds them, and the states between steps, to 8 bits while it runs.
    """
    if mode != "lstm" or use_sequence_length:
        raise UnsupportedOp("MXNet quantises LSTMs without sequence lengths only")
    values = Value(x.name, x.shape, "float32")
    centred = onnx.op("Sub", onnx.cast(x, "float32"), shift)
    onnx.alias(values, onnx.op("Div", centred, scale))
    return rnn(
        onnx,
        values,
        parameters,
        state,
        state_cell,
        state_size=state_size,
        num_layers=num_layers,
        mode=mode,
        bidirectional=bidirectional,
        state_outputs=state_outputs,
        projection_size=projection_size,
        lstm_state_clip_min=lstm_state_clip_min,
        lstm_state_clip_max=lstm_state_clip_max,
        lstm_state_clip_nan=lstm_state_clip_nan,
    )


refuses(
    "the last bits of long sums choose its threshold, and ONNX leaves the order of a sum open",
    "_contrib_calibrate_entropy",
)
