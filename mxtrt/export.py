"""A whole model as one ONNX file, as ``mxnet.onnx.export_model`` wrote it."""

from __future__ import annotations

import json
import logging
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Union

import mxnet as mx
import numpy as np
import onnx

from .errors import BadOption
from .onnx_file import write_onnx
from .params import ParamsLike, read_params
from .symbol import load_symbol
from .whole_model import whole_model

log = logging.getLogger("mxtrt")

PathLike = Union[str, "os.PathLike[str]"]


def export_model(
    sym: mx.sym.Symbol | PathLike,
    params: ParamsLike = None,
    shapes: Mapping[str, Any] | Sequence[Any] | None = None,
    dtypes: Any = None,
    path: PathLike | None = None,
    verbose: bool = False,
    dynamic: bool = False,
    dynamic_input_shapes: Mapping[str, Any] | Sequence[Any] | None = None,
    run_shape_inference: bool = False,
    input_type: Any = None,
    input_shape: Any = None,
    large_model: bool = False,
    *,
    in_shapes: Any = None,
    in_types: Any = None,
    onnx_file_path: PathLike | None = None,
) -> str:
    """Write a whole model into one ONNX file.

    The arguments are those of MXNet's own ``mxnet.onnx.export_model``, in its order and under its
    names too, and those of `mxtrt.optimize`. The path may stand in the place of `dtypes`.

    Parameters
    ----------
    sym : mxnet.sym.Symbol or path
        The model, or the path of its ``-symbol.json``.
    params : dict, pair or path
        The parameters: a dict with or without ``arg:``/``aux:`` prefixes, a pair
        ``(arg_params, aux_params)``, or the path of a ``.params`` file. Those that the model does
        not read are left out.
    shapes : mapping of str to tuple, or sequence of tuple, optional
        Shapes of the inputs, by name or in the order of ``sym.list_inputs()``, without labels
        such as ``softmax_label``. A size is a number, or None, -1 or a name such as ``"batch"``
        for one that may be any; 0 means the same outside of ``np_shape``. What is not given is
        inferred from the rest and the parameters, else it may be any size.
    dtypes : dtype, mapping of str to dtype, or sequence of dtype, optional
        Element types of the inputs, one for all or as `shapes`; by default what the parameters
        imply, else float32.
    path : path
        The file to write, by default ``model.onnx``. Weights of 2 GiB and more go into
        ``path + ".data"`` beside it.
    verbose : bool
        Log each operator.
    dynamic : bool
        Let the sizes be as `dynamic_input_shapes` says and `shapes` say the number of axes only.
    dynamic_input_shapes : mapping of str to tuple, or sequence of tuple, optional
        As `shapes`; by default all sizes may be any.
    run_shape_inference : bool
        Add the shapes of the tensors in between, as far as ONNX infers them.
    input_type, in_types
        MXNet's names of `dtypes`.
    input_shape, in_shapes
        MXNet's names of `shapes`.
    large_model : bool
        Put the weights into the second file though they would fit into the first.
    onnx_file_path
        MXNet's name of `path`.

    Returns
    -------
    path : str
        The file that was written. Its inputs have MXNet's names, in the order of
        ``sym.list_inputs()``; its outputs the names of MXNet's outputs without ``_output``, in
        the order of ``sym.list_outputs()``; its weights MXNet's names. A label that inference
        does not read is no input, unless it was given a shape and is not called
        ``<operator>_label``.

    Raises
    ------
    NotExportable
        Operators that ONNX cannot say, each with its reason; nothing is written.
    UserError
        The model, the parameters or an argument cannot be used.

    Examples
    --------
    >>> mxtrt.export_model("net-symbol.json", "net-0000.params",
    ...                    {"data": (1, 3, 224, 224)}, "net.onnx")  # doctest: +SKIP
    'net.onnx'
    """
    placed = dtypes if _is_path(dtypes) else None
    if placed is not None:
        dtypes = None
    target = _writable(_first("path", placed, path, onnx_file_path) or "model.onnx")
    symbol, given = load_symbol(sym), read_params(params)
    names = _input_names(symbol, given.names)
    stated = _shapes(_first("shapes", shapes, in_shapes, input_shape), names)
    example = {name: shape for name, shape in stated.items() if _is_known(shape)}
    if dynamic:
        stated = _dynamic(stated, _shapes(dynamic_input_shapes, names))
    elif dynamic_input_shapes is not None:
        raise BadOption("dynamic_input_shapes needs dynamic=True")
    types = _dtypes(_first("dtypes", dtypes, in_types, input_type), names)
    proto, model = whole_model(
        symbol, given.arrays, stated, types, example=example, verbose=verbose
    )
    if run_shape_inference:
        proto = onnx.shape_inference.infer_shapes(proto)
    write_onnx(proto, model.weights, target, external=large_model)
    log.info("%s: %d weights", target, len(model.weights))
    return target


# -- arguments ---------------------------------------------------------------------------------


def _is_path(given: Any) -> bool:
    """Say whether what stands in the place of the dtypes is a path: it has a folder or an end."""
    if isinstance(given, str):
        return os.path.dirname(given) != "" or os.path.splitext(given)[1] != ""
    return isinstance(given, os.PathLike)


def _writable(path: PathLike) -> str:
    """Check before any work is done that the file can be written."""
    target = os.fspath(path)
    folder = os.path.dirname(target) or "."
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise BadOption(f"{target}: {folder!r} is no folder that can be written to")
    if os.path.isdir(target):
        raise BadOption(f"{target}: is a folder")
    return target


def _first(option: str, *given: Any) -> Any:
    """Return the one that is given of an argument's several names."""
    found = [value for value in given if value is not None]
    if len(found) > 1:
        raise BadOption(f"{option} is given under two names")
    return found[0] if found else None


def _input_names(symbol: mx.sym.Symbol, params: set[str]) -> list[str]:
    """Return the inputs without labels, in MXNet's order."""
    operators = {n["name"] for n in json.loads(symbol.tojson())["nodes"] if n["op"] != "null"}
    labels = {f"{name}_label" for name in operators}
    return [name for name in symbol.list_inputs() if name not in params | labels]


def _shapes(given: Any, names: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        one = len(given) > 0 and all(size is None or np.ndim(size) == 0 for size in given)
        given = _by_name("shapes", [given] if one else given, names)
    return {name: tuple(shape) for name, shape in given.items()}


def _dtypes(given: Any, names: Sequence[str]) -> dict[str, Any]:
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return dict(given)
    if isinstance(given, (list, tuple)):
        return _by_name("dtypes", given, names)
    return dict.fromkeys(names, given)


def _by_name(option: str, given: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    """Return what is given in the order of the inputs, or of a Gluon block's arguments.

    Gluon numbers the arguments of a block, and those that it does not read are no inputs of the
    symbol that it exports.
    """
    if len(given) > len(names):
        numbers = [re.fullmatch(r"data(\d+)", name) for name in names]
        by_number = {int(n[1]): n[0] for n in numbers if n}
        if 0 < len(by_number) == len(names) and max(by_number) < len(given):
            return {name: given[number] for number, name in by_number.items()}
        count = len(given) - len(names)
        inputs = f"the inputs are {', '.join(names)}" if names else "the model has no inputs"
        warnings.warn(f"{option}: the last {count} ignored; {inputs}", stacklevel=4)
    return dict(zip(names, given))


def _dynamic(
    shapes: Mapping[str, tuple[Any, ...]], dynamic: Mapping[str, tuple[Any, ...]]
) -> dict[str, tuple[Any, ...]]:
    for name, shape in dynamic.items():
        if name in shapes and len(shape) != len(shapes[name]):
            raise BadOption(
                f"dynamic_input_shapes: {name!r} has {len(shape)} axes, in shapes it has "
                f"{len(shapes[name])}"
            )
    return {**{name: (None,) * len(shape) for name, shape in shapes.items()}, **dynamic}


def _is_known(shape: tuple[Any, ...]) -> bool:
    return all(isinstance(size, (int, np.integer)) and size > 0 for size in shape)
