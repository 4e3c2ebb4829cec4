"""The heads of well-known detectors, written as their authors wrote them, on small random maps.

No node may stay in MXNet, and the boxes must be MXNet's own.
"""

from __future__ import annotations

from collections.abc import Callable

import mxnet as mx
import numpy as np
import pytest
from operators import ENGINE, check_none_left, check_operator, random_array
from rtx import build_plan, parts_as_onnx

import mxtrt

sym, contrib = mx.sym, mx.sym.contrib


def conv(x: mx.sym.Symbol, name: str, filters: int, **attrs: object) -> mx.sym.Symbol:
    attrs = {"kernel": (3, 3), "pad": (1, 1), **attrs}
    return sym.Convolution(x, name=name, num_filter=filters, **attrs)


def features(data: mx.sym.Symbol) -> list[mx.sym.Symbol]:
    """Return maps of a half and of a quarter of the image."""
    half = sym.Activation(conv(data, "c1", 8, stride=(2, 2)), act_type="relu")
    quarter = sym.Activation(conv(half, "c2", 8, stride=(2, 2)), act_type="relu")
    return [half, quarter]


def ssd() -> mx.sym.Symbol:
    """As in MXNet's own example: priors on each map, and one MultiBoxDetection for all."""
    locations, classes, anchors = [], [], []
    for i, layer in enumerate(features(sym.var("data"))):
        prior = contrib.MultiBoxPrior(
            layer, sizes=(0.2 + 0.3 * i, 0.3 + 0.3 * i), ratios=(1, 2, 0.5), clip=False
        )
        location = sym.transpose(conv(layer, f"loc{i}", 16), axes=(0, 2, 3, 1))
        score = sym.transpose(conv(layer, f"cls{i}", 16), axes=(0, 2, 3, 1))
        locations.append(sym.Flatten(location))
        classes.append(sym.Flatten(score))
        anchors.append(sym.Flatten(prior))
    location = sym.Concat(*locations, dim=1)
    anchor = sym.Reshape(sym.Concat(*anchors, dim=1), shape=(0, -1, 4))
    score = sym.Reshape(sym.Concat(*classes, dim=1), shape=(0, -1, 4))
    score = sym.SoftmaxActivation(sym.transpose(score, axes=(0, 2, 1)), mode="channel")
    return contrib.MultiBoxDetection(
        score, location, anchor, nms_threshold=0.45, nms_topk=100, force_suppress=False
    )


def gluon_ssd() -> mx.sym.Symbol:
    """As in GluonCV: decoded per class, then box_nms over all classes."""
    _, layer = features(sym.var("data"))
    score = sym.reshape(sym.transpose(conv(layer, "cls", 8), axes=(0, 2, 3, 1)), shape=(0, -1, 4))
    offset = sym.reshape(sym.transpose(conv(layer, "loc", 8), axes=(0, 2, 3, 1)), shape=(0, -1, 4))
    anchors = contrib.MultiBoxPrior(layer, sizes=(0.4, 0.6))
    box = contrib.box_decode(
        offset, anchors, std0=0.1, std1=0.1, std2=0.2, std3=0.2, format="corner", clip=4.0
    )
    probability = sym.softmax(score, axis=-1)
    rows = []
    for i in range(3):
        score = sym.slice_axis(probability, axis=-1, begin=i + 1, end=i + 2)
        label = sym.where(score > 0.01, sym.zeros_like(score) + i, sym.ones_like(score) * -1)
        rows.append(sym.concat(label, score, box, dim=-1))
    result = contrib.box_nms(
        sym.concat(*rows, dim=1), overlap_thresh=0.45, topk=30, valid_thresh=0.01,
        id_index=0, score_index=1, coord_start=2, force_suppress=False,
    )  # fmt: skip
    result = sym.slice_axis(result, axis=1, begin=0, end=20)
    ids = sym.slice_axis(result, axis=2, begin=0, end=1)
    return sym.Group([ids, sym.slice_axis(result, axis=2, begin=1, end=6)])


def yolo3() -> mx.sym.Symbol:
    """GluonCV's YOLOOutputV3 with two anchors and three classes."""
    _, layer = features(sym.var("data"))
    x = sym.reshape(conv(layer, "pred", 16, kernel=(1, 1), pad=(0, 0)), shape=(0, 16, -1))
    x = sym.reshape(sym.transpose(x, axes=(0, 2, 1)), shape=(0, -1, 2, 8))
    center, scale, objness, classes = (
        sym.slice_axis(x, axis=-1, begin=begin, end=end)
        for begin, end in ((0, 2), (2, 4), (4, 5), (5, None))
    )
    center = sym.broadcast_add(sym.sigmoid(center), sym.var("offsets")) * 4
    half = sym.broadcast_mul(sym.exp(scale), sym.var("anchors")) / 2.0
    box = sym.concat(center - half, center + half, dim=-1)
    score = sym.broadcast_mul(sym.sigmoid(classes), sym.sigmoid(objness))
    boxes = sym.expand_dims(sym.reshape(box, shape=(0, -3, -1)), axis=0)
    boxes = sym.tile(boxes, reps=(3, 1, 1, 1))
    scores = sym.transpose(sym.reshape(score, shape=(0, -3, -1)), axes=(2, 0, 1))
    scores = sym.expand_dims(scores, axis=-1)
    number = sym.reshape(sym.arange(start=0, stop=3), shape=(0, 1, 1, 1))
    ids = sym.broadcast_add(scores * 0, number)
    detections = sym.concat(ids, scores, boxes, dim=-1)
    detections = sym.reshape(sym.transpose(detections, axes=(1, 0, 2, 3)), shape=(0, -1, 6))
    return contrib.box_nms(detections, overlap_thresh=0.45, valid_thresh=0.01, topk=50, id_index=0)


def center_net() -> mx.sym.Symbol:
    """The peaks of a heat map, and the sizes and offsets that stand there."""
    _, layer = features(sym.var("data"))
    heat = sym.sigmoid(conv(layer, "heat", 3))
    size, shift = conv(layer, "wh", 2), conv(layer, "reg", 2)
    highest = sym.Pooling(heat, kernel=(3, 3), pad=(1, 1), stride=(1, 1), pool_type="max")
    heat = sym.where(highest == heat, heat, sym.zeros_like(heat))
    flat = sym.reshape(heat, shape=(0, -1))
    scores, index = sym.topk(flat, k=6, ret_typ="both", is_ascend=False)
    index = sym.cast(index, "int32")
    place = sym.cast(index % 64, "int32")  # of a map of 8 x 8
    ids = sym.floor(sym.cast(index, "float32") / 64)
    rows, cols = sym.floor(sym.cast(place, "float32") / 8), sym.cast(place % 8, "float32")
    picked = []
    for maps in (size, shift):
        rows_of = sym.reshape(sym.transpose(maps, axes=(0, 2, 3, 1)), shape=(-1, 2))
        picked.append(sym.take(rows_of, place))
    half = picked[0] / 2
    center = sym.stack(cols, rows, axis=-1) + picked[1]
    boxes = sym.concat(center - half, center + half, dim=-1) * 4
    return sym.Group([ids, scores, boxes])


def retina_face() -> mx.sym.Symbol:
    """The tail of InsightFace's RetinaFace: a pyramid with Crop, then scores by anchor."""
    half, quarter = features(sym.var("data"))
    lateral = conv(half, "lateral", 8, kernel=(1, 1), pad=(0, 0))
    up = sym.UpSampling(quarter, scale=2, sample_type="nearest", num_args=1)
    up = sym.Crop(up, lateral, num_args=2)
    merged = sym.Activation(conv(lateral + up, "merge", 8), act_type="relu")
    heads = []
    for i, layer in enumerate((merged, quarter)):
        score = conv(layer, f"score{i}", 4, kernel=(1, 1), pad=(0, 0))
        score = sym.Reshape(score, shape=(0, 2, -1, 0))
        score = sym.SoftmaxActivation(score, mode="channel")
        heads.append(sym.Reshape(score, shape=(0, 4, -1, 0), name=f"prob{i}"))
        heads.append(conv(layer, f"bbox{i}", 8, kernel=(1, 1), pad=(0, 0)))
        heads.append(conv(layer, f"landmark{i}", 20, kernel=(1, 1), pad=(0, 0)))
    return sym.Group(heads)


def rpn(layer: mx.sym.Symbol) -> tuple[mx.sym.Symbol, mx.sym.Symbol]:
    """Return scores and offsets of 6 anchors; scores far apart, so that none are equal."""
    score = sym.Reshape(conv(layer, "rpn_score", 12), shape=(0, 2, -1, 0))
    probability = sym.SoftmaxActivation(score, mode="channel")
    return sym.Reshape(probability, shape=(0, 12, -1, 0)), conv(layer, "rpn_bbox", 24) * 0.1


def faster_rcnn(pool: Callable[[mx.sym.Symbol, mx.sym.Symbol], mx.sym.Symbol]) -> mx.sym.Symbol:
    """As in the mx-rcnn projects, for images of 32 x 32 whose quarter is the map."""
    _, layer = features(sym.var("data"))
    score, offset = rpn(layer)
    rois = contrib.MultiProposal(
        score, offset, sym.var("im_info"), feature_stride=4, scales=(1, 2), ratios=(0.5, 1, 2),
        rpn_pre_nms_top_n=60, rpn_post_nms_top_n=8, threshold=0.7, rpn_min_size=2,
    )  # fmt: skip
    return sym.Group([rois, pool(layer, rois)])


def pooled_by_roi_pooling(layer: mx.sym.Symbol, rois: mx.sym.Symbol) -> mx.sym.Symbol:
    pooled = sym.ROIPooling(layer, rois, pooled_size=(3, 3), spatial_scale=0.25)
    scores = sym.FullyConnected(sym.Flatten(pooled), num_hidden=4, name="cls")
    return sym.softmax(scores, axis=-1)


def pooled_by_roi_align(layer: mx.sym.Symbol, rois: mx.sym.Symbol) -> mx.sym.Symbol:
    pooled = contrib.ROIAlign(layer, rois, pooled_size=(3, 3), spatial_scale=0.25, sample_ratio=2)
    return sym.FullyConnected(sym.Flatten(pooled), num_hidden=4, name="cls")


def pooled_by_position(layer: mx.sym.Symbol, rois: mx.sym.Symbol) -> mx.sym.Symbol:
    """The head of R-FCN, behind a deformable convolution."""
    offset = conv(layer, "offset", 18)
    deformed = contrib.DeformableConvolution(
        layer, offset, kernel=(3, 3), pad=(1, 1), num_filter=8, name="deformed"
    )
    maps = conv(deformed, "maps", 36, kernel=(1, 1), pad=(0, 0))
    pooled = contrib.PSROIPooling(maps, rois, spatial_scale=0.25, output_dim=4, pooled_size=3)
    average = sym.Pooling(pooled, global_pool=True, kernel=(3, 3), pool_type="avg")
    return sym.softmax(sym.Flatten(average))


NETS: dict[str, mx.sym.Symbol] = {
    "ssd": ssd(),
    "gluon_ssd": gluon_ssd(),
    "yolo3": yolo3(),
    "center_net": center_net(),
    "retina_face": retina_face(),
    "faster_rcnn": faster_rcnn(pooled_by_roi_pooling),
    "faster_rcnn_align": faster_rcnn(pooled_by_roi_align),
    "r_fcn": faster_rcnn(pooled_by_position),
}


def arrays_for(symbol: mx.sym.Symbol) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return inputs for a 32 x 32 image, and weights that keep the maps' size."""
    inputs = {"data": random_array((1, 3, 32, 32))}
    if "im_info" in symbol.list_arguments():
        inputs["im_info"] = np.array([[32, 32, 1]], "float32")
    params = {}
    if "offsets" in symbol.list_arguments():
        cells = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0)), -1)
        params["offsets"] = cells.reshape(1, 64, 1, 2)
        params["anchors"] = np.array([6.0, 9, 12, 8]).reshape(1, 1, 2, 2)
    given = {k: v.shape for k, v in {**inputs, **params}.items()}
    shapes, _, _ = symbol.infer_shape(**given)
    for i, (name, shape) in enumerate(zip(symbol.list_arguments(), shapes)):
        if name not in given:
            spread = 1.5 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.1
            params[name] = random_array(shape, seed=100 + i) * spread
    return inputs, {name: array.astype("float32") for name, array in params.items()}


@pytest.mark.parametrize("net", NETS)
def test_detector(net: str) -> None:
    inputs, params = arrays_for(NETS[net])
    check_operator(NETS[net], inputs, params)


@pytest.mark.parametrize("net", NETS)
def test_all_in_one_part(net: str) -> None:
    inputs, params = arrays_for(NETS[net])
    weights = {name: mx.nd.array(array) for name, array in params.items()}
    shapes = {name: array.shape for name, array in inputs.items()}
    report = mxtrt.explain(NETS[net], weights, shapes=shapes, engine=ENGINE)
    check_none_left(report.left)
    assert len(report.parts) == 1


@pytest.mark.parametrize("net", sorted({*NETS} - {"faster_rcnn", "faster_rcnn_align"}))
def test_tensorrt_takes_it(net: str) -> None:
    """All but those with MaxRoiPool, which it does not have, and RoiAlign, which needs a GPU."""
    inputs, params = arrays_for(NETS[net])
    weights = {name: mx.nd.array(array) for name, array in params.items()}
    shapes = {name: array.shape for name, array in inputs.items()}
    for part in parts_as_onnx(NETS[net], weights, shapes):
        build_plan(part)
