"""The nodes that take the place of one, where NVIDIA's parser would not take it for what it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper


class Replacement:
    """Writes nodes for one node of a graph.

    Parameters
    ----------
    graph : onnx.GraphProto
        Where the node stands; new constants are added to it.
    node : onnx.NodeProto
        What is to be replaced.
    weights : dict of str to array
        The weights by name; new ones are added.

    Attributes
    ----------
    nodes : list of onnx.NodeProto
        What was written so far.
    """

    def __init__(self, graph: onnx.GraphProto, node: NodeProto, weights: dict[str, Any]) -> None:
        self.node, self.nodes = node, list[NodeProto]()
        self._graph, self._weights = graph, weights
        self._label = node.name or node.output[0]

    def op(self, op_type: str, *inputs: str, **attrs: Any) -> str:
        """Write a node and return the name of what it makes."""
        name = f"{self._label}/{op_type}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attrs))
        return name

    def array(self, value: Any, dtype: Any) -> str:
        """Return the name of a new constant."""
        name = f"{self._label}/constant{len(self._graph.initializer)}"
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def tensor(self, name: str) -> TensorProto | None:
        """Return a constant of the graph; None where `name` is none."""
        return next((t for t in self._graph.initializer if t.name == name), None)

    def in_float32(self, name: str) -> str | None:
        """Return the name of a constant in float32; None where `name` is none."""
        tensor, wide = self.tensor(name), f"{name}/float32"
        if tensor is None:
            return None
        if self.tensor(wide) is not None:
            return wide
        if name in self._weights:
            self._weights[wide] = self._weights[name].astype(np.float32)
            copy = TensorProto()
            copy.CopyFrom(tensor)
            copy.name, copy.data_type = wide, TensorProto.FLOAT
        else:
            copy = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), wide)
        self._graph.initializer.append(copy)
        return wide

    def result(self) -> bool:
        """Let the last node make what the old one made; return True."""
        self.nodes[-1].output[0] = self.node.output[0]
        return True


def replace_nodes(graph: onnx.GraphProto, nodes: list[NodeProto]) -> None:
    """Let a graph have these nodes."""
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
