"""Operators that stay in MXNet whatever their attributes are."""

from __future__ import annotations

import mxnet as mx
import pytest
from operators import check_refused

from mxtrt.registry import refused_ops, refuses, registered_ops

DATA = mx.sym.var("data")


@pytest.mark.parametrize(
    ("symbol", "sentence"),
    [
        (mx.sym.shuffle(DATA), "draws random numbers"),
        (DATA + mx.sym.random.normal(0, 1, shape=(2, 3)), "draws random numbers"),
        (mx.sym.random.uniform_like(DATA), "draws random numbers"),
        (mx.sym.sample_multinomial(DATA), "draws random numbers"),
        (mx.sym._internal._square_sum(DATA, axis=1), "sparse arrays"),
        (mx.sym.contrib.getnnz(DATA), "sparse arrays"),
    ],
)
def test_refused(symbol: mx.sym.Symbol, sentence: str) -> None:
    check_refused(symbol, {"data": (2, 3)}, sentence)


def test_an_operator_is_converted_or_refused() -> None:
    assert not set(refused_ops()) & set(registered_ops())
    with pytest.raises(ValueError, match="is refused already"):
        refuses("once more", "_shuffle")
    with pytest.raises(ValueError, match="has a converter already"):
        refuses("once more", "Reshape")
