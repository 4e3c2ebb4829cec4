"""``mxtrt bench``: columns side by side, layers under MXNet's names, and why it is slow."""

from __future__ import annotations

import json
import math
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from click.testing import CliRunner, Result

from mxtrt import bars, bench, cli, timing
from mxtrt.engines import _profiling
from mxtrt.errors import BadOption, ShapeNeeded
from mxtrt.layers import LayerTime, with_nodes
from mxtrt.options import read_options
from mxtrt.partition import partition
from mxtrt.slow import Timing, why_slow
from mxtrt.symbol import read_symbol

NET = ("net-symbol.json", "net-0000.params")

Run = Callable[..., Result]


def convnet() -> tuple[mx.sym.Symbol, dict[str, mx.nd.NDArray], dict[str, mx.nd.NDArray]]:
    x = mx.sym.var("data")
    for index in range(2):
        x = mx.sym.Convolution(
            x, kernel=(3, 3), num_filter=16, pad=(1, 1), no_bias=True, name=f"conv{index}"
        )
        x = mx.sym.BatchNorm(x, fix_gamma=False, name=f"bn{index}")
        x = mx.sym.Activation(x, act_type="relu", name=f"relu{index}")
    x = mx.sym.Pooling(x, global_pool=True, pool_type="avg", kernel=(1, 1), name="pool")
    x = mx.sym.FullyConnected(x, num_hidden=5, name="fc")
    net = mx.sym.SoftmaxOutput(x, name="softmax")
    shapes, _, aux_shapes = net.infer_shape(data=(1, 3, 16, 16))
    rng = np.random.default_rng(0)
    args = {
        name: mx.nd.array(rng.normal(0, 0.3, shape))
        for name, shape in zip(net.list_arguments(), shapes)
        if name not in {"data", "softmax_label"}
    }
    aux = {
        name: mx.nd.array(rng.uniform(0.5, 1.5, shape))
        for name, shape in zip(net.list_auxiliary_states(), aux_shapes)
    }
    return net, args, aux


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench")
    mx.model.save_checkpoint(str(path / "net"), 0, *convnet())
    return path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(timing, "PAUSE", 0.0)

    def invoke(*words: str, code: int = 0) -> Result:
        engine = () if "--engine" in words else ("--engine", "onnxruntime")
        words = ("bench", *NET, *engine, "--seconds", "0.01", *words)
        result = CliRunner().invoke(cli.main, words, catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    return invoke


class Own(mx.operator.CustomOp):
    def forward(self, is_train, req, in_data, out_data, aux):
        self.assign(out_data[0], req[0], in_data[0] + 1)


@mx.operator.register("bench_own")
class OwnProp(mx.operator.CustomOpProp):
    def create_operator(self, ctx, shapes, dtypes):
        return Own()


SHAPE = ("--shape", "data=1,3,16,16")


# -- results -----------------------------------------------------------------------------------


def test_columns_side_by_side(run: Run, tmp_path: Path) -> None:
    file, picture = tmp_path / "bench.json", tmp_path / "bench.svg"
    result = run(*SHAPE, "--batch", "1,3", "--json", str(file), "--picture", str(picture))
    lines = [line.split("|")[1:-1] for line in result.stdout.splitlines() if line[0] == "|"]
    table = [[cell.strip() for cell in line] for line in lines]
    assert [row[:3] for row in table[2:]] == [
        [batch, "fp32", name] for batch in "13" for name in ("MXNet", "mxtrt", "ONNX Runtime")
    ]
    told = json.loads(file.read_text())
    assert told["engine"] == "onnxruntime"
    assert told["machine"]["cores"] >= 1
    for row, batch in zip(told["rows"], (1, 3)):
        assert (row["batch"], row["parts"], row["left"], row["notes"]) == (batch, 1, 0, [])
        for name, column in row["columns"].items():
            assert 0 < column["milliseconds"] <= column["p99"]
            assert math.isclose(column["per_second"], batch / column["milliseconds"] * 1e3)
            assert column["calls"] >= 10
            if name == "MXNet":
                assert column["difference"] is None
            else:
                assert column["difference"] < 1e-5
                assert column["build_seconds"] > 0
                assert column["memory_mib"] >= 0
    root = ElementTree.fromstring(picture.read_text())
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert texts.count("mxtrt") == texts.count("MXNet") == texts.count("ONNX Runtime") == 2
    assert "batch 3, fp32" in texts


def test_the_batch_may_stand_in_the_shape(run: Run) -> None:
    rows = [line for line in run("--shape", "data=4,3,16,16").stdout.splitlines() if "fp32" in line]
    assert all(row.startswith("| 4 ") for row in rows)
    rows = run("--shape", "data=1..2..8,3,16,16", "--batch", "8").stdout.splitlines()[2:]
    assert all(row.startswith("| 8 ") for row in rows)


def test_low_precision_without_tensorrt(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = "fp16 is left out: ONNX Runtime on the CPU computes in the types of the model"
    result = run(*SHAPE, "--precision", "fp32,fp16")
    assert result.stdout.splitlines()[-1] == sentence
    assert "| fp16" not in result.stdout
    assert sentence in run(*SHAPE, "--precision", "fp16", code=1).stderr


def test_a_model_that_stays_in_mxnet_in_part(run: Run) -> None:
    words = ("--exclude-node", "relu0", "--layers")
    result = run(*SHAPE, *words)
    assert result.stdout.count("ONNX Runtime") == 1  # alone, it takes the whole model
    assert "(relu0)" not in result.stdout


def test_what_onnx_cannot_say_is_told(tmp_path: Path) -> None:
    x = mx.sym.sqrt(mx.sym.abs(mx.sym.var("data")))
    net = mx.sym.Custom(x, op_type="bench_own", name="own")
    net.save(str(tmp_path / "net.json"))
    options = {"shapes": {"data": (2, 3)}, "engine": "onnxruntime", "seconds": 0.01}
    [row] = bench.bench(str(tmp_path / "net.json"), None, layers=True, **options).rows
    assert list(row.columns) == ["MXNet", "mxtrt"]
    assert (row.parts, row.left) == (1, 1)
    [note] = row.notes
    assert note.startswith("the whole model alone is left out: 1 of 3 operators cannot be")
    assert "outside of the engines: 1 operator in MXNet beside 1 part" in " ".join(row.slow)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ((), 1, "pass --input data=FILE.npy, or all sizes, such as --shape data="),
        ((*SHAPE, "--batch", "0"), 2, "must look like 1,8,32,128"),
        ((*SHAPE, "--batch", "1,x"), 2, "must look like 1,8,32,128"),
        ((*SHAPE, "--precision", "fp61"), 1, "did you mean 'fp16'"),
        ((*SHAPE, "--picture", "bench.png"), 1, "bench.png: this picture's name ends in .svg"),
        ((*SHAPE, "--json", "nosuch/bench.json"), 2, "no folder that can be written to"),
        (("--shape", "dta=1,3"), 1, "did you mean 'data'"),
    ],
)
def test_what_is_wrong(run: Run, words: tuple[str, ...], code: int, sentence: str) -> None:
    assert sentence in run(*words, code=code).stderr


def test_errors_of_the_function(folder: Path) -> None:
    files = [str(folder / name) for name in NET]
    with pytest.raises(ShapeNeeded):
        bench.bench(*files, engine="onnxruntime")
    with pytest.raises(BadOption, match="no option 'shape'; did you mean 'shapes'"):
        bench.bench(*files, shape={})


# -- layers ------------------------------------------------------------------------------------


def test_layers_under_mxnets_names(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    result = run(*SHAPE, "--layers", "--json", str(file))
    assert "layers, the slowest first" in result.stdout
    layers = json.loads(file.read_text())["rows"][0]["layers"]
    named = [name for layer in layers for name in layer["nodes"]]
    nodes = ["conv0", "bn0", "relu0", "conv1", "bn1", "relu1", "pool", "fc", "softmax"]
    assert sorted(set(named)) == sorted(nodes), layers
    for layer in layers:
        assert layer["milliseconds"] > 0
        if "conv0" in layer["nodes"]:
            assert layer["nodes"] == ["conv0", "bn0", "relu0"]
            assert layer["kind"] in {"Conv", "FusedConv"}


def the_part() -> Any:
    net, args, aux = convnet()
    options = read_options({"data": (1, 3, 16, 16)}, engine="onnxruntime")
    graph = read_symbol(net, {**args, **aux}, options)
    return partition(graph, options).parts[0]


@pytest.mark.parametrize(
    ("names", "nodes"),
    [
        # TensorRT's
        (
            ["Reformatting CopyNode for Input Tensor 0 to conv0/Conv + relu0/Relu",
             "conv0/Conv + relu0/Relu", "conv1/Conv + PWN(relu1/Relu)", "pool/GlobalAveragePool",
             "{ForeignNode[fc/Gemm...softmax/Softmax]}"],
            [(), ("conv0", "bn0", "relu0"), ("conv1", "bn1", "relu1"), ("pool",),
             ("fc", "softmax")],
        ),
        # ONNX Runtime's
        (
            ["relu0_output_nchwc", "bn1_output_bn_nchwc", "pool", "fc/Gemm", "softmax",
             "ReorderOutput_token_1"],
            [("conv0", "bn0", "relu0"), ("conv1", "bn1", "relu1"), ("pool",), ("fc",),
             ("softmax",), ()],
        ),
        (
            ["conv0", "conv1", "pool", "fc", "conv10/Conv"],
            [("conv0", "bn0", "relu0"), ("conv1", "bn1", "relu1"), ("pool",), ("fc", "softmax"),
             ()],
        ),
    ],
)  # fmt: skip
def test_names_of_engines(names: list[str], nodes: list[tuple[str, ...]]) -> None:
    kinds = {"ReorderOutput_token_1": "ReorderOutput"}
    layers = with_nodes(the_part(), [LayerTime(n, kinds.get(n, ""), 1.0) for n in names])
    found = [layer.nodes for layer in layers]
    assert found == nodes
    assert [layer.is_reformat for layer in layers] == [
        "Reformatting" in name or "Reorder" in name for name in names
    ]


def test_onnx_runtimes_profile() -> None:
    events = [
        {"cat": "Session", "name": "session_initialization", "dur": 5, "args": {}},
        *(
            {"cat": "Node", "name": name, "dur": dur, "args": {"op_name": "Conv", "node_index": i}}
            for dur in (100, 200, 900)
            for i, name in enumerate(("conv0//0_kernel_time", "conv1_kernel_time", "x_fence"))
        ),
    ]
    assert _profiling.read_session_profile(events) == [
        LayerTime("conv0", "Conv", 0.2),
        LayerTime("conv1", "Conv", 0.2),
    ]


# -- why it is slow ----------------------------------------------------------------------------

ALONE = {"MXNet": 10.0, "mxtrt": 1.0}
LAYER = LayerTime("a", "Conv", 0.5, ("conv0",))


@pytest.mark.parametrize(
    ("timing", "sentences"),
    [
        (Timing("onnxruntime", ALONE, 0.95, 1, 0, [LAYER]), []),
        (Timing("onnxruntime", {**ALONE, "ONNX Runtime": 0.95}, 0.95, 1, 0, []), []),
        (
            Timing("onnxruntime", ALONE, 0.4, 3, 2, []),
            ["60% of the time passes outside of the engines: 2 operators in MXNet beside 3 parts"],
        ),
        (Timing("onnxruntime", {"MXNet": 1, "mxtrt": 2}, 0.0, 0, 9, []), ["nothing moves"]),
        (
            Timing("onnxruntime", {**ALONE, "ONNX Runtime": 0.5}, 0.95, 1, 0, []),
            ["2.00 times as long as ONNX Runtime alone on the whole model: 0.500 ms more"],
        ),
        (
            Timing(
                "tensorrt",
                {**ALONE, "TensorRT": 1.0, "TensorRT, GPU memory": 0.5,
                 "TensorRT, GPU memory, CUDA graph": 0.3},
                1.0, 1, 0, [],
            ),
            ["50% of the engine's time are copies", "as a CUDA graph it takes 0.300 ms instead"],
        ),
        (
            Timing("tensorrt", ALONE, 1.0, 1, 0,
                   [LayerTime("Reformatting CopyNode", "", 0.2), *[LAYER] * 3]),
            [],
        ),
        (
            Timing("tensorrt", ALONE, 1.0, 1, 0,
                   [LayerTime("Reformatting CopyNode", "", 0.4), *[LAYER] * 2]),
            ["29% of the engines' time go into 1 changes of layout or type"],
        ),
        (
            Timing("onnxruntime", ALONE, 1.0, 1, 0, [LAYER, LayerTime("b", "", 0.1, ("fc",))]),
            ["83% of the engines' time go into one layer: conv0"],
        ),
    ],
)  # fmt: skip
def test_why_slow(timing: Timing, sentences: list[str]) -> None:
    found = why_slow(timing)
    assert len(found) == len(sentences), found
    for sentence, part in zip(found, sorted(sentences, key=lambda s: found_at(found, s))):
        assert part in sentence


def found_at(sentences: list[str], part: str) -> int:
    return next((i for i, sentence in enumerate(sentences) if part in sentence), -1)


# -- timing and pictures -----------------------------------------------------------------------


def test_candidates_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    called: list[str] = []
    calls = {name: (lambda name=name: called.append(name)) for name in ("a", "b")}
    times = timing.interleaved_times(calls, seconds=1e-9, rounds=3)
    assert {name: len(taken) for name, taken in times.items()} == {"a": 6, "b": 6}
    # two calls to see how long it takes, then in each round one to warm up and two that count
    assert "".join(called) == "aabb" + 3 * "aaabbb"
    assert set(timing.interleaved_medians(calls, seconds=1e-9, rounds=1)) == {"a", "b"}


def test_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    calls = {"slow": lambda: time.sleep(0.005), "fast": lambda: None}
    for equally, same in ((True, True), (False, False)):
        times = timing.interleaved_times(calls, seconds=0.05, rounds=2, equally_often=equally)
        assert (len(times["slow"]) == len(times["fast"])) is same


def test_percentiles() -> None:
    assert timing.percentile([3.0], 99) == 3.0
    assert timing.percentile(list(range(100, 0, -1)), 99) == 99
    assert timing.percentile(list(range(1, 1001)), 50) == 500


def test_bars_are_as_long_as_their_values() -> None:
    text = bars.draw("a & b", "<x>", [("one", [bars.Bar("MXNet", 1, "1"), bars.Bar("m", 4, "4")])])
    root = ElementTree.fromstring(text)
    widths = [float(e.get("width", 0)) for e in root.iter() if e.tag.endswith("rect")][1:]
    assert math.isclose(widths[1], 4 * widths[0], rel_tol=1e-3)
    assert "a & b" in [e.text for e in root.iter()]
    assert ElementTree.fromstring(bars.draw("", "", [])) is not None
