"""What ends the process when TensorRT 8 builds it: no error, so it must not get there.

Seen with 8.5.3 on an H200: an And beside 0, an Or beside 1, and a loop that looks for the largest
element: bipartite matching of one matrix. What of that loop does it is not known, for matchings of
a batch, and each of its operators alone, are built. So all that search are kept away. TensorRT-RTX
1.x builds all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ..onnx_model import graphs

Weights = Mapping[str, "np.ndarray[Any, Any]"]

SEARCHES = frozenset({"ArgMax", "ArgMin"})
SEARCH = "its builder ends the process over a loop that looks for the largest element"
ZEROS = "its builder ends the process over a logical and with zeros only"
ONES = "its builder ends the process over a logical or with ones only"

COMPUTED = frozenset({
    "Add", "And", "Cast", "Concat", "ConstantOfShape", "Equal", "Expand", "Gather", "Greater",
    "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Mul", "Neg", "Not", "Or", "Range",
    "Reshape", "Shape", "Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where", "Xor",
})  # fmt: skip
"""What constants are computed with; whatever else comes in between is taken for no constant."""

MAX_SIZE = 2**20  # of what constants are computed from


def fatal_nodes(proto: onnx.ModelProto, weights: Weights) -> dict[str, str]:
    """Return the names of ONNX nodes that TensorRT 8 must not see, each with the reason.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model.
    weights : mapping of str to array
        Those of its external data that are known.
    """
    found: dict[str, str] = {}
    constants = _Constants(proto, weights)
    for node in (node for graph in graphs(proto.graph) for node in graph.node):
        if node.op_type == "Loop" and not SEARCHES.isdisjoint(_op_types(node)):
            found[node.name] = SEARCH
        elif node.op_type == "And" and any(constants.are_all(0, name) for name in node.input):
            found[node.name] = ZEROS
        elif node.op_type == "Or" and any(constants.are_all(1, name) for name in node.input):
            found[node.name] = ONES
    return found


def _op_types(node: onnx.NodeProto) -> Iterator[str]:
    bodies = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    for graph in (inner for body in bodies for inner in graphs(body)):
        yield from (inner.op_type for inner in graph.node)


class _Constants:
    """The numbers that are the same in all runs, computed when they are asked for."""

    def __init__(self, proto: onnx.ModelProto, weights: Weights) -> None:
        self._opsets = proto.opset_import
        self._makers: dict[str, onnx.NodeProto] = {}
        self._tensors: dict[str, onnx.TensorProto] = {}
        for graph in graphs(proto.graph):
            self._makers.update((name, node) for node in graph.node for name in node.output)
            self._tensors.update((tensor.name, tensor) for tensor in graph.initializer)
        self._known: dict[str, np.ndarray[Any, Any] | None] = dict(weights)

    def are_all(self, truth: int, name: str) -> bool:
        """Say whether a tensor is a constant, and everywhere as true as `truth`."""
        array = self._array(name)
        return array is not None and array.size > 0 and bool((array.astype(bool) == truth).all())

    def _array(self, name: str) -> np.ndarray[Any, Any] | None:
        if name not in self._known:
            tensor = self._tensors.get(name)
            if tensor is None:
                self._known[name] = self._computed(name)
            elif tensor.data_location != TensorProto.EXTERNAL:
                self._known[name] = numpy_helper.to_array(tensor)
        return self._known.get(name)

    def _computed(self, name: str) -> np.ndarray[Any, Any] | None:
        node = self._makers.get(name)
        if node is None or node.op_type not in COMPUTED:
            return None
        operands: dict[str, np.ndarray[Any, Any]] = {}
        for operand in filter(None, node.input):
            array = self._array(operand)
            if array is None or array.size > MAX_SIZE:
                return None
            operands[operand] = array
        read, made = ([onnx.ValueInfoProto(name=n) for n in names] for names in (operands, [name]))
        model = helper.make_model(
            helper.make_graph([node], "constant", read, made), opset_imports=self._opsets
        )
        found: list[Any] = ReferenceEvaluator(model).run(None, operands)  # type: ignore[assignment]
        return np.asarray(found[0])
