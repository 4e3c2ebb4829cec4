"""Slices, splits and elements by index against MXNet."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from operators import ENGINE, check_operator, check_refused, random_array, run_mxnet

import mxtrt

DTYPES = ["float32", "float16", "float64", "int32", "int64", "int8", "uint8"]
DATA = mx.sym.var("data")
INDICES = mx.sym.var("indices")

SLICES = [
    (mx.sym.slice, {"begin": (1,), "end": (3,)}, (4, 3)),
    (mx.sym.slice, {"begin": (None, 1), "end": (None, 3)}, (4, 3)),
    (mx.sym.slice, {"begin": (-3, 0), "end": (-1, -1)}, (4, 3)),
    (mx.sym.slice, {"begin": (1, None), "end": (30, 2)}, (4, 3)),
    (mx.sym.slice, {"begin": (0, None), "end": (None, None)}, (4, 3)),
    (mx.sym.slice, {"begin": (None, 3), "end": (None, 0), "step": (2, -1)}, (5, 4)),
    (mx.sym.slice, {"begin": (None,), "end": (None,), "step": (-2,)}, (5, 4)),
    (mx.sym.slice, {"begin": (-2,), "end": (None,), "step": (-1,)}, (5, 4)),
    (mx.sym.slice, {"begin": (4,), "end": (-5,), "step": (-3,)}, (5, 4)),
    (mx.sym.slice, {"begin": (9,), "end": (1,), "step": (-1,)}, (5, 4)),
    (mx.sym.slice, {"begin": (1, 0), "end": (4, 2), "step": (None, 1)}, (5, 4)),
    (mx.sym.slice_axis, {"axis": 0, "begin": 1, "end": None}, (4, 3)),
    (mx.sym.slice_axis, {"axis": 1, "begin": 0, "end": 2}, (4, 3)),
    (mx.sym.slice_axis, {"axis": -1, "begin": -2, "end": -1}, (4, 3)),
    (mx.sym.slice_axis, {"axis": 0, "begin": 0, "end": None}, (4, 3)),
]


@pytest.mark.parametrize(("op", "attrs", "shape"), SLICES)
def test_slices(op: Any, attrs: dict[str, Any], shape: tuple[int, ...]) -> None:
    check_operator(op(DATA, **attrs), {"data": shape})


@pytest.mark.parametrize(
    ("axes", "shape", "like"),
    [
        ((), (4, 5, 6), (2, 5, 3)),
        ((1,), (4, 5, 6), (9, 2)),
        ((0,), (4, 5, 6), (4, 9)),
        ((-1, -2), (4, 5, 6), (1, 2, 4)),
        ((-2,), (4, 5, 6), (1, 2)),
        ((2, 3), (1, 3, 7, 8), (1, 9, 5, 4)),
    ],
)
def test_slice_like(axes: tuple[int, ...], shape: tuple[int, ...], like: tuple[int, ...]) -> None:
    symbol = mx.sym.slice_like(DATA, mx.sym.var("like"), axes=axes)
    check_operator(symbol, {"data": shape, "like": like})


SPLITS = [
    (mx.sym.SliceChannel, {"num_outputs": 3}, (2, 6, 4)),
    (mx.sym.SliceChannel, {"num_outputs": 3, "axis": -2, "squeeze_axis": True}, (2, 3, 4)),
    (mx.sym.SliceChannel, {"num_outputs": 2, "axis": 2}, (2, 3, 4)),
    (mx.sym.SliceChannel, {"num_outputs": 1, "axis": 0}, (2, 3, 4)),
    (mx.sym.SliceChannel, {"num_outputs": 1, "axis": 1, "squeeze_axis": True}, (2, 1, 4)),
    (mx.sym.split_v2, {"indices_or_sections": (1, 4), "axis": 1}, (2, 6)),
    (mx.sym.split_v2, {"indices_or_sections": (2,), "axis": -1}, (2, 6)),
    (mx.sym.split_v2, {"indices_or_sections": 3, "axis": 1}, (2, 6)),
    (mx.sym.split_v2, {"indices_or_sections": 2, "axis": 0, "squeeze_axis": True}, (2, 6)),
    (mx.sym.split_v2, {"indices_or_sections": (1, 2), "axis": 1, "squeeze_axis": True}, (2, 3)),
]


@pytest.mark.parametrize(("op", "attrs", "shape"), SPLITS)
def test_splits(op: Any, attrs: dict[str, Any], shape: tuple[int, ...]) -> None:
    check_operator(op(DATA, **attrs), {"data": shape})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "symbol",
    [
        mx.sym.slice(DATA, begin=(1,), end=(3,)),
        mx.sym.slice_axis(DATA, axis=1, begin=1, end=None),
        mx.sym.slice_like(DATA, mx.sym.var("like")),
        mx.sym.SliceChannel(DATA, num_outputs=2),
        mx.sym.split_v2(DATA, (1, 3)),
        mx.sym.take(DATA, INDICES),
        mx.sym.take(DATA, INDICES, mode="wrap", axis=1),
        mx.sym.pick(DATA, INDICES),
        mx.sym.gather_nd(DATA, mx.sym.expand_dims(INDICES, 0)),
        mx.sym.scatter_nd(DATA, mx.sym.expand_dims(INDICES, 0), shape=(9, 4)),
    ],
    ids=lambda symbol: symbol.name.rstrip("0123456789"),
)
def test_dtypes(symbol: mx.sym.Symbol, dtype: str) -> None:
    inputs = {
        "data": random_array((4, 4), dtype),
        "indices": np.array([3, 0, 2, 1], "float32"),
        "like": random_array((2, 3), dtype),
    }
    used = {name: inputs[name] for name in symbol.list_arguments()}
    check_operator(symbol, used, unknown_sizes=False)


OUT_OF_BOUNDS = [0, 1.5, 2, 3, 4, 10, 300, 3e9, -0.5, -1, -2.5, -7, -300, -3e9]


def index_array(dtype: str) -> Any:
    """Return indices that are in bounds, that must be truncated, clipped or wrapped."""
    info = np.finfo(dtype) if dtype[0] == "f" else np.iinfo(dtype)
    return np.array([v for v in OUT_OF_BOUNDS if info.min <= v <= info.max], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_embedding(dtype: str) -> None:
    symbol = mx.sym.Embedding(DATA, input_dim=4, output_dim=3, name="e")
    check_operator(symbol, {"data": index_array(dtype)}, {"e_weight": (4, 3)})
    check_operator(symbol, {"data": index_array(dtype).reshape(1, -1, 1)}, {"e_weight": (4, 3)})


def test_embedding_with_sparse_gradients() -> None:
    for dtype in ("float32", "float64"):
        symbol = mx.sym.contrib.SparseEmbedding(
            DATA, input_dim=4, output_dim=3, dtype=dtype, name="e"
        )
        weight = {"e_weight": random_array((4, 3), dtype)}
        check_operator(symbol, {"data": index_array("int32")}, weight)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_embedding_of_other_weights(dtype: str) -> None:
    symbol = mx.sym.Embedding(DATA, input_dim=4, output_dim=3, dtype=dtype, name="e")
    check_operator(
        symbol, {"data": index_array("int32")}, {"e_weight": random_array((4, 3), dtype)}
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["clip", "wrap"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_take(axis: int, mode: str, dtype: str) -> None:
    symbol = mx.sym.take(DATA, INDICES, axis=axis, mode=mode)
    indices = index_array(dtype)
    if ENGINE == "tensorrt" and mode == "wrap":  # before version 10 its integers have 32 bits
        indices = indices[np.abs(indices.astype("float64")) < 2**31]
    check_operator(symbol, {"data": (4, 3, 5), "indices": indices[-4:].reshape(2, 2)})
    check_operator(symbol, {"data": (4, 3, 5), "indices": indices.reshape(2, -1)[:, :2]})
    check_operator(symbol, {"data": (4, 3, 5), "indices": indices})


def test_take_that_may_raise() -> None:
    symbol = mx.sym.take(DATA, INDICES, mode="raise")
    check_operator(symbol, {"data": (4, 3), "indices": np.array([0, 3, 1.9], "float32")})


@pytest.mark.skipif(ENGINE == "tensorrt", reason="TensorRT takes indices beyond the end")
def test_take_raises() -> None:
    symbol = mx.sym.take(DATA, INDICES, mode="raise")
    shapes = {"data": (4, 3), "indices": (2,)}
    optimized, _ = mxtrt.optimize(symbol, {}, shapes=shapes, min_subgraph_size=1)
    for outside in [-1, 4]:
        inputs = {"data": random_array((4, 3)), "indices": np.array([0, outside], "float32")}
        for model in [symbol, optimized]:
            with pytest.raises(mx.base.MXNetError, match="bound"):
                run_mxnet(model, inputs)


@pytest.mark.parametrize("mode", ["clip", "wrap"])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize(("axis", "shape"), [(-1, (14, 4)), (0, (4, 14)), (1, (2, 4, 7))])
def test_pick(axis: int, shape: tuple[int, ...], keepdims: bool, mode: str) -> None:
    symbol = mx.sym.pick(DATA, INDICES, axis=axis, keepdims=keepdims, mode=mode)
    rest = [size for i, size in enumerate(shape) if i != axis % len(shape)]
    for dtype in ["float32", "int32", "int64"]:
        indices = np.array(OUT_OF_BOUNDS).clip(-500, 500).astype(dtype).reshape(rest)
        check_operator(symbol, {"data": shape, "indices": indices})
        kept = np.expand_dims(indices, axis)
        check_operator(symbol, {"data": shape, "indices": kept})


def test_pick_of_a_vector() -> None:
    inputs = {"data": (5,), "indices": np.array([3], "float32")}
    check_operator(mx.sym.pick(DATA, INDICES), inputs)
    check_operator(mx.sym.pick(DATA, INDICES, keepdims=True), inputs)


def test_rank_0() -> None:
    with mx.util.np_shape(True):
        check_operator(mx.sym.pick(DATA, INDICES), {"data": (5,), "indices": np.array(3, "int32")})
        check_operator(mx.sym.one_hot(INDICES, depth=3), {"indices": np.array(1, "int32")})
        for split in [
            mx.sym.SliceChannel(DATA, num_outputs=2, axis=0, squeeze_axis=True),
            mx.sym.split_v2(DATA, 2, axis=0, squeeze_axis=True),
        ]:
            check_operator(split, {"data": (2,)})


def test_batch_take() -> None:
    indices = np.array([0, 1, 3, 4, 10, -1, 2, -9], "int32")
    check_operator(mx.sym.batch_take(DATA, INDICES), {"data": (8, 4), "indices": indices})
    check_refused(
        mx.sym.batch_take(DATA, INDICES),
        {"data": (2, 3, 4), "indices": np.zeros((2, 3), "int32")},
        "only matrices",
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("to", DTYPES)
def test_one_hot(to: str, dtype: str) -> None:
    values = {"on_value": 3.7, "off_value": 200.2 if to == "uint8" else -300.7}
    symbol = mx.sym.one_hot(INDICES, depth=4, dtype=to, **values)
    check_operator(symbol, {"indices": index_array(dtype)}, unknown_sizes=False)
    check_operator(mx.sym.one_hot(INDICES, depth=3), {"indices": index_array(dtype)[None]})


@pytest.mark.parametrize(
    ("shape", "indices"),
    [
        ((4, 3), [[0, 1, 3], [2, 0, 1]]),
        ((4, 3), [[-1, -4, 3], [2, -1, 1]]),
        ((4, 3), [[0, 3]]),
        ((2, 3, 4), [[0, 1, 1], [1, 2, 0]]),
        ((2, 3, 4), [[[0, 1, 1]], [[1, 2, 0]]]),
        ((2, 3, 4), [[[0, 1], [1, 0]], [[1, 2], [0, 0]], [[3, 0], [1, 2]]]),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "int32", "int64"])
def test_gather_nd(shape: tuple[int, ...], indices: list[Any], dtype: str) -> None:
    inputs = {"data": shape, "indices": np.array(indices, dtype)}
    check_operator(mx.sym.gather_nd(DATA, INDICES), inputs)


@pytest.mark.parametrize(
    ("data", "indices", "shape"),
    [
        ((3,), [[0, 1, 3], [2, 0, 1]], (4, 3)),
        ((2, 3), [[2, 0]], (4, 3)),
        ((1, 2, 5), [[[2, 0]], [[1, 1]]], (4, 3, 5)),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "int32", "int64"])
def test_scatter_nd(
    data: tuple[int, ...], indices: list[Any], shape: tuple[int, ...], dtype: str
) -> None:
    inputs = {"data": data, "indices": np.array(indices, dtype)}
    check_operator(mx.sym.scatter_nd(DATA, INDICES, shape=shape), inputs)
    lhs = mx.sym.var("lhs") + 1  # MXNet has _scatter_set_nd in place only
    symbol = mx.sym._internal._scatter_set_nd(lhs, DATA, INDICES, shape=shape)
    check_operator(symbol, {**inputs, "lhs": shape})


def test_index_copy() -> None:
    symbol = mx.sym.contrib.index_copy(DATA, INDICES, mx.sym.var("new"))
    for dtype in ["int32", "int64", "float32"]:
        indices = np.array([2, 0], dtype)
        check_operator(symbol, {"data": (4, 3), "indices": indices, "new": (2, 3)})
        check_operator(symbol, {"data": (4, 3, 2), "indices": indices, "new": (2, 3, 2)})


ASSIGNED = [
    ({"begin": (1, 0), "end": (3, 2)}, (4, 3), (2, 2)),
    ({"begin": (None, -1), "end": (None, None), "step": (-2, None)}, (4, 3), (2, 1)),
    ({"begin": (None, 3), "end": (None, 0), "step": (2, -1)}, (5, 4, 2), (3, 3, 2)),
    ({"begin": (None, None), "end": (None, None)}, (2, 3), (2, 3)),
    ({"begin": (0, 0, -2), "end": (None, 30, -1)}, (2, 3, 5), (2, 3, 1)),
]


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
@pytest.mark.parametrize(("attrs", "shape", "part"), ASSIGNED)
def test_slice_assign(
    attrs: dict[str, Any], shape: tuple[int, ...], part: tuple[int, ...], dtype: str
) -> None:
    data = random_array(shape, dtype)
    symbol = mx.sym._internal._slice_assign(DATA, mx.sym.var("values"), **attrs)
    check_operator(symbol, {"data": data, "values": random_array(part, dtype, seed=1)})
    symbol = mx.sym._internal._slice_assign_scalar(DATA, scalar=-7.5, **attrs)
    check_operator(symbol, {"data": data})


@pytest.mark.parametrize("k", [0, 1, -1, 2, -3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_diag(k: int, dtype: str) -> None:
    check_operator(mx.sym.diag(DATA, k=k), {"data": random_array((4, 3), dtype)})
    check_operator(mx.sym.diag(DATA, k=k), {"data": random_array((3,), dtype)})


@pytest.mark.parametrize(
    ("axes", "k"), [((0, 1), 1), ((-1, 0), 0), ((-1, 0), 1), ((2, 1), -1), ((1, 2), 2)]
)
def test_diag_of_stacks(axes: tuple[int, int], k: int) -> None:
    symbol = mx.sym.diag(DATA, k=k, axis1=axes[0], axis2=axes[1])
    check_operator(symbol, {"data": (4, 3, 5)})
    check_operator(symbol, {"data": (4, 3, 5, 2)})


@pytest.mark.parametrize("shape", [(7, 6), (-1, 6), (2, 3, 6)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
def test_flat_indices(shape: tuple[int, ...], dtype: str) -> None:
    flat = np.array([0, 22, 41, 13, 100, 35, -22], dtype)
    check_operator(mx.sym.unravel_index(DATA, shape=shape), {"data": flat})
    places = np.array([[1.7, 0, 5], [2, 5, 1], [5, 2, 2]][-len(shape) :], dtype)
    check_operator(mx.sym.ravel_multi_index(DATA, shape=shape), {"data": places})


@st.composite
def cuts(draw: st.DrawFn, size: int) -> tuple[int | None, int | None, int | None]:
    """Return begin, end and step that take at least one place of an axis."""
    # begin before the first place, MXNet 1.9.1 reads what lies before the array
    limits = st.none() | st.integers(-size, size + 2)
    cut = draw(st.tuples(limits, limits, st.sampled_from([None, 1, 2, 3, -1, -2])))
    assume(len(range(size)[slice(*cut)]) > 0)
    return cut


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_any_slice(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    count = data.draw(st.integers(1, len(shape)))
    begin, end, step = zip(*(data.draw(cuts(size)) for size in shape[:count]))
    array = random_array(tuple(shape))
    check_operator(mx.sym.slice(DATA, begin=begin, end=end, step=step), {"data": array})
    symbol = mx.sym._internal._slice_assign_scalar(DATA, scalar=5, begin=begin, end=end, step=step)
    check_operator(symbol, {"data": array}, unknown_sizes=False)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.data())
def test_any_take_and_pick(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    mode = data.draw(st.sampled_from(["clip", "wrap"]))
    dtype = data.draw(st.sampled_from(["float32", "int32", "int64", "int8"]))
    rng = np.random.default_rng(len(shape))
    array = random_array(tuple(shape))
    indices = rng.uniform(-9, 9, data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
    inputs = {"data": array, "indices": indices.astype(dtype)}
    check_operator(mx.sym.take(DATA, INDICES, axis=axis, mode=mode), inputs)
    keepdims = data.draw(st.booleans())
    rest = np.delete(shape, axis) if len(shape) > 1 else (1,)
    inputs["indices"] = rng.uniform(-9, 9, rest).astype(dtype)
    symbol = mx.sym.pick(DATA, INDICES, axis=axis, mode=mode, keepdims=keepdims)
    check_operator(symbol, inputs)


def test_refusals() -> None:
    symbol = mx.sym.unravel_index(DATA, shape=(7, 6))
    check_refused(symbol, {"data": (2, 3)}, "MXNet unravels only vectors right")
    symbol = mx.sym.contrib.boolean_mask(DATA, INDICES)
    inputs = {"data": (4, 3), "indices": (4,)}
    check_refused(symbol, inputs, "the values of its input decide the size of its output")
