"""Types and documentation of ``_bridge.pyx``."""

from collections.abc import Callable, Sequence
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

def set_planner(planner: Callable[[str, dict[str, str]], str]) -> None:
    """Let the graph pass call ``planner`` with a graph's JSON and the options as strings.

    It returns the JSON of the optimised graph. An exception becomes MXNet's ``MXNetError``, with
    its text inside.
    """

def count_writes_with(wait_to_read: int, has_onednn: bool) -> None:
    """Say how `Writes` reads MXNet's arrays; call it once, before the first one.

    Parameters
    ----------
    wait_to_read : int
        The address of the C function ``MXNDArrayWaitToRead``.
    has_onednn : bool
        Whether this build of MXNet has oneDNN: its arrays have one member more.
    """

class Writes:
    """Notices writes to parameters, wherever they come from.

    MXNet's engine counts the operations that write to an array's memory, through whichever view.
    Not counted is what bypasses MXNet: memory shared with NumPy or by DLPack.

    Parameters
    ----------
    params : sequence of mxnet.gluon.Parameter
        Their arrays are kept alive. Writes in progress finish first.
    """

    def __init__(self, params: Sequence[Any]) -> None: ...
    def happened(self, wait: bool = True) -> bool:
        """Return whether an array was written to or replaced since the construction.

        With ``wait`` writes in progress finish first, and an array that could not be computed
        counts as written to.
        """

def checksum(address: int, nbytes: int) -> int:
    """Return a number of 64 bits that tells the contents of two memories apart; no secret."""
