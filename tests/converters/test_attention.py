"""Attention over interleaved projections against MXNet."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import ENGINE_OPTIONS, check_operator, check_refused, random_array, run_mxnet

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
        **ENGINE_OPTIONS,
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


# -- whole layers, written as GluonNLP writes them --------------------------------------------

UNITS, HEADS, HIDDEN = 12, 3, 20
S = mx.sym


def dense(x: mx.sym.Symbol, units: int, name: str) -> mx.sym.Symbol:
    return S.FullyConnected(x, num_hidden=units, flatten=False, name=name)


def interleaved(x: mx.sym.Symbol, parts: str, name: str) -> mx.sym.Symbol:
    """One projection over the weights of queries, keys and values, head by head."""
    weights = [S.var(f"{name}_{p}_weight", shape=(UNITS, UNITS)) for p in parts]
    biases = [S.var(f"{name}_{p}_bias", shape=(UNITS,)) for p in parts]
    weight = S.concat(*(S.reshape(w, shape=(HEADS, -1, 0), reverse=True) for w in weights), dim=-2)
    bias = S.stack(*(S.reshape(b, shape=(HEADS, -1)) for b in biases), axis=1)
    return S.FullyConnected(
        x,
        S.reshape(weight, shape=(-1, 0), reverse=True),
        S.reshape(bias, shape=(-1,)),
        num_hidden=len(parts) * UNITS,
        flatten=False,
        name=name,
    )


def masked_softmax(scores: mx.sym.Symbol, mask: mx.sym.Symbol) -> mx.sym.Symbol:
    """Softmax where a mask of shape (batch, queries, keys) is 1."""
    by_head = S.broadcast_axis(S.expand_dims(mask, axis=1), axis=1, size=HEADS)
    by_head = S.reshape(by_head, shape=(-1, 0, 0), reverse=True)
    return S.Dropout(S.softmax(scores + (1 - by_head) * -1e4, axis=-1), p=0.1)


def add_and_norm(x: mx.sym.Symbol, y: mx.sym.Symbol, name: str) -> mx.sym.Symbol:
    return S.LayerNorm(x + S.Dropout(y, p=0.1), name=name)


def feed_forward(x: mx.sym.Symbol, name: str) -> mx.sym.Symbol:
    inner = S.LeakyReLU(dense(x, HIDDEN, f"{name}_1"), act_type="gelu")
    return add_and_norm(x, dense(inner, UNITS, f"{name}_2"), f"{name}_norm")


def within(x: mx.sym.Symbol, lengths: mx.sym.Symbol) -> mx.sym.Symbol:
    """1 for each step of `x` (batch, steps, …) that lies in its sequence."""
    steps = S.reshape(S.contrib.arange_like(x, axis=1), shape=(1, -1))
    return S.broadcast_lesser(steps, S.reshape(lengths, shape=(-1, 1)))


def encoder_layer() -> mx.sym.Symbol:
    data, lengths = S.var("data"), S.var("lengths")
    keys = S.expand_dims(within(data, lengths), axis=1)
    queries = S.ones_like(S.slice_axis(data, axis=2, begin=0, end=1))
    mask = S.broadcast_mul(queries, keys)
    x = S.transpose(data, axes=(1, 0, 2))
    qkv = interleaved(x, "qkv", "self")
    scores = S.contrib.interleaved_matmul_selfatt_qk(qkv, heads=HEADS)
    weights = masked_softmax(scores, mask)
    sums = S.contrib.interleaved_matmul_selfatt_valatt(qkv, weights, heads=HEADS)
    x = add_and_norm(x, dense(sums, UNITS, "proj"), "norm")
    return S.transpose(feed_forward(x, "ffn"), axes=(1, 0, 2))


def decoder_layer() -> mx.sym.Symbol:
    data, memory, lengths = S.var("data"), S.var("memory"), S.var("lengths")
    steps = S.contrib.arange_like(data, axis=1)
    causal = S.broadcast_greater_equal(
        S.reshape(steps, shape=(1, -1, 1)), S.reshape(steps, shape=(1, 1, -1))
    )
    queries = S.ones_like(S.slice_axis(data, axis=2, begin=0, end=1))
    x, source = (S.transpose(v, axes=(1, 0, 2)) for v in (data, memory))
    qkv = interleaved(x, "qkv", "self")
    scores = S.contrib.interleaved_matmul_selfatt_qk(qkv, heads=HEADS)
    weights = masked_softmax(scores, S.broadcast_mul(queries, causal))
    sums = S.contrib.interleaved_matmul_selfatt_valatt(qkv, weights, heads=HEADS)
    x = add_and_norm(x, dense(sums, UNITS, "proj"), "norm")
    kv = interleaved(source, "kv", "cross")
    scores = S.contrib.interleaved_matmul_encdec_qk(dense(x, UNITS, "query"), kv, heads=HEADS)
    mask = S.broadcast_mul(queries, S.expand_dims(within(memory, lengths), axis=1))
    sums = S.contrib.interleaved_matmul_encdec_valatt(kv, masked_softmax(scores, mask), heads=HEADS)
    x = add_and_norm(x, dense(sums, UNITS, "cross_proj"), "cross_norm")
    return S.transpose(feed_forward(x, "ffn"), axes=(1, 0, 2))


LAYERS = {
    "encoder": (encoder_layer, {"data": (2, 7, UNITS)}),
    "decoder": (decoder_layer, {"data": (2, 5, UNITS), "memory": (2, 7, UNITS)}),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_run_as_one_part(kind: str) -> None:
    """Batch and lengths known, and open."""
    build, inputs = LAYERS[kind]
    symbol = build()
    shapes, _, _ = symbol.infer_shape(**inputs, lengths=(2,))
    arrays = {
        n: random_array(s, seed=i) for i, (n, s) in enumerate(zip(symbol.list_arguments(), shapes))
    }
    arrays["lengths"] = np.array([7, 4], "float32")
    (expected,) = run_mxnet(symbol, arrays)
    fed = {n: a for n, a in arrays.items() if n in inputs or n == "lengths"}
    params = {n: mx.nd.array(a) for n, a in arrays.items() if n not in fed}
    known = {n: a.shape for n, a in fed.items()}
    opened = {n: (None, None, UNITS)[: a.ndim] for n, a in fed.items()}
    for sizes in (known, opened):
        optimized, kept = mxtrt.optimize(symbol, params, shapes=sizes, **ENGINE_OPTIONS)
        assert not kept
        nodes = json.loads(optimized.tojson())["nodes"]
        assert [n["op"] for n in nodes if n["op"] != "null"] == ["_mxtrt_engine"]
        (found,) = run_mxnet(optimized, fed)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
