"""What people see: reports, and that work goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..reports import Report

PATIENCE = 2.0  # seconds without a sign of life


def print_report(report: Report) -> None:
    """Print a report, in colours on a terminal."""
    from rich.console import Console

    Console().print(report, soft_wrap=True)


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """Show on a terminal's stderr that work goes on once it has taken `PATIENCE` seconds.

    Yields
    ------
    callable
        Says that one of `total` steps is done.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from ..engines._progress import shared

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}", markup=False),  # a model's name may have brackets
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%", markup=False),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task(what, total=total)
    timer = threading.Timer(PATIENCE, bar.start)
    timer.start()
    try:
        with shared(bar):
            yield lambda: bar.advance(task)
    finally:
        timer.cancel()
        timer.join()  # it may be about to start the bar
        if bar.live.is_started:
            bar.stop()
