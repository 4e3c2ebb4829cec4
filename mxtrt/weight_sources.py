"""Where the weights of an engine are found again, so that `mxtrt.save` can write them.

ONNX Runtime lays weights out for its kernels and cannot give them back, and MXNet's arrays shall
not stay beside them: no weight is kept in memory twice. So what remains is a way to read them: from
the parameter file they came from, from the block that has them, or from a temporary file.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import mxnet as mx
import numpy as np

from .arrays import numpy_view
from .errors import BadModel, BadParams
from .params import read_params

if TYPE_CHECKING:
    from mxnet.gluon.parameter import Parameter

Array = np.ndarray[Any, Any]

Source = Callable[[], Mapping[str, Array]]
"""Returns the weights by their ONNX names, or raises `BadParams` with the reason."""

Keep = Callable[[Mapping[str, mx.nd.NDArray], Mapping[str, str]], Source]
"""Makes a source for the weights of one part, from their arrays and parameter names by ONNX name.

The source itself holds no array, unless its name is `in_memory`.
"""

ALIGNMENT = 64  # bytes, as ONNX Runtime's own memory


def in_memory(arrays: Mapping[str, Any], names: Mapping[str, str] | None = None) -> Source:
    """Keep the arrays themselves: for engines that do so anyway, and for files in memory."""
    return lambda: {name: numpy_view(array) for name, array in arrays.items()}


def in_temporary_file() -> Keep:
    """Write the arrays into a file without a name, one for all parts, which goes with them."""
    file = _TemporaryFile()

    def keep(arrays: Mapping[str, mx.nd.NDArray], names: Mapping[str, str]) -> Source:
        try:
            places = file.append({name: numpy_view(array) for name, array in arrays.items()})
        except OSError as error:
            return _gone(f"they could not be put into a temporary file ({error.strerror or error})")
        return lambda: file.read(places)

    return keep


Place = tuple["np.dtype[Any]", "tuple[int, ...]", int]


class _TemporaryFile:
    """Arrays in a file without a name; it is mapped into memory only while they are read."""

    def __init__(self) -> None:
        self._file: int | None = None

    def append(self, arrays: Mapping[str, Array]) -> dict[str, Place]:
        if self._file is None:
            with tempfile.TemporaryFile(prefix="mxtrt-", dir=_temporary_folder()) as made:
                self._file = os.dup(made.fileno())
            weakref.finalize(self, os.close, self._file)
        places = {}
        with open(self._file, "r+b", closefd=False) as file:
            file.seek(0, os.SEEK_END)
            for name, array in arrays.items():
                start = file.seek(-file.tell() % ALIGNMENT, os.SEEK_CUR)
                places[name] = array.dtype, array.shape, start
                file.write(array.reshape(-1).view(np.uint8).data)
            file.truncate()
        return places

    def read(self, places: Mapping[str, Place]) -> Mapping[str, Array]:
        assert self._file is not None
        size = os.fstat(self._file).st_size  # of nothing there is no mapping
        content = mmap.mmap(self._file, size, access=mmap.ACCESS_READ) if size else b""
        return {name: _array(content, *place) for name, place in places.items()}


def _array(content: Any, dtype: np.dtype[Any], shape: tuple[int, ...], start: int) -> Array:
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.frombuffer(content, dtype, int(np.prod(shape, dtype=np.int64)), start).reshape(shape)


def in_params_file(path: str | os.PathLike[str]) -> Keep:
    """Read the arrays from a parameter file again when they are needed."""
    path = os.path.abspath(os.fspath(path))
    try:
        before = _signature(path)
    except OSError as error:  # it was there a moment ago
        reason = f"{path}: {error.strerror}"
        return lambda arrays, names: _gone(reason)

    def keep(arrays: Mapping[str, mx.nd.NDArray], names: Mapping[str, str]) -> Source:
        def read() -> Mapping[str, Array]:
            try:
                if _signature(path) != before:
                    raise BadParams(f"{path} has changed since mxtrt.optimize read it")
                found = read_params(path).arrays or {}
            except (OSError, BadModel) as error:
                raise BadParams(f"their file cannot be read any more: {error}") from None
            return {name: numpy_view(found[param]) for name, param in names.items()}

        return read

    return keep


def in_block(params: Mapping[str, Parameter]) -> Keep:
    """Read the arrays from a block's parameters, as long as somebody has the block."""

    def keep(arrays: Mapping[str, mx.nd.NDArray], names: Mapping[str, str]) -> Source:
        found = {name: weakref.ref(params[param]) for name, param in names.items()}

        def read() -> Mapping[str, Array]:
            alive = {name: reference() for name, reference in found.items()}
            if None in alive.values():
                raise BadParams("the block that held them is gone")
            return {name: _on_cpu(param.list_data()[0]) for name, param in alive.items() if param}

        return read

    return keep


def _on_cpu(array: mx.nd.NDArray) -> Array:
    return numpy_view(
        array if array.context.device_type == "cpu" else array.as_in_context(mx.cpu())
    )


def _gone(reason: str) -> Source:
    def read() -> Mapping[str, Array]:
        raise BadParams(reason)

    return read


def _signature(path: str) -> tuple[int, ...]:
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _temporary_folder() -> str | None:
    """Return a folder on a disk: ``/tmp`` is memory on some systems."""
    if any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")):
        return None
    return "/var/tmp" if os.access("/var/tmp", os.W_OK | os.X_OK) else None
