"""ResNet-50 in PyTorch, float16 and channels last, eagerly and as a CUDA graph.

    python benchmarks/pytorch_resnet.py [--batch 1,8,32,128] [--json FILE]

For side-by-side figures with gpu.py; it needs torch and torchvision, and nothing of mxtrt.
Milliseconds for one batch on device memory: medians of calls that wait for their result, and of 20
that are enqueued without waiting in between.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision

QUEUED = 20


def median(call: Callable[[], object], seconds: float) -> float:
    """Return the median milliseconds of a call that is waited for."""
    taken = []
    end = time.perf_counter() + seconds
    while len(taken) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1e3


def queued(call: Callable[[], object]) -> float:
    """Return the milliseconds of one of many calls without a wait in between."""

    def many() -> None:
        for _ in range(QUEUED):
            call()

    return median(many, 0.3) / QUEUED


def captured(net: torch.nn.Module, images: torch.Tensor) -> Callable[[], None]:
    """Return the replay of the net's CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            net(images)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        net(images)
    return graph.replay


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", default="1,8,32,128")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--json")
    given = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    net = torchvision.models.resnet50(weights=None).eval().cuda().half()
    net = net.to(memory_format=torch.channels_last)
    results = []
    with torch.inference_mode():
        for batch in map(int, given.batch.split(",")):
            images = torch.randn(batch, 3, 224, 224, device="cuda", dtype=torch.half)
            images = images.to(memory_format=torch.channels_last)
            for _ in range(5):
                net(images)
            torch.cuda.synchronize()
            result = {"batch": batch}
            ways = {"eager": lambda x=images: net(x), "graph": captured(net, images)}
            for name, call in ways.items():
                result[f"{name}_ms"] = median(call, given.seconds)
                result[f"{name}_queued_ms"] = queued(call)
                result[f"{name}_images_per_second"] = batch / result[f"{name}_queued_ms"] * 1e3
            print(result, flush=True)
            results.append(result)
            if given.json:
                machine = {
                    "gpu": torch.cuda.get_device_name(),
                    "torch": torch.__version__,
                    "torchvision": torchvision.__version__,
                    "cuda": torch.version.cuda,
                }
                Path(given.json).write_text(
                    json.dumps({"machine": machine, "results": results}, indent=1)
                )


if __name__ == "__main__":
    main()
