"""What ONNX Runtime gets wrong of integers, in operators that it gets right.

Where the upper halves of two int64 are equal, ONNX Runtime 1.21 to 1.31 compares the lower ones
with a sign: the maximum of 3,000,000,000 and 5 is 5. Less, Greater, ArgMax and TopK are right.

Since 1.26 it adds and multiplies along axes in float64: integers beyond 2**53 are rounded, and what
should wrap around stays at the largest number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import onnx
from onnx import TensorProto, helper, inliner, parser, shape_inference

from ..onnx_model import graphs

COMPARISONS = frozenset({"Clip", "Max", "Min", "ReduceMax", "ReduceMin", "Sign"})
SUMS = frozenset({"ReduceProd", "ReduceSum"})
INTEGERS = TensorProto.INT32, TensorProto.INT64
DOMAIN = "mxtrt.integers"

_FUNCTION = """
<domain: "mxtrt.integers", opset_import: ["" : 17]>
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
# A float64 holds the sums of a million halves, and int64 wraps around when it is put together.
_SUM = """
    half = Constant <value_int = 2147483648> ()
    whole = Constant <value_int = 4294967296> ()
    moved = Add (x, half)
    positive = Mod (moved, whole)
    lower = Sub (positive, half)
    rest = Sub (x, lower)
    upper = Div (rest, whole)
    lower_sum = ReduceSum <keepdims: int = @keepdims> ({inputs})
    upper_sum = ReduceSum <keepdims: int = @keepdims> ({upper_inputs})
    scaled = Mul (upper_sum, whole)
    y = Add (scaled, lower_sum)
"""
_SUM_OF_INT32 = """
    wide = Cast <to = 7> (x)
    total = ReduceSum <keepdims: int = @keepdims> ({inputs})
    y = Cast <to = 6> (total)
"""
_PRODUCT = """
    yes = Constant <value = bool {{1}}> ()
    wide = Cast <to = 7> (x)
    {start}
    {loops}
    {end}
    y = Cast <to = {kind}> (shaped)
"""
_PRODUCT_ALONG = """
    place{i} = Constant <value_int = {axis}> ()
    sizes{i} = Shape (x{i})
    size{i} = Gather (sizes{i}, place{i})
    axis{i} = Constant <value_ints = [{axis}]> ()
    sums{i} = ReduceSum <keepdims = 0> (x{i}, axis{i})
    ones{i} = Equal (sums{i}, sums{i})
    one{i} = Cast <to = 7> (ones{i})
    x{next} = Loop (size{i}, yes, one{i}) <
        body = multiply (int64 n, bool go, int64[] held{i}) => (bool go_on{i}, int64[] more{i}) {{
            go_on{i} = Identity (go)
            slice{i} = Gather <axis = {axis}> (x{i}, n)
            more{i} = Mul (held{i}, slice{i})
        }}
    >
"""


def with_right_integers(proto: onnx.ModelProto, wrong: Collection[str]) -> onnx.ModelProto:
    """Return a model without the operators on integers that ONNX Runtime gets wrong.

    Parameters
    ----------
    proto : onnx.ModelProto
        Opset 17; its weights may be external data.
    wrong : collection of str
        `COMPARISONS` of int64, `SUMS` of int32 and int64 along axes, or both.

    Returns
    -------
    onnx.ModelProto
        The same function. A model without such an operator comes back as it is.
    """
    if not any(node.op_type in wrong for graph in graphs(proto.graph) for node in graph.node):
        return proto
    inferred = shape_inference.infer_shapes(proto)
    types = {name: kind for graph in graphs(inferred.graph) for name, kind in _types(graph)}
    sizes = {name for graph in graphs(proto.graph) for name in _sizes(graph)}
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    functions: dict[str, onnx.FunctionProto] = {}
    for graph in graphs(model.graph):
        for node in graph.node:
            kind = types.get(node.input[0]) if node.op_type in wrong else None
            if node.op_type == "ReduceProd" and node.input[0] in sizes:
                continue  # memory has no room for as many elements
            if kind == TensorProto.INT64 or (kind in INTEGERS and node.op_type in SUMS):
                function = _function(node, kind)
                functions[function.name] = function
                _call(node, function)
    if not functions:
        return proto
    model.functions.extend(functions.values())
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return inliner.inline_local_functions(model)


def _types(graph: onnx.GraphProto) -> Iterator[tuple[str, int]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor.data_type
    for info in (*graph.input, *graph.value_info, *graph.output):
        yield info.name, info.type.tensor_type.elem_type


def _sizes(graph: onnx.GraphProto) -> set[str]:
    """Return the names of tensors that hold sizes of other tensors."""
    found: set[str] = set()
    for node in graph.node:
        if node.op_type == "Shape" or (
            node.op_type in {"Cast", "Gather", "Identity", "Slice"} and node.input[0] in found
        ):
            found.update(node.output)
    return found


def _function(node: onnx.NodeProto, kind: int) -> onnx.FunctionProto:
    """Return the function that says what a node on integers of a kind means."""
    if node.op_type == "Sign":
        return _parsed("Sign", "", "x", _SIGN)
    if node.op_type == "ReduceSum":
        axes = ", axes" if any(node.input[1:]) else ""
        if kind == TensorProto.INT64:
            body = _SUM.format(inputs=f"lower{axes}", upper_inputs=f"upper{axes}")
        else:
            body = _SUM_OF_INT32.format(inputs=f"wide{axes}")
        name = f"Sum{'Along' if axes else ''}{TensorProto.DataType.Name(kind)}"
        return _parsed(name, "<keepdims>", f"x{axes}", body)
    if node.op_type == "ReduceProd":
        return _product(node, kind)
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


def _product(node: onnx.NodeProto, kind: int) -> onnx.FunctionProto:
    """Return a function that multiplies along one axis after the other."""
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    axes, keepdims = given.get("axes"), given.get("keepdims", 1)
    start = "x0 = Identity (wide)"
    if axes is None:
        start = "all = Constant <value_ints = [-1]> () x0 = Reshape (wide, all)"
    # so that the numbers of the axes that are left stay as they are
    order = sorted(axes or [0], reverse=not axes or min(axes) >= 0)
    loops = [_PRODUCT_ALONG.format(i=i, next=i + 1, axis=axis) for i, axis in enumerate(order)]
    end = f"shaped = Identity (x{len(order)})"
    if keepdims:
        along = f"axes = Constant <value_ints = {list(axes)}> ()" if axes else ""
        of = "(wide, axes)" if axes else "(wide)"
        end = (
            f"{along} kept = ReduceSum {of} shape = Shape (kept) "
            f"shaped = Reshape <allowzero = 1> (x{len(order)}, shape)"
        )
    body = _PRODUCT.format(start=start, loops="".join(loops), end=end, kind=kind)
    name = "_".join(str(axis).replace("-", "m") for axis in order if axes)
    return _parsed(f"Product{kind}_{keepdims}_{name}", "", "x", body)


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
    attributes = [a for a in node.attribute if a.name in function.attribute]
    del node.attribute[:]
    node.attribute.extend(attributes)
    if "keepdims" in function.attribute and not any(a.name == "keepdims" for a in attributes):
        node.attribute.append(helper.make_attribute("keepdims", 1))
