"""MXNet 1.9.1 on this Python and this NumPy: that it imports, and that ordinary use works."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import mxnet as mx
import numpy as np
import pytest

import mxtrt
from mxtrt import compat


def run(code, *options):
    """Run `code` in a process of its own and return what it prints."""
    process = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


# -- prepare ---------------------------------------------------------------------------------------


def test_import_is_silent_even_where_warnings_are_errors():
    assert run("import mxtrt, mxnet; print(mxnet.__version__)", "-W", "error") == "1.9.1\n"


def test_again_changes_nothing():
    before = dict(vars(np))
    compat.prepare()
    assert vars(np) == before


def test_what_numpy_has_stays():
    out = run(
        """
        import numpy as np
        before = dict(vars(np))
        import mxtrt, mxnet
        print([name for name, value in before.items() if vars(np)[name] is not value])
        """
    )
    assert out == "[]\n"


def test_nothing_is_added_where_mxnet_is_imported_already():
    out = run(
        """
        import sys, types
        import numpy as np
        before = set(vars(np))
        sys.modules["mxnet"] = types.ModuleType("mxnet")
        import mxtrt
        print(set(vars(np)) - before)
        """
    )
    assert out == "set()\n"


def test_mxnet_missing(monkeypatch):
    monkeypatch.delitem(sys.modules, "mxnet")
    monkeypatch.setattr(compat, "_is_installed", lambda module: False)
    with pytest.raises(mxtrt.errors.MXNetNotInstalled, match=r"mxtrt\[cpu\]"):
        compat.prepare()


def test_a_bare_folder_is_no_mxnet(tmp_path, monkeypatch):
    (tmp_path / "folder_without_code").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not compat._is_installed("folder_without_code")
    assert not compat._is_installed("no_such_module")
    assert compat._is_installed("mxnet")


@pytest.mark.parametrize(("python", "by_hand"), [((3, 12), False), ((3, 13), True)])
def test_how_to_install(python, by_hand):
    sentence = compat._how_to_install(python)
    assert all(extra in sentence for extra in ("mxtrt[cpu]", "mxtrt[cu112]", "mxtrt[cu117]"))
    assert ("pip install --no-deps mxnet==1.9.1" in sentence) == by_hand


def test_without_requests_and_graphviz():
    out = run(
        """
        import sys
        sys.modules["requests"] = sys.modules["graphviz"] = None
        import mxtrt, mxnet
        print("requests" in sys.modules)
        try:
            mxnet.gluon.utils.requests.get("https://example.invalid/file")
        except ModuleNotFoundError as error:
            print(error)
        """
    )
    assert out == "False\nMXNet downloads with the package requests: pip install requests\n"


def test_removed_functions_say_so():
    if "npv" not in compat._numpy_names(np):
        pytest.skip("NumPy has it")
    with pytest.raises(RuntimeError):
        np.npv(0.1, [1])


def test_restored_functions():
    values = np.array([[3.0, 1.0], [2.0, 4.0]])
    names = compat._numpy_names(np)
    np.testing.assert_array_equal(names["msort"](values), [[2, 1], [3, 4]])
    np.testing.assert_array_equal(names["in1d"](values, [1, 2]), [False, True, True, False])
    assert names["sometrue"](values > 3)
    assert not names["alltrue"](values > 3)


# -- ordinary use ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype",
    ["float16", "float32", "float64", "uint8", "int8", "int32", "int64", "bool"],
)
@pytest.mark.parametrize("spell", [str, np.dtype, lambda name: np.dtype(name).type])
def test_dtypes(dtype, spell):
    array = mx.nd.array([1, 0, 1], dtype=spell(dtype))
    assert array.dtype == np.dtype(dtype)
    assert array.asnumpy().dtype == np.dtype(dtype)
    assert mx.nd.array(np.array([1, 0], dtype)).astype(spell(dtype)).dtype == np.dtype(dtype)


@pytest.mark.parametrize("dtype", [bool, int, float, np.bool_])
def test_python_types(dtype):
    assert mx.nd.array([1, 0], dtype=dtype).dtype == np.dtype(dtype)


def test_numpy_integers_in_shapes():
    # NumPy 2 writes np.int64(2) inside a tuple, and MXNet hands tuples on as text.
    two, three = np.int64(2), np.int64(3)
    assert mx.nd.zeros((two, three)).reshape((three, two)).shape == (3, 2)
    assert mx.nd.random.uniform(shape=(two, 3)).shape == (2, 3)
    assert mx.nd.pad(
        mx.nd.ones((1, 1, 2, 2)), mode="constant", pad_width=[0, 0, 0, 0, *[np.int32(1)] * 4]
    ).shape == (1, 1, 4, 4)
    variable = mx.sym.var("x", shape=(two, three))
    assert mx.sym.reshape(variable, shape=(three, two)).infer_shape()[1] == [(3, 2)]
    assert mx.sym.var("y", init=mx.init.One()).attr("__init__") == '["one", {}]'
    initializer = mx.init.Orthogonal()
    initializer(mx.init.InitDesc("x_weight"), mx.nd.zeros((4, 3, 2, 2)))


def test_numpy_arrays_in_place_of_shapes():
    # One element is read, more are not: as with any NumPy.
    assert mx.nd.ones((2, 3)).sum(axis=np.array([1])).shape == (2,)
    with pytest.raises(mx.MXNetError, match="Invalid Parameter format"):
        mx.nd.reshape(mx.nd.ones((2, 3)), shape=np.array([3, 2]))


@pytest.mark.filterwarnings("error")
def test_scipy_matrices():
    scipy_sparse = pytest.importorskip("scipy.sparse")
    assert mx.nd.array([1, 2]).shape == (2,)
    matrix = mx.nd.sparse.array(scipy_sparse.csr_matrix(np.eye(3)))
    assert matrix.stype == "csr"
    assert mx.nd.array(matrix.asscipy()).stype == "csr"


def test_numpy_scalars():
    array = mx.nd.arange(6).reshape((2, 3))
    assert (array * np.float32(2) + np.int64(1) - np.float64(0.5)).sum().asscalar() == 33
    assert array[np.int64(1), 2].asscalar() == 5
    assert array[:, np.array([0, 2])].shape == (2, 2)
    array[0] = np.ones(3)
    assert array[0].sum().asscalar() == 3


@mx.util.use_np
def test_numpy_interface():
    values = mx.np.array([[1, 2], [3, 4.0]])
    assert mx.np.full_like(values, True, dtype=np.bool_).dtype == np.bool_
    assert mx.np.zeros((2,), dtype=bool).dtype == np.bool_
    assert values[values > 2].asnumpy().tolist() == [3, 4]
    assert mx.np.pad(values, ((1, 1), (0, 0)), mode="constant").shape == (4, 2)
    assert np.mean(values) == 2.5
    assert np.concatenate([values, values]).shape == (4, 2)
    assert mx.np.msort(values).shape == (2, 2)
    assert mx.np.PZERO == 0.0
    assert mx.np.array(True).item() == 1


@pytest.mark.parametrize("hybrid", [None, {}, {"static_alloc": True, "static_shape": True}])
def test_gluon(hybrid, tmp_path):
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Conv2D(4, 3, activation="relu"), mx.gluon.nn.BatchNorm())
    net.add(mx.gluon.nn.Flatten(), mx.gluon.nn.Dense(3))
    net.initialize(mx.init.Xavier())
    if hybrid is not None:
        net.hybridize(**hybrid)
    trainer = mx.gluon.Trainer(net.collect_params(), "adam")
    data, label = mx.nd.random.uniform(shape=(4, 3, 8, 8)), mx.nd.array([0, 1, 2, 0])
    with mx.autograd.record():
        loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()(net(data), label)
    loss.backward()
    trainer.step(4)
    net.save_parameters(str(tmp_path / "net.params"))
    net.load_parameters(str(tmp_path / "net.params"))
    if hybrid is None:
        return
    net.export(str(tmp_path / "net"), 3)
    files = [str(tmp_path / name) for name in ("net-symbol.json", "net-0003.params")]
    block = mx.gluon.SymbolBlock.imports(files[0], ["data"], files[1])
    np.testing.assert_allclose(block(data).asnumpy(), net(data).asnumpy(), atol=1e-5)


def test_module(tmp_path):
    net = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=2, name="fc")
    net = mx.sym.SoftmaxOutput(net, name="softmax")
    samples = np.random.default_rng(0).random((20, 5)).astype("float32")
    data = mx.io.NDArrayIter(samples, np.arange(20) % 2, batch_size=5, shuffle=True)
    prefix = str(tmp_path / "net")
    module = mx.mod.Module(net)
    module.fit(data, num_epoch=1, eval_metric=["acc", "ce"], eval_data=data)
    module.save_checkpoint(prefix, 1)
    symbol, arguments, states = mx.model.load_checkpoint(prefix, 1)
    module = mx.mod.Module(symbol)
    module.bind(data.provide_data, data.provide_label, for_training=False)
    module.set_params(arguments, states)
    assert module.predict(data).shape == (20, 2)
    assert 0 <= dict(module.score(data, "acc"))["accuracy"] <= 1


def test_save_and_load(tmp_path):
    path = str(tmp_path / "arrays")
    mx.nd.save(path, {"a": mx.nd.ones(3), "b": mx.nd.array([1, 2], dtype="int64")})
    loaded = mx.nd.load(path)
    assert loaded["a"].sum().asscalar() == 3
    assert loaded["b"].dtype == np.int64


@pytest.mark.parametrize("workers", [0, 2])
def test_data_loader(workers):
    values = np.arange(10, dtype="float32")
    loader = mx.gluon.data.DataLoader(
        mx.gluon.data.ArrayDataset(values, values), batch_size=5, num_workers=workers
    )
    assert sum(batch.sum().asscalar() for batch, _ in loader) == 45


def test_custom_operator():
    class Square(mx.operator.CustomOp):
        def forward(self, is_train, req, in_data, out_data, aux):
            self.assign(out_data[0], req[0], mx.nd.array(in_data[0].asnumpy() ** 2))

    @mx.operator.register("mxtrt_test_square")
    class SquareProp(mx.operator.CustomOpProp):
        def __init__(self):
            super().__init__(need_top_grad=False)

        def create_operator(self, ctx, shapes, dtypes):
            return Square()

    squares = mx.nd.Custom(mx.nd.arange(4), op_type="mxtrt_test_square")
    assert squares.asnumpy().tolist() == [0, 1, 4, 9]


def test_calibration_by_entropy():
    x = mx.nd.array(np.linspace(-1, 1, 64, dtype="float32").reshape(8, 8))
    net = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=4, no_bias=True, name="fc")
    data = mx.io.NDArrayIter(x, batch_size=8)
    _, args, _ = mx.contrib.quantization.quantize_model(
        net,
        {"fc_weight": mx.nd.ones((4, 8))},
        {},
        label_names=None,
        calib_mode="entropy",
        calib_data=data,
        num_calib_examples=8,
        quantized_dtype="int8",
    )
    assert any("quantize" in name for name in args)
