"""Symbols from JSON, and the names of operators, as this version of MXNet writes them."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterable, Mapping
from typing import Any

import mxnet as mx
from mxnet.base import _LIB, OpHandle, c_str, check_call

Entry = tuple[int, int]
"""A tensor in a symbol's JSON: the node's index and which of its outputs."""

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
            },
            ensure_ascii=False,  # MXNet's reader does not know \\u escapes
        )
    )


def read_json(symbol: mx.sym.Symbol) -> dict[str, Any]:
    """Return a symbol's JSON with all of its nodes.

    By default MXNet leaves the casts of mixed precision out, and others from ``get_internals()``
    than from the symbol itself.
    """
    parsed: dict[str, Any] = json.loads(symbol.tojson(remove_amp_cast=False))
    return parsed


def operator_names() -> set[str]:
    """Return the names, aliases included, of all operators that this MXNet has."""
    return set(mx.operator.get_all_registered_operators())


def primary_name(op: str) -> str:
    """Return the name under which symbols hold an operator: ``"_copy"`` for ``"identity"``."""
    handle, name = OpHandle(), ctypes.c_char_p()
    check_call(_LIB.NNGetOpHandle(c_str(op), ctypes.byref(handle)))
    check_call(_LIB.MXSymbolGetAtomicSymbolName(handle, ctypes.byref(name)))
    return (name.value or b"").decode()
