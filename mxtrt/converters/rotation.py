"""Jacobi's rotations, which `eigen` and `singular` repeat until nothing is left to turn.

A round turns pairs of rows, every row in one pair; after as many rounds as there are other rows
each pair had its turn. Who meets whom follows from the round's number, and a round takes as long as
a few passes over the elements, so that a ``Loop`` over rounds serves matrices of any size: 130 rows
take 0.1 s on a CPU, and the time grows with their third power.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from . import known_size
from .factorization import Rows, rows_of, with_ranks
from .suppression import loop_body

MAX_ROWS = 8  # 0.6 ms on a CPU; 16 are 1.3 ms, and MXNet's LAPACK needs 0.2 ms for them
FEW_ROWS = 16  # whose pairs are a table
SWEEPS = 30  # at most, each with all pairs; 130 rows take 8
ROUNDING = 16  # in units of the last place


class Pairs(NamedTuple):
    """The pairs of a round: each row's partner, and what tells the first of a pair (1, -1; or 0).

    Both are vectors, the second of floats. A row without a partner is its own; where the number of
    rows is known to be even there is none.
    """

    partner: str
    order: str
    is_even: bool


Turn = Callable[[OnnxModel, Pairs, Sequence[str]], tuple[Sequence[str], str]]
"""Adds a round to a body, given states: the states after it, and whether to go on."""


def rows_to_turn(onnx: OnnxModel, a: Value, axis: int = -1) -> Rows:
    """Return the rows of `a`.

    Raises
    ------
    UnsupportedOp
        MXNet runs the rest of the model, and a loop would take much longer than it does.
    """
    if not onnx.leaves_mxnet:
        count = known_size(a, axis)
        if count > MAX_ROWS:
            raise UnsupportedOp(
                f"{count} rows, more than {MAX_ROWS}: MXNet is much faster than a loop"
            )
    return rows_of(onnx, a, axis)


def turned(
    onnx: OnnxModel,
    rows: Rows,
    states: Sequence[tuple[Value, str]],
    dtype: str,
    turn: Turn,
) -> list[str]:
    """Repeat rounds.

    Parameters
    ----------
    states : sequence of (Value, str)
        What a round changes, and what it is before the first.
    turn : callable
        Adds one round.
    """
    rounds = rounds_of(onnx, rows)
    body = onnx.subgraph("rotate")
    number = body.declare(Value("round", (), "int64"))
    body.declare(Value("go", (), "bool"))
    values = [value for value, _ in states]
    before = [body.declare(value) for value in values]
    number = body.op("Mod", number, rounds)
    is_few = rows.size is not None and rows.size <= FEW_ROWS
    pairs = (_read_pairs if is_few else _computed_pairs)(body, number, rows, dtype)
    after, go_on = turn(body, pairs, before)
    made = onnx.ops(
        "Loop",
        onnx.op("Mul", rounds, onnx.constant(SWEEPS, "int64")),
        onnx.constant(True, "bool"),
        *(start for _, start in states),
        outputs=len(values),
        body=loop_body(body, go_on, [*zip(values, after)]),
    )
    return with_ranks(onnx, made, values)


def rounds_of(onnx: OnnxModel, rows: Rows) -> str:
    """Return how many rounds there are until each pair had its turn."""
    if rows.size is not None:
        return onnx.constant(rows.size - 1 + rows.size % 2, "int64")
    one, two = onnx.constant(1, "int64"), onnx.constant(2, "int64")
    return onnx.op("Add", onnx.op("Sub", rows.number, one), onnx.op("Mod", rows.number, two))


def _read_pairs(body: OnnxModel, number: str, rows: Rows, dtype: str) -> Pairs:
    """Return who meets whom from a table for a few rows, with fewer operators in each round."""
    size = rows.size or 0
    rounds = size - 1 + size % 2
    index, turns = np.arange(size), np.arange(rounds).reshape(-1, 1)
    partners = (turns - index) % rounds
    partners = np.where(partners == index, index if size % 2 else rounds, partners)
    partners = np.where(index == rounds, turns * (size // 2) % rounds, partners)
    partner = body.op("Gather", body.constant(partners, "int64"), number, axis=0)
    orders = body.constant(np.sign(partners - index), dtype)
    return Pairs(partner, body.op("Gather", orders, number, axis=0), size % 2 == 0)


def _computed_pairs(body: OnnxModel, number: str, rows: Rows, dtype: str) -> Pairs:
    """Return who meets whom: on a circle of an odd number of rows those with the round's sum.

    The one of the circle that would meet itself meets the row in the middle, if there is one.
    """
    rounds = rounds_of(body, rows)
    circle = body.op("Sub", body.op("Add", number, rounds), rows.indices)
    circle = body.op("Mod", circle, rounds)
    last = body.op("Sub", rows.number, body.constant(1, "int64"))
    middle = body.op("Where", body.op("Equal", last, rounds), rounds, rows.indices)
    partner = body.op("Where", body.op("Equal", circle, rows.indices), middle, circle)
    half = body.op("Div", rows.number, body.constant(2, "int64"))
    chosen = body.op("Mod", body.op("Mul", number, half), rounds)
    partner = body.op("Where", body.op("Equal", rows.indices, rounds), chosen, partner)
    order = body.op("Sign", body.cast(body.op("Sub", partner, rows.indices), dtype))
    return Pairs(partner, order, rows.size is not None and rows.size % 2 == 0)


def angles(body: OnnxModel, pairs: Pairs, own: str, between: str, dtype: str) -> tuple[str, str]:
    """Return the sine of each row's angle and the tangent of its half, as columns.

    The angle makes the element between partners 0.

    Parameters
    ----------
    own, between : str
        ``(..., rows)``: the elements of each row with itself and with its partner.
    """
    zero, one = body.constant(0, dtype), body.constant(1, dtype)
    partner = body.op("Gather", own, pairs.partner, axis=-1)
    nothing = body.op("Equal", between, zero)
    divisor = body.op("Mul", body.constant(2, dtype), body.op("Where", nothing, one, between))
    ratio = body.op("Div", body.op("Sub", partner, own), divisor)
    sign = body.op("Where", body.op("Equal", ratio, zero), pairs.order, body.op("Sign", ratio))
    root = body.op("Sqrt", body.op("Add", one, body.op("Mul", ratio, ratio)))
    tan = body.op("Div", sign, body.op("Add", body.op("Abs", ratio), root))
    tan = body.op("Unsqueeze", body.op("Where", nothing, zero, tan), body.ints([-1]))
    cos = body.op("Reciprocal", body.op("Sqrt", body.op("Add", one, body.op("Mul", tan, tan))))
    sin = body.op("Mul", tan, cos)
    return sin, body.op("Div", sin, body.op("Add", one, cos))


def rotated(body: OnnxModel, x: Operand, pairs: Pairs, angle: tuple[str, str]) -> str:
    """Turn every row with its partner.

    A row changes by what is small where the angle is: thousands of rotations written with cosines
    would change its length.
    """
    partner = body.op("Gather", x, pairs.partner, axis=-2)
    shift = body.op("Add", partner, body.op("Mul", angle[1], x))
    return body.op("Sub", x, body.op("Mul", angle[0], shift))


def exceeds(body: OnnxModel, x: str, bound: str) -> str:
    """Return whether an element is larger than its bound."""
    more = body.cast(body.op("Greater", body.op("Abs", x), bound), "float32")
    return body.op("Greater", body.op("ReduceMax", more, keepdims=0), body.constant(0, "float32"))


def between_partners(body: OnnxModel, x: str, pairs: Pairs, dtype: str) -> str:
    """Return `x`, which says something of each pair, but 0 for a row without partner."""
    if pairs.is_even:
        return x
    zero = body.constant(0, dtype)
    return body.op("Where", body.op("Equal", pairs.order, zero), zero, x)
