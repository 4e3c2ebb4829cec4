"""Bits and common multiples against MXNet."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import check_numpy, check_refused, operator

pytestmark = pytest.mark.usefixtures("np_shape")

INTEGERS = ["int8", "uint8", "int32", "int64"]
BITWISE = ["bitwise_and", "bitwise_or", "bitwise_xor"]


def extremes(dtype: str) -> np.ndarray:
    limits = np.iinfo(dtype)
    low, high = limits.min, limits.max
    return np.array([low, high, 0, 1, low // 2 + 1, high // 3, high - 1]).astype(dtype)


@pytest.mark.parametrize("op", BITWISE)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_bitwise(op: str, dtype: str) -> None:
    x = extremes(dtype)
    check_numpy(f"_npi_{op}", x[:, None], x[::-1])
    check_numpy(f"_npi_{op}_scalar", x, scalar=77.0)
    check_numpy(f"_npi_{op}_scalar", x, scalar=-3.7, is_int=False)


@pytest.mark.parametrize("op", BITWISE)
def test_bitwise_of_bools(op: str) -> None:
    a, b = np.array([0, 0, 1, 1], bool), np.array([0, 1, 0, 1], bool)
    check_numpy(f"_npi_{op}", a, b)
    check_numpy(f"_npi_{op}_scalar", a, scalar=3.0)
    check_numpy(f"_npi_{op}_scalar", a, scalar=0.0)


@pytest.mark.parametrize("dtype", [*INTEGERS, "bool"])
def test_bitwise_not(dtype: str) -> None:
    check_numpy("_npi_bitwise_not", np.eye(2, dtype=bool) if dtype == "bool" else extremes(dtype))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_least_common_multiple(dtype: str) -> None:
    x = np.array([0, 1, 4, 6, -6, 9, 35, -1, 100, 127, 89, 55, -128]).astype(dtype)
    check_numpy("_npi_lcm", x[:, None], x)
    check_numpy("_npi_lcm_scalar", x, scalar=6.0)
    check_numpy("_npi_lcm_scalar", x, scalar=-6.0)


def test_least_common_multiple_of_neighbours_in_fibonaccis_row() -> None:
    """They take the most divisions."""
    a, b = np.array([1836311903, 2**31 - 1, -(2**31)]), np.array([1134903170, 7, 12])
    check_numpy("_npi_lcm", a.astype("int32"), b.astype("int32"))


def test_least_common_multiple_of_the_largest_integers() -> None:
    a, b = np.array([7540113804746346429, 3]), np.array([4660046610375530309, 0])
    check_numpy("_npi_lcm", a, b)


def test_least_common_multiple_of_bools() -> None:
    check_numpy("_npi_lcm", np.array([0, 0, 1, 1], bool), np.array([0, 1, 0, 1], bool))


def test_numbers_and_nothing() -> None:
    check_numpy("_npi_lcm", np.zeros((0, 3), "int32"), np.zeros((1, 3), "int32"))
    check_numpy("_npi_bitwise_and", np.zeros((0, 3), "int32"), np.int32(5))
    check_numpy("_npi_bitwise_not", np.int8(5))
    check_numpy("_npi_lcm", np.int32(4), np.int32(6))


def test_refused() -> None:
    symbol = operator("_npi_lcm_scalar", 1, scalar=6.5, is_int=False)
    sentence = "is_int=False: MXNet writes integers to the memory of its floats"
    check_refused(symbol, {"x0": np.arange(1, 4)}, sentence)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_integers(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(INTEGERS))
    limits = np.iinfo(dtype)
    numbers = st.lists(st.integers(int(limits.min), int(limits.max)), min_size=4, max_size=4)
    a, b = (np.array(data.draw(numbers), dtype) for _ in range(2))
    check_numpy(data.draw(st.sampled_from([f"_npi_{op}" for op in BITWISE])), a, b)
    if dtype != "int64":  # which MXNet's own product overflows on the way
        check_numpy("_npi_lcm", a, b)
