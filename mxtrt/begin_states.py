"""Begin states: ``zeros`` whose batch size MXNet infers backwards, from what reads them.

Recurrent layers and cells begin with ``zeros(shape=(0, 100))``; the 0 stands for a size that
only whole-graph inference finds. Engines know no such thing, and MXNet cannot look through an
engine. So before anything else the size is written down: as a number where the inputs' shapes are
known, else as a ``broadcast_like`` of the input that it follows.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import mxnet as mx

from .errors import ShapeNeeded
from .symbol_json import build_symbol, read_json

if TYPE_CHECKING:
    from .graph import Shape

FILLS = frozenset({"_zeros", "_ones", "_full"})
PROBE = 480  # times the axis plus 1: stands in for the unknown sizes of that axis
MAX_INPUTS = 5  # all sets of inputs are tried

Axis = tuple[str, int]
"""An input and one of its axes."""

Sizes = Mapping[Axis, int]


def with_sized_begin_states(
    symbol: mx.sym.Symbol, inputs: Mapping[str, Shape], params: Mapping[str, tuple[int, ...]]
) -> mx.sym.Symbol:
    """Return the symbol with every size of its begin states written down.

    Parameters
    ----------
    symbol : mxnet.sym.Symbol
        The model; returned as it is when it has no begin states.
    inputs : mapping of str to Shape
        What is known of the inputs' shapes.
    params : mapping of str to tuple of int
        Shapes of the parameters.

    Raises
    ------
    ShapeNeeded
        What is known of the inputs does not say the sizes.
    """
    if mx.util.is_np_shape():  # a 0 is a size there
        return symbol
    parsed = read_json(symbol)
    nodes: list[dict[str, Any]] = parsed["nodes"]
    open_axes = {i: axes for i, node in enumerate(nodes) if (axes := _open_axes(node))}
    if not open_axes:
        return symbol
    inference = _Inference(symbol, inputs, params)
    found = {
        index: {axis: inference.source(nodes[index]["name"], axis) for axis in axes}
        for index, axes in open_axes.items()
    }
    return _rewritten(nodes, parsed["heads"], found)


def _open_axes(node: Mapping[str, Any]) -> list[int]:
    if node["op"] not in FILLS:
        return []
    return [axis for axis, size in enumerate(_shape(node)) if size == 0]


def _shape(node: Mapping[str, Any]) -> tuple[int, ...]:
    shape = ast.literal_eval(node.get("attrs", {}).get("shape", "()"))
    return tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)


@dataclass(frozen=True)
class _Inference:
    """MXNet's inference over the whole symbol, with numbers in place of unknown sizes."""

    symbol: mx.sym.Symbol
    inputs: Mapping[str, Shape]
    params: Mapping[str, tuple[int, ...]]
    found: dict[frozenset[tuple[Axis, int]], dict[str, tuple[int, ...]]] = field(
        default_factory=dict
    )

    def source(self, name: str, axis: int) -> int | Axis:
        """Return the size of one axis of a begin state: a number, or the input's axis it is."""
        base = {open_: PROBE * (open_[1] + 1) for open_ in self._open_inputs()}
        size = self._size(name, axis, base)
        if size:
            for changed in _sets(base):
                other = self._size(name, axis, {**base, **changed})
                if other is not None and other != size:
                    tied = next(iter(changed))
                    if (size, other) == (base[tied], changed[tied]):
                        return tied
                    break
            else:
                return size
        needs = next((n for n in self._free() if None in (self.inputs.get(n) or (None,))), "data")
        raise ShapeNeeded(
            f"the begin state {name!r} has a size that follows from the inputs; pass "
            f"shapes={{{needs!r}: (…)}}"
        )

    def _free(self) -> list[str]:
        return [n for n in self.symbol.list_arguments() if n not in self.params]

    def _open_inputs(self) -> list[Axis]:
        return [
            (name, axis)
            for name in self._free()
            for axis, size in enumerate(self.inputs.get(name) or ())
            if size is None
        ]

    def _size(self, name: str, axis: int, sizes: Sizes) -> int | None:
        """Return a begin state's size, or None where the inputs' sizes contradict each other."""
        key = frozenset(sizes.items())
        if key not in self.found:
            shapes = {
                n: tuple(sizes.get((n, i), size) for i, size in enumerate(shape))
                for n, shape in self.inputs.items()
                if shape is not None
            }
            # a stand-in for an unknown size may contradict a weight that fixes it; the begin
            # states' sizes seldom need the weights
            self.found[key] = self._infer({**shapes, **self.params}) or self._infer(shapes)
        shape = self.found[key].get(f"{name}_output")
        return int(shape[axis]) if shape else None

    def _infer(self, known: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        internals = self.symbol.get_internals()
        try:
            _, shapes, _ = internals.infer_shape_partial(**known)
        except mx.base.MXNetError:
            return {}
        return dict(zip(internals.list_outputs(), shapes))


def _sets(base: Sizes) -> Iterator[dict[Axis, int]]:
    """Yield other numbers for ever larger sets of inputs that may have to agree on an axis.

    The smallest set that moves a size is exactly what the size is tied to.
    """
    for number in sorted({axis for _, axis in base}):
        same = [key for key in base if key[1] == number][:MAX_INPUTS]
        for count in range(1, len(same) + 1):
            for keys in combinations(same, count):
                yield {key: base[key] * 7 for key in keys}


def _rewritten(
    nodes: list[dict[str, Any]], heads: Any, found: Mapping[int, Mapping[int, int | Axis]]
) -> mx.sym.Symbol:
    """Return the symbol with the sizes in `found` written into its begin states."""
    variables = {node["name"]: i for i, node in enumerate(nodes) if node["op"] == "null"}
    written: list[dict[str, Any]] = []
    place: dict[int, int] = {}

    def write(node: Mapping[str, Any], inputs: list[list[int]]) -> int:
        written.append({**node, "inputs": inputs})
        return len(written) - 1

    def place_of(index: int) -> int:
        if index not in place:  # an input that stands behind the begin state
            place[index] = write(nodes[index], [])
        return place[index]

    for index, node in enumerate(nodes):
        if index not in found:
            inputs = [[place_of(read[0]), *read[1:]] for read in node["inputs"]]
            place[index] = write(node, inputs) if inputs else place_of(index)
            continue
        fill, *stretches = _sized(node, found[index])
        place[index] = write(fill, [])
        for stretch, name in stretches:
            like = place_of(variables[name])
            place[index] = write(stretch, [[place[index], 0, 0], [like, 0, 0]])
    return build_symbol(written, [(place[head[0]], head[1]) for head in heads])


def _sized(node: dict[str, Any], sources: Mapping[int, int | Axis]) -> list[Any]:
    """Return a begin state with known sizes, then what stretches it to the inputs' sizes."""
    shape = list(_shape(node))
    ties: list[tuple[int, Axis]] = []
    for axis, source in sources.items():
        shape[axis] = source if isinstance(source, int) else 1
        if not isinstance(source, int):
            ties.append((axis, source))
    names = [*(f"{node['name']}/axis{axis}" for axis, _ in ties), node["name"]]
    fill = {**node, "name": names[0], "attrs": {**node["attrs"], "shape": str(tuple(shape))}}
    stretches = [
        ({"op": "broadcast_like", "name": name, "attrs": _axes(axis, of)}, input_name)
        for name, (axis, (input_name, of)) in zip(names[1:], ties)
    ]
    return [fill, *stretches]


def _axes(axis: int, of: int) -> dict[str, str]:
    return {"lhs_axes": str((axis,)), "rhs_axes": str((of,))}
