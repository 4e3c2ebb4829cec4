"""TensorRT through mxtrt, beside the same engines by hand, and beside MXNet on all cores.

    python benchmarks/gpu.py [--models NAME,…] [--batch 1,8,32,128] [--precision fp32,fp16]
                             [--one-engine] [--budget SECONDS] [--json FILE]

Every engine is built for one batch size, or with --one-engine for all of them. Milliseconds for
one batch, medians of calls that wait for their result:

    MXNet       MXNet's executor on the CPU, with all cores
    mxtrt       the optimised symbol's executor, arrays on the CPU
    mxtrt pin   the same with an array of mxtrt.pinned_array
    by hand     the same engine with NumPy arrays: copied to pinned memory, there and back
    pinned      the same engine, from pinned memory to pinned memory
    mxtrt GPU   the engine through mxtrt on arrays that lie on the GPU
    raw         the same engine by execute_async_v3, on device memory
    graph       the same as a CUDA graph
    queued      one of 20 enqueued without waiting in between

The largest difference from MXNet is relative to MXNet's largest output; what lies beyond `LIMITS`
is wrong, however fast it is, and the exit code says so.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))

import mxtrt  # isort: skip  # first: it makes MXNet importable
import models
import mxnet as mx
import numpy as np

from mxtrt.engines._execution import LoadedPlan
from mxtrt.engines._raw import RawPlan
from mxtrt.operator import engines
from mxtrt.timing import interleaved_medians, print_table, write_json

MODELS = ("resnet50_v1", "mobilenet1.0", "inceptionv3", "densenet121", "vgg16", "bert_base_128",
          "bert_base_384")  # fmt: skip
COLUMNS = ("MXNet", "mxtrt", "mxtrt pin", "by hand", "pinned", "mxtrt GPU", "raw", "graph",
           "queued")  # fmt: skip
LIMITS = {"fp32": 5e-3, "fp16": 2e-2, "bf16": 1e-1}  # float32 with TensorFloat-32's 11 bits


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


class Optimized:
    """A model for one batch size, or for a range of them, as mxtrt optimises it."""

    def __init__(self, net: models.Net, batch: Any, precision: str) -> None:
        start = time.perf_counter()
        self.symbol, self.params = mxtrt.optimize(
            net.symbol, net.params, shapes={"data": (batch, *net.shape)}, engine="tensorrt",
            precision=precision, strict=True,
        )  # fmt: skip
        [engine] = engines(self.symbol)
        [(_, self.plan)] = engine._plans[0]
        self.build_seconds = time.perf_counter() - start

    def separate_plan(self) -> LoadedPlan:
        """Return the plan once more, for what runs it by hand."""
        plan = self.plan
        names = [[t.name for t in tensors] for tensors in (plan.inputs, plan.outputs)]
        content = bytes(plan.engine.serialize())
        return LoadedPlan(plan.api, plan.gpu, content, *names, cuda_graph=plan.cuda_graph)

    def close(self) -> None:
        """Free the engine."""
        mxtrt.release(self.symbol)


def measure(
    model: str, batch: int, precision: str, net: models.Net, optimized: Optimized,
    reference: Reference, seconds: float,
) -> dict[str, Any]:  # fmt: skip
    """Return the milliseconds of every column, the build's seconds and the difference."""
    images = net.data(batch)
    data = mx.nd.array(images)
    output, mxnet_seconds = reference(model, batch, net.symbol, data, net.params)
    call = executor(optimized.symbol, data, optimized.params)
    found = call().asnumpy()
    pinned = mxtrt.pinned_array(images.shape)
    pinned[:] = data
    plan = optimized.plan
    by_hand = optimized.separate_plan() if plan.has_one_context else plan
    with plan.gpu:
        hand = RawPlan(by_hand, {"data": images})
        candidates: dict[str, Callable[[], Any]] = {
            "mxtrt": call,
            "mxtrt pin": executor(optimized.symbol, pinned, optimized.params),
            "by hand": hand.numpy,
            "pinned": hand.pinned,
            "raw": hand.raw,
        }
        if not plan.has_one_context:
            candidates["mxtrt GPU"] = hand.through_mxtrt
        if hand.captured is not None:
            candidates["graph"] = hand.graph
        medians = interleaved_medians(candidates, seconds=seconds, rounds=5)
        medians["queued"] = hand.queued()
        hand.close()
        if by_hand is not plan:
            by_hand.close()
    difference = np.abs(found - output).max() / np.abs(output).max()
    return {
        "model": model,
        "precision": precision,
        "batch": batch,
        "milliseconds": {"MXNet": mxnet_seconds * 1e3, **{n: s * 1e3 for n, s in medians.items()}},
        "build_seconds": optimized.build_seconds,
        "difference": float(difference),
        "top1_equal": bool((found.argmax(1) == output.argmax(1)).all()),
        "cuda_graph_used": plan.uses_graphs,
    }


def table(results: list[dict[str, Any]]) -> None:
    """Print the results."""
    head = ["model", "", "batch", *(f"{c} ms" for c in COLUMNS), "images/s", "x MXNet",
            "over pinned", "pin over pinned", "over raw", "difference", "build s"]  # fmt: skip
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
                f"{(ms['mxtrt pin'] / ms['pinned'] - 1) * 100:+.1f} %",
                f"{(ms['mxtrt GPU'] / best - 1) * 100:+.1f} %" if "mxtrt GPU" in ms else "",
                f"{result['difference']:.1e}",
                f"{result['build_seconds']:.1f}",
            ]
        )
    print_table(rows)


def measured(
    model: str, net: models.Net, precision: str, kind: Any, batches: list[int],
    reference: Reference, given: argparse.Namespace,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Yield the results of one engine: for its batch size, or for each of its range."""
    said = {"model": model, "precision": precision}
    try:
        optimized = Optimized(net, kind, precision)
    except Exception as error:  # the other models still have their turn
        yield {**said, "batch": kind, "error": f"{type(error).__name__}: {error}"}
        return
    if given.build_only:
        yield {**said, "batch": kind, "build_seconds": optimized.build_seconds}
        optimized.close()
        return
    for batch in batches if given.one_engine else [kind]:
        try:
            yield measure(model, batch, precision, net, optimized, reference, given.seconds)
        except Exception as error:
            yield {**said, "batch": batch, "error": f"{type(error).__name__}: {error}"}
    optimized.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--batch", default="128,1,8,32")
    parser.add_argument("--precision", default="fp16,fp32")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each column")
    parser.add_argument("--one-engine", action="store_true", help="for all batch sizes of a model")
    parser.add_argument("--build-only", action="store_true", help="only fill the store with plans")
    parser.add_argument("--budget", type=float, default=1e9, help="start nothing after so long")
    parser.add_argument("--json")
    given = parser.parse_args()
    end = time.perf_counter() + given.budget
    reference, results = Reference(seconds=given.seconds), []
    batches = [int(batch) for batch in given.batch.split(",")]
    low, high = min(batches), max(batches)
    kinds: list[Any] = [(low, high, high)] if given.one_engine else batches
    for model in given.models.split(","):
        net: models.Net | None = None
        for precision in given.precision.split(","):
            for kind in kinds:
                if time.perf_counter() > end:
                    print(f"no time for {model} {precision} {kind}", file=sys.stderr)
                    continue
                net = net or models.load(model)
                for result in measured(model, net, precision, kind, batches, reference, given):
                    results.append(result)
                    print(result, file=sys.stderr, flush=True)
                    write_json(given.json, results)
    if given.build_only:
        return
    table(results)
    wrong = [r for r in results if "error" in r or r["difference"] > LIMITS[r["precision"]]]
    if wrong:
        sys.exit(f"failed or wrong: {[(r['model'], r['precision'], r['batch']) for r in wrong]}")


if __name__ == "__main__":
    main()
