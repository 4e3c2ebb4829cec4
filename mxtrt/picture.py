"""A graph in Graphviz's language, with its parts coloured.

Small graphs have a box for each node. In large ones the nodes of a part that follow one another
without a branch share a box, so that the picture stays readable; nodes that stay in MXNet always
have their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import BadOption, ProgramNotAvailable, nearest
from .graph import Graph, Node, Value, format_shape

if TYPE_CHECKING:
    from .partition import Subgraph

FORMATS = ("svg", "png", "pdf")

MANY = 40  # nodes; graphs with more have boxes for chains
OPS_A_LINE = 3
MAX_LINES = 8  # of a box
MAX_NAME = 40  # letters

COLOURS = (  # cluster, boxes, border
    ("#e8f1fa", "#c3dcf3", "#4a7fb5"),
    ("#eaf6e6", "#c8e6bd", "#5b9a45"),
    ("#fdf0e1", "#f9d9b0", "#c98425"),
    ("#f4eaf7", "#e0c6e8", "#9157a5"),
    ("#fdeaea", "#f6c4c4", "#c25353"),
    ("#e4f5f4", "#b9e3e0", "#3c9690"),
)

_DEFAULTS = """\
  graph [fontname="Helvetica,Arial,sans-serif" fontsize=11 nodesep=0.25 ranksep=0.3 labeljust=l]
  node [fontname="Helvetica,Arial,sans-serif" fontsize=10 shape=box margin="0.1,0.05" height=0.3]
  edge [fontname="Helvetica,Arial,sans-serif" fontsize=9 color="#666666" arrowsize=0.6]"""


def dot_source(
    graph: Graph, parts: Mapping[Subgraph, str], left: Mapping[Node, str], inputs: Sequence[Value]
) -> str:
    """Return the picture's source.

    Parameters
    ----------
    graph : Graph
        The whole model.
    parts : mapping of Subgraph to str
        The parts and what is written on them.
    left : mapping of Node to str
        The nodes that stay in MXNet and the reasons, which become tooltips.
    inputs : sequence of Value
        The variables that are drawn: those that are no parameters.
    """
    return "\n".join(_Drawing(graph, parts, left, inputs).lines()) + "\n"


def write_picture(source: str, path: str) -> None:
    """Draw the picture with Graphviz into a file whose ending says the format.

    Raises
    ------
    BadOption
        The ending is none of `FORMATS`.
    ProgramNotAvailable
        Graphviz is not installed.
    """
    ending = os.path.splitext(path)[1].lower().lstrip(".")
    if ending not in FORMATS:
        raise BadOption(
            f"{path}: a picture's name ends in .svg, .png or .pdf{nearest(ending, FORMATS)}"
        )
    import graphviz

    try:
        picture = graphviz.Source(source).pipe(format=ending)
    except graphviz.ExecutableNotFound:
        raise ProgramNotAvailable(
            "pictures need Graphviz's program dot, which is not on PATH; install Graphviz "
            "(Debian and Ubuntu: apt install graphviz), or use the report's to_dot()"
        ) from None
    with open(path, "wb") as file:
        file.write(picture)


def shorten(name: str) -> str:
    """Return a name of at most `MAX_NAME` letters: the beginning and the end of longer ones."""
    half = (MAX_NAME - 1) // 2
    return name if len(name) <= MAX_NAME else f"{name[:half]}…{name[-half:]}"


@dataclass(frozen=True, eq=False)
class _Box:
    """Nodes that are drawn as one."""

    id: str
    nodes: tuple[Node, ...]


class _Drawing:
    """One drawing: which box each node is in, and the lines of the source."""

    def __init__(
        self,
        graph: Graph,
        parts: Mapping[Subgraph, str],
        left: Mapping[Node, str],
        inputs: Sequence[Value],
    ) -> None:
        self.graph, self.parts, self.left, self.inputs = graph, parts, left, inputs
        self.part_of = {node: part for part in parts for node in part.nodes}
        groups = self._chains() if len(graph.nodes) > MANY else [[node] for node in graph.nodes]
        self.boxes = [_Box(f"n{i}", tuple(group)) for i, group in enumerate(groups)]
        self.box_of = {node: box for box in self.boxes for node in box.nodes}

    def lines(self) -> Iterator[str]:
        yield "digraph mxtrt {"
        yield _DEFAULTS
        read = {value for node in self.graph.nodes for value in self._reads(node)}
        for i, value in enumerate(self.inputs):
            if value in read or value in self.graph.heads:
                yield f"  i{i} [{_attributes(label=_tensor(value), shape='ellipse')}]"
        for i, (part, title) in enumerate(self.parts.items()):
            yield from self._cluster(i, part, title)
        for box in self.boxes:
            if box.nodes[0] not in self.part_of:
                yield f"  {box.id} [{self._left_box(box.nodes[0])}]"
        for i, name in enumerate(self.graph.head_names):
            yield f"  o{i} [{_attributes(label=shorten(name), shape='ellipse')}]"
        yield from self._edges()
        yield "}"

    def _cluster(self, number: int, part: Subgraph, title: str) -> Iterator[str]:
        back, fill, border = COLOURS[number % len(COLOURS)]
        yield f"  subgraph cluster_{number} {{"
        yield f"    {_attributes(label=title, style='filled,rounded', fillcolor=back)}"
        yield f"    {_attributes(color=border, fontcolor=border)}"
        yield f"    node [{_attributes(style='filled,rounded', fillcolor=fill, color=border)}]"
        for box in self.boxes:
            if self.part_of.get(box.nodes[0]) is part:
                names = "\n".join(node.name for node in box.nodes)
                yield f"    {box.id} [{_attributes(label=self._label(box), tooltip=names)}]"
        yield "  }"

    def _left_box(self, node: Node) -> str:
        return _attributes(
            label=f"{node.op}\n{shorten(node.name)}",
            tooltip=f"{node.name}: {self.left.get(node, '')}",
            style="filled,dashed",
            fillcolor="white",
        )

    def _label(self, box: _Box) -> str:
        if len(box.nodes) == 1:
            node = box.nodes[0]
            return node.op if len(self.graph.nodes) > MANY else f"{node.op}\n{shorten(node.name)}"
        ops = [node.op for node in box.nodes]
        lines = [" → ".join(ops[i : i + OPS_A_LINE]) for i in range(0, len(ops), OPS_A_LINE)]
        if len(lines) > MAX_LINES:
            hidden = len(ops) - (MAX_LINES - 1) * OPS_A_LINE
            lines = [*lines[: MAX_LINES - 2], f"… {hidden} more …", lines[-1]]
        return "\n".join(lines)

    def _edges(self) -> Iterator[str]:
        ids = {value: f"i{i}" for i, value in enumerate(self.inputs)}
        ids.update({v: self.box_of[n].id for v, n in self.graph.producer.items()})
        drawn: set[tuple[str, str, Value]] = set()
        for node in self.graph.nodes:
            for value in self._reads(node):
                edge = (ids.get(value, ""), self.box_of[node].id, value)
                if edge[0] and edge[0] != edge[1] and edge not in drawn:
                    drawn.add(edge)
                    yield self._edge(edge[0], edge[1], value, self._crosses(value, node))
        for i, value in enumerate(self.graph.heads):
            if value in ids:
                yield self._edge(ids[value], f"o{i}", value, value not in self.inputs)

    def _edge(self, start: str, end: str, value: Value, labelled: bool) -> str:
        label = f" [{_attributes(label=f' {format_shape(value.shape)} {value.dtype}')}]"
        return f"  {start} -> {end}{label if labelled else ''}"

    def _reads(self, node: Node) -> Iterator[Value]:
        """Yield what a node reads; engines do not read the labels of training heads."""
        part = self.part_of.get(node)
        for value in node.inputs:
            if value in self.graph.producer or part is None or value in part.inputs:
                yield value

    def _crosses(self, value: Value, reader: Node) -> bool:
        """Say whether the value goes into a part or out of one, from another node."""
        producer = self.graph.producer.get(value)
        return producer is not None and self.part_of.get(producer) is not self.part_of.get(reader)

    def _chains(self) -> list[list[Node]]:
        """Return the nodes, joined where one of a part has a single reader in that part."""
        chains: dict[Node, list[Node]] = {}  # by last node
        for node in self.graph.nodes:
            before = self._only_predecessor(node)
            chain = chains.pop(before, []) if before is not None else []
            chains[node] = [*chain, node]
        return list(chains.values())

    def _only_predecessor(self, node: Node) -> Node | None:
        read = {value for value in node.inputs if value in self.graph.producer}
        before = {self.graph.producer[value] for value in read}
        if len(before) != 1 or any(value in self.inputs for value in node.inputs):
            return None
        producer = before.pop()
        same_part = self.part_of.get(node) is self.part_of.get(producer)
        alone = all(
            self.graph.consumers.get(value, (node,)) == (node,) and value not in self.graph.heads
            for value in producer.outputs
        )
        return producer if node in self.part_of and same_part and alone else None


def _tensor(value: Value) -> str:
    return f"{shorten(value.name)}\n{format_shape(value.shape)} {value.dtype}"


def _attributes(**attributes: str) -> str:
    return " ".join(f"{name}={_quoted(text)}" for name, text in attributes.items())


def _quoted(text: str) -> str:
    """Return `text` so that Graphviz shows it as it is, with its line breaks."""
    # Graphviz reads backslashes and HTML entities also in quoted text
    for letter, escaped in (("\\", "\\\\"), ('"', '\\"'), ("&", "&amp;"), ("\n", "\\n")):
        text = text.replace(letter, escaped)
    return f'"{text}"'
