"""NumPy's arithmetic, comparison, choice and elementary functions against MXNet."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import check_numpy, check_operator, check_refused, operator

pytestmark = pytest.mark.usefixtures("np_shape")

FLOATS = ["float16", "float32", "float64"]
INTEGERS = ["int8", "uint8", "int32", "int64"]
TYPES = [*FLOATS, *INTEGERS, "bool"]

SPECIAL = np.array([0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 2.5, -7])
PAIRS = [axis.ravel() for axis in np.meshgrid(SPECIAL, SPECIAL)]

PROMOTING = [pair for pair in product(TYPES, TYPES) if set(pair) != {"int8", "uint8"}]
"""Types that MXNet adds, multiplies and raises to powers: all but the two of 8 bits."""

ONE_A_FLOAT = [(a, b) for a, b in product(TYPES, TYPES) if a == b or (a in FLOATS) != (b in FLOATS)]
"""Types that MXNet subtracts and divides: equal ones, and a float beside anything else."""


@pytest.mark.parametrize("op", ["add", "multiply", "power"])
@pytest.mark.parametrize(("one", "other"), PROMOTING)
def test_two_types(op: str, one: str, other: str) -> None:
    a, b = np.array([[1, 2, 3, 0, 5, 7]]).T, np.array([[3, 1, 2, 4]])
    if op != "power" and "bool" not in {one, other} and "uint8" not in {one, other}:
        a, b = -a, b - 3
    check_numpy(f"_npi_{op}", (a + (op == "power")).astype(one), b.astype(other))


@pytest.mark.parametrize("op", ["subtract", "mod", "true_divide"])
@pytest.mark.parametrize(("one", "other"), ONE_A_FLOAT)
def test_a_float_and_another_type(op: str, one: str, other: str) -> None:
    if one == other == "bool" and op != "true_divide":
        pytest.skip("MXNet does not compute it")
    a, b = np.array([[1, -2, 3, 0, 5, 7]]).T, np.array([[3, 1, -2, 4]])
    check_numpy(f"_npi_{op}", a.astype(one), b.astype(other))


def test_integers_that_the_float_cannot_hold() -> None:
    check_numpy("_npi_add", np.array([70000, 2049, 3], "int32"), np.array([1.5, 0, 7], "float16"))
    check_numpy("_npi_add", np.array([2**24 + 1], "int32"), np.array([-(2**24)], "float32"))
    check_numpy("_npi_true_divide", np.array([2**24 + 1, 3]), np.array([5, 0]))


SCALAR = ["add", "multiply", "subtract", "rsubtract", "mod", "rmod", "power", "rpower",
          "true_divide", "rtrue_divide", "copysign", "rcopysign", "arctan2", "rarctan2", "ldexp",
          "rldexp", "equal", "not_equal", "greater", "greater_equal", "less",
          "less_equal"]  # fmt: skip


def beside(op: str, dtype: str, scalar: float) -> np.ndarray:
    """Return numbers for which MXNet defines the operator: no overflow on the way to a type."""
    x = np.array([0, 1, 2, 5, -3, 7])
    if (op.endswith("power") and dtype not in FLOATS) or (op == "rpower" and scalar == 0):
        x = abs(x) + 1
    if op in {"rpower", "rldexp"} and dtype in {"int8", "uint8"}:
        x = np.minimum(abs(x), 3)
    return x.astype(dtype)


SCALARS = (3.0, 2.7, -2.0, 0.0)


def check_scalar(op: str, dtype: str, scalar: float) -> None:
    if (op, dtype, scalar) != ("ldexp", "uint8", -2):  # 2 to the power of 254
        check_numpy(f"_npi_{op}_scalar", beside(op, dtype, scalar), scalar=scalar)


@pytest.mark.parametrize("op", SCALAR)
@pytest.mark.parametrize("dtype", TYPES)
def test_scalars(op: str, dtype: str) -> None:
    """One scalar for each operator and type, and each of them for every operator."""
    check_scalar(op, dtype, SCALARS[(SCALAR.index(op) + TYPES.index(dtype)) % len(SCALARS)])


@pytest.mark.slow
@pytest.mark.parametrize("scalar", SCALARS)
@pytest.mark.parametrize("op", SCALAR)
@pytest.mark.parametrize("dtype", TYPES)
def test_all_scalars(op: str, dtype: str, scalar: float) -> None:
    check_scalar(op, dtype, scalar)


@pytest.mark.parametrize("op", [op for op in SCALAR if "arctan2" not in op])
@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", "bool"])
def test_scalars_that_are_no_integers(op: str, dtype: str) -> None:
    x = beside(op, dtype, 2.7)
    check_numpy(f"_npi_{op}_scalar", x, scalar=2.7, is_int=False)


@pytest.mark.parametrize("op", [op for op in SCALAR if "arctan2" in op])
@pytest.mark.parametrize("dtype", FLOATS)
def test_angles_with_a_scalar_that_is_no_integer(op: str, dtype: str) -> None:
    check_numpy(f"_npi_{op}_scalar", beside(op, dtype, 2.7), scalar=2.7, is_int=False)


@pytest.mark.parametrize("op", [
    "arctan2", "copysign", "equal", "not_equal", "greater", "greater_equal", "less", "less_equal",
    "ldexp", "add", "true_divide", "mod", "multiply"])  # fmt: skip
@pytest.mark.parametrize("dtype", FLOATS)
def test_special_numbers(op: str, dtype: str) -> None:
    check_numpy(f"_npi_{op}", *(x.astype(dtype) for x in PAIRS))


@pytest.mark.parametrize("dtype", FLOATS)
def test_hypotenuse(dtype: str) -> None:
    check_numpy("_npi_hypot", *(x.astype(dtype) for x in PAIRS))


@pytest.mark.parametrize("dtype", FLOATS)
def test_powers_of_2_that_the_type_does_not_hold(dtype: str) -> None:
    a = np.array([0, np.inf, -np.inf, 0, np.inf, 1, 0, 3], dtype)
    b = np.array([300, -300, -1000, np.inf, -np.inf, 9, -np.inf, np.nan], dtype)
    check_numpy("_npi_ldexp", a, b)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers(dtype: str) -> None:
    a = np.array([[1, -2, 3, 0, 5]]).astype(dtype)
    b = np.array([[1], [-3], [0], [3]]).astype(dtype)
    for op in ("copysign", "equal", "not_equal", "greater", "greater_equal", "less", "less_equal"):
        check_numpy(f"_npi_{op}", a, b)
    check_numpy("_npi_ldexp", a, abs(b.astype("int64")).astype(dtype) % 4)


@pytest.mark.parametrize(
    "op", ["equal", "not_equal", "greater", "greater_equal", "less", "less_equal"]
)
def test_comparing_bools(op: str) -> None:
    check_numpy(f"_npi_{op}", np.array([0, 0, 1, 1], bool), np.array([0, 1, 0, 1], bool))


@pytest.mark.parametrize(
    "op", ["isnan", "isinf", "isposinf", "isneginf", "isfinite", "logical_not", "nan_to_num"]
)
@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_no_number(op: str, dtype: str) -> None:
    check_numpy(f"_npi_{op}", SPECIAL.astype(dtype) if dtype in FLOATS else np.eye(2, dtype=dtype))


@pytest.mark.parametrize("dtype", FLOATS)
def test_other_numbers_for_nan(dtype: str) -> None:
    check_numpy("_npi_nan_to_num", SPECIAL.astype(dtype), nan=2.5, posinf=7, neginf=-1e9)
    check_numpy("_npi_nan_to_num", SPECIAL.astype(dtype), copy=False, nan="nan", posinf="None")


@pytest.mark.parametrize("dtype", ["float32", "float64", *INTEGERS])  # no float16 in MXNet
@pytest.mark.parametrize("decimals", [0, 1, 2, 3, -1, -2, -3, -10, -19])
def test_around(decimals: int, dtype: str) -> None:
    halves = [5, 15, 25, -5, -15, 35, 45, 55, 14.999, 0.5, 1.5, 2.5, -0.5, 1.25, 1.35, 123.456]
    x = np.array([*halves, np.inf, np.nan, 1e6 + 0.5]) if dtype[0] == "f" else np.arange(-30, 90, 7)
    check_numpy("_npi_around", x.astype(dtype), decimals=decimals)


@pytest.mark.parametrize("dtype", TYPES)
def test_where(dtype: str) -> None:
    x, y = np.arange(3).astype(dtype), np.array([[5], [0]]).astype(dtype)
    check_numpy("_npi_where", np.array([[1, 0, 2]]), x, y)
    check_numpy("_npi_where", np.array([[0.5, np.nan, 0]]).astype("float32"), x, y)
    check_numpy("_npi_where", np.array([[1, 0, 1]]).astype(dtype), np.arange(3.0), np.ones(3))
    check_numpy("_npi_where_lscalar", np.array([[1.5, 0, 2]]), x, scalar=2.7)
    check_numpy("_npi_where_rscalar", np.array([[1.5], [0]]), x, scalar=2.7)


def test_where_of_nothing() -> None:
    for shape in ((), (0,), (2, 0)):
        x = np.ones(shape, "float32")
        check_numpy("_npi_where", x, x, x)
        check_numpy("_npi_where_lscalar", x, x, scalar=2.5)
        check_numpy("_npi_where_rscalar", x, x, scalar=2.5)
        check_numpy("_npi_where_scalar2", x, x=2.5, y=1)


def test_where_of_numbers() -> None:
    check_numpy("_npi_where_scalar2", np.array([[1.5], [0]]), x=3.5, y=-1.0)
    check_numpy("_npi_where_scalar2", np.array([True, False]), x=2)


FUNCTIONS = {
    "absolute": 0, "cbrt": 0, "ceil": 0, "cos": 0, "cosh": 0, "degrees": 0, "exp": 0, "expm1": 0,
    "fix": 0, "floor": 0, "log1p": 0, "negative": 0, "radians": 0, "rint": 0, "sign": 0, "sin": 0,
    "sinh": 0, "square": 0, "tan": 0, "tanh": 0, "trunc": 0, "arcsin": 0, "arccos": 0, "arctan": 0,
    "arcsinh": 0, "arctanh": 0, "sqrt": 1, "log": 1, "log10": 1, "log2": 1, "reciprocal": 1,
    "arccosh": 1,
}  # fmt: skip
"""What is added to numbers between -1 and 1 so that the function has values."""


@pytest.mark.parametrize("op", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_functions(op: str, dtype: str) -> None:
    x = np.array([0.5, -0.3, 0, 0.9, 0.1, -0.7]) + 1.5 * FUNCTIONS[op]
    check_numpy(f"_npi_{op}", x.astype(dtype))


@pytest.mark.parametrize("op", ["_npx_relu", "_npx_sigmoid", "_np_copy", "_npi_sqrt"])
@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
def test_functions_of_every_type(op: str, dtype: str) -> None:
    x = np.array([0, 1, 4, 9]) if op == "_npi_sqrt" else np.array([-3, -0.5, 0, 0.5, 3])
    check_numpy(op, x.astype(dtype))


@pytest.mark.parametrize("op", ["_npi_log2", "_npi_log10", "_npi_cbrt"])
def test_functions_of_integers_that_are_refused(op: str) -> None:
    sentence = "of int32 is cut off, where the last bit of a float decides"
    check_refused(operator(op, 1), {"x0": np.arange(1, 5, dtype="int32")}, sentence)


def test_numbers_and_nothing() -> None:
    number, nothing = np.float32(-2), np.zeros((0, 3), "float32")
    check_numpy("_npi_exp", number)
    check_numpy("_npi_exp", nothing)
    check_numpy("_npi_add", number, nothing)
    check_numpy("_npi_arctan2", np.float32(-0.0), number)
    check_numpy("_npi_greater_scalar", nothing, scalar=1.0)
    check_numpy("_npi_where", nothing, nothing, nothing)  # MXNet dies where it has to broadcast
    check_numpy("_npi_true_divide_scalar", np.int32(7), scalar=2.0)


def test_scalar_out_of_range() -> None:
    check_numpy("_npi_add_scalar", np.ones(3, "float16"), scalar=1e9)
    symbol = operator("_npi_add_scalar", 1, scalar=1e30)
    check_refused(symbol, {"x0": np.ones(3, "int32")}, "no number of any integer type")


BINARY = {"_npi_add": TYPES, "_npi_multiply": TYPES, "_npi_true_divide": FLOATS,
          "_npi_copysign": FLOATS, "_npi_greater": FLOATS, "_npi_mod": FLOATS}  # fmt: skip


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_expression(data: st.DataObject) -> None:
    """Two operators, one behind the other, on shapes that broadcast."""
    shape = data.draw(st.lists(st.integers(0, 3), max_size=3).map(tuple))
    first = data.draw(st.sampled_from(sorted(BINARY)))
    dtype = data.draw(st.sampled_from(BINARY[first]))
    scalar: dict[str, Any] = {"scalar": data.draw(st.sampled_from([2.0, -1.5, 0.0]))}
    behind = data.draw(st.sampled_from(["_npi_add_scalar", "_npi_multiply_scalar"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    x, y = (rng.integers(0, 5, size).astype(dtype) for size in (shape, shape[1:]))
    inner = operator(first, 2)
    outer = operator(behind, 1, is_int=scalar["scalar"] != -1.5, **scalar)
    check_operator(outer(x0=inner), {"x0": x, "x1": y})
