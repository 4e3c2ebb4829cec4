"""Casts of automatic mixed precision.

MXNet on the CPU hands them to oneDNN, which knows neither float16 nor float64: their dtypes are
MXNet's own, from its inference of types, and their values are NumPy's casts.
"""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from operators import check_operator, check_refused, optimize_whole, random_array, run_engines

X = mx.sym.var("x")


def check_cast(symbol: mx.sym.Symbol, arrays: dict[str, np.ndarray]) -> None:
    dtypes = {name: array.dtype.name for name, array in arrays.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    optimized, _ = optimize_whole(symbol, dtypes=dtypes, shapes=shapes)
    _, expected, _ = symbol.infer_type(**dtypes)
    found = run_engines(optimized, arrays)
    assert [output.dtype.type for output in found] == expected
    for output, array in zip(found, arrays.values()):
        np.testing.assert_array_equal(output, array.astype(output.dtype))


@pytest.mark.parametrize("source", ["float16", "float32", "float64", "int32", "uint8"])
@pytest.mark.parametrize("target", ["float16", "float32", "int32"])
def test_amp_cast(source: str, target: str) -> None:
    check_cast(mx.sym.amp_cast(X, dtype=target), {"x": random_array((2, 3), source)})


def test_amp_cast_where_mxnet_has_it() -> None:
    check_operator(mx.sym.amp_cast(X, dtype="float32"), {"x": (2, 3)})


def test_amp_cast_refused() -> None:
    check_refused(mx.sym.amp_cast(X, dtype="bfloat16"), {"x": (2, 3)}, "dtype='bfloat16'")


@pytest.mark.parametrize("narrow", [True, False])
@pytest.mark.parametrize(
    "dtypes",
    [
        ("float16", "float32"),
        ("float32", "float16", "float16"),
        ("float16", "float16"),
        ("float16", "float32", "float64"),
        ("float64", "float16"),
        ("int32", "float16", "float32"),
    ],
)
def test_amp_multicast(dtypes: tuple[str, ...], narrow: bool) -> None:
    names = [f"x{i}" for i in range(len(dtypes))]
    inputs = map(mx.sym.var, names)
    symbol = mx.sym.amp_multicast(*inputs, num_outputs=len(dtypes), cast_narrow=narrow)
    check_cast(symbol, {n: random_array((2, 3), t) for n, t in zip(names, dtypes)})
