"""The weights of convolutions in ONNX Runtime's own layout, made piece by piece.

While ONNX Runtime makes a session it lays the weights of convolutions out in blocks of channels.
For a moment it then holds all of them three times beside the caller's arrays: folded with
BatchNorm, in blocks, and in the session. Here the model is cut into pieces, each goes through ONNX
Runtime's optimiser on its own, and the session is made of what came out. Its convolutions read
their weights where they are, as inputs that are always the same, for ONNX Runtime copies
constants::

    model ──cut──> pieces ──optimise──> optimised pieces ──join──> optimised model

Where a tensor crosses a cut, ONNX Runtime would turn it from blocks into the plain layout and back,
and the sums behind it would stay plain. Hence the gates: a piece sends what it reads through a
convolution of each channel with 1, behind which ONNX Runtime goes on in blocks as it would without
the cut. `_Joint` takes the gates out again and connects the blocks on both sides.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..onnx_model import EXTERNAL_LOCATION, reads

BLOCKS = "com.microsoft.nchwc"  # the domain of the operators that compute in blocks
CONV = BLOCKS, "Conv"
LEAST = 128 << 20  # bytes of weights of convolutions: below that a quick start counts for more
PIECES = 64  # at most about; more of them take longer, fewer of them more memory
LONGEST = 4  # times as many bytes a piece may have while it finds no good place to end
SMALL = 64 << 10  # bytes of a weight that each piece may have a copy of, such as BatchNorm's

Arrays = Mapping[str, np.ndarray[Any, Any]]
Optimise = Callable[[onnx.ModelProto], onnx.ModelProto]


def lay_out(
    proto: onnx.ModelProto, weights: Arrays, optimise: Optimise
) -> tuple[onnx.ModelProto, Arrays]:
    """Return a model with the weights of its convolutions laid out, and its weights.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model; its weights are external data.
    weights : mapping of str to array
        The weights by name.
    optimise : callable
        Returns a model as ONNX Runtime would run it, with all that is constant inside.

    Returns
    -------
    model : onnx.ModelProto
        The same function in ONNX Runtime's own operators, for this machine only; a small model
        comes back as it is.
    weights : mapping of str to array
        What the model declares as external data, and its inputs beyond those of `proto`.
    """
    sizes = {
        node.input[1]: weights[node.input[1]].nbytes
        for node in proto.graph.node
        if node.op_type == "Conv" and _has_blocks(weights.get(node.input[1]))
    }
    total = sum(sizes.values())
    if total < LEAST:
        return proto, weights
    pieces = list(_cut(proto, weights, sizes, -(-total // PIECES)))
    joint = _Joint()
    optimised: dict[_Piece, onnx.ModelProto] = {}
    # the largest first: what ONNX Runtime holds for a moment comes on top of what is done
    for piece in sorted(pieces, key=lambda piece: piece.size, reverse=True):
        optimised[piece] = joint.take_arrays(piece, optimise(piece.model))
    for piece in pieces:
        joint.add(piece, optimised[piece])
    return joint.finish(proto, weights)


def _has_blocks(weight: np.ndarray[Any, Any] | None) -> bool:
    return weight is not None and weight.dtype == np.float32 and weight.ndim == 4


# -- cut -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Piece:
    """A run of the model's nodes.

    Attributes
    ----------
    model : onnx.ModelProto
        The nodes as a model. Large weights that no convolution reads are inputs.
    gates : mapping of str to str
        What the gate of an input makes of it.
    suffix : str
        What makes a name of this piece unique in the whole model.
    size : int
        Bytes of the weights of its convolutions.
    """

    model: onnx.ModelProto
    gates: Mapping[str, str]
    suffix: str
    size: int


def _cut(
    proto: onnx.ModelProto, weights: Arrays, sizes: Mapping[str, int], limit: int
) -> Iterator[_Piece]:
    """Divide a model into pieces whose convolutions have about `limit` bytes of weights."""
    graph = onnx.shape_inference.infer_shapes(proto).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    infos = {
        name: helper.make_tensor_value_info(name, tensors[name].data_type, tensors[name].dims)
        for name, array in weights.items()
        if name not in sizes and array.nbytes > SMALL
    }
    constants = tensors.keys() - infos.keys()
    infos.update((i.name, i) for i in (*graph.input, *graph.value_info, *graph.output))
    read = [reads(node) - {""} for node in graph.node]
    heads = {info.name for info in graph.output}
    mark = _absent_mark(graph.node)
    made_before: set[str] = set()
    cuts = [0, *_cuts(graph.node, read, infos.keys(), sizes, limit), len(graph.node)]
    for number, (start, end) in enumerate(zip(cuts, cuts[1:])):
        nodes = graph.node[start:end]
        made = {name for node in nodes for name in node.output}
        needed = set().union(*read[start:end]) - made
        later = heads.union(*read[end:])
        piece = helper.make_graph(
            nodes,
            graph.name,
            [infos[name] for name in sorted(needed & infos.keys() - constants)],
            [infos[name] for name in sorted(made & later)],
            [tensors[name] for name in sorted(needed & constants)],
        )
        suffix = f"{mark}{number}"
        crossing = [info for info in piece.input if info.name in made_before]
        gates = _add_gates(piece, crossing, suffix)
        size = sum(sizes[name] for name in needed & sizes.keys())
        yield _Piece(_model(piece, proto, proto.opset_import), gates, suffix, size)
        made_before |= made


def _cuts(
    nodes: Sequence[onnx.NodeProto],
    read: Sequence[set[str]],
    typed: Collection[str],
    sizes: Mapping[str, int],
    limit: int,
) -> Iterator[int]:
    """Choose the nodes with which pieces begin.

    A piece that has its bytes ends as soon as only one tensor crosses and is not fused with what
    follows: between residual blocks. Where that does not come, it ends where least is lost.
    """
    maker = {name: node for node in nodes for name in node.output}
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for index, names in enumerate(read):
        first.update((name, index) for name in names if name not in first)
        last.update((name, index) for name in names)
    crossing: set[str] = set()
    held, best = 0, None
    for index, node in enumerate(nodes):
        size = sizes.get(node.input[1], 0) if node.op_type == "Conv" else 0
        crossing = {name for name in crossing if last.get(name, -1) >= index}
        if held >= limit and all(name in typed for name in crossing):
            unread = [name for name in crossing if first[name] >= index]
            torn = sum(_are_fused(maker[name], nodes[first[name]]) for name in unread)
            loss = (torn, len(crossing))
            if best is None or loss <= best[0]:
                best = loss, index, held
            if loss <= (0, 1) or (size and held + size > LONGEST * limit):
                yield best[1]
                held, best = held - best[2], None
        held += size
        crossing.update(node.output)


def _are_fused(one: onnx.NodeProto, two: onnx.NodeProto) -> bool:
    """Whether ONNX Runtime may make one operator of two that follow each other."""
    if two.op_type == "BatchNormalization":
        return one.op_type == "Conv"
    return two.op_type != "Conv"


def _absent_mark(nodes: Iterable[onnx.NodeProto]) -> str:
    """Return what stands in no name."""
    mark = "//"
    while any(mark in name for node in nodes for name in (*reads(node), *node.output)):
        mark += "/"
    return mark


def _add_gates(
    graph: onnx.GraphProto, crossing: Iterable[onnx.ValueInfoProto], suffix: str
) -> dict[str, str]:
    """Put gates behind inputs that may be in blocks; return what they make, by input."""
    gates: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for info in crossing:
        tensor = info.type.tensor_type
        channels = tensor.shape.dim[1].dim_value if len(tensor.shape.dim) == 4 else 0
        if tensor.elem_type != TensorProto.FLOAT or not channels:
            continue
        gates[info.name] = opened = info.name + suffix
        ones = numpy_helper.from_array(np.ones((channels, 1, 1, 1), "f"), f"{opened}/ones")
        graph.initializer.append(ones)
        nodes.append(helper.make_node("Conv", [info.name, ones.name], [opened], group=channels))
        # as an output, for ONNX Runtime fuses nothing with those
        graph.output.append(onnx.ValueInfoProto(name=opened, type=info.type))
    for node in graph.node:
        _rename(node, lambda name: gates.get(name, name))
    nodes.extend(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)
    return gates


# -- join ----------------------------------------------------------------------------------------


class _Joint:
    """Optimised pieces in the course of becoming one model."""

    def __init__(self) -> None:
        # copies of nodes: an original keeps the whole model that it is from
        self._graph = onnx.GraphProto()
        self._opsets: dict[str, onnx.OperatorSetIdProto] = {}
        self._arrays: dict[str, np.ndarray[Any, Any]] = {}
        self._equal: dict[tuple[Any, ...], str] = {}  # the name of an array by what it holds
        self._instead: dict[str, str] = {}  # what to read instead of a tensor
        self._blocks: dict[str, str] = {}  # the tensor in blocks that a plain one was made from

    def take_arrays(self, piece: _Piece, optimised: onnx.ModelProto) -> onnx.ModelProto:
        """Take the large constants out of an optimised piece; return a copy of the rest."""
        graph = optimised.graph
        heads = {info.name for info in graph.output}
        small = []
        for tensor in graph.initializer:
            data = tensor.raw_data  # a copy
            if len(data) > SMALL and tensor.name not in heads:
                self._take(tensor, data, tensor.name + piece.suffix)
            else:
                small.append(tensor)
        rest = helper.make_graph(graph.node, graph.name, graph.input, graph.output, small)
        return _model(rest, optimised, optimised.opset_import)

    def _take(self, tensor: TensorProto, data: bytes, name: str) -> None:
        # what several convolutions share was laid out for each of them
        digest = hashlib.sha1(data, usedforsecurity=False).digest()
        same = self._equal.setdefault((tensor.data_type, tuple(tensor.dims), digest), name)
        if same != name:
            self._instead[name] = same
            return
        # not of the heap, where it would keep what was freed around it; and vectors are aligned
        memory = mmap.mmap(-1, len(data), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.write(data)
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        self._arrays[name] = np.frombuffer(memory, dtype).reshape(tensor.dims)

    def add(self, piece: _Piece, optimised: onnx.ModelProto) -> None:
        """Add the next piece, without its large constants."""
        graph = optimised.graph
        public = {info.name for info in (*graph.input, *graph.output)}
        for tensor in graph.initializer:
            if tensor.name not in public:
                tensor.name += piece.suffix
        for node in graph.node:
            _rename(node, lambda name: name if name in public else name + piece.suffix)
        gates = self._open(piece.gates, graph.node)
        for node in graph.node:
            if node.output[0] not in gates:
                _rename(node, lambda name: self._instead.get(name, name))
                node.name += piece.suffix
                if _is_reorder(node, "ReorderOutput"):
                    self._blocks[node.output[0]] = node.input[0]
                self._graph.node.append(node)
        self._graph.initializer.extend(graph.initializer)
        self._opsets.update((opset.domain, opset) for opset in optimised.opset_import)

    def _open(self, gates: Mapping[str, str], nodes: Iterable[onnx.NodeProto]) -> set[str]:
        """Connect what is before each gate with what is behind it; return what gates make.

        A gate of another form than expected stays: it changes nothing but the time.
        """
        maker = {name: node for node in nodes for name in node.output}
        opened = set()
        for name, plain in gates.items():
            gate = maker[plain]
            if gate.domain != BLOCKS and gate.input[0] == name:
                self._instead[plain] = name
                opened.add(plain)
            elif _is_reorder(gate, "ReorderOutput"):
                blocks = gate.input[0]
                enter = maker.get(maker[blocks].input[0])
                if enter is not None and _is_reorder(enter, "ReorderInput", name):
                    self._instead[plain] = name
                    self._instead[blocks] = self._blocks.get(name, enter.output[0])
                    opened |= {plain, blocks}
        return opened

    def finish(self, proto: onnx.ModelProto, weights: Arrays) -> tuple[onnx.ModelProto, Arrays]:
        """Return the model that has the function of `proto`, and its weights."""
        read = {info.name for info in proto.graph.output}
        nodes: list[onnx.NodeProto] = []
        for node in reversed(self._graph.node):
            if not read.isdisjoint(node.output):
                nodes.insert(0, node)
                read |= reads(node)
        in_place = {node.input[1] for node in nodes if (node.domain, node.op_type) == CONV}
        arrays = {**weights, **self._arrays}
        arrays = {name: array for name, array in arrays.items() if name in read}
        constants = [tensor for tensor in self._graph.initializer if tensor.name in read]
        inputs = list(proto.graph.input)
        for name, array in arrays.items():
            dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
            if name in in_place:
                inputs.append(helper.make_tensor_value_info(name, dtype, array.shape))
            else:
                constants.append(_external(name, dtype, array.shape))
        graph = helper.make_graph(nodes, proto.graph.name, inputs, proto.graph.output, constants)
        return _model(graph, proto, self._opsets.values()), arrays


def _model(
    graph: onnx.GraphProto, like: onnx.ModelProto, opsets: Iterable[onnx.OperatorSetIdProto]
) -> onnx.ModelProto:
    return helper.make_model(
        graph,
        producer_name=like.producer_name,
        ir_version=like.ir_version,
        opset_imports=list(opsets),
    )


def _external(name: str, dtype: int, shape: Sequence[int]) -> TensorProto:
    """Declare a constant whose data are handed over in memory."""
    tensor = TensorProto(name=name, data_type=dtype, dims=shape, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=EXTERNAL_LOCATION)
    return tensor


def _is_reorder(node: onnx.NodeProto, op_type: str, read: str | None = None) -> bool:
    """Whether a node only turns a plain tensor (by default any) into blocks, or back."""
    return (
        (node.domain, node.op_type) == (BLOCKS, op_type)
        and read in (None, node.input[0])
        and not any(a.name == "channels_last" and a.i for a in node.attribute)
    )


def _rename(node: onnx.NodeProto, new: Callable[[str], str]) -> None:
    """Rename what a node reads and makes, in its bodies too."""
    node.input[:] = [name and new(name) for name in node.input]
    node.output[:] = [name and new(name) for name in node.output]
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            for info in (*body.input, *body.output, *body.initializer):
                info.name = new(info.name)
            for inner in body.node:
                _rename(inner, new)
