"""Calls of a plan with arrays on the CPU and on the GPU, that wait or do not."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import EngineError
from ..memory import GPU, Memory
from ._execution import LoadedPlan
from ._streams import Event, download, upload

Shape = tuple[int, ...]

_live: weakref.WeakSet[Session] = weakref.WeakSet()


class Session:
    """A plan, and what its calls need besides.

    Parameters
    ----------
    plan : LoadedPlan
        The plan on its GPU.
    """

    def __init__(self, plan: LoadedPlan) -> None:
        self.plan, self.gpu = plan, plan.gpu
        self._stream: Any = None
        self._idle: list[_Stage] = []
        self._lock = threading.Lock()
        self._shapes: dict[tuple[Shape, ...], list[Shape]] = {}
        _live.add(self)

    def output_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        """Return the shapes of the outputs for those of the inputs.

        Raises
        ------
        EngineError
            The plan does not take these shapes.
        """
        key = tuple(shapes)
        if key not in self._shapes:
            if len(self._shapes) > 1000:  # a program whose sizes never come again
                self._shapes.clear()
            self._shapes[key] = self.plan.output_shapes(key)
        return self._shapes[key]

    def run(self, inputs: Sequence[Memory], outputs: Sequence[Memory]) -> None:
        """Run and wait."""
        on_gpu = any(memory.on_gpu for memory in (*inputs, *outputs))
        # arrays on the CPU would otherwise take the one context there is
        if not on_gpu and not self.plan.has_one_context:
            self.plan.execute(inputs, outputs, 0)  # type: ignore[arg-type]
            return
        self.start(inputs, outputs, self.own_stream()).wait()

    def own_stream(self) -> int:
        """Return the stream of calls that were given none."""
        with self._lock:
            if self._stream is None:
                with self.gpu:
                    self._stream = self.gpu.stream()
        return int(self._stream.handle)

    def start(self, inputs: Sequence[Memory], outputs: Sequence[Memory], stream: int) -> Pending:
        """Enqueue a call on a stream and return."""
        with self.gpu:
            for memory in (*inputs, *outputs):
                if memory.stream is not None and memory.stream != stream:
                    self._wait_for(memory.stream, stream)
            stage = self._take()
            try:
                sources = [stage.send(i, memory, stream) for i, memory in enumerate(inputs)]
                targets = [stage.place(len(inputs) + i, memory) for i, memory in enumerate(outputs)]
                self.plan.execute(sources, targets, stream)  # type: ignore[arg-type]
                for index, memory in enumerate(outputs):
                    stage.fetch(len(inputs) + index, memory, stream)
                stage.event.record(stream)
            except BaseException:
                stage.close_when_idle(self.gpu)
                raise
        arrived = [(len(inputs) + i, memory) for i, memory in enumerate(outputs)]
        return Pending(self, stage, arrived, (inputs, outputs))

    def _wait_for(self, producer: int, stream: int) -> None:
        event = Event(self.gpu)
        try:
            event.record(producer)
            event.let_wait(stream)
        finally:
            event.close()

    def _take(self) -> _Stage:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _Stage(self.gpu)

    def give(self, stage: _Stage) -> None:
        """Take a stage back for the next call."""
        with self._lock:
            self._idle.append(stage)

    def close(self) -> None:
        """Free everything; calls in progress must have ended."""
        with self.gpu:
            for stage in self._idle:
                stage.close()
            self._idle.clear()
            self._stream = None
        self.plan.close()


class Pending:
    """A call that was enqueued."""

    def __init__(
        self, session: Session, stage: _Stage, arrived: Sequence[tuple[int, Memory]], held: Any
    ) -> None:
        self._session, self._stage, self._arrived, self._held = session, stage, arrived, held
        self._lock = threading.Lock()
        self._waited = False

    @property
    def handle(self) -> int:
        """The handle of the CUDA event, for other streams to wait for."""
        return self._stage.event.handle

    def is_done(self) -> bool:
        """Say whether the GPU has finished."""
        if self._waited:
            return True
        with self._session.gpu:
            return self._stage.event.is_done()

    def wait(self) -> None:
        """Wait for the GPU, and copy what arrived into the arrays on the CPU."""
        with self._lock:
            if self._waited:
                return
            with self._session.gpu:
                self._stage.event.wait()
            self._waited = True
            for index, memory in self._arrived:
                self._stage.deliver(index, memory)
            self._held = None
            self._session.give(self._stage)

    def __del__(self) -> None:
        if not getattr(self, "_waited", True):
            try:  # the stage's memory must not go before the GPU is done with it
                self.wait()
            except EngineError:
                return


class _Stage:
    """Pinned and device memory of one call, an event, as large as was ever needed."""

    def __init__(self, gpu: Any) -> None:
        self.gpu, self.event = gpu, Event(gpu)
        self._places: dict[int, tuple[int, Any, Any]] = {}  # capacity, pinned, on the GPU

    def send(self, index: int, memory: Memory, stream: int) -> Memory:
        """Return an input's memory on the GPU, after starting its copy if it is on the CPU."""
        if memory.on_gpu:
            return memory
        pinned, placed = self._reserve(index, memory)
        np.copyto(pinned[: memory.nbytes], memory.to_numpy().reshape(-1).view(np.uint8))
        upload(placed.address, pinned.ctypes.data, memory.nbytes, stream)
        return placed

    def place(self, index: int, memory: Memory) -> Memory:
        """Return where on the GPU an output is made."""
        return memory if memory.on_gpu else self._reserve(index, memory)[1]

    def fetch(self, index: int, memory: Memory, stream: int) -> None:
        """Start the copy of an output to the CPU."""
        if not memory.on_gpu:
            _, pinned, device = self._places[index]
            download(pinned.ctypes.data, int(device), memory.nbytes, stream)

    def deliver(self, index: int, memory: Memory) -> None:
        """Copy an output that has arrived into its array."""
        if not memory.on_gpu:
            pinned = self._places[index][1]
            target = memory.to_numpy().reshape(-1).view(np.uint8)
            np.copyto(target, pinned[: memory.nbytes])

    def close(self) -> None:
        """Free everything; the GPU must be current."""
        for _, pinned, device in self._places.values():
            self.gpu.unpin(pinned)
            device.free()
        self._places.clear()
        self.event.close()

    def close_when_idle(self, gpu: Any) -> None:
        """Free everything once the GPU has finished; after a fault nothing can be freed."""
        try:
            gpu.synchronize()
            self.close()
        except (EngineError, *gpu.errors):
            return

    def _reserve(self, index: int, memory: Memory) -> tuple[Any, Memory]:
        capacity, pinned, device = self._places.get(index, (-1, None, None))
        if memory.nbytes > capacity:
            if device is not None:
                self.gpu.unpin(pinned)
                device.free()
                del self._places[index]
            pinned = self.gpu.pinned_memory(memory.nbytes)
            device = self.gpu.device_memory(memory.nbytes)
            self._places[index] = memory.nbytes, pinned, device
        placed = Memory(int(device), memory.shape, memory.type_name, GPU, self.gpu.index, self)
        return pinned, placed


@atexit.register
def close_all() -> None:
    """Free everything at the exit of the process, before CUDA goes."""
    for session in tuple(_live):
        session.close()
