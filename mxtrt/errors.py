"""Every error that mxtrt raises on purpose, as one tree.

    MxtrtError
    ├── UserError                  something the caller can change
    │   ├── MXNetNotInstalled      no distribution of MXNet is installed (an ImportError)
    │   ├── BadModel               a symbol or params file cannot be read (a ValueError)
    │   ├── BadPlan                a plan's file is damaged, or of another GPU or version
    │   ├── BadParams              parameters are missing, left over, or of a wrong shape or dtype
    │   ├── BadOption              an option or one of its values does not exist (a ValueError)
    │   ├── BadConverter           a converter cannot be registered or called (a ValueError)
    │   ├── NotExportable          operators of a model that ONNX cannot say (a ValueError)
    │   ├── BadStore               the store of engines cannot be used
    │   ├── ShapeNeeded            a shape has to be passed (a ValueError)
    │   ├── ShapesDisagree         shapes or dtypes that do not fit the model (a ValueError)
    │   ├── EngineNotAvailable     the engine that was asked for cannot run here
    │   ├── ProgramNotAvailable    a program outside Python is not installed
    │   ├── InferenceOnly          an optimised block was called for training (a RuntimeError)
    │   └── WeightsChanged         parameters changed, and the engines hold the old ones
    ├── UnsupportedOp              why one node stays in MXNet; caught by the partitioner
    └── EngineError                an engine failed while it was built or run

The command line prints a ``UserError`` as one sentence; anything else keeps its traceback.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class MxtrtError(Exception):
    """Base of every error that mxtrt raises on purpose."""


class UserError(MxtrtError):
    """Something the caller can change: a file, an argument, an installation."""


class MXNetNotInstalled(UserError, ImportError):
    """No distribution of MXNet is installed."""


class BadModel(UserError, ValueError):
    """A symbol or params file cannot be read."""


class BadPlan(UserError, ValueError):
    """A plan's file is damaged, or was built for another GPU or version."""


class BadParams(UserError, ValueError):
    """Parameters are missing, left over, or of a wrong shape or dtype."""


class BadOption(UserError, ValueError):
    """An option, or one of its values, does not exist."""


class BadConverter(UserError, ValueError):
    """A converter cannot be registered, or returned something else than names of tensors."""


class NotExportable(UserError, ValueError):
    """A model has operators that ONNX cannot say: all of them, each with its reason."""


class BadStore(UserError):
    """The store of engines cannot be used."""


class ShapeNeeded(UserError, ValueError):
    """A shape has to be passed."""


class ShapesDisagree(UserError, ValueError):
    """Shapes or dtypes do not fit the model, or an array does not fit an engine."""


class EngineNotAvailable(UserError):
    """The engine that was asked for cannot run here."""


class ProgramNotAvailable(UserError):
    """A program outside Python, such as Graphviz, is not installed."""


class InferenceOnly(UserError, RuntimeError):
    """An optimised block was called for training: engines have no gradients."""


class WeightsChanged(UserError, RuntimeError):
    """Parameters have changed since engines were built with them."""


class UnsupportedOp(MxtrtError):
    """Why one node stays in MXNet: the sentence that the report shows."""


class EngineError(MxtrtError):
    """An engine failed while it was built or run."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name nearest to `name`, or ``""``."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""


def mxnet_sentence(error: Exception) -> str:
    """Return what an error of MXNet says, without its stack, places in the source and times."""
    text = str(error).split("Stack trace", maxsplit=1)[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = lines[-1] if lines else type(error).__name__
    said = said.removeprefix("MXNetError: ")
    return re.sub(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ", "", said)
