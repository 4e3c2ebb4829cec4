"""Eigenvalues of symmetric matrices, by Jacobi's rotations.

A round turns pairs of rows and columns, every row in one pair, so that the elements between them
become 0; after ``n - 1`` rounds each pair had its turn. A ``Loop`` goes on until all elements off
the diagonal are nothing but rounding, a few times ``n`` rounds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from onnx import GraphProto

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from . import known_rank, value_of
from .elementwise import FLOATS
from .linalg import matrix_transpose, steps
from .suppression import loop_body

MAX_ROWS = 8  # 0.6 ms on a CPU; 16 are 6 ms, and MXNet's LAPACK needs 0.2 ms for them
SWEEPS = 12  # at most, each with all pairs; 64 rows of doubles take 8
ROUNDING = 16  # in units of the last place of the largest element

Rounds = npt.NDArray[np.bool_]


@converts("_linalg_syevd")
def syevd(onnx: OnnxModel, a: Value) -> tuple[str, str]:
    """``_linalg_syevd`` -> a ``Loop`` of Jacobi's rotations; vectors are rows."""
    values, vectors = _eigenvectors(onnx, a, "L")
    return _with_largest_positive(onnx, a, vectors), values


@converts("_npi_eigh")
def eigh(onnx: OnnxModel, a: Value, *, UPLO: str = "L") -> tuple[str, str]:  # noqa: N803
    """``_npi_eigh`` -> a ``Loop`` of Jacobi's rotations; vectors are columns."""
    values, vectors = _eigenvectors(onnx, a, UPLO)
    rows = _with_largest_positive(onnx, a, vectors)
    return values, matrix_transpose(onnx, rows, known_rank(a))


@converts("_npi_eigvalsh")
def eigvalsh(onnx: OnnxModel, a: Value, *, UPLO: str = "L") -> str:  # noqa: N803
    """``_npi_eigvalsh`` -> a ``Loop`` of Jacobi's rotations."""
    return _eigenvectors(onnx, a, UPLO)[0]


def _eigenvectors(onnx: OnnxModel, a: Value, triangle: str) -> tuple[str, str]:
    """Return the eigenvalues in ascending order, and their vectors as rows of either sign."""
    if a.shape is not None and a.shape[-1] == 0:
        nothing = onnx.cast(a, a.dtype if a.dtype in FLOATS else "float64")
        return onnx.op("ReduceSum", nothing, onnx.ints([-1]), keepdims=0), nothing
    count, dtype = rows_to_turn(onnx, a), a.dtype if a.dtype in FLOATS else "float64"
    matrix = value_of(onnx, _symmetric(onnx, a, triangle, dtype), a.shape, dtype)
    pairs = pairings(count)
    tables = onnx.constant(pairs, dtype), onnx.constant(orders(pairs), dtype)
    identity = onnx.constant(np.eye(count), dtype)
    largest = onnx.op("ReduceMax", onnx.op("Abs", matrix), axes=[-2, -1], keepdims=1)
    noise = onnx.op("Mul", largest, onnx.constant(ROUNDING * np.finfo(dtype).eps, dtype))
    turned, vectors = onnx.ops(
        "Loop",
        onnx.constant(SWEEPS * len(pairs), "int64"),
        onnx.constant(True, "bool"),
        matrix,
        onnx.op("Expand", identity, onnx.op("Shape", matrix)),
        outputs=2,
        body=_round(onnx, matrix, tables, identity, noise, len(pairs)),
    )
    diagonal = onnx.op("ReduceSum", onnx.op("Mul", turned, identity), onnx.ints([-1]), keepdims=0)
    values, order = onnx.ops("TopK", diagonal, onnx.ints([count]), outputs=2, axis=-1, largest=0)
    places = onnx.op("Unsqueeze", order, onnx.ints([-1]))
    chosen = onnx.cast(onnx.op("Equal", places, onnx.ints(range(count))), dtype)
    return values, onnx.op("MatMul", chosen, vectors)


def rows_to_turn(onnx: OnnxModel, a: Value, axis: int = -1) -> int:
    """Return the number of rows of `a`, if a loop does not take much longer than MXNet."""
    count = steps(a, axis)
    if count > MAX_ROWS and not onnx.leaves_mxnet:
        raise UnsupportedOp(f"{count} rows, more than {MAX_ROWS}: MXNet is much faster than a loop")
    return count


def _symmetric(onnx: OnnxModel, a: Value, triangle: str, dtype: str) -> str:
    """Return the symmetric matrices of which `a` holds one triangle."""
    is_upper = int(triangle == "U")
    matrix: Operand = a if a.dtype == dtype else onnx.cast(a, dtype)
    beside = onnx.constant(1 if is_upper else -1, "int64")
    other = matrix_transpose(onnx, onnx.op("Trilu", matrix, beside, upper=is_upper), known_rank(a))
    return onnx.op("Add", onnx.op("Trilu", matrix, upper=is_upper), other)


def _round(
    onnx: OnnxModel,
    like: Value,
    tables: tuple[str, str],
    identity: str,
    noise: str,
    rounds: int,
) -> GraphProto:
    """Turn every row with its partner, by the angle that makes the element between them 0."""
    rank, dtype = known_rank(like), like.dtype
    body = onnx.subgraph("rotate")
    turn = body.declare(Value("turn", (), "int64"))
    body.declare(Value("go", (), "bool"))
    states = [Value("turned", like.shape, dtype), Value("vectors", like.shape, dtype)]
    matrix, vectors = (body.declare(state) for state in states)
    zero, one = body.constant(0, dtype), body.constant(1, dtype)
    number = body.op("Mod", turn, body.constant(rounds, "int64"))
    pairs, order = (body.op("Gather", table, number, axis=0) for table in tables)

    def along_rows(x: Operand) -> str:
        return body.op("ReduceSum", x, body.ints([-1]), keepdims=1)

    own = along_rows(body.op("Mul", matrix, identity))
    partner = body.op("MatMul", pairs, own)
    between = along_rows(body.op("Mul", matrix, pairs))
    tan = tangent(body, own, partner, between, order, (zero, one), dtype)
    cos = body.op("Reciprocal", body.op("Sqrt", body.op("Add", one, body.op("Mul", tan, tan))))
    sin = body.op("Mul", tan, cos)
    rotation = body.op("Add", body.op("Mul", cos, identity), body.op("Mul", sin, pairs))
    back = matrix_transpose(body, rotation, rank)
    turned = body.op("MatMul", body.op("MatMul", back, matrix), rotation)
    turned = body.op("Mul", turned, body.op("Sub", one, pairs))
    rest = body.op("Abs", body.op("Mul", turned, body.op("Sub", one, identity)))
    more = body.cast(body.op("Greater", rest, noise), "float32")
    go_on = body.op("Greater", body.op("ReduceMax", more, keepdims=0), body.constant(0, "float32"))
    return loop_body(body, go_on, [*zip(states, (turned, body.op("MatMul", back, vectors)))])


def tangent(
    body: OnnxModel,
    own: str,
    partner: str,
    between: str,
    order: str,
    numbers: tuple[str, str],
    dtype: str,
) -> str:
    """Return the tangent of each row's angle, 0 where there is nothing to make 0."""
    zero, one = numbers
    nothing = body.op("Equal", between, zero)
    divisor = body.op("Mul", body.constant(2, dtype), body.op("Where", nothing, one, between))
    ratio = body.op("Div", body.op("Sub", partner, own), divisor)
    sign = body.op("Where", body.op("Equal", ratio, zero), order, body.op("Sign", ratio))
    root = body.op("Sqrt", body.op("Add", one, body.op("Mul", ratio, ratio)))
    tan = body.op("Div", sign, body.op("Add", body.op("Abs", ratio), root))
    return body.op("Where", nothing, zero, tan)


def pairings(count: int) -> Rounds:
    """Return who meets whom in each round, as matrices; in odd fields one waits."""
    players = [*range(count), *([-1] if count % 2 else [])]
    rounds = np.zeros((max(len(players) - 1, 1), count, count), bool)
    for made in rounds:
        for one, other in zip(players, reversed(players)):
            if one >= 0 and other >= 0:
                made[one, other] = one != other
        players[1:] = [players[-1], *players[1:-1]]
    return rounds


def orders(pairs: Rounds) -> npt.NDArray[np.float64]:
    """Return 1 for the first of each pair, -1 for the second, as columns."""
    place = np.arange(pairs.shape[-1])
    partner = pairs @ place
    met = pairs.any(axis=-1)
    return np.where(met, np.sign(partner - place), 0)[..., None]


def _with_largest_positive(onnx: OnnxModel, a: Value, rows: str) -> str:
    """Return the vectors with the sign that makes the element of the largest size positive."""
    if a.shape is not None and a.shape[-1] == 0:
        return rows
    place = onnx.op("ArgMax", onnx.op("Abs", rows), axis=-1, keepdims=1)
    largest = onnx.op("GatherElements", rows, place, axis=-1)
    return onnx.op("Mul", rows, onnx.op("Sign", largest))
