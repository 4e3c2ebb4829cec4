"""``SequenceMask``, ``SequenceLast`` and ``SequenceReverse`` against MXNet."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from operators import check_any_rank, check_operator, random_array

DATA, LENGTHS = mx.sym.var("data"), mx.sym.var("lengths")
DTYPES = ["float32", "float16", "float64", "int32", "int64", "int8", "uint8"]
SHAPES = [(4, 5), (4, 5, 3), (5, 4, 1, 2), (1, 3, 2), (3, 1, 2)]


def lengths_for(shape: tuple[int, ...], axis: int, dtype: str, least: int) -> np.ndarray:
    """Return lengths from `least` to that of `axis`; those that are fractions are truncated."""
    rng = np.random.default_rng(3)
    lengths = rng.integers(least, shape[axis] + 1, shape[1 - axis]).astype(dtype)
    return lengths + np.array(0.5, dtype) * (lengths < shape[axis])


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "int32", "int64", "float16"])
def test_mask(shape: tuple[int, ...], axis: int, dtype: str) -> None:
    lengths = lengths_for(shape, axis, dtype, least=0)
    for value in [0, -1.5]:
        symbol = mx.sym.SequenceMask(
            DATA, LENGTHS, use_sequence_length=True, axis=axis, value=value
        )
        check_operator(symbol, {"data": shape, "lengths": lengths})


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_mask_of_any_rank(shape: tuple[int, ...], axis: int) -> None:
    symbol = mx.sym.SequenceMask(DATA, LENGTHS, use_sequence_length=True, axis=axis, value=7)
    check_any_rank(symbol, {"data": shape, "lengths": lengths_for(shape, axis, "float32", least=0)})


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "int32", "int64"])
def test_last(shape: tuple[int, ...], axis: int, dtype: str) -> None:
    # of an empty sequence MXNet returns what lies before the array
    lengths = lengths_for(shape, axis, dtype, least=1)
    symbol = mx.sym.SequenceLast(DATA, LENGTHS, use_sequence_length=True, axis=axis)
    check_operator(symbol, {"data": shape, "lengths": lengths})


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "int32", "int64"])
def test_reverse(shape: tuple[int, ...], dtype: str) -> None:
    symbol = mx.sym.SequenceReverse(DATA, LENGTHS, use_sequence_length=True)
    lengths = lengths_for(shape, 0, dtype, least=0)
    check_operator(symbol, {"data": shape, "lengths": lengths})


@pytest.mark.parametrize("shape", SHAPES)
def test_without_lengths(shape: tuple[int, ...]) -> None:
    check_operator(mx.sym.SequenceReverse(DATA), {"data": shape})
    for axis in [0, 1]:
        check_operator(mx.sym.SequenceMask(DATA, axis=axis, value=7), {"data": shape})
        check_operator(mx.sym.SequenceLast(DATA, axis=axis), {"data": shape})


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype: str) -> None:
    inputs = {"data": random_array((4, 3, 2), dtype), "lengths": np.array([1, 4, 2], "float32")}
    mask = mx.sym.SequenceMask(DATA, LENGTHS, use_sequence_length=True, value=-3.5)
    check_operator(mask, inputs, unknown_sizes=False)
    last = mx.sym.SequenceLast(DATA, LENGTHS, use_sequence_length=True)
    check_operator(last, inputs, unknown_sizes=False)
    reverse = mx.sym.SequenceReverse(DATA, LENGTHS, use_sequence_length=True)
    check_operator(reverse, inputs, unknown_sizes=False)
