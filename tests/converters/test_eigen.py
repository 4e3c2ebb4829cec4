"""Eigenvalues of symmetric matrices against MXNet, whose LAPACK finds them another way."""

from __future__ import annotations

from pathlib import Path

import mxnet as mx
import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import (
    ENGINE_OPTIONS,
    check_operator,
    check_refused,
    operator,
    random_array,
    run_mxnet,
)

import mxtrt

A = mx.sym.var("x0")
SYEVD = mx.sym.linalg.syevd(A)
SHAPES = [(1, 1), (2, 2), (3, 3), (2, 5, 5), (2, 1, 3, 6, 6), (8, 8)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_syevd(shape: tuple[int, ...], dtype: str) -> None:
    """Of a matrix that is not symmetric it reads the lower triangle."""
    bounds = {"rtol": 1e-9, "atol": 1e-11} if dtype == "float64" else {}  # gaps of 1 in 1000
    check_operator(SYEVD, {"x0": random_array(shape, dtype)}, **bounds)


@pytest.mark.usefixtures("np_shape")
@pytest.mark.parametrize("triangle", ["L", "U"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "int8", "uint8"])
def test_numpy(dtype: str, triangle: str) -> None:
    bounds = {} if dtype == "float32" else {"rtol": 1e-9, "atol": 1e-11}
    for op in ("_npi_eigh", "_npi_eigvalsh"):
        for shape in ((4, 4), (2, 3, 5, 5)):
            x = random_array(shape, dtype, seed=1) * 3
            check_operator(operator(op, 1, UPLO=triangle), {"x0": x.astype(dtype)}, **bounds)
    check_operator(operator("_npi_eigh", 1), {"x0": x.astype(dtype)}, **bounds)


MATRICES = {
    "diagonal": np.diag([3.0, -1, 2]),
    "zeros": np.zeros((3, 3)),
    "equal diagonals": np.array([[2.0, 1, 0.5], [1, 2, 0.25], [0.5, 0.25, 2]]),
    "large and small": np.array([[1e8, 1, 2], [1, 1, 0.5], [2, 0.5, 1e-3]]),
    "large": np.array([[1e18, 2e18], [2e18, -1e18]]),
    "small": np.array([[1e-18, 2e-18], [2e-18, -1e-18]]),
    "blocks": np.kron(np.eye(2), [[1.0, 2], [2, 5]]) * [[1, 1, 1, 1]] * 2 + np.diag([0, 0, 1, 1]),
}


@pytest.mark.parametrize("name", MATRICES)
def test_particular_matrices(name: str) -> None:
    x = MATRICES[name].astype("float32")
    if name == "zeros":  # every vector is one
        check_operator(mx.sym.identity(SYEVD[1]), {"x0": x})
    else:
        check_operator(SYEVD, {"x0": x}, atol=1e-5 * max(np.abs(x).max(), 1))


def test_equal_eigenvalues() -> None:
    """Their vectors may be any basis of one plane: the matrix comes out of them again."""
    x = np.full((4, 4), 0.5, "float32") + np.eye(4, dtype="float32")
    optimized, _ = mxtrt.optimize(
        SYEVD, shapes={"x0": (4, 4)}, min_subgraph_size=1, **ENGINE_OPTIONS
    )
    vectors, values = run_mxnet(optimized, {"x0": x})
    np.testing.assert_allclose(values, [1, 1, 1, 3], rtol=1e-6)
    np.testing.assert_allclose(vectors.T @ np.diag(values) @ vectors, x, atol=1e-6)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(4), atol=1e-6)


def test_many_rows_stay_in_mxnet_and_leave_it_in_files(tmp_path: Path) -> None:
    check_refused(SYEVD, {"x0": (9, 9)}, "9 rows, more than 8: MXNet is much faster than a loop")
    check_refused(SYEVD, {"x0": (65, 65)}, "65 rows, more than 8")
    x = random_array((40, 40))
    path = mxtrt.export_model(SYEVD, {}, {"x0": x.shape}, path=tmp_path / "syevd.onnx")
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for want, have in zip(run_mxnet(SYEVD, {"x0": x}), session.run(None, {"x0": x})):
        np.testing.assert_allclose(have, want, rtol=1e-3, atol=1e-3)  # gaps of 1 in 1000


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(1, 8), st.lists(st.integers(1, 3), max_size=2), st.integers(0, 1000))
def test_any_matrix(n: int, batch: list[int], seed: int) -> None:
    x = random_array((*batch, n, n), "float64", seed)
    check_operator(SYEVD, {"x0": x}, rtol=1e-7, atol=1e-9, unknown_sizes=False)  # the gaps
