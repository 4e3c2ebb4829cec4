"""mx.np's and mx.npx's other names of classic operators: numbers and nothing, against MXNet.

Left out is what MXNet itself does not compute. It dies in ``take`` and ``pick`` from an axis
without elements and in ``SequenceMask`` of nothing. Where oneDNN would have to work on nothing, in
``FullyConnected``, ``LeakyReLU``, softrelu and ``Flatten``, it raises an error and leaves a
primitive behind, which the next operator runs on memory that was freed: any later test may die.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import check_numpy, check_operator, operator, random_array

pytestmark = pytest.mark.usefixtures("np_shape")

ODD_SHAPES = [(), (0,), (2, 0), (0, 3), (3, 1)]

ANY_RANK: list[tuple[str, dict[str, Any]]] = [
    ("clip", {"a_min": -0.5, "a_max": 0.5}), ("expand_dims", {"axis": 0}),
    ("expand_dims", {"axis": -1}), ("Cast", {"dtype": "int32"}), ("tile", {"reps": (2,)}),
    ("tile", {"reps": (2, 1, 2)}), ("tile", {"reps": ()}), ("tile", {"reps": (0,)}),
    ("repeat", {"repeats": 2}), ("repeat", {"repeats": 0}), ("zeros_like", {}), ("ones_like", {}),
    ("shape_array", {}), ("size_array", {}), ("_maximum_scalar", {"scalar": 0.1}),
    ("_minimum_scalar", {"scalar": 0.1}), ("one_hot", {"depth": 4}), ("BlockGrad", {}),
    ("_contrib_arange_like", {"start": 2, "step": 3}), ("_hypot_scalar", {"scalar": 2.0}),
    ("erf", {}), ("gamma", {}), ("gammaln", {}), ("smooth_l1", {"scalar": 2.0}), ("Dropout", {}),
    ("Activation", {"act_type": "softsign"}),
]  # fmt: skip

WITH_AXES: list[tuple[str, dict[str, Any]]] = [
    ("repeat", {"repeats": 0, "axis": -1}),
    ("argsort", {"axis": -1}), ("argsort", {"axis": None}), ("sort", {"axis": -1}),
    ("sort", {"axis": None, "is_ascend": False}), ("_contrib_arange_like", {"axis": 0}),
    ("softmax", {"axis": 0}), ("log_softmax", {"axis": -1}),
    ("slice", {"begin": (0,), "end": (1,)}), ("slice", {"begin": (-1,), "end": (None,)}),
    ("slice", {"begin": (None,), "end": (None,), "step": (-1,)}),
    ("_split_v2", {"indices": (0, 1), "axis": 0}),
]  # fmt: skip


@pytest.mark.parametrize("op, attrs", ANY_RANK)
def test_numbers_and_nothing(op: str, attrs: dict[str, Any]) -> None:
    for shape in ODD_SHAPES:
        check_numpy(op, np.abs(random_array(shape)), **attrs)


@pytest.mark.parametrize("op, attrs", WITH_AXES)
def test_nothing(op: str, attrs: dict[str, Any]) -> None:
    for shape in ODD_SHAPES[1:]:
        check_numpy(op, random_array(shape), **attrs)


@pytest.mark.parametrize("op", ["broadcast_maximum", "broadcast_minimum"])
def test_two_arrays(op: str) -> None:
    for one, other in (((), ()), ((), (2, 3)), ((2, 0), ()), ((0, 3), (1, 3)), ((3, 1), (1, 2))):
        check_numpy(op, random_array(one), random_array(other, seed=1))


@pytest.mark.parametrize("op, shapes, attrs", [
    ("take", [(3, 2), ()], {"axis": 0}), ("take", [(3, 2), (0,)], {"axis": 1, "mode": "wrap"}),
    ("take", [(3, 2), (2, 0)], {"axis": 0}), ("take", [(3, 0), (2,)], {"axis": 0}),
    ("Embedding", [(), (3, 2)], {"input_dim": 3, "output_dim": 2}),
    ("Embedding", [(0, 4), (3, 2)], {"input_dim": 3, "output_dim": 2}),
    ("gather_nd", [(3, 2), (1, 0)], {}), ("gather_nd", [(3, 2), (2, 0)], {}),
    ("pick", [(0, 3), (0,)], {"axis": -1}), ("reshape_like", [(0, 3), (2, 0)], {}),
    ("SwapAxis", [(2, 0, 3)], {"dim1": 0, "dim2": 2}),
    ("batch_dot", [(0, 2, 3), (0, 3, 1)], {}), ("batch_dot", [(2, 0, 3), (2, 3, 1)], {}),
    ("batch_dot", [(2, 3, 0), (2, 0, 1)], {}),
    ("LayerNorm", [(0, 3), (3,), (3,)], {}), ("_linalg_inverse", [(0, 2, 2)], {}),
    ("_linalg_det", [(0, 2, 2)], {}), ("_linalg_slogdet", [(0, 2, 2)], {}),
    ("where", [(0, 3), (0, 3), (0, 3)], {}),
])  # fmt: skip
def test_other_inputs(op: str, shapes: list[tuple[int, ...]], attrs: dict[str, Any]) -> None:
    arrays = [random_array(shape, seed=i) for i, shape in enumerate(shapes)]
    if op in {"take", "gather_nd"}:
        arrays[1] = np.zeros(shapes[1], "int64")
    if op == "Embedding":
        arrays[0] = np.full(shapes[0], 2, "float32")
    check_numpy(op, *arrays, **attrs)


@pytest.mark.parametrize("op", ["_linalg_inverse", "_linalg_det", "_linalg_slogdet"])
def test_one_matrix(op: str) -> None:
    check_numpy(op, random_array((3, 3), "float64"))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_two_operators(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(0, 3), max_size=3)))
    kept = [
        (op, attrs) for op, attrs in ANY_RANK if op not in {"shape_array", "size_array", "Cast"}
    ]
    first, second = (operator(op, 1, **attrs) for op, attrs in data.draw(st.permutations(kept))[:2])
    check_operator(second(x0=first), {"x0": np.abs(random_array(shape)) + np.float32(0.1)})
