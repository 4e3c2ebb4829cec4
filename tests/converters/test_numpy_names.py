"""Every NumPy operator of MXNet is converted or refused, and named by a test that runs it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from operators import check_refused, operator

from mxtrt.registry import refused_ops, registered_ops
from mxtrt.symbol_json import operator_names, primary_name

NO_INFERENCE = {
    "_npi_backward_ediff1d", "_npi_backward_nan_to_num", "_npi_backward_polyval",
    "_npi_hsplit_backward", "_npi_share_memory", "_npx_constraint_check",
}  # fmt: skip
"""Gradients, and operators that symbols do not hold."""

PREFIXES = ("_np_", "_npi_", "_npx_")


def numpy_operators() -> set[str]:
    names = {primary_name(name) for name in operator_names()}
    return {name for name in names if name.startswith(PREFIXES)} - NO_INFERENCE


def test_every_operator_is_converted_or_refused() -> None:
    assert numpy_operators() <= {*registered_ops(), *refused_ops()}


def test_every_converter_has_a_test() -> None:
    converted = numpy_operators() & {*registered_ops()}
    tested = {name for path in Path(__file__).parent.glob("test_*.py") for name in _tested(path)}
    assert not converted - tested


EIGEN = "returns eigenvalues in the order in which LAPACK happens to find them"
DYNAMIC = (
    "the values of its input decide the size of its output, which MXNet has to know beforehand"
)

REFUSED: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "_npi_bincount": ([np.arange(3)], {"minlength": 2}, DYNAMIC),
    "_npi_delete": ([(3,)], {"int_ind": 1}, "MXNet tells the size of its output after the run"),
    "_npi_eig": ([(3, 3)], {}, EIGEN),
    "_npi_eigvals": ([(3, 3)], {}, EIGEN),
    "_npi_unique": ([(3,)], {}, DYNAMIC),
    "_npx_nonzero": ([(3,)], {}, DYNAMIC),
}
"""The operators that are refused whatever their attributes are, but for random numbers."""


@pytest.mark.usefixtures("np_shape")
@pytest.mark.parametrize("op", REFUSED)
def test_refused(op: str) -> None:
    inputs, attrs, sentence = REFUSED[op]
    arrays = {f"x{i}": given for i, given in enumerate(inputs)}
    check_refused(operator(op, len(inputs), **attrs), arrays, sentence)


def test_every_refusal_has_a_test() -> None:
    random = {op for op, sentence in refused_ops().items() if sentence.startswith("draws random")}
    assert (numpy_operators() & {*refused_ops()}) - random == {*REFUSED}


def _tested(path: Path) -> Iterator[str]:
    """Return what a test's strings name: whole names, and f-strings filled with other strings."""
    tree = ast.parse(path.read_text())
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    yield from texts
    words = [text for text in texts if re.fullmatch(r"\w+", text)]
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and ast.unparse(node)[2:].startswith(PREFIXES):
            parts = [p.value if isinstance(p, ast.Constant) else None for p in node.values]
            if parts.count(None) == 1:
                for word in [*words, "1", "2", "3"]:
                    yield "".join(word if part is None else str(part) for part in parts)
