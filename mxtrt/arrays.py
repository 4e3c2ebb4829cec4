"""MXNet's arrays as NumPy sees them."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import mxnet as mx

_LIBC = ctypes.CDLL(None)

TYPE_FLAGS = {
    "float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6,
    "bool": 7,
}  # fmt: skip
"""MXNet's type flag for each dtype (``mshadow/base.h``)."""

DTYPES = {flag: dtype for dtype, flag in TYPE_FLAGS.items()}
"""The dtype for each of MXNet's type flags."""


def numpy_view(array: mx.nd.NDArray | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a read-only NumPy view of an array on the CPU: MXNet's own memory, no copy.

    The view holds the array, so the memory lives as long as the view. MXNet may move the weights
    of a convolution to another place when it runs it: do not keep a view beyond the moment. An
    array of NumPy, such as the weights in a file of engines, is returned as it is.
    """
    if isinstance(array, np.ndarray):
        return array
    address, dtype = address_of(array), np.dtype(array.dtype)
    nbytes = int(np.prod(array.shape, dtype=np.int64)) * dtype.itemsize
    if not nbytes:
        return np.empty(array.shape, dtype)
    memory: Any = (ctypes.c_char * nbytes).from_address(address)
    memory._owner = array
    view: np.ndarray[Any, Any] = np.frombuffer(memory, dtype)
    view = view.reshape(array.shape)
    view.flags.writeable = False
    return view


def address_of(array: mx.nd.NDArray) -> int:
    """Return where the data of an array lies, on the CPU or on its GPU, once it is computed."""
    from mxnet.base import _LIB, check_call  # plans run without MXNet

    array.wait_to_read()
    pointer = ctypes.c_void_p()
    check_call(_LIB.MXNDArrayGetData(array.handle, ctypes.byref(pointer)))
    return pointer.value or 0


def return_freed_memory() -> None:
    """Give memory that was freed back to the system.

    ONNX Runtime frees several times the size of the weights while it lays them out, in blocks
    that the C library would keep: of ResNet-152, made as one session, 2.8 times the weights stayed
    resident, 1.1 times after this call.
    """
    if hasattr(_LIBC, "malloc_trim"):  # the GNU C library has it
        _LIBC.malloc_trim(0)
