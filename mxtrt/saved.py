"""Optimised models in files: ``net-symbol.json``, ``net-0000.params`` and ``net-engines.mxtrt``.

The first two are MXNet's own. The third holds for each engine the ONNX model that it was built
from, with its weights, and on demand TensorRT's plans; so it is read wherever mxtrt is, and engines
are built there from what is there. Each saving gives the engines new keys: a key names a content.
"""

from __future__ import annotations

import glob
import json
import logging
import os
import tempfile
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import mxnet as mx
import onnx

from . import __version__
from .engines import Builder, builder
from .engines_file import EnginesFile, Writer, read_header, replacing
from .errors import (
    BadModel,
    BadOption,
    BadParams,
    EngineError,
    EngineNotAvailable,
    MxtrtError,
    nearest,
)
from .labels import accept_missing_labels
from .operator import ENGINE_OP, EngineOperator, Onnx, register_as, registered
from .options import Options, read_options
from .params import ParamsLike, read_params
from .report_json import read_report, write_report
from .reports import Report
from .symbol import load_symbol
from .weight_sources import in_memory

if TYPE_CHECKING:
    from .graph import Value

log = logging.getLogger("mxtrt")

SYMBOL, PARAMS, ENGINES = "-symbol.json", "-%04d.params", "-engines.mxtrt"
SETTLED = (
    "dtypes", "min_subgraph_size", "exclude_ops", "exclude_nodes", "allow_extra_params",
)  # fmt: skip
"""Options that have had their effect when a model is saved."""

_loading = threading.RLock()


def file_names(prefix: str | os.PathLike[str], epoch: int = 0) -> tuple[str, str, str]:
    """Return the names of a model's three files: symbol, parameters, engines."""
    name = os.fspath(prefix)
    return name + SYMBOL, name + PARAMS % epoch, name + ENGINES


# -- saving --------------------------------------------------------------------------------------


def save(
    prefix: str | os.PathLike[str],
    model: mx.sym.Symbol | mx.gluon.HybridBlock,
    params: ParamsLike = None,
    *,
    epoch: int = 0,
    plans: bool = False,
) -> None:
    """Write an optimised model, so that another process or another machine can load it.

    Files that are there are replaced when all three are written, and not before. They hold no paths
    and may be moved together.

    Parameters
    ----------
    prefix : path
        ``prefix-symbol.json``, ``prefix-0000.params`` and ``prefix-engines.mxtrt`` are written.
    model : mxnet.sym.Symbol or mxnet.gluon.HybridBlock
        What `mxtrt.optimize` returned, or a block that was called after
        ``hybridize(backend="mxtrt")``.
    params : dict, pair or path
        The parameters that `mxtrt.optimize` returned, or those that it was given; a block has its
        own.
    epoch : int
        The number in the name of the parameter file.
    plans : bool
        Write the plans that TensorRT has built so far, too: for machines with the same GPU, driver
        and versions. A plan is code that runs on the GPU.

    Raises
    ------
    BadModel
        The engines were released.
    BadParams
        A parameter is missing, or weights of an engine cannot be found again.
    BadOption
        The files cannot be written; the earlier ones are as they were.
    """
    symbol, given = _symbol_and_params(model, params)
    text = symbol.tojson(remove_amp_cast=False)
    keys = {key: uuid4().hex for key in _keys(json.loads(text)["nodes"])}
    found = {key: _registered(key) for key in keys}
    arrays = _with_prefixes(symbol, given, [report for _, report in found.values()])
    for key, new in keys.items():
        text = text.replace(f'"{key}"', f'"{new}"')
    names = file_names(prefix, epoch)
    with replacing(names[::-1]) as temporary:
        with open(temporary[names[2]], "wb") as file:
            _write_engines(file, {keys[key]: both for key, both in found.items()}, plans)
        mx.nd.save(temporary[names[1]], arrays)
        Path(temporary[names[0]]).write_text(text, encoding="utf-8")


def _symbol_and_params(
    model: mx.sym.Symbol | mx.gluon.HybridBlock, params: ParamsLike
) -> tuple[mx.sym.Symbol, Mapping[str, mx.nd.NDArray]]:
    if isinstance(model, mx.sym.Symbol):
        return model, read_params(params).arrays or {}
    if not isinstance(model, mx.gluon.HybridBlock):
        raise BadModel(f"model is a {type(model).__name__}; pass what mxtrt.optimize returned")
    if params is not None:
        raise BadOption("params: a block has its own parameters; leave params out")
    with tempfile.TemporaryDirectory(prefix="mxtrt-") as folder:
        model.export(os.path.join(folder, "net"), remove_amp_cast=False)
        symbol, written, _ = file_names(os.path.join(folder, "net"))
        return mx.sym.load(symbol), read_params(written).arrays or {}


def _keys(nodes: Iterable[Mapping[str, Any]]) -> dict[str, None]:
    """Return the keys of all engines among nodes, those in bodies of control flow included."""
    keys: dict[str, None] = {}
    for node in nodes:
        if node["op"] == ENGINE_OP:
            keys[node["attrs"]["key"]] = None
        for body in node.get("subgraphs", ()):
            keys.update(_keys(body["nodes"]))
    return keys


def _registered(key: str) -> tuple[EngineOperator, Report]:
    found = registered(key)
    if found is None:
        raise BadModel(
            "the symbol holds an engine that is not of this process, or was released; save what "
            "mxtrt.optimize or mxtrt.load returned here"
        )
    return found


def _with_prefixes(
    symbol: mx.sym.Symbol, given: Mapping[str, mx.nd.NDArray], reports: Iterable[Report]
) -> dict[str, mx.nd.NDArray]:
    """Return what stays in MXNet, by the names that MXNet's files have."""
    states = set(symbol.list_auxiliary_states())
    reads = {*symbol.list_arguments(), *states}
    values: set[Value] = set().union(*(report.graph.variables for report in reports))
    params = {value.name for value in values if value.is_param}
    missing = sorted(name for name in reads & params if name not in given)
    if missing:
        raise BadParams(
            f"the parameter {missing[0]!r} is missing; pass what mxtrt.optimize returned: "
            "mxtrt.save(prefix, symbol, params)"
        )
    return {
        f"{'aux' if name in states else 'arg'}:{name}": array
        for name, array in given.items()
        if name in reads or name not in params  # engines hold the others
    }


def _write_engines(
    file: Any, engines: Mapping[str, tuple[EngineOperator, Report]], plans: bool
) -> None:
    writer = Writer(file)
    models = {id(report): report for _, report in engines.values()}
    numbers = {key: number for number, key in enumerate(models)}
    parts = [
        {
            "key": key,
            "model": numbers[id(report)],
            "part": report.parts.index(operator.part),
            **_write_onnx(writer, operator),
            "plans": _write_plans(writer, operator) if plans else [],
        }
        for key, (operator, report) in engines.items()
    ]
    writer.finish(
        {
            "mxtrt": __version__,
            "models": [write_report(report) for report in models.values()],
            "parts": parts,
        }
    )


def _write_onnx(writer: Writer, operator: EngineOperator) -> dict[str, Any]:
    name = operator.part.name
    if operator.onnx is None:
        raise BadParams(f"{name}: the engine was not made by mxtrt.optimize")
    try:
        weights = operator.onnx.weights()
    except BadParams as error:
        raise BadParams(
            f"the weights that {name} was built from cannot be found again: {error}; optimise the "
            "model anew and save it at once"
        ) from None
    # numpy.ascontiguousarray would give arrays without axes one
    flat = {weight: array.reshape(-1).view("uint8") for weight, array in weights.items()}
    return {
        "onnx": writer.add(operator.onnx.model),
        "weights": {
            weight: [writer.add(flat[weight].data), array.dtype.str, array.shape]
            for weight, array in weights.items()
        },
    }


def _write_plans(writer: Writer, operator: EngineOperator) -> list[dict[str, Any]]:
    plans = operator.engine.plans() if hasattr(operator.engine, "plans") else []
    if not plans:
        log.warning("%s has no plan yet that could be saved", operator.part.name)
    return [
        {"facts": dict(plan.facts), "sizes": plan.sizes, "plan": writer.add(plan.content)}
        for plan in plans
    ]


# -- loading -------------------------------------------------------------------------------------


def load(
    prefix: str | os.PathLike[str], *, epoch: int = 0, **options: Any
) -> tuple[mx.sym.Symbol, tuple[dict[str, mx.nd.NDArray], dict[str, mx.nd.NDArray]]]:
    """Load a model that `save` wrote, and build its engines for this machine.

    After ``import mxtrt`` MXNet's own functions that read symbol files do the same, with the
    options of `mxtrt.optimize`: ``mx.model.load_checkpoint``, ``mx.sym.load``, ``Module.load``,
    ``gluon.SymbolBlock.imports``.

    Parameters
    ----------
    prefix : path
        What was passed to `save`.
    epoch : int
        The number in the name of the parameter file.
    **options
        Options of `mxtrt.optimize` that shall be others here, such as ``engine`` or
        ``session_options``; engines that are loaded already are built again with them.

    Returns
    -------
    symbol : mxnet.sym.Symbol
        The optimised symbol.
    params : (dict, dict)
        ``(arg_params, aux_params)``: what stays in MXNet.

    Raises
    ------
    BadModel
        A file is missing, damaged, of another version, or of another model than the others.
    EngineNotAvailable
        No engine here runs a part.
    """
    symbol_path, params_path, engines_path = file_names(prefix, epoch)
    for path in (symbol_path, engines_path):
        if not os.path.exists(path):
            raise BadModel(f"{path}: no such file; mxtrt.save writes it")
    load_engines(engines_path, options)
    symbol = load_symbol(symbol_path)
    both: tuple[dict[str, Any], dict[str, Any]] = {}, {}
    states = set(symbol.list_auxiliary_states())
    for name, array in (read_params(params_path).arrays or {}).items():
        both[name in states][name] = array
    return symbol.as_np_ndarray() if mx.util.is_np_array() else symbol, both


def load_engines(path: str, options: Mapping[str, Any] | None = None) -> None:
    """Build the engines of a file under the keys that its symbol names, unless they are there.

    Raises
    ------
    BadModel, EngineNotAvailable
        As `load`.
    """
    accept_missing_labels()
    with _loading:
        file = EnginesFile(path)
        models = [_for_here(read_report(m), options or {}) for m in file.about["models"]]
        wanted = [p for p in file.about["parts"] if options or registered(p["key"]) is None]
        builders = {
            number: _builder(path, models[number]) for number in {p["model"] for p in wanted}
        }
        reports = {n: replace(models[n], engine=build.kind) for n, build in builders.items()}
        built = [
            (part, _build(file, part, builders[part["model"]], reports[part["model"]]))
            for part in wanted
        ]
        file.let_go()
        for part, engine in built:
            register_as(part["key"], engine, reports[part["model"]])


def find_engines(symbol_path: str, symbol: mx.sym.Symbol) -> None:
    """Load the engines of a symbol that was read from a file, from the file of engines beside it.

    Raises
    ------
    BadModel
        There is none, or it is of another model; or as `load`.
    EngineNotAvailable
        As `load`.
    """
    keys = _keys(json.loads(symbol.tojson(remove_amp_cast=False))["nodes"])
    missing = {key for key in keys if registered(key) is None}
    if not missing:
        return
    stem = symbol_path[: -len(SYMBOL)] if symbol_path.endswith(SYMBOL) else symbol_path
    named = stem + ENGINES
    folder = glob.escape(os.path.dirname(symbol_path))
    others = sorted(glob.glob(os.path.join(folder, f"*{ENGINES}")))
    for path in dict.fromkeys((named, *others)):
        if (path == named and os.path.exists(path)) or missing & _keys_in(path):
            load_engines(path)
        missing = {key for key in missing if registered(key) is None}
        if not missing:
            return
    if os.path.exists(named):
        raise BadModel(
            f"{named}: holds the engines of another model than {symbol_path}; copy the files of "
            "one mxtrt.save together"
        )
    raise BadModel(
        f"{symbol_path}: parts of this model run in engines, which live in the process that called "
        f"mxtrt.optimize or in {named}, and that file is missing; mxtrt.save writes both"
    )


def _keys_in(path: str) -> set[str]:
    try:
        return {part["key"] for part in read_header(path)["parts"]}
    except BadModel:  # of whatever model it is
        return set()


def _for_here(report: Report, given: Mapping[str, Any]) -> Report:
    """Return a report with the options that hold here."""
    if not given:
        return report
    known = [n for n in Options.__dataclass_fields__ if n not in SETTLED]
    for name in given:
        if name in SETTLED:
            raise BadOption(f"{name} was settled when the model was optimised")
        if name not in known:
            raise BadOption(f"no option {name!r}{nearest(name, known)}")
    if given.get("engine") == "onnxruntime":
        given = {"precision": "fp32", **given}  # it has no other, and the ONNX is as MXNet's
    checked = read_options(**given)
    return replace(
        report, options=replace(report.options, **{n: getattr(checked, n) for n in given})
    )


def _builder(path: str, report: Report) -> Builder:
    """Return the builder that the saved options ask for, or another one where that is not here."""
    options = report.options
    try:
        build = builder(options)
    except EngineNotAvailable as error:
        if options.strict:
            raise
        build = builder(replace(options, engine="auto"))
        log.warning("%s: %s runs it, because %s", path, build.kind, error)
    else:
        if build.kind != report.engine:
            log.warning("%s: %s runs it here, and %s did when it was saved", path, build.kind,
                        report.engine)  # fmt: skip
    return build


def _build(
    file: EnginesFile, part: Mapping[str, Any], build: Builder, report: Report
) -> EngineOperator:
    proto, subgraph = file.bytes(part["onnx"]), report.parts[part["part"]]
    weights: Mapping[str, Any] = _weights(file, part)
    more: dict[str, Any] = {}
    source = in_memory(weights)
    if build.kind == "onnxruntime":
        source = lambda: _weights_again(file, part)  # noqa: E731
    else:
        # it keeps the weights for other sizes: in memory, where no other process writes
        weights = {name: array.copy() for name, array in weights.items()}
        source = in_memory(weights)
        more["plans"] = _plans(file, part)
        log.info("%s: %s builds %s from its ONNX, or finds it in the store", file.path, build.kind,
                 subgraph.name)  # fmt: skip
    try:
        engine = build.build(onnx.ModelProto.FromString(proto), weights, report.options, **more)
    except EngineError as error:
        raise EngineNotAvailable(
            f"{file.path}: {build.kind} cannot run {subgraph.name} here ({error}); optimise the "
            "original model on this machine"
        ) from None
    return EngineOperator(subgraph, engine, Onnx(proto, source))


def _weights(file: EnginesFile, part: Mapping[str, Any]) -> dict[str, Any]:
    return {name: file.array(*place) for name, place in part["weights"].items()}


def _weights_again(file: EnginesFile, part: Mapping[str, Any]) -> dict[str, Any]:
    try:
        file.check_again()
    except MxtrtError as error:
        raise BadParams(str(error)) from None
    return _weights(file, part)


def _plans(file: EnginesFile, part: Mapping[str, Any]) -> list[Any]:
    """Return the plans in a file that only its owner may have written."""
    from .engines._saved_plans import SavedPlan

    if part["plans"] and file.others_may_write:
        log.warning("%s: every user may write to it, so its plans are not run", file.path)
        return []
    return [
        SavedPlan(
            plan["facts"],
            tuple(tuple(tuple(size) for size in sizes) for sizes in plan["sizes"]),
            file.bytes(plan["plan"]),
        )
        for plan in part["plans"]
    ]
