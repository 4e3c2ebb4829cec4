"""The image classifiers of Gluon's own zoo, and one with its preprocessing in front."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import zoo_models as zoo

from .model import Arrays, Model, images, trace

IMAGE = "image classification"


def model(name: str) -> Model:
    """Return a model of Gluon's zoo."""

    def build() -> Any:
        net = mx.gluon.model_zoo.vision.get_model(name, pretrained=False)
        return trace(net, mx.sym.var("data"))

    size = zoo.image_size(name)
    return Model(f"gluon/{name}", IMAGE, build, images(1, 3, size, size))


def end_to_end() -> Any:
    """Return the symbol of a classifier of images as they come from a camera."""
    transforms = mx.gluon.data.vision.transforms
    net = mx.gluon.nn.HybridSequential()
    net.add(
        transforms.Resize(96),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        mx.gluon.model_zoo.vision.resnet18_v1(),
    )
    return trace(net, mx.sym.var("data"))


def photos(rng: np.random.Generator) -> Arrays:
    """Return images of bytes, with channels last."""
    return {"data": rng.integers(0, 256, (1, 120, 140, 3)).astype("uint8")}


MODELS = (
    *map(model, zoo.NAMES),
    Model("gluon/resnet18_v1_end_to_end", IMAGE, end_to_end, photos,
          graph="symbol/e2e_resnet18_end_to_end"),
)  # fmt: skip
