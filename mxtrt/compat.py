"""Makes ``import mxnet`` 1.9.1, of 2022, work with today's Python and NumPy."""

from __future__ import annotations

import importlib.util
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from mxtrt.errors import MXNetNotInstalled


def prepare() -> None:
    """Restore what MXNet 1.9.1 needs and import it; later calls do nothing.

    What NumPy still has stays as it is: only missing names are added to it.

    Raises
    ------
    MXNetNotInstalled
        No MXNet distribution is installed.
    """
    if "mxnet" not in sys.modules and not _is_installed("mxnet"):
        raise not_installed()
    prepare_later()
    import mxnet  # noqa: F401


def prepare_later() -> None:
    """Restore what MXNet 1.9.1 needs at the moment when it is imported, by whomever.

    Its import takes seconds and loads scikit-learn and ONNX where they are installed; what needs
    no MXNet, such as ``mxtrt --help`` and plans, need not wait for it.
    """
    if "mxnet" not in sys.modules and not any(
        isinstance(finder, _MXNetFinder) for finder in sys.meta_path
    ):
        sys.meta_path.insert(0, _MXNetFinder())


def after_import(callback: Callable[[], None]) -> None:
    """Call `callback` once MXNet has been imported: now, or at that moment."""
    if "mxnet" not in sys.modules:
        _callbacks.append(callback)
    elif hasattr(sys.modules["mxnet"], "gluon"):  # not so for a stand-in of that name
        callback()


_callbacks: list[Callable[[], None]] = []


def not_installed() -> MXNetNotInstalled:
    """Return the error that says how to install MXNet."""
    return MXNetNotInstalled(_how_to_install(sys.version_info[:2]))


class _MXNetFinder(MetaPathFinder):
    """Finds MXNet where Python's own finder does, and has it loaded by `_PreparingLoader`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "mxnet":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _PreparingLoader(spec.loader)
        return spec


class _PreparingLoader(Loader):
    """Loads a module as its own loader does, with what MXNet needs restored before."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        with warnings.catch_warnings():
            # NumPy and the parser warn about MXNet's old code
            warnings.simplefilter("ignore")
            _restore_numpy_names()
            _restore_distutils()
            with _stand_in_for_requests():
                self._loader.exec_module(module)
        _write_numbers_plainly()
        _spell_scipy_anew()
        _make_thresholds_numbers()
        while _callbacks:
            _callbacks.pop(0)()


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
    return value.item() if isinstance(value, sys.modules["numpy"].generic) else value


def _spell_scipy_anew() -> None:
    """Spare MXNet ``scipy.sparse.csr``: SciPy warns at every use and will drop it.

    ``mx.nd.array`` looks at ``scipy.sparse.csr.csr_matrix`` in every call.
    """
    from mxnet.ndarray import sparse, utils

    for module in (sparse, utils):
        scipy = vars(module)["spsp"]
        if scipy is not None:
            vars(module)["spsp"] = types.SimpleNamespace(
                csr=types.SimpleNamespace(csr_matrix=scipy.csr_matrix),
                csr_matrix=scipy.csr_matrix,
                coo_matrix=scipy.coo_matrix,
            )


def _make_thresholds_numbers() -> None:
    """Let MXNet's calibration by entropy use the thresholds that it finds, arrays of one element.

    NumPy 2.5 no longer takes these for numbers.
    """
    import numpy as np
    from mxnet.contrib import quantization

    if np.lib.NumpyVersion(np.__version__) < "2.5.0":
        return
    find = quantization._get_optimal_threshold

    @wraps(find)
    def found(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        results = find(*args, **kwargs)
        return tuple(v.item() if isinstance(v, np.ndarray) and v.size == 1 else v for v in results)

    quantization._get_optimal_threshold = found


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
