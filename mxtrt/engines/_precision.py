"""float16 and bfloat16: networks that say themselves what they compute in, and their weights.

TensorRT 8.5 to 10 lower the precision by a flag; newer ones, and TensorRT-RTX, compute in the types
that stand in the network (`strongly_typed`). Which operators stay in float32 says
``_float32_nodes.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ..onnx_model import reads
from ._float32_nodes import LARGE, LARGEST_FLOAT16, element_types

FLOAT32_ONLY = frozenset(
    {"ArgMax", "ArgMin", "Cast", "Constant", "ConstantOfShape", "DequantizeLinear", "EyeLike",
     "Multinomial", "NonMaxSuppression", "QuantizeLinear", "RandomNormal", "RandomNormalLike",
     "RandomUniform", "RandomUniformLike", "Range", "Resize", "TopK"}
)  # fmt: skip
"""Operators of which ONNX wants float32, or whose results are places and not numbers."""

WITHOUT_BFLOAT16 = frozenset({"ConvTranspose"})
"""Operators that NVIDIA's builders have no bfloat16 for, as TensorRT-RTX 1.7 says."""

LOW_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}

LARGEST_BFLOAT16 = 0x7F7F  # its bits


# -- operators that older parsers do not read --------------------------------------------------


def decomposed(
    proto: onnx.ModelProto, supports: Callable[[str], bool]
) -> tuple[onnx.ModelProto, frozenset[str]]:
    """Return the model without operators that the parser lacks, where others can say the same.

    Returns
    -------
    model : onnx.ModelProto
        The same object when there is nothing to do.
    names : frozenset of str
        The nodes that stand for a normalisation.
    """
    kinds = {node.op_type for node in proto.graph.node}
    if "LayerNormalization" not in kinds or supports("LayerNormalization"):
        return proto, frozenset()
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    del model.graph.node[:]
    names: set[str] = set()
    for node in proto.graph.node:
        if node.op_type != "LayerNormalization" or len(node.output) > 1:
            model.graph.node.append(node)
            continue
        parts = _layer_normalization(model, node)
        names.update(part.name for part in parts)
        model.graph.node.extend(parts)
    return model, frozenset(names)


def _layer_normalization(model: onnx.ModelProto, node: NodeProto) -> list[NodeProto]:
    attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    axis = attrs.get("axis", -1)
    if axis >= 0:
        return [node]  # which axes these are needs the rank
    axes = list(range(axis, 0))
    dtype = element_types(model).get(node.input[0], TensorProto.FLOAT)
    eps, two = f"{node.name}/epsilon", f"{node.name}/two"
    numpy_type = helper.tensor_dtype_to_np_dtype(dtype)
    for name, number in ((eps, attrs.get("epsilon", 1e-5)), (two, 2.0)):
        array = np.asarray(number, numpy_type)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    made: list[NodeProto] = []

    def op(op_type: str, *inputs: str, **given: Any) -> str:
        name = f"{node.name}/{op_type}{len(made)}"
        made.append(helper.make_node(op_type, inputs, [name], name=name, **given))
        return name

    mean = op("ReduceMean", node.input[0], axes=axes, keepdims=1)
    centred = op("Sub", node.input[0], mean)
    variance = op("ReduceMean", op("Pow", centred, two), axes=axes, keepdims=1)
    result = op("Div", centred, op("Sqrt", op("Add", variance, eps)))
    for index, op_type in ((1, "Mul"), (2, "Add")):
        if len(node.input) > index and node.input[index]:
            result = op(op_type, result, node.input[index])
    made[-1].output[0] = node.output[0]
    return made


# -- networks that carry their precision -------------------------------------------------------


def strongly_typed(
    proto: onnx.ModelProto,
    weights: Mapping[str, Any],
    precision: str,
    float32: Collection[str] = (),
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Return a model that computes in `precision`, with the inputs and outputs it had.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model; its weights are external data.
    weights : mapping of str to array
        The weights by name.
    precision : {"fp16", "bf16"}
        What to compute in, except for operators in `LARGE` and `FLOAT32_ONLY`, and the bodies of
        loops and branches.
    float32 : collection of str
        More nodes that are excepted, by their names.

    Returns
    -------
    model : onnx.ModelProto
        A new model.
    weights : dict of str to array
        The weights that it reads; bfloat16 ones as 16-bit integers of the same bits.
    """
    return _Lowering(proto, weights, precision, float32).run()


class _Lowering:
    """Every float32 tensor has two names: its own, and one in the lower precision."""

    def __init__(
        self,
        proto: onnx.ModelProto,
        weights: Mapping[str, Any],
        precision: str,
        float32: Collection[str],
    ) -> None:
        self.proto, self.precision, self.type = proto, precision, LOW_TYPES[precision]
        self.float32 = float32
        self.kinds = LARGE | FLOAT32_ONLY
        if precision == "bf16":
            self.kinds |= WITHOUT_BFLOAT16
        self.weights = dict(weights)
        self.model = onnx.ModelProto()
        self.model.CopyFrom(proto)
        del self.model.graph.node[:]
        self.initializers = {tensor.name: tensor for tensor in proto.graph.initializer}
        self.floats = {n for n, t in element_types(proto).items() if t == TensorProto.FLOAT}
        self.made: set[str] = {info.name for info in proto.graph.input}
        self.made.update(self.initializers)

    def run(self) -> tuple[onnx.ModelProto, dict[str, Any]]:
        for node in self.proto.graph.node:
            self._add(node)
        for info in self.proto.graph.output:
            self._full(info.name)
        used = {name for node in self.model.graph.node for name in reads(node)}
        used.update(info.name for info in self.model.graph.output)
        kept = [t for t in self.model.graph.initializer if t.name in used]
        del self.model.graph.initializer[:]
        self.model.graph.initializer.extend(kept)
        return self.model, {n: a for n, a in self.weights.items() if n in used}

    def _add(self, node: NodeProto) -> None:
        copy = NodeProto()
        copy.CopyFrom(node)
        has_body = any(a.HasField("g") for a in node.attribute)
        stays = has_body or node.op_type in self.kinds or node.name in self.float32
        for name in sorted(reads(node).difference(node.input) & self.floats):
            self._full(name)
        for index, name in enumerate(node.input):
            if name in self.floats:
                # the statistics of a BatchNormalization are small numbers: float32 for them
                full = stays or (node.op_type == "BatchNormalization" and index > 0)
                copy.input[index] = self._full(name) if full else self._low(name)
        for index, name in enumerate(node.output):
            if name in self.floats and not stays:
                copy.output[index] = self._low_name(name)
            self.made.add(copy.output[index])
        self.model.graph.node.append(copy)

    def _low_name(self, name: str) -> str:
        return f"{name}/{self.precision}"

    def _full(self, name: str) -> str:
        if name not in self.made:
            self._cast(self._low_name(name), name, TensorProto.FLOAT)
        return name

    def _low(self, name: str) -> str:
        low = self._low_name(name)
        if low not in self.made:
            if name in self.initializers:
                self._lower_initializer(name, low)
            else:
                self._cast(name, low, self.type)
        return low

    def _cast(self, source: str, target: str, to: int) -> None:
        label = f"{target}/Cast"
        self.model.graph.node.append(
            helper.make_node("Cast", [source], [target], name=label, to=to)
        )
        self.made.add(target)

    def _lower_initializer(self, name: str, low: str) -> None:
        tensor = TensorProto()
        tensor.CopyFrom(self.initializers[name])
        tensor.name, tensor.data_type = low, self.type
        if name in self.weights:
            self.weights[low] = _lowered(self.weights[name], self.precision)
        else:
            tensor.ClearField("float_data")
            array = numpy_helper.to_array(self.initializers[name])
            tensor.raw_data = _lowered(array, self.precision).tobytes()
        self.model.graph.initializer.append(tensor)
        self.made.add(low)


def _lowered(array: Any, precision: str) -> Any:
    """Return an array in the lower precision; numbers that are too large become the largest."""
    if precision == "fp16":
        return np.clip(array, -LARGEST_FLOAT16, LARGEST_FLOAT16).astype(np.float16)
    largest = np.uint32(LARGEST_BFLOAT16 << 16).view(np.float32)
    bits = np.clip(np.asarray(array, np.float32), -largest, largest).view(np.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return (rounded >> 16).astype(np.uint16).reshape(np.shape(array))
