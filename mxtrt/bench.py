"""MXNet, mxtrt and the engine alone, side by side on one model.

====================  ================================================================
MXNet                 MXNet's executor on the CPU
mxtrt                 the optimised symbol's executor, arrays on the CPU
ONNX Runtime          the whole model in ONNX Runtime alone, on the CPU
TensorRT              the whole model in one plan alone, arrays on the CPU
TensorRT, GPU memory  the same plan on arrays that lie on the GPU
====================  ================================================================
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .arrays import numpy_view, return_freed_memory
from .engines import Engine, builder
from .errors import BadOption, MxtrtError
from .layers import LayerTime, with_nodes
from .operator import operators, release, report
from .options import Options, read_options
from .params import read_params
from .pipeline import explain
from .slow import Timing, why_slow
from .symbol import load_symbol, read_symbol
from .timing import interleaved_times, machine, percentile, resident_memory
from .trials import Arrays, Bound, Trial, largest_difference, random_array
from .whole_model import export_graph

MXNET, MXTRT, ON_GPU = "MXNet", "mxtrt", "GPU memory"
ROUNDS = 5
RUNS = 20  # of an optimised model whose parts are timed


@dataclass(frozen=True)
class Measured:
    """One column of a row.

    Attributes
    ----------
    milliseconds, p99 : float
        The median of a call, and what 99 of 100 calls do not exceed.
    per_second : float
        Rows of the batch by the median.
    calls : int
        How many were timed.
    build_seconds : float or None
        How long building took; None where nothing is built.
    memory_mib : float or None
        Memory that came with it: of the process, and of the GPU for engines there.
    difference : float or None
        The largest difference from MXNet, relative to MXNet's largest output.
    """

    milliseconds: float
    p99: float
    per_second: float
    calls: int
    build_seconds: float | None = None
    memory_mib: float | None = None
    difference: float | None = None


@dataclass(frozen=True)
class Row:
    """One batch size in one precision.

    Attributes
    ----------
    batch : int
        Rows fed at once.
    precision : str
        What TensorRT computes in.
    columns : mapping of str to Measured
        By name, MXNet first.
    parts, left : int
        The engines of the optimised symbol, and the operators that stay in MXNet.
    notes : list of str
        What could not be measured, and why.
    layers : list of LayerTime
        The layers of all parts, where they were asked for.
    slow : list of str
        Why it is slow where it is.
    """

    batch: int
    precision: str
    columns: Mapping[str, Measured]
    parts: int
    left: int
    notes: Sequence[str] = ()
    layers: Sequence[LayerTime] = ()
    slow: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the row for programs."""
        return {
            **vars(self),
            "columns": {name: vars(measured) for name, measured in self.columns.items()},
            "notes": list(self.notes),
            "layers": [{**vars(layer), "nodes": list(layer.nodes)} for layer in self.layers],
            "slow": list(self.slow),
        }


@dataclass(frozen=True)
class Results:
    """What was measured.

    Attributes
    ----------
    engine : str
        The kind of the engine.
    rows : list of Row
        For each precision and batch size.
    notes : list of str
        What was left out, and why.
    """

    engine: str
    rows: Sequence[Row]
    notes: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything, and what it was measured on."""
        return {
            "machine": machine(),
            "engine": self.engine,
            "rows": [row.to_dict() for row in self.rows],
            "notes": list(self.notes),
        }

    def table(self) -> list[list[str]]:
        """Return the results as rows of texts, the first as the head."""
        head = ["batch", "precision", "", "median ms", "p99 ms", "rows/s", "x MXNet",
                "difference", "build s", "memory MiB"]  # fmt: skip
        rows = [head]
        for row in self.rows:
            mxnet = row.columns[MXNET].milliseconds
            for name, m in row.columns.items():
                rows.append([
                    str(row.batch), row.precision, name, f"{m.milliseconds:.3f}", f"{m.p99:.3f}",
                    f"{m.per_second:.0f}", f"{mxnet / m.milliseconds:.2f}",
                    "" if m.difference is None else f"{m.difference:.1e}",
                    "" if m.build_seconds is None else f"{m.build_seconds:.1f}",
                    "" if m.memory_mib is None else f"{m.memory_mib:.0f}",
                ])  # fmt: skip
        return rows


def bench(
    symbol: str,
    params: str | None,
    *,
    batches: Sequence[int] = (),
    precisions: Sequence[str] = ("fp32",),
    seconds: float = 1.0,
    layers: bool = False,
    tell: Callable[[str], object] = lambda text: None,
    **options: Any,
) -> Results:
    """Measure a model in MXNet, through mxtrt, and in the engine alone.

    Parameters
    ----------
    symbol, params : path
        The files of a checkpoint.
    batches : sequence of int
        First sizes of the inputs; by default the one that the shapes state, else 1.
    precisions : sequence of str
        What TensorRT computes in, one after another.
    seconds : float
        How long each column is called, about.
    layers : bool
        Whether to time the layers, and to say why it is slow where it is.
    tell : callable
        Is told what is being measured.
    **options
        As `mxtrt.optimize` takes them.

    Raises
    ------
    UserError
        The model, the parameters or an option cannot be used.
    """
    stated = read_options(**{**options, "precision": precisions[0]})
    kind = _kind(stated)
    net = _Net(symbol, params, {**options, "engine": kind, "cache_dir": False})
    rows, notes = [], []
    for precision in precisions:
        if precision != "fp32" and kind == "onnxruntime":
            notes.append(
                f"{precision} is left out: ONNX Runtime on the CPU computes in the types of the "
                "model"
            )
            continue
        for batch in batches or (None,):
            feeds = net.feeds(batch)
            size = batch or _first_size(feeds)
            tell(f"batch {size}, {precision}")
            rows.append(net.measure(feeds, size, precision, seconds, layers))
    if not rows:
        raise BadOption(notes[0])
    return Results(kind, rows, notes)


def _kind(options: Options) -> str:
    """Return the engine that runs here."""
    low = Options(**{**vars(options), "precision": "fp32"})
    return builder(low if options.engine in ("auto", "onnxruntime") else options).kind


def _first_size(feeds: Arrays) -> int:
    shapes = [array.shape for array in feeds.values() if array.ndim]
    return shapes[0][0] if shapes else 1


class _Net:
    """A model that is measured with several batch sizes and precisions."""

    def __init__(self, symbol: str, params: str | None, options: Mapping[str, Any]) -> None:
        self.symbol, self.params = load_symbol(symbol), read_params(params).arrays
        self.options = options
        self.kind = str(options["engine"])
        self.inputs = explain(self.symbol, self.params, **options).inputs
        self._mxnet: dict[Any, tuple[Bound, Measured]] = {}

    def feeds(self, batch: int | None) -> dict[str, Any]:
        """Return random arrays for the inputs whose sizes are known, labels left out."""
        rng, feeds = np.random.default_rng(0), {}
        for value in self.inputs:
            given = self.options.get("shapes", {}).get(value.name, value.shape)
            if given is None or not given:
                continue
            best = [size[1] if isinstance(size, tuple) else size for size in given]
            best[0] = batch or best[0] or 1
            if None not in best:
                feeds[value.name] = random_array(rng, tuple(best), value)
        return feeds

    def measure(
        self, feeds: Arrays, batch: int, precision: str, seconds: float, layers: bool
    ) -> Row:
        """Measure one row."""
        options = {**self.options, "precision": precision, "shapes": self._shapes(feeds)}
        notes: list[str] = []
        with ExitStack() as stack:
            with _resources(self.kind, options) as came:
                trial = Trial(self.symbol, self.params, options)
                stack.callback(release, trial.optimized)
                complete = trial.with_random(feeds)
                mxtrt = Bound(trial.optimized, trial.kept, complete)
                found = mxtrt()
            ran = report(trial.optimized).engine if trial.report.parts else self.kind
            if ran != self.kind:
                notes.append(f"mxtrt ran in {ran} instead of {self.kind}")
            mxnet = Bound(trial.symbol, trial.params, complete)
            want = mxnet()
            calls: dict[str, Callable[[], Any]] = {MXNET: mxnet, MXTRT: mxtrt}
            more = {MXTRT: {**came, "difference": _difference(want, found)}}
            try:
                raw = stack.enter_context(self._raw(complete, options))
            except MxtrtError as error:
                notes.append(f"the whole model alone is left out: {error}")
            else:
                calls.update(raw.calls)
                more[raw.name] = {**raw.came, "difference": _difference(want, raw.found)}
            times = interleaved_times(calls, seconds=seconds, rounds=ROUNDS)
            columns = {n: _measured(t, batch, more.get(n, {})) for n, t in times.items()}
            timed, slow = self._layers(trial, complete, options, columns) if layers else ([], [])
        parts, left = len(trial.report.parts), len(trial.report.left)
        return Row(batch, precision, columns, parts, left, notes, timed, slow)

    def _shapes(self, feeds: Arrays) -> dict[str, Any]:
        """Return the shapes to build for: those that are fed, but for ranges that hold them."""
        shapes = {}
        for name, array in feeds.items():
            given = self.options.get("shapes", {}).get(name) or (None,) * array.ndim
            shapes[name] = tuple(
                size if isinstance(size, tuple) else fed for size, fed in zip(given, array.shape)
            )
        return {**self.options.get("shapes", {}), **shapes}

    @contextmanager
    def _raw(self, feeds: Arrays, options: Mapping[str, Any]) -> Iterator[_Raw]:
        """Yield the whole model in the engine alone."""
        checked = read_options(**options)
        proto, made = export_graph(read_symbol(self.symbol, self.params, checked))
        weights = {name: numpy_view(array) for name, array in made.weights.items()}
        names = {info.name for info in proto.graph.input}
        shapes = {name: sizes for name, sizes in checked.shapes.items() if name in names}
        make = _raw_session if self.kind == "onnxruntime" else _raw_plan
        with make(proto, weights, feeds, Options(**{**vars(checked), "shapes": shapes})) as raw:
            yield raw

    def _layers(
        self,
        trial: Trial,
        feeds: Arrays,
        options: Mapping[str, Any],
        columns: Mapping[str, Measured],
    ) -> tuple[list[LayerTime], list[str]]:
        """Return the times of the layers, and why it is slow where it is."""
        parts = operators(trial.optimized)
        if self.kind == "onnxruntime":
            layers = self._session_layers(feeds, options)
        else:
            layers = [
                layer
                for part in parts
                for layer in with_nodes(part.part, _plan_layers(part, feeds))
            ]
        milliseconds = {name: measured.milliseconds for name, measured in columns.items()}
        inside = _inside(trial, feeds)
        timing = Timing(self.kind, milliseconds, inside, len(parts), len(trial.report.left), layers)
        return layers, why_slow(timing)

    def _session_layers(self, feeds: Arrays, options: Mapping[str, Any]) -> list[LayerTime]:
        """Return the layers of ONNX Runtime's sessions, of a model that is optimised anew."""
        from .engines._profiling import profile_files, session_layers

        with profile_files() as settings:
            given = {**options.get("session_options", {}), **settings}
            trial = Trial(self.symbol, self.params, {**options, "session_options": given})
            bound = Bound(trial.optimized, trial.kept, feeds)
            for _ in range(RUNS):
                bound()
            layers: list[LayerTime] = []
            for part in operators(trial.optimized):
                session = part.engine.session  # type: ignore[attr-defined]
                layers += with_nodes(part.part, session_layers(session))
            release(trial.optimized)
        return layers


def _measured(times: Sequence[float], batch: int, more: Mapping[str, Any]) -> Measured:
    median = statistics.median(times)
    return Measured(1e3 * median, 1e3 * percentile(times, 99), batch / median, len(times), **more)


def _difference(want: Sequence[Any], found: Sequence[Any]) -> float:
    """Return the largest difference, relative to the largest output."""
    largest = max((float(np.max(np.abs(array), initial=0)) for array in want), default=0.0)
    difference = max((largest_difference(a, b) for a, b in zip(want, found)), default=0.0)
    return difference / largest if largest else difference


def _inside(trial: Trial, feeds: Arrays) -> float:
    """Return the milliseconds of a forward pass that its engines take, the median."""
    parts, taken = operators(trial.optimized), [0.0]
    for part in parts:
        part.execute = _timed(part.engine, taken)
    try:
        bound, passes = Bound(trial.optimized, trial.kept, feeds), []
        bound()
        for _ in range(RUNS):
            taken[0] = 0.0
            bound()
            passes.append(taken[0])
    finally:
        for part in parts:
            part.execute = part.engine.execute
    return 1e3 * statistics.median(passes)


def _timed(engine: Engine, taken: list[float]) -> Callable[..., None]:
    def execute(*arguments: Any) -> None:
        start = time.perf_counter()
        engine.execute(*arguments)
        taken[0] += time.perf_counter() - start

    return execute


# -- the engine alone --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Raw:
    """The whole model in the engine alone."""

    name: str
    calls: Mapping[str, Callable[[], Any]]
    found: Sequence[Any]
    came: Mapping[str, float] = field(default_factory=dict)


@contextmanager
def _raw_session(
    proto: Any, weights: Mapping[str, Any], feeds: Arrays, options: Options
) -> Iterator[_Raw]:
    from .engines._raw import RawSession
    from .engines.onnxruntime import num_threads

    with _resources("onnxruntime", vars(options)) as came:
        session = RawSession(proto, weights, feeds, num_threads())
        found = session()
    try:
        yield _Raw("ONNX Runtime", {"ONNX Runtime": session}, found, came)
    finally:
        session.close()


@contextmanager
def _raw_plan(
    proto: Any, weights: Mapping[str, Any], feeds: Arrays, options: Options
) -> Iterator[_Raw]:
    from .engines._plans import find_maker, load_plan, make_plan
    from .engines._raw import RawPlan

    with ExitStack() as stack:
        with _resources(options.engine, vars(options)) as came:
            plan, info = make_plan(find_maker(options, ()), proto, weights, options)
            loaded = load_plan(
                "the plan", bytes(plan), info, engine=options.engine, device=options.device,
                contexts=1, cuda_graph=options.cuda_graph,
            )  # fmt: skip
            stack.callback(loaded.close)
            stack.enter_context(loaded.gpu)
            raw = RawPlan(loaded, feeds)
            stack.callback(raw.close)
            found = [array.copy() for array in raw.numpy()]
        title = loaded.api.title
        calls: dict[str, Callable[[], Any]] = {title: raw.numpy, f"{title}, {ON_GPU}": raw.raw}
        if raw.captured is not None:
            calls[f"{title}, {ON_GPU}, CUDA graph"] = raw.graph
        yield _Raw(title, calls, found, came)


def _plan_layers(part: Any, feeds: Arrays) -> list[LayerTime]:
    """Return the layers of a part's plan, fed with what the model is fed, or else with ones."""
    from .engines._profiling import plan_layers

    engine = getattr(part.engine, "_engine", part.engine)  # behind ONNX Runtime
    layers: list[LayerTime] = []
    for profile, plan in engine._plans.get(engine.options.device, ()) if engine else ():
        given = {
            tensor.name: feeds.get(tensor.name, np.ones([s[1] for s in sizes], tensor.dtype))
            for tensor, sizes in zip(plan.inputs, profile.inputs)
            if tensor is not None
        }
        with plan.gpu:
            layers += plan_layers(plan, given)
    return layers


@contextmanager
def _resources(kind: str, options: Mapping[str, Any]) -> Iterator[dict[str, float]]:
    """Measure the seconds and the memory of what is made inside; yields them afterwards."""
    came: dict[str, float] = {}
    return_freed_memory()
    before, on_gpu, start = resident_memory(), _gpu_memory(kind, options), time.perf_counter()
    yield came
    came["build_seconds"] = time.perf_counter() - start
    return_freed_memory()
    used = resident_memory() - before if on_gpu is None else _gpu_memory(kind, options) - on_gpu
    came["memory_mib"] = max(0, used) / 2**20


def _gpu_memory(kind: str, options: Mapping[str, Any]) -> Any:
    """Return the bytes that are in use on the GPU, or None for an engine on the CPU."""
    if kind == "onnxruntime":
        return None
    from .engines import _cuda

    gpu = _cuda.gpu(options.get("device") or 0)
    with gpu:
        free, total = gpu.memory()
    return total - free
