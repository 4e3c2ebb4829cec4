"""The report as text, dict, JSON and picture."""

from __future__ import annotations

import json
import shutil
import timeit
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import onnx
import pytest

import mxtrt
from mxtrt.engines._fallback import FallbackEngine
from mxtrt.errors import BadModel, BadOption, EngineError, ProgramNotAvailable
from mxtrt.operator import EngineOperator, operators
from mxtrt.options import read_options
from mxtrt.runtime_record import RunRecord
from mxtrt.store import Origin

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")


def dense_net(names: tuple[str, ...], op: str = "relu") -> mx.sym.Symbol:
    """Return FullyConnected and Activation in turns, named after `names`."""
    out = mx.sym.var("data")
    for name in names:
        out = mx.sym.FullyConnected(out, num_hidden=4, name=name)
        out = mx.sym.Activation(out, act_type=op, name=f"{name}_{op}")
    return out


def weights(symbol: mx.sym.Symbol, **inputs: Any) -> dict[str, mx.nd.NDArray]:
    shapes, _, _ = symbol.infer_shape(**inputs)
    return {
        name: mx.nd.ones(shape)
        for name, shape in zip(symbol.list_arguments(), shapes)
        if name not in inputs
    }


def explain(symbol: mx.sym.Symbol, **options: Any) -> mxtrt.Report:
    options.setdefault("shapes", {"data": (None, 8)})
    return mxtrt.explain(symbol, weights(symbol, data=(1, 8)), **options)


def left_in_the_middle() -> mxtrt.Report:
    symbol = dense_net(("a", "b", "c"))
    return explain(symbol, exclude_nodes=["b_relu"], min_subgraph_size=1)


# -- text --------------------------------------------------------------------------------------


def test_table() -> None:
    assert (
        str(left_in_the_middle())
        == """\
5 of 6 operators move into 2 parts, run by onnxruntime; 1 stays in MXNet.

operator        count  moved  left  why it stays
Activation          3      2     1  exclude_nodes names b_relu: b_relu
FullyConnected      3      3     0

mxtrt0: 3 operators, 0.00021 MiB of parameters, onnxruntime
  operators  2 FullyConnected, 1 Activation
  nodes      a, a_relu, b
  inputs     data (?, 8) float32
  outputs    b_output (?, 4) float32
mxtrt1: 2 operators, 7.6e-05 MiB of parameters, onnxruntime
  operators  1 FullyConnected, 1 Activation
  nodes      c, c_relu
  inputs     b_relu_output (?, 4) float32
  outputs    c_relu_output (?, 4) float32"""
    )


def test_headlines() -> None:
    symbol = dense_net(("a", "b"))
    assert explain(symbol).headline == "All 4 operators move into 1 part, run by onnxruntime."
    nothing = explain(symbol, min_subgraph_size=5)
    assert nothing.headline == "All 4 operators stay in MXNet."
    assert repr(nothing) == "<mxtrt.Report: All 4 operators stay in MXNet.>"
    assert "fewer than min_subgraph_size=5: a, b" in " ".join(str(nothing).split())


def test_lines_are_at_most_100_wide() -> None:
    symbol = dense_net(tuple(f"{'a_very_long_name_of_a_layer' * 3}_{i}" for i in range(30)))
    for options in ({}, {"exclude_ops": ["Activation"], "min_subgraph_size": 1}):
        report = explain(symbol, **options)
        assert max(map(len, str(report).splitlines())) <= 100
        assert "…" in str(report)


def test_long_lists_are_counted() -> None:
    symbol = dense_net(tuple(f"fc{i}" for i in range(30)))
    text = str(explain(symbol, exclude_ops=["Activation"], min_subgraph_size=1))
    reason = "exclude_ops names Activation: fc0_relu, fc1_relu, fc2_relu and 27 more"
    assert reason in " ".join(text.split())
    assert text.endswith("and 10 more parts with 10 operators")
    assert "mxtrt19: " in text
    assert "mxtrt20: " not in text


def test_many_inputs_are_counted() -> None:
    symbol = mx.sym.add_n(*(mx.sym.var(f"x{i}") for i in range(9)), name="sum")
    symbol = mx.sym.Activation(symbol, act_type="relu", name="relu")
    report = mxtrt.explain(symbol, shapes={f"x{i}": (2, 3) for i in range(9)})
    if report.left:
        pytest.skip("add_n has no converter")
    assert "x5 (2, 3) float32\n             and 3 more\n" in str(report)


def test_rich_has_the_same_text() -> None:
    from rich.console import Console

    report = left_in_the_middle()
    console = Console(width=40, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(report, soft_wrap=True)
    assert console.export_text().rstrip("\n") == str(report)


# -- dict and JSON -----------------------------------------------------------------------------


def test_dict() -> None:
    found = left_in_the_middle().to_dict()
    assert (found["count"], found["moved"], found["left"]) == (6, 5, 1)
    assert found["engine"] == "onnxruntime"
    assert found["operators"][0] == {
        "op": "Activation",
        "count": 3,
        "moved": 2,
        "left": 1,
        "nodes": ["a_relu", "b_relu", "c_relu"],
        "reasons": [{"reason": "exclude_nodes names b_relu", "nodes": ["b_relu"]}],
    }
    assert found["parts"][1] == {
        "name": "mxtrt1",
        "engine": "onnxruntime",
        "nodes": [
            {"op": "FullyConnected", "name": "c"},
            {"op": "Activation", "name": "c_relu"},
        ],
        "inputs": [{"name": "b_relu_output", "shape": [None, 4], "dtype": "float32"}],
        "outputs": [{"name": "c_relu_output", "shape": [None, 4], "dtype": "float32"}],
        "parameters": 2,
        "parameters_mib": round(20 * 4 / 2**20, 6),
    }
    assert found["inputs"] == [{"name": "data", "shape": [None, 8], "dtype": "float32"}]
    assert found["outputs"] == found["parts"][1]["outputs"]
    assert found["options"]["exclude_nodes"] == ["b_relu"]


def test_json_is_the_dict() -> None:
    report = explain(
        dense_net(("ä", 'say "hi"')),
        shapes={"data": ((1, 8, 32), 8)},
        session_options={"graph_optimization_level": np.float32(1)},
    )
    text = report.to_json()
    assert json.loads(text) == report.to_dict()
    assert "ä" in text
    assert report.to_dict()["options"]["shapes"] == {"data": [[1, 8, 32], 8]}
    assert "\n" not in report.to_json(indent=None)


def test_heads_have_their_own_names() -> None:
    data = mx.sym.var("data")
    dense = mx.sym.FullyConnected(data, num_hidden=4, name="fc")
    report = explain(mx.sym.Group([dense, data, dense]))
    names = [head["name"] for head in report.to_dict()["outputs"]]
    assert names == ["fc_output", "data", "fc_output"]


def test_of_an_optimised_symbol() -> None:
    symbol = dense_net(("a", "b"))
    params = weights(symbol, data=(1, 8))
    optimized, _ = mxtrt.optimize(symbol, params, shapes={"data": (None, 8)})
    assert str(mxtrt.report(optimized)) == str(explain(symbol))
    mxtrt.release(optimized)


def test_without_operators() -> None:
    report = mxtrt.explain(mx.sym.Group([mx.sym.var("x"), mx.sym.var("y")]))
    assert str(report) == "The model has no operators."
    assert report.to_dict()["operators"] == []
    assert "->" in report.to_dot()


# -- pictures ----------------------------------------------------------------------------------

ODD_NAMES = (
    'say "hi"',
    "back\\slash",
    "new\\nline",
    "trailing\\",
    "größe→大",
    "a<b>&amp;",
    "p/q r",
)


def test_dot_source() -> None:
    source = left_in_the_middle().to_dot()
    assert source.count("subgraph cluster_") == 2
    assert 'label="mxtrt0, onnxruntime\\n3 operators, 0.00021 MiB"' in source
    left = [line for line in source.splitlines() if "dashed" in line]
    assert len(left) == 1
    assert 'tooltip="b_relu: exclude_nodes names b_relu"' in left[0]
    assert 'fillcolor="white"' in left[0]


def test_dot_escapes() -> None:
    source = explain(dense_net(ODD_NAMES)).to_dot()
    assert 'label="FullyConnected\\nsay \\"hi\\""' in source
    assert 'label="FullyConnected\\ntrailing\\\\"' in source
    assert 'label="FullyConnected\\na<b>&amp;amp;"' in source


@needs_dot
def test_svg_shows_odd_names(tmp_path: Path) -> None:
    import xml.etree.ElementTree as ET

    explain(dense_net(ODD_NAMES)).render(tmp_path / "net.svg")
    tree = ET.parse(tmp_path / "net.svg")
    texts = {element.text for element in tree.iter("{http://www.w3.org/2000/svg}text")}
    assert set(ODD_NAMES) <= texts
    titles = {e.get("{http://www.w3.org/1999/xlink}title") for e in tree.iter()}
    assert set(ODD_NAMES) <= titles


@needs_dot
@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("PDF", b"%PDF")])
def test_render(tmp_path: Path, ending: str, magic: bytes) -> None:
    path = tmp_path / f"net.{ending}"
    left_in_the_middle().render(str(path))
    assert path.read_bytes().startswith(magic)


def test_large_graphs_join_chains() -> None:
    names = tuple(f"fc{i}" for i in range(30))
    source = explain(dense_net(names)).to_dot()
    boxes = [line for line in source.splitlines() if "tooltip" in line]
    assert len(boxes) == 1
    assert "FullyConnected → Activation → FullyConnected" in boxes[0]
    assert "… 39 more …" in boxes[0]
    assert all(f"{name}_relu" in boxes[0] for name in names)

    one_left = explain(dense_net(names), exclude_nodes=["fc9_relu"]).to_dot()
    boxes = [line for line in one_left.splitlines() if "tooltip" in line]
    assert len(boxes) == 3


def test_branches_are_not_joined() -> None:
    out = dense_net(tuple(f"fc{i}" for i in range(20)))
    left, right = (mx.sym.Activation(out, act_type=t, name=t) for t in ("relu", "tanh"))
    source = explain(mx.sym.Group([left + right, out])).to_dot()
    boxes = [line for line in source.splitlines() if "tooltip" in line]
    assert len(boxes) == 4
    assert source.count(" -> o1") == 1


def test_labels_that_no_engine_reads_are_not_drawn() -> None:
    symbol = mx.sym.SoftmaxOutput(dense_net(("a",)), name="softmax")
    params = weights(symbol, data=(1, 8), softmax_label=(1,))
    moved, stays = (
        mxtrt.explain(symbol, params, shapes={"data": (None, 8)}, exclude_ops=ops).to_dot()
        for ops in ([], ["SoftmaxOutput"])
    )
    assert "softmax_label" not in moved
    assert "softmax_label" in stays


def test_picture_of_an_unknown_kind(tmp_path: Path) -> None:
    report = left_in_the_middle()
    with pytest.raises(BadOption, match=r"\.svg, \.png or \.pdf; did you mean 'svg'\?"):
        report.render(tmp_path / "net.svgg")
    with pytest.raises(BadOption, match=r"\.svg, \.png or \.pdf"):
        report.render(tmp_path / "net")


def test_picture_without_graphviz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProgramNotAvailable, match="apt install graphviz"):
        left_in_the_middle().render(tmp_path / "net.svg")
    assert not (tmp_path / "net.svg").exists()


# -- what engines have done --------------------------------------------------------------------


def called() -> tuple[mx.sym.Symbol, Any]:
    """Return an optimised symbol of two parts and its executor, which was called three times."""
    symbol = dense_net(("a", "b", "c"))
    params = weights(symbol, data=(1, 8))
    made, left = mxtrt.optimize(symbol, params, exclude_nodes=["b_relu"], min_subgraph_size=1)
    executor = made.bind(mx.cpu(), {"data": mx.nd.ones((2, 8)), **left})
    for _ in range(3):
        executor.forward()[0].wait_to_read()
    return made, executor


def test_runtime_counts_calls_and_builds() -> None:
    symbol, executor = called()
    runtime = mxtrt.report(symbol).runtime
    assert runtime is not None
    assert (runtime.calls, runtime.builds, runtime.cache_hits, runtime.fallbacks) == (6, 2, 0, 0)
    for part in runtime.parts:
        assert (part.calls, part.failures, part.builds, part.engine) == (3, 0, 1, "onnxruntime")
        assert 0 < part.median <= part.seconds
        assert part.build_seconds > 0
    executor.forward()[0].wait_to_read()
    assert runtime.calls == 6  # it is of the time when the report was made
    assert mxtrt.report(symbol).runtime.calls == 8


def test_runtime_in_text_and_json() -> None:
    symbol, _ = called()
    report = mxtrt.report(symbol)
    title, *rows = str(report).rsplit("\n\n", 1)[1].splitlines()
    assert title.split()[:4] == ["part", "calls", "failed", "median"]
    assert [row.split()[:3] for row in rows] == [[f"mxtrt{i}", "3", "0"] for i in range(2)]
    assert all(len(line) <= 100 for line in str(report).splitlines())
    told = json.loads(report.to_json())["runtime"]
    assert told == report.to_dict()["runtime"]
    assert (told["calls"], told["builds"], told["cache_hits"], told["fallbacks"]) == (6, 2, 0, 0)
    assert told["seconds"] == sum(part["seconds"] for part in told["parts"])


def test_no_calls_no_table() -> None:
    symbol = dense_net(("a",))
    made, _ = mxtrt.optimize(symbol, weights(symbol, data=(1, 8)))
    report = mxtrt.report(made)
    assert report.runtime is not None
    assert (report.runtime.calls, report.runtime.builds) == (0, 1)
    assert str(report.runtime) not in str(report)
    assert left_in_the_middle().runtime is None
    assert left_in_the_middle().to_dict()["runtime"] is None


def test_failed_calls_are_counted_apart() -> None:
    class Engine:
        kind = "onnxruntime"
        origins = ((None, Origin(True, 0.5, 9)), (None, Origin(False, 2.0, 9)))
        fallbacks = 7

        def execute(self, *_: Any) -> None:
            raise EngineError("wanted")

    record = RunRecord(Engine())
    with pytest.raises(EngineError):
        record.counted(record._engine.execute)([], [], 0)
    part = record.read("p")
    assert (part.calls, part.failures, part.seconds, part.median) == (0, 1, 0.0, 0.0)
    assert (part.builds, part.build_seconds, part.cache_hits, part.fallbacks) == (1, 2.0, 1, 7)
    later = RunRecord(Engine())
    later.follow(record)
    later.counted(lambda *_: None)([], [], 0)
    part = later.read("p")
    assert (part.calls, part.failures, part.builds, part.cache_hits) == (1, 1, 2, 2)


def test_calls_that_fell_back_are_counted() -> None:
    class Broken:
        kind, origins = "tensorrt", ()

        def execute(self, *_: Any) -> None:
            raise EngineError("wanted")

    symbol, executor = called()
    first, second = operators(symbol)
    fallback = FallbackEngine(Broken(), *spare_of(first))
    first.engine, first.record = fallback, RunRecord(fallback)
    first.execute = first.record.counted(fallback.execute)
    with pytest.warns(RuntimeWarning, match="instead of tensorrt, because wanted"):
        for _ in range(5):
            executor.forward()[0].wait_to_read()
    runtime = mxtrt.report(symbol).runtime
    assert [part.fallbacks for part in runtime.parts] == [5, 0]
    assert [part.failures for part in runtime.parts] == [0, 0]
    assert [part.engine for part in runtime.parts] == ["onnxruntime"] * 2
    assert runtime.parts[0].builds == 1  # ONNX Runtime's
    assert second.record.calls == 8


def spare_of(operator: EngineOperator) -> tuple[Any, ...]:
    """Return the model, the weights and the options that an engine was built of."""
    arrays = {name: mx.nd.array(array) for name, array in operator.onnx.weights().items()}
    return onnx.load_from_string(operator.onnx.model), arrays, read_options(None, None)


def test_new_weights_of_a_block_are_builds() -> None:
    net = mx.gluon.nn.Dense(3, in_units=4)
    net.initialize()
    x = mx.nd.ones((2, 4))
    block = mxtrt.optimize(net, x, min_subgraph_size=1)
    net.hybridize(backend="mxtrt", min_subgraph_size=1)
    for number in range(1, 4):
        for each in (block, net):
            each(x).wait_to_read()
            [part] = mxtrt.report(each).runtime.parts
            assert (part.calls, part.builds) == (number, number)
        net.weight.set_data(net.weight.data() + 1)


def test_of_everything_that_holds_a_symbol() -> None:
    symbol, _ = called()
    headline = mxtrt.report(symbol).headline
    module = mx.mod.Module(symbol, label_names=None)
    chain = mx.mod.SequentialModule().add(module)
    buckets = mx.mod.BucketingModule(lambda _: (symbol, ["data"], None), default_bucket_key=1)
    buckets.bind([("data", (1, 8))], for_training=False)
    net, x = mx.gluon.nn.Dense(3, in_units=4), mx.nd.ones((2, 4))
    net.initialize()
    outer = mx.gluon.nn.Sequential()
    outer.add(mx.gluon.nn.Flatten(), mxtrt.optimize(net, x, min_subgraph_size=1))
    assert [mxtrt.report(each).headline for each in (module, chain, buckets)] == [headline] * 3
    assert mxtrt.report(outer).moved == 1
    for nothing in (mx.gluon.nn.Sequential(), net):
        with pytest.raises(BadModel, match="has not been called since it was hybridized"):
            mxtrt.report(nothing)


def test_counting_is_cheap() -> None:
    """It takes some 0.3 µs; the limit is for a busy machine."""

    class Engine:
        kind = "onnxruntime"

    def nothing(*_: Any) -> None:
        return None

    counted = RunRecord(Engine()).counted(nothing)

    def seconds(call: Any) -> float:
        return min(timeit.repeat(lambda: call([], [], 0), number=10_000, repeat=5)) / 10_000

    assert seconds(counted) - seconds(nothing) < 2e-6
