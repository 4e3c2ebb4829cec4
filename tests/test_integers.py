"""Comparisons and sums of integers that some versions of ONNX Runtime get wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import parser
from operators import check_numpy, operator, run_mxnet

import mxtrt
from mxtrt.engines import onnxruntime as engine_module
from mxtrt.engines._integers import COMPARISONS, SUMS, with_right_integers

RNG = np.random.default_rng(0)
LARGE, SMALL = RNG.integers(2**31, 2**32, (3, 67)), RNG.integers(0, 100, (3, 67))
MIXED = np.where(SMALL % 2, LARGE, SMALL) | 1  # the product of many even numbers is 0
ANY = RNG.integers(0, 2**32, (3, 67)) | 1
BLOCKS = [-(2**31), -3, -1, 0, 1, 2**31 - 1]


def in_block(lower: np.ndarray, block: int) -> np.ndarray:
    return (lower + block * 2**32).astype("int64")  # NumPy 1.23 makes a long long of the sum


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("op", ["broadcast_maximum", "broadcast_minimum", "_maximum"])
def test_two_tensors(op: str, block: int) -> None:
    check_numpy(op, in_block(MIXED, block), in_block(ANY, block))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("op", ["sign", "relu", "max", "min"])
def test_one_tensor(op: str, block: int) -> None:
    check_numpy(op, in_block(MIXED, block))


@pytest.mark.parametrize("axis", [0, 1, (0, 1)])
@pytest.mark.parametrize("op", ["max", "min"])
def test_reductions(op: str, axis: Any) -> None:
    for keepdims in (False, True):
        check_numpy(op, in_block(ANY, -1), axis=axis, keepdims=keepdims)


@pytest.mark.parametrize(("low", "high"), [(0, 100), (5, 3e9), (-1, 2**32), (-(2**32) + 7e8, 4e9)])
def test_clip(low: float, high: float) -> None:
    check_numpy("clip", MIXED, a_min=low, a_max=high)
    check_numpy("clip", -MIXED, a_min=low, a_max=high)


BEYOND = [
    np.array([[2**53, 1, 1, 2**53 + 1]]), np.array([[2**62, 2**62, 1, 1]]),
    np.array([[-(2**63), -1, 2**63 - 1, -(2**63)]]), np.array([[2**31 - 1, 1, 1, 2]], "int32"),
    np.array([[-1] * 4], "int32"), np.array([[-1] * 4]), ANY[:, :5], ANY[:, :5].astype("int32"),
]  # fmt: skip


@pytest.mark.parametrize("numbers", BEYOND)
@pytest.mark.parametrize("op", ["sum", "nansum", "mean", "prod", "nanprod"])
def test_sums_and_products(op: str, numbers: np.ndarray) -> None:
    for attrs in ({"axis": 1}, {"axis": 1, "keepdims": True}, {}, {"axis": 0}):
        check_numpy(op, numbers, **attrs)


@pytest.mark.parametrize(
    "op, numbers", [("max", MIXED), ("sum", BEYOND[0]), ("prod", np.array([[2**53 + 1, 3]]))]
)
def test_what_onnx_runtime_gets_wrong_is_rewritten(
    monkeypatch: pytest.MonkeyPatch, op: str, numbers: np.ndarray
) -> None:
    symbol, wrong = operator(op, 1), engine_module.WRONG_INTEGERS
    monkeypatch.setattr(engine_module, "WRONG_INTEGERS", set())
    optimized, _ = mxtrt.optimize(
        symbol, shapes={"x0": numbers.shape}, dtypes={"x0": "int64"}, min_subgraph_size=1,
        engine="onnxruntime",
    )  # fmt: skip
    is_right = run_mxnet(optimized, {"x0": numbers})[0] == [getattr(numbers, op)()]
    mxtrt.release(optimized)
    assert is_right == (f"Reduce{op.capitalize()}" not in wrong)


# -- the rewritten models themselves --------------------------------------------------------------

WRONG = COMPARISONS | SUMS
ONE = "(int64[N,M] x, int64[N,M] y, int64 n) => (int64[N,M] z)"
ROW = "(int64[N,M] x, int64[N,M] y, int64 n) => (int64[N] z)"
ALL = "(int64[N,M] x, int64[N,M] y, int64 n) => (int64 z)"


def model(signature: str, nodes: str) -> onnx.ModelProto:
    return parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g {signature} {{ {nodes} }}'
    )


def run(proto: onnx.ModelProto, **inputs: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


@pytest.mark.parametrize(
    ("signature", "nodes", "expected"),
    [
        (ONE, "z = Max (x)", MIXED),
        (ONE, "z = Max (x, y)", np.maximum(MIXED, ANY)),
        (ONE, "z = Min (x, n, y)", np.minimum(np.minimum(MIXED, 5), ANY)),
        (ONE, "z = Clip (x)", MIXED),
        (ONE, "z = Clip (x, n)", np.maximum(MIXED, 5)),
        (ONE, "z = Clip (x, , n)", np.minimum(MIXED, 5)),
        (ONE, "z = Clip (x, n, n)", np.full_like(MIXED, 5)),
        (ONE, "s = Sign (x) z = Mul (s, x)", np.abs(MIXED)),
        (ALL, "z = ReduceMax <keepdims = 0> (x)", MIXED.max()),
        (ROW, "z = ReduceMin <axes = [-1], keepdims = 0> (x)", MIXED.min(1)),
        (ALL, "z = ReduceSum <keepdims = 0> (x)", MIXED.sum()),
        (
            ONE,
            "i = Constant <value_ints = [1]> () k = ReduceSum (x, i) z = Add (x, k)",
            MIXED + MIXED.sum(1, keepdims=True),
        ),
        (
            ONE,
            "i = Cast <to = 6> (y) k = ReduceSum (i) s = Cast <to = 7> (k) z = Add (x, s)",
            MIXED + ANY.astype("int32").sum(dtype="int32"),
        ),
        (ALL, "z = ReduceProd <keepdims = 0> (x)", MIXED.prod()),
        (ALL, "z = ReduceProd <axes = [0, 1], keepdims = 0> (x)", MIXED.prod()),
        (ALL, "z = ReduceProd <axes = [-1, -2], keepdims = 0> (x)", MIXED.prod()),
        (ROW, "z = ReduceProd <axes = [1], keepdims = 0> (x)", MIXED.prod(1)),
        (ONE, "k = ReduceProd <axes = [0]> (y) z = Mul (x, k)", MIXED * ANY.prod(0)),
        (
            ONE,
            "i = Cast <to = 6> (y) k = ReduceProd (i) s = Cast <to = 7> (k) z = Add (x, s)",
            MIXED + ANY.astype("int32").prod(dtype="int32"),
        ),
        (ONE, "k = ReduceMin <axes = [1]> (x) z = Max (x, k)", MIXED),
        (ONE, "k = ReduceMax (y) z = Max (x, k)", np.maximum(MIXED, ANY.max())),
    ],
)
def test_rewritten(signature: str, nodes: str, expected: np.ndarray) -> None:
    rewritten = with_right_integers(model(signature, nodes), WRONG)
    found = run(rewritten, x=MIXED, y=ANY, n=np.array(5))
    np.testing.assert_array_equal(found, expected)
    assert {opset.domain for opset in rewritten.opset_import} <= {"", "mxtrt.integers"}


def test_in_bodies() -> None:
    proto = model(
        ONE,
        """
        yes = Constant <value = bool {1}> ()
        z = Loop (n, yes, x) <body = b (int64 i, bool c, int64[N,M] s) => (bool d, int64[N,M] t) {
            d = Identity (c)
            more = Add (s, i)
            held = Max (more, n)
            t = Min (held, y)
        }>
        """,
    )
    expected = MIXED
    for i in range(5):
        expected = np.minimum(np.maximum(expected + i, 5), ANY)
    found = run(with_right_integers(proto, WRONG), x=MIXED, y=ANY, n=np.array(5))
    np.testing.assert_array_equal(found, expected)


def test_other_types_are_left_alone() -> None:
    proto = model("(float[N] x) => (float[N] z)", "k = Clip (x) z = Max (k, x)")
    assert with_right_integers(proto, WRONG) is proto
