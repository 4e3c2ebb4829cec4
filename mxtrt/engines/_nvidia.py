"""What an installed TensorRT can do, asked by attribute: 8.5 to 11, and TensorRT-RTX 1.x.

Versions are never compared: names come and go between them, and flags change their numbers.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import logging
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import EngineError, EngineNotAvailable
from ..plan_file import TITLES
from . import _cuda

log = logging.getLogger("mxtrt.tensorrt")

_INSTALL = {
    "tensorrt": (
        "pip install 'mxtrt[tensorrt]' brings TensorRT 8.5 with its CUDA 11 libraries for Python "
        "3.10 and older; for newer ones NVIDIA's own package index has TensorRT 10 and 11: "
        "install tensorrt-cu12 from there, as NVIDIA's installation guide says, and pycuda"
    ),
    "tensorrt_rtx": "pip install 'mxtrt[rtx]' brings it",
}

MAX_MESSAGE = 400  # characters of NVIDIA's own words in one of our sentences


class Api:
    """One of NVIDIA's modules, with the objects that exist once in a process.

    Parameters
    ----------
    name : {"tensorrt", "tensorrt_rtx"}
        The module's name.

    Raises
    ------
    EngineNotAvailable
        The module is not installed, or is older than 8.5.
    """

    def __init__(self, name: str) -> None:
        self.name, self.title = name, TITLES[name]
        self.module = trt = _import(name)
        self.version = f"{self.title} {getattr(trt, '__version__', '')}".strip()
        if not hasattr(trt.IExecutionContext, "execute_async_v3"):
            raise EngineNotAvailable(
                f"{self.version} is too old: mxtrt needs TensorRT 8.5 or newer"
            )
        # TensorRT keeps a pointer to the first logger for ever
        self.logger = immortal(_logger(trt))
        self.lock = threading.Lock()  # one build at a time: tactics are timed on the GPU
        self.timing_cache = b""  # of all builds of this process
        self._builders: dict[int, Any] = {}  # by the GPU that was current when they were made
        self._runtimes: dict[int, Any] = {}
        self._has_plugins = False

    # -- what it can do ----------------------------------------------------------------------

    @property
    def can_be_version_compatible(self) -> bool:
        """Whether newer versions can load what this one builds."""
        return self.has_flag("VERSION_COMPATIBLE") and hasattr(
            self.module.Runtime, "engine_host_code_allowed"
        )

    @property
    def can_be_hardware_compatible(self) -> bool:
        """Whether newer GPUs can run what is built on this one."""
        return hasattr(self.module, "HardwareCompatibilityLevel") and hasattr(
            self.module.IBuilderConfig, "hardware_compatibility_level"
        )

    @property
    def can_refit(self) -> bool:
        """Whether a plan can get the weights of another ONNX model."""
        return self.has_flag("REFIT") and hasattr(self.module, "OnnxParserRefitter")

    @property
    def tactic_sources(self) -> tuple[str, ...]:
        """The libraries of kernels that a build may choose from."""
        return tuple(self.module.TacticSource.__members__)

    def has_flag(self, flag: str) -> bool:
        """Say whether there is a builder flag of this name."""
        return flag in self.module.BuilderFlag.__members__

    @property
    def strongly_typed(self) -> bool:
        """Whether precision must stand in the network: no flag lowers it."""
        return not self.has_flag("FP16")

    @property
    def precisions(self) -> tuple[str, ...]:
        """Values of the option ``precision`` that work."""
        has_bf16 = self.has_flag("BF16") or (
            self.strongly_typed and "BF16" in self.module.DataType.__members__
        )
        return ("fp32", "fp16", "bf16") if has_bf16 else ("fp32", "fp16")

    @property
    def network_flags(self) -> int:
        """Flags of a network, by name: their numbers differ between versions."""
        known = self.module.NetworkDefinitionCreationFlag.__members__
        wanted = ["EXPLICIT_BATCH", *(["STRONGLY_TYPED"] if self.strongly_typed else [])]
        flags = 0
        for name in wanted:
            if name in known:
                flags |= 1 << int(known[name])
        return flags

    @property
    def has_optimization_level(self) -> bool:
        """Whether the builder's effort can be set."""
        return hasattr(self.module.IBuilderConfig, "builder_optimization_level")

    @property
    def has_timing_cache(self) -> bool:
        """Whether builds can share what they timed; TensorRT-RTX times nothing."""
        has_runtime_cache = hasattr(self.module, "IRuntimeCache")
        return hasattr(self.module.IBuilderConfig, "set_timing_cache") and not has_runtime_cache

    @property
    def has_targets(self) -> bool:
        """Whether engines can be built for other GPUs, or without one."""
        return hasattr(self.module.IBuilderConfig, "set_compute_capability")

    @property
    def has_int64(self) -> bool:
        """Whether int64 is more than a name for int32."""
        return "INT64" in self.module.DataType.__members__

    @property
    def shares_profiles(self) -> bool:
        """Whether several contexts may use one profile; before 8.6 each needs its own."""
        asked_for = hasattr(self.module, "PreviewFeature") and (
            "PROFILE_SHARING_0806" in self.module.PreviewFeature.__members__
        )
        return asked_for or not hasattr(self.module.IExecutionContext, "execute_async_v2")

    # -- objects of the process --------------------------------------------------------------

    def builder(self) -> Any:
        """Return the builder of the current GPU; it is not thread-safe: hold `lock`.

        Raises
        ------
        EngineNotAvailable
            TensorRT cannot use the GPU, or there is none.
        """
        device = _cuda.current_device()
        if device not in self._builders:
            self._builders[device] = immortal(self._make(self.module.Builder))
            self._add_plugins()
        return self._builders[device]

    def runtime(self) -> Any:
        """Return the runtime of the current GPU, which outlives all engines.

        Raises
        ------
        EngineNotAvailable
            TensorRT cannot use the GPU, or there is none.
        """
        device = _cuda.current_device()
        if device not in self._runtimes:
            self._runtimes[device] = immortal(self._make(self.module.Runtime))
            self._add_plugins()
        return self._runtimes[device]

    def _add_plugins(self) -> None:
        """Make NVIDIA's own plugins known, which the parser uses for some operators of ONNX."""
        add = getattr(self.module, "init_libnvinfer_plugins", None)
        if add is not None and not self._has_plugins:
            add(self.logger, "")
            self._has_plugins = True

    def _make(self, kind: Any) -> Any:
        with self.logger.collecting(quiet=True) as messages:
            try:
                made = kind(self.logger)
            except TypeError:  # how a null pointer comes out of the bindings
                made = None
        unsupported = [text for rank, text in messages if rank <= 1 and _UNSUPPORTED.search(text)]
        if unsupported:
            raise EngineNotAvailable(f"{self.version}: {sentence(unsupported[0])}")
        if made is None:
            raise EngineNotAvailable(f"{self.version} cannot start: {_why_no_start(messages)}")
        return made


def prepare_runtime(runtime: Any, *, host_code: bool = False, dla_core: int | None = None) -> None:
    """Let a runtime load what an option asked for; it is the same for all plans of the process."""
    if host_code and hasattr(runtime, "engine_host_code_allowed"):
        runtime.engine_host_code_allowed = True  # the runtime of another version is in the plan
    if dla_core is not None:
        runtime.DLA_core = dla_core


def installed(name: str) -> bool:
    """Say whether a module is there, without importing it."""
    return importlib.util.find_spec(name) is not None


_apis: dict[str, Api] = {}
_apis_lock = threading.Lock()


def api(name: str) -> Api:
    """Return the one `Api` of a module.

    Raises
    ------
    EngineNotAvailable
        The module is not installed, cannot be loaded or is too old.
    """
    with _apis_lock:
        if name not in _apis:
            _apis[name] = Api(name)
        return _apis[name]


def immortal(value: Any) -> Any:
    """Keep an object until the process ends: its C++ side is called during the exit."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))
    return value


def _import(name: str) -> Any:
    if not installed(name):
        version = ".".join(map(str, sys.version_info[:2]))
        raise EngineNotAvailable(
            f"the package {name} is not installed (Python {version}): {_INSTALL[name]}"
        )
    _cuda.preload_libraries()
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineNotAvailable(f"the package {name} cannot be loaded: {error}") from error


# -- messages ----------------------------------------------------------------------------------


def _logger(trt: Any) -> Any:
    """Return a logger that hands messages to Python's logging, and to who collects them."""
    return type("Logger", (trt.ILogger,), {**_logger_members(trt)})()


def _logger_members(trt: Any) -> dict[str, Any]:
    levels = (logging.WARNING, logging.WARNING, logging.INFO, logging.DEBUG)

    def __init__(self: Any) -> None:  # noqa: N807
        trt.ILogger.__init__(self)
        self.collectors = {}
        self.listeners = []
        self.errors = threading.local()

    def log_message(self: Any, severity: Any, text: str) -> None:
        rank = int(severity.value)
        for listener in tuple(self.listeners):
            listener(str(text))
        if rank <= 1:
            self.errors.newest = str(text)
        if rank >= len(levels):
            return
        quiet = False
        for messages, is_quiet in tuple(self.collectors.values()):
            quiet |= is_quiet
            if rank <= 2:
                messages.append((rank, str(text)))
        log.log(logging.DEBUG if quiet else levels[rank], "%s", text)

    @contextmanager
    def collecting(self: Any, *, quiet: bool = False) -> Iterator[list[tuple[int, str]]]:
        """Collect errors and warnings, of all threads: TensorRT logs on threads of its own."""
        collector: tuple[list[tuple[int, str]], bool] = ([], quiet)
        self.collectors[id(collector)] = collector
        try:
            yield collector[0]
        finally:
            del self.collectors[id(collector)]

    def last_error(self: Any) -> str:
        """Return the last error of this thread, once: calls that run often collect nothing."""
        text = getattr(self.errors, "newest", "")
        self.errors.newest = ""
        return text

    return {
        "__init__": __init__,
        "log": log_message,
        "collecting": collecting,
        "last_error": last_error,
    }


def summary(messages: list[tuple[int, str]]) -> str:
    """Return the first error of collected messages, or else the last warning, as one sentence."""
    errors = [text for rank, text in messages if rank <= 1]
    warnings = [text for rank, text in messages if rank == 2]
    chosen = errors[:1] or warnings[-1:] or ["it gives no reason"]
    return sentence(chosen[0])


def sentence(text: str) -> str:
    """Return NVIDIA's words on one line, without source positions and assertions."""
    lines = [line.strip() for line in text.splitlines()]
    kept = [line for line in lines if line and not line.startswith("Invalid Node - ")]
    joined = " ".join(kept) or text.strip()
    quoted = re.search(r'&& "([^"]+)"', joined)
    if quoted:
        joined = quoted.group(1)
    joined = re.sub(r"^(\[\w[^\]]*\] )|^Assertion failed: ", "", joined)
    return joined if len(joined) <= MAX_MESSAGE else joined[: MAX_MESSAGE - 1] + "…"


def failed(what: str, messages: list[tuple[int, str]]) -> EngineError:
    """Return the error that says what TensorRT could not do, and its own reason."""
    memory = [text for rank, text in messages if rank <= 2 and _OUT_OF_MEMORY.search(text)]
    if memory:
        return EngineError(
            f"{what}: the GPU has too little free memory for it; make the sizes or workspace "
            f"smaller, or free some ({sentence(memory[0])})"
        )
    return EngineError(f"{what}: {summary(messages)}")


def _why_no_start(messages: list[tuple[int, str]]) -> str:
    for _, text in messages:
        found = _START_ERROR.search(text)
        if found is not None and found.group(1) in _START_ERRORS:
            return _START_ERRORS[found.group(1)]
    return summary(messages)


_OUT_OF_MEMORY = re.compile(r"out ?of ?memory|OUT_OF_MEMORY|OutOfMemory", re.IGNORECASE)
_UNSUPPORTED = re.compile(r"(SM|GPU).* (is )?not supported by this (TensorRT|version)")
_START_ERROR = re.compile(r"CUDA initialization failure with error:? (\d+)")
_START_ERRORS = {
    "35": "NVIDIA's driver is too old for the CUDA that it was built with; nvidia-smi shows which "
    "CUDA the driver serves: install a newer driver, or a TensorRT for an older CUDA",
    "100": "there is no GPU",
}
"""What CUDA's numbers mean."""
