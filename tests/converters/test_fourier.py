"""Fourier transforms: MXNet has them on a GPU only, so the reference is NumPy's."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from operators import TOLERANCES, optimize_whole, random_array, run_engines

DATA = mx.sym.var("data")
# past what becomes a matrix; where it is no power of two, ONNX Runtime 1.32 loses three more digits
LARGE = 2048


def _transformed(symbol: mx.sym.Symbol, data: np.ndarray, sizes_known: bool) -> np.ndarray:
    shape = data.shape if sizes_known else (None,) * data.ndim
    optimized, _ = optimize_whole(symbol, shapes={"data": shape})
    return run_engines(optimized, {"data": data})[0]


@pytest.mark.parametrize("sizes_known", [True, False])
@pytest.mark.parametrize("shape", [(3, 4), (1, 7), (2, 1), (2, 1, 3, 6), (1, LARGE)])
def test_fft(shape: tuple[int, ...], sizes_known: bool) -> None:
    data = random_array(shape)
    expected = np.fft.fft(data)
    pairs = np.stack([expected.real, expected.imag], -1).reshape(*shape[:-1], -1)
    found = _transformed(mx.sym.contrib.fft(DATA, compute_size=2), data, sizes_known)
    assert found.shape == pairs.shape
    rtol, atol = TOLERANCES["float32"]
    np.testing.assert_allclose(found, pairs, rtol, atol * shape[-1])  # sums of that many terms


@pytest.mark.parametrize("sizes_known", [True, False])
@pytest.mark.parametrize("shape", [(3, 4), (1, 14), (2, 2), (2, 1, 3, 6), (1, LARGE)])
def test_ifft(shape: tuple[int, ...], sizes_known: bool) -> None:
    data = random_array(shape)
    count = shape[-1] // 2
    # MXNet does not divide by the number of points
    expected = np.fft.ifft(data[..., ::2] + 1j * data[..., 1::2]).real * count
    found = _transformed(mx.sym.contrib.ifft(DATA, compute_size=2), data, sizes_known)
    assert found.shape == expected.shape
    rtol, atol = TOLERANCES["float32"]
    np.testing.assert_allclose(found, expected, rtol, atol * count)
