"""Shapes and dtypes of every tensor, from MXNet's own inference, with sizes left open.

MXNet infers shapes only where every size is known; given a partly known shape its operators
raise, or compute with -1. So each node is inferred on its own, with different numbers in place of
the unknown sizes: a size that comes out the same every time is a constant, any other stays unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import mxnet as mx

from .graph import Shape
from .inline import inline_bodies
from .size_rules import shape_by_rule
from .symbol_json import build_symbol

Probe = tuple[int, int]
"""What stands in for unknown sizes: that of axis 0, and the step from axis to axis."""

PROBES: tuple[Probe, ...] = ((480, 0), (960, 0))
"""Divisible by 2 to the 5th, 3 and 5; 2048 * 960 * 960 fits 31 bits."""

LARGE_PROBES: tuple[Probe, ...] = ((7680, 0), (15360, 0))
"""Asked where MXNet refuses the others: ``slice_axis`` may cut at 1000."""

MORE_PROBES: tuple[Probe, ...] = ((1, 0), (96, 96), (960, -192))
"""Asked too, where MXNet takes them: ``slice`` cuts the ends that lie behind a small size, and
keeping the ratio of a square image looks like keeping its size."""

CUTTING = frozenset({"slice", "slice_axis", "_split_v2", "_npi_hsplit", "_npi_dsplit"})
"""Operators that cut an end of 1 off where there is nothing: asked with 0 in NumPy's shapes, which
other operators divide by."""

SAME_SHAPE = frozenset(
    {"Activation", "BatchNorm", "BlockGrad", "Cast", "Dropout", "LeakyReLU", "_copy", "clip",
     "_minus_scalar", "_mul_scalar", "_plus_scalar", "_div_scalar", "_rminus_scalar",
     "_rdiv_scalar", "_maximum_scalar", "_minimum_scalar", "_power_scalar", "amp_cast",
     "relu", "sigmoid", "tanh"}
)  # fmt: skip
"""Operators whose first input has their output's shape: ranks are traced back through them."""

NodeShapes = tuple[list[Shape], list[Shape]]


class NodeInference:
    """Infers single nodes, remembering what it inferred."""

    def __init__(self) -> None:
        self._known: dict[Any, NodeShapes | None] = {}

    def __call__(
        self, node: Mapping[str, Any], inputs: Sequence[Shape], is_param: Sequence[bool]
    ) -> NodeShapes | None:
        """Return the shapes of a node's inputs and outputs, or None where MXNet refuses.

        Parameters
        ----------
        node : mapping
            The node as it stands in the symbol's JSON.
        inputs : sequence of Shape
            What is known of its inputs.
        is_param : sequence of bool
            Which inputs are parameters: their shapes are left to MXNet when they do not fit
            the numbers that stand in for unknown sizes.
        """
        attrs = tuple(sorted(node.get("attrs", {}).items()))
        key = (
            node["op"],
            attrs,
            tuple(inputs),
            tuple(is_param),
            "subgraphs" in node and node["name"],
        )
        if key not in self._known:
            self._known[key] = self._infer(node, inputs, is_param)
        return self._known[key]

    def _infer(
        self, node: Mapping[str, Any], inputs: Sequence[Shape], is_param: Sequence[bool]
    ) -> NodeShapes | None:
        if all(shape is not None and None not in shape for shape in inputs):
            return infer_node(node, inputs)
        ruled = shape_by_rule(node["op"], node.get("attrs", {}), inputs)
        if node["op"] == "slice_like":  # the data may be smaller than any probe
            return list(inputs), [ruled]
        assumed = _stand_in(node, inputs)
        found = _probe(node, assumed, PROBES) or _probe(node, assumed, LARGE_PROBES)
        if ruled is not None and (found is None or found[1] == [None]):
            return list(inputs), [ruled]
        if found is None and any(is_param):
            found = _probe(node, [None if p else s for s, p in zip(assumed, is_param)], PROBES)
        if found is None and node["op"] == "_foreach":
            found = _with_any_batch(node, assumed, is_param)
        if found is not None and assumed is not inputs:
            found[0][0] = None
        return found


def _with_any_batch(
    node: Mapping[str, Any], inputs: Sequence[Shape], is_param: Sequence[bool]
) -> NodeShapes | None:
    """Infer as if begin states had any batch size: theirs is the data's, which no probe is."""
    sizes = [(None, *s[1:]) if s and not p else s for s, p in zip(inputs, is_param)]
    found = _probe(node, sizes, PROBES)
    return found and (list(inputs), found[1])


def infer_node(node: Mapping[str, Any], inputs: Sequence[Shape]) -> NodeShapes | None:
    """Return the shapes that MXNet infers for one node, or None where it refuses."""
    symbol = single_node_symbol(node, len(inputs))
    used = set(symbol.list_inputs())  # a branch may leave some out
    known = {f"x{i}": s for i, s in enumerate(inputs) if s is not None and f"x{i}" in used}
    try:
        args, outs, aux = symbol.infer_shape_partial(**known)
    except mx.base.MXNetError:
        return None
    names = [*symbol.list_arguments(), *symbol.list_auxiliary_states()]
    by_name = dict(zip(names, (*(args or ()), *(aux or ()))))
    read = [to_shape(by_name.get(f"x{i}", shape)) for i, shape in enumerate(inputs)]
    return read, [to_shape(shape) for shape in outs or ()]


def single_node_symbol(node: Mapping[str, Any], num_inputs: int) -> mx.sym.Symbol:
    """Return the symbol that is one node, reading variables ``x0``, ``x1``, … ."""
    variables = [{"op": "null", "name": f"x{i}", "inputs": []} for i in range(num_inputs)]
    alone = {**node, "inputs": [[i, 0, 0] for i in range(num_inputs)], "name": "node"}
    if node["op"] in {"_cond", "_while_loop"}:
        heads = [(num_inputs, i) for i in range(int(node["attrs"]["num_outputs"]))]
        return build_symbol(*inline_bodies([*variables, alone], heads))
    internals = build_symbol([*variables, alone], [(num_inputs, 0)]).get_internals()
    outputs = [i for i, name in enumerate(internals.list_outputs()) if name.startswith("node_")]
    return mx.sym.Group([internals[i] for i in outputs])


def to_shape(shape: Sequence[int] | None) -> Shape:
    """Return MXNet's shape with None for what it does not know, in either of its notations."""
    if shape is None:
        return None
    if mx.util.is_np_shape():
        return tuple(None if size < 0 else int(size) for size in shape)
    return tuple(int(size) or None for size in shape) or None


def _probe(
    node: Mapping[str, Any], inputs: Sequence[Shape], probes: tuple[Probe, ...]
) -> NodeShapes | None:
    found = [_infer_at(node, inputs, probe) for probe in probes]
    if None in found:
        return None
    cuts = mx.util.is_np_shape() and node["op"] in CUTTING
    probes = (*MORE_PROBES, (0, 0)) if cuts else MORE_PROBES
    more = (_infer_at(node, inputs, probe) for probe in probes)
    reads, makes = zip(*(shapes for shapes in (*found, *more) if shapes is not None))
    read = [
        known if known is not None else reduce(_agree, seen) for known, *seen in zip(inputs, *reads)
    ]
    return read, [reduce(_agree, seen) for seen in zip(*makes)]


def _infer_at(node: Mapping[str, Any], inputs: Sequence[Shape], probe: Probe) -> NodeShapes | None:
    """Infer with `probe` in place of unknown sizes, of those inputs too whose rank that shows."""
    found = infer_node(node, [_fill(shape, probe) for shape in inputs])
    if found is None or all(shape is not None and None not in shape for shape in found[0]):
        return found
    if None in found[0]:  # the outputs say only what MXNet made of the other inputs
        return found[0], [None] * len(found[1])
    return infer_node(node, [_fill(shape, probe) for shape in found[0]])


def _fill(shape: Shape, probe: Probe) -> Shape:
    if shape is None:
        return None
    first, step = probe
    return tuple(first + step * i if size is None else size for i, size in enumerate(shape))


def _agree(one: Shape, two: Shape) -> Shape:
    if one is None or two is None or len(one) != len(two):
        return None
    return tuple(a if a == b else None for a, b in zip(one, two))


def _stand_in(node: Mapping[str, Any], inputs: Sequence[Shape]) -> Sequence[Shape]:
    """Return the inputs with a shape for the first where only the weight's is known.

    A flattening FullyConnected takes any rank: two axes stand for whatever comes.
    """
    if not inputs or inputs[0] is not None or len(inputs) == 1 or inputs[1] is None:
        return inputs
    attrs, weight = node.get("attrs", {}), inputs[1]
    implied = implied_input_shape(node["op"], attrs, weight)
    flatten = attrs.get("flatten", "True").lower() in {"true", "1"}
    if node["op"] == "FullyConnected" and flatten:
        implied = (None, weight[1])
    return inputs if implied is None else [implied, *inputs[1:]]


def implied_input_shape(op: str, attrs: Mapping[str, str], weight: Shape) -> Shape:
    """Return the input shape that an operator's weight implies, or None.

    A convolution's weight ``(out, in / groups, *kernel)`` says the rank and the channels.
    """
    if weight is None or attrs.get("layout", "None") not in {"None", "NCW", "NCHW", "NCDHW"}:
        return None
    groups = int(attrs.get("num_group", "1"))
    spatial = (None,) * (len(weight) - 2)
    if op == "Convolution" and weight[1] is not None:
        return (None, weight[1] * groups, *spatial)
    if op == "Deconvolution":
        return (None, weight[0], *spatial)
    return None
