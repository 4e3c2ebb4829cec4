"""What the engines of a model have done since they were made: calls, builds, time.

Counting costs a call some 0.3 µs. It takes no lock, because a fork may find one taken: from Python
3.10 on a thread is not interrupted between reading a counter and writing it.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .graph import align_columns

if TYPE_CHECKING:
    from ._bridge import Buffer
    from .engines import Engine

Execute = Callable[[Sequence["Buffer"], Sequence["Buffer"], int], None]

RECENT = 100  # calls that the median is of


@dataclass(frozen=True)
class PartRuntime:
    """What the engine of one part has done.

    Calls that MXNet has queued and not yet run are not in it: ``mx.nd.waitall()`` first, to have
    them all.

    Attributes
    ----------
    name : str
        The part's name.
    engine : str
        What runs it now.
    calls : int
        How often it ran.
    failures : int
        How many more runs raised an error.
    seconds : float
        In all calls together, builds that they waited for included. For arrays on a GPU it is the
        time in which a call is enqueued.
    median : float
        Seconds that half of the last 100 calls took at most; 0 before the first call.
    builds : int
        Engines built: the first one, one for each new range of sizes or GPU (TensorRT), one for
        each change of a Gluon block's weights, and ONNX Runtime's where it had to step in.
    build_seconds : float
        What they took together.
    cache_hits : int
        Engines that the store or a saved file had, so that they were not built.
    fallbacks : int
        Calls that ONNX Runtime ran in the place of another engine.
    """

    name: str
    engine: str
    calls: int
    failures: int
    seconds: float
    median: float
    builds: int
    build_seconds: float
    cache_hits: int
    fallbacks: int


@dataclass(frozen=True)
class Runtime:
    """What the engines of a model have done so far; ``print`` shows a table.

    What is built, and when: ONNX Runtime's engine of a part is built by `mxtrt.optimize` and takes
    all sizes. TensorRT's is built by `mxtrt.optimize` where `shapes` state all sizes, else in the
    first call; a call with sizes outside the range that it was built for builds one more, in the
    place of the narrower one, and so does each GPU. A change of weights in a Gluon block builds all
    of its engines anew, in its next call. What the store has is loaded instead.

    Attributes
    ----------
    parts : tuple of PartRuntime
        One for each part.
    """

    parts: tuple[PartRuntime, ...]

    @property
    def calls(self) -> int:
        """How often parts ran."""
        return sum(part.calls for part in self.parts)

    @property
    def builds(self) -> int:
        """How many engines were built."""
        return sum(part.builds for part in self.parts)

    @property
    def cache_hits(self) -> int:
        """How many engines came from the store or a saved file instead."""
        return sum(part.cache_hits for part in self.parts)

    @property
    def fallbacks(self) -> int:
        """How many calls ONNX Runtime ran in the place of another engine."""
        return sum(part.fallbacks for part in self.parts)

    @property
    def seconds(self) -> float:
        """How long the calls took together."""
        return sum(part.seconds for part in self.parts)

    def __str__(self) -> str:
        """Return a table with a line for each part."""
        titles = ("part", "calls", "failed", "median", "total", "builds", "cache hits", "fallbacks")
        rows = [(*titles, "engine"), *map(_row, self.parts)]
        return "\n".join(align_columns(rows))

    def to_dict(self) -> dict[str, Any]:
        """Return numbers, strings, lists and dicts: the sums, and ``parts`` with each part's."""
        sums = ("calls", "builds", "cache_hits", "fallbacks", "seconds")
        numbers = {name: getattr(self, name) for name in sums}
        return {**numbers, "parts": [asdict(part) for part in self.parts]}


class RunRecord:
    """Counts the calls of one engine, and of those whose place it took.

    Parameters
    ----------
    engine : Engine
        What runs. Its ``origins`` and ``fallbacks`` are read where it has them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.calls = self.failures = 0
        self.seconds = 0.0
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._earlier: PartRuntime | None = None

    def counted(self, execute: Execute) -> Execute:
        """Return `execute` so that its calls are counted."""
        remember = self._recent.append

        def run(inputs: Sequence[Buffer], outputs: Sequence[Buffer], stream: int) -> None:
            start = perf_counter()
            try:
                execute(inputs, outputs, stream)
            except BaseException:
                self.failures += 1
                raise
            seconds = perf_counter() - start
            self.calls += 1
            self.seconds += seconds
            remember(seconds)

        return run

    def follow(self, earlier: RunRecord) -> None:
        """Count on from the record of the engine whose place this one takes."""
        self._earlier = earlier.read("")

    def read(self, name: str) -> PartRuntime:
        """Return the numbers of now, for a part of this name."""
        origins = [origin for _, origin in tuple(getattr(self._engine, "origins", ()))]
        built = [origin.seconds for origin in origins if not origin.stored]
        recent = tuple(self._recent)
        now = PartRuntime(
            name,
            self._engine.kind,
            self.calls,
            self.failures,
            self.seconds,
            statistics.median(recent) if recent else 0.0,
            len(built),
            sum(built),
            len(origins) - len(built),
            getattr(self._engine, "fallbacks", 0),
        )
        return now if self._earlier is None else _sum(self._earlier, now)


def _sum(earlier: PartRuntime, now: PartRuntime) -> PartRuntime:
    return PartRuntime(
        now.name,
        now.engine,
        earlier.calls + now.calls,
        earlier.failures + now.failures,
        earlier.seconds + now.seconds,
        now.median if now.calls else earlier.median,
        earlier.builds + now.builds,
        earlier.build_seconds + now.build_seconds,
        earlier.cache_hits + now.cache_hits,
        earlier.fallbacks + now.fallbacks,
    )


def _row(part: PartRuntime) -> tuple[str, ...]:
    builds = f"{part.builds} ({part.build_seconds:.2f} s)" if part.builds else "0"
    return (
        *(part.name, f"{part.calls}", f"{part.failures}"),
        *(f"{part.median * 1e3:.3f} ms", f"{part.seconds:.2f} s"),
        *(builds, f"{part.cache_hits}", f"{part.fallbacks}", part.engine),
    )
