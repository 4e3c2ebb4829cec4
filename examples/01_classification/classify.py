"""Classify images with an ordinary checkpoint, with MXNet and with mxtrt, and compare both.

    python examples/01_classification/classify.py

The program below `main` is what MXNet's tutorials do with a trained model: `load_checkpoint`, a
`Module`, `predict` over an iterator. mxtrt adds one line, `mxtrt.optimize`. The checkpoint is made
first, by training a small residual net on scikit-learn's handwritten digits for some seconds;
nothing is downloaded. With a checkpoint of your own, start at `load_checkpoint`.
"""

from __future__ import annotations

import os
import tempfile
import time
from statistics import median

import mxtrt  # isort: skip  # before mxnet: MXNet 1.9.1 needs help with today's NumPy

import mxnet as mx
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

os.environ.setdefault("MXNET_SUBGRAPH_VERBOSE", "0")  # or MXNet logs a line at every bind

EPOCHS = 6
BATCH = 32
PASSES = 10


def main() -> None:
    mx.random.seed(0)
    np.random.seed(0)
    images, labels = digits()
    with tempfile.TemporaryDirectory() as folder:
        prefix = os.path.join(folder, "digits")
        train(prefix, images[0], labels[0])
        symbol, args, auxs = mx.model.load_checkpoint(prefix, EPOCHS)
    test = mx.io.NDArrayIter(images[1], labels[1], batch_size=BATCH)

    optimized, (left_args, left_auxs) = mxtrt.optimize(symbol, (args, auxs))  # the one line
    print(mxtrt.report(optimized).headline)

    before = module(symbol, args, auxs, test)
    after = module(optimized, left_args, left_auxs, test)
    expected, found = before.predict(test).asnumpy(), after.predict(test).asnumpy()
    for name, scores in (("MXNet", expected), ("mxtrt", found)):
        right = (scores.argmax(axis=1) == labels[1]).sum()
        print(f"{name}: {right} of {len(scores)} test images right ({right / len(scores):.1%})")
    print(f"largest difference between the scores: {np.abs(found - expected).max():.1e}")

    slow, fast = seconds(before, after, test)
    print(f"predict over {len(found)} images, {BATCH} at a time, medians of {PASSES}:")
    print(f"  MXNet {1000 * slow:.1f} ms, mxtrt {1000 * fast:.1f} ms: {slow / fast:.2f} times")


def module(symbol: mx.sym.Symbol, args: dict, auxs: dict, data: mx.io.DataIter) -> mx.mod.Module:
    found = mx.mod.Module(symbol)
    found.bind(data.provide_data, data.provide_label, for_training=False)
    found.set_params(args, auxs)
    return found


def seconds(*arguments) -> list[float]:
    """Return the median seconds of a pass of each module over the iterator, taken in turns."""
    *modules, data = arguments
    times: list[list[float]] = [[] for _ in modules]
    for _ in range(PASSES):
        for each, taken in zip(modules, times):
            start = time.perf_counter()
            each.predict(data).wait_to_read()
            taken.append(time.perf_counter() - start)
    return list(map(median, times))


def digits() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the images to train with and to test with, 16x16 pixels, and their labels."""
    data = load_digits()
    images = (data.images[:, None] / 16).astype("float32").repeat(2, axis=2).repeat(2, axis=3)
    parts = train_test_split(images, data.target, test_size=360, random_state=0)
    return parts[:2], parts[2:]


def train(prefix: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Train the net as usual, and save a checkpoint: two files."""
    data = mx.io.NDArrayIter(images, labels, batch_size=64, shuffle=True)
    training = mx.mod.Module(net())
    training.fit(data, num_epoch=EPOCHS, optimizer="adam", initializer=mx.init.Xavier())
    mx.model.save_checkpoint(prefix, EPOCHS, training.symbol, *training.get_params())


def net() -> mx.sym.Symbol:
    """Return a residual net with three stages of two convolutions."""
    x = mx.sym.var("data")
    for stage, channels in enumerate((16, 32, 64)):
        stride = (1 + (stage > 0),) * 2
        branch = convolution(x, channels, f"stage{stage}_a", stride)
        branch = convolution(branch, channels, f"stage{stage}_b", relu=False)
        x = convolution(x, channels, f"stage{stage}_short", stride, relu=False) + branch
        x = mx.sym.Activation(x, act_type="relu", name=f"stage{stage}_relu")
    x = mx.sym.Pooling(x, global_pool=True, kernel=(1, 1), pool_type="avg", name="pool")
    x = mx.sym.FullyConnected(x, num_hidden=10, name="scores")
    return mx.sym.SoftmaxOutput(x, name="softmax")


def convolution(x, channels: int, name: str, stride=(1, 1), relu: bool = True) -> mx.sym.Symbol:
    x = mx.sym.Convolution(
        x, kernel=(3, 3), pad=(1, 1), stride=stride, num_filter=channels, no_bias=True, name=name
    )
    x = mx.sym.BatchNorm(x, fix_gamma=False, name=f"{name}_bn")
    return mx.sym.Activation(x, act_type="relu", name=f"{name}_relu") if relu else x


if __name__ == "__main__":
    main()
