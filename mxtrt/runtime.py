"""TensorRT plans by themselves: built from any ONNX file or checkpoint, loaded, and called.

    mxtrt.runtime.build("net.onnx", "net.plan", shapes={"data": ((1, 8, 32), 3, 224, 224)})
    plan = mxtrt.runtime.load("net.plan")
    scores = plan(images)["softmax_output"]

Neither loading nor running a plan imports MXNet.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from .errors import BadModel, BadOption, ShapesDisagree, nearest
from .graph import format_shape
from .memory import Memory, host_memory, read_memory
from .onnx_reader import read_onnx
from .options import Options, read_options
from .plan_file import PathLike, PlanInfo, format_sizes, read_info, read_plan, write_plan
from .plan_outputs import Event, GpuArray

if TYPE_CHECKING:
    import mxnet as mx

    from .engines._session import Session
    from .params import ParamsLike

__all__ = ["Event", "GpuArray", "Input", "Plan", "PlanInfo", "build", "load", "read_info"]

Sizes = tuple[tuple[int, int, int], ...]


# -- build -------------------------------------------------------------------------------------


def build(
    model: mx.sym.Symbol | onnx.ModelProto | PathLike,
    path: PathLike,
    params: ParamsLike = None,
    *,
    shapes: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
    dtypes: Mapping[str, Any] | None = None,
    engine: str = "auto",
    targets: Sequence[str] = (),
    **options: Any,
) -> PlanInfo:
    """Build a whole model into one TensorRT plan, and write it into a file.

    Parameters
    ----------
    model : path, onnx.ModelProto or mxnet.sym.Symbol
        An ONNX model of any origin, or a model of MXNet: its symbol, or the path of its
        ``-symbol.json``.
    path : path
        The plan's file, which ``trtexec`` reads as well; what is known of the plan goes into
        ``path + ".json"`` beside it.
    params : dict, pair or path, optional
        The parameters of an MXNet model, as `mxtrt.optimize` takes them.
    shapes : mapping of str to tuple, optional
        Sizes of the inputs that the model leaves open: numbers, or ``(smallest, best, largest)``.
    dtypes : mapping of str to dtype, optional
        Element types of the inputs of an MXNet model.
    engine : {"auto", "tensorrt", "tensorrt_rtx"}
        Whose plan; by default that of TensorRT where it works here.
    targets : sequence of str
        GPUs for TensorRT-RTX to build for, such as ``["sm86", "sm89", "sm120"]``; with them no
        GPU is needed here.
    **options
        ``precision``, ``tf32``, ``workspace``, ``optimization_level``, ``timing_cache`` and
        ``device`` as `mxtrt.optimize` takes them.

    Returns
    -------
    PlanInfo
        What the second file says.

    Raises
    ------
    UserError
        The model, an option or the installation does not allow it.
    NotExportable
        ONNX cannot say operators of the MXNet model; each is listed with its reason.
    EngineError
        TensorRT refuses the model; the message is its own.
    """
    checked = read_options(shapes, dtypes, engine=engine, **options)
    names = [targets] if isinstance(targets, str) else list(targets)
    from .engines._plans import find_maker, make_plan

    maker = find_maker(checked, names)
    proto, weights = _read_model(model, params, checked)
    plan, info = make_plan(maker, proto, weights, checked)
    return write_plan(path, plan, info)


def _read_model(
    model: Any, params: ParamsLike, options: Options
) -> tuple[onnx.ModelProto, Mapping[str, Any]]:
    """Return the ONNX of a model, and its weights."""
    is_path = isinstance(model, (str, os.PathLike))
    if isinstance(model, onnx.ModelProto) or (is_path and not _is_symbol_file(os.fspath(model))):
        if params is not None:
            raise BadModel(f"{model}: an ONNX model has its parameters inside; pass no other ones")
        if options.dtypes:
            raise BadOption("dtypes: an ONNX model has its own")
        return read_onnx(model)
    from .arrays import numpy_view
    from .params import read_params
    from .symbol import load_symbol, read_symbol
    from .whole_model import export_graph

    graph = read_symbol(load_symbol(model), read_params(params).arrays, options)
    proto, made = export_graph(graph)
    return proto, {name: numpy_view(array) for name, array in made.weights.items()}


def _is_symbol_file(path: str) -> bool:
    """Say whether a file is JSON, or would be one by its name."""
    try:
        with open(path, "rb") as file:
            return file.read(64).lstrip().startswith(b"{")
    except OSError:
        return path.endswith(".json")


# -- load --------------------------------------------------------------------------------------


def load(
    path: PathLike,
    *,
    engine: str = "auto",
    device: int = 0,
    contexts: int = 4,
    cuda_graph: bool | None = None,
) -> Plan:
    """Load a plan onto a GPU.

    A plan is a program: load none that you would not run.

    Parameters
    ----------
    path : path
        The file that `build` or another program, such as ``trtexec``, wrote.
    engine : {"auto", "tensorrt", "tensorrt_rtx"}
        Whose plan it is, where no ``path + ".json"`` says so.
    device : int
        The GPU.
    contexts : int
        How many calls may run at once, each with memory of its own.
    cuda_graph : bool, optional
        Replay a CUDA graph where sizes come again; by default where it measures faster.

    Returns
    -------
    Plan
        To be called.

    Raises
    ------
    BadPlan
        The file is missing, was cut off or changed, or is for another GPU or version.
    EngineNotAvailable
        There is no GPU, or the plan's package is not installed.
    BadOption
        There is no such GPU.
    """
    read_options(None, None, engine=engine, device=device, contexts=contexts)
    plan, info = read_plan(path)
    from .engines._plans import load_plan
    from .engines._session import Session

    loaded = load_plan(
        os.fspath(path),
        plan,
        info,
        engine=engine,
        device=device,
        contexts=contexts,
        cuda_graph=cuda_graph,
    )
    return Plan(Session(loaded), info)


@dataclass(frozen=True)
class Input:
    """An input of a plan.

    Attributes
    ----------
    name : str
        Its name.
    dtype : str
        NumPy's name of its type.
    sizes : tuple of (int, int, int)
        For each axis the smallest, the best and the largest size.
    """

    name: str
    dtype: str
    sizes: Sizes

    def __str__(self) -> str:
        """Return the three on one line."""
        return f"{self.name} {format_sizes(self.sizes)} {self.dtype}"


class Plan:
    """A plan on a GPU: call it with arrays. It may be called from several threads.

    Attributes
    ----------
    inputs : tuple of Input
        What it reads.
    outputs : tuple of str
        The names of what it makes.
    output_types : mapping of str to str
        NumPy's names of the types of what it makes.
    info : PlanInfo or None
        What the file beside the plan says.
    """

    def __init__(self, session: Session, info: PlanInfo | None = None) -> None:
        from .engines._plans import input_sizes

        self._session, self.info = session, info
        plan = session.plan
        self.inputs = tuple(
            Input(tensor.name, tensor.dtype, input_sizes(plan, tensor.name))
            for tensor in plan.inputs
            if tensor is not None
        )
        self._unread = {t["name"] for t in info.inputs} if info is not None else set()
        self._unread -= {tensor.name for tensor in self.inputs}
        self.output_types = {t.name: t.dtype for t in plan.outputs if t is not None}
        self.outputs = tuple(self.output_types)

    def __call__(
        self,
        *arrays: Any,
        outputs: Mapping[str, Any] | None = None,
        stream: Any = None,
        **named: Any,
    ) -> Any:
        """Run the plan.

        Parameters
        ----------
        *arrays, **named
            The inputs, in the plan's order or by name, or one mapping of them: arrays of NumPy or
            MXNet, or with ``__dlpack__`` or ``__cuda_array_interface__``, in C order. Those on the
            plan's GPU are used where they lie.
        outputs : mapping of str to array, optional
            Arrays of the right shapes to write to: of all outputs or of some.
        stream : optional
            A CUDA stream, of PyTorch, CuPy or pycuda or by handle: enqueue the call there and
            return.

        Returns
        -------
        dict of str to array, or Event
            The outputs by name, of the kind of the first input: NumPy's or MXNet's arrays, or a
            `GpuArray`. With a `stream`, an `Event` that has them.

        Raises
        ------
        BadOption
            A name that the plan does not have, a missing input, or what is no array.
        ShapesDisagree
            An array of another type, or of a shape outside the sizes that the plan was built for.
        EngineError
            The GPU failed.
        """
        from .engines._streams import stream_handle

        handle = None if stream is None else stream_handle(stream)
        session, feeds = self._session, self._by_name(arrays, named)
        reader = handle if handle is not None else self._reader(feeds)
        read = [self._read(tensor, feeds[tensor.name], reader) for tensor in self.inputs]
        shapes = session.output_shapes([memory.shape for memory in read])
        model = feeds[self.inputs[0].name] if self.inputs else None
        made = self._made(shapes, outputs or {}, model, read[0] if read else None)
        written = [self._written(name, array, shapes) for name, array in made.items()]
        if handle is None:
            session.run(read, written)
            return made
        return Event(session.start(read, written, handle), made)

    def close(self) -> None:
        """Free the plan and its memory on the GPU; calls in progress must have ended."""
        self._session.close()

    def __enter__(self) -> Plan:
        """Return the plan, which is closed at the end of the ``with``."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the plan."""
        self.close()

    def __repr__(self) -> str:
        """Return what goes in and what comes out."""
        inputs = ", ".join(map(str, self.inputs))
        return f"<Plan on {self._session.gpu!r}: {inputs} -> {', '.join(self.outputs)}>"

    # -- inputs ------------------------------------------------------------------------------

    def _by_name(self, arrays: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        first = next(iter(arrays), None)
        if isinstance(first, Mapping):
            arrays, named = arrays[1:], {**first, **named}
        names = [tensor.name for tensor in self.inputs]
        if len(arrays) > len(names):
            raise BadOption(f"{len(arrays)} arrays for the {len(names)} inputs {_list(names)}")
        feeds = dict(zip(names, arrays))
        for name, array in named.items():
            if name in feeds:
                raise BadOption(f"the input {name!r} is given twice")
            if name not in names and name not in self._unread:
                raise BadOption(f"the plan has no input {name!r}{nearest(name, names)}")
            feeds[name] = array
        missing = [str(tensor) for tensor in self.inputs if tensor.name not in feeds]
        if missing:
            raise BadOption(f"the plan also reads {_list(missing)}")
        return feeds

    def _reader(self, feeds: Mapping[str, Any]) -> int:
        """Return the stream that is going to read arrays on a GPU."""
        if all(isinstance(array, np.ndarray) for array in feeds.values()):
            return 0
        return self._session.own_stream()

    def _read(self, tensor: Input, array: Any, stream: int) -> Memory:
        memory = self._checked(read_memory(array, tensor.name, stream), tensor.name)
        wider = memory.type_name in {"int64", "float32", "float64"}
        if wider and tensor.dtype == "int32" and not memory.on_gpu:
            memory = _as_int32(memory, tensor.name)
        if memory.type_name != tensor.dtype:
            raise ShapesDisagree(
                f"{tensor.name!r} is {memory.type_name}, and the plan reads {tensor.dtype}; cast "
                "it first"
            )
        fits = len(memory.shape) == len(tensor.sizes) and all(
            low <= size <= high for size, (low, _, high) in zip(memory.shape, tensor.sizes)
        )
        if not fits:
            raise ShapesDisagree(
                f"{tensor.name!r} is {format_shape(memory.shape)}, and the plan was built for "
                f"{format_sizes(tensor.sizes)}"
            )
        return memory

    def _checked(self, memory: Memory, name: str) -> Memory:
        here = self._session.gpu.index
        if memory.on_gpu and memory.device_id != here:
            raise BadOption(f"{name!r} lies on GPU {memory.device_id}, and the plan on GPU {here}")
        return memory

    # -- outputs -----------------------------------------------------------------------------

    def _made(
        self,
        shapes: Sequence[tuple[int, ...]],
        given: Mapping[str, Any],
        model: Any,
        memory: Memory | None,
    ) -> dict[str, Any]:
        """Return an array for each output: those given, and new ones of the kind of `model`."""
        for name in given:
            if name not in self.output_types:
                raise BadOption(
                    f"the plan has no output {name!r}{nearest(name, self.output_types)}"
                )
        return {
            name: given[name] if name in given else self._empty(shape, dtype, model, memory)
            for (name, dtype), shape in zip(self.output_types.items(), shapes)
        }

    def _empty(self, shape: tuple[int, ...], dtype: str, model: Any, memory: Memory | None) -> Any:
        mxnet = sys.modules.get("mxnet")
        if mxnet is not None and isinstance(model, mxnet.nd.NDArray):
            return mxnet.nd.empty(shape, ctx=model.context, dtype=dtype)
        if memory is not None and memory.on_gpu:
            return GpuArray(self._session.gpu, shape, dtype)
        return np.empty(shape, dtype)

    def _written(self, name: str, array: Any, shapes: Sequence[tuple[int, ...]]) -> Memory:
        memory = self._checked(read_memory(array, name), name)
        shape = tuple(shapes[self.outputs.index(name)])
        if memory.shape != shape or memory.type_name != self.output_types[name]:
            raise ShapesDisagree(
                f"outputs: {name!r} is {format_shape(memory.shape)} {memory.type_name}, and the "
                f"plan makes {format_shape(shape)} {self.output_types[name]}"
            )
        if isinstance(array, np.ndarray) and not array.flags.writeable:
            raise BadOption(f"outputs: {name!r} is read-only")
        return memory


def _as_int32(memory: Memory, name: str) -> Memory:
    """Return a copy in int32, for word numbers, and for int64 in older versions of TensorRT."""
    array, limits = memory.to_numpy(), np.iinfo(np.int32)
    if array.dtype.kind == "f":
        array = array.astype(np.float64)  # float32 does not have the largest int32
    if not np.array_equal(array, np.trunc(array)):
        raise ShapesDisagree(f"{name!r} holds fractions or NaN, and the plan reads int32")
    if array.size and (array.max() > limits.max or array.min() < limits.min):
        raise ShapesDisagree(f"{name!r} holds numbers beyond int32, which the plan reads")
    return host_memory(array.astype(np.int32), name)


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
