"""float16 and bfloat16: which operators stay in float32, and networks that say so themselves.

TensorRT 8.5 to 10 lower the precision by a flag; newer ones, and TensorRT-RTX, compute in the types
that stand in the network (`strongly_typed`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ..onnx_model import graphs, reads

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

FLOAT32_ONLY = frozenset(
    {"ArgMax", "ArgMin", "Cast", "Constant", "ConstantOfShape", "DequantizeLinear", "EyeLike",
     "Multinomial", "NonMaxSuppression", "QuantizeLinear", "RandomNormal", "RandomNormalLike",
     "RandomUniform", "RandomUniformLike", "Range", "Resize", "TopK"}
)  # fmt: skip
"""Operators of which ONNX wants float32, or whose results are places and not numbers."""

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

WITHOUT_BFLOAT16 = frozenset({"ConvTranspose"})
"""Operators that NVIDIA's builders have no bfloat16 for, as TensorRT-RTX 1.7 says."""

LOW_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}

LARGEST_FLOAT16 = 65504.0

SMALLEST_FLOAT16 = 2.0**-14  # with all its digits

LARGEST_BFLOAT16 = 0x7F7F  # its bits

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
        self.types = _element_types(proto)

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
        return flow.types.get(node.input[0]) in INDICES and _to(node) == TensorProto.FLOAT
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


def with_integer_inputs(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with int32 in place of float32 inputs that nodes only cast to integers.

    Word numbers, say. Where a flag lowers the precision, TensorRT's fused layers read such inputs
    in float16, whatever the precision of the cast is. The same object when there are none.
    """
    nodes = [node for graph in graphs(proto.graph) for node in graph.node]
    cast = {name for node in nodes if _to(node) in INDICES for name in node.input}
    others = {name for node in nodes if _to(node) not in INDICES for name in node.input}
    others.update(info.name for info in proto.graph.output)
    found = [
        index
        for index, info in enumerate(proto.graph.input)
        if info.name in cast - others and info.type.tensor_type.elem_type == TensorProto.FLOAT
    ]
    if not found:
        return proto
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    for index in found:
        model.graph.input[index].type.tensor_type.elem_type = TensorProto.INT32
    return model


def _to(node: NodeProto) -> int | None:
    """Return the type that a cast makes."""
    types = [a.i for a in node.attribute if a.name == "to" and node.op_type == "Cast"]
    return types[0] if types else None


def _rounds(node: NodeProto) -> bool:
    """Say whether a node is a cast to integers or truths."""
    to = _to(node)
    return to is not None and helper.tensor_dtype_to_np_dtype(to).kind in "biu"


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
    dtype = _element_types(model).get(node.input[0], TensorProto.FLOAT)
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


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return ONNX's element type of every tensor, as far as ONNX infers it."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for info in (*graph.input, *graph.value_info, *graph.output):
        types[info.name] = info.type.tensor_type.elem_type
    return types


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
        self.floats = {n for n, t in _element_types(proto).items() if t == TensorProto.FLOAT}
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
