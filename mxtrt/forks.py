"""Forks, and the end of the process, while MXNet has work queued that engines run.

Before a fork MXNet waits for its threads. Those that run an engine need the interpreter's lock,
which the forking thread holds: both would wait for ever. So the work is finished before, and other
threads begin no call meanwhile; nor do they hold a lock then that the child could not open.

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
from collections.abc import Callable
from functools import wraps
from typing import Any

from . import _bridge  # and not MXNet, whose import needs this module

PATIENCE = 30.0  # seconds to wait for calls of other threads, which may be building an engine
GLANCE = 0.0005  # seconds between looks

_inside: dict[int, int] = {}  # threads that are handing work to MXNet, and how deep in calls
_stopping: int | None = None  # the thread for which the others wait
_untold: Exception | None = None  # what a call before a fork failed with
is_used = False  # whether there was an engine so far


class _Calls:
    """A context in which a thread hands work with engines to MXNet; one inside another is a part.

    A fork waits for the outermost, which may hold locks: the inner ones must not wait for the fork.
    """

    def __enter__(self) -> None:
        me = threading.get_ident()
        depth = _inside.get(me, 0)
        _inside[me] = depth + 1
        if depth:
            return
        while _stopping is not None and _stopping != me:
            _inside.pop(me, None)
            time.sleep(GLANCE)
            _inside[me] = 1
        if _untold is not None:
            _inside.pop(me, None)
            _tell()

    def __exit__(self, *_: object) -> None:
        me = threading.get_ident()
        depth = _inside.pop(me, 1)  # a child knows of no calls that its parent began
        if depth > 1:
            _inside[me] = depth - 1


calls = _Calls()


def connect() -> None:
    """Look after forks and the exit; call it once."""
    os.register_at_fork(before=_before, after_in_parent=_go_on, after_in_child=_in_child)
    atexit.register(_at_exit)
    import mxnet as mx

    mx.executor.Executor.forward = _as_call(mx.executor.Executor.forward)


def _as_call(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with calls:
            return method(*args, **kwargs)

    return call


def _tell() -> None:
    global _untold
    error, _untold = _untold, None
    if error is not None:
        raise error


def _before() -> None:
    global _untold
    if is_used:
        _hold_others()
        _untold = _finish() or _untold


def _hold_others() -> None:
    global _stopping
    me = _stopping = threading.get_ident()
    end = time.monotonic() + PATIENCE
    while any(thread != me for thread in list(_inside)) and time.monotonic() < end:
        time.sleep(GLANCE)


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
    global _stopping
    _stopping = None


def _in_child() -> None:
    global _untold
    _untold = None  # the parent is told
    _inside.clear()
    _go_on()


def _at_exit() -> None:
    global _stopping
    if is_used:
        _stopping = threading.get_ident()
        _bridge.detach()
        _finish()  # each call that was queued has failed
