"""What the operator itself costs: a part that is one identity, beside MXNet's own ``_copy``.

    python benchmarks/overhead.py [--cores 1] [--busy MICROSECONDS] [--json FILE]

By default all threads share one core: to wake up another core of a virtual machine takes 20 to
60 µs, which a call pays or not, depending on whether MXNet's thread still looks for work. With
``--busy`` the part takes so many microseconds, as an engine does, and what a call takes beside them
is shown: a core that the caller has left for so long sleeps more deeply. With
``MXNET_ENGINE_TYPE=NaiveEngine`` nobody has to be woken up.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import mxtrt  # isort: skip  # first: it makes MXNet importable
import mxnet as mx

from mxtrt.operator import operators
from mxtrt.timing import interleaved_medians, interleaved_times, print_table, write_json

DATA = mx.sym.var("data")


def executor(symbol: mx.sym.Symbol, data: mx.nd.NDArray) -> Callable[[], Any]:
    """Return one call of a bound executor, waiting for its output."""
    bound = symbol.bind(mx.cpu(), {"data": data}, grad_req="null")
    return lambda: bound.forward()[0].wait_to_read()


def gluon(symbol: mx.sym.Symbol, data: mx.nd.NDArray) -> Callable[[], Any]:
    """Return one call of a hybridized block with static memory, waiting for its output."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MXNet says that it cannot infer the dtype of the input
        block = mx.gluon.SymbolBlock(symbol, [DATA])
    block.hybridize(static_alloc=True, static_shape=True)
    return lambda: block(data).wait_to_read()


def share_cores(count: int) -> None:
    """Let all threads of the process, and those that they start, run on that many cores."""
    cores = sorted(os.sched_getaffinity(0))[:count]
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), cores)


class Busy:
    """What an engine's place takes: it computes without the interpreter's lock."""

    def __init__(self, microseconds: float) -> None:
        self.taken: list[float] = []
        block, times = bytes(1 << 20), []
        for _ in range(50):
            start = time.perf_counter()
            zlib.crc32(block)
            times.append(time.perf_counter() - start)
        self._bytes = bytes(int(microseconds * 1e-6 / min(times) * len(block)))

    def __call__(self, *_: Any) -> None:
        start = time.perf_counter()
        zlib.crc32(self._bytes)
        self.taken.append(time.perf_counter() - start)


def around(symbol: mx.sym.Symbol, call: Callable[[], Any], busy: Busy) -> float:
    """Return the seconds that a call takes beside those of its part, which is `busy`."""
    [operator] = operators(symbol)
    execute, operator.execute = operator.execute, busy
    call()
    busy.taken.clear()
    taken = interleaved_times({"call": call})["call"]
    operator.execute = execute
    return statistics.median(taken) - statistics.median(busy.taken)


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--cores", type=int, default=1, help="how many cores the threads share")
    arguments.add_argument("--busy", type=float, help="microseconds that the part takes")
    arguments.add_argument("--json")
    options = arguments.parse_args()
    share_cores(options.cores)
    data = mx.nd.ones((1, 16))
    copy = mx.sym.identity(DATA, name="copy")
    engine, _ = mxtrt.optimize(copy, shapes={"data": (1, 16)}, min_subgraph_size=1)
    if options.busy:
        busy, beside = Busy(options.busy), {}
        for name, call in (("bound executor", executor), ("Gluon, static_shape", gluon)):
            seconds = around(engine, call(engine, data), busy)
            inside = statistics.median(busy.taken)
            beside[name] = {"beside": seconds * 1e6, "part": inside * 1e6}
            print(f"{name}: {seconds * 1e6:.1f} µs beside the {inside * 1e6:.0f} µs of its part")
        write_json(options.json, beside)
        return
    rows, results = [("call", "_copy (µs)", "mxtrt (µs)", "difference (µs)")], {}
    for name, call in (("bound executor", executor), ("Gluon, static_shape", gluon)):
        medians = interleaved_medians({"copy": call(copy, data), "mxtrt": call(engine, data)})
        micro = {key: value * 1e6 for key, value in medians.items()}
        results[name] = {**micro, "difference": micro["mxtrt"] - micro["copy"]}
        rows.append((name, *(f"{value:.1f}" for value in results[name].values())))
    print_table(rows)
    write_json(options.json, results)


if __name__ == "__main__":
    main()
