"""Train a small net on handwritten digits, optimise its checkpoint, and compare both.

python examples/digits/demo.py [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sklearn.datasets import load_digits

import mxtrt  # before mxnet: MXNet 1.9.1 needs help with today's NumPy

import mxnet as mx  # isort: skip

EPOCHS = 8
BATCH_SIZES = (1, 64)
TURNS, PASSES = 10, 20  # of each; pauses let one's spinning threads rest before the other's turn

os.environ.setdefault("MXNET_SUBGRAPH_VERBOSE", "0")  # or MXNet logs a line at every bind
console = Console()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", metavar="FOLDER", help="keep the checkpoint and the test images")
    folder = parser.parse_args().keep
    mx.random.seed(0)
    np.random.seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        demo(Path(folder or temporary))


def demo(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    prefix = str(folder / "digits")
    train_images, train_labels, images, labels = digits()
    np.save(folder / "images.npy", images)

    console.rule("1. MXNet trains a net and saves a checkpoint", align="left")
    train(prefix, train_images, train_labels)

    console.rule("2. mxtrt optimises the checkpoint", align="left")
    symbol, args, auxs = mx.model.load_checkpoint(prefix, EPOCHS)
    start = time.perf_counter()
    optimized, (left_args, left_auxs) = mxtrt.optimize(symbol, (args, auxs))
    seconds = time.perf_counter() - start
    print(mxtrt.report(optimized))
    print(
        f"\nThis took {seconds:.2f} s, with loading ONNX Runtime. The engine holds {len(args)} "
        f"parameters and {len(auxs)} auxiliary\nstates; "
        f"{len(left_args) + len(left_auxs)} are left for MXNet."
    )

    console.rule("3. The same calls run both", align="left")
    compare_outputs(
        bind(symbol, args, auxs, len(images)),
        bind(optimized, left_args, left_auxs, len(images)),
        images,
        labels,
    )
    table = Table("images at a time", "MXNet", "mxtrt", "", box=None)
    for size in BATCH_SIZES:
        before, after = speed(
            (bind(symbol, args, auxs, size), bind(optimized, left_args, left_auxs, size)),
            images[:size],
        )
        table.add_row(
            str(size), f"{1000 * before:.3f} ms", f"{1000 * after:.3f} ms", words(before, after)
        )
    console.print(table)
    print(
        f"(medians of {TURNS * PASSES} forward passes of each, in turns, on this machine's CPU; "
        "so small a net\nsays little about yours: mxtrt optimize SYMBOL PARAMS compares yours)"
    )


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return 1,437 images to train with and 360 to test with; 8x8 pixels from 0 to 1."""
    data = load_digits()
    images = (data.images[:, None] / 16).astype("float32")
    order = np.random.permutation(len(images))
    images, labels = images[order], data.target[order]
    return images[:-360], labels[:-360], images[-360:], labels[-360:]


def net() -> mx.sym.Symbol:
    out = mx.sym.var("data")
    for i, channels in enumerate((32, 32, 64, 64)):
        out = mx.sym.Convolution(
            out, kernel=(3, 3), pad=(1, 1), num_filter=channels, no_bias=True, name=f"conv{i}"
        )
        out = mx.sym.BatchNorm(out, fix_gamma=False, name=f"bn{i}")
        out = mx.sym.Activation(out, act_type="relu", name=f"relu{i}")
        if i % 2:
            out = mx.sym.Pooling(
                out, kernel=(2, 2), stride=(2, 2), pool_type="max", name=f"pool{i}"
            )
    out = mx.sym.FullyConnected(out, num_hidden=10, name="scores")
    return mx.sym.SoftmaxOutput(out, name="softmax")


def train(prefix: str, images: np.ndarray, labels: np.ndarray) -> None:
    data = mx.io.NDArrayIter(images, labels, batch_size=64, shuffle=True)
    module = mx.mod.Module(net())
    with Progress(console=console) as progress:
        task = progress.add_task("training", total=EPOCHS * (len(images) // 64 + 1))
        module.fit(
            data,
            num_epoch=EPOCHS,
            optimizer="adam",
            initializer=mx.init.Xavier(),
            batch_end_callback=lambda _: progress.advance(task),
        )
    mx.model.save_checkpoint(prefix, EPOCHS, module.symbol, *module.get_params())


def bind(symbol: mx.sym.Symbol, args: dict, auxs: dict, size: int) -> mx.executor.Executor:
    executor = symbol.simple_bind(mx.cpu(), grad_req="null", data=(size, 1, 8, 8))
    executor.copy_params_from(args, auxs)
    return executor


def compare_outputs(
    before: mx.executor.Executor,
    after: mx.executor.Executor,
    images: np.ndarray,
    labels: np.ndarray,
) -> None:
    expected, found = (e.forward(data=mx.nd.array(images))[0].asnumpy() for e in (before, after))
    for name, outputs in (("MXNet", expected), ("mxtrt", found)):
        right = int((outputs.argmax(axis=1) == labels).sum())
        print(f"{name}: {right} of {len(labels)} test images right ({right / len(labels):.2%})")
    difference = np.abs(expected - found).max()
    print(f"largest difference between their {expected.size:,} outputs: {difference:.1e}")


def speed(executors: tuple[mx.executor.Executor, ...], images: np.ndarray) -> list[float]:
    """Return the median seconds of a forward pass of each, measured in turns."""
    seconds: list[list[float]] = [[] for _ in executors]
    for _ in range(TURNS):
        for executor, times in zip(executors, seconds):
            executor.arg_dict["data"][:] = images
            time.sleep(0.05)
            executor.forward()[0].wait_to_read()
            for _ in range(PASSES):
                start = time.perf_counter()
                executor.forward()[0].wait_to_read()
                times.append(time.perf_counter() - start)
    return [median(times) for times in seconds]


def words(before: float, after: float) -> str:
    if after <= before:
        return f"{before / after:.2f} times as fast"
    return f"{after / before:.2f} times as slow"


if __name__ == "__main__":
    main()
