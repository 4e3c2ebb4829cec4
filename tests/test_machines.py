"""Machines that do not fit: drivers, GPUs and memory, each with one clear sentence."""

from __future__ import annotations

import ctypes
import importlib.util
import threading
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from test_tensorrt import (
    FakeBuffer,
    FakeEngine,
    FakeGpu,
    Old,
    call,
    convnet,
    fake_plan,
    needs_rtx,
    old_api,
)

import mxtrt
from mxtrt import engines
from mxtrt.engines import _cuda, _nvidia, tensorrt
from mxtrt.errors import BadOption, EngineError, EngineNotAvailable
from mxtrt.options import Options


def start(monkeypatch, *messages, made=None) -> None:
    """Start a builder that logs messages and is made, or not."""
    api = old_api()
    del api.builder
    api._builders, api._has_plugins, api.logger.said = {}, False, ""
    collected = [(1, message) for message in messages]
    api.logger.collecting = lambda quiet=False: nullcontext(collected)

    def builder(logger):
        if made is None:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return made

    monkeypatch.setattr(Old, "Builder", builder, raising=False)
    api.builder()


def test_a_builder_and_a_runtime_for_each_gpu(monkeypatch):
    """TensorRT refuses to build on another GPU than that on which its builder was made."""
    api = old_api()
    del api.builder
    api._builders, api._runtimes, api._has_plugins, added = {}, {}, False, []
    api.logger.collecting = lambda quiet=False: nullcontext([])
    for name in ("Builder", "Runtime"):
        monkeypatch.setattr(Old, name, lambda logger: SimpleNamespace(), raising=False)
    monkeypatch.setattr(
        Old, "init_libnvinfer_plugins", lambda *_: added.append(True), raising=False
    )
    for make in (api.builder, api.runtime):
        made = []
        for device in (0, 1, 0):
            monkeypatch.setattr(_cuda, "current_device", lambda device=device: device)
            made.append(make())
        assert made[0] is made[2]
        assert made[0] is not made[1]
    assert added == [True]


def test_a_driver_that_is_too_old(monkeypatch):
    said = "CUDA initialization failure with error: 35. Please check your CUDA installation:  http"
    with pytest.raises(
        EngineNotAvailable, match=r"TensorRT 8\.5 cannot start: NVIDIA's driver is t"
    ):
        start(monkeypatch, said)
    with pytest.raises(
        EngineNotAvailable, match=r"cannot start: CUDA initialization failure .* 999"
    ):
        start(monkeypatch, said.replace("35", "999"))
    with pytest.raises(EngineNotAvailable, match="cannot start: there is no GPU"):
        start(monkeypatch, said.replace("35", "100"))


def test_a_driver_without_a_function(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    with pytest.raises(EngineError, match="driver is too old: it has no cuGraphLaunch"):
        _cuda._driver_library("cuGraphLaunch")


def test_a_gpu_that_tensorrt_does_not_support(monkeypatch):
    said = "Target GPU SM 120 is not supported by this TensorRT release."
    with pytest.raises(
        EngineNotAvailable, match=r"^TensorRT 8\.5: Target GPU SM 120 is not suppor"
    ):
        start(monkeypatch, said, made=object())
    builder = tensorrt.TensorRTBuilder(old_api(), Options())
    monkeypatch.setattr(Old.IBuilderConfig, "set_compute_capability", None, raising=False)
    capabilities = SimpleNamespace(__members__={"SM86": 0})
    monkeypatch.setattr(Old, "ComputeCapability", capabilities, raising=False)
    gpu = FakeGpu()
    gpu.capability = (9, 0)
    with pytest.raises(EngineNotAvailable, match=r"does not support a stand-in .*capability 9\.0"):
        builder.require_gpu(gpu)


class FakeDriver:
    class Error(Exception):
        pass

    class MemoryError(Error):
        pass

    class Device:
        def __init__(self, index):
            pass

        @staticmethod
        def count():
            return 2

    def mem_alloc(self, nbytes):
        raise self.MemoryError("cuMemAlloc failed: out of memory")

    def pagelocked_empty(self, *_):
        raise self.Error("cuMemHostAlloc failed: out of memory")


def test_a_wrong_device(monkeypatch):
    monkeypatch.setattr(_cuda, "_driver_module", FakeDriver())
    monkeypatch.setattr(_cuda, "_gpus", {})
    monkeypatch.setattr(_nvidia, "installed", lambda name: True)
    net, args, aux = convnet()
    with pytest.raises(
        BadOption, match="device=7: there is no such GPU; this machine has GPUs 0 t"
    ):
        mxtrt.optimize(net, (args, aux), engine="tensorrt", device=7)


@pytest.mark.parametrize(
    ("engine", "there", "expected"),
    [
        ("tensorrt", True, ["cuInit", "cuDevicePrimaryCtxRetain"]),
        ("auto", True, ["cuInit", "cuDevicePrimaryCtxRetain"]),
        ("auto", False, []),
        ("onnxruntime", True, []),
    ],
)
def test_the_gpu_starts_while_the_model_is_read(engine, there, expected, monkeypatch):
    started = []

    class Library:
        @staticmethod
        def cuInit(flags):  # noqa: N802
            started.append("cuInit")
            return 0

        @staticmethod
        def cuDevicePrimaryCtxRetain(context, index):  # noqa: N802
            started.append("cuDevicePrimaryCtxRetain")
            assert index == 3
            return 0

    monkeypatch.setattr(_cuda, "_driver_library", lambda *names: Library)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: there or None)
    _cuda.wake.cache_clear()
    engines.prepare(Options(engine=engine, device=3))
    for thread in threading.enumerate():
        if thread.name == "mxtrt: CUDA starts":
            thread.join()
    _cuda.wake.cache_clear()
    assert started == expected


def test_no_memory_for_arrays():
    gpu = object.__new__(_cuda.Gpu)
    gpu.index, gpu.name, gpu._drv = 0, "a GPU", FakeDriver()
    with pytest.raises(EngineError, match=r"0: a GPU> has no 3 MiB left: .*out of memory"):
        gpu.device_memory(3 << 20)
    with pytest.raises(EngineError, match="3 MiB of memory cannot be pinned"):
        gpu.pinned_memory(3 << 20)


@pytest.mark.parametrize("rank", [1, 2])
def test_no_memory_for_a_build(rank):
    said = "[defaultAllocator.cpp::allocate::20] Error Code 1: Cuda Runtime (out of memory)"
    error = _nvidia.failed("TensorRT cannot build mxtrt0", [(1, "first"), (rank, said)])
    assert str(error).startswith(
        "TensorRT cannot build mxtrt0: the GPU has too little free memory for it; make the sizes or"
    )
    assert "Cuda Runtime (out of memory)" in str(error)


def test_no_memory_in_a_call():
    plan = fake_plan(FakeEngine())
    plan.engine.fails = True
    plan.api.logger.said = "Error Code 2: OutOfMemory (no further information)"
    x = np.ones((2, 4), np.float32)
    for device_type in (1, 2):
        buffers = [FakeBuffer(x, device_type)], [FakeBuffer(x.copy(), device_type)]
        with pytest.raises(EngineError, match="could not enqueue the engine: the GPU has too litt"):
            plan.execute(*buffers, 0)
    plan.api.logger.said = "CUDA error 700"
    with pytest.raises(EngineError, match="could not enqueue the engine: CUDA error 700"):
        call(plan, x)
    plan.engine.fails = False
    np.testing.assert_array_equal(call(plan, x), 2 * x + 1)


@needs_rtx
def test_the_last_error_is_of_this_thread_and_told_once():
    rtx = _nvidia.api("tensorrt_rtx")
    logger, severity = rtx.logger, rtx.module.ILogger.Severity
    logger.last_error()
    with logger.collecting(quiet=True):
        other = threading.Thread(target=logger.log, args=(severity.ERROR, "of another thread"))
        other.start()
        other.join()
        assert not logger.last_error()
        logger.log(severity.ERROR, "mine")
    assert logger.last_error() == "mine"
    assert not logger.last_error()
