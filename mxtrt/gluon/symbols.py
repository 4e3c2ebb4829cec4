"""What is an input and what a parameter, among the arrays for ``Symbol.optimize_for``.

MXNet's convention is to pass examples of the inputs and the parameters in one dict.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import mxnet as mx
import numpy as np

from ..symbol import WEIGHTS
from .trace import Sample

if TYPE_CHECKING:
    from ..options import Options

GLUON_MARKS = {"__init__", "__lr_mult__", "__wd_mult__"}
"""Attributes that Gluon gives to the variables of its parameters."""


def parameters_of(
    symbol: mx.sym.Symbol, arrays: Mapping[str, Any], options: Options
) -> dict[str, mx.nd.NDArray]:
    """Return the arrays that are parameters for certain; engines may hold them.

    They are auxiliary states, what Gluon has marked as its parameters, and what stands where an
    operator reads weights. Anything else is an input, whose values may change, and so is what
    ``shapes`` or ``dtypes`` name.
    """
    names = set(symbol.list_auxiliary_states())
    nodes = json.loads(symbol.tojson())["nodes"]
    for node in nodes:
        if node["op"] == "null":
            if GLUON_MARKS & set(node.get("attrs", {})):
                names.add(node["name"])
        else:
            slots = WEIGHTS.get(node["op"], ())
            read = (nodes[node["inputs"][slot][0]] for slot in slots if slot < len(node["inputs"]))
            names |= {variable["name"] for variable in read if variable["op"] == "null"}
    names -= {*options.shapes, *options.dtypes}
    return {name: array for name, array in arrays.items() if name in names}


def samples_of(
    inputs: Mapping[str, Any], shapes: Mapping[str, Any], dtypes: Mapping[str, Any]
) -> dict[str, Sample]:
    """Return what examples, and MXNet's ``shape_dict`` and ``type_dict``, say of the inputs."""
    samples = {name: Sample.of(array) for name, array in inputs.items()}
    for name in {*shapes, *dtypes} - set(inputs):
        ndim = len(shapes[name]) if name in shapes else None
        dtype = np.dtype(dtypes[name]).name if name in dtypes else None
        samples[name] = Sample(ndim, dtype)
    return samples
