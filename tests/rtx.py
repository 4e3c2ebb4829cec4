"""NVIDIA's own ONNX parser and builder on a machine without a GPU: TensorRT-RTX."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import onnx
import pytest

from mxtrt.onnx_model import embed_weights, export_onnx
from mxtrt.options import read_options
from mxtrt.params import read_params
from mxtrt.partition import partition
from mxtrt.symbol import read_symbol


def parts_as_onnx(
    symbol: mx.sym.Symbol, params: Any, shapes: dict[str, tuple[int, ...]], **options: Any
) -> list[onnx.ModelProto]:
    """Return the ONNX of every part, weights inside."""
    checked = read_options(shapes, **options)
    graph = read_symbol(symbol, read_params(params).arrays, checked)
    exported = [export_onnx(part) for part in partition(graph, checked).parts]
    return [embed_weights(proto, model.weights) for proto, model in exported]


def build_plan(model: onnx.ModelProto) -> bytes:
    """Parse and build an ONNX model for compute capability 8.6; fail with NVIDIA's message."""
    rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has no wheel for this platform")
    logger = _logger(rtx)
    builder = rtx.Builder(logger)
    network = builder.create_network(0)
    parser = rtx.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        pytest.fail("; ".join(str(parser.get_error(i)) for i in range(parser.num_errors)))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(rtx.ComputeCapability.SM86, 0)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None, "the builder refused a network that its parser took"
    return bytes(plan)


_loggers: list[Any] = []


def _logger(rtx: Any) -> Any:
    # the library keeps a pointer to the first logger for ever
    if not _loggers:
        _loggers.append(rtx.Logger(rtx.Logger.ERROR))
    return _loggers[0]
