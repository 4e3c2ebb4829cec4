"""Activations: one number in, one number out, with nothing but attributes or a slope beside it."""

from __future__ import annotations

from math import sqrt

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel
from ..registry import converts
from . import doubles, known_rank, known_size
from .elementwise import as_float, from_float

ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "softrelu": "Softplus"}


@converts("Activation")
def activation(onnx: OnnxModel, x: Value, *, act_type: str) -> str:
    """``Activation`` -> the ONNX operator of the same function.

    Special numbers: MXNet's ``relu`` of NaN is 0 in float32.
    """
    if act_type == "softsign":
        return softsign(onnx, x)
    if act_type not in ACTIVATIONS:
        raise UnsupportedOp(
            f"act_type={act_type!r} is none of {', '.join(ACTIVATIONS)} and softsign"
        )
    return doubles.function(onnx, ACTIVATIONS[act_type], x, x.dtype)


@converts("softsign")
def softsign(onnx: OnnxModel, x: Value) -> str:
    """``softsign`` -> ``Softsign``."""
    operand, dtype = as_float(onnx, x, "float64")
    if dtype != "float64":
        return onnx.op("Softsign", x)
    # ONNX Runtime's Softsign has no kernel for it
    divisor = onnx.op("Add", onnx.op("Abs", operand), onnx.constant(1, dtype))
    return from_float(onnx, onnx.op("Div", operand, divisor), x.dtype)


@converts("hard_sigmoid")
def hard_sigmoid(onnx: OnnxModel, x: Value, *, alpha: float = 0.2, beta: float = 0.5) -> str:
    """``hard_sigmoid`` -> ``HardSigmoid``."""
    if x.dtype == "float64":
        return doubles.hard_sigmoid(onnx, x, alpha, beta)
    return onnx.op("HardSigmoid", x, alpha=alpha, beta=beta)


@converts("LeakyReLU")
def leaky_relu(
    onnx: OnnxModel,
    x: Value,
    gamma: Value | None = None,
    *,
    act_type: str = "leaky",
    slope: float = 0.25,
    lower_bound: float = 0.125,
    upper_bound: float = 0.334,
) -> str | tuple[str, str]:
    """``LeakyReLU`` -> ``LeakyRelu``, ``PRelu``, ``Elu``, ``Selu``, or the formula of GELU.

    Special numbers: a slope of 0 makes NaN of NaN and of infinity below 0, MXNet makes 0 in
    float32; an infinite slope makes 0 of 0, MXNet makes NaN; ``selu`` and ``gelu`` may make 0 of
    denormals.
    """
    if act_type == "leaky":
        return _leaky(onnx, x, slope)
    if act_type == "rrelu":  # random while training, their mean in inference
        leaky = _leaky(onnx, x, (lower_bound + upper_bound) / 2)
        return leaky, leaky  # MXNet leaves the second output, the slopes, unwritten in inference
    if act_type == "elu":
        double = x.dtype == "float64"
        return doubles.elu(onnx, x, slope) if double else onnx.op("Elu", x, alpha=slope)
    if act_type == "selu":
        return doubles.function(onnx, "Selu", x, x.dtype)
    if act_type == "gelu":
        return _gelu(onnx, x)
    if act_type != "prelu":
        raise UnsupportedOp(f"act_type={act_type!r} is no LeakyReLU that MXNet describes")
    if gamma is None:
        raise UnsupportedOp("act_type='prelu' without its slope gamma")
    return _prelu(onnx, x, gamma)


def _leaky(onnx: OnnxModel, x: Value, slope: float) -> str:
    if x.dtype == "float64":
        return doubles.leaky_relu(onnx, x, onnx.constant(slope, "float32"))
    return onnx.op("LeakyRelu", x, alpha=slope)


def _gelu(onnx: OnnxModel, x: Value) -> str:
    # written as both ONNX Runtime and TensorRT recognise it
    erf = onnx.op("Erf", onnx.op("Div", x, onnx.constant(sqrt(2), x.dtype)))
    twice = onnx.op("Mul", x, onnx.op("Add", erf, onnx.constant(1, x.dtype)))
    return onnx.op("Mul", twice, onnx.constant(0.5, x.dtype))


def _prelu(onnx: OnnxModel, x: Value, gamma: Value) -> str:
    sizes = [known_size(gamma, axis) for axis in range(known_rank(gamma))]
    shape = [1] if all(size == 1 for size in sizes) else _slope_shape(x, sizes)
    slope = onnx.op("Reshape", gamma, onnx.ints(shape))
    if x.dtype == "float64":
        return doubles.leaky_relu(onnx, x, onnx.cast(slope, "float32"))
    return onnx.op("PRelu", x, slope)


def _slope_shape(x: Value, sizes: list[int]) -> list[int]:
    """Return the shape in which MXNet spreads a PReLU's slope over the first two axes of `x`.

    Its sizes are taken from the last to the first; each goes to the first axis, counted from
    axis 1 down to 0, where it is 1 or the size of `x`.
    """
    shape, left = [1] * known_rank(x), list(sizes)
    for axis in range(min(1, len(shape) - 1), -1, -1):
        if left and left[-1] in {1, known_size(x, axis)}:
            shape[axis] = left.pop()
    if left:
        raise UnsupportedOp(f"a slope gamma of shape {tuple(sizes)} does not fit the data")
    while len(shape) > 1 and shape[0] == 1:  # ONNX lines shapes up at the right
        shape.pop(0)
    return shape
