"""Streams and events of other libraries, by handle: pycuda knows only its own."""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, Any

from ..errors import BadOption, EngineError

if TYPE_CHECKING:
    from ._cuda import Gpu

NO_TIMING = 2  # CU_EVENT_DISABLE_TIMING: cheaper
NOT_READY = 600  # CUDA_ERROR_NOT_READY


def stream_handle(stream: Any) -> int:
    """Return the handle of a stream of any library.

    Raises
    ------
    BadOption
        It is no stream.
    """
    if isinstance(stream, int) and not isinstance(stream, bool):
        return stream
    if hasattr(stream, "__cuda_stream__"):
        told = stream.__cuda_stream__
        return int((told() if callable(told) else told)[1])
    for name in ("cuda_stream", "ptr", "handle"):  # PyTorch's, CuPy's, pycuda's
        handle = getattr(stream, name, None)
        if isinstance(handle, int):
            return handle
    raise BadOption(f"stream={stream!r} is no CUDA stream, nor the handle of one")


class Event:
    """A moment on a stream.

    Parameters
    ----------
    gpu : Gpu
        Where; it must be current.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu, self._handle = gpu, ctypes.c_void_p()
        _check(_driver().cuEventCreate(ctypes.byref(self._handle), NO_TIMING), "make an event")

    @property
    def handle(self) -> int:
        """The event, as the driver knows it."""
        return self._handle.value or 0

    def record(self, stream: int) -> None:
        """Let the event be when the stream has come as far as it is filled now."""
        status = _driver().cuEventRecord(self._handle, ctypes.c_void_p(stream))
        _check(status, "record an event")

    def let_wait(self, stream: int) -> None:
        """Let what comes next on a stream wait for the event."""
        status = _driver().cuStreamWaitEvent(ctypes.c_void_p(stream), self._handle, 0)
        _check(status, "wait for an event")

    def is_done(self) -> bool:
        """Say whether the stream has come that far."""
        status = _driver().cuEventQuery(self._handle)
        if status != NOT_READY:
            _check(status, "finish what was enqueued")
        return bool(status == 0)

    def wait(self) -> None:
        """Wait until the stream has come that far."""
        _check(_driver().cuEventSynchronize(self._handle), "finish what was enqueued")

    def close(self) -> None:
        """Free the event; its GPU must be current."""
        if self._handle.value:
            _driver().cuEventDestroy_v2(self._handle)
            self._handle = ctypes.c_void_p()


def upload(address: int, source: int, nbytes: int, stream: int) -> None:
    """Enqueue a copy from pinned memory to the GPU."""
    _copy("cuMemcpyHtoDAsync_v2", address, source, nbytes, stream)


def download(target: int, address: int, nbytes: int, stream: int) -> None:
    """Enqueue a copy from the GPU to pinned memory."""
    _copy("cuMemcpyDtoHAsync_v2", target, address, nbytes, stream)


def _copy(function: str, target: int, source: int, nbytes: int, stream: int) -> None:
    status = getattr(_driver(), function)(
        ctypes.c_void_p(target),
        ctypes.c_void_p(source),
        ctypes.c_size_t(nbytes),
        ctypes.c_void_p(stream),
    )
    _check(status, "copy")


@functools.cache
def _driver() -> Any:
    return ctypes.CDLL("libcuda.so.1")


def _check(status: int, what: str) -> None:
    if status:
        name = ctypes.c_char_p()
        _driver().cuGetErrorName(status, ctypes.byref(name))
        told = (name.value or b"unknown").decode()
        raise EngineError(f"CUDA cannot {what}: {told}")
