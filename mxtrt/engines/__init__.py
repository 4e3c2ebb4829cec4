"""Step 4: engines, behind one protocol.

Modules of this package are the only ones that import ONNX Runtime or TensorRT.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from ..errors import BadOption, EngineNotAvailable

if TYPE_CHECKING:
    import mxnet as mx
    import onnx

    from .._bridge import Buffer
    from ..options import Options


log = logging.getLogger("mxtrt")


class Engine(Protocol):
    """What runs one part of a model."""

    @property
    def kind(self) -> str:
        """The engine's name in reports, such as ``"onnxruntime"``."""

    def execute(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer], stream: int) -> None:
        """Run the part on MXNet's own memory.

        Parameters
        ----------
        inputs, outputs : sequence of Buffer
            In the order of the part's inputs and outputs; valid during the call only.
        stream : int
            MXNet's CUDA stream for arrays on a GPU, else 0.

        Raises
        ------
        EngineError
            The engine failed; the next call may succeed.
        """


class Builder(Protocol):
    """The module of one kind of engine."""

    kind: str
    """The same as ``Engine.kind``."""

    def refuses(self, scratch: onnx.ModelProto) -> str | None:
        """Return why the engine has no kernel for a scratch model, or None."""

    def build(
        self,
        proto: onnx.ModelProto,
        weights: Mapping[str, mx.nd.NDArray],
        options: Options,
    ) -> Engine:
        """Build an engine from a model whose weights are external data.

        Raises
        ------
        EngineError
            The engine cannot be built.
        """


@runtime_checkable
class AsksWhole(Protocol):
    """A builder whose engine may refuse a node in its part which it takes alone."""

    def refused_nodes(
        self,
        proto: onnx.ModelProto,
        weights: Mapping[str, mx.nd.NDArray],
        options: Options,
    ) -> Mapping[str, str]:
        """Return the names of ONNX nodes that the engine refuses in a part, with its reasons."""


def prepare(options: Options) -> None:
    """Let a GPU that may be needed start while the model is read."""
    kinds = ("tensorrt", "tensorrt_rtx") if options.engine == "auto" else (options.engine,)
    if any(kind != "onnxruntime" and importlib.util.find_spec(kind) for kind in kinds):
        importlib.import_module("._cuda", __name__).wake(options.device)


def builder(options: Options) -> Builder:
    """Return the builder of the engine that `options` ask for.

    Raises
    ------
    EngineNotAvailable
        The engine's package is not installed, or there is no GPU for it.
    BadOption
        The engine does not have what an option asks for.
    """
    if options.engine == "auto":
        return _best(options)
    if options.engine == "onnxruntime" and options.precision != "fp32":
        raise BadOption(
            f"precision={options.precision!r} needs engine='tensorrt'; ONNX Runtime on the CPU "
            "computes in the types of the model"
        )
    return _load(options.engine, options)


def _best(options: Options) -> Builder:
    """Return TensorRT's builder where it works, else ONNX Runtime's; the log says why."""
    reasons = []
    for kind in ("tensorrt", "tensorrt_rtx"):
        try:
            found = _load(kind, options)
        except EngineNotAvailable as reason:
            reasons.append(f"{kind}: {reason}")
        else:
            log.info("engine='auto' takes %s", found)
            return found
    log.info(
        "engine='auto' takes onnxruntime, on the CPU, in the model's types; %s", "; ".join(reasons)
    )
    return _load("onnxruntime", options)


def _load(kind: str, options: Options) -> Builder:
    module = importlib.import_module(f".{kind}", __name__)
    # ONNX Runtime's module is its own builder: it has nothing to find out first
    return cast("Builder", module.builder(options) if hasattr(module, "builder") else module)
