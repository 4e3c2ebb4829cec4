"""Detectors, segmentation, video, language and models of 8 bits on the CPU: mxtrt beside MXNet.

    python benchmarks/known_models.py [--models NAME,…|all] [--seconds 2] [--json FILE]
    python benchmarks/known_models.py --show FILE

The models are those of docs/models.md, with its inputs, whose sizes are known. GluonCV's and
GluonNLP's need gluoncv 0.10.5 and gluonnlp 0.10.0. Milliseconds, medians of calls that wait for all
outputs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import mxtrt  # isort: skip  # first: it makes MXNet importable
import mxnet as mx
import numpy as np
from models.catalogue import CATALOGUE  # of tests/
from models.weights import seeded_weights

from mxtrt.timing import geometric_mean, interleaved_medians, print_table, write_json

CHOSEN = (
    "gluoncv/ssd_512_mobilenet1.0_voc", "gluoncv/yolo3_mobilenet1.0_coco",
    "gluoncv/faster_rcnn_resnet50_v1b_voc", "gluoncv/mask_rcnn_resnet18_v1b_coco",
    "gluoncv/center_net_resnet18_v1b_dcnv2_voc", "gluoncv/fcn_resnet50_ade",
    "gluoncv/deeplab_resnest50_ade", "gluoncv/psp_resnet50_ade", "gluoncv/icnet_resnet50_citys",
    "gluoncv/fastscnn_citys", "gluoncv/hrnet_w18_small_v1_s", "gluoncv/mobile_pose_mobilenet1.0",
    "gluoncv/i3d_inceptionv1_kinetics400", "gluoncv/c3d_kinetics400",
    "gluoncv/monodepth2_resnet18_kitti_stereo_640x192", "gluoncv/senet_154",
    "gluoncv/mobilenetv3_small", "gluoncv/shufflenet_v1", "gluonnlp/bert_12_768_12",
    "gluonnlp/transformer_en_de_512", "gluonnlp/standard_lstm_lm_200",
    "gluonnlp/awd_lstm_lm_600", "gluonnlp/elmo_2x1024_128_2048cnn_1xhighway",
    "insightface/arcface_r50", "insightface/retinaface_mnet25", "gluoncv/mobilenet1.0_int8",
    "gluoncv/resnet50_v1_int8", "gluoncv/ssd_512_mobilenet1.0_voc_int8",
    "gluoncv/ssd_300_vgg16_atrous_voc_int8",
)  # fmt: skip


def executor(
    symbol: mx.sym.Symbol, inputs: dict[str, mx.nd.NDArray], params: Any
) -> Callable[[], None]:
    """Return one forward pass of a bound executor, of which all outputs are waited for."""
    given = {**inputs, **params[0]}
    args = {name: given[name] for name in symbol.list_arguments()}
    bound = symbol.bind(mx.cpu(), args, aux_states=params[1], grad_req="null")

    def call() -> None:
        for output in bound.forward(is_train=False):
            output.wait_to_read()

    return call


def measure(name: str, seconds: float) -> dict[str, Any]:
    """Return the medians in milliseconds of one model."""
    model = CATALOGUE[name]
    symbol, constants = model.build()
    arrays = dict(model.inputs(np.random.default_rng(7)))
    params = seeded_weights(symbol, arrays, constants, model.gains)
    inputs = {name: mx.nd.array(array, dtype=array.dtype) for name, array in arrays.items()}
    optimized, kept = mxtrt.optimize(
        symbol, params, shapes={name: array.shape for name, array in arrays.items()},
        dtypes={name: array.dtype.name for name, array in arrays.items()}, engine="onnxruntime",
    )  # fmt: skip
    candidates = {
        "MXNet": executor(symbol, inputs, params), "mxtrt": executor(optimized, inputs, kept)
    }  # fmt: skip
    medians = interleaved_medians(candidates, seconds=seconds)
    mxtrt.release(optimized)
    return {"model": name, "ms": {key: value * 1e3 for key, value in medians.items()}}


def show(results: list[dict[str, Any]]) -> None:
    """Print the rows, and how much faster mxtrt is over all of them."""
    rows = [["model", "MXNet (ms)", "mxtrt (ms)", "mxtrt is faster by"]]
    for found in results:
        ms = found["ms"]
        speedup = f"{ms['MXNet'] / ms['mxtrt']:.2f}x"
        rows.append([found["model"], f"{ms['MXNet']:.2f}", f"{ms['mxtrt']:.2f}", speedup])
    print_table(rows)
    mean, least, most = overall(results)
    print(f"\n{mean} times MXNet's speed (geometric mean; least {least}, most {most})")


def overall(results: list[dict[str, Any]]) -> tuple[str, str, str]:
    """Return the geometric mean of how much faster mxtrt is, the least and the most."""
    gains = [row["ms"]["MXNet"] / row["ms"]["mxtrt"] for row in results]
    return f"{geometric_mean(gains):.2f}", f"{min(gains):.2f}", f"{max(gains):.2f}"


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--models", default=",".join(CHOSEN))
    arguments.add_argument("--seconds", type=float, default=2.0, help="for each measurement")
    arguments.add_argument("--json")
    arguments.add_argument("--show", metavar="FILE", help="print what an earlier run wrote")
    options = arguments.parse_args()
    if options.show:
        show(json.loads(Path(options.show).read_text())["results"])
        return
    results = []
    for name in CATALOGUE if options.models == "all" else options.models.split(","):
        results.append(measure(name, options.seconds))
        print(results[-1], file=sys.stderr, flush=True)
        write_json(options.json, results)
    show(results)


if __name__ == "__main__":
    main()
