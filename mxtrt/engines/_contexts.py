"""Execution contexts with what each call needs: `Lane`, `StreamContext`.

Arrays on the CPU go through a `Lane`: a context with a stream and pinned buffers of its own. Arrays
on the GPU are used where they lie, on MXNet's own stream, with one `StreamContext` for each stream.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._transfer import Transfer
from ..arrays import DTYPES
from ..errors import EngineError
from ..graph import format_shape
from ._activations import Activations, give_memory, of_stream
from ._cuda import Gpu, Graph, error_name
from ._halves import Halves, halves_if_faster, worth_halving
from ._nvidia import failed

if TYPE_CHECKING:
    from .._bridge import Buffer
    from ._execution import LoadedPlan

CALLS_BEFORE_GRAPH = 3  # with the same shapes, and on a GPU at the same addresses
MAX_GRAPHS = 16  # of a context: executors and Gluon use few sets of arrays in turn
MAX_ADDRESSES = 64

Shapes = tuple[tuple[int, ...], ...]
"""The shapes of all inputs."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of a plan, under TensorRT's name, with NumPy's name of its type."""

    name: str
    dtype: str


class Lane:
    """What a call with arrays on the CPU needs to itself; it runs while it holds `activations`."""

    def __init__(self, plan: LoadedPlan, activations: Activations) -> None:
        self.plan: LoadedPlan = weakref.proxy(plan)  # which holds this, and goes with its last call
        self.gpu, self.activations = plan.gpu, activations
        self.stream = self.gpu.stream()
        self.handle: int = self.stream.handle
        self.context = plan.new_context(self.handle)
        self.inputs = [Staging(self.gpu, tensor) for tensor in plan.inputs]
        self.outputs = [Staging(self.gpu, tensor) for tensor in plan.outputs]
        self.shapes: Shapes = ()
        self._calls = 0  # with these shapes
        self._graph: Graph | None = None
        self._halves: Halves | None = None
        self._transfer: Transfer | None = None
        self._memory = 0  # the address of the activations
        activations.join()
        try:
            self._use_activations()
        except EngineError:
            activations.leave()
            raise

    def run(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer]) -> None:
        """Copy in, run, copy out and wait; the GPU must be current."""
        self._use_activations()
        shapes = tuple(buffer.shape for buffer in inputs)
        if shapes != self.shapes or self._transfer is None:
            self._prepare(shapes, inputs, outputs)
        sources = [staging.source(buffer) for staging, buffer in zip(self.inputs, inputs)]
        targets = [staging.target(buffer) for staging, buffer in zip(self.outputs, outputs)]
        self._run(sources, targets, self._halves)
        for staging, buffer in zip(self.outputs, outputs):
            staging.convert(buffer)
        self._calls += 1
        if self._calls == CALLS_BEFORE_GRAPH:
            self._choose(sources, targets)

    def _run(self, sources: list[int], targets: list[int], halves: Halves | None) -> None:
        transfer = self._transfer
        assert transfer is not None
        if halves is not None:
            status = halves.run(sources) or transfer.download(targets)
        elif self._graph is not None:
            status = transfer.replay(sources, self._graph.handle, targets)
        else:
            status = transfer.upload(sources)
            if not status and not self.enqueue():
                raise self.plan.not_enqueued()
            status = status or transfer.download(targets)
        if status:
            raise EngineError(f"{self.gpu} failed: {error_name(status)}")

    def _choose(self, sources: list[int], targets: list[int]) -> None:
        """Choose the fastest way to run calls with these shapes."""
        self._graph = self.plan.graph_if_faster(self.shapes, self.enqueue, self.stream)
        if not (worth_halving(self) and self.plan.rows_are_alone):
            return
        run = functools.partial(self._run, sources, targets)
        self._halves = halves_if_faster(self, run, self.plan.halves_are_faster)
        self._drop_graph()  # it is of the shapes before, and there were others since
        if self._halves is None:
            self._graph = self.plan.graph_if_faster(self.shapes, self.enqueue, self.stream)

    def close(self) -> None:
        """Free everything; the GPU must be current."""
        self._drop_graph()
        if self._halves is not None:
            self._halves.close()
        self._halves = self._transfer = self.context = None
        self.activations.leave()
        for staging in (*self.inputs, *self.outputs):
            staging.close()
        self.stream = None

    def _prepare(self, shapes: Shapes, inputs: Sequence[Buffer], outputs: Sequence[Buffer]) -> None:
        self.shapes, self._calls, self._transfer = (), 0, None
        self._drop_graph()
        self._end_halves()
        for staging, shape in zip(self.inputs, shapes):
            staging.reserve(shape, self.context)
        self.set_shapes(shapes)
        for staging, buffer in zip(self.outputs, outputs):
            check_output_shape(self.context, staging.tensor, buffer)
            staging.reserve(buffer.shape, self.context)
        self._transfer = Transfer(
            self.gpu.functions(),
            self.handle,
            [staging.place() for staging in self.inputs],
            [staging.place() for staging in self.outputs],
        )
        self.shapes = shapes

    def set_shapes(self, shapes: Shapes) -> None:
        """Tell the context the shapes of the inputs; see `set_input_shapes`."""
        set_input_shapes(self.plan, self.context, shapes)

    def _use_activations(self) -> None:
        """Take the memory where it is now: another plan may have needed more of it."""
        address = self.activations.reserve(self.plan.activation_bytes)
        if address != self._memory and self.plan.activation_bytes:
            self._drop_graph()
            self._end_halves()
            give_memory(self.context, address, self.plan.activation_bytes)
            self._memory, self._calls = address, 0

    def forget(self) -> None:
        """Prepare anew at the next call: the context's shapes are going to be changed."""
        self.shapes = ()

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self._graph.close()
            self._graph = None

    def _end_halves(self) -> None:
        if self._halves is not None:
            self._halves.end()
            self._halves = None

    def enqueue(self) -> bool:
        """Enqueue the engine; return whether that worked."""
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

    @property
    def shape(self) -> tuple[int, ...]:
        """The present shape."""
        shape: tuple[int, ...] = self._host.shape
        return shape

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
        elif array.dtype.kind == "f" and self.tensor.dtype == "int32":
            array = _truncated(array)
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
        self.plan: LoadedPlan = weakref.proxy(plan)  # which holds this, and goes with its last call
        self._stream = stream
        self.context = plan.new_context(stream)
        self.addresses: dict[str, int] = {}
        self._shapes: Shapes = ()
        self._lock = threading.Lock()
        self._captures = plan.gpu.stream()  # MXNet's own may be in use by others meanwhile
        self._graphs: dict[tuple[int, ...], Graph] = {}
        self._seen: Counter[tuple[int, ...]] = Counter()
        self._memory = 0  # the address of the activations
        self._activations = of_stream(plan.gpu, stream)
        self._activations.join()

    def enqueue(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer], stream: int) -> None:
        """Enqueue on MXNet's stream and return: MXNet orders what comes before and after."""
        with self._lock:
            if stream != self._stream:
                self._change_stream(stream)
            with self._activations.lock:
                self._enqueue(inputs, outputs)

    def _enqueue(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer]) -> None:
        self._use_activations()
        shapes = tuple(buffer.shape for buffer in inputs)
        if shapes != self._shapes:
            self._prepare(shapes, outputs)
        addresses = tuple([buffer.address for buffer in (*inputs, *outputs)])
        graph = self._graphs.get(addresses)
        if graph is not None:
            if not graph.launch(self._stream):
                raise EngineError(f"{self.plan.api.title}: the CUDA graph was not launched")
            return
        tensors = (*self.plan.inputs, *self.plan.outputs)
        for placed, buffer in zip(tensors, (*inputs, *outputs)):
            if placed is not None:
                self._place(placed, buffer)
        if not self.context.execute_async_v3(self._stream):
            raise self.plan.not_enqueued()
        self._capture(addresses)

    def _change_stream(self, stream: int) -> None:
        """Serve another stream: where only one context can exist, it is for all of them."""
        with self.plan.gpu as gpu:
            gpu.synchronize()
            self._activations.leave()
        self._stream, self._activations = stream, of_stream(self.plan.gpu, stream)
        self._activations.join()

    def _use_activations(self) -> None:
        """Take the memory where it is now: another plan may have needed more of it."""
        address = self._activations.reserve(self.plan.activation_bytes)
        if address != self._memory and self.plan.activation_bytes:
            with self.plan.gpu as gpu:
                gpu.synchronize()
                self._drop_graphs()
            self._seen.clear()
            give_memory(self.context, address, self.plan.activation_bytes)
            self._memory = address

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
        self._activations.leave()

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
                f"{self.plan.api.title}: on a GPU it cannot be converted on the way; pass "
                f"dtypes={{{tensor.name!r}: {tensor.dtype!r}}} to mxtrt.optimize, and such arrays"
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


def _truncated(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return floats as int32, as TensorRT casts them: what lies beyond comes out at the end."""
    limits = np.iinfo(np.int32)
    whole = np.clip(np.nan_to_num(array.astype(np.float64)), limits.min, limits.max)
    return whole.astype(np.int32)


def _require_int32(array: np.ndarray[Any, Any], name: str) -> None:
    limits = np.iinfo(np.int32)
    if array.size and (array.max() > limits.max or array.min() < limits.min):
        raise EngineError(f"{name!r} holds numbers beyond int32, in which TensorRT computes")
