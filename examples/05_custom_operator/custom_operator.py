"""An operator of your own: left in MXNet first, then moved by a converter of your own.

    python examples/05_custom_operator/custom_operator.py

MXNet lets you write operators in Python (`mx.operator.CustomOp`, below) or in C++
(`mx.library.load`). mxtrt cannot know what they compute, so they stay in MXNet, between two
engines, and the report says what to do about it. `mxtrt.register_converter` tells mxtrt in a few
lines how ONNX says the same:

- the function's first parameter is the ONNX model that it writes into, the next ones are the
  operator's inputs, and the keyword-only ones its attributes, with their types and defaults;
- it returns the name of the tensor that it made;
- where ONNX cannot say the same, it raises `mxtrt.errors.UnsupportedOp` with the reason.

`help(mxtrt.register_converter)` has all that it may call. An operator of a library is registered by
its name, `@mxtrt.register_converter("my_gemm")`, and one that is written in Python by its
`op_type`, as here.
"""

from __future__ import annotations

import numpy as np

import mxtrt  # before mxnet: MXNet 1.9.1 needs help with today's NumPy

import mxnet as mx  # isort: skip


class Swish(mx.operator.CustomOp):
    """What MXNet runs: ``x * sigmoid(beta * x)``."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, is_train, req, in_data, out_data, aux) -> None:
        x = in_data[0]
        self.assign(out_data[0], req[0], x * mx.nd.sigmoid(self.beta * x))


@mx.operator.register("swish")
class SwishProp(mx.operator.CustomOpProp):
    """What MXNet knows of it: one input, one output of the same shape, one attribute."""

    def __init__(self, beta: str = "1.0") -> None:
        super().__init__(need_top_grad=False)
        self.beta = float(beta)

    def infer_shape(self, in_shape):
        return in_shape, [in_shape[0]], []

    def create_operator(self, ctx, shapes, dtypes) -> Swish:
        return Swish(self.beta)


def net() -> tuple[mx.sym.Symbol, dict[str, mx.nd.NDArray]]:
    """Return a convolution, the operator, a dense layer; and weights for them."""
    x = mx.sym.Convolution(mx.sym.var("data"), kernel=(3, 3), num_filter=4, name="conv")
    x = mx.sym.Custom(x, op_type="swish", beta=1.5, name="swish")
    symbol = mx.sym.FullyConnected(x, num_hidden=3, name="scores")
    shapes, _, _ = symbol.infer_shape(data=(1, 1, 8, 8))
    rng = np.random.default_rng(0)
    weights = {
        name: mx.nd.array(rng.standard_normal(shape) / 4)
        for name, shape in zip(symbol.list_arguments(), shapes)
        if name != "data"
    }
    return symbol, weights


def scores(
    symbol: mx.sym.Symbol, weights: dict[str, mx.nd.NDArray], images: np.ndarray
) -> np.ndarray:
    executor = symbol.bind(mx.cpu(), {**weights, "data": mx.nd.array(images)}, grad_req="null")
    return executor.forward()[0].asnumpy()


def main() -> None:
    symbol, weights = net()
    images = np.random.default_rng(1).standard_normal((2, 1, 8, 8)).astype("float32")
    expected = scores(symbol, weights, images)

    print("1. Nobody has told mxtrt what 'swish' computes\n")
    optimized, left = mxtrt.optimize(symbol, weights, min_subgraph_size=1)
    print(mxtrt.report(optimized))
    print(f"\nlargest difference: {difference(expected, scores(optimized, left, images))}\n")

    print("2. A converter tells it\n")

    @mxtrt.register_converter("Custom", op_type="swish")
    def convert_swish(onnx, x, *, beta: float = 1.0):
        if x.dtype not in ("float16", "float32"):
            raise mxtrt.errors.UnsupportedOp(f"a swish of {x.dtype}; ONNX has Sigmoid of floats")
        scaled = onnx.op("Mul", x, onnx.constant(beta, x.dtype))
        return onnx.op("Mul", x, onnx.op("Sigmoid", scaled))

    optimized, left = mxtrt.optimize(symbol, weights, min_subgraph_size=1)
    print(mxtrt.report(optimized))
    print(f"\nlargest difference: {difference(expected, scores(optimized, left, images))}")


def difference(expected: np.ndarray, found: np.ndarray) -> str:
    """Return the largest difference; raise when it is more than float32's rounding."""
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    return f"{np.abs(found - expected).max():.0e}, of scores up to {np.abs(expected).max():.1f}"


if __name__ == "__main__":
    main()
