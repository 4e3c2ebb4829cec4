"""What the tests on a GPU run."""

from __future__ import annotations

import mxnet as mx
import numpy as np


def convnet(outputs: bool = False):
    data = mx.sym.var("data")
    x = mx.sym.Convolution(data, kernel=(3, 3), num_filter=16, pad=(1, 1), name="conv0")
    x = mx.sym.BatchNorm(x, fix_gamma=False, name="bn")
    x = mx.sym.Activation(x, act_type="relu", name="relu")
    x = mx.sym.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="max", name="max")
    x = mx.sym.Convolution(x, kernel=(3, 3), num_filter=32, name="conv1")
    features = mx.sym.Activation(x, act_type="relu", name="features")
    x = mx.sym.Pooling(features, global_pool=True, pool_type="avg", kernel=(1, 1), name="avg")
    x = mx.sym.softmax(mx.sym.FullyConnected(x, num_hidden=10, name="fc"), name="out")
    net = mx.sym.Group([features, x]) if outputs else x
    shapes, _, aux_shapes = net.infer_shape(data=(1, 3, 32, 32))
    rng = np.random.default_rng(0)
    args = {
        name: mx.nd.array(rng.normal(0, 0.2, shape))
        for name, shape in zip(net.list_arguments(), shapes)
        if name != "data"
    }
    aux = {
        name: mx.nd.array(rng.uniform(0.5, 1.5, shape))
        for name, shape in zip(net.list_auxiliary_states(), aux_shapes)
    }
    return net, args, aux


def images(batch: int, size: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, 3, size, size)).astype("float32")
