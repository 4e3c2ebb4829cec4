"""Plans that are made to be written into files, and taken from there."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx

from ..errors import (
    BadOption,
    BadPlan,
    EngineError,
    EngineNotAvailable,
    ShapeNeeded,
    ShapesDisagree,
    nearest,
)
from ..onnx_reader import element_type, sizes
from ..plan_file import PlanInfo
from . import _cuda, _nvidia
from ._execution import LoadedPlan
from ._network import build_plan
from ._nvidia import Api
from ._profiles import Profile, Range
from ._stored import built_with_timings
from .tensorrt import TensorRTBuilder, available_builder

if TYPE_CHECKING:
    from ..options import Options

log = logging.getLogger("mxtrt")

KINDS = ("tensorrt", "tensorrt_rtx")


# -- making ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Maker:
    """Who builds a plan, and for which GPUs.

    Attributes
    ----------
    api : Api
        Which TensorRT.
    gpu : Gpu or None
        The GPU on which it builds; none is needed for targets.
    targets : tuple of str
        The compute capabilities that were asked for, as TensorRT-RTX calls them.
    """

    api: Api
    gpu: _cuda.Gpu | None
    targets: tuple[str, ...] = ()


def make_plan(
    maker: Maker, proto: onnx.ModelProto, weights: Mapping[str, Any], options: Options
) -> tuple[Any, PlanInfo]:
    """Build a model for the sizes that it and the options state.

    Parameters
    ----------
    maker : Maker
        What `find_maker` returned.
    proto : onnx.ModelProto
        The model; its weights are external data.
    weights : mapping of str to array
        The weights by name.
    options : Options
        What the caller asked for.

    Returns
    -------
    plan : bytes-like
        What TensorRT's builder made.
    info : PlanInfo
        What is known of it, but for its size and checksum.

    Raises
    ------
    UserError
        A size is missing or does not fit.
    EngineError
        TensorRT refuses the model; the message is its own.
    """
    profile = stated_profile(proto, options.shapes)
    api, gpu, targets = maker.api, maker.gpu, maker.targets
    start = time.perf_counter()
    with gpu or nullcontext():
        plan = built_with_timings(
            lambda: build_plan(api, proto, weights, profile, options, targets),
            *(api, None if targets else gpu, options),
        )
    return plan, PlanInfo(
        engine=api.name,
        version=str(api.module.__version__),
        gpu=gpu.name if gpu is not None else None,
        capabilities=targets if gpu is None else (capability(gpu),),
        precision=options.precision,
        portable=options.version_compatible or options.hardware_compatible,
        inputs=tuple(
            {"name": info.name, "dtype": element_type(info), "sizes": axes}
            for info, axes in zip(proto.graph.input, profile.inputs)
        ),
        outputs=tuple({"name": o.name, "dtype": element_type(o)} for o in proto.graph.output),
        seconds=round(time.perf_counter() - start, 3),
    )


def find_maker(options: Options, targets: Sequence[str]) -> Maker:
    """Return who builds what the caller asks for.

    Parameters
    ----------
    options : Options
        What the caller asked for.
    targets : sequence of str
        Compute capabilities to build for; by default that of the present GPU.

    Raises
    ------
    EngineNotAvailable
        Nothing builds plans here.
    BadOption
        An option asks for what there is not.
    """
    if options.engine == "onnxruntime":
        raise BadOption("engine='onnxruntime' has no plans; it runs ONNX files as they are")
    if targets:
        if options.engine == "tensorrt":
            raise BadOption("targets need engine='tensorrt_rtx': TensorRT builds on its own GPU")
        api = _nvidia.api("tensorrt_rtx")
        TensorRTBuilder(api, options)  # checks the options
        return Maker(api, None, tuple(known_targets(api, targets)))
    reasons = []
    for kind in KINDS if options.engine == "auto" else (options.engine,):
        try:
            return Maker(available_builder(kind, options).api, _cuda.gpu(options.device))
        except EngineNotAvailable as reason:
            if options.engine != "auto":
                raise
            reasons.append(f"{kind}: {reason}")
    raise EngineNotAvailable(
        f"no plan can be built here: {'; '.join(reasons)}. TensorRT-RTX builds for other GPUs "
        "without one: pass --target sm86 (targets=['sm86'])"
    )


def known_targets(api: Api, targets: Sequence[str]) -> list[str]:
    """Return targets such as ``"sm86"`` as TensorRT-RTX calls them.

    Raises
    ------
    BadOption
        It does not know one of them.
    """
    members = [name for name in api.module.ComputeCapability.__members__ if name[-1].isdigit()]
    names = []
    for target in targets:
        name = target.strip().upper().replace(".", "")
        name = name if name.startswith("SM") else f"SM{name}"
        if name not in members:
            known = ", ".join(sorted(map(str.lower, members), key=lambda name: int(name[2:])))
            raise BadOption(
                f"target {target!r}: {api.version} builds for {known}{nearest(name, members)}"
            )
        if name not in names:
            names.append(name)
    return names


def capability(gpu: _cuda.Gpu) -> str:
    """Return a GPU's compute capability as ``"SM86"``."""
    major, minor = gpu.capability
    return f"SM{major}{minor}"


# -- sizes -------------------------------------------------------------------------------------


def stated_profile(proto: onnx.ModelProto, shapes: Mapping[str, Sequence[Any]]) -> Profile:
    """Return the sizes that a model and the caller's option ``shapes`` state together.

    Raises
    ------
    BadOption
        The model has no such input.
    ShapesDisagree
        The model has another size, or another number of axes.
    ShapeNeeded
        A size is stated by neither.
    """
    names = [info.name for info in proto.graph.input]
    for name in shapes:
        if name not in names:
            raise BadOption(f"shapes: the model has no input {name!r}{nearest(name, names)}")
    return Profile(tuple(_axes(info, shapes.get(info.name)) for info in proto.graph.input))


def _axes(info: onnx.ValueInfoProto, given: Sequence[Any] | None) -> tuple[Range, ...]:
    known = sizes(info)
    if known is None and given is None:
        raise ShapeNeeded(f"nothing is known of the shape of {info.name!r}; {_ask(info.name, ())}")
    own = known if known is not None else (None,) * len(given or ())
    stated = given if given is not None else (None,) * len(own)
    if len(own) != len(stated):
        raise ShapesDisagree(f"{info.name!r} has {len(own)} axes, not {len(stated)}")
    axes = []
    for axis, (mine, size) in enumerate(zip(own, stated)):
        low, best, high = size if isinstance(size, tuple) else (size, size, size)
        if isinstance(mine, int):
            if size is not None and not low == high == mine:
                raise ShapesDisagree(f"axis {axis} of {info.name!r} is {mine} in the model")
            axes.append((mine, mine, mine))
        elif size is None:
            raise ShapeNeeded(
                f"axis {axis} of {info.name!r} may have any size, and a plan is built for a size "
                f"or a range; {_ask(info.name, own)}"
            )
        else:
            axes.append((low, best, high))
    return tuple(axes)


def _ask(name: str, own: Sequence[int | str | None]) -> str:
    example = ",".join(
        str(size) if isinstance(size, int) else "1..8..32" if axis == 0 else "224"
        for axis, size in enumerate(own)
    )
    return f"pass --shape {name}={example or '1..8..32,3,224,224'} (shapes={{{name!r}: …}})"


# -- taking ------------------------------------------------------------------------------------


def load_plan(
    path: str,
    plan: bytes,
    info: PlanInfo | None,
    *,
    engine: str,
    device: int,
    contexts: int,
    cuda_graph: bool | None,
) -> LoadedPlan:
    """Load a plan onto a GPU.

    Raises
    ------
    BadPlan
        It is for another GPU or another version, or TensorRT does not take it.
    EngineNotAvailable
        There is no GPU or no TensorRT for it.
    """
    if info is not None and engine not in ("auto", info.engine):
        raise BadOption(f"engine={engine!r}: {path} is a plan of {info.engine}")
    kind = info.engine if info is not None else _kind(engine)
    if not _nvidia.installed(kind):
        _nvidia.api(kind)  # says how to install it
    gpu = _cuda.gpu(device)
    api = _nvidia.api(kind)
    if info is not None:
        _check(path, info, api, gpu)
        if info.portable:
            _nvidia.prepare_runtime(api.runtime(), host_code=True)
    try:
        if info is not None:
            names = [t["name"] for t in info.inputs], [t["name"] for t in info.outputs]
        else:
            with gpu:
                names = _names(api, plan)
        loaded = LoadedPlan(api, gpu, plan, *names, lanes=contexts, cuda_graph=cuda_graph)
    except EngineError as error:
        raise BadPlan(f"{path}: {error}") from None
    loaded.inputs = [tensor for tensor in loaded.inputs if tensor is not None]
    return loaded


def _kind(engine: str) -> str:
    if engine in KINDS:
        return engine
    if engine != "auto":
        raise BadOption(f"engine={engine!r} has no plans")
    return next((kind for kind in KINDS if _nvidia.installed(kind)), KINDS[0])


def _check(path: str, info: PlanInfo, api: Api, gpu: _cuda.Gpu) -> None:
    if info.portable:
        return
    if info.version != str(api.module.__version__):
        raise BadPlan(
            f"{path}: built with {api.title} {info.version}, and this is {api.version}; build it "
            "again with this version, or install that one"
        )
    if capability(gpu) not in info.capabilities:
        built = f"on {info.gpu} " if info.gpu else ""
        raise BadPlan(
            f"{path}: built {built}for compute capability {_told(info.capabilities)}, and "
            f"{gpu.name} has {_told([capability(gpu)])}; build it again for this GPU"
        )


def _told(capabilities: Sequence[str]) -> str:
    """Return ``"8.6 and 12.0"``."""
    return " and ".join(f"{name[2:-1]}.{name[-1]}" for name in capabilities)


def _names(api: Api, plan: bytes) -> tuple[list[str], list[str]]:
    """Return the names of a plan's inputs and outputs."""
    with api.logger.collecting() as messages:
        engine = api.runtime().deserialize_cuda_engine(plan)
    if engine is None:
        raise _nvidia.failed(f"{api.title} does not take the plan", messages)
    names: tuple[list[str], list[str]] = ([], [])
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        is_input = engine.get_tensor_mode(name).name == "INPUT"
        names[0 if is_input else 1].append(name)
    return names


def input_sizes(plan: LoadedPlan, name: str) -> tuple[Range, ...]:
    """Return for each axis of an input the smallest, the best and the largest size."""
    shape = tuple(plan.engine.get_tensor_shape(name))
    if -1 not in shape:
        return tuple((size, size, size) for size in shape)
    low, best, high = plan.engine.get_tensor_profile_shape(name, 0)
    return tuple(zip(low, best, high))
