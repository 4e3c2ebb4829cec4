"""Bodies in the place of control flow have the shapes that MXNet finds when it runs them."""

from __future__ import annotations

import json
from typing import Any

import mxnet as mx

from mxtrt.inline import inline_bodies
from mxtrt.symbol_json import build_symbol

V = mx.sym.var


def inlined(symbol: mx.sym.Symbol) -> mx.sym.Symbol:
    parsed = json.loads(symbol.tojson())
    return build_symbol(*inline_bodies(parsed["nodes"], [h[:2] for h in parsed["heads"]]))


def shapes(symbol: mx.sym.Symbol, **known: Any) -> list[tuple[int, ...]]:
    return inlined(symbol).infer_shape(**known)[1]


def test_cond() -> None:
    x, y = V("x"), V("y")
    symbol = mx.sym.contrib.cond(V("a") < 2, lambda: mx.sym.dot(x, y) + 1, lambda: y * 2)
    assert shapes(symbol, x=(4, 3), y=(3, 5)) == [(4, 5)]


def test_while_loop_in_a_branch() -> None:
    x = V("x")

    def loop() -> Any:
        return mx.sym.contrib.while_loop(
            lambda i, s: i < 5, lambda i, s: (s * 2, [i + 1, s]), [V("i"), x], max_iterations=7
        )

    rows, states = loop()
    assert shapes(mx.sym.Group([rows[0], *states]), i=(1,), x=(2, 3)) == [(7, 2, 3), (1,), (2, 3)]
    symbol = mx.sym.contrib.cond(V("a") > 0, lambda: loop()[0][0] * 1, lambda: V("z") * 1)
    assert shapes(symbol, x=(2, 3)) == [(7, 2, 3)]


def test_other_nodes_stay() -> None:
    symbol = mx.sym.split(V("x"), num_outputs=3)
    symbol = mx.sym.Group([symbol[2] * 2, symbol[0], V("y")])
    assert inlined(symbol).tojson() == symbol.tojson()
