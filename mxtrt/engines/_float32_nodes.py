"""Which operators compute in float32, whatever the precision is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ..onnx_model import graphs

LARGE = frozenset(
    {"Cosh", "CumSum", "Exp", "GlobalLpPool", "GroupNormalization", "InstanceNormalization", "LRN",
     "LayerNormalization", "Log", "LogSoftmax", "LpNormalization", "LpPool", "Pow", "Reciprocal",
     "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceProd",
     "ReduceSum", "ReduceSumSquare", "Sinh", "Softplus", "Sqrt", "Tan"}
)  # fmt: skip
"""Operators whose results, or sums on the way to them, easily lie beyond 65504."""

GROWING = frozenset(
    {"Ceil", "CumSum", "Exp", "Floor", "Pow", "ReduceL1", "ReduceProd", "ReduceSum",
     "ReduceSumSquare", "Sqrt"}
)  # fmt: skip
"""Operators whose results are large, or places: what is made of these next is float32 as well."""

DECISIONS = frozenset(
    {"ArgMax", "ArgMin", "Ceil", "Equal", "Floor", "Greater", "GreaterOrEqual", "IsInf", "IsNaN",
     "Less", "LessOrEqual", "Mod", "NonMaxSuppression", "Sign", "TopK"}
)  # fmt: skip
"""Operators that make places or truths of numbers, as a `Cast` to integers does: word 30001 is not
word 30000, which is what float16 makes of it."""

MAGNIFIERS = frozenset({"Cos", "GridSample", "Log", "RoiAlign", "Sin", "Tan"})
"""Operators that make much of the last digits: those of an angle of many turns, of a place in a
map, of a chance that float16 takes for 0."""

ARITHMETIC = frozenset({"Add", "Div", "Mul", "Sub", "Sum"})

LIMITS = frozenset({"Clip", "Max", "Min"})

MOVES = ARITHMETIC | LIMITS | frozenset(
    {"Abs", "Ceil", "Concat", "Expand", "Flatten", "Floor", "Gather", "GatherElements", "GatherND",
     "Identity", "Mod", "Neg", "Pad", "ReduceMax", "ReduceMin", "Relu", "Reshape", "Round",
     "ScatterElements", "ScatterND", "Sign", "Slice", "Split", "Squeeze", "Tile", "Transpose",
     "Unsqueeze", "Where"}
)  # fmt: skip
"""Operators through which such numbers come from the inputs; others compute with weights."""

SCORES = frozenset({"MaxPool", "Sigmoid", "Softmax"})
"""Operators that make or choose the scores that decisions compare: float16 knows but 0.9995 and 1
there, and a score is no peak among others of another precision."""

POOLS = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"})

LARGEST_FLOAT16 = 65504.0

SMALLEST_FLOAT16 = 2.0**-14  # with all its digits

INDICES = (TensorProto.INT32, TensorProto.INT64)

INTEGERS = (*INDICES, TensorProto.BOOL, TensorProto.INT8, TensorProto.UINT8)


def float32_nodes(proto: onnx.ModelProto, decomposed_nodes: Iterable[str] = ()) -> frozenset[str]:
    """Return the names of the nodes that compute in float32, whatever the precision is."""
    flow = _Flow(proto)
    large = {node.name for node in flow.nodes if node.op_type in LARGE}
    return frozenset(large.union(decomposed_nodes, _deciding(flow), _growing(flow)))


class _Flow:
    """What comes from where in a model, the bodies of its loops and branches included.

    Attributes
    ----------
    nodes : list of NodeProto
        All nodes.
    makers : dict of str to NodeProto
        Who makes a tensor.
    readers : dict of str to list of NodeProto
        Who reads it.
    origins, copies : dict of str to list of str
        From which tensors loops and branches take theirs, and the other way round.
    constants : dict of str to array
        Those that are no weights.
    types : dict of str to int
        ONNX's element types.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        every = list(graphs(proto.graph))
        self.nodes = [node for graph in every for node in graph.node]
        self.makers = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[NodeProto]] = {}
        self.origins: dict[str, list[str]] = {}
        self.copies: dict[str, list[str]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
            for copy, origin in _carried(node):
                self.origins.setdefault(copy, []).append(origin)
                self.copies.setdefault(origin, []).append(copy)
        self.constants = {
            tensor.name: numpy_helper.to_array(tensor)
            for graph in every
            for tensor in graph.initializer
            if tensor.data_location != TensorProto.EXTERNAL
        }
        for node in self.nodes:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = _value(node)
        self.types = element_types(proto)

    def before(self, node: NodeProto) -> list[NodeProto]:
        """Return the nodes that make the numbers, or the places in a map, that a node reads."""
        read = node.input[1:2] if node.op_type in {"GridSample", "RoiAlign"} else node.input
        names = _closure(read, self.origins)
        return [self.makers[name] for name in names if name in self.makers]

    def is_whole(self, name: str) -> bool:
        """Say whether a tensor is computed of nothing but constants and integers."""
        left, seen = [name], set()
        while left:
            one = left.pop()
            if one in seen or one in self.constants:
                continue
            seen.add(one)
            maker = self.makers.get(one)
            if maker is None:
                return False
            if maker.op_type == "Cast" and self.types.get(maker.input[0]) in INTEGERS:
                continue
            if maker.op_type not in MOVES | {"MatMul", "ReduceSum"}:
                return False
            left.extend(filter(None, maker.input))
        return True


def _value(node: NodeProto) -> np.ndarray[Any, Any]:
    """Return the value of a `Constant`; nothing where it is no number."""
    value = helper.get_attribute_value(node.attribute[0])
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    if node.attribute[0].name in {"value_float", "value_floats"}:
        return np.asarray(value, np.float32)
    return np.asarray([])


def _carried(node: NodeProto) -> Iterator[tuple[str, str]]:
    """Yield the tensors of a loop or a branch, each with one that it is a copy of."""
    for body in (a.g for a in node.attribute if a.HasField("g")):
        reads, makes = [i.name for i in body.input], [o.name for o in body.output]
        given, states = list(node.input), len(node.output)
        if node.op_type == "Loop":  # its number and its condition go before
            reads, makes, given = reads[2:], makes[1:], given[2:]
            states = len(reads)
        elif node.op_type == "Scan":
            (count,) = (a.i for a in node.attribute if a.name == "num_scan_inputs")
            states = len(reads) - count
        yield from zip(reads, given)
        yield from zip(reads[:states], makes)
        yield from zip(node.output, makes)


def _closure(names: Iterable[str], steps: Mapping[str, Sequence[str]]) -> set[str]:
    """Return names and all that steps lead to from there."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left.extend(steps.get(name, ()))
    return found


def _deciding(flow: _Flow) -> set[str]:
    """Return the names of the nodes that make places or truths, and of what moves numbers there."""
    found: set[str] = set()
    left = [n for n in flow.nodes if n.op_type in DECISIONS | MAGNIFIERS or _rounds(n)]
    # what is divided by: of two products, such as areas of boxes, both may be too large
    ratios = [n for n in flow.nodes if n.op_type == "Div" and n.input[1] in flow.makers]
    divisors = [flow.makers[n.input[1]] for n in ratios]
    left.extend(n for n in divisors if n.op_type in MOVES)
    while left:
        node = left.pop()
        if node.name not in found:
            found.add(node.name)
            left.extend(n for n in flow.before(node) if n.op_type in MOVES | SCORES
                        or _is_known_product(flow, n))  # fmt: skip
    return found.union(n.name for n in ratios if flow.makers[n.input[1]].name in found)


def _is_known_product(flow: _Flow, node: NodeProto) -> bool:
    """Say whether a node multiplies by a grid, or whole numbers with the filter of an image."""
    if node.op_type != "MatMul":
        return False
    return any(n in flow.constants for n in node.input) or all(map(flow.is_whole, node.input))


def _growing(flow: _Flow) -> set[str]:
    """Return the names of the nodes that go on with numbers that float16 does not have.

    That is with large results, with places that were integers, and with constants beyond its ends,
    up to the next node that computes with weights. A constant that is only chosen, such as -1e18
    behind the end of a sentence, may as well be the largest that there is.
    """
    makers = [n for n in flow.nodes if _makes_large(flow, n)]
    makers.extend(_with_extreme_constants(flow))
    # the type of what a cast makes is its own affair
    found = {node.name for node in makers if node.op_type != "Cast"}
    left = [name for node in makers for name in node.output]
    done: set[str] = set()
    while left:
        name = left.pop()
        if name in done:
            continue
        done.add(name)
        left.extend(flow.copies.get(name, ()))
        for node in flow.readers.get(name, ()):
            if node.op_type in MOVES | POOLS | {"Softmax"}:
                found.add(node.name)
            divides = node.op_type == "Div" and name != node.input[0]
            if node.op_type in MOVES | POOLS and not divides:
                left.extend(node.output)
    return found


def _makes_large(flow: _Flow, node: NodeProto) -> bool:
    if node.op_type == "Cast":
        return flow.types.get(node.input[0]) in INDICES and cast_type(node) == TensorProto.FLOAT
    is_square = node.op_type == "Mul" and node.input[0] == node.input[1]
    return is_square or node.op_type in GROWING


def _with_extreme_constants(flow: _Flow) -> Iterator[NodeProto]:
    """Yield the nodes that compute with constants that float16 does not have."""
    floats = {n: np.abs(a) for n, a in flow.constants.items() if a.dtype == np.float32 and a.size}
    small = {n for n, a in floats.items() if a.size == 1 and 0 < a.max() < SMALLEST_FLOAT16}
    large = {n for n, a in floats.items() if LARGEST_FLOAT16 / 2 < a.max() < np.inf}
    left = list(large)
    while left:  # through what does not compute
        for node in flow.readers.get(left.pop(), ()):
            if node.op_type in MOVES - ARITHMETIC - LIMITS and node.output[0] not in large:
                large.add(node.output[0])
                left.append(node.output[0])
    for node in flow.nodes:
        read = set(node.input)
        if (node.op_type in ARITHMETIC and read & large) or (
            node.op_type in ARITHMETIC | LIMITS and read & small
        ):
            yield node


def cast_type(node: NodeProto) -> int | None:
    """Return the type that a cast makes; None for another node."""
    types = [a.i for a in node.attribute if a.name == "to" and node.op_type == "Cast"]
    return types[0] if types else None


def _rounds(node: NodeProto) -> bool:
    """Say whether a node is a cast to integers or truths."""
    to = cast_type(node)
    return to is not None and helper.tensor_dtype_to_np_dtype(to).kind in "biu"


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return ONNX's element type of every tensor, as far as ONNX infers it."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for info in (*graph.input, *graph.value_info, *graph.output):
        types[info.name] = info.type.tensor_type.elem_type
    return types
