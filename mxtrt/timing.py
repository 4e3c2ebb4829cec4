"""Side-by-side timing, tables and JSON, for ``mxtrt bench`` and the benchmarks."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "mxnet", "mxnet-cu112", "mxnet-cu117", "numpy", "onnx", "onnxruntime", "tensorrt",
    "tensorrt-rtx", "mxtrt",
)  # fmt: skip

PAUSE = 0.05  # seconds; the threads of one candidate spin for a while and would slow the next
MOST = 2000  # calls in a block


def interleaved_times(
    candidates: Mapping[str, Callable[[], Any]],
    *,
    seconds: float = 1.0,
    rounds: int = 7,
    equally_often: bool = False,
) -> dict[str, list[float]]:
    """Return the seconds of each candidate's calls.

    The candidates take turns in blocks, so that a busy moment of the machine hits all of them.

    Parameters
    ----------
    candidates : mapping of str to callable
        What is timed; a call returns when its work is done.
    seconds : float
        How long each is called, about; at least twice in each round.
    rounds : int
        How many turns each has.
    equally_often : bool
        Call all as often as the slowest.
    """
    counts = {}
    for name, call in candidates.items():
        call()
        start = time.perf_counter()
        call()
        once = time.perf_counter() - start
        counts[name] = max(2, min(MOST, math.ceil(seconds / rounds / max(once, 1e-7))))
    if equally_often:
        counts = dict.fromkeys(counts, min(counts.values()))
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            time.sleep(PAUSE)
            call()
            for _ in range(counts[name]):
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
    return times


def interleaved_medians(
    candidates: Mapping[str, Callable[[], Any]], *, seconds: float = 1.0, rounds: int = 7
) -> dict[str, float]:
    """Return the median of each candidate's `interleaved_times`."""
    times = interleaved_times(candidates, seconds=seconds, rounds=rounds)
    return {name: statistics.median(taken) for name, taken in times.items()}


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of positive numbers."""
    return math.exp(sum(map(math.log, values)) / len(values))


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows as the lines of a Markdown table, the first as its head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for number, row in enumerate(rows):
        yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |"
        if number == 0:
            yield "|" + "|".join("-" * (width + 2) for width in widths) + "|"


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows as a Markdown table, the first as its head."""
    for line in table(rows):
        print(line)


def write_json(path: str | None, results: Any) -> None:
    """Write results beside what they were measured on, if a path is given."""
    if path:
        Path(path).write_text(json.dumps({"machine": machine(), "results": results}, indent=1))


def machine() -> dict[str, Any]:
    """Return the processor, its count, and the versions of what was measured."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: found for name in PACKAGES if (found := _version(name))},
    }


def resident_memory() -> int:
    """Return the bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


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
