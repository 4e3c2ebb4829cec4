"""Engines on more than one GPU: ``pytest -m gpu`` on a host with two."""

from __future__ import annotations

import threading

import mxnet as mx
import numpy as np
import pytest
from gpu_nets import convnet, images

import mxtrt
from mxtrt.arrays import TYPE_FLAGS
from mxtrt.engines import _cuda
from mxtrt.engines._streams import download, upload
from mxtrt.errors import BadOption, EngineNotAvailable
from mxtrt.operator import engines


def _gpus() -> int:
    try:
        return int(_cuda.driver().Device.count())
    except EngineNotAvailable:
        return 0


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(_gpus() < 2, reason="there are not two GPUs"),
]

EXACT = {"tf32": False, "strict": True, "engine": "tensorrt"}


def run(symbol, params, x: np.ndarray) -> np.ndarray:
    args, aux = params
    given = {"data": mx.nd.array(x), **args}
    bound = symbol.bind(mx.cpu(), given, aux_states=aux, grad_req="null")
    return bound.forward(is_train=False)[0].asnumpy()


class Device:
    """Device memory as the bridge hands over one of MXNet's arrays on a GPU."""

    device_type = 2

    def __init__(self, gpu: _cuda.Gpu, shape: tuple[int, ...]) -> None:
        self.memory = gpu.device_memory(4 * int(np.prod(shape)))
        self.address, self.shape, self.device_id = int(self.memory), shape, gpu.index
        self.dtype = TYPE_FLAGS["float32"]


@pytest.mark.parametrize("device", [0, 1])
def test_arrays_on_the_cpu_go_where_the_option_says(device):
    symbol, *params = convnet()
    shapes = {"data": (2, 3, 32, 32)}
    optimized, kept = mxtrt.optimize(symbol, params, shapes=shapes, device=device, **EXACT)
    have = run(optimized, kept, images(2))
    np.testing.assert_allclose(have, run(symbol, params, images(2)), rtol=1e-3, atol=1e-5)
    [engine] = engines(optimized)
    assert list(engine._plans) == [device]
    assert engine._plans[device][0][1].gpu.index == device
    mxtrt.release(optimized)


def test_both_at_once():
    symbol, *params = convnet()
    want = {seed: run(symbol, params, images(2, seed=seed)) for seed in range(20)}
    wrong = []

    def work(device: int) -> None:
        optimized, kept = mxtrt.optimize(symbol, params, device=device, **EXACT)
        for seed, expected in want.items():
            if not np.allclose(run(optimized, kept, images(2, seed=seed)), expected, 1e-3, 1e-5):
                wrong.append((device, seed))
        mxtrt.release(optimized)

    threads = [threading.Thread(target=work, args=(device,)) for device in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_engine_for_each_gpu_that_arrays_lie_on():
    symbol, *params = convnet()
    optimized, _ = mxtrt.optimize(symbol, params, shapes={"data": (2, 3, 32, 32)}, **EXACT)
    [engine] = engines(optimized)
    x = images(2)
    want = run(symbol, params, x)
    for index in (1, 0, 1):
        with _cuda.gpu(index) as gpu:
            stream = gpu.stream()
            source, target = Device(gpu, (2, 3, 32, 32)), Device(gpu, (2, 10))
            found = np.zeros((2, 10), np.float32)
            upload(source.address, x.ctypes.data, x.nbytes, stream.handle)
            engine.execute([source], [target], stream.handle)
            download(found.ctypes.data, target.address, found.nbytes, stream.handle)
            stream.synchronize()
            np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-5)
    assert sorted(engine._plans) == [0, 1]
    mxtrt.release(optimized)


def test_a_gpu_that_is_not_there():
    symbol, *params = convnet()
    with pytest.raises(BadOption, match=f"device={_gpus()}: there is no such GPU; this machine"):
        mxtrt.optimize(symbol, params, device=_gpus(), **EXACT)
