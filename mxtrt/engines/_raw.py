"""A whole model in ONNX Runtime or TensorRT alone, without mxtrt: what benchmarks compare with."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from ..arrays import TYPE_FLAGS
from ..errors import EngineError, MxtrtError
from ..onnx_reader import embedded
from ._cuda import Graph
from ._execution import LoadedPlan
from ._streams import download, upload

log = logging.getLogger("mxtrt")

Arrays = Mapping[str, "np.ndarray[Any, Any]"]

QUEUED = 20  # calls in a row


class RawSession:
    """A whole model in ONNX Runtime on the CPU, as a user of its ONNX file calls it.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model; its weights are external data.
    weights : mapping of str to array
        The weights by name.
    feeds : mapping of str to array
        What every call reads.
    threads : int
        How many threads it may use.
    """

    def __init__(
        self, proto: onnx.ModelProto, weights: Arrays, feeds: Arrays, threads: int
    ) -> None:
        import onnxruntime as ort

        settings = ort.SessionOptions()
        settings.intra_op_num_threads = threads
        content = embedded(proto, weights).SerializeToString()
        try:
            self.session = ort.InferenceSession(
                content, settings, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions have no common base but this
            raise EngineError(f"ONNX Runtime cannot load the whole model: {error}") from error
        names = {info.name for info in self.session.get_inputs()}
        self.feeds = {name: array for name, array in feeds.items() if name in names}

    def __call__(self) -> list[Any]:
        """Return the outputs."""
        return list(self.session.run(None, self.feeds))

    def close(self) -> None:
        """Free the session."""
        self.session = None


class DeviceArray:
    """Device memory as the bridge hands over one of MXNet's arrays on the GPU."""

    device_type = 2

    def __init__(self, plan: LoadedPlan, shape: tuple[int, ...], dtype: str) -> None:
        self.nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        self.memory = plan.gpu.device_memory(self.nbytes)
        self.address, self.shape = int(self.memory), tuple(shape)
        self.dtype, self.device_id = TYPE_FLAGS[np.dtype(dtype).name], plan.gpu.index


class RawPlan:
    """A plan with an execution context of its own, run by hand; its GPU must be current.

    Parameters
    ----------
    plan : LoadedPlan
        The plan.
    feeds : mapping of str to array
        What every call reads.
    """

    def __init__(self, plan: LoadedPlan, feeds: Arrays) -> None:
        self.plan, self.gpu = plan, plan.gpu
        self.stream = self.gpu.stream()
        self.handle: int = self.stream.handle
        self.context = plan.new_context(self.handle, own_memory=True)
        tensors = [tensor for tensor in plan.inputs if tensor is not None]
        self.given = [np.ascontiguousarray(feeds[t.name], t.dtype) for t in tensors]
        for tensor, array in zip(tensors, self.given):
            self.context.set_input_shape(tensor.name, array.shape)
        made = [t for t in plan.outputs if t is not None]
        self.results = [
            np.empty(tuple(self.context.get_tensor_shape(t.name)), t.dtype) for t in made
        ]
        self.inputs = [DeviceArray(plan, a.shape, a.dtype.name) for a in self.given]
        self.outputs = [DeviceArray(plan, a.shape, a.dtype.name) for a in self.results]
        for tensor, place in zip((*tensors, *made), (*self.inputs, *self.outputs)):
            self.context.set_tensor_address(tensor.name, place.address)
        self.pinned_in = [self._pinned(array) for array in self.given]
        self.pinned_out = [self._pinned(array) for array in self.results]
        self.captured: Graph | None = None
        self.numpy()
        self.captured = self._capture()

    def _pinned(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        pinned = self.gpu.pinned_memory(array.nbytes)[: array.nbytes]
        view: np.ndarray[Any, Any] = pinned.view(array.dtype).reshape(array.shape)
        return view

    def _capture(self) -> Graph | None:
        try:
            return Graph(self.handle, self._enqueue)
        except (MxtrtError, OSError) as error:
            log.info("no CUDA graph: %s", error)
            return None

    def _enqueue(self) -> bool:
        return bool(self.context.execute_async_v3(self.handle))

    def _launch(self) -> bool:
        return self.captured is not None and self.captured.launch(self.handle)

    def raw(self) -> None:
        """Run the engine on memory of the GPU."""
        self._enqueue()
        self.stream.synchronize()

    def graph(self) -> None:
        """Do the same as a CUDA graph."""
        self._launch()
        self.stream.synchronize()

    def queued(self) -> float:
        """Return the seconds that one of many takes; the faster of the engine and its graph."""
        best = []
        for enqueue in (self._enqueue, *([self._launch] if self.captured else [])):
            taken = []
            for _ in range(5):
                start = time.perf_counter()
                for _ in range(QUEUED):
                    enqueue()
                self.stream.synchronize()
                taken.append((time.perf_counter() - start) / QUEUED)
            best.append(statistics.median(taken))
        return min(best)

    def pinned(self) -> None:
        """Run from pinned memory to pinned memory; by a graph where the plan's own calls do so."""
        for array, place in zip(self.pinned_in, self.inputs):
            upload(place.address, array.ctypes.data, array.nbytes, self.handle)
        by_graph = self.captured is not None and self.plan.uses_graphs
        if not (self._launch() if by_graph else self._enqueue()):
            raise EngineError(f"{self.plan.api.title} could not enqueue the engine")
        for array, place in zip(self.pinned_out, self.outputs):
            download(array.ctypes.data, place.address, array.nbytes, self.handle)
        self.stream.synchronize()

    def numpy(self) -> list[np.ndarray[Any, Any]]:
        """Run from arrays to arrays, through pinned memory."""
        for pinned, array in zip(self.pinned_in, self.given):
            np.copyto(pinned, array)
        self.pinned()
        for array, pinned in zip(self.results, self.pinned_out):
            np.copyto(array, pinned)
        return self.results

    def through_mxtrt(self) -> None:
        """Run the plan as mxtrt does, on memory of the GPU."""
        self.plan.execute(self.inputs, self.outputs, self.handle)  # type: ignore[arg-type]
        self.stream.synchronize()

    def close(self) -> None:
        """Free everything but the plan."""
        if self.captured is not None:
            self.captured.close()
        used = self.plan._on_streams.pop(self.handle, None)  # by `through_mxtrt`
        if used is not None:
            used.close()
        self.context = None
        for place in (*self.inputs, *self.outputs):
            place.memory.free()
        for pinned in (*self.pinned_in, *self.pinned_out):
            base = pinned
            while isinstance(base.base, np.ndarray):
                base = base.base
            self.gpu.unpin(base)
