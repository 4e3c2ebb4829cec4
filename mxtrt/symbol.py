"""Step 1: an MXNet symbol becomes a `Graph`, with shapes and dtypes as far as they are known."""

from __future__ import annotations

import ast
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import mxnet as mx
import numpy as np

from .begin_states import with_sized_begin_states
from .errors import BadModel, BadOption, BadParams, ShapesDisagree, mxnet_sentence, nearest
from .graph import Graph, Node, Shape, Value, format_shape
from .infer import SAME_SHAPE, NodeInference, implied_input_shape, infer_node
from .options import Options
from .symbol_json import Entry, build_symbol, read_json

if TYPE_CHECKING:
    from .params import Arrays

WEIGHTS = {
    **dict.fromkeys(
        ("Convolution", "Deconvolution", "FullyConnected", "BatchNorm", "LayerNorm", "GroupNorm",
         "InstanceNorm", "Embedding"),
        range(1, 5),
    ),
    "RNN": range(1, 2),
}  # fmt: skip
"""The inputs that are weights: variables there without an array are missing parameters."""


def load_symbol(model: mx.sym.Symbol | str | os.PathLike[str]) -> mx.sym.Symbol:
    """Return the symbol, read from a file when `model` is a path.

    Raises
    ------
    BadModel
        The file does not exist, is damaged, or uses an operator that MXNet does not have.
    """
    if isinstance(model, mx.sym.Symbol):
        return model
    if not isinstance(model, (str, os.PathLike)):
        raise BadModel(
            f"model is a {type(model).__name__}; pass an mx.sym.Symbol or the path of a symbol file"
        )
    path = os.fspath(model)
    if not os.path.exists(path):
        raise BadModel(f"{path}: no such symbol file")
    try:
        return mx.sym.load(path)
    except (mx.base.MXNetError, UnicodeDecodeError) as error:
        raise BadModel(
            f"{path}: not a symbol file, or a damaged one ({mxnet_sentence(error)})"
        ) from None


def read_symbol(symbol: mx.sym.Symbol, arrays: Arrays | None, options: Options) -> Graph:
    """Read a symbol into a `Graph` with shapes and dtypes as far as they can be known.

    Parameters
    ----------
    symbol : mxnet.sym.Symbol
        The model.
    arrays : mapping of str to mxnet.nd.NDArray, or None
        Parameters and auxiliary states by plain name; None when there are none at all.
    options : Options
        ``shapes``, ``dtypes`` and ``allow_extra_params`` are used.

    Raises
    ------
    BadParams
        Parameters are missing, left over, or have shapes that the operators refuse.
    ShapesDisagree
        Shapes or dtypes of the inputs do not fit the model.
    BadOption
        ``shapes`` or ``dtypes`` names something that is no input.
    ShapeNeeded
        The size of a begin state follows from shapes that are not known.
    """
    reader = _Reader(symbol, arrays, options)
    sized = with_sized_begin_states(symbol, *reader.known_shapes())
    if sized is not symbol:
        reader = _Reader(sized, arrays, options)
    return reader.graph()


def read_body(source: Mapping[str, Any], inputs: Sequence[Value]) -> tuple[Graph, list[Value]]:
    """Read the body of a control-flow operator.

    Parameters
    ----------
    source : mapping
        One of the ``subgraphs`` in `Node.source`.
    inputs : sequence of Value
        What the body's variables stand for, in the order of its ``arg_nodes``.

    Returns
    -------
    graph : Graph
        The body.
    variables : list of Value
        The graph's own values for its variables, in the same order.
    """
    names = [source["nodes"][index]["name"] for index in source["arg_nodes"]]
    free = {name: value for name, value in zip(names, inputs) if not value.is_param}
    graph = read_symbol(
        build_symbol(source["nodes"], [(head[0], head[1]) for head in source["heads"]]),
        {name: value.array for name, value in zip(names, inputs) if value.is_param},
        Options(
            shapes={name: v.shape for name, v in free.items() if v.shape is not None},
            dtypes={name: v.dtype for name, v in free.items()},
        ),
    )
    if [value.name for value in graph.variables] == names:  # names may come twice
        return graph, list(graph.variables)
    by_name = {value.name: value for value in graph.variables}
    return graph, [by_name[name] for name in names]


class _Reader:
    """One reading of a symbol's JSON: nodes by index, tensors by `Entry`."""

    def __init__(self, symbol: mx.sym.Symbol, arrays: Arrays | None, options: Options) -> None:
        internals = symbol.get_internals()
        parsed = read_json(internals)
        self.symbol, self.internals, self.options = symbol, internals, options
        self.arrays = dict(arrays or {})
        self.nodes: list[dict[str, Any]] = parsed["nodes"]
        entries = [(head[0], head[1]) for head in parsed["heads"]]
        self.names: dict[Entry, str] = dict(zip(entries, internals.list_outputs()))
        self.num_outputs = Counter(index for index, _ in entries)
        self.variables = [i for i, node in enumerate(self.nodes) if node["op"] == "null"]
        self.inputs = {self.name(i): i for i in self.variables if self.name(i) not in self.arrays}
        self._check_options()
        self._check_params(arrays is not None)

    def name(self, index: int) -> str:
        return str(self.nodes[index]["name"])

    def graph(self) -> Graph:
        shapes = self._infer_shapes()
        dtypes = self._infer_dtypes()
        values = {
            entry: Value(
                name, shapes.get(entry), dtypes[entry], self._is_param(entry[0]), self.arrays
            )
            for entry, name in self.names.items()
        }
        heads = read_json(self.symbol)["heads"]
        return Graph(
            variables=tuple(values[i, 0] for i in self.variables),
            nodes=tuple(
                self._node(i, values) for i, n in enumerate(self.nodes) if n["op"] != "null"
            ),
            heads=tuple(values[head[0], head[1]] for head in heads),
            head_names=tuple(self.symbol.list_outputs()),
            variable_attrs={values[i, 0]: self.nodes[i].get("attrs", {}) for i in self.variables},
            arrays=self.arrays,
        )

    def known_shapes(self) -> tuple[dict[str, Shape], dict[str, tuple[int, ...]]]:
        """Return what is known of the inputs' shapes, and the shapes of the parameters."""
        shapes = self._variable_shapes()
        self._trace_implied(shapes)
        inputs = {self.name(i): shape for (i, _), shape in shapes.items() if not self._is_param(i)}
        return inputs, {name: tuple(array.shape) for name, array in self.arrays.items()}

    def _node(self, index: int, values: Mapping[Entry, Value]) -> Node:
        source = self.nodes[index]
        attrs = {k: v for k, v in source.get("attrs", {}).items() if not k.startswith("__")}
        inputs = tuple(values[read[0], read[1]] for read in source["inputs"])
        outputs = tuple(values[index, number] for number in range(self.num_outputs[index]))
        return Node(source["op"], source["name"], attrs, inputs, outputs, source)

    def _is_param(self, index: int) -> bool:
        return self.nodes[index]["op"] == "null" and self.name(index) in self.arrays

    # -- what the caller passed --------------------------------------------------------------

    def _check_options(self) -> None:
        for option in ("shapes", "dtypes"):
            for name in getattr(self.options, option):
                if name in self.arrays:
                    raise BadOption(f"{option}: {name!r} is a parameter; its array says it already")
                if name not in self.inputs:
                    raise BadOption(
                        f"{option}: the model has no input {name!r}{nearest(name, self.inputs)}"
                    )

    def _check_params(self, given: bool) -> None:
        if not given:
            return
        missing = list(self._missing())
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            name, reader = missing[0]
            raise BadParams(
                f"params lacks {name!r}{more}, which {reader} reads; if it is an input of the "
                f"model, say so with shapes={{{name!r}: (…)}}"
            )
        extra = sorted(set(self.arrays) - {self.name(i) for i in self.variables})
        if extra and not self.options.allow_extra_params:
            more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
            known = [self.name(i) for i in self.variables]
            raise BadParams(
                f"params has {extra[0]!r}{more}, which the model does not read"
                f"{nearest(extra[0], known)}; allow_extra_params=True hands them through"
            )

    def _missing(self) -> Iterable[tuple[str, str]]:
        """Yield the variables without an array that stand where an operator reads weights."""
        aux = set(self.symbol.list_auxiliary_states())
        declared = {*self.options.shapes, *self.options.dtypes}
        found: dict[str, str] = {}
        for node in self.nodes:
            for slot, (index, _, *_) in enumerate(node["inputs"]):
                name = self.name(index)
                if self.nodes[index]["op"] != "null" or name in self.arrays or name in declared:
                    continue
                if name in aux or slot in WEIGHTS.get(node["op"], ()):
                    found.setdefault(name, f"{node['op']} {node['name']!r}")
        return found.items()

    # -- shapes ------------------------------------------------------------------------------

    def _infer_shapes(self) -> dict[Entry, Shape]:
        shapes = self._variable_shapes()
        self._trace_implied(shapes)
        infer = NodeInference()
        for index, node in enumerate(self.nodes):
            if node["op"] != "null":
                self._infer_node(infer, index, node, shapes)
        return shapes

    def _variable_shapes(self) -> dict[Entry, Shape]:
        shapes: dict[Entry, Shape] = {}
        for index in self.variables:
            name = self.name(index)
            if name in self.arrays:
                shapes[index, 0] = tuple(self.arrays[name].shape)
            elif name in self.options.shapes:
                sizes = self.options.shapes[name]
                shapes[index, 0] = tuple(None if isinstance(n, tuple) else n for n in sizes)
            else:
                shapes[index, 0] = _hinted_shape(self.nodes[index])
        return shapes

    def _trace_implied(self, shapes: dict[Entry, Shape]) -> None:
        """Give inputs of unknown rank the shape that the first weight behind them implies."""
        for node in self.nodes:
            if node["op"] not in {"Convolution", "Deconvolution"}:
                continue
            weight = (node["inputs"][1][0], node["inputs"][1][1])
            implied = implied_input_shape(node["op"], node.get("attrs", {}), shapes.get(weight))
            index = self._origin(node, SAME_SHAPE)
            if self.nodes[index]["op"] == "null" and shapes[index, 0] is None:
                shapes[index, 0] = implied

    def _origin(self, node: dict[str, Any], through: Collection[str]) -> int:
        """Return where a node's first input comes from, back through operators in `through`."""
        index = int(node["inputs"][0][0])
        while self.nodes[index]["op"] in through:
            index = int(self.nodes[index]["inputs"][0][0])
        return index

    def _infer_node(
        self, infer: NodeInference, index: int, node: dict[str, Any], shapes: dict[Entry, Shape]
    ) -> None:
        read = [(i, number) for i, number, *_ in node["inputs"]]
        is_param = [self._is_param(i) for i, _ in read]
        known = [shapes.get(entry) for entry in read]
        found = infer(node, known, is_param)
        if found is None:
            self._explain_refusal(node, known, is_param)
            return
        for entry, shape in zip(read, found[0]):
            if shapes.get(entry) is None:
                shapes[entry] = shape
            elif self._is_param(entry[0]):
                self._check_param_shape(node, entry, shapes[entry], shape)
        for number, shape in enumerate(found[1]):
            shapes[index, number] = shape

    def _explain_refusal(
        self, node: dict[str, Any], known: list[Shape], is_param: list[bool]
    ) -> None:
        """Raise when MXNet refuses a node whose shapes are all known; else leave it open."""
        if any(shape is None or None in shape for shape in known):
            return
        where = f"{node['op']} {node['name']!r}"
        free = [None if p else shape for p, shape in zip(is_param, known)]
        expected = infer_node(node, free) if any(is_param) else None
        if expected is not None:
            for (i, number, *_), has, needs in zip(node["inputs"], known, expected[0]):
                self._check_param_shape(node, (i, number), has, needs)
        read = ", ".join(
            f"{self.names[i, number]} {format_shape(shape)}"
            for (i, number, *_), shape in zip(node["inputs"], known)
        )
        raise ShapesDisagree(f"{where} cannot take {read}")

    def _check_param_shape(
        self, node: dict[str, Any], entry: Entry, has: Shape, needs: Shape
    ) -> None:
        if has is None or needs is None:
            return
        if len(has) != len(needs) or any(n not in {None, h} for h, n in zip(has, needs)):
            raise BadParams(
                f"the parameter {self.names[entry]!r} has shape {format_shape(has)}; "
                f"{node['op']} {node['name']!r} needs {format_shape(needs)}"
            )

    # -- dtypes ------------------------------------------------------------------------------

    def _infer_dtypes(self) -> dict[Entry, str]:
        arguments = set(self.symbol.list_arguments())
        known = {name: a.dtype for name, a in self.arrays.items() if name in arguments}
        known = {**self._implied_dtypes(), **known}
        known.update({name: np.dtype(t).type for name, t in self.options.dtypes.items()})
        names = self.internals.list_arguments()
        try:
            inputs, found, _ = self.internals.infer_type_partial(**known)
        except mx.base.MXNetError:  # RNN refuses data of unknown type
            inputs = [None] * len(names)
        for name, dtype in zip(names, inputs):
            known.setdefault(name, np.float32 if dtype is None else dtype)
        try:
            _, found, _ = self.internals.infer_type_partial(**known)
        except mx.base.MXNetError as error:
            raise ShapesDisagree(f"the dtypes do not fit: {mxnet_sentence(error)}") from None
        return {
            entry: "float32" if dtype is None else np.dtype(dtype).name
            for entry, dtype in zip(self.names, found)
        }

    def _implied_dtypes(self) -> dict[str, Any]:
        """Return the dtypes of inputs that are multiplied with weights: they are the weights'."""
        implied: dict[str, Any] = {}
        for node in self.nodes:
            if node["op"] in {"Convolution", "Deconvolution", "FullyConnected"}:
                name = self.name(self._origin(node, SAME_SHAPE - {"Cast", "amp_cast"}))
                weight = self.name(node["inputs"][1][0])
                if name in self.inputs and weight in self.arrays:
                    implied.setdefault(name, self.arrays[weight].dtype)
        return implied


def _hinted_shape(variable: Mapping[str, Any]) -> Shape:
    """Return the shape in a variable's ``__shape__`` attribute; 0 and -1 stand for unknown."""
    text = variable.get("attrs", {}).get("__shape__")
    if text is None:
        return None
    sizes = ast.literal_eval(text)
    return tuple(size if size > 0 else None for size in sizes) or None
