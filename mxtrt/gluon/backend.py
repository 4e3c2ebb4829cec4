"""The backend ``"mxtrt"`` of MXNet's own methods.

    net.hybridize(backend="mxtrt", **options)
    net.optimize_for(x, backend="mxtrt", **options)
    symbol.optimize_for("mxtrt", args, aux, ctx, **options)

All three end in ``MXOptimizeForBackend``, which runs the graph pass of ``csrc/backend.cc``, and
that calls `_plan` here. MXNet hands a pass strings for options and raw memory for arrays, and does
not say which arrays are inputs; so what the caller has in Python waits for `_plan` in `_request`.
The methods that MXNet has are wrapped, for this backend alone: they check options when these are
passed, raise mxtrt's own errors, and look before each call whether weights have changed.
"""

from __future__ import annotations

import ast
import ctypes
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any

import mxnet as mx
from mxnet.base import _LIB, SymbolHandle, c_str, c_str_array, check_call, mx_uint
from mxnet.gluon import HybridBlock
from mxnet.gluon.block import _flatten, _gather_type_ctx_info
from mxnet.symbol import Symbol

from .. import _bridge, _library
from ..errors import InferenceOnly
from ..forks import calls

if TYPE_CHECKING:
    from mxnet.gluon.parameter import Parameter

    from .engines import BlockEngines
    from .trace import Sample

BACKEND = "mxtrt"

FLAGS = ("static_alloc", "static_shape", "inline_limit", "forward_bulk_size", "backward_bulk_size")
"""What ``hybridize`` and ``optimize_for`` take beside a backend's options."""

_building = threading.RLock()
_current = threading.local()


def connect() -> None:
    """Load the graph pass into MXNet and wrap MXNet's methods; call it once."""
    _library.load()
    _bridge.set_planner(_plan)
    for owner, name, wrapper in (
        (Symbol, "optimize_for", _symbol_optimize_for),
        (HybridBlock, "hybridize", _hybridize),
        (HybridBlock, "optimize_for", _block_optimize_for),
        (HybridBlock, "export", _export),
        (HybridBlock, "_get_graph", _get_graph),
        (HybridBlock, "_build_cache", _build_cache),
        (HybridBlock, "_call_cached_op", _call_cached_op),
    ):
        setattr(owner, name, _wrapped(getattr(owner, name), wrapper))


def _wrapped(method: Callable[..., Any], wrapper: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return wrapper(method, self, *args, **kwargs)

    return call


# -- symbols -------------------------------------------------------------------------------------


@dataclass
class _Request:
    """What a caller asks of the graph pass, and what came of it."""

    symbol: Symbol
    options: Mapping[str, Any]
    arrays: Mapping[str, Any] = field(default_factory=dict)
    shapes: Mapping[str, Any] = field(default_factory=dict)
    dtypes: Mapping[str, Any] = field(default_factory=dict)
    samples: Mapping[str, Sample] = field(default_factory=dict)
    block_params: Mapping[str, Parameter] | None = None
    block_engines: BlockEngines | None = None
    error: BaseException | None = None


def _symbol_optimize_for(
    method: Callable[..., Symbol],
    symbol: Symbol,
    backend: str,
    args: dict[str, Any] | None = None,
    aux: dict[str, Any] | None = None,
    ctx: Any = None,
    shape_dict: Mapping[str, Any] | None = None,
    type_dict: Mapping[str, Any] | None = None,
    stype_dict: Mapping[str, str] | None = None,
    skip_infer: bool = False,
    **options: Any,
) -> Symbol:
    if backend != BACKEND:
        return method(
            symbol,
            backend,
            args,
            aux,
            ctx,
            shape_dict,
            type_dict,
            stype_dict,
            skip_infer,
            **options,
        )
    from .engines import as_kind_of

    request: _Request | None = getattr(_current, "block", None)
    if request is None:
        arrays = {**(args or {}), **(aux or {})}
        request = _Request(symbol, options, arrays, shape_dict or {}, type_dict or {})
    optimized = as_kind_of(symbol, _run_pass(request, ctx or mx.current_context()))
    left = {*optimized.list_arguments(), *optimized.list_auxiliary_states()}
    for given in (args or {}, aux or {}):
        for name in set(symbol.list_inputs()) & set(given) - left:
            del given[name]
    return optimized


def _run_pass(request: _Request, ctx: Any) -> Symbol:
    """Let MXNet run the graph pass on the request's symbol.

    Without arrays: MXNet infers shapes when it has some, and reads past their end when the model
    has auxiliary states and it got none.
    """
    handle, none = SymbolHandle(), ctypes.c_void_p()
    zero, sizes = mx_uint(0), [ctypes.c_uint() for _ in range(2)]
    lists = [ctypes.c_void_p() for _ in range(4)]
    keys = list(map(str, request.options))
    values = [str(value) for value in request.options.values()]
    made = (sizes[0], lists[0], lists[1], sizes[1], lists[2], lists[3])
    _current.request = request
    try:
        check_call(
            _LIB.MXOptimizeForBackend(
                request.symbol.handle,
                c_str(BACKEND),
                ctypes.c_int(ctx.device_typeid),
                ctypes.byref(handle),
                *(zero, none, zero, none),
                *(mx_uint(len(keys)), c_str_array(keys), c_str_array(values)),
                *(zero, none, none, none, zero, none, none, zero, none, none),
                ctypes.c_bool(True),
                *map(ctypes.byref, made),
            )
        )
    except mx.MXNetError:
        if request.error is not None:
            raise request.error from None
        raise
    finally:
        _current.request = None
    return Symbol(handle)


def _plan(graph: str, texts: Mapping[str, str]) -> str:
    """Return the optimised graph; called by the graph pass, on the thread that asked for it."""
    request: _Request | None = getattr(_current, "request", None)
    if request is None:  # MXOptimizeForBackend was called by something else than Symbol
        request = _Request(mx.sym.load_json(graph), {k: _value(text) for k, text in texts.items()})
    try:
        return _optimize(request).tojson()  # type: ignore[no-any-return]
    except BaseException as error:
        request.error = error
        raise


def _optimize(request: _Request) -> Symbol:
    """Return the optimised symbol of a request.

    It takes the caller's symbol and not MXNet's graph, in which nodes that compute the same have
    become one: their outputs would lose their names.
    """
    from ..options import read_options
    from ..pipeline import optimize_symbol
    from .engines import BlockEngines
    from .symbols import parameters_of, samples_of
    from .trace import with_samples

    symbol, options = request.symbol, read_options(**request.options)
    names = symbol.list_inputs()
    if request.block_params is not None:
        options = with_samples(options, request.samples, names)
        request.block_engines = BlockEngines(symbol, request.block_params, options)
        return request.block_engines.optimized
    params = parameters_of(symbol, request.arrays, options)
    inputs = {name: array for name, array in request.arrays.items() if name not in params}
    options = with_samples(options, samples_of(inputs, request.shapes, request.dtypes), names)
    return optimize_symbol(symbol, params or None, options)[0]


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


# -- blocks --------------------------------------------------------------------------------------


@dataclass
class _Hybridized:
    """What a block that was hybridized with the backend keeps."""

    graph: Any
    optimized_graph: Any
    engines: BlockEngines
    is_exported: bool = False
    # MXNet infers shapes without a lock: of two threads that call at once, one may find none. A
    # call only queues the work, so threads wait for each other no longer than that takes.
    calling: threading.Lock = field(default_factory=threading.Lock)


def _hybridize(
    method: Callable[..., None],
    net: HybridBlock,
    active: bool = True,
    backend: str | None = None,
    *args: Any,
    **kwargs: Any,
) -> None:
    if backend == BACKEND:
        from ..options import read_options

        options = {name: value for name, value in kwargs.items() if name not in ("clear", *FLAGS)}
        read_options(**options)
        net._backend_opts = options  # MXNet keeps those of an earlier call when there are none
    _forget(
        net
    )  # also with clear=False: MXNet would go on with the engines, and not look at weights
    method(net, active, backend, *args, **kwargs)


def _block_optimize_for(
    method: Callable[..., None],
    net: HybridBlock,
    x: Any,
    *args: Any,
    backend: str | None = None,
    **kwargs: Any,
) -> None:
    if backend != BACKEND:
        method(net, x, *args, backend=backend, **kwargs)
        return
    kwargs.pop("clear", None)
    net.hybridize(True, backend, **kwargs)
    _, _, contexts, ctx = _gather_type_ctx_info([x, *args])
    if len(contexts) > 1:
        raise ValueError(f"optimize_for got arrays on several devices: {contexts}")
    with ctx or mx.current_context():
        net._build_cache(x, *args)


def _get_graph(method: Callable[..., Any], net: HybridBlock, *args: Any) -> Any:
    """Make a block's graph, and note which optimised blocks are inside: MXNet runs it without them.

    `composed` notes them.
    """
    if net._cached_graph:
        return method(net, *args)
    outer, _current.inside = getattr(_current, "inside", None), []
    try:
        return method(net, *args)
    finally:
        net._mxtrt_inside, _current.inside = _current.inside, outer


def composed(refresh: Callable[[], bool]) -> None:
    """Note that an optimised block becomes part of the graph that this thread makes.

    Parameters
    ----------
    refresh : callable
        Sees to it that the block's engines have the weights of now; it returns whether the graph
        has to be made again.
    """
    if getattr(_current, "inside", None) is not None:
        _current.inside.append(refresh)


def _refresh_inside(net: HybridBlock) -> None:
    made_anew = [refresh() for refresh in vars(net).get("_mxtrt_inside", ())]
    if any(made_anew):
        net._clear_cached_op()


def _build_cache(method: Callable[..., None], net: HybridBlock, *args: Any) -> None:
    if net._backend != BACKEND:
        _forget(net)
        method(net, *args)
        return
    from .trace import Sample

    with _building:
        _forget(net)
        flat = [array for array in _flatten(args, "input")[0] if array is not None]
        inputs, symbol = graph = net._get_graph(*args)
        net._cached_op_args = []  # MXNet would look for parameters among these
        reads = set(symbol.list_inputs())
        params = {name: p for name, p in net.collect_params().items() if name in reads}
        request = _Request(symbol, net._backend_opts, block_params=params)
        request.samples = {v.name: Sample.of(array) for v, array in zip(inputs, flat)}
        _current.block = request
        try:
            method(net, *args)
        finally:
            _current.block = None
        assert request.block_engines is not None
        net._mxtrt = _Hybridized(graph, net._cached_graph, request.block_engines)


def _call_cached_op(method: Callable[..., Any], net: HybridBlock, *args: Any) -> Any:
    _refresh_inside(net)
    if net._backend != BACKEND:
        with calls:  # a SymbolBlock may hold engines
            return method(net, *args)
    refuse_training()
    hybridized = vars(net).get("_mxtrt")
    if net._cached_op is not None and hybridized is not None:
        _refresh(net, *args)
    else:
        with _building:  # of several threads one builds
            if net._cached_op is None:
                net._build_cache(*args)
        hybridized = net._mxtrt
    with calls, hybridized.calling:
        return method(net, *args)


def refuse_training() -> None:
    """Raise where MXNet records for a gradient, or runs operators in their training mode.

    Raises
    ------
    InferenceOnly
        Engines have no gradients, and run dropout and normalisation as inference does.
    """
    if mx.autograd.is_recording() or mx.autograd.is_training():
        raise InferenceOnly(
            "an optimised block is for inference only, and this call is inside autograd.record() "
            "or train_mode(); train the original block, or call this one under autograd.pause()"
        )


def _refresh(net: HybridBlock, *args: Any) -> None:
    """Build a block's engines anew if weights that they hold have changed."""
    hybridized: _Hybridized = net._mxtrt
    if hybridized.engines.changed() is None:
        return
    with _building:
        name = hybridized.engines.changed()
        if name is not None and not hybridized.engines.refit(f"{name!r} changed"):
            net._build_cache(*args)


def _export(
    method: Callable[..., Any], net: HybridBlock, path: str, *args: Any, **kwargs: Any
) -> Any:
    for refresh in vars(net).get("_mxtrt_inside", ()):
        refresh()
    hybridized: _Hybridized | None = vars(net).get("_mxtrt")
    if hybridized is not None and net._cached_graph is hybridized.optimized_graph:
        hybridized.is_exported = True
        _refresh(net)
    return method(net, path, *args, **kwargs)


def _forget(net: HybridBlock) -> None:
    """Give a block its own graph back, and free its engines if no file names them."""
    hybridized: _Hybridized | None = vars(net).pop("_mxtrt", None)
    if hybridized is None:
        return
    if net._cached_graph is hybridized.optimized_graph:
        net._cached_op, net._cached_op_args = None, []
        net._cached_graph = hybridized.graph
    if not hybridized.is_exported:
        from ..operator import release

        mx.nd.waitall()  # for calls that MXNet has queued
        release(hybridized.engines.optimized)
