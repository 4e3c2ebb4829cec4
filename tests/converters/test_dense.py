"""``FullyConnected`` and matrix products against MXNet."""

from __future__ import annotations

import mxnet as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import check_operator, check_refused, random_array

A, B = mx.sym.var("a"), mx.sym.var("b")


@pytest.mark.parametrize("flatten", [True, False])
@pytest.mark.parametrize("no_bias", [True, False])
@pytest.mark.parametrize("shape", [(4, 6), (2, 3, 6), (2, 3, 1, 6)])
def test_fully_connected(shape: tuple[int, ...], no_bias: bool, flatten: bool) -> None:
    symbol = mx.sym.FullyConnected(
        mx.sym.var("data"), num_hidden=5, no_bias=no_bias, flatten=flatten, name="fc"
    )
    units = 6 if not flatten else shape[-1] * (1 if len(shape) == 2 else 3)
    params = {"fc_weight": (5, units), "fc_bias": (5,)}
    if no_bias:
        del params["fc_bias"]
    check_operator(symbol, {"data": shape}, params)


def _check_product(symbol: mx.sym.Symbol, **shapes: tuple[int, ...]) -> None:
    """Check with both factors fed at run time, and with the second one as a weight."""
    check_operator(symbol, shapes)
    check_operator(symbol, {"a": shapes.pop("a")}, shapes)


@pytest.mark.parametrize("b", [(4,), (4, 5), (4, 5, 6), (4, 1, 2, 3)])
@pytest.mark.parametrize("a", [(4,), (3, 4), (2, 3, 4), (1, 2, 3, 4)])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("transpose_a", [False, True])
def test_dot(transpose_a: bool, transpose_b: bool, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    vectors = len(a) == len(b) == 1  # MXNet refuses to transpose them
    flips = {} if vectors else {"transpose_a": transpose_a, "transpose_b": transpose_b}
    a = a[-1:] + a[:-1] if transpose_a else a
    b = b[1:] + b[:1] if transpose_b else b
    _check_product(mx.sym.dot(A, B, **flips), a=a, b=b)


@pytest.mark.parametrize("batch", [(2,), (1,), (2, 3), (1, 2, 1)])
@pytest.mark.parametrize("transposes", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_batch_dot(transposes: tuple[int, int], batch: tuple[int, ...]) -> None:
    transpose_a, transpose_b = map(bool, transposes)
    symbol = mx.sym.batch_dot(A, B, transpose_a=transpose_a, transpose_b=transpose_b)
    a = (4, 3) if transpose_a else (3, 4)
    b = (5, 4) if transpose_b else (4, 5)
    _check_product(symbol, a=batch + a, b=batch + b)


@pytest.mark.parametrize("transposes", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize(
    ("batch", "axis"), [((), -2), ((2,), -2), ((2,), 0), ((2, 3), 1), ((2, 3), -3), ((2, 3), -4)]
)
def test_linalg_gemm(batch: tuple[int, ...], axis: int, transposes: tuple[int, int]) -> None:
    transpose_a, transpose_b = map(bool, transposes)
    rank = len(batch) + 2

    def shape(rows: int, columns: int, transposed: bool) -> tuple[int, ...]:
        """Put the rows where the operator looks for them."""
        rows, columns = (columns, rows) if transposed else (rows, columns)
        sizes = [*batch, rows, columns]
        sizes[axis], sizes[rank - 2] = sizes[rank - 2], sizes[axis]
        return tuple(sizes)

    attrs = {"transpose_a": transpose_a, "transpose_b": transpose_b, "axis": axis, "alpha": 1.5}
    a, b = shape(3, 4, transpose_a), shape(4, 5, transpose_b)
    _check_product(mx.sym.linalg.gemm2(A, B, **attrs), a=a, b=b)
    gemm = mx.sym.linalg.gemm(A, B, mx.sym.var("c"), beta=0.5, **attrs)
    _check_product(gemm, a=a, b=b, c=shape(3, 5, False))


def test_float64_products() -> None:
    a, b = random_array((2, 3, 4), "float64"), random_array((2, 4, 5), "float64", 1)
    for symbol in (mx.sym.batch_dot(A, B), mx.sym.linalg.gemm2(A, B, alpha=0.1)):
        check_operator(symbol, {"a": a, "b": b})
    check_operator(mx.sym.dot(A, B), {"a": a, "b": b[0]})


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.data())
def test_any_dot(data: st.DataObject) -> None:
    sizes = st.lists(st.integers(1, 4), max_size=3)
    a, b = (data.draw(sizes, name) for name in "ab")
    transpose_a, transpose_b = (data.draw(st.booleans(), name) and bool(a or b) for name in "ab")
    inner = data.draw(st.integers(1, 5), "inner")
    _check_product(
        mx.sym.dot(A, B, transpose_a=transpose_a, transpose_b=transpose_b),
        a=(inner, *a) if transpose_a else (*a, inner),
        b=(*b, inner) if transpose_b else (inner, *b),
    )


def test_a_dense_result_may_be_asked_for() -> None:
    check_operator(mx.sym.dot(A, B, forward_stype="default"), {"a": (2, 3), "b": (3, 4)})
    symbol = mx.sym.batch_dot(A, B, forward_stype="default")
    check_operator(symbol, {"a": (5, 2, 3), "b": (5, 3, 4)})


def test_refused() -> None:
    symbol = mx.sym.dot(A, B, forward_stype="csr")
    check_refused(symbol, {"a": (2, 3), "b": (3, 4)}, "forward_stype='csr' makes a sparse array")
