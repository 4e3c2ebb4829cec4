"""Operators whose values decide sizes: files against MXNet, which runs them only one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mxnet as mx
import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import operator

import mxtrt

pytestmark = pytest.mark.usefixtures("np_shape")

FLOATS, INTEGERS = ["float16", "float32", "float64"], ["int8", "uint8", "int32", "int64"]


def check_file(folder: Path, op: str, *arrays: Any, **attrs: Any) -> None:
    """Assert that a file gives what MXNet gives, with sizes known and unknown."""
    inputs = [np.asarray(array) for array in arrays]
    expected = run_alone(op, inputs, attrs)
    symbol = operator(op, len(inputs), **attrs)
    for shapes in ([x.shape for x in inputs], [(None,) * x.ndim for x in inputs]):
        path = mxtrt.export_model(
            symbol, {}, shapes, [x.dtype for x in inputs], folder / "model.onnx"
        )
        found = run(path, inputs)
        assert len(found) == len(expected)
        for have, want in zip(found, expected):
            assert have.dtype == want.dtype
            np.testing.assert_array_equal(have, want)


def run_alone(op: str, inputs: Sequence[np.ndarray], attrs: Any) -> list[np.ndarray]:
    """Return what MXNet makes of arrays, without a symbol."""
    if op == "_contrib_boolean_mask":
        arrays = [mx.nd.array(x, dtype=x.dtype) for x in inputs]
        made = mx.nd.contrib.boolean_mask(*arrays, **attrs)
    else:
        arrays = [mx.np.array(x, dtype=x.dtype) for x in inputs]
        functions = mx.npx if "_npx_" in op else mx.nd.numpy._internal
        made = getattr(functions, op.split("_", 2)[2])(*arrays, **attrs)
    return [x.asnumpy() for x in (made if isinstance(made, (list, tuple)) else [made])]


def run(path: str, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs)))


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS])
def test_types(dtype: str, tmp_path: Path) -> None:
    x = np.array([[3, 0, 2], [1, 0, 3]], dtype)
    check_file(tmp_path, "_npx_nonzero", x)
    flags = {"return_index": True, "return_inverse": True, "return_counts": True}
    check_file(tmp_path, "_npi_unique", x, **flags)
    check_file(tmp_path, "_npi_delete", x, int_ind=1, axis=1)
    check_file(tmp_path, "_contrib_boolean_mask", x, np.array([0, 1], dtype))
    if dtype in INTEGERS:
        check_file(tmp_path, "_npi_bincount", x[0])


@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 3, 2), (0, 3), (2, 0)])
def test_nonzero(shape: tuple[int, ...], tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 3, shape).astype("float32")
    check_file(tmp_path, "_npx_nonzero", x)
    check_file(tmp_path, "_npx_nonzero", x * 0)
    check_file(tmp_path, "_npx_nonzero", x * np.float32("nan"))


@pytest.mark.parametrize("flags", ["", "index", "inverse", "counts", "index counts"])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((), None), ((7,), None), ((7,), 0), ((4, 3), None), ((4, 2), 0), ((2, 5), -1),
     ((2, 6, 2), 1), ((0,), None)],
)  # fmt: skip
def test_unique(shape: tuple[int, ...], axis: int | None, flags: str, tmp_path: Path) -> None:
    """Without NaN, behind which MXNet does not sort, and -0.0, which is no 0.0 to it."""
    x = np.random.default_rng(1).integers(-1, 2, shape).astype("float32")
    attrs = {f"return_{flag}": True for flag in flags.split()}
    check_file(tmp_path, "_npi_unique", x, axis=axis, **attrs)


@pytest.mark.parametrize("minlength", [0, 2, 9])
def test_bincount(minlength: int, tmp_path: Path) -> None:
    x = np.array([3, 1, 1, 5, 1], "int32")
    check_file(tmp_path, "_npi_bincount", x, minlength=minlength)
    check_file(tmp_path, "_npi_bincount", x[:0], minlength=minlength or 1)
    for dtype in (*FLOATS, "int32", "int64"):
        weights = np.array([0.5, 2, -1, 4, 8]).astype(dtype)
        options = {"minlength": minlength, "has_weights": True}
        check_file(tmp_path, "_npi_bincount", x, weights, **options)


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize(
    "attrs",
    [{"int_ind": 1}, {"int_ind": -1}, {"int_ind": -3}, {"step": 2}, {"start": 1, "stop": 3},
     {"step": -1}, {"start": 5, "stop": 1}, {"start": -1}, {"start": 3, "stop": 0, "step": -2},
     {"stop": 10}],
)  # fmt: skip
def test_delete(axis: int | None, attrs: dict[str, int], tmp_path: Path) -> None:
    x = np.arange(12, dtype="float32").reshape(3, 4)
    attrs = {**attrs, "step": attrs.get("step", 1)} if "int_ind" not in attrs else attrs
    check_file(tmp_path, "_npi_delete", x, axis=axis, **attrs)


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
@pytest.mark.parametrize("places", [[0, 2], [1], [0, -1, 0], [7, 1], []])
def test_delete_places(axis: int | None, dtype: str, places: list[int], tmp_path: Path) -> None:
    """Those out of bounds delete nothing, and negative ones are out of bounds."""
    x = np.arange(12, dtype="float32").reshape(3, 4)
    check_file(tmp_path, "_npi_delete", x, np.array(places, dtype), axis=axis)


def test_boolean_mask(tmp_path: Path) -> None:
    """Of rows: MXNet knows no other axis."""
    x, marks = np.arange(12, dtype="float32").reshape(3, 4), np.array([1, 0, 2], "float32")
    check_file(tmp_path, "_contrib_boolean_mask", x, marks, axis=0)
    check_file(tmp_path, "_contrib_boolean_mask", x, marks * 0)


def test_more_behind_them(tmp_path: Path) -> None:
    """What reads an output of unknown size is converted too."""
    x = mx.sym.var("x").as_np_ndarray()
    symbol = mx.sym.np.sum(mx.sym.np.unique(x) * 2, axis=0)
    path = mxtrt.export_model(symbol, {}, [(6,)], "float32", tmp_path / "model.onnx")
    given = np.array([1, 2, 2, 5, 1, 1], "float32")
    np.testing.assert_array_equal(run(path, [given])[0], 16)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=8), st.integers(0, 9))
def test_any_numbers(numbers: list[int], minlength: int) -> None:
    x = np.array(numbers, "int64")
    with TemporaryDirectory() as folder:
        check_file(Path(folder), "_npi_bincount", x, minlength=minlength)
        check_file(Path(folder), "_npx_nonzero", x)
        check_file(Path(folder), "_npi_unique", x, return_counts=True)
        check_file(Path(folder), "_npi_delete", np.arange(7), x)
