"""Nets written with mx.np and mx.npx, as a whole: exported by Gluon, and as Gluon's own blocks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn, rnn
from mxnet.gluon.model_zoo import vision
from operators import ENGINE_OPTIONS, check_none_left, random_array

import mxtrt


@pytest.fixture(autouse=True, scope="module")
def numpy_arrays() -> Any:
    mx.npx.set_np()
    yield
    mx.npx.reset_np()


# -- nets ------------------------------------------------------------------------------------------


class ConvNet(nn.HybridBlock):
    """Convolutions, and what comes behind them in np: means, scalars, where, stacks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2D(4, 3, padding=1, in_channels=3)
        self.norm = nn.BatchNorm(in_channels=4)
        self.dense = nn.Dense(5, in_units=8)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        y = F.npx.relu(self.norm(self.conv(x)))
        y = F.npx.pooling(y, kernel=(2, 2), stride=(2, 2), pool_type="max")
        features = F.np.concatenate([F.np.mean(y, axis=(2, 3)), F.np.max(y, axis=(2, 3))], axis=1)
        scores = self.dense(features)
        total = F.np.sum(F.np.abs(scores))  # a number
        scaled = scores / (total + 1.5)
        clipped = F.np.where(scaled > 0, F.np.sqrt(F.np.abs(scaled)), F.np.zeros_like(scaled))
        return scaled, F.np.maximum(clipped, 0.01), F.npx.softmax(scores, axis=-1), total


class Perceptron(nn.HybridBlock):
    """Dense layers with a hand-written activation, normalisation and heads of other types."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.weight = self.params.get("weight", shape=(6, 7))
            self.bias = self.params.get("bias", shape=(7,), init=mx.init.Normal(1))

    def hybrid_forward(self, F: Any, x: Any, weight: Any, bias: Any) -> Any:
        hidden = F.np.dot(x, weight) + bias
        hidden = 0.5 * hidden * (1 + F.np.tanh(0.79788 * (hidden + 0.044715 * hidden**3)))
        centred = hidden - F.np.mean(hidden, axis=-1, keepdims=True)
        normal = centred / F.np.sqrt(F.np.var(hidden, axis=-1, keepdims=True) + 1e-5)
        best = F.np.argmax(normal, axis=1)
        parts = F.np.split(F.np.concatenate([normal, x], axis=1), [2, 9], axis=1)
        flags = F.np.logical_not(parts[1] > 0) * (parts[1] < 0.5)
        return best, 2 * F.np.std(parts[0]), flags, parts[2].T, (normal >= 0).sum(axis=0)


class EinsumAttention(nn.HybridBlock):
    """Multi-head self-attention with a mask, written with reshapes, transposes and einsum."""

    def __init__(self, heads: int, units: int) -> None:
        super().__init__()
        self.heads, self.units = heads, units
        self.project = nn.Dense(3 * units, flatten=False, in_units=units)
        self.norm = nn.LayerNorm(in_channels=units)
        self.out = nn.Dense(units, flatten=False, in_units=units)

    def hybrid_forward(self, F: Any, x: Any, mask: Any) -> Any:
        together = F.npx.reshape(self.project(self.norm(x)), (-2, -2, 3, self.heads, -1))
        query, key, value = (F.np.squeeze(part, axis=2) for part in F.np.split(together, 3, axis=2))
        scores = F.np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(self.units / self.heads)
        allowed = F.np.expand_dims(F.np.expand_dims(mask, 1), 1)
        scores = F.np.where(allowed > 0, scores, -1e9)
        weights = F.npx.softmax(scores, axis=-1)
        mixed = F.np.matmul(weights, F.np.transpose(value, (0, 2, 1, 3)))
        joined = F.npx.reshape(F.np.swapaxes(mixed, 1, 2), (-2, -2, -5))
        return x + self.out(joined), F.np.sum(weights * F.np.log(weights + 1e-9), axis=(1, 2, 3))


class Layer(nn.HybridBlock):
    """A layer of a Transformer with npx operators, as GluonNLP writes it: batch_dot and codes."""

    def __init__(self, heads: int, units: int, reads_memory: bool) -> None:
        super().__init__()
        self.heads, self.units, self.reads_memory = heads, units, reads_memory
        names = ["self"] + ["memory"] * reads_memory
        for name in names:
            for part in ("query", "key", "value", "out"):
                dense = nn.Dense(units, flatten=False, in_units=units, use_bias=part != "key")
                setattr(self, f"{name}_{part}", dense)
            setattr(self, f"{name}_norm", nn.LayerNorm(in_channels=units))
        self.grow = nn.Dense(2 * units, flatten=False, in_units=units)
        self.shrink = nn.Dense(units, flatten=False, in_units=2 * units)
        self.norm = nn.LayerNorm(in_channels=units)
        self.dropout = nn.Dropout(0.1)

    def attend(self, F: Any, name: str, x: Any, memory: Any, allowed: Any) -> Any:
        def heads_of(part: str, y: Any) -> Any:
            y = F.npx.reshape(getattr(self, f"{name}_{part}")(y), (-2, -2, self.heads, -1))
            return F.npx.reshape(F.np.transpose(y, (0, 2, 1, 3)), (-5, -2, -2))

        query, key = heads_of("query", x), heads_of("key", memory)
        scores = F.npx.batch_dot(query, key, transpose_b=True) / np.sqrt(self.units / self.heads)
        scores = F.npx.reshape(scores, (-6, -1, self.heads, -2, -2))
        scores = F.np.where(allowed, scores, F.np.full_like(scores, -1e9))
        weights = self.dropout(F.npx.softmax(scores, axis=-1)) * allowed
        mixed = F.npx.batch_dot(F.npx.reshape(weights, (-5, -2, -2)), heads_of("value", memory))
        mixed = F.np.transpose(F.npx.reshape(mixed, (-6, -1, self.heads, -2, -2)), (0, 2, 1, 3))
        joined = getattr(self, f"{name}_out")(F.npx.reshape(mixed, (-2, -2, -5)))
        return getattr(self, f"{name}_norm")(x + joined)

    def hybrid_forward(self, F: Any, x: Any, allowed: Any, *memory: Any) -> Any:
        x = self.attend(F, "self", x, x, allowed)
        if self.reads_memory:
            x = self.attend(F, "memory", x, *memory)
        grown = F.npx.leaky_relu(self.grow(x), act_type="gelu")
        return self.norm(x + self.dropout(self.shrink(grown)))


class Transformer(nn.HybridBlock):
    """Words to words: embeddings, positions, lengths as masks, an encoder and a causal decoder."""

    def __init__(self, words: int = 11, units: int = 8, longest: int = 16) -> None:
        super().__init__()
        self.units = units
        self.embed = nn.Embedding(words, units)
        self.places = nn.Embedding(longest, units)
        self.encoder = Layer(2, units, reads_memory=False)
        self.decoder = Layer(2, units, reads_memory=True)
        self.head = nn.Dense(words, flatten=False, in_units=units)

    def start(self, F: Any, tokens: Any) -> Any:
        return self.embed(tokens) * np.sqrt(self.units) + self.places(
            F.npx.arange_like(tokens, axis=1)
        )

    def hybrid_forward(self, F: Any, source: Any, lengths: Any, target: Any) -> Any:
        place = F.npx.arange_like(source, axis=1)
        real = F.np.expand_dims(place, 0) < F.np.expand_dims(lengths, 1)
        real = F.np.expand_dims(F.np.expand_dims(real, 1), 1)
        memory = self.encoder(self.start(F, source), real)
        memory = F.npx.sequence_mask(memory, lengths, use_sequence_length=True, axis=1)
        step = F.npx.arange_like(target, axis=1)
        seen = F.np.expand_dims(step, 1) >= F.np.expand_dims(step, 0)
        seen = F.np.expand_dims(F.np.expand_dims(seen, 0), 0)
        scores = self.head(self.decoder(self.start(F, target), seen, memory, real))
        chosen = F.npx.pick(F.npx.log_softmax(scores, axis=-1), target, axis=-1)
        return scores, F.np.sum(chosen, axis=1), F.np.mean(chosen)


class Reader(nn.HybridBlock):
    """Recurrent layers over words, and the attention of the last state over all."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 6)
        self.encoder = rnn.LSTM(5, num_layers=2, bidirectional=True, layout="NTC", input_size=6)
        self.dense = nn.Dense(3, in_units=10)

    def hybrid_forward(self, F: Any, tokens: Any) -> Any:
        embedded = self.embed(tokens)
        # in np's shapes MXNet cannot infer the batch size of the states that it makes itself
        one = F.np.expand_dims(embedded[:, 0, :5], 0)
        start = F.np.zeros_like(F.np.repeat(one, 4, axis=0))
        states, _ = self.encoder(embedded, [start, start])
        last = F.npx.slice(states, begin=(None, -1), end=(None, None))
        scores = F.np.sum(states * last, axis=-1, keepdims=True)
        mixed = F.np.sum(F.npx.softmax(scores, axis=1) * states, axis=1)
        return F.npx.sigmoid(self.dense(mixed)), states


class Ranking(nn.HybridBlock):
    """What detectors do behind their last layer: grids, orders, choices, and integers."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.conv = nn.Conv2D(5, 1, in_channels=3)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        size = self.size
        maps = F.np.transpose(self.conv(x), (0, 2, 3, 1))
        rows = F.np.repeat(F.np.arange(size), size).reshape(size, size, 1)
        columns = F.np.tile(F.np.arange(size), size).reshape(size, size, 1)
        centres = F.np.concatenate([columns, rows], axis=-1) + 0.5
        shift = F.npx.sigmoid(maps[:, :, :, 0:2])
        centre = F.npx.reshape((shift + centres) / size, (-2, -5, -2))
        half = F.npx.reshape(F.np.exp(F.np.clip(maps[:, :, :, 2:4], -3, 3)), (-2, -5, -2)) / 2
        boxes = F.np.clip(F.np.concatenate([centre - half, centre + half], axis=-1), 0, 1)
        scores = F.npx.reshape(maps[:, :, :, 4], (-2, -1))
        best, place = F.npx.topk(scores, k=3, ret_typ="both", axis=-1, dtype="int32")
        hot = F.npx.one_hot(place, depth=size * size)
        chosen = F.npx.batch_dot(hot, boxes)
        area = F.np.prod(chosen[:, :, 2:] - chosen[:, :, :2], axis=-1)
        order = F.np.argsort(area, axis=-1)
        even = F.np.equal(F.np.mod(place, 2), 0)
        return (
            chosen, best, order, F.np.sort(scores, axis=-1), even,
            F.np.bitwise_xor(place, F.np.flip(place, 1)), F.np.cumsum(even, axis=1),
            F.np.take(scores, F.np.arange(2), axis=1), F.np.argmin(scores, axis=None),
        )  # fmt: skip


class Scalars(nn.HybridBlock):
    """Arithmetic between numbers and arrays, some of which are empty."""

    def hybrid_forward(self, F: Any, x: Any, scale: Any, empty: Any) -> Any:
        lower = F.np.tril(F.np.full_like(x, 2.0))
        grown = F.np.concatenate([empty, x * scale, lower], axis=0)
        count = F.np.ones_like(grown).sum()
        spread = F.np.max(x) - F.np.min(x) + F.np.sum(empty)
        stacked = F.np.stack([count, spread, scale])
        return grown + 0, stacked + 0, F.np.exp(empty), F.np.cumsum(stacked), F.np.all(x < spread)


# -- what they have to do --------------------------------------------------------------------------


def arrays_of(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def assert_same(expected: Sequence[Any], found: Sequence[Any]) -> None:
    assert len(expected) == len(found)
    for want, have in zip(expected, found):
        assert have.shape == want.shape
        assert have.dtype == want.dtype
        np.testing.assert_allclose(have.asnumpy(), want.asnumpy(), rtol=1e-4, atol=1e-5)


def check_net(net: nn.HybridBlock, path: Path, *arrays: np.ndarray, **more: Any) -> None:
    """Compare a net with its exported symbol's engines, for sizes known, open, and all unknown."""
    engine_options = {**ENGINE_OPTIONS, **more}
    mx.npx.random.seed(0)
    net.initialize(mx.init.Xavier(magnitude=4))
    net.hybridize()
    inputs = [mx.np.array(array, dtype=array.dtype) for array in arrays]
    expected = arrays_of(net(*inputs))
    net.export(str(path / "net"))
    symbol = str(path / "net-symbol.json")
    params = str(path / "net-0000.params")
    names = ["data"] if len(arrays) == 1 else [f"data{i}" for i in range(len(arrays))]
    known = [array.shape for array in arrays]
    some = [(None, *shape[1:])[: len(shape)] for shape in known]
    none = [(None,) * len(shape) for shape in known]
    for sizes in (known, some, none):
        options = {
            "shapes": dict(zip(names, sizes)),
            "dtypes": {n: a.dtype.name for n, a in zip(names, arrays)},
            "min_subgraph_size": 1,
            **engine_options,
        }
        if sizes is not none:
            check_none_left(mxtrt.explain(symbol, params, **options).left)
        optimized, kept = mxtrt.optimize(symbol, params, **options)
        feeds = {name.split(":", 1)[1]: array for name, array in kept.items()}
        feeds.update(zip(names, (a.as_nd_ndarray() for a in inputs)))
        executor = optimized.bind(
            mx.cpu(),
            {n: feeds[n] for n in optimized.list_arguments()},
            aux_states={n: feeds[n] for n in optimized.list_auxiliary_states()},
            grad_req="null",
        )
        assert_same(expected, executor.forward(is_train=False))
        mxtrt.release(optimized)
    block = mxtrt.optimize(net, *inputs, **engine_options)
    for _ in range(2):
        assert_same(expected, arrays_of(block(*inputs)))
    if all(array.ndim and len(array) > 1 for array in arrays):
        fewer = [array[:-1] for array in inputs]
        assert_same(arrays_of(net(*fewer)), arrays_of(block(*fewer)))


def test_convolutional_net(tmp_path: Path) -> None:
    check_net(ConvNet(), tmp_path, random_array((2, 3, 9, 8)))


def test_perceptron(tmp_path: Path) -> None:
    check_net(Perceptron(), tmp_path, random_array((5, 6)))


def test_attention_by_einsum(tmp_path: Path) -> None:
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], "float32")
    check_net(EinsumAttention(2, 8), tmp_path, random_array((2, 5, 8)), mask)


def test_transformer(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source, target = (rng.integers(0, 11, shape).astype("float32") for shape in ((2, 5), (2, 4)))
    check_net(Transformer(), tmp_path, source, np.array([3, 5], "float32"), target)


def test_recurrent_net(tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).integers(0, 9, (3, 6)).astype("float32")
    check_net(Reader(), tmp_path, tokens)


def test_ranking(tmp_path: Path) -> None:
    check_net(Ranking(4), tmp_path, random_array((2, 3, 4, 4)))


def test_scalars_and_empty_arrays(tmp_path: Path) -> None:
    arrays = random_array((3, 4)), np.float32(1.5).reshape(()), np.zeros((0, 4), "float32")
    # TensorRT builds no sum of nothing, and takes no input without elements: ONNX Runtime serves
    check_net(Scalars(), tmp_path, *arrays, strict=False)


def test_net_of_the_zoo(tmp_path: Path) -> None:
    net = vision.get_resnet(1, 18, thumbnail=True, classes=10)
    check_net(net, tmp_path, random_array((2, 3, 16, 16)))


def test_gluon_runs_an_optimised_net(tmp_path: Path) -> None:
    net = Perceptron()
    net.initialize(mx.init.Normal(0.5))
    net.hybridize()
    x = mx.np.array(random_array((5, 6)))
    expected = net(x)
    net.export(str(tmp_path / "net"))
    symbol, params = mxtrt.optimize(
        str(tmp_path / "net-symbol.json"),
        str(tmp_path / "net-0000.params"),
        shapes={"data": (None, 6)},
        **ENGINE_OPTIONS,
    )
    assert not params
    block = mx.gluon.SymbolBlock(symbol.as_np_ndarray(), [mx.sym.var("data").as_np_ndarray()])
    block.hybridize(static_alloc=True, static_shape=True)
    for _ in range(2):
        assert_same(expected, block(x))
    mxtrt.release(symbol)
