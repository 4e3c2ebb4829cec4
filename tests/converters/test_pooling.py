"""Pooling against MXNet."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from operators import check_operator, random_array


def _check(
    shape: tuple[int, ...], dtype: str = "float32", op: str = "Pooling", **attrs: Any
) -> None:
    symbol = getattr(mx.sym, op)(mx.sym.var("data"), name="pool", **attrs)
    # off zero, so that a zero taken for data shows
    check_operator(symbol, {"data": random_array(shape, dtype) - np.asarray(0.5, dtype)})


KINDS = [
    {"pool_type": "max"},
    {"pool_type": "avg"},
    {"pool_type": "avg", "count_include_pad": False},
    {"pool_type": "avg", "count_include_pad": True},
    {"pool_type": "sum"},
    {"pool_type": "lp", "p_value": 1},
    {"pool_type": "lp", "p_value": 2},
    {"pool_type": "lp", "p_value": 3},
]
WINDOWS = [
    ((2, 3, 7, 6), {"kernel": (2, 2)}),
    ((2, 3, 7, 6), {"kernel": (3, 3), "stride": (2, 2)}),
    ((2, 3, 8, 6), {"kernel": (3, 3), "stride": (2, 2), "pad": (1, 1)}),
    ((2, 3, 7, 6), {"kernel": (3, 2), "stride": (1, 3), "pad": (2, 1)}),
    ((1, 2, 8, 7), {"kernel": (2, 3), "stride": (3, 2), "pad": (0, 1)}),
    ((1, 1, 1, 1), {"kernel": (1, 1)}),
    ((1, 1, 1, 1), {"kernel": (3, 3), "pad": (1, 1)}),
    # a stride past the kernel: MXNet's last window of `full` may hold nothing
    ((1, 2, 6, 5), {"kernel": (1, 1), "stride": (2, 2)}),
    ((1, 2, 7, 6), {"kernel": (2, 2), "stride": (4, 4), "pad": (1, 0)}),
    ((2, 3, 9), {"kernel": (3,), "stride": (2,), "pad": (1,)}),
    ((2, 3, 8), {"kernel": (2,), "stride": (3,)}),
    ((1, 2, 5, 6, 7), {"kernel": (2, 3, 2), "stride": (2, 2, 3)}),
    # no empty window over three axes: MXNet's average of nothing is NaN there and 0 elsewhere
    ((1, 2, 5, 6, 8), {"kernel": (3, 3, 2), "stride": (2, 3, 2), "pad": (1, 0, 1)}),
]


@pytest.mark.parametrize("convention", ["valid", "full"])
@pytest.mark.parametrize(("shape", "window"), WINDOWS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_pooling(
    kind: dict[str, Any], shape: tuple[int, ...], window: dict[str, Any], convention: str
) -> None:
    _check(shape, pooling_convention=convention, **kind, **window)


@pytest.mark.parametrize("convention", ["valid", "full"])
@pytest.mark.parametrize(("shape", "window"), [w for w in WINDOWS if len(w[0]) == 4])
@pytest.mark.parametrize("pool_type", ["max", "avg", "sum"])
def test_pooling_v1(
    pool_type: str, shape: tuple[int, ...], window: dict[str, Any], convention: str
) -> None:
    attrs = {"pool_type": pool_type, "pooling_convention": convention, **window}
    _check(shape, op="Pooling_v1", **attrs)
    _check(shape, op="Pooling_v1", global_pool=True, **attrs)


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 3, 7), (1, 2, 3, 1, 5)])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_global_pool(kind: dict[str, Any], shape: tuple[int, ...]) -> None:
    _check(shape, global_pool=True, **kind)
    ones = (1,) * (len(shape) - 2)  # MXNet ignores the window
    _check(shape, global_pool=True, kernel=ones, pad=ones, pooling_convention="full", **kind)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 3), (2, 2), (1, 2), (3, 1)])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_same(kind: dict[str, Any], kernel: int, stride: int) -> None:
    # MXNet insists on three zeros; its oneDNN cannot do all of these, which float16 keeps away
    dtype = "float16" if kind["pool_type"] in {"max", "avg"} else "float32"
    window = {"kernel": (kernel,), "stride": (stride,), "pad": (0, 0, 0)}
    _check((2, 3, 7), dtype, pooling_convention="same", **window, **kind)


@pytest.mark.parametrize("global_pool", [False, True])
@pytest.mark.parametrize(
    ("layout", "shape"), [("NWC", (2, 7, 3)), ("NHWC", (2, 7, 6, 3)), ("NDHWC", (1, 5, 6, 7, 2))]
)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_channels_last(
    kind: dict[str, Any], layout: str, shape: tuple[int, ...], global_pool: bool
) -> None:
    kernel, stride = (3, 2, 2)[: len(shape) - 2], (2, 2, 1)[: len(shape) - 2]
    window = {"kernel": kernel, "stride": stride, "pooling_convention": "full"}
    _check(shape, layout=layout, global_pool=global_pool, **window, **kind)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_float16(kind: dict[str, Any]) -> None:
    window = {"kernel": (3, 2), "stride": (2, 3), "pad": (1, 0)}
    _check((2, 3, 8, 7), "float16", pooling_convention="full", **window, **kind)


@pytest.mark.parametrize("convention", ["valid", "full"])
def test_float64(convention: str) -> None:
    # ONNX Runtime's CPU averages float32 only
    window = {"kernel": (3, 2), "stride": (2, 3), "pad": (1, 0)}
    _check((2, 3, 8, 7), "float64", pooling_convention=convention, **window)
    _check((2, 3, 8, 7), "float64", pooling_convention=convention, kernel=(1, 1), stride=(2, 2))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_any_pooling(data: st.DataObject) -> None:
    axes = data.draw(st.integers(1, 3), "axes")
    convention = data.draw(st.sampled_from(["valid", "full"]), "convention")
    drawn = {
        name: tuple(data.draw(st.integers(low, high), name) for _ in range(axes))
        for name, (low, high) in {
            "kernel": (1, 4),
            "stride": (1, 4),
            "pad": (0, 2),
            "size": (1, 9),
        }.items()
    }
    size = drawn.pop("size")
    for k, n, p in zip(drawn["kernel"], size, drawn["pad"]):
        assume(p < k <= n + 2 * p)  # what MXNet takes
    if axes == 3:  # MXNet's average of nothing is NaN over three axes and 0 elsewhere
        for k, s, n, p in zip(drawn["kernel"], drawn["stride"], size, drawn["pad"]):
            assume(convention == "valid" or -(-(n + 2 * p - k) // s) * s - p < n)
    kind = data.draw(st.sampled_from(KINDS), "kind")
    _check((1, 2, *size), pooling_convention=convention, **drawn, **kind)
