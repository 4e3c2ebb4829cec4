"""TensorRT through mxtrt, beside the same engines by hand, and beside MXNet on all cores.

    python benchmarks/gpu.py [--models NAME,…] [--batch 1,8,32,128] [--precision fp32,fp16]
                             [--budget SECONDS] [--json FILE]

Every engine is built for one batch size. Milliseconds for one batch, medians of calls that wait
for their result:

    MXNet       MXNet's executor on the CPU, with all cores
    mxtrt       the optimised symbol's executor, arrays on the CPU
    by hand     the same engine with NumPy arrays: copied to pinned memory, there and back
    pinned      the same engine, from pinned memory to pinned memory
    mxtrt GPU   the engine through mxtrt on arrays that lie on the GPU
    raw         the same engine by execute_async_v3, on device memory
    graph       the same as a CUDA graph
    queued      one of 20 enqueued without waiting in between

The largest difference from MXNet is relative to MXNet's largest output.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))

import mxtrt  # isort: skip  # first: it makes MXNet importable
import mxnet as mx
import numpy as np
import zoo_models

from mxtrt.engines._raw import RawPlan
from mxtrt.operator import engines
from mxtrt.timing import interleaved_medians, print_table, write_json

MODELS = ("resnet50_v1", "mobilenet1.0", "inceptionv3", "densenet121", "vgg16")
COLUMNS = ("MXNet", "mxtrt", "by hand", "pinned", "mxtrt GPU", "raw", "graph", "queued")


def image_size(model: str) -> int:
    return 299 if model == "inceptionv3" else 224


def executor(symbol: mx.sym.Symbol, data: mx.nd.NDArray, params: Any) -> Callable[[], Any]:
    """Return one forward pass of a bound executor, waited for."""
    args, aux = params
    bound = symbol.bind(mx.cpu(), {"data": data, **args}, aux_states=aux, grad_req="null")

    def call() -> mx.nd.NDArray:
        output = bound.forward(is_train=False)[0]
        output.wait_to_read()
        return output

    return call


class Reference:
    """What MXNet computes, and how long it takes, for each model and batch size."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.known: dict[tuple[str, int], tuple[np.ndarray, float]] = {}

    def __call__(
        self, model: str, batch: int, symbol: mx.sym.Symbol, data: mx.nd.NDArray, params: Any
    ) -> tuple[np.ndarray, float]:
        if (model, batch) not in self.known:
            call, taken = executor(symbol, data, params), []
            output = call().asnumpy()
            end = time.perf_counter() + self.seconds
            while not taken or (time.perf_counter() < end and len(taken) < 20):
                start = time.perf_counter()
                call()
                taken.append(time.perf_counter() - start)
            self.known[model, batch] = output, statistics.median(taken)
        return self.known[model, batch]


def measure(
    model: str, batch: int, precision: str, net: Any, reference: Reference, seconds: float
) -> dict[str, Any]:
    """Return the milliseconds of every column, the build's seconds and the difference."""
    symbol, args, aux = net
    size = image_size(model)
    images = np.random.default_rng(batch).standard_normal((batch, 3, size, size)).astype("float32")
    data = mx.nd.array(images)
    output, mxnet_seconds = reference(model, batch, symbol, data, (args, aux))
    start = time.perf_counter()
    optimized, kept = mxtrt.optimize(
        symbol, (args, aux), shapes={"data": images.shape}, engine="tensorrt",
        precision=precision, strict=True,
    )  # fmt: skip
    build = time.perf_counter() - start
    [engine] = engines(optimized)
    [(_, plan)] = engine._plans[0]
    call = executor(optimized, data, kept)
    found = call().asnumpy()
    with plan.gpu:
        hand = RawPlan(plan, {"data": images})
        candidates: dict[str, Callable[[], Any]] = {
            "mxtrt": call,
            "by hand": hand.numpy,
            "pinned": hand.pinned,
            "mxtrt GPU": hand.through_mxtrt,
            "raw": hand.raw,
        }
        if hand.captured is not None:
            candidates["graph"] = hand.graph
        medians = interleaved_medians(candidates, seconds=seconds, rounds=5)
        medians["queued"] = hand.queued()
        hand.close()
    mxtrt.release(optimized)
    difference = np.abs(found - output).max() / np.abs(output).max()
    return {
        "model": model,
        "precision": precision,
        "batch": batch,
        "milliseconds": {"MXNet": mxnet_seconds * 1e3, **{n: s * 1e3 for n, s in medians.items()}},
        "build_seconds": build,
        "difference": float(difference),
        "top1_equal": bool((found.argmax(1) == output.argmax(1)).all()),
        "cuda_graph_used": plan.uses_graphs,
    }


def table(results: list[dict[str, Any]]) -> None:
    """Print the results."""
    head = ["model", "", "batch", *(f"{c} ms" for c in COLUMNS), "images/s", "x MXNet",
            "over pinned", "over raw", "difference", "build s"]  # fmt: skip
    rows = [head]
    for result in results:
        if "error" in result:
            rows.append([result["model"], result["precision"], str(result["batch"]),
                         *[""] * (len(head) - 4), result["error"][:60]])  # fmt: skip
            continue
        ms = result["milliseconds"]
        best = min(ms["raw"], ms.get("graph", ms["raw"]))
        rows.append(
            [
                result["model"],
                result["precision"],
                str(result["batch"]),
                *(f"{ms[c]:.3f}" if c in ms else "" for c in COLUMNS),
                f"{result['batch'] / ms['mxtrt'] * 1e3:.0f}",
                f"{ms['MXNet'] / ms['mxtrt']:.0f}",
                f"{(ms['mxtrt'] / ms['pinned'] - 1) * 100:+.1f} %",
                f"{(ms['mxtrt GPU'] / best - 1) * 100:+.1f} %",
                f"{result['difference']:.1e}",
                f"{result['build_seconds']:.1f}",
            ]
        )
    print_table(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--batch", default="128,1,8,32")
    parser.add_argument("--precision", default="fp16,fp32")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each column")
    parser.add_argument("--budget", type=float, default=1e9, help="start nothing after so long")
    parser.add_argument("--json")
    given = parser.parse_args()
    end = time.perf_counter() + given.budget
    reference, results = Reference(seconds=given.seconds), []
    nets: dict[str, Any] = {}
    batches = [int(batch) for batch in given.batch.split(",")]
    for model in given.models.split(","):
        for precision in given.precision.split(","):
            for batch in batches:
                if time.perf_counter() > end:
                    print(f"no time for {model} {precision} {batch}", file=sys.stderr)
                    continue
                if model not in nets:
                    nets = {model: zoo_models.zoo_model(model)}
                try:
                    result = measure(model, batch, precision, nets[model], reference, given.seconds)
                except Exception as error:  # the other models still have their turn
                    result = {"model": model, "precision": precision, "batch": batch,
                              "error": f"{type(error).__name__}: {error}"}  # fmt: skip
                results.append(result)
                print(result, file=sys.stderr, flush=True)
                write_json(given.json, results)
    table(results)


if __name__ == "__main__":
    main()
