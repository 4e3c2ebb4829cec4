"""The command line, run as a person runs it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import mxnet as mx
import numpy as np
import pytest
from click.testing import CliRunner, Result

import mxtrt
from mxtrt import array_files, cli, trials
from mxtrt.cli import arguments
from mxtrt.options import ENGINES

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a checkpoint and inputs for it."""
    path = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(0)
    out = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=6, name="fc1")
    out = mx.sym.Activation(out, act_type="relu", name="relu1")
    out = mx.sym.FullyConnected(out, num_hidden=3, name="fc2")
    out = mx.sym.SoftmaxOutput(out, name="softmax")
    shapes, _, _ = out.infer_shape(data=(1, 8))
    params = {
        name: mx.nd.array(rng.standard_normal(shape))
        for name, shape in zip(out.list_arguments(), shapes)
        if name not in {"data", "softmax_label"}
    }
    mx.model.save_checkpoint(str(path / "net"), 0, out, params, {})
    np.save(path / "x.npy", rng.standard_normal((10, 8)))  # float64, as NumPy makes them
    np.savez(path / "all.npz", data=rng.standard_normal((10, 8)).astype("float32"))
    np.save(path / "narrow.npy", np.zeros((10, 7), "float32"))
    np.save(path / "none.npy", np.zeros((0, 8), "float32"))
    np.save(path / "complex.npy", np.zeros((10, 8), "complex64"))
    np.save(path / "objects.npy", np.array([None]), allow_pickle=True)
    (path / "text.npy").write_text("no array")
    (path / "empty.npz").write_bytes(b"")
    return path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a command in the folder and checks its exit code."""
    monkeypatch.chdir(folder)

    def invoke(*words: str, code: int = 0) -> Result:
        result = CliRunner().invoke(cli.main, list(words), catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    return invoke


NET = ("net-symbol.json", "net-0000.params")

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed"
)


def expected(folder: Path, data: np.ndarray) -> np.ndarray:
    symbol, args, _ = mx.model.load_checkpoint(str(folder / "net"), 0)
    executor = symbol.simple_bind(mx.cpu(), grad_req="null", data=data.shape)
    executor.copy_params_from(args)
    return executor.forward(data=mx.nd.array(data))[0].asnumpy()


# -- explain -----------------------------------------------------------------------------------


def test_explain_prints_the_report(run: Run) -> None:
    result = run("explain", *NET)
    assert result.stdout == f"{mxtrt.explain(*NET)}\n"
    assert result.stderr == ""


def test_explain_without_params(run: Run) -> None:
    assert "fc1_weight" in run("explain", NET[0]).stdout


def test_explain_takes_every_option(run: Run) -> None:
    result = run(
        *("explain", *NET, "--json"),
        *("--shape", "data=1..8..32,8", "--dtype", "data=float32"),
        *("--engine", "onnxruntime", "--min-subgraph-size", "1", "--strict"),
        *("--exclude-op", "Activation", "--exclude-node", "fc2", "--allow-extra-params"),
    )
    report = json.loads(result.stdout)
    given = {
        "shapes": {"data": [[1, 8, 32], 8]},
        "dtypes": {"data": "float32"},
        "engine": "onnxruntime",
        "min_subgraph_size": 1,
        "exclude_ops": ["Activation"],
        "exclude_nodes": ["fc2"],
        "strict": True,
        "allow_extra_params": True,
        "session_options": {},
    }
    assert given.items() <= report["options"].items()
    assert report["left"] == 2


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("1,3,224,224", (1, 3, 224, 224)),
        ("?,3", (None, 3)),
        ("1..32,3", ((1, 32, 32), 3)),
        ("1..8..32,3", ((1, 8, 32), 3)),
        ("7", (7,)),
    ],
)
def test_sizes(text: str, sizes: tuple[object, ...]) -> None:
    assert arguments.name_and_sizes(f"a=b={text}") == ("a=b", sizes)


def test_explain_writes_pictures(run: Run, tmp_path: Path) -> None:
    run("explain", *NET, "--dot", str(tmp_path / "net.dot"))
    assert (tmp_path / "net.dot").read_text() == mxtrt.explain(*NET).to_dot()
    result = run("explain", *NET, "--picture", str(tmp_path / "net.gif"), code=1)
    assert "ends in .svg, .png or .pdf" in result.stderr


def test_the_engines_in_the_help(run: Run) -> None:
    words = run("explain", "--help").stdout.replace(",", " ").replace(".", " ").split()
    assert set(ENGINES) <= set(words)


# -- optimize ----------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "SECONDS", 0.01)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "feed",
    [("--shape", "data=?,8"), ("--shape", "data=1..4..8,8"), ("--input", "data=x.npy")],
)
def test_optimize_compares(run: Run, feed: tuple[str, ...]) -> None:
    out = run("optimize", *NET, *feed).stdout
    assert out.startswith("All 4 operators move into 1 part, run by onnxruntime.\n")
    difference = re.search(r"^softmax_output: differs by at most (\S+) \(values up to", out, re.M)
    assert difference is not None
    assert float(difference[1]) < 1e-5
    assert re.search(r"^MXNet +[\d.]+ ms +\(medians of \d+ passes, in turns\)$", out, re.M)
    assert re.search(r"^mxtrt +[\d.]+ ms +[\d.]+ times as (fast|slow)$", out, re.M)


@pytest.mark.usefixtures("quick")
def test_optimize_where_nothing_moves(run: Run) -> None:
    out = run("optimize", *NET, "--shape", "data=2,8", "--min-subgraph-size", "9").stdout
    assert out.startswith("All 4 operators stay in MXNet.\n")
    assert "softmax_output: differs by at most 0 " in out


def test_optimize_needs_sizes(run: Run) -> None:
    result = run("optimize", *NET, code=1)
    assert result.stdout == ""
    assert "'data" not in result.stderr
    assert "data (…) float32" in result.stderr
    assert "--shape data=1,3,224,224" in result.stderr


def test_speed_up_in_words() -> None:
    assert trials.speed_up(3.0, 2.0) == "1.50 times as fast"
    assert trials.speed_up(2.0, 3.0) == "1.50 times as slow"


def test_largest_difference() -> None:
    inf, nan = np.inf, np.nan
    assert trials.largest_difference(np.array([inf, nan, 1]), np.array([inf, nan, 1.5])) == 0.5
    assert np.isnan(trials.largest_difference(np.array([nan, 1]), np.array([0, 1])))
    assert trials.largest_difference(np.zeros((0, 3)), np.zeros((0, 3))) == 0
    # unsigned numbers must not wrap around
    assert trials.largest_difference(np.array([1], "uint8"), np.array([2], "uint8")) == 1


# -- run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), ("--batch", "4"), ("--batch", "10"), ("--batch", "99")])
def test_run_writes_outputs(run: Run, folder: Path, tmp_path: Path, batch: tuple[str, ...]) -> None:
    out = str(tmp_path / "out.npz")
    result = run("run", *NET, "--input", "data=x.npy", *batch, "-o", out)
    lines = result.stdout.splitlines()
    assert lines[0] == "All 4 operators move into 1 part, run by onnxruntime."
    assert lines[1] == "softmax_output  (10, 3)  float32"
    many = batch == ("--batch", "4")
    assert re.fullmatch(r"[\d.]+ s in 3 batches, .* \(median\)" if many else "[\\d.]+ ms", lines[2])
    with np.load(out) as written:
        assert list(written) == ["softmax_output"]
        want = expected(folder, np.load(folder / "x.npy"))
        np.testing.assert_allclose(written["softmax_output"], want, rtol=1e-4, atol=1e-6)


def test_run_reads_an_archive(run: Run) -> None:
    assert "softmax_output  (10, 3)" in run("run", *NET, "--input", "all.npz").stdout
    assert "softmax_output  (10, 3)" in run("run", *NET, "--input", "data=all.npz").stdout


def test_run_feeds_zeros_to_labels_that_stay(run: Run) -> None:
    result = run("run", *NET, "--input", "all.npz", "--exclude-op", "SoftmaxOutput")
    assert "softmax_output  (10, 3)" in result.stdout


def test_run_keeps_outputs_of_the_same_name_apart(run: Run, tmp_path: Path) -> None:
    symbol = mx.sym.load(NET[0])
    mx.sym.Group([symbol, symbol, mx.sym.var("file")]).save(str(tmp_path / "twice.json"))
    arrays = {"data": np.zeros((2, 8)), "file": np.ones(3)}
    array_files.write_arrays(str(tmp_path / "in.npz"), arrays)
    out = tmp_path / "out.npz"
    run(
        *("run", str(tmp_path / "twice.json"), NET[1], "-o", str(out)),
        *("--input", str(tmp_path / "in.npz")),
    )
    with np.load(out) as written:
        assert list(written) == ["softmax_output", "softmax_output#2", "file"]


@pytest.mark.parametrize("words", [NET, ("net",)])
def test_run_needs_no_name_for_the_only_input(run: Run, words: tuple[str, ...]) -> None:
    lines = run("run", *words, "--input", "x.npy", "--batch", "4").stdout.splitlines()
    assert lines[1] == "softmax_output  (10, 3)  float32"
    assert re.fullmatch(r"[\d,]+ rows a second, [\d,]+ with reading and feeding", lines[3])


# -- saved models ------------------------------------------------------------------------------


def test_optimize_saves(run: Run, folder: Path, tmp_path: Path) -> None:
    prefix, out = str(tmp_path / "out"), str(tmp_path / "scores.npz")
    lines = run("optimize", *NET, "--shape", "data=1..8,8", "-o", prefix).stdout.splitlines()
    assert lines[0] == "All 4 operators move into 1 part, run by onnxruntime."
    endings = ("-symbol.json", "-0000.params", "-engines.mxtrt")
    assert [line.split()[0] for line in lines[-3:]] == [prefix + ending for ending in endings]
    for path in tmp_path.iterdir():  # they may be moved
        path.rename(tmp_path / path.name.replace("out", "moved"))
    told = run("run", str(tmp_path / "moved"), "--input", "x.npy", "--batch", "4", "-o", out).stdout
    assert told.startswith("All 4 operators move into 1 part, run by onnxruntime.\n")
    with np.load(out) as written:
        want = expected(folder, np.load(folder / "x.npy"))
        np.testing.assert_allclose(written["softmax_output"], want, rtol=1e-4, atol=1e-6)
    symbol, args, _ = mx.model.load_checkpoint(str(tmp_path / "moved"), 0)
    assert symbol.list_arguments() == ["data"]
    assert args == {}


def test_saved_models_of_a_fixed_size_take_the_last_rows(run: Run, tmp_path: Path) -> None:
    prefix, out = str(tmp_path / "out"), str(tmp_path / "scores.npz")
    run("optimize", *NET, "--shape", "data=4,8", "-o", prefix)
    assert "(10, 3)" in run("run", prefix, "--input", "x.npy", "--batch", "4", "-o", out).stdout
    result = run("run", prefix, "--input", "x.npy", "--batch", "5", code=1)
    assert "'data' is (5, 8), and the model reads (4, 8)" in result.stderr
    with np.load(out) as written:
        assert np.isfinite(written["softmax_output"]).all()


def test_optimize_where_nothing_moves_saves_as_well(run: Run, tmp_path: Path) -> None:
    prefix = str(tmp_path / "out")
    run("optimize", *NET, "--min-subgraph-size", "9", "-o", prefix)
    assert "(10, 3)" in run("run", prefix, "--input", "x.npy").stdout


def test_options_of_saved_models(run: Run, tmp_path: Path) -> None:
    prefix = str(tmp_path / "out")
    run("optimize", *NET, "-o", prefix)
    run("run", prefix, "--input", "x.npy", "--engine", "onnxruntime", "--strict")
    result = run("run", prefix, "--input", "x.npy", "--exclude-node", "fc2", code=1)
    assert "exclude_nodes was settled when the model was optimised" in result.stderr
    (tmp_path / "out-engines.mxtrt").write_bytes(b"mxtrt engines 1\n and no more")
    result = run("run", prefix, "--input", "x.npy", code=1)
    assert "out-engines.mxtrt: cut off or changed since mxtrt wrote it" in result.stderr


# -- images ------------------------------------------------------------------------------------


def png(pixels: np.ndarray) -> bytes:
    """Return an image of shape (height, width, 3) as a PNG file."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*pair) for pair in chunks)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """Return a folder with images in all forms, a saved model that shows them, and the pixels."""
    path = tmp_path_factory.mktemp("images")
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 8, 3), dtype="uint8")
    (path / "images").mkdir()
    (path / "nothing").mkdir()
    records = mx.recordio.MXIndexedRecordIO(str(path / "all.idx"), str(path / "all.rec"), "w")
    bare = mx.recordio.MXRecordIO(str(path / "bare.rec"), "w")
    for number, image in enumerate(images):
        encoded = png(image)
        (path / "images" / f"{number}.png").write_bytes(encoded)
        packed = mx.recordio.pack(mx.recordio.IRHeader(0, 7.0, number, 0), encoded)
        records.write_idx(number, packed)
        bare.write(packed)
    (path / "images" / "notes.txt").write_text("no image")
    records.close()
    bare.close()
    (path / "cut.rec").write_bytes((path / "all.rec").read_bytes()[:200])
    (path / "text.rec").write_text("no records")
    (path / "empty.rec").write_bytes(b"")
    (path / "text.png").write_text("no image")
    (path / "large.png").write_bytes(png(np.full((12, 20, 3), 100, "uint8")))
    for name, shape in {"any": None, "fixed": (2, 3, 6, 8), "grey": (1, 1, 6, 8)}.items():
        data = mx.sym.var("data")
        symbol, params = mxtrt.optimize(
            mx.sym.negative(mx.sym.negative(data), name="same"),
            shapes={"data": shape or (None, 3, None, None)},
        )
        mxtrt.save(path / name, symbol, params)
    return path, images.transpose(0, 3, 1, 2).astype("float32")


@pytest.mark.parametrize("source", ["images", "all.rec", "bare.rec", "data=images/"])
@pytest.mark.parametrize("prefix", ["any", "fixed"])
def test_run_reads_images(
    run: Run, pixels: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch, source: str,
    prefix: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(pixels[0])
    lines = run("run", prefix, "--input", source, "-o", "out.npz").stdout.splitlines()
    assert lines[1] == "same_output  (5, 3, 6, 8)  float32"
    batches = r"[\d.]+ s in 3 batches, .*" if prefix == "fixed" else r"[\d.]+ ms"
    assert re.fullmatch(batches, lines[2])
    with np.load("out.npz") as written:
        np.testing.assert_array_equal(written["same_output"], pixels[1])
        kind = "all.rec#3" if source == "all.rec" else "bare.rec#3"
        assert written["files"][3] == ("images/3.png" if "images" in source else kind)


def test_how_images_are_prepared(
    run: Run, pixels: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pixels[0])

    def found(*words: str) -> np.ndarray:
        run("run", *words, "-o", "out.npz")
        with np.load("out.npz") as written:
            return written["same_output"]

    mean, std = np.array([10, 20, 30])[:, None, None], np.array([2, 4, 5])[:, None, None]
    numbers = ("--mean", "10,20,30", "--std", "2,4,5")
    np.testing.assert_allclose(
        found("any", "--input", "images", *numbers), (pixels[1] - mean) / std, rtol=1e-6
    )
    one = ("any", "--input", "images/1.png")
    np.testing.assert_array_equal(found(*one, "--bgr"), pixels[1][1:2, ::-1])
    np.testing.assert_array_equal(found(*one, "--size", "6,4"), pixels[1][1:2, :, :, 2:6])
    large = found("fixed", "--input", "large.png")
    np.testing.assert_array_equal(large, np.full((1, 3, 6, 8), 100))
    many = found("any", "--input", "images/1.png", "--input", "images/0.png")
    np.testing.assert_array_equal(many, pixels[1][[1, 0]])
    grey = pixels[1][:, :3].transpose(0, 2, 3, 1) @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(found("grey", "--input", "images")[:, 0], grey, atol=1)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("any", "--input", "nothing"), "nothing: no images in this folder (.bmp"),
        (("any", "--input", "nosuch.png"), "nosuch.png: No such file or directory"),
        (("any", "--input", "text.png"), "text.png: not an image, or a damaged one"),
        (("any", "--input", "text.rec"), "text.rec: not a RecordIO file, or a damaged one"),
        (("any", "--input", "cut.rec"), "cut.rec: not a RecordIO file, or a damaged one"),
        (("any", "--input", "empty.rec"), "empty.rec: no images in it"),
        (("any", "--input", "images", "--input", "large.png"), "is 12x20 pixels; pass --size"),
        (("any", "--input", "images", "--mean", "1,2"), "--mean: 2 numbers for 3 channels"),
        (("any", "--input", "images", "--std", "0"), "--std: 0 cannot be divided by"),
        (("any", "--input", "dat=images"), "the model reads data; images go to one of them"),
        (("any", "--input", "images", "--input", "data=x.npy"), "together with arrays"),
    ],
)
def test_images_that_cannot_be_read(
    run: Run, pixels: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...], sentence: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(pixels[0])
    np.save("x.npy", np.zeros((1, 3, 6, 8)))
    result = run("run", *words, code=1)
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_models_that_read_no_images(run: Run, pixels: tuple[Path, np.ndarray]) -> None:
    words = ("--shape", "data=?,8", "--input", str(pixels[0] / "images"))
    assert "images are (N, C, H, W)" in run("run", *NET, *words, code=1).stderr


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_after_a_while(
    run: Run, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr("mxtrt.cli.terminal.PATIENCE", 0.01)
    forward = trials.Bound.__call__

    def slow(bound: trials.Bound) -> list[np.ndarray]:
        time.sleep(0.05)
        return forward(bound)

    monkeypatch.setattr(trials.Bound, "__call__", slow)
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stderr for a terminal
    result = run("run", *NET, "--input", "data=x.npy", "--batch", "2")
    assert ("running" in result.stderr) == terminal
    assert "running" not in result.stdout
    assert terminal or result.stderr == ""


# -- build, infer, inspect ---------------------------------------------------------------------


@needs_rtx
def test_build_and_inspect(run: Run, tmp_path: Path) -> None:
    plan = str(tmp_path / "net.plan")
    options = ("--shape", "data=1..4..8,8", "--target", "sm86,sm89", "--precision", "fp16")
    more = ("--no-tf32", "--workspace", "512M", "--optimization-level", "2")
    result = run("build", *NET, "-o", plan, *options, *more)
    assert re.match(r"TensorRT-RTX \S+, fp16, [\d.]+ MiB\n", result.stdout)
    assert "for compute capability 8.6, 8.9\n" in result.stdout
    assert "input    data (1..4..8, 8) float32\n" in result.stdout
    shown = run("inspect", plan).stdout
    assert shown.startswith("a TensorRT plan\n")
    assert re.search(r"^ +checksum +right$", shown, re.M)
    assert json.loads(run("inspect", plan, "--json").stdout)["precision"] == "fp16"


def test_inspect_a_checkpoint(run: Run) -> None:
    assert re.search(r"^FullyConnected +2$", run("inspect", *NET).stdout, re.M)
    assert json.loads(run("inspect", NET[1], "--json").stdout)["parameters"] == "4, 0.00 MiB"


class FakePlan:
    """A plan that doubles its input, of at most 4 rows."""

    inputs = (SimpleNamespace(name="data", dtype="float32"),)
    outputs = ("twice",)

    def __call__(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert feeds["data"].dtype == np.float32
        assert len(feeds["data"]) <= 4
        return {"twice": 2 * feeds["data"]}


@pytest.mark.parametrize("given", ["x.npy", "data=x.npy", "all.npz"])
def test_infer(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setattr("mxtrt.runtime.load", lambda path, **options: FakePlan())
    out = str(tmp_path / "out.npz")
    lines = run(
        "infer", "net.plan", "--input", given, "--batch", "4", "-o", out
    ).stdout.splitlines()
    assert lines[0] == "twice  (10, 8)  float32"
    assert re.fullmatch(r"[\d.]+ s in 3 batches, .* \(median\)", lines[1])
    with np.load(given.rpartition("=")[2]) if "npz" in given else open(os.devnull) as archive:
        x = archive["data"] if "npz" in given else np.load("x.npy").astype("float32")
    with np.load(out) as written:
        np.testing.assert_array_equal(written["twice"], 2 * x)


def test_infer_wrong_names(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mxtrt.runtime.load", lambda path, **options: FakePlan())
    result = run("infer", "net.plan", "--input", "dta=x.npy", code=1)
    assert "the plan has no input 'dta'; did you mean 'data'?" in result.stderr
    result = run("infer", "net.plan", "--input", "complex.npy", code=1)
    assert "'data' is complex64, and the model reads float32" in result.stderr


# -- what can go wrong -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("explain", "nosuch.json"), "nosuch.json: no such symbol file"),
        (("build", *NET, "-o", "a.plan", "--engine", "onnxruntime"), "has no plans"),
        (("build", *NET, "-o", "a.plan", "--precision", "fp61"), "did you mean 'fp16'?"),
        (("infer", "nosuch.plan", "--input", "x.npy"), "nosuch.plan: No such file"),
        (("inspect", "nosuch"), "nosuch: No such file"),
        (("inspect", "text.npy"), "text.npy: not an ONNX file"),
        (("explain", NET[1]), "net-0000.params: not a symbol file"),
        (("explain", NET[0], "nosuch.params"), "nosuch.params: no such params file"),
        (("explain", *NET, "--shape", "dta=1,8"), "no input 'dta'; did you mean 'data'?"),
        (("explain", *NET, "--shape", "data=8..1,8"), "is not in ascending order"),
        (("explain", *NET, "--dtype", "data=flaot32"), "'flaot32' of 'data' is not a dtype"),
        (("explain", *NET, "--engine", "onnxruntim"), "did you mean 'onnxruntime'?"),
        (("explain", *NET, "--exclude-op", "Activaton"), "did you mean 'Activation'?"),
        (("explain", *NET, "--exclude-node", "fc3"), "did you mean 'fc2'?"),
        (("run", *NET), "the model reads data (…) float32; pass --input data=FILE.npy"),
        (("run", *NET, "--input", "dat=x.npy"), "no input 'dat'; did you mean 'data'?"),
        (("run", *NET, "--input", "data=nosuch.npy"), "nosuch.npy: No such file or directory"),
        (("run", *NET, "--input", "data=text.npy"), "text.npy: not an .npy or .npz file"),
        (("run", *NET, "--input", "data=objects.npy"), "objects.npy: not an .npy or .npz file"),
        (("run", *NET, "--input", "empty.npz"), "empty.npz: not an .npy or .npz file"),
        (("run", *NET, "--input", "date=all.npz"), "no array 'date'; did you mean 'data'?"),
        (("run", *NET, "--input", "all.npz", "--input", "data=x.npy"), "'data' is given twice"),
        (("run", *NET, "--input", "data=narrow.npy"), "Shape inconsistent"),
        (("run", *NET, "--input", "data=complex.npy"), "is complex64, and the model reads float32"),
        (
            ("run", *NET, "--shape", "data=1,8", "--input", "data=x.npy"),
            "'data' is (10, 8), and the model reads (1, 8)",
        ),
        (("run", *NET, "--input", "data=none.npy", "--batch", "2"), "data has 0"),
        (("run", "nosuch", "--input", "x.npy"), "nosuch: no such symbol file, and nosuch-engines"),
        (("run", *NET, "--input", "all.npz", "--input", "x.npy"), "'data' is given twice"),
        (("run", *NET, "--batch", "2"), "--batch needs inputs with the same number of rows"),
    ],
)
def test_user_errors_are_one_sentence(run: Run, words: tuple[str, ...], sentence: str) -> None:
    result = run(*words, code=1)
    assert sentence in result.stderr
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("explian",), "No such command 'explian'"),
        (("explain",), "Missing argument 'SYMBOL'"),
        (("explain", *NET, "--shape", "data=1,x"), "must look like data=1,3,224,224"),
        (("explain", *NET, "--shape", "data"), "must look like data=1,3,224,224"),
        (("explain", *NET, "--shape", "data=1..2..3..4"), "must look like data=1,3,224,224"),
        (("explain", *NET, "--dtype", "float16"), "must look like data=float16"),
        (("explain", *NET, "--dot", "nosuch/net.dot"), "'nosuch' is no folder"),
        (("explain", *NET, "--min-subgraph-size", "0"), "0 is not in the range x>=1"),
        (("run", *NET, "--input", "data="), "must look like x.npy, data=x.npy, x.npz or images/"),
        (("run", "out", "--input", "x.npy", "--size", "224"), "must look like 224,224"),
        (("run", "out", "--input", "x.npy", "--mean", "1,x"), "must look like 123.7,116.3,103.5"),
        (("optimize", *NET, "--input", "x.npy"), "must look like data=x.npy or x.npz"),
        (("optimize", *NET, "-o", "nosuch/out"), "'nosuch' is no folder that can be written to"),
        (("optimize", *NET, "-o", "./"), "pass the beginning of file names"),
        (("optimize", *NET, "-o", "out", "--input", "data=x.npy"), "-o saves without one"),
        (("optimize", *NET, "--plans"), "--plans needs -o"),
        (("run", *NET, "--batch", "0"), "0 is not in the range x>=1"),
        (("build", NET[0]), "Missing option '-o'"),
        (("build", NET[0], "-o", "a", "--workspace", "1T"), "must look like 1073741824, 512M"),
        (("infer", "net.plan", "--input", "data="), "must look like x.npy"),
    ],
)
def test_usage_errors(run: Run, words: tuple[str, ...], sentence: str) -> None:
    assert sentence in run(*words, code=2).stderr


def test_outputs_that_cannot_be_joined(run: Run, tmp_path: Path) -> None:
    symbol = mx.sym.sum(mx.sym.load(NET[0]), name="total")
    symbol.save(str(tmp_path / "total.json"))
    words = ("run", str(tmp_path / "total.json"), NET[1], "--input", "data=x.npy", "--batch", "4")
    assert "run without --batch" in run(*words, code=1).stderr


def test_own_bugs_keep_their_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("mxtrt.pipeline.explain", broken)
    with pytest.raises(ZeroDivisionError):
        run("explain", *NET)


def test_warnings_are_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from mxtrt import pipeline

    explain = pipeline.explain

    def warn(*words: object, **options: object) -> mxtrt.Report:
        warnings.warn("a part stays", stacklevel=1)
        return explain(*words, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "explain", warn)
    assert run("explain", *NET).stderr == "Warning: a part stays\n"


# -- the program -------------------------------------------------------------------------------


def program(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mxtrt", *words],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_version() -> None:
    assert program("--version").stdout == f"mxtrt {mxtrt.__version__}\n"


@pytest.mark.parametrize(
    "command",
    [(), *((name,) for name in sorted(cli.main.commands))],
    ids=lambda words: " ".join(words),
)
def test_help_has_examples(run: Run, command: tuple[str, ...]) -> None:
    lines = run(*command, "--help").stdout.splitlines()
    assert "  Examples:" in lines
    assert sum(line.startswith("    mxtrt ") for line in lines) >= 2


def test_program_says_errors_without_a_traceback(folder: Path) -> None:
    done = program("explain", "nosuch.json")
    assert done.returncode == 1
    assert done.stderr == "Error: nosuch.json: no such symbol file\n"
    done = program("explain", str(folder / NET[0]), str(folder / NET[1]))
    assert done.returncode == 0
    assert done.stderr == ""
