"""A whole symbol as one ONNX model: no part of it stays in MXNet."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import mxnet as mx
import numpy as np
import onnx

from .errors import NotExportable, ShapeNeeded, UnsupportedOp
from .graph import Graph, Node, Value
from .infer import PROBES, to_shape
from .onnx_model import OnnxModel
from .options import read_options
from .registry import convert_node, read_inputs
from .symbol import read_symbol

log = logging.getLogger("mxtrt")


def whole_model(
    symbol: mx.sym.Symbol,
    arrays: Mapping[str, mx.nd.NDArray] | None,
    shapes: Mapping[str, Any],
    dtypes: Mapping[str, Any],
    *,
    example: Mapping[str, tuple[int, ...]] | None = None,
    verbose: bool = False,
) -> tuple[onnx.ModelProto, OnnxModel]:
    """Convert a whole symbol into one ONNX model; see `export_model` for its arguments.

    `example` are shapes that fit together, where `shapes` leaves sizes open.

    Returns
    -------
    proto : onnx.ModelProto
        The model; its weights are external data.
    model : OnnxModel
        The builder, which holds the weights.
    """
    options = read_options(
        {name: tuple(map(_size, shape)) for name, shape in shapes.items()},
        dtypes,
        allow_extra_params=True,
    )
    graph = read_symbol(symbol, arrays or {}, options)  # so that missing weights are told
    proto, model = export_graph(graph, keep=shapes, verbose=verbose)
    _name_sizes(proto, shapes)
    _infer_ranks(proto, symbol, graph, example or {})
    return proto, model


def export_graph(
    graph: Graph, *, keep: Iterable[str] = (), verbose: bool = False
) -> tuple[onnx.ModelProto, OnnxModel]:
    """Convert a whole graph into one ONNX model.

    Parameters
    ----------
    graph : Graph
        The model.
    keep : iterable of str
        Inputs that stay inputs though inference does not read them, unless MXNet named them as
        labels.
    verbose : bool
        Log each operator.

    Returns
    -------
    proto : onnx.ModelProto
        The model; its weights are external data.
    model : OnnxModel
        The builder, which holds the weights.

    Raises
    ------
    NotExportable
        Operators that ONNX cannot say, each with its reason.
    ShapeNeeded
        Nothing is known of an input's shape.
    """
    model = OnnxModel("mxnet", leaves_mxnet=True)
    nodes, read = _needed(graph)
    _declare(model, graph, read, set(keep))
    for value, name in zip(graph.heads, graph.head_names):
        model.reserve(value, _output_name(name))
    reasons: dict[Node, str] = {}
    for node in nodes:
        if verbose:
            log.info("%s", node)
        try:
            convert_node(model, node)
        except UnsupportedOp as reason:
            reasons[node] = str(reason)
    if reasons:
        raise NotExportable(_told(reasons, len(nodes)))
    return model.finish(graph.heads), model


def _needed(graph: Graph) -> tuple[list[Node], set[Value]]:
    """Return the nodes that the outputs depend on at inference, and all that is read."""
    read = set(graph.heads)
    nodes = []
    for node in reversed(graph.nodes):
        if not read.isdisjoint(node.outputs):
            nodes.append(node)
            read.update(read_inputs(node))
    return nodes[::-1], read


def _declare(model: OnnxModel, graph: Graph, read: set[Value], keep: set[str]) -> None:
    """Declare inputs and weights before anything else takes their names.

    Raises
    ------
    ShapeNeeded
        Not even the number of an input's axes is known.
    """
    labels = {f"{node.name}_label" for node in graph.nodes}
    declared: dict[str, str] = {}
    for value in graph.variables:
        if value in read or (value.name in keep and value.name not in labels):
            if value.name in declared:  # MXNet feeds variables of one name the same array
                model.alias(value, declared[value.name])
            elif value.shape is None:
                raise ShapeNeeded(
                    f"an ONNX file says how many axes an input has, and nothing is known of the "
                    f"shape of {value.name!r}; pass shapes={{{value.name!r}: (…)}}, with None for "
                    "each size that may be any"
                )
            else:
                declared[value.name] = model.declare(value)


def _told(reasons: Mapping[Node, str], count: int) -> str:
    lines = [f"  {node}: {reason}" for node, reason in reasons.items()]
    head = f"{len(reasons)} of {count} operators cannot be exported to ONNX:"
    return "\n".join([head, *lines])


def _output_name(name: str) -> str:
    """Return the name that MXNet's exporter gives to an output."""
    for ending, number in ("_state_output", "1"), ("_statecell_output", "2"):
        if name.endswith(ending):
            return name[: -len(ending)] + number
    return re.sub(r"_output(\d*)$", r"\1", name)


def _infer_ranks(
    proto: onnx.ModelProto, symbol: mx.sym.Symbol, graph: Graph, example: Mapping[str, Any]
) -> None:
    """Say how many axes outputs of unknown shape have, as an ONNX file has to.

    Raises
    ------
    ShapeNeeded
        Neither ONNX nor MXNet can tell.
    """
    unknown = [i for i, v in enumerate(proto.graph.output) if not _has_shape(v)]
    if not unknown:
        return
    inferred = onnx.shape_inference.infer_shapes(proto).graph.output
    ranks = _probed_ranks(symbol, graph, example)
    for i in unknown:
        info, rank = proto.graph.output[i], ranks[i]
        if _has_shape(inferred[i]):
            info.CopyFrom(inferred[i])
        elif rank is not None:
            for axis in range(rank):
                info.type.tensor_type.shape.dim.add(dim_param=f"{info.name}_{axis}")
        else:
            raise ShapeNeeded(
                f"how many axes the output {info.name!r} has depends on sizes that are not known; "
                f"pass shapes, with dynamic=True where sizes may be others than these"
            )


def _has_shape(info: onnx.ValueInfoProto) -> bool:
    return bool(info.type.tensor_type.HasField("shape"))


def _probed_ranks(
    symbol: mx.sym.Symbol, graph: Graph, example: Mapping[str, Any]
) -> list[int | None]:
    """Return the ranks that MXNet infers with `example`, or numbers, in place of unknown sizes.

    A number may contradict a weight, so MXNet is asked once more without the weights.
    """
    shapes = {v.name: v.shape for v in graph.variables if v.shape is not None}
    shapes.update(example)
    weights = {v.name for v in graph.variables if v.is_param}
    inputs = {name: shape for name, shape in shapes.items() if name not in weights}
    for known in (shapes, inputs):
        ranks = {_ranks(symbol, known, size) for size, _ in PROBES}
        if len(ranks) == 1 and None not in ranks:
            return list(ranks.pop() or ())
    return [None] * len(graph.heads)


def _ranks(
    symbol: mx.sym.Symbol, shapes: Mapping[str, Sequence[int | None]], size: int
) -> tuple[int | None, ...] | None:
    """Return the ranks of the outputs with `size` for what is unknown; None where MXNet refuses."""
    known = {name: tuple(size if n is None else n for n in shapes[name]) for name in shapes}
    try:
        _, found, _ = symbol.infer_shape_partial(**known)
    except mx.base.MXNetError:
        return None
    return tuple(None if shape is None else len(shape) for shape in map(to_shape, found))


def _name_sizes(proto: onnx.ModelProto, stated: Mapping[str, Any]) -> None:
    """Write the caller's names of sizes into the inputs."""
    for info in proto.graph.input:
        for dim, size in zip(info.type.tensor_type.shape.dim, stated.get(info.name, ())):
            if isinstance(size, str):
                dim.dim_param = size


def _size(size: Any) -> Any:
    """Return a size as `read_options` takes it."""
    if isinstance(size, str) or (np.ndim(size or 0) == 0 and size == -1):
        return None
    return None if size == 0 and not mx.util.is_np_shape() else size
