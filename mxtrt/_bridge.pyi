"""Types and documentation of ``_bridge.pyx``."""

from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

class Buffer:
    """An MXNet array, seen from an engine: its memory, not a copy of it.

    Valid only while ``execute`` runs: MXNet may free or reuse the memory afterwards. Then
    ``address`` is 0 and ``to_numpy`` raises; a view taken earlier must not be touched any more.

    Attributes
    ----------
    shape : tuple of int
    dtype : int
        MXNet's type flag: 0 float32, 1 float64, 2 float16, 3 uint8, 4 int32, 5 int8, 6 int64,
        7 bool, 12 bfloat16.
    device_type : int
        1 for CPU memory, 2 for GPU memory.
    device_id : int
    """

    @property
    def address(self) -> int:
        """Where the data begins; 0 once ``execute`` has returned."""
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> int: ...
    @property
    def device_type(self) -> int: ...
    @property
    def device_id(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def to_numpy(self) -> NDArray[Any]:
        """View the memory as an array; writing to it writes to MXNet's array.

        Raises
        ------
        ValueError
            For GPU memory, for bfloat16, and after ``execute`` has returned.
        """

class Part(Protocol):
    """What can be registered: it is called from several threads at once.

    An exception becomes MXNet's ``MXNetError``, at the usual place, with its text inside.
    """

    def infer_shape(self, shapes: list[tuple[int, ...]], /) -> Sequence[Sequence[int]]:
        """Return the shape of each output for these input shapes."""
    def infer_type(self, types: list[int], /) -> tuple[Sequence[int], Sequence[int]]:
        """Return the type flags of inputs and outputs; -1 stands for unknown."""
    def execute(self, inputs: list[Buffer], outputs: list[Buffer], stream: int, /) -> None:
        """Fill ``outputs``. ``stream`` is MXNet's CUDA stream, 0 for arrays on the CPU."""

def attach(library_path: str) -> None:
    """Connect the operators of the loaded library at ``library_path`` with this module.

    Calling it again changes nothing. From the first call on, ``detach`` runs when the interpreter
    exits.

    Raises
    ------
    OSError
        The library is not loaded, or is not mxtrt's.
    """

def detach() -> None:
    """Disconnect: calls in progress finish, later ones fail in MXNet without entering Python.

    What MXNet has queued by then fails; ``mx.nd.waitall()`` first lets it finish. It runs at the
    exit of the interpreter without that: MXNet drops its own queue there, too, and a daemon thread
    that keeps calling would make the wait endless.
    """

def register(key: str, part: Part) -> None:
    """Let operators with the attribute ``key`` run ``part``; replaces one of the same key."""

def unregister(key: str) -> None:
    """Forget ``key``; unknown keys are no error. A call in progress keeps its part alive."""

def registered() -> list[str]:
    """Return the keys that have a part."""
