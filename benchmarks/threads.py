"""One optimised net called by 8 threads, beside 8 processes with a net each.

python benchmarks/threads.py [--json FILE] [--model NAME] [--workers N] [--seconds S]

The limit: the threads together make at least as many calls a second as the processes. Each worker
calls with batch 1 and one thread of ONNX Runtime; both run in turns, and medians are compared.

MXNet runs one operator at a time on the CPU unless MXNET_CPU_WORKER_NTHREADS says otherwise before
it is imported, so threads gain nothing without it; here it is 8.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("MXNET_CPU_WORKER_NTHREADS", "8")

import mxtrt  # isort: skip  # first: it makes MXNet importable
import mxnet as mx
from mxnet.gluon.model_zoo import vision

from mxtrt.timing import print_table, write_json

SHAPE = (1, 3, 224, 224)


def optimized(name: str) -> Any:
    """Return an optimised symbol of the zoo, with seeded weights."""
    mx.random.seed(0)
    net = vision.get_model(name)
    net.initialize(mx.init.Xavier())
    x = mx.nd.random.normal(shape=SHAPE)
    net(x).wait_to_read()
    block = mxtrt.optimize(net, x, session_options={"intra_op_num_threads": 1})
    return block._cached_graph[1]


def calls_until(symbol: Any, start: Callable[[], Any], seconds: float) -> int:
    """Call an executor of one's own for a while, once everybody is ready; return how often."""
    executor = symbol.bind(mx.cpu(), {"data": mx.nd.ones(SHAPE)}, grad_req="null")
    executor.forward()[0].wait_to_read()
    start()
    end, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        executor.forward()[0].wait_to_read()
        count += 1
    return count


def by_threads(symbol: Any, workers: int, seconds: float) -> float:
    """Return the calls a second of threads that share the engine."""
    barrier, counts = threading.Barrier(workers), []

    def work() -> None:
        counts.append(calls_until(symbol, barrier.wait, seconds))

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def _in_process(name: str, rounds: Any, barrier: Any, counts: Any) -> None:
    symbol = optimized(name)
    while True:
        seconds = rounds.get()
        if seconds is None:
            return
        counts.put(calls_until(symbol, barrier.wait, seconds))


class Processes:
    """Processes that wait to be asked, each with an engine of its own."""

    def __init__(self, name: str, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.workers, self._rounds, self._counts = workers, context.Queue(), context.Queue()
        self._barrier = context.Barrier(workers)
        given = name, self._rounds, self._barrier, self._counts
        self._all = [context.Process(target=_in_process, args=given) for _ in range(workers)]
        for process in self._all:
            process.start()

    def __call__(self, seconds: float) -> float:
        """Return the calls a second of all together."""
        for _ in range(self.workers):
            self._rounds.put(seconds)
        return sum(self._counts.get() for _ in range(self.workers)) / seconds

    def close(self) -> None:
        """Let them end."""
        for _ in range(self.workers):
            self._rounds.put(None)
        for process in self._all:
            process.join()


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json")
    parser.add_argument("--model", default="resnet18_v1")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    symbol, processes = optimized(options.model), Processes(options.model, options.workers)
    processes(options.seconds / 10)  # until all are there
    rates: dict[str, list[float]] = {"threads": [], "processes": []}
    for _ in range(options.rounds):
        rates["threads"].append(by_threads(symbol, options.workers, options.seconds))
        rates["processes"].append(processes(options.seconds))
    processes.close()
    medians = {way: statistics.median(found) for way, found in rates.items()}
    title = f"{options.model}, {options.workers} workers"
    rows = [(title, "calls/s", "times the processes'")]
    beside = medians["processes"]
    rows += [(way, f"{rate:.1f}", f"{rate / beside:.2f}") for way, rate in medians.items()]
    print_table(rows)
    about = {"model": options.model, "workers": options.workers, "limit": 1.0}
    write_json(options.json, {**about, "calls_per_second": medians})


if __name__ == "__main__":
    main()
