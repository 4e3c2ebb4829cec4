"""What the integers of a quantised tensor stand for: ranges, the steps in them, and real numbers.

A quantised tensor travels as three: integers and the two ends of the range that they stand for.
Ranges that were calibrated are constants, so the steps of the ONNX operators are constants too, as
TensorRT wants them. How many steps a range has differs between MXNet's kernels: 127 and 255 in
some, 127.5 and 255.5 in the newer ones. The numbers here are measured on MXNet 1.9.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Union

import numpy as np

from ..graph import Value
from ..onnx_model import OnnxModel

Tensors = tuple[str, ...]
Number = Union[float, str]
"""A number that is known, or the tensor of shape (1,) that holds it at run time."""

STEPS = {"int8": 127.5, "uint8": 255.5, "int32": 2.0**31 - 1}
OLD_STEPS = {"int8": 127.0, "uint8": 255.0, "int32": 2.0**31 - 1}
"""Steps between zero and the end of a range: in newer kernels, and in older ones."""


@dataclass(frozen=True)
class Range:
    """The two ends of what a quantised tensor's integers stand for."""

    low: Number
    high: Number

    def largest(self, onnx: OnnxModel) -> Number:
        """Return the larger of the ends' magnitudes: it has all the steps."""
        if isinstance(self.low, float) and isinstance(self.high, float):
            return max(abs(self.low), abs(self.high))
        low, high = self.tensors(onnx)
        return onnx.op("Max", onnx.op("Abs", low), onnx.op("Abs", high))

    def tensors(self, onnx: OnnxModel) -> tuple[str, str]:
        """Return the ends as MXNet hands them on, of shape (1,)."""
        return tensor_of(onnx, self.low), tensor_of(onnx, self.high)


def range_of(onnx: OnnxModel, low: Value, high: Value) -> Range:
    """Return the range that two inputs of a node state."""
    ends = [onnx.numbers(value) for value in (low, high)]
    if all(end is not None and end.size == 1 for end in ends):
        return Range(*(float(np.ravel(end)[0]) for end in ends if end is not None))
    return Range(onnx.declare(low), onnx.declare(high))


def calibrated(low: float | None, high: float | None) -> Range | None:
    """Return the range in a node's attributes, None where calibration left none."""
    if low is None or high is None:
        return None
    return Range(float(np.float32(low)), float(np.float32(high)))


def symmetric(onnx: OnnxModel, largest: Number) -> Range:
    """Return the range from ``-largest`` to ``largest``."""
    if isinstance(largest, float):
        return Range(-largest, largest)
    return Range(onnx.op("Neg", largest), largest)


def times(onnx: OnnxModel, a: Number, b: Number) -> Number:
    """Return the product of two numbers."""
    if isinstance(a, float) and isinstance(b, float):
        return a * b
    return onnx.op("Mul", tensor_of(onnx, a), tensor_of(onnx, b))


def tensor_of(onnx: OnnxModel, number: Number) -> str:
    """Return a number as a tensor of shape (1,)."""
    return onnx.constant([number], "float32") if isinstance(number, float) else number


# -- from integers to what they stand for, and back --------------------------------------------


def real(onnx: OnnxModel, x: Value, step: Number) -> str:
    """Return what the integers `x` stand for, as float32."""
    if x in onnx.reals:
        return onnx.reals[x]
    if x.dtype == "int32":
        return onnx.op("Mul", onnx.cast(x, "float32"), tensor_of(onnx, step))
    return onnx.op("DequantizeLinear", x, scalar_of(onnx, step), onnx.constant(0, x.dtype))


def quantized_as(onnx: OnnxModel, x: str, step: Number, dtype: str) -> str:
    """Return a float32 tensor as integers of 8 bits."""
    if not isinstance(step, float):  # a range of nothing but zeros
        step = onnx.op("Max", step, onnx.constant([1e-30], "float32"))
    return onnx.op("QuantizeLinear", x, scalar_of(onnx, step), onnx.constant(0, dtype))


def accumulated(onnx: OnnxModel, x: str, step: Number, out: Value) -> Tensors:
    """Return a float32 tensor as int32 with its range; who reads it again reads `x` itself."""
    onnx.reals[out] = x
    integers = onnx.cast(onnx.op("Round", onnx.op("Div", x, tensor_of(onnx, step))), "int32")
    largest = times(onnx, step, STEPS["int32"])
    return (integers, *symmetric(onnx, largest).tensors(onnx))


def scalar_of(onnx: OnnxModel, step: Number) -> str:
    """Return a step as a tensor without axes, as ``QuantizeLinear`` takes it; 1 in place of 0."""
    if isinstance(step, float):
        return onnx.constant(step or 1.0, "float32")
    return onnx.op("Reshape", step, onnx.ints([]))


def step_of(onnx: OnnxModel, of: Range, dtype: str, steps: Mapping[str, float] = STEPS) -> Number:
    """Return the size of one step of a range."""
    return times(onnx, of.largest(onnx), 1.0 / steps[dtype])
