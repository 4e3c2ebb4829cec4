"""The report as text, dict, JSON and picture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest

import mxtrt
from mxtrt.errors import BadOption, ProgramNotAvailable

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
