"""Between MXNet's arrays and the tensors of a plan: pinned memory, and other types on the way."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import DTYPES
from ..errors import EngineError
from ._streams import Event, download, upload

if TYPE_CHECKING:
    from .._bridge import Buffer
    from ._cuda import Gpu

log = logging.getLogger("mxtrt")


@dataclass(frozen=True)
class Tensor:
    """An input or output of a plan, under TensorRT's name, with NumPy's name of its type."""

    name: str
    dtype: str


class Staging:
    """Pinned memory and device memory for one input or output, as large as was ever needed."""

    def __init__(self, gpu: Gpu, tensor: Tensor | None) -> None:
        self.gpu, self.tensor = gpu, tensor
        self._capacity = -1
        self._pinned: Any = None
        self._device: Any = None
        self._host: Any = None  # the pinned memory in the present shape

    def reserve(self, shape: tuple[int, ...], context: Any) -> None:
        """Make room for a shape and tell the context where it is."""
        if self.tensor is None:
            return
        dtype = np.dtype(self.tensor.dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if nbytes > self._capacity:
            self.close()
            self._pinned = self.gpu.pinned_memory(nbytes)
            self._device = self.gpu.device_memory(nbytes)
            self._capacity = nbytes
            if not context.set_tensor_address(self.tensor.name, int(self._device)):
                raise EngineError(f"TensorRT does not take the address of {self.tensor.name!r}")
        self._host = self._pinned[:nbytes].view(dtype).reshape(shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """The present shape."""
        shape: tuple[int, ...] = self._host.shape
        return shape

    def place(self) -> tuple[int, int, int]:
        """Return the pinned address, the device's address and the bytes of the present shape."""
        if self.tensor is None:
            return 0, 0, 0
        return self._host.ctypes.data, int(self._device), self._host.nbytes

    def close(self) -> None:
        """Free both; the GPU must be current."""
        if self._pinned is not None:
            self._host = None
            self.gpu.unpin(self._pinned)
        if self._device is not None:
            self._device.free()
        self._pinned = self._device = None
        self._capacity = -1

    def source(self, buffer: Buffer | Conversion) -> int:
        """Return where to copy MXNet's array from; 0 if it is in pinned memory now."""
        if self.tensor is None:
            return 0
        if DTYPES.get(buffer.dtype) == self.tensor.dtype:
            return buffer.address
        array = buffer.to_numpy()
        if array.dtype == np.int64 and self.tensor.dtype == "int32":
            _require_int32(array, self.tensor.name)
        with np.errstate(invalid="ignore"):  # what lies beyond int32, see `_saturate`
            np.copyto(self._host, array, casting="unsafe")
        if array.dtype.kind == "f" and self.tensor.dtype == "int32":
            _saturate(self._host, array)
        return 0

    def target(self, buffer: Buffer) -> int:
        """Return where MXNet's array is; 0 if it is of another type, for which see `convert`."""
        same = self.tensor is not None and DTYPES.get(buffer.dtype) == self.tensor.dtype
        return buffer.address if same else 0

    def convert(self, buffer: Buffer | Conversion) -> None:
        """Copy pinned memory to MXNet's array if that is of another type."""
        if self.tensor is not None and DTYPES.get(buffer.dtype) != self.tensor.dtype:
            np.copyto(buffer.to_numpy(), self._host, casting="unsafe")


class Conversion:
    """The way of MXNet's array on the GPU to a tensor of another type and back, through the CPU.

    MXNet's word numbers are floats, and its integers have 64 bits. What is enqueued on the stream
    before has to be waited for.

    Parameters
    ----------
    gpu : Gpu
        Where both lie; it must be current, as for all methods.
    tensor : Tensor
        The plan's.
    buffer : Buffer
        The array of one call; those of others have the same shape and type.
    context : object
        The execution context that uses the tensor.
    """

    def __init__(self, gpu: Gpu, tensor: Tensor, buffer: Buffer, context: Any) -> None:
        self.shape, self.dtype, self._nbytes = buffer.shape, buffer.dtype, buffer.nbytes
        self._gpu, self._moment = gpu, Event(gpu)
        self._staging = Staging(gpu, tensor)
        self._staging.reserve(self.shape, context)
        self._pinned = gpu.pinned_memory(self._nbytes)
        log.info(
            "%r is %s in MXNet and %s in the plan: it is converted on the CPU; dtypes= of "
            "mxtrt.optimize says another type",
            *(tensor.name, DTYPES[self.dtype], tensor.dtype),
        )

    @property
    def address(self) -> int:
        """Where the tensor is."""
        return self._staging.place()[1]

    def read(self, address: int, stream: int) -> None:
        """Enqueue what makes the tensor of MXNet's array."""
        download(self._pinned.ctypes.data, address, self._nbytes, stream)
        self._wait(stream)
        self._staging.source(self)
        pinned, device, nbytes = self._staging.place()
        upload(device, pinned, nbytes, stream)

    def write(self, address: int, stream: int) -> None:
        """Enqueue what makes MXNet's array of the tensor."""
        pinned, device, nbytes = self._staging.place()
        download(pinned, device, nbytes, stream)
        self._wait(stream)
        self._staging.convert(self)
        upload(address, self._pinned.ctypes.data, self._nbytes, stream)

    def to_numpy(self) -> np.ndarray[Any, Any]:
        """Return the array's copy in pinned memory."""
        view: np.ndarray[Any, Any] = self._pinned[: self._nbytes].view(DTYPES[self.dtype])
        return view.reshape(self.shape)

    def close(self) -> None:
        """Free everything; nothing may be left on the stream."""
        self._staging.close()
        self._gpu.unpin(self._pinned)
        self._moment.close()

    def _wait(self, stream: int) -> None:
        self._moment.record(stream)
        self._moment.wait()


def _saturate(whole: np.ndarray[Any, Any], array: np.ndarray[Any, Any]) -> None:
    """Give int32 made of floats TensorRT's ends: it casts what lies beyond to the nearest."""
    limits = np.iinfo(np.int32)
    if whole.size and whole.min() == limits.min:  # as x86-64 casts NaN and all that lies beyond
        inside = np.clip(np.nan_to_num(array.astype(np.float64)), limits.min, limits.max)
        np.copyto(whole, inside, casting="unsafe")


def _require_int32(array: np.ndarray[Any, Any], name: str) -> None:
    limits = np.iinfo(np.int32)
    if array.size and (array.max() > limits.max or array.min() < limits.min):
        raise EngineError(f"{name!r} holds numbers beyond int32, in which TensorRT computes")
