"""``box_nms`` against MXNet: every comparison is exact, also among equal scores and overlaps."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import check_operator, optimize_whole, run_engines, run_mxnet
from rtx import build_plan, parts_as_onnx

import mxtrt
from mxtrt.converters import suppression


def box_nms(**attrs: Any) -> mx.sym.Symbol:
    return mx.sym.contrib.box_nms(mx.sym.var("data"), name="nms", **attrs)


def boxes(
    shape: tuple[int, ...], coarse: bool = False, seed: int = 0, width: int = 6
) -> np.ndarray:
    """Return rows of class, score, corners, …: with ties, negative scores and flipped boxes.

    `coarse` boxes lie on a grid, so that many overlap by the very same amount.
    """
    rng = np.random.default_rng(seed)
    data = rng.random((*shape, width))
    data[..., 0] = rng.integers(-1, 3, shape)
    data[..., 1] = rng.integers(-2, 6, shape) / 5
    data[..., 2:4] = rng.random((*shape, 2)) * 10 - 1
    data[..., 4:6] = rng.random((*shape, 2)) * 6 - 0.5
    if coarse:
        data[..., 2:6] = np.round(data[..., 2:6])
    data[..., 4:6] += data[..., 2:4]
    return data.astype("float32")


def check_exact(symbol: mx.sym.Symbol, data: np.ndarray) -> None:
    check_operator(symbol, {"data": data}, rtol=0, atol=0)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"topk": 0},
    {"topk": 5},
    {"topk": 100},
    {"id_index": 0},
    {"id_index": 0, "force_suppress": True},
    {"id_index": 0, "background_id": 1},
    {"in_format": "center"},
    {"out_format": "center"},
    {"in_format": "center", "out_format": "center"},
    {"in_format": "center", "out_format": "corner", "topk": 7},
    {"valid_thresh": 0.3},
    {"valid_thresh": 2},
    {"valid_thresh": -5},
    {"overlap_thresh": 0.0},
    {"overlap_thresh": 1},
    {"overlap_thresh": -1},
    {"overlap_thresh": 0.2, "topk": 7, "id_index": 0, "out_format": "center"},
]


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("attrs", OPTIONS, ids=str)
def test_options(attrs: dict[str, Any], coarse: bool) -> None:
    check_exact(box_nms(**{"overlap_thresh": 0.3, **attrs}), boxes((2, 23), coarse))


@pytest.mark.parametrize("attrs", [{"topk": 4}, {"id_index": 0, "out_format": "center"}], ids=str)
@pytest.mark.parametrize("shape", [(23,), (1,), (1, 1), (3, 9), (2, 2, 9), (1, 2, 1, 9), (5, 4)])
def test_batches(shape: tuple[int, ...], attrs: dict[str, Any]) -> None:
    check_exact(box_nms(overlap_thresh=0.3, **attrs), boxes(shape, coarse=True))


@pytest.mark.parametrize("out_format", ["corner", "center"])
@pytest.mark.parametrize(
    ("coord_start", "score_index", "id_index", "width"),
    [(0, 4, -1, 5), (1, 0, -1, 5), (1, 5, 0, 6), (3, 0, 1, 9), (0, 4, 5, 7)],
)
def test_columns(
    coord_start: int, score_index: int, id_index: int, width: int, out_format: str
) -> None:
    usual = boxes((2, 17), coarse=True, width=max(width, 6))
    data = np.random.default_rng(0).random((2, 17, width)).astype("float32")
    data[..., coord_start : coord_start + 4] = usual[..., 2:6]
    data[..., score_index] = usual[..., 1]
    if id_index >= 0:
        data[..., id_index] = usual[..., 0]
    symbol = box_nms(
        coord_start=coord_start, score_index=score_index, id_index=id_index, out_format=out_format
    )
    check_exact(symbol, data)


def test_rows_that_earlier_suppression_left() -> None:
    """Rows of -1 take no part: by their score, and by their class where there is one."""
    data = boxes((2, 12))
    data[:, ::3] = -1
    check_exact(box_nms(id_index=0), data)
    check_exact(box_nms(valid_thresh=-2), data)
    check_exact(box_nms(valid_thresh=-2, id_index=0, background_id=-1), data)


@pytest.mark.parametrize("score", [-1.0, 0.0])
def test_nothing_is_valid(score: float) -> None:
    data = boxes((2, 8))
    data[..., 1] = score
    check_exact(box_nms(), data)
    data[0, 3, 1] = 0.5  # in one of the two only
    check_exact(box_nms(), data)


def test_all_boxes_are_the_same() -> None:
    data = np.tile(np.array([1, 0.5, 0, 0, 2, 2], "float32"), (2, 9, 1))
    check_exact(box_nms(), data)
    check_exact(box_nms(overlap_thresh=1), data)


def test_classes_are_compared_as_integers() -> None:
    data = boxes((1, 12), coarse=True)
    data[..., 0] = np.linspace(-0.9, 1.9, 12)
    check_exact(box_nms(overlap_thresh=0.1, id_index=0), data)


def test_a_chain_of_suppression() -> None:
    """Each box overlaps its neighbours only, so that every second one survives."""
    count = 40
    data = np.zeros((1, count, 6), "float32")
    data[0, :, 1] = np.linspace(1, 0.5, count)
    data[0, :, 2] = data[0, :, 3] = 0
    data[0, :, 2] = np.arange(count)
    data[0, :, 4] = np.arange(count) + 1.9
    data[0, :, 5] = 1
    check_exact(box_nms(overlap_thresh=0.3), data)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_dtypes(dtype: str) -> None:
    data = boxes((2, 15), coarse=True).astype(dtype)
    # quotients of small integers: no rounding decides whether they are above the threshold
    check_exact(box_nms(overlap_thresh=0.21, id_index=0), data)


@pytest.mark.parametrize("attrs", OPTIONS[::3], ids=str)
def test_more_rows_than_are_compared_at_once(
    attrs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of rows, and sorting in pieces."""
    monkeypatch.setattr(suppression, "PAIRS_LIMIT", 0)
    monkeypatch.setattr(suppression, "BLOCK_ROWS", (1, 4))
    monkeypatch.setattr(suppression, "TOPK_LIMIT", 7)
    for coarse in (False, True):
        check_exact(box_nms(**{"overlap_thresh": 0.3, **attrs}), boxes((3, 23), coarse))


@pytest.mark.slow
@pytest.mark.parametrize(("count", "topk"), [(5000, 5000), (9000, 400), (3000, -1), (1000, -1)])
def test_many_boxes(count: int, topk: int) -> None:
    data = boxes((1, count))
    data[..., 2:] *= 10
    check_exact(box_nms(topk=topk, id_index=0), data)


def test_sizes_may_be_unknown() -> None:
    symbol = box_nms(topk=5, id_index=0, out_format="center")
    optimized, _ = optimize_whole(symbol, shapes={"data": (None, None, 6)})
    for shape in ((1, 3), (2, 5), (4, 20)):
        data = {"data": boxes(shape, coarse=True)}
        np.testing.assert_array_equal(run_engines(optimized, data)[0], run_mxnet(symbol, data)[0])


def test_rank_may_be_unknown() -> None:
    symbol = box_nms(topk=4, id_index=0)
    optimized, _ = optimize_whole(symbol)
    for shape in ((9,), (2, 9), (2, 3, 5)):
        data = {"data": boxes(shape, coarse=True)}
        np.testing.assert_array_equal(run_engines(optimized, data)[0], run_mxnet(symbol, data)[0])


def test_refusals() -> None:
    """All other shapes and options that it cannot take are MXNet's own errors."""
    symbol = box_nms(out_format="center")
    report = mxtrt.explain(symbol, shapes={"data": (None, None, None)}, min_subgraph_size=1)
    assert "needs the size of axis 2 of 'data'" in next(iter(report.left.values()))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 30),
    batch=st.integers(1, 3),
    topk=st.integers(-1, 35),
    threshold=st.sampled_from([0.05, 0.3, 0.5, 0.7]),
    by_class=st.booleans(),
    force=st.booleans(),
    coarse=st.booleans(),
    at_once=st.booleans(),
)
def test_random_boxes(
    seed: int,
    count: int,
    batch: int,
    topk: int,
    threshold: float,
    by_class: bool,
    force: bool,
    coarse: bool,
    at_once: bool,
) -> None:
    symbol = box_nms(
        overlap_thresh=threshold,
        topk=topk,
        id_index=0 if by_class else -1,
        force_suppress=force,
    )
    with pytest.MonkeyPatch.context() as patch:
        if not at_once:
            patch.setattr(suppression, "PAIRS_LIMIT", 0)
            patch.setattr(suppression, "BLOCK_ROWS", (1, 5))
        data = {"data": boxes((batch, count), coarse, seed)}
        check_operator(symbol, data, rtol=0, atol=0, unknown_sizes=False)


@pytest.mark.parametrize(
    ("shape", "attrs"),
    [
        ((1, 800, 6), {"topk": 400, "id_index": 0}),
        ((2, 3, 20, 6), {"out_format": "center"}),
        ((1, 4000, 6), {"topk": -1}),
    ],
    ids=str,
)
def test_tensorrt_takes_it(shape: tuple[int, ...], attrs: dict[str, Any]) -> None:
    for part in parts_as_onnx(box_nms(**attrs), None, {"data": shape}, min_subgraph_size=1):
        build_plan(part)
