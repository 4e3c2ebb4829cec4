"""Connectionist temporal classification."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import check_operator, check_refused, operator, random_array

ACTIVATIONS = random_array((6, 3, 5))
LABELS = np.array([[1, 2, 3], [2, 2, 1], [4, 1, 2]], "float32")


def check_ctc(*arrays: np.ndarray, **attrs: Any) -> None:
    inputs = {f"x{i}": array for i, array in enumerate(arrays)}
    check_operator(operator("CTCLoss", len(arrays), **attrs), inputs)


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_padded_labels(dtype: str) -> None:
    """They end at the first padding, whatever stands behind it."""
    first = np.array([[1, 2, 3], [2, 0, 3], [0, 0, 0]], dtype)
    check_ctc(ACTIVATIONS, first)
    check_ctc(ACTIVATIONS, first, blank_label="first")
    last = np.array([[1, 2, 3], [2, -1, 0], [-1, -1, -1]], dtype)
    check_ctc(ACTIVATIONS, last, blank_label="last")


@pytest.mark.parametrize("blank_label", ["first", "last"])
def test_lengths(blank_label: str) -> None:
    labels = LABELS - (blank_label == "last")
    of_data, of_labels = np.array([6, 5, 4], "float32"), np.array([3, 2, 1], "float32")
    attrs = {"blank_label": blank_label}
    check_ctc(ACTIVATIONS, labels, of_data, use_data_lengths=True, **attrs)
    check_ctc(ACTIVATIONS, labels, of_labels, use_label_lengths=True, **attrs)
    both = {"use_data_lengths": True, "use_label_lengths": True, **attrs}
    check_ctc(ACTIVATIONS, labels, of_data, of_labels, **both)


def test_no_alignment() -> None:
    """Equal labels need a blank between them: there is no time for it, and MXNet says 0."""
    check_ctc(ACTIVATIONS[:3], np.array([[1, 1, 1], [2, 2, 0], [4, 3, 2]], "float32"))
    lengths = np.array([1, 2, 3], "float32")
    check_ctc(ACTIVATIONS, LABELS, lengths, use_data_lengths=True)


def test_chances_of_almost_0() -> None:
    check_ctc(ACTIVATIONS * 30, LABELS)


@pytest.mark.parametrize("channel", [0, 1, 2, 3])
@pytest.mark.parametrize("steps", [1, 3, 6])
def test_chances_of_0(channel: int, steps: int) -> None:
    """What forbids every alignment makes the loss infinite, and what forbids some does not."""
    data = ACTIVATIONS.copy()
    data[:steps, :, channel] = -np.inf
    check_ctc(data, LABELS)
    check_ctc(data, LABELS[:, :1])
    lengths = np.array([6, 3, 1], "float32")
    check_ctc(data, LABELS, lengths, use_data_lengths=True)
    check_ctc(data, LABELS, lengths / 3, use_label_lengths=True)


def test_refused() -> None:
    inputs = {"x0": ACTIVATIONS.astype("float64"), "x1": LABELS}
    sentence = "of float64: MXNet adds chances up in float32 alone"
    check_refused(operator("CTCLoss", 2), inputs, sentence)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(1, 9), st.integers(1, 3), st.integers(2, 5), st.integers(1, 4), st.integers(0, 999)
)
def test_any(time: int, batch: int, channels: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, channels, (batch, min(count, time))).astype("float32")
    labels[0, 0] = 1  # in a batch without any label MXNet writes no loss
    check_ctc(random_array((time, batch, channels), seed=seed), labels)
