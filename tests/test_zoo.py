"""All 34 models of Gluon's zoo against MXNet, and through NVIDIA's parser and builder.

One of each family runs always, all of them with ``-m slow``; but of vgg, which is like alexnet, and
for which NVIDIA's builder takes 4 GB.
"""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
import zoo_models as zoo
from operators import run_mxnet
from rtx import build_plan, parts_as_onnx

import mxtrt

SAMPLE = {
    *("alexnet", "densenet121", "inceptionv3", "mobilenet0.25", "mobilenetv2_0.25"),
    *("resnet18_v1", "resnet18_v2", "squeezenet1.1"),
}
MODELS = [n if n in SAMPLE else pytest.param(n, marks=pytest.mark.slow) for n in zoo.NAMES]


@pytest.mark.parametrize("name", MODELS)
def test_model(name: str) -> None:
    symbol, args, aux = zoo.zoo_model(name)
    images = zoo.zoo_images(name)
    weights = {n: a.asnumpy() for n, a in {**args, **aux}.items()}
    (expected,) = run_mxnet(symbol, {"data": images, **weights})
    optimized, kept = mxtrt.optimize(symbol, (args, aux))
    assert kept == ({}, {})
    report = mxtrt.report(optimized)
    assert (len(report.parts), dict(report.left)) == (1, {})
    (found,) = run_mxnet(optimized, {"data": images})
    mxtrt.release(optimized)
    # float32 sums of thousands of terms through up to 200 layers, added in another order: errors
    # are relative to the largest activations, not to a logit that happens to be near zero
    scale = float(np.abs(expected).max())
    assert 1e-3 < scale < 1e6, "the seeded weights must not let activations vanish or explode"
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 + 1e-4 * scale)
    assert found.argmax() == expected.argmax()

    (model,) = parts_as_onnx(symbol, (args, aux), {"data": images.shape})
    assert build_plan(model)


def test_the_list_is_the_whole_zoo() -> None:
    from mxnet.gluon.model_zoo.vision import get_model

    with pytest.raises(ValueError, match="Available options") as raised:
        get_model("no such model")
    offered = {line.strip() for line in str(raised.value).splitlines()[1:]}
    assert offered == set(zoo.NAMES)
    assert set(zoo.NAMES) > SAMPLE
    assert mx.__version__
