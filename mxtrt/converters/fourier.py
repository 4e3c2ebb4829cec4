"""Fourier transforms of the last axis, as products with a constant matrix where its size is known.

TensorRT has no operator for them.
"""

from __future__ import annotations

import numpy as np

from ..graph import Value
from ..onnx_model import OnnxModel
from ..registry import converts
from . import known_rank

MAX_MATRIX = 1024  # rows; beyond, the fast transform is faster than a product


@converts("_contrib_fft")
def fft(onnx: OnnxModel, x: Value, *, compute_size: int = 128) -> str:
    """``_contrib_fft`` -> ``MatMul`` or ``DFT``: real and imaginary parts in turns."""
    rank, size = known_rank(x), x.shape[-1] if x.shape else None
    if size is not None and size <= MAX_MATRIX:
        waves = np.exp(-2j * np.pi / size * np.outer(np.arange(size), np.arange(size)))
        matrix = np.stack([waves.real, waves.imag], -1).reshape(size, 2 * size)
        return onnx.op("MatMul", x, onnx.constant(matrix, x.dtype))
    numbers = onnx.op("Unsqueeze", x, onnx.ints([rank]))
    made = onnx.op("DFT", numbers, axis=rank - 1)
    return onnx.op("Reshape", made, onnx.ints([*[0] * (rank - 1), -1]))


@converts("_contrib_ifft")
def ifft(onnx: OnnxModel, x: Value, *, compute_size: int = 128) -> str:
    """``_contrib_ifft`` -> ``MatMul`` or ``DFT`` of the conjugate: the real part of the sums."""
    rank, size = known_rank(x), x.shape[-1] if x.shape else None
    if size is not None and size <= MAX_MATRIX:
        count = size // 2
        waves = np.exp(2j * np.pi / count * np.outer(np.arange(count), np.arange(count)))
        matrix = np.stack([waves.real, -waves.imag], 1).reshape(size, count)
        return onnx.op("MatMul", x, onnx.constant(matrix, x.dtype))
    pairs = onnx.op("Reshape", x, onnx.ints([*[0] * (rank - 1), -1, 2]))
    conjugate = onnx.op("Mul", pairs, onnx.constant([1, -1], x.dtype))
    made = onnx.op("DFT", conjugate, axis=rank - 1)
    return onnx.op("Gather", made, onnx.constant(0, "int64"), axis=-1)
