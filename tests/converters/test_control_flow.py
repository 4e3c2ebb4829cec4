"""``foreach``, ``while_loop`` and ``cond`` against MXNet."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import (
    ENGINE,
    check_operator,
    check_refused,
    optimize_whole,
    random_array,
    run_engines,
    run_mxnet,
)

import mxtrt

V = mx.sym.var
foreach, while_loop, cond = (
    getattr(mx.sym.contrib, name) for name in ("foreach", "while_loop", "cond")
)


def dense(x: mx.sym.Symbol, weight: str = "w") -> mx.sym.Symbol:
    return mx.sym.FullyConnected(x, V(weight), num_hidden=3, no_bias=True)


def group(outputs: Any, states: Any) -> mx.sym.Symbol:
    flat = [*outputs] if isinstance(outputs, list) else [outputs]
    return mx.sym.Group([*flat, *(states if isinstance(states, list) else [states])])


# -- foreach -----------------------------------------------------------------------------------


def test_weight_and_states() -> None:
    symbol = group(
        *foreach(
            lambda x, s: (dense(x) + s[0], [s[0] + x, s[1] * 2]), V("data"), [V("s0"), V("s1")]
        )
    )
    shapes = {"data": (5, 2, 3), "s0": (2, 3), "s1": (4,)}
    check_operator(symbol, shapes, {"w": (3, 3)})
    check_operator(symbol, {**shapes, "w": (3, 3)})  # the weight comes at run time


def test_several_data_and_outputs() -> None:
    symbol = group(
        *foreach(
            lambda x, s: ([x[0] * s, x[1] - x[0], x[1]], s + x[1]), [V("a"), V("b")], V("state")
        )
    )
    check_operator(symbol, {"a": (4, 3), "b": (4, 3), "state": (3,)})


@pytest.mark.parametrize("np_shape", [False, True])
@pytest.mark.parametrize("length", [1, 4])
def test_data_of_one_axis(length: int, np_shape: bool) -> None:
    """A slice of it has the shape (1,), even where MXNet knows shapes without axes."""
    with mx.util.np_shape(np_shape):
        symbol = group(*foreach(lambda x, s: (x + s, s * x), V("data"), V("state")))
        check_operator(symbol, {"data": (length,), "state": (1,)})


def test_states_only() -> None:
    _, states = foreach(lambda x, s: ([], [s[0] + x, s[1] * 2]), V("data"), [V("s0"), V("s1")])
    check_operator(mx.sym.Group(states), {"data": (3, 2), "s0": (2,), "s1": (2,)})


def test_what_does_not_change_comes_from_outside() -> None:
    """A tensor that the graph computed, twice in the body."""
    outside = dense(V("x"))
    symbol = group(*foreach(lambda x, s: (x * outside, s + outside), V("data"), V("state")))
    shapes = {"data": (4, 2, 3), "x": (2, 3), "state": (2, 3)}
    check_operator(mx.sym.Group([symbol, outside]), shapes, {"w": (3, 3)})


def test_int32() -> None:
    symbol = group(*foreach(lambda x, s: (x + s, s + x), V("data"), V("state")))
    arrays = {"data": random_array((4, 3), "int32"), "state": random_array((3,), "int32", 1)}
    check_operator(symbol, arrays)


def test_begin_state_says_the_batch() -> None:
    """What reads the output is told its rank, though MXNet takes data of no other batch size."""
    rows, _ = foreach(lambda x, s: (x + s, s * 2), V("data"), mx.sym.ones((2, 3)))
    symbol = mx.sym.softmax(rows, axis=1)
    x = random_array((4, 2, 3))
    optimized, _ = optimize_whole(symbol, shapes={"data": (None, None, 3)})
    (found,), (expected,) = run_engines(optimized, {"data": x}), run_mxnet(symbol, {"data": x})
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    mxtrt.release(optimized)


def test_nested() -> None:
    """A foreach over the slices of a foreach, with a weight in the innermost body."""

    def inner(x: mx.sym.Symbol, s: mx.sym.Symbol) -> Any:
        return dense(x) + s, s * V("scale") + x

    def outer(x: mx.sym.Symbol, s: mx.sym.Symbol) -> Any:
        return foreach(inner, x, s)

    symbol = group(*foreach(outer, V("data"), V("state")))
    check_operator(symbol, {"data": (3, 2, 4, 3), "state": (4, 3)}, {"w": (3, 3), "scale": (4, 3)})


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(1, 6), st.lists(st.integers(1, 4), min_size=1, max_size=3), st.booleans())
def test_any_foreach(length: int, shape: list[int], swap: bool) -> None:
    def step(x: mx.sym.Symbol, s: list[mx.sym.Symbol]) -> Any:
        a, b = s[::-1] if swap else s
        return [a * x, b], [a + x, b - x]

    symbol = group(*foreach(step, V("data"), [V("s0"), V("s1")]))
    check_operator(symbol, {"data": (length, *shape), "s0": tuple(shape), "s1": tuple(shape)})


# -- while_loop --------------------------------------------------------------------------------


def check_loop(
    symbol: mx.sym.Symbol, arrays: dict[str, Any], params: dict[str, Any], steps: int, rows: int
) -> None:
    """Compare the first `steps` rows: MXNet leaves the others to what is in memory."""
    arrays = {n: random_array(a) if isinstance(a, tuple) else a for n, a in arrays.items()}
    weights = {n: mx.nd.array(random_array(s)) for n, s in params.items()}
    expected = run_mxnet(symbol, {**arrays, **{n: w.asnumpy() for n, w in weights.items()}})
    for shapes in (
        {n: a.shape for n, a in arrays.items()},
        {n: (None,) * a.ndim for n, a in arrays.items()},
    ):
        optimized, _ = optimize_whole(symbol, weights, shapes=shapes)
        found = run_engines(optimized, arrays)
        for number, (want, have) in enumerate(zip(expected, found)):
            assert want.shape == have.shape
            kept = slice(steps if number < rows else None)
            np.testing.assert_allclose(have[kept], want[kept], rtol=1e-4, atol=1e-5)
            assert number >= rows or not have[kept.stop :].any()


@pytest.mark.parametrize(("start", "steps"), [(2, 4), (5, 1), (-5, 8)])
def test_while_loop(start: int, steps: int) -> None:
    """Ends by its condition, after one step, and by ``max_iterations``."""
    outputs, states = while_loop(
        cond=lambda i, s: i <= 5,
        func=lambda i, s: ([mx.sym.broadcast_add(dense(s), i), s * 2], [i + 1, s + 1]),
        loop_vars=[V("i"), V("s")],
        max_iterations=8,
    )
    arrays = {"i": np.array([start], "float32"), "s": (2, 3)}
    check_loop(group(outputs, states), arrays, {"w": (3, 3)}, steps, rows=2)


@pytest.mark.skipif(ENGINE == "tensorrt", reason="TensorRT 8.5 builds it and cannot run it")
def test_condition_on_what_does_not_change() -> None:
    limit = V("limit") * 2
    outputs, states = while_loop(
        cond=lambda i, s: i < limit,
        func=lambda i, s: (s * V("scale"), [i + 1, s - i]),
        loop_vars=[V("i"), V("s")],
        max_iterations=6,
    )
    arrays = {n: np.array([x], "float32") for n, x in (("i", 1), ("s", 9), ("limit", 2))}
    check_loop(group(outputs, states), arrays, {"scale": (1,)}, 3, rows=1)


def test_loop_without_outputs() -> None:
    _, states = while_loop(
        cond=lambda i, s: s < 100,
        func=lambda i, s: ([], [i + 1, s * 2]),
        loop_vars=[V("i"), V("s")],
        max_iterations=20,
    )
    arrays = {"i": np.zeros(1, "float32"), "s": np.array([3], "float32")}
    check_operator(mx.sym.Group(states), arrays)


# -- cond --------------------------------------------------------------------------------------


@pytest.mark.parametrize("a", [1.0, 3.0])
def test_cond(a: float) -> None:
    x, w = V("x"), V("w")
    product = lambda: mx.sym.FullyConnected(x, w, num_hidden=3, no_bias=True)  # noqa: E731
    symbol = cond(V("a") < 2, product, lambda: x - product() * 2)
    check_operator(symbol, {"a": np.array([a], "float32"), "x": (2, 3)}, {"w": (3, 3)})


@pytest.mark.parametrize("a", [0, 1, -3])
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_any_number_is_true_unless_zero(dtype: str, a: int) -> None:
    x, y = V("x"), V("y")
    outputs = cond(V("a") * 1, lambda: [x * 2, x * 1], lambda: [y + 1, x - y])
    arrays = {"a": np.array([a], "float32"), **{n: random_array((2, 3), dtype) for n in "xy"}}
    check_operator(mx.sym.Group(outputs), arrays)


def test_a_loop_in_a_branch() -> None:
    """MXNet itself cannot run it the other way round."""
    x = V("x")
    rows = foreach(lambda x, s: (x + s, s * 2), x, V("state"))[0]
    symbol = cond(V("a") > 0, lambda: rows * 1, lambda: x - 1)
    for a in (1, 0):
        arrays = {"a": np.array([a], "float32"), "x": (4, 3), "state": (3,)}
        check_operator(symbol, arrays)


# -- refusals ----------------------------------------------------------------------------------


def test_a_body_that_cannot_be_said() -> None:
    noise = lambda x: mx.sym.random.normal(shape=(3,))  # noqa: E731
    symbol = group(*foreach(lambda x, s: (noise(x) + x, s + x), V("data"), V("s")))
    check_refused(symbol, {"data": (2, 3), "s": (3,)}, "its body has _random_normal")


def test_unknown_rank() -> None:
    symbol = group(*foreach(lambda x, s: (x + s, s), V("data"), V("state")))
    left = mxtrt.explain(symbol, {}, shapes={"state": (2,)}, min_subgraph_size=1).left
    assert "needs the rank of 'data', which is not known; pass shapes" in left.values()


def test_what_follows_a_node_that_stays() -> None:
    """MXNet has no shape for it when it binds, so no engine may stand behind it."""
    x = V("x")
    branch = cond(V("a") > 0, lambda: x * 2, lambda: x - 1)
    symbol = mx.sym.Group([mx.sym.relu(branch) * 3, x * V("y")])
    arrays = {"a": np.ones(1, "float32"), "x": random_array((1, 2)), "y": random_array((1, 2))}
    shapes = {n: a.shape for n, a in arrays.items()}
    optimized, _ = mxtrt.optimize(symbol, shapes=shapes, exclude_ops=["_cond"], min_subgraph_size=1)
    left = {node.op: reason for node, reason in mxtrt.report(optimized).left.items()}
    assert set(left) == {"_cond", "relu", "_mul_scalar"}
    assert left["relu"].startswith("reads what comes of _cond '_cond")
    for want, have in zip(run_mxnet(symbol, arrays), run_mxnet(optimized, arrays)):
        np.testing.assert_allclose(have, want)
