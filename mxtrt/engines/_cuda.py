"""CUDA through pycuda, on the primary context, where TensorRT and MXNet live as well.

pycuda's objects may be freed only on a thread where their context is current, and MXNet calls on
threads of its own: everything here happens inside ``with gpu:``.
"""

from __future__ import annotations

import ctypes
import functools
import glob
import importlib
import importlib.util
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BadOption, EngineError, EngineNotAvailable

if TYPE_CHECKING:
    from ._activations import Activations

NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the legacy default stream
THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may do as they like

_lock = threading.RLock()
_driver_module: Any = None
_gpus: dict[int, Gpu] = {}


@functools.cache
def wake(index: int) -> None:
    """Let the driver and a GPU start on another thread, once: that takes a quarter of a second.

    Who uses the GPU afterwards waits for it, and is told what is wrong with it.
    """
    threading.Thread(target=_wake, args=(index,), name="mxtrt: CUDA starts", daemon=True).start()


def _wake(index: int) -> None:
    try:
        driver_library = _driver_library("cuInit", "cuDevicePrimaryCtxRetain")
    except EngineError:
        return
    if driver_library.cuInit(0) == 0:
        # kept until the process ends, as `Gpu` keeps it
        driver_library.cuDevicePrimaryCtxRetain(ctypes.byref(ctypes.c_void_p()), index)


def preload_libraries() -> None:
    """Load what wheels of NVIDIA bring and pycuda links, so that LD_LIBRARY_PATH is not needed."""
    try:
        spec = importlib.util.find_spec("nvidia.curand")
    except ImportError:
        return
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(glob.glob(os.path.join(folder, "lib", "libcurand.so*"))):
            try:
                ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
            except OSError:  # then the import of pycuda says what is missing
                continue


def driver() -> Any:
    """Return ``pycuda.driver``, initialised.

    Raises
    ------
    EngineNotAvailable
        pycuda or NVIDIA's driver is missing, or there is no GPU.
    """
    global _driver_module
    with _lock:
        if _driver_module is None:
            _driver_module = _start_driver()
        return _driver_module


def _start_driver() -> Any:
    if importlib.util.find_spec("pycuda") is None:
        raise EngineNotAvailable(
            "the package pycuda is not installed: pip install pycuda (it is compiled, and needs "
            "the headers of CUDA)"
        )
    preload_libraries()
    try:
        drv = importlib.import_module("pycuda.driver")
    except ImportError as error:
        raise EngineNotAvailable(
            f"pycuda cannot be loaded, probably because NVIDIA's driver is missing: {error}"
        ) from error
    try:
        drv.init()
        count = drv.Device.count()
    except drv.Error as error:
        raise EngineNotAvailable(f"there is no usable GPU: {error}") from error
    if not count:
        raise EngineNotAvailable("there is no GPU")
    return drv


def gpu(index: int) -> Gpu:
    """Return a GPU by its number.

    Raises
    ------
    EngineNotAvailable
        As `driver`.
    BadOption
        There is no GPU of this number.
    """
    drv = driver()
    with _lock:
        if index not in _gpus:
            count = drv.Device.count()
            if not 0 <= index < count:
                known = "GPU 0 only" if count == 1 else f"GPUs 0 to {count - 1}"
                raise BadOption(f"device={index}: there is no such GPU; this machine has {known}")
            _gpus[index] = Gpu(drv, index)
        return _gpus[index]


def current_device() -> int:
    """Return the number of the GPU that is current on this thread; 0 where none is."""
    device = ctypes.c_int(0)
    if _driver_module is not None:
        _driver_library("cuCtxGetDevice").cuCtxGetDevice(ctypes.byref(device))
    return device.value


class Gpu:
    """A GPU; ``with gpu:`` makes its primary context current on this thread."""

    def __init__(self, drv: Any, index: int) -> None:
        device = drv.Device(index)
        self.index = index
        self.name = str(device.name())
        self.capability: tuple[int, int] = tuple(device.compute_capability())
        self.errors: tuple[type[Exception], ...] = (drv.Error, drv.MemoryError)
        self._drv = drv
        try:
            self._context = device.retain_primary_context()
        except drv.Error as error:
            raise EngineNotAvailable(
                f"GPU {index} ({self.name}) cannot be used: {error}"
            ) from error
        # never released: at the exit of the process MXNet and TensorRT may come after us
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._context))
        self._pop = drv.Context.pop
        self.activations: dict[tuple[str, int], Activations] = {}
        self._functions: tuple[int, ...] = ()

    def __enter__(self) -> Gpu:
        self._context.push()
        return self

    def __exit__(self, *_: object) -> None:
        self._pop()

    def __repr__(self) -> str:
        return f"<GPU {self.index}: {self.name}>"

    def functions(self) -> tuple[int, ...]:
        """Return the addresses of the driver's functions that `Transfer` calls."""
        if not self._functions:
            library = _driver_library(*_TRANSFER_FUNCTIONS)
            found = [ctypes.cast(library[name], ctypes.c_void_p) for name in _TRANSFER_FUNCTIONS]
            self._functions = tuple(int(address.value or 0) for address in found)
        return self._functions

    def stream(self) -> Any:
        """Return a new stream."""
        try:
            return self._drv.Stream(NON_BLOCKING)
        except self._drv.Error as error:
            raise EngineError(f"{self} gives no stream: {error}") from error

    def device_memory(self, nbytes: int) -> Any:
        """Return device memory; ``int()`` of it is the address."""
        try:
            return self._drv.mem_alloc(max(nbytes, 1))
        except self._drv.MemoryError as error:
            raise EngineError(f"{self} has no {nbytes >> 20} MiB left: {error}") from error

    def pinned_memory(self, nbytes: int) -> np.ndarray[Any, Any]:
        """Return bytes in host memory that the GPU reads and writes directly."""
        try:
            pinned: np.ndarray[Any, Any] = self._drv.pagelocked_empty(max(nbytes, 1), np.uint8)
        except self._drv.Error as error:
            raise EngineError(f"{nbytes >> 20} MiB of memory cannot be pinned: {error}") from error
        return pinned

    @staticmethod
    def unpin(pinned: np.ndarray[Any, Any]) -> None:
        """Free pinned memory now, whoever still holds the array."""
        base: Any = pinned.base
        base.free()

    def memory(self) -> tuple[int, int]:
        """Return the free and the total bytes of device memory."""
        free, total = self._drv.mem_get_info()
        return int(free), int(total)

    def synchronize(self) -> None:
        """Wait for everything that was enqueued in the context."""
        self._drv.Context.synchronize()


# -- CUDA graphs, which pycuda does not have ---------------------------------------------------


class Graph:
    """A captured CUDA graph.

    Parameters
    ----------
    stream : int
        The handle of a stream that is not the default stream.
    enqueue : callable
        Enqueues on the stream what is to be captured; returns whether that worked.

    Raises
    ------
    EngineError
        What is enqueued cannot be captured.
    """

    def __init__(self, stream: int, enqueue: Any) -> None:
        self._cuda = _driver_library(*_GRAPH_FUNCTIONS)
        self._executable = ctypes.c_void_p()
        captured = ctypes.c_void_p()
        begun = self._cuda.cuStreamBeginCapture_v2(ctypes.c_void_p(stream), THREAD_LOCAL)
        _check(begun, "begin a capture")
        enqueued = False
        try:
            enqueued = enqueue()
        finally:  # a stream that stays in capture mode could never be used again
            status = self._cuda.cuStreamEndCapture(ctypes.c_void_p(stream), ctypes.byref(captured))
            if captured.value and (status or not enqueued):
                self._cuda.cuGraphDestroy(captured)
        _check(status, "capture the engine")
        if not enqueued:
            raise EngineError("the engine could not be enqueued while it was captured")
        status = self._cuda.cuGraphInstantiateWithFlags(
            ctypes.byref(self._executable), captured, ctypes.c_ulonglong(0)
        )
        self._cuda.cuGraphDestroy(captured)
        _check(status, "instantiate the captured engine")
        self._launch = self._cuda.cuGraphLaunch

    @property
    def handle(self) -> int:
        """The executable graph, as the driver knows it."""
        return self._executable.value or 0

    def launch(self, stream: int) -> bool:
        """Enqueue the graph; return whether that worked."""
        return not self._launch(self._executable, ctypes.c_void_p(stream))

    def close(self) -> None:
        """Free the graph; its context must be current."""
        if self._executable.value:
            self._cuda.cuGraphExecDestroy(self._executable)
            self._executable = ctypes.c_void_p()


_GRAPH_FUNCTIONS = (
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
)
_TRANSFER_FUNCTIONS = (
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuGraphLaunch",
    "cuStreamSynchronize",
    "cuPointerGetAttribute",
)


def _driver_library(*names: str) -> Any:
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise EngineError(f"NVIDIA's driver cannot be loaded: {error}") from None
    missing = [name for name in names if not hasattr(library, name)]
    if missing:
        raise EngineError(f"NVIDIA's driver is too old: it has no {missing[0]}")
    return library


def error_name(status: int) -> str:
    """Return CUDA's own name of an error, such as ``CUDA_ERROR_OUT_OF_MEMORY``."""
    name = ctypes.c_char_p()
    try:
        library = _driver_library("cuGetErrorName")
    except EngineError:
        return f"CUDA error {status}"
    library.cuGetErrorName(status, ctypes.byref(name))
    return (name.value or f"CUDA error {status}".encode()).decode()


def _check(status: int, what: str) -> None:
    if status:
        raise EngineError(f"CUDA cannot {what}: {error_name(status)}")
