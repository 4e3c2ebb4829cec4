"""New arrays as NumPy makes them: identities, index grids, windows."""

from __future__ import annotations

from functools import partial
from typing import Callable

import numpy as np
import numpy.typing as npt

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel
from ..registry import converts
from . import shape_vector
from .creation import element_type, filled

Numbers = npt.NDArray[np.float64]


@converts("_npi_eye")
def eye(
    onnx: OnnxModel,
    *,
    N: int,  # noqa: N803
    M: int | None = None,  # noqa: N803
    k: int = 0,
    dtype: str | None = None,
) -> str:
    """``_npi_eye`` -> a constant."""
    kind = element_type(dtype)
    return onnx.constant(np.eye(N, M, k), kind)


@converts("_npi_identity")
def identity(onnx: OnnxModel, *, shape: tuple[int, ...] = (), dtype: str | None = None) -> str:
    """``_npi_identity`` -> a constant."""
    rows, columns = shape
    return onnx.constant(np.eye(rows, columns), element_type(dtype))


@converts("_npi_indices")
def indices(onnx: OnnxModel, *, dimensions: tuple[int, ...], dtype: str = "int32") -> str:
    """``_npi_indices`` -> a constant."""
    return onnx.constant(np.indices(dimensions), element_type(dtype))


@converts("_npi_full_like")
def full_like(onnx: OnnxModel, x: Value, *, fill_value: float, dtype: str | None = None) -> str:
    """``_npi_full_like`` -> ``Expand`` of the value."""
    kind = x.dtype if dtype is None else element_type(dtype)
    return filled(onnx, fill_value, kind, shape_vector(onnx, x))


@converts("_npi_logspace")
def logspace(
    onnx: OnnxModel,
    *,
    start: float,
    stop: float,
    num: int,
    endpoint: bool = True,
    base: float = 10.0,
    dtype: str | None = None,
) -> str:
    """``_npi_logspace`` -> a constant."""
    kind = element_type(dtype)
    return onnx.constant(np.logspace(start, stop, num, endpoint, base).astype(kind), kind)


def _window(
    shape: Callable[[Numbers], Numbers],
    onnx: OnnxModel,
    *,
    M: int | None = None,  # noqa: N803
    dtype: str | None = None,
) -> str:
    kind = element_type(dtype)
    if M is None:
        raise UnsupportedOp("M=None: MXNet makes no window of unknown length")
    if M == 1:
        return onnx.constant([1], kind)
    # MXNet has its angles in float32, whatever the type of the window
    angles = np.float32(2 * np.pi) * np.arange(M, dtype=np.float32) / np.float32(max(M - 1, 1))
    return onnx.constant(shape(angles.astype(np.float64)).astype(kind), kind)


converts("_npi_hanning")(partial(_window, lambda angle: 0.5 - 0.5 * np.cos(angle)))
converts("_npi_hamming")(partial(_window, lambda angle: 0.54 - 0.46 * np.cos(angle)))
converts("_npi_blackman")(
    partial(_window, lambda angle: 0.42 - 0.5 * np.cos(angle) + 0.08 * np.cos(2 * angle))
)
