"""``Proposal`` and ``MultiProposal`` against MXNet.

MXNet sorts with ``std::sort``, which has no rule for equal scores: the scores here differ, and no
more boxes are asked for than there are with a score of their own (those that are dropped get -1).
"""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import check_operator
from rtx import build_plan, parts_as_onnx

from mxtrt.converters import suppression

OPS = {"Proposal": 1, "MultiProposal": 3}  # images at a time
SMALL: dict[str, Any] = {
    "rpn_post_nms_top_n": 20,
    "rpn_min_size": 1,
    "scales": (2, 4),
    "ratios": (0.5, 1, 2),
}


def proposal(op: str, **attrs: Any) -> mx.sym.Symbol:
    names = ("cls_prob", "bbox_pred", "im_info")
    return getattr(mx.sym.contrib, op)(*map(mx.sym.var, names), name="rpn", **attrs)


def rpn_outputs(
    images: int, attrs: dict[str, Any], size: tuple[int, int] = (6, 7), seed: int = 0
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    anchors = len(attrs["scales"]) * len(attrs["ratios"])
    shape = (images, 2 * anchors, *size)
    scores = rng.permutation(np.prod(shape)).reshape(shape) / np.prod(shape)
    moved = rng.standard_normal((images, 4 * anchors, *size)) * (30 if "iou_loss" in attrs else 0.3)
    height, width = (n * attrs.get("feature_stride", 16) for n in size)
    info = [(height - 3, width - 20, 1.0), (height, width, 1.5), (height - 16, width - 5, 0.5)]
    arrays = {"cls_prob": scores, "bbox_pred": moved, "im_info": np.array(info[:images])}
    return {name: array.astype("float32") for name, array in arrays.items()}


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(
    "attrs",
    [
        {},
        {"rpn_pre_nms_top_n": 60},
        {"rpn_pre_nms_top_n": -1, "rpn_post_nms_top_n": 6},
        {"rpn_pre_nms_top_n": 60, "rpn_post_nms_top_n": 80},
        {"rpn_pre_nms_top_n": 1, "rpn_post_nms_top_n": 3},
        {"threshold": 0.3, "rpn_post_nms_top_n": 50},
        {"iou_loss": True},
        {"scales": (2, 3.7), "ratios": (0.3, 1, 3)},
        {"feature_stride": 8, "scales": (4,)},
        {"rpn_min_size": 30, "rpn_pre_nms_top_n": 20},
    ],
    ids=str,
)
def test_options(op: str, attrs: dict[str, Any]) -> None:
    attrs = {**SMALL, **attrs}
    check_operator(proposal(op, **attrs), rpn_outputs(OPS[op], attrs))


@pytest.mark.parametrize("op", OPS)
def test_defaults(op: str) -> None:
    attrs = {"scales": (4, 8, 16, 32), "ratios": (0.5, 1, 2)}
    check_operator(proposal(op), rpn_outputs(OPS[op], attrs, (14, 14)), unknown_sizes=False)


@pytest.mark.parametrize("op", OPS)
def test_scores(op: str) -> None:
    rois, scores = proposal(op, output_score=True, **SMALL)
    both = mx.sym.Group([rois, mx.sym.relu(scores)])  # the score cannot be a head by its own name
    check_operator(both, rpn_outputs(OPS[op], SMALL))


@pytest.mark.parametrize("op", OPS)
def test_more_boxes_than_are_compared_at_once(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppression, "PAIRS_LIMIT", 0)
    monkeypatch.setattr(suppression, "BLOCK_ROWS", (1, 4))
    monkeypatch.setattr(suppression, "TOPK_LIMIT", 37)
    check_operator(proposal(op, **SMALL), rpn_outputs(OPS[op], SMALL))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1000),
    op=st.sampled_from(sorted(OPS)),
    height=st.integers(2, 6),
    width=st.integers(2, 6),
    pre=st.integers(1, 12),
    post=st.integers(1, 15),
    threshold=st.sampled_from([0.3, 0.5, 0.7]),
    iou_loss=st.booleans(),
)
def test_random_proposals(
    seed: int,
    op: str,
    height: int,
    width: int,
    pre: int,
    post: int,
    threshold: float,
    iou_loss: bool,
) -> None:
    attrs = {**SMALL, "rpn_pre_nms_top_n": pre, "rpn_post_nms_top_n": post, "threshold": threshold}
    if iou_loss:
        attrs["iou_loss"] = True
    arrays = rpn_outputs(OPS[op], attrs, (height, width), seed)
    arrays["im_info"][:, :2] = height * 16, width * 16  # none is dropped, so all scores differ
    check_operator(proposal(op, **attrs), arrays, unknown_sizes=False)


@pytest.mark.parametrize("op", OPS)
def test_tensorrt_takes_it(op: str) -> None:
    shapes = {name: array.shape for name, array in rpn_outputs(OPS[op], SMALL).items()}
    for part in parts_as_onnx(proposal(op, **SMALL), None, shapes, min_subgraph_size=1):
        build_plan(part)
