"""Singular values and pseudo-inverses against MXNet, whose LAPACK finds them another way."""

from __future__ import annotations

from pathlib import Path

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

SVD = operator("_npi_svd", 1)
PINV = operator("_npi_pinv_scalar_rcond", 1)
WIDE = [(1, 1), (1, 4), (2, 2), (3, 5), (2, 4, 7), (2, 1, 3, 3), (8, 8), (5, 300)]
BOUNDS = {"float32": {"atol": 1e-4}, "float64": {"rtol": 1e-9, "atol": 1e-11}}  # gaps of 1 in 100

pytestmark = pytest.mark.usefixtures("np_shape")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", WIDE)
def test_svd(shape: tuple[int, ...], dtype: str) -> None:
    check_operator(SVD, {"x0": random_array(shape, dtype)}, **BOUNDS[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [*WIDE, (4, 1), (5, 3), (2, 7, 4), (300, 5)])
def test_pinv(shape: tuple[int, ...], dtype: str) -> None:
    check_operator(PINV, {"x0": random_array(shape, dtype)}, **BOUNDS[dtype])


@pytest.mark.parametrize("shape", [(0, 3), (0, 0), (2, 0, 4), (0, 2, 3)])
def test_without_elements(shape: tuple[int, ...]) -> None:
    x = np.zeros(shape, "float32")
    check_operator(SVD, {"x0": x})
    check_operator(PINV, {"x0": x})
    check_operator(PINV, {"x0": x.swapaxes(-1, -2)})


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (2, 4, 4)])
def test_limits_of_pinv(shape: tuple[int, ...]) -> None:
    """Singular values of 1, 0.1, 0.01 and 0.001: rcond says which ones count."""
    rng = np.random.default_rng(3)
    left, _ = np.linalg.qr(rng.standard_normal((*shape[:-1], 4)))
    right, _ = np.linalg.qr(rng.standard_normal((*shape[:-2], shape[-1], 4)))
    x = left * [1, 0.1, 0.01, 0.001] @ right.swapaxes(-1, -2)
    for rcond in (0.5, 0.05, 0.005, 0.0005):
        symbol = operator("_npi_pinv_scalar_rcond", 1, rcond=rcond, hermitian=True)
        check_operator(symbol, {"x0": x}, rtol=1e-9, atol=1e-9)
        given = {"x0": x, "x1": np.array(rcond)}
        check_operator(operator("_npi_pinv", 2, hermitian=False), given, rtol=1e-9, atol=1e-9)
    if len(shape) == 3:
        given["x1"] = np.array([0.05, 0.005])
        check_operator(operator("_npi_pinv", 2, hermitian=True), given, rtol=1e-9, atol=1e-9)


MATRICES = {
    "diagonal": np.diag([3.0, -1, 2]),
    "equal rows": np.array([[1.0, 2, 3], [1, 2, 3], [0, 1, -1]]),
    "a row of zeros": np.array([[1.0, 2, 3], [0, 0, 0], [0, 1, -1]]),
    "zeros": np.zeros((2, 3)),
    "large": np.array([[1e18, 2e18], [2e18, -1e17]]),
    "small": np.array([[1e-18, 2e-18], [2e-18, -1e-17]]),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MATRICES)
def test_particular_matrices(name: str, dtype: str) -> None:
    """Where a singular value is 0 LAPACK chooses its vectors: they stand on all others."""
    x = MATRICES[name].astype(dtype)
    size, eps = np.abs(x).max() or 1, np.finfo(dtype).eps
    pinv = operator("_npi_pinv_scalar_rcond", 1, rcond=1e-5)
    check_operator(pinv, {"x0": x}, rtol=100 * eps, atol=100 * eps / size)
    check_operator(SVD[1], {"x0": x}, rtol=100 * eps, atol=10 * eps * size)
    optimized, _ = mxtrt.optimize(SVD, shapes={"x0": x.shape}, dtypes={"x0": dtype},
                                  min_subgraph_size=1, **ENGINE_OPTIONS)  # fmt: skip
    ut, values, v = run_mxnet(optimized, {"x0": x})
    np.testing.assert_allclose(ut * values @ v, x, atol=10 * eps * size)
    for vectors in (ut, v):
        np.testing.assert_allclose(vectors @ vectors.T, np.eye(len(x)), atol=20 * eps)
    assert (v.max(axis=-1) == np.abs(v).max(axis=-1)).all()


def test_many_rows_stay_in_mxnet_and_leave_it_in_files(tmp_path: Path) -> None:
    for symbol in (SVD, PINV):
        check_refused(symbol, {"x0": (9, 9)}, "9 rows, more than 8: MXNet is much faster")
    x = random_array((20, 30))
    path = mxtrt.export_model(SVD, {}, {"x0": x.shape}, path=tmp_path / "svd.onnx")
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for want, have in zip(run_mxnet(SVD, {"x0": x}), session.run(None, {"x0": x})):
        np.testing.assert_allclose(have, want, rtol=1e-3, atol=1e-3)  # gaps of 1 in 100


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(1, 8), st.integers(0, 4), st.lists(st.integers(1, 3), max_size=2),
       st.integers(0, 1000))  # fmt: skip
def test_any_matrix(rows: int, more: int, batch: list[int], seed: int) -> None:
    x = random_array((*batch, rows, rows + more), "float64", seed)
    bounds = {"rtol": 1e-6, "atol": 1e-8, "unknown_sizes": False}  # the gaps, and 1 / the smallest
    check_operator(SVD, {"x0": x}, **bounds)
    check_operator(PINV, {"x0": x}, **bounds)
    check_operator(PINV, {"x0": x.swapaxes(-1, -2).copy()}, **bounds)
