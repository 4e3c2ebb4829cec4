"""Symbols from JSON, as this version of MXNet writes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import mxnet as mx

MXNET_VERSION = ["int", 10901]  # without it MXNet takes the JSON for an old one and logs upgrades


def build_symbol(
    nodes: Iterable[Mapping[str, Any]], heads: Iterable[tuple[int, int]]
) -> mx.sym.Symbol:
    """Return the symbol with these nodes, each after what it reads, and these outputs.

    Parameters
    ----------
    nodes : iterable of mapping
        ``op`` (``"null"`` for a variable), ``name``, ``inputs`` as ``[node, output, 0]``, and
        optionally ``attrs`` and ``subgraphs``.
    heads : iterable of (int, int)
        The node and the output of each head.
    """
    nodes = list(nodes)
    return mx.sym.load_json(
        json.dumps(
            {
                "nodes": nodes,
                "arg_nodes": [i for i, node in enumerate(nodes) if node["op"] == "null"],
                "heads": [[node, output, 0] for node, output in heads],
                "attrs": {"mxnet_version": MXNET_VERSION},
            }
        )
    )
