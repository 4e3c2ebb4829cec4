"""Loads mxtrt's operators into MXNet."""

from __future__ import annotations

import threading
from pathlib import Path

from mxtrt import _bridge, compat

_PATH = Path(__file__).with_name("libmxtrt_op.so")
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
    with _lock:
        if _loaded:
            return
        compat.prepare()
        import mxnet as mx

        from mxtrt import missing_shapes

        mx.library.load(str(_PATH), verbose=False)
        _bridge.attach(str(_PATH))
        missing_shapes.guard()
        _loaded = True
