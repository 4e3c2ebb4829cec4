"""How long the layers of an engine take, as the engine itself measures them."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..layers import LayerTime
from ._execution import LoadedPlan
from ._raw import Arrays, RawPlan

RUNS = 20  # of a plan, each with a profiler


@contextmanager
def profile_files() -> Iterator[Mapping[str, Any]]:
    """Yield settings with which ONNX Runtime's sessions write profiles; the files go at the end."""
    with tempfile.TemporaryDirectory(prefix="mxtrt-profile-") as folder:
        prefix = os.path.join(folder, "profile")
        yield {"enable_profiling": True, "profile_file_prefix": prefix}


def session_layers(session: Any) -> list[LayerTime]:
    """Return the layers of an ONNX Runtime session that was made with `profile_files`.

    The session stops to measure.
    """
    with open(session.end_profiling(), encoding="utf-8") as file:
        events = json.load(file)
    return read_session_profile(events)


def read_session_profile(events: list[dict[str, Any]]) -> list[LayerTime]:
    """Return the layers in ONNX Runtime's own list of events, in the order in which they ran."""
    times: dict[str, list[float]] = {}
    names: dict[str, tuple[str, str]] = {}
    for event in events:
        args = event.get("args", {})
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        key = f"{event['name']} {args.get('node_index', '')}"
        times.setdefault(key, []).append(event["dur"] / 1e3)
        name = event["name"].removesuffix("_kernel_time").partition("//")[0]
        names[key] = name, args.get("op_name", "")
    return [LayerTime(*names[key], statistics.median(taken)) for key, taken in times.items()]


def plan_layers(plan: LoadedPlan, feeds: Arrays) -> list[LayerTime]:
    """Return the layers of a plan, timed by TensorRT's profiler; the GPU must be current."""
    times: dict[str, list[float]] = {}
    raw = RawPlan(plan, feeds)
    try:
        raw.context.profiler = _profiler(plan.api.module, times)
        for _ in range(RUNS):
            raw.raw()  # with a profiler it reports when it is done
    finally:
        raw.close()
    return [LayerTime(name, "", statistics.median(taken)) for name, taken in times.items()]


def _profiler(trt: Any, times: dict[str, list[float]]) -> Any:
    def __init__(self: Any) -> None:  # noqa: N807
        trt.IProfiler.__init__(self)

    def report(self: Any, name: str, milliseconds: float) -> None:
        times.setdefault(name.strip(), []).append(milliseconds)

    members: dict[str, Callable[..., None]] = {"__init__": __init__, "report_layer_time": report}
    return type("Profiler", (trt.IProfiler,), members)()
