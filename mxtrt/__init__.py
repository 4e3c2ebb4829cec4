"""Run MXNet models in ONNX Runtime and TensorRT, inside the same MXNet symbol.

    sym, params = mxtrt.optimize(sym, params)

Importing mxtrt makes MXNet importable on today's Python and NumPy, so import it first where that
is needed. The pipeline is loaded when it is first used.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from . import compat, errors

compat.prepare_later()

if TYPE_CHECKING:
    from .export import export_model
    from .operator import release, report
    from .pinned import pinned_array
    from .pipeline import explain, optimize
    from .registry import register_converter
    from .reports import Report
    from .saved import load, save

__version__ = "0.1.0"
__all__ = [
    "Report",
    "errors",
    "explain",
    "export_model",
    "load",
    "optimize",
    "pinned_array",
    "register_converter",
    "release",
    "report",
    "runtime",
    "save",
]

_HOMES = {
    "Report": ".reports",
    "explain": ".pipeline",
    "export_model": ".export",
    "load": ".saved",
    "optimize": ".pipeline",
    "pinned_array": ".pinned",
    "register_converter": ".registry",
    "release": ".operator",
    "report": ".operator",
    "save": ".saved",
}


def _connect() -> None:
    try:
        from . import symbol_files
        from .gluon import backend

        backend.connect()
        symbol_files.connect()
    except Exception as error:  # a program that needs MXNet alone goes on
        warnings.warn(f"mxtrt cannot work with this MXNet: {error}", stacklevel=2)


compat.after_import(_connect)


def __getattr__(name: str) -> Any:
    if name == "runtime":
        return importlib.import_module(".runtime", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = importlib.import_module(_HOMES[name], __name__)
    except ModuleNotFoundError as error:
        if error.name == "mxnet":
            raise compat.not_installed() from None
        raise
    value = getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *__all__})
