"""`mxtrt.export_model` in the place of MXNet's own, and ``mxtrt export``."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from operators import operator, run_mxnet
from zoo_models import zoo_images, zoo_model

import mxtrt
from mxtrt import cli, onnx_file
from mxtrt.errors import BadOption, BadParams, NotExportable, ShapeNeeded, UserError

X = mx.sym.var("data")
Block = Callable[[mx.gluon.HybridBlock], Any]


def run(path: str, *arrays: np.ndarray) -> list[np.ndarray]:
    """Check a file and run it on arrays for its inputs, in order."""
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    assert len(names) == len(arrays)
    return list(session.run(None, dict(zip(names, arrays))))


def names(values: Any) -> list[str]:
    return [value.name for value in values]


def sizes(value: onnx.ValueInfoProto) -> list[Any]:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_param or dim.dim_value for dim in dims]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "net.onnx")


def dense() -> tuple[mx.sym.Symbol, dict[str, mx.nd.NDArray]]:
    """Return a net with a label, and its weights."""
    out = mx.sym.FullyConnected(X, num_hidden=3, name="fc1")
    out = mx.sym.SoftmaxOutput(out, name="softmax")
    rng = np.random.default_rng(0)
    weights = {"fc1_weight": mx.nd.array(rng.standard_normal((3, 4))), "fc1_bias": mx.nd.ones(3)}
    return out, weights


ROWS = np.random.default_rng(1).standard_normal((2, 4)).astype("float32")


def softmax_of(rows: np.ndarray) -> np.ndarray:
    symbol, weights = dense()
    label = np.zeros(len(rows), "float32")
    arrays = {name: array.asnumpy() for name, array in weights.items()}
    return run_mxnet(symbol, {"data": rows, "softmax_label": label, **arrays})[0]


# -- what it takes -----------------------------------------------------------------------------

CALLS: dict[str, Callable[[Any, Any, str], str]] = {
    "by position": lambda s, p, f: mxtrt.export_model(s, p, [(2, 4)], np.float32, f),
    "path in fourth place": lambda s, p, f: mxtrt.export_model(s, p, {"data": (2, 4)}, f),
    "a Path": lambda s, p, f: mxtrt.export_model(s, p, {"data": (2, 4)}, Path(f)),
    "names of 1.9": lambda s, p, f: mxtrt.export_model(
        s, p, in_shapes=[(2, 4)], in_types=[np.float32], onnx_file_path=f
    ),
    "names of contrib": lambda s, p, f: mxtrt.export_model(
        s, p, input_shape=[(2, 4)], input_type=np.float32, onnx_file_path=f
    ),
    "names of mxtrt": lambda s, p, f: mxtrt.export_model(
        s, p, shapes={"data": (2, 4)}, dtypes={"data": "float32"}, path=f
    ),
    "one shape": lambda s, p, f: mxtrt.export_model(s, p, (2, 4), "float32", f),
    "a tuple of shapes": lambda s, p, f: mxtrt.export_model(s, p, ((2, 4),), (np.float32,), f),
    "label and all": lambda s, p, f: mxtrt.export_model(
        s, p, {"data": (2, 4), "softmax_label": (2,)}, None, f
    ),
    "prefixes": lambda s, p, f: mxtrt.export_model(
        s, {f"arg:{name}": array for name, array in p.items()}, [(2, 4)], np.float32, f
    ),
    "a pair": lambda s, p, f: mxtrt.export_model(s, [p, {}], [(2, 4)], np.float32, f),
    "all options": lambda s, p, f: mxtrt.export_model(
        s, p, [(2, 4)], np.float32, f, True, False, None, True
    ),
    "more weights than it reads": lambda s, p, f: mxtrt.export_model(
        s, {**p, "fc2_weight": mx.nd.ones((2, 2))}, [(2, 4)], np.float32, f
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_ways_to_call_it(call: str, path: str) -> None:
    symbol, weights = dense()
    assert CALLS[call](symbol, weights, path) == path
    proto = onnx.load(path)
    assert names(proto.graph.input) == ["data"]
    assert sizes(proto.graph.input[0]) == [2, 4]
    assert names(proto.graph.output) == ["softmax"]
    np.testing.assert_allclose(run(path, ROWS)[0], softmax_of(ROWS), rtol=1e-5)


def test_files(tmp_path: Path, path: str) -> None:
    symbol, weights = dense()
    prefix = str(tmp_path / "net")
    mx.model.save_checkpoint(prefix, 7, symbol, weights, {})
    mxtrt.export_model(f"{prefix}-symbol.json", f"{prefix}-0007.params", [(2, 4)], np.float32, path)
    np.testing.assert_allclose(run(path, ROWS)[0], softmax_of(ROWS), rtol=1e-5)


def test_without_shapes_sizes_may_be_any(path: str) -> None:
    symbol, weights = dense()
    mxtrt.export_model(symbol, weights, [(None, 4)], np.float32, path)
    for rows in (1, 2, 5):
        data = np.repeat(ROWS[:1], rows, axis=0)
        np.testing.assert_allclose(run(path, data)[0], softmax_of(data), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"shapes": [(None, 4)]}, ["data_0", 4]),
        ({"shapes": [(-1, 4)]}, ["data_0", 4]),
        ({"shapes": [(0, 4)]}, ["data_0", 4]),
        ({"shapes": [("batch", 4)]}, ["batch", 4]),
        ({"shapes": {"data": ((1, 2, 8), 4)}}, ["data_0", 4]),
        ({"shapes": [(2, 4)], "dynamic": True}, ["data_0", "data_1"]),
        (
            {"shapes": [(2, 4)], "dynamic": True, "dynamic_input_shapes": [(None, 4)]},
            ["data_0", 4],
        ),
        (
            {"shapes": [(2, 4)], "dynamic": True, "dynamic_input_shapes": [("batch", 4)]},
            ["batch", 4],
        ),
    ],
)
def test_sizes_that_may_be_any(arguments: dict[str, Any], expected: list[Any], path: str) -> None:
    symbol, weights = dense()
    mxtrt.export_model(symbol, weights, path=path, **arguments)
    assert sizes(onnx.load(path).graph.input[0]) == expected
    three = np.concatenate([ROWS, ROWS[:1]])
    np.testing.assert_allclose(run(path, three)[0], softmax_of(three), rtol=1e-5)


def test_several_inputs_in_the_symbols_order(path: str) -> None:
    a, b, c = map(mx.sym.var, "abc")
    out = mx.sym.broadcast_add(mx.sym.transpose(c), a) * mx.sym.cast(b, "float32")
    assert out.list_inputs() == ["c", "a", "b"]
    shapes, types = [(3, 2), (2, 1), (2, 3)], [np.float32, np.float32, np.int32]
    mxtrt.export_model(out, {}, shapes, types, path)
    arrays = [np.arange(np.prod(s)).reshape(s).astype(t) for s, t in zip(shapes, types)]
    found = run(path, *arrays)[0]
    np.testing.assert_array_equal(found, (arrays[0].T + arrays[1]) * arrays[2])


def test_what_is_not_given_is_inferred(path: str) -> None:
    states = [mx.sym.var("h"), mx.sym.var("c")]
    rnn = mx.sym.RNN(X, mx.sym.var("w"), *states, mode="lstm", state_size=5, num_layers=1)
    weights = {"w": mx.nd.random.uniform(shape=(4 * 5 * (3 + 5 + 2),))}
    mxtrt.export_model(rnn, weights, [(7, 2, 3)], np.float32, path)
    shapes = [sizes(value) for value in onnx.load(path).graph.input]
    assert shapes == [[7, 2, 3], [1, 2, 5], [1, 2, 5]]


class Lambda(mx.gluon.HybridBlock):
    """A block that is one function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def hybrid_forward(self, module: Any, *inputs: Any) -> Any:
        return self.function(module, *inputs)


def check_block(
    block: mx.gluon.HybridBlock, *arrays: np.ndarray, feeds: tuple[int, ...] | None = None
) -> onnx.ModelProto:
    """Export a Gluon block as its users do, and compare; return the model."""
    block.initialize(mx.init.Uniform(0.3))
    block.hybridize()
    made = block(*(mx.nd.array(array, dtype=array.dtype) for array in arrays))
    expected = [out.asnumpy() for out in (made if isinstance(made, (list, tuple)) else [made])]
    prefix = os.path.join(os.environ["EXPORT_FOLDER"], "block")
    block.export(prefix)
    path = mxtrt.export_model(
        f"{prefix}-symbol.json",
        f"{prefix}-0000.params",
        [array.shape for array in arrays],
        [array.dtype for array in arrays],
        f"{prefix}.onnx",
    )
    fed = arrays if feeds is None else [arrays[i] for i in feeds]
    found = run(path, *fed)
    assert len(found) == len(expected)
    for have, want in zip(found, expected):
        assert (have.shape, have.dtype) == (want.shape, want.dtype)
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)
    return onnx.load(path)


@pytest.fixture
def block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., onnx.ModelProto]:
    monkeypatch.setenv("EXPORT_FOLDER", str(tmp_path))
    return check_block


def test_gluon_blocks(block: Callable[..., onnx.ModelProto]) -> None:
    rng = np.random.default_rng(0)
    image = rng.standard_normal((2, 3, 8, 8)).astype("float32")
    net = mx.gluon.nn.HybridSequential()
    net.add(
        mx.gluon.nn.Conv2D(4, 3, use_bias=False), mx.gluon.nn.BatchNorm(), mx.gluon.nn.PReLU(),
        mx.gluon.nn.MaxPool2D(ceil_mode=True), mx.gluon.nn.GroupNorm(2), mx.gluon.nn.Flatten(),
        mx.gluon.nn.Dense(5, activation="tanh"), mx.gluon.nn.LayerNorm(), mx.gluon.nn.GELU(),
    )  # fmt: skip
    proto = block(net, image)
    assert names(proto.graph.input) == ["data"]
    weights = {tensor.name for tensor in proto.graph.initializer}
    assert {p for p in net.collect_params() if "batchnorm" in p and "running" in p} < weights


@pytest.mark.parametrize("layer", [mx.gluon.rnn.LSTM, mx.gluon.rnn.GRU, mx.gluon.rnn.RNN])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_gluon_recurrent(
    layer: Any, options: dict[str, Any], block: Callable[..., onnx.ModelProto]
) -> None:
    class WithStates(mx.gluon.HybridBlock):
        def __init__(self) -> None:
            super().__init__()
            self.net = layer(5, **options)

        def hybrid_forward(self, module: Any, x: Any, *states: Any) -> Any:
            made, after = self.net(x, list(states))
            return (made, *after)

    rng = np.random.default_rng(0)
    count = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    states = [(count, 2, 5)] * (2 if layer is mx.gluon.rnn.LSTM else 1)
    arrays = [rng.standard_normal(shape).astype("float32") for shape in [(7, 2, 3), *states]]
    proto = block(WithStates(), *arrays)
    # as MXNet's exporter calls them: the output, then 1 and 2 for the states
    node = names(proto.graph.output)[0]
    assert names(proto.graph.output) == [f"{node}{n}" for n in ("", 1, 2)[: len(arrays)]]


def test_arguments_that_a_block_does_not_read(block: Callable[..., onnx.ModelProto]) -> None:
    arrays = [np.ones(shape, "float32") for shape in [(2, 3), (4, 5), (2, 1)]]
    net = Lambda(lambda module, a, b, c: module.broadcast_add(c, a))
    proto = block(net, *arrays, feeds=(2, 0))
    assert names(proto.graph.input) == ["data2", "data0"]


def test_an_input_whose_values_do_not_matter_stays(path: str) -> None:
    mxtrt.export_model(mx.sym.zeros_like(X), {}, [(2, 3)], np.float32, path)
    np.testing.assert_array_equal(run(path, np.ones((2, 3), "float32"))[0], np.zeros((2, 3)))


def test_a_net_without_inputs(path: str) -> None:
    with pytest.warns(UserWarning, match="the model has no inputs"):
        mxtrt.export_model(mx.sym.arange(4), {}, [(2, 3)], np.float32, path)
    np.testing.assert_array_equal(run(path)[0], np.arange(4))


def test_a_label_of_another_name_stays_when_it_has_a_shape(path: str) -> None:
    out = mx.sym.SoftmaxOutput(mx.sym.var("data0"), mx.sym.var("data1"), name="head")
    rows = np.array([[1, 2, 3], [3, 2, 1]], "float32")
    mxtrt.export_model(out, {}, [(2, 3), (2,)], np.float32, path)
    found = run(path, rows, np.zeros(2, "float32"))[0]
    mxtrt.export_model(out, {}, {"data0": (2, 3)}, np.float32, path)
    np.testing.assert_array_equal(run(path, rows)[0], found)


def test_nodes_that_compute_labels_are_left_out(path: str) -> None:
    label = mx.sym.random.gamma(shape=(2,)) + mx.sym.var("truth")
    out = mx.sym.SoftmaxOutput(X, label, name="head")
    mxtrt.export_model(out, {}, {"data": (2, 3)}, np.float32, path)
    assert names(onnx.load(path).graph.input) == ["data"]


# -- names -------------------------------------------------------------------------------------


def output_names(symbol: mx.sym.Symbol, path: str, *arrays: np.ndarray) -> list[str]:
    """Export, compare with MXNet and return the names of the outputs."""
    inputs = dict(zip(symbol.list_inputs(), arrays))
    shapes = {name: array.shape for name, array in inputs.items()}
    types = {name: array.dtype for name, array in inputs.items()}
    mxtrt.export_model(symbol, {}, shapes, types, path)
    for have, want in zip(run(path, *arrays), run_mxnet(symbol, inputs)):
        np.testing.assert_allclose(have, want, rtol=1e-5)
    return names(onnx.load(path).graph.output)


def test_outputs_are_named_and_ordered_as_mxnets_heads(path: str) -> None:
    x = np.arange(12, dtype="float32").reshape(3, 4)
    split = mx.sym.split(X, num_outputs=4, axis=1, name="split")
    top = mx.sym.topk(X, k=2, ret_typ="both", name="top")
    relu = mx.sym.relu(X, name="relu")
    group = mx.sym.Group([relu, top[1], split[2], top[0], X, relu, mx.sym.identity(relu, name="i")])
    found = output_names(group, path, x)
    assert found[:4] == ["relu", "top1", "split2", "top0"]
    assert found[6] == "i"
    assert len(set(found)) == 7


def test_many_outputs(path: str) -> None:
    split = mx.sym.split(X, num_outputs=12, axis=1, name="split")
    found = output_names(split, path, np.arange(24, dtype="float32").reshape(2, 12))
    assert found == [f"split{n}" for n in range(12)]


def test_names_that_clash(path: str) -> None:
    first = mx.sym.relu(mx.sym.var("a"), name="a")  # MXNet's exporter would call both "a"
    second = mx.sym.relu(first + 1, name="a1")
    split = mx.sym.split(second, num_outputs=2, axis=1, name="a")
    group = mx.sym.Group([first, second, split])
    found = output_names(group, path, np.arange(4, dtype="float32").reshape(2, 2) - 2)
    assert names(onnx.load(path).graph.input) == ["a"]
    assert len(set(found)) == 4


@pytest.mark.parametrize("name", ["1", "a/b", "ein Übergang", 'it\'s "quoted" \\ here'])
def test_names_of_any_letters(name: str, path: str) -> None:
    symbol = mx.sym.relu(mx.sym.var(f"{name}_in"), name=name)
    assert output_names(symbol, path, np.array([-1, 1], "float32")) == [name]
    assert names(onnx.load(path).graph.input) == [f"{name}_in"]


def test_weights_keep_their_names_and_come_once(path: str) -> None:
    shared = mx.sym.var("w")
    out = mx.sym.FullyConnected(X, shared, num_hidden=4, no_bias=True, name="w_weight")
    out = mx.sym.FullyConnected(out, mx.sym.var("w"), num_hidden=4, no_bias=True, name="b")
    weight = mx.nd.random.uniform(shape=(4, 4))
    mxtrt.export_model(out, {"w": weight}, [(2, 4)], np.float32, path)
    tensors = onnx.load(path).graph.initializer
    assert names(tensors) == ["w"]
    expected = ROWS @ weight.asnumpy().T @ weight.asnumpy().T
    np.testing.assert_allclose(run(path, ROWS)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint8", "int32", "int64", "bool"])
def test_weights_of_every_type(dtype: str, path: str) -> None:
    weight = np.arange(6).reshape(2, 3).astype(dtype)
    symbol = mx.sym.stack(X, mx.sym.var("w"))
    array = mx.nd.array(weight, dtype=dtype)
    mxtrt.export_model(symbol, {"w": array}, [(2, 3)], np.dtype(dtype), path)
    np.testing.assert_array_equal(run(path, weight)[0], np.stack([weight, weight]))


# -- the file ----------------------------------------------------------------------------------


def test_the_file_says_what_it_is(path: str) -> None:
    symbol, weights = dense()
    mxtrt.export_model(symbol, weights, [(2, 4)], np.float32, path)
    proto = onnx.load(path)
    assert (proto.producer_name, proto.producer_version) == ("mxtrt", mxtrt.__version__)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 17)]
    assert proto.ir_version == 8
    assert list(Path(path).parent.iterdir()) == [Path(path)]


def test_shape_inference_on_request(path: str) -> None:
    symbol, weights = dense()
    mxtrt.export_model(symbol, weights, [(2, 4)], np.float32, path)
    assert not onnx.load(path).graph.value_info
    mxtrt.export_model(symbol, weights, [(2, 4)], np.float32, path, run_shape_inference=True)
    assert onnx.load(path).graph.value_info


def external_files(path: str) -> None:
    proto = onnx.load(path, load_external_data=False)
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    assert onnx.external_data_helper.uses_external_data(tensors["fc1_weight"])
    assert sorted(os.listdir(os.path.dirname(path))) == ["net.onnx", "net.onnx.data"]
    np.testing.assert_allclose(run(path, ROWS)[0], softmax_of(ROWS), rtol=1e-5)


def test_weights_beside_the_file(path: str) -> None:
    symbol, weights = dense()
    mxtrt.export_model(symbol, weights, [(2, 4)], np.float32, path, large_model=True)
    external_files(path)


def test_weights_that_are_too_large_go_beside_the_file(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    symbol, weights = dense()
    monkeypatch.setattr(onnx_file, "LARGEST", 400)
    mxtrt.export_model(symbol, weights, [(2, 4)], np.float32, path)
    external_files(path)


@pytest.mark.slow
def test_weights_of_more_than_2_gib(path: str) -> None:
    count = 2**29 // 1024 + 8
    out = mx.sym.FullyConnected(X, num_hidden=count, no_bias=True, name="fc")
    weight = mx.nd.ones((count, 1024))
    weight[count - 1] = 2
    mxtrt.export_model(out, {"fc_weight": weight}, [(1, 1024)], np.float32, path)
    del weight
    assert os.path.getsize(path) < 10_000
    assert os.path.getsize(f"{path}.data") > 2**31
    found = run(path, np.ones((1, 1024), "float32"))[0]
    assert (found[0, 0], found[0, -1]) == (1024, 2048)


def test_weights_are_not_copied(path: str) -> None:
    out = mx.sym.FullyConnected(X, num_hidden=4096, no_bias=True, name="fc")
    weight = mx.nd.ones((4096, 4096))
    weight.wait_to_read()
    mxtrt.export_model(out, {"fc_weight": weight}, [(1, 4096)], np.float32, path)
    tracemalloc.start()
    mxtrt.export_model(out, {"fc_weight": weight}, [(1, 4096)], np.float32, path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert os.path.getsize(path) > 2**26
    assert peak < 2**22


def test_a_file_that_is_there_stays_when_the_export_fails(path: str) -> None:
    Path(path).write_text("before")
    with pytest.raises(NotExportable):
        mxtrt.export_model(mx.sym.random.gamma(shape=(2,)) + X, {}, [(2,)], np.float32, path)
    assert Path(path).read_text() == "before"


def test_a_full_disk_leaves_nothing_behind(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(array: Any) -> Any:
        raise OSError(28, "No space left on device")

    symbol, weights = dense()
    Path(path).write_text("before")
    monkeypatch.setattr(onnx_file, "_bytes", full)
    with pytest.raises(BadOption, match="No space left"):
        mxtrt.export_model(symbol, weights, [(2, 4)], np.float32, path)
    assert Path(path).read_text() == "before"
    assert os.listdir(os.path.dirname(path)) == ["net.onnx"]


# -- random numbers ----------------------------------------------------------------------------


def drawn(path: str, op: str, *arrays: Any, **attrs: Any) -> list[tuple[Any, Any]]:
    """Return what ONNX Runtime and what MXNet draw, in shapes and types that are equal."""
    inputs = {f"x{i}": np.asarray(array) for i, array in enumerate(arrays)}
    symbol = operator(op, len(arrays), **attrs)
    shapes = {name: array.shape for name, array in inputs.items()}
    types = {name: array.dtype for name, array in inputs.items()}
    mxtrt.export_model(symbol, {}, shapes, types, path)
    pairs = list(zip(run(path, *inputs.values()), run_mxnet(symbol, inputs)))
    for have, want in pairs:
        assert (have.shape, have.dtype) == (want.shape, want.dtype)
    return pairs


COUNT = 40_000
RANDOM: list[tuple[str, dict[str, Any]]] = [
    ("_random_uniform", {"low": 2, "high": 5}),
    ("_random_normal", {"loc": 2, "scale": 3}),
    ("_random_exponential", {"lam": 2}),
]


@pytest.mark.parametrize(("op", "attrs"), RANDOM)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_random_numbers(op: str, attrs: dict[str, Any], dtype: str, path: str) -> None:
    pairs = drawn(path, op, shape=(COUNT // 4, 4), dtype=dtype, **attrs)
    pairs += drawn(path, f"{op}_like", np.zeros((COUNT // 4, 4), dtype), **attrs)
    for have, want in pairs:
        assert_alike(have, want)


def assert_alike(have: np.ndarray, want: np.ndarray) -> None:
    """Assert that two samples have the same deciles, as far as their size says."""
    deciles = np.linspace(0.1, 0.9, 9)
    one, two = (np.quantile(sample.astype("float64"), deciles) for sample in (have, want))
    spread = two[-1] - two[0]
    step = 1 if have.dtype.kind == "i" else 0
    np.testing.assert_allclose(one, two, atol=max(0.03 * spread, step))


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_random_integers(dtype: str, path: str) -> None:
    have, want = drawn(path, "_random_randint", low=-5, high=20, shape=(COUNT,), dtype=dtype)[0]
    assert (have.min(), have.max()) == (want.min(), want.max()) == (-5, 19)
    assert_alike(have, want)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("op", "second"), [("uniform", [[2, 9]]), ("normal", [[3, 1]])])
def test_random_numbers_for_each_element(op: str, second: Any, dtype: str, path: str) -> None:
    params = np.array([[1, 5]], dtype), np.array(second, dtype)
    have, want = drawn(path, f"_sample_{op}", *params, shape=(COUNT // 2, 2))[0]
    for column in (0, 1):
        assert_alike(have[0, column], want[0, column])
    drawn(path, f"_sample_{op}", *params)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_random_classes(dtype: str, path: str) -> None:
    chances = np.array([[0.1, 0.9, 0], [0.5, 0.2, 0.3]], dtype)
    have, likely = drawn(path, "_sample_multinomial", chances, shape=(COUNT,), get_prob=True)
    for row, of_row in zip(have[0], chances):
        np.testing.assert_allclose(np.bincount(row, minlength=3) / COUNT, of_row, atol=0.02)
    picked = np.take_along_axis(chances, have[0].astype("int64"), axis=1)
    np.testing.assert_allclose(likely[0], np.log(picked), rtol=1e-5)
    for shape in ((), (2, 3)):
        drawn(path, "_sample_multinomial", chances, shape=shape)
        drawn(path, "_sample_multinomial", chances[0], shape=shape, dtype="float32")


def test_shuffled_rows(path: str) -> None:
    rows = np.arange(2000, dtype="float32").reshape(1000, 2)
    have, _ = drawn(path, "_shuffle", rows)[0]
    assert (have != rows).any()
    np.testing.assert_array_equal(have[have[:, 0].argsort()], rows)


def test_boolean_mask(path: str) -> None:
    symbol = mx.sym.contrib.boolean_mask(X, mx.sym.var("mask"))
    shapes = [(4, 3), (4,)]
    mxtrt.export_model(symbol, {}, shapes, np.float32, path)
    rows, mask = np.arange(12, dtype="float32").reshape(4, 3), np.array([1, 0, 0, 1], "float32")
    np.testing.assert_array_equal(run(path, rows, mask)[0], rows[[0, 3]])


# -- whole models ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mobilenetv2_0.25", "squeezenet1.1", "resnet18_v1"])
def test_the_zoo(name: str, path: str) -> None:
    symbol, args, aux = zoo_model(name)
    image = zoo_images(name)
    expected = run_mxnet(symbol, {"data": image, **as_numpy(args), **as_numpy(aux)})[0]
    mxtrt.export_model(symbol, (args, aux), [(None, *image.shape[1:])], np.float32, path)
    for batch in (image, np.concatenate([image, image])):
        found = run(path, batch)[0]
        limit = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(found, expected.repeat(len(batch), axis=0), atol=limit)


def as_numpy(arrays: Mapping[str, mx.nd.NDArray]) -> dict[str, np.ndarray]:
    return {name: array.asnumpy() for name, array in arrays.items()}


# -- what it refuses ---------------------------------------------------------------------------


def test_all_that_cannot_be_exported_is_listed(path: str) -> None:
    first = mx.sym.random.gamma(shape=(2, 3), name="first")
    second = mx.sym.random.poisson(shape=(2, 3), name="second")
    with pytest.raises(NotExportable) as raised:
        mxtrt.export_model(mx.sym.relu(second + first) + X, {}, [(2, 3)], np.float32, path)
    message = str(raised.value)
    assert message.startswith("2 of 5 operators cannot be exported to ONNX:\n")
    assert "\n  _random_gamma 'first': draws random numbers" in message
    assert "\n  _random_poisson 'second': draws random numbers" in message


BAD: list[tuple[dict[str, Any], type[UserError], str]] = [
    ({"params": {}}, BadParams, "params lacks 'fc1_weight'"),
    ({"params": None}, BadParams, "params lacks 'fc1_weight'"),
    ({"params": "nowhere.params"}, UserError, "no such params file"),
    ({"sym": "nowhere.json"}, UserError, "no such symbol file"),
    ({"shapes": [(2, 5)]}, UserError, "'fc1_weight' has shape"),
    ({"shapes": {"dada": (2, 4)}}, BadOption, "did you mean 'data'?"),
    ({"shapes": [(2, 4)], "in_shapes": [(2, 4)]}, BadOption, "under two names"),
    ({"dtypes": "float33"}, BadOption, "float33"),
    ({"dtypes": np.complex64}, BadOption, "cannot be complex64"),
    ({"dtypes": "int32"}, UserError, "dtypes do not fit"),
    ({"path": "nowhere/net.onnx"}, BadOption, "no folder that can be written to"),
    ({"path": "."}, BadOption, "is a folder"),
    ({"dtypes": "elsewhere.onnx"}, BadOption, "path is given under two names"),
    ({"dynamic_input_shapes": [(None, 4)]}, BadOption, "needs dynamic=True"),
    (
        {"dynamic": True, "dynamic_input_shapes": [(None, 4, 4)]},
        BadOption,
        "'data' has 3 axes, in shapes it has 2",
    ),
]


@pytest.mark.parametrize(("changed", "error", "message"), BAD)
def test_bad_arguments(
    changed: dict[str, Any], error: type[UserError], message: str, path: str
) -> None:
    symbol, weights = dense()
    arguments = {"sym": symbol, "params": weights, "shapes": [(2, 4)], "path": path, **changed}
    with pytest.raises(error, match=message.replace("?", r"\?")):
        mxtrt.export_model(**arguments)
    assert not os.path.exists(path)


def test_an_input_of_unknown_rank(path: str) -> None:
    with pytest.raises(ShapeNeeded, match="shape of 'data'; pass shapes="):
        mxtrt.export_model(mx.sym.relu(X), {}, path=path)


def test_an_output_whose_rank_depends_on_sizes(path: str) -> None:
    symbol = mx.sym.gather_nd(X, mx.sym.var("places"))
    arguments = {"shapes": [(4, 5, 6), (2, 3)], "dtypes": [np.float32, np.int64], "path": path}
    mxtrt.export_model(symbol, {}, dynamic=True, **arguments)
    x, places = np.arange(120, dtype="float32").reshape(4, 5, 6), np.array([[0, 3, 1], [4, 2, 0]])
    np.testing.assert_array_equal(run(path, x, places)[0], x[tuple(places)])
    unknown = {**arguments, "shapes": [(None, None, None), (None, None)]}
    with pytest.raises(ShapeNeeded, match=r"'gather_nd\d+' has depends on sizes"):
        mxtrt.export_model(symbol, {}, **unknown)


# -- the command -------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    symbol, weights = dense()
    mx.model.save_checkpoint(str(tmp_path / "net"), 0, symbol, weights, {})
    monkeypatch.chdir(tmp_path)


def command(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli.main, ["export", *words], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return str(result.output)


NET = ("net-symbol.json", "net-0000.params")


@pytest.mark.usefixtures("checkpoint")
def test_command() -> None:
    told = command(*NET, "--shape", "data=2,4", "-o", "net.onnx", "--check")
    assert told.splitlines() == [
        "input   data  (2, 4)  float32",
        "output  softmax  (2, 3)  float32",
        f"net.onnx: {len(onnx.load('net.onnx').graph.node)} ONNX operators, 2 weights",
    ]
    np.testing.assert_allclose(run("net.onnx", ROWS)[0], softmax_of(ROWS), rtol=1e-5)


@pytest.mark.usefixtures("checkpoint")
def test_command_with_unknown_sizes_and_a_second_file() -> None:
    told = command(*NET, "--shape", "data=?,4", "--external", "-o", "net.onnx")
    assert "data  (?, 4)  float32" in told
    assert os.path.exists("net.onnx.data")


@pytest.mark.usefixtures("checkpoint")
def test_command_in_another_type() -> None:
    _, weights = dense()
    halves = {name: array.astype("float16") for name, array in weights.items()}
    mx.nd.save("half.params", {f"arg:{name}": array for name, array in halves.items()})
    told = command(NET[0], "half.params", "--shape", "data=2,4", "--dtype", "data=float16",
                   "-o", "net.onnx")  # fmt: skip
    assert "input   data  (2, 4)  float16" in told


@pytest.mark.usefixtures("checkpoint")
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((*NET,), 2, "Missing option '-o'"),
        ((*NET, "--shape", "data=two", "-o", "net.onnx"), 2, "must look like data=1,3,224,224"),
        ((*NET, "-o", "nowhere/net.onnx"), 2, "no folder that can be written to"),
        ((NET[0], "-o", "net.onnx"), 1, "params lacks 'fc1_weight'"),
        ((*NET, "--shape", "dada=1,4", "-o", "net.onnx"), 1, "did you mean 'data'?"),
        (("nowhere.json", "-o", "net.onnx"), 1, "no such symbol file"),
    ],
)
def test_command_with_bad_input(words: tuple[str, ...], code: int, message: str) -> None:
    told = command(*words, code=code)
    assert message in told
    assert "Traceback" not in told
    assert not os.path.exists("net.onnx")


def test_help_has_examples() -> None:
    assert "mxtrt export net-symbol.json net-0000.params --shape data=1,3,224,224" in command("-h")
