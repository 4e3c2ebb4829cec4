"""Names the input whose shape is missing, where MXNet would crash.

MXNet copies the input shapes of a library operator into a buffer as long as the sum of their ranks,
and an unknown rank counts -1 (``infer_shape`` in its ``c_api.cc``): one unknown input next to a
known one makes it write past the buffer or through a null pointer before the operator is asked, and
a single unknown input ends in ``std::bad_alloc``. So the methods through which shapes are left to
inference look first whether every engine will know its inputs. Symbols without engines pass
unchanged, and so does everything that gets its arrays at once, as ``bind`` and Gluon do.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import mxnet as mx
from mxnet.executor import Executor
from mxnet.symbol import Symbol

from . import _bridge
from .errors import ShapeNeeded
from .symbol_json import build_symbol

_OPERATORS = {"_mxtrt_engine", "_mxtrt_heads"}
_infer = Symbol._infer_shape_impl


def guard() -> None:
    """Let ``infer_shape``, ``simple_bind`` and ``Executor.reshape`` look first; call it once."""
    Symbol._infer_shape_impl = _guarded(Symbol._infer_shape_impl, _infer_call)
    Symbol.simple_bind = _guarded(Symbol.simple_bind, lambda symbol, *_, **known: (symbol, known))
    Executor.reshape = _guarded(
        Executor.reshape, lambda executor, *_, **known: (executor._symbol, known)
    )


def _infer_call(
    symbol: Symbol, partial: bool, *shapes: Any, **known: Any
) -> tuple[Symbol, Mapping[str, Any]]:
    return symbol, {**dict(zip(symbol.list_arguments(), shapes)), **known}


def _guarded(method: Any, read: Callable[..., tuple[Symbol, Mapping[str, Any]]]) -> Any:
    @functools.wraps(method)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        nodes = _nodes_of(read(*args, **kwargs)[0]) if _bridge.registered() else []
        engines = [i for i, node in enumerate(nodes) if node["op"] in _OPERATORS]
        if not engines:
            return method(*args, **kwargs)
        _, known = read(*args, **kwargs)
        try:
            _require_shapes(nodes, (i for i in engines if len(nodes[i]["inputs"]) > 1), known)
            return method(*args, **kwargs)
        except (mx.MXNetError, RuntimeError) as error:
            if "std::bad_alloc" in str(error):
                _require_shapes(nodes, engines, known)
            raise

    return guarded


def _nodes_of(symbol: Symbol) -> list[dict[str, Any]]:
    text = symbol.tojson()
    if not any(f'"{op}"' in text for op in _OPERATORS):
        return []
    nodes: list[dict[str, Any]] = json.loads(text)["nodes"]
    return nodes


def _require_shapes(
    nodes: list[dict[str, Any]], engines: Iterable[int], known: Mapping[str, Any]
) -> None:
    for engine in engines:  # in order: the engines before this one know theirs
        inputs = [(node, output) for node, output, *_ in nodes[engine]["inputs"]]
        before = build_symbol(nodes[:engine], inputs)
        _, shapes, _ = _infer_partially(before, known)
        for entry, shape in zip(inputs, shapes):
            if _is_unknown(shape):
                name = _missing_argument(build_symbol(nodes[:engine], [entry]), known)
                raise ShapeNeeded(
                    f"an engine needs the shape of {name!r}, which is not known; pass it by name, "
                    "as in simple_bind(mx.cpu(), data=(1, 3, 224, 224))"
                )


def _missing_argument(symbol: Symbol, known: Mapping[str, Any]) -> str:
    shapes, _, _ = _infer_partially(symbol, known)
    names: list[str] = symbol.list_arguments()
    return next((n for n, shape in zip(names, shapes) if _is_unknown(shape)), names[0])


def _infer_partially(symbol: Symbol, known: Mapping[str, Any]) -> Any:
    # Next to shapes there may be None and, in simple_bind's arguments, what is no shape at all.
    shapes = {n: known[n] for n in symbol.list_arguments() if isinstance(known.get(n), tuple)}
    return _infer(symbol, True, **shapes)


def _is_unknown(shape: tuple[int, ...] | None) -> bool:
    return shape is None or (shape == () and not mx.util.is_np_shape())
