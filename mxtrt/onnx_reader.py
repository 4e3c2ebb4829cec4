"""ONNX files of any origin, read so that their weights need not fit into the protobuf."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Union

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo

from .errors import BadModel
from .onnx_model import ELEMENT_TYPES, EXTERNAL_LOCATION, graphs

Array = np.ndarray[Any, Any]
OnnxLike = Union[onnx.ModelProto, str, "os.PathLike[str]"]

SMALL = 1024  # bytes; shapes and the like stay inside, where parsers look at them


def read_onnx(model: OnnxLike) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Read an ONNX model, with its weights beside it.

    Parameters
    ----------
    model : onnx.ModelProto or path
        Any ONNX model; external data lies in the file's folder.

    Returns
    -------
    proto : onnx.ModelProto
        Weights of more than `SMALL` bytes are external data in it; its inputs are what has to be
        fed, and all nodes have names.
    weights : dict of str to numpy.ndarray
        Those weights by name.

    Raises
    ------
    BadModel
        The file or its external data cannot be read.
    """
    proto, folder = _load(model)
    for node in (node for graph in graphs(proto.graph) for node in graph.node if not node.name):
        node.name = f"node_of_{''.join(node.output[:1])}"  # what is said of nodes names them
    weights: dict[str, Array] = {}
    for tensor in proto.graph.initializer:
        if tensor.data_type in ELEMENT_TYPES.values() and _is_large(tensor):
            weights[tensor.name] = _take(tensor, folder)
    for tensor in _tensors(proto.graph):
        if _is_external(tensor) and tensor.name not in weights:
            tensor.raw_data = bytes(_map(tensor, folder))
            _embed(tensor)
    known = {tensor.name for tensor in proto.graph.initializer}
    inputs = [info for info in proto.graph.input if info.name not in known]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    return proto, weights


def element_type(info: onnx.ValueInfoProto) -> str:
    """Return NumPy's name of the type of an input or output."""
    kind: int = info.type.tensor_type.elem_type
    names: dict[int, str] = {int(number): name for name, number in ELEMENT_TYPES.items()}
    return names.get(kind) or str(TensorProto.DataType.Name(kind)).lower()


def sizes(info: onnx.ValueInfoProto) -> tuple[int | str | None, ...] | None:
    """Return the sizes of an input or output, by number or name, or None for an unknown rank."""
    kind = info.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in kind.shape.dim
    )


def _load(model: OnnxLike) -> tuple[onnx.ModelProto, str]:
    if isinstance(model, onnx.ModelProto):
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return copy, ""
    path = os.fspath(model)
    try:
        proto = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise BadModel(f"{path}: {error.strerror or error}") from None
    except (DecodeError, ValueError) as error:
        raise BadModel(f"{path}: not an ONNX file, or a damaged one ({error})") from None
    if not proto.graph.node and not proto.graph.output:
        raise BadModel(f"{path}: not an ONNX file, or one without a graph")
    return proto, os.path.dirname(os.path.abspath(path))


def _is_external(tensor: TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def _is_large(tensor: TensorProto) -> bool:
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return int(np.prod(tensor.dims, dtype=np.int64)) * dtype.itemsize > SMALL


def _take(tensor: TensorProto, folder: str) -> Array:
    """Move a weight out of the model."""
    if _is_external(tensor):
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        array = _map(tensor, folder).view(dtype).reshape(tuple(tensor.dims))
    else:
        try:
            array = numpy_helper.to_array(tensor)
        except ValueError as error:
            raise BadModel(f"the weight {tensor.name!r} is damaged: {error}") from None
    for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data",
                  "uint64_data", "external_data"):  # fmt: skip
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=EXTERNAL_LOCATION)
    return np.ascontiguousarray(array)


def _map(tensor: TensorProto, folder: str) -> Array:
    """Return the bytes of a tensor in a file beside the model, mapped into memory."""
    info = ExternalDataInfo(tensor)
    place = os.path.normpath(info.location)
    if not folder or os.path.isabs(place) or place.split(os.sep)[0] == os.pardir:
        raise BadModel(f"the data of {tensor.name!r} lies in {info.location!r}: not in the folder")
    path, offset = os.path.join(folder, place), int(info.offset or 0)
    try:
        whole = os.path.getsize(path)
        length = int(info.length) if info.length is not None else whole - offset
        if length == 0:
            return np.empty(0, np.uint8)
        if offset + length > whole:
            raise BadModel(f"{path}: too short for {tensor.name!r}; was it cut off?")
        return np.memmap(path, np.uint8, "r", offset, (length,))
    except OSError as error:
        raise BadModel(f"{path}: {error.strerror or error}") from None


def _embed(tensor: TensorProto) -> None:
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Yield all tensors of a graph and of the bodies in it."""
    for each in graphs(graph):
        yield from each.initializer
        for attribute in (a for node in each.node for a in node.attribute):
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def embedded(proto: onnx.ModelProto, weights: Mapping[str, Array]) -> onnx.ModelProto:
    """Return the model with its weights inside again, up to 2 GiB."""
    whole = onnx.ModelProto()
    whole.CopyFrom(proto)
    for tensor in whole.graph.initializer:
        if tensor.name in weights and _is_external(tensor):
            tensor.raw_data = weights[tensor.name].tobytes()
            _embed(tensor)
    return whole
