"""What Gluon costs: the first call, and each later one.

python benchmarks/gluon.py [--json FILE] [--model NAME] [--rounds N]

Two limits: ``net.hybridize(backend="mxtrt")`` with its first call takes at most 1.1 times as long
as ``mxtrt.optimize`` of the exported symbol with its bind and first call; a call of a block with
``static_shape`` takes at most 40 µs more than the bound executor of the same symbol. For the latter
all threads share one core, for the reason that ``overhead.py`` gives.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mxtrt  # isort: skip  # first: it makes MXNet importable
import mxnet as mx
from mxnet.gluon.model_zoo import vision
from overhead import share_cores

from mxtrt.timing import interleaved_medians, print_table, write_json

STATIC = {"static_alloc": True, "static_shape": True}
FIRST, EACH = 1.1, 40.0


def model(name: str) -> tuple[mx.gluon.HybridBlock, mx.nd.NDArray]:
    """Return an initialised net of the zoo, whose shapes are known, and an image."""
    net = vision.get_model(name)
    net.initialize(mx.init.Xavier())
    x = mx.nd.random.normal(shape=(1, 3, 224, 224))
    net(x).wait_to_read()
    return net, x


# -- the first call ------------------------------------------------------------------------------


def seconds(call: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def first_calls(name: str, rounds: int) -> dict[str, float]:
    """Return the medians of the seconds until the first output, taking turns."""
    net, x = model(name)
    net.hybridize()
    net(x)
    with tempfile.TemporaryDirectory() as folder:
        net.export(str(Path(folder) / "net"))
        symbol, args, aux = mx.model.load_checkpoint(str(Path(folder) / "net"), 0)

    def by_symbol() -> None:
        optimized, (left, left_aux) = mxtrt.optimize(symbol, (args, aux))
        executor = optimized.bind(mx.cpu(), {"data": x, **left}, aux_states=left_aux)
        executor.forward()[0].wait_to_read()
        mxtrt.release(optimized)

    def by_block() -> None:
        block = mxtrt.optimize(net, x)
        block(x).wait_to_read()
        mxtrt.release(block)

    def by_hybridize() -> None:
        net.hybridize(backend="mxtrt")
        net(x).wait_to_read()

    calls = {"symbol": by_symbol, "optimize(net, x)": by_block, "hybridize(backend)": by_hybridize}
    for call in calls.values():
        call()  # loads ONNX Runtime
    times: dict[str, list[float]] = {way: [] for way in calls}
    for _ in range(rounds):
        for way, call in calls.items():
            times[way].append(seconds(call))
    return {way: statistics.median(taken) for way, taken in times.items()}


# -- each call -----------------------------------------------------------------------------------


def each_call(net: mx.gluon.HybridBlock, x: mx.nd.NDArray) -> dict[str, float]:
    """Return the medians of the seconds of a call, of the executor and of blocks."""
    block = mxtrt.optimize(net, x, min_subgraph_size=1)
    block.hybridize(**STATIC)
    symbol = block._cached_graph[1]
    executor = symbol.bind(mx.cpu(), {"data": x}, grad_req="null")
    net.hybridize(backend="mxtrt", min_subgraph_size=1, **STATIC)
    return interleaved_medians(
        {
            "executor": lambda: executor.forward()[0].wait_to_read(),
            "optimize(net, x)": lambda: block(x).wait_to_read(),
            "hybridize(backend)": lambda: net(x).wait_to_read(),
        }
    )


def small() -> tuple[mx.gluon.HybridBlock, mx.nd.NDArray]:
    """Return a net that computes next to nothing."""
    net = mx.gluon.nn.Dense(16, in_units=16)
    net.initialize()
    return net, mx.nd.ones((1, 16))


def many_weights() -> tuple[mx.gluon.HybridBlock, mx.nd.NDArray]:
    """Return a net with 200 small parameters, each of which a call looks at."""
    net = mx.gluon.nn.HybridSequential()
    for _ in range(100):
        net.add(mx.gluon.nn.Dense(4, in_units=4))
    net.initialize()
    return net, mx.nd.ones((1, 4))


# -- the report ----------------------------------------------------------------------------------


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json")
    parser.add_argument("--model", default="resnet50_v1")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    first = first_calls(options.model, options.rounds)
    rows = [(f"first call, {options.model}", "seconds", "times the symbol's")]
    rows += [(way, f"{t:.3f}", f"{t / first['symbol']:.2f}") for way, t in first.items()]
    print_table(rows)

    share_cores(1)
    results: dict[str, Any] = {"first_call": first, "first_call_limit": FIRST, "each_call": {}}
    for title, make in (("one Dense layer", small), ("100 Dense layers", many_weights)):
        medians = each_call(*make())
        results["each_call"][title] = medians
        beside = medians["executor"]
        print()
        rows = [(f"each call, {title}", "µs", "above the executor")]
        rows += [(way, f"{1e6 * t:.1f}", f"{1e6 * (t - beside):.1f}") for way, t in medians.items()]
        print_table(rows)
    results["each_call_limit"] = EACH * 1e-6
    write_json(options.json, results)


if __name__ == "__main__":
    main()
