"""MXNet's arrays on the GPU: ``pytest -m gpu`` with a CUDA build of MXNet."""

from __future__ import annotations

import ctypes

import mxnet as mx
import numpy as np
import pytest
from gpu_nets import convnet, images

import mxtrt
from mxtrt.engines import _cuda
from mxtrt.operator import engines

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not mx.context.num_gpus(), reason="MXNet is a CPU build, or has no GPU"),
]

EXACT = {"tf32": False, "strict": True, "engine": "tensorrt"}


def on_cpu(net, args, aux, x: np.ndarray) -> list[np.ndarray]:
    bound = net.bind(mx.cpu(), {"data": mx.nd.array(x), **args}, aux_states=aux, grad_req="null")
    return [output.asnumpy() for output in bound.forward(is_train=False)]


def address(array: mx.nd.NDArray) -> int:
    pointer = ctypes.c_void_p()
    mx.base.check_call(mx.base._LIB.MXNDArrayGetData(array.handle, ctypes.byref(pointer)))
    return pointer.value


def check(found: list, want: list) -> None:
    for have, expected in zip(found, want):
        assert have.context.device_type == "gpu"
        np.testing.assert_allclose(have.asnumpy(), expected, rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def optimized():
    """A net for any batch, on every GPU."""
    net, args, aux = convnet(outputs=True)
    symbol, kept = mxtrt.optimize(net, (args, aux), **EXACT)
    assert not kept[0]
    assert not kept[1]
    yield (net, args, aux), symbol
    mxtrt.release(symbol)


GPUS = range(mx.context.num_gpus())


@pytest.mark.parametrize("index", GPUS)
def test_an_executor(optimized, index):
    original, symbol = optimized
    gpu = mx.gpu(index)
    data = mx.nd.array(images(2), ctx=gpu)
    bound = symbol.bind(gpu, {"data": data}, grad_req="null")
    for seed in range(8):  # enough for a CUDA graph
        data[:] = mx.nd.array(images(2, seed=seed), ctx=gpu)
        check(bound.forward(is_train=False), on_cpu(*original, images(2, seed=seed)))


@pytest.mark.parametrize("index", GPUS)
def test_the_engine_gets_the_arrays_themselves(optimized, index):
    _, symbol = optimized
    gpu = mx.gpu(index)
    data = mx.nd.array(images(2), ctx=gpu)
    bound = symbol.bind(gpu, {"data": data}, grad_req="null")
    outputs = bound.forward(is_train=False)
    mx.nd.waitall()
    [engine] = engines(symbol)
    engine = getattr(engine, "_engine", engine)
    [(_, plan)] = engine._plans[index]
    assert plan.gpu.index == index
    assert not plan._idle, "arrays on the GPU must not be staged"
    contexts = [c for c in plan._on_streams.values() if address(data) in c.addresses.values()]
    assert len(contexts) == 1
    given = {name: contexts[0].context.get_tensor_address(name) for name in contexts[0].addresses}
    assert given == contexts[0].addresses
    assert set(given.values()) == {address(array) for array in (data, *outputs)}


@pytest.mark.parametrize("index", GPUS)
@pytest.mark.parametrize("options", [{}, {"static_alloc": True},
                                     {"static_alloc": True, "static_shape": True}])  # fmt: skip
def test_gluon(optimized, index, options):
    original, symbol = optimized
    block = mx.gluon.SymbolBlock(symbol, [mx.sym.var("data")])
    block.hybridize(**options)
    for batch in (2, 2, 3, 2, 5, 5, 5, 5, 5):
        x = images(batch, seed=batch)
        check(block(mx.nd.array(x, ctx=mx.gpu(index))), on_cpu(*original, x))


def test_arrays_on_the_cpu_and_on_the_gpu_in_turn(optimized):
    original, symbol = optimized
    block = mx.gluon.SymbolBlock(symbol, [mx.sym.var("data")])
    block.hybridize()
    for seed in range(4):
        x = images(2, seed=seed)
        want = on_cpu(*original, x)
        check(block(mx.nd.array(x, ctx=mx.gpu(0))), want)
        for have, expected in zip(block(mx.nd.array(x)), want):
            assert have.context.device_type == "cpu"
            np.testing.assert_allclose(have.asnumpy(), expected, rtol=1e-3, atol=1e-5)


def test_parts_with_mxnet_in_between():
    """On a GPU that MXNet has kernels for or not: a reshape in MXNet between two parts."""
    net, args, aux = convnet(outputs=True)
    x = mx.sym.Reshape(net[0], shape=(0, 32, -1), name="between")
    x = mx.sym.Reshape(x, shape=(0, 0, 14, 14), name="back")
    net = mx.sym.tanh(mx.sym.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="max"))
    args = {name: array for name, array in args.items() if not name.startswith("fc")}
    symbol, _ = mxtrt.optimize(net, (args, aux), exclude_nodes=["between"], **EXACT)
    assert len(engines(symbol)) == 2
    gpu, x = mx.gpu(0), images(2)
    bound = symbol.bind(gpu, {"data": mx.nd.array(x, ctx=gpu)}, grad_req="null")
    check(bound.forward(is_train=False), on_cpu(net, args, aux, x))
    mxtrt.release(symbol)


def test_no_memory_is_lost(optimized):
    _, symbol = optimized
    gpu = mx.gpu(0)
    block = mx.gluon.SymbolBlock(symbol, [mx.sym.var("data")])
    block.hybridize(static_alloc=True, static_shape=True)
    data = [mx.nd.array(images(4, seed=seed), ctx=gpu) for seed in range(3)]

    def calls(count: int) -> int:
        for index in range(count):
            block(data[index % 3])
        mx.nd.waitall()
        with _cuda.gpu(0) as device:
            return device.memory()[0]

    calls(100)
    lost = calls(1) - calls(1000)
    assert lost < 8 << 20, f"{lost >> 20} MiB lost in 1,000 calls"
