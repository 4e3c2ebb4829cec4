"""ONNX files: the weights go from MXNet's memory into the file, without a copy in between.

A protobuf message is its fields one after another, each with its number and length in front. So
the model is written as the bytes of everything but the weights, and the weights as the bytes of one
small message each, with the array behind it. What is too large for one message goes into a second
file beside the first, as ONNX calls it external data.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import onnx
from onnx import TensorProto

from .arrays import numpy_view
from .errors import BadOption

if TYPE_CHECKING:
    from collections.abc import Iterator

    import mxnet as mx

LARGEST = 2**31 - 1  # bytes in a protobuf message
ALIGNMENT = 4096  # of arrays in a second file, so that they can be mapped into memory
GRAPH, INITIALIZER, RAW_DATA = (bytes([number << 3 | 2]) for number in (7, 5, 9))
"""The fields ``ModelProto.graph``, ``GraphProto.initializer`` and ``TensorProto.raw_data``."""


def write_onnx(
    proto: onnx.ModelProto,
    weights: Mapping[str, mx.nd.NDArray],
    path: str,
    *,
    external: bool = False,
) -> None:
    """Write a model, and the weights that it declares as external data, into a file.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model; its weights are taken out of it.
    weights : mapping of str to mxnet.nd.NDArray
        The arrays of the weights.
    path : str
        Where to; with weights of 2 GiB and more, also ``path + ".data"``. What stands there is
        replaced when all is written, and not before.
    external : bool
        Put the weights into the second file though they would fit.

    Raises
    ------
    BadOption
        The file cannot be written, or the disk is full.
    """
    tensors = _take_weights(proto)
    size = proto.ByteSize() + sum(_size(weights[t.name]) + t.ByteSize() + 64 for t in tensors)
    if external or size > LARGEST:
        with _replacing(path + ".data") as file:
            for tensor in tensors:
                _write_beside(file, tensor, weights[tensor.name], os.path.basename(path) + ".data")
        proto.graph.initializer.extend(tensors)
        tensors = []
    with _replacing(path) as file:
        _write_model(file, proto, tensors, weights)


def _take_weights(proto: onnx.ModelProto) -> list[TensorProto]:
    """Move the weights' tensors out of the model."""
    taken: list[TensorProto] = []
    kept: list[TensorProto] = []
    for tensor in proto.graph.initializer:
        external = tensor.data_location == TensorProto.EXTERNAL
        (taken if external else kept).append(TensorProto.FromString(tensor.SerializeToString()))
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    for tensor in taken:
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return taken


def _write_model(
    file: BinaryIO,
    proto: onnx.ModelProto,
    tensors: list[TensorProto],
    weights: Mapping[str, mx.nd.NDArray],
) -> None:
    graph = proto.graph.SerializeToString()
    around = onnx.ModelProto()
    around.CopyFrom(proto)
    around.ClearField("graph")
    headers = []
    for tensor in tensors:
        nbytes = _size(weights[tensor.name])
        front = tensor.SerializeToString() + RAW_DATA + _varint(nbytes)
        headers.append(INITIALIZER + _varint(len(front) + nbytes) + front)
    length = len(graph) + sum(map(len, headers)) + sum(_size(weights[t.name]) for t in tensors)
    file.write(around.SerializeToString() + GRAPH + _varint(length) + graph)
    for header, tensor in zip(headers, tensors):
        file.write(header)
        file.write(_bytes(weights[tensor.name]))


def _write_beside(file: BinaryIO, tensor: TensorProto, array: mx.nd.NDArray, location: str) -> None:
    """Write an array into the second file and say in its tensor where it is."""
    file.write(bytes(-file.tell() % ALIGNMENT))
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in ("location", location), ("offset", file.tell()), ("length", _size(array)):
        tensor.external_data.add(key=key, value=str(value))
    file.write(_bytes(array))


def _size(array: mx.nd.NDArray) -> int:
    return int(np.prod(array.shape, dtype=np.int64) * np.dtype(array.dtype).itemsize)


def _bytes(array: mx.nd.NDArray) -> Any:
    view = numpy_view(array) if array.context.device_type == "cpu" else array.asnumpy()
    return view.reshape(-1).view(np.uint8).data


def _varint(number: int) -> bytes:
    """Return a number as protobuf writes lengths: seven bits a byte, the lowest first."""
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    return bytes([*made, number])


@contextmanager
def _replacing(path: str) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` once it is written."""
    part = f"{path}.{os.getpid()}.part"
    try:
        with open(part, "wb") as file:
            yield file
        os.replace(part, path)
    except OSError as error:
        raise BadOption(f"{path}: {error.strerror}") from None
    finally:
        if os.path.exists(part):
            os.remove(part)
