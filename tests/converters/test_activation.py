"""Activations against MXNet."""

from __future__ import annotations

import mxnet as mx
import pytest
from operators import check_operator

X = mx.sym.var("x")


@pytest.mark.parametrize("act_type", ["relu", "sigmoid", "tanh", "softrelu", "softsign"])
@pytest.mark.parametrize("shape", [(7,), (2, 3), (2, 3, 1, 5)])
def test_activation(act_type: str, shape: tuple[int, ...]) -> None:
    check_operator(mx.sym.Activation(X, act_type=act_type), {"x": shape})
