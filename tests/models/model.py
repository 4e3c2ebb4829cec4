"""What a model of the catalogue is: how to build its symbol, and what to feed it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import mxnet as mx
import numpy as np

Arrays = Mapping[str, np.ndarray]
Built = "tuple[mx.sym.Symbol, dict[str, np.ndarray]]"


@dataclass(frozen=True)
class Model:
    """A model that can be built here.

    Attributes
    ----------
    name : str
        The package and the name of the model in it, such as ``"gluoncv/fcn_resnet50_ade"``.
    family : str
        What it is for.
    build : callable
        Returns the symbol and those of its parameters that are no weights, such as anchors.
    inputs : callable
        Returns what to feed it, from a random generator.
    rows : bool
        Whether its outputs are lists of boxes, whose order among equal scores means nothing.
    gains : mapping of str to float
        Factors of the weights whose names match a pattern: without normalisation in a detector's
        head all scores would be 1, and all orders of its boxes equally right.
    graph : str, optional
        Its name in a list of graphs and their operators, where that is another one.
    same_row : float
        Rows are the same when no number differs by more, relative to its output's largest.
    """

    name: str
    family: str
    build: Callable[[], tuple[mx.sym.Symbol, dict[str, np.ndarray]]]
    inputs: Callable[[np.random.Generator], Arrays]
    rows: bool = False
    gains: Mapping[str, float] = field(default_factory=dict)
    graph: str | None = None
    same_row: float = 5e-3


def trace(
    net: mx.gluon.HybridBlock, *inputs: mx.sym.Symbol
) -> tuple[mx.sym.Symbol, dict[str, np.ndarray]]:
    """Return the symbol of a Gluon net, and its constants."""
    outputs = net(*inputs)
    constants = {}
    for parameter in net.collect_params().values():
        if isinstance(parameter, mx.gluon.Constant):
            parameter.initialize()
            constants[parameter.name] = parameter.data().asnumpy()
    return mx.sym.Group(list(flat(outputs))), constants


def flat(outputs: object) -> list[mx.sym.Symbol]:
    """Return the symbols in nested lists of outputs, without None."""
    if isinstance(outputs, (list, tuple)):
        return [symbol for output in outputs for symbol in flat(output)]
    return [] if outputs is None else [outputs]


def images(*shape: int) -> Callable[[np.random.Generator], Arrays]:
    """Return a maker of normally distributed images."""
    return lambda rng: {"data": rng.standard_normal(shape).astype("float32")}
