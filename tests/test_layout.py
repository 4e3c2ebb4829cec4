"""Pieces of a model, laid out one by one and joined, against the model in one session."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from operators import run_mxnet

import mxtrt
from mxtrt.engines import _layout, onnxruntime
from mxtrt.engines._layout import lay_out
from mxtrt.onnx_model import reads
from mxtrt.operator import engines

Arrays = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def smallest_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay every model out, with a cut wherever there may be one."""
    monkeypatch.setattr(_layout, "LEAST", 1)
    monkeypatch.setattr(_layout, "PIECES", 1 << 60)


class Net:
    """An ONNX model in the making, whose weights are external data."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.weights: Arrays = {}
        self.channels = {"data": 16}
        self.graph = onnx.GraphProto(name="net")
        self.graph.input.append(value_info("data", ["n", 16, "h", "w"]))

    def op(self, op_type: str, *inputs: str, channels: int | None = None, **attrs: Any) -> str:
        name = f"{op_type}{len(self.graph.node)}"
        self.graph.node.append(helper.make_node(op_type, inputs, [name], name=name, **attrs))
        self.channels[name] = channels or self.channels[inputs[0]]
        return name

    def weight(self, *shape: int, low: float = -1) -> str:
        name = f"weight{len(self.weights)}"
        self.weights[name] = self.rng.uniform(low, 1, shape).astype("float32")
        self.graph.initializer.append(_layout._external(name, TensorProto.FLOAT, shape))
        return name

    def conv(
        self, x: str, channels: int, *, group: int = 1, kernel: int = 3, stride: int = 1
    ) -> str:
        fan_in = self.channels[x] // group
        weight = self.weight(channels, fan_in, kernel, kernel)
        self.weights[weight] /= kernel * fan_in**0.5
        pads = [kernel // 2] * 4
        strides = [stride, stride]
        return self.op(
            "Conv", x, weight, channels=channels, group=group, pads=pads, strides=strides
        )

    def norm(self, x: str) -> str:
        vectors = [self.weight(self.channels[x], low=0.5) for _ in range(4)]
        return self.op("BatchNormalization", x, *vectors)

    def finish(self, *heads: str) -> onnx.ModelProto:
        read = set(heads)
        nodes = []
        for node in reversed(self.graph.node):  # as in a part: no node without a reader
            if not read.isdisjoint(node.output):
                nodes.append(node)
                read |= reads(node)
        tensors = [tensor for tensor in self.graph.initializer if tensor.name in read]
        del self.graph.node[:], self.graph.output[:], self.graph.initializer[:]
        self.graph.initializer.extend(tensors)
        self.graph.node.extend(reversed(nodes))
        self.graph.output.extend(value_info(head, None) for head in heads)
        opsets = [helper.make_opsetid("", 17)]
        return helper.make_model(self.graph, ir_version=8, opset_imports=opsets)


def value_info(name: str, shape: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def session(model: onnx.ModelProto, arrays: Any) -> ort.InferenceSession:
    return onnxruntime._session(model, arrays, ort.SessionOptions())


def laid_out(net: Net, model: onnx.ModelProto) -> tuple[onnx.ModelProto, Any]:
    pieces: list[onnx.ModelProto] = []

    def optimise(piece: onnx.ModelProto) -> onnx.ModelProto:
        pieces.append(piece)
        return onnxruntime._optimise(piece, net.weights)

    found = lay_out(model, net.weights, optimise)
    assert len(pieces) > 1, "nothing was cut"
    return found


def check(net: Net, *heads: str, size: int = 12) -> onnx.ModelProto:
    """Compare the model in one session with the joined pieces; return the latter."""
    model = net.finish(*heads)
    data = {"data": net.rng.standard_normal((2, 16, size, size)).astype("float32")}
    expected = session(model, net.weights).run(None, data)
    joined, arrays = laid_out(net, model)
    assert [info.name for info in joined.graph.output] == list(heads)
    joined_session = session(joined, arrays)
    inputs = {i.name: arrays[i.name] for i in joined_session.get_inputs() if i.name != "data"}
    for found, wanted in zip(joined_session.run(None, {**data, **inputs}), expected):
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * scale)
    return joined


def block(net: Net, x: str) -> str:
    """Return the end of a residual block behind `x`."""
    y = net.op("Relu", net.norm(net.conv(x, 32, kernel=1)))
    y = net.norm(net.conv(y, net.channels[x]))
    return net.op("Relu", net.op("Add", y, x))


@pytest.mark.parametrize("seed", range(12))
def test_random_nets(seed: int) -> None:
    net = Net(seed)
    values, choose = ["data"], net.rng.choice
    for _ in range(14):
        x = str(choose(values[-4:]))
        kind = choose(["conv", "conv", "norm", "Relu", "Sigmoid", "pool", "Add", "Concat"])
        same = [v for v in values if net.channels[v] == net.channels[x]]
        if kind == "conv":
            channels = int(choose([8, 16, 20, 32, 48]))
            group = net.channels[x] if channels == net.channels[x] and net.rng.random() < 0.4 else 1
            values.append(net.conv(x, channels, group=group, kernel=int(choose([1, 3]))))
        elif kind == "norm":
            values.append(net.norm(x))
        elif kind == "pool":
            values.append(net.op("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
        elif kind == "Add":
            values.append(net.op("Add", x, str(choose(same))))
        elif kind == "Concat" and net.channels[x] < 100:
            other = str(choose(values))
            channels = net.channels[x] + net.channels[other]
            values.append(net.op("Concat", x, other, axis=1, channels=channels))
        elif kind in {"Relu", "Sigmoid"}:
            values.append(net.op(str(kind), x))
    values.append(net.conv(net.conv(values[-1], 16), 16))
    heads = {str(v) for v in choose(values[1:], 3)} | {values[-1]}
    check(net, *sorted(heads))


def test_between_residual_blocks_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_layout, "PIECES", 5)
    net = Net()
    x = net.conv("data", 16)
    for _ in range(4):
        x = block(net, x)
    x = net.op("GlobalAveragePool", x)
    joined = check(net, x)
    whole = onnxruntime._optimise(net.finish(x), net.weights)
    count = Counter(node.op_type for node in joined.graph.node)
    assert count == Counter(node.op_type for node in whole.graph.node)


def test_convolutions_that_share_weights_share_them_in_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_layout, "SMALL", 64)
    net = Net()
    x = net.conv("data", 16)
    weight = net.graph.node[-1].input[1]
    for _ in range(3):
        x = net.op("Conv", net.op("Relu", x), weight, pads=[1, 1, 1, 1])
    joined = check(net, x)
    weights = {node.input[1] for node in joined.graph.node if node.op_type == "Conv"}
    assert len(weights) == 1


def test_bodies_read_what_other_pieces_made() -> None:
    net = Net()
    x = net.op("Relu", net.conv("data", 16))
    y = net.op("Relu", net.conv(x, 16))
    branches = {}
    for name, read in (("then_branch", x), ("else_branch", y)):
        made = f"{name}/twice"
        node = helper.make_node("Add", [read, read], [made])
        branches[name] = helper.make_graph([node], name, [], [value_info(made, None)])
    for sign in (1.0, -1.0):
        zero = numpy_helper.from_array(np.array(0.0, "float32"), f"zero{sign}")
        net.graph.initializer.append(zero)
        total = net.op("Mul", net.op("ReduceSum", y, keepdims=0), zero.name)
        one = numpy_helper.from_array(np.array(sign, "float32"), f"sign{sign}")
        net.graph.initializer.append(one)
        is_positive = net.op("Greater", net.op("Add", total, one.name), zero.name)
        z = net.op("If", is_positive, channels=16, **branches)
        y = net.conv(net.conv(z, 16), 16)
    check(net, y, x)


def test_names_with_slashes() -> None:
    net = Net()
    x = net.conv("data", 16)
    net.graph.node[-1].output[0] = "a//1"
    net.channels["a//1"] = 16
    assert x != "a//1"
    y = net.conv(net.op("Relu", "a//1"), 16)
    net.graph.node[-1].output[0] = "a///2"
    net.channels["a///2"] = 16
    assert y
    check(net, net.conv(net.op("Relu", "a///2"), 16), "a//1")


def test_large_constants_that_no_convolution_reads() -> None:
    net = Net()
    x = net.conv(net.conv("data", 16), 16)
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    x = net.op("Gemm", x, net.weight(2000, 16), net.weight(2000), transB=1)
    x = net.op("Gemm", x, net.weight(16, 2000), transB=1)
    joined = check(net, x)
    declared = {t.name for t in joined.graph.initializer if t.data_location == TensorProto.EXTERNAL}
    assert declared == {"weight2", "weight4"}, "constants must stay constants for the kernels"


class TestEngine:
    """The engine with weights that it reads in place."""

    @pytest.fixture
    def net(self) -> tuple[mx.sym.Symbol, dict[str, mx.nd.NDArray]]:
        x = mx.sym.var("data")
        rng = np.random.default_rng(0)
        params = {}
        for i in range(4):
            y = mx.sym.Convolution(
                x, kernel=(3, 3), pad=(1, 1), num_filter=64, name=f"c{i}", no_bias=True
            )
            x = mx.sym.Activation(y if i == 0 else y + x, act_type="relu")
            weight = rng.uniform(-0.1, 0.1, (64, 16 if i == 0 else 64, 3, 3))
            params[f"c{i}_weight"] = mx.nd.array(weight)
        return mx.sym.Group([x, mx.sym.sum(x)]), params

    @pytest.mark.parametrize(
        ("options", "cut"),
        [
            ({}, True),
            ({"intra_op_num_threads": 1, "session.intra_op.allow_spinning": "0"}, True),
            ({"session.disable_prepacking": "1"}, False),
            ({"graph_optimization_level": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC}, False),
        ],
    )
    def test_against_mxnet(self, net: Any, options: dict[str, Any], cut: bool) -> None:
        symbol, params = net
        data = np.random.default_rng(1).standard_normal((2, 16, 9, 9)).astype("float32")
        arrays = {"data": data, **{n: a.asnumpy() for n, a in params.items()}}
        expected = run_mxnet(symbol, arrays)
        optimized, kept = mxtrt.optimize(
            symbol, params, engine="onnxruntime", session_options=options
        )
        assert kept == {}
        for array in params.values():
            array[:] = float("nan")  # they are not read any more
        (engine,) = engines(optimized)
        assert bool(engine._weights) is cut
        for _ in range(2):
            for found, wanted in zip(run_mxnet(optimized, {"data": data}), expected):
                np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)

    def test_threads_share_the_weights(self, net: Any) -> None:
        symbol, params = net
        rng = np.random.default_rng(1)
        images = [rng.standard_normal((1 + i % 3, 16, 9, 9)).astype("float32") for i in range(8)]
        arrays = {name: array.asnumpy() for name, array in params.items()}
        expected = [run_mxnet(symbol, {"data": data, **arrays})[0] for data in images]
        optimized, _ = mxtrt.optimize(symbol, params, engine="onnxruntime")

        def run(data: np.ndarray) -> list[np.ndarray]:
            executor = optimized.bind(mx.cpu(), {"data": mx.nd.array(data)}, grad_req="null")
            return [executor.forward()[0].asnumpy() for _ in range(20)]

        with ThreadPoolExecutor(8) as threads:
            for outputs, wanted in zip(threads.map(run, images), expected):
                for found in outputs:
                    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_peak_of_memory(tmp_path: Path) -> None:
    folder = Path(__file__).parents[1] / "benchmarks"
    command = [sys.executable, folder / "optimize.py", "--json", tmp_path / "found.json"]
    subprocess.run(command, check=True)
    results = json.loads((tmp_path / "found.json").read_text())["results"]
    for model, found in results.items():
        assert found["peak / weights"] <= 2.2, model
        assert found["held / weights"] <= 1.2, model


def test_what_cannot_be_laid_out_runs_in_one_piece(monkeypatch):
    def fails(proto, weights, optimise):
        raise mxtrt.errors.EngineError("no such kernel")

    monkeypatch.setattr(onnxruntime, "lay_out", fails)
    net = mx.sym.tanh(mx.sym.Convolution(mx.sym.var("data"), kernel=(3, 3), num_filter=4, name="c"))
    rng = np.random.default_rng(0)
    args = {n: mx.nd.array(rng.normal(size=s)) for n, s in
            {"c_weight": (4, 3, 3, 3), "c_bias": (4,)}.items()}  # fmt: skip
    data = mx.nd.array(rng.normal(size=(1, 3, 8, 8)))
    optimized, _ = mxtrt.optimize(net, args, engine="onnxruntime", strict=True)
    have = optimized.bind(mx.cpu(), {"data": data}, grad_req="null").forward()[0].asnumpy()
    want = net.bind(mx.cpu(), {"data": data, **args}, grad_req="null").forward()[0].asnumpy()
    np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)
