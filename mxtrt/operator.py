"""One ``_mxtrt_engine`` node as MXNet's executor sees it: shapes, dtypes, and a run.

The node in the symbol holds a key; the engines live in this process, under their keys, until
`release` drops them.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Union

import mxnet as mx

from . import _bridge, _library, forks
from .arrays import DTYPES, TYPE_FLAGS
from .errors import BadModel, ShapesDisagree, mxnet_sentence
from .graph import Shape, Value, format_shape
from .infer import to_shape
from .inline import inline_bodies
from .runtime_record import Execute, RunRecord, Runtime
from .symbol_json import build_symbol

if TYPE_CHECKING:
    from .engines import Engine
    from .partition import Subgraph
    from .reports import Report
    from .weight_sources import Source

Shapes = tuple[tuple[int, ...], ...]

MAX_INFERRED = 256  # shapes of one part of which the outputs' are remembered


@dataclass(frozen=True)
class Onnx:
    """What an engine was built from.

    Attributes
    ----------
    model : bytes
        The ONNX model; its weights are external data.
    weights : callable
        Returns the weights by name; see `weight_sources`.
    """

    model: bytes
    weights: Source


class EngineOperator:
    """A part and the engine that runs it.

    Parameters
    ----------
    part : Subgraph
        What the engine was built from.
    engine : Engine
        What runs it.
    onnx : Onnx, optional
        The part as ONNX, for `mxtrt.save`.
    """

    def __init__(self, part: Subgraph, engine: Engine, onnx: Onnx | None = None) -> None:
        self.part, self.engine, self.onnx = part, engine, onnx
        self.record = RunRecord(engine)
        self.execute: Execute = self.record.counted(engine.execute)
        # MXNet infers the sizes of the outputs from the very nodes that moved
        self._symbol, self._input_names, self._param_shapes = _part_symbol(part)
        self._inferred: dict[tuple[Shapes, bool], Shapes] = {}
        self._inputs = [TYPE_FLAGS[value.dtype] for value in part.inputs]
        self._outputs = [TYPE_FLAGS[value.dtype] for value in part.outputs]

    def infer_shape(self, shapes: Sequence[tuple[int, ...]]) -> Shapes:
        """Return the shapes of the outputs for those of the inputs.

        Raises
        ------
        ShapesDisagree
            The operators of the part do not take these shapes.
        """
        key = tuple(shapes), mx.util.is_np_shape()
        found = self._inferred.get(key)
        if found is None:
            if len(self._inferred) >= MAX_INFERRED:
                self._inferred.clear()
            found = self._inferred[key] = self._infer(key[0])
        return found

    def infer_type(self, types: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return MXNet's type flags of the inputs, completed, and of the outputs.

        Raises
        ------
        ShapesDisagree
            An input has another dtype than the one the part was converted for.
        """
        for value, needs, has in zip(self.part.inputs, self._inputs, types):
            if has not in {-1, needs}:
                name = DTYPES.get(has, f"type {has}")
                raise ShapesDisagree(
                    f"{value.name!r} is {name}, but was converted for {value.dtype}; cast it, or "
                    f"pass dtypes={{{value.name!r}: {name!r}}} to mxtrt.optimize"
                )
        return self._inputs, self._outputs

    def guard(self, check: Callable[[], None]) -> None:
        """Call `check` before each run; what it raises fails the run."""
        execute = self.record.counted(self.engine.execute)

        def guarded(
            inputs: Sequence[_bridge.Buffer], outputs: Sequence[_bridge.Buffer], stream: int
        ) -> None:
            check()
            execute(inputs, outputs, stream)

        self.execute = guarded

    def _infer(self, shapes: Shapes) -> Shapes:
        used = set(self._symbol.list_inputs())  # a branch may leave some out
        known = {n: shape for n, shape in zip(self._input_names, shapes) if n in used}
        try:
            # infer_shape has none where an operator (_npi_hstack) says that it does not know
            _, found, _ = self._symbol.infer_shape_partial(**known, **self._param_shapes)
        except mx.base.MXNetError as error:
            raise ShapesDisagree(f"{self._describe(shapes)}: {mxnet_sentence(error)}") from None
        outputs = [to_shape(shape) for shape in found or ()]
        if not outputs or any(shape is None or None in shape for shape in outputs):
            raise ShapesDisagree(f"{self._describe(shapes)}: MXNet cannot infer the outputs")
        return tuple(map(tuple, found))

    def _describe(self, shapes: Shapes) -> str:
        read = ", ".join(f"{v.name} {format_shape(s)}" for v, s in zip(self.part.inputs, shapes))
        return f"the part {self.part.name} cannot take {read}"


def _part_symbol(part: Subgraph) -> tuple[mx.sym.Symbol, list[str], dict[str, Shape]]:
    """Return the part as a symbol of its own, its inputs' names and its parameters' shapes."""
    nodes: list[dict[str, Any]] = []
    entries: dict[Value, tuple[int, int]] = {}
    made = {value for node in part.nodes for value in node.outputs}
    read = (value for node in part.nodes for value in node.inputs if value not in made)
    # what no engine reads comes last: the labels of training heads
    for index, value in enumerate(dict.fromkeys((*part.inputs, *part.params, *read))):
        entries[value] = (index, 0)
        nodes.append({"op": "null", "name": f"x{index}", "inputs": []})
    for node in part.nodes:
        inputs = [[*entries[value], 0] for value in node.inputs]
        entries.update({value: (len(nodes), i) for i, value in enumerate(node.outputs)})
        nodes.append({**node.source, "inputs": inputs})
    symbol = build_symbol(*inline_bodies(nodes, [entries[value] for value in part.outputs]))
    count = len(part.inputs)
    shapes = {f"x{count + i}": value.shape for i, value in enumerate(part.params)}
    arguments = {*symbol.list_arguments(), *symbol.list_auxiliary_states()}
    shapes = {name: shape for name, shape in shapes.items() if name in arguments}
    return symbol, [f"x{i}" for i in range(count)], shapes


# -- the engines of this process -----------------------------------------------------------------

ENGINE_OP = "_mxtrt_engine"

ModelLike = Union[mx.sym.Symbol, mx.gluon.Block, mx.mod.BaseModule]

_ENGINES: dict[str, EngineOperator] = {}  # by key, as in the bridge's own table
_REPORTS: dict[str, Report] = {}


def register(engines: Mapping[Subgraph, EngineOperator], report: Report) -> dict[Subgraph, str]:
    """Register the engines of one model; return the key of each part."""
    keys = {part: uuid.uuid4().hex for part in engines}
    for part, engine in engines.items():
        register_as(keys[part], engine, report)
    return keys


def register_as(key: str, engine: EngineOperator, report: Report) -> None:
    """Let nodes with this key run an engine, in the place of an earlier one of the same key."""
    _library.load()
    forks.is_used = True
    _ENGINES[key], _REPORTS[key] = engine, report
    _bridge.register(key, engine)


def registered(key: str) -> tuple[EngineOperator, Report] | None:
    """Return the engine of this process with a key and the report of its model, if there is one."""
    engine, report = _ENGINES.get(key), _REPORTS.get(key)
    return None if engine is None or report is None else (engine, report)


def report(model: ModelLike) -> Report:
    """Return the report of a symbol, block or module that mxtrt optimised in this process.

    It names the engines that run now: where one has failed, the one that took its place. Its
    ``runtime`` says what they have done so far.

    Raises
    ------
    BadModel
        The model holds no engine of this process.
    """
    for key in _keys(model):
        if key in _REPORTS:
            parts = operators(model)
            kinds = dict.fromkeys(part.engine.kind for part in parts)
            runtime = Runtime(tuple(part.record.read(part.part.name) for part in parts))
            return replace(_REPORTS[key], engine=" and ".join(kinds), runtime=runtime)
    raise BadModel("the symbol holds no engine of this process; mxtrt.optimize returns one")


def release(model: ModelLike) -> None:
    """Free the engines of an optimised symbol or block; it and its copies can run no more.

    Engines otherwise live as long as the process, because copies of a symbol cannot be counted.
    """
    for key in _keys(model):
        _forget(key)


def engines(model: ModelLike) -> list[Engine]:
    """Return the engines of an optimised symbol or block, in the order of its nodes."""
    return [operator.engine for operator in operators(model)]


def operators(model: ModelLike) -> list[EngineOperator]:
    """Return the parts of an optimised symbol or block with their engines, in its nodes' order."""
    return [_ENGINES[key] for key in _keys(model) if key in _ENGINES]


def parameters(symbol: mx.sym.Symbol) -> set[str]:
    """Return the names of the parameters that the engines of an optimised symbol hold."""
    return {value.name for operator in operators(symbol) for value in operator.part.params}


def guard(symbol: mx.sym.Symbol, check: Callable[[], None]) -> None:
    """Call `check` before each run of each engine of a symbol; what it raises fails the run."""
    for operator in operators(symbol):
        operator.guard(check)


def replace_engines(old: mx.sym.Symbol, new: mx.sym.Symbol) -> bool:
    """Let the nodes of `old` run the engines of `new`, if the two differ in nothing else.

    Then `new` can run no more. Nodes of copies of `old`, and of graphs that hold it, run the new
    engines, too.
    """
    for before, after in zip(operators(old), operators(new)):
        after.record.follow(before.record)
    keys, others = _keys(old), _keys(new)
    if any(key not in _ENGINES for key in (*keys, *others)) or _form(old) != _form(new):
        return False
    for key, other in zip(keys, others):
        _ENGINES[key], _REPORTS[key] = _ENGINES[other], _REPORTS[other]
        _bridge.register(key, _ENGINES[key])
        _forget(other)
    return True


def _form(symbol: mx.sym.Symbol) -> object:
    """Return what tells two optimised symbols apart, beside their engines."""
    text = symbol.tojson()
    for number, key in enumerate(_keys(symbol)):
        text = text.replace(key, str(number))
    parts = (_ENGINES[key].part for key in _keys(symbol))
    ends = [[(v.shape, v.dtype) for v in (*part.inputs, *part.outputs)] for part in parts]
    return text, ends


def _forget(key: str) -> None:
    _bridge.unregister(key)
    _ENGINES.pop(key, None)
    _REPORTS.pop(key, None)


def _keys(model: ModelLike) -> list[str]:
    symbols = _symbols(model)
    if not symbols:
        if not isinstance(model, mx.gluon.Block):
            raise BadModel(f"the {type(model).__name__} has no symbol")
        raise BadModel(f"the block {model.name!r} has not been called since it was hybridized")
    nodes = (node for symbol in symbols for node in json.loads(symbol.tojson())["nodes"])
    return list(dict.fromkeys(node["attrs"]["key"] for node in nodes if node["op"] == ENGINE_OP))


def _symbols(model: ModelLike) -> list[mx.sym.Symbol]:
    """Return the graph that a model runs, or those of the blocks inside that have one."""
    if isinstance(model, mx.sym.Symbol):
        return [model]
    if getattr(model, "_cached_graph", ()):
        return [model._cached_graph[1]]
    if isinstance(model, mx.gluon.Block):
        inside: Iterable[ModelLike] = model._children.values()
    else:
        if isinstance(model.symbol, mx.sym.Symbol):
            return [model.symbol]
        inside = getattr(model, "_modules", ())  # of a SequentialModule
    return [symbol for part in inside for symbol in _symbols(part)]
