"""The graph that the stages of the pipeline pass on: immutable, compared by identity.

`print` of a `Graph` is a table of its nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    import mxnet as mx

Shape = Optional[tuple[Optional[int], ...]]
"""A tensor's shape; ``None`` for an unknown rank, ``None`` in it for an unknown size."""


@dataclass(frozen=True, eq=False)
class Value:
    """One tensor of the graph: a variable, or one output of a node.

    Attributes
    ----------
    name : str
        MXNet's own name, such as ``"data"`` or ``"conv0_output"``; not always unique.
    shape : tuple of (int or None), or None
        Sizes as far as they are known.
    dtype : str
        NumPy's name of the element type, such as ``"float32"``.
    is_param : bool
        Whether it is a parameter or an auxiliary state.
    arrays : mapping of str to mxnet.nd.NDArray
        The parameters of the whole model, shared by all of its values: emptied once the engines
        are built, so that graphs and reports hold no weights.
    """

    name: str
    shape: Shape
    dtype: str
    is_param: bool = False
    arrays: Mapping[str, mx.nd.NDArray] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        """Return name, shape and dtype."""
        return f"{self.name} {format_shape(self.shape)} {self.dtype}"

    @property
    def array(self) -> mx.nd.NDArray:
        """The parameter's array."""
        return self.arrays[self.name]

    @property
    def rank(self) -> int | None:
        """Number of axes, or None when it is not known."""
        return None if self.shape is None else len(self.shape)


@dataclass(frozen=True, eq=False)
class Node:
    """One operator of the graph.

    Attributes
    ----------
    op : str
        MXNet's operator name, such as ``"Convolution"``.
    name : str
        The node's name in the model; not always unique.
    attrs : mapping of str to str
        The operator's attributes as they stand in the symbol's JSON.
    inputs, outputs : tuple of Value
        What the node reads and writes.
    source : mapping
        The node as it stands in the symbol's JSON, with what the other fields do not hold
        (user attributes, subgraphs of control flow).
    """

    op: str
    name: str
    attrs: Mapping[str, str]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    source: Mapping[str, Any] = field(repr=False)

    def __str__(self) -> str:
        """Return operator and name, as reports and errors show them."""
        return f"{self.op} {self.name!r}"


@dataclass(frozen=True, eq=False)
class Graph:
    """A whole model.

    Attributes
    ----------
    variables : tuple of Value
        Inputs, parameters and auxiliary states, in MXNet's order.
    nodes : tuple of Node
        The operators, each after the nodes whose outputs it reads.
    arrays : dict of str to mxnet.nd.NDArray
        The parameters by name.
    heads : tuple of Value
        What the model returns, in order; a value may stand here twice.
    head_names : tuple of str
        The names that MXNet gives to the heads.
    variable_attrs : mapping of Value to mapping of str to str
        User attributes of the variables (``__shape__``, ``__dtype__``, …).
    """

    variables: tuple[Value, ...]
    nodes: tuple[Node, ...]
    heads: tuple[Value, ...]
    head_names: tuple[str, ...]
    variable_attrs: Mapping[Value, Mapping[str, str]] = field(repr=False)
    arrays: dict[str, mx.nd.NDArray] = field(default_factory=dict, repr=False)

    @cached_property
    def producer(self) -> Mapping[Value, Node]:
        """The node that writes each value; variables are missing."""
        return {value: node for node in self.nodes for value in node.outputs}

    @cached_property
    def consumers(self) -> Mapping[Value, tuple[Node, ...]]:
        """The nodes that read each value, each once; values nobody reads are missing."""
        readers: dict[Value, dict[Node, None]] = {}
        for node in self.nodes:
            for value in node.inputs:
                readers.setdefault(value, {})[node] = None
        return {value: tuple(nodes) for value, nodes in readers.items()}

    def __str__(self) -> str:
        """Return a table of the nodes."""
        rows = [("operator", "name", "inputs", "outputs")]
        rows += [
            (n.op, n.name, ", ".join(v.name for v in n.inputs), ", ".join(map(str, n.outputs)))
            for n in self.nodes
        ]
        return "\n".join(align_columns(rows))


def format_shape(shape: Shape) -> str:
    """Return a shape as text: ``(?, 3, 224, 224)``; ``(…)`` when its rank is unknown."""
    if shape is None:
        return "(…)"
    sizes = ["?" if size is None else str(size) for size in shape]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def align_columns(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield the rows as lines of left-aligned columns."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table)]
    for row in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
