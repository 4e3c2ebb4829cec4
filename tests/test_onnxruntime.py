"""The ONNX Runtime engine: MXNet's own memory, threads, settings, large models."""

from __future__ import annotations

import ctypes
from typing import Any

import mxnet as mx
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from mxnet.base import _LIB, check_call
from onnx import helper
from operators import operator, run_mxnet

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


@pytest.mark.usefixtures("np_shape")
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("sizes", ["known", "unknown"])
def test_sorting_nothing(shape: tuple[int, int], sizes: str) -> None:
    known = shape if sizes == "known" else (None, None)
    symbol, _ = mxtrt.optimize(
        mx.sym.sort(mx.sym.var("x")), shapes={"x": known}, min_subgraph_size=1, engine="onnxruntime"
    )
    (found,) = run_mxnet(symbol, {"x": np.zeros(shape, "float32")})
    assert found.shape == shape


PRODUCT = operator("_npi_einsum", 2, subscripts="ij,jk->ik", num_args=2)
DIES = "Einsum" in engine_module.DIES_OF_NOTHING


@pytest.mark.usefixtures("np_shape")
def test_an_einsum_that_would_end_the_process_stays() -> None:
    shapes = {"x0": (2, 0), "x1": (0, 3)}
    report = mxtrt.explain(PRODUCT, shapes=shapes, min_subgraph_size=1, engine="onnxruntime")
    reasons = list(report.left.values())
    assert len(reasons) == DIES
    assert all("Einsum of ONNX Runtime" in reason for reason in reasons)
    optimized, _ = mxtrt.optimize(PRODUCT, shapes=shapes, min_subgraph_size=1, engine="onnxruntime")
    arrays = {name: np.zeros(shape, "float32") for name, shape in shapes.items()}
    np.testing.assert_array_equal(run_mxnet(optimized, arrays)[0], np.zeros((2, 3)))


@pytest.mark.usefixtures("np_shape")
def test_an_einsum_that_would_end_the_process_is_an_error() -> None:
    shapes = {"x0": (None, None), "x1": (None, None)}
    optimized, _ = mxtrt.optimize(PRODUCT, shapes=shapes, min_subgraph_size=1, engine="onnxruntime")
    nothing = {"x0": np.zeros((2, 0), "float32"), "x1": np.zeros((0, 3), "float32")}
    if DIES:
        with pytest.raises(mx.base.MXNetError, match="Einsum of ONNX Runtime"):
            run_mxnet(optimized, nothing)
    else:
        np.testing.assert_array_equal(run_mxnet(optimized, nothing)[0], np.zeros((2, 3)))
    ones = {"x0": np.ones((2, 4), "float32"), "x1": np.ones((4, 3), "float32")}
    np.testing.assert_array_equal(run_mxnet(optimized, ones)[0], np.full((2, 3), 4))


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
    assert reason.startswith(f"ONNX Runtime {ort.__version__}: ")


def test_a_float64_convolution_moves_or_says_why() -> None:
    symbol = mx.sym.Convolution(mx.sym.var("data"), kernel=(1, 1), num_filter=2, name="c")
    params = {
        "c_weight": mx.nd.ones((2, 3, 1, 1), dtype="float64"),
        "c_bias": mx.nd.ones(2, dtype="float64"),
    }
    report = mxtrt.explain(symbol, params, min_subgraph_size=1)
    (reason,) = report.left.values()
    assert f"ONNX Runtime {ort.__version__}: " in reason


@pytest.mark.filterwarnings("error")
def test_a_transposed_float64_matrix_is_multiplied() -> None:
    symbol = mx.sym.linalg.gemm2(mx.sym.transpose(mx.sym.var("x")), mx.sym.var("w"))
    weight = np.random.default_rng(0).standard_normal((3, 4))
    optimized, kept = mxtrt.optimize(
        symbol,
        {"w": mx.nd.array(weight, dtype="float64")},
        shapes={"x": (None, 4)},
        dtypes={"x": "float64"},
        engine="onnxruntime",
    )
    assert not kept
    (found,) = run_mxnet(optimized, {"x": weight})
    np.testing.assert_allclose(found, weight.T @ weight, rtol=1e-12)


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
