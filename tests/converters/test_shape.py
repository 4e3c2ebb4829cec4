"""Reshape, transpose, join, repeat and cast against MXNet."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import (
    ENGINE,
    check_any_rank,
    check_operator,
    check_refused,
    optimize_whole,
    random_array,
    run_engines,
    run_mxnet,
)

import mxtrt

DTYPES = ["float32", "float16", "float64", "int32", "int64", "int8", "uint8"]
DATA = mx.sym.var("data")

ONE_INPUT = [
    (mx.sym.Flatten, {}, (2, 3, 4)),
    (mx.sym.Flatten, {}, (2, 3)),
    (mx.sym.Flatten, {}, (4,)),
    (mx.sym.Flatten, {}, (1, 1, 3, 2, 2)),
    (mx.sym.transpose, {}, (2, 3, 4)),
    (mx.sym.transpose, {"axes": ()}, (2, 3, 4)),
    (mx.sym.transpose, {"axes": (1, 2, 0)}, (2, 3, 4)),
    (mx.sym.transpose, {"axes": (0, 2, 3, 1)}, (2, 1, 4, 5)),
    (mx.sym.SwapAxis, {"dim1": 0, "dim2": 2}, (2, 3, 4)),
    (mx.sym.SwapAxis, {"dim1": -1, "dim2": 1}, (2, 3, 4, 5)),
    (mx.sym.SwapAxis, {}, (2, 3)),
    (mx.sym.expand_dims, {"axis": 0}, (2, 3)),
    (mx.sym.expand_dims, {"axis": 2}, (2, 3)),
    (mx.sym.expand_dims, {"axis": -1}, (2, 3)),
    (mx.sym.expand_dims, {"axis": -2}, (2, 3)),
    (mx.sym.expand_dims, {"axis": -3}, (2, 3)),
    (mx.sym.squeeze, {}, (2, 1, 3, 1)),
    (mx.sym.squeeze, {}, (2, 3)),
    (mx.sym.squeeze, {}, (1, 1)),
    (mx.sym.squeeze, {"axis": 1}, (2, 1, 3, 1)),
    (mx.sym.squeeze, {"axis": -1}, (1, 1, 3, 1)),
    (mx.sym.squeeze, {"axis": (0, -1)}, (1, 1, 3, 1)),
    (mx.sym.squeeze, {"axis": (0, 1)}, (1, 1)),
    (mx.sym.squeeze, {"axis": 0}, (1,)),
    (mx.sym.tile, {"reps": (2, 3)}, (2, 3)),
    (mx.sym.tile, {"reps": (2,)}, (2, 3)),
    (mx.sym.tile, {"reps": (2, 1, 3, 2)}, (2, 3)),
    (mx.sym.tile, {"reps": ()}, (2, 3)),
    (mx.sym.repeat, {"repeats": 3}, (2, 3)),
    (mx.sym.repeat, {"repeats": 2, "axis": 0}, (2, 3, 4)),
    (mx.sym.repeat, {"repeats": 2, "axis": 1}, (2, 3, 4, 5)),
    (mx.sym.repeat, {"repeats": 2, "axis": 1}, (2, 3, 3, 3)),
    (mx.sym.repeat, {"repeats": 3, "axis": -1}, (2, 1, 4)),
    (mx.sym.repeat, {"repeats": 1, "axis": -2}, (2, 3, 4)),
    (mx.sym.reverse, {"axis": 0}, (3, 2)),
    (mx.sym.reverse, {"axis": (0, 2)}, (3, 1, 4)),
    (mx.sym.reverse, {"axis": (1,)}, (3, 1, 4)),
    (mx.sym.identity, {}, (2, 3)),
    (mx.sym.cast_storage, {"stype": "default"}, (2, 3)),
    (mx.sym.shape_array, {}, (2, 1, 3)),
    (mx.sym.size_array, {}, (2, 1, 3)),
]


@pytest.mark.parametrize(("op", "attrs", "shape"), ONE_INPUT)
def test_one_input(op: Any, attrs: dict[str, Any], shape: tuple[int, ...]) -> None:
    check_operator(op(DATA, **attrs), {"data": shape})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "symbol",
    [
        mx.sym.Flatten(DATA),
        mx.sym.transpose(DATA),
        mx.sym.expand_dims(DATA, axis=1),
        mx.sym.squeeze(DATA, axis=1),
        mx.sym.tile(DATA, reps=(2, 1, 1)),
        mx.sym.repeat(DATA, repeats=2, axis=0),
        mx.sym.reverse(DATA, axis=2),
        mx.sym.identity(DATA),
        mx.sym.Reshape(DATA, shape=(-1, 2)),
        mx.sym.Concat(DATA, DATA, dim=2),
        mx.sym.stack(DATA, DATA, axis=1),
        mx.sym.shape_array(DATA),
    ],
    ids=lambda symbol: symbol.name.rstrip("0123456789"),
)
def test_dtypes(symbol: mx.sym.Symbol, dtype: str) -> None:
    check_operator(symbol, {"data": random_array((3, 1, 4), dtype)}, unknown_sizes=False)


@pytest.mark.parametrize(
    ("codes", "reverse", "shape"),
    [
        ((4, 0, 2), False, (2, 3, 4)),
        ((6, -1), False, (2, 3, 4)),
        ((-1,), False, (2, 3, 4)),
        ((0, -1), False, (2, 3, 4)),
        ((-1, 0, 0), False, (2, 3, 4)),
        ((0, 0, -1), False, (2, 3, 4, 5)),
        ((-2,), False, (2, 3, 4)),
        ((2, -2), False, (2, 3, 4)),
        ((-2, 1, 1), False, (2, 3, 4)),
        ((-3, 4), False, (2, 3, 4)),
        ((-3, -3), False, (2, 3, 4, 5)),
        ((0, -3), False, (2, 3, 4)),
        ((-3, -2), False, (2, 3, 4, 5)),
        ((-3, -1), False, (2, 3, 4)),
        ((-4, 1, 2, -2), False, (2, 3, 4)),
        ((2, -4, -1, 3, -2), False, (2, 3, 4)),
        ((0, -4, 2, -1, 0), False, (2, 6, 4)),
        ((0, -4, -1, 2, 0, -4, 5, -1), False, (2, 6, 4, 5)),
        ((-3, -4, -1, 2), False, (2, 3, 4)),
        ((-1, 0, -4, 2, 2), False, (2, 3, 4)),
        ((-1, 0), True, (10, 5, 4)),
        ((8, 3, 0, 0), True, (2, 3, 4, 3, 5)),
        ((0, -3, -3), True, (2, 5, 3, 4, 6)),
        ((-2, -3), True, (2, 5, 3, 4)),
        ((0, -1, 0), True, (2, 5, 3, 4)),
        ((0, 2, -1, -4, 0), True, (3, 6, 4)),
        ((1, 0), True, (1, 5)),
    ],
)
def test_reshape(codes: tuple[int, ...], reverse: bool, shape: tuple[int, ...]) -> None:
    symbol = mx.sym.Reshape(DATA, shape=codes, reverse=reverse)
    check_operator(symbol, {"data": shape})
    if -2 not in codes:  # which stands for all axes that there are
        check_any_rank(symbol, {"data": shape})


@pytest.mark.parametrize(
    ("target", "keep_highest", "shape"),
    [((0, 6), False, (2, 5, 6)), ((7, 0), True, (2, 5, 3)), ((0, 3, 5), True, (2, 5, 3))],
)
def test_reshape_as_before_0_7(
    target: tuple[int, ...], keep_highest: bool, shape: tuple[int, ...]
) -> None:
    symbol = mx.sym.Reshape(DATA, target_shape=target, keep_highest=keep_highest)
    check_operator(symbol, {"data": shape})


@pytest.mark.parametrize(
    ("attrs", "shape", "like"),
    [
        ({}, (2, 3, 4), (4, 6)),
        ({"lhs_begin": 0, "lhs_end": 1, "rhs_begin": 0, "rhs_end": 2}, (30, 7), (15, 2, 4)),
        ({"lhs_begin": 0, "lhs_end": 2, "rhs_begin": 0, "rhs_end": 1}, (2, 3, 5, 7), (6, 1, 1)),
        ({"lhs_begin": -4, "lhs_end": -2, "rhs_begin": -3, "rhs_end": -2}, (2, 3, 5, 7), (6, 1, 1)),
        ({"lhs_begin": 2, "rhs_begin": 1}, (2, 3, 5, 7), (9, 35)),
        ({"rhs_begin": 0}, (2, 3, 5, 7), (6, 1, 35)),
        ({"lhs_begin": 1, "lhs_end": 3, "rhs_begin": 0, "rhs_end": 1}, (2, 3, 5, 7), (15, 9)),
    ],
)
def test_reshape_like(attrs: dict[str, Any], shape: tuple[int, ...], like: tuple[int, ...]) -> None:
    symbol = mx.sym.reshape_like(DATA, mx.sym.var("like"), **attrs)
    check_operator(symbol, {"data": shape, "like": like})


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_concat(dim: int, count: int) -> None:
    shapes = []
    for i in range(count):
        shape = [2, 3, 4]
        shape[dim] += i
        shapes.append(tuple(shape))
    inputs = {f"x{i}": shape for i, shape in enumerate(shapes)}
    check_operator(mx.sym.Concat(*map(mx.sym.var, inputs), dim=dim), inputs)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
@pytest.mark.parametrize("count", [1, 3])
def test_stack(axis: int, count: int) -> None:
    inputs = {f"x{i}": (2, 3) for i in range(count)}
    check_operator(mx.sym.stack(*map(mx.sym.var, inputs), axis=axis), inputs)


@pytest.mark.parametrize("to", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_cast(dtype: str, to: str) -> None:
    values = [0, 1, 3, 100, 127]
    if dtype != "uint8":
        values += [-1, -2, -127]
    if dtype[0] == "f":
        values += [0.5, -0.5, 1.9, -1.9, 2.5, 3.7]
    if dtype not in {"int8", "uint8"}:
        values += [128, 200, 255, 256, 300, -128, -129, -300]
    if dtype not in {"int8", "uint8", "float16"}:
        values += [65519, 65520, 65541, -70000, 16777217]
    data = np.array(values, dtype)
    check_operator(mx.sym.Cast(DATA, dtype=to), {"data": data}, unknown_sizes=False)


def check_partly_known(
    symbol: mx.sym.Symbol, data: np.ndarray, shape: tuple[int | None, ...] | None
) -> None:
    """Check an operator where not all of the input's shape is known: all of it has to move."""
    shapes = {} if shape is None else {"data": shape}
    optimized, _ = optimize_whole(symbol, shapes=shapes)
    found = run_engines(optimized, {"data": data})
    for want, have in zip(run_mxnet(symbol, {"data": data}), found):
        np.testing.assert_array_equal(have, want)
    mxtrt.release(optimized)


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int | None, ...], list[int], bool]:
    """Return a shape, what is known of it, codes of ``Reshape`` for it, and ``reverse``."""
    shape = draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=5))
    known = tuple(n if draw(st.booleans()) else None for n in shape)
    reverse = draw(st.booleans())
    sizes, codes = (shape[::-1] if reverse else shape), []
    axis, may_infer = 0, True
    while axis < len(sizes):
        kind = draw(st.sampled_from(["copy", "number", "infer", "merge", "split", "rest"]))
        if kind == "merge" and axis + 1 < len(sizes):
            codes.append(-3)
            axis += 1
        elif kind == "split":
            first = draw(st.sampled_from([n for n in (1, 2, 3) if sizes[axis] % n == 0]))
            pair = [first, sizes[axis] // first]
            hidden = draw(st.sampled_from([None, 0, 1]))
            codes += [-4, *(-1 if i == hidden else n for i, n in enumerate(pair))]
            may_infer = False  # MXNet infers a -1 behind it wrong
        elif kind == "rest":
            codes.append(-2)
            axis = len(sizes)
        elif kind == "infer" and may_infer:
            codes.append(-1)
            may_infer = False
        else:
            codes.append(sizes[axis] if kind == "number" else 0)
        axis += 1
    return tuple(shape), known, codes[::-1] if reverse else codes, reverse


@settings(max_examples=60, deadline=None, derandomize=True)
@given(reshapes())
def test_any_reshape(case: tuple[Any, ...]) -> None:
    shape, known, codes, reverse = case
    symbol = mx.sym.Reshape(DATA, shape=codes, reverse=reverse)
    check_partly_known(symbol, random_array(shape), known)


def test_unknown_ranks() -> None:
    for symbol in [
        mx.sym.Concat(DATA, mx.sym.ones((2, 3)), dim=0),
        mx.sym.stack(DATA, DATA, axis=1),
        mx.sym.Reshape(DATA, shape=(0, -1)),
        mx.sym.Reshape(DATA, shape=(-3,)),
        mx.sym.Reshape(DATA, shape=(-4, 2, -1, 0)),
        mx.sym.transpose(DATA),
        mx.sym.repeat(DATA, repeats=2),
        mx.sym.reverse(DATA, axis=1),
        mx.sym.slice(DATA, begin=(1, None), end=(None, -1)),
        mx.sym.take(DATA, DATA),
        mx.sym.reshape_like(DATA, DATA),
        mx.sym.zeros_like(DATA),
    ]:
        check_partly_known(symbol, random_array((4, 3)), None)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_any_repeat_tile_and_swap(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    known = tuple(n if data.draw(st.booleans()) else None for n in shape)
    axes = st.integers(-len(shape), len(shape) - 1)
    repeats = st.integers(1, 3)
    # beyond two tiled axes MXNet 1.9.1 leaves the output unwritten
    reps = st.lists(st.integers(1, 3), max_size=5).filter(
        lambda reps: reps.count(1) > len(reps) - 3
    )
    array = random_array(tuple(shape))
    for symbol in [
        mx.sym.repeat(DATA, repeats=data.draw(repeats), axis=data.draw(st.none() | axes)),
        mx.sym.tile(DATA, reps=data.draw(reps)),
        mx.sym.SwapAxis(DATA, dim1=data.draw(axes), dim2=data.draw(axes)),
        mx.sym.stack(DATA, DATA + 1, axis=data.draw(st.integers(-len(shape) - 1, len(shape)))),
        mx.sym.transpose(DATA, axes=data.draw(st.permutations(range(len(shape))))),
    ]:
        check_partly_known(symbol, array, known)


def test_rank_0() -> None:
    with mx.util.np_shape(True):
        for symbol in [
            mx.sym.Reshape(DATA, shape=(-1,)),
            mx.sym.Reshape(DATA, shape=(-2, 1)),
            mx.sym.transpose(DATA),
            mx.sym.expand_dims(DATA, axis=0),
            mx.sym.stack(DATA, DATA, axis=0),
            mx.sym.tile(DATA, reps=(2, 3)),
            mx.sym.repeat(DATA, repeats=2),
            mx.sym.Cast(DATA, dtype="int32"),
            mx.sym.size_array(DATA),
        ]:
            check_operator(symbol, {"data": np.array(2.5, "float32")})
        check_operator(mx.sym.squeeze(DATA), {"data": (1, 1)})


def test_refusals() -> None:
    check_refused(mx.sym.Reshape(DATA, shape=()), {"data": (2, 3)}, "shape=() leaves the new shape")
    check_refused(
        mx.sym.Cast(DATA, dtype="bfloat16"), {"data": (2, 3)}, "dtype='bfloat16' is a type that"
    )
    check_refused(
        mx.sym.cast_storage(DATA, stype="csr"), {"data": (2, 3)}, "stype='csr' makes a sparse array"
    )
    check_refused(mx.sym.Reshape(DATA, shape=(-2, -1)), {"data": (2, 3)}, "a -1 behind -2 or -4")


@pytest.mark.parametrize(
    ("shape", "reverse"), [((0, -4), False), ((-4, 2), False), ((-4, 2, 3, 0), True)]
)
def test_codes_without_their_sizes(shape: tuple[int, ...], reverse: bool) -> None:
    """MXNet refuses them as well, as soon as it knows the data."""
    symbol = mx.sym.Reshape(mx.sym.var("x"), shape=shape, reverse=reverse)
    report = mxtrt.explain(symbol, engine=ENGINE, min_subgraph_size=1)
    [reason] = report.left.values()
    assert "has no two sizes behind its -4" in reason
    with pytest.raises(mxtrt.errors.ShapesDisagree):
        mxtrt.explain(symbol, shapes={"x": (4, 6)}, engine=ENGINE, min_subgraph_size=1)
