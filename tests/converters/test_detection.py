"""Boxes, anchors, matching and SSD's head against MXNet."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import check_operator, check_refused, optimize_whole, run_engines, run_mxnet
from rtx import build_plan, parts_as_onnx

from mxtrt.converters import suppression

contrib, var = mx.sym.contrib, mx.sym.var


def corners(shape: tuple[int, ...], seed: int = 0, coarse: bool = False) -> np.ndarray:
    """Return boxes as x1, y1, x2, y2, some of them flipped or empty."""
    rng = np.random.default_rng(seed)
    low, size = rng.random((*shape, 2)) * 10, rng.random((*shape, 2)) * 6 - 1
    if coarse:
        low, size = np.round(low), np.round(size)
    return np.concatenate([low, low + size], -1).astype("float32")


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("format", ["corner", "center"])
@pytest.mark.parametrize(
    ("left", "right"), [((5,), (7,)), ((2, 3), (4,)), ((1,), (2, 3, 2)), ((1, 1), (1, 1))]
)
def test_box_iou(left: tuple[int, ...], right: tuple[int, ...], format: str, coarse: bool) -> None:
    symbol = contrib.box_iou(var("lhs"), var("rhs"), format=format)
    check_operator(symbol, {"lhs": corners(left, 0, coarse), "rhs": corners(right, 1, coarse)})


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_box_iou_dtypes(dtype: str) -> None:
    boxes = corners((6,), coarse=True).astype(dtype)
    check_operator(contrib.box_iou(var("lhs"), var("rhs")), {"lhs": boxes, "rhs": boxes})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("clip", [-1.0, 0.0, 0.3])
@pytest.mark.parametrize("format", ["corner", "center"])
def test_box_decode(format: str, clip: float, dtype: str) -> None:
    stds = {"std0": 0.1, "std1": 0.2, "std2": 0.3, "std3": 0.4}
    symbol = contrib.box_decode(var("data"), var("anchors"), format=format, clip=clip, **stds)
    data = np.random.default_rng(0).standard_normal((3, 7, 4)).astype(dtype) * 3
    check_operator(symbol, {"data": data, "anchors": corners((1, 7)).astype(dtype)})


def test_box_encode() -> None:
    rng = np.random.default_rng(0)
    samples = rng.integers(-1, 2, (2, 9)).astype("float32")
    matches = np.where(samples > 0, rng.integers(0, 5, (2, 9)), -1).astype("float32")
    rows = {"anchors": (2, 9, 2), "refs": (2, 5, 2)}
    inputs = {name: rng.random(shape) for name, shape in rows.items()}
    inputs = {name: np.concatenate([x, x + 1.5], -1) for name, x in inputs.items()}
    inputs = {
        "samples": samples,
        "matches": matches,
        **inputs,
        "means": rng.random(4),
        "stds": rng.random(4) + 0.5,
    }
    names = ["samples", "matches", "anchors", "refs", "means", "stds"]
    symbol = contrib.box_encode(*map(var, names))
    check_operator(symbol, {name: np.asarray(inputs[name], "float32") for name in names})


@pytest.mark.parametrize("topk", [-1, 0, 1, 2])
@pytest.mark.parametrize("is_ascend", [False, True])
@pytest.mark.parametrize("shape", [(4, 5), (3, 5, 2), (2, 2, 4, 4), (1, 1), (2, 1, 6)])
def test_bipartite_matching(shape: tuple[int, ...], is_ascend: bool, topk: int) -> None:
    """Scores in eighths: many are equal, and some are the threshold itself."""
    scores = np.random.default_rng(0).integers(0, 9, shape).astype("float32") / 8
    symbol = contrib.bipartite_matching(
        var("data"), threshold=0.625 if is_ascend else 0.375, is_ascend=is_ascend, topk=topk
    )
    check_operator(symbol, {"data": scores}, rtol=0, atol=0)


@pytest.mark.parametrize("threshold", [2.0, 1e-12])
def test_bipartite_matching_of_all_or_nothing(threshold: float) -> None:
    scores = np.random.default_rng(0).random((2, 4, 6)).astype("float32")
    symbol = contrib.bipartite_matching(var("data"), threshold=threshold)
    check_operator(symbol, {"data": scores}, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(1, 2, 5, 7), (2, 3, 1, 4), (1, 1, 38, 38)])
@pytest.mark.parametrize(
    "attrs",
    [
        {},
        {"sizes": (0.2, 0.3, 0.75), "ratios": (1, 2, 0.5)},
        {"clip": True, "sizes": (1.2,)},
        {"steps": (0.1, 0.2), "offsets": (0.3, 0.7), "ratios": (3, 2)},
    ],
    ids=str,
)
def test_multibox_prior(attrs: dict[str, Any], shape: tuple[int, ...]) -> None:
    """To the last bit: anchors decide which boxes overlap by how much."""
    check_operator(contrib.MultiBoxPrior(var("data"), **attrs), {"data": shape}, rtol=0, atol=0)


# -- MultiBoxDetection ------------------------------------------------------------------------


def ssd_outputs(
    batch: int, classes: int, anchors: int, coarse: bool, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return class probabilities, offsets and anchors; `coarse` ones with ties everywhere."""
    rng = np.random.default_rng(seed)
    probability = rng.random((batch, classes, anchors))
    offsets = rng.standard_normal((batch, 4 * anchors)) * 0.3
    low = rng.random((1, anchors, 2)) * 0.6
    boxes = np.concatenate([low, low + rng.random((1, anchors, 2)) * 0.6], -1)
    if coarse:
        probability, offsets, boxes = (
            np.round(probability * 5) / 5,
            offsets * 0,
            np.round(boxes * 4) / 4,
        )
    arrays = {"cls_prob": probability, "loc_pred": offsets, "anchor": boxes}
    return {name: array.astype("float32") for name, array in arrays.items()}


def multibox_detection(**attrs: Any) -> mx.sym.Symbol:
    return contrib.MultiBoxDetection(var("cls_prob"), var("loc_pred"), var("anchor"), **attrs)


DETECTION: list[dict[str, Any]] = [
    {},
    {"clip": False},
    {"threshold": 0.6},
    {"threshold": 2.0},
    {"threshold": -3.0},
    {"nms_topk": 5},
    {"nms_topk": 50},
    {"force_suppress": True},
    {"nms_threshold": 0.2},
    {"nms_threshold": 0},
    {"nms_threshold": 1},
    {"nms_threshold": 1.5},
    {"variances": (0.5, 0.2, 0.3, 0.4)},
    {"background_id": 1},
    {"nms_topk": 5, "force_suppress": True, "nms_threshold": 0.25},
]


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("sizes", [(1, 2, 9), (2, 4, 23)], ids=str)
@pytest.mark.parametrize("attrs", DETECTION, ids=str)
def test_multibox_detection(
    attrs: dict[str, Any], sizes: tuple[int, int, int], coarse: bool
) -> None:
    check_operator(multibox_detection(**attrs), ssd_outputs(*sizes, coarse))


def test_multibox_detection_without_any_score() -> None:
    """Probabilities below -1 are what MXNet starts its search with."""
    arrays = ssd_outputs(1, 3, 6, coarse=False)
    arrays["cls_prob"][:, :, ::2] = -1.5
    check_operator(multibox_detection(threshold=-9.0), arrays)


def test_multibox_detection_of_many_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppression, "PAIRS_LIMIT", 0)
    monkeypatch.setattr(suppression, "BLOCK_ROWS", (1, 4))
    monkeypatch.setattr(suppression, "TOPK_LIMIT", 7)
    for attrs in ({}, {"nms_topk": 9}, {"nms_threshold": 0}):
        check_operator(multibox_detection(**attrs), ssd_outputs(2, 4, 23, coarse=True))


@pytest.mark.slow
@pytest.mark.parametrize("nms_topk", [-1, 400])
def test_multibox_detection_of_ssd_300(nms_topk: int) -> None:
    check_operator(multibox_detection(nms_topk=nms_topk), ssd_outputs(1, 21, 8732, coarse=False))


def test_multibox_detection_for_other_numbers_of_anchors() -> None:
    shapes = {"cls_prob": (None, 4, None), "loc_pred": (None, None), "anchor": (1, None, 4)}
    symbol = multibox_detection(nms_topk=6)
    optimized, _ = optimize_whole(symbol, shapes=shapes)
    for batch, anchors in ((1, 4), (3, 11)):
        arrays = ssd_outputs(batch, 4, anchors, coarse=True)
        found, expected = run_engines(optimized, arrays), run_mxnet(symbol, arrays)
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-6)


def test_refusals() -> None:
    arrays = ssd_outputs(1, 1, 5, coarse=False)
    check_refused(multibox_detection(), arrays, "cls_prob has no class but the background")
    target = contrib.MultiBoxTarget(var("anchor"), var("label"), var("cls_pred"))
    inputs = {"anchor": (1, 4, 4), "label": (1, 2, 5), "cls_pred": (1, 3, 4)}
    check_refused(mx.sym.relu(target[2]), inputs, "makes the targets of training from labels")


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 3),
    classes=st.integers(2, 5),
    anchors=st.integers(1, 20),
    nms_topk=st.integers(-1, 25),
    threshold=st.sampled_from([0.01, 0.4, 0.8]),
    nms_threshold=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    force=st.booleans(),
    coarse=st.booleans(),
)
def test_random_detections(
    seed: int,
    batch: int,
    classes: int,
    anchors: int,
    nms_topk: int,
    threshold: float,
    nms_threshold: float,
    force: bool,
    coarse: bool,
) -> None:
    symbol = multibox_detection(
        nms_topk=nms_topk, threshold=threshold, nms_threshold=nms_threshold, force_suppress=force
    )
    arrays = ssd_outputs(batch, classes, anchors, coarse, seed)
    check_operator(symbol, arrays, unknown_sizes=False)


@pytest.mark.parametrize(
    ("symbol", "shapes"),
    [
        (contrib.box_iou(var("lhs"), var("rhs")), {"lhs": (5, 4), "rhs": (2, 3, 4)}),
        (contrib.box_decode(var("data"), var("a")), {"data": (2, 7, 4), "a": (1, 7, 4)}),
        (contrib.bipartite_matching(var("data"), threshold=0.5), {"data": (2, 7, 4)}),
        (contrib.MultiBoxPrior(var("data"), sizes=(0.1, 0.2)), {"data": (1, 3, 4, 5)}),
        (
            multibox_detection(nms_topk=400),
            {"cls_prob": (1, 21, 8732), "loc_pred": (1, 34928), "anchor": (1, 8732, 4)},
        ),
    ],
    ids=lambda x: x.name if isinstance(x, mx.sym.Symbol) else "",
)
def test_tensorrt_takes_it(symbol: mx.sym.Symbol, shapes: dict[str, tuple[int, ...]]) -> None:
    for part in parts_as_onnx(symbol, None, shapes, min_subgraph_size=1):
        build_plan(part)
