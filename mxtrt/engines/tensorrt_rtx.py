"""The TensorRT-RTX engine: TensorRT for consumer GPUs, by the same code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .tensorrt import TensorRTBuilder, available_builder

if TYPE_CHECKING:
    from ..options import Options


def builder(options: Options) -> TensorRTBuilder:
    """Return the builder of TensorRT-RTX's engines; see `tensorrt.builder`."""
    return available_builder("tensorrt_rtx", options)
