"""Normalisation by statistics, and the softmax family."""

from __future__ import annotations

import numpy as np

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import known_rank, normalized_axis, size_vector, value_of
from .elementwise import single
from .reduction import mean_of_any, reduced_axes

BATCH_NORM_EPS = float(np.float32(1e-3))  # MXNet's default, a float32 in a double


@converts("BatchNorm")
def batch_norm(
    onnx: OnnxModel,
    x: Value,
    gamma: Value,
    beta: Value,
    mean: Value,
    var: Value,
    *,
    eps: float = BATCH_NORM_EPS,
    momentum: float = 0.9,
    fix_gamma: bool = True,
    use_global_stats: bool = False,
    output_mean_var: bool = False,
    axis: int = 1,
    min_calib_range: float | None = None,
    max_calib_range: float | None = None,
) -> tuple[str, ...]:
    """``BatchNorm`` -> ``BatchNormalization``; ``Mul``, ``Add`` off axis 1 or without weights.

    Special numbers: an infinite scale makes NaN, MXNet makes infinity.
    """
    scale = _ones_like(onnx, gamma) if fix_gamma else gamma
    if axis == 1 and all(v.is_param for v in (gamma, beta, mean, var)):
        y = onnx.op("BatchNormalization", x, scale, beta, mean, var, epsilon=eps)
    else:
        y = _scale_and_shift(onnx, x, scale, (gamma, beta, mean, var), eps, axis)
    if not output_mean_var:
        return (y,)
    return y, onnx.op("Identity", mean), _inverse_std(onnx, var, eps)


@converts("_contrib_SyncBatchNorm")
def sync_batch_norm(
    onnx: OnnxModel,
    x: Value,
    gamma: Value,
    beta: Value,
    mean: Value,
    var: Value,
    *,
    eps: float = BATCH_NORM_EPS,
    momentum: float = 0.9,
    fix_gamma: bool = True,
    use_global_stats: bool = False,
    output_mean_var: bool = False,
    ndev: int = 1,
    key: str,
) -> tuple[str, ...]:
    """``_contrib_SyncBatchNorm`` -> what ``BatchNorm`` becomes."""
    if output_mean_var:
        raise UnsupportedOp("output_mean_var=True: MXNet writes nothing into these outputs")
    return batch_norm(onnx, x, gamma, beta, mean, var, eps=eps, fix_gamma=fix_gamma)


@converts("BatchNorm_v1")
def batch_norm_v1(
    onnx: OnnxModel,
    x: Value,
    gamma: Value,
    beta: Value,
    mean: Value,
    var: Value,
    *,
    eps: float = BATCH_NORM_EPS,
    momentum: float = 0.9,
    fix_gamma: bool = True,
    use_global_stats: bool = False,
    output_mean_var: bool = False,
) -> tuple[str, ...]:
    """``BatchNorm_v1`` -> what ``BatchNorm`` becomes; its last output is the variance."""
    y = batch_norm(onnx, x, gamma, beta, mean, var, eps=eps, fix_gamma=fix_gamma)
    if not output_mean_var:
        return y
    return *y, onnx.op("Identity", mean), onnx.op("Identity", var)


@converts("_contrib_BatchNormWithReLU")
def batch_norm_with_relu(
    onnx: OnnxModel,
    x: Value,
    gamma: Value,
    beta: Value,
    mean: Value,
    var: Value,
    *,
    eps: float = BATCH_NORM_EPS,
    momentum: float = 0.9,
    fix_gamma: bool = True,
    use_global_stats: bool = False,
    output_mean_var: bool = False,
    axis: int = 1,
    min_calib_range: float | None = None,
    max_calib_range: float | None = None,
) -> tuple[str, ...]:
    """``_contrib_BatchNormWithReLU`` -> ``BatchNormalization``, ``Relu``.

    Special numbers: an infinite scale makes NaN, MXNet makes infinity.
    """
    y, *statistics = batch_norm(
        onnx,
        x,
        gamma,
        beta,
        mean,
        var,
        eps=eps,
        fix_gamma=fix_gamma,
        output_mean_var=output_mean_var,
        axis=axis,
    )
    return onnx.op("Relu", y), *statistics


def _ones_like(onnx: OnnxModel, vector: Value) -> Operand:
    size = vector.shape[0] if vector.shape else None
    one = onnx.constant([1], vector.dtype)
    if size is None:
        return onnx.op("Expand", one, onnx.op("Shape", vector))
    return onnx.constant([1] * size, vector.dtype)


def _inverse_std(onnx: OnnxModel, var: Value, eps: float) -> str:
    shifted = onnx.op("Add", var, onnx.constant(eps, var.dtype))
    return onnx.op("Reciprocal", onnx.op("Sqrt", shifted))


def _scale_and_shift(
    onnx: OnnxModel,
    x: Value,
    scale: Operand,
    statistics: tuple[Value, Value, Value, Value],
    eps: float,
    axis: int,
) -> str:
    _, beta, mean, var = statistics
    scale = onnx.op("Mul", scale, _inverse_std(onnx, var, eps))
    shift = onnx.op("Sub", beta, onnx.op("Mul", mean, scale))
    behind = -axis - 1 if axis < 0 else known_rank(x) - 1 - axis
    if behind:  # (C,) becomes (C, 1, 1)
        axes = onnx.ints(range(1, behind + 1))
        scale, shift = (onnx.op("Unsqueeze", vector, axes) for vector in (scale, shift))
    if x.dtype == var.dtype:
        return onnx.op("Add", onnx.op("Mul", x, scale), shift)
    wide = onnx.cast(x, var.dtype)  # float16 data with float32 statistics
    return onnx.cast(onnx.op("Add", onnx.op("Mul", wide, scale), shift), x.dtype)


@converts("InstanceNorm")
def instance_norm(
    onnx: OnnxModel, x: Value, gamma: Value, beta: Value, *, eps: float = 1e-3
) -> str:
    """``InstanceNorm`` -> ``InstanceNormalization``.

    Special numbers: an infinite scale makes NaN, MXNet makes infinity.
    """
    return onnx.op("InstanceNormalization", x, gamma, beta, epsilon=eps)


@converts("GroupNorm")
def group_norm(
    onnx: OnnxModel,
    x: Value,
    gamma: Value,
    beta: Value,
    *,
    num_groups: int = 1,
    eps: float = 1e-5,
    output_mean_var: bool = False,
) -> tuple[str, ...]:
    """``GroupNorm`` -> ``InstanceNormalization`` of the groups, which have a `gamma` each.

    Special numbers: an infinite scale makes NaN, MXNet makes infinity; of squares that overflow
    MXNet makes NaN.
    """
    groups = onnx.op("Reshape", x, onnx.ints([0, num_groups, -1]))
    normed = onnx.op("InstanceNormalization", groups, gamma, beta, epsilon=eps)
    y = onnx.op("Reshape", normed, onnx.op("Shape", x))
    if not output_mean_var:
        return (y,)
    return y, *_mean_and_std(onnx, groups, x.dtype, 2, eps, keepdims=0)


@converts("LayerNorm")
def layer_norm(
    onnx: OnnxModel,
    x: Value,
    gamma: Value,
    beta: Value,
    *,
    axis: int = -1,
    eps: float = 1e-5,
    output_mean_var: bool = False,
) -> tuple[str, ...]:
    """``LayerNorm`` -> ``LayerNormalization``, its axis moved to the end where it is not.

    Special numbers: of squares that overflow MXNet makes NaN.
    """
    if _may_have_one_channel(x, gamma, beta, axis):
        return _layer_norm_of_any(onnx, x, gamma, beta, axis, eps)[: 3 if output_mean_var else 1]
    if axis == -1 or axis == known_rank(x) - 1:
        y = onnx.op("LayerNormalization", x, gamma, beta, epsilon=eps, axis=-1)
    else:
        rank = known_rank(x)
        order = [i for i in range(rank) if i != normalized_axis(axis, rank)]
        order.append(normalized_axis(axis, rank))
        moved = onnx.op("Transpose", x, perm=order)
        normed = onnx.op("LayerNormalization", moved, gamma, beta, epsilon=eps, axis=-1)
        y = onnx.op("Transpose", normed, perm=[int(i) for i in np.argsort(order)])
    if not output_mean_var:
        return (y,)
    return y, *_mean_and_std(onnx, x, x.dtype, axis, eps, keepdims=1)


def _may_have_one_channel(x: Value, gamma: Value, beta: Value, axis: int) -> bool:
    """Say whether there may be one channel or none; ONNX Runtime 1.23 normalises two or more."""
    known = [x.shape[axis]] if x.shape is not None else []
    known += [vector.shape[0] for vector in (gamma, beta) if vector.shape]
    size = next((size for size in known if size is not None), None)
    return size is None or size < 2


def _layer_norm_of_any(
    onnx: OnnxModel, x: Value, gamma: Value, beta: Value, axis: int, eps: float
) -> tuple[str, str, str]:
    """Return what ``LayerNorm`` makes of any number of channels: the mean of none is NaN."""
    count = onnx.cast(size_vector(onnx, x, axis), x.dtype)
    # ONNX Runtime 1.23 does not sum nothing along an axis that is counted from the end
    place = axis if x.rank is None else normalized_axis(axis, x.rank)

    def mean_of(numbers: Operand) -> str:
        return onnx.op("Div", onnx.op("ReduceSum", numbers, onnx.ints([place])), count)

    mean = mean_of(x)
    centred = onnx.op("Sub", x, mean)
    var = mean_of(onnx.op("Mul", centred, centred))
    std = onnx.op("Sqrt", onnx.op("Add", var, onnx.constant(eps, x.dtype)))
    behind = -axis - 1 if axis < 0 else known_rank(x) - 1 - axis
    scale: Operand = gamma
    shift: Operand = beta
    if behind:  # (C,) becomes (C, 1, 1)
        axes = onnx.ints(range(1, behind + 1))
        scale, shift = (onnx.op("Unsqueeze", vector, axes) for vector in (gamma, beta))
    scaled = onnx.op("Mul", onnx.op("Div", centred, std), scale)
    return onnx.op("Add", scaled, shift), mean, std


def _mean_and_std(
    onnx: OnnxModel, x: Operand, dtype: str, axis: int, eps: float, keepdims: int
) -> tuple[str, str]:
    mean = onnx.op("ReduceMean", x, axes=[axis], keepdims=1)
    centred = onnx.op("Sub", x, mean)
    squares = onnx.op("Mul", centred, centred)
    var = onnx.op("ReduceMean", squares, axes=[axis], keepdims=keepdims)
    std = onnx.op("Sqrt", onnx.op("Add", var, onnx.constant(eps, dtype)))
    return mean if keepdims else onnx.op("Squeeze", mean, onnx.ints([axis])), std


@converts("moments")
def moments(
    onnx: OnnxModel, x: Value, *, axes: tuple[int, ...] | None = None, keepdims: bool = False
) -> tuple[str, str]:
    """``moments`` -> ``ReduceMean`` of the data, and of the squared distances from it.

    Special numbers: of infinity, and of squares that overflow, MXNet makes NaN.
    """
    reduced = reduced_axes(x, axes, exclude=False)
    centred = onnx.op("Sub", x, onnx.op("ReduceMean", x, axes=reduced, keepdims=1))
    squares = value_of(onnx, onnx.op("Mul", centred, centred), x.shape, x.dtype)
    mean = mean_of_any(onnx, x, reduced, keepdims)
    return mean, mean_of_any(onnx, squares, reduced, keepdims)


@converts("L2Normalization")
def l2_normalization(
    onnx: OnnxModel, x: Value, *, eps: float = 1e-10, mode: str = "instance"
) -> str:
    """``L2Normalization`` -> ``Div`` by the root of ``ReduceSumSquare``."""
    first = 2 if mode == "spatial" else 1
    axes = [1] if mode == "channel" else list(range(first, known_rank(x)))
    square = onnx.op("ReduceSumSquare", x, axes=axes) if axes else onnx.op("Mul", x, x)
    norm = onnx.op("Sqrt", onnx.op("Add", square, onnx.constant(single(eps), x.dtype)))
    return onnx.op("Div", x, norm)


@converts("LRN")
def lrn(
    onnx: OnnxModel,
    x: Value,
    *,
    alpha: float = 1e-4,
    beta: float = 0.75,
    knorm: float = 2,
    nsize: int,
) -> str:
    """``LRN`` -> ``LRN``.

    Special numbers: NaN and infinity make NaN of other channels than in MXNet.
    """
    if nsize % 2 == 0:
        raise UnsupportedOp(f"nsize={nsize} is even; only odd windows have a middle")
    return onnx.op("LRN", x, alpha=alpha, beta=beta, bias=float(knorm), size=nsize)


@converts("Dropout")
def dropout(
    onnx: OnnxModel,
    x: Value,
    *,
    p: float = 0.5,
    mode: str = "training",
    axes: tuple[int, ...] = (),
) -> str:
    """``Dropout`` -> ``Identity``."""
    if mode == "always" and p > 0:
        raise UnsupportedOp("mode='always' draws random numbers at inference too")
    return onnx.op("Identity", x)


@converts("softmax")
def softmax(
    onnx: OnnxModel,
    x: Value,
    length: Value | None = None,
    *,
    axis: int = -1,
    temperature: float | None = None,
    dtype: str | None = None,
    use_length: bool | None = False,
) -> str:
    """``softmax`` -> ``Softmax``; what lies past a `length` is masked before and after.

    Special numbers: in a row with NaN or positive infinity the others are not MXNet's.
    """
    logits, inner = _logits(onnx, x, temperature, dtype)
    if length is None:
        return _as(onnx, onnx.op("Softmax", logits, axis=axis), inner, dtype)
    inside = _before_length(onnx, x, length, axis)
    least = onnx.constant(np.finfo(inner).min, inner)
    shares = onnx.op("Softmax", onnx.op("Where", inside, logits, least), axis=axis)
    return _as(onnx, onnx.op("Where", inside, shares, onnx.constant(0, inner)), inner, dtype)


@converts("log_softmax")
def log_softmax(
    onnx: OnnxModel,
    x: Value,
    *,
    axis: int = -1,
    temperature: float | None = None,
    dtype: str | None = None,
    use_length: bool | None = False,
) -> str:
    """``log_softmax`` -> ``LogSoftmax``.

    Special numbers: in a row with NaN or positive infinity the others are not MXNet's.
    """
    logits, inner = _logits(onnx, x, temperature, dtype)
    return _as(onnx, onnx.op("LogSoftmax", logits, axis=axis), inner, dtype)


@converts("softmin")
def softmin(
    onnx: OnnxModel,
    x: Value,
    *,
    axis: int = -1,
    temperature: float | None = None,
    dtype: str | None = None,
    use_length: bool | None = False,
) -> str:
    """``softmin`` -> ``Softmax`` of the negative."""
    logits, inner = _logits(onnx, x, temperature, dtype)
    return _as(onnx, onnx.op("Softmax", onnx.op("Neg", logits), axis=axis), inner, dtype)


@converts("SoftmaxActivation")
def softmax_activation(onnx: OnnxModel, x: Value, *, mode: str = "instance") -> str:
    """``SoftmaxActivation`` -> ``Softmax`` over the last axis, or over the channels."""
    return onnx.op("Softmax", x, axis=1 if mode == "channel" else -1)


def _logits(
    onnx: OnnxModel, x: Value, temperature: float | None, dtype: str | None
) -> tuple[Operand, str]:
    """Return what the exponential reads and the wider of the two dtypes, which it has."""
    inner = x.dtype
    logits: Operand = x
    if dtype is not None and np.dtype(dtype).itemsize > np.dtype(inner).itemsize:
        logits, inner = onnx.cast(x, dtype), dtype
    if temperature is not None and temperature != 1:
        logits = onnx.op("Div", logits, onnx.constant(temperature, inner))
    return logits, inner


def _as(onnx: OnnxModel, made: str, inner: str, dtype: str | None) -> str:
    return made if dtype in {None, inner} else onnx.cast(made, str(dtype))


def _before_length(onnx: OnnxModel, x: Value, length: Value, axis: int) -> str:
    """Return for each element whether its index along `axis` is below its `length`."""
    behind = -axis - 1 if axis < 0 else known_rank(x) - 1 - axis
    size = x.shape[axis] if x.shape is not None else None
    if size is None:
        end = onnx.op("Gather", onnx.op("Shape", x), onnx.constant(axis, "int64"))
        ramp = onnx.op("Range", onnx.constant(0, "int64"), end, onnx.constant(1, "int64"))
        index = onnx.op("Unsqueeze", ramp, onnx.ints(range(1, behind + 1))) if behind else ramp
    else:
        index = onnx.constant(np.arange(size).reshape(-1, *[1] * behind), "int64")
    lengths = onnx.op("Unsqueeze", onnx.cast(length, "int64"), onnx.ints([axis]))
    return onnx.op("Less", index, lengths)
