"""Other weights for a plan that was built with ``refit=True``: no kernels are chosen anew."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import onnx

from ..errors import EngineError
from ._network import Weights, feed, first_error, for_parser, with_sizes
from ._nvidia import Api, failed
from ._profiles import Profile
from ._progress import interrupts_later

if TYPE_CHECKING:
    from ._execution import LoadedPlan

log = logging.getLogger("mxtrt")


def refit(
    api: Api,
    plan: LoadedPlan,
    proto: onnx.ModelProto,
    weights: Weights,
    profile: Profile,
    precision: str,
) -> None:
    """Put weights into a plan that has no execution context yet; its GPU must be current.

    Parameters
    ----------
    api : Api
        Which TensorRT; it has an ``OnnxParserRefitter``.
    plan : LoadedPlan
        Built with ``refit=True`` from the same model, whatever its weights were.
    proto, weights, profile, precision
        As for `build_plan`.

    Raises
    ------
    EngineError
        TensorRT cannot replace all of them; the message is its own.
    """
    start = time.perf_counter()
    with api.lock, interrupts_later(), api.logger.collecting() as messages:
        refitter = api.module.Refitter(plan.engine, api.logger)
        parser = api.module.OnnxParserRefitter(refitter, api.logger)
        model, given = _as_it_was_built(api, with_sizes(proto, profile), weights, precision)
        if not feed(parser, model, given, refits=True):
            raise EngineError(f"{api.title} cannot replace the weights: {first_error(parser)}")
        if not refitter.refit_cuda_engine():
            raise failed(f"{api.title} cannot replace the weights", messages)
    seconds = time.perf_counter() - start
    log.info("%s has other weights after %.2f s", proto.graph.name, seconds)


def _as_it_was_built(
    api: Api, proto: onnx.ModelProto, weights: Weights, precision: str
) -> tuple[onnx.ModelProto, Any]:
    """Return what the parser was given for the plan."""
    parser = api.module.OnnxParser(api.builder().create_network(api.network_flags), api.logger)
    model, given, _ = for_parser(api, parser, proto, weights, precision)
    return model, given
