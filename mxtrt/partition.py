"""Step 2: which nodes move into engines, as convex parts, and why the others stay.

A node is convertible when its converter, run alone into a scratch ONNX model, raises nothing, and
the engine has a kernel for what it made. Convertible nodes are merged greedily in topological
order; two parts are merged unless a path between them runs through something else, because the
merged part would then have to wait for its own output. An engine may still refuse a node where it
stands in its part; then that node stays, too, and the rest is merged anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import BadOption, UnsupportedOp, nearest
from .graph import Graph, Node, Value
from .onnx_model import export_onnx
from .registry import read_inputs
from .symbol_json import operator_names, primary_name

if TYPE_CHECKING:
    import onnx

    from .options import Options

Numbers = np.ndarray[Any, Any]
LATE_SHAPES = frozenset(
    {"_cond", "_while_loop", "_contrib_boolean_mask", "_npi_bincount", "_npi_delete",
     "_npi_unique", "_npx_nonzero"}
)  # fmt: skip
"""Operators whose outputs have no shape in MXNet before they have run."""

UNREAD = "only training reads its outputs"
"""The reason of nodes that compute labels: they are in neither a part nor the written symbol."""

Refusal = Callable[["onnx.ModelProto"], "str | None"]
"""An engine's answer to a scratch model: the reason why it cannot run it, or None."""

MAX_ROUNDS = 24  # of asking about whole parts: a parser may name one node at a time


@dataclass(frozen=True, eq=False)
class Subgraph:
    """A convex part of the graph.

    Attributes
    ----------
    name : str
        ``"mxtrt0"``, ``"mxtrt1"``, …
    nodes : tuple of Node
        In topological order.
    inputs : tuple of Value
        What the part reads at run time: no parameters.
    params : tuple of Value
        Parameters and auxiliary states that the part reads.
    outputs : tuple of Value
        What other nodes, or the heads of the model, read of it.
    """

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[Value, ...]
    params: tuple[Value, ...]
    outputs: tuple[Value, ...]


@dataclass(frozen=True, eq=False)
class Partition:
    """The parts, and the reason for every node that is in none."""

    parts: tuple[Subgraph, ...]
    left: Mapping[Node, str]

    def without(self, part: Subgraph, reason: str) -> Partition:
        """Return the partition in which the nodes of `part` stay in MXNet."""
        left = {**self.left, **dict.fromkeys(part.nodes, reason)}
        return Partition(tuple(p for p in self.parts if p is not part), left)


def partition(
    graph: Graph,
    options: Options,
    refusal: Refusal = lambda model: None,
    refused_in: Callable[[Subgraph], Mapping[Node, str]] = lambda part: {},
) -> Partition:
    """Split the graph into parts that an engine runs and nodes that stay in MXNet.

    Parameters
    ----------
    graph : Graph
        The whole model.
    options : Options
        ``min_subgraph_size``, ``exclude_ops`` and ``exclude_nodes`` are used.
    refusal : callable
        The engine's own limits, asked once for each node with a scratch model.
    refused_in : callable
        Asked about whole parts: the nodes that the engine refuses where they stand, with its
        reasons. They stay, and the graph is split again.

    Raises
    ------
    BadOption
        ``exclude_ops`` or ``exclude_nodes`` names something that the graph does not have.
    """
    reasons = _reasons(graph, options, refusal)
    plan = _split(graph, options, reasons)
    for _ in range(MAX_ROUNDS):
        refused = {n: reason for part in plan.parts for n, reason in refused_in(part).items()}
        if not refused:
            break
        reasons.update(refused)
        plan = _split(graph, options, reasons)
    return plan


def _split(graph: Graph, options: Options, reasons: Mapping[Node, str]) -> Partition:
    """Put the nodes without a reason to stay into parts."""
    left = dict(reasons)
    left.update(_behind_late_shapes(graph, left))
    left.update(_unread(graph, left))
    parts: list[Subgraph] = []
    for nodes in _merge(graph, left):
        part = _subgraph(graph, nodes, f"mxtrt{len(parts)}")
        reason = _too_little(part, options.min_subgraph_size)
        if reason is None:
            parts.append(part)
        else:
            left.update(dict.fromkeys(nodes, reason))
    return Partition(tuple(parts), {node: left[node] for node in graph.nodes if node in left})


def single(node: Node, name: str = "scratch") -> Subgraph:
    """Return the part that is one node, with all of its outputs."""
    read = dict.fromkeys(read_inputs(node))
    return Subgraph(
        name,
        (node,),
        tuple(v for v in read if not v.is_param),
        tuple(v for v in read if v.is_param),
        node.outputs,
    )


def _reasons(graph: Graph, options: Options, refusal: Refusal) -> dict[Node, str]:
    # a list of operators may serve many models, so it may name what this one does not have
    if options.exclude_ops:
        _check_names("exclude_ops", "MXNet", options.exclude_ops, operator_names())
    names = {node.name for node in graph.nodes}
    _check_names("exclude_nodes", "the model", options.exclude_nodes, names)
    excluded = {primary_name(op) for op in options.exclude_ops}
    unnameable = _unnameable_heads(graph)
    left: dict[Node, str] = {}
    known: dict[Value, Numbers] = {}
    for node in graph.nodes:
        if node.op in excluded:
            left[node] = f"exclude_ops names {node.op}"
        elif node.name in options.exclude_nodes:
            left[node] = f"exclude_nodes names {node.name}"
        elif node in unnameable:
            left[node] = unnameable[node]
        else:
            reason = _try(node, refusal, known)
            if reason is not None:
                left[node] = reason
    return left


def _check_names(option: str, where: str, given: Iterable[str], known: set[str]) -> None:
    for name in sorted(given):
        if name not in known:
            raise BadOption(f"{option}: {where} has no {name!r}{nearest(name, known)}")


def _unnameable_heads(graph: Graph) -> dict[Node, str]:
    """Return the nodes whose heads have names that no other node can have.

    MXNet makes an output's name from its node's name. ``fc_output``, ``split_output1`` and
    ``rnn_state_output`` can be had from a node of ours called ``fc``, ``split`` and
    ``rnn_state``; ``bn_mean`` cannot.
    """
    found: dict[Node, str] = {}
    for value, name in zip(graph.heads, graph.head_names):
        node = graph.producer.get(value)
        if node is None:
            continue
        stem, _, tail = name.rpartition("_output")
        if not stem or not (tail.isdigit() or tail == ""):
            found[node] = f"the model's output {name!r} has a name that only {node.op} can give"
    return found


def _try(node: Node, refusal: Refusal, known: dict[Value, Numbers]) -> str | None:
    """Convert one node alone; add what its converter makes constant to `known`."""
    try:
        proto, model = export_onnx(single(node), known)
    except UnsupportedOp as unsupported:
        return str(unsupported)
    for value in node.outputs:
        numbers = model.numbers(value)
        if numbers is not None:
            known[value] = numbers
    return refusal(proto)


def _unread(graph: Graph, left: Mapping[Node, str]) -> dict[Node, str]:
    """Return the nodes that compute nothing but the labels of training heads that move."""
    needed = set(graph.heads)
    found: dict[Node, str] = {}
    for node in reversed(graph.nodes):
        if needed.isdisjoint(node.outputs):
            found[node] = UNREAD
        else:
            needed.update(node.inputs if node in left else read_inputs(node))
    return found


def _behind_late_shapes(graph: Graph, left: Mapping[Node, str]) -> dict[Node, str]:
    """Return the nodes behind one that stays and whose shape MXNet learns by running it.

    MXNet infers shapes when it binds, and an engine's node without known inputs ends that.
    """
    late: dict[Value, Node] = {}
    found: dict[Node, str] = {}
    for node in graph.nodes:
        source = next((late[value] for value in node.inputs if value in late), None)
        if source is None and node in left and node.op in LATE_SHAPES:
            source = node
        if source is not None:
            late.update(dict.fromkeys(node.outputs, source))
            if node not in left:
                found[node] = f"reads what comes of {source}, whose shape is known once it has run"
    return found


def _merge(graph: Graph, left: Mapping[Node, str]) -> list[tuple[Node, ...]]:
    """Return the convertible nodes as sets that can each run in one go, in graph order."""
    groups = _Groups()
    number = {node: i for i, node in enumerate(graph.nodes)}
    convertible = [node not in left for node in graph.nodes]
    for i, node in enumerate(graph.nodes):
        reads = {number[graph.producer[v]]: None for v in node.inputs if v in graph.producer}
        groups.add(i, reads)
        if convertible[i]:
            for before in filter(convertible.__getitem__, reads):
                groups.merge(before, i)
    parts = [members for members in groups.members() if convertible[members[0]]]
    merged: list[int] = []
    for first, *_ in parts:
        if not any(groups.merge_independent(other, first) for other in merged):
            merged.append(first)
    parts = [members for members in groups.members() if convertible[members[0]]]
    return [tuple(graph.nodes[i] for i in members) for members in parts]


class _Groups:
    """Disjoint sets of nodes, numbered in topological order, whose quotient has no cycle.

    For each set the sets that it needs, directly or not, are kept as the bits of an integer.
    """

    def __init__(self) -> None:
        self._root: list[int] = []
        self._members: dict[int, list[int]] = {}
        self._reads: dict[int, set[int]] = {}
        self._needs: dict[int, int] = {}

    def add(self, node: int, reads: Iterable[int]) -> None:
        """Add a node, after all that it reads, as a set of its own."""
        self._root.append(node)
        self._members[node] = [node]
        self._reads[node] = {self._find(before) for before in reads}
        self._needs[node] = 0
        for before in self._reads[node]:
            self._needs[node] |= self._needs[before] | 1 << before

    def members(self) -> list[list[int]]:
        """Return the sets, each in topological order, by their first members."""
        return sorted(sorted(members) for members in self._members.values())

    def merge(self, a: int, b: int) -> bool:
        """Merge the sets of two nodes unless that closes a cycle; return whether it did."""
        one, two = self._find(a), self._find(b)
        if one == two:
            return True
        if self._leads_around(one, two) or self._leads_around(two, one):
            return False
        self._unite(one, two)
        return True

    def merge_independent(self, a: int, b: int) -> bool:
        """Merge the sets of two nodes if neither needs the other; return whether it did."""
        one, two = self._find(a), self._find(b)
        if self._needs[one] >> two & 1 or self._needs[two] >> one & 1:
            return False
        self._unite(one, two)
        return True

    def _leads_around(self, start: int, end: int) -> bool:
        """Say whether `end` needs `start` through a third set."""
        reads = {self._find(before) for before in self._reads[end]} - {end}
        self._reads[end] = reads
        return any(self._needs[before] >> start & 1 for before in reads - {start})

    def _unite(self, one: int, two: int) -> None:
        both = 1 << one | 1 << two
        needs = (self._needs[one] | self._needs[two]) & ~both
        grown = needs != self._needs[one] & ~both
        self._root[two] = one
        self._members[one] += self._members.pop(two)
        self._reads[one] |= self._reads.pop(two)
        self._needs[one] = needs
        needed = any(bits >> two & 1 for bits in self._needs.values())
        del self._needs[two]
        if grown or needed:
            for other, bits in self._needs.items():
                if bits & both:
                    self._needs[other] = bits | both | needs

    def _find(self, node: int) -> int:
        while self._root[node] != node:
            self._root[node] = self._root[self._root[node]]
            node = self._root[node]
        return node


def _subgraph(graph: Graph, nodes: tuple[Node, ...], name: str) -> Subgraph:
    inside = set(nodes)
    made = {value for node in nodes for value in node.outputs}
    read = dict.fromkeys(v for node in nodes for v in read_inputs(node) if v not in made)
    heads = set(graph.heads)
    outputs = [
        value
        for node in nodes
        for value in node.outputs
        if value in heads or any(c not in inside for c in graph.consumers.get(value, ()))
    ]
    order = {value: i for i, value in enumerate(graph.variables)}
    inputs = sorted((v for v in read if not v.is_param), key=lambda v: order.get(v, len(order)))
    params = tuple(v for v in read if v.is_param)
    return Subgraph(name, nodes, tuple(inputs), params, tuple(outputs))


def _too_little(part: Subgraph, min_subgraph_size: int) -> str | None:
    if not part.inputs:
        return "reads no input of the model; MXNet computes it"
    if not part.outputs:
        return "nothing reads its outputs"
    if len(part.nodes) < min_subgraph_size:
        count = len(part.nodes)
        return (
            f"its part would have {count} node{'s' if count > 1 else ''}, "
            f"fewer than min_subgraph_size={min_subgraph_size}"
        )
    return None
