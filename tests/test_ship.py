"""Optimised models in files: `mxtrt.save`, `mxtrt.load`, and MXNet's own ways to load them."""

from __future__ import annotations

import errno
import gc
import json
import logging
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest

import mxtrt
from mxtrt import engines_file, errors, operator, saved, weight_sources
from mxtrt.engines import _saved_plans
from mxtrt.engines._saved_plans import SavedPlan
from mxtrt.engines_file import EnginesFile, Writer

SHAPE = (2, 3, 8, 8)
Pair = tuple[dict[str, Any], dict[str, Any]]


def model() -> tuple[mx.sym.Symbol, Pair]:
    """Return a small net with auxiliary states and a label."""
    rng = np.random.default_rng(0)
    net = mx.sym.Convolution(mx.sym.var("data"), kernel=(3, 3), num_filter=4, name="conv")
    net = mx.sym.Activation(mx.sym.BatchNorm(net, name="bn"), act_type="relu", name="relu")
    net = mx.sym.Pooling(net, global_pool=True, pool_type="avg", kernel=(1, 1), name="pool")
    net = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(net, num_hidden=5, name="fc"), name="softmax")
    shapes, _, states = net.infer_shape(data=SHAPE)
    args = {
        name: mx.nd.array(rng.standard_normal(shape))
        for name, shape in zip(net.list_arguments(), shapes)
        if name not in {"data", "softmax_label"}
    }
    names = net.list_auxiliary_states()
    auxs = {n: mx.nd.array(rng.uniform(1, 2, shape)) for n, shape in zip(names, states)}
    return net, (args, auxs)


def data() -> np.ndarray:
    return np.random.default_rng(1).standard_normal(SHAPE).astype("float32")


def outputs(symbol: mx.sym.Symbol, params: Pair) -> np.ndarray:
    executor = symbol.simple_bind(mx.cpu(), data=SHAPE, grad_req="null")
    executor.copy_params_from(*params, allow_extra_params=True)
    return executor.forward(data=mx.nd.array(data()))[0].asnumpy()


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return outputs(*model())


@pytest.fixture(params=["whole", "in parts"])
def prefix(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the beginning of the names of a saved model's files."""
    symbol, params = model()
    kept = ["bn"] if request.param == "in parts" else []
    mxtrt.save(tmp_path / "net", *mxtrt.optimize(symbol, params, exclude_nodes=kept))
    return str(tmp_path / "net")


def close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def forget(prefix: str) -> None:
    """Drop the engines that a file names."""
    for part in engines_file.read_header(f"{prefix}-engines.mxtrt")["parts"]:
        operator._forget(part["key"])


# -- what is in the files ------------------------------------------------------------------------


def test_three_files_and_no_paths_in_them(prefix: str) -> None:
    folder = os.path.dirname(prefix)
    names = ["net-0000.params", "net-engines.mxtrt", "net-symbol.json"]
    assert sorted(os.listdir(folder)) == names
    umask = os.umask(0)
    os.umask(umask)
    for name in names:
        content = Path(folder, name).read_bytes()
        for path in (folder, os.getcwd(), os.path.expanduser("~")):
            assert path.encode() not in content
        assert stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode) == 0o666 & ~umask


def test_the_file_of_engines_has_onnx_and_weights(prefix: str) -> None:
    import onnx

    file = EnginesFile(f"{prefix}-engines.mxtrt")
    weights = {}
    for part in file.about["parts"]:
        proto = onnx.ModelProto.FromString(file.bytes(part["onnx"]))
        declared = {t.name for t in proto.graph.initializer if t.data_location}
        assert declared == set(part["weights"])
        weights.update({name: file.array(*place) for name, place in part["weights"].items()})
    _, (args, auxs) = model()
    for name in ("fc_weight", "fc_bias"):
        np.testing.assert_array_equal(weights[name], args[name].asnumpy())
    assert len(weights) in (len({**args, **auxs}) - 1, 2)  # bn_gamma is fixed


def test_each_saving_has_its_own_keys(tmp_path: Path) -> None:
    """Weights of the same block may change between two savings."""
    symbol, params = mxtrt.optimize(*model())
    for name in "ab":
        mxtrt.save(tmp_path / name, symbol, params)
    keys = [set(saved._keys(json.loads((tmp_path / f"{n}-symbol.json").read_text())["nodes"]))
            for n in "ab"]  # fmt: skip
    assert not keys[0] & keys[1]
    assert not (keys[0] | keys[1]) & set(saved._keys(json.loads(symbol.tojson())["nodes"]))


# -- loading -------------------------------------------------------------------------------------


def test_load_in_the_same_process(prefix: str, expected: np.ndarray) -> None:
    symbol, params = mxtrt.load(prefix)
    close(outputs(symbol, params), expected)
    assert symbol.list_outputs() == ["softmax_output"]


def test_the_report_is_the_same(tmp_path: Path) -> None:
    shapes = {"data": ((1, 2, 8), 3, 8, 8)}
    symbol, params = mxtrt.optimize(*model(), shapes=shapes, exclude_nodes=["bn"])
    mxtrt.save(tmp_path / "net", symbol, params)
    loaded, _ = mxtrt.load(tmp_path / "net")
    assert str(mxtrt.report(loaded)) == str(mxtrt.report(symbol))
    one, two = (mxtrt.report(each).to_dict() for each in (loaded, symbol))
    assert {**one, "runtime": None} == {**two, "runtime": None}
    assert mxtrt.report(loaded).to_dot() == mxtrt.report(symbol).to_dot()


EVERY_WAY = """
import sys
import mxtrt  # the one line
import mxnet as mx
import numpy as np

prefix, want = sys.argv[1], np.load(sys.argv[2])
x = mx.nd.array(want["x"])

def check(found, way):
    np.testing.assert_allclose(found.asnumpy(), want["y"], rtol=1e-4, atol=1e-5)
    print(way)

symbol, args, auxs = mx.model.load_checkpoint(prefix, 0)
executor = symbol.simple_bind(mx.cpu(), data=x.shape, grad_req="null")
executor.copy_params_from(args, auxs)
check(executor.forward(data=x)[0], "load_checkpoint")
mxtrt.release(symbol)

module = mx.mod.Module.load(prefix, 0)
shapes = [("data", x.shape)], [("softmax_label", x.shape[:1])]
module.bind(*shapes, for_training=False)
check(module.predict(mx.io.NDArrayIter(want["x"], want["y"][:, 0], batch_size=2)), "Module.load")
mxtrt.release(module.symbol)

block = mx.gluon.SymbolBlock.imports(f"{prefix}-symbol.json", ["data"], f"{prefix}-0000.params")
check(block(x), "SymbolBlock.imports")
block.hybridize(static_alloc=True, static_shape=True)
check(block(x), "hybridize")
mxtrt.release(symbol)

symbol = mx.sym.load(f"{prefix}-symbol.json")
arrays = mx.nd.load(f"{prefix}-0000.params") or {}
arrays = {name[4:]: array for name, array in arrays.items()}
read = {n: arrays[n] for n in symbol.list_auxiliary_states()}
executor = symbol.bind(mx.cpu(), {"data": x, **arrays}, aux_states=read, grad_req="null")
check(executor.forward()[0], "sym.load")
mxtrt.release(symbol)

mxtrt.load(prefix)  # then everything is as MXNet's C predict API has it: a text and bytes
with open(f"{prefix}-symbol.json") as file:
    symbol = mx.sym.load_json(file.read())
with open(f"{prefix}-0000.params", "rb") as file:
    arrays = mx.nd.load_frombuffer(file.read()) or {}
executor = symbol.simple_bind(mx.cpu(), data=x.shape, grad_req="null")
for name, array in arrays.items():
    kind, name = name.split(":")
    (executor.arg_dict if kind == "arg" else executor.aux_dict)[name][:] = array
executor.arg_dict["data"][:] = x
check(executor.forward()[0], "text and bytes")
"""


def test_every_way_to_load_in_another_process(
    prefix: str, tmp_path: Path, expected: np.ndarray
) -> None:
    np.savez(tmp_path / "want.npz", x=data(), y=expected)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in tmp_path.glob("net-*"):
        path.rename(moved / path.name)
    done = subprocess.run(
        [sys.executable, "-c", EVERY_WAY, str(moved / "net"), str(tmp_path / "want.npz")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "load_checkpoint", "Module.load", "SymbolBlock.imports", "hybridize", "sym.load",
        "text and bytes",
    ]  # fmt: skip


def test_a_symbol_file_of_another_name(prefix: str, expected: np.ndarray) -> None:
    """Its keys say which file of engines in its folder is its own."""
    folder = os.path.dirname(prefix)
    os.rename(f"{prefix}-symbol.json", f"{folder}/other.json")
    Path(folder, "a-engines.mxtrt").write_bytes(b"of no use")
    symbol = mx.sym.load(f"{folder}/other.json")
    close(outputs(symbol, _split(symbol, f"{prefix}-0000.params")), expected)


def _split(symbol: mx.sym.Symbol, path: str) -> Pair:
    arrays = {name[4:]: array for name, array in (mx.nd.load(path) or {}).items()}
    states = set(symbol.list_auxiliary_states())
    return (
        {name: array for name, array in arrays.items() if name not in states},
        {name: array for name, array in arrays.items() if name in states},
    )


def test_other_epochs(tmp_path: Path, expected: np.ndarray) -> None:
    mxtrt.save(tmp_path / "net", *mxtrt.optimize(*model(), exclude_nodes=["bn"]), epoch=17)
    assert (tmp_path / "net-0017.params").exists()
    close(outputs(*mxtrt.load(tmp_path / "net", epoch=17)), expected)
    with pytest.raises(errors.BadModel, match=r"net-0000.params: no such params file"):
        mxtrt.load(tmp_path / "net")


def test_numpy_symbols(tmp_path: Path) -> None:
    with mx.util.np_shape(True), mx.util.np_array(True):
        symbol = mx.sym.np.tanh(mx.sym.np.exp(mx.sym.var("data").as_np_ndarray()) + 1)
        mxtrt.save(tmp_path / "net", *mxtrt.optimize(symbol))
        block = mx.gluon.SymbolBlock.imports(str(tmp_path / "net-symbol.json"), ["data"])
        x = mx.np.array([0.0, 1.0, 2.0])
        close(block(x).asnumpy(), np.tanh(np.exp(x.asnumpy()) + 1))
        assert isinstance(mxtrt.load(tmp_path / "net")[0], type(symbol))


def test_a_model_in_which_nothing_moves(tmp_path: Path, expected: np.ndarray) -> None:
    symbol, params = mxtrt.optimize(*model(), min_subgraph_size=99)
    mxtrt.save(tmp_path / "net", symbol, params)
    close(outputs(*mxtrt.load(tmp_path / "net")), expected)


def test_two_models_in_one_symbol(tmp_path: Path) -> None:
    one, params = mxtrt.optimize(*model())
    x = mx.sym.var("softmax")
    two, _ = mxtrt.optimize(mx.sym.exp(mx.sym.sin(x)), None)
    both = two(softmax=one)
    mxtrt.save(tmp_path / "net", both, params)
    close(outputs(*mxtrt.load(tmp_path / "net")), np.exp(np.sin(outputs(*model()))))


# -- where the weights come from -----------------------------------------------------------------


@pytest.mark.parametrize("form", ["kept", "original", "prefixed", "path"])
def test_params_in_every_form(tmp_path: Path, expected: np.ndarray, form: str) -> None:
    symbol, (args, auxs) = model()
    optimized, kept = mxtrt.optimize(symbol, (args, auxs), exclude_nodes=["bn"])
    both = {**{f"arg:{n}": a for n, a in args.items()}, **{f"aux:{n}": a for n, a in auxs.items()}}
    mx.nd.save(str(tmp_path / "original.params"), both)
    params: Any = {
        "kept": kept, "original": (args, auxs), "prefixed": both,
        "path": str(tmp_path / "original.params"),
    }[form]  # fmt: skip
    mxtrt.save(tmp_path / "net", optimized, params)
    assert set(mx.nd.load(str(tmp_path / "net-0000.params"))) == {
        "arg:conv_weight", "arg:conv_bias", "arg:bn_gamma", "arg:bn_beta",
        "aux:bn_moving_mean", "aux:bn_moving_var",
    }  # fmt: skip
    close(outputs(*mxtrt.load(tmp_path / "net")), expected)


def test_missing_params(tmp_path: Path) -> None:
    optimized, (args, auxs) = mxtrt.optimize(*model(), exclude_nodes=["bn"])
    del args["bn_beta"]
    with pytest.raises(errors.BadParams, match=r"'bn_beta' is missing; pass what mxtrt.optimize"):
        mxtrt.save(tmp_path / "net", optimized, (args, auxs))
    assert not list(tmp_path.iterdir())


def test_no_weight_stays_in_memory_twice() -> None:
    symbol, params = model()
    weight = params[0]["fc_weight"]
    before = sys.getrefcount(weight)
    kept = mxtrt.optimize(symbol, params)
    assert sys.getrefcount(weight) == before
    assert kept[0].list_arguments() == ["data"]


def test_weights_come_from_their_file(tmp_path: Path, expected: np.ndarray) -> None:
    symbol, params = model()
    mx.model.save_checkpoint(str(tmp_path / "orig"), 0, symbol, *params)
    files = [str(tmp_path / name) for name in ("orig-symbol.json", "orig-0000.params")]
    optimized, kept = mxtrt.optimize(*files)
    mxtrt.save(tmp_path / "net", optimized, kept)
    close(outputs(*mxtrt.load(tmp_path / "net")), expected)
    mx.nd.save(files[1], {"arg:fc_bias": mx.nd.ones(5)})
    with pytest.raises(
        errors.BadParams, match=r"orig-0000.params has changed since mxtrt.optimize"
    ):
        mxtrt.save(tmp_path / "net", optimized, kept)
    os.unlink(files[1])
    with pytest.raises(errors.BadParams, match=r"their file cannot be read any more"):
        mxtrt.save(tmp_path / "net", optimized, kept)
    close(outputs(*mxtrt.load(tmp_path / "net")), expected)  # the files are as they were


def test_a_full_disk_is_told_when_it_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: np.ndarray
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weight_sources.tempfile, "TemporaryFile", full)
    symbol, params = mxtrt.optimize(*model())
    close(outputs(symbol, params), expected)
    with pytest.raises(errors.BadParams, match=r"temporary file .No space left on device"):
        mxtrt.save(tmp_path / "net", symbol, params)


def test_a_loaded_model_is_saved_again(prefix: str, tmp_path: Path, expected: np.ndarray) -> None:
    loaded = mxtrt.load(prefix)
    mxtrt.save(prefix, *loaded)  # in the place of the files that its weights are in
    forget(prefix)
    close(outputs(*mxtrt.load(prefix)), expected)
    mxtrt.save(tmp_path / "third", *loaded)
    close(outputs(*mxtrt.load(tmp_path / "third")), expected)


@pytest.mark.parametrize("change", ["truncate", "overwrite"])
def test_a_file_that_is_written_to_in_place(prefix: str, change: str) -> None:
    path = f"{prefix}-engines.mxtrt"
    loaded = mxtrt.load(prefix)
    with open(path, "r+b") as file:
        if change == "truncate":
            file.truncate(100)
        else:
            file.seek(engines_file.ALIGNMENT)
            file.write(b"????")
    with pytest.raises(errors.BadParams, match=r"cut off or changed"):
        mxtrt.save(prefix, *loaded)


def test_odd_arrays(tmp_path: Path) -> None:
    """Arrays without axes or elements, and 16 bits."""
    with mx.util.np_shape(True):
        arrays = {
            "a": mx.nd.array(np.float16(3).reshape(()), dtype="float16"),
            "b": mx.nd.zeros((0, 2), dtype="float16"),
        }
        keep = weight_sources.in_temporary_file()
        source, other = keep(arrays, {}), keep({"c": mx.nd.ones(3)}, {})
        found = source()
    np.testing.assert_array_equal(other()["c"], np.ones(3))
    assert found["a"].shape == () and found["a"].dtype == np.float16 and found["a"] == 3
    assert found["b"].shape == (0, 2)


# -- damage --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of engines with all kinds of pieces, in few bytes."""
    path = tmp_path_factory.mktemp("small") / "small-engines.mxtrt"
    with open(path, "wb") as file:
        writer = Writer(file)
        pieces = [writer.add(content) for content in (b"onnx", b"", np.arange(70, dtype="u1").data)]
        writer.finish({"mxtrt": "0", "models": [], "parts": [], "numbers": pieces})
    return path


def test_every_byte_is_under_a_checksum(small: Path, tmp_path: Path) -> None:
    content = small.read_bytes()
    assert EnginesFile(str(small)).about["numbers"] == [0, 1, 2]
    path = tmp_path / "changed"
    for index in range(len(content)):
        for flipped in (content[index] ^ 1, content[index] ^ 255):
            path.write_bytes(content[:index] + bytes([flipped]) + content[index + 1 :])
            with pytest.raises(errors.BadModel):
                EnginesFile(str(path))


def test_every_length_but_one_is_wrong(small: Path, tmp_path: Path) -> None:
    content = small.read_bytes()
    path = tmp_path / "cut"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(errors.BadModel):
            EnginesFile(str(path))
    path.write_bytes(content + b"\0")
    with pytest.raises(errors.BadModel, match=r"cut off or changed"):
        EnginesFile(str(path))


@pytest.mark.parametrize("place", [0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_damage_is_found_by_every_way_to_load(prefix: str, place: float) -> None:
    path = Path(f"{prefix}-engines.mxtrt")
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 16
    path.write_bytes(content)
    for load in (mxtrt.load, lambda name: mx.model.load_checkpoint(name, 0)):
        with pytest.raises(errors.BadModel, match=r"net-engines\.mxtrt: "):
            load(prefix)


def test_damaged_plans_are_found(tmp_path: Path) -> None:
    path = str(tmp_path / "a-engines.mxtrt")
    with open(path, "wb") as file:
        writer = Writer(file)
        number = writer.add(b"a plan")
        writer.finish({"parts": []})
    opened = EnginesFile(path)
    assert opened.bytes(number) == b"a plan"
    with open(path, "r+b") as file:
        file.seek(engines_file.ALIGNMENT)
        file.write(b"A")
    with pytest.raises(errors.BadModel, match=r"cut off or changed"):
        opened.bytes(number)


def test_another_format(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines_file, "BEGIN", engines_file.MAGIC + b"2\n")
    monkeypatch.setattr(engines_file, "FORMAT", 2)
    with pytest.raises(
        errors.BadModel, match=r"of format 1, and this version of mxtrt reads format 2"
    ):
        EnginesFile(str(small))


def test_another_version_of_the_same_format(
    prefix: str, monkeypatch: pytest.MonkeyPatch, expected: np.ndarray
) -> None:
    monkeypatch.setattr(saved, "__version__", "9.9.9")
    mxtrt.save(prefix, *mxtrt.load(prefix))
    forget(prefix)
    assert engines_file.read_header(f"{prefix}-engines.mxtrt")["mxtrt"] == "9.9.9"
    close(outputs(*mxtrt.load(prefix)), expected)


@pytest.mark.parametrize(
    ("ending", "sentence"),
    [
        ("-symbol.json", "net-symbol.json: no such file; mxtrt.save writes it"),
        ("-engines.mxtrt", "net-engines.mxtrt: no such file; mxtrt.save writes it"),
        ("-0000.params", "net-0000.params: no such params file"),
    ],
)
def test_missing_files(prefix: str, ending: str, sentence: str) -> None:
    os.unlink(prefix + ending)
    with pytest.raises(errors.BadModel, match=sentence):
        mxtrt.load(prefix)


def test_mxnet_says_which_file_is_missing(prefix: str) -> None:
    os.unlink(f"{prefix}-engines.mxtrt")
    for load in (
        lambda: mx.model.load_checkpoint(prefix, 0),
        lambda: mx.sym.load(f"{prefix}-symbol.json"),
        lambda: mx.mod.Module.load(prefix, 0),
        lambda: mx.gluon.SymbolBlock.imports(f"{prefix}-symbol.json", ["data"]),
    ):
        with pytest.raises(errors.BadModel, match=r"or in \S+net-engines.mxtrt, and that file is"):
            load()


def test_engines_of_another_model(prefix: str, tmp_path: Path) -> None:
    mxtrt.save(tmp_path / "other", *mxtrt.optimize(*model()))
    shutil.copy(tmp_path / "other-engines.mxtrt", f"{prefix}-engines.mxtrt")
    with pytest.raises(errors.BadModel, match=r"holds the engines of another model than"):
        mxtrt.load(prefix)


def test_no_file(tmp_path: Path) -> None:
    (tmp_path / "net-symbol.json").write_text("{}")
    (tmp_path / "net-engines.mxtrt").mkdir()
    with pytest.raises(errors.BadModel, match=r"Is a directory"):
        mxtrt.load(tmp_path / "net")
    (tmp_path / "net-engines.mxtrt").rmdir()
    os.mkfifo(tmp_path / "net-engines.mxtrt")
    with pytest.raises(errors.BadModel, match=r"not a file"):
        mxtrt.load(tmp_path / "net")


# -- keys ----------------------------------------------------------------------------------------


def test_loading_twice_builds_once(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = mxtrt.load(prefix)
    monkeypatch.setattr(saved, "_build", lambda *_: pytest.fail("built again"))
    two, _ = mxtrt.load(prefix)
    assert operator.engines(one) == operator.engines(two)
    assert mx.sym.load(f"{prefix}-symbol.json").tojson() == two.tojson()


def test_options_build_again(prefix: str, expected: np.ndarray) -> None:
    one, _ = mxtrt.load(prefix)
    before = operator.engines(one)
    two, params = mxtrt.load(prefix, session_options={"intra_op_num_threads": 1})
    after = operator.engines(two)
    assert not set(map(id, before)) & set(map(id, after))
    assert mxtrt.report(two).options.session_options == {"intra_op_num_threads": 1}
    close(outputs(two, params), expected)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"engin": "auto"}, "no option 'engin'; did you mean 'engine'"),
        ({"engine": "onnxruntim"}, "did you mean 'onnxruntime'"),
        ({"min_subgraph_size": 3}, "min_subgraph_size was settled when the model was optimised"),
    ],
)
def test_wrong_options(prefix: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(errors.BadOption, match=sentence):
        mxtrt.load(prefix, **options)


def test_release_and_load_again(prefix: str, expected: np.ndarray) -> None:
    symbol, params = mxtrt.load(prefix)
    mxtrt.release(symbol)
    with pytest.raises(errors.BadModel, match=r"was released; save what"):
        mxtrt.save(prefix, symbol, params)
    close(outputs(*mxtrt.load(prefix)), expected)


# -- writing -------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    symbol, params = mxtrt.optimize(*model())
    with pytest.raises(errors.BadOption, match=r"cannot be written: No such file or directory"):
        mxtrt.save(tmp_path / "nosuch" / "net", symbol, params)

    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(engines_file.tempfile, "mkstemp", read_only)
    with pytest.raises(errors.BadOption, match=r"net-engines.mxtrt: cannot be written: Read-only"):
        mxtrt.save(tmp_path / "net", symbol, params)


@pytest.mark.parametrize("method", ["add", "finish"])
def test_a_full_disk_leaves_the_old_files(
    prefix: str, monkeypatch: pytest.MonkeyPatch, expected: np.ndarray, method: str
) -> None:
    loaded = mxtrt.load(prefix)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Writer, method, full)
        with pytest.raises(errors.BadOption, match=r"No space left on device"):
            mxtrt.save(prefix, *loaded)
    assert len(os.listdir(os.path.dirname(prefix))) == 3
    forget(prefix)
    close(outputs(*mxtrt.load(prefix)), expected)


def test_pieces_larger_than_a_chunk(
    prefix: str, monkeypatch: pytest.MonkeyPatch, expected: np.ndarray
) -> None:
    """Weights of any size go piece by piece; no part of the file is one protobuf message."""
    loaded = mxtrt.load(prefix)
    monkeypatch.setattr(engines_file, "CHUNK", 7)
    mxtrt.save(prefix, *loaded)
    forget(prefix)
    close(outputs(*mxtrt.load(prefix)), expected)


@pytest.mark.parametrize("thing", [None, "net-symbol.json", mx.gluon.nn.Block()])
def test_only_models_are_saved(tmp_path: Path, thing: Any) -> None:
    with pytest.raises(errors.BadModel, match=r"pass what mxtrt.optimize returned"):
        mxtrt.save(tmp_path / "net", thing)


# -- Gluon ---------------------------------------------------------------------------------------


def block() -> mx.gluon.HybridBlock:
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Dense(8, activation="relu"), mx.gluon.nn.Dense(3))
    net.initialize(mx.init.Normal(1))
    return net


def imported(path: Path) -> mx.gluon.SymbolBlock:
    return mx.gluon.SymbolBlock.imports(
        str(path / "net-symbol.json"), ["data"], str(path / "net-0000.params")
    )


@pytest.mark.parametrize("way", ["optimize", "hybridize"])
def test_blocks(tmp_path: Path, way: str) -> None:
    net, x = block(), mx.nd.random.normal(shape=(2, 5))
    net(x)
    if way == "hybridize":
        net.hybridize(backend="mxtrt")
        optimized = net
    else:
        optimized = mxtrt.optimize(net, x)
    before = optimized(x).asnumpy()
    mxtrt.save(tmp_path / "net", optimized)
    close(imported(tmp_path)(x).asnumpy(), before)
    with pytest.raises(errors.BadOption, match=r"leave params out"):
        mxtrt.save(tmp_path / "net", optimized, {})
    for param in net.collect_params().values():
        param.set_data(param.data() * 2)
    mxtrt.save(tmp_path / "net", optimized)  # the weights of now
    after = imported(tmp_path)(x).asnumpy()
    close(after, optimized(x).asnumpy())
    assert not np.allclose(after, before)


def test_weights_of_a_block_that_is_gone() -> None:
    net = block()
    net(mx.nd.ones((2, 5)))
    params = {name: net.collect_params()[name] for name in list(net.collect_params())}
    source = weight_sources.in_block(params)({}, {f"onnx {name}": name for name in params})
    name = net[0].weight.name
    np.testing.assert_array_equal(source()[f"onnx {name}"], params[name].data().asnumpy())
    del net, params
    gc.collect()
    with pytest.raises(errors.BadParams, match=r"the block that held them is gone"):
        source()


# -- engines of other machines -------------------------------------------------------------------


class FakeTensorRT:
    """A builder that stands in for TensorRT's, and runs parts in ONNX Runtime."""

    kind = "tensorrt"

    def __init__(self) -> None:
        self.given: list[Any] = []

    def build(self, proto: Any, weights: Any, options: Any, plans: Any = ()) -> Any:
        from mxtrt.engines import onnxruntime

        self.given += plans
        assert not any(isinstance(array.base, memoryview) for array in weights.values())
        built = onnxruntime.build(proto, weights, options)
        built.kind = self.kind  # type: ignore[misc]
        built.plans = lambda: [SavedPlan({"gpu": "H"}, (((1, 2, 4), (3, 3, 3)),), b"PLAN")]  # type: ignore[attr-defined]
        return built


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    fake = FakeTensorRT()
    monkeypatch.setattr(saved, "builder", lambda options: fake)
    return fake


def test_plans_go_with_the_files(
    prefix: str, fake: FakeTensorRT, expected: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "mxtrt"):
        loaded = mxtrt.load(prefix)
    assert "tensorrt runs it here, and onnxruntime did when it was saved" in caplog.text
    assert "tensorrt builds mxtrt0 from its ONNX" in caplog.text
    assert fake.given == []
    mxtrt.save(prefix, *loaded)
    forget(prefix)
    mxtrt.load(prefix)
    assert fake.given == []  # plans are not saved unless they are asked for
    mxtrt.save(prefix, *loaded, plans=True)
    forget(prefix)
    close(outputs(*mxtrt.load(prefix)), expected)
    assert fake.given == [SavedPlan({"gpu": "H"}, (((1, 2, 4), (3, 3, 3)),), b"PLAN")]


def test_plans_of_other_machines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    facts = {"gpu": "A10", "version": "8.5"}
    monkeypatch.setattr(_saved_plans, "machine_facts", lambda api, gpu: facts)
    monkeypatch.setattr(_saved_plans._cuda, "gpu", lambda device: None)
    plans = [SavedPlan({**facts, "gpu": gpu}, (), b"") for gpu in ("T4", "A10")]
    assert list(_saved_plans.of_this_machine(None, 0, "mxtrt0", plans)) == plans[1:]  # type: ignore[arg-type]
    assert "mxtrt0 is built anew: its plan is of gpu T4" in caplog.text


@pytest.fixture
def on_gpu() -> None:
    from mxtrt.engines import builder
    from mxtrt.options import read_options

    try:
        builder(read_options(engine="tensorrt"))
    except errors.EngineNotAvailable as error:
        pytest.skip(str(error))


@pytest.mark.gpu
@pytest.mark.usefixtures("on_gpu")
def test_plans_on_this_gpu(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = {"shapes": {"data": SHAPE}, "engine": "tensorrt", "cache_dir": False, "strict": True}
    symbol, params = mxtrt.optimize(*model(), **options)
    expected = outputs(symbol, params)
    mxtrt.save(tmp_path / "net", symbol, params, plans=True)
    with caplog.at_level(logging.INFO, "mxtrt"):
        loaded, params = mxtrt.load(tmp_path / "net", cache_dir=False)
    assert "mxtrt0 runs the plan that was saved" in caplog.text
    np.testing.assert_array_equal(outputs(loaded, params), expected)
    [engine] = operator.engines(loaded)
    assert [origin.stored for _, origin in engine.origins] == [True]  # type: ignore[attr-defined]


def test_plans_that_anybody_may_have_written(
    prefix: str, fake: FakeTensorRT, caplog: pytest.LogCaptureFixture
) -> None:
    mxtrt.save(prefix, *mxtrt.load(prefix), plans=True)
    forget(prefix)
    os.chmod(f"{prefix}-engines.mxtrt", 0o666)
    mxtrt.load(prefix)
    assert fake.given == []
    assert "every user may write to it, so its plans are not run" in caplog.text


def test_saving_plans_where_there_are_none(prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    mxtrt.save(prefix, *mxtrt.load(prefix), plans=True)
    assert "mxtrt0 has no plan yet that could be saved" in caplog.text


@pytest.fixture
def without_tensorrt(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Let engine="tensorrt" fail as it does without a GPU; return what says what was asked for."""
    from mxtrt.engines import builder

    def find(options: Any) -> Any:
        if options.engine == "tensorrt":
            raise errors.EngineNotAvailable("there is no GPU")
        return builder(replace(options, engine="onnxruntime", precision="fp32"))

    def as_if_asked_for(symbol: mx.sym.Symbol, **options: Any) -> None:
        for key in operator._keys(symbol):
            report = operator._REPORTS[key]
            changed = replace(report, options=replace(report.options, **options), engine="tensorrt")
            operator._REPORTS[key] = replace(changed, graph=report.graph, plan=report.plan)

    monkeypatch.setattr(saved, "builder", find)
    return as_if_asked_for


def test_a_machine_without_a_gpu(
    prefix: str, without_tensorrt: Callable[..., Any], caplog: pytest.LogCaptureFixture,
    expected: np.ndarray,
) -> None:  # fmt: skip
    loaded = mxtrt.load(prefix)
    without_tensorrt(loaded[0], engine="tensorrt", precision="fp16")
    mxtrt.save(prefix, *loaded)
    forget(prefix)
    close(outputs(*mxtrt.load(prefix)), expected)
    assert "onnxruntime runs it, because there is no GPU" in caplog.text
    with pytest.raises(errors.EngineNotAvailable, match=r"there is no GPU"):
        mxtrt.load(prefix, strict=True)
    chosen = mxtrt.load(prefix, engine="onnxruntime")
    assert mxtrt.report(chosen[0]).options.precision == "fp32"
    close(outputs(*chosen), expected)


def test_a_part_that_nothing_here_runs(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mxtrt.engines import onnxruntime

    def broken(*_: object) -> None:
        raise errors.EngineError("no kernel for X")

    monkeypatch.setattr(onnxruntime, "build", broken)
    with pytest.raises(errors.EngineNotAvailable, match=r"cannot run mxtrt0 here .no kernel for X"):
        mxtrt.load(prefix)
    keys = saved._keys(json.loads(Path(f"{prefix}-symbol.json").read_text())["nodes"])
    assert not any(operator.registered(key) for key in keys)


# -- many at once --------------------------------------------------------------------------------


@pytest.mark.slow
def test_eight_processes_load_at_once(prefix: str, tmp_path: Path, expected: np.ndarray) -> None:
    np.savez(tmp_path / "want.npz", x=data(), y=expected)
    command = [sys.executable, "-c", EVERY_WAY, prefix, str(tmp_path / "want.npz")]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    for process in running:
        _, told = process.communicate(timeout=300)
        assert process.returncode == 0, told
