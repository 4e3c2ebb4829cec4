"""Densities of random numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import check_operator, operator

RANGES = {  # of the samples, then of the parameters
    "uniform": [(-3, 3), (-2, 0), (0.5, 4)],
    "normal": [(-3, 3), (-1, 1), (0.3, 3)],
    "exponential": [(0, 4), (0.2, 3)],
    "gamma": [(0.1, 6), (0.2, 9), (0.3, 3)],
    "poisson": [(0, 12), (0.3, 9)],
    "negative_binomial": [(0, 12), (0.4, 9), (0.1, 0.9)],
    "generalized_negative_binomial": [(0, 12), (0.3, 5), (0.2, 3)],
}
WHOLE = {"poisson", "negative_binomial", "generalized_negative_binomial"}
SHAPES = [((3,), (3, 5)), ((2, 3), (2, 3)), ((2, 1), (2, 1, 4, 3)), ((1,), (1, 1))]


def draw(
    name: str, shape: tuple[int, ...], sample: tuple[int, ...], dtype: str, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return samples and parameters by the names that `operator` reads."""
    rng = np.random.default_rng(seed)
    shapes = [sample, *[shape] * (len(RANGES[name]) - 1)]
    drawn = [rng.uniform(*ends, size) for ends, size in zip(RANGES[name], shapes)]
    if name in WHOLE:
        drawn[0] = drawn[0].round()
    return {f"x{i}": x.astype(dtype) for i, x in enumerate(drawn)}


@pytest.mark.parametrize("is_log", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("name", RANGES)
def test_densities(name: str, dtype: str, is_log: bool) -> None:
    symbol = operator(f"_random_pdf_{name}", len(RANGES[name]), is_log=is_log)
    # MXNet rounds every step to a half
    bounds = {"rtol": 3e-2, "atol": 2e-2} if dtype == "float16" else {}
    for shape, sample in SHAPES:
        check_operator(symbol, draw(name, shape, sample, dtype), **bounds)


@pytest.mark.parametrize("is_log", [False, True])
@pytest.mark.parametrize("name", RANGES)
def test_impossible_samples(name: str, is_log: bool) -> None:
    """MXNet puts them into the formula too; 1 and 0 are ends of its logarithms."""
    symbol = operator(f"_random_pdf_{name}", len(RANGES[name]), is_log=is_log)
    given = draw(name, (2,), (2, 6), "float32")
    given["x0"] = np.array([[-2.5, -1, 0, 1, 40, np.nan]] * 2, "float32")
    check_operator(symbol, given)


@pytest.mark.parametrize("is_log", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("alpha", "sample"),
    [((3,), (3,)), ((2, 3), (2, 3)), ((2, 3), (2, 5, 3)), ((1, 2), (1, 4, 3, 2)), ((2, 1), (2, 1))],
)
def test_dirichlet(
    alpha: tuple[int, ...], sample: tuple[int, ...], dtype: str, is_log: bool
) -> None:
    rng = np.random.default_rng(1)
    given = {"x0": rng.uniform(0.05, 1, sample), "x1": rng.uniform(0.3, 4, alpha)}
    symbol = operator("_random_pdf_dirichlet", 2, is_log=is_log)
    check_operator(symbol, {name: x.astype(dtype) for name, x in given.items()})


def test_dirichlet_of_halves() -> None:
    given = {"x0": np.array([[0.25, 0.75]], "float16"), "x1": np.array([[1.5, 2]], "float16")}
    check_operator(operator("_random_pdf_dirichlet", 2), given)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.sampled_from(sorted(RANGES)),
    st.lists(st.integers(1, 3), min_size=1, max_size=3),
    st.lists(st.integers(1, 3), max_size=2),
    st.booleans(),
    st.integers(0, 1000),
)
def test_any(name: str, shape: list[int], more: list[int], is_log: bool, seed: int) -> None:
    given = draw(name, tuple(shape), (*shape, *more), "float32", seed)
    symbol = operator(f"_random_pdf_{name}", len(RANGES[name]), is_log=is_log)
    check_operator(symbol, given, unknown_sizes=False)
