"""Running a plan: execution contexts, staging for arrays on the CPU, and CUDA graphs.

An execution context serves one call at a time. Arrays on the CPU go through a `Lane`: a context
with a stream and pinned buffers of its own. Arrays on the GPU are used where they lie, on MXNet's
own stream, with one context for each stream.
"""

from __future__ import annotations

import logging
import statistics
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._transfer import Transfer
from ..arrays import DTYPES
from ..errors import EngineError
from ..graph import format_shape
from ._cuda import Gpu, Graph, error_name
from ._nvidia import Api, failed

if TYPE_CHECKING:
    from .._bridge import Buffer

log = logging.getLogger("mxtrt")

TIMED_CALLS = 7  # of each way to enqueue, when one is chosen
SLOW = 0.01  # seconds: what takes longer is not bound by enqueueing
GRAPH_GAIN = 0.97  # a graph has to take less than this part of the time
CALLS_BEFORE_GRAPH = 3  # with the same shapes, and on a GPU at the same addresses
MAX_GRAPHS = 16  # of a context: executors and Gluon use few sets of arrays in turn
MAX_ADDRESSES = 64

Shapes = tuple[tuple[int, ...], ...]
"""The shapes of all inputs."""

_NUMPY_TYPES = {"FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT32": "int32",
                "BOOL": "bool", "UINT8": "uint8", "INT64": "int64"}  # fmt: skip

_live: weakref.WeakSet[LoadedPlan] = weakref.WeakSet()


@dataclass(frozen=True)
class Tensor:
    """An input or output of a plan, under TensorRT's name, with NumPy's name of its type."""

    name: str
    dtype: str


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
        self.cuda_graph = cuda_graph
        self._graph_is_faster: dict[Shapes, bool] = {}
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
        if self._one_context:
            shared = self._on_stream(0)
            with shared.borrowed() as context:
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

    def new_context(self, stream: int) -> Any:
        """Return a new execution context."""
        with self.api.logger.collecting() as messages:
            context = None if self._closed else self.engine.create_execution_context()
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
            lane.close()  # work may be left on its stream
            with self._changed:
                self._lanes -= 1
                self._changed.notify()
            raise
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
        """Return a lane that is idle, or a new one, or wait for one."""
        with self._changed:
            while True:
                if self._closed:
                    raise EngineError("the engine is closed: the process is ending")
                if self._idle:
                    return self._idle.pop()
                if self._lanes < self.max_lanes:
                    if self._one_context:
                        self._close_stream_contexts()
                    try:
                        lane = Lane(self)
                    except EngineError:
                        if not self._lanes:
                            raise
                        # no memory for another one: the present ones serve all calls
                        self.max_lanes = self._lanes
                        continue
                    self._lanes += 1
                    return lane
                self._changed.wait()


class Lane:
    """What a call with arrays on the CPU needs to itself."""

    def __init__(self, plan: LoadedPlan) -> None:
        self.plan, self.gpu = plan, plan.gpu
        self.stream = self.gpu.stream()
        self.handle: int = self.stream.handle
        self.context = plan.new_context(self.handle)
        self.inputs = [Staging(self.gpu, tensor) for tensor in plan.inputs]
        self.outputs = [Staging(self.gpu, tensor) for tensor in plan.outputs]
        self._shapes: Shapes = ()
        self._calls = 0  # with these shapes
        self._graph: Graph | None = None
        self._transfer: Transfer | None = None

    def run(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer]) -> None:
        """Copy in, run, copy out and wait; the GPU must be current."""
        shapes = tuple(buffer.shape for buffer in inputs)
        if shapes != self._shapes or self._transfer is None:
            self._prepare(shapes, inputs, outputs)
        assert self._transfer is not None
        sources = [staging.source(buffer) for staging, buffer in zip(self.inputs, inputs)]
        targets = [staging.target(buffer) for staging, buffer in zip(self.outputs, outputs)]
        if self._graph is not None:
            status = self._transfer.replay(sources, self._graph.handle, targets)
        else:
            status = self._transfer.upload(sources)
            if not status and not self._enqueue():
                raise self.plan.not_enqueued()
            status = status or self._transfer.download(targets)
        if status:
            raise EngineError(f"{self.gpu} failed: {error_name(status)}")
        for staging, buffer in zip(self.outputs, outputs):
            staging.convert(buffer)
        self._calls += 1
        if self._calls == CALLS_BEFORE_GRAPH:
            self._graph = self.plan.graph_if_faster(shapes, self._enqueue, self.stream)

    def close(self) -> None:
        """Free everything; the GPU must be current."""
        self._drop_graph()
        self._transfer = self.context = None
        for staging in (*self.inputs, *self.outputs):
            staging.close()
        self.stream = None

    def _prepare(self, shapes: Shapes, inputs: Sequence[Buffer], outputs: Sequence[Buffer]) -> None:
        self._shapes, self._calls, self._transfer = (), 0, None
        self._drop_graph()
        for staging, shape in zip(self.inputs, shapes):
            staging.reserve(shape, self.context)
        set_input_shapes(self.plan, self.context, shapes)
        for staging, buffer in zip(self.outputs, outputs):
            check_output_shape(self.context, staging.tensor, buffer)
            staging.reserve(buffer.shape, self.context)
        self._transfer = Transfer(
            self.gpu.functions(),
            self.handle,
            [staging.place() for staging in self.inputs],
            [staging.place() for staging in self.outputs],
        )
        self._shapes = shapes

    def forget(self) -> None:
        """Prepare anew at the next call: the context's shapes are going to be changed."""
        self._shapes = ()

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self._graph.close()
            self._graph = None

    def _enqueue(self) -> bool:
        return bool(self.context.execute_async_v3(self.handle))


class Staging:
    """Pinned memory and device memory for one input or output, as large as was ever needed."""

    def __init__(self, gpu: Gpu, tensor: Tensor | None) -> None:
        self.gpu, self.tensor = gpu, tensor
        self._capacity = -1
        self._pinned: Any = None
        self._device: Any = None
        self._host: Any = None  # the pinned memory in the present shape

    def reserve(self, shape: tuple[int, ...], context: Any) -> None:
        """Make room for a shape and tell the context where it is."""
        if self.tensor is None:
            return
        dtype = np.dtype(self.tensor.dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if nbytes > self._capacity:
            self.close()
            self._pinned = self.gpu.pinned_memory(nbytes)
            self._device = self.gpu.device_memory(nbytes)
            self._capacity = nbytes
            if not context.set_tensor_address(self.tensor.name, int(self._device)):
                raise EngineError(f"TensorRT does not take the address of {self.tensor.name!r}")
        self._host = self._pinned[:nbytes].view(dtype).reshape(shape)

    def place(self) -> tuple[int, int, int]:
        """Return the pinned address, the device's address and the bytes of the present shape."""
        if self.tensor is None:
            return 0, 0, 0
        return self._host.ctypes.data, int(self._device), self._host.nbytes

    def close(self) -> None:
        """Free both; the GPU must be current."""
        if self._pinned is not None:
            self._host = None
            self.gpu.unpin(self._pinned)
        if self._device is not None:
            self._device.free()
        self._pinned = self._device = None
        self._capacity = -1

    def source(self, buffer: Buffer) -> int:
        """Return where to copy MXNet's array from; 0 if it is in pinned memory now."""
        if self.tensor is None:
            return 0
        if DTYPES.get(buffer.dtype) == self.tensor.dtype:
            return buffer.address
        array = buffer.to_numpy()
        if array.dtype == np.int64 and self.tensor.dtype == "int32":
            _require_int32(array, self.tensor.name)
        np.copyto(self._host, array, casting="unsafe")
        return 0

    def target(self, buffer: Buffer) -> int:
        """Return where MXNet's array is; 0 if it is of another type, for which see `convert`."""
        same = self.tensor is not None and DTYPES.get(buffer.dtype) == self.tensor.dtype
        return buffer.address if same else 0

    def convert(self, buffer: Buffer) -> None:
        """Copy pinned memory to MXNet's array if that is of another type."""
        if self.tensor is not None and DTYPES.get(buffer.dtype) != self.tensor.dtype:
            np.copyto(buffer.to_numpy(), self._host, casting="unsafe")


class StreamContext:
    """The execution context for one of MXNet's streams: what it is given is MXNet's own memory."""

    def __init__(self, plan: LoadedPlan, stream: int) -> None:
        self.plan, self._stream = plan, stream
        self.context = plan.new_context(stream)
        self.addresses: dict[str, int] = {}
        self._shapes: Shapes = ()
        self._lock = threading.Lock()
        self._captures = plan.gpu.stream()  # MXNet's own may be in use by others meanwhile
        self._graphs: dict[tuple[int, ...], Graph] = {}
        self._seen: Counter[tuple[int, ...]] = Counter()

    def enqueue(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer], stream: int) -> None:
        """Enqueue on MXNet's stream and return: MXNet orders what comes before and after."""
        with self._lock:
            if stream != self._stream:  # one context for all streams: it serves one at a time
                with self.plan.gpu as gpu:
                    gpu.synchronize()
                self._stream = stream
            shapes = tuple(buffer.shape for buffer in inputs)
            if shapes != self._shapes:
                self._prepare(shapes, outputs)
            addresses = tuple([buffer.address for buffer in (*inputs, *outputs)])
            graph = self._graphs.get(addresses)
            if graph is not None:
                if not graph.launch(stream):
                    raise EngineError(f"{self.plan.api.title}: the CUDA graph was not launched")
                return
            tensors = (*self.plan.inputs, *self.plan.outputs)
            for placed, buffer in zip(tensors, (*inputs, *outputs)):
                if placed is not None:
                    self._place(placed, buffer)
            if not self.context.execute_async_v3(stream):
                raise self.plan.not_enqueued()
            self._capture(addresses)

    @contextmanager
    def borrowed(self) -> Iterator[Any]:
        """Yield the context, of which the shapes may be changed."""
        with self._lock:
            self._shapes = ()
            yield self.context

    def close(self) -> None:
        """Free everything; the GPU must be current."""
        self._drop_graphs()
        self.context = self._captures = None

    def _prepare(self, shapes: Shapes, outputs: Sequence[Buffer]) -> None:
        self._shapes = ()
        if self._graphs:
            with self.plan.gpu as gpu:
                gpu.synchronize()
                self._drop_graphs()
        self._seen.clear()
        set_input_shapes(self.plan, self.context, shapes)
        for tensor, buffer in zip(self.plan.outputs, outputs):
            check_output_shape(self.context, tensor, buffer)
        self._shapes = shapes

    def _capture(self, addresses: tuple[int, ...]) -> None:
        """Make a CUDA graph for addresses that come again and again."""
        self._seen[addresses] += 1
        if len(self._seen) > MAX_ADDRESSES:  # a program that has new ones each time
            self._seen.clear()
        if self._seen[addresses] != CALLS_BEFORE_GRAPH or len(self._graphs) >= MAX_GRAPHS:
            return
        with self.plan.gpu as gpu:
            gpu.synchronize()  # the arrays hold what they shall, and nobody reads the outputs yet
            graph = self.plan.graph_if_faster(self._shapes, self._enqueue_capture, self._captures)
        if graph is not None:
            self._graphs[addresses] = graph

    def _enqueue_capture(self) -> bool:
        return bool(self.context.execute_async_v3(self._captures.handle))

    def _drop_graphs(self) -> None:
        for graph in self._graphs.values():
            graph.close()
        self._graphs.clear()

    def _place(self, tensor: Tensor, buffer: Buffer) -> None:
        if DTYPES.get(buffer.dtype) != tensor.dtype:
            raise EngineError(
                f"{tensor.name!r} is {DTYPES.get(buffer.dtype)} in MXNet and {tensor.dtype} in "
                f"{self.plan.api.title}: on a GPU it cannot be converted on the way"
            )
        if self.addresses.get(tensor.name) != buffer.address:
            if not self.context.set_tensor_address(tensor.name, buffer.address):
                raise EngineError(f"TensorRT does not take the address of {tensor.name!r}")
            self.addresses[tensor.name] = buffer.address


def set_input_shapes(plan: LoadedPlan, context: Any, shapes: Sequence[tuple[int, ...]]) -> None:
    """Tell a context the shapes of its inputs.

    Raises
    ------
    EngineError
        A shape lies outside the plan's sizes.
    """
    with plan.api.logger.collecting() as messages:
        for tensor, shape in zip(plan.inputs, shapes):
            if tensor is not None and not context.set_input_shape(tensor.name, shape):
                shown = f"{tensor.name!r} of shape {format_shape(shape)}"
                raise failed(f"{plan.api.title} does not take {shown}", messages)


def check_output_shape(context: Any, tensor: Tensor | None, buffer: Buffer) -> None:
    """Raise an error where TensorRT would write another shape than MXNet made room for."""
    if tensor is None:
        return
    made = tuple(context.get_tensor_shape(tensor.name))
    if made != buffer.shape:
        raise EngineError(
            f"{tensor.name!r} is {format_shape(made)} in TensorRT and "
            f"{format_shape(buffer.shape)} in MXNet"
        )


def _require_int32(array: np.ndarray[Any, Any], name: str) -> None:
    limits = np.iinfo(np.int32)
    if array.size and (array.max() > limits.max or array.min() < limits.min):
        raise EngineError(f"{name!r} holds numbers beyond int32, in which TensorRT computes")


def _time(enqueue: Callable[[], bool], stream: Any) -> float:
    """Return the seconds that a call takes."""
    seconds = []
    for _ in range(TIMED_CALLS):
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
