"""Whether a model computes each row of a batch by itself, so that a batch may be run in parts.

What is not known to do so is taken for something that does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..onnx_reader import sizes

BETWEEN = frozenset({
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean",
    "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor",
})  # fmt: skip
"""Operators between elements, with broadcasting."""

ALONG = frozenset({
    "Abs", "AveragePool", "Cast", "Ceil", "Celu", "Clip", "Conv", "ConvTranspose", "Cos",
    "DepthToSpace", "Elu", "Erf", "Exp", "Floor", "Gelu", "GlobalAveragePool", "GlobalMaxPool",
    "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization", "IsInf", "IsNaN", "LRN",
    "LeakyRelu", "Log", "LpPool", "MaxPool", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round",
    "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "SpaceToDepth", "Sqrt", "Tan", "Tanh",
    "ThresholdedRelu",
})  # fmt: skip
"""Operators that look at one row of their first input, and at constants."""

USUAL_AXIS = {
    "DequantizeLinear": 1, "LayerNormalization": -1, "LogSoftmax": -1, "QuantizeLinear": 1,
    "Softmax": -1, "Split": 0,
}  # fmt: skip
"""Operators that look along one axis of their first input, and which that is if they name none."""

REDUCTIONS = frozenset({
    "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
})  # fmt: skip


def computes_rows_alone(proto: onnx.ModelProto) -> bool:
    """Say whether row ``i`` of each output depends on the rows ``i`` of the inputs only.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model; its weights may be external data.
    """
    graph = proto.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    ranks: dict[str, int] = {}  # of what has a row for each row of the batch
    for info in graph.input:
        rank = len(sizes(info) or ())
        if not rank:
            return False
        ranks[info.name] = rank
    for node in graph.node:
        if node.domain not in ("", "ai.onnx"):
            return False
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant" and "value" in attributes:
            constants[node.output[0]] = attributes["value"]
            continue
        made = _Node(node, attributes, ranks, constants).rank()
        if made is None:
            return False
        ranks.update(dict.fromkeys(filter(None, node.output), made))
    return all(info.name in ranks for info in graph.output)


class _Node:
    """A node, with what is known of its inputs."""

    def __init__(
        self,
        node: onnx.NodeProto,
        attributes: dict[str, Any],
        ranks: dict[str, int],
        constants: dict[str, TensorProto],
    ) -> None:
        self.op, self.attributes = node.op_type, attributes
        self.inputs = [name for name in node.input if name]
        self.ranks = [ranks[name] for name in self.inputs if name in ranks]
        self.given = [constants[name] for name in self.inputs if name in constants]
        self.follows = self.inputs[:1] == [name for name in self.inputs if name in ranks]

    def rank(self) -> int | None:
        """Return how many axes the outputs have; None where rows may depend on each other."""
        if not self.ranks or len(self.ranks) + len(self.given) != len(self.inputs):
            return None
        rank = self.ranks[0]
        if self.op in BETWEEN:
            return rank if self._rows_meet(rank) else None
        if self.op == "Concat":
            return rank if set(self.ranks) == {rank} and not self.given and self._axis(0) else None
        if not self.follows:
            return None
        if self.op in ALONG:
            return rank
        if self.op in USUAL_AXIS:
            return rank if self._axis(USUAL_AXIS[self.op]) else None
        if self.op in REDUCTIONS:
            return self._reduced(rank)
        return self._others(rank)

    def _others(self, rank: int) -> int | None:
        attributes, given = self.attributes, self.given
        if self.op == "BatchNormalization":
            return None if attributes.get("training_mode") else rank
        if self.op == "Flatten":
            return 2 if attributes.get("axis", 1) == 1 else None
        if self.op == "Gemm":
            beside = given[1].dims if len(given) > 1 else ()
            return 2 if not attributes.get("transA") and self._beside_rows(beside, 2) else None
        if self.op == "MatMul":
            return rank if rank > 1 and len(given[0].dims) == 2 else None
        if self.op == "Transpose":
            return rank if next(iter(attributes.get("perm", ())), None) == 0 else None
        if self.op == "Reshape":
            shape = _numbers(given[0])
            keeps = bool(shape) and shape[0] == 0 and not attributes.get("allowzero")
            return len(shape) if keeps else None
        if self.op == "Pad":
            pads = _numbers(given[0])
            whole = len(pads) == 2 * rank and len(given) < 3
            return rank if whole and pads[0] == pads[rank] == 0 else None
        return None

    def _rows_meet(self, rank: int) -> bool:
        """Say whether broadcasting leaves each row beside its own."""
        beside = (self._beside_rows(tensor.dims, rank) for tensor in self.given)
        return set(self.ranks) == {rank} and all(beside)

    @staticmethod
    def _beside_rows(shape: Any, rank: int) -> bool:
        """Say whether a constant of this shape is the same for all rows."""
        return len(shape) < rank or (len(shape) == rank and shape[0] == 1)

    def _axis(self, usual: int) -> bool:
        """Say whether the axis of the operator is another one than the rows'."""
        return self.attributes.get("axis", usual) not in (0, -self.ranks[0])

    def _reduced(self, rank: int) -> int | None:
        axes = list(self.attributes.get("axes", ()))
        if self.given:
            axes = _numbers(self.given[0])
        if not axes or {0, -rank} & set(axes):
            return None
        return rank if self.attributes.get("keepdims", 1) else rank - len(set(axes))


def _numbers(tensor: TensorProto) -> list[int]:
    if tensor.data_location == TensorProto.EXTERNAL:
        return []
    return [int(number) for number in np.ravel(numpy_helper.to_array(tensor))]
