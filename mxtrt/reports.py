"""What moved into engines, what stays in MXNet, and why: as text, as a dict, as a picture."""

from __future__ import annotations

import json
import os
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from .graph import Graph, Node, Value
from .partition import UNREAD
from .picture import dot_source, shorten, write_picture

if TYPE_CHECKING:
    from rich.text import Text

    from .options import Options
    from .partition import Partition, Subgraph
    from .runtime_record import Runtime

WIDTH = 100  # columns of the table
MAX_NAMES = 3  # of nodes, behind a reason
MAX_TENSORS = 6  # inputs or outputs of a part
MAX_PARTS = 20
NO_BREAK = "\N{NO-BREAK SPACE}"  # textwrap does not break lines at it


@dataclass(frozen=True)
class OperatorCount:
    """What becomes of all nodes of one operator.

    Attributes
    ----------
    op : str
        MXNet's operator name.
    nodes : tuple of str
        The names of all its nodes, in graph order.
    reasons : mapping of str to tuple of str
        Each reason to stay in MXNet, and the names of the nodes that it keeps there.
    """

    op: str
    nodes: tuple[str, ...]
    reasons: Mapping[str, tuple[str, ...]]

    @property
    def count(self) -> int:
        """How many nodes there are."""
        return len(self.nodes)

    @property
    def left(self) -> int:
        """How many of them stay in MXNet."""
        return sum(map(len, self.reasons.values()))

    @property
    def moved(self) -> int:
        """How many of them an engine runs."""
        return self.count - self.left


@dataclass(frozen=True, eq=False)
class Report:
    """Which operators engines run, and why MXNet runs the others.

    ``print(report)`` shows a table.

    Attributes
    ----------
    graph : Graph
        The whole model.
    plan : Partition
        Its parts, and the reasons for the nodes that are in none.
    options : Options
        What the caller asked for.
    engine : str
        The kind of engine that runs the parts, such as ``"onnxruntime"``.
    runtime : Runtime or None
        What the engines had done when `mxtrt.report` was called: calls, builds, time. A report of
        `mxtrt.explain` has none.
    """

    graph: Graph
    plan: Partition
    options: Options
    engine: str
    runtime: Runtime | None = None

    @property
    def parts(self) -> tuple[Subgraph, ...]:
        """What engines run."""
        return self.plan.parts

    @property
    def left(self) -> Mapping[Node, str]:
        """The reason for every node that stays in MXNet."""
        return self.plan.left

    @property
    def inputs(self) -> tuple[Value, ...]:
        """What the model reads at run time, labels included."""
        return tuple(value for value in self.graph.variables if not value.is_param)

    @cached_property
    def operators(self) -> tuple[OperatorCount, ...]:
        """The nodes by operator: first those with nodes that stay, then the most frequent."""
        return _count_operators(self.graph.nodes, self.left)

    @property
    def count(self) -> int:
        """How many operators the model has."""
        return len(self.graph.nodes)

    @property
    def moved(self) -> int:
        """How many of them engines run."""
        return self.count - len(self.left)

    @property
    def headline(self) -> str:
        """The whole report in one sentence."""
        if not self.count:
            return "The model has no operators."
        if not self.moved:
            return f"All {self.count} operators stay in MXNet."
        where = f"into {len(self.parts)} part{'s' if len(self.parts) > 1 else ''}"
        if not self.left:
            return f"All {self.count} operators move {where}, run by {self.engine}."
        unread = sum(reason == UNREAD for reason in self.left.values())
        stay = len(self.left) - unread
        ends = [f"{stay} stay{'s' if stay == 1 else ''} in MXNet"] if stay else []
        if unread:
            ends.append(f"{unread} only compute{'s' if unread == 1 else ''} labels and vanish")
        moved = f"{self.moved} of {self.count} operators move {where}, run by {self.engine}"
        return f"{moved}; {', '.join(ends)}."

    def __repr__(self) -> str:
        """Return the first line of the table."""
        return f"<mxtrt.Report: {self.headline}>"

    def __str__(self) -> str:
        """Return the tables, at most `WIDTH` columns wide; that of calls once there were some."""
        sections = [[self.headline], _operator_lines(self.operators), _part_lines(self)]
        if self.runtime is not None and self.runtime.calls:
            sections.append([str(self.runtime)])
        return "\n\n".join("\n".join(lines) for lines in sections if lines)

    def __rich__(self) -> Text:
        """Return the table with colours, for rich's consoles."""
        from rich.text import Text

        text = Text(str(self), no_wrap=True, overflow="ignore")
        text.highlight_regex(r"(?m)^operator .*$", "bold")
        text.highlight_regex(r"(?m)^\S+ +\d+ +\d+ +[1-9]\d*  .*$", "yellow")
        text.highlight_regex(r"(?m)^mxtrt\d+", "bold cyan")
        return text

    def to_dict(self) -> dict[str, Any]:
        """Return the report as numbers, strings, lists and dicts that JSON has too.

        Returns
        -------
        dict
            ``count``, ``moved``, ``left``
                Numbers of operators: all, run by engines, staying in MXNet.
            ``engine``
                The kind of engine.
            ``operators``
                A list; each has ``op``, ``count``, ``moved``, ``left``, ``nodes`` (names) and
                ``reasons``, a list of ``reason`` and ``nodes`` (names).
            ``parts``
                A list; each has ``name``, ``engine``, ``nodes`` (a list of ``op`` and ``name``),
                ``inputs`` and ``outputs`` (lists of ``name``, ``shape`` and ``dtype``),
                ``parameters`` (how many arrays) and ``parameters_mib``.
            ``inputs``, ``outputs``
                Those of the model, in the same form.
            ``options``
                What the caller asked for.
            ``runtime``
                What the engines have done; see `Runtime.to_dict`. None in `mxtrt.explain`.

            A shape is a list, with None for an unknown size, or None when its rank is unknown.
        """
        heads = (replace(v, name=name) for v, name in zip(self.graph.heads, self.graph.head_names))
        return {
            "count": self.count,
            "moved": self.moved,
            "left": len(self.left),
            "engine": self.engine,
            "operators": [_operator_dict(row) for row in self.operators],
            "parts": [{**_part_dict(part), "engine": self.engine} for part in self.parts],
            "inputs": list(map(_tensor_dict, self.inputs)),
            "outputs": list(map(_tensor_dict, heads)),
            "options": _plain(asdict(self.options)),
            "runtime": None if self.runtime is None else self.runtime.to_dict(),
        }

    def to_json(self, indent: int | None = 2) -> str:
        """Return `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def to_dot(self) -> str:
        """Return the graph in Graphviz's language: parts are coloured, nodes left are white."""
        titles = {
            part: f"{part.name}, {self.engine}\n{_operator_count(part)}, {_size(part)}"
            for part in self.parts
        }
        return dot_source(self.graph, titles, self.left, self.inputs)

    def render(self, path: str | os.PathLike[str]) -> None:
        """Draw the graph with Graphviz.

        Parameters
        ----------
        path : path
            The file to write; its ending says the format: ``.svg``, ``.png`` or ``.pdf``.

        Raises
        ------
        BadOption
            The path has another ending.
        ProgramNotAvailable
            Graphviz is not installed.
        """
        write_picture(self.to_dot(), os.fspath(path))


def mebibytes(values: Iterable[Value]) -> float:
    """Return how much memory tensors of known shape take, in MiB."""
    sizes = (prod(n or 0 for n in v.shape or ()) * np.dtype(v.dtype).itemsize for v in values)
    return sum(sizes) / 2**20


def _count_operators(nodes: Iterable[Node], left: Mapping[Node, str]) -> tuple[OperatorCount, ...]:
    names: dict[str, list[str]] = {}
    reasons: dict[str, dict[str, list[str]]] = {}
    for node in nodes:
        names.setdefault(node.op, []).append(node.name)
        if node in left:
            reasons.setdefault(node.op, {}).setdefault(left[node], []).append(node.name)
    rows = (
        OperatorCount(
            op, tuple(all_of), {why: tuple(kept) for why, kept in reasons.get(op, {}).items()}
        )
        for op, all_of in names.items()
    )
    return tuple(sorted(rows, key=lambda row: (not row.left, -row.count, row.op)))


# -- text --------------------------------------------------------------------------------------


def _operator_lines(rows: Sequence[OperatorCount]) -> list[str]:
    if not rows:
        return []
    op_width = max(len("operator"), *(len(row.op) for row in rows))
    titles = ("count", "moved", "left")
    head = f"{'operator':<{op_width}}  {'  '.join(titles)}"
    lines = [f"{head}  why it stays" if any(row.left for row in rows) else head]
    for row in rows:
        counts = f"{row.count:>5}  {row.moved:>5}  {row.left:>4}"
        first = f"{row.op:<{op_width}}  {counts}  "
        reasons = [f"{why}: {_some(names)}" for why, names in row.reasons.items()]
        lines += _hanging(first, reasons)
    return lines


def _part_lines(report: Report) -> list[str]:
    lines: list[str] = []
    for part in report.parts[:MAX_PARTS]:
        counts = Counter(node.op for node in part.nodes)
        lines += [
            *_hanging("", [_part_title(part, report.engine)]),
            *_hanging(
                "  operators  ", [", ".join(f"{n}{NO_BREAK}{op}" for op, n in counts.most_common())]
            ),
            *_hanging("  nodes      ", [_some([node.name for node in part.nodes])]),
            *_hanging("  inputs     ", _tensors(part.inputs)),
            *_hanging("  outputs    ", _tensors(part.outputs)),
        ]
    more = report.parts[MAX_PARTS:]
    if more:
        lines.append(f"and {len(more)} more parts with {sum(len(p.nodes) for p in more)} operators")
    return lines


def _part_title(part: Subgraph, engine: str) -> str:
    return f"{part.name}: {_operator_count(part)}, {_size(part)} of parameters, {engine}"


def _operator_count(part: Subgraph) -> str:
    count = len(part.nodes)
    return f"{count} operator{'s' if count > 1 else ''}"


def _size(part: Subgraph) -> str:
    size = mebibytes(part.params)
    return f"{size:.2g} MiB" if size < 0.1 else f"{size:,.1f} MiB"


def _tensors(values: Sequence[Value]) -> list[str]:
    shown = [str(replace(value, name=shorten(value.name))) for value in values[:MAX_TENSORS]]
    more = len(values) - MAX_TENSORS
    return [*shown, f"and {more} more"] if more > 0 else shown


def _some(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    shown = ", ".join(map(shorten, names[:MAX_NAMES]))
    more = len(names) - MAX_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


def _hanging(first: str, texts: Sequence[str]) -> Iterator[str]:
    """Yield lines of at most `WIDTH` letters: `first`, and the texts in a column beside it."""
    if not texts:
        yield first.rstrip()
    indent = first
    for text in texts:
        # a text that begins on a line of its own may continue further in
        further = " " * (len(first) + 2)
        for line in textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=further):
            yield line.replace(NO_BREAK, " ")
        indent = " " * len(first)


# -- dict --------------------------------------------------------------------------------------


def _operator_dict(row: OperatorCount) -> dict[str, Any]:
    return {
        "op": row.op,
        "count": row.count,
        "moved": row.moved,
        "left": row.left,
        "nodes": list(row.nodes),
        "reasons": [{"reason": why, "nodes": list(names)} for why, names in row.reasons.items()],
    }


def _part_dict(part: Subgraph) -> dict[str, Any]:
    return {
        "name": part.name,
        "nodes": [{"op": node.op, "name": node.name} for node in part.nodes],
        "inputs": list(map(_tensor_dict, part.inputs)),
        "outputs": list(map(_tensor_dict, part.outputs)),
        "parameters": len(part.params),
        "parameters_mib": round(mebibytes(part.params), 6),
    }


def _tensor_dict(value: Value) -> dict[str, Any]:
    shape = None if value.shape is None else list(value.shape)
    return {"name": value.name, "shape": shape, "dtype": value.dtype}


def _plain(value: Any) -> Any:
    """Return `value` with nothing in it that JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(map(_plain, value))
    if isinstance(value, (list, tuple)):
        return list(map(_plain, value))
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
