"""Training heads in their inference meaning: what they compute without a gradient.

Their labels are read by the gradient alone: they vanish from the part.
"""

from __future__ import annotations

from ..graph import Value
from ..onnx_model import OnnxModel
from ..registry import converts


@converts("BlockGrad", "make_loss")
def identity(onnx: OnnxModel, x: Value) -> str:
    """``BlockGrad`` -> ``Identity``."""
    return onnx.op("Identity", x)
