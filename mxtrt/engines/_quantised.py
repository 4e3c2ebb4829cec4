"""Quantised tensors as floats that hold whole numbers, between the same steps.

To TensorRT they are int8 alone: its parser does not look at the type of a zero point, so what ONNX
calls uint8 ends at 127 in the place of 255. Besides, int8 does not leave a network but as what it
is quantised to, and before TensorRT 11 a flag for all of the network has to allow it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper, shape_inference

from ..onnx_model import graphs, reads
from ._replacement import Replacement, replace_nodes

Weights = Mapping[str, "np.ndarray[Any, Any]"]

LIMITS: dict[int, tuple[int, int]] = {TensorProto.INT8: (-128, 127), TensorProto.UINT8: (0, 255)}
PAIR = frozenset({"QuantizeLinear", "DequantizeLinear"})


def is_quantised_only(proto: onnx.ModelProto) -> bool:
    """Say whether all that is int8 was quantised, or is dequantised and nothing else."""
    for graph in graphs(proto.graph):
        made = {n.output[0] for n in graph.node if n.op_type == "QuantizeLinear"}
        read = {
            name
            for node in graph.node
            for name in (node.input if node.op_type not in PAIR else node.input[:0])
        }
        named = {
            tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.INT8
        }
        named |= {info.name for info in graph.input if _kind(info) == TensorProto.INT8}
        outputs = {info.name for info in graph.output if _kind(info) == TensorProto.INT8}
        if not read.isdisjoint(named | made) or not outputs <= made:
            return False
        if any(a.i == TensorProto.INT8 for n in graph.node for a in n.attribute if a.name == "to"):
            return False
    return True


def crossing(proto: onnx.ModelProto) -> Iterator[str]:
    """Yield the names of the nodes that read int8 inputs of a model, or make int8 outputs."""
    ends = (*proto.graph.input, *proto.graph.output)
    names = {info.name for info in ends if _kind(info) == TensorProto.INT8}
    for node in proto.graph.node:
        if not names.isdisjoint([*node.input, *node.output]):
            yield node.name


def between_floats(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model that reads and makes float32 where it read and made quantised tensors."""
    nodes = proto.graph.node
    quantised = {n.output[0] for n in nodes if n.op_type == "QuantizeLinear"}
    quantised |= {n.input[0] for n in nodes if n.op_type == "DequantizeLinear"}
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    for info in (*model.graph.input, *model.graph.output):
        if info.name in quantised:
            info.type.tensor_type.elem_type = TensorProto.FLOAT
    return model


def in_floats(
    proto: onnx.ModelProto, weights: Weights
) -> tuple[onnx.ModelProto, Weights, frozenset[str]]:
    """Return a model without ``QuantizeLinear`` and ``DequantizeLinear``.

    Parameters
    ----------
    proto : onnx.ModelProto
        Opset 17; its weights are external data.
    weights : mapping of str to array
        The weights by name.

    Returns
    -------
    model : onnx.ModelProto
        The same object when there is nothing to do.
    weights : mapping of str to array
        Those of the model.
    names : frozenset of str
        The nodes that round: they need float32.
    """
    if not any(node.op_type in PAIR for graph in graphs(proto.graph) for node in graph.node):
        return proto, weights, frozenset()
    ranks = _ranks(shape_inference.infer_shapes(proto))
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    names: set[str] = set()
    known = dict(weights)
    for graph in list(graphs(model.graph)):
        floats = _Floats(graph, known, ranks)
        kept: list[NodeProto] = []
        for node in graph.node:
            written = floats.write(node) if node.op_type in PAIR else [node]
            names.update(part.name for part in written if node.op_type == "QuantizeLinear")
            kept.extend(written)
        replace_nodes(graph, kept)
    _drop_unread(model, known)
    return model, known, frozenset(names)


def _drop_unread(model: onnx.ModelProto, weights: dict[str, Any]) -> None:
    """Drop zero points and weights of 8 bits: the parser refuses constants of uint8."""
    read = {name for node in model.graph.node for name in reads(node)}
    read.update(info.name for info in model.graph.output)
    for graph in graphs(model.graph):
        tensors = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.initializer[:]
        graph.initializer.extend(tensors)
    for name in [name for name in weights if name not in read]:
        del weights[name]


class _Floats:
    """Writes the nodes of one graph; what it adds to `weights` are weights in float32."""

    def __init__(
        self, graph: onnx.GraphProto, weights: dict[str, Any], ranks: Mapping[str, int]
    ) -> None:
        self._graph, self._weights, self._ranks = graph, weights, ranks
        ends = (*graph.input, *graph.output)
        self._integers = {info.name: _kind(info) for info in ends if _kind(info) in LIMITS}

    def write(self, node: NodeProto) -> list[NodeProto]:
        """Return the nodes that take the place of one."""
        made = Replacement(self._graph, node, self._weights)
        zero = made.tensor(node.input[2]) if len(node.input) > 2 else None
        write = self._quantised if node.op_type == "QuantizeLinear" else self._real
        write(made, self._along(made), zero)
        made.result()
        return made.nodes

    def _quantised(self, made: Replacement, step: str, zero: TensorProto | None) -> None:
        node = made.node
        low, high = LIMITS[zero.data_type if zero is not None else TensorProto.UINT8]
        whole = made.op("Round", made.op("Div", node.input[0], step))
        if _value(zero):
            whole = made.op("Add", whole, made.array(_value(zero), np.float32))
        ends = (made.array(end, np.float32) for end in (low, high))
        whole = made.op("Clip", whole, *ends)
        if node.output[0] in self._integers:
            made.op("Cast", whole, to=self._integers[node.output[0]])

    def _real(self, made: Replacement, step: str, zero: TensorProto | None) -> None:
        x = made.node.input[0]
        if x in self._integers:
            x = made.op("Cast", x, to=TensorProto.FLOAT)
        else:
            x = made.in_float32(x) or x
        if _value(zero):
            x = made.op("Sub", x, made.array(_value(zero), np.float32))
        made.op("Mul", x, step)

    def _along(self, made: Replacement) -> str:
        """Return the steps of channels along the axis that they are of."""
        x, step = made.node.input[0], str(made.node.input[1])
        tensor = made.tensor(step)
        if tensor is None or int(np.prod(tensor.dims)) == 1:
            return step
        given = {a.name: a.i for a in made.node.attribute}
        shape = [1] * self._ranks[x]
        shape[given.get("axis", 1) % self._ranks[x]] = -1
        return made.op("Reshape", step, made.array(shape, np.int64))


def _value(zero: TensorProto | None) -> float:
    return float(numpy_helper.to_array(zero).flat[0]) if zero is not None else 0.0


def _kind(info: onnx.ValueInfoProto) -> int:
    return info.type.tensor_type.elem_type


def _ranks(proto: onnx.ModelProto) -> dict[str, int]:
    ranks: dict[str, int] = {}
    for graph in graphs(proto.graph):
        for info in (*graph.input, *graph.value_info, *graph.output):
            if info.type.tensor_type.HasField("shape"):
                ranks[info.name] = len(info.type.tensor_type.shape.dim)
        ranks.update({tensor.name: len(tensor.dims) for tensor in graph.initializer})
    return ranks
