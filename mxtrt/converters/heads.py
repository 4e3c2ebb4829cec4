"""Training heads in their inference meaning: what they compute without a gradient.

The gradient alone reads their labels, which therefore vanish.
"""

from __future__ import annotations

from numpy import float32

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel
from ..registry import converts
from . import known_rank, shape_vector


@converts("BlockGrad", "make_loss")
def identity(onnx: OnnxModel, x: Value) -> str:
    """``BlockGrad`` -> ``Identity``."""
    return onnx.op("Identity", x)


@converts("MakeLoss")
def make_loss(
    onnx: OnnxModel,
    x: Value,
    *,
    grad_scale: float = 1.0,
    valid_thresh: float = 0.0,
    normalization: str = "null",
) -> str:
    """``MakeLoss`` -> ``Identity``; its attributes scale the gradient."""
    return onnx.op("Identity", x)


@converts("SoftmaxOutput", ignores=["label"])
def softmax_output(
    onnx: OnnxModel,
    x: Value,
    label: Value,
    *,
    grad_scale: float = 1.0,
    ignore_label: float = -1.0,
    multi_output: bool = False,
    use_ignore: bool = False,
    preserve_shape: bool = False,
    normalization: str = "null",
    out_grad: bool = False,
    smooth_alpha: float = 0.0,
) -> str:
    """``SoftmaxOutput`` -> ``Softmax`` over axis 1, over the last axis, or over all but the first.

    The other attributes are read by the gradient.

    Special numbers: in a row with NaN or positive infinity the others are not MXNet's.
    """
    if multi_output or x.rank == 2:
        return onnx.op("Softmax", x, axis=1)
    if preserve_shape:
        return onnx.op("Softmax", x, axis=-1)
    if known_rank(x) == 4:
        raise UnsupportedOp(
            "neither multi_output nor preserve_shape with 4 axes: MXNet normalises over the last "
            "with oneDNN and over all but the first without it"
        )
    rows = onnx.op("Softmax", onnx.op("Flatten", x, axis=1), axis=1)
    return onnx.op("Reshape", rows, shape_vector(onnx, x))


@converts("LinearRegressionOutput", "MAERegressionOutput", ignores=["label"])
def regression_output(onnx: OnnxModel, x: Value, label: Value, *, grad_scale: float = 1.0) -> str:
    """``LinearRegressionOutput`` -> ``Identity``."""
    return onnx.op("Identity", x)


@converts("LogisticRegressionOutput", ignores=["label"])
def logistic_regression_output(
    onnx: OnnxModel, x: Value, label: Value, *, grad_scale: float = 1.0
) -> str:
    """``LogisticRegressionOutput`` -> ``Sigmoid``."""
    return onnx.op("Sigmoid", x)


@converts("SVMOutput", ignores=["label"])
def svm_output(
    onnx: OnnxModel,
    x: Value,
    label: Value,
    *,
    margin: float = 1.0,
    regularization_coefficient: float = 1.0,
    use_linear: bool = False,
) -> str:
    """``SVMOutput`` -> ``Identity``."""
    return onnx.op("Identity", x)


@converts("IdentityAttachKLSparseReg", ignores=["moving_avg"])
def identity_attach_kl_sparse_reg(
    onnx: OnnxModel,
    x: Value,
    moving_avg: Value,
    *,
    sparseness_target: float = 0.1,
    penalty: float = 0.001,
    momentum: float = 0.9,
) -> str:
    """``IdentityAttachKLSparseReg`` -> ``Identity``; the average serves the gradient."""
    return onnx.op("Identity", x)


@converts("softmax_cross_entropy")
def softmax_cross_entropy(onnx: OnnxModel, x: Value, label: Value) -> str:
    """``softmax_cross_entropy`` -> minus the sum of ``Log(Softmax)`` at the labels."""
    index = onnx.op("Unsqueeze", onnx.cast(label, "int64"), onnx.ints([1]))
    chosen = onnx.op("GatherElements", onnx.op("Softmax", x, axis=1), index, axis=1)
    bounded = onnx.op("Max", chosen, onnx.constant(float32(1e-8), x.dtype))
    total = onnx.op("ReduceSum", onnx.op("Log", bounded), onnx.ints([0, 1]), keepdims=0)
    return onnx.op("Reshape", onnx.op("Neg", total), onnx.ints([1]))
