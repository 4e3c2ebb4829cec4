"""Image classifiers on the CPU: mxtrt beside MXNet and beside mx2onnx's file in ONNX Runtime.

    python benchmarks/zoo.py [--models NAME,…|all] [--batch 1,8] [--json FILE]
    python benchmarks/zoo.py --show FILE

mx2onnx does not import with today's onnx, so it runs in an environment of its own, which this
script makes on first use (``--mx2onnx-python`` names another one).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mxtrt  # isort: skip  # first: it makes MXNet importable
import models
import mxnet as mx
import numpy as np

from mxtrt.timing import geometric_mean, interleaved_medians, print_table, write_json

MX2ONNX = "mx2onnx + ONNX Runtime"
OLD = ["numpy==1.23.5", "onnx==1.14.1", "protobuf<5", "mxnet==1.9.1"]
"""The newest packages with which mx2onnx of MXNet 1.9.1 runs (Python 3.8 to 3.11)."""


def mx2onnx_python(given: str | None) -> str:
    """Return the Python that can run mx2onnx, making its environment if none is given."""
    if given:
        return given
    folder = Path(__file__).parent / ".mx2onnx"
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making {folder} for mx2onnx …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *OLD], check=True)
    return str(python)


def executor(symbol: mx.sym.Symbol, data: mx.nd.NDArray, params: Any) -> Callable[[], np.ndarray]:
    """Return one forward pass of a bound executor."""
    args, aux = params
    bound = symbol.bind(mx.cpu(), {"data": data, **args}, aux_states=aux, grad_req="null")

    def call() -> mx.nd.NDArray:
        output = bound.forward(is_train=False)[0]
        output.wait_to_read()
        return output

    return call


def onnx_runtime(path: str, data: np.ndarray) -> Callable[[], np.ndarray]:
    """Return one run of an ONNX file, as a user of mx2onnx would call it."""
    import onnxruntime as ort

    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: data})[0]


def measure(name: str, batch: int, python: str, seconds: float) -> dict[str, Any]:
    """Return medians in milliseconds and largest differences, relative to the largest output."""
    net = models.load(name)
    symbol, (args, aux), images = net.symbol, net.params, net.data(batch)
    data = mx.nd.array(images)
    optimized, kept = mxtrt.optimize(symbol, (args, aux))
    candidates: dict[str, Callable[[], Any]] = {
        "MXNet": executor(symbol, data, (args, aux)),
        "mxtrt": executor(optimized, data, kept),
    }
    with tempfile.TemporaryDirectory() as folder:
        prefix, file = f"{folder}/net", f"{folder}/net.onnx"
        mx.model.save_checkpoint(prefix, 0, symbol, args, aux)
        script = str(Path(__file__).parent / "mx2onnx.py")
        shape = ",".join(map(str, images.shape))
        command = [python, script, prefix, shape, file]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode == 0:
            candidates[MX2ONNX] = onnx_runtime(file, images)
        outputs = {key: _numpy(call()) for key, call in candidates.items()}
        medians = interleaved_medians(candidates, seconds=seconds)
    mxtrt.release(optimized)
    scale = float(np.abs(outputs["MXNet"]).max())
    return {
        "model": name,
        "batch": batch,
        "ms": {key: value * 1e3 for key, value in medians.items()},
        "difference": {
            key: float(np.abs(found - outputs["MXNet"]).max()) / scale
            for key, found in outputs.items()
            if key != "MXNet"
        },
    }


def _numpy(output: Any) -> np.ndarray:
    return output if isinstance(output, np.ndarray) else output.asnumpy()


def show(results: list[dict[str, Any]]) -> None:
    """Print the rows, and how much faster mxtrt is over all of them."""
    rows = [
        (
            "model",
            "batch",
            "MXNet (ms)",
            "mx2onnx + ORT (ms)",
            "mxtrt (ms)",
            "mxtrt is faster than MXNet by",
            "than mx2onnx + ORT by",
            "largest difference",
        )
    ]
    for found in results:
        ms = found["ms"]
        other = ms.get(MX2ONNX)
        rows.append((
            found["model"], str(found["batch"]), f"{ms['MXNet']:.1f}",
            f"{other:.1f}" if other else "fails", f"{ms['mxtrt']:.1f}",
            f"{ms['MXNet'] / ms['mxtrt']:.2f}x", f"{other / ms['mxtrt']:.2f}x" if other else "-",
            f"{found['difference']['mxtrt']:.1e}",
        ))  # fmt: skip
    print_table(rows)
    print()
    print_table([("", "geometric mean", "least", "most"), *overall(results)])


def overall(results: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return how much faster mxtrt is than the others: the mean, the least and the most."""
    rows = []
    for title, key in (("MXNet's", "MXNet"), ("mx2onnx's", MX2ONNX)):
        gains = [row["ms"][key] / row["ms"]["mxtrt"] for row in results if key in row["ms"]]
        figures = (geometric_mean(gains), min(gains), max(gains))
        rows.append((f"times {title} speed", *(f"{figure:.2f}" for figure in figures)))
    return rows


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--models", default="resnet50_v1,mobilenet1.0,squeezenet1.1")
    arguments.add_argument("--batch", default="1,8")
    arguments.add_argument("--seconds", type=float, default=2.0, help="for each measurement")
    arguments.add_argument("--mx2onnx-python")
    arguments.add_argument("--json")
    arguments.add_argument("--show", metavar="FILE", help="print what an earlier run wrote")
    options = arguments.parse_args()
    if options.show:
        show(json.loads(Path(options.show).read_text())["results"])
        return
    python = mx2onnx_python(options.mx2onnx_python)
    names = models.zoo_models.NAMES if options.models == "all" else options.models.split(",")
    results = []
    for name in names:
        for batch in map(int, options.batch.split(",")):
            results.append(measure(name, batch, python, options.seconds))
            print(results[-1], file=sys.stderr)
            write_json(options.json, results)
    show(results)


if __name__ == "__main__":
    main()
