"""Arithmetic, comparison and activation, element by element."""

from __future__ import annotations

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel
from ..registry import converts

ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "softrelu": "Softplus",
               "softsign": "Softsign"}  # fmt: skip


@converts("Activation")
def activation(onnx: OnnxModel, x: Value, *, act_type: str) -> str:
    """``Activation`` -> the ONNX operator of the same function."""
    if act_type not in ACTIVATIONS:
        raise UnsupportedOp(f"act_type={act_type!r} is none of {', '.join(ACTIVATIONS)}")
    return onnx.op(ACTIVATIONS[act_type], x)
