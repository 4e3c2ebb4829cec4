"""From ONNX to a plan: NVIDIA's parser and builder."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..errors import EngineError
from ..onnx_model import graphs
from ._fatal import fatal_nodes
from ._float32_nodes import float32_nodes
from ._forms import misread_nodes, with_right_forms
from ._integer_inputs import with_integer_inputs
from ._nvidia import Api, failed, sentence
from ._precision import decomposed, strongly_typed
from ._profiles import Profile
from ._progress import building, interrupts_later
from ._quantised import between_floats, crossing, in_floats, is_quantised_only
from ._settings import configure, configure_machine, keep_timing_cache, use_timing_cache

if TYPE_CHECKING:
    from ..options import Options

log = logging.getLogger("mxtrt")

Weights = Mapping[str, "np.ndarray[Any, Any]"]

INT32_MAX = 2**31 - 1
NO_LIMIT = 2**63 - 1, -(2**63 - 1), -(2**63)
"""In int64, where an index means "to the end"; in int32 the largest numbers mean it as well."""

EMBEDDED = 16 << 20  # bytes of weights that go into the protobuf; more go into a file beside it
ALIGNMENT = 4096
WEIGHTS_FILE = "weights"


class ParseError(EngineError):
    """NVIDIA's parser refuses a model.

    Attributes
    ----------
    nodes : dict of str to str
        The ONNX nodes at fault, as far as it names them, each with its words.
    """

    def __init__(self, message: str, nodes: dict[str, str]) -> None:
        super().__init__(message)
        self.nodes = nodes


@dataclass
class Network:
    """A parsed model. The parser owns the weights that the network reads."""

    definition: Any
    parser: Any
    float32: frozenset[str]  # nodes that keep float32 whatever the precision
    has_float16: bool = False
    weights: Weights | None = None


def refusal(api: Api, scratch: onnx.ModelProto) -> str | None:
    """Return why NVIDIA's parser refuses a model of one node, or None.

    Its weights are not looked at: zeros of the same size stand in for them.
    """
    reason = _refused_dtype(api, scratch) or next(iter(_fatal_nodes(api, scratch).values()), None)
    if reason is not None:
        return reason
    if any(not info.type.tensor_type.HasField("shape") for info in scratch.graph.input):
        return None  # the ranks are known at the first call
    with api.lock, interrupts_later(), api.logger.collecting(quiet=True):
        try:
            # whether they cross the border of the part is seen when there are parts
            asked = between_floats(scratch)
            _refuse_shape_inputs(api, parse(api, asked, _zeros(asked)))
        except EngineError as error:
            return str(error)
    return None


def refused_nodes(
    api: Api, proto: onnx.ModelProto, profile: Profile | None, precision: str
) -> dict[str, str]:
    """Return the ONNX nodes that NVIDIA's parser refuses where they stand, each with its words.

    Weights are not looked at. What is refused without a node at fault is left to the build.

    Parameters
    ----------
    api : Api
        Which TensorRT.
    proto : onnx.ModelProto
        The model; all ranks are known.
    profile : Profile, optional
        Its sizes, where they are known.
    precision : str
        The option.
    """
    sized = proto if profile is None else with_sizes(proto, profile)
    refused = {**_fatal_nodes(api, sized), **dict.fromkeys(crossing(sized), _quantised_data(api))}
    if refused:
        return refused
    with api.lock, interrupts_later(), api.logger.collecting(quiet=True):
        try:
            parse(api, sized, _zeros(sized), precision)
        except ParseError as error:
            return error.nodes
        except EngineError:
            return {}
    return {}


def _fatal_nodes(
    api: Api, proto: onnx.ModelProto, weights: Weights | None = None
) -> dict[str, str]:
    """Return the ONNX nodes that this version must not build, each with the reason."""
    if api.has_int64:  # TensorRT 10, TensorRT-RTX
        return {}
    found = {**misread_nodes(proto), **fatal_nodes(proto, weights or {})}
    return {name: f"{api.title}: {why}" for name, why in found.items()}


def _zeros(proto: onnx.ModelProto) -> Weights:
    """Return zeros in place of the weights; the system gives them memory when they are read."""
    return {
        tensor.name: np.zeros(tuple(tensor.dims), helper.tensor_dtype_to_np_dtype(tensor.data_type))
        for tensor in proto.graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
    }


def _refused_dtype(api: Api, proto: onnx.ModelProto) -> str | None:
    types = _types(proto)
    if TensorProto.DOUBLE in types:
        return f"float64: {api.title} computes in float32 at most"
    if TensorProto.INT8 in types and not is_quantised_only(proto):
        return _quantised_data(api)
    for tensor in (t for graph in graphs(proto.graph) for t in graph.initializer):
        if tensor.data_type == TensorProto.INT64 and tensor.data_location != TensorProto.EXTERNAL:
            reason = _beyond_int32(api, numpy_helper.to_array(tensor), "a constant")
            if reason is not None:
                return reason
    return None


def _quantised_data(api: Api) -> str:
    return f"int8: to {api.title} it is quantised data only"


def _beyond_int32(api: Api, array: np.ndarray[Any, Any], what: str) -> str | None:
    """Return why a TensorRT without int64 would put other numbers in place of these, or None."""
    beyond = array[(np.abs(array) > INT32_MAX) & ~np.isin(array, NO_LIMIT)]
    if api.has_int64 or not beyond.size:
        return None
    return (
        f"int64: {what} has {beyond[0]}, and {api.title} computes in int32, which ends at "
        f"{INT32_MAX}"
    )


def _types(proto: onnx.ModelProto) -> set[int]:
    """Return the element types that a model names."""
    graph = proto.graph
    types = {info.type.tensor_type.elem_type for info in (*graph.input, *graph.output)}
    types.update(tensor.data_type for tensor in graph.initializer)
    types.update(a.i for node in graph.node for a in node.attribute if a.name == "to")
    return types


def _refuse_shape_inputs(api: Api, network: Network) -> None:
    definition = network.definition
    for index in range(definition.num_inputs):
        tensor = definition.get_input(index)
        if tensor.is_shape_tensor:
            raise EngineError(
                f"{api.title}: {tensor.name!r} would decide about shapes, which {api.title} needs "
                "to know before it runs"
            )


def build_plan(
    api: Api,
    proto: onnx.ModelProto,
    weights: Weights,
    profile: Profile,
    options: Options,
    targets: Sequence[str] = (),
) -> Any:
    """Build a model for the sizes of a profile, on the current GPU; return the plan's bytes.

    Parameters
    ----------
    api : Api
        Which TensorRT.
    proto : onnx.ModelProto
        The model; its weights are external data.
    weights : mapping of str to array
        The weights by name.
    profile : Profile
        The sizes.
    options : Options
        ``precision``, ``tf32``, ``workspace``, … are used.
    targets : sequence of str
        TensorRT-RTX: compute capabilities such as ``"SM86"``; by default the present GPU.

    Raises
    ------
    EngineError
        NVIDIA's parser or builder refuses the model; the message is its own.
    BadOption
        The machine lacks what an option asks for.
    KeyboardInterrupt
        It was pressed, and TensorRT has returned.
    """
    start = time.perf_counter()
    what = f"{api.title} builds {proto.graph.name} ({options.precision})"
    shown = building(api.logger, what, show=options.progress)
    with api.lock, shown as watch, api.logger.collecting() as messages:
        sized = with_sizes(proto, profile)
        for name, array in weights.items():
            reason = _beyond_int32(api, array, repr(name)) if array.dtype == np.int64 else None
            if reason is not None:
                raise EngineError(reason)
        for reason in _fatal_nodes(api, sized, weights).values():
            raise EngineError(reason)
        if any(crossing(sized)):
            raise EngineError(_quantised_data(api))
        if hasattr(api.module.OnnxParser, "load_initializer"):
            # it reads them until the plan is built, and MXNet may move a weight when it runs the
            # original model on another thread
            weights = {name: np.array(array) for name, array in weights.items()}
        network = parse(api, sized, weights, options.precision)
        _refuse_shape_inputs(api, network)
        builder = api.builder()
        config = builder.create_builder_config()
        configure(api, config, network, options, targets)
        configure_machine(api, builder, config, options)
        watch.follow(api.module, config)
        _add_profile(builder, config, network.definition, sized, profile)
        cache = use_timing_cache(api, config, options)
        messages.clear()  # what was said of a cache of another GPU is no reason to fail
        plan = builder.build_serialized_network(network.definition, config)
        if plan is None:
            raise failed(f"{api.title} cannot build {proto.graph.name}", messages)
        keep_timing_cache(api, cache, options)
    seconds = time.perf_counter() - start
    log.info(
        "%s built %s for %s in %.1f s (%s, %.0f MB)",
        *(api.version, proto.graph.name, profile, seconds, options.precision, plan.nbytes / 1e6),
    )
    return plan


# -- parsing -----------------------------------------------------------------------------------


def parse(api: Api, proto: onnx.ModelProto, weights: Weights, precision: str = "fp32") -> Network:
    """Parse a model; hold ``api.lock``.

    Raises
    ------
    EngineError
        The parser refuses the model.
    """
    definition = api.builder().create_network(api.network_flags)
    parser = api.module.OnnxParser(definition, api.logger)
    model, weights, float32 = for_parser(api, parser, proto, weights, precision)
    network = Network(definition, parser, float32)
    network.has_float16 = TensorProto.FLOAT16 in _types(proto)
    network.weights = weights
    if not feed(parser, model, weights):
        raise ParseError(f"{api.title}: {first_error(parser)}", _at_fault(api, parser, model))
    return network


def for_parser(
    api: Api, parser: Any, proto: onnx.ModelProto, weights: Weights, precision: str
) -> tuple[onnx.ModelProto, Weights, frozenset[str]]:
    """Return a model as this version reads it, its weights, and the nodes that keep float32."""
    model, weights, steps = in_floats(proto, weights)
    model, weights, forms = with_right_forms(model, weights, has_infinity=api.has_int64)
    model, normalisations = decomposed(model, parser.supports_operator)
    float32 = float32_nodes(model, steps | forms | normalisations)
    if api.strongly_typed and precision != "fp32":
        model, weights = strongly_typed(model, weights, precision, float32)
    elif precision != "fp32" or TensorProto.FLOAT16 in _types(proto):
        model = with_integer_inputs(model)
    return model, {n: np.ascontiguousarray(array) for n, array in weights.items()}, float32


def feed(parser: Any, model: onnx.ModelProto, weights: Weights, *, refits: bool = False) -> bool:
    """Hand a model and its weights to a parser, or to one that refits; return what it answers.

    Where the parser reads weights in memory, they have to stay until the network is built.
    """
    if hasattr(parser, "load_initializer"):
        finish = parser.refit_model_proto if refits else parser.parse_model_proto
        return _load(parser, model, weights) and bool(finish())
    take = parser.refit_from_bytes if refits else parser.parse
    if sum(array.nbytes for array in weights.values()) <= EMBEDDED:
        return bool(take(_embedded(model, weights).SerializeToString()))
    return _with_files(take, model, weights)


def _load(parser: Any, model: onnx.ModelProto, weights: Weights) -> bool:
    if not parser.load_model_proto(model.SerializeToString()):
        return False
    names = {tensor.name for tensor in model.graph.initializer}
    for name, array in weights.items():
        if name in names and not parser.load_initializer(name, array.ctypes.data, array.nbytes):
            return False
    return True


def _embedded(proto: onnx.ModelProto, weights: Weights) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
            tensor.raw_data = weights[tensor.name].tobytes()
    return model


def _with_files(take: Any, proto: onnx.ModelProto, weights: Weights) -> bool:
    """Call a parser with the weights in a file, which it reads at once."""
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    with tempfile.TemporaryDirectory(prefix="mxtrt-") as folder:
        with open(os.path.join(folder, WEIGHTS_FILE), "wb") as file:
            for tensor in model.graph.initializer:
                if tensor.name in weights:
                    file.seek(-(-file.tell() // ALIGNMENT) * ALIGNMENT)
                    _point_to_file(tensor, file.tell(), weights[tensor.name].nbytes)
                    weights[tensor.name].tofile(file)
        path = os.path.join(folder, "model.onnx")
        return bool(take(model.SerializeToString(), path))


def _point_to_file(tensor: TensorProto, offset: int, length: int) -> None:
    tensor.ClearField("external_data")
    for key, value in (("location", WEIGHTS_FILE), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def first_error(parser: Any) -> str:
    if not parser.num_errors:
        return "its parser refuses the model and gives no reason"
    return sentence(parser.get_error(0).desc())


def _at_fault(api: Api, parser: Any, model: onnx.ModelProto) -> dict[str, str]:
    found: dict[str, str] = {}
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        name = error.node_name() if hasattr(error, "node_name") else ""
        if not name and 0 <= error.node() < len(model.graph.node):
            name = model.graph.node[error.node()].name
        if name:
            found.setdefault(name, f"{api.title}: {sentence(error.desc())}")
    return found


# -- sizes -------------------------------------------------------------------------------------


def with_sizes(proto: onnx.ModelProto, profile: Profile) -> onnx.ModelProto:
    """Return the model with the sizes of a profile: fixed ones as numbers."""
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    for info, sizes in zip(model.graph.input, profile.inputs):
        shape = info.type.tensor_type.shape
        del shape.dim[:]
        shape.SetInParent()  # rank 0 is a shape, too
        for axis, (low, _, high) in enumerate(sizes):
            if low == high:
                shape.dim.add(dim_value=low)
            else:
                shape.dim.add(dim_param=f"{info.name}_{axis}")
    return model


def _add_profile(
    builder: Any, config: Any, definition: Any, proto: onnx.ModelProto, profile: Profile
) -> None:
    if profile.is_static:
        return
    made = builder.create_optimization_profile()
    index = {info.name: i for i, info in enumerate(proto.graph.input)}
    for i in range(definition.num_inputs):
        name = definition.get_input(i).name
        made.set_shape(name, *profile.corners(index[name]))
    if config.add_optimization_profile(made) < 0:
        raise EngineError(f"TensorRT does not take the sizes {profile} as a profile")
