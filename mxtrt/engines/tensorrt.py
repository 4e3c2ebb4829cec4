"""The TensorRT engine: parts on NVIDIA GPUs. ``tensorrt_rtx.py`` is the same with another name.

======================  ===============================================
``_nvidia.py``          what the installed TensorRT can do; its logger
``_cuda.py``            the GPU, its memory and streams, through pycuda
``_network.py``         ONNX to a plan: NVIDIA's parser and builder
``_settings.py``        what the builder is told
``_fatal.py``           what TensorRT 8 must not see
``_forms.py``           operators in forms that the parser gets right
``_quantised.py``       quantised tensors, as floats
``_replacement.py``     nodes in the place of one
``_refit.py``           other weights for a plan
``_stored.py``          a plan from the store, or built and put there
``_float32_nodes.py``   which operators stay in float32
``_precision.py``       lower precisions, said in the network
``_integer_inputs.py``  word numbers, which are not to be lowered
``_profiles.py``        which sizes a plan is built for
``_background.py``      builds while ONNX Runtime serves
``_progress.py``        signs of life of a build, and Ctrl-C
``_execution.py``       running a plan
``_contexts.py``        execution contexts, with what a call needs
``_staging.py``         pinned memory, and arrays of other types
``_halves.py``          a batch in two halves, copied beside each other
``_rows.py``            whether a model allows that
======================  ===============================================
"""

from __future__ import annotations

import atexit
import functools
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import onnx

from ..arrays import numpy_view
from ..errors import BadOption, EngineError, EngineNotAvailable, nearest
from ..store import Origin
from . import _cuda, _nvidia
from ._background import BackgroundBuilds
from ._execution import LoadedPlan, close_all
from ._fallback import BuildError, FallbackEngine, NotReady
from ._network import build_plan, refusal, refused_nodes
from ._nvidia import Api
from ._profiles import Profile, Shape, declared_sizes, known_profile, seen_profile
from ._refit import refit
from ._rows import computes_rows_alone
from ._saved_plans import SavedPlan, load_saved, of_this_machine, save_plan
from ._settings import check_dla
from ._stored import NodeAnswers, start_once, stored_answer, stored_plan

if TYPE_CHECKING:
    import mxnet as mx

    from .._bridge import Buffer
    from ..options import Options
    from . import Engine

log = logging.getLogger("mxtrt")

MAX_PLANS = 8  # of one engine on one GPU: one for each combination of ranks


def builder(options: Options) -> TensorRTBuilder:
    """Return the builder of TensorRT's engines.

    Raises
    ------
    EngineNotAvailable
        TensorRT, pycuda, the driver or the GPU is missing or does not fit.
    BadOption
        The installed version lacks what an option asks for.
    """
    return available_builder("tensorrt", options)


def available_builder(kind: str, options: Options) -> TensorRTBuilder:
    """Return a builder after making sure that it works here; see `builder`."""
    if not _nvidia.installed(kind):
        _nvidia.api(kind)  # says how to install it
    gpu = _cuda.gpu(options.device)
    made = TensorRTBuilder(_nvidia.api(kind), options)
    made.require_gpu(gpu)
    return made


class TensorRTBuilder:
    """Builds engines with one of NVIDIA's modules; see `Builder`.

    Parameters
    ----------
    api : Api
        Which TensorRT.
    options : Options
        Checked against what this TensorRT can do.

    Raises
    ------
    BadOption
        It lacks what an option asks for.
    """

    def __init__(self, api: Api, options: Options) -> None:
        self.api, self.kind = api, api.name
        self._options, self._gpu_name = options, "no GPU"
        self._answers = NodeAnswers(lambda scratch: refusal(api, scratch), api, options)
        _check_options(api, options)

    def require_gpu(self, gpu: _cuda.Gpu) -> None:
        """Raise EngineNotAvailable unless TensorRT starts and knows the GPU."""
        if self.api.has_targets:
            known = self.api.module.ComputeCapability.__members__
            major, minor = gpu.capability
            if f"SM{major}{minor}" not in known:
                raise EngineNotAvailable(
                    f"{self.api.version} does not support {gpu.name} (compute capability "
                    f"{major}.{minor})"
                )
        with gpu, self.api.lock:
            if self._options.dla_core is not None:
                check_dla(self.api, self.api.builder(), self._options)
            else:
                start_once(self.api.builder, self.api, gpu, self._options)
            _prepare_runtime(self.api, self._options)
        self._gpu_name = gpu.name

    def __str__(self) -> str:
        """Return what runs where, for the log."""
        return f"{self.api.version} on {self._gpu_name}"

    def refuses(self, scratch: onnx.ModelProto) -> str | None:
        """Return why NVIDIA's parser does not read a scratch model, or None."""
        return self._answers(scratch)

    def refused_nodes(
        self, proto: onnx.ModelProto, weights: Mapping[str, mx.nd.NDArray], options: Options
    ) -> Mapping[str, str]:
        """Return the ONNX nodes that NVIDIA's parser refuses in a part; see `AsksWhole`.

        The store remembers the answer: reading a large part takes seconds.
        """
        self._answers.keep()
        declared = declared_sizes(proto, options.shapes)
        if None in declared:
            return {}  # the ranks are known at the first call
        profile = known_profile(declared)
        return stored_answer(
            lambda: refused_nodes(self.api, proto, profile, options.precision),
            self.api,
            proto,
            profile=profile,
            options=options,
        )

    def build(
        self,
        proto: onnx.ModelProto,
        weights: Mapping[str, mx.nd.NDArray],
        options: Options,
        plans: Sequence[SavedPlan] = (),
    ) -> Engine:
        """Build an engine; see `Builder.build`. Without ``strict`` ONNX Runtime stands behind it.

        A model with unknown sizes is built at the first call. What `plans` are of need not be
        built, if they are of this GPU and of these versions.
        """
        engine = TensorRTEngine(self.api, proto, weights, options)
        engine.adopt(plans)
        if options.strict:
            engine.build_known()
            return engine
        reason: EngineError | None = None
        try:
            engine.build_known()
        except EngineError as error:
            reason = error
        guarded = FallbackEngine(engine, proto, weights, options)
        if reason is not None:
            guarded.give_up(reason)
        return guarded


class TensorRTEngine:
    """One part of a model in TensorRT: a plan for each GPU and each set of sizes that came.

    Parameters
    ----------
    api : Api
        Which TensorRT.
    proto : onnx.ModelProto
        The part; its weights are external data.
    weights : mapping of str to mxnet.nd.NDArray
        The weights by name; kept, because another size or GPU needs another plan.
    options : Options
        What the caller asked for.

    Attributes
    ----------
    origins : list of (Profile, Origin)
        For each plan so far its sizes, and whether it came from the store or was built.
    """

    def __init__(
        self,
        api: Api,
        proto: onnx.ModelProto,
        weights: Mapping[str, mx.nd.NDArray],
        options: Options,
    ) -> None:
        self.api, self.kind, self.options = api, api.name, options
        self._proto = proto
        self._weights: Mapping[str, mx.nd.NDArray] = weights
        self._declared = declared_sizes(proto, options.shapes)
        self._inputs = [info.name for info in proto.graph.input]
        self._outputs = [info.name for info in proto.graph.output]
        self._plans: dict[int, tuple[tuple[Profile, LoadedPlan], ...]] = {}
        self._building = threading.Lock()
        # with strict there is no net below that could serve meanwhile
        wanted = options.background and not options.strict
        self._background = BackgroundBuilds(proto.graph.name) if wanted else None
        self.origins: list[tuple[Profile, Origin]] = []

    def build_known(self) -> None:
        """Build the plan now if all sizes are known, on the GPU that the options name.

        Raises
        ------
        EngineError
            TensorRT refuses the part.
        """
        profile = known_profile(self._declared)
        if profile is None or profile in (p for p, _ in self._plans.get(self.options.device, ())):
            return
        with self._building:
            self._build(self.options.device, profile, None)

    def plans(self) -> list[SavedPlan]:
        """Return what was built so far, for `adopt` in another process."""
        return [
            save_plan(self.api, device, profile, plan)
            for device, plans in self._plans.items()
            for profile, plan in plans
        ]

    def adopt(self, plans: Sequence[SavedPlan]) -> None:
        """Load plans onto the options' GPU, but for those of another GPU or other versions."""
        device, name = self.options.device, self._proto.graph.name
        for saved in of_this_machine(self.api, device, name, plans):
            start = time.perf_counter()
            loaded = load_saved(name, saved, self._load, _cuda.gpu(device))
            if loaded is not None:
                origin = Origin(True, time.perf_counter() - start, len(saved.content))
                self.origins.append((loaded[0], origin))
                self._plans[device] = (loaded, *self._plans.get(device, ()))[:MAX_PLANS]

    def execute(self, inputs: Sequence[Buffer], outputs: Sequence[Buffer], stream: int) -> None:
        """Run the part on MXNet's memory; see `Engine.execute`."""
        if all(0 in buffer.shape for buffer in outputs):
            return
        first = outputs[0]
        device = first.device_id if first.device_type == 2 else self.options.device
        shapes = [buffer.shape for buffer in inputs]
        plan = self._find(device, shapes)
        if plan is None:
            if self._background is not None and first.device_type == 1:
                self._leave_to(self._background, device, shapes)
            plan = self._build_for(device, shapes)
        plan.execute(inputs, outputs, stream)

    def _find(self, device: int, shapes: Sequence[Shape]) -> LoadedPlan | None:
        for profile, plan in self._plans.get(device, ()):
            if profile.covers(shapes):
                return plan
        return None

    def _leave_to(
        self, background: BackgroundBuilds, device: int, shapes: Sequence[Shape]
    ) -> NoReturn:
        """Let a plan be built in the background, and raise what says that there is none yet."""
        before = self._same_ranks(device, shapes)
        seen_profile(self._declared, shapes, before, generous=False)  # raises for wrong shapes
        background.start(lambda: self._build_for(device, shapes))
        if background.error is not None and not any(self._plans.values()):
            raise BuildError(str(background.error))
        raise NotReady(background.error)

    def _build_for(self, device: int, shapes: Sequence[Shape]) -> LoadedPlan:
        with self._building:
            ready = self._find(device, shapes)  # another thread may have been first
            if ready is not None:
                return ready
            known = known_profile(self._declared)
            if known is not None and known.covers(shapes):
                return self._build(device, known, None)
            before = self._same_ranks(device, shapes)
            generous = seen_profile(self._declared, shapes, before, generous=True)
            exact = seen_profile(self._declared, shapes, before, generous=False)
            if before is not None:
                log.info("%s is built again for %s", self._proto.graph.name, generous)
            try:
                return self._build(device, generous, before)
            except EngineError as error:
                if generous == exact:
                    raise BuildError(str(error)) from error
            try:  # the sizes depend on each other: not all mixtures of them are possible
                return self._build(device, exact, before)
            except EngineError as error:
                raise BuildError(str(error)) from error

    def _same_ranks(self, device: int, shapes: Sequence[Shape]) -> Profile | None:
        ranks = [len(shape) for shape in shapes]
        for profile, _ in self._plans.get(device, ()):
            if [len(sizes) for sizes in profile.inputs] == ranks:
                return profile
        return None

    def _build(self, device: int, profile: Profile, before: Profile | None) -> LoadedPlan:
        """Get a plan and put it in the place of an earlier one, which its last call frees."""
        gpu = _cuda.gpu(device)
        model = (self._proto, {name: numpy_view(array) for name, array in self._weights.items()})

        def build() -> Any:
            return build_plan(self.api, *model, profile, self.options)

        def renew(plan: LoadedPlan) -> None:
            refit(self.api, plan, *model, profile, self.options.precision)

        with gpu:
            _prepare_runtime(self.api, self.options)
            plan, origin = stored_plan(
                build,
                lambda content: self._load(gpu, content),
                self.api,
                gpu,
                *model,
                profile=profile,
                options=self.options,
                refit=renew if self.options.refit else None,
            )
        self.origins.append((profile, origin))
        kept = [(p, loaded) for p, loaded in self._plans.get(device, ()) if p is not before]
        self._plans[device] = ((profile, plan), *kept)[:MAX_PLANS]
        return plan

    def _load(self, gpu: _cuda.Gpu, content: Any) -> LoadedPlan:
        return LoadedPlan(
            self.api,
            gpu,
            content,
            self._inputs,
            self._outputs,
            lanes=self.options.contexts,
            cuda_graph=self.options.cuda_graph,
            rows_are_alone=functools.partial(computes_rows_alone, self._proto),
        )


def _prepare_runtime(api: Api, options: Options) -> None:
    if options.version_compatible or options.dla_core is not None:
        _nvidia.prepare_runtime(
            api.runtime(), host_code=options.version_compatible, dla_core=options.dla_core
        )


def _check_options(api: Api, options: Options) -> None:
    for name in options.tactic_sources or ():
        if name not in api.tactic_sources:
            known = ", ".join(api.tactic_sources)
            near = nearest(name, api.tactic_sources)
            raise BadOption(f"tactic_sources: {api.version} has {known}, and no {name!r}{near}")
    if options.sparse_weights and not api.has_flag("SPARSE_WEIGHTS"):
        raise BadOption(f"sparse_weights: {api.version} does not look for zeros in weights")
    if options.refit and not api.can_refit:
        raise BadOption(f"refit needs a TensorRT with OnnxParserRefitter; this is {api.version}")
    if options.version_compatible and not api.can_be_version_compatible:
        raise BadOption(f"version_compatible needs TensorRT 8.6 or newer; this is {api.version}")
    if options.hardware_compatible and not api.can_be_hardware_compatible:
        raise BadOption(f"hardware_compatible needs TensorRT 8.6 or newer; this is {api.version}")
    if options.precision not in api.precisions:
        known = ", ".join(map(repr, api.precisions))
        raise BadOption(f"precision={options.precision!r}: {api.version} has {known}")
    if options.optimization_level is not None and not api.has_optimization_level:
        raise BadOption(f"optimization_level needs TensorRT 8.6 or newer; this is {api.version}")
    if options.timing_cache is not None and not api.has_timing_cache:
        raise BadOption(f"timing_cache: {api.version} has none")


atexit.register(close_all)
