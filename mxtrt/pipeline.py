r"""The whole of mxtrt as one table of steps.

====  ================  =============================================  ===========================
step  function          in → out                                       where
====  ================  =============================================  ===========================
1     `read_symbol`     ``Symbol`` + params + shapes → `Graph`         ``symbol.py``
2     `partition`       `Graph` → `Subgraph`\ s + reasons              ``partition.py``
3     `export_onnx`     `Subgraph` → ``onnx.ModelProto``               ``onnx_model.py``
4     `build`           ``ModelProto`` → `Engine`                      ``engines/``, ``store.py``
5     `write_symbol`    `Graph` + engines → ``Symbol``                 ``symbol_writer.py``
====  ================  =============================================  ===========================
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Union

import mxnet as mx
import onnx

from .arrays import return_freed_memory
from .engines import AsksWhole, Builder, builder, prepare
from .errors import EngineError
from .graph import Node
from .labels import accept_missing_labels
from .onnx_model import OnnxModel, export_onnx
from .operator import EngineOperator, Onnx, register
from .options import Options, read_options
from .params import ParamsLike, read_params
from .partition import Partition, Subgraph, partition
from .reports import Report
from .symbol import load_symbol, read_symbol
from .symbol_writer import write_symbol
from .weight_sources import Keep, in_memory, in_params_file, in_temporary_file

log = logging.getLogger("mxtrt")

ModelLike = Union[mx.sym.Symbol, str, "os.PathLike[str]"]


def optimize(
    model: ModelLike,
    params: ParamsLike = None,
    *inputs: Any,
    shapes: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
    dtypes: Mapping[str, Any] | None = None,
    engine: str = "auto",
    min_subgraph_size: int = 2,
    exclude_ops: Iterable[str] = (),
    exclude_nodes: Iterable[str] = (),
    strict: bool = False,
    allow_extra_params: bool = False,
    session_options: Mapping[str, Any] | None = None,
    precision: str = "fp32",
    tf32: bool = True,
    workspace: int | None = None,
    optimization_level: int | None = None,
    timing_cache: str | os.PathLike[str] | None = None,
    cuda_graph: bool | None = None,
    contexts: int = 4,
    device: int = 0,
    background: bool = False,
    sparse_weights: bool = False,
    tactic_sources: Iterable[str] | None = None,
    dla_core: int | None = None,
    refit: bool = False,
    version_compatible: bool = False,
    hardware_compatible: bool = False,
    progress: bool = True,
    cache_dir: str | os.PathLike[str] | bool | None = True,
    cache_size: int | str | None = None,
) -> Any:
    """Move every part of a model that an engine can run into engines.

    Parameters
    ----------
    model : mxnet.sym.Symbol, path or mxnet.gluon.HybridBlock
        The model, the path of its ``-symbol.json``, or a block.
    params : dict, pair or path
        The parameters: a dict with or without ``arg:``/``aux:`` prefixes, a pair
        ``(arg_params, aux_params)``, or the path of a ``.params`` file. With a block, which has its
        own parameters, this and `inputs` are an example of what it is called with: arrays, nested
        lists of arrays, None. Their sizes do not matter.
    shapes : mapping of str to tuple, optional
        Sizes of the inputs as far as they are fixed: numbers, None for an unknown size, or
        ``(smallest, best, largest)``. Without it, what the parameters imply is used and the
        rest may change from call to call.
    dtypes : mapping of str to dtype, optional
        Element types of the inputs; by default what the parameters imply, else float32.
    engine : {"auto", "onnxruntime", "tensorrt", "tensorrt_rtx"}
        What runs the parts; by default TensorRT where it and a GPU that it supports are there,
        else ONNX Runtime. Where TensorRT fails, ONNX Runtime runs the part, with a warning.
    min_subgraph_size : int
        Parts with fewer operators stay in MXNet.
    exclude_ops, exclude_nodes : iterable of str
        Operators, and names of nodes, that stay in MXNet.
    strict : bool
        Raise where mxtrt would otherwise warn and leave a part in MXNet or in ONNX Runtime.
    allow_extra_params : bool
        Hand parameters through that the model does not read, instead of raising.
    session_options : mapping of str to object, optional
        Settings of ONNX Runtime's ``SessionOptions``; keys with a dot are config entries.
    precision : {"fp32", "fp16", "bf16"}
        What TensorRT computes in. Inputs and outputs keep their types, and operators whose
        results may be too large for float16 stay in float32.
    tf32 : bool
        Let TensorRT round the factors of float32 products to 11 bits, as its default is.
    workspace : int, optional
        Bytes of GPU memory that TensorRT may use while it runs a layer; by default all.
    optimization_level : int, optional
        How long TensorRT's builder may search, 0 to 5; needs TensorRT 8.6.
    timing_cache : path, optional
        A file with what earlier builds timed, which makes later ones faster; by default it is
        kept in the store.
    cuda_graph : bool, optional
        Replay a CUDA graph where all sizes are fixed; by default where it measures faster.
    contexts : int
        How many calls may run at once in one TensorRT engine, each with memory of its own.
    device : int
        The GPU that arrays on the CPU are sent to.
    background : bool
        Let ONNX Runtime serve calls with sizes that no engine is built for yet, while TensorRT
        builds in another thread. Calls with arrays on the GPU wait for the build, and so do all
        with ``strict=True``, under which ONNX Runtime runs nothing.
    sparse_weights : bool
        Let TensorRT use that two in each four weights are 0, where they are.
    tactic_sources : iterable of str, optional
        The only libraries that kernels may be of, such as ``["CUDNN", "JIT_CONVOLUTIONS"]``; by
        default TensorRT's own choice.
    dla_core : int, optional
        The deep learning accelerator, as in NVIDIA's Jetson, that runs what it can; the GPU runs
        the rest. Needs ``precision="fp16"``.
    refit : bool
        Build plans that can get other weights: then a net of which only the weights have changed
        takes its plan from the store and needs no build. A little slower in use; needs TensorRT 10.
    version_compatible : bool
        Build plans that newer versions of TensorRT load; needs TensorRT 8.6.
    hardware_compatible : bool
        Build plans that other GPUs of Ampere and newer run; needs TensorRT 8.6.
    progress : bool
        Show on a terminal, after two seconds, that a build goes on; ``MXTRT_PROGRESS=0`` turns it
        off as well.
    cache_dir : path or bool, optional
        The folder in which TensorRT's plans are kept for the next process; by default what
        ``MXTRT_CACHE_DIR`` says, else the user's folder for caches. None or False keeps nothing.
    cache_size : int or str, optional
        Bytes that the folder may hold, or a size such as ``"20 GiB"``; what was used least
        recently goes first. By default what ``MXTRT_CACHE_SIZE`` says, else 10 GiB.

    Returns
    -------
    symbol : mxnet.sym.Symbol
        The same inputs (without labels that inference does not read) and the same outputs.
    params : object
        In the form that came in, without what the engines hold.
    block : mxtrt.gluon.block.OptimizedBlock
        In place of both, for a block: it is called as the original is.

    Raises
    ------
    UserError
        The model, the parameters or an option cannot be used; nothing was changed.

    Examples
    --------
    >>> sym, args, aux = mx.model.load_checkpoint("net", 0)  # doctest: +SKIP
    >>> sym, (args, aux) = mxtrt.optimize(sym, (args, aux))  # doctest: +SKIP
    """
    options = read_options(
        shapes,
        dtypes,
        engine=engine,
        min_subgraph_size=min_subgraph_size,
        exclude_ops=exclude_ops,
        exclude_nodes=exclude_nodes,
        strict=strict,
        allow_extra_params=allow_extra_params,
        session_options=session_options,
        precision=precision,
        tf32=tf32,
        workspace=workspace,
        optimization_level=optimization_level,
        timing_cache=timing_cache,
        cuda_graph=cuda_graph,
        contexts=contexts,
        device=device,
        background=background,
        sparse_weights=sparse_weights,
        tactic_sources=tactic_sources,
        dla_core=dla_core,
        refit=refit,
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        progress=progress,
        cache_dir=cache_dir,
        cache_size=cache_size,
    )
    if isinstance(model, mx.gluon.Block):
        from .gluon.block import optimize_block

        return optimize_block(model, (params, *inputs), options)
    if inputs:
        raise TypeError(
            "optimize takes a symbol and its params, or a block and what it is called with"
        )
    return optimize_symbol(model, params, options)


def optimize_symbol(
    model: ModelLike, params: ParamsLike, options: Options, keep: Keep | None = None
) -> tuple[mx.sym.Symbol, Any]:
    """Do what `optimize` does for a symbol, with options that have been checked.

    `keep` says where `mxtrt.save` finds the weights; by default in the file that they come from,
    else in a temporary one.
    """
    accept_missing_labels()
    prepare(options)
    symbol, given = load_symbol(model), read_params(params)
    build = builder(options)
    graph = read_symbol(symbol, given.arrays, options)
    converter = _Converter(build, options)
    plan = partition(graph, options, build.refuses, converter.refused_in)
    if keep is None:
        keep = in_params_file(params) if isinstance(params, (str, os.PathLike)) else None
    plan, engines = _build_engines(plan, build, converter, options, keep or in_temporary_file())
    report = Report(graph, plan, options, build.kind)
    optimized = write_symbol(graph, register(engines, report))
    graph.arrays.clear()
    moved, parts = len(graph.nodes) - len(plan.left), len(plan.parts)
    kinds = " and ".join({part.engine.kind: None for part in engines.values()}) or build.kind
    log.info("%d of %d operators in %d parts (%s)", moved, len(graph.nodes), parts, kinds)
    kept = {*optimized.list_arguments(), *optimized.list_auxiliary_states()}
    if options.allow_extra_params:
        kept |= given.names - {value.name for value in graph.variables}
    left_for_mxnet = given.keep(kept)
    del given  # with the last reference to weights that were read from a file
    return_freed_memory()
    return optimized, left_for_mxnet


def explain(model: ModelLike, params: ParamsLike = None, *inputs: Any, **options: Any) -> Report:
    """Say what `optimize` would do with the same arguments, without building an engine.

    Returns
    -------
    Report
        What moves, what stays, and why.

    Raises
    ------
    UserError
        As `optimize` does.
    """
    checked = read_options(**options)
    if isinstance(model, mx.gluon.Block):
        from .gluon.trace import trace

        traced = trace(model, (params, *inputs))
        model, params, checked = traced.symbol, traced.arrays(), traced.inform(checked)
    build = builder(checked)
    graph = read_symbol(load_symbol(model), read_params(params).arrays, checked)
    plan = partition(graph, checked, build.refuses, _Converter(build, checked).refused_in)
    report = Report(graph, plan, checked, build.kind)
    graph.arrays.clear()
    return report


class _Converter:
    """Converts each part once: for the engine's answer to the whole of it, and for its build."""

    def __init__(self, build: Builder, options: Options) -> None:
        self._build, self._options = build, options
        self._made: dict[tuple[str, tuple[Node, ...]], tuple[onnx.ModelProto, OnnxModel]] = {}
        self._answers: dict[tuple[str, tuple[Node, ...]], dict[Node, str]] = {}

    def refused_in(self, part: Subgraph) -> dict[Node, str]:
        """Return the nodes that the engine refuses where they stand in a part, with its reasons."""
        if not isinstance(self._build, AsksWhole):
            return {}
        key = part.name, part.nodes
        if key not in self._answers:
            proto, model = self._made[key] = export_onnx(part)
            said = self._build.refused_nodes(proto, model.weights, self._options)
            found = [(model.source(name), reason) for name, reason in said.items()]
            self._answers[key] = {node: reason for node, reason in found if node is not None}
            for node, reason in self._answers[key].items():
                log.info("%s stays in MXNet: %s", node, reason)
        return self._answers[key]

    def take(self, part: Subgraph) -> tuple[onnx.ModelProto, OnnxModel]:
        """Return a part as ONNX, and forget it."""
        return self._made.pop((part.name, part.nodes), None) or export_onnx(part)


def _build_engines(
    plan: Partition, build: Builder, converter: _Converter, options: Options, keep: Keep
) -> tuple[Partition, dict[Subgraph, EngineOperator]]:
    """Build the engine of each part; a part whose engine cannot be built goes back to MXNet."""
    engines: dict[Subgraph, EngineOperator] = {}
    for part in plan.parts:
        try:
            proto, model = converter.take(part)
            written = proto.SerializeToString()
            engine = build.build(proto, model.weights, options)
            # TensorRT's engines have the weights with them, for other sizes and other GPUs
            source = (keep if build.kind == "onnxruntime" else in_memory)(
                model.weights, _parameter_names(part, model)
            )
            engines[part] = EngineOperator(part, engine, Onnx(written, source))
        except EngineError as error:
            if options.strict:
                raise
            count = len(part.nodes)
            warnings.warn(f"{part.name} ({count} operators) stays in MXNet: {error}", stacklevel=3)
            plan = plan.without(part, str(error))
    return plan, engines


def _parameter_names(part: Subgraph, model: OnnxModel) -> dict[str, str]:
    """Return the parameter behind each weight of an ONNX model, whose arrays are MXNet's own."""
    names = {id(value.array): value.name for value in part.params}
    return {name: names[id(array)] for name, array in model.weights.items()}
