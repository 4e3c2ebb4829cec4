"""Every kind of array for the NumPy operators: numbers, nothing, sizes of 1, and all types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from operators import check_numpy

pytestmark = pytest.mark.usefixtures("np_shape")

OTHER_TYPES = ["float32", "float64", "uint8", "int32"]
TYPES = [
    "float16",
    "int8",
    "int64",
    *(pytest.param(t, marks=pytest.mark.slow) for t in OTHER_TYPES),
]
ODD_SHAPES = [(), (0,), (2, 0), (1,), (3, 1)]


def counted(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Return the numbers 1 to 5, over and over."""
    return (np.arange(int(np.prod(shape))).reshape(shape) % 5 + 1).astype(dtype)


# -- element by element ----------------------------------------------------------------------------

UNARY = [
    "absolute", "arccosh", "arcsin", "arcsinh", "arctan", "arctanh", "arccos", "cbrt", "ceil",
    "cos", "cosh", "degrees", "exp", "expm1", "fix", "floor", "isfinite", "isinf", "isnan",
    "isneginf", "isposinf", "log", "log10", "log1p", "log2", "logical_not", "nan_to_num",
    "negative", "radians", "reciprocal", "rint", "sign", "sin", "sinh", "sqrt", "square", "tan",
    "tanh", "trunc",
]  # fmt: skip

OF_INTEGERS = ["bitwise_and", "bitwise_or", "bitwise_xor", "lcm"]

BINARY = [
    "add", "subtract", "multiply", "mod", "power", "true_divide", "copysign", "ldexp", "equal",
    "not_equal", "greater", "greater_equal", "less", "less_equal",
]  # fmt: skip

REVERSED = ["rsubtract", "rmod", "rpower", "rtrue_divide", "rcopysign", "rldexp"]

PAIRS = [
    ((), ()), ((), (2, 3)), ((2, 0), ()), ((0, 3), (1, 3)), ((3, 1), (1, 2)), ((2, 1, 0), (3, 1)),
]  # fmt: skip


@pytest.mark.parametrize("op", UNARY)
def test_functions(op: str) -> None:
    for shape in ODD_SHAPES:
        x = np.full(shape, 1.0 if op == "arccosh" else 0.5, "float32")
        check_numpy(f"_npi_{op}", x)


@pytest.mark.parametrize("op", ["_npi_bitwise_not", "_npi_around", "_np_copy", "_npx_relu",
                                "_npx_sigmoid"])  # fmt: skip
def test_functions_of_integers_too(op: str) -> None:
    for shape in ODD_SHAPES:
        check_numpy(op, counted(shape, "int32"))


EXACT = ["absolute", "ceil", "exp", "fix", "floor", "negative", "rint", "sign", "sqrt", "square",
         "trunc"]  # fmt: skip
"""Those that ONNX Runtime computes for integers and float64 as well."""


@pytest.mark.parametrize("op", EXACT)
@pytest.mark.parametrize("dtype", ["float64", "int8", "uint8", "int32", "int64"])
def test_functions_of_other_types(op: str, dtype: str) -> None:
    x = np.array([0, 1, 2, 4]) if op in {"exp", "sqrt"} else np.array([0, 1, 3, -2, -1])
    check_numpy(f"_npi_{op}", (x * 1.5).astype(dtype))


@pytest.mark.parametrize("op", BINARY)
def test_two_arrays(op: str) -> None:
    for one, other in PAIRS:
        for dtype in ("float32", "int32"):
            check_numpy(f"_npi_{op}", np.full(one, 3, dtype), np.full(other, 2, dtype))


@pytest.mark.parametrize("op", ["hypot", "arctan2"])  # of floats only
def test_two_arrays_of_floats(op: str) -> None:
    for one, other in PAIRS:
        check_numpy(f"_npi_{op}", np.full(one, 3, "float32"), np.full(other, 2, "float32"))


@pytest.mark.parametrize("op", OF_INTEGERS)
def test_two_arrays_of_integers(op: str) -> None:
    for one, other in PAIRS:
        check_numpy(f"_npi_{op}", np.full(one, 6, "int64"), np.full(other, 4, "int64"))


@pytest.mark.parametrize("op", [*BINARY, *REVERSED, "arctan2", "rarctan2", *OF_INTEGERS])
def test_a_number_beside_an_array(op: str) -> None:
    dtype = "int32" if op in OF_INTEGERS else "float32"
    for shape in ODD_SHAPES:
        check_numpy(f"_npi_{op}_scalar", np.full(shape, 3, dtype), scalar=2.0)


@pytest.mark.parametrize("op", ["arctan2", "rarctan2"])
def test_a_number_that_is_no_integer(op: str) -> None:
    check_numpy(f"_npi_{op}_scalar", np.array([2, -3], "float32"), scalar=2.5, is_int=False)


# -- shapes ----------------------------------------------------------------------------------------

CASES: list[tuple[str, list[tuple[int, ...]], dict[str, Any]]] = [
    ("_np_atleast_1d", [(), (0,)], {"num_args": 2}),
    ("_np_atleast_2d", [(), (0,)], {"num_args": 2}),
    ("_np_atleast_3d", [(0,), (2, 0)], {"num_args": 2}),
    ("_np_cumsum", [(2, 3)], {"axis": 1}),
    ("_np_diag", [(3,)], {"k": -1}),
    ("_np_diag", [(0,)], {"k": 1}),
    ("_np_diag", [(3, 2)], {"k": 1}),
    ("_np_diagflat", [(2, 1)], {"k": 1}),
    ("_np_diagonal", [(2, 3, 4)], {"axis1": -1, "axis2": 0, "offset": 1}),
    ("_np_moveaxis", [(2, 0, 3)], {"source": (0, -1), "destination": (-1, 0)}),
    ("_np_reshape", [(2, 3)], {"newshape": (1, -1, 1)}),
    ("_np_roll", [(3, 1)], {"shift": (1,), "axis": (0,)}),
    ("_np_roll", [(2, 3)], {"shift": (-2,)}),
    ("_np_squeeze", [(1, 0, 1)], {"axis": (0, -1)}),
    ("_np_trace", [(2, 3, 4)], {"axis1": -1, "axis2": 0, "offset": -1}),
    ("_np_transpose", [(2, 3, 4)], {"axes": (1, -1, 0)}),
    ("_npi_broadcast_to", [(1, 4)], {"shape": (3, -2)}),
    ("_npi_broadcast_to", [()], {"shape": (0, 3)}),
    ("_npi_column_stack", [(2,), (2, 3)], {"num_args": 2}),
    ("_npi_concatenate", [(2, 0), (2, 3)], {"num_args": 2, "axis": -1}),
    ("_npi_diff", [(1, 4)], {"n": 2, "axis": 1}),
    ("_npi_diff", [(0, 3)], {}),
    ("_npi_dsplit", [(1, 2, 4)], {"indices": (0, 1), "axis": 2}),
    ("_npi_dsplit", [(0, 2, 4)], {"indices": (), "sections": 2, "axis": 2}),
    ("_npi_dsplit", [(1, 2, 2)],
     {"indices": (), "sections": 2, "axis": 2, "squeeze_axis": True}),
    ("_npi_dstack", [(2, 1), (2, 1)], {"num_args": 2, "dim": 0}),  # which MXNet does not read
    ("_npi_ediff1d", [(2, 3)], {"to_begin_scalar": 7, "to_end_scalar": 2}),
    ("_npi_einsum", [(2, 3), (3, 1)], {"subscripts": "ij,jk->ki", "num_args": 2}),
    ("_npi_flip", [(2, 1, 3)], {"axis": (0, 2)}),
    ("_npi_hsplit", [(2, 4)], {"indices": (0, 1, 3), "axis": 0}),  # another that it does not read
    ("_npi_hsplit", [(0, 4)], {"indices": (), "sections": 2}),
    ("_npi_hsplit", [(2, 0)], {"indices": (), "sections": 2}),
    ("_npi_hstack", [(2, 1), (2, 3)], {"num_args": 2, "dim": 0}),
    ("_npi_insert_scalar", [(4,)], {"val": 2, "int_ind": 1, "start": 0, "stop": 3, "step": 2}),
    ("_npi_insert_scalar", [(2, 4), (2,)], {"int_ind": 1, "axis": 1}),
    ("_npi_insert_scalar", [(0,), (1,)], {"int_ind": 0}),
    ("_npi_insert_slice", [(4,), (2,)], {"int_ind": 1, "start": 0, "stop": 3, "step": 2}),
    ("_npi_insert_slice", [(4,)], {"val": 2, "start": 1, "stop": 2, "step": 1}),
    ("_npi_insert_slice", [(2, 4), (2, 2)], {"start": 0, "step": 2, "axis": 1}),
    ("_npi_insert_slice", [(2, 4), (2, 1)], {"start": 3, "stop": 1, "step": 1, "axis": 1}),
    ("_npi_polyval", [(3,), (2, 2)], {}),
    ("_npi_polyval", [(3,), (0, 2)], {}),
    ("_npi_rot90", [(3, 1)], {"k": 3, "axes": (1, 0)}),
    ("_npi_stack", [(0, 3), (0, 3)], {"num_args": 2, "axis": 1}),
    ("_npi_tril", [(2, 1, 3)], {"k": 1}),
    ("_npi_vstack", [(3,), (2, 3)], {"num_args": 2}),
    ("_npi_where_lscalar", [(2, 1), (1, 3)], {"scalar": 2.5}),
    ("_npi_where_rscalar", [(), (2, 3)], {"scalar": 2.5}),
    ("_npi_where_scalar2", [(2, 1)], {"x": 1.5, "y": -2.5}),
    ("_npi_where_scalar2", [(0, 3)], {"x": 1.5}),
    ("_npx_reshape", [(2, 3, 4)], {"newshape": (-2, -5)}),
]  # fmt: skip


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("op, shapes, attrs", CASES)
def test_shapes(op: str, shapes: list[tuple[int, ...]], attrs: dict[str, Any], dtype: str) -> None:
    check_numpy(op, *(counted(shape, dtype) for shape in shapes), **attrs)


@pytest.mark.parametrize("op, shapes, attrs", [
    case for case in CASES if case[0] in {
        "_np_atleast_1d", "_np_atleast_2d", "_np_atleast_3d", "_np_reshape", "_np_squeeze",
        "_npi_broadcast_to", "_npi_concatenate", "_npi_stack", "_npi_where_lscalar",
        "_npi_where_rscalar", "_npi_where_scalar2", "_npx_reshape"}
])  # fmt: skip
def test_shapes_of_bools(op: str, shapes: list[tuple[int, ...]], attrs: dict[str, Any]) -> None:
    check_numpy(op, *(np.arange(int(np.prod(s))).reshape(s) % 2 == 0 for s in shapes), **attrs)


@pytest.mark.parametrize("dtype", TYPES)
def test_insert_at_a_place_of_the_run(dtype: str) -> None:
    x, places = counted((4,), dtype), np.array([1, 2])
    check_numpy("_npi_insert_tensor", x, places[:1], val=2.7)  # MXNet fails on more places
    attrs = {"int_ind": 1, "start": 0, "stop": 3, "step": 2}  # which MXNet does not read here
    check_numpy("_npi_insert_tensor", x, counted((2,), dtype), places, **attrs)
    wide = counted((2, 4), dtype)
    check_numpy("_npi_insert_tensor", wide, counted((2, 2), dtype), places, axis=1)
    nothing = np.zeros((2, 0), dtype), np.zeros(0, "int64")
    check_numpy("_npi_insert_tensor", wide, *nothing, axis=1)
