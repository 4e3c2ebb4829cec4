"""The net below TensorRT: the same ONNX in ONNX Runtime, with one warning that says why."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import onnx

from ..errors import EngineError
from . import onnxruntime

if TYPE_CHECKING:
    import mxnet as mx

    from .._bridge import Buffer
    from ..options import Options
    from . import Engine

log = logging.getLogger("mxtrt")

MAX_FAILURES = 3  # in a row: then the first engine is not tried again


class BuildError(EngineError):
    """An engine that cannot be built, neither now nor at the next call."""


class NotReady(EngineError):
    """An engine has no plan for this call, and is built, if at all, in the background.

    Attributes
    ----------
    reason : EngineError or None
        Why there will be none.
    """

    def __init__(self, reason: EngineError | None = None) -> None:
        super().__init__(str(reason or "the engine is being built"))
        self.reason = reason


class FallbackEngine:
    """An engine, and ONNX Runtime for the calls in which it fails.

    It keeps the weights for that.

    Parameters
    ----------
    engine : Engine
        What runs as long as it works.
    proto : onnx.ModelProto
        The part; its weights are external data.
    weights : mapping of str to mxnet.nd.NDArray
        The weights by name.
    options : Options
        What the caller asked for.

    Attributes
    ----------
    fallbacks : int
        How many calls ONNX Runtime ran.
    """

    def __init__(
        self,
        engine: Engine,
        proto: onnx.ModelProto,
        weights: Mapping[str, mx.nd.NDArray],
        options: Options,
    ) -> None:
        self._engine: Engine | None = engine
        self._first_kind = engine.kind
        self.fallbacks = 0
        self._origins: list[Any] = getattr(engine, "origins", [])
        self._source = proto, weights, options
        self._spare: Engine | None = None
        self._failures = 0
        self._warned = False
        self._lock = threading.Lock()

    @property
    def kind(self) -> str:
        """The kind of the engine that runs now."""
        return self._first_kind if self._engine is not None else onnxruntime.kind

    @property
    def origins(self) -> list[Any]:
        """Those of the engine (see `TensorRTEngine`), and of ONNX Runtime's once it is there."""
        return [*self._origins, *getattr(self._spare, "origins", ())]

    def plans(self) -> list[Any]:
        """Return what the first engine has built; see `TensorRTEngine.plans`."""
        return list(getattr(self._engine, "plans", list)())

    def execute(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer], stream: int) -> None:
        """Run the part; see `Engine.execute`."""
        engine = self._engine
        if engine is not None:
            try:
                engine.execute(inputs, outputs, stream)
                self._failures = 0
                return
            except NotReady as later:
                if later.reason is not None:
                    self._warn(later.reason)
            except EngineError as error:
                if any(buffer.device_type != 1 for buffer in (*inputs, *outputs)):
                    raise  # ONNX Runtime is here for arrays on the CPU
                self._note(error)
        self._prepare().execute(inputs, outputs, stream)
        self.fallbacks += 1

    def give_up(self, reason: EngineError) -> None:
        """Use ONNX Runtime from now on.

        Raises
        ------
        EngineError
            ONNX Runtime does not take the part either.
        """
        self._engine = None
        self._prepare()
        self._warn(reason)

    def _note(self, error: EngineError) -> None:
        """Count a failure; too many, or a build that failed, and it is not tried again."""
        self._failures += 1
        if self._failures >= MAX_FAILURES or isinstance(error, BuildError):
            self._engine = None
        self._warn(error)

    def _prepare(self) -> Engine:
        with self._lock:
            if self._spare is None:
                self._spare = onnxruntime.build(*self._source)
            return self._spare

    def _warn(self, reason: EngineError) -> None:
        with self._lock:
            if self._warned:
                return
            self._warned = True
        name = self._source[0].graph.name
        warnings.warn(
            f"{name} runs in ONNX Runtime instead of {self._first_kind}, because {reason}",
            RuntimeWarning,
            stacklevel=2,
        )
