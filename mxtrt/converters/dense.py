"""Matrix products: ``FullyConnected`` and its kin."""

from __future__ import annotations

import mxnet as mx

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import known_rank
from .shape import reshaped, sizes_of


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
    """``FullyConnected`` -> ``Gemm`` on rows, between two ``Reshape`` where axes are kept."""
    # Gemm reads the weight as it is; for MatMul engines would keep a transposed copy
    rows = x if x.rank == 2 else onnx.op("Flatten", x, axis=1 if flatten else -1)
    product = onnx.op("Gemm", rows, weight, bias, transB=1)
    return product if flatten or x.rank == 2 else with_axes_of(onnx, product, x, num_hidden)


def with_axes_of(onnx: OnnxModel, rows: str, x: Value, size: int) -> str:
    """Return rows of a size with all axes of `x` but the last, of which they are made."""
    leading = (None, None) if x.shape is None else x.shape[:-1]
    may_be_empty = 0 in leading or (mx.util.is_np_shape() and leading.count(None) > 1)
    target = _with_last_size(onnx, x, size)
    return onnx.op("Reshape", rows, target, allowzero=1 if may_be_empty else None)


def _with_last_size(onnx: OnnxModel, x: Value, size: int) -> str:
    """Return the shape of `x` with another last size, as a vector for ``Reshape``."""
    leading = (None, None) if x.shape is None else x.shape[:-1]
    if leading.count(None) <= 1 and 0 not in leading:
        return onnx.ints([*(-1 if n is None else n for n in leading), size])
    kept = onnx.op("Slice", onnx.op("Shape", x), onnx.ints([0]), onnx.ints([-1]))
    return onnx.op("Concat", kept, onnx.ints([size]), axis=0)


@converts("dot")
def dot(
    onnx: OnnxModel,
    a: Value,
    b: Value,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    forward_stype: str | None = None,
) -> str:
    """``dot`` -> ``Gemm`` or ``MatMul``; it sums the last axis of `a` with the first of `b`."""
    if forward_stype not in {None, "default"}:
        raise UnsupportedOp(f"forward_stype={forward_stype!r} makes a sparse array")
    ranks = known_rank(a), known_rank(b)
    if ranks == (2, 2):
        flips = {"transA": int(transpose_a) or None, "transB": int(transpose_b) or None}
        return onnx.op("Gemm", a, b, **flips)
    if transpose_a and ranks[1] == 1:
        # ONNX Runtime 1.32 fuses Transpose and MatMul by a vector into a wrong product
        return dot(onnx, b, a)
    kept_a = list(range(1, ranks[0])) if transpose_a else list(range(ranks[0] - 1))
    kept_b = list(range(ranks[1] - 1)) if transpose_b else list(range(1, ranks[1]))
    left: Operand = a
    right: Operand = b
    if transpose_a and kept_a:
        left = onnx.op("Transpose", a, perm=[*kept_a, 0])
    if transpose_b and kept_b:
        right = onnx.op("Transpose", b, perm=[ranks[1] - 1, *kept_b])
    if len(kept_b) < 2:
        product = onnx.op("MatMul", left, right)
        return product if kept_a or kept_b else onnx.op("Reshape", product, onnx.ints([1]))
    rows = onnx.op("Reshape", right, onnx.ints([0, -1]))
    sizes = [*sizes_of(a, kept_a), *sizes_of(b, kept_b)]
    return reshaped(onnx, onnx.op("MatMul", left, rows), sizes, like=a, leading=len(kept_a))


@converts("batch_dot")
def batch_dot(
    onnx: OnnxModel,
    a: Value,
    b: Value,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    forward_stype: str | None = None,
) -> str:
    """``batch_dot`` -> ``MatMul``."""
    return _matmul(onnx, a, b, transpose_a, transpose_b, axis=-2)


@converts("_linalg_gemm2")
def linalg_gemm2(
    onnx: OnnxModel,
    a: Value,
    b: Value,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    alpha: float = 1.0,
    axis: int = -2,
) -> str:
    """``_linalg_gemm2`` -> ``MatMul``, its rows moved to the second axis from the end."""
    product = _matmul(onnx, a, b, transpose_a, transpose_b, axis)
    return product if alpha == 1 else _scaled(onnx, product, alpha, a.dtype)


@converts("_linalg_gemm")
def linalg_gemm(
    onnx: OnnxModel,
    a: Value,
    b: Value,
    c: Value,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    alpha: float = 1.0,
    beta: float = 1.0,
    axis: int = -2,
) -> str:
    """``_linalg_gemm`` -> ``MatMul``, ``Add``."""
    product = linalg_gemm2(
        onnx, a, b, transpose_a=transpose_a, transpose_b=transpose_b, alpha=alpha, axis=axis
    )
    return onnx.op("Add", product, c if beta == 1 else _scaled(onnx, c, beta, a.dtype))


def _matmul(
    onnx: OnnxModel, a: Value, b: Value, transpose_a: bool, transpose_b: bool, axis: int
) -> str:
    """Multiply matrices whose rows lie along `axis` and whose columns lie along the last."""
    in_place = axis == -2 or axis == known_rank(a) - 2
    if in_place and a.dtype == "float64" and (transpose_a or transpose_b):
        # ONNX Runtime 1.23 fuses Transpose and MatMul into what it has for float32 only
        left_axes, right_axes = "ji" if transpose_a else "ij", "kj" if transpose_b else "jk"
        return onnx.op("Einsum", a, b, equation=f"...{left_axes},...{right_axes}->...ik")
    left = _rows_in_place(onnx, a, axis, transpose_a)
    right = _rows_in_place(onnx, b, axis, transpose_b)
    product = onnx.op("MatMul", left, right)
    if in_place:
        return product
    return onnx.op("Transpose", product, perm=_swapped(known_rank(a), axis, -2))


def _rows_in_place(onnx: OnnxModel, x: Value, axis: int, transpose: bool) -> Operand:
    if not transpose and (axis == -2 or axis == known_rank(x) - 2):
        return x
    order = _swapped(known_rank(x), axis, -2)
    if transpose:
        order[-2:] = order[:-3:-1]
    return onnx.op("Transpose", x, perm=order)


def _swapped(rank: int, one: int, other: int) -> list[int]:
    order = list(range(rank))
    order[one], order[other] = order[other], order[one]
    return order


def _scaled(onnx: OnnxModel, x: Operand, factor: float, dtype: str) -> str:
    return onnx.op("Mul", x, onnx.constant(factor, dtype))
