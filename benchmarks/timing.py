"""Side-by-side timing, tables and JSON for the benchmarks."""

from __future__ import annotations

import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("mxnet", "mxnet-cu117", "numpy", "onnx", "onnxruntime", "tensorrt", "mxtrt")


def interleaved_medians(
    candidates: Mapping[str, Callable[[], Any]], *, seconds: float = 1.0, rounds: int = 7
) -> dict[str, float]:
    """Return each candidate's median time in seconds.

    The candidates take turns in blocks, so that a busy moment of the machine hits all of them,
    with a pause in between, so that the spinning threads of one do not slow the next.
    """
    counts = {}
    for name, call in candidates.items():
        call()
        start = time.perf_counter()
        call()
        once = time.perf_counter() - start
        counts[name] = max(2, min(2000, math.ceil(seconds / rounds / max(once, 1e-7))))
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            time.sleep(0.05)
            call()
            for _ in range(counts[name]):
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of positive numbers."""
    return math.exp(sum(map(math.log, values)) / len(values))


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows as a Markdown table, the first as its head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for number, row in enumerate(rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def write_json(path: str | None, results: Any) -> None:
    """Write results beside what they were measured on, if a path is given."""
    if path:
        Path(path).write_text(json.dumps({"machine": machine(), "results": results}, indent=1))


def machine() -> dict[str, Any]:
    """Return the processor, its count, and the versions of what was measured."""
    import os

    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: found for name in PACKAGES if (found := _version(name))},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
