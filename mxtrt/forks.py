"""Threads, forks, and the end of the process, while MXNet has work queued that engines run.

Before a fork MXNet waits for its threads. Those that run an engine need the interpreter's lock,
which the forking thread holds: both would wait for ever. So the work is finished before, and other
threads begin no call meanwhile; nor do they hold a lock then that the child could not open, nor
wait inside of MXNet, where the child would wait for them. ONNX Runtime's own threads look for work
for a while after a call, and lock their queues for it: a child would wait for ever at the lock of
one that is no more. So the fork waits until they sleep.

MXNet binds one executor at a time, or dies: its passes over the graph share what they look for
(apache/mxnet#20296). So those that bind in several threads do it one after another.

Waiting for all of MXNet's work takes its errors off the outputs; the next call raises what was
taken, so that no wrong output goes unnoticed.

At the end of the process what is queued can run no more, as in MXNet itself; it fails here, where
nobody is told of it.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from . import _bridge  # and not MXNet, whose import needs this module

PATIENCE = 30.0  # seconds to wait for calls of other threads, which may be building an engine
READING = 1.0  # seconds to wait for threads that read what is computed: they have to wake up
SPINNING = 1.0  # seconds to wait for threads that look for work
GLANCE = 0.0005  # seconds between looks

_untold: Exception | None = None  # what a call before a fork failed with
is_used = False  # whether there was an engine so far


class _Gate:
    """A context that other threads do not enter while one thread keeps it closed.

    To enter it again inside of it never waits: the outer one may hold locks.
    """

    def __init__(self) -> None:
        self.inside: dict[int, int] = {}  # threads, and how deep
        self.closed_by: int | None = None

    def __enter__(self) -> None:
        me = threading.get_ident()
        depth = self.inside.get(me, 0)
        self.inside[me] = depth + 1
        if not depth and self.closed_by is not None:
            self.wait(me)

    def __exit__(self, *_: object) -> None:
        me = threading.get_ident()
        depth = self.inside.pop(me, 1)  # a child knows of none that its parent entered
        if depth > 1:
            self.inside[me] = depth - 1

    def wait(self, me: int) -> None:
        """Wait outside until it is open."""
        while self.closed_by is not None and self.closed_by != me:
            self.inside.pop(me, None)
            time.sleep(GLANCE)
            self.inside[me] = 1

    def close(self, patience: float) -> None:
        """Let no other thread in, and wait for those inside, for so many seconds at most."""
        me = self.closed_by = threading.get_ident()
        end = time.monotonic() + patience
        while any(thread != me for thread in list(self.inside)) and time.monotonic() < end:
            time.sleep(GLANCE)

    def open(self) -> None:
        """Let the others in."""
        self.closed_by = None


class _Calls(_Gate):
    """A context in which a thread hands work with engines to MXNet."""

    def __enter__(self) -> None:
        _Gate.__enter__(self)
        if _untold is not None:
            _Gate.__exit__(self)
            _tell()


calls = _Calls()
reads = _Gate()
"""A context in which a thread waits for MXNet: a child, in which it is no more, could wait for
it, in the C library, when it tells those that wait."""
_binding = threading.RLock()
_workers: set[str] = set()  # the numbers of threads that others made to work for them

TASKS = "/proc/self/task"


@contextmanager
def noting_workers() -> Iterator[None]:
    """Note the threads that are begun meanwhile: a fork waits until they sleep."""
    before = set(os.listdir(TASKS))
    yield
    _workers.update(set(os.listdir(TASKS)) - before)


def connect() -> None:
    """Look after forks and the exit; call it once."""
    os.register_at_fork(before=_before, after_in_parent=_go_on, after_in_child=_in_child)
    atexit.register(_at_exit)
    import mxnet as mx

    executor, symbol = mx.executor.Executor, mx.sym.Symbol
    executor.forward = _as_call(executor.forward)
    for owner, name in ((symbol, "bind"), (symbol, "simple_bind"), (executor, "reshape")):
        setattr(owner, name, _one_at_a_time(getattr(owner, name)))
    for name in ("asnumpy", "wait_to_read", "_sync_copyfrom"):
        setattr(mx.nd.NDArray, name, _as_read(getattr(mx.nd.NDArray, name)))


def _as_call(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with calls:
            return method(*args, **kwargs)

    return call


def _one_at_a_time(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def bind(*args: Any, **kwargs: Any) -> Any:
        with calls, _binding:
            return method(*args, **kwargs)

    return bind


def _as_read(method: Callable[..., Any]) -> Callable[..., Any]:
    inside = reads.inside

    @wraps(method)
    def read(*args: Any) -> Any:
        me = threading.get_ident()
        if me in inside:
            return method(*args)
        inside[me] = 1  # as `with reads`, at a third of its cost: every read of every array is here
        try:
            if reads.closed_by is not None:
                reads.wait(me)
            return method(*args)
        finally:
            inside.pop(me, None)

    return read


def _tell() -> None:
    global _untold
    error, _untold = _untold, None
    if error is not None:
        raise error


def _before() -> None:
    global _untold
    if is_used:
        calls.close(PATIENCE)
        _untold = _finish() or _untold
        reads.close(READING)  # not earlier: a custom operator reads while it computes
        end = time.monotonic() + SPINNING
        while _any_awake() and time.monotonic() < end:
            time.sleep(GLANCE)


def _any_awake() -> bool:
    """Say whether a noted thread is at work."""
    for thread in sorted(_workers):
        try:
            with open(f"{TASKS}/{thread}/stat", "rb") as file:
                state = file.read().rpartition(b")")[2].split()[0]
        except OSError:  # it is no more
            _workers.discard(thread)
            continue
        if state != b"S":
            return True
    return False


def _finish() -> Exception | None:
    """Wait for all of MXNet's work; return what failed in it."""
    import mxnet as mx

    try:
        mx.nd.waitall()
    except mx.MXNetError as error:
        failure: Exception = error
        return failure
    return None


def _go_on() -> None:
    calls.open()
    reads.open()


def _in_child() -> None:
    global _binding, _untold
    _binding, _untold = threading.RLock(), None  # the parent is told
    calls.inside.clear()
    reads.inside.clear()
    _workers.clear()
    _go_on()


def _at_exit() -> None:
    if is_used:
        calls.closed_by = threading.get_ident()
        _bridge.detach()
        _finish()  # each call that was queued has failed
