"""Optimises a small net with the installed mxtrt, compares the outputs, and saves it here."""

from __future__ import annotations

import mxtrt

# isort: split
# mxtrt comes first: it makes mxnet importable.
import mxnet as mx
import numpy as np


def main() -> None:
    """Compare a net with its optimised self, at two batch sizes."""
    net = mx.sym.var("data")
    net = mx.sym.Convolution(net, kernel=(3, 3), num_filter=8, pad=(1, 1), name="conv")
    net = mx.sym.Activation(net, act_type="relu")
    net = mx.sym.FullyConnected(mx.sym.Flatten(net), num_hidden=10, name="fc")
    net = mx.sym.softmax(net)
    shapes, _, _ = net.infer_shape(data=(1, 3, 8, 8))
    params = {
        name: mx.nd.random.normal(scale=0.1, shape=shape)
        for name, shape in zip(net.list_arguments(), shapes)
        if name != "data"
    }
    optimized, remaining = mxtrt.optimize(net, params)
    assert "_mxtrt_engine" in optimized.tojson(), optimized.tojson()
    for batch in (1, 4):
        data = mx.nd.random.uniform(shape=(batch, 3, 8, 8))
        expected = net.bind(mx.cpu(), {"data": data, **params}).forward()[0].asnumpy()
        result = optimized.bind(mx.cpu(), {"data": data, **remaining}).forward()[0].asnumpy()
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    mxtrt.save("net", optimized, remaining)
    np.save("data.npy", data.asnumpy())
    print(f"mxtrt {mxtrt.__version__} from {mxtrt.__file__}: outputs agree")


if __name__ == "__main__":
    main()
