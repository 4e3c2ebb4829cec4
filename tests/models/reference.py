"""What a model should compute where MXNet itself leaves it to chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mxnet as mx

from mxtrt.symbol_json import build_symbol, read_json


def reference(symbol: mx.sym.Symbol) -> mx.sym.Symbol:
    """Return the symbol with zeros where ROIAlign reads a region of image -1, which is none.

    MXNet on the CPU leaves in its place what the memory held before, and clears a number of the
    first region instead.
    """
    graph = read_json(symbol)
    nodes: list[dict[str, Any]] = []
    place: dict[int, int] = {}  # where a node's output stands now

    def add(op: str, name: str, *inputs: Sequence[int], **attrs: str) -> list[int]:
        nodes.append({"op": op, "name": name, "inputs": list(inputs), "attrs": attrs})
        return [len(nodes) - 1, 0, 0]

    for index, node in enumerate(graph["nodes"]):
        name, read = node["name"], [[place[i], *rest] for i, *rest in node["inputs"]]
        is_align = node["op"] == "_contrib_ROIAlign"
        if is_align:
            image = add("slice_axis", f"{name}_image", read[1], axis="1", begin="0", end="1")
            box = add("slice_axis", f"{name}_box", read[1], axis="1", begin="1", end="5")
            some = add("_maximum_scalar", f"{name}_some_image", image, scalar="0")
            read[1] = add("Concat", f"{name}_regions", some, box, dim="1", num_args="2")
        nodes.append({**node, "inputs": read})
        place[index] = len(nodes) - 1
        if is_align:
            output = [len(nodes) - 1, 0, 0]
            images = add("Reshape", f"{name}_images", image, shape="(-1,)")
            none = add("_lesser_scalar", f"{name}_none", images, scalar="0")
            zeros = add("zeros_like", f"{name}_zeros", output)
            place[index] = add("where", f"{name}_cleared", none, zeros, output)[0]
    if len(nodes) == len(graph["nodes"]):
        return symbol
    return build_symbol(nodes, [(place[head[0]], head[1]) for head in graph["heads"]])
