"""Makes ``import mxnet`` 1.9.1, of 2022, work with today's Python and NumPy."""

from __future__ import annotations

import importlib.util
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mxtrt.errors import MXNetNotInstalled


def prepare() -> None:
    """Restore what MXNet 1.9.1 needs and import it; later calls do nothing.

    What NumPy still has stays as it is: only missing names are added to it. MXNet is imported here
    because its import is noisy (NumPy's and the parser's warnings about old code) and because
    ``requests``, which it needs for downloads only, is stood in for while it is imported.

    Raises
    ------
    MXNetNotInstalled
        No MXNet distribution is installed.
    """
    if "mxnet" in sys.modules:
        return
    if not _is_installed("mxnet"):
        raise MXNetNotInstalled(_how_to_install(sys.version_info[:2]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _restore_numpy_names()
        _restore_distutils()
        with _stand_in_for_requests():
            import mxnet  # noqa: F401
    _write_numbers_plainly()


def _is_installed(module: str) -> bool:
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None  # a bare folder of that name has no origin


def _how_to_install(python: tuple[int, int]) -> str:
    sentence = (
        "MXNet is not installed. Install it together with mxtrt: pip install 'mxtrt[cpu]', or for "
        "a GPU 'mxtrt[cu112]' (CUDA 11.2) or 'mxtrt[cu117]' (CUDA 11.7)."
    )
    if python >= (3, 13):
        sentence += (
            " On Python 3.13 and newer MXNet's own requirement numpy<2 has no wheel, so use: "
            "pip install --no-deps mxnet==1.9.1"
        )
    return sentence


def _restore_numpy_names() -> None:
    import numpy as np

    for name, value in _numpy_names(np).items():
        # vars and not hasattr: NumPy 1.20 to 1.23 have np.bool, but warn at every use.
        if name not in vars(np):
            setattr(np, name, value)


def _numpy_names(np: Any) -> dict[str, Any]:
    """Return every name of NumPy that MXNet 1.9.1 uses and some NumPy since 1.23 lacks."""
    names = {
        "bool": bool,
        "int": int,
        "float": float,
        "complex": complex,
        "object": object,
        "str": str,
        "Inf": np.inf,
        "PINF": np.inf,
        "NINF": -np.inf,
        "NaN": np.nan,
        "NAN": np.nan,
        "PZERO": 0.0,
        "NZERO": -0.0,
        "alltrue": np.all,
        "sometrue": np.any,
        "product": np.prod,
        "round_": np.round,
        "in1d": lambda ar1, ar2, *args, **kwargs: np.isin(np.ravel(ar1), ar2, *args, **kwargs),
        "msort": lambda a: np.sort(a, axis=0),
        "trapz": getattr(np, "trapezoid", None),
        "compat": types.SimpleNamespace(basestring=str),
    }
    financial = ("mirr", "npv", "pmt", "ppmt", "pv", "rate")
    return {**names, **{name: _removed_function(name) for name in financial}}


def _removed_function(name: str) -> Callable[..., Any]:
    def removed(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"NumPy removed the function {name}; use the package numpy-financial")

    removed.__name__ = name
    return removed


def _write_numbers_plainly() -> None:
    """Let MXNet write ``(2, 3)`` for a shape that holds NumPy's integers.

    MXNet hands attributes to its C++ side as ``str(value)``. NumPy 2 prints ``np.int64(3)`` inside
    a tuple, which no operator can read. The modules that do so get a ``str`` of their own: NumPy's
    print options would change what the user sees.
    """
    import numpy as np

    if str((np.int64(3),)) == "(3,)":
        return
    from mxnet._ctypes import ndarray, symbol
    from mxnet.symbol import symbol as symbols

    for module in (ndarray, symbol, symbols):
        vars(module)["str"] = _PlainText


class _InstanceOfStr(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, str)


class _PlainText(str, metaclass=_InstanceOfStr):
    """``str``, but NumPy's scalars inside tuples and lists are written as Python's numbers."""

    def __new__(cls, value: object = "") -> str:  # type: ignore[misc]
        return str(_plain(value))


def _plain(value: Any) -> Any:
    if type(value) in (tuple, list):
        return type(value)(_plain(element) for element in value)
    return value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value


def _restore_distutils() -> None:
    """Python 3.12 dropped distutils; importing setuptools puts its copy in place."""
    if importlib.util.find_spec("distutils") is None:
        import setuptools  # type: ignore[import-untyped]  # noqa: F401


@contextmanager
def _stand_in_for_requests() -> Iterator[None]:
    if _is_installed("requests"):
        yield
        return
    stand_in = types.ModuleType("requests")
    vars(stand_in)["get"] = _no_requests
    sys.modules["requests"] = stand_in
    try:
        yield
    finally:
        # Other packages look whether requests is there, and adapt.
        del sys.modules["requests"]


def _no_requests(*args: Any, **kwargs: Any) -> Any:
    raise ModuleNotFoundError("MXNet downloads with the package requests: pip install requests")
