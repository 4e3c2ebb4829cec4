"""Optimised models at work in this process: fed from files, and compared with MXNet."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import mxnet as mx
import numpy as np

from .array_files import cast, join
from .errors import BadModel, BadOption, ShapeNeeded, ShapesDisagree, nearest
from .graph import Shape, Value, format_shape
from .operator import report
from .params import ParamsLike, read_params
from .pipeline import ModelLike, explain, optimize
from .saved import load
from .symbol import load_symbol
from .timing import interleaved_times

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]

SECONDS = 2.0  # that a measurement of speed takes, about
TURNS = 5  # of each candidate


class Trial:
    """A model from files, as it is and optimised.

    Parameters
    ----------
    symbol : path or mxnet.sym.Symbol
        The model's ``-symbol.json``, or the model.
    params : path, dict or None
        Its ``.params`` file, or its parameters.
    options : mapping
        What `mxtrt.optimize` takes.
    """

    def __init__(self, symbol: ModelLike, params: ParamsLike, options: Mapping[str, Any]) -> None:
        arrays = read_params(params).arrays
        self.options = options
        self.symbol, self.params = load_symbol(symbol), arrays or {}
        self.optimized, kept = optimize(self.symbol, arrays, **options)
        self.kept = kept or {}
        try:
            self.report = report(self.optimized)
        except BadModel:  # nothing moved
            self.report = explain(self.symbol, arrays, **options)

    @classmethod
    def of_saved(cls, prefix: str, options: Mapping[str, Any]) -> Trial:
        """Return a model that `mxtrt.save` wrote; see `mxtrt.load` for the options."""
        trial = cls.__new__(cls)
        trial.optimized, (args, auxs) = load(prefix, **options)
        trial.symbol, trial.kept = trial.optimized, {**args, **auxs}
        trial.params, trial.options = trial.kept, options
        try:
            trial.report = report(trial.optimized)
        except BadModel:  # nothing had moved
            trial.report = explain(trial.symbol, trial.kept)
        return trial

    def feeds(self, given: Arrays) -> dict[str, Array]:
        """Return the given arrays in the dtypes that the model reads.

        Raises
        ------
        BadOption
            The model has no such input.
        ShapesDisagree
            Casting an array to the input's dtype would change its values.
        """
        inputs = {value.name: value for value in self.report.inputs}
        reads = self.data_inputs()
        if "" in given and len(reads) == 1:
            if reads[0].name in given:
                raise BadOption(f"the input {reads[0].name!r} is given twice")
            given = {name or reads[0].name: array for name, array in given.items()}
        for name in given:
            if not name:
                names = ", ".join(value.name for value in reads) or "nothing"
                raise BadOption(f"the model reads {names}; pass --input NAME=FILE")
            if name not in inputs:
                raise BadOption(f"the model has no input {name!r}{nearest(name, inputs)}")
        return {name: cast(array, name, inputs[name].dtype) for name, array in given.items()}

    def with_random(self, feeds: Arrays) -> dict[str, Array]:
        """Return the feeds, and random arrays for the inputs that are not among them.

        Raises
        ------
        ShapeNeeded
            A size other than the first one of an input is not known.
        """
        self._check_sizes(feeds)
        shapes = {name: array.shape for name, array in feeds.items()}
        rng = np.random.default_rng(0)
        complete = dict(feeds)
        for value in self.report.inputs:
            if value.name in complete:
                continue
            shape = self._implied_shapes(shapes).get(value.name)
            shapes[value.name] = self._assumed_shape(value) if shape is None else shape
            complete[value.name] = random_array(rng, shapes[value.name], value)
        return complete

    def with_labels(self, feeds: Arrays) -> dict[str, Array]:
        """Return the feeds, and zeros for labels: inference does not read them.

        Raises
        ------
        BadOption
            An input that is no label is missing.
        """
        self._check_sizes(feeds)
        complete = dict(feeds)
        shapes = self._implied_shapes({name: array.shape for name, array in feeds.items()})
        read = set(self.optimized.list_arguments())
        for value in self.report.inputs:
            if value.name in complete or value.name not in read:
                continue
            if not value.name.endswith("label") or value.name not in shapes:
                raise BadOption(f"the model reads {value}; pass --input {value.name}=FILE.npy")
            complete[value.name] = np.zeros(shapes[value.name], value.dtype)
        return complete

    def run(
        self,
        batches: Iterable[Arrays],
        advance: Callable[[], object] = lambda: None,
        *,
        fill: bool = False,
    ) -> tuple[dict[str, Array], list[float]]:
        """Return the outputs by name, those of all batches joined, and the seconds of each batch.

        Parameters
        ----------
        batches : iterable of mapping of str to array
            What to feed.
        advance : callable
            Is called after each batch.
        fill : bool
            Where the model reads a fixed number of rows and a batch has fewer, add rows and take
            them out of the outputs.

        Raises
        ------
        ShapesDisagree
            The model does not take these shapes, or has an output that cannot be joined.
        """
        executors: dict[Any, Bound] = {}
        parts: list[list[Array]] = []
        rows, seconds = [], []
        for given in batches:
            count = len(next(iter(given.values()))) if given else 0
            feeds = self._filled(given, count) if fill else given
            shapes = tuple(array.shape for array in feeds.values())
            if shapes not in executors:
                executors[shapes] = Bound(self.optimized, self.kept, self.with_labels(feeds))
            bound = executors[shapes]
            bound.feed(feeds)
            start = time.perf_counter()
            made = bound()
            seconds.append(time.perf_counter() - start)
            parts.append(made if feeds is given else [array[:count] for array in made])
            rows.append(count)
            advance()
        names = _unique(self.optimized.list_outputs())
        outputs = [join(name, arrays, rows) for name, arrays in zip(names, zip(*parts))]
        return dict(zip(names, outputs)), seconds

    def data_inputs(self) -> list[Value]:
        """Return the inputs that somebody has to feed: no labels."""
        read = set(self.optimized.list_arguments())
        values = [v for v in self.report.inputs if v.name in read]
        return [v for v in values if not v.name.endswith("label")] or values

    def _filled(self, feeds: Arrays, count: int) -> Arrays:
        """Return a batch with its last row repeated until the model's own number is reached."""
        shapes = [v.shape for v in self.report.inputs if v.name in feeds]
        needs = {shape[0] for shape in shapes if shape}
        fixed = next(iter(needs)) if len(needs) == 1 else None
        if fixed is None or not 0 < count < fixed:
            return feeds
        return {
            name: np.concatenate([array, np.repeat(array[-1:], fixed - count, axis=0)])
            for name, array in feeds.items()
        }

    def _check_sizes(self, feeds: Arrays) -> None:
        for value in self.report.inputs:
            if value.name in feeds and not _fits(feeds[value.name].shape, value.shape):
                has, needs = (format_shape(s) for s in (feeds[value.name].shape, value.shape))
                raise ShapesDisagree(f"{value.name!r} is {has}, and the model reads {needs}")

    def _implied_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of inputs that follow from those of others."""
        names = self.symbol.list_arguments()
        known = {name: array.shape for name, array in self.params.items() if name in names}
        try:
            found, _, _ = self.symbol.infer_shape_partial(**{**known, **shapes})
        except mx.base.MXNetError as error:
            raise ShapesDisagree(_sentence(error)) from None
        return {name: shape for name, shape in zip(names, found or ()) if shape and 0 not in shape}

    def _assumed_shape(self, value: Value) -> tuple[int, ...]:
        """Return an input's shape, with 1 for an unknown batch size and ranges at their best."""
        ranges = self.options.get("shapes", {}).get(value.name, ())
        best = [size[1] if isinstance(size, tuple) else size for size in ranges]
        shape = list(best or value.shape or ())
        if shape and shape[0] is None:
            shape[0] = 1
        if not shape or None in shape:
            raise ShapeNeeded(
                f"the model reads {value}, whose sizes are not all known; pass "
                f"--input {value.name}=FILE.npy, or all sizes, such as --shape {_example(value)}"
            )
        return tuple(int(size or 0) for size in shape)


# -- comparing ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """An optimised model beside MXNet.

    Attributes
    ----------
    differences : mapping of str to pair of float
        For each output the largest difference, and the largest value in MXNet's.
    mxnet, mxtrt : float
        Seconds of a forward pass, the median.
    passes : int
        How many of each were timed, in turns.
    """

    differences: Mapping[str, tuple[float, float]]
    mxnet: float
    mxtrt: float
    passes: int

    def lines(self) -> Iterable[str]:
        """Yield what a person wants to know, line by line."""
        for name, (difference, largest) in self.differences.items():
            yield f"{name}: differs by at most {difference:.2g} (values up to {largest:.3g})"
        yield f"MXNet  {1000 * self.mxnet:9.3f} ms   (medians of {self.passes} passes, in turns)"
        yield f"mxtrt  {1000 * self.mxtrt:9.3f} ms   {speed_up(self.mxnet, self.mxtrt)}"


def compare(trial: Trial, feeds: Arrays) -> Comparison:
    """Run a model in MXNet and optimised, on arrays for all of its inputs.

    Raises
    ------
    UserError
        The arrays do not fit, or a size is needed.
    """
    before = Bound(trial.symbol, trial.params, feeds)
    after = Bound(trial.optimized, trial.kept, feeds)
    names = _unique(trial.symbol.list_outputs())
    differences = {
        name: (largest_difference(a, b), float(np.max(np.abs(a), initial=0)))
        for name, a, b in zip(names, before(), after())
    }
    calls = {"MXNet": before, "mxtrt": after}
    times = interleaved_times(calls, seconds=SECONDS / 2, rounds=TURNS, equally_often=True)
    slow, fast = times["MXNet"], times["mxtrt"]
    return Comparison(differences, median(slow), median(fast), len(slow))


def largest_difference(expected: Array, found: Array) -> float:
    """Return the largest absolute difference; equal infinities and NaN differ by nothing."""
    if not expected.size:
        return 0.0
    one, two = expected.astype("float64"), found.astype("float64")
    same = (one == two) | (np.isnan(one) & np.isnan(two))
    with np.errstate(invalid="ignore"):
        return float(np.where(same, 0, np.abs(one - two)).max())


def speed_up(before: float, after: float) -> str:
    """Return how the second of two times compares with the first, in words."""
    ratio = before / after
    return f"{ratio:.2f} times as fast" if ratio >= 1 else f"{1 / ratio:.2f} times as slow"


# -- details -----------------------------------------------------------------------------------


class Bound:
    """A symbol with arrays for all it reads, ready to run."""

    def __init__(self, symbol: mx.sym.Symbol, params: Mapping[str, Any], feeds: Arrays) -> None:
        arrays = {**params, **{name: mx.nd.array(a, dtype=a.dtype) for name, a in feeds.items()}}
        try:
            self.executor = symbol.bind(
                mx.cpu(),
                {name: arrays[name] for name in symbol.list_arguments()},
                aux_states={name: arrays[name] for name in symbol.list_auxiliary_states()},
                grad_req="null",
            )
        except mx.base.MXNetError as error:
            raise ShapesDisagree(_sentence(error)) from None

    def feed(self, arrays: Arrays) -> None:
        """Write arrays into those that are bound."""
        for name, array in arrays.items():
            if name in self.executor.arg_dict:
                self.executor.arg_dict[name][:] = array

    def __call__(self) -> list[Array]:
        """Run and return the outputs."""
        try:
            return [array.asnumpy() for array in self.executor.forward(is_train=False)]
        except mx.base.MXNetError as error:
            raise ShapesDisagree(_sentence(error)) from None


def _fits(shape: tuple[int, ...], known: Shape) -> bool:
    if known is None:
        return True
    return len(shape) == len(known) and all(k in {None, n} for n, k in zip(shape, known))


def random_array(rng: np.random.Generator, shape: tuple[int, ...], value: Value) -> Array:
    """Return something to feed to an input."""
    if value.name.endswith("label"):
        return np.zeros(shape, value.dtype)
    if np.dtype(value.dtype).kind in "iub":
        return rng.integers(0, 2, shape).astype(value.dtype)
    return rng.standard_normal(shape).astype(value.dtype)


def _unique(names: Iterable[str]) -> list[str]:
    """Return the names, numbered where one comes again: ``x``, ``x#2``."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return unique


def _example(value: Value) -> str:
    shape = (None, 3, None, None) if value.shape is None else value.shape
    sizes = [1 if i == 0 else size or 224 for i, size in enumerate(shape)]
    return f"{value.name}={','.join(map(str, sizes))}"


def _sentence(error: Exception) -> str:
    """Return mxtrt's own sentence in MXNet's message, or the line of it that says something."""
    own = re.search(r"\[0\] (.*)", str(error))
    if own:
        return own[1]
    lines = [line for line in str(error).splitlines() if line.startswith("MXNetError: ")]
    return lines[0].split(": ", maxsplit=1)[1] if lines else str(error).splitlines()[0]
