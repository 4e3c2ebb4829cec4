"""The 34 image classifiers of Gluon's model zoo, with seeded weights."""

from __future__ import annotations

import mxnet as mx
import numpy as np
from mxnet.gluon.model_zoo import vision

NAMES = (
    "alexnet", "densenet121", "densenet161", "densenet169", "densenet201", "inceptionv3",
    "mobilenet0.25", "mobilenet0.5", "mobilenet0.75", "mobilenet1.0", "mobilenetv2_0.25",
    "mobilenetv2_0.5", "mobilenetv2_0.75", "mobilenetv2_1.0", "resnet101_v1", "resnet101_v2",
    "resnet152_v1", "resnet152_v2", "resnet18_v1", "resnet18_v2", "resnet34_v1", "resnet34_v2",
    "resnet50_v1", "resnet50_v2", "squeezenet1.0", "squeezenet1.1", "vgg11", "vgg11_bn", "vgg13",
    "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn",
)  # fmt: skip

SMALL = ("mobilenet", "resnet")  # these end in a global pool: any size will do


def image_size(name: str) -> int:
    """Return the smallest convenient image size of a model."""
    if name == "inceptionv3":
        return 299
    return 96 if name.startswith(SMALL) else 224


def zoo_model(
    name: str, classes: int = 1000
) -> tuple[mx.sym.Symbol, dict[str, mx.nd.NDArray], dict[str, mx.nd.NDArray]]:
    """Return the symbol, args and auxiliary states of a model with seeded weights.

    Weights are drawn so that activations keep their size from layer to layer, and the
    statistics of BatchNorm differ from its defaults so that each of them matters.
    """
    mx.random.seed(7)
    net = vision.get_model(name, pretrained=False, classes=classes)
    net.initialize(mx.init.MSRAPrelu(slope=0))
    size = image_size(name)
    net(mx.nd.zeros((1, 3, size, size)))  # Gluon makes the weights at the first call
    symbol = net(mx.sym.var("data"))
    rng = np.random.default_rng(7)
    # a residual net adds a branch in each block: the deeper, the smaller they have to be
    gain = 0.6 if name.startswith(("resnet101", "resnet152")) else 1.0
    arrays = {}
    for parameter in net.collect_params().values():
        array = parameter.data()
        if parameter.name.endswith("gamma"):
            array = mx.nd.array(rng.uniform(0.7, 1.3, array.shape) * gain)
        elif parameter.name.endswith("running_var"):
            array = mx.nd.array(rng.uniform(0.7, 1.3, array.shape))
        elif parameter.name.endswith(("beta", "running_mean", "bias")):
            array = mx.nd.array(rng.uniform(-0.2, 0.2, array.shape))
        arrays[parameter.name] = array
    aux = {n: arrays.pop(n) for n in symbol.list_auxiliary_states()}
    return symbol, {n: arrays[n] for n in symbol.list_arguments() if n in arrays}, aux


def zoo_images(name: str, batch: int = 1) -> np.ndarray:
    """Return seeded images for a model."""
    size = image_size(name)
    return np.random.default_rng(batch).standard_normal((batch, 3, size, size)).astype("float32")
