"""What ``mxtrt.optimize`` costs: seconds by step, and peak memory beside the weights.

    python benchmarks/optimize.py [--json FILE]

Each model is measured in a process of its own, from checkpoint files. The peak is that of the
process during ``optimize``, reading the files included, above what it was before.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import mxtrt  # isort: skip  # first: it makes MXNet importable
import mxnet as mx

from mxtrt.timing import print_table, write_json

MODELS = ("resnet152_v1", "bert-large")


def bert_large(layers: int = 24, width: int = 1024) -> tuple[mx.sym.Symbol, dict[str, Any]]:
    """Return the dense layers of BERT-large and its word embedding: 334 million parameters."""
    x = mx.sym.Embedding(mx.sym.var("data"), input_dim=30522, output_dim=width, name="words")
    params = {"words_weight": (30522, width)}
    for layer in range(layers):
        for name, units, read in (
            ("q", width, width), ("k", width, width), ("v", width, width), ("o", width, width),
            ("up", 4 * width, width), ("down", width, 4 * width),
        ):  # fmt: skip
            x = mx.sym.FullyConnected(x, num_hidden=units, flatten=False, name=f"{layer}_{name}")
            params[f"{layer}_{name}_weight"] = (units, read)
            params[f"{layer}_{name}_bias"] = (units,)
    return x, {name: mx.nd.random.normal(0, 0.02, shape) for name, shape in params.items()}


def save_checkpoint(model: str, prefix: str) -> None:
    """Write the checkpoint of a model."""
    if model == "bert-large":
        symbol, args = bert_large()
        mx.model.save_checkpoint(prefix, 0, symbol, args, {})
        return
    import zoo_models

    mx.model.save_checkpoint(prefix, 0, *zoo_models.zoo_model(model))


@contextmanager
def peak_memory(interval: float = 0.002) -> Iterator[list[int]]:
    """Watch the resident memory of this process; yields a list whose last item is the peak."""
    peak, done = [_resident()], threading.Event()

    def watch() -> None:
        while not done.wait(interval):
            peak[0] = max(peak[0], _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def measure(prefix: str) -> dict[str, float]:
    """Measure one checkpoint in this process."""
    symbol, params = f"{prefix}-symbol.json", f"{prefix}-0000.params"
    mxtrt.optimize(*_tiny())  # imports and libraries are not part of the cost
    from mxtrt.engines import onnxruntime

    build, building = onnxruntime.build, [0.0]

    def timed(*arguments: Any) -> Any:
        begun = time.perf_counter()
        engine = build(*arguments)
        building[0] += time.perf_counter() - begun
        return engine

    onnxruntime.build = timed
    before = _resident()
    with peak_memory() as peak:
        start = time.perf_counter()
        mxtrt.optimize(symbol, params)
        total = time.perf_counter() - start
    held = _resident() - before
    start = time.perf_counter()
    weights = sum(a.size * a.dtype().itemsize for a in mx.nd.load(params).values())
    mx.sym.load(symbol)
    reading = time.perf_counter() - start
    return {
        "weights MiB": weights / 2**20,
        "reading s": reading,
        "optimize s": total,
        "of that ONNX Runtime s": building[0],
        "conversion s": total - reading - building[0],
        "peak / weights": (peak[0] - before) / weights,
        "held / weights": held / weights,
    }


def _tiny() -> tuple[mx.sym.Symbol, dict[str, Any]]:
    return mx.sym.tanh(mx.sym.tanh(mx.sym.var("data"))), {}


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--json")
    arguments.add_argument("--measure", help=argparse.SUPPRESS)
    arguments.add_argument("--save", nargs=2, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    if options.save:
        save_checkpoint(*options.save)
        return
    results = {}
    for model in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            prefix = f"{folder}/net"
            subprocess.run([sys.executable, __file__, "--save", model, prefix], check=True)
            command = [sys.executable, __file__, "--measure", prefix]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results[model] = json.loads(done.stdout.splitlines()[-1])
    columns = list(next(iter(results.values())))
    rows = [[model, *(f"{found[c]:.2f}" for c in columns)] for model, found in results.items()]
    print_table([["model", *columns], *rows])
    write_json(options.json, results)


if __name__ == "__main__":
    main()
