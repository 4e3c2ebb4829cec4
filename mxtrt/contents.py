"""What a file holds: a plan, an ONNX model, a model of MXNet, or parameters."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import BadModel, BadPlan, EngineError, EngineNotAvailable
from .graph import align_columns, format_shape
from .plan_file import PlanInfo, format_sizes, info_path, read_plan

if TYPE_CHECKING:
    from .runtime import Plan

MIB = 1 << 20


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes
    ----------
    kind : str
        What it is, in words.
    facts : mapping of str to object
        What there is to say, by name: texts, numbers and lists of texts.
    columns : tuple of str
        The heads of the table.
    rows : list of tuple
        The table: layers, operators or arrays.
    """

    kind: str
    facts: Mapping[str, Any]
    columns: tuple[str, ...] = ()
    rows: Sequence[tuple[Any, ...]] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """Yield what a person wants to know, line by line."""
        yield self.kind
        width = max(map(len, self.facts), default=0)
        for name, fact in self.facts.items():
            for line in fact if isinstance(fact, list) else [fact]:
                yield f"  {name:<{width}}  {line}"
        if self.rows:
            yield ""
            yield from align_columns([self.columns, *(tuple(map(str, row)) for row in self.rows)])

    def to_dict(self) -> dict[str, Any]:
        """Return the same for programs."""
        rows = [dict(zip(self.columns, row)) for row in self.rows]
        return {"kind": self.kind, **self.facts, "table": rows}


def inspect_file(path: str, params: str | None = None, *, device: int = 0) -> Contents:
    """Say what a file holds.

    Parameters
    ----------
    path : path
        A plan, an ONNX file, a ``-symbol.json`` or a ``.params`` file.
    params : path, optional
        The parameters of a symbol.
    device : int
        The GPU on which a plan is loaded to see its layers.

    Raises
    ------
    BadModel
        There is no such file, or it is of none of these kinds.
    UserError
        It is damaged.
    """
    kind = _kind(path)
    if params is not None and kind != "symbol":
        raise BadModel(f"{path}: not a symbol file, and parameters go with one")
    if kind == "plan":
        return _inspect_plan(path, device)
    if kind == "symbol":
        return _inspect_symbol(path, params)
    return _inspect_params(path) if kind == "params" else _inspect_onnx(path)


def _kind(path: str) -> str:
    try:
        with open(path, "rb") as file:
            start = file.read(64)
    except OSError as error:
        raise BadModel(f"{path}: {error.strerror or error}") from None
    if start[1:4] == b"trt" or os.path.exists(info_path(path)):
        return "plan"  # TensorRT's files begin with ftrt or ptrt, those of TensorRT-RTX with vtrt
    if start.lstrip().startswith(b"{"):
        return "symbol"
    if start[:8] == (0x112).to_bytes(8, "little"):  # kMXAPINDArrayListMagic
        return "params"
    return "onnx"


# -- plans -------------------------------------------------------------------------------------


def _inspect_plan(path: str, device: int) -> Contents:
    _, info = read_plan(path)
    facts: dict[str, Any] = {"size": _mib(os.path.getsize(path))}
    facts.update(_known(info) if info is not None else {"known": f"no {info_path(path)} beside it"})
    from . import runtime

    try:
        plan = runtime.load(path, device=device, contexts=1)
    except (EngineNotAvailable, EngineError, BadPlan) as error:  # of another version or GPU
        return Contents("a TensorRT plan", {**facts, "layers": f"not seen: {error}"})
    with plan:
        return _inspect_loaded(plan, facts)


def _known(info: PlanInfo) -> dict[str, Any]:
    runs_on = ", ".join(f"{name[2:-1]}.{name[-1]}" for name in info.capabilities)
    return {
        "built by": f"{info.engine} {info.version}",
        "built on": info.gpu or "a machine without a GPU",
        "runs on": f"compute capability {runs_on}",
        "precision": info.precision,
        "inputs": [f"{t['name']} {format_sizes(t['sizes'])} {t['dtype']}" for t in info.inputs],
        "outputs": [f"{t['name']} {t['dtype']}" for t in info.outputs],
        "checksum": "right",
    }


def _inspect_loaded(plan: Plan, facts: Mapping[str, Any]) -> Contents:
    from .engines._activations import needed_bytes
    from .engines._inspection import layers

    loaded = plan._session.plan
    found = layers(loaded)
    memory = needed_bytes(loaded.engine)
    more = {
        "inputs": [str(tensor) for tensor in plan.inputs],
        "outputs": [f"{name} {dtype}" for name, dtype in plan.output_types.items()],
        "memory": f"{_mib(memory)} for each call that runs at once, beside the weights",
        "layers": len(found),
    }
    columns = ("layer", "type", "output", "format", "tactic")
    rows = [(la.name, la.kind, la.shapes, la.formats, la.tactic) for la in found]
    return Contents("a TensorRT plan", {**facts, **more}, columns, rows)


# -- models ------------------------------------------------------------------------------------


def _inspect_onnx(path: str) -> Contents:
    from .onnx_reader import element_type, read_onnx, sizes

    proto, weights = read_onnx(path)

    def told(info: Any) -> str:
        shape = sizes(info)
        known = None if shape is None else tuple("?" if n is None else n for n in shape)
        text = "(…)" if known is None else f"({', '.join(map(str, known))})"
        return f"{info.name} {text} {element_type(info)}"

    opsets = [f"{opset.domain or 'ai.onnx'} {opset.version}" for opset in proto.opset_import]
    nbytes = sum(array.nbytes for array in weights.values())
    inside = [t for t in proto.graph.initializer if t.name not in weights]
    facts = {
        "made by": f"{proto.producer_name or 'unknown'} {proto.producer_version}".strip(),
        "opset": ", ".join(opsets),
        "inputs": [told(info) for info in proto.graph.input],
        "outputs": [told(info) for info in proto.graph.output],
        "weights": f"{len(weights) + len(inside)}, {_mib(nbytes + sum(map(_size, inside)))}",
        "operators": len(proto.graph.node),
    }
    counts = Counter(node.op_type for node in proto.graph.node)
    return Contents("an ONNX model", facts, ("operator", "count"), counts.most_common())


def _size(tensor: Any) -> int:
    return int(tensor.ByteSize())


def _inspect_symbol(path: str, params: str | None) -> Contents:
    from .options import Options
    from .params import read_params
    from .symbol import load_symbol, read_symbol

    arrays = read_params(params).arrays
    graph = read_symbol(load_symbol(path), arrays, Options(allow_extra_params=True))
    inputs = [v for v in graph.variables if not v.is_param and v in graph.consumers]
    heads = zip(graph.head_names, graph.heads)
    facts = {
        "inputs": [str(value) for value in inputs],
        "outputs": [f"{name} {format_shape(v.shape)} {v.dtype}" for name, v in heads],
        "parameters": _weights(arrays or {}),
        "operators": len(graph.nodes),
    }
    counts = Counter(node.op for node in graph.nodes)
    return Contents("a model of MXNet", facts, ("operator", "count"), counts.most_common())


def _inspect_params(path: str) -> Contents:
    from .params import read_params

    arrays = read_params(path).arrays or {}
    rows = [
        (name, format_shape(array.shape), np.dtype(array.dtype).name)
        for name, array in arrays.items()
    ]
    columns = ("name", "shape", "dtype")
    return Contents("parameters of MXNet", {"parameters": _weights(arrays)}, columns, rows)


def _weights(arrays: Mapping[str, Any]) -> str:
    nbytes = sum(_array_bytes(arrays.values()))
    return f"{len(arrays)}, {_mib(nbytes)}"


def _array_bytes(arrays: Iterable[Any]) -> Iterator[int]:
    for array in arrays:
        yield int(np.prod(array.shape, dtype=np.int64)) * np.dtype(array.dtype).itemsize


def _mib(nbytes: int) -> str:
    return f"{nbytes / MIB:.2f} MiB"
