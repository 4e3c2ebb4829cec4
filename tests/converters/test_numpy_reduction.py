"""NumPy's reductions, averages, percentiles and norms against MXNet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import (
    TOLERANCES,
    check_numpy,
    check_operator,
    check_refused,
    operator,
    optimize_whole,
    random_array,
    run_engines,
)

import mxtrt

pytestmark = pytest.mark.usefixtures("np_shape")

FLOATS = ["float16", "float32", "float64"]
INTEGERS = ["int8", "uint8", "int32", "int64"]
TYPES = [*FLOATS, *INTEGERS, "bool"]

SUMS = ["_np_sum", "_np_prod", "_npi_mean"]
SPREADS = ["_npi_std", "_npi_var"]
REDUCTIONS = [*SUMS, *SPREADS, "_np_max", "_np_min", "_np_all", "_np_any"]

MATRIX = np.array([[1, 0, 2], [3, 1, 5]])
CUBE = random_array((2, 3, 4))
AXES = [None, (), (0,), (-1,), (0, 2), (-1, 1), (0, 1, 2)]


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("dtype", TYPES)
def test_types(op: str, dtype: str) -> None:
    if dtype == "bool" and op in SPREADS:
        pytest.skip("MXNet does not compute it")
    check_numpy(op, MATRIX.astype(dtype))
    check_numpy(op, MATRIX.astype(dtype), axis=(0,), keepdims=True)


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("axis", AXES)
def test_axes(op: str, axis: tuple[int, ...] | None) -> None:
    check_numpy(op, CUBE, axis=axis)
    check_numpy(op, CUBE, axis=axis, keepdims=True)


@pytest.mark.parametrize("op", REDUCTIONS)
def test_numbers(op: str) -> None:
    check_numpy(op, np.float32(3))
    check_numpy(op, np.float32(3), axis=())


@pytest.mark.parametrize("op", [*SUMS, "_np_all", "_np_any"])
@pytest.mark.parametrize("dtype", TYPES)
def test_nothing(op: str, dtype: str) -> None:
    nothing = np.zeros((2, 0), dtype)
    check_numpy(op, nothing)
    check_numpy(op, nothing, axis=(1,))
    check_numpy(op, nothing, axis=(0, 1), keepdims=True)
    check_numpy(op, np.zeros((0, 3), dtype), axis=(0,))  # MXNet fails where nothing remains


@pytest.mark.parametrize("op", SPREADS)
@pytest.mark.parametrize("dtype", FLOATS)  # MXNet divides integers by 0, and dies
def test_spread_of_nothing(op: str, dtype: str) -> None:
    check_numpy(op, np.zeros((2, 0), dtype))
    check_numpy(op, np.zeros(0, dtype), axis=(0,))


@pytest.mark.parametrize("op, arrays, attrs", [
    ("_npi_var", [np.zeros(0, "int32")], {}), ("_npi_std", [np.zeros(0)], {"dtype": "int64"}),
    ("_npi_mean", [np.ones(256, "int8")], {"dtype": "int8"}),  # of which 256 is 0
    ("_npi_mean", [np.zeros((0, 3), "int32")], {"axis": (1,), "dtype": "int32"}),
    ("_npi_average", [np.ones(3, "int32"), np.zeros(3, "int32")], {}),
    ("_npi_average", [np.ones(3, "uint8"), np.zeros(3, "uint8")], {}),
    ("_npi_average", [np.zeros(0, "int64")], {"weighted": False})])  # fmt: skip
@pytest.mark.parametrize("known", [False, True])
def test_engines_survive_divisions_that_mxnet_does_not(
    op: str, arrays: list[np.ndarray], attrs: dict[str, Any], known: bool
) -> None:
    inputs = {f"x{i}": array for i, array in enumerate(arrays)}
    optimized, _ = optimize_whole(
        operator(op, len(arrays), **attrs),
        shapes={name: a.shape if known else (None,) * a.ndim for name, a in inputs.items()},
        dtypes={name: a.dtype.name for name, a in inputs.items()},
    )
    assert run_engines(optimized, inputs)
    mxtrt.release(optimized)


@pytest.mark.parametrize("op", ["_np_max", "_np_min"])
def test_extremes_along_other_axes_than_the_empty_one(op: str) -> None:
    check_numpy(op, np.zeros((2, 0), "float32"), axis=(0,))


def computed(dtype: str) -> list[str]:
    """Return the types in which MXNet sums the type `dtype`."""
    wide = ["float32", "float64", "int32", "int64"]
    return wide if dtype == "bool" else [*wide, "float16", "int8", "bool"]


@pytest.mark.parametrize("op", SUMS)
@pytest.mark.parametrize("dtype", TYPES)
def test_sums_of_another_type(op: str, dtype: str) -> None:
    x = (MATRIX * 1.75).astype(dtype)  # numbers that float16 holds
    for wanted in computed(dtype):
        check_numpy(op, x, dtype=wanted)
        check_numpy(op, x, dtype=wanted, axis=(1,))


@pytest.mark.parametrize("op", SPREADS)
@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
def test_spreads_of_another_type(op: str, dtype: str) -> None:
    x = (MATRIX * 1.75).astype(dtype)
    for wanted in ("float16", "float32", "float64", "int8", "int32", "int64"):
        # engines may leave out that the mean is rounded to the narrower type on the way
        both = [t for t in FLOATS if t in {dtype, wanted}]
        rtol, atol = TOLERANCES[both[0]] if wanted in FLOATS else (0, 0)
        for axis in (None, (1,)):
            symbol = operator(op, 1, dtype=wanted, axis=axis)
            check_operator(symbol, {"x0": x}, rtol=rtol, atol=atol)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("wanted", [None, "int8", "int32", "int64", "float32", "float64"])
def test_integers_wrap_around(dtype: str, wanted: str | None) -> None:
    x = np.array([100, 100, 100, 57, -3]).astype(dtype)
    for op in (*SUMS, "_npi_var", "_np_cumsum"):
        check_numpy(op, x, dtype=wanted)


def test_large_integers_add_up() -> None:
    large = np.array([2**31 - 1, 5, 2**30 + 1, -(2**30)], "int32")
    for wanted in (None, "int64", "float32", "float64"):
        check_numpy("_np_sum", large, dtype=wanted)
        check_numpy("_npi_mean", large, dtype=wanted)
        check_numpy("_np_prod", large[1:3], dtype=wanted)
        for dtype in ("int8", "uint8"):  # 32 bits are enough for MXNet
            check_numpy("_np_prod", np.array([100] * 5 + [3], dtype), dtype=wanted)


@pytest.mark.parametrize("wanted", ["int8", "int32", "int64"])
def test_floats_are_cut_off(wanted: str) -> None:
    x = np.array([102.5, 42.2, 162.9, -22.7, 102.0, 342.0], "float32")
    for op in ("_np_sum", "_npi_mean", "_npi_var", "_np_cumsum"):
        check_numpy(op, x, dtype=wanted)


@pytest.mark.parametrize("op", SPREADS)
@pytest.mark.parametrize("attrs", [
    {"ddof": 1}, {"ddof": 1, "axis": (1,)}, {"ddof": 2, "axis": (0, 1)},
    {"ddof": 1, "keepdims": True},
])  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
def test_degrees_of_freedom(op: str, attrs: dict[str, Any], dtype: str) -> None:
    check_numpy(op, random_array((3, 4), dtype), **attrs)


@pytest.mark.parametrize("op", ["_npi_argmax", "_npi_argmin"])
@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_positions(op: str, dtype: str, axis: int | None) -> None:
    x = np.array([[3, 1, 3, 0], [0, -1, 7, 7], [1, 2, -1, 7]]).astype(dtype)
    check_numpy(op, x, axis=axis)
    check_numpy(op, x, axis=axis, keepdims=True)


@pytest.mark.parametrize("op", ["_npi_argmax", "_npi_argmin"])
def test_positions_in_odd_arrays(op: str) -> None:
    check_numpy(op, np.float32(3))
    check_numpy(op, np.int64(3), keepdims=True)
    check_numpy(op, np.zeros((0, 3), "float32"), axis=1)
    check_numpy(op, np.array([2**60, 2**60 + 1, 2**60 - 1]))  # float64 cannot tell them apart


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_cumsum(dtype: str, axis: int | None) -> None:
    check_numpy("_np_cumsum", MATRIX.astype(dtype), axis=axis)
    for wanted in ("float16", "float32", "float64", "int8", "int32", "int64"):
        check_numpy("_np_cumsum", (MATRIX * 1.75).astype(dtype), axis=axis, dtype=wanted)


def test_cumsum_of_numbers_and_nothing() -> None:
    check_numpy("_np_cumsum", np.float32(3))
    check_numpy("_np_cumsum", np.zeros((0, 3), "float32"), axis=0)
    check_numpy("_np_cumsum", np.zeros((0, 3), "float32"))


# -- averages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("returned", [False, True])
@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
def test_average(dtype: str, returned: bool) -> None:
    x = MATRIX.astype(dtype)
    check_numpy("_npi_average", x, x + x.dtype.type(1), returned=returned)
    check_numpy("_npi_average", x, weighted=False, returned=returned)
    weights = np.array([1, 2]).astype(dtype)
    check_numpy("_npi_average", x, weights, axis=(0,), returned=returned)


@pytest.mark.parametrize("returned", [False, True])
@pytest.mark.parametrize("axis", [(0,), (1,), (-1,), (0, 2), (0, 1, 2), None])
def test_average_along_axes(axis: tuple[int, ...] | None, returned: bool) -> None:
    weights = np.abs(random_array((2, 3, 4), seed=1)) + np.float32(0.1)
    check_numpy("_npi_average", CUBE, weights, axis=axis, returned=returned)
    check_numpy("_npi_average", CUBE, weighted=False, axis=axis, returned=returned)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
def test_average_with_a_vector_of_weights(axis: int) -> None:
    weights = np.abs(random_array((CUBE.shape[axis],), seed=1)) + np.float32(0.1)
    check_numpy("_npi_average", CUBE, weights, axis=(axis,), returned=True)


@pytest.mark.parametrize("dtype", FLOATS)
def test_average_of_numbers_and_nothing(dtype: str) -> None:
    number, nothing = np.array(3, dtype), np.zeros((2, 0), dtype)
    check_numpy("_npi_average", number, weighted=False)
    check_numpy("_npi_average", number, number, returned=True)
    check_numpy("_npi_average", nothing, weighted=False, returned=True)  # MXNet dies of axis=(0,)
    check_numpy("_npi_average", nothing, nothing)


# -- percentiles -----------------------------------------------------------------------------------

INTERPOLATIONS = ["linear", "lower", "higher", "midpoint", "nearest"]
PLACES = [0, 1, 10, 29, 30, 31, 50, 69, 70, 71, 99, 100]


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
def test_percentile(interpolation: str, dtype: str) -> None:
    # between halves MXNet interpolates in halves, and calls the result float32
    rtol, atol = TOLERANCES["float16"] if dtype == "float16" else (None, None)
    x = (MATRIX**2).astype(dtype)
    for q in ([], [np.array(PLACES, "float32")], [np.array(PLACES, "float64")]):
        attrs = {"interpolation": interpolation, **({} if q else {"q_scalar": 30})}
        symbol = operator("_npi_percentile", 1 + len(q), **attrs)
        arrays = {f"x{i}": array for i, array in enumerate([x, *q])}
        check_operator(symbol, arrays, rtol=rtol, atol=atol)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_percentiles_between_infinities_and_numbers(dtype: str) -> None:
    rows = np.array([[-np.inf, 1, 2, 3], [1, 2, 3, np.inf], [-np.inf, 0, 1, np.inf]], dtype)
    places = np.array([10, 33, 50, 66, 90], "float32")
    check_numpy("_npi_percentile", rows, places, axis=(1,))


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, (0,), (-1,), (0, 2), (2, 1)])
def test_percentile_along_axes(axis: tuple[int, ...] | None, keepdims: bool) -> None:
    options = {"axis": axis, "keepdims": keepdims}
    check_numpy("_npi_percentile", CUBE, np.array([25, 77], "float32"), **options)
    check_numpy("_npi_percentile", CUBE, np.int64(61), **options)
    check_numpy("_npi_percentile", CUBE.astype("float64"), q_scalar=61, **options)


def test_percentile_of_one_number() -> None:
    check_numpy("_npi_percentile", np.arange(1.0), q_scalar=40)


# -- norms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
def test_norm(dtype: str, keepdims: bool) -> None:
    x = random_array((3, 4), dtype)
    x[0, 1] = 0
    cube = CUBE.astype(dtype)
    check_numpy("_npi_norm", x, ord=2, axis=None, flag=-2, keepdims=keepdims)
    for axis in ((0,), (-1,)):
        check_numpy("_npi_norm", x, ord=2, axis=axis, flag=1, keepdims=keepdims)
        for order in (2, 1, 3, 0, -1, -2, 2.5, 0.5):
            check_numpy("_npi_norm", x, ord=order, axis=axis, flag=-1, keepdims=keepdims)
    check_numpy("_npi_norm", cube, ord=2, axis=(0, 2), flag=1, keepdims=keepdims)
    for order in (1, -1):
        for axes in ((0, 2), (2, 1)):
            check_numpy("_npi_norm", cube, ord=order, axis=axes, flag=-1, keepdims=keepdims)
        check_numpy("_npi_norm", x, ord=order, axis=None, flag=-1, keepdims=keepdims)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_norms_of_singular_values(dtype: str, keepdims: bool) -> None:
    """Of no more rows than columns, which MXNet asks for."""
    x = random_array((2, 5, 3, 4), dtype)
    for axes in ((2, 3), (-2, -1), (2, 1), (0, 2)):
        for order, flag in ((2, -1), (-2, -1), (2, 0), (-2, 0), (2, 2)):
            attrs = {"ord": order, "axis": axes, "flag": flag, "keepdims": keepdims}
            check_numpy("_npi_norm", x, **attrs)
    check_numpy("_npi_norm", x[0, 0], ord=2, axis=None, flag=-1)
    check_numpy("_npi_norm", x[0, 0, :, :0], ord=2, axis=(0, 1), flag=0, keepdims=keepdims)


def test_norm_of_vectors_numbers_and_nothing() -> None:
    for order in (1, 2, 3):
        check_numpy("_npi_norm", CUBE[0, 0], ord=order, axis=None, flag=-1)
    check_numpy("_npi_norm", np.float32(-3), ord=2, axis=None, flag=-2)
    check_numpy("_npi_norm", np.zeros((0, 3), "float32"), ord=2, axis=None, flag=-2)


@pytest.mark.parametrize("op, x, attrs, sentence", [
    ("_npi_norm", (9, 9), {"ord": 2, "axis": None, "flag": -1}, "9 rows, more than 8"),
    ("_npi_norm", np.ones((2, 3, 4)), {"axis": (1,), "flag": 0}, "are those of matrices"),
    ("_npi_norm", (0, 3), {"ord": 2, "axis": (0, 1), "flag": 0}, "there is nothing to read"),
    ("_npi_norm", (3, 4), {"ord": 3, "axis": None, "flag": -1}, "ord=3.0 of 2 axes is no norm"),
    ("_npi_norm", MATRIX, {"ord": 2, "axis": None, "flag": -2}, "cuts each step of it off"),
    ("_npi_var", MATRIX, {"ddof": 6}, "ddof=6 may divide integers by 0"),
    ("_npi_norm", (3,), {"ord": "inf", "axis": (0,)}, "ord=inf: MXNet leaves this norm to its"),
    ("_npi_bincount", np.arange(3), {}, "the values of its input decide the size of its output"),
    ("_npx_nonzero", (3,), {}, "the values of its input decide the size of its output"),
    ("_npi_unique", (3,), {}, "the values of its input decide the size of its output"),
])  # fmt: skip
def test_refused(op: str, x: Any, attrs: dict[str, Any], sentence: str) -> None:
    check_refused(operator(op, 1, **attrs), {"x0": x}, sentence)


@pytest.mark.parametrize("op", [*SUMS, "_np_max", "_np_min"])
def test_a_start_is_refused(op: str) -> None:
    sentence = "initial=2.5: MXNet does not support a start either"
    check_refused(operator(op, 1, initial=2.5), {"x0": (3,)}, sentence)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_reduction(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 4), max_size=4)))
    op = data.draw(st.sampled_from(REDUCTIONS))
    axes = data.draw(st.permutations(range(len(shape))))[: data.draw(st.integers(0, len(shape)))]
    axis = data.draw(st.sampled_from([None, tuple(axes), tuple(a - len(shape) for a in axes)]))
    x = random_array(shape, data.draw(st.sampled_from(["float32", "int32"])))
    check_numpy(op, x, axis=axis, keepdims=data.draw(st.booleans()))
