"""Comparisons of int64 that ONNX Runtime gets wrong, in operators that it gets right.

Where the upper halves of two int64 are equal, ONNX Runtime 1.21 to 1.31 compares the lower ones
with a sign: the maximum of 3,000,000,000 and 5 is 5. Less, Greater, ArgMax and TopK are right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx
from onnx import TensorProto, helper, inliner, parser, shape_inference

WRONG = frozenset({"Clip", "Max", "Min", "ReduceMax", "ReduceMin", "Sign"})
DOMAIN = "mxtrt.int64"

_FUNCTION = """
<domain: "mxtrt.int64", opset_import: ["" : 17]>
{name} {attributes} ({inputs}) => (y) {{
{body}
}}
"""
_SIGN = """
    zero = Constant <value_int = 0> ()
    is_positive = Greater (x, zero)
    is_negative = Less (x, zero)
    plus = Cast <to = 7> (is_positive)
    minus = Cast <to = 7> (is_negative)
    y = Sub (plus, minus)
"""
# Upper halves, and lower ones less 2**31, are numbers of 32 bits: those are compared right.
_REDUCTION = """
    half = Constant <value_int = 2147483648> ()
    whole = Constant <value_int = 4294967296> ()
    worst = Constant <value_int = {worst}> ()
    positive = Mod (x, whole)
    rest = Sub (x, positive)
    upper = Div (rest, whole)
    lower = Sub (positive, half)
    best = {op_type} <axes: ints = @axes, keepdims = 1> (upper)
    is_best = Equal (upper, best)
    candidates = Where (is_best, lower, worst)
    best_lower = {op_type} <axes: ints = @axes, keepdims: int = @keepdims> (candidates)
    best_upper = {op_type} <axes: ints = @axes, keepdims: int = @keepdims> (upper)
    scaled = Mul (best_upper, whole)
    shifted = Add (best_lower, half)
    y = Add (scaled, shifted)
"""


def with_right_int64(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model without the comparisons of int64 that ONNX Runtime 1.21 to 1.31 gets wrong.

    Parameters
    ----------
    proto : onnx.ModelProto
        Opset 17; its weights may be external data.

    Returns
    -------
    onnx.ModelProto
        The same function. A model without such a comparison comes back as it is.
    """
    if not any(node.op_type in WRONG for graph in graphs(proto.graph) for node in graph.node):
        return proto
    inferred = shape_inference.infer_shapes(proto)
    types = {name: kind for graph in graphs(inferred.graph) for name, kind in _types(graph)}
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    functions: dict[str, onnx.FunctionProto] = {}
    for graph in graphs(model.graph):
        for node in graph.node:
            if node.op_type in WRONG and types.get(node.input[0]) == TensorProto.INT64:
                function = _function(node)
                functions[function.name] = function
                _call(node, function)
    if not functions:
        return proto
    model.functions.extend(functions.values())
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return inliner.inline_local_functions(model)


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and all bodies of loops and branches in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)


def _types(graph: onnx.GraphProto) -> Iterator[tuple[str, int]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor.data_type
    for info in (*graph.input, *graph.value_info, *graph.output):
        yield info.name, info.type.tensor_type.elem_type


def _function(node: onnx.NodeProto) -> onnx.FunctionProto:
    """Return the function that says what a node means."""
    if node.op_type == "Sign":
        return _parsed("Sign", "", "x", _SIGN)
    if node.op_type.startswith("Reduce"):
        worst = -(2**31) if node.op_type == "ReduceMax" else 2**31 - 1
        body = _REDUCTION.format(op_type=node.op_type, worst=worst)
        return _parsed(node.op_type, "<axes, keepdims>", "x", body)
    if node.op_type == "Clip":
        given = zip(("Greater", "Less"), node.input[1:])
        return _choice([comparison for comparison, bound in given if bound])
    return _choice([{"Max": "Greater", "Min": "Less"}[node.op_type]] * (len(node.input) - 1))


def _choice(comparisons: Sequence[str]) -> onnx.FunctionProto:
    """Return a function that keeps its first input, or takes the next where that compares so."""
    body, held = [], "x0"
    for i, comparison in enumerate(comparisons, 1):
        body.append(f"    keep{i} = {comparison} ({held}, x{i})")
        body.append(f"    held{i} = Where (keep{i}, {held}, x{i})")
        held = f"held{i}"
    body.append(f"    y = Identity ({held})")
    inputs = ", ".join(f"x{i}" for i in range(len(comparisons) + 1))
    return _parsed("".join(comparisons) or "Identity", "", inputs, "\n".join(body))


def _parsed(name: str, attributes: str, inputs: str, body: str) -> onnx.FunctionProto:
    return parser.parse_function(
        _FUNCTION.format(name=name, attributes=attributes, inputs=inputs, body=body)
    )


def _call(node: onnx.NodeProto, function: onnx.FunctionProto) -> None:
    """Let a node call a function; inputs that it leaves out are none of the function's."""
    node.op_type, node.domain = function.name, DOMAIN
    given = [name for name in node.input if name]
    del node.input[:]
    node.input.extend(given)
    if function.attribute and not any(a.name == "keepdims" for a in node.attribute):
        node.attribute.append(helper.make_attribute("keepdims", 1))
