"""Write docs/speed.md and its picture from what the benchmarks of a GPU printed.

    python docs/make_speed.py

The files are ``benchmarks/results/h200_*.json``; `benchmarks/run_gpu.sh` makes such files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mxtrt.bars import Bar, draw
from mxtrt.timing import table

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER.parent / "benchmarks" / "results"
PAGE = FOLDER / "speed.md"
PICTURE = FOLDER / "pictures" / "resnet50_h200.svg"

OURS = ("mxtrt", "mxtrt pin", "mxtrt GPU", "by hand", "pinned", "raw", "graph")
TITLES = {
    "MXNet": "MXNet, CPU", "PyTorch": "PyTorch", "ONNX Runtime": "ONNX Runtime",
    "ONNX Runtime numpy": "ONNX Runtime, NumPy", "mxtrt": "from arrays",
    "mxtrt pin": "pinned arrays", "mxtrt GPU": "on the GPU", "by hand": "raw, NumPy",
    "pinned": "raw, pinned", "raw": "raw, on the GPU", "graph": "raw graph",
}  # fmt: skip
NAMES = {"mobilenet1.0": "MobileNet 1.0", "inceptionv3": "Inception-v3", "vgg16": "VGG-16",
         "densenet121": "DenseNet-121", "bert_base_128": "BERT-base, 128 words",
         "bert_base_384": "BERT-base, 384 words"}  # fmt: skip

INTRODUCTION = """\
# Speed on a GPU

One NVIDIA H200 (driver 580, 16 cores of an Intel Xeon), TensorRT {tensorrt}, float16, MXNet {mxnet}
with all cores. Milliseconds for one batch, until its result is there; medians. What a program pays
depends on where its arrays are:

- **from arrays**: `mxtrt.optimize`, MXNet's executor, arrays of MXNet on the CPU as they are.
- **pinned arrays**: the same with an input of `mxtrt.pinned_array`, which the GPU reads by itself.
- **on the GPU**: the engine through mxtrt, on memory of the GPU.
- **raw**: the same engine by hand, from NumPy's arrays by way of pinned memory, from pinned memory
  and back, on the GPU by `execute_async_v3`, and there as a CUDA graph.

On the CPU, and without a GPU: see the README. Measure your own model with `mxtrt bench`.

This page is written by `python docs/make_speed.py` from `benchmarks/results/`.
"""

RESNET = """
## ResNet-50 v1

`benchmarks/gpu.py`, `benchmarks/pytorch_resnet.py` and `benchmarks/onnxruntime_gpu.py`, one after
another on one machine; an engine for each batch size. PyTorch {torch} replays a CUDA graph of
float16, channels last. ONNX Runtime 1.14.1 with TensorRT's provider runs the exported file, from
memory of the GPU and from NumPy's arrays; with its CUDA provider, on memory of the GPU, it takes
{cuda}. mxtrt's largest difference from MXNet is {difference:.1e} of the largest output.

![Images per second: MXNet, PyTorch, ONNX Runtime and mxtrt](pictures/resnet50_h200.svg)

"""

IN_FLIGHT = """
## Several calls in flight

`benchmarks/in_flight.py`: the same engines from MXNet's arrays on the CPU, images per second. While
one batch is computed the next one is copied, so the copies cost next to nothing. One thread calls
all executors; [each was bound on a thread of its own](tuning.md#threads). On another H200.

"""

MODELS = """
## Other models

`benchmarks/gpu.py --one-engine --batch 1,8,32`: one engine for all batch sizes. TensorRT 8.5 has
one execution context for such an engine. The weights are seeded, not trained. Difference is the
largest one from MXNet's outputs, relative to the largest output; the largest number of each row
stands where MXNet's does{classes}. Inception-v3 and BERT with 384 words were measured
on another H200.

"""

MXNET = """
## MXNet's arrays on the GPU

`benchmarks/mxnet_gpu.py`: an executor of MXNet's CUDA build on `mx.gpu(0)`, ResNet-50 v1. MXNet
hands each call to a thread of its own: that is what a call that waits pays; calls in a row do not.

"""

NAIVE = """
## Without MXNet's threads

The same as the first table with `MXNET_ENGINE_TYPE=NaiveEngine`, on another H200: MXNet runs each
call on the thread of the caller, which nobody has to wake up.

"""


def results(name: str) -> Any:
    """Return what a benchmark wrote."""
    return json.loads((RESULTS / f"h200_{name}.json").read_text(encoding="utf-8"))


def onnxruntime(provider: str) -> dict[int, dict[str, float]]:
    """Return the milliseconds of one of ONNX Runtime's providers by batch size."""
    rows = results("onnxruntime")["results"]
    return {row["batch"]: row["milliseconds"] for row in rows if row["provider"] == provider}


def resnet() -> list[dict[str, Any]]:
    """Return the milliseconds of every way to run ResNet-50, with the batch size."""
    pytorch = {row["batch"]: row["graph_ms"] for row in results("pytorch")["results"]}
    ort = onnxruntime("TensorRT")
    rows = []
    for row in sorted(results("gpu")["results"], key=lambda row: int(row["batch"])):
        batch, ms = row["batch"], row["milliseconds"]
        took = {"MXNet": ms["MXNet"], "PyTorch": pytorch[batch]}
        took["ONNX Runtime numpy"] = ort[batch]["numpy"]
        took["ONNX Runtime"] = ort[batch]["GPU"]
        rows.append({"batch": batch, **took, **{column: ms[column] for column in OURS}})
    return rows


def _milliseconds(row: dict[str, Any], columns: tuple[str, ...]) -> list[str]:
    return [f"{row[column]:.3f}" if column in row else "" for column in columns]


def page() -> str:
    """Return the page."""
    return "\n".join(line.rstrip() for line in "".join(_page()).splitlines()) + "\n"


def _page() -> Iterator[str]:
    ours, pytorch = results("gpu"), results("pytorch")
    yield INTRODUCTION.format(**ours["machine"])
    largest = max(row["difference"] for row in ours["results"])
    by_batch = sorted(onnxruntime("CUDA").items())
    yield RESNET.format(
        difference=largest,
        torch=pytorch["machine"]["torch"].split("+")[0],
        cuda=", ".join(f"{milliseconds['GPU']:.1f}" for _, milliseconds in by_batch),
    )
    columns = ("MXNet", "PyTorch", "ONNX Runtime numpy", "ONNX Runtime", *OURS)
    rows = [["batch", *(TITLES[c] for c in columns)]]
    rows += [[str(row["batch"]), *_milliseconds(row, columns)] for row in resnet()]
    yield "\n".join(table(rows)) + "\n"
    yield IN_FLIGHT
    flights = sorted(results("in_flight")["results"], key=lambda row: int(row["batch"]))
    rows = [["batch", *(f"{count} in flight" for count in flights[0]["images_per_second"])]]
    for row in flights:
        rates = row["images_per_second"].values()
        rows.append([str(row["batch"]), *(f"{rate:,.0f}" for rate in rates)])
    yield "\n".join(table(rows)) + "\n"
    models = results("models")["results"]
    other = [f"{NAMES[row['model']]}, {row['batch']}" for row in models if not row["top1_equal"]]
    yield MODELS.format(classes=f" (not in: {'; '.join(other)})" if other else "")
    columns = ("MXNet", "mxtrt", "mxtrt pin", "pinned", "raw", "graph")
    rows = [["model", "batch", *(TITLES[c] for c in columns), "difference", "built in"]]
    for row in models:
        rows.append(
            [NAMES[row["model"]], str(row["batch"]), *_milliseconds(row["milliseconds"], columns),
             f"{row['difference']:.1e}", f"{row['build_seconds']:.0f} s"]
        )  # fmt: skip
    yield "\n".join(table(rows)) + "\n"
    yield NAIVE
    rows = [["batch", *(TITLES[c] for c in OURS)]]
    for row in results("naive_engine")["results"]:
        rows.append([str(row["batch"]), *_milliseconds(row["milliseconds"], OURS)])
    yield "\n".join(table(rows)) + "\n"
    yield MXNET
    rows = [["batch", "executor", "raw", "raw graph", "executor, in a row", "raw, in a row"]]
    columns = ("executor", "raw", "graph", "executor queued", "raw queued")
    for row in results("mxnet_gpu")["results"]:
        rows.append([str(row["batch"]), *_milliseconds(row["milliseconds"], columns)])
    yield "\n".join(table(rows)) + "\n"


def picture() -> str:
    """Return the picture: bars of images per second, each batch size to its own scale."""
    names = {"MXNet": "MXNet, 16 CPU cores", "PyTorch": "PyTorch, CUDA graph",
             "ONNX Runtime": "ONNX Runtime, TensorRT", "mxtrt": "mxtrt, arrays on the CPU",
             "mxtrt GPU": "mxtrt, memory of the GPU"}  # fmt: skip
    groups = []
    for row in resnet():
        rates = {name: row["batch"] / row[c] * 1e3 for c, name in names.items() if c in row}
        best = max(rates.values())
        bars = [Bar(name, rate / best, f"{rate:,.0f}") for name, rate in rates.items()]
        groups.append((f"batch {row['batch']}", bars))
    return draw(
        "ResNet-50 v1, float16, one H200",
        "images per second, each batch to its own scale; MXNet in float32",
        groups,
    )


def main() -> None:
    """Write the page and the picture."""
    PAGE.write_text(page(), encoding="utf-8")
    PICTURE.write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
