"""``Module`` and its relatives on an optimised symbol, beside MXNet's own."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest

import mxtrt

BATCH, WIDTH, CLASSES = 4, 6, 3

Arrays = Mapping[str, mx.nd.NDArray]
Model = tuple[mx.sym.Symbol, Arrays, Arrays]


def net() -> mx.sym.Symbol:
    x = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=8, name="fc1")
    x = mx.sym.BatchNorm(mx.sym.Activation(x, act_type="tanh", name="tanh"), name="bn")
    x = mx.sym.FullyConnected(x, num_hidden=CLASSES, name="fc2")
    return mx.sym.SoftmaxOutput(x, name="softmax")


def weights(symbol: mx.sym.Symbol, **inputs: tuple[int, ...]) -> tuple[Arrays, Arrays]:
    shapes, _, states = symbol.infer_shape(**inputs)
    rng = np.random.default_rng(0)

    def made(names: Sequence[str], sizes: Sequence[tuple[int, ...]]) -> Arrays:
        return {
            name: mx.nd.array(rng.uniform(0.2, 1, size) - 0.5 * name.endswith("weight"))
            for name, size in zip(names, sizes)
            if name not in inputs and not name.endswith("label")
        }

    return made(symbol.list_arguments(), shapes), made(symbol.list_auxiliary_states(), states)


def optimized(model: Model, **options: Any) -> Model:
    symbol, (args, aux) = mxtrt.optimize(model[0], (model[1], model[2]), **options)
    assert mxtrt.report(symbol).moved > 0
    return symbol, args, aux


WHOLE: Model = (net(), *weights(net(), data=(1, WIDTH)))


@pytest.fixture(scope="module", params=["one part", "two parts"])
def both(request: pytest.FixtureRequest) -> tuple[Model, Model]:
    """MXNet's model and the optimised one, as a whole and with an operator left in MXNet."""
    left = ["bn"] if request.param == "two parts" else []
    return WHOLE, optimized(WHOLE, exclude_nodes=left, min_subgraph_size=1)


def data(rows: int, width: int = WIDTH, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal((rows, width)).astype("float32")


def labels(rows: int) -> np.ndarray[Any, Any]:
    return (np.arange(rows) % CLASSES).astype("float32")


def assert_same(found: Any, expected: Any) -> None:
    for have, want in zip(flat(found), flat(expected)):
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)
    assert len(flat(found)) == len(flat(expected))


def flat(arrays: Any) -> list[np.ndarray[Any, Any]]:
    if isinstance(arrays, (list, tuple)):
        return [array for item in arrays for array in flat(item)]
    return [arrays.asnumpy() if isinstance(arrays, mx.nd.NDArray) else np.asarray(arrays)]


def module(model: Model, *, labelled: bool = True, batch: int = BATCH) -> mx.mod.Module:
    labelled |= "softmax_label" in model[0].list_arguments()  # MXNet's own head asks for one
    names = ["softmax_label"] if labelled else None
    made = mx.mod.Module(model[0], label_names=names)
    shapes = [("softmax_label", (batch,))] if labelled else None
    made.bind([("data", (batch, WIDTH))], shapes, for_training=False)
    made.set_params(*model[1:])
    return made


# -- Module --------------------------------------------------------------------------------------


@pytest.mark.parametrize("labelled", [True, False], ids=["labels", "no labels"])
@pytest.mark.parametrize("last", ["pad", "discard", "roll_over"])
def test_predict_over_an_iterator(both: tuple[Model, Model], labelled: bool, last: str) -> None:
    """10 rows in batches of 4: the last batch is padded, left out, or kept for the next time."""
    found = []
    for model in both:
        rows = labels(10) if labelled else None
        batches = mx.io.NDArrayIter(data(10), rows, BATCH, last_batch_handle=last)
        made = module(model, labelled=labelled)
        found.append([made.predict(batches), made.predict(batches, num_batch=1)])
        assert found[-1][0].shape == (10 if last == "pad" else 8, CLASSES)
    assert_same(*found)


def test_iter_predict_and_score(both: tuple[Model, Model]) -> None:
    found = []
    for model in both:
        batches = mx.io.NDArrayIter(data(10), labels(10), BATCH)
        made = module(model)
        parts = [(outputs, batch.pad) for outputs, _, batch in made.iter_predict(batches)]
        assert [(len(outputs[0]), pad) for outputs, pad in parts] == [(4, 0), (4, 0), (2, 2)]
        apart = made.predict(batches, merge_batches=False, always_output_list=True)
        scores = dict(made.score(batches, ["acc", "ce"]))
        found.append([[outputs for outputs, _ in parts], apart, *scores.values()])
    assert_same(*found)


@pytest.mark.parametrize("labelled", [True, False], ids=["labels", "no labels"])
def test_batches_of_other_sizes(both: tuple[Model, Model], labelled: bool) -> None:
    made = {module(both[0]): True, module(both[1], labelled=labelled): labelled}
    for rows in (BATCH, 1, 7, BATCH):
        found = []
        for each, with_label in made.items():
            label = [mx.nd.array(labels(rows))] if with_label else None
            batch = mx.io.DataBatch([mx.nd.array(data(rows, seed=rows))], label)
            each.forward(batch, is_train=False)
            found.append(each.get_outputs())
        assert found[0][0].shape == (rows, CLASSES)
        assert_same(found[1], found[0])


def test_reshape(both: tuple[Model, Model]) -> None:
    made = [module(model) for model in both]
    for rows in (9, 2):
        found = []
        for each in made:
            each.reshape([("data", (rows, WIDTH))], [("softmax_label", (rows,))])
            each.forward(mx.io.DataBatch([mx.nd.array(data(rows))], None), is_train=False)
            found.append(each.get_outputs())
            assert each.output_shapes == [("softmax_output", (rows, CLASSES))]
        assert_same(found[1], found[0])


def test_names_and_params(both: tuple[Model, Model]) -> None:
    plain, other = (module(model) for model in both)
    assert other.output_names == plain.output_names
    assert other.data_names == plain.data_names
    args, aux = other.get_params()
    assert {*args, *aux} == {*both[1][1], *both[1][2]}
    assert mxtrt.report(other).headline == mxtrt.report(both[1][0]).headline


def test_several_contexts(both: tuple[Model, Model]) -> None:
    """A module on several devices cuts each batch in pieces."""
    found = []
    for symbol, args, aux in both:
        made = mx.mod.Module(symbol, context=[mx.cpu(0), mx.cpu(1)])
        made.bind([("data", (BATCH, WIDTH))], [("softmax_label", (BATCH,))], for_training=False)
        made.set_params(args, aux)
        found.append(made.predict(mx.io.NDArrayIter(data(10), None, BATCH)))
    assert_same(*found)


def test_several_inputs_of_changing_sizes() -> None:
    x, y = mx.sym.var("x"), mx.sym.var("y")
    symbol = mx.sym.Group([mx.sym.broadcast_add(x, y).tanh(), mx.sym.exp(y) * 2])
    new, _ = mxtrt.optimize(symbol, {})
    for rows in (2, 5):
        found = []
        for each in (symbol, new):
            made = mx.mod.Module(each, ["x", "y"], None)
            made.bind([("x", (rows, 3)), ("y", (rows, 1))], for_training=False)
            made.init_params()
            inputs = [mx.nd.array(data(rows, width)) for width in (3, 1)]
            made.forward(mx.io.DataBatch(inputs, None))
            found.append(made.get_outputs())
        assert_same(found[1], found[0])


def test_a_wrong_batch_leaves_the_module_usable(both: tuple[Model, Model]) -> None:
    made = module(both[1])
    good = mx.io.DataBatch([mx.nd.array(data(BATCH))], None)
    with pytest.raises((mx.MXNetError, RuntimeError)):
        made.forward(mx.io.DataBatch([mx.nd.array(data(BATCH, 5))], None), is_train=False)
    made.reshape([("data", (BATCH, WIDTH))], [("softmax_label", (BATCH,))])
    made.forward(good, is_train=False)
    plain = module(both[0])
    plain.forward(good, is_train=False)
    assert_same(made.get_outputs(), plain.get_outputs())


# -- files ---------------------------------------------------------------------------------------


@pytest.fixture
def saved(both: tuple[Model, Model], tmp_path: Path) -> tuple[Model, str]:
    """MXNet's model, and the prefix of the files of the optimised one."""
    prefix = str(tmp_path / "net")
    mxtrt.save(prefix, both[1][0], both[1][1:])
    return both[0], prefix


@pytest.mark.parametrize("labelled", [True, False], ids=["labels", "no labels"])
def test_module_load(saved: tuple[Model, str], labelled: bool) -> None:
    plain, prefix = saved
    names = ["softmax_label"] if labelled else None
    made = mx.mod.Module.load(prefix, 0, label_names=names)
    batches = mx.io.NDArrayIter(data(10), labels(10) if labelled else None, BATCH)
    made.bind(batches.provide_data, batches.provide_label or None, for_training=False)
    assert_same(made.predict(batches), module(plain, labelled=labelled).predict(batches))


def test_save_checkpoint_of_a_module(both: tuple[Model, Model], tmp_path: Path) -> None:
    """MXNet's own files of an optimised module are for this process."""
    prefix = str(tmp_path / "net")
    module(both[1]).save_checkpoint(prefix, 2)
    made = mx.mod.Module.load(prefix, 2, label_names=None)
    batches = mx.io.NDArrayIter(data(10), None, BATCH)
    made.bind(batches.provide_data, for_training=False)
    assert_same(made.predict(batches), module(both[0], labelled=False).predict(batches))


def test_feed_forward(both: tuple[Model, Model], tmp_path: Path) -> None:
    found = []
    for name, (symbol, args, aux) in zip(("plain", "optimized"), both):
        prefix = str(tmp_path / name)
        made = mx.model.FeedForward(
            symbol, ctx=mx.cpu(), arg_params=dict(args), aux_params=dict(aux), numpy_batch_size=4
        )
        made.save(prefix, 1)
        again = mx.model.FeedForward.load(prefix, 1, ctx=mx.cpu(), numpy_batch_size=4)
        batches = mx.io.NDArrayIter(data(10), labels(10), BATCH)
        found.append(
            [
                made.predict(data(10)),
                again.predict(data(10)),
                made.predict(batches),
                made.score(batches),
            ]
        )
    assert_same(*found)


class Predictor:
    """MXNet's C predict API, as programs without Python use it: two files in memory."""

    def __init__(self, symbol: bytes, params: bytes, **shapes: tuple[int, ...]) -> None:
        self.lib = mx.base._LIB
        self.handle = ctypes.c_void_p()
        sizes = [size for shape in shapes.values() for size in shape]
        ends = np.cumsum([0, *map(len, shapes.values())])
        mx.base.check_call(
            self.lib.MXPredCreate(
                ctypes.c_char_p(symbol),
                ctypes.c_char_p(params),
                ctypes.c_int(len(params)),
                *(ctypes.c_int(1), ctypes.c_int(0), ctypes.c_uint(len(shapes))),
                mx.base.c_str_array(list(shapes)),
                (ctypes.c_uint * len(ends))(*ends),
                (ctypes.c_uint * len(sizes))(*sizes),
                ctypes.byref(self.handle),
            )
        )

    def __call__(self, **inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        floats = ctypes.POINTER(ctypes.c_float)
        for name, array in inputs.items():
            pointer = np.ascontiguousarray(array).ctypes.data_as(floats)
            mx.base.check_call(
                self.lib.MXPredSetInput(
                    self.handle, ctypes.c_char_p(name.encode()), pointer, ctypes.c_uint(array.size)
                )
            )
        mx.base.check_call(self.lib.MXPredForward(self.handle))
        shape, ndim = ctypes.POINTER(ctypes.c_uint)(), ctypes.c_uint()
        mx.base.check_call(
            self.lib.MXPredGetOutputShape(
                self.handle, ctypes.c_uint(0), ctypes.byref(shape), ctypes.byref(ndim)
            )
        )
        made = np.empty(shape[: ndim.value], "float32")
        mx.base.check_call(
            self.lib.MXPredGetOutput(
                self.handle,
                ctypes.c_uint(0),
                made.ctypes.data_as(floats),
                ctypes.c_uint(made.size),
            )
        )
        return made


def test_c_predict_api(saved: tuple[Model, str], tmp_path: Path) -> None:
    """It takes the files that mxtrt.save wrote, in a process where mxtrt.load was called."""
    plain, prefix = saved
    mx.model.save_checkpoint(str(tmp_path / "plain"), 0, *plain)
    mxtrt.load(prefix)
    found = []
    for name in (prefix, str(tmp_path / "plain")):
        texts = [Path(f"{name}{end}").read_bytes() for end in ("-symbol.json", "-0000.params")]
        predict = Predictor(*texts, data=(BATCH, WIDTH))
        found.append([predict(data=data(BATCH, seed=seed)) for seed in range(3)])
    assert_same(*found)


# -- BucketingModule -----------------------------------------------------------------------------


def sentences(length: int | None = None) -> mx.sym.Symbol:
    """One symbol for all lengths."""
    x = mx.sym.Embedding(mx.sym.var("data"), input_dim=20, output_dim=5, name="words")
    x = mx.sym.Convolution(x.transpose((0, 2, 1)), kernel=(3,), num_filter=4, name="conv")
    return mx.sym.SoftmaxOutput(
        mx.sym.FullyConnected(x.max(axis=2), num_hidden=CLASSES, name="fc"), name="softmax"
    )


def recurrent(length: int) -> mx.sym.Symbol:
    """A symbol for each length, as unrolled nets have."""
    x = mx.sym.Embedding(mx.sym.var("data"), input_dim=20, output_dim=5, name="words")
    cell = mx.rnn.LSTMCell(6, prefix="lstm_")
    outputs, _ = cell.unroll(length, x, layout="NTC", merge_outputs=False)
    x = mx.sym.FullyConnected(outputs[-1], num_hidden=CLASSES, name="fc")
    return mx.sym.SoftmaxOutput(x, name="softmax")


def bucketed(generate: Callable[[int], mx.sym.Symbol], params: Sequence[Arrays]) -> Any:
    """Bind as tutorials do, with labels, for the longest bucket."""
    made = mx.mod.BucketingModule(
        lambda length: (generate(length), ["data"], ["softmax_label"]), default_bucket_key=12
    )
    made.bind([("data", (BATCH, 12))], [("softmax_label", (BATCH,))], for_training=False)
    made.set_params(*params)
    return made


def words(rows: int, length: int) -> mx.io.DataBatch:
    text = mx.nd.array(np.random.default_rng(length).integers(0, 20, (rows, length)))
    return mx.io.DataBatch(
        [text],
        [mx.nd.array(labels(rows))],
        bucket_key=length,
        provide_data=[("data", (rows, length))],
        provide_label=[("softmax_label", (rows,))],
    )


@pytest.mark.parametrize("generate", [sentences, recurrent])
def test_a_bucket_for_each_length(generate: Callable[[int], mx.sym.Symbol]) -> None:
    args, aux = weights(generate(12), data=(BATCH, 12))
    if generate is sentences:
        shapes = {"data": (None, (3, 8, 12))}
        one, left, states = optimized((generate(12), args, aux), shapes=shapes)
        other = bucketed(lambda length: one, (left, states))
    else:
        known: dict[int, mx.sym.Symbol] = {}

        def by_length(length: int) -> mx.sym.Symbol:
            if length not in known:
                shapes = {"data": (None, length)}
                known[length] = optimized((generate(length), args, aux), shapes=shapes)[0]
            return known[length]

        other = bucketed(by_length, ({}, {}))
    plain = bucketed(generate, (args, aux))
    for rows, length in ((BATCH, 12), (BATCH, 5), (BATCH, 3), (2, 12), (BATCH, 5)):
        batch, found = words(rows, length), []
        for made in (plain, other):
            made.forward(batch, is_train=False)
            found.append(made.get_outputs())
        assert found[0][0].shape == (rows, CLASSES)
        assert_same(found[1], found[0])
    if generate is sentences:
        [part] = mxtrt.report(one).runtime.parts
        assert (part.builds, part.calls) == (1, 5)


def test_predict_over_buckets() -> None:
    """``mx.rnn.BucketSentenceIter`` sorts sentences into buckets and pads them."""
    rng = np.random.default_rng(0)
    texts = [list(rng.integers(1, 20, n)) for n in rng.integers(3, 13, 40)]
    args, aux = weights(sentences(), data=(BATCH, 12))
    one, left, states = optimized((sentences(), args, aux))
    found = []
    for generate, params in ((sentences, (args, aux)), (lambda length: one, (left, states))):
        np.random.seed(0)  # the iterator shuffles with both
        random.seed(0)
        batches = mx.rnn.BucketSentenceIter(texts, BATCH, buckets=[5, 8, 12], invalid_label=0)
        made = bucketed(generate, params)
        outputs = []
        for batch in batches:
            batch.label, batch.provide_label = [mx.nd.zeros(BATCH)], [("softmax_label", (BATCH,))]
            made.forward(batch, is_train=False)
            outputs.append(made.get_outputs()[0].asnumpy())  # the next batch takes its memory
        found.append(outputs)
    assert len(found[0]) > 3
    assert_same(*found)


# -- SequentialModule ------------------------------------------------------------------------------


def test_sequential_module() -> None:
    """Features of one module are the data of the next: both, or one of them, optimised."""
    features = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=8, name="fc1").tanh()
    head = mx.sym.SoftmaxOutput(
        mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=CLASSES, name="fc2"), name="softmax"
    )
    first: Model = (features, *weights(features, data=(1, WIDTH)))
    second: Model = (head, *weights(head, data=(1, 8)))
    found = []
    for pair in (
        (first, second),
        (optimized(first), optimized(second)),
        (optimized(first), second),
    ):
        chain = mx.mod.SequentialModule()
        chain.add(mx.mod.Module(pair[0][0], label_names=None))
        chain.add(mx.mod.Module(pair[1][0]), take_labels=True, auto_wiring=True)
        batches = mx.io.NDArrayIter(data(10), labels(10), BATCH)
        chain.bind(batches.provide_data, batches.provide_label, for_training=False)
        chain.set_params({**pair[0][1], **pair[1][1]}, {})
        found.append([chain.predict(batches), *dict(chain.score(batches, "ce")).values()])
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])


def test_python_module_behind_an_engine(both: tuple[Model, Model]) -> None:
    """A head written in Python, as MXNet's examples have for losses."""
    found = []
    for model in both:
        chain = mx.mod.SequentialModule()
        chain.add(mx.mod.Module(model[0]), take_labels=True)
        chain.add(mx.mod.PythonLossModule(), take_labels=True, auto_wiring=True)
        batches = mx.io.NDArrayIter(data(8), labels(8), BATCH)
        chain.bind(batches.provide_data, batches.provide_label, for_training=False)
        chain.set_params(model[1], model[2])
        found.append(chain.predict(batches))
    assert_same(*found)
