"""Training heads against MXNet's inference; labels vanish."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from operators import check_operator, check_refused, random_array

import mxtrt

X, LABEL = mx.sym.var("x"), mx.sym.var("label")


@pytest.mark.parametrize(
    ("options", "shape", "label"),
    [
        ({}, (4, 5), (4,)),
        ({}, (4, 3, 5), (4, 3)),
        ({}, (2, 3, 2, 1, 5), (2, 3, 2, 1)),
        ({"preserve_shape": True}, (4, 3, 5), (4, 3)),
        ({"preserve_shape": True}, (2, 3, 4, 5), (2, 3, 4)),
        ({"multi_output": True}, (4, 5), (4, 1)),
        ({"multi_output": True}, (4, 3, 5), (4, 5)),
        ({"multi_output": True}, (2, 3, 4, 5), (2, 20)),
        ({"multi_output": True, "preserve_shape": True}, (4, 3, 5), (4, 5)),
        ({"grad_scale": 3, "ignore_label": 2, "use_ignore": True}, (4, 5), (4,)),
        ({"normalization": "valid", "out_grad": True, "smooth_alpha": 0.1}, (4, 5), (4,)),
    ],
)
def test_softmax_output(
    options: dict[str, Any], shape: tuple[int, ...], label: tuple[int, ...]
) -> None:
    check_operator(mx.sym.SoftmaxOutput(X, LABEL, **options), {"x": shape, "label": label})


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_softmax_output_dtypes(dtype: str) -> None:
    arrays = {"x": random_array((4, 5), dtype), "label": np.zeros(4, dtype)}
    check_operator(mx.sym.SoftmaxOutput(X, LABEL), arrays)


def test_softmax_output_refused() -> None:
    arrays = {"x": (2, 3, 4, 5), "label": (2, 3, 4)}
    check_refused(mx.sym.SoftmaxOutput(X, LABEL), arrays, "all but the first without it")


@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("LinearRegressionOutput", {"grad_scale": 2}),
        ("MAERegressionOutput", {"grad_scale": 2}),
        ("LogisticRegressionOutput", {"grad_scale": 2}),
        ("SVMOutput", {"margin": 2, "regularization_coefficient": 0.5, "use_linear": True}),
    ],
)
def test_heads_with_labels(head: str, options: dict[str, Any]) -> None:
    label = (4,) if head == "SVMOutput" else (4, 5)
    symbol = getattr(mx.sym, head)(X, LABEL, **options)
    check_operator(symbol, {"x": (4, 5), "label": label})


@pytest.mark.parametrize(
    "symbol",
    [
        mx.sym.BlockGrad(X),
        mx.sym.identity(mx.sym.make_loss(X)),  # as a head it is "make_loss_loss", which stays
        mx.sym.MakeLoss(X, grad_scale=2, valid_thresh=1, normalization="batch"),
    ],
    ids=["BlockGrad", "make_loss", "MakeLoss"],
)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_heads_without_labels(symbol: mx.sym.Symbol, dtype: str) -> None:
    check_operator(symbol, {"x": random_array((4, 5), dtype)})


def test_kl_sparse_reg() -> None:
    symbol = mx.sym.IdentityAttachKLSparseReg(
        X, name="kl", penalty=0.1, momentum=0.5, sparseness_target=0.3
    )
    check_operator(symbol, {"x": np.full((4, 5), 0.5, "float32")}, {"kl_moving_avg": (5,)})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_cross_entropy_reads_its_label(dtype: str) -> None:
    # the second row's chance underflows: MXNet bounds it below
    logits = np.array([[1, 2, 3], [0, 80, 0], [0.5, -1, 2]], dtype)
    arrays = {"x": logits, "label": np.array([2, 0, 1], dtype)}
    check_operator(mx.sym.softmax_cross_entropy(X, LABEL), arrays)


def test_the_label_vanishes() -> None:
    net = mx.sym.SoftmaxOutput(mx.sym.relu(X), LABEL, multi_output=True, name="softmax")
    optimized, _ = mxtrt.optimize(net)
    assert optimized.list_arguments() == ["x"]
    assert optimized.list_outputs() == ["softmax_output"]


def test_what_computes_the_label_vanishes() -> None:
    label = mx.sym.Reshape(mx.sym.relu(LABEL), shape=(-1,))
    net = mx.sym.SoftmaxOutput(mx.sym.relu(X), label)
    optimized, _ = mxtrt.optimize(net, shapes={"x": (4, 5)})
    assert optimized.list_arguments() == ["x"]
    assert len(mxtrt.explain(net, shapes={"x": (4, 5)}).left) == 2


def test_a_label_that_something_else_reads_stays() -> None:
    net = mx.sym.Group([mx.sym.SVMOutput(mx.sym.relu(X), LABEL), mx.sym.exp(LABEL)])
    optimized, _ = mxtrt.optimize(net)
    assert sorted(optimized.list_arguments()) == ["label", "x"]


def test_a_head_that_stays_keeps_its_label() -> None:
    net = mx.sym.SoftmaxOutput(mx.sym.relu(mx.sym.exp(X)), mx.sym.relu(LABEL), name="softmax")
    optimized, _ = mxtrt.optimize(net, exclude_nodes=["softmax"])
    assert sorted(optimized.list_arguments()) == ["label", "x"]
    left = {node.name for node in mxtrt.explain(net, exclude_nodes=["softmax"]).left}
    assert "softmax" in left
