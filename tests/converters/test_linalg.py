"""Linear algebra against MXNet."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import (
    check_operator,
    check_refused,
    optimize_whole,
    random_array,
    run_engines,
    run_mxnet,
)

import mxtrt

A, B = mx.sym.var("a"), mx.sym.var("b")
linalg = mx.sym.linalg
BATCHES = [(), (2,), (2, 1, 3)]
FLOATS = ["float32", "float64"]


def _matrices(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    """Return matrices that are far from singular, their rows in no good order."""
    made = random_array(shape, "float64") + 3 * np.eye(*shape[-2:])
    return made[..., ::-1, :].astype(dtype)


def _positive(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    made = random_array(shape, "float64")
    return (made @ np.swapaxes(made, -1, -2) + np.eye(shape[-1])).astype(dtype)


@pytest.mark.parametrize("offset", [0, 1, -1, 3, -2])
@pytest.mark.parametrize("batch", BATCHES)
def test_diagonals_and_triangles(batch: tuple[int, ...], offset: int) -> None:
    check_operator(linalg.extractdiag(A, offset=offset), {"a": (*batch, 4, 4)})
    check_operator(linalg.makediag(A, offset=offset), {"a": (*batch, 3)})
    for lower in (True, False):
        attrs = {"offset": offset, "lower": lower}
        check_operator(linalg.extracttrian(A, **attrs), {"a": (*batch, 4, 4)})
        for length in (1, 3, 10):
            check_operator(linalg.maketrian(A, **attrs), {"a": (*batch, length)})


@pytest.mark.parametrize("offset", [0, 1, -3])
@pytest.mark.parametrize("batch", BATCHES)
def test_diagonals_and_triangles_of_any_size(batch: tuple[int, ...], offset: int) -> None:
    """One symbol, optimised without a size, for small matrices and large ones."""
    symbols = {
        "extractdiag": linalg.extractdiag(A, offset=offset),
        "makediag": linalg.makediag(A, offset=offset),
    }
    for lower in (True, False):
        attrs = {"offset": offset, "lower": lower}
        symbols[f"extracttrian{lower}"] = linalg.extracttrian(A, **attrs)
        symbols[f"maketrian{lower}"] = linalg.maketrian(A, **attrs)
    for name, symbol in symbols.items():
        shape = (*batch, None, None) if "extract" in name else (*batch, None)
        optimized, _ = optimize_whole(symbol, shapes={"a": shape})
        for n in (4, 5, 70):
            size = n * (n + 1) // 2 if "maketrian" in name else n
            feeds = {"a": random_array((*batch, n, n) if "extract" in name else (*batch, size))}
            np.testing.assert_array_equal(
                run_engines(optimized, feeds)[0], run_mxnet(symbol, feeds)[0]
            )
        mxtrt.release(optimized)


def test_diagonals_and_triangles_of_many_rows() -> None:
    for symbol in (linalg.extractdiag(A, offset=2), linalg.extracttrian(A), linalg.sumlogdiag(A)):
        check_operator(symbol, {"a": _positive((2, 70, 70), "float32")})
    check_operator(linalg.makediag(A, offset=-1), {"a": (2, 70)})
    check_operator(linalg.maketrian(A, lower=False), {"a": (2, 100 * 101 // 2)})


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("batch", BATCHES)
def test_sumlogdiag(batch: tuple[int, ...], dtype: str) -> None:
    check_operator(linalg.sumlogdiag(A), {"a": _positive((*batch, 3, 3), dtype)})


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("batch", BATCHES)
def test_syrk(batch: tuple[int, ...], transpose: bool) -> None:
    for alpha in (1.0, 0.3):
        symbol = linalg.syrk(A, transpose=transpose, alpha=alpha)
        check_operator(symbol, {"a": (*batch, 3, 4)})


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("rightside", [False, True])
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("batch", BATCHES)
def test_triangular(batch: tuple[int, ...], transpose: bool, rightside: bool, lower: bool) -> None:
    attrs = {"transpose": transpose, "rightside": rightside, "lower": lower, "alpha": 0.7}
    a = random_array((*batch, 4, 4)) + 3 * np.eye(4, dtype="float32")
    b = random_array((*batch, 2, 4) if rightside else (*batch, 4, 2))
    for op in (linalg.trmm, linalg.trsm):
        check_operator(op(A, B, **attrs), {"a": a, "b": b})
        check_operator(op(A, B, **attrs), {"b": b}, {"a": a})


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("batch", BATCHES)
def test_cholesky(batch: tuple[int, ...], n: int, dtype: str) -> None:
    a = _positive((*batch, n, n), dtype)
    check_operator(linalg.potrf(A), {"a": a})
    check_operator(linalg.potri(A), {"a": np.linalg.cholesky(a)})


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [2, 5])
def test_cholesky_does_not_read_above_the_diagonal(n: int, dtype: str) -> None:
    a = _positive((2, n, n), dtype)
    a[0, 0, 1:], a[1, : n - 1, n - 1] = np.nan, np.inf
    check_operator(linalg.potrf(A), {"a": a})


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [1, 2, 6])
@pytest.mark.parametrize("batch", BATCHES)
def test_elimination(batch: tuple[int, ...], n: int, dtype: str) -> None:
    a = {"a": _matrices((*batch, n, n), dtype)}
    check_operator(linalg.inverse(A), a)
    check_operator(linalg.slogdet(A), a)
    check_operator(linalg.det(A), a)


def test_elimination_of_singular_matrices() -> None:
    a = {"a": np.array([[[0, 0], [0, 0]], [[1, 2], [2, 4]], [[0, 1], [2, 0]]], "float32")}
    check_operator(linalg.slogdet(A), a)
    check_operator(linalg.det(A), a)


def test_det_of_many_rows() -> None:
    check_operator(linalg.det(A), {"a": _matrices((2, 66, 66)) / 7}, rtol=1e-3)  # 66 factors


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 3), (2, 5), (4, 5), (1, 3)])
@pytest.mark.parametrize("batch", BATCHES)
def test_gelqf(batch: tuple[int, ...], rows: int, columns: int, dtype: str) -> None:
    check_operator(linalg.gelqf(A), {"a": random_array((*batch, rows, columns), dtype)})


def test_gelqf_of_rows_without_tails() -> None:
    a = np.array([[2, 0, 0], [1, -3, 0], [4, 5, 0]], "float32")
    check_operator(linalg.gelqf(A), {"a": a})


@pytest.mark.parametrize("rows", [(2,), (2, 3), (3, 1, 2), (1, 2, 2, 3)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_khatri_rao(dtype: str, rows: tuple[int, ...]) -> None:
    arrays = {f"m{i}": random_array((n, 4), dtype, i) for i, n in enumerate(rows)}
    check_operator(mx.sym.khatri_rao(*map(mx.sym.var, arrays)), arrays)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.data())
def test_any_factorization(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 8), "n")
    batch = tuple(data.draw(st.lists(st.integers(1, 3), max_size=2), "batch"))
    a = _positive((*batch, n, n), "float64")
    for symbol in (linalg.potrf(A), linalg.inverse(A), linalg.slogdet(A), linalg.gelqf(A)):
        check_operator(symbol, {"a": a}, rtol=1e-8, atol=1e-8)  # the matrices' condition


@pytest.mark.parametrize(
    ("symbol", "shape", "sentence"),
    [
        (linalg.potrf(A), (65, 65), "65 rows, more than 16: MXNet is much faster than steps"),
    ],
)
def test_refused(symbol: Any, shape: tuple[int, ...], sentence: str) -> None:
    check_refused(symbol, {"a": shape}, sentence)
