"""Step 5: a partitioned graph becomes a symbol again.

This works on the symbol's JSON, because MXNet's own partitioner cannot drop inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Union

import mxnet as mx

from .graph import Graph, Node, Value
from .operator import ENGINE_OP
from .symbol_json import Entry, build_symbol

if TYPE_CHECKING:
    from .partition import Subgraph

HEADS_OP = "_mxtrt_heads"

Unit = Union[Node, "Subgraph"]
"""What becomes one node of the symbol: a node that stays, or a part."""


def write_symbol(graph: Graph, parts: Mapping[Subgraph, str]) -> mx.sym.Symbol:
    """Return the symbol in which each part is one ``_mxtrt_engine`` node.

    Parameters
    ----------
    graph : Graph
        The whole model.
    parts : mapping of Subgraph to str
        The parts and the keys under which their engines are registered.
    """
    symbol = _Writer(graph, parts).symbol()
    if tuple(symbol.list_outputs()) != graph.head_names:
        raise AssertionError(f"outputs {symbol.list_outputs()} for {graph.head_names}")
    return symbol


class _Writer:
    """One writing of a symbol's JSON."""

    def __init__(self, graph: Graph, parts: Mapping[Subgraph, str]) -> None:
        self.graph, self.parts = graph, parts
        self.part_of = {node: part for part in parts for node in part.nodes}
        self.nodes: list[dict[str, Any]] = []
        self.entries: dict[Value, Entry] = {}
        self.copies: dict[tuple[Value, str], Entry] = {}
        self.taken = {node.name for node in graph.nodes} | {v.name for v in graph.variables}

    def symbol(self) -> mx.sym.Symbol:
        for unit in self._in_order():
            if isinstance(unit, Node):
                self._write_node(unit)
            else:
                self._write_part(unit)
        heads = [self._head(v, name) for v, name in zip(self.graph.heads, self.graph.head_names)]
        return build_symbol(self.nodes, heads)

    def _in_order(self) -> Iterable[Unit]:
        """Yield left nodes and parts, each after what it reads."""
        done: set[Unit] = set()
        for node in self.graph.nodes:
            yield from self._with_needs(self._unit(node), done)

    def _with_needs(self, unit: Unit, done: set[Unit]) -> Iterable[Unit]:
        todo = [unit]
        while todo:
            current = todo[-1]
            needs = [need for need in self._needs(current) if need not in done]
            if current in done:
                todo.pop()
            elif needs:
                todo.extend(needs)
            else:
                todo.pop()
                done.add(current)
                yield current

    def _unit(self, node: Node) -> Unit:
        return self.part_of.get(node, node)

    def _needs(self, unit: Unit) -> list[Unit]:
        producer = self.graph.producer
        return [self._unit(producer[value]) for value in unit.inputs if value in producer]

    def _write_node(self, node: Node) -> None:
        # the third number counts writes to auxiliary states; it stays as it was
        versions = (read[2] if len(read) > 2 else 0 for read in node.source["inputs"])
        inputs = [[*self._entry(value), n] for value, n in zip(node.inputs, versions)]
        self._add({**node.source, "inputs": inputs}, node.outputs)

    def _write_part(self, part: Subgraph) -> None:
        attrs = {
            "key": self.parts[part],
            "num_inputs": str(len(part.inputs)),
            "num_outputs": str(len(part.outputs)),
        }
        inputs = [[*self._entry(value), 0] for value in part.inputs]
        node = {"op": ENGINE_OP, "name": self._part_name(part), "attrs": attrs, "inputs": inputs}
        self._add(node, part.outputs)

    def _add(self, node: dict[str, Any], outputs: Iterable[Value]) -> int:
        self.nodes.append(node)
        index = len(self.nodes) - 1
        for number, value in enumerate(outputs):
            self.entries[value] = (index, number)
        return index

    def _entry(self, value: Value) -> Entry:
        if value not in self.entries:  # a variable, written where it is first read
            attrs = dict(self.graph.variable_attrs[value])
            node = {"op": "null", "name": value.name, "inputs": []}
            self._add({**node, "attrs": attrs} if attrs else node, (value,))
        return self.entries[value]

    # -- names of the outputs ------------------------------------------------------------------

    def _part_name(self, part: Subgraph) -> str:
        """Return a name from which MXNet makes the heads' own names, if there is one."""
        names = dict(zip(self.graph.heads, self.graph.head_names))
        wanted = [names.get(value) for value in part.outputs]
        stem = (wanted[0] or "").rpartition("_output")[0]
        if stem and wanted == _output_names(stem, len(wanted)):
            return stem
        name, count = part.name, 1
        while name in self.taken:
            count += 1
            name = f"{part.name}_{count}"
        self.taken.add(name)
        return name

    def _head(self, value: Value, name: str) -> Entry:
        """Return an entry that holds `value` and has MXNet's own name for it."""
        index, number = self._entry(value)
        node = self.nodes[index]
        if node["op"] != ENGINE_OP:
            return index, number
        if _output_names(node["name"], int(node["attrs"]["num_outputs"]))[number] == name:
            return index, number
        if (value, name) not in self.copies:
            self.copies[value, name] = self._copy((index, number), name)
        return self.copies[value, name]

    def _copy(self, entry: Entry, name: str) -> Entry:
        """Add a node that hands `entry` through and whose output is called `name`."""
        stem, _, tail = name.rpartition("_output")
        if not tail:
            return self._add({"op": "_copy", "name": stem, "inputs": [[*entry, 0]]}, ()), 0
        number = int(tail)
        count = max(number + 1, 2)  # MXNet numbers the outputs of nodes that have several
        attrs = {"num": str(count)}
        copy = {"op": HEADS_OP, "name": stem, "attrs": attrs, "inputs": [[*entry, 0]] * count}
        return self._add(copy, ()), number


def _output_names(stem: str, count: int) -> list[str]:
    """Return the names that MXNet gives to the outputs of a node called `stem`."""
    return [f"{stem}_output{i if count > 1 else ''}" for i in range(count)]
