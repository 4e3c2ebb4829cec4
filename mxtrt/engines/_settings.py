"""What TensorRT's builder is told before it builds."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import BadOption
from ._nvidia import Api

if TYPE_CHECKING:
    from ..options import Options
    from ._network import Network

log = logging.getLogger("mxtrt")

PREVIEWS = "FASTER_DYNAMIC_SHAPES_0805", "PROFILE_SHARING_0806"
"""What 8.5 and 8.6 offer, and later versions do without being asked. With the first one 8.5 built
BERT-base for 1 to 32 rows in 95 s on an H200; without it 240 s were not enough."""


def configure(
    api: Api, config: Any, network: Network, options: Options, targets: Sequence[str]
) -> None:
    """Say in which numbers to compute, with how much memory and effort, and for which GPUs."""
    trt = api.module
    if api.has_flag("TF32"):
        (config.set_flag if options.tf32 else config.clear_flag)(trt.BuilderFlag.TF32)
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if not api.strongly_typed:
        lower_precision(api, config, network, options.precision)
    # names and tactics of the layers, for mxtrt inspect and mxtrt bench --layers
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    features = getattr(trt, "PreviewFeature", None)
    for name in PREVIEWS:
        if hasattr(features, name):
            config.set_preview_feature(getattr(features, name), True)
    if targets:
        config.num_compute_capabilities = len(targets)
        for index, target in enumerate(targets):
            config.set_compute_capability(getattr(trt.ComputeCapability, target), index)


def configure_machine(api: Api, builder: Any, config: Any, options: Options) -> None:
    """Say where layers may run, with which kernels, and who may load the plan."""
    trt = api.module
    if options.sparse_weights:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if options.tactic_sources is not None:
        known = trt.TacticSource.__members__
        config.set_tactic_sources(sum(1 << int(known[name]) for name in options.tactic_sources))
    if options.dla_core is not None:
        check_dla(api, builder, options)
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla_core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    if options.refit:
        config.set_flag(trt.BuilderFlag.REFIT)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS


def check_dla(api: Api, builder: Any, options: Options) -> None:
    """Raise BadOption where the machine lacks the DLA core that is asked for."""
    count = int(builder.num_DLA_cores)
    if options.dla_core is not None and options.dla_core >= count:
        has = "none" if not count else f"0 to {count - 1}" if count > 1 else "0 only"
        raise BadOption(f"dla_core={options.dla_core}: the DLA cores of this machine: {has}")


def lower_precision(api: Api, config: Any, network: Network, precision: str) -> None:
    """Set the flags that allow float16 or bfloat16, and keep out of it what must be float32.

    A model that has float16 in itself needs the flag as well; then every layer that makes float32
    keeps it.
    """
    trt = api.module
    if precision == "fp32" and not network.has_float16:
        return
    config.set_flag(getattr(trt.BuilderFlag, "BF16" if precision == "bf16" else "FP16"))
    pinned = False
    for index in range(network.definition.num_layers):
        layer = network.definition.get_layer(index)
        if precision == "fp32" or layer.name in network.float32:
            pinned |= _pin_to_float32(trt, layer)
    if pinned:
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)


def _pin_to_float32(trt: Any, layer: Any) -> bool:
    """Make a layer compute in float32 if it makes or reads that; return whether it does."""
    made = range(layer.num_outputs)  # an assertion, and the trip limit of a loop, make nothing
    outputs = [index for index in made if layer.get_output(index).dtype == trt.float32]
    decides = (  # makes places or truths: a cast, which is an identity before 8.6, or a comparison
        getattr(layer.type, "name", "") in {"CAST", "ELEMENTWISE", "IDENTITY"}
        and layer.get_input(0).dtype == trt.float32
    )
    if layer.type == trt.LayerType.CONSTANT or not (decides or 0 in outputs):
        return False
    layer.precision = trt.float32
    if getattr(layer.type, "name", "") != "CAST":  # which says itself what it makes
        for index in outputs:
            layer.set_output_type(index, trt.float32)
    return True


def use_timing_cache(api: Api, config: Any, options: Options) -> Any:
    """Let a build start with what is known of the times of kernels; return the cache."""
    if not api.has_timing_cache:
        return None
    content = api.timing_cache
    if not content and options.timing_cache is not None and os.path.exists(options.timing_cache):
        with open(options.timing_cache, "rb") as file:
            content = file.read()
    for known in (content, b""):  # one of another version or GPU is no use
        cache = config.create_timing_cache(known)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
    return None


def keep_timing_cache(api: Api, cache: Any, options: Options) -> None:
    """Keep what a build has timed, also in the file that the options name."""
    if cache is None:
        return
    api.timing_cache = bytes(cache.serialize())
    if options.timing_cache is None:
        return
    folder = os.path.dirname(os.path.abspath(options.timing_cache))
    try:
        with tempfile.TemporaryDirectory(prefix=".mxtrt-", dir=folder) as beside:
            written = os.path.join(beside, "timing")
            with open(written, "wb") as file:
                file.write(api.timing_cache)
            os.replace(written, options.timing_cache)
    except OSError as error:
        log.warning("the timing cache %s cannot be written: %s", options.timing_cache, error)
