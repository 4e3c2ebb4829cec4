"""The ONNX Runtime engine: MXNet's own memory, threads, settings, large models."""

from __future__ import annotations

import ctypes
from typing import Any

import mxnet as mx
import numpy as np
import onnx
import pytest
from mxnet.base import _LIB, check_call
from onnx import helper

import mxtrt
from mxtrt.engines import onnxruntime as engine_module
from mxtrt.engines.onnxruntime import OnnxRuntimeEngine, num_threads, refuses
from mxtrt.operator import engines


def address(array: mx.nd.NDArray) -> int:
    pointer = ctypes.c_void_p()
    array.wait_to_read()
    check_call(_LIB.MXNDArrayGetData(array.handle, ctypes.byref(pointer)))
    return pointer.value or 0


def tanh_net(engine_nodes: int = 2) -> mx.sym.Symbol:
    x = mx.sym.var("data")
    for _ in range(engine_nodes):
        x = mx.sym.Activation(x, act_type="tanh")
    return x


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the addresses that ONNX Runtime gets."""
    addresses: list[int] = []
    place = OnnxRuntimeEngine._place

    def record(self: OnnxRuntimeEngine, buffer: Any) -> Any:
        placed = place(self, buffer)
        addresses.append(placed[-1])
        return placed

    monkeypatch.setattr(OnnxRuntimeEngine, "_place", record)
    return addresses


def test_onnx_runtime_works_on_mxnets_own_memory(bound: list[int]) -> None:
    symbol, _ = mxtrt.optimize(tanh_net())
    data = mx.nd.random.normal(shape=(3, 4))
    executor = symbol.bind(mx.cpu(), {"data": data}, grad_req="null")
    output = executor.forward()[0]
    assert bound == [address(data), address(output)]
    np.testing.assert_allclose(
        output.asnumpy(), np.tanh(np.tanh(data.asnumpy())), rtol=1e-4, atol=1e-5
    )


def test_addresses_are_bound_once(bound: list[int]) -> None:
    symbol, _ = mxtrt.optimize(tanh_net())
    executor = symbol.bind(mx.cpu(), {"data": mx.nd.ones((3, 4))}, grad_req="null")
    for _ in range(5):
        executor.forward()[0].wait_to_read()
    assert len(bound) == 2


def test_the_bindings_that_are_kept_are_bounded() -> None:
    symbol, _ = mxtrt.optimize(tanh_net())
    for size in range(1, 2 * engine_module.MAX_BINDINGS):
        data = mx.nd.ones((size, 4))
        symbol.bind(mx.cpu(), {"data": data}, grad_req="null").forward()[0].wait_to_read()
    (engine,) = engines(symbol)
    assert len(engine._idle) <= engine_module.MAX_BINDINGS


def test_arrays_without_elements() -> None:
    with mx.util.np_shape(True):
        symbol, _ = mxtrt.optimize(tanh_net(), shapes={"data": (None, 3)})
        executor = symbol.bind(mx.cpu(), {"data": mx.nd.zeros((0, 3))}, grad_req="null")
        assert executor.forward()[0].shape == (0, 3)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "2,1"}, 2),
        ({"MXNET_OMP_MAX_THREADS": "5"}, 5),
        ({"OMP_NUM_THREADS": "3", "MXNET_OMP_MAX_THREADS": "5"}, 3),
    ],
)
def test_the_thread_count_follows_mxnets_settings(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: int
) -> None:
    for name in ("OMP_NUM_THREADS", "MXNET_OMP_MAX_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert num_threads() == expected


def test_session_options_reach_the_session() -> None:
    options = {
        "intra_op_num_threads": 1,
        "session.disable_prepacking": "1",
        "log_severity_level": 3,
    }
    symbol, _ = mxtrt.optimize(tanh_net(), session_options=options)
    (engine,) = engines(symbol)
    settings = engine.session.get_session_options()
    assert settings.intra_op_num_threads == 1
    assert settings.log_severity_level == 3
    assert settings.get_session_config_entry("session.disable_prepacking") == "1"


def test_a_type_without_a_kernel_is_refused_by_the_engine() -> None:
    def scratch(element_type: int) -> onnx.ModelProto:
        info = [helper.make_tensor_value_info(n, element_type, [2, 1, 3, 3]) for n in "xy"]
        weight = helper.make_tensor_value_info("w", element_type, [1, 1, 1, 1])
        node = helper.make_node("Conv", ["x", "w"], ["y"])
        graph = helper.make_graph([node], "g", [info[0], weight], [info[1]])
        return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])

    assert refuses(scratch(onnx.TensorProto.FLOAT)) is None
    reason = refuses(scratch(onnx.TensorProto.INT64))
    assert reason is not None
    assert reason.startswith("ONNX Runtime: ")


def test_a_float64_convolution_moves_or_says_why() -> None:
    symbol = mx.sym.Convolution(mx.sym.var("data"), kernel=(1, 1), num_filter=2, name="c")
    params = {
        "c_weight": mx.nd.ones((2, 3, 1, 1), dtype="float64"),
        "c_bias": mx.nd.ones(2, dtype="float64"),
    }
    report = mxtrt.explain(symbol, params, min_subgraph_size=1)
    (reason,) = report.left.values()
    assert "ONNX Runtime: " in reason


@pytest.mark.slow
def test_a_model_of_more_than_2_gib() -> None:
    width, layers = 16384, 3  # 1 GiB a layer
    x = mx.sym.var("data")
    params = {}
    for i in range(layers):
        x = mx.sym.FullyConnected(x, num_hidden=width, no_bias=True, name=f"fc{i}")
        params[f"fc{i}_weight"] = mx.nd.zeros((width, width))
        params[f"fc{i}_weight"][0, :] = 1.0 + i
    symbol, kept = mxtrt.optimize(x, params)
    assert kept == {}
    data = np.random.default_rng(0).uniform(0, 1, (2, width)).astype("float32")
    found = symbol.bind(mx.cpu(), {"data": mx.nd.array(data)}).forward()[0].asnumpy()
    # rows after the first are zero: sum(data), then 2 and 3 times the one element that is left
    np.testing.assert_allclose(found[:, 0], data.sum(axis=1) * 2 * 3, rtol=1e-4)
    assert not found[:, 1:].any()
