"""Why an optimised model is slow where it is, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .layers import LayerTime

MUCH_OUTSIDE = 0.2  # of the time, in MXNet
MANY_REFORMATS = 0.15  # of the engines' time
MUCH_COPYING = 0.3  # of the time, between the CPU and the GPU
BOUND = 1.15  # times as long without a CUDA graph
MUCH_OVERHEAD = 1.1  # times as long as the engine alone
DOMINANT = 0.4  # of the engines' time, in one layer


@dataclass(frozen=True)
class Timing:
    """What is known of one row of a benchmark.

    Attributes
    ----------
    kind : str
        The engine.
    milliseconds : mapping of str to float
        The median of each column of `bench`.
    inside : float
        Milliseconds of a forward pass that engines take.
    parts, left : int
        How many engines, and how many operators in MXNet.
    layers : sequence of LayerTime
        The engines' layers.
    """

    kind: str
    milliseconds: Mapping[str, float]
    inside: float
    parts: int
    left: int
    layers: Sequence[LayerTime]


def why_slow(timing: Timing) -> list[str]:
    """Return what costs time that need not be, the most expensive first, a sentence for each."""
    found = [*_outside(timing), *_overhead(timing), *_on_gpu(timing), *_inside(timing)]
    return [sentence for _, sentence in sorted(found, key=lambda pair: -pair[0])]


def _outside(timing: Timing) -> Iterator[tuple[float, str]]:
    """Yield how much of the time passes in MXNet."""
    total = timing.milliseconds["mxtrt"]
    outside = max(0.0, total - timing.inside) / total
    if not timing.parts:
        if total > timing.milliseconds["MXNet"]:
            yield 1.0, "nothing moves into an engine; mxtrt explain says why"
    elif outside >= MUCH_OUTSIDE and (timing.left or timing.parts > 1):
        parts = f"{timing.parts} parts" if timing.parts != 1 else "1 part"
        left = f"{timing.left} operators" if timing.left != 1 else "1 operator"
        told = f"{outside:.0%} of the time passes outside of the engines"
        yield outside, f"{told}: {left} in MXNet beside {parts}; mxtrt explain says why they stay"


def _overhead(timing: Timing) -> Iterator[tuple[float, str]]:
    """Yield how much longer it takes than the engine alone on the whole model."""
    alone = timing.milliseconds.get(_alone(timing))
    total = timing.milliseconds["mxtrt"]
    if alone is not None and total > MUCH_OVERHEAD * alone and timing.parts == 1:
        told = f"it takes {total / alone:.2f} times as long as {_alone(timing)} alone"
        yield 1 - alone / total, f"{told} on the whole model: {total - alone:.3f} ms more"


def _on_gpu(timing: Timing) -> Iterator[tuple[float, str]]:
    """Yield what copies, and telling the GPU what to do, cost."""
    name = f"{_alone(timing)}, GPU memory"
    whole, raw = timing.milliseconds.get(_alone(timing)), timing.milliseconds.get(name)
    if whole is None or raw is None:
        return
    copies = max(0.0, whole - raw) / whole
    if copies >= MUCH_COPYING:
        told = f"{copies:.0%} of the engine's time are copies between the CPU and the GPU"
        yield copies, f"{told}: arrays on the GPU need none"
    graph = timing.milliseconds.get(f"{name}, CUDA graph")
    if graph is not None and raw > BOUND * graph:
        told = f"as a CUDA graph it takes {graph:.3f} ms instead of {raw:.3f} ms"
        yield 1 - graph / raw, f"telling the GPU what to do takes longer than doing it: {told}"


def _inside(timing: Timing) -> Iterator[tuple[float, str]]:
    """Yield which layers take the engines' time."""
    total = sum(layer.milliseconds for layer in timing.layers)
    if not total:
        return
    reformats = [layer for layer in timing.layers if layer.is_reformat]
    share = sum(layer.milliseconds for layer in reformats) / total
    if share >= MANY_REFORMATS:
        told = f"{len(reformats)} changes of layout or type"
        yield share, f"{share:.0%} of the engines' time go into {told}"
    slowest = max(timing.layers, key=lambda layer: layer.milliseconds)
    share = slowest.milliseconds / total
    if share >= DOMINANT and len(timing.layers) > 1:
        told = ", ".join(slowest.nodes) or slowest.name
        yield share, f"{share:.0%} of the engines' time go into one layer: {told}"


def _alone(timing: Timing) -> str:
    return {
        "onnxruntime": "ONNX Runtime", "tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX",
    }.get(timing.kind, timing.kind)  # fmt: skip
