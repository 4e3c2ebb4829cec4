"""Forks, signals, errors, threads, memory and the end of the process, with optimised models."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

import mxtrt
from mxtrt import forks
from mxtrt.operator import operators

PREAMBLE = """
import faulthandler, os, signal, sys, threading, time
faulthandler.dump_traceback_later(80, exit=True)
import mxtrt
import mxnet as mx
import numpy as np

def make(width=128):
    net = mx.gluon.nn.HybridSequential()
    for _ in range(4):
        net.add(mx.gluon.nn.Dense(width, activation="tanh", in_units=width))
    net.initialize(mx.init.Xavier())
    return net

def right(found):
    return bool(np.allclose(found.asnumpy(), expected, 1e-4, 1e-5))

def child_of(work):
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if work() else 1)
        except BaseException as error:
            print(error, flush=True)
            os._exit(2)
    return child

def status(child):
    return os.waitpid(child, 0)[1]

net = make()
x = mx.nd.random.normal(shape=(32, 128))
expected = net(x).asnumpy()
"""

OPTIMIZED = """
block = mxtrt.optimize(net, x)
symbol = block._cached_graph[1]
executor = symbol.bind(mx.cpu(), {"data": x})
executor.forward()[0].wait_to_read()
"""


def process(body: str, *before: str, workers: int = 1) -> tuple[int, str, str]:
    """Run a program in a process of its own; return its status, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "".join((PREAMBLE, *before, textwrap.dedent(body)))],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "MXNET_CPU_WORKER_NTHREADS": str(workers)},
    )
    told = [line for line in done.stderr.splitlines() if "Subgraph backend MKLDNN" not in line]
    return done.returncode, done.stdout, "\n".join(told)


# -- fork ------------------------------------------------------------------------------------------


SLOW = pytest.mark.slow  # each of these is a process more, and another one runs always


@pytest.mark.parametrize(
    "module",
    [pytest.param("forks", marks=SLOW), pytest.param("operator", marks=SLOW), "gluon.block"],
)
def test_imports_in_any_order(module: str) -> None:
    code = f"import mxtrt.{module}, mxnet"
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], check=True)


def test_fork_after_import() -> None:
    """Parent and child optimise on their own afterwards."""
    work = "right(mxtrt.optimize(net, x)(x))"
    assert process(f"child = child_of(lambda: {work}); print({work}, status(child))") == (
        *(0, "True 0\n", ""),
    )


def test_fork_after_optimize() -> None:
    """Both go on with the engines, and the child builds others, and its own child runs, too."""
    code, out, errors = process(
        """
        def work():
            other = mxtrt.optimize(make(), x)(x).shape == x.shape
            ran = right(block(x)) and right(executor.forward()[0]) and other
            return ran and status(child_of(lambda: right(block(x)))) == 0

        children = [child_of(work) for _ in range(3)]
        print(right(block(x)), right(executor.forward()[0]), *map(status, children))
        """,
        OPTIMIZED,
    )
    assert (code, out, errors) == (0, "True True 0 0 0\n", "")


def test_fork_with_queued_calls() -> None:
    """MXNet waits for its threads before a fork; these need the lock of the interpreter."""
    code, out, errors = process(
        """
        for call in (lambda: block(x), lambda: executor.forward()[0].copy()):
            queued = [call() for _ in range(300)]
            child = child_of(lambda: right(block(x)) and right(queued[-1]))
            print(all(map(right, queued)), right(block(x)), status(child))
        """,
        OPTIMIZED,
    )
    assert (code, out, errors) == (0, "True True 0\n" * 2, "")


def test_fork_while_other_threads_call() -> None:
    code, out, errors = process(
        """
        done, wrong = threading.Event(), []

        def serve(kind):
            own = symbol.bind(mx.cpu(), {"data": x})
            while not done.is_set():
                found = block(x) if kind else own.forward()[0]
                if not right(found):
                    wrong.append(kind)

        threads = [threading.Thread(target=serve, args=(i % 2,)) for i in range(4)]
        for thread in threads:
            thread.start()
        ends = [status(child_of(lambda: right(block(x)))) for _ in range(10)]
        done.set()
        for thread in threads:
            thread.join()
        print(ends == [0] * 10, wrong)
        """,
        OPTIMIZED,
    )
    assert (code, out, errors) == (0, "True []\n", "")


def test_a_fork_waits_for_the_outer_of_two_calls() -> None:
    """A block's call holds its lock, and makes one of MXNet's: a child could never open it."""
    lock, begun, go_on = threading.Lock(), threading.Event(), threading.Event()

    def work() -> None:
        with forks.calls, lock:
            with forks.calls:
                begun.set()
            go_on.wait(20)
            with forks.calls:
                pass

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait(20)
    threading.Timer(0.1, go_on.set).start()
    forks.calls.close(20)
    try:
        assert not lock.locked()
    finally:
        forks.calls.open()
        thread.join()
    assert thread.ident not in forks.calls.inside


def test_nobody_waits_in_mxnet_during_a_fork() -> None:
    """A child would wait for ever for threads that wait, in MXNet, at the moment of the fork."""
    assert all(
        hasattr(getattr(mx.nd.NDArray, name), "__wrapped__")
        for name in ("asnumpy", "wait_to_read", "_sync_copyfrom")
    )
    done, waiting, seen = threading.Event(), set(), []

    def wait(number: int) -> None:
        waiting.add(number)
        time.sleep(0.0002)
        waiting.discard(number)

    read = forks._as_read(wait)
    threads = [
        threading.Thread(target=lambda i=i: [read(i) for _ in iter(done.is_set, True)])
        for i in range(3)
    ]
    for thread in threads:
        thread.start()
    for _ in range(50):
        time.sleep(0.001)
        forks.reads.close(20)
        seen.append(set(waiting))
        time.sleep(0.001)
        seen.append(set(waiting))
        forks.reads.open()
    done.set()
    for thread in threads:
        thread.join()
    assert seen == [set()] * 100
    assert forks.reads.inside == {}


def test_a_fork_waits_until_workers_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime's lock their queues while they look for work, for a moment after each call."""
    monkeypatch.setattr(forks, "_workers", set())
    monkeypatch.setattr(forks, "is_used", True)
    monkeypatch.setattr(forks, "SPINNING", 30)

    def work() -> None:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000)  # without the interpreter's lock

    thread = threading.Thread(target=work)
    with forks.noting_workers():
        thread.start()
    while not forks._any_awake():
        assert thread.is_alive()
    forks._before()
    forks._go_on()
    thread.join(1)
    assert not thread.is_alive()
    assert not forks._any_awake()
    assert forks._workers == set()  # it is no more


def test_sessions_note_their_workers() -> None:
    code, out, errors = process(
        """
        from mxtrt import forks
        print(len(forks._workers))
        print(status(child_of(lambda: forks._workers == set() and right(block(x)))))
        """,
        OPTIMIZED.replace("(net, x)", '(net, x, session_options={"intra_op_num_threads": 3})'),
    )
    assert (code, out, errors) == (0, "2\n0\n", "")


def test_failed_calls_are_told_after_a_fork() -> None:
    """The wait before the fork takes the error off the output: the next call raises it."""
    code, out, errors = process(
        """
        from mxtrt.errors import EngineError
        from mxtrt.operator import operators

        seen = []

        def fail(*_):
            seen.append(fail)
            raise EngineError("wanted")

        [part] = operators(symbol)
        works, part.execute = part.execute, fail
        failed = block(x)
        while fail not in seen:
            time.sleep(0.01)
        part.execute = works
        child = child_of(lambda: right(block(x)))
        try:
            block(x)
        except mx.MXNetError as error:
            print("wanted" in str(error), right(block(x)), status(child))
        """,
        OPTIMIZED,
    )
    assert (code, out, errors) == (0, "True True 0\n", "")


POOL = """
def work(seed):
    net = make(16)
    data = mx.nd.random.normal(shape=(2, 16))
    return np.allclose(mxtrt.optimize(net, data)(data).asnumpy(), net(data).asnumpy(), 1e-4, 1e-5)

if __name__ == "__main__":
    import multiprocessing
    block = mxtrt.optimize(net, x)
    queued = block(x)
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        print(all(pool.map(work, range(4))), right(queued), right(block(x)))
"""


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_multiprocessing(method: str, tmp_path: Any) -> None:
    program = tmp_path / "program.py"  # spawn imports it
    program.write_text(PREAMBLE + POOL)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(program), method],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "True True True\n"), done.stderr


def test_data_loader_workers() -> None:
    """Workers are forked while calls are queued; MXNet's shared memory feeds the net."""
    code, out, errors = process(
        """
        data = mx.gluon.data.ArrayDataset(np.tile(x.asnumpy(), (4, 1)))
        queued = [block(x) for _ in range(50)]
        for workers in (1, 2):
            loader = mx.gluon.data.DataLoader(data, batch_size=32, num_workers=workers)
            print([right(block(batch)) for epoch in range(2) for batch in loader])
        print(all(map(right, queued)))
        """,
        OPTIMIZED,
    )
    assert (code, out, errors) == (0, f"{[True] * 8}\n" * 2 + "True\n", "")


# -- the end of the process ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("", 0),
        pytest.param("sys.exit(3)", 3, marks=SLOW),
        pytest.param("mxtrt.release(symbol)", 0, marks=SLOW),
        ("threading.Thread(target=lambda: [block(x) for _ in range(50)]).start()", 0),
    ],
    ids=["falls off", "exit", "released", "a thread"],
)
def test_exit_with_queued_calls(ending: str, code: int) -> None:
    """Nothing is printed, nothing hangs: what is queued runs, or is dropped."""
    body = "outputs = [block(x) for _ in range(200)]\nexecutor.forward()\n" + ending
    assert process(body, OPTIMIZED) == (code, "", "")


def test_exit_with_daemons() -> None:
    """Their last calls may fail; nothing else happens."""
    code, out, errors = process(
        """
        def serve():
            while True:
                block(x).asnumpy()

        for _ in range(4):
            threading.Thread(target=serve, daemon=True).start()
        time.sleep(0.2)
        """,
        OPTIMIZED,
    )
    assert (code, out) == (0, "")
    assert "Exception ignored" not in errors
    assert "Fatal" not in errors


def test_exit_by_an_error_tells_only_of_it() -> None:
    code, out, errors = process("[block(x) for _ in range(200)]\n1 / 0", OPTIMIZED)
    assert (code, out) == (1, "")
    assert errors.startswith("Traceback")
    assert errors.endswith("ZeroDivisionError: division by zero")
    assert "Exception ignored" not in errors


# -- signals ---------------------------------------------------------------------------------------


def test_ctrl_c_in_a_call() -> None:
    """It comes as everywhere in MXNet: once the wait for the output returns."""
    code, out, errors = process(
        """
        seen = 0
        for moment in (0.005, 0.02, 0.05):
            threading.Timer(moment, os.kill, (os.getpid(), signal.SIGINT)).start()
            end = time.monotonic() + 20
            try:
                while time.monotonic() < end:
                    block(x).asnumpy()
                    executor.forward()[0].asnumpy()
            except KeyboardInterrupt:
                seen += 1
        print(seen, right(block(x)), right(executor.forward()[0]))
        """,
        OPTIMIZED,
    )
    # Python tells of one that comes while an array is being deleted, and goes on
    lost = errors.count("Exception ignored in: <function NDArrayBase.__del__")
    assert (code, out) == (0, f"{3 - lost} True True\n"), errors
    assert bool(errors) == bool(lost)


def test_ctrl_c_that_nobody_catches_ends_the_process() -> None:
    code, _, errors = process(
        """
        ended = threading.Event()

        def interrupt():  # again: one that comes in a finalizer of MXNet's is lost, as everywhere
            while not ended.wait(1):
                os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        try:
            for _ in iter(int, 1):
                block(x)
                time.sleep(0.0001)
        finally:
            ended.set()
        """,
        OPTIMIZED,
    )
    assert code == -2, errors  # SIGINT
    assert errors.endswith("KeyboardInterrupt")
    ignored = [line for line in errors.splitlines() if "Exception ignored" in line]
    assert all("NDArray.__del__" in line for line in ignored)


# -- errors ----------------------------------------------------------------------------------------


def small_net() -> tuple[nn.HybridSequential, mx.nd.NDArray]:
    net = nn.HybridSequential()
    net.add(nn.Dense(16, activation="relu", in_units=8), nn.Dense(4, in_units=16))
    net.initialize(mx.init.Xavier())
    return net, mx.nd.random.normal(shape=(3, 8))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, MemoryError])
def test_an_error_in_the_middle_of_a_call(error: type[BaseException]) -> None:
    """Each failed call is told where its output is read, and those beside it are right."""
    net, x = small_net()
    expected, block = net(x).asnumpy(), mxtrt.optimize(net, x)
    [part] = operators(block)
    works = part.execute
    outputs = []
    for number in range(6):
        part.execute = works if number % 2 else _raises(error("wanted"))
        outputs.append(block(x))
        with pytest.raises(mx.MXNetError, match="wanted") if number % 2 == 0 else _nothing():
            outputs[-1].wait_to_read()
    for output in outputs[1::2]:
        np.testing.assert_allclose(output.asnumpy(), expected, 1e-4, 1e-5)


def _raises(error: BaseException) -> Any:
    def execute(*_: Any) -> None:
        raise error

    return execute


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()


def test_wrong_arguments_in_the_middle() -> None:
    net, x = small_net()
    expected, block = net(x).asnumpy(), mxtrt.optimize(net, x)
    for wrong in (mx.nd.ones((3, 5)), mx.nd.ones(8), x.astype("float64")):
        with pytest.raises((mx.MXNetError, ValueError, RuntimeError)):
            block(wrong).asnumpy()
        np.testing.assert_allclose(block(x).asnumpy(), expected, 1e-4, 1e-5)


# -- threads and memory ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["block", "hybridized", "executors"])
def test_eight_threads_on_one_net(way: str) -> None:
    net, _ = small_net()
    inputs = [mx.nd.random.normal(shape=(1 + i % 3, 8)) for i in range(8)]
    expected = [net(x).asnumpy() for x in inputs]
    block: Any = mxtrt.optimize(net, inputs[0])
    calls: list[Any] = [block] * 8
    if way == "hybridized":
        net.hybridize(backend="mxtrt")
        net(inputs[0]).wait_to_read()
        calls = [net] * 8
    if way == "executors":
        symbol = block._cached_graph[1]
        bound = [symbol.bind(mx.cpu(), {"data": x}) for x in inputs]
        calls = [lambda _, own=own: own.forward()[0] for own in bound]
    before = mxtrt.report(net if way == "hybridized" else block).runtime.calls
    wrong: list[object] = []

    def work(i: int) -> None:
        try:
            for _ in range(50):
                np.testing.assert_allclose(calls[i](inputs[i]).asnumpy(), expected[i], 1e-4, 1e-5)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert mxtrt.report(net if way == "hybridized" else block).runtime.calls - before == 400


def test_engines_run_several_calls_at_once() -> None:
    """MXNet does so with more workers: results are right, and no call is lost in the count."""
    code, out, errors = process(
        """
        inputs = [mx.nd.random.normal(shape=(1 + i, 128)) for i in range(8)]
        wants = [net(each).asnumpy() for each in inputs]
        before, wrong = mxtrt.report(symbol).runtime.calls, []

        def serve(i):
            own = symbol.bind(mx.cpu(), {"data": inputs[i]})
            for _ in range(200):
                if not np.allclose(own.forward()[0].asnumpy(), wants[i], 1e-4, 1e-5):
                    wrong.append(i)

        threads = [threading.Thread(target=serve, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        ends = [status(child_of(lambda: right(block(x)))) for _ in range(3)]
        for thread in threads:
            thread.join()
        print(wrong, ends, mxtrt.report(symbol).runtime.calls - before)
        """,
        OPTIMIZED,
        workers=8,
    )
    assert (code, out, errors) == (0, "[] [0, 0, 0] 1600\n", "")


def test_executors_bound_in_threads_and_a_fork() -> None:
    """MXNet dies of two that are bound at once; the fork waits for those that are being bound."""
    code, out, errors = process(
        """
        done, ends = threading.Event(), []

        def serve(size):
            while not done.is_set():
                own = symbol.bind(mx.cpu(), {"data": x[:size]})
                ends.append(np.allclose(own.forward()[0].asnumpy(), expected[:size], 1e-4, 1e-5))
                other = symbol.simple_bind(mx.cpu(), grad_req="null", data=(size, 128))
                other = other.reshape(allow_up_sizing=True, data=(2, 128))
                ends.append(other.arg_dict["data"].shape == (2, 128))

        threads = [threading.Thread(target=serve, args=(i + 1,)) for i in range(8)]
        for thread in threads:
            thread.start()
        children = [status(child_of(lambda: right(block(x)))) for _ in range(20)]
        time.sleep(0.5)
        done.set()
        for thread in threads:
            thread.join()
        print(len(ends) > 16, all(ends), set(children))
        """,
        OPTIMIZED,
        workers=8,
    )
    assert (code, out, errors) == (0, "True True {0}\n", "")


def test_ten_thousand_calls_take_no_memory() -> None:
    """What grows for a while is malloc's: threads free what others took. 4 MB are 400 B a call."""
    code, out, errors = process(
        """
        import gc
        pages = os.sysconf("SC_PAGE_SIZE")
        batches = [mx.nd.ones((1 + i % 40, 128)) for i in range(40)]

        def memory():
            mx.nd.waitall()
            gc.collect()
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * pages

        def run(call, count):
            for i in range(count):
                call(i).wait_to_read()

        of_one_size = lambda i: block(x)
        bound = lambda i: executor.forward()[0]
        of_many_sizes = lambda i: block(batches[i % 40])
        for call in (of_one_size, bound, of_many_sizes):
            run(call, 2000)
            before = memory()
            run(call, 10000)
            print((memory() - before) / 1e6)
        """,
        OPTIMIZED,
    )
    assert (code, errors) == (0, "")
    grown = [float(line) for line in out.splitlines()]
    assert len(grown) == 3
    assert max(grown) < 4
