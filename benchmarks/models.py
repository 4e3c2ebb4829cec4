"""The models that the benchmarks run: seeded weights, usual input sizes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import mxtrt  # noqa: F401  # isort: skip  # first: it makes MXNet importable
import mxnet as mx
import numpy as np
import zoo_models  # of tests/

Params = tuple[dict[str, mx.nd.NDArray], dict[str, mx.nd.NDArray]]


@dataclass(frozen=True)
class Net:
    """A symbol, its parameters, and its only input ``data`` for a batch size."""

    symbol: mx.sym.Symbol
    params: Params
    shape: tuple[int, ...]
    make: Callable[[tuple[int, ...]], np.ndarray]

    def data(self, batch: int) -> np.ndarray:
        """Return a seeded batch."""
        return self.make((batch, *self.shape))


def load(name: str) -> Net:
    """Return a model of Gluon's zoo, or ``bert_base_128``: so many tokens."""
    if name.startswith("bert_base_"):
        return _bert_base(int(name.rpartition("_")[2]))
    symbol, args, aux = zoo_models.zoo_model(name)
    size = image_size(name)
    return Net(symbol, (args, aux), (3, size, size), _normal)


def image_size(name: str) -> int:
    """Return the image size that a model is trained for."""
    return 299 if name == "inceptionv3" else 224


def _normal(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(shape[0]).standard_normal(shape).astype("float32")


def _bert_base(
    tokens: int, layers: int = 12, width: int = 768, heads: int = 12, words: int = 30522
) -> Net:
    """Return BERT-base with a head for answering questions, of the operators GluonNLP uses.

    ``data`` holds word numbers, (batch, tokens); the output is (batch, tokens, 2).
    """
    sym = mx.sym
    x = sym.Embedding(sym.var("data"), input_dim=words, output_dim=width, name="words")
    x = sym.broadcast_add(x, sym.var("positions", shape=(1, tokens, width)))
    x = sym.LayerNorm(x, eps=1e-12, name="norm")
    x = sym.transpose(x, axes=(1, 0, 2))  # (tokens, batch, width), as interleaved attention has it

    def dense(x: mx.sym.Symbol, units: int, name: str) -> mx.sym.Symbol:
        return sym.FullyConnected(x, num_hidden=units, flatten=False, name=name)

    for layer in range(layers):
        qkv = dense(x, 3 * width, f"{layer}_qkv")
        scores = sym.softmax(sym.contrib.interleaved_matmul_selfatt_qk(qkv, heads=heads))
        seen = sym.contrib.interleaved_matmul_selfatt_valatt(qkv, scores, heads=heads)
        x = sym.LayerNorm(x + dense(seen, width, f"{layer}_out"), eps=1e-12, name=f"{layer}_norm")
        hidden = sym.LeakyReLU(dense(x, 4 * width, f"{layer}_up"), act_type="gelu")
        hidden = dense(hidden, width, f"{layer}_down")
        x = sym.LayerNorm(x + hidden, eps=1e-12, name=f"{layer}_norm2")
    symbol = dense(sym.transpose(x, axes=(1, 0, 2)), 2, "answer")
    rng = np.random.default_rng(7)
    shapes, _, _ = symbol.infer_shape(data=(1, tokens))
    args = {
        name: mx.nd.array(np.ones(shape) if name.endswith("gamma") else rng.normal(0, 0.02, shape))
        for name, shape in zip(symbol.list_arguments(), shapes)
        if name != "data"
    }

    def make(shape: tuple[int, ...]) -> np.ndarray:
        return np.random.default_rng(shape[0]).integers(0, words, shape).astype("float32")

    return Net(symbol, (args, {}), (tokens,), make)
