"""Seeded weights for any symbol: every one of them matters, and no activation explodes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import mxnet as mx
import numpy as np

FEW = 16
"""BatchNorms that see fewer values of a channel keep the statistics that are drawn."""


def seeded_weights(
    symbol: mx.sym.Symbol,
    inputs: Mapping[str, np.ndarray],
    constants: Mapping[str, np.ndarray],
    gains: Mapping[str, float],
    seed: int = 7,
) -> tuple[dict[str, mx.nd.NDArray], dict[str, mx.nd.NDArray]]:
    """Return arguments and auxiliary states for a symbol.

    Parameters
    ----------
    symbol : mxnet.sym.Symbol
        The model.
    inputs : mapping of str to array
        What it is fed: the statistics of BatchNorm are those of the activations that follow.
    constants : mapping of str to array
        Parameters that are given, such as anchors.
    gains : mapping of str to float
        Factors of the weights whose names match a regular expression.
    seed : int
        Of the random generator.
    """
    rng = np.random.default_rng(seed)
    known = {**inputs, **constants}
    names = symbol.list_arguments()
    shapes, _, aux_shapes = symbol.infer_shape(
        **{name: array.shape for name, array in known.items() if name in names}
    )
    args = {
        name: mx.nd.array(_draw(rng, name, shape) * _gain(name, gains))
        for name, shape in zip(names, shapes)
        if name not in known
    }
    args.update({name: mx.nd.array(array) for name, array in constants.items() if name in names})
    aux = {
        name: mx.nd.array(_draw(rng, name, shape))
        for name, shape in zip(symbol.list_auxiliary_states(), aux_shapes)
    }
    return args, {**aux, **_statistics(symbol, inputs, args, aux)}


def _draw(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith(("gamma", "running_var", "moving_var")):
        return rng.uniform(0.7, 1.3, shape)
    if name.endswith("alpha"):  # slopes of PReLU
        return rng.uniform(0.1, 0.4, shape)
    if name.endswith(("beta", "bias", "running_mean", "moving_mean")) or len(shape) < 2:
        return rng.uniform(-0.2, 0.2, shape)
    if "embed" in name:
        return rng.normal(0, 0.5, shape)
    # as much variance behind a ReLU as in front of it
    return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)


def _gain(name: str, gains: Mapping[str, float]) -> float:
    if not name.endswith("weight"):
        return 1.0
    return float(np.prod([gain for pattern, gain in gains.items() if re.search(pattern, name)]))


def _statistics(
    symbol: mx.sym.Symbol,
    inputs: Mapping[str, np.ndarray],
    args: Mapping[str, mx.nd.NDArray],
    aux: Mapping[str, mx.nd.NDArray],
) -> dict[str, mx.nd.NDArray]:
    """Return the means and variances that a pass in training mode meets in front of BatchNorms.

    Without them the activations of a deep net would grow from layer to layer.
    """
    training, read = _training_symbol(symbol, {n: a.shape for n, a in inputs.items()})
    if training is None:
        return {}
    fed = {**{name: mx.nd.array(array) for name, array in inputs.items()}, **args}
    with _without_fusion():
        executor = training.bind(
            mx.cpu(),
            {name: fed[name] for name in training.list_arguments()},
            aux_states={name: aux[name].copy() for name in training.list_auxiliary_states()},
            grad_req="null",
        )
    found = {}
    for (mean_name, var_name), output in zip(read, executor.forward(is_train=True)):
        values = output.asnumpy().swapaxes(0, 1)
        values = values.reshape(len(values), -1)
        mean, var = values.mean(axis=1), values.var(axis=1)
        # a channel without variance would magnify what is left of rounding
        found[mean_name] = mx.nd.array(0.9 * mean)
        found[var_name] = mx.nd.array(var + 0.1 * var.mean())
    return found


@contextmanager
def _without_fusion() -> Iterator[None]:
    """MXNet fuses BatchNorms into convolutions at bind, which is wrong in training mode."""
    before = os.environ.get("MXNET_SUBGRAPH_BACKEND")
    os.environ["MXNET_SUBGRAPH_BACKEND"] = "NONE"
    yield
    del os.environ["MXNET_SUBGRAPH_BACKEND"]
    if before is not None:
        os.environ["MXNET_SUBGRAPH_BACKEND"] = before


def _training_symbol(
    symbol: mx.sym.Symbol, inputs: Mapping[str, tuple[int, ...]]
) -> tuple[mx.sym.Symbol | None, list[tuple[str, str]]]:
    """Return the inputs of all BatchNorms as a symbol, and the names of their statistics."""
    internals = symbol.get_internals()
    graph = json.loads(internals.tojson(remove_amp_cast=False))
    shapes = dict(zip(((h[0], h[1]) for h in graph["heads"]), internals.infer_shape(**inputs)[1]))
    heads: dict[tuple[str, str], list[int]] = {}
    for node in graph["nodes"]:
        attrs = node.get("attrs", {})
        if node["op"] == "Dropout":
            attrs["p"] = "0"
        if node["op"] == "BatchNorm":
            source = tuple(node["inputs"][0][:2])
            batch, _, *sizes = shapes[source]
            few = batch * np.prod(sizes) < FEW
            attrs["use_global_stats"] = str(few)
            if not few:
                names = tuple(graph["nodes"][i]["name"] for i, *_ in node["inputs"][3:])
                heads.setdefault(names, [*source, 0])  # weights may be shared
    if not heads:
        return None, []
    graph["heads"] = list(heads.values())
    return mx.sym.load_json(json.dumps(graph)), list(heads)
