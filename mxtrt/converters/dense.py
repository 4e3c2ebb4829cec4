"""Matrix products: ``FullyConnected`` and its kin."""

from __future__ import annotations

from ..graph import Value
from ..onnx_model import OnnxModel
from ..registry import converts


@converts("FullyConnected")
def fully_connected(
    onnx: OnnxModel,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    *,
    num_hidden: int,
    no_bias: bool = False,
    flatten: bool = True,
) -> str:
    """``FullyConnected`` -> ``Gemm`` on rows; ``MatMul`` where leading axes are kept."""
    if flatten:
        rows = x if x.rank == 2 else onnx.op("Flatten", x, axis=1)
        return onnx.op("Gemm", rows, weight, bias, transB=1)
    product = onnx.op("MatMul", x, onnx.op("Transpose", weight, perm=[1, 0]))
    return product if bias is None else onnx.op("Add", product, bias)
