"""Products, einsum and linear equations against MXNet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import check_numpy, check_operator, check_refused, operator, random_array

pytestmark = pytest.mark.usefixtures("np_shape")


def shapes_of(*pairs: tuple[tuple[int, ...], tuple[int, ...]]) -> Any:
    return pytest.mark.parametrize("one, other", pairs)


@shapes_of(
    ((2, 3), (3, 4)), ((2, 3), (3,)), ((3,), (3,)), ((2, 3), ()), ((), ()), ((), (2, 3)),
    ((2, 3, 4), (5, 4, 2)), ((2, 3, 4), (4,)), ((4,), (5, 4, 2)), ((2, 3, 4), (4, 2)),
    ((3,), (3, 2)), ((2, 2, 4), (3, 2, 4, 2)), ((2, 0), (0, 3)), ((2, 0), (2, 0, 3)),
    ((0, 3), (2, 3, 2)),
)  # fmt: skip
def test_dot(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    check_numpy("_np_dot", random_array(one), random_array(other, seed=1))


@shapes_of(
    ((2, 3), (3, 4)), ((2, 3), (3,)), ((3,), (3,)), ((2, 3, 4), (5, 1, 4, 2)), ((2, 3, 4), (4,)),
    ((4,), (5, 4, 2)), ((2, 0), (0, 3)), ((2, 3, 4), (4, 2)),
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_matmul(one: tuple[int, ...], other: tuple[int, ...], dtype: str) -> None:
    check_numpy("_npi_matmul", random_array(one, dtype), random_array(other, dtype, seed=1))


@pytest.mark.parametrize("one, other, axes", [
    ((2, 3), (2, 3), 2), ((2, 3, 4), (4, 5), 1), ((2, 3, 4), (5, 6), 0), ((2, 3), (3, 4, 5), 1),
    ((2, 3, 4), (3, 4, 5, 2), 2), ((), (2,), 0), ((2,), (), 0), ((), (), 0), ((2, 0), (0, 2), 1),
    ((4,), (4,), 1), ((3, 4), (4,), 1), ((0, 2), (2, 3, 1), 1)])  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tensordot(one: tuple[int, ...], other: tuple[int, ...], axes: int, dtype: str) -> None:
    arrays = random_array(one, dtype), random_array(other, dtype, seed=1)
    check_numpy("_npi_tensordot_int_axes", *arrays, axes=axes)


@pytest.mark.parametrize("one, other, a_axes, b_axes", [
    ((2, 3, 4), (4, 2, 7), (2, 0), (0, 1)), ((2, 3, 4), (2, 3, 4), (-1, 0, 1), (2, 0, 1)),
    ((2, 3, 4), (2, 2), (), ()), ((2, 3, 4), (5, 3), (1,), (1,)),
    ((2, 3, 4), (5, 3, 6), (1,), (1,)),
    ((2, 3, 4), (6, 4, 3), (1, 2), (2, 1)), ((2, 3, 4), (2, 5, 6), (0,), (0,)),
    ((0, 3), (3, 2), (1,), (0,)), ((2, 0), (0, 3), (-1,), (0,)), ((), (), (), ())])  # fmt: skip
def test_tensordot_of_named_axes(
    one: tuple[int, ...], other: tuple[int, ...], a_axes: tuple[int, ...], b_axes: tuple[int, ...]
) -> None:
    for dtype in ("float32", "float64"):
        arrays = random_array(one, dtype), random_array(other, dtype, seed=1)
        check_numpy("_npi_tensordot", *arrays, a_axes_summed=a_axes, b_axes_summed=b_axes)


CUBE = (2, 3, 4)


@pytest.mark.parametrize("subscripts, shapes", [
    ("ijk->kj", [CUBE]), ("ij,ij", [(2, 3), (2, 3)]), ("ijk,ilk->ijl", [CUBE, (2, 5, 4)]),
    ("ii", [(3, 3)]), ("ii->i", [(3, 3)]), ("iij->ij", [(3, 3, 2)]), ("ij->", [(2, 3)]),
    ("...k,...k->...", [CUBE, CUBE]), ("ijk,ij", [CUBE, (2, 3)]), ("ij,kl->ijkl", [(2, 3), (4, 5)]),
    ("ijk,ijl,ijm->klm", [CUBE, CUBE, CUBE]), ("ij,ij->ij", [(1, 3), (4, 3)]), ("ba", [(2, 3)]),
    (",i->i", [(), (3,)]), (" i j k -> k i ", [CUBE]), ("...j->j...", [CUBE]), ("i...", [CUBE]),
    ("Aab->bA", [CUBE]), ("Ba", [(2, 3)]), ("...ij,...jk->...ik", [(5, 2, 3), (3, 4)]),
    ("ij...,jk...->ik...", [(2, 3, 5), (3, 4, 5)]), ("ij,jk", [(2, 0), (0, 2)]),
    ("bhqd,bhkd->bhqk", [(2, 2, 3, 4), (2, 2, 5, 4)]), ("ij,j->i", [(2, 3), (3,)])])  # fmt: skip
def test_einsum(subscripts: str, shapes: list[tuple[int, ...]]) -> None:
    arrays = [random_array(shape, seed=i) for i, shape in enumerate(shapes)]
    check_numpy("_npi_einsum", *arrays, subscripts=subscripts, num_args=len(arrays))


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint8", "int32", "int64", "bool"])
def test_einsum_of_other_types(dtype: str) -> None:
    a, b = (np.abs(random_array(s) * 9).astype(dtype) for s in ((2, 3), (3, 2)))
    check_numpy("_npi_einsum", a, b, subscripts="ij,jk", num_args=2)
    if dtype != "bool":
        check_numpy("_npi_einsum", a, b, subscripts="ij,jk", num_args=2, optimize=1)
        check_numpy("_npi_einsum", a * 14, subscripts="ij->j", num_args=1)


def positive_definite(*shape: int) -> np.ndarray:
    factor = random_array(shape, "float64")
    return factor @ np.swapaxes(factor, -1, -2) + 3 * np.eye(shape[-1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cholesky(dtype: str) -> None:
    check_numpy("_npi_cholesky", positive_definite(4, 4).astype(dtype))
    check_numpy("_npi_cholesky", positive_definite(2, 3, 3).astype(dtype))
    check_numpy("_npi_cholesky", np.array([[4, 9], [2, 3]], dtype))  # it reads the lower triangle
    check_numpy("_npi_cholesky", np.zeros((0, 0), dtype))


SOLVING = {"rtol": 1e-3, "atol": 1e-4}  # float32: rounding times the condition of the matrix


@shapes_of(
    ((3, 3), (3,)), ((3, 3), (3, 2)), ((2, 3, 3), (2, 3, 1)), ((2, 3, 3), (2, 3)), ((1, 1), (1,)),
    ((7, 7), (7, 3)), ((2, 4, 3, 3), (2, 4, 3, 2)),
)  # fmt: skip
def test_solve(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    a, b = random_array(one, "float64"), random_array(other, "float64", seed=1)
    check_numpy("_npi_solve", a, b)
    arrays = {"x0": a.astype("float32"), "x1": b.astype("float32")}
    check_operator(operator("_npi_solve", 2), arrays, **SOLVING)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
def test_solve_for_integers(dtype: str) -> None:
    a, b = np.array([[4, 2], [2, 3]], dtype), np.array([1, 2], dtype)
    check_numpy("_npi_solve", a, b)
    check_numpy("_npi_tensorsolve", a, b)


@shapes_of(((0, 0), (0, 2)), ((2, 2), (2, 0)), ((0, 2, 2), (0, 2, 1)))
def test_solve_for_nothing(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    check_numpy("_npi_solve", np.zeros(one), np.zeros(other))
    if len(one) == 2 and 0 in one:
        check_numpy("_npi_tensorsolve", np.zeros(one), np.zeros(0))
    check_numpy("_npi_cholesky", np.zeros((0, 2, 2)))


@pytest.mark.parametrize("shape, ind", [((6, 3, 2), 1), ((2, 3, 6), 2), ((2, 3, 3, 2), 2)])
def test_tensorinv(shape: tuple[int, ...], ind: int) -> None:
    check_numpy("_npi_tensorinv", random_array(shape, "float64"), ind=ind)
    arrays = {"x0": random_array(shape)}
    check_operator(operator("_npi_tensorinv", 1, ind=ind), arrays, **SOLVING)


@pytest.mark.parametrize("one, other, a_axes", [
    ((2, 3, 6), (2, 3), ()), ((2, 6, 3), (2, 3), (1,)), ((3, 4, 2, 3, 2), (3, 4), ()),
    ((2, 3, 2, 4, 3), (2, 3, 2), ()), ((3, 2, 2, 3), (2, 3), (0, -2)),
])  # fmt: skip
def test_tensorsolve(one: tuple[int, ...], other: tuple[int, ...], a_axes: tuple[int, ...]) -> None:
    a, b = random_array(one, "float64"), random_array(other, "float64", seed=1)
    check_numpy("_npi_tensorsolve", a, b, a_axes=a_axes)


@pytest.mark.parametrize("op, inputs, attrs, sentence", [
    ("_npi_svd", [(9, 9)], {}, "9 rows, more than 8: MXNet is much faster than a loop"),
    ("_npi_eig", [(3, 3)], {}, "in the order in which LAPACK happens to find them"),
    ("_npi_eigvals", [(3, 3)], {}, "in the order in which LAPACK happens to find them"),
    ("_npi_solve", [(65, 65), (65,)], {}, "65 rows, more than 16: MXNet is much faster than steps"),
])  # fmt: skip
def test_refused(
    op: str, inputs: list[tuple[int, ...]], attrs: dict[str, Any], sentence: str
) -> None:
    symbol = operator(op, len(inputs), **attrs)
    check_refused(symbol, {f"x{i}": shape for i, shape in enumerate(inputs)}, sentence)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_einsum(data: st.DataObject) -> None:
    sizes = {"i": 2, "j": 3, "k": 1, "l": 4}
    letters = st.lists(st.sampled_from("ijkl"), min_size=1, max_size=3, unique=True).map("".join)
    terms = data.draw(st.lists(letters, min_size=1, max_size=3))
    used = sorted(set("".join(terms)))
    output = "".join(data.draw(st.permutations(used)))[: data.draw(st.integers(0, len(used)))]
    subscripts = ",".join(terms) + data.draw(st.sampled_from(["", "->" + output]))
    arrays = [random_array(tuple(sizes[c] for c in t), seed=i) for i, t in enumerate(terms)]
    check_numpy("_npi_einsum", *arrays, subscripts=subscripts, num_args=len(arrays))
