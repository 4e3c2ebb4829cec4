"""Real trained models: their stored outputs, and MXNet's own at another batch size.

They lie beside a checkout of the project, in ``../shared/models``; without them this is skipped.
"""

from __future__ import annotations

import json
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from operators import run_mxnet
from rtx import build_plan, parts_as_onnx

import mxtrt
from mxtrt.partition import UNREAD

FOLDER = Path(__file__).parents[2] / "shared" / "models"
MODELS = sorted(path.parent.name for path in FOLDER.glob("*/SOURCE.json"))

FIXED_BATCH = {"face_attr_eighth"}  # MXNet's symbol reshapes its labels to a batch of 128

pytestmark = pytest.mark.skipif(not MODELS, reason=f"no trained models in {FOLDER}")


def load(name: str) -> tuple[mx.sym.Symbol, dict, dict]:
    prefix = next((FOLDER / name).glob("*-symbol.json")).name[: -len("-symbol.json")]
    return mx.model.load_checkpoint(str(FOLDER / name / prefix), 0)


def stored(name: str) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    arrays = np.load(next((FOLDER / name).glob("*_io.npz")))
    inputs = {key[3:]: arrays[key] for key in arrays.files if key.startswith("in_")}
    outputs = [key for key in arrays.files if key.startswith("out")]
    outputs.sort(key=lambda key: int(key[3:].split("_")[0]))
    return inputs, [arrays[key] for key in outputs]


def outputs_of(symbol: mx.sym.Symbol, *arrays: dict) -> list[np.ndarray]:
    every = {
        k: v if isinstance(v, np.ndarray) else v.asnumpy() for d in arrays for k, v in d.items()
    }
    names = symbol.list_arguments()
    shapes, _, _ = symbol.infer_shape(**{n: every[n].shape for n in names if n in every})
    labels = {n: np.zeros(s, "float32") for n, s in zip(names, shapes) if n not in every}
    return run_mxnet(symbol, {**every, **labels})


def assert_close(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(found) == len(expected)
    for have, want in zip(found, expected):
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("sizes", ["unknown", "known"])
def test_outputs(name: str, sizes: str) -> None:
    symbol, args, aux = load(name)
    inputs, expected = stored(name)
    fed = {n: a for n, a in inputs.items() if not n.endswith("label")}
    shapes = {n: a.shape for n, a in fed.items()} if sizes == "known" else None
    optimized, (kept_args, kept_aux) = mxtrt.optimize(symbol, (args, aux), shapes=shapes)
    assert (kept_args, kept_aux) == ({}, {})
    # what computes a label is not needed any more
    assert set(mxtrt.report(optimized).left.values()) <= {UNREAD}
    assert optimized.list_arguments() == list(fed)
    assert_close(outputs_of(optimized, fed), expected)
    if sizes == "unknown":
        other = {n: np.concatenate([a, a[::-1] * 0.5]) for n, a in fed.items()}
        assert_close(outputs_of(optimized, other), mxnet_outputs(name, other))


def mxnet_outputs(name: str, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return MXNet's outputs at twice the stored batch size."""
    symbol, args, aux = load(name)
    if name not in FIXED_BATCH:
        return outputs_of(symbol, inputs, args, aux)
    with_labels, _ = stored(name)
    halves = ({n: np.split(a, 2)[i] for n, a in inputs.items()} for i in range(2))
    both = [outputs_of(symbol, {**with_labels, **half}, args, aux) for half in halves]
    return [np.concatenate(pair) for pair in zip(*both)]


@pytest.mark.parametrize("name", MODELS)
def test_the_source_is_named(name: str) -> None:
    source = json.loads((FOLDER / name / "SOURCE.json").read_text())
    assert source


@pytest.mark.parametrize("name", MODELS)
def test_nvidia_builds_it(name: str) -> None:
    symbol, args, aux = load(name)
    inputs, _ = stored(name)
    shapes = {n: a.shape for n, a in inputs.items() if not n.endswith("label")}
    for model in parts_as_onnx(symbol, (args, aux), shapes):
        assert build_plan(model)
