"""Arrays of other libraries, seen as memory: NumPy, MXNet, DLPack and ``__cuda_array_interface__``.

Nothing is copied and none of the libraries is imported.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import TYPE_FLAGS, address_of
from .errors import BadOption

Array = np.ndarray[Any, Any]

CPU, GPU = 1, 2  # MXNet's device types, and DLPack's
PINNED = 3  # DLPack's kDLCUDAHost: the CPU reads it as its own
LEGACY_STREAM = 1  # in both protocols


@dataclass(frozen=True)
class Memory:
    """An array's memory, as an engine takes it; see `Buffer`.

    Attributes
    ----------
    address : int
        Where it begins.
    shape : tuple of int
        Its shape; elements lie in C order.
    type_name : str
        NumPy's name of its type.
    device_type : int
        1 on the CPU, 2 on a GPU.
    device_id : int
        The number of the GPU.
    owner : object
        What keeps the memory alive.
    stream : int or None
        The stream on which the array is still being made, if any.
    """

    address: int
    shape: tuple[int, ...]
    type_name: str
    device_type: int
    device_id: int
    owner: Any
    stream: int | None = None

    @property
    def dtype(self) -> int:
        """MXNet's type flag."""
        return TYPE_FLAGS[self.type_name]

    @property
    def nbytes(self) -> int:
        """The bytes of the array."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.type_name).itemsize

    @property
    def on_gpu(self) -> bool:
        """Whether it lies on a GPU."""
        return self.device_type == GPU

    def to_numpy(self) -> Array:
        """Return the memory on the CPU as an array; writing to it writes to the array's owner."""
        if not self.nbytes:
            return np.empty(self.shape, self.type_name)
        memory: Any = (ctypes.c_char * self.nbytes).from_address(self.address)
        memory._owner = self.owner
        view: Array = np.frombuffer(memory, self.type_name)
        return view.reshape(self.shape)


def read_memory(array: Any, name: str, stream: int = LEGACY_STREAM) -> Memory:
    """Return the memory of an array.

    Parameters
    ----------
    array : array
        Of NumPy or MXNet, or with ``__dlpack__`` or ``__cuda_array_interface__``.
    name : str
        What the array is for, in messages.
    stream : int
        The stream that is going to read it: a library that makes the array on another stream has
        this one wait for it.

    Raises
    ------
    BadOption
        It is no array, or one of a kind that engines do not read.
    """
    if isinstance(array, np.ndarray):
        return host_memory(array, name)
    if _is_mxnet(array):
        on_gpu = array.context.device_type == "gpu"
        dtype = _type_name(np.dtype(array.dtype), name)
        place = GPU if on_gpu else CPU, array.context.device_id if on_gpu else 0
        return Memory(address_of(array), tuple(array.shape), dtype, *place, array)
    if hasattr(array, "__dlpack_device__"):
        kind, index = (int(part) for part in array.__dlpack_device__())
        if kind == GPU:
            return _read_dlpack(array, name, stream, index)
        if kind not in (CPU, PINNED):
            raise BadOption(f"{name!r} lies on a device that is neither a CPU nor a GPU of NVIDIA")
    if hasattr(array, "__cuda_array_interface__"):
        return _read_cuda_interface(array, name)
    try:
        seen = np.from_dlpack(array) if hasattr(array, "__dlpack__") else np.asarray(array)
    except Exception as error:  # each library has its own
        raise BadOption(f"{name!r} is no array: {error}") from None
    return host_memory(seen, name, owner=array)


def host_memory(array: Array, name: str, owner: Any = None) -> Memory:
    """Return the memory of an array of NumPy's.

    Raises
    ------
    BadOption
        Its elements are of a type that engines do not read, or do not lie in C order.
    """
    if not array.flags.c_contiguous:
        raise BadOption(f"{name!r} does not lie in C order; pass numpy.ascontiguousarray of it")
    dtype = _type_name(array.dtype, name)
    return Memory(array.ctypes.data, array.shape, dtype, CPU, 0, (array, owner))


def is_numpy(array: Any) -> bool:
    """Say whether an array is NumPy's, or made into one."""
    return isinstance(array, np.ndarray) or np.isscalar(array)


def _is_mxnet(array: Any) -> bool:
    mxnet = sys.modules.get("mxnet")
    return mxnet is not None and isinstance(array, mxnet.nd.NDArray)


def _type_name(dtype: np.dtype[Any], name: str) -> str:
    if dtype.name not in TYPE_FLAGS or not dtype.isnative:
        raise BadOption(f"{name!r} is {dtype}; engines read {', '.join(TYPE_FLAGS)}")
    return str(dtype.name)


def _require_c_order(
    shape: tuple[int, ...], strides: tuple[int, ...] | None, itemsize: int, name: str
) -> None:
    """Raise an error unless elements lie in C order; strides are in units of `itemsize`."""
    if strides is None or 0 in shape:
        return
    step = itemsize
    for size, stride in zip(reversed(shape), reversed(strides)):
        if size > 1 and stride != step:
            raise BadOption(f"{name!r} does not lie in C order on its GPU; make it contiguous")
        step *= size


# -- __cuda_array_interface__ ------------------------------------------------------------------


def _read_cuda_interface(array: Any, name: str) -> Memory:
    told = array.__cuda_array_interface__
    dtype = np.dtype(told["typestr"])
    shape = tuple(int(size) for size in told["shape"])
    _require_c_order(shape, told.get("strides"), dtype.itemsize, name)
    stream = told.get("stream") if told.get("version", 0) >= 3 else LEGACY_STREAM
    type_name = _type_name(dtype, name)
    # the protocol does not say on which GPU; the address does, and CUDA refuses a wrong one
    index = getattr(getattr(array, "device", None), "id", 0)
    place = GPU, index if isinstance(index, int) else 0
    return Memory(int(told["data"][0]), shape, type_name, *place, array, stream)


# -- DLPack ------------------------------------------------------------------------------------


class _Tensor(ctypes.Structure):
    """``DLTensor`` of ``dlpack.h``, with which a ``DLManagedTensor`` begins."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_CODES = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 5: "complex", 6: "bool"}


def _read_dlpack(array: Any, name: str, stream: int, index: int) -> Memory:
    try:
        capsule = array.__dlpack__(stream=stream or LEGACY_STREAM)
    except Exception as error:  # each library has its own
        raise BadOption(f"{name!r} cannot be read through DLPack: {error}") from None
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = ctypes.cast(pointer(capsule, b"dltensor"), ctypes.POINTER(_Tensor)).contents
    kind = _CODES.get(tensor.code, "unknown")
    type_name = kind if kind == "bool" else f"{kind}{tensor.bits}"
    if type_name not in TYPE_FLAGS or tensor.lanes != 1:
        raise BadOption(f"{name!r} is {type_name}; engines read {', '.join(TYPE_FLAGS)}")
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else None
    _require_c_order(shape, strides, 1, name)
    # the capsule frees the array with itself, as long as nobody takes the array out of it
    owner = (capsule, array)
    return Memory((tensor.data or 0) + tensor.byte_offset, shape, type_name, GPU, index, owner)
