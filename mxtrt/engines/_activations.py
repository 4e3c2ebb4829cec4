"""Device memory in which the layers of a plan hand results to each other, shared by plans.

TensorRT would give every execution context its own. Contexts that run one after another, as those
of the parts of one net do, can use the same: as much as the largest of them needs, not the sum.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._cuda import Gpu

_guard = threading.RLock()  # a plan may be collected, and leave, while it is held


class Activations:
    """Memory for contexts that run in turn, on one stream or under one lock.

    Parameters
    ----------
    gpu : Gpu
        Where.

    Attributes
    ----------
    lock : threading.Lock
        Held while a context is enqueued; where no stream keeps the order, until it has run.
    """

    def __init__(self, gpu: Gpu) -> None:
        self.lock = threading.Lock()
        self._gpu = gpu
        self._memory: Any = None
        self._nbytes = 0
        self._users = 0

    def join(self) -> None:
        """Count one more context; to be ended with `leave`."""
        with _guard:
            self._users += 1

    def leave(self) -> None:
        """Free the memory with its last context; the GPU must be current."""
        with _guard:
            self._users -= 1
            if not self._users:
                self._free()

    def reserve(self, nbytes: int) -> int:
        """Return the address of at least so many bytes; `lock` must be held.

        More bytes than before may lie elsewhere: what was enqueued on the old ones is waited for.

        Raises
        ------
        EngineError
            The GPU has no memory left.
        """
        if nbytes > self._nbytes:
            with self._gpu as gpu:
                if self._memory is not None:
                    gpu.synchronize()
                self._free()
                self._memory, self._nbytes = gpu.device_memory(nbytes), nbytes
        return int(self._memory) if self._memory is not None else 0

    def _free(self) -> None:
        if self._memory is not None:
            self._memory.free()
        self._memory, self._nbytes = None, 0


def of_stream(gpu: Gpu, stream: int) -> Activations:
    """Return the memory for what runs on a stream."""
    with _guard:
        return gpu.activations.setdefault(("stream", stream), Activations(gpu))


def unused(gpu: Gpu) -> Activations:
    """Return memory for what runs on streams of its own that is not in use; its lock is held."""
    with _guard:
        index = 0
        while True:
            found = gpu.activations.setdefault(("lane", index), Activations(gpu))
            if found.lock.acquire(blocking=False):
                return found
            index += 1


def needed_bytes(engine: Any) -> int:
    """Return how much memory a context of an engine needs while it runs."""
    nbytes = getattr(engine, "device_memory_size_v2", None)  # since TensorRT 10.1
    return int(engine.device_memory_size if nbytes is None else nbytes)


def context_without_memory(trt: Any, engine: Any) -> Any:
    """Return an execution context that must be given memory before it runs; None if there is none.

    TensorRT 10 has strategies for it, and older ones a function.
    """
    strategies = getattr(trt, "ExecutionContextAllocationStrategy", None)
    if strategies is not None:
        return engine.create_execution_context(strategies.USER_MANAGED)
    return engine.create_execution_context_without_device_memory()


def give_memory(context: Any, address: int, nbytes: int) -> None:
    """Let a context that is not running use so many bytes at an address."""
    if hasattr(context, "set_device_memory"):  # since TensorRT 10.1
        context.set_device_memory(address, nbytes)
    else:
        context.device_memory = address
