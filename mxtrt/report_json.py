"""Reports as JSON that can be read back, with the graph and its parts: for files of engines.

`Report.to_dict` is for people's own programs; what stands here is all that a part's shapes are
inferred from, and all that the report shows. It holds no arrays.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .graph import Graph, Node, Value
from .options import Options, read_options
from .partition import Partition, Subgraph
from .reports import Report

log = logging.getLogger("mxtrt")

OF_THE_MACHINE = (
    "cache_dir", "cache_size", "timing_cache", "device", "workspace", "progress",
)  # fmt: skip
"""Options that say something about one machine: files do not take them to another."""


class _Numbers:
    """Numbers for values."""

    def __init__(self) -> None:
        self.values: dict[Value, int] = {}

    def __call__(self, values: Iterable[Value]) -> list[int]:
        return [self.values.setdefault(value, len(self.values)) for value in values]


def write_report(report: Report) -> dict[str, Any]:
    """Return a report as JSON has it."""
    graph, numbers = report.graph, _Numbers()
    places = {node: index for index, node in enumerate(graph.nodes)}
    written = {
        "variables": numbers(graph.variables),
        "variable_attrs": [dict(graph.variable_attrs[value]) for value in graph.variables],
        "nodes": [
            {
                "source": dict(node.source),
                "inputs": numbers(node.inputs),
                "outputs": numbers(node.outputs),
            }
            for node in graph.nodes
        ],
        "heads": numbers(graph.heads),
        "head_names": list(graph.head_names),
        "parts": [
            {
                "name": part.name,
                "nodes": [places[node] for node in part.nodes],
                **{name: numbers(getattr(part, name)) for name in ("inputs", "params", "outputs")},
            }
            for part in report.parts
        ],
        "left": [[places[node], reason] for node, reason in report.left.items()],
        "options": _portable(report.options),
        "engine": report.engine,
    }
    written["values"] = [[v.name, v.shape, v.dtype, v.is_param] for v in numbers.values]
    return written


def read_report(written: Mapping[str, Any]) -> Report:
    """Return the report that `write_report` wrote."""
    values = [
        Value(name, None if shape is None else tuple(shape), dtype, is_param)
        for name, shape, dtype, is_param in written["values"]
    ]

    def some(numbers: Sequence[int]) -> tuple[Value, ...]:
        return tuple(values[number] for number in numbers)

    nodes = tuple(
        _node(node["source"], some(node["inputs"]), some(node["outputs"]))
        for node in written["nodes"]
    )
    variables = some(written["variables"])
    parts = tuple(
        Subgraph(
            part["name"],
            tuple(nodes[index] for index in part["nodes"]),
            *(some(part[name]) for name in ("inputs", "params", "outputs")),
        )
        for part in written["parts"]
    )
    attrs = dict(zip(variables, written["variable_attrs"]))
    heads, names = some(written["heads"]), tuple(written["head_names"])
    left = {nodes[index]: reason for index, reason in written["left"]}
    return Report(
        Graph(variables, nodes, heads, names, attrs),
        Partition(parts, left),
        read_options(**written["options"]),
        written["engine"],
    )


def _node(source: dict[str, Any], inputs: tuple[Value, ...], outputs: tuple[Value, ...]) -> Node:
    attrs = {k: v for k, v in source.get("attrs", {}).items() if not k.startswith("__")}
    return Node(source["op"], source["name"], attrs, inputs, outputs, source)


def _portable(options: Options) -> dict[str, Any]:
    written = {name: v for name, v in asdict(options).items() if name not in OF_THE_MACHINE}
    for name in ("exclude_ops", "exclude_nodes"):
        written[name] = sorted(written[name])
    plain = {n: v for n, v in options.session_options.items() if isinstance(v, (bool, int, str))}
    for name in options.session_options.keys() - plain.keys():
        log.warning("session_options: %s is not kept in the file; pass it to mxtrt.load", name)
    return {**written, "session_options": plain}
