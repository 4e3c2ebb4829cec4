"""The engines of one block: built from its parameters, and built anew when these change."""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import mxnet as mx
import numpy as np
from mxnet.base import _LIB
from mxnet.gluon.parameter import Parameter

from .. import _bridge
from ..arrays import numpy_view
from ..errors import MxtrtError, WeightsChanged
from ..operator import guard, parameters, replace_engines
from ..pipeline import optimize_symbol
from ..weight_sources import in_block

if TYPE_CHECKING:
    from ..options import Options

log = logging.getLogger("mxtrt")


class Weights:
    """Notices whether parameters have changed, by whatever way.

    Parameters
    ----------
    params : iterable of mxnet.gluon.Parameter
        Initialised parameters. Writes in progress finish first.
    """

    def __init__(self, params: Iterable[Parameter]) -> None:
        _count_writes()
        self._params = list(params)
        views = [_view(param.list_data()[0]) for param in self._params]
        self._writes, self._has_changed = _bridge.Writes(self._params), False
        self._digests = [_digest(view) for view in views]

    def changed(self) -> str | None:
        """Return the name of a parameter that has other values since, or None."""
        if not self.is_touched():
            return None
        # MXNet also writes to weights without changing them: oneDNN puts them into another layout
        writes = _bridge.Writes(self._params)
        for param, digest in zip(self._params, self._digests):
            if _digest(param.list_data()[0].asnumpy()) != digest:
                return str(param.name)  # and to the next thread that asks, too
        self._writes, self._has_changed = writes, False
        return None

    def is_touched(self, wait: bool = True) -> bool:
        """Return whether a parameter was written to, or its arrays were replaced.

        Parameters
        ----------
        wait : bool
            Whether to wait for writes in progress; MXNet's own threads must not.
        """
        return self._has_changed or self._writes.happened(wait)

    def only(self, names: Iterable[str]) -> Weights:
        """Return the same for some of the parameters; what has changed so far counts."""
        wanted = set(names)
        kept = [i for i, param in enumerate(self._params) if param.name in wanted]
        chosen = Weights.__new__(Weights)
        chosen._params = [self._params[i] for i in kept]
        chosen._digests = [self._digests[i] for i in kept]
        chosen._writes = _bridge.Writes(chosen._params)
        chosen._has_changed = self.is_touched()
        return chosen


def _view(array: mx.nd.NDArray) -> np.ndarray[Any, Any]:
    """Return an array's values, on the CPU its own memory, out of oneDNN's own layout."""
    on_cpu = array.ctx.device_type.startswith("cpu")
    return numpy_view(array) if on_cpu else array.asnumpy()


def _digest(values: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    """Return what is something else when an array has other values."""
    contiguous = np.ascontiguousarray(values)
    return values.shape, values.dtype.str, _bridge.checksum(contiguous.ctypes.data, values.nbytes)


@cache
def _count_writes() -> None:
    """Say how arrays lie in memory, and see whether it is so."""
    wait = ctypes.cast(_LIB.MXNDArrayWaitToRead, ctypes.c_void_p).value or 0
    _bridge.count_writes_with(wait, mx.runtime.Features().is_enabled("MKLDNN"))
    params = [Parameter(name, shape=(2,)) for name in ("written", "other")]
    for param in params:
        param.initialize()
    written, other = (_bridge.Writes([param]) for param in params)
    params[0].data()[:1] = 1
    if not written.happened() or other.happened():
        raise MxtrtError(
            "this build of MXNet does not count writes to arrays as MXNet 1.9.1 does, so mxtrt "
            "cannot notice new weights; optimise the exported symbol instead of the block"
        )


class BlockEngines:
    """A block's symbol with its parts moved into engines, and the weights that these hold.

    Parameters
    ----------
    symbol : mxnet.sym.Symbol
        The whole block.
    params : mapping of str to mxnet.gluon.Parameter
        The block's parameters, initialised, by name.
    options : Options
        What the caller asked for.

    Attributes
    ----------
    optimized : mxnet.sym.Symbol
        The symbol with engines.
    kept : list of str
        Names of parameters that stay in MXNet.
    """

    def __init__(
        self, symbol: mx.sym.Symbol, params: Mapping[str, Parameter], options: Options
    ) -> None:
        self._symbol, self._params, self._options = symbol, params, options
        self._is_guarded = False
        self._refits = 0
        self._build()

    def _build(self) -> None:
        before = Weights(self._params.values())
        arrays = {name: param.list_data()[0] for name, param in self._params.items()}
        optimized, kept = optimize_symbol(
            self._symbol, arrays, self._options, in_block(self._params)
        )
        self.optimized = as_kind_of(self._symbol, optimized)
        self.kept = list(kept)
        self._weights = before.only(parameters(optimized))
        if self._is_guarded:
            self.guard()

    def changed(self) -> str | None:
        """Return the name of a parameter that engines hold and that has changed, or None."""
        return self._weights.changed()

    def forget(self) -> None:
        """Let go of the weights that the engines hold; changes are no more looked for."""
        self._params = {name: self._params[name] for name in self.kept}
        self._weights = Weights(())

    def refit(self, reason: str = "asked to") -> bool:
        """Build the engines anew, with the parameters as they are now.

        Returns
        -------
        bool
            Whether the symbol stays as it was and its nodes run the new engines; if not,
            ``optimized`` is another symbol.

        Raises
        ------
        UserError
            As `mxtrt.optimize` does; the old engines stay.
        """
        start = time.perf_counter()
        before = self.optimized
        self._build()
        stays = replace_engines(before, self.optimized)
        if stays:
            self.optimized = before
        self._refits += 1
        level = logging.INFO if self._refits < MANY_REFITS else logging.WARNING
        seconds = time.perf_counter() - start
        log.log(level, "engines built anew in %.2f s (%s), time %d", seconds, reason, self._refits)
        return stays

    def guard(self) -> None:
        """Let the engines themselves refuse to run with weights that have changed.

        It is for graphs that MXNet runs without asking the block. Writes in progress are missed.
        """
        self._is_guarded = True
        weights = self._weights

        def check() -> None:
            if weights.is_touched(wait=False):
                raise WeightsChanged(
                    "parameters were written to since mxtrt built an engine with them, and the "
                    "graph runs without the optimised block, which could build it anew: call its "
                    "refit()"
                )

        guard(self.optimized, check)


MANY_REFITS = 5  # from then on the log warns: a program that changes weights all the time


def as_kind_of(like: mx.sym.Symbol, symbol: mx.sym.Symbol) -> mx.sym.Symbol:
    """Return a symbol as one for ``mx.np`` arrays, if `like` is one."""
    is_numpy = isinstance(like, mx.sym.numpy._Symbol)
    return symbol.as_np_ndarray() if is_numpy else symbol
