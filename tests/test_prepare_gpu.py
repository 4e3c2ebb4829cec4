"""Preparing a GPU that MXNet has no kernels for, with a stand-in for what fails there."""

from __future__ import annotations

import mxnet as mx
import pytest

import mxtrt
from mxtrt import _bridge, mxnet_gpu
from mxtrt.errors import EngineError

SEED_FAILS = (
    "[06:00:00] random_generator.cu:70: Name: Check failed: err == cudaSuccess (209 vs. 0) : "
    "rand_generator_seed_kernel ErrStr:no kernel image is available for execution on the device"
)


@pytest.fixture
def failures(monkeypatch):
    """What the next calls of the operator raise; the CPU takes the GPU's place."""
    mxtrt.optimize(mx.sym.tanh(mx.sym.tanh(mx.sym.var("data"))))  # loads the operators
    real, left = mx.nd._internal._mxtrt_engine, []

    class Failed:
        def __init__(self, made: mx.nd.NDArray, message: str) -> None:
            self.made, self.message = made, message

        def wait_to_read(self) -> None:
            self.made.wait_to_read()
            raise mx.base.MXNetError(self.message)

    def operator(*args, **attrs):
        made = real(*args, **attrs)
        return Failed(made, left.pop()) if left else made

    monkeypatch.setattr(mx.nd._internal, "_mxtrt_engine", operator)
    monkeypatch.setattr(mx, "gpu", lambda index: mx.cpu(index))
    return left


@pytest.mark.parametrize("count", [0, 1, 4, 100])
def test_failures_are_waited_for(failures, count):
    failures += [SEED_FAILS] * count
    mxnet_gpu.prepare(0)
    assert not failures
    assert "mxtrt:nothing" not in _bridge.registered()


def test_other_errors_are_told(failures):
    failures += ["out of memory", SEED_FAILS]
    with pytest.raises(EngineError, match=r"library operators on gpu\(1\): out of memory"):
        mxnet_gpu.prepare(1)


def test_it_ends(failures):
    failures += [SEED_FAILS] * 1000
    with pytest.raises(EngineError, match="no kernel image"):
        mxnet_gpu.prepare(0)
