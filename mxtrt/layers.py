"""How long each layer of an engine takes, under the names of MXNet's nodes.

Engines fuse operators and name what comes out as they like. A layer belongs to the nodes whose
names stand in its own. A node that no layer names was fused. ONNX Runtime calls what it fused by
the last node, so it belongs to the next one that is named, unless it is a pointwise one, such as an
activation, between a named node and one that is not pointwise: then it belongs to the one before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .graph import Node
    from .partition import Subgraph

REFORMATS = frozenset({"ReorderInput", "ReorderOutput", "Reformat", "NoOp", "MemcpyToHost",
                       "MemcpyFromHost"})  # fmt: skip
"""Types of layers that no operator of a model asks for: they change layouts and types."""

_SEPARATORS = re.compile(r"\s*\+\s*|\s*,\s*|\.\.\.|[\[\](){}\s]+")


@dataclass(frozen=True)
class LayerTime:
    """A layer of an engine.

    Attributes
    ----------
    name : str
        The engine's own name.
    kind : str
        The engine's name of its type, or ``""``.
    milliseconds : float
        How long it takes, the median.
    nodes : tuple of str
        MXNet's nodes that it computes; none for a change of layout.
    """

    name: str
    kind: str
    milliseconds: float
    nodes: tuple[str, ...] = field(default=())

    @property
    def is_reformat(self) -> bool:
        """Whether it only changes the layout or the type of numbers."""
        return self.kind in REFORMATS or bool(re.search(r"[Rr]eformat|CopyNode", self.name))


def with_nodes(part: Subgraph, layers: Sequence[LayerTime]) -> list[LayerTime]:
    """Return the layers of a part's engine with the names of its nodes."""
    names = {node.name for node in part.nodes}
    found = [tuple(_named(layer, names)) for layer in layers]
    fused = _fused_into(part, {name for named in found for name in named})
    order = {node.name: index for index, node in enumerate(part.nodes)}
    result = []
    for layer, named in zip(layers, found):
        members = {*named, *(n for name in named for n in fused.get(name, ()))}
        nodes = tuple(sorted(members, key=order.__getitem__))
        result.append(LayerTime(layer.name, layer.kind, layer.milliseconds, nodes))
    return result


def _named(layer: LayerTime, names: set[str]) -> Iterator[str]:
    """Yield the nodes whose names stand in a layer's name."""
    if layer.is_reformat:
        return
    seen = set()
    for token in _SEPARATORS.split(layer.name):
        name = _longest_prefix(token, names)
        if name is not None and name not in seen:
            seen.add(name)
            yield name


def _longest_prefix(token: str, names: set[str]) -> str | None:
    """Return the longest name with which a token begins, up to a mark such as ``/`` or ``_``."""
    end = len(token)
    while end:
        if token[:end] in names:
            return token[:end]
        end = max(token.rfind(mark, 0, end) for mark in "/_:")
        if end < 0:
            return None
    return None


def _fused_into(part: Subgraph, named: set[str]) -> Mapping[str, list[str]]:
    """Return for each node that a layer names the nodes that were fused with it."""
    producer = {value: node for node in part.nodes for value in node.outputs}
    readers: dict[Node, list[Node]] = {node: [] for node in part.nodes}
    for node in part.nodes:
        for value in node.inputs:
            if value in producer:
                readers[producer[value]].append(node)
    after: dict[Node, Node] = {}  # the next one that is named
    for node in reversed(part.nodes):
        following = (r if r.name in named else after.get(r) for r in readers[node])
        found = next((reader for reader in following if reader is not None), None)
        if found is not None:
            after[node] = found
    home: dict[Node, str] = {}
    for node in part.nodes:
        before = [home[producer[v]] for v in node.inputs if home.get(producer.get(v, node))]
        if node.name in named:
            home[node] = node.name
        elif node in after and not (before and _ends_at(node, after[node])):
            home[node] = after[node].name
        elif before:
            home[node] = before[0]
    fused: dict[str, list[str]] = {}
    for node, name in home.items():
        fused.setdefault(name, []).append(node.name)
    return fused


def _ends_at(node: Node, following: Node) -> bool:
    """Say whether a pointwise node is the last of what was fused, before one of another kind."""
    return _is_pointwise(node) and not _is_pointwise(following)


def _is_pointwise(node: Node) -> bool:
    has_weights = any(value.is_param and (value.rank or 0) > 1 for value in node.inputs)
    return (
        not has_weights and node.inputs[:1] != () and node.inputs[0].shape == node.outputs[0].shape
    )
