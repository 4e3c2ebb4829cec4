"""Arrays of MXNet in pinned memory, on a stand-in for the GPU."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from operators import run_mxnet
from test_tensorrt import FakeGpu

import mxtrt
from mxtrt.arrays import address_of
from mxtrt.engines import _cuda
from mxtrt.errors import BadOption, EngineNotAvailable


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    gpu = FakeGpu()
    monkeypatch.setattr(_cuda, "gpu", lambda index: gpu)
    return gpu


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int64"])
@pytest.mark.parametrize("shape", [(2, 3), 5, ()])
def test_an_array_like_any_other(gpu: FakeGpu, shape: tuple[int, ...], dtype: str) -> None:
    array = mxtrt.pinned_array(shape, dtype)
    sizes = (shape,) if isinstance(shape, int) else shape
    assert array.dtype == np.dtype(dtype)
    assert array.context == mx.cpu()
    [memory] = gpu.pinned
    assert address_of(array) == memory.ctypes.data
    if not sizes:
        return  # MXNet has arrays without axes where its NumPy semantics are on
    assert array.shape == sizes
    np.testing.assert_array_equal(array.asnumpy(), np.zeros(sizes, dtype))
    array[:] = 7
    array.wait_to_read()
    assert (memory.view(dtype) == 7).all()


def test_executors_read_it(gpu: FakeGpu) -> None:
    array = mxtrt.pinned_array((2, 4))
    net = mx.sym.relu(mx.sym.var("data")) * 2
    bound = net.bind(mx.cpu(), {"data": array}, grad_req="null")
    for seed in range(2):
        batch = np.random.default_rng(seed).standard_normal((2, 4)).astype("float32")
        array[:] = batch
        want = run_mxnet(net, {"data": batch})[0]
        np.testing.assert_array_equal(bound.forward()[0].asnumpy(), want)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((2, 3), "flaot32", "dtype='flaot32' is none of MXNet's; did you mean 'float32'?"),
        ((2, 0), "float32", r"shape=\(2, 0\): sizes have to be 1 or more"),
        (-1, "float32", r"shape=\(-1,\): sizes have to be 1 or more"),
    ],
)
@pytest.mark.usefixtures("gpu")
def test_what_no_array_can_be(shape: object, dtype: str, message: str) -> None:
    with pytest.raises(BadOption, match=message.replace("?", r"\?")):
        mxtrt.pinned_array(shape, dtype)  # type: ignore[arg-type]


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def gpu(index: int) -> None:
        raise EngineNotAvailable("there is no GPU")

    monkeypatch.setattr(_cuda, "gpu", gpu)
    with pytest.raises(EngineNotAvailable, match="there is no GPU"):
        mxtrt.pinned_array((2, 3))
