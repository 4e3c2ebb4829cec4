"""Attention over interleaved projections against MXNet."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import check_operator, check_refused, random_array, run_mxnet

import mxtrt

OPERATORS = {
    "selfatt_qk": lambda s, t, n, h, d: {"queries_keys_values": (s, n, h * d * 3)},
    "selfatt_valatt": lambda s, t, n, h, d: {
        "queries_keys_values": (s, n, h * d * 3),
        "attention": (n * h, s, s),
    },
    "encdec_qk": lambda s, t, n, h, d: {
        "queries": (s, n, h * d),
        "keys_values": (t, n, h * d * 2),
    },
    "encdec_valatt": lambda s, t, n, h, d: {
        "keys_values": (t, n, h * d * 2),
        "attention": (n * h, s, t),
    },
}


def attention_symbol(kind: str, names: list[str], heads: int) -> mx.sym.Symbol:
    operator = getattr(mx.sym.contrib, f"interleaved_matmul_{kind}")
    return operator(*map(mx.sym.var, names), heads=heads)


def check_attention(kind: str, sizes: tuple[int, ...]) -> None:
    shapes = OPERATORS[kind](*sizes)
    check_operator(attention_symbol(kind, list(shapes), sizes[3]), shapes)


@pytest.mark.parametrize("sizes", [(5, 7, 2, 3, 4), (1, 3, 1, 1, 1), (4, 1, 3, 2, 8)])
@pytest.mark.parametrize("kind", OPERATORS)
def test_interleaved(kind: str, sizes: tuple[int, ...]) -> None:
    check_attention(kind, sizes)


@pytest.mark.parametrize("kind", OPERATORS)
def test_float16(kind: str) -> None:
    """MXNet has these operators in float32 only on the CPU, which is the reference."""
    arrays = {n: random_array(s, "float16") for n, s in OPERATORS[kind](4, 3, 2, 2, 5).items()}
    symbol = attention_symbol(kind, list(arrays), 2)
    (expected,) = run_mxnet(symbol, {n: a.astype("float32") for n, a in arrays.items()})
    optimized, _ = mxtrt.optimize(
        symbol,
        shapes={n: a.shape for n, a in arrays.items()},
        dtypes=dict.fromkeys(arrays, "float16"),
        min_subgraph_size=1,
    )
    (found,) = run_mxnet(optimized, arrays)
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-2)  # values of about 5


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(OPERATORS)), st.tuples(*(st.integers(1, 6) for _ in range(5))))
def test_any_interleaved(kind: str, sizes: tuple[int, ...]) -> None:
    check_attention(kind, sizes)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "int64"])
@pytest.mark.parametrize("shape", [(9,), (3,), (2, 7), (2, 1), (2, 3, 4, 5)])
def test_div_sqrt_dim(shape: tuple[int, ...], dtype: str) -> None:
    symbol = mx.sym.contrib.div_sqrt_dim(mx.sym.var("data"))
    check_operator(symbol, {"data": random_array(shape, dtype)})


def test_odd_width_is_refused() -> None:
    symbol = mx.sym.contrib.interleaved_matmul_selfatt_qk(mx.sym.var("data"), heads=2)
    check_refused(symbol, {"data": (3, 2, 8)}, "the last axis of 'data' is 8, no multiple of 6")
