"""Converters of the user's own, and how a signature becomes an operator's schema."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import mxnet as mx
import numpy as np
import onnxruntime
import pytest
from operators import check_operator, check_refused, run_mxnet

import mxtrt
from mxtrt import registry
from mxtrt.errors import BadConverter, UnsupportedOp
from mxtrt.graph import Node
from mxtrt.registry import (
    converts,
    read_attributes,
    register_converter,
    registered_ops,
    registration,
)

ROOT = Path(__file__).parent.parent
DATA, OTHER = mx.sym.var("data"), mx.sym.var("other")


@pytest.fixture(autouse=True)
def no_converters_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    registered_ops()  # loads them
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    monkeypatch.setattr(registry, "_REFUSED", dict(registry._REFUSED))


class Power(mx.operator.CustomOp):
    """``scale * data ** power``, and the same of ``other`` where there are two."""

    def __init__(self, power: float, scale: float) -> None:
        super().__init__()
        self.power, self.scale = power, scale

    def forward(self, is_train: bool, req: Any, in_data: Any, out_data: Any, aux: Any) -> None:
        for x, out, how in zip(in_data, out_data, req):
            self.assign(out, how, self.scale * x**self.power)


@mx.operator.register("powers")
class PowerProp(mx.operator.CustomOpProp):
    def __init__(self, power: str = "2", scale: str = "1", count: str = "1") -> None:
        super().__init__(need_top_grad=False)
        self.power, self.scale, self.count = float(power), float(scale), int(count)

    def list_arguments(self) -> list[str]:
        return ["data", "other"][: self.count]

    def list_outputs(self) -> list[str]:
        return ["output0", "output1"][: self.count]

    def infer_shape(self, in_shape: Any) -> Any:
        return in_shape, in_shape, []

    def create_operator(self, ctx: Any, shapes: Any, dtypes: Any) -> Power:
        return Power(self.power, self.scale)


def powers(*inputs: mx.sym.Symbol, **attrs: Any) -> mx.sym.Symbol:
    made = mx.sym.Custom(*inputs, op_type="powers", name="p", **attrs)
    return mx.sym.Group([mx.sym.identity(output) for output in made])


def register_powers() -> None:
    @register_converter("Custom", op_type="powers")
    def convert(onnx: Any, *xs: Any, power: float = 2.0, scale: float = 1.0, count: int = 1) -> Any:
        if power < 0:
            raise UnsupportedOp(f"power={power}: 0 has none")
        exponents = (onnx.constant(power, x.dtype) for x in xs)
        made = [onnx.op("Pow", x, exponent) for x, exponent in zip(xs, exponents)]
        return [onnx.op("Mul", m, onnx.constant(scale, x.dtype)) for m, x in zip(made, xs)]


# -- Custom ----------------------------------------------------------------------------------------


def test_custom_stays_without_a_converter() -> None:
    sentence = (
        "no converter for 'powers'; write one with "
        "mxtrt.register_converter('Custom', op_type='powers')"
    )
    check_refused(powers(DATA), {"data": (2, 3)}, sentence)


@pytest.mark.parametrize("attrs", [{}, {"power": 3}, {"power": 1, "scale": -0.5}])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_custom_moves_with_a_converter(attrs: dict[str, Any], dtype: str) -> None:
    register_powers()
    data = np.linspace(0.5, 2, 6).reshape(2, 3).astype(dtype)
    check_operator(powers(DATA, **attrs), {"data": data})


def test_custom_of_two_inputs_and_outputs_and_weights() -> None:
    register_powers()
    symbol = powers(DATA, OTHER, count=2, power=2)
    check_operator(symbol, {"data": (2, 3)}, {"other": (4, 1)})


def test_custom_between_other_operators_makes_one_part() -> None:
    register_powers()
    symbol = mx.sym.relu(powers(mx.sym.relu(DATA)))
    report = mxtrt.explain(symbol)
    assert not report.left
    assert len(report.parts) == 1


def test_export_model_uses_it_too(tmp_path: Path) -> None:
    register_powers()
    symbol = powers(DATA, power=3, scale=0.5)
    path = mxtrt.export_model(symbol, {}, {"data": (2, 3)}, path=tmp_path / "powers.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    data = np.array([[1, 2, 3], [4, 5, 6]], "float32")
    (found,) = session.run(None, {"data": data})
    np.testing.assert_allclose(found, data**3 / 2, rtol=1e-6)


def test_a_refusal_of_a_custom_converter_is_reported() -> None:
    register_powers()
    check_refused(powers(DATA, power=-1), {"data": (2, 3)}, "power=-1.0: 0 has none")


def test_an_unknown_attribute_is_no_guess() -> None:
    @register_converter("Custom", op_type="powers")
    def convert(onnx: Any, x: Any, *, powr: float = 2.0) -> Any:
        return onnx.op("Pow", x, onnx.constant(powr, x.dtype))

    sentence = (
        "the converter of Custom:powers does not know the attribute power='3'; did you mean 'powr'?"
    )
    check_refused(powers(DATA, power=3), {"data": (2, 3)}, sentence)


def test_an_attribute_of_another_type_is_no_guess() -> None:
    @register_converter("Custom", op_type="powers")
    def convert(onnx: Any, x: Any, *, power: int = 2) -> Any:
        return onnx.op("Pow", x, onnx.constant(power, x.dtype))

    check_refused(powers(DATA, power=2.5), {"data": (2, 3)}, "power='2.5' is no int")


def test_attributes_that_mean_nothing_to_mxnet_count_in_operators_of_users() -> None:
    assert "workspace" in registry.WITHOUT_EFFECT
    register_converter("my_op")(lambda onnx, x: onnx.op("Relu", x))
    register_converter("Custom", op_type="mine")(lambda onnx, x: onnx.op("Relu", x))
    assert registration("my_op").without_effect == frozenset()
    assert registration("Custom:mine").without_effect == {"op_type"}


def test_another_number_of_inputs_stays() -> None:
    @register_converter("Custom", op_type="powers")
    def convert(onnx: Any, x: Any, *, count: int = 1) -> Any:
        return onnx.op("Mul", x, x)

    sentence = "2 inputs; the converter of Custom:powers does not know this form"
    check_refused(powers(DATA, OTHER, count=2), {"data": (2,), "other": (2,)}, sentence)


def test_an_onnx_operator_that_does_not_exist_is_reported() -> None:
    register_converter("Custom", op_type="powers")(lambda onnx, x: onnx.op("Powr", x))
    check_refused(powers(DATA), {"data": (2, 3)}, "Powr")


@pytest.mark.parametrize("made", [None, 3, ("x", None)])
def test_a_converter_that_returns_no_names(made: Any) -> None:
    register_converter("Custom", op_type="powers")(lambda onnx, x: made)
    with pytest.raises(BadConverter, match=r"converts Custom 'p' and returned .*onnx\.op"):
        mxtrt.explain(powers(DATA))


def test_an_input_handed_through_has_to_be_named() -> None:
    register_converter("Custom", op_type="powers")(lambda onnx, x: x)
    with pytest.raises(BadConverter, match=r"for an input itself onnx.op\('Identity', x\)"):
        mxtrt.explain(powers(DATA))


def test_an_ignored_input_is_no_input_of_the_part() -> None:
    @register_converter("Custom", op_type="powers", ignores=["label"])
    def convert(onnx: Any, x: Any, label: Any, *, count: int = 1) -> Any:
        square = onnx.op("Mul", x, x)
        return square, square

    symbol = mx.sym.relu(mx.sym.Custom(DATA, OTHER, op_type="powers", count=2)[0])
    optimized, _ = mxtrt.optimize(symbol, shapes={"data": (1, 3), "other": (1, 3)})
    assert optimized.list_arguments() == ["data"]
    data = np.array([[1, -2, 3]], "float32")
    expected = run_mxnet(symbol, {"data": data, "other": data})
    np.testing.assert_allclose(run_mxnet(optimized, {"data": data})[0], expected[0])


# -- library operators -----------------------------------------------------------------------------

LIBRARY = """
import sys, numpy as np, mxtrt, mxnet as mx
mx.library.load(sys.argv[1], verbose=False)
a, b = mx.sym.var("a"), mx.sym.var("b")
symbol = mx.sym.relu(mx.sym.scaled_sum(mx.sym.relu(a), b, scale=-2.5, name="s"))
(reason,) = [r for node, r in mxtrt.explain(symbol).left.items() if node.op == "scaled_sum"]
assert reason == (
    "no converter for scaled_sum; write one with mxtrt.register_converter('scaled_sum')"), reason

@mxtrt.register_converter("scaled_sum")
def convert(onnx, a, b, *, scale: float = 1.0):
    return onnx.op("Mul", onnx.op("Add", a, b), onnx.constant(scale, a.dtype))

arrays = {name: mx.nd.array(np.random.default_rng(0).standard_normal((2, 3))) for name in "ab"}
for shapes in (None, {"a": (2, 3), "b": (2, 3)}, {"a": (None, 3), "b": (None, 3)}):
    optimized, _ = mxtrt.optimize(symbol, shapes=shapes)
    assert not mxtrt.report(optimized).left
    want, have = (s.bind(mx.cpu(), arrays).forward()[0].asnumpy() for s in (symbol, optimized))
    assert want.any()
    np.testing.assert_allclose(have, want, rtol=1e-6)
"""


def test_an_operator_of_a_library(tmp_path: Path) -> None:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    package, library = Path(mx.__file__).parent, tmp_path / "liboperator.so"
    sources = [ROOT / "tests/library_operator.cc", package / "src/lib_api.cc"]
    subprocess.run(
        [compiler, "-std=c++17", "-shared", "-fPIC", f"-I{package / 'include'}",
         *map(str, sources), "-o", str(library)],
        check=True,
    )  # fmt: skip
    command = [sys.executable, "-c", LIBRARY, str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- what cannot be registered ---------------------------------------------------------------------


def converter(onnx: Any, x: Any) -> str:
    return onnx.op("Relu", x)


@pytest.mark.parametrize(
    ("op", "options", "sentence"),
    [
        ("relu", {}, "relu has a converter already, mxtrt.converters.*; replaces=True"),
        ("tanh", {}, "tanh has a converter already, mxtrt.converters.functions._function"),
        ("_shuffle", {}, r"_shuffle is refused already \(draws random numbers.*; replaces=True"),
        ("Custom", {}, "Custom needs op_type=…: .*named as in"),
        ("my_op", {"op_type": "mine"}, "'my_op' takes no op_type: .*named as in"),
        ("", {}, "the name of an operator, not ''"),
        (3, {}, "the name of an operator, not 3"),
        ("my_op", {"ignores": ["y"]}, "ignores names 'y', which is no input of .*converter"),
    ],
)
def test_registrations_that_fail(op: Any, options: dict[str, Any], sentence: str) -> None:
    before = dict(registry._REGISTRY)
    with pytest.raises(BadConverter, match=sentence):
        register_converter(op, **options)(converter)
    assert before == registry._REGISTRY


def test_a_custom_operator_has_one_converter() -> None:
    register_converter("Custom", op_type="mine")(converter)
    register_converter("Custom", op_type="other")(converter)
    with pytest.raises(BadConverter, match="Custom:mine has a converter already, test_registry"):
        register_converter("Custom", op_type="mine")(converter)


def test_replacing() -> None:
    register_converter("relu", replaces=True)(lambda onnx, x: onnx.op("Neg", x))
    optimized, _ = mxtrt.optimize(mx.sym.relu(DATA), min_subgraph_size=1)
    (found,) = run_mxnet(optimized, {"data": np.array([1, -2], "float32")})
    assert found.tolist() == [-1, 2]
    register_converter("_shuffle", replaces=True)(lambda onnx, x: onnx.op("Identity", x))
    assert not mxtrt.explain(mx.sym.shuffle(DATA), min_subgraph_size=1).left
    assert "_shuffle" not in registry.refused_ops()


def without_model() -> None: ...


def only_keywords(*, onnx: Any) -> None: ...


def any_keyword(onnx: Any, x: Any, **attrs: Any) -> None: ...


def no_type(onnx: Any, x: Any, *, alpha=1) -> None: ...  # type: ignore[no-untyped-def]


def strange_type(onnx: Any, x: Any, *, alpha: complex = 1) -> None: ...


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (without_model, "test_registry.without_model takes no model to write into"),
        (only_keywords, "only_keywords takes no model to write into"),
        (any_keyword, r"any_keyword takes \*\*attrs; an attribute has to be named"),
        (no_type, "no_type: the attribute alpha has no type; the types that can be read are bool"),
        (strange_type, "strange_type: the attribute alpha has 'complex'; the types that can be"),
        ("relu", "a converter is a function, not 'relu'"),
    ],
)
def test_signatures_that_cannot_be_read(function: Any, sentence: str) -> None:
    with pytest.raises(BadConverter, match=sentence):
        register_converter("my_op")(function)
    with pytest.raises(ValueError, match=sentence):  # what mxtrt's own converters are held to
        converts("my_op")(function)
    assert registration("my_op") is None


# -- types -----------------------------------------------------------------------------------------


def annotated() -> Iterator[Any]:
    yield from [int, float, bool, str, "int", "float | None", "tuple[int, ...]"]
    yield from [tuple[int, ...], Optional[int], typing.Tuple[float, ...], "Optional[str]"]  # noqa: UP006
    yield from ["typing.Optional[tuple[int, ...]]", Optional[tuple[int, ...]]]


@pytest.mark.parametrize("annotation", list(annotated()), ids=str)
def test_types_in_every_notation(annotation: Any) -> None:
    def convert(onnx: Any, x: Any, *, alpha: int = 0) -> None: ...

    convert.__annotations__["alpha"] = annotation
    register_converter("my_op")(convert)
    attribute = registration("my_op").attributes["alpha"]
    base = attribute.annotation.removesuffix(" | None")
    text, value = {
        "int": ("3", 3),
        "float": ("3", 3.0),
        "bool": ("True", True),
        "str": ("3", "3"),
        "tuple[int, ...]": ("[3, 4L]", (3, 4)),
        "tuple[float, ...]": ("(3,)", (3.0,)),
    }[base]
    assert attribute.read(text) == value
    assert type(attribute.read(text)) is type(value)
    if base != attribute.annotation:
        assert attribute.read("None") is None


@pytest.mark.parametrize(
    ("annotation", "text"),
    [("int", "2.5"), ("int", "None"), ("int", "two"), ("bool", "2"), ("float", "x"),
     ("tuple[int, ...]", "(1, 2.5)"), ("tuple[float, ...]", "(None,)"), ("float", "None")],
)  # fmt: skip
def test_texts_that_are_no_such_thing(annotation: str, text: str) -> None:
    def convert(onnx: Any, x: Any, *, power: Any) -> Any:
        return onnx.op("Relu", x)

    convert.__annotations__["power"] = annotation
    register_converter("Custom", op_type="texts")(convert)
    node = Node("Custom", "n", {"op_type": "texts", "power": text}, (), (), {})
    with pytest.raises(UnsupportedOp, match=f"power={re.escape(repr(text))} is no "):
        read_attributes(node, registration("Custom:texts"))


def test_the_decorator_returns_the_function() -> None:
    assert register_converter("my_op")(converter) is converter
    assert mxtrt.register_converter is register_converter
    assert issubclass(BadConverter, mxtrt.errors.UserError)
