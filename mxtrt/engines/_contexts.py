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
from typing import TYPE_CHECKING, Any

from .._transfer import Transfer
from ..arrays import DTYPES
from ..errors import EngineError
from ..graph import format_shape
from ._activations import Activations, give_memory, of_stream
from ._cuda import Graph, error_name
from ._halves import Halves, halves_if_faster, worth_halving
from ._nvidia import failed
from ._staging import Conversion, Staging, Tensor

if TYPE_CHECKING:
    from .._bridge import Buffer
    from ._execution import LoadedPlan

CALLS_BEFORE_GRAPH = 3  # with the same shapes, and on a GPU at the same addresses
MAX_GRAPHS = 16  # of a context: executors and Gluon use few sets of arrays in turn
MAX_ADDRESSES = 64

Shapes = tuple[tuple[int, ...], ...]
"""The shapes of all inputs."""


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


class StreamContext:
    """The execution context for one of MXNet's streams: what it is given is MXNet's own memory."""

    def __init__(self, plan: LoadedPlan, stream: int) -> None:
        self.plan: LoadedPlan = weakref.proxy(plan)  # which holds this, and goes with its last call
        self._stream = stream
        self.context = plan.new_context(stream)
        self.addresses: dict[str, int] = {}
        self._conversions: dict[int, Conversion] = {}  # by the index of the input or output
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
            self._prepare(shapes, inputs, outputs)
        addresses = [buffer.address for buffer in (*inputs, *outputs)]
        if not self._conversions:
            self._run(tuple(addresses))
            return
        with self.plan.gpu:
            for index, conversion in self._conversions.items():
                if index < len(inputs):
                    conversion.read(addresses[index], self._stream)
            placed = {index: c.address for index, c in self._conversions.items()}
            self._run(tuple([placed.get(i, address) for i, address in enumerate(addresses)]))
            for index, conversion in self._conversions.items():
                if index >= len(inputs):
                    conversion.write(addresses[index], self._stream)

    def _run(self, addresses: tuple[int, ...]) -> None:
        """Enqueue the engine on inputs and outputs at these addresses."""
        graph = self._graphs.get(addresses)
        if graph is not None:
            if not graph.launch(self._stream):
                raise EngineError(f"{self.plan.api.title}: the CUDA graph was not launched")
            return
        for tensor, address in zip((*self.plan.inputs, *self.plan.outputs), addresses):
            if tensor is not None:
                self._place(tensor.name, address)
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
        self._drop_conversions()
        self.context = self._captures = None
        self._activations.leave()

    def _prepare(self, shapes: Shapes, inputs: Sequence[Buffer], outputs: Sequence[Buffer]) -> None:
        self._shapes = ()
        if self._graphs or self._conversions:
            with self.plan.gpu as gpu:
                gpu.synchronize()
                self._drop_graphs()
                self._drop_conversions()
        self._seen.clear()
        set_input_shapes(self.plan, self.context, shapes)
        for tensor, buffer in zip(self.plan.outputs, outputs):
            check_output_shape(self.context, tensor, buffer)
        tensors = zip((*self.plan.inputs, *self.plan.outputs), (*inputs, *outputs))
        for index, (placed, buffer) in enumerate(tensors):
            if placed is not None and DTYPES.get(buffer.dtype) != placed.dtype:
                with self.plan.gpu as gpu:
                    conversion = Conversion(gpu, placed, buffer, self.context)
                self._conversions[index] = conversion
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

    def _drop_conversions(self) -> None:
        for conversion in self._conversions.values():
            conversion.close()
        self._conversions.clear()

    def _place(self, name: str, address: int) -> None:
        if self.addresses.get(name) != address:
            if not self.context.set_tensor_address(name, address):
                raise EngineError(f"TensorRT does not take the address of {name!r}")
            self.addresses[name] = address


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
