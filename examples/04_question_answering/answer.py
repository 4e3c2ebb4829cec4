"""Answer questions with BERT, with MXNet and with mxtrt: texts of two lengths, one engine.

    python examples/04_question_answering/answer.py [--large]

The net is GluonNLP's BERT with a head for answers, written in MXNet's operators: words and
segments go in, padded to the longest text of the batch, with the length of each text; out come two
scores for each word, of being the first and the last word of the answer. Its weights are random, so
the answers mean nothing; what counts is that MXNet and mxtrt give the same ones, and how long they
take. It is a small BERT; `--large` makes it BERT-base.

`shapes` says what changes between calls: 1 to 4 questions, of 16 to 384 words.
"""

from __future__ import annotations

import os
import sys
import time
from statistics import median
from typing import NamedTuple

import mxtrt  # isort: skip  # before mxnet: MXNet 1.9.1 needs help with today's NumPy

import mxnet as mx
import numpy as np

os.environ.setdefault("MXNET_SUBGRAPH_VERBOSE", "0")  # or MXNet logs a line at every bind

LENGTHS = (128, 384)  # words of a question with its text
LONGEST_ANSWER = 30
PASSES = 5


class Size(NamedTuple):
    """The sizes of a BERT: layers, units, attention heads, words that it knows."""

    layers: int = 4
    units: int = 256
    heads: int = 4
    words: int = 5000


def bert(size: Size) -> mx.sym.Symbol:
    """Return the net: (batch, length) in, (batch, length, 2) out."""
    words, segments = mx.sym.var("words"), mx.sym.var("segments")
    positions = mx.sym.contrib.arange_like(words, axis=1)
    x = embedding(words, size.words, size.units, "word")
    x = x + embedding(segments, 2, size.units, "segment")
    x = mx.sym.broadcast_add(
        x, mx.sym.expand_dims(embedding(positions, 512, size.units, "position"), axis=0)
    )
    x = mx.sym.transpose(normalized(x, "embedded"), axes=(1, 0, 2))  # as attention wants it
    mask = attention_mask(positions, mx.sym.var("lengths"), size.heads)
    for i in range(size.layers):
        x = normalized(x + attention(x, mask, size, f"layer{i}"), f"layer{i}_attended")
        hidden = mx.sym.LeakyReLU(dense(x, 4 * size.units, f"layer{i}_up"), act_type="gelu")
        x = normalized(x + dense(hidden, size.units, f"layer{i}_down"), f"layer{i}")
    return dense(mx.sym.transpose(x, axes=(1, 0, 2)), 2, "span")


def attention(x: mx.sym.Symbol, mask: mx.sym.Symbol, size: Size, name: str) -> mx.sym.Symbol:
    both = dense(x, 3 * size.units, f"{name}_query_key_value")
    scores = mx.sym.contrib.interleaved_matmul_selfatt_qk(both, heads=size.heads)
    scores = mx.sym.where(mask, scores, mx.sym.ones_like(scores) * -1e4)
    seen = mx.sym.contrib.interleaved_matmul_selfatt_valatt(
        both, mx.sym.softmax(scores), heads=size.heads
    )
    return dense(seen, size.units, f"{name}_out")


def attention_mask(positions: mx.sym.Symbol, lengths: mx.sym.Symbol, heads: int) -> mx.sym.Symbol:
    """Return 1 where a word may look, at the words of its own text: (batch * heads, to, from)."""
    inside = mx.sym.broadcast_lesser(
        mx.sym.expand_dims(positions, axis=0), mx.sym.expand_dims(lengths, axis=1)
    )
    rows = mx.sym.ones_like(mx.sym.expand_dims(positions, axis=1))
    mask = mx.sym.broadcast_mul(mx.sym.expand_dims(inside, axis=1), mx.sym.expand_dims(rows, 0))
    return mx.sym.repeat(mask, heads, axis=0)


def embedding(numbers: mx.sym.Symbol, count: int, units: int, name: str) -> mx.sym.Symbol:
    return mx.sym.Embedding(numbers, input_dim=count, output_dim=units, name=name)


def dense(x: mx.sym.Symbol, units: int, name: str) -> mx.sym.Symbol:
    return mx.sym.FullyConnected(x, num_hidden=units, flatten=False, name=name)


def normalized(x: mx.sym.Symbol, name: str) -> mx.sym.Symbol:
    return mx.sym.LayerNorm(x, eps=1e-12, name=f"{name}_norm")


def weights(symbol: mx.sym.Symbol) -> dict[str, mx.nd.NDArray]:
    rng = np.random.default_rng(0)
    shapes, _, _ = symbol.infer_shape(**{k: v.shape for k, v in questions(1, 16, 2).items()})
    return {
        name: mx.nd.array(np.ones(shape) if name.endswith("gamma") else rng.normal(0, 0.1, shape))
        for name, shape in zip(symbol.list_arguments(), shapes)
        if name not in ("words", "segments", "lengths")
    }


def questions(count: int, length: int, words: int) -> dict[str, np.ndarray]:
    """Return made-up questions with their texts; the first text is the longest one."""
    rng = np.random.default_rng(length)
    lengths = np.linspace(length, length // 2, count).astype("int64")
    segments = np.arange(length) >= length // 4  # the question comes first
    return {
        "words": rng.integers(0, words, (count, length)).astype("float32"),
        "segments": np.tile(segments, (count, 1)).astype("float32"),
        "lengths": lengths.astype("float32"),
    }


def bind(
    symbol: mx.sym.Symbol, args: dict[str, mx.nd.NDArray], feed: dict[str, np.ndarray]
) -> mx.executor.Executor:
    arrays = {name: mx.nd.array(array) for name, array in feed.items()}
    return symbol.bind(mx.cpu(), {**args, **arrays}, grad_req="null")


def answers(scores: np.ndarray, lengths: np.ndarray) -> list[tuple[int, int]]:
    """Return the first and the last word of the best answer to each question."""
    found = []
    for row, length in zip(scores, lengths.astype(int)):
        both = row[:length, 0][:, None] + row[:length, 1]
        both = np.where(np.tri(length, k=-1) + np.tri(length, k=-LONGEST_ANSWER).T, -np.inf, both)
        found.append(tuple(map(int, np.unravel_index(both.argmax(), both.shape))))
    return found


def main() -> None:
    size = Size(12, 768, 12, 30522) if "--large" in sys.argv else Size()
    symbol = bert(size)
    args = weights(symbol)
    batch, length = (1, 1, 4), (16, 128, 384)
    optimized, left = mxtrt.optimize(
        symbol,
        args,
        shapes={"words": (batch, length), "segments": (batch, length), "lengths": (batch,)},
    )
    print(mxtrt.report(optimized).headline)
    for length in LENGTHS:
        feed = questions(4, length, size.words)
        executors = [bind(symbol, args, feed), bind(optimized, left, feed)]
        expected, found = (e.forward()[0].asnumpy() for e in executors)
        before, after = (answers(scores, feed["lengths"]) for scores in (expected, found))
        print(f"{length} words: MXNet's answers {before}")
        print(f"           mxtrt's answers {after}, scores differ by {difference(found, expected)}")
        slow, fast = (1000 * seconds(executor) for executor in executors)
        print(f"           MXNet {slow:.0f} ms, mxtrt {fast:.0f} ms: {slow / fast:.2f} times")


def difference(found: np.ndarray, expected: np.ndarray) -> str:
    """Return the largest difference; raise where it is more than the rounding of float32."""
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    return f"{np.abs(found - expected).max():.0e} of {np.abs(expected).max():.1f}"


def seconds(executor: mx.executor.Executor) -> float:
    times = []
    for _ in range(PASSES):
        start = time.perf_counter()
        executor.forward()[0].wait_to_read()
        times.append(time.perf_counter() - start)
    return median(times)


if __name__ == "__main__":
    main()
