"""Jacobi's rotations, which `eigen` and `singular` repeat until nothing is left to turn.

A round turns pairs of rows, every row in one pair; after as many rounds as there are other rows
each pair had its turn. Who meets whom is computed from the round's number, and a round takes time
with the number of elements, so that a ``Loop`` over rounds serves matrices of any size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from . import known_size
from .factorization import Rows, rows_of, with_ranks
from .suppression import loop_body

MAX_ROWS = 8  # 0.6 ms on a CPU; 16 are 6 ms, and MXNet's LAPACK needs 0.2 ms for them
SWEEPS = 30  # at most, each with all pairs; 64 rows of doubles take 8
ROUNDING = 16  # in units of the last place


class Pairs(NamedTuple):
    """The pairs of a round: each row's partner, and what tells the first of a pair (1, -1; or 0).

    Both are vectors, the second of floats. A row without a partner is its own.
    """

    partner: str
    order: str


Turn = Callable[[OnnxModel, Pairs, Sequence[str]], tuple[Sequence[str], str]]
"""Adds a round to a body, given states: the states after it, and whether pairs had to turn."""


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
    """Repeat rounds until each pair had its turn in vain.

    Parameters
    ----------
    states : sequence of (Value, str)
        What a round changes, and what it is before the first.
    turn : callable
        Adds one round.
    """
    zero, one = onnx.constant(0, "int64"), onnx.constant(1, "int64")
    is_odd = onnx.op("Mod", rows.number, onnx.constant(2, "int64"))
    rounds = onnx.op("Add", onnx.op("Sub", rows.number, one), is_odd)
    body = onnx.subgraph("rotate")
    number = body.declare(Value("round", (), "int64"))
    body.declare(Value("go", (), "bool"))
    quiet = Value("quiet", (), "int64")
    before = [body.declare(value) for value in (quiet, *(value for value, _ in states))]
    pairs = _pairs(body, number, rows, rounds, dtype)
    after, had_to = turn(body, pairs, before[1:])
    is_quiet = body.op("Where", had_to, zero, body.op("Add", before[0], one))
    go_on = body.op("Less", is_quiet, rounds)
    values = [quiet, *(value for value, _ in states)]
    made = onnx.ops(
        "Loop",
        onnx.op("Mul", rounds, onnx.constant(SWEEPS, "int64")),
        onnx.constant(True, "bool"),
        zero,
        *(start for _, start in states),
        outputs=len(values),
        body=loop_body(body, go_on, [*zip(values, (is_quiet, *after))]),
    )
    return with_ranks(onnx, made[1:], values[1:])


def _pairs(body: OnnxModel, turn: str, rows: Rows, rounds: str, dtype: str) -> Pairs:
    """Return who meets whom: on a circle of `rounds` rows those whose sum is the round's number.

    The one of the circle that would meet itself meets the row in the middle, if there is one.
    """
    number = body.op("Mod", turn, rounds)
    circle = body.op("Sub", body.op("Add", number, rounds), rows.indices)
    circle = body.op("Mod", circle, rounds)
    last = body.op("Sub", rows.number, body.constant(1, "int64"))
    half = body.op("Div", rows.number, body.constant(2, "int64"))
    is_even = body.op("Equal", last, rounds)
    middle = body.op("Where", is_even, rounds, rows.indices)
    partner = body.op("Where", body.op("Equal", circle, rows.indices), middle, circle)
    chosen = body.op("Mod", body.op("Mul", number, half), rounds)
    partner = body.op("Where", body.op("Equal", rows.indices, rounds), chosen, partner)
    order = body.op("Sign", body.cast(body.op("Sub", partner, rows.indices), dtype))
    return Pairs(partner, order)


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


def exceeds(body: OnnxModel, between: str, bound: str) -> str:
    """Return whether an element is larger than its bound."""
    more = body.cast(body.op("Greater", body.op("Abs", between), bound), "float32")
    return body.op("Greater", body.op("ReduceMax", more, keepdims=0), body.constant(0, "float32"))


def without_single(body: OnnxModel, pairs: Pairs, between: str, dtype: str) -> str:
    """Return the elements between partners, 0 for the row that has none."""
    zero = body.constant(0, dtype)
    return body.op("Where", body.op("Equal", pairs.order, zero), zero, between)
