"""Bodies of control flow in the place of its nodes: for inferring shapes only.

MXNet gives the outputs of ``_cond`` and ``_while_loop`` no shapes before they have run. The shapes
are those of a branch, or of one step, because MXNet asks the same of all branches and steps.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Entry = tuple[int, int]
"""A tensor in a symbol's JSON: the node's index and which of its outputs."""

Nodes = list[dict[str, Any]]


def inline_bodies(
    nodes: Iterable[Mapping[str, Any]], heads: Iterable[Entry]
) -> tuple[Nodes, list[Entry]]:
    """Return nodes and heads of the same shapes without ``_cond`` and ``_while_loop``."""
    written: Nodes = []
    return written, _write(written, nodes, heads, {})


def _write(
    written: Nodes,
    nodes: Iterable[Mapping[str, Any]],
    heads: Iterable[Sequence[int]],
    variables: Mapping[int, Entry],
) -> list[Entry]:
    """Append the nodes to `written` and return where their heads are."""
    place: dict[int, int | list[Entry]] = {i: [entry] for i, entry in variables.items()}

    def entry(read: Sequence[int]) -> Entry:
        found = place[read[0]]
        return (found, read[1]) if isinstance(found, int) else found[read[1]]

    for index, node in enumerate(nodes):
        if index in place:
            continue
        inputs = [entry(read) for read in node["inputs"]]
        if node["op"] == "_cond":
            place[index] = _body(written, node, 1, "then_input_locs", inputs)
        elif node["op"] == "_while_loop":
            made = _body(written, node, 1, "func_input_locs", inputs)
            count = int(node["attrs"]["num_out_data"])
            rows = [_rows(written, row, node["attrs"]["max_iterations"]) for row in made[:count]]
            place[index] = rows + made[count:]
        else:
            place[index] = _add(written, node, inputs)
    return [entry(head) for head in heads]


def _body(
    written: Nodes, node: Mapping[str, Any], number: int, locs: str, inputs: Sequence[Entry]
) -> list[Entry]:
    """Append a body and return where its heads are."""
    body = node["subgraphs"][number]
    read = [inputs[i] for i in ast.literal_eval(node["attrs"][locs])]
    return _write(written, body["nodes"], body["heads"], dict(zip(body["arg_nodes"], read)))


def _rows(written: Nodes, row: Entry, count: str) -> Entry:
    """Append what stacks a step's output `count` times."""
    one = {"op": "expand_dims", "name": "row", "attrs": {"axis": "0"}}
    all_of_them = {"op": "broadcast_axis", "name": "rows", "attrs": {"axis": "0", "size": count}}
    return _add(written, all_of_them, [(_add(written, one, [row]), 0)]), 0


def _add(written: Nodes, node: Mapping[str, Any], inputs: Sequence[Entry]) -> int:
    written.append({**node, "inputs": [[*entry, 0] for entry in inputs]})
    return len(written) - 1
