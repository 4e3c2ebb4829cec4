"""Models of GluonCV."""

from __future__ import annotations

from typing import Any

import mxnet as mx

from .model import Model, images, trace

IMAGE = "image classification"
BOXES = "object detection"
MASKS = "instance segmentation"
PIXELS = "semantic segmentation"
POSE = "pose"
VIDEO = "action recognition"


RCNN_GAINS = {"rpnhead": 0.3, r"rpn.*conv2": 0.2, "^dense": 0.5}


def model(name: str, family: str, *shape: int, rows: bool = False, **kwargs: Any) -> Model:
    """Return a model of GluonCV's zoo."""

    def build() -> Any:
        from gluoncv.model_zoo import get_model

        if family != IMAGE:  # they hold another net
            kwargs["pretrained_base"] = False
        return trace(get_model(name, pretrained=False, **kwargs), mx.sym.var("data"))

    return Model(f"gluoncv/{name}", family, build, images(*shape), rows)


def rcnn(name: str, family: str, proposals: int = 60) -> Model:
    """Return a detector with a second stage for a few proposals instead of hundreds."""

    def build() -> Any:
        from gluoncv.model_zoo import get_model

        net = get_model(name, pretrained=False, pretrained_base=False)
        net.rpn._test_post_nms = net._rpn_test_post_nms = net._rcnn_max_dets = proposals
        return trace(net, mx.sym.var("data"))

    return Model(f"gluoncv/{name}", family, build, images(1, 3, 256, 256), True, RCNN_GAINS)


MODELS = (
    model("cifar_resnet20_v1", IMAGE, 1, 3, 32, 32),
    model("resnest50", IMAGE, 1, 3, 128, 128),
    model("ssd_512_mobilenet1.0_voc", BOXES, 1, 3, 256, 256, rows=True),
    model("yolo3_mobilenet1.0_coco", BOXES, 1, 3, 256, 256, rows=True),
    rcnn("faster_rcnn_resnet50_v1b_voc", BOXES),
    rcnn("mask_rcnn_resnet50_v1b_coco", MASKS),
    rcnn("mask_rcnn_fpn_resnet18_v1b_coco", MASKS),
    model("center_net_resnet18_v1b_voc", BOXES, 1, 3, 256, 256, rows=True),
    model("center_net_resnet18_v1b_dcnv2_voc", BOXES, 1, 3, 256, 256, rows=True),
    model("fcn_resnet50_ade", PIXELS, 1, 3, 128, 128, crop_size=128),
    model("deeplab_resnet50_ade", PIXELS, 1, 3, 128, 128, crop_size=128),
    model("psp_resnet50_ade", PIXELS, 1, 3, 128, 128, crop_size=128),
    model("simple_pose_resnet18_v1b", POSE, 1, 3, 128, 96),
    model("alpha_pose_resnet101_v1b_coco", POSE, 1, 3, 128, 96),
    model("i3d_resnet50_v1_kinetics400", VIDEO, 1, 3, 16, 64, 64),
)
