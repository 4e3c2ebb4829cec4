"""NumPy's reshapes, moved axes, stacks, splits and pads against MXNet."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import check_numpy, check_refused, operator, random_array

pytestmark = pytest.mark.usefixtures("np_shape")

NUMBER = np.int64(7)
VECTOR = np.arange(3)
MATRIX = np.arange(6).reshape(2, 3)
CUBE = random_array((2, 3, 4))
EMPTY = np.zeros((2, 0, 3), "float32")
FIVE = random_array((2, 1, 3, 4, 5))


@pytest.mark.parametrize("newshape", [
    (-1,), (4, -1), (2, -1, 2), (24,), (1, 24, 1), (2, 3, 4)])  # fmt: skip
def test_reshape(newshape: tuple[int, ...]) -> None:
    check_numpy("_np_reshape", CUBE, newshape=newshape)


@pytest.mark.parametrize("x, newshape", [
    (EMPTY, (0, 5)), (EMPTY, (-1, 5)), (EMPTY, (-1,)), (np.ones((1, 1)), ()),
    (np.float32(3), (1, 1)), (np.float32(3), (-1,))])  # fmt: skip
def test_reshape_of_numbers_and_nothing(x: np.ndarray, newshape: tuple[int, ...]) -> None:
    check_numpy("_np_reshape", x, newshape=newshape)


def test_order_makes_no_difference_in_mxnet() -> None:
    check_numpy("_np_reshape", MATRIX, newshape=(3, 2), order="F")
    check_numpy("_npx_reshape", MATRIX, newshape=(3, 2), order="F")


@pytest.mark.parametrize("newshape", [
    (-2, -3, -1), (-4,), (-2, -4), (-2, -2, -5, -2), (-2, -2, -2, -6, 2, 2, -2),
    (-2, -2, -2, -6, -1, 2, -4), (-6, 1, 2, -4), (-1, -4), (-5, -4), (-4, -1), (-2, -3, -2, -1),
    (-2, -2, 3, 20), (-6, -1, 1, -3, -4), (-5, -5, -2), (-2, -2, -1), (2, -2, 3, -2, -2)],
)  # fmt: skip
def test_reshape_by_codes(newshape: tuple[int, ...]) -> None:
    check_numpy("_npx_reshape", FIVE, newshape=newshape)


@pytest.mark.parametrize("newshape", [
    (-4,), (-2, -2, -5, -2), (-1, -4), (-4, -1), (-5, -5, -2), (-2, -2, -1), (-4, 2, 2, -6, -2),
    (-4, -1, 2, -6, -2), (-2, -3, -2, -2, -2), (6, -2, -2)])  # fmt: skip
def test_reshape_by_codes_from_behind(newshape: tuple[int, ...]) -> None:
    check_numpy("_npx_reshape", FIVE, newshape=newshape, reverse=True)


@pytest.mark.parametrize("x, newshape", [
    (EMPTY, (-2, -1)), (EMPTY, (-5, -2)), (EMPTY, (3, 0)), (EMPTY, (0, -2, 3, 5)),
    (np.float32(3), (1, 1)), (np.ones((1, 1)), (-3, -3))])  # fmt: skip
def test_reshape_by_codes_of_numbers_and_nothing(x: np.ndarray, newshape: tuple[int, ...]) -> None:
    check_numpy("_npx_reshape", x, newshape=newshape)


@pytest.mark.parametrize("axis", [None, (0,), (-1,), (0, 2), ()])
def test_squeeze(axis: tuple[int, ...] | None) -> None:
    check_numpy("_np_squeeze", random_array((1, 3, 1)), axis=axis)


@pytest.mark.parametrize("shape", [(1, 1), (), (1, 0)])
def test_squeeze_of_everything(shape: tuple[int, ...]) -> None:
    check_numpy("_np_squeeze", random_array(shape))


@pytest.mark.parametrize("axes", [None, (1, 0, 2), (-1, 0, 1), (2, 1, 0)])
def test_transpose(axes: tuple[int, ...] | None) -> None:
    check_numpy("_np_transpose", CUBE, axes=axes)


def test_transpose_of_numbers_and_nothing() -> None:
    check_numpy("_np_transpose", np.float32(3))
    check_numpy("_np_transpose", EMPTY)


@pytest.mark.parametrize("source, destination", [
    ((0,), (-1,)), ((0, -1), (1, 0)), ((), ()), ((2, 1, 0), (0, 1, 2))])  # fmt: skip
def test_moveaxis(source: tuple[int, ...], destination: tuple[int, ...]) -> None:
    check_numpy("_np_moveaxis", CUBE, source=source, destination=destination)


@pytest.mark.parametrize("shift, axis", [
    ((2,), None), ((-13,), None), ((-1,), (1,)), ((1, 2), (0, 1)), ((1,), (0, 1)), ((7,), (-1,)),
    ((0,), (1,))])  # fmt: skip
def test_roll(shift: tuple[int, ...], axis: tuple[int, ...] | None) -> None:
    check_numpy("_np_roll", MATRIX, shift=shift, axis=axis)


def test_roll_of_numbers_and_nothing() -> None:
    check_numpy("_np_roll", EMPTY, shift=(1,), axis=(1,))
    check_numpy("_np_roll", EMPTY, shift=(1,))
    check_numpy("_np_roll", np.float32(3), shift=(1,))


@pytest.mark.parametrize("axis", [(0,), (0, 1), (1,), ()])  # MXNet takes no negative ones
def test_flip(axis: tuple[int, ...]) -> None:
    check_numpy("_npi_flip", MATRIX, axis=axis)


def test_flip_of_numbers_and_nothing() -> None:
    check_numpy("_npi_flip", np.float32(3), axis=())
    check_numpy("_npi_flip", EMPTY, axis=(0, 1))


@pytest.mark.parametrize("k", [-1, 0, 1, 2, 3, 5])
@pytest.mark.parametrize("axes", [(0, 1), (1, 0), (2, 1), (0, -1)])
def test_rot90(k: int, axes: tuple[int, int]) -> None:
    check_numpy("_npi_rot90", CUBE, k=k, axes=axes)


@pytest.mark.parametrize("x, shape", [
    (MATRIX, (2, 2, 3)), (MATRIX, (4, -2, 3)), (np.zeros((1, 3)), (0, 3)), (np.float32(2), (2, 2)),
    (np.float32(2), ())])  # fmt: skip
def test_broadcast_to(x: np.ndarray, shape: tuple[int, ...]) -> None:
    check_numpy("_npi_broadcast_to", x, shape=shape)


@pytest.mark.parametrize("op", ["hstack", "vstack", "dstack", "column_stack", "stack"])
@pytest.mark.parametrize("x", [NUMBER, VECTOR, MATRIX, CUBE, EMPTY], ids=np.ndim)
def test_stacks(op: str, x: np.ndarray) -> None:
    check_numpy(f"_npi_{op}", x, x + 1, num_args=2)


def test_stacks_of_different_ranks() -> None:
    check_numpy("_npi_column_stack", VECTOR, np.zeros((3, 2), "int64"), num_args=2)
    check_numpy("_npi_vstack", VECTOR, MATRIX, num_args=2)
    check_numpy("_npi_dstack", VECTOR, np.zeros((1, 3, 2), "int64"), num_args=2)
    check_numpy("_npi_stack", MATRIX, MATRIX + 1, num_args=2, axis=-1)


@pytest.mark.parametrize("op", ["hstack", "dstack"])
def test_stacks_do_not_read_dim(op: str) -> None:
    check_numpy(f"_npi_{op}", CUBE, CUBE + 1, num_args=2, dim=0)


@pytest.mark.parametrize("axis", [0, 1, -1, None])
def test_concatenate(axis: int | None) -> None:
    check_numpy("_npi_concatenate", MATRIX, MATRIX + 1, MATRIX + 2, num_args=3, axis=axis)


def test_concatenate_of_other_things() -> None:
    check_numpy("_npi_concatenate", MATRIX, MATRIX + 1, num_args=2)
    check_numpy("_npi_concatenate", MATRIX, VECTOR, num_args=2, axis=None)
    check_numpy("_npi_concatenate", np.zeros((0, 3)), np.ones((2, 3)), num_args=2, axis=0)
    check_numpy("_npi_concatenate", np.ones(2, bool), np.zeros(1, bool), num_args=2, axis=0)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_atleast(rank: int) -> None:
    for x in (NUMBER, VECTOR, MATRIX, CUBE):
        check_numpy(f"_np_atleast_{rank}d", x, num_args=1)
    check_numpy(f"_np_atleast_{rank}d", NUMBER, VECTOR, MATRIX, num_args=3)


@pytest.mark.parametrize("indices, options", [
    ((0, 2, 4), {}), ((), {"sections": 3}), ((), {"sections": 6, "squeeze_axis": True}),
    ((0, 2, 2, 6), {})])  # fmt: skip
def test_hsplit(indices: tuple[int, ...], options: dict[str, int]) -> None:
    check_numpy("_npi_hsplit", np.arange(12).reshape(2, 6), indices=indices, **options)


def test_splits_of_other_ranks() -> None:
    check_numpy("_npi_hsplit", np.arange(6), indices=(0, 2), axis=1)
    check_numpy("_npi_hsplit", np.arange(6), indices=(), sections=2)
    check_numpy("_npi_hsplit", CUBE, indices=(0, 1), axis=0)  # which MXNet does not read
    check_numpy("_npi_hsplit", random_array((2, 6, 3)), indices=(), sections=2)
    check_numpy("_npi_dsplit", CUBE, indices=(0, 2), axis=2)  # MXNet dies on its own default
    check_numpy("_npi_dsplit", CUBE, indices=(), sections=2, axis=2)
    whole = {"indices": (), "sections": CUBE.shape[2], "squeeze_axis": True}
    check_numpy("_npi_dsplit", CUBE, axis=2, **whole)
    symbol = operator("_npi_dsplit", 1, indices=(0, 2), axis=0)
    check_refused(symbol, {"x0": CUBE}, "axis=0: NumPy splits axis 2")


MODES = ["constant", "edge", "reflect", "symmetric", "maximum", "minimum"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool"]
)
def test_pad(mode: str, dtype: str) -> None:
    x = np.arange(6).reshape(2, 3).astype(dtype)
    check_numpy("_npi_pad", x, pad_width=((1, 1), (1, 2)), mode=mode, constant_value=2.7)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pad_width", [
    ((0, 0), (5, 7)), ((2, 2), (3, 4)), ((0, 0), (0, 0)), ((0, 3), (0, 0))])  # fmt: skip
def test_pad_beyond_the_size(mode: str, pad_width: tuple[tuple[int, int], ...]) -> None:
    check_numpy("_npi_pad", np.arange(3.0)[None], pad_width=pad_width, mode=mode)


@pytest.mark.parametrize("mode", MODES)
def test_pad_of_a_vector(mode: str) -> None:
    check_numpy("_npi_pad", np.arange(3.0), pad_width="(2,1)", mode=mode)


def test_pad_with_odd_things() -> None:
    check_numpy("_npi_pad", np.zeros((0, 2)), pad_width=((1, 1), (0, 1)))
    check_numpy("_npi_pad", np.ones((1, 2), "uint8"), pad_width=((0, 0), (1, 1)), constant_value=-3)
    odd = {"mode": "reflect", "reflect_type": "odd"}  # MXNet takes it for even
    check_numpy("_npi_pad", MATRIX, pad_width=((0, 0), (2, 2)), **odd)


@pytest.mark.parametrize("mode", MODES[1:])
def test_pad_of_an_axis_without_elements(mode: str) -> None:
    # MXNet dies for reflections and shows what lies in memory for the rest
    symbol = operator("_npi_pad", 1, pad_width=((0, 0), (1, 1)), mode=mode)
    sentence = f"mode={mode!r} repeats elements of an axis that has none"
    check_refused(symbol, {"x0": np.zeros((2, 0))}, sentence)
    check_numpy("_npi_pad", np.zeros((0, 2)), pad_width=((0, 0), (1, 1)), mode=mode)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_codes(data: st.DataObject) -> None:
    """Codes that take the axes of a shape in turn, with at most one size left open."""
    shape = data.draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4))
    codes: list[int] = []
    axis = 0
    while axis < len(shape):
        size = shape[axis]
        choices = [(-2,), (size,), (-6, 1, size)]
        choices += [(-3,)] if size == 1 else []
        choices += [(-5,)] if axis + 1 < len(shape) else []
        choices += [(-1,), (-6, size, -1)] if -1 not in codes else []
        code = data.draw(st.sampled_from([*choices, (-4,)]))
        codes += code
        axis = len(shape) if code == (-4,) else axis + (2 if code == (-5,) else 1)
    check_numpy("_npx_reshape", random_array(tuple(shape)), newshape=tuple(codes))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_pad(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=3)))
    width = st.tuples(st.integers(0, 5), st.integers(0, 5))
    pad_width = tuple(data.draw(width) for _ in shape)
    mode = data.draw(st.sampled_from(MODES))
    check_numpy("_npi_pad", random_array(shape), pad_width=pad_width, mode=mode)
