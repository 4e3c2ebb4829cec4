"""MXNet's arrays on the GPU: what a call costs over raw TensorRT on the same memory.

    python benchmarks/mxnet_gpu.py [--models NAME,…] [--batch 1,8,32,128] [--json FILE]

Needs a CUDA build of MXNet. Milliseconds for one batch in float16, medians:

    executor    a bound executor's forward on MXNet's arrays, waited for
    raw         the same engine by execute_async_v3 on the same memory, waited for
    graph       the same as a CUDA graph
    executor queued, raw queued    one of 20 that are enqueued without waiting in between
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import mxtrt  # isort: skip  # first: it makes MXNet importable
import models
import mxnet as mx
import numpy as np

from mxtrt.engines._cuda import Graph
from mxtrt.operator import engines
from mxtrt.timing import interleaved_medians, print_table, write_json

QUEUED = 20


def queued(enqueue: Callable[[], Any], wait: Callable[[], Any]) -> float:
    """Return the seconds of one of many calls."""
    taken = []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(QUEUED):
            enqueue()
        wait()
        taken.append((time.perf_counter() - start) / QUEUED)
    return statistics.median(taken)


def measure(model: str, net: models.Net, batch: int, seconds: float) -> dict[str, Any]:
    """Return the milliseconds of every column."""
    gpu = mx.gpu(0)
    data = mx.nd.array(net.data(batch), ctx=gpu)
    optimized, kept = mxtrt.optimize(
        net.symbol, net.params, shapes={"data": data.shape}, engine="tensorrt", precision="fp16",
        strict=True,
    )  # fmt: skip
    assert not kept[0]
    bound = optimized.bind(gpu, {"data": data}, grad_req="null")
    [output] = bound.forward(is_train=False)
    first = output.asnumpy()
    for _ in range(10):
        bound.forward(is_train=False)[0].wait_to_read()
    [engine] = engines(optimized)
    [(_, plan)] = engine._plans[0]
    used = next(c for c in plan._on_streams.values() if c.addresses)  # one of MXNet's own streams
    with plan.gpu as device:
        stream, context = device.stream(), plan.engine.create_execution_context()
        for name, address in used.addresses.items():
            context.set_tensor_address(name, address)

        def raw() -> bool:
            return bool(context.execute_async_v3(stream.handle))

        raw()
        stream.synchronize()
        assert np.array_equal(output.asnumpy(), first)
        graph = Graph(stream.handle, raw)
        medians = interleaved_medians(
            {
                "executor": lambda: bound.forward(is_train=False)[0].wait_to_read(),
                "raw": lambda: (raw(), stream.synchronize()),
                "graph": lambda: (graph.launch(stream.handle), stream.synchronize()),
            },
            seconds=seconds,
            rounds=5,
        )
        medians["executor queued"] = queued(lambda: bound.forward(is_train=False), mx.nd.waitall)
        medians["raw queued"] = queued(raw, stream.synchronize)
        graph.close()
    mxtrt.release(optimized)
    return {
        "model": model,
        "batch": batch,
        "milliseconds": {name: value * 1e3 for name, value in medians.items()},
        "cuda_graph_used": plan.uses_graphs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="resnet50_v1")
    parser.add_argument("--batch", default="1,8,32,128")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each column")
    parser.add_argument("--json")
    given = parser.parse_args()
    results = []
    # first: making a model seeds MXNet's generators, and that of a newer GPU has no kernel
    nets = {model: models.load(model) for model in given.models.split(",")}
    for model, net in nets.items():
        for batch in map(int, given.batch.split(",")):
            results.append(measure(model, net, batch, given.seconds))
            print(results[-1], file=sys.stderr, flush=True)
            write_json(given.json, results)
    columns = list(results[0]["milliseconds"])
    rows = [["model", "batch", *(f"{c} ms" for c in columns), "over raw", "queued over raw"]]
    for result in results:
        ms = result["milliseconds"]
        rows.append(
            [
                result["model"],
                str(result["batch"]),
                *(f"{ms[c]:.3f}" for c in columns),
                f"{(ms['executor'] / ms['raw'] - 1) * 100:+.1f} %",
                f"{(ms['executor queued'] / ms['raw queued'] - 1) * 100:+.1f} %",
            ]
        )
    print_table(rows)


if __name__ == "__main__":
    main()
