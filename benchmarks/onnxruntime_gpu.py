"""ONNX Runtime's TensorRT and CUDA providers on the same model: what else a user could take.

    python benchmarks/onnxruntime_gpu.py --package FOLDER [--model resnet50_v1]
                                         [--batch 1,8,32,128] [--providers TensorRT,CUDA]
                                         [--cache FOLDER] [--json FILE]

FOLDER holds the unpacked package onnxruntime-gpu, of a version that goes with the installed
TensorRT (1.14.1 with 8.5); it is used in a process of its own. The model is mxtrt.export_model's
file: for the TensorRT provider in float32 with ``trt_fp16_enable``, for the CUDA provider in
float16, by onnxconverter-common. Milliseconds for one batch, medians of calls that wait:

    numpy    session.run from NumPy arrays to NumPy arrays
    GPU      with I/O binding, on memory of the GPU
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROVIDERS = {"TensorRT": "TensorrtExecutionProvider", "CUDA": "CUDAExecutionProvider"}


def export(model: str, folder: Path) -> None:
    """Write the model in float32, and in float16 with inputs and outputs in float32."""
    import mxtrt  # isort: skip  # first: it makes MXNet importable
    import models
    import onnx
    from onnxconverter_common import float16

    net = models.load(model)
    path = str(folder / "float32.onnx")
    shapes = {"data": ("batch", *net.shape)}
    # the TensorRT provider asks for the shapes of all tensors
    mxtrt.export_model(net.symbol, net.params, shapes, path, run_shape_inference=True)
    half = float16.convert_float_to_float16(onnx.load(path), keep_io_types=True)
    onnx.save(half, str(folder / "float16.onnx"))


def measure(folder: Path, cache: str, provider: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the milliseconds of a session for one batch size, and what it took to make."""
    import numpy as np
    import onnxruntime as ort

    kind = "float32" if provider == "TensorRT" else "float16"
    options: dict[str, Any] = {}
    if provider == "TensorRT":
        place = Path(cache) / f"batch{shape[0]}"
        place.mkdir(parents=True, exist_ok=True)
        options = {"trt_fp16_enable": True, "trt_engine_cache_enable": True,
                   "trt_engine_cache_path": str(place)}  # fmt: skip
    data = np.random.default_rng(shape[0]).standard_normal(shape).astype("float32")
    start = time.perf_counter()
    session = ort.InferenceSession(
        str(folder / f"{kind}.onnx"),
        providers=[(PROVIDERS[provider], options), PROVIDERS["CUDA"]][: 2 if options else 1],
    )
    assert session.get_providers()[0] == PROVIDERS[provider], session.get_providers()
    [name], [output] = ([i.name for i in session.get_inputs()],
                        [o.name for o in session.get_outputs()])  # fmt: skip
    found = session.run(None, {name: data})[0]
    made = time.perf_counter() - start
    binding = session.io_binding()
    binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(data, "cuda", 0))
    place_out = ort.OrtValue.ortvalue_from_shape_and_type(found.shape, found.dtype, "cuda", 0)
    binding.bind_ortvalue_output(output, place_out)

    def on_gpu() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return {
        "provider": provider,
        "batch": shape[0],
        "first_seconds": made,
        "milliseconds": {
            "numpy": _median(lambda: session.run(None, {name: data})) * 1e3,
            "GPU": _median(on_gpu) * 1e3,
        },
    }


def _median(call: Any, seconds: float = 0.6) -> float:
    for _ in range(5):
        call()
    taken, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken) < 5:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _reason(printed: str) -> str:
    """Return why a process failed: ONNX Runtime logs that before it goes on with less."""
    lines = printed.strip().splitlines() or ["no message"]
    telling = [line for line in lines if re.search("error|fail", line, re.IGNORECASE)]
    return (telling or lines[-1:])[0][:500]


def main() -> None:
    """Export, then measure in another process; print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", required=True)
    parser.add_argument("--model", default="resnet50_v1")
    parser.add_argument("--batch", default="1,8,32,128")
    parser.add_argument("--providers", default=",".join(PROVIDERS))
    parser.add_argument("--cache", help="where the TensorRT provider keeps engines")
    parser.add_argument("--json")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        asked = json.loads(given.measure)
        asked["folder"] = Path(asked["folder"])
        print(json.dumps(measure(**asked)))
        return
    results = []
    with tempfile.TemporaryDirectory() as folder:
        export(given.model, Path(folder))
        side = 299 if given.model == "inceptionv3" else 224
        environment = {**os.environ}
        environment["PYTHONPATH"] = f"{given.package}:{environment.get('PYTHONPATH', '')}"
        for provider in given.providers.split(","):
            for batch in map(int, given.batch.split(",")):
                asked = {"folder": folder, "cache": given.cache or folder, "provider": provider,
                         "shape": (batch, 3, side, side)}  # fmt: skip
                command = [sys.executable, __file__, "--package", given.package, "--measure",
                           json.dumps(asked)]  # fmt: skip
                done = subprocess.run(command, capture_output=True, text=True, env=environment)
                if done.returncode:
                    result = {"provider": provider, "batch": batch, "error": _reason(done.stderr)}
                else:
                    result = json.loads(done.stdout.splitlines()[-1])
                results.append(result)
                print(result, file=sys.stderr, flush=True)
    from mxtrt.timing import print_table, write_json

    write_json(given.json, results)
    rows = [["provider", "batch", "numpy ms", "GPU ms", "first call s"]]
    for result in results:
        ms = result.get("milliseconds")
        rows.append(
            [result["provider"], str(result["batch"])]
            + ([f"{ms['numpy']:.3f}", f"{ms['GPU']:.3f}", f"{result['first_seconds']:.1f}"]
               if ms else [result["error"][:60], "", ""])
        )  # fmt: skip
    print_table(rows)


if __name__ == "__main__":
    main()
