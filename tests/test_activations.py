"""Memory for activations, which plans share; the fakes look whether two use it at once."""

from __future__ import annotations

import gc
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from test_tensorrt import FakeBuffer, FakeContext, FakeEngine, FakeGpu, Old, call, fake_plan

from mxtrt.engines import _activations, _execution
from mxtrt.errors import EngineError

X = np.ones((2, 4), np.float32)


def engine_of(nbytes: int, seconds: float = 0.0) -> FakeEngine:
    engine = FakeEngine()
    engine.device_memory_size, engine.seconds = nbytes, seconds
    return engine


def activations(gpu: FakeGpu) -> list[int]:
    """Return the sizes of what is allocated, but for the arrays of `X`'s size."""
    return sorted(m.nbytes for m in gpu.allocated if not m.freed and m.nbytes != X.nbytes)


def on_gpu(plan: _execution.LoadedPlan, stream: int) -> np.ndarray:
    y = np.zeros_like(X)
    plan.execute([FakeBuffer(X, 2)], [FakeBuffer(y, 2)], stream)
    return y


@pytest.mark.parametrize("order", [(640, 64, 6400), (6400, 640, 64)])
def test_plans_that_run_in_turn_need_as_much_as_the_largest(order):
    gpu = FakeGpu()
    plans = [fake_plan(engine_of(nbytes), gpu) for nbytes in order]
    for _ in range(2):
        for plan in plans:
            np.testing.assert_array_equal(call(plan, X), 2 * X + 1)
    assert activations(gpu) == [6400]
    for plan in plans[:2]:
        plan.close()
    np.testing.assert_array_equal(call(plans[2], X), 2 * X + 1)
    plans[2].close()
    assert activations(gpu) == []


def test_plans_on_one_stream_share_and_streams_do_not():
    gpu = FakeGpu()
    plans = [fake_plan(engine_of(nbytes), gpu) for nbytes in (64, 640)]
    for stream in (11, 22, 11):
        for plan in plans:
            np.testing.assert_array_equal(on_gpu(plan, stream), 2 * X + 1)
    assert activations(gpu) == [640, 640]
    for plan in plans:
        plan.close()
    assert activations(gpu) == []


def test_calls_at_once_have_memory_of_their_own():
    gpu = FakeGpu()
    plans = [fake_plan(engine_of(64, seconds=0.002), gpu, lanes=2) for _ in range(3)]
    wrong: list[object] = []

    def work(index: int) -> None:
        for turn in range(10):
            x = np.full((2, 4), index + turn, np.float32)
            try:
                np.testing.assert_array_equal(call(plans[(index + turn) % 3], x), 2 * x + 1)
            except BaseException as error:  # of the fakes as well
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert max(plan.engine.most for plan in plans) == 2
    assert len(activations(gpu)) <= 6
    assert not any(memory.lock.locked() for memory in gpu.activations.values())


def test_a_plan_waits_where_all_its_memory_is_in_use():
    gpu = FakeGpu()
    slow, other = fake_plan(engine_of(64), gpu, lanes=1), fake_plan(engine_of(64), gpu, lanes=1)
    call(slow, X)
    call(other, X)
    assert len(gpu.activations) == 1
    slow.engine.seconds = 0.2
    thread = threading.Thread(target=call, args=(slow, X))
    thread.start()
    while not slow.engine.running:
        thread.join(0.001)
    np.testing.assert_array_equal(call(other, X), 2 * X + 1)
    assert not slow.engine.running, "both have one lane, on the same memory"
    thread.join()


def test_a_failed_call_gives_the_memory_back():
    gpu = FakeGpu()
    plan = fake_plan(engine_of(64), gpu, lanes=1)
    plan.engine.fails = True
    for _ in range(2):
        with pytest.raises(EngineError, match="could not enqueue"):
            call(plan, X)
    assert activations(gpu) == []
    plan.engine.fails = False
    np.testing.assert_array_equal(call(plan, X), 2 * X + 1)


def test_no_memory_for_activations():
    gpu = FakeGpu()
    plan = fake_plan(engine_of(64), gpu)
    allocate = gpu.device_memory

    def limited(nbytes):
        if nbytes > 100:
            raise EngineError("a stand-in has no 0 MiB left")
        return allocate(nbytes)

    gpu.device_memory = limited
    call(plan, X)
    with pytest.raises(EngineError, match="no 0 MiB left"):
        call(fake_plan(engine_of(640), gpu), X)
    np.testing.assert_array_equal(call(plan, X), 2 * X + 1)  # which has lost its memory meanwhile
    plan.close()
    assert activations(gpu) == []


def test_one_context_for_all_streams_takes_the_memory_of_each():
    gpu = FakeGpu()
    plan = fake_plan(engine_of(64), gpu)
    plan._one_context, plan.max_lanes = True, 1
    other = fake_plan(engine_of(640), gpu)
    for stream in (11, 22, 11):
        on_gpu(other, stream)
        np.testing.assert_array_equal(on_gpu(plan, stream), 2 * X + 1)
        [context] = plan._on_streams.values()
        assert context.context.device_memory == other._on_streams[stream].context.device_memory
    plan.close()
    other.close()
    assert activations(gpu) == []


def test_since_tensorrt_10(monkeypatch):
    """Contexts are asked for by a strategy, and memory is given with its size."""
    given = []

    class Context(FakeContext):
        def set_device_memory(self, address, nbytes):
            given.append(nbytes)
            self.device_memory = address

    class Engine(FakeEngine):
        device_memory_size_v2 = 128
        create_execution_context_without_device_memory = None

        def create_execution_context(self, strategy):
            assert strategy == "mine"
            return Context(self)

    class Module(Old):
        ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="mine")

    gpu = FakeGpu()
    plan = fake_plan(Engine(), gpu)
    plan.api.module = Module
    np.testing.assert_array_equal(call(plan, X), 2 * X + 1)
    assert given == [128]
    assert activations(gpu) == [128]


def test_an_engine_that_needs_none():
    context = SimpleNamespace()
    memory = _activations.Activations(FakeGpu())
    assert memory.reserve(0) == 0
    _activations.give_memory(context, 256, 64)
    assert context.device_memory == 256


def test_a_plan_that_is_collected_meanwhile(monkeypatch):
    """The garbage collector may free a plan while another one looks for memory."""
    gpu = FakeGpu()
    forgotten = fake_plan(engine_of(640), gpu)
    call(forgotten, X)

    class Collecting(dict):
        def setdefault(self, *args):
            nonlocal forgotten
            forgotten = None
            gc.collect()
            return dict.setdefault(self, *args)

    gpu.activations = Collecting(gpu.activations)
    plan = fake_plan(engine_of(64), gpu)
    thread = threading.Thread(target=call, args=(plan, X), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert activations(gpu) == [64]
