"""Symbol files that MXNet reads get their engines from the file beside them.

``mx.model.load_checkpoint``, ``Module.load``, ``FeedForward.load`` and ``SymbolBlock.imports`` all
end in one of MXNet's two functions ``load``, for symbols and for symbols of ``mx.np``.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import mxnet as mx


def connect() -> None:
    """Let MXNet's functions that read symbol files look for engines; call it once."""
    for module in (mx.symbol.symbol, mx.symbol.numpy._symbol):
        original = module.load
        wrapped = _with_engines(original)
        for name, other in list(sys.modules.items()):  # MXNet imports it under several names
            if name.partition(".")[0] == "mxnet" and vars(other).get("load") is original:
                vars(other)["load"] = wrapped


def _with_engines(load: Callable[[str], Any]) -> Callable[[str], Any]:
    @functools.wraps(load)
    def load_with_engines(fname: str) -> Any:
        symbol = load(fname)
        if '"_mxtrt_engine"' in symbol.tojson():
            from .saved import find_engines

            find_engines(fname, symbol)
        return symbol

    return load_with_engines
