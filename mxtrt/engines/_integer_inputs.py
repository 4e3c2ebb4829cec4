"""Word numbers, which MXNet holds as floats, for a TensorRT that may lower them.

Where a flag lowers the precision (TensorRT 8 to 10), a fused layer reads its inputs in float16,
whatever the precision of the cast inside it is, and float16 has no 30001. So the plan reads int32.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ..onnx_model import graphs, replace_name
from ._float32_nodes import INDICES, cast_type
from ._replacement import replace_nodes

COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})


def with_integer_inputs(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with int32 in place of float32 inputs that are cast to integers.

    These are the inputs that only such casts read, or they and comparisons: `data != 0` marks the
    words of a sentence. Who casts numbers to find rows by them has whole numbers.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model; its weights may be external data.

    Returns
    -------
    onnx.ModelProto
        The same object when there are no such inputs.
    """
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for graph in graphs(proto.graph):
        for node in graph.node:
            for name in set(node.input):
                readers[name].append(node)
        for info in graph.output:  # what is handed out, also of a loop's body, stays what it is
            readers[info.name].append(NodeProto())
    found = [
        info.name
        for info in proto.graph.input
        if info.type.tensor_type.elem_type == TensorProto.FLOAT
        and any(_is_cast(node) for node in readers[info.name])
        and all(_is_cast(node) or node.op_type in COMPARISONS for node in readers[info.name])
    ]
    if not found:
        return proto
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    for info in model.graph.input:
        if info.name in found:
            info.type.tensor_type.elem_type = TensorProto.INT32
    _compare_as_integers(model, set(found))
    return model


def _is_cast(node: NodeProto) -> bool:
    return cast_type(node) in INDICES


def _compare_as_integers(model: onnx.ModelProto, integers: set[str]) -> None:
    """Let comparisons of these inputs with whole constants be of int32, and others of floats."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    casts: dict[str, NodeProto] = {}
    for graph in graphs(model.graph):
        for node in graph.node:
            read = integers.intersection(node.input)
            others = [name for name in node.input if name not in read]
            if node.op_type not in COMPARISONS or not read or not others:
                continue
            whole = _as_int32(constants.get(others[0]))
            if whole is None:
                [name] = read
                made = f"{name}/float32"
                casts[made] = helper.make_node("Cast", [name], [made], name=made, to=1)
                replace_name(node.input, name, made)
                continue
            replace_name(node.input, others[0], whole.name)
            if whole.name not in constants:
                constants[whole.name] = whole
                model.graph.initializer.append(whole)
    replace_nodes(model.graph, [*casts.values(), *model.graph.node])


def _as_int32(tensor: TensorProto | None) -> TensorProto | None:
    """Return a constant of whole floats as int32; None for any other."""
    if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
        return None
    array = numpy_helper.to_array(tensor)
    if not np.array_equal(array, np.trunc(array)) or np.abs(array).max(initial=0) > 2**30:
        return None
    return numpy_helper.from_array(array.astype(np.int32), f"{tensor.name}/int32")
