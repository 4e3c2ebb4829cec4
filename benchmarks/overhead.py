"""What the operator itself costs: a part that is one identity, beside MXNet's own ``_copy``.

python benchmarks/overhead.py [--cores 1] [--json FILE]

By default all threads share one core: to wake up another core of a virtual machine takes 20 to
60 µs, which a call pays or not, depending on whether MXNet's thread still looks for work.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable
from typing import Any

import mxtrt  # isort: skip  # first: it makes MXNet importable
import mxnet as mx

from mxtrt.timing import interleaved_medians, print_table, write_json

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


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--cores", type=int, default=1, help="how many cores the threads share")
    arguments.add_argument("--json")
    options = arguments.parse_args()
    share_cores(options.cores)
    data = mx.nd.ones((1, 16))
    copy = mx.sym.identity(DATA, name="copy")
    engine, _ = mxtrt.optimize(copy, shapes={"data": (1, 16)}, min_subgraph_size=1)
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
