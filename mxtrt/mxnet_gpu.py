"""MXNet's arrays on GPUs that its wheels have no kernels for: Hopper and newer.

MXNet hands random numbers to every operator of a library, whether it wants them or not, and seeds
them with a kernel of its own when the first such operator runs on a GPU. Where that kernel does
not exist, the operator fails. But the failure is kept with each of MXNet's states of random numbers
(``MXNET_GPU_PARALLEL_RAND_COPY`` of them, 4 by default) and reported once: who waits for it clears
it. Operators take the states in turn, so after as many failed calls all of them work. Measured on
an H200 with mxnet-cu117 1.9.1: four calls failed, and none after these.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from . import _bridge
from .errors import EngineError, mxnet_sentence

log = logging.getLogger("mxtrt")

MAX_FAILURES = 256  # states that somebody may have asked for
NO_KERNEL = "no kernel image"

_KEY = "mxtrt:nothing"


class _Nothing:
    """A part that computes nothing: MXNet's own work around it is what counts."""

    def infer_shape(self, shapes: list[tuple[int, ...]], /) -> Sequence[Sequence[int]]:
        return shapes

    def infer_type(self, types: list[int], /) -> tuple[Sequence[int], Sequence[int]]:
        return types, types

    def execute(
        self, inputs: list[_bridge.Buffer], outputs: list[_bridge.Buffer], stream: int, /
    ) -> None:
        pass


def prepare(index: int) -> None:
    """Let engines run on arrays of a GPU, whatever kernels MXNet has for it.

    Called by the operator itself, before its first engine on that GPU.

    Raises
    ------
    EngineError
        MXNet cannot use the GPU.
    """
    import mxnet as mx

    _bridge.register(_KEY, _Nothing())
    failures = 0
    try:
        array = mx.nd.array([0], ctx=mx.gpu(index))
        while True:
            made = mx.nd._internal._mxtrt_engine(array, key=_KEY, num_inputs=1, num_outputs=1)
            try:
                made.wait_to_read()
                break
            except mx.base.MXNetError as error:
                failures += 1
                if NO_KERNEL not in str(error) or failures > MAX_FAILURES:
                    raise
    except mx.base.MXNetError as error:
        raise EngineError(
            f"MXNet cannot run library operators on gpu({index}): {mxnet_sentence(error)}"
        ) from None
    finally:
        _bridge.unregister(_KEY)
    if failures:
        log.info("MXNet has no kernels for gpu(%d); engines run there all the same", index)
