"""Ask NVIDIA's parser about every operator; write docs/operators_parser.json.

    python docs/parse_operators.py [TESTS...]

Runs the tests of the converters with `check_operator` replaced: instead of running a symbol, the
ONNX graph of each of its operators alone, with sizes known and unknown, goes to the parser of
TensorRT-RTX, which needs no GPU. Takes some minutes; graphs that are equal are tried once. With
TESTS, only these run, and only operators are added that the file does not have.

The file also names the attributes to which no test gives another value than MXNet's default.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import mxtrt  # isort: skip
import mxnet as mx
import onnx
from onnx import TensorProto

from mxtrt import partition
from mxtrt.attributes import Attribute
from mxtrt.engines import _network, _nvidia
from mxtrt.onnx_model import export_onnx
from mxtrt.registry import registered_ops, registration

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "docs" / "operators_parser.json"
TESTS = ROOT / "tests"
MOST = 60  # graphs of one operator
NOT_COUNTED = {TensorProto.DOUBLE, TensorProto.INT8, TensorProto.UINT8}


class Parsed:
    """What the parser said of each operator, as a plugin of pytest that feeds it."""

    def __init__(self) -> None:
        self.api = _nvidia.api("tensorrt_rtx")
        self.seen: set[bytes] = set()
        self.operators: dict[str, dict[str, Any]] = {}
        self.values: dict[str, set[tuple[str, str]]] = {}  # of attributes, by operator

    def pytest_configure(self) -> None:
        """Replace what the tests import, before they are read."""
        sys.path.insert(0, str(TESTS))
        import operators  # type: ignore[import-not-found]

        operators.check_operator = self.check_operator
        partition.export_onnx = self.export_onnx  # type: ignore[attr-defined]

    def export_onnx(self, part: partition.Subgraph, known: Any = None) -> Any:
        """Export a part; a scratch one, which is one operator, goes to the parser too."""
        node = part.nodes[0]
        self.values.setdefault(node.op, set()).update(node.attrs.items())  # refused ones too
        proto, model = export_onnx(part, known)
        if part.name == "scratch":
            self.ask(node.op, proto)
        return proto, model

    def ask(self, op: str, proto: onnx.ModelProto) -> None:
        """Give the parser one graph."""
        found = self.operators.setdefault(op, {"accepted": 0, "tried": 0})
        types = {i.type.tensor_type.elem_type for i in (*proto.graph.input, *proto.graph.output)}
        content = op.encode() + proto.SerializeToString()
        if content in self.seen or found["tried"] == MOST or types & NOT_COUNTED:
            return
        self.seen.add(content)
        found["tried"] += 1
        reason = _network.refusal(self.api, proto)
        if reason is None:
            found["accepted"] += 1
        else:
            found.setdefault("refusal", reason.removeprefix(f"{self.api.title}: "))

    def untried(self, op: str) -> list[str]:
        """Return the attributes that no test of an operator sets to what is not the default."""
        found = registration(op)
        assert found is not None
        tried = set()
        for name, text in self.values[op]:
            attribute = found.attributes.get(name)
            if attribute is not None and _read(attribute, text) != attribute.default:
                tried.add(name)
        names = (a.name for a in found.attributes.values() if a.annotation != "Node")
        return [name for name in names if name not in tried]

    def check_operator(
        self,
        symbol: mx.sym.Symbol,
        inputs: Mapping[str, Any],
        params: Mapping[str, Any] | None = None,
        *,
        unknown_sizes: bool = True,
        **_: Any,
    ) -> None:
        """Do what the tests' own function does, up to the parser."""
        import operators

        arrays, weights = operators._arrays(inputs), operators._arrays(params or {})
        dtypes = {name: array.dtype.name for name, array in arrays.items()}
        known = {name: array.shape for name, array in arrays.items()}
        unknown = {name: (None,) * array.ndim for name, array in arrays.items()}
        for shapes in (known, unknown) if unknown_sizes else (known,):
            options = {"shapes": shapes, "dtypes": dtypes, "engine": "onnxruntime"}
            mxtrt.explain(symbol, operators._nd(weights), min_subgraph_size=1, **options)


def _read(attribute: Attribute, text: str) -> Any:
    try:
        return attribute.read(text)
    except (ValueError, SyntaxError, TypeError):
        return text  # a refusal


def main() -> None:
    """Run the tests and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tests", nargs="*", help="by default those of all converters")
    given = parser.parse_args().tests
    os.chdir(ROOT)
    parsed = Parsed()
    pytest.main(
        ["-q", "-p", "no:cacheprovider", *(given or ["tests/converters"])], plugins=[parsed]
    )
    operators = json.loads(DATA.read_text(encoding="utf-8"))["operators"] if given else {}
    known = registered_ops()
    for op in known:
        if op in parsed.operators and op not in operators:
            operators[op] = {**parsed.operators[op], "untried": parsed.untried(op)}
    content = {"parser": parsed.api.version, "operators": dict(sorted(operators.items()))}
    DATA.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print("operators that were not tried:", *(op for op in known if op not in operators))


if __name__ == "__main__":
    main()
