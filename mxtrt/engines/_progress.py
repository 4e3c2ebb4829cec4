"""Signs of life while TensorRT builds, and how a build ends early: Ctrl-C, or the process ends."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress

PATIENCE = 2.0  # seconds without a sign of life
MAX_DETAIL = 40  # characters of a phase, or of a layer's name

_TIMED = re.compile(r"Timing Runner: (.+) \(")  # how versions without a monitor name a layer

_shared_bar: Progress | None = None


class Watch:
    """A build that is going on.

    Parameters
    ----------
    what : str
        What is built, for people.

    Attributes
    ----------
    cancelled : bool
        Whether Ctrl-C was pressed.
    """

    def __init__(self, what: str) -> None:
        self.what, self.cancelled = what, False
        self._phases: dict[str, list[int]] = {}  # those that run: steps done, and steps in all
        self._layer = ""
        self._monitor: Any = None  # TensorRT does not keep it alive

    def __str__(self) -> str:
        """Return what is built, and what the builder does just now."""
        detail = self._layer
        for phase, (done, steps) in reversed(tuple(self._phases.items())):
            if steps > 1:
                detail = f"{_cut(phase)} {min(done, steps)}/{steps}"
                break
        return f"{self.what}: {detail}" if detail else self.what

    @property
    def goes_on(self) -> bool:
        """Whether the result is still wanted."""
        return not self.cancelled and threading.main_thread().is_alive()

    def hear(self, text: str) -> None:
        """Take one of TensorRT's messages."""
        found = _TIMED.search(text)
        if found is not None:
            self._layer = f"times {_cut(found.group(1))}"

    def follow(self, trt: Any, config: Any) -> None:
        """Let a builder tell what it does, and ask whether to go on, if this version can."""
        if hasattr(trt, "IProgressMonitor") and hasattr(config, "progress_monitor"):
            self._monitor = type("Monitor", (trt.IProgressMonitor,), _monitor_members(trt, self))()
            config.progress_monitor = self._monitor


def _monitor_members(trt: Any, watch: Watch) -> dict[str, Any]:
    phases = watch._phases

    def __init__(self: Any) -> None:  # noqa: N807
        trt.IProgressMonitor.__init__(self)

    def phase_start(self: Any, name: str, parent: str | None, steps: int) -> None:
        phases[name] = [0, steps]

    def step_complete(self: Any, name: str, step: int) -> bool:
        if name in phases:
            phases[name][0] = step + 1
        return watch.goes_on

    def phase_finish(self: Any, name: str) -> None:
        phases.pop(name, None)

    return {
        "__init__": __init__,
        "phase_start": phase_start,
        "step_complete": step_complete,
        "phase_finish": phase_finish,
    }


def _cut(text: str) -> str:
    return text if len(text) <= MAX_DETAIL else f"{text[: MAX_DETAIL - 1]}…"


@contextmanager
def building(logger: Any, what: str, *, show: bool) -> Iterator[Watch]:
    """Show on a terminal that a build goes on, and put off Ctrl-C until TensorRT has returned.

    Parameters
    ----------
    logger : Logger
        TensorRT's.
    what : str
        What is built.
    show : bool
        Whether to write to a terminal at all; ``MXTRT_PROGRESS=0`` says no as well.

    Raises
    ------
    KeyboardInterrupt
        It was pressed meanwhile.
    """
    watch = Watch(what)
    with interrupts_later(watch), _shown(watch, show=show):
        logger.listeners.append(watch.hear)
        try:
            yield watch
        finally:
            logger.listeners.remove(watch.hear)


@contextmanager
def interrupts_later(watch: Watch | None = None) -> Iterator[None]:
    """Put off Ctrl-C: an exception in what TensorRT calls in between would get lost in there.

    Raises
    ------
    KeyboardInterrupt
        It was pressed meanwhile.
    """
    noted = watch or Watch("")
    usual = signal.default_int_handler
    on_main = threading.current_thread() is threading.main_thread()
    if not on_main or signal.getsignal(signal.SIGINT) is not usual:
        yield
        return

    def note(number: int, frame: object) -> None:
        noted.cancelled = True

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if noted.cancelled:  # also in place of the error of a build that was cancelled
            raise KeyboardInterrupt


# -- the line on the terminal ------------------------------------------------------------------


@contextmanager
def shared(bar: Progress) -> Iterator[None]:
    """Let builds add their lines to a bar that is on the terminal already."""
    global _shared_bar
    before, _shared_bar = _shared_bar, bar
    try:
        yield
    finally:
        _shared_bar = before


@contextmanager
def _shown(watch: Watch, *, show: bool) -> Iterator[None]:
    wanted = show and os.environ.get("MXTRT_PROGRESS", "1") != "0"
    if not wanted or not sys.stderr or not sys.stderr.isatty():
        yield
        return
    bar = _shared_bar
    with _own_bar() if bar is None else _as_it_is(bar) as bar:
        task = bar.add_task(watch.what, total=None)
        ended = threading.Event()

        def refresh() -> None:
            while not ended.wait(0.2):
                bar.update(task, description=str(watch))

        refreshing = threading.Thread(target=refresh, name="mxtrt-progress", daemon=True)
        refreshing.start()
        try:
            yield
        finally:
            ended.set()
            refreshing.join()
            bar.remove_task(task)


@contextmanager
def _own_bar() -> Iterator[Progress]:
    """Yield a bar that appears after `PATIENCE` seconds and leaves nothing behind."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    # a name may have brackets, which are no markup
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    timer = threading.Timer(PATIENCE, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield bar
    finally:
        timer.cancel()
        timer.join()  # it may be about to start the bar
        if bar.live.is_started:
            bar.stop()


@contextmanager
def _as_it_is(bar: Progress) -> Iterator[Progress]:
    yield bar
