"""Step 3: a `Subgraph` becomes an ONNX model.

`OnnxModel` is what converters write into. Parameters are not copied into the ONNX protobuf: it
declares them as external data, and `OnnxModel.weights` holds MXNet's own arrays by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from . import __version__
from .arrays import numpy_view
from .errors import UnsupportedOp
from .graph import Node, Value
from .registry import convert_node

if TYPE_CHECKING:
    import mxnet as mx

    from .partition import Subgraph

OPSET = 17  # the newest that TensorRT 8.5 reads
IR_VERSION = 8
MAX_NUMBERS = 1024  # that converters look at: ranges and vectors, not weights
EXTERNAL_LOCATION = "mxtrt-weights"  # a name only: the weights are handed over in memory

ELEMENT_TYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}
"""ONNX's element type for each of MXNet's dtypes."""

Operand = Union[Value, str, None]
"""What an ONNX operator reads: a value of the graph, a tensor's name, or None for "left out"."""


class OnnxModel:
    """An ONNX model in the making.

    Attributes
    ----------
    weights : dict of str to mxnet.nd.NDArray
        The parameters that the model reads, by their ONNX name: MXNet's own arrays.
    inputs : list of Value
        What the model reads at run time, in the order of ONNX's inputs.
    reals : dict of Value to str
        Integer tensors that exist as float tensors too, before they were rounded: what is
        quantised again is quantised from there.
    sources : dict of str to Node
        The MXNet node behind each ONNX node and each tensor, by the name of either.
    leaves_mxnet : bool
        Whether no MXNet runs the model: random numbers may come of another generator, and sizes
        may depend on values.
    """

    def __init__(self, name: str, *, leaves_mxnet: bool = False) -> None:
        self.name = name
        self.leaves_mxnet = leaves_mxnet
        self.weights: dict[str, mx.nd.NDArray] = {}
        self.inputs: list[Value] = []
        self.reals: dict[Value, str] = {}
        self.sources: dict[str, Node] = {}
        self._graph = onnx.GraphProto(name=name)
        self._names: set[str] = set()
        self._wanted: dict[Value, str] = {}  # names that were reserved
        self._tensor_of: dict[Value, str] = {}
        self._constants: dict[tuple[Any, ...], str] = {}
        self._arrays: dict[str, np.ndarray[Any, Any]] = {}  # constants by name
        self._scope = name  # the MXNet node being converted
        self._scope_start = 0  # index of its first ONNX node

    # -- what converters call ----------------------------------------------------------------

    def op(self, op_type: str, *inputs: Operand, **attrs: Any) -> str:
        """Add an ONNX operator with one output and return the output's name.

        Attributes that are None are left out.
        """
        return self.ops(op_type, *inputs, outputs=1, **attrs)[0]

    def ops(self, op_type: str, *inputs: Operand, outputs: int, **attrs: Any) -> tuple[str, ...]:
        """Add an ONNX operator with several outputs and return their names."""
        names = [self._tensor(operand) for operand in inputs]
        while names and not names[-1]:
            names.pop()
        label = self._unique(f"{self._scope}/{op_type}")
        made = [label] if outputs == 1 else [self._unique(f"{label}:{i}") for i in range(outputs)]
        given = {key: value for key, value in attrs.items() if value is not None}
        self._graph.node.append(helper.make_node(op_type, names, made, name=label, **given))
        return tuple(made)

    def constant(self, value: Any, dtype: str) -> str:
        """Return the name of a constant tensor; equal constants are kept once.

        Parameters
        ----------
        value : array_like
            Number, nested sequence or array; a number becomes a tensor of rank 0.
        dtype : str
            NumPy's name of the element type.
        """
        array = np.ascontiguousarray(np.asarray(value, dtype)).reshape(np.shape(value))
        key = (dtype, array.shape, array.tobytes())
        if key not in self._constants:
            name = self._unique(f"{self._scope}/constant")
            self._graph.initializer.append(numpy_helper.from_array(array, name))
            self._constants[key] = name
            self._arrays[name] = array
        return self._constants[key]

    def ints(self, values: Iterable[int]) -> str:
        """Return the name of a constant int64 vector: axes, shapes, pads."""
        return self.constant(list(values), "int64")

    def cast(self, operand: Operand, dtype: str) -> str:
        """Add a ``Cast`` to NumPy's type `dtype`."""
        return self.op("Cast", operand, to=ELEMENT_TYPES[dtype])

    def numbers(self, value: Value) -> np.ndarray[Any, Any] | None:
        """Return the numbers in a small parameter or a constant, None where the run brings them."""
        if value.is_param:
            small = value.array.size <= MAX_NUMBERS
            return np.asarray(value.array.asnumpy()) if small else None
        array = self._arrays.get(self._tensor_of.get(value, ""))
        return array if array is not None and array.size <= MAX_NUMBERS else None

    def subgraph(self, name: str) -> OnnxModel:
        """Return an empty model for the body of an ONNX ``If``, ``Loop`` or ``Scan``.

        Names made in it are unique in this model too.
        """
        body = OnnxModel(name, leaves_mxnet=self.leaves_mxnet)
        body._names = self._names
        body._scope = self._scope
        return body

    def declare(self, value: Value) -> str:
        """Return the tensor of `value`; one that nothing made becomes the next input."""
        return self._tensor(value)

    def alias(self, value: Value, tensor: str) -> None:
        """Let `value` be a tensor that exists already: what a body reads of the graph around it."""
        self._tensor_of[value] = tensor

    # -- what the pipeline calls -------------------------------------------------------------

    @contextmanager
    def converting(self, node: Node) -> Iterator[None]:
        """Name what is added after the MXNet node `node`."""
        outer = self._scope, self._scope_start
        self._scope, self._scope_start = node.name, len(self._graph.node)
        try:
            yield
        finally:
            for made in self._graph.node[self._scope_start :]:
                self.sources.update(dict.fromkeys((made.name, *made.output), node))
            self._scope, self._scope_start = outer

    def reserve(self, value: Value, name: str) -> None:
        """Keep a name for the tensor of `value`; the first of several values has it unchanged."""
        if value not in self._wanted:
            self._wanted[value] = self._unique(name)

    def bind(self, values: Sequence[Value], names: Sequence[str]) -> None:
        """Say which ONNX tensors hold the outputs of the node that was just converted."""
        if len(values) != len(names):
            raise UnsupportedOp(f"{len(values)} outputs; the converter makes {len(names)}")
        renamed: dict[str, str] = {}  # one tensor may be several outputs
        for value, made in zip(values, names):
            if made not in renamed:
                renamed[made] = self._rename(made, value)
            self._tensor_of[value] = renamed[made]

    def source(self, name: str) -> Node | None:
        """Return the MXNet node behind an ONNX node, or one that stands for it: ``name/Cast``."""
        while name and name not in self.sources:
            name = name.rpartition("/")[0]
        return self.sources.get(name)

    def finish(self, outputs: Sequence[Value]) -> onnx.ModelProto:
        """Return the model as a protobuf whose weights are external data in `weights`."""
        for value in outputs:
            name = self._own_output(self._tensor(value), value)
            self._graph.output.append(_value_info(name, value))
        self._drop_unread()
        return helper.make_model(
            self._graph,
            producer_name="mxtrt",
            producer_version=__version__,
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )

    def _drop_unread(self) -> None:
        """Drop nodes, constants and weights that no output depends on: engines refuse some."""
        read = {info.name for info in self._graph.output}
        nodes = []
        for node in reversed(self._graph.node):
            if not read.isdisjoint(node.output):
                nodes.append(node)
                read.update(reads(node))
        tensors = [tensor for tensor in self._graph.initializer if tensor.name in read]
        del self._graph.node[:], self._graph.initializer[:]
        self._graph.node.extend(reversed(nodes))
        self._graph.initializer.extend(tensors)
        self.weights = {name: array for name, array in self.weights.items() if name in read}

    # -- names -------------------------------------------------------------------------------

    def _unique(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self._names:
            count += 1
            name = f"{wanted}_{count}"
        self._names.add(name)
        return name

    def _tensor(self, operand: Operand) -> str:
        if operand is None:
            return ""
        if isinstance(operand, str):
            return operand
        if operand not in self._tensor_of:
            self._tensor_of[operand] = self._declare(operand)
        return self._tensor_of[operand]

    def _declare(self, value: Value) -> str:
        if value.dtype not in ELEMENT_TYPES:
            raise UnsupportedOp(f"{value.name} is {value.dtype}, which ONNX does not have")
        name = self._unique(value.name)
        if not value.is_param:
            self.inputs.append(value)
            self._graph.input.append(_value_info(name, value))
        else:
            self.weights[name] = value.array
            self._graph.initializer.append(_external_tensor(name, value))
        return name

    def _rename(self, made: str, value: Value) -> str:
        """Give a tensor that the current node made the name of its MXNet value."""
        nodes = self._graph.node[self._scope_start :]
        if not any(made in node.output for node in nodes):
            return made  # an input handed through
        if made in self._tensor_of.values():
            return made  # bound to another output already
        name = self._wanted.pop(value, None) or self._unique(value.name)
        for node in nodes:
            replace_name(node.input, made, name)
            replace_name(node.output, made, name)
        return name

    def _own_output(self, name: str, value: Value) -> str:
        """Return a tensor that may be a graph output: made by a node and not an output yet."""
        taken = {info.name for info in (*self._graph.input, *self._graph.output)}
        taken.update(tensor.name for tensor in self._graph.initializer)
        if name not in taken:
            return name
        copy = self._wanted.pop(value, None) or self._unique(f"{value.name}/copy")
        self._graph.node.append(helper.make_node("Identity", [name], [copy], name=copy))
        return copy


def export_onnx(
    part: Subgraph, known: Mapping[Value, np.ndarray[Any, Any]] | None = None
) -> tuple[onnx.ModelProto, OnnxModel]:
    """Convert a part of the graph into ONNX.

    Parameters
    ----------
    part : Subgraph
        What to convert.
    known : mapping of Value to array, optional
        Inputs of the part whose numbers are known already: constants instead of inputs.

    Returns
    -------
    proto : onnx.ModelProto
        Inputs and outputs in the order of ``part.inputs`` and ``part.outputs``; the weights are
        external data.
    model : OnnxModel
        The builder, which holds the weights.

    Raises
    ------
    UnsupportedOp
        One of the nodes has no converter or cannot be said in ONNX.
    """
    model = OnnxModel(part.name)
    for value in part.inputs:
        if known is not None and value in known:
            model.alias(value, model.constant(known[value], value.dtype))
        else:
            model.declare(value)
    for node in part.nodes:
        convert_node(model, node)
    return model.finish(part.outputs), model


def embed_weights(proto: onnx.ModelProto, weights: Mapping[str, mx.nd.NDArray]) -> onnx.ModelProto:
    """Return a copy of a model with its weights inside: for files and tools, up to 2 GiB."""
    whole = onnx.ModelProto()
    whole.CopyFrom(proto)
    for tensor in whole.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.raw_data = numpy_view(weights[tensor.name]).tobytes()
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]
    return whole


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and all bodies of loops and branches in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)


def reads(node: onnx.NodeProto) -> set[str]:
    """Return the names of the tensors that a node reads, its bodies included."""
    read = set(node.input)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            read.update(info.name for info in attribute.g.output)
            for inner in attribute.g.node:
                read |= reads(inner)
    return read


def _value_info(name: str, value: Value) -> onnx.ValueInfoProto:
    shape = None
    if value.shape is not None:
        shape = [f"{name}_{i}" if n is None else n for i, n in enumerate(value.shape)]
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[value.dtype], shape)


def _external_tensor(name: str, value: Value) -> TensorProto:
    tensor = TensorProto(
        name=name,
        data_type=ELEMENT_TYPES[value.dtype],
        dims=value.array.shape,
        data_location=TensorProto.EXTERNAL,
    )
    tensor.external_data.add(key="location", value=EXTERNAL_LOCATION)
    return tensor


def replace_name(names: Any, old: str, new: str) -> None:
    """Put one name in the place of another in the inputs or outputs of a node."""
    for index, name in enumerate(names):
        if name == old:
            names[index] = new
