"""Diagonals, differences, insertions and masks against MXNet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import check_numpy, check_operator, check_refused, operator, random_array

pytestmark = pytest.mark.usefixtures("np_shape")

TYPES = ["float16", "float32", "float64", "int8", "uint8", "int32", "int64"]
VECTOR = np.arange(3)
MATRIX = np.arange(6).reshape(2, 3)
CUBE = random_array((2, 3, 4))
FLOATS = MATRIX.astype("float32")


@pytest.mark.parametrize("k", [0, 1, -2, 4])
def test_diag(k: int) -> None:
    check_numpy("_np_diag", VECTOR, k=k)
    check_numpy("_np_diag", MATRIX, k=k)
    check_numpy("_np_diagonal", MATRIX, offset=k)
    check_numpy("_np_trace", MATRIX, offset=k)


@pytest.mark.parametrize("dtype", TYPES)
def test_types(dtype: str) -> None:
    check_numpy("_np_diag", VECTOR.astype(dtype), k=1)
    check_numpy("_np_diagflat", MATRIX[:, :2].astype(dtype), k=1)
    check_numpy("_np_trace", (MATRIX * 60).astype(dtype))
    check_numpy("_npi_tril", MATRIX.astype(dtype))
    check_numpy("_npi_diff", MATRIX[:, ::-1].astype(dtype))


@pytest.mark.parametrize("axes", [
    {}, {"axis1": 0, "axis2": 2}, {"axis1": 2, "axis2": 1, "offset": 1},
    {"axis1": -1, "axis2": -2}, {"axis1": 1, "axis2": 0, "offset": -2}])  # fmt: skip
def test_diagonal_of_two_axes(axes: dict[str, int]) -> None:
    check_numpy("_np_diagonal", CUBE, **axes)
    check_numpy("_np_trace", CUBE, **axes)


@pytest.mark.parametrize("x", [VECTOR, MATRIX, CUBE], ids=np.ndim)
@pytest.mark.parametrize("k", [0, -1, 2])
def test_diagflat(x: np.ndarray, k: int) -> None:
    check_numpy("_np_diagflat", x, k=k)


@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 2), (2, 3, 0)])
def test_diagonal_of_nothing(shape: tuple[int, ...]) -> None:
    check_numpy("_np_diagonal", np.zeros(shape, "float32"))
    check_numpy("_np_trace", np.zeros(shape, "float32"))


@pytest.mark.parametrize("k", [0, 1, -1, 9, -9])
@pytest.mark.parametrize("x", [VECTOR, MATRIX, CUBE, np.zeros((0, 3))], ids=np.shape)
def test_tril(x: np.ndarray, k: int) -> None:
    check_numpy("_npi_tril", x, k=k)


@pytest.mark.parametrize("shape", [(3, 3), (2, 2, 2), (0, 0)])
def test_diag_indices_from(shape: tuple[int, ...]) -> None:
    for dtype in ("float64", "float16", "int32", "uint8"):
        check_numpy("_npi_diag_indices_from", np.zeros(shape, dtype))


@pytest.mark.parametrize("attrs", [
    {}, {"axis": 0}, {"n": 2}, {"n": 3}, {"n": 5}, {"n": 0}, {"axis": 1, "n": 2}])  # fmt: skip
def test_diff(attrs: dict[str, int]) -> None:
    check_numpy("_npi_diff", CUBE, **attrs)


@pytest.mark.parametrize("attrs", [
    {}, {"to_begin_scalar": 7, "to_end_scalar": -1.5}, {"to_begin_scalar": 7.5},
    {"to_end_scalar": 2}])  # fmt: skip
def test_ediff1d(attrs: dict[str, float]) -> None:
    check_numpy("_npi_ediff1d", FLOATS**2, **attrs)
    check_numpy("_npi_ediff1d", MATRIX**2, **attrs)


def test_ediff1d_between_arrays() -> None:
    row, vector = np.array([[9, 8]], "float32"), np.array([1, 2, 3], "float32")
    begin, end = {"to_begin_arr_given": True}, {"to_end_arr_given": True}
    check_numpy("_npi_ediff1d", FLOATS, row, **begin)
    check_numpy("_npi_ediff1d", FLOATS, row, **end)
    check_numpy("_npi_ediff1d", FLOATS, row, vector, **begin, **end)
    check_numpy("_npi_ediff1d", FLOATS, vector, to_begin_scalar=3, **end)
    check_numpy("_npi_ediff1d", FLOATS, np.float32(9), **end)


def test_ediff1d_of_numbers_and_nothing() -> None:
    check_numpy("_npi_ediff1d", np.float32(3), to_end_scalar=1)
    check_numpy("_npi_ediff1d", np.zeros(0, "float32"), to_begin_scalar=1)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
def test_polyval(dtype: str) -> None:
    check_numpy("_npi_polyval", np.array([1, 2, 3], dtype), np.array([[2, 3]], dtype))
    check_numpy("_npi_polyval", np.array([4], dtype), np.array(3, dtype))
    check_numpy("_npi_polyval", np.zeros(0, dtype), np.ones(2, dtype))


# -- inserting -------------------------------------------------------------------------------------

SIX = np.arange(6.0)
WIDE = MATRIX.astype("float64")


@pytest.mark.parametrize("attrs", [
    {"val": 9, "int_ind": 2}, {"val": 9.7, "int_ind": -1}, {"val": 9, "int_ind": 6},
    {"val": 9, "int_ind": 0}, {"val": 9, "int_ind": -6}])  # fmt: skip
@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_insert_a_number(attrs: dict[str, float], dtype: str) -> None:
    check_numpy("_npi_insert_scalar", SIX.astype(dtype), **attrs)


@pytest.mark.parametrize("values, attrs", [
    ([7, 8], {"int_ind": 1, "axis": 1}), ([[7], [8]], {"int_ind": 1, "axis": 1}),
    ([[7, 8]], {"int_ind": 1, "axis": 1}), ([7, 8, 9], {"int_ind": -1, "axis": 0}),
    ([7, 8, 9], {"int_ind": 0}), (5, {"int_ind": 0, "axis": 1}), ([7], {"int_ind": 1, "axis": 1}),
    ([[7, 8, 9], [1, 2, 3]], {"int_ind": 1, "axis": 0}), ([7], {"int_ind": 1, "axis": -1}),
    ([[7, 8], [1, 2], [3, 4]], {"int_ind": 1, "axis": 1})])  # fmt: skip
def test_insert_values_at_a_number(values: Any, attrs: dict[str, int]) -> None:
    check_numpy("_npi_insert_scalar", WIDE, np.array(values, "float64"), **attrs)
    check_numpy("_npi_insert_scalar", MATRIX, np.array(values, "float32"), **attrs)


@pytest.mark.parametrize("shape, attrs", [
    ((2, 3), {"int_ind": 2, "axis": 2}), ((4,), {"int_ind": 2, "axis": 1}),
    ((2, 2, 3), {"int_ind": 2, "axis": 2}), ((3, 1, 4), {"int_ind": 1, "axis": 0})])  # fmt: skip
def test_insert_into_three_axes(shape: tuple[int, ...], attrs: dict[str, int]) -> None:
    check_numpy("_npi_insert_scalar", CUBE, random_array(shape, seed=1), **attrs)


@pytest.mark.parametrize("x, values, attrs", [
    (SIX, [7, 8, 9], {"start": 1, "stop": 4, "step": 1}), (SIX, [7, 8, 9], {"step": -2}),
    (SIX, [7, 8, 9], {"start": 1, "stop": 2, "step": 1}),
    (WIDE, [[7, 8], [5, 6]], {"start": 0, "step": 2, "axis": 1}),
    (WIDE, [7, 8], {"start": 0, "step": 2, "axis": 1}),
    (WIDE, [[7], [8]], {"start": 0, "step": 2, "axis": 1}),
    (WIDE, [7, 8], {"start": 1, "stop": 2, "step": 1, "axis": 1}),
    (WIDE, [7, 8, 9], {"start": 0, "step": 1, "axis": 0}),
    (WIDE, [7, 8, 9], {"start": 0, "stop": 1, "step": 1, "axis": 0}),
    (WIDE, 7, {"start": 0, "stop": 2, "step": 1, "axis": 0})])  # fmt: skip
def test_insert_at_a_slice(x: np.ndarray, values: Any, attrs: dict[str, int]) -> None:
    check_numpy("_npi_insert_slice", x, np.array(values, "float64"), **attrs)


def test_insert_a_number_at_a_slice() -> None:
    # of one place, in a vector; MXNet dies on others
    check_numpy("_npi_insert_slice", SIX.astype("float32"), val=9, start=1, stop=2, step=1)


@pytest.mark.parametrize("x, values, places, axis", [
    (SIX, [7, 8], [3, 1], None), (SIX, [7, 8, 9], [3, 3, -1], None), (MATRIX, [7, 8], [2], 1),
    (MATRIX, [[7, 8], [5, 6]], [2, 0], 1), (MATRIX, [7], [2, 0], 1), (MATRIX, [7], [-1], 0),
    (MATRIX, [7, 8], [2, 0], None), (CUBE, np.ones((2, 3, 2)), [1, -1], 2)])  # fmt: skip
def test_insert_at_places_of_the_run(
    x: np.ndarray, values: Any, places: list[int], axis: int | None
) -> None:
    check_numpy("_npi_insert_tensor", x, np.array(values, x.dtype), np.array(places), axis=axis)


# -- overwriting -----------------------------------------------------------------------------------


def check_assigned(op: str, x: np.ndarray, *others: np.ndarray, **attrs: Any) -> None:
    """Compare an assignment to what another operator made: MXNet overwrites it in place."""
    names = [f"x{i}" for i in range(len(others) + 1)]
    symbol = operator(f"_npi_boolean_mask_assign_{op}", len(names), **attrs)
    symbol = symbol(x0=operator("_npi_negative", 1))
    check_operator(symbol, dict(zip(names, [x, *others])))


@pytest.mark.parametrize("x, mask, start_axis", [
    (FLOATS, FLOATS > 2, 0), (FLOATS, np.array([True, False, True]), 1), (MATRIX, MATRIX > 2, 0),
    (FLOATS, np.array([True, False]), 0), (CUBE, CUBE[0] > 0, 1), (CUBE, CUBE[0, :, 0] > 0, 1),
    (CUBE, CUBE[:, :, 0] > 0, 0)])  # fmt: skip
def test_assign_a_number(x: np.ndarray, mask: np.ndarray, start_axis: int) -> None:
    check_assigned("scalar", x, mask, value=7.5, start_axis=start_axis)


@pytest.mark.parametrize("dtype", TYPES)
def test_assign_to_every_type(dtype: str) -> None:
    x = MATRIX.astype(dtype)
    check_assigned("scalar", x, MATRIX > 2, value=7.5)
    check_assigned("tensor", x, MATRIX > 2, np.array([7, 8, 9], dtype))


def test_assign_to_nothing() -> None:
    nothing = np.zeros((0, 3), "float32")
    check_assigned("scalar", nothing, nothing > 2, value=7.5)
    check_assigned("tensor", nothing, nothing > 2, np.zeros(0, "float32"))


@pytest.mark.parametrize("x, mask, values, start_axis", [
    (FLOATS, FLOATS > 2, [7, 8, 9], 0), (FLOATS, FLOATS > 2, [7], 0), (FLOATS, FLOATS > 2, 7, 0),
    (FLOATS, [True, False, True], [[7, 8], [9, 10]], 1), (FLOATS, FLOATS > 20, [], 0),
    (FLOATS, [True, False, True], [[7], [9]], 1), (FLOATS, [False, True], [[7, 8, 9]], 0),
    (CUBE, CUBE[:, :, 0] > 9, np.zeros((0, 4)), 0)])  # fmt: skip
def test_assign_values(x: np.ndarray, mask: Any, values: Any, start_axis: int) -> None:
    others = np.array(mask, bool), np.array(values, "float32")
    check_assigned("tensor", x, *others, start_axis=start_axis)


@pytest.mark.parametrize("op, inputs, attrs, sentence", [
    ("_npi_delete", [SIX], {"int_ind": 1}, "MXNet tells the size of its output after the run only"),
    ("_npi_insert_tensor", [SIX, np.array(1)], {"val": 2}, "'x1' has 0 axes; MXNet reads vectors"),
])  # fmt: skip
def test_refused(op: str, inputs: list[np.ndarray], attrs: dict[str, Any], sentence: str) -> None:
    symbol = operator(op, len(inputs), **attrs)
    check_refused(symbol, {f"x{i}": array for i, array in enumerate(inputs)}, sentence)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_insertion(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    axis = data.draw(st.integers(0, len(shape) - 1))
    size = shape[axis]
    places = data.draw(st.lists(st.integers(-size, size), min_size=2, max_size=4))
    new = (*shape[:axis], len(places), *shape[axis + 1 :])
    values = random_array(new, seed=1)
    check_numpy("_npi_insert_tensor", random_array(shape), values, np.array(places), axis=axis)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_diagonal(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4)))
    axis1, axis2 = data.draw(st.permutations(range(len(shape))))[:2]
    offset = data.draw(st.integers(-3, 3))
    op = data.draw(st.sampled_from(["_np_diagonal", "_np_trace"]))
    check_numpy(op, random_array(shape), offset=offset, axis1=axis1, axis2=axis2)
