"""``FullyConnected`` against MXNet."""

from __future__ import annotations

import mxnet as mx
import pytest
from operators import check_operator


@pytest.mark.parametrize("flatten", [True, False])
@pytest.mark.parametrize("no_bias", [True, False])
@pytest.mark.parametrize("shape", [(4, 6), (2, 3, 6), (2, 3, 1, 6)])
def test_fully_connected(shape: tuple[int, ...], no_bias: bool, flatten: bool) -> None:
    symbol = mx.sym.FullyConnected(
        mx.sym.var("data"), num_hidden=5, no_bias=no_bias, flatten=flatten, name="fc"
    )
    units = 6 if not flatten else shape[-1] * (1 if len(shape) == 2 else 3)
    params = {"fc_weight": (5, units), "fc_bias": (5,)}
    if no_bias:
        del params["fc_bias"]
    check_operator(symbol, {"data": shape}, params)
