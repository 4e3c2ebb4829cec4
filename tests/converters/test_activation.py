"""Activations against MXNet."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import ENGINE, check_operator, check_refused, random_array

X, GAMMA = mx.sym.var("x"), mx.sym.var("gamma")

KINDS = ["relu", "sigmoid", "tanh", "softrelu", "softsign"]
LEAKY: list[dict[str, Any]] = [
    {},
    {"slope": 0.1},
    {"act_type": "leaky", "slope": 0},
    {"act_type": "elu"},
    {"act_type": "elu", "slope": 1.7},
    {"act_type": "selu"},
    {"act_type": "gelu"},
]


@pytest.mark.parametrize("act_type", KINDS)
@pytest.mark.parametrize("shape", [(7,), (2, 3), (2, 3, 1, 5)])
def test_activation(act_type: str, shape: tuple[int, ...]) -> None:
    check_operator(mx.sym.Activation(X, act_type=act_type), {"x": shape})


@pytest.mark.parametrize("act_type", KINDS)
def test_activation_of_halves(act_type: str) -> None:
    x = random_array((3, 50), "float16")
    check_operator(mx.sym.Activation(X, act_type=act_type), {"x": x})


@pytest.mark.parametrize("act_type", KINDS)
def test_activation_of_doubles(act_type: str) -> None:
    x = random_array((3, 50), "float64")
    check_operator(mx.sym.Activation(X, act_type=act_type), {"x": x})


@pytest.mark.parametrize("act_type", ["leaky", "elu", "selu"])
def test_leaky_relu_of_doubles(act_type: str) -> None:
    x = 3 * random_array((3, 50), "float64")
    check_operator(mx.sym.LeakyReLU(X, act_type=act_type, slope=0.3), {"x": x})


@pytest.mark.parametrize("act_type", ["elu", "selu"])
def test_small_doubles_keep_their_digits(act_type: str) -> None:
    x = np.array([-1e-300, -1e-17, -1e-3, -0.5, -50, -1e9, -np.inf, np.nan, np.inf])
    check_operator(mx.sym.LeakyReLU(X, act_type=act_type, slope=0.3), {"x": x}, atol=0)


def test_hard_sigmoid_of_doubles() -> None:
    x = 3 * random_array((3, 50), "float64")
    check_operator(mx.sym.hard_sigmoid(X, alpha=0.3, beta=0.1), {"x": x})


def test_no_kernel_for_doubles() -> None:
    x = random_array((3, 50), "float64")
    sentence = "ONNX Runtime" if ENGINE == "onnxruntime" else "float64: TensorRT"
    check_refused(mx.sym.LeakyReLU(X, act_type="gelu"), {"x": x}, sentence)


def test_activation_far_out() -> None:
    x = np.array([-200, -90, -20, 20, 90, 200], "float32")
    for act_type in KINDS:
        check_operator(mx.sym.Activation(X, act_type=act_type), {"x": x})


@pytest.mark.parametrize("options", [{}, {"lower_bound": 0.3, "upper_bound": 0.8}], ids=str)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rrelu_is_its_mean(options: dict[str, Any], dtype: str) -> None:
    # its other output, the slopes, is uninitialised memory in inference
    symbol = mx.sym.LeakyReLU(X, act_type="rrelu", **options)[0]
    check_operator(symbol, {"x": random_array((3, 4, 5), dtype)})


@pytest.mark.parametrize("options", LEAKY, ids=str)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_leaky_relu(options: dict[str, Any], dtype: str) -> None:
    x = random_array((3, 4, 5), dtype) * np.asarray(3, dtype)
    check_operator(mx.sym.LeakyReLU(X, **options), {"x": x})


PRELU = [
    ((2, 3, 4, 5), (3,)),
    ((2, 3, 4, 5), (1,)),
    ((2, 3), (3,)),
    ((4,), (1,)),
    ((3,), (3,)),
    ((2, 3, 4), (1, 3)),
    ((2, 3, 4), (2, 3)),
    ((2, 3, 4), (2, 1)),
    ((2, 3, 4), (2,)),  # goes to axis 0, because axis 1 has another size
    ((3, 4), (3,)),
    ((3, 3, 4), (3,)),  # goes to axis 1, though axis 0 has the size too
]


@pytest.mark.parametrize(("shape", "gamma"), PRELU)
def test_prelu(shape: tuple[int, ...], gamma: tuple[int, ...]) -> None:
    symbol = mx.sym.LeakyReLU(X, GAMMA, act_type="prelu")
    slopes = np.linspace(-0.5, 2, int(np.prod(gamma)), dtype="float32").reshape(gamma)
    check_operator(symbol, {"x": shape}, {"gamma": slopes})
    check_operator(symbol, {"x": random_array(shape), "gamma": slopes})


def test_prelu_of_halves() -> None:
    symbol = mx.sym.LeakyReLU(X, GAMMA, act_type="prelu")
    gamma = np.array([0.1, 0.5, 2], "float16")
    check_operator(symbol, {"x": random_array((2, 3, 4), "float16")}, {"gamma": gamma})


@pytest.mark.parametrize(("alpha", "beta"), [(None, None), (0.5, 0.1), (-1.0, 0.7)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_hard_sigmoid(alpha: float | None, beta: float | None, dtype: str) -> None:
    options = {} if alpha is None else {"alpha": alpha, "beta": beta}
    x = np.linspace(-4, 4, 41).astype(dtype)
    check_operator(mx.sym.hard_sigmoid(X, **options), {"x": x})


SLOPES = st.floats(-2, 2, width=32, allow_subnormal=False)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    options=st.one_of(
        st.builds(dict, act_type=st.sampled_from(["leaky", "elu"]), slope=SLOPES),
        st.builds(
            dict,
            act_type=st.just("rrelu"),
            lower_bound=st.floats(0, 0.5),
            upper_bound=st.floats(0.5, 1),
        ),
    ),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple),
)
def test_any_slope(options: dict[str, Any], shape: tuple[int, ...]) -> None:
    check_operator(mx.sym.LeakyReLU(X, **options)[0], {"x": shape})
