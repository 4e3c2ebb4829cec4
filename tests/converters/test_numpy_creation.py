"""New arrays against MXNet's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from operators import check_numpy, check_operator, check_refused, operator

pytestmark = pytest.mark.usefixtures("np_shape")

TYPES = ["float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool"]


def check_created(op: str, **attrs: Any) -> None:
    """Compare an array that is made of nothing: added to an input, or it would stay in MXNet."""
    made = operator(op, 0, **attrs)
    shape, dtype = made.infer_shape()[1][0], np.dtype(made.infer_type()[1][0]).name
    total = operator("_npi_add", 2)(x1=made)
    check_operator(total, {"x0": np.zeros(shape, dtype)})


@pytest.mark.parametrize("attrs", [
    {"start": 0, "stop": 5}, {"start": 2, "stop": 8.5, "step": 1.5},
    {"start": 2, "stop": 8.5, "step": 1.5, "dtype": "int32"},
    {"start": 2.7, "stop": 8.5, "step": 1.5, "dtype": "float16"}, {"start": 5, "stop": 5},
    {"start": 5, "stop": 0, "step": -2}, {"start": 5, "stop": 9, "step": -1},
    {"start": 0, "stop": 5, "dtype": "float64", "step": 0.3},
    {"start": 0, "stop": 3, "ctx": "cpu(0)"}, {"start": 4, "repeat": 1, "infer_range": False},
    {"start": 1, "stop": 4, "infer_range": True},
    *({"start": 1, "stop": 7, "step": 2, "dtype": t} for t in ("int8", "uint8", "int64")),
])  # fmt: skip
def test_arange(attrs: dict[str, Any]) -> None:
    check_created("_npi_arange", **attrs)


@pytest.mark.parametrize("attrs", [
    {"N": 3}, {"N": 2, "M": 3, "k": 1, "dtype": "int32"},
    {"N": 2, "M": None, "k": -1, "dtype": "int8"}, {"N": 0}, {"N": 2, "M": 0}])  # fmt: skip
def test_eye(attrs: dict[str, Any]) -> None:
    check_created("_npi_eye", **attrs)


@pytest.mark.parametrize("shape", [(2, 2), (0, 0)])
@pytest.mark.parametrize("dtype", ["float32", "bool", "int64"])
def test_identity(shape: tuple[int, int], dtype: str) -> None:
    check_created("_npi_identity", shape=shape, dtype=dtype)


@pytest.mark.parametrize("dtype", TYPES[:-1])
def test_types(dtype: str) -> None:
    check_created("_npi_eye", N=2, M=3, k=1, dtype=dtype)
    check_created("_npi_identity", shape=(2, 2), dtype=dtype)
    check_created("_npi_indices", dimensions=(2, 3), dtype=dtype)
    check_created("_npi_logspace", start=0, stop=2, num=3, dtype=dtype)
    check_created("_npi_zeros", shape=(2,), dtype=dtype)
    check_created("_npi_ones", shape=(2, 0), dtype=dtype)


@pytest.mark.parametrize("dimensions", [(2, 3), (2,), (0, 2), (), (2, 3, 2)])
@pytest.mark.parametrize("dtype", ["int32", "float32", "int64"])
def test_indices(dimensions: tuple[int, ...], dtype: str) -> None:
    check_created("_npi_indices", dimensions=dimensions, dtype=dtype)


@pytest.mark.parametrize("op", ["_npi_zeros", "_npi_ones"])
@pytest.mark.parametrize("attrs", [
    {}, {"shape": (2, 0)}, {"shape": ()}, {"shape": (2,), "dtype": "bool"},
    {"shape": (3, 2), "dtype": "uint8"}, {"shape": (3,), "dtype": "float16"}])  # fmt: skip
def test_zeros_and_ones(op: str, attrs: dict[str, Any]) -> None:
    check_created(op, **attrs)


@pytest.mark.parametrize("attrs", [
    {"start": 0, "stop": 2, "num": 3}, {"start": 1, "stop": 2, "num": 1},
    {"start": 0, "stop": 2, "num": 4, "endpoint": False, "base": 2, "dtype": "float64"},
    {"start": 0, "stop": 2, "num": 3, "dtype": "int32"}, {"start": 0, "stop": 2, "num": 0},
    {"start": 1, "stop": 3, "num": 7, "dtype": "float16"}])  # fmt: skip
def test_logspace(attrs: dict[str, Any]) -> None:
    check_created("_npi_logspace", **attrs)


@pytest.mark.parametrize("op", ["hanning", "hamming", "blackman"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32"])
def test_windows(op: str, dtype: str) -> None:
    for length in (0, 1, 2, 5, 8, 50):
        check_created(f"_npi_{op}", M=length, dtype=dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("attrs", [
    {"fill_value": 2.7}, {"fill_value": -300, "dtype": "int8"}, {"fill_value": 2, "dtype": "bool"},
    {"fill_value": 0, "dtype": None, "ctx": "cpu(0)"}])  # fmt: skip
def test_full_like(attrs: dict[str, Any], dtype: str) -> None:
    check_numpy("_npi_full_like", np.array([[1, 0, 2]]).astype(dtype), **attrs)


def test_full_like_of_numbers_and_nothing() -> None:
    check_numpy("_npi_full_like", np.zeros((2, 0)), fill_value=3)
    check_numpy("_npi_full_like", np.float32(1), fill_value=3)


def test_refused() -> None:
    symbol = operator("_npi_full_like", 1, fill_value=1, dtype="bfloat16")
    check_refused(symbol, {"x0": np.ones(2)}, "dtype='bfloat16' is a type")
