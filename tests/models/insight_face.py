"""InsightFace's face recognition (ArcFace) and detection (RetinaFace), from MXNet operators.

InsightFace gives symbols, no blocks; these are built after its papers, with the operators and
the counts of the symbols that it ships.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mxnet as mx

from .model import Model, images

sym = mx.sym

RECOGNITION = "face recognition"
DETECTION = "face detection"
EPS = 2e-5


def norm(x: Any, name: str, **attrs: Any) -> Any:
    """Return a BatchNorm."""
    attrs = {"fix_gamma": False, "eps": EPS, **attrs}
    return sym.BatchNorm(x, name=name, **attrs)


def conv(x: Any, name: str, filters: int, kernel: int = 1, **attrs: Any) -> Any:
    """Return a convolution that keeps the size, but for its stride."""
    side, pad = (kernel, kernel), (kernel // 2, kernel // 2)
    return sym.Convolution(x, name=name, num_filter=filters, kernel=side, pad=pad, **attrs)


def arcface(units: Sequence[int], classes: int = 512) -> Any:
    """Return ArcFace's residual net: images ``(n, 3, 112, 112)`` -> ``(n, classes)``."""
    x = sym.identity(sym.var("data"), name="id")
    x = (x - 127.5) * 0.0078125
    x = norm(conv(x, "conv0", 64, 3, no_bias=True), "bn0")
    x = sym.LeakyReLU(x, act_type="prelu", name="relu0")
    for stage, count in enumerate(units, 1):
        for unit in range(1, count + 1):
            x = _arcface_unit(x, f"stage{stage}_unit{unit}", 32 << stage, 2 if unit == 1 else 1)
    x = sym.Dropout(norm(x, "bn1"), p=0.4)
    x = sym.FullyConnected(x, num_hidden=classes, name="pre_fc1")
    return norm(x, "fc1", fix_gamma=True)


def _arcface_unit(x: Any, name: str, filters: int, stride: int) -> Any:
    strided = {"stride": (stride, stride), "no_bias": True}
    y = conv(norm(x, f"{name}_bn1"), f"{name}_conv1", filters, 3, no_bias=True)
    y = sym.LeakyReLU(norm(y, f"{name}_bn2"), act_type="prelu", name=f"{name}_relu1")
    y = norm(conv(y, f"{name}_conv2", filters, 3, **strided), f"{name}_bn3")
    if stride == 1:
        return y + x
    return y + norm(conv(x, f"{name}_conv1sc", filters, **strided), f"{name}_sc")


def mobilenet() -> list[Any]:
    """Return the maps of a quarter MobileNet at strides 8, 16 and 32."""
    x = _unit(sym.var("data"), "conv_1", 8, 3, 2)
    maps = []
    plan = [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2),
            (256, 1)]  # fmt: skip
    channels = 8
    for i, (filters, stride) in enumerate(plan, 2):
        if stride == 2:
            maps.append(x)
        x = _unit(x, f"conv_{i}_dw", channels, 3, stride, num_group=channels)
        x = _unit(x, f"conv_{i}", filters)
        channels = filters
    return [*maps[2:], x]


def _unit(x: Any, name: str, filters: int, kernel: int = 1, stride: int = 1, **attrs: Any) -> Any:
    x = conv(x, name, filters, kernel, stride=(stride, stride), no_bias=True, **attrs)
    return sym.Activation(norm(x, f"{name}_bn"), act_type="relu", name=f"{name}_relu")


def resnet50() -> list[Any]:
    """Return the maps of a ResNet-50 with activations in front, at strides 8, 16 and 32."""
    x = norm(sym.var("data"), "bn_data", fix_gamma=True, use_global_stats=True)
    x = _unit(x, "conv0", 64, 7, 2)
    x = sym.Pooling(x, kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type="max")
    maps = []
    for stage, count in enumerate((3, 4, 6, 3), 1):
        for unit in range(1, count + 1):
            stride = 2 if stage > 1 and unit == 1 else 1
            x, active = _resnet_unit(x, f"s{stage}_u{unit}", 128 << stage, stride, unit == 1)
            if stride == 2:
                maps.append(active)
    return [*maps[1:], sym.Activation(norm(x, "bn1"), act_type="relu", name="relu1")]


def _resnet_unit(x: Any, name: str, filters: int, stride: int, first: bool) -> tuple[Any, Any]:
    active = sym.Activation(norm(x, f"{name}_bn1"), act_type="relu", name=f"{name}_relu1")
    y = _unit(active, f"{name}_conv1", filters // 4)
    y = _unit(y, f"{name}_conv2", filters // 4, 3, stride)
    y = conv(y, f"{name}_conv3", filters, no_bias=True)
    if first:
        x = conv(active, f"{name}_sc", filters, stride=(stride, stride), no_bias=True)
    return y + x, active


def retinaface(maps: Sequence[Any], filters: int) -> Any:
    """Return RetinaFace's heads: scores, boxes and landmarks at strides 32, 16 and 8."""
    fine, middle, coarse = (_biased(x, f"rf_c{i}_lateral", filters) for i, x in enumerate(maps, 1))
    middle = _biased(_merged(coarse, middle), "rf_c2_aggr", filters, 3)
    fine = _biased(_merged(middle, fine), "rf_c1_aggr", filters, 3)
    return sym.Group(
        [
            output
            for stride, x in ((32, coarse), (16, middle), (8, fine))
            for output in _head(_context(x, f"rf_s{stride}", filters), stride)
        ]
    )


def _biased(x: Any, name: str, filters: int, kernel: int = 1) -> Any:
    x = norm(conv(x, name, filters, kernel), f"{name}_bn")
    return sym.Activation(x, act_type="relu", name=f"{name}_relu")


def _merged(small: Any, large: Any) -> Any:
    """Return a map plus a smaller one, doubled and cut to its size."""
    doubled = sym.UpSampling(small, scale=2, sample_type="nearest", num_args=1)
    return large + sym.Crop(doubled, large)


def _context(x: Any, name: str, filters: int) -> Any:
    """Return SSH's module: convolutions of 3, 5 and 7 pixels in all, side by side."""
    three = norm(conv(x, f"{name}_conv1", filters, 3), f"{name}_conv1_bn")
    wide = _biased(x, f"{name}_context1", filters // 2, 3)
    five = norm(conv(wide, f"{name}_context2", filters // 2, 3), f"{name}_context2_bn")
    wide = _biased(wide, f"{name}_context3", filters // 2, 3)
    seven = norm(conv(wide, f"{name}_context4", filters // 2, 3), f"{name}_context4_bn")
    joined = sym.concat(three, five, seven, dim=1)
    return sym.Activation(joined, act_type="relu", name=f"{name}_relu")


def _head(x: Any, stride: int, anchors: int = 2) -> list[Any]:
    score = sym.Reshape(conv(x, f"score_stride{stride}", 2 * anchors), shape=(0, 2, -1, 0))
    score = sym.SoftmaxActivation(score, mode="channel")
    return [
        sym.Reshape(score, shape=(0, 2 * anchors, -1, 0)),
        conv(x, f"bbox_stride{stride}", 4 * anchors),
        conv(x, f"landmark_stride{stride}", 10 * anchors),
    ]


def face_model(
    name: str, family: str, build: Callable[[], Any], *shape: int, graph: str | None = None
) -> Model:
    """Return a model of InsightFace's."""
    return Model(f"insightface/{name}", family, lambda: (build(), {}), images(*shape), graph=graph)


FACE, SCENE = (1, 3, 112, 112), (1, 3, 162, 226)

MODELS = (
    face_model("arcface_r50", RECOGNITION, lambda: arcface((3, 4, 14, 3)), *FACE),
    face_model(
        "arcface_r100",
        RECOGNITION,
        lambda: arcface((3, 13, 30, 3)),
        *FACE,
        graph="symbol/arcface_arcface",
    ),
    face_model(
        "retinaface_mnet25",
        DETECTION,
        lambda: retinaface(mobilenet(), 64),
        *SCENE,
        graph="real/retinaface_mnet25",
    ),
    face_model(
        "retinaface_r50",
        DETECTION,
        lambda: retinaface(resnet50(), 256),
        *SCENE,
        graph="symbol/arcface_R50",
    ),
)
