"""What a program waits for when it starts: imports, ``mxtrt.optimize``, the first call.

    python benchmarks/start.py [--model resnet50_v1] [--engine onnxruntime] [--repeats 5]
                               [--json FILE]

Every start is a process of its own, from checkpoint files; seconds, medians. With TensorRT the
first start fills an empty store, and the others find their plans there.

    import mxnet    MXNet alone; where it needs mxtrt's help, the import after mxtrt's
    import mxtrt    what `import mxtrt` adds to that
    optimize        from two paths, with everything that mxtrt loads for it
    first call      bind an executor, run one image, wait
    both            the last two

With ONNX Runtime, further rows say what could be saved by keeping what its optimiser made: the
session of the whole model as it is made, and as it is made of the optimised model.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

IMPORT_ALONE = """
import time; start = time.perf_counter()
import mxnet
print(time.perf_counter() - start)
"""
IMPORT_BOTH = """
import time; start = time.perf_counter()
import mxtrt
middle = time.perf_counter()
import mxnet
print(middle - start, time.perf_counter() - middle)
"""
SIZE = 224
COMPILED = tempfile.TemporaryDirectory()


def run(*command: str, folder: str = "") -> str:
    """Return the last line that a new Python process prints; MXTRT_CACHE_DIR is `folder`."""
    environment = {**os.environ, "MXTRT_CACHE_DIR": folder or "off"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # modules are compiled, as after pip install
    environment["PYTHONPYCACHEPREFIX"] = COMPILED.name
    done = subprocess.run(
        [sys.executable, *command], check=False, capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout.splitlines()[-1]


def import_seconds() -> dict[str, float]:
    """Measure the imports once."""
    mxtrt, mxnet = map(float, run("-c", IMPORT_BOTH).split())
    try:
        alone = float(run("-c", IMPORT_ALONE))
    except RuntimeError:  # this Python and NumPy are too new for MXNet alone
        return {"import mxnet": mxnet, "import mxtrt": mxtrt}
    return {"import mxnet": alone, "import mxtrt": mxtrt + mxnet - alone}


def start(prefix: str, engine: str) -> dict[str, float]:
    """Measure one start in this process."""
    import mxtrt  # isort: skip
    import mxnet as mx

    data = mx.nd.ones((1, 3, SIZE, SIZE))
    data.wait_to_read()
    begin = time.perf_counter()
    symbol, params = mxtrt.optimize(
        f"{prefix}-symbol.json",
        f"{prefix}-0000.params",
        shapes={"data": data.shape},
        engine=engine,
        strict=True,
    )
    optimized = time.perf_counter()
    bound = symbol.bind(mx.cpu(), {"data": data, **params}, grad_req="null")
    bound.forward(is_train=False)[0].wait_to_read()
    end = time.perf_counter()
    return {"optimize": optimized - begin, "first call": end - optimized, "both": end - begin}


def sessions(prefix: str) -> dict[str, float]:
    """Measure ONNX Runtime's session of the model, and that of the model it has optimised."""
    import mxtrt  # isort: skip
    import onnxruntime as ort

    mxtrt.export_model(
        f"{prefix}-symbol.json",
        f"{prefix}-0000.params",
        {"data": (1, 3, SIZE, SIZE)},
        f"{prefix}.onnx",
    )
    keep = ort.SessionOptions()
    keep.optimized_model_filepath = f"{prefix}-optimized.onnx"
    keep.log_severity_level = 3
    ort.InferenceSession(f"{prefix}.onnx", keep, providers=["CPUExecutionProvider"])
    as_it_is = ort.SessionOptions()
    as_it_is.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    found = {}
    for name, path, options in (
        ("session", f"{prefix}.onnx", ort.SessionOptions()),
        ("session of the optimised model", f"{prefix}-optimized.onnx", as_it_is),
    ):
        begin = time.perf_counter()
        ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        found[name] = time.perf_counter() - begin
    return found


def save(model: str, prefix: str) -> None:
    """Write the checkpoint of a model."""
    import mxtrt  # noqa: F401 # isort: skip
    import mxnet as mx
    import zoo_models

    mx.model.save_checkpoint(prefix, 0, *zoo_models.zoo_model(model))


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure."""
    return {name: statistics.median(one[name] for one in runs) for name in runs[0]}


def measure(model: str, engine: str, repeats: int) -> dict[str, dict[str, float]]:
    """Return the seconds of each kind of start."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = f"{folder}/net"
        run(__file__, "--save", model, prefix)

        def started(store: str = f"{folder}/store") -> dict[str, float]:
            return json.loads(run(__file__, "--start", prefix, engine, folder=store))

        found: dict[str, dict[str, float]] = {}
        if engine != "onnxruntime":
            found["empty store"] = started()
        import_seconds()  # compiles the modules
        imports = medians([import_seconds() for _ in range(repeats)])
        found["warm"] = {**imports, **medians([started() for _ in range(repeats)])}
        if engine == "onnxruntime":
            kinds = [json.loads(run(__file__, "--sessions", prefix)) for _ in range(repeats)]
            found["ONNX Runtime"] = medians(kinds)
        return found


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--model", default="resnet50_v1")
    arguments.add_argument("--engine", default="onnxruntime")
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--json")
    for step, count in (("save", 2), ("start", 2), ("sessions", 1)):
        arguments.add_argument(f"--{step}", nargs=count, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.save:
        save(*options.save)
        print()
    elif options.start or options.sessions:
        step: Any = start if options.start else sessions
        print(json.dumps(step(*(options.start or options.sessions))))
    else:
        from mxtrt.timing import print_table, write_json

        found = measure(options.model, options.engine, options.repeats)
        rows = [
            [kind, name, f"{seconds:.3f}"]
            for kind, figures in found.items()
            for name, seconds in figures.items()
        ]
        print_table([["start", "step", "seconds"], *rows])
        write_json(options.json, {"model": options.model, "engine": options.engine, **found})


if __name__ == "__main__":
    main()
