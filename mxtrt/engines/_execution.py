"""Running a plan: which execution context serves a call, and CUDA graphs.

An execution context serves one call at a time; ``_contexts.py`` has the two kinds.
"""

from __future__ import annotations

import functools
import logging
import statistics
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import EngineError
from ._activations import context_without_memory, needed_bytes, unused
from ._contexts import Lane, Shapes, StreamContext, set_input_shapes
from ._cuda import Gpu, Graph
from ._nvidia import Api, failed
from ._staging import Tensor

if TYPE_CHECKING:
    from .._bridge import Buffer

log = logging.getLogger("mxtrt")

TIMED_CALLS = 7  # of each way to enqueue, when one is chosen
SLOW = 0.01  # seconds: what takes longer is not bound by enqueueing
GRAPH_GAIN = 0.97  # a graph has to take less than this part of the time

_NUMPY_TYPES = {"FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT32": "int32",
                "BOOL": "bool", "UINT8": "uint8", "INT64": "int64"}  # fmt: skip

_live: weakref.WeakSet[LoadedPlan] = weakref.WeakSet()


class LoadedPlan:
    """A plan on one GPU.

    Parameters
    ----------
    api : Api
        Which TensorRT.
    gpu : Gpu
        Where it runs.
    plan : bytes-like
        What the builder made; not needed afterwards.
    inputs, outputs : sequence of str
        The model's own inputs and outputs, in its order.
    lanes : int
        How many calls with arrays on the CPU may run at once.
    cuda_graph : bool, optional
        Whether to replay a captured CUDA graph; None measures which is faster.
    rows_are_alone : callable, optional
        Says whether each row of the outputs depends on the same row of the inputs only; it is asked
        once, for batches that are large.

    Raises
    ------
    EngineError
        TensorRT does not take the plan.
    """

    def __init__(
        self,
        api: Api,
        gpu: Gpu,
        plan: Any,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        lanes: int = 4,
        cuda_graph: bool | None = None,
        rows_are_alone: Callable[[], bool] = lambda: False,
    ) -> None:
        self.api, self.gpu, self.max_lanes = api, gpu, lanes
        self._idle: list[Lane] = []
        self._lanes = 0
        self._changed = threading.Condition()
        self._on_streams: dict[int, StreamContext] = {}
        self._closed = False
        with gpu, api.logger.collecting() as messages:
            self.engine = api.runtime().deserialize_cuda_engine(plan)
        if self.engine is None:
            raise failed(f"{api.title} does not take the plan", messages)
        names = [self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)]
        # an input that nothing reads is none of the plan's
        self.inputs = [self._tensor(name) if name in names else None for name in inputs]
        self.outputs = [self._tensor(name) for name in outputs]
        self.is_static = not any(-1 in self._shape(name) for name in names)
        self.activation_bytes = needed_bytes(self.engine)
        self.cuda_graph = cuda_graph
        self._graph_is_faster: dict[Shapes, bool] = {}
        self.halves_are_faster: dict[Shapes, bool] = {}
        self._ask_rows = rows_are_alone
        self._one_context = not (self.is_static or api.shares_profiles)
        if self._one_context:
            self.max_lanes = 1
        _live.add(self)

    def execute(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer], stream: int) -> None:
        """Run the plan; see `Engine.execute`."""
        if outputs and outputs[0].device_type == 2:
            self._on_stream(stream).enqueue(inputs, outputs, stream)
            return
        with self.gpu, self._lane() as lane:
            lane.run(inputs, outputs)

    @functools.cached_property
    def rows_are_alone(self) -> bool:
        """Whether a batch can be run in parts."""
        return not self.is_static and self._ask_rows()

    @property
    def has_one_context(self) -> bool:
        """Whether only one execution context can exist."""
        return self._one_context

    def output_shapes(self, shapes: Shapes) -> list[tuple[int, ...]]:
        """Return the shapes of the outputs for those of the inputs.

        Raises
        ------
        EngineError
            A shape lies outside the plan's sizes, or an output's shape depends on values.
        """
        names = [tensor.name for tensor in self.outputs]
        if self.is_static:
            return [self._shape(name) for name in names]
        with self.gpu, self._any_context() as context:
            set_input_shapes(self, context, shapes)
            made = [tuple(context.get_tensor_shape(name)) for name in names]
        for name, shape in zip(names, made):
            if any(size < 0 for size in shape):
                raise EngineError(f"the shape of {name!r} depends on values")
        return made

    @contextmanager
    def _any_context(self) -> Iterator[Any]:
        """Yield an execution context of which the shapes may be changed."""
        with self._changed:
            on_stream = next(iter(self._on_streams.values()), None)
        if self._one_context and on_stream is not None:
            with on_stream.borrowed() as context:
                yield context
            return
        with self._lane() as lane:
            lane.forget()
            yield lane.context

    def close(self) -> None:
        """Free the plan and everything that belongs to it; calls in progress must have ended."""
        if self._closed:
            return
        self._closed = True
        try:
            with self.gpu:
                for lane in self._idle:
                    lane.close()
                self._idle.clear()
                self._close_stream_contexts()
                self.engine = None
        except self.gpu.errors as error:  # after a fault on the GPU nothing can be freed
            log.debug("an engine could not be freed: %s", error)

    def __del__(self) -> None:
        if hasattr(self, "engine"):
            self.close()

    def new_context(self, stream: int, *, own_memory: bool = False) -> Any:
        """Return a new execution context, which has to be given memory unless it has its own."""
        context = None
        with self.api.logger.collecting() as messages:
            if not self._closed and own_memory:
                context = self.engine.create_execution_context()
            elif not self._closed:
                context = context_without_memory(self.api.module, self.engine)
        if context is None:
            raise failed(f"{self.api.title} cannot make an execution context", messages)
        if not self.is_static and context.active_optimization_profile < 0:
            # only a first context has it already
            with self.api.logger.collecting() as messages:
                is_set = context.set_optimization_profile_async(0, stream)
            if not is_set:
                raise failed(f"{self.api.title} does not let another context run", messages)
        return context

    def not_enqueued(self) -> EngineError:
        """Return the error for a call that TensorRT refused on this thread."""
        text = self.api.logger.last_error()
        return failed(f"{self.api.title} could not enqueue the engine", [(1, text)] if text else [])

    def graph_if_faster(
        self, shapes: Shapes, enqueue: Callable[[], bool], stream: Any
    ) -> Graph | None:
        """Return a graph of what `enqueue` puts on a stream, or None where that is not faster.

        The engine runs some times for this. The GPU must be current, and what was enqueued before
        must be done.
        """
        if self.cuda_graph is False or self._graph_is_faster.get(shapes) is False:
            return None
        try:
            usual = 0.0
            if self.cuda_graph is None and shapes not in self._graph_is_faster:
                usual = _time(enqueue, stream)
                if usual > SLOW:
                    self._graph_is_faster[shapes] = False
                    return None
            if not usual:  # what TensorRT does once after a change of shapes cannot be captured
                _time(enqueue, stream, calls=1)
            with self.api.logger.collecting(quiet=True):
                graph = Graph(stream.handle, enqueue)
            if usual:
                replayed = _time(lambda: graph.launch(stream.handle), stream)
                self._graph_is_faster[shapes] = replayed < GRAPH_GAIN * usual
                log.debug("enqueued %.3f ms, as a CUDA graph %.3f ms", usual * 1e3, replayed * 1e3)
                if not self._graph_is_faster[shapes]:
                    graph.close()
                    return None
            return graph
        except Exception as error:  # whatever it is: the usual way works
            log.info("no CUDA graph: %s", error)
            self._graph_is_faster[shapes] = False
            return None

    @property
    def uses_graphs(self) -> bool:
        """Whether CUDA graphs are in use, or were asked for."""
        return bool(self.cuda_graph) or any(self._graph_is_faster.values())

    def _on_stream(self, stream: int) -> StreamContext:
        """Return the context for one of MXNet's streams."""
        key = 0 if self._one_context else stream
        with self._changed:
            context = self._on_streams.get(key)
            if context is None:
                with self.gpu:
                    if self._one_context:
                        self._close_lanes()
                    context = self._on_streams[key] = StreamContext(self, stream)
            return context

    def _close_lanes(self) -> None:
        """Wait until no array on the CPU is in use, and free the contexts for these."""
        while self._lanes > len(self._idle):
            self._changed.wait()
        while self._idle:
            self._idle.pop().close()
            self._lanes -= 1

    def _tensor(self, name: str) -> Tensor:
        kind = self.engine.get_tensor_dtype(name).name
        if kind not in _NUMPY_TYPES:
            raise EngineError(f"{self.api.title} made {name!r} of type {kind}, which MXNet lacks")
        return Tensor(name, _NUMPY_TYPES[kind])

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.engine.get_tensor_shape(name))

    @contextmanager
    def _lane(self) -> Iterator[Lane]:
        lane = self._take()
        try:
            yield lane
        except BaseException:
            try:
                lane.close()  # work may be left on its stream
            finally:
                lane.activations.lock.release()
            with self._changed:
                self._lanes -= 1
                self._changed.notify()
            raise
        lane.activations.lock.release()
        with self._changed:
            self._idle.append(lane)
            self._changed.notify()

    def _close_stream_contexts(self) -> None:
        """Free the contexts for arrays on the GPU; the GPU must be current."""
        if self._on_streams:
            self.gpu.synchronize()
        for context in self._on_streams.values():
            context.close()
        self._on_streams.clear()

    def _take(self) -> Lane:
        """Return a lane whose memory no other plan uses now, a new one, or wait for one."""
        with self._changed:
            while True:
                if self._closed:
                    raise EngineError("the engine is closed: the process is ending")
                for index, lane in enumerate(self._idle):
                    if lane.activations.lock.acquire(blocking=False):
                        return self._idle.pop(index)
                if self._lanes < self.max_lanes:
                    new = self._new_lane()
                    if new is not None:
                        return new
                elif self._idle:
                    lane = self._idle.pop()
                    break
                else:
                    self._changed.wait()
        lane.activations.lock.acquire()  # until another plan has run
        return lane

    def _new_lane(self) -> Lane | None:
        """Return one more lane; None if the present ones have to serve all calls."""
        if self._one_context:
            self._close_stream_contexts()
        activations = unused(self.gpu)
        try:
            lane = Lane(self, activations)
        except BaseException as error:
            activations.lock.release()
            if not self._lanes or not isinstance(error, EngineError):
                raise
            self.max_lanes = self._lanes  # there is no memory for another one
            return None
        self._lanes += 1
        return lane


def _time(enqueue: Callable[[], bool], stream: Any, calls: int = TIMED_CALLS) -> float:
    """Return the seconds that a call takes."""
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        if not enqueue():
            raise EngineError("the engine could not be enqueued once more")
        stream.synchronize()
        seconds.append(time.perf_counter() - start)
        if seconds[-1] > SLOW:
            break
    return statistics.median(seconds)


def close_all() -> None:
    """Free all plans: at the exit of the process, before CUDA goes."""
    for plan in tuple(_live):
        plan.close()
