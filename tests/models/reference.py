"""What a model should compute where MXNet itself leaves it to chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mxnet as mx

from mxtrt.symbol_json import build_symbol, read_json


def reference(symbol: mx.sym.Symbol) -> mx.sym.Symbol:
    """Return the symbol with zeros in those outputs of ROIAlign that MXNet does not write.

    A region of image -1 is none. MXNet on the CPU leaves in its place what the memory held
    before, usually zeros, sometimes the activations of an earlier layer.
    """
    graph = read_json(symbol)
    nodes: list[dict[str, Any]] = []
    place: dict[int, int] = {}  # where a node's output stands now

    def add(op: str, name: str, inputs: Sequence[Sequence[int]], **attrs: str) -> list[int]:
        nodes.append({"op": op, "name": name, "inputs": inputs, "attrs": attrs})
        return [len(nodes) - 1, 0, 0]

    for index, node in enumerate(graph["nodes"]):
        read = [[place[i], *rest] for i, *rest in node["inputs"]]
        nodes.append({**node, "inputs": read})
        place[index] = len(nodes) - 1
        if node["op"] == "_contrib_ROIAlign":
            name, output = node["name"], [len(nodes) - 1, 0, 0]
            image = add("slice_axis", f"{name}_image", [read[1]], axis="1", begin="0", end="1")
            image = add("Reshape", f"{name}_images", [image], shape="(-1,)")
            nowhere = add("_lesser_scalar", f"{name}_nowhere", [image], scalar="0")
            zeros = add("zeros_like", f"{name}_zeros", [output])
            place[index] = add("where", f"{name}_cleared", [nowhere, zeros, output])[0]
    if len(nodes) == len(graph["nodes"]):
        return symbol
    return build_symbol(nodes, [(place[head[0]], head[1]) for head in graph["heads"]])
