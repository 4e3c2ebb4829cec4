"""What `mxtrt.optimize` returns for a `HybridBlock`."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import Block, HybridBlock
from mxnet.gluon.block import _flatten, _gather_type_ctx_info, _regroup
from mxnet.gluon.parameter import Parameter

from ..errors import BadOption, BadParams
from ..forks import calls
from ..operator import engines
from ..options import Options
from .backend import composed, refuse_training
from .engines import BlockEngines
from .trace import Trace, trace


def optimize_block(net: Any, args: Sequence[Any], options: Options) -> OptimizedBlock:
    """Return the block with its parts moved into engines.

    Parameters
    ----------
    net : mxnet.gluon.HybridBlock
        Its parameters are initialised, at least as far as MXNet can infer their shapes.
    args : sequence
        What it is called with: arrays, nested lists of arrays, and None. Only the structure, the
        types and the numbers of axes are used.
    options : Options
        As for `mxtrt.optimize`.

    Returns
    -------
    OptimizedBlock
        It is an instance of the class of `net`, too: MXNet lets an attribute of a block be replaced
        by nothing else.

    Raises
    ------
    UserError
        The block cannot be traced, or as `mxtrt.optimize` does.
    """
    traced = trace(net, args)
    kind = type(net)
    bases = (kind,) if issubclass(kind, OptimizedBlock) else (OptimizedBlock, kind)
    optimized = type(f"Optimized{kind.__name__}", bases, {"__doc__": OptimizedBlock.__doc__})
    return optimized(net, traced, options)  # type: ignore[no-any-return]


class OptimizedBlock(HybridBlock):  # type: ignore[misc]
    """A block whose parts run in engines, called as the original is.

    It has the original's outputs for the same arguments, of any sizes that the original takes. Its
    own parameters (``collect_params``) are those that stay in MXNet; they are the original's own.
    The others live in engines, and in the original block, which it keeps: when they change there,
    by whatever way, the next call builds the engines anew. `free_weights` drops the original.

    Parameters
    ----------
    net : mxnet.gluon.HybridBlock
        The original.
    traced : Trace
        Its graph.
    options : Options
        As for `mxtrt.optimize`.
    """

    _cached_graph: Any

    # The class of the original stands behind this one; its methods are for the original's own state

    def __init__(self, net: HybridBlock, traced: Trace, options: Options) -> None:
        HybridBlock.__init__(self, prefix="")
        self._prefix = net.prefix
        self._name_of_original = f"{type(net).__name__} {net.name}"
        self._original: _Original | None = _Original(net, traced)
        self._options, self._lock = options, threading.RLock()
        self._in_format, self._out_format = traced.in_format, traced.out_format
        self._engines = _build(traced, options)
        self._adopt(traced)

    # -- calls ---------------------------------------------------------------------------------

    def __call__(self, *args: Any) -> Any:
        """Call the block as the original."""
        return Block.__call__(self, *args)

    def __bool__(self) -> bool:
        """Return True: the class of the original may count children, and there are none."""
        return True

    def forward(self, x: Any, *args: Any) -> Any:
        """Run the block on arrays, or put it into the graph of symbols."""
        if isinstance(x, mx.nd.NDArray):
            context = x.ctx
        else:
            has_symbol, has_array, _, context = _gather_type_ctx_info([x, *args])
            if has_symbol and not has_array:
                return self._compose(x, *args)
        refuse_training()
        self._refresh()
        # the lock is for MXNet, which infers shapes without one; a call only queues the work
        with calls, self._lock, context or mx.current_context():
            return self._call_cached_op(x, *args)

    def hybrid_forward(self, F: Any, x: Any, *args: Any, **params: Any) -> Any:
        """Not used: `forward` does it all."""
        raise NotImplementedError

    def _compose(self, *args: Any) -> Any:
        """Return the outputs as symbols; MXNet runs such a graph without asking this block."""
        self._refresh()
        self._engines.guard()
        composed(self._refresh)
        given, _ = _flatten(args, "input")
        inputs, symbol = self._cached_graph
        named = zip((v.name for v in inputs), (s for s in given if s is not None))
        outputs = copy.copy(symbol)
        outputs._compose(**dict(named))
        return _regroup(list(outputs), self._out_format)

    def _build_cache(self, *args: Any) -> None:
        inputs, symbol = self._cached_graph
        places = {variable.name: i for i, variable in enumerate(inputs)}
        read = [(n in places, places.get(n, self._reg_params.get(n))) for n in symbol.list_inputs()]
        indices: dict[bool, list[int]] = {True: [], False: []}
        for index, (is_input, _) in enumerate(read):
            indices[is_input].append(index)
        flags = [("data_indices", indices[True]), ("param_indices", indices[False])]
        self._cached_op_args = read
        self._cached_op = mx.nd.CachedOp(symbol, flags + self._flags)

    def _clear_cached_op(self) -> None:
        graph = self._cached_graph  # there is no other one to make it from
        HybridBlock._clear_cached_op(self)
        self._cached_graph = graph

    def hybridize(self, active: bool = True, backend: str | None = None, **flags: Any) -> None:
        """Set ``static_alloc``, ``static_shape`` and the like, as for every block."""
        if backend is not None:
            raise BadOption(f"backend={backend!r}: the block is optimised; leave backend out")
        HybridBlock.hybridize(self, active, **flags)

    def __repr__(self) -> str:
        """Return the original and how much of it runs in engines."""
        count = len(engines(self._cached_graph[1]))
        parts = f"{count} part{'' if count == 1 else 's'} in engines"
        return f"OptimizedBlock({self._name_of_original}, {parts})"

    def apply(self, fn: Any) -> Any:
        """Call `fn` with this block, as one of no other class: `summary` leaves out Sequentials."""
        plain = OptimizedBlock.__new__(OptimizedBlock)
        plain.__dict__.update(self.__dict__)
        fn(plain)
        return self

    # -- weights -------------------------------------------------------------------------------

    def refit(self) -> None:
        """Build the engines anew with the weights that the original block has now.

        A call does the same when it finds that they have changed.

        Raises
        ------
        BadParams
            `free_weights` has dropped them.
        """
        with self._lock:
            self._refit("refit() was called")

    def free_weights(self) -> None:
        """Drop the original block, whose weights the engines hold.

        Memory comes back once nobody else has the original. From then on its weights are no more
        looked at, and what needs them raises `BadParams`: `refit`, `load_parameters`, `cast`.
        """
        with self._lock:
            self._original = None
            self._engines.forget()

    def load_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Load a parameter file of the original block, and build the engines anew."""
        with self._lock:
            self._source("load_parameters").net.load_parameters(*args, **kwargs)
            self._refresh()

    def cast(self, dtype: Any) -> None:
        """Cast the original block, and build the engines anew.

        Inputs of a floating-point type have the new type from then on.
        """
        with self._lock:
            original = self._source("cast")
            original.net.cast(dtype)
            original.cast(np.dtype(dtype).name)
            self._engines = _build(original.traced, self._options)
            self._adopt(original.traced)

    def reset_ctx(self, ctx: Any) -> None:
        """Move the parameters that stay in MXNet to other devices; engines follow their inputs."""
        for param in self.collect_params().values():
            param.reset_ctx(ctx)

    def export(self, path: str, epoch: int = 0, remove_amp_cast: bool = True) -> None:
        """Write ``path-symbol.json`` and ``path-0000.params``, for this process.

        The engines are not in the files: `mxtrt.save` writes what another process can read.
        """
        self._refresh()
        if self._cached_op is None:
            self._build_cache()
        HybridBlock.export(self, path, epoch, remove_amp_cast)

    def _collect_params_with_prefix(self, prefix: str = "") -> Mapping[str, Parameter]:
        """Return what parameter files hold: the original's, so that files fit both blocks."""
        if self._original is None:
            return HybridBlock._collect_params_with_prefix(self, prefix)  # type: ignore[no-any-return]
        return self._original.net._collect_params_with_prefix(prefix)  # type: ignore[no-any-return]

    def _refresh(self) -> bool:
        """Build the engines anew if weights have changed; return whether the graph is another."""
        if self._original is None or self._engines.changed() is None:
            return False
        with calls, self._lock:
            name = self._engines.changed()
            return name is not None and self._refit(f"{name!r} changed")

    def _refit(self, reason: str) -> bool:
        original = self._source("refit")
        if self._engines.refit(reason):
            return False
        self._adopt(original.traced)
        return True

    def _source(self, purpose: str) -> _Original:
        if self._original is None:
            raise BadParams(
                f"{purpose} needs the weights, which free_weights() has dropped; optimise the "
                "original block again"
            )
        return self._original

    def _adopt(self, traced: Trace) -> None:
        """Take the engines' symbol for this block's."""
        self._reg_params = {name: traced.params[name] for name in self._engines.kept}
        self._params = mx.gluon.ParameterDict(self._prefix)
        self._params.update(self._reg_params)
        self._clear_cached_op()
        self._cached_graph = traced.inputs, self._engines.optimized


class _Original:
    """The original block, in an object because blocks look for blocks among their attributes."""

    def __init__(self, net: HybridBlock, traced: Trace) -> None:
        self.net, self.traced = net, traced

    def cast(self, dtype: str) -> None:
        samples = {name: sample.cast(dtype) for name, sample in self.traced.samples.items()}
        self.traced = replace(self.traced, samples=samples)


def _build(traced: Trace, options: Options) -> BlockEngines:
    return BlockEngines(traced.symbol, traced.params, traced.inform(options))
