"""Factorizations of many rows, or of an unknown number, in files: a ``Loop`` against LAPACK."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import TOLERANCES, check_refused, operator, random_array, run_mxnet

import mxtrt
from mxtrt.engines.onnxruntime import FLOAT32_OPTIMIZERS

A, B = mx.sym.var("x0"), mx.sym.var("x1")
linalg = mx.sym.linalg
SOLVE = operator("_npi_solve", 2)
SYEVD = linalg.syevd(A)
SVD, PINV = operator("_npi_svd", 1), operator("_npi_pinv_scalar_rcond", 1, rcond=1e-6)
FLOATS = ["float32", "float64"]
SHAPES = [(65, 65), (2, 100, 100), (130, 130)]

pytestmark = pytest.mark.usefixtures("np_shape")


def exported(
    symbol: mx.sym.Symbol, arrays: Mapping[str, np.ndarray], path: Path, *, known: bool = True
) -> Path:
    shapes = {n: x.shape if known else (None,) * x.ndim for n, x in arrays.items()}
    dtypes = {n: x.dtype.name for n, x in arrays.items()}
    mxtrt.export_model(symbol, {}, shapes, dtypes, path=path / "model.onnx")
    onnx.checker.check_model(str(path / "model.onnx"), full_check=True)
    return path / "model.onnx"


def run_file(path: Path, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    # ONNX Runtime until 1.25 fuses Transpose and MatMul of float64 into what it does not have
    session = ort.InferenceSession(
        str(path), providers=["CPUExecutionProvider"], disabled_optimizers=FLOAT32_OPTIMIZERS
    )
    return list(session.run(None, dict(arrays)))


def check_file(symbol: mx.sym.Symbol, path: Path, *inputs: np.ndarray, **bounds: float) -> None:
    """Assert that files, with sizes known and unknown, compute what MXNet does."""
    arrays = {f"x{i}": x for i, x in enumerate(inputs)}
    expected = run_mxnet(symbol, arrays)
    for known in (True, False):
        found = run_file(exported(symbol, arrays, path, known=known), arrays)
        for want, have in zip(expected, found):
            assert (want.shape, want.dtype) == (have.shape, have.dtype)
            rtol, atol = TOLERANCES[want.dtype.name]
            np.testing.assert_allclose(have, want, **{"rtol": rtol, "atol": atol, **bounds})


def matrices(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Return matrices that are far from singular, their rows in no good order."""
    made = random_array(shape, "float64") / np.sqrt(shape[-1]) + 2 * np.eye(shape[-1])
    return np.ascontiguousarray(made[..., ::-1, :]).astype(dtype)


def positive(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    made = random_array(shape, "float64")
    return (made @ np.swapaxes(made, -1, -2) / shape[-1] + np.eye(shape[-1])).astype(dtype)


def high(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.swapaxes(x, -1, -2))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_cholesky(shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    a = positive(shape, dtype)
    upper = np.triu(np.full(shape[-2:], np.nan, dtype), 1)  # it reads the lower triangle
    check_file(linalg.potrf(A), tmp_path, a + upper)
    check_file(operator("_npi_cholesky", 1), tmp_path, a)
    check_file(linalg.potri(A), tmp_path, np.linalg.cholesky(a))


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("rightside", [False, True])
@pytest.mark.parametrize("transpose", [False, True])
def test_triangular(transpose: bool, rightside: bool, lower: bool, tmp_path: Path) -> None:
    symbol = linalg.trsm(A, B, transpose=transpose, rightside=rightside, lower=lower, alpha=0.7)
    for dtype, batch in (("float32", ()), ("float64", (2, 1, 3))):
        a = np.linalg.cholesky(positive((*batch, 65, 65), dtype))
        b = random_array((*batch, 4, 65) if rightside else (*batch, 65, 4), dtype)
        other = np.triu(np.full((65, 65), np.nan, dtype), 1)  # it is not read
        check_file(symbol, tmp_path, (a if lower else high(a)) + (other if lower else other.T), b)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_elimination(shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    a = matrices(shape, dtype)
    check_file(linalg.inverse(A), tmp_path, a)
    check_file(linalg.slogdet(A), tmp_path, a)
    check_file(SOLVE, tmp_path, a, random_array((*shape[:-1], 3), dtype))
    check_file(SOLVE, tmp_path, a, random_array(shape[:-1], dtype))
    # up to 130 factors, with the rounding of each
    check_file(linalg.det(A), tmp_path, a / 2, rtol=1e-3 if dtype == "float32" else 1e-10)


def test_elimination_of_singular_matrices(tmp_path: Path) -> None:
    a = random_array((3, 20, 20))
    a[0, :, 7] = 0
    a[1, 5] = 0
    a[1, :, 3] = 0
    found = run_file(exported(linalg.slogdet(A), {"x0": a}, tmp_path), {"x0": a})
    expected = run_mxnet(linalg.slogdet(A), {"x0": a})
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4)
    assert np.isneginf(found[1][:2]).all()


def test_tensor_equations(tmp_path: Path) -> None:
    a = matrices((24, 24), "float64")
    inverse = operator("_npi_tensorinv", 1, ind=2)
    check_file(inverse, tmp_path, a.reshape(4, 6, 2, 3, 4))
    solve = operator("_npi_tensorsolve", 2, a_axes=())
    check_file(solve, tmp_path, a.reshape(4, 6, 2, 3, 4), random_array((4, 6), "float64"))
    turned = operator("_npi_tensorsolve", 2, a_axes=(0,))
    check_file(turned, tmp_path, a.reshape(6, 4, 6, 4), random_array((4, 6), "float64"))
    check_file(SOLVE, tmp_path, np.rint(a * 9).astype("int32"), random_array((24,), "int32"))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(65, 70), (100, 100), (2, 17, 300), (1, 1), (2, 3, 4, 4)])
def test_gelqf(shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    check_file(linalg.gelqf(A), tmp_path, random_array(shape, dtype))


def test_gelqf_of_rows_without_tails(tmp_path: Path) -> None:
    a = np.tril(random_array((20, 25)))
    a[3] = 0
    check_file(linalg.gelqf(A), tmp_path, a)


@pytest.mark.parametrize("op", ["potrf", "inverse"])
@pytest.mark.parametrize("shape", [(0, 0), (2, 0, 0), (0, 2, 2), (0, 20, 20)])
def test_without_elements(shape: tuple[int, ...], op: str, tmp_path: Path) -> None:
    """MXNet fails without rows in the other ones, or returns what was in memory."""
    check_file(getattr(linalg, op)(A), tmp_path, np.zeros(shape, "float32"))


@pytest.mark.parametrize("shape", [(0, 0), (2, 0, 0), (0, 2, 2), (2, 0, 20, 20)])
def test_eigenvalues_of_nothing(shape: tuple[int, ...], tmp_path: Path) -> None:
    x = {"x0": np.zeros(shape, "float32")}
    for symbol in (operator("_npi_eigh", 1, UPLO="L"), operator("_npi_eigvalsh", 1, UPLO="U")):
        found = run_file(exported(symbol, x, tmp_path), x)
        assert [y.shape for y in found] == [y.shape for y in run_mxnet(symbol, x)]


def check_eigenvectors(x: np.ndarray, vectors: np.ndarray, values: np.ndarray) -> None:
    eps = np.finfo(x.dtype).eps * 32  # LAPACK's own are of 8 to 16
    lower = np.tril(x)
    symmetric = lower + np.swapaxes(np.tril(x, -1), -1, -2)
    back = np.swapaxes(vectors, -1, -2) * values[..., None, :] @ vectors
    np.testing.assert_allclose(back, symmetric, atol=eps * np.abs(values).max())
    gram = vectors @ np.swapaxes(vectors, -1, -2)
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(x.shape[-1]), x.shape), atol=eps)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_eigenvalues(shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    """Vectors as exact as LAPACK's still differ by rounding over the gap between two values."""
    x = random_array(shape, dtype)
    for known in (True, False):
        found = run_file(exported(SYEVD, {"x0": x}, tmp_path, known=known), {"x0": x})
        check_eigenvectors(x, *found)
        want = run_mxnet(SYEVD, {"x0": x})[1]
        atol = np.finfo(dtype).eps * 32 * np.abs(want).max()
        np.testing.assert_allclose(found[1], want, rtol=0, atol=atol)
    values = operator("_npi_eigvalsh", 1, UPLO="U")
    check_file(values, tmp_path, x, rtol=0, atol=atol)


def test_equal_eigenvalues(tmp_path: Path) -> None:
    left = random_array((60, 20), "float64")
    x = (left @ left.T).astype("float32")
    vectors, values = run_file(exported(SYEVD, {"x0": x}, tmp_path), {"x0": x})
    check_eigenvectors(x, vectors, values)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(65, 90), (2, 30, 33)])
def test_singular_values(shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    """As for eigenvalues; the matrix comes out of the vectors again."""
    x = random_array(shape, dtype)
    eps = np.finfo(dtype).eps
    want = run_mxnet(SVD, {"x0": x})
    for known in (True, False):
        left, values, right = run_file(exported(SVD, {"x0": x}, tmp_path, known=known), {"x0": x})
        np.testing.assert_allclose(values, want[1], rtol=0, atol=32 * eps * values.max())
        back = left * values[..., None, :] @ right
        np.testing.assert_allclose(back, x, atol=32 * eps * values.max())
        for vectors in (left, right):
            gram = vectors @ np.swapaxes(vectors, -1, -2)
            np.testing.assert_allclose(gram - np.eye(shape[-2]), 0 * gram, atol=64 * eps)
        # rounding over gaps of 1 in 1000
        np.testing.assert_allclose(right, want[2], atol=1e-3 if dtype == "float32" else 1e-11)
    for matrix in (x, high(x)):
        check_file(PINV, tmp_path, matrix, atol=1e-5 if dtype == "float32" else 1e-12)


def test_singular_values_of_low_rank(tmp_path: Path) -> None:
    x = random_array((40, 15)) @ random_array((15, 50), seed=1)
    left, values, right = run_file(exported(SVD, {"x0": x}, tmp_path), {"x0": x})
    np.testing.assert_allclose(left * values @ right, x, atol=1e-5 * values.max())
    np.testing.assert_allclose(right @ right.T, np.eye(40), atol=1e-5)
    assert values[15:].max() < 1e-5 * values[0]
    check_file(PINV, tmp_path, x, atol=1e-6)
    check_file(PINV, tmp_path, high(x), atol=1e-6)


@pytest.mark.parametrize(
    "symbol",
    [
        linalg.potrf(A), linalg.potri(A), linalg.inverse(A), linalg.slogdet(A), linalg.gelqf(A),
        linalg.trsm(A, B), SYEVD, SVD, PINV,
    ],
)  # fmt: skip
def test_files_do_not_grow_with_the_rows(symbol: mx.sym.Symbol, tmp_path: Path) -> None:
    """But for the rows' indices, 8 bytes each in a few forms."""
    sizes = []
    for n in (100, 1100):
        arrays = {name: np.empty((n, n), "float32") for name in symbol.list_arguments()}
        sizes.append(exported(symbol, arrays, tmp_path).stat().st_size)
    assert sizes[1] - sizes[0] < 3 * 8 * 1000
    assert sizes[0] < 25_000


def test_a_file_of_unknown_sizes_serves_all(tmp_path: Path) -> None:
    x = positive((5, 5), "float32")
    paths = {}
    for name, symbol in {"potrf": linalg.potrf(A), "inverse": linalg.inverse(A)}.items():
        (tmp_path / name).mkdir()
        paths[name] = symbol, exported(symbol, {"x0": x}, tmp_path / name, known=False)
    for n in (1, 2, 9, 40):
        x = positive((n, n), "float32")
        for symbol, path in paths.values():
            found, want = run_file(path, {"x0": x}), run_mxnet(symbol, {"x0": x})
            np.testing.assert_allclose(found[0], want[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("symbol", "arrays", "limit"),
    [
        (linalg.potrf(A), {"x0": (17, 17)}, 16), (linalg.potri(A), {"x0": (17, 17)}, 16),
        (linalg.inverse(A), {"x0": (17, 17)}, 16), (linalg.slogdet(A), {"x0": (17, 17)}, 16),
        (linalg.gelqf(A), {"x0": (17, 20)}, 16), (SOLVE, {"x0": (17, 17), "x1": (17,)}, 16),
        (linalg.trsm(A, B), {"x0": (17, 17), "x1": (17, 3)}, 16), (SYEVD, {"x0": (9, 9)}, 8),
        (SVD, {"x0": (9, 9)}, 8), (PINV, {"x0": (9, 9)}, 8),
    ],
)  # fmt: skip
def test_many_rows_stay_in_mxnet(
    symbol: Any, arrays: dict[str, tuple[int, ...]], limit: int
) -> None:
    check_refused(symbol, arrays, f"{arrays['x0'][0]} rows, more than {limit}: MXNet is much")


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(1, 24), st.lists(st.integers(1, 3), max_size=2), st.integers(0, 1000))
def test_any_matrix(
    tmp_path_factory: pytest.TempPathFactory, n: int, batch: list[int], seed: int
) -> None:
    path = tmp_path_factory.mktemp("any")
    x = random_array((*batch, n, n), "float64", seed) / np.sqrt(n) + 2 * np.eye(n)
    for symbol in (linalg.inverse(A), linalg.slogdet(A), linalg.gelqf(A), linalg.potri(A), PINV):
        check_file(symbol, path, x, rtol=1e-8, atol=1e-8)  # the matrices' condition
