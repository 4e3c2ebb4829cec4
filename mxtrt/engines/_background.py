"""Builds in another thread, while something else serves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ..errors import EngineError

log = logging.getLogger("mxtrt")


class BackgroundBuilds:
    """One build after another for the calls that found no plan; none any more once one has failed.

    The process does not end before a build has returned: TensorRT would run on while what it uses
    is torn down. Where it can be asked to stop, `Watch` does so.

    Parameters
    ----------
    name : str
        What is built, for messages.

    Attributes
    ----------
    error : EngineError or None
        Why a build failed.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.error: EngineError | None = None

    def start(self, build: Callable[[], object]) -> None:
        """Call `build`, unless a build is going on or has failed."""
        with self._lock:
            is_busy = self._thread is not None and self._thread.is_alive()
            if is_busy or self.error is not None:
                return
            thread = threading.Thread(
                target=self._run, args=(build,), name=f"build of {self._name}"
            )
            try:
                thread.start()
            except RuntimeError as error:  # the process is ending
                log.debug("%s is not built: %s", self._name, error)
                return
            self._thread = thread
        log.info("%s is being built in the background", self._name)

    def wait(self, seconds: float | None = None) -> None:
        """Wait until no build is going on."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _run(self, build: Callable[[], object]) -> None:
        try:
            build()
        except EngineError as error:
            self.error = error
        except Exception as error:  # nobody else would see it
            self.error = EngineError(f"{type(error).__name__}: {error}")
