"""A `HybridBlock` becomes a symbol, as MXNet's own ``hybridize`` makes one."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import Block, HybridBlock, SymbolBlock
from mxnet.gluon.block import _flatten, _regroup
from mxnet.gluon.parameter import DeferredInitializationError, Parameter
from mxnet.symbol.numpy import _Symbol

from ..errors import BadModel, BadParams, ShapeNeeded, mxnet_sentence
from ..options import Options, Size


@dataclass(frozen=True)
class Sample:
    """What an example says of an input: not its sizes, which may change from call to call.

    Attributes
    ----------
    ndim : int, optional
        Number of axes.
    dtype : str, optional
        NumPy's name of the element type.
    is_numpy : bool
        Whether it is an ``mx.np.ndarray``.
    """

    ndim: int | None = None
    dtype: str | None = None
    is_numpy: bool = False

    @classmethod
    def of(cls, array: Any) -> Sample:
        """Return what an array, or a symbol with a shape, says."""
        if isinstance(array, mx.sym.Symbol):
            shape = array.attr("__shape__")
            ndim = len(shape.strip("()[]").rstrip(",").split(",")) if shape else None
            return cls(ndim, None, isinstance(array, _Symbol))
        return cls(array.ndim, np.dtype(array.dtype).name, isinstance(array, mx.np.ndarray))

    def cast(self, dtype: str) -> Sample:
        """Return the sample with another floating-point type, as ``Block.cast`` changes arrays."""
        floating = self.dtype is not None and np.dtype(self.dtype).kind == "f"
        return replace(self, dtype=dtype) if floating else self


@dataclass(frozen=True)
class Trace:
    """A block as a symbol.

    Attributes
    ----------
    symbol : mxnet.sym.Symbol
        All outputs, in one list.
    inputs : sequence of mxnet.sym.Symbol
        The variables for the arguments of a call that are not None.
    samples : mapping of str to Sample
        What is known of these variables, by name.
    in_format, out_format : object
        How MXNet describes nested arguments and outputs.
    params : mapping of str to mxnet.gluon.Parameter
        What the symbol reads beside its inputs.
    """

    symbol: mx.sym.Symbol
    inputs: Sequence[mx.sym.Symbol]
    samples: Mapping[str, Sample]
    in_format: Any
    out_format: Any
    params: Mapping[str, Parameter] = field(repr=False)

    def inform(self, options: Options) -> Options:
        """Return the options with what the samples say."""
        return with_samples(options, self.samples, self.symbol.list_inputs())

    def arrays(self) -> dict[str, mx.nd.NDArray]:
        """Return the values of the parameters."""
        return {name: param.list_data()[0] for name, param in self.params.items()}


def trace(net: HybridBlock, args: Sequence[Any]) -> Trace:
    """Return the symbol of a block for arguments like `args`.

    Parameters
    ----------
    net : mxnet.gluon.HybridBlock
        Its parameters are initialised; where that was deferred, it is done now.
    args : sequence
        What the block is called with: arrays, nested lists of arrays, and None.

    Raises
    ------
    BadModel
        The block cannot be traced.
    BadParams
        A parameter has not been initialised.
    ShapeNeeded
        There are no arrays among `args`.
    """
    _check(net, args)
    flat, in_format = _flatten(args, "input")
    samples = [Sample.of(array) for array in flat if array is not None]
    with _untouched(net):
        if isinstance(net, SymbolBlock):
            (inputs, symbol), in_format = original_graph(net), net._in_format
            out_format = net._out_format
        else:
            inputs = _variables(samples)
            symbol, out_format = _symbol(net, flat, in_format, inputs)
    reads = set(symbol.list_inputs())
    named = {variable.name: sample for variable, sample in zip(inputs, samples)}
    params = {name: p for name, p in net.collect_params().items() if name in reads}
    _initialize(net, params.values(), args)
    return Trace(symbol, inputs, named, in_format, out_format, params)


def original_graph(net: HybridBlock) -> Any:
    """Return the graph that MXNet keeps of a block, as it was before mxtrt optimised it."""
    hybridized = vars(net).get("_mxtrt")
    if hybridized is not None and net._cached_graph is hybridized.optimized_graph:
        return hybridized.graph
    return net._cached_graph


def with_samples(options: Options, samples: Mapping[str, Sample], reads: Iterable[str]) -> Options:
    """Return the options with what `samples` say of the inputs that the model reads.

    What the caller's options say goes before; sizes stay open.
    """
    known = {name: sample for name, sample in samples.items() if name in set(reads)}
    shapes: dict[str, tuple[Size, ...]] = {
        name: (None,) * sample.ndim for name, sample in known.items() if sample.ndim is not None
    }
    dtypes = {name: sample.dtype for name, sample in known.items() if sample.dtype is not None}
    return replace(
        options, shapes={**shapes, **options.shapes}, dtypes={**dtypes, **options.dtypes}
    )


def _check(net: Any, args: Sequence[Any]) -> None:
    if not isinstance(net, HybridBlock):
        name = type(net).__name__
        advice = "optimise the HybridBlocks inside it" if isinstance(net, Block) else "pass a net"
        raise BadModel(f"a {name} is no HybridBlock, so MXNet cannot trace it; {advice}")
    try:
        flat, _ = _flatten(args, "input")
    except ValueError as error:
        raise BadModel(f"the arguments of the block: {error}") from None
    if all(array is None for array in flat):
        raise ShapeNeeded(
            "a block is traced with arrays like those of its calls; pass one after the block, as "
            "in mxtrt.optimize(net, x)"
        )


def _variables(samples: Sequence[Sample]) -> list[mx.sym.Symbol]:
    """Return variables with the names that MXNet gives to a block's inputs."""
    names = [f"data{i}" for i in range(len(samples))] if len(samples) > 1 else ["data"]
    variables = map(mx.sym.var, names)
    return [v.as_np_ndarray() if s.is_numpy else v for v, s in zip(variables, samples)]


def _symbol(
    net: HybridBlock, flat: Sequence[Any], in_format: Any, inputs: Sequence[mx.sym.Symbol]
) -> tuple[mx.sym.Symbol, Any]:
    rest = iter(inputs)
    args = _regroup([None if array is None else next(rest) for array in flat], in_format)
    try:
        outputs, out_format = _flatten(net(*args), "output")
        return _group(outputs), out_format
    except (mx.MXNetError, TypeError, ValueError, AttributeError, NotImplementedError) as error:
        raise BadModel(
            f"{type(net).__name__} {net.name!r} cannot be traced, nor hybridized: "
            f"{mxnet_sentence(error)}"
        ) from error


def _group(outputs: Sequence[mx.sym.Symbol]) -> mx.sym.Symbol:
    group = mx.sym.Group(outputs)
    return group.as_np_ndarray() if isinstance(outputs[0], _Symbol) else group


@contextmanager
def _untouched(net: HybridBlock) -> Iterator[None]:
    """Keep a block's own hooks out of the trace: they are for arrays."""
    hooks = net._forward_hooks, net._forward_pre_hooks
    net._forward_hooks, net._forward_pre_hooks = type(hooks[0])(), type(hooks[1])()
    try:
        yield
    finally:
        net._forward_hooks, net._forward_pre_hooks = hooks


def _initialize(net: HybridBlock, params: Iterable[Parameter], args: Sequence[Any]) -> None:
    """Finish what ``net.initialize()`` has put off until the first call."""
    params = list(params)
    try:
        try:
            for param in params:
                param.list_data()
        except DeferredInitializationError:
            _infer_shapes(net, args)
            for param in params:
                param._finish_deferred_init()
    except (RuntimeError, AssertionError) as error:
        said = str(error).split(". Note", maxsplit=1)[0].rstrip(".")
        raise BadParams(f"{said}; call net.initialize() or net.load_parameters() first") from None


def _infer_shapes(net: HybridBlock, args: Sequence[Any]) -> None:
    kept = net._cached_graph, net._in_format, net._out_format
    if not isinstance(net, SymbolBlock):
        net._cached_graph = ()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net._deferred_infer_shape(*args)
    except ValueError as error:
        raise BadModel(f"{type(net).__name__} {net.name!r}: {mxnet_sentence(error)}") from None
    finally:
        net._cached_graph, net._in_format, net._out_format = kept
