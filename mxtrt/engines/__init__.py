"""Step 4: engines, behind one protocol.

Modules of this package are the only ones that import ONNX Runtime or TensorRT.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    import mxnet as mx
    import onnx

    from .._bridge import Buffer
    from ..options import Options


class Engine(Protocol):
    """What runs one part of a model."""

    kind: str
    """The engine's name in reports: ``"onnxruntime"``, ``"tensorrt"``, …"""

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


def builder(options: Options) -> Builder:
    """Return the module of the engine that `options` ask for.

    Raises
    ------
    EngineNotAvailable
        The engine's package is not installed.
    """
    kind = "onnxruntime" if options.engine == "auto" else options.engine
    return cast("Builder", importlib.import_module(f".{kind}", __name__))
