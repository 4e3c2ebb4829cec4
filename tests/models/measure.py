"""One model in MXNet and through mxtrt: what moved, what stays and why, and the difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import mxnet as mx
import numpy as np
from operators import run_mxnet

import mxtrt
from mxtrt.errors import ShapeNeeded
from mxtrt.symbol_json import read_json

from .model import Model
from .reference import reference
from .weights import seeded_weights


@dataclass(frozen=True)
class Moved:
    """What became of a model's operators.

    Attributes
    ----------
    operators, moved, parts : int
        How many operators there are, how many of them engines run, and how many engines.
    left : mapping of str to list of str
        Nodes by the reason why they stay in MXNet.
    difference : float
        The largest difference to MXNet, relative to the largest number of its output.
    rows, reordered, other : int
        Of models that return boxes: how many rows there are, how many stand at another place, and
        how many the other does not have.
    """

    operators: int
    moved: int
    parts: int
    left: Mapping[str, Sequence[str]]
    difference: float
    rows: int = 0
    reordered: int = 0
    other: int = 0


@dataclass(frozen=True)
class Row:
    """A line of the table: with known sizes of the inputs, and with unknown ones."""

    name: str
    family: str
    inputs: Mapping[str, Sequence[int]]
    known: Moved
    unknown: Moved

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)


def measure(model: Model) -> Row:
    """Build a model, run it in MXNet and through mxtrt, and compare."""
    symbol, constants = model.build()
    inputs = dict(model.inputs(np.random.default_rng(7)))
    args, aux = seeded_weights(symbol, inputs, constants, model.gains)
    weights = {name: array.asnumpy() for name, array in {**args, **aux}.items()}
    expected = run_mxnet(reference(symbol), {**inputs, **weights})
    del weights
    check_scale(expected)
    shapes = {name: array.shape for name, array in inputs.items()}
    ranks = {name: (None,) * len(shape) for name, shape in shapes.items()}
    known, unknown = (
        _moved(model, symbol, (args, aux), inputs, expected, given) for given in (shapes, ranks)
    )
    return Row(model.name, model.family, shapes, known, unknown)


def operators(symbol: mx.sym.Symbol) -> dict[str, int]:
    """Return how many nodes of each operator a symbol has."""
    nodes = read_json(symbol)["nodes"]
    return dict(sorted(Counter(node["op"] for node in nodes if node["op"] != "null").items()))


def check_scale(outputs: Sequence[np.ndarray]) -> None:
    """Raise where outputs are so small, or so large, that comparing them says nothing."""
    scales = [_scale(output) for output in outputs]
    if not all(1e-4 < scale < 1e6 for scale in scales):
        raise ValueError(f"the largest numbers of the outputs are {scales}")


def _scale(output: np.ndarray) -> float:
    """Return the largest magnitude, and 1 for nothing but zeros: all boxes of class 0."""
    return float(np.abs(output).max()) or 1.0


def _moved(
    model: Model,
    symbol: mx.sym.Symbol,
    params: Any,
    inputs: Mapping[str, np.ndarray],
    expected: Sequence[np.ndarray],
    shapes: Mapping[str, Sequence[int | None]],
) -> Moved:
    dtypes = {name: array.dtype.name for name, array in inputs.items()}
    try:
        optimized, kept = mxtrt.optimize(
            symbol, params, shapes=shapes, dtypes=dtypes, engine="onnxruntime"
        )
    except ShapeNeeded as needed:
        count = sum(operators(symbol).values())
        return Moved(count, 0, 0, {str(needed): ["all"]}, 0.0)
    report = mxtrt.report(optimized)
    rest = {name: array.asnumpy() for dict_ in kept for name, array in dict_.items()}
    found = run_mxnet(optimized, {**inputs, **rest})
    mxtrt.release(optimized)
    left: dict[str, list[str]] = {}
    for node, reason in report.left.items():
        left.setdefault(reason, []).append(f"{node.op} {node.name}")
    count = len(report.graph.nodes)
    moved, parts = count - len(report.left), len(report.parts)
    rows = expected[0].shape[0] * expected[0].shape[1] if model.rows else 0
    difference, reordered, other = compare(
        expected, found, same_row=model.same_row if model.rows else None
    )
    return Moved(count, moved, parts, left, difference, rows, reordered, other)


def compare(
    expected: Sequence[np.ndarray], found: Sequence[np.ndarray], same_row: float | None = None
) -> tuple[float, int, int]:
    """Return the largest relative difference, and how many rows moved or have no counterpart."""
    scaled = [_scale(want) for want in expected]
    one = [want / scale for want, scale in zip(expected, scaled)]
    two = [have / scale for have, scale in zip(found, scaled)]
    for want, have in zip(one, two):
        if want.shape != have.shape or not np.isfinite(have).all():
            raise ValueError(f"{have.shape} in place of {want.shape}, or not finite")
    difference = max(float(np.abs(want - have).max()) for want, have in zip(one, two))
    if same_row is None or difference <= same_row:
        return difference, 0, 0
    return _compare_rows(_rows(one), _rows(two), same_row)


def _rows(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """Return outputs ``(batch, rows, …)`` as one array ``(batch, rows, numbers)``."""
    return np.concatenate([output.reshape(*output.shape[:2], -1) for output in outputs], axis=-1)


def _compare_rows(
    expected: np.ndarray, found: np.ndarray, same_row: float
) -> tuple[float, int, int]:
    from scipy.optimize import linear_sum_assignment

    difference, reordered, other = 0.0, 0, 0
    for one, two in zip(expected, found):
        distances = np.stack([np.abs(two - row).max(axis=1) for row in one])
        # a row takes its own place where it can, and the rest pair off
        cost = np.where(distances <= same_row, 0.0, 1.0) + 1e-3 * (1 - np.eye(len(one)))
        left, right = linear_sum_assignment(cost)
        same = distances[left, right] <= same_row
        difference = max(difference, float(distances[left, right][same].max(initial=0)))
        reordered += int((same & (left != right)).sum())
        other += int((~same).sum())
    return difference, reordered, other
