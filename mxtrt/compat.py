"""Makes ``import mxnet`` 1.9.1 work with today's Python and NumPy."""

from __future__ import annotations

import importlib.util
import sys
import warnings

from mxtrt.errors import MXNetNotInstalled


def prepare() -> None:
    """Restore what MXNet 1.9.1 needs from NumPy and the standard library."""
    if "mxnet" in sys.modules:
        return
    if importlib.util.find_spec("mxnet") is None:
        raise MXNetNotInstalled("MXNet is not installed")
    import numpy as np

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value in {"bool": bool, "object": object, "int": int, "float": float}.items():
            if not hasattr(np, name):
                setattr(np, name, value)
