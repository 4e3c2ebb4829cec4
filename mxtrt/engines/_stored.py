"""Plans from the store, or built and put there: what a plan depends on.

The timing cache of each kind of GPU lies in the store, too: what one process has timed, the builds
of the next need not time again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import onnx

from .. import __version__
from ..store import Origin, Store, open_store
from ..stored_file import Key
from . import _cuda
from ._cuda import Gpu
from ._network import Weights
from ._nvidia import Api
from ._profiles import Profile

if TYPE_CHECKING:
    from ..options import Options

log = logging.getLogger("mxtrt")

T = TypeVar("T")

# An option that is not here makes another plan.
IRRELEVANT = frozenset(
    {
        "shapes", "dtypes", "min_subgraph_size", "exclude_ops", "exclude_nodes",  # in the ONNX
        "engine", "device",  # the facts about the GPU and the engine say it
        "strict", "allow_extra_params", "session_options",  # of mxtrt, MXNet and ONNX Runtime
        "timing_cache", "cache_dir", "cache_size",  # where things are kept
        "cuda_graph", "contexts", "background", "progress",  # how a plan is run, and waited for
    }
)  # fmt: skip

# whose kernels a plan may call, beside those in TensorRT
LIBRARIES = ("nvidia-cuda-runtime", "nvidia-cublas", "nvidia-cudnn")
CUDA_SUFFIXES = ("", "-cu11", "-cu12", "-cu13")


def stored_plan(
    build: Callable[[], Any],
    load: Callable[[Any], T],
    api: Api,
    gpu: Gpu | None,
    proto: onnx.ModelProto,
    weights: Weights,
    *,
    profile: Profile,
    options: Options,
    targets: Sequence[str] = (),
    refit: Callable[[T], None] | None = None,
) -> tuple[T, Origin]:
    """Load a plan from the store, or build it and put it there.

    Parameters
    ----------
    build : callable
        Makes the plan of what follows, by `build_plan`.
    load : callable
        Takes the plan.
    api : Api
        Which TensorRT.
    gpu : Gpu, optional
        The current GPU; None where `targets` say for which ones the plan is built.
    proto, weights, profile, options, targets
        What the plan is of; see `build_plan`.
    refit : callable, optional
        Puts the weights into a plan that was stored with others; then plans of all weights are one.

    Returns
    -------
    loaded : object
        What `load` returned.
    origin : Origin
        Whether the plan was built, and how long it took to get it.

    Raises
    ------
    EngineError
        TensorRT refuses the model, or the plan that it has just made.
    """
    store = open_store(options.cache_dir, options.cache_size)
    if store is None:
        start = time.perf_counter()
        plan = build()
        origin = Origin(False, time.perf_counter() - start, memoryview(plan).nbytes)
        return load(plan), origin
    machine = machine_facts(api, None if targets else gpu)
    model = model_facts(proto, weights)
    key_facts = model if refit is None else {**model, "weights": "any"}
    built: list[bool] = []

    def build_now() -> Any:
        built.append(True)
        return _build_with_timings(build, api, store, _timing_key(machine), options)

    def load_right(content: Any) -> T:
        plan = load(content)
        if refit is not None and not built:
            refit(plan)
        return plan

    key = {
        "kind": "plan",
        **machine,
        "name": proto.graph.name,
        "sizes": str(profile),
        "profile": profile.inputs,
        "options": relevant_options(options),
        "targets": list(targets),
        **key_facts,
    }
    return store.get(
        key,
        build_now,
        load_right,
        what=proto.graph.name,
        # weights that changed while the plan was built would belong to another key
        is_right=lambda: model_facts(proto, weights) == model,
    )


def stored_answer(
    ask: Callable[[], dict[str, str]],
    api: Api,
    proto: onnx.ModelProto,
    *,
    profile: Profile | None,
    options: Options,
) -> dict[str, str]:
    """Return the parser's answer about a model, whatever its weights, from the store or asked now.

    Parameters
    ----------
    ask : callable
        Asks NVIDIA's parser.
    api, proto, profile, options
        What the answer depends on.
    """
    store = open_store(options.cache_dir, options.cache_size)
    if store is None:
        return ask()
    key = {
        "kind": "parser",
        **machine_facts(api, None),
        "name": f"{proto.graph.name}, what the parser says",
        "sizes": str(profile),
        "precision": options.precision,
        "onnx": hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest(),
    }
    known = store.read(key)
    if known is not None:
        answer: dict[str, str] = json.loads(known)
        return answer
    answer = ask()
    store.update(key, lambda before: json.dumps(answer).encode(), "the parser's answer")
    return answer


class NodeAnswers:
    """What NVIDIA's parser says of models of one node; the store remembers it.

    Parameters
    ----------
    ask : callable
        Returns why the parser refuses a model, or None.
    api, options
        What the answers depend on, and where they are kept.
    """

    def __init__(
        self, ask: Callable[[onnx.ModelProto], str | None], api: Api, options: Options
    ) -> None:
        self._ask = ask
        self._store = open_store(options.cache_dir, options.cache_size)
        self._key = {
            "kind": "parser",
            **machine_facts(api, None),
            "name": "single operators, what the parser says",
        }
        self._known: dict[str, str | None] | None = None
        self._new: dict[str, str | None] = {}

    def __call__(self, scratch: onnx.ModelProto) -> str | None:
        """Return the parser's answer; `keep` puts what is new into the store."""
        if self._store is None:
            return self._ask(scratch)
        if self._known is None:
            self._known = _answers(self._store.read(self._key))
        digest = hashlib.sha256(scratch.SerializeToString(deterministic=True)).hexdigest()
        if digest not in self._known:
            self._known[digest] = self._new[digest] = self._ask(scratch)
        return self._known[digest]

    def keep(self) -> None:
        """Put the new answers into the store, beside those of other processes."""
        if self._store is None or not self._new:
            return
        new, self._new = self._new, {}
        self._store.update(
            self._key,
            lambda before: json.dumps({**_answers(before), **new}).encode(),
            "the parser's answers",
        )


def _answers(content: bytes | None) -> dict[str, str | None]:
    answers: dict[str, str | None] = json.loads(content) if content else {}
    return answers


def start_once(start: Callable[[], object], api: Api, gpu: Gpu, options: Options) -> None:
    """Find out whether TensorRT's builder starts, which takes seconds, unless the store knows it.

    Parameters
    ----------
    start : callable
        Raises an error where it does not.
    api, gpu, options
        What the answer depends on, and where it is kept.
    """
    store = open_store(options.cache_dir, options.cache_size)
    if store is None:
        start()
        return
    key = {
        "kind": "start",
        **machine_facts(api, gpu),
        "name": f"{api.version} starts on {gpu.name}",
    }
    if store.read(key) is None:
        start()
        store.update(key, lambda before: b"yes", "that TensorRT starts")


def built_with_timings(
    build: Callable[[], Any], api: Api, gpu: Gpu | None, options: Options
) -> Any:
    """Build what the store does not keep, with the timings that it has, and keep what is new."""
    store = open_store(options.cache_dir, options.cache_size)
    if store is None:
        return build()
    key = _timing_key(machine_facts(api, gpu))
    return _build_with_timings(build, api, store, key, options)


def _timing_key(machine: Mapping[str, Any]) -> Key:
    # how long a kernel takes does not depend on what mxtrt asks TensorRT to build
    return {"kind": "timing", **machine, "mxtrt": __version__}


def _build_with_timings(
    build: Callable[[], Any], api: Api, store: Store, key: Key, options: Options
) -> Any:
    """Build with the timings that the store has, and put there what is new in them."""
    if not api.has_timing_cache or options.timing_cache is not None:
        return build()
    before = api.timing_cache = store.read(key) or api.timing_cache
    plan = build()
    if api.timing_cache != before:
        store.update(key, lambda known: _merged(api, known, before), "the timing cache")
    return plan


def _merged(api: Api, known: bytes, before: bytes) -> bytes:
    """Return this process's timings with those that another one has stored meanwhile."""
    if known in (b"", before):
        return api.timing_cache
    with api.lock, api.logger.collecting(quiet=True):
        config = api.builder().create_builder_config()
        merged = config.create_timing_cache(known)
        mine = config.create_timing_cache(api.timing_cache)
        if merged is None or mine is None or not merged.combine(mine, False):
            return api.timing_cache
        return bytes(merged.serialize())


# -- what a plan depends on ------------------------------------------------------------------------


def model_facts(proto: onnx.ModelProto, weights: Weights) -> dict[str, Any]:
    """Return the checksums of a model and of its weights, which are read where they lie."""
    names = sorted(weights)
    with ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as pool:  # without the GIL
        digests = list(pool.map(_weight_digest, (weights[name] for name in names)))
    together = hashlib.sha256()
    for name, digest in zip(names, digests):
        together.update(hashlib.sha256(name.encode()).digest() + digest)
    model = proto.SerializeToString(deterministic=True)
    return {"onnx": hashlib.sha256(model).hexdigest(), "weights": together.hexdigest()}


def _weight_digest(array: np.ndarray[Any, Any]) -> bytes:
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.digest()


def relevant_options(options: Options) -> dict[str, Any]:
    """Return the options that make a difference to a plan."""
    values = {name: getattr(options, name) for name in options.__dataclass_fields__}
    return {n: _plain(value) for n, value in values.items() if n not in IRRELEVANT}


def _plain(value: Any) -> Any:
    """Return an option as JSON can say it, always in the same way."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(value[key]) for key in value}
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    return repr(value)


def machine_facts(api: Api, gpu: Gpu | None) -> dict[str, Any]:
    """Return the versions of everything that makes or runs a plan, and the GPU."""
    ours = f"{__version__} ({_sources()})"
    facts: dict[str, Any] = {"mxtrt": ours, "engine": api.name, "version": api.version}
    if gpu is not None:
        facts["gpu"] = gpu.name
        facts["compute_capability"] = ".".join(map(str, gpu.capability))
        facts["cuda"] = _cuda.driver().get_driver_version()
        facts["driver"] = _kernel_driver()
    return {**facts, "libraries": _libraries()}


@cache
def _sources() -> str:
    """Return a checksum of what makes plans: a checkout changes without a new version."""
    total = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()[:8]


@cache
def _kernel_driver() -> str:
    """Return the version of NVIDIA's driver, such as ``"580.65.06"``."""
    for path in ("/sys/module/nvidia/version", "/proc/driver/nvidia/version"):
        try:
            found = re.search(r"\d+\.\d[\d.]*", Path(path).read_text())
        except OSError:
            continue
        if found is not None:
            return found.group()
    return ""


@cache
def _libraries() -> dict[str, str]:
    found = {}
    for name in (f"{library}{suffix}" for library in LIBRARIES for suffix in CUDA_SUFFIXES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
