"""Train a Gluon net on handwritten digits and turn mxtrt on with one line.

python examples/03_gluon/net.py
"""

from __future__ import annotations

import time

import mxtrt  # isort: skip  # before mxnet: MXNet 1.9.1 needs help with today's NumPy

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.gluon import nn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


class Net(gluon.HybridBlock):
    """A convolutional body with two outputs: the scores, and the features behind them."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.body = nn.HybridSequential()
            for channels in (16, 32):
                self.body.add(nn.Conv2D(channels, 3, padding=1), nn.BatchNorm())
                self.body.add(nn.Activation("relu"), nn.MaxPool2D())
            self.features = nn.Dense(64, activation="relu")
            self.scores = nn.Dense(10)

    def hybrid_forward(self, F, x):
        features = self.features(self.body(x))
        return self.scores(features), features


def data() -> tuple[gluon.data.DataLoader, gluon.data.DataLoader]:
    digits = load_digits()
    images = (digits.images[:, None] / 16).astype("float32")
    labels = digits.target.astype("float32")
    parts = train_test_split(images, labels, test_size=360, random_state=0)
    train = gluon.data.ArrayDataset(parts[0], parts[2])
    test = gluon.data.ArrayDataset(parts[1], parts[3])
    return gluon.data.DataLoader(train, 64, shuffle=True), gluon.data.DataLoader(test, 50)


def train(net: gluon.HybridBlock, batches: gluon.data.DataLoader, epochs: int) -> None:
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.005})
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    for _ in range(epochs):
        for images, labels in batches:
            with autograd.record():
                error = loss(net(images)[0], labels)
            error.backward()
            trainer.step(len(images))


def evaluate(net: gluon.HybridBlock, batches: gluon.data.DataLoader) -> tuple[float, np.ndarray]:
    """Return the accuracy and all scores; the last batch is a small one."""
    accuracy, scores = mx.metric.Accuracy(), []
    for images, labels in batches:
        found, _ = net(images)
        accuracy.update(labels, found)
        scores.append(found.asnumpy())
    return accuracy.get()[1], np.concatenate(scores)


def main() -> None:
    mx.random.seed(0)
    np.random.seed(0)
    train_batches, test_batches = data()
    net = Net()
    net.initialize(mx.init.Xavier())
    net.hybridize()
    train(net, train_batches, 4)
    before, expected = evaluate(net, test_batches)
    print(f"MXNet: {before:.2%} of 360 test images right")

    start = time.perf_counter()
    net.hybridize(backend="mxtrt")
    after, found = evaluate(net, test_batches)
    print(f"mxtrt: {after:.2%}, with the engine built in {time.perf_counter() - start:.1f} s")
    print(f"largest difference of the scores: {abs(found - expected).max():.1e}")
    print(mxtrt.report(net))

    net.hybridize()
    train(net, train_batches, 1)
    before, expected = evaluate(net, test_batches)
    net.hybridize(backend="mxtrt")
    after, found = evaluate(net, test_batches)
    print(f"after one more epoch: MXNet {before:.2%}, mxtrt {after:.2%}")

    block = mxtrt.optimize(net, mx.nd.zeros((1, 1, 8, 8)))
    net.scores.bias.set_data(mx.nd.arange(10))  # noticed by both
    same = np.array_equal(evaluate(block, test_batches)[1], evaluate(net, test_batches)[1])
    print(f"{block} and the net agree after a weight has changed: {same}")


if __name__ == "__main__":
    main()
