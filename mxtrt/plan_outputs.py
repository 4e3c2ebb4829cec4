"""What a plan that runs by itself gives back: `GpuArray`, and `Event` for calls on a stream."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .engines._session import Pending


class Event:
    """A call that was enqueued on a stream.

    Attributes
    ----------
    outputs : dict of str to array
        What the call makes; those on the CPU are complete after `wait`, those on the GPU when the
        stream has come that far.
    """

    def __init__(self, pending: Pending, outputs: dict[str, Any]) -> None:
        self._pending, self.outputs = pending, outputs

    def wait(self) -> dict[str, Any]:
        """Wait for the call and return its outputs.

        Raises
        ------
        EngineError
            The GPU failed.
        """
        self._pending.wait()
        return self.outputs

    @property
    def done(self) -> bool:
        """Whether the GPU has finished the call."""
        return self._pending.is_done()

    @property
    def handle(self) -> int:
        """The CUDA event's handle, for streams that shall wait for it."""
        return self._pending.handle


class GpuArray:
    """An array on a GPU, which PyTorch, CuPy and others take by ``__cuda_array_interface__``.

    Parameters
    ----------
    gpu : Gpu
        Where.
    shape : tuple of int
        Its shape.
    dtype : str
        NumPy's name of its type.
    """

    def __init__(self, gpu: Any, shape: tuple[int, ...], dtype: str) -> None:
        self.shape, self.dtype, self._gpu = tuple(shape), np.dtype(dtype), gpu
        self.nbytes = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
        with gpu:
            self._memory = gpu.device_memory(self.nbytes)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """What other libraries read, by version 3 of their protocol."""
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (int(self._memory), False),
            "strides": None,
            "stream": None,
            "version": 3,
        }

    def to_numpy(self) -> np.ndarray[Any, Any]:
        """Return a copy on the CPU, after everything that was enqueued on the GPU."""
        from .engines import _streams

        array = np.empty(self.shape, self.dtype)
        with self._gpu as gpu:
            gpu.synchronize()
            _streams.download(array.ctypes.data, int(self._memory), self.nbytes, 0)
            gpu.synchronize()
        return array

    def __del__(self) -> None:
        """Free the memory."""
        memory = getattr(self, "_memory", None)
        if memory is None or sys.is_finalizing():
            return
        try:
            with self._gpu:
                memory.free()
        except self._gpu.errors:  # after a fault on the GPU nothing can be freed
            return
