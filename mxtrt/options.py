"""The options of `optimize` and `explain`, checked once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Union

import numpy as np

from .errors import BadOption, nearest
from .onnx_model import ELEMENT_TYPES
from .store import parse_size

ENGINES = ("auto", "onnxruntime", "tensorrt", "tensorrt_rtx")
"""Values of ``engine``: ``"auto"`` takes the fastest that runs here."""

PRECISIONS = ("fp32", "fp16", "bf16")
"""Values of ``precision``; which of them work depends on the version of TensorRT."""

SWITCHES = (
    "strict", "allow_extra_params", "tf32", "background", "sparse_weights", "version_compatible",
    "hardware_compatible", "progress", "refit",
)  # fmt: skip
"""Options that are True or False."""

Size = Union[int, None, "tuple[int, int, int]"]
"""A size of an input: a number, None for unknown, or (smallest, best, largest)."""


@dataclass(frozen=True)
class Options:
    """What the caller asked for.

    Attributes
    ----------
    shapes : mapping of str to tuple of Size
        Sizes of inputs, as far as the caller states them.
    dtypes : mapping of str to str
        Element types of inputs, NumPy's names.
    engine : str
        One of `ENGINES`.
    min_subgraph_size : int
        Parts with fewer operators stay in MXNet.
    exclude_ops, exclude_nodes : frozenset of str
        Operators, and names of nodes, that stay in MXNet.
    strict : bool
        Raise where mxtrt would otherwise warn and fall back.
    allow_extra_params : bool
        Hand parameters through that the model does not have, instead of raising.
    session_options : mapping of str to object
        Settings of ONNX Runtime's ``SessionOptions``; keys with a dot are config entries.
    precision : str
        One of `PRECISIONS`: what TensorRT computes in; inputs and outputs keep their types.
    tf32 : bool
        Let TensorRT round the factors of float32 products to 11 bits.
    workspace : int, optional
        Bytes of GPU memory that TensorRT may use while it runs a layer.
    optimization_level : int, optional
        How long TensorRT's builder may search, 0 to 5.
    timing_cache : str, optional
        A file with what earlier builds timed, in place of the one in the store.
    cuda_graph : bool, optional
        Replay a CUDA graph where all sizes are fixed; None measures whether it is faster.
    contexts : int
        How many calls may run at once in one TensorRT engine.
    device : int
        The GPU for arrays on the CPU.
    background : bool
        Build for other sizes in the background, while ONNX Runtime serves.
    sparse_weights : bool
        Let TensorRT use that of four weights in a row two are 0.
    tactic_sources : tuple of str, optional
        The only libraries that kernels may be of, under TensorRT's names.
    dla_core : int, optional
        The deep learning accelerator that runs what it can.
    refit : bool
        Build plans that can get other weights.
    version_compatible, hardware_compatible : bool
        Build plans that newer versions load, or newer GPUs run.
    progress : bool
        Show on a terminal that a build goes on.
    cache_dir : str or bool
        The folder of the store; True for the usual one, False for none.
    cache_size : int, optional
        Bytes that the store may hold.
    """

    shapes: Mapping[str, tuple[Size, ...]] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    engine: str = "auto"
    min_subgraph_size: int = 2
    exclude_ops: frozenset[str] = frozenset()
    exclude_nodes: frozenset[str] = frozenset()
    strict: bool = False
    allow_extra_params: bool = False
    session_options: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "fp32"
    tf32: bool = True
    workspace: int | None = None
    optimization_level: int | None = None
    timing_cache: str | None = None
    cuda_graph: bool | None = None
    contexts: int = 4
    device: int = 0
    background: bool = False
    sparse_weights: bool = False
    tactic_sources: tuple[str, ...] | None = None
    dla_core: int | None = None
    refit: bool = False
    version_compatible: bool = False
    hardware_compatible: bool = False
    progress: bool = True
    cache_dir: str | bool = True
    cache_size: int | None = None


def read_options(
    shapes: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
    dtypes: Mapping[str, Any] | None = None,
    **others: Any,
) -> Options:
    """Check the caller's options.

    Raises
    ------
    BadOption
        An option or a value that does not exist; the message offers the nearest one.
    """
    for name in others:
        if name not in Options.__dataclass_fields__:
            raise BadOption(f"no option {name!r}{nearest(name, Options.__dataclass_fields__)}")
    checked = dict(others)
    _check_choice("engine", others.get("engine", "auto"), ENGINES)
    _check_choice("precision", others.get("precision", "fp32"), PRECISIONS)
    _check_integer("min_subgraph_size", others.get("min_subgraph_size", 2), 1)
    _check_integer("contexts", others.get("contexts", 1), 1)
    _check_integer("device", others.get("device", 0), 0)
    if others.get("workspace") is not None:
        _check_integer("workspace", others["workspace"], 1)
    if others.get("optimization_level") is not None:
        _check_integer("optimization_level", others["optimization_level"], 0, 5)
    if others.get("dla_core") is not None:
        _check_integer("dla_core", others["dla_core"], 0)
        if others.get("precision", "fp32") != "fp16":
            raise BadOption("dla_core needs precision='fp16': these accelerators have no float32")
    if others.get("tactic_sources") is not None:
        names = _names("tactic_sources", others["tactic_sources"])
        checked["tactic_sources"] = tuple(sorted(str(name).upper() for name in names))
    if others.get("timing_cache") is not None:
        checked["timing_cache"] = _path("timing_cache", others["timing_cache"])
    cache_dir = others.get("cache_dir", True)
    if not isinstance(cache_dir, bool):
        checked["cache_dir"] = cache_dir is not None and _path("cache_dir", cache_dir)
    if others.get("cache_size") is not None:
        checked["cache_size"] = parse_size("cache_size", others["cache_size"])
    for name in ("exclude_ops", "exclude_nodes"):
        checked[name] = _names(name, others.get(name, ()))
    for name in SWITCHES:
        if not isinstance(others.get(name, False), bool):
            raise BadOption(f"{name}={others[name]!r} must be True or False")
    if others.get("cuda_graph") not in (None, True, False):
        raise BadOption(f"cuda_graph={others['cuda_graph']!r} must be True, False or None")
    checked["session_options"] = dict(others.get("session_options") or {})
    return Options(shapes=_shapes(shapes), dtypes=_dtypes(dtypes), **checked)


def _check_choice(option: str, given: Any, known: tuple[str, ...]) -> None:
    if given not in known:
        names = ", ".join(map(repr, known))
        raise BadOption(f"{option}={given!r} is none of {names}{nearest(str(given), known)}")


def _check_integer(option: str, given: Any, least: int, most: int | None = None) -> None:
    is_integer = isinstance(given, int) and not isinstance(given, bool)
    if not is_integer or given < least or (most is not None and given > most):
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise BadOption(f"{option}={given!r} must be an integer {limits}")


def _path(option: str, given: Any) -> str:
    try:
        return os.fsdecode(given)
    except TypeError:
        raise BadOption(f"{option}={given!r} must be a path") from None


def _names(option: str, given: Any) -> frozenset[str]:
    if isinstance(given, str):
        raise BadOption(f"{option}={given!r} must be a list of names, such as [{given!r}]")
    return frozenset(given)


def _shapes(given: Mapping[str, Any] | Iterable[tuple[str, Any]] | None) -> dict[str, Any]:
    try:
        pairs = {} if given is None else {d[0]: d[1] for d in _items(given)}
        return {name: tuple(_size(name, size) for size in shape) for name, shape in pairs.items()}
    except (TypeError, IndexError, KeyError):
        raise BadOption(
            f"shapes={given!r} must be a dict such as {{'data': (1, 3, 224, 224)}}"
        ) from None


def _items(given: Any) -> Iterable[Any]:
    return given.items() if isinstance(given, Mapping) else given


def _size(name: str, size: Any) -> Size:
    if size is None:
        return None
    if isinstance(size, (tuple, list)):
        return _range(name, tuple(size))
    if isinstance(size, (int, np.integer)) and not isinstance(size, bool) and size >= 0:
        return int(size)
    raise BadOption(
        f"shapes: the size {size!r} of {name!r} must be a number, None for an unknown size, "
        "or (smallest, best, largest)"
    )


def _range(name: str, size: tuple[Any, ...]) -> tuple[int, int, int]:
    if len(size) != 3 or not all(isinstance(n, (int, np.integer)) for n in size):
        raise BadOption(f"shapes: the range {size!r} of {name!r} must be (smallest, best, largest)")
    smallest, best, largest = (int(n) for n in size)
    if not 0 <= smallest <= best <= largest:
        raise BadOption(f"shapes: the range {size!r} of {name!r} is not in ascending order")
    return smallest, best, largest


def _dtypes(given: Mapping[str, Any] | None) -> dict[str, str]:
    checked = {}
    for name, dtype in (given or {}).items():
        try:
            checked[name] = np.dtype(dtype).name
        except TypeError:
            raise BadOption(f"dtypes: {dtype!r} of {name!r} is not a dtype") from None
        if checked[name] not in ELEMENT_TYPES:
            known = ", ".join(ELEMENT_TYPES)
            raise BadOption(f"dtypes: {name!r} cannot be {checked[name]}; MXNet has {known}")
    return checked
