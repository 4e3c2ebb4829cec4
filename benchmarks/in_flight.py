"""Throughput from arrays on the CPU: one call after another, and several in flight.

    python benchmarks/in_flight.py [--engine tensorrt] [--model resnet50_v1] [--batch 1,8,32,128]
                                   [--precision fp16] [--json FILE]

Each call has an executor of its own; the oldest one is waited for before its executor is called
again. So with two in flight the next batch is copied to the GPU while the last one is computed.
MXNet runs as many operators at once on the CPU as MXNET_CPU_WORKER_NTHREADS says before it is
imported; here it is 3. Engines of executors that one thread has bound wait for each other: each is
bound on a thread of its own. Images per second, medians of turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

os.environ.setdefault("MXNET_CPU_WORKER_NTHREADS", "3")

import mxtrt  # isort: skip  # first: it makes MXNet importable
import models
import mxnet as mx
import numpy as np

from mxtrt.timing import print_table, write_json

COUNTS = (1, 2, 3)


def executors(
    net: models.Net, batch: int, count: int, **options: Any
) -> list[mx.executor.Executor]:
    """Return executors of one optimised symbol, each with images of its own."""
    symbol, (args, aux) = mxtrt.optimize(
        net.symbol, net.params, shapes={"data": (batch, *net.shape)}, strict=True, **options
    )
    images = net.data(batch)

    def bind() -> mx.executor.Executor:
        data = mx.nd.array(images)
        return symbol.bind(mx.cpu(), {"data": data, **args}, aux_states=aux, grad_req="null")

    threads = [ThreadPoolExecutor(1) for _ in range(count)]
    return [thread.submit(bind).result() for thread in threads]


def rate(bound: list[mx.executor.Executor], seconds: float) -> float:
    """Return the calls a second with all executors in flight."""
    waiting: list[Any] = [executor.forward(is_train=False)[0] for executor in bound]
    start = time.perf_counter()
    end, count = start + seconds, 0
    while time.perf_counter() < end:
        for index, executor in enumerate(bound):
            waiting[index].wait_to_read()
            waiting[index] = executor.forward(is_train=False)[0]
            count += 1
    taken = time.perf_counter() - start
    mx.nd.waitall()
    return count / taken


def check_alike(bound: list[mx.executor.Executor]) -> None:
    """Require that all executors in flight make what one makes alone."""
    alone = bound[0].forward(is_train=False)[0].asnumpy()
    for output in [executor.forward(is_train=False)[0] for executor in bound * 2]:
        np.testing.assert_array_equal(output.asnumpy(), alone)


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", default="tensorrt")
    parser.add_argument("--model", default="resnet50_v1")
    parser.add_argument("--batch", default="1,8,32,128")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    given = parser.parse_args()
    options = {"engine": given.engine}
    if given.engine != "onnxruntime":
        options["precision"] = given.precision
    net = models.load(given.model)
    rows, results = [["batch", *(f"{count} in flight" for count in COUNTS)]], []
    for batch in map(int, given.batch.split(",")):
        bound = executors(net, batch, max(COUNTS), **options)
        for _ in range(5):
            check_alike(bound)
        found: dict[int, list[float]] = {count: [] for count in COUNTS}
        for _ in range(given.rounds):
            for count, rates in found.items():
                rates.append(rate(bound[:count], given.seconds) * batch)
        medians = {count: statistics.median(rates) for count, rates in found.items()}
        results.append({"batch": batch, "images_per_second": medians})
        rows.append([str(batch), *(f"{medians[count]:.0f}" for count in COUNTS)])
        print(results[-1], flush=True)
    print_table(rows)
    write_json(given.json, results)


if __name__ == "__main__":
    main()
