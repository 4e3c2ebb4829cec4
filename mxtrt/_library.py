"""Loads mxtrt's operators and its graph pass into MXNet."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path

from mxtrt import _bridge, compat

_PATH = Path(__file__).with_name("libmxtrt_op.so")
_OPERATORS = ("_mxtrt_engine", "_mxtrt_heads")
_lock = threading.Lock()
_loaded = False


def load() -> None:
    """Load the operator library into MXNet and connect it with the bridge, once per process.

    Raises
    ------
    mxtrt.errors.MXNetNotInstalled
        No MXNet distribution is installed.
    """
    global _loaded
    if _loaded:
        return
    compat.prepare()  # the import of MXNet calls this function, too
    with _lock:
        if _loaded:
            return
        from mxtrt import forks, missing_shapes

        _load_operators()
        _bridge.attach(str(_PATH))
        missing_shapes.guard()
        forks.connect()
        _loaded = True


def _load_operators() -> None:
    """Do what ``mx.library.load`` does, for our operators alone.

    That one makes the Python functions of all of MXNet's operators anew: it takes half a second,
    and undoes what other libraries have put in their places.
    """
    import mxnet as mx
    from mxnet.base import _LIB, OpHandle, c_str, check_call, mx_uint

    check_call(_LIB.MXLoadLib(c_str(str(_PATH)), mx_uint(0)))
    for module, make in (
        (mx.nd._internal, mx.nd.register._make_ndarray_function),
        (mx.sym._internal, mx.sym.register._make_symbol_function),
    ):
        for name in _OPERATORS:
            handle = OpHandle()
            check_call(_LIB.NNGetOpHandle(c_str(name), ctypes.byref(handle)))
            setattr(module, name, make(handle, name, name))
