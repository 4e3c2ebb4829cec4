"""Signed data of 8 bits as unsigned ones around 128, for ONNX Runtime: the same 256 steps.

Its layers of 8 bits want data and results of one type, and its processors' instructions want bytes
without a sign. It changes the type itself where one layer alone reads the data.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from ..onnx_model import reads

MIDDLE = "mxtrt/128"


def with_unsigned_data(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose int8 data are uint8 wherever they are only quantised and dequantised.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model; it stays as it is.

    Returns
    -------
    onnx.ModelProto
        The same object when there is nothing to do.
    """
    if not _pairs(proto.graph):
        return proto
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    pairs = _pairs(model.graph)
    signed = {node.input[2] for node in pairs}
    for node in pairs:
        node.input[2] = MIDDLE
    signed.difference_update(name for node in model.graph.node for name in reads(node))
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in signed]
    kept.append(numpy_helper.from_array(np.array(128, np.uint8), MIDDLE))
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def _pairs(graph: onnx.GraphProto) -> list[NodeProto]:
    """Return the nodes that quantise to int8 for nobody but nodes that dequantise, and these."""
    zeros = {
        tensor.name
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.INT8
        and not tensor.dims
        and tensor.data_location != TensorProto.EXTERNAL
        and not numpy_helper.to_array(tensor)
    }
    if not zeros:
        return []
    readers: dict[str, list[NodeProto]] = {info.name: [NodeProto()] for info in graph.output}
    for node in graph.node:
        for name in reads(node):
            readers.setdefault(name, []).append(node)
    found = []
    for node in graph.node:
        if _shifts(node, "QuantizeLinear", zeros):
            after = readers.get(node.output[0], [])
            if all(_shifts(reader, "DequantizeLinear", zeros) for reader in after):
                found += [node, *after]
    return found


def _shifts(node: NodeProto, op_type: str, zeros: set[str]) -> bool:
    return node.op_type == op_type and len(node.input) == 3 and node.input[2] in zeros
