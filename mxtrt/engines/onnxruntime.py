"""The ONNX Runtime engine: parts on the CPU, on MXNet's own memory.

Inputs and outputs are bound by address, so nothing is copied on the way in or out. Weights are
handed over as views of MXNet's arrays; ONNX Runtime lays them out for its kernels while the
session is made (those of large convolutions before: `_layout`) and does not read MXNet's memory
afterwards.
"""

from __future__ import annotations

import logging
import mmap
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from .. import forks
from ..arrays import TYPE_FLAGS, numpy_view, return_freed_memory
from ..errors import BadOption, EngineError, EngineNotAvailable, nearest
from ..onnx_model import graphs
from ..store import Origin

try:
    import onnxruntime as ort
except ImportError as error:
    raise EngineNotAvailable(
        f"engine='onnxruntime' needs the package onnxruntime: {error}"
    ) from error

from ._eight_bits import with_unsigned_data
from ._integers import COMPARISONS, SUMS, with_right_integers
from ._layout import Arrays, lay_out

if TYPE_CHECKING:
    import mxnet as mx

    from .._bridge import Buffer
    from ..options import Options

log = logging.getLogger("mxtrt")

kind = "onnxruntime"
PROVIDERS = ["CPUExecutionProvider"]
_VERSION = tuple(map(int, ort.__version__.split(".")[:2]))
RUN_SETTINGS = (
    "intra_op_num_threads", "inter_op_num_threads", "execution_", "enable_", "profile_", "log",
    "session.intra_op.", "session.inter_op.",
)  # fmt: skip
"""How the settings begin that do not concern the optimiser."""

# In 1.20 to 1.23 a Pad of zeros becomes the padding of the MaxPool behind it, which is no zeros;
# 1.32 knows the difference.
# Since 1.21 the weight of a float convolution between quantised tensors is rounded to 8 bits, too.
WRONG_OPTIMIZERS = ["WeightBiasQuantization", *(["Pad_Fusion"] if _VERSION < (1, 32) else [])]
# Until 1.25 it makes of Transpose and MatMul what it has for float32 only.
FLOAT32_OPTIMIZERS = ["MatmulTransposeFusion"]
# Versions whose processes end, for a division by 0 or foreign memory, where these operators find
# no elements: Einsum of two arrays until 1.25, TopK behind an axis of size 0 until 1.30.
DIES_OF_NOTHING = {op for op, right in (("Einsum", (1, 26)), ("TopK", (1, 31))) if right > _VERSION}
WRONG_INTEGERS = {
    *(COMPARISONS if (1, 21) <= _VERSION < (1, 32) else ()),
    *(SUMS if _VERSION >= (1, 26) else ()),
}
MAX_BINDINGS = 32  # sets of addresses an engine remembers; executors and Gluon reuse few

_NUMPY_TYPES = {flag: np.dtype(name).type for name, flag in TYPE_FLAGS.items()}

Binding = tuple[Any, ...]
"""What a set of bound addresses is known by."""


class OnnxRuntimeEngine:
    """One ONNX Runtime session and the addresses bound to it.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        What runs the part.
    arrays : mapping of str to array
        By name, what the session reads besides the part's inputs.
    origin : Origin, optional
        What making it took.

    Attributes
    ----------
    origins : list of (None, Origin)
        One: a session takes all sizes.
    """

    kind = kind

    def __init__(
        self, session: ort.InferenceSession, arrays: Arrays, origin: Origin | None = None
    ) -> None:
        self.session = session
        self.origins = [] if origin is None else [(None, origin)]
        names = [info.name for info in session.get_inputs()]
        self._inputs = [name for name in names if name not in arrays]
        self._weights = [
            (name, ort.OrtValue.ortvalue_from_numpy(arrays[name]))
            for name in names
            if name in arrays
        ]
        self._outputs = [info.name for info in session.get_outputs()]
        self.dies_of_nothing: set[str] = set()
        self._lock = threading.Lock()
        self._idle: OrderedDict[Binding, ort.IOBinding] = OrderedDict()
        self._nothing = np.zeros(64, np.uint8)  # an address for arrays without elements

    def execute(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer], stream: int) -> None:
        """Run the session on MXNet's memory; see `Engine.execute`."""
        key = tuple((b.address, b.shape) for b in (*inputs, *outputs))
        with self._lock:
            binding = self._idle.pop(key, None)
        if binding is None:
            if all(0 in buffer.shape for buffer in outputs):
                return  # nothing to make, in which several kernels of 1.23 fail
            binding = self._bind(inputs, outputs)
        try:
            self.session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's exceptions have no common base but this
            raise EngineError(f"ONNX Runtime failed: {error}") from error
        with self._lock:
            self._idle[key] = binding
            if len(self._idle) > MAX_BINDINGS:
                self._idle.popitem(last=False)

    def _bind(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer]) -> ort.IOBinding:
        if self.dies_of_nothing and any(0 in buffer.shape for buffer in inputs):
            raise EngineError(_needs_elements(self.dies_of_nothing))
        binding = self.session.io_binding()
        for name, value in self._weights:
            binding.bind_ortvalue_input(name, value)
        for name, buffer in zip(self._inputs, inputs):
            binding.bind_input(name, *self._place(buffer))
        for name, buffer in zip(self._outputs, outputs):
            binding.bind_output(name, *self._place(buffer))
        return binding

    def _place(self, buffer: Buffer) -> tuple[Any, ...]:
        address = buffer.address or self._nothing.ctypes.data
        return "cpu", 0, _NUMPY_TYPES[buffer.dtype], buffer.shape, address


def refuses(scratch: onnx.ModelProto) -> str | None:
    """Return why ONNX Runtime has no kernel for a scratch model, or None."""
    dies = _dies_of_nothing(scratch)
    if dies and any(_has_no_elements(info) for info in scratch.graph.input):
        return _needs_elements(dies)
    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 4
    try:
        ort.InferenceSession(_weights_as_inputs(scratch), settings, providers=PROVIDERS)
    except Exception as error:
        return f"ONNX Runtime {ort.__version__}: {_sentence(error)}"
    return None


def build(
    proto: onnx.ModelProto,
    weights: Mapping[str, mx.nd.NDArray],
    options: Options,
) -> OnnxRuntimeEngine:
    """Build a session; see `Builder.build`."""
    start, given = time.perf_counter(), options.session_options
    arrays: Arrays = {name: numpy_view(array) for name, array in weights.items()}
    proto = with_unsigned_data(with_right_integers(proto, WRONG_INTEGERS))
    session = None
    if all(name.startswith(RUN_SETTINGS) for name in given):
        try:
            laid_out = lay_out(proto, arrays, lambda model: _optimise(model, arrays))
            session, arrays = _session(*laid_out, _session_options(given)), laid_out[1]
        except EngineError as error:  # in one piece it needs more memory for a moment
            log.info("%s is not laid out piece by piece: %s", proto.graph.name, error)
    session = session or _session(proto, arrays, _session_options(given))
    engine = OnnxRuntimeEngine(session, arrays, Origin(False, time.perf_counter() - start, 0))
    engine.dies_of_nothing = _dies_of_nothing(proto)
    return engine


def _session(
    model: onnx.ModelProto, arrays: Arrays, settings: ort.SessionOptions
) -> ort.InferenceSession:
    """Return a session, with fewer optimisations where the optimiser makes what does not load."""
    _add_weights(model, arrays, settings)
    content = model.SerializeToString()
    try:
        return _load(content, settings)
    except EngineError as error:
        failure = error
    log.info("%s is loaded with fewer optimisations: %s", model.graph.name, failure)
    with suppress(EngineError):
        return _load(content, settings, FLOAT32_OPTIMIZERS)
    # the optimiser of 1.23 fails where a constant without elements is added, or channels are none
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    with suppress(EngineError):
        return _load(content, settings)
    raise failure


def _add_weights(model: onnx.ModelProto, arrays: Arrays, settings: ort.SessionOptions) -> None:
    declared = [t.name for t in model.graph.initializer if t.name in arrays]
    if declared:
        values = [ort.OrtValue.ortvalue_from_numpy(arrays[name]) for name in declared]
        settings.add_external_initializers(declared, values)


def _load(
    content: bytes, settings: ort.SessionOptions, disabled: Sequence[str] = ()
) -> ort.InferenceSession:
    try:
        with forks.noting_workers():
            return ort.InferenceSession(
                content,
                settings,
                providers=PROVIDERS,
                disabled_optimizers=[*WRONG_OPTIMIZERS, *disabled],
            )
    except Exception as error:
        raise EngineError(f"ONNX Runtime cannot load the part: {_sentence(error)}") from error


def _optimise(model: onnx.ModelProto, arrays: Arrays) -> onnx.ModelProto:
    """Return a model as ONNX Runtime would run it, its weights inside."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3  # it warns that the result is for this machine only
    with os.fdopen(os.memfd_create("mxtrt"), "rb") as file:
        settings.optimized_model_filepath = f"/proc/self/fd/{file.fileno()}"
        _add_weights(model, arrays, settings)
        _load(model.SerializeToString(), settings)
        return_freed_memory()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as saved:
            optimised = onnx.ModelProto()
            optimised.ParseFromString(memoryview(saved))
    return optimised


def _session_options(given: Mapping[str, Any]) -> ort.SessionOptions:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = num_threads()
    for name, value in given.items():
        if "." in name:
            settings.add_session_config_entry(name, str(value))
            continue
        known = [n for n in dir(settings) if not n.startswith("_")]
        if name not in known:
            raise BadOption(f"session_options: no setting {name!r}{nearest(name, known)}")
        try:
            setattr(settings, name, value)
        except (TypeError, AttributeError):
            raise BadOption(f"session_options: {name}={value!r} is of a wrong type") from None
    return settings


def num_threads() -> int:
    """Return how many threads MXNet's own settings allow, else the processors of this process."""
    for name in ("OMP_NUM_THREADS", "MXNET_OMP_MAX_THREADS"):
        text = os.environ.get(name, "").split(",")[0]
        if text.isdigit() and int(text) > 0:
            return int(text)
    return len(os.sched_getaffinity(0))


def _dies_of_nothing(model: onnx.ModelProto) -> set[str]:
    """Return the operators of a model that end the process when they find no elements."""
    nodes = (node for graph in graphs(model.graph) for node in graph.node)
    return {node.op_type for node in nodes if node.op_type in DIES_OF_NOTHING and _reads_rows(node)}


def _reads_rows(node: onnx.NodeProto) -> bool:
    """Say whether an Einsum has two inputs, or a TopK axes in front of its own."""
    if node.op_type == "Einsum":
        return len(node.input) > 1
    return not any(attribute.name == "axis" and attribute.i == 0 for attribute in node.attribute)


def _has_no_elements(info: onnx.ValueInfoProto) -> bool:
    sizes = info.type.tensor_type.shape.dim
    return any(size.HasField("dim_value") and size.dim_value == 0 for size in sizes)


def _needs_elements(op_types: set[str]) -> str:
    return (
        f"{' and '.join(sorted(op_types))} of ONNX Runtime {ort.__version__} cannot take arrays "
        "without elements; ONNX Runtime 1.31 can, on Python 3.11 or newer"
    )


def _weights_as_inputs(scratch: onnx.ModelProto) -> bytes:
    """Return the scratch model with its weights as inputs: kernels are chosen by type alone."""
    model = onnx.ModelProto()
    model.CopyFrom(scratch)
    del model.graph.initializer[:]
    for tensor in scratch.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            model.graph.input.append(info)
        else:
            model.graph.initializer.append(tensor)
    return bytes(model.SerializeToString())


def _sentence(error: Exception) -> str:
    """Return the message without ONNX Runtime's prefix of codes."""
    return str(error).split(" : ")[-1].strip()
