"""Models of GluonCV."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mxnet as mx

from .model import Model, images, trace

IMAGE = "image classification"
BOXES = "object detection"
MASKS = "instance segmentation"
PIXELS = "semantic segmentation"
POSE = "pose"
VIDEO = "action recognition"
DEPTH = "depth"


RCNN_GAINS = {"rpnhead": 0.3, r"rpn.*conv2": 0.2, "^dense": 0.5}


GRAPHS = {
    "resnet152_v1d": "symbol/djl_resnet152_v1d",
    "resnext101_64x4d": "symbol/djl_resnext101_64x4d",
    "se_resnext101_32x4d": "symbol/djl_se_resnext101_32x4d",
    "se_resnext101_64x4d": "symbol/djl_se_resnext101_64x4d",
    "senet_154": "symbol/djl_senet_154",
    "simple_pose_resnet50_v1b": "symbol/djl_simple_pose_resnet50_v1b",
    "simple_pose_resnet101_v1d": "symbol/djl_simple_pose_resnet101_v1d",
    "simple_pose_resnet152_v1b": "symbol/djl_simple_pose_resnet152_v1b",
    "simple_pose_resnet152_v1d": "symbol/djl_simple_pose_resnet152_v1d",
}
"""Models that stand in lists of graphs under other names than their own."""

VGG_GAINS = {"convpredictor": 0.02}  # the nets multiply images by 57 and have no BatchNorm


def model(
    name: str,
    family: str,
    *shape: int,
    rows: bool = False,
    gains: Mapping[str, float] | None = None,
    **kwargs: Any,
) -> Model:
    """Return a model of GluonCV's zoo."""

    def build() -> Any:
        from gluoncv.model_zoo import get_model

        if family != IMAGE and not name.startswith("hrnet"):  # they hold another net
            kwargs["pretrained_base"] = False
        return trace(get_model(name, pretrained=False, **kwargs), mx.sym.var("data"))

    return Model(
        f"gluoncv/{name}", family, build, images(*shape), rows, gains or {}, GRAPHS.get(name)
    )


def rcnn(name: str, family: str, proposals: int = 60) -> Model:
    """Return a detector with a second stage for a few proposals instead of hundreds."""

    def build() -> Any:
        from gluoncv.model_zoo import get_model

        net = get_model(name, pretrained=False, pretrained_base=False)
        net.rpn._test_post_nms = net._rpn_test_post_nms = net._rcnn_max_dets = proposals
        return trace(net, mx.sym.var("data"))

    return Model(f"gluoncv/{name}", family, build, images(1, 3, 256, 256), True, RCNN_GAINS)


def frames(name: str, module: str, block: str, *shape: int) -> Model:
    """Return a classifier of single frames; the zoo's own function wants weights at once."""

    def build() -> Any:
        package = importlib.import_module(f"gluoncv.model_zoo.action_recognition.{module}")
        net = getattr(package, block)(nclass=101, pretrained_base=False)
        return trace(net, mx.sym.var("data"))

    return Model(f"gluoncv/{name}", VIDEO, build, images(*shape))


def quantized(name: str, family: str, size: int, rows: bool = False) -> Model:
    """Return a model of 8 bits, whose symbol GluonCV ships."""

    def build() -> Any:
        from gluoncv.model_zoo import get_model, quantized

        folder = Path(quantized.__file__).parent
        symbol = mx.sym.load(str(folder / f"{name}_int8-symbol.json"))
        if not rows:
            return symbol, {}
        net = get_model(name, pretrained=False, pretrained_base=False)
        _, constants = trace(net, mx.sym.var("data"))
        own = {_without_prefix(name): array for name, array in constants.items()}
        return symbol, {
            name: own[_without_prefix(name)]
            for name in symbol.list_arguments()
            if _without_prefix(name) in own
        }

    shape, gains = (1, 3, size, size), VGG_GAINS if "vgg" in name else {"convpredictor": 0.3}
    graph = f"symbol/mxsharp_{name}_int8"
    return Model(f"gluoncv/{name}_int8", family, build, images(*shape), rows, gains, graph, 0.05)


def _without_prefix(name: str) -> str:
    """Return a parameter's name without the net's, which has a number in it."""
    return name.partition("_")[2]


PIXELS_SIZE = {"crop_size": 128}

MODELS = (
    model("cifar_resnet20_v1", IMAGE, 1, 3, 32, 32),
    model("cifar_wideresnet16_10", IMAGE, 1, 3, 32, 32),
    model("cifar_resnext29_32x4d", IMAGE, 1, 3, 32, 32),
    model("darknet53", IMAGE, 1, 3, 96, 96),
    model("dla34", IMAGE, 1, 3, 224, 224),
    model("googlenet", IMAGE, 1, 3, 224, 224),
    model("hrnet_w18_small_v1_c", IMAGE, 1, 3, 128, 128),
    model("mobilenetv3_small", IMAGE, 1, 3, 96, 96),
    model("mobilenetv3_large", IMAGE, 1, 3, 96, 96),
    model("nasnet_4_1056", IMAGE, 1, 3, 224, 224),
    model("residualattentionnet56", IMAGE, 1, 3, 224, 224),
    model("resnest50", IMAGE, 1, 3, 128, 128),
    model("resnet152_v1d", IMAGE, 1, 3, 96, 96),
    model("resnet50_v1d_0.11", IMAGE, 1, 3, 96, 96),
    model("resnext101_64x4d", IMAGE, 1, 3, 96, 96),
    model("se_resnext50_32x4d", IMAGE, 1, 3, 96, 96),
    model("se_resnext101_32x4d", IMAGE, 1, 3, 96, 96),
    model("se_resnext101_64x4d", IMAGE, 1, 3, 96, 96),
    model("senet_154", IMAGE, 1, 3, 96, 96),
    model("shufflenet_v1", IMAGE, 1, 3, 224, 224),
    model("shufflenet_v2", IMAGE, 1, 3, 224, 224),
    model("xception", IMAGE, 1, 3, 128, 128),
    quantized("mobilenet1.0", IMAGE, 224),
    quantized("resnet50_v1", IMAGE, 224),
    model("ssd_512_mobilenet1.0_voc", BOXES, 1, 3, 256, 256, rows=True),
    model("ssd_512_resnet50_v1_voc", BOXES, 1, 3, 256, 256, rows=True),
    model("ssd_512_vgg16_atrous_voc", BOXES, 1, 3, 512, 512, rows=True, gains=VGG_GAINS),
    model("ssd_300_vgg16_atrous_voc", BOXES, 1, 3, 300, 300, rows=True, gains=VGG_GAINS),
    quantized("ssd_300_vgg16_atrous_voc", BOXES, 300, rows=True),
    quantized("ssd_512_mobilenet1.0_voc", BOXES, 512, rows=True),
    quantized("ssd_512_resnet50_v1_voc", BOXES, 512, rows=True),
    quantized("ssd_512_vgg16_atrous_voc", BOXES, 512, rows=True),
    model("yolo3_mobilenet1.0_coco", BOXES, 1, 3, 256, 256, rows=True),
    model("yolo3_darknet53_coco", BOXES, 1, 3, 256, 256, rows=True),
    rcnn("faster_rcnn_resnet50_v1b_voc", BOXES),
    rcnn("faster_rcnn_fpn_resnet50_v1b_coco", BOXES),
    rcnn("doublehead_rcnn_resnet50_v1b_voc", BOXES),
    model("center_net_resnet18_v1b_voc", BOXES, 1, 3, 256, 256, rows=True),
    model("center_net_resnet18_v1b_dcnv2_voc", BOXES, 1, 3, 256, 256, rows=True),
    model("center_net_dla34_voc", BOXES, 1, 3, 256, 256, rows=True),
    model("center_net_mobilenetv3_small_duc_voc", BOXES, 1, 3, 256, 256, rows=True),
    rcnn("mask_rcnn_resnet50_v1b_coco", MASKS),
    rcnn("mask_rcnn_resnet18_v1b_coco", MASKS),
    rcnn("mask_rcnn_resnet101_v1d_coco", MASKS),
    rcnn("mask_rcnn_fpn_resnet18_v1b_coco", MASKS),
    model("fcn_resnet50_ade", PIXELS, 1, 3, 128, 128, **PIXELS_SIZE),
    model("deeplab_resnet50_ade", PIXELS, 1, 3, 128, 128, **PIXELS_SIZE),
    model("deeplab_resnest50_ade", PIXELS, 1, 3, 128, 128, **PIXELS_SIZE),
    model("deeplab_v3b_plus_wideresnet_citys", PIXELS, 1, 3, 128, 128, **PIXELS_SIZE),
    model("psp_resnet50_ade", PIXELS, 1, 3, 128, 128, **PIXELS_SIZE),
    model("danet_resnet50_citys", PIXELS, 1, 3, 128, 128, **PIXELS_SIZE),
    model("icnet_resnet50_citys", PIXELS, 1, 3, 256, 256, crop_size=256),
    model("fastscnn_citys", PIXELS, 1, 3, 128, 128, **PIXELS_SIZE),
    model("hrnet_w18_small_v1_s", PIXELS, 1, 3, 128, 128),
    model("simple_pose_resnet18_v1b", POSE, 1, 3, 128, 96),
    model("simple_pose_resnet50_v1b", POSE, 1, 3, 128, 96),
    model("simple_pose_resnet101_v1d", POSE, 1, 3, 128, 96),
    model("simple_pose_resnet152_v1b", POSE, 1, 3, 128, 96),
    model("simple_pose_resnet152_v1d", POSE, 1, 3, 128, 96),
    model("mobile_pose_mobilenet1.0", POSE, 1, 3, 128, 96),
    model("alpha_pose_resnet101_v1b_coco", POSE, 1, 3, 128, 96),
    frames("vgg16_ucf101", "actionrec_vgg16", "ActionRecVGG16", 1, 3, 224, 224),
    frames("inceptionv3_ucf101", "actionrec_inceptionv3", "ActionRecInceptionV3", 1, 3, 299, 299),
    model("c3d_kinetics400", VIDEO, 1, 3, 16, 112, 112),
    model("p3d_resnet50_kinetics400", VIDEO, 1, 3, 16, 96, 96),
    model("r2plus1d_resnet18_kinetics400", VIDEO, 1, 3, 8, 64, 64),
    model("i3d_inceptionv1_kinetics400", VIDEO, 1, 3, 16, 96, 96),
    model("i3d_resnet50_v1_kinetics400", VIDEO, 1, 3, 16, 64, 64),
    model("i3d_nl5_resnet50_v1_kinetics400", VIDEO, 1, 3, 16, 64, 64),
    model("slowfast_4x16_resnet50_kinetics400", VIDEO, 1, 3, 36, 64, 64),
    model("monodepth2_resnet18_kitti_stereo_640x192", DEPTH, 1, 3, 64, 96),
)
