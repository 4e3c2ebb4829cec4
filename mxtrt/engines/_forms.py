"""What NVIDIA's parser reads and computes otherwise than ONNX means, in operators it gets right.

Found in the sources of the parser of TensorRT 8.5; what is said of ``Mod`` was measured as well:

- ``Mod`` of integers is ``x - y * FLOOR_DIV(x, y)``, and that layer divides in float32: the rest is
  wrong from 2**24 on. ``Div``, ``Mul`` and ``Sub`` of int32 are exact, and ``Div`` truncates.
- ``ReduceLogSumExp`` is the ``Log`` of the sum of ``Exp``, without the largest number taken out:
  -inf below -103, inf above 88. ``LogSoftmax`` is the ``Log`` of a ``Softmax``: -inf below -103.
- ``CumSum`` starts from its first number times 0, and ``Trilu`` writes every number times 0: NaN
  where those are infinite.
- ``InstanceNormalization`` reads the memory of float16 scales as float32.
- Infinity, as a constant of one element, is 1e38 (measured; newer versions keep their forms, as
  they fuse what stands before a softmax).
- ``Shape`` always gives all sizes; ``Selu`` and ``RoiAlign`` have other defaults.
- ``ScatterElements`` and ``ScatterND`` put where they should add, before version 10. That has no
  other form. Neither have ``ArgMax`` and ``TopK``, which 8.5 refuses for integers and 8.6 casts.
- Sums, products, means and the largest of integers are computed in float32 (measured as well): that
  is exact below 2**24, so sizes and counts may be added. There is no other form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Callable

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper, shape_inference

from ..onnx_model import graphs
from ._replacement import Replacement, replace_nodes

Weights = Mapping[str, "np.ndarray[Any, Any]"]

INTEGERS = frozenset({TensorProto.INT32, TensorProto.INT64})
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})
SCATTERS = frozenset({"ScatterElements", "ScatterND"})
SEARCHES = frozenset({"ArgMax", "ArgMin", "TopK"})
REDUCTIONS = frozenset({
    "ReduceL1", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare",
})  # fmt: skip
TO_THE_END = 2**63 - 1

DEFAULTS: dict[str, dict[str, float]] = {
    "RoiAlign": {"sampling_ratio": 0},
    "Selu": {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875},
}


def with_right_forms(
    proto: onnx.ModelProto, weights: Weights, *, has_infinity: bool = False
) -> tuple[onnx.ModelProto, Weights, frozenset[str]]:
    """Return a model in which NVIDIA's parser takes every operator for what it means.

    Parameters
    ----------
    proto : onnx.ModelProto
        Opset 17; its weights are external data.
    weights : mapping of str to array
        The weights by name.
    has_infinity : bool
        Whether infinite constants are read right, as it is not in TensorRT 8.

    Returns
    -------
    model : onnx.ModelProto
        The same object when there is nothing to do.
    weights : mapping of str to array
        Those of the model.
    names : frozenset of str
        The nodes that stand for others; they lose too much in float16.
    """
    forms = _FORMS if has_infinity else {**_FORMS, **_WITHOUT_INFINITY}
    if not any(node.op_type in forms for graph in graphs(proto.graph) for node in graph.node):
        return proto, weights, frozenset()
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    types = _types(shape_inference.infer_shapes(proto))
    names: set[str] = set()
    known = dict(weights)
    for graph in list(graphs(model.graph)):
        kept: list[NodeProto] = []
        for node in graph.node:
            form = _Form(graph, node, types, known)
            write = forms.get(node.op_type)
            is_written = write is not None and write(form)
            kept.extend(form.nodes if is_written else [node])
            names.update(part.name for part in form.nodes if part.name != node.name)
        if any(node.op_type in forms for node in graph.node):
            replace_nodes(graph, kept)
    return model, known, frozenset(names)


def misread_nodes(proto: onnx.ModelProto) -> dict[str, str]:
    """Return the names of nodes that TensorRT 8 computes otherwise in any form, each with why."""
    nodes = [node for graph in graphs(proto.graph) for node in graph.node]
    found = {
        node.name: f"its {node.op_type} puts where this one is to {attribute.s.decode()}"
        for node in nodes
        if node.op_type in SCATTERS
        for attribute in node.attribute
        if attribute.name == "reduction" and attribute.s != b"none"
    }
    if not any(node.op_type in SEARCHES | REDUCTIONS for node in nodes):
        return found
    types = _types(shape_inference.infer_shapes(proto))
    counted = _sizes_and_truths(proto, nodes, types)
    for node in nodes:
        if types.get(node.input[0] if node.input else "") not in INTEGERS:
            continue
        if node.op_type in SEARCHES:
            found[node.name] = f"its {node.op_type} compares integers in float32"
        elif node.op_type in REDUCTIONS and node.input[0] not in counted:
            found[node.name] = f"its {node.op_type} computes integers in float32"
    return found


def _sizes_and_truths(
    proto: onnx.ModelProto, nodes: Iterable[NodeProto], types: Mapping[str, int]
) -> set[str]:
    """Return the names of truths as numbers, and of what is computed from sizes only."""
    constants = (tensor for graph in graphs(proto.graph) for tensor in graph.initializer)
    # weights are external data, and may be as large as they like
    sizes = {t.name for t in constants if t.data_location != TensorProto.EXTERNAL}
    truths: set[str] = set()
    for node in nodes:
        if node.op_type in {"Shape", "Size", "Constant"} or (
            node.input and sizes.issuperset(filter(None, node.input))
        ):
            sizes.update(node.output)
        elif node.op_type == "Cast" and types.get(node.input[0]) == TensorProto.BOOL:
            truths.update(node.output)
    return sizes | truths


def _types(proto: onnx.ModelProto) -> dict[str, int]:
    types: dict[str, int] = {}
    for graph in graphs(proto.graph):
        for info in (*graph.input, *graph.value_info, *graph.output):
            types[info.name] = info.type.tensor_type.elem_type
        types.update({tensor.name: tensor.data_type for tensor in graph.initializer})
    return types


class _Form(Replacement):
    """The nodes that take the place of one, with what is known of it."""

    def __init__(
        self,
        graph: onnx.GraphProto,
        node: NodeProto,
        types: Mapping[str, int],
        weights: dict[str, Any],
    ) -> None:
        super().__init__(graph, node, weights)
        self.attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self.kind = types.get(node.input[0], 0) if node.input else 0
        self._types = types

    def kind_of(self, name: str) -> int:
        return self._types.get(name, 0)

    def number(self, name: str) -> int | None:
        """Return the value of a constant; None where `name` is none."""
        tensor = self.tensor(name)
        return None if tensor is None else int(numpy_helper.to_array(tensor))

    def constant(self, value: Any, kind: int | None = None) -> str:
        """Return the name of a new constant, by default of the type that the node reads."""
        return self.array(
            value, helper.tensor_dtype_to_np_dtype(self.kind if kind is None else kind)
        )

    def ints(self, values: Any) -> str:
        return self.array(list(values), np.int64)

    def infinite(self, name: str) -> np.ndarray[Any, Any] | None:
        """Return a constant that is infinite everywhere; None where `name` is none."""
        tensor = self.tensor(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return None
        array = numpy_helper.to_array(tensor)
        is_float = tensor.data_type in FLOATS
        return array if is_float and array.size and np.isinf(array).all() else None


def _remainder(form: _Form) -> bool:
    """Write ``Mod`` of integers, of both kinds, without products beyond int32."""
    if form.kind not in INTEGERS:
        return False
    x, y = form.node.input
    rest = form.op("Sub", x, form.op("Mul", y, form.op("Div", x, y)))  # with the sign of x
    if not form.attrs.get("fmod", 0):
        # sizes of tensors are computed with these as well: TensorRT has no comparisons there
        signs = form.op("Mul", _sign(form, rest), _sign(form, y))
        form.op("Sub", rest, form.op("Mul", y, form.op("Min", signs, form.constant(0))))
    return form.result()


def _sign(form: _Form, x: str) -> str:
    return form.op("Max", form.op("Min", x, form.constant(1)), form.constant(-1))


def _log_sum_exp(form: _Form) -> bool:
    (x,) = form.node.input
    keepdims, axes = form.attrs.get("keepdims", 1), form.attrs.get("axes")
    limit = float(np.finfo(helper.tensor_dtype_to_np_dtype(form.kind)).max)
    largest = form.op("ReduceMax", x, axes=axes, keepdims=1)
    # of infinities nothing is left when they are taken from each other
    finite = form.op("Clip", largest, form.constant(-limit), form.constant(limit))
    along = [form.ints(axes)] if axes else []
    powers = form.op("Exp", form.op("Sub", x, finite))
    total = form.op("Log", form.op("ReduceSum", powers, *along, keepdims=keepdims))
    if not keepdims:
        finite = form.op("ReduceMax", finite, axes=axes, keepdims=0)
    form.op("Add", total, finite)
    return form.result()


def _log_softmax(form: _Form) -> bool:
    (x,) = form.node.input
    axis = form.attrs.get("axis", -1)
    below = form.op("Sub", x, form.op("ReduceMax", x, axes=[axis], keepdims=1))
    total = form.op("ReduceSum", form.op("Exp", below), form.ints([axis]), keepdims=1)
    form.op("Sub", below, form.op("Log", total))
    return form.result()


def _sums_so_far(form: _Form) -> bool:
    """Write ``CumSum`` of floats behind a 0 of its own."""
    x, place = form.node.input
    axis = form.number(place)
    if form.kind not in FLOATS or axis is None or any(form.attrs.values()):
        return False
    first, along = form.ints([1]), form.ints([axis])
    start = form.op("Slice", x, form.ints([0]), first, along)
    zeros = form.op("Cast", form.op("Less", start, start), to=form.kind)
    total = form.op("CumSum", form.op("Concat", zeros, x, axis=axis), place)
    form.op("Slice", total, first, form.ints([TO_THE_END]), along)
    return form.result()


def _triangle(form: _Form) -> bool:
    """Write ``Trilu`` of floats as a choice between them and 0."""
    if form.kind not in FLOATS:
        return False
    x, *diagonal = form.node.input
    anywhere = form.op("Not", form.op("Less", x, x))
    ones = form.op("Cast", anywhere, to=TensorProto.FLOAT)
    kept = form.op("Cast", form.op("Trilu", ones, *diagonal, **form.attrs), to=TensorProto.BOOL)
    form.op("Where", kept, x, form.constant(0))
    return form.result()


def _choice_of_infinity(form: _Form) -> bool:
    """Write ``Where`` with infinity as a division by 0."""
    condition, *options = form.node.input
    infinite = [form.infinite(name) for name in options]
    dtypes = [array.dtype for array in infinite if array is not None]
    if not dtypes:
        return False
    signs = [n if a is None else form.array(np.sign(a), a.dtype) for n, a in zip(options, infinite)]
    divisors = [form.array(1 if array is None else 0, dtypes[0]) for array in infinite]
    chosen = form.op("Where", condition, *signs)
    form.op("Div", chosen, form.op("Where", condition, *divisors))
    return form.result()


def _equal_to_infinity(form: _Form) -> bool:
    """Write ``Equal`` to infinity as what it is: half of it is as much, on its side of 0."""
    for name, other in zip(form.node.input, reversed(form.node.input)):
        infinity = form.infinite(name)
        if infinity is not None and len(np.unique(infinity)) == 1:
            half = form.op("Mul", other, form.array(np.full_like(infinity, 0.5), infinity.dtype))
            side = "Greater" if infinity.flat[0] > 0 else "Less"
            is_there = form.op(side, other, form.constant(0))
            form.op("And", form.op("Equal", half, other), is_there)
            return form.result()
    return False


def _less_than_infinity(form: _Form) -> bool:
    """Write ``Less`` than infinity: half of it is less, or it is less than 1."""
    x, limit = form.node.input
    infinity = form.infinite(limit)
    if infinity is None or not (infinity > 0).all():
        return False
    half = form.op("Mul", x, form.array(np.full_like(infinity, 0.5), infinity.dtype))
    form.op("Or", form.op("Less", half, x), form.op("Less", x, form.constant(1)))
    return form.result()


def _some_sizes(form: _Form) -> bool:
    first, last = form.attrs.get("start", 0), form.attrs.get("end", TO_THE_END)
    if (first, last) == (0, TO_THE_END):
        return False
    sizes = form.op("Shape", *form.node.input)
    form.op("Slice", sizes, form.ints([first]), form.ints([last]), form.ints([0]))
    return form.result()


def _spelt_out(form: _Form) -> bool:
    """Write ONNX's defaults down."""
    node = NodeProto()
    node.CopyFrom(form.node)
    for name, value in DEFAULTS[node.op_type].items():
        if name not in form.attrs:
            node.attribute.append(helper.make_attribute(name, value))
    form.nodes.append(node)
    return True


def _instance_normalization(form: _Form) -> bool:
    """Normalise float16 in float32, scale and bias too."""
    x, *parameters = form.node.input
    if TensorProto.FLOAT16 not in map(form.kind_of, parameters):
        return False
    scale, bias = map(form.in_float32, parameters)
    if scale is None or bias is None:
        return False  # the parser refuses what is no constant
    wide = form.op("Cast", x, to=TensorProto.FLOAT)
    made = form.op("InstanceNormalization", wide, scale, bias, **form.attrs)
    form.op("Cast", made, to=form.kind)
    return form.result()


_FORMS: dict[str, Callable[[_Form], bool]] = {
    "CumSum": _sums_so_far,
    "InstanceNormalization": _instance_normalization,
    "LogSoftmax": _log_softmax,
    "Mod": _remainder,
    "ReduceLogSumExp": _log_sum_exp,
    "RoiAlign": _spelt_out,
    "Selu": _spelt_out,
    "Shape": _some_sizes,
    "Trilu": _triangle,
}

_WITHOUT_INFINITY: dict[str, Callable[[_Form], bool]] = {
    "Equal": _equal_to_infinity,
    "Less": _less_than_infinity,
    "Where": _choice_of_infinity,
}
