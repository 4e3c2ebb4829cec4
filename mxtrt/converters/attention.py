"""Attention over interleaved projections, as GluonNLP's transformers write it.

A projection holds, for each head in turn, its query, key and value (or key and value):
``(length, batch, heads * parts * size)``. MXNet has batch and heads in one axis; here the products
have an axis of each, as TensorRT 8 cannot build a decoder in which a reshape mixes both.
"""

from __future__ import annotations

import math

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel
from ..registry import converts
from .shape import Size, reshaped, sizes_of


@converts("_contrib_interleaved_matmul_selfatt_qk")
def interleaved_matmul_selfatt_qk(
    onnx: OnnxModel, queries_keys_values: Value, *, heads: int
) -> str:
    """``_contrib_interleaved_matmul_selfatt_qk`` -> ``MatMul`` of queries and keys."""
    size = _Size(onnx, queries_keys_values, 3 * heads)
    query, key, _ = _parts(onnx, queries_keys_values, size, heads, 3)
    return _scores(onnx, query, key, size, heads, queries_keys_values, queries_keys_values)


@converts("_contrib_interleaved_matmul_selfatt_valatt")
def interleaved_matmul_selfatt_valatt(
    onnx: OnnxModel, queries_keys_values: Value, attention: Value, *, heads: int
) -> str:
    """``_contrib_interleaved_matmul_selfatt_valatt`` -> ``MatMul`` of attention and values."""
    size = _Size(onnx, queries_keys_values, 3 * heads)
    value = _parts(onnx, queries_keys_values, size, heads, 3)[2]
    return _attended(onnx, attention, value, size, heads, queries_keys_values)


@converts("_contrib_interleaved_matmul_encdec_qk")
def interleaved_matmul_encdec_qk(
    onnx: OnnxModel, queries: Value, keys_values: Value, *, heads: int
) -> str:
    """``_contrib_interleaved_matmul_encdec_qk`` -> ``MatMul`` of queries and keys."""
    size = _Size(onnx, queries, heads)
    (query,) = _parts(onnx, queries, size, heads, 1)
    key, _ = _parts(onnx, keys_values, size, heads, 2)
    return _scores(onnx, query, key, size, heads, queries, keys_values)


@converts("_contrib_interleaved_matmul_encdec_valatt")
def interleaved_matmul_encdec_valatt(
    onnx: OnnxModel, keys_values: Value, attention: Value, *, heads: int
) -> str:
    """``_contrib_interleaved_matmul_encdec_valatt`` -> ``MatMul`` of attention and values."""
    size = _Size(onnx, keys_values, 2 * heads)
    value = _parts(onnx, keys_values, size, heads, 2)[1]
    return _attended(onnx, attention, value, size, heads, keys_values)


@converts("_contrib_div_sqrt_dim")
def div_sqrt_dim(onnx: OnnxModel, x: Value) -> str:
    """``_contrib_div_sqrt_dim`` -> ``Div`` by the root of the last axis' size."""
    return onnx.op("Div", x, _Size(onnx, x, 1).root())


class _Size:
    """The last axis of a tensor, cut in `count` equal pieces: a number if that is known."""

    def __init__(self, onnx: OnnxModel, x: Value, count: int) -> None:
        last = x.shape[-1] if x.shape else None
        if last is not None and last % count:
            raise UnsupportedOp(f"the last axis of {x.name!r} is {last}, no multiple of {count}")
        self._onnx, self._dtype = onnx, x.dtype
        self._number = None if last is None else last // count
        if last is None:
            whole = onnx.op("Gather", onnx.op("Shape", x), onnx.ints([-1]))
            self._tensor = onnx.op("Div", whole, onnx.ints([count]))

    def shape(self, *front: int, times: int = 1) -> str:
        """Return a shape that ends with the size, `times` over."""
        onnx = self._onnx
        if self._number is not None:
            return onnx.ints([*front, self._number * times])
        size = onnx.op("Mul", self._tensor, onnx.ints([times])) if times > 1 else self._tensor
        return onnx.op("Concat", onnx.ints(front), size, axis=0)

    def root(self) -> str:
        """Return the size's square root, cut to an integer as MXNet does for integer types."""
        if self._number is not None:
            return self._onnx.constant(math.sqrt(self._number), self._dtype)
        real = self._dtype if self._dtype.startswith("float") else "float32"
        root = self._onnx.op("Sqrt", self._onnx.cast(self._tensor, real))
        return root if real == self._dtype else self._onnx.cast(root, self._dtype)


def _parts(
    onnx: OnnxModel, projection: Value, size: _Size, heads: int, count: int
) -> tuple[str, ...]:
    """Return queries, keys, values: each ``(length, batch, heads, size)``."""
    if count == 1:
        return (onnx.op("Reshape", projection, size.shape(0, 0, heads)),)
    together = onnx.op("Reshape", projection, size.shape(0, 0, heads, count))
    return tuple(
        onnx.op("Gather", together, onnx.constant(part, "int64"), axis=3) for part in range(count)
    )


def _scores(
    onnx: OnnxModel, query: str, key: str, size: _Size, heads: int, queries: Value, keys: Value
) -> str:
    """Return the products of queries and keys: ``(batch * heads, length, length)``."""
    scaled = onnx.op("Div", onnx.op("Transpose", query, perm=[1, 2, 0, 3]), size.root())
    scores = onnx.op("MatMul", scaled, onnx.op("Transpose", key, perm=[1, 2, 3, 0]))
    sizes = [Size(queries, (1,), factor=heads), Size(queries, (0,)), Size(keys, (0,))]
    return reshaped(onnx, scores, sizes, like=queries, leading=0)


def _attended(
    onnx: OnnxModel, attention: Value, value: str, size: _Size, heads: int, projection: Value
) -> str:
    """Return the sums of the values: ``(length, batch, heads * size)``."""
    sizes = [Size(projection, (1,)), Size(factor=heads), *sizes_of(attention, (1, 2))]
    by_head = reshaped(onnx, attention, sizes, like=attention, leading=0)
    sums = onnx.op("MatMul", by_head, onnx.op("Transpose", value, perm=[1, 2, 0, 3]))
    in_order = onnx.op("Transpose", sums, perm=[2, 0, 1, 3])
    return onnx.op("Reshape", in_order, size.shape(0, 0, times=heads))
